"""Peers that vanish, at every step of a conversation: who is told what, and what is stored then.

Three clients write, one more may still come; after each single step of the undisturbed course one of the connections
ends. Before COMMIT was handed to the leader's socket nothing is kept, and members are tried again elsewhere; from then
on the outcome is unknown. Nobody else loses a connection, or waits for ever.
"""

from dataclasses import dataclass

import pytest

from tests.model import talk
from tests.model.scene import FORMS, PLAIN, PROTOCOLS, TRIGGER, Scene
from tests.model.wire import Link, Wire

ACK, REFUSED, UNKNOWN, NOTHING = "acknowledged", "refused", "unknown", "nothing"
UNKNOWN_CODES = ("08006", 2013)
EVENTS = {
    "client ends": lambda link: link.kill_client(),
    "client resets": lambda link: link.kill_client(reset=True),
    "server ends": lambda link: link.kill_server(),
    "server ends behind its work": lambda link: link.kill_server(run=True),
    "server is terminated": lambda link: link.kill_server(lost=False, told=True),
}
COURSES = [("postgres", "text", PLAIN), ("postgres", "text", TRIGGER), ("postgres", "named", PLAIN),
           ("postgres", "unnamed", TRIGGER), ("mariadb", "text", PLAIN), ("mariadb", "returning", PLAIN),
           ("mariadb", "prepared", TRIGGER)]


def outcome(protocol: str, data: bytes) -> tuple[str, str | int]:
    """What the first answer in ``data`` says of a write: ``(outcome, error code)``."""
    if protocol == "postgres":
        if "C" in talk.kinds(data).partition("E")[0]:
            return ACK, ""
        code = (talk.sqlstates(data) or [""])[0]
    else:
        found = talk.answers(data, [3])
        code = talk.error_code(found[0]) if found else ""
        if found and not code:
            return ACK, ""
    return (NOTHING if code == "" else UNKNOWN if code in UNKNOWN_CODES else REFUSED), code


def move(wire: Wire) -> bool:
    """One step, or time passes; False: it is over."""
    if wire.step():
        return True
    wire.tick(6)
    return bool(wire.engine.gathered) or wire.step()


@dataclass
class Course:
    """Three writers and a bystander. ``bad``: the second's row is refused; ``cold``: the catalogue is asked first."""

    protocol: str
    form: str
    table: str
    bad: bool = False
    cold: bool = False

    def begin(self) -> Scene:
        scene = Scene(self.protocol, clients=4, warm=False).ready()
        write = FORMS[self.protocol][self.form]
        if not self.cold:
            for link in scene.links:
                link.send(write(scene.key(), 1, self.table))
                scene.wire.finish()
        for link in scene.links:
            link.answers.clear()
            link.sent.clear()
        self.keys = [scene.key() for _ in range(3)]
        for number, (link, key) in enumerate(zip(scene.links, self.keys, strict=False)):
            link.send(write(key, -(self.bad and number == 1), self.table))
        return scene

    def length(self) -> int:
        scene = self.begin()
        count = 0
        while move(scene.wire):
            count += 1
        return count

    def stored(self, scene: Scene) -> list[bool]:
        schema = "public" if self.protocol == "postgres" else "d"
        rows = scene.wire.store.tables[schema, self.table].rows
        return [key in rows for key in self.keys]

    def outcomes(self, scene: Scene) -> list[tuple[str, str | int]]:
        return [outcome(self.protocol, bytes(link.answers)) for link in scene.links[:3]]

    def go_on(self, scene: Scene) -> None:
        """Whoever is left can write, and read."""
        assert scene.wire.engine.gathered == scene.wire.engine.batches_running == 0
        left = [link for link in scene.links if not link.ended]
        for link in left:
            link.answers.clear()
            link.send(FORMS[self.protocol][self.form](scene.key(), 1, self.table))
        scene.wire.finish()
        assert [outcome(self.protocol, bytes(link.answers))[0] for link in left] == [ACK] * len(left)
        for link in left:
            link.answers.clear()
            link.send(scene.query("SELECT 5"))
        scene.wire.finish()
        assert all(b"5" in link.answers for link in left)
        for link in left:
            link.kill_client()
        scene.wire.finish()
        assert not scene.wire.store.locks


def leads(link: Link) -> bool:
    """Whether its server connection was handed a batch."""
    return b"BEGIN" in link.sent or b"autocommit = 0" in link.sent


def may_be_unknown(course: Course, link: Link) -> bool:
    """Whether mates of a batch may not know what came of it if this server connection ends now.

    On MariaDB a batch's first commands may do: a BEGIN that failed would make what follows stand.
    """
    return (leads(link) and (b"COMMIT" in link.sent or course.protocol == "mariadb")) or (
        course.protocol == "mariadb" and len(link.server.out) > 0)


def check(course: Course, scene: Scene, victim: int, event: str, unclear: bool) -> None:
    told, stored = course.outcomes(scene), course.stored(scene)
    links = scene.links
    for number, (kind, code) in enumerate(told):
        bad = course.bad and number == 1
        assert kind != ACK or (stored[number] and not bad), (number, code)
        assert kind != REFUSED or not stored[number], (number, code)
        if number == victim:
            continue
        if event.startswith("server") and unclear:
            assert kind in (ACK, UNKNOWN) or bad, (number, kind, code)
        else:
            assert kind == (REFUSED if bad else ACK), (number, kind, code)
        assert links[number].ended == (kind == UNKNOWN), number
    if victim < 3 and event.startswith("server"):
        assert links[victim].ended
    assert victim == 3 or not links[3].ended


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", ["good", "bad", "cold"])
@pytest.mark.parametrize("protocol, form, table", COURSES)
def test_after_every_step(protocol, form, table, state, event):
    course = Course(protocol, form, table, state == "bad", state == "cold")
    for at in range(course.length() + 1):
        for victim in range(4 if at % 4 == 0 else 3):
            scene = course.begin()
            for _ in range(at):
                move(scene.wire)
            link = scene.links[victim]
            unclear = may_be_unknown(course, link)
            EVENTS[event](link)
            scene.wire.finish()
            try:
                check(course, scene, victim, event, unclear)
                course.go_on(scene)
            except AssertionError as e:
                raise AssertionError(f"step {at}, client {victim}: {e}") from e


@pytest.mark.parametrize("drain_at", [0, 1, 2])
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("protocol, form, table", COURSES)
def test_while_draining(protocol, form, table, event, drain_at):
    """Drained before the first step, while the batch is under way, or when it is nearly over; then peers vanish."""
    course = Course(protocol, form, table)
    length = course.length()
    for at in range(0, length + 1, 2):
        scene = course.begin()
        for step in range(at):
            if step == drain_at * length // 3:
                scene.wire.engine.drain()
            move(scene.wire)
        victim = at // 2 % 3
        link = scene.links[victim]
        unclear = may_be_unknown(course, link)
        EVENTS[event](link)
        scene.wire.engine.drain()
        scene.wire.finish()
        check(course, scene, victim, event, unclear)
        assert all(link.session.idle or link.ended for link in scene.links)
        course.go_on(scene)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_during_login(protocol, event):
    """At every step of a login, also one byte at a time; a neighbour's batch goes on."""
    for at in range(60):
        scene = Scene(protocol, clients=2).ready()
        link = scene.wire.connect()
        link.post(talk.startup("u") if protocol == "postgres" else b"")
        for step in range(at):
            if protocol == "mariadb" and link.answers and step % 3 == 0:
                link.post(talk.handshake("u")[step:step + 1])
            for part in Link.STEPS:
                part(link, 3)
        reached = link.model is not None
        EVENTS[event](link)
        scene.wire.finish()
        assert link.ended or (not reached and event.startswith("server"))
        for other in scene.links:
            scene.say(other, scene.write())
        scene.finish()


# --- what the design demands in words --------------------------------------------------------------------------------

def sent_batch(protocol: str, form: str, table: str, bad: bool = False) -> tuple[Course, Scene, Link, list[Link]]:
    """A batch that has been handed to its leader's socket: the course, the leader, and its mates."""
    course = Course(protocol, form, table, bad)
    scene = course.begin()
    while not any(leads(link) for link in scene.links):
        assert move(scene.wire)
    leader = scene.leader()
    return course, scene, leader, [link for link in scene.links[:3] if link is not leader]


@pytest.mark.parametrize("protocol, form, table", COURSES)
def test_before_commit_was_handed_over_nothing_is_kept(protocol, form, table):
    """The COMMIT lies in the core and has not been taken: mates are tried again elsewhere, the leader has no more."""
    course, scene, leader, mates = sent_batch(protocol, form, table)
    before = len(scene.wire.store.heard)
    while not any("INSERT" in said for _, said in scene.wire.store.heard[before:]):
        assert move(scene.wire)
    leader.take_down(1 << 30)
    leader.deliver_down(1 << 30)            # the batch has been run …
    assert b"COMMIT" not in leader.sent     # … and its end is not with the socket
    leader.kill_server()
    scene.wire.finish()
    stored = dict(zip(scene.links, course.stored(scene), strict=False))
    assert [outcome(protocol, bytes(link.answers))[0] for link in mates] == [ACK, ACK]
    assert [stored[link] for link in mates] == [True, True] and not any(link.ended for link in mates)
    assert leader.ended and outcome(protocol, bytes(leader.answers))[0] in (UNKNOWN, NOTHING)
    course.go_on(scene)


@pytest.mark.parametrize("run", [True, False])
@pytest.mark.parametrize("protocol, form, table", COURSES)
def test_after_commit_was_handed_over_the_outcome_is_unknown(protocol, form, table, run):
    course, scene, leader, mates = sent_batch(protocol, form, table)
    while b"COMMIT" not in leader.sent:
        assert move(scene.wire)
    before = len(scene.wire.store.heard)
    leader.kill_server(run=run)
    scene.wire.finish()
    assert [outcome(protocol, bytes(link.answers))[0] for link in [leader, *mates]] == [UNKNOWN] * 3
    assert all(link.ended for link in [leader, *mates])
    assert not any("INSERT" in text for _, text in scene.wire.store.heard[before:])
    assert course.stored(scene) == [run] * 3
    course.go_on(scene)


@pytest.mark.parametrize("event", ["server ends", "server is terminated"])
@pytest.mark.parametrize("protocol, form, table", COURSES)
def test_a_member_whose_own_server_connection_ends_gets_its_answer_first(protocol, form, table, event):
    course, scene, _, mates = sent_batch(protocol, form, table)
    EVENTS[event](mates[0])
    scene.wire.run(mates)
    assert not mates[0].answers and not mates[0].ended      # the batch's outcome is waited for
    scene.wire.finish()
    assert course.outcomes(scene) == [(ACK, "")] * 3 and all(course.stored(scene))
    assert mates[0].ended and not mates[1].ended
    if event == "server is terminated" and protocol == "postgres":
        assert talk.kinds(bytes(mates[0].answers))[-1] == "E" and talk.sqlstates(bytes(mates[0].answers)) == ["57P01"]
    course.go_on(scene)


@pytest.mark.parametrize("form", ["text", "returning"])
def test_a_begin_that_may_have_failed_makes_the_outcome_unknown(form):
    """MariaDB: BEGIN and the merged INSERT go in one send; without its BEGIN the INSERT stands, and is not repeated."""
    course, scene, leader, mates = sent_batch("mariadb", form, PLAIN)
    scene.wire.store.faults.append(["BEGIN", 1040, 1])
    leader.kill_server(run=True)
    scene.wire.finish()
    assert course.stored(scene) == [True] * 3
    assert [outcome("mariadb", bytes(link.answers))[0] for link in [leader, *mates]] == [UNKNOWN] * 3
    assert all(link.ended for link in [leader, *mates])
    course.go_on(scene)


@pytest.mark.parametrize("form", ["text", "returning"])
def test_a_begin_that_failed(form):
    course, scene, _, _ = sent_batch("mariadb", form, PLAIN)
    scene.wire.store.faults.append(["BEGIN", 1040, 1])
    scene.wire.finish()
    for number, (kind, code) in enumerate(course.outcomes(scene)):
        assert (kind, course.stored(scene)[number]) in ((ACK, True), (UNKNOWN, True)), code
    course.go_on(scene)


@pytest.mark.parametrize("code", [1213, 1047, 1105])
@pytest.mark.parametrize("form, table", [
    ("text", PLAIN), ("returning", PLAIN), ("text", TRIGGER), ("prepared", TRIGGER)])
def test_a_rollback_that_is_answered_with_an_error(form, table, code):
    """Galera: the transaction is gone, as the server then says. 1105: it is not, and must not be committed either."""
    course, scene, leader, _ = sent_batch("mariadb", form, table, bad=True)
    scene.wire.store.faults.append(["ROLLBACK", code, 1])
    scene.wire.finish()
    told = course.outcomes(scene)
    stored = course.stored(scene)
    if code != 1105:
        assert told == [(ACK, ""), (REFUSED, 4025), (ACK, "")] and stored == [True, False, True]
        assert not leader.ended
    assert [kind == ACK for kind, _ in told] == stored
    course.go_on(scene)
