"""What a table is, asked of the server on a client's own connection.

Each dialect has ``probe_sql(verdict)``, the first question, and ``judge(verdict, rows, state)``, which says from the
answer's rows whether writes to that table may be batched: as one multi-row INSERT that gives every row what it would
get alone, or as the statements that they are, in one transaction. Or it answers with the next question.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ask:
    """The next question, and the ``state`` that ``judge`` is to be given with its answer (None with the first's)."""

    sql: str
    state: object


@dataclass(frozen=True)
class Facts:
    """``ok`` or the reason for going alone (a label of ``tqdbproxy_individual_writes_total``).

    ``multi_row``: rows may be merged; ``wait_limit``: seconds that a write may be held, 0 for no limit of the
    session's own; ``id_step``: distance of consecutive insert ids, 0 without an auto-increment column;
    ``byte_limit``: what the server takes in one statement, 0 for no limit; ``why``: the same in words;
    ``settings``: names, in lower case, of those that the write reads, which must be the same in all sessions;
    ``schema``: where PostgreSQL has found the table, None: not told; ``key``: the kind of literal by
    which the verdict's ``key`` names one row at most, ``number`` or ``string``; "": it does not, or a row's change may
    do more than that.
    """

    ok: bool
    reason: str = "table"
    id_step: int = 0
    byte_limit: int = 0
    multi_row: bool = False
    wait_limit: float = 0.0
    why: str = ""
    settings: frozenset[str] = frozenset()
    schema: str | None = None
    key: str = ""
