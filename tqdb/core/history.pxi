# What a session has made of itself: the history of statements that change how it behaves.

cdef class Change:
    """What is true of a session once a statement of its is answered: goes with the expectation of that answer."""
    cdef int flags                  # ScanFlag bits of the statement
    cdef bytes text                 # of a SET-like one, None for others
    cdef object wait                # what it says of max_wait_ms: a number, "startup", or None
    cdef bint reset                 # the session is as after its login
    cdef bint custom                # the text sets a custom setting, which nothing is read by
    cdef bint moot                  # … or one that is nothing to a write
    cdef bint charset               # the client character set becomes one that is not safe

cdef enum:
    CHANGING = F_SETLIKE | F_TAINT | F_OPAQUE | F_TEMP | F_LOCK | F_UNLOCK | F_CURRVAL | F_DISCARD

    MAX_PLAIN_BYTES = 1024          # of a SET that is looked at

# what makes a SET mean more than its text tells: a value from elsewhere, or another identity
_UNPLAIN = (b"default", b"reset", b"discard", b"set_config", b"global", b"role", b"authorization", b"@", b"$", b"(")


cdef bint is_plain(bytes text) except -1:
    """Whether a SET makes the same of any two sessions that were alike, and comes to an end in no time."""
    cdef bytes lower
    if PyBytes_GET_SIZE(text) > MAX_PLAIN_BYTES:
        return False
    lower = text.lower()
    for word in _UNPLAIN:
        if word in lower:
            return False
    return True


cdef class Alike:
    """What the server said of a session when it was asked; sessions of one ``digest`` are alike."""
    cdef bytes digest               # 16 bytes
    cdef bytes reading              # … of what a statement's text is read by: all but custom settings
    cdef bint refused               # it is like no other: its writes go alone
    cdef double idle_limit          # seconds after which the server ends it for silence, 0: never
    cdef tuple schemas              # where an unqualified table is looked for, in order
    cdef double expires             # when it is to be asked again
    cdef int version                # of the engine's setting names when it was asked


cdef class History:
    """The state that sessions must share to be of one class, and what forbids any class.

    ``alike`` is what the server said, and ``changes`` what plain SETs have changed since then: the same SETs make the
    same of sessions that were alike. What a text does not tell makes ``alike`` None, and the server is asked again.
    """
    cdef bytes login_key            # what was fixed at login
    cdef Alike alike                # None: the server is to be asked
    cdef bytes changes              # running fingerprint of SETs since then, b"": none
    cdef int generation             # counts what may have changed how the server reads a statement
    cdef bint tainted               # it cannot be compared with any other's, and the server cannot be asked
    cdef bint temp                  # temporary objects were made
    cdef bint locks                 # LOCK TABLES is held
    cdef bint uses_currval
    cdef bint unsafe_charset
    cdef bint unsafe_at_login
    cdef bint open                  # a SET has happened whose transaction has not ended
    cdef double wait                # what a SET or the start-up says of max_wait_ms
    cdef double open_wait           # … once the transaction under way is committed; NEVER: nothing
    cdef double startup_wait

    def __init__(self):
        self.login_key = self.changes = b""
        self.wait = self.startup_wait = WAIT_UNSAID
        self.open_wait = NEVER

    cdef inline double said_wait(self) noexcept:
        """For how long its writes without a hint may wait, as far as its settings say."""
        return WAIT_NONE if self.wait == WAIT_UNSAID else self.wait

    cdef inline bint comparable(self) noexcept:
        return not (self.tainted or self.temp or self.locks or self.uses_currval)

    cdef inline void doubt(self) noexcept:
        """Something has changed that only the server can tell."""
        self.generation += 1
        self.alike = None
        self.changes = b""

    cdef int apply(self, Change change, bint failed, bint in_transaction) except -1:
        """The statement is answered. What forbids batches is noted even if it failed, for it may have happened half."""
        cdef double wait
        if change.reset and not failed:
            return self.reset()
        if change.flags & F_TEMP:
            self.temp = True
        if change.flags & F_CURRVAL:
            self.uses_currval = True
        if change.flags & F_TAINT:
            self.tainted = True
        if change.charset:
            self.unsafe_charset = True
        if change.flags & F_LOCK:
            self.locks = True
        elif change.flags & F_UNLOCK and not failed:
            self.locks = False
        if change.flags & F_OPAQUE:
            self.doubt()
        if change.text is None or change.moot:
            return 0
        if failed or self.alike is None or change.flags & F_MULTI or not is_plain(change.text):
            self.doubt()
        else:
            if not change.custom:
                self.generation += 1
            self.changes = mix(self.changes.ljust(16, b"\0"), b"set", change.text)
        if failed:
            return 0
        if change.wait is not None:
            wait = self.startup_wait if change.wait == "startup" else change.wait
            if in_transaction:
                self.open_wait = wait
            else:
                self.wait = wait
        self.open = self.open or in_transaction
        return 0

    cdef int transaction_ended(self, bint rolled_back) except -1:
        """No transaction is open any more. A SET in one that was rolled back has not happened, or only in part."""
        if self.open:
            self.open = False
            if rolled_back:
                self.doubt()
            elif self.open_wait < NEVER:
                self.wait = self.open_wait
        self.open_wait = NEVER
        return 0

    cdef int reset(self) except -1:
        """The session is as after its login."""
        self.doubt()
        self.tainted = self.temp = self.locks = self.uses_currval = self.open = False
        self.unsafe_charset = self.unsafe_at_login
        self.wait = self.startup_wait
        self.open_wait = NEVER
        return 0


cdef class Prepared:
    """A prepared statement, which the server has read by the settings of that moment: literals, names, types."""
    cdef int generation             # of the session's history when it was prepared, -1: not known
    cdef bytes reading              # see ``Alike``, of that moment; None: the server has not said
    cdef bytes text                 # the statement proper, None if it cannot be batched
    cdef int qtype
    cdef int flags                  # of its scan
    cdef bint hinted
    cdef double wait_ms
    cdef Shape subject              # what it is to rules, None: not looked at

    cdef inline int begun(self, History history) except -1:
        """It goes to the server."""
        self.generation = history.generation
        self.reading = history.alike.reading if history.alike is not None and not history.changes else None
        return 0

    cdef inline int read(self, History history) except -1:
        """The server has prepared it; what was under way has changed the session before that, or behind it."""
        if self.generation != history.generation:
            self.generation = -1
            self.reading = None
        return 0

    cdef inline bint holds(self, History history) except -1:
        """Whether another session that is like this one would read it alike; asked of sessions whose class is known."""
        if self.generation == history.generation:
            self.reading = history.alike.reading
        return self.reading == history.alike.reading
