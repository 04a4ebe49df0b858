"""Waiting for a condition: every test that waits has a deadline and says what did not happen."""

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], timeout: float = 30, what: object = "it"):
    """Returns the condition's first true value; fails after ``timeout`` seconds.

    ``what`` did not happen then: text, or a function that gives it. The condition is asked every 5 ms.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what() if callable(what) else what} did not happen"
        time.sleep(0.005)
    return value


def nobody_in(admin, database: str) -> None:
    """Ends all sessions of a PostgreSQL database; they are gone then. ``admin``: a psycopg connection, autocommit."""
    where = "FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
    admin.execute(f"SELECT pg_terminate_backend(pid) {where}", [database])
    wait_for(lambda: not admin.execute(f"SELECT pid {where}", [database]).fetchone(), what="the end of all sessions")
