# What windows would have made of the writes of sessions that are alike, on the fly: a few additions for each write.

cdef enum:
    WINDOWS = 3
    RING = 64                       # rounds of a crowd that are told apart
    ROUNDS_AWAITED = 2              # in which who does not come is awaited, as ``Awaited`` does
    MAX_RECENT = 8                  # shapes that a session has written last
    NO_SLOT = -1                    # of a shape that is not in the table, see ``Watch``

cdef double[3] WATCHED = (0.001, 0.010, 0.050)      # seconds
WATCHED_MS = (1, 10, 50)
cdef double NEARLY_ALL = 0.75
cdef double RECENT_WINDOWS = 8      # over which the mean of writes that come now and then is taken, as in ``Awaited``


cdef class Writer


cdef class Crowd:
    """Sessions that logged in alike, and the batches that their writes would have made with windows of each length.

    A session's next write goes to the round behind its last, if that is still open or not begun, for it comes only when
    the round before is answered. A round ends with its window, or when nearly all have written who did in this window
    or the one before; that is when the next one begins for those who were in it. Whoever comes long after its last
    answer is awaited only where several like it come in a mean window: so ``Awaited`` does.
    """
    cdef object __weakref__
    cdef readonly str backend
    cdef readonly str user
    cdef readonly str database
    cdef uint64_t salt
    cdef uint64_t[3] newest         # number of the last round, from 1
    cdef uint64_t[3] oldest         # … and of the first one that is open
    cdef double[3][64] opened
    cdef int[3] came                # who came long after an answer, in this window …
    cdef double[3] come             # … and in a mean one
    cdef double[3] ends             # of this window
    cdef int[3] awaited             # rounds that are kept open for who came soon after an answer
    cdef int[3][64] size            # writes in each round
    cdef uint64_t[3] turns          # windows that have ended
    cdef int[3] since_now           # sessions that have written in this window …
    cdef int[3] since_before        # … and others that have in the one before

    def __init__(self, uint64_t salt, str backend, str user, str database):
        cdef int w
        self.salt = salt
        self.backend = backend
        self.user = user
        self.database = database
        for w in range(WINDOWS):
            self.oldest[w] = 1

    cdef inline uint64_t enter(self, Writer who, int w, double now) noexcept:
        """The round that a write of ``who`` is in, with a window of ``WATCHED[w]``."""
        cdef double width = WATCHED[w]
        cdef bint soon = who.answered > 0 and now - who.answered <= width
        cdef uint64_t mine
        cdef double opens
        if now >= self.ends[w]:
            self.turn(w, now)
        if soon:
            self.awaited[w] = ROUNDS_AWAITED
        elif not who.ahead:
            self.came[w] += 1
        if who.turn[w] != self.turns[w]:
            if who.turn[w] + 1 == self.turns[w]:
                self.since_before[w] -= 1
            self.since_now[w] += 1
            who.turn[w] = self.turns[w]
        while self.oldest[w] <= self.newest[w] and now >= self.opened[w][self.oldest[w] & (RING - 1)] + width:
            self.oldest[w] += 1
        mine = max(who.round[w] + (not who.ahead), self.oldest[w])
        if mine > self.newest[w]:
            opens = now
            if mine > self.oldest[w] and self.size[w][self.newest[w] & (RING - 1)] < NEARLY_ALL * (
                    self.since_now[w] + self.since_before[w]):
                # the round before is gathering still
                opens = self.opened[w][self.newest[w] & (RING - 1)] + width
            self.newest[w] = mine
            self.opened[w][mine & (RING - 1)] = opens
            self.size[w][mine & (RING - 1)] = 0
            if mine - self.oldest[w] >= RING - 1:
                self.oldest[w] = mine - (RING - 2)
            if not soon and self.come[w] < 1:
                if self.awaited[w]:
                    self.awaited[w] -= 1
                else:
                    self.opened[w][mine & (RING - 1)] = now - width     # nobody is expected: it leaves at once
        self.size[w][mine & (RING - 1)] += 1
        who.round[w] = mine
        return mine

    cdef int turn(self, int w, double now) noexcept:
        cdef double width = WATCHED[w]
        cdef double passed = (now - self.ends[w]) / width
        self.come[w] += (self.came[w] - self.come[w]) / RECENT_WINDOWS
        if passed >= 1:
            self.come[w] = 0 if passed > 100 else self.come[w] * (1 - 1 / RECENT_WINDOWS) ** passed
        self.came[w] = 0
        self.ends[w] = now + width
        self.turns[w] += 1
        self.since_before[w] = self.since_now[w] if passed < 1 else 0
        self.since_now[w] = 0
        return 0


cdef class Writer:
    """A session, as far as its writes are watched."""
    cdef Crowd crowd
    cdef bytes login                # what its crowd is known by
    cdef bytes application
    cdef uint32_t serial
    cdef uint64_t[3] round
    cdef uint64_t[3] turn           # of its crowd in which it wrote last
    cdef double answered            # when its last write was, 0: none has been
    cdef bint ahead                 # … the one before this write is not
    cdef int32_t slot               # of its last write's shape, NO_SLOT: it is not in the table
    cdef int32_t[8] recent

    def __init__(self):
        cdef int k
        self.application = b""
        self.slot = NO_SLOT
        for k in range(MAX_RECENT):
            self.recent[k] = NO_SLOT
