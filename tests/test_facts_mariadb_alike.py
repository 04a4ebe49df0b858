"""What a write executes on MariaDB answers the same among others as alone: through the proxy, on a real server."""

import re
from contextlib import closing

import pymysql
import pytest

from tests.crowd import together
from tests.mariadb_examples import CHANGING, FIXED, STATEMENT_ONLY

HINT = "/* max_wait_ms:100 file:alike.py line:1 */ "
SESSIONS = 8
TRIES = 25
CHUNK = 24                  # expressions in one statement: what the parser is given has a bound


def chunks(expressions: list[str]) -> list[list[str]]:
    return [expressions[i:i + CHUNK] for i in range(0, len(expressions), CHUNK)]


@pytest.fixture
def sides(mariadb, proxy, my, table):
    """``sides(statements, work)``: what ``work(cursor, k)`` gives SESSIONS sessions, direct and through the proxy, each
    side in a new database of the same name; and how many writes went in batches."""
    with my(through=False).cursor() as admin:
        def run(statements, work):
            results = []
            for port in (mariadb.port, proxy.mariadb_port):
                admin.execute(f"DROP DATABASE IF EXISTS {table}")
                for sql in (f"CREATE DATABASE {table}", f"USE {table}", *statements):
                    admin.execute(sql)

                def session(k, port=port):
                    with mariadb.connect(port, database=table) as connection, connection.cursor() as cursor:
                        return work(cursor, k)

                before = proxy.batched()
                results.append((together(SESSIONS, session), proxy.batched() - before))
            (direct, _), (through, batched) = results
            return direct, through, batched

        yield run
        admin.execute(f"DROP DATABASE IF EXISTS {table}")


def row_of(cursor, sql: str):
    cursor.execute(sql)
    return cursor.fetchone()


def over(expression: str, value: str) -> str:
    """The expression with another name for ``a``."""
    return re.sub(r"'[^']*'|\ba\b", lambda m: value if m[0] == "a" else m[0], expression)


@pytest.mark.parametrize("part", range(len(chunks(FIXED))))
def test_functions_in_statements_defaults_and_triggers(sides, part):
    """Each session's rows are its own: merged from literals and defaults, pipelined by a trigger and an UPDATE."""
    expressions = chunks(FIXED)[part]
    columns = [f"v{i}" for i in range(len(expressions))]
    defaults = ", ".join(f"{c} longtext DEFAULT ({e})" for c, e in zip(columns, expressions, strict=True))
    sets = ", ".join(f"NEW.{c} = {over(e, 'NEW.a')}" for c, e in zip(columns, expressions, strict=True))
    assigned = ", ".join(f"{c} = {e}" for c, e in zip(columns, expressions, strict=True))
    plain = ", ".join(f"{c} longtext" for c in columns)

    def work(cursor, k):
        found = []
        for a in (k, k + 10):
            values = ", ".join(over(e, str(a)) for e in expressions)
            cursor.execute(f"{HINT}INSERT INTO p (a, {', '.join(columns)}) VALUES ({a}, {values})")
            cursor.execute(f"{HINT}INSERT INTO d (a) VALUES ({a})")
            cursor.execute(f"{HINT}INSERT INTO g (a) VALUES ({a})")
            found += [row_of(cursor, f"SELECT * FROM {t} WHERE a = {a}") for t in "pdg"]
            cursor.execute(f"{HINT}UPDATE p SET {assigned} WHERE a = {a}")
            found.append(row_of(cursor, f"SELECT * FROM p WHERE a = {a}"))
        return found

    statements = (f"CREATE TABLE p (a int PRIMARY KEY, {plain})", f"CREATE TABLE d (a int PRIMARY KEY, {defaults})",
                  f"CREATE TABLE g (a int PRIMARY KEY, {plain})",
                  f"CREATE TRIGGER x BEFORE INSERT ON g FOR EACH ROW SET {sets}")
    seen = []
    while len(seen) < TRIES:        # on a busy machine parsers use up their time, and writes go alone
        direct, through, batched = sides(statements, work)
        assert through == direct
        seen.append(batched)
        if batched >= SESSIONS * 4:
            return
    raise AssertionError(seen)


def test_functions_in_statements_only(sides):
    expressions = STATEMENT_ONLY

    def work(cursor, k):
        found = []
        for e in expressions:
            cursor.execute(f"{HINT}UPDATE t SET v = {e} WHERE a = {k}")
            found.append(row_of(cursor, f"SELECT v FROM t WHERE a = {k}"))
        cursor.execute(f"{HINT}INSERT INTO t (a, v) VALUES ({k}, 'x') "
                       "ON DUPLICATE KEY UPDATE v = CONCAT(VALUES(v), VALUE(a))")
        return *found, row_of(cursor, f"SELECT v FROM t WHERE a = {k}")

    direct, through, batched = sides(
        ("CREATE TABLE t (a int PRIMARY KEY, v text)", "CREATE TABLE r (n int)", "INSERT INTO r VALUES (1), (2), (7)",
         f"INSERT INTO t (a) VALUES {', '.join(f'({k})' for k in range(SESSIONS))}"), work)
    assert through == direct
    assert batched >= SESSIONS * len(expressions) // 2, batched


def test_time_and_chance(sides):
    """A batch's rows have the time at which they were written, and each a chance of its own."""
    columns = [f"v{i}" for i in range(len(CHANGING))]
    defaults = ", ".join(f"{c} blob DEFAULT ({e})" for c, e in zip(columns, CHANGING, strict=True))

    def work(cursor, k):
        before, = row_of(cursor, "SELECT NOW()")
        cursor.execute(f"{HINT}INSERT INTO d (a) VALUES ({k})")
        after, = row_of(cursor, "SELECT NOW()")
        return str(before).encode(), row_of(cursor, f"SELECT * FROM d WHERE a = {k}")[1:], str(after).encode()

    for results in sides((f"CREATE TABLE d (a int PRIMARY KEY, {defaults})",), work)[:2]:
        for before, row, after in results:
            assert before <= row[CHANGING.index("now()")] <= after
        for name in ("rand()", "random_bytes(4)", "uuid()", "sys_guid()", "uuid_short()"):
            assert len({row[CHANGING.index(name)] for _, row, _ in results}) == SESSIONS, name


def test_chance_with_a_seed(sides):
    """As a default it is a sequence within one statement: each row is the first of its own."""
    def work(cursor, k):
        cursor.execute(f"{HINT}INSERT INTO t (a) VALUES ({k})")
        cursor.execute(f"{HINT}INSERT INTO t (a, v) VALUES ({k + 100}, rand(5))")
        return row_of(cursor, f"SELECT v FROM t WHERE a = {k}"), row_of(cursor, f"SELECT v FROM t WHERE a = {k + 100}")

    direct, through, batched = sides(("CREATE TABLE t (a int PRIMARY KEY, v double DEFAULT (rand(3)))",), work)
    assert through == direct and len(set(through)) == 1 and batched > 0


# what reads its connection, its session or its statement: (statements, write, what it must have stored)
OWN = {
    "a default that asks for the connection": (
        ("CREATE TABLE t (a int, v bigint DEFAULT (connection_id()))",), "INSERT INTO t (a) VALUES ({k})",
        "CONNECTION_ID()"),
    "a trigger that asks for the connection": (
        ("CREATE TABLE t (a int, v bigint)",
         "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW SET NEW.v = CONNECTION_ID()"),
        "INSERT INTO t (a) VALUES ({k})", "CONNECTION_ID()"),
    "a trigger on UPDATE that asks for the connection": (
        ("CREATE TABLE t (a int, v bigint)",
         "INSERT INTO t (a) VALUES (0), (1), (2), (3), (4), (5), (6), (7)",
         "CREATE TRIGGER x BEFORE UPDATE ON t FOR EACH ROW SET NEW.v = CONNECTION_ID()"),
        "UPDATE t SET v = 0 WHERE a = {k}", "CONNECTION_ID()"),
    "a trigger that calls a function that asks for the connection": (
        ("CREATE FUNCTION f() RETURNS bigint READS SQL DATA RETURN CONNECTION_ID()", "CREATE TABLE t (a int, v bigint)",
         "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW SET NEW.v = f()"),
        "INSERT INTO t (a) VALUES ({k})", "CONNECTION_ID()"),
    "a trigger that writes to a table that asks for the connection": (
        ("CREATE TABLE t2 (a int, v bigint DEFAULT (connection_id()))", "CREATE TABLE b (a int)",
         "CREATE TRIGGER x AFTER INSERT ON b FOR EACH ROW INSERT INTO t2 (a) VALUES (NEW.a)",
         "CREATE VIEW t AS SELECT * FROM t2"),
        "INSERT INTO b (a) VALUES ({k})", "CONNECTION_ID()"),
    "a trigger that reads a variable": (
        ("CREATE TABLE t (a int, v bigint)",
         "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW SET NEW.v = @@pseudo_thread_id"),
        "INSERT INTO t (a) VALUES ({k})", "CONNECTION_ID()"),
    "a function in a statement": (
        ("CREATE FUNCTION f() RETURNS bigint READS SQL DATA RETURN CONNECTION_ID()",
         "CREATE TABLE t (a int, v bigint)"),
        "INSERT INTO t (a, v) VALUES ({k}, f())", "CONNECTION_ID()"),
    "a function with a native name": (
        ("CREATE FUNCTION `now`() RETURNS bigint READS SQL DATA RETURN CONNECTION_ID()",
         "CREATE TABLE t (a int, v bigint)"),
        "INSERT INTO t (a, v) VALUES ({k}, now ())", "CONNECTION_ID()"),
    "a view that a statement reads": (
        ("CREATE VIEW own AS SELECT CONNECTION_ID() AS v", "CREATE TABLE t (a int, v bigint)"),
        "INSERT INTO t (a, v) SELECT {k}, v FROM own", "CONNECTION_ID()"),
    "a generated column that a statement reads": (
        ("CREATE TABLE own (a int, v bigint AS (connection_id()))", "INSERT INTO own (a) VALUES (1)",
         "CREATE TABLE t (a int, v bigint)"),
        "INSERT INTO t (a, v) SELECT {k}, v FROM own", "CONNECTION_ID()"),
    "a sequence": (
        ("CREATE SEQUENCE s", "CREATE TABLE t (a int, v bigint DEFAULT (NEXT VALUE FOR s))"),
        "INSERT INTO t (a) VALUES ({k})", "LASTVAL(s)"),
    "a sequence in a statement": (
        ("CREATE SEQUENCE s", "CREATE TABLE t (a int, v bigint)"),
        "INSERT INTO t (a, v) VALUES ({k}, NEXT VALUE FOR s)", "LASTVAL(s)"),
    "an id that the statement leaves": (
        ("CREATE TABLE t (a int, v bigint)", "INSERT INTO t (a) VALUES (0), (1), (2), (3), (4), (5), (6), (7)"),
        "UPDATE t SET v = LAST_INSERT_ID(a + 70) WHERE a = {k}", "LAST_INSERT_ID()"),
    "a trigger that asks for the last id": (
        ("CREATE TABLE t (a int, v bigint)",
         "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW SET NEW.v = LAST_INSERT_ID()"),
        "INSERT INTO t (a) VALUES ({k})", "LAST_INSERT_ID()"),
}


@pytest.mark.parametrize("kind", OWN)
def test_what_is_a_sessions_own(kind, sides):
    statements, write, own = OWN[kind]

    def work(cursor, k):
        row_of(cursor, f"SELECT LAST_INSERT_ID({k + 900})")
        for _ in range(3):
            cursor.execute(HINT + write.format(k=k))
            stored = row_of(cursor, f"SELECT {own}")
            cursor.execute(f"SELECT v FROM t WHERE a = {k} ORDER BY v DESC LIMIT 1")
            assert cursor.fetchone() == stored, (kind, k)

    _, _, batched = sides(statements, work)
    assert batched == 0


def test_rows_that_refer_to_each_other(sides):
    """Two sessions, each row the other's parent: each is refused, as alone; and rows that may refer may."""
    def work(cursor, k):
        told = []
        for row, parent in ((k + 10, (k ^ 1) + 10), (k + 100, 1)):
            try:
                told.append(cursor.execute(f"{HINT}INSERT INTO t (id, a) VALUES ({row}, {parent})"))
            except pymysql.Error as e:
                told.append(e.args[0])
        cursor.execute(f"SELECT COUNT(*) FROM t WHERE id = {k + 10}")
        return *told, cursor.fetchone()[0]

    direct, through, batched = sides(
        ("CREATE TABLE t (id int PRIMARY KEY, a int, FOREIGN KEY (a) REFERENCES t (id))",
         "INSERT INTO t VALUES (1, NULL)"), work)
    # whoever comes second finds nobody: nothing of the first was kept; direct, too, three in a thousand meet in a
    # deadlock, as each holds the row that the other's check waits for
    for first, second, kept in direct + through:
        assert (first in (1452, 1213), second, kept) == (True, 1, 0)
    assert len(direct) == len(through) == SESSIONS
    assert batched > 0


def test_cascades(sides):
    """What foreign keys do to children runs in InnoDB: each parent's own, none of a child's triggers."""
    def work(cursor, k):
        told = [cursor.execute(f"{HINT}DELETE FROM p WHERE id = {k}"),
                cursor.execute(f"{HINT}UPDATE p SET id = {k + 500} WHERE id = {k + 100}"),
                cursor.execute(f"{HINT}INSERT INTO c (p, a) VALUES ({k + 200}, {k})")]
        cursor.execute(f"SELECT p, a, g, who FROM c WHERE a = {k} ORDER BY p, a")
        return told, cursor.fetchall()

    parents = ", ".join(f"({k + n})" for k in range(SESSIONS) for n in (0, 100, 200))
    children = ", ".join(f"({k + n}, {k})" for k in range(SESSIONS) for n in (0, 100))
    direct, through, batched = sides(
        ("CREATE TABLE p (id int PRIMARY KEY)",
         "CREATE TABLE c (p int, a int, g int AS (p * 2), who bigint, KEY (g), "
         "FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE ON UPDATE CASCADE)",
         f"INSERT INTO p VALUES {parents}", f"INSERT INTO c (p, a) VALUES {children}",
         "CREATE TRIGGER x BEFORE DELETE ON c FOR EACH ROW SET @deleted = 1"), work)
    assert through == direct
    assert batched >= SESSIONS, batched


def merged(proxy) -> float:
    return proxy.metric("tqdbproxy_write_batch_method_total", method="multi_row")


def test_plain_tables_are_merged(proxy, sides):
    """Ids, time, uuid, JSON, checks, unique and foreign keys: what is plain still shares one INSERT."""
    def work(cursor, k):
        ids = []
        for n in range(5):
            cursor.execute(f"{HINT}INSERT INTO t (a, p, d) VALUES ({k * 10 + n}, 1, JSON_OBJECT('k', {k}))")
            ids.append(cursor.lastrowid)
        cursor.execute(f"SELECT a, id, d, g FROM t WHERE id IN ({', '.join(map(str, ids))}) ORDER BY id")
        found = cursor.fetchall()
        assert [row[0] for row in found] == [k * 10 + n for n in range(5)] and [row[1] for row in found] == ids
        return [(row[0], *row[2:]) for row in found]

    before = merged(proxy)
    direct, through, batched = sides(
        ("CREATE TABLE p (id int PRIMARY KEY)", "INSERT INTO p VALUES (1)",
         "CREATE TABLE t (id bigint AUTO_INCREMENT PRIMARY KEY, a int UNIQUE CHECK (a < 1000), "
         "p int REFERENCES p (id), d json, u uuid DEFAULT uuid(), "
         "w timestamp(6) DEFAULT now(6) ON UPDATE now(6), g int AS (a + 1))"), work)
    assert through == direct and batched >= SESSIONS * 4 and merged(proxy) > before


def test_a_wait_that_is_shorter_than_the_question(mariadb, start_proxy, table):
    """The first answer says how long the catalogue takes; while it is asked again, whoever cannot wait goes alone."""
    proxy = start_proxy(mariadb=mariadb)
    with mariadb.connect(database="d") as admin, admin.cursor() as cursor:
        for name in (table, f"{table}x"):
            cursor.execute(f"CREATE TABLE {name} (a int)")
        with closing(mariadb.connect(proxy.mariadb_port, database="d")) as one, one.cursor() as writer:
            writer.execute(f"/* max_wait_ms:1000 */ INSERT INTO {table} (a) VALUES (1)")
            # no question is answered in a thousandth of a thousandth of a second
            writer.execute(f"/* max_wait_ms:0.001 */ INSERT INTO {table}x (a) VALUES (1)")
            assert proxy.counted("table") == 1
            # and what was asked first by it is known to the next
            for _ in range(4):
                writer.execute(f"/* max_wait_ms:0.001 */ INSERT INTO {table}x (a) VALUES (1)")
            assert proxy.counted("table") < 5
        cursor.execute(f"SELECT COUNT(*) FROM {table}x")
        assert cursor.fetchone() == (5,)
