"""Ways to a backend's servers: a session's, to the one that may serve; a cancel's."""

import time
from collections.abc import Callable

from tqdb.backends import Reach, send_cancel
from tqdb.servers import BackendState, Route, ServerState


class Attempt:
    """A session's way to a server: those that may serve in turn, and waiting for one where none is left.

    ``fleet``: a ``fleet.Fleet``. ``done(route, sock, engine, error)`` once; ``route`` is None after an error.
    """

    def __init__(self, fleet, state: BackendState, done):
        self.fleet = fleet
        self.state = state
        self.done = done
        self.deadline = time.monotonic() + fleet.config.limits.server_connect_timeout
        self.tried: dict[ServerState, int] = {}
        self.server: ServerState | None = None      # that is being tried
        self.reach: Reach | None = None
        self.timer = None
        self.error = ""
        self.go_on()

    def go_on(self) -> None:
        """Tries the next one."""
        left = self.deadline - time.monotonic()
        server = self.state.choose(self.tried) if left > 0 else None
        if server is None:
            self._wait(left)
            return
        untried = sum(self.tried.get(s) != s.changes and self.state.rank(s) is not None for s in self.state.servers)
        self.server = server
        self.reach = self.fleet.reach(self.state, server, left / untried, self._reached)

    def _reached(self, sock, engine, error: str) -> None:
        server, reach, self.server, self.reach = self.server, self.reach, None, None
        if sock is None:
            self.error = f"could not connect to server at {server}: {error}"
            self.fleet.down(self.state, server, error)
            self.tried[server] = server.changes
            self.go_on()
            return
        if not server.monitored:
            self.fleet.reached(self.state, server)
        self._finish(Route(self.state, server, *reach.at), sock, engine, "")

    def _wait(self, left: float) -> None:
        """Nobody is left: where one must take writes, one may be about to."""
        if self.state.read_write and left > 0 and self.fleet.waits:
            self.timer = self.fleet.loop.call_later(left, self._give_up)
            self.state.waiting.append(self)
        else:
            # who asks for a connection may be in the middle of a message
            self.timer = self.fleet.loop.call_later(0, self._give_up)

    def _give_up(self) -> None:
        if self in self.state.waiting:
            self.state.waiting.remove(self)
        if len(self.state.servers) > 1 or not self.error:
            self.error = f"could not connect to server: {self.state.trouble() or 'none has answered in time'}"
        self._finish(None, None, None, self.error)

    def changed(self) -> None:
        """Something has: one that waits tries again, one that tries a server which may be gone takes a better one."""
        if self.server is None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
            self.go_on()
            return
        rank = self.state.rank(self.server)
        better = self.state.choose(self.tried)
        if better is not None and better is not self.server and (rank is None or self.state.rank(better) < rank):
            self.reach.cancel()
            self.server = self.reach = None
            self.go_on()

    def moved(self, state: BackendState) -> None:
        """The configuration has changed: what is being tried may not be there any more."""
        self.state = state
        if self.server is not None and self.server not in state.servers:
            self.reach.cancel()
            self.server = self.reach = None
            self.go_on()

    def _finish(self, route: Route | None, sock, engine, error: str) -> None:
        self.fleet.attempts.discard(self)
        done, self.done = self.done, None
        if done is not None:
            done(route, sock, engine, error)

    def cancel(self) -> None:
        self.done = None
        if self.reach is not None:
            self.reach.cancel()
        if self.timer is not None:
            self.timer.cancel()
        if self in self.state.waiting:
            self.state.waiting.remove(self)
        self.fleet.attempts.discard(self)


class Cancelling:
    """PostgreSQL's CancelRequest on its way: to the server that has ``target``, a session; None: to all of a backend's.

    ``done()`` once every server that could be reached has seen to it, or the time for that is over.
    """

    def __init__(self, fleet, state: BackendState, target, packet: bytes, done: Callable[[], None]):
        self.fleet = fleet
        self.packet = packet
        self.done: Callable[[], None] | None = done
        route = target.route if target is not None else None
        if route is not None:
            found = [(route.state, route.server, [(route.family, route.sockaddr)])]
        else:
            found = [(state, server, server.candidates) for server in state.servers if server.up]
        self.under_way: dict[ServerState, Reach | None] = {server: None for _, server, _ in found}
        limit = fleet.config.limits.server_connect_timeout
        self.timer = fleet.loop.call_later(limit if found else 0, self._finish)
        for state_, server, candidates in found:
            self.under_way[server] = fleet.reach(
                state_, server, limit, lambda sock, engine, error, server=server: self._reached(server, sock, engine),
                candidates)

    def _reached(self, server: ServerState, sock, engine) -> None:
        if sock is None:
            self._seen_to(server)
        else:
            self.under_way[server] = None
            send_cancel(self.fleet.loop, sock, engine, self.packet, lambda: self._seen_to(server))

    def _seen_to(self, server: ServerState) -> None:
        self.under_way.pop(server, None)
        if not self.under_way:
            self._finish()

    def _finish(self) -> None:
        done = self.done
        self.cancel()
        if done is not None:
            done()

    def cancel(self) -> None:
        """Its client has gone; what was sent is sent."""
        self.done = None
        self.timer.cancel()
        for reach in self.under_way.values():
            if reach is not None:
                reach.cancel()
        self.under_way.clear()
