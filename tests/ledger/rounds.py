"""Rounds: a fresh table, clients that fill it, kills on the way, and the account at the end."""

import itertools
import random
import signal
import time
from collections.abc import Callable

from tests.fix_servers import ProxyUnderTest, tqdb_command
from tests.ledger.book import Book, Tally, account
from tests.ledger.clients import Client, MyClient, PgClient
from tests.ledger.kills import Database, end_proxy
from tests.wait import wait_for
from tqdb.load.servers import MariaDB, Postgres

CLIENTS = 40
EVENTS = 8              # kills in a round; the last great one is the server's or the proxy's, the others connections'
ROUND_SECONDS = 300
CONFIG = "[limits]\ndrain_timeout = 10\n"
# a killed process loses nothing that it handed to the system; what a power cut would lose is not the subject
POSTGRES = {"fsync": "off", "full_page_writes": "off", "wal_level": "minimal", "max_wal_senders": "0"}
MARIADB = {"innodb_flush_log_at_trx_commit": "2"}


class Play:
    """One database with its proxy for all rounds; ``direct``: the clients go past the proxy, which is the oracle."""

    def __init__(self, protocol: str, seed: int, writes: int = 10_000, direct: bool = False):
        self.protocol, self.writes, self.direct = protocol, writes, direct
        self.rng = random.Random(seed)
        self.server = Postgres(**POSTGRES) if protocol == "postgres" else MariaDB(**MARIADB)
        self.database = Database(self.server)
        self.proxy: ProxyUnderTest | None = None
        self.tally = Tally()
        self.words: Book = Book()
        self.numbers = itertools.count(1)

    def __enter__(self) -> "Play":
        self.server.start()
        if self.protocol == "mariadb":
            self.database.ask("CREATE DATABASE d")
        self.start_proxy()
        return self

    def __exit__(self, *_) -> None:
        self.proxy.stop()
        self.server.stop()

    def start_proxy(self) -> None:
        self.proxy = ProxyUnderTest(command=tqdb_command(), config=CONFIG, **{self.protocol: self.server}).start()

    def port(self) -> int:
        return self.server.port if self.direct else getattr(self.proxy, f"{self.protocol}_port")

    def clients(self, table: str) -> list[Client]:
        quota = -(-self.writes // CLIENTS)
        kind = PgClient if self.protocol == "postgres" else MyClient
        made = [kind(self.port, table, i * quota, quota, self.rng.getrandbits(32)) for i in range(CLIENTS)]
        for client in made:
            if self.protocol == "mariadb":
                client.connector = self.server.connect
        return made

    def great(self, number: int) -> Callable[[], None]:
        """The server or the proxy dies, in turn."""
        def proxy_ends(how: signal.Signals) -> None:
            end_proxy(self.proxy, how)
            self.start_proxy()
        kinds = [self.database.crash]
        if not self.direct:
            kinds += [lambda: proxy_ends(signal.SIGKILL), lambda: proxy_ends(signal.SIGTERM)]
        return kinds[number % len(kinds)]

    def round(self) -> Tally:
        number = next(self.numbers)
        table = f"{'d.' if self.protocol == 'mariadb' else ''}ledger{number}"
        self.database.make(table)
        proxy, before, mixed = self.proxy, self.proxy.batched(), self.proxy.mixed()
        events = [lambda leader=i % 2 == 0: self.database.end_connection(leader) for i in range(EVENTS - 1)]
        events.insert(self.rng.randrange(EVENTS), self.great(number))
        clients = self.clients(table)
        for client in clients:
            client.start()
        try:
            for i, event in enumerate(events, 1):
                goal = self.writes * i // (EVENTS + 1)
                wait_for(lambda goal=goal: sum(c.book.told() for c in clients) >= goal, ROUND_SECONDS,
                         f"{goal} answers in round {number}")
                event()
            wait_for(lambda: not any(c.is_alive() for c in clients), ROUND_SECONDS, f"the end of round {number}")
        finally:
            for client in clients:
                client.stopped.set()
        batched = self.proxy.batched() - (before if self.proxy is proxy else 0)
        mixed = self.proxy.mixed() - (mixed if self.proxy is proxy else 0)
        assert "Traceback" not in self.proxy.log(), self.proxy.log()
        book = Book()
        for client in clients:
            book.add(client.book)
            assert not client.stuck, f"round {number}: a client waited for an answer for ever"
        tally = account(book, self.database.stored(table))
        tally.batched, tally.mixed = batched, mixed
        self.database.ask(f"DROP TABLE {table}")
        self.words.words.update(book.words)
        self.words.odd += book.odd
        self.tally.add(tally)
        return tally

    def rounds(self, count: int, show: Callable[[str], None] = lambda text: None) -> Tally:
        for _ in range(count):
            start = time.monotonic()
            tally = self.round()
            show(f"{self.protocol} round {self.tally.rounds}: {tally}; {time.monotonic() - start:.1f} s")
        show(f"{self.protocol}: errors told {dict(self.words.words.most_common(12))} {self.words.odd[:5] or ''}")
        show(f"{self.protocol}, all: {self.tally}")
        return self.tally
