"""``/metrics``, ``/healthz``, ``/readyz``, ``/stats.json``, ``/advice.json`` and their pages, in the proxy's own loop.

Whoever reaches the address can neither hold the loop up nor keep others out: a turn of the loop spends ``TURN_SECONDS``
here, and one answer that takes time, or a part of it, is made in each, whoever asked; and where there is no room for a
new connection the one goes that has been idle for longest.
"""

import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from importlib.resources import files
from selectors import EVENT_READ, EVENT_WRITE

import h11

from tqdb import reasons
from tqdb.loop import Loop

MAX_CONNECTIONS = 64
ACCEPTS_PER_TURN = 16       # fewer than connections: none goes before its request could be read
ACCEPT_AGAIN_SECONDS = 0.2  # after accepting failed, for want of descriptors
KEEP_ALIVE_SECONDS = 300    # that a connection may be idle between requests
REQUEST_SECONDS = 30        # that a request may take to arrive, and a client to read more of its answer
LINGER_SECONDS = 2          # that a client has to read an answer behind which the connection ends
READ_BYTES = 16384
MAX_HEADER_BYTES = 16384
MAX_ACCEPT_BYTES = 1024     # of the Accept header that are looked at
TURN_SECONDS = 0.005        # after which a turn of the loop leaves what else is ready to the next
STEP_SECONDS = 0.0005       # that one turn of the loop may spend on a body made in parts
SEND_BYTES = 131072         # that it may send of one
PAGES = {"/": "dashboard.html", "/advice": "advice.html"}
AT_ONCE = ("/healthz", "/readyz")       # answered before anything that takes time


class HttpServer:
    """Serves what ``source`` (see ``metrics.Metrics``) says; ``failed(place, error)`` is told what goes wrong."""

    def __init__(self, loop: Loop, sock: socket.socket, source, failed: Callable[[str, Exception], None]):
        self.loop = loop
        self.sock = sock
        self.source = source
        self.failed = failed
        self.connections: set[Connection] = set()
        self.working: deque[Connection] = deque()       # whose next step is due, one in each turn
        self.turn = 0.0             # of the loop, by when it began
        self.spent = 0.0            # seconds in it
        self.retired = False        # no connection is accepted, and none is kept alive
        self.pages = {path: (files("tqdb") / name).read_bytes() for path, name in PAGES.items()}
        self.pages["/reasons"] = reasons.page()
        sock.setblocking(False)
        self._listen()
        loop.call_later(1, self._sweep)

    def _listen(self) -> None:
        if self.sock.fileno() >= 0:
            self.loop.watch(self.sock, EVENT_READ, self._accept)

    def _accept(self, mask: int) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, _ = self.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self.loop.unwatch(self.sock)
                self.loop.call_later(ACCEPT_AGAIN_SECONDS, self._listen)
                return
            if len(self.connections) >= MAX_CONNECTIONS:
                min(self.connections, key=lambda c: (c.answering, c.since)).close()
            sock.setblocking(False)
            connection = Connection(self, sock)
            self.connections.add(connection)
            connection.ready(EVENT_READ)        # most have sent their request by now

    def has_time(self) -> bool:
        """Whether something may be begun in this turn; what is ready still is in the next."""
        if self.turn != self.loop.turned:
            self.turn, self.spent = self.loop.turned, 0.0
        return self.spent < TURN_SECONDS

    def _sweep(self) -> None:
        self.loop.call_later(1, self._sweep)
        now = time.monotonic()
        for connection in [c for c in self.connections if c.deadline <= now]:
            connection.close()

    def work_on(self, connection: "Connection") -> None:
        """Asks for a step of ``connection`` in one of the next turns."""
        if not self.working:
            self.loop.call_later(0, self._work)
        self.working.append(connection)

    def _work(self) -> None:
        connection = self.working.popleft()
        if self.working:
            self.loop.call_later(0, self._work)
        connection.step()

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
        elif path == "/advice.json":
            return 200, "application/json", self.source.advice_json()
        elif path in self.pages:
            return 200, "text/html; charset=utf-8", self.pages[path]
        else:
            return (404, "text/plain; charset=utf-8",
                    b"there are /, /advice, /reasons, /metrics, /healthz, /readyz, /stats.json and /advice.json\n")
        return 200 if ok else 503, "text/plain; charset=utf-8", text.encode() + b"\n"

    def retire(self) -> None:
        """Accepts no more; who is connected gets the answer to one more request."""
        self.retired = True
        self.loop.unwatch(self.sock)
        self.sock.close()

    def is_answering(self) -> bool:
        return any(connection.answering or connection.begun for connection in self.connections)

    def close(self) -> None:
        for connection in list(self.connections):
            connection.close()
        self.loop.unwatch(self.sock)
        self.sock.close()


class Connection:
    """One HTTP/1.1 connection, kept alive between requests.

    ``answering``: from a whole request to its answer's last byte; nothing is read meanwhile. ``since``: when it became
    idle or, while answering, when it last got on; bytes of half a request do not count.
    """

    def __init__(self, server: HttpServer, sock: socket.socket):
        self.server = server
        self.sock: socket.socket | None = sock
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        self.out: deque[memoryview] = deque()       # what is still to be sent
        self.request: h11.Request | None = None     # to be answered
        self.parts: Iterator[bytes] | None = None   # of a body that is being made
        self.made: list[bytes] = []
        self.status, self.kind = 200, ""            # of that body's answer
        self.head = False           # and only its headers are wanted
        self.answering = False
        self.begun = False          # a request has begun to arrive
        self.lingering = False      # all is sent, the connection ends
        self._idle(REQUEST_SECONDS)

    def _idle(self, seconds: float) -> None:
        """Nothing is to be answered now; the next request has ``seconds`` to arrive."""
        self.answering = self.begun = False
        self.since = time.monotonic()
        self.deadline = self.since + seconds
        self.server.loop.watch(self.sock, EVENT_READ, self.ready)

    def _got_on(self) -> None:
        self.since = time.monotonic()
        self.deadline = self.since + REQUEST_SECONDS

    def _guarded(self, call) -> None:
        """An error ends this connection and nothing else."""
        if self.sock is None:
            return          # closed by an event before this one
        began = time.monotonic()
        try:
            call()
        except Exception as e:
            self.server.failed("http", e)
            self.close()
        self.server.spent += time.monotonic() - began

    def ready(self, mask: int) -> None:
        """The socket is ready for ``mask``."""
        if self.server.has_time():
            self._guarded(self._send if mask & EVENT_WRITE else self._read)

    def step(self) -> None:
        """The turn has come for something that takes time."""
        self._guarded(self._make if self.parts is not None else self._answer if self.request is not None
                      else self._process)

    def _read(self) -> None:
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if self.lingering:
            if not data:
                self.close()
            return
        if data and not self.begun:
            self.begun = True
            self.deadline = time.monotonic() + REQUEST_SECONDS
        self.http.receive_data(data)
        self._process()

    def _process(self) -> None:
        """Takes the next request from what has arrived."""
        try:
            event = self.http.next_event()
        except h11.RemoteProtocolError as e:
            self._refuse(e.error_status_hint)
            return
        if isinstance(event, h11.ConnectionClosed):
            self.close()
        elif isinstance(event, h11.Request):
            headers = dict(event.headers)
            if b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0"):
                self._refuse(413)       # nothing here takes a body, and none is waited for
                return
            self.request = event
            self.head = event.method == b"HEAD"
            self.answering = True
            self._got_on()
            self.server.loop.unwatch(self.sock)
            if event.target.partition(b"?")[0].decode("latin-1") in AT_ONCE:
                self._answer()
            else:
                self.server.work_on(self)

    def _answer(self) -> None:
        request, self.request = self.request, None
        self.http.next_event()          # the end of a request without a body
        accept = dict(request.headers).get(b"accept", b"")[:MAX_ACCEPT_BYTES].decode("latin-1")
        try:
            self.status, self.kind, body = self.server.respond(
                request.method.decode("latin-1"), request.target.decode("latin-1"), accept)
        except Exception as e:
            self._failed(e)
            return
        if isinstance(body, bytes):
            self._reply(self.status, self.kind, [body])
        else:
            self.parts, self.made = body, []
            self._make()

    def _make(self) -> None:
        """Makes some of the body's parts, and the rest in later turns, so that none of them is long."""
        began = time.monotonic()
        try:
            for part in self.parts:
                self.made.append(part)
                if time.monotonic() - began > STEP_SECONDS:
                    self._got_on()
                    self.server.work_on(self)
                    return
        except Exception as e:
            self._failed(e)
            return
        self.parts = None
        made, self.made = self.made, []
        self._reply(self.status, self.kind, made)

    def _failed(self, error: Exception) -> None:
        self.server.failed("http", error)
        self.parts, self.made = None, []
        self._reply(500, "text/plain; charset=utf-8", [b"internal error\n"])

    def _refuse(self, status: int) -> None:
        """What cannot be taken is answered, and the connection ends."""
        self.answering = True
        self._got_on()
        self._reply(status, "text/plain; charset=utf-8", [b"bad request\n"], close=True)

    def _reply(self, status: int, kind: str, body: list[bytes], close: bool = False) -> None:
        headers = [("Content-Type", kind), ("Content-Length", str(sum(map(len, body)))), ("Cache-Control", "no-store")]
        if close or self.server.retired:
            headers.append(("Connection", "close"))
        try:
            sent = [h11.Response(status_code=status, headers=headers)]
            if not self.head:
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
        if left < SEND_BYTES:
            self._got_on()
        if self.out:
            self.server.loop.watch(self.sock, EVENT_WRITE, self.ready)
        elif self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
            self._idle(KEEP_ALIVE_SECONDS)
            if self.http.trailing_data[0]:
                self.server.work_on(self)       # the next request is here already
        else:
            # closed at once, the answer could be lost with what the client still sends
            self.lingering = True
            self._idle(LINGER_SECONDS)
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self.close()

    def close(self) -> None:
        if self.sock is not None:
            self.server.loop.unwatch(self.sock)
            self.sock.close()
            self.sock = None
            self.server.connections.discard(self)
