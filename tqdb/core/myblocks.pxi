# MariaDB/MySQL: the client's transactions of one write that have come whole.

# before a question for which nobody is to wait: it may find a table locked
cdef bytes MY_BRIEFLY = b"SET STATEMENT lock_wait_timeout = 0 FOR "


cdef class MyBlocks(MyBehind):
    """A session, as far as it knows BEGIN, a write and COMMIT in one command, or in three sent in a row."""
    cdef int multi_said                 # number of the last COM_SET_OPTION, -1: none since the login, -2: nobody knows

    def __init__(self, Engine engine):
        MyBehind.__init__(self, engine)
        self.multi_said = -1

    cdef inline bint backslash(self) noexcept:
        return not self.status & STATUS_NO_BACKSLASH_ESCAPES

    cdef inline bint takes_several(self) noexcept:
        """Whether the server takes several statements in one command."""
        if self.multi_said == -1:
            return self.capabilities & CLIENT_MULTI_STATEMENTS != 0
        return self.multi_said == OPTION_MULTI_STATEMENTS_ON

    cdef bint escapes(self) noexcept:
        return self.backslash()

    cdef bytes briefly(self, bytes question):
        return MY_BRIEFLY + question

    cdef tuple schemas(self, Shape shape):
        return (self.within,) if self.within else None

    cdef int option_set(self, bytes said) except -1:
        """COM_SET_OPTION is answered well; ``said``: what stands behind the command, as far as it was seen."""
        self.multi_said = said[0] if len(said) == 2 and said[1] == 0 else -2
        return 0

    cdef Py_ssize_t query_at(self, const char* p, Py_ssize_t n) noexcept:
        """The size of the COM_QUERY packet at p, 0: there is none, or it is not here whole."""
        cdef Py_ssize_t length
        if n <= MY_HEADER or p[3] != 0 or <uint8_t>p[MY_HEADER] != COM_QUERY:
            return 0
        length = my_length(p)
        if length < 2 or n < MY_HEADER + length or length > self.engine.max_batch_bytes or length == MY_MAX_PACKET:
            return 0
        return MY_HEADER + length

    cdef Py_ssize_t parse_block(self, const char* p, Py_ssize_t n, Py_ssize_t length) except -1:
        """BEGIN, a write to be batched and COMMIT, in this command or in it and the next two: their size, or WAIT.

        0: it is something else, or not all of it is here: nobody waits for a COMMIT that may not come.
        """
        cdef Scan s
        cdef const char* sql = p + MY_HEADER + 1
        cdef Py_ssize_t total = MY_HEADER + length
        cdef Py_ssize_t start = -1
        cdef Py_ssize_t end, size
        cdef int action, opening
        if self.takes_several():
            start = scan_block(<const uint8_t*>sql, length - 1, MY, self.backslash(), &s)
        if start >= 0:
            start += MY_HEADER + 1
            end = start + s.semicolon
        else:
            opening = block_word(<const uint8_t*>sql, length - 1, MY, False)
            size = self.query_at(p + total, n - total) if opening else 0
            if not size:
                return 0
            start = total + MY_HEADER + 1
            total += size
            end = total
            scan_sql(<const uint8_t*>p + start, end - start, MY, self.backslash(), &s)
            size = self.query_at(p + total, n - total)
            if not size or s.flags & F_MULTI:
                return 0
            s.opening = opening | BK_SYNC
            s.closing = block_word(
                <const uint8_t*>p + total + MY_HEADER + 1, size - MY_HEADER - 1, MY, True) | BK_SYNC
            total += size
            if not s.closing & BK_GIVEN:
                return 0
        if s.flags & (F_UNSURE | F_ROW_COUNT | CHANGING) or not self.wants_batch(p + start, &s):
            return 0
        action = self.consider(p, total, start, end, &s)
        if action == A_WAIT:
            return WAIT
        if action == A_RELAY:
            self.restore()
            self.sends_own()
            self.expect_block(s.opening)
            self.forward(p, total)
        return total

    cdef int expect_block(self, int opening) except -1:
        """BEGIN, a write and COMMIT go to the server as they came. Behind an error the transaction may be open."""
        cdef int k
        for k in range(3 if opening & BK_SYNC else 1):
            self.server.queue.push(X_RELAY, COM_QUERY)
        return 0
