"""The proxy's HTTP side: whoever holds its connections, ``/healthz`` answers; what is no request is refused."""

import contextlib
import json
import socket
import threading
import time

import pytest

from tests.test_operator import wait_for
from tqdb.http import MAX_CONNECTIONS, MAX_HEADER_BYTES, HttpServer
from tqdb.loop import Loop


class Client:
    """One connection, kept alive."""

    def __init__(self, port: int):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.file = self.sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, head: bool = False) -> tuple[int, dict, bytes]:
        """Status, headers and body of the next answer."""
        line = self.file.readline()
        if not line:
            raise ConnectionError("closed")
        headers = {}
        while (text := self.file.readline().strip()):
            name, _, value = text.partition(b":")
            headers[name.decode().lower()] = value.strip().decode()
        return int(line.split()[1]), headers, b"" if head else self.file.read(int(headers["content-length"]))

    def get(self, path: str, method: str = "GET", more: str = "") -> tuple[int, dict, bytes]:
        self.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode())
        return self.answer(method == "HEAD")

    def closed(self) -> bool:
        """Whether the proxy ends it without another byte."""
        with contextlib.suppress(ConnectionError):
            return self.file.read(1) == b""
        return True

    def close(self) -> None:
        self.file.close()
        self.sock.close()


@pytest.fixture
def client(proxy):
    opened = []

    def connect() -> Client:
        opened.append(Client(proxy.metrics_port))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def test_health_answers_whoever_holds_connections(client):
    silent = [client() for _ in range(150)]
    for half in (one := client() for _ in range(150)):
        half.send(b"GET /metrics HTTP/1.1\r\n")
        silent.append(one)
    for n in range(20):
        for one in silent[-MAX_CONNECTIONS // 2:]:       # trickling is no progress
            with contextlib.suppress(OSError):
                one.send(b"X: y\r\n")
        assert client().get("/healthz")[0] == 200, n
    assert sum(one.closed() for one in silent[:150]) == 150


def test_a_scraper_stays_while_others_are_idle_for_longer(client):
    scraper = client()
    assert scraper.get("/metrics")[0] == 200
    for _ in range(5):
        for one in [client() for _ in range(MAX_CONNECTIONS // 2)]:
            assert one.get("/healthz")[0] == 200
        assert scraper.get("/metrics")[0] == 200
    # what has no request yet goes before what is being answered: a body that nobody reads
    reader = client()
    reader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    for _ in range(MAX_CONNECTIONS):
        client().get("/healthz")
    assert reader.answer()[0] == 200


def test_pipelined_requests_are_answered_in_order(client):
    one = client()
    paths = ["/healthz", "/stats.json", "/nothing", "/readyz", "/metrics"] * 40
    one.send(b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths))
    statuses = {"/nothing": 404}
    for path in paths:
        status, headers, body = one.answer()
        assert status == statuses.get(path, 200)
        assert (path == "/stats.json") == (headers["content-type"] == "application/json")
        assert body and (path != "/metrics" or b"tqdbproxy_loop_turn_seconds_bucket" in body)


def test_head_has_the_headers_alone(client):
    one = client()
    for path in ("/", "/healthz", "/stats.json", "/metrics"):
        status, headers, _ = one.get(path, "HEAD")
        assert status == 200 and int(headers["content-length"]) > 0
    assert one.get("/healthz")[2] == b"ok\n"


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS", "BREW"])
def test_other_methods(client, method):
    one = client()
    assert one.get("/metrics", method)[0] == 405
    assert one.get("/healthz")[0] == 200


@pytest.mark.parametrize(("request_", "status"), [
    (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\nxxx", 413),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 413),
    (b"GET /healthz HTTP/1.1\r\n\r\n", 400), (b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400), (b"\0" * 100, 400), (b"GET\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 5 * MAX_HEADER_BYTES, 431),
    (b"GET /" + b"y" * 5 * MAX_HEADER_BYTES, 431), (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 20_000, 431),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nbad\0name: 1\r\n\r\n", 400),
])
def test_what_is_no_request_is_refused(client, request_, status):
    one = client()
    with contextlib.suppress(ConnectionError):       # it may have been refused before the last byte was sent
        one.send(request_)
    try:
        found, headers, _ = one.answer()
        assert found == status and headers["connection"] == "close"
    except ConnectionResetError:
        assert status == 431        # refused, and what was still sent took the answer with it
    with contextlib.suppress(OSError):
        one.sock.shutdown(socket.SHUT_WR)
    assert one.closed()
    assert client().get("/healthz")[0] == 200


def test_a_client_that_half_closes_gets_its_answer(client):
    one = client()
    one.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    one.sock.shutdown(socket.SHUT_WR)
    assert one.answer()[0] == 200
    assert one.closed()


def test_http_1_0_and_close(client):
    for request in (b"GET /healthz HTTP/1.0\r\n\r\n", b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
        one = client()
        one.send(request)
        assert one.answer()[0] == 200 and one.closed()


def test_a_slow_reader_gets_the_whole_body(client):
    one = client()
    one.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
    bodies = [one.answer() for _ in range(5)]
    assert all(status == 200 and body.endswith(b"\n") for status, _, body in bodies)


class Source:
    """Pages of which some fail."""

    def exposition(self, accept):
        def parts():
            yield b"x"
            raise KeyError("y")
        return "text/plain", parts()

    def stats_json(self):
        raise ValueError("z")

    def health(self):
        return True, "ok"


@pytest.fixture
def own():
    """``own()`` connects to an HTTP server of this process, in a loop of its own; ``own.told``: what went wrong."""
    loop = Loop()
    sock = socket.create_server(("127.0.0.1", 0))
    told = []
    server = HttpServer(loop, sock, Source(), lambda place, error: told.append((place, type(error).__name__)))
    opened = []

    def connect() -> Client:
        opened.append(Client(sock.getsockname()[1]))
        return opened[-1]

    connect.told = told
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield connect
    loop.stop()
    thread.join()
    for one in opened:
        one.close()
    server.close()
    loop.close()


def test_a_failing_page_is_counted_and_costs_nobody_else(own):
    one = own()
    one.send(b"".join(f"GET {p} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for p in ("/metrics", "/stats.json", "/healthz")))
    assert [one.answer()[0] for _ in range(3)] == [500, 500, 200]
    assert own.told == [("http", "KeyError"), ("http", "ValueError")]


def test_half_a_request_is_not_waited_for(monkeypatch, own):
    monkeypatch.setattr("tqdb.http.REQUEST_SECONDS", 0.5)
    kept = own()
    assert kept.get("/healthz")[0] == 200
    silent, half = own(), own()
    half.send(b"GET /healthz HTT")
    assert silent.closed() and half.closed()
    late = own()
    assert late.get("/healthz")[0] == 200
    late.send(b"GET /healthz HTT")
    assert late.closed()
    assert kept.get("/healthz")[0] == 200 and own.told == []


def test_the_loop_is_shown(proxy, client):
    one = client()

    def turns() -> int:
        found = json.loads(one.get("/stats.json")[2])
        assert found["loop_turn_ms"]["longest"] >= 0 and found["internal_errors"] == {}
        assert found["texts"]["shape"]["too_long"] >= 0
        return sum(b["turns"] for b in found["loop_turns"])

    before = turns()
    wait_for(lambda: turns() > before)
    assert proxy.metric("tqdbproxy_loop_turn_seconds_count") > before
    began = time.monotonic()
    longest = proxy.metric("tqdbproxy_loop_turn_seconds_sum")
    one.get("/healthz")
    assert proxy.metric("tqdbproxy_loop_turn_seconds_sum") - longest < time.monotonic() - began
