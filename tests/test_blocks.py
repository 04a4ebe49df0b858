"""Transactions of one write that arrive whole: each answer is byte for byte the direct one, and they are batched."""

import socket
import threading

import psycopg
import pytest
from tqdb._core import scan_in_block

from tests import wire
from tests.crowd import together
from tests.raw import RawPostgres
from tests.sansio import Hooks
from tests.test_sans_io import answer_session, logged_in
from tests.wait import nobody_in, wait_for

SESSIONS = 8
HINT = "/* max_wait_ms:60 file:blocks.py line:1 */ "
WRITE = "INSERT INTO t (a) VALUES (1)"


# --- what is one, as text ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("sql, wait, file", [
    (f"BEGIN; /* max_wait_ms:10 */ {WRITE}; COMMIT", 10, b""),
    (f"/* max_wait_ms:10 file:a.py */ BEGIN; {WRITE}; COMMIT", 10, b"a.py"),
    (f"-- max_wait_ms:10\nbegin;\n{WRITE};\ncommit;\n", 10, b""),
    (f"BEGIN;{WRITE}/*max_wait_ms='10'*/;COMMIT", 10, b""),
    (f"BEGIN; {WRITE}; COMMIT /*max_wait_ms='10'*/", 10, b""),
    (f"/* max_wait_ms:20 file:out.py */ BEGIN; /* max_wait_ms:10 */ {WRITE}; COMMIT", 10, b"out.py"),
    (f"BEGIN WORK; {WRITE}; COMMIT WORK", None, b""),
    (f"START /* a */ TRANSACTION -- b\n ; {WRITE} ; COMMIT ;; ", None, b""),
])
@pytest.mark.parametrize("dialect", ["postgres", "mariadb"])
def test_texts_that_are_one(sql, wait, file, dialect):
    found = scan_in_block(sql.encode(), dialect)
    assert found["write"] == WRITE.encode() and WRITE.encode() in found["part"] and b"BEGIN" not in found["part"]
    assert (found["wait_ms"], found["file"], found["multi"], found["ntuples"]) == (wait, file, False, 1)


@pytest.mark.parametrize("sql, postgres, mariadb", [
    (f"BEGIN TRANSACTION; {WRITE}; COMMIT TRANSACTION", True, False),
    (f"BEGIN; {WRITE}; END", True, False),
    (f"BEGIN; {WRITE}; END WORK", True, False),
    (f"BEGIN; {WRITE}; COMMIT; -- done", True, False),
    (f"BEGIN; {WRITE}; COMMIT; /* done */;", True, False),
    ("BEGIN; UPDATE t SET a = ';' WHERE b = 'COMMIT'; COMMIT", True, True),
    ("BEGIN; UPDATE t SET a = ';', b = $$; COMMIT$$; COMMIT", True, False),
    (f"BEGIN; {WRITE} # ; ROLLBACK\n; COMMIT", False, True),
    ("BEGIN; DELETE FROM t /* ; */; COMMIT", True, True),
    *((sql, False, False) for sql in (
        "BEGIN; COMMIT", "BEGIN", "", ";", "/*", "BEGIN;", f"BEGIN; {WRITE}", f"BEGIN; {WRITE};", f"{WRITE}; COMMIT",
        f"BEGIN; {WRITE}; {WRITE}; COMMIT", f"BEGIN; {WRITE}; COMMIT; {WRITE}", f"BEGIN; {WRITE}; COMMIT; COMMIT",
        f"BEGIN; {WRITE}; ROLLBACK", f"BEGIN; SAVEPOINT a; {WRITE}; COMMIT", "BEGIN; SELECT 1; COMMIT",
        f"BEGIN; SET a = 1; {WRITE}; COMMIT", f"BEGIN; {WRITE}; SET a = 1; COMMIT", f"BEGIN;; {WRITE}; COMMIT",
        f"BEGIN ISOLATION LEVEL SERIALIZABLE; {WRITE}; COMMIT", f"BEGIN READ ONLY; {WRITE}; COMMIT",
        f"START TRANSACTION READ WRITE; {WRITE}; COMMIT", f"START TRANSACTION DEFERRABLE; {WRITE}; COMMIT",
        f"START TRANSACTION WITH CONSISTENT SNAPSHOT; {WRITE}; COMMIT", f"START; {WRITE}; COMMIT",
        f"BEGIN; {WRITE}; COMMIT AND CHAIN", f"BEGIN; {WRITE}; COMMIT AND NO CHAIN", f"BEGIN; {WRITE}; COMMIT RELEASE",
        f"BEGIN; {WRITE}; COMMIT PREPARED 'a'", f"BEGIN; {WRITE}; PREPARE TRANSACTION 'a'", f"BEGIN {WRITE}; COMMIT",
        f"BEGIN NOT ATOMIC {WRITE}; END", f"BEGIN; {WRITE} COMMIT", f"BEGINS; {WRITE}; COMMIT",
        f"BEGIN; {WRITE}; COMMITS", f"/*+ a */ BEGIN; {WRITE}; COMMIT", f"/*!40000 SET a=1; */ BEGIN; {WRITE}; COMMIT",
        f"BEGIN; /*+ a */ {WRITE}; COMMIT", f"BEGIN; {WRITE}; COMMIT /*", "BEGIN; INSERT INTO t VALUES ('; COMMIT",
        f"BEGIN\v; {WRITE}; COMMIT")),
])
def test_texts_that_are_not_for_all(sql, postgres, mariadb):
    assert (scan_in_block(sql.encode()) is not None, scan_in_block(sql.encode(), "mariadb") is not None) == (
        postgres, mariadb)


# --- PostgreSQL -------------------------------------------------------------------------------------------------------

PG_TABLES = """
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent VALUES (1);
CREATE TABLE t (id int PRIMARY KEY, a int CHECK (a < 1000), b text);
CREATE TABLE late (id int PRIMARY KEY, p int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE g (id int PRIMARY KEY, a int, twice int);
CREATE FUNCTION doubled() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.twice := NEW.a * 2; RETURN NEW; END';
CREATE TRIGGER doubles BEFORE INSERT ON g FOR EACH ROW EXECUTE FUNCTION doubled();
"""


def pg_writes(n: int) -> list[str]:
    """Good ones first; ids are the session's own."""
    return [
        f"INSERT INTO t VALUES ({n + 1}, 1, 'one')",
        f"INSERT INTO t VALUES ({n + 2}, 2, 'two; COMMIT') RETURNING *",
        f"INSERT INTO t VALUES ({n + 3}, 3, 'x'), ({n + 4}, 4, 'y') RETURNING id",
        f"UPDATE t SET a = a + 1 WHERE id = {n + 1} RETURNING a",
        f"UPDATE t SET a = a + 1 WHERE id BETWEEN {n + 1} AND {n + 9}",
        f"DELETE FROM t WHERE id = {n + 4}",
        f"INSERT INTO t VALUES ({n + 1}, 5, 'up') ON CONFLICT (id) DO UPDATE SET b = excluded.b",
        f"INSERT INTO g (id, a) VALUES ({n + 1}, 21) RETURNING twice",
        f"WITH gone AS (DELETE FROM t WHERE id = {n + 3} RETURNING *) INSERT INTO t SELECT id + 500, a, b FROM gone",
        # errors, at the write …
        f"INSERT INTO t VALUES ({n + 1}, 1, 'again')",
        f"INSERT INTO t VALUES ({n + 20}, 1000, 'check')",
        f"INSERT INTO t VALUES ({n + 20}, 'abc', '')",
        f"INSERT INTO t (nothing) VALUES ({n})",
        f"INSERT INTO t VALUES {n}",
        # … and at COMMIT
        f"INSERT INTO late VALUES ({n + 1}, 99)",
        f"INSERT INTO late VALUES ({n + 2}, 1)",
    ]


GOOD = 9


def queries(*texts: str) -> tuple[bytes, int]:
    """Query messages in one send, and how many ReadyForQuery end their answers."""
    return b"".join(wire.pg_query(text) for text in texts), len(texts)


def pg_forms(write: str) -> list[tuple[bytes, int]]:
    return [
        queries(f"BEGIN; {HINT}{write}; COMMIT"),
        queries("BEGIN", HINT + write, "COMMIT"),
        queries(f"{HINT}START TRANSACTION; {write}; END TRANSACTION"),
    ]


# what is relayed, whole or in pieces
PG_OTHERS = [
    queries("BEGIN", HINT + "INSERT INTO t VALUES ({n} + 30, 1, '')"), queries("COMMIT"),
    queries("BEGIN", HINT + "INSERT INTO t VALUES ({n} + 31, 1, '')", "ROLLBACK"),
    queries("BEGIN; " + HINT + "INSERT INTO t VALUES ({n} + 32, 1, ''); ROLLBACK"),
    queries("BEGIN READ ONLY", HINT + "INSERT INTO t VALUES ({n} + 33, 1, '')", "COMMIT"),
    queries("BEGIN; SAVEPOINT a; " + HINT + "INSERT INTO t VALUES ({n} + 34, 1, ''); COMMIT"),
    queries("BEGIN; " + HINT + "INSERT INTO t VALUES ({n} + 35, 1, ''); COMMIT AND CHAIN"), queries("COMMIT"),
    queries("BEGIN", "BEGIN; " + HINT + "INSERT INTO t VALUES ({n} + 36, 1, ''); COMMIT"), queries("COMMIT"),
    queries("SET default_transaction_isolation = 'serializable'"),
    queries("BEGIN; " + HINT + "INSERT INTO t VALUES ({n} + 37, 1, current_setting('transaction_isolation')); COMMIT"),
    queries("RESET default_transaction_isolation"),
    # neighbours of every kind, in one send
    queries("SELECT 1", "BEGIN; " + HINT + "INSERT INTO t VALUES ({n} + 38, 1, ''); COMMIT", "SELECT 2", "BEGIN",
            HINT + "INSERT INTO t VALUES ({n} + 39, 1, '')", "COMMIT", HINT + "INSERT INTO t VALUES ({n} + 40, 1, '')",
            "BEGIN", HINT + "INSERT INTO t VALUES ({n} + 40, 1, '')", "COMMIT", "SHOW transaction_isolation"),
    # the session's word counts as well
    queries("SET tqdb.max_wait_ms = 60"),
    queries("BEGIN; INSERT INTO t VALUES ({n} + 41, 1, ''); COMMIT"),
    queries("BEGIN", "INSERT INTO t VALUES ({n} + 42, 1, '')", "COMMIT"),
    queries("RESET tqdb.max_wait_ms"),
    queries("SELECT * FROM t WHERE id BETWEEN {n} + 30 AND {n} + 99 ORDER BY id"),
]


def for_session(step: tuple[bytes, int], n: int) -> tuple[bytes, int]:
    """The step with the session's number in its texts, which does not change their length."""
    return step[0].replace(b"{n}", b"%3d" % n), step[1]


@pytest.fixture(scope="module")
def pg_sides(postgres, proxy):
    """Databases that are copies, with the same object ids: one for direct sessions, one for those through the proxy."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE blocks_a")
        setup = RawPostgres(postgres.port, "blocks_a")
        setup.query(PG_TABLES)
        setup.close()
        nobody_in(admin, "blocks_a")
        admin.execute("CREATE DATABASE blocks_b TEMPLATE blocks_a")
    return (("blocks_a", postgres.port), ("blocks_b", proxy.postgres_port))


def play(sides, scripts) -> list:
    """Each script on a session of its own, step by step at the same time; the answers of each side."""
    seen = []
    for database, port in sides:
        step = threading.Barrier(len(scripts), timeout=60)

        def work(k, database=database, port=port, step=step):
            session = RawPostgres(port, database)
            try:
                told = []
                for data, answers in scripts[k]:
                    step.wait()
                    session.sock.sendall(data)
                    told.append([session.answer() for _ in range(answers)])
                return told
            finally:
                session.close()

        seen.append(together(len(scripts), work))
    return seen


def same(scripts, direct, through):
    for k, script in enumerate(scripts):
        for (data, _), a, b in zip(script, direct[k], through[k], strict=True):
            assert b == a, (k, data)


def test_postgres_answers_are_the_same(proxy, pg_sides):
    scripts = []
    for k in range(SESSIONS):
        steps = []
        for form in range(3):
            writes = [pg_forms(write)[form] for write in pg_writes(k * 10000 + form * 1000)]
            steps += writes[:GOOD]
            for step in writes[GOOD:]:
                steps += [step, queries("ROLLBACK")]
        steps += [for_session(step, k * 100) for step in PG_OTHERS]
        scripts.append(steps)
    before = proxy.batched()
    direct, through = play(pg_sides, scripts)
    same(scripts, direct, through)
    assert any(b"Z\0\0\0\5T" in answer for answer in direct[0][GOOD + 14])
    assert proxy.batched() - before >= SESSIONS * 3 * (GOOD - 1)


def run(text: str = "", name: bytes = b"", *values: bytes, describe: bool = True) -> bytes:
    """Parse, unless there is no text, Bind, Describe and Execute."""
    return ((wire.pg_parse(name, text.encode()) if text else b"") + wire.pg_bind(b"", name, *values)
            + (wire.pg(b"D", b"P\0") if describe else b"") + wire.pg(b"E", b"\0" * 5))


SYNC = wire.pg(b"S")


def extended_forms(write: str, *values: bytes) -> list[list[tuple[bytes, int]]]:
    """Steps; ``begin`` and ``commit`` are prepared."""
    one = run(HINT + write, b"", *values)
    ahead = run(HINT + write, b"", *values, describe=False)
    return [
        [(run("BEGIN") + one + run("COMMIT") + SYNC, 1)],
        [(run("START TRANSACTION", describe=False) + SYNC + one + SYNC + run("END", describe=False) + SYNC, 3)],
        [(run("", b"begin") + ahead + run("", b"commit") + SYNC, 1)],
        [(wire.pg_parse(b"w", (HINT + write).encode()) + SYNC, 1),
         (run("", b"begin", describe=False) + run("", b"w", *values) + run("", b"commit") + SYNC, 1),
         (wire.pg(b"C", b"Sw\0") + SYNC, 1)],
        [(run("BEGIN") + one + SYNC + run("COMMIT") + SYNC, 2)],
    ]


# what goes on its way as it came
EXTENDED_OTHERS = [
    (run("BEGIN") + SYNC + run(HINT + "INSERT INTO t VALUES ({n} + 30, 1, '')") + run("COMMIT") + SYNC, 2),
    (run("BEGIN") + run(HINT + "INSERT INTO t VALUES ({n} + 31, 1, '')") + SYNC, 1), (run("COMMIT") + SYNC, 1),
    (run("BEGIN") + run(HINT + "INSERT INTO t VALUES ({n} + 32, 1, '')") + run("ROLLBACK") + SYNC, 1),
    (run("BEGIN") + run(HINT + "INSERT INTO t VALUES ({n} + 33, 1, '')", b"", b"1") + run("COMMIT") + SYNC, 1),
    queries("ROLLBACK"),
    (run("BEGIN READ ONLY") + run(HINT + "INSERT INTO t VALUES ({n} + 34, 1, '')") + run("COMMIT") + SYNC, 1),
    queries("ROLLBACK"),
    (run("BEGIN") + run(HINT + "INSERT INTO t VALUES ({n} + 35, 1, '')") + run("SELECT 1") + run("COMMIT") + SYNC, 1),
    (run("BEGIN") + run("", b"nothing") + run("COMMIT") + SYNC, 1), queries("ROLLBACK"),
    (run("BEGIN") + run(HINT + "INSERT INTO t VALUES ({n} + 36, 1, '')") + run("COMMIT")
     + run("SELECT 2") + SYNC, 1),
    # the statement without a name is the last that was prepared so
    (run("BEGIN") + run(HINT + "INSERT INTO t VALUES ({n} + 37, 1, '')") + run("COMMIT") + SYNC, 1),
    (wire.pg(b"D", b"S\0") + run() + SYNC, 1),
    (run("", b"begin") + run(HINT + "INSERT INTO t VALUES ({n} + 38, 1, '')") + run("", b"commit") + SYNC, 1),
    (run() + SYNC, 1), queries("ROLLBACK"),
    # neighbours
    (run("SELECT 1") + SYNC + run("BEGIN") + run(HINT + "INSERT INTO t VALUES ({n} + 39, 1, '')") + run("COMMIT") + SYNC
     + wire.pg_query(f"BEGIN; {HINT}INSERT INTO t VALUES ({{n}} + 40, 1, ''); COMMIT")
     + run("BEGIN") + run(HINT + "INSERT INTO t VALUES ({n} + 40, 1, '')") + run("COMMIT") + SYNC
     + run("SELECT 2") + SYNC, 5),
    queries("ROLLBACK"),
    (run("DEALLOCATE begin") + SYNC, 1),
    (run("", b"begin") + run(HINT + "INSERT INTO t VALUES ({n} + 41, 1, '')") + run("", b"commit") + SYNC, 1),
    queries("SELECT * FROM t WHERE id BETWEEN {n} + 30 AND {n} + 99 ORDER BY id"),
]


def test_postgres_extended_answers_are_the_same(proxy, pg_sides):
    scripts = []
    for k in range(SESSIONS):
        steps = [(wire.pg_parse(b"begin", b"BEGIN") + wire.pg_parse(b"commit", b"COMMIT WORK;") + SYNC, 1)]
        for form in range(5):
            base = 1000000 + k * 10000 + form * 1000
            texts = pg_writes(base)
            written = [(text,) for text in texts[:GOOD]] + [
                ("INSERT INTO t VALUES ($1, 1, $2)", b"%d" % (base + 700), b"bound"),
                ("UPDATE t SET a = 9 WHERE id = $1 RETURNING a", b"%d" % (base + 700))]
            for write in written:
                steps += extended_forms(*write)[form]
            for text in texts[GOOD:]:
                steps += [*extended_forms(text)[form], queries("ROLLBACK")]
        scripts.append(steps + [for_session(step, k * 100 + 100) for step in EXTENDED_OTHERS])
    before = proxy.batched()
    direct, through = play(pg_sides, scripts)
    same(scripts, direct, through)
    assert proxy.batched() - before >= SESSIONS * 5 * (GOOD - 1)


@pytest.mark.parametrize("form", ["whole", "queries", 0, 1, 2, 4])
def test_postgres_in_two_sends(proxy, pg_sides, form):
    """Cut at every byte; each time it is answered as it is directly."""
    write = "UPDATE parent SET id = 1 WHERE id = 1 RETURNING id"
    data, answers = (queries(f"BEGIN; {HINT}{write}; COMMIT") if form == "whole" else
                     queries("BEGIN", HINT + write, "COMMIT") if form == "queries" else extended_forms(write)[form][0])
    told = []
    for database, port in pg_sides:
        session = RawPostgres(port, database)
        session.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session.say(wire.pg_parse(b"begin", b"BEGIN") + wire.pg_parse(b"commit", b"COMMIT") + SYNC)
        seen = []
        for at in range(0, len(data), 1 if port == proxy.postgres_port else len(data)):
            session.sock.sendall(data[:at])
            session.sock.sendall(data[at:])
            seen.append(b"".join(session.answer() for _ in range(answers)))
        told.append(set(seen))
        session.close()
    assert told[0] == told[1] and len(told[0]) == 1


def test_postgres_a_write_and_its_counts(start_proxy, postgres, pg, table):
    """Counted once, as the write that it is, with its labels."""
    proxy = start_proxy(postgres=postgres)
    pg(through=False).execute(f"CREATE TABLE {table} (id int)")
    session = RawPostgres(proxy.postgres_port)
    session.query(f"{HINT}INSERT INTO {table} VALUES (0)")          # the catalogue is asked
    before = proxy.metric("tqdbproxy_query_total")
    data, answers = queries(*(f"BEGIN; {HINT}INSERT INTO {table} VALUES ({i}); COMMIT" for i in range(3)),
                            "BEGIN", f"{HINT}INSERT INTO {table} VALUES (3)", "COMMIT")
    session.sock.sendall(data)
    for _ in range(answers):
        assert session.answer()[:1] == b"C"
    assert proxy.metric("tqdbproxy_batched_writes_total", file="blocks.py", line="1", query_type="insert") == 4
    assert proxy.metric("tqdbproxy_query_total") - before == 4
    assert proxy.metric("tqdbproxy_write_batch_size_count", query_type="insert") >= 1
    assert b"nobody_left" in session.query("SHOW TQDB STATUS")
    alone = proxy.counted("in_transaction")
    session.query("BEGIN")
    session.query(f"BEGIN; {HINT}INSERT INTO {table} VALUES (9); COMMIT")
    assert proxy.counted("in_transaction") == alone + 1
    session.close()


def pg_answers(text: bytes) -> bytes:
    """What a server says to a transaction of one write, or a part of it."""
    out, status = b"", b"I"
    for part in text.split(b"; "):
        word = part.split(b"*/ ")[-1].split()[0]
        status = {b"BEGIN": b"T", b"COMMIT": b"I"}.get(word, status)
        out += wire.pg(b"C", b"INSERT 0 1\0" if word == b"INSERT" else word + b"\0")
    if text.startswith(b"/*"):
        status = b"T"                   # the write by itself, behind BEGIN
    return out + wire.pg(b"Z", status)


def pg_talk(pieces: list[bytes]) -> tuple[bytes, bytes]:
    """What the server and the client were sent, on a session whose class and table are known and that is alone."""
    session, server = logged_in(Hooks())
    session.receive(wire.pg_query(HINT + WRITE))
    answer_session(server)
    server.take_out()
    server.receive(wire.COLUMNS + wire.PG_FACTS + wire.pg(b"C", b"SELECT 1\0") + wire.READY)
    server.take_out()
    server.receive(wire.pg(b"C", b"INSERT 0 1\0") + wire.READY)
    session.take_out()
    sent = b""
    for piece in [*pieces, b""]:
        session.receive(piece)
        while more := server.take_out():
            sent += more
            server.receive(b"".join(pg_answers(body[:-1]) for _, body in wire.pg_split(more)[0]))
    return sent, session.take_out()


@pytest.mark.parametrize("texts", [("BEGIN", HINT + WRITE, "COMMIT"), (f"BEGIN; {HINT}{WRITE}; COMMIT",)])
def test_in_pieces_of_any_size(texts):
    """Whatever comes in one piece or another, the server gets it as it came, and the client its answers."""
    data, answers = queries(*texts)
    told = [pg_talk([data[:at], data[at:]]) for at in range(len(data) + 1)]
    assert {sent for sent, _ in told} == {data}
    assert {answer for _, answer in told} == {told[0][1]} and told[0][1].count(b"Z\0\0\0\5") == answers
    begin = wire.pg_query("BEGIN")
    if len(texts) > 1:
        # BEGIN that came alone is not kept for what may come
        assert pg_talk([begin])[0] == begin


def pg_cancel(session: RawPostgres, port: int) -> None:
    key = session.login.split(b"K\0\0\0\x0c", 1)[1][:8]
    with socket.create_connection(("127.0.0.1", port)) as canceller:
        canceller.sendall(b"\0\0\0\x10\x04\xd2\x16\x2e" + key)
        canceller.recv(1)


def test_postgres_cancelled_while_gathered(start_proxy, postgres, pg, table):
    """With one answer it is BEGIN's; else the write is what was cancelled, and COMMIT takes its transaction back."""
    proxy = start_proxy(postgres=postgres)
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (id int)")
    write = f"/* max_wait_ms:900 */ INSERT INTO {table} VALUES (1)"
    others = [RawPostgres(proxy.postgres_port) for _ in range(2)]
    session = others[0]
    together(2, lambda k: others[k].query(write))
    begun, ended = wire.pg(b"C", b"BEGIN\0"), wire.pg(b"C", b"ROLLBACK\0")
    extended = wire.pg(b"1") + wire.pg(b"2") + wire.pg(b"n")
    for (data, answers), before in (
            (queries(f"BEGIN; {write}; COMMIT"), b""), (queries("BEGIN", write, "COMMIT"), b""),
            ((run("BEGIN") + run(write) + run("COMMIT") + SYNC, 1), extended),
            ((run("BEGIN") + SYNC + run(write) + SYNC + run("COMMIT") + SYNC, 3), extended)):
        session.sock.sendall(data)
        wait_for(lambda: proxy.clients("waiting") == 1)
        pg_cancel(session, proxy.postgres_port)
        told = [session.answer() for _ in range(answers)]
        error = told[answers // 2]
        assert error[:1] == b"E" and b"C57014\0" in error
        assert error[-6:] == wire.pg(b"Z", b"I" if answers == 1 else b"E")
        if answers == 3:
            assert told[0] == before + begun + wire.pg(b"Z", b"T")
            assert told[2] == before + ended + wire.pg(b"Z", b"I")
        assert b"INSERT 0 1" in session.query(f"INSERT INTO {table} VALUES (2)")
    assert admin.execute(f"SELECT count(*) FROM {table} WHERE id = 1").fetchone() == (2,)
    for one in others:
        one.close()
