"""A small SQL, enough for what the tests say and what the proxy says for itself. ``parse`` gives statements."""

import re
from dataclasses import dataclass, field
from functools import lru_cache

from tests.model.store import Failure, Table, Transaction

TOKEN = re.compile(
    r"\s+|/\*.*?\*/|--[^\n]*(?:\n|\Z)|(?P<string>'(?:[^']|'')*')|(?P<name>[A-Za-z_][\w$]*|`[^`]*`|\"[^\"]*\")|"
    r"(?P<variable>@@?\w+)|(?P<param>\$\d+|\?)|(?P<number>\d+(?:\.\d+)?)|"
    r"(?P<sign>:=|<=|>=|<>|[(),=+*/<>;.-])", re.DOTALL)
TRANSACTION = {"begin": "begin", "start": "begin", "commit": "commit", "end": "commit", "rollback": "rollback"}
AS_THEY_ARE = ("create", "alter", "drop", "comment", "discard", "deallocate", "show", "use", "do", "kill", "call",
               "flush", "lock", "unlock", "listen", "prepare", "execute")


class Unreadable(Exception):
    """A syntax error, near ``args[0]``."""


@dataclass
class Statement:
    """``verb`` and what belongs to it; expressions are tuples whose first part names their kind."""

    verb: str
    text: str
    words: tuple[str, ...] = ()
    schema: str | None = None
    table: str = ""
    columns: list[str] = field(default_factory=list)
    rows: list[list] = field(default_factory=list)
    where: list[tuple] = field(default_factory=list)
    sets: list[tuple] = field(default_factory=list)
    items: list[tuple] = field(default_factory=list)        # what comes back: (label, expression)
    ignore: bool = False
    do_nothing: bool = False
    derived: bool = False           # it selects from a subquery of one row
    nparams: int = 0
    inner: "Statement | None" = None

    def params_of_columns(self) -> dict[int, str]:
        """Parameters that stand for a column's value as they are: number -> column."""
        pairs = [*self.where, *self.sets, *(p for row in self.rows for p in zip(self.columns, row, strict=False))]
        return {value[1]: column for column, value in pairs if value[0] == "param"}


def lex(text: str) -> list[tuple[str, str, int]]:
    """``(kind, token, where it starts)`` without space and comments."""
    tokens, at = [], 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise Unreadable(text[at:at + 10])
        if found.lastgroup:
            tokens.append((found.lastgroup, found[0], at))
        at = found.end()
    return tokens


@lru_cache(4096)
def parse(text: str) -> tuple[Statement, ...]:
    """The statements of a text, empty ones left out. They are everybody's who says the same: nobody changes them."""
    tokens = lex(text)
    parts, start = [], 0
    for i, (_, token, _) in enumerate(tokens):
        if token == ";":
            parts.append(tokens[start:i])
            start = i + 1
    parts.append(tokens[start:])
    return tuple(_Reader(text, part).statement() for part in parts if part)


class _Reader:
    def __init__(self, text: str, tokens: list):
        self.text = text
        self.tokens = tokens
        self.at = 0
        self.nparams = 0

    def peek(self, ahead: int = 0) -> str:
        at = self.at + ahead
        return self.tokens[at][1].lower() if at < len(self.tokens) else ""

    def take(self, *wanted: str) -> bool:
        """Consumes the words if they are next."""
        if all(self.peek(i) == word for i, word in enumerate(wanted)):
            self.at += len(wanted)
            return True
        return False

    def need(self, *wanted: str) -> None:
        if not self.take(*wanted):
            raise Unreadable(self.peek() or "end of input")

    def name(self) -> str:
        if self.at >= len(self.tokens) or self.tokens[self.at][0] not in ("name", "variable"):
            raise Unreadable(self.peek() or "end of input")
        self.at += 1
        return self.tokens[self.at - 1][1].strip('`"')

    def statement(self) -> Statement:
        first, last = self.tokens[0], self.tokens[-1]
        said = self.text[first[2]:last[2] + len(last[1])]
        verb = self.peek()
        s = Statement(verb, said, tuple(t[1].lower() for t in self.tokens))
        if verb in TRANSACTION:
            s.verb = TRANSACTION[verb]
            return s
        if verb in AS_THEY_ARE:
            return s
        reader = getattr(self, f"read_{verb}", None)
        if reader is None:
            raise Unreadable(verb)
        self.at = 1
        reader(s)
        if self.at < len(self.tokens):
            raise Unreadable(self.peek())
        s.nparams = self.nparams
        return s

    def read_table(self, s: Statement) -> None:
        s.table = self.name()
        if self.take("."):
            s.schema, s.table = s.table, self.name()

    def names(self) -> list[str]:
        self.need("(")
        found = [self.name()]
        while self.take(","):
            found.append(self.name())
        self.need(")")
        return found

    def read_insert(self, s: Statement) -> None:
        s.ignore = self.take("ignore")
        self.need("into")
        self.read_table(s)
        s.columns = self.names()
        self.need("values")
        while True:
            self.need("(")
            row = [self.expression()]
            while self.take(","):
                row.append(self.expression())
            self.need(")")
            if len(row) != len(s.columns):
                raise Unreadable("values")
            s.rows.append(row)
            if not self.take(","):
                break
        s.do_nothing = self.take("on", "conflict", "do", "nothing")
        self.read_returning(s)

    def read_update(self, s: Statement) -> None:
        self.read_table(s)
        self.need("set")
        while True:
            name = self.name()
            self.need("=")
            s.sets.append((name, self.expression()))
            if not self.take(","):
                break
        self.read_where(s)
        self.read_returning(s)

    def read_delete(self, s: Statement) -> None:
        self.need("from")
        self.read_table(s)
        self.read_where(s)
        self.read_returning(s)

    def read_where(self, s: Statement) -> None:
        if self.take("where"):
            while True:
                name = self.name()
                self.need("=")
                s.where.append((name, self.expression()))
                if not self.take("and"):
                    break

    def read_returning(self, s: Statement) -> None:
        if self.take("returning"):
            self.read_items(s)

    def read_items(self, s: Statement) -> None:
        while True:
            start = self.at
            if self.take("*"):
                s.items.append(("*", ("all",)))
            else:
                value = self.expression()
                label = self.name() if self.take("as") else self.text[
                    self.tokens[start][2]:self.tokens[self.at - 1][2] + len(self.tokens[self.at - 1][1])]
                s.items.append((label, value))
            if not self.take(","):
                break

    def read_select(self, s: Statement) -> None:
        self.read_items(s)
        if self.take("from"):
            if self.take("(", "select"):
                self.at += 1
                self.need(")", "as")
                self.name()
                s.derived = True
            else:
                self.read_table(s)
                self.read_where(s)

    def read_set(self, s: Statement) -> None:
        if self.take("statement"):
            while not self.take("for"):
                name = self.name()
                self.need("=")
                s.sets.append((name, self.expression()))
                self.take(",")
            said = self.tokens[self.at:]
            s.inner = _Reader(self.text, said).statement()
            self.at = len(self.tokens)
            return
        for scope in ("local", "session"):
            if self.take(scope):
                s.words = ("set", scope)
        if self.take("names"):
            s.sets.append(("names", self.setting()))
            return
        while True:
            name = self.name()
            if self.take("."):
                name += "." + self.name()
            if not self.take("=") and not self.take(":="):
                self.need("to")
            s.sets.append((name.lower(), self.setting()))
            if not self.take(","):
                break

    def setting(self) -> tuple:
        """A bare word is a value here."""
        if self.at < len(self.tokens) and self.tokens[self.at][0] == "name" and self.peek(1) != "(":
            return ("value", self.name())
        return self.expression()

    def read_reset(self, s: Statement) -> None:
        name = self.name()
        if self.take("."):
            name += "." + self.name()
        s.items.append((name.lower(), ("all",)))

    def read_copy(self, s: Statement) -> None:
        self.read_table(s)
        s.columns = self.names()
        self.need("from", "stdin")

    def expression(self) -> tuple:
        left = self.term()
        while self.peek() in ("+", "/", "-"):
            sign = self.peek()
            self.at += 1
            left = (sign, left, self.term())
        return left

    def term(self) -> tuple:
        if self.at >= len(self.tokens):
            raise Unreadable("end of input")
        kind, token, _ = self.tokens[self.at]
        self.at += 1
        if kind == "string":
            return ("value", token[1:-1].replace("''", "'"))
        if kind == "number":
            return ("value", float(token) if "." in token else int(token))
        if kind == "param":
            if token == "?":
                self.nparams += 1
                return ("param", self.nparams)
            self.nparams = max(self.nparams, int(token[1:]))
            return ("param", int(token[1:]))
        if kind == "variable":
            return ("variable", token.lower())
        if token == "-":
            return ("-", ("value", 0), self.term())
        if kind != "name":
            raise Unreadable(token)
        word = token.lower()
        if word == "null":
            return ("value", None)
        if word == "default":
            return ("default",)
        if self.take("("):
            args = []
            while not self.take(")"):
                args.append(("all",) if self.take("*") else self.expression())
                if self.take("as"):
                    self.name()
                self.take(",")
            return ("call", word, args)
        return ("column", token.strip('`"'))


class Runner:
    """Runs INSERT, UPDATE, DELETE and SELECT in a transaction for a session.

    ``call(name, arguments)`` and ``variable(name)`` are what the protocol knows besides; ``stamp`` goes with every
    row that is inserted: the settings of the session that did it, so that a row of an unlike session shows.
    """

    def __init__(self, transaction: Transaction, table: Table | None, params: list, call, variable, stamp: str):
        self.tx = transaction
        self.table = table
        self.params = params
        self.call = call
        self.variable = variable
        self.stamp = stamp
        self.first_id = 0
        self.warnings: list[Failure] = []
        self.matched = self.changed = 0

    def value(self, e: tuple, row: dict | None = None):
        kind = e[0]
        if kind == "value":
            return e[1]
        if kind == "param":
            return self.params[e[1] - 1]
        if kind == "variable":
            return self.variable(e[1])
        if kind == "call":
            return self.call(e[1], [self.value(a, row) for a in e[2] if a[0] != "all"])
        if kind == "column":
            if row is None or e[1] not in row:
                raise Failure("column", e[1])
            return row[e[1]]
        if kind == "default":
            return None
        left, right = self.number(self.value(e[1], row), "?"), self.number(self.value(e[2], row), "?")
        if left is None or right is None:
            return None
        if kind == "/":
            if right == 0:
                raise Failure("division", "")
            return left // right
        return left + right if kind == "+" else left - right

    def number(self, value, column: str):
        try:
            return None if value is None else int(value)
        except (TypeError, ValueError):
            raise Failure("value", f"{value} for {column}") from None

    def typed(self, column: str, value):
        if column not in self.table.columns:
            raise Failure("column", column)
        if self.table.columns[column] == "int":
            return self.number(value, column)
        return None if value is None else str(value)

    def insert(self, s: Statement) -> list[dict]:
        made = []
        for values in s.rows:
            row = dict.fromkeys(self.table.columns)
            for column, value in zip(s.columns, values, strict=True):
                row[column] = self.typed(column, self.value(value))
            auto = self.table.auto
            if auto is not None and row[auto] is None:
                row[auto] = self.table.next_id
                self.table.next_id += 1
                self.first_id = self.first_id or row[auto]
            elif auto is not None:
                self.table.next_id = max(self.table.next_id, row[auto] + 1)
            row["~"] = self.stamp
            try:
                self.tx.insert(self.table, row)
            except Failure as e:
                if e.kind != "unique" or not (s.ignore or s.do_nothing):
                    raise
                if s.ignore:
                    self.warnings.append(e)
                continue
            made.append(row)
        return made

    def matching(self, s: Statement) -> list[tuple]:
        wanted = [(column, self.typed(column, self.value(e))) for column, e in s.where]
        return [(key, row) for key, row in self.tx.rows(self.table).items()
                if all(row[column] == value for column, value in wanted)]

    def update(self, s: Statement) -> list[dict]:
        """The rows as they are now; ``matched`` counts also those that did not change."""
        changed = []
        for key, row in self.matching(s):
            new = {**row, **{column: self.typed(column, self.value(e, row)) for column, e in s.sets}}
            self.matched += 1
            self.tx.lock(self.table, key)
            if new != row:
                self.changed += 1
            self.tx.replace(self.table, key, new)
            changed.append(new if new != row else row)
        return changed

    def delete(self, s: Statement) -> list[dict]:
        gone = self.matching(s)
        for key, _ in gone:
            self.tx.replace(self.table, key, None)
        return [row for _, row in gone]

    def columns(self, s: Statement) -> list[tuple[str, str]]:
        """``(label, type)`` of what comes back."""
        found = []
        for label, e in s.items:
            if e[0] == "all":
                found += list(self.table.columns.items())
            elif e[0] == "column":
                if self.table is None or e[1] not in self.table.columns:
                    raise Failure("column", e[1])
                found.append((label, self.table.columns[e[1]]))
            else:
                text = e[0] in ("param", "variable") or (e[0] == "value" and isinstance(e[1], str)) or (
                    e[0] == "call" and e[1] == "current_setting")
                found.append((label, "text" if text else "int"))
        return found

    def project(self, s: Statement, rows: list[dict]) -> list[list]:
        """The items of each row."""
        return [[value for _, e in s.items for value in (
            [row[c] for c in self.table.columns] if e[0] == "all" else [self.value(e, row)])] for row in rows]

    def select(self, s: Statement) -> list[list]:
        if self.table is None:
            return self.project(s, [{}])
        rows = [row for _, row in self.matching(s)]
        if any(e[0] == "call" and e[1] == "count" for _, e in s.items):
            return [[len(rows) for _ in s.items]]
        return self.project(s, rows)
