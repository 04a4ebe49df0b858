"""MariaDB: statements as sqlglot's MySQL parser sees them."""

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

# Every pattern is linear whatever the text: what repeats is possessive, and a search begins at the text's beginning or
# where nothing before could have been taken along (tests/test_bounded.py).
_NAME = r"(?:`(?:[^`]++|``)++`|[\w$]++)"
_TABLE = rf"(?P<table>{_NAME}(?:\s*+\.\s*+{_NAME})?+)"
_NAMES = re.compile(r"`(?:[^`]++|``)*+`?+|[\w$]++")
_SHAPE = re.compile(
    rf"\Ainsert\s++(?:into\s++)?+{_TABLE}\s*+(?P<columns>\([^()'\"]*+\))?+\s*+values\s*+\Z", re.IGNORECASE)
_RETURNING = re.compile(r"\A\s*+(?:returning\s++(?P<items>[^()'\"@]++))?+\s*+\Z", re.IGNORECASE)
_CALL = re.compile(r"(?<![\w$])([\w$]++)\s*+\(")
_STRING = re.compile(
    r"'(?:[^'\\]++|''|\\.)*+(?:'|(?P<open>\\?\Z))|\"(?:[^\"\\]++|\"\"|\\.)*+(?:\"|(?P<unclosed>\\?\Z))", re.DOTALL)
# a call that may be a stored function's, whatever its name
_QUALIFIED_CALL = re.compile(r"(?:`|\.\s*+[\w$]++)\s*+\(")
_WRITES = tuple(re.compile(pattern, re.IGNORECASE) for pattern in (
    rf"\A(?:insert|replace)\s++(?:ignore\s++)?+(?:into\s++)?+{_TABLE}(?:\s*+\([^()'\"]*+\))?(?=[\s(]|\Z)",
    rf"\Aupdate\s++(?:ignore\s++)?+{_TABLE}(?:\s++as\s++[\w$]++)?+\s++(?=set\b)",
    rf"\Adelete\s++(?:ignore\s++)?+from\s++{_TABLE}(?=\s++(?:where|order|limit|returning)\b|\s*+\Z)",
))
_REPLACE = re.compile(r"\Areplace\b", re.IGNORECASE)
# sqlglot reads a word or a number in quadratic time; no server knows a name, and hardly a number, as long as this
_LONG_WORD = re.compile(r"(?<![\w$.])[\w$.]{81}")
# words and aggregates that may stand before a parenthesis
_BEFORE_PARENTHESIS = frozenset("""
    values value in and or not xor select on as exists any all some when then else case using by over where set
    union except intersect from join key update partition returning having limit interval between like is div mod
    rlike regexp distinct duplicate end with count sum avg min max group_concat json_extract json_value json_unquote
    json_set json_insert json_replace json_remove json_merge_patch json_array_append json_contains json_length
    json_valid date_add date_sub adddate subdate datediff timestampdiff timestampadd last_day dayofweek dayofmonth
    dayofyear week weekday quarter hour minute second microsecond to_days from_days timediff sec_to_time time_to_sec
    locate instr position field find_in_set elt make_set strcmp regexp_replace regexp_substr regexp_instr
    bit_count greatest least signed unsigned decimal varchar exp ln log log2 log10 sin cos tan pi degrees radians
    crc32 conv bin oct format quote insert space soundex to_seconds aes_encrypt aes_decrypt compress uncompress
""".split())


def _without_strings(text: str) -> str:
    """``text`` with "''" for each string; one that does not end becomes "@", which is allowed nowhere."""
    return _STRING.sub(lambda m: "''" if m["open"] is None and m["unclosed"] is None else "@", text)


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
    literal_free = _without_strings(values)
    if _QUALIFIED_CALL.search(literal_free) or _LONG_WORD.search(prefix) or _LONG_WORD.search(literal_free):
        return None
    first, second = _values(prefix + values + suffix), _values(f"{prefix}{values},{values}{suffix}")
    if first is None or second is None or len(first) != 1 or len(second) != 2:
        return None
    row = first[0]
    functions = _functions(row, literal_free)
    if functions is None:
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
        "functions": functions,
        "returning": tail["items"] is not None,
    }


def _known_calls(text: str) -> bool:
    """Whether all that looks like a call in ``text`` (without strings) is a word or a native function."""
    return not _QUALIFIED_CALL.search(text) and all(
        name.lower() in FUNCTIONS or name.lower() in _BEFORE_PARENTHESIS for name in _CALL.findall(text))


def plain_statement(sql: str) -> dict | None:
    """Facts of a write (see ``analysis.Verdict``) that answers the same in a transaction with others, else None.

    One table is written. Variables, stored functions and what asks about the connection are left to relaying.
    """
    head = next((found for found in (pattern.match(sql) for pattern in _WRITES) if found), None)
    if head is None:
        return None
    rest = _without_strings(sql[head.end():])
    if "@" in rest or not _known_calls(rest) or _LONG_WORD.search(rest) or _LONG_WORD.search(head[0]):
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
    return {"schema": parts[0] if len(parts) == 2 else None, "table": parts[-1], "columns": None,
            "functions": frozenset(), "returning": False}


_TRIGGER_HAZARD = re.compile(
    r"@|\b(?:insert|update|delete|replace|call|load|execute|prepare|handler|lock|unlock|"
    r"last_insert_id|row_count|found_rows|connection_id|get_lock|release_lock|signal)\b", re.IGNORECASE)
_TRIGGER_WORDS = frozenset(("if", "elseif", "while", "return"))


def safe_trigger(body: str) -> bool:
    """Whether a trigger only computes with its row: it writes nowhere else and asks nothing of the connection."""
    text = _without_strings(body)
    return not _TRIGGER_HAZARD.search(text) and not _QUALIFIED_CALL.search(text) and all(
        name.lower() in FUNCTIONS or name.lower() in _BEFORE_PARENTHESIS or name.lower() in _TRIGGER_WORDS
        for name in _CALL.findall(text))


def safe_default(expression: str | None) -> bool:
    """Whether a column default, as information_schema tells it, gives each row what it would get alone."""
    if expression is None:
        return True
    text = _without_strings(expression)
    return all(name.lower() in FUNCTIONS for name in _CALL.findall(text)) and "@" not in text
