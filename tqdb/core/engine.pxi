# The engine: what is told of batches and facts, and the safe point at which everything is done.

cdef enum:
    MAX_TOGETHER = 3                # failures of a pipeline after which its members are halved
    MAX_STRIKES = 3                 # surprises in a row after which a group pauses until facts are asked again
    MAX_LOSSES = 1                  # connections lost under writes after which they go alone
    MAX_IN_VAIN = 6                 # … in a row: a statement for many keys is tried again after 2 ** 6 - 1 batches

cdef double SLOW_BATCH_SECONDS = 1.0     # a batch that takes longer is worth a line in the log
cdef double MIXED_SECONDS = 0.2          # one of several groups' is slow that works longer
cdef double SUM_SECONDS = 1.0            # … for so long they are apart if it is the sum that took so long


cdef class Engine(Departing):
    """Everything that sessions share. ``hooks`` is the cold side (see ``tqdb.policy`` and ``tqdb.server``):

    ``analyze``, ``analyze_statement``, ``pieces``: see ``Shapes``;
    ``session_wait(dialect, sql)``, ``startup_wait(params)`` -> what a session says of ``max_wait_ms``;
    ``killed_query(sql)`` -> the connection whose statement a KILL QUERY names, or None;
    ``row_count_sql(sql, rows)`` -> the statement with ROW_COUNT() replaced, or None;
    ``probe_sql(dialect, verdict)`` -> the first question for the catalogue;
    ``judge(dialect, verdict, rows, state)`` -> ``(ok, reason_name, multi_row, id_step, byte_limit, wait_limit,
    settings, schema, why, key)``, or the next question and what is to be given with its rows, ``(sql, state)``;
    ``state`` is None with the first; NotImplemented: not just now, as if the catalogue had not answered;
    ``session_sql(dialect, settings, version)`` -> the question what a session is like, ``(sql, state)``;
    ``judge_session(dialect, rows, state)`` -> ``(refused, digest, reading, idle_limit, schemas)``, or ``(sql, state)``;
    ``candidates(session)``, ``first_rule(numbers, shape, schemas)``: see ``Rulebook``;
    ``explain(dialect, sql)`` -> why a write may not be batched, in words; NotImplemented: not just now;
    ``status_sql(dialect, sql, session)`` -> the statement that answers a status query;
    ``status_variables(sql, session)`` -> for one that MariaDB prepares: what sets its figures, and what shows them;
    ``connect(session)``, ``cancel(session, packet, key)``, ``session_closed(session)``, ``server_closed(server)``;
    ``server_says(session, what)``: its server has told that it is ``primary``, ``replica`` or ``not_ready``; or a write
    was refused as ``read_only``, which may be the transaction's doing;
    ``refused(session, kind, message)``: it is ended with an error of the proxy's own;
    ``slow_batch(leader, writes, seconds)``.
    """

    # --- the safe point ---------------------------------------------------------------------------

    cpdef settle(self):
        """Tells outcomes, resumes sessions, and sends what lies ready, until nothing is left."""
        if self.settling:
            return
        self.settling = True
        try:
            if self.stalled:
                self.departures += self.stalled
                self.stalled = []
            while True:
                if self.outcomes:
                    self.tell_outcomes()
                elif self.known:
                    self.tell_facts()
                elif self.resumed:
                    self.resume_all()
                elif self.ripe:
                    self.look_at_ripe()
                elif self.departures:
                    self.send_departures()
                elif self.alone:
                    self.send_alone()
                elif self.dirty:
                    self.flush_all()
                else:
                    return
        finally:
            self.settling = False

    cdef int resume_all(self) except -1:
        cdef list todo = self.resumed
        cdef Endpoint ep
        self.resumed = []
        for item in todo:
            ep = <Endpoint>item
            if self.began > 0 and self.spent(monotonic()):
                self.later.append(ep)
                continue
            ep.resuming = ep.waiting = False
            try:
                ep.pump()
                ep.mark()
            except Exception:
                self.failed("session", ep)
        return 0

    cdef int flush_all(self) except -1:
        cdef list todo = self.dirty
        cdef Endpoint ep
        self.dirty = []
        for item in todo:
            ep = <Endpoint>item
            ep.dirty = False
            if ep.closed or ep.stream is None:
                continue
            try:
                ep.stream.flush()
                if not ep.closed:
                    ep.stream.update_interest()
            except Exception:
                self.failed("connection", ep)
        return 0

    # --- outcomes ---------------------------------------------------------------------------------

    cdef int over(self, Batch batch) except -1:
        """The server has answered the whole batch: all of it was kept, or (``batch.failed``) nothing."""
        self.outcomes.append(batch)
        return 0

    cdef int cut(self, Batch batch) except -1:
        """Its connection has ended."""
        if not batch.lost and batch.phase != B_OVER:
            batch.lost = True
            batch.known_when_lost = batch.known()
            self.outcomes.append(batch)
        return 0

    cdef int tell_outcomes(self) except -1:
        cdef list todo = self.outcomes
        cdef list units
        cdef Batch batch
        self.outcomes = []
        for item in todo:
            batch = <Batch>item
            self.batches_running -= 1
            (<ServerConn>batch.server).batch = None
            units = batch.units
            try:
                if batch.lost:
                    self.tell_lost(batch)
                elif batch.failed:
                    self.retry(batch)
                else:
                    self.tell_kept(batch)
            except Exception:
                self.failed("outcome", None)
                for member in batch.members:
                    if (<Held>member).where is batch:
                        self.end_member(<Member>(<Held>member).owner, not batch.failed)
            self.server_free(<ServerConn>batch.server)
            for unit in units:
                self.ended((<Unit>unit).group)
        return 0

    cdef int end_member(self, Member member, bint unknown) except -1:
        try:
            if not member.closing:
                member.lost(unknown)
        except Exception:
            self.failed("outcome", member)
        return 0

    cdef int server_free(self, ServerConn server) except -1:
        """A connection whose client went while it led is of no more use."""
        if server.session.closing:
            server.disconnect(C_CLIENT_GONE)
        else:
            server.mark()
        return 0

    cdef int tell_kept(self, Batch batch) except -1:
        cdef Stats stats = self.stats
        cdef Held held
        cdef Member member
        cdef Unit unit
        cdef int qtype
        cdef double seconds = self.now - batch.sent
        stats.batches += 1
        (<ServerConn>batch.server).split(batch)
        for one in batch.units:
            unit = <Unit>one
            qtype = (<Held>unit.members[0]).qtype
            unit.group.strikes = 0
            if unit.method == M_KEYS:
                unit.group.in_vain = 0
            stats.methods[unit.method] += 1
            observe_size(&stats.batch_size[qtype], unit.nwrites)
            observe_seconds(&stats.batch_latency[qtype], seconds)
            for item in unit.members:
                held = <Held>item
                member = <Member>held.owner
                stats.count_batched(qtype, held.nwrites, held.source)
                self.watch.went_together(held.slot, held.key, held.nwrites)
                member.last_batch_size = batch.nwrites
                member.last_reason = FLUSH_REASONS[unit.flush_reason]
                member.coming.answered = self.now
                self.expect(member)
                member.answered(batch)
        if len(batch.units) > 1 and batch.plain is None and batch.worked - batch.sent > MIXED_SECONDS:
            # none of them by itself: see ``MIXED_MS``
            for one in batch.units:
                self.keep_apart((<Unit>one).group, SUM_SECONDS)
        if seconds > SLOW_BATCH_SECONDS:
            self.hooks.slow_batch(batch.leader, batch.nwrites, seconds)
        return 0

    cdef int tell_lost(self, Batch batch) except -1:
        """Nothing is kept: the others are tried again. Or it is unknown: that is what they are told, and no more.

        What has cost two connections may be what ends them: it then goes alone, on its owner's.
        """
        cdef Held held
        cdef Member member
        cdef Unit unit
        cdef list units = []
        cdef list usable
        batch.losses += 1
        if batch.plain is not None:
            batch.units = [batch.plain]
            self.note_in_vain(batch.plain.group, RC_CONNECTION)
        for one in batch.units:
            unit = <Unit>one
            usable = []
            for item in unit.members:
                held = <Held>item
                member = <Member>held.owner
                if batch.known_when_lost == K_UNKNOWN:
                    # each was handed to the database once
                    self.stats.count_batched(held.qtype, held.nwrites, held.source)
                    self.watch.went_together(held.slot, held.key, held.nwrites)
                    self.end_member(member, True)
                elif not member.usable():
                    self.end_member(member, False)
                elif batch.losses <= MAX_LOSSES:
                    usable.append(held)
                else:
                    self.part([unit.of([held])], batch)
            if usable:
                units.append(unit.of(usable))
        if batch.known_when_lost != K_UNKNOWN:
            self.stats.retries[<int>RC_CONNECTION] += 1
        return self.part(units, batch)

    cdef int retry(self, Batch batch) except -1:
        """Nothing was kept. What made it fail is parted from the rest: a statement first, then a write, then by halves.

        Where it is not known the statements are tried one by one.
        """
        cdef Held held
        cdef Member member
        cdef Unit unit
        cdef list usable
        cdef list rest = []                 # units that may go together again
        cdef int failures = sum([(<Unit>unit).failed for unit in batch.units])
        cdef bint mixed = len(batch.units) > 1
        cdef bint slow = self.now - batch.sent > MIXED_SECONDS
        cdef bint stalls
        self.stats.retries[batch.cause] += 1
        (<ServerConn>batch.server).rolled_back(batch)
        if batch.plain is not None:
            return self.retry_plainly(batch)
        for one in batch.units:
            unit = <Unit>one
            if unit.failed or not mixed:
                self.note_failure(unit, batch)
            stalls = unit.failed and mixed and (slow or batch.cause == RC_TIMEOUT)
            if stalls:
                self.keep_apart(unit.group, FACTS_SECONDS)
            usable = []
            for item in unit.members:
                held = <Held>item
                member = <Member>held.owner
                if not member.usable():
                    self.end_member(member, False)
                elif unit.table_error or held in batch.bad:
                    self.part([unit.of([held])], batch)
                else:
                    usable.append(held)
            if not usable:
                continue
            if stalls or (mixed and failures in (0, len(batch.units))):
                self.part([unit.of(usable)], batch)     # the others wait for it no more, or any may be the one
            elif (mixed and not unit.failed) or len(usable) < len(unit.members) and batch.attempt < MAX_TOGETHER:
                rest.append(unit.of(usable))
            else:
                self.halve(unit, usable, batch)
        if batch.attempt < MAX_TOGETHER:
            return self.part(rest, batch)
        for one in rest:
            self.part([one], batch)
        return 0

    cdef int retry_plainly(self, Batch batch) except -1:
        """One statement for many keys was not what its writes are alone: they go one by one.

        So do the group's next, for a while.
        """
        cdef Unit unit = batch.plain
        cdef list usable = []
        self.note_in_vain(unit.group, batch.cause)
        for item in unit.members:
            member = <Member>(<Held>item).owner
            if (<Member>member).usable():
                usable.append(item)
            else:
                self.end_member(<Member>member, False)
        return self.part([unit.of(usable)] if usable else [], batch)

    cdef int note_in_vain(self, Group group, int cause) except -1:
        """Spares the group's next batches: the more, the more often in a row, and most where a lock was waited for."""
        group.in_vain = MAX_IN_VAIN if cause == RC_TIMEOUT else min(group.in_vain + 1, <int>MAX_IN_VAIN)
        group.spared = (1 << group.in_vain) - 1
        return 0

    cdef int note_failure(self, Unit unit, Batch batch) except -1:
        cdef Group group = unit.group
        if unit.table_error:
            group.facts.state = T_UNKNOWN
        if batch.cause == RC_WARNING or batch.cause == RC_MISMATCH:
            group.strikes += 1
            if group.strikes >= MAX_STRIKES:
                group.paused = self.now + FACTS_SECONDS
                group.strikes = 0
        return 0

    cdef int halve(self, Unit unit, list members, Batch of) except -1:
        cdef Py_ssize_t half = (len(members) + 1) // 2
        self.part([unit.of(members[:half])], of)
        return self.part([unit.of(members[half:])], of) if half < len(members) else 0

    cdef int part(self, list units, Batch of) except -1:
        """Units, or none, with members of a batch that was tried, are to be tried again."""
        cdef Batch batch
        cdef Held held
        if not units:
            return 0
        batch = Batch(units)
        if len(batch.members) == 1:
            held = <Held>batch.members[0]
            self.under_way_alone(<Member>held.owner, (<Unit>units[0]).group)
            return self.go_alone(held, R_RETRY)
        batch.attempt = of.attempt + 1
        batch.losses = of.losses
        for item in batch.members:
            (<Held>item).where = batch
        self.departures.append(batch)
        return 0
