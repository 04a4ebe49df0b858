# PostgreSQL: a session's prepared statements and portals, as the client sees them and as its server knows them.

cdef enum:
    MAX_NAMED_STATEMENTS = 5000     # known per session
    MAX_PORTALS = 256
    MAX_STATEMENT_BYTES = 16384     # of one that is kept, so that it may be batched


cdef class PgStatement(Prepared):
    """A prepared statement as its Parse message told it; a named one is the effect of that message."""
    cdef bytes name
    cdef bytes message              # the Parse message; b"" if it is too long to be kept
    cdef Py_ssize_t sql_start       # offsets into it
    cdef Py_ssize_t sql_end
    cdef bytes oids                 # number and OIDs of parameter types, as in the message
    cdef Source source
    cdef uint64_t shape_number      # its number, 0: it is no write
    cdef uint64_t epoch             # the engine's DDL epoch when the server last saw it
    cdef int opens                  # it is BEGIN: BlockFlag bits …
    cdef int closes                 # … or COMMIT
    cdef bytes status               # the question about the proxy, if it is one; None: it is not
    cdef Change change              # what each execution makes true
    cdef uint64_t known             # era of the session's statements in which the server said it is there; 0: not yet
    cdef Shape shape                # of its last executions …
    cdef bytes alike                # … and what made it that shape

    cdef inline bint is_message(self, const char* p, Py_ssize_t total) noexcept:
        return PyBytes_GET_SIZE(self.message) == total and (
            memcmp(PyBytes_AS_STRING(self.message), p, total) == 0)


@cython.trashcan(True)
cdef class PgUnnamed:
    """What the unnamed statement is behind a message that changes it; the effect of that message.

    Until the server has answered it keeps what was ``before``, which holds again if the server skips the message.
    """
    cdef PgStatement statement      # as the client sees it, None: there is none
    cdef bint here                  # the server has the same
    cdef bint restored              # by the proxy, for a client that takes it to be there
    cdef bint gone                  # skipped; ``before`` is then of none that was
    cdef PgUnnamed before           # None: the server has answered, or cannot skip it
    cdef Change change              # what a Query changes besides


cdef PgUnnamed unnamed_as(PgStatement statement, bint here):
    cdef PgUnnamed unnamed = PgUnnamed.__new__(PgUnnamed)
    unnamed.statement = statement
    unnamed.here = here
    return unnamed


cdef class PgStatements:
    """Statements by name. They change when a message is sent, and are put right when the server skips it.

    A batch, or a statement of the proxy's, on the session's connection replaces its unnamed statement, and a Parse
    that went with a batch never came there: ``PgUnnamed.here``.
    """
    cdef dict named
    cdef dict portals               # name -> PgStatement, of this transaction
    cdef PgUnnamed unnamed          # behind everything that was sent and not skipped
    cdef uint64_t era               # of named statements: none of an earlier one is sure to be there, or as it was read

    def __init__(self):
        self.named = {}
        self.portals = {}
        self.unnamed = unnamed_as(None, True)
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
        if s.qtype == QT_OTHER:
            statement.opens = block_word(<const uint8_t*>sql, nul - sql, PG, False)
            statement.closes = block_word(<const uint8_t*>sql, nul - sql, PG, True)
        if total <= MAX_STATEMENT_BYTES:
            statement.message = p[:total]
            if s.qtype <= QT_REPLACE:
                statement.text = sql[s.text_start:s.text_end]
                if not s.flags & F_UNSURE:
                    statement.shape_number = number_of(<const uint8_t*>sql, s, PG)
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
        return self.unnamed.statement if n == 0 else self.named.get(<bytes>name[:n])

    cdef int name(self, PgStatement statement) except -1:
        """A Parse message of a named statement goes to the server."""
        if len(self.named) >= MAX_NAMED_STATEMENTS:
            self.named.clear()
        self.named[statement.name] = statement
        return 0

    cdef int change(self, PgUnnamed unnamed) except -1:
        """A message that changes the unnamed statement goes to the server, which may skip it."""
        unnamed.before = self.unnamed
        self.unnamed = unnamed
        return 0

    cdef int replace(self, PgStatement statement, bint here) except -1:
        """The unnamed statement becomes another for sure."""
        self.unnamed = unnamed_as(statement, here)
        return 0

    cdef int bind(self, const char* portal, const char* name) except -1:
        """A Bind message goes to the server."""
        if len(self.portals) >= MAX_PORTALS:
            self.portals.clear()
        self.portals[<bytes>portal] = self.find(name, len(name))
        return 0

    cdef int forget(self, PgStatement statement) except -1:
        """The Parse of a named one failed or was skipped: whatever has its name is not known any more."""
        if self.named.get(statement.name) is statement:
            del self.named[statement.name]
        return 0

    cdef int changed(self, PgUnnamed unnamed, bint failed) except -1:
        """The message is answered. A Parse that fails has taken away what was there."""
        unnamed.before = None
        if failed and unnamed.restored:
            unnamed.here = False
        elif failed:
            unnamed.statement = None
            unnamed.here = True
        return 0

    cdef int skipped(self, PgUnnamed unnamed) except -1:
        """The message was skipped, after all those before it were answered or skipped."""
        unnamed.gone = True
        if unnamed.before.gone:
            unnamed.before = unnamed.before.before
        while self.unnamed.gone:
            self.unnamed = self.unnamed.before
        return 0

    cdef int strings_changed(self) except -1:
        """standard_conforming_strings is another: strings of statements scanned before end elsewhere now."""
        self.era += 1
        if self.unnamed.statement is not None:
            self.unnamed.statement.text = None
        return 0
