# Departing: the one place that sends what was gathered, as a batch on the connection of one of its members, or alone.

cdef double REST_SECONDS = 20.0     # a third of the shortest idle cut-off that networks are known for


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
        for item in todo:
            self.depart(<Batch>item)
        return 0

    cdef int depart(self, Batch batch) except -1:
        """Sends a batch on a member's connection: the one place that decides on which.

        It is the one that led last, whose server process is warm, unless another has been unused for too long: a
        connection whose session writes must not be cut off as idle. Where several have been the longest leads.
        """
        cdef Held held
        cdef Member member
        cdef Member leader = None
        cdef Group group = batch.group
        cdef list members = []
        cdef set ending = None          # writes whose own connection cannot wait for another batch
        cdef double unused
        cdef double longest = 1
        cdef bint rotates = False
        batch.rows = batch.nwrites = 0
        for item in batch.members:
            held = <Held>item
            member = <Member>held.owner
            if not member.usable():
                if not member.closing:
                    member.lost(False)
                continue
            members.append(held)
            self.expect(member)
            batch.rows += held.rows
            batch.nwrites += held.nwrites
            if not member.server.may_lead():
                continue
            unused = member.unused(self.now, self.rest_seconds)
            if unused >= longest:
                leader = member
                longest = unused
                rotates = True
            elif not rotates and (leader is None or member is group.last_leader):
                leader = member
            if unused >= 1 and member.ends_unused(self.now):
                if ending is None:
                    ending = set()
                ending.add(held)
        batch.members = members
        if ending is not None:
            members = self.set_apart(batch, ending, leader)
        if not members:
            return 0
        if batch.nwrites == 1:
            held = <Held>members[0]
            self.under_way_alone(<Member>held.owner, group)
            return self.go_alone(held, R_RETRY if batch.attempt else R_SINGLE)
        if leader is None:
            self.stalled.append(batch)
            return 0
        return self.send(batch, leader)

    cdef list set_apart(self, Batch batch, set ending, Member leader):
        """Those of ``ending`` that do not lead go alone, on their own connections; the members that stay."""
        cdef Held held
        cdef list members = []
        for item in batch.members:
            held = <Held>item
            if held.owner is leader or held not in ending:
                members.append(held)
                continue
            batch.rows -= held.rows
            batch.nwrites -= held.nwrites
            self.under_way_alone(<Member>held.owner, batch.group)
            self.go_alone(held, R_SESSION_STATE)
        batch.members = members
        return members

    cdef int send(self, Batch batch, Member leader) except -1:
        cdef Group group = batch.group
        cdef ServerConn server = leader.server
        cdef Py_ssize_t sent = server.out.size()
        cdef int expected = server.queue.size
        cdef int qtype = leader.held.qtype
        group.last_leader = leader
        batch.leader = leader
        batch.server = server
        batch.method = M_MULTI_ROW if group.merges() else M_PIPELINE
        batch.sent = self.now
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
        self.begun(group)
        self.batches_running += 1
        if not batch.attempt:
            observe_seconds(&self.stats.batch_delay[qtype], self.now - batch.opened)
        self.stats.database_queries += 1
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
