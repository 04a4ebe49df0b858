# MariaDB/MySQL: the server connection. Its packets meet the expectations.

# Errors by which a server tells that it takes no writes now, with a word that tells them from others of the number:
# a Galera node that is not ready; read_only; a server that was started so.
cdef dict MY_NO_WRITES = {1047: b"WSREP", 1290: b"read-only", 1836: b"read-only"}


cdef class MyServer(MyBatchServer):
    """The server's end: follows every answer packet by packet, for its end and its status flags."""
    cdef list rows                  # of the proxy's question
    cdef bint offers_tls            # it says so in its greeting

    cdef Py_ssize_t parse(self, const char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t relayed = 0          # p[relayed:i] is to be relayed and not yet copied
        cdef Py_ssize_t part, length
        cdef uint8_t mark
        cdef Expected* front
        if self.my.state == MY_RAW:
            self.relay(p, n)
            return n
        while i < n and not self.closing:
            if self.skip:
                part = min(self.skip, n - i)
                self.skip -= part
                i += part
                continue
            if n - i < MY_HEADER:
                break
            length = my_length(p + i)
            front = self.queue.front()
            if front == NULL or front.owner != X_RELAY:
                self.relay(p + relayed, i - relayed)
                relayed = i
                if n - i < MY_HEADER + length:
                    break
                i += MY_HEADER + length
                relayed = i
                self.on_packet(p + i - MY_HEADER - length, length, front)
                continue
            if self.continued:
                self.continued = length == MY_MAX_PACKET
            else:
                if n - i < MY_HEADER + min(length, MY_LOOK):
                    break
                mark = <uint8_t>p[i + MY_HEADER] if length else 1
                if not self.answer.is_row(mark):
                    if n - i < MY_HEADER + length:
                        break
                    self.meet(p + i + MY_HEADER, length, front)
                    if self.closing:
                        return n
                self.continued = length == MY_MAX_PACKET
                if self.answer.done:
                    self.answer.done = False
                    i += MY_HEADER + length
                    self.relay(p + relayed, i - relayed)
                    relayed = i
                    self.met()
                    continue
            part = min(MY_HEADER + length, n - i)
            self.skip = MY_HEADER + length - part
            i += part
        if self.closing:
            return n
        self.relay(p + relayed, i - relayed)
        return i if i else NEED_MORE

    # --- answers to the client's commands -----------------------------------------------------------------

    cdef int meet(self, const char* q, Py_ssize_t length, Expected* front) except -1:
        """One packet, and no row, of the answer to the client's oldest command."""
        cdef int kind = self.answer.read(front.message, q, length)
        if front.message == COM_CHANGE_USER and kind == PK_OTHER:
            return self.my.may_be_asked(q, length)
        if self.answer.ended:
            self.my.on_status(self.answer.status, self.answer.insert_id)
            self.my.row_count = <int64_t>self.answer.affected if kind == PK_OK else -1
        elif kind == PK_ERR:
            self.my.row_count = -1
            if self.answer.error in MY_NO_WRITES and MY_NO_WRITES[self.answer.error] in q[:length]:
                self.engine.hooks.server_says(self.my, "not_ready" if self.answer.error == 1047 else "replica")
        if not self.my.may_hear(front.message, kind):
            return self.drop_out()
        if kind == PK_INFILE:
            self.my.in_infile = True
        elif kind == PK_PREPARED and front.flags & XF_EFFECT:
            (<MyStatement>self.queue.effects[0]).number = self.answer.number
            (<MyStatement>self.queue.effects[0]).nparams = self.answer.nparams
        return 0

    cdef int met(self) except -1:
        """The answer to the client's oldest command has been relayed."""
        cdef int command = self.queue.front().message
        cdef int flags = self.queue.front().flags
        self.my.on_answer(command, flags, self.queue.pop(), self.answer.failed)
        if self.answer.failed and self.answer.error in MY_ENDING:
            return self.disconnect(C_CUT)
        return 0

    # --- everything else ------------------------------------------------------------------------------------

    cdef int on_packet(self, const char* p, Py_ssize_t length, Expected* front) except -1:
        """A whole packet that is no answer to a command of the client's."""
        if self.my.state < MY_READY:
            return self.on_login_packet(p, length)
        if front == NULL:
            # nothing was asked: the server says why it goes
            self.my.last_words = p[:MY_HEADER + length]
            return self.disconnect(C_CUT)
        if front.owner == X_BATCH:
            return self.on_batch_packet(p, length)
        if front.owner == X_IGNORE:
            return self.on_ignored_packet(p, length, front)
        return self.on_collected_packet(p, length)

    cdef int on_login_packet(self, const char* p, Py_ssize_t length) except -1:
        cdef MySession my = self.my
        cdef uint8_t mark = <uint8_t>p[MY_HEADER] if length else 0
        if my.state == MY_GREETING and mark != MARK_ERR:
            return self.on_greeting(p[MY_HEADER:MY_HEADER + length])
        if my.state == MY_LOGIN and self.introduced and mark == MARK_ERR:
            my.turned_away = p[MY_HEADER:MY_HEADER + length]
            return self.disconnect(C_CUT)
        if my.state == MY_LOGIN and mark != MARK_ERR:
            log.error("server %s spoke out of turn; connection closed", my.backend)
            return self.disconnect(C_CUT)
        if my.state == MY_AUTH and not my.may_be_asked(p + MY_HEADER, length):
            return 0
        if my.state == MY_AUTH:
            # a server that was told of the client by the PROXY protocol counts an error wrongly
            my.sequence = my.sequence + 1 & 255
            my.out.append_bytes(my_packet(my.sequence, p[MY_HEADER:MY_HEADER + length]))
            my.mark()
        else:
            self.relay(p, MY_HEADER + length)
        if mark == MARK_ERR:
            return my.disconnect(C_TOLD)
        if mark == MARK_OK and my.state == MY_AUTH:
            self.answer.agree(my.capabilities, my.extended)
            self.answer.read_ok(p + MY_HEADER, length)
            my.on_status(self.answer.status, 0)
            my.login_done()
        return 0

    cdef int on_greeting(self, bytes payload) except -1:
        """The server's greeting goes on without what the proxy cannot carry."""
        nul = payload.find(b"\0")
        at = nul + 14                       # protocol, version\0, thread id, 8 bytes of scramble, filler
        if payload[:1] != b"\x0a" or nul < 0 or len(payload) < at + 16:
            log.error("server %s does not speak protocol 10; connection closed", self.my.backend)
            self.my.refuse("connect", "The server does not speak protocol version 10")
            return 0
        self.my.version = payload[1:nul]
        self.my.mariadb = b"mariadb" in self.my.version.lower()
        lower = int.from_bytes(payload[at:at + 2], "little")
        self.offers_tls = lower & CLIENT_SSL != 0
        if self.needs_tls and not self.offers_tls:
            self.my.refuse("connect", "could not connect to server: it does not offer TLS")
            return 0
        lower &= ~(CLIENT_COMPRESS | CLIENT_SSL)
        if self.my.secure is not None:
            lower |= CLIENT_SSL
        upper = int.from_bytes(payload[at + 5:at + 7], "little") & ~(
            (CLIENT_ZSTD | CLIENT_QUERY_ATTRIBUTES) >> 16)
        extended = payload[at + 14:at + 18]
        if not lower & CLIENT_MYSQL:
            extended = (int.from_bytes(extended, "little") & ~MARIADB_COM_MULTI).to_bytes(4, "little")
        return self.my.on_greeting(
            b"".join((payload[:at], lower.to_bytes(2, "little"), payload[at + 2:at + 5], upper.to_bytes(2, "little"),
                      payload[at + 7:at + 14], extended, payload[at + 18:])),
            int.from_bytes(payload[nul + 1:nul + 5], "little"))

    cdef int log_in(self, int sequence, bytes response) except -1:
        """The handshake response, behind an SSLRequest if this side is TLS: with the bit that says so, or without."""
        cdef bytes said
        capabilities = int.from_bytes(response[:4], "little") & ~CLIENT_SSL
        if self.secure is not None and self.offers_tls:
            capabilities |= CLIENT_SSL
        said = capabilities.to_bytes(4, "little") + response[4:]
        if capabilities & CLIENT_SSL:
            if self.inbuf.size():
                log.error("server %s sent data before TLS; connection closed", self.my.backend)
                return self.disconnect(C_CUT)
            # a server takes the capabilities from here
            self.out.append_bytes(my_packet(1, said[:SSL_REQUEST_BYTES]))
            start_tls(self, NULL, 0)
        if not self.my.may_disclose(self.my.plugin):
            return 0
        return self.my.forward_login(sequence, said, len(said))

    cdef int on_ignored_packet(self, const char* p, Py_ssize_t length, Expected* front) except -1:
        """The answer to what the proxy put right: nobody hears of it.

        If it fails (a KILL QUERY met it, a node of a cluster is not ready), what the client sent behind it may see what
        others did: no answer to that is relayed but an error.
        """
        cdef int flags = front.flags
        self.answer.read(COM_QUERY, p + MY_HEADER, length)
        if self.answer.done:
            self.queue.pop()
            if not self.answer.failed:
                if flags & XF_AGAIN:
                    self.my.put_right_again()
            elif flags & XF_AGAIN:
                self.my.not_put_right()
            else:
                return self.drop_out()
            self.my.moved()
        return 0

    cdef int drop_out(self) except -1:
        """The session is not what it has to be, and ends without a word: what it has sent may well have been done."""
        log.error("server %s did not put a session right; connection closed", self.my.backend)
        return self.disconnect(C_CUT)

    # --- the proxy's own question -------------------------------------------------------------------------

    cdef int ask(self, bytes sql) except -1:
        self.rows = []
        self.my.question_goes()
        self.out.append_bytes(my_command(COM_QUERY, sql))
        self.queue.push(X_COLLECT, COM_QUERY)
        return self.mark()

    cdef int on_collected_packet(self, const char* p, Py_ssize_t length) except -1:
        cdef list rows
        if self.answer.read(COM_QUERY, p + MY_HEADER, length) == PK_ROW:
            row = my_text_row(p + MY_HEADER, length)
            if row is None:
                log.error("server %s sent a row that is none; connection closed", self.my.backend)
                return self.disconnect(C_CUT)
            self.rows.append(row)
        if self.answer.done:
            rows, self.rows = self.rows, None
            self.queue.pop()
            self.engine.told(self.session, None if self.answer.failed else rows)
            self.my.moved()
        return 0
