"""Messages of both protocols as bytes, and bytes as messages: what every test that shows bytes writes them with."""

import struct


def pg(kind: bytes, body: bytes = b"") -> bytes:
    """A message of PostgreSQL's: type, length, body."""
    return kind + struct.pack("!I", len(body) + 4) + body


def my(seq: int, payload: bytes) -> bytes:
    """A packet of MariaDB's: length, number, payload."""
    return len(payload).to_bytes(3, "little") + bytes((seq,)) + payload


def pg_query(sql: str | bytes) -> bytes:
    return pg(b"Q", (sql if isinstance(sql, bytes) else sql.encode()) + b"\0")


def my_query(sql: str | bytes) -> bytes:
    return my(0, b"\x03" + (sql if isinstance(sql, bytes) else sql.encode()))


def pg_startup(protocol: tuple[int, int] = (3, 0), **params: str) -> bytes:
    body = struct.pack("!HH", *protocol) + b"".join(
        name.encode() + b"\0" + value.encode() + b"\0" for name, value in params.items()) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def pg_cancel(key: bytes) -> bytes:
    """A CancelRequest; ``key``: the body of a BackendKeyData."""
    return struct.pack("!II", len(key) + 8, 80877102) + key


def pg_parse(name: bytes, sql: bytes) -> bytes:
    return pg(b"P", name + b"\0" + sql + b"\0\0\0")


def pg_bind(portal: bytes, name: bytes, *values: bytes | None, results: bytes = b"\0\0") -> bytes:
    """A Bind with parameters in text format; None is NULL. ``results``: the number and codes of result formats."""
    return pg(b"B", portal + b"\0" + name + b"\0\0\0" + pg_fields(*values) + results)


def pg_fields(*values: bytes | None) -> bytes:
    """Their number, then each with its length, as in Bind and DataRow."""
    return struct.pack("!H", len(values)) + b"".join(
        b"\xff\xff\xff\xff" if v is None else struct.pack("!i", len(v)) + v for v in values)


def pg_split(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """``([(kind, body), …], the rest, which is no whole message)``; ValueError for a length that cannot be."""
    found, at = [], 0
    while len(data) - at >= 5:
        size = struct.unpack_from("!i", data, at + 1)[0]
        if size < 4:
            raise ValueError(f"a length of {size} at byte {at}")
        if len(data) - at < size + 1:
            break
        found.append((data[at:at + 1], data[at + 5:at + 1 + size]))
        at += size + 1
    return found, data[at:]


def my_split(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """``([(number, payload), …], the rest, which is no whole packet)``."""
    found, at = [], 0
    while len(data) - at >= 4:
        size = int.from_bytes(data[at:at + 3], "little")
        if len(data) - at < size + 4:
            break
        found.append((data[at + 3], data[at + 4:at + 4 + size]))
        at += size + 4
    return found, data[at:]


# --- what the sans-IO tests begin with ------------------------------------------------------------------------------

READY = pg(b"Z", b"I")
STARTUP = pg_startup(user="postgres", database="postgres")
PG_LOGIN = pg(b"R", b"\0\0\0\0") + pg(b"S", b"client_encoding\0UTF8\0") + pg(b"K", b"\0\0\0\1secr") + READY
COLUMNS = pg(b"T", b"\0\1a\0" + b"\0" * 18)

# the catalogue's answer for a plain table
PG_FACTS = pg(b"D", pg_fields(b'''{"version": 150000, "messages": "notice", "timeout": 0, "relations": [{"name": "t",
 "kind": "r", "persistence": "p", "security": false, "rules": false, "partition": false, "method": "heap",
 "system": false, "named": true}]}'''))



def pg_alike(like: bytes = b"u", idle: float = 0) -> bytes:
    """What a session is like, as its server says; READY is to follow."""
    settings = ((b"DateStyle", b"ISO", b""), (b"idle_session_timeout", b"%dms" % (idle * 1000), b""))
    own = (like, like, b"2026-01-01", b"{pg_catalog,public}")
    return b"".join(COLUMNS + b"".join(pg(b"D", pg_fields(*row)) for row in rows) + pg(b"C", b"SELECT %d\0" % len(rows))
                    for rows in (settings, [own]))


MY_VERSION = b"5.5.5-10.11.0-MariaDB"
GREETING = (b"\x0a" + MY_VERSION + b"\0" + b"\1\0\0\0" + b"saltsalt\0" + b"\xfe\xff" + b"\x2d\2\0" + b"\xff\x81"
            + b"\x15" + b"\0" * 6 + b"\x1d\0\0\0" + b"saltsaltsalt\0" + b"mysql_native_password\0")
HANDSHAKE = struct.pack("<IIB", 0x0008A20D & ~1, 1 << 24, 45) + b"\0" * 19 + b"\1\0\0\0" + b"root\0\0d\0" \
    + b"mysql_native_password\0"
MY_OK = my(1, b"\0\0\0\2\0\0\0")

# the catalogue's answers for a plain InnoDB table
MY_FACTS = (b"STRICT_TRANS_TABLES", b"1", b"16777216", b"utf8mb4", b"NO_CHAIN", b"OFF", b"", b"", b"0", b"1", None,
            None)
MY_DEFINITION = (b"t", b"CREATE TABLE `t` (`id` int(11) NOT NULL AUTO_INCREMENT, `a` int(11), PRIMARY KEY (`id`)) "
                       b"ENGINE=InnoDB")


def my_result(*values: bytes | None, status: int = 2, seq: int = 1) -> bytes:
    """A text result of one row, with EOF packets."""
    return my_rows([values], status, seq)


def my_alike(like: bytes) -> bytes:
    """What a session is like, as its server says."""
    return my_rows([(None, b"0", b"0", like, b"d", b"u@%", None)])


def my_rows(rows: list[tuple[bytes | None, ...]], status: int = 2, seq: int = 1) -> bytes:
    """A text result, with EOF packets."""
    end = b"\xfe\0\0" + struct.pack("<H", status)
    column = b"\3def\0\0\0\1c\0\x0c\x2d\0\xff\xff\0\0\xfd\0\0\0\0\0"
    texts = [b"".join(b"\xfb" if v is None else bytes((len(v),)) + v for v in row) for row in rows]
    packets = [bytes((len(rows[0]),)), *[column] * len(rows[0]), end, *texts, end]
    return b"".join(my((seq + i) & 255, p) for i, p in enumerate(packets))


def my_ok(affected: int = 0, insert_id: int = 0, status: int = 2, seq: int = 1) -> bytes:
    """An OK packet; both numbers below 251."""
    return my(seq, b"\0" + bytes((affected, insert_id)) + struct.pack("<HH", status, 0))


def my_error(code: int, text: bytes = b"no", seq: int = 1) -> bytes:
    return my(seq, b"\xff" + struct.pack("<H", code) + b"#HY000" + text)


def pg_error(code: bytes, severity: bytes = b"ERROR") -> bytes:
    return pg(b"E", b"S" + severity + b"\0V" + severity + b"\0C" + code + b"\0Mno\0\0")
