"""MariaDB's transactions of one write that arrive whole: each answer is byte for byte the direct one."""

import threading

import pytest
from pymysql.constants import CLIENT
from tqdb._core import MySession

from tests import wire
from tests.crowd import together
from tests.raw import RawMariaDB
from tests.sansio import Hooks
from tests.test_blocks import HINT, SESSIONS, WRITE
from tests.test_sans_io import logged_in
from tests.wait import wait_for

SESSION_TRACK, DEPRECATE_EOF = 1 << 23, 1 << 24      # PyMySQL has no names for them
MORE_RESULTS = 8

MY_TABLES = (
    "CREATE TABLE parent (id int PRIMARY KEY)", "INSERT INTO parent VALUES (1)",
    "CREATE TABLE t (id int PRIMARY KEY, a int CHECK (a < 1000), b varchar(20)) ENGINE=InnoDB",
    "CREATE TABLE ai (id int AUTO_INCREMENT PRIMARY KEY, a int) ENGINE=InnoDB",
    "CREATE TABLE g (id int PRIMARY KEY, a int, twice int) ENGINE=InnoDB",
    "CREATE TRIGGER doubles BEFORE INSERT ON g FOR EACH ROW SET NEW.twice = NEW.a * 2",
)


def my_writes(n: int) -> list[str]:
    return [
        f"INSERT INTO t VALUES ({n + 1}, 1, 'one')",
        f"INSERT INTO t VALUES ({n + 2}, 2, 'two; COMMIT') RETURNING *",
        f"INSERT INTO t VALUES ({n + 3}, 3, 'x'), ({n + 4}, 4, 'y') RETURNING id",
        f"INSERT INTO t VALUES ({n + 5}, 3, 'x'), ({n + 6}, 4, 'y')",
        f"UPDATE t SET a = a + 1 WHERE id = {n + 1}",
        f"UPDATE t SET a = a + 1 WHERE b = 'nobody{n}'",
        f"DELETE FROM t WHERE id = {n + 4}",
        f"DELETE FROM t WHERE id = {n + 5} RETURNING id, b",
        f"REPLACE INTO t VALUES ({n + 1}, 8, 'new')",
        f"INSERT INTO t VALUES ({n + 1}, 5, 'up') ON DUPLICATE KEY UPDATE b = 'up'",
        f"INSERT INTO g (id, a) VALUES ({n + 1}, 21)",
        # errors, and a warning
        f"INSERT INTO t VALUES ({n + 1}, 1, 'again')",
        f"INSERT INTO t VALUES ({n + 20}, 1000, 'check')",
        f"INSERT INTO t VALUES ({n + 20}, 'abc', '')",
        f"INSERT INTO t (nothing) VALUES ({n})",
        f"INSERT INTO t VALUES {n}",
        f"INSERT IGNORE INTO t VALUES ({n + 1}, 1, 'warning')",
    ]


MY_GOOD = 11


def my_status(answer: bytes) -> int:
    """The status flags that end an answer, 0 of an error."""
    payload = wire.my_split(answer)[0][-1][1]
    if payload[0] == 0xFF:
        return 0
    if payload[0] == 0xFE and len(payload) < 7:
        return int.from_bytes(payload[3:5], "little")
    at = 1
    for _ in range(2):
        at += {0xFC: 3, 0xFD: 4, 0xFE: 9}.get(payload[at], 1)
    return int.from_bytes(payload[at:at + 2], "little")


def my_say(session: RawMariaDB, commands: tuple[str, ...]) -> list[bytes]:
    """Commands in one send; every result of every command."""
    session.sock.sendall(b"".join(wire.my_query(command) for command in commands))
    told = []
    for _ in commands:
        told.append(session.answer())
        while my_status(told[-1]) & MORE_RESULTS:
            told.append(session.answer())
    return told


def my_forms(write: str) -> list[tuple[str, ...]]:
    return [(f"BEGIN; {HINT}{write}; COMMIT",), ("BEGIN", HINT + write, "COMMIT"),
            (f"{HINT}START TRANSACTION; {write}; COMMIT WORK;",), ("START TRANSACTION;", HINT + write, "COMMIT")]


def my_others(n: int) -> list[tuple[str, ...]]:
    def insert(i: int) -> str:
        return f"{HINT}INSERT INTO t VALUES ({n + i}, 1, '')"

    return [
        ("BEGIN", insert(30)), ("COMMIT",), ("BEGIN", insert(31), "ROLLBACK"), (f"BEGIN; {insert(32)}; ROLLBACK",),
        ("START TRANSACTION READ ONLY", insert(33), "COMMIT"), (f"BEGIN; SAVEPOINT a; {insert(34)}; COMMIT",),
        (f"BEGIN; {insert(35)}; COMMIT AND CHAIN",), ("COMMIT",), (f"BEGIN; {insert(36)}; COMMIT; -- nothing",),
        ("BEGIN", f"BEGIN; {insert(37)}; COMMIT"), ("SET autocommit = 0",), (f"BEGIN; {insert(38)}; COMMIT",),
        ("SET autocommit = 1",),
        ("SELECT 1", f"BEGIN; {insert(39)}; COMMIT", "SELECT 2", "BEGIN", insert(40), "COMMIT", insert(41), "BEGIN",
         insert(41), "COMMIT", "SELECT @@autocommit"),
        ("SET @tqdb_max_wait_ms = 60",), (f"BEGIN; INSERT INTO t VALUES ({n + 42}, 1, ''); COMMIT",),
        ("SELECT ROW_COUNT(), LAST_INSERT_ID()",), ("SHOW WARNINGS",),
        ("BEGIN", f"INSERT INTO t VALUES ({n + 43}, 1, '')", "COMMIT"), ("SET @tqdb_max_wait_ms = NULL",),
        (f"SELECT * FROM t WHERE id BETWEEN {n} AND {n + 999} ORDER BY id",),
    ]


@pytest.mark.parametrize("flags", [CLIENT.MULTI_STATEMENTS, CLIENT.MULTI_STATEMENTS | CLIENT.FOUND_ROWS,
                                   CLIENT.MULTI_STATEMENTS | DEPRECATE_EOF | SESSION_TRACK, 0],
                         ids=["default", "found_rows", "deprecate_eof", "single"])
def test_mariadb_answers_are_the_same(mariadb, proxy, table, flags):
    scripts = []
    for k in range(SESSIONS):
        steps = []
        for form in range(4):
            writes = [my_forms(write)[form] for write in my_writes(k * 10000 + form * 1000)]
            steps += writes[:MY_GOOD]
            for step in writes[MY_GOOD:]:
                steps += [step, ("SHOW WARNINGS",), ("ROLLBACK",)]
        scripts.append(steps + my_others(k * 10000 + 5000))
    seen = []
    before = proxy.batched()
    for side, port in (("a", mariadb.port), ("b", proxy.mariadb_port)):
        with mariadb.connect() as setup, setup.cursor() as cursor:
            for sql in (f"CREATE DATABASE {table}{side}", f"USE {table}{side}", *MY_TABLES):
                cursor.execute(sql)
        step = threading.Barrier(SESSIONS, timeout=60)

        def work(k, side=side, port=port, step=step):
            with mariadb.connect(port, database=f"{table}{side}", charset="utf8mb4",
                                 client_flag=flags) as connection:
                session = RawMariaDB(connection, bool(flags & DEPRECATE_EOF))
                return [(step.wait(), my_say(session, commands))[1] for commands in scripts[k]]

        seen.append(together(SESSIONS, work))
    for k, script in enumerate(scripts):
        for commands, a, b in zip(script, seen[0][k], seen[1][k], strict=True):
            assert [x.replace(f"{table}b".encode(), f"{table}a".encode()) for x in b] == a, (k, commands)
    assert proxy.batched() - before >= SESSIONS * (4 if flags else 2) * (MY_GOOD - 1)


def test_mariadb_insert_ids(mariadb, proxy, table):
    """One session's writes in a row are a batch: their ids can be foretold, and what it is asked behind them."""
    seen = []
    scripts = [
        (f"BEGIN; {HINT}INSERT INTO ai (a) VALUES (1); COMMIT", "BEGIN", f"{HINT}INSERT INTO ai (a) VALUES (2), (3)",
         "COMMIT", f"{HINT}INSERT INTO ai (a) VALUES (4)", f"BEGIN; {HINT}INSERT INTO ai (a) VALUES (5); COMMIT"),
        ("SELECT LAST_INSERT_ID(), ROW_COUNT()",),
        (f"BEGIN; {HINT}INSERT INTO ai (a) VALUES (6); COMMIT", f"{HINT}INSERT INTO ai (a) VALUES (7), (8)"),
        ("SELECT LAST_INSERT_ID(), ROW_COUNT()",),
        ("BEGIN", f"{HINT}INSERT INTO ai (a) VALUES (9)", "COMMIT"),
        ("SELECT LAST_INSERT_ID(), ROW_COUNT()",),
        (f"BEGIN; {HINT}INSERT INTO ai (a) VALUES (10) RETURNING id; COMMIT",
         f"BEGIN; {HINT}INSERT INTO ai (a) VALUES (11) RETURNING id; COMMIT"),
        ("SELECT LAST_INSERT_ID()",), ("SELECT * FROM ai",),
    ]
    before = proxy.batched()
    for side, port in (("a", mariadb.port), ("b", proxy.mariadb_port)):
        with mariadb.connect() as setup, setup.cursor() as cursor:
            for sql in (f"CREATE DATABASE {table}{side}", f"USE {table}{side}", *MY_TABLES):
                cursor.execute(sql)
        with mariadb.connect(port, database=f"{table}{side}", client_flag=CLIENT.MULTI_STATEMENTS) as connection:
            session = RawMariaDB(connection)
            seen.append([my_say(session, commands) for commands in scripts])
    for commands, a, b in zip(scripts, *seen, strict=True):
        assert [x.replace(f"{table}b".encode(), f"{table}a".encode()) for x in b] == a, commands
    assert proxy.batched() - before >= 6


def test_mariadb_several_statements_only_where_they_are_taken(mariadb, proxy, my, table):
    """COM_SET_OPTION switches them on and off."""
    cursor = my(through=False).cursor()
    cursor.execute(f"CREATE TABLE {table} (id int PRIMARY KEY) ENGINE=InnoDB")
    told = []
    for port in (mariadb.port, proxy.mariadb_port):
        cursor.execute(f"DELETE FROM {table}")
        with mariadb.connect(port, database="d") as connection:
            session = RawMariaDB(connection)
            seen = []
            for number, option in enumerate((None, b"\0\0", b"\1\0", b"\0\0")):
                if option is not None:
                    session.sock.sendall(wire.my(0, b"\x1b" + option))
                    seen.append([session.packet()])
                for i in range(2):
                    seen.append(my_say(
                        session, (f"BEGIN; {HINT}INSERT INTO {table} VALUES ({10 * number + i}); COMMIT",) * (1 + i)))
            told.append(seen)
    assert told[1] == told[0]


def my_logged_in(hooks):
    session = MySession(hooks.engine)
    session.connect()
    for receiver, data in ((hooks.server, wire.my(0, wire.GREETING)), (session, wire.my(1, wire.HANDSHAKE)),
                           (hooks.server, wire.my(2, b"\0\0\0\2\0\0\0"))):
        receiver.receive(data)
    session.take_out(), hooks.server.take_out()
    return session, hooks.server


@pytest.mark.parametrize("login, query", [(logged_in, wire.pg_query), (my_logged_in, wire.my_query)],
                         ids=["postgres", "mariadb"])
@pytest.mark.parametrize("texts, together_sent", [
    (("BEGIN", WRITE, "COMMIT"), 3), (("BEGIN", "SELECT 1", "COMMIT"), 3),
    (("BEGIN READ ONLY", HINT + WRITE, "COMMIT"), 1),
    (("BEGIN", f"{HINT}{WRITE}; {WRITE}", "COMMIT"), 1), (("BEGIN", HINT + WRITE, "ROLLBACK"), 1),
    (("BEGIN", HINT + WRITE, "SAVEPOINT a", "COMMIT"), 1), (("BEGIN", HINT + WRITE), 1), (("BEGIN",), 1)])
def test_what_looks_like_one_is_not_kept(login, query, texts, together_sent):
    """BEGIN goes on at once, and a hinted write behind it waits for what it is answered, as ever."""
    session, server = login(Hooks())
    session.receive(b"".join(map(query, texts)))
    assert server.take_out() == b"".join(map(query, texts[:together_sent]))


def test_mariadb_killed_while_gathered(start_proxy, mariadb, my, table):
    proxy = start_proxy(mariadb=mariadb)
    admin = my(through=False).cursor()
    admin.execute(f"CREATE TABLE {table} (id int) ENGINE=InnoDB")
    write = f"/* max_wait_ms:900 */ INSERT INTO {table} VALUES (1)"
    connections = [mariadb.connect(proxy.mariadb_port, database="d", client_flag=CLIENT.MULTI_STATEMENTS)
                   for _ in range(3)]
    number = connections[0].thread_id()
    session, other, killer = map(RawMariaDB, connections)
    together(2, lambda k: (session, other)[k].query(write))
    for commands in ((f"BEGIN; {write}; COMMIT",), ("BEGIN", write, "COMMIT")):
        session.sock.sendall(b"".join(map(wire.my_query, commands)))
        wait_for(lambda: proxy.clients("waiting") == 1)
        killer.query(f"KILL QUERY {number}")
        told = [session.packet() for _ in commands]
        assert told[len(told) // 2][:7] == told[len(told) // 2][:3] + b"\1\xff" + (1317).to_bytes(2, "little")
        if len(commands) == 3:
            assert (told[0], told[2]) == (wire.my_ok(status=3), wire.my_ok(status=2))
        assert session.query("SELECT @@in_transaction").count(b"\x010") == 1
    admin.execute(f"SELECT count(*) FROM {table}")
    assert admin.fetchone() == (2,)
    for connection in connections:
        connection.close()
