# Groups, and batches of what several have gathered, as data; a batch's way from BEGIN to its outcome as a table.
# No room below knows a protocol.

cdef enum:
    MAX_PARAMETERS = 65535          # of one statement, on both protocols
    MAX_ANSWER_BYTES = 8388608      # of a batch: past that it is taken back and its members go alone
    BATCH_TEXT = 512                # bytes of a batch's statements that are nobody's: BEGIN, time-outs, separators
    MIXED_MS = 50                   # that a statement may take in a batch of several groups'

cdef double NEVER = 1e300

cdef enum Phase:
    B_WAITING = 0       # nothing was sent
    B_OPENING           # what opens the transaction was sent, alone
    B_BLIND             # BEGIN and the statement were sent, and BEGIN is not answered
    B_BARE              # BEGIN was refused, and the statement behind it runs on its own
    B_WORK              # a transaction is open, everybody's statements are under way
    B_IDS               # … are answered, and the insert ids are asked for
    B_COMMIT
    B_ROLLBACK
    B_CHECK             # ROLLBACK was refused: is a transaction open?
    B_OVER              # all was kept, or (``failed``) nothing
    B_SEVER             # not a phase: the connection has to end in the phase in which it is

cdef enum Event:
    EV_GOOD = 0         # the phase's answer is whole, and what it must be
    EV_BAD              # it is whole, and an error or a surprise
    EV_OUT              # it is whole, an error, and no transaction is open any more

cdef enum Known:
    # of a batch whose connection is lost in a phase
    K_NOTHING = 0       # nothing of it is kept
    K_UNKNOWN           # all or nothing of it, nobody can tell
    K_HANDED            # unknown once what may keep it, COMMIT most often, has been handed over, nothing before

# (next phase after EV_GOOD, EV_BAD, EV_OUT; what is known when the connection is lost)
_BATCH_TABLE = {
    B_WAITING: (B_WAITING, B_OVER, B_OVER, K_NOTHING),
    B_OPENING: (B_WORK, B_OVER, B_OVER, K_NOTHING),
    B_BLIND: (B_WORK, B_BARE, B_BARE, K_HANDED),
    B_BARE: (B_OVER, B_SEVER, B_OVER, K_UNKNOWN),
    B_WORK: (B_COMMIT, B_ROLLBACK, B_OVER, K_NOTHING),
    B_IDS: (B_COMMIT, B_ROLLBACK, B_ROLLBACK, K_NOTHING),
    B_COMMIT: (B_OVER, B_ROLLBACK, B_OVER, K_HANDED),
    B_ROLLBACK: (B_OVER, B_CHECK, B_OVER, K_NOTHING),
    B_CHECK: (B_OVER, B_SEVER, B_OVER, K_NOTHING),
    B_OVER: (B_OVER, B_OVER, B_OVER, K_NOTHING),
}
cdef int[10][3] BATCH_NEXT
cdef int[10] KNOWN_WHEN_LOST
for _phase, (_good, _bad, _out, _known) in _BATCH_TABLE.items():
    BATCH_NEXT[_phase][<int>EV_GOOD] = _good
    BATCH_NEXT[_phase][<int>EV_BAD] = _bad
    BATCH_NEXT[_phase][<int>EV_OUT] = _out
    KNOWN_WHEN_LOST[_phase] = _known


cdef class Group:
    """Writes of one shape from sessions of one class: what is being gathered of them."""
    cdef readonly Shape shape
    cdef readonly SessionClass cls
    cdef TableFacts facts
    cdef int strikes                # batches in a row whose answer held a surprise
    cdef double paused              # until when writes go alone because of them
    cdef int in_vain                # batches in a row of one statement for many keys that failed …
    cdef int spared                 # … and how many are to go statement by statement because of them
    # what is being gathered
    cdef list members               # Held
    cdef int rows
    cdef Py_ssize_t bytes           # of their tuples, or messages: what each was counted with
    cdef Py_ssize_t text_bytes      # of the longest text around tuples
    cdef double opened
    cdef double deadline
    cdef double scheduled           # time of the group's entry in the engine's heap; never behind the deadline
    cdef bint has_auto
    cdef bint ripe                  # to be looked at before the loop sleeps
    cdef int max_rows               # that parameters allow, 0: any
    # batches and singles under way
    cdef int inflight
    cdef Endpoint last_leader

    def __init__(self, Shape shape, SessionClass cls, TableFacts facts):
        self.shape = shape
        self.cls = cls
        self.facts = facts
        self.members = []
        self.deadline = self.scheduled = NEVER
        if shape.nparams:
            self.max_rows = MAX_PARAMETERS // shape.nparams

    cdef inline bint merges(self) noexcept:
        """Rows go as one INSERT, as far as is known."""
        return self.facts.multi_row and self.shape.multi_row

    cdef int count(self, int sign, int rows, Py_ssize_t size, Py_ssize_t text_bytes) except -1:
        self.rows += sign * rows
        self.bytes += sign * size
        if text_bytes > self.text_bytes:
            self.text_bytes = text_bytes
        return 0

    cdef list take_members(self):
        """What was gathered; the group is empty afterwards."""
        cdef list members = self.members
        self.members = []
        self.reset()
        return members

    cdef int remove(self, Held held) except -1:
        self.members.remove(held)
        self.count(-1, held.rows, held.counted, 0)
        if not self.members:
            self.reset()
        return 0

    cdef int reset(self) except -1:
        self.cls.gathering.discard(self)
        self.rows = 0
        self.bytes = self.text_bytes = 0
        self.deadline = NEVER
        self.has_auto = False
        return 0


cdef class Unit:
    """Writes of one group in a batch: one statement merged of them, or their statements one behind the other."""
    cdef readonly Group group
    cdef readonly list members      # Held
    cdef int method                 # Method
    cdef int nwrites
    cdef int rows
    cdef Py_ssize_t size            # bytes, as the group has counted them, with the text around tuples
    cdef double opened              # when the first of it was gathered
    cdef int flush_reason
    # what is known of its answer
    cdef bint failed                # it is why the batch fails …
    cdef bint table_error           # … as a statement, not for a row: no use in halving
    cdef int answered               # pipeline: writes answered so far
    cdef int answer_rows
    cdef Py_ssize_t end             # of its part of ``response``
    cdef Py_ssize_t head_bytes      # merged: the part in front of the rows
    cdef bytes tail                 # MariaDB: payload of the packet that ends a RETURNING result
    cdef int step                   # MariaDB: distance of its insert ids when it was sent, 0: its table gives none
    cdef bint asks                  # MariaDB, in a pipeline: LAST_INSERT_ID() is asked for behind each member, …
    cdef list ids                   # … and was answered so; merged: behind all, and ``first_id`` is the answer
    cdef uint64_t first_id          # MariaDB, merged: id of the first row
    cdef list keys                  # M_KEYS: each member's, as its literal …
    cdef int affected               # … and what each is answered: rows affected, …
    cdef int changed                # … and changed

    def __init__(self, Group group, list members, int flush_reason, double opened, Py_ssize_t size):
        self.group = group
        self.members = members
        self.flush_reason = flush_reason
        self.opened = opened
        self.size = size
        self.ids = []
        self.count()

    cdef int count(self) except -1:
        """Its members are others now."""
        cdef Held held
        self.nwrites = self.rows = 0
        for item in self.members:
            held = <Held>item
            self.nwrites += held.nwrites
            self.rows += held.rows
        return 0

    cdef inline Unit of(self, list members):
        """The same with others of its members, untried."""
        return Unit(self.group, members, self.flush_reason, self.opened, self.size)


cdef class Batch:
    """Writes that leave together, as one transaction on ``leader``'s connection ``server``."""
    cdef readonly list units        # Unit, in the order in which they are sent
    cdef readonly list members      # Held: those of all units
    cdef int nwrites
    cdef int rows
    cdef Py_ssize_t size
    cdef int attempt                # how often writes of it were tried together before
    cdef int losses                 # connections that were lost under writes of it
    cdef Endpoint leader
    cdef Endpoint server
    cdef double sent
    cdef double worked              # when all was answered but COMMIT, 0: it was not
    cdef int phase                  # Phase
    cdef uint64_t commit_at         # position of the server's ``out`` behind what may keep it
    cdef int cause                  # RetryCause of a failure
    cdef bint failed                # nothing of it is to be kept
    cdef bint lost                  # its connection has ended …
    cdef int known_when_lost        # Known, then
    cdef list bad                   # pipeline: writes that made it fail, as Held
    cdef int at                     # index of the unit whose answer is being read
    cdef Buffer response            # what the dialect keeps of the answer
    cdef Buffer ends                # pipeline: where each write's part of ``response`` ends, as Py_ssize_t
    cdef uint32_t status            # MariaDB: status flags of the answer
    cdef Unit plain                 # its one unit before that was taken apart by keys; None: it was not

    def __init__(self, list units):
        self.units = units
        self.bad = []
        self.response = Buffer()
        self.ends = Buffer()
        self.count()

    cdef int count(self) except -1:
        """Its units are others now, or their members."""
        cdef Unit unit
        self.nwrites = self.rows = 0
        self.size = 0
        self.members = (<Unit>self.units[0]).members if len(self.units) == 1 else []
        for item in self.units:
            unit = <Unit>item
            self.nwrites += unit.nwrites
            self.rows += unit.rows
            self.size += unit.size
            if len(self.units) > 1:
                self.members += unit.members
        return 0

    cdef inline int step(self, int event) noexcept:
        """Goes on to the next phase and returns it; B_SEVER: it stays where it is, and the connection has to end."""
        cdef int phase = BATCH_NEXT[self.phase][event]
        if phase != B_SEVER:
            self.phase = phase
        return phase

    cdef int known(self) noexcept:
        """K_NOTHING or K_UNKNOWN: what is known of it if its connection is lost now."""
        cdef int known = KNOWN_WHEN_LOST[self.phase]
        if known == K_HANDED:
            return K_UNKNOWN if self.server.out.consumed >= self.commit_at else K_NOTHING
        return known

    cdef inline Unit unit(self):
        """The unit whose answer is being read, None: all are answered."""
        return <Unit>self.units[self.at] if self.at < len(self.units) else None

    cdef inline int end_unit(self) except -1:
        (<Unit>self.units[self.at]).end = self.response.size()
        self.at += 1
        return 0

    cdef int fail(self, int cause) except -1:
        """It is not to be kept; the first cause counts."""
        if not self.failed:
            self.failed = True
            self.cause = cause
        return 0

    cdef int fail_unit(self, int cause) except -1:
        """It is not to be kept because of what the unit was answered that is being read."""
        if self.at < len(self.units):
            (<Unit>self.units[self.at]).failed = True
        return self.fail(cause)

    cdef int fail_size(self) except -1:
        """Its answer is too long to be kept, because of the unit that has the largest part of it."""
        cdef Unit unit
        cdef Unit largest = None
        cdef Py_ssize_t begin = 0
        cdef Py_ssize_t most = -1
        cdef Py_ssize_t end
        cdef int k
        for k in range(min(self.at + 1, len(self.units))):
            unit = <Unit>self.units[k]
            end = unit.end if k < self.at else self.response.size()
            if end - begin > most:
                most = end - begin
                largest = unit
            begin = end
        if largest is not None:
            largest.failed = True
        return self.fail(RC_MISMATCH)

    cdef int fail_table(self, int cause) except -1:
        """… and the table is not what the catalogue said: it is asked again."""
        if self.at < len(self.units):
            (<Unit>self.units[self.at]).table_error = True
        return self.fail_unit(cause)

    cdef inline int end_write(self, Unit unit) except -1:
        """The answer to one more write of a pipeline is whole."""
        cdef Py_ssize_t size = self.response.size()
        unit.answered += 1
        return self.ends.append(<char*>&size, sizeof(size))

    cdef inline Py_ssize_t end_of(self, int k) noexcept:
        return (<Py_ssize_t*>self.ends.ptr())[k]

    cdef inline bint begins_write(self, Unit unit) noexcept:
        """Nothing is there of the answer to the write of a pipeline whose turn it is."""
        cdef Py_ssize_t n = self.ends.size() // <Py_ssize_t>sizeof(Py_ssize_t)
        cdef Py_ssize_t end = self.end_of(n - 1) if unit.answered else (
            (<Unit>self.units[self.at - 1]).end if self.at else 0)
        return self.response.size() == end

    cdef int blame(self, Unit unit) except -1:
        """The write of a pipeline whose answer is being read made the batch fail."""
        cdef int k = unit.answered
        cdef Held held
        for item in unit.members:
            held = <Held>item
            if k < held.nwrites:
                if held not in self.bad:
                    self.bad.append(held)
                return 0
            k -= held.nwrites
        return 0
