# Numbers by which statements are counted: those that differ in literals, blanks and comments have the same one; and
# their texts without a value.

cdef enum:
    NUMBERED_BYTES = 2048           # of a statement that its number is made of
    MAX_SHOWN = 480                 # bytes of a statement's text that is shown
    MAX_SHAPE_TEXT = 16384          # of a statement whose fingerprint for rules is made
    MARK = 63                       # "?", which stands for a literal

cdef uint64_t STIR = <uint64_t>0x9E3779B97F4A7C15


cdef inline uint64_t stir_one(uint64_t h, uint64_t word) noexcept nogil:
    h = (h ^ word) * STIR
    return h ^ (h >> 32)


cdef inline uint64_t stir(uint64_t h, const uint8_t* p, Py_ssize_t n) noexcept nogil:
    cdef uint64_t word
    while n >= 8:
        memcpy(&word, p, 8)
        h = stir_one(h, word)
        p += 8
        n -= 8
    word = 0
    memcpy(&word, p, n)
    return stir_one(h, word ^ (<uint64_t>(n + 1) << 56))


cdef inline bint is_literal_word(const uint8_t* p, Py_ssize_t n) noexcept nogil:
    """null, true, false, default."""
    return (n == 4 or n == 5 or n == 7) and word_id(p, n) == W_LITERAL


cdef inline Py_ssize_t skip_comment(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, int dialect) noexcept nogil:
    """One past the comment that begins at i; i: none does."""
    cdef Py_ssize_t j
    if p[i] == b"/" and i + 1 < n and p[i + 1] == b"*":
        j = skip_block_comment(p, i + 2, n, dialect == PG)
        return n if j < 0 else j
    return skip_line(p, i, n, dialect) if is_line_comment(p, i, n, dialect) else i


cdef inline Py_ssize_t skip_literal(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, int dialect, bint backslash,
                                    int previous) noexcept nogil:
    """One past the literal or parameter that begins at i, with its sign or the letters in front; i: none does.

    ``previous``: the character before it, 0: none. A literal that does not end ends with the text. A MariaDB string in
    double quotes is one, and may be a name.
    """
    cdef int cls = CHAR_CLASS[p[i]]
    cdef Py_ssize_t j = i
    if cls == CC_SQUOTE:
        j = skip_quoted(p, i + 1, n, b"'", backslash)
    elif cls == CC_DIGIT:
        return skip_number(p, i, n)
    elif cls == CC_WORD:
        j = skip_word(p, i, n)
        if j < n and p[j] == b"'":
            j = skip_single_quoted(p, j, n, backslash, dialect == PG and j - i == 1 and (p[i] | 0x20) == b"e")
        elif not is_literal_word(p + i, j - i):
            return i
    elif cls == CC_DQUOTE:
        if dialect == MY:
            j = skip_quoted(p, i + 1, n, b'"', backslash)
    elif cls == CC_DOLLAR:
        if dialect == PG:
            j = skip_dollar_quoted(p, i, n)
            if j == 0:
                j = skip_number(p, i + 1, n)        # a parameter
                return j if j > i + 1 else i
    elif p[i] == b"?":
        return i + 1
    elif i + 1 < n and (CHAR_CLASS[p[i + 1]] == CC_DIGIT or (
            p[i + 1] == b"." and i + 2 < n and CHAR_CLASS[p[i + 2]] == CC_DIGIT)):
        if p[i] == b".":
            return i if previous == b"." or CHAR_CLASS[previous] == CC_WORD else skip_number(p, i, n)
        if (p[i] == b"-" or p[i] == b"+") and (
                previous == b"(" or previous == b"," or previous == b"=" or previous == b"<" or previous == b">"):
            return skip_number(p, i + 1, n)
    return n if j < 0 else j


cdef uint64_t stir_text(uint64_t h, const uint8_t* p, Py_ssize_t i, Py_ssize_t n, int dialect,
                        bint backslash) noexcept nogil:
    """The tokens of p[i:n]."""
    cdef Py_ssize_t j
    cdef int cls
    cdef int previous = 0
    while i < n:
        cls = CHAR_CLASS[p[i]]
        if cls == CC_SPACE:
            i += 1
            continue
        if (cls == CC_SLASH or cls == CC_DASH or cls == CC_HASH) and skip_comment(p, i, n, dialect) > i:
            i = skip_comment(p, i, n, dialect)
            continue
        j = i if cls == CC_LPAREN or cls == CC_RPAREN or cls == CC_COMMA else (
            skip_literal(p, i, n, dialect, backslash, previous))
        if j > i:
            h = stir_one(h, MARK)
            previous = MARK
            i = j
            continue
        if cls == CC_WORD:
            j = skip_word(p, i, n)
            h = stir(h, p + i, j - i)
        elif cls == CC_DQUOTE or cls == CC_BACKTICK:
            j = skip_quoted(p, i + 1, n, p[i], False)
            j = n if j < 0 else j
            h = stir(h, p + i, j - i)
        else:
            j = i + 1
            h = stir_one(h, p[i])
        previous = p[i]
        i = j
    return h


cdef inline uint64_t number_of(const uint8_t* p, Scan* s, int dialect) noexcept nogil:
    """Of a scanned statement, never 0. Of an INSERT only the first row counts."""
    cdef Py_ssize_t limit = min(s.text_end, s.text_start + NUMBERED_BYTES)
    cdef uint64_t h
    if s.values_end >= 0 and s.first_end < limit and not s.flags & F_COMPLEX:
        h = stir_text(0, p, s.text_start, s.first_end, dialect, s.backslash)
        h = stir_text(h, p, s.values_end, min(s.text_end, s.values_end + NUMBERED_BYTES), dialect, s.backslash)
    else:
        h = stir_text(0, p, s.text_start, limit, dialect, s.backslash)
    return h if h else 1


cdef int parameters_of(const uint8_t* p, Scan* s, int dialect) noexcept nogil:
    """How many parameters a prepared statement has, but for what looks like one in a comment or a string."""
    cdef Py_ssize_t i = s.text_start
    cdef Py_ssize_t j
    cdef int count = 0
    cdef int number
    while i < s.text_end:
        if p[i] == b"'" or p[i] == b'"' or p[i] == b"`":
            j = skip_quoted(p, i + 1, s.text_end, p[i], s.backslash and p[i] == b"'")
            i = s.text_end if j < 0 else j
            continue
        if dialect == MY and p[i] == b"?":
            count += 1
        elif dialect == PG and p[i] == b"$":
            number = 0
            j = i + 1
            while j < s.text_end and CHAR_CLASS[p[j]] == CC_DIGIT and number < 65536:
                number = 10 * number + (p[j] - 48)
                j += 1
            count = max(count, number)
        i += 1
    return count


cdef bint ends_in_letters(const uint8_t* p, Py_ssize_t i, Py_ssize_t end, Py_ssize_t n) noexcept nogil:
    """Whether the literal p[i:end] has letters at its quotes that do not belong there: some quote is one too many."""
    cdef Py_ssize_t j
    if CHAR_CLASS[p[i]] == CC_WORD:
        j = skip_word(p, i, n)
        if j < end and p[i] != b"_" and (j > i + 1 or not (
                (p[i] | 0x20) == b"e" or (p[i] | 0x20) == b"x" or (p[i] | 0x20) == b"b" or (p[i] | 0x20) == b"n")):
            return True
    return end < n and (p[end - 1] == b"'" or p[end - 1] == b'"' or p[end - 1] == b"$") and (
        CHAR_CLASS[p[end]] == CC_WORD or CHAR_CLASS[p[end]] == CC_DIGIT)


cdef class Shown:
    """A text that is being written without values, up to ``MAX_SHOWN`` bytes."""
    cdef Buffer out
    cdef bint full
    cdef bint garbled               # what stands outside of its quotes may be a value all the same

    def __init__(self):
        self.out = Buffer()

    cdef int put(self, const uint8_t* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t room = MAX_SHOWN - self.out.size()
        if self.full or not n:
            return 0
        if n > room:
            self.full = True
            n = room
        return self.out.append(<const char*>p, n)

    cdef int add(self, const uint8_t* p, Py_ssize_t i, Py_ssize_t n, int dialect, bint backslash) except -1:
        """What stands in p[i:n]; blanks are one blank, comments are left out."""
        cdef Py_ssize_t j
        cdef int cls
        cdef int previous = 0
        cdef bint blank = False
        while i < n and not (self.full and self.garbled):
            cls = CHAR_CLASS[p[i]]
            if cls == CC_SPACE:
                blank = True
                i += 1
                continue
            j = skip_comment(p, i, n, dialect)
            if j > i:
                blank = True
                i = j
                continue
            if blank and self.out.size():
                self.put(<const uint8_t*>b" ", 1)
            blank = False
            j = skip_literal(p, i, n, dialect, backslash, previous)
            if j > i:
                self.garbled = self.garbled or ends_in_letters(p, i, j, n)
                self.put(<const uint8_t*>b"?", 1)
                previous = MARK
                i = j
                continue
            if cls == CC_WORD:
                j = skip_word(p, i, n)
            elif cls == CC_DQUOTE or cls == CC_BACKTICK:
                j = skip_quoted(p, i + 1, n, p[i], False)
            else:
                j = i + 1
            if j < 0:
                self.full = self.garbled = True     # a name that does not end
                break
            self.put(p + i, j - i)
            previous = p[i]
            i = j
        return 0


cdef bytes shown_text(const uint8_t* p, Scan* s, int dialect):
    """A scanned statement without any value, of bounded length; what is left out at its end is "…".

    Of one whose quotes are doubtful, which no server takes, only the first word is shown.
    """
    cdef Shown shown = Shown()
    if s.values_end >= 0 and not s.flags & F_COMPLEX:
        shown.add(p, s.text_start, s.first_end, dialect, s.backslash)
        if s.ntuples > 1:
            shown.put(<const uint8_t*>b", (\xe2\x80\xa6)", 7)
        if s.text_end > s.values_end:
            shown.add(p, s.values_end, s.text_end, dialect, s.backslash)
    else:
        shown.add(p, s.text_start, s.text_end, dialect, s.backslash)
    if shown.garbled:
        return p[s.text_start:skip_word(p, s.text_start, s.text_end)] + b" \xe2\x80\xa6"
    return shown.out.take() + (b" \xe2\x80\xa6" if shown.full else b"")


cdef str rule_fingerprint(const char* p, Scan* s, int dialect):
    """By which rules know a scanned statement, "" if they do not; see ``Shape.fingerprint``."""
    cdef bytes sql
    if s.values_end >= 0 and not s.flags & F_COMPLEX:
        sql = p[s.text_start:s.first_end]
        if s.text_end > s.values_end:
            sql += p[s.values_end:s.text_end]
    else:
        sql = p[s.text_start:s.text_end]
    found = normal_of(dialect, sql, s.backslash) if len(sql) <= MAX_SHAPE_TEXT else None
    return fingerprint_of(found.decode("utf-8", "replace")) if found is not None else ""


def shown(bytes sql, str dialect="postgres", bint backslash=False):
    """``(number, text without values, fingerprint)`` of a statement, for tests and tools."""
    cdef Scan s
    cdef int d = MY if dialect == "mariadb" else PG
    cdef const char* p = PyBytes_AS_STRING(sql)
    scan_sql(<const uint8_t*>p, PyBytes_GET_SIZE(sql), d, backslash, &s)
    return (number_of(<const uint8_t*>p, &s, d), shown_text(<const uint8_t*>p, &s, d).decode("utf-8", "replace"),
            rule_fingerprint(p, &s, d))
