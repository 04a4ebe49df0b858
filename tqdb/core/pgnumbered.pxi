# PostgreSQL: texts that differ in literals only as one statement with parameters, parsed once and bound for each.

cdef enum PgType:
    # https://www.postgresql.org/docs/current/catalog-pg-type.html
    TYPE_NOT_TOLD = 0           # the server finds it, as it does for a string in the same place
    TYPE_INT8 = 20
    TYPE_INT4 = 23
    TYPE_NUMERIC = 1700
    TYPE_NONE = -1              # no parameter is the same

cdef enum:
    FEWEST_NUMBERED = 4         # below, one Parse more costs what it saves
    LONGEST_NUMBER = 40

cdef uint64_t LARGEST_INT4 = 2147483647

# What the server may find for a string: types that read a parameter as they read a literal. Not here: interval and bit,
# whose literals are read by the column's own precision; types of users, domains among them.
cdef frozenset NUMBERED_TYPES = frozenset((
    TYPE_INT8, TYPE_INT4, TYPE_NUMERIC,
    16,         # bool
    17,         # bytea
    21,         # int2
    25,         # text
    114,        # json
    650,        # cidr
    700,        # float4
    701,        # float8
    869,        # inet
    1042,       # bpchar
    1043,       # varchar
    1082,       # date
    1083,       # time
    1114,       # timestamp
    1184,       # timestamptz
    1266,       # timetz
    2950,       # uuid
    3802,       # jsonb
))


cdef int literal_type(const char* p, Py_ssize_t n) noexcept nogil:
    """The type that a literal of ``n`` bytes has for the server (PostgreSQL manual 4.1.2)."""
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t digits = 0
    cdef bint fraction = False
    cdef uint64_t number = 0
    if p[0] == b"'":
        return TYPE_NOT_TOLD
    if p[0] == b"-":
        i = 1
    if n > LONGEST_NUMBER or i == n or not b"0" <= p[i] <= b"9" or not b"0" <= p[n - 1] <= b"9":
        return TYPE_NONE
    while i < n:
        if b"0" <= p[i] <= b"9":
            digits += 1
            if digits <= 18:
                number = 10 * number + <uint64_t>p[i] - 48
        elif p[i] == b"." and not fraction:
            fraction = True
        else:
            return TYPE_NONE
        i += 1
    if fraction:
        return TYPE_NUMERIC
    # the least int4 is of another type than its digits
    if digits > 18 or number == LARGEST_INT4 + 1:
        return TYPE_NONE
    return TYPE_INT4 if number <= LARGEST_INT4 else TYPE_INT8


cdef int put_value(Buffer out, const char* p, Py_ssize_t n) except -1:
    """A literal as Bind has a parameter: its length, and its text."""
    cdef Py_ssize_t size = n
    cdef Py_ssize_t i
    cdef char[4] length
    if p[0] == b"'":
        p += 1
        n -= 2
        size = n
        i = 0
        while i < n:
            if p[i] == b"'":
                i += 1
                size -= 1
            i += 1
    tq_put_be32(length, <uint32_t>size)
    out.append(length, 4)
    if size == n:
        return out.append(p, n)
    i = 0
    while i < n:
        if p[i] == b"'":
            out.append(p, i + 1)
            p += i + 2
            n -= i + 2
            i = 0
        else:
            i += 1
    return out.append(p, n)


cdef int put_numbered_text(Buffer out, const char* sql, Scan* s) except -1:
    """The body of a Parse message without a name: ``sql`` with $1, $2, … for its literals, and their types."""
    cdef Py_ssize_t at = s.text_start
    cdef char[4] number
    cdef bytes text
    cdef int k
    out.append(b"\0", 1)
    for k in range(s.nliterals):
        out.append(sql + at, s.literals[k][0] - at)
        text = b"$%d " % (k + 1)
        out.append_bytes(text)
        at = s.literals[k][1]
    out.append(sql + at, s.text_end - at)
    tq_put_be16(number + 1, s.nliterals)
    number[0] = 0
    out.append(number, 3)
    for k in range(s.nliterals):
        tq_put_be32(number, literal_type(sql + s.literals[k][0], s.literals[k][1] - s.literals[k][0]))
        out.append(number, 4)
    return 0


cdef bint put_numbered(Buffer out, Unit unit) except -1:
    """Parse of the statement, Describe of its parameters, then Bind and Execute of everybody. False: not put.

    The texts are of one shape; so the first one's, with parameters, is the statement of all whose literals are of the
    same types.
    """
    cdef Held held
    cdef Write* w
    cdef Scan s
    cdef const char* sql
    cdef int[16] types
    cdef int nliterals = -1
    cdef int k, i
    cdef Py_ssize_t at = out.size()
    cdef Py_ssize_t start, begin, n
    cdef char[2] count
    for item in unit.members:
        held = <Held>item
        for k in range(held.nwrites):
            w = held.writes + k
            sql = held.data.ptr() + w.sql_start
            s.flags = 0
            s.text_start = 0
            s.text_end = w.sql_end - w.sql_start
            s.backslash = False
            if scan_whole(<const uint8_t*>sql, &s, PG) < 0 or not 0 < s.nliterals <= MAX_LITERALS:
                out.truncate(at)
                return False
            if nliterals < 0:
                nliterals = s.nliterals
                start = open_message(out, b"P")
                put_numbered_text(out, sql, &s)
                close_message(out, start)
                out.append_bytes(DESCRIBE_UNNAMED)
            start = open_message(out, b"B")
            tq_put_be16(count, nliterals)
            out.append(b"\0\0\0\0", 4)
            out.append(count, 2)
            for i in range(s.nliterals):
                begin = s.literals[i][0]
                n = s.literals[i][1] - begin
                if item is unit.members[0] and k == 0:
                    types[i] = literal_type(sql + begin, n)
                if s.nliterals != nliterals or types[i] == TYPE_NONE or literal_type(sql + begin, n) != types[i]:
                    out.truncate(at)
                    return False
                put_value(out, sql + begin, n)
            out.append(b"\0\0", 2)
            close_message(out, start)
            out.append_bytes(EXECUTE)
    return True


cdef bint may_be_numbered(const char* p, Py_ssize_t n) except -1:
    """Whether a ParameterDescription of ``n`` bytes, without its header, has only types that may be."""
    cdef int k
    for k in range(tq_be16(p)):
        if 2 + 4 * k + 4 > n or tq_be32(p + 2 + 4 * k) not in NUMBERED_TYPES:
            return False
    return True
