"""MariaDB's updates by key: the same writes direct, one by one, and through the proxy, all sessions at once."""

import itertools
import threading
from dataclasses import dataclass

from tests.crowd import together
from tests.raw import RawMariaDB

HINT = "/* max_wait_ms:250 */ "
SESSIONS = 6
ROWS = "(id) SELECT seq FROM seq_1_to_20"
INT_TABLE = "id int PRIMARY KEY, a int DEFAULT 0, b int DEFAULT 0, s varchar(20) DEFAULT ''"
ADD = "UPDATE {t} SET a = a + 1 WHERE id = {k}"
KEYS = tuple(map(str, range(1, SESSIONS + 1)))
OK_PACKET = 0
DEADLOCK = b"\xff\xbd\x04"

_names = itertools.count(1)


@dataclass
class Seen:
    """What every session was answered, round by round, and what the table and its companions hold in the end."""

    answers: list
    tables: list
    keys: int = 0           # statements for many keys
    pipelines: int = 0

    def content(self):
        return self.answers, self.tables


class Keyed:
    """Databases for the two sides."""

    def __init__(self, mariadb, proxy):
        self.mariadb = mariadb
        self.proxy = proxy
        self.admin = mariadb.connect()
        self.cursor = self.admin.cursor()
        for side in "ab":
            self.do(f"CREATE DATABASE keyed_{side}")

    def close(self) -> None:
        for side in "ab":
            self.do(f"DROP DATABASE keyed_{side}")
        self.admin.close()

    def do(self, sql: str) -> list[tuple]:
        self.cursor.execute(sql)
        return list(self.cursor.fetchall()) if self.cursor.description else []

    def sessions(self, side: str, count: int, port: int | None = None, **options) -> list[RawMariaDB]:
        """``port``: of another proxy."""
        port = None if side == "a" else port or self.proxy.mariadb_port
        return [RawMariaDB(self.mariadb.connect(port, **{"database": f"keyed_{side}", "charset": "utf8mb4", **options}))
                for _ in range(count)]

    def play(self, columns: str, rows: str, writes: list, *, setup=(), before=(), behind=(), rounds: int = 2,
             more: str = "", proxy=None, deadlocks: int = 0, **options) -> tuple[Seen, Seen]:
        """``writes``: each session's, a text or ``(text, parameters)``; ``{t}`` is the table's name.

        ``more``: what else is compared, a query. ``before``, ``behind``: what each session sends once, and after each
        write. ``deadlocks``: how often a write is tried again that meets one.
        """
        table = f"keyed{next(_names)}"
        proxy = proxy or self.proxy
        found = []
        for side in "ab":
            self.do(f"USE keyed_{side}")
            for sql in (f"CREATE TABLE {table} ({columns}) ENGINE=InnoDB",
                        *([f"INSERT INTO {table} {rows}"] if rows else ()), *(s.replace("{t}", table) for s in setup)):
                self.do(sql)
            sessions = self.sessions(side, len(writes), proxy.mariadb_port, **options)
            for session in sessions:
                for sql in before:
                    session.query(sql)
            step = threading.Barrier(len(sessions), timeout=60)

            def say(i: int, sessions=sessions) -> list[bytes]:
                write = writes[i]
                sql = HINT + (write if isinstance(write, str) else write[0]).replace("{t}", table)
                for _ in range(1 + deadlocks):
                    answer = sessions[i].query(sql) if isinstance(write, str) else sessions[i].execute(sql, write[1])
                    if not answer.startswith(DEADLOCK, 4):
                        break
                told = [answer]
                return told + [sessions[i].query(sql.replace("{t}", table)) for sql in behind]

            def work(i: int, step=step, say=say) -> list[list[bytes]]:
                return [(step.wait(), say(i))[1] for _ in range(rounds)]

            counted = proxy.stats()["methods"]
            if side == "a":
                told = [[say(i) for i in range(len(sessions))] for _ in range(rounds)]
                answers = [list(one) for one in zip(*told, strict=True)]
            else:
                answers = together(len(sessions), work)
            now = proxy.stats()["methods"]
            for session in sessions:
                session.connection.close()
            answers = [[[packet.replace(f"keyed_{side}".encode(), b"keyed_x") for packet in part] for part in one]
                       for one in answers]
            tables = [self.do(f"SELECT * FROM {table} ORDER BY 1")]
            if more:
                tables.append(self.do(more.replace("{t}", table)))
            found.append(Seen(answers, tables, now["keys"] - counted["keys"], now["pipeline"] - counted["pipeline"]))
        return found[0], found[1]

    def same(self, columns: str, rows: str, writes: list, merged: bool | None, **options) -> tuple[Seen, Seen]:
        """``merged``: whether the writes must go, or must not go, as statements for many keys; None: as may be."""
        direct, proxied = self.play(columns, rows, writes, **options)
        for i, (a, b) in enumerate(zip(direct.answers, proxied.answers, strict=True)):
            assert b == a, writes[i]
        assert proxied.tables == direct.tables, writes
        assert merged is None or bool(proxied.keys) == merged, (writes[0], proxied.keys, proxied.pipelines)
        return direct, proxied


def texts(write: str = ADD, keys=KEYS) -> list[str]:
    return [write.replace("{k}", key) for key in keys]


def bound(keys, write: str = ADD) -> list[tuple]:
    return [(write.replace("{k}", "?"), (key,)) for key in keys]
