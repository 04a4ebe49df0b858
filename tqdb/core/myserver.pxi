# MariaDB/MySQL: the server connection.

cdef enum MyResponse:
    RS_FIRST = 0        # the first packet of a result
    RS_COLUMNS
    RS_COLUMNS_EOF
    RS_ROWS
    RS_PREPARE_PARAMS
    RS_PREPARE_PARAMS_EOF
    RS_PREPARE_COLUMNS
    RS_PREPARE_COLUMNS_EOF

cdef enum MyPacketKind:
    PK_OTHER = 0
    PK_OK
    PK_ERR
    PK_HEAD             # column count, column definitions and the EOF behind them
    PK_ROW
    PK_END

cdef enum MyBatchPhase:
    MB_BEGIN = 0
    MB_INSERT
    MB_LAST_ID
    MB_PREPARE          # pipeline: the connection is made ready for it
    MB_WORK             # … and everybody's statements are under way
    MB_COMMIT
    MB_ROLLBACK

cdef bytes MY_BEGIN = my_command(COM_QUERY, b"BEGIN")
cdef bytes MY_LOCK_WAIT = b"SET STATEMENT innodb_lock_wait_timeout=1 FOR "
# A deadlock rolls back the whole transaction, and what has been sent behind it must not run outside of one:
# hence autocommit off instead of BEGIN. What is changed for the batch is put back behind it.
cdef bytes MY_PIPELINE_BEGIN = my_command(
    COM_QUERY, b"SET @tqdb_lock_wait = @@innodb_lock_wait_timeout, @tqdb_last_id = LAST_INSERT_ID(), "
    b"autocommit = 0, innodb_lock_wait_timeout = 1")
cdef bytes MY_PIPELINE_END = my_command(
    COM_QUERY, b"SET autocommit = 1, innodb_lock_wait_timeout = @tqdb_lock_wait, "
    b"@tqdb_last_id = LAST_INSERT_ID(@tqdb_last_id)")
cdef bytes MY_COMMIT = my_command(COM_QUERY, b"COMMIT")
cdef bytes MY_ROLLBACK = my_command(COM_QUERY, b"ROLLBACK")
cdef bytes MY_LAST_ID = my_command(COM_QUERY, b"SELECT LAST_INSERT_ID()")


cdef class MyServer(ServerConn):
    """The server's end: follows every answer packet by packet, for its end and its status flags."""
    cdef MySession client
    cdef int response               # MyResponse
    cdef uint64_t columns           # column definitions still to come
    cdef uint32_t prepare_columns
    cdef bint continued
    cdef bint done                  # the packet just read ended the answer to a command
    cdef bint failed                # … with an error
    # of the last OK, EOF or ERR
    cdef uint32_t status
    cdef uint32_t warnings
    cdef uint64_t affected
    cdef uint64_t insert_id
    cdef int error
    cdef list rows                  # of the proxy's own statement
    cdef bint hidden_failed
    cdef bint begin_failed
    cdef bint ending                # the answer to MY_PIPELINE_END is still to come, before any other
    cdef Py_ssize_t status_at       # where the last OK or EOF has its status flags, 0: it has none
    cdef bint mariadb               # and not MySQL, which knows no SET STATEMENT
    cdef bytes tail                 # payload of the packet that ends a RETURNING result

    def __init__(self, Engine engine):
        self.engine = engine

    cdef Py_ssize_t parse(self, const char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t relayed = 0
        cdef Py_ssize_t part, length
        cdef uint8_t mark
        cdef int command
        cdef MySession client = self.client
        if client.state == MY_RAW:
            client.out.append(p, n)
            client.mark()
            return n
        while i < n:
            if self.skip:
                part = min(self.skip, n - i)
                self.skip -= part
                i += part
                continue
            if n - i < MY_HEADER:
                break
            length = my_length(p + i)
            if client.state < MY_READY:
                if n - i < MY_HEADER + length:
                    break
                self.login_packet(p + i, length)
                if self.closed:
                    return n
                i += MY_HEADER + length
                relayed = i
                continue
            if self.batch is not None or self.hidden or self.ending:
                self.relay(p + relayed, i - relayed)
                relayed = i
                if n - i < MY_HEADER + length:
                    break
                if self.ending:
                    self.ending_packet(p + i, length)
                elif self.batch is not None:
                    self.batch_packet(p + i, length)
                else:
                    self.hidden_packet(p + i, length)
                if self.closed:
                    return n
                i += MY_HEADER + length
                relayed = i
                continue
            if client.ncommands == 0:
                # nothing was asked: the server says why it goes
                if n - i < MY_HEADER + length:
                    break
                i += MY_HEADER + length
                continue
            if self.continued:
                self.continued = length == MY_MAX_PACKET
            else:
                if n - i < MY_HEADER + min(length, MY_LOOK):
                    break
                mark = <uint8_t>p[i + MY_HEADER] if length else 1
                if (mark == MARK_OK or mark >= MARK_EOF) and length < 65536 and n - i < MY_HEADER + length:
                    break
                self.continued = length == MY_MAX_PACKET
                command = client.commands[client.first_command]
                self.done = self.failed = False
                self.read_packet(command, p + i + MY_HEADER, length)
                if self.done:
                    i += MY_HEADER + length
                    self.relay(p + relayed, i - relayed)
                    relayed = i
                    client.on_done(command, self.failed)
                    continue
            part = min(MY_HEADER + length, n - i)
            self.skip = MY_HEADER + length - part
            i += part
        self.relay(p + relayed, i - relayed)
        return i

    # --- login ----------------------------------------------------------------------------------------

    cdef int login_packet(self, const char* p, Py_ssize_t length) except -1:
        cdef MySession client = self.client
        cdef uint8_t mark = <uint8_t>p[MY_HEADER] if length else 0
        if client.state == MY_GREETING:
            if mark == MARK_ERR:
                self.relay(p, MY_HEADER + length)
                client.finish()
                return 0
            greeting = self.greeting(p[MY_HEADER:MY_HEADER + length])
            if greeting is None:
                log.error("server %s does not speak protocol 10; connection closed", client.backend)
                client.refuse("connect", "The server does not speak protocol version 10")
                self.abort()
                return 0
            client.state = MY_LOGIN
            client.out.append_bytes(my_packet(0, greeting))
            client.mark()
            return client.release()
        self.relay(p, MY_HEADER + length)
        client.sequence = <uint8_t>p[3]
        if mark == MARK_OK and client.state == MY_AUTH:
            self.read_ok(p + MY_HEADER, length)
            client.on_status(self.status, 0)
            client.login_done()
        elif mark == MARK_ERR:
            client.finish()
        return 0

    cdef greeting(self, bytes payload):
        """The server's greeting without what the proxy cannot carry; None if it is of another protocol."""
        nul = payload.find(b"\0")
        at = nul + 14                       # protocol, version\0, thread id, 8 bytes of scramble, filler
        if payload[:1] != b"\x0a" or nul < 0 or len(payload) < at + 16:
            return None
        self.client.thread = self.client.address, int.from_bytes(payload[nul + 1:nul + 5], "little")
        self.engine.cancel_keys[self.client.thread] = self.client
        self.mariadb = b"mariadb" in payload[1:nul].lower()
        lower = int.from_bytes(payload[at:at + 2], "little") & ~(CLIENT_COMPRESS | CLIENT_SSL)
        upper = int.from_bytes(payload[at + 5:at + 7], "little") & ~(
            (CLIENT_ZSTD | CLIENT_QUERY_ATTRIBUTES) >> 16)
        extended = payload[at + 14:at + 18]
        if not lower & CLIENT_MYSQL:
            extended = (int.from_bytes(extended, "little") & ~MARIADB_COM_MULTI).to_bytes(4, "little")
        return b"".join((payload[:at], lower.to_bytes(2, "little"), payload[at + 2:at + 5],
                         upper.to_bytes(2, "little"), payload[at + 7:at + 14], extended,
                         payload[at + 18:]))

    # --- one packet of an answer ------------------------------------------------------------------------

    cdef int read_ok(self, const char* q, Py_ssize_t n) except -1:
        cdef Py_ssize_t i = 1
        i += read_lenenc(q + i, n - i, &self.affected)
        i += read_lenenc(q + i, n - i, &self.insert_id)
        self.status_at = 0
        if n >= i + 4:
            self.status_at = i
            self.status = le16(q + i)
            self.warnings = le16(q + i + 2)
        return 0

    cdef int read_eof(self, const char* q, Py_ssize_t n) except -1:
        self.affected = self.insert_id = 0
        self.status_at = 0
        if n >= 5:
            self.status_at = 3
            self.warnings = le16(q + 1)
            self.status = le16(q + 3)
        return 0

    cdef int end_result(self) except -1:
        """An OK or EOF ended a result: another may follow."""
        self.response = RS_FIRST
        if not self.status & STATUS_MORE_RESULTS:
            self.done = True
        if self.batch is None and not self.hidden:
            self.client.on_status(self.status, self.insert_id)
        return 0

    cdef int read_error(self, const char* q, Py_ssize_t n) except -1:
        self.error = le16(q + 1) if n >= 3 else 0
        if self.error == 0xFFFF and self.client.extended & MARIADB_PROGRESS and self.response == RS_FIRST:
            return PK_OTHER             # a progress report
        self.response = RS_FIRST
        self.done = self.failed = True
        return PK_ERR

    cdef int read_packet(self, int command, const char* q, Py_ssize_t n) except -1:
        """Classifies one packet of the answer to ``command`` and moves the response state on."""
        cdef uint8_t mark = <uint8_t>q[0] if n else 1
        cdef bint deprecate_eof = self.client.capabilities & CLIENT_DEPRECATE_EOF != 0
        if self.response == RS_ROWS:
            return self.read_row(mark, deprecate_eof, q, n)
        if self.response == RS_FIRST:
            if command == COM_STMT_FETCH or command == COM_FIELD_LIST:
                return self.read_row(mark, deprecate_eof, q, n)
            return self.read_first(command, mark, deprecate_eof, q, n)
        if self.response == RS_COLUMNS:
            self.columns -= 1
            if self.columns == 0:
                self.response = RS_ROWS if deprecate_eof else RS_COLUMNS_EOF
            return PK_HEAD
        if self.response == RS_COLUMNS_EOF:
            self.read_eof(q, n)
            self.response = RS_ROWS
            if self.status & STATUS_CURSOR_EXISTS:
                self.end_result()
                return PK_END
            return PK_HEAD
        if self.response == RS_PREPARE_PARAMS or self.response == RS_PREPARE_COLUMNS:
            self.columns -= 1
            if self.columns == 0:
                if deprecate_eof:
                    self.after_prepare_part()
                else:
                    self.response += 1
            return PK_OTHER
        self.after_prepare_part()
        return PK_OTHER

    cdef int read_row(self, uint8_t mark, bint deprecate_eof, const char* q, Py_ssize_t n) except -1:
        if mark == MARK_ERR:
            return self.read_error(q, n)
        if mark == MARK_EOF and n < (MY_MAX_PACKET if deprecate_eof else 9):
            if deprecate_eof and n >= 7:
                self.read_ok(q, n)
            else:
                self.read_eof(q, n)
            self.end_result()
            return PK_END
        return PK_ROW

    cdef int read_first(self, int command, uint8_t mark, bint deprecate_eof, const char* q,
                        Py_ssize_t n) except -1:
        cdef Py_ssize_t size
        if command == COM_STATISTICS:
            self.done = True
            return PK_OTHER
        if mark == MARK_ERR:
            if command == COM_STMT_PREPARE and self.client.prepared:
                self.client.prepared.popleft()
            return self.read_error(q, n)
        if mark == MARK_OK:
            if command == COM_STMT_PREPARE:
                self.read_prepare_ok(q, n)
                return PK_OTHER
            self.read_ok(q, n)
            self.end_result()
            return PK_OK
        if command == COM_CHANGE_USER:
            return PK_OTHER             # the authentication exchange goes on
        if mark == MARK_EOF and n < 9:
            self.read_eof(q, n)
            self.end_result()
            return PK_END
        if mark == MARK_INFILE:
            self.client.in_infile = True
            return PK_OTHER
        size = read_lenenc(q, n, &self.columns)
        if self.client.extended & MARIADB_CACHE_METADATA and n > size and q[size] == 0:
            self.columns = 0
        self.response = RS_COLUMNS if self.columns else RS_ROWS if deprecate_eof else RS_COLUMNS_EOF
        return PK_HEAD

    cdef int read_prepare_ok(self, const char* q, Py_ssize_t n) except -1:
        """Statement id, column and parameter counts; the definitions follow, parameters first."""
        cdef MySession client = self.client
        cdef uint32_t params
        known = client.prepared.popleft() if client.prepared else None
        if n < 9:
            self.done = True
            return 0
        if known is not None:
            if len(client.statements) >= MAX_NAMED_STATEMENTS:
                client.statements.clear()
            client.statements[le32(q + 1)] = known
            (<MyStatement>known).nparams = le16(q + 7)
        self.prepare_columns = le16(q + 5)
        params = le16(q + 7)
        if params:
            self.columns = params
            self.response = RS_PREPARE_PARAMS
            return 0
        return self.begin_prepare_columns()

    cdef int begin_prepare_columns(self) except -1:
        if self.prepare_columns:
            self.columns = self.prepare_columns
            self.response = RS_PREPARE_COLUMNS
        else:
            self.response = RS_FIRST
            self.done = True
        return 0

    cdef int after_prepare_part(self) except -1:
        if self.response == RS_PREPARE_PARAMS or self.response == RS_PREPARE_PARAMS_EOF:
            return self.begin_prepare_columns()
        self.response = RS_FIRST
        self.done = True
        return 0

    # --- the proxy's own statements -------------------------------------------------------------------

    cdef int run_hidden(self, bytes sql, int purpose) except -1:
        self.hidden = purpose
        self.rows = []
        self.out.append_bytes(my_command(COM_QUERY, sql))
        return self.mark()

    cdef int hidden_packet(self, const char* p, Py_ssize_t length) except -1:
        cdef int purpose = self.hidden
        self.done = self.failed = False
        if self.read_packet(COM_QUERY, p + MY_HEADER, length) == PK_ROW:
            self.rows.append(my_text_row(p[MY_HEADER:MY_HEADER + length]))
        if self.done:
            self.hidden = H_NONE
            rows = None if self.failed else self.rows
            self.rows = None
            self.client.hidden_done(purpose, rows)
        return 0

    # --- batches ----------------------------------------------------------------------------------------

    cdef int begin_batch(self, Batch batch) except -1:
        """BEGIN and the merged INSERT in one send; COMMIT follows once the answer is what it must be.

        An OK packet tells the number of warnings of the whole batch, not whose they are: a batch with one is
        rolled back and its members go alone, each with its own. A batch that meets another's lock gives up
        after the shortest time InnoDB knows and is halved, so that only the member whose row is locked waits.
        """
        cdef Buffer out = self.out
        cdef Py_ssize_t start
        if batch.method == M_PIPELINE:
            batch.phase = MB_PREPARE
            out.append_bytes(MY_PIPELINE_BEGIN)
            return self.mark()
        out.append_bytes(MY_BEGIN)
        start = out.size()
        out.append(b"\0\0\0\0\3", MY_HEADER + 1)
        if self.mariadb:
            out.append_bytes(MY_LOCK_WAIT)
        self.put_merged(batch)
        put_packet_header(out.ptr() + start, out.size() - start - MY_HEADER, 0)
        batch.phase = MB_BEGIN
        batch.first_id = 0
        self.begin_failed = False
        self.tail = None
        return self.mark()

    cdef int batch_packet(self, const char* p, Py_ssize_t length) except -1:
        cdef Batch batch = self.batch
        cdef int kind
        self.done = self.failed = False
        if self.continued:
            self.continued = length == MY_MAX_PACKET
            return 0
        kind = self.read_packet(COM_QUERY, p + MY_HEADER, length)
        if batch.method == M_PIPELINE:
            return self.pipeline_packet(batch, kind, p, length)
        if length == MY_MAX_PACKET:
            self.continued = True
            self.fail_batch(batch, RC_MISMATCH)
        if batch.phase == MB_BEGIN:
            if self.failed:
                self.begin_failed = True
            batch.phase = MB_INSERT
        elif batch.phase == MB_INSERT:
            self.insert_packet(batch, kind, p, length)
        elif batch.phase == MB_LAST_ID:
            if kind == PK_ROW:
                batch.first_id = int(my_text_row(p[MY_HEADER:MY_HEADER + length])[0])
            if self.done:
                if self.failed or batch.first_id == 0:
                    self.fail_batch(batch, RC_MISMATCH)
                self.end_transaction(batch)
        elif self.done:
            if batch.phase == MB_COMMIT and self.failed:
                self.fail_batch(batch, my_retry_cause(self.error))
            self.engine.finished(batch)
        return 0

    # --- batches as a pipeline of everybody's own statements ------------------------------------------------

    cdef int put_pipeline(self, Batch batch) except -1:
        """Everybody's command; executions are of the leader's own prepared statement."""
        cdef MySession session
        cdef Shape shape = batch.group.shape
        cdef Buffer out = self.out
        cdef Write* w
        cdef const char* p
        cdef char[14] head
        cdef char[4] number
        cdef Py_ssize_t bitmap, length
        cdef bytes types
        cdef int k
        memcpy(number, self.client.held.ptr() + MY_HEADER + 1, 4)
        for item in batch.members:
            session = <MySession>item
            p = session.held.ptr()
            types = session.first_types
            for k in range(session.nwrites):
                w = session.writes + k
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
        return 0

    cdef int pipeline_packet(self, Batch batch, int kind, const char* p, Py_ssize_t length) except -1:
        if batch.phase == MB_PREPARE:
            if self.failed:
                self.fail_batch(batch, RC_ERROR)
                return self.engine.finished(batch)
            batch.phase = MB_WORK
            self.put_pipeline(batch)
            return self.mark()
        if batch.phase == MB_WORK:
            return self.work_packet(batch, kind, p, length)
        if batch.phase == MB_COMMIT:
            if self.failed:
                self.fail_batch(batch, my_retry_cause(self.error))
                batch.phase = MB_ROLLBACK
                self.out.append_bytes(MY_ROLLBACK)
                return self.mark()
        elif self.failed:
            # what is not kept must not be committed by MY_PIPELINE_END: the server rolls it back when we go
            self.abort()
            self.client.connection_lost()
            return self.engine.finished(batch)
        self.ending = True
        self.out.append_bytes(MY_PIPELINE_END)
        self.mark()
        if self.client.held_statement is not None:
            self.client.held_statement.server_types = None      # the last member's, whoever that was
        return self.engine.finished(batch)

    cdef int work_packet(self, Batch batch, int kind, const char* p, Py_ssize_t length) except -1:
        """One packet of the answer to the member whose turn it is."""
        cdef Py_ssize_t at = batch.response.size()
        cdef char* status
        if not batch.failed:
            batch.response.append(p, MY_HEADER + length)
            if kind == PK_OK or kind == PK_END or (kind == PK_HEAD and length == 5 and p[MY_HEADER] == <char>0xFE):
                if self.status_at:
                    status = batch.response.ptr() + at + MY_HEADER + self.status_at
                    status[0] = <char>((<uint8_t>status[0] | STATUS_AUTOCOMMIT) & ~STATUS_IN_TRANS)
                    status[1] = <char>(<uint8_t>status[1] & ~(STATUS_IN_TRANS_READONLY >> 8))
            if length == MY_MAX_PACKET or batch.response.size() > MAX_ANSWER_BYTES:
                self.continued = length == MY_MAX_PACKET
                self.fail_batch(batch, RC_MISMATCH)
        if not self.done:
            return 0
        if self.failed:
            if self.error in MY_TABLE_ERRORS:
                batch.table_error = True
            self.fail_batch(batch, my_retry_cause(self.error))
            batch.bad.append(batch.owner(batch.answered))
        elif self.warnings:
            self.fail_batch(batch, RC_WARNING)
            batch.bad.append(batch.owner(batch.answered))
        batch.end_write()
        if batch.answered < batch.nwrites:
            return 0
        return self.end_transaction(batch)

    cdef int ending_packet(self, const char* p, Py_ssize_t length) except -1:
        self.done = self.failed = False
        self.read_packet(COM_QUERY, p + MY_HEADER, length)
        if self.done:
            self.ending = False
            if self.failed:
                log.error("server %s did not take autocommit back; connection closed", self.client.backend)
                self.eof()
        return 0

    cdef int split_pipeline(self, Batch batch) except -1:
        cdef MySession session
        cdef const char* p = batch.response.ptr()
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t end
        cdef int k
        cdef int number = 0
        for item in batch.members:
            session = <MySession>item
            for k in range(session.nwrites):
                end = batch.end_of(number)
                number += 1
                session.row_count = -1
                if p[at + MY_HEADER] == MARK_OK:
                    self.read_ok(p + at + MY_HEADER, my_length(p + at))
                    session.row_count = <int64_t>self.affected
                    session.status = self.status
                    if self.insert_id:
                        session.insert_id = self.insert_id
                        session.insert_id_due = True
                if not session.closed:
                    session.out.append(p + at, end - at)
                at = end
            session.status_unknown = False
            session.stale_diagnostics = True
            session.held_statement = None
            session.mark()
        return 0

    # --- batches as one INSERT -------------------------------------------------------------------------------

    cdef int insert_packet(self, Batch batch, int kind, const char* p, Py_ssize_t length) except -1:
        cdef int step = batch.group.facts.id_step
        if kind == PK_HEAD:
            batch.response.append(p, MY_HEADER + length)
            batch.head_bytes += MY_HEADER + length
        elif kind == PK_ROW:
            batch.response.append(p, MY_HEADER + length)
            batch.answer_rows += 1
        elif kind == PK_ERR:
            self.fail_batch(batch, my_retry_cause(self.error))
            if self.error in MY_TABLE_ERRORS:
                batch.table_error = True
        elif kind == PK_END:
            self.tail = p[MY_HEADER:MY_HEADER + length]
            if batch.answer_rows != batch.rows:
                self.fail_batch(batch, RC_MISMATCH)
        elif kind == PK_OK:
            batch.first_id = self.insert_id
            if self.affected != <uint64_t>batch.rows or (step and not self.insert_id):
                self.fail_batch(batch, RC_MISMATCH)
        if not self.done:
            return 0
        if not self.failed and self.warnings:
            self.fail_batch(batch, RC_WARNING)
        if self.begin_failed:
            # the INSERT ran on its own: what the server did with it stands
            if batch.failed and not self.failed:
                self.engine.lost(batch)
                self.abort()
                self.client.server_gone()
            else:
                self.engine.finished(batch)
            return 0
        if batch.head_bytes and step and not batch.failed:
            batch.phase = MB_LAST_ID
            self.out.append_bytes(MY_LAST_ID)
            return self.mark()
        return self.end_transaction(batch)

    cdef int end_transaction(self, Batch batch) except -1:
        if batch.failed:
            batch.phase = MB_ROLLBACK
            self.out.append_bytes(MY_ROLLBACK)
        else:
            batch.phase = MB_COMMIT
            self.out.append_bytes(MY_COMMIT)
        return self.mark()

    cdef int split(self, Batch batch) except -1:
        cdef MySession session
        cdef uint64_t insert_id = batch.first_id
        cdef uint64_t step = batch.group.facts.id_step
        cdef Py_ssize_t at = batch.head_bytes
        cdef int k
        cdef uint32_t status = self.status & ~(STATUS_IN_TRANS | STATUS_MORE_RESULTS)
        if batch.method == M_PIPELINE:
            return self.split_pipeline(batch)
        if batch.head_bytes and not self.client.capabilities & CLIENT_DEPRECATE_EOF:
            # the EOF behind the column definitions told of the batch's transaction
            batch.response.ptr()[batch.head_bytes - 2] &= ~STATUS_IN_TRANS
        for item in batch.members:
            session = <MySession>item
            for k in range(session.nwrites):
                if batch.head_bytes:
                    at = self.split_rows(batch, session, session.writes[k].rows, at, insert_id, status)
                elif not session.closed:
                    self.answer_ok(session, session.writes[k].rows, insert_id, status)
                if step:
                    session.insert_id = insert_id
                    session.insert_id_due = True
                    insert_id += step * <uint64_t>session.writes[k].rows
                session.row_count = -1 if batch.head_bytes else session.writes[k].rows
            session.status = status
            session.status_unknown = False
            session.stale_diagnostics = True
            session.mark()
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
        cdef bytes tail = self.tail
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
