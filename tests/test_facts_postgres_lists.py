"""The lists of what may run among others on PostgreSQL, against a real server: what is listed, and what is not."""

import json
import re

import psycopg
import pytest

from tests.crowd import together
from tests.facts_postgres import ALONE, MERGED, PIPELINED, strategy
from tqdb.catalog import postgres_allowed as allowed
from tqdb.catalog.postgres_allowed import FUNCTIONS, NODE_TAGS, NOT_IMMUTABLE, STRATEGIES, UNREACHABLE
from tqdb.catalog.postgres_probe import probe

HINT = "/* max_wait_ms:100 file:lists.py line:1 */ "
SESSIONS = 6

# A call of each function on the lists, of $i, a number, and $s, a text; what does not come out the same
# each time has a condition (on x, the value as text) instead of a value to compare.
SAME, CHANGES = None, "x IS NOT NULL"
T = "'2024-02-29 12:00+02'::timestamptz"
P = "'2024-02-29 12:00'::timestamp"
CALLS = {
    "now": ("now()", "x::timestamptz = n"), "transaction_timestamp": ("transaction_timestamp()", "x::timestamptz = n"),
    "statement_timestamp": ("statement_timestamp()", "x::timestamptz >= n"),
    "clock_timestamp": ("clock_timestamp()", "x::timestamptz >= n"), "timeofday": ("timeofday()", CHANGES),
    "random": ("random()", "x::float >= 0 AND x::float < 1"),
    "gen_random_uuid": ("gen_random_uuid()", "x::uuid IS NOT NULL"),
    "nextval": ("nextval('{t}q')", "x::int > 0"),
    "age(timestamp without time zone)": (f"age({P}) - age({P})", SAME),
    "age(timestamp with time zone)": (f"age({T}) - age({T})", SAME),
    "date_trunc": (f"date_trunc('hour', {T})", SAME), "date_part": (f"date_part('hour', {T})", SAME),
    "extract": (f"extract(hour FROM {T})", SAME), "timezone": (f"timezone('Asia/Tokyo', {T})", SAME),
    "to_char": (f"to_char({T}, 'YYYY HH TZ')", SAME), "to_date": ("to_date('2024', 'YYYY')", SAME),
    "to_timestamp": ("to_timestamp('2024 3', 'YYYY MM')", SAME),
    "make_timestamptz": ("make_timestamptz(2024, 1, 1, 1, 1, 1)", SAME), "date": (f"date({T})", SAME),
    "time": (f"\"time\"({T})", SAME), "timetz": (f"timetz({T})", SAME), "timestamp": (f"\"timestamp\"({T})", SAME),
    "timestamptz": (f"timestamptz({P})", SAME),
    "overlaps": (f"({T}, {T}) OVERLAPS ({T}, interval '1 day')", SAME),
    "interval_pl_timestamptz": (f"interval_pl_timestamptz('1 day', {T})", SAME),
    "timestamptz_pl_interval": (f"timestamptz_pl_interval({T}, '1 day')", SAME),
    "timestamptz_mi_interval": (f"timestamptz_mi_interval({T}, '1 day')", SAME),
    "in_range": (f"in_range({T}, {T}, '1 day'::interval, true, true)", SAME),
    **{f"jsonb_path_{f}_tz": (f"jsonb_path_{f}_tz('[1, 2]', '$[0] ? (@ > 0)')", SAME)
       for f in ("exists", "query_array", "query_first")},
    "jsonb_path_match_tz": ("jsonb_path_match_tz('[1, 2]', '$[0] > 0')", SAME),
    "jsonb_path_query_tz": ("ARRAY(SELECT jsonb_path_query_tz('[1, 2]', '$[*]'))", SAME),
    **{f"{a}_{op}_{b}": (f"{a}_{op}_{b}({v}, {w})", SAME)
       for op in ("cmp", "eq", "ge", "gt", "le", "lt", "ne")
       for a, b, v, w in (("date", "timestamptz", "date '2024-02-29'", T), ("timestamptz", "date", T,
       "date '2024-02-29'"),
                          ("timestamp", "timestamptz", P, T), ("timestamptz", "timestamp", T, P))},
    "to_number": ("to_number('12.3', '99D9')", SAME), "money": ("money(12.3)", SAME),
    "numeric": ("\"numeric\"(money '1.2')", SAME), "concat": ("concat($i, $s, 1.5)", SAME),
    "concat_ws": ("concat_ws('-', $i, $s)", SAME), "format": ("format('%s %I', $s, $i)", SAME),
    "quote_literal": ("quote_literal($i)", SAME), "quote_nullable": ("quote_nullable($i)", SAME),
    "array_to_string": ("array_to_string(ARRAY[$i, 2], '-')", SAME), "array_to_json": ("array_to_json(ARRAY[$i, 2])",
        SAME),
    "row_to_json": ("row_to_json(ROW($i, $s))", SAME), "to_json": ("to_json($s)", SAME), "to_jsonb": ("to_jsonb($i)",
        SAME),
    **{f"{j}_build_{k}": (f"{j}_build_{k}('k', $i)", SAME) for j in ("json", "jsonb") for k in ("array", "object")},
    "textanycat": ("textanycat($s, $i)", SAME), "anytextcat": ("anytextcat($i, $s)", SAME),
    **{f"{j}_populate_record": (f"{j}_populate_record(NULL::{{t}}r, '{{\"a\": 3}}')", SAME) for j in ("json", "jsonb")},
    **{f"{j}_populate_recordset": (f"(SELECT count(*) FROM {j}_populate_recordset(NULL::{{t}}r, '[{{\"a\": 3}}]'))",
        SAME)
       for j in ("json", "jsonb")},
    **{f"{j}_to_record": (f"(SELECT a FROM {j}_to_record('{{\"a\": 3}}') AS x(a int))", SAME) for j in ("json",
        "jsonb")},
    **{f"{j}_to_recordset": (f"(SELECT sum(a) FROM {j}_to_recordset('[{{\"a\": 3}}]') AS x(a int))", SAME)
       for j in ("json", "jsonb")},
    **{f"{j}_agg": (f"(SELECT {j}_agg(v) FROM (VALUES (1), (2)) x(v))", SAME) for j in ("json", "jsonb")},
    **{f"{j}_object_agg": (f"(SELECT {j}_object_agg(v, v) FROM (VALUES (1), (2)) x(v))", SAME) for j in ("json",
        "jsonb")},
    "generate_series": (f"ARRAY(SELECT generate_series({T}, {T}, '1 day'))", SAME),
    "pg_typeof": ("pg_typeof($i)", SAME), "pg_collation_for": ("pg_collation_for($s)", SAME),
    "format_type": ("format_type(23, -1)", SAME), "convert": ("convert('x', 'utf8', 'latin1')", SAME),
    "convert_from": ("convert_from('\\x41', 'utf8')", SAME), "convert_to": ("convert_to($s, 'utf8')", SAME),
    "length(bytea, name)": ("length('\\x41'::bytea, 'utf8')", SAME), "enum_first": ("enum_first(NULL::{t}e)", SAME),
    "enum_last": ("enum_last(NULL::{t}e)", SAME), "enum_range": ("enum_range(NULL::{t}e)", SAME),
    "to_tsvector": ("to_tsvector($s)", SAME), "to_tsquery": ("to_tsquery('cats')", SAME),
    "plainto_tsquery": ("plainto_tsquery($s)", SAME), "phraseto_tsquery": ("phraseto_tsquery($s)", SAME),
    "websearch_to_tsquery": ("websearch_to_tsquery($s)", SAME),
    **{f"{j}_to_tsvector": (f"{j}_to_tsvector('\"cats\"', '[\"all\"]')", SAME) for j in ("json", "jsonb")},
    "ts_headline": ("ts_headline($s, 'x'::tsquery)", SAME), "get_current_ts_config": ("get_current_ts_config()", SAME),
    "current_user": ("current_user", SAME), "session_user": ("session_user", SAME),
    "getpgusername": ("getpgusername()", SAME), "current_database": ("current_database()", SAME),
    "current_schema": ("current_schema()", SAME), "getdatabaseencoding": ("getdatabaseencoding()", SAME),
    "pg_client_encoding": ("pg_client_encoding()", SAME), "version": ("version()", SAME),
    "current_setting": ("current_setting('app.x', true)", SAME), "regclass": ("regclass('{t}'::text)", SAME),
    **{f"to_reg{k}": (f"to_reg{k}('{n}')", SAME) for k, n in (
        ("class", "pg_class"), ("type", "int"), ("proc", "now"), ("procedure", "now()"), ("oper", "||/"),
        ("operator", "+(int,int)"), ("namespace", "public"), ("role", "postgres"), ("collation", '"C"'))},
    **{f"has_{k}_privilege": (f"has_{k}_privilege('{n}', '{p}')", SAME) for k, n, p in (
        ("table", "{t}", "INSERT"), ("any_column", "{t}", "INSERT"), ("schema", "public", "USAGE"),
        ("database", "postgres", "CONNECT"), ("function", "now()", "EXECUTE"), ("sequence", "{t}q", "USAGE"),
        ("type", "int", "USAGE"))},
    "has_column_privilege": ("has_column_privilege('{t}', 'i', 'INSERT')", SAME),
    "pg_has_role": ("pg_has_role('postgres', 'USAGE')", SAME),
    "row_security_active": ("row_security_active('{t}')", SAME),
    "pg_get_serial_sequence": ("pg_get_serial_sequence('{t}', 'id')", SAME),
    "current_schemas": ("current_schemas(true)", SAME), "pg_trigger_depth": ("pg_trigger_depth()", SAME),
}
# triggers, which tests/test_facts_postgres.py has, and functions that the server's version does not
ELSEWHERE = {"suppress_redundant_updates_trigger", "tsvector_update_trigger", "tsvector_update_trigger_column"}
LATER = {"extract": 14, "random_normal": 16, "uuidv4": 18, "uuidv7": 18, "date_add": 16, "date_subtract": 16,
         **{f: 16 for f in STRATEGIES if re.search(r"agg_(strict|unique)", f)}}


@pytest.fixture
def direct(postgres):
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def sessions(postgres, proxy):
    """Connections through the proxy, which the tests of this file share."""
    opened = [psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True) for _ in range(SESSIONS)]
    yield opened
    for connection in opened:
        connection.close()


def in_batches(proxy, sessions, sql: str) -> list:
    """The first value that each session gets, in rounds until writes have gone out together."""
    before, told = proxy.batched(), []
    for _ in range(20):
        told += together(len(sessions), lambda k: sessions[k].execute(sql).fetchone()[0])
        if proxy.batched() > before:
            return told
    raise AssertionError("no two writes went out together")


def test_every_entry_has_a_call_and_a_reason():
    assert set(STRATEGIES) == set(CALLS) | ELSEWHERE | set(LATER)
    # what EXTRACT calls before there is extract()
    assert STRATEGIES["date_part"] == STRATEGIES["extract"]
    assert all(why and how in (allowed.MERGED, allowed.PIPELINED) for how, why, _ in FUNCTIONS)


def test_entries_are_there(direct):
    version = direct.info.server_version // 10000
    there = {name for row in direct.execute(
        "SELECT proname, proname || '(' || oidvectortypes(proargtypes) || ')' FROM pg_proc WHERE oid < 16384")
        for name in row}
    assert {name for name in STRATEGIES if LATER.get(name, 0) <= version} <= there
    assert set(UNREACHABLE) <= there and set(NOT_IMMUTABLE) <= there


@pytest.mark.parametrize("name", CALLS)
def test_the_same_among_others(proxy, sessions, direct, table, name):
    """A function of the list in an INSERT: each of several sessions gets what it gets alone."""
    call, condition = CALLS[name]
    call = call.replace("{t}", table).replace("$i", "1").replace("$s", "'cat'::text")
    direct.execute(f"""
        CREATE SEQUENCE {table}q; CREATE TYPE {table}e AS ENUM ('a', 'b'); CREATE TABLE {table}r (a int, b text);
        CREATE TABLE {table} (id serial, i int, n timestamptz, x text)""")
    insert = f"INSERT INTO {table} (n, x) VALUES (now(), ({call})::text)"
    wanted = {allowed.MERGED: MERGED, allowed.PIPELINED: PIPELINED}[STRATEGIES[name]]
    found, why = strategy(direct, insert)
    if name == "current_setting":           # its literal is not the shape's: by a default
        direct.execute(f"ALTER TABLE {table} ALTER x SET DEFAULT {call}")
        insert = f"INSERT INTO {table} (n) VALUES (now())"
        found, why = strategy(direct, insert)
    assert found == (PIPELINED if "SELECT" in call else wanted), why
    direct.execute(insert)
    alone = direct.execute(f"DELETE FROM {table} RETURNING x").fetchone()[0]
    told = in_batches(proxy, sessions, f"{HINT}{insert} RETURNING x")
    stored = direct.execute(f"SELECT x, {condition or 'true'} FROM {table}").fetchall()
    assert sorted(map(str, told)) == sorted(str(x) for x, _ in stored) and all(right for _, right in stored)
    if condition is SAME:
        assert set(told) == {alone}
    direct.execute(f"DROP TABLE {table}, {table}r; DROP TYPE {table}e; DROP SEQUENCE {table}q")


def test_what_is_not_listed_goes_alone(direct):
    """Every stable or volatile built-in function that is on no list is refused, in one question for all of them."""
    names = [name for name, in direct.execute("""
        SELECT DISTINCT p.proname FROM pg_proc p WHERE p.oid < 16384 AND p.pronamespace = 'pg_catalog'::regnamespace
         AND p.provolatile <> 'i' ORDER BY 1""")]
    answer = direct.execute(f"SELECT ({probe(functions=[(None, n, False) for n in names])})::text".encode()).fetchone()
    functions = {f[0]: f for f in json.loads(answer[0])["functions"]}
    assert len(functions) > 700
    refused = {f[1] for f in functions.values() if len(f) == 5 and not allowed.builtin(*f[1:4])} | {
        f[1].partition(".")[2] for f in functions.values() if len(f) > 5}
    assert len(refused) > 200
    assert {n for n in names if n not in refused} <= {s.partition("(")[0] for s in STRATEGIES}
    listed = {s.partition("(")[0] for s in STRATEGIES} - {s.partition("(")[0] for s in UNREACHABLE} - {"length"}
    assert not refused & listed


DANGEROUS = """
    currval('{t}q') lastval() pg_current_xact_id() pg_current_xact_id_if_assigned() txid_current() pg_backend_pid()
    txid_current_if_assigned() inet_client_addr() inet_client_port() inet_server_addr() inet_server_port()
    current_query() pg_my_temp_schema() pg_current_snapshot() txid_current_snapshot() pg_advisory_lock(1)
    pg_try_advisory_xact_lock(1) pg_notify('a','b') set_config('a.b','c',false) setval('{t}q',3) setseed(0.5)
    lo_creat(1) pg_sleep(0) pg_export_snapshot() pg_listening_channels() pg_postmaster_start_time() pg_is_in_recovery()
    query_to_xml('select',true,true,'') current_setting('application_name') current_setting('lock_timeout')
    pg_stat_get_xact_tuples_inserted(1) pg_relation_size('pg_class') pg_terminate_backend(1) pg_read_file('x')
    pg_xact_status('1') pg_safe_snapshot_blocking_pids(1) pg_blocking_pids(1) pg_is_other_temp_schema(1)
""".split()


@pytest.mark.parametrize("where", ["DEFAULT", "SET", "VALUES"])
def test_what_belongs_to_a_connection_goes_alone(direct, table, where):
    direct.execute(f"CREATE SEQUENCE {table}q; CREATE TABLE {table} (a int, b text)")
    for call in DANGEROUS:
        call = call.replace("{t}", table)
        sql = {"DEFAULT": f"INSERT INTO {table} (a) VALUES (1)", "SET": f"UPDATE {table} SET b = ({call})::text",
               "VALUES": f"INSERT INTO {table} (b) VALUES (({call})::text)"}[where]
        if where == "DEFAULT":
            if call.startswith("pg_listening"):
                continue                # no set in a default
            direct.execute(f"ALTER TABLE {table} ALTER b SET DEFAULT ({call})::text")
        found, why = strategy(direct, sql)
        assert found == ALONE, call
        assert call.partition("(")[0] in why or "setting" in why or why == "its text", why


def test_classes_that_need_no_list_are_what_they_are_said_to_be(direct):
    """No function of a built-in operator, cast, type, operator class or aggregate is volatile."""
    for source in ("SELECT oprcode FROM pg_operator", "SELECT castfunc FROM pg_cast", "SELECT amproc FROM pg_amproc",
                   "SELECT unnest(ARRAY[typinput, typoutput, typreceive, typsend, typmodin, typmodout]) FROM pg_type",
                   "SELECT unnest(ARRAY[aggtransfn, aggfinalfn, aggcombinefn, aggmtransfn, aggminvtransfn, "
                   "aggmfinalfn]) FROM pg_aggregate"):
        assert direct.execute(f"SELECT proname FROM pg_proc WHERE oid < 16384 AND provolatile = 'v' "
                              f"AND oid IN ({source})").fetchall() == []


def test_node_tags_are_those_of_stored_trees(direct):
    """The server's own views, which use what there is of SQL, have few kinds of nodes that are not known."""
    tags = {tag for tag, in direct.execute(
        "SELECT DISTINCT m[1] FROM pg_rewrite, regexp_matches(ev_action::text, '[{]([A-Z0-9_]+)', 'g') m")}
    assert tags - NODE_TAGS <= {
        "TABLEFUNC", "XMLEXPR", "DEFELEM", "STRING", "RANGETBLFUNCTION", "NOTIFYSTMT"}
    assert len(tags & NODE_TAGS) > 20
