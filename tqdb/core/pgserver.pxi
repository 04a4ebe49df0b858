# PostgreSQL: the server connection. Its messages meet the expectations.

cdef enum Verdict:
    V_RELAY = 0
    V_MORE                  # the message has to be here whole
    V_IGNORE               # it is not for the client


# SQLSTATE read_only_sql_transaction: of a standby, or of a transaction that was begun so
cdef bytes PG_READ_ONLY = b"25006"


cdef enum:
    SQLSTATE_BYTES = 5


cdef class PgServer(PgBatchServer):
    """The server's end: relays answers, and reads those of batches and of the proxy's own statements."""
    cdef Buffer collected           # of the proxy's question
    cdef bytes instead              # goes to the client in place of the message that is ignored

    cdef Py_ssize_t parse(self, const char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t relayed = 0          # p[relayed:i] is to be relayed and not yet copied
        cdef Py_ssize_t total, part
        cdef int32_t length
        cdef int verdict
        cdef uint8_t kind
        cdef Expected* front
        if self.pg.state == PG_RAW:
            self.relay(p, n)
            return n
        while i < n and not self.closing:
            if self.skip:
                part = min(self.skip, n - i)
                self.skip -= part
                i += part
                continue
            if n - i < PG_HEADER:
                break
            kind = p[i]
            length = <int32_t>tq_be32(p + i + 1)
            if length < 4:
                return self.misled(p + relayed, i - relayed, "a message of length %d" % length)
            total = <Py_ssize_t>length + 1
            if kind == BE_ERROR:
                if self.pg.state == PG_AUTH and length > MAX_AUTH_BYTES:
                    return self.misled(p + relayed, i - relayed, "an error of length %d" % length)
                if n - i < total:
                    break
                if len(pg_field(p + i + PG_HEADER, total - PG_HEADER, b"C")) != SQLSTATE_BYTES:
                    return self.misled(p + relayed, i - relayed, "an error without SQLSTATE")
                if pg_field(p + i + PG_HEADER, total - PG_HEADER, b"V") in PG_ENDING:
                    self.relay(p + relayed, i - relayed)
                    return self.meet_end_of_connection(p + i, total)
            front = self.expected.front()
            if front != NULL and (front.owner >= X_COLLECT or (
                    front.owner == X_IGNORE and PG_ASKS[front.message] & AK_READY)):
                self.relay(p + relayed, i - relayed)
                relayed = i
                if n - i < total:
                    break
                if self.on_async_message(kind, p + i, total):
                    pass
                elif front.owner == X_BATCH:
                    self.on_batch_message(kind, p + i, total)
                elif front.owner == X_COLLECT:
                    self.on_collected_message(kind, p + i, total)
                else:
                    self.on_ignored_message(kind, p + i, total)
                i += total
                relayed = i
                continue
            verdict = V_RELAY
            if kind != BE_DATA_ROW and kind != BE_COPY_DATA:
                verdict = self.meet(kind, p + i, n - i, total, front)
            if verdict == V_MORE:
                break
            if verdict == V_IGNORE or (kind == BE_NOTICE and front != NULL and front.owner == X_IGNORE):
                self.relay(p + relayed, i - relayed)
                if n - i < total:
                    relayed = i
                    break
                i += total
                relayed = i
                if self.instead is not None:
                    self.client.out.append_bytes(self.instead)
                    self.client.mark()
                    self.instead = None
                continue
            part = min(total, n - i)
            self.skip = total - part
            i += part
        if self.closing:
            return n
        self.relay(p + relayed, i - relayed)
        return i if i else NEED_MORE

    cdef Py_ssize_t not_understood(self, str what) except -1:
        log.error("server %s sent %s; connection closed", self.client.backend, what)
        self.disconnect(C_CUT)
        return NEED_MORE

    cdef Py_ssize_t misled(self, const char* p, Py_ssize_t n, str what) except -1:
        """As ``not_understood``, behind ``p[:n]``, which is for the client; it is told, too."""
        self.relay(p, n)
        self.pg.last_words = pg_error("FATAL", "08P01", f"the server does not keep to the protocol: it sent {what}")
        return self.not_understood(what)

    # --- answers to the client's messages -----------------------------------------------------------------

    cdef int meet(self, int kind, const char* p, Py_ssize_t n, Py_ssize_t total, Expected* front) except -1:
        """A message that may meet an expectation: returns a ``Verdict``."""
        cdef int owner
        if PG_ENDS[kind]:
            return self.meet_end(kind, p, n, total, front)
        if kind == BE_READY:
            if n < total:
                return V_MORE
            if front == NULL or not PG_ASKS[front.message] & AK_READY and front.message != FE_STARTUP:
                self.not_understood("a ReadyForQuery that nothing asked for")
                return V_IGNORE
            failed = front.flags & XF_FAILED != 0
            self.pg.on_ready(p[PG_HEADER], self.expected.pop(), failed)
        elif kind == BE_ERROR:
            if front != NULL:
                if not self.pg.tells_standby and (
                        pg_field(p + PG_HEADER, total - PG_HEADER, b"C") == PG_READ_ONLY):
                    self.engine.hooks.server_says(self.pg, "read_only")
                self.pg.on_error()
        elif kind == BE_COPY_IN or kind == BE_COPY_OUT:
            if front != NULL:
                self.pg.on_copy(kind == BE_COPY_IN)
        elif kind == BE_PARAMETER_STATUS:
            if n < total:
                return V_MORE
            self.pg.on_parameter(p + PG_HEADER, total - PG_HEADER)
        elif kind == BE_KEY_DATA:
            if n < total:
                return V_MORE
            self.pg.on_key(p[PG_HEADER:total])
        elif kind == BE_AUTHENTICATION and self.pg.state == PG_AUTH:
            if total > MAX_AUTH_BYTES:
                self.not_understood("an authentication request of length %d" % total)
                return V_IGNORE
            return self.on_authentication(p[PG_HEADER:total]) if n >= total else V_MORE
        return V_RELAY

    cdef int on_authentication(self, bytes asked) except -1:
        """What the server asks the client for: a code, and for SASL the mechanisms offered. Returns a ``Verdict``.

        A mechanism that binds to the server's TLS connection is not offered: the client's is another one. Without TLS
        a client would not even believe it.
        """
        cdef list offered, kept
        if len(asked) < 4:
            self.pg.refuse("protocol", "the server does not keep to the protocol: "
                           "it sent an authentication request without a code")
            return V_IGNORE
        self.pg.asked_to = int.from_bytes(asked[:4], "big")
        if self.pg.proof is not None:
            return V_RELAY if self.pg.proof.asked(
                self.pg.asked_to, asked[4:], bool(has_tls(self)), bool(self.local)) else V_IGNORE
        if self.pg.asked_to == AUTH_CLEARTEXT and self.pg.would_disclose():
            self.pg.refuse_disclosure()
            return V_IGNORE
        if self.pg.asked_to != AUTH_SASL:
            return V_RELAY
        offered = asked[4:].rstrip(b"\0").split(b"\0")
        kept = [m for m in offered if m not in PG_BINDING or (self.pg.same_end and has_tls(self.pg))]
        self.pg.plus_taken = len(kept) < len(offered)
        if self.pg.would_disclose():
            kept = [m for m in kept if m in PG_SECRETIVE]
        if not kept:
            self.pg.refuse_disclosure()
            return V_IGNORE
        if len(kept) == len(offered):
            return V_RELAY
        self.instead = pg_message(b"R", asked[:4] + b"".join([m + b"\0" for m in kept]) + b"\0")
        return V_IGNORE

    cdef int meet_end(self, int kind, const char* p, Py_ssize_t n, Py_ssize_t total, Expected* front) except -1:
        """A message that ends the answer to an extended-protocol message, if that is what is expected."""
        cdef bint ignored
        if front == NULL:
            return V_RELAY
        if kind == BE_COMMAND_COMPLETE and (front.flags & XF_EFFECT or self.pg.history.open):
            if n < total:
                return V_MORE
            self.on_tag(p + PG_HEADER, front)
        if front.message != PG_ENDS[kind]:
            return V_RELAY
        ignored = front.owner == X_IGNORE
        effect = self.expected.pop()
        if effect is not None:
            self.pg.on_effect(effect, False, True)
        self.pg.moved()
        return V_IGNORE if ignored else V_RELAY

    cdef int on_tag(self, const char* tag, Expected* front) except -1:
        """CommandComplete of something that may change the session."""
        cdef bytes text = tag
        cdef object effect = self.expected.effects[0] if front.flags & XF_EFFECT else None
        if isinstance(effect, PgUnnamed):
            effect = (<PgUnnamed>effect).change
        if text == b"ROLLBACK":
            self.pg.transaction_ended(True)
            if isinstance(effect, Change) and (<Change>effect).text is not None:
                (<Change>effect).flags |= F_OPAQUE      # a SET of the same message may have been rolled back
        elif text == b"DISCARD ALL" and isinstance(effect, Change):
            (<Change>effect).reset = True
        return 0

    cdef Py_ssize_t meet_end_of_connection(self, const char* p, Py_ssize_t total) except -1:
        """The server says why it goes: its client is told, but first of a write of its that is in a batch elsewhere."""
        self.pg.last_words = p[:total]
        self.disconnect(C_CUT)
        return total

    cdef bint on_async_message(self, int kind, const char* p, Py_ssize_t total) except -1:
        """What the client gets whoever asked: notifications and parameter changes."""
        if kind == BE_PARAMETER_STATUS:
            self.pg.on_parameter(p + PG_HEADER, total - PG_HEADER)
        elif kind != BE_NOTIFICATION:
            return False
        self.relay(p, total)
        return True

    cdef int on_ignored_message(self, int kind, const char* p, Py_ssize_t total) except -1:
        """The answer to a Query that puts the session's state right: nobody hears of it, but it must not fail.

        What the client sent behind it would see what others did. So even a cancel that meets it ends the connection.
        """
        cdef bytes sqlstate
        if kind == BE_READY:
            self.expected.pop()
            self.pg.moved()
        elif kind == BE_ERROR and self.expected.front().flags & XF_MUST:
            sqlstate = pg_field(p + PG_HEADER, total - PG_HEADER, b"C")
            log.error("server %s did not put a session right (%s); connection closed", self.client.backend,
                      sqlstate.decode("ascii", "replace"))
            self.pg.last_words = pg_error(
                "FATAL", "08006", "the session's state could not be put right",
                "What was sent to the server last may have been done; its outcome is not known.")
            self.disconnect(C_CUT)
        return 0

    # --- the proxy's own question -------------------------------------------------------------------------

    cdef int ask(self, bytes sql) except -1:
        if self.collected is None:
            self.collected = Buffer()
        self.out.append_bytes(pg_query(sql))
        self.replaces_unnamed()
        self.expected.sent(X_COLLECT, FE_QUERY)
        return self.mark()

    cdef int on_collected_message(self, int kind, const char* p, Py_ssize_t total) except -1:
        if kind == BE_READY:
            self.expected.pop()
            self.engine.told(self.session, pg_rows(self.collected.take()))
            self.pg.moved()
        elif kind != BE_NOTICE:
            self.collected.append(p, total)
        return 0
