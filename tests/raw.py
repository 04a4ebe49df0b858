"""Clients that show every byte of an answer."""

import socket
import struct


class RawPostgres:
    """A session over trust authentication; ``query`` returns the answer's bytes up to ReadyForQuery."""

    def __init__(self, port: int, database: str = "postgres", user: str = "postgres", **params: str):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.buffer = b""
        body = struct.pack("!I", 196608)
        for name, value in {"user": user, "database": database, **params}.items():
            body += name.encode() + b"\0" + value.encode() + b"\0"
        self.sock.sendall(struct.pack("!I", len(body) + 5) + body + b"\0")
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
        self.sock.sendall(kind + struct.pack("!I", len(body) + 4) + body)

    def query(self, sql: str | bytes) -> bytes:
        self.send(b"Q", (sql if isinstance(sql, bytes) else sql.encode()) + b"\0")
        return self.answer()

    def close(self) -> None:
        self.sock.close()


class RawMariaDB:
    """A session logged in by PyMySQL; ``query`` returns the answer's packets as they came."""

    def __init__(self, connection, deprecate_eof: bool = False):
        self.connection = connection
        self.deprecate_eof = deprecate_eof
        self.sock = connection._sock
        self.buffer = b""

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
        text = b"\x03" + (sql if isinstance(sql, bytes) else sql.encode())
        self.sock.sendall(struct.pack("<I", len(text)) + text)
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
