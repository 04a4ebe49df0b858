# MariaDB/MySQL: a batch on a server connection, what is sent, what is answered, and everybody's part of it.


cdef class MyBatchServer(SessionServer):
    """A server connection as far as it leads batches."""
    cdef MySession my               # the same as ``session``
    cdef MyAnswer answer
    cdef bint continued             # the next packet goes on with the one just read
    # of the batch under way
    cdef int step                   # distance of its insert ids when it was sent, 0: its table gives none
    cdef bint asks                  # behind each member's statements LAST_INSERT_ID() is asked for …
    cdef bint asking                # … and that answer is the next
    cdef list ids                   # what was answered, for each member
    cdef int of_member              # statements of the next member answered so far

    def __init__(self, Engine engine):
        SessionServer.__init__(self, engine)
        self.answer = MyAnswer()

    cdef int join_session(self, Session session) except -1:
        self.my = <MySession>session
        return SessionServer.join_session(self, session)

    # --- what is sent -----------------------------------------------------------------------------------

    cdef int begin_batch(self, Batch batch) except -1:
        """What opens the transaction, with the merged INSERT in one send; COMMIT follows once the answer is right.

        An OK packet tells the number of warnings of the whole batch, not whose they are: a batch with one is
        rolled back and its members go alone, each with its own. A batch that meets another's lock gives up
        after the shortest time InnoDB knows and is halved, so that only the member whose row is locked waits.
        """
        cdef Buffer out = self.out
        cdef Py_ssize_t start
        self.step = batch.group.facts.id_step
        if batch.method == M_PIPELINE:
            self.asks = self.step != 0 and self.my.held.qtype in (QT_INSERT, QT_REPLACE)
            self.asking = False
            self.ids = []
            self.of_member = 0
            batch.phase = B_OPENING
            return self.send(MY_PIPELINE_BEGIN, 1)
        batch.phase = B_BLIND
        if not self.my.insert_id_known:
            self.send_ignored(MY_KEEP_ID, 0)
        self.send(MY_BEGIN, 2)
        start = out.size()
        out.append(b"\0\0\0\0\3", MY_HEADER + 1)
        if self.my.mariadb:
            out.append_bytes(MY_ID_STEP % (self.step, self.step) if self.step else MY_LOCK_WAIT)
        self.put_merged(batch)
        put_packet_header(out.ptr() + start, out.size() - start - MY_HEADER, 0)
        return 0

    cdef inline int send(self, bytes command, int answers) except -1:
        """A command of the batch's; ``answers``: to it and those that follow it at once."""
        self.out.append_bytes(command)
        self.queue.push(X_BATCH, COM_QUERY, 0, None, answers)
        return self.mark()

    cdef inline int send_ignored(self, bytes command, int flags) except -1:
        self.out.append_bytes(command)
        self.queue.push(X_IGNORE, COM_QUERY, flags)
        return self.mark()

    cdef int enter(self, Batch batch) except -1:
        if batch.phase == B_WORK:
            if batch.method == M_PIPELINE:
                self.put_pipeline(batch)
                self.queue.push(
                    X_BATCH, COM_QUERY, 0, None, batch.nwrites + (len(batch.members) if self.asks else 0))
                return self.mark()
            return 0                    # the INSERT is under way
        if batch.phase == B_IDS:
            return self.send(self.question(), 1)
        if batch.phase == B_COMMIT:
            self.send(MY_COMMIT, 1)
            batch.commit_at = self.out.position()
            return 0
        if batch.phase == B_ROLLBACK:
            return self.send(MY_ROLLBACK, 1)
        if batch.phase == B_CHECK:
            return self.send(MY_CHECK, 1)
        return 0

    cdef inline bytes question(self):
        """Asks for LAST_INSERT_ID(), and MySQL for the distance of ids besides."""
        return MY_LAST_ID if self.my.mariadb else MYSQL_LAST_ID

    cdef int put_back(self, Batch batch) except -1:
        """What was changed for a pipeline is put back. The connection ends if that fails, see ``on_ignored``."""
        if batch.method == M_PIPELINE and batch.phase == B_OVER and not self.closing:
            self.send_ignored(MY_PIPELINE_END, XF_MUST)
            if self.my.held_statement is not None:
                self.my.held_statement.server_types = None      # the last member's, whoever that was
        return 0

    cdef int put_pipeline(self, Batch batch) except -1:
        """Everybody's command; executions are of the leader's own prepared statement.

        An OK packet tells also ids that the client gave and those of rows that an upsert updated, which are no last ids
        for the server: where a statement may have made one, the function is asked behind it.
        """
        cdef Held held
        cdef Shape shape = batch.group.shape
        cdef Buffer out = self.out
        cdef Write* w
        cdef const char* p
        cdef char[14] head
        cdef char[4] number
        cdef Py_ssize_t bitmap, length
        cdef bytes types
        cdef int k
        memcpy(number, self.my.held.data.ptr() + MY_HEADER + 1, 4)
        for item in batch.members:
            held = <Held>item
            p = held.data.ptr()
            types = (<MySession>held.owner).first_types
            for k in range(held.nwrites):
                w = held.writes + k
                if shape.form != FORM_BOUND:
                    out.append(p + w.start, w.end - w.start)
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
            if self.asks:
                out.append_bytes(self.question())
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
        if answer.done:
            front.count -= 1
            if not front.count:
                self.queue.pop()
        if batch.phase == B_WORK and batch.method == M_PIPELINE:
            return self.on_pipeline_packet(batch, kind, p, length)
        if batch.phase == B_WORK or batch.phase == B_BARE:
            return self.on_insert_packet(batch, kind, p, length)
        if batch.phase == B_IDS and kind == PK_ROW:
            batch.first_id = self.read_id(batch, p, length)
        if not answer.done:
            return 0
        if batch.phase == B_IDS and (answer.failed or batch.failed or not batch.first_id):
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

    cdef uint64_t read_id(self, Batch batch, const char* p, Py_ssize_t length) except? 0:
        """The answer to ``question``."""
        cdef list row = my_text_row(p[MY_HEADER:MY_HEADER + length])
        if len(row) > 1 and int(row[1]) != self.step:
            self.facts_wrong(batch)
        return int(row[0])

    cdef int facts_wrong(self, Batch batch) except -1:
        """The table is not what the catalogue said: it is asked again."""
        batch.table_error = True
        return batch.fail(RC_MISMATCH)

    cdef int advance(self, Batch batch, int event) except -1:
        cdef bint opened = batch.phase != B_OPENING
        SessionServer.advance(self, batch, event)
        return self.put_back(batch) if opened else 0

    cdef int on_pipeline_packet(self, Batch batch, int kind, const char* p, Py_ssize_t length) except -1:
        """One packet of the answer to the write whose turn it is."""
        cdef Py_ssize_t at = batch.response.size()
        cdef MyAnswer answer = self.answer
        cdef char* status
        if self.asking:
            return self.on_id_packet(batch, kind, p, length)
        if not batch.failed:
            batch.response.append(p, MY_HEADER + length)
            if kind == PK_OK or kind == PK_END or (kind == PK_HEAD and length == 5 and p[MY_HEADER] == <char>0xFE):
                if answer.status_at:
                    status = batch.response.ptr() + at + MY_HEADER + answer.status_at
                    status[0] = <char>((<uint8_t>status[0] | STATUS_AUTOCOMMIT) & ~STATUS_IN_TRANS)
                    status[1] = <char>(<uint8_t>status[1] & ~(STATUS_IN_TRANS_READONLY >> 8))
            if batch.response.size() > MAX_ANSWER_BYTES:
                batch.fail(RC_MISMATCH)
        if not answer.done:
            return 0
        if answer.failed:
            if answer.error in MY_TABLE_ERRORS:
                batch.table_error = True
            batch.fail(my_retry_cause(answer.error))
            batch.blame()
        elif answer.warnings:
            batch.fail(RC_WARNING)
            batch.blame()
        elif kind == PK_OK and answer.insert_id and not self.asks:
            self.facts_wrong(batch)
        batch.end_write()
        self.of_member += 1
        if self.asks and self.of_member == (<Held>batch.members[len(self.ids)]).nwrites:
            self.of_member = 0
            self.asking = True
            return 0
        return self.end_pipeline(batch)

    cdef int end_pipeline(self, Batch batch) except -1:
        if batch.answered < batch.nwrites or self.asking:
            return 0
        return self.advance(batch, EV_BAD if batch.failed else EV_GOOD)

    cdef int on_id_packet(self, Batch batch, int kind, const char* p, Py_ssize_t length) except -1:
        """One packet of the answer to the question behind a member's statements."""
        if kind == PK_ROW:
            self.ids.append(self.read_id(batch, p, length))
        if not self.answer.done:
            return 0
        if self.answer.failed:
            batch.fail(my_retry_cause(self.answer.error))
            self.ids.append(0)
        self.asking = False
        return self.end_pipeline(batch)

    cdef int on_insert_packet(self, Batch batch, int kind, const char* p, Py_ssize_t length) except -1:
        """One packet of the answer to the merged INSERT."""
        cdef MyAnswer answer = self.answer
        if (kind == PK_HEAD or kind == PK_ROW) and batch.failed:
            pass
        elif kind == PK_HEAD:
            batch.response.append(p, MY_HEADER + length)
            batch.head_bytes += MY_HEADER + length
        elif kind == PK_ROW:
            batch.response.append(p, MY_HEADER + length)
            batch.answer_rows += 1
            if batch.response.size() > MAX_ANSWER_BYTES:
                batch.fail(RC_MISMATCH)
        elif kind == PK_ERR:
            batch.fail(my_retry_cause(answer.error))
            if answer.error in MY_TABLE_ERRORS or (
                    answer.error == MY_OUT_OF_RANGE
                    and b"@@auto_increment_increment" in p[MY_HEADER:MY_HEADER + length]):
                batch.table_error = True
        elif kind == PK_END:
            batch.tail = p[MY_HEADER:MY_HEADER + length]
            if batch.answer_rows != batch.rows:
                batch.fail(RC_MISMATCH)
        elif kind == PK_OK:
            batch.first_id = answer.insert_id
            if (self.step != 0) != (answer.insert_id != 0):
                self.facts_wrong(batch)
            if answer.affected != <uint64_t>batch.rows:
                batch.fail(RC_MISMATCH)
        if not answer.done:
            return 0
        batch.status = answer.status
        if not answer.failed and answer.warnings:
            batch.fail(RC_WARNING)
        if batch.phase == B_BARE and answer.failed:
            return self.advance(batch, EV_OUT)          # it failed on its own: nothing of it stands
        if batch.failed:
            return self.advance(batch, EV_BAD)
        if batch.phase == B_WORK and self.step and (batch.head_bytes or not self.my.mariadb):
            batch.phase = B_IDS
            return self.enter(batch)
        return self.advance(batch, EV_GOOD)

    cdef int rolled_back(self, Batch batch) except -1:
        """The rows in front of the one that made a merged INSERT fail have changed LAST_INSERT_ID() there."""
        if self.closing:
            return 0
        self.my.stale = True
        if batch.method != M_MULTI_ROW:
            return 0
        if self.my.insert_id_known:
            self.my.insert_id_due = True
            return 0
        return self.send_ignored(MY_GIVE_ID, 0)

    # --- everybody's own part of the answer ---------------------------------------------------------------

    cdef int split(self, Batch batch) except -1:
        cdef Held held
        cdef MySession session
        cdef uint64_t insert_id = batch.first_id
        cdef uint64_t step = self.step
        cdef Py_ssize_t at = batch.head_bytes
        cdef int k
        cdef uint32_t status = batch.status & ~(
            STATUS_IN_TRANS | STATUS_MORE_RESULTS | STATUS_SESSION_STATE_CHANGED)
        if batch.method == M_PIPELINE:
            return self.split_pipeline(batch)
        if batch.head_bytes and not self.answer.deprecate_eof:
            # the EOF behind the column definitions told of the batch's transaction
            batch.response.ptr()[batch.head_bytes - 2] &= ~STATUS_IN_TRANS
        for item in batch.members:
            held = <Held>item
            session = <MySession>held.owner
            for k in range(held.nwrites):
                if batch.head_bytes:
                    at = self.split_rows(batch, session, held.writes[k].rows, at, insert_id, status)
                elif not session.closing:
                    self.answer_ok(session, held.writes[k].rows, insert_id, status)
                if step:
                    session.new_id(insert_id)
                    insert_id += step * <uint64_t>held.writes[k].rows
            session.was_batched(-1 if batch.head_bytes else held.writes[held.nwrites - 1].rows)
            session.status = status
            session.status_unknown = False
        return 0

    cdef int split_pipeline(self, Batch batch) except -1:
        cdef Held held
        cdef MySession session
        cdef MyAnswer answer = self.answer
        cdef const char* p = batch.response.ptr()
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t end
        cdef int k
        cdef int number = 0
        cdef int64_t row_count = -1
        cdef uint64_t id = 0                # LAST_INSERT_ID() behind the member before: the batch begins with 0
        for i, item in enumerate(batch.members):
            held = <Held>item
            session = <MySession>held.owner
            if self.asks and self.ids[i] != id:
                id = self.ids[i]
                session.new_id(id)
            for k in range(held.nwrites):
                end = batch.end_of(number)
                number += 1
                row_count = -1
                if p[at + MY_HEADER] == MARK_OK:
                    answer.read_ok(p + at + MY_HEADER, my_length(p + at))
                    row_count = <int64_t>answer.affected
                    session.status = answer.status
                if not session.closing:
                    session.out.append(p + at, end - at)
                at = end
            session.status_unknown = False
            session.was_batched(row_count)
        return 0

    cdef int answer_ok(self, MySession session, int rows, uint64_t insert_id, uint32_t status) except -1:
        cdef char[32] w
        cdef int n = MY_HEADER
        cdef bytes info
        w[n] = MARK_OK
        n += 1
        n += write_lenenc(w + n, rows)
        n += write_lenenc(w + n, insert_id)
        w[n] = <char>(status & 0xFF)
        w[n + 1] = <char>(status >> 8)
        w[n + 2] = w[n + 3] = 0
        n += 4
        if rows == 1:
            put_packet_header(w, n - MY_HEADER, 1)
            return session.out.append(w, n)
        info = b"Records: %d  Duplicates: 0  Warnings: 0" % rows
        put_packet_header(w, n - MY_HEADER + 1 + len(info), 1)
        session.out.append(w, n)
        session.out.append_bytes(bytes((len(info),)) + info)
        return 0

    cdef Py_ssize_t split_rows(self, Batch batch, MySession session, int rows, Py_ssize_t at,
                               uint64_t insert_id, uint32_t status) except -1:
        """Copies the head and the session's rows, numbered anew, and ends them; returns where the next begin."""
        cdef const char* p = batch.response.ptr()
        cdef Py_ssize_t head = 0
        cdef Py_ssize_t length
        cdef char[4] header
        cdef int seq = 1
        cdef int k
        cdef bytes tail = batch.tail
        if session.closing:
            for k in range(rows):
                at += MY_HEADER + my_length(p + at)
            return at
        while head < batch.head_bytes:
            head += MY_HEADER + my_length(p + head)
            seq += 1
        session.out.append(p, batch.head_bytes)
        for k in range(rows):
            length = my_length(p + at)
            put_packet_header(header, length, seq)
            session.out.append(header, MY_HEADER)
            session.out.append(p + at + MY_HEADER, length)
            at += MY_HEADER + length
            seq += 1
        if session.capabilities & CLIENT_DEPRECATE_EOF:
            tail = self.own_end(tail, rows, insert_id, status)
        else:
            tail = tail[:3] + status.to_bytes(2, "little")
        session.out.append_bytes(my_packet(seq, tail))
        return at

    cdef bytes own_end(self, bytes tail, int ntuples, uint64_t insert_id, status):
        """The OK packet that ends a result, with the batch's totals replaced by the member's own."""
        cdef char[9] w
        affected, pos = _lenenc_at(tail, 1)
        last_id, pos = _lenenc_at(tail, pos)
        out = tail[:1]
        out += w[:write_lenenc(w, ntuples if affected else 0)]
        out += w[:write_lenenc(w, insert_id if last_id else 0)]
        return out + status.to_bytes(2, "little") + tail[pos + 2:]
