"""What the core asks off the hot path: what a shape means, what a table is, what texts say of batching.

Every text of a client's goes through ``bounded``. Hooks about shapes answer ``NotImplemented`` where they mean: not
looked at just now, do not keep that; the others have an answer of their own for a text that is too long.
"""

import re
from functools import lru_cache, partial
from logging import ERROR, INFO

from tqdb import analysis, rules, status
from tqdb.analysis import DIALECTS
from tqdb.bounded import BURST_SECONDS, PACES, SHARE, Budget, Purpose, bounded
from tqdb.catalog import Ask, Facts, mariadb, postgres
from tqdb.log import event

_CATALOG = (postgres, mariadb)
MAX_STARTUP_BYTES = 10_000      # of PostgreSQL's start-up packet: the core takes no longer one
MAX_FACTS_BYTES = 65536         # of the catalogue's answer: column defaults, triggers
MAX_NAME = 128                  # characters of a table's name that the log shows
_WARM_UP_COLUMNS = 60           # of the INSERT by which parsers are measured

_parsers = Budget(BURST_SECONDS, SHARE)
_SHAPES = Purpose("shape", budget=_parsers)
_STATEMENTS = Purpose("statement", budget=_parsers)
_PIECES = Purpose("pieces", budget=_parsers)
_EXPLANATIONS = Purpose("explanation", budget=_parsers)
_FACTS = Purpose("facts", MAX_FACTS_BYTES, _parsers)
_WAITS = Purpose("session_wait")
_STARTUPS = Purpose("startup_wait", MAX_STARTUP_BYTES)
_KILLS = Purpose("killed_query")
_ROW_COUNTS = Purpose("row_count")
PURPOSES = (_SHAPES, _STATEMENTS, _PIECES, _EXPLANATIONS, _FACTS, _WAITS, _STARTUPS, _KILLS, _ROW_COUNTS,
            rules.PURPOSE, status.PURPOSE)

# Blanks and comments before a statement. What repeats is possessive in every pattern here: linear in any text.
_BEFORE = r"\A(?:\s++|/\*(?:[^*]++|\*(?!/))*+\*/)*+"


def analyze(dialect: int, prefix: bytes, values: bytes, suffix: bytes):
    """See ``analysis.analyze``; ``NotImplemented``: not now."""
    return bounded(_SHAPES, len(prefix) + len(values) + len(suffix), analysis.analyze, dialect, prefix, values, suffix)


def analyze_statement(dialect: int, sql: bytes):
    """See ``analysis.analyze_statement``; ``NotImplemented``: not now."""
    return bounded(_STATEMENTS, len(sql), analysis.analyze_statement, dialect, sql)


def pieces(dialect: int, values: bytes, nparams: int):
    """See ``analysis.pieces``; ``NotImplemented``: not now."""
    return bounded(_PIECES, len(values), analysis.pieces, dialect, values, nparams)


def explain(dialect: int, sql: bytes):
    """See ``analysis.explain``; ``NotImplemented``: not now."""
    return bounded(_EXPLANATIONS, len(sql), analysis.explain, dialect, sql)


def warm_up() -> None:
    """Analyses statements of each dialect, so that what parsers make at their first call is made before clients wait.

    How long they take tells how much a parser may be given on this machine.
    """
    prefix, values = _wide(_WARM_UP_COLUMNS)
    for dialect, pace in enumerate(PACES):
        analysis.analyze_statement(dialect, b"UPDATE t SET a = a + 1 WHERE b = 'x'")
        pace.measure(2 * pace.work(prefix) + 3 * pace.work(values),
                     partial(analysis.analyze, dialect, prefix, values, b""))


def _wide(columns: int) -> tuple[bytes, bytes]:
    """An INSERT and its row."""
    names = ", ".join(f"c{i}" for i in range(columns))
    return f"INSERT INTO t ({names}) VALUES ".encode(), b"(" + b", ".join([b"1"] * columns) + b")"


def probe_sql(dialect: int, verdict) -> bytes:
    """The first question for the catalogue about the verdict's table."""
    return _CATALOG[dialect].probe_sql(verdict).encode()


def judge(dialect: int, verdict, rows: list[list[bytes | None]] | None, state: object = None
          ) -> tuple[bool, str, bool, int, int, float, frozenset[str], str | None, str, str] | tuple[bytes, object]:
    """``(ok, reason, multi_row, id_step, byte_limit, wait_limit, settings, schema, why, key)`` from the last answer.

    Or ``(sql, state)``: the next question, and the ``state`` to be given with its answer. No answer means: relay.
    ``NotImplemented``: not now.
    """
    if rows is None or (not rows and state is None):
        why = "the catalogue does not show it" if rows is not None else "the catalogue answered with an error"
        facts = Facts(False, "table", why=why)
    else:
        size = sum(len(v) for row in rows for v in row if v is not None)
        facts = bounded(_FACTS, size, _judge, dialect, verdict, rows, state)
        if facts is NotImplemented and size <= MAX_FACTS_BYTES:
            return NotImplemented
        if facts is NotImplemented:
            facts = Facts(False, "table", why="its defaults or triggers are too long to be looked at")
    if isinstance(facts, Ask):
        return facts.sql.encode(), facts.state
    if not facts.ok:
        name = f"{verdict.schema}.{verdict.table}" if verdict.schema else verdict.table
        _explain(DIALECTS[dialect], name[:MAX_NAME], facts.why)
    return (facts.ok, facts.reason, facts.multi_row, facts.id_step, facts.byte_limit, facts.wait_limit,
            facts.settings, facts.schema, facts.why, facts.key)


def _judge(dialect: int, verdict, rows: list[list[bytes | None]], state: object) -> Facts | Ask:
    try:
        return _CATALOG[dialect].judge(
            verdict, [[None if v is None else v.decode("utf-8", "replace") for v in row] for row in rows], state)
    except (ValueError, TypeError, LookupError):
        event(ERROR, "catalogue_answer", f"the {DIALECTS[dialect]} catalogue's answer is not understood",
              protocol=DIALECTS[dialect])
        return Facts(False, "table", why="the catalogue's answer is not understood")


_WAIT = re.compile(r"\A[+-]?+(?:\d++(?:\.\d*+)?+|\.\d++)\Z", re.ASCII)
MAX_WAIT_TEXT = 32          # characters of a number that are read
_PG_SET = re.compile(
    r"\bset\s++(?:session\s++)?+tqdb\s*+\.\s*+max_wait_ms\s*+(?:=|\bto\b)\s*+(?P<value>'[^']*+'|[-+\w.]++)|"
    r"\bset_config\s*+\(\s*+'tqdb\.max_wait_ms'\s*+,\s*+(?P<config>'[^']*+')\s*+,\s*+(?:false|'f[alse]*+')\s*+\)|"
    r"\b(?P<reset>reset\s++(?:all\b|tqdb\s*+\.\s*+max_wait_ms\b)|discard\s++all\b)", re.IGNORECASE)
# an assignment counts behind the word SET of its own statement
_MY_SET = re.compile(
    r"(?P<set>\bset\b)|(?P<end>;++)|"
    r"@`?+tqdb_max_wait_ms`?+\s*+:?+=\s*+(?P<value>'[^']*+'|\"[^\"]*+\"|[-+\w.]++)", re.IGNORECASE)


def wait_value(text: str) -> float | str:
    """Milliseconds from a setting's text: -1.0 no batching, -2.0 ``auto``, -3.0 nothing said; or ``unreadable``."""
    text = text.strip().strip("'\"").strip().lower()
    if text == "auto":
        return -2.0
    if text in ("", "null", "default"):
        return -3.0
    if len(text) > MAX_WAIT_TEXT or not _WAIT.match(text):
        return "unreadable"
    return float(text) if float(text) > 0 else -1.0


def session_wait(dialect: int, sql: bytes) -> float | str | None:
    """What a statement that changes the session says of batching without hints.

    None: nothing; ``startup``: back to what the connection began with; else see ``wait_value``.
    """
    text = sql.lower()
    if not any(word in text for word in _WAIT_WORDS[dialect]):
        return None                 # nearly every SET
    found = bounded(_WAITS, len(sql), _my_wait if DIALECTS[dialect] == "mariadb" else _pg_wait, sql)
    if found is NotImplemented:
        # whatever it says of batching cannot be found out
        return "unreadable" if _WAIT_WORDS[dialect][0] in text else None
    return found


# what a text that says something of it contains; the variable's name first
_WAIT_WORDS = ((b"max_wait_ms", b"all"), (b"@tqdb_max_wait_ms", b"@`tqdb_max_wait_ms"))


def _pg_wait(sql: bytes) -> float | str | None:
    found = list(_PG_SET.finditer(sql.decode("utf-8", "replace")))
    if not found:
        return None
    last = found[-1]
    value = last["value"] or last["config"]
    return "startup" if value is None or value.lower() == "default" else wait_value(value)


def _my_wait(sql: bytes) -> float | str | None:
    last = None
    setting = False
    for found in _MY_SET.finditer(sql.decode("utf-8", "replace")):
        if found.lastgroup != "value":
            setting = found.lastgroup == "set"
        elif setting:
            last = found["value"]
    return None if last is None else wait_value(last)


_OPTION = re.compile(r"(?:-c\s*+|--)tqdb\.max[_-]wait[_-]ms=(\S++)")


def startup_wait(params: list[bytes]) -> float | None:
    """What PostgreSQL start-up parameters (name, value, …) say of batching without hints; None: nothing."""
    found = bounded(_STARTUPS, sum(map(len, params)), _startup_wait, params)
    return None if found is NotImplemented else found


def _startup_wait(params: list[bytes]) -> float | None:
    values = {params[i].decode("utf-8", "replace"): params[i + 1].decode("utf-8", "replace")
              for i in range(0, len(params) - 1, 2)}
    text = values.get("tqdb.max_wait_ms")
    found = _OPTION.findall(values.get("options", ""))
    if found:
        text = found[-1]
    if text is None:
        return None
    value = wait_value(text)
    return -1.0 if value == "unreadable" else value


_KILL = re.compile(
    _BEFORE + r"kill\s++(?:hard\s++|soft\s++)?+query\s++(\d{1,20})\s*+;?\s*+\Z", re.IGNORECASE | re.ASCII)


def killed_query(sql: bytes) -> int | None:
    """The connection id that a ``KILL QUERY`` names."""
    found = bounded(_KILLS, len(sql), lambda: _KILL.match(sql.decode("utf-8", "replace")))
    return None if found is NotImplemented or found is None else int(found[1])


_ROW_COUNT = re.compile(
    r"'(?:[^'\\]++|''|\\.)*+(?:'|\\?\Z)|\"(?:[^\"\\]++|\"\"|\\.)*+(?:\"|\\?\Z)|`[^`]*+`?+|"
    r"/\*(?:[^*]++|\*(?!/))*+(?:\*/|\Z)|--\s[^\n]*+|#[^\n]*+|(?P<call>\brow_count\s*+\(\s*+\))|(?P<parenthesis>[()])|"
    r"(?P<behind>\b(?:from|into|where|group|having|order|limit|procedure|union|except|intersect|for|lock|window|offset|"
    r"fetch)\b)", re.IGNORECASE | re.DOTALL)
# what stands around a call that is a whole item of a list of results
_ITEM_BEGINS = re.compile(r"(?:,|\A\s{0,20}select\s)\s{0,20}\Z", re.IGNORECASE)
_ITEM_ENDS = re.compile(r"\Z|[,;]|(?:from|into|where|limit|union)\b", re.IGNORECASE)
ITEM_LOOK = 40              # characters before a call in which its item has to begin


def row_count_sql(sql: bytes, rows: int) -> bytes | None:
    """The statement with what ``ROW_COUNT()`` has to say put in its place; None if it does not ask for it."""
    changed = bounded(_ROW_COUNTS, len(sql), _row_count_sql, sql, rows)
    return None if changed is NotImplemented else changed


def _row_count_sql(sql: bytes, rows: int) -> bytes | None:
    """A call that is a result's whole column keeps its name; COALESCE has type, length and flags of the function."""
    text = sql.decode("utf-8", "surrogateescape")
    depth = 0
    items = text.lstrip()[:6].lower() == "select"       # the text so far is a list of results, but for parentheses

    def put(found: re.Match) -> str:
        nonlocal depth, items
        said = found[0]
        if found.lastgroup == "parenthesis":
            depth += 1 if said == "(" else -1
        elif found.lastgroup == "behind" and depth == 0:
            items = False
        elif found.lastgroup == "call":
            value = f"COALESCE({rows}, ROW_COUNT())"
            start = max(0, found.start() - ITEM_LOOK)
            if items and depth == 0 and _ITEM_BEGINS.search(text[start:found.start()]) and (
                    _ITEM_ENDS.match(text[found.end():].lstrip())):
                return f"{value} AS `{said}`"
            return value
        return said

    changed = _ROW_COUNT.sub(put, text)
    return changed.encode("utf-8", "surrogateescape") if changed != text else None


@lru_cache(maxsize=1000)
def _explain(dialect: str, name: str, why: str) -> None:
    """Says once per table and reason why its writes go alone."""
    event(INFO, "goes_alone", f"{dialect}: writes to {name} go alone: {why}", protocol=dialect, table=name, why=why)
