# PostgreSQL: pipeline segments, [Parse] Bind [Describe] Execute … Sync, read whole so that they may be gathered.

cdef enum Segment:
    SG_MORE = 0             # it is not whole yet
    SG_WHOLE                # ``at`` bytes are a segment of ``count`` writes
    SG_OTHER                # it is one that may not be gathered: its messages are to be relayed one by one

cdef enum Step:
    # what may come next in a segment that may be gathered
    ST_START = 0            # Parse, Bind; Sync behind a write
    ST_PARSED               # Bind
    ST_BOUND                # Describe, Execute


cdef class PgSegment:
    """Reads one segment. What comes in pieces is read on from where it stopped, so no byte is read twice."""
    cdef PgStatements statements
    cdef Py_ssize_t at              # bytes read
    cdef Py_ssize_t start           # where the write being read begins
    cdef int step                   # Step
    cdef int count                  # writes read
    cdef int base                   # writes that were held when it began
    cdef bint flushed               # answers are wanted now, unless the Sync is here already
    cdef PgStatement statement
    cdef Session session

    def __init__(self, Session session, PgStatements statements):
        self.session = session
        self.statements = statements

    cdef int begin(self, PgStatement statement, Py_ssize_t parsed, int base) except -1:
        """``statement``: of a Parse message of ``parsed`` bytes at the front, already read; None: there is none."""
        self.statement = statement
        self.at = parsed
        self.start = 0
        self.step = ST_PARSED if parsed else ST_START
        self.count = 0
        self.base = base
        self.flushed = False
        return 0

    cdef inline bint wants(self, PgStatement statement) except -1:
        return statement is not None and statement.text is not None and self.session.wait_of(statement) != WAIT_NONE

    cdef int read(self, const char* p, Py_ssize_t n, Held held, Py_ssize_t max_bytes, int max_writes) except -1:
        """Reads on; p[0] is the segment's first byte. Its writes are described behind the held ones.

        Returns a ``Segment``.
        """
        cdef Py_ssize_t total
        cdef int32_t length
        cdef uint8_t kind
        cdef Write* w
        while n - self.at >= PG_HEADER:
            kind = p[self.at]
            length = <int32_t>tq_be32(p + self.at + 1)
            total = <Py_ssize_t>length + 1
            if length < 4 or self.at + total > max_bytes or (PG_ASKS[kind] & AK_BARE and length != 4):
                return SG_OTHER
            if n - self.at < total:
                break
            if kind == FE_SYNC:
                if self.step != ST_START or self.count == 0:
                    return SG_OTHER
                w = held.at(held.nwrites + self.count - 1)
                w.flags |= WF_SYNC
                self.at += total
                w.end = self.at
                return SG_WHOLE
            if not self.read_message(kind, p, total, held) or self.count > max_writes:
                return SG_OTHER
            self.at += total
        return SG_OTHER if self.flushed else SG_MORE

    cdef bint read_one(self, const char* p, Py_ssize_t n, Held held, Py_ssize_t max_bytes) except -1:
        """Reads one write in front of other messages, with its Sync if it has one; False: that is not what is here."""
        cdef Py_ssize_t total
        cdef int32_t length
        cdef uint8_t kind
        while n - self.at >= PG_HEADER:
            kind = p[self.at]
            length = <int32_t>tq_be32(p + self.at + 1)
            total = <Py_ssize_t>length + 1
            if length < 4 or self.at + total > max_bytes or n - self.at < total:
                return False
            if self.count:
                if kind == FE_SYNC and total == PG_HEADER:
                    held.at(held.nwrites).flags |= WF_SYNC
                    self.at += total
                return True
            if kind == FE_FLUSH or not self.read_message(kind, p, total, held):
                return False
            self.at += total
        return False

    cdef bint read_message(self, int kind, const char* p, Py_ssize_t total, Held held) except -1:
        """One whole message at ``at``; False: with it the segment may not be gathered."""
        cdef const char* m = p + self.at
        cdef Write* w
        if kind == FE_FLUSH:
            self.flushed = True
            return True
        if kind == FE_PARSE:
            # the same statement parsed again and again, as some drivers do
            if self.step != ST_START or self.statement is None or not self.statement.is_message(m, total) or (
                    self.statement.name):
                return False
            self.step = ST_PARSED
            return True
        w = held.at(held.nwrites + self.count)
        if kind == FE_BIND:
            if self.step == ST_BOUND or not self.read_bind(m, total, w) or (
                    self.count and not self.same_formats(p, held, w)):
                return False
            w.flags = WF_PARSE if self.step == ST_PARSED else 0
            w.start = w.parse = self.start
            self.step = ST_BOUND
            return True
        if self.step != ST_BOUND:
            return False
        if kind == FE_DESCRIBE:
            if w.flags & WF_DESCRIBE:
                return False
            w.flags |= WF_DESCRIBE
            return total == 7 and m[PG_HEADER] == b"P" and m[PG_HEADER + 1] == 0
        # a limit on rows matters only where rows come back
        if kind != FE_EXECUTE or total != 10 or m[PG_HEADER] != 0 or (
                tq_be32(m + PG_HEADER + 1) != 0 and self.statement.flags & F_RETURNING):
            return False
        w.end = self.start = self.at + total
        w.rows = 1
        self.count += 1
        self.step = ST_START
        return True

    cdef bint read_bind(self, const char* m, Py_ssize_t total, Write* w) except -1:
        """Takes a Bind message apart into ``w``; False: it is malformed, or of a statement not to be gathered."""
        cdef const char* at = m + PG_HEADER
        cdef const char* end = m + total
        cdef const char* name
        cdef int32_t size
        cdef int formats, nparams, k
        cdef PgStatement statement
        if end - at < 2 or at[0] != 0:
            return False            # malformed, or a named portal
        name = at + 1
        at = <const char*>memchr(name, 0, end - name)
        if at == NULL:
            return False
        if at == name and self.statement is not None:
            statement = self.statement
        else:
            statement = self.statements.find(name, at - name)
        if self.statement is None:
            if not self.wants(statement) or (
                    statement.name and statement.known != self.statements.era):
                return False
            self.statement = statement
        elif statement is not self.statement:
            return False
        at += 1
        w.bind = self.at
        w.bind_end = w.sql_end = self.at + total
        w.literals = 0
        w.opening = w.closing = 0
        w.sql_start = self.at + (at - m)
        if end - at < 2:
            return False
        formats = tq_be16(at)
        at += 2 + 2 * <Py_ssize_t>formats
        if end - at < 2:
            return False
        nparams = tq_be16(at)
        if formats > 1 and formats != nparams:
            return False                    # the server's to refuse
        at += 2
        w.tuples_start = self.at + (at - m)
        for k in range(nparams):
            if end - at < 4:
                return False
            size = <int32_t>tq_be32(at)
            at += 4
            if size > 0:
                if end - at < size:
                    return False
                at += size
        w.tuples_end = self.at + (at - m)
        return end - at >= 2 and end - at == 2 + 2 * <Py_ssize_t>tq_be16(at)

    cdef bint same_formats(self, const char* p, Held held, Write* w) except -1:
        """Whether a Bind has formats and number of parameters of the segment's first."""
        cdef Write* first = held.at(held.nwrites)
        cdef Py_ssize_t head = w.tuples_start - w.sql_start
        cdef Py_ssize_t tail = w.sql_end - w.tuples_end
        return (first.tuples_start - first.sql_start == head and first.sql_end - first.tuples_end == tail
                and memcmp(p + first.sql_start, p + w.sql_start, head) == 0
                and memcmp(p + first.tuples_end, p + w.tuples_end, tail) == 0)
