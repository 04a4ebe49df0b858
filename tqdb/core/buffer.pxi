# A growable run of bytes with a read end and a write end.

cdef extern from *:
    """
    static inline uint32_t tq_be32(const char *p) {
        const unsigned char *u = (const unsigned char *)p;
        return ((uint32_t)u[0] << 24) | ((uint32_t)u[1] << 16) | ((uint32_t)u[2] << 8) | u[3];
    }
    static inline uint32_t tq_be16(const char *p) {
        const unsigned char *u = (const unsigned char *)p;
        return ((uint32_t)u[0] << 8) | u[1];
    }
    /* memcmp(a, b, n) == 0 without a call for what is short, as labels are */
    static inline int tq_same(const char *a, const char *b, size_t n) {
        uint64_t a8, b8, y8, z8;
        uint32_t a4, b4, y4, z4;
        if (n > 16) return memcmp(a, b, n) == 0;
        if (n >= 8) {
            memcpy(&a8, a, 8); memcpy(&b8, b, 8);
            memcpy(&y8, a + n - 8, 8); memcpy(&z8, b + n - 8, 8);
            return ((a8 ^ b8) | (y8 ^ z8)) == 0;
        }
        if (n >= 4) {
            memcpy(&a4, a, 4); memcpy(&b4, b, 4);
            memcpy(&y4, a + n - 4, 4); memcpy(&z4, b + n - 4, 4);
            return ((a4 ^ b4) | (y4 ^ z4)) == 0;
        }
        while (n--) if (a[n] != b[n]) return 0;
        return 1;
    }
    static inline int tq_clz64(uint64_t v) { return __builtin_clzll(v); }
    static inline int tq_popcount64(uint64_t v) { return __builtin_popcountll(v); }
    static inline void tq_put_be16(char *p, uint32_t v) {
        p[0] = (char)(v >> 8); p[1] = (char)v;
    }
    static inline void tq_put_be32(char *p, uint32_t v) {
        p[0] = (char)(v >> 24); p[1] = (char)(v >> 16); p[2] = (char)(v >> 8); p[3] = (char)v;
    }
    """
    uint32_t tq_be32(const char* p) nogil
    uint32_t tq_be16(const char* p) nogil
    bint tq_same(const char* a, const char* b, size_t n) nogil
    int tq_clz64(uint64_t v) nogil
    int tq_popcount64(uint64_t v) nogil
    void tq_put_be16(char* p, uint32_t v) nogil
    void tq_put_be32(char* p, uint32_t v) nogil

cdef Py_ssize_t KEEP_BYTES = 16384       # an emptied buffer larger than this gives its memory back


cdef class Buffer:
    """Bytes appended at the end and consumed from the start.

    A pointer from ``ptr()`` is valid until the next ``append``/``reserve``/``consume`` on this buffer.
    An empty buffer holds no more than ``KEEP_BYTES`` of memory, so an idle connection costs little.
    ``consumed`` counts all bytes that ever left by the front: ``position()`` is where the next byte will stand
    in the whole stream, which tells later whether what was appended has been handed over.
    """
    cdef char* data
    cdef Py_ssize_t start
    cdef Py_ssize_t end
    cdef Py_ssize_t cap
    cdef uint64_t consumed

    def __dealloc__(self):
        free(self.data)

    cdef inline Py_ssize_t size(self) noexcept:
        return self.end - self.start

    cdef inline char* ptr(self) noexcept:
        return self.data + self.start

    cdef char* reserve(self, Py_ssize_t n) except NULL:
        """Room for n more bytes; the caller writes them at the returned pointer and adds n to ``end``."""
        cdef Py_ssize_t used = self.end - self.start
        cdef Py_ssize_t cap
        cdef char* data
        if self.end + n > self.cap:
            if self.start > 0 and used + n <= self.cap and self.start >= used:
                memmove(self.data, self.data + self.start, used)
            else:
                cap = self.cap * 2 if self.cap else 256
                if cap < used + n:
                    cap = used + n
                data = <char*>malloc(cap)
                if data == NULL:
                    raise MemoryError()
                if used:
                    memcpy(data, self.data + self.start, used)
                free(self.data)
                self.data = data
                self.cap = cap
            self.start = 0
            self.end = used
        return self.data + self.end

    cdef inline int append(self, const char* p, Py_ssize_t n) except -1:
        if n <= 0:
            return 0
        memcpy(self.reserve(n), p, n)
        self.end += n
        return 0

    cdef inline int append_bytes(self, bytes b) except -1:
        return self.append(PyBytes_AS_STRING(b), PyBytes_GET_SIZE(b))

    cdef inline uint64_t position(self) noexcept:
        return self.consumed + <uint64_t>(self.end - self.start)

    cdef inline void truncate(self, Py_ssize_t size) noexcept:
        """Takes back what was appended past ``size`` bytes."""
        self.end = self.start + size

    cdef inline void consume(self, Py_ssize_t n) noexcept:
        self.start += n
        self.consumed += <uint64_t>n
        if self.start >= self.end:
            self.clear()

    cdef inline void clear(self) noexcept:
        self.start = self.end = 0
        if self.cap > KEEP_BYTES:
            free(self.data)
            self.data = NULL
            self.cap = 0

    cdef bytes take(self):
        cdef bytes b = PyBytes_FromStringAndSize(self.ptr(), self.size()) if self.size() else b""
        self.consumed += <uint64_t>self.size()
        self.clear()
        return b

    def __len__(self):
        return self.size()
