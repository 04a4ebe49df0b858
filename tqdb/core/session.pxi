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

cdef enum ClientState:
    CS_LOGIN = 0
    CS_WAITING
    CS_ACTIVE
    CS_IDLE

CLIENT_STATES = ("login", "waiting", "active", "idle")

PG_UNSAFE_CHARSETS = frozenset(
    (b"SJIS", b"BIG5", b"GBK", b"UHC", b"GB18030", b"JOHAB", b"SHIFT_JIS_2004"))


cdef enum WriteFlag:
    WF_PARSE = 1         # a Parse message of its own stands before it
    WF_DESCRIBE = 2      # it asks for a RowDescription
    WF_SYNC = 4          # a Sync follows
    WF_TYPES = 8         # it tells the types of its parameters

ctypedef struct Write:
    # one held statement; offsets into the session's ``held``
    Py_ssize_t start        # its first message
    Py_ssize_t end          # one past its last
    Py_ssize_t sql_start    # the statement; FORM_BOUND: what a Bind, or an execute packet, says behind the names
    Py_ssize_t sql_end
    Py_ssize_t tuples_start  # the value tuples; FORM_BOUND: the parameter values
    Py_ssize_t tuples_end
    Py_ssize_t bind         # PostgreSQL's extended protocol: its Bind message, and one past it
    Py_ssize_t bind_end
    int rows                # tuples
    int flags               # WriteFlag bits


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
        cdef Write* head = first.writes
        cdef Write* w
        cdef const char* text = first.held.ptr()
        cdef Py_ssize_t total = first.held.size() + 64
        cdef int k
        for item in batch.members:
            total += (<Session>item).nbytes
        out.reserve(total)
        out.append(text + head.sql_start, head.tuples_end - head.sql_start)
        for item in batch.members:
            session = <Session>item
            for k in range(session.nwrites):
                w = session.writes + k
                if w is not head:
                    out.append(b",", 1)
                    out.append(session.held.ptr() + w.tuples_start, w.tuples_end - w.tuples_start)
        return out.append(text + head.tuples_end, head.sql_end - head.tuples_end)

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


def count_states(sessions):
    """``{(dialect, state): number}`` of sessions, and of the server connections that they have.

    A client is in ``login``, ``waiting`` (its write is gathered or in a batch), ``active`` or ``idle``; a server
    connection is ``active`` or ``idle``.
    """
    cdef Session session
    cdef int[2][4] clients
    cdef int[2][2] servers
    cdef int d, state
    for d in range(2):
        clients[d][0] = clients[d][1] = clients[d][2] = clients[d][3] = servers[d][0] = servers[d][1] = 0
    for item in sessions:
        session = <Session>item
        state = session.client_state()
        clients[session.dialect][state] += 1
        if session.server is not None and not session.server.closed:
            servers[session.dialect][0 if state == CS_IDLE else 1] += 1
    return ({(d, CLIENT_STATES[state]): clients[d][state] for d in range(2) for state in range(4)},
            {(d, "active" if state else "idle"): servers[d][state] for d in range(2) for state in range(2)})


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
    cdef double session_wait            # what a SET or the start-up says of max_wait_ms
    cdef double pending_wait            # … once the SET under way has succeeded; NEVER: none is
    cdef double startup_wait
    # the writes being held
    cdef Buffer held                    # its message, byte for byte
    cdef Write* writes
    cdef int nwrites
    cdef int max_held                   # writes of one session in a batch
    cdef int room                       # writes that ``writes`` has room for
    cdef int nrows                      # tuples of all held writes
    cdef Py_ssize_t nbytes              # what they add to a batch
    cdef double held_wait               # shortest wait of the held writes, or WAIT_AUTO
    cdef int qtype
    cdef Source source
    cdef Group group
    cdef Batch batch
    cdef Group inflight_group
    cdef TableFacts probed              # what the catalogue is being asked about
    cdef Group probe_group
    cdef uint64_t probe_epoch           # the engine's DDL epoch when the catalogue was asked
    cdef Shape last_shape
    cdef Shape held_shape
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
        self.session_wait = self.startup_wait = WAIT_NONE
        self.pending_wait = NEVER
        self.last_reason = ""
        self.backend = self.address = self.peer = self.user = self.database = ""

    def __dealloc__(self):
        free(self.writes)

    # --- what each protocol gives -----------------------------------------------------------------

    cdef bint busy(self) noexcept:
        """Statements that it sent are not answered yet."""
        return False

    cdef bint in_transaction(self) noexcept:
        return False

    cdef bint is_logged_in(self) noexcept:
        return False

    cdef bint is_idle(self) noexcept:
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

    cdef int before_held(self) except -1:
        """The held messages are about to be sent alone."""
        return 0

    cdef int led_failed_batch(self) except -1:
        """A batch on this session's connection was rolled back."""
        return 0

    cdef int connection_lost(self) except -1:
        """Tells the client, in its protocol's form, that the connection ended with the outcome unknown."""
        return 0

    cdef int count_refusal(self, str kind, str message) except -1:
        self.engine.stats.count_refused(self.dialect, kind)
        self.engine.hooks.refused(self, kind, message)
        return 0

    cpdef refuse(self, str kind, str message):
        """Ends the session with an error of the proxy's own; ``kind`` names it, see the dialects."""
        self.finish()

    cdef inline int forward(self, const char* p, Py_ssize_t n) except -1:
        """Bytes of the client's, as they came, for the server."""
        self.server.out.append(p, n)
        return self.server.mark()

    # --- life -------------------------------------------------------------------------------------

    cdef int client_state(self) noexcept:
        if not self.is_logged_in():
            return CS_LOGIN
        if self.is_waiting():
            return CS_WAITING
        return CS_IDLE if self.is_idle() else CS_ACTIVE

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
        """The held writes have left: parsing goes on at the next safe point."""
        self.held.clear()
        self.nwrites = self.nrows = 0
        self.nbytes = 0
        self.blocked = self.waiting = False
        return self.resume_later()

    cdef inline int resume_later(self) except -1:
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
            self.engine.facts_known(self.probed)
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
            self.note_session_wait(sql[:n])
            self.set_in_transaction = bool(flags & F_MULTI) or self.busy() or self.in_transaction()
        self.leave_class()
        return 0

    cdef int note_session_wait(self, bytes sql) except -1:
        """A SET-like statement may ask for batching without hints, or end it."""
        wait = self.engine.hooks.session_wait(self.dialect, sql)
        if wait is None:
            return 0
        if wait == "startup":
            self.pending_wait = self.startup_wait
        elif wait == "unreadable":
            self.engine.stats.hint_errors[self.dialect] += 1
            self.pending_wait = WAIT_NONE
        else:
            self.pending_wait = wait
        return 0

    cdef inline int may_be_ddl(self) except -1:
        """Facts about tables may be out of date from now on, and again once this is committed."""
        self.engine.ddl_seen()
        self.ddl_open = True
        return 0

    cdef int statement_failed(self) except -1:
        """An error came back while a SET was under way: it may or may not have had its effect."""
        self.pending_wait = NEVER
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
            if self.pending_wait < NEVER:
                self.session_wait = self.pending_wait
                self.pending_wait = NEVER
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
        if COUNTING and not self.timing:
            self.timing = True
            self.started = self.engine.now
            self.timed_source = self.source
            self.timed_qtype = self.qtype
        return 0

    cdef inline int observe(self, double now, int kind) except -1:
        """The statement under way is answered; ``kind`` of a write that went alone: LK_ALONE."""
        cdef double seconds
        if self.timing:
            self.timing = False
            seconds = now - self.started
            observe_seconds(&self.timed_source.n.latency[self.timed_qtype], seconds)
            if kind == LK_ALONE and self.timed_qtype > QT_REPLACE:
                kind = LK_REST
            observe_fine(self.engine.stats.fine[kind], seconds)
        return 0

    cdef inline int set_source(self, Scan* s) except -1:
        self.qtype = s.qtype
        if not COUNTING:
            return 0
        if s.hint_error:
            self.engine.stats.hint_errors[self.dialect] += 1
        if s.file == NULL and s.line == NULL:
            self.source = self.engine.stats.none
        elif not self.same_source(s):
            self.source = self.engine.stats.source(s.file, s.nfile, s.line, s.nline)
        return 0

    cdef inline bint same_source(self, Scan* s):
        cdef Source src = self.source
        return not COUNTING or (
            PyBytes_GET_SIZE(src.file) == s.nfile and PyBytes_GET_SIZE(src.line) == s.nline
            and tq_same(PyBytes_AS_STRING(src.file), s.file, s.nfile)
            and tq_same(PyBytes_AS_STRING(src.line), s.line, s.nline))

    cdef inline int count_alone(self, int qtype, int reason, Source source) except -1:
        self.engine.stats.database_queries += 1
        source.n.queries[qtype] += 1
        if qtype <= QT_REPLACE:
            self.engine.stats.count_individual(qtype, reason, source)
            self.last_batch_size = 1
            self.last_reason = REASONS[reason]
        return 0

    # --- a statement that might be batched ----------------------------------------------------------

    cdef inline bint wants_batch(self, Scan* s) noexcept:
        """Whether it is a write with a hint, its own or the session's."""
        if s.qtype > QT_REPLACE:
            return False
        if s.wait_ms == WAIT_NONE and not s.hinted:
            s.wait_ms = self.session_wait
        return s.wait_ms != WAIT_NONE

    cdef int consider(self, const char* msg, Py_ssize_t nmsg, Py_ssize_t sql_start, Py_ssize_t sql_end,
                      Scan* s) except -1:
        """Decides about one scanned statement: returns an ``Action``; what goes alone is counted."""
        cdef int reason
        cdef Shape shape
        cdef Write* w
        cdef const char* sql = msg + sql_start
        if not self.wants_batch(s):
            if self.nwrites:
                return self.wait_for_held()
            self.set_source(s)
            return self.go_alone(R_NO_HINT)
        if self.busy() and self.comparable():
            self.blocked = self.waiting = True
            return A_WAIT
        if not self.nwrites:
            self.set_source(s)
        elif s.qtype != self.qtype or not self.same_source(s):
            return self.wait_for_held()
        reason = self.exclusion(nmsg, s.flags, s.ntuples)
        shape = self.text_shape(sql, s, b"") if reason == R_COUNT else None
        if shape is None or shape.verdict is None:
            if self.nwrites:
                return self.wait_for_held()
            return self.go_alone(R_NOT_BATCHABLE if reason == R_COUNT else reason)
        w = self.add_write()
        w.start = 0
        w.end = nmsg
        w.sql_start = sql_start
        w.sql_end = sql_end
        w.bind = w.bind_end = 0
        w.flags = WF_SYNC
        if shape.form == FORM_CUT:
            w.tuples_start = sql_start + s.values_start
            w.tuples_end = sql_start + s.values_end
            w.rows = s.ntuples
        else:
            w.tuples_start = sql_start
            w.tuples_end = sql_end
            w.rows = 1
        return self.gather(shape, 1, msg, nmsg, s.wait_ms)

    cdef inline int wait_for_held(self) except -1:
        """Not joined to what is gathered: looked at again when that has been answered."""
        self.blocked = True
        return A_WAIT

    cdef Write* add_write(self) except NULL:
        """Room for one more write behind the held ones; ``gather`` makes it one of them."""
        return self.write_at(self.nwrites)

    cdef Write* write_at(self, int k) except NULL:
        cdef Write* grown
        if k >= self.room:
            grown = <Write*>realloc(self.writes, sizeof(Write) * max(1, 2 * self.room))
            if grown == NULL:
                raise MemoryError()
            self.writes = grown
            self.room = max(1, 2 * self.room)
        return self.writes + k

    cdef int gather(self, Shape shape, int count, const char* msg, Py_ssize_t nmsg, double wait_ms) except -1:
        """The ``count`` writes just described behind the held ones, ``nmsg`` bytes of messages, enter their group.

        Returns an ``Action``. Offsets in the new writes count from ``msg``.
        """
        cdef Engine engine = self.engine
        cdef Group group
        cdef TableFacts facts
        cdef Py_ssize_t size = 0
        cdef int rows = 0
        cdef int k
        cdef Write* w = self.writes + self.nwrites
        for k in range(count):
            rows += w[k].rows
            size += w[k].tuples_end - w[k].tuples_start + 1
        if rows > engine.max_batch_size:
            return self.not_gathered(R_OVERSIZE, count)
        if self.cls is None:
            self.cls = engine.classes.enter(
                hashlib.blake2b(self.class_key(), digest_size=24).digest())
        group = engine.group_of(self.cls, shape)
        facts = group.facts
        if self.nwrites:
            if group is not self.group or self.nwrites + count > self.max_held:
                return self.wait_for_held()
            engine.make_room(group, rows, size)
            if self.group is None:
                return self.wait_for_held()
        elif engine.facts_due(facts) and not facts.probing:
            self.hold(count, rows, size, msg, nmsg, wait_ms)
            self.held_shape = shape
            self.blocked = True
            facts.probing = True
            self.probed = facts
            self.probe_group = group
            self.probe_epoch = engine.ddl_epoch
            self.server.run_hidden(engine.hooks.probe_sql(self.dialect, shape.verdict), H_PROBE)
            return A_HELD
        if facts.state == T_REFUSED and not facts.probing:
            return self.not_gathered(facts.reason, count)
        if engine.now < group.paused:
            return self.not_gathered(R_TABLE, count)
        engine.make_room(group, rows, size)
        self.hold(count, rows, size, msg, nmsg, wait_ms)
        self.held_shape = shape
        engine.join(self, group, count, rows, size, wait_ms)
        return A_HELD

    cdef int not_gathered(self, int reason, int count) except -1:
        cdef int k
        if self.nwrites:
            return self.wait_for_held()
        for k in range(count):
            self.go_alone(reason)
        return A_RELAY

    cdef int hold(self, int count, int rows, Py_ssize_t size, const char* msg, Py_ssize_t nmsg,
                  double wait_ms) except -1:
        """Copies the messages; the new writes' offsets then count from the beginning of ``held``."""
        cdef double shortest = self.held_wait
        cdef Py_ssize_t base = self.held.size()
        cdef Write* w = self.writes + self.nwrites
        cdef int k
        self.held.append(msg, nmsg)
        for k in range(count):
            self.begin_timing()
            w[k].start += base
            w[k].end += base
            w[k].sql_start += base
            w[k].sql_end += base
            w[k].tuples_start += base
            w[k].tuples_end += base
            w[k].bind += base
            w[k].bind_end += base
        if not self.nwrites or shortest == WAIT_AUTO or (wait_ms != WAIT_AUTO and wait_ms < shortest):
            self.held_wait = wait_ms
        self.nwrites += count
        self.nrows += rows
        self.nbytes += size
        return 0

    cdef int exclusion(self, Py_ssize_t nmsg, int flags, int ntuples) except -1:
        """Why this statement may not be batched as far as session and scanner tell; R_COUNT: no reason."""
        if self.in_transaction():
            return R_IN_TRANSACTION
        if self.engine.draining:
            return R_DRAINING
        if self.unsafe_charset:
            return R_CHARSET
        if self.tainted or self.temp or self.locks or self.uses_currval or not self.comparable():
            return R_SESSION_STATE
        if flags & (F_MULTI | F_UNSURE | F_EXEC_COMMENT | F_SETLIKE | F_TAINT | F_LAST_ID | F_TEMP
                    | F_DIAGNOSTICS | F_CURRVAL):
            return R_NOT_BATCHABLE
        if nmsg > self.engine.max_batch_bytes or ntuples > self.engine.max_batch_size:
            return R_OVERSIZE
        return R_COUNT

    cdef Shape text_shape(self, const char* sql, Scan* s, bytes formats):
        """The shape of a statement as text. None, or a shape without a verdict: not batchable."""
        cdef Shape shape = self.last_shape
        if s.verb == W_INSERT and s.values_end >= 0 and not s.flags & F_COMPLEX and (
                s.values_start - s.core_start + s.core_end - s.values_end <= MAX_SHAPE_BYTES):
            if shape is None or not self.matches(shape, sql, s) or formats:
                shape = self.engine.cut_shape(self.dialect, sql, s, formats)
                if shape is None:
                    return None
            if shape.verdict is not None:
                if not formats:
                    self.last_shape = shape
                return shape
        if scan_whole(<const uint8_t*>sql, s, self.dialect) < 0:
            return None
        shape = self.last_shape
        if (shape is None or formats or shape.form != FORM_WHOLE
                or PyBytes_GET_SIZE(shape.skeleton) != s.nskeleton
                or memcmp(PyBytes_AS_STRING(shape.skeleton), s.skeleton, s.nskeleton) != 0):
            shape = self.engine.whole_shape(self.dialect, sql, s, formats)
            if shape is not None and shape.verdict is not None and not formats:
                self.last_shape = shape
        return shape

    cdef inline bint matches(self, Shape shape, const char* sql, Scan* s):
        cdef Py_ssize_t nprefix = s.values_start - s.core_start
        cdef Py_ssize_t nsuffix = s.core_end - s.values_end if s.core_end > s.values_end else 0
        return (shape.form == FORM_CUT
                and PyBytes_GET_SIZE(shape.prefix) == nprefix and PyBytes_GET_SIZE(shape.suffix) == nsuffix
                and PyBytes_GET_SIZE(shape.skeleton) == s.nskeleton
                and memcmp(PyBytes_AS_STRING(shape.prefix), sql + s.core_start, nprefix) == 0
                and memcmp(PyBytes_AS_STRING(shape.suffix), sql + s.values_end, nsuffix) == 0
                and memcmp(PyBytes_AS_STRING(shape.skeleton), s.skeleton, s.nskeleton) == 0)

    cdef int go_alone(self, int reason) except -1:
        self.begin_timing()
        self.count_alone(self.qtype, reason, self.source)
        return A_RELAY

    cdef int relay_held(self, int reason) except -1:
        """The held messages go their ordinary way, byte for byte, on the session's own connection."""
        cdef int k
        for k in range(self.nwrites):
            self.count_alone(self.qtype, reason, self.source)
        if self.restore_before_alone():
            return 0
        return self.send_held()

    cdef int send_held(self) except -1:
        self.before_held()
        self.server.out.append(self.held.ptr(), self.held.size())
        self.server.mark()
        self.sent_held()
        return self.release()

    cdef int hidden_done(self, int purpose, rows) except -1:
        """The proxy's own statement is answered. ``rows``: lists of bytes or None; None after an error."""
        cdef TableFacts facts = self.probed
        cdef Group group = self.probe_group
        if purpose == H_PROBE and facts is not None:
            self.probed = self.probe_group = None
            facts.probing = False
            ok, reason, facts.multi_row, facts.id_step, facts.byte_limit, facts.wait_limit = (
                self.engine.hooks.judge(self.dialect, group.shape.verdict, rows))
            facts.state = T_OPEN if ok else T_REFUSED
            facts.reason = REASONS.index(reason)
            facts.epoch = self.probe_epoch
            facts.expires = self.engine.now + (FACTS_SECONDS if rows is not None else FACTS_RETRY_SECONDS)
            if not self.closed:
                self.probe_answered(group, facts)
            self.engine.facts_known(facts)
        elif not self.closed:
            self.send_held()
        return 0

    cdef int probe_answered(self, Group group, TableFacts facts) except -1:
        """The writes for which the catalogue was asked enter their group, or go alone."""
        cdef Engine engine = self.engine
        if facts.state == T_REFUSED:
            return self.relay_held(facts.reason)
        if engine.facts_due(facts) or group.cls is not self.cls or engine.now < group.paused or engine.draining:
            return self.relay_held(R_TABLE)
        engine.make_room(group, self.nrows, self.nbytes)
        self.blocked = False
        self.resume_later()
        return engine.join(self, group, self.nwrites, self.nrows, self.nbytes, self.held_wait)

    cdef bytes cancelled_answer(self):
        """What a cancelled statement is answered with."""
        return b""

    def cancel_waiting(self):
        """Takes the first gathered statement back and answers it as cancelled; False if none is gathered.

        What was sent ahead behind it goes alone. A statement is what one answer ends: up to a Sync.
        """
        cdef int k = 0
        cdef int i
        cdef Py_ssize_t end
        if self.group is None:
            return False
        self.engine.leave(self)
        while not self.writes[k].flags & WF_SYNC:
            k += 1
        end = self.writes[k].end
        self.out.append_bytes(self.cancelled_answer())
        self.mark()
        self.observe(self.engine.now, LK_ALONE)
        k += 1
        if k == self.nwrites:
            self.release()
        else:
            self.held.consume(end)
            self.nwrites -= k
            memmove(self.writes, self.writes + k, self.nwrites * sizeof(Write))
            for i in range(self.nwrites):
                self.writes[i].start -= end
                self.writes[i].end -= end
            self.relay_held(R_SINGLE)
        self.engine.settle()
        return True

    cdef bint is_waiting(self) noexcept:
        return self.group is not None or self.batch is not None

    @property
    def waits(self):
        """Whether writes of this session are gathered or in a batch under way."""
        return self.is_waiting()

    @property
    def logged_in(self):
        return self.is_logged_in()

    @property
    def idle(self):
        """Nothing under way and no transaction open: it may be closed without harm."""
        return self.is_idle()
