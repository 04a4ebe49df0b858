# TLS below an endpoint: OpenSSL, by Python's ``ssl``, between the endpoint and its socket. No session knows of it.

cdef enum:
    TLS_HANDSHAKE = 22              # first byte of a TLS connection: RFC 8446, 5.1, ContentType handshake
    TLS_RECORD = 16384              # plain bytes of a record at most; so much is handed to OpenSSL at a time
    PLAIN_BYTES = 163840            # what one read from a socket may hold, and a record begun before it

cdef char[163840] PLAIN


def tls_reason(error):
    """What an ``ssl.SSLError`` says, for people."""
    text = (getattr(error, "reason", None) or type(error).__name__).replace("_", " ").lower()
    return f"{text}: {error.verify_message}" if getattr(error, "verify_message", "") else text


cdef class Tls:
    """The two directions of one TLS connection, without a socket.

    ``engine`` is an ``ssl.SSLObject`` over two ``ssl.MemoryBIO``: ``incoming`` for what the peer has sealed,
    ``outgoing`` for what is sealed here. Both stay small: they get and give a record's worth at a time.
    """
    cdef object incoming
    cdef object outgoing
    cdef object engine
    cdef readonly Buffer sealed     # bytes for the socket
    cdef readonly bint established  # the handshake is done
    cdef bint ended                 # the peer has said that nothing more will come (close_notify)
    cdef bint broken                # it cannot be used any more
    cdef readonly str version       # "TLSv1.3"; None until the handshake is done

    def __init__(self, incoming, outgoing, engine):
        self.incoming = incoming
        self.outgoing = outgoing
        self.engine = engine
        self.sealed = Buffer()
        self.version = engine.version()
        self.established = self.version is not None

    cdef Py_ssize_t take(self, const char* p, Py_ssize_t n) except -1:
        """Takes bytes from the socket; returns how many plain ones lie in ``PLAIN``. ssl.SSLError: it is broken."""
        cdef Py_ssize_t filled = 0
        cdef Py_ssize_t part
        try:
            while True:
                part = min(n, TLS_RECORD)
                if part:
                    self.incoming.write(PyMemoryView_FromMemory(<char*>p, part, PyBUF_READ))
                    p += part
                    n -= part
                if not self.established:
                    self.shake_hands()
                if self.established:
                    filled = self.unseal(filled)
                if not n:
                    return filled
        except ssl.SSLError:
            self.broken = True
            raise
        finally:
            self.collect()              # an alert, too

    cdef int shake_hands(self) except -1:
        try:
            self.engine.do_handshake()
        except ssl.SSLWantReadError:
            return 0
        self.established = True
        self.version = self.engine.version()
        return 0

    cdef Py_ssize_t unseal(self, Py_ssize_t filled) except -1:
        cdef Py_ssize_t got
        while filled < PLAIN_BYTES and not self.ended:
            try:
                got = self.engine.read(PLAIN_BYTES - filled, PyMemoryView_FromMemory(
                    PLAIN + filled, PLAIN_BYTES - filled, PyBUF_WRITE))
            except ssl.SSLWantReadError:
                break
            if got == 0:
                self.ended = True
            filled += got
            if not self.incoming.pending and not self.engine.pending():
                break                   # spares the exception that would say so
        return filled

    cdef int seal(self, Buffer plain) except -1:
        """Takes a record's worth from ``plain``, or is ``broken``."""
        cdef Py_ssize_t n = min(plain.size(), TLS_RECORD)
        try:
            self.engine.write(PyMemoryView_FromMemory(plain.ptr(), n, PyBUF_READ))
        except ssl.SSLError:
            self.broken = True
            return 0
        plain.consume(n)
        return self.collect()

    cdef int collect(self) except -1:
        if self.outgoing.pending:
            self.sealed.append_bytes(self.outgoing.read())
        return 0

    cdef int end(self) except -1:
        """Says that nothing more will come (close_notify)."""
        if self.established and not self.broken:
            self.broken = True
            try:
                self.engine.unwrap()
            except ssl.SSLError:
                pass
            self.collect()
        return 0


cdef class TlsStream(Stream):
    """A stream whose socket carries TLS. ``incoming``, ``outgoing``, ``engine``: see ``Tls``."""
    cdef readonly Tls tls

    def __init__(self, sock, Endpoint endpoint, poller, incoming, outgoing, engine):
        self.tls = Tls(incoming, outgoing, engine)
        Stream.__init__(self, sock, endpoint, poller)

    cdef int read(self) except -1:
        cdef Endpoint ep = self.endpoint
        cdef ssize_t n
        if not self.tls.established and ep.turn.spent(ep.turn.now):
            return 0                    # a handshake takes a millisecond: the next turn reads it
        n = c_recv(self.fd, SCRATCH, SCRATCH_BYTES, 0)
        if n > 0:
            return self.take(SCRATCH, n)
        if n == 0 or (errno != EAGAIN and errno != EINTR):
            self.take(NULL, 0)          # an alert that came with the last bytes of the handshake
            if not ep.closed:
                ep.disconnect(C_PEER_GONE)
        return 0

    cdef int take(self, const char* p, Py_ssize_t n) except -1:
        """Bytes from the socket."""
        cdef Endpoint ep = self.endpoint
        cdef Tls tls = self.tls
        cdef bint shaken = tls.established
        cdef Py_ssize_t got
        if tls.broken:
            return 0
        try:
            got = tls.take(p, n)
        except ssl.SSLError as error:
            self.flush()
            ep.insecure(tls_reason(error))
            return ep.disconnect(C_PEER_GONE)
        if not shaken and tls.established:
            ep.secured(tls.engine.selected_alpn_protocol())
            ep.mark()                   # what was to be sent waited for this
        if got:
            ep.feed(PLAIN, got)
        if tls.ended and not ep.closed:
            return ep.disconnect(C_PEER_GONE)
        if tls.sealed.size() and not ep.closed:
            self.flush()
        return 0

    cdef int flush(self) except -1:
        cdef Endpoint ep = self.endpoint
        cdef Tls tls = self.tls
        cdef Py_ssize_t size
        cdef ssize_t n
        while True:
            while tls.established and not tls.broken and ep.out.size() and tls.sealed.size() < LOW_WATER:
                size = ep.out.size()
                tls.seal(ep.out)
                if tls.broken:
                    return ep.disconnect(C_PEER_GONE)
                if size >= LOW_WATER and ep.out.size() < LOW_WATER:
                    ep.drained()
            if not tls.sealed.size():
                break
            n = c_send(self.fd, tls.sealed.ptr(), tls.sealed.size(), MSG_NOSIGNAL)
            if n < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    break
                return ep.disconnect(C_PEER_GONE)
            ep.used = ep.turn.now
            tls.sealed.consume(n)
        # without a handshake, what is to be said cannot be
        if ep.closing and not tls.sealed.size() and (tls.broken or not tls.established or not ep.out.size()):
            ep.close()
        return 0

    cdef int wanted(self) except -1:
        cdef Endpoint ep = self.endpoint
        cdef Tls tls = self.tls
        cdef int want = 0
        if tls.sealed.size() or (tls.established and not tls.broken and ep.out.size()):
            want = IO_WRITE
        if (not tls.established or ep.want_read()) and tls.sealed.size() < HIGH_WATER:
            want |= IO_READ
        return want

    cdef int due(self) noexcept:
        return 1                    # where most of a record is here, less is to come than it holds

    cdef int close(self) except -1:
        if self.fd >= 0:
            if not self.tls.sealed.size():
                self.tls.end()
            if self.tls.sealed.size():
                c_send(self.fd, self.tls.sealed.ptr(), self.tls.sealed.size(), MSG_NOSIGNAL)
        return Stream.close(self)


cdef inline bint has_tls(Endpoint ep) noexcept:
    return ep is not None and isinstance(ep.stream, TlsStream)


cdef int start_tls(Endpoint ep, const char* p, Py_ssize_t n) except -1:
    """From here on the endpoint's stream is TLS.

    What lies in ``out`` still goes in clear, in front of it. ``p``: what has come that belongs to TLS.
    """
    cdef Stream plain = ep.stream
    cdef TlsStream stream
    plain.poller.forget(plain)
    plain.fd = -1
    stream = TlsStream(plain.sock, ep, plain.poller, *ep.secure())
    if ep.out.size():
        stream.tls.sealed.append(ep.out.ptr(), ep.out.size())
        ep.out.consume(ep.out.size())
    stream.take(p, n)
    return ep.mark()
