# PostgreSQL: a session's prepared statements and portals, as the client sees them and as its server knows them.

cdef enum:
    MAX_NAMED_STATEMENTS = 5000     # known per session
    MAX_PORTALS = 256
    MAX_BEFORE = 64                 # unnamed statements that are remembered until the server has answered
    MAX_STATEMENT_BYTES = 16384     # of one that is kept, so that it may be batched

cdef object RESTORED = object()     # effect of an unnamed statement put back: once it is skipped, it is not


cdef class PgStatement:
    """A prepared statement as its Parse message told it; the effect of that message."""
    cdef bytes name
    cdef bytes message              # the Parse message; b"" if it is too long to be kept
    cdef Py_ssize_t sql_start       # offsets into it
    cdef Py_ssize_t sql_end
    cdef bytes text                 # the statement proper, None if it cannot be batched
    cdef bytes oids                 # number and OIDs of parameter types, as in the message
    cdef int qtype
    cdef int flags                  # of its scan
    cdef bint hinted
    cdef double wait_ms
    cdef Source source
    cdef uint64_t epoch             # the engine's DDL epoch when the server last saw it
    cdef bytes status               # the question about the proxy, if it is one; None: it is not
    cdef Change change              # what each execution makes true
    cdef uint64_t known             # era of the session's statements in which the server said it is there; 0: not yet
    cdef int depth                  # of the chain of ``before``
    cdef bint gone                  # the server has refused or skipped its Parse
    cdef PgStatement before         # unnamed: the one that it replaces, until the server has answered …
    cdef bint before_here           # … and whether the server had that
    cdef Shape shape                # of its last executions …
    cdef bytes alike                # … and what made it that shape

    cdef inline double wait(self, double session_wait) noexcept:
        return self.wait_ms if self.hinted else session_wait

    cdef inline bint is_message(self, const char* p, Py_ssize_t total) noexcept:
        return PyBytes_GET_SIZE(self.message) == total and (
            memcmp(PyBytes_AS_STRING(self.message), p, total) == 0)


cdef class PgQuery:
    """Effect of a Query, or a Close, that the server may skip: what it changes, the unnamed statement that it drops."""
    cdef Change change
    cdef PgStatement unnamed
    cdef bint here


cdef class PgStatements:
    """Statements by name. They change when a message is sent, and are put right when the server skips it.

    A batch, or a statement of the proxy's, on the session's connection replaces its unnamed statement, and a Parse
    that went with a batch never came there: ``here`` tells whether the server has the unnamed statement that the
    client sees.
    """
    cdef dict named
    cdef dict portals               # name -> PgStatement, of this transaction
    cdef PgStatement unnamed
    cdef bint here
    cdef uint64_t era               # of named statements: none of an earlier one is sure to be there, or as it was read

    def __init__(self):
        self.named = {}
        self.portals = {}
        self.here = True
        self.era = 1

    cdef PgStatement read_parse(self, Stats stats, const char* p, Py_ssize_t total, bint backslash, Scan* s):
        """The statement of a whole Parse message, None if the message is malformed. Fills ``s``."""
        cdef const char* name = p + PG_HEADER
        cdef const char* end = p + total
        cdef const char* sql = <const char*>memchr(name, 0, end - name)
        cdef const char* nul
        cdef PgStatement statement
        if sql == NULL:
            return None
        sql += 1
        nul = <const char*>memchr(sql, 0, end - sql)
        if nul == NULL or end - nul < 3 or end - nul != 3 + 4 * <Py_ssize_t>tq_be16(nul + 1):
            return None
        scan_sql(<const uint8_t*>sql, nul - sql, PG, backslash, s)
        statement = PgStatement.__new__(PgStatement)
        statement.name = name[:sql - 1 - name]
        statement.oids = nul[1:end - nul]
        statement.qtype = s.qtype
        statement.flags = s.flags
        statement.hinted = s.hinted
        statement.wait_ms = s.wait_ms
        statement.source = stats.source(s.file, s.nfile, s.line, s.nline)
        statement.message = b""
        statement.sql_start = sql - p
        statement.sql_end = nul - p
        if total <= MAX_STATEMENT_BYTES:
            statement.message = p[:total]
            if s.qtype <= QT_REPLACE:
                statement.text = sql[s.text_start:s.text_end]
        return statement

    cdef PgStatement unread(self, bytes name, Source source):
        """A statement too long to be read: nothing is known of it, so it may be a COPY."""
        cdef PgStatement statement = PgStatement.__new__(PgStatement)
        statement.name = name
        statement.message = statement.oids = b""
        statement.qtype = QT_OTHER
        statement.flags = F_COPY
        statement.wait_ms = WAIT_NONE
        statement.source = source
        return statement

    cdef PgStatement find(self, const char* name, Py_ssize_t n):
        return self.unnamed if n == 0 else self.named.get(<bytes>name[:n])

    cdef int sent(self, PgStatement statement) except -1:
        """A Parse message of the client's goes to the server."""
        if statement.name:
            if len(self.named) >= MAX_NAMED_STATEMENTS:
                self.named.clear()
            self.named[statement.name] = statement
            return 0
        statement.before = self.unnamed
        statement.before_here = self.here
        statement.depth = self.unnamed.depth + 1 if self.unnamed is not None else 0
        if statement.depth > MAX_BEFORE:
            statement.before = None
            statement.depth = 0
        self.unnamed = statement
        self.here = True
        return 0

    cdef int drop_unnamed(self) except -1:
        """A Query, or a Close, takes it away."""
        self.unnamed = None
        self.here = True
        return 0

    cdef int bind(self, const char* portal, const char* name) except -1:
        """A Bind message goes to the server."""
        if len(self.portals) >= MAX_PORTALS:
            self.portals.clear()
        self.portals[<bytes>portal] = self.find(name, len(name))
        return 0

    cdef int prepared(self, PgStatement statement) except -1:
        """ParseComplete."""
        statement.known = self.era
        statement.before = None
        return 0

    cdef int refused(self, PgStatement statement) except -1:
        """Its Parse failed: whatever had its name is not known any more, and an unnamed one is gone."""
        statement.before = None
        statement.before_here = True
        return self.skipped(statement)

    cdef int skipped(self, PgStatement statement) except -1:
        """Its Parse was skipped."""
        statement.gone = True
        if not statement.name:
            if self.unnamed is statement:
                self.put_back(statement.before, statement.before_here)
        elif self.named.get(statement.name) is statement:
            del self.named[statement.name]
        return 0

    cdef int put_back(self, PgStatement unnamed, bint here) except -1:
        """What would have taken the unnamed statement away was skipped: it is the one from before, if that is there."""
        while unnamed is not None and unnamed.gone:
            here = unnamed.before_here
            unnamed = unnamed.before
        self.unnamed = unnamed
        self.here = here
        return 0

    cdef int strings_changed(self) except -1:
        """standard_conforming_strings is another: strings of statements scanned before end elsewhere now."""
        self.era += 1
        if self.unnamed is not None:
            self.unnamed.text = None
        return 0
