"""A backend's servers: which of them takes new sessions, what is known of each, and who is told when that changes.

What is known comes from a monitor (a thread for each server, see ``roles``), from looks at whether somebody listens,
and from what sessions meet. The rest happens in the loop, where nothing here blocks.
"""

import socket
import time
from collections.abc import Callable, Collection
from logging import ERROR, INFO, WARNING

from tqdb.attempts import Attempt
from tqdb.backends import Connector, Reach, listens_here
from tqdb.config import Backend, Config
from tqdb.errors import TqdbError
from tqdb.log import event
from tqdb.lookup import Candidates, Lookups, resolve
from tqdb.loop import Loop
from tqdb.roles import NOT_READY, OUTDATED, PRIMARY, REPLICA, UNKNOWN, Said, asker
from tqdb.servers import PROBE_SECONDS, BackendState, Monitor, Route, ServerState
from tqdb.tls import Demand
from tqdb.values import Address

LOOK_SECONDS = 0.25         # between looks at all servers
PROBE_LIMIT = 1.25          # seconds that an attempt may take: one lost packet is sent again within them
SILENT_SECONDS = 1.9        # without a word of the monitor's after which a server does not answer
LOOKUP_SECONDS = 10         # between looks for a name's addresses …
LOOKUP_AGAIN_SECONDS = 1    # … while it cannot be reached
BELIEVED_SECONDS = 1.5      # for which it holds that a session has met a server that takes no writes …
BELIEVED_LONGER_SECONDS = 30    # … and in addition while another one may serve: to try costs somebody an error
WAKES_PER_TURN = 64         # sessions that wait for a server and go on in one turn
OUTDATED_SECONDS = 1        # for statements under way on a primary that is none any more: what it writes is lost
LEAVE_STEP_SECONDS = 0.02   # between looks for sessions that are to end and have become idle
LEAVES_PER_STEP = 200

SAYS = {"primary": PRIMARY, "replica": REPLICA, "not_ready": NOT_READY, "read_only": REPLICA}


class Fleet:
    """The default backends' servers. ``failed(place, error)`` is told what goes wrong, ``find`` looks names up."""

    def __init__(self, loop: Loop, config: Config, demands: dict[tuple[str, str], Demand],
                 failed: Callable[[str, Exception], None], find: Callable = socket.getaddrinfo):
        self.loop = loop
        self.config = config
        self.demands = demands
        self.failed = failed
        self.lookups = Lookups(loop, find)
        self.attempts: set[Attempt] = set()
        self.leaving: dict[object, float] = {}      # session that is to end -> when it is cut off
        self.waits = True                           # sessions may wait for a server
        self.backends: dict[str, BackendState] = {
            name: self._backend(name, protocol.backend, {}) for name, protocol in config.protocols()}

    def _backend(self, protocol: str, backend: Backend, known: dict[Address, ServerState]) -> BackendState:
        return BackendState(protocol, backend, [known.get(a) or ServerState(a) for a in backend.primary])

    def look_up(self) -> None:
        """The names' first addresses: this once it may block. TqdbError: a backend has none at all."""
        for state in self.backends.values():
            errors = []
            for server in state.servers:
                try:
                    server.candidates = resolve(server.address, self.lookups.find)
                except TqdbError as e:
                    errors.append(str(e))
                    server.error = str(e).removeprefix(f"{server}: ")
                server.looked_up = time.monotonic()
            if len(errors) == len(state.servers):
                raise TqdbError("; ".join(errors))

    def start(self) -> None:
        """Begins to look after the servers."""
        for state in self.backends.values():
            self._monitor(state)
        self._look()

    def _monitor(self, state: BackendState) -> None:
        for server in state.servers:
            if server.monitor is None:
                who = asker(state.protocol, state.backend, server.address,
                            self.demands.get((state.protocol, state.backend.name)))
                if who is not None:
                    server.heard = time.monotonic()
                    server.monitor = Monitor(self.loop, who, server.candidates,
                                             lambda said, server=server: self._said(state, server, said))

    def reconfigure(self, config: Config, demands: dict[tuple[str, str], Demand], names: Collection[str]) -> None:
        """Another configuration, for the protocols in ``names``. Servers that stay keep what is known of them."""
        self.config = config
        self.demands = {key: demand for of, some in ((False, self.demands), (True, demands))
                        for key, demand in some.items() if (key[0] in names) is of}
        for name in names:
            before = self.backends[name]
            known = {s.address: s for s in before.servers}
            state = self.backends[name] = self._backend(name, getattr(config, name).backend, known)
            # an outdated one stays so as long as the other is there
            state.timeline = max([s.said.timeline for s in state.servers if s.up and s.role == PRIMARY], default=0)
            for server in known.values():
                self._forget_probe(server)
                if server.monitor is not None:
                    server.monitor.end()            # it may ask otherwise now
                    server.monitor = None
                    server.role_until = time.monotonic() + BELIEVED_SECONDS
                for session in server.sessions:
                    session.route.state = state
                if server not in state.servers or state.unfit(server):
                    self.leave(server.sessions)
            self._monitor(state)
            state.waiting = before.waiting
            for attempt in [a for a in self.attempts if a.state is before]:
                attempt.moved(state)
            self._changed(state)
        self.look_up_again()

    def look_up_again(self) -> None:
        """Names are looked up again now."""
        for state in self.backends.values():
            for server in state.servers:
                server.looked_up = 0.0

    # --- sessions ---------------------------------------------------------------------------------

    def reach(self, state: BackendState, server: ServerState, timeout: float, done,
              candidates: Candidates | None = None) -> Reach:
        """A connection to the server, which is its session's to be when it is there; ``done``: see ``Reach``."""
        demand = self.demands.get((state.protocol, state.backend.name)) if state.protocol == "postgres" else None
        return Reach(self.loop, server.address, candidates or server.candidates, demand, timeout, done)

    def connect(self, state: BackendState, done) -> Attempt:
        """A connection to a server that may serve; ``done``: see ``Attempt``."""
        attempt = Attempt(self, state, done)
        self.attempts.add(attempt)
        return attempt

    def attached(self, session, route: Route) -> None:
        session.route = route
        session.read_only = route.server.takes_no_writes
        route.server.sessions.add(session)

    def detached(self, session) -> None:
        if session.route is not None:
            session.route.server.sessions.discard(session)
        self.leaving.pop(session, None)

    def lost(self, route: Route | None) -> None:
        """A server connection has ended, and not because its client had gone."""
        if route is not None and not route.server.suspect:
            route.server.suspect = True
            route.server.probed = 0.0
            if route.server.monitor is not None:
                route.server.monitor.hurry()
            self.loop.call_later(0, lambda: self._probe(route.state, route.server))

    def server_says(self, session, what: str) -> None:
        """See ``_core.Engine``. A monitor that can tell knows better, and is asked."""
        route = session.route
        if route is None:
            return
        server = route.server
        if server.monitor is not None:
            if SAYS[what] != server.role:
                server.monitor.hurry()
            if server.said.role != UNKNOWN:
                return
        role, until = SAYS[what], float("inf")
        # who is not used any more, or tells nothing when it changes, is given another chance
        if role != PRIMARY and not (what == "replica" and route.state.protocol == "postgres"
                                    and not route.state.read_write):
            until = time.monotonic() + BELIEVED_SECONDS
        elif role == server.role:
            return
        # told from within the core: sessions are ended from the loop
        self.loop.call_later(0, lambda: self._is(route.state, server, role, until, what != "read_only"))

    def leave(self, sessions, seconds: float | None = None) -> None:
        """Ends sessions as a server would that shuts down: idle ones at once, others after what is under way.

        That has ``seconds``, by default ``drain_timeout``, and no more than that.
        """
        limit = self.config.limits.drain_timeout
        until = time.monotonic() + (limit if seconds is None else min(limit, seconds))
        idle = not self.leaving
        for session in sessions:
            if session.route is not None and not session.closing:
                session.leaving = True
                self.leaving[session] = min(until, self.leaving.get(session, until))
        if idle and self.leaving:
            self.loop.call_later(0, self._leave_step)       # they may be in the middle of a message

    def leave_all(self) -> int:
        """All sessions that have a server, which they may find again; their number."""
        for state in self.backends.values():
            for server in state.servers:
                self.leave(server.sessions)
        return len(self.leaving)

    def _leave_step(self) -> None:
        now = time.monotonic()
        ended = 0
        for session, until in list(self.leaving.items()):
            if session.closing:
                del self.leaving[session]
                continue
            if not session.idle and now < until:
                continue
            del self.leaving[session]
            ended += 1
            try:
                if session.idle:
                    session.refuse("shutdown", "terminating connection due to administrator command")
                else:
                    session.abort()         # what becomes of its statement nobody knows
            except Exception as e:
                self.failed("leave", e)
            if ended >= LEAVES_PER_STEP:
                break
        if self.leaving:
            self.loop.call_later(LEAVE_STEP_SECONDS, self._leave_step)

    # --- what is known ----------------------------------------------------------------------------

    def _look(self) -> None:
        self.loop.call_later(LOOK_SECONDS, self._look)
        now = time.monotonic()
        for state in self.backends.values():
            for server in state.servers:
                again = LOOKUP_SECONDS if server.up else LOOKUP_AGAIN_SECONDS
                if server.named and now - server.looked_up >= again:
                    server.looked_up = now
                    self.lookups.ask(server.address, lambda found, error, server=server:
                                     self._looked_up(server, found, error))
                if now >= server.role_until + (BELIEVED_LONGER_SECONDS if state.another(server) else 0):
                    self._is(state, server, UNKNOWN, float("inf"), False)
                if server.monitored and now - server.heard >= SILENT_SECONDS:
                    self.down(state, server, "it does not answer")
                if now - server.probed >= PROBE_SECONDS:
                    self._probe(state, server)

    def _looked_up(self, server: ServerState, found: Candidates, error: str) -> None:
        """A name that cannot be told now is still where it was."""
        if found and found != server.candidates:
            if server.candidates:
                event(INFO, "address_changed", f"{server} is now {', '.join(str(a[0]) for _, a in found)}",
                      address=str(server), found=[str(a[0]) for _, a in found])
            server.candidates = found
            if server.monitor is not None:
                server.monitor.candidates = found
                server.monitor.hurry()
        elif not found and not server.candidates:
            server.error = error

    def _probe(self, state: BackendState, server: ServerState) -> None:
        """Whether somebody listens there. What tells nothing new, or by itself, is not asked.

        MariaDB takes connections that do not log in for attacks, and shuts out from where a hundred come in a row: so
        one elsewhere is only tried while it is not known to be up, or a session has lost it.
        """
        if server.probe is not None or server not in state.servers or self.backends.get(state.protocol) is not state:
            return
        if server.monitored:
            server.suspect = False
            return
        server.probed = time.monotonic()
        suspect, server.suspect = server.suspect, False
        if not server.candidates:
            self.down(state, server, server.error)
            return
        here = None if server.forwarded else listens_here(server.candidates)
        if server.up and (here or (here is None and state.protocol == "mariadb" and not suspect)):
            return

        def done(sock, engine, error):
            server.probe = None
            if sock is None:
                self.down(state, server, error)
            else:
                sock.close()
                server.forwarded = here is False
                self.reached(state, server)

        if server.up:
            server.probe = Connector(self.loop, server.candidates, PROBE_LIMIT,
                                     lambda sock, error: done(sock, None, error))
        else:
            server.probe = self.reach(state, server, PROBE_LIMIT, done)

    def _forget_probe(self, server: ServerState) -> None:
        if server.probe is not None:
            server.probe.cancel()
            server.probe = None

    def _said(self, state: BackendState, server: ServerState, said: Said) -> None:
        """The monitor has asked."""
        server.heard = time.monotonic()
        before, server.said = server.said, said
        if said.up is False:
            self.down(state, server, said.error)
            return
        if said.up:
            self.reached(state, server)
        if said.error and said.error != server.error:
            event(WARNING, "role_unknown", f"{state.protocol} server {server} does not say what it is: {said.error}",
                  protocol=state.protocol, address=str(server), error=said.error)
        if server.up:
            server.error = said.error
        state.timeline = max(state.timeline, said.timeline)
        if said.role != UNKNOWN or before.role != UNKNOWN:
            self._is(state, server, said.role, float("inf"), True)      # else what sessions have met holds

    def reached(self, state: BackendState, server: ServerState) -> None:
        if server.up is True:
            return
        if server.up is False:
            event(INFO, "backend_up", f"{state.protocol} backend {server} is reachable again", protocol=state.protocol,
                  address=str(server))
        server.up, server.error = True, ""
        server.changes += 1
        self._changed(state)

    def down(self, state: BackendState, server: ServerState, error: str) -> None:
        if server.up is not False:
            event(ERROR, "backend_down", f"{state.protocol} backend {server} is not reachable: {error}",
                  protocol=state.protocol, address=str(server), error=error)
            server.changes += 1
            server.looked_up = min(server.looked_up, time.monotonic() - LOOKUP_SECONDS)
            server.up = False
            server.error = error
            # it may come back as anything
            self._is(state, server, UNKNOWN, float("inf"), False)
            self._changed(state)
        server.error = error

    def _is(self, state: BackendState, server: ServerState, role: str, until: float, firm: bool) -> None:
        """What it is, as far as is known; ``firm``: its sessions are told if that is not what is asked for."""
        server.role_until = until
        if role == PRIMARY and 0 < server.said.timeline < state.timeline:
            role = OUTDATED             # a standby was promoted meanwhile: what is written here would be lost
        if role == server.role or (server.up is False and role != UNKNOWN):
            return
        if role != UNKNOWN:
            event(INFO, "role", f"{state.protocol} server {server} is now {role}", protocol=state.protocol,
                  address=str(server), role=role, before=server.role)
        server.role = role
        server.changes += 1
        for session in server.sessions:
            session.read_only = firm and server.takes_no_writes
        if firm and state.unfit(server):
            self.leave(server.sessions, OUTDATED_SECONDS if role == OUTDATED else None)
        if role == PRIMARY:
            for other in state.servers:
                if other is not server and other.role == PRIMARY:
                    self._is(state, other, PRIMARY, other.role_until, True)
        self._changed(state)

    def _changed(self, state: BackendState) -> None:
        """Whoever tries or waits looks again."""
        for attempt in [a for a in self.attempts if a.state is state and a.server is not None]:
            attempt.changed()
        if state.waiting:
            self.loop.call_later(0, lambda: self._wake(state, len(state.waiting)))

    def _wake(self, state: BackendState, count: int) -> None:
        for _ in range(min(count, WAKES_PER_TURN, len(state.waiting))):
            state.waiting.popleft().changed()
        if count > WAKES_PER_TURN:
            self.loop.call_later(0, lambda: self._wake(state, count - WAKES_PER_TURN))

    def trouble(self) -> str:
        """Why not every default backend can serve; empty if they can."""
        return next(filter(None, (state.trouble() for state in self.backends.values())), "")

    def close(self) -> None:
        self.waits = False
        for attempt in list(self.attempts):
            attempt.cancel()
        for state in self.backends.values():
            for server in state.servers:
                self._forget_probe(server)
                if server.monitor is not None:
                    server.monitor.end()
        self.lookups.close()
