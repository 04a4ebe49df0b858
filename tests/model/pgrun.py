"""What the model of PostgreSQL does with a statement, whichever protocol brought it."""

import json
import re
import struct

from tests.model.sql import Runner, Statement
from tests.model.store import MESSAGE, Busy, Failure, Table, Transaction

STATES = {"unique": "23505", "null": "23502", "check": "23514", "value": "22P02", "column": "42703",
          "division": "22012"}
TEXTS = {"unique": 'duplicate key value violates unique constraint "{}"',
         "null": 'null value in column "{}" violates not-null constraint', "check": 'new row violates check "{}"',
         "value": 'invalid input syntax: "{}"', "column": 'column "{}" does not exist', "division": "division by zero"}
TAGS = {"insert": "INSERT 0 {}", "update": "UPDATE {}", "delete": "DELETE {}"}
ENDS_A_BLOCK = ("commit", "rollback")
# settings that the proxy changes for itself, or that say nothing about rows
NOT_IN_STAMP = ("lock_timeout", "idle_in_transaction_session_timeout", "statement_timeout", "application_name",
                "tqdb.max_wait_ms")
# a name that the catalogue is asked about: its number, its schema or nothing, itself
_ASKED = re.compile(r"\((-?\d+),\d,(?:NULL|ARRAY\[(?:'(\w+)')?\])::pg_catalog\.name\[\],'(\w*)'")


class PgError(Exception):
    def __init__(self, code: str, text: str, severity: str = "ERROR"):
        super().__init__(code, text)
        self.code = code
        self.text = text
        self.severity = severity


class PgRunner:
    """The half of ``PgModel`` that knows SQL."""

    def refuse_aborted(self, statement: Statement) -> None:
        if self.aborted and statement.verb not in ENDS_A_BLOCK:
            raise PgError("25P02", "current transaction is aborted, commands ignored until end of transaction block")

    def check(self, statement: Statement, several: bool) -> None:
        """What is looked at before a statement runs; one of several in a Query is in an implicit block."""
        self.refuse_aborted(statement)
        self.store.heard.append((self.number, statement.text))
        code = self.store.fault(statement.text)
        if code is not None:
            raise PgError(code, "so it was told")
        if statement.verb == "discard" and statement.words[-1] == "all" and (self.block or several):
            raise PgError("25001", "DISCARD ALL cannot run inside a transaction block")

    def table_of(self, statement: Statement) -> Table | None:
        if not statement.table:
            return None
        path = [statement.schema] if statement.schema else [
            part.strip(" '\"") for part in self.settings.values.get("search_path", "public").split(",")]
        for schema in path:
            if (schema, statement.table) in self.store.tables:
                return self.store.tables[schema, statement.table]
        raise PgError("42P01", f'relation "{statement.table}" does not exist')

    def describe(self, statement: Statement) -> list[tuple[str, str]]:
        if statement.verb == "show":
            return [(statement.words[-1], "text")]
        runner = Runner(None, self.table_of(statement), [], None, None, "")
        for name in [*statement.columns, *(c for c, _ in (*statement.sets, *statement.where))]:
            if statement.table and name not in runner.table.columns:
                raise PgError("42703", TEXTS["column"].format(name))
        try:
            return runner.columns(statement) if statement.verb != "reset" else []
        except Failure as e:
            raise PgError(STATES[e.kind], TEXTS[e.kind].format(e.detail)) from None

    def fold(self, statement: Statement, params: list) -> None:
        """The planner works out what needs no table: its errors come before any row is described."""
        if statement.verb == "select" and not statement.table:
            try:
                self.runner(statement, params, None).select(statement)
            except Failure as e:
                raise PgError(STATES[e.kind], TEXTS[e.kind].format(e.detail)) from None

    def param_types(self, statement: Statement) -> list[str]:
        table = self.table_of(statement)
        known = {number: table.columns.get(name, "text")
                 for number, name in statement.params_of_columns().items()} if table else {}
        return [known.get(i + 1, "text") for i in range(statement.nparams)]

    def param(self, data: bytes, kind: str, binary: int):
        if binary and kind == "int":
            if len(data) not in (2, 4, 8):
                raise PgError("22P03", "incorrect binary data format in bind parameter")
            return int.from_bytes(data, "big", signed=True)
        text = data.decode()
        if kind == "int" and not re.fullmatch(r"\s*[-+]?\d+\s*", text):
            raise PgError("22P02", f'invalid input syntax for type integer: "{text}"')
        return int(text) if kind == "int" else text

    # --- running --------------------------------------------------------------------------------------------

    def execute(self, statement: Statement, params: list):
        """A conversation that ends with ``(command tag, rows)``."""
        verb = statement.verb
        if verb in ("insert", "update", "delete", "select"):
            return (yield from self.run(statement, params))
        if verb == "copy":
            return (yield from self.copy(statement)), []
        return getattr(self, f"do_{verb}", self.do_nothing)(statement)

    def do_nothing(self, statement: Statement):
        return statement.verb.upper(), []

    def do_begin(self, statement: Statement):
        if self.block:
            self.put_warning("25001", "there is already a transaction in progress")
        self.transaction()
        self.block = True
        return "BEGIN", []

    def do_commit(self, statement: Statement):
        if not self.block:
            self.put_warning("25P01", "there is no transaction in progress")
            return "COMMIT", []
        kept = not self.aborted
        self.end_transaction(kept)
        return "COMMIT" if kept else "ROLLBACK", []

    def do_rollback(self, statement: Statement):
        if not self.block:
            self.put_warning("25P01", "there is no transaction in progress")
        self.end_transaction(False)
        return "ROLLBACK", []

    def put_warning(self, code: str, text: str) -> None:
        self.put(b"N", b"SWARNING\0VWARNING\0C" + code.encode() + b"\0M" + text.encode() + b"\0\0")

    def do_set(self, statement: Statement):
        local = statement.words[1:2] == ("local",)
        if local and not self.block and self.tx is None:
            self.put_warning("25P01", "SET LOCAL can only be used in transaction blocks")
            return "SET", []
        self.transaction()
        for name, value in statement.sets:
            if name.startswith("no_such"):
                raise PgError("42704", f'unrecognized configuration parameter "{name}"')
            self.settings.values[name] = str(value[1])
            if local:
                self.settings.local.add(name)
        return "SET", []

    def do_reset(self, statement: Statement):
        self.transaction()
        name = statement.items[0][0]
        if name == "all":
            self.settings.values.clear()
        self.settings.values.pop(name, None)
        return "RESET", []

    def do_discard(self, statement: Statement):
        if statement.words[-1] == "sequences":
            return "DISCARD SEQUENCES", []
        self.settings.values.clear()
        self.prepared.clear()
        return "DISCARD ALL", []

    def do_deallocate(self, statement: Statement):
        name = statement.words[-1]
        if name == "all":
            self.prepared.clear()
            return "DEALLOCATE ALL", []
        if self.prepared.pop(name, None) is None:
            raise PgError("26000", f'prepared statement "{name}" does not exist')
        return "DEALLOCATE", []

    def do_show(self, statement: Statement):
        return "SHOW", [[self.setting(".".join(w for w in statement.words[1:] if w != "."))]]

    def setting(self, name: str) -> str:
        return self.settings.values.get(name, "")

    def call(self, name: str, args: list):
        if name == "current_setting":
            return self.setting(args[0])
        raise PgError("42883", f"function {name}() does not exist")

    def stamp(self) -> str:
        kept = {k: v for k, v in self.settings.values.items() if k not in NOT_IN_STAMP}
        return f"{self.user} {sorted(kept.items())}"

    def runner(self, statement: Statement, params: list, tx: Transaction | None) -> Runner:
        return Runner(tx, self.table_of(statement), params, self.call, self.setting, self.stamp())

    def run(self, statement: Statement, params: list):
        def step(tx: Transaction):
            runner = self.runner(statement, params, tx)
            rows = getattr(runner, statement.verb)(statement)
            if statement.verb == "select":
                return f"SELECT {len(rows)}", rows
            return TAGS[statement.verb].format(len(rows)), runner.project(statement, rows) if statement.items else []
        return (yield from self.locking(step))

    def locking(self, step):
        """Runs ``step(transaction)``, again whenever a lock that stopped it has become free."""
        tx = self.transaction()
        while True:
            mark = tx.mark()
            try:
                return step(tx)
            except Busy as e:
                tx.back_to(mark)
                if not tx.may_wait_for(e.holder):
                    raise PgError("40P01", "deadlock detected") from None
                if self.settings.values.get("lock_timeout", "0") != "0":
                    raise PgError("55P03", "canceling statement due to lock timeout") from None
                tx.waits_for = e.holder
                yield e.holder
                tx.waits_for = None
            except Failure as e:
                tx.back_to(mark)
                raise PgError(STATES[e.kind], TEXTS[e.kind].format(e.detail)) from None

    # --- COPY -----------------------------------------------------------------------------------------------

    def copy(self, statement: Statement):
        """Data until CopyDone; Flush and Sync are ignored meanwhile, an error ends it at once."""
        count, buffered, done = 0, b"", False
        self.table_of(statement)
        self.put(b"G", struct.pack(f"!BH{len(statement.columns)}H", 0, len(statement.columns),
                                   *([0] * len(statement.columns))))
        self.flush()
        while not done:
            kind, body = yield MESSAGE
            if kind in b"SH":
                continue
            if kind == b"f":
                raise PgError("57014", f"COPY from stdin failed: {body[:-1].decode()}")
            if kind not in b"dc":
                self.put_error(PgError("08P01", f"unexpected message type 0x{kind[0]:02X} during COPY from stdin"))
                raise PgError("08P01", "terminating connection because protocol synchronization was lost", "FATAL")
            done = kind == b"c"
            buffered += b"\n" if done and buffered else body
            *lines, buffered = buffered.split(b"\n")
            for line in lines:
                if line == b"\\.":
                    continue
                values = [None if part == "\\N" else part for part in line.decode().split("\t")]
                if len(values) != len(statement.columns):
                    raise PgError("22P04", "missing data for column")
                row = Statement("insert", "", table=statement.table, schema=statement.schema,
                                columns=statement.columns, rows=[[("value", value) for value in values]])
                yield from self.locking(lambda tx, row=row: self.runner(row, [], tx).insert(row))
                count += 1
        return f"COPY {count}"

    # --- the proxy's questions ------------------------------------------------------------------------------

    def put_likeness(self) -> None:
        """What the session is like."""
        columns = [(name, "text") for name in ("name", "setting", "description")]
        self.put_columns(columns, [])
        settings = {"DateStyle": "ISO", **self.settings.values}
        for name, value in settings.items():
            self.put_row([name, value, ""], columns, [])
        self.put(b"C", b"SELECT %d\0" % len(settings))
        own = [self.user, self.user, "2026-01-01", "{pg_catalog,public}"]
        columns = [("", "text")] * len(own)
        self.put_columns(columns, [])
        self.put_row(own, columns, [])
        self.put(b"C", b"SELECT 1\0")

    def put_facts(self, text: str) -> None:
        """The proxy's question about a table: the first of the relations; the functions named are built-in ones."""
        wanted, called = (text.partition(f" {n} AS (VALUES ")[2].partition("),\n")[0] for n in (
            "wanted(i, a, p, n)", "called(i, f, p, n)"))
        name = _ASKED.match(wanted)
        self.put_columns([("json_build_object", "text")], [])
        facts = {"version": 150000, "messages": "notice", "timeout": 0}
        facts["calls"] = [[int(i), 1000 + int(i)] for i, _, _ in _ASKED.findall(called) if i != "-1"]
        facts["functions"] = [[1000 + int(i), name, "", "i", False] for i, _, name in _ASKED.findall(called)]
        try:
            table = self.table_of(Statement("select", "", schema=name[2] or None, table=name[3]))
            facts["relations"] = [{
                "name": name[3], "kind": "r", "persistence": "p", "security": False, "rules": False,
                "partition": False, "method": "heap", "system": False, "named": True}]
            facts["triggers"] = [{"name": "x", "deferrable": False, "old": None, "new": None}] * bool(table.trigger)
        except PgError:
            facts["missing"] = [0]
        self.put_row([json.dumps(facts)], [("", "text")], [])
        self.put(b"C", b"SELECT 1\0")
