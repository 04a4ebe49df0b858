"""Rounds: writers before a proxy that knows both servers; one goes, the other is promoted; the account at the end."""

import itertools
import random
import time
from collections.abc import Callable

from tests.failover.pairs import MONITOR, PASSWORD, PgPair
from tests.fix_servers import ProxyUnderTest, tqdb_command
from tests.ledger.book import Book, Tally, account
from tests.ledger.clients import PgClient
from tests.wait import wait_for

WRITERS = 16
BEFORE = 600            # acknowledged writes before the primary goes …
AFTER = 20              # … and of each writer after the promotion
QUOTA = 1_000_000       # keys a client may write, which is more than it can
WAITS = 60
UNMONITORED = "target = read-write\n"
MONITORED = f"{UNMONITORED}monitor_user = {MONITOR}\nmonitor_password = {PASSWORD}\n"
# How the primary goes: killed with all its processes; told to end; not at all, so that for a moment there are two.
KINDS = ("crash", "shut down", "left behind")


class Play:
    """A pair with its proxy, whose file nobody edits."""

    def __init__(self, seed: int, config: str = MONITORED):
        self.rng = random.Random(seed)
        self.pair = PgPair()
        self.config = config
        self.numbers = itertools.count(1)
        self.tally = Tally()
        self.longest = 0.0      # seconds from a promotion until each writer had a write acknowledged

    def __enter__(self) -> "Play":
        self.pair.__enter__()
        self.proxy = ProxyUnderTest(postgres=self.pair, command=tqdb_command(),
                                    config=self.config).start()
        return self

    def __exit__(self, *_) -> None:
        self.proxy.stop()
        self.pair.__exit__()

    def round(self, kind: str) -> tuple[Tally, float]:
        pair = self.pair
        table = f"failover{next(self.numbers)}"
        pair.primary.make(table)
        batched, mixed = self.proxy.batched(), self.proxy.mixed()
        clients = [PgClient(lambda: self.proxy.postgres_port, table, i * QUOTA, QUOTA, self.rng.getrandbits(32))
                   for i in range(WRITERS)]
        for client in clients:
            client.start()
        try:
            wait_for(lambda: sum(len(c.book.acknowledged) for c in clients) >= BEFORE, WAITS, f"{BEFORE} writes")
            if kind == "crash":
                pair.primary.crash()
            elif kind == "shut down":
                pair.primary.shut_down()
            pair.follower.promote()
            promoted = time.monotonic()
            # what was acknowledged until now may have been on its way
            goals = [(c, len(c.book.acknowledged) + 1) for c in clients]
            wait_for(lambda: all(len(c.book.acknowledged) >= goal for c, goal in goals), WAITS, "each writer's write")
            seconds = time.monotonic() - promoted
            goals = [(c, len(c.book.acknowledged) + AFTER) for c in clients]
            wait_for(lambda: all(len(c.book.acknowledged) >= goal for c, goal in goals), WAITS,
                     f"{AFTER} writes of each writer")
        finally:
            for client in clients:
                client.stopped.set()
        wait_for(lambda: not any(c.is_alive() for c in clients), WAITS, "the end of the writers")
        pair.swap()
        book = Book()
        for client in clients:
            book.add(client.book)
            assert not client.stuck, "a writer waited for an answer for ever"
        tally = account(book, pair.primary.stored(table))
        tally.batched, tally.mixed = self.proxy.batched() - batched, self.proxy.mixed() - mixed
        self.tally.add(tally)
        self.longest = max(self.longest, seconds)
        pair.join()
        return tally, seconds

    def rounds(self, count: int, show: Callable[[str], None] = lambda text: None, kinds=KINDS) -> Tally:
        for i in range(count):
            kind = kinds[i % len(kinds)]
            tally, seconds = self.round(kind)
            show(f"round {i + 1}, primary {kind}: writes again {seconds:.2f} s after the promotion; {tally}")
        show(f"all: longest {self.longest:.2f} s; {self.tally}")
        assert "Traceback" not in self.proxy.log(), self.proxy.log()
        return self.tally
