# What is counted of a session's statements.

cdef enum ClientState:
    CS_LOGIN = 0
    CS_WAITING
    CS_ACTIVE
    CS_IDLE

CLIENT_STATES = ("login", "waiting", "active", "idle")


cdef class Counted(Member):
    """A session, as far as its statements are counted and timed."""
    cdef readonly Engine engine
    cdef int qtype                      # QueryType of the statement being read …
    cdef Source source                  # … and where it comes from
    # timing of the statement under way
    cdef bint timing
    cdef double started
    cdef Source timed_source
    cdef int timed_qtype
    cdef Writer writer
    cdef int alone_for                  # the Reason for which the last write that went alone did

    cdef int client_state(self) noexcept:
        """A ``ClientState``."""
        return CS_IDLE

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
            if self.timed_qtype <= QT_REPLACE:
                self.writer.answered = now
                self.writer.ahead = False
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
            self.alone_for = reason
        return 0

    cdef inline int count_new_alone(self, int reason) except -1:
        """The statement just read goes alone."""
        self.begin_timing()
        return self.count_alone(self.qtype, reason, self.source)


def count_states(sessions):
    """``{(dialect, state): number}`` of sessions, and of the server connections that they have.

    A client is in ``login``, ``waiting`` (its write is gathered or in a batch), ``active`` or ``idle``; a server
    connection is ``active`` or ``idle``.
    """
    cdef Counted session
    cdef int[2][4] clients
    cdef int[2][2] servers
    cdef int d, state
    for d in range(2):
        clients[d][0] = clients[d][1] = clients[d][2] = clients[d][3] = servers[d][0] = servers[d][1] = 0
    for item in sessions:
        session = <Counted>item
        state = session.client_state()
        clients[session.dialect][state] += 1
        if session.server is not None and not session.server.closed:
            servers[session.dialect][0 if state == CS_IDLE else 1] += 1
    return ({(d, CLIENT_STATES[state]): clients[d][state] for d in range(2) for state in range(4)},
            {(d, "active" if state else "idle"): servers[d][state] for d in range(2) for state in range(2)})


def count_tls(sessions):
    """``{(side, version): number}`` of the connections of sessions that carry TLS; side: ``client``, ``server``."""
    cdef dict found = {}
    cdef Counted session
    for item in sessions:
        session = <Counted>item
        for side, ep in (("client", session), ("server", session.server)):
            if has_tls(<Endpoint>ep) and (<TlsStream>(<Endpoint>ep).stream).tls.established:
                key = side, (<TlsStream>(<Endpoint>ep).stream).tls.version
                found[key] = found.get(key, 0) + 1
    return found
