"""What a write executes on PostgreSQL decides how it may be sent: merged, pipelined, or alone and why."""

import itertools
import re

import psycopg
import pytest

from tests.facts_postgres import ALONE, MERGED, PIPELINED, facts, strategy, verdict
from tqdb.catalog.postgres_probe import FIRST_USER_OID, probe
from tqdb.catalog.sessions import _POSTGRES_TEMP, Questions

INSERT = "INSERT INTO t (a) VALUES (1)"

TRIGGER = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ {} $$; " \
          "CREATE TRIGGER x {} ON t FOR EACH ROW EXECUTE FUNCTION f()"


def trigger(body, when="BEFORE INSERT"):
    return "CREATE TABLE t (a int, b text); " + TRIGGER.format(body, when)


# functions that tell others; an operator class may call the second
NOTIFIES = (
    "CREATE FUNCTION bad(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('a', 'b'); RETURN $1; END $$; "
    "CREATE FUNCTION bad(int, int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN bad($1) - $2; END $$; ")

# what there is, the write, how it goes, a word of why
CASES = {
    "plain": ("CREATE TABLE t (a int)", INSERT, MERGED, ""),
    "usual columns": (
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE t (id serial PRIMARY KEY, i bigint GENERATED ALWAYS AS "
        "IDENTITY, a int UNIQUE CHECK (a < 1000), u uuid DEFAULT gen_random_uuid(), n timestamptz DEFAULT now(), "
        "d date DEFAULT CURRENT_DATE, w text DEFAULT CURRENT_USER, j jsonb DEFAULT jsonb_build_object('x', now()), "
        "s text DEFAULT lower('X') || to_char(now(), 'YYYY'), g int GENERATED ALWAYS AS (a * 2) STORED, "
        "p int REFERENCES p DEFAULT 1, r float DEFAULT random(), f text DEFAULT format('%s', clock_timestamp())); "
        "CREATE INDEX ON t (lower(w)) WHERE a > 3; CREATE INDEX ON t USING gin (j)", INSERT, MERGED, ""),
    "values": ("CREATE TABLE t (a int, b text)",
               "INSERT INTO t (a, b) VALUES (1 + 2, lower('X') || now()::date || age('2020-01-01') RETURNING *",
               ALONE, "text"),
    "functions in values": (
        "CREATE TABLE t (a int, b text)",
        "INSERT INTO t (a, b) VALUES (1 + 2, lower('X') || now()::date || age('2020-01-01')) RETURNING t.a", MERGED,
        ""),
    "age of a transaction": ("CREATE TABLE t (a int, b text)", "INSERT INTO t (a) VALUES (age('5'::xid))", ALONE,
        "age"),
    "a set": ("CREATE TABLE t (a int)", "INSERT INTO t (a) VALUES (generate_series(1, 3))", PIPELINED, ""),
    "the connection": ("CREATE TABLE t (a int)", "INSERT INTO t (a) VALUES (pg_backend_pid())", ALONE,
                       "pg_backend_pid()"),
    "WHERE": ("CREATE TABLE t (a int)", "UPDATE t SET a = 1 WHERE a < txid_current()", ALONE, "txid_current()"),
    "RETURNING": ("CREATE TABLE t (a int)", "INSERT INTO t (a) VALUES (1) RETURNING pg_backend_pid()", ALONE, "pid"),
    "a system column": ("CREATE TABLE t (a int)", "UPDATE t SET a = 2 RETURNING xmin", ALONE, "text"),
    "EXTRACT": ("CREATE TABLE t (a int)", "UPDATE t SET a = extract(year FROM now()) WHERE a IN (1, 2) AND a BETWEEN 1 "
                "AND 3 RETURNING a::text", PIPELINED, ""),
    "a user's namesake": (
        "CREATE TABLE t (a int, b text); CREATE FUNCTION lower(varchar) RETURNS text LANGUAGE sql AS "
        "'SELECT pg_backend_pid()::text'", "INSERT INTO t (b) VALUES (lower('x'))", ALONE, "pg_backend_pid()"),
    "a namesake that only computes": (
        "CREATE TABLE t (a int, b text); CREATE FUNCTION lower(varchar) RETURNS text LANGUAGE sql AS 'SELECT $1 || 1'",
        "INSERT INTO t (b) VALUES (lower('x'))", PIPELINED, ""),
    "a namesake where nobody looks": (
        "CREATE TABLE t (a int, b text); CREATE SCHEMA {s}o; CREATE FUNCTION {s}o.lower(varchar) RETURNS text "
        "LANGUAGE sql AS 'SELECT pg_backend_pid()::text'", "INSERT INTO t (b) VALUES (lower('x'))", MERGED, ""),
    "a function like a column": (
        "CREATE TABLE t (a int); CREATE FUNCTION pid(t) RETURNS int LANGUAGE sql AS 'SELECT pg_backend_pid()'",
        "INSERT INTO t (a) VALUES (1) RETURNING t.pid", ALONE, "pg_backend_pid()"),
    "a user's operator": (
        "CREATE TABLE t (a int); CREATE FUNCTION f(int, text) RETURNS int LANGUAGE sql AS 'SELECT pg_backend_pid()'; "
        "CREATE OPERATOR ## (leftarg = int, rightarg = text, procedure = f)", "UPDATE t SET a = 1 ## 'x'", ALONE,
        "pg_backend_pid()"),
    "an operator with a built-in function": (
        "CREATE TABLE t (a int); CREATE OPERATOR ## (leftarg = int, rightarg = int, procedure = pg_try_advisory_lock)",
        "UPDATE t SET a = 1 WHERE a ## 1", ALONE, "pg_try_advisory_lock()"),
    "an extension's types": (
        "CREATE EXTENSION citext SCHEMA {s}; CREATE EXTENSION hstore SCHEMA {s}; CREATE TABLE t (a int, c citext "
        "UNIQUE, "
        "h hstore); CREATE INDEX ON t USING gin (h)", "INSERT INTO t (a, c, h) VALUES (1, 'x', 'a=>1')", MERGED, ""),
    "an extension's functions": (
        "CREATE EXTENSION pgcrypto SCHEMA {s}; CREATE EXTENSION \"uuid-ossp\" SCHEMA {s}; CREATE TABLE t (a int, "
        "u uuid DEFAULT uuid_generate_v4())", "INSERT INTO t (a, u) VALUES (length(digest('x', 'sha1')), DEFAULT)",
        MERGED,
        ""),
    "an extension's function that is not known": (
        "CREATE EXTENSION dblink SCHEMA {s}; CREATE TABLE t (a int, b text DEFAULT dblink_connect('x'))", INSERT, ALONE,
        "in C"),
    "a default that asks for its transaction": ("CREATE TABLE t (a int, tx bigint DEFAULT txid_current())", INSERT,
        ALONE,
                                           "the default of column tx calls txid_current()"),
    "a default deep inside": (
        "CREATE TABLE t (a int, b text DEFAULT CASE WHEN now() > 'today' THEN concat('x', ARRAY[pg_backend_pid()]) "
        "END)",
        INSERT, ALONE, "pg_backend_pid()"),
    "a constant setting": ("CREATE TABLE t (a int, b text DEFAULT current_setting('App.Tenant', true))", INSERT,
                           PIPELINED, ""),
    "a server's setting": ("CREATE TABLE t (a int, b text DEFAULT current_setting('application_name'))", INSERT, ALONE,
                           "application_name"),
    "a computed setting": ("CREATE TABLE t (a int, b text DEFAULT current_setting('app.' || 'x'))", INSERT, ALONE,
                           "current_setting()"),
    "a computed setting in the text": ("CREATE TABLE t (a int, b text)",
                                       "UPDATE t SET b = current_setting('a.' || b)", ALONE, "text"),
    "a setting in the text, whose literal the next one may not have": (
        "CREATE TABLE t (a int, b text)", "UPDATE t SET b = current_setting('a.b')", ALONE, "text"),
    "a type that looks like a function": (
        "CREATE DOMAIN d AS int CHECK (VALUE > pg_backend_pid()); CREATE FUNCTION d(text) RETURNS int LANGUAGE sql AS "
        "'SELECT 1'; CREATE TABLE t (a int)", "INSERT INTO t (a) VALUES (d(1))", ALONE, "the type d calls"),
    "a domain": ("CREATE DOMAIN d AS int CHECK (VALUE > 0) DEFAULT 3; CREATE TABLE t (a int, b d)", INSERT, MERGED, ""),
    "a domain that asks": (
        "CREATE FUNCTION f(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN pg_backend_pid() > $1; END'; "
        "CREATE DOMAIN d AS int CHECK (f(VALUE)); CREATE TABLE t (a int, b d[])", INSERT, ALONE, "pg_backend_pid()"),
    "a domain of a domain": (
        "CREATE DOMAIN d AS text DEFAULT pg_backend_pid()::text; CREATE DOMAIN e AS d; CREATE TABLE t (a int, b e)",
        INSERT, ALONE, " calls pg_backend_pid()"),      # d, or from version 17 on e, which then has it, too
    "a domain in a cast": (
        "CREATE FUNCTION f(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN pg_backend_pid() > $1; END'; "
        "CREATE DOMAIN d AS int CHECK (f(VALUE)); CREATE TABLE t (a int)", "INSERT INTO t (a) VALUES (1::d)", ALONE,
        "pg_backend_pid()"),
    "an enumeration": ("CREATE TYPE e AS ENUM ('x'); CREATE TABLE t (a int, e e DEFAULT 'x')", INSERT, MERGED, ""),
    "a composite": ("CREATE TYPE c AS (x int, y text); CREATE TABLE t (a int, c c)", INSERT, MERGED, ""),
    "a user's cast": (
        "CREATE TYPE c AS (x int); CREATE FUNCTION f(int) RETURNS c LANGUAGE sql AS 'SELECT ROW(pg_backend_pid())::c'; "
        "CREATE CAST (int AS c) WITH FUNCTION f(int) AS ASSIGNMENT; CREATE TABLE t (a c)", INSERT, ALONE,
        "pg_backend_pid()"),
    "a type that is not used": (
        "CREATE TYPE c AS (x int); CREATE FUNCTION f(int) RETURNS c LANGUAGE sql AS 'SELECT ROW(pg_backend_pid())::c'; "
        "CREATE CAST (int AS c) WITH FUNCTION f(int) AS ASSIGNMENT; CREATE TABLE t (a int)", INSERT, MERGED, ""),
    "a deferrable unique constraint": ("CREATE TABLE t (a int UNIQUE DEFERRABLE)", INSERT, ALONE, "t_a_key"),
    "a deferrable exclusion": ("CREATE TABLE t (a int, EXCLUDE (a WITH =) DEFERRABLE)", INSERT, ALONE, "exclusion"),
    "an exclusion": ("CREATE TABLE t (a int, r int4range, EXCLUDE USING gist (r WITH &&))", INSERT, MERGED, ""),
    "a deferred key": ("CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE t (a int REFERENCES p DEFERRABLE INITIALLY "
                       "DEFERRED)", INSERT, ALONE, "t_a_fkey is deferred"),
    "a deferrable key": ("CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE t (a int REFERENCES p DEFERRABLE)", INSERT,
                         PIPELINED, ""),
    "a self-reference": ("CREATE TABLE t (a int PRIMARY KEY, p int REFERENCES t)", INSERT, PIPELINED, ""),
    "what deferred keys point to": (
        "CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE c (a int REFERENCES t DEFERRABLE INITIALLY DEFERRED)",
        "DELETE FROM t WHERE a = 1", ALONE, "c_a_fkey is deferred"),
    "rows that deferred keys may point to": (
        "CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE c (a int REFERENCES t DEFERRABLE INITIALLY DEFERRED)", INSERT,
        MERGED, ""),
    "a cascade into a trigger": (
        "CREATE TABLE p (a int PRIMARY KEY); CREATE TABLE t (a int, p int REFERENCES p ON DELETE CASCADE); " +
        TRIGGER.format("BEGIN PERFORM pg_notify('x', ''); RETURN OLD; END", "AFTER DELETE"),
        "DELETE FROM p WHERE a = 1", ALONE, "pg_notify()"),
    "no cascade of an INSERT": (
        "CREATE TABLE p (a int PRIMARY KEY); CREATE TABLE t (a int, p int REFERENCES p ON DELETE CASCADE); " +
        TRIGGER.format("BEGIN PERFORM pg_notify('x', ''); RETURN OLD; END", "AFTER DELETE"),
        "INSERT INTO p (a) VALUES (1)", MERGED, ""),
    "a cascade into a default": (
        "CREATE TABLE p (a int PRIMARY KEY); CREATE TABLE t (a int, p int DEFAULT pg_backend_pid() REFERENCES p "
        "ON DELETE SET DEFAULT)", "DELETE FROM p WHERE a = 1", ALONE, "pg_backend_pid()"),
    "a trigger that computes": (trigger("BEGIN NEW.a := NEW.a + 1; NEW.b = upper(NEW.b); RETURN NEW; END"), INSERT,
                                PIPELINED, ""),
    "a trigger with everything": (
        "CREATE TABLE log (id serial, a int, at timestamptz DEFAULT now()); " + trigger("""
        DECLARE x int := 3; y log%ROWTYPE; z log.a%TYPE; r record;
        BEGIN
         IF NEW.a % 3 = 0 THEN RETURN NULL; ELSIF NEW.a > 10 THEN NEW.b := 'x'; ELSE NULL; END IF;
         FOR i IN 1..3 LOOP x := x + i; CONTINUE WHEN x > 5; END LOOP;
         FOR r IN SELECT * FROM log WHERE a = NEW.a LOOP x := r.a; END LOOP;
         WHILE x < 3 LOOP x := x + 1; END LOOP;
         CASE x WHEN 1 THEN NULL; ELSE x := 2; END CASE;
         BEGIN
          INSERT INTO log (a) VALUES (NEW.a) RETURNING a INTO STRICT x;
         EXCEPTION WHEN unique_violation THEN UPDATE log SET a = 1 WHERE a = NEW.a; END;
         GET DIAGNOSTICS x = ROW_COUNT;
         SELECT count(*) INTO x FROM log;
         RAISE NOTICE 'x %', x;
         RETURN NEW;
        END"""), INSERT, PIPELINED, ""),
    "a trigger on a log whose default asks": (
        "CREATE TABLE log (a int, pid int DEFAULT pg_backend_pid()); " +
        trigger("BEGIN INSERT INTO log (a) VALUES (NEW.a); RETURN NEW; END"), INSERT, ALONE,
        "the default of column pid calls pg_backend_pid()"),
    "a trigger's function that calls another": (
        "CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT h()'; ".replace("h()", "pg_backend_pid()") +
        trigger("BEGIN NEW.a := g(); RETURN NEW; END"), INSERT, ALONE, "pg_backend_pid()"),
    "an audit": (trigger("BEGIN NEW.b := current_query(); RETURN NEW; END"), INSERT, ALONE, "current_query()"),
    "EXECUTE": (trigger("BEGIN EXECUTE 'SELECT 1'; RETURN NEW; END"), INSERT, ALONE, "dynexecute"),
    "EXECUTE in a loop": (trigger("DECLARE r record; BEGIN FOR r IN EXECUTE 'SELECT 1' LOOP NULL; END LOOP; RETURN "
        "NEW; "
                                  "END"), INSERT, ALONE, "dynfors"),
    "RETURN QUERY EXECUTE": (
        "CREATE TABLE t (a int); CREATE FUNCTION f() RETURNS SETOF int LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY "
        "EXECUTE 'SELECT 1'; END $$", "INSERT INTO t (a) SELECT f()", ALONE, "return_query"),
    "RETURN QUERY": (
        "CREATE TABLE t (a int); CREATE FUNCTION f() RETURNS SETOF int LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY "
        "SELECT 1; RETURN NEXT 3; END $$", "INSERT INTO t (a) SELECT f()", PIPELINED, ""),
    "FOR UPDATE OF": ("CREATE TABLE t (a int)",
        "UPDATE t SET a = 1 WHERE a = (SELECT x.a FROM t x LIMIT 1 FOR UPDATE OF x "
                      "SKIP LOCKED)", PIPELINED, ""),
    "NOTIFY": (trigger("BEGIN NOTIFY x; RETURN NEW; END"), INSERT, ALONE, "NotifyStmt"),
    "SET": (trigger("BEGIN SET LOCAL work_mem = 64; RETURN NEW; END"), INSERT, ALONE, "VariableSetStmt"),
    "SET CONSTRAINTS": (trigger("BEGIN SET CONSTRAINTS ALL DEFERRED; RETURN NEW; END"), INSERT, ALONE,
        "ConstraintsSet"),
    "a temporary table": (trigger("BEGIN CREATE TEMP TABLE x (a int); RETURN NEW; END"), INSERT, ALONE, "CreateStmt"),
    "OTHERS": (trigger("BEGIN UPDATE t SET a = 1; RETURN NEW; EXCEPTION WHEN OTHERS THEN RETURN NEW; END"), INSERT,
               ALONE, "OTHERS"),
    "a declared default": (trigger("DECLARE x int := pg_backend_pid(); BEGIN RETURN NEW; END"), INSERT, ALONE, "pid"),
    "a raised option": (trigger("BEGIN RAISE 'x' USING DETAIL = current_query(); END"), INSERT, ALONE, "query"),
    "a cursor": (trigger("DECLARE c CURSOR FOR SELECT 1; BEGIN OPEN c; RETURN NEW; END"), INSERT, ALONE, "open"),
    "a declared domain": (
        "CREATE DOMAIN d AS int DEFAULT pg_backend_pid(); " + trigger("DECLARE x d; BEGIN NEW.a := x; RETURN NEW; END"),
        INSERT, ALONE, "pg_backend_pid()"),
    "a condition": ("CREATE TABLE t (a int, b text); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS "
                    "'BEGIN RETURN NEW; END'; CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW "
                    "WHEN (NEW.a > pg_backend_pid()) EXECUTE FUNCTION f()", INSERT, ALONE, "the trigger x calls"),
    "a disabled trigger": (trigger("BEGIN NEW.b := current_query(); RETURN NEW; END") +
                           "; ALTER TABLE t DISABLE TRIGGER x", INSERT, MERGED, ""),
    "a deferrable trigger": (
        "CREATE TABLE t (a int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
        "CREATE CONSTRAINT TRIGGER x AFTER INSERT ON t DEFERRABLE FOR EACH ROW EXECUTE FUNCTION f()", INSERT, ALONE,
        "deferr"),
    "another language's rows": (
        "CREATE TABLE t (a int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO l SELECT count(*) FROM fresh; RETURN NULL; END'; CREATE TABLE l (n int); "
        "CREATE TRIGGER x AFTER INSERT ON t REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION f()",
        INSERT, PIPELINED, ""),
    "a built-in trigger": (
        "CREATE TABLE t (a int, b text, v tsvector); CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION "
        "tsvector_update_trigger(v, 'pg_catalog.english', b)", INSERT, PIPELINED, ""),
    "letters of other alphabets": (
        trigger("DECLARE größe int := 1; BEGIN NEW.\"b\" := 'ä' || größe; NEW.b := pg_notify('ü', 'x'); RETURN NEW; "
                "END"), INSERT, ALONE, "pg_notify()"),
    "a search path of the function's own": (
        "CREATE SCHEMA {s}o; CREATE TABLE {s}o.log (a int, p int DEFAULT pg_backend_pid()); CREATE TABLE log (a int); "
        "CREATE TABLE t (a int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql SET search_path = {s}o AS "
        "'BEGIN INSERT INTO log (a) VALUES (1); RETURN NEW; END'; "
        "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()", INSERT, ALONE, "pg_backend_pid()"),
    "a role of the function's own": (
        "CREATE TABLE t (a int, b int); CREATE FUNCTION f() RETURNS int LANGUAGE sql SET role = postgres AS 'SELECT "
        "1'; "
        "ALTER TABLE t ALTER b SET DEFAULT f()", INSERT, ALONE, "sets role"),
    "a function of SQL": ("CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1'; "
                          "CREATE TABLE t (a int, b int DEFAULT f(2))", INSERT, PIPELINED, ""),
    "a function's own default": (
        "CREATE FUNCTION f(int, int DEFAULT pg_backend_pid()) RETURNS int LANGUAGE sql AS 'SELECT $1 + $2'; "
        "CREATE TABLE t (a int)", "INSERT INTO t (a) VALUES (f(2))", ALONE, "pg_backend_pid()"),
    "BEGIN ATOMIC": ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT pg_backend_pid(); END; "
                     "CREATE TABLE t (a int, b int DEFAULT f())", INSERT, ALONE,
                     "the function f calls pg_backend_pid()"),
    "BEGIN ATOMIC that reads a table": (
        "CREATE TABLE o (a int); CREATE FUNCTION f() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM o; END; "
        "CREATE TABLE t (a int, b int DEFAULT f())", INSERT, PIPELINED, ""),
    "an index": ("CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT pg_backend_pid()'; "
                 "CREATE TABLE t (a int); CREATE INDEX ON t (f(a))", INSERT, ALONE, "pg_backend_pid()"),
    "a check": ("CREATE FUNCTION f(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN EXISTS (SELECT FROM t WHERE a "
        "= $1);"
                " END'; CREATE TABLE t (a int CHECK (f(a)))", INSERT, PIPELINED, ""),
    "a generated column": ("CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT pg_backend_pid()'; "
                           "CREATE TABLE t (a int, b int GENERATED ALWAYS AS (f(a)) STORED)", INSERT, ALONE, "pid"),
    "a policy": ("CREATE TABLE m (u text); CREATE TABLE t (a int); ALTER TABLE t ENABLE ROW LEVEL SECURITY; "
                 "CREATE POLICY p ON t USING (EXISTS (SELECT FROM m WHERE u = current_user)) "
                 "WITH CHECK (a = current_setting('app.a')::int)", INSERT, PIPELINED, ""),
    "a policy that asks": ("CREATE TABLE t (a int); ALTER TABLE t ENABLE ROW LEVEL SECURITY; "
                           "CREATE POLICY p ON t USING (inet_client_port() > a)", INSERT, ALONE, "the policy p calls"),
    "a policy without effect": ("CREATE TABLE t (a int); CREATE POLICY p ON t USING (inet_client_port() > a)", INSERT,
                                MERGED, ""),
    "a policy of a table that a policy reads": (
        "CREATE TABLE m (u text); CREATE TABLE t (a int); ALTER TABLE t ENABLE ROW LEVEL SECURITY; "
        "CREATE POLICY p ON t USING (EXISTS (SELECT FROM m)); ALTER TABLE m ENABLE ROW LEVEL SECURITY; "
        "CREATE POLICY q ON m USING (pg_backend_pid() > 1)", INSERT, ALONE, "the policy q calls"),
    "a view": ("CREATE TABLE b (a int); CREATE VIEW t AS SELECT a FROM b WHERE a > 0 WITH CHECK OPTION", INSERT,
               PIPELINED, ""),
    "a view that asks": ("CREATE TABLE b (a int); CREATE VIEW t AS SELECT a FROM b WHERE a > pg_backend_pid()", INSERT,
                         ALONE, "the view t calls pg_backend_pid()"),
    "a view over a table that asks": (
        "CREATE TABLE b (a int, p int DEFAULT pg_backend_pid()); CREATE VIEW t AS SELECT a FROM b", INSERT, ALONE,
        "the default of column p"),
    "a rule": ("CREATE TABLE l (a int); CREATE TABLE t (a int); CREATE RULE r AS ON INSERT TO t DO ALSO "
               "INSERT INTO l VALUES (NEW.a)", INSERT, PIPELINED, ""),
    "a rule that notifies": ("CREATE TABLE t (a int); CREATE RULE r AS ON INSERT TO t DO ALSO NOTIFY x", INSERT, ALONE,
                             "has a NOTIFY"),
    "a rule into a table that asks": (
        "CREATE TABLE l (a int, p int DEFAULT pg_backend_pid()); CREATE TABLE t (a int); "
        "CREATE RULE r AS ON INSERT TO t DO ALSO INSERT INTO l VALUES (NEW.a)", INSERT, ALONE, "pg_backend_pid()"),
    "partitions": ("CREATE TABLE t (a int) PARTITION BY HASH (a); CREATE TABLE t0 PARTITION OF t FOR VALUES WITH "
        "(MODULUS 1, "
                   "REMAINDER 0)", INSERT, PIPELINED, ""),
    "a partition's default": (
        "CREATE TABLE t (a int, b int) PARTITION BY HASH (a); CREATE TABLE t0 PARTITION OF t "
        "(b DEFAULT pg_backend_pid()) FOR VALUES WITH (MODULUS 1, REMAINDER 0)", INSERT, ALONE,
        "the default of column b"),
    "a partition's key": (
        "CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN pg_backend_pid(); END'; "
        "CREATE TABLE r (a int) PARTITION BY HASH (f(a)); CREATE TABLE t PARTITION OF r FOR VALUES WITH (MODULUS 1, "
        "REMAINDER 0)", INSERT, ALONE, "pg_backend_pid()"),
    "a table of the server's": ("CREATE TABLE t (a int)", "DELETE FROM t WHERE a IN (SELECT pid FROM pg_stat_activity)",
                                ALONE, "pg_stat_activity"),
    "a temporary table that is written": ("CREATE TEMP TABLE t (a int)", INSERT, ALONE, "temporary"),
    "a table that is not there": ("", INSERT, ALONE, "not there"),
    "CTEs": ("CREATE TABLE t (a int); CREATE TABLE o (a int, b int DEFAULT pg_backend_pid())",
             "WITH x AS (DELETE FROM t RETURNING a) INSERT INTO t SELECT a FROM x", PIPELINED, ""),
    "a CTE that reads its namesake": (
        "CREATE TABLE t (a int); CREATE TABLE b (a int); ALTER TABLE b ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON b "
        "USING (pg_backend_pid() > 1)", "WITH b AS (SELECT * FROM b) INSERT INTO t SELECT a FROM b", ALONE, "pid"),
    "ON CONFLICT": ("CREATE TABLE t (a int PRIMARY KEY, b int)",
                    "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET b = t.b + 1", PIPELINED, ""),
    "TABLESAMPLE": ("CREATE TABLE t (a int)", "DELETE FROM t WHERE a IN (SELECT a FROM t TABLESAMPLE system(3))", ALONE,
                    "text"),
    "a difference of a multirange": (
        NOTIFIES + "CREATE FUNCTION d(int, int) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT bad($1)::float8'; "
        "CREATE TYPE r AS RANGE (subtype = int, subtype_diff = d); CREATE TABLE t (a r_multirange); "
        "CREATE INDEX ON t USING gist (a)", "INSERT INTO t (a) VALUES ('{[1,2)}')", ALONE, "pg_notify()"),
    "a multirange": (
        "CREATE TYPE r AS RANGE (subtype = int); CREATE TABLE t (a r_multirange)",
        "INSERT INTO t (a) VALUES ('{[1,2)}')", PIPELINED, ""),
    "an order of a range": (
        NOTIFIES + "CREATE OPERATOR CLASS o FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, "
        "OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 bad(int, int); CREATE TYPE r AS RANGE (subtype = int, "
        "subtype_opclass = o); CREATE TABLE t (a r)", "INSERT INTO t (a) VALUES ('[1,2)')", ALONE, "pg_notify()"),
    "an order of partitions": (
        NOTIFIES + "CREATE OPERATOR CLASS o FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, "
        "OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 bad(int, int); CREATE TABLE t (a int) PARTITION BY RANGE (a o)",
        "INSERT INTO t (a) VALUES (1)", ALONE, "pg_notify()"),
    "an order of a partition's table": (
        NOTIFIES + "CREATE OPERATOR CLASS o FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, "
        "OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 bad(int, int); CREATE TABLE p (a int) PARTITION BY RANGE (a o); "
        "CREATE TABLE t PARTITION OF p DEFAULT", "INSERT INTO t (a) VALUES (1)", ALONE, "pg_notify()"),
    "an aggregate of a user's": (
        "CREATE TABLE t (a int); CREATE AGGREGATE agg(int) (sfunc = int4pl, stype = int)",
        "UPDATE t SET a = (SELECT agg(a) FROM t)", ALONE, "agg()"),
}


# what older servers do not have: the version from which there is one
SINCE = {kind: 14 for kind, case in CASES.items() if "multirange" in case[0] or "BEGIN ATOMIC" in case[0]}


@pytest.mark.parametrize("kind", CASES)
def test_kind(postgres, table, kind):
    made, sql, expected, word = CASES[kind]
    with psycopg.connect(postgres.dsn(), autocommit=True) as c:
        if c.info.server_version // 10000 < SINCE.get(kind, 0):
            pytest.skip(f"since version {SINCE[kind]}")
        c.execute(f"CREATE SCHEMA {table}; SET search_path = {table}")
        c.execute(made.replace("{s}", table))
        try:
            found, why = strategy(c, sql)
            assert (found, word in why) == (expected, True), why
        finally:
            c.execute(f"DROP SCHEMA IF EXISTS {table}o CASCADE; DROP SCHEMA {table} CASCADE")


def test_settings_are_told(postgres, table):
    with psycopg.connect(postgres.dsn(), autocommit=True) as c:
        c.execute(f"CREATE TABLE {table} (a int, b text DEFAULT current_setting('App.Tenant', true), c text DEFAULT "
                  f"current_setting('timezone'))")
        c.execute(f"CREATE FUNCTION {table}f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.a := "
                  f"current_setting('App.A')::int; RETURN NEW; END $$; CREATE TRIGGER x BEFORE INSERT ON {table} "
                  f"FOR EACH ROW EXECUTE FUNCTION {table}f()")
        found, _ = facts(c, verdict(f"INSERT INTO {table} (a) VALUES (1)"))
        assert found.ok and found.settings == {"app.tenant", "timezone", "app.a"}


def test_an_ordinary_table_takes_one_question(postgres, table):
    with psycopg.connect(postgres.dsn(), autocommit=True) as c:
        c.execute(f"CREATE TABLE {table} (id serial PRIMARY KEY, a int CHECK (a > 0), b text DEFAULT now())")
        assert facts(c, verdict(f"INSERT INTO {table} (a) VALUES (1)"))[1] == 1
        assert facts(c, verdict(f"UPDATE {table} SET a = a + 1 WHERE id = 3"))[1] == 1


def test_a_closure_has_an_end(postgres, table):
    """Functions that call each other for longer than is asked."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as c:
        c.execute(f"CREATE FUNCTION {table}f0() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'")
        for n in range(1, 10):
            c.execute(f"CREATE FUNCTION {table}f{n}() RETURNS int LANGUAGE plpgsql AS "
                      f"'BEGIN RETURN {table}f{n - 1}(); END'")
        c.execute(f"CREATE TABLE {table} (a int, b int DEFAULT {table}f2())")
        assert strategy(c, f"INSERT INTO {table} (a) VALUES (1)") == (PIPELINED, "")
        c.execute(f"ALTER TABLE {table} ALTER b SET DEFAULT {table}f9()")
        found, why = strategy(c, f"INSERT INTO {table} (a) VALUES (1)")
        assert found == ALONE and "deep" in why


def test_a_body_that_is_too_deep_to_be_read(postgres, table):
    with psycopg.connect(postgres.dsn(), autocommit=True) as c:
        body = "BEGIN " * 450 + "NULL;" + " END;" * 449 + " RETURN NEW; END"
        c.execute(f"CREATE TABLE {table} (a int); CREATE FUNCTION {table}f() RETURNS trigger LANGUAGE plpgsql AS "
                  f"'{body}'; CREATE TRIGGER x BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {table}f()")
        found, why = strategy(c, f"INSERT INTO {table} (a) VALUES (1)")
        assert found == ALONE and "too deep" in why


OPERAND_TYPES = """oid int2 int4 int8 name text bool "char" regclass regproc jsonb oidvector oid[] name[] text[]
    pg_node_tree""".split()
OPERATORS = {"bool": "= <> < > <= >= ~ ~* ~~ !~~", "text": "|| ->>", "int8": "- +"}


def test_the_questions_call_nothing_that_others_have_made(postgres):
    """They run with the rights of whoever writes: operators that fit better than the server's must not be found."""
    first = Questions().first(0, ("app.x",), b"")[0].decode()
    questions = (first.removeprefix("SHOW ALL;"), _POSTGRES_TEMP.decode(), probe([(None, "t", 1)]), probe(
        [(None, "t", 1), (("a", "b"), "t", 2)], [(16400, 1)], [(None, "f", 0), (None, "f", 1)], [16400], ["a"], [16400],
        ["="], [16400]))
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE operators")
        with psycopg.connect(postgres.dsn(), dbname="operators", autocommit=True) as c:
            for (left, right), (result, names) in itertools.product(
                    itertools.product(OPERAND_TYPES, OPERAND_TYPES), OPERATORS.items()):
                c.execute(f"CREATE FUNCTION public.other_{result}({left}, {right}) RETURNS {result} LANGUAGE sql AS "
                          f"'SELECT NULL::{result}'; " + ";".join(
                              f"CREATE OPERATOR public.{name} (leftarg = {left}, rightarg = {right}, "
                              f"function = public.other_{result})" for name in names.split()))
            for i, question in enumerate(questions):
                c.execute(f"CREATE VIEW q{i} AS SELECT * FROM ({question}) x")
                # columns alone: an operator here might be one of the others
                trees = [tree for name, tree in c.execute(
                    "SELECT ev_class::pg_catalog.regclass::text, ev_action::text FROM pg_catalog.pg_rewrite") if (
                        name == f"q{i}")]
                called = {int(n) for n in re.findall(r":opno (\d+)", trees[0])}
                assert max(called, default=0) < FIRST_USER_OID
                assert called or " = " not in question
        admin.execute("DROP DATABASE operators")
