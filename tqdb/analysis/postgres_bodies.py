"""What the bodies of PostgreSQL functions name: SQL, and PL/pgSQL as libpg_query reads it.

Only statements of known kinds are read: no EXECUTE, whose text is made at run time, no CALL and no transaction control.
"""

import re

from pglast import parse_plpgsql
from pglast.parser import ParseError, scan

from tqdb.analysis.postgres_names import READ, Collector, Names, Unknown
from tqdb.bounded import POSTGRES_PACE

_EXPRESSIONS = (2,)             # RawParseMode: RAW_PARSE_PLPGSQL_EXPR …
_ASSIGNMENTS = (3, 4, 5)        # … RAW_PARSE_PLPGSQL_ASSIGN1 to 3

# What a body may have. Not there: dynexecute, dynfors (text made at run time), open, fetch, close, forc (cursors, whose
# names the transaction shares), call, commit, rollback.
_KINDS = frozenset("""
    function var rec recfield row type expr arrayelem
    stmt_block stmt_assign stmt_if if_elsif stmt_case case_when stmt_loop stmt_while stmt_fori stmt_fors stmt_foreach_a
    stmt_exit stmt_return stmt_return_next stmt_return_query stmt_raise raise_option stmt_assert stmt_execsql
    stmt_perform stmt_getdiag diag_item exception_block exception condition
""".split())

# Errors that come of values and of rows alone. A batch waits for locks for a short while only and shares its
# transaction's deadlocks: a body that catches those, as OTHERS does, would do something else than directly.
_CAUGHT = frozenset("""
    unique_violation foreign_key_violation not_null_violation check_violation exclusion_violation
    integrity_constraint_violation restrict_violation data_exception division_by_zero numeric_value_out_of_range
    invalid_text_representation invalid_datetime_format datetime_field_overflow string_data_right_truncation
    null_value_not_allowed array_subscript_error invalid_parameter_value no_data_found too_many_rows
    raise_exception case_not_found cardinality_violation
    23505 23503 23502 23514 23P01 23000 23001 22012 22003 22P02 22007 22008 22001 P0001 P0002 P0003 P0004 20000 21000
""".split())

# PG_CONTEXT and its like tell how the function was reached, which a batch may change.
_DIAGNOSTICS = frozenset(("ROW_COUNT", "RETURNED_SQLSTATE", "MESSAGE_TEXT", "PG_EXCEPTION_DETAIL",
                          "PG_EXCEPTION_HINT", "COLUMN_NAME", "CONSTRAINT_NAME", "PG_DATATYPE_NAME", "TABLE_NAME",
                          "SCHEMA_NAME"))

_ROW_TYPE = re.compile(
    r'\A((?:"[^"]++"|[^".%\s]++)(?:\.(?:"[^"]++"|[^".%\s]++)){0,3}+)\s*+%\s*+(row)?+type\b', re.IGNORECASE)

_PART = re.compile(r'"[^"]++"|[^".]++')


def sql_body(source: str) -> Names:
    """The names of a function of SQL; raises Unknown."""
    _bound(source)
    collector = Collector(literal=True)
    collector.text(source)
    _source(source, collector)
    return collector.names()


def plpgsql_body(definition: str, source: str) -> Names:
    """The names of a PL/pgSQL function: ``definition`` is its CREATE FUNCTION, ``source`` its body. Raises Unknown."""
    _bound(definition)
    try:
        parsed = parse_plpgsql(definition)
    except (ParseError, ValueError) as e:
        raise Unknown("its body cannot be read") from e
    except RecursionError as e:
        raise Unknown("its body is too deep") from e
    collector = Collector(literal=True)
    _walk(parsed, collector)
    _source(source, collector)
    return collector.names()


def _bound(source: str) -> None:
    if not POSTGRES_PACE.takes(source.encode()):
        raise Unknown("its body is too long")


def _walk(root, collector: Collector) -> None:
    todo = [root]
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            todo.extend(node)
        elif isinstance(node, dict):
            for name, value in node.items():
                if name.startswith("PLpgSQL_"):
                    _known(name.removeprefix("PLpgSQL_"), value, collector)
                if name != "PLpgSQL_expr" and isinstance(value, dict | list):
                    todo.append(value)


def _known(kind: str, value: dict, collector: Collector) -> None:
    if kind not in _KINDS:
        raise Unknown(f"its body has a statement {kind.removeprefix('stmt_')}")
    if kind == "expr":
        _expression(value["query"], value.get("parseMode", 0), collector)
    elif kind == "type":
        _type(value.get("typname", ""), collector)
    elif kind == "stmt_return_query" and "dynquery" in value:
        raise Unknown("its body has a statement return_query execute")
    elif kind == "condition" and value.get("condname", "") not in _CAUGHT:
        raise Unknown(f"its body catches {value.get('condname', 'errors').upper()}, which may be the batch's own")
    elif kind == "diag_item" and value.get("kind") not in _DIAGNOSTICS:
        raise Unknown(f"its body reads {value.get('kind')}")
    elif kind == "var" and ("cursor_explicit_expr" in value or value.get("datatype", {}).get(
            "PLpgSQL_type", {}).get("typname", "").rpartition(".")[2].strip('"') == "refcursor"):
        raise Unknown("its body has a cursor")


def _expression(query: str, mode: int, collector: Collector) -> None:
    if mode in _EXPRESSIONS:
        collector.text("SELECT " + query)
    elif mode in _ASSIGNMENTS:
        at, end = _assignment(query)
        collector.text("SELECT " + query[:at])
        collector.text("SELECT " + query[end:])
    elif mode == 0:
        collector.text(query)
    else:
        raise Unknown("its body has an expression of an unknown kind")


def _assignment(query: str) -> tuple[int, int]:
    """Where the first ``:=`` or ``=`` outside brackets begins and ends."""
    depth = 0
    for token in scan(query):
        if token.name in ("ASCII_91", "ASCII_40"):
            depth += 1
        elif token.name in ("ASCII_93", "ASCII_41"):
            depth -= 1
        elif depth == 0 and token.name in ("COLON_EQUALS", "ASCII_61"):
            return token.start, token.end + 1
    raise Unknown("its body has an assignment that cannot be read")


def _type(name: str, collector: Collector) -> None:
    """A variable's type: its name as text, perhaps a table's or a column's."""
    found = _ROW_TYPE.match(name)
    if found is None:
        return                      # its words are among those of the source
    parts = [p[1:-1] if p.startswith('"') else p.lower() for p in _PART.findall(found[1])]
    if found[2] is None:
        parts.pop()                 # a column's, or a variable's
    if parts:
        collector.touch(parts[-2] if len(parts) > 1 else None, parts[-1], READ)


def _source(source: str, collector: Collector) -> None:
    """Words of the text that may name types, or functions where a parenthesis follows: the parsers' trees leave some
    types out, and should they leave out a call, it is found here."""
    try:
        words = scan(source)
    except ParseError as e:
        raise Unknown("its body cannot be read") from e
    last = None
    for token in words:
        if token.name == "ASCII_40" and last is not None:
            collector.calls.add(last)
        last = None
        if token.name == "IDENT" or token.kind != "NO_KEYWORD":
            text = source[token.start:token.end + 1]
            last = text[1:-1].replace('""', '"') if text.startswith('"') else text.lower()
            collector.types.add(last)
