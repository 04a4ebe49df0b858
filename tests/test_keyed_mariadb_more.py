"""MariaDB's updates by key: locks, crowds, ends of connections and of servers, and what nobody thought of."""

import random
import socket
import threading
from contextlib import suppress

import pymysql
import pytest

from tests.crowd import together
from tests.keyed import HINT, INT_TABLE, ROWS, Keyed, texts
from tests.raw import RawMariaDB
from tests.seeded import first_seed
from tests.wait import wait_for
from tests.wire import my_query
from tqdb.load.servers import MariaDB


@pytest.fixture(scope="module")
def keyed(mariadb, proxy):
    both = Keyed(mariadb, proxy)
    yield both
    both.close()


@pytest.fixture
def crowd(keyed, table):
    """``crowd(count)``: sessions through the proxy, before a table of 20 rows."""
    keyed.do("USE keyed_b")
    keyed.do(f"CREATE TABLE {table} ({INT_TABLE}) ENGINE=InnoDB")
    keyed.do(f"INSERT INTO {table} {ROWS}")
    made = []

    def make(count: int, **options) -> list[RawMariaDB]:
        made.extend(keyed.sessions("b", count, **options))
        return made[-count:]

    yield make
    for session in made:
        session.connection.close()


def add(table: str, key, by: str = "1") -> str:
    return f"{HINT}UPDATE {table} SET a = a + {by} WHERE id = {key}"


# --- how rows are found -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind, form", [
    ("int", "{}"), ("bigint unsigned", "{}"), ("tinyint", "{}"), ("varchar(20)", "'{}'"),
    ("char(20) CHARACTER SET latin1", "'{}'"), ("varchar(20) CHARACTER SET ucs2", "'{}'"),
    ("varchar(20) COLLATE utf8mb4_bin", "'{}'")])
def test_rows_are_always_found_by_the_primary_key(keyed, table, kind, form):
    """Were it otherwise, rows that nobody asked for would be locked."""
    chance = random.Random(1)
    keyed.do("USE keyed_b")
    for rows in (3, 10, 100) if kind == "tinyint" else (1, 3, 4, 10, 100, 1000, 100000):
        keyed.do(f"CREATE OR REPLACE TABLE {table} (id {kind} PRIMARY KEY, a int, b int, KEY (a), KEY (b, id))")
        keyed.do(f"INSERT INTO {table} SELECT seq, seq % 7, seq FROM seq_1_to_{rows}")
        for analyzed in (False, True):
            if analyzed:
                keyed.do(f"ANALYZE TABLE {table}")
            for count in (2, 4, 5, 50, 199, 200, 201, 500):
                for keys in (range(1, count + 1), chance.sample(range(1, max(rows, count) + 1), count),
                             range(rows + 1, rows + 1 + count)):
                    told = keyed.do(f"EXPLAIN UPDATE {table} FORCE INDEX (PRIMARY) SET a = a + 1 WHERE id IN ("
                                    + ",".join(form.format(k) for k in keys) + ")")
                    # nothing is read where no value of the column can be meant
                    assert told[0][3:6:2] == ("range", "PRIMARY") or "Impossible" in str(told), (rows, count, told)


@pytest.mark.parametrize("isolation", ["READ-UNCOMMITTED", "READ-COMMITTED", "REPEATABLE-READ", "SERIALIZABLE"])
@pytest.mark.parametrize("rows, keys", [(5, (1, 2, 3, 4)), (9, (1, 3, 5, 7)), (6, (2, 3, 4, 5)), (20, (1, 2, 3, 20))])
def test_rows_that_nobody_asked_for_are_not_waited_for(keyed, crowd, table, proxy, isolation, rows, keys):
    sessions = crowd(len(keys))
    keyed.do(f"DELETE FROM {table} WHERE id > {rows}")
    with keyed.mariadb.connect(database="keyed_b") as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        for k in set(range(1, rows + 1)) - set(keys):
            cursor.execute(f"SELECT a FROM {table} WHERE id = {k} FOR UPDATE")
        for session in sessions:
            session.query("SET innodb_lock_wait_timeout = 1")
            session.query(f"SET tx_isolation = '{isolation}'")
        before = proxy.stats()
        for _ in range(2):
            told = together(len(keys), lambda i: sessions[i].query(add(table, keys[i])))
            assert {answer[4] for answer in told} == {0}
        after = proxy.stats()
        assert after["methods"]["keys"] > before["methods"]["keys"] and after["retries"] == before["retries"]


def locked_out(keyed, sessions: list[RawMariaDB], writes: list[str], table: str) -> int:
    """One row is locked until all have been answered who do not want it: waits for locks meanwhile."""
    def waits() -> int:
        return int(keyed.do("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_waits'")[0][1])

    told: dict[int, bytes] = {}
    with keyed.mariadb.connect(database="keyed_b") as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"SELECT a FROM {table} WHERE id = 1 FOR UPDATE")
        free = [i for i, write in enumerate(writes) if "1" not in write.rpartition("=")[2]]
        before = waits()
        writers = threading.Thread(target=together, args=(
            len(writes), lambda i: told.__setitem__(i, sessions[i].query(writes[i]))))
        writers.start()
        wait_for(lambda: all(i in told for i in free), timeout=45, what="the answers of those who are free")
        waited = waits() - before
        cursor.execute("ROLLBACK")
        writers.join(100)
    assert len(told) == len(writes) and {answer[4] for answer in told.values()} == {0}
    return waited


@pytest.mark.parametrize("same", [1, 6])
def test_a_locked_row_costs_the_others_one_wait_more(keyed, crowd, table, proxy, same):
    """One wait tells that a row is locked: no other statement of the batch need wait for it."""
    keys = [k for k in range(1, 9) for _ in range(same)]
    sessions = crowd(len(keys))
    waited = []
    for form in ("'{}'", "{}"):
        writes = [add(table, form.format(k)) for k in keys]
        before = proxy.stats()["methods"]["keys"]
        together(len(keys), lambda i, writes=writes: sessions[i].query(writes[i]))
        assert (proxy.stats()["methods"]["keys"] > before) == (form == "{}")
        waited.append(locked_out(keyed, sessions, writes, table))
    assert keyed.do(f"SELECT DISTINCT a FROM {table} WHERE id < 9") == [(4 * same,)]
    assert waited[1] <= waited[0] + 1, waited


# --- crowds -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("rows, merged", [(1, False), (3, None), (10, True)])
def test_hot_rows(keyed, crowd, table, proxy, rows, merged):
    sessions = crowd(128)
    before = proxy.stats()["methods"]["keys"]
    told = together(128, lambda i: [sessions[i].query(add(table, 1 + (7 * i + n) % rows)) for n in range(4)])
    assert {answer for one in told for answer in one} == {sessions[0].query(add(table, 15))}
    assert keyed.do(f"SELECT SUM(a) FROM {table} WHERE id <= {rows}") == [(512,)]
    assert merged is None or (proxy.stats()["methods"]["keys"] > before) == merged


def test_who_sends_several_has_them_in_his_order(keyed, crowd, table):
    sessions = crowd(12)

    def work(i):
        writes = [f"{HINT}UPDATE {table} SET s = CONCAT(s, '{n}') WHERE id = {i + 1}" for n in range(5)]
        sessions[i].sock.sendall(b"".join(map(my_query, writes)))
        return [sessions[i].answer() for _ in writes]

    for _ in range(3):
        told = together(12, work)
        assert {answer[4] for one in told for answer in one} == {0}
    assert keyed.do(f"SELECT DISTINCT s FROM {table} WHERE id <= 12") == [("012340123401234",)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_sizes_of_batches(keyed, start_proxy, mariadb, size):
    own = start_proxy(mariadb=mariadb, config=f"[writebatch]\nmax_batch_size = {size}\n")
    writes = texts(keys=tuple(map(str, range(1, 21)))) + texts(keys=("1", "2", "3", "4", "5") * 2)
    keyed.same(INT_TABLE, ROWS, writes, size >= 5, proxy=own)


def test_a_row_that_many_want_and_one_that_is_not_there(keyed, crowd, table, proxy):
    """Whoever misses costs the others a second try now and then, and never an answer."""
    sessions = crowd(16)
    for n in range(12):
        told = together(16, lambda i, n=n: sessions[i].query(add(table, 999 if i == n else i + 1)))
        assert sum(b"Rows matched: 0" in answer for answer in told) == 1
        assert sum(b"Rows matched: 1  Changed: 1" in answer for answer in told) == 15
    assert keyed.do(f"SELECT SUM(a) FROM {table}") == [(12 * 15,)]


# --- ends -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("what", ["CONNECTION", "QUERY"])
@pytest.mark.parametrize("same", [1, 4])
def test_the_leader_is_killed(keyed, crowd, table, proxy, what, same):
    """Each write that was acknowledged is there once, and nobody but the leader is told an error."""
    keys = [k for k in range(1, 7) for _ in range(same)]
    sessions = crowd(len(keys))
    together(len(keys), lambda i: sessions[i].query(add(table, keys[i])))
    told: dict[int, bytes | None] = {}

    def work(i):
        try:
            told[i] = sessions[i].query(add(table, keys[i]))
        except OSError:
            told[i] = None

    with keyed.mariadb.connect(database="keyed_b") as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"SELECT a FROM {table} WHERE id = 1 FOR UPDATE")
        writers = threading.Thread(target=together, args=(len(keys), work))
        writers.start()
        leader = wait_for(lambda: keyed.do(
            "SELECT id FROM information_schema.PROCESSLIST WHERE info LIKE "
            f"'SET STATEMENT%{table} FORCE%' AND id <> CONNECTION_ID()"), what="a batch")[0][0]
        keyed.do(f"KILL {what} {leader}")
        if what == "CONNECTION":
            wait_for(lambda: not keyed.do(f"SELECT 1 FROM information_schema.PROCESSLIST WHERE id = {leader}"))
        cursor.execute("ROLLBACK")
        writers.join(60)
    good = [i for i, answer in told.items() if answer is not None and answer[4] == 0]
    assert len(told) == len(keys) and len(good) >= len(keys) - (what == "CONNECTION")
    assert keyed.do(f"SELECT SUM(a) FROM {table}")[0][0] - len(keys) == len(good)


@pytest.mark.parametrize("who", ["the leader", "another"])
def test_a_client_leaves_while_its_write_is_done(keyed, crowd, table, who):
    sessions = crowd(8)
    together(8, lambda i: sessions[i].query(add(table, i + 1)))
    told: dict[int, bytes] = {}

    def work(i):
        with suppress(OSError):
            told[i] = sessions[i].query(add(table, i + 1))

    with keyed.mariadb.connect(database="keyed_b") as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"SELECT a FROM {table} WHERE id = 1 FOR UPDATE")
        writers = threading.Thread(target=together, args=(8, work))
        writers.start()
        leader = wait_for(lambda: keyed.do(
            "SELECT id FROM information_schema.PROCESSLIST WHERE info LIKE "
            f"'SET STATEMENT%{table} FORCE%' AND id <> CONNECTION_ID()"), what="a batch")[0][0]
        gone = next(i for i, session in enumerate(sessions)
                    if (session.connection.thread_id() == leader) == (who == "the leader"))
        sessions[gone].sock.shutdown(socket.SHUT_RDWR)
        cursor.execute("ROLLBACK")
        writers.join(60)
    good = [i for i, answer in told.items() if answer[4] == 0]
    assert sorted({*good, gone}) == list(range(8))
    assert keyed.do(f"SELECT SUM(a) FROM {table} WHERE id <> {gone + 1}") == [(14,)]
    assert keyed.do(f"SELECT a FROM {table} WHERE id = {gone + 1}")[0][0] in (1, 2)


def test_the_server_is_restarted():
    """What was acknowledged is there, and nothing is there twice."""
    from tests.fix_servers import ProxyUnderTest, tqdb_command
    with MariaDB() as server:
        server.start()
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE d")
            cursor.execute("USE d")
            cursor.execute(f"CREATE TABLE d.t ({INT_TABLE}) ENGINE=InnoDB")
            cursor.execute(f"INSERT INTO d.t {ROWS}")
        with ProxyUnderTest(mariadb=server, command=tqdb_command()) as proxy:
            proxy.start()
            count, stop = 24, threading.Event()
            kept, sent = [0] * 20, [0] * 20

            def work(i):
                session = None
                while not stop.is_set():
                    try:
                        session = session or RawMariaDB(server.connect(proxy.mariadb_port, database="d"))
                        k = i % 20
                        counted = session.query(f"/* max_wait_ms:5 */ UPDATE t SET a = a + 1 WHERE id = {k + 1}")
                        with lock:
                            sent[k] += 1
                            kept[k] += counted[4] == 0
                    except (OSError, pymysql.Error):
                        with lock:
                            sent[i % 20] += 1       # it may have been done
                        session = None
                        stop.wait(0.05)

            lock = threading.Lock()
            crowd = threading.Thread(target=together, args=(count, work))
            crowd.start()
            for n in range(2):
                wait_for(lambda n=n: sum(kept) > 300 * (n + 1) and proxy.stats()["methods"]["keys"] > n, timeout=60)
                server.kill()
                server.start()
            now = sum(kept)
            wait_for(lambda: sum(kept) > now + 100, timeout=60, what="writes behind the restart")
            stop.set()
            crowd.join(60)
            assert proxy.stats()["methods"]["keys"]
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT a FROM d.t ORDER BY id")
            there = [row[0] for row in cursor.fetchall()]
    assert all(k <= n <= s for k, n, s in zip(kept, there, sent, strict=True)), (kept, there, sent)


def test_executions_that_are_no_packet_together(start_proxy):
    """Each is small; a statement with the text once and everybody's key would be more than the server takes."""
    count, first = 64, 10**17
    sql = f"/* max_wait_ms:1000 */ UPDATE t SET a = a + 1, s = '{'x' * 15800}' WHERE id = ?"
    with MariaDB(max_allowed_packet="16384") as server:
        server.start()
        with server.connect() as connection, connection.cursor() as cursor:
            for text in ("CREATE DATABASE d", "USE d", "CREATE TABLE t (id bigint PRIMARY KEY, a int, s text)",
                         f"INSERT INTO t SELECT {first} + seq, 0, '' FROM seq_1_to_100"):
                cursor.execute(text)
        own = start_proxy(mariadb=server)
        connections = [server.connect(own.mariadb_port, database="d") for _ in range(count)]
        sessions = [RawMariaDB(connection) for connection in connections]
        for session in sessions:
            session.prepare(sql)
        told = together(count, lambda i: [sessions[i].execute(sql, (first + 1 + i,)) for _ in range(2)])
        assert {answer[4] for one in told for answer in one} == {0}
        assert own.batched() > 0
        for connection in connections:
            connection.close()


# --- what nobody thought of -------------------------------------------------------------------------------------------

COLUMNS = ("id int PRIMARY KEY, a int DEFAULT 3, b int NOT NULL DEFAULT 5, c bigint unsigned DEFAULT 7, "
           "d decimal(10,3) DEFAULT 1.5, s varchar(30) DEFAULT 'start', "
           "v varchar(5) COLLATE utf8mb4_bin DEFAULT 'vv', e enum('x','y') DEFAULT 'x', g int AS (a + b) PERSISTENT, "
           "h varchar(40) AS (CONCAT(s, v)), KEY (a), KEY (h)")


class Grammar:
    """Random updates that are often right, now and then refused, and alike but for their keys and blanks."""

    def __init__(self, chance: random.Random):
        self.chance = chance

    def literal(self) -> str:
        return self.chance.choice((
            "0", "1", "-1", "2", "7", "3.5", "-0.25", "1e2", "100000", "'a'", "'B '", "'it''s'", "''", "'7'", "'-3x'",
            "'ä€'", "NULL", "TRUE", "X'41'", "'a\\\\'", '"q"', "DATE'2024-01-02'", "'WHERE id = 4'", "0x4142"))

    def number(self, depth: int = 0) -> str:
        c = self.chance
        if depth > 2 or c.random() < 0.3:
            return c.choice(("a", "b", "c", "d", "id", "{t}.a", "`b`", "g", self.literal(), str(c.randint(0, 9))))
        x, y = self.number(depth + 1), self.number(depth + 1)
        return c.choice((
            f"{x} + {y}", f"{x} - {y}", f"{x} * {y}", f"({x} + {y}) % 5", f"({x}) / 2", f"-({x})", f"ABS({x})",
            f"IF({x} > {y}, {x}, {y})", f"COALESCE({x}, {y})", f"({x} <= {y})", f"({x} <=> {y})", f"MOD({x}, 7)",
            f"GREATEST({x}, {y})", f"CHAR_LENGTH({self.text(depth + 1)})", f"ROUND({x}, 1)", f"CAST({x} AS signed)",
            f"CASE WHEN {x} THEN {y} ELSE 1 END", f"({x} IN ({y}, 2))", f"({x} BETWEEN {y} AND 50)", f"NULLIF({x}, 3)",
            f"({x} IS NULL)", f"~({x}) & 255", f"({x} DIV 2)", f"({x} || {y})", f"({x} XOR {y})", "DEFAULT(a)"))

    def text(self, depth: int = 0) -> str:
        c = self.chance
        if depth > 2 or c.random() < 0.4:
            return c.choice(("s", "v", "{t}.s", "h", "e", "'x'", "'\\\\y'", "'ö'", self.literal()))
        x = self.text(depth + 1)
        return c.choice((
            f"CONCAT({x}, id)", f"LEFT({x}, 4)", f"UPPER({x})", f"REPLACE({x}, 'a', 'b')", f"HEX({x})",
            f"SUBSTRING({x}, 2)", f"LPAD({x}, 5, '*')", f"CONCAT_WS('-', {x}, {self.number(depth + 1)})", f"TRIM({x})",
            f"REVERSE({x})", f"IFNULL({x}, 'none')", f"MD5({x})", f"CONVERT({x} USING latin1)"))

    def assignment(self) -> str:
        column = self.chance.choice(("a", "a", "b", "c", "d", "s", "s", "v", "e", "`a`", "{t}.s"))
        value = self.text() if column.strip("`").rsplit(".")[-1] in ("s", "v", "e") else self.number()
        if self.chance.random() < 0.05:
            value = "DEFAULT"
        return f"{column} = {value}"

    def condition(self) -> str:
        return self.chance.choices(
            ("id = KEY", "{t}.id = KEY", "`id`=KEY", "id = 'KEY'", "(id = KEY)", "id = KEY AND a >= 0",
             "b > 0 AND id = KEY", "id = KEY LIMIT 1", "id IN (KEY)", "KEY = id"),
            (40, 5, 5, 3, 3, 3, 3, 3, 3, 3))[0]

    def write(self) -> str:
        assignments = ", ".join(self.assignment() for _ in range(self.chance.randint(1, 3)))
        return f"UPDATE {{t}} SET {assignments} WHERE {self.condition()}"

    def dressed(self, write: str, key: int) -> str:
        """The write of this key, with blanks, comments and case of its own between words."""
        c = self.chance
        if "'" in write or '"' in write:        # a blank may stand in a string
            said = write
        else:
            said = "".join(part + c.choices((" ", "  ", "\n", "\t", " /* = 3 */ ", " -- x\n", " # '\n"),
                                            (60, 5, 5, 5, 2, 2, 2))[0] for part in write.split(" ")).rstrip(" ")
        return said.replace("KEY", c.choices((str(key), "0" + str(key), "999"), (60, 1, 1))[0]) + c.choices(
            ("", ";", " ", " ; "), (20, 1, 1, 1))[0]


PLANS = 60


def test_random_updates(keyed):
    """Keys of one round are those of different rows, so that what each is told does not depend on the order."""
    chance = random.Random(first_seed())
    grammar = Grammar(chance)
    merged = good = 0
    for _ in range(PLANS):
        write = grammar.write()
        if "seq" in write:
            continue
        writes = [grammar.dressed(write, k) for k in chance.sample(range(1, 21), chance.randint(5, 9))]
        direct, proxied = keyed.same(COLUMNS, ROWS, writes, None, rounds=2)
        merged += proxied.keys > 0
        good += all(part[0][4] == 0 and part[0].endswith(b"Warnings: 0") for one in direct.answers for part in one)
    assert merged > 3 and good > 10, (merged, good)


def test_random_increments_of_few_rows(keyed, crowd, table):
    """Several kinds of writes at once to the same rows: they commute, so the sum tells what was done."""
    chance = random.Random(first_seed())
    sessions = crowd(24)
    plans = [[(chance.randint(1, 8), chance.choice(("1", "1", "1", "2", "id", "CHAR_LENGTH('abc')")), chance.choice(
        ("{}", "{}", "{}", "0{}", "'{}'"))) for _ in range(25)] for _ in sessions]

    def work(i):
        return [sessions[i].query(add(table, form.format(k), by)) for k, by, form in plans[i]]

    told = together(24, work)
    assert len({answer for one in told for answer in one}) == 1
    expected = dict.fromkeys(range(1, 9), 0)
    for k, by, _ in (step for plan in plans for step in plan):
        expected[k] += k if by == "id" else 3 if by[0] == "C" else int(by)
    assert dict(keyed.do(f"SELECT id, a FROM {table} WHERE id < 9")) == expected
