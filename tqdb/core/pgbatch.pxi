# PostgreSQL: a batch on a server connection, what is sent, what is answered, and everybody's part of it.

cdef bytes QUERY_COMMIT = pg_query(b"COMMIT")
cdef bytes QUERY_ROLLBACK = pg_query(b"ROLLBACK")

# What opens a batch's transaction. Limits that end the connection are off in it: they are meant for a session's own
# transaction, and here would end all members by the sum of their writes, or for the proxy's turn before COMMIT.
cdef list PG_OPENINGS = [b"BEGIN", b"SET LOCAL lock_timeout=100", b"SET LOCAL idle_in_transaction_session_timeout=0",
                         b"SET LOCAL transaction_timeout=0"]
cdef enum:
    OPENS_ANY = 2               # statements of these for any server, …
    OPENS_9_6 = 3               # … since the version that has the setting
    OPENS_17 = 4
cdef bytes STATEMENT_END = b"\n;"        # a line comment at the end of a statement ends with its line
cdef list OPENING_TEXTS = [b";".join(PG_OPENINGS[:_i]) + b";" for _i in range(OPENS_17 + 1)]
cdef list OPENING_MESSAGES = [b"".join([pg_run(_text) for _text in PG_OPENINGS[:_i]]) for _i in range(OPENS_17 + 1)]


# Around the statements of a batch of several groups: one that takes longer fails, and goes with its like. Not for
# COMMIT: it may wait for a standby, which a limit would end.
cdef bytes MIXED_LIMIT = b"SET LOCAL statement_timeout=%d" % MIXED_MS
cdef bytes NO_LIMIT = b"SET LOCAL statement_timeout=0"
cdef bytes MIXED_MESSAGES = pg_run(MIXED_LIMIT)
cdef bytes UNLIMITED_MESSAGES = pg_run(NO_LIMIT)


cdef enum Numbered:
    # texts of one shape as executions of one statement
    N_NOT = 0
    N_PARSED            # sent, and none of the executions has begun to be answered
    N_BOUND


cdef int pg_opens(int major, bytes version) except -1:
    """How many of ``PG_OPENINGS`` a server knows."""
    if major >= 17:
        return OPENS_17
    return OPENS_9_6 if major >= 10 or version[:3] == b"9.6" else OPENS_ANY


cdef class PgBatchServer(SessionServer):
    """A server connection as far as it leads batches."""
    cdef PgSession pg               # the same as ``session``
    cdef PgExpectations expected    # the same as ``queue``
    cdef int major                  # of the server's version; 0: not looked at yet
    cdef int opens                  # statements that open its batches' transactions; 0: it has led none
    cdef int numbered               # Numbered
    cdef int preamble               # of them, those not answered yet …
    cdef int ending                 # … and of those behind the members' statements

    def __cinit__(self, *args, **kwargs):
        self.queue = self.expected = PgExpectations()

    cdef int join_session(self, Session session) except -1:
        self.pg = <PgSession>session
        return SessionServer.join_session(self, session)

    cdef inline int replaces_unnamed(self) except -1:
        """Something of the proxy's takes the place of the unnamed statement."""
        self.pg.statements.unnamed.here = False
        return 0

    # --- what is sent -----------------------------------------------------------------------------------

    cdef bint mixes(self, Group group) except -1:
        """Since PostgreSQL 13 a limit of time counts for each statement of a message."""
        return self.major_version() >= 13

    cdef int major_version(self) except -1:
        """By its ``server_version``: ``15.4 (Debian …)``, ``18beta1``."""
        cdef bytes version
        cdef bytes digits
        if not self.major:
            version = self.pg.login_params.get(b"server_version", b"")
            digits = version[:2] if version[1:2].isdigit() else version[:1]
            self.major = int(digits) if digits.isdigit() else 1
        return self.major

    cdef int begin_batch(self, Batch batch) except -1:
        """BEGIN and the batch's statements; COMMIT follows once the answer is what it must be.

        So a batch whose answer cannot be shared out (a row count that does not fit, a notice) is rolled back
        and its members go alone. A batch that meets another's lock gives up soon, so that only the member whose
        row is locked waits for it. An error anywhere makes the server skip all that follows, BEGIN included.
        """
        cdef Buffer out = self.out
        cdef Py_ssize_t start
        cdef Unit unit
        cdef bint mixed
        batch.phase = B_WORK
        if not self.opens:
            self.opens = pg_opens(self.major_version(), self.pg.login_params.get(b"server_version", b""))
        self.preamble = self.opens
        self.ending = 0
        self.numbered = N_NOT
        self.replaces_unnamed()
        if len(batch.members) > 1:
            self.pg.sequences_stale = True
        self.expected.push(X_BATCH, FE_QUERY)
        mixed = len(batch.units) > 1
        if mixed:
            self.preamble += 1
            self.ending = 1
        if (<Unit>batch.units[0]).group.shape.extended:
            out.append_bytes(<bytes>OPENING_MESSAGES[self.opens])
            if mixed:
                out.append_bytes(MIXED_MESSAGES)
            for item in batch.units:
                unit = <Unit>item
                if unit.method == M_PIPELINE:
                    self.put_pipeline(unit)
                else:
                    self.put_bound_insert(unit)
            if mixed:
                out.append_bytes(UNLIMITED_MESSAGES)
            out.append_bytes(SYNC)
            return self.mark()
        if self.begin_numbered(batch):
            return self.mark()
        start = open_message(self.out, b"Q")
        out.append_bytes(<bytes>OPENING_TEXTS[self.opens])
        if mixed:
            out.append_bytes(MIXED_LIMIT + b";")
        for item in batch.units:
            unit = <Unit>item
            if unit.method == M_PIPELINE:
                self.put_statements(unit)
            else:
                self.put_merged(unit)
                if mixed:
                    out.append_bytes(STATEMENT_END)
        if mixed:
            out.append_bytes(NO_LIMIT)
        out.append(b"\0", 1)
        close_message(self.out, start)
        return self.mark()

    cdef bint begin_numbered(self, Batch batch) except -1:
        """Texts of one shape that differ in values only, as executions of one statement; False: not sent so."""
        cdef Unit unit = <Unit>batch.units[0]
        cdef Py_ssize_t at = self.out.size()
        if len(batch.units) > 1 or not unit.group.shape.numbered or unit.nwrites < FEWEST_NUMBERED:
            return False
        self.out.append_bytes(<bytes>OPENING_MESSAGES[self.opens])
        if not put_numbered(self.out, unit):
            self.out.truncate(at)
            return False
        self.out.append_bytes(SYNC)
        self.numbered = N_PARSED
        return True

    cdef int enter(self, Batch batch) except -1:
        if batch.phase == B_COMMIT:
            self.out.append_bytes(QUERY_COMMIT)
            batch.commit_at = self.out.position()
        elif batch.phase == B_ROLLBACK:
            self.out.append_bytes(QUERY_ROLLBACK)
        else:
            # ROLLBACK does not fail: whoever refuses it ends with its transaction
            return self.disconnect(C_CUT)
        self.expected.push(X_BATCH, FE_QUERY)
        return self.mark()

    cdef int put_statements(self, Unit unit) except -1:
        """Everybody's statement, one behind the other."""
        cdef Held held
        cdef int k
        for item in unit.members:
            held = <Held>item
            for k in range(held.nwrites):
                self.out.append(held.data.ptr() + held.writes[k].sql_start,
                                held.writes[k].sql_end - held.writes[k].sql_start)
                self.out.append_bytes(STATEMENT_END)
        return 0

    cdef int put_pipeline(self, Unit unit) except -1:
        """Bind, Describe and Execute of everybody, for the statement parsed once, without a name.

        A name of the leader's would do, but its plan would age by the others' executions, and the leader could
        tell from when its errors come.
        """
        cdef PgStatement statement = (<PgSession>(<Held>unit.members[0]).owner).held_statement
        cdef Buffer out = self.out
        cdef Held held
        cdef Write* w
        cdef const char* p
        cdef Py_ssize_t start
        cdef int k
        cdef bint bound = unit.group.shape.form == FORM_BOUND
        if bound:
            start = open_message(self.out, b"P")
            out.append(b"\0", 1)
            k = PG_HEADER + PyBytes_GET_SIZE(statement.name) + 1
            out.append(PyBytes_AS_STRING(statement.message) + k, PyBytes_GET_SIZE(statement.message) - k)
            close_message(self.out, start)
        for item in unit.members:
            held = <Held>item
            p = held.data.ptr()
            for k in range(held.nwrites):
                w = held.writes + k
                if bound:
                    start = open_message(self.out, b"B")
                    out.append(b"\0\0", 2)
                    out.append(p + w.sql_start, w.sql_end - w.sql_start)
                    close_message(self.out, start)
                else:
                    out.append(p + w.parse, w.bind - w.parse)
                    out.append(p + w.bind, w.bind_end - w.bind)
                if w.flags & WF_DESCRIBE:
                    out.append_bytes(DESCRIBE)
                out.append_bytes(EXECUTE)
        return 0

    cdef int put_bound_insert(self, Unit unit) except -1:
        """Parse of one INSERT with everybody's rows, Bind of everybody's values, Describe and Execute."""
        cdef Held held = <Held>unit.members[0]
        cdef Shape shape = unit.group.shape
        cdef Write* first = held.writes
        cdef Write* w
        cdef Buffer out = self.out
        cdef const char* p = held.data.ptr()
        cdef Py_ssize_t start = open_message(self.out, b"P")
        cdef Py_ssize_t head, tail
        cdef bytes oids = (<PgSession>held.owner).held_statement.oids
        cdef int k, types, formats
        cdef char[2] count
        out.append(b"\0", 1)
        if shape.form == FORM_CUT:
            self.put_merged(unit)
            out.append(b"\0\0\0", 3)
            close_message(self.out, start)
            start = open_message(self.out, b"B")
            out.append(p + first.bind + PG_HEADER, first.bind_end - first.bind - PG_HEADER)
            close_message(self.out, start)
            out.append_bytes(DESCRIBE)
            return out.append_bytes(EXECUTE)
        self.put_numbered_rows(shape, unit.rows)
        types = tq_be16(PyBytes_AS_STRING(oids))
        tq_put_be16(count, unit.rows * shape.nparams if types else 0)
        out.append(count, 2)
        if types:
            for k in range(unit.rows):
                out.append(PyBytes_AS_STRING(oids) + 2, 4 * min(types, shape.nparams))
                out.append_bytes(b"\0" * (4 * max(0, shape.nparams - types)))
        close_message(self.out, start)
        start = open_message(self.out, b"B")
        out.append(b"\0\0", 2)
        head = first.tuples_start - 2 - first.sql_start
        formats = tq_be16(p + first.sql_start)
        if formats <= 1:
            out.append(p + first.sql_start, head)
        else:
            tq_put_be16(count, unit.rows * formats)
            out.append(count, 2)
            for k in range(unit.rows):
                out.append(p + first.sql_start + 2, head - 2)
        tq_put_be16(count, unit.rows * shape.nparams)
        out.append(count, 2)
        for item in unit.members:
            held = <Held>item
            for k in range(held.nwrites):
                w = held.writes + k
                out.append(held.data.ptr() + w.tuples_start, w.tuples_end - w.tuples_start)
        tail = first.sql_end - first.tuples_end
        out.append(p + first.tuples_end, tail)
        close_message(self.out, start)
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

    # --- what is answered -------------------------------------------------------------------------------

    cdef int on_batch_message(self, int kind, const char* p, Py_ssize_t total) except -1:
        cdef Batch batch = self.batch
        cdef Unit unit
        if kind == BE_ERROR:
            return self.on_batch_error(batch, pg_field(p + PG_HEADER, total - PG_HEADER, b"C"))
        if kind == BE_READY:
            return self.on_batch_ready(batch, p[PG_HEADER])
        if batch.phase == B_COMMIT:
            if kind == BE_COMMAND_COMPLETE and memcmp(p + PG_HEADER, b"COMMIT", 7) != 0:
                batch.fail(RC_ERROR)
        elif batch.phase == B_WORK and not batch.failed:
            unit = batch.unit()
            if self.preamble:
                if kind == BE_COMMAND_COMPLETE:
                    self.preamble -= 1
                elif kind == BE_NOTICE:
                    batch.fail(RC_WARNING)
            elif kind == BE_PARSE_COMPLETE:
                pass
            elif unit is None and self.ending and kind != BE_NOTICE:
                self.ending -= kind == BE_COMMAND_COMPLETE
            elif unit is None:
                batch.fail(RC_WARNING if kind == BE_NOTICE else RC_MISMATCH)
            elif self.numbered:
                self.on_numbered_message(batch, unit, kind, p, total)
            elif unit.method == M_PIPELINE:
                self.on_pipeline_message(batch, unit, kind, p, total)
            else:
                self.on_insert_message(batch, unit, kind, p, total)
        return 0

    cdef int on_batch_error(self, Batch batch, bytes sqlstate) except -1:
        cdef int cause = pg_retry_cause(sqlstate)
        cdef Unit unit = batch.unit()
        if batch.phase != B_WORK or unit is None:
            return batch.fail(cause)
        if sqlstate in PG_TABLE_ERRORS:
            return batch.fail_table(cause)
        if self.preamble:
            return batch.fail(cause)
        if self.numbered == N_PARSED:
            unit.group.shape.numbered = False
            return batch.fail_unit(cause)
        if unit.method == M_PIPELINE:
            batch.blame(unit)
        return batch.fail_unit(cause)

    cdef int on_batch_ready(self, Batch batch, char status) except -1:
        """ReadyForQuery: the phase's answer is whole."""
        self.expected.pop()
        if batch.phase == B_WORK and not batch.failed and (batch.unit() is not None or self.ending):
            batch.fail_unit(RC_MISMATCH)
        if batch.phase == B_ROLLBACK or not batch.failed:
            return self.advance(batch, EV_GOOD)
        return self.advance(batch, EV_OUT if status == b"I" else EV_BAD)

    cdef int on_numbered_message(self, Batch batch, Unit unit, int kind, const char* p, Py_ssize_t total) except -1:
        """What a text alone is not answered stays here; what Parse says is not everybody's."""
        if kind == BE_BIND_COMPLETE:
            self.numbered = N_BOUND
        elif self.numbered == N_BOUND:
            self.on_pipeline_message(batch, unit, kind, p, total)
        elif kind != BE_NO_DATA and (
                kind != BE_PARAMETER_DESCRIPTION or not may_be_numbered(p + PG_HEADER, total - PG_HEADER)):
            unit.group.shape.numbered = False
            batch.fail_unit(RC_MISMATCH)
        return 0

    cdef int on_pipeline_message(self, Batch batch, Unit unit, int kind, const char* p, Py_ssize_t total) except -1:
        if kind == BE_NOTICE and unit.group.shape.extended and batch.begins_write(unit):
            batch.fail_unit(RC_WARNING)         # of Parse, which is not everybody's
        elif kind in (BE_DATA_ROW, BE_BIND_COMPLETE, BE_ROW_DESCRIPTION, BE_NO_DATA, BE_NOTICE):
            batch.response.append(p, total)
        elif kind == BE_COMMAND_COMPLETE:
            batch.response.append(p, total)
            batch.end_write(unit)
            if unit.answered == unit.nwrites:
                batch.end_unit()
        else:
            batch.fail_unit(RC_MISMATCH)
        if batch.response.size() > MAX_ANSWER_BYTES:
            batch.fail_size()
        return 0

    cdef int on_insert_message(self, Batch batch, Unit unit, int kind, const char* p, Py_ssize_t total) except -1:
        cdef bytes expected
        if kind == BE_ROW_DESCRIPTION:
            batch.response.append(p, total)
            unit.head_bytes = total
        elif kind == BE_DATA_ROW:
            batch.response.append(p, total)
            unit.answer_rows += 1
            if batch.response.size() > MAX_ANSWER_BYTES:
                batch.fail_size()
        elif kind == BE_COMMAND_COMPLETE:
            expected = b"INSERT 0 %d" % unit.rows
            if <bytes>(p + PG_HEADER) != expected or (unit.head_bytes and unit.answer_rows != unit.rows):
                batch.fail_unit(RC_MISMATCH)
            batch.end_unit()
        elif kind == BE_NOTICE:
            batch.fail_unit(RC_WARNING)
        return 0

    # --- everybody's own part of the answer ---------------------------------------------------------------

    cdef int split(self, Batch batch) except -1:
        cdef Held held
        cdef Buffer out
        cdef Unit unit
        cdef const char* p = batch.response.ptr()
        cdef const char* head
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t end
        cdef Write* w
        cdef int k, row
        cdef int number = 0             # of writes in pipelines
        for one in batch.units:
            unit = <Unit>one
            head = p + at
            at += unit.head_bytes
            for item in unit.members:
                held = <Held>item
                out = None if held.owner.closing else held.owner.out
                for k in range(held.nwrites):
                    w = held.writes + k
                    end = at
                    if unit.method == M_PIPELINE:
                        end = batch.end_of(number)
                        number += 1
                    elif unit.head_bytes:
                        for row in range(w.rows):
                            end += 1 + <Py_ssize_t>tq_be32(p + end + 1)
                    if out is not None:
                        if w.opening:
                            out.append_bytes(<bytes>PG_OPENED[w.opening])
                        if w.flags & WF_PARSE:
                            out.append_bytes(PARSE_COMPLETE)
                        if unit.method == M_PIPELINE:
                            out.append(p + at, end - at)
                        else:
                            self.answer_insert(unit, out, w, head, p + at, end - at)
                        if w.flags & WF_SYNC:
                            out.append_bytes(READY_OPEN if w.closing else READY_IDLE)
                        if w.closing:
                            out.append_bytes(<bytes>PG_CLOSED[w.closing])
                    at = end
        return 0

    cdef int answer_insert(self, Unit unit, Buffer out, Write* w, const char* head, const char* rows,
                           Py_ssize_t nrows) except -1:
        """The answer to one member's part of a merged INSERT, up to its CommandComplete; ``rows``: ``nrows`` bytes."""
        cdef bint extended = unit.group.shape.extended
        if extended:
            out.append_bytes(BIND_COMPLETE)
        if unit.head_bytes:
            if not extended or w.flags & WF_DESCRIBE:
                out.append(head, unit.head_bytes)
            out.append(rows, nrows)
        elif w.flags & WF_DESCRIBE:
            out.append_bytes(NO_DATA)
        if w.rows == 1:
            return out.append_bytes(INSERT_ONE)
        return out.append_bytes(pg_message(b"C", b"INSERT 0 %d\0" % w.rows))
