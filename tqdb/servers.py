"""Servers and what is known of them; the threads that ask them."""

import threading
import time
from collections import deque
from collections.abc import Callable

from tqdb.config import Backend
from tqdb.lookup import Candidates, at_once
from tqdb.loop import Loop
from tqdb.roles import NOT_READY, PRIMARY, REPLICA, UNKNOWN, Asker, Said, UrlAsker
from tqdb.values import Address

PROBE_SECONDS = 0.7         # between questions to one, or attempts to reach it
HURRY_SECONDS = 0.05        # between two questions, at least


class Monitor:
    """A thread that asks one server again and again; ``took(said)`` in the loop."""

    def __init__(self, loop: Loop, asker: Asker, candidates: Candidates, took: Callable[[Said], None]):
        self.loop = loop
        self.asker = asker
        self.candidates = candidates        # replaced whole by the loop
        self.took = took
        self.again = threading.Event()      # it is to ask at once
        self.ended = False
        self.lock = threading.Lock()
        self.said: Said | None = None       # not taken yet
        threading.Thread(target=self._work, name=f"tqdb-monitor-{asker.address}", daemon=True).start()

    def _work(self) -> None:
        while not self.ended:
            self.again.clear()
            try:
                said = self.asker.ask(self.candidates)
            except Exception as e:
                said = Said(None, error=type(e).__name__)
            with self.lock:
                waiting, self.said = self.said is not None, said
            if not waiting:
                self.loop.call_from_thread(self._take)
            if self.again.wait(PROBE_SECONDS):
                time.sleep(HURRY_SECONDS)
        self.asker.close()

    def _take(self) -> None:
        with self.lock:
            said, self.said = self.said, None
        if not self.ended and said is not None:
            self.took(said)

    def hurry(self) -> None:
        self.again.set()

    def end(self) -> None:
        self.ended = True
        self.again.set()


class ServerState:
    """One server and what is known of it. ``up``: None until it was tried; ``error``: why it is not, or has no role."""

    def __init__(self, address: Address, candidates: Candidates | None = None):
        self.address = address
        self.candidates = candidates or at_once(address) or []
        self.named = at_once(address) is None
        self.looked_up = 0.0
        self.up: bool | None = None
        self.error = "not tried yet"
        self.role = UNKNOWN
        self.role_until = float("inf")      # when that is forgotten
        self.said = Said(None)              # by its monitor, last
        self.changes = 0                    # of ``up`` and ``role``: who has tried in vain may try again
        self.monitor: Monitor | None = None
        self.heard = 0.0                    # from the monitor, last
        self.probe = None                   # an attempt to reach it
        self.probed = 0.0
        self.forwarded = False              # at an address of this machine, by something that does not listen
        self.suspect = False                # a connection of a session's has been lost
        self.sessions: set = set()          # that are connected to it

    def __str__(self) -> str:
        return str(self.address)

    @property
    def monitored(self) -> bool:
        """Whether its monitor says also whether it is up."""
        return self.monitor is not None and not isinstance(self.monitor.asker, UrlAsker)

    @property
    def takes_no_writes(self) -> bool:
        """As far as is known."""
        return self.role in (REPLICA, NOT_READY)

    def told(self) -> dict:
        """For ``/stats.json``; times in seconds."""
        said = self.said
        return {"address": str(self), "up": self.up, "error": self.error, "role": self.role, "version": said.version,
                "latency": said.latency, "lag": said.lag, "galera": said.galera, "sessions": len(self.sessions)}

    def trouble(self) -> str:
        """What keeps it from serving, in a few words."""
        return f"{self}: {self.error if not self.up or (self.role == UNKNOWN and self.error) else self.role}"


class Route:
    """To which server a session is connected, and by which address."""

    __slots__ = ("family", "server", "sockaddr", "state")

    def __init__(self, state: "BackendState", server: ServerState, family: int, sockaddr):
        self.state = state
        self.server = server
        self.family = family
        self.sockaddr = sockaddr

    @property
    def role(self) -> str:
        """For people: one of which nothing else is known serves as the primary."""
        return self.server.role if self.server.role != UNKNOWN else PRIMARY


class BackendState:
    """A backend of the configuration, with its servers in the order of preference."""

    def __init__(self, protocol: str, backend: Backend, servers: list[ServerState]):
        self.protocol = protocol
        self.backend = backend
        self.servers = servers
        self.read_write = backend.target == "read-write"
        self.timeline = 0           # the latest of a PostgreSQL primary's
        self.waiting: deque = deque()       # attempts for which there is no server

    def __str__(self) -> str:
        return f"{self.protocol}.{self.backend.name}"

    def unfit(self, server: ServerState) -> bool:
        """Whether it is known to be none that may serve."""
        return self.read_write and server.role not in (PRIMARY, UNKNOWN)

    def rank(self, server: ServerState) -> int | None:
        """How willingly it is tried, 0 first; None: not at all."""
        if self.unfit(server):
            return None
        if server.up is False:
            return 3
        if server.role == NOT_READY:
            return 2
        return int(self.read_write and server.role == UNKNOWN)

    def another(self, than: ServerState) -> bool:
        """Whether a server beside this one may serve, as far as is known."""
        return any(s is not than and s.up and self.rank(s) in (0, 1) for s in self.servers)

    def choose(self, tried: dict[ServerState, int]) -> ServerState | None:
        """The best one that was not tried since it has changed."""
        found = [(rank, i) for i, s in enumerate(self.servers)
                 if (rank := self.rank(s)) is not None and tried.get(s) != s.changes]
        return self.servers[min(found)[1]] if found else None

    def trouble(self) -> str:
        """Why it cannot serve; empty if it can."""
        if any(s.up and self.rank(s) in (0, 1) for s in self.servers):
            return ""
        if len(self.servers) == 1 and not self.unfit(self.servers[0]):
            return f"{self.protocol} backend {self.servers[0].trouble()}"
        wanted = "takes writes" if self.read_write else "is reachable"
        return (f"{self.protocol} backend {self.backend.name}: no server {wanted} "
                f"({'; '.join(s.trouble() for s in self.servers)})")
