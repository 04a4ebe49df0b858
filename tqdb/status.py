"""Answers of the proxy's own, by SQL: ``SHOW TQDB STATUS`` and its like.

A view is a name, its columns, and what gives its rows: texts. The backend forms the answer, from a statement over
constants, so that it is right in every protocol, format and transaction state.
"""

import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from tqdb import __version__
from tqdb.analysis import DIALECTS
from tqdb.bounded import Purpose, bounded
from tqdb.catalog.mariadb import text
from tqdb.catalog.postgres_probe import quote

STATUS_SECONDS = 0.05       # how old the figures of all sessions may be
SHARE = 0.02                # of the time that may go into making the same rows again and again
MAX_KEPT = 100              # answers that are shown again for that
MORE_ROWS = 10              # for which a statement that MariaDB prepares has room beyond those there are

PURPOSE = Purpose("status")
Rows = tuple[tuple[str, ...], ...]

# Blanks and comments before a statement. What repeats is possessive: linear in any text.
_BEFORE = r"\A(?:\s++|/\*(?:[^*]++|\*(?!/))*+\*/)*+"
_SHOW = re.compile(_BEFORE + r"show\s++tqdb\s++([a-z]++)\s*+;?\s*+\Z", re.IGNORECASE)
_SELECT = re.compile(_BEFORE + r"select\b", re.IGNORECASE)


class View(NamedTuple):
    """What ``SHOW TQDB NAME`` gives; ``rows(session)`` answers at most ``limit`` tuples of texts.

    ``shared``: they are the same for all sessions of a protocol that logged in as the same user.
    """

    columns: tuple[str, ...]
    rows: Callable[[object], Rows]
    limit: int
    shared: bool = False


class Views:
    """What can be asked for; ``views`` by name in lower case.

    Rows that are shared and take long to make are shown for the longer: whoever asks without end holds up nobody.
    """

    def __init__(self, engine, started: float, views: dict[str, View], clock=time.perf_counter):
        self.engine = engine
        self.started = started
        self.clock = clock
        self.kept: dict[tuple[str, int, str], tuple[float, Rows]] = {}      # until when they are shown again
        self.views = {"status": View(("variable_name", "value"), self._status, 20), **views}
        self.read = 0.0
        self.totals: tuple[tuple[str, str], ...] = ()

    def sql(self, dialect: int, sql: bytes, session) -> bytes | None:
        """The statement that makes the backend answer a question of ``session``'s; None if ``sql`` is none."""
        wanted = bounded(PURPOSE, len(sql), _wanted, dialect, sql)
        if wanted is NotImplemented or wanted is None:
            return None
        if wanted == "pg_tqdb_status":
            view = self.views["status"]
            return _table(wanted, view.columns, view.rows(session)) + sql
        if wanted not in self.views:
            return None
        return _answer(dialect, wanted, self.views[wanted].columns, self.rows(wanted, session))

    def rows(self, name: str, session) -> Rows:
        """What a view shows to ``session``."""
        view = self.views[name]
        if not view.shared:
            return view.rows(session)[:view.limit]
        key = name, session.dialect, session.user
        began = self.clock()
        until, rows = self.kept.get(key, (began, ()))
        if began >= until:
            rows = view.rows(session)[:view.limit]
            now = self.clock()
            self.kept.pop(key, None)
            if len(self.kept) == MAX_KEPT:
                del self.kept[next(iter(self.kept))]
            self.kept[key] = now + (now - began) / SHARE, rows
        return rows

    def variables(self, sql: bytes, session) -> tuple[bytes, bytes] | None:
        """For a question that MariaDB prepares: a SET of the figures, and the SELECT that shows what was set last.

        None if ``sql`` is no such question. Rows that come to be later are shown as far as there is room for them.
        """
        wanted = bounded(PURPOSE, len(sql), _wanted, DIALECTS.index("mariadb"), sql)
        if wanted is NotImplemented or wanted not in self.views:
            return None
        view = self.views[wanted]
        return _variables(wanted, view.columns, self.rows(wanted, session), view.limit)

    def _status(self, session) -> Rows:
        now = time.monotonic()
        if now - self.read > STATUS_SECONDS or not self.totals:
            self.read = now
            totals = self.engine.stats.totals()
            batched = sum(totals["batched"].values())
            operations = sum(totals["backend_writes"].values())
            writes = batched + sum(totals["individual"].values())
            self.totals = (
                ("Version", __version__),
                ("Uptime_seconds", str(int(now - self.started))),
                ("Batches_total", str(self.engine.stats.batches)),
                ("Batched_writes_total", str(batched)),
                ("Aggregation_factor", f"{writes / operations:.2f}" if operations else "0.00"))
        return (
            ("Shard", session.backend),
            ("Backend", session.route.role if session.server is not None and session.route is not None else "none"),
            ("Last_batch_size", str(session.last_batch_size)),
            ("Last_batch_reason", session.last_reason),
            *self.totals)


@lru_cache(maxsize=100)
def _answer(dialect: int, name: str, columns: tuple[str, ...], rows: Rows) -> bytes:
    """The SELECT that gives ``rows``."""
    if DIALECTS[dialect] == "postgres":
        table = f"tqdb_{name}"
        return _table(table, columns, rows) + f"SELECT * FROM {table}".encode()
    if not rows:
        return ("SELECT " + ", ".join(f"'' AS `{c}`" for c in columns) + " FROM DUAL WHERE FALSE").encode()
    return " UNION ALL ".join(
        "SELECT " + ", ".join(f"{text(v)} AS `{c}`" for c, v in zip(columns, row, strict=True))
        for row in rows).encode()


@lru_cache(maxsize=100)
def _variables(view: str, columns: tuple[str, ...], rows: Rows, limit: int) -> tuple[bytes, bytes]:
    """See ``Views.variables``."""
    # one character set for all, whatever the connection's is
    values = [f"@tqdb_{view}_rows = {len(rows)}"]
    values += [f"@tqdb_{view}_{r}_{c} = CONVERT({text(value)} USING utf8mb4)"
               for r, row in enumerate(rows) for c, value in enumerate(row)]
    selects = [
        "SELECT " + ", ".join(f"CAST(@tqdb_{view}_{r}_{c} AS CHAR(2000)) AS `{name}`"
                              for c, name in enumerate(columns))
        + f" FROM DUAL WHERE {r} < @tqdb_{view}_rows"
        for r in range(min(len(rows) + MORE_ROWS, limit))]
    return f"SET {', '.join(values)}".encode(), " UNION ALL ".join(selects).encode()


def _ascii(value: str) -> str:
    """What no client encoding can misread, and PostgreSQL takes into a text: others are written as ``\\u1234``."""
    return value.replace("\0", "\\x00").encode("ascii", "backslashreplace").decode()


def _table(name: str, columns: tuple[str, ...], rows: Rows) -> bytes:
    """For PostgreSQL: what makes ``rows`` a table of the statement behind it."""
    values = ",".join("(" + ",".join(f"{quote(_ascii(value))}::text" for value in row) + ")" for row in rows)
    if not rows:
        values = "(" + ",".join("NULL::text" for _ in columns) + ") LIMIT 0"
    names = ", ".join(f'"{column}"' for column in columns)
    return f"WITH {name}({names}) AS (VALUES {values}) ".encode()


def _wanted(dialect: int, sql: bytes) -> str | None:
    """The view that ``sql`` asks for, ``pg_tqdb_status`` for a SELECT from it, or None."""
    said = sql.decode("utf-8", "replace")
    found = _SHOW.match(said)
    if found is not None:
        return found[1].lower()
    if DIALECTS[dialect] == "postgres" and _SELECT.match(said) and "pg_tqdb_status" in said.lower():
        return "pg_tqdb_status"
    return None
