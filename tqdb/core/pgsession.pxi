# PostgreSQL: the client's session.

cdef enum PgState:
    PG_STARTUP = 0      # untyped start-up packets
    PG_CONNECTING       # the server connection is being made
    PG_AUTH             # authentication is relayed, until the first ReadyForQuery
    PG_READY
    PG_RAW              # replication: bytes are relayed without a look

cdef enum:
    MAX_NAMED_STATEMENTS = 5000     # known per session
    MAX_PG_HELD = 1000              # writes of one session in a batch
    MAX_STATEMENT_BYTES = 16384     # of one that is kept, so that it may be batched
    NAMES_BYTES = 512               # of a Bind, looked at for the statement's name

PG_ERRORS = {
    "protocol": ("FATAL", "08P01"),
    "connect": ("FATAL", "08001"),
    "too_many": ("FATAL", "53300"),
    "timeout": ("FATAL", "08P01"),
    "shutdown": ("FATAL", "57P01"),
    "unsupported": ("FATAL", "0A000"),
}


cdef class PgStatement:
    """A prepared statement as its Parse message told it."""
    cdef bytes name
    cdef bytes message              # the Parse message; b"" if it is too long to be kept
    cdef Py_ssize_t sql_start       # offsets into it
    cdef Py_ssize_t sql_end
    cdef bytes core                 # the statement proper, None if it cannot be batched
    cdef bytes oids                 # number and OIDs of parameter types, as in the message
    cdef int qtype
    cdef int flags                  # of its scan
    cdef bint hinted
    cdef double wait_ms
    cdef Source source
    cdef uint64_t epoch             # the engine's DDL epoch when the server last saw it
    cdef Shape shape                # of its last executions …
    cdef bytes alike                # … and what made it that shape


cdef class PgSession(Session):
    """The client's end. Message flow: protocol documentation, chapter "Message Flow"."""
    cdef readonly int state
    cdef bint replication
    cdef bytes startup
    cdef char status                # of the last ReadyForQuery
    cdef int pending                # ReadyForQuery messages still to come
    cdef bint unsynced              # extended-protocol messages were sent since the last Sync
    cdef bint query_inflight        # the last message that asked for a ReadyForQuery was a Query
    cdef bint copy_in
    cdef bint backslash             # standard_conforming_strings is off
    cdef bytes key                  # BackendKeyData
    cdef dict params                # ParameterStatus changed since login
    cdef dict login_params
    cdef dict statements            # name -> PgStatement
    cdef PgStatement unnamed        # as the client sees it
    cdef bint unnamed_here          # … and the server has the same
    cdef bint unnamed_fresh         # it was parsed since the last ReadyForQuery
    cdef list fresh                 # names parsed since then
    cdef PgStatement bound
    cdef PgStatement held_statement  # what the held writes execute
    cdef bint unit_counted          # the executions up to the next Sync are counted already
    cdef int segment_parses         # Parse, Close messages of the client's since the last Sync
    cdef int segment_closes
    cdef int swallow                # PgMessage: an answer to a message of the proxy's, kept from the client …
    cdef int swallow_after          # … behind so many of the client's own

    def __init__(self, Engine engine):
        Session.__init__(self, engine)
        self.dialect = PG
        self.status = b"I"
        self.statements = {}
        self.fresh = []
        self.unnamed_here = True
        self.max_held = MAX_PG_HELD
        self.login_params = {}

    # --- what the engine asks -----------------------------------------------------------------------

    cdef bint busy(self) noexcept:
        return self.pending > 0

    cdef bint in_transaction(self) noexcept:
        return self.status != b"I"

    cdef bint comparable(self) noexcept:
        return not self.unsynced and not self.copy_in and not self.backslash

    cdef int sent_held(self) except -1:
        cdef int k
        if self.held_statement is None:
            self.pending += self.nwrites
            self.query_inflight = True
            self.unnamed_here = True
            return 0
        for k in range(self.nwrites):
            if self.writes[k].flags & WF_SYNC:
                self.pending += 1
            if self.writes[k].flags & WF_PARSE:
                self.unnamed_here = self.unnamed_fresh = True
        self.query_inflight = False
        self.held_statement = None
        return 0

    cdef int sent_query(self) except -1:
        """A Query is sent on: it drops the unnamed statement."""
        self.pending += 1
        self.query_inflight = True
        self.unnamed = None
        self.unnamed_here = True
        return 0

    cdef int before_held(self) except -1:
        if self.held_statement is not None and not self.held_statement.name and (
                not self.writes[0].flags & WF_PARSE and not self.unnamed_here):
            self.restore_unnamed()
        return 0

    cdef bytes class_key(self):
        key = self.login_key + self.history
        if self.params:
            for name in sorted(self.params):
                key += b"\0" + name + b"\0" + self.params[name]
        return key

    cdef int connection_lost(self) except -1:
        self.out.append_bytes(pg_error(
            "FATAL", "08006", "server closed the connection unexpectedly",
            "The write was sent to the server and its outcome is not known; it was not sent again."))
        return self.finish()

    cdef int farewell(self) except -1:
        if self.state == PG_READY and not self.server.skip and self.skip == 0:
            self.server.out.append(b"X\0\0\0\4", 5)
        return 0

    cpdef refuse(self, str kind, str message):
        severity, sqlstate = PG_ERRORS[kind]
        if kind == "protocol":
            self.engine.stats.protocol_errors[self.dialect] += 1
        self.count_refusal(kind, message)
        if not self.closed:
            self.out.append_bytes(pg_error(severity, sqlstate, message))
            self.finish()

    # --- connecting ---------------------------------------------------------------------------------

    def attach(self, PgServer server):
        """The server connection is made: the start-up message goes out, the exchange is relayed."""
        self.server = server
        server.session = server.client = self
        server.out.append_bytes(self.startup)
        server.mark()
        self.state = PG_RAW if self.replication else PG_AUTH
        self.release()

    cdef bint is_logged_in(self) noexcept:
        return self.state >= PG_READY

    cdef bint is_idle(self) noexcept:
        return (self.state < PG_READY or (self.pending == 0 and not self.unsynced and self.status == b"I"
                and not self.is_waiting() and self.skip == 0)) and self.state != PG_RAW

    # --- client to server ---------------------------------------------------------------------------

    cdef Py_ssize_t parse(self, const char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t used
        while i < n and not self.closed and not self.closing and not self.blocked:
            if self.skip:
                used = min(self.skip, n - i)
                self.watch_oversize(p + i, used)
                self.forward(p + i, used)
                self.skip -= used
            elif self.state == PG_READY:
                used = self.parse_message(p + i, n - i)
            elif self.state == PG_RAW:
                used = n - i
                self.forward(p + i, used)
            elif self.state == PG_STARTUP:
                used = self.parse_startup(p + i, n - i)
            elif self.state == PG_AUTH:
                used = self.parse_auth(p + i, n - i)
            else:
                if n - i > MAX_AUTH_BYTES:
                    self.refuse("protocol", "data before the connection is established")
                break
            if used == 0:
                break
            i += used
        return n if self.closed or self.closing else i

    cdef Py_ssize_t parse_startup(self, const char* p, Py_ssize_t n) except -1:
        cdef int32_t length
        cdef uint32_t code
        if n < 8:
            if n >= 4 and not 8 <= <int32_t>tq_be32(p) <= MAX_STARTUP_BYTES:
                self.refuse("protocol", "invalid length of startup packet")
            return 0
        length = <int32_t>tq_be32(p)
        code = tq_be32(p + 4)
        if length < 8 or length > MAX_STARTUP_BYTES:
            self.refuse("protocol", "invalid length of startup packet")
            return 0
        if n < length:
            return 0
        if code == CODE_SSL or code == CODE_GSSENC:
            if length != 8:
                self.refuse("protocol", "invalid length of startup packet")
                return 0
            self.out.append(b"N", 1)
            self.mark()
        elif code == CODE_CANCEL:
            self.state = PG_CONNECTING
            self.engine.hooks.cancel(self, p[:length], p[8:length])
        elif code >> 16 != PROTOCOL_3:
            self.engine.stats.protocol_errors[self.dialect] += 1
            self.refuse("unsupported", "unsupported frontend protocol %d.%d: server supports 3.0"
                        % (code >> 16, code & 0xffff))
        else:
            self.startup = p[:length]
            params = self.startup[8:].split(b"\0")
            if p[length - 1] != 0 or startup_value(params, b"user") == b"":
                self.refuse("protocol", "invalid startup packet layout: expected terminator and a user name")
                return 0
            self.user = startup_value(params, b"user").decode("utf-8", "replace")
            self.database = startup_value(params, b"database").decode("utf-8", "replace") or self.user
            self.replication = startup_value(params, b"replication").lower() not in (
                b"", b"false", b"off", b"no", b"0")
            wait = self.engine.hooks.startup_wait(params)
            self.session_wait = self.startup_wait = WAIT_NONE if wait is None else wait
            self.state = PG_CONNECTING
            self.engine.hooks.connect(self)
        return length

    cdef Py_ssize_t parse_auth(self, const char* p, Py_ssize_t n) except -1:
        """Password and SASL messages go on as they are; anything else waits for the login to end."""
        cdef int32_t length
        cdef uint8_t kind = p[0]
        if not IS_FRONTEND[kind]:
            self.refuse("protocol", "invalid frontend message type %d" % kind)
            return 0
        if n < PG_HEADER:
            return 0
        length = <int32_t>tq_be32(p + 1)
        if kind != FE_PASSWORD and kind != FE_TERMINATE:
            if n > MAX_AUTH_BYTES:
                self.refuse("protocol", "too much data before the login has ended")
            return 0
        if length < 4 or length > MAX_AUTH_BYTES:
            self.refuse("protocol", "invalid message length")
            return 0
        if n < length + 1:
            return 0
        self.forward(p, length + 1)
        return length + 1

    cdef Py_ssize_t parse_message(self, const char* p, Py_ssize_t n) except -1:
        """One message of an established session, or the start of a long one; returns the bytes taken."""
        cdef int32_t length
        cdef Py_ssize_t total, part
        cdef int action = A_RELAY
        cdef uint8_t kind = p[0]
        if not IS_FRONTEND[kind]:
            self.refuse("protocol", "invalid frontend message type %d" % kind)
            return 0
        if n < PG_HEADER:
            return 0
        length = <int32_t>tq_be32(p + 1)
        if length < 4 or length >= self.engine.max_message_bytes:
            self.refuse("protocol", "invalid message length")
            return 0
        total = <Py_ssize_t>length + 1
        if (kind == FE_BIND or kind == FE_PARSE) and not self.unsynced and not self.copy_in:
            part = self.parse_unit(p, n, &action)
            if part or action == A_WAIT:
                return part
        if self.nwrites and (kind != FE_QUERY or total > self.engine.max_batch_bytes):
            self.wait_for_held()
            return 0
        if kind == FE_QUERY:
            if total > self.engine.max_batch_bytes + 65536:
                return self.begin_oversize_query(p, n, total)
            if n < total:
                return 0
            return self.handle_query(p, total)
        if kind == FE_PARSE:
            if total <= self.engine.max_batch_bytes + 65536:
                if n < total:
                    return 0
                return self.handle_parse(p, total)
            self.tainted = True
            self.leave_class()
            self.unnamed = None
            self.unnamed_here = True
            self.segment_parses += 1
            self.unsynced = True
        elif kind == FE_BIND:
            if n < min(total, NAMES_BYTES):
                return 0
            if not self.handle_bind(p + PG_HEADER, min(n, total) - PG_HEADER):
                return 0
        elif kind == FE_SYNC:
            if not self.copy_in:
                self.pending += 1
                self.unsynced = self.unit_counted = False
                self.query_inflight = False
                self.segment_parses = self.segment_closes = 0
        elif kind == FE_FUNCTION_CALL:
            self.pending += 1
            self.query_inflight = True
        elif kind == FE_COPY_DONE or kind == FE_COPY_FAIL:
            self.copy_in = False
        elif kind == FE_EXECUTE:
            self.handle_execute()
        elif kind == FE_DESCRIBE or kind == FE_CLOSE:
            if n < total and total < NAMES_BYTES:
                return 0
            if total < NAMES_BYTES and p[PG_HEADER] == b"S" and not self.name_used(kind, p + PG_HEADER + 1):
                return 0
            self.unsynced = True
        elif kind == FE_FLUSH:
            self.unsynced = True
        part = min(n, total)
        self.forward(p, part)
        self.skip = total - part
        return part

    cdef Py_ssize_t handle_query(self, const char* p, Py_ssize_t total) except -1:
        cdef Scan s
        cdef int action
        cdef const char* sql = p + PG_HEADER
        cdef const char* nul = <const char*>memchr(sql, 0, total - PG_HEADER)
        cdef Py_ssize_t n
        cdef bytes text
        if nul == NULL or nul != p + total - 1:
            # the server refuses it with an error of its own
            if self.nwrites:
                self.wait_for_held()
                return 0
            self.sent_query()
            self.forward(p, total)
            return total
        n = total - PG_HEADER - 1
        scan_sql(<const uint8_t*>sql, n, PG, self.backslash, &s)
        if s.flags & F_STATUS and not self.nwrites:
            text = self.engine.hooks.status_sql(PG, sql[:n], self)
            if text is not None:
                self.set_source(&s)
                self.go_alone(R_NO_HINT)
                self.sent_query()
                text = pg_query(text)
                self.forward(PyBytes_AS_STRING(text), len(text))
                return total
        action = self.consider(p, total, PG_HEADER, total - 1, &s)
        if action == A_HELD:
            self.held_statement = None
            if self.unnamed is not None:
                self.unnamed = None
                self.unnamed_here = False
            return total
        if action == A_WAIT:
            return 0
        self.note_pg(sql, n, &s)
        self.sent_query()
        self.forward(p, total)
        return total

    cdef Py_ssize_t begin_oversize_query(self, const char* p, Py_ssize_t n, Py_ssize_t total) except -1:
        if n < OVERSIZE_HEAD:
            return 0
        self.note_oversize(p + PG_HEADER, n - PG_HEADER, self.backslash)
        self.sent_query()
        self.forward(p, n)
        self.skip = total - n
        return n

    # --- extended protocol: units of [Parse] Bind [Describe] Execute … Sync ---------------------------

    cdef PgStatement read_parse(self, const char* p, Py_ssize_t total, Scan* s):
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
        if nul == NULL or end - nul < 3:
            return None
        scan_sql(<const uint8_t*>sql, nul - sql, PG, self.backslash, s)
        statement = PgStatement.__new__(PgStatement)
        statement.name = name[:sql - 1 - name]
        statement.oids = nul[1:end - nul]
        statement.epoch = self.engine.ddl_epoch
        statement.qtype = s.qtype
        statement.flags = s.flags
        statement.hinted = s.hinted
        statement.wait_ms = s.wait_ms
        statement.source = self.engine.stats.source(s.file, s.nfile, s.line, s.nline)
        statement.message = b""
        if total <= MAX_STATEMENT_BYTES:
            statement.message = p[:total]
            statement.sql_start = sql - p
            statement.sql_end = nul - p
            if s.qtype <= QT_REPLACE:
                statement.core = sql[s.core_start:s.core_end]
        return statement

    cdef inline double wait_of(self, PgStatement statement) noexcept:
        return statement.wait_ms if statement.hinted else self.session_wait

    cdef inline bint may_gather(self, PgStatement statement) noexcept:
        return statement is not None and statement.core is not None and self.wait_of(statement) != WAIT_NONE

    cdef Py_ssize_t parse_unit(self, const char* p, Py_ssize_t n, int* action) except -1:
        """A unit that wants to be batched: its size once it is here whole and held.

        0 and ``action`` A_WAIT: more is to come, or it has to wait. 0 and A_RELAY: its messages are to be
        relayed one by one.
        """
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t start = 0
        cdef Py_ssize_t total
        cdef int32_t length
        cdef uint8_t kind
        cdef Scan s
        cdef PgStatement statement = None
        cdef PgStatement named
        cdef Write* w = NULL
        cdef int count = 0
        cdef bint parsed = False
        cdef bint flushed = False       # answers are wanted now, unless the Sync is here already
        action[0] = A_WAIT
        while True:
            if n - i < PG_HEADER:
                if flushed:
                    break
                return 0
            kind = p[i]
            length = <int32_t>tq_be32(p + i + 1)
            total = <Py_ssize_t>length + 1
            if length < 4 or i + total > self.engine.max_batch_bytes + 65536 or (
                    kind == FE_QUERY or kind == FE_CLOSE or kind == FE_FUNCTION_CALL):
                break
            if n - i < total:
                if flushed:
                    break
                return 0
            if kind == FE_FLUSH:
                flushed = True
            elif kind == FE_PARSE:
                if w != NULL:
                    break
                if statement is None and self.unnamed is not None and self.is_message(self.unnamed, p + i, total):
                    statement = self.unnamed
                elif statement is None:
                    statement = self.read_parse(p + i, total, &s)
                elif not self.is_message(statement, p + i, total):
                    break
                if not self.may_gather(statement) or statement.name or not statement.message:
                    if i == 0 and not self.nwrites and statement is not None and statement is not self.unnamed:
                        return self.relay_parse(p, total, statement, &s)
                    break
                parsed = True
            elif kind == FE_BIND:
                if w != NULL:
                    break
                w = self.write_at(self.nwrites + count)
                w.start = start
                w.flags = WF_PARSE if parsed else 0
                named = self.read_bind(p + i, total, statement, w)
                if named is None or (statement is not None and named is not statement) or (
                        not self.may_gather(named)):
                    break
                statement = named
                w.bind += i
                w.bind_end += i
                w.sql_start += i
                w.sql_end += i
                w.tuples_start += i
                w.tuples_end += i
                if count and not self.same_formats(p, w):
                    break
            elif kind == FE_DESCRIBE:
                if w == NULL or total != 7 or p[i + PG_HEADER] != b"P" or p[i + PG_HEADER + 1] != 0:
                    break
                w.flags |= WF_DESCRIBE
            elif kind == FE_EXECUTE:
                # a limit on rows matters only where rows come back
                if w == NULL or total != 10 or p[i + PG_HEADER] != 0 or (
                        tq_be32(p + i + PG_HEADER + 1) != 0 and statement.flags & F_RETURNING):
                    break
                w.end = i + total
                w.rows = 1
                w = NULL
                count += 1
                parsed = False
                start = i + total
                if count > self.max_held:
                    break
            elif kind == FE_SYNC:
                if w != NULL or parsed or count == 0:
                    break
                self.writes[self.nwrites + count - 1].flags |= WF_SYNC
                self.writes[self.nwrites + count - 1].end = i + total
                action[0] = self.consider_unit(p, i + total, statement, count)
                return i + total if action[0] == A_HELD else 0
            else:
                break
            i += total
        action[0] = A_RELAY
        if self.nwrites:
            action[0] = self.wait_for_held()
        return 0

    cdef inline bint is_message(self, PgStatement statement, const char* p, Py_ssize_t total) noexcept:
        return PyBytes_GET_SIZE(statement.message) == total and (
            memcmp(PyBytes_AS_STRING(statement.message), p, total) == 0)

    cdef PgStatement read_bind(self, const char* p, Py_ssize_t total, PgStatement unnamed, Write* w):
        """Takes a Bind message apart into ``w``; the statement that it names, None if it cannot be gathered."""
        cdef const char* at = p + PG_HEADER
        cdef const char* end = p + total
        cdef const char* name
        cdef int32_t size
        cdef int nparams, k
        cdef PgStatement statement
        if at[0] != 0:
            return None             # a named portal
        name = at + 1
        at = <const char*>memchr(name, 0, end - name)
        if at == NULL:
            return None
        if at == name:
            statement = unnamed if unnamed is not None else self.unnamed
        else:
            statement = self.statements.get(name[:at - name])
        at += 1
        w.bind = 0
        w.bind_end = total
        w.sql_start = at - p
        w.sql_end = total
        if end - at < 2:
            return None
        at += 2 + 2 * <Py_ssize_t>tq_be16(at)
        if end - at < 2:
            return None
        nparams = tq_be16(at)
        at += 2
        w.tuples_start = at - p
        for k in range(nparams):
            if end - at < 4:
                return None
            size = <int32_t>tq_be32(at)
            at += 4
            if size > 0:
                if end - at < size:
                    return None
                at += size
        w.tuples_end = at - p
        if end - at < 2 or end - at != 2 + 2 * <Py_ssize_t>tq_be16(at):
            return None
        return statement

    cdef bint same_formats(self, const char* p, Write* w) noexcept:
        """Whether a Bind has formats and number of parameters of the unit's first."""
        cdef Write* first = self.writes + self.nwrites
        cdef Py_ssize_t head = w.tuples_start - w.sql_start
        cdef Py_ssize_t tail = w.sql_end - w.tuples_end
        return (first.tuples_start - first.sql_start == head and first.sql_end - first.tuples_end == tail
                and memcmp(p + first.sql_start, p + w.sql_start, head) == 0
                and memcmp(p + first.tuples_end, p + w.tuples_end, tail) == 0)

    cdef int consider_unit(self, const char* p, Py_ssize_t n, PgStatement statement, int count) except -1:
        """Decides about a whole unit: returns an ``Action``."""
        cdef Shape shape = None
        cdef int k, reason, action
        cdef bint parses = self.writes[self.nwrites].flags & WF_PARSE != 0
        if self.busy() and not self.backslash:
            self.blocked = self.waiting = True
            return A_WAIT
        if self.nwrites and not (statement.qtype == self.qtype and statement.source is self.source
                                 and self.held_statement is not None):
            return self.wait_for_held()
        self.qtype = statement.qtype
        self.source = statement.source
        reason = self.exclusion(n, statement.flags, 1)
        if reason == R_COUNT and statement.name and statement.flags & F_RETURNING and (
                statement.epoch != self.engine.ddl_epoch):
            # columns that come back may have changed, which the server takes for an error: it shall tell
            statement.epoch = self.engine.ddl_epoch
            reason = R_TABLE
        if reason == R_COUNT:
            shape = self.unit_shape(p, statement, count)
            if shape is None or shape.verdict is None:
                reason = R_NOT_BATCHABLE
        if reason != R_COUNT:
            action = self.not_gathered(reason, count)
        else:
            action = self.gather(shape, count, p, n, self.wait_of(statement))
        if action == A_RELAY:
            self.unit_counted = True
        elif action == A_HELD:
            self.held_statement = statement
            if parses:
                self.unnamed = statement
                self.unnamed_here = False
        return action

    cdef Shape unit_shape(self, const char* p, PgStatement statement, int count):
        """The shape of a unit's writes. A statement with values in its text is taken apart like a simple Query."""
        cdef Write* w = self.writes + self.nwrites
        cdef Scan s
        cdef Shape shape
        cdef bytes alike
        cdef const char* sql
        cdef Py_ssize_t head = w.tuples_start - w.sql_start
        cdef Py_ssize_t tail = w.sql_end - w.tuples_end
        cdef int nparams = tq_be16(p + w.tuples_start - 2)
        if nparams == 0 and count == 1 and w.flags & WF_PARSE and tq_be16(
                PyBytes_AS_STRING(statement.oids)) == 0 and head == 4:
            sql = p + w.start + statement.sql_start
            scan_sql(<const uint8_t*>sql, statement.sql_end - statement.sql_start, PG, self.backslash, &s)
            shape = self.text_shape(sql, &s, p[w.tuples_end:w.sql_end])
            if shape is None or shape.verdict is None:
                return None
            w.sql_start = sql - p
            w.sql_end = w.sql_start + statement.sql_end - statement.sql_start
            w.tuples_start, w.tuples_end = w.sql_start, w.sql_end
            if shape.form == FORM_CUT:
                w.tuples_start = w.sql_start + s.values_start
                w.tuples_end = w.sql_start + s.values_end
                w.rows = s.ntuples
            return shape
        if statement.shape is not None and PyBytes_GET_SIZE(statement.alike) == head + tail and memcmp(
                PyBytes_AS_STRING(statement.alike), p + w.sql_start, head) == 0 and memcmp(
                    PyBytes_AS_STRING(statement.alike) + head, p + w.tuples_end, tail) == 0:
            return statement.shape
        alike = p[w.sql_start:w.tuples_start] + p[w.tuples_end:w.sql_end]
        scan_sql(<const uint8_t*>PyBytes_AS_STRING(statement.core), PyBytes_GET_SIZE(statement.core), PG,
                 self.backslash, &s)
        shape = self.engine.bound_shape(PG, statement.core, alike + statement.oids, &s, nparams)
        statement.shape = shape
        statement.alike = alike
        return shape

    # The unnamed statement: a batch or a statement of the proxy's on this connection replaces it, and a Parse
    # that went with a batch never came here. What the client sees is put right before it is used.

    cdef int restore_unnamed(self) except -1:
        if self.unnamed is not None and self.unnamed.message:
            self.forward(PyBytes_AS_STRING(self.unnamed.message), PyBytes_GET_SIZE(self.unnamed.message))
            self.swallow = BE_PARSE_COMPLETE
            self.swallow_after = self.segment_parses
        else:
            self.forward(PyBytes_AS_STRING(CLOSE_UNNAMED), PyBytes_GET_SIZE(CLOSE_UNNAMED))
            self.swallow = BE_CLOSE_COMPLETE
            self.swallow_after = self.segment_closes
        self.unnamed_here = True
        return 0

    cdef bint unnamed_ready(self) except -1:
        """The unnamed statement is about to be used; False: not before everything sent is answered."""
        if self.unnamed_here:
            return True
        if self.pending:
            self.blocked = self.waiting = True
            return False
        self.restore_unnamed()
        return True

    # --- extended protocol: relayed, counted by the kind of statement, watched for session changes ------

    cdef Py_ssize_t handle_parse(self, const char* p, Py_ssize_t total) except -1:
        cdef Scan s
        return self.relay_parse(p, total, self.read_parse(p, total, &s), &s)

    cdef Py_ssize_t relay_parse(self, const char* p, Py_ssize_t total, PgStatement statement,
                                Scan* s) except -1:
        cdef const char* sql
        cdef const char* nul
        cdef Py_ssize_t n
        cdef bytes text
        self.unsynced = True
        self.segment_parses += 1
        if statement is not None:
            sql = p + PG_HEADER + PyBytes_GET_SIZE(statement.name) + 1
            nul = p + total - 1 - PyBytes_GET_SIZE(statement.oids)
            n = nul - sql
            if s.hint_error:
                self.engine.stats.hint_errors[self.dialect] += 1
            if not statement.name:
                self.unnamed = statement
                self.unnamed_here = self.unnamed_fresh = True
            else:
                if len(self.statements) >= MAX_NAMED_STATEMENTS:
                    self.statements.clear()
                self.statements[statement.name] = statement
                self.fresh.append(statement.name)
            if s.flags & (F_SETLIKE | F_DEALLOCATE) and (statement.name or memchr(sql, b"$", n) != NULL):
                # it may run later, often, or with values that only Bind tells
                s.flags |= F_TAINT
            if s.flags & F_STATUS:
                text = self.engine.hooks.status_sql(PG, sql[:n], self)
                if text is not None:
                    text = pg_message(b"P", statement.name + b"\0" + text + b"\0" + statement.oids)
                    self.forward(PyBytes_AS_STRING(text), len(text))
                    return total
            self.note_pg(sql, n, s)
        self.forward(p, total)
        return total

    cdef int note_pg(self, const char* sql, Py_ssize_t n, Scan* s) except -1:
        if s.flags & F_DEALLOCATE:
            self.statements.clear()
        return self.note(sql, n, s)

    cdef bint handle_bind(self, const char* p, Py_ssize_t n) except -1:
        """A relayed Bind; False: it has to wait."""
        cdef const char* name = <const char*>memchr(p, 0, n)
        self.bound = None
        if name != NULL:
            name += 1
            if memchr(name, 0, p + n - name) != NULL:
                if name[0] == 0:
                    if not self.unnamed_ready():
                        return False
                    self.bound = self.unnamed
                else:
                    self.bound = self.statements.get(<bytes>name)
        self.unsynced = True
        return True

    cdef bint name_used(self, int kind, const char* name) except -1:
        """A statement is described or closed by name; False: it has to wait."""
        if kind == FE_DESCRIBE:
            return name[0] != 0 or self.unnamed_ready()
        self.segment_closes += 1
        if name[0] == 0:
            self.unnamed = None
            self.unnamed_here = True
        else:
            self.statements.pop(<bytes>name, None)
        return True

    cdef int handle_execute(self) except -1:
        cdef PgStatement statement = self.bound
        self.unsynced = True
        if statement is not None:
            self.qtype = statement.qtype
            self.source = statement.source
            if self.qtype == QT_OTHER:
                self.may_be_ddl()
            if self.unit_counted:
                return 0
            self.begin_timing()
            self.count_alone(
                self.qtype, (R_NOT_BATCHABLE if not self.in_transaction() else R_IN_TRANSACTION)
                if self.qtype <= QT_REPLACE and self.wait_of(statement) != WAIT_NONE else R_NO_HINT, self.source)
        return 0

    cdef bytes cancelled_answer(self):
        return pg_error("ERROR", "57014", "canceling statement due to user request") + READY_IDLE

    # --- told by the server connection ----------------------------------------------------------------

    cdef int on_ready(self, char status) except -1:
        """A ReadyForQuery has been relayed."""
        self.status = status
        if self.state == PG_AUTH:
            self.login_done()
        elif self.pending > 0:
            self.pending -= 1
        self.observe(self.engine.now, LK_ALONE)
        self.swallow = 0
        if self.pending == 0:
            self.copy_in = False
            if not self.unsynced:
                self.fresh.clear()
                self.unnamed_fresh = False
                self.became_idle(status != b"I")
            elif self.waiting:
                self.release()
        return 0

    cdef int statement_failed(self) except -1:
        """Whether what was parsed since everything was answered last is there or not, nobody has told."""
        if self.fresh:
            for name in self.fresh:
                self.statements.pop(name, None)
            self.fresh.clear()
        if self.unnamed_fresh:
            self.unnamed = None
            self.unnamed_here = True
            self.unnamed_fresh = False
        return Session.statement_failed(self)

    cdef int login_done(self) except -1:
        self.state = PG_READY
        params = b"".join(k + b"\0" + v + b"\0" for k, v in sorted(self.login_params.items()))
        self.login_key = hashlib.blake2b(
            b"\0".join((self.backend.encode(), self.address.encode(), b"%d" % self.engine.settings_epoch,
                        self.startup, params)),
            digest_size=16).digest()
        self.history = b"\0" * 16
        return self.release()

    cdef int on_parameter(self, const char* p, Py_ssize_t n) except -1:
        """ParameterStatus: name and value."""
        cdef bytes name, value, _
        name, value, _ = (p[:n]).split(b"\0", 2)
        if name == b"client_encoding":
            self.unsafe_charset = value in PG_UNSAFE_CHARSETS
        elif name == b"standard_conforming_strings":
            self.backslash = value != b"on"
            # strings of statements scanned before end elsewhere now
            self.statements.clear()
            if self.unnamed is not None:
                self.unnamed.core = None
        if self.state == PG_AUTH:
            self.login_params[name] = value
        else:
            if self.params is None:
                self.params = {}
            if self.login_params.get(name) == value:
                self.params.pop(name, None)
            else:
                self.params[name] = value
            self.leave_class()
        return 0

    cdef int on_command_complete(self, const char* tag) except -1:
        """Looked at only while a SET's outcome is open."""
        cdef bytes text = tag
        if text == b"ROLLBACK" and self.set_in_transaction:
            self.statement_failed()
        elif text == b"DISCARD ALL":
            self.history = b"\0" * 16
            self.tainted = self.temp = self.uses_currval = self.set_open = False
            self.leave_class()
        return 0

    cdef int on_copy(self) except -1:
        """CopyInResponse or CopyBothResponse: the server ignores Sync until the copy ends."""
        self.copy_in = True
        self.pending = 1 if self.query_inflight else 0
        return 0

    cdef int gone(self) except -1:
        if self.key is not None:
            self.engine.cancel_keys.pop(self.key, None)
        return Session.gone(self)
