"""Several shapes in one moment before real servers: every answer and every table as directly, whatever left with whom.

Each test looks at the proxy's counters, too: a batch of several shapes counts a method for each, so there must have
been more of these than batches.
"""

import threading

import psycopg
import pytest

from tests.crowd import together
from tests.raw import RawMariaDB, RawPostgres
from tests.wait import nobody_in, wait_for

HINT = "/* max_wait_ms:60 file:departures.py line:1 */ "
SESSIONS = 16
ROUNDS = 24
BAD_EVERY = 5
LEAST = 3               # so often did another shape leave with one, however busy the machine is


# --- PostgreSQL -------------------------------------------------------------------------------------------------------

PG_TABLES = """
CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1);
CREATE TABLE a (id int PRIMARY KEY, v int CHECK (v >= 0), w text);
CREATE TABLE b (id int PRIMARY KEY, p int REFERENCES parent, d date);
CREATE TABLE own (id int PRIMARY KEY, n int CHECK (n < 1000));
INSERT INTO own SELECT i, 0 FROM generate_series(0, 99) i;
CREATE TABLE traced (id int PRIMARY KEY, v int, twice int);
CREATE FUNCTION trace() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.twice = NEW.v * 2; RETURN NEW; END';
CREATE TRIGGER x BEFORE INSERT ON traced FOR EACH ROW EXECUTE FUNCTION trace();
"""
# good and bad ones of each shape: %(k)s is the session's, %(n)s a new key of its own
PG_SHAPES = [
    ("INSERT INTO a (id, v, w) VALUES (%s, %s, %s)", lambda k, n: (n, k, "x"), lambda k, n: (n, -1, "check")),
    ("INSERT INTO a (id, v, w) VALUES (%s, %s, %s) RETURNING id, w", lambda k, n: (n, k, "ü" * 9),
     lambda k, n: (k * 1000 + 1, 1, "duplicate")),
    ("INSERT INTO b (id, p, d) VALUES (%s, %s, %s) RETURNING *", lambda k, n: (n, 1, "2024-02-29"),
     lambda k, n: (n, 99, None)),
    ("INSERT INTO b (id, d) VALUES (%s, %s)", lambda k, n: (n, None), lambda k, n: (n, "no date")),
    ("UPDATE own SET n = n + %s WHERE id = %s", lambda k, n: (1, k), lambda k, n: (5000, k)),
    ("UPDATE own SET n = n + 1 WHERE id = %s RETURNING n", lambda k, n: (k,), lambda k, n: (-k - 1,)),
    ("INSERT INTO traced (id, v) VALUES (%s, %s) RETURNING twice", lambda k, n: (n, k),
     lambda k, n: (n, 2_000_000_000)),
    ("DELETE FROM traced WHERE id = %s", lambda k, n: (n - 1,), lambda k, n: (-1,)),
]


def pg_script(k: int) -> list[tuple[str, tuple]]:
    """Neighbours are at another shape in each step; the first write makes the key that is used twice later."""
    steps = [("INSERT INTO a (id, v, w) VALUES (%s, %s, %s)", (k * 1000 + 1, 0, None))]
    for i in range(ROUNDS):
        sql, good, bad = PG_SHAPES[(i + k // 2) % len(PG_SHAPES)]
        steps.append((sql, (bad if (i + k) % BAD_EVERY == 0 else good)(k, k * 1000 + 10 + i)))
    return steps


def pg_literal(value) -> str:
    return "NULL" if value is None else str(value) if isinstance(value, int) else f"'{value}'"


def pg_say(session: RawPostgres, form: str, sql: str, params: tuple) -> bytes:
    if form == "text":
        return session.query(HINT + sql % tuple(map(pg_literal, params)))
    for i in range(len(params)):
        sql = sql.replace("%s", f"${i + 1}", 1)
    return session.execute(HINT + sql, params, named=form != "unnamed", binary=form == "binary")


def two_databases(postgres, name: str, ddl: str) -> None:
    """``<name>a`` and its copy ``<name>b``, which has the same object ids."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}a")
        setup = RawPostgres(postgres.port, f"{name}a")
        assert b"ERROR" not in setup.query(ddl)
        setup.close()
        nobody_in(admin, f"{name}a")
        admin.execute(f"CREATE DATABASE {name}b TEMPLATE {name}a")


def pg_contents(postgres, database: str) -> dict[str, list]:
    with psycopg.connect(postgres.dsn(), dbname=database) as c:
        return {t: c.execute(f"SELECT * FROM {t} ORDER BY id").fetchall() for t in ("a", "b", "own", "traced")}


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("form", ["text", "unnamed", "named", "binary"])
def test_postgres_answers_and_tables(postgres, proxy, table, form, isolation):
    """Bad rows in every shape, each session at its own: bytes and tables are the direct ones.

    What fails for others' sake (40001) is said again, as clients of these levels do, direct and through.
    """
    two_databases(postgres, table, PG_TABLES)
    step = threading.Barrier(SESSIONS, timeout=60)
    before = proxy.mixed()
    answers = {}
    for side, port in (("a", postgres.port), ("b", proxy.postgres_port)):
        def work(k, side=side, port=port):
            session = RawPostgres(port, f"{table}{side}",
                                  options=f"-c default_transaction_isolation={isolation.replace(' ', chr(92) + ' ')}")
            told = []
            try:
                for sql, params in pg_script(k):
                    step.wait()
                    while b"C40001\0" in (answer := pg_say(session, form, sql, params)):
                        assert isolation != "read committed"
                    told.append(answer)
                return told
            finally:
                session.close()

        answers[side] = together(SESSIONS, work)
    for k, (direct, through) in enumerate(zip(answers["a"], answers["b"], strict=True)):
        for (sql, params), one, other in zip(pg_script(k), direct, through, strict=True):
            assert other == one, (k, sql, params)
    assert sum(b"SERROR" in answer for part in answers["b"] for answer in part) > SESSIONS
    assert pg_contents(postgres, f"{table}a") == pg_contents(postgres, f"{table}b")
    assert proxy.mixed() >= before + LEAST


@pytest.mark.parametrize("prepare", [False, True])
def test_postgres_by_psycopg(postgres, proxy, pg, table, prepare):
    """A driver with types of its own, prepared or not: each call gets its own rows, counts and errors."""
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table}a (id bigserial PRIMARY KEY, k int UNIQUE, v text); "
                  f"CREATE TABLE {table}b (id bigserial PRIMARY KEY, k int UNIQUE, v int NOT NULL); "
                  f"CREATE TABLE {table}c (k int PRIMARY KEY, n int); "
                  f"INSERT INTO {table}c SELECT i, 0 FROM generate_series(0, {SESSIONS}) i")
    step = threading.Barrier(SESSIONS, timeout=60)
    before = proxy.mixed()

    def work(i):
        told = {"a": {}, "b": {}}
        with psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True) as connection:
            def execute(sql, params):
                return connection.execute(HINT + sql, params, prepare=prepare)
            for j in range(ROUNDS):
                step.wait()
                key = i * 1000 + j
                name = "abc"[(i + j) % 3]
                if name == "c":
                    assert execute(f"UPDATE {table}c SET n = n + 1 WHERE k = %s RETURNING k", (i,)).fetchall() == [(i,)]
                elif name == "b" and j % 4 == 0:
                    with pytest.raises(psycopg.errors.NotNullViolation, match=str(key)):
                        execute(f"INSERT INTO {table}b (k, v) VALUES (%s, %s)", (key, None))
                elif name == "b":
                    told["b"][key] = execute(f"INSERT INTO {table}b (k, v) VALUES (%s, %s) RETURNING id",
                                             (key, j)).fetchone()[0]
                else:
                    told["a"][key], back = execute(f"INSERT INTO {table}a (k, v) VALUES (%s, %s) RETURNING id, v",
                                                   (key, f"ü{key}")).fetchone()
                    assert back == f"ü{key}"
        return told

    parts = together(SESSIONS, work)
    for name in "ab":
        told = {key: number for part in parts for key, number in part[name].items()}
        assert dict(admin.execute(f"SELECT k, id FROM {table}{name}").fetchall()) == told and told
    assert admin.execute(f"SELECT sum(n) FROM {table}c").fetchone()[0] == sum(
        (i + j) % 3 == 2 for i in range(SESSIONS) for j in range(ROUNDS))
    assert proxy.mixed() >= before + LEAST


def test_postgres_a_locked_row_of_one_shape(postgres, proxy, pg, table):
    """Somebody holds a row: whose row it is waits, and everybody else of every shape is answered meanwhile."""
    holder = pg(through=False)
    holder.execute(f"CREATE TABLE {table}a (k int PRIMARY KEY); CREATE TABLE {table}b (k int PRIMARY KEY); "
                   f"CREATE TABLE {table}c (k int PRIMARY KEY, n int); "
                   f"INSERT INTO {table}c SELECT i, 0 FROM generate_series(0, 11) i")
    sessions = [pg() for _ in range(12)]

    def sql(i, part):
        if i % 3 == 2:
            return f"{HINT}UPDATE {table}c SET n = n + 1 WHERE k = {i}"
        return f"{HINT}INSERT INTO {table}{'ab'[i % 3]} (k) VALUES ({part * 100 + i})"

    for part in (1, 2):
        together(12, lambda i, part=part: sessions[i].execute(sql(i, part)))
    before = proxy.mixed()
    for part, locked, lock in ((3, 0, f"INSERT INTO {table}a VALUES (300)"),
                               (4, 2, f"UPDATE {table}c SET n = 0 WHERE k = 2")):
        holder.execute("BEGIN")
        holder.execute(lock)
        hold_and_release(12, locked, lambda i, part=part: sessions[i].execute(sql(i, part)).rowcount,
                         lambda: holder.execute("ROLLBACK"))
    assert proxy.mixed() > before
    assert holder.execute(f"SELECT count(*) FROM {table}a").fetchone() == (4 * 4,)
    assert holder.execute(f"SELECT DISTINCT n FROM {table}c WHERE k % 3 = 2").fetchall() == [(4,)]


def hold_and_release(count: int, locked: int, write, release) -> None:
    """All write at the same time; all but ``locked`` are answered 1 before ``release``, it is behind that."""
    told, barrier = {}, threading.Barrier(count, timeout=60)

    def run(i):
        barrier.wait()
        told[i] = write(i)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(told) >= count - 1, 60, lambda: f"everybody else's answer: only {told}")
        assert locked not in told
    finally:
        release()
    for thread in threads:
        thread.join(60)
    assert told == dict.fromkeys(range(count), 1)


# --- MariaDB ----------------------------------------------------------------------------------------------------------

MY_TABLES = (
    "CREATE TABLE parent (id int PRIMARY KEY)", "INSERT INTO parent VALUES (1)",
    "CREATE TABLE a (id int PRIMARY KEY, v int CHECK (v >= 0), w varchar(12), e decimal(8,2))",
    "CREATE TABLE b (id int PRIMARY KEY, p int REFERENCES parent (id), d date)",
    "CREATE TABLE own (id int PRIMARY KEY, n int)", "INSERT INTO own SELECT seq, 0 FROM seq_0_to_99")
MY_SHAPES = [
    ("INSERT INTO a (id, v, w) VALUES ({n}, {k}, 'x')", "INSERT INTO a (id, v, w) VALUES ({n}, -1, 'check')"),
    ("INSERT INTO a (id, v, w) VALUES ({n}, {k}, 'ü') RETURNING id, w",
     "INSERT INTO a (id, v, w) VALUES ({k}001, 1, 'duplicate') RETURNING id, w"),
    # a note: what is cut off is told, and the row is kept
    ("INSERT INTO a (id, e) VALUES ({n}, 1.25)", "INSERT INTO a (id, e) VALUES ({n}, 1.239)"),
    ("INSERT INTO b (id, p, d) VALUES ({n}, 1, '2024-02-29') RETURNING *",
     "INSERT INTO b (id, p, d) VALUES ({n}, 99, NULL) RETURNING *"),
    ("INSERT INTO b (id, d) VALUES ({n}, NULL), ({n} + 500, '2024-01-01')",
     "INSERT INTO b (id, d) VALUES ({n}, NULL), ({n} + 500, 'no date')"),
    ("UPDATE own SET n = n + 1 WHERE id = {k}", "UPDATE own SET n = n + 'x' WHERE id = {k}"),
]
MY_LOOKS = ("SELECT ROW_COUNT()", "SHOW WARNINGS", "SELECT LAST_INSERT_ID(), @@warning_count", "SELECT 1")


def my_script(k: int) -> list[str]:
    k += 1
    steps = [f"{HINT}INSERT INTO a (id, v, w) VALUES ({k}001, 0, NULL)"]
    for i in range(ROUNDS):
        good, bad = MY_SHAPES[(i + k // 2) % len(MY_SHAPES)]
        steps.append(HINT + (bad if (i + k) % BAD_EVERY == 0 else good).format(k=k, n=k * 1000 + 10 + i))
        if i % 3 == 2:
            steps.append(MY_LOOKS[(i + k) % len(MY_LOOKS)])
    return steps


def test_mariadb_answers_and_tables(mariadb, proxy, table):
    """Also what sessions ask for behind their writes: counts, warnings and ids are those of their own last ones."""
    step = threading.Barrier(SESSIONS, timeout=60)
    before = proxy.mixed()
    answers, stored = {}, {}
    for side, port in (("a", mariadb.port), ("b", proxy.mariadb_port)):
        with mariadb.connect() as setup, setup.cursor() as cursor:
            for sql in (f"CREATE DATABASE {table}{side}", f"USE {table}{side}", *MY_TABLES):
                cursor.execute(sql)

        def work(k, side=side, port=port):
            with mariadb.connect(port, database=f"{table}{side}", charset="utf8mb4") as connection:
                session = RawMariaDB(connection)
                return [(step.wait(), session.query(sql))[1] for sql in my_script(k)]

        answers[side] = together(SESSIONS, work)
        with mariadb.connect(database=f"{table}{side}") as look, look.cursor() as cursor:
            for name in ("a", "b", "own"):
                cursor.execute(f"SELECT * FROM {name} ORDER BY id")
                stored[side, name] = cursor.fetchall()
    for k, (direct, through) in enumerate(zip(answers["a"], answers["b"], strict=True)):
        for sql, one, other in zip(my_script(k), direct, through, strict=True):
            assert other.replace(f"{table}b".encode(), f"{table}a".encode()) == one, (k, sql)
    assert sum(answer[4] == 0xFF for part in answers["b"] for answer in part) > SESSIONS
    for name in ("a", "b", "own"):
        assert stored["a", name] == stored["b", name]
    assert proxy.mixed() >= before + LEAST


@pytest.mark.parametrize("increments", [(1, 1), (1, 10)], ids=["one increment", "two"])
def test_mariadb_insert_ids(mariadb, proxy, my, table, increments):
    """Three tables that number their rows, one of them asked with RETURNING, and one that does not: everybody's ids,
    of one row or several, are those in the table, and LAST_INSERT_ID() is the session's own."""
    admin = my(through=False).cursor()
    for name in "abc":
        admin.execute(f"CREATE TABLE {table}{name} (id bigint AUTO_INCREMENT PRIMARY KEY, k int UNIQUE)")
    admin.execute(f"CREATE TABLE {table}d (k int PRIMARY KEY)")
    step = threading.Barrier(SESSIONS, timeout=60)
    before = proxy.mixed()

    def work(i):
        told = {name: {} for name in "abcd"}
        by = increments[i % 2]
        last = 0
        with mariadb.connect(proxy.mariadb_port, database="d") as connection, connection.cursor() as cursor:
            if by > 1:
                cursor.execute(f"SET auto_increment_increment = {by}, auto_increment_offset = 3")
            for j in range(ROUNDS):
                step.wait()
                name = "abcd"[(i // 2 + j) % 4]
                key = i * 1000 + 10 * j
                rows = [key] if j % 3 else [key, key + 1, key + 2]
                values = ", ".join(f"({n})" for n in rows)
                if name == "c":
                    cursor.execute(f"{HINT}INSERT INTO {table}c (k) VALUES {values} RETURNING id, k")
                    got = {k: number for number, k in cursor.fetchall()}
                else:
                    assert cursor.execute(f"{HINT}INSERT INTO {table}{name} (k) VALUES {values}") == len(rows)
                    got = {n: cursor.lastrowid + by * at if name != "d" else 0 for at, n in enumerate(rows)}
                    assert name != "d" or not cursor.lastrowid
                assert [*got] == rows
                told[name].update(got)
                last = last if name == "d" else got[key]
                if j % 4 == 1:
                    cursor.execute("SELECT LAST_INSERT_ID()")
                    assert cursor.fetchone() == (last,), (name, j)
        return told

    parts = together(SESSIONS, work)
    for name in "abcd":
        told = {k: number for part in parts for k, number in part[name].items()}
        admin.execute(f"SELECT k, {0 if name == 'd' else 'id'} FROM {table}{name}")
        assert dict(admin.fetchall()) == told and told
    assert proxy.mixed() >= before + LEAST


def test_mariadb_a_locked_row_of_one_shape(mariadb, proxy, my, table):
    """Somebody holds a row: whose row it is waits, and everybody else of every shape is answered meanwhile."""
    holder = my(through=False).cursor()
    for name in "abc":
        holder.execute(f"CREATE TABLE {table}{name} (k int PRIMARY KEY, v int)")
    cursors = [my().cursor() for _ in range(12)]

    def write(i, part):
        return cursors[i].execute(f"{HINT}INSERT INTO {table}{'abc'[i % 3]} (k, v) VALUES ({part * 100 + i}, 1)")

    for part in (1, 2):
        together(12, lambda i, part=part: write(i, part))
    before = proxy.mixed()
    for part, locked in ((3, 0), (4, 4)):
        holder.execute("BEGIN")
        holder.execute(f"INSERT INTO {table}{'abc'[locked % 3]} (k, v) VALUES ({part * 100 + locked}, 0)")
        hold_and_release(12, locked, lambda i, part=part: write(i, part), lambda: holder.execute("ROLLBACK"))
    assert proxy.mixed() > before
    for name in "abc":
        holder.execute(f"SELECT COUNT(*), MIN(v) FROM {table}{name}")
        assert holder.fetchone() == (4 * 4, 1)
