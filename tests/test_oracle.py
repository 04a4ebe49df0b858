"""The database is the oracle: the same script direct and through the proxy, every answer compared byte by byte."""

import threading

import pytest
from pymysql.constants import CLIENT

from tests.crowd import together
from tests.raw import RawMariaDB, RawPostgres
from tests.wait import nobody_in

SESSIONS = 20
SESSION_TRACK, DEPRECATE_EOF = 1 << 23, 1 << 24      # PyMySQL has no names for them
HINT = "/* max_wait_ms:60 file:oracle.py line:1 */ "

PG_TABLE = """
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent VALUES (1);
CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL DEFAULT 7 CHECK (a < 1000), b text, c varchar(10), d jsonb,
 e numeric(8,2), f timestamptz, g bytea, h boolean, i int[], j uuid, p int REFERENCES parent);
"""

MY_TABLE = (
    "CREATE TABLE parent (id int PRIMARY KEY)", "INSERT INTO parent VALUES (1)",
    "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL DEFAULT 7 CHECK (a < 1000), b text, c varchar(10), "
    "e decimal(8,2), f datetime, g longblob, h boolean, p int REFERENCES parent (id)) ENGINE=InnoDB")


def pg_script(k: int) -> list[str]:
    """Statements of session k; ids are its own, so that sessions do not meet."""
    n = k * 1000
    insert = "INSERT INTO t (id, a, b) VALUES "
    full = "INSERT INTO t (id, a, b, c, d, e, f, g, h, i, j, p) VALUES "
    return [
        f"{HINT}{insert}({n + 1}, 1, 'one')",
        f"{HINT}{insert}({n + 2}, -1, NULL)",
        f"{HINT}{insert}({n + 3}, DEFAULT, '')",
        f"{HINT}{insert}({n + 4}, 2, 'a''b'), ({n + 5}, 3, E'tab\\t'), ({n + 6}, 4, $$dollar$$)",
        f"{HINT}{insert}({n + 7}, 5, 'Grüße 漢字 🙂') RETURNING *",
        f"{HINT}{insert}({n + 8}, 6, 'x'), ({n + 9}, 7, NULL) RETURNING id, b AS text, a",
        f"{HINT}{full}({n + 10}, 1, 'x', 'y', '{{\"k\": [1, null]}}', 1.239, '2024-02-29 12:00+02', '\\xdeadbeef', "
        f"true, '{{1,2,NULL}}', '00000000-0000-0000-0000-0000000000{k:02d}', 1) RETURNING *",
        f"{HINT}{full}({n + 11}, '5', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) RETURNING *",
        f"{HINT}{insert}({n + 12}, 1, '{'x' * 50000}')",
        f"{HINT}{insert}({n + 13}, 1, lower('ABC') || 'd') RETURNING b",
        f"{HINT}{insert}({n + 14}, 1.6, 5) RETURNING a, b",
        # errors: each must be the one that the statement gets alone, position included
        f"{HINT}{insert}({n + 1}, 1, 'again')",
        f"{HINT}{insert}({n + 20}, 1000, 'check')",
        f"{HINT}{insert}({n + 20}, NULL, 'not null')",
        f"{HINT}{insert}({n + 20}, 'abc', 'not a number')",
        f"{HINT}{insert}({n + 20}, 99999999999, 'out of range')",
        f"{HINT}{insert}({n + 20}, true, 'wrong type')",
        f"{HINT}{insert}({n + 20}, 1, 'x'), ({n + 21}, 2000, 'second row')",
        f"{HINT}INSERT INTO t (id, c) VALUES ({n + 20}, 'longer than ten')",
        f"{HINT}INSERT INTO t (id, d) VALUES ({n + 20}, '{{broken')",
        f"{HINT}INSERT INTO t (id, f) VALUES ({n + 20}, '2024-13-01')",
        f"{HINT}INSERT INTO t (id, j) VALUES ({n + 20}, 'no uuid')",
        f"{HINT}INSERT INTO t (id, i) VALUES ({n + 20}, '{{1,')",
        f"{HINT}INSERT INTO t (id, p) VALUES ({n + 20}, 99)",
        f"{HINT}INSERT INTO t (id, nothing) VALUES ({n + 20}, 1)",
        f"{HINT}INSERT INTO missing (id) VALUES ({n + 20})",
        f"{HINT}INSERT INTO t (id, a) VALUES ({n + 20})",
        f"{HINT}INSERT INTO t (id, a) VALUES ({n + 20}, 1, 2)",
        f"{HINT}INSERT INTO t (id, a) VALUES ({n + 20}, 1/0)",
        f"{HINT}INSERT INTO t (id a) VALUES ({n + 20}, 1)",
        # other kinds of writes, transactions, several statements
        f"{HINT}{insert}({n + 1}, 5, 'c') ON CONFLICT (id) DO UPDATE SET b = excluded.b RETURNING b",
        f"{HINT}UPDATE t SET a = a + 1 WHERE id = {n + 1} RETURNING a",
        f"{HINT}DELETE FROM t WHERE id = {n + 2}",
        f"{HINT}INSERT INTO t (id, b) SELECT {n + 30}, 'select'",
        f"{HINT}{insert}({n + 31}, (SELECT max(a) FROM t WHERE id = {n + 1}), 'subquery') RETURNING a",
        f"{HINT}{insert}({n + 32}, 1, 'x'); {insert}({n + 33}, 1, 'y')",
        f"{HINT}{insert}({n + 34}, 1, 'x'); {insert}({n + 34}, 1, 'twice')",
        "BEGIN", f"{HINT}{insert}({n + 40}, 1, 'kept?')", f"{HINT}{insert}({n + 40}, 1, 'dup')",
        f"{HINT}{insert}({n + 41}, 1, 'aborted')", "ROLLBACK",
        "BEGIN", f"{HINT}{insert}({n + 42}, 1, 'kept')", "COMMIT",
        "SET bytea_output = escape",
        f"{HINT}INSERT INTO t (id, g) VALUES ({n + 43}, '\\x41ff') RETURNING g",
        "SET standard_conforming_strings = off",
        f"{HINT}{insert}({n + 44}, 1, 'a\\'b')",
        "RESET ALL",
        f"{HINT}{insert}({n + 45}, 1, 'back')",
        f"SELECT * FROM t WHERE id BETWEEN {n} AND {n + 999} ORDER BY id",
        "", "-- nothing", "SELECT 1; SELECT 2",
    ]


def my_script(k: int) -> list[str]:
    n = k * 1000
    insert = "INSERT INTO t (id, a, b) VALUES "
    full = "INSERT INTO t (id, a, b, c, e, f, g, h, p) VALUES "
    return [
        f"{HINT}{insert}({n + 1}, 1, 'one')",
        f"{HINT}{insert}({n + 2}, -1, NULL)",
        f"{HINT}{insert}({n + 3}, DEFAULT, '')",
        f"{HINT}{insert}({n + 4}, 2, 'a''b'), ({n + 5}, 3, 'tab\\t\\'q'), ({n + 6}, 4, \"double\")",
        f"{HINT}{insert}({n + 7}, 5, 'Grüße 漢字 🙂') RETURNING *",
        f"{HINT}{insert}({n + 8}, 6, 'x'), ({n + 9}, 7, NULL) RETURNING id, b, a",
        f"{HINT}{full}({n + 10}, 1, 'x', 'y', 1.23, '2024-02-29 12:00:00', x'deadbeef', true, 1) RETURNING *",
        f"{HINT}{full}({n + 11}, '5', NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
        f"{HINT}{insert}({n + 12}, 1, '{'x' * 50000}')",
        f"{HINT}{insert}({n + 13}, 1, lower('ABC'))",
        f"{HINT}INSERT INTO t (id, e) VALUES ({n + 14}, 1.239)",            # a note: decimal cut
        "SHOW WARNINGS",
        f"{HINT}{insert}({n + 1}, 1, 'again')",
        f"{HINT}{insert}({n + 20}, 1000, 'check')",
        f"{HINT}{insert}({n + 20}, NULL, 'not null')",
        f"{HINT}{insert}({n + 20}, 'abc', 'not a number')",
        f"{HINT}{insert}({n + 20}, 99999999999, 'out of range')",
        f"{HINT}{insert}({n + 20}, 1, 'x'), ({n + 21}, 2000, 'second row')",
        f"{HINT}INSERT INTO t (id, c) VALUES ({n + 20}, 'longer than ten')",
        "SHOW WARNINGS",
        f"{HINT}INSERT INTO t (id, f) VALUES ({n + 20}, '2024-13-01')",
        f"{HINT}INSERT INTO t (id, p) VALUES ({n + 20}, 99)",
        f"{HINT}INSERT INTO t (id, nothing) VALUES ({n + 20}, 1)",
        f"{HINT}INSERT INTO missing (id) VALUES ({n + 20})",
        f"{HINT}INSERT INTO t (id, a) VALUES ({n + 20})",
        f"{HINT}INSERT INTO t (id a) VALUES ({n + 20}, 1)",
        f"{HINT}INSERT INTO t VALUES ({n + 20}, 1)",
        f"{HINT}{insert}({n + 22}, 1, 'clean')",
        "SHOW WARNINGS",
        f"{HINT}INSERT IGNORE INTO t (id, a) VALUES ({n + 1}, 1)",
        f"{HINT}{insert}({n + 1}, 5, 'c') ON DUPLICATE KEY UPDATE b = 'd'",
        f"{HINT}REPLACE INTO t (id, a) VALUES ({n + 5}, 9)",
        f"{HINT}UPDATE t SET a = a + 1 WHERE id = {n + 1}",
        f"{HINT}DELETE FROM t WHERE id = {n + 2}",
        f"{HINT}INSERT INTO t (id, b) SELECT {n + 30}, 'select'",
        f"{HINT}INSERT INTO t SET id = {n + 31}, a = 3",
        "BEGIN", f"{HINT}{insert}({n + 40}, 1, 'kept?')", f"{HINT}{insert}({n + 40}, 1, 'dup')", "ROLLBACK",
        "SET autocommit = 0", f"{HINT}{insert}({n + 41}, 1, 'open')", "ROLLBACK", "SET autocommit = 1",
        "START TRANSACTION", f"{HINT}{insert}({n + 42}, 1, 'kept')", "COMMIT",
        "SET sql_mode = ''",
        f"{HINT}{insert}({n + 43}, 'abc', 'silently 0')", "SHOW WARNINGS",
        "SET sql_mode = DEFAULT",
        f"{HINT}{insert}({n + 45}, 1, 'back')",
        "SET NAMES sjis", f"{HINT}{insert}({n + 46}, 1, 'x')", "SET NAMES utf8mb4",
        "/*!50000 SET @a = 1 */",
        f"SELECT * FROM t WHERE id BETWEEN {n} AND {n + 999} ORDER BY id",
    ]


def compare(scripts, direct, through, normalise):
    for k, script in enumerate(scripts):
        for sql, a, b in zip(script, direct[k], through[k], strict=True):
            assert normalise(b) == normalise(a), (f"session {k}: {sql[:200]}", a[-200:], b[-200:])


@pytest.mark.parametrize("sessions", [1, SESSIONS])
def test_postgres_answers_are_the_same(postgres, proxy, sessions, table):
    import psycopg
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {table}a")
        setup = RawPostgres(postgres.port, f"{table}a")
        setup.query(PG_TABLE)
        setup.close()
        # a copy has the same object ids, which RowDescription tells; the server may still be closing the session
        nobody_in(admin, f"{table}a")
        admin.execute(f"CREATE DATABASE {table}b TEMPLATE {table}a")
    answers = {}
    scripts = [pg_script(k) for k in range(sessions)]
    step = threading.Barrier(sessions, timeout=60)
    before = proxy.stats()["batched_writes_total"]
    for side, port in (("a", postgres.port), ("b", proxy.postgres_port)):
        def work(k, side=side, port=port):
            session = RawPostgres(port, f"{table}{side}")
            try:
                return [(step.wait(), session.query(sql))[1] for sql in scripts[k]]
            finally:
                session.close()

        answers[side] = together(sessions, work)
    compare(scripts, answers["a"], answers["b"], lambda x: x)
    if sessions > 1:
        assert proxy.stats()["batched_writes_total"] - before >= sessions * 4


@pytest.mark.parametrize("sessions", [1, SESSIONS])
@pytest.mark.parametrize("flags", [0, CLIENT.FOUND_ROWS, DEPRECATE_EOF | SESSION_TRACK],
                         ids=["default", "found_rows", "deprecate_eof"])
def test_mariadb_answers_are_the_same(mariadb, proxy, sessions, flags, table):
    answers = {}
    scripts = [my_script(k) for k in range(sessions)]
    step = threading.Barrier(sessions, timeout=60)
    before = proxy.stats()["batched_writes_total"]
    for side, port in (("a", mariadb.port), ("b", proxy.mariadb_port)):
        with mariadb.connect() as setup, setup.cursor() as cursor:
            for sql in (f"CREATE DATABASE {table}{side}", f"USE {table}{side}", *MY_TABLE):
                cursor.execute(sql)

        def work(k, side=side, port=port):
            with mariadb.connect(port, database=f"{table}{side}", charset="utf8mb4",
                                 client_flag=flags) as connection:
                session = RawMariaDB(connection, bool(flags & DEPRECATE_EOF))
                return [(step.wait(), session.query(sql))[1] for sql in scripts[k]]

        answers[side] = together(sessions, work)
    compare(scripts, answers["a"], answers["b"],
            lambda x: x.replace(f"{table}b".encode(), f"{table}a".encode()))
    if sessions > 1:
        assert proxy.stats()["batched_writes_total"] - before >= sessions * 2
