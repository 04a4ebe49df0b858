# A session whose writes are watched: each is counted with its shape, and now and then one is looked into.

cdef enum:
    MAX_APPLICATION = 64            # bytes of an application's name that are kept


cdef class Watched(Ruled):
    """A session, as far as its writes are counted by shape. Nothing here is ever waited for."""
    cdef bint is_idle(self) noexcept:
        """Nothing under way and no transaction open: it may be closed without harm."""
        return False

    # --- every write ----------------------------------------------------------------------------------

    cdef int watch_text(self, uint64_t number, const char* sql, Scan* s, int action) except -1:
        """A write as text was relayed or is held, as ``action`` says; ``number``: its number, 0: it is unclear."""
        cdef int32_t slot
        if not number:
            return self.watch_unread(1)
        slot = self.watch(number, action, 1)
        if slot == NO_SLOT:
            return 0
        if self.engine.watch.texts[slot] is None:
            self.engine.watch.describe(self.writer, slot, <const uint8_t*>sql, s, self.source)
        if self.engine.watch.seen[slot].wanted:
            self.look_into(slot, sql, s)
        return 0

    cdef int watch_prepared(self, uint64_t number, bytes text, int action, int count) except -1:
        """``count`` executions of a prepared write; ``number`` its number, 0 or no ``text``: it was too long."""
        cdef Scan s
        cdef int32_t slot
        if text is None or not number:
            return self.watch_unread(count)
        slot = self.watch(number, action, count)
        if slot == NO_SLOT or (self.engine.watch.texts[slot] is not None and not self.engine.watch.seen[slot].wanted):
            return 0
        scan_sql(<const uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), self.dialect, self.escapes(), &s)
        if self.engine.watch.texts[slot] is None:
            self.engine.watch.describe(
                self.writer, slot, <const uint8_t*>PyBytes_AS_STRING(text), &s, self.source)
        if self.engine.watch.seen[slot].wanted:
            self.look_into_prepared(slot, text, &s)
        return 0

    cdef inline int watch_unread(self, int count) except -1:
        if self.engine.watch.size:
            self.engine.watch.total += count
            self.engine.watch.unread += count
        return 0

    cdef inline int32_t watch(self, uint64_t number, int action, int count) except -2:
        """Counts ``count`` writes of one shape; where, or NO_SLOT."""
        cdef Watch watch = self.engine.watch
        cdef Writer who = self.writer
        cdef int32_t slot
        cdef int fit, k
        if not watch.size:
            return NO_SLOT
        watch.total += count
        if who.login is not self.history.login_key:
            watch.joins(who, self.history.login_key, self.backend, self.user, self.database)
        slot = watch.slot_of(who, number, self.dialect)
        if slot == NO_SLOT:
            return NO_SLOT
        fit = FIT_YES
        if self.in_transaction():
            fit = FIT_TRANSACTION
        elif self.history.unsafe_charset or not self.history.comparable():
            fit = FIT_SESSION
        for k in range(count):
            watch.count(who, slot, fit, self.engine.now)
        if watch.texts[slot] is not None and self.source is not self.engine.stats.none:
            watch.note_source(slot, self.source)
        if action == A_HELD:
            self.held.slot = slot
            self.held.key = watch.seen[slot].key
        elif self.alone_for != R_NO_HINT:
            watch.went_alone(slot, watch.seen[slot].key, count, self.alone_for)
        return slot

    # --- what is found out about one -------------------------------------------------------------------

    cdef int look_into(self, int32_t slot, const char* sql, Scan* s) except -1:
        """Whether a shape may be batched, as far as is known without asking the server."""
        cdef Watch watch = self.engine.watch
        cdef Shape shape = <Shape>watch.shapes[slot]
        watch.seen[slot].wanted = False
        if shape is None:
            if s.flags & UNBATCHABLE:
                return watch.find(slot, FD_NEVER, None, None)
            shape = self.text_shape(sql, s, b"")
            if shape is None:
                # not just now, or never
                return watch.find(slot, FD_NEVER, None, None) if s.flags & F_COMPLEX else 0
            self.judge_text(slot, shape, short_literals(
                sql + s.text_start, s.text_end - s.text_start, self.dialect, s.backslash))
        return self.find_out(slot)

    cdef int look_into_prepared(self, int32_t slot, bytes text, Scan* s) except -1:
        """As ``look_into``, of a prepared statement."""
        cdef Watch watch = self.engine.watch
        cdef Shape shape = <Shape>watch.shapes[slot]
        watch.seen[slot].wanted = False
        if shape is None:
            if s.flags & UNBATCHABLE:
                return watch.find(slot, FD_NEVER, None, None)
            shape = self.engine.shapes.of_bound(
                self.dialect, text, b"", s, parameters_of(<const uint8_t*>PyBytes_AS_STRING(text), s, self.dialect),
                False)
            if shape is None:
                return 0
            self.judge_text(slot, shape, text)
        return self.find_out(slot)

    cdef int judge_text(self, int32_t slot, Shape shape, bytes sql) except -1:
        cdef Watch watch = self.engine.watch
        if shape.verdict is not None:
            return watch.find(slot, FD_TEXT, shape, None)
        why = self.engine.hooks.explain(self.dialect, sql)
        if why is NotImplemented:
            return 0
        return watch.find(slot, FD_NEVER, None, why)

    cdef inline int find_out(self, int32_t slot) except -1:
        if self.engine.watch.shapes[slot] is not None:
            return self.engine.find_out(self, slot)
        return 0

    # --- where nobody waits ------------------------------------------------------------------------------

    cdef inline bint answers_alike(self) except -1:
        """Nothing is under way, and its server takes a question of the proxy's for what it is."""
        return self.is_idle() and self.history.comparable() and self.comparable()

    cdef bint may_be_used(self, int32_t slot) except -1:
        """An idle client's connection may be, where nothing is left behind that a session could see."""
        return (self.dialect == PG and not self.closing and not self.has_input() and self.answers_alike()
                and self.engine.watch.crowds[slot] is self.writer.crowd)

    cdef bint asks_on_leaving(self) except -1:
        """Its client goes: the catalogue is asked about something that it wrote, if there is something to be asked."""
        cdef Watch watch = self.engine.watch
        cdef int32_t slot
        cdef int k
        if self.server is None or not self.answers_alike():
            return False
        for k in range(MAX_RECENT):
            slot = self.writer.recent[k]
            if self.engine.wants_to_enquire(self, slot) and watch.crowds[slot] is self.writer.crowd:
                self.engine.enquire(self, slot)
                return True
        return False

    cdef bint may_ask_on_leaving(self) except -1:
        """Whether ``asks_on_leaving`` would: then its server is not told yet that the client has taken its leave."""
        cdef int k
        if self.answers_alike():
            for k in range(MAX_RECENT):
                if self.engine.wants_to_enquire(self, self.writer.recent[k]):
                    return True
        return False
