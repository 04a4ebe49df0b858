# A server connection, as far as both protocols share it.

cdef class SessionServer(ServerConn):
    """A connection to a backend, attached to one client session for life."""
    cdef readonly Engine engine
    cdef Session client             # the same as ``session``
    cdef bint introduced            # it was told of the client by the PROXY protocol
    cdef Py_ssize_t skip            # bytes of the current message still to be relayed
    cdef readonly bint lost         # it has ended, and not because its client had gone

    def __init__(self, Engine engine):
        self.engine = self.turn = engine

    cdef int join_session(self, Session session) except -1:
        self.session = self.client = session
        session.server = self
        self.used = self.engine.now
        return 0

    cdef inline int relay(self, const char* p, Py_ssize_t n) except -1:
        """Bytes of the server's, as they came, for the client."""
        if n > 0 and not self.client.closing:
            self.client.out.append(p, n)
            self.client.mark()
        return 0

    cdef int put_merged(self, Unit unit) except -1:
        """Appends the unit as one INSERT to ``out``: the first member's text with everybody's tuples."""
        cdef Held first = <Held>unit.members[0]
        cdef Held held
        cdef Buffer out = self.out
        cdef Write* head = first.writes
        cdef Write* w
        cdef const char* text = first.data.ptr()
        cdef Py_ssize_t total = first.data.size() + BATCH_TEXT
        cdef int k
        for item in unit.members:
            total += (<Held>item).tuple_bytes
        out.reserve(total)
        out.append(text + head.sql_start, head.tuples_end - head.sql_start)
        for item in unit.members:
            held = <Held>item
            for k in range(held.nwrites):
                w = held.writes + k
                if w is not head:
                    out.append(b",", 1)
                    out.append(held.data.ptr() + w.tuples_start, w.tuples_end - w.tuples_start)
        return out.append(text + head.tuples_end, head.sql_end - head.tuples_end)

    def introduce(self, bytes header):
        """What goes to the server in front of everything else, also of TLS (PROXY protocol)."""
        self.introduced = True
        self.out.append_bytes(header)
        self.mark()

    cdef int log_in(self, int sequence, bytes response) except -1:
        """The client's handshake response, for the server."""
        return 0

    cdef int insecure(self, str reason) except -1:
        if self.client is not None and not self.client.is_logged_in():
            self.client.refuse("connect", f"could not connect to server: TLS failed: {reason}")
        return 0

    cdef int advance(self, Batch batch, int event) except -1:
        """The answer of the batch's phase is whole: on to the next one, as the table says."""
        cdef int phase = batch.step(event)
        if phase == B_COMMIT:
            batch.worked = self.engine.now
        if phase == B_OVER:
            return self.engine.over(batch)
        if phase == B_SEVER:
            return self.disconnect(C_CUT)
        return self.enter(batch)

    cdef int enter(self, Batch batch) except -1:
        """Sends what belongs to the batch's new phase."""
        return 0

    cdef bint want_read(self) except -1:
        """Answers that are not the client's are read whatever the client does."""
        cdef Expected* front = self.queue.front()
        if self.waiting and self.inbuf.size() >= BLOCKED_INPUT:
            return False
        if self.closing or (front != NULL and front.owner != X_RELAY):
            return True
        return self.client is None or self.client.out.size() < HIGH_WATER

    cdef int drained(self) except -1:
        if not self.client.closing:
            self.client.mark()
        return 0

    cdef int let_go(self, int cause) except -1:
        self.lost = cause != C_CLIENT_GONE
        if self.batch is not None:
            self.engine.cut(self.batch)
            self.out.clear()                # what is known of it holds: nothing more of it is sent
        self.engine.asking_ended(self.client)
        if not self.client.closing:
            self.client.server_ended()
        return self.queue.clear()

    cdef int gone(self) except -1:
        self.engine.hooks.server_closed(self)
        return 0
