# Shapes: statements that differ in values only, and the cache that asks once what each means.

cdef enum:
    MAX_SHAPES = 10000              # analysed statement shapes kept …
    MAX_SHAPES_BYTES = 33554432     # … and bytes of their texts
    MAX_SHAPE_BYTES = 16384         # prefix and suffix of a statement that is taken apart

cdef enum Form:
    FORM_CUT = 0        # text, an INSERT cut into prefix, tuples and suffix
    FORM_WHOLE          # text, any write, its literals as "?"
    FORM_BOUND          # parameters for a prepared statement


cdef class Shape:
    """Statements that differ in values only.

    FORM_CUT: what stands before and behind the tuples, and one tuple's skeleton. FORM_WHOLE: ``skeleton`` is
    the statement's. FORM_BOUND: ``prefix`` is the statement's text, ``skeleton`` what else must be the same
    (types, formats); ``pieces`` its one tuple taken apart, for a statement with more of them.
    """
    cdef readonly int form
    cdef readonly int dialect
    cdef readonly str query_type
    cdef readonly bytes prefix
    cdef readonly bytes skeleton
    cdef readonly bytes suffix
    cdef readonly object verdict      # what analysis found, None if it may not be batched
    cdef readonly tuple pieces        # (text, number of the parameter behind it or 0), …
    cdef readonly int nparams
    cdef readonly Py_ssize_t around   # bytes of ``pieces`` around the parameters
    cdef readonly bint extended       # comes by PostgreSQL's extended protocol
    cdef bint multi_row               # its rows may be merged, as far as its text tells
    cdef readonly tuple table         # schema and name of what it writes to, None without a verdict
    cdef bint numbered                # PostgreSQL: its literals may go as parameters of one statement
    cdef uint64_t number              # in the order in which shapes were first seen
    cdef bint backslash               # a backslash escapes in its texts
    cdef str normal                   # see ``text``; "": there is none, None: nobody has asked

    def __init__(self, int form, int dialect, int qtype, bytes prefix, bytes skeleton, bytes suffix, verdict,
                 bint extended):
        self.form = form
        self.dialect = dialect
        self.query_type = <str>QUERY_TYPES[qtype]
        self.prefix = prefix
        self.skeleton = skeleton
        self.suffix = suffix
        self.verdict = verdict
        self.extended = extended
        self.multi_row = verdict is not None and verdict.multi_row
        self.table = (verdict.schema, verdict.table) if verdict is not None else None

    @property
    def text(self):
        """Its normal text with one tuple, "" if it has none; see ``normal_of``."""
        cdef bytes found
        if self.normal is None:
            if self.form != FORM_BOUND:
                found = normal_of(self.dialect, self.prefix + self.skeleton + self.suffix, False)
            elif self.pieces:
                found = normal_of(self.dialect, self.prefix + b"".join(
                    [piece + b"?" if number else piece for piece, number in self.pieces]) + self.suffix, self.backslash)
            else:
                found = normal_of(self.dialect, self.prefix, self.backslash)
            self.normal = found.decode("utf-8", "replace") if found is not None else ""
        return self.normal

    @property
    def fingerprint(self):
        """Of its text, or ""."""
        return fingerprint_of(self.text) if self.text else ""

    cdef inline bint is_cut(self, const char* sql, Scan* s) noexcept:
        """Whether a scanned INSERT is one of these."""
        cdef Py_ssize_t nprefix = s.values_start - s.text_start
        cdef Py_ssize_t nsuffix = s.text_end - s.values_end if s.text_end > s.values_end else 0
        return (self.form == FORM_CUT
                and PyBytes_GET_SIZE(self.prefix) == nprefix and PyBytes_GET_SIZE(self.suffix) == nsuffix
                and PyBytes_GET_SIZE(self.skeleton) == s.nskeleton
                and memcmp(PyBytes_AS_STRING(self.prefix), sql + s.text_start, nprefix) == 0
                and memcmp(PyBytes_AS_STRING(self.suffix), sql + s.values_end, nsuffix) == 0
                and memcmp(PyBytes_AS_STRING(self.skeleton), s.skeleton, s.nskeleton) == 0)

    cdef inline bint is_whole(self, Scan* s) noexcept:
        """Whether a statement whose whole skeleton was scanned is one of these."""
        return (self.form == FORM_WHOLE and PyBytes_GET_SIZE(self.skeleton) == s.nskeleton
                and memcmp(PyBytes_AS_STRING(self.skeleton), s.skeleton, s.nskeleton) == 0)


cdef class Shapes:
    """The shapes known. Hooks: ``analyze(dialect, prefix, tuple, suffix)``, ``analyze_statement(dialect, sql)`` and
    ``pieces(dialect, tuple, parameters)`` answer what they found, None for never, or NotImplemented for not just now.
    """
    cdef object hooks
    cdef dict known
    cdef Py_ssize_t bytes           # of their texts
    cdef uint64_t seen              # ever

    def __init__(self, hooks):
        self.hooks = hooks
        self.known = {}

    cdef Shape keep(self, key, Shape shape):
        if len(self.known) >= MAX_SHAPES or self.bytes >= MAX_SHAPES_BYTES:
            self.known.clear()
            self.bytes = 0
        self.bytes += len(shape.prefix) + len(shape.skeleton) + len(shape.suffix)
        self.seen += 1
        shape.number = self.seen
        self.known[key] = shape
        return shape

    cdef Shape of_cut(self, int dialect, const char* p, Scan* s, bytes formats):
        """The shape of a scanned INSERT, analysed if it is new. None: not analysed just now.

        ``formats``: what else must be the same, b"" for a text protocol's own answer.
        """
        cdef bytes prefix = p[s.text_start:s.values_start]
        cdef bytes skeleton = s.skeleton[:s.nskeleton]
        cdef bytes suffix = p[s.values_end:s.text_end] if s.text_end > s.values_end else b""
        key = (dialect, prefix, skeleton, suffix, formats)
        found = self.known.get(key)
        if found is not None:
            return <Shape>found
        verdict = self.hooks.analyze(dialect, prefix, short_literals(
            p + s.values_start, s.first_end - s.values_start, dialect, s.backslash), suffix)
        if verdict is NotImplemented:
            return None
        return self.keep(key, Shape(
            FORM_CUT, dialect, s.qtype, prefix, skeleton, suffix, verdict, formats != b""))

    cdef Shape of_whole(self, int dialect, const char* p, Scan* s, bytes formats):
        """The shape of a scanned statement whose skeleton is the whole statement's."""
        cdef Shape shape
        cdef bytes skeleton = s.skeleton[:s.nskeleton]
        key = (dialect, skeleton, formats)
        found = self.known.get(key)
        if found is not None:
            return <Shape>found
        verdict = self.hooks.analyze_statement(dialect, short_literals(
            p + s.text_start, s.text_end - s.text_start, dialect, s.backslash))
        if verdict is NotImplemented:
            return None
        shape = Shape(FORM_WHOLE, dialect, s.qtype, b"", skeleton, b"", verdict, formats != b"")
        shape.numbered = verdict is not None and 0 < verdict.literals == skeleton.count(b"?") and formats == b""
        return self.keep(key, shape)

    cdef Shape of_prepared(self, int dialect, bytes text, Scan* s):
        """What a prepared statement is to rules: a shape by which nothing is batched. None: not analysed just now."""
        if scan_whole(<const uint8_t*>PyBytes_AS_STRING(text), s, dialect) < 0:
            return None
        key = (dialect, s.skeleton[:s.nskeleton])
        found = self.known.get(key)
        if found is not None:
            return <Shape>found
        verdict = self.hooks.analyze_statement(dialect, short_literals(
            PyBytes_AS_STRING(text) + s.text_start, s.text_end - s.text_start, dialect, s.backslash))
        if verdict is NotImplemented:
            return None
        return self.keep(key, Shape(
            FORM_WHOLE, dialect, s.qtype, b"", s.skeleton[:s.nskeleton], b"", verdict, False))

    cdef Shape of_bound(self, int dialect, bytes text, bytes alike, Scan* s, int nparams, bint single):
        """The shape of executions of a statement; ``s`` is the scan of ``text``, ``alike`` see ``Shape``.

        ``single``: rows are not to be merged.
        """
        cdef Shape shape
        key = (dialect, text, alike, nparams, single)
        found = self.known.get(key)
        if found is not None:
            return <Shape>found
        verdict = None
        pieces = None
        prefix, suffix = text, b""
        if s.verb == W_INSERT and s.values_end >= 0 and s.ntuples == 1 and not s.flags & F_COMPLEX and not single:
            prefix, suffix = text[:s.values_start], text[s.values_end:]
            values = text[s.values_start:s.values_end]
            pieces = self.hooks.pieces(dialect, values, nparams)
            if pieces is not None and pieces is not NotImplemented:
                if dialect == MY:
                    # whatever a parameter may be, a literal is it
                    values = b"".join([piece + b"NULL" if number else piece for piece, number in pieces])
                verdict = self.hooks.analyze(dialect, prefix, values, suffix)
        if pieces is NotImplemented or verdict is NotImplemented:
            return None
        if verdict is None:
            pieces = None
            verdict = self.hooks.analyze_statement(dialect, text)
            if verdict is NotImplemented:
                return None
        shape = Shape(FORM_BOUND, dialect, s.qtype, prefix if pieces else text, alike, suffix if pieces else b"",
                      verdict, dialect == PG)
        shape.pieces = pieces
        shape.backslash = s.backslash
        if pieces:
            shape.around = sum([len(piece) for piece, _ in pieces])
        shape.nparams = nparams
        return self.keep(key, shape)
