# The normal text of a statement, by which people know it again, and its fingerprint.

cdef enum NormalClass:
    # what stands beside what in a normal text
    NC_WORD = 0         # of a word, or a quoted name
    NC_VALUE            # "?"
    NC_OPEN
    NC_CLOSE            # and comma
    NC_DOT
    NC_PREFIX           # what belongs to the word behind it: @, $
    NC_COLON
    NC_OTHER


cdef inline int _normal_class(uint8_t c) noexcept nogil:
    cdef int cls = CHAR_CLASS[c]
    if cls == CC_WORD or cls == CC_DIGIT or cls == CC_DQUOTE or cls == CC_BACKTICK:
        return NC_WORD
    if c == b"?":
        return NC_VALUE
    if cls == CC_LPAREN:
        return NC_OPEN
    if cls == CC_RPAREN or cls == CC_COMMA:
        return NC_CLOSE
    if c == b".":
        return NC_DOT
    if c == b":":
        return NC_COLON
    return NC_PREFIX if c == b"@" or cls == CC_DOLLAR else NC_OTHER


cdef inline bint _normal_gap(int before, int after, bint comma, bint blank) noexcept nogil:
    """Whether a blank stands between two characters outside of quotes; ``blank``: a token has ended between them."""
    if after == NC_CLOSE or after == NC_COLON or after == NC_DOT or before == NC_OPEN or before == NC_DOT or (
            before == NC_PREFIX or before == NC_COLON):
        return False
    return before != after or blank or comma


cdef bytes normal_of(int dialect, bytes sql, bint backslash):
    """The text with literals and parameters as "?", without comments, blanks as they are usual, lower case outside of
    quotes. None: it is no one statement, or longer than MAX_SKELETON."""
    cdef Scan s
    cdef bytearray out = bytearray()
    cdef uint8_t c
    cdef uint8_t last = 0
    cdef bint blank = False
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t j
    s.flags = 0
    if scan_skeleton(<const uint8_t*>PyBytes_AS_STRING(sql), 0, PyBytes_GET_SIZE(sql), dialect, backslash, True,
                     False, &s) < 0 or s.flags & F_COMPLEX:
        return None
    while i < s.nskeleton:
        c = <uint8_t>s.skeleton[i]
        if c == b" ":
            blank = True
            i += 1
            continue
        if c == b"$" and i + 1 < s.nskeleton and s.skeleton[i + 1] == b"?":
            i += 1                      # a numbered parameter
            c = b"?"
        if last and _normal_gap(_normal_class(last), _normal_class(c), last == b",", blank):
            out.append(32)
        blank = False
        j = i + 1
        if c == b'"' or c == b"`":
            while j < s.nskeleton and <uint8_t>s.skeleton[j] != c:
                j += 1
            j = min(j + 1, s.nskeleton)
            out += s.skeleton[i:j]
            blank = True                # where it ends, a token does
        else:
            out.append(c | 0x20 if 65 <= c <= 90 else c)
        last = c
        i = j
    return bytes(out)


def normal_text(bytes sql, str dialect="postgres", bint backslash=False):
    """A statement's normal text, or None; see ``normal_of``. ``dialect``: ``postgres`` or ``mariadb``."""
    found = normal_of(MY if dialect == "mariadb" else PG, sql, backslash)
    return None if found is None else found.decode("utf-8", "replace")


def fingerprint_of(str text):
    """Of a normal text: 16 hexadecimal digits, the first 8 bytes of its BLAKE2b."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()
