# Watching: what writes there are, by shape, what windows would have made of them, and what is known of their tables.
#
# A bounded table by the space-saving algorithm (Metwally, Agrawal, El Abbadi: "Efficient Computation of Frequent and
# Top-k Elements in Data Streams", 2005): when it is full a new shape takes the place, and the count, of the rarest.
# A write costs a hash, a look into a table and, for each window, a few additions, whatever is in the table.

cdef enum:
    DOORS = 8192                    # shapes seen once that are remembered; a power of two
    CONNECTION_BITS = 512
    MAX_WANTED = 8                  # shapes that are found out about in a second

cdef double LOOKED_SECONDS = 600    # after which a table is asked about again
cdef double PRESENT_SECONDS = 60    # without a write, after which a shape is not chosen to be found out about
cdef uint64_t UNREAD_FIRST = <uint64_t>1 << 62

cdef enum Fit:
    # whether a write could have been gathered, as far as its session tells
    FIT_YES = 0
    FIT_TRANSACTION                 # it stands in a transaction
    FIT_SESSION                     # its session is like no other
    FIT_COUNT

cdef enum Finding:
    # what is known of whether a shape may be batched
    FD_NOTHING = 0
    FD_TEXT                         # its text allows it; its table has not been asked about
    FD_NEVER                        # its text does not
    FD_OPEN                         # its table allows it, too …
    FD_REFUSED                      # … or does not

ctypedef struct Seen:
    uint64_t key
    int32_t next                    # in the chain of its hash
    int32_t place                   # in the heap
    uint64_t count                  # as the algorithm has it: with what it took over …
    uint64_t inherited              # … which is this
    double first
    double last
    uint64_t[3] fit                 # writes by ``Fit``
    uint64_t batched                # of them, writes that went with others
    uint64_t[10] alone              # hinted ones that did not, by Reason
    uint64_t[3] operations          # what would be left of the fit ones …
    double[3] waited                # … and the seconds that they would have waited at most
    uint64_t[3] newest              # rounds that it is part of: the last one …
    uint64_t[3] rounds              # … and a bit for each of those before
    uint64_t[8] connections
    int64_t minute                  # since the clock's beginning …
    uint64_t this_minute            # … writes in it …
    uint64_t last_minute            # … and in the one before
    int dialect
    int qtype
    int flags                       # of its scan
    int known                       # Finding
    bint wanted                     # … and more is to be found out at its next write
    bint merges                     # FD_OPEN: rows of one INSERT
    double looked                   # when its table was asked about last, 0: never
    uint64_t epoch                  # the engine's DDL epoch then


cdef class Watch:
    """The table."""
    cdef readonly int size
    cdef readonly int used
    cdef Seen* seen
    cdef int32_t* chains
    cdef int32_t* heap              # slots; the rarest first
    cdef int mask
    cdef uint64_t[8192] doors       # keys of shapes seen once
    cdef list texts
    cdef list fingerprints
    cdef list crowds
    cdef list sources
    cdef list applications
    cdef list shapes                # what analysis found, a Shape or None …
    cdef list reasons               # … and why a shape goes alone, in words
    cdef object by_login            # login key -> Crowd
    cdef uint32_t serials
    cdef readonly uint64_t total    # writes seen
    cdef readonly uint64_t unread   # … that are too long to be looked at, or unclear
    cdef readonly uint64_t replaced  # entries that gave way to others

    def __init__(self, int size=1000):
        self.by_login = WeakValueDictionary()
        self.allocate(size)

    def __dealloc__(self):
        self.release()

    cdef int release(self) noexcept:
        free(self.seen)
        free(self.chains)
        free(self.heap)
        self.seen = NULL
        self.chains = self.heap = NULL
        return 0

    cdef int allocate(self, int size) except -1:
        cdef int k
        self.release()
        self.mask = 15
        while self.mask < 2 * size:
            self.mask = 2 * self.mask + 1
        self.size = self.used = 0
        self.seen = <Seen*>malloc(sizeof(Seen) * max(1, size))
        self.chains = <int32_t*>malloc(sizeof(int32_t) * (self.mask + 1))
        self.heap = <int32_t*>malloc(sizeof(int32_t) * max(1, size))
        if self.seen == NULL or self.chains == NULL or self.heap == NULL:
            raise MemoryError()
        self.size = size
        for k in range(self.mask + 1):
            self.chains[k] = NO_SLOT
        for k in range(DOORS):
            self.doors[k] = 0
        self.texts = [None] * size
        self.fingerprints = [None] * size
        self.crowds = [None] * size
        self.sources = [None] * size
        self.applications = [None] * size
        self.shapes = [None] * size
        self.reasons = [None] * size
        return 0

    def resize(self, int size):
        """Begins anew with room for ``size`` shapes; 0: nothing is watched."""
        if size != self.size:
            self.allocate(size)

    # --- the table --------------------------------------------------------------------------------

    cdef inline int32_t look_up(self, uint64_t key) noexcept:
        cdef int32_t slot = self.chains[<int>(key >> 20) & self.mask]
        while slot != NO_SLOT and self.seen[slot].key != key:
            slot = self.seen[slot].next
        return slot

    cdef inline int link(self, int32_t slot) noexcept:
        cdef int at = <int>(self.seen[slot].key >> 20) & self.mask
        self.seen[slot].next = self.chains[at]
        self.chains[at] = slot
        return 0

    cdef int unlink(self, int32_t slot) noexcept:
        cdef int32_t* at = &self.chains[<int>(self.seen[slot].key >> 20) & self.mask]
        while at[0] != slot:
            at = &self.seen[at[0]].next
        at[0] = self.seen[slot].next
        return 0

    cdef inline int put(self, int place, int32_t slot) noexcept:
        self.heap[place] = slot
        self.seen[slot].place = place
        return 0

    cdef inline int sink(self, int32_t slot) noexcept:
        """Its count has grown: it goes down to where those below are as frequent."""
        cdef int place = self.seen[slot].place
        cdef uint64_t count = self.seen[slot].count
        cdef int child
        while True:
            child = 2 * place + 1
            if child >= self.used:
                break
            if child + 1 < self.used and self.seen[self.heap[child + 1]].count < self.seen[self.heap[child]].count:
                child += 1
            if self.seen[self.heap[child]].count >= count:
                break
            self.put(place, self.heap[child])
            place = child
        return self.put(place, slot)

    cdef int32_t admit(self, uint64_t key) noexcept:
        """A slot for a shape that is not in the table.

        NO_SLOT: the table is full, the shape was not seen before, and may not come again.
        """
        cdef uint64_t* door = &self.doors[<int>(key >> 40) & (DOORS - 1)]
        cdef int32_t slot
        cdef Seen* e
        cdef uint64_t inherited = 0
        cdef int place
        if self.used == self.size and door[0] != key:
            door[0] = key
            return NO_SLOT
        if self.used < self.size:
            slot = self.used
            place = self.used
            self.used += 1
            # its count is 0: up to the front, past all others
            while place:
                self.put(place, self.heap[(place - 1) // 2])
                place = (place - 1) // 2
            self.put(0, slot)
        else:
            slot = self.heap[0]
            inherited = self.seen[slot].count
            self.unlink(slot)
            self.replaced += 1
            self.texts[slot] = None
        e = &self.seen[slot]
        place = e.place
        memset(e, 0, sizeof(Seen))
        e.place = place
        e.key = key
        e.count = e.inherited = inherited
        self.link(slot)
        return slot

    # --- writes -----------------------------------------------------------------------------------

    cdef Crowd crowd_of(self, bytes login, str backend, str user, str database):
        cdef Crowd crowd = self.by_login.get(login)
        cdef uint64_t salt = 0
        if crowd is None:
            memcpy(&salt, PyBytes_AS_STRING(login), min(8, PyBytes_GET_SIZE(login)))
            crowd = self.by_login[login] = Crowd(salt, backend, user, database)
        return crowd

    cdef int joins(self, Writer who, bytes login, str backend, str user, str database) except -1:
        """The session has logged in, for the first time or as another."""
        cdef int w
        if not who.serial:
            self.serials += 1
            who.serial = self.serials
        who.login = login
        who.crowd = self.crowd_of(login, backend, user, database)
        who.slot = NO_SLOT
        for w in range(WINDOWS):
            who.round[w] = who.turn[w] = 0
        return 0

    cdef inline int32_t slot_of(self, Writer who, uint64_t number, int dialect) noexcept:
        """Where the shape is counted, NO_SLOT: nowhere yet."""
        cdef uint64_t key = stir_one(who.crowd.salt + <uint64_t>dialect, number)
        if not self.holds(who.slot, key):
            who.slot = self.look_up(key)
            if who.slot == NO_SLOT:
                who.slot = self.admit(key)
                if who.slot == NO_SLOT:
                    return NO_SLOT
                self.seen[who.slot].dialect = dialect
            who.recent[who.slot & (MAX_RECENT - 1)] = who.slot
        return who.slot

    cdef int count(self, Writer who, int32_t slot, int fit, double now) noexcept:
        """One write that was received now."""
        cdef Seen* e = &self.seen[slot]
        cdef int w
        cdef uint64_t mine, back
        cdef double wait
        cdef int64_t minute = <int64_t>(now / 60)
        e.count += 1
        self.sink(slot)
        if not e.first:
            e.first = now
        e.last = now
        e.fit[fit] += 1
        if minute != e.minute:
            e.last_minute = e.this_minute if minute == e.minute + 1 else 0
            e.this_minute = 0
            e.minute = minute
        e.this_minute += 1
        back = (<uint64_t>who.serial * STIR) >> 55
        e.connections[back >> 6] |= <uint64_t>1 << (back & 63)
        if fit != FIT_YES:
            return 0
        for w in range(WINDOWS):
            mine = who.crowd.enter(who, w, now)
            wait = who.crowd.opened[w][mine & (RING - 1)] + WATCHED[w] - now
            if wait > 0:
                e.waited[w] += min(wait, WATCHED[w])
            if mine > e.newest[w]:
                e.rounds[w] = 1 if mine - e.newest[w] >= RING else (e.rounds[w] << (mine - e.newest[w])) | 1
                e.newest[w] = mine
                e.operations[w] += 1
            else:
                back = e.newest[w] - mine
                if back >= RING or not (e.rounds[w] >> back) & 1:
                    e.operations[w] += 1
                    if back < RING:
                        e.rounds[w] |= <uint64_t>1 << back
        who.ahead = True
        return 0

    cdef inline int went_together(self, int32_t slot, uint64_t key, int writes) noexcept:
        if self.holds(slot, key):
            self.seen[slot].batched += writes
        return 0

    cdef inline int went_alone(self, int32_t slot, uint64_t key, int writes, int reason) noexcept:
        if self.holds(slot, key):
            self.seen[slot].alone[reason] += writes
        return 0

    cdef inline bint holds(self, int32_t slot, uint64_t key) noexcept:
        """Whether what was counted there still is."""
        return slot != NO_SLOT and slot < self.used and self.seen[slot].key == key

    cdef int describe(self, Writer who, int32_t slot, const uint8_t* p, Scan* s, Source source) except -1:
        """A shape's first write in the table: what it looks like, and where it comes from."""
        cdef Seen* e = &self.seen[slot]
        self.texts[slot] = shown_text(p, s, e.dialect)
        self.fingerprints[slot] = rule_fingerprint(<const char*>p, s, e.dialect)
        self.crowds[slot] = who.crowd
        self.sources[slot] = source
        self.applications[slot] = who.application
        self.shapes[slot] = self.reasons[slot] = None
        e.qtype = s.qtype
        e.flags = s.flags
        return 0

    cdef inline int note_source(self, int32_t slot, Source source) except -1:
        """The place that a hint names, where others of its shape named none."""
        if (<Source>self.sources[slot]).nowhere():
            self.sources[slot] = source
        return 0

    # --- what is found out of them ------------------------------------------------------------------

    cdef inline bint unsettled(self, int32_t slot, uint64_t epoch, double now) noexcept:
        """Whether the catalogue is to be asked about its table, for the first time or again."""
        cdef Seen* e = &self.seen[slot]
        return e.known == FD_TEXT or (e.known > FD_NEVER and (e.epoch != epoch or now - e.looked > LOOKED_SECONDS))

    cdef int plan(self, uint64_t epoch, double now) except -1:
        """Chooses the shapes that are to be found out about at their next write.

        Those first whose text was not read yet, of these and of the others those that would save most. Who is chosen
        already, or does not write, keeps nobody from it.
        """
        cdef int32_t[8] chosen
        cdef uint64_t[8] urgent
        cdef uint64_t urgency
        cdef int n = 0
        cdef int k
        cdef int32_t slot
        for slot in range(self.used):
            if self.seen[slot].wanted or now - self.seen[slot].last > PRESENT_SECONDS:
                continue
            if self.seen[slot].known != FD_NOTHING and not self.unsettled(slot, epoch, now):
                continue
            if not self.saved(slot, WINDOWS - 1):
                continue
            urgency = self.saved(slot, 1) + (UNREAD_FIRST if self.seen[slot].known == FD_NOTHING else 0)
            if n == MAX_WANTED and urgency <= urgent[n - 1]:
                continue
            k = n if n < MAX_WANTED else n - 1
            while k and urgency > urgent[k - 1]:
                chosen[k] = chosen[k - 1]
                urgent[k] = urgent[k - 1]
                k -= 1
            chosen[k] = slot
            urgent[k] = urgency
            n = min(n + 1, MAX_WANTED)
        for k in range(n):
            self.seen[chosen[k]].wanted = True
        return 0

    cdef int find(self, int32_t slot, int finding, Shape shape, why) except -1:
        """What is known of its text from now on."""
        self.seen[slot].known = finding
        self.shapes[slot] = shape
        self.reasons[slot] = why
        return 0

    cdef int find_table(self, int32_t slot, bint is_open, bint merges, why, uint64_t epoch, double now) except -1:
        """What is known of its table from now on."""
        cdef Seen* e = &self.seen[slot]
        e.known = FD_OPEN if is_open else FD_REFUSED
        e.merges = merges and (<Shape>self.shapes[slot]).multi_row
        e.epoch = epoch
        e.looked = now
        self.reasons[slot] = why
        return 0

    # --- what is shown ----------------------------------------------------------------------------

    cdef uint64_t saved(self, int32_t slot, int w) noexcept:
        cdef Seen* e = &self.seen[slot]
        return e.fit[<int>FIT_YES] - e.operations[w] if e.fit[<int>FIT_YES] > e.operations[w] else 0

    cdef double connections(self, int32_t slot) noexcept:
        """How many wrote it, by linear counting."""
        cdef int k
        cdef int ones = 0
        for k in range(CONNECTION_BITS // 64):
            ones += tq_popcount64(self.seen[slot].connections[k])
        if ones >= CONNECTION_BITS - 1:
            ones = CONNECTION_BITS - 1
        return -CONNECTION_BITS * log1p(-ones / <double>CONNECTION_BITS)

    def ranking(self, str protocol=None, str user=None):
        """Slots in use, those first whose writes a window of 10 ms would have made fewest operations of.

        With ``protocol``, those alone that clients of it have written who logged in as ``user``.
        """
        cdef int32_t slot
        cdef list found = [
            (self.saved(slot, 1), self.seen[slot].count, slot) for slot in range(self.used)
            if protocol is None or (
                self.texts[slot] is not None and DIALECT_NAMES[self.seen[slot].dialect] == protocol
                and (<Crowd>self.crowds[slot]).user == user)]
        found.sort(reverse=True)
        return [slot for _, _, slot in found]

    def entry(self, int slot, double now):
        """What is known of one shape, as a dict of plain values."""
        cdef Seen* e
        cdef Source source
        cdef Crowd crowd
        cdef Shape shape
        cdef int k, w
        cdef double since
        cdef int64_t minute = <int64_t>(now / 60)
        if slot >= self.used or self.texts[slot] is None:
            return None
        e = &self.seen[slot]
        source = <Source>self.sources[slot]
        crowd = <Crowd>self.crowds[slot]
        shape = <Shape>self.shapes[slot]
        recent = e.this_minute + e.last_minute if minute == e.minute else e.this_minute if minute == e.minute + 1 else 0
        since = min(now - e.first, now - 60 * (minute - 1))
        return {
            "id": "%016x" % e.key,
            "fingerprint": self.fingerprints[slot],
            "protocol": DIALECT_NAMES[e.dialect],
            "statement": (<bytes>self.texts[slot]).decode("utf-8", "replace"),
            "verb": QUERY_TYPES[e.qtype],
            "backend": crowd.backend,
            "user": crowd.user,
            "database": crowd.database,
            "application": (<bytes>self.applications[slot]).decode("utf-8", "replace"),
            "file": source.file.decode("utf-8", "replace"),
            "line": source.line.decode("utf-8", "replace"),
            "table": None if shape is None or shape.table is None else shape.table,
            "known": KNOWN_NAMES[e.known],
            "merges": bool(e.merges if e.known == FD_OPEN else shape is not None and shape.multi_row),
            "why": self.reasons[slot],
            "form": [name for bit, name in FORMS if e.flags & bit],
            "seconds": now - e.first,
            "idle_seconds": now - e.last,
            "writes": e.count - e.inherited,
            "writes_per_second": recent / max(since, 1.0),
            "connections": max(1, round(self.connections(slot))),
            "in_transaction": e.fit[<int>FIT_TRANSACTION],
            "unlike": e.fit[<int>FIT_SESSION],
            "batched": e.batched,
            "alone": {REASONS[k]: e.alone[k] for k in range(R_COUNT) if e.alone[k]},
            "windows": [{
                "ms": WATCHED_MS[w],
                "operations": e.operations[w],
                "saved": self.saved(slot, w),
                "extra_latency_ms": 1000 * e.waited[w] / e.fit[<int>FIT_YES] if e.fit[<int>FIT_YES] else 0.0,
            } for w in range(WINDOWS)],
        }


DIALECT_NAMES = ("postgres", "mariadb")
# what of a statement's form keeps it alone whatever its table is
FORMS = ((F_MULTI, "several"), (F_EXEC_COMMENT, "executable comment"), (F_LAST_ID, "last id"), (F_CURRVAL, "currval"),
         (F_DIAGNOSTICS, "diagnostics"), (F_TEMP, "temporary"), (F_SETLIKE | F_TAINT, "session"))
KNOWN_NAMES = ("not yet", "text", "never", "open", "refused")
