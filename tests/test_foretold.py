"""What advice foretells of arrivals against what hints then make of the same; and the table of shapes itself."""

import collections
import random
import resource

import pytest
from tqdb._core import scan, shown

from tests.arrivals import PATTERNS, foretold, measured
from tests.sansio import Hooks
from tests.test_awaited import DONE, Crowd
from tests.test_sans_io import logged_in
from tests.wire import pg_query
from tqdb import advice

TOLERANCE = 0.15
LITTLE = 0.1            # of operations: where less is saved the difference counts, not its share


@pytest.mark.parametrize("name", PATTERNS)
def test_operations_saved_are_as_foretold(name):
    pattern = PATTERNS[name]
    said = foretold(pattern, 7)
    for window, share in said.items():
        so = measured(pattern, window, 7)
        assert abs(share - so) <= TOLERANCE * max(so, LITTLE), (window, share, so)


class One:
    """One session whose statements are answered at once, and the table that its writes are counted in."""

    def __init__(self, size: int):
        self.hooks = Hooks()
        self.watch = self.hooks.engine.watch
        self.watch.resize(size)
        self.now = 1000.0
        self.session, self.server = logged_in(self.hooks)

    def write(self, sql: str) -> None:
        self.now += 0.0001
        self.hooks.engine.tick(self.now)
        self.session.receive(pg_query(sql.encode()))
        self.server.take_out()
        self.server.receive(DONE)
        self.session.take_out()

    def entries(self) -> list[dict]:
        return [e for e in (self.watch.entry(slot, self.now) for slot in self.watch.ranking()) if e is not None]


def test_a_hundred_thousand_shapes_take_no_more_room_than_the_table():
    one = One(1000)
    for k in range(2000):
        one.write(f"INSERT INTO warm{k} (a) VALUES (1)")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for k in range(100_000):
        for _ in range(2):          # a shape's second write makes it known
            one.write(f"INSERT INTO table_of_a_name_{k} (column_a, column_b) VALUES (1, 'x')")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 10, grown
    assert one.watch.used == 1000 and one.watch.replaced > 90_000
    assert len(one.entries()) == 1000


@pytest.mark.parametrize("seed", range(5))
def test_what_is_frequent_is_in_the_table(seed):
    """Space saving: whatever is more than a share of 1/size of all writes is there, and counted too high by none."""
    rng = random.Random(seed)
    one = One(20)
    counts: collections.Counter[int] = collections.Counter()
    for _ in range(4000):
        k = min(int(rng.paretovariate(0.7)), 400)
        counts[k] += 1
        one.write(f"UPDATE t{k} SET a = {rng.random()}")
    found = {e["statement"]: e["writes"] for e in one.entries()}
    assert len(found) == 20
    for k, n in counts.items():
        text = f"UPDATE t{k} SET a = ?"
        assert found.get(text, 0) <= n
        if n > 4000 / 20:
            assert text in found, (k, n)


def test_nothing_is_watched_where_there_is_no_room():
    one = One(0)
    for _ in range(3):
        one.write("INSERT INTO t (a) VALUES (1)")
    assert one.entries() == [] and one.watch.total == 0


SECRETS = ("'s3cr3t'", "E's3\\'cr3t'", "$$s3cr3t$$", "$x$s3'cr3t$x$", "X'a53c'", "777001", "-777001.5e3", ".777001",
           "B'777001'", "U&'s3cr3t'", "'it''s3cr3t'", "DATE '777001'", "'s3cr3t", "$$s3cr3t")
MY_SECRETS = ("'s3cr3t'", '"s3cr3t"', "'s3\\'cr3t'", "0x777001", "x'777001'", "_utf8's3cr3t'", "N's3cr3t'", "777001",
              "-777001e5", '"s3\\"cr3t"', "'s3cr3t", '"s3cr3t')
FORMS = ("INSERT INTO t (a, b) VALUES ({0}, {1})", "INSERT INTO t VALUES (1, {0}), ({1}, 2) ON CONFLICT DO NOTHING",
         "UPDATE t SET a = {0}, b = b + {1} WHERE c IN ({0}, {1})",
         "DELETE FROM t WHERE a = {0} /* {1} */ AND b < {1} -- {0}",
         "INSERT INTO t SELECT {0}, f({1}) FROM u", "WITH x AS (DELETE FROM t WHERE a={0}) UPDATE t SET a={1}")


@pytest.mark.parametrize(("dialect", "secrets"), [("postgres", SECRETS), ("mariadb", MY_SECRETS)])
def test_no_value_is_ever_shown(dialect, secrets):
    for form in FORMS:
        for first in secrets:
            for second in secrets:
                sql = form.format(first, second).encode()
                if "unsure" in scan(sql, dialect, dialect == "mariadb")["flags"]:
                    continue            # it is not watched
                text = shown(sql, dialect, dialect == "mariadb")[1]
                assert not {"s3", "777", "cr3t"} & {w for w in ("s3", "777", "cr3t") if w in text}, (sql, text)


@pytest.mark.parametrize("sql", [
    "INSERT INTO t VALUES ('it's s3cr3t', 'b's c')", "INSERT INTO t VALUES ('a' s3cr3t cd', 'c')",
    "INSERT INTO t VALUES ($$a$$s3cr3t$$, 1)",
    "INSERT INTO t VALUES ('rock 'n' s3cr3t', 'x')", "UPDATE t SET a = 'x ' s3cr3t y', b = 'z ' w'",
    "UPDATE t SET a = 'o'777' WHERE b = 'c'"])
def test_no_value_is_shown_of_what_is_quoted_wrongly(sql):
    text = shown(sql.encode())[1]
    assert "s3" not in text and "777" not in text, text
    assert text.endswith(" …") or "unsure" in scan(sql.encode())["flags"], text


def test_what_is_valid_is_shown():
    sql = "INSERT INTO t (a, b) VALUES (E'x', X'aa') ON CONFLICT (a) DO UPDATE SET b = 'y'::text || '' WHERE t.c='z'"
    assert shown(sql.encode())[1] == (
        "INSERT INTO t (a, b) VALUES (?, ?) ON CONFLICT (a) DO UPDATE SET b = ?::text || ? WHERE t.c=?")


@pytest.mark.parametrize(("dialect", "left", "right", "same"), [
    ("postgres", "INSERT INTO t (a) VALUES (1)", "INSERT  INTO t (a)\nVALUES ('x'), (NULL)", True),
    ("postgres", "INSERT INTO t (a) VALUES ($1)", "/* c */ INSERT INTO t (a) VALUES (-5.5e3) -- d", True),
    ("postgres", "INSERT INTO t (a) VALUES (1)", "INSERT INTO t (a) VALUES (now())", False),
    ("postgres", "UPDATE t SET a = 1 WHERE b = 'x'", "UPDATE t SET a = -2 WHERE b = $1", True),
    ("postgres", "UPDATE t SET a = a - 1", "UPDATE t SET a = a - 22", True),
    ("postgres", "UPDATE t SET a = a - 1", "UPDATE t SET a = a + 1", False),
    ("postgres", 'UPDATE "t" SET a = 1', 'UPDATE "u" SET a = 1', False),
    ("mariadb", "UPDATE t SET a = ?", 'UPDATE t SET a = "x"', True),
    ("mariadb", "UPDATE `t` SET a = 1", "UPDATE `u` SET a = 1", False),
    ("postgres", "DELETE FROM t1 WHERE a = 1", "DELETE FROM t2 WHERE a = 1", False),
])
def test_shapes_are_told_apart(dialect, left, right, same):
    assert (shown(left.encode(), dialect)[0] == shown(right.encode(), dialect)[0]) is same


@pytest.mark.parametrize("sql", ["INSERT INTO t (a, b) VALUES (1, 'x')", "UPDATE t SET a = a + 1 WHERE b = 'x'",
                                 "DELETE FROM t WHERE a IN (1, 2)", "INSERT INTO t (a) VALUES (1) RETURNING a"])
def test_the_fingerprint_is_the_one_that_rules_match(sql):
    """What advice proposes means the shape by which the writes are batched."""
    crowd = Crowd(2)
    fingerprint = shown(sql.encode())[2]
    asked = []
    crowd.engine.set_rules([("one", 10.0, False, ("insert", "update", "delete", "replace"))])
    crowd.hooks.candidates = lambda session: (0,)
    crowd.hooks.first_rule = lambda numbers, shape, schemas: asked.append(shape.fingerprint) or -1
    crowd.members[0][0].receive(pg_query(sql.encode()))
    assert asked == [fingerprint]


def entry(**more) -> dict:
    found = One(10)
    for _ in range(100):
        found.write("INSERT INTO t (a) VALUES (1)")
    return {**found.entries()[0], "connections": 8, **more}


def windows(*saved: int) -> list[dict]:
    return [{"ms": ms, "operations": 99 - n, "saved": n, "extra_latency_ms": 0.5}
            for ms, n in zip((1, 10, 50), saved, strict=True)]


@pytest.mark.parametrize(("more", "verdict", "why", "wait"), [
    ({"known": "open", "merges": True, "windows": windows(5, 80, 90)}, "merged", "rows of many", 10),
    ({"known": "open", "merges": False, "windows": windows(75, 80, 90)}, "pipelined", "everybody's", 1),
    ({"known": "open", "windows": windows(1, 2, 3)}, "merged", "rows of many", None),
    ({"known": "open", "windows": windows(5, 80, 90), "batched": 90}, "merged", "rows of many", None),
    ({"known": "open", "windows": windows(0, 0, 0), "connections": 1}, "merged", "it never comes from two", None),
    ({"known": "text", "windows": windows(5, 80, 90)}, "unknown", "its text allows it", None),
    ({"known": "not yet", "windows": windows(5, 80, 90)}, "unknown", "not looked at yet", None),
    ({"known": "refused", "why": "the default of column tx calls f()", "windows": windows(5, 80, 90)}, "alone",
     "the default of column tx calls f()", None),
    ({"known": "never", "form": ["several"], "windows": windows(5, 80, 90)}, "alone", "several statements", None),
    ({"known": "never", "why": "it calls f()", "windows": windows(5, 80, 90)}, "alone", "it calls f()", None),
    ({"in_transaction": 99, "windows": windows(0, 0, 0)}, "alone", "always inside a transaction", None),
    ({"unlike": 99, "windows": windows(0, 0, 0)}, "alone", "its sessions are like no other", None),
])
def test_what_is_said_of_a_shape(more, verdict, why, wait):
    said = advice.advise(entry(**{"merges": True, **more}))
    assert said["verdict"] == verdict and said["why"].startswith(why), said
    assert said["max_wait_ms"] == wait and (said["rule"] is None) == (wait is None)


def test_the_difference_of_two_looks():
    def answer(seconds: float, writes: int) -> dict:
        shape = advice.advise(entry())
        shape |= {"writes": writes, "batched": writes // 2, "windows": [
            {"ms": ms, "operations": writes // 4, "saved": writes - writes // 4, "extra_latency_ms": 2.0}
            for ms in (1, 10, 50)]}
        return {"uptime_seconds": seconds, "writes": writes, "unread": 0, "replaced": 0, "shapes": [shape]}

    found = advice.difference(answer(160.0, 1000), answer(100.0, 400))
    shape = found["shapes"][0]
    assert found["writes"] == shape["writes"] == 600 and shape["writes_per_second"] == 10.0
    assert shape["windows"][1] == {"ms": 10, "operations": 150, "saved": 450, "extra_latency_ms": 2.0}
    assert shape["batched"] == 300 and shape["batched_percent"] == 50.0
    assert advice.difference(answer(160.0, 400), answer(100.0, 400))["shapes"] == []
