# A session and the rules of the configuration: for how long a write may wait, as hints, settings and rules say.

cdef class Ruled(Comparing):
    """A session, as far as it knows which of its writes are to be batched."""
    cdef public str backend             # name of the backend section that serves it
    cdef public bint read_only          # its server is known to take no writes
    cdef public str user
    cdef public str database            # of its login
    cdef public str application         # what it calls itself
    cdef public str within              # MariaDB: its current database, as far as its statements tell; "": not known
    cdef Shape last_shape
    cdef Shape shape                    # of the text whose scan is ``shaped``
    cdef Scope scope                    # of a generation of rules …
    cdef int scope_generation           # … -1: what rules match by has changed
    cdef Ruling ruling                  # has decided about the statement looked at last; None: none has

    def __init__(self):
        self.backend = self.user = self.database = self.application = self.within = ""
        self.scope_generation = -1

    # --- what each protocol gives -----------------------------------------------------------------

    cdef bint in_transaction(self) noexcept:
        return False

    cdef bint takes_writes(self) noexcept:
        """Its server, as far as that is known, would do a write of this session."""
        return not self.read_only

    cdef bint comparable(self) noexcept:
        """Protocol-level state (an open segment, autocommit) allows a batch."""
        return True

    cdef bint escapes(self) noexcept:
        """Whether a backslash escapes inside a string of its statements."""
        return False

    cdef inline int now_within(self, str database) except -1:
        """Its current database has changed."""
        self.within = database
        self.scope_generation = -1
        return 0

    cdef tuple schemas(self, Shape shape):
        """Where its server looks for a shape's unqualified table, in order; None: that is not known yet."""
        return None

    # --- hints, settings, rules -------------------------------------------------------------------

    cdef inline bint wants_batch(self, const char* sql, Scan* s) except -1:
        """Whether it is a write that may wait, by its hint, the session's setting or a rule: see ``s.wait_ms``."""
        if self.engine.ruled:
            return self.wants_by_rules(sql, s)
        if s.qtype > QT_REPLACE:
            return False
        if not s.hinted:
            s.wait_ms = self.history.said_wait()
        return s.wait_ms != WAIT_NONE

    cdef inline double wait_of(self, Prepared statement) except? -9.0:
        """For how long executions of a prepared statement may wait."""
        if self.engine.ruled:
            return self.wait_by_rules(statement)
        return statement.wait_ms if statement.hinted else self.history.said_wait()

    cdef bint wants_by_rules(self, const char* sql, Scan* s) except -1:
        cdef bint spoken = s.hinted or self.history.wait != WAIT_UNSAID
        self.ruling = None
        if s.qtype > QT_REPLACE:
            return False
        if not s.hinted:
            s.wait_ms = self.history.said_wait()
        if self.engine.observed[self.dialect]:
            s.wait_ms = WAIT_NONE
        elif not s.flags & UNBATCHABLE and self.rules_concern(s.qtype, spoken):
            if not s.shaped:
                self.shape = self.text_shape(sql, s, b"")
                s.shaped = True             # the scanner's findings do for one look
            s.wait_ms = self.ruled(self.shape, spoken, s.wait_ms)
        return s.wait_ms != WAIT_NONE

    cdef double wait_by_rules(self, Prepared statement) except? -9.0:
        cdef bint spoken = statement.hinted or self.history.wait != WAIT_UNSAID
        cdef double wait = statement.wait_ms if statement.hinted else self.history.said_wait()
        cdef Scan s
        self.ruling = None
        if self.engine.observed[self.dialect]:
            return WAIT_NONE
        if statement.qtype > QT_REPLACE or statement.text is None or statement.flags & UNBATCHABLE or (
                not self.rules_concern(statement.qtype, spoken)):
            return wait
        if statement.subject is None:
            scan_sql(<const uint8_t*>PyBytes_AS_STRING(statement.text), PyBytes_GET_SIZE(statement.text),
                     self.dialect, self.escapes(), &s)
            statement.subject = self.engine.shapes.of_prepared(self.dialect, statement.text, &s)
        return self.ruled(statement.subject, spoken, wait)

    cdef inline bint rules_concern(self, int qtype, bint spoken) except -1:
        """Whether a rule may decide about a statement of this kind; ``spoken``: a hint or a setting has."""
        cdef Rulebook rules = self.engine.rules
        if self.scope_generation != rules.generation:
            self.scope = rules.scope(self)
            self.scope_generation = rules.generation
        return (self.scope.forced if spoken else self.scope.qtypes) >> qtype & 1

    cdef double ruled(self, Shape shape, bint spoken, double wait) except? -9.0:
        """The wait of a statement that says ``wait`` itself, or does not speak. What is not known is relayed."""
        cdef Rulebook rules = self.engine.rules
        cdef Ruling ruling
        cdef tuple schemas
        if shape is None:
            return WAIT_NONE
        ruling = rules.ruling(self.scope, shape, None)
        if ruling is UNDECIDED:
            schemas = self.schemas(shape)
            if schemas is not None:
                ruling = rules.ruling(self.scope, shape, schemas)
                if ruling is UNDECIDED:
                    schemas = self.schema_of(shape)
                    if schemas is not None:
                        ruling = rules.ruling(self.scope, shape, schemas)
        if ruling is UNDECIDED:
            return WAIT_NONE
        if ruling.name is None or spoken and not ruling.force:
            return wait
        self.ruling = ruling
        return ruling.wait

    cdef inline bint may_ask(self) except -1:
        """Whether its server may be asked a question now, with what the client sends next behind it."""
        return not self.has_held() and not self.busy() and self.exclusion(0) == R_COUNT

    cdef tuple schema_of(self, Shape shape):
        """The one schema in which its server finds a shape's table, as the catalogue says; None: not known yet."""
        cdef Engine engine = self.engine
        cdef Group group
        if not self.is_known() and (not self.may_ask() or self.recognise() != A_HELD):
            return None
        group = engine.group_of(self.cls, shape)
        if not group.facts.probing and engine.facts_due(group.facts) and self.may_ask():
            engine.ask(self, group)
        return (group.facts.schema,) if group.facts.schema is not None else None

    cdef inline int count_hits(self, int count) except -1:
        """Writes that were just looked at are held, or go alone."""
        if self.engine.ruled and self.ruling is not None:
            self.ruling.hits += count
        return 0

    # --- what may be batched ----------------------------------------------------------------------

    cdef inline bint has_held(self) noexcept:
        return self.held is not None and self.held.nwrites > 0

    cdef inline bint busy(self) noexcept:
        """Statements that it sent are not answered yet."""
        return self.server is not None and self.server.queue.size > 0

    cdef int exclusion(self, int flags) except -1:
        """Why this statement may not be batched as far as session and scanner tell; R_COUNT: no reason."""
        if self.in_transaction():
            return R_IN_TRANSACTION
        if self.engine.draining:
            return R_DRAINING
        if self.history.unsafe_charset:
            return R_CHARSET
        if not self.history.comparable() or not self.comparable() or not self.takes_writes():
            return R_SESSION_STATE
        if flags & UNBATCHABLE:
            return R_NOT_BATCHABLE
        return R_COUNT

    cdef Shape text_shape(self, const char* sql, Scan* s, bytes formats):
        """The shape of a statement as text. None, or a shape without a verdict: not batchable."""
        cdef Shape shape = self.last_shape
        if s.verb == W_INSERT and s.values_end >= 0 and not s.flags & F_COMPLEX and (
                s.values_start - s.text_start + s.text_end - s.values_end <= MAX_SHAPE_BYTES):
            if shape is None or formats or not shape.is_cut(sql, s):
                shape = self.engine.shapes.of_cut(self.dialect, sql, s, formats)
                if shape is None:
                    return None
            if shape.verdict is not None:
                if not formats:
                    self.last_shape = shape
                return shape
        if scan_whole(<const uint8_t*>sql, s, self.dialect) < 0:
            return None
        shape = self.last_shape
        if shape is None or formats or not shape.is_whole(s):
            shape = self.engine.shapes.of_whole(self.dialect, sql, s, formats)
            if shape is not None and shape.verdict is not None and not formats:
                self.last_shape = shape
        return shape
