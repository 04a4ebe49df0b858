"""PostgreSQL: statements as libpg_query (the server's own parser) sees them."""

import re

from pglast import ast, parse_sql
from pglast.enums import A_Expr_Kind, BoolExprType, OnConflictAction, OverridingKind
from pglast.parser import ParseError

from tqdb.analysis.postgres_names import COMPARISONS, INSERTED, READ, VALUE_NODES, Collector, Unknown

MAX_NAME_BYTES = 63


class NotPlain(Exception):
    """The statement is not one that a multi-row INSERT is known to treat as a single-row one."""


def _returned(target, named: Collector) -> None:
    """A RETURNING item must be a column of the table, or a function of its row that looks like one, or ``*``."""
    if target.indirection or not isinstance(target.val, ast.ColumnRef):
        raise NotPlain
    named.column(target.val)


def _insert(sql: str, values: Collector):
    """The one InsertStmt of ``sql`` and its rows; NotPlain if it is anything but a plain one."""
    try:
        statements = parse_sql(sql)
    except ParseError as e:
        raise NotPlain from e
    if len(statements) != 1 or not isinstance(statements[0].stmt, ast.InsertStmt):
        raise NotPlain
    insert = statements[0].stmt
    select = insert.selectStmt
    conflict = insert.onConflictClause
    if (insert.withClause is not None or not isinstance(select, ast.SelectStmt)
            or insert.override != OverridingKind.OVERRIDING_NOT_SET
            or (conflict is not None and conflict.action != OnConflictAction.ONCONFLICT_NONE)
            or not select.valuesLists or select.sortClause or select.limitCount or select.limitOffset
            or select.withClause or select.lockingClause or insert.relation.catalogname):
        raise NotPlain
    values.read(select.valuesLists)
    for column in insert.cols or ():
        if column.indirection or len(column.name.encode()) > MAX_NAME_BYTES:
            raise NotPlain
    # pglast 8 keeps RETURNING in a clause of its own, as PostgreSQL 18 does
    returning = getattr(insert, "returningList", None)
    clause = getattr(insert, "returningClause", None)
    if clause is not None:
        if clause.options:
            raise NotPlain
        returning = clause.exprs
    for target in returning or ():
        _returned(target, values)
    return insert, select.valuesLists, returning


def plain_insert(prefix: str, values: str, suffix: str) -> dict | None:
    """Facts of the statement (see ``analysis.Verdict``) if its rows can be repeated there, else None."""
    named = Collector(VALUE_NODES)
    try:
        insert, rows, returning = _insert(prefix + values + suffix, named)
        _, both, _ = _insert(f"{prefix}{values},{values}{suffix}", Collector(VALUE_NODES))
    except (NotPlain, Unknown, RecursionError):
        return None
    if len(rows) != 1 or len(both) != 2 or len(both[0]) != len(rows[0]):
        return None
    relation = insert.relation
    named.touch(relation.schemaname, relation.relname, INSERTED)
    return {
        "schema": relation.schemaname,
        "table": relation.relname,
        "columns": tuple(c.name for c in insert.cols) if insert.cols else None,
        "functions": frozenset(),
        "names": named.names(),
        "returning": bool(returning),
    }


# A token of a value tuple in which a "$" may stand, or that is a parameter; ``end``: a string that does not end, or
# has a backslash. Linear, as every pattern here (tests/test_bounded.py).
_TOKEN = re.compile(rb"'(?:[^'\\]++|'')*+(?:'|(?P<end>))|\"(?:[^\"]++|\"\")*+(?:\"|(?P<unclosed>))|"
                    rb"\$(?P<number>\d{1,5})(?!\d)|[A-Za-z_\x80-\xff][\w$\x80-\xff]*+|(?P<other>\$|--|/\*)")


def pieces(values: bytes, nparams: int) -> tuple[tuple[bytes, int], ...] | None:
    """See ``analysis.pieces``."""
    found, used, at = [], set(), 0
    for token in _TOKEN.finditer(values):
        if token.lastgroup not in (None, "number"):
            return None
        if token.lastgroup == "number":
            number = int(token["number"])
            found.append((values[at:token.start()], number))
            used.add(number)
            at = token.end()
    found.append((values[at:], 0))
    return tuple(found) if used == set(range(1, nparams + 1)) else None


_SETTING = frozenset(("+", "-", "*"))


def _compared(node) -> list:
    """Constants that columns are compared with, in a condition of such comparisons joined by AND."""
    found, todo = [], [node]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.BoolExpr) and node.boolop == BoolExprType.AND_EXPR:
            todo.extend(node.args)
        elif node is not None:
            found.append(_operand(node, COMPARISONS))
    return found


def _operand(node, operators: frozenset[str]):
    """The constant of ``column operator constant``."""
    if (not isinstance(node, ast.A_Expr) or node.kind != A_Expr_Kind.AEXPR_OP or len(node.name) != 1
            or node.name[0].sval not in operators or not isinstance(node.lexpr, ast.ColumnRef)
            or not isinstance(node.rexpr, ast.A_Const)):
        raise NotPlain
    return node.rexpr


def _assigned(target) -> list:
    """Constants of ``column = constant``, or of a column plus, minus or times a number."""
    value = target.val
    if target.indirection or isinstance(value, ast.MultiAssignRef):
        raise NotPlain
    if isinstance(value, ast.A_Const):
        return [value]
    if isinstance(value, ast.ColumnRef) or (isinstance(value, ast.FuncCall) and not value.args):
        return []
    number = _operand(value, _SETTING)
    if not isinstance(number.val, ast.Integer | ast.Float):
        raise NotPlain
    return [number]


def _parameters(statement) -> int:
    """The number of its constants if the server gives a parameter in the place of each the same type and meaning.

    That holds where a constant is assigned to a column, or is the right side of a column's operator (PostgreSQL manual
    10.2 to 10.4: a string is of unknown type, as a parameter is whose type is not told). Which types are then found is
    looked at when the server has told them.
    """
    update = isinstance(statement, ast.UpdateStmt)
    if not update and not isinstance(statement, ast.DeleteStmt):
        return 0
    if (statement.withClause or getattr(statement, "returningList", None) or getattr(statement, "returningClause", None)
            or (statement.fromClause if update else statement.usingClause)):
        return 0
    try:
        assigned = [found for target in statement.targetList for found in _assigned(target)] if update else []
        return len(assigned + _compared(statement.whereClause))
    except NotPlain:
        return 0


def explain(sql: str) -> str:
    """See ``analysis.explain``."""
    named = Collector()
    try:
        statements = named.text(sql)
    except Unknown as e:
        return str(e)
    except RecursionError:
        return "it is too deep"
    return "it is more than one statement" if len(statements) != 1 else "it writes to no table that is named in it"


def plain_statement(sql: str) -> dict | None:
    """Facts of a write (see ``analysis.Verdict``) that answers the same in a transaction with others, else None."""
    named = Collector()
    try:
        statements = named.text(sql)
        if len(statements) != 1:
            return None
    except (Unknown, RecursionError):
        return None
    names = named.names()
    written = sorted((r for r, access in names.relations if access != READ), key=lambda r: (r[0] or "", r[1]))
    if not written:
        return None
    schema, table = written[0]
    return {"schema": schema, "table": table, "columns": None, "functions": frozenset(), "names": names,
            "returning": False, "literals": _parameters(statements[0])}
