# The batch engine: gathers writes of one shape from sessions of one class, sends them as one operation on the
# connection of one of them, and hands the outcome back. It knows no protocol: a server connection merges and
# splits (``begin_batch``, ``split``), a session can always send what it holds alone (``relay_held``).

cdef enum:
    MAX_SHAPES = 10000              # analysed statement shapes kept
    MAX_GROUPS_PER_CLASS = 2000
    ANALYSED_PER_SECOND = 65536     # bytes given to a parser; past that, unknown shapes are relayed without one
    ANALYSIS_COST = 256             # bytes that every call of a parser counts besides
    MAX_SHAPE_BYTES = 16384         # prefix and suffix of a statement that is taken apart
    MAX_PARAMETERS = 65535          # of one statement, on both protocols
    MAX_TOGETHER = 3                # failures of a pipeline after which its members are halved
    MAX_ANSWER_BYTES = 8388608      # of a batch: past that it is taken back and its members go alone
    MAX_STRIKES = 3                 # surprises in a row after which a group pauses until facts are asked again

cdef double FACTS_SECONDS = 60.0
cdef double FACTS_RETRY_SECONDS = 2.0    # after the catalogue has answered with an error
cdef double SLOW_BATCH_SECONDS = 1.0     # a batch that takes longer is worth a line in the log
cdef double NEVER = 1e300


cdef enum Form:
    FORM_CUT = 0        # text, an INSERT cut into prefix, tuples and suffix
    FORM_WHOLE          # text, any write, its literals as "?"
    FORM_BOUND          # parameters for a prepared statement


cdef class Shape:
    """Statements that differ in values only.

    FORM_CUT: what stands before and behind the tuples, and one tuple's skeleton. FORM_WHOLE: ``skeleton`` is
    the statement's. FORM_BOUND: ``prefix`` is the statement's text, ``skeleton`` what else must be the same
    (types, formats); ``pieces`` its one tuple taken apart, for a statement with more of them.
    """
    cdef readonly int form
    cdef readonly bytes prefix
    cdef readonly bytes skeleton
    cdef readonly bytes suffix
    cdef readonly object verdict      # what analysis found, None if it may not be batched
    cdef readonly tuple pieces        # (text, number of the parameter behind it or 0), …
    cdef readonly int nparams
    cdef readonly bint extended       # comes by PostgreSQL's extended protocol

    def __init__(self, int form, bytes prefix, bytes skeleton, bytes suffix, verdict, bint extended):
        self.form = form
        self.prefix = prefix
        self.skeleton = skeleton
        self.suffix = suffix
        self.verdict = verdict
        self.extended = extended


cdef class Group:
    """Writes of one shape from sessions of one class, and the batch being gathered of them."""
    cdef readonly Shape shape
    cdef readonly SessionClass cls
    cdef TableFacts facts
    cdef int strikes                # batches in a row whose answer held a surprise
    cdef double paused              # until when writes go alone because of them
    # the batch being gathered
    cdef list members
    cdef int rows
    cdef Py_ssize_t bytes
    cdef double opened
    cdef double deadline
    cdef double scheduled           # time of the group's entry in the engine's heap; never behind the deadline
    cdef bint has_auto
    cdef bint ripe                  # to be looked at before the loop sleeps
    cdef int max_rows               # of the shape, 0: the engine's own bound
    # batches and singles under way
    cdef int inflight
    cdef Session last_leader

    def __init__(self, Shape shape, SessionClass cls, TableFacts facts):
        self.shape = shape
        self.cls = cls
        self.facts = facts
        self.members = []
        self.deadline = self.scheduled = NEVER
        if shape.nparams:
            self.max_rows = MAX_PARAMETERS // shape.nparams


cdef class Batch:
    """Writes sent as one operation on ``leader``'s connection."""
    cdef readonly Group group
    cdef readonly list members      # sessions; each has one write or several in a row
    cdef int method                 # Method
    cdef int nwrites
    cdef int attempt                # how often writes of it were tried together before
    cdef Session leader
    cdef ServerConn server
    cdef double sent
    cdef int flush_reason
    cdef int rows
    cdef int phase                  # the dialect's own
    cdef int cause                  # RetryCause of a failure
    cdef bint failed
    cdef bint table_error           # the failure concerns the statement, not a row: no use in halving
    cdef list bad                   # pipeline: sessions whose statements made it fail
    cdef Buffer response            # what the dialect keeps of the answer
    cdef Buffer ends                # pipeline: where each write's part of ``response`` ends, as Py_ssize_t
    cdef int answered               # pipeline: writes answered so far
    cdef int answer_rows
    cdef uint64_t first_id
    cdef Py_ssize_t head_bytes      # of ``response``: the part in front of the rows

    def __init__(self, Group group, list members, int flush_reason):
        self.group = group
        self.members = members
        self.flush_reason = flush_reason
        self.bad = []
        self.response = Buffer()
        self.ends = Buffer()

    cdef inline int end_write(self) except -1:
        """The answer to one more write of the pipeline is whole."""
        cdef Py_ssize_t size = self.response.size()
        self.answered += 1
        return self.ends.append(<char*>&size, sizeof(size))

    cdef inline Py_ssize_t end_of(self, int k) noexcept:
        return (<Py_ssize_t*>self.ends.ptr())[k]

    cdef Session owner(self, int k):
        """The session whose write is the k-th of the batch."""
        cdef Session session
        for item in self.members:
            session = <Session>item
            if k < session.nwrites:
                return session
            k -= session.nwrites
        return None


cdef class Engine:
    """Everything that sessions share. ``hooks`` is the cold side (see ``tqdb.policy`` and ``tqdb.server``):

    ``analyze(dialect, prefix, tuple, suffix)``, ``analyze_statement(dialect, sql)`` -> a verdict or None;
    ``pieces(dialect, tuple)`` -> see ``Shape``, or None;
    ``session_wait(dialect, sql)``, ``startup_wait(params)`` -> what a session says of ``max_wait_ms``;
    ``killed_query(sql)`` -> the connection whose statement a KILL QUERY names, or None;
    ``row_count_sql(sql, rows)`` -> the statement with ROW_COUNT() replaced, or None;
    ``probe_sql(dialect, verdict)`` -> the catalogue query;
    ``judge(dialect, verdict, rows)`` -> ``(ok, reason_name, multi_row, id_step, byte_limit, wait_limit)``;
    ``status_sql(dialect, sql, session)`` -> the statement that answers a status query;
    ``connect(session)``, ``cancel(session, packet)``, ``session_closed(session)``;
    ``refused(session, kind, message)``: it is ended with an error of the proxy's own;
    ``slow_batch(leader, writes, seconds)``.
    """
    cdef public double now
    cdef public object hooks
    cdef readonly Stats stats
    cdef readonly ClassRegistry classes
    cdef list dirty
    cdef list resume
    cdef list ripe
    cdef dict shapes
    cdef list heap
    cdef uint64_t heap_serial
    cdef public int max_batch_size
    cdef public Py_ssize_t max_batch_bytes
    cdef public double max_wait_ms
    cdef public Py_ssize_t max_message_bytes
    cdef public bint draining
    cdef uint64_t ddl_epoch
    cdef uint64_t settings_epoch
    cdef double analysis_second
    cdef Py_ssize_t analysed            # bytes, in this second
    cdef readonly dict cancel_keys      # what a cancel names its target by -> session, see the dialects
    cdef readonly int gathered          # writes waiting in groups now
    cdef readonly int batches_running

    def __init__(self, hooks=None, Stats stats=None, int max_batch_size=1000,
                 Py_ssize_t max_batch_bytes=1048576, double max_wait_ms=1000,
                 Py_ssize_t max_message_bytes=1073741824):
        self.hooks = hooks
        self.stats = stats if stats is not None else Stats()
        self.classes = ClassRegistry(self)
        self.dirty = []
        self.resume = []
        self.ripe = []
        self.shapes = {}
        self.heap = []
        self.cancel_keys = {}
        self.max_batch_size = max_batch_size
        self.max_batch_bytes = max_batch_bytes
        self.max_wait_ms = max_wait_ms
        self.max_message_bytes = max_message_bytes

    # --- the safe point ---------------------------------------------------------------------------

    cpdef settle(self):
        """Resumes sessions that were let go and sends what lies ready, until neither is left."""
        cdef list todo
        cdef Endpoint ep
        cdef Session session
        cdef Group group
        while self.resume or self.ripe or self.dirty:
            if self.resume:
                todo = self.resume
                self.resume = []
                for item in todo:
                    session = <Session>item
                    session.resuming = False
                    try:
                        if not session.closed:
                            session.pump()
                            session.mark()
                    except Exception:
                        log.exception("internal error in a session; it is closed")
                        session.abort()
                continue
            if self.ripe:
                todo = self.ripe
                self.ripe = []
                for item in todo:
                    group = <Group>item
                    group.ripe = False
                    self.flush_ripe(group)
                continue
            todo = self.dirty
            self.dirty = []
            for item in todo:
                ep = <Endpoint>item
                ep.dirty = False
                if ep.closed:
                    continue
                try:
                    if ep.stream is not None:
                        ep.stream.flush()
                        if not ep.closed:
                            ep.stream.update_interest()
                except Exception:
                    log.exception("internal error on a connection; it is closed")
                    ep.abort()

    # --- shapes -----------------------------------------------------------------------------------

    cdef bint may_analyse(self, Py_ssize_t size) noexcept:
        """Whether a parser may be called once more: its time grows with the text, and everybody waits meanwhile."""
        if self.now - self.analysis_second >= 1.0:
            self.analysis_second = self.now
            self.analysed = 0
        if self.analysed >= ANALYSED_PER_SECOND:
            return False
        self.analysed += size + ANALYSIS_COST
        return True

    cdef Shape keep_shape(self, key, Shape shape):
        if len(self.shapes) >= MAX_SHAPES:
            self.shapes.clear()
        self.shapes[key] = shape
        return shape

    cdef Shape cut_shape(self, int dialect, const char* p, Scan* s, bytes formats):
        """The shape of a scanned INSERT, analysed if it is new. None: too many new ones just now.

        ``formats``: what else must be the same, b"" for a text protocol's own answer.
        """
        cdef bytes prefix = p[s.core_start:s.values_start]
        cdef bytes skeleton = s.skeleton[:s.nskeleton]
        cdef bytes suffix = p[s.values_end:s.core_end] if s.core_end > s.values_end else b""
        key = (dialect, prefix, skeleton, suffix, formats)
        found = self.shapes.get(key)
        if found is not None:
            return <Shape>found
        if not self.may_analyse(s.first_end - s.core_start + len(suffix)):
            return None
        verdict = self.hooks.analyze(dialect, prefix, p[s.values_start:s.first_end], suffix)
        return self.keep_shape(key, Shape(FORM_CUT, prefix, skeleton, suffix, verdict, formats != b""))

    cdef Shape whole_shape(self, int dialect, const char* p, Scan* s, bytes formats):
        """The shape of a scanned statement whose skeleton is the whole statement's."""
        cdef bytes skeleton = s.skeleton[:s.nskeleton]
        key = (dialect, skeleton, formats)
        found = self.shapes.get(key)
        if found is not None:
            return <Shape>found
        if not self.may_analyse(s.core_end - s.core_start):
            return None
        verdict = self.hooks.analyze_statement(dialect, p[s.core_start:s.core_end])
        return self.keep_shape(key, Shape(FORM_WHOLE, b"", skeleton, b"", verdict, formats != b""))

    cdef Shape bound_shape(self, int dialect, bytes core, bytes alike, Scan* s, int nparams):
        """The shape of executions of a statement; ``s`` is the scan of ``core``, ``alike`` see ``Shape``."""
        cdef Shape shape
        key = (dialect, core, alike, FORM_BOUND)
        found = self.shapes.get(key)
        if found is not None:
            return <Shape>found
        if not self.may_analyse(len(core)):
            return None
        verdict = None
        pieces = None
        prefix, suffix = core, b""
        if s.verb == W_INSERT and s.values_end >= 0 and s.ntuples == 1 and not s.flags & F_COMPLEX:
            prefix, suffix = core[:s.values_start], core[s.values_end:]
            values = core[s.values_start:s.values_end]
            pieces = self.hooks.pieces(dialect, values, nparams)
            if pieces is not None:
                verdict = self.hooks.analyze(dialect, prefix, values, suffix)
        if verdict is None:
            verdict = self.hooks.analyze_statement(dialect, core)
            pieces = None
        shape = Shape(FORM_BOUND, prefix if pieces else core, alike, suffix if pieces else b"", verdict,
                      dialect == PG)
        shape.pieces = pieces
        shape.nparams = nparams
        return self.keep_shape(key, shape)

    cdef Group group_of(self, SessionClass cls, Shape shape):
        cdef Group group = cls.groups.get(shape)
        if group is None:
            if len(cls.groups) >= MAX_GROUPS_PER_CLASS:
                for key, old in list(cls.groups.items()):
                    if not (<Group>old).members and not (<Group>old).inflight:
                        del cls.groups[key]
                cls.tables = {key: facts for key, facts in cls.tables.items()
                              if (<TableFacts>facts).probing or (<TableFacts>facts).waiting}
            facts = cls.tables.get(shape.verdict.facts_key)
            if facts is None:
                facts = cls.tables[shape.verdict.facts_key] = TableFacts()
            group = Group(shape, cls, facts)
            cls.groups[shape] = group
        return group

    cdef inline void ddl_seen(self) noexcept:
        self.ddl_epoch += 1

    cdef inline bint facts_due(self, TableFacts facts) noexcept:
        return facts.state == T_UNKNOWN or facts.epoch != self.ddl_epoch or self.now >= facts.expires

    # --- gathering --------------------------------------------------------------------------------

    cdef inline int max_rows(self, Group group) noexcept:
        return min(self.max_batch_size, group.max_rows) if group.max_rows else self.max_batch_size

    cdef inline Py_ssize_t max_bytes(self, Group group) noexcept:
        cdef Py_ssize_t limit = group.facts.byte_limit
        return min(self.max_batch_bytes, limit) if limit else self.max_batch_bytes

    cdef int make_room(self, Group group, int rows, Py_ssize_t size) except -1:
        """Sends the group off if so much more would be too much for it."""
        if group.members:
            if group.rows + rows > self.max_rows(group):
                self.flush(group, FL_FULL)
            elif group.bytes + size > self.max_bytes(group):
                self.flush(group, FL_BYTES)
        return 0

    cdef int join(self, Session session, Group group, int writes, int rows, Py_ssize_t size,
                  double wait_ms) except -1:
        """Writes just held by a session enter a group that has room for them; it may leave at once."""
        cdef double limit = self.max_wait_ms * 0.001
        cdef double deadline
        if group.facts.wait_limit > 0 and group.facts.wait_limit < limit:
            limit = group.facts.wait_limit
        if not group.members:
            group.opened = self.now
        if session.group is None:
            group.members.append(session)
            session.group = group
        group.rows += rows
        group.bytes += size
        self.gathered += writes
        if wait_ms == WAIT_AUTO:
            group.has_auto = True
            deadline = self.now + limit
        else:
            deadline = self.now + min(wait_ms * 0.001, limit)
        if group.rows >= self.max_rows(group):
            return self.flush(group, FL_FULL)
        if group.bytes >= self.max_bytes(group):
            return self.flush(group, FL_BYTES)
        if group.facts.probing:
            if group not in group.facts.waiting:
                group.facts.waiting.append(group)
        elif (group.has_auto and group.inflight == 0) or len(group.members) >= group.cls.members:
            self.ripen(group)
        if deadline < group.deadline:
            group.deadline = deadline
            if deadline < group.scheduled:
                self.schedule(group)
        return 0

    cdef inline int ripen(self, Group group) except -1:
        """It could leave now; but what else has arrived with the same read comes along."""
        if not group.ripe:
            group.ripe = True
            self.ripe.append(group)
        return 0

    cdef int flush_ripe(self, Group group) except -1:
        if not group.members or group.facts.probing:
            return 0
        if group.has_auto and group.inflight == 0:
            return self.flush(group, FL_IDLE)
        if len(group.members) >= group.cls.members:
            return self.flush(group, FL_NOBODY_LEFT)
        return 0

    cdef int facts_known(self, TableFacts facts) except -1:
        """The catalogue has answered, or will not: groups that waited for it go on."""
        cdef Group group
        cdef list waiting = facts.waiting
        facts.waiting = []
        for item in waiting:
            group = <Group>item
            if facts.state == T_OPEN and not self.facts_due(facts):
                self.ripen(group)
            else:
                self.disband(group, facts.reason if facts.state == T_REFUSED else R_TABLE)
        return 0

    cdef int disband(self, Group group, int reason) except -1:
        """What is gathered goes alone."""
        for item in self.take_members(group):
            (<Session>item).relay_held(reason)
        return 0

    cdef list take_members(self, Group group):
        cdef list members = group.members
        cdef Session session
        group.members = []
        group.rows = 0
        group.bytes = 0
        group.deadline = NEVER
        group.has_auto = False
        for item in members:
            session = <Session>item
            session.group = None
            session.blocked = True
            self.gathered -= session.nwrites
        return members

    cdef int schedule(self, Group group) except -1:
        """An entry in the heap for the group's deadline; any other entry of the group's is void from now on."""
        group.scheduled = group.deadline
        self.heap_serial += 1
        heapq.heappush(self.heap, (group.deadline, self.heap_serial, group))
        return 0

    cdef int leave(self, Session session) except -1:
        """A gathered write is taken back: its client is gone, and it has not been sent."""
        cdef Group group = session.group
        if group is None:
            return 0
        group.members.remove(session)
        group.rows -= session.nrows
        group.bytes -= session.nbytes
        session.group = None
        self.gathered -= session.nwrites
        if not group.members:
            group.deadline = NEVER
            group.has_auto = False
        return 0

    cdef int class_shrank(self, SessionClass cls) except -1:
        """A session left: a group that now holds all who remain need not wait longer."""
        cdef Group group
        if cls.members == 0:
            return 0
        for item in list(cls.groups.values()):
            group = <Group>item
            if group.members and len(group.members) >= cls.members:
                self.ripen(group)
        return 0

    cdef int flush(self, Group group, int reason) except -1:
        cdef list members
        cdef Session session
        cdef double delay = self.now - group.opened
        if not group.members:
            return 0
        if group.facts.probing:
            return self.disband(group, R_TABLE)
        members = self.take_members(group)
        self.stats.flush[reason] += 1
        self.stats.current_delay_ms = delay * 1000
        session = <Session>members[0]
        if len(members) == 1 and session.nwrites == 1:
            session.inflight_group = group
            group.inflight += 1
            return session.relay_held(R_SINGLE)
        observe_seconds(&self.stats.batch_delay[session.qtype], delay)
        return self.start(Batch(group, members, reason))

    cdef int start(self, Batch batch) except -1:
        """Sends a batch on a member's connection: the one that led last, if it is among them."""
        cdef Session session
        cdef Session leader = None
        cdef Group group = batch.group
        batch.rows = batch.nwrites = 0
        for item in batch.members:
            session = <Session>item
            session.batch = batch
            batch.rows += session.nrows
            batch.nwrites += session.nwrites
            if leader is None or session is group.last_leader:
                leader = session
        group.last_leader = leader
        group.inflight += 1
        self.batches_running += 1
        batch.leader = leader
        batch.server = leader.server
        batch.method = M_MULTI_ROW if group.shape.verdict.multi_row and group.facts.multi_row else M_PIPELINE
        batch.sent = self.now
        self.stats.database_queries += 1
        self.stats.backend_writes[leader.qtype] += 1
        leader.server.batch = batch
        leader.server.begin_batch(batch)
        return 0

    # --- outcomes ---------------------------------------------------------------------------------

    cdef int finished(self, Batch batch) except -1:
        """The server answered the whole batch: all of it was kept, or (``batch.failed``) nothing."""
        cdef Session session
        cdef ServerConn server = batch.server
        cdef Group group = batch.group
        cdef Stats stats = self.stats
        cdef int qtype = batch.leader.qtype
        server.batch = None
        group.inflight -= 1
        self.batches_running -= 1
        if batch.failed:
            self.retry(batch)
        else:
            group.strikes = 0
            stats.batches += 1
            stats.methods[batch.method] += 1
            observe_size(&stats.batch_size[qtype], batch.nwrites)
            observe_seconds(&stats.batch_latency[qtype], self.now - batch.sent)
            if self.now - batch.sent > SLOW_BATCH_SECONDS:
                self.hooks.slow_batch(batch.leader, batch.nwrites, self.now - batch.sent)
            server.split(batch)
            for item in batch.members:
                session = <Session>item
                session.batch = None
                stats.count_batched(qtype, session.nwrites, session.source)
                session.last_batch_size = batch.nwrites
                session.last_reason = FLUSH_REASONS[batch.flush_reason]
                if not session.closed:
                    session.observe(self.now, LK_BATCHED)
                    session.release()
        if server.orphan:
            server.finish()
        self.idle(group)
        return 0

    cdef int retry(self, Batch batch) except -1:
        """Nothing was kept. Who made a pipeline fail goes alone and the others together; else halves are tried."""
        cdef Session session
        cdef Group group = batch.group
        cdef list usable = []
        cdef Py_ssize_t half
        self.stats.retries[batch.cause] += 1
        if batch.method == M_MULTI_ROW:
            batch.leader.led_failed_batch()
        if batch.table_error:
            group.facts.state = T_UNKNOWN
        if batch.cause == RC_WARNING or batch.cause == RC_MISMATCH:
            group.strikes += 1
            if group.strikes >= MAX_STRIKES:
                group.paused = self.now + FACTS_SECONDS
                group.strikes = 0
        for item in batch.members:
            session = <Session>item
            session.batch = None
            if not session.usable():
                continue
            if batch.table_error or session in batch.bad:
                self.start_part(group, [session], batch)
            else:
                usable.append(session)
        if not usable:
            return 0
        if len(usable) < len(batch.members) and batch.attempt < MAX_TOGETHER:
            self.start_part(group, usable, batch)
            return 0
        half = (len(usable) + 1) // 2
        self.start_part(group, usable[:half], batch)
        if half < len(usable):
            self.start_part(group, usable[half:], batch)
        return 0

    cdef int start_part(self, Group group, list members, Batch of) except -1:
        cdef Session session = <Session>members[0]
        cdef Batch batch
        if len(members) > 1:
            batch = Batch(group, members, of.flush_reason)
            batch.attempt = of.attempt + 1
            return self.start(batch)
        session.inflight_group = group
        group.inflight += 1
        return session.relay_held(R_RETRY)

    cdef int lost(self, Batch batch) except -1:
        """The connection ended before the answer: the outcome is unknown, and nothing is sent again."""
        cdef Session session
        batch.server.batch = None
        batch.group.inflight -= 1
        self.batches_running -= 1
        for item in batch.members:
            session = <Session>item
            session.batch = None
            # each was handed to the database once, with an outcome that nobody can tell
            self.stats.count_batched(session.qtype, session.nwrites, session.source)
            if not session.closed:
                session.connection_lost()
        self.idle(batch.group)
        return 0

    cdef int single_done(self, Session session) except -1:
        cdef Group group = session.inflight_group
        session.inflight_group = None
        group.inflight -= 1
        return self.idle(group)

    cdef int idle(self, Group group) except -1:
        """A batch of this group has ended: writes that only waited for that leave now."""
        if group.inflight == 0 and group.has_auto and group.members:
            self.ripen(group)
        return 0

    # --- time -------------------------------------------------------------------------------------

    def next_deadline(self):
        """When ``tick`` has something to do: seconds of the monotonic clock, or None."""
        cdef Group group
        while self.heap:
            moment, _, group = self.heap[0]
            if moment == group.scheduled:
                if group.deadline < NEVER:
                    return moment
                group.scheduled = NEVER
            heapq.heappop(self.heap)
        return None

    def tick(self, double now):
        """Sends what is due at ``now``."""
        cdef Group group
        self.now = now
        while self.heap and self.heap[0][0] <= now:
            moment, _, group = heapq.heappop(self.heap)
            if moment != group.scheduled:
                continue
            group.scheduled = NEVER
            if group.deadline <= now:
                self.flush(group, FL_DEADLINE)
            elif group.deadline < NEVER:
                self.schedule(group)
        self.settle()

    def drain(self):
        """Sends everything gathered; from here on writes go alone."""
        self.draining = True
        for _, _, group in list(self.heap):
            self.flush(group, FL_DRAIN)
        self.settle()
