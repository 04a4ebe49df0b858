# Held writes: what a session has completed and an engine may send, alone or with others.

cdef enum WriteFlag:
    WF_PARSE = 1         # a Parse message of its own stands before it
    WF_DESCRIBE = 2      # it asks for a RowDescription
    WF_SYNC = 4          # its answer ends here: a Sync follows, or the end of a command
    WF_TYPES = 8         # it tells the types of its parameters

ctypedef struct Write:
    # one write; offsets count from the beginning of the held messages
    Py_ssize_t start        # its first message
    Py_ssize_t end          # one past its last
    Py_ssize_t sql_start    # the statement; FORM_BOUND: what a Bind, or an execute packet, says behind the names
    Py_ssize_t sql_end
    Py_ssize_t tuples_start  # the value tuples; FORM_BOUND: the parameter values
    Py_ssize_t tuples_end
    Py_ssize_t parse        # PostgreSQL's extended protocol: where its own messages begin, with its Parse if it has one
    Py_ssize_t bind         # PostgreSQL's extended protocol: its Bind message, and one past it
    Py_ssize_t bind_end
    Py_ssize_t literals     # bytes of its tuple as text, where it is an execution; 0: its tuples are text
    int rows                # tuples
    int flags               # WriteFlag bits
    int opening             # BEGIN in front of it, within its messages: BlockFlag bits, 0: there is none
    int closing             # … and COMMIT behind it

cdef enum Place:
    # where a session's held writes are
    HP_NOWHERE = 0          # there are none
    HP_GATHERED             # in the group ``where``
    HP_DEPARTED             # in the batch ``where``, sent or about to be
    HP_ALONE                # about to go as they came


cdef inline int answers_of(Write* w) noexcept:
    """How many answers end within what it is answered, with what stands around it: Syncs, or commands."""
    return (w.opening & BK_SYNC != 0) + (w.flags & WF_SYNC != 0) + (w.closing & BK_SYNC != 0)


cdef inline bint ends_answer(Write* w) noexcept:
    """Whether the write behind it has an answer of its own."""
    return w.closing & BK_SYNC != 0 if w.closing else w.flags & WF_SYNC != 0


cdef inline Py_ssize_t text_around(Write* w, Shape shape) noexcept:
    """Bytes of a statement around its tuples."""
    if w.literals:
        return PyBytes_GET_SIZE(shape.prefix) + PyBytes_GET_SIZE(shape.suffix)
    return w.sql_end - w.sql_start - (w.tuples_end - w.tuples_start)


cdef class Held:
    """Writes that one session sent in a row, whole messages with nothing between them, of one shape.

    ``add`` completes them before the engine hears of them; once ``place`` is HP_DEPARTED or HP_ALONE they do not change
    until ``clear``.
    """
    cdef Endpoint owner             # the session
    cdef Buffer data                # its messages, byte for byte
    cdef Write* writes
    cdef int nwrites
    cdef int room                   # writes that ``writes`` has room for
    cdef int rows                   # tuples of all writes
    cdef Py_ssize_t tuple_bytes     # what they add to a merged INSERT
    cdef Py_ssize_t text_bytes      # of the longest text around tuples
    cdef Py_ssize_t counted         # bytes with which the group counts it
    cdef double wait                # the shortest wait of the writes, or WAIT_AUTO
    cdef Shape shape
    cdef Source source
    cdef int qtype
    cdef int32_t slot               # where its writes are watched …
    cdef uint64_t key               # … as this
    cdef int place                  # Place
    cdef object where               # the Group or Batch

    def __init__(self, Endpoint owner):
        self.owner = owner
        self.data = Buffer()

    def __dealloc__(self):
        free(self.writes)

    cdef Write* at(self, int k) except NULL:
        """Room for the k-th write; one behind the last is a description until ``add`` makes it one of them."""
        cdef Write* grown
        cdef int room
        if k >= self.room:
            room = max(1, 2 * self.room)
            while room <= k:
                room *= 2
            grown = <Write*>realloc(self.writes, sizeof(Write) * room)
            if grown == NULL:
                raise MemoryError()
            self.writes = grown
            self.room = room
        return self.writes + k

    cdef inline Py_ssize_t new_tuple_bytes(self, int count) noexcept:
        """What the ``count`` writes described behind the last would add to a merged INSERT."""
        cdef Write* w = self.writes + self.nwrites
        cdef Py_ssize_t size = 0
        cdef int k
        for k in range(count):
            size += (w[k].literals if w[k].literals else w[k].tuples_end - w[k].tuples_start) + 1
        return size

    cdef inline int new_rows(self, int count) noexcept:
        cdef Write* w = self.writes + self.nwrites
        cdef int rows = 0
        cdef int k
        for k in range(count):
            rows += w[k].rows
        return rows

    cdef int add(self, int count, const char* p, Py_ssize_t n, double wait) except -1:
        """The ``count`` writes described behind the last become part of it, with their ``n`` bytes of messages."""
        cdef Py_ssize_t base = self.data.size()
        cdef Write* w = self.writes + self.nwrites
        cdef int k
        self.data.append(p, n)
        self.rows += self.new_rows(count)
        self.tuple_bytes += self.new_tuple_bytes(count)
        for k in range(count):
            self.text_bytes = max(self.text_bytes, text_around(w + k, self.shape))
            w[k].start += base
            w[k].parse += base
            w[k].end += base
            w[k].sql_start += base
            w[k].sql_end += base
            w[k].tuples_start += base
            w[k].tuples_end += base
            w[k].bind += base
            w[k].bind_end += base
        if not self.nwrites or self.wait == WAIT_AUTO or (wait != WAIT_AUTO and wait < self.wait):
            self.wait = wait
        self.nwrites += count
        return 0

    cdef int remove_first(self, int count) except -1:
        """The first ``count`` writes are taken out, with their messages."""
        cdef Py_ssize_t end = self.writes[count - 1].end
        cdef int k
        cdef Write* w
        self.data.consume(end)
        self.nwrites -= count
        memmove(self.writes, self.writes + count, self.nwrites * sizeof(Write))
        self.rows = 0
        for k in range(self.nwrites):
            w = self.writes + k
            w.start -= end
            w.parse -= end
            w.end -= end
            w.sql_start -= end
            w.sql_end -= end
            w.tuples_start -= end
            w.tuples_end -= end
            w.bind -= end
            w.bind_end -= end
            self.rows += w.rows
        return 0

    cdef int clear(self) except -1:
        self.data.clear()
        self.nwrites = self.rows = 0
        self.tuple_bytes = self.text_bytes = self.counted = 0
        self.place = HP_NOWHERE
        self.where = None
        return 0
