"""What PostgreSQL text names: tables, functions, operators, types, settings.

Only trees of known kinds of nodes are read; whatever else stands in a text makes it unknown. What a name means is found
out on the server (``tqdb.catalog.postgres``), since it depends on its schemas.
"""

from dataclasses import dataclass, field

from pglast import ast, parse_sql
from pglast.enums import OnConflictAction
from pglast.parser import ParseError

READ, INSERTED, WRITTEN = range(3)          # what is done to a relation

SAFE_VALUE_FUNCTIONS = frozenset((
    "SVFOP_CURRENT_DATE", "SVFOP_CURRENT_TIME", "SVFOP_CURRENT_TIME_N", "SVFOP_CURRENT_TIMESTAMP",
    "SVFOP_CURRENT_TIMESTAMP_N", "SVFOP_LOCALTIME", "SVFOP_LOCALTIME_N", "SVFOP_LOCALTIMESTAMP",
    "SVFOP_LOCALTIMESTAMP_N", "SVFOP_CURRENT_ROLE", "SVFOP_CURRENT_USER", "SVFOP_USER",
    "SVFOP_SESSION_USER", "SVFOP_CURRENT_CATALOG", "SVFOP_CURRENT_SCHEMA",
))
SYSTEM_COLUMNS = frozenset(("ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"))

# An expression's nodes that a row of VALUES may have: no query in it, nothing that makes rows of its own.
VALUE_NODES = frozenset("""
    A_Const String Integer Float Boolean BitString SetToDefault ParamRef TypeCast TypeName SQLValueFunction FuncCall
    NamedArgExpr A_Expr A_ArrayExpr RowExpr CoalesceExpr MinMaxExpr BoolExpr NullTest BooleanTest CaseExpr CaseWhen
    CollateClause
""".split())

# Not there, for instance: INTO (makes a table), MERGE, WHERE CURRENT OF, TABLESAMPLE, XML, utility statements.
NODES = VALUE_NODES | frozenset("""
    RawStmt SelectStmt InsertStmt UpdateStmt DeleteStmt WithClause CommonTableExpr RangeVar Alias RangeSubselect
    RangeFunction JoinExpr ResTarget ColumnRef ColumnDef A_Star SubLink A_Indirection A_Indices SortBy WindowDef
    GroupingSet GroupingFunc LockingClause OnConflictClause InferClause IndexElem MultiAssignRef ReturningClause
    ReturningOption
""".split())

# A comparison of rows, IN, CASE, GROUP BY, DISTINCT, JOIN USING and BETWEEN look for these by name.
COMPARISONS = frozenset(("=", "<>", "<", ">", "<=", ">="))


class Unknown(Exception):
    """The text has something that is not known to be the same among others; the argument says what."""


@dataclass(frozen=True)
class Names:
    """What a text names. Pairs are ``(schema or None, name)``.

    ``relations``: ``((schema, name), access)``; ``perhaps``: names of relations that may also be those of CTEs;
    ``fields``: behind a dot, a column's or a function's of the row; ``calls``: names before a parenthesis, functions if
    there are any; ``types``, ``operators``: names alone; ``settings``: those that are read, in lower case.
    """

    relations: frozenset = frozenset()
    perhaps: frozenset = frozenset()
    functions: frozenset = frozenset()
    fields: frozenset = frozenset()
    calls: frozenset = frozenset()
    types: frozenset = frozenset()
    operators: frozenset = frozenset()
    settings: frozenset = frozenset()


@dataclass
class Collector:
    """Reads trees; ``names`` is what they name. Raises Unknown at anything that it does not know."""

    allowed: frozenset = NODES
    literal: bool = False           # whether literals are what they will be; of a shape they are any client's
    accesses: dict = field(default_factory=dict)
    ctes: set = field(default_factory=set)
    functions: set = field(default_factory=set)
    fields: set = field(default_factory=set)
    calls: set = field(default_factory=set)
    types: set = field(default_factory=set)
    operators: set = field(default_factory=set)
    settings: set = field(default_factory=set)

    def read(self, root) -> None:
        """All that stands below ``root``: a node or a tuple of nodes."""
        todo = [root]
        while todo:
            node = todo.pop()
            if isinstance(node, tuple):
                todo.extend(node)
            elif isinstance(node, ast.Node):
                kind = type(node).__name__
                if kind not in self.allowed:
                    raise Unknown(f"it has a {kind}, which is not known to be the same among others")
                special = getattr(self, "_" + kind, None)
                if special is not None:
                    special(node)
                if kind != "LockingClause":         # its relations are aliases of the query's own
                    todo.extend(v for v in map(node.__getattribute__, node.__slots__)
                                if isinstance(v, tuple | ast.Node))

    def text(self, sql: str) -> list:
        """Reads a text of SELECT, INSERT, UPDATE and DELETE statements; they are returned."""
        try:
            statements = [raw.stmt for raw in parse_sql(sql)]
        except ParseError as e:
            raise Unknown("it cannot be read") from e
        except RecursionError as e:
            raise Unknown("it is too deep") from e
        for statement in statements:
            if not isinstance(statement, ast.SelectStmt | ast.InsertStmt | ast.UpdateStmt | ast.DeleteStmt):
                raise Unknown(f"it has a {type(statement).__name__}")
        self.read(tuple(statements))
        return statements

    def names(self) -> Names:
        perhaps = {r for r, access in self.accesses.items() if access == READ and r[0] is None and r[1] in self.ctes}
        return Names(
            frozenset((r, a) for r, a in self.accesses.items() if r not in perhaps), frozenset(perhaps),
            frozenset(self.functions), frozenset(self.fields), frozenset(self.calls), frozenset(self.types),
            frozenset(self.operators), frozenset(self.settings))

    def touch(self, schema: str | None, name: str, access: int) -> None:
        relation = (schema, name)
        self.accesses[relation] = max(access, self.accesses.get(relation, READ))

    # --- by kind of node ------------------------------------------------------------------------------------------

    def _InsertStmt(self, node):
        conflict = node.onConflictClause
        update = conflict is not None and conflict.action == OnConflictAction.ONCONFLICT_UPDATE
        self.touch(node.relation.schemaname, node.relation.relname, WRITTEN if update else INSERTED)

    def _UpdateStmt(self, node):
        self.touch(node.relation.schemaname, node.relation.relname, WRITTEN)

    _DeleteStmt = _UpdateStmt

    def _RangeVar(self, node):
        if node.catalogname:
            raise Unknown("it names a database")
        self.touch(node.schemaname, node.relname, READ)

    def _CommonTableExpr(self, node):
        if node.search_clause is not None or node.cycle_clause is not None:
            raise Unknown("it has a SEARCH or CYCLE clause")
        self.ctes.add(node.ctename)

    def _ColumnDef(self, node):
        if node.constraints or node.raw_default is not None:
            raise Unknown("it defines a column")

    def _TypeName(self, node):
        if node.names:
            self.types.add(node.names[-1].sval)
        if node.pct_type and len(node.names) > 1:
            parts = [n.sval for n in node.names]
            self.touch(parts[-3] if len(parts) > 2 else None, parts[-2], READ)

    def _SQLValueFunction(self, node):
        if node.op.name not in SAFE_VALUE_FUNCTIONS:
            raise Unknown(f"it has a {node.op.name}")

    def _FuncCall(self, node):
        parts = [part.sval for part in node.funcname]
        if len(parts) > 2:
            raise Unknown("it names a database")
        schema, name = (None, *parts) if len(parts) == 1 else parts
        if name == "current_setting" and schema in (None, "pg_catalog"):
            self._setting(node)
        self.functions.add((schema, name))

    def _setting(self, node):
        if not self.literal:
            raise Unknown("it calls current_setting() of a name that another statement of its shape may not have")
        arg = node.args[0] if node.args else None
        if isinstance(arg, ast.TypeCast):
            arg = arg.arg
        if not isinstance(arg, ast.A_Const) or not isinstance(arg.val, ast.String):
            raise Unknown("it calls current_setting() of a name that is not written in it")
        self.settings.add(arg.val.sval.lower())

    def _A_Expr(self, node):
        if len(node.name) > 2:
            raise Unknown("it names an operator's database")
        self.operators.add(node.name[-1].sval)

    def _SubLink(self, node):
        self.operators.update(part.sval for part in (node.operName or ())[-1:])

    def _SortBy(self, node):
        self.operators.update(part.sval for part in (node.useOp or ())[-1:])

    def column(self, node) -> None:
        """A ColumnRef."""
        last = node.fields[-1]
        if isinstance(last, ast.String):
            if last.sval in SYSTEM_COLUMNS:
                raise Unknown(f"it reads the system column {last.sval}")
            if len(node.fields) > 1:
                self.fields.add(last.sval)

    _ColumnRef = column

    def _A_Indirection(self, node):
        self.fields.update(part.sval for part in node.indirection if isinstance(part, ast.String))

    def _IndexElem(self, node):
        if node.opclass or node.opclassopts:
            raise Unknown("it names an operator class")
