"""``/metrics``, ``/healthz``, ``/readyz``, ``/stats.json`` and the dashboard, in the proxy's own loop."""

import logging
import socket
import time
from collections import deque
from collections.abc import Iterator
from importlib.resources import files
from selectors import EVENT_READ, EVENT_WRITE

import h11

from tqdb.loop import Loop

log = logging.getLogger("tqdb.http")

MAX_CONNECTIONS = 64
IDLE_SECONDS = 30
READ_BYTES = 65536
STEP_SECONDS = 0.0005       # that one turn of the loop may spend on a body made in parts
SEND_BYTES = 131072         # that it may send of one


class HttpServer:
    """Serves what ``source`` (see ``metrics.Metrics``) says; at most ``MAX_CONNECTIONS`` at a time."""

    def __init__(self, loop: Loop, sock: socket.socket, source):
        self.loop = loop
        self.sock = sock
        self.source = source
        self.connections: set[Connection] = set()
        self.page = (files("tqdb") / "dashboard.html").read_bytes()
        sock.setblocking(False)
        loop.watch(sock, EVENT_READ, self._accept)

    def _accept(self, mask: int) -> None:
        try:
            sock, _ = self.sock.accept()
        except OSError:
            return
        if len(self.connections) >= MAX_CONNECTIONS:
            sock.close()
            return
        sock.setblocking(False)
        self.connections.add(Connection(self, sock))

    def respond(self, method: str, target: str, accept: str) -> tuple[int, str, bytes | Iterator[bytes]]:
        """``(status, content type, body)`` of one request; the body whole or in parts that take time to make."""
        path = target.partition("?")[0]
        if method not in ("GET", "HEAD"):
            return 405, "text/plain; charset=utf-8", b"only GET and HEAD are allowed here\n"
        if path == "/metrics":
            return (200, *self.source.exposition(accept))
        if path == "/healthz":
            ok, text = self.source.health()
        elif path == "/readyz":
            ok, text = self.source.readiness()
        elif path == "/stats.json":
            return 200, "application/json", self.source.stats_json()
        elif path == "/":
            return 200, "text/html; charset=utf-8", self.page
        else:
            return (404, "text/plain; charset=utf-8",
                    b"there are /, /metrics, /healthz, /readyz and /stats.json\n")
        return 200 if ok else 503, "text/plain; charset=utf-8", text.encode() + b"\n"

    def close(self) -> None:
        for connection in list(self.connections):
            connection.close()
        self.loop.unwatch(self.sock)
        self.sock.close()


class Connection:
    """One HTTP/1.1 connection, kept alive between requests."""

    def __init__(self, server: HttpServer, sock: socket.socket):
        self.server = server
        self.sock = sock
        self.http = h11.Connection(h11.SERVER)
        self.out: deque[memoryview] = deque()       # what is still to be sent
        self.making = False         # a body is being made
        self.request: h11.Request | None = None
        self.timer = None
        self._await_request()

    def _await_request(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.server.loop.call_later(IDLE_SECONDS, self.close)
        self.server.loop.watch(self.sock, EVENT_READ, self._ready)

    def _ready(self, mask: int) -> None:
        if self.sock is None:
            return          # closed by an event before this one
        if mask & EVENT_WRITE:
            self._send()
            return
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        try:
            self.http.receive_data(data)
            self._process()
        except h11.RemoteProtocolError as e:
            self._reply(e.error_status_hint, "text/plain; charset=utf-8", [b"bad request\n"], close=True)

    def _process(self) -> None:
        while self.sock is not None and not self.out and not self.making:
            event = self.http.next_event()
            if event in (h11.NEED_DATA, h11.PAUSED):
                return
            if isinstance(event, h11.ConnectionClosed):
                self.close()
                return
            if isinstance(event, h11.Request):
                self.request = event
            elif isinstance(event, h11.EndOfMessage):
                self._answer(self.request)

    def _answer(self, request: h11.Request) -> None:
        accept = dict(request.headers).get(b"accept", b"").decode("latin-1")
        method = request.method.decode()
        try:
            status, kind, body = self.server.respond(method, request.target.decode("latin-1"), accept)
        except Exception:
            log.exception("a request failed")
            status, kind, body = 500, "text/plain; charset=utf-8", b"internal error\n"
        if isinstance(body, bytes):
            self._reply(status, kind, [body], head=method == "HEAD")
        else:
            self.making = True
            self._make(status, kind, body, [], method == "HEAD")

    def _make(self, status: int, kind: str, parts: Iterator[bytes], made: list[bytes], head: bool) -> None:
        """Takes the body's parts, some in each turn of the loop, so that none of its turns is long."""
        if self.sock is None:
            return
        began = time.monotonic()
        try:
            for part in parts:
                made.append(part)
                if time.monotonic() - began > STEP_SECONDS:
                    self.server.loop.call_later(0, lambda: self._make(status, kind, parts, made, head))
                    return
        except Exception:
            log.exception("a request failed")
            status, kind, made = 500, "text/plain; charset=utf-8", [b"internal error\n"]
        self.making = False
        self._reply(status, kind, made, head=head)

    def _reply(self, status: int, kind: str, body: list[bytes], head: bool = False, close: bool = False) -> None:
        headers = [("Content-Type", kind), ("Content-Length", str(sum(map(len, body)))), ("Cache-Control", "no-store")]
        if close:
            headers.append(("Connection", "close"))
        try:
            sent = [h11.Response(status_code=status, headers=headers)]
            if not head:
                sent += [h11.Data(data=part) for part in body if part]
            for event in (*sent, h11.EndOfMessage()):
                data = self.http.send(event)
                if data:
                    self.out.append(memoryview(data))
        except h11.LocalProtocolError:
            self.close()
            return
        self._send()

    def _send(self) -> None:
        left = SEND_BYTES
        try:
            while self.out and left > 0:
                sent = self.sock.send(self.out[0][:left])
                left -= sent
                self.out[0] = self.out[0][sent:]
                if not self.out[0]:
                    self.out.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self.out:
            self.server.loop.watch(self.sock, EVENT_WRITE, self._ready)
            return
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
            self._await_request()
            self._process()
        elif self.http.our_state in (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR):
            self.close()

    def close(self) -> None:
        if self.sock is not None:
            self.server.loop.unwatch(self.sock)
            self.sock.close()
            self.sock = None
            self.timer.cancel()
            self.server.connections.discard(self)
