"""What a fault inside leaves of a batch of PostgreSQL's, and what sessions and gathered writes keep in memory."""

import gc
import socket

import pytest
from tqdb._core import PgSession, Stream

from tests.model import talk
from tests.model.talk import EXECUTE, SYNC, parse
from tests.sansio import Hooks
from tests.test_faults_postgres import FACTS, IN_BLOCK, WRITE, WRITE_DONE, pair
from tests.test_sans_io import answer_session, logged_in, two_in_a_batch, who_leads
from tests.wire import READY, pg, pg_alike, pg_error


class Poller:
    """The loop's side of a ``Stream``, which may fail to say what it waits for."""

    broken = False

    def set_interest(self, stream, want, new):
        if self.broken:
            raise MemoryError("no room")

    def forget(self, stream):
        pass


def test_an_error_before_commit_is_sent():
    """The leader's connection breaks inside when COMMIT has been put ready: it is not sent, the other goes alone."""
    a, server_a, b, server_b = two_in_a_batch()
    leader, other = who_leads(server_a, server_b)
    leads, joined = (a, b) if leader is server_a else (b, a)
    mine, theirs = socket.socketpair()
    with theirs:
        mine.setblocking(False)
        theirs.settimeout(5)
        poller = Poller()
        stream = Stream(mine, leader, poller)
        theirs.send(IN_BLOCK + pg(b"C", b"INSERT 0 2\0") + pg(b"Z", b"T"))
        poller.broken = True
        stream.on_io(1)
        assert theirs.recv(1000) == b""
    assert other.take_out() == WRITE and joined.take_out() == b""
    assert leads.closing and talk.sqlstates(leads.take_out()) == ["08006"]
    other.receive(WRITE_DONE)
    assert joined.take_out() == WRITE_DONE


# --- memory -----------------------------------------------------------------------------------------------------------

SIZE = 20_000
PADDED = {
    "comment in front": lambda pad: talk.query(f"/*{pad}*//* max_wait_ms:1000 */ INSERT INTO t (a) VALUES (1)"),
    "comment within": lambda pad: talk.query(f"/* max_wait_ms:1000 */ INSERT /*{pad}*/ INTO t (a) VALUES (1)"),
    "comment behind": lambda pad: talk.query(f"/* max_wait_ms:1000 */ INSERT INTO t (a) VALUES (1) /*{pad}*/"),
    "space behind": lambda pad: talk.query(f"/* max_wait_ms:1000 */ INSERT INTO t (a) VALUES (1){' ' * len(pad)}"),
    "value": lambda pad: talk.query(f"/* max_wait_ms:1000 */ INSERT INTO t (a) VALUES ('{pad}')"),
    "parameter": lambda pad: talk.unit("/* max_wait_ms:1000 */ INSERT INTO t (a) VALUES ($1)", (pad,)),
    "comment of Parse": lambda pad: talk.unit(f"/*{pad}*//* max_wait_ms:1000 */ INSERT INTO t (a) VALUES ($1)", (1,)),
}


@pytest.mark.parametrize("form", PADDED)
def test_what_gathered_writes_keep(form):
    """A client sends ahead writes that are long by what no batch needs: few are gathered, for their texts are kept.

    Short ones of the same form are: the bound is one of bytes.
    """
    for size in (0, SIZE):
        hooks, *_, b, server_b = pair()
        hooks.engine.max_wait_ms = 1000
        b.receive(WRITE)
        answer_session(server_b)
        assert b.cancel_waiting()
        hooks.engine.max_batch_bytes = 5 * SIZE
        most = 0
        for _ in range(60):
            b.receive(PADDED[form]("x" * size))
            most = max(most, hooks.engine.gathered)
        assert most * size <= 4 * hooks.engine.max_batch_bytes if size else most == 60, most


def sessions() -> int:
    gc.collect()
    return sum(isinstance(o, PgSession) for o in gc.get_objects())


@pytest.mark.parametrize("end", ["answered", "rolled back", "lost"])
def test_sessions_that_shared_a_batch_are_forgotten(end):
    """Two clients wrote in one batch and have gone: neither is kept, as the last leader or otherwise."""
    before = sessions()
    hooks, a, server_a, b, server_b = pair()        # the engine lives on
    b.receive(WRITE)
    answer_session(server_b)
    a.receive(WRITE)
    leader, _ = who_leads(server_a, server_b)
    if end == "answered":
        leader.receive(IN_BLOCK + pg(b"C", b"INSERT 0 2\0") + pg(b"Z", b"T"))
        leader.take_out()
        leader.receive(pg(b"C", b"COMMIT\0") + READY)
    elif end == "rolled back":
        leader.receive(IN_BLOCK + pg(b"C", b"INSERT 0 1\0") + pg(b"Z", b"T"))
        leader.take_out()
        leader.receive(pg(b"C", b"ROLLBACK\0") + READY)
        for server in (server_a, server_b):
            server.take_out()
            server.receive(WRITE_DONE)
    else:
        leader.receive_eof()
    assert sessions() > before
    for endpoint in (a, b):
        endpoint.receive_eof()
    for server in (server_a, server_b):
        server.take_out()
        server.abort()
    del a, b, server_a, server_b, leader, endpoint, server, _
    hooks.server = None
    hooks.engine.tick(hooks.engine.now + 100)
    assert sessions() <= before


@pytest.mark.parametrize("said", [parse("SELECT 1"), parse("SELECT 1") + talk.bind() + EXECUTE + SYNC,
                                  talk.query("SELECT 1")], ids=["Parse", "unit", "Query"])
def test_a_long_row_of_messages_ends_at_once(said):
    """A client sends ahead more than is ever answered, and goes: nothing of it is kept, however long the row."""
    before = sessions()
    hooks = Hooks()
    a, server = logged_in(hooks)
    for _ in range(200):
        a.receive(said * 200)
        server.take_out()
    a.receive_eof()
    server.abort()
    del a, server
    hooks.server = None
    assert sessions() <= before


# --- custom settings that something reads -----------------------------------------------------------------------------

class Reads(Hooks):
    """The catalogue says of every table that what writes execute reads ``app.tenant``."""

    @staticmethod
    def judge(dialect, verdict, rows, state):
        return True, "table", True, 0, 0, 0.0, frozenset(("app.tenant",)), None, "", ""


def test_a_session_that_was_asked_before_a_setting_was_known_is_asked_again():
    """The answer to a question that did not name the setting does not tell its value."""
    hooks = Reads()
    a, server_a = logged_in(hooks)
    b, server_b = logged_in(hooks)
    a.receive(WRITE)
    answer_session(server_a)
    assert b"pg_catalog" in server_a.take_out()
    b.receive(WRITE)
    asked = server_b.take_out()
    assert b"SHOW ALL" in asked and b"app.tenant" not in asked
    server_a.receive(FACTS)
    assert server_a.take_out() == WRITE                 # what it reads has not been compared
    server_a.receive(WRITE_DONE)
    server_b.receive(pg_alike() + READY)
    asked = server_b.take_out()
    assert b"SHOW ALL" in asked and b"'app.tenant'" in asked
    a.receive(WRITE)
    asked = server_a.take_out()
    assert b"SHOW ALL" in asked and b"'app.tenant'" in asked


def test_sessions_that_were_compared_without_a_setting_share_no_batch():
    """Another class makes the setting known while the catalogue is asked for sessions that were compared before."""
    hooks = Reads(max_wait_ms=1000)
    (a, server_a), (b, server_b), (c, server_c) = [logged_in(hooks) for _ in range(3)]
    for session, server in ((a, server_a), (b, server_b)):
        session.receive(WRITE)
        answer_session(server)
    asked = [server.take_out() for server in (server_a, server_b)]
    assert b"pg_catalog" in asked[0] and not asked[1] and b.waits
    c.receive(WRITE)
    answer_session(server_c, b"another")
    assert b"pg_catalog" in server_c.take_out()
    server_c.receive(FACTS)
    assert server_c.take_out() == WRITE
    server_a.receive(FACTS)
    assert server_a.take_out() == server_b.take_out() == WRITE      # alone
    assert hooks.engine.batches_running == 0


# --- the catalogue in several answers ---------------------------------------------------------------------------------

class Twice(Hooks):
    """The catalogue is asked two questions about a table."""

    @staticmethod
    def judge(dialect, verdict, rows, state):
        if rows is None:
            return False, "table", False, 0, 0, 0.0, frozenset(), None, "", ""
        return (True, "table", True, 0, 0, 0.0, frozenset(), None, "", "") if state else (b"SELECT 'second'", 1)


def test_the_questions_begin_anew_behind_an_error_that_tells_of_another_table():
    hooks = Twice()
    a, server_a = logged_in(hooks)
    b, server_b = logged_in(hooks)
    a.receive(WRITE)
    answer_session(server_a)
    for question in (b"pg_catalog", b"second"):
        assert question in server_a.take_out()
        server_a.receive(FACTS)
    assert server_a.take_out() == WRITE
    server_a.receive(WRITE_DONE)
    b.receive(WRITE)
    answer_session(server_b)
    a.receive(WRITE)
    leader, _ = who_leads(server_a, server_b)
    leader.receive(pg(b"C", b"BEGIN\0") + pg_error(b"42703") + pg(b"Z", b"E"))
    leader.take_out()
    leader.receive(pg(b"C", b"ROLLBACK\0") + READY)
    for server in (server_a, server_b):
        assert server.take_out().endswith(WRITE)
        server.receive(pg(b"C", b"DISCARD SEQUENCES\0") + READY if server is leader else b"")
        server.receive(pg_error(b"42703") + READY)
    a.receive(WRITE)
    if b"SHOW ALL" in (sent := server_a.take_out()):
        server_a.receive(pg_alike() + READY)
        sent = server_a.take_out()
    assert b"pg_catalog" in sent and b"second" not in sent


def test_an_answer_that_is_not_read_just_now_is_asked_for_again():
    """Writes go alone meanwhile, for two seconds."""
    hooks = Hooks()
    hooks.engine.tick(1000.0)
    a, server_a = logged_in(hooks)
    hooks.judge = lambda dialect, verdict, rows, state: (
        NotImplemented if rows else (False, "table", False, 0, 0, 0.0, frozenset(), None, "", ""))
    a.receive(WRITE)
    answer_session(server_a)
    assert b"pg_catalog" in server_a.take_out()
    server_a.receive(FACTS)
    for moment in (1000.0, 1001.0, 1002.5):
        sent = server_a.take_out()
        assert WRITE in sent and b"pg_catalog" not in sent
        server_a.receive(WRITE_DONE)
        hooks.engine.tick(moment)
        a.receive(WRITE)
        if moment == 1000.0:
            answer_session(server_a)        # what went alone unproved may have changed it
    assert b"pg_catalog" in server_a.take_out()
