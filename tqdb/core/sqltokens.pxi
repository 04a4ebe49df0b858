# Where tokens end.
#
# Lexical rules: PostgreSQL manual 4.1 (nested comments, E'' and dollar quoting, standard_conforming_strings);
# MariaDB manual "Comment Syntax", "String Literals" (executable comments, backslash escapes, `#`).

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


cdef inline Py_ssize_t skip_line(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, int dialect) noexcept nogil:
    """The end of a line comment: to MariaDB a carriage return is none."""
    while i < n and p[i] != b"\n" and (p[i] != b"\r" or dialect == MY):
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


cdef Py_ssize_t skip_single_quoted(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, bint backslash,
                                   bint escape_prefix) noexcept nogil:
    """i stands on the opening quote; returns one past the string, or -1.

    PostgreSQL: behind ``escape_prefix``, E'…', the rule of its backslashes holds on where another line continues it.
    """
    cdef Py_ssize_t j = skip_quoted(p, i + 1, n, b"'", backslash or escape_prefix)
    cdef Py_ssize_t k
    cdef bint other_line
    while escape_prefix and j > 0:
        k = j
        other_line = False
        while k < n:
            if CHAR_CLASS[p[k]] == CC_SPACE:
                other_line = other_line or p[k] == b"\n" or p[k] == b"\r"
                k += 1
            elif is_line_comment(p, k, n, PG):
                k = skip_line(p, k, n, PG)
            else:
                break
        if k >= n or p[k] != b"'" or not other_line:
            return j
        j = skip_quoted(p, k + 1, n, b"'", True)
    return j


cdef Py_ssize_t skip_string(const uint8_t* p, Py_ssize_t i, Py_ssize_t n, int dialect, bint backslash,
                            bint escape_prefix, Scan* s) noexcept nogil:
    """i stands on a quote (', ", `); returns one past the token, or -1 if it does not end."""
    cdef uint8_t quote = p[i]
    cdef Py_ssize_t j
    if quote == b"'":
        return skip_single_quoted(p, i, n, backslash, escape_prefix)
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
