# MariaDB/MySQL: an execution's parameters as literals, where any column stores a literal as it does the parameter.
#
# https://mariadb.com/kb/en/com_stmt_execute/ and "Binary protocol: value encoding" there.

cdef enum MyType:
    TYPE_TINY = 1
    TYPE_SHORT = 2
    TYPE_LONG = 3
    TYPE_DOUBLE = 5
    TYPE_TIMESTAMP = 7
    TYPE_LONGLONG = 8
    TYPE_DATE = 10
    TYPE_TIME = 11
    TYPE_DATETIME = 12
    TYPE_VARCHAR = 15
    TYPE_TINY_BLOB = 249
    TYPE_BLOB = 252
    TYPE_VAR_STRING = 253
    TYPE_STRING = 254
    FLAG_UNSIGNED = 0x80

cdef enum Literal:
    LIT_NONE = 0        # no literal is the same
    LIT_NULL
    LIT_NUMBER
    LIT_TIME
    LIT_STRING
    LIT_BINARY

cdef enum:
    LONGEST_LITERAL = 48        # of those that are no strings
    LONGEST_HOURS = 838         # of a TIME

ctypedef struct MyValue:
    int literal             # Literal
    Py_ssize_t size         # bytes that it takes in the packet
    char[48] text           # LIT_NUMBER, LIT_TIME: the literal, …
    int length              # … and its length
    const char* string      # LIT_STRING, LIT_BINARY: in the packet
    Py_ssize_t nstring


cdef inline uint64_t le64(const char* p) noexcept nogil:
    return le32(p) | (<uint64_t>le32(p + 4) << 32)


cdef int read_integer(MyValue* value, const char* p, int size, bint is_unsigned) noexcept nogil:
    """A whole number of ``size`` bytes. The least of 64 bits is no literal, but the negative of one."""
    cdef uint64_t bits = <uint8_t>p[0] if size == 1 else le16(p) if size == 2 else le32(p) if size == 4 else le64(p)
    cdef int64_t number = (<int8_t>bits if size == 1 else <int16_t>bits if size == 2 else <int32_t>bits if size == 4
                           else <int64_t>bits)
    value.size = size
    value.literal = LIT_NUMBER
    if is_unsigned:
        value.length = snprintf(value.text, LONGEST_LITERAL, b"%llu", <unsigned long long>bits)
    elif number == -1 - <int64_t>0x7FFFFFFFFFFFFFFF:
        value.literal = LIT_NONE
    else:
        value.length = snprintf(value.text, LONGEST_LITERAL, b"%lld", <long long>number)
    return 0


cdef int read_double(MyValue* value, const char* p) noexcept nogil:
    """17 digits tell every double from its neighbours; with an exponent it is no DECIMAL."""
    cdef double number
    memcpy(&number, p, 8)
    value.size = 8
    if number - number == 0:
        value.literal = LIT_NUMBER
        value.length = snprintf(value.text, LONGEST_LITERAL, b"%.16e", number)
    return 0


cdef int read_time(MyValue* value, int kind, const char* p, Py_ssize_t n) noexcept nogil:
    """Date and time of day, in as many bytes as its first one tells; a time that is none is no literal."""
    cdef int size = <uint8_t>p[0]
    cdef uint64_t hours = 0
    cdef uint32_t micros = 0
    cdef uint32_t days
    cdef int hour = 0
    cdef int minute = 0
    cdef int second = 0
    cdef const uint8_t* u = <const uint8_t*>p
    value.size = 1 + size
    if n < value.size:
        return 0
    if kind == TYPE_TIME:
        if size != 8 and size != 12:
            return 0
        days = le32(p + 2)
        micros = le32(p + 9) if size == 12 else 0
        hours = <uint64_t>days * 24 + u[6]
        if u[1] > 1 or u[6] > 23 or u[7] > 59 or u[8] > 59 or micros > 999999 or hours > LONGEST_HOURS:
            return 0
        value.length = snprintf(value.text, LONGEST_LITERAL, b"TIME'%s%02d:%02d:%02d", b"-" if u[1] else b"",
                                <int>hours, <int>u[7], <int>u[8])
    else:
        if size != 4 and ((size != 7 and size != 11) or kind == TYPE_DATE):
            return 0
        if not le16(p + 1) or le16(p + 1) > 9999 or not 0 < u[3] < 13 or not 0 < u[4] < 32:
            return 0
        if kind == TYPE_DATE:
            value.length = snprintf(value.text, LONGEST_LITERAL, b"DATE'%04d-%02d-%02d", <int>le16(p + 1), <int>u[3],
                                    <int>u[4])
        else:
            if size > 4:
                hour, minute, second = u[5], u[6], u[7]
            if hour > 23 or minute > 59 or second > 59:
                return 0
            micros = le32(p + 8) if size == 11 else 0
            if micros > 999999:
                return 0
            value.length = snprintf(
                value.text, LONGEST_LITERAL, b"TIMESTAMP'%04d-%02d-%02d %02d:%02d:%02d", <int>le16(p + 1), <int>u[3],
                <int>u[4], hour, minute, second)
    if micros:
        value.length += snprintf(value.text + value.length, LONGEST_LITERAL - value.length, b".%06d", <int>micros)
    value.text[value.length] = b"'"
    value.length += 1
    value.literal = LIT_TIME
    return 0


cdef int read_value(MyValue* value, int kind, bint is_unsigned, const char* p, Py_ssize_t n) noexcept nogil:
    """One value that is not NULL; ``literal`` is LIT_NONE where there is none, or the packet ends in it."""
    cdef int size
    cdef uint64_t length
    value.literal = LIT_NONE
    value.size = 0
    if kind == TYPE_TINY or kind == TYPE_SHORT or kind == TYPE_LONG or kind == TYPE_LONGLONG:
        size = 1 if kind == TYPE_TINY else 2 if kind == TYPE_SHORT else 8 if kind == TYPE_LONGLONG else 4
        return read_integer(value, p, size, is_unsigned) if size <= n else 0
    if kind == TYPE_DOUBLE:
        return read_double(value, p) if n >= 8 else 0
    if kind == TYPE_DATE or kind == TYPE_TIME or kind == TYPE_DATETIME or kind == TYPE_TIMESTAMP:
        return read_time(value, kind, p, n) if n > 0 else 0
    if kind == TYPE_VARCHAR or (kind >= TYPE_TINY_BLOB and kind <= TYPE_STRING):
        size = <int>read_lenenc(p, n, &length)
        if size and length <= <uint64_t>(n - size):
            value.string = p + size
            value.nstring = <Py_ssize_t>length
            value.size = size + value.nstring
            value.literal = LIT_BINARY if kind >= TYPE_TINY_BLOB and kind <= TYPE_BLOB else LIT_STRING
    return 0


cdef Py_ssize_t literal_size(MyValue* value, bint backslash) noexcept nogil:
    cdef Py_ssize_t size
    cdef Py_ssize_t i
    if value.literal == LIT_NULL:
        return 4
    if value.literal != LIT_STRING and value.literal != LIT_BINARY:
        return value.length
    size = value.nstring + (2 if value.literal == LIT_STRING else 9)
    for i in range(value.nstring):
        if value.string[i] == b"'" or (backslash and value.string[i] == b"\\"):
            size += 1
    return size


cdef int put_literal(Buffer out, MyValue* value, bint backslash) except -1:
    cdef Py_ssize_t i
    cdef Py_ssize_t begin = 0
    if value.literal == LIT_NULL:
        return out.append(b"NULL", 4)
    if value.literal != LIT_STRING and value.literal != LIT_BINARY:
        return out.append(value.text, value.length)
    if value.literal == LIT_BINARY:
        out.append(b"_binary", 7)
    out.append(b"'", 1)
    for i in range(value.nstring):
        if value.string[i] == b"'" or (backslash and value.string[i] == b"\\"):
            out.append(value.string + begin, i + 1 - begin)
            begin = i                   # it is there twice
    out.append(value.string + begin, value.nstring - begin)
    return out.append(b"'", 1)


cdef inline int next_value(MyValue* value, int k, const char* types, const char* bitmap, const char* p,
                           const char* end) noexcept nogil:
    """The ``k``-th parameter, whose value is at ``p`` unless the bitmap says that it is NULL."""
    if <uint8_t>bitmap[k // 8] >> (k % 8) & 1:
        value.literal = LIT_NULL
        value.size = 0
        return 0
    return read_value(value, <uint8_t>types[2 * k], <uint8_t>types[2 * k + 1] & FLAG_UNSIGNED != 0, p, end - p)


cdef Py_ssize_t literals_size(const char* types, int nparams, const char* bitmap, const char* p, const char* end,
                              bint backslash) noexcept nogil:
    """Bytes of an execution's parameters as literals; -1: one of them has none, or the packet is none."""
    cdef MyValue value
    cdef Py_ssize_t size = 0
    cdef int k
    for k in range(nparams):
        next_value(&value, k, types, bitmap, p, end)
        if value.literal == LIT_NONE:
            return -1
        p += value.size
        size += literal_size(&value, backslash)
    return size if p == end else -1


cdef int put_tuple(Buffer out, tuple pieces, const char* types, const char* bitmap, const char* p, const char* end,
                   bint backslash) except -1:
    """A tuple with the literals of parameters of which ``literals_size`` has found that they have some."""
    cdef MyValue value
    cdef bytes text
    cdef int number
    for text, number in pieces:
        out.append_bytes(text)
        if number:
            next_value(&value, number - 1, types, bitmap, p, end)
            p += value.size
            put_literal(out, &value, backslash)
    return 0
