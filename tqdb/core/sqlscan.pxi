# The hot scanner: hint, verb, session-changing words and the value tuples of one message, in one pass.
#
# It never decides what a statement means. It cuts an INSERT into prefix, tuples and suffix; whether that cut
# is the right one is asked of a real parser once per shape (tqdb.analysis).
#
# Lexical rules: PostgreSQL manual 4.1 (nested comments, E'' and dollar quoting, standard_conforming_strings);
# MariaDB manual "Comment Syntax", "String Literals" (executable comments, backslash escapes, `#`).

# --- tokens --------------------------------------------------------------------------------------------

cdef inline Py_ssize_t skip_quoted(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, uint8_t quote,
                                   bint backslash) noexcept nogil:
    """i stands behind the opening quote; returns one past the closing one, or -1."""
    while i < n:
        if p[i] == quote:
            if i + 1 < n and p[i + 1] == quote:
                i += 2
                continue
            return i + 1
        if backslash and p[i] == b"\\":
            i += 1
        i += 1
    return -1


cdef Py_ssize_t skip_dollar_quoted(const uint8_t* p, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    """i stands on a "$" that can open a dollar quote: returns one past the closing tag, 0 if it is none, -1."""
    cdef Py_ssize_t j = i + 1
    cdef Py_ssize_t tag
    while j < n and (CHAR_CLASS[p[j]] == CC_WORD or (CHAR_CLASS[p[j]] == CC_DIGIT and j > i + 1)):
        j += 1
    if j >= n or p[j] != b"$":
        return 0
    tag = j + 1 - i
    j += 1
    while j + tag <= n:
        if p[j] == b"$" and memcmp(p + j, p + i, tag) == 0:
            return j + tag
        j += 1
    return -1


cdef Py_ssize_t skip_block_comment(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, bint nested) noexcept nogil:
    """i stands behind "/*"; returns one past the closing "*/", or -1."""
    cdef int depth = 1
    while i + 1 < n:
        if p[i] == b"*" and p[i + 1] == b"/":
            depth -= 1
            i += 2
            if depth == 0:
                return i
        elif nested and p[i] == b"/" and p[i + 1] == b"*":
            depth += 1
            i += 2
        else:
            i += 1
    return -1


cdef inline Py_ssize_t skip_line(const uint8_t* p, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    while i < n and p[i] != b"\n" and p[i] != b"\r":
        i += 1
    return i


cdef inline bint is_line_comment(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, int dialect) noexcept nogil:
    if p[i] == b"#":
        return dialect == MY
    if p[i] != b"-" or i + 1 >= n or p[i + 1] != b"-":
        return False
    return dialect == PG or i + 2 >= n or p[i + 2] <= 32


cdef inline bint is_executable_comment(const uint8_t* p, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    """i stands on "/*": MariaDB runs the body of /*! … */ and /*M! … */."""
    return i + 2 < n and (p[i + 2] == b"!" or (p[i + 2] == b"M" and i + 3 < n and p[i + 3] == b"!"))


cdef Py_ssize_t skip_string(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, int dialect, bint backslash,
                            bint escape_prefix, Scan* s) noexcept nogil:
    """i stands on a quote (', ", `); returns one past the token, or -1 if it does not end."""
    cdef uint8_t quote = p[i]
    cdef Py_ssize_t j
    if quote == b"'":
        return skip_quoted(p, i + 1, n, quote, backslash or escape_prefix)
    if quote == b'"' and dialect == MY:
        # An identifier under ANSI_QUOTES, a string otherwise: the two end differently only past a backslash.
        j = skip_quoted(p, i + 1, n, quote, backslash)
        if j > 0 and backslash and memchr(p + i, b"\\", j - i) != NULL:
            s.flags |= F_COMPLEX
        return j
    return skip_quoted(p, i + 1, n, quote, False)


cdef inline Py_ssize_t skip_word(const uint8_t* p, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    while i < n and (CHAR_CLASS[p[i]] == CC_WORD or CHAR_CLASS[p[i]] == CC_DIGIT or p[i] == b"$"):
        i += 1
    return i


cdef Py_ssize_t skip_number(const uint8_t* p, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    """Digits, a fraction, an exponent; also 0x…/0b… and digit groups with "_" as one token."""
    while i < n:
        if CHAR_CLASS[p[i]] == CC_DIGIT or CHAR_CLASS[p[i]] == CC_WORD or p[i] == b".":
            if (p[i] | 0x20) == b"e" and i + 2 < n and (p[i + 1] == b"-" or p[i + 1] == b"+") and (
                    CHAR_CLASS[p[i + 2]] == CC_DIGIT):
                i += 2
            i += 1
        else:
            break
    return i


# --- value tuples --------------------------------------------------------------------------------------

cdef inline void _skeleton_put(Scan* s, const uint8_t* p, Py_ssize_t n) noexcept nogil:
    if s.nskeleton + n + 1 > MAX_SKELETON:
        s.flags |= F_COMPLEX
        return
    memcpy(s.skeleton + s.nskeleton, p, n)
    s.nskeleton += n


cdef Py_ssize_t scan_skeleton(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, int dialect, bint backslash,
                              bint whole, Scan* s) noexcept nogil:
    """Writes the skeleton of the tuple at p[i] ("("), or of the whole statement up to n; returns its end, or -1.

    The skeleton is the text with literals as "?" and everything else as it stands, blanks left out: two
    texts of one skeleton differ in literal values only.
    """
    cdef int depth = 0
    cdef int cls
    cdef Py_ssize_t j
    cdef int ncols = 1
    cdef bint value_starts = True       # a sign here belongs to the literal behind it
    s.nskeleton = 0
    while i < n:
        cls = CHAR_CLASS[p[i]]
        if cls == CC_SPACE:
            i += 1
            continue
        if cls == CC_SQUOTE:
            i = skip_quoted(p, i + 1, n, b"'", backslash)
            if i < 0:
                return -1
            # adjacent strings are one literal to both servers; as "??" they are a shape of their own
            _skeleton_put(s, <const uint8_t*>b"?", 1)
            value_starts = False
        elif cls == CC_DIGIT or (p[i] == b"." and i + 1 < n and CHAR_CLASS[p[i + 1]] == CC_DIGIT):
            i = skip_number(p, i, n)
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
                _skeleton_put(s, <const uint8_t*>b"?", 1)
            else:
                _skeleton_put(s, p + i, j - i)
                _skeleton_put(s, <const uint8_t*>b" ", 1)
                if j < n and p[j] == b"'":
                    # E'…', X'…', _utf8'…': the prefix is kept, the literal behind it is "?"
                    i = skip_quoted(p, j + 1, n, b"'", backslash or (
                        dialect == PG and j - i == 1 and (p[i] | 0x20) == b"e"))
                    if i < 0:
                        return -1
                    _skeleton_put(s, <const uint8_t*>b"?", 1)
                    value_starts = False
                    continue
            i = j
            value_starts = False
        elif (p[i] == b"-" or p[i] == b"+") and value_starts and i + 1 < n and (
                CHAR_CLASS[p[i + 1]] == CC_DIGIT or p[i + 1] == b"."):
            i += 1
        elif cls == CC_DASH and is_line_comment(p, i, n, dialect) or (
                cls == CC_HASH and dialect == MY):
            if not whole:
                s.flags |= F_COMPLEX
            i = skip_line(p, i, n)
        elif cls == CC_SLASH and i + 1 < n and p[i + 1] == b"*":
            if not whole:
                s.flags |= F_COMPLEX
            if dialect == MY and is_executable_comment(p, i, n):
                s.flags |= F_EXEC_COMMENT
            i = skip_block_comment(p, i + 2, n, dialect == PG)
            if i < 0:
                return -1
        elif cls == CC_DOLLAR and dialect == PG:
            j = skip_dollar_quoted(p, i, n)
            if j < 0:
                return -1
            if j > 0:
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
                _skeleton_put(s, <const uint8_t*>b'"?"', 3)
            else:
                _skeleton_put(s, p + i, j - i)
            i = j
            value_starts = False
        elif cls == CC_SEMICOLON:
            return -1
        else:
            _skeleton_put(s, p + i, 1)
            value_starts = whole and p[i] == b"="
            i += 1
    return n if whole and depth == 0 else -1


cdef inline int scan_whole(const uint8_t* p, Scan* s, int dialect) noexcept nogil:
    """Puts the skeleton of the whole scanned statement into ``s``; -1 if it has none."""
    # F_COMPLEX is for tuples; here it tells of a skeleton that is too long, or of an unclear string
    s.flags &= ~F_COMPLEX
    if scan_skeleton(p, s.core_start, s.core_end, dialect, s.backslash, True, s) < 0 or s.flags & F_COMPLEX:
        return -1
    return 0


cdef Py_ssize_t scan_tuples(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, int dialect, bint backslash,
                            Scan* s) noexcept nogil:
    """p[i] is the first tuple's "(": reads ``( … ) [, ( … )] …``; returns one past the last ")", or -1."""
    cdef Py_ssize_t j
    cdef Py_ssize_t nfirst
    cdef char[2048] first
    cdef int ncols
    s.values_start = i
    i = scan_skeleton(p, i, n, dialect, backslash, False, s)
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
        i = scan_skeleton(p, j, n, dialect, backslash, False, s)
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
    """The text with its long strings and numbers cut short: what a parser is to judge is the same for any literal."""
    cdef const uint8_t* p = <const uint8_t*>text
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t j
    cdef Py_ssize_t copied = 0
    cdef bint prefixed = False          # a word ends where this token begins: E'…'
    cdef bint escape
    cdef Scan s
    cdef list parts = []
    if n <= SHORT_LITERAL:
        return text[:n]
    s.flags = 0
    while i < n:
        if p[i] == b"'":
            escape = backslash or (dialect == PG and prefixed and (p[i - 1] | 0x20) == b"e")
            j = skip_quoted(p, i + 1, n, b"'", escape)
            if j - i > SHORT_LITERAL:
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
            j = skip_line(p, i, n)
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


# --- the statement -------------------------------------------------------------------------------------

cdef inline int _flags_of_first_word(int w, int dialect) noexcept nogil:
    """What a statement that begins with this word does to the session, as far as the word tells."""
    if w == W_SETLIKE or w == W_SET or w == W_NONE:
        return F_SETLIKE
    if w == W_DISCARD:
        return F_SETLIKE | F_DISCARD | F_DEALLOCATE
    if w == W_KILL:
        return F_KILL
    if w == W_DEALLOCATE:
        return F_DEALLOCATE
    if w == W_DO or w == W_LOAD:
        return F_SETLIKE if dialect == PG else 0
    if w == W_EXECUTE:
        return F_TAINT if dialect == MY else 0
    if w == W_XA:
        return F_TAINT
    if w == W_COPY:
        return F_COPY
    if w == W_CREATE or w == W_ALTER or w == W_DDL:
        return F_DDL
    if w == W_LOCK:
        return F_LOCK if dialect == MY else 0
    if w == W_UNLOCK:
        return F_UNLOCK
    return 0


cdef inline int _qtype_of(int verb) noexcept nogil:
    if verb == W_INSERT:
        return QT_INSERT
    if verb == W_UPDATE:
        return QT_UPDATE
    if verb == W_DELETE:
        return QT_DELETE
    if verb == W_REPLACE:
        return QT_REPLACE
    if verb == W_SELECT or verb == W_WITH:
        return QT_SELECT
    return QT_OTHER


cdef inline void _note_word(int w, int first, int second, int previous, int dialect,
                            Scan* s) noexcept nogil:
    """Flags from a word that is not a statement's first. ``second`` tells that it is the second."""
    if w == W_TEMP:
        if previous == W_CREATE or previous == W_REPLACE or previous == W_LOCAL or previous == W_GLOBAL or (
                previous == W_INTO):
            s.flags |= F_TEMP
    elif w == W_SET_CONFIG:
        s.flags |= F_SETLIKE
        if first == W_PREPARE:
            s.flags |= F_TAINT
    elif w == W_CURRVAL:
        s.flags |= F_CURRVAL
    elif w == W_LAST_ID:
        if dialect == MY:
            s.flags |= F_LAST_ID
    elif w == W_DIAGNOSTICS:
        if dialect == MY:
            s.flags |= F_DIAGNOSTICS
    elif w == W_ROW_COUNT:
        if dialect == MY:
            s.flags |= F_DIAGNOSTICS | F_ROW_COUNT
    elif w == W_RETURNING:
        s.flags |= F_RETURNING
    elif w == W_TQDB:
        if first == W_SHOW or first == W_SELECT:
            s.flags |= F_STATUS
    elif w == W_INSERT_ID:
        if first == W_SET:
            s.flags |= F_TAINT
    elif first == W_SET and second:
        if dialect == PG:
            # for this transaction only; but a plain SET before it in the same message still counts
            if (w == W_LOCAL or w == W_TRANSACTION) and not s.flags & F_MULTI:
                s.flags &= ~F_SETLIKE
        elif w == W_TRANSACTION:
            s.flags |= F_TAINT
        elif w == W_GLOBAL:
            s.flags |= F_GLOBAL
    elif first == W_ALTER and second and w == W_SYSTEM:
        s.flags |= F_GLOBAL
    elif first == W_WITH and s.qtype == QT_SELECT and w >= W_INSERT and w <= W_REPLACE:
        s.qtype = _qtype_of(w)


cdef int scan_sql(const uint8_t* p, Py_ssize_t n, int dialect, bint backslash, Scan* s) noexcept nogil:
    """Scans one message's SQL text. ``backslash``: a backslash escapes inside '…'. Fills ``s``; returns 0."""
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t j
    cdef Py_ssize_t tail = -1           # the first comment behind the last token so far
    cdef int cls, w
    cdef int first = W_NONE             # first word of the statement being read
    cdef int previous = W_NONE
    cdef int nth = 0                    # tokens of the statement so far
    cdef int statements = 0
    cdef int depth = 0
    s.verb = W_NONE
    s.qtype = QT_OTHER
    s.flags = 0
    s.wait_ms = WAIT_NONE
    s.hinted = s.hint_error = False
    s.backslash = backslash
    s.file = s.line = NULL
    s.nfile = s.nline = 0
    s.core_start = -1
    s.core_end = 0
    s.values_start = s.values_end = s.first_end = -1
    s.ntuples = s.ncols = 0
    s.nskeleton = 0
    while i < n:
        cls = CHAR_CLASS[p[i]]
        if cls == CC_SPACE:
            i += 1
            continue
        if cls == CC_SLASH and i + 1 < n and p[i + 1] == b"*":
            j = skip_block_comment(p, i + 2, n, dialect == PG)
            if j < 0:
                s.flags |= F_UNSURE
                break
            if dialect == MY and is_executable_comment(p, i, n):
                s.flags |= F_EXEC_COMMENT | F_SETLIKE
            if s.core_start < 0:
                if i + 2 < n and (p[i + 2] == b"+" or p[i + 2] == b"!"):
                    s.core_start = i
                parse_hint(p, i + 2, j - 2, s)
            elif tail < 0:
                tail = i
            i = j
            continue
        if (cls == CC_DASH or cls == CC_HASH) and is_line_comment(p, i, n, dialect):
            j = skip_line(p, i, n)
            if statements == 0 and nth == 0:
                parse_hint(p, i + 1, j, s)
            i = j
            continue
        if cls == CC_SEMICOLON:
            nth = 0
            first = previous = W_NONE
            depth = 0
            i += 1
            continue

        # a token of a statement
        tail = -1
        if s.core_start < 0:
            s.core_start = i
        if nth == 0:
            statements += 1
            if statements > 1:
                s.flags |= F_MULTI
        nth += 1
        if cls == CC_WORD:
            j = skip_word(p, i, n)
            w = word_id(p + i, j - i)
            if nth == 1:
                first = w
                s.flags |= _flags_of_first_word(w, dialect)
                if statements == 1:
                    s.verb = w
                    s.qtype = _qtype_of(w)
            else:
                if w != W_NONE:
                    _note_word(w, first, nth == 2, previous, dialect, s)
                elif dialect == PG and j - i >= 7 and same_word(p + i, b"pg_temp", 7):
                    s.flags |= F_TEMP
                if w == W_VALUES and s.verb == W_INSERT and statements == 1 and depth == 0 and (
                        s.values_start < 0):
                    i = j
                    while i < n and CHAR_CLASS[p[i]] == CC_SPACE:
                        i += 1
                    if i < n and p[i] == b"(":
                        i = scan_tuples(p, i, n, dialect, backslash, s)
                        if i < 0:
                            s.flags |= F_UNSURE
                            break
                        s.core_end = i
                        previous = W_NONE
                        continue
                    i = j
            if j < n and p[j] == b"'" and dialect == PG and j - i == 1 and (p[i] | 0x20) == b"e":
                j = skip_string(p, j, n, dialect, backslash, True, s)
            previous = w
        elif cls == CC_DIGIT:
            j = skip_number(p, i, n)
            previous = W_NONE
        elif cls == CC_SQUOTE or cls == CC_DQUOTE or (cls == CC_BACKTICK and dialect == MY):
            j = skip_string(p, i, n, dialect, backslash, False, s)
            previous = W_NONE
        elif cls == CC_DOLLAR and dialect == PG:
            j = skip_dollar_quoted(p, i, n)
            if j == 0:
                j = i + 1
            previous = W_NONE
        else:
            if cls == CC_LPAREN:
                depth += 1
                if nth == 1:
                    # "(SELECT …": the words inside tell
                    nth = 0
                    statements -= 1
                    if statements < 0:
                        statements = 0
            elif cls == CC_RPAREN:
                depth -= 1
            j = i + 1
            if cls != CC_LPAREN:
                previous = W_NONE
        if nth == 1 and cls != CC_WORD:
            s.flags |= F_SETLIKE        # no statement begins like this: nothing is known of it
        if j < 0:
            s.flags |= F_UNSURE
            break
        i = j
        s.core_end = j
    if s.core_start < 0:
        s.core_start = s.core_end = n
    elif s.core_end < s.core_start:
        s.core_end = s.core_start           # its first token does not end
    if tail >= 0 and not s.flags & F_UNSURE:
        i = tail
        while i + 1 < n:
            if p[i] == b"/" and p[i + 1] == b"*":
                j = skip_block_comment(p, i + 2, n, dialect == PG)
                if j < 0:
                    break
                parse_hint(p, i + 2, j - 2, s)
                i = j
            elif is_line_comment(p, i, n, dialect):
                i = skip_line(p, i, n)
            else:
                i += 1
    if s.flags & F_UNSURE:
        s.flags |= F_SETLIKE | F_TAINT
    return 0


def scan(bytes sql, str dialect="postgres", bint backslash=False):
    """The scanner's findings as a dict, for tests and tools. ``dialect``: ``postgres`` or ``mariadb``."""
    cdef Scan s
    scan_sql(<const uint8_t*>PyBytes_AS_STRING(sql), PyBytes_GET_SIZE(sql),
             MY if dialect == "mariadb" else PG, backslash, &s)
    names = {F_SETLIKE: "setlike", F_TAINT: "taint", F_DDL: "ddl", F_TEMP: "temp", F_LOCK: "lock",
             F_UNLOCK: "unlock", F_MULTI: "multi", F_UNSURE: "unsure", F_EXEC_COMMENT: "exec_comment",
             F_LAST_ID: "last_id", F_STATUS: "status", F_CURRVAL: "currval", F_GLOBAL: "global",
             F_COMPLEX: "complex", F_DISCARD: "discard",
             F_DIAGNOSTICS: "diagnostics", F_DEALLOCATE: "deallocate", F_ROW_COUNT: "row_count",
             F_RETURNING: "returning", F_KILL: "kill", F_COPY: "copy"}
    return {
        "query_type": QUERY_TYPES[s.qtype],
        "flags": {name for bit, name in names.items() if s.flags & bit},
        "wait_ms": "auto" if s.wait_ms == WAIT_AUTO else None if s.wait_ms < 0 else s.wait_ms,
        "hint_error": bool(s.hint_error),
        "file": s.file[:s.nfile] if s.file != NULL else b"",
        "line": s.line[:s.nline] if s.line != NULL else b"",
        "core": (s.core_start, s.core_end),
        "values": (s.values_start, s.values_end) if s.values_end >= 0 else None,
        "ntuples": s.ntuples,
        "ncols": s.ncols,
        "skeleton": s.skeleton[:s.nskeleton],
    }
