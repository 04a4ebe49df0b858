"""The null backend as a process: what it answers to a SELECT, and a server that is started and stopped."""

import socket
import struct

from tqdb.errors import TqdbError
from tqdb.load._null import NullBackend, my, pg
from tqdb.load.servers import ThrowawayServer, tqdb_command
from tqdb.load.targets import Target

# One row each, in the order of the catalogue questions: a plain table with a sequence, a plain InnoDB table.
_PG_FACTS = ('''{"version": 150000, "messages": "notice", "timeout": 0, "relations": [{"name": "t", "kind": "r",
 "persistence": "p", "security": false, "rules": false, "partition": false, "method": "heap", "system": false,
 "named": true}]}''',)
_MY_FACTS = ("STRICT_TRANS_TABLES", "1", "16777216", "utf8mb4", "NO_CHAIN", "OFF", "", "", "0", "1", None, None)
_MY_DEFINITION = ("t", "CREATE TABLE `t` (`id` bigint(20) NOT NULL AUTO_INCREMENT, PRIMARY KEY (`id`)) ENGINE=InnoDB")
# what a session is like: all others
_PG_SESSION = ((b"SHOW ALL", ("DateStyle", "ISO, MDY", "")),
               (b"pg_postmaster_start_time", ("postgres", "postgres", "2026-01-01 00:00:00+00", "{pg_catalog,public}")))
_MY_SESSION = ("-1", "0", "28800", "STRICT_TRANS_TABLES", "test", "root@localhost", None)
_MY_VARIABLES = ("-1", "SQL_MODE")


def _postgres_rows(values: tuple) -> bytes:
    """RowDescription, DataRow, CommandComplete."""
    count = struct.pack("!H", len(values))
    columns = b"".join(b"c\0" + struct.pack("!IHIhih", 0, 0, 25, -1, -1, 0) for _ in values)
    fields = [None if v is None else v.encode() for v in values]
    row = b"".join(struct.pack("!i", -1) if f is None else struct.pack("!i", len(f)) + f for f in fields)
    return pg(b"T", count + columns) + pg(b"D", count + row) + pg(b"C", b"SELECT 1\0")


def _mariadb_rows(values: tuple) -> bytes:
    """A text result set (MariaDB documentation, "Result Set Packets")."""
    end = b"\xfe\0\0\2\0"
    column = b"\3def" + b"\0" * 3 + b"\1c" + b"\0" + b"\x0c\x2d\0\xff\xff\0\0\xfd\0\0\0\0\0"
    packets = [bytes((len(values),)), *[column] * len(values), end,
               b"".join(b"\xfb" if v is None else bytes((len(v),)) + v.encode() for v in values), end]
    return b"".join(my(i + 1, p) for i, p in enumerate(packets))


def rows(protocol: str, sql: bytes, inserted: int) -> bytes:
    """The answer to a SELECT or SHOW: the catalogue's facts about a plain table, the rows inserted so far, or a 1."""
    session = [values for text, values in _PG_SESSION if text in sql]
    if session:
        return b"".join(map(_postgres_rows, session))
    if b"SYSTEM_VARIABLES" in sql or b"SESSION_STATUS" in sql:
        return _mariadb_rows(_MY_VARIABLES if b"SYSTEM_VARIABLES" in sql else _MY_SESSION)
    facts = b"pg_catalog.pg_class" in sql or b"information_schema" in sql
    values = (_PG_FACTS if protocol == "postgres" else _MY_FACTS) if facts else (
        _MY_DEFINITION if b"SHOW CREATE TABLE" in sql else (str(inserted) if b"count(" in sql else "1",))
    return (_postgres_rows if protocol == "postgres" else _mariadb_rows)(values)


def serve(protocol: str, port: int) -> int:
    """Listens on 127.0.0.1 until the process is ended."""
    with socket.create_server(("127.0.0.1", port), backlog=4096) as listener:
        NullBackend(protocol, listener, lambda sql, inserted: rows(protocol, sql, inserted)).run()
    return 0


class NullServer(ThrowawayServer):
    """A null backend in a process of its own."""

    unprivileged = False

    def __init__(self, protocol: str):
        self.name = f"null-{protocol}"
        self.protocol = protocol
        super().__init__()

    def _launch(self) -> None:
        self._spawn(*tqdb_command(), "bench", "--null-backend", self.protocol, "--port", str(self.port))

    def _answers(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def target(self) -> Target:
        if self.process is None:
            raise TqdbError("the null backend is not started")
        user = "postgres" if self.protocol == "postgres" else "root"
        return Target(self.protocol, "127.0.0.1", self.port, user, database="null", pid=self.process.pid)
