# MariaDB/MySQL: a session up to the OK packet of its login, and what ends it.

cdef enum MyState:
    MY_GREETING = 0     # the server connection is being made, its greeting awaited
    MY_LOGIN            # the greeting is with the client, its handshake response awaited
    MY_AUTH             # the authentication exchange is relayed
    MY_READY
    MY_RAW              # binlog dump: bytes are relayed without a look

MY_ERRORS = {
    "protocol": (1043, "08S01"),
    "order": (1156, "08S01"),
    "connect": (2003, "HY000"),
    "too_many": (1040, "08004"),
    "timeout": (1159, "08S01"),
    "shutdown": (1053, "08S01"),
    "unsupported": (1251, "08004"),
}


cdef class MyLogin(Session):
    """The client's end until it is logged in."""
    cdef readonly int state
    cdef tuple thread                   # address and connection id: what a KILL names
    cdef uint32_t capabilities
    cdef uint32_t extended              # MariaDB's, the upper 32 bits
    cdef uint32_t status                # of the last OK or EOF
    cdef bint status_unknown            # an error came last: it tells no status
    cdef int collation
    cdef int sequence                   # of the client's last packet

    def __init__(self, Engine engine):
        Session.__init__(self, engine)
        self.dialect = MY

    def connect(self):
        """A client is there; MariaDB's server speaks first, so the server connection is made at once."""
        try:
            self.engine.hooks.connect(self)
        except Exception:
            self.engine.failed("connect", self)

    def attach(self, SessionServer server):
        server.join_session(self)

    cdef bint is_logged_in(self) noexcept:
        return self.state >= MY_READY

    cdef bint in_transaction(self) noexcept:
        return self.status_unknown or self.status & (
            STATUS_IN_TRANS | STATUS_IN_TRANS_READONLY | STATUS_AUTOCOMMIT) != STATUS_AUTOCOMMIT

    cdef int say(self, int code, str sqlstate, str message) except -1:
        """An error of the proxy's own, as the answer to a command; none within a packet that is not whole yet."""
        if self.server is not None and (<SessionServer>self.server).skip:
            return 0
        return self.out.append_bytes(my_error(1, code, sqlstate, message))

    cpdef refuse(self, str kind, str message):
        cdef int seq
        code, sqlstate = MY_ERRORS[kind]
        if self.closing:
            return
        if kind == "protocol" or kind == "order":
            self.engine.stats.protocol_errors[self.dialect] += 1
        self.count_refusal(kind, message)
        # an idle client expects no packet: the server ends it without one, and so does the proxy
        if kind != "shutdown" or self.state != MY_READY:
            seq = 0 if self.state == MY_GREETING else self.sequence + 1
            self.out.append_bytes(my_error(seq, code, sqlstate, message, self.state != MY_GREETING))
        self.disconnect(C_TOLD)

    cdef Py_ssize_t refused(self, str message) except -1:
        """The client does not keep to the protocol: it is told so and ends."""
        self.refuse("protocol", message)
        return NEED_MORE

    cdef int internal_words(self) except -1:
        return self.say(1105, "HY000", "The proxy has failed to handle this session")

    cdef int lost(self, bint unknown) except -1:
        if unknown:
            self.say(2013, "HY000", "Lost connection to server during query; "
                     "the write was sent and its outcome is not known; it was not sent again")
        elif self.last_words is not None:
            self.out.append_bytes(self.last_words)
        else:
            self.say(2013, "HY000", "Lost connection to server during query; "
                     "the write was not kept; it may be sent again")
        return self.disconnect(C_SERVER_GONE)

    cdef int let_go(self, int cause) except -1:
        if self.thread is not None:
            self.engine.cancel_keys.pop(self.thread, None)
        return Session.let_go(self, cause)

    # --- client to server ---------------------------------------------------------------------------

    cdef Py_ssize_t parse_login(self, const char* p, Py_ssize_t n) except -1:
        """Anything before MY_READY."""
        cdef Py_ssize_t length
        if self.state == MY_RAW:
            self.forward(p, n)
            return n
        if self.state == MY_GREETING:
            if n > MY_MAX_AUTH:
                return self.refused("Bad handshake")
            return self.wait_for(WHEN_FREE)
        if n < MY_HEADER:
            return NEED_MORE
        length = my_length(p)
        self.sequence = <uint8_t>p[3]
        if length > MY_MAX_AUTH or (self.state == MY_LOGIN and self.sequence != 1):
            self.sequence = 1
            return self.refused("Bad handshake")
        if self.state == MY_AUTH and self.sequence == 0:
            return self.wait_for(WHEN_FREE)         # a command, ahead of the end of the login
        if n < length + MY_HEADER:
            return NEED_MORE
        if self.state == MY_LOGIN and not self.read_handshake_response(p + MY_HEADER, length):
            return NEED_MORE
        self.state = MY_AUTH
        self.forward(p, length + MY_HEADER)
        return length + MY_HEADER

    cdef bint read_handshake_response(self, const char* p, Py_ssize_t n) except -1:
        """Protocol::HandshakeResponse41: capabilities, character set, user, database."""
        cdef const char* end
        cdef uint64_t size = 0
        cdef Py_ssize_t i
        if n < 32 or not le32(p) & CLIENT_PROTOCOL_41:
            self.refused("Bad handshake: protocol 4.1 or later is needed")
            return False
        self.capabilities = le32(p)
        self.extended = 0 if self.capabilities & CLIENT_MYSQL else le32(p + 28)
        if self.capabilities & (CLIENT_SSL | CLIENT_COMPRESS | CLIENT_ZSTD):
            self.refuse("unsupported", "TLS and compression are not offered here; connect without them")
            return False
        self.collation = <uint8_t>p[8]
        self.history.unsafe_charset = self.history.unsafe_at_login = self.collation in MY_UNSAFE_COLLATIONS
        end = <const char*>memchr(p + 32, 0, n - 32)
        if end == NULL:
            self.refused("Bad handshake")
            return False
        self.user = (p[32:end - p]).decode("utf-8", "replace")
        i = end - p + 1
        if self.capabilities & CLIENT_CONNECT_WITH_DB:
            if self.capabilities & CLIENT_PLUGIN_AUTH_LENENC:
                i += read_lenenc(p + i, n - i, &size) + <Py_ssize_t>min(size, <uint64_t>n)
            elif self.capabilities & CLIENT_SECURE_CONNECTION and i < n:
                i += 1 + <uint8_t>p[i]
            else:
                end = <const char*>memchr(p + i, 0, n - i) if i < n else NULL
                i = end - p + 1 if end != NULL else n
            end = <const char*>memchr(p + i, 0, n - i) if i < n else NULL
            if end == NULL:
                self.refused("Bad handshake")
                return False
            self.database = (p[i:end - p]).decode("utf-8", "replace")
        return True

    # --- told by the server connection ----------------------------------------------------------------

    cdef int on_greeting(self, bytes payload, object thread) except -1:
        """The server's greeting, as it is to be told; ``thread``: its connection id."""
        self.thread = self.address, thread
        self.engine.cancel_keys[self.thread] = self
        self.state = MY_LOGIN
        self.out.append_bytes(my_packet(0, payload))
        self.mark()
        return self.resume()

    cdef int make_login_key(self) except -1:
        self.history.login_key = hashlib.blake2b(b"\0".join((
            self.backend.encode(), self.address.encode(), self.user.encode(),
            self.database.encode(), b"%d %d %d" % (self.capabilities, self.extended, self.collation))),
            digest_size=16).digest()
        return 0

    cdef int login_done(self) except -1:
        self.state = MY_READY
        self.make_login_key()
        return self.resume()

    cdef int changed_user(self, bytes data) except -1:
        """COM_CHANGE_USER: user, authentication data, database, character set."""
        user, _, rest = data.partition(b"\0")
        size = rest[0] if rest else 0
        database, _, rest = rest[1 + size:].partition(b"\0")
        self.user = user.decode("utf-8", "replace")
        self.database = database.decode("utf-8", "replace")
        if len(rest) >= 2:
            self.collation = rest[0] | rest[1] << 8
        self.history.unsafe_at_login = self.collation & MY_COLLATION_BASE in MY_UNSAFE_COLLATIONS
        return self.make_login_key()
