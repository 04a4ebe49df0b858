"""The hot scanner: hints, session words, and value tuples compared with PostgreSQL's own tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pglast.parser import ParseError
from pglast.parser import scan as pg_tokens
from tqdb._core import fingerprint_of, normal_text, scan

INSERT = b"INSERT INTO t (a, b) VALUES (1, 'x')"


@pytest.mark.parametrize("sql, wait, file, line", [
    (b"/* max_wait_ms:10 file:app.py line:42 */ " + INSERT, 10, b"app.py", b"42"),
    (b"/* line:42 file:app.py max_wait_ms:10 */ " + INSERT, 10, b"app.py", b"42"),
    (b"/* max_wait_ms=10 file=app.py line=42 */ " + INSERT, 10, b"app.py", b"42"),
    (INSERT + b" /*file='app.py',line='42',max_wait_ms='10'*/", 10, b"app.py", b"42"),
    (INSERT + b"; /*file='app.py',line='42',max_wait_ms='10'*/ ", 10, b"app.py", b"42"),
    (b"-- max_wait_ms:10 file:app.py line:42\n" + INSERT, 10, b"app.py", b"42"),
    (b"/*MAX_WAIT_MS : 10*/" + INSERT, 10, b"", b""),
    (b"/* batch:10 ttl:5 other:x */" + INSERT, 10, b"", b""),
    (b"/* max_wait_ms:auto */" + INSERT, "auto", b"", b""),
    (b"/* max_wait_ms:2.5 */" + INSERT, 2.5, b"", b""),
    (b"/* file:a.py */ /* max_wait_ms:3 */ " + INSERT, 3, b"a.py", b""),
    (b"/* max_wait_ms:0 */" + INSERT, None, b"", b""),
    (b"/* max_wait_ms:-5 */" + INSERT, None, b"", b""),
    (INSERT, None, b"", b""),
    (b"INSERT INTO t (a, b) VALUES (1, '/* max_wait_ms:10 */')", None, b"", b""),
    (b"INSERT INTO t (a, b) /* max_wait_ms:10 */ VALUES (1, 'x')", None, b"", b""),
    (b'INSERT INTO "/* max_wait_ms:10 */" VALUES (1)', None, b"", b""),
    (INSERT + b" -- max_wait_ms:10", None, b"", b""),
])
def test_hints(sql, wait, file, line):
    for dialect in ("postgres", "mariadb"):
        found = scan(sql, dialect)
        assert (found["wait_ms"], found["file"], found["line"]) == (wait, file, line)
        assert not found["hint_error"]


@pytest.mark.parametrize("value", [b"soon", b"", b"10s", b"1e3", b"1.2.3", b"--1"])
def test_unreadable_hint_is_told(value):
    found = scan(b"/* max_wait_ms:" + value + b" */ " + INSERT)
    assert found["wait_ms"] is None and found["hint_error"]


@pytest.mark.parametrize("dialect, sql, flags", [
    ("postgres", b"SET search_path = a", {"setlike"}),
    ("postgres", b"set local x = 1", set()),
    ("postgres", b"SET TRANSACTION READ ONLY", set()),
    ("postgres", b"SET a = 1; SET LOCAL b = 2", {"setlike", "multi"}),
    ("postgres", b"SELECT set_config('a', 'b', false)", {"setlike", "opaque"}),
    ("postgres", b"select 1; reset all", {"setlike", "multi"}),
    ("postgres", b"SELECT 'set_config('", set()),
    ("postgres", b"DISCARD ALL", {"setlike", "discard", "deallocate"}),
    ("postgres", b"PREPARE p AS SELECT set_config('a','b',false)", {"setlike", "opaque"}),
    ("postgres", b"CREATE TEMP TABLE x (a int)", {"ddl", "temp"}),
    ("postgres", b"CREATE TABLE x (temp int)", {"ddl"}),
    ("postgres", b"SELECT 1 INTO TEMPORARY x", {"temp"}),
    ("postgres", b"CREATE TABLE pg_temp.x (a int)", {"ddl", "temp"}),
    ("postgres", b"DO $$ BEGIN PERFORM 1; END $$", {"setlike", "opaque"}),
    ("postgres", b"frobnicate", {"setlike"}),
    ("postgres", b"SELECT currval('s')", {"currval"}),
    ("postgres", b"ALTER ROLE x SET a = 1", {"ddl"}),
    ("postgres", b"SELECT 'unfinished", {"setlike", "opaque", "unsure"}),
    ("postgres", b"SELECT /* /* nested */ ; SET */ 1", set()),
    ("postgres", b"SELECT set_tenant(42)", {"opaque"}),
    ("postgres", b"SELECT set_tenant /* x */ (42)", {"opaque"}),
    ("postgres", b"SELECT public.count(*) FROM t", {"opaque"}),
    ("postgres", b"SELECT public . count(*) FROM t", {"opaque"}),
    ("postgres", b'SELECT "set_config"(\'a\', \'b\', false)', {"opaque"}),
    ("postgres", b"UPDATE pg_settings SET setting = 'x' WHERE name = 'search_path'", {"opaque"}),
    ("postgres", b'UPDATE "pg_settings" SET setting = 1', {"opaque"}),
    ("postgres", b'CREATE TABLE "pg_temp".x (a int)', {"ddl", "opaque"}),
    ("postgres", b"INSERT INTO t VALUES (set_tenant(42))", {"opaque"}),
    ("postgres", b"INSERT INTO t (a, b) VALUES (now(), lower('x'))", set()),
    ("postgres", b"INSERT INTO t (a, b) SELECT set_tenant(a), b FROM u", {"opaque"}),
    ("postgres", b"INSERT INTO s.t (a) SELECT count(*) FROM u WHERE a IN (1, 2)", set()),
    ("postgres", b"SELECT count(*), max(a) FROM t WHERE EXISTS (SELECT 1) AND b = ANY ($1)", set()),
    ("postgres", b"CALL p(1)", {"setlike", "opaque"}),
    ("postgres", b"EXECUTE p", {"opaque"}),
    ("postgres", b"EXPLAIN ANALYZE EXECUTE p", {"opaque"}),
    ("postgres", b"CREATE TABLE x AS EXECUTE p", {"ddl", "opaque"}),
    ("postgres", b"INSERT INTO t VALUES (1) RETURNING set_tenant(42)", {"opaque", "returning"}),
    ("postgres", b"INSERT INTO t DEFAULT VALUES RETURNING set_tenant(42)", {"opaque", "returning"}),
    ("postgres", b"INSERT INTO t TABLE u RETURNING set_tenant(42)", {"opaque", "returning"}),
    ("postgres", b"INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO NOTHING", set()),
    ("mariadb", b"INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = f(1)", {"opaque"}),
    ("postgres", b"SELECT E'a'\n 'b\\'; SET x = 1; SELECT '", set()),
    ("postgres", b"SELECT E'a'\n 'b\\'' ; SET x = 1 --'", {"setlike", "multi"}),
    ("postgres", b"SELECT E'a' -- c\n 'b\\''; SET x = 1", {"setlike", "multi"}),
    ("postgres", b"SELECT E'a' 'b\\'; SET x = 1", {"setlike", "multi"}),
    ("postgres", b"SELECT 'a'\n 'b\\'; SET x = 1", {"setlike", "multi"}),
    ("mariadb", b"SELECT f(1)", {"opaque"}),
    ("mariadb", b"SELECT `count`(1)", {"opaque"}),
    ("mariadb", b"SELECT d.f(1)", {"opaque"}),
    ("mariadb", b"INSERT t (a) VALUES (IF(1, 2, 3))", set()),
    ("mariadb", b"SELECT COUNT(*) FROM t WHERE a BETWEEN (1) AND (2)", set()),
    ("mariadb", b"SET time_zone = (SELECT z FROM t)", {"setlike", "opaque"}),
    ("mariadb", b"XA START 'x'", {"opaque"}),
    ("mariadb", b"USE d", {"setlike"}),
    ("mariadb", b"SET LOCAL x = 1", {"setlike"}),
    ("mariadb", b"SET TRANSACTION READ ONLY", {"setlike", "taint"}),
    ("mariadb", b"SET GLOBAL x = 1", {"setlike"}),
    ("mariadb", b"LOCK TABLES a WRITE", {"lock"}),
    ("mariadb", b"UNLOCK TABLES", {"unlock"}),
    ("mariadb", b"FLUSH LOCAL STATUS", {"lock", "taint"}),
    ("mariadb", b"SHOW STATUS", set()),
    ("mariadb", b"/*!50003 SET a = 1 */", {"setlike", "exec_comment"}),
    ("mariadb", b"SET insert_id = 5", {"setlike", "taint"}),
    ("mariadb", b"SELECT LAST_INSERT_ID()", {"last_id"}),
    ("mariadb", b"SHOW WARNINGS", {"diagnostics"}),
    ("mariadb", b"SELECT 1 # ; SET x = 1\n", set()),
    ("mariadb", b"SELECT 'a\\'; SET x = 1'", set()),
])
def test_what_a_statement_does_to_its_session(dialect, sql, flags):
    assert scan(sql, dialect, dialect == "mariadb")["flags"] == flags


@pytest.mark.parametrize("sql, kind", [
    (b"insert into t values (1)", "insert"), (b"UPDATE t SET a = 1", "update"), (b"delete from t", "delete"),
    (b"REPLACE INTO t VALUES (1)", "replace"), (b"SELECT 1", "select"), (b"(select 1)", "select"),
    (b"WITH x AS (SELECT 1) SELECT * FROM x", "select"),
    (b"WITH x AS (INSERT INTO t VALUES (1) RETURNING 1) SELECT * FROM x", "insert"),
    (b"VACUUM", "other"), (b"", "other"),
])
def test_query_type(sql, kind):
    assert scan(sql)["query_type"] == kind


def test_tuples_are_cut_out():
    sql = b"/* max_wait_ms:1 */ INSERT INTO t (a) VALUES ( 1 , 'it''s; (a)' ), (-2.5e-3,NULL)  RETURNING a ; "
    found = scan(sql)
    a, b = found["values"]
    assert sql[a:b] == b"( 1 , 'it''s; (a)' ), (-2.5e-3,NULL)"
    assert sql[found["text"][0]:found["text"][1]].startswith(b"INSERT") and sql[:found["text"][1]].endswith(b" a")
    assert (found["ntuples"], found["ncols"], found["skeleton"]) == (2, 2, b"(\n?\n,\n?\n)")
    assert "complex" in found["flags"]


def test_skeletons_tell_where_tokens_are_apart_and_not_by_what():
    def skeleton(values: str) -> bytes:
        return scan(b"INSERT INTO t VALUES " + values.encode(), "mariadb")["skeleton"]

    assert skeleton("(f(1), 2)") == skeleton("(f(3),\t\r\n  'x')") == skeleton("(f(1), /* a */ 2)") == b"(f (?),\n?)"
    apart = ("a<=1", "a< =1", "f(1)", "f (1)", "`a``b`", "`a` `b`", "5DIV b", "5 DIV b")
    assert len({skeleton(f"({v})") for v in apart}) == len(apart)


@pytest.mark.parametrize("dialect, ends", [("postgres", True), ("mariadb", False)])
def test_a_carriage_return_ends_a_line_comment_of_postgresql(dialect, ends):
    found = scan(b"UPDATE t SET a = 1 -- \r WHERE b = 2", dialect)
    assert (found["text"][1] > 20) == ends


def test_tuples_of_unlike_skeletons_are_complex():
    assert "complex" in scan(b"INSERT INTO t VALUES (1), (now())")["flags"]
    assert "complex" not in scan(b"INSERT INTO t VALUES (1), ('x'), (NULL), (DEFAULT), (-1), (TRUE)")["flags"]


def test_mariadb_backslashes_follow_the_server_status():
    sql = rb"INSERT INTO t VALUES ('a\'), (1)', 2)"
    assert scan(sql, "mariadb", True)["ntuples"] == 1
    plain = rb"INSERT INTO t VALUES ('a\'), (1)"
    assert scan(plain, "mariadb", False)["ntuples"] == 2


# --- against PostgreSQL's own scanner -----------------------------------------------------------------------

literals = st.one_of(
    st.integers(-10**12, 10**12).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda f: f"{f!r}"),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12).map(
        lambda s: "'" + s.replace("'", "''") + "'"),
    st.text("abc'\\ ()-/*", max_size=8).map(
        lambda s: "E'" + s.replace("\\", "\\\\").replace("'", "\\'") + "'"),
    st.text("abc'\" (),;-", max_size=8).map(lambda s: f"$q${s}$q$"),
    st.sampled_from(["NULL", "true", "DEFAULT", "now()", "'1'::int", "lower('(')", "ARRAY[1,2]", "x'1f'",
                     '"col"', "1+2", "(3)", "coalesce(NULL, ',')"]))
blanks = st.sampled_from(["", " ", "\n\t", "  "])
tuples = st.lists(literals, min_size=1, max_size=4).flatmap(
    lambda values: blanks.map(lambda b: "(" + b + (b + "," + b).join(values) + b + ")"))
statements = st.builds(
    lambda head, rows, glue, tail: head + glue.join(rows) + tail,
    st.sampled_from(["INSERT INTO t VALUES ", 'insert into "v(a)" (a, "b,c") values', "INSERT INTO s.t(a)VALUES\n",
                     "/* max_wait_ms:5 */ INSERT INTO t VALUES ", "-- x (\nINSERT INTO t /* ( */ VALUES "]),
    st.lists(tuples, min_size=1, max_size=4), st.sampled_from([",", " , ", ",\n"]),
    st.sampled_from(["", ";", " RETURNING a", " ON CONFLICT DO NOTHING", " /* tail ( */", " -- tail (\n"]))


def count_tuples(sql: str):
    """``(start, end, count)`` of the value tuples by the server's own tokens."""
    tokens = [t for t in pg_tokens(sql) if "COMMENT" not in t.name]
    i = next(i for i, t in enumerate(tokens) if t.name == "VALUES") + 1
    start, count = tokens[i].start, 0
    while True:
        depth = 0
        while True:
            depth += (tokens[i].name == "ASCII_40") - (tokens[i].name == "ASCII_41")
            i += 1
            if depth == 0:
                break
        count += 1
        end = tokens[i - 1].end + 1
        if i + 1 >= len(tokens) or tokens[i].name != "ASCII_44" or tokens[i + 1].name != "ASCII_40":
            return start, end, count
        i += 1


@settings(max_examples=400, deadline=None)
@given(statements)
def test_tuples_agree_with_the_servers_tokens(sql):
    try:
        start, end, count = count_tuples(sql)
    except ParseError:
        return
    raw = sql.encode()
    found = scan(raw)
    offset = [len(sql[:i].encode()) for i in (start, end)]
    # pglast gives byte or character offsets depending on the text; the ASCII case pins them down
    if sql.isascii():
        assert found["values"] == (start, end)
    else:
        assert found["values"] in ((start, end), tuple(offset))
    assert found["ntuples"] == count


@settings(max_examples=200, deadline=None)
@given(statements, st.integers(0, 400))
def test_any_cut_of_a_statement_is_survived(sql, cut):
    for dialect in ("postgres", "mariadb"):
        for backslash in (False, True):
            found = scan(sql.encode()[:cut], dialect, backslash)
            if found["values"]:
                a, b = found["values"]
                assert 0 <= a < b <= cut


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data):
    for dialect in ("postgres", "mariadb"):
        scan(data, dialect, True)


@pytest.mark.parametrize(("dialect", "sql", "normal"), [
    ("postgres", "insert INTO Events (kind,data) values ('a', 1)", "insert into events (kind, data) values (?, ?)"),
    ("postgres", "INSERT  INTO events(kind, data)VALUES($1,$2)", "insert into events (kind, data) values (?, ?)"),
    ("mariadb", "INSERT INTO events (kind, data) VALUES (?, ?)", "insert into events (kind, data) values (?, ?)"),
    ("postgres", "/* a */ UPDATE t -- b\n SET a=a+1, b=-5 WHERE id = $12",
     "update t set a = a + ?, b = ? where id = ?"),
    ("postgres", 'UPDATE "T" SET a = now( ) WHERE s."B c" IN (1, 2)',
     'update "T" set a = now () where s."B c" in (?, ?)'),
    ("postgres", "DELETE FROM public . t WHERE x IS NULL AND y::int = 3",
     "delete from public.t where x is ? and y::int = ?"),
    ("postgres", "UPDATE t SET a = $$x$$, b = 'it''s' WHERE c @> '{}'", "update t set a = ?, b = ? where c @> ?"),
    ("mariadb", "UPDATE `d`.`T` SET a=@x, b='it\\'s' WHERE c=\"s\"",
     "update `d`.`T` set a = @x, b = ? where c = \"?\""),
    ("postgres", "INSERT INTO t VALUES (1) ; SELECT 2", None), ("postgres", "UPDATE t SET a = 'open", None),
    ("postgres", "INSERT INTO t (" + ", ".join(f"c{n}" for n in range(1000)) + ") VALUES (1)", None),
])
def test_normal_texts(dialect, sql, normal):
    assert normal_text(sql.encode(), dialect, dialect == "mariadb") == normal
    if normal is not None:          # what is normal stays so
        assert normal_text(normal.encode(), dialect) == normal


def test_a_fingerprint_is_the_beginning_of_a_known_hash():
    """`b2sum -l 64` says the same."""
    assert fingerprint_of("insert into events (kind) values (?)") == "9894d74e2cc2a329"
