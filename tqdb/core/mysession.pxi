# MariaDB/MySQL: prepared statements of an established session, and their executions, which may be gathered.

cdef class MySession(MyCommands):
    """The client's end."""

    cdef Py_ssize_t parse_prepare(self, const char* p, Py_ssize_t length) except -1:
        """COM_STMT_PREPARE that is here whole."""
        cdef Scan s
        cdef const char* sql = p + MY_HEADER + 1
        cdef Py_ssize_t n = length - 1
        cdef MyStatement statement = MyStatement.__new__(MyStatement)
        cdef bytes text
        scan_sql(<const uint8_t*>sql, n, MY, self.backslash(), &s)
        statement.qtype = s.qtype
        statement.flags = s.flags
        statement.hinted = s.hinted
        statement.wait_ms = s.wait_ms
        if s.qtype <= QT_REPLACE and n <= MAX_STATEMENT_BYTES:
            statement.text = sql[s.text_start:s.text_end]
            if not s.flags & F_UNSURE:
                statement.shape_number = number_of(<const uint8_t*>sql, &s, MY)
        if self.asks_first(statement):
            return self.wait_for(0)
        self.restore()
        self.set_source(&s)
        statement.source = self.source
        statement.begun(self.history)
        self.last_prepared = statement
        if s.flags & F_STATUS:
            statement.status = sql[s.text_start:s.text_end]
            text = self.put_status(statement)
            if text is not None:
                statement.qtype = QT_SELECT
                self.expect(COM_STMT_PREPARE, 0, statement)
                self.server.out.append_bytes(my_command(COM_STMT_PREPARE, text))
                self.server.mark()
                return MY_HEADER + length
            statement.status = None
        if s.flags & F_SETLIKE and memchr(sql, b"?", n) != NULL:
            s.flags |= F_OPAQUE         # values that only an execution tells
        statement.flags = s.flags
        statement.change = self.my_change_of(sql, n, &s)
        self.expect(COM_STMT_PREPARE, 0, statement)
        return self.relay_packet(p, MY_HEADER + length, length)

    cdef bytes put_status(self, MyStatement statement):
        """Gives the server the figures that the statement, a question about the proxy, is to show next.

        Returns the statement that shows them, prepared once and for all; None if it is no such question.
        """
        cdef bytes values, text
        found = self.engine.hooks.status_variables(statement.status, self)
        if found is None:
            return None
        values, text = found
        self.server.queue.push(X_IGNORE, COM_QUERY)
        self.server.out.append_bytes(my_command(COM_QUERY, values))
        self.server.mark()
        return text

    # --- executions -------------------------------------------------------------------------------------

    cdef Py_ssize_t parse_execute(self, const char* p, Py_ssize_t n, Py_ssize_t length) except -1:
        """COM_STMT_EXECUTE: gathered, or relayed."""
        cdef MyStatement statement
        cdef Py_ssize_t types_at            # offset of the byte that says whether types follow, 0: there is none
        cdef int action
        cdef double wait = WAIT_NONE
        if n < MY_HEADER + min(length, 5):
            return NEED_MORE
        statement = self.statement_at(p, length)
        types_at = self.types_of(statement, length) if statement is not None else 0
        if types_at and n < min(MY_HEADER + length, types_at + 1 + 2 * statement.nparams):
            return NEED_MORE
        if statement is not None and statement.qtype <= QT_REPLACE:
            wait = self.wait_of(statement)
        if wait == WAIT_NONE:
            if self.has_held():
                return self.wait_for(WHEN_FREE)
            return self.relay_execute(COM_STMT_EXECUTE, statement, p, n, length)
        if not self.has_held() and not self.may_hold():
            return WAIT
        if length <= self.engine.max_batch_bytes + 65536:
            if n < MY_HEADER + length:
                return NEED_MORE
            action = self.consider_execute(
                statement, wait, p, length, types_at, self.has_types(statement, p, length, types_at))
            if action != A_WAIT:
                self.count_hits(1)
                self.watch_prepared(statement.shape_number, statement.text, action, 1)
            if action == A_HELD:
                return MY_HEADER + length
            if action == A_WAIT:
                return WAIT
        elif self.has_held():
            return self.wait_for(WHEN_FREE)
        else:
            self.qtype = statement.qtype
            self.source = statement.source
            self.count_new_alone(R_OVERSIZE)
        return self.send_execute(COM_STMT_EXECUTE, statement, p, n, length)

    cdef inline Py_ssize_t types_of(self, MyStatement statement, Py_ssize_t length) noexcept:
        """Where an execution says whether it tells the types of its parameters, 0: nowhere."""
        cdef Py_ssize_t at
        if not statement.nparams:
            return 0
        at = MY_HEADER + EXECUTE_HEAD + (statement.nparams + 7) // 8
        return at if MY_HEADER + length > at else 0         # a malformed one is the server's to refuse

    cdef inline bint has_types(self, MyStatement statement, const char* p, Py_ssize_t length, Py_ssize_t at) noexcept:
        return at and p[at] != 0 and MY_HEADER + length >= at + 1 + 2 * statement.nparams

    cdef Py_ssize_t relay_execute(self, int command, MyStatement statement, const char* p, Py_ssize_t n,
                                  Py_ssize_t length) except -1:
        """An execution that is not to be gathered is counted and sent on."""
        self.qtype = QT_OTHER
        self.source = self.engine.stats.none
        if statement is None or statement.unread:
            self.doubt()                    # it may be anything
        else:
            self.qtype = statement.qtype
            self.source = statement.source
        if self.qtype == QT_OTHER:
            self.may_be_ddl()
        if statement is not None and statement.status is not None:
            self.put_status(statement)
        self.count_new_alone(
            (R_IN_TRANSACTION if self.in_transaction() else R_NOT_BATCHABLE)
            if self.qtype <= QT_REPLACE and self.wait_of(statement) != WAIT_NONE else R_NO_HINT)
        if self.qtype <= QT_REPLACE:
            self.count_hits(1)
        if self.qtype <= QT_REPLACE and command == COM_STMT_EXECUTE:
            self.watch_prepared(statement.shape_number, statement.text, A_RELAY, 1)
        return self.send_execute(command, statement, p, n, length)

    cdef Py_ssize_t send_execute(self, int command, MyStatement statement, const char* p, Py_ssize_t n,
                                 Py_ssize_t length) except -1:
        """Sends an execution on, with the types that the server needs and behind what it must find right."""
        cdef Py_ssize_t types_at = 0
        cdef Py_ssize_t here = min(n, MY_HEADER + length)
        cdef int flags = 0
        self.restore()
        self.sends_own()
        if statement is None:
            self.expect(command)
            return self.relay_packet(p, n, length)
        if command == COM_STMT_EXECUTE:
            types_at = self.types_of(statement, length)
        if statement.qtype <= QT_SELECT:
            flags = XF_PLAIN
        statement.long_data = False
        if self.has_types(statement, p, length, types_at):
            statement.types = p[types_at + 1:types_at + 1 + 2 * statement.nparams]
        elif types_at and statement.types is not None and statement.server_types is not statement.types and (
                statement.server_types != statement.types):
            return self.send_with_types(statement, p, here, length, types_at, flags)
        if command == COM_STMT_BULK_EXECUTE:
            statement.types = None          # it tells types of its own
        statement.server_types = statement.types
        self.expect(command, flags, statement.change)
        return self.relay_packet(p, n, length)

    cdef Py_ssize_t send_with_types(self, MyStatement statement, const char* p, Py_ssize_t here, Py_ssize_t length,
                                    Py_ssize_t types_at, int flags) except -1:
        """An execution that counts on types which the server has not heard, because they went with a batch."""
        cdef char[4] header
        cdef Py_ssize_t longer = length + PyBytes_GET_SIZE(statement.types)
        if longer >= MY_MAX_PACKET:
            self.say(1153, "08S01", "Got a packet bigger than the proxy can complete")
            self.disconnect(C_TOLD)
            return NEED_MORE
        put_packet_header(header, longer, 0)
        statement.server_types = statement.types
        self.expect(COM_STMT_EXECUTE, flags, statement.change)
        self.forward(header, MY_HEADER)
        self.forward(p + MY_HEADER, types_at - MY_HEADER)
        self.forward(b"\1", 1)
        self.forward(PyBytes_AS_STRING(statement.types), PyBytes_GET_SIZE(statement.types))
        self.forward(p + types_at + 1, here - types_at - 1)
        self.skip = MY_HEADER + length - here
        return here

    cdef int consider_execute(self, MyStatement statement, double wait, const char* p, Py_ssize_t length,
                              Py_ssize_t types_at, bint types) except -1:
        """Decides about a hinted write of a prepared statement: returns an ``Action``."""
        cdef Py_ssize_t total = MY_HEADER + length
        cdef Held held = self.held
        cdef Shape shape = None
        cdef int reason, action
        cdef Write* w
        cdef bytes sent = None
        cdef Py_ssize_t literals = -1
        if self.has_held() and not (
                held.place == HP_GATHERED and statement.qtype == held.qtype and statement.source is held.source
                and self.held_statement is statement):
            return self.hold_back(WHEN_FREE)
        self.qtype = statement.qtype
        self.source = statement.source
        reason = self.exclusion(statement.flags)
        if reason == R_COUNT:
            reason = R_NOT_BATCHABLE
            if statement.nparams == 0:
                sent = b""
            elif types:
                sent = p[types_at + 1:types_at + 1 + 2 * statement.nparams]
            elif types_at and p[types_at] == 0:
                sent = statement.types
            if sent is not None and statement.text is not None and statement.number and not statement.long_data and (
                    length >= EXECUTE_HEAD and p[MY_HEADER + 5] == 0) and not (
                        statement.flags & F_RETURNING and self.extended & MARIADB_CACHE_METADATA):
                literals = self.literals_of(statement, sent, p, total, types_at, types)
                shape = self.execution_shape(statement, literals < 0)
                if shape is not None and shape.verdict is not None:
                    reason = R_COUNT
        if reason != R_COUNT:
            return self.not_gathered(reason, 1)
        if not self.has_held():
            action = self.find_class_for(statement, 1)
            if action != A_HELD:
                return action
        w = held.at(held.nwrites)
        w.start = w.parse = w.bind = w.bind_end = 0
        w.opening = w.closing = 0
        w.literals = literals + shape.around if shape.pieces is not None else 0
        w.end = total
        w.sql_start = MY_HEADER + EXECUTE_HEAD
        w.sql_end = w.tuples_end = total
        w.tuples_start = total
        if statement.nparams:
            w.tuples_start = types_at + 1 + (2 * statement.nparams if types else 0)
        w.rows = 1
        w.flags = WF_SYNC | (WF_TYPES if types else 0)
        action = self.gather(shape, 1, p, total, wait)
        if action == A_HELD:
            if held.nwrites == 1:
                self.held_types = False
                self.first_types = statement.types
            self.held_types = self.held_types or types
            statement.types = sent
            self.held_statement = statement
        return action

    cdef Py_ssize_t literals_of(self, MyStatement statement, bytes types, const char* p, Py_ssize_t total,
                                Py_ssize_t types_at, bint told) except? -2:
        """Bytes of an execution's parameters as literals, -1: they are none, or its rows come back as binary."""
        if statement.shape is not None and statement.shape.pieces is None:
            return 0                    # nothing is made of them
        if statement.flags & F_RETURNING:
            return -1
        if not statement.nparams:
            return 0
        return literals_size(
            PyBytes_AS_STRING(types), statement.nparams, p + MY_HEADER + EXECUTE_HEAD,
            p + types_at + 1 + (2 * statement.nparams if told else 0), p + total, self.backslash())

    cdef Shape execution_shape(self, MyStatement statement, bint single):
        cdef Scan s
        cdef Shape shape = statement.single if single else statement.shape
        if shape is None:
            scan_sql(<const uint8_t*>PyBytes_AS_STRING(statement.text), PyBytes_GET_SIZE(statement.text), MY,
                     self.backslash(), &s)
            shape = self.engine.shapes.of_bound(MY, statement.text, b"", &s, statement.nparams, single)
            if single:
                statement.single = shape
            else:
                statement.shape = shape
        return shape
