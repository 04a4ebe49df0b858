"""What runs of seeded plans share: seeds, throwaway servers, runs that last for a module, and making failures small."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from tqdb.load.servers import MariaDB, Postgres


def server(protocol: str):
    # nothing here looks at what a crash leaves, and more plans are played without waiting for disks
    return Postgres(fsync="off") if protocol == "postgres" else MariaDB(innodb_flush_log_at_trx_commit="0")


FIRST_SEED = 1


def first_seed() -> int:
    """``TQDB_SEED``, or one that is always the same: what a commit is tested by must not change with the hour.

    The long runs, each with its own command, are what looks further.
    """
    seed = int(os.environ.get("TQDB_SEED") or FIRST_SEED)
    print(f"seed {seed}")
    return seed


@contextmanager
def runs_of(run: type, request) -> Iterator[Callable]:
    """A function that gives the ``run`` of a protocol, made with its server when first asked for."""
    made = {}

    def get(protocol: str):
        if protocol not in made:
            made[protocol] = run(protocol, request.getfixturevalue(protocol))
        return made[protocol]

    yield get
    for one in made.values():
        one.close()


def shrink(plan, fails: Callable[..., bool], seconds: float, makers: Iterable[Callable[..., Iterator]]):
    """The smallest plan found within ``seconds``; each of ``makers`` gives smaller ones than the plan it is given.

    ``fails`` may try several times: not every failure is certain.
    """
    deadline = time.monotonic() + seconds
    smaller = True
    while smaller and time.monotonic() < deadline:
        smaller = False
        for make in makers:
            tried = 0
            while time.monotonic() < deadline:
                # what was tried before is not tried again: a success leaves the same place to go on from
                candidate = next((c for i, c in enumerate(make(plan)) if i >= tried), None)
                if candidate is None:
                    break
                if fails(candidate):
                    plan, smaller = candidate, True
                else:
                    tried += 1
    return plan
