"""What a table is, asked of the server on a client's own connection.

Each dialect has ``probe_sql(verdict)``, one query that returns one row, and ``judge(verdict, row)``, which says
whether a multi-row INSERT into that table gives every row what it would get alone.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """``ok`` or the reason for going alone (a label of ``tqdbproxy_individual_writes_total``).

    ``id_step``: distance of consecutive insert ids, 0 without an auto-increment column; ``byte_limit``: what
    the server takes in one statement, 0 for no limit; ``why``: the same in words, for the log.
    """

    ok: bool
    reason: str = "table"
    id_step: int = 0
    byte_limit: int = 0
    why: str = ""
