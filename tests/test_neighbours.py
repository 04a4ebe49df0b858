"""PgBouncer behind tqdb and before it, and HAProxy before the servers: as ``docs/operations.md`` has them."""

from types import SimpleNamespace

import psycopg
import pytest

from tests.crowd import together
from tests.wait import wait_for
from tqdb.load.rivals import HAProxy, PgBouncer
from tqdb.load.servers import Postgres, free_port

SESSIONS = 16
HINT = "/* max_wait_ms:20 */ "

pytestmark = pytest.mark.skipif(not (PgBouncer.available("postgres") and HAProxy.available("postgres")),
                                reason="scripts/ensure-system tools installs pgbouncer and haproxy")


def come(port: int) -> psycopg.Connection:
    return psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=postgres", autocommit=True,
                           cursor_factory=psycopg.ClientCursor, prepare_threshold=None)


def target(port: int) -> SimpleNamespace:
    return SimpleNamespace(host="127.0.0.1", port=port, user="postgres", password="", address=f"127.0.0.1:{port}",
                           connect=come)


def write(port: int, table: str) -> None:
    """From many sessions, each with an answer of its own."""
    sessions = [come(port) for _ in range(SESSIONS)]

    def one(i: int) -> None:
        for n in range(10):
            k = 100 * i + n
            cursor = sessions[i].execute(f"{HINT}INSERT INTO {table} VALUES ({k}) RETURNING a")
            assert cursor.fetchall() == [(k,)]

    together(SESSIONS, one)
    for session in sessions:
        session.close()


def test_pgbouncer_behind(start_proxy, postgres, pg, table):
    """In session mode; the monitor's connection goes through it, too."""
    pg(through=False).execute(f"CREATE TABLE {table} (a int PRIMARY KEY)")
    with PgBouncer(target(postgres.port)) as bouncer:
        proxy = start_proxy(postgres=bouncer.start(), config="target = read-write\nmonitor_user = postgres\n")
        wait_for(lambda: [b["role"] for b in proxy.stats()["backends"]] == ["primary"])
        write(proxy.postgres_port, table)
        assert proxy.batched() > 5 * SESSIONS
    assert pg(through=False).execute(f"SELECT count(*) FROM {table}").fetchone() == (10 * SESSIONS,)


def test_pgbouncer_before(start_proxy, postgres, pg, table):
    """In transaction mode: its connections are the sessions that share batches."""
    pg(through=False).execute(f"CREATE TABLE {table} (a int PRIMARY KEY)")
    proxy = start_proxy(postgres=postgres)
    bouncer = PgBouncer(target(proxy.postgres_port))
    bouncer.pool_mode, bouncer.pool_size = "transaction", SESSIONS // 2
    with bouncer:
        write(bouncer.start().port, table)
        assert proxy.batched() > 5 * SESSIONS
    assert pg(through=False).execute(f"SELECT count(*) FROM {table}").fetchone() == (10 * SESSIONS,)


def test_haproxy_before_the_servers(start_proxy):
    """One address, whose server goes: the next one behind it takes over."""
    with Postgres() as first, Postgres() as second:
        first.start()
        second.start()
        balancer = HAProxy(target(free_port()))
        balancer.servers = (f"  server a {first.address} check inter 200\n"
                            f"  server b {second.address} check inter 200 backup")
        with balancer:
            proxy = start_proxy(postgres=balancer.start(), config="target = read-write\nmonitor_user = postgres\n")

            def port() -> int:
                with come(proxy.postgres_port) as session:
                    return session.execute("SELECT inet_server_port()").fetchone()[0]

            assert port() == first.port
            first.kill()

            def moved() -> bool:
                try:
                    return port() == second.port
                except psycopg.OperationalError:
                    return False

            wait_for(moved)
            wait_for(lambda: [b["role"] for b in proxy.stats()["backends"]] == ["primary"])
