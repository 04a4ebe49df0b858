# PostgreSQL: the client's session.

cdef enum PgState:
    PG_STARTUP = 0      # untyped start-up packets
    PG_CONNECTING       # the server connection is being made
    PG_AUTH             # authentication is relayed, until the first ReadyForQuery
    PG_READY
    PG_RAW              # replication: bytes are relayed without a look

cdef enum:
    MAX_NAMED_STATEMENTS = 5000     # per session, for counting only
    NAMES_BYTES = 512               # of a Bind, looked at for the statement's name

PG_ERRORS = {
    "protocol": ("FATAL", "08P01"),
    "connect": ("FATAL", "08001"),
    "too_many": ("FATAL", "53300"),
    "timeout": ("FATAL", "08P01"),
    "shutdown": ("FATAL", "57P01"),
    "unsupported": ("FATAL", "0A000"),
}


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
    cdef dict statements            # named statement -> (qtype, hinted, source)
    cdef tuple unnamed
    cdef tuple bound

    def __init__(self, Engine engine):
        Session.__init__(self, engine)
        self.dialect = PG
        self.status = b"I"
        self.statements = {}
        self.login_params = {}

    # --- what the engine asks -----------------------------------------------------------------------

    cdef bint busy(self) noexcept:
        return self.pending > 0

    cdef bint in_transaction(self) noexcept:
        return self.status != b"I"

    cdef bint comparable(self) noexcept:
        return not self.unsynced and not self.copy_in and not self.backslash

    cdef int sent_held(self) except -1:
        self.pending += 1
        self.query_inflight = True
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

    @property
    def connecting(self):
        return self.state == PG_CONNECTING

    @property
    def logged_in(self):
        return self.state >= PG_READY

    @property
    def idle(self):
        """Nothing under way and no transaction open: it may be closed without harm."""
        return (self.state < PG_READY or (self.pending == 0 and not self.unsynced and self.status == b"I"
                and not self.waits and self.skip == 0)) and self.state != PG_RAW

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
            self.unsynced = True
        elif kind == FE_BIND:
            if n < min(total, NAMES_BYTES):
                return 0
            self.handle_bind(p + PG_HEADER, min(n, total) - PG_HEADER)
        elif kind == FE_SYNC:
            if not self.copy_in:
                self.pending += 1
                self.unsynced = False
                self.query_inflight = False
        elif kind == FE_FUNCTION_CALL:
            self.pending += 1
            self.query_inflight = True
        elif kind == FE_COPY_DONE or kind == FE_COPY_FAIL:
            self.copy_in = False
        elif kind == FE_EXECUTE:
            self.handle_execute()
        elif kind == FE_DESCRIBE or kind == FE_CLOSE or kind == FE_FLUSH:
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
            self.sent_held()
            self.forward(p, total)
            return total
        n = total - PG_HEADER - 1
        scan_sql(<const uint8_t*>sql, n, PG, self.backslash, &s)
        if s.flags & F_STATUS:
            text = self.engine.hooks.status_sql(PG, sql[:n], self)
            if text is not None:
                self.set_source(&s)
                self.go_alone(R_NO_HINT)
                self.sent_held()
                text = pg_query(text)
                self.forward(PyBytes_AS_STRING(text), len(text))
                return total
        action = self.consider(p, total, PG_HEADER, total - 1, &s)
        if action == A_HELD:
            return total
        if action == A_WAIT:
            return 0
        self.note(sql, n, &s)
        self.sent_held()
        self.forward(p, total)
        return total

    cdef Py_ssize_t begin_oversize_query(self, const char* p, Py_ssize_t n, Py_ssize_t total) except -1:
        if n < OVERSIZE_HEAD:
            return 0
        self.note_oversize(p + PG_HEADER, n - PG_HEADER, self.backslash)
        self.sent_held()
        self.forward(p, n)
        self.skip = total - n
        return n

    # Extended protocol: relayed, counted by the kind of statement, and watched for session changes.

    cdef Py_ssize_t handle_parse(self, const char* p, Py_ssize_t total) except -1:
        cdef Scan s
        cdef const char* name = p + PG_HEADER
        cdef const char* end = p + total
        cdef const char* sql = <const char*>memchr(name, 0, end - name)
        cdef const char* nul
        cdef Py_ssize_t n
        cdef bytes text
        self.unsynced = True
        if sql != NULL:
            sql += 1
            nul = <const char*>memchr(sql, 0, end - sql)
            if nul != NULL:
                n = nul - sql
                scan_sql(<const uint8_t*>sql, n, PG, self.backslash, &s)
                self.set_source(&s)
                known = (self.qtype, s.wait_ms != WAIT_NONE, self.source)
                if name[0] == 0:
                    self.unnamed = known
                else:
                    if len(self.statements) >= MAX_NAMED_STATEMENTS:
                        self.statements.clear()
                    self.statements[<bytes>name] = known
                if s.flags & F_SETLIKE and (name[0] != 0 or memchr(sql, b"$", n) != NULL):
                    # it may run later, often, or with values that only Bind tells
                    s.flags |= F_TAINT
                if s.flags & F_STATUS:
                    text = self.engine.hooks.status_sql(PG, sql[:n], self)
                    if text is not None:
                        text = pg_message(b"P", <bytes>name + b"\0" + text + nul[:end - nul])
                        self.forward(PyBytes_AS_STRING(text), len(text))
                        return total
                self.note(sql, n, &s)
        self.forward(p, total)
        return total

    cdef int handle_bind(self, const char* p, Py_ssize_t n) except -1:
        cdef const char* name = <const char*>memchr(p, 0, n)
        self.unsynced = True
        self.bound = None
        if name == NULL:
            return 0
        name += 1
        if memchr(name, 0, p + n - name) == NULL:
            return 0
        self.bound = self.unnamed if name[0] == 0 else self.statements.get(<bytes>name)
        return 0

    cdef int handle_execute(self) except -1:
        self.unsynced = True
        if self.bound is not None:
            self.qtype, hinted, self.source = self.bound
            if self.qtype == QT_OTHER:
                self.may_be_ddl()
            self.begin_timing()
            self.count_alone(
                self.qtype, (R_NOT_BATCHABLE if not self.in_transaction() else R_IN_TRANSACTION)
                if hinted else R_NO_HINT, self.source)
        return 0

    # --- told by the server connection ----------------------------------------------------------------

    cdef int on_ready(self, char status) except -1:
        """A ReadyForQuery has been relayed."""
        self.status = status
        if self.state == PG_AUTH:
            self.login_done()
        elif self.pending > 0:
            self.pending -= 1
        self.observe(self.engine.now)
        if self.pending == 0:
            self.copy_in = False
            if not self.unsynced:
                self.became_idle(status != b"I")
        return 0

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
