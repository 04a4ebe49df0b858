# What the scanner knows of characters and words, what it finds, and how hints are read.

cdef enum Dialect:
    PG = 0
    MY = 1

cdef enum CharClass:
    CC_OTHER = 0
    CC_SPACE
    CC_WORD
    CC_DIGIT
    CC_SQUOTE
    CC_DQUOTE
    CC_BACKTICK
    CC_DOLLAR
    CC_DASH
    CC_SLASH
    CC_HASH
    CC_LPAREN
    CC_RPAREN
    CC_COMMA
    CC_SEMICOLON

cdef uint8_t[256] CHAR_CLASS
for _i in range(256):
    _c = chr(_i)
    CHAR_CLASS[_i] = (
        CC_SPACE if _c in " \t\n\r\f\v" else
        CC_DIGIT if _c in "0123456789" else
        CC_WORD if _c.isascii() and _c.isalpha() or _c == "_" or _i >= 0x80 else
        CC_SQUOTE if _c == "'" else CC_DQUOTE if _c == '"' else CC_BACKTICK if _c == "`" else
        CC_DOLLAR if _c == "$" else CC_DASH if _c == "-" else CC_SLASH if _c == "/" else
        CC_HASH if _c == "#" else CC_LPAREN if _c == "(" else CC_RPAREN if _c == ")" else
        CC_COMMA if _c == "," else CC_SEMICOLON if _c == ";" else CC_OTHER)

# --- words ---------------------------------------------------------------------------------------------

cdef enum Word:
    W_NONE = 0
    W_INSERT
    W_UPDATE
    W_DELETE
    W_REPLACE
    W_SELECT
    W_WITH
    W_NEUTRAL        # a statement that changes no session state
    W_SHOW
    W_VALUES
    W_SET
    W_SETLIKE        # changes session state in a way its text tells
    W_DISCARD
    W_EXECUTE
    W_XA
    W_LOAD
    W_DO
    W_CREATE
    W_ALTER
    W_DDL
    W_LOCK           # holds locks on tables until W_UNLOCK (MariaDB)
    W_UNLOCK
    W_TRANSACTION
    W_LOCAL
    W_GLOBAL
    W_SETTINGS       # a view through which settings are changed
    W_TEMP
    W_INTO
    W_SET_CONFIG
    W_CURRVAL        # lastval, currval
    W_LAST_ID        # last_insert_id, identity
    W_DIAGNOSTICS    # other words about the statement before
    W_ROW_COUNT
    W_DEALLOCATE
    W_RETURNING
    W_KILL
    W_TQDB
    W_LITERAL        # null, true, false, default
    W_INSERT_ID
    W_STATUS
    W_COPY
    W_BEGIN

ctypedef struct WordEntry:
    char[24] text
    int length
    int word

cdef WordEntry[256] WORD_TABLE

cdef inline unsigned int _word_slot(const uint8_t* p, Py_ssize_t n) noexcept nogil:
    return ((p[0] | 0x20) * 7 + (p[n - 1] | 0x20) * 31 + <unsigned int>n * 13) & 255


def _fill_word_table():
    words = {
        W_INSERT: "insert", W_UPDATE: "update", W_DELETE: "delete", W_REPLACE: "replace",
        W_SELECT: "select", W_WITH: "with", W_SHOW: "show", W_VALUES: "values", W_SET: "set",
        W_NEUTRAL: "table explain analyze vacuum start commit rollback end abort savepoint "
                   "release fetch move close declare listen unlisten notify checkpoint desc describe "
                   "merge comment optimize check repair help refresh reindex cluster handler "
                   "signal cache purge prepare",
        W_SETLIKE: "reset use call",
        W_DISCARD: "discard", W_EXECUTE: "execute", W_XA: "xa", W_LOAD: "load",
        W_DO: "do", W_CREATE: "create", W_ALTER: "alter",
        W_DDL: "drop truncate rename grant revoke import security reassign",
        W_LOCK: "lock flush backup", W_UNLOCK: "unlock", W_TRANSACTION: "transaction", W_LOCAL: "local",
        W_GLOBAL: "global", W_TEMP: "temp temporary", W_INTO: "into", W_SET_CONFIG: "set_config",
        W_CURRVAL: "lastval currval",
        W_LAST_ID: "last_insert_id identity",
        W_DIAGNOSTICS: "warnings errors warning_count error_count diagnostics",
        W_ROW_COUNT: "row_count found_rows", W_DEALLOCATE: "deallocate",
        W_RETURNING: "returning", W_KILL: "kill", W_COPY: "copy", W_STATUS: "status", W_BEGIN: "begin",
        W_TQDB: "tqdb pg_tqdb_status", W_LITERAL: "null true false default",
        W_SETTINGS: "pg_settings", W_INSERT_ID: "insert_id rand_seed1 rand_seed2",
    }
    cdef unsigned int slot
    for word, texts in words.items():
        for text in texts.split():
            raw = text.encode()
            slot = _word_slot(<const uint8_t*>PyBytes_AS_STRING(raw), len(raw))
            while WORD_TABLE[slot].length:
                slot = (slot + 1) & 255
            memcpy(WORD_TABLE[slot].text, PyBytes_AS_STRING(raw), len(raw))
            WORD_TABLE[slot].length = len(raw)
            WORD_TABLE[slot].word = word


_fill_word_table()


cdef inline bint same_word(const uint8_t* p, const char* lower, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint8_t c
    for i in range(n):
        c = p[i]
        if c >= 65 and c <= 90:
            c |= 0x20
        if c != <uint8_t>lower[i]:
            return False
    return True


cdef inline int word_id(const uint8_t* p, Py_ssize_t n) noexcept nogil:
    cdef unsigned int slot
    if n > 20:
        return W_NONE
    slot = _word_slot(p, n)
    while WORD_TABLE[slot].length:
        if WORD_TABLE[slot].length == n and same_word(p, WORD_TABLE[slot].text, n):
            return WORD_TABLE[slot].word
        slot = (slot + 1) & 255
    return W_NONE


# --- the result ----------------------------------------------------------------------------------------

cdef enum ScanFlag:
    F_SETLIKE = 1            # session state changes as the text says: goes into the fingerprint
    F_TAINT = 2              # session state changes in a way that cannot be compared, nor asked for
    F_DDL = 4                # facts about tables may change
    F_TEMP = 8               # a temporary object is made
    F_LOCK = 16              # table locks are taken and outlive the statement
    F_UNLOCK = 32
    F_MULTI = 64             # more than one statement
    F_UNSURE = 128           # the text did not end where a token should
    F_EXEC_COMMENT = 256     # /*! … */
    F_LAST_ID = 512          # asks for the last insert id
    F_DIAGNOSTICS = 32768    # asks for what else the statement before left behind
    F_STATUS = 1024          # the proxy's own status
    F_CURRVAL = 2048
    F_COMPLEX = 8192         # a tuple that the scanner does not take apart
    F_DISCARD = 16384
    F_DEALLOCATE = 65536     # prepared statements are dropped by name
    F_ROW_COUNT = 131072     # asks how many rows the statement before met
    F_RETURNING = 262144
    F_KILL = 524288
    F_COPY = 1048576         # a COPY statement: data may have to follow
    F_OPAQUE = 2097152       # it may change session state in a way that its text does not tell

cdef enum:
    MAX_SKELETON = 3072
    MAX_LITERALS = 16               # of a statement whose literals' places are kept
    SHORT_LITERAL = 256             # bytes of a literal that a parser is given as it is

cdef double WAIT_NONE = -1.0
cdef double WAIT_AUTO = -2.0
cdef double WAIT_UNSAID = -3.0      # of a session: its settings say nothing of it

ctypedef struct Scan:
    int verb                  # Word of the first statement's first word
    int qtype                 # QueryType
    int flags                 # ScanFlag bits
    double wait_ms            # WAIT_NONE, WAIT_AUTO, or milliseconds
    bint hinted               # a max_wait_ms/batch key was there
    bint hint_error
    bint backslash            # with what it was scanned
    bint shaped               # its shape is known: see ``Ruled``
    const char* file          # spans inside the scanned text
    Py_ssize_t nfile
    const char* line
    Py_ssize_t nline
    Py_ssize_t text_start     # first byte of the statement proper
    Py_ssize_t text_end       # one past its last token, without a closing semicolon
    Py_ssize_t values_start   # the first value tuple's "(", or -1
    Py_ssize_t values_end     # one past the last tuple's ")"
    Py_ssize_t first_end      # one past the first tuple's ")"
    int ntuples
    int ncols
    Py_ssize_t semicolon      # that ends the first statement, or -1 …
    Py_ssize_t first_text_end  # … and one past the last token in front of it
    int opening               # what stands around the write: ``BlockFlag`` bits, 0: nothing
    int closing
    Py_ssize_t nskeleton      # the first tuple with its literals replaced by "?"
    char[MAX_SKELETON] skeleton
    int nliterals             # of a whole statement; more than MAX_LITERALS: not all are strings or numbers, or so few
    Py_ssize_t[MAX_LITERALS][2] literals  # where each begins, with its sign, and ends


# --- hints ---------------------------------------------------------------------------------------------

cdef inline bint _hint_separator(uint8_t c) noexcept nogil:
    return CHAR_CLASS[c] == CC_SPACE or c == b","


cdef enum:
    MAX_LABEL_BYTES = 128           # of a hint's file and line that are looked at


cdef void parse_hint(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, Scan* s) noexcept nogil:
    """Keys ``max_wait_ms``/``batch``, ``file``, ``line`` in a comment's body p[i:n]; the first of each wins."""
    cdef Py_ssize_t key, nkey, value, nvalue
    cdef uint8_t quote
    while i < n:
        if CHAR_CLASS[p[i]] != CC_WORD:
            i += 1
            continue
        key = i
        while i < n and (CHAR_CLASS[p[i]] == CC_WORD or CHAR_CLASS[p[i]] == CC_DIGIT):
            i += 1
        nkey = i - key
        while i < n and CHAR_CLASS[p[i]] == CC_SPACE:
            i += 1
        if i >= n or (p[i] != b":" and p[i] != b"="):
            continue
        i += 1
        while i < n and CHAR_CLASS[p[i]] == CC_SPACE:
            i += 1
        if i < n and (p[i] == b"'" or p[i] == b'"'):
            quote = p[i]
            i += 1
            value = i
            while i < n and p[i] != quote:
                i += 1
            nvalue = i - value
            i += 1
        else:
            value = i
            while i < n and not _hint_separator(p[i]):
                i += 1
            nvalue = i - value
        if (nkey == 11 and same_word(p + key, b"max_wait_ms", 11)) or (
                nkey == 5 and same_word(p + key, b"batch", 5)):
            if not s.hinted:
                s.hinted = True
                _parse_wait(p + value, nvalue, s)
        elif nkey == 4 and s.file == NULL and same_word(p + key, b"file", 4):
            s.file = <const char*>p + value
            s.nfile = min(nvalue, MAX_LABEL_BYTES)
        elif nkey == 4 and s.line == NULL and same_word(p + key, b"line", 4):
            s.line = <const char*>p + value
            s.nline = min(nvalue, MAX_LABEL_BYTES)


cdef void _parse_wait(const uint8_t* p, Py_ssize_t n, Scan* s) noexcept nogil:
    cdef double value = 0
    cdef double scale = 0
    cdef Py_ssize_t i = 0
    cdef bint negative = False
    cdef bint digits = False
    if n == 4 and same_word(p, b"auto", 4):
        s.wait_ms = WAIT_AUTO
        return
    if n and (p[0] == b"-" or p[0] == b"+"):
        negative = p[0] == b"-"
        i = 1
    while i < n:
        if p[i] == b"." and scale == 0:
            scale = 1
        elif CHAR_CLASS[p[i]] == CC_DIGIT and i < 18:
            digits = True
            value = value * 10 + (p[i] - 48)
            scale *= 10
        else:
            s.hint_error = True
            return
        i += 1
    if not digits:
        s.hint_error = True
        return
    if scale > 0:
        value /= scale
    if value > 0 and not negative:
        s.wait_ms = value
