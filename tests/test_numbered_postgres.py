"""PostgreSQL's UPDATEs and DELETEs as text go as executions of one statement: columns keep, and find, the same."""

import struct
from contextlib import suppress

import psycopg
import pytest

from tests.crowd import together
from tests.raw import RawPostgres
from tests.sansio import Hooks
from tests.test_sans_io import answer_session, logged_in
from tests.wire import COLUMNS, PG_FACTS, READY, pg, pg_error, pg_query
from tqdb.analysis import analyze_statement

SESSIONS = 8
HINT = "/* max_wait_ms:200 */ "
SCHEMA = """
CREATE TYPE mood AS ENUM ('a', 'b');
CREATE DOMAIN short AS varchar(3);
CREATE DOMAIN hours AS interval hour;
"""
TYPES = (
    "smallint", "int", "bigint", "numeric", "numeric(6,2)", "real", "double precision", "text", "varchar(5)", "char(5)",
    "bytea", "boolean", "json", "jsonb", "date", "time", "time(0)", "timetz", "timestamp", "timestamp(1)",
    "timestamptz", "interval", "interval hour", "interval(1)", "uuid", "inet", "cidr", "bit(4)", "bit varying(5)",
    "mood", "short", "hours", "oid", "name", '"char"', "int[]", "int4range", "money", "point", "regclass", "xid")
LITERALS = (
    "0", "1", "-1", "- 1", "+1", "007", "5.50", "-0.001", ".5", "5.", "1e3", "2147483647", "2147483648", "-2147483648",
    "-2147483649", "9223372036854775807", "99999999999999999999", "0.1234567890123456789012345678901234567890123456",
    *(f"'{text}'" for text in (
        "", " ", "a", "b", "ab   ", "abcdef", "1", "-1", " 7 ", "3.25", "1e3", "it''s", "''", "''''", "\\", "\\x00ff",
        "\\\\''", "äöü€", "t", "yes", "null", '{"k": [1, "a"]}', "2024-02-29", "2024-02-29 12:34:56.789",
        "2024-02-29 12:34:56+05", "infinity", "12:34:56.7", "12:34+02", "5", "5:30", "1 day 02:03:04.56", "P1DT1H",
        "00000000-0000-0000-0000-00000000000a", "10.0.0.0/8", "::1", "1010", "{1,2}", "[1,5)", "(1,2)", "pg_class",
        "$1", "?", "-- x", "/* x */", ";")),
    "NULL", "true", "E'a\\nb'", "$$a$$", "$x$it's$x$", "B'1010'", "X'ff'", "U&'\\0041'", "N'a'", "date '2024-02-29'",
    "'a'\n'b'")
FORMS = (
    "UPDATE {table} SET v = {literal}, n = n + 1 WHERE k = KEY",
    "UPDATE {table} SET n = n - 2 WHERE v = {literal} AND k = KEY",
    "DELETE FROM {table} WHERE k = KEY AND v >= {literal}")


@pytest.fixture(scope="module")
def database(postgres):
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE numbered")
        with psycopg.connect(postgres.dsn(), dbname="numbered", autocommit=True) as c:
            c.execute(SCHEMA)
            yield c
        admin.execute("DROP DATABASE numbered WITH (FORCE)")


def play(port: int, texts: list[str], order: list[int]) -> list[list[bytes]]:
    """Every session sends every text in this order, for keys of its own: the answers of each, by text."""
    sessions = [RawPostgres(port, "numbered") for _ in range(SESSIONS)]

    def work(i: int) -> list[bytes]:
        found = {k: sessions[i].query(texts[k].replace("KEY", str(len(texts) * i + k))) for k in order}
        return [found[k] for k in range(len(texts))]

    try:
        return together(SESSIONS, work)
    finally:
        for session in sessions:
            session.close()


@pytest.mark.parametrize("kind", TYPES)
def test_every_literal_in_every_type_of_column(postgres, proxy, database, kind):
    """The good ones come first, so that batches are not taken apart. Rows are found by what they have got."""
    for number, form in enumerate(FORMS):
        answers, contents = [], []
        before = proxy.batched()
        order = list(range(len(LITERALS)))
        for port in (postgres.port, proxy.postgres_port):
            table = f"n{TYPES.index(kind)}_{number}_{len(answers)}"
            # answers tell positions in the text: both names are of one length
            database.execute(f"CREATE TABLE {table} (k int PRIMARY KEY, v {kind}, n int NOT NULL DEFAULT 0)")
            database.execute(f"INSERT INTO {table} (k) SELECT generate_series(0, {SESSIONS * len(LITERALS)} - 1)")
            for k, literal in enumerate(LITERALS if number else ()):
                with suppress(psycopg.Error):       # the column does not take it
                    database.execute(f"UPDATE {table} SET v = {literal} WHERE k % {len(LITERALS)} = {k}")
            found = play(port, [HINT + form.format(table=table, literal=literal) for literal in LITERALS], order)
            answers.append([[answer.replace(table.encode(), b"") for answer in one] for one in found])
            contents.append(database.execute(f"SELECT k, textsend(v::text), n FROM {table} ORDER BY k").fetchall())
            order.sort(key=lambda k: answers[0][0][k][:1] == b"E")
        assert answers[0] == answers[1], form
        assert contents[0] == contents[1], form
        if kind in ("int", "text", "numeric", "timestamptz"):
            good = sum(answer[:1] != b"E" for one in answers[0] for answer in one)
            assert proxy.batched() - before > good / 2


@pytest.mark.parametrize("first, other", [("n <= 3", "n < = 3"), ("n <> 3", "n < > 3"), ("n < -1", "n <-1"),
                                          ("v = 'a'\n'b'", "v = 'a' 'b'"), ("n != 3", "n ! = 3")])
def test_blanks_that_the_server_does_not_overlook(postgres, proxy, database, table, first, other):
    """One who is told an error by himself is told it in company as well."""
    told, contents = [], []
    for port, name in ((postgres.port, table + "a"), (proxy.postgres_port, table + "b")):
        database.execute(f"CREATE TABLE {name} (k int PRIMARY KEY, v text DEFAULT 'ab', n int NOT NULL DEFAULT 0)")
        database.execute(f"INSERT INTO {name} (k) SELECT generate_series(0, {SESSIONS} - 1)")
        sessions = [RawPostgres(port, "numbered") for _ in range(SESSIONS)]
        said = [HINT + f"UPDATE {name} SET n = n + 1 WHERE {other if k == SESSIONS - 1 else first} AND k = {k}"
                for k in range(SESSIONS)]
        rounds = [together(SESSIONS, lambda k, on=sessions, said=said: on[k].query(said[k])) for _ in range(5)]
        told.append([[answer.replace(name.encode(), b"") for answer in one] for one in rounds])
        contents.append(database.execute(f"SELECT * FROM {name} ORDER BY k").fetchall())
        for session in sessions:
            session.close()
    assert told[1] == told[0] and contents[1] == contents[0]


# --- what is sent -----------------------------------------------------------------------------------------------------

COUNT = 5
UPDATE = HINT + "UPDATE t SET a = {0}, b = '{1}' WHERE k = {0}"
INT4, TEXT, INTERVAL = 23, 25, 1186


def gathered(texts: list[str]):
    """Sessions with one text each, all of which leave together, and what then is sent: the leader, its bytes."""
    hooks = Hooks()
    hooks.engine.tick(1000.0)
    links = [logged_in(hooks) for _ in texts]
    for number, (session, server) in enumerate(links):
        session.receive(pg_query(texts[number]))
        answer_session(server)
        if number == 0:
            assert b"pg_catalog" in server.take_out()
            server.receive(COLUMNS + PG_FACTS + pg(b"C", b"SELECT 1\0") + READY)
        hooks.engine.tick(1001.0 + number)
        assert server.take_out() == pg_query(texts[number])
        server.receive(pg(b"C", b"UPDATE 1\0") + READY)
        session.take_out()
    for number, (session, _) in enumerate(links):
        session.receive(pg_query(texts[number]))
    hooks.engine.tick(1020.0)
    return links, *leading(links)


def leading(links):
    found = [(server, data) for _, server in links if (data := bytes(server.take_out()))]
    assert len(found) == 1 and b"BEGIN" in found[0][1]
    return found[0]


def opened(sent: bytes) -> bytes:
    """The answer to what opens a batch's transaction."""
    return pg(b"1") + pg(b"2") + pg(b"C", b"BEGIN\0") + (
        pg(b"1") + pg(b"2") + pg(b"C", b"SET\0")) * sent.count(b"SET LOCAL ")


def described(*types: int) -> bytes:
    return pg(b"1") + pg(b"t", struct.pack(f"!H{len(types)}I", len(types), *types)) + pg(b"n")


def executed(links) -> bytes:
    return b"".join(pg(b"2") + pg(b"C", b"UPDATE %d\0" % k) for k in range(len(links))) + pg(b"Z", b"T")


def texts(value: str = "it''s {}", count: int = COUNT) -> list[str]:
    return [UPDATE.format(k + 1, value.format(k)) for k in range(count)]


def test_one_statement_is_parsed_and_bound_for_each():
    links, server, sent = gathered(texts())
    assert sent.count(b"a = $1 , b = $2  WHERE k = $3 \0\0\3" + struct.pack("!3I", INT4, 0, INT4)) == 1
    for k in range(COUNT):
        value = b"it's %d" % k
        assert sent.count(b"\0\0\0\0\0\3" + b"\0\0\0\1%d" % (k + 1) + struct.pack("!I", len(value)) + value) == 1
    server.receive(opened(sent) + described(INT4, TEXT, INT4) + executed(links))
    assert b"COMMIT" in server.take_out()
    server.receive(pg(b"C", b"COMMIT\0") + READY)
    told = [bytes(session.take_out()) for session, _ in links]
    assert sorted(told) == [pg(b"C", b"UPDATE %d\0" % k) + READY for k in range(COUNT)]


@pytest.mark.parametrize("answer", [
    described(INT4, INTERVAL, INT4) + pg(b"2"), described(INT4, 16400, INT4), pg_error(b"42P18"),
    pg(b"1") + pg(b"N", b"SNOTICE\0\0"), pg(b"N", b"SNOTICE\0\0"), pg(b"1") + pg(b"t", b"\0\5\0\0")],
    ids=["interval", "of a user", "error", "notice", "notice before", "short"])
def test_what_the_server_finds_another_type_for_goes_as_text(answer):
    """Nobody is to blame for it: all go together again, and so does what comes later."""
    links, server, sent = gathered(texts())
    server.receive(opened(sent) + answer + pg(b"Z", b"E"))
    assert b"ROLLBACK" in server.take_out()
    server.receive(pg(b"C", b"ROLLBACK\0") + READY)
    sent = [bytes(server.take_out()) for _, server in links]
    assert all(b"$1" not in data for data in sent) and sum(data.count(b"UPDATE t") for data in sent) == COUNT
    assert sum(b"BEGIN" in data for data in sent) >= 1


@pytest.mark.parametrize("odd", [
    "UPDATE t SET a = NULL, b = 'x' WHERE k = 3", "UPDATE t SET a = 3000000000, b = 'x' WHERE k = 3",
    "UPDATE t SET a = 1.5, b = 'x' WHERE k = 3", "UPDATE t SET a = '1', b = 'x' WHERE k = 3"])
def test_literals_of_other_types_go_as_text(odd):
    _, _, sent = gathered([*texts(count=COUNT - 1), HINT + odd])
    assert b"$1" not in sent and sent.count(b"UPDATE t") == COUNT


def test_few_go_as_text():
    assert b"$1" not in gathered(texts(count=3))[2]


# --- what a text allows -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("sql, count", [
    ("UPDATE t SET a = 1", 1), ("UPDATE s.t AS x SET a = 'b', c = a - 2 WHERE x.k = 3 AND d < '4'", 4),
    ("DELETE FROM t WHERE k >= 5 AND b <> 'x'", 2), ("UPDATE t SET a = now() WHERE k = -1", 1),
    ("UPDATE t SET a = b * 1.5", 1), ("UPDATE t SET a = NULL WHERE k = 1", 2),
    ("UPDATE t SET a = 1 WHERE k = 1 RETURNING a", 0), ("UPDATE t SET a = 1 WHERE k IN (1, 2)", 0),
    ("UPDATE t SET a = 1 WHERE k = 1 OR k = 2", 0), ("UPDATE t SET a = a || 'x' WHERE k = 1", 0),
    ("UPDATE t SET a = 'x'::text WHERE k = 1", 0), ("UPDATE t SET (a, b) = (1, 2)", 0),
    ("UPDATE t SET a = (SELECT 1)", 0), ("UPDATE t SET a[1] = 1", 0), ("UPDATE t SET a = 1 + a", 0),
    ("UPDATE t SET a = 1 FROM u WHERE t.k = u.k", 0), ("DELETE FROM t USING u WHERE t.k = 1", 0),
    ("WITH x AS (SELECT 1) UPDATE t SET a = 1", 0), ("UPDATE t SET a = lower('x')", 0),
    ("UPDATE t SET a = 1 WHERE k BETWEEN 1 AND 2", 0), ("UPDATE t SET a = 1 WHERE b LIKE 'x'", 0),
    ("UPDATE t SET a = 1 WHERE k OPERATOR(pg_catalog.=) 1", 0), ("UPDATE t SET a = 1 WHERE NOT k = 1", 0),
    ("UPDATE t SET a = 1 WHERE 1 = k", 0), ("UPDATE t SET a = a - 'x'", 0), ("DELETE FROM t", 0),
    ("INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO NOTHING", 0)])
def test_literals_that_may_be_parameters(sql, count):
    found = analyze_statement(0, sql.encode())
    assert found is not None and found.literals == count
