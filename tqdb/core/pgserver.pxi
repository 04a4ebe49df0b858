# PostgreSQL: the server connection.

cdef enum PgBatchPhase:
    PB_INSERT = 0       # BEGIN and the merged INSERT are under way
    PB_COMMIT
    PB_ROLLBACK


cdef class PgServer(ServerConn):
    """The server's end: relays answers, and reads those of batches and of the proxy's own statements."""
    cdef PgSession client
    cdef Buffer collected

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

    # --- batches ----------------------------------------------------------------------------------------

    cdef int begin_batch(self, Batch batch) except -1:
        """BEGIN and the merged INSERT in one Query; COMMIT follows once the answer is what it must be.

        So a batch whose answer cannot be shared out (a row count that does not fit, a notice) is rolled back
        and its members go alone. A batch that meets another's lock gives up soon and is halved, so that only
        the member whose row is locked waits for it.
        """
        cdef Buffer out = self.out
        cdef Py_ssize_t start = out.size()
        out.append(b"Q\0\0\0\0", PG_HEADER)
        out.append_bytes(PG_BEGIN)
        self.put_merged(batch)
        out.append(b"\0", 1)
        tq_put_be32(out.ptr() + start + 1, <uint32_t>(out.size() - start - 1))
        batch.phase = PB_INSERT
        return self.mark()

    cdef int on_batch_message(self, int kind, const char* p, Py_ssize_t total) except -1:
        cdef Batch batch = self.batch
        if self.on_async_message(kind, p, total):
            return 0
        if kind == BE_ERROR:
            sqlstate = pg_sqlstate(p + PG_HEADER, total - PG_HEADER)
            self.fail_batch(batch, pg_retry_cause(sqlstate))
            if sqlstate in PG_TABLE_ERRORS:
                batch.table_error = True
        elif batch.phase == PB_INSERT:
            self.on_insert_message(batch, kind, p, total)
        elif batch.phase == PB_COMMIT:
            if kind == BE_COMMAND_COMPLETE and memcmp(p + PG_HEADER, b"COMMIT", 7) != 0:
                self.fail_batch(batch, RC_ERROR)
            elif kind == BE_READY:
                self.engine.finished(batch)
        elif kind == BE_READY:
            self.engine.finished(batch)
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
            if memcmp(p + PG_HEADER, b"BEGIN", 6) != 0 and memcmp(p + PG_HEADER, b"SET", 4) != 0:
                expected = b"INSERT 0 %d" % batch.rows
                if <bytes>(p + PG_HEADER) != expected or (
                        batch.head_bytes and batch.answer_rows != batch.rows):
                    self.fail_batch(batch, RC_MISMATCH)
        elif kind == BE_NOTICE:
            self.fail_batch(batch, RC_WARNING)
        elif kind == BE_READY:
            if not batch.failed:
                batch.phase = PB_COMMIT
                self.out.append_bytes(QUERY_COMMIT)
                self.mark()
            elif p[PG_HEADER] == b"I":
                self.engine.finished(batch)
            else:
                batch.phase = PB_ROLLBACK
                self.out.append_bytes(QUERY_ROLLBACK)
                self.mark()
        return 0

    cdef int split(self, Batch batch) except -1:
        cdef Session session
        cdef const char* p = batch.response.ptr()
        cdef Py_ssize_t at = batch.head_bytes
        cdef Py_ssize_t end
        cdef int k
        cdef bytes tag
        for item in batch.members:
            session = <Session>item
            end = at
            if batch.head_bytes:
                for k in range(session.ntuples):
                    end += 1 + <Py_ssize_t>tq_be32(p + end + 1)
            if not session.closed:
                if batch.head_bytes:
                    session.out.append(p, batch.head_bytes)
                    session.out.append(p + at, end - at)
                if session.ntuples == 1:
                    session.out.append_bytes(INSERT_ONE)
                else:
                    tag = pg_message(b"C", b"INSERT 0 %d\0" % session.ntuples)
                    session.out.append_bytes(tag)
                    session.out.append_bytes(READY_IDLE)
                session.mark()
            at = end
        return 0
