"""Batches of several shapes that fail: parted by statement first, then by write or halves; nothing is told twice.

On the test's clock, before model servers; without kills the oracle is the same bytes said to a model server directly.
"""

import re
from collections import Counter

import pytest

from tests.model import talk
from tests.model.scene import HINT
from tests.moment import Moment
from tests.test_departures import FORMS
from tests.test_vanishing import ACK, EVENTS, NOTHING, REFUSED, UNKNOWN, leads, move, outcome
from tests.wire import pg

FOUR = "t t t t t! t! p p p"


def codes(moment: Moment) -> list[str | int]:
    return [outcome(moment.scene.protocol, bytes(link.answers))[1] for link in moment.links]


# --- one statement is why ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("form", ["text", "bound"])
def test_a_bad_row_of_what_is_merged(form):
    """The other units go together again, at once; the one with the bad row is halved until the row is alone."""
    moment = Moment("postgres", " ".join("$" * (form == "bound") + way for way in FOUR.split()))
    moment.write_all({2: -1})
    moment.run()
    assert moment.transactions() == [["t 4"], ["t 2"], ["t 2"], ["t! 2", "p 1", "p 1", "p 1"]] or (
        sorted(moment.transactions()) == sorted([["t 4"], ["t 2"], ["t 2"], ["t! 2", "p 1", "p 1", "p 1"]]))
    assert sorted(moment.alone()) == ["t 1", "t 1"]
    assert moment.news()["retry constraint"] == 2 and moment.news()["alone retry"] == 2
    moment.finish()


@pytest.mark.parametrize("form", ["text", "bound"])
def test_a_bad_write_of_a_unit_of_statements(form):
    """Only who made it goes alone: the rest of its unit goes together again with the other units."""
    moment = Moment("postgres", " ".join("$" * (form == "bound") + way for way in FOUR.split()))
    moment.write_all({7: -1})
    moment.run()
    assert moment.transactions() == [["t 4", "t! 2", "p 1", "p 1"], ["t 4", "t! 2", "p 1", "p 1"]]
    assert moment.alone() == ["p 1"]
    assert moment.news()["retry constraint"] == moment.news()["alone retry"] == 1
    moment.finish()


def test_a_bad_row_on_mariadb():
    """All statements were sent: the server runs those behind the bad one, too, and nothing of them is kept."""
    moment = Moment("mariadb", "t t t t t! t!")
    moment.write_all({2: -1})
    moment.run()
    assert moment.transactions()[0] == ["t 4", "t! 2"]
    assert sorted(moment.transactions()[1:]) == [["t 2"], ["t 2"], ["t! 2"]]
    assert sorted(moment.alone()) == ["t 1", "t 1"]
    moment.finish()


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("bad", range(9))
@pytest.mark.parametrize("form", FORMS)
def test_whoever_is_bad(form, bad, size):
    """Each member in turn, and with it another of the next unit: each has its own error, the others' writes stand."""
    protocol, ways = FORMS[form]
    for values in ({bad: -1}, {bad: -1, (bad + 2) % len(ways.split()): -1}):
        if protocol == "mariadb" and bad >= len(ways.split()):
            continue
        moment = Moment(protocol, ways, size=size)
        moment.write_all(values)
        moment.scene.wire.finish()
        assert any(len({*said}) > 1 for said in moment.transactions())
        moment.finish()


def test_two_that_write_the_same_key():
    """The first of each pair is kept, the second told of a duplicate: one way or the other, and nobody else's fails."""
    moment = Moment("postgres", "t t! p p p! t")
    key = moment.scene.key()
    for link in moment.links:
        link.answers.clear()
    for link, way in zip(moment.links[:2], moment.ways, strict=False):
        moment.scene.say(link, talk.query(f"{HINT}INSERT INTO t (k, a) VALUES ({key}, 1)"
                                          + " RETURNING k, a" * ("!" in way)))
    for link, way in list(zip(moment.links, moment.ways, strict=True))[2:]:
        moment.write(link, way)
    moment.scene.wire.finish()
    assert Counter(codes(moment)) == {"": 5, "23505": 1} and "23505" in codes(moment)[:2]
    assert any(len({*said}) > 1 for said in moment.transactions())


# --- nobody knows which -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("protocol, code, cause", [
    ("postgres", "40001", "serialization"), ("mariadb", 1213, "deadlock")])
def test_an_error_at_commit(protocol, code, cause):
    """All statements were good, and the transaction was not: they are tried one by one, each in its own."""
    ways = FOUR if protocol == "postgres" else "t t t t t! t!"
    moment = Moment(protocol, ways)
    moment.scene.wire.store.faults.append(["COMMIT", code, 1])
    moment.write_all()
    moment.run()
    units = [["t 4"], ["t! 2"], ["p 1", "p 1", "p 1"]][:len({*ways.split()})]
    assert moment.transactions()[0] == [said for unit in units for said in unit]
    assert sorted(moment.transactions()[1:]) == sorted(units) and not moment.alone()
    assert moment.news()[f"retry {cause}"] == 1
    moment.finish()


def test_a_query_that_cannot_be_read():
    """A syntax error is told before anything has run: it may be any statement's."""
    moment = Moment("postgres", FOUR)
    moment.scene.wire.store.faults.append(["BEGIN", "42601", 1])
    moment.write_all()
    moment.run()
    assert sorted(moment.transactions()) == [[], ["p 1", "p 1", "p 1"], ["t 4"], ["t! 2"]]
    moment.finish()


@pytest.mark.parametrize("code, cause", [("55P03", "timeout"), ("40P01", "deadlock"), ("57014", "timeout")])
@pytest.mark.parametrize("unit", ["INTO t (k, a) VALUES (", "RETURNING", "INTO p (k"])
def test_a_lock_of_one_unit(unit, code, cause):
    """A row of one unit is locked by another: the others do not wait for it."""
    moment = Moment("postgres", FOUR)
    keys = moment.write_all()
    assert moment.engine.batches_running == 1
    moment.scene.wire.store.faults.append([f"{keys[0]}, 1" if unit.startswith("INTO t") else unit, code, 1])
    moment.run()
    first, *others = moment.transactions()
    assert first == ["t 4", "t! 2", "p 1", "p 1", "p 1"][:len(first)]
    rest = {"INTO t": ["t! 2", "p 1", "p 1", "p 1"], "RETURN": ["t 4", "p 1", "p 1", "p 1"],
            "INTO p": ["t 4", "t! 2"] + ["p 1", "p 1"] * (cause != "timeout")}[unit[:6]]
    assert rest in others and moment.news()[f"retry {cause}"] == 1
    moment.finish()


@pytest.mark.parametrize("form", FORMS)
def test_failures_do_not_go_round(form):
    """Every statement meets a fault again and again: each write is tried a bounded number of times and then alone."""
    protocol, ways = FORMS[form]
    moment = Moment(protocol, ways)
    code = "40001" if protocol == "postgres" else 1213
    moment.write_all()
    moment.scene.wire.store.faults.append(["COMMIT", code, 1000])
    moment.scene.wire.finish()
    assert sorted(moment.alone()) == sorted({"delete": "delete", "update": "update", "update!": "update!"}.get(
        way.strip("$"), way.strip("$") + " 1") for way in ways.split())
    assert len(moment.transactions()) <= 2 * len(moment.ways)
    moment.scene.wire.store.faults.clear()
    moment.finish()


def test_a_slow_failure_parts_the_one_that_failed():
    """A statement that waits for a lock before it fails has kept the others: it leaves by itself for a while."""
    moment = Moment("postgres", FOUR)
    moment.write_all({6: -1})
    moment.run_late(201)
    moment.again()
    moment.write_all()
    moment.run()
    assert sorted(moment.transactions()) == [["p 1", "p 1", "p 1"], ["t 4", "t! 2"]]
    moment.finish()


# --- tables that are not what they were -------------------------------------------------------------------------------

@pytest.mark.parametrize("code", ["42P01", "42703"])
@pytest.mark.parametrize("form", ["text", "bound"])
def test_a_table_error_concerns_its_table(form, code):
    """p has gone, or a column of it: its writes go alone and it is asked for again; nothing else is."""
    way = "$" * (form == "bound")
    moment = Moment("postgres", " ".join(way + one for one in "t t t! t! p p".split()))
    moment.write_all()
    moment.scene.wire.store.faults.append(["INTO p (k", code, 1])
    moment.run()
    assert moment.transactions()[1:] == [["t 2", "t! 2"]] and moment.alone() == ["p 1", "p 1"]
    asked = []
    for one in ("t", "t!", "p"):
        moment.again()
        moment.write(moment.links[0], way + one)
        moment.scene.wire.finish()
        asked.append(b"pg_catalog.pg_class" in moment.links[0].sent or b"pg_catalog" in moment.links[0].sent)
    assert asked == [False, False, True]
    moment.finish()


# --- surprises in an answer -------------------------------------------------------------------------------------------

NOTICE = pg(b"N", b"SNOTICE\0VNOTICE\0C00000\0Mlook\0\0")


def answered_with(moment: Moment, change) -> None:
    """Everybody writes; what the leader's server answers to the statements is changed on its way."""
    moment.write_all()
    for link in moment.links:
        link.held_down = True
    moment.run()
    [leader] = [link for link in moment.links if link.down]
    before = bytes(leader.down)
    leader.down[:] = change(before)
    assert bytes(leader.down) != before
    for link in moment.links:
        link.held_down = False
    moment.run()


SURPRISES = {
    "notice": (lambda data: data.replace(pg(b"C", b"INSERT 0 4\0"), NOTICE + pg(b"C", b"INSERT 0 4\0")), "warning"),
    "fewer rows": (lambda data: data.replace(b"INSERT 0 4", b"INSERT 0 3"), "mismatch"),
    "another command": (lambda data: data.replace(b"INSERT 0 4", b"UPDATES! 4"), "mismatch"),
}


@pytest.mark.parametrize("name", SURPRISES)
def test_a_surprise_in_one_unit(name):
    """A notice cannot be shared out, a trigger may have dropped a row: that unit is halved, the others go together."""
    change, cause = SURPRISES[name]
    moment = Moment("postgres", FOUR)
    answered_with(moment, change)
    assert moment.transactions()[0] == ["t 4", "t! 2", "p 1", "p 1", "p 1"]
    assert sorted(moment.transactions()[1:]) == [["t 2"], ["t 2"], ["t! 2", "p 1", "p 1", "p 1"]]
    assert moment.news()[f"retry {cause}"] == 1 and not moment.alone()
    moment.finish()


def test_rows_that_do_not_come():
    """A unit's RETURNING gives fewer rows than it says: nobody's rows are given to another."""
    moment = Moment("postgres", FOUR)

    def without_a_row(data: bytes) -> bytes:
        found = talk.messages(data)
        gone = next(i for i, (kind, _) in enumerate(found) if kind == b"D")
        return b"".join(pg(kind, body) for i, (kind, body) in enumerate(found) if i != gone)

    answered_with(moment, without_a_row)
    # each half is one write, which goes as it came
    assert moment.transactions()[1:] == [["t 4", "p 1", "p 1", "p 1"]] and moment.alone() == ["t! 1", "t! 1"]
    assert moment.news()["retry mismatch"] == 1
    moment.finish()


def test_notices_of_statements_are_their_owners():
    """A unit whose members have statements of their own: each has its notice, and the batch is kept."""
    moment = Moment("postgres", FOUR)
    done = pg(b"C", b"INSERT 0 1\0")
    answered_with(moment, lambda data: data.replace(done + done, NOTICE + done + done, 1))
    assert len(moment.transactions()) == 1 and not moment.alone()
    told = [NOTICE + done in bytes(link.answers) for link in moment.links]
    assert told == [False] * 6 + [True, False, False]


def test_three_surprises_pause_their_group_only():
    """What surprises again and again goes alone for a while; groups that were in its batches go on together."""
    moment = Moment("postgres", "t t t t t t t t t! t! p p p")
    moment.write_all()
    for _ in range(10):
        for link in moment.links:
            link.held_down = True
        moment.run()
        for link in moment.links:
            link.down[:] = re.sub(rb"INSERT 0 [48]", b"INSERT 0 3", bytes(link.down))
            link.held_down = False
            while link.deliver_down(1 << 30):
                pass
    moment.run()
    assert moment.news()["retry mismatch"] == 3
    moment.again()
    moment.write_all()
    moment.scene.wire.finish()
    assert moment.transactions() == [["t! 2", "p 1", "p 1", "p 1"]] and moment.alone() == ["t 1"] * 8
    moment.scene.wire.tick(61_000)
    moment.write_all()
    moment.scene.wire.finish()
    moment.again()
    moment.write_all()
    moment.run()
    assert moment.transactions() == [["t 8", "t! 2", "p 1", "p 1", "p 1"]]
    moment.finish()


def test_a_warning_on_mariadb():
    """An OK packet tells their number for all rows, not whose they are: that unit is taken apart, the other is not."""
    moment = Moment("mariadb", "t t t t t! t!")

    def with_a_warning(data: bytes) -> bytes:
        at = data.index(b"\0\4\0") + 3
        return data[:at + 2] + b"\1\0" + data[at + 4:]

    moment.write_all()
    for link in moment.links:
        link.held_down = True
    moment.run()
    [leader] = [link for link in moment.links if link.down]
    leader.held_down = False
    leader.take_down(1 << 30)
    leader.deliver_down(1 << 30)                # what opens the transaction is answered
    leader.held_down = True
    moment.run()
    leader.down[:] = with_a_warning(bytes(leader.down))
    for link in moment.links:
        link.held_down = False
    moment.run()
    assert moment.transactions()[0] == ["t 4", "t! 2"]
    assert sorted(moment.transactions()[1:]) == [["t 2"], ["t 2"], ["t! 2"]] and not moment.alone()
    assert moment.news()["retry warning"] == 1
    moment.finish()


# --- peers that vanish ------------------------------------------------------------------------------------------------

VANISHING = {"text": ("postgres", "t t t! t! p"), "bound": ("postgres", "$t $t $t! $t! $p"),
             "mariadb": ("mariadb", "t t t! t!")}


def begin(form: str, bad: bool) -> tuple[Moment, list[int]]:
    """A bystander may still come."""
    protocol, ways = VANISHING[form]
    moment = Moment(protocol, ways, more=1)
    keys = moment.write_all({1: -1} if bad else None)
    for link in moment.links:
        link.answers.clear()
    return moment, keys


def is_there(moment: Moment, way: str, key: int) -> bool:
    schema = "public" if moment.scene.protocol == "postgres" else "d"
    return key in moment.scene.wire.store.tables[schema, way.strip("$!")].rows


@pytest.mark.parametrize("bad", [False, True], ids=["good", "bad"])
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("form", VANISHING)
def test_after_every_step(form, event, bad):
    """After each step one of the connections ends. Before COMMIT was handed over the others are tried again and
    answered; afterwards all are told that it is unknown, and nothing is sent again. What is told is what is stored."""
    moment, keys = begin(form, bad)
    length = 0
    while move(moment.scene.wire):
        length += 1
    assert length > 10
    for at in range(length + 1):
        for victim in range(len(keys) + 1):
            moment, keys = begin(form, bad)
            for _ in range(at):
                move(moment.scene.wire)
            link = moment.links[victim]
            mariadb = moment.scene.protocol == "mariadb"
            handed = leads(link) and b"COMMIT" in link.sent
            EVENTS[event](link)
            heard = len(moment.heard)
            moment.scene.wire.finish()
            # a lone merged INSERT of MariaDB's, tried again, goes in one send with its BEGIN, which may have failed
            blind = mariadb and b"BEGIN" in link.sent
            unclear = event.startswith("server") and (handed or blind)
            for number, (way, key) in enumerate(zip(moment.ways, keys, strict=True)):
                kind, code = outcome(moment.scene.protocol, bytes(moment.links[number].answers))
                what = f"step {at}, client {victim} gone, {number}: {kind} {code}"
                refused = bad and number == 1
                assert kind != ACK or is_there(moment, way, key), what
                assert kind != REFUSED or not is_there(moment, way, key), what
                if number != victim and not unclear:
                    assert kind == (REFUSED if refused else ACK), what
                if number != victim and kind == UNKNOWN:
                    assert moment.links[number].ended, what
                    assert not any(f"({key}, " in text for _, text in moment.heard[heard:]), what
                assert number == victim or kind != NOTHING, what
            assert moment.engine.gathered == moment.engine.batches_running == 0
            assert not moment.links[-1].ended or victim == len(keys)


@pytest.mark.parametrize("form", VANISHING)
def test_lost_before_commit_was_handed_over(form):
    """All units are tried again at once, together, with another leader; the old one's client has lost its own."""
    moment, keys = begin(form, False)
    moment.scene.wire.tick(6)
    moment.scene.wire.run(until=lambda: any("t! 2" in said for said in moment.transactions()))
    leader = moment.scene.leader()
    assert b"COMMIT" not in leader.sent
    leader.kill_server()
    moment.scene.wire.run()
    first, again = moment.transactions()
    left = sum(int(said[-1]) for said in again) + len(moment.alone())
    assert sum(int(said[-1]) for said in first) == len(keys) or form == "mariadb" or len(first) < 3
    assert left == len(keys) - 1 and len({*again}) > 1 and not moment.alone()
    told = [outcome(moment.scene.protocol, bytes(link.answers))[0] for link in moment.links[:-1]]
    assert Counter(told) == {ACK: len(keys) - 1, UNKNOWN: 1} and leader.ended
    assert moment.news()["retry connection"] == 1
    assert [is_there(moment, way, key) for way, key in zip(moment.ways, keys, strict=True)] == [
        kind == ACK for kind in told]


@pytest.mark.parametrize("form", VANISHING)
def test_lost_twice(form):
    """What has cost two connections may be what ends them: each write then goes alone, on its own connection."""
    moment, keys = begin(form, False)
    moment.scene.wire.tick(6)
    for count in (1, 2):
        moment.scene.wire.run(until=lambda count=count: len(moment.transactions()) == count and any(
            "t! " in said for said in moment.transactions()[-1]))
        [leader] = [link for link in moment.links if not link.ended and leads(link)]
        leader.kill_server()
    moment.scene.wire.finish()
    assert len(moment.transactions()) == 2 and len(moment.alone()) == len(keys) - 2
    told = [outcome(moment.scene.protocol, bytes(link.answers))[0] for link in moment.links[:-1]]
    assert Counter(told) == {ACK: len(keys) - 2, UNKNOWN: 2}


@pytest.mark.parametrize("run", [True, False])
@pytest.mark.parametrize("form", VANISHING)
def test_lost_after_commit_was_handed_over(form, run):
    """All or nothing of all units is kept, and nobody can tell: all members are told so and nothing is sent again."""
    moment, keys = begin(form, False)
    moment.scene.wire.tick(6)
    moment.scene.wire.run(until=lambda: any(b"COMMIT" in link.sent for link in moment.links))
    leader = moment.scene.leader()
    heard = len(moment.heard)
    leader.kill_server(run=run)
    moment.scene.wire.finish()
    told = [outcome(moment.scene.protocol, bytes(link.answers)) for link in moment.links[:-1]]
    assert [kind for kind, _ in told] == [UNKNOWN] * len(keys)
    assert all(link.ended for link in moment.links[:-1]) and not moment.links[-1].ended
    assert not any("INSERT" in text for _, text in moment.heard[heard:])
    assert [is_there(moment, way, key) for way, key in zip(moment.ways, keys, strict=True)] == [run] * len(keys)
