"""Hostile peers: whatever one sends, no turn of the loop takes 0.1 s, its neighbours are answered, nothing breaks.

``KINDS`` names what is sent. Each is played against a proxy before real servers, while a neighbour on each protocol
asks ``SELECT 1`` over and over; the proxy's own histogram of its turns tells whether anybody had to wait. Since others
may have the machine, a kind is played once more before it fails.
"""

import contextlib
import os
import random
import select
import socket
import struct
import threading
import time

import pytest

from tests.crowd import together
from tests.fix_servers import ProxyUnderTest, tqdb_command
from tests.hostile import (
    KIB,
    MARIADB,
    MIB,
    PG_SYNC,
    POSTGRES,
    TEXTS,
    columns,
    distinct,
    my_query,
    pg_query,
    pg_run,
    times,
)
from tests.raw import RawMariaDB, RawPostgres

pytestmark = pytest.mark.undisturbed

LONGEST = 0.1           # seconds: what no turn of the loop may take
QUIET = 2 * LONGEST     # seconds without an answer after which nothing more is expected
PATIENCE = 60           # seconds that a kind may take to be sent and answered


# --- how it is sent --------------------------------------------------------------------------------------------

def flood(sock: socket.socket, data: bytes) -> bytes:
    """Sends all of it and reads whatever comes, until nothing more does; returns the end of that."""
    sock.setblocking(False)
    view = memoryview(data)
    out = b""
    heard = time.monotonic()
    deadline = heard + PATIENCE
    while time.monotonic() < deadline:
        readable, writable, _ = select.select([sock], [sock] if view else [], [], QUIET)
        try:
            if readable:
                got = sock.recv(1 << 18)
                if not got:
                    return out
                out = (out + got)[-4096:]
                heard = time.monotonic()
            if writable:
                view = view[sock.send(view[:1 << 18]):]
                heard = time.monotonic()
        except BlockingIOError:
            continue
        except OSError:
            return out
        if not view and time.monotonic() - heard >= QUIET:
            return out
    raise AssertionError("it was not taken in time")


class Neighbour(threading.Thread):
    """Asks ``SELECT 1`` on a session of its own, over and over, and counts the answers."""

    def __init__(self, session):
        super().__init__(daemon=True)
        self.session = session
        self.answers = 0
        self.error: Exception | None = None
        self.ended = threading.Event()

    def run(self) -> None:
        try:
            while not self.ended.wait(0.002):
                assert b"1" in self.session.query("SELECT 1")
                self.answers += 1
        except Exception as e:
            self.error = e


class Arena:
    """A proxy, an attacker's ways to it, and its neighbours."""

    def __init__(self, proxy, mariadb):
        self.proxy = proxy
        self.mariadb = mariadb
        self.neighbours = [Neighbour(self.postgres()), Neighbour(self.maria())]
        for neighbour in self.neighbours:
            neighbour.start()

    def postgres(self) -> RawPostgres:
        return RawPostgres(self.proxy.postgres_port)

    def maria(self) -> RawMariaDB:
        return RawMariaDB(self.mariadb.connect(self.proxy.mariadb_port, database="d"))

    def connect(self, protocol: str) -> socket.socket:
        return socket.create_connection(("127.0.0.1", getattr(self.proxy, f"{protocol}_port")), timeout=20)

    def waited(self) -> float:
        """Seconds that the proxy was ready to run and had no core."""
        with open(f"/proc/{self.proxy.process.pid}/schedstat") as f:
            return int(f.read().split()[1]) / 1e9

    def slow_turns(self) -> int:
        return sum(b["turns"] for b in self.proxy.stats()["loop_turns"]
                   if b["up_to_seconds"] is None or b["up_to_seconds"] > LONGEST)

    def answered(self) -> None:
        """Both neighbours get another answer."""
        before = [n.answers for n in self.neighbours]
        deadline = time.monotonic() + 20
        while any(n.answers == count for n, count in zip(self.neighbours, before, strict=True)):
            for neighbour in self.neighbours:
                if neighbour.error is not None:
                    raise neighbour.error
            assert time.monotonic() < deadline, "a neighbour is not answered"
            time.sleep(0.005)

    def close(self) -> None:
        for neighbour in self.neighbours:
            neighbour.ended.set()
            neighbour.join(20)
            assert neighbour.error is None


@pytest.fixture(scope="module")
def arena(postgres, mariadb):
    with mariadb.connect(database="d") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE TABLE wide (c0 int, t longtext)")
    direct = RawPostgres(postgres.port)
    direct.query("DROP TABLE IF EXISTS wide; CREATE TABLE wide (c0 int, t text)")
    direct.close()
    with ProxyUnderTest(postgres, mariadb, tqdb_command()) as proxy:
        made = Arena(proxy.start(), mariadb)
        yield made
        made.close()


# --- other ways ------------------------------------------------------------------------------------------------

def start_up(*params: bytes) -> bytes:
    body = b"".join(p + b"\0" for p in params) + b"\0"
    return struct.pack("!II", len(body) + 8, 196608) + body


def full_start_up(arena) -> None:
    """As long as one may be: thousands of parameters, or one long list of options."""
    for more in ([b"a", b""] * 3300, [b"options", b"-c " * 3300], [b"options", b"-c" + b" " * 9000],
                 [b"options", b"-c tqdb.max_wait_ms=1 " * 440], [b"tqdb.max_wait_ms", b"1" * 9000]):
        with arena.connect("postgres") as sock:
            flood(sock, start_up(b"user", b"postgres", b"database", b"postgres", *more))


def tls_requests(arena) -> None:
    with arena.connect("postgres") as sock:
        flood(sock, struct.pack("!II", 8, 80877103) * 20_000)


def cancels(arena) -> None:
    for _ in range(500):
        with arena.connect("postgres") as sock:
            sock.sendall(struct.pack("!IIII", 16, 80877102, random.randrange(1 << 31), 1))


def slow_logins(protocol: str, data: bytes):
    """Hundreds of logins, a byte at a time."""
    def play(arena) -> None:
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(arena.connect(protocol)) for _ in range(300)]
            for at in range(len(data)):
                for sock in socks:
                    with contextlib.suppress(OSError):
                        sock.sendall(data[at:at + 1])
            arena.answered()
    return play


def connections_come_and_go(arena) -> None:
    for _ in range(300):
        for protocol in ("postgres", "mariadb"):
            arena.connect(protocol).close()


def row_counts(arena) -> None:
    """``ROW_COUNT()`` in long texts, right behind a write that went in a batch: then it is looked for."""
    before = arena.proxy.stats()["texts"]["row_count"]
    size = 15 * KIB
    for text in ("SELECT ROW_COUNT(), '" + times("''", MIB) + "'", "SELECT ROW_COUNT(), '" + times("''", size) + "'",
                 "SELECT '" + times("\\'", size) + " ROW_COUNT()", "SELECT ROW_COUNT() " + times("/*", size),
                 "SELECT " + times("ROW_COUNT(), ", size) + "1", "SELECT row_count" + times(" ", size) + "(",
                 "SELECT ROW_COUNT(), " + times('"', size), "SELECT ROW_COUNT() " + times("`", size)):
        sessions = [arena.maria(), arena.maria()]
        for _ in range(2):          # who has not been seen to send hinted writes is not waited for
            together(2, lambda i, sessions=sessions: sessions[i].query(
                "/* max_wait_ms:500 */ INSERT INTO wide (c0) VALUES (1), (1)"))
        flood(sessions[0].sock, my_query(text))
        for one in sessions:
            one.connection._force_close()
    after = arena.proxy.stats()["texts"]["row_count"]
    assert after["done"] - before["done"] >= 3 and after["too_long"] > before["too_long"]


def http_requests(count: int, data: bytes):
    """``count`` connections that all send ``data`` and read what comes."""
    def play(arena) -> None:
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(arena.connect("metrics")) for _ in range(count)]
            threads = [threading.Thread(target=flood, args=(sock, data), daemon=True) for sock in socks]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            arena.answered()
        assert b" 200 " in http_get(arena, "/healthz")
    return play


def http_get(arena, path: str) -> bytes:
    with arena.connect("metrics") as sock:
        sock.sendall(get(path))
        return sock.recv(4096)


def get(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


def http_silent(arena) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(arena.connect("metrics"))
        assert b" 200 " in http_get(arena, "/healthz")
        arena.answered()


def http_slow_headers(arena) -> None:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(arena.connect("metrics")) for _ in range(200)]
        for at in range(100):
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.sendall(get("/metrics", "X: y\r\n" * 20)[at:at + 1])
        assert b" 200 " in http_get(arena, "/healthz")


def http_never_reads(arena) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            sock = stack.enter_context(arena.connect("metrics"))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(get("/metrics") * 20)
        arena.answered()
        assert b" 200 " in http_get(arena, "/healthz")


def from_many(data, login, count: int):
    """The like from many connections at a time."""
    def play(arena) -> None:
        sessions = [login(arena) for _ in range(count)]
        threads = [threading.Thread(target=flood, args=(s.sock, data()), daemon=True) for s in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * PATIENCE)
        for session in sessions:
            session.sock.close()
    return play


def one_session(login, data):
    def play(arena) -> None:
        session = login(arena)
        flood(session.sock, data())
        session.sock.close()
    return play


KINDS = {
    **{f"postgres: {name}": one_session(Arena.postgres, lambda text=text: pg_query(text()) + PG_SYNC)
       for name, text in TEXTS.items()},
    **{f"mariadb: {name}": one_session(Arena.maria, lambda text=text: my_query(text()))
       for name, text in TEXTS.items()},
    **{f"postgres messages: {name}": one_session(Arena.postgres, data) for name, data in POSTGRES.items()},
    **{f"mariadb commands: {name}": one_session(Arena.maria, data) for name, data in MARIADB.items()},
    "postgres: Parse of 400 columns from 30 sessions": from_many(
        lambda: pg_run(distinct(1, columns(400).replace("c0", "{}"))[0]), Arena.postgres, 30),
    "mariadb: 400 columns from 30 sessions": from_many(
        lambda: my_query(distinct(1, columns(400).replace("c0", "{}"))[0]), Arena.maria, 30),
    "postgres: distinct shapes from 20 sessions": from_many(
        lambda: b"".join(map(pg_query, distinct(1000, "UPDATE wide SET c0 = 1 WHERE {} = 1"))), Arena.postgres, 20),
    "mariadb: distinct shapes from 20 sessions": from_many(
        lambda: b"".join(map(my_query, distinct(1000, "UPDATE wide SET c0 = 1 WHERE {} = 1"))), Arena.maria, 20),
    "postgres: literals of 900 KB from 20 sessions": from_many(
        lambda: pg_query(TEXTS["a literal of 900 KB"]()) * 5, Arena.postgres, 20),
    "postgres: SETs from 20 sessions": from_many(lambda: pg_query("SET a.b=1") * 20_000, Arena.postgres, 20),
    "mariadb: SETs from 20 sessions": from_many(lambda: my_query("SET @a=1") * 20_000, Arena.maria, 20),
    "postgres: a full start-up packet": full_start_up,
    "postgres: TLS asked for over and over": tls_requests,
    "postgres: cancels of nobody": cancels,
    "postgres: slow logins": slow_logins("postgres", start_up(b"user", b"postgres")),
    "mariadb: slow logins": slow_logins("mariadb", b"\x20\0\0\1" + b"\0" * 30),
    "connections come and go": connections_come_and_go,
    "mariadb: ROW_COUNT() in long texts": row_counts,
    "http: silent connections": http_silent,
    "http: slow headers": http_slow_headers,
    "http: who never reads": http_never_reads,
    "http: headers of 1 MiB": http_requests(20, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * MIB + b"\r\n\r\n"),
    "http: thousands of headers": http_requests(60, get("/healthz", "a:b\r\n" * 3000)),
    "http: headers of blanks": http_requests(60, get("/healthz", "a: " + " " * 16_000 + "b\r\n")),
    "http: an Accept header of 16 KiB": http_requests(60, get("/metrics", "Accept: " + "a/b;q=0.1," * 1600 + "\r\n")),
    "http: 2,000 requests in one send": http_requests(5, get("/healthz") * 2000),
    "http: /stats.json from 60 connections": http_requests(60, get("/stats.json") * 20),
    "http: /metrics from 60 connections": http_requests(60, get("/metrics") * 10),
    "http: the dashboard from 60 connections": http_requests(60, get("/") * 20),
    "http: a body of 10 MiB": http_requests(20, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10485760\r\n\r\n"
                                            + b"x" * (10 * MIB)),
    "http: chunks": http_requests(20, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                                  + b"1\r\nx\r\n" * 100_000),
    "http: garbage": http_requests(60, os.urandom(100_000)),
    "http: no request but line ends": http_requests(60, b"\r\n" * 100_000),
}


@pytest.mark.parametrize("name", KINDS)
def test_nobody_waits(arena, name):
    for attempt in (1, 2):
        before, waited = arena.slow_turns(), arena.waited()
        KINDS[name](arena)
        arena.answered()
        slow = arena.slow_turns() - before
        assert arena.proxy.process.poll() is None, arena.proxy.log()
        if not slow:
            break
        longest = arena.proxy.stats()["loop_turn_ms"]["longest"]
        assert attempt == 1, (f"{slow} turns of the loop took more than {LONGEST} s, the longest {longest:.0f} ms; the "
                              f"proxy waited {1000 * (arena.waited() - waited):.0f} ms for a core meanwhile")
    log = arena.proxy.log()
    assert "Traceback" not in log, log
    assert arena.proxy.stats()["internal_errors"] == {}


def test_there_are_many_kinds():
    assert len(KINDS) >= 60
