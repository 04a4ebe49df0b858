# PostgreSQL frontend/backend protocol 3.0, https://www.postgresql.org/docs/current/protocol-message-formats.html

cdef enum PgMessage:
    # frontend
    FE_BIND = 66            # B
    FE_CLOSE = 67           # C
    FE_DESCRIBE = 68        # D
    FE_EXECUTE = 69         # E
    FE_FUNCTION_CALL = 70   # F
    FE_FLUSH = 72           # H
    FE_PARSE = 80           # P
    FE_STARTUP = 0          # the start-up message has no type
    FE_QUERY = 81           # Q
    FE_SYNC = 83            # S
    FE_TERMINATE = 88       # X
    FE_COPY_DONE = 99       # c
    FE_COPY_DATA = 100      # d
    FE_COPY_FAIL = 102      # f
    FE_PASSWORD = 112       # p
    # backend
    BE_PARSE_COMPLETE = 49  # 1
    BE_BIND_COMPLETE = 50   # 2
    BE_CLOSE_COMPLETE = 51  # 3
    BE_NOTIFICATION = 65    # A
    BE_COMMAND_COMPLETE = 67  # C
    BE_DATA_ROW = 68        # D
    BE_ERROR = 69           # E
    BE_COPY_IN = 71         # G
    BE_COPY_OUT = 72        # H
    BE_EMPTY_QUERY = 73     # I
    BE_KEY_DATA = 75        # K
    BE_NOTICE = 78          # N
    BE_AUTHENTICATION = 82  # R
    BE_PARAMETER_STATUS = 83  # S
    BE_ROW_DESCRIPTION = 84   # T
    BE_COPY_BOTH = 87       # W
    BE_READY = 90           # Z
    BE_COPY_DONE = 99       # c
    BE_COPY_DATA = 100      # d
    BE_NO_DATA = 110        # n
    BE_PORTAL_SUSPENDED = 115  # s
    BE_PARAMETER_DESCRIPTION = 116  # t

cdef enum:
    PROTOCOL_3 = 3
    CODE_CANCEL = 80877102
    CODE_SSL = 80877103
    CODE_GSSENC = 80877104
    MAX_STARTUP_BYTES = 10000       # MAX_STARTUP_PACKET_LENGTH of the server
    MAX_SMALL_BYTES = 10000         # PQ_SMALL_MESSAGE_LIMIT of the server
    MAX_AUTH_BYTES = 65536          # PG_MAX_AUTH_TOKEN_LENGTH of the server
    PG_HEADER = 5

cdef enum PgAuthentication:
    AUTH_CLEARTEXT = 3
    AUTH_MD5 = 5
    AUTH_GSS = 7
    AUTH_GSS_CONTINUE = 8
    AUTH_SSPI = 9
    AUTH_SASL = 10
    AUTH_SASL_CONTINUE = 11
    AUTH_SASL_FINAL = 12

# requests whose answers give no secret away, besides those of SASL, which depend on the mechanism
PG_CHALLENGES = frozenset((AUTH_MD5, AUTH_GSS, AUTH_GSS_CONTINUE, AUTH_SSPI, AUTH_SASL_CONTINUE))
# SASL mechanisms that bind to the TLS connection, and those that do not and keep the secret
PG_BINDING = (b"SCRAM-SHA-256-PLUS",)
PG_SECRETIVE = (b"SCRAM-SHA-256",)

cdef bytes FLUSH = b"H\0\0\0\4"
cdef bytes TERMINATE = b"X\0\0\0\4"
cdef bytes FRONTEND_TYPES = b"BCDEFHPQSXcdfp"
cdef uint8_t[256] IS_FRONTEND
for _i in range(256):
    IS_FRONTEND[_i] = _i in FRONTEND_TYPES

cdef bytes READY_IDLE = b"Z\0\0\0\5I"
cdef bytes READY_OPEN = b"Z\0\0\0\5T"
cdef bytes READY_FAILED = b"Z\0\0\0\5E"
cdef bytes INSERT_ONE = b"C\0\0\0\x0fINSERT 0 1\0"


cdef bytes pg_message(bytes kind, bytes body):
    return kind + (len(body) + 4).to_bytes(4, "big") + body


cdef bytes pg_error(str severity, str sqlstate, str message, str hint=""):
    """An ErrorResponse with severity, SQLSTATE, message and hint."""
    body = b"".join((
        b"S", severity.encode(), b"\0V", severity.encode(), b"\0C", sqlstate.encode(),
        b"\0M", message.encode(), b"\0"))
    if hint:
        body += b"H" + hint.encode() + b"\0"
    return pg_message(b"E", body + b"\0")


cdef bytes pg_query(bytes sql):
    return pg_message(b"Q", sql + b"\0")


cdef bytes pg_run(bytes sql):
    """Parse, Bind and Execute of a statement without parameters."""
    return (pg_message(b"P", b"\0" + sql + b"\0\0\0") + pg_message(b"B", b"\0\0\0\0\0\0\0\0") + EXECUTE)


cdef inline Py_ssize_t open_message(Buffer out, const char* kind) except -1:
    """Begins a message whose length is not known yet; returns where, for ``close_message``."""
    cdef Py_ssize_t start = out.size()
    out.append(kind, 1)
    out.append(b"\0\0\0\0", 4)
    return start


cdef inline int close_message(Buffer out, Py_ssize_t start) except -1:
    tq_put_be32(out.ptr() + start + 1, <uint32_t>(out.size() - start - 1))
    return 0


cdef bytes PARSE_COMPLETE = b"1\0\0\0\4"
cdef bytes BIND_COMPLETE = b"2\0\0\0\4"
cdef bytes NO_DATA = b"n\0\0\0\4"
cdef bytes DESCRIBE = b"D\0\0\0\6P\0"
cdef bytes DESCRIBE_UNNAMED = b"D\0\0\0\6S\0"
cdef bytes EXECUTE = b"E\0\0\0\x09\0\0\0\0\0"
cdef bytes SYNC = b"S\0\0\0\4"
cdef bytes CLOSE_UNNAMED = b"C\0\0\0\6S\0"


cdef bytes pg_around(int flags, bytes tag, bytes ready):
    """What is answered to the BEGIN or COMMIT that ``BlockFlag`` bits tell of."""
    return b"".join((
        PARSE_COMPLETE if flags & BK_PARSE else b"", BIND_COMPLETE if flags & BK_EXTENDED else b"",
        NO_DATA if flags & BK_DESCRIBE else b"", pg_message(b"C", tag + b"\0"), ready if flags & BK_SYNC else b""))


# by ``BlockFlag`` bits: the answers around a write, and the last one's behind a write that has failed
cdef list PG_OPENED = [pg_around(_i, b"START TRANSACTION" if _i & BK_START else b"BEGIN", READY_OPEN)
                       for _i in range(ALL_BLOCK_FLAGS + 1)]
cdef list PG_CLOSED = [pg_around(_i, b"COMMIT", READY_IDLE) for _i in range(ALL_BLOCK_FLAGS + 1)]
cdef list PG_ROLLED_BACK = [pg_around(_i, b"ROLLBACK", READY_IDLE) for _i in range(ALL_BLOCK_FLAGS + 1)]
cdef bytes DISCARD_SEQUENCES = pg_query(b"DISCARD SEQUENCES")


cdef bytes pg_field(const char* body, Py_ssize_t n, char wanted):
    """A field of an ErrorResponse's body, b"" if there is none: ``C`` the SQLSTATE, ``V`` the severity."""
    cdef Py_ssize_t i = 0
    cdef const char* end
    cdef char field
    while i < n and body[i] != 0:
        field = body[i]
        end = <const char*>memchr(body + i + 1, 0, n - i - 1)
        if end == NULL:
            break
        if field == wanted:
            return (body + i + 1)[:end - body - i - 1]
        i = end - body + 1
    return b""


def pg_rows(bytes data):
    """DataRows of a simple query's answer as lists of bytes/None; None if it holds an error, or a row that is none."""
    cdef list rows = []
    cdef list row
    cdef const char* p = PyBytes_AS_STRING(data)
    cdef const char* last = p + PyBytes_GET_SIZE(data)
    cdef const char* at
    cdef const char* end
    cdef int32_t size
    cdef int k
    while last - p >= PG_HEADER:
        end = p + 1 + tq_be32(p + 1)
        if <uint8_t>p[0] == BE_ERROR or end > last:
            return None
        if <uint8_t>p[0] == BE_DATA_ROW and end - p >= PG_HEADER + 2:
            row = []
            at = p + PG_HEADER + 2
            for k in range(tq_be16(p + PG_HEADER)):
                if end - at < 4:
                    return None
                size = <int32_t>tq_be32(at)
                at += 4
                if size > end - at:
                    return None
                row.append(None if size < 0 else at[:size])
                at += max(size, 0)
            rows.append(row)
        p = end
    return rows


cdef int pg_retry_cause(bytes sqlstate) except -1:
    if sqlstate == b"40P01":
        return RC_DEADLOCK
    if sqlstate[:2] == b"40":
        return RC_SERIALIZATION
    if sqlstate[:2] == b"23":
        return RC_CONSTRAINT
    if sqlstate[:2] == b"22":
        return RC_DATA
    if sqlstate == b"57014" or sqlstate == b"55P03":
        return RC_TIMEOUT
    return RC_ERROR


PG_ENDING = (b"FATAL", b"PANIC")        # severities with which the server closes the connection

# Errors that any statement of the shape meets, whatever its values: privilege, missing table, column, schema,
# read-only transaction.
PG_TABLE_ERRORS = frozenset((b"42501", b"42P01", b"42703", b"3F000", b"25006", b"42P10"))


# OIDs of lo_open, lo_close, loread, lowrite and their like, which drivers call by FunctionCall
PG_LARGE_OBJECT_FUNCTIONS = frozenset(
    (715, 764, 765, 767, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170, 3171, 3172))

# client encodings in which a byte below 0x80 may be part of a longer character
PG_UNSAFE_CHARSETS = frozenset(
    (b"SJIS", b"BIG5", b"GBK", b"UHC", b"GB18030", b"JOHAB", b"SHIFT_JIS_2004"))


cdef bytes startup_value(list params, bytes name):
    """The value of a start-up parameter, the last one as for the server; b"" if it is not given."""
    cdef bytes found = b""
    for i in range(0, len(params) - 1, 2):
        if params[i] == name:
            found = params[i + 1]
    return found
