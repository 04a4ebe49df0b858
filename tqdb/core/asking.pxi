# Asking: what the catalogue says of tables, and what a session's server says of the session, while writes wait for it.

cdef enum:
    MAX_SETTING_NAMES = 64          # custom settings by which sessions are compared
    MAX_ROUNDS = 8                  # questions about one table

cdef double ENQUIRY_SECONDS = 0.5    # between questions for advice
cdef double ENQUIRY_AGAIN_SECONDS = 60.0     # after one that was answered with an error
cdef double FAREWELL_SECONDS = 1.0   # that one may take on a connection whose client has gone
cdef double FACTS_SECONDS = 60.0
cdef double FACTS_RETRY_SECONDS = 2.0    # after the catalogue has answered with an error, or not to the end
cdef double ASKING_SHARE = 0.25          # of a slow answer in what answers are thought to take


cdef class Enquiry:
    """The catalogue is asked about a table whose writes are watched, and nobody waits for the answer."""
    cdef Member member              # on whose connection: its client has gone, or is idle
    cdef int32_t slot               # of the shape …
    cdef uint64_t key
    cdef Shape shape
    cdef object so_far              # what ``judge`` makes of the answers before
    cdef int rounds
    cdef uint64_t epoch             # the engine's DDL epoch when it began
    cdef double began


cdef class Asking(Gathering):
    """The engine, as far as it asks questions. See ``Engine``."""
    cdef Enquiry enquiry            # under way, one at a time
    cdef double enquired            # when the last one began
    cdef Member candidate           # whose connection may be used for one as soon as it is idle …
    cdef int32_t candidate_slot     # … about this shape

    # --- what is found out for advice -----------------------------------------------------------------

    cdef int find_out(self, Member member, int32_t slot) except -1:
        """What the catalogue says of a watched shape's table is already known, or is to be asked for."""
        cdef Watch watch = self.watch
        cdef Shape shape = <Shape>watch.shapes[slot]
        cdef TableFacts facts = None
        if member.cls is not None:
            facts = member.cls.tables.get(shape.verdict.facts_key)
        if facts is not None and facts.state != T_UNKNOWN and not facts.probing:
            return watch.find_table(
                slot, facts.state == T_OPEN, facts.multi_row, facts.why, facts.epoch, self.now)
        if self.candidate is None:
            self.candidate = member
            self.candidate_slot = slot
        return 0

    cdef bint wants_to_enquire(self, Member member, int32_t slot) except -1:
        """Whether the catalogue is to be asked about that shape's table, and may be now on the member's connection."""
        cdef Watch watch = self.watch
        return (self.enquiry is None and not self.draining and self.now - self.enquired >= ENQUIRY_SECONDS
                and slot != NO_SLOT and slot < watch.used and watch.unsettled(slot, self.ddl_epoch, self.now)
                and watch.shapes[slot] is not None and member.server is not None and member.server.may_lead()
                and member.asked is None and member.asked_in is None)

    cdef int enquire(self, Member member, int32_t slot) except -1:
        cdef Enquiry enquiry = Enquiry.__new__(Enquiry)
        enquiry.member = member
        enquiry.slot = slot
        enquiry.key = self.watch.seen[slot].key
        enquiry.shape = <Shape>self.watch.shapes[slot]
        enquiry.epoch = self.ddl_epoch
        enquiry.began = self.enquired = self.now
        self.enquiry = enquiry
        member.server.ask(member.briefly(self.hooks.probe_sql(member.dialect, enquiry.shape.verdict)))
        return 0

    cdef int told_of_shape(self, Member member, rows) except -1:
        """The answer to a question that nobody waits for; it may lead to the next."""
        cdef Enquiry enquiry = self.enquiry
        answer = self.hooks.judge(member.dialect, enquiry.shape.verdict, rows, enquiry.so_far)
        enquiry.rounds += 1
        if answer is not NotImplemented and len(answer) == 2:
            if enquiry.rounds < MAX_ROUNDS and member.server.may_lead() and (
                    member.closing or not member.has_input()):
                question, enquiry.so_far = answer
                return member.server.ask(member.briefly(question))
        elif answer is not NotImplemented and self.watch.holds(enquiry.slot, enquiry.key) and (
                self.watch.shapes[enquiry.slot] is not None):
            # without an answer, such as while its table is locked, it is asked about again before long
            self.watch.find_table(
                enquiry.slot, answer[0], answer[2], answer[8], enquiry.epoch,
                self.now if rows is not None else self.now - LOOKED_SECONDS + ENQUIRY_AGAIN_SECONDS)
        self.enquiry = None
        return member.server.disconnect(C_CLIENT_GONE) if member.closing else 0

    def advise(self, double now):
        """Once a second: what is to be found out for advice is chosen, and asked where nobody waits for it."""
        cdef Member member = self.candidate
        cdef int32_t slot = self.candidate_slot
        self.now = now
        self.candidate = None
        if self.enquiry is not None and self.enquiry.member.closing and now - self.enquiry.began > FAREWELL_SECONDS:
            self.enquiry.member.server.disconnect(C_CLIENT_GONE)
        if member is not None and self.wants_to_enquire(member, slot) and member.may_be_used(slot):
            self.enquire(member, slot)
        self.watch.plan(self.ddl_epoch, now)
        self.settle()

    # --- what writes wait for ---------------------------------------------------------------------------

    cdef int ask(self, Member member, Group group) except -1:
        """The catalogue is asked about the group's table, on this member's connection; the group waits for it."""
        cdef TableFacts facts = group.facts
        if facts.question is None or facts.asked_epoch != self.ddl_epoch or (
                self.now - facts.began > FACTS_RETRY_SECONDS):
            facts.question = self.hooks.probe_sql(member.dialect, group.shape.verdict)
            facts.so_far = None
            facts.rounds = 0
            facts.asked_epoch = self.ddl_epoch
            facts.began = self.now
        facts.due = facts.began + group.cls.asking
        facts.probing = True
        member.asked = facts
        member.asked_for = group
        return self.send_question(member, facts)

    cdef int send_question(self, Member member, TableFacts facts) except -1:
        facts.rounds += 1
        member.server.ask(facts.question)
        facts.question = None
        return 0

    cdef int told(self, Member member, rows) except -1:
        """The answer: lists of bytes or None; None after an error. It may lead to the next question.

        That is asked at once while the member's own write waits for it, so that the connection does nothing else; by
        then it may have gone on, and who writes to the table next asks.
        """
        cdef TableFacts facts = member.asked
        cdef Group group = member.asked_for
        if self.enquiry is not None and self.enquiry.member is member:
            return self.told_of_shape(member, rows)
        if member.asked_in is not None:
            return self.told_of_member(member, rows)
        answer = self.hooks.judge(member.dialect, group.shape.verdict, rows, facts.so_far)
        if answer is NotImplemented or (len(answer) == 2 and facts.rounds >= MAX_ROUNDS):
            rows = None
            answer = self.hooks.judge(member.dialect, group.shape.verdict, None, None)
        if len(answer) == 2:
            facts.question, facts.so_far = answer
            if member.held is not None and member.held.place == HP_GATHERED and member.cls is group.cls and (
                    member.server.may_lead()):
                return self.send_question(member, facts)
            return self.asking_ended(member)
        (ok, reason, facts.multi_row, facts.id_step, facts.byte_limit, facts.wait_limit, settings, schema,
         facts.why, key) = answer
        facts.key = KEY_KINDS.index(key)
        if schema is not None:
            facts.schema = schema
        facts.state = T_OPEN if ok else T_REFUSED
        facts.reason = REASONS.index(reason)
        facts.question = facts.so_far = None
        facts.epoch = facts.asked_epoch
        facts.expires = self.now + (FACTS_SECONDS if rows is not None else FACTS_RETRY_SECONDS)
        if settings:
            self.read_settings(group, settings)
        self.took(group.cls, self.now - facts.began)
        return self.asking_ended(member)

    cdef int read_settings(self, Group group, settings) except -1:
        """What a write executes reads custom settings: its sessions must have been compared by their values.

        If they have not been, writes go alone until they are: sessions are then asked anew, and are of other classes.
        """
        names = settings.union(self.setting_names)
        if len(names) == len(self.setting_names) and group.cls.version == self.names_version:
            return 0
        group.facts.state = T_REFUSED
        group.facts.reason = R_TABLE
        if len(names) > MAX_SETTING_NAMES:
            return 0
        group.facts.expires = self.now
        if len(names) > len(self.setting_names):
            self.setting_names = tuple(sorted(names))
            self.names_version += 1
        return 0

    cdef int ask_about_itself(self, Member member, Family family) except -1:
        """A session's own server is asked what it is like; groups that it may want to join wait for it."""
        sql, member.so_far = self.hooks.session_sql(member.dialect, self.setting_names, member.version)
        member.server.ask(sql)
        member.asked_in = family
        family.asking += 1
        return 0

    cdef int told_of_member(self, Member member, rows) except -1:
        """The answer to that, or to what was asked behind it."""
        cdef tuple answer
        member.overhear(rows)
        answer = self.hooks.judge_session(member.dialect, rows, member.so_far)
        member.so_far = None
        if len(answer) == 2:
            sql, member.so_far = answer
            if not member.server.queue.size:
                return member.server.ask(sql)
            # what its client has sent behind the first question may be the half of something
            member.so_far = None
            answer = self.hooks.judge_session(member.dialect, None, None)
            rows = None
        member.told_of_itself(answer, bool(rows))
        return self.asking_ended(member)

    cdef inline void took(self, SessionClass cls, double seconds) noexcept:
        """A quick answer counts at once, a slow one in part: who goes alone too early is not batched."""
        cls.asking += (seconds - cls.asking) * (ASKING_SHARE if 0 < cls.asking < seconds else 1)

    cdef int asking_ended(self, Member member) except -1:
        """The catalogue has answered, or will not; or the session's own server has."""
        cdef TableFacts facts = member.asked
        cdef Family family = member.asked_in
        if self.enquiry is not None and self.enquiry.member is member:
            self.enquiry = None
        if family is not None:
            member.asked_in = None
            family.asking -= 1
            if not family.asking:
                for group in family.lingering:
                    self.ripen(<Group>group)
                family.lingering.clear()
        if facts is not None:
            member.asked = member.asked_for = None
            facts.probing = False
            self.known.append(facts)
        return 0

    cdef int tell_facts(self) except -1:
        """Groups that waited for the catalogue go on."""
        cdef list todo = self.known
        cdef list waiting
        cdef TableFacts facts
        cdef Group group
        self.known = []
        for item in todo:
            facts = <TableFacts>item
            waiting, facts.waiting = facts.waiting, []
            for item in waiting:
                group = <Group>item
                if facts.state == T_OPEN and not self.facts_due(facts) and not self.draining and (
                        self.now >= group.paused):
                    self.recount(group)
                    self.ripen(group)
                else:
                    for held in group.members:
                        self.ungather(<Held>held, group)
                    self.disband(group.take_members(), facts.reason if facts.state == T_REFUSED else R_TABLE)
        return 0

    cdef int recount(self, Group group) except -1:
        """What was gathered before the server's bounds were known is filed once more."""
        cdef Held held
        cdef list members
        cdef double opened = group.opened
        cdef double deadline = group.deadline
        for item in group.members:
            self.ungather(<Held>item, group)
        members = group.take_members()
        for item in members:
            held = <Held>item
            held.place = HP_NOWHERE
            held.where = None
            if self.fits(group, held.rows, size_in(group, held.tuple_bytes, held.data.size()), held.text_bytes):
                self.join(held, group)
            else:
                self.go_alone(held, R_OVERSIZE)
        if group.members:
            group.opened = opened
            if deadline < group.deadline:
                group.deadline = deadline
                self.schedule(group)
        return 0
