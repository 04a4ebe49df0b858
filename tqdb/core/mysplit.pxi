# MariaDB/MySQL: everybody's own part of a batch's answer.

ctypedef struct Parting:
    # how far a batch's answer is shared out
    Py_ssize_t byte         # of ``response``
    int write               # of those in pipelines
    uint64_t last_id        # LAST_INSERT_ID() behind what was shared out; a pipeline begins with 0


cdef inline uint32_t open_status(bint last) noexcept:
    """What the status within a transaction says besides; ``last``: no other statement of the command follows."""
    return STATUS_IN_TRANS | (0 if last else STATUS_MORE_RESULTS)


cdef inline uint32_t status_of(Write* w, uint32_t status) noexcept:
    """What a write's own answer says, where its session's last is ``status``."""
    return status | open_status(w.flags & WF_SYNC) if w.closing else status


cdef class MySplitServer(SessionServer):
    """A server connection as far as it shares out what a batch was answered."""
    cdef MySession my               # the same as ``session``
    cdef MyAnswer answer
    cdef int seq                    # of the next packet for the session that is being answered

    def __init__(self, Engine engine):
        SessionServer.__init__(self, engine)
        self.answer = MyAnswer()

    cdef int join_session(self, Session session) except -1:
        self.my = <MySession>session
        return SessionServer.join_session(self, session)

    cdef int split(self, Batch batch) except -1:
        cdef Unit unit
        cdef Parting at
        cdef uint32_t status = (batch.status | STATUS_AUTOCOMMIT) & ~(
            STATUS_IN_TRANS | STATUS_MORE_RESULTS | STATUS_SESSION_STATE_CHANGED)
        at.byte = 0
        at.write = 0
        at.last_id = 0
        for item in batch.units:
            unit = <Unit>item
            if unit.method == M_PIPELINE:
                self.split_pipeline(batch, unit, &at, status)
            elif unit.method == M_KEYS:
                self.split_keyed(unit, status)
            else:
                self.split_insert(batch, unit, &at, status)
        return 0

    cdef inline int open_answer(self, MySession session, Write* w, uint32_t status) except -1:
        """In front of a write's answer: that to its BEGIN, if there is one."""
        self.seq = 1
        if w.opening:
            session.out.append_bytes(my_plain_ok(1, status | open_status(w.opening & BK_SYNC)))
            if not w.opening & BK_SYNC:
                self.seq = 2
        return 0

    cdef inline int close_answer(self, MySession session, Write* w, uint32_t status) except -1:
        """Behind it: that to its COMMIT."""
        if w.closing:
            session.out.append_bytes(my_plain_ok(1 if w.flags & WF_SYNC else self.seq, status))
        return 0

    cdef int split_insert(self, Batch batch, Unit unit, Parting* at, uint32_t status) except -1:
        cdef Held held
        cdef MySession session
        cdef uint64_t insert_id = unit.first_id
        cdef uint64_t step = unit.step
        cdef Py_ssize_t head = at.byte
        cdef char* flags
        cdef Write* w
        cdef uint32_t own
        cdef int k
        at.byte += unit.head_bytes
        if unit.head_bytes and not self.answer.deprecate_eof:
            # the EOF behind the column definitions told of the batch's transaction
            flags = batch.response.ptr() + at.byte - 2
            flags[0] = <char>((<uint8_t>flags[0] | STATUS_AUTOCOMMIT) & ~STATUS_IN_TRANS)
        if step:
            at.last_id = insert_id
        for item in unit.members:
            held = <Held>item
            session = <MySession>held.owner
            for k in range(held.nwrites):
                w = held.writes + k
                own = status_of(w, status)
                if not session.closing:
                    self.open_answer(session, w, status)
                if unit.head_bytes:
                    at.byte = self.split_rows(
                        unit, session, w.rows, batch.response.ptr() + head, batch.response.ptr(), at.byte, insert_id,
                        own)
                elif not session.closing:
                    self.answer_ok(session, w.rows, insert_id, own, INSERTED % w.rows if w.rows > 1 else b"")
                if not session.closing:
                    self.close_answer(session, w, status)
                if step:
                    session.new_id(insert_id)
                    insert_id += step * <uint64_t>w.rows
            w = held.writes + held.nwrites - 1
            session.was_batched(0 if w.closing else -1 if unit.head_bytes else w.rows)
            session.status = status
            session.status_unknown = False
        return 0

    cdef int split_keyed(self, Unit unit, uint32_t status) except -1:
        cdef MySession session
        cdef Write* w
        cdef bytes said = MATCHED % (1, unit.changed)
        for item in unit.members:
            session = <MySession>(<Held>item).owner
            w = (<Held>item).writes
            if not session.closing:
                self.open_answer(session, w, status)
                self.answer_ok(session, unit.affected, 0, status_of(w, status), said)
                self.close_answer(session, w, status)
            session.was_batched(0 if w.closing else unit.affected)
            session.status = status
            session.status_unknown = False
        return 0

    cdef int split_pipeline(self, Batch batch, Unit unit, Parting* at, uint32_t status) except -1:
        cdef Held held
        cdef MySession session
        cdef MyAnswer answer = self.answer
        cdef const char* p = batch.response.ptr()
        cdef Py_ssize_t end
        cdef Write* w
        cdef int k
        cdef int64_t row_count = -1
        for i, item in enumerate(unit.members):
            held = <Held>item
            session = <MySession>held.owner
            if unit.asks and unit.ids[i] != at.last_id:
                at.last_id = unit.ids[i]
                session.new_id(at.last_id)
            for k in range(held.nwrites):
                w = held.writes + k
                end = batch.end_of(at.write)
                at.write += 1
                row_count = -1
                if p[at.byte + MY_HEADER] == MARK_OK:
                    answer.read_ok(p + at.byte + MY_HEADER, my_length(p + at.byte))
                    row_count = <int64_t>answer.affected
                    session.status = answer.status
                if session.closing:
                    pass
                elif w.opening:
                    self.open_answer(session, w, status)
                    self.copy_answer(session, p + at.byte, end - at.byte, open_status(w.flags & WF_SYNC))
                    self.close_answer(session, w, status)
                else:
                    session.out.append(p + at.byte, end - at.byte)
                if w.closing:
                    row_count = 0
                at.byte = end
            session.status_unknown = False
            session.was_batched(row_count)
        return 0

    cdef int copy_answer(self, MySession session, const char* p, Py_ssize_t n, uint32_t more) except -1:
        """The packets of an answer, numbered on from ``seq``, with ``more`` flags in their status."""
        cdef MyAnswer answer = self.answer
        cdef Py_ssize_t length, at
        cdef char[4] header
        cdef int kind
        while n > 0:
            length = my_length(p)
            kind = answer.read(COM_QUERY, p + MY_HEADER, length)
            put_packet_header(header, length, self.seq)
            self.seq += 1
            session.out.append(header, MY_HEADER)
            at = session.out.size()
            session.out.append(p + MY_HEADER, length)
            if answer.status_at and (kind == PK_OK or kind == PK_END or (
                    kind == PK_HEAD and length == 5 and p[MY_HEADER] == <char>MARK_EOF)):
                (session.out.ptr() + at + answer.status_at)[0] |= <char>more
            p += MY_HEADER + length
            n -= MY_HEADER + length
        return 0

    cdef int answer_ok(self, MySession session, int rows, uint64_t insert_id, uint32_t status, bytes info) except -1:
        cdef char[32] w
        cdef int n = MY_HEADER
        cdef Py_ssize_t said = PyBytes_GET_SIZE(info)
        w[n] = MARK_OK
        n += 1
        n += write_lenenc(w + n, rows)
        n += write_lenenc(w + n, insert_id)
        w[n] = <char>(status & 0xFF)
        w[n + 1] = <char>(status >> 8)
        w[n + 2] = w[n + 3] = 0
        n += 4
        if said:
            n += write_lenenc(w + n, said)
        put_packet_header(w, n - MY_HEADER + said, self.seq)
        self.seq += 1
        session.out.append(w, n)
        return session.out.append_bytes(info)

    cdef Py_ssize_t split_rows(self, Unit unit, MySession session, int rows, const char* head, const char* p,
                               Py_ssize_t at, uint64_t insert_id, uint32_t status) except -1:
        """Copies the head and the session's rows, numbered anew, and ends them; returns where the next begin."""
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t length
        cdef char[4] header
        cdef int k
        cdef bytes tail = unit.tail
        if session.closing:
            for k in range(rows):
                at += MY_HEADER + my_length(p + at)
            return at
        while done < unit.head_bytes:
            length = my_length(head + done)
            put_packet_header(header, length, self.seq)
            session.out.append(header, MY_HEADER)
            session.out.append(head + done + MY_HEADER, length)
            done += MY_HEADER + length
            self.seq += 1
        if not self.answer.deprecate_eof:
            # the EOF behind the column definitions
            (session.out.ptr() + session.out.size() - 2)[0] |= <char>(status & (STATUS_IN_TRANS | STATUS_MORE_RESULTS))
        for k in range(rows):
            length = my_length(p + at)
            put_packet_header(header, length, self.seq)
            session.out.append(header, MY_HEADER)
            session.out.append(p + at + MY_HEADER, length)
            at += MY_HEADER + length
            self.seq += 1
        if session.capabilities & CLIENT_DEPRECATE_EOF:
            tail = self.own_end(tail, rows, insert_id, status)
        else:
            tail = tail[:3] + status.to_bytes(2, "little")
        session.out.append_bytes(my_packet(self.seq, tail))
        self.seq += 1
        return at

    cdef bytes own_end(self, bytes tail, int ntuples, uint64_t insert_id, status):
        """The OK packet that ends a result, with the batch's totals replaced by the member's own."""
        cdef char[9] w
        cdef const char* p = PyBytes_AS_STRING(tail)
        cdef Py_ssize_t n = PyBytes_GET_SIZE(tail)
        cdef uint64_t affected = 0, last_id = 0
        cdef Py_ssize_t pos = 1
        pos += read_lenenc(p + pos, n - pos, &affected)
        pos += read_lenenc(p + pos, n - pos, &last_id)
        out = tail[:1]
        out += w[:write_lenenc(w, ntuples if affected else 0)]
        out += w[:write_lenenc(w, insert_id if last_id else 0)]
        return out + status.to_bytes(2, "little") + tail[pos + 2:]
