"""PostgreSQL: statements as libpg_query (the server's own parser) sees them."""

import re
from dataclasses import dataclass, field

from pglast import ast, parse_sql
from pglast.enums import A_Expr_Kind, OnConflictAction, OverridingKind
from pglast.parser import ParseError
from pglast.visitors import Visitor

from tqdb.bounded import MAX_TOKENS, tokens

# Built-in functions that read no table, no sequence's past and nothing of the session that the class of
# sessions does not pin down; each row of a multi-row INSERT evaluates them as a statement of its own would.
FUNCTIONS = frozenset("""
    now clock_timestamp statement_timestamp transaction_timestamp timeofday gen_random_uuid random
    to_timestamp to_date to_number to_char make_date make_time make_timestamp make_timestamptz make_interval
    date_trunc date_part extract age timezone justify_days justify_hours
    abs ceil ceiling floor round trunc sign sqrt power mod greatest least
    lower upper initcap btrim ltrim rtrim trim substr substring replace concat concat_ws length char_length
    octet_length left right lpad rpad repeat reverse split_part translate md5 sha256 sha512 encode decode
    chr ascii hex to_hex quote_literal quote_ident quote_nullable format position strpos overlay
    coalesce nullif jsonb_build_object json_build_object jsonb_build_array json_build_array to_json to_jsonb
    array_to_json row_to_json jsonb_set jsonb_strip_nulls array_append array_cat string_to_array
    uuid_generate_v1 uuid_generate_v4 uuidv4 uuidv7 int4range int8range numrange tsrange tstzrange daterange
    point inet host text to_tsvector
""".split())

# functions of defaults, which may also draw from a sequence
DEFAULT_FUNCTIONS = FUNCTIONS | {"nextval"}

SAFE_VALUE_FUNCTIONS = frozenset((
    "SVFOP_CURRENT_DATE", "SVFOP_CURRENT_TIME", "SVFOP_CURRENT_TIME_N", "SVFOP_CURRENT_TIMESTAMP",
    "SVFOP_CURRENT_TIMESTAMP_N", "SVFOP_LOCALTIME", "SVFOP_LOCALTIME_N", "SVFOP_LOCALTIMESTAMP",
    "SVFOP_LOCALTIMESTAMP_N", "SVFOP_CURRENT_ROLE", "SVFOP_CURRENT_USER", "SVFOP_USER",
    "SVFOP_SESSION_USER", "SVFOP_CURRENT_CATALOG", "SVFOP_CURRENT_SCHEMA",
))

SYSTEM_COLUMNS = frozenset(("ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"))
MAX_NAME_BYTES = 63


class NotPlain(Exception):
    """The expression is not one that a multi-row INSERT is known to treat as a single-row one."""


@dataclass
class Names:
    """What a statement's values name and the catalogue has to confirm as built-in."""

    functions: set[str] = field(default_factory=set)
    types: set[str] = field(default_factory=set)
    operators: set[str] = field(default_factory=set)


def _expression(node, names: Names, allowed: frozenset[str]) -> None:
    """Walks a value expression; collects the names it uses or raises NotPlain."""
    match node:
        case None | ast.A_Const() | ast.SetToDefault() | ast.ParamRef():
            return
        case ast.TypeCast():
            names.types.add(node.typeName.names[-1].sval)
            _expression(node.arg, names, allowed)
        case ast.SQLValueFunction():
            if node.op.name not in SAFE_VALUE_FUNCTIONS:
                raise NotPlain
        case ast.FuncCall():
            name = [part.sval for part in node.funcname]
            if len(name) > 1 and name[0] not in ("pg_catalog", "public"):
                raise NotPlain
            if name[-1] not in allowed or node.agg_filter or node.agg_order or node.over or node.agg_star:
                raise NotPlain
            if len(name) == 1 or name[0] != "pg_catalog":
                names.functions.add(name[-1])
            for arg in node.args or ():
                _expression(arg, names, allowed)
        case ast.NamedArgExpr():
            _expression(node.arg, names, allowed)
        case ast.A_Expr():
            if node.kind not in (A_Expr_Kind.AEXPR_OP, A_Expr_Kind.AEXPR_NULLIF) or len(node.name) != 1:
                raise NotPlain
            names.operators.add(node.name[0].sval)
            _expression(node.lexpr, names, allowed)
            _expression(node.rexpr, names, allowed)
        case ast.A_ArrayExpr():
            for element in node.elements or ():
                _expression(element, names, allowed)
        case ast.RowExpr():
            for arg in node.args or ():
                _expression(arg, names, allowed)
        case ast.CoalesceExpr() | ast.MinMaxExpr():
            for arg in node.args:
                _expression(arg, names, allowed)
        case ast.BoolExpr():
            for arg in node.args:
                _expression(arg, names, allowed)
        case _:
            raise NotPlain


def _returned(target) -> None:
    """A RETURNING item must be a column of the table or ``*``."""
    if target.indirection or not isinstance(target.val, ast.ColumnRef):
        raise NotPlain
    last = target.val.fields[-1]
    if isinstance(last, ast.String) and last.sval in SYSTEM_COLUMNS:
        raise NotPlain


def _insert(sql: str, names: Names):
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
    for row in select.valuesLists:
        for value in row:
            _expression(value, names, FUNCTIONS)
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
        _returned(target)
    return insert, select.valuesLists, returning


def plain_insert(prefix: str, values: str, suffix: str) -> dict | None:
    """Facts of the statement (see ``analysis.Verdict``) if its rows can be repeated there, else None."""
    names = Names()
    try:
        insert, rows, returning = _insert(prefix + values + suffix, names)
        _, both, _ = _insert(f"{prefix}{values},{values}{suffix}", names)
    except (NotPlain, RecursionError):
        return None
    if len(rows) != 1 or len(both) != 2 or len(both[0]) != len(rows[0]):
        return None
    relation = insert.relation
    return {
        "schema": relation.schemaname,
        "table": relation.relname,
        "columns": tuple(c.name for c in insert.cols) if insert.cols else None,
        "functions": frozenset(names.functions),
        "types": frozenset(names.types),
        "operators": frozenset(names.operators),
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


# Built-in functions that see or change what belongs to a connection or a transaction, run SQL of their own, or
# read what the statements before left behind.
_DENIED = re.compile(
    r"pg_|txid_|lo_|dblink|inet_client|inet_server|set_?config|currval|lastval|setval|setseed|ts_stat|"
    r"(?:query|cursor|table|schema|database)_to_")


class _Names(Visitor):
    """What a statement names; ``plain`` turns False at anything that may answer differently among others."""

    def __init__(self):
        super().__init__()
        self.plain = True
        self.functions: set[str] = set()
        self.relations: set[tuple[str | None, str]] = set()
        self.targets: list[tuple[str | None, str]] = []
        self.ctes: set[str] = set()

    def _target(self, node):
        self.targets.append((node.relation.schemaname, node.relation.relname))

    visit_InsertStmt = visit_UpdateStmt = visit_DeleteStmt = lambda self, ancestors, node: self._target(node)

    def visit_RangeVar(self, ancestors, node):
        if node.catalogname:
            self.plain = False
        self.relations.add((node.schemaname, node.relname))

    def visit_CommonTableExpr(self, ancestors, node):
        self.ctes.add(node.ctename)

    def visit_FuncCall(self, ancestors, node):
        name = [part.sval for part in node.funcname]
        if _DENIED.match(name[-1]) or (len(name) > 1 and name[0] != "pg_catalog"):
            self.plain = False
        if len(name) == 1:
            self.functions.add(name[0])

    def visit_ColumnRef(self, ancestors, node):
        last = node.fields[-1]
        if isinstance(last, ast.String) and last.sval in SYSTEM_COLUMNS:
            self.plain = False

    def visit_IntoClause(self, ancestors, node):
        self.plain = False

    visit_CurrentOfExpr = visit_MergeStmt = visit_IntoClause


def plain_statement(sql: str) -> dict | None:
    """Facts of a write (see ``analysis.Verdict``) that answers the same in a transaction with others, else None."""
    names = _Names()
    try:
        statements = parse_sql(sql)
        if len(statements) != 1 or not isinstance(
                statements[0].stmt, ast.InsertStmt | ast.UpdateStmt | ast.DeleteStmt | ast.SelectStmt):
            return None
        names(statements)
    except (ParseError, RecursionError):
        return None
    if not names.plain or not names.targets:
        return None
    schema, table = names.targets[0]
    others = {(s, r) for s, r in names.relations if s is not None or r not in names.ctes} - {(schema, table)}
    others |= set(names.targets[1:]) - {(schema, table)}
    return {"schema": schema, "table": table, "columns": None, "functions": frozenset(names.functions),
            "returning": False, "relations": tuple(sorted(others, key=lambda r: (r[0] or "", r[1])))}


def safe_defaults(expressions: list[str]) -> bool:
    """Whether column defaults (as ``pg_get_expr`` prints them) give each row what it would get alone."""
    return sum(tokens(e.encode()) for e in expressions) <= MAX_TOKENS and all(map(_safe_default, expressions))


def _safe_default(expression: str) -> bool:
    try:
        statements = parse_sql(f"SELECT {expression}")
        targets = statements[0].stmt.targetList
        if len(statements) != 1 or len(targets) != 1:
            return False
        _expression(targets[0].val, Names(), DEFAULT_FUNCTIONS)
    except (ParseError, NotPlain, AttributeError, RecursionError):
        return False
    return True
