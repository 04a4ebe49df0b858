"""What MariaDB's catalogue says of tables, and what is made of it: every list held against a real server."""

import re
from itertools import pairwise

import pymysql
import pytest

from tests.mariadb_examples import CHANGING, FIXED, MORE_FUNCTIONS, STATEMENT_ONLY
from tqdb import analysis
from tqdb.analysis import mariadb_allowed as allowed
from tqdb.analysis.mariadb_read import read, read_table
from tqdb.catalog import Ask, Facts, mariadb

MY = 1
EVERY = CHANGING + FIXED


def verdict(sql: str, cut: bool = True):
    prefix, values, row = sql.partition(" VALUES ")
    return analysis.analyze(MY, (prefix + values).encode(), row.encode(), b"") if cut and values else (
        analysis.analyze_statement(MY, sql.encode()))


def facts(cursor, table: str, sql: str = "INSERT INTO {} (a) VALUES (1)", rounds: int = 4) -> Facts:
    """What the proxy would find out, on a real server: all questions, at most ``rounds``."""
    found = verdict(sql.format(table))
    assert found is not None, sql
    answer = Ask(mariadb.probe_sql(found), None)
    for _ in range(rounds):
        cursor.execute(answer.sql)
        answer = mariadb.judge(found, [[None if v is None else str(v) for v in row] for row in cursor.fetchall()],
                               answer.state)
        if isinstance(answer, Facts):
            return answer
    raise AssertionError("questions without end")


@pytest.fixture
def cursor(my):
    with my(through=False).cursor() as cursor:
        yield cursor


@pytest.fixture
def judged(cursor, table):
    """``judged(*statements)``: facts about table ``t`` that they make, in a database of its own."""
    cursor.execute(f"CREATE DATABASE {table}")
    cursor.execute(f"USE {table}")

    def make(*statements: str, sql: str = "INSERT INTO {} (a) VALUES (1)") -> Facts:
        cursor.execute("DROP VIEW IF EXISTS t")
        cursor.execute("DROP TABLE IF EXISTS t")
        for statement in statements:
            cursor.execute(statement)
        return facts(cursor, "t", sql)

    yield make
    cursor.execute(f"DROP DATABASE {table}")


def calls(expression: str) -> set[str]:
    tokens = read(expression, True)
    return {t.text for t, after in pairwise(tokens) if t.kind == "word" and after.key == "("}


def test_every_function_has_an_example():
    used = set().union(*map(calls, EVERY + STATEMENT_ONLY))
    assert used == set(allowed.FUNCTIONS) - {"value", "values"}
    assert all(where == allowed.MERGED for e in EVERY for where in map(allowed.FUNCTIONS.get, calls(e)))


def test_every_function_as_a_default(judged):
    refused = []
    for expression in EVERY:
        try:
            found = judged(f"CREATE TABLE t (a int, v blob DEFAULT ({expression}))")
        except pymysql.Error as e:
            refused.append((expression, e.args))
            continue
        assert found == Facts(True, multi_row=True, byte_limit=found.byte_limit), (expression, found)
    assert not refused, refused


def test_every_function_as_a_generated_value_and_in_a_check(judged):
    taken = {"generated": 0, "check": 0}
    for expression in EVERY:
        for place, sql in (("generated", f"CREATE TABLE t (a int, v longtext AS ({expression}))"),
                           ("check", f"CREATE TABLE t (a int, CHECK (({expression}) IS NOT NULL))")):
            try:
                found = judged(sql)
            except pymysql.Error:
                continue            # the server takes no such function there
            taken[place] += 1
            assert found.ok and found.multi_row, (expression, place, found)
    assert taken["generated"] > 150 and taken["check"] > 150, taken


def test_every_function_in_a_trigger(judged):
    for expression in EVERY:
        expression = re.sub(r"'[^']*'|\ba\b", lambda m: "NEW.a" if m[0] == "a" else m[0], expression)
        found = judged("CREATE TABLE t (a int, v blob)",
                       f"CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW SET NEW.v = {expression}")
        assert found.ok and not found.multi_row, (expression, found)


def listed_by(cursor) -> set[str]:
    cursor.execute("SELECT LOWER(FUNCTION) FROM information_schema.SQL_FUNCTIONS")
    return {name for name, in cursor.fetchall()} | set(MORE_FUNCTIONS)


def test_functions_that_are_on_no_list(cursor, judged):
    """More than 200: none is taken in a statement, and the catalogue tells of each in a trigger."""
    names = listed_by(cursor) - set(allowed.FUNCTIONS)
    assert len(names) >= 200
    seen = 0
    for name in sorted(names):
        for argument in ("", "1", "1, 2"):
            assert verdict(f"INSERT INTO t (a) VALUES ({name}({argument}))") is None, name
            assert verdict(f"UPDATE t SET a = {name}({argument})") is None, name
        ddl = f"CREATE TABLE `t` (`a` int(11) DEFAULT {name}(1)) ENGINE=InnoDB"
        assert read_table(ddl, True).why == f"the default of column a calls {name}()"
        for argument in ("", "1", "1, 2", "1, 2, 3"):
            try:
                found = judged("CREATE TABLE t (a int, v blob)",
                               f"CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW SET NEW.v = {name}({argument})")
            except pymysql.Error:
                continue
            assert not found.ok and name in found.why, (name, found)
            seen += 1
            break
    assert seen >= 180, seen


def test_words_with_a_value(cursor):
    """Whatever the server answers without a parenthesis is on the list, or no name in any statement."""
    cursor.execute("SELECT LOWER(WORD) FROM information_schema.KEYWORDS")
    found = 0
    for word, in cursor.fetchall():
        try:
            cursor.execute(f"SELECT {word}")
        except pymysql.Error:
            continue
        found += 1
        cursor.fetchall()
        assert word in allowed.VALUE_WORDS or verdict(f"UPDATE t SET a = {word}") is None, word
    assert found >= 10


def test_reserved_words(cursor):
    """What the server takes for no name is none here."""
    cursor.execute("SELECT LOWER(WORD) FROM information_schema.KEYWORDS WHERE WORD RLIKE '^[a-zA-Z_]'")
    for word, in cursor.fetchall():
        try:
            cursor.execute(f"SELECT 1 FROM (SELECT 1 AS {word}) AS x WHERE {word} = 1")
            cursor.fetchall()
        except pymysql.Error:
            assert word in allowed.RESERVED | allowed.STATEMENT_WORDS or f"{word}(" in "user(", word


def test_stored_functions_with_a_native_name(cursor):
    """``now ()`` is not ``now()``: what does not follow at once may be a user's own."""
    for name in ("now", "count", "substr", "date_add", "text", "json", "fixed", "bool"):
        assert verdict(f"UPDATE t SET a = {name} (b)") is None
        assert verdict(f"INSERT INTO t (a) VALUES ({name} (1))") is None
    for call in ("`now`()", "d.now()", "d . now()", "`d`.`f`(1)"):
        assert verdict(f"UPDATE t SET a = {call}") is None and verdict(f"INSERT INTO t (a) VALUES ({call})") is None


# what a table may be: (statements, merged) or (statements, None, words of the reason)
TABLES = {
    "serial, time, uuid, json, check, unique": ((
        "CREATE TABLE t (id bigint unsigned AUTO_INCREMENT PRIMARY KEY, a int UNIQUE CHECK (a < 1000), "
        "b datetime(3) DEFAULT now(3) ON UPDATE now(3), c uuid DEFAULT uuid(), d json, e enum('a','b') DEFAULT 'b', "
        "f varchar(9) CHARACTER SET latin1 COLLATE latin1_bin DEFAULT 'it''s' COMMENT 'a \\\\ b'';(', "
        "g decimal(8,2) unsigned zerofill NOT NULL DEFAULT 1.5, h timestamp NULL, i bit(4) DEFAULT b'101', "
        "j int INVISIBLE DEFAULT 3, k longtext COMPRESSED, l set('x','y'), m double, n varbinary(9) DEFAULT x'41', "
        "o int AS (a + 1) STORED, p text AS (concat(f, 'x')) VIRTUAL, KEY (b, a), FULLTEXT KEY (p2), p2 text, "
        "CONSTRAINT both_ CHECK (a > 0 OR f LIKE 'x%' AND a BETWEEN 1 AND 9 OR f IN ('a', _utf8mb4'b')), "
        "r point, x inet6, CHECK (json_valid(d)), CHECK (CASE WHEN a > 1 THEN f IS NOT NULL ELSE NOT a <=> 5 END)) "
        "ENGINE=InnoDB AUTO_INCREMENT=10 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin ROW_FORMAT=DYNAMIC "
        "COMMENT='what''s it' STATS_PERSISTENT=1 MAX_ROWS=9",), True),
    "foreign keys": (("CREATE TABLE IF NOT EXISTS parent (id int PRIMARY KEY)",
                      "CREATE TABLE t (a int REFERENCES parent (id) ON DELETE CASCADE ON UPDATE SET NULL)"), True),
    "a key to itself": (("CREATE TABLE t (id int PRIMARY KEY, a int REFERENCES t (id))",), False),
    "a trigger that computes": (("CREATE TABLE t (a int, v text)", """
        CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW outer_: BEGIN
         DECLARE i, n int DEFAULT 0; DECLARE s varchar(20) CHARACTER SET utf8mb4 DEFAULT 'x;';
         IF NEW.a IS NULL THEN SET NEW.a = 0, n = n + 1; ELSEIF (NEW.a < -5) THEN LEAVE outer_; END IF;
         WHILE i < 3 DO SET i = i + 1; SET s = CONCAT(s, i, IF(i > 1, ',', '')); END WHILE;
         CASE NEW.a WHEN 500 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no', MYSQL_ERRNO = 1644;
          ELSE SET NEW.v = s; END CASE; -- a comment
         REPEAT SET i = i - 1; UNTIL i < 0 END REPEAT; END"""), False),
    "partitions": (("CREATE TABLE t (a int, b date) PARTITION BY RANGE (year(b)) SUBPARTITION BY HASH (a) "
                    "SUBPARTITIONS 2 (PARTITION p0 VALUES LESS THAN (2020), PARTITION p1 VALUES LESS THAN MAXVALUE)",),
                   False),
    "partitions by a key": (("CREATE TABLE t (a int) PARTITION BY KEY (a) PARTITIONS 4",), False),
    "a long unique key": (("CREATE TABLE t (a text UNIQUE)",), False),
    "chance with a seed": (("CREATE TABLE t (a int, b double DEFAULT (rand(3)))",), False),
    "the connection": (("CREATE TABLE t (a int, b int DEFAULT (connection_id()))",), None,
                       "the default of column b calls connection_id()"),
    "the connection when it is read": (("CREATE TABLE t (a int, b int AS (connection_id()))",), None,
                                       "the generated value of column b calls connection_id()"),
    "the login": (("CREATE TABLE t (a int, b varchar(99) DEFAULT (user()))",), None, "calls user()"),
    "the role": (("CREATE TABLE t (a int, b varchar(99) DEFAULT (current_role()))",), None, "calls current_role()"),
    "a sequence": (("CREATE SEQUENCE IF NOT EXISTS s", "CREATE TABLE t (a int, b int DEFAULT (NEXT VALUE FOR s))"),
                   None, "the default of column b calls nextval()"),
    "MyISAM": (("CREATE TABLE t (a int) ENGINE=MyISAM",), None, "its engine is myisam"),
    "a view": (("CREATE TABLE IF NOT EXISTS base (a int)", "CREATE VIEW t AS SELECT a FROM base"), None,
               "it is a VIEW"),
    "history": (("CREATE TABLE t (a int) WITH SYSTEM VERSIONING",), None, "SYSTEM VERSIONING"),
    "periods": (("CREATE TABLE t (a int, s date, e date, PERIOD FOR p (s, e))",), None, "not understood"),
    **{f"a trigger: {name}": (("CREATE TABLE IF NOT EXISTS log (a int)", "CREATE TABLE t (a int, v text)",
                               f"CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW {body}"), None,
                              f"a trigger of it {why}")
       for name, body, why in (
           ("writes elsewhere", "INSERT INTO log VALUES (NEW.a)", "names"),
           ("reads elsewhere", "SET NEW.v = (SELECT MAX(a) FROM log)", "names select"),
           ("reads into a variable", "BEGIN DECLARE n int; SELECT 1 INTO n; END", "names select"),
           ("a user variable", "SET NEW.v = @x", "is not understood"),
           ("a system variable", "SET NEW.v = @@pseudo_thread_id", "is not understood"),
           ("sets a setting", "SET sql_mode = ''", "names sql_mode"),
           ("sets a setting behind its row", "SET NEW.a = 1, SESSION sql_mode = ''", "names session"),
           ("a block in a block", "BEGIN BEGIN DECLARE tmp_table_size int; END; SET tmp_table_size = 9999; END",
            "has a block in a block"),
           ("the connection", "SET NEW.v = CONNECTION_ID()", "calls connection_id()"),
           ("the last id", "SET NEW.v = LAST_INSERT_ID()", "calls last_insert_id()"),
           ("the last rows", "SET NEW.v = ROW_COUNT()", "calls row_count()"),
           ("a handler", "BEGIN DECLARE CONTINUE HANDLER FOR SQLEXCEPTION SET NEW.a = 1; SET NEW.a = 2; END", "names"),
           ("a procedure", "CALL p()", "names call"),
           ("a lock", "SET NEW.v = GET_LOCK('x', 1)", "calls get_lock()"),
           ("a wait", "SET NEW.v = SLEEP(0)", "calls sleep()"),
           ("a stored function", "SET NEW.v = f(1)", "calls f()"),
           ("a stored function called now", "SET NEW.v = now ()", "calls now()"),
           ("executes comments", "SET NEW.v = 1 /*! + CONNECTION_ID() */", "calls connection_id()"),
           ("a sequence", "SET NEW.a = NEXT VALUE FOR s", "names"))},
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables(kind, judged):
    statements, merged, *why = TABLES[kind]
    found = judged(*statements)
    if merged is None:
        assert not found.ok and found.reason == "table" and why[0] in found.why, found
    else:
        assert found.ok and found.multi_row == merged, found


def test_a_trigger_made_under_another_mode(cursor, judged):
    for mode in ("ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "ORACLE"):
        cursor.execute(f"SET sql_mode = '{mode}'")
        statements = ("CREATE TABLE t (a int, v text)", "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW "
                      + ("BEGIN :NEW.v := 1; END" if mode == "ORACLE" else "SET NEW.v = 1"))
        judged_in = [cursor.execute(s) for s in ("DROP TABLE IF EXISTS t", *statements)]
        assert len(judged_in) == 3
        cursor.execute("SET sql_mode = 'STRICT_TRANS_TABLES'")
        assert "sql_mode" in facts(cursor, "t").why


def test_modes_of_the_session(cursor, judged):
    assert not judged("CREATE TABLE t (a int, b varchar(9) DEFAULT 'a\\\\b')").why
    cursor.execute("SET sql_mode = 'STRICT_TRANS_TABLES,NO_BACKSLASH_ESCAPES'")
    assert facts(cursor, "t").multi_row
    cursor.execute("SET sql_mode = ''")
    assert facts(cursor, "t").ok and not facts(cursor, "t").multi_row
    cursor.execute("SET sql_mode = 'ANSI_QUOTES'")
    assert facts(cursor, "t").reason == "session_state"


def test_auto_increment_that_is_given(cursor, judged):
    """Names are compared without case, in every alphabet."""
    ddl = "CREATE TABLE t (ïd int AUTO_INCREMENT PRIMARY KEY, a int, b int, ü int)"
    assert judged(ddl).multi_row and judged(ddl, sql="INSERT INTO {} (`ü`, a) VALUES (1, 2)").multi_row
    for column in ("`ïd`", "`Ïd`"):
        cursor.execute(f"SELECT {column} FROM t")
        cursor.fetchall()
        assert not facts(cursor, "t", f"INSERT INTO {{}} ({column}, a) VALUES (1, 2)").multi_row
    assert not facts(cursor, "t", "INSERT INTO {} VALUES (1, 2)").multi_row


def test_what_else_a_statement_reads(cursor, judged):
    tables = ("CREATE OR REPLACE TABLE plain (a int)", "CREATE OR REPLACE VIEW own AS SELECT connection_id() AS a",
              "CREATE OR REPLACE TABLE isam (a int) ENGINE=MyISAM", "CREATE TABLE t (a int)")
    assert judged(*tables, sql="INSERT INTO {} SELECT a FROM plain").ok
    assert judged(*tables, sql="UPDATE {} SET a = (SELECT COUNT(*) FROM plain AS p) WHERE a IN (SELECT a FROM t)").ok
    assert judged(*tables, sql="INSERT INTO {} SELECT a FROM own").why == "of own, which it reads: it is a VIEW"
    assert "engine" in judged(*tables, sql="DELETE FROM {} WHERE a IN (SELECT p.a FROM plain p, isam)").why
    assert "VIEW" in facts(cursor, "t", "DELETE FROM {} WHERE EXISTS (SELECT 1 FROM plain JOIN own USING (a))").why
    assert "temporary" in judged(
        *tables, sql="INSERT INTO {} SELECT COUNT(*) FROM information_schema.PROCESSLIST").why
    assert verdict("INSERT INTO t SELECT 1 FROM x, y, z") is None


def test_names_that_need_quotes(cursor, judged):
    name = "it's `a` täble"
    quoted = "`" + name.replace("`", "``") + "`"
    cursor.execute(f"CREATE TABLE {quoted} (a int)")
    cursor.execute(f"CREATE TRIGGER x BEFORE INSERT ON {quoted} FOR EACH ROW SET NEW.a = @x")
    cursor.execute("SELECT DATABASE()")
    schema, = cursor.fetchone()
    for table in (quoted, f"{schema}.{quoted}"):
        assert facts(cursor, table).why == "a trigger of it is not understood"


def test_who_may_not_see_triggers(mariadb, cursor, judged, table):
    """Privileges of others prove nothing, even to who may read all of them."""
    judged("CREATE TABLE t (a int)")
    cursor.execute(f"CREATE USER {table}w")
    for grant in (f"INSERT, SELECT ON {table}.*", "SELECT ON mysql.*"):
        cursor.execute(f"GRANT {grant} TO {table}w")
    with mariadb.connect(user=f"{table}w", database=table) as connection, connection.cursor() as writer:
        assert "TRIGGER privilege" in facts(writer, "t").why
        cursor.execute(f"GRANT TRIGGER ON {table}.t TO {table}w")
        assert facts(writer, "t").multi_row
    cursor.execute(f"DROP USER {table}w")


def test_nothing_is_asked_twice(cursor, judged):
    """A table is known after two questions, the rest of a statement's after one each."""
    judged("CREATE TABLE t (a int)", "CREATE OR REPLACE TABLE x (a int)")
    assert facts(cursor, "t", rounds=2).ok
    assert facts(cursor, "t", "INSERT INTO {} SELECT a FROM x", rounds=3).ok
