"""MariaDB: statements as sqlglot's MySQL parser sees them."""

import logging
import re

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from tqdb.analysis.mariadb_allowed import EXPRESSION_WORDS, MERGED, STATEMENT_WORDS, VALUE_WORDS
from tqdb.analysis.mariadb_read import Token, judge, parameters, read

logging.getLogger("sqlglot").setLevel(logging.CRITICAL)

# Every pattern is linear whatever the text: what repeats is possessive, and a search begins at the text's beginning or
# where nothing before could have been taken along (tests/test_bounded.py).
_NAME = r"(?:`(?:[^`]++|``)++`|[\w$]++)"
_TABLE = rf"(?P<table>{_NAME}(?:\s*+\.\s*+{_NAME})?+)"
_NAMES = re.compile(r"`(?:[^`]++|``)*+`?+|[\w$]++")
_SHAPE = re.compile(
    rf"\Ainsert\s++(?:into\s++)?+{_TABLE}\s*+(?P<columns>\([^()'\"]*+\))?+\s*+values\s*+\Z", re.IGNORECASE)
_RETURNING = re.compile(r"\A\s*+(?:returning\s++(?P<items>[^()'\"@]++))?+\s*+\Z", re.IGNORECASE)
_WRITES = tuple(re.compile(pattern, re.IGNORECASE) for pattern in (
    rf"\A(?:insert|replace)\s++(?:ignore\s++)?+(?:into\s++)?+{_TABLE}(?:\s*+\([^()'\"]*+\))?(?=[\s(]|\Z)",
    rf"\Aupdate\s++(?:ignore\s++)?+{_TABLE}(?:\s++as\s++[\w$]++)?+\s++(?=set\b)",
    rf"\Adelete\s++(?:ignore\s++)?+from\s++{_TABLE}(?=\s++(?:where|order|limit|returning)\b|\s*+\Z)",
))
_REPLACE = re.compile(r"\Areplace\b", re.IGNORECASE)
_UPDATE = re.compile(rf"\Aupdate\s++{_TABLE}\s++(?=set\b)", re.IGNORECASE)
# sqlglot reads a word or a number in quadratic time; no server knows a name, and hardly a number, as long as this
_LONG_WORD = re.compile(r"(?<![\w$.])[\w$.]{81}")
MAX_RELATIONS = 2           # tables beside the written one that a statement may read


def _readable(tokens: list[Token] | None) -> bool:
    """Whether all of a text was read, it hides nothing in comments, and sqlglot reads it in time."""
    return tokens is not None and not any(t.kind == "mark" for t in tokens) and not _LONG_WORD.search(
        "".join(("" if t.near else " ") + ("''" if t.kind == "string" else t.text) for t in tokens))


def _name(text: str) -> str:
    text = text.strip()
    return text[1:-1].replace("``", "`") if text.startswith("`") else text


def _values(sql: str):
    """The rows of the one plain INSERT in ``sql``; None if it is anything else."""
    try:
        statements = sqlglot.parse(sql, read="mysql")
    except (SqlglotError, RecursionError):
        return None
    if len(statements) != 1 or not isinstance(statements[0], exp.Insert):
        return None
    insert = statements[0]
    set_args = {k for k, v in insert.args.items() if v} - {"this", "expression", "returning"}
    if set_args or not isinstance(insert.expression, exp.Values):
        return None
    return insert.expression.expressions


def _only_values(row) -> bool:
    """Whether there is nothing but literals and calls in a row, no column and no query."""
    for node in row.walk():
        if isinstance(node, exp.Query | exp.Subquery | exp.Parameter | exp.SessionParameter
                      | exp.Placeholder | exp.Star):
            return False
        if isinstance(node, exp.Column) and (
                "." in node.sql() or node.this.args.get("quoted") or node.name.lower() not in VALUE_WORDS):
            return False
    return True


def pieces(values: bytes, nparams: int) -> tuple[tuple[bytes, int], ...] | None:
    """See ``analysis.pieces``."""
    places = parameters(values.decode()) if values.isascii() else None
    if places is None or len(places) != nparams:
        return None
    begins = [0, *(place + 1 for place in places)]
    return tuple((values[begin:end], i + 1 if i < nparams else 0)
                 for i, (begin, end) in enumerate(zip(begins, [*places, len(values)], strict=True)))


def plain_insert(prefix: str, values: str, suffix: str) -> dict | None:
    """Facts of the statement (see ``analysis.Verdict``) if its rows can be repeated there, else None.

    sqlglot accepts more than the server does and MariaDB's INSERT has many forms, so the text around the rows
    must also match the one plain form.
    """
    head, tail = _SHAPE.match(prefix), _RETURNING.match(suffix)
    if head is None or tail is None:
        return None
    row, items = read(values), read(tail["items"] or "")
    if not _readable(row) or not _readable(items) or _LONG_WORD.search(prefix):
        return None
    found = judge(row, EXPRESSION_WORDS)
    if found.why or found.where != MERGED or judge(items, EXPRESSION_WORDS, free=True).why:
        return None
    first, second = _values(prefix + values + suffix), _values(f"{prefix}{values},{values}{suffix}")
    if first is None or second is None or len(first) != 1 or len(second) != 2:
        return None
    if not _only_values(first[0]):
        return None
    parts = [_name(p) for p in _NAMES.findall(head["table"])]
    columns = None
    if head["columns"]:
        columns = tuple(_name(c) for c in head["columns"][1:-1].split(",") if c.strip())
        if not columns:
            columns = None
    return {
        "schema": parts[0] if len(parts) == 2 else None,
        "table": parts[-1],
        "columns": columns,
        "functions": frozenset(),
        "returning": tail["items"] is not None,
    }


def explain(sql: str) -> str:
    """See ``analysis.explain``."""
    head = next((found for found in (pattern.match(sql) for pattern in _WRITES) if found), None)
    if head is None:
        return "it is not a plain INSERT, REPLACE, UPDATE or DELETE of one table"
    tokens = read(sql[head.end():])
    if _LONG_WORD.search(head[0]) or not _readable(tokens):
        return "it cannot be read"
    return f"it {judge(tokens, STATEMENT_WORDS, free=True).why or 'has a form that is not known'}"


def plain_statement(sql: str) -> dict | None:
    """Facts of a write (see ``analysis.Verdict``) that answers the same in a transaction with others, else None.

    One table is written, and few others are read. Variables, stored functions and what asks about the connection are
    left to relaying.
    """
    head = next((found for found in (pattern.match(sql) for pattern in _WRITES) if found), None)
    if head is None or _LONG_WORD.search(head[0]):
        return None
    tokens = read(sql[head.end():])
    if not _readable(tokens) or judge(tokens, STATEMENT_WORDS, free=True).why:
        return None
    try:
        # sqlglot knows no REPLACE; but for that word it is an INSERT
        verb = _REPLACE.match(sql)
        statements = sqlglot.parse("insert" + sql[verb.end():] if verb else sql, read="mysql")
    except (SqlglotError, RecursionError):
        return None
    if len(statements) != 1 or not isinstance(statements[0], exp.Insert | exp.Update | exp.Delete):
        return None
    if any(isinstance(node, exp.Parameter | exp.SessionParameter) for node in statements[0].walk()):
        return None
    parts = [_name(p) for p in _NAMES.findall(head["table"])]
    own = (parts[0] if len(parts) == 2 else None, parts[-1])
    others = {(table.db or None, table.name) for table in statements[0].find_all(exp.Table)} - {own}
    if len(others) > MAX_RELATIONS:
        return None
    return {"schema": own[0], "table": own[1], "columns": None, "functions": frozenset(), "returning": False,
            "relations": tuple(sorted(others, key=lambda name: (name[0] or "", name[1]))),
            "key": _key(sql, tokens, statements[0], own[1])}


def _key(sql: str, tokens: list[Token], statement: exp.Expression, table: str) -> str | None:
    """The column in ``UPDATE table SET … WHERE column = value`` whose value alone tells the row that is changed.

    None: the statement is another; what it computes could tell one row among several from one alone; the column is
    assigned to. Names are compared without case and accents, so only ASCII ones are known to be others.
    """
    head = _UPDATE.match(sql)
    if head is None or not isinstance(statement, exp.Update):
        return None
    end = len(tokens) - (bool(tokens) and tokens[-1].key == ";")
    name, equals, value = tokens[max(end - 3, 0):end] if end >= 4 else (None,) * 3
    before = end - 4
    if end >= 6 and tokens[before].key == ".":
        if tokens[before - 1].text.lower() != table.lower():
            return None
        before -= 2
    if (name is None or tokens[before].key != "where" or name.kind not in ("word", "name") or equals.key != "="
            or not (value.key == "?" or value.kind in ("number", "string"))
            or any(t.key in ("where", "select", "order", "limit") for t in tokens[:before] + tokens[before + 1:])
            or judge(tokens, STATEMENT_WORDS, free=True).where != MERGED):
        return None
    assigned = [one.this.name if isinstance(one, exp.EQ) and isinstance(one.this, exp.Column) else ""
                for one in statement.expressions]
    if not name.text.isascii() or not assigned or not all(a and a.isascii() for a in assigned) or (
            name.text.lower() in {a.lower() for a in assigned}):
        return None
    return name.text
