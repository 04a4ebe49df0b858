"""Joins sessions of the core to model servers, and delivers bytes as a test wants it.

A ``Link`` is one client with its session, its server connection and the model's end of that. Bytes move in *steps*,
six for each link; ``Wire.run`` makes them until nothing moves, in a fixed order or by ``choose``. What ``take_out``
has given counts as handed to the socket. A kill may come between any two steps.
"""

from collections.abc import Callable
from functools import lru_cache

from tqdb._core import Engine, MyServer, MySession, PgServer, PgSession

from tests import sansio
from tests.model import talk
from tests.model.mariadb import MyModel
from tests.model.postgres import PgModel
from tests.model.store import MESSAGE, Store
from tqdb import policy

MAX_STEPS = 200_000


class Hooks(sansio.Hooks):
    """The cold side: connecting is at once. ``broken`` are names of hooks that raise, with how often they still do."""

    # thousands of engines meet the same shapes, and each would have them parsed
    analyze = staticmethod(lru_cache(4096)(policy.analyze))
    analyze_statement = staticmethod(lru_cache(4096)(policy.analyze_statement))

    def __init__(self, wire: "Wire"):
        self.wire = wire
        self.broken: dict[str, int] = {}
        self.refusals: list[tuple[str, str]] = []
        self.connecting: Link | None = None

    def __getattribute__(self, name: str):
        broken = object.__getattribute__(self, "__dict__").get("broken")
        if broken and broken.get(name):
            def fail(*_):
                broken[name] -= 1
                raise RuntimeError(f"{name} is broken")
            return fail
        return object.__getattribute__(self, name)

    def connect(self, session) -> None:
        link = self.wire.link_of(session)
        link.server = (PgServer if self.wire.postgres else MyServer)(self.wire.engine)
        link.model = (PgModel if self.wire.postgres else MyModel)(self.wire.store)
        session.attach(link.server)

    def cancel(self, session, packet, key) -> None:
        session.abort()

    def status_variables(self, sql, session):
        return None

    def status_sql(self, dialect, sql, session):
        return None

    def refused(self, session, kind, message) -> None:
        self.refusals.append((kind, message))

    def server_says(self, session, what) -> None:
        """There is one server, and it stays what it is."""

    def session_closed(self, session) -> None:
        """Nothing is kept of it."""

    def server_closed(self, server) -> None:
        """Nothing is kept of it."""

    def slow_batch(self, leader, writes, seconds) -> None:
        """Nobody is told."""


class Link:
    """``sent``: all that was handed to the server's socket; ``answers``: all that the client got since login.

    ``held_up``, ``held_down``: what was taken is not delivered to the model, to the core; ``held_back``: what lies in
    the core for the server is not even taken.
    """

    def __init__(self, wire: "Wire", session):
        self.wire = wire
        self.session = session
        self.server = None
        self.model = None
        self.inbox, self.up, self.down = bytearray(), bytearray(), bytearray()
        self.sent, self.answers = bytearray(), bytearray()
        self.held_up = self.held_down = self.held_back = False
        self.client_gone = self.model_told = self.server_told = False

    def send(self, data: bytes, size: int = 0) -> None:
        """The client's bytes reach the core now, in pieces of ``size``; 0: whole."""
        for i in range(0, len(data), size or len(data) or 1):
            if not self.session.closed:
                self.session.receive(data[i:i + (size or len(data))])

    def post(self, data: bytes) -> None:
        """The client's bytes are under way; steps deliver them."""
        self.inbox += data

    @property
    def ended(self) -> bool:
        return self.session.closed

    def taken(self) -> bytes:
        """The answers so far, which are then forgotten."""
        data = bytes(self.answers)
        self.answers.clear()
        return data

    # --- steps: each says whether there was something to do; ``amount`` bounds the bytes of a delivery -----------

    def deliver_client(self, amount: int) -> bool:
        if not self.inbox or self.session.closed or self.client_gone:
            return False
        self.session.receive(bytes(self.inbox[:amount]))
        del self.inbox[:amount]
        return True

    def take_up(self, amount: int) -> bool:
        if self.server is None or self.held_back or self.server.closed:
            return False
        data = self.server.take_out()
        self.sent += data
        self.up += data
        if self.server.closing:
            self.server.abort()
            self.wire.engine.settle()
            return True
        return bool(data)

    def deliver_up(self, amount: int) -> bool:
        if self.model is None or self.held_up:
            return False
        if self.up:
            if not self.model.closed:
                self.model.receive(bytes(self.up[:amount]))
            del self.up[:amount]
            return True
        if self.server.closed and not self.model_told:
            self.model_told = True
            self.model.receive_eof()
            return True
        return False

    def take_down(self, amount: int) -> bool:
        if self.model is None:
            return False
        data = self.model.take_out()
        self.down += data
        return bool(data)

    def deliver_down(self, amount: int) -> bool:
        if self.model is None or self.held_down:
            return False
        if self.model.closed:
            self.take_down(amount)          # its end comes behind its last words
        if self.down:
            if not self.server.closed:
                self.check_due()
                self.server.receive(bytes(self.down[:amount]))
            del self.down[:amount]
            return True
        if self.model.closed and not self.server_told:
            self.server_told = True
            if not self.server.closed:
                self.server.receive_eof()
            return True
        return False

    def check_due(self) -> None:
        """The socket of a server connection is read when what is due has come: it comes, or the core waits for ever."""
        if not self.up and not self.server.out and self.model.wants is MESSAGE and not self.model.closed:
            self.down += self.model.take_out()
            assert len(self.down) >= self.server.awaited_bytes

    def take_answers(self, amount: int) -> bool:
        if self.session.closed:
            return False
        data = self.session.take_out()
        self.answers += data
        if self.session.closing:
            self.session.abort()
            self.wire.engine.settle()
            return True
        return bool(data)

    STEPS = (deliver_client, take_up, deliver_up, take_down, deliver_down, take_answers)

    def step(self, amount: int) -> bool:
        """The first of them that can be made; False if none can. Written out, for nothing is called as often."""
        return (self.deliver_client(amount) or self.take_up(amount) or self.deliver_up(amount)
                or self.take_down(amount) or self.deliver_down(amount) or self.take_answers(amount))

    # --- ends -----------------------------------------------------------------------------------------------------

    def kill_client(self, reset: bool = False) -> None:
        """The client goes; ``reset``: with what lay ready for it."""
        if reset and not self.session.closed:
            self.session.take_out()
        self.client_gone = True
        self.inbox.clear()
        if not self.session.closed:
            self.session.receive_eof()

    def kill_server(self, lost: bool = True, run: bool = False, told: bool = False) -> None:
        """The server's process for this connection ends, as by a crash; ``told``: as by pg_terminate_backend.

        ``run``: what was under way to it is done before; ``lost``: answers that were under way do not arrive. The core
        hears of it at once.
        """
        if self.model is None:
            return
        if run and not self.model.closed:
            self.model.receive(bytes(self.up))
        self.up.clear()
        self.model.kill(told)
        self.down += self.model.take_out()
        if lost:
            self.down.clear()
        self.held_down = False
        while self.deliver_down(1 << 30):
            self.take_down(1 << 30)


class Wire:
    """``limits`` are the engine's (``max_batch_size=3``). The clock stands still unless ``tick`` moves it.

    ``amount``: bytes that ``run`` delivers at a time.
    """

    def __init__(self, protocol: str, store: Store | None = None, **limits):
        self.postgres = protocol == "postgres"
        self.store = store or Store()
        self.hooks = Hooks(self)
        self.engine = Engine(self.hooks)
        for name, value in limits.items():
            setattr(self.engine, name, value)
        self.links: list[Link] = []
        self.amount = 1 << 30
        self.now = 1000.0
        self.engine.tick(self.now)

    def link_of(self, session) -> Link:
        return next(link for link in self.links if link.session is session)

    def connect(self) -> Link:
        """A client that has not said anything yet."""
        link = Link(self, (PgSession if self.postgres else MySession)(self.engine))
        self.links.append(link)
        if not self.postgres:
            link.session.connect()
        return link

    def login(self, user: str = "u", **more) -> Link:
        link = self.connect()
        if self.postgres:
            link.send(talk.startup(user, **more))
        else:
            self.run([link])
            link.send(talk.handshake(user, **more))
        self.run([link])
        assert link.session.logged_in, bytes(link.answers)
        link.answers.clear()
        link.sent.clear()
        return link

    def step(self, links: list[Link] | None = None) -> bool:
        """The first step that can be made; False if none can."""
        return any(link.step(self.amount) for link in links or self.links)

    def run(self, links: list[Link] | None = None, until: Callable[[], bool] = lambda: False) -> bool:
        """Steps until ``until`` is true, which is returned, or nothing moves."""
        for _ in range(MAX_STEPS):
            if until():
                return True
            if not self.step(links):
                return until()
        raise AssertionError("the conversation does not come to an end")

    def tick(self, milliseconds: float = 1.0) -> None:
        self.now += milliseconds / 1000
        self.engine.tick(self.now)

    def finish(self) -> None:
        """Runs and lets time pass until nothing is gathered and nothing moves any more."""
        for _ in range(20):
            self.run()
            self.tick(100)
            if not self.engine.gathered and not self.step():
                break
        self.run()

    def stuck(self) -> list[int]:
        """Links whose session is still owed something."""
        return [i for i, link in enumerate(self.links) if not link.ended and not link.session.idle]


class Direct:
    """The same clients without a proxy: their bytes go to a model server of their own. The oracle."""

    def __init__(self, protocol: str, store: Store):
        self.postgres = protocol == "postgres"
        self.store = store

    def login(self, user: str = "u", **more):
        model = (PgModel if self.postgres else MyModel)(self.store)
        model.receive(talk.startup(user, **more) if self.postgres else talk.handshake(user, **more))
        model.take_out()
        return model
