# Endpoints (one end of a protocol conversation, no socket) and streams (the socket below an endpoint).

cdef extern from "<sys/types.h>":
    ctypedef long ssize_t
cdef extern from "<sys/socket.h>":
    ssize_t c_recv "recv"(int fd, void* buf, size_t n, int flags) nogil
    ssize_t c_send "send"(int fd, const void* buf, size_t n, int flags) nogil
    int c_setsockopt "setsockopt"(int fd, int level, int name, const void* value, unsigned int size) nogil
    int SOL_SOCKET
    int SO_RCVLOWAT
    int MSG_NOSIGNAL
    int MSG_PEEK
cdef extern from "<time.h>":
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* ts) nogil
    int CLOCK_MONOTONIC

cdef enum:
    SCRATCH_BYTES = 131072          # one read from a socket
    HIGH_WATER = 262144             # a peer's unsent bytes past which its source is no longer read
    LOW_WATER = 65536               # … and below which it is read again
    MAX_UNREAD = 524288             # a client's unread answers past which none of its writes are held
    BLOCKED_INPUT = 65536           # input kept for a session that waits
    IO_READ = 1                     # selectors.EVENT_READ
    IO_WRITE = 2                    # selectors.EVENT_WRITE

cdef enum:
    SLICE_MESSAGES = 16             # parsed between two looks at the clock …
    SLICE_BYTES = 16384             # … and bytes
    MAX_FRAMES = 16                 # of a traceback that are logged

cdef double SLICE_SECONDS = 0.002   # that one endpoint may take of a turn
cdef double TURN_SECONDS = 0.02     # of parsing, past which a turn leaves the rest to the next one

cdef enum Parsed:
    # what ``parse`` answers besides a number of bytes taken, which is never 0
    NEED_MORE = -2                  # what is there is the beginning of something
    WAIT = -3                       # nothing more is to be parsed until ``resume``

cdef enum Cause:
    # why an endpoint ends
    C_PEER_GONE = 0                 # its peer has closed or reset the connection
    C_CUT                           # it is to end at once
    C_TOLD                          # what is to be said about it lies in ``out``
    C_SERVER_GONE                   # a session: its server connection has ended
    C_CLIENT_GONE                   # a server connection: its session has ended
    C_INTERNAL                      # an exception of the proxy's own

cdef char[131072] SCRATCH


cdef inline double monotonic() noexcept nogil:
    cdef timespec ts
    clock_gettime(CLOCK_MONOTONIC, &ts)
    return ts.tv_sec + ts.tv_nsec * 1e-9


cdef class Stream


cdef class Turn:
    """What the endpoints of one loop share: the time, the counters, and what is to be done before it sleeps.

    ``hooks`` is the cold side; of it endpoints call ``session_closed`` and ``server_closed``.
    """
    cdef public double now
    cdef public object hooks
    cdef readonly Stats stats
    cdef list dirty
    cdef list resumed
    cdef list later                 # endpoints that go on in the next turn of the loop
    cdef double began               # when this turn did; 0: nothing has happened in it, or there is no loop

    cdef inline bint spent(self, double now) noexcept:
        """Whether this turn has parsed for so long that what is not begun waits for the next one."""
        return self.began > 0 and now - self.began > TURN_SECONDS

    cpdef settle(self):
        """Does what lies ready; called after every event, never from within ``parse``."""

    cdef int failed(self, str where, Endpoint ep) except -1:
        """An exception was caught: it ends the endpoint that it concerns, if any, and nothing else.

        Logged without the exception's own words, which may quote a statement.
        """
        kind, _, step = sys.exc_info()
        trace = []
        while step is not None and len(trace) < MAX_FRAMES:
            code = step.tb_frame.f_code
            trace.append(f"{code.co_filename.rpartition('/')[2]}:{step.tb_lineno} {code.co_name}")
            step = step.tb_next
        self.stats.count_internal(where)
        log.error("internal error in %s: %s%s; Traceback: %s", where, kind.__name__ if kind is not None else "unknown",
                  ", the connection is closed" if ep is not None else "", ", ".join(trace))
        if ep is not None:
            try:
                ep.disconnect(C_INTERNAL)
            except Exception as e:
                self.stats.count_internal("disconnect")
                log.error("internal error in disconnect (%s)", type(e).__name__)
                ep.close()
        return 0


cdef class Endpoint:
    """One end of a conversation: bytes come by ``feed``, bytes to send lie in ``out``.

    ``parse`` is the protocol: it takes one message, or some, from the front of what it is given and answers how many
    bytes it took, or NEED_MORE, or WAIT; what was not taken is kept and offered again.
    """
    cdef Turn turn
    cdef readonly Buffer out
    cdef Buffer inbuf
    cdef Stream stream
    cdef double used                 # when bytes were last sent
    cdef bint dirty
    cdef bint waiting                # parse has answered WAIT
    cdef bint resuming               # … and is to go on at the next safe point
    cdef readonly bint closing       # disconnected; the stream ends once ``out`` is empty
    cdef readonly bint closed
    cdef public object secure       # makes what a ``TlsStream`` needs; None: its stream stays plain
    cdef public bint needs_tls      # … and it may not stay plain
    cdef public bint local          # its peer is on this machine, on a Unix socket

    def __cinit__(self, *args, **kwargs):
        self.out = Buffer()
        self.inbuf = Buffer()

    cdef Py_ssize_t parse(self, const char* p, Py_ssize_t n) except -1:
        return n

    cdef Py_ssize_t parse_all(self, const char* p, Py_ssize_t n) except -1:
        """Parses until more is needed, something is to be waited for, or a slice of time is used up.

        Returns the bytes taken.
        """
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t used
        cdef Py_ssize_t unlooked = 0    # bytes since the clock was seen, and as many for each message as make a slice
        cdef double began = 0
        cdef double now
        while i < n and not self.closing:
            used = self.parse(p + i, n - i)
            if used < 0:
                self.waiting = used == WAIT
                break
            i += used
            unlooked += used + SLICE_BYTES // SLICE_MESSAGES
            if unlooked >= SLICE_BYTES and self.turn.began > 0:
                unlooked = 0
                now = monotonic()
                if began == 0:
                    began = self.turn.now
                if (now - began > SLICE_SECONDS or self.turn.spent(now)) and i < n and not self.closing:
                    self.defer()
                    break
        return n if self.closing else i

    cdef inline int defer(self) except -1:
        """What is left is parsed in the next turn of the loop, behind what others have waiting."""
        if not self.resuming:
            self.waiting = self.resuming = True
            self.turn.later.append(self)
        return 0

    cdef int feed(self, const char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t used
        if self.closing:
            return 0
        if self.inbuf.size() or self.waiting or self.turn.spent(self.turn.now):
            self.inbuf.append(p, n)
            if self.turn.spent(self.turn.now) and not self.waiting:
                return self.defer()
            return 0 if self.waiting else self.pump()
        used = self.parse_all(p, n)
        if used < n:
            self.inbuf.append(p + used, n - used)
        return 0

    cdef int pump(self) except -1:
        """Parses what was kept."""
        if self.inbuf.size() and not self.closing:
            self.inbuf.consume(self.parse_all(self.inbuf.ptr(), self.inbuf.size()))
        return 0

    cdef inline int resume(self) except -1:
        """What was waited for has happened: parsing goes on at the next safe point."""
        if self.waiting and not self.resuming:
            self.resuming = True
            self.turn.resumed.append(self)
        return 0

    cdef bint want_read(self) except -1:
        return True

    cdef Py_ssize_t due(self) noexcept:
        """Bytes that are sure to come and of no use one by one: its stream is read when so many are here; 0: any are.

        Who sends them must not have to wait until they are read, see ``MyBatchServer.due``.
        """
        return 0

    cdef int drained(self) except -1:
        """``out`` has become small: whoever was held back by it may go on."""
        return 0

    cdef int secured(self, str protocol) except -1:
        """The stream's TLS handshake is done; ``protocol``: the one agreed upon (ALPN), or None."""
        return 0

    cdef int insecure(self, str reason) except -1:
        """The stream's TLS has failed; it ends behind this."""
        return 0

    cdef int let_go(self, int cause) except -1:
        """Settles all that hangs on this endpoint; called once, by ``disconnect``."""
        return 0

    cdef int gone(self) except -1:
        """The stream is closed; called once."""
        return 0

    cdef inline int mark(self) except -1:
        """Something is to be sent, or the wish to read has changed: look at it before sleeping."""
        if not self.dirty:
            self.dirty = True
            self.turn.dirty.append(self)
        return 0

    cdef int disconnect(self, int cause) except -1:
        """The one way in which an endpoint ends. What lies in ``out`` is still sent, where the cause allows it."""
        if not self.closing:
            self.closing = True
            self.let_go(cause)
        if cause == C_PEER_GONE or cause == C_CUT:
            self.close()
        elif not self.closed:
            self.mark()
        return 0

    cdef int close(self) except -1:
        if self.closed:
            return 0
        self.closed = True
        self.out.clear()
        if self.stream is not None:
            self.stream.close()
        try:
            return self.gone()
        except Exception:
            return self.turn.failed("gone", None)

    cdef int disconnect_guarded(self, int cause) except -1:
        """``disconnect`` for those who call from the loop."""
        try:
            return self.disconnect(cause)
        except Exception:
            return self.turn.failed("disconnect", self)

    def abort(self):
        """Ends at once; what lies in ``out`` is not sent."""
        self.disconnect_guarded(C_CUT)

    # The face for tests, which have no socket.

    def receive(self, bytes data):
        """Hands bytes from the peer to this endpoint, as its stream would."""
        try:
            self.feed(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        except Exception:
            self.turn.failed("parse", self)
        self.turn.settle()

    def receive_eof(self):
        self.disconnect_guarded(C_PEER_GONE)
        self.turn.settle()

    @property
    def awaited_bytes(self):
        """See ``due``."""
        return self.due()

    def take_out(self):
        """The bytes that its stream would send now; they count as handed over."""
        if self.out.size():
            self.used = self.turn.now
        return self.out.take()


cdef class Stream:
    """A connected non-blocking socket below an endpoint. ``poller`` has ``set_interest`` and ``forget``."""
    cdef readonly int fd
    cdef readonly Endpoint endpoint
    cdef object sock
    cdef object poller
    cdef int interest
    cdef int least                  # bytes that make the socket readable

    def __init__(self, sock, Endpoint endpoint, poller):
        self.sock = sock
        self.fd = sock.fileno()
        self.endpoint = endpoint
        self.poller = poller
        endpoint.stream = self
        self.interest = IO_READ
        self.least = 1
        poller.set_interest(self, IO_READ, True)
        endpoint.mark()

    def on_io(self, int mask):
        """The socket is ready: reads once or sends what is left. Errors of one connection end with it."""
        cdef Endpoint ep = self.endpoint
        if self.fd < 0:
            return          # closed by an event before this one
        ep.turn.now = monotonic()
        if ep.turn.began == 0:
            ep.turn.began = ep.turn.now
        try:
            if mask & IO_READ:
                if self.interest & IO_READ:
                    self.read()
                else:
                    # hung up while not being read: the send below or the next read will tell
                    self.peek()
            if mask & IO_WRITE and not ep.closed:
                ep.stream.flush()           # which ``read`` may have changed
            if not ep.closed:
                ep.stream.update_interest()
        except Exception:
            ep.turn.failed("connection", ep)
        ep.turn.settle()

    cdef int read(self) except -1:
        cdef ssize_t n = c_recv(self.fd, SCRATCH, SCRATCH_BYTES, 0)
        if n > 0:
            return self.endpoint.feed(SCRATCH, n)
        if n == 0 or (errno != EAGAIN and errno != EINTR):
            return self.endpoint.disconnect(C_PEER_GONE)
        return 0

    cdef int peek(self) except -1:
        """A peer that is not read for back-pressure and has reset the connection would wake us for ever."""
        cdef char c
        cdef ssize_t n = c_recv(self.fd, &c, 1, MSG_PEEK)
        if n < 0 and errno != EAGAIN and errno != EINTR:
            self.endpoint.disconnect(C_PEER_GONE)
        return 0

    cdef int flush(self) except -1:
        cdef Endpoint ep = self.endpoint
        cdef Py_ssize_t size = ep.out.size()
        cdef ssize_t n
        while size:
            n = c_send(self.fd, ep.out.ptr(), size, MSG_NOSIGNAL)
            if n < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    break
                return ep.disconnect(C_PEER_GONE)
            ep.used = ep.turn.now
            ep.out.consume(n)
            if size >= LOW_WATER and ep.out.size() < LOW_WATER:
                ep.drained()
            size = ep.out.size()
        if ep.closing and not size:
            ep.close()
        return 0

    cdef int wanted(self) except -1:
        """What the socket is watched for."""
        cdef Endpoint ep = self.endpoint
        cdef int want = IO_WRITE if ep.out.size() else 0
        if ep.want_read():
            want |= IO_READ
        return want

    cdef int due(self) noexcept:
        """Bytes that make the socket readable."""
        return <int>max(1, self.endpoint.due())

    cdef int update_interest(self) except -1:
        cdef int want = self.wanted()
        cdef int due = self.due()
        if due != self.least:
            # the connection's end and its errors show at once; a Unix socket heeds none of this
            self.least = due
            c_setsockopt(self.fd, SOL_SOCKET, SO_RCVLOWAT, &due, sizeof(due))
        if want != self.interest:
            self.interest = want
            self.poller.set_interest(self, want, False)
        return 0

    cdef int close(self) except -1:
        if self.fd >= 0:
            self.poller.forget(self)
            self.sock.close()
            self.fd = -1
        return 0
