# Counters of the hot path: plain C integers, read by the metrics collector at scrape time.

cdef extern from *:
    """
    #ifdef TQDB_COUNTING_SWITCH
    static int tq_counting = 1;
    #define TQ_COUNTING tq_counting
    #define tq_set_counting(on) (tq_counting = (on))
    #else
    #define TQ_COUNTING 1
    #define tq_set_counting(on) ((void)(on))
    #endif
    """
    bint COUNTING "TQ_COUNTING"
    void tq_set_counting(bint on) nogil


def set_counting(bint on):
    """Turns counting off and on where the build allows it (``scripts/cost-of-metrics``); else nothing happens."""
    tq_set_counting(on)


cdef enum QueryType:
    QT_INSERT = 0
    QT_UPDATE
    QT_DELETE
    QT_REPLACE
    QT_SELECT
    QT_OTHER
    QT_COUNT

QUERY_TYPES = ("insert", "update", "delete", "replace", "select", "other")

cdef enum Reason:
    R_NO_HINT = 0
    R_IN_TRANSACTION
    R_NOT_BATCHABLE
    R_SESSION_STATE
    R_CHARSET
    R_TABLE
    R_OVERSIZE
    R_SINGLE
    R_RETRY
    R_DRAINING
    R_COUNT

REASONS = ("no_hint", "in_transaction", "not_batchable", "session_state", "charset", "table", "oversize",
           "single", "retry", "draining")

cdef enum FlushReason:
    FL_FULL = 0
    FL_BYTES
    FL_DEADLINE
    FL_IDLE
    FL_NOBODY_LEFT
    FL_TOGETHER
    FL_DRAIN
    FL_COUNT

FLUSH_REASONS = ("full", "bytes", "deadline", "idle", "nobody_left", "together", "drain")

cdef enum Method:
    M_MULTI_ROW = 0     # one INSERT with everybody's rows
    M_PIPELINE          # everybody's own statement in one transaction
    M_KEYS              # one UPDATE with the keys of everybody's rows
    M_COUNT

METHODS = ("multi_row", "pipeline", "keys")

cdef enum RetryCause:
    RC_ERROR = 0
    RC_CONSTRAINT
    RC_DATA
    RC_DEADLOCK
    RC_SERIALIZATION
    RC_TIMEOUT
    RC_WARNING
    RC_MISMATCH
    RC_CONNECTION       # it was lost before anything could have been kept
    RC_COUNT

RETRY_CAUSES = ("error", "constraint", "data", "deadlock", "serialization", "timeout", "warning", "mismatch",
                "connection")

BATCH_SIZE_BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SECONDS_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

cdef enum:
    SIZE_BUCKETS = 11
    SECONDS_BUCKETS = 15

cdef double[10] SIZE_EDGE
cdef double[14] SECONDS_EDGE
for _i, _edge in enumerate(BATCH_SIZE_BOUNDS):
    SIZE_EDGE[_i] = _edge
for _i, _edge in enumerate(SECONDS_BOUNDS):
    SECONDS_EDGE[_i] = _edge

cdef enum LatencyKind:
    LK_BATCHED = 0      # writes that went in a batch
    LK_ALONE            # other writes
    LK_REST             # everything else
    LK_COUNT

LATENCY_KINDS = ("batched", "alone", "rest")

cdef enum:
    # The fine histogram of microseconds, for percentiles: four steps for each doubling.
    FINE_STEPS = 4
    FINE_SLOTS = 128    # up to 2^33 microseconds

ctypedef struct SizeHistogram:
    uint64_t[11] bucket
    double total

ctypedef struct SecondsHistogram:
    uint64_t[15] bucket
    double total


cdef inline void observe_size(SizeHistogram* h, double value) noexcept nogil:
    cdef int i = 0
    if not COUNTING:
        return
    while i < SIZE_BUCKETS - 1 and value > SIZE_EDGE[i]:
        i += 1
    h.bucket[i] += 1
    h.total += value


cdef inline void observe_seconds(SecondsHistogram* h, double value) noexcept nogil:
    cdef int i = 0
    if not COUNTING:
        return
    while i < SECONDS_BUCKETS - 1 and value > SECONDS_EDGE[i]:
        i += 1
    h.bucket[i] += 1
    h.total += value


cdef inline void observe_fine(uint64_t* h, double seconds) noexcept nogil:
    cdef uint64_t micros = <uint64_t>(seconds * 1e6) if seconds > 0 else 0
    cdef int doublings
    if not COUNTING:
        return
    if micros < FINE_STEPS:
        h[micros] += 1
        return
    doublings = 61 - tq_clz64(micros)           # of 4 microseconds
    h[min(FINE_SLOTS - 1, FINE_STEPS * doublings + <int>(micros >> doublings))] += 1


def fine_percentile(counts, double share):
    """Milliseconds below which ``share`` (0 to 1) of a fine histogram's entries lie; None if it is empty."""
    cdef double seen = 0
    cdef double total = sum(counts)
    cdef int slot, doublings
    if not total:
        return None
    for slot in range(FINE_SLOTS):
        seen += counts[slot]
        if seen >= total * share:
            break
    if slot < 2 * FINE_STEPS:
        return (slot + 0.5) / 1000
    doublings = slot // FINE_STEPS - 1
    return (slot % FINE_STEPS + FINE_STEPS + 0.5) * (1 << doublings) / 1000


cdef bytes label_value(bytes raw):
    """As the exposition formats want it: UTF-8, with backslash, quote and newline escaped."""
    cdef str text = raw.decode("utf-8", "replace")
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").encode()


cdef enum:
    MAX_PLACES = 63         # where internal errors are counted apart, "other" beside them

ctypedef struct SourceCounters:
    uint64_t[6] queries
    uint64_t[6] batched
    uint64_t[6][10] excluded
    SecondsHistogram[6] latency


cdef class Source:
    """Where statements come from (the hint's file and line), with what was counted for it."""
    cdef readonly bytes file
    cdef readonly bytes line
    cdef bytes labels               # as they stand in the exposition, without braces
    cdef SourceCounters n

    def __init__(self, bytes file, bytes line):
        self.file = file
        self.line = line
        self.labels = b'file="' + label_value(file) + b'",line="' + label_value(line) + b'"'

    cdef inline bint nowhere(self) noexcept:
        """No hint has told it."""
        return not PyBytes_GET_SIZE(self.file) and not PyBytes_GET_SIZE(self.line)

    cdef uint64_t writes(self) noexcept:
        cdef int q
        cdef uint64_t total = 0
        for q in range(QT_REPLACE + 1):
            total += self.n.queries[q]
        return total

    cdef uint64_t batched_writes(self) noexcept:
        cdef int q
        cdef uint64_t total = 0
        for q in range(QT_REPLACE + 1):
            total += self.n.batched[q]
        return total


cdef class Stats:
    """All counters of one process; sources are bounded by ``max_label_sets``."""
    cdef public int max_label_sets
    cdef dict sources
    cdef Source none
    cdef Source other
    cdef public uint64_t label_sets_dropped
    cdef uint64_t[QT_COUNT][R_COUNT] individual
    cdef uint64_t[QT_COUNT] batched
    cdef uint64_t[QT_COUNT] backend_writes
    cdef uint64_t[FL_COUNT] flush
    cdef uint64_t[RC_COUNT] retries
    cdef SizeHistogram[QT_COUNT] batch_size
    cdef SecondsHistogram[QT_COUNT] batch_delay
    cdef SecondsHistogram[QT_COUNT] batch_latency
    cdef public uint64_t database_queries
    cdef public uint64_t batches
    cdef uint64_t[M_COUNT] methods
    cdef public double current_delay_ms
    cdef uint64_t[2] hint_errors
    cdef uint64_t[2] protocol_errors
    cdef uint64_t[LK_COUNT][FINE_SLOTS] fine
    cdef readonly dict refused          # (dialect, kind) -> sessions
    cdef readonly dict internal_errors  # place -> exceptions that were caught there

    def __init__(self, int max_label_sets=1000):
        self.max_label_sets = max_label_sets
        self.sources = {}
        self.refused = {}
        self.internal_errors = {}
        self.none = Source(b"", b"")
        self.other = Source(b"other", b"other")

    cdef Source source(self, const char* file, Py_ssize_t nfile, const char* line, Py_ssize_t nline):
        if nfile == 0 and nline == 0:
            return self.none
        cdef bytes f = PyBytes_FromStringAndSize(file, nfile)
        cdef bytes n = PyBytes_FromStringAndSize(line, nline)
        found = self.sources.get((f, n))
        if found is not None:
            return <Source>found
        if len(self.sources) >= self.max_label_sets:
            self.label_sets_dropped += 1
            return self.other
        made = Source(f, n)
        self.sources[(f, n)] = made
        return made

    cdef inline void count_batched(self, int qt, int writes, Source src) noexcept:
        """Writes of one session that went to the database together with others'."""
        if not COUNTING:
            return
        self.batched[qt] += writes
        src.n.batched[qt] += writes
        src.n.queries[qt] += writes

    cdef inline void count_individual(self, int qt, int reason, Source src) noexcept:
        """One write that goes to the database alone."""
        if not COUNTING:
            return
        self.individual[qt][reason] += 1
        self.backend_writes[qt] += 1
        if reason != R_NO_HINT:
            src.n.excluded[qt][reason] += 1

    def count_refused(self, int dialect, str kind):
        """A session was ended with an error of the proxy's own."""
        self.refused[dialect, kind] = self.refused.get((dialect, kind), 0) + 1

    def count_internal(self, str place):
        """An exception was caught at ``place``; past ``MAX_PLACES`` of them it is ``other``."""
        if place not in self.internal_errors and len(self.internal_errors) >= MAX_PLACES:
            place = "other"
        self.internal_errors[place] = self.internal_errors.get(place, 0) + 1

    def all_sources(self):
        return [self.none, self.other, *self.sources.values()]

    def top_sources(self, int limit):
        """The ``(file, line, writes, batched)`` that write most, most first."""
        cdef Source source
        cdef list found = []
        for item in self.all_sources():
            source = <Source>item
            if source.writes():
                found.append((source.writes(), len(found), source))
        return [((<Source>s).file.decode("utf-8", "replace"), (<Source>s).line.decode("utf-8", "replace"), n,
                 (<Source>s).batched_writes()) for n, _, s in heapq.nlargest(limit, found)]

    def latencies(self):
        """The fine histograms since start, one tuple of counts for each of ``LATENCY_KINDS``."""
        cdef int k, i
        return tuple([tuple([self.fine[k][i] for i in range(FINE_SLOTS)]) for k in range(LK_COUNT)])

    def totals(self):
        """Every counter that has no file or line, as plain Python values keyed by label value."""
        cdef int q, r
        size = {}
        delay = {}
        latency = {}
        for q in range(QT_COUNT):
            size[QUERY_TYPES[q]] = (
                [self.batch_size[q].bucket[r] for r in range(SIZE_BUCKETS)], self.batch_size[q].total)
            delay[QUERY_TYPES[q]] = (
                [self.batch_delay[q].bucket[r] for r in range(SECONDS_BUCKETS)], self.batch_delay[q].total)
            latency[QUERY_TYPES[q]] = (
                [self.batch_latency[q].bucket[r] for r in range(SECONDS_BUCKETS)],
                self.batch_latency[q].total)
        return {
            "individual": {(QUERY_TYPES[q], REASONS[r]): self.individual[q][r]
                           for q in range(QT_COUNT) for r in range(R_COUNT) if self.individual[q][r]},
            "batched": {QUERY_TYPES[q]: self.batched[q] for q in range(QT_COUNT)},
            "backend_writes": {QUERY_TYPES[q]: self.backend_writes[q] for q in range(QT_COUNT)},
            "flush": {FLUSH_REASONS[r]: self.flush[r] for r in range(FL_COUNT)},
            "retries": {RETRY_CAUSES[r]: self.retries[r] for r in range(RC_COUNT)},
            "size": size,
            "delay": delay,
            "latency": latency,
            "methods": {METHODS[r]: self.methods[r] for r in range(M_COUNT)},
            "hint_errors": (self.hint_errors[0], self.hint_errors[1]),
            "protocol_errors": (self.protocol_errors[0], self.protocol_errors[1]),
        }
