"""Clients that show every byte of an answer."""

import socket
import struct

from tests.wire import my, pg, pg_bind, pg_parse, pg_query, pg_startup


class RawPostgres:
    """A session over trust authentication; ``query`` returns the answer's bytes up to ReadyForQuery."""

    def __init__(self, port: int, database: str = "postgres", user: str = "postgres",
                 protocol: tuple[int, int] = (3, 0), **params: str):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.buffer = b""
        self.names: dict[str, int] = {}
        self.prepared: set[str] = set()
        self.sock.sendall(pg_startup(protocol, user=user, database=database, **params))
        self.login = self.answer()

    def message(self) -> bytes:
        while len(self.buffer) < 5 or len(self.buffer) < 1 + struct.unpack("!I", self.buffer[1:5])[0]:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("closed")
            self.buffer += data
        size = 1 + struct.unpack("!I", self.buffer[1:5])[0]
        message, self.buffer = self.buffer[:size], self.buffer[size:]
        return message

    def answer(self) -> bytes:
        out = b""
        while True:
            message = self.message()
            out += message
            if message[:1] == b"Z":
                return out

    def send(self, kind: bytes, body: bytes) -> None:
        self.sock.sendall(pg(kind, body))

    def say(self, data: bytes) -> bytes:
        """Sends messages as they are; their answer, up to a ReadyForQuery."""
        self.sock.sendall(data)
        return self.answer()

    def query(self, sql: str | bytes) -> bytes:
        self.sock.sendall(pg_query(sql))
        return self.answer()

    def execute(self, sql: str, params: tuple, named: bool = False, binary: bool = False) -> bytes:
        """Parse, Bind, Describe, Execute, Sync; ``named``: prepared once by its text. Parameters in text format."""
        out = b""
        name = b"s%d" % self.names.setdefault(sql, len(self.names)) if named else b""
        parse = pg_parse(name, sql.encode())
        unit = (pg_bind(b"", name, *map(pg_text, params), results=b"\0\1\0\1" if binary else b"\0\1\0\0")
                + pg(b"D", b"P\0") + pg(b"E", b"\0" * 5) + pg(b"S"))
        if not named:
            unit = parse + unit
        elif sql not in self.prepared:
            self.sock.sendall(parse + pg(b"S"))
            out = self.answer()
            if out[:1] == b"E":
                return out
            self.prepared.add(sql)
        self.sock.sendall(unit)
        return out + self.answer()

    def close(self) -> None:
        self.sock.close()


def pg_text(value) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    return str(value).encode()


class RawMariaDB:
    """A session logged in by PyMySQL; ``query`` returns the answer's packets as they came."""

    def __init__(self, connection, deprecate_eof: bool = False):
        self.connection = connection
        self.deprecate_eof = deprecate_eof
        self.sock = connection._sock
        self.buffer = b""
        self.statements: dict[str, list] = {}       # text -> [id, number of parameters, types told]

    def packet(self) -> bytes:
        while len(self.buffer) < 4 or len(self.buffer) < 4 + int.from_bytes(self.buffer[:3], "little"):
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("closed")
            self.buffer += data
        size = 4 + int.from_bytes(self.buffer[:3], "little")
        packet, self.buffer = self.buffer[:size], self.buffer[size:]
        return packet

    def query(self, sql: str | bytes) -> bytes:
        return self.command(b"\x03" + (sql if isinstance(sql, bytes) else sql.encode()))

    def prepare(self, sql: str, said: list[bytes] | None = None) -> bytes:
        """COM_STMT_PREPARE; ``said``: that command and others behind it, sent in one. Returns the last answer."""
        said = said or [b"\x16" + sql.encode()]
        self.sock.sendall(b"".join(my(0, command) for command in said))
        out = self.packet()
        if out[4] == 0xFF:
            return out
        number, columns, count = struct.unpack("<IHH", out[5:13])
        for part in (count, columns):
            for _ in range(part + (part > 0 and not self.deprecate_eof)):
                self.packet()
        self.statements[sql] = [number, count, None]
        for _ in said[1:]:
            out = self.answer()
        return out

    def execute(self, sql: str, params: tuple) -> bytes:
        """COM_STMT_EXECUTE of a statement prepared once by its text; types go only when they have changed."""
        if sql not in self.statements:
            out = self.prepare(sql)
            if out[4] == 0xFF:
                return out
        statement = self.statements[sql]
        bitmap, types, values = my_parameters(params)
        head = b"\x17" + struct.pack("<IBI", statement[0], 0, 1)
        if params:
            told = statement[2] == types
            head += bitmap + (b"\0" if told else b"\1" + types)
            statement[2] = types
        return self.command(head + values)

    def command(self, text: bytes) -> bytes:
        self.sock.sendall(my(0, text))
        return self.answer()

    def answer(self) -> bytes:
        out = packet = self.packet()
        if packet[4] in (0, 0xFF):
            return out
        # column definitions and rows, each ended by an EOF packet; with DEPRECATE_EOF one OK packet behind all
        for _ in range(1 if self.deprecate_eof else 2):
            while True:
                packet = self.packet()
                out += packet
                if packet[4] == 0xFE and (self.deprecate_eof or len(packet) < 13):
                    break
                if packet[4] == 0xFF:
                    return out
        return out


def my_parameters(values) -> tuple[bytes, bytes, bytes]:
    """What an execute packet says of parameters: NULL bitmap, types, values."""
    bitmap = bytearray((len(values) + 7) // 8)
    types = data = b""
    for i, value in enumerate(values):
        if value is None:
            bitmap[i // 8] |= 1 << i % 8
        kind, part = my_binary(value)
        types += bytes((kind, 0))
        data += part
    return bytes(bitmap), types, data


def my_binary(value) -> tuple[int, bytes]:
    """Type code and value of a parameter; everything that is no number goes as a string."""
    if value is None:
        return 253, b""
    if isinstance(value, float):
        return 5, struct.pack("<d", value)
    if isinstance(value, int):
        return (8, struct.pack("<q", value)) if value < 2**63 else (246, bytes((19,)) + str(value).encode())
    data = value if isinstance(value, bytes) else value.encode()
    size = len(data)
    head = bytes((size,)) if size < 251 else b"\xfc" + struct.pack("<H", size) if size < 65536 else (
        b"\xfd" + struct.pack("<I", size)[:3])
    return 252 if isinstance(value, bytes) else 253, head + data
