# Departing: the one place that sends what was gathered, as a batch on the connection of one of its members, or alone.

cdef double REST_SECONDS = 20.0     # a third of the shortest idle cut-off that networks are known for


def unit_order(Unit unit):
    """What is merged first, so that locks of rows that many want are held shortest; else always the same order."""
    return not unit.group.merges(), unit.group.shape.number


cdef class Departing(Asking):
    """The engine, as far as it sends. It knows no protocol: server connections merge, members send what they hold."""
    cdef public double rest_seconds     # unused for so long, a server connection leads its session's next batch

    def __cinit__(self, *args, **kwargs):
        self.rest_seconds = REST_SECONDS

    cdef int look_at_ripe(self) except -1:
        cdef list todo = self.ripe
        cdef Group group
        self.ripe = []
        for item in todo:
            group = <Group>item
            group.ripe = False
            if not group.members:
                continue
            if group.facts.probing:
                if group not in group.facts.waiting:
                    group.facts.waiting.append(group)
                continue
            if group.has_auto and group.inflight == 0:
                self.close(group, FL_IDLE)
            elif self.awaits_nobody(group.cls):
                if not group.cls.family.asking:
                    self.close(group, FL_NOBODY_LEFT)
                elif group not in group.cls.family.lingering:
                    group.cls.family.lingering.append(group)
        return 0

    cdef int send_departures(self) except -1:
        cdef list todo = self.departures
        self.departures = []
        if len(todo) > 1:
            todo = self.joined_up(todo)
        for item in todo:
            try:
                self.depart(<Batch>item)
            except Exception:
                self.failed("depart", None)
                self.disband([held for held in (<Batch>item).members if (<Held>held).where is item], R_RETRY)
        return 0

    cdef list joined_up(self, list batches):
        """Batches of one class that leave in the same moment are one, as far as its bounds allow.

        Those that were tried before are not: what made them fail is being looked for.
        """
        cdef dict open_for = {}         # (class, extended) -> the batch that others join
        cdef list result = []
        cdef Batch batch, into
        cdef Unit unit
        cdef Py_ssize_t limit = min(self.max_batch_bytes, MAX_STATEMENT) - BATCH_TEXT
        for item in batches:
            batch = <Batch>item
            unit = <Unit>batch.units[0]
            if batch.attempt or batch.losses or not self.mixes(unit.group, <Member>(<Held>unit.members[0]).owner):
                result.append(batch)
                continue
            key = (unit.group.cls, unit.group.shape.extended)
            into = open_for.get(key)
            if into is None or into.rows + batch.rows > self.max_batch_size or into.size + batch.size > limit:
                open_for[key] = batch
                result.append(batch)
                continue
            into.units += batch.units
            into.rows += batch.rows
            into.size += batch.size
        return self.worth_it(result)

    cdef list worth_it(self, list batches):
        """Batches as they are sent: of several groups where that gains anything."""
        cdef list result = []
        cdef Batch batch
        cdef Unit unit
        for item in batches:
            batch = <Batch>item
            if len(batch.units) == 1 or batch.attempt or batch.losses:
                result.append(batch)
                continue
            unit = <Unit>batch.units[0]
            batch.units.sort(key=unit_order)
            batch.count()
            parts = [batch]
            if not (<Member>(<Held>unit.members[0]).owner).server.gains(batch.nwrites, len(batch.units)):
                parts = [Batch([one]) for one in batch.units]
            for part in parts:
                for held in (<Batch>part).members:
                    (<Held>held).where = part
            result += parts
        return result

    cdef int depart(self, Batch batch) except -1:
        """Sends a batch on a member's connection: the one place that decides on which.

        It is the one that led last, whose server process is warm, unless another has been unused for too long: a
        connection whose session writes must not be cut off as idle. Where several have been the longest leads.
        """
        cdef Held held
        cdef Member member
        cdef Member leader = None
        cdef Unit unit
        cdef list units = []
        cdef list members
        cdef set ending = None          # writes whose own connection cannot wait for another batch
        cdef double unused
        cdef double longest = 1
        cdef bint rotates = False
        for one in batch.units:
            unit = <Unit>one
            members = []
            for item in unit.members:
                held = <Held>item
                member = <Member>held.owner
                if not member.usable():
                    if not member.closing:
                        member.lost(False)
                    continue
                members.append(held)
                self.expect(member)
                if not member.server.may_lead():
                    continue
                unused = member.unused(self.now, self.rest_seconds)
                if unused >= longest:
                    leader = member
                    longest = unused
                    rotates = True
                elif not rotates and (leader is None or member is unit.group.last_leader):
                    leader = member
                if unused >= 1 and member.ends_unused(self.now):
                    if ending is None:
                        ending = set()
                    ending.add(held)
            self.stay(unit, members, units)
        if ending is not None:
            units = self.set_apart(units, ending, leader)
        if not units:
            return 0
        batch.units = units
        batch.count()
        if batch.nwrites == 1:
            held = <Held>batch.members[0]
            self.under_way_alone(<Member>held.owner, (<Unit>units[0]).group)
            return self.go_alone(held, R_RETRY if batch.attempt else R_SINGLE)
        if leader is None:
            self.stalled.append(batch)
            return 0
        return self.send(batch, leader)

    cdef int stay(self, Unit unit, list members, list units) except -1:
        """These members of the unit are left; with any it is one of ``units``."""
        if members:
            if len(members) < len(unit.members):
                unit.members = members
                unit.count()
            units.append(unit)
        return 0

    cdef list set_apart(self, list units, set ending, Member leader):
        """Those of ``ending`` that do not lead go alone, on their own connections; the units that stay."""
        cdef Held held
        cdef Unit unit
        cdef list staying = []
        cdef list members
        for one in units:
            unit = <Unit>one
            members = []
            for item in unit.members:
                held = <Held>item
                if held.owner is leader or held not in ending:
                    members.append(held)
                    continue
                self.under_way_alone(<Member>held.owner, unit.group)
                self.go_alone(held, R_SESSION_STATE)
            self.stay(unit, members, staying)
        return staying

    cdef int send(self, Batch batch, Member leader) except -1:
        cdef ServerConn server = leader.server
        cdef Py_ssize_t sent = server.out.size()
        cdef int expected = server.queue.size
        cdef Unit unit
        cdef int qtype
        batch.leader = leader
        batch.server = server
        batch.sent = self.now
        for item in batch.units:
            unit = <Unit>item
            unit.group.last_leader = leader
            unit.method = M_MULTI_ROW if unit.group.merges() else M_PIPELINE
        server.arrange(batch)
        server.batch = batch
        try:
            server.begin_batch(batch)
        except Exception:
            # nothing of it has reached the socket: it is taken back, and everybody goes alone
            server.out.truncate(sent)
            server.queue.take_back(expected)
            server.batch = None
            self.failed("begin_batch", None)
            return self.disband(batch.members, R_RETRY)
        self.batches_running += 1
        self.stats.database_queries += 1
        for item in batch.units:
            unit = <Unit>item
            qtype = (<Held>unit.members[0]).qtype
            self.begun(unit.group)
            if not batch.attempt:
                observe_seconds(&self.stats.batch_delay[qtype], self.now - unit.opened)
            self.stats.backend_writes[qtype] += 1
        return 0

    cdef int under_way_alone(self, Member member, Group group) except -1:
        if member.alone_in is None:
            member.alone_in = group
            self.begun(group)
        return 0

    cdef int alone_done(self, Member member) except -1:
        cdef Group group = member.alone_in
        if group is None:
            return 0
        member.alone_in = None
        member.coming.answered = self.now
        self.expect(member)
        return self.ended(group)

    cdef int send_alone(self) except -1:
        cdef list todo = self.alone
        cdef Held held
        cdef Member member
        self.alone = []
        for item, reason in todo:
            held = <Held>item
            member = <Member>held.owner
            try:
                if member.usable():
                    member.send_held(reason)
                elif not member.closing:
                    member.lost(False)
            except Exception:
                self.failed("send_held", member)
        return 0
