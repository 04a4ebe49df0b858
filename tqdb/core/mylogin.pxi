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
    "tls": (1045, "28000"),
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
    cdef bytes turned_away              # the server's error before the login, for the header of the PROXY protocol
    cdef bytes plugin                   # by which it is authenticated

    def __init__(self, Engine engine):
        Session.__init__(self, engine)
        self.dialect = MY
        self.plugin = b""

    cdef int introduced(self) except -1:
        self.engine.hooks.connect(self)
        return 0

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

    cpdef refuse(self, str kind, str message, str hint=""):
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
            message = f"{message}; {hint}" if hint else message
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

    cdef int server_ended(self) except -1:
        """One that has turned the client away is gone; the client hears of it in answer to its login."""
        return 0 if self.turned_away is not None else Session.server_ended(self)

    cdef int let_go(self, int cause) except -1:
        if self.thread is not None:
            self.engine.cancel_keys.pop(self.thread, None)
        return Session.let_go(self, cause)

    # --- client to server ---------------------------------------------------------------------------

    cdef Py_ssize_t parse_login(self, const char* p, Py_ssize_t n) except -1:
        """Anything before MY_READY."""
        cdef Py_ssize_t length
        if self.announced:
            return self.take_header(p, n)
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
        if length > MY_MAX_AUTH or (self.state == MY_LOGIN and self.sequence != 1 + has_tls(self)):
            self.sequence = 1 + has_tls(self)
            return self.refused("Bad handshake")
        if self.state == MY_AUTH and self.sequence == 0:
            return self.wait_for(WHEN_FREE)         # a command, ahead of the end of the login
        if n < length + MY_HEADER:
            return NEED_MORE
        if self.state == MY_AUTH:
            self.forward_login(self.sequence, p + MY_HEADER, length)
            return length + MY_HEADER
        if self.secure is not None and not has_tls(self) and (
                length == SSL_REQUEST_BYTES and le32(p + MY_HEADER) & CLIENT_SSL):
            # nobody answers an SSLRequest: what is here behind it is TLS already, or the handshake fails
            start_tls(self, p + MY_HEADER + length, n - MY_HEADER - length)
            return n
        if not self.read_handshake_response(p + MY_HEADER, length):
            return NEED_MORE
        if self.turned_away is not None:
            self.out.append_bytes(my_packet(self.sequence + 1, self.turned_away))
            self.disconnect(C_TOLD)
            return NEED_MORE
        self.state = MY_AUTH
        (<SessionServer>self.server).log_in(self.sequence, p[MY_HEADER:MY_HEADER + length])
        return length + MY_HEADER

    cdef int forward_login(self, int sequence, const char* p, Py_ssize_t n) except -1:
        """A packet of the login, for the server: an SSLRequest on one of the two sides only shifts the numbers."""
        cdef char[4] header
        put_packet_header(header, n, (sequence - has_tls(self) + has_tls(self.server)) & 255)
        self.server.out.append(header, MY_HEADER)
        return self.forward(p, n)

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
        if self.capabilities & (CLIENT_COMPRESS | CLIENT_ZSTD) or self.capabilities & CLIENT_SSL and not has_tls(self):
            self.refuse("unsupported", "TLS is not offered here, or was not asked for as it should be; "
                        "compression is not offered")
            return False
        self.capabilities &= ~CLIENT_SSL
        if self.needs_tls and not has_tls(self):
            self.refuse("tls", "Access denied: connections without TLS are not accepted", "connect with TLS")
            return False
        self.collation = <uint8_t>p[8]
        self.history.unsafe_charset = self.history.unsafe_at_login = self.collation in MY_UNSAFE_COLLATIONS
        end = <const char*>memchr(p + 32, 0, n - 32)
        if end == NULL:
            self.refused("Bad handshake")
            return False
        self.user = (p[32:end - p]).decode("utf-8", "replace")
        i = end - p + 1
        if self.capabilities & CLIENT_PLUGIN_AUTH_LENENC:
            i += read_lenenc(p + i, n - i, &size)
            i += <Py_ssize_t>min(size, <uint64_t>n)
        elif self.capabilities & CLIENT_SECURE_CONNECTION and i < n:
            i += 1 + <uint8_t>p[i]
        else:
            end = <const char*>memchr(p + i, 0, n - i) if i < n else NULL
            i = end - p + 1 if end != NULL else n
        if self.capabilities & CLIENT_CONNECT_WITH_DB:
            end = <const char*>memchr(p + i, 0, n - i) if i < n else NULL
            if end == NULL:
                self.refused("Bad handshake")
                return False
            self.database = (p[i:end - p]).decode("utf-8", "replace")
            i = end - p + 1
        if self.capabilities & CLIENT_PLUGIN_AUTH and i < n:
            self.plugin = (p[i:n]).partition(b"\0")[0]
            i += PyBytes_GET_SIZE(self.plugin) + 1
        if self.capabilities & CLIENT_CONNECT_ATTRS and i < n:
            self.application = my_attribute(p[i:n], b"program_name").decode("utf-8", "replace")
        return True

    # --- authentication -----------------------------------------------------------------------------

    cdef bint may_disclose(self, bytes plugin) except -1:
        """Whether the client may be asked by, or has answered by, this plugin; if not, it is told."""
        self.plugin = plugin
        if plugin and plugin not in MY_CHALLENGES and self.would_disclose():
            self.refuse_disclosure()
            return False
        return True

    cdef int refuse_disclosure(self) except -1:
        self.refuse("tls", f"the password would be sent to the server in clear, though it comes in TLS "
                    f"({self.plugin.decode('ascii', 'replace')})",
                    "set tls for the server in the proxy's configuration")
        return 0

    cdef bint may_be_asked(self, const char* p, Py_ssize_t n) except -1:
        """Whether a packet of the server's during authentication may go on to the client; if not, it is told."""
        cdef uint8_t mark = <uint8_t>p[0] if n else 0
        cdef bytes plugin
        if (mark == MARK_EOF or mark == MARK_NEXT_FACTOR) and n > 1:
            plugin = (p[1:n]).partition(b"\0")[0]
            return self.may_disclose(plugin)
        if mark == MARK_MORE and self.plugin == b"caching_sha2_password" and (p[:n]) == SHA2_FULL and (
                (has_tls(self) or self.local) != (has_tls(self.server) or self.server.local)):
            if self.would_disclose() or self.local:
                self.refuse_disclosure()
            else:
                self.refuse("tls", "caching_sha2_password asks for the password, which comes without TLS",
                            "connect with TLS")
            return False
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
        self.now_within(self.database)
        self.make_login_key()
        return self.resume()

    cdef int changed_user(self, bytes data) except -1:
        """COM_CHANGE_USER: user, authentication data, database, character set."""
        user, _, rest = data.partition(b"\0")
        size = rest[0] if rest else 0
        database, _, rest = rest[1 + size:].partition(b"\0")
        self.user = user.decode("utf-8", "replace")
        self.database = database.decode("utf-8", "replace")
        self.now_within(self.database)
        if len(rest) >= 2:
            self.collation = rest[0] | rest[1] << 8
        self.history.unsafe_at_login = self.collation & MY_COLLATION_BASE in MY_UNSAFE_COLLATIONS
        return self.make_login_key()
