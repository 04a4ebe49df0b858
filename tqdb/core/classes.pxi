# Which sessions are alike: classes of sessions, interned by what distinguishes their behaviour, and what is known of
# tables as they see them.

cdef enum:
    MAX_LOGINS = 1000               # kinds of logins of which it is kept where tables are looked for

cdef enum FactsState:
    T_UNKNOWN = 0       # the catalogue has not been asked
    T_OPEN              # writes may be batched
    T_REFUSED           # the table, or the sessions, do not allow it

cdef enum KeyKind:
    # of the literal that names the row that an UPDATE changes
    KEY_NONE = 0        # none is known to name one row at most
    KEY_NUMBER
    KEY_STRING

KEY_KINDS = ("", "number", "string")


cdef class TableFacts:
    """What the catalogue said of one table, for statements that name the same columns and functions."""
    cdef int state
    cdef int reason                 # Reason, when refused …
    cdef object why                 # … in words
    cdef uint64_t epoch             # the engine's DDL epoch when the catalogue was asked
    cdef double expires             # when it is to be asked again
    cdef bint probing
    cdef bytes question             # what is to be asked next, None: the first question
    cdef object so_far              # what ``judge`` makes of the answers before it
    cdef int rounds                 # questions asked
    cdef uint64_t asked_epoch       # the engine's DDL epoch …
    cdef double began               # … and the time when the first was
    cdef double due                 # when all are likely to be answered
    cdef list waiting               # groups whose writes wait for the catalogue's answer
    cdef bint multi_row             # rows may be merged into one INSERT
    cdef int key                    # KeyKind: updates that differ in it may be one statement
    cdef double wait_limit          # seconds that a write of these sessions may be held at most
    cdef int id_step                # distance of consecutive insert ids, 0 without an auto-increment column
    cdef Py_ssize_t byte_limit      # what the server takes in one statement, 0: no limit of its own
    cdef str schema                 # where an unqualified table was found; None: not known

    def __init__(self):
        self.waiting = []


cdef class Family:
    """Sessions that logged in alike: those of them whose servers are being asked may turn out to be of any class."""
    cdef object __weakref__
    cdef int asking                 # servers that are being asked what their session is like
    cdef list lingering             # groups that could leave but for them

    def __init__(self):
        self.lingering = []


cdef class SessionClass:
    """Sessions that would answer any write alike: same login, and their servers say the same of them.

    Keeps what is known of tables as these sessions see them, and counts those whose writes may leave together.
    """
    cdef readonly bytes key
    cdef readonly int members     # sessions that send hinted writes
    cdef readonly Awaited awaited  # how many of them are about to
    cdef Family family
    cdef int version              # of the custom settings by which they were compared, see ``Gathering``
    cdef dict groups              # Shape -> Group
    cdef set gathering            # groups in which writes wait
    cdef dict tables              # a verdict's ``facts_key`` -> TableFacts
    cdef dict apart               # table -> until when its writes share no batch with other groups'
    cdef double asking            # seconds that the catalogue is thought to take, from its answers

    def __init__(self, bytes key, Family family, int version):
        self.key = key
        self.family = family
        self.version = version
        self.awaited = Awaited()
        self.groups = {}
        self.gathering = set()
        self.tables = {}
        self.apart = {}


cdef class ClassRegistry:
    """Classes by key. A class that no session belongs to stays among the last ``idle_limit`` of its kind.

    Short connections would otherwise ask the catalogue anew each time.
    """
    cdef readonly dict live
    cdef object idle
    cdef int idle_limit
    cdef object families            # what was fixed at login -> Family
    cdef dict schemas               # … -> where who was asked last looks for unqualified tables

    def __init__(self, int idle_limit=256):
        self.live = {}
        self.idle = OrderedDict()
        self.idle_limit = idle_limit
        self.families = WeakValueDictionary()
        self.schemas = {}

    cdef Family family(self, bytes login_key):
        cdef Family family = self.families.get(login_key)
        if family is None:
            family = self.families[login_key] = Family()
        return family

    cdef int looks_in(self, bytes login_key, tuple schemas) except -1:
        if len(self.schemas) >= MAX_LOGINS and login_key not in self.schemas:
            self.schemas.clear()
        self.schemas[login_key] = schemas
        return 0

    cdef SessionClass enter(self, bytes key, Family family, int version):
        cdef SessionClass cls = self.live.get(key)
        if cls is None:
            cls = self.idle.pop(key, None)
            if cls is None:
                cls = SessionClass(key, family, version)
            self.live[key] = cls
        cls.members += 1
        return cls

    cdef int leave(self, SessionClass cls) except -1:
        cls.members -= 1
        if cls.members == 0:
            del self.live[cls.key]
            self.idle[cls.key] = cls
            if len(self.idle) > self.idle_limit:
                self.idle.popitem(last=False)
        return 0


cdef bytes mix(bytes digest, bytes tag, bytes data):
    """The next value of a running fingerprint: order counts, 16 bytes."""
    return hashlib.blake2b(data, digest_size=16, key=digest, person=tag.ljust(16, b"\0")).digest()
