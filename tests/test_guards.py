"""What goes wrong inside ends what it concerns, and nothing else; draining refuses nothing that it has taken; a client
that does not read keeps nobody waiting."""

import selectors
import socket
import time

import pytest
from tqdb._core import Engine, MyServer, MySession, PgServer, PgSession, Stream

from tests.model import talk
from tests.model.mariadb import MyModel
from tests.model.postgres import PgModel
from tests.model.scene import ALL_FORMS, FORMS, HINT, PROTOCOLS, Scene, query, tables
from tests.model.wire import Hooks, Link
from tests.test_vanishing import leads
from tests.wire import my
from tqdb.loop import Loop

# --- hooks that raise -------------------------------------------------------------------------------------------------

UPDATE = HINT + "UPDATE c SET a = a + 2 WHERE k = 0"


def slow(scene: Scene, victim: Link) -> None:
    """A batch that takes longer than a second."""
    for link in scene.links:
        scene.say(link, scene.write())
    scene.wire.run(until=lambda: any(b"INSERT" in link.up for link in scene.links))
    scene.wire.tick(5_000)


def gathered_and(scene: Scene, victim: Link, sql: str) -> None:
    for link in scene.links:
        scene.say(link, scene.write())
    scene.wire.finish()
    scene.say(victim, scene.query(sql))


def newcomer(scene: Scene, victim: Link) -> None:
    """Somebody else logs in, or tries to."""
    link = scene.wire.connect()
    scene.wire.run([link])
    link.send(talk.startup("u") if scene.protocol == "postgres" else talk.handshake("u"))
    scene.wire.run([link])
    link.kill_client()


BOTH = {
    "analyze": lambda s, v: s.say(v, s.query(HINT + "INSERT INTO n (a) VALUES (1)")),
    "analyze_statement": lambda s, v: s.say(v, s.query(UPDATE)),
    "probe_sql": lambda s, v: s.say(v, s.query(HINT + "INSERT INTO n (a) VALUES (1)")),
    "judge": lambda s, v: s.say(v, s.query(HINT + "INSERT INTO n (a) VALUES (1)")),
    "slow_batch": slow,
    "status_sql": lambda s, v: v.send(s.query("SHOW TQDB STATUS")),
    "session_closed": lambda s, v: v.kill_client(),
    "server_closed": lambda s, v: v.kill_server(),
    "refused": lambda s, v: v.send(b"~~~~~~~~"),
    "connect": newcomer,
}
HOOKS = {
    "postgres": {
        **BOTH, "session_wait": lambda s, v: s.say(v, s.query("SET x.y = 1")), "startup_wait": newcomer,
        "pieces": lambda s, v: s.say(v, talk.unit(HINT + "INSERT INTO t (k, a) VALUES ($1, 1 + $2)", (s.key(), 1))),
        "cancel": lambda s, v: s.wire.connect().send(b"\0\0\0\x10\x04\xd2\x16\x2e" + b"\0\0\0\1\0\0\0\1")},
    "mariadb": {
        **BOTH, "session_wait": lambda s, v: s.say(v, s.query("SET @a = 1")),
        "status_variables": lambda s, v: v.send(my(0, b"\x16SHOW TQDB STATUS")),
        "killed_query": lambda s, v: s.say(v, s.query("KILL QUERY 1")),
        "row_count_sql": lambda s, v: gathered_and(s, v, "SELECT ROW_COUNT(), FOUND_ROWS()")}}


@pytest.mark.parametrize("times", [1, 1000])
@pytest.mark.parametrize("protocol, hook", [(protocol, hook) for protocol in PROTOCOLS for hook in HOOKS[protocol]])
def test_a_hook_that_raises(protocol, hook, times):
    """Once, or until it is mended: everybody else is answered meanwhile and afterwards, and it was counted.

    What the one that it concerns is told is its own affair; a slow batch concerns its leader.
    """
    scene = Scene(protocol, clients=4).ready()
    victim, *others = scene.links
    for link in others:
        scene.say(link, scene.write())          # gathered: the victim may still come
    scene.wire.hooks.broken[hook] = times
    HOOKS[protocol][hook](scene, victim)
    scene.wire.finish()
    if hook == "slow_batch":
        others = [link for link in scene.links if not leads(link)]
    for link in others:
        scene.say(link, scene.query("SELECT 3"))
    scene.wire.finish()
    errors = scene.wire.engine.stats.internal_errors
    assert sum(errors.values()) >= 1 and all(isinstance(place, str) for place in errors)
    scene.wire.hooks.broken.clear()
    assert not any(link.ended for link in others)
    for link in scene.links:
        if link not in others:
            link.kill_client()
    scene.wire.finish()
    scene.go_on()
    newest = scene.wire.login()
    newest.send(scene.write())
    scene.wire.finish()
    assert newest.answers and newest.session.idle and not scene.wire.stuck()
    assert all(bytes(link.answers) == scene.direct(link) for link in others)


@pytest.mark.parametrize("hook", ["judge", "slow_batch", "server_closed"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_drain_comes_to_an_end_although_a_hook_raises(protocol, hook):
    scene = Scene(protocol, clients=3).ready()
    scene.wire.hooks.broken[hook] = 1000
    scene.say(scene.links[0], scene.query(HINT + "INSERT INTO n (a) VALUES (1)"))
    scene.say(scene.links[1], scene.write())
    scene.wire.tick(3_000)
    scene.links[2].kill_server()
    scene.wire.engine.drain()
    scene.wire.finish()
    assert all(link.session.idle or link.ended for link in scene.links)
    assert scene.wire.engine.gathered == scene.wire.engine.batches_running == 0


def test_what_a_server_must_not_say():
    """A message of a length that cannot be, in the middle of a batch: its leader ends, the others are answered."""
    scene = Scene("postgres", clients=3).ready()
    for link in scene.links:
        scene.say(link, scene.write())
    assert scene.wire.run(until=lambda: any(b"BEGIN" in link.sent for link in scene.links))
    leader = scene.leader()
    leader.server.receive(b"C\0\0\0\1")
    scene.wire.finish()
    assert leader.ended
    assert all(b"INSERT 0 1" in link.answers[-30:] for link in scene.links if link is not leader)


# --- draining ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("protocol, form", ALL_FORMS)
def test_drain_while_the_catalogue_is_asked(protocol, form):
    """The held write is sent and answered, not refused; nobody may think the session idle meanwhile."""
    scene = Scene(protocol, clients=2, warm=False).ready()
    a, b = scene.links
    a.held_up = True
    scene.say(a, FORMS[protocol][form](scene.key()))
    scene.wire.run()
    scene.say(b, FORMS[protocol][form](scene.key()))
    scene.wire.engine.drain()
    scene.wire.run([a])
    assert not a.session.idle
    a.held_up = False
    scene.wire.finish()
    assert a.session.idle and b.session.idle
    scene.go_on()
    scene.check()


@pytest.mark.parametrize("protocol, form", ALL_FORMS)
def test_drain_at_every_step(protocol, form):
    """Gathered, sent, answered, failed and tried again: all is answered as directly, and afterwards idle."""
    for at in range(40):
        scene = Scene(protocol, clients=4, warm=at % 2 == 0).ready()
        for number, link in enumerate(scene.links):
            if number:
                scene.say(link, FORMS[protocol][form](scene.key(), -(number == 2)))
        for _ in range(at):
            if not scene.wire.step():
                scene.wire.tick(6)
        busy = [link for link in scene.links if len(link.answers) < len(scene.direct(link))]
        scene.wire.engine.drain()
        assert not any(link.session.idle and len(link.session.out) == 0 for link in busy)
        scene.wire.finish()
        assert all(link.session.idle for link in scene.links)
        scene.finish()


# --- a client that does not read --------------------------------------------------------------------------------------

class Sockets:
    """Sessions on socket pairs in the proxy's own loop, turned by hand, before model servers."""

    def __init__(self, protocol: str, piece: int = 1 << 20):
        self.protocol = protocol
        self.piece = piece              # bytes of an answer that a server sends at once
        self.wire = self
        self.store = tables(protocol)
        self.loop = Loop()
        self.engine = Engine(Hooks(self))
        self.engine.hooks.connect = self.connect
        self.clients: list[socket.socket] = []
        self.sessions: list = []
        self.servers: list[tuple[socket.socket, object, bytearray]] = []

    def connect(self, session) -> None:
        near, far = pair()
        server = (PgServer if self.protocol == "postgres" else MyServer)(self.engine)
        model = (PgModel if self.protocol == "postgres" else MyModel)(self.store)
        self.servers.append((far, model, bytearray()))
        session.attach(server)
        Stream(near, server, self.loop)

    def login(self) -> socket.socket:
        near, far = pair()
        session = (PgSession if self.protocol == "postgres" else MySession)(self.engine)
        self.sessions.append(session)
        Stream(near, session, self.loop)
        if self.protocol == "mariadb":
            session.connect()
            self.engine.settle()
            self.turn(until=lambda: readable(far))
        far.send(talk.startup("u") if self.protocol == "postgres" else talk.handshake("u"))
        self.turn(until=lambda: session.logged_in)
        self.clients.append(far)
        read(far)
        return far

    def turn(self, until, turns: int = 20_000) -> bool:
        """Turns the loop and the servers until it is so; False: it does not come to be."""
        for _ in range(turns):
            if until():
                return True
            for key, mask in self.loop.selector.select(0):
                key.data(mask)
            self.engine.tick(time.monotonic())
            for sock, model, out in self.servers:
                data = read(sock)
                if data:
                    model.receive(data)
                out += model.take_out()
                if out:
                    try:
                        del out[:sock.send(out[:self.piece])]
                    except BlockingIOError:
                        pass
        return until()

    def close(self) -> None:
        for session in self.sessions:
            session.abort()
        for sock in [*self.clients, *(sock for sock, _, _ in self.servers)]:
            sock.close()
        self.loop.close()


def pair() -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def readable(sock: socket.socket) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return bool(selector.select(0))


def read(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1 << 20)
    except BlockingIOError:
        return b""


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_slow_reader_keeps_nobody_waiting(protocol, which):
    """One of four, of whom one has led last, is idle and does not fetch what lies ready for it; then all write.

    A leader is read from whatever its client does; or one that is not reading does not lead.
    """
    sockets = Sockets(protocol)
    clients = [sockets.login() for _ in range(4)]
    mates = [client for number, client in enumerate(clients) if number != which]
    write = FORMS[protocol]["text"]
    keys = iter(range(1, 100))
    try:
        for _ in range(2):
            for client in clients:
                client.send(write(next(keys)))
            assert sockets.turn(until=lambda: all(readable(client) for client in clients))
            for client in clients:
                read(client)
        session = sockets.sessions[which]
        big = query(protocol, f"SELECT '{'x' * 30_000}'")
        while len(session.out) < 262_144:
            clients[which].send(big)
            sockets.turn(until=lambda: not session.idle)
            assert sockets.turn(until=lambda: session.idle)
        for client in clients:
            client.send(write(next(keys)))
        assert sockets.turn(until=lambda: all(readable(client) for client in mates))
        assert sockets.turn(until=lambda: sockets.engine.batches_running == 0)
        assert len(sockets.store.tables["public" if protocol == "postgres" else "d", "t"].rows) == 12
    finally:
        sockets.close()
