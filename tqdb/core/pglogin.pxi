# PostgreSQL: a session up to its first ReadyForQuery, and what the server tells of its parameters.

cdef enum PgState:
    PG_STARTUP = 0      # untyped start-up packets
    PG_PROVING          # the client proves to the proxy who it is
    PG_CONNECTING       # the server connection is being made
    PG_AUTH             # authentication is relayed or answered, until the first ReadyForQuery
    PG_READY
    PG_RAW              # replication: bytes are relayed without a look

PG_ERRORS = {
    "protocol": ("FATAL", "08P01"),
    "connect": ("FATAL", "08001"),
    "too_many": ("FATAL", "53300"),
    "timeout": ("FATAL", "08P01"),
    "shutdown": ("FATAL", "57P01"),
    "unsupported": ("FATAL", "0A000"),
    "tls": ("FATAL", "28000"),
    "password": ("FATAL", "28P01"),
    "verifier": ("FATAL", "28000"),
}


# before a question for which nobody is to wait: it may find a table locked
cdef bytes PG_BRIEFLY = b"SET LOCAL lock_timeout = 10; "


cdef bytes nameless(bytes startup):
    """A start-up message's parameters, but for the application's name."""
    cdef list parts = startup[8:].split(b"\0")
    return b"\0".join([parts[k] + b"\0" + parts[k + 1] for k in range(0, len(parts) - 1, 2) if parts[k] != PG_NAME])


cdef class PgLogin(Session):
    """The client's end until it is logged in. Protocol documentation, "Message Flow", "Start-up"."""
    cdef readonly int state
    cdef bint replication
    cdef bytes startup
    cdef char status                # of the last ReadyForQuery
    cdef bint backslash             # standard_conforming_strings is off
    cdef bytes key                  # BackendKeyData
    cdef dict params                # ParameterStatus changed since login
    cdef dict login_params
    cdef PgStatements statements
    cdef bint began                 # a start-up packet was read
    cdef bint direct                # TLS began without an SSLRequest
    cdef int asked_to               # the server's last authentication request, see ``PgAuthentication``
    cdef bint plus_taken            # … of which a mechanism with channel binding was taken out
    cdef bint tells_standby         # the server reports whether it is a standby …
    cdef bint standby               # … and is one
    cdef bint read_only_default     # default_transaction_read_only is on
    cdef public object proof        # where authentication ends in the proxy, what does it: ``logins.Login``
    cdef bint challenged            # … and the client has a request of the proxy's to answer
    cdef public bint same_end       # the proxy shows clients the server's own certificate: channel bindings hold

    def __init__(self, Engine engine):
        Session.__init__(self, engine)
        self.dialect = PG
        self.status = b"I"
        self.statements = PgStatements()
        self.login_params = {}

    def attach(self, SessionServer server):
        """The server connection is made: the start-up message goes out, the exchange is relayed."""
        server.join_session(self)
        server.out.append_bytes(self.startup)
        server.mark()
        self.state = PG_AUTH
        server.queue.push(X_RELAY, FE_STARTUP)
        self.resume()

    cdef bint escapes(self) noexcept:
        return self.backslash

    cdef bytes briefly(self, bytes question):
        return PG_BRIEFLY + question

    cdef tuple schemas(self, Shape shape):
        """As its server has said, else a guess by which a rule would decide: it is asked before the write is held.

        Otherwise it is asked, and what the client sends goes behind that.
        """
        cdef Alike alike = self.history.alike
        cdef tuple guess
        if alike is None or self.history.changes:
            alike = self.recall()
            if alike is not None:
                self.is_like(alike)
        if alike is not None:
            return alike.schemas
        if not self.may_ask():
            return None
        guess = self.engine.classes.schemas.get(self.history.login_key)
        if guess is not None and self.engine.rules.ruling(self.scope, shape, guess).name is not None:
            return guess
        self.recognise()
        return None

    cdef bint is_logged_in(self) noexcept:
        return self.state >= PG_READY

    cdef bint in_transaction(self) noexcept:
        return self.status != b"I"

    cdef bint takes_writes(self) noexcept:
        return not (self.read_only or self.standby or self.read_only_default)

    cdef bytes class_key(self):
        cdef bytes key = self.history.login_key + self.history.alike.digest
        if self.params:
            for name in sorted(self.params):
                key += b"\0" + name + b"\0" + self.params[name]
        return key

    cdef int say(self, str severity, str sqlstate, str message, str hint="") except -1:
        """An error of the proxy's own; none within a message of the server's that is not whole yet."""
        if self.server is not None and (<SessionServer>self.server).skip:
            return 0
        return self.out.append_bytes(pg_error(severity, sqlstate, message, hint))

    cpdef refuse(self, str kind, str message, str hint=""):
        severity, sqlstate = PG_ERRORS[kind]
        if self.closing:
            return
        if kind == "protocol":
            self.engine.stats.protocol_errors[self.dialect] += 1
        self.count_refusal(kind, message)
        self.say(severity, sqlstate, message, hint)
        self.disconnect(C_TOLD)

    cdef Py_ssize_t refused(self, str message) except -1:
        """The client does not keep to the protocol: it is told so and ends."""
        self.refuse("protocol", message)
        return NEED_MORE

    cdef int internal_words(self) except -1:
        return self.say("FATAL", "XX000", "the proxy has failed to handle this session")

    cdef int lost(self, bint unknown) except -1:
        if unknown:
            self.say("FATAL", "08006", "server closed the connection unexpectedly",
                     "The write was sent to the server and its outcome is not known; it was not sent again.")
        elif self.last_words is not None:
            self.out.append_bytes(self.last_words)
        else:
            self.say("FATAL", "08006", "server closed the connection unexpectedly",
                     "The write was not kept; it may be sent again.")
        return self.disconnect(C_SERVER_GONE)

    cdef int let_go(self, int cause) except -1:
        if self.key is not None:
            self.engine.cancel_keys.pop(self.key, None)
        return Session.let_go(self, cause)

    # --- client to server ---------------------------------------------------------------------------

    cdef Py_ssize_t parse_login(self, const char* p, Py_ssize_t n) except -1:
        """Anything before PG_READY."""
        if self.announced:
            return self.take_header(p, n)
        if self.state == PG_STARTUP:
            return self.parse_startup(p, n)
        if self.state == PG_PROVING:
            return self.parse_proof(p, n)
        if self.state == PG_AUTH:
            return self.parse_auth(p, n)
        if self.state == PG_RAW:
            self.forward(p, n)
            return n
        if n > MAX_AUTH_BYTES:
            return self.refused("data before the connection is established")
        return self.wait_for(WHEN_FREE)

    cdef Py_ssize_t parse_startup(self, const char* p, Py_ssize_t n) except -1:
        cdef int32_t length
        cdef uint32_t code
        if p[0] == TLS_HANDSHAKE and self.secure is not None and not self.began:
            self.began = self.direct = True
            start_tls(self, p, n)
            return n
        if n < 4:
            return NEED_MORE
        length = <int32_t>tq_be32(p)
        if length < 8 or length > MAX_STARTUP_BYTES:
            return self.refused("invalid length of startup packet")
        if n < 8:
            return NEED_MORE
        code = tq_be32(p + 4)
        if n < length:
            return NEED_MORE
        self.began = True
        if (code == CODE_SSL or code == CODE_GSSENC) and not has_tls(self):
            if length != 8:
                return self.refused("invalid length of startup packet")
            if code == CODE_GSSENC or self.secure is None:
                self.out.append(b"N", 1)
                self.mark()
            elif n > length:
                return self.refused("received unencrypted data after SSL request")
            else:
                self.out.append(b"S", 1)
                start_tls(self, NULL, 0)
        elif code == CODE_CANCEL:
            self.state = PG_CONNECTING
            self.engine.hooks.cancel(self, p[:length], p[8:length])
        elif code >> 16 != PROTOCOL_3:
            self.engine.stats.protocol_errors[self.dialect] += 1
            self.refuse("unsupported", "unsupported frontend protocol %d.%d: server supports 3.0"
                        % (code >> 16, code & 0xffff))
        else:
            self.read_startup(p, length)
        return length

    cdef int read_startup(self, const char* p, Py_ssize_t length) except -1:
        """The start-up message: user, database, what it says of batching."""
        cdef list params
        self.startup = p[:length]
        params = self.startup[8:].split(b"\0")
        # a name without characters ends them: nothing may stand behind it, for server and proxy to read differently
        if b"" in params[0:len(params) - 2:2] or len(params) & 1 or p[length - 1] != 0:
            self.refuse("protocol", "invalid startup packet layout: expected terminator as last byte")
            return 0
        if startup_value(params, b"user") == b"":
            self.refuse("protocol", "invalid startup packet layout: expected terminator and a user name")
            return 0
        if self.needs_tls and not has_tls(self):
            self.refuse("tls", "connections without TLS are not accepted", "Connect with sslmode=require, or higher.")
            return 0
        self.user = startup_value(params, b"user").decode("utf-8", "replace")
        self.database = startup_value(params, b"database").decode("utf-8", "replace") or self.user
        self.within = self.database
        self.replication = startup_value(params, b"replication").lower() not in (b"", b"false", b"off", b"no", b"0")
        wait = self.engine.hooks.startup_wait(params)
        self.history.wait = self.history.startup_wait = WAIT_UNSAID if wait is None else wait
        if self.proof is None:
            self.proved()
        else:
            self.state = PG_PROVING
            self.proof.begin(bool(has_tls(self)))
        return 0

    cpdef proved(self):
        """The client is to have a server connection."""
        self.state = PG_CONNECTING
        self.engine.hooks.connect(self)

    def challenge(self, int code, bytes data):
        """Sends the client an authentication request, see ``PgAuthentication``; ``proof.heard`` gets its answer."""
        self.out.append_bytes(pg_message(b"R", code.to_bytes(4, "big") + data))
        self.challenged = code != AUTH_SASL_FINAL
        self.mark()
        self.resume()

    def answer(self, bytes data):
        """Answers the server's authentication request; nothing happens if the server has gone."""
        if not self.closing:
            self.server.out.append_bytes(pg_message(b"p", data))
            self.server.mark()

    cdef Py_ssize_t parse_proof(self, const char* p, Py_ssize_t n) except -1:
        """Answers to the proxy's authentication requests, each of which is waited for."""
        cdef int32_t length
        cdef uint8_t kind = p[0]
        if kind == FE_TERMINATE:
            self.disconnect(C_CUT)
            return NEED_MORE
        if kind != FE_PASSWORD:
            return self.refused("expected SASL response, got message type %d" % kind)
        if n < PG_HEADER:
            return NEED_MORE
        length = <int32_t>tq_be32(p + 1)
        if length < 4 or length > MAX_AUTH_BYTES:
            return self.refused("invalid message length")
        if not self.challenged:
            return self.wait_for(WHEN_FREE)
        if n < length + 1:
            return NEED_MORE
        self.challenged = False
        self.proof.heard(p[PG_HEADER:length + 1])
        return length + 1

    cdef Py_ssize_t parse_auth(self, const char* p, Py_ssize_t n) except -1:
        """Password and SASL messages go on as they are; anything else waits for the login to end."""
        cdef int32_t length
        cdef uint8_t kind = p[0]
        if not IS_FRONTEND[kind]:
            return self.refused("invalid frontend message type %d" % kind)
        if n < PG_HEADER:
            return NEED_MORE
        length = <int32_t>tq_be32(p + 1)
        if kind != FE_PASSWORD and kind != FE_TERMINATE:
            if n > MAX_AUTH_BYTES:
                return self.refused("too much data before the login has ended")
            return self.wait_for(WHEN_FREE)
        if length < 4 or length > MAX_AUTH_BYTES:
            return self.refused("invalid message length")
        if n < length + 1:
            return NEED_MORE
        if kind == FE_PASSWORD and self.proof is not None:
            return self.refused("unexpected authentication message")
        if kind == FE_PASSWORD and not self.may_answer(p + PG_HEADER, length - 4):
            return NEED_MORE
        self.forward(p, length + 1)
        return length + 1

    cdef bint may_answer(self, const char* p, Py_ssize_t n) except -1:
        """Whether the answer to an authentication request may go on; if not, the client is told."""
        cdef bytes mechanism, rest, _
        if self.asked_to == AUTH_SASL:          # SASLInitialResponse: mechanism, length, what the client says first
            mechanism, _, rest = (p[:n]).partition(b"\0")
            if self.plus_taken and rest[4:5] == b"y":
                self.refuse("tls", "SCRAM channel binding cannot be relayed from one TLS connection to another",
                            "Connect with channel_binding=disable, or without TLS on one of the two sides.")
                return False
            if not self.would_disclose() or mechanism in PG_BINDING or mechanism in PG_SECRETIVE:
                return True
        elif self.asked_to in PG_CHALLENGES or not self.would_disclose():
            return True
        self.refuse_disclosure()
        return False

    cdef int refuse_disclosure(self) except -1:
        self.refuse("tls", "the password would be sent to the server in clear, though it comes in TLS",
                    "Set tls for the server in the proxy's configuration, or let the server ask for SCRAM.")
        return 0

    cdef int secured(self, str protocol) except -1:
        """As PostgreSQL 17: without an SSLRequest the client has to name the protocol."""
        if self.direct and protocol != "postgresql":
            self.disconnect(C_CUT)
        return 0

    # --- told by the server connection ----------------------------------------------------------------

    cdef int login_done(self) except -1:
        self.proof = None
        self.state = PG_RAW if self.replication else PG_READY
        params = b"".join(k + b"\0" + v + b"\0" for k, v in sorted(self.login_params.items()))
        self.history.login_key = hashlib.blake2b(b"\0".join((
            self.backend.encode(), self.address.encode(), nameless(self.startup), params)), digest_size=16).digest()
        return self.resume()

    cdef int on_key(self, bytes key) except -1:
        """BackendKeyData: what a cancel of this session's statements will name."""
        self.key = key
        self.engine.cancel_keys[key] = self
        return 0

    cdef int on_parameter(self, const char* p, Py_ssize_t n) except -1:
        """ParameterStatus: name and value."""
        cdef bytes name, value, _
        cdef list parts = (p[:n]).split(b"\0", 2)
        if len(parts) < 3:
            return 0                    # malformed: the client's to judge
        name, value, _ = parts
        if name == b"client_encoding":
            # the server reports every change: a reset of the session changes it by a report of its own
            self.history.unsafe_charset = self.history.unsafe_at_login = value in PG_UNSAFE_CHARSETS
        elif name == b"standard_conforming_strings":
            self.backslash = value != b"on"
            self.statements.strings_changed()
        elif name == b"in_hot_standby":
            self.tells_standby = True
            self.standby = value == b"on"
            self.engine.hooks.server_says(self, "replica" if self.standby else "primary")
        elif name == b"default_transaction_read_only":
            self.read_only_default = value == b"on"
        elif name == PG_NAME:
            self.application = value.decode("utf-8", "replace")
            self.scope_generation = -1
            self.writer.application = value[:MAX_APPLICATION]
            return 0
        if self.state == PG_AUTH:
            self.login_params[name] = value
            return 0
        if self.params is None:
            self.params = {}
        if self.login_params.get(name) == value:
            self.params.pop(name, None)
        else:
            self.params[name] = value
        return self.engine.class_left(self)
