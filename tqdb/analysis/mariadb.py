"""MariaDB: plain inserts as sqlglot's MySQL parser sees them."""

import logging
import re

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

logging.getLogger("sqlglot").setLevel(logging.CRITICAL)

# Built-in functions that read no table and nothing that the statement before left behind. Native functions win
# over stored ones of the same name, so a name tells which function runs.
FUNCTIONS = frozenset("""
    now current_timestamp localtime localtimestamp sysdate curdate current_date curtime current_time
    utc_timestamp utc_date utc_time unix_timestamp from_unixtime str_to_date date_format timestamp
    uuid sys_guid uuid_short rand abs ceil ceiling floor round truncate sign sqrt pow power mod
    greatest least lower lcase upper ucase trim ltrim rtrim substr substring replace concat concat_ws length
    char_length character_length octet_length left right lpad rpad repeat reverse md5 sha sha1 sha2 hex unhex
    to_base64 from_base64 coalesce ifnull nullif if json_object json_array json_quote json_compact
    inet_aton inet6_aton inet_ntoa inet6_ntoa char ascii ord crc32 date time year month day
    convert cast binary point st_geomfromtext st_pointfromtext nextval
""".split())

_SHAPE = re.compile(
    r"insert\s+(?:into\s+)?(?P<table>(?:`(?:[^`]|``)+`|[\w$]+)(?:\s*\.\s*(?:`(?:[^`]|``)+`|[\w$]+))?)\s*"
    r"(?P<columns>\((?:[^()'\"]*)\))?\s*values\s*\Z", re.IGNORECASE)
_RETURNING = re.compile(r"\s*(?:returning\s+(?P<items>[^()'\"@]+))?\s*\Z", re.IGNORECASE)
_CALL = re.compile(r"([\w$]+)\s*\(")


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


_WORDS = frozenset(("default", "current_timestamp", "current_date", "current_time", "localtime",
                    "localtimestamp", "utc_timestamp", "utc_date", "utc_time"))


def _functions(row, text: str) -> frozenset[str] | None:
    """Names of the functions called in a row; None if there is anything but literals and those allowed."""
    for node in row.walk():
        if isinstance(node, exp.Query | exp.Subquery | exp.Parameter | exp.SessionParameter
                      | exp.Placeholder | exp.Star):
            return None
        if isinstance(node, exp.Column) and (
                "." in node.sql() or node.this.args.get("quoted") or node.name.lower() not in _WORDS):
            return None
    names = frozenset(name.lower() for name in _CALL.findall(text))
    return names if names <= FUNCTIONS else None


def plain_insert(prefix: str, values: str, suffix: str) -> dict | None:
    """Facts of the statement (see ``analysis.Verdict``) if its rows can be repeated there, else None.

    sqlglot accepts more than the server does and MariaDB's INSERT has many forms, so the text around the rows
    must also match the one plain form.
    """
    head, tail = _SHAPE.match(prefix), _RETURNING.match(suffix)
    if head is None or tail is None:
        return None
    first, second = _values(prefix + values + suffix), _values(f"{prefix}{values},{values}{suffix}")
    if first is None or second is None or len(first) != 1 or len(second) != 2:
        return None
    row = first[0]
    literal_free = re.sub(r"'(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\"\"|\\.)*\"", "''", values, flags=re.DOTALL)
    functions = _functions(row, literal_free)
    if functions is None:
        return None
    parts = [_name(p) for p in re.findall(r"`(?:[^`]|``)+`|[\w$]+", head["table"])]
    columns = None
    if head["columns"]:
        columns = tuple(_name(c) for c in head["columns"][1:-1].split(",") if c.strip())
        if not columns:
            columns = None
    return {
        "schema": parts[0] if len(parts) == 2 else None,
        "table": parts[-1],
        "columns": columns,
        "functions": functions,
        "returning": tail["items"] is not None,
        "nvalues": len(row.expressions) if isinstance(row, exp.Tuple) else 1,
    }


def safe_default(expression: str | None) -> bool:
    """Whether a column default, as information_schema tells it, gives each row what it would get alone."""
    if expression is None:
        return True
    text = re.sub(r"'(?:[^'\\]|''|\\.)*'", "''", expression, flags=re.DOTALL)
    return all(name.lower() in FUNCTIONS for name in _CALL.findall(text)) and "@" not in text
