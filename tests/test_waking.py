"""A leader's answers, of which none is of use before the last, wake the proxy some at a time, and are never waited for
in vain: every test on model servers checks that what is due comes (``Link.check_due``).
"""

import socket

import pytest

from tests import test_guards
from tests.model.scene import TRIGGER, Scene, my_prepared, my_returning, my_text, query
from tests.test_guards import Sockets, read, readable

OK = 11                 # bytes of an OK packet that tells of nothing else


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("bad", [None, 0, 5, 11])
@pytest.mark.parametrize("form", [my_text, my_returning, my_prepared])
def test_what_is_due_of_a_pipeline(form, bad, size):
    """Never more than four answers, nor more than are still to come; of the last one, and of COMMIT, any byte."""
    scene = Scene("mariadb", clients=12).ready(size)
    for number, link in enumerate(scene.links):
        scene.say(link, form(scene.key(), -1 if number == bad else 1, TRIGGER))
    due = set()
    while scene.wire.step() or scene.wire.engine.batches_running:
        due |= {link.server.awaited_bytes for link in scene.links}
    assert 4 * OK in due and max(due) <= (12 if form is my_returning else 4) * OK
    if size == 1 and form is not my_returning:
        assert 2 * OK in due and 2 * OK - 1 in due
    assert all(link.server.awaited_bytes == 0 for link in scene.links)
    scene.finish()


def test_no_other_answer_is_awaited_whole():
    """Relayed answers, the proxy's questions, a lone merged INSERT's COMMIT: what has come is looked at."""
    scene = Scene("mariadb", clients=3).ready(1)
    a, b, c = scene.links
    scene.say(a, query("mariadb", "SELECT 1"))
    scene.say(b, query("mariadb", "UPDATE t SET a = 5 WHERE k = 1"))
    scene.say(c, my_prepared(scene.key()))
    while scene.wire.step():
        if not scene.wire.engine.batches_running:
            assert not any(link.server.awaited_bytes for link in scene.links)
    scene.finish()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
    return near, far


@pytest.mark.parametrize("piece", [1, 11, 50, 1 << 20])
@pytest.mark.parametrize("pair", [tcp_pair, test_guards.pair], ids=["tcp", "unix"])
def test_on_sockets(monkeypatch, pair, piece):
    """The socket itself waits, while there is a pipeline, and for nothing any more behind it."""
    made = []

    def remembered():
        made.append(pair())
        return made[-1]

    monkeypatch.setattr(test_guards, "pair", remembered)
    sockets = Sockets("mariadb", piece)
    seen = set()

    def answered() -> bool:
        seen.update(near.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) for near, _ in made)
        return all(readable(client) for client in clients)

    try:
        clients = [sockets.login() for _ in range(8)]
        for number in range(3):
            for key, client in enumerate(clients):
                client.send(my_text(number * 100 + key, 1, TRIGGER))
            assert sockets.turn(until=answered)
            assert all(read(client)[4] == 0 for client in clients)
        assert {1, 4 * OK} <= seen
        assert all(near.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1 for near, _ in made)
        assert len(sockets.store.tables["d", TRIGGER].rows) == 24
    finally:
        sockets.close()
