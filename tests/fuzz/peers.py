"""The servers of a fuzzed program: they answer what lies before them as PostgreSQL and MariaDB might.

They need not be right about SQL, only about the protocol: the number and kind of messages that a command is answered
with, transaction states, and what is skipped after an error.
"""

from tqdb._core import scan

from tests.wire import (
    COLUMNS,
    MY_DEFINITION,
    MY_FACTS,
    PG_FACTS,
    my,
    my_error,
    my_ok,
    my_result,
    my_split,
    pg,
    pg_error,
    pg_fields,
    pg_split,
)


class PgPeer:
    """``feed`` bytes from the proxy, ``answer`` the next message among them."""

    def __init__(self):
        self.inbox: list[tuple[bytes, bytes]] = []
        self.rest = b""
        self.status = b"I"
        self.skipping = False
        self.copying = False
        self.statements: dict[bytes, bytes] = {}
        self.portals: dict[bytes, bytes] = {}

    def feed(self, data: bytes) -> None:
        found, self.rest = pg_split(self.rest + data)
        self.inbox += found

    def answer(self, fail: bool = False) -> bytes:
        """What is said to the next message; with ``fail`` an error where one is possible."""
        kind, body = self.inbox.pop(0)
        if self.copying and kind in b"dcfHSX":
            if kind in b"cf":
                self.copying = False
                return self._error() if fail or kind == b"f" else pg(b"C", b"COPY 1\0") + self._ready()
            return b""
        if kind == b"Q":
            return self._query(body.rstrip(b"\0"), fail)
        if kind == b"S":
            self.skipping = False
            return self._ready()
        if self.skipping or kind not in b"PBDECF":
            return b""
        if fail:
            self.skipping = True
            if self.status == b"T":
                self.status = b"E"
            return pg_error(b"22012")
        if kind == b"P":
            name, _, text = body.partition(b"\0")
            self.statements[name] = text.partition(b"\0")[0]
            return pg(b"1")
        if kind == b"B":
            portal, _, rest = body.partition(b"\0")
            self.portals[portal] = self.statements.get(rest.partition(b"\0")[0], b"")
            return pg(b"2")
        if kind == b"D":
            if body[:1] == b"S":
                return pg(b"t", b"\0\0") + pg(b"n")
            return COLUMNS if b"RETURNING" in self.portals.get(body[1:-1], b"") else pg(b"n")
        if kind == b"E":
            return self._run(self.portals.get(body.partition(b"\0")[0], b""))
        return pg(b"3") if kind == b"C" else pg(b"V", b"\xff\xff\xff\xff") + self._ready()

    def _ready(self) -> bytes:
        return pg(b"Z", self.status)

    def _error(self) -> bytes:
        if self.status == b"T":
            self.status = b"E"
        return pg_error(b"23505") + self._ready()

    def _query(self, sql: bytes, fail: bool) -> bytes:
        if sql.lstrip().startswith(b"COPY"):
            if fail:
                return self._error()
            self.copying = True
            return pg(b"G", b"\0\0\0")
        if b"pg_catalog" in sql:
            return self._error() if fail else COLUMNS + PG_FACTS + pg(b"C", b"SELECT 1\0") + self._ready()
        out = b""
        parts = [part for part in sql.split(b";") if part.strip()]
        for i, part in enumerate(parts):
            if fail and i == len(parts) - 1:
                return out + self._error()
            out += self._run(part)
        return (out or pg(b"I")) + self._ready()

    def _run(self, sql: bytes) -> bytes:
        word = sql.strip().partition(b" ")[0].upper()
        if word == b"BEGIN":
            self.status = b"T"
        elif word in (b"COMMIT", b"ROLLBACK"):
            word = b"ROLLBACK" if self.status == b"E" else word
            self.status = b"I"
        found = scan(sql)
        kind, count = found["query_type"], max(found["ntuples"], 1)
        if kind not in ("insert", "update", "delete", "select"):
            return pg(b"C", (word or b"SET") + b"\0")
        rows = pg(b"D", pg_fields(b"1")) * count if kind == "select" or b"RETURNING" in sql else b""
        tag = b"INSERT 0 %d\0" % count if kind == "insert" else b"%s %d\0" % (kind.upper().encode(), count)
        return rows + pg(b"C", tag)


class MyPeer:
    """The same for MariaDB."""

    def __init__(self):
        self.inbox: list[tuple[int, bytes]] = []
        self.rest = b""
        self.status = 2                 # autocommit; 1: in a transaction
        self.prepared = 0

    def feed(self, data: bytes) -> None:
        found, self.rest = my_split(self.rest + data)
        self.inbox += found

    def answer(self, fail: bool = False) -> bytes:
        seq, payload = self.inbox.pop(0)
        command, text = payload[:1], payload[1:]
        seq = (seq + 1) & 255
        if command in b"\x01\x18\x19" or not payload:
            return b""
        if fail:
            return my_error(1213 if self.status & 1 else 1064, seq=seq)
        if command == b"\x03":
            return self._query(text, seq)
        if command == b"\x16":
            self.prepared += 1
            count = text.count(b"?") & 255
            out = b"\0" + self.prepared.to_bytes(4, "little") + b"\0\0" + bytes((count, 0)) + b"\0\0\0"
            columns = [b"\3def\0\0\0\1?\0\x0c\x3f\0\0\0\0\0\xfd\0\0\0\0\0"] * count
            packets = [out, *columns, *([b"\xfe\0\0\2\0"] if count else [])]
            return b"".join(my((seq + i) & 255, p) for i, p in enumerate(packets))
        if command == b"\x09":
            return my(seq, b"Uptime: 1")
        return my_ok(1 if command == b"\x17" else 0, status=self.status, seq=seq)

    def _query(self, sql: bytes, seq: int) -> bytes:
        word = sql.strip().partition(b" ")[0].upper()
        if word == b"BEGIN" or b"autocommit = 0" in sql:
            self.status = 1 if b"autocommit" in sql else 3
        elif word in (b"COMMIT", b"ROLLBACK"):
            self.status &= 2
        elif b"autocommit = 1" in sql:
            self.status = 2
        if b"information_schema" in sql:
            return my_result(*MY_FACTS, status=self.status, seq=seq)
        if sql.startswith(b"SHOW CREATE TABLE"):
            return my_result(*MY_DEFINITION, status=self.status, seq=seq)
        found = scan(sql[sql.index(b" FOR ") + 5:] if sql.startswith(b"SET STATEMENT") and b" FOR " in sql else sql,
                     "mariadb", True)
        if found["query_type"] == "select" or (found["query_type"] == "insert" and b"RETURNING" in sql):
            return my_result(b"1", status=self.status, seq=seq)
        if found["query_type"] == "insert":
            return my_ok(min(max(found["ntuples"], 1), 250), 1, self.status, seq)
        return my_ok(1, 0, self.status, seq)
