"""The compiled load generator: any number of connections, one epoll loop, no GIL.

It takes over sockets that are logged in already (by psycopg or PyMySQL), sends prepared messages in turn and
reads answers only as far as their framing, so that one core loads more than a database can bear.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.math cimport ceil
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from tqdb.load.epoll cimport (
    CLOCK_MONOTONIC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLLIN,
    EPOLLOUT,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    TFD_NONBLOCK,
    c_close,
    c_read,
    c_recv,
    c_send,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    itimerspec,
    monotonic,
    ssize_t,
    thread_cpu,
    timerfd_create,
    timerfd_settime,
)

cdef enum:
    POSTGRES = 0
    MARIADB = 1
    READY_FOR_QUERY = 90        # Z
    ERROR_RESPONSE = 69         # E
    OK_PACKET = 0
    EOF_PACKET = 254
    ERR_PACKET = 255
    EOF_BYTES = 9               # an EOF packet is shorter
    HEADER = 5                  # both protocols: what must be seen of a message to know its length and kind
    READ_BYTES = 65536
    EVENTS = 512
    SLEEP_MS = 50
    TIMER = 0xffffffff          # the timer's place in the epoll set
    # The histogram of microseconds: exact to 1 up to 255, then 128 steps for each doubling (0.8 % wide).
    EXACT = 256
    STEPS = 128
    SLOTS = 3840                # up to 2^36 microseconds
    ERROR_BYTES = 400
    STATEMENT_ID = 5            # where a COM_STMT_EXECUTE packet has it

cdef double LINGER = 5.0        # seconds that outstanding answers are waited for at the end
cdef double TICK = 50e-6        # an open loop sleeps no shorter

cdef enum Part:
    PART_FIRST = 0              # MariaDB: the first packet of an answer is to come
    PART_COLUMNS
    PART_ROWS


ctypedef struct Connection:
    int fd
    char* tape                  # all messages, one behind the other
    uint32_t next               # message of the tape to be sent next
    uint32_t oldest             # place of the oldest outstanding one among the connection's send times
    uint32_t outstanding
    Py_ssize_t at               # the tape's byte to be sent next …
    Py_ssize_t unsent           # … and how many, round the tape's end
    bint armed                  # EPOLLOUT is asked for
    bint touched                # something was added to ``unsent`` in this turn
    bint listed                 # it is in the queue of connections that have room
    bint dead
    uint8_t[5] header
    int nheader
    long length                 # of the current message's body
    long skip                   # bytes of it still to come
    uint8_t kind                # its type (PostgreSQL) or first payload byte (MariaDB)
    int part                    # Part
    bint failed                 # an error was among the answer


cdef inline int slot_of(uint64_t micros) noexcept nogil:
    cdef int shift = 0
    if micros < EXACT:
        return <int>micros
    while micros >> shift >= EXACT:
        shift += 1
    return min(SLOTS - 1, EXACT + (shift - 1) * STEPS + <int>(micros >> shift) - STEPS)


def slot_value(int slot):
    """The microseconds in the middle of a slot of the histogram."""
    if slot < EXACT:
        return float(slot)
    cdef int shift = (slot - EXACT) // STEPS + 1
    return ((slot - EXACT) % STEPS + STEPS + 0.5) * (1 << shift)


cdef class Generator:
    """``fds``: connected sockets; ``messages``: complete protocol messages, each answered by one ReadyForQuery,
    one OK/ERR packet or one result set; ``protocol``: ``postgres`` or ``mariadb``.

    ``depth``: statements outstanding on each connection at most. ``rate`` 0: closed loop, each answer lets the
    next statement go. Else an open loop of so many statements a second over all connections: latencies count
    from the moment a statement was due, whether a connection had room for it then or not.

    ``think``: seconds between an answer and the connection's next statement, in a closed loop of depth 1; connections
    begin at times spread over as long.

    ``statement_ids``: the messages are COM_STMT_EXECUTE packets, and this is each connection's statement.

    ``run(seconds)`` blocks without the GIL; the counters and ``drain`` may be read meanwhile.
    """
    cdef Connection* connections
    cdef uint32_t nconnections
    cdef uint32_t depth
    cdef double rate
    cdef double* due                # send times of what is outstanding, ``depth`` of each connection in a ring
    cdef uint32_t* roomy            # open loop: a ring of connections that have room
    cdef uint32_t first_roomy
    cdef uint32_t nroomy
    cdef double think
    cdef double* wakes              # a ring of connections that think: when they go on, in order …
    cdef uint32_t* sleepers         # … and which
    cdef uint32_t first_sleeper
    cdef uint32_t nsleepers
    cdef uint32_t* touched
    cdef uint32_t ntouched
    cdef char* tapes                # one for all connections, or one for each
    cdef Py_ssize_t tape_bytes
    cdef Py_ssize_t* sizes
    cdef uint32_t nmessages
    cdef int protocol
    cdef int epoll
    cdef uint64_t outstanding
    cdef readonly uint64_t issued
    cdef readonly uint64_t done         # answered without an error
    cdef readonly uint64_t errors
    cdef readonly uint64_t in_time      # answered, with or without, before the run's end
    cdef readonly int dead              # connections that broke
    cdef readonly double elapsed        # seconds that sending went on
    cdef readonly double cpu            # CPU seconds of the loop
    cdef volatile bint stopping
    cdef uint64_t[3840] histogram
    cdef uint64_t[3840] drained
    cdef char[400] error
    cdef int nerror

    def __cinit__(self, fds, messages, str protocol, int depth=1, double rate=0, statement_ids=None,
                  double think=0):
        cdef Py_ssize_t at = 0
        cdef uint32_t statement_id
        cdef bytes text
        messages = list(messages)
        if not fds or not messages or depth < 1 or rate < 0:
            raise ValueError("a generator needs connections, messages, a depth of 1 or more and no negative rate")
        if think < 0 or (think and (depth > 1 or rate)):
            raise ValueError("only a closed loop of depth 1 has think time")
        self.think = think
        self.nconnections = len(fds)
        self.nmessages = len(messages)
        self.depth = depth
        self.rate = rate
        self.protocol = MARIADB if protocol == "mariadb" else POSTGRES
        self.tape_bytes = sum(len(m) for m in messages)
        self.connections = <Connection*>calloc(self.nconnections, sizeof(Connection))
        self.due = <double*>malloc(self.nconnections * depth * sizeof(double))
        self.roomy = <uint32_t*>malloc(self.nconnections * sizeof(uint32_t))
        self.touched = <uint32_t*>malloc(self.nconnections * sizeof(uint32_t))
        self.wakes = <double*>malloc(self.nconnections * sizeof(double))
        self.sleepers = <uint32_t*>malloc(self.nconnections * sizeof(uint32_t))
        self.tapes = <char*>malloc(self.tape_bytes * (self.nconnections if statement_ids else 1))
        self.sizes = <Py_ssize_t*>malloc(self.nmessages * sizeof(Py_ssize_t))
        if (self.connections == NULL or self.due == NULL or self.roomy == NULL or self.touched == NULL
                or self.tapes == NULL or self.sizes == NULL or self.wakes == NULL or self.sleepers == NULL):
            raise MemoryError()
        starts = []
        for i, text in enumerate(messages):
            starts.append(at)
            memcpy(self.tapes + at, <char*>text, len(text))
            self.sizes[i] = len(text)
            at += len(text)
        for i, fd in enumerate(fds):
            self.connections[i].fd = fd
            self.connections[i].tape = self.tapes
            if statement_ids:
                self.connections[i].tape += i * self.tape_bytes
                statement_id = statement_ids[i]
                memcpy(self.connections[i].tape, self.tapes, self.tape_bytes if i else 0)
                for start in starts:
                    memcpy(self.connections[i].tape + <Py_ssize_t>start + STATEMENT_ID, &statement_id, 4)
            # apart from each other, so that connections do not all send the same statement
            self.connections[i].next = i * 7 % self.nmessages
            self.connections[i].at = starts[self.connections[i].next]

    def __dealloc__(self):
        free(self.connections)
        free(self.due)
        free(self.roomy)
        free(self.touched)
        free(self.wakes)
        free(self.sleepers)
        free(self.tapes)
        free(self.sizes)

    def stop(self):
        """Ends the run as if its time were over."""
        self.stopping = True

    def run(self, double seconds):
        """Sends until ``seconds`` have passed or ``stop``; outstanding answers are waited for."""
        with nogil:
            self._run(seconds)

    cdef void _run(self, double seconds) noexcept nogil:
        cdef epoll_event[512] events
        cdef epoll_event ev
        cdef int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)
        cdef uint64_t expirations
        cdef uint32_t i
        cdef int n, k, _k
        cdef double used = thread_cpu()
        cdef double start = monotonic()
        cdef double end = start + seconds
        cdef double now = start
        cdef bint sending = True
        self.epoll = epoll_create1(0)
        ev.events = EPOLLIN
        ev.data.u32 = TIMER
        epoll_ctl(self.epoll, EPOLL_CTL_ADD, timer, &ev)
        for i in range(self.nconnections):
            ev.data.u32 = i
            epoll_ctl(self.epoll, EPOLL_CTL_ADD, self.connections[i].fd, &ev)
            if self.rate:
                self._has_room(i)
            elif self.think:
                self._sleep(i, start + self.think * i / self.nconnections)
            else:
                for _k in range(<int>self.depth):
                    self._assign(i, now)
        if not self.rate:
            self._push_touched()
        while sending or self.outstanding:
            if sending and (now >= end or self.stopping):
                sending = False
                self.elapsed = now - start
            if not sending and now >= start + self.elapsed + LINGER:
                break
            if sending and self.rate:
                self._issue(start, now)
                self._push_touched()
                self._arm(timer, max(TICK, start + (self.issued + 1) / self.rate - now) if self.nroomy else 0)
            elif sending and self.think:
                self._wake(now)
                self._push_touched()
                self._arm(timer, max(TICK, self.wakes[self.first_sleeper] - now) if self.nsleepers else 0)
            n = epoll_wait(self.epoll, events, EVENTS, SLEEP_MS)
            now = monotonic()
            for k in range(n):
                if events[k].data.u32 == TIMER:
                    c_read(timer, &expirations, sizeof(expirations))
                    continue
                if events[k].events & EPOLLOUT:
                    self._push(events[k].data.u32)
                if events[k].events & ~<uint32_t>EPOLLOUT:
                    now = monotonic()
                    self._read(events[k].data.u32, now, sending)
            self._push_touched()
        c_close(timer)
        c_close(self.epoll)
        self.cpu += thread_cpu() - used

    # --- sending ----------------------------------------------------------------------------------

    cdef void _has_room(self, uint32_t i) noexcept nogil:
        cdef Connection* c = &self.connections[i]
        if not c.listed and not c.dead and c.outstanding < self.depth:
            c.listed = True
            self.roomy[(self.first_roomy + self.nroomy) % self.nconnections] = i
            self.nroomy += 1

    cdef void _issue(self, double start, double now) noexcept nogil:
        """Open loop: what is due by now goes to connections that have room, in turn."""
        cdef uint32_t i
        cdef uint64_t wanted = <uint64_t>((now - start) * self.rate)
        while self.issued < wanted and self.nroomy:
            i = self.roomy[self.first_roomy]
            self.first_roomy = (self.first_roomy + 1) % self.nconnections
            self.nroomy -= 1
            self.connections[i].listed = False
            if self.connections[i].dead:
                continue
            self._assign(i, start + self.issued / self.rate)
            self._has_room(i)

    cdef void _sleep(self, uint32_t i, double until) noexcept nogil:
        """The connection thinks; nobody else has to think as long from now on."""
        cdef uint32_t k = (self.first_sleeper + self.nsleepers) % self.nconnections
        self.wakes[k] = until
        self.sleepers[k] = i
        self.nsleepers += 1

    cdef void _wake(self, double now) noexcept nogil:
        """Those that have thought enough send their next statement."""
        cdef uint32_t k
        while self.nsleepers and self.wakes[self.first_sleeper] <= now:
            k = self.first_sleeper
            self.first_sleeper = (k + 1) % self.nconnections
            self.nsleepers -= 1
            if not self.connections[self.sleepers[k]].dead:
                self._assign(self.sleepers[k], self.wakes[k])

    cdef void _arm(self, int timer, double wait) noexcept nogil:
        """Wakes in ``wait`` seconds when a statement is due; 0: only an answer does."""
        cdef itimerspec when
        when.it_interval.tv_sec = when.it_interval.tv_nsec = 0
        when.it_value.tv_sec = <long>wait
        when.it_value.tv_nsec = <long>ceil((wait - <long>wait) * 1e9)
        timerfd_settime(timer, 0, &when, NULL)

    cdef void _assign(self, uint32_t i, double due) noexcept nogil:
        """The connection's next message is to be sent; it was due at ``due``."""
        cdef Connection* c = &self.connections[i]
        self.due[i * self.depth + (c.oldest + c.outstanding) % self.depth] = due
        c.outstanding += 1
        c.unsent += self.sizes[c.next]
        c.next += 1
        if c.next == self.nmessages:
            c.next = 0
        self.issued += 1
        self.outstanding += 1
        if not c.touched:
            c.touched = True
            self.touched[self.ntouched] = i
            self.ntouched += 1

    cdef void _push_touched(self) noexcept nogil:
        cdef uint32_t k
        for k in range(self.ntouched):
            self.connections[self.touched[k]].touched = False
            if not self.connections[self.touched[k]].armed:
                self._push(self.touched[k])
        self.ntouched = 0

    cdef void _push(self, uint32_t i) noexcept nogil:
        """Sends what the socket takes; the rest when it takes more."""
        cdef Connection* c = &self.connections[i]
        cdef epoll_event ev
        cdef ssize_t n
        while c.unsent and not c.dead:
            n = c_send(c.fd, c.tape + c.at, min(c.unsent, self.tape_bytes - c.at), MSG_NOSIGNAL | MSG_DONTWAIT)
            if n < 0 and errno == EINTR:
                continue
            if n < 0 and errno == EAGAIN:
                break
            if n <= 0:
                self._broken(c)
                return
            c.unsent -= n
            c.at += n
            if c.at == self.tape_bytes:
                c.at = 0
        if c.armed != (c.unsent > 0) and not c.dead:
            c.armed = c.unsent > 0
            ev.events = EPOLLIN | (EPOLLOUT if c.armed else 0)
            ev.data.u32 = i
            epoll_ctl(self.epoll, EPOLL_CTL_MOD, c.fd, &ev)

    cdef void _broken(self, Connection* c) noexcept nogil:
        c.dead = True
        self.dead += 1
        self.outstanding -= c.outstanding
        c.outstanding = 0
        c.unsent = 0
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, c.fd, NULL)

    # --- answers ----------------------------------------------------------------------------------

    cdef void _read(self, uint32_t i, double now, bint sending) noexcept nogil:
        cdef char[65536] buf
        cdef Connection* c = &self.connections[i]
        cdef ssize_t got
        if c.dead:
            return
        got = c_recv(c.fd, buf, READ_BYTES, MSG_DONTWAIT)
        if got < 0 and (errno == EAGAIN or errno == EINTR):
            return
        if got <= 0:
            self._broken(c)
            return
        self._answers(i, <uint8_t*>buf, got, now, sending)
        if not sending or c.dead:
            return
        if self.rate:
            self._has_room(i)
        elif self.think:
            if not c.outstanding:
                self._sleep(i, now + self.think)
        else:
            while c.outstanding < self.depth:
                self._assign(i, now)

    cdef void _answers(self, uint32_t i, uint8_t* p, ssize_t n, double now, bint sending) noexcept nogil:
        """Moves through the received bytes and records each answer that ends in them."""
        cdef Connection* c = &self.connections[i]
        cdef ssize_t at = 0
        cdef long part
        while at < n:
            if c.skip:
                part = min(c.skip, <long>(n - at))
                at += part
                c.skip -= part
            else:
                c.header[c.nheader] = p[at]
                c.nheader += 1
                at += 1
                if c.nheader < HEADER:
                    continue
                c.nheader = 0
                if self.protocol == POSTGRES:
                    c.kind = c.header[0]
                    c.length = ((<long>c.header[1] << 24) | (c.header[2] << 16) | (c.header[3] << 8)
                                | c.header[4]) - 4
                    c.skip = c.length
                    if c.kind == ERROR_RESPONSE:
                        self._keep_error(p + at, min(c.skip, n - at))
                else:
                    c.kind = c.header[4]
                    c.length = c.header[0] | (c.header[1] << 8) | (c.header[2] << 16)
                    c.skip = c.length - 1
                    if c.kind == ERR_PACKET:
                        self._keep_error(p + at, min(c.skip, n - at))
            if c.skip == 0 and (self._ends_postgres(c) if self.protocol == POSTGRES else self._ends_mariadb(c)):
                if c.outstanding == 0:
                    self._broken(c)         # an answer to nothing: the two ends disagree about the protocol
                    return
                self._record(i, now, sending)

    cdef bint _ends_postgres(self, Connection* c) noexcept nogil:
        if c.kind == ERROR_RESPONSE:
            c.failed = True
        return c.kind == READY_FOR_QUERY

    cdef bint _ends_mariadb(self, Connection* c) noexcept nogil:
        cdef bint last = c.kind == EOF_PACKET and c.length < EOF_BYTES
        if c.kind == ERR_PACKET:
            c.failed = True
        elif c.part == PART_FIRST and c.kind != OK_PACKET:
            c.part = PART_COLUMNS
            return False
        elif c.part == PART_COLUMNS:
            if last:
                c.part = PART_ROWS
            return False
        elif c.part == PART_ROWS and not last:
            return False
        c.part = PART_FIRST
        return True

    cdef void _record(self, uint32_t i, double now, bint sending) noexcept nogil:
        cdef Connection* c = &self.connections[i]
        cdef double micros = (now - self.due[i * self.depth + c.oldest]) * 1e6
        c.oldest = (c.oldest + 1) % self.depth
        c.outstanding -= 1
        self.outstanding -= 1
        self.histogram[slot_of(<uint64_t>max(micros, 0.0))] += 1
        if sending:
            self.in_time += 1
        if c.failed:
            self.errors += 1
            c.failed = False
        else:
            self.done += 1

    cdef void _keep_error(self, uint8_t* p, Py_ssize_t n) noexcept nogil:
        """The first error's text, as far as this read holds it."""
        if self.nerror == 0 and n > 0:
            self.nerror = <int>min(n, ERROR_BYTES)
            memcpy(self.error, p, self.nerror)

    # --- what was found ---------------------------------------------------------------------------

    @property
    def first_error(self):
        """The server's words for the first statement that failed; empty if none did."""
        cdef bytes raw = self.error[:self.nerror]
        if self.protocol == POSTGRES:
            fields = {f[:1]: f[1:] for f in raw.split(b"\0") if f}
            raw = fields.get(b"M", b"")
        else:
            raw = raw[8:] if raw[2:3] == b"#" else raw[2:]
        return raw.decode("utf-8", "replace")

    @property
    def late(self):
        """Open loop: statements that were due when sending ended, and had not been sent."""
        return max(0, int(self.elapsed * self.rate) - self.issued) if self.rate else 0

    def percentile(self, double share):
        """The latency in milliseconds below which ``share`` (0 to 1) of the answers lie, within 1 %."""
        cdef uint64_t total = 0
        cdef uint64_t seen = 0
        cdef int i
        for i in range(SLOTS):
            total += self.histogram[i]
        for i in range(SLOTS):
            seen += self.histogram[i]
            if total and seen >= total * share:
                return slot_value(i) / 1000
        return 0.0

    def drain(self):
        """``[(microseconds, answers), …]`` recorded since the last call."""
        cdef uint64_t seen
        cdef int i
        found = []
        for i in range(SLOTS):
            seen = self.histogram[i]
            if seen != self.drained[i]:
                found.append((slot_value(i), seen - self.drained[i]))
                self.drained[i] = seen
        return found
