# The two ends that the engine deals with, as far as it knows them: a member, whose writes are gathered, and a server
# connection, on which a batch runs. Both protocols fill in the rest.

cdef class ServerConn(Endpoint):
    """A connection to a backend, attached to one client session for life."""
    cdef readonly Member session
    cdef Expectations queue
    cdef Batch batch

    def __cinit__(self, *args, **kwargs):
        self.queue = Expectations()

    cdef int begin_batch(self, Batch batch) except -1:
        """Sends the batch's members as one transaction and takes it through its phases, to ``engine.over``."""
        return 0

    cdef int arrange(self, Batch batch) except -1:
        """Takes the batch's unit apart, where some of its writes can be one statement."""
        return 0

    cdef int split(self, Batch batch) except -1:
        """Writes every member's own answer into its session's ``out``; nothing of it stays on the connection."""
        return 0

    cdef int rolled_back(self, Batch batch) except -1:
        """A batch on this connection was taken back: what it left behind is noted."""
        return 0

    cdef bint mixes(self, Group group) except -1:
        """Whether batches on it may hold the group's writes beside those of other groups."""
        return False

    cdef bint gains(self, int nwrites, int units) noexcept:
        """Whether so many writes of so many groups are sooner done in one batch than each group's by themselves."""
        return True

    cdef int ask(self, bytes sql) except -1:
        """Asks a question of the proxy's; its rows go to the member's ``told``."""
        return 0

    cdef inline bint may_lead(self) noexcept:
        """Nothing is expected whose answer could be mistaken, and nothing is half sent."""
        return not self.closing and self.batch is None and self.queue.clear_but_ignored()


cdef class Member(Endpoint):
    """A client's session as the engine knows it."""
    cdef readonly ServerConn server
    cdef readonly int dialect
    cdef Held held                      # None until its first hinted write
    cdef SessionClass cls
    cdef Coming coming                  # … and how soon its next may come
    cdef TableFacts asked               # what its server connection is being asked about
    cdef Group asked_for
    cdef Family asked_in                # … or, while it is asked what its session is like, the session's family …
    cdef object so_far                  # … and what ``judge_session`` makes of the answers before
    cdef bytes version                  # what its server calls itself, where questions depend on it
    cdef Group alone_in                 # the group for which its writes are under way alone
    cdef public double idle_limit       # seconds unused after which its server connection is ended; 0: none is known
    cdef readonly int last_batch_size
    cdef readonly str last_reason

    def __cinit__(self, *args, **kwargs):
        self.coming = Coming()
        self.version = b""

    cdef int send_held(self, int reason) except -1:
        """The held messages go their ordinary way, byte for byte, on the session's own connection."""
        return 0

    cdef bint may_be_used(self, int32_t slot) except -1:
        """Whether a question about that watched shape may be asked on its connection, though its client is there.

        The client neither waits for the answer nor hears of it.
        """
        return False

    cdef bytes briefly(self, bytes question):
        """``question`` so that its server answers with an error rather than wait for a lock."""
        return question

    cdef inline bint has_input(self) noexcept:
        """Its client has sent something that was not looked at yet."""
        return self.inbuf.size() > 0

    cdef int overhear(self, rows) except -1:
        """An answer about itself, also for what its dialect has put into the question; None after an error."""
        return 0

    cdef int told_of_itself(self, tuple answer, bint answered) except -1:
        """What ``judge_session`` makes of what its server has said; ``answered``: and not only of an error."""
        return 0

    cdef int answered(self, Batch batch) except -1:
        """Its own part of the batch's answer lies in ``out``: it goes on."""
        return 0

    cdef int lost(self, bint unknown) except -1:
        """The connection that carried its writes has ended: it ends too, told whether the outcome is unknown."""
        return 0

    cdef inline double unused(self, double now, double rest) noexcept:
        """How long nothing was sent on its server connection, in units of what that may be before it leads.

        That is a third of its limit, and ``rest`` seconds at most. 1 and more: it is to lead.
        """
        if self.idle_limit > 0 and self.idle_limit < 3 * rest:
            rest = self.idle_limit / 3
        return (now - self.server.used) / rest

    cdef inline bint ends_unused(self, double now) noexcept:
        """Two thirds of its server connection's limit are over: it may end before its session writes again."""
        return self.idle_limit > 0 and 3 * (now - self.server.used) >= 2 * self.idle_limit

    cdef inline bint usable(self) noexcept:
        return not self.closing and self.server is not None and not self.server.closing
