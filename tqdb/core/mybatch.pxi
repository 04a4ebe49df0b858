# MariaDB/MySQL: a batch on a server connection, what is sent, what is answered, and everybody's part of it.


cdef enum:
    MAX_ID_DIGITS = 20              # of an insert id, which has 64 bits
    ANSWERS_TOGETHER = 4            # that are read at once, see ``due`` …
    LONG_ANSWER = 64                # … and bytes of one above which that gains nothing

cdef object _MIXING = re.compile(rb"(?:5\.5\.5-)?1(?:0\.(?:[3-9]|\d\d)|[1-9])\D").match


cdef class MyBatchServer(MySplitServer):
    """A server connection as far as it leads batches."""
    cdef bint continued             # the next packet goes on with the one just read
    # of the batch under way
    cdef bint piped                 # its statements are sent behind one another, and not one INSERT with BEGIN
    cdef bint asking                # the answer to LAST_INSERT_ID() behind a statement is the next
    cdef int of_member              # statements of the next member answered so far
    cdef Py_ssize_t answer_bytes    # of the answer that is being read, so far
    cdef Py_ssize_t shortest        # bytes of the shortest, but for errors, since something was sent; 0: none has come

    # --- what is sent -----------------------------------------------------------------------------------

    cdef bint mixes(self, Group group) except -1:
        """Where rows merge a batch saves the server's work; statements one by one gain little by company.

        Since MariaDB 10.3 a lock need not be waited for.
        """
        return group.merges() and _MIXING(self.my.version) is not None

    cdef bint gains(self, int nwrites, int units) noexcept:
        """A batch of several groups takes two turns more than one INSERT: single writes are sooner done alone."""
        return nwrites >= 2 * units

    cdef int arrange(self, Batch batch) except -1:
        """Updates of a group that differ in the row's key only are one statement, unless that was in vain of late."""
        cdef Unit unit = <Unit>batch.units[0]
        cdef list units
        if not unit.group.facts.key or len(batch.units) > 1 or batch.attempt or batch.losses:
            return 0
        if unit.group.spared:
            unit.group.spared -= 1
            return 0
        units = keyed_units(unit, self.engine.max_bytes(unit.group) - BATCH_TEXT)
        if units is not None:
            batch.plain = unit
            batch.units = units
            batch.count()
        return 0

    cdef int begin_batch(self, Batch batch) except -1:
        """What opens the transaction, with a lone merged INSERT in one send; COMMIT follows once the answer is right.

        An OK packet tells the number of warnings of the whole INSERT, not whose they are: a batch with one is
        rolled back and its members go alone, each with its own. A batch that meets another's lock gives up
        after the shortest time InnoDB knows and is halved, so that only the member whose row is locked waits.
        """
        cdef Unit unit
        for item in batch.units:
            unit = <Unit>item
            unit.step = unit.group.facts.id_step if unit.method != M_KEYS else 0
        unit = <Unit>batch.units[0]
        self.piped = len(batch.units) > 1 or unit.method == M_PIPELINE
        if self.piped:
            self.asking = False
            self.of_member = 0
            batch.phase = B_OPENING
            return self.send(MY_PIPELINE_BEGIN, 1)
        batch.phase = B_BLIND
        if not self.my.insert_id_known and not self.my.id_kept:
            self.send_ignored(MY_KEEP_ID)
        self.send(MY_BEGIN, 2)
        self.put_one(unit, MY_LOCK_WAIT)
        batch.commit_at = self.out.position()       # should BEGIN be refused, the INSERT commits by itself
        return 0

    cdef int put_one(self, Unit unit, bytes settings) except -1:
        """The unit's writes as one statement, with settings for it alone."""
        cdef Buffer out = self.out
        cdef Py_ssize_t start = out.size()
        out.append(b"\0\0\0\0\3", MY_HEADER + 1)
        out.append_bytes(b"SET STATEMENT " + settings)
        if unit.step:
            out.append_bytes(b", " + MY_ID_STEP % (unit.step, unit.step))
        out.append(b" FOR ", 5)
        if unit.method == M_KEYS:
            put_keyed(out, unit)
        elif unit.group.shape.form == FORM_BOUND:
            self.put_executions(unit)
        else:
            self.put_merged(unit)
        put_packet_header(out.ptr() + start, out.size() - start - MY_HEADER, 0)
        return 0

    cdef int put_executions(self, Unit unit) except -1:
        """The statement with everybody's tuple, parameters as literals."""
        cdef Shape shape = unit.group.shape
        cdef Buffer out = self.out
        cdef Held held
        cdef MySession session
        cdef Write* w
        cdef const char* p
        cdef bytes types
        cdef int k
        cdef bint more = False
        cdef Py_ssize_t bitmap = (shape.nparams + 7) // 8
        out.append_bytes(shape.prefix)
        for item in unit.members:
            held = <Held>item
            session = <MySession>held.owner
            p = held.data.ptr()
            types = session.first_types
            for k in range(held.nwrites):
                w = held.writes + k
                if w.flags & WF_TYPES:
                    types = p[w.sql_start + bitmap + 1:w.tuples_start]
                if more:
                    out.append(b",", 1)
                more = True
                put_tuple(out, shape.pieces, PyBytes_AS_STRING(types) if shape.nparams else NULL, p + w.sql_start,
                          p + w.tuples_start, p + w.tuples_end, session.backslash())
        return out.append_bytes(shape.suffix)

    cdef inline int send(self, bytes command, int answers) except -1:
        """A command of the batch's; ``answers``: to it and those that follow it at once."""
        self.shortest = 0
        self.out.append_bytes(command)
        self.queue.push(X_BATCH, COM_QUERY, 0, None, answers)
        return self.mark()

    cdef inline int send_ignored(self, bytes command, int flags=XF_MUST) except -1:
        self.out.append_bytes(command)
        self.queue.push(X_IGNORE, COM_QUERY, flags)
        return self.mark()

    cdef int enter(self, Batch batch) except -1:
        if batch.phase == B_WORK:
            return self.put_units(batch) if self.piped else 0       # else the INSERT is under way
        if batch.phase == B_IDS:
            return self.send(MY_LAST_ID, 1)
        if batch.phase == B_COMMIT:
            self.send(MY_COMMIT, 1)
            batch.commit_at = self.out.position()
            return 0
        if batch.phase == B_ROLLBACK:
            return self.send(MY_ROLLBACK, 1)
        if batch.phase == B_CHECK:
            return self.send(MY_CHECK, 1)
        return 0

    cdef int put_back(self, Batch batch) except -1:
        """What was changed for a pipeline is put back. The connection ends if that fails, see ``on_ignored``."""
        if self.piped and batch.phase == B_OVER and not self.closing:
            self.send_ignored(MY_PIPELINE_END)
            if self.my.held_statement is not None:
                self.my.held_statement.server_types = None      # the last member's, whoever that was
        return 0

    cdef int put_units(self, Batch batch) except -1:
        """All statements.

        An OK packet tells also ids that the client gave and those of rows that an upsert updated, which are no last ids
        for the server: where a statement may have made one, the function is asked behind it.
        """
        cdef Unit unit
        cdef bytes settings = MY_MIXED
        cdef int answers = 0
        self.shortest = 0
        if batch.plain is not None:
            settings = MY_LOCK_WAIT         # for the first of several: whose rows the next ones want as well
        for item in batch.units:
            unit = <Unit>item
            unit.asks = unit.step != 0 and (<Held>unit.members[0]).qtype in (QT_INSERT, QT_REPLACE)
            if unit.method == M_PIPELINE:
                self.put_pipeline(unit)
                answers += unit.nwrites + (len(unit.members) if unit.asks else 0)
                continue
            self.put_one(unit, settings)
            if batch.plain is not None and _MIXING(self.my.version) is not None:
                settings = MY_NO_LOCK_WAIT
            answers += 1
            if unit.asks:
                self.out.append_bytes(MY_LAST_ID)
                answers += 1
        self.queue.push(X_BATCH, COM_QUERY, 0, None, answers)
        return self.mark()

    cdef int put_pipeline(self, Unit unit) except -1:
        """Everybody's command; executions are of the leader's own prepared statement."""
        cdef Held held
        cdef Shape shape = unit.group.shape
        cdef Buffer out = self.out
        cdef Write* w
        cdef const char* p
        cdef char[14] head
        cdef char[4] number
        cdef Py_ssize_t bitmap, length
        cdef bytes types
        cdef int k
        memcpy(number, self.my.held.data.ptr() + MY_HEADER + 1, 4)
        for item in unit.members:
            held = <Held>item
            p = held.data.ptr()
            types = (<MySession>held.owner).first_types
            for k in range(held.nwrites):
                w = held.writes + k
                if shape.form != FORM_BOUND:
                    put_packet_header(head, 1 + w.sql_end - w.sql_start, 0)
                    head[MY_HEADER] = COM_QUERY
                    out.append(head, MY_HEADER + 1)
                    out.append(p + w.sql_start, w.sql_end - w.sql_start)
                    continue
                bitmap = (shape.nparams + 7) // 8
                length = EXECUTE_HEAD
                if shape.nparams:
                    if w.flags & WF_TYPES:
                        types = p[w.sql_start + bitmap + 1:w.tuples_start]
                    length += bitmap + 1 + PyBytes_GET_SIZE(types) + w.tuples_end - w.tuples_start
                put_packet_header(head, length, 0)
                head[MY_HEADER] = COM_STMT_EXECUTE
                memcpy(head + MY_HEADER + 1, number, 4)
                memcpy(head + MY_HEADER + 5, b"\0\1\0\0\0", 5)
                out.append(head, MY_HEADER + EXECUTE_HEAD)
                if shape.nparams:
                    out.append(p + w.sql_start, bitmap)
                    out.append(b"\1", 1)
                    out.append_bytes(types)
                    out.append(p + w.tuples_start, w.tuples_end - w.tuples_start)
            if unit.asks:
                out.append_bytes(MY_LAST_ID)
        return 0

    # --- what is answered -------------------------------------------------------------------------------

    cdef int on_batch_packet(self, const char* p, Py_ssize_t length) except -1:
        cdef Batch batch = self.batch
        cdef MyAnswer answer = self.answer
        cdef Expected* front = self.queue.front()
        cdef int kind
        if self.continued:
            self.continued = length == MY_MAX_PACKET
            return 0
        kind = answer.read(COM_QUERY, p + MY_HEADER, length)
        if length == MY_MAX_PACKET:
            self.continued = True
            batch.fail(RC_MISMATCH)
        self.answer_bytes += MY_HEADER + length
        if answer.done:
            if not answer.failed:
                self.shortest = min(self.answer_bytes, self.shortest if self.shortest else LONG_ANSWER)
            self.answer_bytes = 0
            front.count -= 1
            if not front.count:
                self.queue.pop()
        if batch.phase == B_WORK and self.piped:
            return self.on_piped_packet(batch, kind, p, length)
        if batch.phase == B_WORK or batch.phase == B_BARE:
            return self.on_insert_packet(batch, kind, p, length)
        if batch.phase == B_IDS and kind == PK_ROW:
            (<Unit>batch.units[0]).first_id = self.read_id(p, length)
        if not answer.done:
            return 0
        if batch.phase == B_IDS and (answer.failed or batch.failed or not (<Unit>batch.units[0]).first_id):
            batch.fail(RC_MISMATCH)
            return self.advance(batch, EV_BAD)
        if batch.phase == B_CHECK and not answer.failed and answer.status & (
                STATUS_IN_TRANS | STATUS_IN_TRANS_READONLY):
            return self.advance(batch, EV_BAD)
        if batch.phase == B_COMMIT and answer.failed and answer.error not in MY_NOTHING_KEPT:
            return self.disconnect(C_CUT)
        batch.status = answer.status
        if answer.failed and batch.phase != B_BLIND and batch.phase < B_ROLLBACK:
            batch.fail(my_retry_cause(answer.error))
        return self.advance(batch, EV_BAD if answer.failed else EV_GOOD)

    cdef Py_ssize_t due(self) noexcept:
        """Nothing is done before the last of the answers, which the server sends one by one: some are read together.

        Not more than are sure to come, though, nor than may be under way without an ACK, of which the kernel sends none
        for 40 ms while nothing is read: a sender's congestion window is seldom below 4 packets (BBR's smallest).
        """
        cdef Expected* front = self.queue.front()
        cdef Py_ssize_t one = self.shortest if self.shortest else LEAST_ANSWER
        cdef Py_ssize_t due
        if front == NULL or front.owner != X_BATCH:
            return 0
        due = (front.count - (self.answer.response != RS_FIRST)) * LEAST_ANSWER - self.inbuf.size()
        due = min(due, ANSWERS_TOGETHER * one)
        return due if due > one else 0

    cdef uint64_t read_id(self, const char* p, Py_ssize_t length) except? 0:
        """The answer to MY_LAST_ID; 0: there is none."""
        cdef list row = my_text_row(p + MY_HEADER, length)
        cdef object found
        if not row or row[0] is None or not (<bytes>row[0]).isdigit() or len(row[0]) > MAX_ID_DIGITS:
            return 0
        found = int(row[0])
        return found if found.bit_length() <= 64 else 0

    cdef int advance(self, Batch batch, int event) except -1:
        cdef bint opened = batch.phase != B_OPENING
        SessionServer.advance(self, batch, event)
        return self.put_back(batch) if opened else 0

    cdef int on_piped_packet(self, Batch batch, int kind, const char* p, Py_ssize_t length) except -1:
        """One packet of the answer to the statement whose turn it is, or to the question behind it."""
        cdef Unit unit = batch.unit()
        if self.asking:
            self.on_id_packet(batch, unit, kind, p, length)
        elif unit.method == M_PIPELINE:
            self.on_pipeline_packet(batch, unit, kind, p, length)
        else:
            self.read_insert(batch, unit, kind, p, length)
            if self.answer.done:
                self.asking = unit.asks
        if not self.answer.done or self.asking:
            return 0
        if unit.method != M_PIPELINE or unit.answered == unit.nwrites:
            batch.end_unit()
        if batch.at < len(batch.units):
            return 0
        return self.advance(batch, EV_BAD if batch.failed else EV_GOOD)

    cdef int on_pipeline_packet(self, Batch batch, Unit unit, int kind, const char* p, Py_ssize_t length) except -1:
        cdef Py_ssize_t at = batch.response.size()
        cdef MyAnswer answer = self.answer
        cdef char* status
        if not batch.failed:
            batch.response.append(p, MY_HEADER + length)
            if kind == PK_OK or kind == PK_END or (kind == PK_HEAD and length == 5 and p[MY_HEADER] == <char>0xFE):
                if answer.status_at:
                    status = batch.response.ptr() + at + MY_HEADER + answer.status_at
                    status[0] = <char>((<uint8_t>status[0] | STATUS_AUTOCOMMIT) & ~STATUS_IN_TRANS)
                    status[1] = <char>(<uint8_t>status[1] & ~(STATUS_IN_TRANS_READONLY >> 8))
            if batch.response.size() > MAX_ANSWER_BYTES:
                batch.fail_size()
        if not answer.done:
            return 0
        if answer.failed and answer.error in MY_TABLE_ERRORS:
            batch.fail_table(my_retry_cause(answer.error))
        elif answer.failed or answer.warnings:
            batch.blame(unit)
            batch.fail_unit(my_retry_cause(answer.error) if answer.failed else RC_WARNING)
        elif kind == PK_OK and answer.insert_id and not unit.asks:
            batch.fail_table(RC_MISMATCH)
        batch.end_write(unit)
        if unit.asks:
            self.of_member += 1
            if self.of_member == (<Held>unit.members[len(unit.ids)]).nwrites:
                self.of_member = 0
                self.asking = True
        return 0

    cdef int on_id_packet(self, Batch batch, Unit unit, int kind, const char* p, Py_ssize_t length) except -1:
        """One packet of the answer to the question behind a member's statements, or behind a merged INSERT."""
        if kind == PK_ROW:
            unit.ids.append(self.read_id(p, length))
        if not self.answer.done:
            return 0
        self.asking = False
        if self.answer.failed:
            unit.ids.append(0)
            batch.fail_unit(my_retry_cause(self.answer.error))
        elif unit.method == M_MULTI_ROW and not batch.failed:
            if not unit.ids or not unit.ids[0] or (unit.first_id and unit.first_id != unit.ids[0]):
                return batch.fail_table(RC_MISMATCH)
            unit.first_id = unit.ids[0]
        return 0

    cdef int on_insert_packet(self, Batch batch, int kind, const char* p, Py_ssize_t length) except -1:
        """One packet of the answer to a merged INSERT that is the whole batch."""
        cdef Unit unit = <Unit>batch.units[0]
        cdef MyAnswer answer = self.answer
        self.read_insert(batch, unit, kind, p, length)
        if not answer.done:
            return 0
        batch.status = answer.status
        if batch.phase == B_BARE and answer.failed:
            return self.advance(batch, EV_OUT)          # it failed on its own: nothing of it stands
        if batch.failed:
            return self.advance(batch, EV_BAD)
        if batch.phase == B_WORK and unit.step and unit.head_bytes:
            batch.phase = B_IDS
            return self.enter(batch)
        return self.advance(batch, EV_GOOD)

    cdef int read_insert(self, Batch batch, Unit unit, int kind, const char* p, Py_ssize_t length) except -1:
        """One packet of the answer to a merged INSERT."""
        cdef MyAnswer answer = self.answer
        if (kind == PK_HEAD or kind == PK_ROW) and batch.failed:
            pass
        elif kind == PK_HEAD:
            batch.response.append(p, MY_HEADER + length)
            unit.head_bytes += MY_HEADER + length
        elif kind == PK_ROW:
            batch.response.append(p, MY_HEADER + length)
            unit.answer_rows += 1
            if batch.response.size() > MAX_ANSWER_BYTES:
                batch.fail_size()
        elif kind == PK_ERR:
            if answer.error in MY_TABLE_ERRORS or (
                    answer.error == MY_OUT_OF_RANGE
                    and b"@@auto_increment_increment" in p[MY_HEADER:MY_HEADER + length]):
                batch.fail_table(my_retry_cause(answer.error))
            batch.fail_unit(my_retry_cause(answer.error))
        elif kind == PK_END:
            unit.tail = p[MY_HEADER:MY_HEADER + length]
            if not batch.failed and unit.answer_rows != unit.rows:
                batch.fail_unit(RC_MISMATCH)
        elif kind == PK_OK and unit.method == M_KEYS:
            if not self.read_keyed(unit, p + MY_HEADER, length):
                batch.fail_unit(RC_MISMATCH)
        elif kind == PK_OK:
            unit.first_id = answer.insert_id
            if (unit.step != 0) != (answer.insert_id != 0):
                batch.fail_table(RC_MISMATCH)
            if answer.affected != <uint64_t>unit.rows:
                batch.fail_unit(RC_MISMATCH)
            elif unit.rows > unit.nwrites and answer.info(p + MY_HEADER, length) != INSERTED % unit.rows:
                batch.fail_table(RC_MISMATCH)       # in another language
        if answer.done and not answer.failed and answer.warnings:
            batch.fail_unit(RC_WARNING)
        return 0

    cdef bint read_keyed(self, Unit unit, const char* p, Py_ssize_t n) except -1:
        """Whether an OK packet of ``n`` bytes says that every key has found a row, and all were changed or none."""
        cdef bytes said = self.answer.info(p, n)
        unit.changed = said != MATCHED % (unit.nwrites, 0)
        unit.affected = self.answer.affected != 0
        return (self.answer.affected == <uint64_t>(unit.affected * unit.nwrites)
                and said == MATCHED % (unit.nwrites, unit.changed * unit.nwrites))

    cdef int rolled_back(self, Batch batch) except -1:
        """The rows in front of the one that made a merged INSERT fail have changed LAST_INSERT_ID() there."""
        if self.closing:
            return 0
        self.my.stale = True
        if self.piped:
            return 0
        if self.my.insert_id_known:
            self.my.insert_id_due = True
            return 0
        self.my.id_kept = True
        return self.send_ignored(MY_GIVE_ID, XF_AGAIN)
