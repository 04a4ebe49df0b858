"""Tables that are not plain give the direct result, whether their writes are batched or not."""

import psycopg
import pytest

from tests.crowd import together

HINT = "/* max_wait_ms:20 file:tables.py line:1 */ "
SESSIONS = 8
ROUNDS = 12

PG_KINDS = {
    "a BEFORE trigger that drops rows": """
        CREATE TABLE {t} (a int, who text);
        CREATE FUNCTION {t}f() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN IF NEW.a % 3 = 0 THEN RETURN NULL; END IF; NEW.who = ''t''; RETURN NEW; END';
        CREATE TRIGGER x BEFORE INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {t}f()""",
    "a statement trigger": """
        CREATE TABLE {t} (a int); CREATE TABLE {t}log (op text, n bigint);
        CREATE FUNCTION {t}f() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN INSERT INTO {t}log SELECT TG_OP, count(*) FROM fresh; RETURN NULL; END';
        CREATE TRIGGER x AFTER INSERT ON {t} REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT
         EXECUTE FUNCTION {t}f()""",
    "a view with rules": """
        CREATE TABLE {t}b (a int); CREATE VIEW {t} AS SELECT a FROM {t}b WHERE a >= 0;
        CREATE TABLE {t}log (op text, n bigint);
        CREATE RULE i AS ON INSERT TO {t} DO INSTEAD (INSERT INTO {t}b VALUES (NEW.a);
         INSERT INTO {t}log VALUES ('rule', NEW.a))""",
    "a partitioned table": """
        CREATE TABLE {t} (a int) PARTITION BY HASH (a);
        CREATE TABLE {t}p0 PARTITION OF {t} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE {t}p1 PARTITION OF {t} FOR VALUES WITH (MODULUS 2, REMAINDER 1)""",
}


def outcome(cursor, sql, error):
    try:
        cursor.execute(sql)
        return cursor.rowcount, cursor.statusmessage if hasattr(cursor, "statusmessage") else None
    except error as e:
        return getattr(e, "sqlstate", e.args[0]), str(e).splitlines()[0]


@pytest.mark.parametrize("kind", PG_KINDS)
def test_postgres_kinds(postgres, proxy, pg, table, kind):
    admin = pg(through=False)
    admin.execute(f"CREATE SCHEMA {table}a; CREATE SCHEMA {table}b")
    results = {}
    for side, through in (("a", False), ("b", True)):
        admin.execute(f"SET search_path = {table}{side}; " + PG_KINDS[kind].format(t="t"))
        port = proxy.postgres_port if through else None

        def work(k, side=side, port=port):
            with psycopg.connect(postgres.dsn(port), autocommit=True, options=f"-c search_path={table}{side}") as c:
                return [outcome(c.cursor(), f"{HINT}INSERT INTO t (a) VALUES ({k * 100 + n})", psycopg.Error)
                        for n in range(ROUNDS)]

        told = together(SESSIONS, work)
        stored = admin.execute("SELECT a FROM t ORDER BY a").fetchall()
        log = (admin.execute("SELECT op, n, count(*) FROM tlog GROUP BY 1, 2 ORDER BY 1, 2").fetchall()
               if "log" in PG_KINDS[kind] else None)
        results[side] = told, stored, log
    assert results["b"] == results["a"]


def test_postgres_row_security_by_session_setting(postgres, proxy, pg, table):
    admin = pg(through=False)
    admin.execute(f"""
        CREATE ROLE {table}r LOGIN; CREATE TABLE {table} (owner text, a int);
        ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; GRANT ALL ON {table} TO {table}r;
        CREATE POLICY p ON {table} USING (owner = current_setting('app.owner'))
         WITH CHECK (owner = current_setting('app.owner'))""")
    results = {}
    for through in (False, True):
        admin.execute(f"TRUNCATE {table}")
        port = proxy.postgres_port if through else None

        def work(k, port=port):
            owner = "ab"[k % 2]
            dsn = postgres.dsn(port).replace("user=postgres", f"user={table}r")
            with psycopg.connect(dsn, autocommit=True) as c:
                c.execute(f"SET app.owner = '{owner}'")
                told = [outcome(c.cursor(), f"{HINT}INSERT INTO {table} VALUES ('{other}', {k})", psycopg.Error)
                        for _ in range(4) for other in "ab"]
                return *told, outcome(c.cursor(), f"{HINT}UPDATE {table} SET a = a + 100 WHERE a = {k}",
                                      psycopg.Error)

        told = together(SESSIONS, work)
        results[through] = told, admin.execute(f"SELECT owner, a, count(*) FROM {table} GROUP BY 1, 2 ORDER BY 1, 2"
                                               ).fetchall()
    assert results[True] == results[False]
    assert any(o[0] == "42501" for o in results[True][0][0])
    admin.execute(f"DROP TABLE {table}; DROP ROLE {table}r")


def test_postgres_temporary_table_that_shadows(pg, table):
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (a int)")
    sessions = [pg() for _ in range(6)]
    for s in sessions[:3]:
        s.execute(f"CREATE TEMP TABLE {table} (a int)")
    together(6, lambda k: [sessions[k].execute(f"{HINT}INSERT INTO {table} VALUES ({k})") for _ in range(ROUNDS)])
    assert admin.execute(f"SELECT count(*), min(a) FROM {table}").fetchone() == (3 * ROUNDS, 3)
    for k in range(3):
        assert sessions[k].execute(f"SELECT count(*), min(a), max(a) FROM {table}").fetchone() == (ROUNDS, k, k)


def test_mariadb_temporary_table_that_shadows(my, table):
    admin = my(through=False).cursor()
    admin.execute(f"CREATE TABLE {table} (a int)")
    sessions = [my().cursor() for _ in range(6)]
    for s in sessions[:3]:
        s.execute(f"CREATE TEMPORARY TABLE {table} (a int)")
    together(6, lambda k: [sessions[k].execute(f"{HINT}INSERT INTO {table} VALUES ({k})") for _ in range(ROUNDS)])
    admin.execute(f"SELECT COUNT(*), MIN(a) FROM {table}")
    assert admin.fetchone() == (3 * ROUNDS, 3)


MY_KINDS = {
    "MyISAM": ("CREATE TABLE t (a int PRIMARY KEY) ENGINE=MyISAM",),
    "a trigger that computes": ("CREATE TABLE t (a int PRIMARY KEY, w int)",
                                "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW SET NEW.w = NEW.a * 2"),
    "a trigger that writes elsewhere": (
        "CREATE TABLE tlog (op varchar(9), n int) ENGINE=Aria", "CREATE TABLE t (a int PRIMARY KEY)",
        "CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW INSERT INTO tlog VALUES ('row', NEW.a)"),
    "a view": ("CREATE TABLE b (a int PRIMARY KEY)", "CREATE VIEW t AS SELECT a FROM b WHERE a < 705 "
               "WITH CHECK OPTION"),
    "a partitioned table": ("CREATE TABLE t (a int PRIMARY KEY) PARTITION BY HASH (a) PARTITIONS 4",),
}


@pytest.mark.parametrize("kind", MY_KINDS)
def test_mariadb_kinds(mariadb, proxy, my, table, kind):
    import pymysql
    admin = my(through=False).cursor()
    results = {}
    for side, port in (("a", mariadb.port), ("b", proxy.mariadb_port)):
        for sql in (f"CREATE DATABASE {table}{side}", f"USE {table}{side}", *MY_KINDS[kind]):
            admin.execute(sql)

        def work(k, side=side, port=port):
            with mariadb.connect(port, database=f"{table}{side}") as c, c.cursor() as cursor:
                # every third is there already: what was kept of a batch that failed would show
                return [outcome(cursor, f"{HINT}INSERT INTO t (a) VALUES ({k * 100 + n - n % 3 // 2})", pymysql.Error)
                        for n in range(ROUNDS)]

        told = together(SESSIONS, work)
        admin.execute("SELECT * FROM t ORDER BY a")
        stored = admin.fetchall()
        log = None
        if "elsewhere" in kind:
            admin.execute("SELECT n, COUNT(*) FROM tlog GROUP BY 1 ORDER BY 1")
            log = admin.fetchall()
        results[side] = told, stored, log
    assert str(results["b"]).replace(f"{table}b", f"{table}a") == str(results["a"])
