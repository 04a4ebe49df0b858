# Who is awaited: whether writes that are gathered gain by waiting longer, from counts; nothing is looked through.

cdef double LEAST_WINDOW = 0.001    # seconds
cdef double LEAST_ROUND = 0.005     # batches under way are mostly answered by then
cdef double MEAN_WINDOWS = 8        # over which the mean of those that come now and then is taken, roughly
cdef double LONG_AGO = 100          # windows after which nothing of them is left


cdef class Coming:
    """A session, as far as its next hinted write is foreseen."""
    cdef double answered            # when its last was; 0: none has been
    cdef uint64_t since             # the round since which it is awaited, 0: it is not
    cdef bint slow                  # it was awaited in vain, and has not been quick since
    cdef bint waits                 # its write is gathered


cdef class Awaited:
    """How many sessions of a class may soon send a write that could leave with those that are gathered.

    A session is awaited from when its write leaves, and again from when that is answered. A round ends when writes
    have waited to the end of their time, if it has lasted as long: who has been awaited for a whole round and the one
    before has been awaited in vain, and is slow until it comes sooner after an answer than its writes may wait. Slow
    sessions are not awaited one by one: as many of them are as come in a mean window (the time that writes may wait).
    For their sake no more quick ones are kept waiting than they are, unless something of the class's is under way:
    until its end, then, whoever waits would hardly be answered sooner by leaving.
    """
    cdef uint64_t round             # from 2
    cdef double began               # when the round did
    cdef readonly int since_now     # sessions awaited since this round …
    cdef readonly int since_before  # … and since the one before
    cdef readonly int under_way     # batches, and writes that were gathered and went alone
    cdef readonly int waiting       # sessions whose writes are gathered, of any shape …
    cdef readonly int quick         # … that would soon write again, were they answered
    cdef double window              # seconds; 0: nobody has written
    cdef double longest             # that a write of this window may wait
    cdef double ends
    cdef int came                   # slow sessions that came in this window …
    cdef double come                # … and in a mean one

    def __init__(self):
        self.round = 2

    cdef int arrives(self, Coming session, double now, double wait) except -1:
        """Its write is gathered, and may wait ``wait`` seconds."""
        self.look(now)
        if wait > self.longest:
            self.longest = wait
        if session.waits:
            return 0                # it has sent another ahead
        if session.slow:
            session.slow = now - session.answered > wait
        elif session.since:
            session.slow = session.since + 1 < self.round
        self.forget(session)
        if session.slow:
            self.came += 1
        else:
            self.quick += 1
        session.waits = True
        self.waiting += 1
        return 0

    cdef inline int departs(self, Coming session) except -1:
        """Its write is gathered no longer."""
        if session.waits:
            session.waits = False
            self.waiting -= 1
            if not session.slow:
                self.quick -= 1
        return 0

    cdef inline int expect(self, Coming session) except -1:
        """Its write has left, or is answered."""
        if not session.slow and session.since != self.round:
            self.forget(session)
            session.since = self.round
            self.since_now += 1
        return 0

    cdef inline int forget(self, Coming session) except -1:
        """It is awaited no longer."""
        if session.since == self.round:
            self.since_now -= 1
        elif session.since and session.since + 1 == self.round:
            self.since_before -= 1
        session.since = 0
        return 0

    cdef int in_vain(self, double now, double waited) except -1:
        """Writes have waited for ``waited`` seconds, to the end of their time."""
        if now - self.began >= max(waited, LEAST_ROUND):
            self.began = now
            self.round += 1
            self.since_before = self.since_now
            self.since_now = 0
        return 0

    cdef inline bint nobody(self, int members, double now) except -1:
        """Whether none of the class's ``members`` is likely to come in time."""
        if self.waiting >= members:
            return True
        if self.since_now or self.since_before:
            return False
        self.look(now)
        return self.come < 1 or (self.come < self.quick + 1 and not self.under_way)

    cdef inline int look(self, double now) except -1:
        return self.turn(now) if now >= self.ends else 0

    cdef int turn(self, double now) except -1:
        """A window has ended, or many."""
        cdef double passed
        if self.window > 0:
            passed = (now - self.ends) / self.window
            self.come += (self.came - self.come) / MEAN_WINDOWS
            if passed >= 1:
                self.come = 0 if passed > LONG_AGO else self.come * (1 - 1 / MEAN_WINDOWS) ** passed
        self.came = 0
        self.window = max(LEAST_WINDOW, self.longest, self.window if self.longest == 0 else 0)
        self.longest = 0
        self.ends = now + self.window
        return 0
