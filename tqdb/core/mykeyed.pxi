# MariaDB/MySQL: updates that differ in nothing but the key of their row, as one statement with a list of keys.
#
# The table's facts say that a key names one row at most. So where as many rows were found as there are keys each write
# has found its own, and the server has done to rows one by one, in the order of the key, what the statements would have
# done.

cdef enum:
    FEWEST_KEYED = 4            # writes, below which one statement gains too little
    MOST_KEYED = 500            # … and above which the server may look for their rows in another way
    MOST_REPEATED = 16          # statements for writes to the same row
    LONGEST_KEY = 255
    MOST_DIGITS = 18            # of a key that is a number

ctypedef struct KeyPlace:
    Py_ssize_t table_end        # in the statement's text: one past the table's name, …
    Py_ssize_t equals           # … the sign in front of the key, …
    Py_ssize_t start            # … the key, …
    Py_ssize_t end              # … and one past it


cdef bint names_row(const char* p, Py_ssize_t n, int kind) noexcept nogil:
    """Whether a literal of ``n`` bytes is compared with a column of that KeyKind as it stands, in a list as alone."""
    cdef Py_ssize_t i
    if kind == KEY_NUMBER:
        if not 0 < n <= MOST_DIGITS:
            return False
        for i in range(n):
            if not b"0" <= p[i] <= b"9":
                return False
        return True
    if not 2 <= n <= LONGEST_KEY or p[0] != b"'" or p[n - 1] != b"'":
        return False
    for i in range(1, n - 1):
        if not b" " <= p[i] <= b"~" or p[i] == b"'" or p[i] == b"\\":
            return False
    return True


cdef Py_ssize_t skip_name(const uint8_t* p, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    """One past the name at i, -1: there is none."""
    cdef Py_ssize_t j
    if i < 0 or i >= n:
        return -1
    if p[i] == b"`":
        return skip_quoted(p, i + 1, n, b"`", False)
    j = skip_word(p, i, n)
    return j if j > i else -1


cdef bint find_places(const char* text, Py_ssize_t n, KeyPlace* place) noexcept nogil:
    """``UPDATE table … = key``, where ``start`` and ``end`` of the key are known: the rest of ``place``."""
    cdef const uint8_t* p = <const uint8_t*>text
    cdef Py_ssize_t i = skip_blank(p, 0, n, MY)
    cdef Py_ssize_t j
    if i < 0 or i + 6 > n or not same_word(p + i, b"update", 6):
        return False
    i = skip_name(p, skip_blank(p, i + 6, n, MY), n)
    if i < 0:
        return False
    j = skip_blank(p, i, n, MY)
    if 0 <= j < n and p[j] == b".":
        i = skip_name(p, skip_blank(p, j + 1, n, MY), n)
        if i < 0:
            return False
    place.table_end = i
    j = place.start - 1
    while j > i and CHAR_CLASS[p[j]] == CC_SPACE:
        j -= 1
    place.equals = j
    return j > i and p[j] == b"="


cdef bint find_literal(const char* text, Py_ssize_t n, bint backslash, Scan* s) noexcept nogil:
    """Scans a statement whose last literal is the key; False: where its literals are is not known."""
    while n and (CHAR_CLASS[<uint8_t>text[n - 1]] == CC_SPACE or text[n - 1] == b";"):
        n -= 1
    s.flags = 0
    s.text_start = 0
    s.text_end = n
    s.backslash = backslash
    return scan_whole(<const uint8_t*>text, s, MY) == 0 and 0 < s.nliterals <= MAX_LITERALS


cdef bytes bound_key(Held held, Shape shape):
    """The one parameter of an execution as a literal."""
    cdef MySession session = <MySession>held.owner
    cdef const char* p = held.data.ptr()
    cdef Write* w = held.writes
    cdef bytes types = session.first_types
    cdef Buffer out
    cdef MyValue value
    if w.flags & WF_TYPES:
        types = p[w.sql_start + 2:w.tuples_start]
    if shape.nparams != 1 or types is None or literals_size(
            PyBytes_AS_STRING(types), 1, p + w.sql_start, p + w.tuples_start, p + w.tuples_end, False) < 0:
        return None
    out = Buffer()
    next_value(&value, 0, PyBytes_AS_STRING(types), p + w.sql_start, p + w.tuples_start, p + w.tuples_end)
    put_literal(out, &value, False)
    return out.take()


cdef list keyed_units(Unit unit, Py_ssize_t limit):
    """The unit's writes as units of one statement each, and one with the rest; None: too few are alike.

    ``limit``: bytes of a statement. Who sends several in a row keeps their order among the rest.
    """
    cdef Shape shape = unit.group.shape
    cdef int kind = unit.group.facts.key
    cdef Held held
    cdef Write* w
    cdef Scan s
    cdef const char* sql
    cdef Py_ssize_t start, end
    cdef bytes key, others
    cdef dict alike = {}            # what else the writes say -> [(keys, members)]: a row's second write in the second
    cdef list statements
    cdef list rest = []
    cdef list units = []
    cdef Unit one
    if shape.form == FORM_BOUND and not shape.prefix.endswith(b"?"):
        return None                 # its parameter is no key
    for item in unit.members:
        held = <Held>item
        key = None
        others = b""
        if held.nwrites == 1:
            w = held.writes
            if shape.form == FORM_BOUND:
                key = bound_key(held, shape)
            else:
                sql = held.data.ptr() + w.sql_start
                if find_literal(sql, w.sql_end - w.sql_start, (<MySession>held.owner).backslash(), &s):
                    start = s.literals[s.nliterals - 1][0]
                    end = s.literals[s.nliterals - 1][1]
                    key = sql[start:end]
                    if s.nliterals > 1:
                        others = sql[s.literals[0][0]:s.literals[s.nliterals - 2][1]]
        if key is None or not names_row(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), kind):
            rest.append(held)
            continue
        statements = alike.get(others)
        if statements is None:
            statements = alike[others] = []
        for keys, members in statements:
            if key not in keys and len(keys) < MOST_KEYED:
                keys[key] = None
                members.append(held)
                break
        else:
            if len(statements) < MOST_REPEATED:
                statements.append(({key: None}, [held]))
            else:
                rest.append(held)
    for statements in alike.values():
        for keys, members in statements:
            if len(members) < FEWEST_KEYED:
                rest += members
                continue
            one = unit.of(members)
            one.method = M_KEYS
            one.keys = list(keys)
            if keyed_size(one) > limit:
                rest += members
                continue
            units.append(one)
    if not units:
        return None
    if rest:
        one = unit.of(rest)
        one.method = M_PIPELINE
        units.append(one)
    return units


cdef bint key_place(Unit unit, const char** text, Py_ssize_t* n, KeyPlace* place) except -1:
    """The text of the unit's first write, its parts; it stays where it is until the member is answered."""
    cdef Shape shape = unit.group.shape
    cdef Held held = <Held>unit.members[0]
    cdef Write* w = held.writes
    cdef Scan s
    if shape.form == FORM_BOUND:
        text[0] = PyBytes_AS_STRING(shape.prefix)
        n[0] = PyBytes_GET_SIZE(shape.prefix)
        place.end = n[0]
        place.start = n[0] - 1
    else:
        text[0] = held.data.ptr() + w.sql_start
        n[0] = w.sql_end - w.sql_start
        if not find_literal(text[0], n[0], (<MySession>held.owner).backslash(), &s):
            return False
        place.start = s.literals[s.nliterals - 1][0]
        place.end = s.literals[s.nliterals - 1][1]
    return find_places(text[0], n[0], place)


cdef Py_ssize_t keyed_size(Unit unit) except -1:
    """Bytes of the unit's one statement; more than any has: there is none."""
    cdef const char* text
    cdef Py_ssize_t n
    cdef KeyPlace place
    if not key_place(unit, &text, &n, &place):
        return MY_MAX_PACKET
    for key in unit.keys:
        n += PyBytes_GET_SIZE(<bytes>key) + 1
    return n


cdef int put_keyed(Buffer out, Unit unit) except -1:
    """The first write's statement for the keys of all.

    By the key's index, however few rows there are: who looks through the table locks rows that nobody asked for.
    """
    cdef const char* text
    cdef Py_ssize_t n
    cdef KeyPlace place
    key_place(unit, &text, &n, &place)
    out.append(text, place.table_end)
    out.append(b" FORCE INDEX (PRIMARY)", 22)
    out.append(text + place.table_end, place.equals - place.table_end)
    out.append(b" IN (", 5)
    out.append_bytes(b",".join(unit.keys))
    out.append(b")", 1)
    return out.append(text + place.end, n - place.end)
