"""Batches as clients see them: everything arrives once, each gets its own answer, errors reach their owners only."""

import threading

import psycopg
import pymysql
import pytest

from tests.crowd import together
from tests.wait import wait_for

HINT = "/* max_wait_ms:50 file:batching.py line:1 */ "
SESSIONS = 200
WRITES = 200
BAD_EVERY = 50


def pg_connect(postgres, proxy, **more):
    return psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True,
                           cursor_factory=psycopg.ClientCursor, **more)


def factor(proxy, before: dict) -> float:
    after = proxy.stats()
    return ((after["writes_total"] - before["writes_total"])
            / (after["write_operations_total"] - before["write_operations_total"]))


def test_postgres_many_sessions(postgres, proxy, pg, table):
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (id bigserial PRIMARY KEY, k text UNIQUE, v int)")
    before = proxy.stats()
    sql = f"{HINT}INSERT INTO {table} (k, v) VALUES (%s, %s) RETURNING id, k"

    def work(i):
        ids = {}
        with pg_connect(postgres, proxy) as connection:
            for j in range(WRITES):
                key = f"{i}-{j}"
                row = connection.execute(sql, (key, j)).fetchone()
                assert row[1] == key
                ids[key] = row[0]
        return ids

    told = {k: v for part in together(SESSIONS, work) for k, v in part.items()}
    stored = dict(admin.execute(f"SELECT k, id FROM {table}").fetchall())
    assert len(told) == SESSIONS * WRITES
    assert stored == told
    assert factor(proxy, before) >= 10


def test_mariadb_many_sessions(mariadb, proxy, my, table):
    admin = my(through=False).cursor()
    admin.execute(f"CREATE TABLE {table} (id bigint AUTO_INCREMENT PRIMARY KEY, k varchar(40) UNIQUE, v int)")
    before = proxy.stats()
    sql = f"{HINT}INSERT INTO {table} (k, v) VALUES (%s, %s)"

    def work(i):
        ids = {}
        with mariadb.connect(proxy.mariadb_port, database="d") as connection, connection.cursor() as cursor:
            for j in range(WRITES):
                assert cursor.execute(sql, (f"{i}-{j}", j)) == 1
                ids[f"{i}-{j}"] = cursor.lastrowid
            cursor.execute("SELECT LAST_INSERT_ID()")
            assert cursor.fetchone()[0] == ids[f"{i}-{WRITES - 1}"]
        return ids

    told = {k: v for part in together(SESSIONS, work) for k, v in part.items()}
    admin.execute(f"SELECT k, id FROM {table}")
    assert dict(admin.fetchall()) == told
    assert len(told) == SESSIONS * WRITES
    assert factor(proxy, before) >= 10


def test_postgres_one_bad_row_in_fifty(postgres, proxy, pg, table):
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (k int PRIMARY KEY, v int CHECK (v >= 0), d date)")

    def statement(n):
        if n % BAD_EVERY == 7:
            return f"{HINT}INSERT INTO {table} (k, v, d) VALUES ({n}, -{n}, NULL)"
        if n % BAD_EVERY == 31:
            return f"{HINT}INSERT INTO {table} (k, v, d) VALUES ({n}, 1, 'no date {n}')"
        return f"{HINT}INSERT INTO {table} (k, v, d) VALUES ({n}, {n}, '2024-01-01')"

    def details(error):
        d = error.diag
        return (d.sqlstate, d.message_primary, d.message_detail, d.statement_position, d.constraint_name)

    def work(i):
        failed = {}
        with pg_connect(postgres, proxy) as connection:
            for j in range(50):
                n = i * 1000 + j
                try:
                    connection.execute(statement(n))
                except psycopg.Error as e:
                    failed[n] = details(e)
        return failed

    failed = {n: e for part in together(60, work) for n, e in part.items()}
    everyone = {i * 1000 + j for i in range(60) for j in range(50)}
    assert set(failed) == {n for n in everyone if n % BAD_EVERY in (7, 31)}
    assert {k for k, in admin.execute(f"SELECT k FROM {table}")} == everyone - set(failed)
    for n, told in failed.items():
        with pytest.raises(psycopg.Error) as alone:
            admin.execute(statement(n))
        assert details(alone.value) == told


def test_mariadb_one_bad_row_in_fifty(mariadb, proxy, my, table):
    admin = my(through=False).cursor()
    admin.execute(f"CREATE TABLE {table} (k int PRIMARY KEY, v int CHECK (v >= 0), d varchar(12))")

    def statement(n):
        if n % BAD_EVERY == 7:
            return f"{HINT}INSERT INTO {table} (k, v, d) VALUES ({n}, -{n}, NULL)"
        if n % BAD_EVERY == 31:
            return f"{HINT}INSERT INTO {table} (k, v, d) VALUES ({n}, 1, 'much too long {n}')"
        return f"{HINT}INSERT INTO {table} (k, v, d) VALUES ({n}, {n}, 'fits')"

    def work(i):
        failed = {}
        with mariadb.connect(proxy.mariadb_port, database="d") as connection, connection.cursor() as cursor:
            for j in range(50):
                n = i * 1000 + j
                try:
                    cursor.execute(statement(n))
                except pymysql.Error as e:
                    failed[n] = e.args
        return failed

    failed = {n: e for part in together(60, work) for n, e in part.items()}
    everyone = {i * 1000 + j for i in range(60) for j in range(50)}
    assert set(failed) == {n for n in everyone if n % BAD_EVERY in (7, 31)}
    admin.execute(f"SELECT k FROM {table}")
    assert {k for k, in admin.fetchall()} == everyone - set(failed)
    for n, told in failed.items():
        with pytest.raises(pymysql.Error) as alone:
            admin.execute(statement(n))
        assert alone.value.args == told


# --- who may share a batch ------------------------------------------------------------------------------------

def pipelines(proxy) -> float:
    return proxy.metric("tqdbproxy_write_batch_method_total", method="pipeline")


@pytest.mark.parametrize("prepare, reason", [
    ("BEGIN", "in_transaction"),
    ("CREATE TEMP TABLE mine (a int)", "session_state"),
    ("SET client_encoding = sjis", "charset"),
    ("SELECT 1 WHERE nextval('counter') < 0 OR currval('counter') < 0", "session_state"),
])
def test_postgres_sessions_that_cannot_be_compared(proxy, pg, table, prepare, reason):
    pg(through=False).execute(f"CREATE SEQUENCE IF NOT EXISTS counter; CREATE TABLE {table} (a int)")
    connection = pg()
    warm = pg()
    warm.execute(f"{HINT}INSERT INTO {table} (a) VALUES (0)")
    warm.execute(f"{HINT}INSERT INTO {table} (a) VALUES (0)")
    connection.execute(prepare)
    before = proxy.counted(reason)
    connection.execute(f"{HINT}INSERT INTO {table} (a) VALUES (1)")
    assert proxy.counted(reason) == before + 1


@pytest.mark.parametrize("prepare, reason", [
    ("BEGIN", "in_transaction"),
    ("SET autocommit = 0", "in_transaction"),
    ("CREATE TEMPORARY TABLE mine (a int)", "session_state"),
    ("SET NAMES gbk", "charset"),
    ("SET sql_mode = ''", None),
    ("SET sql_mode = 'ANSI_QUOTES'", "session_state"),
    ("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE", None),
    ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "session_state"),
])
def test_mariadb_sessions_that_cannot_be_compared(proxy, my, table, prepare, reason):
    my(through=False).cursor().execute(f"CREATE TABLE {table} (a int)")
    cursor = my().cursor()
    cursor.execute(prepare)
    sql = f"{HINT}INSERT INTO {table} (a) VALUES (1)"
    cursor.execute(sql)                     # asks for the table's facts, if it gets that far
    reason = reason or "single"
    before = proxy.counted(reason)
    cursor.execute(sql)
    assert proxy.counted(reason) == before + 1


def test_lock_tables_is_never_waited_for(proxy, my, table):
    my(through=False).cursor().execute(f"CREATE TABLE {table} (a int)")
    holder = my().cursor()
    holder.execute(f"LOCK TABLES {table} WRITE")
    before = proxy.counted("session_state")
    holder.execute(f"{HINT}INSERT INTO {table} (a) VALUES (1)")
    assert proxy.counted("session_state") == before + 1
    holder.execute("UNLOCK TABLES")


def test_rows_follow_each_sessions_search_path(postgres, proxy, pg, table):
    admin = pg(through=False)
    for schema in ("x", "y"):
        admin.execute(f"CREATE SCHEMA {table}{schema}; CREATE TABLE {table}{schema}.t (who text)")

    def work(i):
        schema = table + "xy"[i % 2]
        with pg_connect(postgres, proxy) as connection:
            connection.execute(f"SET search_path = {schema}")
            for _ in range(20):
                connection.execute(f"{HINT}INSERT INTO t (who) VALUES ('{schema}')")

    before = proxy.stats()["batched_writes_total"]
    together(20, work)
    for schema in (f"{table}x", f"{table}y"):
        assert admin.execute(f"SELECT who, count(*) FROM {schema}.t GROUP BY 1").fetchall() == [(schema, 200)]
    assert proxy.stats()["batched_writes_total"] > before


def test_rows_follow_each_sessions_database(mariadb, proxy, my, table):
    admin = my(through=False).cursor()
    for name in ("x", "y"):
        admin.execute(f"CREATE DATABASE {table}{name}")
        admin.execute(f"CREATE TABLE {table}{name}.t (who varchar(20))")

    def work(i):
        name = table + "xy"[i % 2]
        with mariadb.connect(proxy.mariadb_port, database="d") as connection, connection.cursor() as cursor:
            if i % 4 < 2:
                cursor.execute(f"USE {name}")
            else:
                connection.select_db(name)
            for _ in range(20):
                cursor.execute(f"{HINT}INSERT INTO t (who) VALUES ('{name}')")

    together(20, work)
    for name in (f"{table}x", f"{table}y"):
        admin.execute(f"SELECT who, count(*) FROM {name}.t GROUP BY 1")
        assert admin.fetchall() == ((name, 200),)


@pytest.mark.parametrize("make", [
    "CREATE TABLE {t} (a int); CREATE FUNCTION {t}f() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN IF NEW.a % 2 = 0 THEN RETURN NULL; END IF; RETURN NEW; END'; "
    "CREATE TRIGGER x BEFORE INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {t}f()",
    "CREATE TABLE {t}b (a int); CREATE VIEW {t} AS SELECT a FROM {t}b",
    "CREATE TABLE {t} (a int) PARTITION BY RANGE (a); "
    "CREATE TABLE {t}p PARTITION OF {t} FOR VALUES FROM (0) TO (10000)",
    "CREATE TABLE {t} (a int); ALTER TABLE {t} ENABLE ROW LEVEL SECURITY",
    "CREATE TABLE {t} (a int); CREATE TABLE {t}l (n int); CREATE FUNCTION {t}f() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN INSERT INTO {t}l SELECT count(*) FROM new; RETURN NULL; END'; CREATE TRIGGER x AFTER INSERT ON {t} "
    "REFERENCING NEW TABLE AS new FOR EACH STATEMENT EXECUTE FUNCTION {t}f()",
    "CREATE TABLE {t} (a int); CREATE RULE r AS ON INSERT TO {t} WHERE NEW.a = 3 DO INSTEAD NOTHING",
    "CREATE FUNCTION {t}f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TABLE {t} (a int, b int DEFAULT {t}f())",
])
def test_postgres_tables_that_are_not_plain(postgres, proxy, pg, table, make):
    """Their writes go as the statements that they are, in one transaction."""
    pg(through=False).execute(make.format(t=table))
    before = pipelines(proxy)

    def work(i):
        with pg_connect(postgres, proxy) as connection:
            return [connection.execute(f"{HINT}INSERT INTO {table} (a) VALUES ({n})").rowcount for n in range(6)]

    results = together(6, work)
    with psycopg.connect(postgres.dsn(), autocommit=True) as direct:
        alone = [direct.execute(f"INSERT INTO {table} (a) VALUES ({n})").rowcount for n in range(6)]
        if "STATEMENT" in make:
            assert direct.execute(f"SELECT n, count(*) FROM {table}l GROUP BY n").fetchall() == [(1, 42)]
    assert results == [alone] * 6
    assert pipelines(proxy) > before


@pytest.mark.parametrize("make", [
    "CREATE TABLE {t} (a int); CREATE FUNCTION {t}f() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN PERFORM pg_notify(''c'', ''same''); RETURN NEW; END'; "
    "CREATE TRIGGER x BEFORE INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {t}f()",
    "CREATE TABLE {t} (a int); CREATE FUNCTION {t}f() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN RETURN NEW; END'; CREATE CONSTRAINT TRIGGER x AFTER INSERT ON {t} DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION {t}f()",
    "CREATE TABLE {t} (a int); CREATE RULE r AS ON INSERT TO {t} DO ALSO NOTIFY c",
    "CREATE FUNCTION {t}f() RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM set_config(''x.y'', ''1'', true); "
    "RETURN 1; END'; CREATE TABLE {t} (a int, b int DEFAULT {t}f())",
    "CREATE TABLE {t}b (a int); CREATE VIEW {t} AS SELECT a FROM {t}b; CREATE FUNCTION {t}f() RETURNS trigger "
    "LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END'; "
    "CREATE TRIGGER x BEFORE INSERT ON {t}b FOR EACH ROW EXECUTE FUNCTION {t}f()",
])
def test_postgres_tables_whose_transactions_are_seen_by_others(postgres, proxy, pg, table, make):
    pg(through=False).execute(make.format(t=table))
    before = proxy.counted("table")

    def work(i):
        with pg_connect(postgres, proxy) as connection:
            return [connection.execute(f"{HINT}INSERT INTO {table} (a) VALUES ({n})").rowcount for n in range(6)]

    assert together(6, work) == [[1] * 6] * 6
    assert proxy.counted("table") == before + 36


@pytest.mark.parametrize("make, value", [
    ("CREATE FUNCTION {t}f(int) RETURNS boolean LANGUAGE sql AS 'SELECT $1 > 0'; "
     "CREATE DOMAIN {t}d AS int CHECK ({t}f(VALUE))", "1::{t}d"),
    ("CREATE FUNCTION {t}f(text, int) RETURNS text LANGUAGE sql AS 'SELECT $1'; "
     "CREATE OPERATOR |+ (LEFTARG = text, RIGHTARG = int, FUNCTION = {t}f)", "'1'::text |+ 1"),
])
def test_postgres_types_and_operators_that_users_have_made(postgres, proxy, pg, table, make, value):
    """What looks built-in and is not is never merged into one INSERT."""
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (a text)")
    admin.execute(make.format(t=table))
    try:
        before = pipelines(proxy)
        connections = [pg() for _ in range(3)]
        for _ in range(50):         # three may miss each other on a busy machine
            together(3, lambda i: connections[i].execute(
                f"{HINT}INSERT INTO {table} (a) VALUES ({value.format(t=table)})"))
            if pipelines(proxy) > before:
                break
        assert pipelines(proxy) > before
    finally:
        admin.execute("DROP OPERATOR IF EXISTS |+ (text, int)")


@pytest.mark.parametrize("make, value", [
    ("CREATE FUNCTION lower(int) RETURNS text LANGUAGE sql AS 'SELECT pg_backend_pid()::text'", "lower(5)"),
    ("CREATE FUNCTION mine() RETURNS text LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SELECT 1'; RETURN 1; END $$",
     "mine()"),
])
def test_postgres_functions_that_users_have_made(proxy, pg, table, make, value):
    """What runs a user's code that asks for its connection, or that cannot be read, is relayed."""
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (a text)")
    admin.execute(make.format(t=table))
    try:
        before = proxy.counted("table")
        connection = pg()
        for _ in range(3):
            connection.execute(f"{HINT}INSERT INTO {table} (a) VALUES ({value.format(t=table)})")
        assert proxy.counted("table") == before + 3
    finally:
        admin.execute("DROP FUNCTION IF EXISTS lower(int); DROP FUNCTION IF EXISTS mine()")


@pytest.mark.parametrize("make", [
    ("CREATE TABLE {t} (a int) ENGINE=MyISAM",),
    ("CREATE TABLE {t} (a int) ENGINE=Aria",),
    ("CREATE TABLE {t}b (a int)", "CREATE VIEW {t} AS SELECT a FROM {t}b"),
    ("CREATE TABLE {t}l (a int) ENGINE=MyISAM", "CREATE TABLE {t} (a int)",
     "CREATE TRIGGER {t}x BEFORE INSERT ON {t} FOR EACH ROW INSERT INTO {t}l VALUES (NEW.a)"),
    ("CREATE TABLE {t} (a int)", "CREATE TRIGGER {t}x BEFORE INSERT ON {t} FOR EACH ROW SET NEW.a = NEW.a + @x"),
    ("CREATE TABLE {t} (a int) WITH SYSTEM VERSIONING",),
])
def test_mariadb_tables_that_cannot_be_rolled_back_or_compared(mariadb, proxy, my, table, make):
    before = proxy.counted("table")
    run_on_mariadb_table(mariadb, proxy, my, table, make)
    assert proxy.counted("table") == before + 36


@pytest.mark.parametrize("make", [
    ("CREATE TABLE {t} (a int)", "CREATE TRIGGER {t}x BEFORE INSERT ON {t} FOR EACH ROW SET NEW.a = NEW.a + 1"),
    ("CREATE TABLE {t} (a int) PARTITION BY HASH (a) PARTITIONS 4",),
])
def test_mariadb_tables_that_are_not_plain(mariadb, proxy, my, table, make):
    before = pipelines(proxy)
    run_on_mariadb_table(mariadb, proxy, my, table, make)
    assert pipelines(proxy) > before


def run_on_mariadb_table(mariadb, proxy, my, table, make):
    admin = my(through=False).cursor()
    for sql in make:
        admin.execute(sql.format(t=table))

    def work(i):
        with mariadb.connect(proxy.mariadb_port, database="d") as connection, connection.cursor() as cursor:
            # the first ones wait for what the catalogue says, however long it takes
            hints = ["/* max_wait_ms:1000 */ ", *[HINT] * 5]
            return [cursor.execute(f"{hint}INSERT INTO {table} (a) VALUES ({n})") for n, hint in enumerate(hints)]

    assert together(6, work) == [[1] * 6] * 6


def test_ddl_seen_makes_the_facts_be_asked_again(postgres, proxy, pg, table):
    admin = pg()
    admin.execute(f"CREATE TABLE {table} (a int)")
    sessions = [pg() for _ in range(4)]

    def burst():
        together(4, lambda i: [sessions[i].execute(f"{HINT}INSERT INTO {table} (a) VALUES ({n})").rowcount
                               for n in range(10)])

    burst()
    before = proxy.stats()["batched_writes_total"]
    burst()
    assert proxy.stats()["batched_writes_total"] > before
    admin.execute(f"CREATE FUNCTION {table}f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
                  f"CREATE TRIGGER x BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {table}f()")
    before = pipelines(proxy)
    results = together(4, lambda i: [sessions[i].execute(f"{HINT}INSERT INTO {table} (a) VALUES ({n})").rowcount
                                     for n in range(10)])
    assert results == [[0] * 10] * 4
    assert pipelines(proxy) > before


def test_a_surprise_in_the_answer_rolls_the_batch_back(postgres, proxy, pg, table):
    """A trigger made behind the proxy's back drops rows: the count does not fit, and each learns its own."""
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (a int)")
    sessions = [pg() for _ in range(8)]
    sql = f"{HINT}INSERT INTO {table} (a) VALUES "
    together(8, lambda i: [sessions[i].execute(f"{sql}({n})").rowcount for n in range(5)])
    admin.execute(f"CREATE FUNCTION {table}f() RETURNS trigger LANGUAGE plpgsql AS "
                  "'BEGIN IF NEW.a % 2 = 0 THEN RETURN NULL; END IF; RETURN NEW; END'; "
                  f"CREATE TRIGGER x BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {table}f()")
    admin.execute(f"TRUNCATE {table}")
    results = together(8, lambda i: [sessions[i].execute(f"{sql}({i * 100 + n})").rowcount for n in range(10)])
    assert results == [[0, 1] * 5] * 8
    assert admin.execute(f"SELECT count(*) FROM {table}").fetchone() == (40,)


# --- time -----------------------------------------------------------------------------------------------------

def test_a_lone_writer_does_not_wait(proxy, pg, table):
    pg(through=False).execute(f"CREATE TABLE {table} (a int)")
    connection = pg()
    before = proxy.metric("tqdbproxy_write_batch_flush_total", reason="nobody_left")
    for n in range(5):
        connection.execute(f"/* max_wait_ms:1000 */ INSERT INTO {table} (a) VALUES ({n})")
    assert proxy.metric("tqdbproxy_write_batch_flush_total", reason="nobody_left") == before + 5


def test_the_smallest_wait_wins(start_proxy, postgres, pg, table):
    """A write with a long wait leaves with the one that wants to go soon."""
    proxy = start_proxy(postgres=postgres, config="[writebatch]\nmax_wait_ms_limit = 60000\n")
    pg(through=False).execute(f"CREATE TABLE {table} (a int)")
    patient, hasty, idle = (pg_connect(postgres, proxy) for _ in range(3))
    for connection in (patient, hasty, idle):
        connection.execute(f"/* max_wait_ms:1 */ INSERT INTO {table} (a) VALUES (0)")
    before = proxy.metric("tqdbproxy_write_batch_flush_total", reason="deadline")
    answered = threading.Thread(target=lambda: patient.execute(
        f"/* max_wait_ms:50000 */ INSERT INTO {table} (a) VALUES (1)"))
    answered.start()
    wait_for(lambda: proxy.clients("waiting"))
    hasty.execute(f"/* max_wait_ms:1 */ INSERT INTO {table} (a) VALUES (2)")
    answered.join(20)
    assert not answered.is_alive()
    assert proxy.metric("tqdbproxy_write_batch_flush_total", reason="deadline") == before + 1
    for connection in (patient, hasty, idle):
        connection.close()


def test_auto_gathers_only_behind_a_batch_under_way(postgres, proxy, pg, table):
    pg(through=False).execute(f"CREATE TABLE {table} (a int)")
    before = proxy.stats()

    def work(i):
        with pg_connect(postgres, proxy) as connection:
            for n in range(50):
                connection.execute(f"/* max_wait_ms:auto */ INSERT INTO {table} (a) VALUES ({n})")

    together(30, work)
    after = proxy.stats()
    assert after["flush"]["idle"] > before["flush"]["idle"]
    assert after["batched_writes_total"] > before["batched_writes_total"]
    assert pg().execute(f"SELECT count(*) FROM {table}").fetchone() == (1500,)


def test_a_batch_leaves_when_it_is_full(start_proxy, postgres, pg, table):
    proxy = start_proxy(postgres=postgres, config="[writebatch]\nmax_batch_size = 4\n")
    pg(through=False).execute(f"CREATE TABLE {table} (a int)")

    def work(i):
        with pg_connect(postgres, proxy) as connection:
            for n in range(20):
                connection.execute(f"/* max_wait_ms:100 */ INSERT INTO {table} (a) VALUES ({n})")

    together(12, work)
    assert proxy.stats()["flush"]["full"] > 0
    assert proxy.metric("tqdbproxy_write_batch_size_bucket", query_type="insert", le="5.0") == proxy.metric(
        "tqdbproxy_write_batch_size_count", query_type="insert")


# --- connections that end -------------------------------------------------------------------------------------

def test_a_client_that_goes_while_it_waits_is_taken_out(start_proxy, postgres, pg, table):
    proxy = start_proxy(postgres=postgres, config="[writebatch]\nmax_wait_ms_limit = 60000\n")
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (a int)")
    idle, leaver = pg_connect(postgres, proxy), pg_connect(postgres, proxy)
    for connection in (leaver, idle):
        connection.execute(f"/* max_wait_ms:1 */ INSERT INTO {table} (a) VALUES (0)")
        connection.execute(f"/* max_wait_ms:1 */ INSERT INTO {table} (a) VALUES (0)")
    leaver.pgconn.send_query(f"/* max_wait_ms:50000 */ INSERT INTO {table} (a) VALUES (99)".encode())
    leaver.pgconn.flush()
    wait_for(lambda: any(c["state"] == "waiting" and c["count"] for c in proxy.stats()["client_connections"]))
    leaver.pgconn.finish()
    wait_for(lambda: not any(c["state"] == "waiting" and c["count"] for c in proxy.stats()["client_connections"]))
    idle.execute(f"/* max_wait_ms:1 */ INSERT INTO {table} (a) VALUES (1)")
    assert admin.execute(f"SELECT count(*) FROM {table} WHERE a = 99").fetchone() == (0,)
    idle.close()


def test_postgres_lost_while_a_batch_is_under_way(start_proxy, postgres, pg, table):
    """Its COMMIT was not sent, so nothing is kept: the leader has lost its connection, the others are written."""
    proxy = start_proxy(postgres=postgres)
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (a int PRIMARY KEY)")
    writers = [pg_connect(postgres, proxy) for _ in range(6)]
    together(6, lambda i: [writers[i].execute(f"{HINT}INSERT INTO {table} (a) VALUES ({i * 10 + n})")
                           for n in range(2)])
    # a row lock holds the batch up: the same key, not committed
    blocker = psycopg.connect(postgres.dsn())
    blocker.execute(f"INSERT INTO {table} (a) VALUES (1003)")
    results: list = [None] * 6

    def write(i):
        try:
            writers[i].execute(f"/* max_wait_ms:1000 */ INSERT INTO {table} (a) VALUES ({1000 + i})")
            results[i] = "done"
        except psycopg.Error as e:
            results[i] = e

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    blocked = f"SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'BEGIN;%{table}%'"
    wait_for(lambda: admin.execute(blocked).fetchone())
    admin.execute(f"SELECT pg_terminate_backend(pid) FROM ({blocked}) AS x")
    wait_for(lambda: any(results))
    blocker.rollback()
    for t in threads:
        t.join(20)
    lost = {1000 + i for i, r in enumerate(results) if isinstance(r, psycopg.OperationalError)}
    assert len(lost) == 1 and all(r == "done" for i, r in enumerate(results) if 1000 + i not in lost), results
    assert all(writers[k - 1000].closed for k in lost)
    blocker.close()
    stored = {a for a, in admin.execute(f"SELECT a FROM {table} WHERE a >= 1000")}
    assert stored == {1000 + i for i in range(6)} - lost


def test_mariadb_lost_while_a_batch_is_under_way(start_proxy, mariadb, my, table):
    proxy = start_proxy(mariadb=mariadb)
    admin = my(through=False).cursor()
    admin.execute(f"CREATE TABLE {table} (a int PRIMARY KEY)")
    writers = [mariadb.connect(proxy.mariadb_port, database="d") for _ in range(6)]
    cursors = [w.cursor() for w in writers]
    together(6, lambda i: [cursors[i].execute(f"{HINT}INSERT INTO {table} (a) VALUES ({i * 10 + n})")
                           for n in range(2)])
    blocker = mariadb.connect(database="d", autocommit=False)
    blocker.cursor().execute(f"INSERT INTO {table} (a) VALUES (1003)")
    results: list = [None] * 6

    def write(i):
        try:
            results[i] = cursors[i].execute(f"/* max_wait_ms:1000 */ INSERT INTO {table} (a) VALUES ({1000 + i})")
        except pymysql.Error as e:
            results[i] = e.args[0]

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()

    def blocked():
        admin.execute("SELECT id, info FROM information_schema.processlist WHERE command = 'Query' "
                      f"AND id <> CONNECTION_ID() AND info LIKE '%INSERT INTO {table}%),(%' AND time_ms > 50")
        return admin.fetchone()

    wait_for(blocked)
    admin.execute(f"KILL CONNECTION {blocked()[0]}")
    wait_for(lambda: any(results))
    blocker.rollback()
    for t in threads:
        t.join(20)
    lost = {1000 + i for i, r in enumerate(results) if r in (2013, 2006)}
    assert len(lost) == 1 and all(r == 1 for i, r in enumerate(results) if 1000 + i not in lost), results
    blocker.close()
    admin.execute(f"SELECT a FROM {table} WHERE a >= 1000")
    assert {a for a, in admin.fetchall()} == {1000 + i for i in range(6)} - lost
    for w in writers:
        if w.open:
            w.close()


def test_a_locked_row_delays_its_owner_only_postgres(postgres, pg, table):
    """One member's row is locked by somebody else: its batch mates are answered while it still waits."""
    locked_row_delays_its_owner_only(
        pg(through=False).cursor(), lambda: psycopg.connect(postgres.dsn()), lambda: pg().cursor(), table)


def test_a_locked_row_delays_its_owner_only_mariadb(mariadb, my, table):
    locked_row_delays_its_owner_only(
        my(through=False).cursor(), lambda: mariadb.connect(database="d", autocommit=False),
        lambda: my().cursor(), table)


def locked_row_delays_its_owner_only(admin, blocking, session, table):
    admin.execute(f"CREATE TABLE {table} (a int PRIMARY KEY)")
    cursors = [session() for _ in range(8)]
    together(8, lambda i: [cursors[i].execute(f"{HINT}INSERT INTO {table} (a) VALUES ({i * 10 + n})")
                           for n in range(2)])
    blocker = blocking()
    blocker.cursor().execute(f"INSERT INTO {table} (a) VALUES (1003)")
    done = [threading.Event() for _ in range(8)]

    def write(i):
        cursors[i].execute(f"/* max_wait_ms:500 */ INSERT INTO {table} (a) VALUES ({1000 + i})")
        done[i].set()

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for i in range(8):
        if i != 3:
            assert done[i].wait(30), f"writer {i} waits for a lock that is not its own"
    assert not done[3].is_set()
    blocker.rollback()
    blocker.close()
    assert done[3].wait(30)
    for t in threads:
        t.join()
    admin.execute(f"SELECT count(*) FROM {table} WHERE a >= 1000")
    assert admin.fetchone() == (8,)


def test_cancel_does_not_reach_the_other_members(start_proxy, postgres, pg, table):
    """A cancel by one member of a batch under way must not end the others' work."""
    proxy = start_proxy(postgres=postgres)
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (a int PRIMARY KEY)")
    writers = [pg_connect(postgres, proxy) for _ in range(4)]
    together(4, lambda i: [writers[i].execute(f"{HINT}INSERT INTO {table} (a) VALUES ({i * 10 + n})")
                           for n in range(2)])
    blocker = psycopg.connect(postgres.dsn())
    blocker.execute(f"INSERT INTO {table} (a) VALUES (2000)")
    results: list = [None] * 4

    def write(i):
        try:
            writers[i].execute(f"/* max_wait_ms:1000 */ INSERT INTO {table} (a) VALUES ({1000 + i})"
                               + (", (2000)" if i == 0 else ""))
            results[i] = "done"
        except psycopg.Error as e:
            results[i] = e.sqlstate

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    blocked = f"SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'BEGIN;%{table}%'"
    wait_for(lambda: admin.execute(blocked).fetchone())
    for w in writers:
        w.cancel()
    blocker.rollback()
    blocker.close()
    for t in threads:
        t.join(20)
    # the one whose row is locked may wait alone by then, where its own cancel rightly reaches it
    assert results[0] in ("done", "57014") and results[1:] == ["done"] * 3


def test_cancel_reaches_the_right_session(pg):
    sleeper, other = pg(), pg()
    result = []

    def sleep():
        try:
            sleeper.execute("SELECT pg_sleep(60)")
        except psycopg.errors.QueryCanceled as e:
            result.append(e.sqlstate)

    thread = threading.Thread(target=sleep)
    thread.start()
    wait_for(lambda: pg(through=False).execute(
        "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'").fetchone())
    sleeper.cancel()
    thread.join(20)
    assert result == ["57014"]
    assert other.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("mode", ["", "NO_BACKSLASH_ESCAPES"])
@pytest.mark.parametrize("write", [
    "INSERT INTO {} (a, b) VALUES ({}, {}) ON DUPLICATE KEY UPDATE b = {}", "INSERT INTO {} (a, b) VALUES ({}, {})",
    "UPDATE {} SET a = a, b = {1} WHERE a = {0} OR b = {2}"], ids=["upsert", "insert", "update"])
def test_a_backslash_in_the_first_value_is_a_value(mariadb, my, proxy, table, write, mode):
    """The first text of a shape is the one that is looked at, and drivers escape quotes by backslashes."""
    texts = ["it\\'s", "\\\"", "\\\\", "x\\n", "ü\\'\\'"] if not mode else ["C:\\", "\\", "a\\b\\", "x", "ü\\"]
    if write.startswith("UPDATE"):
        write = write.replace("UPDATE {}", "UPDATE {3}")
    found = []
    before = proxy.batched()
    for port in (mariadb.port, proxy.mariadb_port):
        with my(through=False).cursor() as cursor:
            cursor.execute(f"CREATE OR REPLACE TABLE {table} (a int PRIMARY KEY, b varchar(20))")
            cursor.executemany(f"INSERT INTO {table} VALUES (%s, 'old')", [(-k - 1,) for k in range(40)])

        def work(i, port=port):
            with mariadb.connect(port, database="d") as connection, connection.cursor() as cursor:
                cursor.execute(f"SET SESSION sql_mode = CONCAT(@@sql_mode, ',{mode}')")
                for k in range(i, 40, 4):
                    text = f"'{texts[k % len(texts)]}'"
                    where = (k if write.startswith("INSERT") else -k - 1, text, text, table)
                    cursor.execute("/* max_wait_ms:100 */ " + (
                        write.format(*where) if "{3}" in write else write.format(table, *where[:3])))

        together(4, work)
        with my(through=False).cursor() as cursor:
            cursor.execute(f"SELECT * FROM {table} ORDER BY a")
            found.append(cursor.fetchall())
    assert found[0] == found[1]
    assert proxy.batched() > before
