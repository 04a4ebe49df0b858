"""Servers die under load: every acknowledged write is there once, every other at most once."""

import threading
import time

import psycopg
import pymysql
import pytest

from tqdb.load.servers import MariaDB, Postgres

WRITERS = 30
KILLS = 3
BETWEEN_KILLS = 400         # acknowledged writes


class Ledger:
    """What was acknowledged, what ended with an unknown outcome, and what was refused."""

    def __init__(self):
        self.lock = threading.Lock()
        self.acknowledged: set[int] = set()
        self.unknown: set[int] = set()
        self.serial = 0
        self.stop = threading.Event()

    def key(self) -> int:
        with self.lock:
            self.serial += 1
            return self.serial

    def write(self, connect, error) -> None:
        """Writes keys one after the other, connecting anew after each lost connection."""
        execute = close = None
        while not self.stop.is_set():
            try:
                if execute is None:
                    execute, close = connect()
            except error:
                time.sleep(0.02)        # the server is being started again
                continue
            key = self.key()
            try:
                execute(f"/* max_wait_ms:5 */ INSERT INTO ledger (k) VALUES ({key})")
                with self.lock:
                    self.acknowledged.add(key)
            except error:
                with self.lock:
                    self.unknown.add(key)
                close()
                execute = None
        if execute is not None:
            close()


def play(server, proxy, connect, error) -> Ledger:
    """Kills the server ``KILLS`` times, each time after so many more writes, some of them in batches."""
    ledger = Ledger()
    threads = [threading.Thread(target=ledger.write, args=(connect, error)) for _ in range(WRITERS)]
    for t in threads:
        t.start()
    try:
        for _ in range(KILLS):
            goal = len(ledger.acknowledged) + BETWEEN_KILLS
            batched = proxy.stats()["batched_writes_total"]
            deadline = time.monotonic() + 60
            while len(ledger.acknowledged) < goal or proxy.stats()["batched_writes_total"] == batched:
                assert time.monotonic() < deadline, "writes do not get through"
                time.sleep(0.01)
            server.kill()
            server.start()
    finally:
        ledger.stop.set()
        for t in threads:
            t.join(60)
    assert not any(t.is_alive() for t in threads)
    return ledger


def account(ledger: Ledger, stored: list[int]) -> None:
    assert len(stored) == len(set(stored)), "a write is there twice"
    assert ledger.acknowledged <= set(stored), "an acknowledged write is lost"
    assert set(stored) <= ledger.acknowledged | ledger.unknown
    assert ledger.unknown


def test_postgres(start_proxy):
    with Postgres() as server:
        server.start()
        proxy = start_proxy(postgres=server)
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("CREATE TABLE ledger (k bigint)")

        def connect():
            connection = psycopg.connect(server.dsn(proxy.postgres_port), autocommit=True,
                                         cursor_factory=psycopg.ClientCursor)
            return connection.execute, connection.close

        ledger = play(server, proxy, connect, psycopg.Error)
        with psycopg.connect(server.dsn()) as admin:
            account(ledger, [k for k, in admin.execute("SELECT k FROM ledger")])


def test_mariadb(start_proxy):
    with MariaDB() as server:
        server.start()
        proxy = start_proxy(mariadb=server)
        with server.connect() as admin, admin.cursor() as cursor:
            cursor.execute("CREATE DATABASE d")
            cursor.execute("CREATE TABLE d.ledger (k bigint)")

        def connect():
            connection = server.connect(proxy.mariadb_port, database="d")
            return connection.cursor().execute, connection._force_close

        ledger = play(server, proxy, connect, pymysql.Error)
        with server.connect(database="d") as admin, admin.cursor() as cursor:
            cursor.execute("SELECT k FROM ledger")
            account(ledger, [k for k, in cursor.fetchall()])


@pytest.mark.parametrize("protocol", ["postgres", "mariadb"])
def test_the_proxy_dies(start_proxy, postgres, mariadb, pg, my, table, protocol):
    """kill -9 of the proxy: what it had acknowledged is there, nothing is there twice."""
    ledger = Ledger()
    proxy = start_proxy(postgres=postgres, mariadb=mariadb)
    sql = f"CREATE TABLE ledger{table} (k bigint)"
    if protocol == "postgres":
        pg(through=False).execute(sql)
        error = psycopg.Error

        def connect():
            c = psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True,
                                cursor_factory=psycopg.ClientCursor)
            return lambda s: c.execute(s.replace("ledger", f"ledger{table}")), c.close
    else:
        my(through=False).cursor().execute(sql)
        error = pymysql.Error

        def connect():
            c = mariadb.connect(proxy.mariadb_port, database="d")
            return lambda s: c.cursor().execute(s.replace("ledger", f"ledger{table}")), c._force_close

    threads = [threading.Thread(target=ledger.write, args=(connect, error)) for _ in range(WRITERS)]
    for t in threads:
        t.start()
    deadline = time.monotonic() + 60
    while len(ledger.acknowledged) < BETWEEN_KILLS:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    proxy.process.kill()
    proxy.process.wait()
    ledger.stop.set()
    for t in threads:
        t.join(60)
    query = f"SELECT k FROM ledger{table}"
    if protocol == "postgres":
        # a backend may still be about to commit what it was sent
        admin = pg(through=False)
        busy = (f"SELECT 1 FROM pg_stat_activity WHERE query LIKE '%ledger{table}%' AND state <> 'idle' "
                "AND pid <> pg_backend_pid()")
        while admin.execute(busy).fetchone():
            assert time.monotonic() < deadline
        stored = [k for k, in admin.execute(query)]
    else:
        cursor = my(through=False).cursor()
        cursor.execute(query)
        stored = [k for k, in cursor.fetchall()]
    account(ledger, stored)
