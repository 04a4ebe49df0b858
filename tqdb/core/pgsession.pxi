# PostgreSQL: the client's established session: simple queries, and segments that may be gathered.

cdef enum:
    MAX_PG_HELD = 1000              # writes of one session in a batch


cdef class PgSession(PgExtended):
    """The client's end. Message flow: protocol documentation, chapter "Message Flow"."""
    cdef PgSegment segment
    cdef PgBlock block              # None until its first BEGIN of the extended protocol
    cdef PgStatement held_statement  # what the held writes execute, None if they are text

    def __init__(self, Engine engine):
        PgExtended.__init__(self, engine)
        self.max_held = MAX_PG_HELD

    # --- what the engine asks -----------------------------------------------------------------------

    cdef bint comparable(self) noexcept:
        return not (self.expected.segment_open or self.expected.copying or self.backslash)

    cdef bint is_idle(self) noexcept:
        return self.state < PG_READY or (
            self.state == PG_READY and not self.busy() and not self.expected.segment_open and self.status == b"I"
            and not self.has_held() and self.skip == 0)

    cdef int terminate(self) except -1:
        if self.state == PG_READY and self.skip == 0 and not self.expected.copying:
            self.server.out.append_bytes(TERMINATE)
        return 0

    cdef bytes cancelled_answer(self, Write* w):
        """Of a write between BEGIN and COMMIT: as if BEGIN was met, or the write if BEGIN has an answer of its own."""
        cdef bytes error = pg_error("ERROR", "57014", "canceling statement due to user request")
        if not w.closing or not w.flags & WF_SYNC:
            return error + READY_IDLE
        return <bytes>PG_OPENED[w.opening] + error + READY_FAILED + <bytes>PG_ROLLED_BACK[w.closing]

    cdef int expect_held(self) except -1:
        cdef Held held = self.held
        cdef PgStatement statement = self.held_statement
        cdef Write* w
        cdef int k
        self.own_state()
        if statement is None:
            for k in range(held.nwrites):
                for _ in range(answers_of(held.writes + k)):
                    self.expected.sent(X_RELAY, FE_QUERY)
            self.statements.replace(None, True)
            return 0
        if not statement.name and not held.writes[0].flags & WF_PARSE:
            self.unnamed_ready()
        for k in range(held.nwrites):
            w = held.writes + k
            if w.opening:
                self.expect_block(statement, held.data.ptr() + w.start, w.end - w.start, w.parse - w.start)
                continue
            if w.flags & WF_PARSE:
                self.expect_parse(statement)
            self.expected.sent(X_RELAY, FE_BIND)
            if w.flags & WF_DESCRIBE:
                self.expected.sent(X_RELAY, FE_DESCRIBE)
            self.expected.sent(X_RELAY, FE_EXECUTE)
            if w.flags & WF_SYNC:
                self.expected.sent(X_RELAY, FE_SYNC)
        return 0

    cdef int release(self) except -1:
        self.held_statement = None
        return PgExtended.release(self)

    cdef int answered(self, Batch batch) except -1:
        if len(batch.members) > 1:
            self.sequences_stale = True
        return PgExtended.answered(self, batch)

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
        if self.state == PG_READY:
            if self.leaving and self.is_idle():
                self.refuse("shutdown", "terminating connection due to administrator command")
                return NEED_MORE
            used = self.parse_message(p, n)
            if used > 0 and self.passing:
                self.passing -= used
            return used
        return self.parse_login(p, n)

    cdef Py_ssize_t parse_message(self, const char* p, Py_ssize_t n) except -1:
        """One message, or the start of a long one, or a whole segment."""
        cdef int32_t length
        cdef Py_ssize_t total, used
        cdef uint8_t kind = p[0]
        if not IS_FRONTEND[kind]:
            return self.refused("invalid frontend message type %d" % kind)
        if n < PG_HEADER:
            return NEED_MORE
        length = <int32_t>tq_be32(p + 1)
        if length < 4 or length >= self.engine.max_message_bytes or (
                PG_ASKS[kind] & AK_SMALL and length > MAX_SMALL_BYTES) or (PG_ASKS[kind] & AK_BARE and length != 4):
            return self.refused("invalid message length")
        total = <Py_ssize_t>length + 1
        if kind == FE_QUERY:
            return self.parse_query(p, n, total)
        if (kind == FE_BIND or kind == FE_PARSE) and not (
                self.expected.segment_open or self.expected.copying or self.passing):
            used = self.parse_segment(kind, p, n, total)
            if used:
                return used
        if self.has_held():
            return self.wait_for(WHEN_FREE)
        if self.expected.size >= MAX_EXPECTED:
            return self.wait_for(MAX_EXPECTED // 2)
        if PG_ASKS[kind] & AK_ANSWER and kind != FE_SYNC:
            self.own_state()
        if kind == FE_EXECUTE:
            return self.parse_execute(p, n, total)
        if kind == FE_BIND:
            return self.parse_bind(p, n, total)
        if kind == FE_PARSE:
            return self.parse_parse(p, n, total)
        if kind == FE_SYNC:
            return self.parse_sync(p, n, total)
        if kind == FE_DESCRIBE or kind == FE_CLOSE:
            return self.parse_describe_or_close(kind, p, n, total)
        if kind == FE_FUNCTION_CALL:
            if n < PG_HEADER + 4:
                return NEED_MORE
            if tq_be32(p + PG_HEADER) not in PG_LARGE_OBJECT_FUNCTIONS:
                self.doubt()                # any function may change the session
        if kind == FE_COPY_DONE or kind == FE_COPY_FAIL:
            self.expected.copy_ended()
        elif kind == FE_COPY_DATA:
            self.expected.copy_data = True
        elif kind == FE_TERMINATE and self.may_ask_on_leaving():
            self.disconnect(C_CLIENT_GONE)
            return NEED_MORE
        else:
            self.expected.sent(X_RELAY, kind)
            self.left = kind == FE_TERMINATE
        return self.relay_message(p, n, total)

    # --- simple queries ---------------------------------------------------------------------------------

    cdef int expect_query(self, int flags, Change change) except -1:
        """A Query is sent on: it drops the unnamed statement, unless the server skips it."""
        cdef PgUnnamed unnamed
        self.own_state()
        if self.expected.segment_open:
            unnamed = unnamed_as(None, True)
            unnamed.change = change
            return self.expect_unnamed(X_RELAY, FE_QUERY, flags, unnamed)
        self.expected.sent(X_RELAY, FE_QUERY, flags, change)
        return self.statements.replace(None, True)

    cdef Py_ssize_t parse_query(self, const char* p, Py_ssize_t n, Py_ssize_t total) except -1:
        cdef Scan s
        cdef int action
        cdef const char* sql = p + PG_HEADER
        cdef const char* nul
        cdef Py_ssize_t size
        if total > self.engine.max_batch_bytes + 65536:
            return self.parse_oversize_query(p, n, total)
        if n < total:
            return NEED_MORE
        if self.expected.size >= MAX_EXPECTED:
            return self.wait_for(MAX_EXPECTED // 2)
        nul = <const char*>memchr(sql, 0, total - PG_HEADER)
        if nul == NULL or nul != p + total - 1:
            # the server refuses it with an error of its own
            if self.has_held():
                return self.wait_for(WHEN_FREE)
            self.expect_query(XF_COPY, None)
            return self.relay_message(p, n, total)
        size = self.parse_block(p, n, total)
        if size:
            return size
        size = total - PG_HEADER - 1
        scan_sql(<const uint8_t*>sql, size, PG, self.backslash, &s)
        if s.flags & F_STATUS and self.parse_status_query(sql, &s):
            return total
        action = self.consider(p, total, PG_HEADER, total - 1, &s)
        if action == A_HELD:
            self.statements.replace(None, False)
            return total
        if action == A_WAIT:
            return WAIT
        if s.flags & F_DEALLOCATE:
            self.statements.era += 1
        self.expect_query(XF_COPY if s.flags & (F_COPY | F_UNSURE) else 0, self.change_of(sql, size, &s))
        return self.relay_message(p, n, total)

    cdef Py_ssize_t parse_block(self, const char* p, Py_ssize_t n, Py_ssize_t total) except -1:
        """BEGIN, a write to be batched and COMMIT, in this Query or in it and the next two: their size, or WAIT.

        0: it is something else, or not all of it is here: nobody waits for a COMMIT that may not come.
        """
        cdef Scan s
        cdef const char* sql = p + PG_HEADER
        cdef Py_ssize_t start = scan_block(
            <const uint8_t*>sql, total - PG_HEADER - 1, PG, self.backslash, &s)
        cdef Py_ssize_t end, size
        cdef int action, opening
        if start >= 0:
            start += PG_HEADER
            end = start + s.semicolon
        else:
            opening = block_word(<const uint8_t*>sql, total - PG_HEADER - 1, PG, False)
            size = self.query_at(p + total, n - total) if opening else 0
            if not size:
                return 0
            start = total + PG_HEADER
            total += size
            end = total - 1
            scan_sql(<const uint8_t*>p + start, end - start, PG, self.backslash, &s)
            size = self.query_at(p + total, n - total)
            if not size or s.flags & F_MULTI:
                return 0
            s.opening = opening | BK_SYNC
            s.closing = block_word(<const uint8_t*>p + total + PG_HEADER, size - PG_HEADER - 1, PG, True) | BK_SYNC
            total += size
            if not s.closing & BK_GIVEN:
                return 0
        if s.flags & F_UNSURE or not self.wants_batch(p + start, &s):
            return 0
        action = self.consider(p, total, start, end, &s)
        if action == A_WAIT:
            return WAIT
        if action == A_HELD:
            self.statements.replace(None, False)
            return total
        if s.opening & BK_SYNC:
            self.expect_query(0, None)
        self.expect_query(0, self.change_of(p + start, end - start, &s))
        if s.opening & BK_SYNC:
            self.expect_query(0, None)
        return self.relay_message(p, total, total)

    cdef bint parse_status_query(self, const char* sql, Scan* s) except -1:
        """A question about the proxy: the server is given a statement that answers it."""
        cdef bytes text
        if self.has_held():
            return False
        text = self.engine.hooks.status_sql(PG, sql[s.text_start:s.text_end], self)
        if text is None:
            return False
        self.set_source(s)
        self.count_new_alone(R_NO_HINT)
        self.expect_query(0, None)
        self.server.out.append_bytes(pg_query(text))
        self.server.mark()
        return True

    cdef Py_ssize_t parse_oversize_query(self, const char* p, Py_ssize_t n, Py_ssize_t total) except -1:
        if self.has_held():
            return self.wait_for(WHEN_FREE)
        if n < OVERSIZE_HEAD:
            return NEED_MORE
        n = min(n, total)
        self.expect_query(XF_COPY, None)
        self.note_oversize(p + PG_HEADER, n - PG_HEADER, self.backslash)
        self.forward(p, n)
        self.skip = total - n
        return n

    # --- segments that may be gathered ------------------------------------------------------------------

    cdef Py_ssize_t parse_segment(self, int kind, const char* p, Py_ssize_t n, Py_ssize_t total) except -1:
        """A segment that wants to be batched: its size once it is whole and held. 0: its messages are to be relayed."""
        cdef PgSegment segment = self.segment
        cdef PgStatement statement = None
        cdef Scan s
        cdef int found, action
        cdef int held = self.held.nwrites if self.held is not None else 0
        cdef Py_ssize_t used
        if segment is None:
            segment = self.segment = PgSegment(self, self.statements)
        if segment.at and segment.base != held:
            segment.at = 0                  # what was held when it began has left
        if not segment.at:
            if kind == FE_PARSE:
                if total > self.engine.max_batch_bytes + 65536:
                    return 0
                if n < total:
                    return NEED_MORE
                statement = self.statements.unnamed.statement
                if statement is None or not statement.is_message(p, total):
                    statement = self.statements.read_parse(self.engine.stats, p, total, self.backslash, &s)
                    if statement is not None:
                        statement.epoch = self.engine.ddl_epoch
                    if not self.gathers(statement):
                        if statement is not None and statement.opens and self.find_block(p, n, &used):
                            return used
                        if held:
                            return self.wait_for(WHEN_FREE)
                        if statement is not None and self.asks_first(statement):
                            return self.wait_for(0)
                        return self.relay_parse(p, n, total, statement, &s)
                    self.note_change(statement, p + statement.sql_start, &s)
                elif not self.gathers(statement):
                    return used if statement.opens and self.find_block(p, n, &used) else 0
                segment.begin(statement, total, held)
            else:
                segment.begin(None, 0, held)
        if self.held is None:
            self.held = Held(self)
        found = segment.read(p, n, self.held, self.engine.max_batch_bytes + 65536, self.max_held)
        if found == SG_MORE:
            return NEED_MORE
        total = segment.at
        segment.at = 0
        if found == SG_WHOLE:
            action = self.consider_segment(segment, p, total)
            if action == A_HELD:
                return total
            if action == A_WAIT:
                return WAIT
        elif kind == FE_BIND and self.find_block(p, n, &used):
            return used
        elif held:
            return self.wait_for(WHEN_FREE)
        return 0

    cdef bint find_block(self, const char* p, Py_ssize_t n, Py_ssize_t* used) except -1:
        """BEGIN, a write to be batched and COMMIT that are all here: ``used`` is what ``parse_segment`` answers."""
        cdef Py_ssize_t total
        cdef int action
        if self.held is None:
            self.held = Held(self)
        if self.block is None:
            self.block = PgBlock(self, self.statements)
        total = self.block.read(self.engine, p, n, self.backslash, self.held, self.held_statement)
        if not total:
            return False
        action = self.consider_segment(self.block.segment, p, total)
        used[0] = WAIT if action == A_WAIT else total
        if action == A_RELAY:
            used[0] = 0
            self.passing = total
        elif action == A_HELD and self.block.unnamed is not None:
            self.block.unnamed.begun(self.history)
            self.statements.replace(self.block.unnamed, False)
        return True

    cdef inline bint gathers(self, PgStatement statement) except -1:
        return statement is not None and statement.text is not None and not statement.name and (
            self.wait_of(statement) != WAIT_NONE)

    cdef int consider_segment(self, PgSegment segment, const char* p, Py_ssize_t n) except -1:
        """Decides about a whole segment: returns an ``Action``."""
        cdef PgStatement statement = segment.statement
        cdef Held held = self.held
        cdef Shape shape = None
        cdef int reason
        cdef int action = A_HELD
        cdef double wait
        cdef bint parses = held.writes[held.nwrites].flags & WF_PARSE != 0
        if not held.nwrites:
            if not self.may_hold():
                return A_WAIT
        elif held.place != HP_GATHERED or statement is not self.held_statement:
            return self.hold_back(WHEN_FREE)
        self.qtype = statement.qtype
        self.source = statement.source
        wait = self.wait_of(statement)
        reason = R_NO_HINT if wait == WAIT_NONE else self.exclusion(statement.flags)
        if reason == R_COUNT and statement.name and statement.flags & F_RETURNING and (
                statement.epoch != self.engine.ddl_epoch):
            # columns that come back may have changed, which the server takes for an error: it shall tell
            statement.epoch = self.engine.ddl_epoch
            reason = R_TABLE
        if reason == R_COUNT:
            shape = self.segment_shape(p, statement, segment.count)
            if shape is None or shape.verdict is None:
                reason = R_NOT_BATCHABLE
        if reason != R_COUNT:
            action = self.not_gathered(reason, segment.count)
        elif not parses and not held.nwrites:
            action = self.find_class_for(statement, segment.count)
        if reason == R_COUNT and action == A_HELD:
            action = self.gather(shape, segment.count, p, n, wait)
        if action != A_WAIT:
            self.count_hits(segment.count)
            self.watch_prepared(statement.shape_number, statement.text, action, segment.count)
        if action == A_RELAY:
            self.counted = True
        elif action == A_HELD:
            self.held_statement = statement
            if parses:
                statement.begun(self.history)
                self.statements.replace(statement, False)
        return action

    cdef Shape segment_shape(self, const char* p, PgStatement statement, int count):
        """The shape of a segment's writes. A statement with values in its text is taken apart like a simple Query."""
        cdef Write* w = self.held.writes + self.held.nwrites
        cdef Scan s
        cdef Shape shape
        cdef bytes alike
        cdef const char* sql
        cdef Py_ssize_t head = w.tuples_start - w.sql_start
        cdef Py_ssize_t tail = w.sql_end - w.tuples_end
        cdef int nparams = tq_be16(p + w.tuples_start - 2)
        if statement.text is None or tq_be16(PyBytes_AS_STRING(statement.oids)) > nparams:
            return None                     # the server's to refuse
        if nparams == 0 and count == 1 and w.flags & WF_PARSE and tq_be16(
                PyBytes_AS_STRING(statement.oids)) == 0 and head == 4:
            sql = p + w.parse + statement.sql_start
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
        scan_sql(<const uint8_t*>PyBytes_AS_STRING(statement.text), PyBytes_GET_SIZE(statement.text), PG,
                 self.backslash, &s)
        shape = self.engine.shapes.of_bound(PG, statement.text, alike + statement.oids, &s, nparams, False)
        statement.shape = shape
        statement.alike = alike
        return shape
