# Value tuples and skeletons: texts of one skeleton differ in literals only.

cdef const char* GAP = b"\n"        # no token but a quoted name has one

cdef inline void _skeleton_put(Scan* s, const uint8_t* p, Py_ssize_t n) noexcept nogil:
    if s.nskeleton + n + 1 > MAX_SKELETON:
        s.flags |= F_COMPLEX
        return
    memcpy(s.skeleton + s.nskeleton, p, n)
    s.nskeleton += n


cdef inline void _literal_at(Scan* s, Py_ssize_t start, Py_ssize_t end) noexcept nogil:
    if s.nliterals < MAX_LITERALS:
        s.literals[s.nliterals][0] = start
        s.literals[s.nliterals][1] = end
    s.nliterals += 1


cdef Py_ssize_t scan_skeleton(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, int dialect, bint backslash,
                              bint whole, bint gaps, Scan* s) noexcept nogil:
    """Writes the skeleton of the tuple at p[i] ("("), or of the whole statement up to n; returns its end, or -1.

    The skeleton is the text with literals as "?" and everything else as it stands: two texts of one skeleton differ in
    literal values only. What stands between tokens, blanks and comments, is GAP there, or with no ``gaps`` nothing:
    whether anything does may decide what they are (``! =``, a function's name and its parenthesis).
    """
    cdef int depth = 0
    cdef int cls
    cdef Py_ssize_t j
    cdef int ncols = 1
    cdef bint value_starts = True       # a sign here belongs to the literal behind it
    cdef Py_ssize_t name = -1           # where the name begins that this token stands behind
    cdef Py_ssize_t name_end = 0
    cdef Py_ssize_t sign = -1           # where the sign stands that belongs to this literal
    cdef Py_ssize_t token = i           # one past the token before
    s.nskeleton = 0
    s.nliterals = 0
    while i < n:
        cls = CHAR_CLASS[p[i]]
        if cls == CC_SPACE:
            i += 1
            continue
        if cls == CC_DASH and is_line_comment(p, i, n, dialect) or (cls == CC_HASH and dialect == MY):
            if not whole:
                s.flags |= F_COMPLEX
            i = skip_line(p, i, n, dialect)
            continue
        if cls == CC_SLASH and i + 1 < n and p[i + 1] == b"*":
            if not whole:
                s.flags |= F_COMPLEX
            if dialect == MY and is_executable_comment(p, i, n):
                s.flags |= F_EXEC_COMMENT
            i = skip_block_comment(p, i + 2, n, dialect == PG)
            if i < 0:
                return -1
            continue
        if gaps and i > token and s.nskeleton:
            if s.skeleton[s.nskeleton - 1] == b" ":
                s.nskeleton -= 1        # behind a word; it ends there all the same
            _skeleton_put(s, <const uint8_t*>GAP, 1)
        if name >= 0:
            if cls == CC_LPAREN and not whole and not is_harmless_call(p, name, name_end, dialect):
                s.flags |= F_OPAQUE
            name = -1
        if cls == CC_SQUOTE:
            j = i
            i = skip_quoted(p, i + 1, n, b"'", backslash)
            if i < 0:
                return -1
            _literal_at(s, j, i)
            # adjacent strings are one literal to both servers; as "??" they are a shape of their own
            _skeleton_put(s, <const uint8_t*>b"?", 1)
            value_starts = False
        elif cls == CC_DIGIT or (p[i] == b"." and i + 1 < n and CHAR_CLASS[p[i + 1]] == CC_DIGIT):
            j = i - 1 if sign == i - 1 else i
            i = skip_number(p, i, n)
            _literal_at(s, j, i)
            _skeleton_put(s, <const uint8_t*>b"?", 1)
            value_starts = False
        elif cls == CC_COMMA:
            if depth == 1:
                ncols += 1
            _skeleton_put(s, p + i, 1)
            i += 1
            value_starts = True
        elif cls == CC_LPAREN:
            depth += 1
            _skeleton_put(s, p + i, 1)
            i += 1
            value_starts = True
        elif cls == CC_RPAREN:
            depth -= 1
            _skeleton_put(s, p + i, 1)
            i += 1
            if depth == 0 and not whole:
                s.ncols = ncols
                return i
            value_starts = False
        elif cls == CC_WORD:
            j = skip_word(p, i, n)
            if word_id(p + i, j - i) == W_LITERAL:
                s.nliterals = MAX_LITERALS + 1
                _skeleton_put(s, <const uint8_t*>b"?", 1)
            else:
                _skeleton_put(s, p + i, j - i)
                _skeleton_put(s, <const uint8_t*>b" ", 1)
                if j < n and p[j] == b"'":
                    # E'…', X'…', _utf8'…': the prefix is kept, the literal behind it is "?"
                    i = skip_single_quoted(
                        p, j, n, backslash, dialect == PG and j - i == 1 and (p[i] | 0x20) == b"e")
                    if i < 0:
                        return -1
                    s.nliterals = MAX_LITERALS + 1
                    _skeleton_put(s, <const uint8_t*>b"?", 1)
                    value_starts = False
                    token = i
                    continue
                name = i
                name_end = j
            i = j
            value_starts = False
        elif (p[i] == b"-" or p[i] == b"+") and value_starts and i + 1 < n and (
                CHAR_CLASS[p[i + 1]] == CC_DIGIT or p[i + 1] == b"."):
            sign = i
            i += 1
        elif cls == CC_DOLLAR and dialect == PG:
            j = skip_dollar_quoted(p, i, n)
            if j < 0:
                return -1
            if j > 0:
                s.nliterals = MAX_LITERALS + 1
                _skeleton_put(s, <const uint8_t*>b"?", 1)
                i = j
            else:
                _skeleton_put(s, p + i, 1)
                i += 1
            value_starts = False
        elif cls == CC_DQUOTE or cls == CC_BACKTICK:
            j = skip_string(p, i, n, dialect, backslash, False, s)
            if j < 0:
                return -1
            if cls == CC_DQUOTE and dialect == MY:
                s.nliterals = MAX_LITERALS + 1
                _skeleton_put(s, <const uint8_t*>b'"?"', 3)
            else:
                _skeleton_put(s, p + i, j - i)
                name = name_end = i         # whatever it quotes: a name that is on no list
            i = j
            value_starts = False
        elif cls == CC_SEMICOLON:
            return -1
        else:
            _skeleton_put(s, p + i, 1)
            value_starts = whole and p[i] == b"="
            i += 1
        token = i
    return n if whole and depth == 0 else -1


cdef inline int scan_whole(const uint8_t* p, Scan* s, int dialect) noexcept nogil:
    """Puts the skeleton of the whole scanned statement into ``s``; -1 if it has none."""
    # F_COMPLEX is for tuples; here it tells of a skeleton that is too long, or of an unclear string
    s.flags &= ~F_COMPLEX
    if scan_skeleton(p, s.text_start, s.text_end, dialect, s.backslash, True, True, s) < 0 or s.flags & F_COMPLEX:
        return -1
    return 0


cdef Py_ssize_t scan_tuples(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, int dialect, bint backslash,
                            Scan* s) noexcept nogil:
    """p[i] is the first tuple's "(": reads ``( … ) [, ( … )] …``; returns one past the last ")", or -1."""
    cdef Py_ssize_t j
    cdef Py_ssize_t nfirst
    cdef char[MAX_SKELETON] first
    cdef int ncols
    s.values_start = i
    i = scan_skeleton(p, i, n, dialect, backslash, False, True, s)
    if i < 0:
        return -1
    s.first_end = s.values_end = i
    s.ntuples = 1
    nfirst = s.nskeleton
    ncols = s.ncols
    while True:
        j = i
        while j < n and CHAR_CLASS[p[j]] == CC_SPACE:
            j += 1
        if j >= n or p[j] != b",":
            return i
        j += 1
        while j < n and CHAR_CLASS[p[j]] == CC_SPACE:
            j += 1
        if j >= n or p[j] != b"(":
            return i
        if s.ntuples == 1:
            memcpy(first, s.skeleton, nfirst)
        i = scan_skeleton(p, j, n, dialect, backslash, False, True, s)
        if i < 0:
            return -1
        if s.nskeleton != nfirst or memcmp(first, s.skeleton, nfirst) != 0:
            s.flags |= F_COMPLEX
            s.nskeleton = nfirst
            memcpy(s.skeleton, first, nfirst)
        s.ncols = ncols
        s.ntuples += 1
        s.values_end = i


cdef bytes short_literals(const char* text, Py_ssize_t n, int dialect, bint backslash):
    """The text with its long strings and numbers cut short: what a parser is to judge is the same for any literal.

    MariaDB's strings with a backslash, too: what one means depends on the session, which parsers do not know.
    """
    cdef const uint8_t* p = <const uint8_t*>text
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t j
    cdef Py_ssize_t copied = 0
    cdef bint prefixed = False          # a word ends where this token begins: E'…'
    cdef bint escape
    cdef Scan s
    cdef list parts = []
    if n <= SHORT_LITERAL and (dialect == PG or memchr(text, b"\\", n) == NULL):
        return text[:n]
    s.flags = 0
    while i < n:
        if p[i] == b"'":
            escape = dialect == PG and prefixed and (p[i - 1] | 0x20) == b"e"
            j = skip_single_quoted(p, i, n, backslash, escape)
            if j - i > SHORT_LITERAL or (dialect == MY and j > 0 and memchr(p + i, b"\\", j - i) != NULL):
                parts.append(text[copied:i + 1])
                parts.append(b"x'")
                copied = j
        elif p[i] == b'"' or p[i] == b"`":
            j = skip_string(p, i, n, dialect, backslash, False, &s)
        elif p[i] == b"$" and dialect == PG:
            j = skip_dollar_quoted(p, i, n)
            if j == 0:
                j = i + 1
            elif j - i > SHORT_LITERAL:
                parts.append(text[copied:i])
                parts.append(b"'x'")
                copied = j
        elif p[i] == b"/" and i + 1 < n and p[i + 1] == b"*":
            j = skip_block_comment(p, i + 2, n, dialect == PG)
        elif is_line_comment(p, i, n, dialect):
            j = skip_line(p, i, n, dialect)
        elif CHAR_CLASS[p[i]] == CC_DIGIT:
            j = skip_number(p, i, n)
            if j - i > SHORT_LITERAL:
                parts.append(text[copied:i])
                parts.append(b"1")
                copied = j
        elif CHAR_CLASS[p[i]] == CC_WORD:
            j = skip_word(p, i, n)
        else:
            j = i + 1
        if j < 0:
            break
        prefixed = CHAR_CLASS[p[i]] == CC_WORD and j - i == 1
        i = j
    parts.append(text[copied:n])
    return b"".join(parts)
