# What is counted by file and line, as lines of the Prometheus and OpenMetrics text formats.
#
# With a thousand places that is some twenty thousand lines a scrape, too many for Python in the proxy's loop. The
# sample lines of both formats are the same; the headers are the collector's (tqdb.metrics).

cdef bytes QUERY_SAMPLE = b"tqdbproxy_query_total{"
cdef bytes BATCHED_SAMPLE = b"tqdbproxy_batched_writes_total{"
cdef bytes EXCLUDED_SAMPLE = b"tqdbproxy_write_excluded_total{"
cdef bytes BUCKET_SAMPLE = b"tqdbproxy_query_latency_seconds_bucket{"
cdef bytes COUNT_SAMPLE = b"tqdbproxy_query_latency_seconds_count{"
cdef bytes SUM_SAMPLE = b"tqdbproxy_query_latency_seconds_sum{"
cdef list TYPE_LABELS = [b',query_type="%s"' % t.encode() for t in QUERY_TYPES]
cdef list REASON_LABELS = [b',reason="%s"} ' % r.encode() for r in REASONS]
cdef list EDGE_LABELS = [b',le="%s"} ' % e.encode() for e in (*(str(float(b)) for b in SECONDS_BOUNDS), "+Inf")]


cdef (const char*)[15] EDGE_TEXT
cdef Py_ssize_t[15] EDGE_BYTES
for _i, _text in enumerate(EDGE_LABELS):
    EDGE_TEXT[_i] = PyBytes_AS_STRING(_text)
    EDGE_BYTES[_i] = PyBytes_GET_SIZE(_text)

cdef enum:
    EDGE_ROOM = 16                  # bytes of a bucket's edge, at most
    NUMBER_ROOM = 24                # of a number and the end of its line


cdef inline char* put_text(char* to, const char* p, Py_ssize_t n) noexcept nogil:
    memcpy(to, p, n)
    return to + n


cdef inline char* put_number(char* to, uint64_t value) noexcept nogil:
    """The number and the end of its line; returns what is behind them."""
    cdef char[NUMBER_ROOM] digits
    cdef int k = NUMBER_ROOM - 1
    digits[k] = b"\n"
    while True:
        k -= 1
        digits[k] = <char>(48 + value % 10)
        value //= 10
        if value == 0:
            break
    return put_text(to, digits + k, NUMBER_ROOM - k)


cdef class SourceSnapshot:
    """What every place had counted at one moment. ``len()`` places; each method renders a slice of them as bytes."""
    cdef SourceCounters* rows
    cdef list labels
    cdef Buffer head                # the labels of the samples being rendered

    def __init__(self, Stats stats):
        cdef list sources = stats.all_sources()
        cdef Py_ssize_t i
        self.labels = []
        self.head = Buffer()
        self.rows = <SourceCounters*>malloc(len(sources) * sizeof(SourceCounters))
        if self.rows == NULL:
            raise MemoryError()
        for i in range(len(sources)):
            self.rows[i] = (<Source>sources[i]).n
            self.labels.append((<Source>sources[i]).labels)

    def __dealloc__(self):
        free(self.rows)

    def __len__(self):
        return len(self.labels)

    cdef int name_labels(self, Py_ssize_t i, int q) except -1:
        self.head.clear()
        self.head.append_bytes(<bytes>self.labels[i])
        return self.head.append_bytes(<bytes>TYPE_LABELS[q])

    cdef int put_sample(self, Buffer out, bytes name, const char* more, Py_ssize_t nmore, uint64_t value) except -1:
        """One line: the name, the labels that ``name_labels`` made, ``more`` of them, the value."""
        cdef char* begin = out.reserve(PyBytes_GET_SIZE(name) + self.head.size() + nmore + NUMBER_ROOM)
        cdef char* to = put_text(begin, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
        to = put_text(to, self.head.ptr(), self.head.size())
        to = put_number(put_text(to, more, nmore), value)
        out.end += to - begin
        return 0

    def queries(self, Py_ssize_t start, Py_ssize_t stop):
        """``tqdbproxy_query_total``."""
        cdef Buffer out = Buffer()
        cdef Py_ssize_t i
        cdef int q
        for i in range(start, min(stop, len(self.labels))):
            for q in range(QT_COUNT):
                if self.rows[i].queries[q]:
                    self.name_labels(i, q)
                    self.put_sample(out, QUERY_SAMPLE, b',cached="false"} ', 17, self.rows[i].queries[q])
        return out.take()

    def latency(self, Py_ssize_t start, Py_ssize_t stop):
        """``tqdbproxy_query_latency_seconds``."""
        cdef Buffer out = Buffer()
        cdef SecondsHistogram* h
        cdef Py_ssize_t i
        cdef uint64_t seen
        cdef int q, b
        for i in range(start, min(stop, len(self.labels))):
            for q in range(QT_COUNT):
                if self.rows[i].queries[q]:
                    self.name_labels(i, q)
                    h = &self.rows[i].latency[q]
                    seen = 0
                    out.reserve(SECONDS_BUCKETS * (
                        PyBytes_GET_SIZE(BUCKET_SAMPLE) + self.head.size() + EDGE_ROOM + NUMBER_ROOM))
                    for b in range(SECONDS_BUCKETS):
                        seen += h.bucket[b]
                        self.put_sample(out, BUCKET_SAMPLE, EDGE_TEXT[b], EDGE_BYTES[b], seen)
                    self.put_sample(out, COUNT_SAMPLE, b"} ", 2, seen)
                    out.append_bytes(SUM_SAMPLE)
                    out.append(self.head.ptr(), self.head.size())
                    out.append_bytes(b"} %.9g\n" % h.total)
        return out.take()

    def batched(self, Py_ssize_t start, Py_ssize_t stop):
        """``tqdbproxy_batched_writes_total``."""
        cdef Buffer out = Buffer()
        cdef Py_ssize_t i
        cdef int q
        for i in range(start, min(stop, len(self.labels))):
            for q in range(QT_REPLACE + 1):
                if self.rows[i].queries[q]:
                    self.name_labels(i, q)
                    self.put_sample(out, BATCHED_SAMPLE, b"} ", 2, self.rows[i].batched[q])
        return out.take()

    def excluded(self, Py_ssize_t start, Py_ssize_t stop):
        """``tqdbproxy_write_excluded_total``."""
        cdef Buffer out = Buffer()
        cdef Py_ssize_t i
        cdef bytes reason
        cdef int q, r
        for i in range(start, min(stop, len(self.labels))):
            for q in range(QT_REPLACE + 1):
                for r in range(R_COUNT):
                    if self.rows[i].excluded[q][r]:
                        self.name_labels(i, q)
                        reason = <bytes>REASON_LABELS[r]
                        self.put_sample(out, EXCLUDED_SAMPLE, PyBytes_AS_STRING(reason), PyBytes_GET_SIZE(reason),
                                        self.rows[i].excluded[q][r])
        return out.take()
