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


cdef int put_number(Buffer out, uint64_t value) except -1:
    """The number and the end of its line."""
    cdef char[24] digits
    cdef int k = 24
    k -= 1
    digits[k] = b"\n"
    while True:
        k -= 1
        digits[k] = <char>(48 + value % 10)
        value //= 10
        if value == 0:
            break
    return out.append(digits + k, 24 - k)


cdef class SourceSnapshot:
    """What every place had counted at one moment. ``len()`` places; each method renders a slice of them as bytes."""
    cdef SourceCounters* rows
    cdef list labels

    def __init__(self, Stats stats):
        cdef list sources = stats.all_sources()
        cdef Py_ssize_t i
        self.labels = []
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

    def queries(self, Py_ssize_t start, Py_ssize_t stop):
        """``tqdbproxy_query_total``."""
        cdef Buffer out = Buffer()
        cdef Py_ssize_t i
        cdef int q
        for i in range(start, min(stop, len(self.labels))):
            for q in range(QT_COUNT):
                if self.rows[i].queries[q]:
                    self.open_sample(out, QUERY_SAMPLE, i, q)
                    out.append(b',cached="false"} ', 17)
                    put_number(out, self.rows[i].queries[q])
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
                    h = &self.rows[i].latency[q]
                    seen = 0
                    for b in range(SECONDS_BUCKETS):
                        seen += h.bucket[b]
                        self.open_sample(out, BUCKET_SAMPLE, i, q)
                        out.append_bytes(<bytes>EDGE_LABELS[b])
                        put_number(out, seen)
                    self.open_sample(out, COUNT_SAMPLE, i, q)
                    out.append(b"} ", 2)
                    put_number(out, seen)
                    self.open_sample(out, SUM_SAMPLE, i, q)
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
                    self.open_sample(out, BATCHED_SAMPLE, i, q)
                    out.append(b"} ", 2)
                    put_number(out, self.rows[i].batched[q])
        return out.take()

    def excluded(self, Py_ssize_t start, Py_ssize_t stop):
        """``tqdbproxy_write_excluded_total``."""
        cdef Buffer out = Buffer()
        cdef Py_ssize_t i
        cdef int q, r
        for i in range(start, min(stop, len(self.labels))):
            for q in range(QT_REPLACE + 1):
                for r in range(R_COUNT):
                    if self.rows[i].excluded[q][r]:
                        self.open_sample(out, EXCLUDED_SAMPLE, i, q)
                        out.append_bytes(<bytes>REASON_LABELS[r])
                        put_number(out, self.rows[i].excluded[q][r])
        return out.take()

    cdef inline int open_sample(self, Buffer out, bytes name, Py_ssize_t i, int q) except -1:
        out.append_bytes(name)
        out.append_bytes(<bytes>self.labels[i])
        return out.append_bytes(<bytes>TYPE_LABELS[q])
