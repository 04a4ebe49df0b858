# The hot scanner: hint, verb, session-changing words and the value tuples of one message, in one pass.
#
# It never decides what a statement means. It cuts an INSERT into prefix, tuples and suffix; whether that cut
# is the right one is asked of a real parser once per shape (tqdb.analysis).

cdef inline int _flags_of_first_word(int w, int dialect) noexcept nogil:
    """What a statement that begins with this word does to the session, as far as the word tells."""
    if w == W_NONE and dialect == MY:
        return F_SETLIKE | F_OPAQUE         # a compound statement may begin with IF, CASE, a label …
    if w == W_SETLIKE or w == W_SET or w == W_NONE:
        return F_SETLIKE
    if w == W_DISCARD:
        return F_SETLIKE | F_DISCARD | F_DEALLOCATE
    if w == W_KILL:
        return F_KILL
    if w == W_DEALLOCATE:
        return F_DEALLOCATE
    if w == W_DO or w == W_LOAD:
        return F_SETLIKE | F_OPAQUE if dialect == PG else 0
    if w == W_EXECUTE or w == W_XA:
        return F_OPAQUE
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
        s.flags |= F_OPAQUE
    elif w == W_STATUS:
        if first == W_LOCK:
            s.flags |= F_TAINT              # FLUSH STATUS: what the session has made is counted no more
    elif w == W_SETTINGS:
        s.flags |= F_OPAQUE
    elif w == W_EXECUTE:
        if dialect == PG:
            s.flags |= F_OPAQUE             # EXPLAIN ANALYZE EXECUTE, CREATE TABLE … AS EXECUTE
    elif w == W_CURRVAL:
        s.flags |= F_CURRVAL
    elif w == W_LAST_ID:
        if dialect == MY:
            s.flags |= F_LAST_ID
    elif w == W_DIAGNOSTICS:
        if dialect == MY:
            s.flags |= F_DIAGNOSTICS
            if first != W_SHOW:
                s.flags |= F_OPAQUE             # GET DIAGNOSTICS: ROW_COUNT() stays as the statement before left it
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
    elif first == W_SET and w == W_SELECT:
        s.flags |= F_OPAQUE                 # a value that the text does not tell
    elif first == W_SET and second:
        if dialect == PG:
            # for this transaction only; but a plain SET before it in the same message still counts
            if (w == W_LOCAL or w == W_TRANSACTION) and not s.flags & F_MULTI:
                s.flags &= ~F_SETLIKE
        elif w == W_TRANSACTION:
            s.flags |= F_TAINT              # of the next transaction only: no variable tells
    elif first == W_WITH and s.qtype == QT_SELECT and w >= W_INSERT and w <= W_REPLACE:
        s.qtype = _qtype_of(w)


cdef inline bint _opens_assignment(const uint8_t* p, Py_ssize_t i) noexcept nogil:
    """Whether what stands at i is the next thing that a SET assigns to: behind a comma."""
    i -= 1
    while i >= 0 and CHAR_CLASS[p[i]] == CC_SPACE:
        i -= 1
    return i >= 0 and p[i] == b","


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
    cdef Py_ssize_t name = -1           # where the name begins that this token stands behind
    cdef Py_ssize_t name_end = 0
    cdef bint columns = False           # the next parenthesis may hold the columns of an INSERT, or a CREATE
    s.verb = W_NONE
    s.qtype = QT_OTHER
    s.flags = 0
    s.wait_ms = WAIT_NONE
    s.hinted = s.hint_error = False
    s.backslash = backslash
    s.shaped = False
    s.file = s.line = NULL
    s.nfile = s.nline = 0
    s.text_start = -1
    s.text_end = 0
    s.values_start = s.values_end = s.first_end = -1
    s.ntuples = s.ncols = 0
    s.semicolon = -1
    s.first_text_end = 0
    s.opening = s.closing = 0
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
            if s.text_start < 0:
                if i + 2 < n and (p[i + 2] == b"+" or p[i + 2] == b"!"):
                    s.text_start = i
                parse_hint(p, i + 2, j - 2, s)
            elif tail < 0:
                tail = i
            i = j
            continue
        if (cls == CC_DASH or cls == CC_HASH) and is_line_comment(p, i, n, dialect):
            j = skip_line(p, i, n, dialect)
            if statements == 0 and nth == 0:
                parse_hint(p, i + 1, j, s)
            i = j
            continue
        if cls == CC_SEMICOLON:
            if statements == 1 and s.semicolon < 0:
                s.semicolon = i
                s.first_text_end = s.text_end
            nth = 0
            first = previous = W_NONE
            depth = 0
            i += 1
            continue

        # a token of a statement
        tail = -1
        if s.text_start < 0:
            s.text_start = i
        if nth == 0:
            statements += 1
            if statements > 1:
                s.flags |= F_MULTI
        nth += 1
        if name >= 0 and cls == CC_LPAREN and nth > 1:
            if columns and depth == 0:
                columns = False
            elif not is_harmless_call(p, name, name_end, dialect):
                s.flags |= F_OPAQUE
        name = -1
        if cls == CC_WORD:
            j = skip_word(p, i, n)
            w = word_id(p + i, j - i)
            name = i
            name_end = j
            if nth == 1:
                columns = w == W_INSERT or w == W_REPLACE or w == W_CREATE
            elif w == W_SELECT or w == W_WITH or w == W_SET or w == W_VALUES or w == W_RETURNING:
                columns = False
            if nth == 1:
                first = w
                s.flags |= _flags_of_first_word(w, dialect)
                if statements == 1:
                    s.verb = w
                    s.qtype = _qtype_of(w)
            else:
                if nth == 2 and first == W_BEGIN and dialect == MY and not (
                        j - i == 4 and same_word(p + i, b"work", 4)):
                    s.flags |= F_SETLIKE | F_OPAQUE | F_DDL     # BEGIN NOT ATOMIC: anything may follow
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
                        s.text_end = i
                        previous = W_NONE
                        name = -1
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
            if cls != CC_SQUOTE:
                name = name_end = i         # whatever it quotes: a name that is on no list
                if dialect == PG and n - i >= 4 and same_word(p + i + 1, b"pg_", 3):
                    s.flags |= F_OPAQUE     # a schema or a view of the server's own
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
            if p[i] == b"@" and first == W_SET and dialect == MY:
                if j < n and p[j] == b"@":
                    j += 1
                elif nth > 2 and not _opens_assignment(p, i):
                    s.flags |= F_OPAQUE     # a user variable's value, which the text does not tell
            if cls != CC_LPAREN:
                previous = W_NONE
        if nth == 1 and cls != CC_WORD:
            s.flags |= F_SETLIKE        # no statement begins like this: nothing is known of it
        if j < 0:
            s.flags |= F_UNSURE
            break
        i = j
        s.text_end = j
    if s.text_start < 0:
        s.text_start = s.text_end = n
    elif s.text_end < s.text_start:
        s.text_end = s.text_start           # its first token does not end
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
                i = skip_line(p, i, n, dialect)
            else:
                i += 1
    if s.flags & F_UNSURE:
        s.flags |= F_SETLIKE | F_OPAQUE
    return 0


def scan(bytes sql, str dialect="postgres", bint backslash=False):
    """The scanner's findings as a dict, for tests and tools. ``dialect``: ``postgres`` or ``mariadb``."""
    cdef Scan s
    scan_sql(<const uint8_t*>PyBytes_AS_STRING(sql), PyBytes_GET_SIZE(sql),
             MY if dialect == "mariadb" else PG, backslash, &s)
    names = {F_SETLIKE: "setlike", F_TAINT: "taint", F_DDL: "ddl", F_TEMP: "temp", F_LOCK: "lock",
             F_UNLOCK: "unlock", F_MULTI: "multi", F_UNSURE: "unsure", F_EXEC_COMMENT: "exec_comment",
             F_LAST_ID: "last_id", F_STATUS: "status", F_CURRVAL: "currval", F_OPAQUE: "opaque",
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
        "text": (s.text_start, s.text_end),
        "values": (s.values_start, s.values_end) if s.values_end >= 0 else None,
        "ntuples": s.ntuples,
        "ncols": s.ncols,
        "skeleton": s.skeleton[:s.nskeleton],
    }
