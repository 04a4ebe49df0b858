# What the client's end of a session and its server connection have in common on both protocols.

cdef enum Hidden:
    H_NONE = 0
    H_PROBE          # the catalogue is asked about a table
    H_RESTORE        # what LAST_INSERT_ID() and SHOW WARNINGS shall answer is put right

cdef enum Action:
    A_RELAY = 0      # to be sent on now, as it came
    A_HELD           # copied and held: gathered, or waiting for the catalogue
    A_WAIT           # not consumed: to be looked at again when the session is idle

cdef enum:
    OVERSIZE_HEAD = 32768           # bytes of an oversize statement that are scanned

PG_UNSAFE_CHARSETS = frozenset(
    (b"SJIS", b"BIG5", b"GBK", b"UHC", b"GB18030", b"JOHAB", b"SHIFT_JIS_2004"))


cdef class ServerConn(Endpoint):
    """A connection to a backend, attached to one client session for life."""
    cdef readonly Session session
    cdef Batch batch
    cdef int hidden                 # Hidden: the answer under way is the proxy's own
    cdef bint orphan                # its client is gone; it ends with the batch under way
    cdef Py_ssize_t skip            # bytes of the current message still to be relayed

    cdef inline int relay(self, const char* p, Py_ssize_t n) except -1:
        """Bytes of the server's, as they came, for the client."""
        if n > 0 and not self.session.closed:
            self.session.out.append(p, n)
            self.session.mark()
        return 0

    cdef int put_merged(self, Batch batch) except -1:
        """Appends the batch as one INSERT to ``out``: the first member's text with everybody's tuples."""
        cdef Session first = <Session>batch.members[0]
        cdef Session session
        cdef Buffer out = self.out
        cdef Py_ssize_t total = first.held.size() + 64
        for item in batch.members:
            session = <Session>item
            total += session.tuples_end - session.tuples_start + 1
        out.reserve(total)
        out.append(first.held.ptr() + first.sql_start, first.tuples_start - first.sql_start)
        for item in batch.members:
            session = <Session>item
            if session is not first:
                out.append(b",", 1)
            out.append(session.held.ptr() + session.tuples_start, session.tuples_end - session.tuples_start)
        out.append(first.held.ptr() + first.tuples_end, first.sql_end - first.tuples_end)
        batch.response.clear()
        batch.answer_rows = 0
        batch.head_bytes = 0
        return 0

    cdef int fail_batch(self, Batch batch, int cause) except -1:
        """The batch is not to be kept; the first cause counts."""
        if not batch.failed:
            batch.failed = True
            batch.cause = cause
        return 0

    cdef int begin_batch(self, Batch batch) except -1:
        """Sends the batch's members as one transaction and reports to ``engine.finished``."""
        return 0

    cdef int split(self, Batch batch) except -1:
        """Writes every member's own answer into its session's ``out``."""
        return 0

    cdef int run_hidden(self, bytes sql, int purpose) except -1:
        """Runs a statement of the proxy's; its rows go to ``session.hidden_done``."""
        return 0

    cdef bint want_read(self) except -1:
        return self.orphan or self.session.out.size() < HIGH_WATER

    cdef int drained(self) except -1:
        if not self.session.closed:
            self.session.mark()
        return 0

    cdef int eof(self) except -1:
        cdef Batch batch = self.batch
        self.abort()
        if batch is not None:
            self.engine.lost(batch)
        if not self.session.closed:
            self.session.server_gone()
        return 0

    cdef int gone(self) except -1:
        self.engine.hooks.server_closed(self)
        return 0


cdef class Session(Endpoint):
    """A client's session: what it may share with others, and the one write it may have waiting."""
    cdef readonly int dialect
    cdef readonly ServerConn server
    cdef public str backend             # name of the backend section that serves it
    cdef public str address             # of the server it is connected to: a reload may change the backend's
    cdef public str peer
    cdef public str user
    cdef public str database
    cdef bytes login_key                # what was fixed at login
    cdef bytes history                  # running fingerprint of SET-like statements
    cdef SessionClass cls
    cdef bint tainted                   # its state cannot be compared with any other's
    cdef bint temp                      # temporary objects were made
    cdef bint locks                     # LOCK TABLES is held
    cdef bint uses_currval
    cdef bint unsafe_charset
    cdef bint ddl_open                  # DDL was sent and may not be committed yet
    cdef bint set_open                  # a SET was sent whose success is not known yet
    cdef bint set_in_transaction
    cdef bint blocked                   # nothing more is parsed until release()
    cdef bint waiting                   # blocked until idle
    cdef bint resuming
    cdef Py_ssize_t skip                # bytes of the current message still to be relayed
    cdef bint watching              # an oversize statement streams by
    # the write being held
    cdef Buffer held                    # its message, byte for byte
    cdef Py_ssize_t sql_start           # offsets into ``held``
    cdef Py_ssize_t sql_end
    cdef Py_ssize_t tuples_start
    cdef Py_ssize_t tuples_end
    cdef int ntuples
    cdef int qtype
    cdef Source source
    cdef Group group
    cdef Batch batch
    cdef Group inflight_group
    cdef TableFacts probed              # what the catalogue is being asked about
    cdef uint64_t probe_epoch           # the engine's DDL epoch when the catalogue was asked
    cdef Shape last_shape
    # timing of the statement under way
    cdef bint timing
    cdef double started
    cdef Source timed_source
    cdef int timed_qtype
    cdef readonly int last_batch_size
    cdef readonly str last_reason

    def __init__(self, Engine engine):
        self.engine = engine
        self.held = Buffer()
        self.source = engine.stats.none
        self.login_key = self.history = b""
        self.last_reason = ""
        self.backend = self.address = self.peer = self.user = self.database = ""

    # --- what each protocol gives -----------------------------------------------------------------

    cdef bint busy(self) noexcept:
        """Statements that it sent are not answered yet."""
        return False

    cdef bint in_transaction(self) noexcept:
        return False

    cdef bint comparable(self) noexcept:
        """Protocol-level state (unsynced messages, autocommit) allows a batch."""
        return True

    cdef int sent_held(self) except -1:
        """The held message has been sent on the session's own connection."""
        return 0

    cdef bytes class_key(self):
        return self.login_key + self.history

    cdef bint restore_before_alone(self) except -1:
        """Whether the server must be told something before the held write may go alone."""
        return False

    cdef int led_failed_batch(self) except -1:
        """A batch on this session's connection was rolled back."""
        return 0

    cdef int connection_lost(self) except -1:
        """Tells the client, in its protocol's form, that the connection ended with the outcome unknown."""
        return 0

    cpdef refuse(self, str kind, str message):
        """Ends the session with an error of the proxy's own; ``kind`` names it, see the dialects."""
        self.finish()

    cdef inline int forward(self, const char* p, Py_ssize_t n) except -1:
        """Bytes of the client's, as they came, for the server."""
        self.server.out.append(p, n)
        return self.server.mark()

    # --- life -------------------------------------------------------------------------------------

    cdef inline bint usable(self):
        return not (self.closed or self.closing or self.server is None or self.server.closed)

    cdef bint want_read(self) except -1:
        if self.blocked and self.inbuf.size() >= BLOCKED_INPUT:
            return False
        return self.server is None or self.server.closed or self.server.out.size() < HIGH_WATER

    cdef int drained(self) except -1:
        if self.server is not None and not self.server.closed:
            self.server.mark()
        return 0

    cdef int release(self) except -1:
        """The held write has left: parsing goes on at the next safe point."""
        self.held.clear()
        self.blocked = self.waiting = False
        if not self.resuming:
            self.resuming = True
            self.engine.resume.append(self)
        return 0

    cdef int gone(self) except -1:
        cdef ServerConn server = self.server
        cdef SessionClass cls = self.cls
        if self.group is not None:
            self.engine.leave(self)
        if self.probed is not None:
            self.probed.probing = False
            self.probed = None
        if self.inflight_group is not None:
            self.engine.single_done(self)
        if cls is not None:
            self.cls = None
            self.engine.classes.leave(cls)
            self.engine.class_shrank(cls)
        if server is not None and not server.closed:
            if server.batch is not None:
                server.orphan = True
                server.mark()
            else:
                self.farewell()
                server.finish()
        self.engine.hooks.session_closed(self)
        return 0

    cdef int farewell(self) except -1:
        """What the server is told when its client has gone."""
        return 0

    cdef int server_gone(self) except -1:
        """The session's own server connection has ended: so does the session, once all is delivered."""
        if self.group is not None:
            self.engine.leave(self)
        self.finish()
        return 0

    # --- state that sessions must share -----------------------------------------------------------

    cdef int leave_class(self) except -1:
        cdef SessionClass cls = self.cls
        if cls is not None:
            self.cls = None
            self.engine.classes.leave(cls)
            self.engine.class_shrank(cls)
        return 0

    cdef int note(self, const char* sql, Py_ssize_t n, Scan* s) except -1:
        """A statement is about to be relayed: what it may change is noted before it runs."""
        cdef int flags = s.flags
        if not flags & (F_SETLIKE | F_TAINT | F_DDL | F_TEMP | F_LOCK | F_UNLOCK | F_CURRVAL | F_GLOBAL):
            return 0
        if flags & F_TEMP:
            self.temp = True
        elif flags & F_DDL:
            self.may_be_ddl()
        if flags & F_GLOBAL:
            self.engine.settings_epoch += 1
        if flags & F_UNLOCK:
            self.locks = False
        if flags & F_LOCK:
            self.locks = True
        if flags & F_CURRVAL:
            self.uses_currval = True
        if flags & F_TAINT:
            self.tainted = True
        if flags & F_SETLIKE:
            self.history = mix(self.history, b"set", sql[s.core_start:n])
            self.set_open = True
            self.set_in_transaction = bool(flags & F_MULTI) or self.busy() or self.in_transaction()
        self.leave_class()
        return 0

    cdef inline int may_be_ddl(self) except -1:
        """Facts about tables may be out of date from now on, and again once this is committed."""
        self.engine.ddl_seen()
        self.ddl_open = True
        return 0

    cdef int statement_failed(self) except -1:
        """An error came back while a SET was under way: it may or may not have had its effect."""
        if self.set_open:
            if self.set_in_transaction:
                self.tainted = True
            else:
                self.history = mix(self.history, b"failed", b"")
            self.leave_class()
        return 0

    cdef int became_idle(self, bint transaction_open) except -1:
        """Everything sent is answered."""
        if self.inflight_group is not None:
            self.engine.single_done(self)
        if not transaction_open:
            self.set_open = False
            if self.ddl_open:
                self.ddl_open = False
                self.engine.ddl_seen()
        if self.waiting:
            self.release()
        return 0

    cdef int note_oversize(self, const char* sql, Py_ssize_t n, bint backslash) except -1:
        """A statement too long to be looked at whole streams by: only its first ``n`` bytes are scanned."""
        cdef Scan s
        scan_sql(<const uint8_t*>sql, n, self.dialect, backslash, &s)
        self.set_source(&s)
        self.go_alone(R_NO_HINT if s.wait_ms == WAIT_NONE else R_OVERSIZE)
        self.watching = s.qtype <= QT_REPLACE and s.verb != W_WITH and not s.flags & (
            F_MULTI | F_TEMP | F_CURRVAL | F_EXEC_COMMENT)
        if self.watching:
            self.watch_oversize(sql, n)
        else:
            self.tainted = True
            self.leave_class()
        return 0

    cdef inline int watch_oversize(self, const char* p, Py_ssize_t n) except -1:
        """Any semicolon before the very end may begin a SET: rather too careful than one not seen."""
        cdef Py_ssize_t look = n - 2 if n == self.skip else n
        if self.watching:
            if look > 0 and memchr(p, b";", look) != NULL:
                self.watching = False
                self.tainted = True
                self.leave_class()
            elif n == self.skip:
                self.watching = False
        return 0

    # --- counting ---------------------------------------------------------------------------------

    cdef inline int begin_timing(self) except -1:
        self.source.queries[self.qtype] += 1
        if not self.timing:
            self.timing = True
            self.started = self.engine.now
            self.timed_source = self.source
            self.timed_qtype = self.qtype
        return 0

    cdef inline int observe(self, double now) except -1:
        if self.timing:
            self.timing = False
            observe_seconds(&self.timed_source.latency[self.timed_qtype], now - self.started)
        return 0

    cdef inline int set_source(self, Scan* s) except -1:
        cdef Source src = self.source
        self.qtype = s.qtype
        if s.hint_error:
            self.engine.stats.hint_errors[self.dialect] += 1
        if s.file == NULL and s.line == NULL:
            self.source = self.engine.stats.none
        elif (PyBytes_GET_SIZE(src.file) != s.nfile or PyBytes_GET_SIZE(src.line) != s.nline
                or memcmp(PyBytes_AS_STRING(src.file), s.file, s.nfile) != 0
                or memcmp(PyBytes_AS_STRING(src.line), s.line, s.nline) != 0):
            self.source = self.engine.stats.source(s.file, s.nfile, s.line, s.nline)
        return 0

    cdef inline int count_alone(self, int qtype, int reason, Source source) except -1:
        self.engine.stats.database_queries += 1
        if qtype <= QT_REPLACE:
            self.engine.stats.count_individual(qtype, reason, source)
            self.last_batch_size = 1
            self.last_reason = REASONS[reason]
        return 0

    # --- a statement that might be batched ----------------------------------------------------------

    cdef int consider(self, const char* msg, Py_ssize_t nmsg, Py_ssize_t sql_start, Py_ssize_t sql_end,
                      Scan* s) except -1:
        """Decides about one scanned statement: returns an ``Action``; what goes alone is counted."""
        cdef int reason
        cdef Shape shape
        cdef Group group
        cdef TableFacts facts
        cdef Engine engine = self.engine
        cdef const char* sql = msg + sql_start
        if s.wait_ms == WAIT_NONE or s.qtype > QT_REPLACE:
            self.set_source(s)
            return self.go_alone(R_NO_HINT)
        if self.busy() and self.comparable():
            self.blocked = self.waiting = True
            return A_WAIT
        self.set_source(s)
        reason = self.exclusion(nmsg, s)
        if reason != R_COUNT:
            return self.go_alone(reason)
        shape = self.last_shape
        if shape is None or not self.matches(shape, sql, s):
            shape = engine.shape_of(self.dialect, sql, s)
            if shape is None:
                return self.go_alone(R_NOT_BATCHABLE)
            self.last_shape = shape
        if shape.verdict is None:
            return self.go_alone(R_NOT_BATCHABLE)
        if self.cls is None:
            self.cls = engine.classes.enter(
                hashlib.blake2b(self.class_key(), digest_size=24).digest())
        group = engine.group_of(self.cls, shape)
        facts = group.facts
        if engine.facts_due(facts):
            if not facts.probing:
                self.hold(msg, nmsg, sql_start, sql_end, s)
                facts.probing = True
                self.probed = facts
                self.probe_epoch = engine.ddl_epoch
                self.server.run_hidden(engine.hooks.probe_sql(self.dialect, shape.verdict), H_PROBE)
                return A_HELD
            if (facts.state != T_OPEN or facts.epoch != engine.ddl_epoch
                    or engine.now >= facts.expires + FACTS_SECONDS):
                return self.go_alone(R_TABLE)
        if facts.state == T_REFUSED:
            return self.go_alone(facts.reason)
        if engine.now < group.paused:
            return self.go_alone(R_TABLE)
        self.hold(msg, nmsg, sql_start, sql_end, s)
        engine.join(self, group, s.wait_ms)
        return A_HELD

    cdef int exclusion(self, Py_ssize_t nmsg, Scan* s) except -1:
        """Why this statement may not be batched as far as session and scanner tell; R_COUNT: no reason."""
        if self.in_transaction():
            return R_IN_TRANSACTION
        if self.engine.draining:
            return R_DRAINING
        if self.unsafe_charset:
            return R_CHARSET
        if self.tainted or self.temp or self.locks or self.uses_currval or not self.comparable():
            return R_SESSION_STATE
        if s.verb != W_INSERT or s.values_end < 0 or s.flags & (
                F_MULTI | F_UNSURE | F_COMPLEX | F_EXEC_COMMENT | F_SETLIKE | F_TAINT | F_LAST_ID
                | F_DIAGNOSTICS | F_CURRVAL):
            return R_NOT_BATCHABLE
        if nmsg > self.engine.max_batch_bytes or s.ntuples > self.engine.max_batch_size:
            return R_OVERSIZE
        if s.values_start - s.core_start + s.core_end - s.values_end > MAX_SHAPE_BYTES:
            return R_NOT_BATCHABLE
        return R_COUNT

    cdef inline bint matches(self, Shape shape, const char* sql, Scan* s):
        cdef Py_ssize_t nprefix = s.values_start - s.core_start
        cdef Py_ssize_t nsuffix = s.core_end - s.values_end if s.core_end > s.values_end else 0
        return (PyBytes_GET_SIZE(shape.prefix) == nprefix and PyBytes_GET_SIZE(shape.suffix) == nsuffix
                and PyBytes_GET_SIZE(shape.skeleton) == s.nskeleton
                and memcmp(PyBytes_AS_STRING(shape.prefix), sql + s.core_start, nprefix) == 0
                and memcmp(PyBytes_AS_STRING(shape.suffix), sql + s.values_end, nsuffix) == 0
                and memcmp(PyBytes_AS_STRING(shape.skeleton), s.skeleton, s.nskeleton) == 0)

    cdef int go_alone(self, int reason) except -1:
        self.begin_timing()
        self.count_alone(self.qtype, reason, self.source)
        return A_RELAY

    cdef int hold(self, const char* msg, Py_ssize_t nmsg, Py_ssize_t sql_start, Py_ssize_t sql_end,
                  Scan* s) except -1:
        self.begin_timing()
        self.held.append(msg, nmsg)
        self.sql_start = sql_start
        self.sql_end = sql_end
        self.tuples_start = sql_start + s.values_start
        self.tuples_end = sql_start + s.values_end
        self.ntuples = s.ntuples
        self.blocked = True
        return 0

    cdef int relay_held(self, int reason) except -1:
        """The held message goes its ordinary way, byte for byte, on the session's own connection."""
        self.count_alone(self.qtype, reason, self.source)
        if self.restore_before_alone():
            return 0
        return self.send_held()

    cdef int send_held(self) except -1:
        self.server.out.append(self.held.ptr(), self.held.size())
        self.server.mark()
        self.sent_held()
        return self.release()

    cdef int hidden_done(self, int purpose, rows) except -1:
        """The proxy's own statement is answered. ``rows``: lists of bytes or None; None after an error."""
        cdef TableFacts facts = self.probed
        if purpose == H_PROBE and facts is not None:
            self.probed = None
            facts.probing = False
            ok, reason, step, limit = self.engine.hooks.judge(self.dialect, self.last_shape.verdict, rows)
            facts.state = T_OPEN if ok else T_REFUSED
            facts.reason = REASONS.index(reason)
            facts.id_step = step
            facts.byte_limit = limit
            facts.epoch = self.probe_epoch
            facts.expires = self.engine.now + FACTS_SECONDS
            if not self.closed:
                self.relay_held(R_TABLE)
        elif not self.closed:
            self.send_held()
        return 0

    @property
    def waits(self):
        """Whether a write of this session is gathered or in a batch under way."""
        return self.group is not None or self.batch is not None
