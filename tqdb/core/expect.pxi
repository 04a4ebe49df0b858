# What a server connection still owes: one queue of expectations, consumed from the front as answers come.
#
# Everything sent to a server pushes an entry that says whose answer will come and what is true once it has come.
# Whether a connection is busy, may lead a batch or may be closed are questions to this queue.

cdef enum Owner:
    X_RELAY = 0         # the client's own message: the answer is relayed
    X_IGNORE            # the proxy's: nobody hears of the answer
    X_COLLECT           # the proxy's question: rows are kept for who asked
    X_BATCH             # a batch's: the conversation of the batch goes on

cdef enum ExpectFlag:
    XF_EFFECT = 1       # the next of ``effects`` belongs to it
    XF_FAILED = 2       # an error has come and its end has not
    XF_COPY = 4         # it may begin COPY FROM STDIN …
    XF_COPY_BEGUN = 8   # … and has begun a copy, in whatever direction
    XF_PLAIN = 32       # a statement that opens no transaction: after an error the state is as it was before
    XF_MUST = 64        # X_IGNORE: if it fails the connection ends
    XF_AGAIN = 128      # X_IGNORE: if it fails, the same is tried in front of what the client sends next

cdef enum:
    MAX_EXPECTED = 16384            # entries of a connection; past that its client is not read

ctypedef struct Expected:
    uint8_t owner           # Owner
    uint8_t message         # type of the frontend message, or the command
    uint8_t flags           # ExpectFlag bits
    int count               # X_BATCH: answers that it stands for; XF_COPY: CopyDone, CopyFail sent ahead of its copies


cdef class Expectations:
    """A ring of ``Expected``. A pointer from ``front`` or ``last`` is valid until the next ``push`` or ``pop``."""
    cdef Expected* ring
    cdef int room                   # a power of two, 0: nothing was expected yet
    cdef int head
    cdef int size
    cdef int ignored                # of them, X_IGNORE
    cdef int copies                 # of them, XF_COPY without XF_COPY_BEGUN
    cdef object effects             # deque; of entries with XF_EFFECT, in their order

    def __dealloc__(self):
        free(self.ring)

    cdef inline Expected* front(self) noexcept:
        return self.ring + self.head if self.size else NULL

    cdef inline Expected* last(self) noexcept:
        return self.ring + ((self.head + self.size - 1) & (self.room - 1)) if self.size else NULL

    cdef inline bint clear_but_ignored(self) noexcept:
        """Nothing is expected whose answer matters to anybody."""
        return self.size == self.ignored

    cdef int push(self, int owner, int message, int flags=0, effect=None, int count=1) except -1:
        """``effect``: what the owner of the queue applies when the entry is answered, None for most."""
        cdef Expected* entry
        if self.size == self.room:
            self.grow()
        entry = self.ring + ((self.head + self.size) & (self.room - 1))
        entry.owner = <uint8_t>owner
        entry.message = <uint8_t>message
        entry.flags = <uint8_t>flags
        entry.count = count
        if effect is not None:
            if self.effects is None:
                self.effects = deque()
            self.effects.append(effect)
            entry.flags |= XF_EFFECT
        self.size += 1
        if owner == X_IGNORE:
            self.ignored += 1
        if flags & XF_COPY:
            self.copies += 1
        return 0

    cdef int grow(self) except -1:
        cdef int room = self.room * 2 if self.room else 4
        cdef Expected* ring = <Expected*>malloc(room * sizeof(Expected))
        cdef int k
        if ring == NULL:
            raise MemoryError()
        for k in range(self.size):
            ring[k] = self.ring[(self.head + k) & (self.room - 1)]
        free(self.ring)
        self.ring = ring
        self.room = room
        self.head = 0
        return 0

    cdef object pop(self):
        """The front entry is answered, or will not be; its effect, or None."""
        cdef Expected* entry = self.ring + self.head
        cdef int flags = entry.flags
        self.head = (self.head + 1) & (self.room - 1)
        self.size -= 1
        if entry.owner == X_IGNORE:
            self.ignored -= 1
        if flags & (XF_COPY | XF_COPY_BEGUN) == XF_COPY:
            self.copies -= 1
        if flags & XF_EFFECT:
            return self.effects.popleft()
        return None

    cdef int take_back(self, int size) except -1:
        """Forgets the entries pushed past ``size``; none of them has an effect."""
        while self.size > size:
            if self.last().owner == X_IGNORE:
                self.ignored -= 1
            self.size -= 1
        return 0

    cdef int clear(self) except -1:
        self.size = self.ignored = self.copies = 0
        self.effects = None
        return 0
