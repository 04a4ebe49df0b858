# Endpoints (one end of a protocol conversation, no socket) and streams (the socket below an endpoint).

cdef extern from "<sys/types.h>":
    ctypedef long ssize_t
cdef extern from "<sys/socket.h>":
    ssize_t c_recv "recv"(int fd, void* buf, size_t n, int flags) nogil
    ssize_t c_send "send"(int fd, const void* buf, size_t n, int flags) nogil
    int MSG_NOSIGNAL
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
    BLOCKED_INPUT = 65536           # input kept for a session that waits for a batch
    IO_READ = 1                     # selectors.EVENT_READ
    IO_WRITE = 2                    # selectors.EVENT_WRITE

cdef char[131072] SCRATCH


cdef inline double monotonic() noexcept nogil:
    cdef timespec ts
    clock_gettime(CLOCK_MONOTONIC, &ts)
    return ts.tv_sec + ts.tv_nsec * 1e-9


cdef class Engine
cdef class Stream


cdef class Endpoint:
    """One end of a conversation: bytes come by ``feed``, bytes to send lie in ``out``.

    ``parse`` is the protocol: it consumes whole messages from the front of what it is given and returns how
    many bytes it took; the rest is kept and offered again with more behind it.
    """
    cdef readonly Engine engine
    cdef readonly Buffer out
    cdef Buffer inbuf
    cdef Stream stream
    cdef bint dirty
    cdef readonly bint closing       # the stream ends once ``out`` is empty
    cdef readonly bint closed

    def __cinit__(self, *args, **kwargs):
        self.out = Buffer()
        self.inbuf = Buffer()

    cdef Py_ssize_t parse(self, const char* p, Py_ssize_t n) except -1:
        return n

    cdef int feed(self, const char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t used
        if self.inbuf.size():
            self.inbuf.append(p, n)
            return self.pump()
        used = self.parse(p, n)
        if used < n and not self.closed:
            self.inbuf.append(p + used, n - used)
        return 0

    cdef int pump(self) except -1:
        """Parses what was kept. Never called from within ``parse``: the engine's ``settle`` does it."""
        cdef Py_ssize_t used
        while self.inbuf.size() and not self.closed:
            used = self.parse(self.inbuf.ptr(), self.inbuf.size())
            self.inbuf.consume(used)
            if used == 0:
                break
        return 0

    cdef bint want_read(self) except -1:
        return True

    cdef int drained(self) except -1:
        """``out`` has become small: whoever was held back by it may go on."""
        return 0

    cdef int eof(self) except -1:
        """The peer will send no more."""
        self.abort()
        return 0

    cdef int gone(self) except -1:
        """The stream is closed; called once."""
        return 0

    cdef inline int mark(self) except -1:
        """Something is to be sent, or the wish to read has changed: look at it before sleeping."""
        if not self.dirty:
            self.dirty = True
            self.engine.dirty.append(self)
        return 0

    cdef int finish(self) except -1:
        """Close once everything in ``out`` is sent."""
        self.closing = True
        self.mark()
        return 0

    cpdef abort(self):
        """Close now; what lies in ``out`` is not sent."""
        if self.closed:
            return
        self.closed = True
        self.out.clear()
        if self.stream is not None:
            self.stream.close()
        self.inbuf.clear()
        self.gone()

    # The face for tests, which have no socket.

    def receive(self, bytes data):
        """Hands bytes from the peer to this endpoint, as its stream would."""
        self.feed(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        self.engine.settle()

    def receive_eof(self):
        self.eof()
        self.engine.settle()

    def take_out(self):
        """The bytes that its stream would send now."""
        return self.out.take()


cdef class Stream:
    """A connected non-blocking socket below an endpoint. ``poller`` has ``set_interest`` and ``forget``."""
    cdef readonly int fd
    cdef readonly Endpoint endpoint
    cdef object sock
    cdef object poller
    cdef int interest
    cdef public double opened

    def __init__(self, sock, Endpoint endpoint, poller):
        self.sock = sock
        self.fd = sock.fileno()
        self.endpoint = endpoint
        self.poller = poller
        self.opened = monotonic()
        endpoint.stream = self
        self.interest = IO_READ
        poller.set_interest(self, IO_READ, True)
        endpoint.mark()

    def on_io(self, int mask):
        """The socket is ready: reads once or sends what is left. Errors of one connection end with it."""
        cdef ssize_t n
        cdef Endpoint ep = self.endpoint
        cdef Engine engine = ep.engine
        if self.fd < 0:
            return          # closed by an event before this one
        engine.now = monotonic()
        try:
            if mask & IO_READ and self.interest & IO_READ:
                n = c_recv(self.fd, SCRATCH, SCRATCH_BYTES, 0)
                if n > 0:
                    ep.feed(SCRATCH, n)
                elif n == 0:
                    ep.eof()
                elif errno != EAGAIN and errno != EINTR:
                    ep.eof()
            elif mask & IO_READ:
                # hung up while not being read: the send below or the next read will tell
                self.peek()
            if mask & IO_WRITE and not ep.closed:
                self.flush()
            if not ep.closed:
                self.update_interest()
        except Exception:
            log.exception("internal error on a connection; it is closed")
            ep.abort()
        engine.settle()

    cdef int peek(self) except -1:
        """A peer that is not read for back-pressure and has reset the connection would wake us for ever."""
        cdef char c
        cdef ssize_t n = c_recv(self.fd, &c, 1, 2)   # MSG_PEEK
        if n < 0 and errno != EAGAIN and errno != EINTR:
            self.endpoint.eof()
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
                ep.out.clear()
                ep.eof()
                return 0
            ep.out.consume(n)
            if size >= LOW_WATER and ep.out.size() < LOW_WATER:
                ep.drained()
            size = ep.out.size()
        if ep.closing and not size:
            ep.abort()
        return 0

    cdef int update_interest(self) except -1:
        cdef Endpoint ep = self.endpoint
        cdef int want = (IO_READ if ep.want_read() else 0) | (IO_WRITE if ep.out.size() else 0)
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
