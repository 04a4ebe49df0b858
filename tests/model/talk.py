"""Client messages of both protocols, and what answers say."""

import struct

from tests.model.mariadb import DEPRECATE_EOF, lenenc, read_lenenc
from tests.model.postgres import message

# --- PostgreSQL ---------------------------------------------------------------------------------------------------

SYNC, FLUSH, COPY_DONE, TERMINATE = message(b"S"), message(b"H"), message(b"c"), message(b"X")
EXECUTE = message(b"E", b"\0" * 5)
FUNCTION_CALL = message(b"F", struct.pack("!IHHH", 1, 0, 0, 0))


def startup(user: str = "u", **params: str) -> bytes:
    body = struct.pack("!I", 196608)
    for name, value in {"user": user, "database": "postgres", **params}.items():
        body += name.encode() + b"\0" + value.encode() + b"\0"
    return struct.pack("!I", len(body) + 5) + body + b"\0"


def query(sql: str) -> bytes:
    return message(b"Q", sql.encode() + b"\0")


def parse(sql: str, name: str = "") -> bytes:
    return message(b"P", name.encode() + b"\0" + sql.encode() + b"\0\0\0")


def bind(params=(), name: str = "", portal: str = "", formats: bytes = b"\0\0", results: bytes = b"\0\0") -> bytes:
    values = b"".join(b"\xff\xff\xff\xff" if v is None else struct.pack("!i", len(str(v).encode())) + str(v).encode()
                      for v in params)
    return message(b"B", portal.encode() + b"\0" + name.encode() + b"\0" + formats
                   + struct.pack("!H", len(params)) + values + results)


def describe(name: str = "", kind: str = "P") -> bytes:
    return message(b"D", kind.encode() + name.encode() + b"\0")


def execute(portal: str = "", limit: int = 0) -> bytes:
    return message(b"E", portal.encode() + b"\0" + struct.pack("!I", limit))


def close(name: str = "", kind: str = "S") -> bytes:
    return message(b"C", kind.encode() + name.encode() + b"\0")


def copy_data(data: str) -> bytes:
    return message(b"d", data.encode())


def copy_fail(why: str = "no more") -> bytes:
    return message(b"f", why.encode() + b"\0")


def run(sql: str, params=(), name: str | None = None, described: bool = True) -> bytes:
    """[Parse] Bind [Describe] Execute; ``name``: of a statement that is prepared already."""
    return ((parse(sql) if name is None else b"") + bind(params, name or "")
            + (describe() if described else b"") + EXECUTE)


def unit(sql: str, params=(), name: str | None = None, described: bool = True) -> bytes:
    return run(sql, params, name, described) + SYNC


def messages(data: bytes) -> list[tuple[bytes, bytes]]:
    """``(kind, body)`` of every whole message."""
    found, at = [], 0
    while len(data) - at >= 5:
        size = 1 + struct.unpack_from("!I", data, at + 1)[0]
        if len(data) - at < size:
            break
        found.append((bytes(data[at:at + 1]), bytes(data[at + 5:at + size])))
        at += size
    return found


def kinds(data: bytes) -> str:
    return "".join(kind.decode() for kind, _ in messages(data))


def sqlstates(data: bytes) -> list[str]:
    return [field[1:].decode() for kind, body in messages(data) if kind == b"E"
            for field in body.split(b"\0") if field[:1] == b"C"]


# --- MariaDB --------------------------------------------------------------------------------------------------------

def packet(payload: bytes, sequence: int = 0) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes((sequence,)) + payload


def handshake(user: str = "root", database: str = "d", deprecate_eof: bool = False) -> bytes:
    capabilities = 0x0008A20C | (DEPRECATE_EOF if deprecate_eof else 0)
    return packet(struct.pack("<IIB", capabilities, 1 << 24, 45) + b"\0" * 23 + user.encode() + b"\0\0"
                  + database.encode() + b"\0mysql_native_password\0", 1)


def com_query(sql: str) -> bytes:
    return packet(b"\x03" + sql.encode())


def com_prepare(sql: str) -> bytes:
    return packet(b"\x16" + sql.encode())


def com_execute(number: int, params=(), types: bool = True) -> bytes:
    """Numbers go as LONGLONG, anything else as a string; ``types`` False: as told before."""
    nulls = bytearray((len(params) + 7) // 8)
    told = values = b""
    for i, value in enumerate(params):
        if value is None:
            nulls[i // 8] |= 1 << i % 8
        told += b"\x08\0" if isinstance(value, int) else b"\xfd\0"
        if value is not None:
            values += struct.pack("<q", value) if isinstance(value, int) else lenenc(value.encode())
    return packet(b"\x17" + struct.pack("<IBI", number, 0, 1)
                  + (bytes(nulls) + (b"\1" + told if types else b"\0") + values if params else b""))


def com_close(number: int) -> bytes:
    return packet(b"\x19" + struct.pack("<I", number))


def com_init_db(name: str) -> bytes:
    return packet(b"\x02" + name.encode())


def com_change_user(user: str, database: str = "d") -> bytes:
    """With the answer to the question for the password, which is none, sent ahead."""
    return packet(b"\x11" + user.encode() + b"\0\0" + database.encode()
                  + b"\0\x2d\0mysql_native_password\0\0") + packet(b"", 2)


COM_RESET, COM_PING, COM_QUIT = packet(b"\x1f"), packet(b"\x0e"), packet(b"\x01")


def packets(data: bytes) -> list[bytes]:
    """The payloads of every whole packet."""
    found, at = [], 0
    while len(data) - at >= 4:
        size = 4 + int.from_bytes(data[at:at + 3], "little")
        if len(data) - at < size:
            break
        found.append(bytes(data[at + 4:at + size]))
        at += size
    return found


def answers(data: bytes, commands: list[int], deprecate_eof: bool = False) -> list[list[bytes]]:
    """The whole answers to ``commands`` (their codes, those without an answer left out), packet by packet."""
    found: list[list[bytes]] = []
    left = packets(data)
    for command in commands:
        size = answer_size(left, command, deprecate_eof)
        if not size:
            break
        found.append(left[:size])
        left = left[size:]
    return found


def answer_size(left: list[bytes], command: int, deprecate_eof: bool) -> int:
    """How many packets the answer in front has, 0 if it is not whole."""
    if not left:
        return 0
    first = left[0]
    if command == 0x11 and first[0] == 0xFE:
        return 1 + answer_size(left[1:], command, deprecate_eof) if len(left) > 1 else 0
    if first[0] == 0xFF:
        return 1
    if first[0] == 0:
        size = 1
        if command == 0x16:
            for count in struct.unpack_from("<HH", first, 5):
                size += count + (count > 0 and not deprecate_eof)
        return size if len(left) >= size else 0
    size = 1 + read_lenenc(first, 0)[0] + (not deprecate_eof)
    while size < len(left):
        size += 1
        if left[size - 1][0] in (0xFE, 0xFF) and len(left[size - 1]) < 9 + 500 * (left[size - 1][0] == 0xFF):
            return size
    return 0


def error_code(answer: list[bytes]) -> int:
    """The code of the error that ends an answer, 0 if none does."""
    return struct.unpack_from("<H", answer[-1], 1)[0] if answer[-1][0] == 0xFF else 0
