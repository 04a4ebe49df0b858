"""The compiled load generator: many connections, one outstanding statement on each, one epoll loop without the GIL.

It takes over sockets that are logged in already (by psycopg or PyMySQL), sends prepared messages in turn and
reads answers only as far as their framing, so that one core loads more than a database can bear.
"""

from libc.errno cimport EAGAIN, errno
from libc.math cimport exp, log
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

cdef extern from "<sys/types.h>":
    ctypedef long ssize_t
cdef extern from "<sys/socket.h>" nogil:
    ssize_t c_recv "recv"(int fd, void* buf, size_t n, int flags)
    ssize_t c_send "send"(int fd, const void* buf, size_t n, int flags)
    int MSG_NOSIGNAL
    int MSG_DONTWAIT
cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint32_t u32
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout)
    int EPOLLIN
    int EPOLL_CTL_ADD
    int EPOLL_CTL_DEL
cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int fd)
cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* ts)
    int CLOCK_MONOTONIC

cdef enum:
    POSTGRES = 0
    MARIADB = 1
    READY_FOR_QUERY = 90        # Z
    ERROR_RESPONSE = 69         # E
    ERR_PACKET = 255
    READ_BYTES = 65536
    EVENTS = 512
    BUCKETS = 1024

cdef double BUCKET_GROWTH = log(1.02)       # buckets 2 % wide, from one microsecond up


ctypedef struct Connection:
    int fd
    int next            # message to send
    double sent
    uint8_t[5] header
    int nheader
    long skip           # bytes of the current message's body still to come
    uint8_t kind        # its type (PostgreSQL) or first payload byte (MariaDB)
    bint failed         # an error was among the answer
    bint dead


cdef inline double monotonic() noexcept nogil:
    cdef timespec ts
    clock_gettime(CLOCK_MONOTONIC, &ts)
    return ts.tv_sec + ts.tv_nsec * 1e-9


cdef class Generator:
    """``fds``: connected sockets; ``messages``: complete protocol messages, each answered by one ReadyForQuery
    or one OK/ERR packet; ``protocol``: ``postgres`` or ``mariadb``.

    ``run(seconds)`` blocks (without the GIL); ``done``, ``errors``, ``dead`` may be read meanwhile.
    """
    cdef Connection* connections
    cdef int nconnections
    cdef list keep
    cdef char** texts
    cdef Py_ssize_t* sizes
    cdef int nmessages
    cdef int protocol
    cdef readonly uint64_t done
    cdef readonly uint64_t errors
    cdef readonly int dead
    cdef readonly double elapsed
    cdef volatile bint stopping
    cdef uint64_t[1024] histogram

    def __cinit__(self, fds, messages, str protocol):
        self.keep = list(messages)
        self.nconnections = len(fds)
        self.nmessages = len(self.keep)
        self.connections = <Connection*>calloc(max(1, self.nconnections), sizeof(Connection))
        self.texts = <char**>malloc(self.nmessages * sizeof(char*))
        self.sizes = <Py_ssize_t*>malloc(self.nmessages * sizeof(Py_ssize_t))
        if self.connections == NULL or self.texts == NULL or self.sizes == NULL:
            raise MemoryError()
        self.protocol = MARIADB if protocol == "mariadb" else POSTGRES
        for i, fd in enumerate(fds):
            self.connections[i].fd = fd
            self.connections[i].next = i % self.nmessages
        for i, text in enumerate(self.keep):
            self.texts[i] = text
            self.sizes[i] = len(text)

    def __dealloc__(self):
        free(self.connections)
        free(self.texts)
        free(self.sizes)

    def stop(self):
        self.stopping = True

    def run(self, double seconds):
        """Sends until ``seconds`` have passed or ``stop``; outstanding answers are waited for (2 s at most)."""
        with nogil:
            self._run(seconds)

    cdef void _run(self, double seconds) noexcept nogil:
        cdef epoll_event[512] events
        cdef epoll_event ev
        cdef char[65536] buf
        cdef int ep = epoll_create1(0)
        cdef int i, n, outstanding
        cdef ssize_t got
        cdef Connection* c
        cdef double start = monotonic()
        cdef double end = start + seconds
        cdef double now = start
        outstanding = 0
        for i in range(self.nconnections):
            c = &self.connections[i]
            ev.events = EPOLLIN
            ev.data.u32 = i
            epoll_ctl(ep, EPOLL_CTL_ADD, c.fd, &ev)
            outstanding += self._send(c, now)
        while outstanding > 0 and now < end + 2:
            n = epoll_wait(ep, events, EVENTS, 50)
            now = monotonic()
            for i in range(n):
                c = &self.connections[events[i].data.u32]
                got = c_recv(c.fd, buf, READ_BYTES, MSG_DONTWAIT)
                if got <= 0:
                    if got < 0 and errno == EAGAIN:
                        continue
                    c.dead = True
                    self.dead += 1
                    outstanding -= 1
                    epoll_ctl(ep, EPOLL_CTL_DEL, c.fd, NULL)
                elif self._answered(c, <uint8_t*>buf, got):
                    self._record(c, now)
                    outstanding -= 1
                    if now < end and not self.stopping:
                        outstanding += self._send(c, now)
        self.elapsed = min(now, end) - start
        c_close(ep)

    cdef int _send(self, Connection* c, double now) noexcept nogil:
        cdef ssize_t n = c_send(c.fd, self.texts[c.next], self.sizes[c.next], MSG_NOSIGNAL)
        if n != self.sizes[c.next]:
            c.dead = True
            self.dead += 1
            return 0
        c.sent = now
        c.next += 1
        if c.next == self.nmessages:
            c.next = 0
        return 1

    cdef void _record(self, Connection* c, double now) noexcept nogil:
        cdef double micros = (now - c.sent) * 1e6
        cdef int bucket = 0 if micros < 1 else <int>(log(micros) / BUCKET_GROWTH)
        self.histogram[min(bucket, BUCKETS - 1)] += 1
        if c.failed:
            self.errors += 1
            c.failed = False
        else:
            self.done += 1

    cdef bint _answered(self, Connection* c, uint8_t* p, ssize_t n) noexcept nogil:
        """Moves through the received bytes; whether they end an answer."""
        cdef ssize_t i = 0
        cdef long part
        cdef bint complete = False
        while i < n:
            if c.skip:
                part = min(c.skip, <long>(n - i))
                i += part
                c.skip -= part
            else:
                c.header[c.nheader] = p[i]
                c.nheader += 1
                i += 1
                if c.nheader < 5:
                    continue
                c.nheader = 0
                if self.protocol == POSTGRES:
                    c.kind = c.header[0]
                    c.skip = ((<long>c.header[1] << 24) | (c.header[2] << 16) | (c.header[3] << 8)
                              | c.header[4]) - 4
                else:
                    c.kind = c.header[4]
                    c.skip = (c.header[0] | (c.header[1] << 8) | (c.header[2] << 16)) - 1
            if c.skip == 0:
                if self.protocol == POSTGRES:
                    if c.kind == ERROR_RESPONSE:
                        c.failed = True
                    complete = c.kind == READY_FOR_QUERY
                else:
                    c.failed = c.kind == ERR_PACKET
                    complete = True
        return complete

    def percentile(self, double share):
        """The latency in milliseconds below which ``share`` (0 to 1) of the answers lie, within 2 %."""
        cdef uint64_t total = 0
        cdef uint64_t seen = 0
        cdef int i
        for i in range(BUCKETS):
            total += self.histogram[i]
        for i in range(BUCKETS):
            seen += self.histogram[i]
            if total and seen >= total * share:
                return exp((i + 0.5) * BUCKET_GROWTH) / 1000
        return 0.0
