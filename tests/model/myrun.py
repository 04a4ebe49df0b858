"""What the model of MariaDB does with a statement, whichever command brought it."""

import re

from tests.model.sql import Runner, Statement
from tests.model.store import Busy, Failure, Table, Transaction

ERRORS = {"unique": (1062, "23000", "Duplicate entry '{}' for key 'PRIMARY'"),
          "null": (1048, "23000", "Column '{}' cannot be null"), "check": (4025, "23000", "CONSTRAINT `{}` failed"),
          "value": (1366, "22007", "Incorrect integer value: '{}'"),
          "column": (1054, "42S22", "Unknown column '{}' in 'field list'"),
          "division": (1365, "22012", "Division by 0")}
KNOWN = {"autocommit": 1, "innodb_lock_wait_timeout": 50, "time_zone": "SYSTEM", "sql_mode": "STRICT_TRANS_TABLES",
         "names": "utf8mb4", "auto_increment_increment": 1, "last_insert_id": 0, "wait_timeout": 28800,
         "lc_time_names": "en_US", "lock_wait_timeout": 86400, "max_statement_time": 0}
NOT_IN_STAMP = ("autocommit", "innodb_lock_wait_timeout", "lock_wait_timeout", "max_statement_time", "wait_timeout",
                "last_insert_id")
IN_TRANS, AUTOCOMMIT = 1, 2
# what the proxy says in its own name
ID_STEP = re.compile(r"(?<=\d), auto_increment_increment=(\d+) \+ \d+ \* "
                     r"\(@@auto_increment_increment <> \1\)(?= FOR )")
PUT_RIGHT = re.compile(r"BEGIN NOT ATOMIC D.*END\Z|SELECT [^,]+ FROM \(SELECT 1\) AS t LIMIT 1\Z")


class MyError(Exception):
    """``whole``: the transaction is rolled back, not the statement alone."""

    def __init__(self, code: int, state: str, text: str, whole: bool = False):
        super().__init__(code, text)
        self.code = code
        self.state = state
        self.text = text
        self.whole = whole


class Answer:
    """What a statement came to: rows with their columns, or counts."""

    def __init__(self, columns=None, rows=(), affected: int = 0, insert_id: int = 0, info: str = ""):
        self.columns = columns
        self.rows = rows
        self.affected = affected
        self.insert_id = insert_id
        self.info = info


class MyRunner:
    """The half of ``MyModel`` that knows SQL."""

    def reset(self) -> None:
        """As after login; the database stays."""
        self.end_transaction(False)
        self.settings = dict(KNOWN)
        self.variables: dict[str, object] = {}
        self.last_id = 0
        self.row_count = -1
        self.warnings: list[tuple[str, int, str]] = []
        self.prepared.clear()

    def status(self) -> int:
        return (AUTOCOMMIT if self.settings["autocommit"] else 0) | (IN_TRANS if self.tx is not None else 0)

    # --- transactions -----------------------------------------------------------------------------------------

    def transaction(self) -> Transaction:
        if self.tx is None:
            self.tx = Transaction(self.store)
        return self.tx

    def end_transaction(self, keep: bool) -> None:
        if self.tx is not None:
            self.tx.end(keep)
            self.tx = None
        self.block = False

    def statement_done(self) -> None:
        if self.settings["autocommit"] and not self.block:
            self.end_transaction(True)

    def fail(self, e: MyError) -> None:
        if e.whole:
            self.end_transaction(False)
        else:
            self.statement_done()

    # --- running ----------------------------------------------------------------------------------------------

    def execute(self, statement: Statement, params: list):
        """A conversation that ends with an ``Answer``."""
        self.store.heard.append((self.number, statement.text))
        code = self.store.fault(statement.text)
        if code is not None:
            raise MyError(code, "40001" if code == 1213 else "HY000", "so it was told", code in (1213, 1047))
        if statement.inner is not None:
            kept = dict(self.settings)
            self.settings.update({name.lower(): self.constant(e) for name, e in statement.sets})
            try:
                return (yield from self.execute(statement.inner, params))
            finally:
                self.settings = kept
        verb = statement.verb
        if verb in ("insert", "update", "delete") or (verb == "select" and statement.table):
            return (yield from self.run(statement, params))
        if verb == "select":
            if statement.derived:
                self.warnings = []          # whatever uses a table empties the list
            runner = self.runner(statement, params)
            return self.after_select(Answer(self.columns(runner, statement), self.safe(runner.select, statement)))
        done = getattr(self, f"do_{verb}", None)
        if done is None:
            raise MyError(1064, "42000", f"You have an error in your SQL syntax near '{verb}'")
        return done(statement)

    def after_select(self, answer: Answer) -> Answer:
        self.row_count = -1
        return answer

    def constant(self, e: tuple):
        return self.safe(Runner(None, None, [], self.call, self.variable, "").value, e)

    def safe(self, step, *args):
        try:
            return step(*args)
        except Failure as e:
            code, state, text = ERRORS[e.kind]
            raise MyError(code, state, text.format(e.detail)) from None

    def proxys_own(self, text: str) -> Answer | None:
        """The answer to what the proxy asks for, or puts right, in front of a session's own statement."""
        if text == "VALUES (LAST_INSERT_ID())":
            return self.after_select(Answer([("LAST_INSERT_ID()", "int")], [[self.last_id]]))
        if not PUT_RIGHT.match(text):
            return None
        self.do_do(Statement("do", text))
        self.warnings = []
        self.row_count = 1 if " INTO v " in text else 0 if "SIGNAL" in text else -1
        return Answer([("v", "int")], [[0]]) if self.row_count < 0 else Answer(affected=self.row_count)

    def do_begin(self, statement: Statement) -> Answer:
        self.end_transaction(True)
        self.transaction()
        self.block = True
        return Answer()

    def do_commit(self, statement: Statement) -> Answer:
        self.end_transaction(True)
        return Answer()

    def do_rollback(self, statement: Statement) -> Answer:
        self.end_transaction(False)
        return Answer()

    def do_do(self, statement: Statement) -> Answer:
        found = re.search(r"last_insert_id\s*\(\s*(\d+)\s*\)", statement.text, re.IGNORECASE)
        if found:
            self.last_id = int(found[1])
        return Answer()

    def do_use(self, statement: Statement) -> Answer:
        self.use(statement.words[1].strip("`"))
        return Answer()

    def use(self, name: str) -> None:
        if not any(schema == name for schema, _ in self.store.tables):
            raise MyError(1049, "42000", f"Unknown database '{name}'")
        self.database = name

    def do_set(self, statement: Statement) -> Answer:
        for name, e in statement.sets:
            value = self.constant(e)
            if name.startswith("@@"):
                name = name[2:]
            if name.startswith("@"):
                self.variables[name[1:]] = value
            elif name == "last_insert_id":
                self.last_id = int(value)
            elif name not in KNOWN:
                raise MyError(1193, "HY000", f"Unknown system variable '{name}'")
            else:
                if name == "autocommit" and value and not self.settings["autocommit"]:
                    self.end_transaction(True)
                self.settings[name] = KNOWN[name] if str(value).lower() == "default" else value
        return Answer()

    def do_show(self, statement: Statement) -> Answer:
        if statement.words[1:2] == ("warnings",):
            return Answer([("Level", "text"), ("Code", "int"), ("Message", "text")],
                          [list(w) for w in self.warnings])
        return Answer([("Value", "text")], [])

    def variable(self, name: str):
        if name.startswith("@@"):
            name = name[2:].removeprefix("session.")
            if name == "in_transaction":
                return int(self.tx is not None)
            if name not in self.settings:
                raise MyError(1193, "HY000", f"Unknown system variable '{name}'")
            return self.settings[name]
        return self.variables.get(name[1:])

    def call(self, name: str, args: list):
        if name == "last_insert_id":
            if args:
                self.last_id = int(args[0] or 0)
            return self.last_id
        if name == "row_count":
            return self.row_count
        if name == "database":
            return self.database
        if name in ("cast", "coalesce"):
            return args[0]
        raise MyError(1305, "42000", f"FUNCTION {name} does not exist")

    def table_of(self, statement: Statement) -> Table | None:
        if not statement.table:
            return None
        schema = statement.schema or self.database
        if not schema:
            raise MyError(1046, "3D000", "No database selected")
        if (schema, statement.table) not in self.store.tables:
            raise MyError(1146, "42S02", f"Table '{schema}.{statement.table}' doesn't exist")
        return self.store.tables[schema, statement.table]

    def stamp(self) -> str:
        kept = {k: str(v) for k, v in self.settings.items() if v != KNOWN[k] and k not in NOT_IN_STAMP}
        return f"{self.user} {sorted(kept.items())}"

    def runner(self, statement: Statement, params: list, tx: Transaction | None = None) -> Runner:
        return Runner(tx, self.table_of(statement), params, self.call, self.variable, self.stamp())

    def columns(self, runner: Runner, statement: Statement) -> list[tuple[str, str]] | None:
        return self.safe(runner.columns, statement) if statement.items else None

    def run(self, statement: Statement, params: list):
        """INSERT, UPDATE, DELETE, SELECT of a table, again whenever a lock that stopped it has become free."""
        table = self.table_of(statement)
        tx = self.transaction()
        while True:
            mark = tx.mark()
            runner = self.runner(statement, params, tx)
            try:
                columns = runner.columns(statement) if statement.items else None
                rows = getattr(runner, statement.verb)(statement)
                break
            except Busy as e:
                tx.back_to(mark)
                if not tx.may_wait_for(e.holder):
                    raise MyError(1213, "40001", "Deadlock found when trying to get lock", True) from None
                if int(self.settings["innodb_lock_wait_timeout"]) < 50:
                    raise MyError(1205, "HY000", "Lock wait timeout exceeded") from None
                tx.waits_for = e.holder
                yield e.holder
                tx.waits_for = None
            except Failure as e:
                tx.back_to(mark)
                if table.engine != "InnoDB":
                    tx.end(True)
                    self.tx = None
                code, state, text = ERRORS[e.kind]
                raise MyError(code, state, text.format(e.detail)) from None
        self.warnings = [("Warning", ERRORS[w.kind][0], ERRORS[w.kind][2].format(w.detail)) for w in runner.warnings]
        if statement.verb == "select":
            return self.after_select(Answer(columns, rows))
        return self.written(statement, runner, rows, columns)

    def written(self, statement: Statement, runner: Runner, rows: list, columns) -> Answer:
        self.warned = len(self.warnings)
        if runner.first_id and rows:
            self.last_id = runner.first_id
        if columns is not None:
            self.row_count = -1
            return Answer(columns, runner.project(statement, rows))
        given = rows[-1][runner.table.auto] if rows and statement.verb == "insert" and runner.table.auto else 0
        insert_id = runner.first_id if rows and runner.first_id else given
        affected, info = len(rows), ""
        if statement.verb == "insert" and len(statement.rows) > 1:
            count = len(statement.rows)
            info = f"Records: {count}  Duplicates: {count - len(rows)}  Warnings: {self.warned}"
        if statement.verb == "update":
            affected = runner.changed
            info = f"Rows matched: {runner.matched}  Changed: {affected}  Warnings: 0"
        self.row_count = affected
        return Answer(affected=affected, insert_id=insert_id, info=info)

    # --- the proxy's questions ----------------------------------------------------------------------------------

    def variable_names(self) -> Answer:
        """Which variables there are."""
        return Answer([("rows", "text"), ("name", "text")], [[None, "SQL_MODE"]])

    def likeness(self) -> Answer:
        """What the session is like."""
        values = "\n".join(f"{name} {value}" for name, value in self.settings.items() if name not in NOT_IN_STAMP)
        return Answer([(name, "text") for name in "rows alone idle values database user role".split()],
                      [[None, "0", str(self.settings["wait_timeout"]), values, self.database, "u@%", None]])

    def facts(self, text: str) -> Answer:
        """The proxy's first question: about the session, and triggers of the table that its last line names."""
        found = re.search(
            r"EVENT_OBJECT_SCHEMA = (?:DATABASE\(\)|'(\w+)') AND g\.EVENT_OBJECT_TABLE = '(\w+)'\)\s*\Z", text)
        table = self.store.tables.get((found[1] or self.database, found[2]))
        body = "BEGIN SET NEW.a = NEW.a; END" if table is not None and table.trigger else None
        return Answer([(f"f{i}", "text") for i in range(12)], [[
            self.settings["sql_mode"], "1", str(self.store.max_packet), "utf8mb4", "NO_CHAIN", "OFF", "autocommit", "",
            "0.000000", "1", None if body is None else len(body),
            None if body is None else "." + body.encode().hex().upper()]])

    def definition(self, text: str) -> Answer:
        """The proxy's second question."""
        schema, _, name = text.removeprefix("SHOW CREATE TABLE ").replace("`", "").rpartition(".")
        table = self.store.tables.get((schema or self.database, name))
        if table is None:
            raise MyError(1146, "42S02", f"Table '{schema or self.database}.{name}' doesn't exist")
        columns = ", ".join(f"`{c}` int{' AUTO_INCREMENT' * (c == table.auto)}" for c in table.columns)
        return Answer([("Table", "text"), ("Create Table", "text")],
                      [[name, f"CREATE TABLE `{name}` ({columns}) ENGINE={table.engine}"]])
