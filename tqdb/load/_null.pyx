"""The null backend: speaks both protocols and stores nothing, so that what stands before it is what is measured.

It counts the tuples of an INSERT, knows whether a transaction is open, and hands every SELECT and SHOW to ``rows``. It
understands the statements of the load generator and what the proxy makes of them, not SQL.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy, memmove

import struct

from tqdb.load.epoll cimport (
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLLIN,
    EPOLLOUT,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    c_close,
    c_recv,
    c_send,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    ssize_t,
)

cdef enum:
    READ_BYTES = 262144
    EVENTS = 256
    SLEEP_MS = 200
    PG_HEADER = 5
    MY_HEADER = 4
    CODE_SSL = 80877103
    CODE_GSSENC = 80877104
    COM_QUIT = 1
    COM_QUERY = 3
    MY_IN_TRANSACTION = 1       # SERVER_STATUS_IN_TRANS
    MY_AUTOCOMMIT = 2           # SERVER_STATUS_AUTOCOMMIT

cdef enum Stage:
    S_LOGIN = 0
    S_READY

cdef enum Kind:
    K_OTHER = 0
    K_INSERT
    K_UPDATE
    K_SELECT
    K_BEGIN
    K_COMMIT
    K_ROLLBACK
    K_SET

TAGS = {K_BEGIN: b"BEGIN", K_COMMIT: b"COMMIT", K_ROLLBACK: b"ROLLBACK", K_SET: b"SET", K_UPDATE: b"UPDATE 1",
        K_SELECT: b"SELECT 0", K_OTHER: b"OK"}


def pg(bytes kind, bytes body=b""):
    """A PostgreSQL message."""
    return kind + struct.pack("!I", len(body) + 4) + body


def my(int sequence, bytes payload):
    """A MariaDB packet."""
    return len(payload).to_bytes(3, "little") + bytes((sequence & 255,)) + payload


PG_WELCOME = (
    pg(b"R", b"\0\0\0\0")
    + b"".join(pg(b"S", n + b"\0" + v + b"\0") for n, v in (
        (b"server_version", b"15.0"), (b"server_encoding", b"UTF8"), (b"client_encoding", b"UTF8"),
        (b"standard_conforming_strings", b"on"), (b"integer_datetimes", b"on"), (b"DateStyle", b"ISO, MDY"),
        (b"TimeZone", b"UTC")))
    + pg(b"Z", b"I"))
# protocol 10; long password, found rows, connect with db, protocol 4.1, transactions, secure connection,
# multi-statements, multi-results, plugin auth; utf8mb4
MY_GREETING = my(0, (
    b"\x0a5.5.5-10.11.0-MariaDB-null\0" + b"\1\0\0\0" + b"saltsalt\0" + struct.pack("<H", 0xA20B) + b"\x2d"
    + struct.pack("<H", MY_AUTOCOMMIT) + struct.pack("<H", 0x000B) + b"\x15" + b"\0" * 10 + b"saltsaltsalt\0"
    + b"mysql_native_password\0"))


cdef class Statement:
    """One statement as far as it matters here."""
    cdef int kind
    cdef uint64_t tuples


cdef inline uint8_t lower(uint8_t c) noexcept nogil:
    return c | 0x20


cdef bint is_word(const uint8_t* p, Py_ssize_t n, const char* word, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    if n < size:
        return False
    for i in range(size):
        if lower(p[i]) != <uint8_t>word[i]:
            return False
    return True


cdef int kind_of(const uint8_t* p, Py_ssize_t n) noexcept nogil:
    if is_word(p, n, b"insert", 6):
        return K_INSERT
    if is_word(p, n, b"update", 6):
        return K_UPDATE
    if is_word(p, n, b"select", 6) or is_word(p, n, b"with", 4) or is_word(p, n, b"show", 4):
        return K_SELECT
    if is_word(p, n, b"begin", 5):
        return K_BEGIN
    if is_word(p, n, b"commit", 6):
        return K_COMMIT
    if is_word(p, n, b"rollback", 8):
        return K_ROLLBACK
    if is_word(p, n, b"set", 3):
        return K_SET
    return K_OTHER


cdef Py_ssize_t next_statement(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, int* kind,
                               uint64_t* tuples) noexcept nogil:
    """Reads the statement at ``i`` up to its semicolon or the end; returns where the next one begins."""
    cdef const uint8_t* close
    cdef int depth = 0
    cdef bint fresh = True
    kind[0] = -1
    tuples[0] = 0
    while i < n:
        if p[i] == b"'":
            close = <const uint8_t*>memchr(p + i + 1, b"'", n - i - 1)
            i = close - p + 1 if close != NULL else n
            continue
        if p[i] == b"(":
            if depth == 0:
                tuples[0] += 1
            depth += 1
        elif p[i] == b")":
            depth -= 1
        elif p[i] == b";" and depth == 0:
            return i + 1
        elif p[i] == b"/" and i + 1 < n and p[i + 1] == b"*":
            i += 2
            while i + 1 < n and not (p[i] == b"*" and p[i + 1] == b"/"):
                i += 1
            i += 2
            continue
        elif depth == 0 and lower(p[i]) >= b"a" and lower(p[i]) <= b"z":
            if fresh:
                if kind[0] < 0:
                    kind[0] = kind_of(p + i, n - i)
                elif kind[0] == K_SET and is_word(p + i, n - i, b"for ", 4):
                    kind[0] = -1            # SET STATEMENT … FOR another one
                elif is_word(p + i, n - i, b"values", 6):
                    tuples[0] = 0           # what came before was the list of columns
            fresh = False
            i += 1
            continue
        fresh = p[i] != b"_" and not (p[i] >= b"0" and p[i] <= b"9")
        i += 1
    return n


cdef class Connection:
    cdef object sock
    cdef int fd
    cdef int stage
    cdef bint transaction
    cdef bint armed
    cdef char* inbuf
    cdef Py_ssize_t nin
    cdef Py_ssize_t room
    cdef char* out
    cdef Py_ssize_t nout
    cdef Py_ssize_t out_room
    cdef dict statements        # PostgreSQL: name -> list of Statement
    cdef list portal

    def __cinit__(self, sock=None):
        self.sock = sock
        self.fd = sock.fileno()
        self.statements = {}
        self.portal = []

    def __dealloc__(self):
        free(self.inbuf)
        free(self.out)

    cdef int put(self, const char* p, Py_ssize_t n) except -1:
        cdef char* grown
        if self.nout + n > self.out_room:
            grown = <char*>realloc(self.out, 2 * (self.nout + n))
            if grown == NULL:
                raise MemoryError()
            self.out = grown
            self.out_room = 2 * (self.nout + n)
        memcpy(self.out + self.nout, p, n)
        self.nout += n
        return 0

    cdef inline int put_bytes(self, bytes b) except -1:
        return self.put(<char*>b, len(b))


cdef class NullBackend:
    """``listener``: a listening socket; ``rows(sql, inserted)`` gives the answer's messages to a SELECT as text."""
    cdef object listener
    cdef object rows
    cdef bint postgres
    cdef int epoll
    cdef dict connections
    cdef char[262144] scratch
    cdef readonly uint64_t inserted
    cdef public bint stopping

    def __init__(self, str protocol, listener, rows):
        self.postgres = protocol == "postgres"
        self.listener = listener
        self.rows = rows
        self.connections = {}

    def run(self):
        """Serves until ``stopping`` is set."""
        cdef epoll_event[256] events
        cdef epoll_event ev
        cdef int n, k
        cdef Connection c
        cdef int listening = self.listener.fileno()
        self.listener.setblocking(False)
        self.epoll = epoll_create1(0)
        ev.events = EPOLLIN
        ev.data.u32 = listening
        epoll_ctl(self.epoll, EPOLL_CTL_ADD, listening, &ev)
        while not self.stopping:
            with nogil:
                n = epoll_wait(self.epoll, events, EVENTS, SLEEP_MS)
            for k in range(n):
                if <int>events[k].data.u32 == listening:
                    self.accept()
                    continue
                c = self.connections.get(events[k].data.u32)
                if c is None:
                    continue
                if events[k].events & ~<uint32_t>EPOLLOUT:
                    self.read(c)
                self.flush(c)
        c_close(self.epoll)

    cdef int accept(self) except -1:
        cdef epoll_event ev
        cdef Connection c
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return 0
            sock.setblocking(False)
            sock.setsockopt(6, 1, 1)        # IPPROTO_TCP, TCP_NODELAY
            c = Connection(sock)
            self.connections[c.fd] = c
            ev.events = EPOLLIN
            ev.data.u32 = c.fd
            epoll_ctl(self.epoll, EPOLL_CTL_ADD, c.fd, &ev)
            if not self.postgres:
                c.put_bytes(MY_GREETING)
                self.flush(c)

    cdef int close(self, Connection c) except -1:
        if c.fd >= 0:
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, c.fd, NULL)
            del self.connections[c.fd]
            c.sock.close()
            c.fd = -1
        return 0

    cdef int flush(self, Connection c) except -1:
        cdef epoll_event ev
        cdef ssize_t n
        cdef Py_ssize_t at = 0
        if c.fd < 0:
            return 0
        while at < c.nout:
            n = c_send(c.fd, c.out + at, c.nout - at, MSG_NOSIGNAL | MSG_DONTWAIT)
            if n < 0 and errno == EINTR:
                continue
            if n < 0 and errno == EAGAIN:
                break
            if n <= 0:
                return self.close(c)
            at += n
        c.nout -= at
        if c.nout:
            memmove(c.out, c.out + at, c.nout)
        if c.armed != (c.nout > 0):
            c.armed = c.nout > 0
            ev.events = EPOLLIN | (EPOLLOUT if c.armed else 0)
            ev.data.u32 = c.fd
            epoll_ctl(self.epoll, EPOLL_CTL_MOD, c.fd, &ev)
        return 0

    cdef int read(self, Connection c) except -1:
        cdef ssize_t n = c_recv(c.fd, self.scratch, READ_BYTES, MSG_DONTWAIT)
        cdef Py_ssize_t used
        cdef char* grown
        if n < 0 and (errno == EAGAIN or errno == EINTR):
            return 0
        if n <= 0:
            return self.close(c)
        if c.nin == 0:
            used = self.consume(c, self.scratch, n)
            if c.fd < 0 or used == n:
                return 0
            n -= used
            memmove(self.scratch, self.scratch + used, n)
        if c.nin + n > c.room:
            grown = <char*>realloc(c.inbuf, 2 * (c.nin + n))
            if grown == NULL:
                raise MemoryError()
            c.inbuf = grown
            c.room = 2 * (c.nin + n)
        memcpy(c.inbuf + c.nin, self.scratch, n)
        c.nin += n
        used = self.consume(c, c.inbuf, c.nin)
        if c.fd >= 0 and used:
            c.nin -= used
            memmove(c.inbuf, c.inbuf + used, c.nin)
        return 0

    cdef Py_ssize_t consume(self, Connection c, const char* p, Py_ssize_t n) except -1:
        """Answers the whole messages at ``p``; returns how many bytes they are."""
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t used = 1
        while i < n and used and c.fd >= 0:
            used = self.pg_message(c, p + i, n - i) if self.postgres else self.my_packet(c, p + i, n - i)
            i += used
        return i

    # --- PostgreSQL -------------------------------------------------------------------------------

    cdef Py_ssize_t pg_message(self, Connection c, const char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t total
        cdef const uint8_t* u = <const uint8_t*>p
        cdef bytes name
        if c.stage == S_LOGIN:
            if n < 8:
                return 0
            total = (u[0] << 24) | (u[1] << 16) | (u[2] << 8) | u[3]
            if n < total:
                return 0
            if ((u[4] << 24) | (u[5] << 16) | (u[6] << 8) | u[7]) in (CODE_SSL, CODE_GSSENC):
                c.put(b"N", 1)
            else:
                c.stage = S_READY
                c.put_bytes(PG_WELCOME)
            return total
        if n < PG_HEADER:
            return 0
        total = ((u[1] << 24) | (u[2] << 16) | (u[3] << 8) | u[4]) + 1
        if n < total:
            return 0
        if p[0] == b"Q":
            self.pg_query(c, u + PG_HEADER, total - PG_HEADER - 1)
            self.pg_ready(c)
        elif p[0] == b"P":
            name = (<const char*>p + PG_HEADER)
            c.statements[name] = self.pg_statements(u + PG_HEADER + len(name) + 1,
                                                    total - PG_HEADER - len(name) - 1)
            c.put(b"1\0\0\0\4", 5)
        elif p[0] == b"B":
            name = (<const char*>p + PG_HEADER)
            name = (<const char*>p + PG_HEADER + len(name) + 1)
            c.portal = c.statements.get(name, [])
            c.put(b"2\0\0\0\4", 5)
        elif p[0] == b"D":
            if p[PG_HEADER] == b"S":
                c.put(b"t\0\0\0\6\0\0", 7)
            c.put(b"n\0\0\0\4", 5)
        elif p[0] == b"E":
            for item in c.portal:
                self.pg_complete(c, (<Statement>item).kind, (<Statement>item).tuples)
        elif p[0] == b"S":
            self.pg_ready(c)
        elif p[0] == b"C":
            c.put(b"3\0\0\0\4", 5)
        elif p[0] == b"X":
            self.close(c)
        return total

    cdef int pg_ready(self, Connection c) except -1:
        c.put(b"Z\0\0\0\5", 5)
        return c.put(b"T" if c.transaction else b"I", 1)

    cdef list pg_statements(self, const uint8_t* p, Py_ssize_t n):
        cdef Py_ssize_t i = 0
        cdef const uint8_t* nul = <const uint8_t*>memchr(p, 0, n)
        cdef Statement statement
        found = []
        n = nul - p
        while i < n:
            statement = Statement()
            i = next_statement(p, i, n, &statement.kind, &statement.tuples)
            if statement.kind >= 0:
                found.append(statement)
        return found

    cdef int pg_query(self, Connection c, const uint8_t* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t start
        cdef int kind
        cdef uint64_t tuples
        cdef bint any = False
        while i < n:
            start = i
            i = next_statement(p, i, n, &kind, &tuples)
            if kind == K_SELECT:
                c.put_bytes(self.rows((<const char*>p)[start:i], self.inserted))
            elif kind >= 0:
                self.pg_complete(c, kind, tuples)
            else:
                continue
            any = True
        if not any:
            c.put(b"I\0\0\0\4", 5)
        return 0

    cdef int pg_complete(self, Connection c, int kind, uint64_t tuples) except -1:
        if kind == K_INSERT:
            self.inserted += tuples
            if tuples == 1:
                return c.put(b"C\0\0\0\x0fINSERT 0 1\0", 16)
            return c.put_bytes(pg(b"C", b"INSERT 0 %d\0" % tuples))
        if kind == K_BEGIN:
            c.transaction = True
        elif kind == K_COMMIT or kind == K_ROLLBACK:
            c.transaction = False
        return c.put_bytes(pg(b"C", TAGS[kind] + b"\0"))

    # --- MariaDB ----------------------------------------------------------------------------------

    cdef Py_ssize_t my_packet(self, Connection c, const char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t total
        cdef const uint8_t* u = <const uint8_t*>p
        cdef int kind
        cdef uint64_t tuples
        if n < MY_HEADER:
            return 0
        total = (u[0] | (u[1] << 8) | (u[2] << 16)) + MY_HEADER
        if n < total:
            return 0
        if c.stage == S_LOGIN:
            c.stage = S_READY
            self.my_ok(c, u[3] + 1, 0, 0)
        elif u[MY_HEADER] == COM_QUERY:
            next_statement(u + MY_HEADER + 1, 0, total - MY_HEADER - 1, &kind, &tuples)
            if kind == K_SELECT:
                c.put_bytes(self.rows(p[MY_HEADER + 1:total], self.inserted))
            elif kind == K_INSERT:
                self.my_ok(c, 1, tuples, self.inserted + 1)
                self.inserted += tuples
            else:
                if kind == K_BEGIN:
                    c.transaction = True
                elif kind == K_COMMIT or kind == K_ROLLBACK:
                    c.transaction = False
                self.my_ok(c, 1, kind == K_UPDATE, 0)
        elif u[MY_HEADER] == COM_QUIT:
            self.close(c)
        else:
            self.my_ok(c, 1, 0, 0)
        return total

    cdef int my_ok(self, Connection c, int sequence, uint64_t affected, uint64_t insert_id) except -1:
        """An OK packet; affected rows and insert id are length-encoded integers."""
        cdef char[32] packet
        cdef int n = MY_HEADER + 1
        packet[3] = <char>sequence
        packet[4] = 0
        n += put_lenenc(packet + n, affected)
        n += put_lenenc(packet + n, insert_id)
        packet[n] = MY_AUTOCOMMIT | (MY_IN_TRANSACTION if c.transaction else 0)
        packet[n + 1] = packet[n + 2] = packet[n + 3] = 0
        n += 4
        packet[0] = <char>(n - MY_HEADER)
        packet[1] = packet[2] = 0
        return c.put(packet, n)


cdef int put_lenenc(char* p, uint64_t value) noexcept nogil:
    """A length-encoded integer (MariaDB documentation, "Protocol Data Types"); returns its bytes."""
    cdef int size, k
    if value < 251:
        p[0] = <char>value
        return 1
    size = 2 if value < 1 << 16 else 3 if value < 1 << 24 else 8
    p[0] = <char>(252 if size == 2 else 253 if size == 3 else 254)
    for k in range(size):
        p[1 + k] = <char>(value >> (8 * k))
    return size + 1
