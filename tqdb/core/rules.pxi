# Rules of the configuration, as far as the core keeps what was found once: which rule decides about a shape.

cdef enum:
    MAX_SCOPES = 1000               # sets of rules that may match in sessions …
    MAX_RULINGS = 10000             # … and shapes of which each keeps what decides

    # What the scanner finds that no write that is batched has; see ``Ruled.exclusion``.
    UNBATCHABLE = (F_MULTI | F_UNSURE | F_EXEC_COMMENT | F_SETLIKE | F_TAINT | F_LAST_ID | F_TEMP | F_CURRVAL
                   | F_DIAGNOSTICS)


cdef class Ruling:
    """The rule that decides about a shape, or that none does, or that it is not known yet.

    ``name``: the rule's, None where there is none; ``hits``: writes about which it has decided.
    """
    cdef readonly str name
    cdef readonly double wait       # milliseconds, WAIT_AUTO, or WAIT_NONE
    cdef readonly bint force        # over hints and sessions' settings
    cdef public uint64_t hits

    def __init__(self, str name, double wait, bint force):
        self.name = name
        self.wait = wait
        self.force = force


cdef Ruling NO_RULE = Ruling(None, WAIT_NONE, False)
cdef Ruling UNDECIDED = Ruling(None, WAIT_NONE, False)     # which schema is meant counts, and is not known


cdef class Scope:
    """What decides in sessions in which the same rules may match."""
    cdef tuple numbers              # of the rules, in order
    cdef int qtypes                 # kinds of statements that one of them may match, as bits …
    cdef int forced                 # … and one that goes over hints
    cdef dict rulings               # Shape, or (Shape, schemas) -> Ruling

    def __init__(self, tuple numbers):
        self.numbers = numbers
        self.rulings = {}


cdef class Rulebook:
    """The rules in force. ``generation`` counts their changes: what was found by others is forgotten.

    Hooks: ``candidates(session)`` -> the numbers of the rules that may match in a session, in order;
    ``first_rule(numbers, shape, schemas)`` -> the number of the one that decides, -1: none, -2: see ``UNDECIDED``.
    ``schemas``: where an unqualified table is looked for, in order; None: not known.
    """
    cdef object hooks
    cdef int generation
    cdef list rules                 # of (Ruling, kinds of statements as bits)
    cdef dict scopes                # numbers -> Scope

    def __init__(self, hooks):
        self.hooks = hooks
        self.rules = []
        self.scopes = {}

    cdef int put(self, list rules) except -1:
        """Puts rules in force: ``(name, wait, force, query_types)``. Those that keep their name keep their hits."""
        cdef dict hits = {(<Ruling>ruling).name: (<Ruling>ruling).hits for ruling, _ in self.rules}
        cdef Ruling made
        self.generation += 1
        self.scopes = {}
        self.rules = []
        for name, wait, force, query_types in rules:
            made = Ruling(name, wait, force)
            made.hits = hits.get(name, 0)
            self.rules.append((made, sum([1 << QUERY_TYPES.index(q) for q in query_types])))
        return 0

    cdef Scope scope(self, session):
        cdef tuple numbers = self.hooks.candidates(session)
        cdef Scope scope = self.scopes.get(numbers)
        if scope is None:
            if len(self.scopes) >= MAX_SCOPES:
                self.scopes.clear()
            scope = self.scopes[numbers] = Scope(numbers)
            for number in numbers:
                ruling, qtypes = self.rules[<int>number]
                scope.qtypes |= <int>qtypes
                if (<Ruling>ruling).force:
                    scope.forced |= <int>qtypes
        return scope

    cdef Ruling ruling(self, Scope scope, Shape shape, tuple schemas):
        """What decides about a shape."""
        key = shape if schemas is None else (shape, schemas)
        cdef Ruling found = scope.rulings.get(key)
        cdef int number
        if found is None:
            number = self.hooks.first_rule(scope.numbers, shape, schemas)
            found = <Ruling>self.rules[number][0] if number >= 0 else UNDECIDED if number == -2 else NO_RULE
            if len(scope.rulings) >= MAX_RULINGS:
                scope.rulings.clear()
            scope.rulings[key] = found
        return found
