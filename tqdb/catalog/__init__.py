"""What a table is, asked of the server on a client's own connection.

Each dialect has ``probe_sql(verdict)``, one query that returns one row, and ``judge(verdict, row)``, which says
whether writes to that table may be batched: as one multi-row INSERT that gives every row what it would get
alone, or as the statements that they are, in one transaction. PostgreSQL's may ask on instead (``Ask``).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """``ok`` or the reason for going alone (a label of ``tqdbproxy_individual_writes_total``).

    ``multi_row``: rows may be merged; ``wait_limit``: seconds that a write may be held, 0 for no limit of the
    session's own; ``id_step``: distance of consecutive insert ids, 0 without an auto-increment column;
    ``byte_limit``: what the server takes in one statement, 0 for no limit; ``why``: the same in words;
    ``settings``: names, in lower case, of those that the write reads, which must be the same in all sessions.
    """

    ok: bool
    reason: str = "table"
    id_step: int = 0
    byte_limit: int = 0
    multi_row: bool = False
    wait_limit: float = 0.0
    why: str = ""
    settings: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Ask:
    """Another query, whose row goes to ``judge`` together with ``state``."""

    sql: str
    state: object
