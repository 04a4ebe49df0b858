"""Sessions are alike when the server says so: whatever made them differ, each write does what it would do alone.

Four sessions do something each, two of them what changes a session, then all write at the same moment into a table
whose name, or whose values, depend on the session. What is stored is compared with what the direct way stores.
"""

import re
import socket
import threading

import psycopg
import pytest

from tests.crowd import together
from tests.raw import RawMariaDB, RawPostgres
from tests.wire import pg, pg_bind, pg_parse
from tqdb.catalog.sessions import MARIADB_VARIABLES, MAX_VERSIONS, UNLIKE, Questions

HINT = "/* max_wait_ms:500 */ "


PG_SHOWN = [[b"DateStyle", b"ISO", b"about it"], [b"TimeZone", b"UTC", b""]]
PG_OWN = [b"u", b"u", b"2026-01-01", b"{pg_catalog,public}"]
PG_LIKE = [*PG_SHOWN, PG_OWN]
MY_LIKE = [b"-1", b"0", b"28800", b"'STRICT_ALL_TABLES'", b"d", b"u@%", None]


def judged(*rows: list[bytes | None]):
    return Questions().judge(0, list(rows), None)


@pytest.mark.parametrize("schemas", [None, b"{}", b"{public,pg_catalog}", b"{pg_temp,pg_catalog}", b"{pg_catalogue}"])
def test_postgres_does_not_say_that_a_session_is_like_others(schemas):
    assert judged(*PG_SHOWN, [*PG_OWN[:3], schemas])[0]
    assert not judged(*PG_LIKE)[0]


@pytest.mark.parametrize("rows", [
    None, [], [[b"user"]], [PG_OWN], PG_SHOWN, PG_LIKE[1:], [*PG_SHOWN, PG_OWN[:3]], [*PG_SHOWN, [None, *PG_OWN[1:]]],
    [*PG_SHOWN, [b"a", b"b"], PG_OWN], [*PG_SHOWN, [None, b"b", b""], PG_OWN]])
def test_postgres_says_less(rows):
    assert Questions().judge(0, rows, None) == UNLIKE


@pytest.mark.parametrize("schemas", [b"{pg_catalog}", b'{pg_catalog,"a b"}', b"{pg_catalog,my_pg_temp_1}"])
def test_postgres_looks_into_its_catalogue_first(schemas):
    assert judged(*PG_SHOWN, [*PG_OWN[:3], schemas])[0] is False


@pytest.mark.parametrize("schemas", [
    b"{pg_temp_3,pg_catalog}", b"{pg_catalog,pg_temp_41}", b"{pg_catalog,pg_temp_3,a}"])
def test_a_session_with_a_temporary_schema_is_asked_what_is_in_it(schemas):
    rows = [*PG_SHOWN, [*PG_OWN[:3], schemas]]
    sql, state = judged(*rows)
    assert b"pg_my_temp_schema" in sql
    found = Questions().judge(0, [[b"~alone", b"false"]], state)
    assert not found[0] and len(found) == 5
    for rows in (None, [], [[b"~alone", b"true"]], [[b"~alone", None]], [[b"~alone", b"false"]] * 2):
        # what statements are read by is the same: those prepared meanwhile hold when the objects have gone
        assert Questions().judge(0, rows, state) == (True, *found[1:])


@pytest.mark.parametrize("text, seconds", [
    (b"0", 0), (b"1500ms", 1.5), (b"10s", 10), (b"5min", 300), (b"2h", 7200), (b"1d", 86400), (b"soon", 0), (None, 0)])
def test_postgres_idle_limit(text, seconds):
    assert judged([b"idle_session_timeout", text, b""], *PG_LIKE)[3] == seconds


@pytest.mark.parametrize("one, other", [
    ([b"a", b"b", b""], [b"a", None, b""]), ([b"a", b"", b""], [b"a", None, b""]), ([b"a", b"b", b""], None),
    ([b"ab", b"c", b""], [b"a", b"bc", b""])])
def test_settings_that_differ(one, other):
    found, unlike = judged(one, *PG_LIKE), judged(*([other] if other else []), *PG_LIKE)
    assert found[1] != unlike[1] and found[2] != unlike[2]


@pytest.mark.parametrize("place", range(4))
def test_sessions_that_differ(place):
    found = judged(*PG_SHOWN, [*PG_OWN[:place], b"{pg_catalog,x}", *PG_OWN[place + 1:]])
    assert found[1] != judged(*PG_LIKE)[1] and found[2] != judged(*PG_LIKE)[2]


def test_custom_settings_are_in_the_digest_but_nothing_is_read_by_them():
    found = [judged(*PG_SHOWN, [*PG_OWN, *custom]) for custom in (
        (), (None,), (b"",), (b"a", None), (None, b"a"), (b"a", b"b"), (b"ab", b""), (b"", b"ab"))]
    assert len({digest for _, digest, *_ in found}) == len(found) and len({read for _, _, read, *_ in found}) == 1


def test_who_says_what_it_is_called_is_like_others():
    assert judged([b"application_name", b"me", b""], *PG_LIKE) == judged(*PG_LIKE)


@pytest.mark.parametrize("rows", [
    None, [], [MY_LIKE[:-1]], [MY_LIKE, MY_LIKE], *([[*MY_LIKE[:i], value, *MY_LIKE[i + 1:]]] for i, value in (
        (1, None), (1, b"1"), (1, b""), (1, "0".encode("utf-16")), (3, None)))])
def test_mariadb_does_not_say_that_a_session_is_like_others(rows):
    questions = Questions()
    questions.variables[b"11.4"] = ("sql_mode",)
    sql, state = questions.first(1, (), b"11.4")
    assert b"@@sql_mode" in sql and questions.judge(1, rows, state)[0]
    # after an error, and not for a session's sake, which variables there are is asked again
    assert (b"11.4" in questions.variables) == (rows is not None)


def test_a_mariadb_session_that_is_like_no_other_is_read_by_the_same():
    questions = Questions()
    questions.variables[b"11.4"] = ("sql_mode",)
    like, alone = (questions.judge(1, [[b"-1", value, *MY_LIKE[2:]]], b"11.4") for value in (b"0", b"1"))
    assert not like[0] and alone == (True, *like[1:])


def test_mariadb_is_asked_once_which_variables_a_version_has():
    questions = Questions()
    sql, state = questions.first(1, (), b"11.4")
    assert b"SYSTEM_VARIABLES" in sql
    sql, state = questions.judge(1, [[b"0", b"SQL_MODE"], [b"-1", b"TIME_ZONE"]], state)
    assert b"@@sql_mode" in sql and b"@@time_zone" in sql and b"@@tx_isolation" not in sql
    like = questions.judge(1, [MY_LIKE], state)
    assert not like[0] and like[3] == 28800
    for i in range(3, 7):
        assert questions.judge(1, [[*MY_LIKE[:i], b"other", *MY_LIKE[i + 1:]]], state)[1] != like[1]
    assert questions.first(1, (), b"11.4") == (sql, state) and b"SYSTEM_VARIABLES" in questions.first(1, (), b"11.8")[0]


@pytest.mark.parametrize("rows", [
    None, [], [[b"0", None]], [[b"0", b"TIME_ZONE"]], [[b"0", b"SQL_MODE"], [b"0", b"X"]]])
def test_mariadb_does_not_say_which_variables_it_has(rows):
    questions = Questions()
    assert questions.judge(1, rows, questions.first(1, (), b"11.4")[1]) == UNLIKE and not questions.variables


def test_versions_are_bounded():
    questions = Questions()
    for i in range(10 * MAX_VERSIONS):
        questions.judge(1, [[b"0", b"SQL_MODE"]], questions.first(1, (), b"%d" % i)[1])
    assert len(questions.variables) <= MAX_VERSIONS


# --- PostgreSQL -------------------------------------------------------------------------------------------------------

PG_SCHEMA = """
CREATE SCHEMA x; CREATE SCHEMA y;
CREATE TABLE y.t (a int); CREATE TABLE x.t (a int);
CREATE FUNCTION public.set_path() RETURNS text LANGUAGE sql AS $$ SELECT set_config('search_path', 'x', false) $$;
CREATE PROCEDURE public.p() LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('search_path', 'x', false); END $$;
CREATE TABLE public.one (a int); INSERT INTO public.one VALUES (1);
SET search_path = y;
"""
PG_CHANGES = {
    "SET": ["SET search_path = x"],
    "SET in a transaction": ["BEGIN", "SET search_path = x", "COMMIT"],
    "several": ["SELECT 1; SET search_path = x"],
    "behind a name": ["SET application_name = 'me'; SET search_path = x"],
    "between names": ["SET application_name = 'a'", "SET search_path = x", "RESET application_name"],
    "a name that was not set": ["SET search_path = x", "SET application_name = nothing.of_this_kind()"],
    "set_config": ["SELECT set_config('search_path', 'x', false)"],
    "quoted set_config": ["SELECT \"set_config\"('search_path', 'x', false)"],
    "qualified set_config": ["SELECT pg_catalog.set_config('search_path', 'x', false)"],
    "set_config with a comment": ["SELECT set_config/**/('search_path', 'x', false)"],
    "function": ["SELECT public.set_path()"],
    "function in a condition": ["SELECT 1 FROM public.one WHERE public.set_path() IS NULL"],
    "function in an INSERT": ["INSERT INTO public.one SELECT length(public.set_path())"],
    "function in VALUES": ["INSERT INTO public.one VALUES (length(public.set_path()))"],
    "function in RETURNING": ["INSERT INTO public.one VALUES (1) RETURNING public.set_path()"],
    "function in RETURNING of a table": ["INSERT INTO public.one TABLE public.one RETURNING public.set_path()"],
    "function in a hinted INSERT": [f"{HINT}INSERT INTO public.one VALUES (length(public.set_path()))"],
    "function in an UPDATE": ["UPDATE public.one SET a = length(public.set_path())"],
    "function in COPY": ["COPY (SELECT public.set_path()) TO STDOUT"],
    "function in EXPLAIN": ["EXPLAIN ANALYZE SELECT public.set_path()"],
    "function in a cursor": ["BEGIN", "DECLARE c CURSOR FOR SELECT public.set_path()", "FETCH c", "COMMIT"],
    "procedure": ["CALL public.p()"],
    "DO": ["DO $$ BEGIN PERFORM set_config('search_path', 'x', false); END $$"],
    "pg_settings": ["UPDATE pg_settings SET setting = 'x' WHERE name = 'search_path'"],
    "quoted pg_settings": ["UPDATE \"pg_settings\" SET setting = 'x' WHERE name = 'search_path'"],
    "PREPARE": ["PREPARE s AS SELECT set_config('search_path', 'x', false)", "EXECUTE s"],
    "PREPARE of a function": ["PREPARE s AS SELECT public.set_path()", "EXECUTE s"],
    "behind a continued string": ["SELECT E'a'\n 'b\\''; SET search_path = x; SELECT ''"],
    "not in a continued string": ["SELECT E'a'\n 'b\\'; SET search_path = x; SELECT '", "SET search_path = x"],
    "role": ["SET ROLE NONE", "SET search_path = x"],
    "discarded": ["SET search_path = x", "DISCARD ALL", "SET search_path = x"],
    "rolled back": ["SET search_path = x", "BEGIN", "SET search_path = y", "ROLLBACK"],
    "to a savepoint": ["SET search_path = x", "BEGIN", "SAVEPOINT s", "SET search_path = y", "ROLLBACK TO s", "COMMIT"],
    "failed": ["SET search_path = x", "SET search_path = y; SELECT 1/0"],
}


def execute(cursor, sql: str) -> None:
    try:
        if sql.startswith("COPY"):
            with cursor.copy(sql) as copy:
                list(copy)
        else:
            cursor.execute(sql)
    except psycopg.Error:
        pass


@pytest.fixture(scope="module")
def pg_database(postgres):
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE alike")
        admin.execute("ALTER DATABASE alike SET search_path = y")
    with psycopg.connect(postgres.dsn(), dbname="alike", autocommit=True) as setup:
        setup.execute(PG_SCHEMA)
    return "alike"


@pytest.mark.parametrize("first", [True, False], ids=["first", "after a write"])
@pytest.mark.parametrize("name", PG_CHANGES)
def test_postgres(postgres, proxy, pg_database, name, first):
    """Two of four sessions change their ``search_path``, before or after their first hinted write."""
    def run(port):
        with psycopg.connect(postgres.dsn(), dbname=pg_database, autocommit=True) as admin:
            admin.execute("TRUNCATE x.t, y.t")

        barrier = threading.Barrier(4, timeout=60)

        def work(i):
            with psycopg.connect(postgres.dsn(port), dbname=pg_database, autocommit=True) as connection:
                cursor = connection.cursor()
                if not first:
                    cursor.execute(f"{HINT}INSERT INTO t (a) VALUES ({100 + i})", prepare=False)
                for sql in PG_CHANGES[name] if i % 2 else ["SELECT 1"]:
                    execute(cursor, sql)
                barrier.wait()
                cursor.execute(f"{HINT}INSERT INTO t (a) VALUES ({i})", prepare=False)
                barrier.wait()
                cursor.execute(f"{HINT}INSERT INTO t (a) VALUES ({10 + i})", prepare=False)

        together(4, work)
        with psycopg.connect(postgres.dsn(), dbname=pg_database, autocommit=True) as admin:
            return admin.execute("SELECT 'x', a FROM x.t UNION SELECT 'y', a FROM y.t ORDER BY 1, 2").fetchall()

    direct = run(postgres.port)
    before = proxy.batched()
    assert run(proxy.postgres_port) == direct
    assert {"x", "y"} == {schema for schema, _ in direct}
    assert proxy.batched() > before                     # those that are alike do share


NAMES = {
    "start-up": lambda i: ({"application_name": f"worker {i}"}, []),
    "SET": lambda i: ({}, [f"SET application_name = 'worker {i}'"]),
    "SET TO": lambda i: ({}, [f"set session Application_Name to 'worker {i}' ;"]),
    "SET LOCAL": lambda i: ({}, ["BEGIN", f"SET LOCAL application_name = 'worker {i}'", "ROLLBACK"]),
    "both": lambda i: ({"application_name": f"worker {i}"}, ["RESET application_name"] if i % 2 else []),
}
# a column's default that shows the difference, and how many of the sessions write the same
CALLED = {
    "nothing": ("'x'", 8), "the name": ("current_setting('application_name')", 1),
    "the name in a function": ("called()", 1), "a setting that begins like it": (
        "current_setting('application_name.x', true)", 4),
}


@pytest.mark.parametrize("called", CALLED)
@pytest.mark.parametrize("name", NAMES)
def test_postgres_names_of_applications(postgres, proxy, pg_database, name, called):
    """Sessions of one application are alike whatever each calls itself; but what reads the name tells them apart."""
    default, alike = CALLED[called]
    table = f"named_{[*CALLED].index(called)}"          # the proxy has not seen it made
    with psycopg.connect(postgres.dsn(), dbname=pg_database, autocommit=True) as admin:
        admin.execute("CREATE OR REPLACE FUNCTION called() RETURNS text LANGUAGE sql AS "
                      "$$ SELECT current_setting('application_name') $$")
        admin.execute(f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (k int, v text DEFAULT {default})")

    def run(port):
        with psycopg.connect(postgres.dsn(), dbname=pg_database, autocommit=True) as admin:
            admin.execute(f"TRUNCATE {table}")
        barrier = threading.Barrier(8, timeout=60)

        def work(i):
            options, statements = NAMES[name](i)
            with psycopg.connect(postgres.dsn(port), dbname=pg_database, autocommit=True, **options) as connection:
                for sql in (*statements, f"SET application_name .x = '{i % 2}'"):
                    connection.execute(sql)
                for k in range(4):
                    barrier.wait()
                    connection.execute(f"{HINT}INSERT INTO {table} (k) VALUES ({10 * i + k})", prepare=False)
                for sql in statements:
                    connection.execute(sql)
                barrier.wait()
                connection.execute(f"{HINT}INSERT INTO {table} (k) VALUES ({10 * i + 9})", prepare=False)

        together(8, work)
        with psycopg.connect(postgres.dsn(), dbname=pg_database, autocommit=True) as admin:
            return admin.execute(f"SELECT k, v FROM {table} ORDER BY k").fetchall()

    direct = run(postgres.port)
    assert len(direct) == 40
    before = proxy.batched()
    assert run(proxy.postgres_port) == direct
    batched = proxy.batched() - before
    if alike == 1:
        assert not batched
    else:
        assert batched >= 20


# what two sessions do before they prepare and after it, the table's column, and a statement that shows the difference
PG_PREPARED = {
    "DateStyle": ("SET datestyle = 'ISO, DMY'", "RESET datestyle", "date", "'01/02/2020'"),
    "TimeZone": ("SET timezone = 'Asia/Tokyo'", "RESET timezone", "timestamptz", "'2020-01-01 00:00'"),
    "IntervalStyle": ("SET intervalstyle = 'sql_standard'", "RESET intervalstyle", "interval", "'-1 2:03:04'"),
    "expression": ("SELECT set_config('datestyle', 'ISO, DMY', false)", "RESET datestyle", "date", "'01/02/2020'"),
    "parameters": ("SET search_path = x", "SET search_path = y", "text", "%s || '!'"),
}


@pytest.mark.parametrize("first", [True, False], ids=["first", "after a write"])
@pytest.mark.parametrize("name", PG_PREPARED)
def test_postgres_prepared_before_a_change(postgres, proxy, pg_database, name, first):
    """Two of four sessions prepare as what they then are no more: alike, but for what they have prepared."""
    change, back, kind, value = PG_PREPARED[name]
    insert = f"{HINT}INSERT INTO p (k, v) VALUES (%s, {value})"
    with psycopg.connect(postgres.dsn(), dbname=pg_database, autocommit=True) as admin:
        def run(port):
            for schema in "xy":
                admin.execute(f"DROP TABLE IF EXISTS {schema}.p")
                admin.execute(f"CREATE TABLE {schema}.p (k int, v {kind})")
            barrier = threading.Barrier(4, timeout=60)

            def work(i):
                with psycopg.connect(postgres.dsn(port), dbname=pg_database, autocommit=True) as connection:
                    cursor = connection.cursor()
                    more = ("z",) if "%s" in value else ()
                    if not first:
                        cursor.execute(f"{HINT}INSERT INTO p (k) VALUES (200)", prepare=False)
                    if i % 2:
                        cursor.execute(change, prepare=False)
                    cursor.execute(insert, (100 + i, *more), prepare=True)
                    if i % 2:
                        cursor.execute(back, prepare=False)
                    for turn in range(3):
                        barrier.wait()
                        cursor.execute(insert, (10 * i + turn, *more), prepare=True)

            together(4, work)
            return admin.execute("SELECT 'x', k, v::text FROM x.p WHERE k < 100 UNION ALL "
                                 "SELECT 'y', k, v::text FROM y.p WHERE k < 100 ORDER BY 1, 2").fetchall()

        direct = run(postgres.port)
        before = proxy.batched()
        assert run(proxy.postgres_port) == direct
        assert proxy.batched() >= before + 6            # those that have always been as they are do share


def test_postgres_prepared_for_another_tenant(postgres, proxy, pg_database):
    """A custom setting is in no prepared statement: writes prepared before it changes are batched as before."""
    with psycopg.connect(postgres.dsn(), dbname=pg_database, autocommit=True) as admin:
        admin.execute("CREATE TABLE y.tenant (k int, t text DEFAULT current_setting('app.who', true))")
    insert = f"{HINT}INSERT INTO tenant (k) VALUES (%s)"
    barrier = threading.Barrier(4, timeout=60)
    before: list[int] = []

    def work(i):
        with psycopg.connect(postgres.dsn(proxy.postgres_port), dbname=pg_database, autocommit=True) as connection:
            cursor = connection.cursor()
            for turn in range(5):
                if turn < 2:
                    cursor.execute(f"SET app.who = 'w{turn}'", prepare=False)
                if turn == 2:
                    before.append(proxy.batched())
                barrier.wait()
                cursor.execute(insert, (10 * i + turn,), prepare=True)

    together(4, work)
    assert proxy.batched() == max(before) + 12
    with psycopg.connect(postgres.dsn(), dbname=pg_database, autocommit=True) as admin:
        rows = admin.execute("SELECT k, t FROM y.tenant").fetchall()
    assert sorted(rows) == sorted((10 * i + turn, f"w{min(turn, 1)}") for i in range(4) for turn in range(5))
def test_postgres_an_unnamed_statement_is_executed_again(postgres, proxy, pg_database):
    """What was parsed with a write that was held changes the session whenever it is executed, also without a Parse."""
    sql = f"{HINT}INSERT INTO public.one VALUES (public.go($1))".encode()
    run = pg(b"E", b"\0\0\0\0\0") + pg(b"S")
    with psycopg.connect(postgres.dsn(), dbname=pg_database, autocommit=True) as admin:
        admin.execute("TRUNCATE x.t, y.t; CREATE FUNCTION public.go(text) RETURNS int LANGUAGE sql AS "
                      "$$ SELECT length(set_config('search_path', $1, false)) $$")
        sessions = [RawPostgres(proxy.postgres_port, database=pg_database) for _ in range(4)]
        for session in sessions:
            session.say(pg_parse(b"", sql) + pg_bind(b"", b"", b"y") + run)
        # the first one's was held: on its connection the catalogue was asked
        sessions[0].say(pg_bind(b"", b"", b"x") + run)
        before = proxy.batched()
        for turn in range(2):
            together(4, lambda i, turn=turn: sessions[i].query(f"{HINT}INSERT INTO t (a) VALUES ({10 * turn + i})"))
        assert proxy.batched() > before
        for session in sessions:
            session.close()
        admin.execute("DROP FUNCTION public.go")
        assert admin.execute("SELECT 'x', a FROM x.t UNION ALL SELECT 'y', a FROM y.t ORDER BY 1, 2").fetchall() == [
            ("x", 0), ("x", 10), *[("y", 10 * turn + i) for turn in range(2) for i in range(1, 4)]]


def test_postgres_defaults_of_a_role_change(postgres, proxy, pg_database):
    """ALTER ROLE … SET between two logins: old and new sessions are not alike."""
    with psycopg.connect(postgres.dsn(), dbname=pg_database, autocommit=True) as admin:
        admin.execute("TRUNCATE x.t, y.t")
        admin.execute("CREATE ROLE clerk LOGIN; GRANT ALL ON SCHEMA x, y TO clerk; GRANT ALL ON x.t, y.t TO clerk")
        admin.execute("ALTER ROLE clerk IN DATABASE alike SET search_path = y")
        dsn = postgres.dsn(proxy.postgres_port)
        old = [psycopg.connect(dsn, user="clerk", dbname=pg_database, autocommit=True) for _ in range(2)]
        admin.execute("ALTER ROLE clerk IN DATABASE alike SET search_path = x")
        new = [psycopg.connect(dsn, user="clerk", dbname=pg_database, autocommit=True) for _ in range(2)]
        sessions = [*old, *new]
        before = proxy.batched()
        for turn in range(3):
            together(4, lambda i, turn=turn: sessions[i].execute(f"{HINT}INSERT INTO t (a) VALUES ({10 * turn + i})"))
        found = admin.execute("SELECT 'x', a FROM x.t UNION ALL SELECT 'y', a FROM y.t ORDER BY 2").fetchall()
        assert found == [("x" if a % 10 >= 2 else "y", a) for a in sorted(10 * turn + i for turn in range(3)
                                                                          for i in range(4))]
        assert proxy.batched() > before
        for session in sessions:
            session.close()
        admin.execute("DROP OWNED BY clerk; DROP ROLE clerk")


def test_postgres_tenants_of_a_new_proxy(postgres, pg_database, start_proxy):
    """What policies read is not known to a proxy before it has asked: by then half of its sessions are another's."""
    with psycopg.connect(postgres.dsn(), dbname=pg_database, autocommit=True) as admin:
        admin.execute("DROP TABLE IF EXISTS public.of; CREATE TABLE public.of (tenant text, a int); "
                      "ALTER TABLE public.of ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON public.of "
                      "USING (tenant = current_setting('app.tenant')) "
                      "WITH CHECK (tenant = current_setting('app.tenant')); "
                      "DROP ROLE IF EXISTS lodger; CREATE ROLE lodger LOGIN; GRANT ALL ON public.of TO lodger")
        for _ in range(6):
            proxy = start_proxy(postgres=postgres)

            def work(i, port=proxy.postgres_port):
                own, refused = "ab"[i % 2], []
                with psycopg.connect(postgres.dsn(port), user="lodger", dbname=pg_database, autocommit=True) as session:
                    session.execute(f"SET app.tenant = '{own}'")
                    for tenant in "abab":
                        try:
                            session.execute(f"/* max_wait_ms:20 */ INSERT INTO public.of VALUES ('{tenant}', {i})",
                                            prepare=False)
                        except psycopg.errors.InsufficientPrivilege:
                            refused.append(tenant)
                return refused

            assert together(20, work) == [["b", "b"], ["a", "a"]] * 10
        admin.execute("DROP TABLE public.of; DROP ROLE lodger")


class Balancer(threading.Thread):
    """One address with several servers behind it, taken in turn."""

    def __init__(self, ports: list[int]):
        super().__init__(daemon=True)
        self.ports = ports
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def run(self) -> None:
        number = 0
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.ports[number % len(self.ports)]))
            number += 1
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self.pump, args=(source, target), daemon=True).start()

    @staticmethod
    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_postgres_two_masters_behind_one_address(postgres, pg_database, start_proxy):
    """Each session finds its own writes where it wrote them."""
    from tqdb.load.servers import Postgres
    with Postgres() as other:
        other.start()
        for server in (postgres, other):
            with psycopg.connect(server.dsn(), autocommit=True) as admin:
                admin.execute("DROP TABLE IF EXISTS masters; CREATE TABLE masters (a int)")
        balancer = Balancer([postgres.port, other.port])
        balancer.start()
        behind = start_proxy(postgres=Behind(balancer.port))
        sessions = [psycopg.connect(postgres.dsn(behind.postgres_port), autocommit=True) for _ in range(8)]

        def work(i):
            missing = 0
            for turn in range(20):
                a = 100 * i + turn
                sessions[i].execute(f"/* max_wait_ms:20 */ INSERT INTO masters VALUES ({a})", prepare=False)
                found = sessions[i].execute(f"SELECT count(*) FROM masters WHERE a = {a}", prepare=False)
                missing += found.fetchone()[0] != 1
            return missing

        assert together(8, work) == [0] * 8
        assert behind.batched() > 0
        for session in sessions:
            session.close()
        balancer.listener.close()


class Behind:
    """A server at another port than its own."""

    def __init__(self, port: int):
        self.address = f"127.0.0.1:{port}"


# --- MariaDB ----------------------------------------------------------------------------------------------------------

MY_SCHEMA = [
    "CREATE DATABASE IF NOT EXISTS alike", "USE alike", "CREATE TABLE t (a INT, z TIMESTAMP)",
    "CREATE TABLE zones (z VARCHAR(10))",
    "INSERT INTO zones VALUES ('+07:00')",
    "CREATE PROCEDURE p() SET time_zone = '+07:00'",
    "CREATE FUNCTION f() RETURNS INT NO SQL BEGIN SET time_zone = '+07:00'; RETURN 1; END",
]
MY_CHANGES = {
    "SET": ["SET time_zone = '+07:00'"],
    "SET SESSION": ["SET SESSION time_zone = '+07:00'"],
    "variable": ["SET @z = '+07:00'", "SET time_zone = @z"],
    "SELECT": ["SET time_zone = (SELECT z FROM zones)"],
    "expression": ["SET time_zone = CONCAT('+07', ':00')"],
    "procedure": ["CALL p()"],
    "function in a hinted INSERT": [f"{HINT}INSERT INTO zones VALUES (f())"],
    "function": ["SELECT f()"],
    "qualified function": ["SELECT alike.f()"],
    "quoted function": ["SELECT `f`()"],
    "function in DO": ["DO f()"],
    "function in an INSERT": ["INSERT INTO zones SELECT f()"],
    "function in VALUES": ["INSERT INTO zones VALUES (f())"],
    "compound": ["BEGIN NOT ATOMIC SET time_zone = '+07:00'; END"],
    "IF": ["IF 1 THEN SET time_zone = '+07:00'; END IF"],
    "immediate": ["EXECUTE IMMEDIATE \"SET time_zone = '+07:00'\""],
    "PREPARE": ["PREPARE s FROM \"SET time_zone = '+07:00'\"", "EXECUTE s"],
    "executable comment": ["/*!50003 SET time_zone = '+07:00' */"],
    "failed": ["SET time_zone = '+07:00'", "SET time_zone = 'nowhere'"],
}


@pytest.fixture(scope="module")
def my_database(mariadb):
    with mariadb.connect(database=None) as connection, connection.cursor() as cursor:
        for sql in MY_SCHEMA:
            cursor.execute(sql)
    return "alike"


@pytest.mark.parametrize("first", [True, False], ids=["first", "after a write"])
@pytest.mark.parametrize("name", MY_CHANGES)
def test_mariadb(mariadb, proxy, my_database, name, first):
    """Two of four sessions change their time zone, before or after their first hinted write."""
    import pymysql

    def run(port):
        with mariadb.connect(database=my_database) as connection, connection.cursor() as cursor:
            cursor.execute("TRUNCATE t")

        barrier = threading.Barrier(4, timeout=60)

        def work(i):
            with mariadb.connect(port, database=my_database) as connection, connection.cursor() as cursor:
                def write(number):
                    cursor.execute(f"{HINT}INSERT INTO t (a, z) VALUES ({number}, '2020-06-01 12:00:00')")

                if not first:
                    write(100 + i)
                for sql in MY_CHANGES[name] if i % 2 else ["SELECT 1"]:
                    try:
                        cursor.execute(sql)
                    except pymysql.Error:
                        pass
                barrier.wait()
                write(i)
                barrier.wait()
                write(10 + i)

        together(4, work)
        with mariadb.connect(database=my_database) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT a, UNIX_TIMESTAMP(z) FROM t ORDER BY a")
            return cursor.fetchall()

    direct = run(mariadb.port)
    before = proxy.batched()
    assert run(proxy.mariadb_port) == direct
    assert len({z for _, z in direct}) == 2
    assert proxy.batched() > before


@pytest.mark.parametrize("results", ["utf8mb4", "utf16", "binary"])
def test_mariadb_temporary_table_of_a_procedure(mariadb, proxy, my_database, results):
    """A procedure makes a temporary table that hides the real one: that session's writes go alone.

    So they do when the answer to what the session is like comes in a character set in which nothing is found.
    """
    with mariadb.connect(database=my_database) as connection, connection.cursor() as cursor:
        cursor.execute("DROP PROCEDURE IF EXISTS hide")
        cursor.execute("CREATE PROCEDURE hide() CREATE TEMPORARY TABLE t (a INT, z TIMESTAMP)")
        cursor.execute("TRUNCATE t")

    def work(i):
        with mariadb.connect(proxy.mariadb_port, database=my_database) as connection, connection.cursor() as cursor:
            if i == 0:
                cursor.execute("CALL hide()")
                cursor.execute(f"SET character_set_results = {results}")
            for turn in range(5):
                cursor.execute(f"{HINT}INSERT INTO t (a) VALUES ({10 * i + turn})")
            cursor.execute("SET character_set_results = utf8mb4")
            cursor.execute("SELECT COUNT(*) FROM t")
            return cursor.fetchone()[0]

    counts = together(4, work)
    assert counts[0] == 5
    with mariadb.connect(database=my_database) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT MIN(a), COUNT(*) FROM t")
        assert cursor.fetchone() == (10, 15)


@pytest.mark.parametrize("name, value, other", [("time_zone", "SYSTEM", "+05:00"), ("auto_increment_increment", 1, 7)])
def test_mariadb_global_settings_change(mariadb, proxy, my_database, name, value, other):
    """SET GLOBAL, not through the proxy, between two logins: old and new sessions are not alike."""
    with mariadb.connect(database=my_database) as admin, admin.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS g")
        cursor.execute("CREATE TABLE g (id INT AUTO_INCREMENT PRIMARY KEY, tag INT, z TIMESTAMP)")

        def login():
            return [mariadb.connect(proxy.mariadb_port, database=my_database) for _ in range(2)]

        old = login()
        for connection in old:
            connection.query("SELECT 1")
        cursor.execute(f"SET GLOBAL {name} = %s", (other,))
        try:
            sessions = [*old, *login()]

            def work(i):
                found = []
                with sessions[i].cursor() as writer:
                    for turn in range(5):
                        writer.execute(f"{HINT}INSERT INTO g (tag, z) VALUES ({10 * i + turn}, '2020-06-01 12:00:00')")
                        found.append((10 * i + turn, writer.lastrowid))
                return found

            told = dict(pair for found in together(4, work) for pair in found)
        finally:
            cursor.execute(f"SET GLOBAL {name} = %s", (value,))
        cursor.execute("SELECT tag, id, UNIX_TIMESTAMP(z) FROM g")
        rows = cursor.fetchall()
        assert {tag: number for tag, number, _ in rows} == told
        if name == "time_zone":
            assert len({z for tag, _, z in rows if tag < 20}) == len({z for tag, _, z in rows if tag >= 20}) == 1
            assert len({z for _, _, z in rows}) == 2
        for connection in sessions:
            connection.close()


# variables of a session that change of a write how fast it is and what a log has of it, or that are looked after
# elsewhere: the last insert id, warnings, SET timestamp, SET insert_id, what ends a session
MY_HARMLESS = re.compile("|".join("""
    analyze_max_length analyze_sample_percentage aria_.* big_tables binlog_alter_two_phase binlog_annotate_row_events
    .*_buffer_.* column_compression_zlib_.* deadlock_.* default_master_connection eq_range_.* error_count
    expensive_subquery_limit external_user gtid_seq_no histogram_.* identity in_predicate_conversion_threshold
    in_transaction innodb_compression_default innodb_default_encryption_key_id innodb_ft_.* innodb_tmpdir insert_id
    interactive_timeout join_cache_level keep_files_on_create last_gtid last_insert_id log_.* long_query_time
    max_delayed_threads max_heap_table_size max_insert_delayed_threads max_length_for_sort_data max_relay_log_size
    max_rowid_filter_size max_seeks_for_key max_tmp_tables max_user_connections min_examined_row_limit myisam_.*
    net_.* old_alter_table old_passwords optimizer_.* profiling.* progress_report_time proxy_user pseudo_thread_id
    .*_alloc_block_size query_cache_.* .*_prealloc_size rand_seed. redirect_url rowid_merge_buff_size
    skip_parallel_replication slow_query_log sql_buffer_result sql_log_off sql_quote_show_create
    sql_slave_skip_counter storage_engine tcp_nodelay thread_pool_priority timestamp tmp_.* use_stat_tables
    wait_timeout warning_count wsrep_gtid_seq_no wsrep_osu_method
""".split()))


def test_every_variable_of_a_mariadb_session_is_known(mariadb):
    """What a later version brings along has to be looked at: it is compared, or changes nothing of a write."""
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT LOWER(VARIABLE_NAME) FROM information_schema.SYSTEM_VARIABLES "
                       "WHERE VARIABLE_SCOPE LIKE 'SESSION%'")
        names = {name for name, in cursor.fetchall()}
    assert not {n for n in names - set(MARIADB_VARIABLES) if not MY_HARMLESS.fullmatch(n)}


@pytest.mark.parametrize("name, value, expression", [
    ("block_encryption_mode", "'aes-256-ecb'", "HEX(AES_ENCRYPT('x', 'k'))"),
    ("character_set_collations", "'utf8mb4=utf8mb4_bin'", "_utf8mb4'a' = _utf8mb4'A'"),
    ("div_precision_increment", "20", "1 / 3")])
def test_mariadb_variables_that_show_in_a_row(mariadb, proxy, my_database, name, value, expression):
    """Half of the sessions have another value: each row is as its own session would have it."""
    with mariadb.connect(database=my_database) as admin, admin.cursor() as cursor:
        if not cursor.execute("SHOW VARIABLES LIKE %s", (name,)):
            pytest.skip(f"a server without {name}")

        def run(port):
            cursor.execute("CREATE OR REPLACE TABLE g (k INT PRIMARY KEY, v TEXT)")
            cursor.execute("INSERT INTO g (k) VALUES " + ", ".join(f"({k})" for k in range(60)))
            barrier = threading.Barrier(6, timeout=60)

            def work(i):
                with mariadb.connect(port, database=my_database) as connection, connection.cursor() as writer:
                    if i % 2:
                        writer.execute(f"SET {name} = {value}")
                    for turn in range(10):
                        barrier.wait()
                        writer.execute(f"{HINT}UPDATE g SET v = {expression} WHERE k = {10 * i + turn}")

            together(6, work)
            cursor.execute("SELECT k, v FROM g ORDER BY k")
            return cursor.fetchall()

        direct = run(mariadb.port)
        assert len({v for _, v in direct}) == 2
        before = proxy.batched()
        assert run(proxy.mariadb_port) == direct
        assert proxy.batched() - before >= 20


# what two sessions do before they prepare, what the other two do behind that, and a statement that shows the difference
MY_PREPARED = {
    "database": (["USE alike2"], "INSERT INTO p (a, b) VALUES (?, 'x')"),
    "character set": (["SET NAMES latin1"], "INSERT INTO p (a, b) VALUES (?, 'ä')"),
    "sql_mode": (["SET sql_mode = 'STRICT_TRANS_TABLES,PIPES_AS_CONCAT'"],
                 "INSERT INTO p (a, b) VALUES (?, '1' || '2')"),
    "expression": (["SET sql_mode = CONCAT(@@sql_mode, ',PIPES_AS_CONCAT')", "SELECT alike.f()"],
                   "INSERT INTO p (a, b) VALUES (?, '1' || '2')"),
}


@pytest.mark.parametrize("ahead", [False, True], ids=["one by one", "sent ahead"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "after an execution"])
@pytest.mark.parametrize("name", MY_PREPARED)
def test_mariadb_prepared_before_a_change(mariadb, proxy, my_database, name, first, ahead):
    """Two sessions prepare and then change, two change and then prepare: alike, but for what they have prepared."""
    changes, insert = MY_PREPARED[name]
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE IF NOT EXISTS alike2")

        def run(port):
            for database in (my_database, "alike2"):
                cursor.execute(f"CREATE OR REPLACE TABLE {database}.p (a INT, b VARCHAR(9)) CHARACTER SET utf8mb4")
            connections = [mariadb.connect(port, database=my_database, autocommit=True) for _ in range(4)]
            sessions = [RawMariaDB(one) for one in connections]

            def prepare(i):
                if ahead and i % 2 == 0:
                    said = [b"\x16" + (HINT + insert).encode(), *(b"\x03" + sql.encode() for sql in changes)]
                    sessions[i].prepare(HINT + insert, said)
                    return
                for sql in changes if i % 2 else []:
                    sessions[i].query(sql)
                sessions[i].prepare(HINT + insert)
                if not first:
                    sessions[i].execute(HINT + insert, (100 + i,))
                for sql in [] if i % 2 else changes:
                    sessions[i].query(sql)

            together(4, prepare)
            for turn in range(3):
                together(4, lambda i, turn=turn: sessions[i].execute(HINT + insert, (10 * i + turn,)))
            for one in connections:
                one.close()
            cursor.execute(" UNION ALL ".join(
                f"SELECT '{database}', a, HEX(b) FROM {database}.p" for database in (my_database, "alike2")))
            return sorted(row for row in cursor.fetchall() if row[1] < 100)

        direct = run(mariadb.port)
        before = proxy.batched()
        assert run(proxy.mariadb_port) == direct
        assert len({(database, b) for database, _, b in direct}) == 2
        assert proxy.batched() > before
