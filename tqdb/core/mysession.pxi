# MariaDB/MySQL: the client's session.

cdef enum MyState:
    MY_GREETING = 0     # the server connection is being made, its greeting awaited
    MY_LOGIN            # the greeting is with the client, its handshake response awaited
    MY_AUTH             # the authentication exchange is relayed
    MY_READY
    MY_RAW              # binlog dump: bytes are relayed without a look

cdef enum:
    MAX_PIPELINED = 256             # commands of one session under way
    MAX_MY_HELD = 200               # writes of one session in a batch

MY_ERRORS = {
    "protocol": (1043, "08S01"),
    "order": (1156, "08S01"),
    "connect": (2003, "HY000"),
    "too_many": (1040, "08004"),
    "timeout": (1159, "08S01"),
    "shutdown": (1053, "08S01"),
    "unsupported": (1251, "08004"),
}

cdef class MyStatement:
    """A prepared statement as its COM_STMT_PREPARE and the server's answer told it."""
    cdef bytes core                 # the statement proper, None if it cannot be batched
    cdef int qtype
    cdef int flags                  # of its scan
    cdef bint hinted
    cdef double wait_ms
    cdef Source source
    cdef int nparams
    cdef bytes types                # of the parameters, as the client sent them last; None: not yet
    cdef bytes server_types         # … and as the server heard them last
    cdef bint long_data             # parameters were sent ahead
    cdef Shape shape                # of its executions


cdef class MySession(Session):
    """The client's end of a MariaDB session."""
    cdef readonly int state
    cdef tuple thread                   # address and connection id: what a KILL names
    cdef uint32_t capabilities
    cdef uint32_t extended              # MariaDB's, the upper 32 bits
    cdef uint32_t status                # of the last OK or EOF
    cdef bint status_unknown            # an error came last: it tells no status
    cdef bint plain                     # the last command sent is one statement that opens no transaction
    cdef int collation
    cdef bint login_unsafe_charset
    cdef uint8_t[256] commands          # ring of commands that wait for their answer
    cdef int first_command
    cdef int ncommands
    cdef bint continued                 # the packet before was a full one: this is more of it
    cdef bint in_infile                 # LOAD DATA LOCAL: packets are data until an empty one
    cdef bint in_change_user
    cdef bytes change_user
    cdef bytes used_database            # argument of the last USE or COM_INIT_DB
    cdef int sequence                   # of the client's last packet
    cdef object prepared                # what the next prepare answer is about
    cdef dict statements                # statement id -> MyStatement
    cdef MyStatement held_statement     # what the held writes execute, None if they are text
    cdef bint held_types                # one of them tells the types
    cdef bytes first_types              # what the client had told before them
    cdef int64_t row_count              # what ROW_COUNT() has to answer after a batched write
    cdef uint64_t insert_id             # what LAST_INSERT_ID() has to answer …
    cdef bint insert_id_due             # … and the server does not know it
    cdef bint stale_diagnostics         # the server has not seen the last write: SHOW WARNINGS is another's

    def __init__(self, Engine engine):
        Session.__init__(self, engine)
        self.dialect = MY
        self.statements = {}
        self.prepared = deque()
        self.used_database = b""
        self.max_held = MAX_MY_HELD

    def connect(self):
        """A client is there; MariaDB's server speaks first, so the server connection is made at once."""
        self.engine.hooks.connect(self)

    def attach(self, MyServer server):
        self.server = server
        server.session = server.client = self

    cdef bint is_logged_in(self) noexcept:
        return self.state >= MY_READY

    cdef bint is_idle(self) noexcept:
        return (self.state < MY_READY or (
            self.ncommands == 0 and not self.in_transaction() and not self.is_waiting() and self.skip == 0
            )) and self.state != MY_RAW

    # --- what the engine asks -----------------------------------------------------------------------

    cdef bint busy(self) noexcept:
        return self.ncommands > 0

    cdef bint in_transaction(self) noexcept:
        return self.status_unknown or self.status & (
            STATUS_IN_TRANS | STATUS_IN_TRANS_READONLY | STATUS_AUTOCOMMIT) != STATUS_AUTOCOMMIT

    cdef int push_command(self, int command) except -1:
        self.commands[(self.first_command + self.ncommands) & 255] = <uint8_t>command
        self.ncommands += 1
        return 0

    cdef int sent_held(self) except -1:
        cdef int k
        if self.nwrites:
            self.plain = True
        self.stale_diagnostics = False
        if self.held_statement is not None:
            # client libraries tell the types with the first execution; this one has told them to the server
            if self.held_types:
                self.held_statement.server_types = self.held_statement.types
            self.held_statement = None
        if not self.nwrites:
            return self.push_command(<uint8_t>self.held.ptr()[MY_HEADER])
        for k in range(self.nwrites):
            self.push_command(<uint8_t>self.held.ptr()[self.writes[k].start + MY_HEADER])
        return 0

    cdef bytes cancelled_answer(self):
        return my_error(1, 1317, "70100", "Query execution was interrupted")

    cdef bint kill_gathered(self, bytes sql) except -1:
        """KILL QUERY for a write that is still gathered: the server would find that connection idle."""
        cdef MySession target
        number = self.engine.hooks.killed_query(sql)
        target = self.engine.cancel_keys.get((self.address, number))
        return target is not None and target is not self and target.user == self.user and target.cancel_waiting()

    cdef int gone(self) except -1:
        if self.thread is not None:
            self.engine.cancel_keys.pop(self.thread, None)
        return Session.gone(self)

    cdef int connection_lost(self) except -1:
        self.out.append_bytes(my_error(
            1, 2013, "HY000", "Lost connection to server during query; "
            "the write was sent and its outcome is not known; it was not sent again"))
        return self.finish()

    cdef int farewell(self) except -1:
        if self.state == MY_READY and self.ncommands == 0 and self.skip == 0:
            self.server.out.append(b"\1\0\0\0\1", 5)
        return 0

    cpdef refuse(self, str kind, str message):
        cdef int seq
        code, sqlstate = MY_ERRORS[kind]
        if kind == "protocol" or kind == "order":
            self.engine.stats.protocol_errors[self.dialect] += 1
        self.count_refusal(kind, message)
        if kind == "shutdown" and self.state == MY_READY:
            self.finish()           # as the server does: an idle client expects no packet
        elif not self.closed:
            seq = 0 if self.state == MY_GREETING else self.sequence + 1
            self.out.append_bytes(my_error(seq, code, sqlstate, message, self.state != MY_GREETING))
            self.finish()

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
            elif self.state == MY_READY:
                used = self.parse_packet(p + i, n - i)
            elif self.state == MY_RAW:
                used = n - i
                self.forward(p + i, used)
            elif self.state == MY_LOGIN or self.state == MY_AUTH:
                used = self.parse_login_packet(p + i, n - i)
            else:
                if n - i > MY_MAX_AUTH:
                    self.refuse("protocol", "Bad handshake")
                break
            if used == 0:
                break
            i += used
        return n if self.closed or self.closing else i

    cdef Py_ssize_t parse_login_packet(self, const char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t length
        if n < MY_HEADER:
            return 0
        length = my_length(p)
        self.sequence = <uint8_t>p[3]
        if length > MY_MAX_AUTH or (self.state == MY_LOGIN and self.sequence != 1):
            self.sequence = 1
            self.refuse("protocol", "Bad handshake")
            return 0
        if n < length + MY_HEADER:
            return 0
        if self.state == MY_LOGIN and not self.read_handshake_response(p + MY_HEADER, length):
            return 0
        self.state = MY_AUTH
        self.forward(p, length + MY_HEADER)
        return length + MY_HEADER

    cdef bint read_handshake_response(self, const char* p, Py_ssize_t n) except -1:
        cdef const char* end
        cdef uint64_t size = 0
        cdef Py_ssize_t i
        if n < 32 or not le32(p) & CLIENT_PROTOCOL_41:
            self.refuse("protocol", "Bad handshake: protocol 4.1 or later is needed")
            return False
        self.capabilities = le32(p)
        self.extended = 0 if self.capabilities & CLIENT_MYSQL else le32(p + 28)
        if self.capabilities & (CLIENT_SSL | CLIENT_COMPRESS | CLIENT_ZSTD):
            self.refuse("unsupported", "TLS and compression are not offered here; connect without them")
            return False
        self.collation = <uint8_t>p[8]
        self.login_unsafe_charset = self.unsafe_charset = self.collation in MY_UNSAFE_COLLATIONS
        end = <const char*>memchr(p + 32, 0, n - 32)
        if end == NULL:
            self.refuse("protocol", "Bad handshake")
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
                self.refuse("protocol", "Bad handshake")
                return False
            self.database = (p[i:end - p]).decode("utf-8", "replace")
        return True

    cdef Py_ssize_t parse_packet(self, const char* p, Py_ssize_t n) except -1:
        """One command packet, or the start of a long one; returns the bytes taken."""
        cdef Py_ssize_t length, part
        cdef int command, action
        if n < MY_HEADER:
            return 0
        length = my_length(p)
        self.sequence = <uint8_t>p[3]
        if self.continued or self.in_infile or self.in_change_user:
            if self.in_infile and not self.continued and length == 0:
                self.in_infile = False
            self.continued = length == MY_MAX_PACKET
            return self.relay_packet(p, n, length)
        if self.sequence != 0:
            self.refuse("order", "Got packets out of order")
            return 0
        if length == 0:
            self.refuse("protocol", "Malformed communication packet: an empty command")
            return 0
        if self.ncommands >= MAX_PIPELINED:
            self.blocked = self.waiting = True
            return 0
        if n < MY_HEADER + 1:
            return 0
        command = <uint8_t>p[MY_HEADER]
        if self.nwrites and command != COM_QUERY and command != COM_STMT_EXECUTE:
            self.wait_for_held()
            return 0
        if command in (COM_QUERY, COM_STMT_PREPARE, COM_INIT_DB, COM_CHANGE_USER):
            if length > self.engine.max_batch_bytes + 65536 or length == MY_MAX_PACKET:
                if self.nwrites:
                    self.wait_for_held()
                    return 0
                return self.begin_oversize(command, p, n, length)
            if n < MY_HEADER + length:
                return 0
            action = self.whole_command(command, p, length)
            if action == A_HELD:
                return MY_HEADER + length
            if action == A_WAIT:
                return 0
        elif command == COM_STMT_EXECUTE or command == COM_STMT_BULK_EXECUTE:
            return self.execute(command, p, n, length)
        if length >= 5 and n < MY_HEADER + 5:
            return 0
        if command != COM_STMT_CLOSE and command != COM_STMT_SEND_LONG_DATA and command != COM_QUIT:
            self.plain = self.plain and command == COM_QUERY
            self.push_command(command)
        if command in (COM_BINLOG_DUMP, COM_BINLOG_DUMP_GTID, COM_TABLE_DUMP):
            self.state = MY_RAW
        elif command in (COM_STMT_CLOSE, COM_STMT_RESET, COM_STMT_SEND_LONG_DATA) and length >= 5:
            self.note_statement(command, le32(p + MY_HEADER + 1))
        elif command == COM_SET_OPTION:
            self.history = mix(self.history, b"option", p[:min(n, MY_HEADER + length)])
            self.leave_class()
        self.continued = length == MY_MAX_PACKET
        return self.relay_packet(p, n, length)

    cdef inline Py_ssize_t relay_packet(self, const char* p, Py_ssize_t n, Py_ssize_t length) except -1:
        cdef Py_ssize_t part = min(n, MY_HEADER + length)
        self.forward(p, part)
        self.skip = MY_HEADER + length - part
        return part

    cdef Py_ssize_t begin_oversize(self, int command, const char* p, Py_ssize_t n,
                                   Py_ssize_t length) except -1:
        if n < OVERSIZE_HEAD:
            return 0
        if command == COM_QUERY and length < MY_MAX_PACKET:
            self.note_oversize(p + MY_HEADER + 1, n - MY_HEADER - 1, self.backslash())
        else:
            self.tainted = True
            self.leave_class()
        if command == COM_STMT_PREPARE:
            self.prepared.append(None)
        self.push_command(command)
        self.continued = length == MY_MAX_PACKET
        return self.relay_packet(p, n, length)

    cdef inline bint backslash(self) noexcept:
        return not self.status & STATUS_NO_BACKSLASH_ESCAPES

    cdef int whole_command(self, int command, const char* p, Py_ssize_t length) except -1:
        """A query, prepare, database or user change that is here whole: returns an ``Action``."""
        cdef Scan s
        cdef int action
        cdef const char* sql = p + MY_HEADER + 1
        cdef Py_ssize_t n = length - 1
        cdef bytes text
        if command == COM_INIT_DB:
            self.used_database = sql[:n]
            self.history = mix(self.history, b"use", self.used_database)
            self.set_open = self.set_in_transaction = True
            self.leave_class()
            return A_RELAY
        if command == COM_CHANGE_USER:
            self.in_change_user = True
            self.change_user = sql[:n]
            self.leave_class()
            return A_RELAY
        scan_sql(<const uint8_t*>sql, n, MY, self.backslash(), &s)
        self.plain = s.verb >= W_INSERT and s.verb <= W_SELECT and not s.flags & (F_MULTI | F_UNSURE)
        if s.flags & F_STATUS and not self.nwrites:
            text = self.engine.hooks.status_sql(MY, sql[:n], self)
            if text is not None:
                self.set_source(&s)
                self.go_alone(R_NO_HINT)
                text = my_command(command, text)
                if command == COM_STMT_PREPARE:
                    self.prepared.append(None)
                self.push_command(command)
                self.forward(PyBytes_AS_STRING(text), len(text))
                return A_HELD
        if s.flags & F_KILL and command == COM_QUERY and not self.nwrites and self.kill_gathered(sql[:n]):
            self.set_source(&s)
            self.go_alone(R_NO_HINT)
            text = my_command(COM_QUERY, b"DO 0")
            self.push_command(COM_QUERY)
            self.forward(PyBytes_AS_STRING(text), len(text))
            return A_HELD
        if command == COM_STMT_PREPARE:
            self.prepared.append(self.read_prepare(sql, n, &s))
            if s.flags & F_ROW_COUNT:
                self.uses_currval = True
                self.leave_class()
            if s.flags & F_SETLIKE:
                s.flags |= F_TAINT
            self.note_my(sql, n, &s)
            return A_RELAY
        if self.busy() and (self.insert_id_due or self.stale_diagnostics) and s.flags & (
                F_LAST_ID | F_DIAGNOSTICS):
            self.blocked = self.waiting = True
            return A_WAIT
        action = self.consider(p, MY_HEADER + length, MY_HEADER + 1, MY_HEADER + length, &s)
        if action == A_HELD:
            self.held_statement = None
        if action == A_RELAY:
            self.note_my(sql, n, &s)
            if (self.insert_id_due and (s.flags & F_LAST_ID or s.verb in (
                    W_INSERT, W_REPLACE, W_SETLIKE, W_NONE))) or (
                    self.stale_diagnostics and s.flags & F_DIAGNOSTICS):
                if s.flags & F_ROW_COUNT and self.stale_diagnostics:
                    text = self.engine.hooks.row_count_sql(sql[:n], self.row_count)
                    if text is not None:
                        text = my_command(COM_QUERY, text)
                        self.restore_first(PyBytes_AS_STRING(text), len(text))
                        return A_HELD
                self.restore_first(p, MY_HEADER + length)
                return A_HELD
            self.stale_diagnostics = False
        return action

    cdef int note_my(self, const char* sql, Py_ssize_t n, Scan* s) except -1:
        cdef bytes text
        if s.flags & F_SETLIKE:
            text = (sql[:n]).lower()
            for charset in MY_UNSAFE_CHARSETS:
                if charset in text:
                    self.unsafe_charset = True
            if text.lstrip()[:3] == b"use":
                self.used_database = sql[s.core_start:n]
        return self.note(sql, n, s)

    # LAST_INSERT_ID() and SHOW WARNINGS are asked on the client's own connection, which did not run the batch.

    # A statement that may set the last id without telling must find it right too, lest an old one be set later.

    cdef int restore(self) except -1:
        # Only a statement that uses a table empties the list of warnings; DO leaves it as it is.
        value = b"LAST_INSERT_ID(%d)" % self.insert_id if self.insert_id_due else b"0"
        sql = b"SELECT " + value + b" FROM (SELECT 1) AS t" if self.stale_diagnostics else b"DO " + value
        self.insert_id_due = self.stale_diagnostics = False
        return self.server.run_hidden(sql, H_RESTORE)

    cdef Py_ssize_t restore_first(self, const char* p, Py_ssize_t total) except -1:
        self.held.append(p, total)
        self.blocked = True
        self.restore()
        return total

    cdef bint restore_before_alone(self) except -1:
        """A single row tells its id in its OK packet; several rows or RETURNING rows do not."""
        if not self.insert_id_due or self.qtype == QT_UPDATE or self.qtype == QT_DELETE or (
                self.held_shape.form == FORM_CUT and self.nrows == 1
                and not self.held_shape.verdict.returning):
            return False
        self.restore()
        return True

    cdef int led_failed_batch(self) except -1:
        """The rows in front of the one that failed have changed the connection's LAST_INSERT_ID()."""
        self.insert_id_due = True
        return 0

    # --- prepared statements --------------------------------------------------------------------------

    cdef MyStatement read_prepare(self, const char* sql, Py_ssize_t n, Scan* s):
        cdef MyStatement statement = MyStatement.__new__(MyStatement)
        self.set_source(s)
        statement.qtype = s.qtype
        statement.flags = s.flags
        statement.hinted = s.hinted
        statement.wait_ms = s.wait_ms
        statement.source = self.source
        if s.qtype <= QT_REPLACE and n <= MAX_STATEMENT_BYTES:
            statement.core = sql[s.core_start:s.core_end]
        return statement

    cdef int note_statement(self, int command, uint32_t number) except -1:
        cdef MyStatement statement = self.statements.get(number)
        if statement is not None:
            if command == COM_STMT_CLOSE:
                del self.statements[number]
            else:
                statement.long_data = command == COM_STMT_SEND_LONG_DATA
        return 0

    cdef inline double wait_of(self, MyStatement statement) noexcept:
        return statement.wait_ms if statement.hinted else self.session_wait

    cdef Py_ssize_t execute(self, int command, const char* p, Py_ssize_t n, Py_ssize_t length) except -1:
        """COM_STMT_EXECUTE, or a bulk one: gathered, or relayed; returns the bytes taken."""
        cdef MyStatement statement
        cdef Py_ssize_t types_at = 0        # offset of the byte that says whether types follow
        cdef bint types = False
        cdef bint wanted
        cdef int action
        if n < MY_HEADER + min(length, 5):
            return 0
        statement = self.statements.get(le32(p + MY_HEADER + 1)) if length >= 5 else None
        if command == COM_STMT_EXECUTE and statement is not None and statement.nparams:
            types_at = MY_HEADER + EXECUTE_HEAD + (statement.nparams + 7) // 8
            if n < min(MY_HEADER + length, types_at + 1 + 2 * statement.nparams):
                return 0
            if MY_HEADER + length <= types_at:
                types_at = 0                # malformed: the server's to refuse
            else:
                types = p[types_at] == 1 and MY_HEADER + length >= types_at + 1 + 2 * statement.nparams
        wanted = command == COM_STMT_EXECUTE and statement is not None and statement.qtype <= QT_REPLACE and (
            self.wait_of(statement) != WAIT_NONE)
        if wanted or self.needs_restore(statement):
            if self.busy():
                self.blocked = self.waiting = True
                return 0
            if n < MY_HEADER + length and length <= self.engine.max_batch_bytes + 65536:
                return 0
        if wanted:
            action = self.consider_execute(statement, p, length, types_at, types)
            if action == A_HELD:
                return MY_HEADER + length
            if action == A_WAIT:
                return 0
        elif self.nwrites:
            self.wait_for_held()
            return 0
        else:
            self.count_execute(statement)
        if types:
            statement.types = p[types_at + 1:types_at + 1 + 2 * statement.nparams]
        elif types_at and statement.types is not None and statement.server_types is not statement.types and (
                statement.server_types != statement.types):
            return self.relay_with_types(statement, p, n, length, types_at)
        if statement is not None:
            statement.server_types = statement.types
            statement.long_data = False
        self.plain = False
        if self.needs_restore(statement) and length <= self.engine.max_batch_bytes + 65536:
            return self.restore_first(p, MY_HEADER + length)
        self.push_command(command)
        self.continued = length == MY_MAX_PACKET
        return self.relay_packet(p, n, length)

    cdef inline bint needs_restore(self, MyStatement statement) noexcept:
        """Whether the statement may see or change what LAST_INSERT_ID() and SHOW WARNINGS say."""
        return (self.insert_id_due or self.stale_diagnostics) and (
            statement is None or statement.flags & (F_LAST_ID | F_DIAGNOSTICS) != 0
            or statement.qtype in (QT_INSERT, QT_REPLACE, QT_OTHER))

    cdef Py_ssize_t relay_with_types(self, MyStatement statement, const char* p, Py_ssize_t n,
                                     Py_ssize_t length, Py_ssize_t types_at) except -1:
        """An execution that counts on types which the server has not heard, because they went with a batch."""
        cdef char[4] header
        cdef Py_ssize_t longer = length + PyBytes_GET_SIZE(statement.types)
        if longer >= MY_MAX_PACKET:
            self.out.append_bytes(my_error(1, 1153, "08S01", "Got a packet bigger than the proxy can complete"))
            self.finish()
            return 0
        self.plain = False
        put_packet_header(header, longer, 0)
        statement.server_types = statement.types
        statement.long_data = False
        if self.needs_restore(statement) and length <= self.engine.max_batch_bytes + 65536:
            self.held.append(header, MY_HEADER)
            self.held.append(p + MY_HEADER, types_at - MY_HEADER)
            self.held.append(b"\1", 1)
            self.held.append_bytes(statement.types)
            self.restore_first(p + types_at + 1, MY_HEADER + length - types_at - 1)
            return MY_HEADER + length
        self.push_command(COM_STMT_EXECUTE)
        self.forward(header, MY_HEADER)
        self.forward(p + MY_HEADER, types_at - MY_HEADER)
        self.forward(b"\1", 1)
        self.forward(PyBytes_AS_STRING(statement.types), PyBytes_GET_SIZE(statement.types))
        n = min(n, MY_HEADER + length)
        self.forward(p + types_at + 1, n - types_at - 1)
        self.skip = MY_HEADER + length - n
        return n

    cdef int consider_execute(self, MyStatement statement, const char* p, Py_ssize_t length,
                              Py_ssize_t types_at, bint types) except -1:
        """Decides about a hinted write of a prepared statement: returns an ``Action``."""
        cdef Py_ssize_t total = MY_HEADER + length
        cdef Shape shape = None
        cdef int reason, action
        cdef Write* w
        cdef bytes sent = None
        if self.busy() and self.comparable():
            self.blocked = self.waiting = True
            return A_WAIT
        if self.nwrites and not (statement.qtype == self.qtype and statement.source is self.source
                                 and self.held_statement is statement):
            return self.wait_for_held()
        self.qtype = statement.qtype
        self.source = statement.source
        reason = self.exclusion(total, statement.flags, 1)
        if reason == R_COUNT:
            reason = R_NOT_BATCHABLE
            if statement.nparams == 0:
                sent = b""
            elif types:
                sent = p[types_at + 1:types_at + 1 + 2 * statement.nparams]
            elif types_at and p[types_at] == 0:
                sent = statement.types
            if sent is not None and statement.core is not None and not statement.long_data and (
                    p[MY_HEADER + 5] == 0) and not (
                        statement.flags & F_RETURNING and self.extended & MARIADB_CACHE_METADATA):
                shape = self.execution_shape(statement)
                if shape is not None and shape.verdict is not None:
                    reason = R_COUNT
        if reason != R_COUNT:
            return self.not_gathered(reason, 1)
        w = self.add_write()
        w.start = w.bind = w.bind_end = 0
        w.end = total
        w.sql_start = MY_HEADER + EXECUTE_HEAD
        w.sql_end = w.tuples_end = total
        w.tuples_start = total
        if statement.nparams:
            w.tuples_start = types_at + 1 + (2 * statement.nparams if types else 0)
        w.rows = 1
        w.flags = WF_SYNC | (WF_TYPES if types else 0)
        action = self.gather(shape, 1, p, total, self.wait_of(statement))
        if action == A_HELD:
            if self.nwrites == 1:
                self.held_types = False
                self.first_types = statement.types
            self.held_types = self.held_types or types
            statement.types = sent
            self.held_statement = statement
        return action

    cdef Shape execution_shape(self, MyStatement statement):
        cdef Scan s
        if statement.shape is not None:
            return statement.shape
        scan_sql(<const uint8_t*>PyBytes_AS_STRING(statement.core), PyBytes_GET_SIZE(statement.core), MY,
                 self.backslash(), &s)
        statement.shape = self.engine.bound_shape(MY, statement.core, b"", &s, statement.nparams)
        return statement.shape

    cdef int before_held(self) except -1:
        """Executions that count on types which the server has not heard get them."""
        cdef MyStatement statement = self.held_statement
        cdef bytes first
        cdef bytes types = self.first_types
        cdef Py_ssize_t at
        if statement is None or not self.nwrites or statement.nparams == 0 or (
                self.writes[0].flags & WF_TYPES or statement.server_types == types):
            return 0
        at = MY_HEADER + EXECUTE_HEAD + (statement.nparams + 7) // 8
        first = self.held.take()
        first = (len(first[MY_HEADER:self.writes[0].end]) + len(types)).to_bytes(3, "little") + (
            first[3:at] + b"\1" + types + first[at + 1:])
        self.held.append_bytes(first)
        statement.server_types = types
        for at in range(1, self.nwrites):
            self.writes[at].start += PyBytes_GET_SIZE(types)
        return 0

    cdef int count_execute(self, MyStatement statement) except -1:
        if statement is None:
            self.qtype = QT_OTHER
            self.source = self.engine.stats.none
            self.may_be_ddl()
            self.begin_timing()
            return self.count_alone(QT_OTHER, R_NO_HINT, self.source)
        self.qtype = statement.qtype
        self.source = statement.source
        if self.qtype == QT_OTHER:
            self.may_be_ddl()
        self.begin_timing()
        return self.count_alone(
            self.qtype, (R_IN_TRANSACTION if self.in_transaction() else R_NOT_BATCHABLE)
            if self.qtype <= QT_REPLACE and self.wait_of(statement) != WAIT_NONE else R_NO_HINT, self.source)

    # --- told by the server connection ----------------------------------------------------------------

    cdef int on_status(self, uint32_t status, uint64_t insert_id) except -1:
        self.status = status
        self.status_unknown = False
        if insert_id:
            self.insert_id = insert_id
            self.insert_id_due = False
        return 0

    cdef int on_done(self, int command, bint failed) except -1:
        """The answer to the oldest command under way has been relayed."""
        self.first_command = (self.first_command + 1) & 255
        self.ncommands -= 1
        if failed:
            if not self.plain or self.ncommands:
                self.status_unknown = True
            self.statement_failed()
        if command == COM_RESET_CONNECTION and not failed:
            self.reset_state(b"reset", self.used_database)
        elif command == COM_CHANGE_USER:
            self.in_change_user = False
            if not failed:
                self.changed_user()
        self.observe(self.engine.now, LK_ALONE)
        if self.ncommands == 0:
            self.became_idle(self.in_transaction())
        elif self.waiting and self.ncommands < MAX_PIPELINED // 2:
            self.release()
        return 0

    cdef int reset_state(self, bytes tag, bytes data) except -1:
        self.leave_class()
        self.history = mix(b"\0" * 16, tag, data)
        self.tainted = self.temp = self.locks = self.uses_currval = self.set_open = False
        self.unsafe_charset = self.login_unsafe_charset
        self.insert_id = 0
        self.insert_id_due = self.stale_diagnostics = False
        self.statements.clear()
        return 0

    cdef int changed_user(self) except -1:
        """COM_CHANGE_USER: user, authentication data, database, character set."""
        user, _, rest = self.change_user.partition(b"\0")
        size = rest[0] if rest else 0
        database, _, rest = rest[1 + size:].partition(b"\0")
        self.user = user.decode("utf-8", "replace")
        self.database = database.decode("utf-8", "replace")
        if len(rest) >= 2:
            self.collation = rest[0] | rest[1] << 8
        self.login_unsafe_charset = self.collation in MY_UNSAFE_COLLATIONS
        self.used_database = b""
        self.reset_state(b"change", b"")
        return self.make_login_key()

    cdef int make_login_key(self) except -1:
        self.login_key = hashlib.blake2b(b"\0".join((
            self.backend.encode(), self.address.encode(), b"%d" % self.engine.settings_epoch, self.user.encode(),
            self.database.encode(), b"%d %d %d" % (self.capabilities, self.extended, self.collation))),
            digest_size=16).digest()
        return 0

    cdef int login_done(self) except -1:
        self.state = MY_READY
        self.history = b"\0" * 16
        self.make_login_key()
        return self.release()
