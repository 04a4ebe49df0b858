# A client's session, as far as both protocols share it: its life, what is counted, and the decision about a write.

cdef enum:
    OVERSIZE_HEAD = 32768           # bytes of an oversize statement that are scanned
    WHEN_FREE = -1                  # ``wake_at``: not before held writes are answered, or ``out`` has become small

cdef class Session(Watched):
    """A client's session: what it may share with others, and the writes it may have waiting."""
    cdef public str address             # of the server it is connected to: a reload may change the backend's
    cdef public object route            # the cold side's: to which server, and by which address
    cdef public bint leaving            # it is to end as soon as nothing of it is under way
    cdef public str peer
    cdef public bint announced          # what it begins with is a header of the PROXY protocol
    cdef public tuple origin            # ``(host, port)`` of the client and of where it connected to, if known
    cdef bytes last_words               # what its server connection said when it ended, not relayed yet
    cdef bint left                      # it has taken its leave: what it sends behind that is nobody's
    cdef int wake_at                    # while ``waiting``: number of expectations at which to go on, or WHEN_FREE
    cdef Py_ssize_t skip                # bytes of the current message still to be relayed
    cdef bint watching                  # an oversize statement streams by
    cdef int max_held                   # writes of one session in a batch

    def __init__(self, Engine engine):
        Ruled.__init__(self)
        self.engine = self.turn = engine
        self.history = History()
        self.writer = Writer()
        self.source = engine.stats.none
        self.last_reason = ""
        self.backend = self.address = self.peer = ""

    # --- what each protocol gives -----------------------------------------------------------------

    cdef bint is_logged_in(self) noexcept:
        return False

    cdef int expect_held(self) except -1:
        """The held messages are about to be sent on the session's own connection: what is expected of them."""
        return 0

    cdef int removing(self, int count) except -1:
        """The first ``count`` held writes are about to be taken back."""
        return 0

    cdef int internal_words(self) except -1:
        """Tells the client that the proxy has failed."""
        return 0

    cdef int terminate(self) except -1:
        """What the server is told when its client has gone."""
        return 0

    cdef bytes cancelled_answer(self, Write* w):
        """What a cancelled statement is answered with."""
        return b""

    cdef int count_refusal(self, str kind, str message) except -1:
        self.engine.stats.count_refused(self.dialect, kind)
        self.engine.hooks.refused(self, kind, message)
        return 0

    cpdef refuse(self, str kind, str message, str hint=""):
        """Ends the session with an error of the proxy's own; ``kind`` names it, see the dialects."""

    cdef int insecure(self, str reason) except -1:
        """Nobody is told: what is not TLS would come in clear. A session that is logged in ends as if cut off."""
        if not self.is_logged_in():
            self.refuse("tls", f"TLS with the client failed: {reason}")
        return 0

    cdef inline bint would_disclose(self) noexcept:
        """Whether a secret that came through TLS would go on in clear."""
        return has_tls(self) and not has_tls(self.server) and not self.server.local

    cdef inline int forward(self, const char* p, Py_ssize_t n) except -1:
        """Bytes of the client's, as they came, for the server."""
        self.server.out.append(p, n)
        return self.server.mark()

    cdef int introduced(self) except -1:
        """A header of the PROXY protocol has come; what the client says is to follow."""
        return 0

    cdef Py_ssize_t take_header(self, const char* p, Py_ssize_t n) except -1:
        cdef list origin = []
        cdef Py_ssize_t taken
        try:
            taken = proxy_header(p, n, origin)
        except ValueError as e:
            self.refuse("protocol", f"PROXY protocol: {e}")
            return NEED_MORE
        if taken == NEED_MORE:
            return NEED_MORE
        self.announced = False
        if origin:
            self.origin = tuple(origin)
            self.peer = "%s:%d" % origin[0]
        self.introduced()
        return taken

    # --- life -------------------------------------------------------------------------------------

    cdef int client_state(self) noexcept:
        if not self.is_logged_in():
            return CS_LOGIN
        if self.has_held():
            return CS_WAITING
        return CS_IDLE if self.is_idle() else CS_ACTIVE

    cdef bint want_read(self) except -1:
        if self.waiting and self.inbuf.size() >= BLOCKED_INPUT:
            return False
        return self.server is None or self.server.closing or self.server.out.size() < HIGH_WATER

    cdef int drained(self) except -1:
        if self.waiting and self.wake_at == WHEN_FREE:
            self.resume()
        if self.server is not None and not self.server.closed:
            self.server.mark()
        return 0

    cdef inline Py_ssize_t wait_for(self, int wake_at) noexcept:
        self.wake_at = wake_at
        return WAIT

    cdef inline int moved(self) except -1:
        """Expectations of its server connection were met."""
        if self.waiting and self.server.queue.size <= self.wake_at:
            self.resume()
        return 0

    cdef int release(self) except -1:
        """The held writes have left, and been answered or sent."""
        self.held.clear()
        return self.resume()

    cdef int let_go(self, int cause) except -1:
        cdef Engine engine = self.engine
        cdef ServerConn server = self.server
        engine.leave(self.held)
        engine.asking_ended(self)
        engine.alone_done(self)
        engine.class_left(self)
        if cause == C_INTERNAL and self.is_logged_in():
            self.internal_words()
        if server is not None and not server.closing and server.batch is None:
            if cause != C_INTERNAL and self.asks_on_leaving():
                return 0
            self.terminate()
            server.disconnect(C_CLIENT_GONE)
        return 0

    cdef int gone(self) except -1:
        self.engine.hooks.session_closed(self)
        return 0

    cdef int server_ended(self) except -1:
        """Its own server connection has ended; writes in a batch, or about to be sent, have their outcome first."""
        if self.held is not None and self.held.place >= HP_DEPARTED:
            return 0
        self.engine.leave(self.held)
        return self.end_with_server()

    cdef int end_with_server(self) except -1:
        if self.last_words is not None:
            self.out.append_bytes(self.last_words)
        return self.disconnect(C_SERVER_GONE)

    cdef int answered(self, Batch batch) except -1:
        if self.closing:
            return 0
        self.observe(self.engine.now, LK_BATCHED)
        self.mark()
        self.release()
        if self.server.closing:
            return self.end_with_server()
        return 0

    # --- what it has sent is answered ---------------------------------------------------------------

    cdef int one_answered(self, bint transaction_open) except -1:
        """A statement is answered, perhaps the last one sent."""
        if not self.server.queue.size:
            self.engine.alone_done(self)
        if self.ddl_open and not transaction_open:
            self.ddl_open = self.server.queue.size > 0
            self.engine.ddl_seen()
        return 0

    cdef int note_oversize(self, const char* sql, Py_ssize_t n, bint backslash) except -1:
        """A statement too long to be looked at whole streams by: only its first ``n`` bytes are scanned."""
        cdef Scan s
        scan_sql(<const uint8_t*>sql, n, self.dialect, backslash, &s)
        self.set_source(&s)
        self.count_new_alone(R_NO_HINT if s.wait_ms == WAIT_NONE else R_OVERSIZE)
        if s.qtype <= QT_REPLACE:
            self.watch_unread(1)
        self.watching = s.qtype <= QT_REPLACE and s.verb != W_WITH and not s.flags & (
            F_MULTI | F_TEMP | F_CURRVAL | F_EXEC_COMMENT)
        if self.watching:
            return self.watch_oversize(sql, n)
        return self.doubt()

    cdef inline int watch_oversize(self, const char* p, Py_ssize_t n) except -1:
        """Any semicolon before the very end may begin a SET: rather too careful than one not seen."""
        cdef Py_ssize_t look = n - 2 if n == self.skip else n
        if self.watching:
            if look > 0 and memchr(p, b";", look) != NULL:
                self.watching = False
                self.doubt()
            elif n == self.skip:
                self.watching = False
        return 0

    # --- a statement that might be batched ----------------------------------------------------------

    cdef inline int hold_back(self, int wake_at) noexcept:
        self.wake_at = wake_at
        return A_WAIT

    cdef inline bint may_hold(self) noexcept:
        """Whether a write could be held now, or has to wait for what was sent before it; sets ``wake_at``."""
        if self.busy() and self.comparable():
            self.wake_at = 0
            return False
        if self.out.size() >= MAX_UNREAD:
            self.wake_at = WHEN_FREE        # a client that does not read its answers gets no more of them
            return False
        if self.held is None:
            self.held = Held(self)
        return True

    cdef inline int consider(self, const char* msg, Py_ssize_t nmsg, Py_ssize_t sql_start, Py_ssize_t sql_end,
                             Scan* s) except -1:
        """Decides about one scanned statement: returns an ``Action``; what goes alone is counted."""
        cdef int kept = s.flags & F_COMPLEX
        cdef uint64_t number = 0
        cdef int action
        if s.qtype <= QT_REPLACE and self.engine.watch.size and not s.flags & F_UNSURE:
            number = number_of(<const uint8_t*>msg + sql_start, s, self.dialect)
        action = self.decide(msg, nmsg, sql_start, sql_end, s)
        if action != A_WAIT:
            self.count_hits(1)
            if s.qtype <= QT_REPLACE:
                s.flags |= kept
                self.watch_text(number, msg + sql_start, s, action)
        return action

    cdef int decide(self, const char* msg, Py_ssize_t nmsg, Py_ssize_t sql_start, Py_ssize_t sql_end,
                    Scan* s) except -1:
        cdef int reason
        cdef Shape shape
        cdef Write* w
        cdef Held held = self.held
        cdef bint more = self.has_held()
        cdef const char* sql = msg + sql_start
        if not self.wants_batch(sql, s):
            if more:
                return self.hold_back(WHEN_FREE)
            self.set_source(s)
            self.count_new_alone(R_NO_HINT)
            return A_RELAY
        if not more:
            if not self.may_hold():
                return A_WAIT
            held = self.held
            self.set_source(s)
        elif s.qtype != held.qtype or not self.same_source(s) or held.place != HP_GATHERED:
            return self.hold_back(WHEN_FREE)
        reason = self.exclusion(s.flags)
        shape = None
        if reason == R_COUNT:
            shape = self.shape if s.shaped else self.text_shape(sql, s, b"")
        if shape is None or shape.verdict is None:
            return self.not_gathered(R_NOT_BATCHABLE if reason == R_COUNT else reason, 1)
        w = held.at(held.nwrites)
        w.start = 0
        w.end = nmsg
        w.sql_start = sql_start
        w.sql_end = sql_end
        w.parse = w.bind = w.bind_end = w.literals = 0
        w.opening = s.opening
        w.closing = s.closing
        w.flags = 0 if s.opening and not s.opening & BK_SYNC else WF_SYNC
        if shape.form == FORM_CUT:
            w.tuples_start = sql_start + s.values_start
            w.tuples_end = sql_start + s.values_end
            w.rows = s.ntuples
        else:
            w.tuples_start = sql_start
            w.tuples_end = sql_end
            w.rows = 1
        return self.gather(shape, 1, msg, nmsg, s.wait_ms)

    cdef int gather(self, Shape shape, int count, const char* msg, Py_ssize_t nmsg, double wait_ms) except -1:
        """The ``count`` writes just described, ``nmsg`` bytes of messages, are held and enter their group.

        Returns an ``Action``. Offsets in the new writes count from ``msg``.
        """
        cdef Engine engine = self.engine
        cdef Held held = self.held
        cdef Group group
        cdef TableFacts facts
        cdef int action
        cdef int rows = held.new_rows(count)
        cdef Py_ssize_t size
        cdef Write* w = held.writes + held.nwrites
        cdef Py_ssize_t text = text_around(w, shape)
        if not held.nwrites:
            action = self.find_class(count)
            if action != A_HELD:
                return action
        group = engine.group_of(self.cls, shape)
        facts = group.facts
        size = size_in(group, held.new_tuple_bytes(count), nmsg)
        if held.nwrites:
            if group is not <Group>held.where or held.nwrites + count > self.max_held:
                return self.hold_back(WHEN_FREE)
            if not engine.has_room(group, rows, size, text):
                engine.make_way(group, rows)
                return self.hold_back(WHEN_FREE)
            held.add(count, msg, nmsg, wait_ms)
            self.begin_timing()
            engine.extended(held, count, rows, size)
            return A_HELD
        if not engine.fits(group, rows, size, text) or count > self.max_held:
            return self.not_gathered(R_OVERSIZE, count)
        if not facts.probing:
            if engine.facts_due(facts):
                engine.ask(self, group)
            elif facts.state == T_REFUSED:
                return self.not_gathered(facts.reason, count)
        if facts.probing and wait_ms != WAIT_AUTO and engine.now + wait_ms * 0.001 < facts.due:
            return self.not_gathered(R_TABLE, count)
        if engine.now < group.paused:
            return self.not_gathered(R_TABLE, count)
        held.shape = shape
        held.qtype = self.qtype
        held.source = self.source
        held.add(count, msg, nmsg, wait_ms)
        self.begin_timing()
        engine.join(held, group)
        return A_HELD

    cdef inline int find_class(self, int count) except -1:
        """In front of ``count`` writes that begin to be held: A_HELD if its class is known."""
        cdef int action = A_HELD if self.is_known() else self.recognise()
        if action == A_HELD:
            return action
        return self.not_gathered(R_SESSION_STATE, count) if action == A_RELAY else self.hold_back(0)

    cdef int find_class_for(self, Prepared statement, int count) except -1:
        """As ``find_class``, in front of executions: a batch would read the statement's text as the session is now."""
        cdef int action = self.find_class(count)
        if action == A_HELD and not statement.holds(self.history):
            return self.not_gathered(R_SESSION_STATE, count)
        return action

    cdef bint asks_first(self, Prepared statement) except -1:
        """Whether its server is to be asked what the session is like before a write is prepared that is to be batched.

        So that later it is known by what the server has read the statement, see ``Prepared``.
        """
        if statement.qtype > QT_REPLACE or self.busy() or self.is_known() or (
                self.wait_of(statement) == WAIT_NONE or self.exclusion(statement.flags) != R_COUNT):
            return False
        # a question that rules have asked just now is not waited for
        return not self.busy() and self.recognise() == A_WAIT

    cdef int not_gathered(self, int reason, int count) except -1:
        cdef int k
        if self.has_held():
            return self.hold_back(WHEN_FREE)
        for k in range(count):
            self.count_new_alone(reason)
        return A_RELAY

    cdef int send_held(self, int reason) except -1:
        cdef Held held = self.held
        cdef int k
        for k in range(held.nwrites):
            self.count_alone(held.qtype, reason, held.source)
        self.engine.watch.went_alone(held.slot, held.key, held.nwrites, reason)
        if self.alone_in is None or self.alone_in.facts.state != T_OPEN:
            self.doubt()                    # what runs because of it is not known
        self.expect_held()
        self.server.out.append(held.data.ptr(), held.data.size())
        self.server.mark()
        return self.release()

    def cancel_waiting(self):
        """Takes the first gathered statement back and answers it as cancelled; False if none is gathered.

        What was sent ahead behind it goes alone. A statement is what one answer ends: up to a Sync. BEGIN and COMMIT
        around a write are taken back with it.
        """
        cdef Held held = self.held
        cdef int k = 0
        if held is None or held.place != HP_GATHERED:
            return False
        self.engine.leave(held)
        while not ends_answer(held.writes + k):
            k += 1
        self.out.append_bytes(self.cancelled_answer(held.writes + k))
        self.mark()
        self.observe(self.engine.now, LK_ALONE)
        self.removing(k + 1)
        held.remove_first(k + 1)
        if held.nwrites:
            self.engine.go_alone(held, R_SINGLE)
        else:
            self.release()
        self.engine.settle()
        return True

    @property
    def waits(self):
        """Whether writes of this session are held: gathered, in a batch under way, or about to go."""
        return self.has_held()

    @property
    def logged_in(self):
        return self.is_logged_in()

    @property
    def idle(self):
        """Nothing under way and no transaction open: it may be closed without harm."""
        return self.is_idle()
