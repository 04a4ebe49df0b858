# MariaDB/MySQL client protocol, https://mariadb.com/kb/en/clientserver-protocol/

cdef enum MyCommand:
    COM_QUIT = 1
    COM_INIT_DB = 2
    COM_QUERY = 3
    COM_FIELD_LIST = 4
    COM_STATISTICS = 9
    COM_PING = 14
    COM_CHANGE_USER = 17
    COM_BINLOG_DUMP = 18
    COM_TABLE_DUMP = 19
    COM_STMT_PREPARE = 22
    COM_STMT_EXECUTE = 23
    COM_STMT_SEND_LONG_DATA = 24
    COM_STMT_CLOSE = 25
    COM_STMT_RESET = 26
    COM_SET_OPTION = 27
    COM_STMT_FETCH = 28
    COM_BINLOG_DUMP_GTID = 30
    COM_RESET_CONNECTION = 31
    COM_STMT_BULK_EXECUTE = 250

cdef enum MyCapability:
    CLIENT_MYSQL = 1                # clear when the server is MariaDB and tells extended capabilities
    CLIENT_CONNECT_WITH_DB = 8
    CLIENT_COMPRESS = 32
    CLIENT_PROTOCOL_41 = 512
    CLIENT_SSL = 2048
    CLIENT_SECURE_CONNECTION = 32768
    CLIENT_MULTI_STATEMENTS = 65536
    CLIENT_PLUGIN_AUTH = 524288
    CLIENT_CONNECT_ATTRS = 1048576
    CLIENT_PLUGIN_AUTH_LENENC = 2097152
    CLIENT_SESSION_TRACK = 8388608
    CLIENT_DEPRECATE_EOF = 16777216
    CLIENT_ZSTD = 67108864
    CLIENT_QUERY_ATTRIBUTES = 134217728
    # extended, the upper 32 bits
    MARIADB_PROGRESS = 1
    MARIADB_COM_MULTI = 2
    MARIADB_CACHE_METADATA = 16

cdef enum:
    OPTION_MULTI_STATEMENTS_ON = 0      # COM_SET_OPTION

cdef enum MyStatus:
    STATUS_IN_TRANS = 1
    STATUS_AUTOCOMMIT = 2
    STATUS_MORE_RESULTS = 8
    STATUS_CURSOR_EXISTS = 64
    STATUS_NO_BACKSLASH_ESCAPES = 512
    STATUS_IN_TRANS_READONLY = 8192
    STATUS_SESSION_STATE_CHANGED = 16384

cdef enum:
    MY_HEADER = 4
    MY_MAX_PACKET = 0xFFFFFF        # a payload of this length goes on in the next packet
    LEAST_ANSWER = 11               # bytes of an OK packet without words; errors and results of rows are longer
    MY_LOOK = 40                    # bytes of a packet's payload that tell all that is asked of it
    MY_MAX_AUTH = 65536
    SSL_REQUEST_BYTES = 32          # of an SSLRequest, and of what a handshake response has in common with it
    EXECUTE_HEAD = 10               # of COM_STMT_EXECUTE: command, statement id, flags, iteration count
    LAST_PREPARED = 0xFFFFFFFF      # statement id: what was prepared last (MariaDB)
    MY_COLLATION_BASE = 1023        # of a collation's number: 1024 is added where blanks at the end count
    MAX_CHARSET_TEXT = 4096         # bytes of a SET that are searched for the names of character sets
    MARK_OK = 0
    MARK_MORE = 1                   # AuthMoreData
    MARK_NEXT_FACTOR = 2            # AuthNextFactor
    MARK_NULL = 0xFB               # of a column in a row of the text protocol
    MARK_INFILE = 0xFB             # of an answer
    MARK_EOF = 0xFE
    MARK_ERR = 0xFF

# authentication plugins whose client answers a challenge, and gives no secret away
MY_CHALLENGES = frozenset((b"mysql_native_password", b"mysql_old_password", b"client_ed25519", b"parsec",
                           b"caching_sha2_password", b"auth_gssapi_client"))
SHA2_FULL = b"\x01\x04"             # caching_sha2_password: the password itself is asked for

# client character sets in which a byte below 0x80 may be the second half of a character: big5, sjis, gbk,
# cp932, gb18030
MY_UNSAFE_COLLATIONS = frozenset((1, 84, 13, 88, 28, 87, 95, 96, 248, 249, 250))
MY_UNSAFE_CHARSETS = (b"sjis", b"cp932", b"gbk", b"big5", b"gb18030")


cdef inline uint32_t my_length(const char* p) noexcept nogil:
    cdef const uint8_t* u = <const uint8_t*>p
    return u[0] | (<uint32_t>u[1] << 8) | (<uint32_t>u[2] << 16)


cdef inline uint32_t le16(const char* p) noexcept nogil:
    cdef const uint8_t* u = <const uint8_t*>p
    return u[0] | (<uint32_t>u[1] << 8)


cdef inline uint32_t le32(const char* p) noexcept nogil:
    return le16(p) | (le16(p + 2) << 16)


cdef Py_ssize_t read_lenenc(const char* p, Py_ssize_t n, uint64_t* value) noexcept nogil:
    """A length-encoded integer at p: its size in bytes, 0 if it is cut off or none."""
    cdef const uint8_t* u = <const uint8_t*>p
    cdef int size, i
    if n < 1:
        return 0
    if u[0] < 0xFB:
        value[0] = u[0]
        return 1
    size = 2 if u[0] == 0xFC else 3 if u[0] == 0xFD else 8 if u[0] == 0xFE else 0
    if size == 0 or n < size + 1:
        return 0
    value[0] = 0
    for i in range(size):
        value[0] |= <uint64_t>u[1 + i] << (8 * i)
    return size + 1


cdef bytes my_attribute(bytes said, bytes name):
    """The value of a connection attribute: ``said`` is their length and pairs of strings with theirs; b"": none."""
    cdef const char* p = PyBytes_AS_STRING(said)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(said)
    cdef Py_ssize_t size
    cdef Py_ssize_t i = 0
    cdef uint64_t length = 0
    cdef bytes key = None
    cdef bytes part
    i = read_lenenc(p, n, &length)
    if i == 0:
        return b""
    n = min(n, i + <Py_ssize_t>min(length, <uint64_t>n))
    while i < n:
        size = read_lenenc(p + i, n - i, &length)
        i += size
        if size == 0 or length > <uint64_t>(n - i):
            return b""
        part = p[i:i + <Py_ssize_t>length]
        i += <Py_ssize_t>length
        if key is None:
            key = part
        elif key == name:
            return part
        else:
            key = None
    return b""


cdef inline int write_lenenc(char* w, uint64_t v) noexcept nogil:
    """Writes v as a length-encoded integer (at most 9 bytes); returns its size."""
    cdef int size, i
    if v < 0xFB:
        w[0] = <char>v
        return 1
    size = 2 if v < 0x10000 else 3 if v < 0x1000000 else 8
    w[0] = <char>(0xFC if size == 2 else 0xFD if size == 3 else 0xFE)
    for i in range(size):
        w[1 + i] = <char>((v >> (8 * i)) & 0xFF)
    return size + 1


cdef inline void put_packet_header(char* w, Py_ssize_t length, int seq) noexcept nogil:
    w[0] = <char>(length & 0xFF)
    w[1] = <char>((length >> 8) & 0xFF)
    w[2] = <char>((length >> 16) & 0xFF)
    w[3] = <char>seq


cdef bytes my_packet(int seq, bytes payload):
    return len(payload).to_bytes(3, "little") + bytes((seq & 255,)) + payload


cdef bytes my_plain_ok(int seq, uint32_t status):
    """The OK packet of a statement that neither changes nor gives anything."""
    return my_packet(seq, b"\0\0\0" + status.to_bytes(2, "little") + b"\0\0")


cdef bytes my_error(int seq, int code, str sqlstate, str message, bint with_state=True):
    """An ERR packet. Before the handshake response there is no SQLSTATE in it (``with_state`` False)."""
    state = b"#" + sqlstate.encode() if with_state else b""
    return my_packet(seq, b"\xff" + code.to_bytes(2, "little") + state + message.encode())


cdef bytes my_command(int command, bytes body):
    return my_packet(0, bytes((command,)) + body)


cdef list my_text_row(const char* p, Py_ssize_t n):
    """A text protocol row ("ProtocolText::ResultsetRow") as a list of bytes or None; None if it is none."""
    cdef list row = []
    cdef Py_ssize_t size
    cdef Py_ssize_t i = 0
    cdef uint64_t length = 0
    while i < n:
        if <uint8_t>p[i] == MARK_NULL:
            row.append(None)
            i += 1
            continue
        size = read_lenenc(p + i, n - i, &length)
        i += size
        if size == 0 or length > <uint64_t>(n - i):
            return None
        row.append(p[i:i + <Py_ssize_t>length])
        i += <Py_ssize_t>length
    return row


cdef bytes MY_QUIT = my_command(COM_QUIT, b"")

# Errors with which the server ends the connection: shutdown, packets that cannot be read, killed, idle for too long
MY_ENDING = frozenset((1053, 1152, 1153, 1156, 1157, 1158, 1159, 1160, 1161, 1927, 4031))

# Errors that any statement of the shape meets: privilege, unknown table, column, database, read-only
MY_TABLE_ERRORS = frozenset((1142, 1143, 1044, 1046, 1049, 1054, 1109, 1146, 1290, 1792, 1136, 1064, 1036))
# Errors that tell of a COMMIT that nothing is kept: it lost against another node's, or was not even tried. Others may
# come from one that the other nodes of a cluster, or a replica that has the log, keep (1180).
MY_NOTHING_KEPT = frozenset((1213, 1047))


cdef int my_retry_cause(int code) noexcept:
    if code == 1213:
        return RC_DEADLOCK
    if code == 1020:
        return RC_SERIALIZATION
    if code == 1205 or code == 1969 or code == 3024 or code == 1317:
        return RC_TIMEOUT
    if code in (1062, 1048, 1216, 1452, 4025, 1022, 1586, 3819):
        return RC_CONSTRAINT
    if code in (1264, 1265, 1292, 1366, 1406, 1364, 1367, 1411):
        return RC_DATA
    return RC_ERROR
