# PostgreSQL: messages of the extended protocol that are relayed, and what is true once they are answered.

cdef enum:
    NAMES_BYTES = 512               # of a message, looked at for the names of statement and portal


cdef class PgExtended(PgLogin):
    """The client's end of an established session, message by message."""
    cdef PgExpectations expected    # the server connection's queue
    cdef bint counted               # the executions up to the next Sync are counted already
    cdef bint begun                 # BEGIN has been executed in front of that Sync, and is not answered yet
    cdef Py_ssize_t passing         # bytes that are relayed message by message, and counted already
    cdef bint flush_sent            # a Sync waits for what may be a copy, and its answer is asked for
    cdef bint sequences_stale       # its connection drew for others from sequences, or others' for it

    def attach(self, SessionServer server):
        self.expected = <PgExpectations>server.queue
        PgLogin.attach(self, server)

    cdef bint in_transaction(self) noexcept:
        return self.begun or self.status != b"I"

    cdef int own_state(self) except -1:
        """A statement of the client's own goes next: what its connection knows of sequences is to be its own.

        ``lastval()`` and ``currval()`` cannot be set, so they are cleared: an error, and never another session's value.
        Batches end with nothing under way, so no segment, copy or transaction is open in front of that statement.
        """
        if self.sequences_stale:
            self.sequences_stale = False
            self.statements.unnamed.here = False
            self.server.out.append_bytes(DISCARD_SEQUENCES)
            self.server.mark()
            self.expected.sent(X_IGNORE, FE_QUERY, XF_MUST)
        return 0

    cdef inline Py_ssize_t relay_message(self, const char* p, Py_ssize_t n, Py_ssize_t total) except -1:
        cdef Py_ssize_t part = min(n, total)
        self.forward(p, part)
        self.skip = total - part
        return part

    # --- what the client sends: counted by the kind of statement ----------------------------------------------

    cdef int expect_unnamed(self, int owner, int message, int flags, PgUnnamed unnamed) except -1:
        """A message goes that changes the unnamed statement, unless the server skips it."""
        if self.expected.sent(owner, message, flags, unnamed):
            self.statements.change(unnamed)
        return 0

    cdef int restore(self, int message) except -1:
        """The proxy's ``message`` gives the server the unnamed statement that the client sees."""
        cdef PgUnnamed unnamed = unnamed_as(self.statements.unnamed.statement, True)
        unnamed.restored = True
        return self.expect_unnamed(X_IGNORE, message, 0, unnamed)

    cdef int unnamed_ready(self) except -1:
        """The unnamed statement is about to be used: the server is given the one that the client sees."""
        cdef PgStatement unnamed = self.statements.unnamed.statement
        if self.statements.unnamed.here:
            return 0
        if unnamed is not None and unnamed.message:
            self.forward(PyBytes_AS_STRING(unnamed.message), PyBytes_GET_SIZE(unnamed.message))
            return self.restore(FE_PARSE)
        self.forward(PyBytes_AS_STRING(CLOSE_UNNAMED), PyBytes_GET_SIZE(CLOSE_UNNAMED))
        return self.restore(FE_CLOSE)

    cdef int ready_to_use(self, const char* name) except -1:
        """A statement is about to be bound or described: the server is given it as the client sees it.

        One that asks about the proxy is prepared anew each time, as its answer is part of its text. A named one only
        while the name is sure to be its own: after a DEALLOCATE it may be another's, and stays as it is.
        """
        cdef PgStatement statement = self.statements.find(name, len(name))
        cdef bytes text = None
        if statement is not None and statement.status is not None and (
                not statement.name or statement.known == self.statements.era):
            text = self.engine.hooks.status_sql(PG, statement.status, self)
        if text is None:
            return self.unnamed_ready() if name[0] == 0 else 0
        if statement.name:
            self.server.out.append_bytes(pg_message(b"C", b"S" + statement.name + b"\0"))
            self.expected.sent(X_IGNORE, FE_CLOSE)
        self.put_status(statement, text)
        if statement.name:
            self.expected.sent(X_IGNORE, FE_PARSE)
        else:
            self.restore(FE_PARSE)
        return 0

    cdef int put_status(self, PgStatement statement, bytes text) except -1:
        """Sends a Parse of the statement that answers a question about the proxy, in place of the question."""
        self.server.out.append_bytes(pg_message(b"P", statement.name + b"\0" + text + b"\0" + statement.oids))
        return self.server.mark()

    cdef Py_ssize_t parse_parse(self, const char* p, Py_ssize_t n, Py_ssize_t total) except -1:
        cdef Scan s
        cdef const char* nul
        cdef PgStatement statement
        if total <= self.engine.max_batch_bytes + 65536:
            if n < total:
                return NEED_MORE
            statement = self.statements.read_parse(self.engine.stats, p, total, self.backslash, &s)
            if statement is not None:
                statement.epoch = self.engine.ddl_epoch
            return self.relay_parse(p, n, total, statement, &s)
        if n < NAMES_BYTES:
            return NEED_MORE
        nul = <const char*>memchr(p + PG_HEADER, 0, NAMES_BYTES - PG_HEADER)
        self.doubt()
        if nul == NULL:
            self.expected.sent(X_RELAY, FE_PARSE)
        else:
            self.expect_parse(self.statements.unread(p[PG_HEADER:nul - p], self.engine.stats.none))
        return self.relay_message(p, n, total)

    cdef int expect_parse(self, PgStatement statement) except -1:
        statement.begun(self.history)
        if not statement.name:
            return self.expect_unnamed(X_RELAY, FE_PARSE, 0, unnamed_as(statement, True))
        if self.expected.sent(X_RELAY, FE_PARSE, 0, statement):
            self.statements.name(statement)
        return 0

    cdef Py_ssize_t relay_parse(self, const char* p, Py_ssize_t n, Py_ssize_t total, PgStatement statement,
                                Scan* s) except -1:
        cdef const char* sql
        cdef bytes text
        self.own_state()
        if statement is None:
            self.expected.sent(X_RELAY, FE_PARSE)
            return self.relay_message(p, n, total)
        sql = p + statement.sql_start
        if s.hint_error:
            self.engine.stats.hint_errors[self.dialect] += 1
        if s.flags & F_STATUS:
            text = self.engine.hooks.status_sql(PG, sql[s.text_start:s.text_end], self)
            if text is not None:
                statement.text = None
                statement.status = sql[s.text_start:s.text_end]
                statement.qtype = QT_SELECT
                self.expect_parse(statement)
                self.put_status(statement, text)
                return total
        self.note_change(statement, sql, s)
        self.expect_parse(statement)
        self.forward(p, total)
        return total

    cdef int note_change(self, PgStatement statement, const char* sql, Scan* s) except -1:
        """What each execution of a statement that was just read will make true."""
        cdef Py_ssize_t n = statement.sql_end - statement.sql_start
        if s.flags & F_SETLIKE and memchr(sql, b"$", n) != NULL:
            s.flags |= F_OPAQUE         # values that only Bind tells
        statement.change = self.change_of(sql, n, s)
        return 0

    cdef Py_ssize_t parse_bind(self, const char* p, Py_ssize_t n, Py_ssize_t total) except -1:
        cdef const char* portal = p + PG_HEADER
        cdef const char* name
        cdef const char* end = p + min(n, total)
        if n < min(total, NAMES_BYTES):
            return NEED_MORE
        name = <const char*>memchr(portal, 0, end - portal)
        if name != NULL and memchr(name + 1, 0, end - name - 1) != NULL:
            name += 1
            self.ready_to_use(name)
            self.statements.bind(portal, name)
        self.expected.sent(X_RELAY, FE_BIND)
        return self.relay_message(p, n, total)

    cdef Py_ssize_t parse_execute(self, const char* p, Py_ssize_t n, Py_ssize_t total) except -1:
        cdef PgStatement statement = None
        cdef const char* end = p + min(n, total)
        if n < min(total, NAMES_BYTES):
            return NEED_MORE
        if memchr(p + PG_HEADER, 0, end - p - PG_HEADER) != NULL:
            statement = self.statements.portals.get(<bytes>(p + PG_HEADER))
        if statement is None:
            if self.expected.sent(X_RELAY, FE_EXECUTE, XF_COPY):
                self.doubt()                # nothing is known of it
                self.may_be_ddl()
            return self.relay_message(p, n, total)
        self.qtype = statement.qtype
        self.source = statement.source
        if self.qtype == QT_OTHER:
            self.may_be_ddl()
        if statement.flags & F_DEALLOCATE:
            self.statements.era += 1
        if not self.counted and not self.passing:
            self.count_new_alone(
                (R_NOT_BATCHABLE if not self.in_transaction() else R_IN_TRANSACTION)
                if self.qtype <= QT_REPLACE and self.wait_of(statement) != WAIT_NONE else R_NO_HINT)
            if self.qtype <= QT_REPLACE:
                self.count_hits(1)
                self.watch_prepared(statement.shape_number, statement.text, A_RELAY, 1)
        self.begun = self.begun or statement.opens != 0
        self.expected.sent(X_RELAY, FE_EXECUTE, XF_COPY if statement.flags & F_COPY else 0, statement.change)
        return self.relay_message(p, n, total)

    cdef Py_ssize_t parse_describe_or_close(self, int kind, const char* p, Py_ssize_t n, Py_ssize_t total) except -1:
        cdef const char* name = p + PG_HEADER + 1
        cdef bytes named
        if n < min(total, NAMES_BYTES):
            return NEED_MORE
        if total >= PG_HEADER + 2 and total <= NAMES_BYTES and p[total - 1] == 0:
            if kind == FE_DESCRIBE:
                if p[PG_HEADER] == b"S":
                    self.ready_to_use(name)
            elif p[PG_HEADER] == b"P":
                self.statements.portals.pop(<bytes>name, None)
            elif name[0] == 0:
                self.expect_unnamed(X_RELAY, FE_CLOSE, 0, unnamed_as(None, True))
                return self.relay_message(p, n, total)
            elif not self.expected.skipping:
                self.statements.named.pop(<bytes>name, None)
        self.expected.sent(X_RELAY, kind)
        return self.relay_message(p, n, total)

    cdef Py_ssize_t parse_sync(self, const char* p, Py_ssize_t n, Py_ssize_t total) except -1:
        """A Sync is ignored by a server that copies in: it goes on only when that is known.

        In front of the data the server would have read it as part of the copy, for sure. Behind data that turns out to
        be in error it may have ended the skipping: see ``on_error``.
        """
        if n < total:
            return NEED_MORE
        if self.expected.copying:
            self.expected.copy_sync = self.expected.copy_data
            self.flush_sent = False
            return total
        if self.expected.copies:
            if not self.flush_sent:
                self.flush_sent = True
                self.server.out.append_bytes(FLUSH)
                self.server.mark()
            return self.wait_for(self.expected.size - 1)
        self.flush_sent = self.counted = self.begun = False
        self.expected.sent(X_RELAY, FE_SYNC)
        return self.relay_message(p, n, total)

    # --- BEGIN, a write and COMMIT ----------------------------------------------------------------------

    cdef Py_ssize_t query_at(self, const char* p, Py_ssize_t n) noexcept:
        """The size of the Query message at p, 0: there is none, or it is not here whole."""
        cdef int32_t length
        if n < PG_HEADER + 1 or <uint8_t>p[0] != FE_QUERY:
            return 0
        length = <int32_t>tq_be32(p + 1)
        if length < 5 or n <= length or length > self.engine.max_batch_bytes:
            return 0
        return length + 1 if <const char*>memchr(p + PG_HEADER, 0, length - 4) == p + length else 0

    cdef int expect_block(self, PgStatement statement, const char* p, Py_ssize_t n, Py_ssize_t own) except -1:
        """``n`` bytes of messages go on, BEGIN's, a write's and COMMIT's; at ``own`` that write's Parse, or Bind."""
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t total
        cdef Scan s
        while at < n:
            total = <Py_ssize_t>tq_be32(p + at + 1) + 1
            if <uint8_t>p[at] != FE_PARSE:
                self.expected.sent(X_RELAY, <uint8_t>p[at])
            elif at == own:
                self.expect_parse(statement)
            else:
                self.expect_parse(self.statements.read_parse(
                    self.engine.stats, p + at, total, self.backslash, &s))
            at += total
        return 0

    # --- told by the server connection ----------------------------------------------------------------

    cdef int on_effect(self, effect, bint failed, bint in_transaction) except -1:
        """What a message was to make true: its answer has come."""
        cdef PgStatement statement = None
        cdef Change change = None
        if isinstance(effect, PgUnnamed):
            statement = (<PgUnnamed>effect).statement
            change = (<PgUnnamed>effect).change
            self.statements.changed(<PgUnnamed>effect, failed)
        elif isinstance(effect, PgStatement):
            statement = <PgStatement>effect
            if failed:
                self.statements.forget(statement)
            else:
                statement.known = self.statements.era
        else:
            change = <Change>effect
        if statement is not None:
            statement.read(self.history)
        if change is not None:
            self.apply(change, failed, in_transaction)
        return 0

    cdef int on_skipped(self, effect) except -1:
        """A message that the server has skipped."""
        if isinstance(effect, PgUnnamed):
            self.statements.skipped(<PgUnnamed>effect)
        elif isinstance(effect, PgStatement):
            self.statements.forget(<PgStatement>effect)
        return 0

    cdef int on_error(self) except -1:
        """ErrorResponse: of an extended message, what was sent behind it up to Sync is skipped."""
        cdef bint extended = PG_ASKS[self.expected.front().message] & AK_EXTENDED != 0
        cdef bint copied = self.expected.copying
        cdef bint first = self.expected.front().flags & XF_EFFECT != 0
        cdef list dropped = self.expected.error()
        self.transaction_ended(True)
        for effect in dropped:
            if first:
                self.on_effect(effect, True, True)
                first = False
            else:
                self.on_skipped(effect)
        if copied:
            self.expected.copying = False
            if extended and self.expected.copy_sync:
                # the server has not seen the Sync that would now end its skipping
                self.server.out.append_bytes(SYNC)
                self.server.mark()
                self.expected.sent(X_RELAY, FE_SYNC)
            self.expected.copy_sync = False
        if self.waiting and self.wake_at >= 0:
            self.resume()
        return 0

    cdef int on_copy(self, bint inward) except -1:
        """CopyInResponse or CopyOutResponse."""
        self.flush_sent = False
        self.expected.copy_begun(inward)
        if self.waiting and self.wake_at >= 0:
            self.resume()
        return 0

    cdef int on_ready(self, char status, effect, bint failed) except -1:
        """ReadyForQuery; ``effect``: of the message that it answers."""
        self.status = status
        self.begun = False
        if self.state == PG_AUTH:
            self.login_done()
        if effect is not None:
            self.on_effect(effect, failed, status != b"I")
        if status == b"I":
            self.transaction_ended(False)
        self.observe(self.engine.now, LK_ALONE)
        self.expected.copying = self.expected.copy_sync = False
        if not self.expected.size and status == b"I":
            self.statements.portals.clear()
        self.one_answered(status != b"I")
        return self.moved()
