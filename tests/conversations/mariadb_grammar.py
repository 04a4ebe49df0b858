"""MariaDB: which conversations are made.

Left out, with reasons: ``FOUND_ROWS()`` after a write (documented as not promised), ``NOW()``, ``CONNECTION_ID()``,
``UUID()``, ``RAND()`` (no two runs agree), generated ids other than as ranks (batches that fail leave gaps), rows
returned by a DELETE of several and updates of several rows of which one fails (their order is the table's), LOCK TABLES
of shared tables (in turns a session would wait for one that is not its turn), writes that read shared tables (their
locks on gaps, kept by an open transaction, reach other sessions' keys), a failing COM_CHANGE_USER (ends the session),
LOAD DATA LOCAL with its file sent ahead (not legal: without the server's request the file would be commands), KILL
(when it arrives is no property of the plan), executions of 16 MiB (documented as not promised).
"""

import zlib

from pymysql.constants import CLIENT

from tests.conversations.grammar import Grammar
from tests.conversations.mariadb import DEPRECATE_EOF, IDS
from tests.statements import literal

SESSION_TRACK = 1 << 23
OPTIONS = [{"flags": flags} for flags in (
    0, CLIENT.MULTI_STATEMENTS, CLIENT.FOUND_ROWS, DEPRECATE_EOF | SESSION_TRACK,
    DEPRECATE_EOF | CLIENT.MULTI_STATEMENTS | CLIENT.PS_MULTI_RESULTS)]
READS = (
    "SELECT 1", "SELECT 'a' AS b, NULL, 1.5", "SELECT * FROM t WHERE id BETWEEN {low} AND {high} ORDER BY id",
    "SELECT n FROM counters WHERE id = {low}", "SELECT COUNT(*), SUM(a) FROM t WHERE id BETWEEN {low} AND {high}",
    "SELECT @@sql_mode, @@autocommit, @@time_zone", "SELECT DATABASE(), @a, USER()", "SELECT @@warning_count",
    "SELECT * FROM own_{key} ORDER BY id", "SELECT v FROM auto WHERE owner = {key} ORDER BY id", "SHOW WARNINGS",
    "SHOW TABLES LIKE 'own_{key}'", "SELECT 1/0", "DO 1", "SELECT @@in_transaction", "SHOW COUNT(*) WARNINGS",
    "SELECT SLEEP(0.03)", "DO SLEEP(0.03)",         # what is sent ahead waits for these
)
ERRORS = (
    "SELEC 1", "SELECT * FROM missing", "INSERT INTO t (id, a) VALUES ({low}, 5000)", "SELECT no_function()",
    "INSERT INTO t (id, p) VALUES ({low}, 99)", "INSERT INTO t (id, a) VALUES ({low}, 1/0)", "", "USE missing",
    "ROLLBACK TO SAVEPOINT missing", "INSERT INTO t (id, c) VALUES ({low}, 'longer than ten')", "SELECT (SELECT 1, 2)",
)
SETS = (
    "USE other", "USE conv", "SET sql_mode = ''", "SET sql_mode = DEFAULT",
    "SET sql_mode = 'ANSI_QUOTES,STRICT_ALL_TABLES'",
    "SET sql_mode = CONCAT(@@sql_mode, ',NO_BACKSLASH_ESCAPES')", "SET autocommit = 0", "SET autocommit = 1",
    "SET time_zone = '+05:00'", "SET time_zone = 'SYSTEM'", "SET NAMES latin1", "SET NAMES utf8mb4", "SET NAMES sjis",
    "SET @a = 5", "SET @a := 1, @b = 'x'", "SET @tqdb_max_wait_ms = 5", "SET @tqdb_max_wait_ms = NULL",
    "SET SESSION insert_id = DEFAULT", "SET foreign_key_checks = 0", "SET foreign_key_checks = 1", "SET nothing = 1",
    "SET SESSION TRANSACTION READ ONLY", "SET SESSION TRANSACTION READ WRITE", "SET max_statement_time = 30",
    "SET character_set_results = NULL", "SET sql_select_limit = 3", "SET sql_select_limit = DEFAULT",
    "SET STATEMENT sql_mode = '' FOR SELECT @@sql_mode", "/*!50000 SET @a = 7 */", "SELECT @a := 9",
    "SET auto_increment_increment = 3", "SET auto_increment_increment = 1", "SET lock_wait_timeout = 20",
)
LAST_IDS = (
    "SELECT LAST_INSERT_ID()", "SELECT @@last_insert_id", "SELECT @@identity", "SELECT LAST_INSERT_ID(), 'x'",
    f"SELECT LAST_INSERT_ID({IDS + 5})", "SELECT v FROM auto WHERE id = LAST_INSERT_ID()",
)


class MariaDBGrammar(Grammar):
    ALWAYS = ("hinted", "hinted_prepared")
    KINDS = {
        "hinted": 12, "hinted_prepared": 7, "executions": 5, "read": 4, "plain": 4, "several": 3, "error": 3,
        "prepared_read": 3, "cursor": 3, "long_data": 2, "statement_end": 2, "direct": 2, "last_id": 5, "row_count": 3,
        "warnings": 3, "transaction": 4, "opening": 2, "setting": 5, "reset": 4, "change_user": 2, "init_db": 2,
        "option": 1, "ping": 2, "load": 2, "temporary": 2, "lock": 1, "ddl": 1, "wide": 1, "rows_to_ids": 2, "block": 6,
    }

    # --- pieces

    def place(self, sql: str) -> str:
        return sql.format(key=self.key, low=self.id(), high=self.base + 999)

    def query(self, sql: str, **more) -> dict:
        return {"do": "query", "sql": sql, **more}

    def write(self, shape: int | None = None) -> tuple[str, list]:
        shapes = self.shapes if shape is None else [shape]
        key, n, word = self.key, self.id, self.word
        forms = (
            lambda: ("INSERT INTO t (id, a, b) VALUES (?, ?, ?)", [n(), self.number(), word()]),
            lambda: ("INSERT INTO auto (owner, v) VALUES (?, ?)", [key, self.number()]),
            lambda: ("INSERT INTO t (id, a, b) VALUES (?, ?, ?) RETURNING id, b", [n(), self.number(), word()]),
            lambda: ("UPDATE counters SET n = n + 1 WHERE id = ?", [self.base]),
            lambda: ("INSERT INTO t (id, a) VALUES (?, ?), (?, ?)", [n(), self.number(), n(), self.number()]),
            lambda: ("INSERT INTO t (id, a, b) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE b = CONCAT(VALUES(b), '!')",
                     [n(), self.number(), word()]),
            lambda: ("INSERT IGNORE INTO t (id, a) VALUES (?, ?)", [n(), self.number()]),
            lambda: ("REPLACE INTO t (id, a) VALUES (?, ?)", [n(), self.number()]),
            lambda: ("UPDATE counters SET n = n + ? WHERE id = ?", [self.rng.randint(1, 9), self.base]),
            lambda: ("UPDATE counters SET n = n WHERE id = ?", [self.base]),
            lambda: ("UPDATE t SET a = 7 WHERE id = ?", [n()]),
            lambda: ("DELETE FROM t WHERE id = ?", [n()]),
            lambda: ("DELETE FROM t WHERE id = ? RETURNING a, b", [n()]),
            lambda: ("INSERT INTO changed (id, v) VALUES (?, ?)", [n(), self.rng.choice((1, 2, 500))]),
            lambda: (f"INSERT INTO own_{key} (id, a) VALUES (?, ?)", [n(), self.number()]),
            lambda: ("INSERT INTO t (id, a) SELECT ?, 3", [n()]),
            lambda: ("INSERT INTO t (id, p) VALUES (?, ?)", [n(), self.rng.choice((1, 1, 1, 99))]),
            lambda: ("INSERT INTO t (id, c) VALUES (?, ?)", [n(), self.rng.choice(("ten", "longer than ten"))]),
            lambda: ("INSERT INTO t SET id = ?, e = ?", [n(), self.rng.choice(("1.25", "1.239"))]),
            lambda: ("INSERT INTO missing (id) VALUES (?)", [n()]),
            lambda: ("UPDATE t SET a = ? WHERE id = ?", [self.number(), n()]),
            lambda: ("UPDATE counters SET n = LAST_INSERT_ID(n + ?) WHERE id = ?", [IDS, self.base]),
            lambda: ("INSERT INTO auto (owner, v) VALUES (?, ?), (?, ?)", [key, 1, key, self.number()]),
            lambda: ("INSERT INTO t (id, b) VALUES (?, CONCAT(LOWER(?), 'd'))", [n(), word()]),
            lambda: ("INSERT INTO other.t (id, a) VALUES (?, ?)", [n(), self.number()]),
            lambda: ("INSERT INTO isam (id, v) VALUES (?, ?)", [n(), 1]),
        )
        choice = self.rng.choice(shapes)
        return forms[choice % 5 if choice % 2 else choice % len(forms)]()

    def text(self, sql: str, values: list) -> dict:
        """The write as COM_QUERY."""
        return self.query(literal(sql, tuple(values)), **self.flagged(sql))

    def flagged(self, sql: str) -> dict:
        return {"ids": True} if "auto (owner" in sql or "LAST_INSERT_ID" in sql or "@@identity" in sql else {}

    def prepared(self, sql: str) -> tuple[str, dict]:
        """A name, the same for the same text, and the step that prepares it."""
        name = f"s{zlib.crc32(sql.encode()):08x}"
        return name, {"do": "prepare", "name": name, "sql": sql}

    def execute(self, name: str, sql: str, values: list, **more) -> dict:
        tell = {"tell": True} if self.chance(0.2) else {}
        return {"do": "execute", "name": name, "values": values, **tell, **more, **self.flagged(sql)}

    # --- kinds

    def hinted(self) -> list[dict]:
        out = []
        for _ in range(self.rng.choice((1, 1, 1, 2, 5))):
            sql, values = self.write()
            out += [self.text(self.hint(sql), values)] if self.chance(self.textual) else self.hinted_prepared()
        return out

    def hinted_prepared(self) -> list[dict]:
        sql, values = self.write()
        sql = self.hint(sql)
        name, prepare = self.prepared(sql)
        return [*([prepare] if self.chance(0.8) else []), self.execute(name, sql, values)]

    def executions(self) -> list[dict]:
        """One statement prepared, executed up to 30 times."""
        shape = self.rng.choice(self.shapes)
        sql = self.hint(self.write(shape)[0])
        name, prepare = self.prepared(sql)
        count = self.rng.choice((2, 3, 8, 30))
        return [prepare, *({**self.execute(name, sql, self.write(shape)[1]), "then": "join"} for _ in range(count)),
                *self.ping()]

    def wide(self) -> list[dict]:
        n = self.rng.choice((4, 8, 120))
        rows = ", ".join(f"({self.key}, {i})" for i in range(n))
        return [self.query(self.hint(f"INSERT INTO auto (owner, v) VALUES {rows}"), ids=True)
                for _ in range(self.rng.choice((1, 3, 10)))]

    def read(self) -> list[dict]:
        return [self.query(self.maybe_hint(self.place(self.rng.choice(READS))))]

    def plain(self) -> list[dict]:
        return [self.text(*self.write(self.rng.randint(0, 200)))]

    def several(self) -> list[dict]:
        """Several statements in one; an error without the capability."""
        parts = [literal(sql, tuple(values)) for sql, values in (self.write(), self.write())]
        parts.insert(self.rng.randint(0, 2), self.place(self.rng.choice(READS + ERRORS[:3])))
        sql = "; ".join(parts)
        return [self.query(self.maybe_hint(sql), **self.flagged(sql))]

    def error(self) -> list[dict]:
        sql = self.maybe_hint(self.place(self.rng.choice(ERRORS)))
        return [self.query(sql)] if self.chance(0.7) else [self.prepared(sql)[1]]

    def prepared_read(self) -> list[dict]:
        sql = self.rng.choice(("SELECT id, a FROM t WHERE id = ?", "SELECT ? + 1", "DO ?"))
        name, prepare = self.prepared(sql)
        return [prepare, self.execute(name, sql, [self.rng.choice((self.id(), None, "7"))])]

    def cursor(self) -> list[dict]:
        """Rows fetched in pieces, with other things between."""
        sql = self.rng.choice(("SELECT seq FROM seq_1_to_5", "SELECT 1 FROM parent WHERE id > 5", "SELECT 7"))
        name, prepare = self.prepared(sql)
        out = [prepare, {"do": "execute", "name": name, "values": [], "cursor": 1}]
        for rows in self.rng.choice(((2, 2, 2), (9,), (1, 9, 1))):
            out.append({"do": "fetch", "name": name, "rows": rows})
            out += self.hinted() if self.chance(0.3) else []
        return [*out, {"do": self.rng.choice(("reset", "close")), "name": name}]

    def long_data(self) -> list[dict]:
        sql = self.maybe_hint("INSERT INTO t (id, b) VALUES (?, ?)")
        name, prepare = self.prepared(sql)
        parts = [{"do": "longdata", "name": name, "parameter": 1, "data": self.rng.choice(("a", "", "long" * 50))}
                 for _ in range(self.rng.choice((1, 2)))]
        return [prepare, *parts, *([{"do": "reset", "name": name}] if self.chance(0.3) else []),
                self.execute(name, sql, [self.id(), "short"])]

    def statement_end(self) -> list[dict]:
        sql, values = self.write()
        sql = self.maybe_hint(sql)
        name, prepare = self.prepared(sql)
        return [prepare, self.execute(name, sql, values), {"do": self.rng.choice(("close", "reset")), "name": name},
                self.execute(name, sql, values)]

    def direct(self) -> list[dict]:
        """Prepared and executed in one, as clients do that know the id -1."""
        sql, values = self.write() if self.chance(0.7) else ("SELECT ? + 1", [self.id()])
        sql = self.maybe_hint(sql)
        name, _ = self.prepared(sql)
        return [{"do": "direct", "name": name, "sql": sql, "values": values, **self.flagged(sql)}]

    def last_id(self) -> list[dict]:
        sql = self.rng.choice(LAST_IDS)
        front = [self.text(self.hint("INSERT INTO auto (owner, v) VALUES (?, ?)"), [self.key, self.rng.randint(1, 9)])]
        if self.chance(0.3):
            name, prepare = self.prepared("SELECT LAST_INSERT_ID()")
            return [prepare, *front, self.execute(name, "LAST_INSERT_ID", [])]
        return [*(front if self.chance(0.7) else self.hinted()), self.query(sql, ids=True)]

    def rows_to_ids(self) -> list[dict]:
        """A write that uses the id that the write before it made."""
        front = self.text(self.hint("INSERT INTO auto (owner, v) VALUES (?, ?)"), [self.key, 1])
        sql = f"INSERT INTO t (id, b) VALUES ({self.id()}, LAST_INSERT_ID() > 0)"
        return [front, self.query(self.maybe_hint(sql)), *self.read()]

    def row_count(self) -> list[dict]:
        sql = "SELECT ROW_COUNT()"
        if self.chance(0.2):
            name, prepare = self.prepared(sql)
            return [prepare, *self.hinted(), self.execute(name, sql, [])]
        return [*self.hinted(), self.query(sql)]

    def warnings(self) -> list[dict]:
        return [*(self.hinted() if self.chance(0.7) else self.error()),
                self.query(self.rng.choice(("SHOW WARNINGS", "SHOW ERRORS", "SELECT @@warning_count, @@error_count",
                                            "GET DIAGNOSTICS @n = NUMBER", "SHOW COUNT(*) WARNINGS")))]

    def transaction(self) -> list[dict]:
        begin = self.rng.choice(("BEGIN", "START TRANSACTION", "START TRANSACTION READ WRITE", "SET autocommit = 0",
                                 "START TRANSACTION WITH CONSISTENT SNAPSHOT", "BEGIN WORK", "XA"))
        end = self.rng.choice(("COMMIT", "ROLLBACK", "COMMIT AND CHAIN"))
        if begin == "XA":
            return [self.query(f"XA START 'x{self.key}'"), *self.hinted(), self.query(f"XA END 'x{self.key}'"),
                    self.query(f"XA COMMIT 'x{self.key}' ONE PHASE")]
        body = self.hinted()
        if self.chance(0.4):
            body += [self.query("SAVEPOINT s"), *self.error(), self.query("ROLLBACK TO s"), *self.hinted()]
        back = [self.query("SET autocommit = 1")] if "autocommit" in begin and self.chance(0.8) else []
        return [self.query(begin), *body, self.query(end), *back]

    def block(self) -> list[dict]:
        """Transactions of one write, each in one command or in three that are sent together."""
        out: list[dict] = []
        for _ in range(self.rng.choice((1, 1, 2, 4))):
            sql, values = self.write()
            begin = self.rng.choice(("BEGIN", "BEGIN", "START TRANSACTION", "BEGIN WORK",
                                     "START TRANSACTION READ WRITE"))
            end = self.rng.choice(("COMMIT", "COMMIT", "COMMIT", "COMMIT WORK", "ROLLBACK"))
            text = self.hint(literal(sql, tuple(values)))
            if self.chance(0.5):
                out += [self.query(f"{begin}; {text}; {end}", **self.flagged(sql))]
            else:
                out += [self.query(begin, then="join"), self.query(text, then="join", **self.flagged(sql)),
                        self.query(end)]
        return out

    def opening(self) -> list[dict]:
        return [self.query(self.rng.choice(("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT a", "RELEASE SAVEPOINT a")))]

    def setting(self) -> list[dict]:
        return [self.query(self.rng.choice(SETS))]

    def reset(self) -> list[dict]:
        """COM_RESET_CONNECTION, perhaps with a SET in the same send; the database stays, SET NAMES does not."""
        behind = [self.query(self.rng.choice(SETS))] if self.chance(0.6) else []
        return [*self.hinted(), {"do": "reset_connection"}, *behind, *self.hinted()]

    def change_user(self) -> list[dict]:
        return [{"do": "change_user", "user": self.rng.choice(("conv", "writer")),
                 "database": self.rng.choice(("conv", "conv", "other"))}, *self.hinted()]

    def init_db(self) -> list[dict]:
        return [{"do": "init_db", "database": self.rng.choice(("conv", "conv", "other", "missing"))}, *self.hinted()]

    def option(self) -> list[dict]:
        """Multi-statements on (0) or off (1)."""
        return [{"do": "set_option", "option": self.rng.choice((0, 1))}, *self.several()]

    def ping(self) -> list[dict]:
        return [{"do": self.rng.choice(("ping", "ping", "statistics"))}]

    def load(self) -> list[dict]:
        table = self.rng.choice(("t", "t", f"own_{self.key}", "missing"))
        data = "".join(f"{self.id()}\t{self.rng.choice((1, 2, 3, 'wrong'))}\n" for _ in range(self.rng.randint(0, 4)))
        more = self.rng.choice(("", "IGNORE ", "REPLACE "))
        return [{"do": "load", "sql": f"LOAD DATA LOCAL INFILE 'x' {more}INTO TABLE {table} (id, a)", "data": data},
                *self.hinted()]

    def temporary(self) -> list[dict]:
        name = self.rng.choice(("t", "mine"))
        return [self.query(f"CREATE TEMPORARY TABLE {name} (id int PRIMARY KEY, a int, b text)"),
                self.query(self.hint(f"INSERT INTO {name} (id, a, b) VALUES ({self.id()}, 1, 'x')")), *self.hinted(),
                *([self.query(f"DROP TEMPORARY TABLE {name}")] if self.chance(0.6) else [])]

    def lock(self) -> list[dict]:
        own = f"own_{self.key}"
        return [self.query(f"LOCK TABLES {own} WRITE"),
                self.query(self.hint(f"INSERT INTO {own} (id, a) VALUES ({self.id()}, 1)")), *self.hinted(),
                self.query("UNLOCK TABLES"), *self.hinted()]

    def ddl(self) -> list[dict]:
        name = f"made_{self.key}"
        return [self.query(sql) for sql in (
            f"CREATE TABLE {name} (id int PRIMARY KEY, a int)", self.hint(f"INSERT INTO {name} (id, a) VALUES (1, 1)"),
            f"ALTER TABLE {name} ADD b varchar(9) DEFAULT 'new'",
            self.hint(f"INSERT INTO {name} (id, a) VALUES (2, 1) RETURNING *"), f"DROP TABLE {name}")]
