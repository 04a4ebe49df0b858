# Gathering: writes of one shape from sessions of one class are filed, until they leave together or go alone.
#
# Everything below a ``parse`` only files: what is sent, freed or told happens in ``settle``, which is never re-entered.

cdef enum:
    MAX_GROUPS_PER_CLASS = 2000
    MAX_STATEMENT = 0xFFFFFF - 262144  # bytes of a batch's statement: what one packet of MariaDB's holds, with room


cdef inline Py_ssize_t size_in(Group group, Py_ssize_t tuple_bytes, Py_ssize_t message_bytes) noexcept:
    """What writes count in a group: what they add to its statement, and a quarter of what is held of them at least."""
    return max(tuple_bytes, message_bytes // 4) if group.merges() else message_bytes


cdef class Gathering(Turn):
    """The engine, as far as it files. See ``Engine``."""
    cdef readonly ClassRegistry classes
    cdef readonly Shapes shapes
    cdef Rulebook rules
    cdef bint ruled                     # rules, or observation, may decide about writes
    cdef bint[2] observed               # by dialect: nothing is batched
    cdef readonly Watch watch
    cdef bint settling
    cdef list ripe                      # groups that could leave now
    cdef list departures                # batches to be sent
    cdef list stalled                   # … for which nobody can lead just now
    cdef list alone                     # (Held, Reason) to be sent as they came
    cdef list outcomes                  # batches that are over, or lost
    cdef list known                     # facts about which the catalogue has answered, or will not
    cdef list heap
    cdef uint64_t heap_serial
    cdef public int max_batch_size
    cdef public Py_ssize_t max_batch_bytes
    cdef public double max_wait_ms
    cdef public Py_ssize_t max_message_bytes
    cdef public bint draining
    cdef uint64_t ddl_epoch
    cdef dict alikes                    # what a session was and has changed since -> what its server said it is then
    cdef tuple setting_names            # custom settings that something which writes execute reads
    cdef int names_version              # counts their changes
    cdef readonly dict cancel_keys      # what a cancel names its target by -> session, see the dialects
    cdef readonly int gathered          # writes waiting in groups now
    cdef readonly int batches_running

    def __init__(self, hooks=None, Stats stats=None, int max_batch_size=1000,
                 Py_ssize_t max_batch_bytes=1048576, double max_wait_ms=1000,
                 Py_ssize_t max_message_bytes=1073741824):
        self.hooks = hooks
        self.stats = stats if stats is not None else Stats()
        self.classes = ClassRegistry()
        self.shapes = Shapes(hooks)
        self.rules = Rulebook(hooks)
        self.watch = Watch()
        self.dirty = []
        self.resumed = []
        self.later = []
        self.ripe = []
        self.departures = []
        self.stalled = []
        self.alone = []
        self.outcomes = []
        self.known = []
        self.heap = []
        self.cancel_keys = {}
        self.alikes = {}
        self.setting_names = ()
        self.max_batch_size = max_batch_size
        self.max_batch_bytes = max_batch_bytes
        self.max_wait_ms = max_wait_ms
        self.max_message_bytes = max_message_bytes

    # --- rules ------------------------------------------------------------------------------------

    def set_rules(self, rules, observed=()):
        """``rules``: see ``Rulebook.put``; ``observed``: the dialects in which nothing is to be batched."""
        cdef int d
        self.rules.put(list(rules))
        for d in range(2):
            self.observed[d] = d in observed
        self.ruled = bool(self.rules.rules) or bool(observed)

    def rule_hits(self):
        """``{name: writes}`` about which rules have decided, in the rules' order."""
        return {(<Ruling>ruling).name: (<Ruling>ruling).hits for ruling, _ in self.rules.rules}

    # --- groups -----------------------------------------------------------------------------------

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

    cdef inline int max_rows(self, Group group) noexcept:
        return min(self.max_batch_size, group.max_rows) if group.max_rows else self.max_batch_size

    cdef inline Py_ssize_t max_bytes(self, Group group) noexcept:
        cdef Py_ssize_t limit = min(self.max_batch_bytes, MAX_STATEMENT)
        return min(limit, group.facts.byte_limit) if group.facts.byte_limit else limit

    cdef bint fits(self, Group group, int rows, Py_ssize_t size, Py_ssize_t text_bytes) noexcept:
        """The one bound of batches: rows (and so parameters), bytes with the text around them, the server's limit.

        Asked of writes alone, before they are held, and of a group with them.
        """
        return rows <= self.max_rows(group) and size + text_bytes + BATCH_TEXT <= self.max_bytes(group)

    cdef inline bint has_room(self, Group group, int rows, Py_ssize_t size, Py_ssize_t text_bytes) noexcept:
        return self.fits(group, group.rows + rows, group.bytes + size, max(group.text_bytes, text_bytes))

    # --- gathering: what is filed below ``parse`` -----------------------------------------------------

    cdef int join(self, Held held, Group group) except -1:
        """Writes that a session has completed are filed."""
        held.counted = size_in(group, held.tuple_bytes, held.data.size())
        if group.members and not self.has_room(group, held.rows, held.counted, held.text_bytes):
            if group.facts.probing:
                return self.go_alone(held, R_TABLE)
            self.make_way(group, held.rows)
        if not group.members:
            group.opened = self.now
            group.cls.gathering.add(group)
        group.members.append(held)
        held.place = HP_GATHERED
        held.where = group
        group.count(1, held.rows, held.counted, held.text_bytes)
        self.gathered += held.nwrites
        return self.joined(held, group)

    cdef int make_way(self, Group group, int rows) except -1:
        """A group that has no room for so many rows more departs, unless it waits for the catalogue."""
        if group.facts.probing:
            return 0
        return self.close(group, FL_FULL if group.rows + rows > self.max_rows(group) else FL_BYTES)

    cdef int extended(self, Held held, int writes, int rows, Py_ssize_t size) except -1:
        """A gathered session has added ``writes`` to its own, for which there was room."""
        cdef Group group = <Group>held.where
        held.counted += size
        group.count(1, rows, size, held.text_bytes)
        self.gathered += writes
        return self.joined(held, group)

    cdef int joined(self, Held held, Group group) except -1:
        cdef double limit = self.max_wait_ms * 0.001
        cdef double deadline
        cdef SessionClass cls = group.cls
        if group.facts.wait_limit > 0 and group.facts.wait_limit < limit:
            limit = group.facts.wait_limit
        if held.wait == WAIT_AUTO:
            group.has_auto = True
            deadline = self.now + limit
        else:
            deadline = self.now + min(held.wait * 0.001, limit)
        cls.awaited.arrives((<Member>held.owner).coming, self.now, deadline - self.now)
        if group.rows >= self.max_rows(group) and not group.facts.probing:
            return self.close(group, FL_FULL)
        if group.facts.probing:
            if group not in group.facts.waiting:
                group.facts.waiting.append(group)
        elif group.has_auto and group.inflight == 0:
            self.ripen(group)
        self.look_at_class(cls)
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

    cdef inline bint awaits_nobody(self, SessionClass cls) except -1:
        """Whether writes that are gathered can gain nothing by waiting longer."""
        return cls.awaited.nobody(cls.members, self.now)

    cdef inline int look_at_class(self, SessionClass cls) except -1:
        """Something has happened after which its writes may have nobody to wait for."""
        return self.ripen_class(cls) if cls.gathering and self.awaits_nobody(cls) else 0

    cdef int ripen_class(self, SessionClass cls) except -1:
        for group in cls.gathering:
            if not (<Group>group).facts.probing:
                self.ripen(<Group>group)
        return 0

    cdef inline int ungather(self, Held held, Group group) except -1:
        """Writes are gathered no longer; the group has given them up, or will."""
        self.gathered -= held.nwrites
        return group.cls.awaited.departs((<Member>held.owner).coming)

    cdef inline int expect(self, Member member) except -1:
        """A write of the session's has left, or is answered: when will the next come?"""
        return member.cls.awaited.expect(member.coming) if member.cls is not None else 0

    cdef int schedule(self, Group group) except -1:
        """An entry in the heap for the group's deadline; any other entry of the group's is void from now on."""
        group.scheduled = group.deadline
        self.heap_serial += 1
        heapq.heappush(self.heap, (group.deadline, self.heap_serial, group))
        return 0

    cdef int leave(self, Held held) except -1:
        """A gathered write is taken back: it has not been sent."""
        if held is not None and held.place == HP_GATHERED:
            (<Group>held.where).remove(held)
            self.ungather(held, <Group>held.where)
            self.expect(<Member>held.owner)
            held.place = HP_NOWHERE
            held.where = None
        return 0

    cdef int class_left(self, Member member) except -1:
        """A session is not of its class any more; where it was the last to be awaited nobody waits longer."""
        cdef SessionClass cls = member.cls
        cdef Group group
        if cls is None:
            return 0
        member.cls = None
        cls.awaited.forget(member.coming)
        self.classes.leave(cls)
        for item in cls.groups.values():
            group = <Group>item
            if group.last_leader is member:
                group.last_leader = None
        return self.look_at_class(cls)

    cdef inline int begun(self, Group group) except -1:
        """A batch of this group is under way, or a write that goes alone."""
        group.inflight += 1
        group.cls.awaited.under_way += 1
        return 0

    cdef int ended(self, Group group) except -1:
        """It has ended: writes that only waited for that leave now."""
        cdef SessionClass cls = group.cls
        group.inflight -= 1
        cls.awaited.under_way -= 1
        if group.inflight == 0 and group.has_auto and group.members:
            self.ripen(group)
        return self.look_at_class(cls)

    cdef int close(self, Group group, int reason) except -1:
        """What is gathered is to leave; what comes from now on is the next to gather."""
        cdef double delay = self.now - group.opened
        cdef Py_ssize_t size = group.bytes + group.text_bytes
        cdef Held held
        cdef Batch batch
        cdef list members
        if not group.members:
            return 0
        members = group.take_members()
        for item in members:
            self.ungather(<Held>item, group)
        if group.facts.probing:
            return self.disband(members, R_TABLE)
        self.stats.flush[reason] += 1
        self.stats.current_delay_ms = delay * 1000
        batch = Batch([Unit(group, members, reason, group.opened, size)])
        for item in members:
            held = <Held>item
            held.place = HP_DEPARTED
            held.where = batch
        self.departures.append(batch)
        return 0

    cdef inline bint mixes(self, Group group, Member member) except -1:
        """Whether writes that the group has gathered, the member's among them, may leave in one batch with others'."""
        cdef double limit = group.facts.wait_limit
        return member.server is not None and member.server.mixes(group) and (
            limit == 0 or limit >= MIXED_MS * 0.001) and (
            not group.cls.apart or self.now >= <double>group.cls.apart.get(group.shape.table, 0.0))

    cdef int keep_apart(self, Group group, double seconds) except -1:
        """Its table was slow, or locked, and others have waited for that: it leaves by itself for a while."""
        cdef dict apart = group.cls.apart
        if len(apart) >= MAX_GROUPS_PER_CLASS:
            apart.clear()
        apart[group.shape.table] = max(self.now + seconds, <double>apart.get(group.shape.table, 0.0))
        return 0

    cdef int take_along(self, Group group, double waited) except -1:
        """The group leaves, its writes having waited so long: with it those who would before it could leave again."""
        cdef Group other
        for item in list(group.cls.gathering):
            other = <Group>item
            if (other.deadline <= self.now + waited and other.shape.extended == group.shape.extended
                    and not other.facts.probing and self.mixes(other, <Member>(<Held>other.members[0]).owner)):
                self.close(other, FL_TOGETHER)
        return 0

    cdef int disband(self, list members, int reason) except -1:
        """Writes that were gathered go alone."""
        for item in members:
            self.go_alone(<Held>item, reason)
        return 0

    cdef int go_alone(self, Held held, int reason) except -1:
        held.place = HP_ALONE
        held.where = None
        self.alone.append((held, reason))
        return 0

    # --- time -------------------------------------------------------------------------------------

    def next_deadline(self):
        """When ``tick`` has something to do: seconds of the monotonic clock, or None."""
        cdef Group group
        if self.later:
            return 0.0
        while self.heap:
            moment, _, group = self.heap[0]
            if moment == group.scheduled:
                if group.deadline < NEVER:
                    return moment
                group.scheduled = NEVER
            heapq.heappop(self.heap)
        return None

    def tick(self, double now):
        """Sends what is due at ``now``, and goes on with what the last turn has left; a new turn begins."""
        cdef Group group
        cdef list later = self.later
        self.now = now
        self.began = 0
        if later:
            self.later = []
            self.began = monotonic()
            self.resumed += later
        while self.heap and self.heap[0][0] <= now:
            moment, _, group = heapq.heappop(self.heap)
            if moment != group.scheduled:
                continue
            group.scheduled = NEVER
            try:
                if group.deadline <= now:
                    self.expire(group)
                    self.look_at_class(group.cls)
                elif group.deadline < NEVER:
                    self.schedule(group)
            except Exception:
                self.failed("tick", None)
        self.settle()
        self.began = 0

    cdef int expire(self, Group group) except -1:
        """A write of the group's has waited as long as it may."""
        cdef double waited = self.now - group.opened
        cdef bint mixes
        if group.facts.probing:
            return self.close(group, FL_DEADLINE)
        group.cls.awaited.in_vain(self.now, waited)
        mixes = bool(group.members) and self.mixes(group, <Member>(<Held>group.members[0]).owner)
        self.close(group, FL_DEADLINE)
        return self.take_along(group, waited) if mixes else 0

    def drain(self):
        """Sends everything gathered; from here on writes go alone."""
        self.draining = True
        for _, _, group in list(self.heap):
            self.close(group, FL_DRAIN)
        self.settle()
