"""Write load on a database: logged-in sockets, messages, and a generator run in a thread."""

import os
import struct
import threading

from tqdb.errors import TqdbError
from tqdb.load._gen import Generator

TABLE = {
    "postgres": "CREATE TABLE IF NOT EXISTS events (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT "
                "now(), kind text NOT NULL, source integer NOT NULL, data text)",
    "mariadb": "CREATE TABLE IF NOT EXISTS events (id bigint AUTO_INCREMENT PRIMARY KEY, at timestamp NOT NULL "
               "DEFAULT current_timestamp(), kind varchar(40) NOT NULL, source integer NOT NULL, data text)",
}
DISTINCT_MESSAGES = 512


def insert_statements(hint: str, count: int = DISTINCT_MESSAGES) -> list[str]:
    """Single-row inserts that differ in their values; ``hint`` is put in front as a comment unless empty."""
    comment = f"/* {hint} */ " if hint else ""
    return [f"{comment}INSERT INTO events (kind, source, data) VALUES "
            f"('click', {n}, '{{\"page\": {n * 7 % 1000}, \"ms\": {n * 13 % 97}}}')" for n in range(count)]


def messages(protocol: str, statements: list[str]) -> list[bytes]:
    """The statements as Query messages or COM_QUERY packets."""
    if protocol == "postgres":
        return [b"Q" + struct.pack("!I", len(s) + 5) + s.encode() + b"\0" for s in statements]
    return [struct.pack("<I", len(s) + 1) + b"\x03" + s.encode() for s in statements]


class Writers:
    """``count`` connections to ``port``; ``start`` lets them write for some seconds in a thread of their own."""

    def __init__(self, protocol: str, server, port: int, count: int):
        self.protocol = protocol
        self.connections = []
        self.fds: list[int] = []
        self.generator: Generator | None = None
        self.thread: threading.Thread | None = None
        for _ in range(count):
            if protocol == "postgres":
                import psycopg
                connection = psycopg.connect(server.dsn(port), autocommit=True)
                fd = connection.pgconn.socket
            else:
                connection = server.connect(port, database="load")
                fd = connection._sock.fileno()
            self.connections.append(connection)
            self.fds.append(os.dup(fd))

    def start(self, statements: list[str], seconds: float) -> Generator:
        self.generator = Generator(self.fds, messages(self.protocol, statements), self.protocol)
        self.thread = threading.Thread(target=self.generator.run, args=(seconds,), daemon=True)
        self.thread.start()
        return self.generator

    def wait(self) -> Generator:
        """Waits for the run's end; TqdbError if a connection broke or a write failed."""
        self.thread.join()
        if self.generator.dead or self.generator.errors:
            raise TqdbError(f"{self.protocol}: {self.generator.dead} connections broke and "
                            f"{self.generator.errors} writes failed under load")
        return self.generator

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        for connection in self.connections:
            connection.close()


def prepare_table(protocol: str, server) -> None:
    """The events table, empty."""
    if protocol == "postgres":
        import psycopg
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(TABLE[protocol])
            connection.execute("TRUNCATE events")
        return
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE IF NOT EXISTS `load`")
        cursor.execute("USE `load`")
        cursor.execute(TABLE[protocol])
        cursor.execute("TRUNCATE TABLE events")


def count_rows(protocol: str, server) -> int:
    if protocol == "postgres":
        import psycopg
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            return connection.execute("SELECT count(*) FROM events").fetchone()[0]
    with server.connect(database="load") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM events")
        return cursor.fetchone()[0]
