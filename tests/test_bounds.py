"""Every bound of a batch reached by its last member, in every form, by one session and by several.

The session that fills it was or was not the last leader: the two take different ways out of the core.
"""

import itertools

import pytest

from tests.model import talk
from tests.model.scene import ALL_WAYS, FORMS, HINT, PROTOCOLS, WIDE, Scene, insert, pg_unnamed
from tests.model.talk import SYNC

SIZES = (1, 2, 3, 7)
UPDATE = HINT + "UPDATE c SET a = a + {} WHERE k = {}"


def in_order(scene: Scene, filler: str) -> list:
    """The links with the session that led last behind all others, or in front of them."""
    for link in scene.links:
        scene.say(link, scene.write())
    scene.wire.finish()
    led = [link for link in scene.links if b"BEGIN" in link.sent] or scene.links[:1]
    others = [link for link in scene.links if link is not led[-1]]
    return [*others, led[-1]] if filler == "leader" else [led[-1], *others]


def within(scene: Scene, size: int) -> None:
    scene.wire.finish()
    assert max(link.session.last_batch_size for link in scene.links) <= size
    scene.finish()


@pytest.mark.parametrize("filler", ["leader", "other"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("protocol, form, table", ALL_WAYS)
def test_rows(protocol, form, table, size, filler):
    """Each of four sessions sends so many ahead that they end before, at and behind the bound."""
    write = FORMS[protocol][form]
    for each in {1, 2, size - 1, size, size + 1, 2 * size + 1} - {0}:
        scene = Scene(protocol, clients=4, max_batch_size=size).ready()
        for link in in_order(scene, filler):
            scene.say(link, b"".join(write(scene.key(), 1, table) for _ in range(each)))
        within(scene, size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("protocol, form, table", ALL_WAYS)
def test_rows_of_one_session(protocol, form, table, size):
    for each in range(1, 2 * size + 3):
        scene = Scene(protocol, clients=1, max_batch_size=size).ready()
        scene.say(scene.links[0], b"".join(FORMS[protocol][form](scene.key(), 1, table) for _ in range(each)))
        within(scene, size)


def rows(scene: Scene, count: int, returning: str) -> bytes:
    places = ", ".join(f"({scene.key()}, 1)" for _ in range(count))
    return scene.query(insert(places=places, more=returning))


@pytest.mark.parametrize("returning", ["", " RETURNING k"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_statements_of_several_rows(protocol, returning):
    """Sent ahead by one session, with another one's in the group or not."""
    for counts in itertools.product((1, 2, 3, 4), repeat=3):
        scene = Scene(protocol, clients=2, warm=False, max_batch_size=3).ready()
        a, b = scene.links
        scene.say(b, rows(scene, 1, returning))
        scene.wire.finish()
        if sum(counts) % 2:
            scene.say(b, rows(scene, 1, returning))
        scene.say(a, b"".join(rows(scene, count, returning) for count in counts))
        scene.finish()


def updates(protocol: str, form: str, scene: Scene, count: int) -> bytes:
    if form == "text":
        return scene.query(UPDATE.format(1, 0)) * count
    if protocol == "mariadb":
        return talk.com_execute(3, (1, 0)) * count
    if form == "one sync":
        return talk.run("", (1, 0), "u") * count + SYNC
    return (talk.unit("", (1, 0), "u") if form == "named" else talk.unit(UPDATE.format("$1", "$2"), (1, 0))) * count


@pytest.mark.parametrize("filler", ["leader", "other"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("protocol, form", [
    ("postgres", "text"), ("postgres", "unnamed"), ("postgres", "named"), ("postgres", "one sync"), ("mariadb", "text"),
    ("mariadb", "prepared")])
def test_updates(protocol, form, size, filler):
    """Statements that go as they are, all of the same row: a batch may also meet another's lock."""
    for each in {1, 2, size, size + 1}:
        scene = Scene(protocol, clients=3, max_batch_size=size)
        for link in scene.links:
            scene.say(link, talk.parse(UPDATE.format("$1", "$2"), "u") + SYNC if protocol == "postgres"
                      else talk.com_prepare(UPDATE.format("?", "?")))
        scene.ready()
        for _ in range(2):
            for link in in_order(scene, filler):
                scene.say(link, updates(protocol, form, scene, each))
            scene.wire.finish()
        within(scene, size)


@pytest.mark.parametrize("filler", ["leader", "other"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", ["unnamed", "named", "mixed"])
def test_executions_behind_one_sync(form, size, filler):
    for each in {1, size - 1, size, size + 1} - {0}:
        scene = Scene("postgres", clients=3, max_batch_size=size).ready()
        for number, link in enumerate(in_order(scene, filler)):
            name = "st" if form == "named" or (form == "mixed" and number % 2) else None
            sql = "" if name else insert(places="($1, $2)")
            scene.say(link, b"".join(talk.run(sql, (scene.key(), 1), name) for _ in range(each)) + SYNC)
        within(scene, size)


def padded(protocol: str, form: str, scene: Scene, size: int) -> bytes:
    text = "x" * size
    k = scene.key()
    sql = HINT + "INSERT INTO t (k, b) VALUES "
    if form == "text":
        return scene.query(f"{sql}({k}, '{text}')")
    if form == "unnamed":
        return talk.unit(sql + "($1, $2)", (k, text))
    return talk.unit("", (k, text), "b") if protocol == "postgres" else talk.com_execute(3, (k, text))


@pytest.mark.parametrize("filler", ["leader", "other"])
@pytest.mark.parametrize("each", [1, 2, 3])
@pytest.mark.parametrize("protocol, form", [
    ("postgres", "text"), ("postgres", "unnamed"), ("postgres", "named"), ("mariadb", "text"), ("mariadb", "prepared")])
def test_bytes(protocol, form, each, filler):
    """Values of such sizes that two, three or six of them end at every distance from the bound."""
    for size in range(20, 260, 7):
        scene = Scene(protocol, clients=3, warm=False)
        for link in scene.links:
            scene.say(link, talk.parse(HINT + "INSERT INTO t (k, b) VALUES ($1, $2)", "b") + SYNC
                      if protocol == "postgres" else talk.com_prepare(HINT + "INSERT INTO t (k, b) VALUES (?, ?)"))
        scene.ready()
        links = in_order(scene, filler)
        scene.wire.engine.max_batch_bytes = 400
        for link in links:
            scene.say(link, b"".join(padded(protocol, form, scene, size) for _ in range(each)))
        scene.finish()


@pytest.mark.parametrize("front", [
    f"/* max_wait_ms:5 {'y' * 6000} */ INSERT INTO t (k, b) VALUES ", f"{HINT}INSERT{' ' * 6000}INTO t (k, b) VALUES ",
    f"/* {'y' * 6000} */ {HINT}INSERT INTO t (k, b) VALUES "], ids=["hint", "space", "comment"])
@pytest.mark.parametrize("form", ["text", "prepared"])
def test_what_the_server_takes_in_one_packet(form, front):
    """Text in front of the values counts too: a batch longer than max_allowed_packet would end its leader."""
    scene = Scene("mariadb", clients=6, warm=False)
    scene.wire.store.max_packet = 12_000
    for link in scene.links:
        scene.say(link, talk.com_prepare(front + "(?, ?)"))
    scene.ready()
    for _ in range(3):
        for link in scene.links:
            k = scene.key()
            scene.say(link, talk.com_query(f"{front}({k}, '{'x' * 1500}')") if form == "text"
                      else talk.com_execute(3, (k, "x" * 1500)))
        scene.wire.finish()
    scene.finish()


# --- the numbers that users reach ----------------------------------------------------------------------------------

def wide(name: str | None, count: int) -> bytes:
    """Executions of an INSERT of ``WIDE`` parameters."""
    sql = f"{HINT}INSERT INTO wide ({', '.join(f'c{i}' for i in range(WIDE))}) VALUES ({wide_places()})"
    return (b"" if name is None else talk.parse(sql, name)) + (SYNC if name else b"") + b"".join(
        talk.run("" if name else sql, range(WIDE), name, described=False) for _ in range(count)) + SYNC


def wide_places() -> str:
    return ", ".join(f"${i + 1}" for i in range(WIDE))


@pytest.mark.parametrize("counts", [(655,), (656,), (328, 328), (327, 328), (100, 655), (1, 655)])
@pytest.mark.parametrize("name", [None, "w"])
def test_parameters(name, counts):
    """65,535 are the most that a statement may have; one more execution does not fit."""
    scene = Scene("postgres", clients=len(counts), warm=False).ready()
    for link in scene.links:
        scene.say(link, wide(name, 1))
    scene.wire.finish()
    for link, count in zip(scene.links, counts, strict=True):
        scene.say(link, wide(None if name is None else f"{name}{count}", count))
    scene.finish()


@pytest.mark.parametrize("clients", [1, 2])
@pytest.mark.parametrize("count", [500, 999, 1000, 1001])
@pytest.mark.parametrize("statement", ["insert", "update"])
def test_many_executions_behind_one_sync(statement, count, clients):
    """As pgx sends a batch with a cached statement, three rounds of it, with the default limits."""
    scene = Scene("postgres", clients=clients)
    for link in scene.links:
        scene.say(link, talk.parse(UPDATE.format("$1", "$2"), "u") + SYNC)
    scene.ready()
    for _ in range(3):
        for link in scene.links:
            scene.say(link, (talk.run("", (1, 0), "u") * count if statement == "update" else b"".join(
                talk.run("", (scene.key(), 1), "st") for _ in range(count))) + SYNC)
        scene.wire.finish()
    scene.finish()


@pytest.mark.parametrize("clients", [1, 2])
@pytest.mark.parametrize("protocol, form, count", [
    ("postgres", "text", 1001), ("postgres", "named", 1001), ("postgres", "unnamed", 1200), ("mariadb", "text", 201),
    ("mariadb", "text", 513), ("mariadb", "prepared", 199), ("mariadb", "prepared", 200), ("mariadb", "prepared", 201)])
def test_many_sent_ahead(protocol, form, count, clients):
    """More than a session may have in one batch, or under way."""
    scene = Scene(protocol, clients=clients).ready()
    for _ in range(2):
        for link in scene.links:
            scene.say(link, b"".join(FORMS[protocol][form](scene.key()) for _ in range(count)))
        scene.wire.finish()
    scene.finish()


@pytest.mark.parametrize("size", SIZES)
def test_a_bad_one_among_many(size):
    """The last that fits, the first that does not, or one in the middle."""
    for bad in range(2 * size + 1):
        scene = Scene("postgres", clients=2, max_batch_size=size).ready()
        for link in scene.links:
            scene.say(link, b"".join(pg_unnamed(scene.key(), -(i == bad)) for i in range(2 * size + 1)))
            scene.say(link, b"".join(talk.run("", (scene.key(), -(i == bad)), "sp") for i in range(size)) + SYNC)
        within(scene, size)
