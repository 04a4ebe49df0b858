"""PostgreSQL's protocol 3.2, of version 18, and what older servers say to a client that asks for it."""

import socket
import threading

import psycopg
import pytest
from tqdb._core import PgSession

from tests.crowd import together
from tests.raw import RawPostgres
from tests.sansio import Hooks
from tests.wait import wait_for
from tests.wire import PG_LOGIN, READY, pg, pg_cancel, pg_split, pg_startup

HINT = "/* max_wait_ms:100 file:versions.py line:1 */ "
VERSIONS = [(3, 0), (3, 2), (3, 9)]
SLEEP = "SELECT pg_sleep(60.1)"
LATEST = 18             # the server's version from which 3.2 is spoken
LONGEST = 256           # bytes of a cancel request's secret
INSERTED = pg(b"C", b"INSERT 0 1\0") + READY
ids = [f"{major}.{minor}" for major, minor in VERSIONS]


def told(session: RawPostgres) -> list[tuple[bytes, bytes | int]]:
    """What a login was answered: of the keys for cancels and of parameters that are the session's own the length."""
    found = pg_split(session.login)[0]
    return [(kind, len(body) if kind == b"K" else body) for kind, body in found if kind != b"S"]


def key(session: RawPostgres) -> bytes:
    return next(body for kind, body in pg_split(session.login)[0] if kind == b"K")


def when_it_sleeps(admin, do) -> threading.Thread:
    """``do()`` is called once a session executes SLEEP; the thread in which it is."""
    def work():
        wait_for(lambda: admin.execute("SELECT FROM pg_stat_activity WHERE query = %s AND wait_event = 'PgSleep'",
                                       [SLEEP]).fetchone() is not None)
        do()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("protocol", VERSIONS, ids=ids)
@pytest.mark.parametrize("option", ["", "_pq_.nobody_knows_it"], ids=["", "option"])
def test_negotiation_is_the_servers(postgres, proxy, pg, protocol, option):
    params = {option: "1"} if option else {}
    direct, through = (RawPostgres(port, protocol=protocol, **params) for port in (postgres.port, proxy.postgres_port))
    try:
        assert told(through) == told(direct)
        newer = pg(through=False).info.server_version // 10000 >= LATEST
        negotiates = option or (protocol > (3, 0) and not (newer and protocol == (3, 2)))
        assert (b"v" in [kind for kind, _ in told(through)]) == bool(negotiates)
        assert (len(key(through)) > 8) == (newer and protocol > (3, 0))
        assert through.query("SELECT 1") == direct.query("SELECT 1")
    finally:
        direct.close(), through.close()


@pytest.mark.parametrize("protocol", VERSIONS, ids=ids)
def test_a_cancel_names_its_session(postgres, proxy, pg, protocol):
    session = RawPostgres(proxy.postgres_port, protocol=protocol)
    try:
        def cancel():
            for named in (key(session)[:-1] + b"\0\1", key(session)[:4] + bytes(len(key(session)) - 4), key(session)):
                with socket.create_connection(("127.0.0.1", proxy.postgres_port)) as canceller:
                    canceller.sendall(pg_cancel(named))
                    assert canceller.recv(1) == b""

        cancelling = when_it_sleeps(pg(through=False), cancel)
        assert b"C57014\0" in session.query(SLEEP)
        cancelling.join()
    finally:
        session.close()


def test_libpq_cancels(postgres, proxy, pg):
    """As clients of version 18 do, where libpq is one: by a key of the length that the server gave."""
    if psycopg.pq.version() < LATEST * 10000:
        pytest.skip("this libpq knows 3.0 only")
    dsn = f"{postgres.dsn(proxy.postgres_port)} max_protocol_version=latest"
    with psycopg.connect(dsn, autocommit=True) as session:
        cancelling = when_it_sleeps(pg(through=False), session.cancel_safe)
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute(SLEEP)
        cancelling.join()
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_sessions_of_both_versions_share_batches(postgres, proxy, pg, table):
    """The protocol's version changes nothing of what a write does or answers."""
    pg(through=False).execute(f"CREATE TABLE {table} (a int PRIMARY KEY)")
    before = proxy.batched()

    def work(i):
        session = RawPostgres(proxy.postgres_port, protocol=VERSIONS[i % len(VERSIONS)])
        try:
            return [session.query(f"{HINT}INSERT INTO {table} VALUES ({100 * i + n})") for n in range(5)]
        finally:
            session.close()

    assert together(6, work) == [[INSERTED] * 5] * 6
    assert pg(through=False).execute(f"SELECT count(*) FROM {table}").fetchone() == (30,)
    assert proxy.batched() - before >= 20


@pytest.mark.parametrize("size", [0, 1, 100])
@pytest.mark.parametrize("length", [4, 32, LONGEST])
def test_a_key_of_any_length_is_relayed(length, size):
    """In pieces of ``size`` bytes (0: whole); a cancel by it names its session, and one that is cut does not."""
    class Cancelled(Hooks):
        named = ()

        def cancel(self, session, packet, key):
            self.named = *self.named, (packet, self.engine.cancel_keys.get(key))
            session.abort()

    hooks = Cancelled()
    secret = b"\0\0\0\7" + bytes(range(256))[-length:]
    session = PgSession(hooks.engine)
    session.receive(pg_startup((3, 2), user="postgres", database="postgres"))
    login = pg(b"v", b"\0\3\0\2" + b"\0" * 4) + PG_LOGIN.replace(pg(b"K", b"\0\0\0\1secr"), pg(b"K", secret))
    for at in range(0, len(login), size or len(login)):
        hooks.server.receive(login[at:at + (size or len(login))])
    assert session.take_out() == login
    for named in (secret, secret[:-1]):
        request = pg_cancel(named)
        canceller = PgSession(hooks.engine)
        for at in range(0, len(request), size or len(request)):
            canceller.receive(request[at:at + (size or len(request))])
    assert hooks.named == ((pg_cancel(secret), session), (pg_cancel(secret[:-1]), None))
