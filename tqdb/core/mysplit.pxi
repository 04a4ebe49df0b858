# MariaDB/MySQL: everybody's own part of a batch's answer.

ctypedef struct Parting:
    # how far a batch's answer is shared out
    Py_ssize_t byte         # of ``response``
    int write               # of those in pipelines
    uint64_t last_id        # LAST_INSERT_ID() behind what was shared out; a pipeline begins with 0


cdef class MySplitServer(SessionServer):
    """A server connection as far as it shares out what a batch was answered."""
    cdef MySession my               # the same as ``session``
    cdef MyAnswer answer

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
                self.split_pipeline(batch, unit, &at)
            else:
                self.split_insert(batch, unit, &at, status)
        return 0

    cdef int split_insert(self, Batch batch, Unit unit, Parting* at, uint32_t status) except -1:
        cdef Held held
        cdef MySession session
        cdef uint64_t insert_id = unit.first_id
        cdef uint64_t step = unit.step
        cdef Py_ssize_t head = at.byte
        cdef char* flags
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
                if unit.head_bytes:
                    at.byte = self.split_rows(
                        unit, session, held.writes[k].rows, batch.response.ptr() + head, batch.response.ptr(), at.byte,
                        insert_id, status)
                elif not session.closing:
                    self.answer_ok(session, held.writes[k].rows, insert_id, status)
                if step:
                    session.new_id(insert_id)
                    insert_id += step * <uint64_t>held.writes[k].rows
            session.was_batched(-1 if unit.head_bytes else held.writes[held.nwrites - 1].rows)
            session.status = status
            session.status_unknown = False
        return 0

    cdef int split_pipeline(self, Batch batch, Unit unit, Parting* at) except -1:
        cdef Held held
        cdef MySession session
        cdef MyAnswer answer = self.answer
        cdef const char* p = batch.response.ptr()
        cdef Py_ssize_t end
        cdef int k
        cdef int64_t row_count = -1
        for i, item in enumerate(unit.members):
            held = <Held>item
            session = <MySession>held.owner
            if unit.asks and unit.ids[i] != at.last_id:
                at.last_id = unit.ids[i]
                session.new_id(at.last_id)
            for k in range(held.nwrites):
                end = batch.end_of(at.write)
                at.write += 1
                row_count = -1
                if p[at.byte + MY_HEADER] == MARK_OK:
                    answer.read_ok(p + at.byte + MY_HEADER, my_length(p + at.byte))
                    row_count = <int64_t>answer.affected
                    session.status = answer.status
                if not session.closing:
                    session.out.append(p + at.byte, end - at.byte)
                at.byte = end
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

    cdef Py_ssize_t split_rows(self, Unit unit, MySession session, int rows, const char* head, const char* p,
                               Py_ssize_t at, uint64_t insert_id, uint32_t status) except -1:
        """Copies the head and the session's rows, numbered anew, and ends them; returns where the next begin."""
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t length
        cdef char[4] header
        cdef int seq = 1
        cdef int k
        cdef bytes tail = unit.tail
        if session.closing:
            for k in range(rows):
                at += MY_HEADER + my_length(p + at)
            return at
        while done < unit.head_bytes:
            done += MY_HEADER + my_length(head + done)
            seq += 1
        session.out.append(head, unit.head_bytes)
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
