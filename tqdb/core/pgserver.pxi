# PostgreSQL: the server connection.

cdef enum PgBatchPhase:
    PB_WORK = 0         # BEGIN and the batch's statements are under way
    PB_COMMIT
    PB_ROLLBACK


cdef class PgServer(ServerConn):
    """The server's end: relays answers, and reads those of batches and of the proxy's own statements."""
    cdef PgSession client
    cdef Buffer collected
    cdef int preamble               # answers to BEGIN and SET still to come in front of the batch's own

    def __init__(self, Engine engine):
        self.engine = engine
        self.collected = Buffer()

    cdef Py_ssize_t parse(self, const char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t relayed = 0          # p[relayed:i] is to be relayed and not yet copied
        cdef Py_ssize_t total, part
        cdef int32_t length
        cdef uint8_t kind
        cdef PgSession client = self.client
        if client.state == PG_RAW:
            client.out.append(p, n)
            client.mark()
            return n
        while i < n:
            if self.skip:
                part = min(self.skip, n - i)
                self.skip -= part
                i += part
                continue
            if n - i < PG_HEADER:
                break
            kind = p[i]
            length = <int32_t>tq_be32(p + i + 1)
            if length < 4:
                log.error("server %s sent a message of length %d; connection closed", client.backend, length)
                self.eof()
                return n
            total = <Py_ssize_t>length + 1
            if self.batch is not None or self.hidden:
                self.relay(p + relayed, i - relayed)
                relayed = i
                if n - i < total:
                    break
                if self.batch is not None:
                    self.on_batch_message(kind, p + i, total)
                else:
                    self.on_hidden_message(kind, p + i, total)
                if self.closed:
                    return n
                i += total
                relayed = i
                continue
            if kind == BE_DATA_ROW or kind == FE_COPY_DATA:
                pass
            elif kind == BE_READY:
                if n - i < total:
                    break
                i += total
                self.relay(p + relayed, i - relayed)
                relayed = i
                client.on_ready(p[i - 1])
                continue
            elif kind == BE_PARAMETER_STATUS:
                if n - i < total:
                    break
                client.on_parameter(p + i + PG_HEADER, total - PG_HEADER)
            elif kind == BE_ERROR:
                client.statement_failed()
                if client.copy_in:
                    client.copy_in = False
            elif kind == BE_COMMAND_COMPLETE:
                if client.set_open:
                    if n - i < total:
                        break
                    client.on_command_complete(p + i + PG_HEADER)
            elif kind == BE_COPY_IN or kind == BE_COPY_BOTH:
                client.on_copy()
            elif (kind == BE_PARSE_COMPLETE or kind == BE_CLOSE_COMPLETE) and kind == client.swallow:
                if client.swallow_after:
                    client.swallow_after -= 1
                else:
                    if n - i < total:
                        break
                    client.swallow = 0
                    self.relay(p + relayed, i - relayed)
                    i += total
                    relayed = i
                    continue
            elif kind == BE_KEY_DATA:
                if n - i < total:
                    break
                client.key = p[i + PG_HEADER:i + total]
                self.engine.cancel_keys[client.key] = client
            part = min(total, n - i)
            self.skip = total - part
            i += part
        self.relay(p + relayed, i - relayed)
        return i

    # --- the proxy's own statements -------------------------------------------------------------------

    cdef int run_hidden(self, bytes sql, int purpose) except -1:
        self.hidden = purpose
        if self.client.unnamed is not None:
            self.client.unnamed_here = False
        self.out.append_bytes(pg_query(sql))
        return self.mark()

    cdef int on_hidden_message(self, int kind, const char* p, Py_ssize_t total) except -1:
        cdef int purpose = self.hidden
        if self.on_async_message(kind, p, total):
            return 0
        if kind == BE_READY:
            self.hidden = H_NONE
            self.client.hidden_done(purpose, pg_rows(self.collected.take()))
        elif kind != BE_NOTICE:
            self.collected.append(p, total)
        return 0

    cdef bint on_async_message(self, int kind, const char* p, Py_ssize_t total) except -1:
        """What the client gets whoever asked: notifications and parameter changes."""
        if kind == BE_PARAMETER_STATUS:
            self.client.on_parameter(p + PG_HEADER, total - PG_HEADER)
        elif kind != BE_NOTIFICATION:
            return False
        self.relay(p, total)
        return True

    # --- batches: what is sent --------------------------------------------------------------------------

    cdef int begin_batch(self, Batch batch) except -1:
        """BEGIN and the batch's statements; COMMIT follows once the answer is what it must be.

        So a batch whose answer cannot be shared out (a row count that does not fit, a notice) is rolled back
        and its members go alone. A batch that meets another's lock gives up soon, so that only the member whose
        row is locked waits for it. An error anywhere makes the server skip all that follows, BEGIN included.
        """
        cdef Buffer out = self.out
        cdef Py_ssize_t start
        batch.phase = PB_WORK
        self.preamble = 2
        if batch.group.shape.extended:
            self.client.unnamed_here = False
            out.append_bytes(BEGIN_EXTENDED)
            if batch.method == M_PIPELINE:
                self.put_pipeline(batch)
            else:
                self.put_bound_insert(batch)
            out.append_bytes(SYNC)
            return self.mark()
        if self.client.unnamed is not None:
            self.client.unnamed_here = False
        start = self.open_message(b"Q")
        out.append_bytes(PG_BEGIN)
        if batch.method == M_PIPELINE:
            self.put_statements(batch)
        else:
            self.put_merged(batch)
        out.append(b"\0", 1)
        self.close_message(start)
        return self.mark()

    cdef inline Py_ssize_t open_message(self, const char* kind) except -1:
        cdef Py_ssize_t start = self.out.size()
        self.out.append(kind, 1)
        self.out.append(b"\0\0\0\0", 4)
        return start

    cdef inline int close_message(self, Py_ssize_t start) except -1:
        tq_put_be32(self.out.ptr() + start + 1, <uint32_t>(self.out.size() - start - 1))
        return 0

    cdef int put_statements(self, Batch batch) except -1:
        """Everybody's statement, one behind the other; a line comment at the end of one ends with its line."""
        cdef Session session
        cdef int k
        for item in batch.members:
            session = <Session>item
            for k in range(session.nwrites):
                self.out.append(session.held.ptr() + session.writes[k].sql_start,
                                session.writes[k].sql_end - session.writes[k].sql_start)
                self.out.append(b"\n;", 2)
        return 0

    cdef int put_pipeline(self, Batch batch) except -1:
        """Bind, Describe and Execute of everybody, for the statement parsed once, without a name.

        A name of the leader's would do, but its plan would age by the others' executions, and the leader could
        tell from when its errors come.
        """
        cdef PgSession leader = <PgSession>batch.leader
        cdef PgSession session
        cdef PgStatement statement = leader.held_statement
        cdef Buffer out = self.out
        cdef Write* w
        cdef const char* p
        cdef Py_ssize_t start
        cdef int k
        cdef bint bound = batch.group.shape.form == FORM_BOUND
        if bound:
            start = self.open_message(b"P")
            out.append(b"\0", 1)
            k = PG_HEADER + PyBytes_GET_SIZE(statement.name) + 1
            out.append(PyBytes_AS_STRING(statement.message) + k, PyBytes_GET_SIZE(statement.message) - k)
            self.close_message(start)
        for item in batch.members:
            session = <PgSession>item
            p = session.held.ptr()
            for k in range(session.nwrites):
                w = session.writes + k
                if not bound:
                    out.append(p + w.start, w.bind - w.start)
                if bound:
                    start = self.open_message(b"B")
                    out.append(b"\0\0", 2)
                    out.append(p + w.sql_start, w.sql_end - w.sql_start)
                    self.close_message(start)
                else:
                    out.append(p + w.bind, w.bind_end - w.bind)
                if w.flags & WF_DESCRIBE:
                    out.append_bytes(DESCRIBE)
                out.append_bytes(EXECUTE)
        return 0

    cdef int put_bound_insert(self, Batch batch) except -1:
        """Parse of one INSERT with everybody's rows, Bind of everybody's values, Describe and Execute."""
        cdef PgSession session = <PgSession>batch.members[0]
        cdef Shape shape = batch.group.shape
        cdef Write* first = session.writes
        cdef Write* w
        cdef Buffer out = self.out
        cdef const char* p = session.held.ptr()
        cdef Py_ssize_t start = self.open_message(b"P")
        cdef Py_ssize_t head, tail
        cdef bytes oids = session.held_statement.oids
        cdef int k, types, formats
        cdef char[2] count
        out.append(b"\0", 1)
        if shape.form == FORM_CUT:
            self.put_merged(batch)
            out.append(b"\0\0\0", 3)
            self.close_message(start)
            start = self.open_message(b"B")
            out.append(p + first.bind + PG_HEADER, first.bind_end - first.bind - PG_HEADER)
            self.close_message(start)
            out.append_bytes(DESCRIBE)
            return out.append_bytes(EXECUTE)
        self.put_numbered_rows(shape, batch.rows)
        types = tq_be16(PyBytes_AS_STRING(oids))
        tq_put_be16(count, batch.rows * shape.nparams if types else 0)
        out.append(count, 2)
        if types:
            for k in range(batch.rows):
                out.append(PyBytes_AS_STRING(oids) + 2, 4 * min(types, shape.nparams))
                out.append_bytes(b"\0" * (4 * max(0, shape.nparams - types)))
        self.close_message(start)
        start = self.open_message(b"B")
        out.append(b"\0\0", 2)
        head = first.tuples_start - 2 - first.sql_start
        formats = tq_be16(p + first.sql_start)
        if formats <= 1:
            out.append(p + first.sql_start, head)
        else:
            tq_put_be16(count, batch.rows * formats)
            out.append(count, 2)
            for k in range(batch.rows):
                out.append(p + first.sql_start + 2, head - 2)
        tq_put_be16(count, batch.rows * shape.nparams)
        out.append(count, 2)
        for item in batch.members:
            session = <PgSession>item
            for k in range(session.nwrites):
                w = session.writes + k
                out.append(session.held.ptr() + w.tuples_start, w.tuples_end - w.tuples_start)
        tail = first.sql_end - first.tuples_end
        out.append(p + first.tuples_end, tail)
        self.close_message(start)
        out.append_bytes(DESCRIBE)
        return out.append_bytes(EXECUTE)

    cdef int put_numbered_rows(self, Shape shape, int rows) except -1:
        """The statement's text with its tuple ``rows`` times, the parameters numbered through."""
        cdef Buffer out = self.out
        cdef int row, number
        cdef bytes text
        cdef char[12] digits
        cdef int k
        out.append_bytes(shape.prefix)
        for row in range(rows):
            if row:
                out.append(b",", 1)
            for text, number in shape.pieces:
                out.append_bytes(text)
                if number:
                    number += row * shape.nparams
                    k = 12
                    while number:
                        k -= 1
                        digits[k] = <char>(48 + number % 10)
                        number //= 10
                    k -= 1
                    digits[k] = b"$"
                    out.append(digits + k, 12 - k)
        out.append_bytes(shape.suffix)
        return out.append(b"\0", 1)

    # --- batches: what is answered ----------------------------------------------------------------------

    cdef int on_batch_message(self, int kind, const char* p, Py_ssize_t total) except -1:
        cdef Batch batch = self.batch
        if self.on_async_message(kind, p, total):
            return 0
        if kind == BE_ERROR:
            self.on_batch_error(batch, pg_sqlstate(p + PG_HEADER, total - PG_HEADER))
        elif batch.phase == PB_WORK:
            self.on_work_message(batch, kind, p, total)
        elif batch.phase == PB_COMMIT:
            if kind == BE_COMMAND_COMPLETE and memcmp(p + PG_HEADER, b"COMMIT", 7) != 0:
                self.fail_batch(batch, RC_ERROR)
            elif kind == BE_READY:
                self.engine.finished(batch)
        elif kind == BE_READY:
            self.engine.finished(batch)
        return 0

    cdef int on_batch_error(self, Batch batch, bytes sqlstate) except -1:
        self.fail_batch(batch, pg_retry_cause(sqlstate))
        if sqlstate in PG_TABLE_ERRORS:
            batch.table_error = True
        elif batch.method == M_PIPELINE and batch.phase == PB_WORK and not self.preamble:
            batch.bad.append(batch.owner(batch.answered))
        return 0

    cdef int on_work_message(self, Batch batch, int kind, const char* p, Py_ssize_t total) except -1:
        if kind == BE_READY:
            if not batch.failed and (self.preamble or (
                    batch.method == M_PIPELINE and batch.answered != batch.nwrites)):
                self.fail_batch(batch, RC_MISMATCH)
            if not batch.failed:
                batch.phase = PB_COMMIT
                self.out.append_bytes(QUERY_COMMIT)
                return self.mark()
            if p[PG_HEADER] == b"I":
                return self.engine.finished(batch)
            batch.phase = PB_ROLLBACK
            self.out.append_bytes(QUERY_ROLLBACK)
            return self.mark()
        if batch.failed:
            return 0
        if self.preamble:
            if kind == BE_COMMAND_COMPLETE:
                self.preamble -= 1
            elif kind == BE_NOTICE:
                self.fail_batch(batch, RC_WARNING)
            return 0
        if kind == BE_PARSE_COMPLETE:
            return 0
        if batch.method == M_PIPELINE:
            return self.on_pipeline_message(batch, kind, p, total)
        return self.on_insert_message(batch, kind, p, total)

    cdef int on_pipeline_message(self, Batch batch, int kind, const char* p, Py_ssize_t total) except -1:
        if kind in (BE_DATA_ROW, BE_BIND_COMPLETE, BE_ROW_DESCRIPTION, BE_NO_DATA, BE_NOTICE):
            batch.response.append(p, total)
        elif kind == BE_COMMAND_COMPLETE:
            batch.response.append(p, total)
            batch.end_write()
        else:
            self.fail_batch(batch, RC_MISMATCH)
        if batch.response.size() > MAX_ANSWER_BYTES:
            self.fail_batch(batch, RC_MISMATCH)
        return 0

    cdef int on_insert_message(self, Batch batch, int kind, const char* p, Py_ssize_t total) except -1:
        cdef bytes expected
        if kind == BE_ROW_DESCRIPTION:
            batch.response.append(p, total)
            batch.head_bytes = total
        elif kind == BE_DATA_ROW:
            batch.response.append(p, total)
            batch.answer_rows += 1
        elif kind == BE_COMMAND_COMPLETE:
            expected = b"INSERT 0 %d" % batch.rows
            if <bytes>(p + PG_HEADER) != expected or (batch.head_bytes and batch.answer_rows != batch.rows):
                self.fail_batch(batch, RC_MISMATCH)
        elif kind == BE_NOTICE:
            self.fail_batch(batch, RC_WARNING)
        return 0

    # --- batches: everybody's own part of the answer ------------------------------------------------------

    cdef int split(self, Batch batch) except -1:
        cdef PgSession session
        cdef const char* p = batch.response.ptr()
        cdef Py_ssize_t at = batch.head_bytes
        cdef Py_ssize_t end
        cdef Write* w
        cdef int k, row
        cdef int number = 0
        cdef bint extended = batch.group.shape.extended
        for item in batch.members:
            session = <PgSession>item
            for k in range(session.nwrites):
                w = session.writes + k
                if w.flags & WF_PARSE:
                    session.out.append_bytes(PARSE_COMPLETE)
                if batch.method == M_PIPELINE:
                    end = batch.end_of(number)
                    session.out.append(p + at, end - at)
                    number += 1
                else:
                    end = at
                    if batch.head_bytes:
                        for row in range(w.rows):
                            end += 1 + <Py_ssize_t>tq_be32(p + end + 1)
                    self.answer_insert(batch, session.out, w, p, at, end, extended)
                at = end
                if w.flags & WF_SYNC:
                    session.out.append_bytes(READY_IDLE)
            session.held_statement = None
            if session.closed:
                session.out.clear()
            else:
                session.mark()
        return 0

    cdef int answer_insert(self, Batch batch, Buffer out, Write* w, const char* p, Py_ssize_t at, Py_ssize_t end,
                           bint extended) except -1:
        """The answer to one member's part of a merged INSERT, up to its CommandComplete."""
        if extended:
            out.append_bytes(BIND_COMPLETE)
        if batch.head_bytes:
            if not extended or w.flags & WF_DESCRIBE:
                out.append(p, batch.head_bytes)
            out.append(p + at, end - at)
        elif w.flags & WF_DESCRIBE:
            out.append_bytes(NO_DATA)
        if w.rows == 1:
            return out.append_bytes(INSERT_ONE)
        return out.append_bytes(pg_message(b"C", b"INSERT 0 %d\0" % w.rows))
