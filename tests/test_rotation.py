"""Who leads: the connection that led last, unless another has been unused for so long that it might be cut off."""

import os
import sys
import time

import psycopg
import pytest

from tests.crowd import together
from tests.fix_servers import ProxyUnderTest
from tests.sansio import Hooks
from tests.test_sans_io import INSERT, answer_probe, logged_in
from tests.wire import COLUMNS, PG_FACTS, READY, pg, pg_alike, pg_query

HINT = "/* max_wait_ms:10 */ "
WRITE = pg_query(INSERT)
ANSWER = pg(b"C", b"INSERT 0 1\0") + READY


class Crowd:
    """Sessions of one class without sockets, whose table is known; ``moment`` is the engine's time."""

    def __init__(self, count: int):
        self.hooks = Hooks()
        self.moment = 1000.0
        self.hooks.engine.tick(self.moment)
        first = logged_in(self.hooks)
        first[0].receive(WRITE)
        answer_probe(*first)
        self.members = [first, *(logged_in(self.hooks) for _ in range(count - 1))]
        for _ in range(2):
            self.write()

    def write(self) -> tuple[int | None, list[int]]:
        """Everybody writes and is answered: who led, and who went alone."""
        leader, alone = None, []
        # the one that has written before is not the first: the others would not be waited for
        for session, _ in reversed(self.members):
            session.receive(WRITE)
        for waited in (0, 0.1):             # seconds: everybody has come, or the hint's window is over
            self.hooks.engine.tick(self.moment + waited)
            for i, (session, server) in enumerate(self.members):
                sent = server.take_out()
                if b"SHOW ALL" in sent:  # once a minute
                    server.receive(pg_alike(idle=session.idle_limit) + READY)
                    sent = server.take_out()
                if b"pg_catalog" in sent:   # … and this
                    server.receive(COLUMNS + PG_FACTS + pg(b"C", b"SELECT 1\0") + READY)
                    sent = server.take_out()
                if b"BEGIN" in sent:
                    assert leader is None
                    leader = i
                    server.receive(pg(b"C", b"BEGIN\0") + pg(b"C", b"SET\0")
                                   + pg(b"C", b"INSERT 0 %d\0" % sent.count(b"(1)")) + pg(b"Z", b"T"))
                    assert server.take_out() == pg_query("COMMIT")
                    server.receive(pg(b"C", b"COMMIT\0") + READY)
                elif sent:
                    alone.append(i)
                    server.receive((pg(b"C", b"DISCARD SEQUENCES\0") + READY if b"DISCARD" in sent else b"") + ANSWER)
        assert [session.take_out() for session, _ in self.members] == [ANSWER] * len(self.members)
        return leader, alone

    def later(self, seconds: float) -> None:
        self.moment += seconds
        self.hooks.engine.tick(self.moment)


def test_the_last_leader_leads_while_nobody_has_rested():
    crowd = Crowd(4)
    leaders = set()
    for _ in range(10):
        crowd.later(1)
        leaders.add(crowd.write()[0])
    assert len(leaders) == 1


def test_whoever_has_rested_for_longest_leads():
    crowd = Crowd(4)
    crowd.later(crowd.hooks.engine.rest_seconds)
    leaders = [crowd.write()[0] for _ in range(4)]
    assert sorted(leaders) == [0, 1, 2, 3]
    assert crowd.write()[0] == leaders[-1]


def test_the_busiest_crowd_uses_every_connection_in_time():
    """With one batch a second and limits of half a minute nothing rests for more than a third of it, plus its turn."""
    crowd = Crowd(6)
    engine = crowd.hooks.engine
    for session, _ in crowd.members:
        session.idle_limit = 30
    last = dict.fromkeys(range(6), crowd.moment)
    for _ in range(100):
        crowd.later(1)
        leader, alone = crowd.write()
        assert not alone
        last[leader] = crowd.moment
        assert crowd.moment - min(last.values()) <= 30 / 3 + 6
    assert engine.rest_seconds == 20


@pytest.mark.parametrize("limit, leads", [(3.0, True), (3.6, False), (0, False), (7200.0, False)])
def test_the_limit_of_a_session_counts(limit, leads):
    crowd = Crowd(3)
    before, _ = crowd.write()
    other = (before + 1) % 3
    crowd.members[other][0].idle_limit = limit
    crowd.later(1.1)
    assert crowd.write() == (other if leads else before, [])


def test_what_a_client_sends_itself_is_use():
    crowd = Crowd(2)
    crowd.later(crowd.hooks.engine.rest_seconds + 1)
    for session, server in crowd.members:
        session.receive(pg_query("SELECT 1"))
        assert b"SELECT 1" in server.take_out()
        server.receive(pg(b"C", b"DISCARD SEQUENCES\0") + READY + pg(b"C", b"SELECT 0\0") + READY)
        session.take_out()
    leader, _ = crowd.write()
    assert crowd.write()[0] == leader


def test_a_connection_near_its_end_that_does_not_lead_is_used_by_its_own_write():
    crowd = Crowd(4)
    for i in (0, 1, 2):
        crowd.members[i][0].idle_limit = 30.0
    crowd.later(20)
    leader, alone = crowd.write()
    assert leader in (0, 1, 2) and alone == sorted({0, 1, 2} - {leader})
    crowd.later(1)
    assert crowd.write()[1] == []


def test_without_a_limit_nobody_goes_alone():
    crowd = Crowd(4)
    crowd.later(3600)
    for _ in range(5):
        assert crowd.write()[1] == []


# --- against servers that cut off ------------------------------------------------------------------------------------

LIMIT = 2
# nothing tells this proxy the sessions' limits: what may rest for 20 seconds may rest for half a second here
QUICK = f"""
import sys, tqdb.server
class Engine(tqdb.server.Engine):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rest_seconds = {LIMIT / 4}
tqdb.server.Engine = Engine
from tqdb.cli import main
sys.exit(main())
"""

in_process = pytest.mark.skipif("TQDB_BIN" in os.environ, reason="the executable has no seam for a shorter rest")


def write_on(connections: list, table: str) -> int:
    """Every session writes all the time, for three times the limit; how many writes that were."""
    end = time.monotonic() + 3 * LIMIT

    def work(i: int) -> int:
        n = 0
        while time.monotonic() < end:
            connections[i](f"{HINT}INSERT INTO {table} (a) VALUES ({i})")
            n += 1
        return n

    return sum(together(len(connections), work))


@in_process
def test_busy_writers_outlive_idle_session_timeout(postgres, pg, table):
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (a int)")
    with ProxyUnderTest(postgres=postgres, command=[sys.executable, "-c", QUICK]) as proxy:
        proxy.start()
        sessions = [psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True,
                                    cursor_factory=psycopg.ClientCursor,
                                    options=f"-c idle_session_timeout={LIMIT * 1000}") for _ in range(8)]
        written = write_on([session.execute for session in sessions], table)
        assert proxy.stats()["batched_writes_total"] > written // 2
        assert {s.execute("SELECT 1").fetchone() for s in sessions} == {(1,)}
        assert admin.execute(f"SELECT count(*) FROM {table}").fetchone() == (written,)


@in_process
def test_busy_writers_outlive_wait_timeout(mariadb, my, table):
    admin = my(through=False).cursor()
    admin.execute(f"CREATE TABLE {table} (a int) ENGINE=InnoDB")
    with ProxyUnderTest(mariadb=mariadb, command=[sys.executable, "-c", QUICK]) as proxy:
        proxy.start()
        sessions = [mariadb.connect(proxy.mariadb_port, database="d", init_command=f"SET wait_timeout={LIMIT}")
                    for _ in range(8)]
        written = write_on([session.cursor().execute for session in sessions], table)
        assert proxy.stats()["batched_writes_total"] > written // 2
        for session in sessions:
            session.ping(reconnect=False)
        admin.execute(f"SELECT COUNT(*) FROM {table}")
        assert admin.fetchone() == (written,)
