"""Who is waited for: a batch leaves once none of its class is likely to come in time. Sans-IO, on the test's clock."""

import random

import pytest

from tests.sansio import Hooks
from tests.test_sans_io import logged_in
from tests.wire import COLUMNS, PG_FACTS, READY, pg, pg_alike, pg_query

DONE = pg(b"C", b"INSERT 0 1\0") + READY
SET = pg(b"C", b"SET\0")
WAIT = 0.010


def insert(table: str = "t", wait_ms: int = 10) -> bytes:
    return pg_query(b"INSERT INTO %s (a) VALUES (1) /* max_wait_ms:%d */" % (table.encode(), wait_ms))


class Crowd:
    """Sessions of one class; servers answer at once whatever is not a write, and writes when ``serve`` is called."""

    def __init__(self, count: int, version: bytes = b"15.4"):
        self.hooks = Hooks()
        self.engine = self.hooks.engine
        self.now = 1000.0
        self.engine.tick(self.now)
        self.members = [logged_in(self.hooks, version=version) for _ in range(count)]
        self.unanswered = [b""] * count

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.engine.tick(self.now)
        self.settle()

    def write(self, *who: int, table: str = "t", wait_ms: int = 10) -> None:
        for i in who:
            self.members[i][0].receive(insert(table, wait_ms))
            self.settle()

    def settle(self) -> None:
        """Questions are answered; what else was sent stays unanswered."""
        going = True
        while going:
            going = False
            for i, (_, server) in enumerate(self.members):
                data = server.take_out()
                if b"SHOW ALL" in data:
                    server.receive(pg_alike() + READY)
                elif b"pg_catalog" in data:
                    server.receive(COLUMNS + PG_FACTS + pg(b"C", b"SELECT 1\0") + READY)
                elif data:
                    self.unanswered[i] += data
                else:
                    continue
                going = True

    def change(self, i: int) -> None:
        """The session sets something, and is answered."""
        session, server = self.members[i]
        session.receive(pg_query("SET work_mem = '1MB'"))
        server.receive((pg(b"C", b"DISCARD SEQUENCES\0") + READY) * (b"DISCARD" in server.take_out())
                       + pg(b"C", b"SET\0") + READY)
        self.settle()

    def under_way(self) -> list[int]:
        """How many writes each connection was sent that are not answered, where there are any."""
        return sorted(data.count(b"(1)") for data in self.unanswered if b"(1)" in data)

    def serve(self) -> None:
        """Everything sent is answered, to its end."""
        while any(self.unanswered):
            for i in range(len(self.members)):
                self.serve_one(i)
            self.settle()

    def serve_one(self, i: int) -> None:
        """What was sent to one server is answered."""
        server = self.members[i][1]
        data, self.unanswered[i] = self.unanswered[i], b""
        if b"BEGIN" in data:
            done = [pg(b"C", b"INSERT 0 %d\0" % rows.count(b"(1)")) for rows in data.split(b"INSERT")[1:]]
            mixed = b"statement_timeout=0" in data
            sets = data.count(b"SET LOCAL ") - mixed
            server.receive(pg(b"C", b"BEGIN\0") + SET * sets + b"".join(done) + SET * mixed + pg(b"Z", b"T"))
        elif b"COMMIT" in data:
            server.receive(pg(b"C", b"COMMIT\0") + READY)
        elif data:
            server.receive((pg(b"C", b"DISCARD SEQUENCES\0") + READY) * (b"DISCARD" in data) + DONE)

    def answered(self) -> list[int]:
        return [i for i, (session, _) in enumerate(self.members) if session.take_out()]

    def together(self) -> None:
        """All write, leave and are answered: whoever was slow is not any more."""
        self.write(*range(len(self.members)))
        self.later(WAIT)
        self.serve()
        self.answered()

    def warm(self) -> None:
        """Facts are known, and all are of the class and quick."""
        for table in ("t", "u"):
            for i in range(len(self.members)):
                self.write(i, table=table)
                self.later(WAIT)
                self.serve()
        self.together()
        self.together()


def test_other_shapes_are_waited_for_together():
    """Sessions that wait with another statement cannot come: with the last of them all leave, in one batch."""
    crowd = Crowd(4)
    crowd.warm()
    crowd.write(0, 1)
    crowd.write(2, table="u")
    assert not crowd.under_way()
    crowd.write(3, table="u")
    assert crowd.under_way() == [4]
    crowd.serve()
    assert crowd.answered() == [0, 1, 2, 3]


@pytest.mark.parametrize("version", [b"", b"12.22", b"9.6.24"])
def test_shapes_leave_by_themselves_where_a_statement_cannot_be_limited(version):
    """Before PostgreSQL 13 a limit of time counts for a whole message."""
    crowd = Crowd(4, version)
    crowd.warm()
    crowd.write(0, 1)
    crowd.write(2, 3, table="u")
    assert crowd.under_way() == [2, 2]
    crowd.serve()
    assert crowd.answered() == [0, 1, 2, 3]


def test_who_does_not_come_twice_is_not_waited_for():
    crowd = Crowd(3)
    crowd.warm()
    rounds = []
    for _ in range(5):
        crowd.write(0, 1)
        rounds.append(bool(crowd.under_way()))
        crowd.later(WAIT)
        assert crowd.under_way() == [2]
        crowd.serve()
        assert crowd.answered() == [0, 1]
    assert rounds[0] is False and rounds[2:] == [True] * 3


def test_who_comes_soon_again_is_waited_for_again():
    crowd = Crowd(3)
    crowd.warm()
    for _ in range(4):
        crowd.write(0, 1)
        crowd.later(WAIT)
        crowd.serve()
    crowd.later(1.0)
    crowd.write(2)                  # long after its last: nobody waits for it the next time
    crowd.later(WAIT)
    crowd.serve()
    crowd.write(0, 1)
    assert crowd.under_way() == [2]
    crowd.serve()
    crowd.write(2)                  # … but now it has come at once
    crowd.later(WAIT)
    crowd.serve()
    crowd.answered()
    crowd.write(0, 1)
    assert not crowd.under_way()
    crowd.write(2)
    assert crowd.under_way() == [3]


def test_sessions_under_way_are_awaited_for_a_time():
    """A batch that takes long keeps those who gather behind it for two windows, not for ever."""
    crowd = Crowd(5)
    crowd.warm()
    crowd.write(3, 4)
    crowd.later(WAIT)
    assert crowd.under_way() == [2]
    slow = [bytes(data) for data in crowd.unanswered]
    waited = []
    for _ in range(4):
        crowd.write(0, 1, 2)
        waited.append(crowd.under_way() == [2])
        crowd.later(WAIT)
        assert crowd.under_way() == [2, 3]
        crowd.unanswered = [b"" if data == was else data for data, was in zip(crowd.unanswered, slow, strict=True)]
        crowd.serve()
        crowd.unanswered = list(slow)
    assert waited[0] and not waited[-1]
    crowd.serve()
    assert crowd.answered() == [0, 1, 2, 3, 4]


def test_many_that_come_now_and_then_are_waited_for():
    """None is awaited, but in a window's time several come: together they gain."""
    crowd = Crowd(64)
    crowd.warm()
    gathered = []
    for k in range(600):
        i = k % 64                  # each comes every 128 ms, one every 2 ms
        crowd.write(i)
        crowd.later(WAIT / 5)
        gathered += crowd.under_way()
        crowd.serve()
    assert max(gathered[-100:]) >= 4 and sum(gathered[-100:]) >= 3 * len(gathered[-100:])


def test_few_that_come_now_and_then_keep_nobody_waiting():
    """Two write as fast as they are answered, sixteen every second: the two do not wait for one of those."""
    crowd = Crowd(18)
    crowd.warm()
    at_once = total = 0
    for k in range(3000):
        if k % 60 == 0:
            crowd.write(2 + k // 60 % 16)
        crowd.write(0, 1)
        total += 1
        if crowd.under_way():
            at_once += 1
        else:
            crowd.later(WAIT)
        crowd.later(0.001)
        crowd.serve()
    assert at_once > 0.9 * total


def test_the_patient_leave_once_nobody_is_awaited():
    """Those with a short wait find out that the third does not come: who would wait longer does not wait either."""
    crowd = Crowd(3)
    crowd.warm()
    crowd.write(0, wait_ms=10_000)
    for _ in range(2):
        assert not crowd.under_way()
        crowd.write(1, table="u")
        crowd.later(WAIT)
        crowd.serve()
    assert crowd.answered() == [0, 1]


def test_a_cancelled_write_may_be_followed_by_another():
    crowd = Crowd(3)
    crowd.warm()
    crowd.write(0, 1)
    assert crowd.members[0][0].cancel_waiting()
    crowd.write(2)
    assert not crowd.under_way()            # the first is free to write again
    crowd.write(0)
    assert crowd.under_way() == [3]


def test_who_leaves_is_not_awaited():
    crowd = Crowd(3)
    crowd.warm()
    crowd.write(0, 1)
    assert not crowd.under_way()
    crowd.members[2][0].abort()
    crowd.engine.settle()
    crowd.settle()
    assert crowd.under_way() == [2]


def test_who_changes_its_class_is_not_awaited():
    crowd = Crowd(3)
    crowd.warm()
    crowd.write(0, 1)
    assert not crowd.under_way()
    crowd.change(2)
    assert crowd.under_way() == [2]


@pytest.mark.parametrize("seed", range(20))
def test_counts_come_out_even(seed):
    """Whatever happens in whatever order, nobody is awaited or waiting once all have gone."""
    dice = random.Random(seed)
    crowd = Crowd(8)
    crowd.warm()
    awaited = [cls.awaited for cls in crowd.engine.classes.live.values()]
    assert len(awaited) == 1
    alive = set(range(8))
    for _ in range(300):
        move = dice.random()
        i = dice.choice(sorted(alive))
        session, _ = crowd.members[i]
        if move < 0.55:
            if not session.waits and not crowd.unanswered[i]:
                crowd.write(i, table=dice.choice("tu"), wait_ms=dice.choice((1, 10, 40)))
        elif move < 0.75:
            crowd.later(dice.choice((0.0005, 0.004, 0.012, 0.05)))
            crowd.settle()
        elif move < 0.95:
            crowd.serve()
        elif move < 0.97 and not session.waits and not crowd.unanswered[i]:
            crowd.change(i)
        elif move < 0.98 and len(alive) > 2 and not crowd.unanswered[i]:
            alive.discard(i)
            session.abort()
        crowd.settle()
        for one in awaited:
            assert one.since_now >= 0 and one.since_before >= 0 and 0 <= one.quick <= one.waiting <= 8
    crowd.later(1.0)
    crowd.settle()
    crowd.serve()
    for session, _ in crowd.members:
        session.abort()
    for one in awaited:
        assert (one.since_now, one.since_before, one.waiting, one.quick, one.under_way) == (0, 0, 0, 0, 0)
