"""What the core asks off the hot path: what a shape means, what a table is, and the proxy's own status."""

import logging
import re
import time
from functools import lru_cache
from logging import ERROR, INFO

from tqdb import __version__, analysis
from tqdb.analysis import DIALECTS
from tqdb.catalog import Facts, mariadb, postgres
from tqdb.log import event

log = logging.getLogger("tqdb.policy")

_CATALOG = (postgres, mariadb)
_SHOW = re.compile(r"(?:\s|/\*.*?\*/)*show\s+tqdb\s+status\s*;?\s*\Z", re.IGNORECASE | re.DOTALL)
_SELECT = re.compile(r"(?:\s|/\*.*?\*/)*select\b", re.IGNORECASE | re.DOTALL)


def _analysis_failed(dialect: int, error: Exception) -> None:
    """Without the error's own words, which may quote the statement."""
    frame = error.__traceback__
    while frame.tb_next is not None:
        frame = frame.tb_next
    where = f"{frame.tb_frame.f_code.co_name}, line {frame.tb_lineno}"
    event(ERROR, "analysis_failed", f"analysis of a {DIALECTS[dialect]} statement failed ({type(error).__name__} in "
          f"{where}); its shape is relayed", protocol=DIALECTS[dialect], error=type(error).__name__, where=where)


def analyze(dialect: int, prefix: bytes, values: bytes, suffix: bytes):
    """See ``analysis.analyze``; a parser that fails in an unforeseen way means: relay."""
    try:
        return analysis.analyze(dialect, prefix, values, suffix)
    except Exception as e:
        _analysis_failed(dialect, e)
        return None


def analyze_statement(dialect: int, sql: bytes):
    """See ``analysis.analyze_statement``; a parser that fails in an unforeseen way means: relay."""
    try:
        return analysis.analyze_statement(dialect, sql)
    except Exception as e:
        _analysis_failed(dialect, e)
        return None


pieces = analysis.pieces


def warm_up() -> None:
    """Analyses a statement of each dialect: what parsers make at their first call is made before clients wait."""
    for dialect in range(len(DIALECTS)):
        analyze(dialect, b"INSERT INTO t (a, b) VALUES ", b"(1, 'x')", b"")
        analyze_statement(dialect, b"UPDATE t SET a = a + 1 WHERE b = 'x'")


def probe_sql(dialect: int, verdict) -> bytes:
    """The catalogue query about the verdict's table."""
    return _CATALOG[dialect].probe_sql(verdict).encode()


def judge(dialect: int, verdict, rows: list[list[bytes | None]] | None
          ) -> tuple[bool, str, bool, int, int, float]:
    """``(ok, reason, multi_row, id_step, byte_limit, wait_limit)`` from the answer to ``probe_sql``.

    No answer means: relay.
    """
    if not rows:
        why = "the catalogue does not show it" if rows is not None else "the catalogue answered with an error"
        facts = Facts(False, "table", why=why)
    else:
        try:
            row = [None if v is None else v.decode("utf-8", "replace") for v in rows[0]]
            facts = _CATALOG[dialect].judge(verdict, row)
        except (ValueError, TypeError):
            log.exception("unexpected catalogue answer")
            facts = Facts(False, "table", why="the catalogue's answer is not understood")
    if not facts.ok:
        _explain(DIALECTS[dialect], verdict.schema, verdict.table, facts.why)
    return facts.ok, facts.reason, facts.multi_row, facts.id_step, facts.byte_limit, facts.wait_limit


_WAIT = re.compile(r"[+-]?\d*\.?\d+\Z|[+-]?\d+\.\Z")
_PG_SET = re.compile(
    r"\bset\s+(?:session\s+)?tqdb\s*\.\s*max_wait_ms\s*(?:=|\bto\b)\s*(?P<value>'[^']*'|[-+\w.]+)|"
    r"\bset_config\s*\(\s*'tqdb\.max_wait_ms'\s*,\s*(?P<config>'[^']*')\s*,\s*(?:false|'f[alse]*')\s*\)|"
    r"\b(?P<reset>reset\s+(?:all\b|tqdb\s*\.\s*max_wait_ms\b)|discard\s+all\b)", re.IGNORECASE)
_MY_SET = re.compile(
    r"\bset\b[^;]*?@`?tqdb_max_wait_ms`?\s*:?=\s*(?P<value>'[^']*'|\"[^\"]*\"|[-+\w.]+)", re.IGNORECASE)


def wait_value(text: str) -> float | str:
    """Milliseconds from a setting's text: -1.0 for no batching, -2.0 for ``auto``, or ``unreadable``."""
    text = text.strip().strip("'\"").strip().lower()
    if text == "auto":
        return -2.0
    if text in ("", "null", "default"):
        return -1.0
    if not _WAIT.match(text):
        return "unreadable"
    return float(text) if float(text) > 0 else -1.0


def session_wait(dialect: int, sql: bytes) -> float | str | None:
    """What a statement that changes the session says of batching without hints.

    None: nothing; ``startup``: back to what the connection began with; else see ``wait_value``.
    """
    text = sql.decode("utf-8", "replace")
    found = list((_MY_SET if DIALECTS[dialect] == "mariadb" else _PG_SET).finditer(text))
    if not found:
        return None
    last = found[-1]
    if last.groupdict().get("reset"):
        return "startup"
    value = last["value"] or last["config"]
    if DIALECTS[dialect] == "postgres" and value.lower() == "default":
        return "startup"
    return wait_value(value)


def startup_wait(params: list[bytes]) -> float | None:
    """What PostgreSQL start-up parameters (name, value, …) say of batching without hints; None: nothing."""
    values = {params[i].decode("utf-8", "replace"): params[i + 1].decode("utf-8", "replace")
              for i in range(0, len(params) - 1, 2)}
    text = values.get("tqdb.max_wait_ms")
    found = re.findall(r"(?:-c\s*|--)tqdb\.max[_-]wait[_-]ms=(\S+)", values.get("options", ""))
    if found:
        text = found[-1]
    if text is None:
        return None
    value = wait_value(text)
    return -1.0 if value == "unreadable" else value


_KILL = re.compile(r"(?:\s|/\*.*?\*/)*kill\s+(?:hard\s+|soft\s+)?query\s+(\d+)\s*;?\s*\Z",
                   re.IGNORECASE | re.DOTALL)


def killed_query(sql: bytes) -> int | None:
    """The connection id that a ``KILL QUERY`` names."""
    found = _KILL.match(sql.decode("utf-8", "replace"))
    return int(found[1]) if found else None


_ROW_COUNT = re.compile(
    r"'(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\"\"|\\.)*\"|`[^`]*`|/\*.*?\*/|--\s[^\n]*|#[^\n]*|\brow_count\s*\(\s*\)",
    re.IGNORECASE | re.DOTALL)
_ONLY_ROW_COUNT = re.compile(r"\s*select\s+(row_count\s*\(\s*\))\s*;?\s*\Z", re.IGNORECASE)


def row_count_sql(sql: bytes, rows: int) -> bytes | None:
    """The statement with what ``ROW_COUNT()`` has to say put in its place; None if it does not ask for it."""
    text = sql.decode("utf-8", "surrogateescape")
    value = f"CAST({rows} AS SIGNED)"
    only = _ONLY_ROW_COUNT.match(text)
    if only:
        changed = f"SELECT {value} AS `{only[1]}`"
    else:
        changed = _ROW_COUNT.sub(lambda m: value if m[0][:3].lower() == "row" else m[0], text)
    return changed.encode("utf-8", "surrogateescape") if changed != text else None


@lru_cache(maxsize=1000)
def _explain(dialect: str, schema: str | None, table: str, why: str) -> None:
    """Says once per table and reason why its writes go alone."""
    name = f"{schema}.{table}" if schema else table
    event(INFO, "goes_alone", f"{dialect}: writes to {name} go alone: {why}", protocol=dialect, table=name, why=why)


def status_rows(engine, started: float, session) -> list[tuple[str, str]]:
    """The rows of ``SHOW TQDB STATUS`` for a session."""
    totals = engine.stats.totals()
    batched = sum(totals["batched"].values())
    operations = sum(totals["backend_writes"].values())
    writes = batched + sum(totals["individual"].values())
    return [
        ("Shard", session.backend),
        ("Backend", "primary" if session.server is not None else "none"),
        ("Last_batch_size", str(session.last_batch_size)),
        ("Last_batch_reason", session.last_reason),
        ("Version", __version__),
        ("Uptime_seconds", str(int(time.monotonic() - started))),
        ("Batches_total", str(engine.stats.batches)),
        ("Batched_writes_total", str(batched)),
        ("Aggregation_factor", f"{writes / operations:.2f}" if operations else "0.00"),
    ]


def status_sql(dialect: int, sql: bytes, rows: list[tuple[str, str]]) -> bytes | None:
    """The statement that makes the backend answer a status query with ``rows``; None if ``sql`` is none.

    The backend forms the answer, so that it is right in every protocol, format and transaction state.
    """
    text = sql.decode("utf-8", "replace")
    if DIALECTS[dialect] == "mariadb":
        if not _SHOW.match(text):
            return None
        selects = [f"SELECT {mariadb.text(n)} AS variable_name, {mariadb.text(v)} AS value" for n, v in rows]
        return " UNION ALL ".join(selects).encode()
    values = ",".join(f"({postgres.quote(n)}::text,{postgres.quote(v)}::text)" for n, v in rows)
    if _SHOW.match(text):
        return f"SELECT * FROM (VALUES {values}) AS tqdb_status(variable_name, value)".encode()
    if _SELECT.match(text) and "pg_tqdb_status" in text.lower():
        return f"WITH pg_tqdb_status(variable_name, value) AS (VALUES {values}) ".encode() + sql
    return None
