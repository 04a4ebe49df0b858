"""Servers and names in the loop, with what no real server does at will: names that move, answers that do not come."""

import socket
import threading
import time

import pytest

from tests.wait import wait_for
from tqdb import fleet as fleet_room
from tqdb.backends import listens_here
from tqdb.config import read_file
from tqdb.errors import TqdbError
from tqdb.fleet import Fleet
from tqdb.loop import Loop
from tqdb.roles import Said
from tqdb.servers import Route


class Names:
    """Stands in for ``socket.getaddrinfo``. ``known``: addresses by name; a name without one cannot be told."""

    def __init__(self, **known: list[str]):
        self.known = known
        self.asked: list[tuple[str, int]] = []      # name, and the thread that asked
        self.hold = threading.Event()
        self.hold.set()

    def __call__(self, host, port, **_):
        self.asked.append((host, threading.get_ident()))
        self.hold.wait(30)
        if host not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.known[host]]


class Running:
    """A loop in a thread of its own; ``run(call)`` runs something in it and gives its result."""

    def __init__(self):
        self.loop = Loop()
        self.failures: list = []
        self.loop.failed = lambda place, error: self.failures.append((place, error))
        self.thread = threading.Thread(target=self.loop.run, daemon=True)

    def run(self, call, timeout: float = 30):
        done = threading.Event()
        result: list = []

        def within():
            result.append(call())
            done.set()

        self.loop.call_from_thread(within)
        assert done.wait(timeout), "the loop does not turn"
        return result[0]


@pytest.fixture
def running():
    made = Running()
    yield made
    if made.thread.is_alive():
        made.run(made.loop.stop)
        made.thread.join(10)
    made.loop.close()
    assert made.failures == []


@pytest.fixture
def listeners():
    """Sockets of one port on two addresses of this machine."""
    first = socket.create_server(("127.0.0.1", 0), backlog=1024)
    second = socket.create_server(("127.0.0.2", first.getsockname()[1]), backlog=1024)
    yield first, second
    first.close()
    second.close()


def make(running, tmp_path, primary: str, names=None, more: str = "", protocol: str = "postgres") -> Fleet:
    path = tmp_path / "tqdb.ini"
    path.write_text(f"[{protocol}]\nlisten = 127.0.0.1:1\n[{protocol}.main]\nprimary = {primary}\n{more}")
    fleet = Fleet(running.loop, read_file(path, {}), {}, running.loop.failed, names or Names())
    fleet.look_up()
    fleet.start()
    running.thread.start()
    return fleet


def came_to(running, fleet) -> str:
    """The address that a new session's connection leads to, or the error."""
    came = threading.Event()
    result: list[str] = []

    def done(route, sock, engine, error):
        result.append(route.sockaddr[0] if route is not None else error)
        if sock is not None:
            sock.close()
        came.set()

    running.run(lambda: fleet.connect(next(iter(fleet.backends.values())), done))
    assert came.wait(30)
    return result[0]


def test_a_name_that_moves(running, tmp_path, listeners, monkeypatch):
    monkeypatch.setattr(fleet_room, "LOOKUP_SECONDS", 0.05)
    names = Names(db=["127.0.0.1"])
    fleet = make(running, tmp_path, f"db:{listeners[0].getsockname()[1]}", names)
    assert came_to(running, fleet) == "127.0.0.1"
    names.known["db"] = ["127.0.0.2"]
    wait_for(lambda: came_to(running, fleet) == "127.0.0.2")
    # a name server that has nothing to say takes nothing away
    del names.known["db"]
    asked = len(names.asked)
    wait_for(lambda: len(names.asked) > asked + 2)
    assert came_to(running, fleet) == "127.0.0.2"
    # nothing but the very first question was asked by the loop or by who has started it
    assert running.thread.ident not in {thread for _, thread in names.asked}


def test_a_name_server_that_does_not_answer_holds_nothing_up(running, tmp_path, listeners):
    names = Names(db=["127.0.0.1"])
    fleet = make(running, tmp_path, f"db:{listeners[0].getsockname()[1]}", names)
    names.hold.clear()
    asked = len(names.asked)
    running.run(fleet.look_up_again)
    wait_for(lambda: len(names.asked) > asked)
    for _ in range(3):
        running.run(fleet.look_up_again)
        assert came_to(running, fleet) == "127.0.0.1"
    assert len(names.asked) == asked + 1
    names.hold.set()


def test_a_name_that_is_not_known_at_the_start(running, tmp_path, listeners, monkeypatch):
    monkeypatch.setattr(fleet_room, "LOOKUP_AGAIN_SECONDS", 0.05)
    port = listeners[0].getsockname()[1]
    names = Names()
    with pytest.raises(TqdbError, match="Name or service not known"):
        make(running, tmp_path, f"db:{port}", names)
    fleet = make(running, tmp_path, f"db:{port}, 127.0.0.2:{port}", names)
    assert came_to(running, fleet) == "127.0.0.2"
    assert "Name or service not known" in fleet.backends["postgres"].servers[0].error
    names.known["db"] = ["127.0.0.1"]
    wait_for(lambda: came_to(running, fleet) == "127.0.0.1")


def said(role: str, timeline: int = 0) -> Said:
    return Said(role=role, timeline=timeline)


def tell(running, fleet, *answers: Said) -> None:
    state = fleet.backends["postgres"]

    def within():
        for server, answer in zip(state.servers, answers, strict=True):
            fleet._said(state, server, answer)

    running.run(within)


def test_a_primary_that_another_has_replaced(running, tmp_path, listeners):
    """It comes back and takes writes, as it knows no better; on an older timeline it is not used."""
    port = listeners[0].getsockname()[1]
    fleet = make(running, tmp_path, f"127.0.0.1:{port}, 127.0.0.2:{port}", more="target = read-write\n")
    tell(running, fleet, said("primary", 1), said("replica"))
    assert came_to(running, fleet) == "127.0.0.1"
    tell(running, fleet, said("primary", 1), said("primary", 2))
    assert [s.role for s in fleet.backends["postgres"].servers] == ["outdated", "primary"]
    assert came_to(running, fleet) == "127.0.0.2"
    # also while the new one is away
    tell(running, fleet, said("primary", 1), Said(False, error="gone"))
    assert "no server takes writes (127.0.0.1" in fleet.trouble()
    # it follows the new one, and is promoted in its turn
    tell(running, fleet, said("replica"), said("primary", 2))
    tell(running, fleet, said("primary", 3), said("primary", 2))
    assert [s.role for s in fleet.backends["postgres"].servers] == ["primary", "outdated"]


class Seen:
    """A session, as far as the fleet knows one."""

    def __init__(self, route):
        self.route, self.read_only, self.leaving, self.closing, self.idle = route, False, False, False, True
        self.told: list[str] = []

    def refuse(self, kind, message):
        self.told.append(kind)
        self.closing = True


def test_what_a_session_without_a_standbys_report_meets(running, tmp_path, listeners, monkeypatch):
    """25006 of a PostgreSQL 13: new sessions go elsewhere for a while; nobody is told, it may be its own doing."""
    monkeypatch.setattr(fleet_room, "BELIEVED_SECONDS", 0.5)
    monkeypatch.setattr(fleet_room, "BELIEVED_LONGER_SECONDS", 0.5)
    port = listeners[0].getsockname()[1]
    fleet = make(running, tmp_path, f"127.0.0.1:{port}, 127.0.0.2:{port}", more="target = read-write\n")
    state = fleet.backends["postgres"]
    session = Seen(Route(state, state.servers[0], socket.AF_INET, ("127.0.0.1", port)))
    running.run(lambda: fleet.attached(session, session.route))
    running.run(lambda: fleet.server_says(session, "read_only"))
    assert came_to(running, fleet) == "127.0.0.2"
    assert not session.told and not session.leaving and not session.read_only
    wait_for(lambda: came_to(running, fleet) == "127.0.0.1")
    # what the server itself reports is another matter
    running.run(lambda: fleet.server_says(session, "replica"))
    wait_for(lambda: session.told == ["shutdown"])
    assert session.read_only


def test_what_sessions_have_met_holds_while_another_serves(running, tmp_path, listeners, monkeypatch):
    """To try a replica again costs somebody an error: not before there is nobody else."""
    monkeypatch.setattr(fleet_room, "BELIEVED_SECONDS", 0.1)
    first, second = listeners
    port = first.getsockname()[1]
    fleet = make(running, tmp_path, f"127.0.0.1:{port}, 127.0.0.2:{port}", more="target = read-write\n",
                 protocol="mariadb")
    state = fleet.backends["mariadb"]
    session = Seen(Route(state, state.servers[0], socket.AF_INET, ("127.0.0.1", port)))
    running.run(lambda: fleet.server_says(session, "replica"))
    wait_for(lambda: state.servers[0].role == "replica" and state.servers[1].up)
    until = time.monotonic() + 3 * fleet_room.LOOK_SECONDS
    wait_for(lambda: time.monotonic() > until)
    assert state.servers[0].role == "replica"
    second.close()
    wait_for(lambda: state.servers[0].role == "unknown")


def test_sessions_that_wait_go_on_when_one_is_promoted(running, tmp_path, listeners):
    port = listeners[0].getsockname()[1]
    fleet = make(running, tmp_path, f"127.0.0.1:{port}, 127.0.0.2:{port}", more=(
        "target = read-write\n[limits]\nserver_connect_timeout = 60\n"))
    tell(running, fleet, said("replica"), said("replica"))
    results: list[str] = []

    def done(route, sock, engine, error):
        results.append(route.sockaddr[0] if route is not None else error)
        sock.close()

    for _ in range(200):
        running.run(lambda: fleet.connect(fleet.backends["postgres"], done))
    assert results == []
    tell(running, fleet, said("replica"), said("primary", 2))
    wait_for(lambda: len(results) == 200)
    assert set(results) == {"127.0.0.2"}


def test_a_session_gives_up_in_time(running, tmp_path, listeners):
    port = listeners[0].getsockname()[1]
    fleet = make(running, tmp_path, f"127.0.0.1:{port}", more=(
        "target = read-write\n[limits]\nserver_connect_timeout = 0.2\n"))
    tell(running, fleet, said("replica"))
    assert "no server takes writes (127.0.0.1" in came_to(running, fleet)


def test_one_that_tries_a_silent_server_takes_a_better_one(running, tmp_path, listeners):
    """The first server's host does not even refuse: a listener whose queue is full."""
    full = socket.socket()
    full.bind(("127.0.0.3", 0))
    full.listen(0)
    port = full.getsockname()[1]
    crowd = []
    for _ in range(3):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.3", port))
        crowd.append(sock)
    other = listeners[1].getsockname()
    fleet = make(running, tmp_path, f"127.0.0.3:{port}, 127.0.0.2:{other[1]}", more=(
        "target = read-write\n[limits]\nserver_connect_timeout = 60\n"))
    tell(running, fleet, said("unknown"), said("replica"))
    results: list[str] = []
    running.run(lambda: fleet.connect(fleet.backends["postgres"], lambda route, sock, engine, error: (
        results.append(route.sockaddr[0]), sock.close())))
    began = time.monotonic()
    tell(running, fleet, said("unknown"), said("primary", 2))
    wait_for(lambda: results)
    assert results == ["127.0.0.2"] and time.monotonic() - began < 20
    for sock in (*crowd, full):
        sock.close()


def test_whether_somebody_listens_here(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = [(socket.AF_INET, server.getsockname())]
        assert listens_here(here) is True
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    # a connection that it leaves behind does not listen
    assert listens_here(here) is False
    accepted.close()
    client.close()
    assert listens_here(here) is False
    # not one that begins to at the same moment is kept out
    with socket.create_server(here[0][1]):
        assert listens_here(here) is True
    assert listens_here([(socket.AF_INET, ("192.0.2.1", 5432))]) is None
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        assert listens_here([(socket.AF_UNIX, path)]) is False
        server.bind(path)
        server.listen()
        assert listens_here([(socket.AF_UNIX, path)]) is True
    assert listens_here([(socket.AF_UNIX, path)]) is False
