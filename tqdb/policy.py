"""What the core asks off the hot path: what a shape means, what a table is, and the proxy's own status."""

import logging
import re
import time
from functools import lru_cache

from tqdb import __version__, analysis
from tqdb.analysis import DIALECTS
from tqdb.catalog import Facts, mariadb, postgres

log = logging.getLogger("tqdb.policy")

_CATALOG = (postgres, mariadb)
_SHOW = re.compile(r"(?:\s|/\*.*?\*/)*show\s+tqdb\s+status\s*;?\s*\Z", re.IGNORECASE | re.DOTALL)
_SELECT = re.compile(r"(?:\s|/\*.*?\*/)*select\b", re.IGNORECASE | re.DOTALL)


def analyze(dialect: int, prefix: bytes, values: bytes, suffix: bytes):
    """See ``analysis.analyze``; a parser that fails in an unforeseen way means: relay."""
    try:
        return analysis.analyze(dialect, prefix, values, suffix)
    except Exception:
        log.exception("analysis of a %s statement failed; its shape is relayed", DIALECTS[dialect])
        return None


def probe_sql(dialect: int, verdict) -> bytes:
    """The catalogue query about the verdict's table."""
    return _CATALOG[dialect].probe_sql(verdict).encode()


def judge(dialect: int, verdict, rows: list[list[bytes | None]] | None) -> tuple[bool, str, int, int]:
    """``(ok, reason, id_step, byte_limit)`` from the answer to ``probe_sql``; no answer means: relay."""
    if not rows:
        facts = Facts(False, "table", why="the catalogue does not show it")
    else:
        try:
            row = [None if v is None else v.decode("utf-8", "replace") for v in rows[0]]
            facts = _CATALOG[dialect].judge(verdict, row)
        except (ValueError, TypeError):
            log.exception("unexpected catalogue answer")
            facts = Facts(False, "table", why="the catalogue's answer is not understood")
    if not facts.ok:
        _explain(DIALECTS[dialect], verdict.schema, verdict.table, facts.why)
    return facts.ok, facts.reason, facts.id_step, facts.byte_limit


@lru_cache(maxsize=1000)
def _explain(dialect: str, schema: str | None, table: str, why: str) -> None:
    """Says once per table and reason why its writes go alone."""
    name = f"{schema}.{table}" if schema else table
    log.info("%s: writes to %s go alone: %s", dialect, name, why)


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
