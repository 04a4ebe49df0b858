# MariaDB/MySQL: the packets of an answer, told apart as they come.

cdef enum MyResponse:
    RS_FIRST = 0        # the first packet of a result
    RS_COLUMNS
    RS_COLUMNS_EOF
    RS_ROWS
    RS_PREPARE_PARAMS
    RS_PREPARE_PARAMS_EOF
    RS_PREPARE_COLUMNS
    RS_PREPARE_COLUMNS_EOF

cdef enum MyPacketKind:
    PK_OTHER = 0
    PK_OK
    PK_ERR
    PK_HEAD             # column count, column definitions and the EOF behind them
    PK_ROW
    PK_END
    PK_PREPARED         # COM_STMT_PREPARE_OK
    PK_INFILE           # the client is asked for a file

# what follows a state in which the last of some definitions has come: with EOF packets, and without them
cdef int[8] MY_AFTER
MY_AFTER[<int>RS_COLUMNS] = RS_COLUMNS_EOF
MY_AFTER[<int>RS_PREPARE_PARAMS] = RS_PREPARE_PARAMS_EOF
MY_AFTER[<int>RS_PREPARE_COLUMNS] = RS_PREPARE_COLUMNS_EOF


cdef class MyAnswer:
    """Follows answers packet by packet, for their end and their status flags."""
    cdef int response               # MyResponse
    cdef bint deprecate_eof         # CLIENT_DEPRECATE_EOF is agreed upon
    cdef bint cache_metadata        # MARIADB_CLIENT_CACHE_METADATA
    cdef bint progress              # MARIADB_CLIENT_PROGRESS
    cdef uint64_t columns           # column definitions still to come
    # what the packet just read was
    cdef bint done                  # it ended the answer to a command …
    cdef bint failed                # … with an error
    cdef bint ended                 # it ended a result, of which there may be more
    # of the last OK, EOF or ERR
    cdef uint32_t status
    cdef uint32_t warnings
    cdef uint64_t affected
    cdef uint64_t insert_id
    cdef int error
    cdef Py_ssize_t status_at       # where the last OK or EOF has its status flags, 0: it has none
    # of the last COM_STMT_PREPARE_OK
    cdef uint32_t number            # statement id
    cdef uint32_t nparams
    cdef uint32_t ncolumns

    cdef int agree(self, uint32_t capabilities, uint32_t extended) except -1:
        """What client and server have agreed upon."""
        self.deprecate_eof = capabilities & CLIENT_DEPRECATE_EOF != 0
        self.cache_metadata = extended & MARIADB_CACHE_METADATA != 0
        self.progress = extended & MARIADB_PROGRESS != 0
        return 0

    cdef inline bint is_row(self, uint8_t mark) noexcept:
        """Whether a packet that begins with ``mark`` can only be a row: it need not be here whole to be read."""
        return self.response == RS_ROWS and mark != MARK_EOF and mark != MARK_ERR

    cdef int read(self, int command, const char* q, Py_ssize_t n) except -1:
        """Classifies one packet of the answer to ``command``, moves the state on, returns a ``MyPacketKind``."""
        cdef uint8_t mark = <uint8_t>q[0] if n else 1
        self.done = self.failed = self.ended = False
        if self.response == RS_ROWS:
            return self.read_row(mark, q, n)
        if self.response == RS_FIRST:
            if command == COM_STMT_FETCH or command == COM_FIELD_LIST:
                return self.read_row(mark, q, n)
            return self.read_first(command, mark, q, n)
        if self.response == RS_COLUMNS_EOF:
            self.read_eof(q, n)
            return self.begin_rows()
        if self.response == RS_PREPARE_PARAMS_EOF:
            return self.begin_prepare_columns()
        if self.response == RS_PREPARE_COLUMNS_EOF:
            return self.end_prepare()
        return self.read_definition()

    cdef int read_definition(self) except -1:
        """A column or parameter definition."""
        cdef int kind = PK_HEAD if self.response == RS_COLUMNS else PK_OTHER
        self.columns -= 1
        if self.columns:
            return kind
        if not self.deprecate_eof:
            self.response = MY_AFTER[self.response]
        elif self.response == RS_COLUMNS:
            self.response = RS_ROWS
        elif self.response == RS_PREPARE_PARAMS:
            self.begin_prepare_columns()
        else:
            self.end_prepare()
        return kind

    cdef int begin_rows(self) except -1:
        """The EOF behind column definitions; with a cursor it ends the answer."""
        self.response = RS_ROWS
        if self.status & STATUS_CURSOR_EXISTS:
            self.end_result()
            return PK_END
        return PK_HEAD

    cdef int begin_prepare_columns(self) except -1:
        if not self.ncolumns:
            return self.end_prepare()
        self.columns = self.ncolumns
        self.response = RS_PREPARE_COLUMNS
        return PK_OTHER

    cdef int end_prepare(self) except -1:
        self.response = RS_FIRST
        self.done = True
        return PK_OTHER

    cdef int read_ok(self, const char* q, Py_ssize_t n) except -1:
        cdef Py_ssize_t i = 1
        i += read_lenenc(q + i, n - i, &self.affected)
        i += read_lenenc(q + i, n - i, &self.insert_id)
        self.status_at = 0
        if n >= i + 4:
            self.status_at = i
            self.status = le16(q + i)
            self.warnings = le16(q + i + 2)
        return 0

    cdef bytes info(self, const char* q, Py_ssize_t n):
        """What the OK packet just read says in words, b"" if nothing."""
        cdef uint64_t length = 0
        cdef Py_ssize_t i = self.status_at + 4
        if not self.status_at or i >= n:
            return b""
        i += read_lenenc(q + i, n - i, &length)
        return q[i:i + <Py_ssize_t>length] if length <= <uint64_t>(n - i) else b""

    cdef int read_eof(self, const char* q, Py_ssize_t n) except -1:
        self.affected = self.insert_id = 0
        self.status_at = 0
        if n >= 5:
            self.status_at = 3
            self.warnings = le16(q + 1)
            self.status = le16(q + 3)
        return 0

    cdef int end_result(self) except -1:
        """An OK or EOF ended a result: another may follow."""
        self.response = RS_FIRST
        self.ended = True
        self.done = not self.status & STATUS_MORE_RESULTS
        return 0

    cdef int read_error(self, const char* q, Py_ssize_t n) except -1:
        self.error = le16(q + 1) if n >= 3 else 0
        if self.error == 0xFFFF and self.progress and self.response == RS_FIRST:
            return PK_OTHER             # a progress report
        self.response = RS_FIRST
        self.done = self.failed = True
        return PK_ERR

    cdef int read_row(self, uint8_t mark, const char* q, Py_ssize_t n) except -1:
        if mark == MARK_ERR:
            return self.read_error(q, n)
        if mark == MARK_EOF and n < (MY_MAX_PACKET if self.deprecate_eof else 9):
            if self.deprecate_eof and n >= 7:
                self.read_ok(q, n)
            else:
                self.read_eof(q, n)
            self.end_result()
            return PK_END
        return PK_ROW

    cdef int read_first(self, int command, uint8_t mark, const char* q, Py_ssize_t n) except -1:
        cdef Py_ssize_t size
        if command == COM_STATISTICS:
            self.done = True
            return PK_OTHER
        if mark == MARK_ERR:
            return self.read_error(q, n)
        if mark == MARK_OK:
            if command == COM_STMT_PREPARE:
                return self.read_prepare_ok(q, n)
            self.read_ok(q, n)
            self.end_result()
            return PK_OK
        if command == COM_CHANGE_USER:
            return PK_OTHER             # the authentication exchange goes on
        if mark == MARK_EOF and n < 9:
            self.read_eof(q, n)
            self.end_result()
            return PK_END
        if mark == MARK_INFILE:
            return PK_INFILE
        size = read_lenenc(q, n, &self.columns)
        if self.cache_metadata and n > size and q[size] == 0:
            self.columns = 0
        self.response = RS_COLUMNS if self.columns else RS_ROWS if self.deprecate_eof else RS_COLUMNS_EOF
        return PK_HEAD

    cdef int read_prepare_ok(self, const char* q, Py_ssize_t n) except -1:
        """Statement id, column and parameter counts; the definitions follow, parameters first."""
        if n < 9:
            self.done = True
            return PK_OTHER
        self.number = le32(q + 1)
        self.ncolumns = le16(q + 5)
        self.nparams = le16(q + 7)
        if self.nparams:
            self.columns = self.nparams
            self.response = RS_PREPARE_PARAMS
        else:
            self.begin_prepare_columns()
        return PK_PREPARED
