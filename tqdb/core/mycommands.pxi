# MariaDB/MySQL: the client's established session: commands and text.

cdef enum:
    MAX_PIPELINED = 256             # commands of one session under way
    MAX_MY_HELD = 200               # writes of one session in a batch
    MAX_USE = 400                   # bytes of a USE

# commands behind which the connection speaks another protocol
MY_DUMPS = frozenset((COM_BINLOG_DUMP, COM_BINLOG_DUMP_GTID, COM_TABLE_DUMP))

cdef bytes OPTION_SAID = b"option "     # what COM_SET_OPTION is in a session's history, with its number

# commands that no packet answers
MY_UNANSWERED = frozenset((COM_QUIT, COM_STMT_CLOSE, COM_STMT_SEND_LONG_DATA))


cdef bytes my_change_plugin(bytes said):
    """The authentication plugin that a COM_CHANGE_USER names behind the command, or nothing."""
    cdef bytes rest = said.partition(b"\0")[2]
    rest = rest[1 + rest[0]:] if rest else b""              # user, authentication data, …
    return rest.partition(b"\0")[2][2:].partition(b"\0")[0]     # … database, character set


cdef str used_database(bytes use):
    """The database that a USE names, "" if it is not clear."""
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(use)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(use)
    cdef Py_ssize_t i = skip_blank(p, 3, n, MY)
    cdef Py_ssize_t end
    cdef bytes name
    if i < 0 or i == n:
        return ""
    if p[i] == b"`" or p[i] == b'"':
        end = skip_quoted(p, i + 1, n, p[i], False)
        if end < i + 2 or p[end - 1] != p[i]:
            return ""
        name = use[i + 1:end - 1].replace(use[i:i + 1] * 2, use[i:i + 1])
    else:
        end = skip_word(p, i, n)
        name = use[i:end]
    end = skip_blank(p, end, n, MY)
    return name.decode("utf-8", "replace") if end >= 0 and ends_at(p, end, n, MY) else ""


cdef class MyReset:
    """Effect of COM_RESET_CONNECTION, or of COM_CHANGE_USER: then ``user`` is what it says behind the command."""
    cdef bytes user


cdef class MyStatement(Prepared):
    """A prepared statement as its COM_STMT_PREPARE and the server's answer told it; the effect of that command."""
    cdef Source source
    cdef uint64_t shape_number      # its number, 0: it is no write
    cdef bint unread                # it was too long: nothing is known of it
    cdef bytes status               # the question about the proxy, if it is one; None: it is not
    cdef uint32_t number            # statement id
    cdef int nparams
    cdef Change change              # what each execution makes true
    cdef bytes types                # of the parameters, as the client sent them last; None: not yet
    cdef bytes server_types         # … and as the server heard them last
    cdef bint long_data             # parameters were sent ahead
    cdef Shape shape                # of its executions …
    cdef Shape single               # … and of those whose parameters are no literals


cdef class MyCommands(MyBlocks):
    """The client's end of an established session; what it prepares is the next room's."""
    cdef bint continued                 # the packet before was a full one: this is more of it
    cdef bint in_infile                 # LOAD DATA LOCAL: packets are data until an empty one
    cdef bint in_change_user
    cdef dict statements                # statement id -> MyStatement
    cdef MyStatement last_prepared      # what statement id -1 means
    cdef MyStatement held_statement     # what the held writes execute, None if they are text
    cdef bint held_types                # one of them tells the types
    cdef bytes first_types              # what the client had told before them

    def __init__(self, Engine engine):
        MyBlocks.__init__(self, engine)
        self.statements = {}
        self.max_held = MAX_MY_HELD

    cdef Py_ssize_t parse_prepare(self, const char* p, Py_ssize_t length) except -1:
        return NEED_MORE

    cdef Py_ssize_t parse_execute(self, const char* p, Py_ssize_t n, Py_ssize_t length) except -1:
        return NEED_MORE

    cdef Py_ssize_t relay_execute(self, int command, MyStatement statement, const char* p, Py_ssize_t n,
                                  Py_ssize_t length) except -1:
        return NEED_MORE

    # --- what the engine asks -----------------------------------------------------------------------

    cdef bint is_idle(self) noexcept:
        return self.state < MY_READY or (
            self.state == MY_READY and not self.busy() and not self.in_transaction() and not self.has_held()
            and self.skip == 0)

    cdef int terminate(self) except -1:
        if self.state == MY_READY and not self.busy() and self.skip == 0:
            self.server.out.append_bytes(MY_QUIT)
        return 0

    cdef bytes cancelled_answer(self, Write* w):
        cdef bytes error = my_error(1, 1317, "70100", "Query execution was interrupted")
        cdef uint32_t status = self.status & ~(STATUS_MORE_RESULTS | STATUS_SESSION_STATE_CHANGED)
        if not w.closing or not w.flags & WF_SYNC:
            self.was_batched(-1)
            return error
        self.was_batched(0)
        return my_plain_ok(1, status | STATUS_IN_TRANS) + error + my_plain_ok(1, status)

    cdef int expect_held(self) except -1:
        cdef Held held = self.held
        cdef MyStatement statement = self.held_statement
        cdef int k
        # a single row's OK packet tells its id, if the server has made it; several rows or RETURNING rows do not
        self.restore_for(
            self.alone_in is None,
            held.shape.form == FORM_CUT and held.rows == 1 and not held.shape.verdict.returning
            and not held.writes[0].opening
            and self.alone_in is not None and self.alone_in.merges() and self.alone_in.facts.id_step != 0)
        if statement is not None:
            self.tell_types(held, statement)
        for k in range(held.nwrites):
            if held.writes[k].opening:
                self.expect_block(held.writes[k].opening)
            else:
                self.server.queue.push(
                    X_RELAY, <uint8_t>held.data.ptr()[held.writes[k].start + MY_HEADER], XF_PLAIN)
        return 0

    cdef int tell_types(self, Held held, MyStatement statement) except -1:
        """Executions that count on types which the server has not heard get them."""
        cdef bytes first
        cdef bytes types = self.first_types
        cdef Py_ssize_t at
        cdef int k
        if statement.nparams and not held.writes[0].flags & WF_TYPES and statement.server_types != types:
            at = MY_HEADER + EXECUTE_HEAD + (statement.nparams + 7) // 8
            first = held.data.take()
            first = (held.writes[0].end - MY_HEADER + len(types)).to_bytes(3, "little") + (
                first[3:at] + b"\1" + types + first[at + 1:])
            held.data.append_bytes(first)
            statement.server_types = types
            for k in range(1, held.nwrites):
                held.writes[k].start += PyBytes_GET_SIZE(types)
        # client libraries tell the types with the first execution; this one has told them to the server
        if self.held_types:
            statement.server_types = statement.types
        return 0

    cdef int removing(self, int count) except -1:
        """The first held writes are taken back: the next ones may count on types that they told."""
        cdef Write* w
        cdef int k
        if self.held_statement is None:
            return 0
        for k in range(count):
            w = self.held.writes + k
            if w.flags & WF_TYPES:
                self.first_types = self.held.data.ptr()[
                    w.sql_start + (self.held_statement.nparams + 7) // 8 + 1:w.tuples_start]
        self.held_types = False
        for k in range(count, self.held.nwrites):
            self.held_types = self.held_types or self.held.writes[k].flags & WF_TYPES != 0
        return 0

    cdef int release(self) except -1:
        self.held_statement = None
        return MyBlocks.release(self)

    # --- client to server ---------------------------------------------------------------------------

    cdef Py_ssize_t parse(self, const char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t used
        if self.skip:
            used = min(self.skip, n)
            self.watch_oversize(p, used)
            self.forward(p, used)
            self.skip -= used
            return used
        if self.left:
            return n
        if self.state == MY_READY:
            if self.leaving and self.is_idle():
                return self.turn_away(p, n)
            return self.parse_packet(p, n)
        return self.parse_login(p, n)

    cdef Py_ssize_t turn_away(self, const char* p, Py_ssize_t n) except -1:
        """A command for a session that is to end: it is not run, and its client waits for an answer."""
        if n < MY_HEADER:
            return NEED_MORE
        code, sqlstate = MY_ERRORS["shutdown"]
        self.out.append_bytes(my_error(<uint8_t>p[3] + 1, code, sqlstate, "Server shutdown in progress"))
        self.refuse("shutdown", "Server shutdown in progress")
        return NEED_MORE

    cdef Py_ssize_t parse_packet(self, const char* p, Py_ssize_t n) except -1:
        """One command packet, or the start of a long one."""
        cdef Py_ssize_t length
        cdef int command
        if n < MY_HEADER:
            return NEED_MORE
        length = my_length(p)
        self.sequence = <uint8_t>p[3]
        if self.continued or self.in_infile or (self.in_change_user and self.sequence != 0):
            if self.in_infile and not self.continued and length == 0:
                self.in_infile = False
            return self.relay_packet(p, n, length)
        if self.in_change_user:
            return self.wait_for(0)
        if self.sequence != 0:
            self.refuse("order", "Got packets out of order")
            return NEED_MORE
        if length == 0:
            return self.refused("Malformed communication packet: an empty command")
        if self.server.queue.size >= MAX_PIPELINED:
            return self.wait_for(MAX_PIPELINED // 2)
        if n < MY_HEADER + 1:
            return NEED_MORE
        command = <uint8_t>p[MY_HEADER]
        if self.to_put_right() and self.busy() and not self.has_held() and command not in MY_BLIND:
            return self.wait_for(0)             # what is under way may say it differently
        if command == COM_STMT_EXECUTE:
            return self.parse_execute(p, n, length)
        if self.has_held() and command != COM_QUERY:
            return self.wait_for(WHEN_FREE)
        if command in (COM_QUERY, COM_STMT_PREPARE, COM_INIT_DB, COM_CHANGE_USER):
            if length > self.engine.max_batch_bytes + 65536 or length == MY_MAX_PACKET:
                return self.parse_oversize(command, p, n, length)
            if n < MY_HEADER + length:
                return NEED_MORE
            if command == COM_QUERY:
                return self.parse_query(p, n, length)
            if command == COM_STMT_PREPARE:
                return self.parse_prepare(p, length)
            return self.parse_change(command, p, length)
        return self.parse_other(command, p, n, length)

    cdef inline Py_ssize_t relay_packet(self, const char* p, Py_ssize_t n, Py_ssize_t length) except -1:
        cdef Py_ssize_t part = min(n, MY_HEADER + length)
        self.continued = length == MY_MAX_PACKET
        self.forward(p, part)
        self.skip = MY_HEADER + length - part
        return part

    cdef inline int expect(self, int command, int flags=0, effect=None) except -1:
        return self.server.queue.push(X_RELAY, command, flags, effect)

    cdef Py_ssize_t parse_oversize(self, int command, const char* p, Py_ssize_t n, Py_ssize_t length) except -1:
        cdef object effect = None
        if self.has_held():
            return self.wait_for(WHEN_FREE)
        if n < OVERSIZE_HEAD:
            return NEED_MORE
        self.restore()
        self.sends_own()
        n = min(n, MY_HEADER + length)
        if command == COM_QUERY and length < MY_MAX_PACKET:
            self.note_oversize(p + MY_HEADER + 1, n - MY_HEADER - 1, self.backslash())
        else:
            self.doubt()
        if command == COM_STMT_PREPARE:
            effect = self.last_prepared = MyStatement.__new__(MyStatement)
            self.last_prepared.source = self.engine.stats.none
            self.last_prepared.unread = True
            self.last_prepared.qtype = QT_OTHER
        self.expect(command, 0, effect)
        return self.relay_packet(p, n, length)

    cdef Py_ssize_t parse_change(self, int command, const char* p, Py_ssize_t length) except -1:
        """COM_INIT_DB, COM_CHANGE_USER."""
        cdef bytes said = p[MY_HEADER + 1:MY_HEADER + length]
        cdef Change change
        cdef MyReset reset
        if command == COM_INIT_DB:
            self.restore()
            change = Change.__new__(Change)
            change.text = b"use " + said
            self.expect(command, 0, change)
        else:
            if not self.may_disclose(my_change_plugin(said)):
                return NEED_MORE
            self.in_change_user = True
            reset = MyReset.__new__(MyReset)
            reset.user = said
            self.expect(command, 0, reset)
        return self.relay_packet(p, MY_HEADER + length, length)

    cdef Py_ssize_t parse_other(self, int command, const char* p, Py_ssize_t n, Py_ssize_t length) except -1:
        cdef object effect = None
        cdef Change change
        if length >= 5 and n < MY_HEADER + 5:
            return NEED_MORE
        if command in MY_DUMPS and self.busy():
            return self.wait_for(0)
        if command == COM_STMT_BULK_EXECUTE:
            return self.relay_execute(command, self.statement_at(p, length), p, n, length)
        if command not in MY_BLIND:
            self.restore()
        if command in (COM_STMT_CLOSE, COM_STMT_RESET, COM_STMT_SEND_LONG_DATA):
            self.note_statement(command, self.statement_at(p, length), le32(p + MY_HEADER + 1) if length >= 5 else 0)
        elif command == COM_RESET_CONNECTION:
            effect = MyReset.__new__(MyReset)
        elif command == COM_SET_OPTION:
            change = Change.__new__(Change)
            change.text = OPTION_SAID + p[MY_HEADER + 1:min(n, MY_HEADER + length)]
            effect = change
        if command not in MY_UNANSWERED:
            self.expect(command, 0, effect)
        if command in MY_DUMPS:
            self.state = MY_RAW
        self.left = command == COM_QUIT
        if self.left and self.may_ask_on_leaving():
            self.disconnect(C_CLIENT_GONE)
            return NEED_MORE
        return self.relay_packet(p, n, length)

    # --- text -------------------------------------------------------------------------------------------

    cdef Py_ssize_t parse_query(self, const char* p, Py_ssize_t here, Py_ssize_t length) except -1:
        """COM_QUERY that is here whole."""
        cdef Scan s
        cdef int action, flags
        cdef const char* sql = p + MY_HEADER + 1
        cdef Py_ssize_t n = length - 1
        cdef bytes text = None
        cdef Py_ssize_t block = self.parse_block(p, here, length)
        if block:
            if block > 0:
                self.held_statement = None
            return block
        scan_sql(<const uint8_t*>sql, n, MY, self.backslash(), &s)
        if s.flags & (F_STATUS | F_KILL) and not self.has_held():
            if self.parse_own(sql, &s):
                return MY_HEADER + length
        action = self.consider(p, MY_HEADER + length, MY_HEADER + 1, MY_HEADER + length, &s)
        if action == A_HELD:
            self.held_statement = None
            return MY_HEADER + length
        if action == A_WAIT:
            return WAIT
        flags = XF_PLAIN if s.verb >= W_INSERT and s.verb <= W_SELECT and not s.flags & (F_MULTI | F_UNSURE) else 0
        if s.flags & F_ROW_COUNT:
            text = self.restore_and_count(sql[:n])
        self.restore()
        self.sends_own()
        self.expect(COM_QUERY, flags, self.my_change_of(sql, n, &s))
        if text is None:
            return self.relay_packet(p, MY_HEADER + length, length)
        self.server.out.append_bytes(my_command(COM_QUERY, text))
        self.server.mark()
        return MY_HEADER + length

    cdef bint parse_own(self, const char* sql, Scan* s) except -1:
        """A question about the proxy, or a KILL QUERY of a write that is still gathered: answered in its name."""
        cdef bytes text = None
        cdef bytes proper = sql[s.text_start:s.text_end]
        if s.flags & F_STATUS:
            text = self.engine.hooks.status_sql(MY, proper, self)
        if text is None and s.flags & F_KILL and self.kill_gathered(proper):
            text = b"DO 0"
        if text is None:
            return False
        self.set_source(s)
        self.count_new_alone(R_NO_HINT)
        self.restore()
        self.expect(COM_QUERY)
        self.server.out.append_bytes(my_command(COM_QUERY, text))
        self.server.mark()
        return True

    cdef bint kill_gathered(self, bytes sql) except -1:
        """KILL QUERY for a write that is still gathered: the server would find that connection idle."""
        cdef MyCommands target
        number = self.engine.hooks.killed_query(sql)
        target = self.engine.cancel_keys.get((self.address, number))
        return target is not None and target is not self and target.user == self.user and target.cancel_waiting()

    cdef Change my_change_of(self, const char* sql, Py_ssize_t n, Scan* s):
        """See ``change_of``; character sets that are not safe."""
        cdef Change change = self.change_of(sql, n, s)
        cdef bytes text
        if change is None or change.text is None:
            return change
        text = change.text[:MAX_CHARSET_TEXT].lower()
        # the schema is compared, and what of variables is reported is looked at with each table
        if b"session_track" in text.replace(b"session_track_schema", b"").replace(
                b"session_track_system_variables", b""):
            change.flags |= F_TAINT         # answers would tell of the batch's transaction
        change.charset = len(change.text) > MAX_CHARSET_TEXT
        for charset in MY_UNSAFE_CHARSETS:
            if charset in text:
                change.charset = True
        return change

    # --- prepared statements, as far as commands name them ------------------------------------------------

    cdef MyStatement statement_at(self, const char* p, Py_ssize_t length):
        """The statement that a command names; None: none that is known."""
        cdef uint32_t number
        if length < 5:
            return None
        number = le32(p + MY_HEADER + 1)
        return self.last_prepared if number == LAST_PREPARED else self.statements.get(number)

    cdef int note_statement(self, int command, MyStatement statement, uint32_t number) except -1:
        if command == COM_STMT_CLOSE:
            self.statements.pop(number, None)
            if statement is self.last_prepared:
                self.last_prepared = None
        elif statement is not None:
            statement.long_data = command == COM_STMT_SEND_LONG_DATA
        return 0

    cdef int prepared(self, MyStatement statement) except -1:
        """The server has prepared it, under its ``number``."""
        if len(self.statements) >= MAX_NAMED_STATEMENTS:
            self.statements.clear()
        self.statements[statement.number] = statement
        statement.read(self.history)
        if statement.flags & F_ROW_COUNT:
            self.history.uses_currval = True
            self.engine.class_left(self)
        return 0

    # --- told by the server connection ----------------------------------------------------------------

    cdef int on_status(self, uint32_t status, uint64_t insert_id) except -1:
        self.status = status
        self.status_unknown = False
        return self.answered_id(insert_id)

    cdef int on_answer(self, int command, int flags, effect, bint failed) except -1:
        """The answer to the oldest command under way has been relayed."""
        self.telling = False
        if failed and not flags & XF_PLAIN:
            self.status_unknown = True
        if command == COM_CHANGE_USER:
            self.in_change_user = False
        if isinstance(effect, Change):
            self.apply(<Change>effect, failed, False)
            if not failed and (<Change>effect).text is not None:
                self.note_use((<Change>effect).text, (<Change>effect).flags)
            if command == COM_SET_OPTION and not failed:
                self.option_set((<Change>effect).text[PyBytes_GET_SIZE(OPTION_SAID):])
        elif isinstance(effect, MyStatement):
            if not failed:
                self.prepared(<MyStatement>effect)
            elif effect is self.last_prepared:
                self.last_prepared = None
        elif isinstance(effect, MyReset):
            self.was_reset((<MyReset>effect).user, failed)
        self.observe(self.engine.now, LK_ALONE)
        self.one_answered(self.in_transaction())
        return self.moved()

    cdef int note_use(self, bytes text, int flags) except -1:
        """A statement that changes the session is answered well: it may have been a USE."""
        if text[:3].lower() == b"use" and not flags & (F_MULTI | F_EXEC_COMMENT):
            self.now_within(used_database(text[:MAX_USE]) if len(text) <= MAX_USE else "")
        elif flags & (F_MULTI | F_EXEC_COMMENT) and b"use" in text[:MAX_CHARSET_TEXT].lower():
            self.now_within("")
        return 0

    cdef int was_reset(self, bytes user, bint failed) except -1:
        """COM_RESET_CONNECTION, or COM_CHANGE_USER with what it said. The server resets before it refuses a user."""
        self.engine.class_left(self)
        if user is None and failed:
            return 0
        if user is None:
            self.make_login_key()
            self.history.reset()
        else:
            if not failed:
                self.changed_user(user)
            self.history.reset()
            self.history.tainted = failed
        self.forget()
        if self.multi_said >= 0:
            self.multi_said = -2
        self.statements.clear()
        self.last_prepared = None
        return 0
