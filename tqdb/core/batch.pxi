# The batch engine: gathers writes of one shape from sessions of one class, sends them as one operation on the
# connection of one of them, and hands the outcome back. It knows no protocol: a server connection merges and
# splits (``begin_batch``, ``split``), a session can always send what it holds alone (``relay_held``).

cdef enum:
    MAX_SHAPES = 10000              # analysed statement shapes kept
    MAX_GROUPS_PER_CLASS = 2000
    ANALYSES_PER_SECOND = 200       # parser calls; past that, unknown shapes are relayed without one
    MAX_SHAPE_BYTES = 16384         # prefix and suffix of a statement that is taken apart
    MAX_STRIKES = 3                 # surprises in a row after which a group pauses until facts are asked again

cdef double FACTS_SECONDS = 60.0
cdef double NEVER = 1e300


cdef class Shape:
    """An INSERT without its values: what stands before and behind the tuples, and one tuple's skeleton."""
    cdef readonly bytes prefix
    cdef readonly bytes skeleton
    cdef readonly bytes suffix
    cdef readonly object verdict      # what analysis found, None if it may not be batched

    def __init__(self, bytes prefix, bytes skeleton, bytes suffix, verdict):
        self.prefix = prefix
        self.skeleton = skeleton
        self.suffix = suffix
        self.verdict = verdict


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
    # batches and singles under way
    cdef int inflight
    cdef Session last_leader

    def __init__(self, Shape shape, SessionClass cls, TableFacts facts):
        self.shape = shape
        self.cls = cls
        self.facts = facts
        self.members = []
        self.deadline = self.scheduled = NEVER


cdef class Batch:
    """Writes sent as one operation on ``leader``'s connection."""
    cdef readonly Group group
    cdef readonly list members
    cdef Session leader
    cdef ServerConn server
    cdef double sent
    cdef int flush_reason
    cdef int rows
    cdef int phase                  # the dialect's own
    cdef int cause                  # RetryCause of a failure
    cdef bint failed
    cdef bint table_error           # the failure concerns the statement, not a row: no use in halving
    cdef Buffer response            # what the dialect keeps of the answer
    cdef int answer_rows
    cdef uint64_t first_id
    cdef Py_ssize_t head_bytes      # of ``response``: the part in front of the rows

    def __init__(self, Group group, list members, int flush_reason):
        self.group = group
        self.members = members
        self.flush_reason = flush_reason
        self.response = Buffer()


cdef class Engine:
    """Everything that sessions share. ``hooks`` is the cold side (see ``tqdb.policy`` and ``tqdb.server``):

    ``analyze(dialect, prefix, tuple, suffix)`` -> a verdict or None;
    ``probe_sql(dialect, verdict)`` -> the catalogue query;
    ``judge(dialect, verdict, rows)`` -> ``(ok, reason_name, id_step, byte_limit)``;
    ``status_sql(dialect, sql, session)`` -> the statement that answers a status query;
    ``connect(session)``, ``cancel(session, packet)``, ``session_closed(session)``.
    """
    cdef public double now
    cdef public object hooks
    cdef readonly Stats stats
    cdef readonly ClassRegistry classes
    cdef list dirty
    cdef list resume
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
    cdef int analysis_count
    cdef readonly dict cancel_keys      # BackendKeyData -> session
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
        while self.resume or self.dirty:
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

    cdef Shape shape_of(self, int dialect, const char* p, Scan* s):
        """The shape of a scanned INSERT, analysed if it is new. None: too many new ones just now."""
        cdef bytes prefix = p[s.core_start:s.values_start]
        cdef bytes skeleton = s.skeleton[:s.nskeleton]
        cdef bytes suffix = p[s.values_end:s.core_end] if s.core_end > s.values_end else b""
        key = (dialect, prefix, skeleton, suffix)
        found = self.shapes.get(key)
        if found is not None:
            return <Shape>found
        if self.now - self.analysis_second >= 1.0:
            self.analysis_second = self.now
            self.analysis_count = 0
        self.analysis_count += 1
        if self.analysis_count > ANALYSES_PER_SECOND:
            return None
        verdict = self.hooks.analyze(dialect, prefix, p[s.values_start:s.first_end], suffix)
        shape = Shape(prefix, skeleton, suffix, verdict)
        if len(self.shapes) >= MAX_SHAPES:
            self.shapes.clear()
        self.shapes[key] = shape
        return shape

    cdef Group group_of(self, SessionClass cls, Shape shape):
        cdef Group group = cls.groups.get(shape)
        if group is None:
            if len(cls.groups) >= MAX_GROUPS_PER_CLASS:
                for key, old in list(cls.groups.items()):
                    if not (<Group>old).members and not (<Group>old).inflight:
                        del cls.groups[key]
                cls.tables = {key: facts for key, facts in cls.tables.items() if (<TableFacts>facts).probing}
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

    cdef int join(self, Session session, Group group, double wait_ms) except -1:
        """A held write enters its group, which may leave at once."""
        cdef Py_ssize_t size = session.tuples_end - session.tuples_start + 1
        cdef Py_ssize_t max_bytes = self.max_batch_bytes
        cdef double deadline
        if group.facts.byte_limit and group.facts.byte_limit < max_bytes:
            max_bytes = group.facts.byte_limit
        if group.members and (group.rows + session.ntuples > self.max_batch_size
                              or group.bytes + size > max_bytes):
            self.flush(group, FL_FULL if group.rows + session.ntuples > self.max_batch_size else FL_BYTES)
        if not group.members:
            group.opened = self.now
        group.members.append(session)
        group.rows += session.ntuples
        group.bytes += size
        session.group = group
        self.gathered += 1
        if wait_ms == WAIT_AUTO:
            if group.inflight == 0:
                return self.flush(group, FL_IDLE)
            group.has_auto = True
            deadline = self.now + self.max_wait_ms * 0.001
        else:
            deadline = self.now + min(wait_ms, self.max_wait_ms) * 0.001
        if group.rows >= self.max_batch_size:
            return self.flush(group, FL_FULL)
        if group.bytes >= max_bytes:
            return self.flush(group, FL_BYTES)
        if len(group.members) >= group.cls.members:
            return self.flush(group, FL_NOBODY_LEFT)
        if deadline < group.deadline:
            group.deadline = deadline
            if deadline < group.scheduled:
                self.schedule(group)
        return 0

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
        group.rows -= session.ntuples
        group.bytes -= session.tuples_end - session.tuples_start + 1
        session.group = None
        self.gathered -= 1
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
                self.flush(group, FL_NOBODY_LEFT)
        return 0

    cdef int flush(self, Group group, int reason) except -1:
        cdef list members = group.members
        cdef Session session
        cdef double delay = self.now - group.opened
        if not members:
            return 0
        group.members = []
        group.rows = 0
        group.bytes = 0
        group.deadline = NEVER
        group.has_auto = False
        self.gathered -= len(members)
        self.stats.flush[reason] += 1
        self.stats.current_delay_ms = delay * 1000
        if len(members) == 1:
            session = <Session>members[0]
            session.group = None
            session.inflight_group = group
            group.inflight += 1
            return session.relay_held(R_SINGLE)
        observe_seconds(&self.stats.batch_delay[(<Session>members[0]).qtype], delay)
        for item in members:
            (<Session>item).group = None
        return self.start(Batch(group, members, reason))

    cdef int start(self, Batch batch) except -1:
        """Sends a batch on a member's connection: the one that led last, if it is among them."""
        cdef Session session
        cdef Session leader = None
        cdef Group group = batch.group
        batch.rows = 0
        for item in batch.members:
            session = <Session>item
            session.batch = batch
            batch.rows += session.ntuples
            if leader is None or session is group.last_leader:
                leader = session
        group.last_leader = leader
        group.inflight += 1
        self.batches_running += 1
        batch.leader = leader
        batch.server = leader.server
        batch.sent = self.now
        batch.failed = False
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
        cdef int count = len(batch.members)
        server.batch = None
        group.inflight -= 1
        self.batches_running -= 1
        if batch.failed:
            self.retry(batch)
        else:
            group.strikes = 0
            stats.batches += 1
            stats.multi_row += 1
            observe_size(&stats.batch_size[qtype], count)
            observe_seconds(&stats.batch_latency[qtype], self.now - batch.sent)
            stats.batched[qtype] += count
            server.split(batch)
            for item in batch.members:
                session = <Session>item
                session.batch = None
                session.source.batched[qtype] += 1
                session.last_batch_size = count
                session.last_reason = FLUSH_REASONS[batch.flush_reason]
                if not session.closed:
                    session.observe(self.now)
                    session.release()
        if server.orphan:
            server.finish()
        self.idle(group)
        return 0

    cdef int retry(self, Batch batch) except -1:
        """Nothing was kept: halves are tried again, and what is down to one goes alone."""
        cdef Session session
        cdef Group group = batch.group
        cdef list usable = []
        cdef Py_ssize_t half
        self.stats.retries[batch.cause] += 1
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
            if session.usable():
                usable.append(session)
        if len(usable) > 1 and not batch.table_error:
            half = len(usable) // 2
            self.start_part(group, usable[:half], batch.flush_reason)
            self.start_part(group, usable[half:], batch.flush_reason)
            return 0
        for item in usable:
            self.start_part(group, [item], batch.flush_reason)
        return 0

    cdef int start_part(self, Group group, list members, int reason) except -1:
        cdef Session session
        if len(members) > 1:
            return self.start(Batch(group, members, reason))
        session = <Session>members[0]
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
            self.stats.batched[session.qtype] += 1
            session.source.batched[session.qtype] += 1
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
            self.flush(group, FL_IDLE)
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
