# A session among others: what makes it like them, as its own statements and its server tell.

cdef enum Action:
    A_RELAY = 0      # to be sent on now, as it came
    A_HELD           # copied and held, or answered: it is taken
    A_WAIT           # not taken: to be looked at again, see ``wake_at``


cdef enum:
    MAX_ALIKES = 10000              # answers of servers that are kept
    MAX_CUSTOM = 200                # bytes of a SET in which the name of what it sets is looked for

# What says who is connected, for the server's views and log. A write that reads it goes alone, so that sessions with a
# name of their own (a worker's number, a process's) are alike all the same.
cdef bytes PG_NAME = b"application_name"
cdef object _NAMES = re.compile(
    rb"(?:set\s+(?:session\s+|local\s+)?application_name\s*(?:=|to\s)|reset\s+application_name\s*;?\s*\Z)",
    re.IGNORECASE).match
# a SET of a custom setting of PostgreSQL: its name has a dot
cdef object _CUSTOM = re.compile(rb"set\s+(?:session\s+)?[a-z_][a-z_0-9]*\.", re.IGNORECASE).match

cdef double ALIKE_SECONDS = 60.0    # for which what a server said of a session holds


cdef class Comparing(Counted):
    """A session, as far as it is compared with others. See ``History``."""
    cdef History history
    cdef bytes proving                  # what its server's answer is kept under, None: it is not to be kept
    cdef int asked_version              # of the engine's setting names in the question
    cdef bint ddl_open                  # DDL was sent and may not be committed yet

    # --- what its statements change ---------------------------------------------------------------

    cdef Change change_of(self, const char* sql, Py_ssize_t n, Scan* s):
        """What a statement will make true once it is answered, None for most; ``n``: its text's length."""
        cdef Change change
        if s.flags & F_DDL and not s.flags & F_TEMP:
            self.may_be_ddl()
        if not s.flags & CHANGING:
            return None
        change = Change.__new__(Change)
        change.flags = s.flags
        if s.flags & F_SETLIKE:
            change.text = sql[s.text_start:n]
            change.wait = self.wait_said(change.text)
            if self.dialect == PG:
                change.custom = _CUSTOM(change.text, 0, MAX_CUSTOM) is not None
                change.moot = (s.flags & (CHANGING | F_MULTI | F_UNSURE) == F_SETLIKE
                               and len(change.text) <= MAX_CUSTOM and _NAMES(change.text) is not None)
        return change

    cdef object wait_said(self, bytes sql):
        """What a SET-like statement says of batching without hints: milliseconds, "startup", or None."""
        wait = self.engine.hooks.session_wait(self.dialect, sql)
        if wait == "unreadable":
            self.engine.stats.hint_errors[self.dialect] += 1
            return WAIT_NONE
        return wait

    cdef int apply(self, Change change, bint failed, bint in_transaction) except -1:
        """A statement that changes the session is answered; ``in_transaction``: it may still be rolled back."""
        self.history.apply(change, failed, in_transaction)
        if change.moot:
            return 0
        return self.engine.class_left(self)

    cdef int transaction_ended(self, bint rolled_back) except -1:
        if self.history.open:
            self.history.transaction_ended(rolled_back)
            self.engine.class_left(self)
        return 0

    cdef int doubt(self) except -1:
        """What it sends may change the session, and how is not known."""
        self.history.doubt()
        return self.engine.class_left(self)

    cdef inline int may_be_ddl(self) except -1:
        """Facts about tables may be out of date from now on, and again once this is committed."""
        self.engine.ddl_seen()
        self.ddl_open = True
        return 0

    # --- what its server says ---------------------------------------------------------------------

    cdef bytes class_key(self):
        return self.history.login_key + self.history.alike.digest

    cdef inline bint is_known(self) noexcept:
        """Whether its class is known, and what its server said of it still holds."""
        return self.cls is not None and self.engine.now < self.history.alike.expires and (
            self.history.alike.version == self.engine.names_version)

    cdef bytes change_key(self):
        """What sessions have in common that were alike and have changed the same."""
        return self.history.login_key + self.history.alike.digest + self.history.changes

    cdef Alike recall(self):
        """What its server has said, of it or of one that was alike and changed the same; None: it is to be asked."""
        cdef Alike alike = self.history.alike
        self.proving = None
        if alike is not None and self.history.changes:
            self.proving = self.change_key()
            alike = self.engine.alikes.get(self.proving)
        if alike is None or self.engine.now >= alike.expires or alike.version != self.engine.names_version:
            return None
        return alike

    cdef int recognise(self) except -1:
        """Finds the session's class: A_HELD; A_WAIT: its server is asked; A_RELAY: it is like no other."""
        cdef Engine engine = self.engine
        cdef History history = self.history
        cdef Alike alike = self.recall()
        if alike is None:
            self.asked_version = engine.names_version
            engine.ask_about_itself(self, engine.classes.family(history.login_key))
            return A_WAIT
        self.is_like(alike)
        if alike.refused:
            return A_RELAY
        if self.cls is None:
            self.cls = engine.classes.enter(
                hashlib.blake2b(self.class_key(), digest_size=24).digest(),
                engine.classes.family(history.login_key), alike.version)
        return A_HELD

    cdef inline int is_like(self, Alike alike) except -1:
        self.history.alike = alike
        self.history.changes = b""
        self.idle_limit = alike.idle_limit
        return 0

    cdef int told_of_itself(self, tuple answer, bint answered) except -1:
        cdef Engine engine = self.engine
        cdef Alike alike = Alike.__new__(Alike)
        cdef Alike before = self.history.alike
        alike.refused, alike.digest, alike.reading, alike.idle_limit, alike.schemas = answer
        alike.expires = engine.now + (ALIKE_SECONDS if answered else FACTS_RETRY_SECONDS)
        alike.version = self.asked_version
        if before is None or before.digest != alike.digest or alike.refused:
            engine.class_left(self)
        if before is not None and before.reading != alike.reading and not self.history.changes:
            self.history.generation += 1        # by something that was not seen
        self.is_like(alike)
        engine.classes.looks_in(self.history.login_key, alike.schemas)
        if self.proving is not None and answered:
            if len(engine.alikes) >= MAX_ALIKES:
                engine.alikes.clear()
            engine.alikes[self.proving] = alike
        return 0
