# What a session has made of itself: the history of statements that change how it behaves.

cdef class Change:
    """What is true of a session once a statement of its is answered: goes with the expectation of that answer."""
    cdef int flags                  # ScanFlag bits of the statement
    cdef bytes text                 # of a SET-like one, None for others
    cdef uint64_t epoch             # of settings outside of the session, which its text may mean (DEFAULT, @@global.x)
    cdef object wait                # what it says of max_wait_ms: a number, "startup", or None
    cdef bint reset                 # the session is as after its login
    cdef bint charset               # the client character set becomes one that is not safe
    cdef bytes database             # becomes the current one; None: stays

cdef enum:
    CHANGING = F_SETLIKE | F_TAINT | F_TEMP | F_LOCK | F_UNLOCK | F_CURRVAL | F_GLOBAL | F_DISCARD


cdef class History:
    """The state that sessions must share to be of one class, and what forbids any class."""
    cdef bytes login_key            # what was fixed at login
    cdef bytes digest               # running fingerprint of SET-like statements
    cdef bint tainted               # it cannot be compared with any other's
    cdef bint temp                  # temporary objects were made
    cdef bint locks                 # LOCK TABLES is held
    cdef bint uses_currval
    cdef bint unsafe_charset
    cdef bint unsafe_at_login
    cdef bytes database             # MariaDB: argument of the last USE or COM_INIT_DB
    cdef bint open                  # a SET has happened whose transaction has not ended
    cdef double wait                # what a SET or the start-up says of max_wait_ms
    cdef double open_wait           # … once the transaction under way is committed; NEVER: nothing
    cdef double startup_wait

    def __init__(self):
        self.login_key = self.database = b""
        self.digest = b"\0" * 16
        self.wait = self.startup_wait = WAIT_NONE
        self.open_wait = NEVER

    cdef inline bint comparable(self) noexcept:
        return not (self.tainted or self.temp or self.locks or self.uses_currval)

    cdef int apply(self, Change change, bint failed, bint in_transaction) except -1:
        """The statement is answered. What forbids batches is noted even if it failed, for it may have happened half."""
        cdef double wait
        if change.reset and not failed:
            return self.reset(b"", b"")
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
        if change.text is None:
            return 0
        if failed:
            if in_transaction or change.flags & F_MULTI:
                self.tainted = True
            else:
                self.digest = mix(self.digest, b"failed", change.text)
            return 0
        self.digest = mix(self.digest, b"set%d" % change.epoch, change.text)
        if change.database is not None:
            self.database = change.database
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
                self.tainted = True
            elif self.open_wait < NEVER:
                self.wait = self.open_wait
        self.open_wait = NEVER
        return 0

    cdef int reset(self, bytes tag, bytes data) except -1:
        """The session is as after its login, but for ``data``."""
        self.digest = mix(b"\0" * 16, tag, data) if tag else b"\0" * 16
        self.tainted = self.temp = self.locks = self.uses_currval = self.open = False
        self.unsafe_charset = self.unsafe_at_login
        self.wait = self.startup_wait
        self.open_wait = NEVER
        return 0
