# A write between BEGIN and COMMIT: what stands around it, as text.
#
# Only spellings whose one effect is a transaction count: no isolation level, no access mode, no chain. PostgreSQL
# manual, BEGIN, START TRANSACTION, COMMIT, END; MariaDB manual, START TRANSACTION, COMMIT.

cdef enum BlockFlag:
    # what stands in front of a write, or behind it; 0: nothing
    BK_GIVEN = 1        # BEGIN, or COMMIT, as text …
    BK_START = 2        # … it is START TRANSACTION, which is answered by that name
    BK_SYNC = 4         # its answer ends here: as WF_SYNC
    BK_EXTENDED = 8     # PostgreSQL: it comes by the extended protocol, …
    BK_PARSE = 16       # … with a Parse of its own
    BK_DESCRIBE = 32
    ALL_BLOCK_FLAGS = 63


cdef Py_ssize_t skip_blank(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, int dialect) noexcept nogil:
    """The first byte from i on that is neither blank nor comment; -1: one that may mean something, or has no end."""
    while i < n:
        if p[i] == 11:
            return -1               # a vertical tab is no blank to every version of PostgreSQL
        if CHAR_CLASS[p[i]] == CC_SPACE:
            i += 1
        elif p[i] == b"/" and i + 1 < n and p[i + 1] == b"*":
            if i + 2 < n and p[i + 2] == b"+" or is_executable_comment(p, i, n):
                return -1
            i = skip_block_comment(p, i + 2, n, dialect == PG)
            if i < 0:
                return -1
        elif is_line_comment(p, i, n, dialect):
            i = skip_line(p, i, n, dialect)
        else:
            break
    return i


cdef void read_hints(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, int dialect, Scan* s) noexcept nogil:
    """Of what ``skip_blank`` has gone over: what its comments say, unless others have said it before."""
    cdef Py_ssize_t j
    while i < n:
        if p[i] == b"/":
            j = skip_block_comment(p, i + 2, n, dialect == PG)
            if j < 0:
                return
            parse_hint(p, i + 2, j - 2, s)
            i = j
        elif is_line_comment(p, i, n, dialect):
            j = skip_line(p, i, n, dialect)
            parse_hint(p, i + 1, j, s)
            i = j
        else:
            i += 1


cdef int read_block_word(const uint8_t* p, Py_ssize_t* at, Py_ssize_t n, int dialect, bint closing) noexcept nogil:
    """What opens a transaction, or with ``closing`` commits it, at p[at]: a ``BlockFlag``; 0: it is something else.

    Moves ``at`` behind it and the blanks that follow.
    """
    cdef Py_ssize_t i = at[0]
    cdef Py_ssize_t size = skip_word(p, i, n) - i
    cdef int found = 0
    if closing:
        if (size == 6 and same_word(p + i, b"commit", 6)) or (
                size == 3 and dialect == PG and same_word(p + i, b"end", 3)):
            found = BK_GIVEN
    elif size == 5 and same_word(p + i, b"begin", 5):
        found = BK_GIVEN
    elif size == 5 and same_word(p + i, b"start", 5):
        found = BK_GIVEN | BK_START
    i = skip_blank(p, i + size, n, dialect) if found else -1
    if i < 0:
        return 0
    size = skip_word(p, i, n) - i
    if (size == 11 and (dialect == PG or found & BK_START) and same_word(p + i, b"transaction", 11)) or (
            size == 4 and not found & BK_START and same_word(p + i, b"work", 4)):
        i = skip_blank(p, i + size, n, dialect)
    elif found & BK_START:
        return 0
    if i < 0:
        return 0
    at[0] = i
    return found


cdef bint ends_at(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, int dialect) noexcept nogil:
    """Nothing follows but semicolons. To MariaDB a comment behind one is another statement, an empty one."""
    while i < n and (p[i] == b";" or CHAR_CLASS[p[i]] == CC_SPACE):
        i += 1
        if dialect == PG:
            i = skip_blank(p, i, n, dialect)
            if i < 0:
                return False
    return i >= n


cdef int block_word(const uint8_t* p, Py_ssize_t n, int dialect, bint closing) noexcept nogil:
    """A text that does nothing but open a transaction, or commit it: a ``BlockFlag``; 0: it is another."""
    cdef Py_ssize_t i = skip_blank(p, 0, n, dialect)
    cdef int found = read_block_word(p, &i, n, dialect, closing) if i >= 0 else 0
    return found if found and ends_at(p, i, n, dialect) else 0


cdef Py_ssize_t scan_block(const uint8_t* p, Py_ssize_t n, int dialect, bint backslash, Scan* s) noexcept nogil:
    """Scans a text of BEGIN, one write and COMMIT: where the write's part begins; ``s.semicolon`` bytes on it ends.

    ``s`` is the write's, with the hints of the whole. -1: it is another text, and ``s`` nobody's.
    """
    cdef Py_ssize_t i = skip_blank(p, 0, n, dialect)
    cdef Py_ssize_t head = i
    cdef Py_ssize_t start
    cdef int opening, closing
    if i < 0:
        return -1
    opening = read_block_word(p, &i, n, dialect, False)
    if not opening or i >= n or p[i] != b";":
        return -1
    start = i + 1
    scan_sql(p + start, n - start, dialect, backslash, s)
    if s.qtype > QT_REPLACE or s.semicolon < 0 or s.flags & F_UNSURE or (
            skip_blank(p, start, n, dialect) != start + s.text_start):
        return -1
    i = skip_blank(p, start + s.semicolon + 1, n, dialect)
    if i < 0:
        return -1
    closing = read_block_word(p, &i, n, dialect, True)
    if not closing or not ends_at(p, i, n, dialect):
        return -1
    s.text_end = s.first_text_end
    s.flags &= ~F_MULTI
    read_hints(p + start, s.text_end, s.semicolon, dialect, s)
    read_hints(p, 0, head, dialect, s)
    s.opening = opening
    s.closing = closing | BK_SYNC
    return start


def scan_in_block(bytes sql, str dialect="postgres", bint backslash=False):
    """The write in a text of BEGIN, write and COMMIT, what is known of it, for tests; None: it is another text."""
    cdef Scan s
    cdef Py_ssize_t start = scan_block(
        <const uint8_t*>PyBytes_AS_STRING(sql), PyBytes_GET_SIZE(sql), MY if dialect == "mariadb" else PG, backslash,
        &s)
    if start < 0:
        return None
    return {
        "write": sql[start + s.text_start:start + s.text_end],
        "part": sql[start:start + s.semicolon],
        "wait_ms": "auto" if s.wait_ms == WAIT_AUTO else None if s.wait_ms < 0 else s.wait_ms,
        "file": s.file[:s.nfile] if s.file != NULL else b"",
        "multi": bool(s.flags & F_MULTI),
        "ntuples": s.ntuples,
    }
