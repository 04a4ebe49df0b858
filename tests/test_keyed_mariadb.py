"""MariaDB's updates that differ in their row's key only go as one statement: each is answered, and does, the same."""

import re
import struct

import pytest
from pymysql.constants import CLIENT

from tests.crowd import together
from tests.keyed import ADD, HINT, INT_TABLE, KEYS, ROWS, SESSIONS, Keyed, bound, texts
from tests.test_blocks_mariadb import my_say
from tests.test_bound_mariadb import UNSIGNED, lenenc, moment

SESSION_TRACK = 1 << 23      # PyMySQL has no name for it


@pytest.fixture(scope="module")
def keyed(mariadb, proxy):
    both = Keyed(mariadb, proxy)
    yield both
    both.close()


# --- keys -------------------------------------------------------------------------------------------------------------

NUMBERS = ("tinyint", "smallint", "mediumint", "int", "bigint", "tinyint unsigned", "bigint unsigned",
           "int(5) zerofill")
OTHER_NUMBERS = ("decimal(10,0)", "decimal(10,2)", "double", "float", "bit(8)")
NUMBER_LITERALS = ("{}", "0{}", "'{}'", '"{}"', "{}.0", "{}.", "{}e0", "0x{}", "-{}", "+{}", "- {}", "({})", "NULL",
                   "_utf8'{}'", "00000000000000000{}", "000000000000000000000{}", "{}00000000000000000000",
                   "'{}x'", "' {}'")


@pytest.mark.parametrize("kind", NUMBERS + OTHER_NUMBERS)
def test_numbers(keyed, kind):
    """A row is named by digits alone; what else the server takes for the row's key goes as it stands."""
    for form in NUMBER_LITERALS:
        keys = [form.format(k) for k in KEYS]
        found = kind in NUMBERS and re.fullmatch(r"\d{1,18}", keys[0]) is not None
        keyed.same(f"id {kind} PRIMARY KEY, a int DEFAULT 0", ROWS, texts(keys=keys), found, rounds=1)


STRINGS = ("char(10)", "varchar(10)", "varchar(300) CHARACTER SET latin1", "varchar(10) COLLATE utf8mb4_bin",
           "varchar(10) COLLATE utf8mb4_nopad_bin", "char(10) CHARACTER SET latin1 COLLATE latin1_german2_ci",
           "varchar(10) CHARACTER SET ucs2", "varchar(10) CHARACTER SET sjis")
OTHER_STRINGS = ("binary(10)", "varbinary(10)", "enum('','a','b','c','d','e','ss','1','2','3','4','5')")
WORDS = "('a'), ('b'), ('c'), ('d'), ('e'), ('ss'), ('1'), ('2'), ('3'), ('4'), ('5'), ('')"
STRING_KEYS = {
    "plain": ("'a'", "'b'", "'c'", "'d'", "'e'"),
    "empty": ("''", "'b'", "'c'", "'d'", "'e'"),
    "case": ("'A'", "'B'", "'C'", "'D'", "'E'"),
    "padded": ("'a '", "'b '", "'c '", "'d '", "'e '"),
    "one row twice": ("'a'", "'A'", "'a '", "'b'", "'c'", "'d'"),
    "double quotes": ('"a"', '"b"', '"c"', '"d"', '"e"'),
    "numbers": ("1", "2", "3", "4", "5"),
    "numbers in quotes": ("'1'", "'2'", "'3'", "'4'", "'5'"),
    "sharp s": ("'ss'", "'ß'", "'a'", "'b'", "'c'", "'d'"),
    "escaped": ("'\\a'", "'b'", "'c'", "'d'", "'e'", "'\\\\'", "'it''s'", "'\\''"),
    "prefixed": ("_utf8'a'", "_utf8mb4'b'", "N'c'", "n'd'", "X'65'"),
    "long": tuple(f"'{'x' * n}'" for n in (10, 252, 253, 254, 300, 100)),
}


@pytest.mark.parametrize("kind", STRINGS + OTHER_STRINGS)
def test_strings(keyed, kind):
    for name, keys in STRING_KEYS.items():
        merged = kind in STRINGS if name in ("plain", "empty", "numbers in quotes") else (
            None if name in ("case", "padded", "one row twice", "sharp s", "escaped") else False)
        keyed.same(f"id {kind} PRIMARY KEY, a int DEFAULT 0", f"(id) VALUES {WORDS}", texts(keys=keys), merged,
                   rounds=1)


@pytest.mark.parametrize("kind, values, keys", [
    ("date", "('2024-01-01'), ('2024-01-02'), ('2024-01-03'), ('2024-01-04')",
     ("DATE'2024-01-01'", "'2024-01-02'", "20240103", "'2024-1-4'")),
    ("datetime", "('2024-01-01'), ('2024-01-02'), ('2024-01-03'), ('2024-01-04')",
     ("'2024-01-01'", "'2024-01-02'", "'2024-01-03'", "'2024-01-04 00:00'")),
    ("year", "(2001), (2002), (2003), (2004)", ("1", "2", "3", "2004")),
    ("uuid", "('00000000-0000-0000-0000-00000000000a')",
     ("'00000000-0000-0000-0000-00000000000a'", "'0000000000000000000000000000000a'", "'x'", "1")),
    ("inet6", "('::1')", ("'::1'", "'0::1'", "'x'", "1")), ("set('a','b')", "('a'), ('b')", ("'a'", "'b'", "1", "2"))])
def test_keys_of_other_types_stay_apart(keyed, kind, values, keys):
    keyed.same(f"id {kind} PRIMARY KEY, a int DEFAULT 0", f"(id) VALUES {values}", texts(keys=keys), False)


@pytest.mark.parametrize("connection", ["latin1", "ucs2", "koi8r"])
def test_other_character_sets_of_the_connection(keyed, connection):
    for kind in ("latin1", "utf8mb4", "utf16"):
        keyed.same(f"id varchar(10) CHARACTER SET {kind} PRIMARY KEY, a int DEFAULT 0", ROWS,
                   texts(keys=[f"'{k}'" for k in KEYS]), True, before=[f"SET character_set_connection = {connection}"])


@pytest.mark.parametrize("columns, merged", [
    ("id int, a int DEFAULT 0", False), ("id int UNIQUE, a int DEFAULT 0", False),
    ("id int NOT NULL UNIQUE, a int DEFAULT 0", False), ("id int, a int DEFAULT 0, KEY (id)", False),
    ("id int, c int DEFAULT 0, a int DEFAULT 0, PRIMARY KEY (id, c)", False),
    ("id int, a int DEFAULT 0, PRIMARY KEY (id)", True), ("`ID` int PRIMARY KEY, a int DEFAULT 0", True),
    ("id varchar(10), a int DEFAULT 0, PRIMARY KEY (id(5))", False),
    ("id int PRIMARY KEY, a int DEFAULT 0, KEY (a), KEY (a, id)", True),
    ("id int PRIMARY KEY, a int DEFAULT 0, b int AS (a * 2) PERSISTENT, n int AS (a + id), KEY (n)", True),
    ("id int PRIMARY KEY, a int DEFAULT 0, at timestamp NULL DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP, KEY (at)", None),
    ("id int PRIMARY KEY, a int DEFAULT 0, t text UNIQUE", False),
    ("id int AUTO_INCREMENT PRIMARY KEY, a int DEFAULT 0", True)])
def test_tables(keyed, columns, merged):
    if " at " not in columns:
        keyed.same(columns, ROWS, texts(), merged)
        return
    direct, proxied = keyed.play(columns, ROWS, texts())
    assert proxied.answers == direct.answers and proxied.keys
    for seen in (direct, proxied):
        assert [row[2] is not None for row in seen.tables[0]] == [row[1] > 0 for row in seen.tables[0]]


# --- what is computed -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("assignment, merged", [
    ("a = a + 1, b = a * 2, s = CONCAT(s, id)", True), ("a = -5", True), ("a = +5", True), ("a = - 5", True),
    ("a = NULL", None), ("a = DEFAULT", False), ("a = IF(id % 2, a + 1, a + 2)", True),
    ("a = a + id, {t}.b = {t}.a", True),
    ("s = 'it''s'", True), ("s = 'ä\\\\\\'€'", True), ('s = "x"', False), ("s = 'WHERE id = 3'", True),
    ("s = X'4142'", None), ("s = _utf8'a'", None), ("s = DATE_FORMAT('2024-01-02', '%Y')", True),
    ("a = CASE id WHEN 1 THEN 2 ELSE 3 END", True), ("a = a <=> b", True), ("s = UPPER(HEX(id))", True),
    ("a = LAST_INSERT_ID(id * 10)", False), ("a = a + ROW_COUNT() + 5", False), ("a = (@x := id)", False),
    ("a = (SELECT 1)", False), ("a = (SELECT COUNT(*) FROM seq_1_to_3)", False), ("id = id + 100", False),
    ("`id` = id + 100", False), ("{t}.ID = id + 100", False), ("a = RAND(7) * 100", False), ("a = VALUES(a)", False),
    ("a = CONNECTION_ID() * 0", False), ("a = 1 /*! + 1 */", False), ("a = 1 /* + 1 */ + 2", True),
    ("a = b --1, b = 2\n", None), ("nothing = 1", False), ("a = nothing", False), ("a = a +", False),
    ("a = ROWNUM()", False)])
def test_assignments(keyed, assignment, merged):
    keyed.same(INT_TABLE, ROWS, texts(f"UPDATE {{t}} SET {assignment} WHERE id = {{k}}"), merged,
               behind=["SELECT LAST_INSERT_ID(), @x"])


@pytest.mark.parametrize("condition, merged", [
    ("id={k}", True), ("`id` = {k}", True), ("ID = {k}", True), ("{t}.id = {k}", True), ("{t} . id = {k}", True),
    ("`{t}`.`id`={k}", True), ("id = {k};", True), ("id = {k} ; ", True), ("id = {k} -- done", True),
    ("id = {k} # done", True), ("id = {k} /* done */", True), ("id /* = */ = {k}", True), ("id = /* = */ {k}", False),
    ("id = -- =\n{k}", False), ("(id) = {k}", False), ("id = ({k})", False), ("(id = {k})", False), ("{k} = id", False),
    ("id <=> {k}", False), ("id IN ({k})", False), ("id BETWEEN {k} AND {k}", False), ("id = {k} LIMIT 1", False),
    ("id = {k} ORDER BY id", False), ("id = {k} AND a < 100", False), ("a < 100 AND id = {k}", False),
    ("id = {k} OR id = 15", False), ("NOT id = {k}", False), ("b = id = {k}", False), ("-id = {k}", False),
    ("id = {k} COLLATE utf8mb4_bin", False), ("id = {k} + 0", False), ("id <= {k}", False), ("id != {k}", False),
    ("b = {k}", False), ("keyed.{t}.id = {k}", False), ("other.id = {k}", False), ("id = '{k}' 'x'", False)])
def test_conditions(keyed, condition, merged):
    keyed.same(INT_TABLE, ROWS, texts(f"UPDATE {{t}} SET s = CONCAT(s, 'x') WHERE {condition}"), merged)


@pytest.mark.parametrize("head, merged", [
    ("UPDATE{t}SET", False), ("update`{t}`set", False), ("UPDATE/**/{t}/**/SET", False),
    ("\t\n update\n{t}\nSET", True),
    ("UPDATE -- a\n {t} # b\n SET", False), ("/* file:a.py */ /* line:7 */ UPDATE {t} SET", True),
    ("UPDATE {t} AS x SET", False), ("UPDATE {t} x SET", False), ("UPDATE IGNORE {t} SET", False),
    ("UPDATE LOW_PRIORITY {t} SET", False), ("UPDATE ({t}) SET", False), ("UPDATE {t}, {t} AS o SET", False)])
def test_heads(keyed, head, merged):
    keyed.same(INT_TABLE, ROWS, texts(f"{head} s = CONCAT(s, 'x') WHERE id = {{k}}"), merged)


@pytest.mark.parametrize("name", ["`set`", "`with space`", "`it''s`", "`a``b`", '`a"b`', "`ä`", "ä", "1t", "`1.5`",
                                  "$t", "`-- x`", "`/* x */`", "keyed_own . `set`", "`keyed_own`.`x`"])
def test_names_of_tables(keyed, mariadb, proxy, name):
    keyed.do("CREATE DATABASE keyed_own")
    keyed.do("USE keyed_own")
    keyed.do(f"CREATE TABLE {name} ({INT_TABLE}) ENGINE=InnoDB")
    keyed.do(f"INSERT INTO {name} {ROWS}")
    sessions = keyed.sessions("b", SESSIONS, database="keyed_own")
    direct = keyed.sessions("a", 1, database="keyed_own")[0]
    before = proxy.stats()["methods"]["keys"]
    try:
        write = HINT + f"UPDATE {name} SET a = a + 1 WHERE id = "
        told = together(SESSIONS, lambda k: sessions[k].query(f"{write}{k + 1}"))
        assert {direct.query(f"{write}{SESSIONS + 1}")} == set(told)
        assert proxy.stats()["methods"]["keys"] > before
        assert keyed.do(f"SELECT id, a FROM {name}") == [(k, int(k <= SESSIONS + 1)) for k in range(1, 21)]
    finally:
        for session in (*sessions, direct):
            session.connection.close()
        keyed.do("DROP DATABASE keyed_own")


def odd(write: str) -> list[str]:
    """All but the last are alike; he has written his differently, at the key of his own."""
    return [*texts(keys=KEYS[:-1]), write.replace("{k}", KEYS[-1])]


@pytest.mark.parametrize("first, other", [
    ("a = b <= 3", "a = b < = 3"), ("a = b != 3", "a = b ! = 3"), ("a = b <> 3", "a = b < > 3"),
    ("a = b >= 3", "a = b > = 3"), ("a = b || 3", "a = b | | 3"), ("a = b << 3", "a = b < < 3"),
    ("s = CURDATE()", "s = CURDATE ()"), ("s = NOW()", "s = NOW ()"), ("s = TRIM(s)", "s = TRIM (s)"),
    ("s = MID('abc', 2)", "s = MID ('abc', 2)"), ("s = UPPER('a')", "s = UPPER ('a')"),
    ("s = CURDATE()", "s = CURDATE/**/()")])
def test_blanks_that_the_server_does_not_overlook(keyed, first, other):
    """One who is told an error by himself is told it in company as well."""
    write = "UPDATE {t} SET " + first + ", b = b + 1 WHERE id = {k}"
    writes = [*texts(write, KEYS[:-1]), write.replace(first, other).replace("{k}", KEYS[-1])]
    keyed.same(INT_TABLE, ROWS, writes, None, rounds=6)


@pytest.mark.parametrize("name", ["trim", "mid", "curdate"])
def test_functions_of_users_with_the_names_of_native_ones(keyed, name):
    """A blank in front of the parenthesis tells which of the two is meant (manual, "Function Name Resolution")."""
    arguments = {"trim": ("s", "x varchar(20)"), "mid": ("s, 2", "x varchar(20), n int"), "curdate": ("", "")}[name]
    for side in "ab":
        keyed.do(f"CREATE OR REPLACE FUNCTION keyed_{side}.{name} ({arguments[1]}) RETURNS varchar(20) DETERMINISTIC "
                 "RETURN 'own'")
    write = f"UPDATE {{t}} SET a = a + 1, s = {name}({arguments[0]}) WHERE id = {{k}}"
    try:
        keyed.same(INT_TABLE, ROWS, [*texts(write, KEYS[:-1]), write.replace("(", " (").replace("{k}", KEYS[-1])], None,
                   rounds=6)
    finally:
        for side in "ab":
            keyed.do(f"DROP FUNCTION keyed_{side}.{name}")


@pytest.mark.parametrize("write", [
    "UPDATE {t} SET a = a + 1 -- \r WHERE id = {k}", "UPDATE {t} SET a = a + 1 # \r WHERE id = {k}",
    "-- \r UPDATE {t} SET a = a + 1 WHERE id = {k}", "UPDATE {t} SET a = a -- \r + 1 WHERE id = {k}",
    "UPDATE {t} SET a = a + 1 WHERE -- \r id = {k}"])
@pytest.mark.parametrize("key", ["{k}", "'{k}'"], ids=["keyed", "pipeline"])
def test_comments_that_a_carriage_return_does_not_end(keyed, write, key):
    """One of them writes so, and means all rows, or nothing. Alone among batches, all rows may meet a deadlock."""
    write, like = (one.replace("{k}", key) for one in (write, ADD))
    direct, proxied = keyed.play(INT_TABLE, ROWS, [*texts(like, KEYS[:-1]), write.replace("{k}", "15")], rounds=6,
                                 deadlocks=5)
    assert proxied.answers[-1] == direct.answers[-1] and proxied.tables == direct.tables


@pytest.mark.parametrize("first, other", [
    ("`a``b` = 1", "`a` `b` = 1"), ("c = 5 DIV b", "c = 5DIV b"), ("c = 1 IS NULL", "c = 1IS NULL"),
    ("c = b = -1", "c = b =- 1"), ("c = b - -1", "c = b --1"), ("c = .5", "c = . 5"), ("c = {t}.b", "c = {t} . b"),
    ("c = 'a' 'b'", "c = 'a''b'"), ("c = c + 1", "c=c+1"), ("c = NOT b", "c = ! b"), ("c = 1 XOR b", "c = 1XOR b"),
    ("c = _utf8'1'", "c = _utf8 '1'"), ("c = N'1'", "c = N '1'"), ("c = x'31'", "c = x '31'"), ("c = 1", "c = 1.")])
def test_words_that_blanks_make(keyed, first, other):
    write = "UPDATE {t} SET " + first + ", a = a + 1 WHERE id = {k}"
    keyed.same(INT_TABLE + ", `a``b` int DEFAULT 0, c varchar(20)", ROWS, [
        *texts(write, KEYS[:-1]), write.replace(first, other).replace("{k}", KEYS[-1])], None, rounds=6)


@pytest.mark.parametrize("write", [
    "UPDATE {t} SET a = a + 1 WHERE id = 0{k}", "UPDATE {t} SET a = a + 1 WHERE id = '{k}'",
    "UPDATE {t} SET a = a + 2 WHERE id = {k}", "UPDATE {t} SET a = a + 1.0 WHERE id = {k}",
    "UPDATE {t} SET a = a + '1' WHERE id = {k}", "UPDATE {t} SET a = a + 1 WHERE id = 999",
    "UPDATE {t} SET a = a + 0 WHERE id = {k}", "UPDATE {t} SET a = a + 'x' WHERE id = {k}",
    "UPDATE {t} SET a = a + 9999999999 WHERE id = {k}", "UPDATE {t} SET a = a + 1 WHERE id = '{k}x'",
    "UPDATE {t} SET a = a + 1 WHERE id = 99999999999999999999", "UPDATE {t} SET a = a + NULL WHERE id = {k}",
    "UPDATE {t} SET a = a + 1 WHERE id = {k} /* = 7", "UPDATE {t} SET a = a + 1 WHERE id = NULL"])
def test_one_among_those_who_are_alike(keyed, write):
    """Whatever one of them wants, the others have got what they wanted, and their answers."""
    keyed.same(INT_TABLE, ROWS, odd(write), None, rounds=3)


@pytest.mark.parametrize("first, second", [('"x"', '"y"'), ("'x'", "'y'"), ("-5", "5"), ("1", "2"), ("'1'", "1"),
                                           ("'a\\\\'", "'b\\\\'")])
def test_values_that_differ(keyed, first, second):
    keyed.same(INT_TABLE, ROWS, [write.replace("VALUE", second if k % 2 else first) for k, write in enumerate(
        texts("UPDATE {t} SET s = VALUE, a = a + 1 WHERE id = {k}", tuple(map(str, range(1, 13)))))], None, rounds=1)


# --- what is in the way -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("columns, write, keys, options", [
    (INT_TABLE, "UPDATE {t} SET a = 0 WHERE id = {k}", KEYS, {}),
    (INT_TABLE, "UPDATE {t} SET a = id > 3 WHERE id = {k}", KEYS, {}),
    (INT_TABLE, ADD, ("1", "2", "3", "999", "4", "5"), {}), (INT_TABLE, ADD, ("100", "101", "102", "103"), {}),
    ("id int PRIMARY KEY, a tinyint DEFAULT 126", ADD, KEYS, {}),
    ("id int PRIMARY KEY, a int DEFAULT 0 CHECK (a < 3 OR id > 3)", ADD, KEYS, {}),
    ("id int PRIMARY KEY, s varchar(2)", "UPDATE {t} SET s = REPEAT('x', id) WHERE id = {k}", KEYS, {}),
    (INT_TABLE, "UPDATE {t} SET a = 1 / (id - 3) WHERE id = {k}", KEYS, {}),
    (INT_TABLE, "UPDATE {t} SET a = CONCAT(id, 'x') WHERE id = {k}", KEYS, {}),
    ("id int PRIMARY KEY, a int NOT NULL DEFAULT 0", "UPDATE {t} SET a = NULLIF(id, 3) WHERE id = {k}", KEYS, {}),
    ("id int PRIMARY KEY, a int DEFAULT 0, p int DEFAULT 0, FOREIGN KEY (p) REFERENCES parents (id)",
     "UPDATE {t} SET p = id WHERE id = {k}", KEYS, {"setup": ["SELECT 1"]})])
@pytest.mark.parametrize("mode", ["", "STRICT_TRANS_TABLES",
                                  "STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_BACKSLASH_ESCAPES"])
@pytest.mark.parametrize("flags", [0, CLIENT.FOUND_ROWS], ids=["changed", "found"])
def test_what_some_rows_are_refused(keyed, columns, write, keys, options, mode, flags):
    for side in "ab":
        keyed.do(f"CREATE TABLE IF NOT EXISTS keyed_{side}.parents (id int PRIMARY KEY)")
        keyed.do(f"INSERT IGNORE INTO keyed_{side}.parents VALUES (0), (1), (2), (4)")
    keyed.same(columns, ROWS, texts(write, keys), None if mode else False, before=[f"SET sql_mode = '{mode}'"],
               client_flag=flags, behind=["SELECT ROW_COUNT()"], rounds=3, **options)


@pytest.mark.parametrize("flags", [0, CLIENT.FOUND_ROWS, SESSION_TRACK], ids=["changed", "found", "track"])
@pytest.mark.parametrize("behind", [
    "SHOW WARNINGS", "SHOW COUNT(*) WARNINGS", "SELECT @@warning_count, @@error_count", "SELECT ROW_COUNT()",
    "SELECT FOUND_ROWS()", "SELECT LAST_INSERT_ID(), @@identity, @@insert_id",
    "SELECT @@innodb_lock_wait_timeout, @@autocommit, @@in_transaction, @@sql_mode"])
@pytest.mark.parametrize("write", ["UPDATE {t} SET a = 0 WHERE id = {k}", ADD], ids=["same", "changed"])
def test_what_is_asked_behind(keyed, write, behind, flags):
    for writes in (texts(write), bound(range(1, SESSIONS + 1), write), texts(write, KEYS[:4] * 2)):
        keyed.same(INT_TABLE.replace("PRIMARY", "AUTO_INCREMENT PRIMARY"), ROWS, writes, True, client_flag=flags,
                   before=["SELECT LAST_INSERT_ID(77)", "SELECT 1 / 0"], behind=[behind, "SELECT 1 / 0"])


@pytest.mark.parametrize("setup, merged, more", [
    (["CREATE TRIGGER {t}x BEFORE UPDATE ON {t} FOR EACH ROW SET NEW.b = NEW.a * 2"], False, ""),
    (["ALTER TABLE {t} PARTITION BY HASH (id) PARTITIONS 3"], False, ""),
    (["ALTER TABLE {t} ENGINE=Aria"], False, ""), (["ALTER TABLE {t} ADD SYSTEM VERSIONING"], False, ""),
    (["UPDATE {t} SET b = id", "ALTER TABLE {t} ADD UNIQUE (b)"], None, ""),
    (["UPDATE {t} SET b = id", "ALTER TABLE {t} ADD UNIQUE (b)",
      "CREATE TABLE {t}c (i int PRIMARY KEY, b int, FOREIGN KEY (b) REFERENCES {t} (b) ON UPDATE CASCADE)",
      "INSERT INTO {t}c SELECT id, b FROM {t}"], True, "SELECT * FROM {t}c"),
    (["UPDATE {t} SET b = id", "ALTER TABLE {t} ADD FOREIGN KEY (b) REFERENCES {t} (id)"], False, ""),
    (["RENAME TABLE {t} TO {t}o", "CREATE VIEW {t} AS SELECT * FROM {t}o"], False, "")])
def test_what_depends_on_a_table(keyed, setup, merged, more):
    keyed.same(INT_TABLE, ROWS, texts("UPDATE {t} SET a = a + 1, b = b + 100 * (b > 0 AND a < 3) WHERE id = {k}"),
               merged, setup=setup, more=more)


@pytest.mark.parametrize("setting, merged", [
    ("tx_isolation = 'SERIALIZABLE'", True), ("tx_isolation = 'READ-UNCOMMITTED'", True), ("tx_read_only = 1", False),
    ("sql_safe_updates = 1", True), ("sql_select_limit = 1", True), ("in_predicate_conversion_threshold = 2", True),
    ("eq_range_index_dive_limit = 1", True), ("binlog_format = 'STATEMENT'", True), ("lc_messages = 'de_DE'", False),
    ("lc_messages = 'ja_JP'", False), ("max_statement_time = 5", True), ("optimizer_max_sel_arg_weight = 0", True),
    ("sql_big_selects = 0, max_join_size = 1", False), ("autocommit = 0", False), ("foreign_key_checks = 0", None),
    ("unique_checks = 0", None), ("sql_mode = 'STRICT_ALL_TABLES,EMPTY_STRING_IS_NULL'", True),
    ("sql_mode = 'STRICT_ALL_TABLES,ANSI_QUOTES'", False), ("sql_mode = 'STRICT_ALL_TABLES,IGNORE_SPACE'", True)])
def test_settings_of_a_session(keyed, setting, merged):
    keyed.same(INT_TABLE, ROWS, texts(), merged, before=[f"SET {setting}"])


@pytest.mark.parametrize("language", ["de_DE", "ja_JP", "ru_RU"])
def test_inserts_of_several_rows_in_another_language(keyed, language):
    values = [f"INSERT INTO {{t}} (id, a) VALUES ({10 * k}, 1), ({10 * k + 1}, 2)" for k in range(3, 9)]
    keyed.same(INT_TABLE, ROWS, values, False, rounds=1, before=[f"SET lc_messages = '{language}'"])


# --- commands ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("keys, kind, merged", [
    (range(1, 7), "int", True), (range(1, 7), "varchar(10)", False), ("123456", "varchar(10)", True),
    ("123456", "int", False), ([1.0, 2.0, 3.0, 4.0, 5.0], "int", None), ([None] * 5, "int", False),
    ([1, 2, 3, 4, None], "int", None), ([1, "2", 3, 4.0, 5, 6, 7, "8"], "int", None),
    ([-1, -2, -3, -4, -5], "int", False),
    ([b"1", b"2", b"3", b"4"], "varchar(10)", False), (["1 ", "2 ", "3 ", "4"], "varchar(10)", True),
    (["it's", "\\", "ä", "\0", "'"], "varchar(10)", False), ([2**63 + k for k in range(5)], "bigint unsigned", False),
    ([1e17] * 5 + [10**17, 10**17 + 1, 10**17 + 2, 10**17 + 3], "bigint", None)])
def test_executions(keyed, keys, kind, merged):
    rows = "(id) VALUES (100000000000000000), (100000000000000001), (100000000000000002)" if kind == "bigint" else ROWS
    columns = f"id {kind} PRIMARY KEY, a int DEFAULT 0"
    if kind == "bigint":
        keys = keys[-4:]            # who finds several rows at once depends on the order with the others
    keyed.same(columns, rows, bound(list(keys)), merged, rounds=3)


@pytest.mark.parametrize("column, merged", [
    ("int", "number"), ("bigint unsigned", "number"), ("varchar(20)", "string")])
def test_types_of_parameters(keyed, proxy, table, column, merged):
    """Numbers name rows by numbers, and strings rows by strings, however many bytes the client gives them."""
    numbers = [(kind | sign, code) for kind, code in ((1, "<b"), (2, "<h"), (3, "<i"), (9, "<i"), (8, "<q"), (13, "<h"))
               for sign in (0, UNSIGNED)]
    kinds = [(kind, lambda k, code=code: struct.pack(code, k), None if kind & 15 in (9, 13) else "number")
             for kind, code in numbers]
    kinds += [(kind, lambda k: lenenc(b"%d" % k), "string") for kind in (253, 254, 15)]
    kinds += [(kind, lambda k: lenenc(b"%d" % k), "") for kind in (249, 250, 251, 252)]
    kinds += [(kind, lambda k: lenenc(b"%d" % k), None) for kind in (246, 0)]
    kinds += [(5, lambda k: struct.pack("<d", k), None), (4, lambda k: struct.pack("<f", k), None),
              (10, lambda k: moment(2000 + k, 2, 3), ""), (12, lambda k: moment(2000 + k, 2, 3, 4, 5, 6), "")]
    for number, (kind, value, form) in enumerate(kinds):
        sql = HINT + f"UPDATE {table}_{number} SET a = a + 1 WHERE id = ?"
        found = []
        for side in "ab":
            keyed.do(f"USE keyed_{side}")
            keyed.do(f"CREATE TABLE {table}_{number} (id {column} PRIMARY KEY, a int DEFAULT 0) ENGINE=InnoDB")
            keyed.do(f"INSERT INTO {table}_{number} {ROWS}")
            sessions = keyed.sessions(side, SESSIONS)
            for session in sessions:
                session.prepare(sql)

            def work(k, sessions=sessions, told=kind, value=value, sql=sql):
                head = b"\x17" + struct.pack("<IBI", sessions[k].statements[sql][0], 0, 1) + b"\0"
                return [sessions[k].command(head + types + value(k + 1))
                        for types in (b"\1" + struct.pack("<H", told), b"\0")]

            before = proxy.stats()["methods"]["keys"]
            told = together(SESSIONS, work) if side == "b" else [work(k) for k in range(SESSIONS)]
            found.append(([[answer.replace(f"keyed_{side}".encode(), b"keyed_x") for answer in one] for one in told],
                          keyed.do(f"SELECT * FROM {table}_{number}")))
            for session in sessions:
                session.connection.close()
        assert found[1] == found[0], kind
        assert form is None or (proxy.stats()["methods"]["keys"] > before) == (form == merged), (kind, form)


@pytest.mark.parametrize("sql, merged", [
    ("UPDATE {t} SET a = a + 1 WHERE id = ?;", None), ("UPDATE {t} SET a = a + 1 WHERE id = ? ", None),
    ("UPDATE {t} SET a = a + 1 WHERE id = ? -- x", None), ("UPDATE {t} SET a = a + 1 WHERE id = /* ? */ ?", False),
    ("UPDATE {t} SET a = a + 1, s = '?' WHERE id = ?", True), ("UPDATE {t} SET a = a + 1 WHERE ? = id", False),
    ("UPDATE {t} SET a = a + 1 WHERE id = ? AND 1", False)])
def test_texts_that_are_prepared(keyed, sql, merged):
    keyed.same(INT_TABLE, ROWS, [(sql, (k,)) for k in range(1, 7)], merged)


def test_a_parameter_that_is_no_key(keyed, proxy):
    """Nothing is tried that must fail: the text ends in ``= 5``, and its parameter stands elsewhere."""
    before = proxy.stats()["retries"]
    keyed.same(INT_TABLE, ROWS, [("UPDATE {t} SET a = a + ? WHERE id = 5", (k,)) for k in range(1, 7)], False)
    assert proxy.stats()["retries"] == before


@pytest.mark.parametrize("setting", [
    "USE keyed_other", "SET sql_mode = 'STRICT_ALL_TABLES,PIPES_AS_CONCAT'", "SET NAMES latin1",
    "SET sql_mode = 'STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES'"])
def test_what_changes_behind_a_preparation(keyed, setting):
    """A prepared statement means what it meant when it was prepared."""
    sql = HINT + "UPDATE prepared SET s = 'ä\\\\b', a = a || 1 WHERE id = ?"
    found = []
    keyed.do("CREATE DATABASE keyed_other")
    for side in "ab":
        for place in (f"keyed_{side}", "keyed_other"):
            keyed.do(f"CREATE OR REPLACE TABLE {place}.prepared ({INT_TABLE}) ENGINE=InnoDB")
            keyed.do(f"INSERT INTO {place}.prepared {ROWS}")
        sessions = keyed.sessions(side, SESSIONS)
        for session in sessions:
            session.prepare(sql)
            session.query(setting)
        answers = [together(SESSIONS, lambda k, s=sessions: s[k].execute(sql, (k + 1,))) for _ in range(2)]
        found.append((answers, *(keyed.do(f"SELECT * FROM {place}.prepared") for place in (f"keyed_{side}",
                                                                                             "keyed_other"))))
        for session in sessions:
            session.connection.close()
        keyed.do(f"DROP TABLE keyed_{side}.prepared")
    keyed.do("DROP DATABASE keyed_other")
    assert found[1] == found[0]


@pytest.mark.parametrize("commands", [
    ("BEGIN; {}; COMMIT",), ("BEGIN", "{}", "COMMIT"), ("START TRANSACTION; {}; COMMIT WORK;",), ("{}", "{}", "{}"),
    ("BEGIN; {}; ROLLBACK",), ("{}", "BEGIN", "{}", "COMMIT"), ("{}; {}",)])
def test_several_commands_in_one_send(keyed, table, proxy, commands):
    found = []
    before = proxy.stats()["methods"]["keys"]
    for side in "ab":
        keyed.do(f"CREATE TABLE keyed_{side}.{table} ({INT_TABLE}) ENGINE=InnoDB")
        keyed.do(f"INSERT INTO keyed_{side}.{table} {ROWS}")
        sessions = keyed.sessions(side, SESSIONS, client_flag=CLIENT.MULTI_STATEMENTS)

        def work(k, sessions=sessions):
            write = f"UPDATE {table} SET a = a * 2 + 1 WHERE id = {k + 1}"
            said = tuple(HINT * (c == 0 or c == "{}" or "{}" in command) + command.replace("{}", write)
                         for c, command in enumerate(commands))
            return [my_say(sessions[k], said) for _ in range(3)]

        found.append((together(SESSIONS, work), keyed.do(f"SELECT * FROM keyed_{side}.{table}")))
        for session in sessions:
            session.connection.close()
    assert found[1] == found[0]
    if "BEGIN" in commands[0] and "ROLLBACK" not in commands[0]:
        assert proxy.stats()["methods"]["keys"] > before
