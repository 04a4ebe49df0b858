# PostgreSQL: BEGIN, one write and COMMIT of the extended protocol, read where all of them are here.

cdef class PgBlock:
    """Reads one: [Parse] Bind [Describe] Execute [Sync] of each of the three, with a Sync behind the last."""
    cdef PgStatements statements
    cdef PgSegment segment          # of the write
    cdef PgStatement unnamed        # the last of them that is prepared without a name, None: none is
    cdef int flags                  # BlockFlag bits of the BEGIN or COMMIT just read
    # of the reading under way
    cdef const char* p
    cdef Py_ssize_t n
    cdef Py_ssize_t max_bytes
    cdef bint backslash

    def __init__(self, Session session, PgStatements statements):
        self.statements = statements
        self.segment = PgSegment(session, statements)

    cdef Py_ssize_t read(self, Engine engine, const char* p, Py_ssize_t n, bint backslash, Held held,
                         PgStatement held_statement) except -1:
        """The size of what begins at p, its write described behind the held ones; 0: it is something else.

        ``held_statement``: what the held writes execute.
        """
        cdef Py_ssize_t start, total
        cdef Write* w
        cdef int opening
        self.p = p
        self.n = n
        self.backslash = backslash
        self.max_bytes = engine.max_batch_bytes
        self.unnamed = None
        start = self.read_word(engine.stats, 0, False)
        opening = self.flags
        if not start or not self.begin_write(engine, start, held, held_statement) or (
                not self.segment.read_one(p + start, n - start, held, self.max_bytes)):
            return 0
        w = held.at(held.nwrites)
        if w.flags & WF_PARSE:
            self.unnamed = self.segment.statement
        elif not self.segment.statement.name:
            return 0
        total = self.read_word(engine.stats, start + self.segment.at, True)
        # with a Sync behind BEGIN and none behind the write an error would leave the transaction open behind COMMIT
        if not total or not self.flags & BK_SYNC or (opening & BK_SYNC and not w.flags & WF_SYNC):
            return 0
        w.opening = opening
        w.closing = self.flags
        w.start = 0
        w.end = total
        w.parse += start
        w.sql_start += start
        w.sql_end += start
        w.tuples_start += start
        w.tuples_end += start
        w.bind += start
        w.bind_end += start
        return total

    cdef bint begin_write(self, Engine engine, Py_ssize_t at, Held held, PgStatement held_statement) except -1:
        cdef Py_ssize_t total = self.message_at(at, FE_PARSE)
        cdef PgStatement statement = held_statement
        cdef Scan s
        if total:
            if statement is None or not statement.is_message(self.p + at, total):
                statement = self.statements.read_parse(engine.stats, self.p + at, total, self.backslash, &s)
                if statement is not None:
                    statement.epoch = engine.ddl_epoch
            if statement is None or statement.name or not self.segment.wants(statement) or (
                    statement.flags & CHANGING):
                return False
        self.segment.begin(statement if total else None, total, held.nwrites)
        return True

    cdef Py_ssize_t message_at(self, Py_ssize_t at, int kind) noexcept:
        """The size of the message at ``at``, 0: it is of another kind, or not here whole."""
        cdef int32_t length
        if self.n - at < PG_HEADER or <uint8_t>self.p[at] != kind:
            return 0
        length = <int32_t>tq_be32(self.p + at + 1)
        if length < 4 or length > self.max_bytes or self.n - at <= length:
            return 0
        return length + 1

    cdef Py_ssize_t read_word(self, Stats stats, Py_ssize_t at, bint closing) except -1:
        """BEGIN, or COMMIT, at ``at``: one past it, and its ``flags``; 0: it is something else."""
        cdef Py_ssize_t total = self.message_at(at, FE_PARSE)
        cdef PgStatement statement = None
        cdef Scan s
        self.flags = BK_EXTENDED
        if total:
            statement = self.statements.read_parse(stats, self.p + at, total, self.backslash, &s)
            if statement is None or statement.name or tq_be16(PyBytes_AS_STRING(statement.oids)) != 0:
                return 0
            self.flags |= BK_PARSE
            self.unnamed = statement
            at += total
        total = self.message_at(at, FE_BIND)
        if not total:
            return 0
        statement = self.read_bind(self.p + at + PG_HEADER, self.p + at + total, statement)
        if statement is None:
            return 0
        self.flags |= statement.closes if closing else statement.opens
        if not self.flags & BK_GIVEN:
            return 0
        at += total
        total = self.message_at(at, FE_DESCRIBE)
        if total:
            if total != 7 or self.p[at + PG_HEADER] != b"P" or self.p[at + PG_HEADER + 1] != 0:
                return 0
            self.flags |= BK_DESCRIBE
            at += total
        total = self.message_at(at, FE_EXECUTE)
        if total != 10 or self.p[at + PG_HEADER] != 0:
            return 0
        at += total
        total = self.message_at(at, FE_SYNC)
        if total == PG_HEADER:
            self.flags |= BK_SYNC
            at += total
        return at

    cdef PgStatement read_bind(self, const char* at, const char* end, PgStatement parsed):
        """The statement of a Bind without parameters, to the unnamed portal; None: it is another Bind."""
        cdef const char* name = at + 1
        cdef const char* nul
        cdef PgStatement statement = parsed
        if end - at < 2 or at[0] != 0:
            return None
        nul = <const char*>memchr(name, 0, end - name)
        if nul == NULL or (nul == name) != (parsed is not None):
            return None
        if parsed is None:
            statement = self.statements.find(name, nul - name)
            if statement is None or statement.known != self.statements.era:
                return None
        at = nul + 1
        if end - at < 6 or tq_be16(at) != 0 or tq_be16(at + 2) != 0 or tq_be16(at + 4) > 1 or (
                end - at != 6 + 2 * <Py_ssize_t>tq_be16(at + 4)):
            return None
        # a format that is none is the server's to refuse
        return statement if end - at == 6 or tq_be16(at + 6) <= 1 else None
