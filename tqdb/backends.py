"""Connecting to servers without blocking, with TLS or not; and whether one listens on this machine."""

import errno
import os
import socket
from selectors import EVENT_READ, EVENT_WRITE

from tqdb.lookup import Candidates
from tqdb.loop import Loop
from tqdb.tls import Demand, Engine, PgRequest
from tqdb.values import Address


def tune(sock: socket.socket) -> None:
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class Connector:
    """A non-blocking attempt to reach a backend, trying its addresses in turn; ``done(sock, error)`` once."""

    def __init__(self, loop: Loop, addresses: Candidates, timeout: float, done):
        self.loop = loop
        self.addresses = list(addresses)
        self.done = done
        self.at: tuple[int, object] | None = None       # the address that is being tried, or was reached
        self.sock: socket.socket | None = None
        self.error = "no address"
        self.timer = loop.call_later(timeout, self._timed_out)
        self.starting = True
        self._next()
        self.starting = False

    def _next(self) -> None:
        while self.addresses:
            family, address = self.at = self.addresses.pop(0)
            try:
                self.sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
                tune(self.sock)
                code = self.sock.connect_ex(address)
            except OSError as e:
                code = e.errno or errno.EIO
            if code in (0, errno.EINPROGRESS, errno.EAGAIN):
                self.loop.watch(self.sock, EVENT_WRITE, self._ready)
                return
            self._failed(code)
        self._finish(None)

    def _failed(self, code: int) -> None:
        self.error = os.strerror(code)
        if self.sock is not None:
            self.loop.unwatch(self.sock)
            self.sock.close()
            self.sock = None

    def _ready(self, mask: int) -> None:
        if self.sock is None:
            return          # cancelled by an event before this one
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._failed(code)
            self._next()
            return
        self.loop.unwatch(self.sock)
        self._finish(self.sock)

    def _timed_out(self) -> None:
        self.addresses.clear()
        self._failed(errno.ETIMEDOUT)
        self._finish(None)

    def _finish(self, sock: socket.socket | None) -> None:
        if self.starting:
            # the caller is in the middle of a message: it hears of it from the loop
            self.loop.call_later(0, lambda: self._finish(sock))
            self.starting = False
            return
        self.timer.cancel()
        done, self.done = self.done, None
        self.sock = None
        if done is not None:
            done(sock, self.error)
        elif sock is not None:
            sock.close()

    def cancel(self) -> None:
        self.done = None
        self.timer.cancel()
        if self.sock is not None:
            self.loop.unwatch(self.sock)
            self.sock.close()
            self.sock = None


class Reach:
    """An attempt to reach a server, with TLS where the protocol begins with it; ``done``: see ``tls.PgRequest``.

    ``demand``: None where the stream begins plain.
    """

    def __init__(self, loop: Loop, address: Address, candidates: Candidates, demand: Demand | None, timeout: float,
                 done):
        self.loop = loop
        self.address = address
        self.demand = None if address.unix else demand
        self.timeout = timeout
        self.done = done
        self.at: tuple[int, object] | None = None       # the address that was reached
        self.attempt: Connector | PgRequest = Connector(loop, candidates, timeout, self._connected)

    def _connected(self, sock: socket.socket | None, error: str) -> None:
        self.at = self.attempt.at
        if sock is None or self.demand is None:
            self.done(sock, None, error)
        else:
            self.attempt = PgRequest(self.loop, sock, self.demand, self.address, self.timeout, self.done)

    def cancel(self) -> None:
        self.attempt.cancel()


def listens_here(candidates: Candidates) -> bool | None:
    """Whether somebody listens on one of these addresses, if they are of this machine; None: they are not.

    Nothing is sent and nobody is woken: a port that is listened on cannot be bound to, and a stream's Unix socket takes
    no datagrams, but says so.
    """
    known = None
    for family, sockaddr in candidates:
        unix = family == socket.AF_UNIX
        with socket.socket(family, socket.SOCK_DGRAM if unix else socket.SOCK_STREAM) as sock:
            try:
                if unix:
                    sock.connect(sockaddr)
                else:
                    # as servers do, so that one that begins just now is not kept out; only a listener is in the way
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind(sockaddr)
            except OSError as e:
                if e.errno == (errno.EPROTOTYPE if unix else errno.EADDRINUSE):
                    return True
                if e.errno not in (errno.ECONNREFUSED, errno.ENOENT):
                    continue
            known = False
    return known


def send_cancel(loop: Loop, sock: socket.socket, engine: Engine | None, packet: bytes, done) -> None:
    """Sends PostgreSQL's CancelRequest on a new connection; ``done()`` once the server has closed it.

    It closes when it has signalled: only then may a client think it done.
    """
    def answered(mask: int) -> None:
        try:
            if sock.recv(4096):
                return          # TLS has something of its own to say
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        loop.unwatch(sock)
        sock.close()
        done()

    try:
        if engine is not None:
            _, outgoing, sealing = engine
            sealing.write(packet)
            packet = outgoing.read()
        sock.send(packet)
    except OSError:
        pass
    loop.watch(sock, EVENT_READ, answered)
