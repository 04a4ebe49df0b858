# PostgreSQL: what is expected of a server, as its message flow has it (protocol documentation, chapter "Message Flow").

cdef enum Asks:
    AK_ANSWER = 1           # the server answers it …
    AK_READY = 2            # … up to a ReadyForQuery
    AK_EXTENDED = 4         # after an error the server skips up to the next Sync
    AK_COPY = 8             # part of a copy: no answer of its own
    AK_SMALL = 16           # it is never long
    AK_BARE = 32            # it has no body

# what each frontend message asks for
cdef uint8_t[256] PG_ASKS
for _kind, _asks in {
        FE_QUERY: AK_ANSWER | AK_READY, FE_FUNCTION_CALL: AK_ANSWER | AK_READY,
        FE_SYNC: AK_ANSWER | AK_READY | AK_BARE,
        FE_PARSE: AK_ANSWER | AK_EXTENDED, FE_BIND: AK_ANSWER | AK_EXTENDED,
        FE_DESCRIBE: AK_ANSWER | AK_EXTENDED | AK_SMALL, FE_EXECUTE: AK_ANSWER | AK_EXTENDED | AK_SMALL,
        FE_CLOSE: AK_ANSWER | AK_EXTENDED | AK_SMALL, FE_FLUSH: AK_BARE, FE_TERMINATE: AK_BARE,
        FE_COPY_DATA: AK_COPY, FE_COPY_DONE: AK_COPY | AK_BARE, FE_COPY_FAIL: AK_COPY | AK_SMALL}.items():
    PG_ASKS[_kind] = _asks

# which frontend message's answer ends with this backend message; ReadyForQuery ends any that asks for it
cdef uint8_t[256] PG_ENDS
for _kind, _ends in {
        BE_PARSE_COMPLETE: FE_PARSE, BE_BIND_COMPLETE: FE_BIND, BE_CLOSE_COMPLETE: FE_CLOSE,
        BE_ROW_DESCRIPTION: FE_DESCRIBE, BE_NO_DATA: FE_DESCRIBE, BE_COMMAND_COMPLETE: FE_EXECUTE,
        BE_EMPTY_QUERY: FE_EXECUTE, BE_PORTAL_SUSPENDED: FE_EXECUTE}.items():
    PG_ENDS[_kind] = _ends


cdef class PgExpectations(Expectations):
    """The queue of a PostgreSQL server connection.

    While the server copies in, what it is sent is data: a Sync then is ignored by it, so it is not passed on. Whether
    it copies is known only from its answer: ``copies`` counts the messages for which that is open.
    """
    cdef bint segment_open          # extended-protocol messages were sent since the last Sync
    cdef bint skipping              # an error has come for which no Sync was sent yet
    cdef bint copying               # CopyInResponse has come and neither CopyDone nor CopyFail was sent
    cdef bint copy_data             # CopyData was sent since the last CopyDone or CopyFail
    cdef bint copy_sync             # a Sync was kept back behind it, while copying

    cdef bint sent(self, int owner, int message, int flags=0, effect=None) except -1:
        """A message goes to the server; False: it will skip it, and ``effect`` will not be."""
        cdef int asks = PG_ASKS[message]
        if message == FE_SYNC:
            self.segment_open = self.skipping = False
        elif asks & AK_EXTENDED:
            self.segment_open = True
        if not asks & AK_ANSWER:
            return True
        if self.skipping:
            return False
        self.push(owner, message, flags, effect, 0)
        return True

    cdef list error(self):
        """ErrorResponse: what the server skips is expected no more; its effects, the failed message's first."""
        cdef Expected* front = self.front()
        cdef list dropped = []
        if not PG_ASKS[front.message] & AK_EXTENDED:
            front.flags |= XF_FAILED
            return dropped
        while self.size and self.front().message != FE_SYNC:
            effect = self.pop()
            if effect is not None:
                dropped.append(effect)
        self.skipping = self.size == 0
        return dropped

    cdef int copy_begun(self, bint inward) except -1:
        """CopyInResponse or CopyOutResponse to the front entry."""
        cdef Expected* front = self.front()
        if front.flags & (XF_COPY | XF_COPY_BEGUN) == XF_COPY:
            self.copies -= 1
        front.flags |= XF_COPY_BEGUN
        if inward:
            self.copying = not front.count
            if front.count:
                front.count -= 1
        return 0

    cdef int copy_ended(self) except -1:
        """CopyDone or CopyFail goes to the server, perhaps ahead of its CopyInResponse."""
        cdef Expected* last = self.last()
        self.copy_data = False
        if self.copying:
            self.copying = self.copy_sync = False
        elif last != NULL and last.flags & XF_COPY:
            last.count += 1
        return 0
