"""All shapes of a class leave together: what departs, in which order, within which bounds, and who is answered what.

On the test's clock, before model servers. The oracle is the same bytes said to a model server directly.
"""

import random
import re

import pytest

from tests.model import talk
from tests.model.scene import HINT, PROTOCOLS
from tests.moment import Moment

MANY = {"postgres": "t t t! t! p p p! update update! delete", "mariadb": "t t t! t!"}
BOUND = "$t $t $t! $t! $p $p $p! $update $update! $delete"
FORMS = {"text": ("postgres", MANY["postgres"]), "bound": ("postgres", BOUND), "mariadb": ("mariadb", MANY["mariadb"])}


# --- what is sent -----------------------------------------------------------------------------------------------------

def test_one_message():
    """Four shapes are one Query on one connection: what is merged first, each statement ended by a line of its own."""
    moment = Moment("postgres", "p t t! t t! update")
    p, first, one, second, other, own = moment.write_all()
    moment.run()
    [leader] = moment.sent()
    assert bytes(leader.sent) == talk.query(
        "BEGIN;SET LOCAL lock_timeout=100;SET LOCAL idle_in_transaction_session_timeout=0;"
        "SET LOCAL statement_timeout=50;"
        f"{HINT}INSERT INTO t (k, a) VALUES ({first}, 1),({second}, 1)\n;"
        f"{HINT}INSERT INTO t (k, a) VALUES ({one}, 1),({other}, 1) RETURNING k, a\n;"
        f"{HINT}INSERT INTO p (k, a) VALUES ({p}, 1)\n;{HINT}UPDATE t SET a = 1 WHERE k = {own}\n;"
        "SET LOCAL statement_timeout=0",
    ) + talk.query("COMMIT")
    moment.finish()


def test_one_segment():
    """The same by the extended protocol: each unit parses its statement once; one Sync ends all of them."""
    moment = Moment("postgres", "$p $t $t! $p $t $t!")
    moment.write_all()
    moment.run()
    [leader] = moment.sent()
    kinds = talk.kinds(bytes(leader.sent))
    assert kinds.endswith("SQ") and kinds.count("S") == 1
    said = "PBDE" * 2 + "PBDEBDE" + "PBE"       # the last takes the limit of time away
    assert kinds.removesuffix("SQ")[-len(said):] == said
    assert moment.transactions() == [["t 2", "t! 2", "p 1", "p 1"]]
    moment.finish()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("form", FORMS)
def test_order_is_that_of_shapes(form, seed):
    """Whoever comes first: rows are locked in the same order in every batch, or two of them would wait for each other.

    What is merged is in front, so that locks of rows that many want are held shortest.
    """
    protocol, ways = FORMS[form]
    orders = set()
    for part in range(3):
        moment = Moment(protocol, ways)
        writers = list(zip(moment.links, moment.ways, strict=True))
        random.Random(f"{seed} {part}").shuffle(writers)
        for link, way in writers:
            moment.write(link, way)
        moment.run()
        [said] = moment.transactions()
        assert said[:2] == ["t 2", "t! 2"]
        orders.add(tuple(said))
        moment.finish()
    assert len(orders) == 1


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("form", FORMS)
def test_each_gets_its_own(form, size):
    """Rows and heads of two units with RETURNING, affected rows of statements beside merged rows, in any pieces."""
    protocol, ways = FORMS[form]
    moment = Moment(protocol, ways, size=size)
    for _ in range(3):
        moment.give_rows()
        moment.again()
        moment.write_all()
        moment.run()
        assert len(moment.transactions()) == 1 and not moment.alone()
    moment.finish()


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("form", FORMS)
def test_any_mixture(form, seed):
    """Shapes, numbers of rows, refused ones and writes sent ahead at random, some with nothing to update."""
    protocol, ways = FORMS[form]
    dice = random.Random(seed)
    choice = [way for way in ways.split() if "delete" not in way]
    moment = Moment(protocol, " ".join([*choice, *(dice.choice(choice) for _ in range(6))]),
                    size=dice.choice((0, 1, 3, 50)), max_batch_size=(most := dice.choice((2, 5, 1000))))
    together = 0
    for _ in range(3):
        moment.again()
        for link in moment.links:
            for _ in range(dice.choice((1, 1, 1, 2, 5))):
                moment.write(link, dice.choice(choice), -1 if dice.random() < 0.1 else 1)
        moment.scene.wire.finish()
        together += any(len({*said}) > 1 for said in moment.transactions())
    assert together or most < 1000          # whose groups are mostly full by themselves
    moment.finish()


DESCRIBES = {"none": b"", "once": talk.describe(), "twice": talk.describe() * 2}


@pytest.mark.parametrize("named", [False, True])
def test_what_each_asked_to_be_described(named):
    """Parse and Describe are answered to those who sent them, whatever their unit's first member sent."""
    moment = Moment("postgres", "$t $t! $t $t! $p $p! $p $p!")
    sql = {"t": "INSERT INTO t (k, a) VALUES ($1, $2)", "p": "INSERT INTO p (k, a) VALUES ($1, $2)"}
    ways = {way: HINT + sql[way[1]] + " RETURNING k, a" * ("!" in way) for way in moment.ways}
    for link in moment.links if named else ():
        for i, text in enumerate(sorted({*ways.values()})):
            moment.scene.say(link, talk.parse(text, f"w{i}") + talk.SYNC)
    moment.scene.wire.finish()
    names = {text: f"w{i}" if named else "" for i, text in enumerate(sorted({*ways.values()}))}
    for turn in range(3):
        moment.again()
        for i, (link, way) in enumerate(zip(moment.links, moment.ways, strict=True)):
            text = ways[way]
            described = DESCRIBES[[*DESCRIBES][(i // 2 + turn) % 2]]
            parsed = b"" if named else talk.parse(text)
            moment.scene.say(link, parsed + talk.bind((moment.scene.key(), 1), names[text]) + described
                             + talk.EXECUTE + talk.SYNC)
        moment.run()
        assert len(moment.transactions()) == 1
    moment.finish()


def test_several_executions_behind_one_sync():
    """A segment of many writes is one member of its unit, and is answered as one, beside other units."""
    moment = Moment("postgres", "$t $t! $p $t")
    for link, way in zip(moment.links, moment.ways, strict=True):
        sql = f"{HINT}INSERT INTO {way[1]} (k, a) VALUES ($1, $2){' RETURNING k, a' * ('!' in way)}"
        moment.scene.say(link, talk.parse(sql) + b"".join(
            talk.bind((moment.scene.key(), n)) + talk.describe() + talk.EXECUTE for n in range(3)) + talk.SYNC)
    moment.run()
    assert moment.transactions() == [["t 6", "t! 3", "p 1", "p 1", "p 1"]]
    moment.finish()


# --- bounds -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("most", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("form", FORMS)
def test_rows_of_all_units_count(form, most):
    """No batch has more rows than it may have, whatever shapes they are of; what does not fit is in the next one."""
    protocol, ways = FORMS[form]
    moment = Moment(protocol, ways, max_batch_size=most)
    moment.write_all()
    moment.scene.wire.finish()              # who has left in a full one is awaited again
    rows = [sum(int(said.partition(" ")[2] or 1) for said in batch) for batch in moment.transactions()]
    assert rows and max(rows) <= most and sum(rows) + len(moment.alone()) == len(moment.ways)
    assert most < 4 or any(len({*batch}) > 1 for batch in moment.transactions())
    moment.finish()


def test_bytes_of_all_units_count():
    """No batch is longer than it may be, though each of its groups would fit; what does not fit is in the next one."""
    moment = Moment("postgres", "t t t! t! p p update update", max_batch_bytes=956)
    moment.write_all()
    moment.run()
    batches = [message for link in moment.links for kind, message in talk.messages(bytes(link.sent))
               if message.startswith(b"BEGIN")]
    assert len(batches) > 1 and max(map(len, batches)) <= 956
    assert any(len({*said}) > 1 for said in moment.transactions())
    moment.finish()


def test_text_and_segments_do_not_mix():
    """A Query has its answer at its end, a segment another at its Sync: one batch is of one kind."""
    moment = Moment("postgres", "t t! $t $t! t t! $t $t!")
    moment.write_all()
    moment.run()
    assert moment.transactions() == [["t 2", "t! 2"]] * 2
    kinds = sorted(kind for link in moment.sent() for kind, body in talk.messages(bytes(link.sent)) if b"BEGIN" in body)
    assert kinds == [b"P", b"Q"]
    moment.finish()


def test_mariadbs_statements_leave_by_themselves():
    """Only what is merged gains by company there: statements do not mix. Executions of a prepared INSERT are merged."""
    moment = Moment("mariadb", "t t t! t! p p update update")
    for link in moment.links:
        moment.scene.say(link, talk.com_execute(1, (moment.scene.key(), 1)))
    moment.run()
    assert moment.transactions() == [["t 8"]]
    moment.again()
    moment.write_all()
    moment.run()
    assert sorted(moment.transactions()) == [["p 1", "p 1"], ["t 2", "t! 2"], ["update", "update"]]
    moment.finish()


def test_mariadbs_single_writes_are_sooner_done_alone():
    """A batch of several shapes takes more turns than an INSERT: it is worth its while with two rows of each."""
    moment = Moment("mariadb", "t t! t")
    moment.write_all()
    moment.run()
    assert moment.transactions() == [["t 2"]] and moment.alone() == ["t! 1"]
    moment.finish()


def test_classes_do_not_mix():
    """Sessions whose settings differ share nothing, whatever they write in the same moment."""
    moment = Moment("postgres", "t t! t t!")
    for link in moment.links[:2]:
        moment.scene.say(link, moment.scene.query("SET search_path = x"))
    moment.scene.wire.finish()
    for link, way in zip(moment.links, moment.ways, strict=True):
        moment.write(link, way)
    moment.scene.wire.finish()                  # facts of the new class's tables are asked
    moment.again()
    moment.write_all()
    moment.run()
    assert moment.transactions() == [["t 1", "t! 1"]] * 2
    assert len(moment.sent()) == 2
    moment.finish()


# --- when -------------------------------------------------------------------------------------------------------------

def test_who_is_taken_along_at_a_deadline():
    """A group's time is over: with it leaves what would before so long a wait again, and nothing that may wait longer.

    The one that stays leaves with whoever was awaited.
    """
    moment = Moment("postgres", "t t! p update")
    moment.write(moment.links[0], "t")
    moment.scene.wire.tick(2)
    moment.write(moment.links[1], "t!")
    moment.write(moment.links[2], "p", wait_ms=1000)
    moment.scene.wire.tick(2)
    moment.run()
    assert not moment.heard[moment.since:]
    moment.scene.wire.tick(1.1)
    moment.run()
    assert moment.transactions() == [["t 1", "t! 1"]] and not moment.alone()
    assert {k: v for k, v in moment.news().items() if k.startswith("flush")} == {
        "flush deadline": 1, "flush together": 1}
    moment.write(moment.links[3], "update")
    moment.write(moment.links[0], "t")
    moment.write(moment.links[1], "t!")
    moment.run()
    assert moment.transactions()[1:] == [["t 1", "t! 1", "p 1", "update"]]
    moment.finish()


@pytest.mark.parametrize("other, joins", [(11, False), (10, True), (6, True)])
def test_the_later_deadline(other, joins):
    """What would leave before the one that leaves could again is taken along; what may wait longer waits."""
    moment = Moment("postgres", "t p t!")
    moment.write(moment.links[0], "t", wait_ms=5)
    moment.write(moment.links[1], "p", wait_ms=other)
    moment.scene.wire.tick(5.1)
    moment.run()
    assert bool(moment.transactions()) is joins and moment.engine.gathered == (not joins)
    assert moment.news().get("flush together", 0) == joins
    moment.finish()


def test_full_groups_leave_alone():
    """A group that is full leaves in its own moment; others of the class go on gathering."""
    moment = Moment("postgres", "t t t! p", max_batch_size=2)
    moment.write(moment.links[2], "t!")
    moment.write(moment.links[0], "t")
    moment.write(moment.links[1], "t")
    moment.run()
    assert moment.transactions() == [["t 2"]] and moment.engine.gathered == 1
    assert {k: v for k, v in moment.news().items() if k.startswith("flush")} == {"flush full": 1}
    moment.finish()


def test_a_slow_batch_parts_its_groups():
    """None of them was slow by itself, but the sum was: for a second each table's leave by themselves, and then again
    together."""
    moment = Moment("postgres", "t t t! t! p p p! p!")
    for link, way in list(zip(moment.links, moment.ways, strict=True))[:6]:
        moment.write(link, way)
    for link in moment.links[6:]:
        moment.write(link, "t")
    moment.run_late(201)
    assert moment.transactions() == [["t 4", "t! 2", "p 1", "p 1"]]
    moment.again()
    moment.write_all()
    moment.run()
    assert sorted(moment.transactions()) == [["p 1", "p 1"], ["p! 1", "p! 1"], ["t 2"], ["t! 2"]]
    moment.scene.wire.tick(1_001)
    moment.again()
    moment.write_all()
    moment.run()
    assert moment.transactions() == [["t 2", "t! 2", "p 1", "p 1", "p! 1", "p! 1"]]
    moment.finish()


@pytest.mark.parametrize("slow", [True, False])
def test_a_slow_commit_parts_nobody(slow):
    """A disk that is slow is slow for all: only time until the answers counts."""
    moment = Moment("postgres", "t t t! t!")
    moment.write_all()
    [leader] = [link for link in moment.links if link.server.out]
    moment.scene.wire.run(until=lambda: b"COMMIT" in leader.sent)
    leader.held_down = True
    moment.run()
    moment.scene.wire.tick(500 if slow else 1)
    leader.held_down = False
    moment.run()
    moment.again()
    moment.write_all()
    moment.run()
    assert moment.transactions() == [["t 2", "t! 2"]]
    moment.finish()


# --- what is counted --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("form", ["text", "bound"])
def test_each_unit_is_counted(form):
    """One batch, one transaction for the database, one statement or several for each of its units."""
    ways = "t t t t! t! p p p update update".split()
    moment = Moment("postgres", " ".join(f"${way}" if form == "bound" else way for way in ways))
    moment.write_all()
    moment.run()
    assert moment.transactions() == [["t 3", "t! 2", "p 1", "p 1", "p 1", "update", "update"]]
    assert moment.news() == {
        "batches": 1, "queries": 1, "flush nobody_left": 4, "method multi_row": 2, "method pipeline": 2,
        "sent insert": 3, "sent update": 1, "batched insert": 8, "batched update": 2,
        "size insert": 8, "size update": 2}
    sizes = {kind: [b - a for a, b in zip(moment.before[kind], moment.counted()[kind], strict=True)]
             for kind in ("sizes insert", "sizes update")}
    assert sizes["sizes insert"][:3] == [0, 1, 2] and sizes["sizes update"][:3] == [0, 1, 0]
    assert all(link.session.last_batch_size == 10 and link.session.last_reason == "nobody_left"
               for link in moment.links)
    moment.finish()


def test_mariadbs_units_are_counted():
    """One of them has sent two writes ahead: each counts."""
    moment = Moment("mariadb", "t t t t! t!")
    moment.write(moment.links[0], "t")
    moment.write_all()
    moment.run()
    assert moment.transactions() == [["t 4", "t! 2"]]
    assert moment.news() == {"batches": 1, "queries": 1, "flush nobody_left": 2, "method multi_row": 2,
                             "sent insert": 2, "batched insert": 6, "size insert": 6}
    moment.finish()


# --- who is gone meanwhile --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("form", FORMS)
def test_a_cancelled_write_is_in_no_unit(form):
    """Each is taken back in turn while others gather: it is told so, nothing of it is sent, and the rest leaves."""
    protocol, ways = FORMS[form]
    ways += " t t!" * (protocol == "mariadb")       # fewer would not mix there
    for who in range(len(ways.split())):
        moment = Moment(protocol, ways, more=1)
        keys = moment.write_all()
        assert moment.engine.gathered == len(keys)
        moment.links[who].answers.clear()
        assert moment.links[who].session.cancel_waiting()
        moment.scene.wire.finish()
        assert len(moment.transactions()) == 1 and not moment.alone()
        assert sum(int(said.partition(" ")[2] or 1) for said in moment.transactions()[0]) == len(keys) - 1
        told = bytes(moment.links[who].answers)
        assert re.search(rb"57014|\x25\x05", told)          # 1317 as a packet tells it
        for link in moment.links:
            assert not link.ended and link.session.idle


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_client_that_goes_takes_its_gathered_write_with_it(protocol):
    more = protocol == "mariadb"                    # fewer would not mix there
    moment = Moment(protocol, MANY[protocol] + " t t!" * more, more=1)
    keys = moment.write_all()
    moment.links[1].kill_client()
    moment.scene.wire.finish()
    assert len(moment.transactions()) == 1
    assert moment.transactions()[0][:2] == [f"t {1 + more}", f"t! {2 + more}"]
    stored = [row["k"] for row in moment.scene.wire.store.tables[
        "public" if protocol == "postgres" else "d", "t"].rows.values()]
    assert keys[1] not in stored and {keys[0], keys[2], keys[3]} <= {*stored}


def test_drained_together():
    """What is gathered when the proxy is about to end leaves at once, in one batch."""
    moment = Moment("postgres", MANY["postgres"], more=1)
    moment.write_all()
    assert moment.engine.gathered == len(moment.ways)
    moment.engine.drain()
    moment.run()
    assert len(moment.transactions()) == 1 and not moment.alone()
    assert moment.news()["flush drain"] == 7
    moment.finish()
