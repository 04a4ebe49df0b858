"""Clients that send ahead: behind COPY, behind a reset, behind a message that fails, and everything behind everything.

The core stands between clients and model servers (``tests.model``); the oracle is the same bytes given directly to a
model server. Each family has the whole kind of a fault that was found once.
"""

import itertools

import pytest

from tests.model import talk
from tests.model.scene import (
    ALL_FORMS,
    ALL_WAYS,
    FORMS,
    HINT,
    PLAIN,
    PROTOCOLS,
    TRIGGER,
    Scene,
    insert,
    pg_named,
    pg_text,
    pg_unnamed,
)
from tests.model.talk import COPY_DONE, FLUSH, FUNCTION_CALL, SYNC, TERMINATE, copy_data

COPY = "COPY t (k, a) FROM STDIN"
SIZES = (0, 1, 7)


# --- behind COPY ----------------------------------------------------------------------------------------------------

def copy_of(how: str, outcome: str, key: int) -> bytes:
    """A whole COPY conversation sent in one go.

    ``how``: a Query, a Query that copies twice, extended messages with the one Sync behind the data, or with another in
    front of it as libpq sends, which the server ignores while it copies but answers if the COPY has failed.
    """
    sql = COPY.replace("t (", "no_such_table (") if outcome == "no table" else COPY
    end = talk.copy_fail() if outcome == "failed" else COPY_DONE
    rows = f"{key}\t1\n" + ("x\t1\n" if outcome == "bad data" else "") + f"{key + 1}\t1\n"
    data = copy_data(rows[:5]) + copy_data(rows[5:]) + end
    if how == "query":
        return talk.query(sql) + data
    if how == "twice":
        return talk.query(f"{COPY}; {sql}") + copy_data(f"{key + 2}\t1\n") + COPY_DONE + data
    return talk.run(sql, described=False) + (SYNC if how == "two syncs" else FLUSH) + data + SYNC


BEHIND_COPY = {
    "write": lambda s: pg_text(s.key()),
    "two writes": lambda s: pg_text(s.key()) + pg_text(s.key()),
    "unit": lambda s: pg_unnamed(s.key()),
    "named": lambda s: pg_named(s.key()),
    "segment": lambda s: talk.run(insert(places="($1, $2)"), (s.key(), 1)) + talk.run("SELECT 1") + SYNC,
    "select": lambda s: talk.query("SELECT 1"),
    "select and write": lambda s: talk.query("SELECT 1") + pg_text(s.key()),
    "selects and writes": lambda s: talk.query("SELECT 1") * 2 + pg_text(s.key()) + talk.query("SELECT 2") + pg_unnamed(
        s.key()),
    "error": lambda s: talk.query("SELECT 1/0") + pg_text(s.key()),
    "block": lambda s: talk.query("BEGIN") + pg_text(s.key()) + talk.query("COMMIT") + pg_text(s.key()),
    "reset": lambda s: talk.query("DISCARD ALL") + talk.query("SET search_path = x") + pg_text(s.key()),
    "copy": lambda s: copy_of("query", "ok", s.key() * 1000) + pg_text(s.key()),
    "prepare": lambda s: talk.parse("SELECT 1", "z") + SYNC + talk.unit("", (), "z") + pg_text(s.key()),
    "bad segment": lambda s: talk.parse("SELEC 1") + talk.query("SELECT 1") + SYNC + pg_text(s.key()),
    "call": lambda s: FUNCTION_CALL + pg_text(s.key()),
    "sync": lambda s: SYNC + SYNC + pg_unnamed(s.key()),
    "stray copy data": lambda s: COPY_DONE + copy_data("1\t1\n") + pg_text(s.key()),
    "end": lambda s: pg_text(s.key()) + TERMINATE,
}


@pytest.mark.parametrize("size, warm", [(0, True), (0, False), (1, True), (1, False), (7, True)])
@pytest.mark.parametrize("behind", BEHIND_COPY)
@pytest.mark.parametrize("outcome", ["ok", "no table", "bad data", "failed"])
@pytest.mark.parametrize("how", ["query", "twice", "extended", "two syncs"])
def test_behind_copy(how, outcome, behind, size, warm):
    """Whether what was sent behind a COPY is data or skipped is decided by the server's answer alone."""
    scene = Scene("postgres", warm=warm).ready(size)
    a, b = scene.links
    scene.say(a, copy_of(how, outcome, 100_000) + BEHIND_COPY[behind](scene))
    scene.say(b, pg_text(scene.key()))
    scene.finish()


@pytest.mark.parametrize("outcome", ["ok", "no table", "bad data", "failed"])
@pytest.mark.parametrize("how", ["query", "twice", "extended", "two syncs"])
def test_copy_cut_at_every_byte(how, outcome):
    """The rest comes only after everything that the first part asks for has been answered."""
    said = copy_of(how, outcome, 100_000) + pg_text(5_000) + pg_unnamed(5_001)
    for cut in range(1, len(said)):
        scene = Scene("postgres", warm=cut % 2 == 0).ready()
        a, b = scene.links
        scene.say(a, said[:cut])
        scene.say(b, pg_text(scene.key()))
        scene.wire.finish()
        scene.say(a, said[cut:])
        scene.finish()


@pytest.mark.parametrize("ahead", ["write", "unit", "named", "two writes"])
@pytest.mark.parametrize("how", ["query", "twice", "extended", "two syncs"])
def test_writes_in_front_of_copy(how, ahead):
    scene = Scene("postgres").ready()
    scene.say(scene.links[0], BEHIND_COPY[ahead](scene) + copy_of(how, "ok", 100_000) + pg_text(scene.key()))
    scene.say(scene.links[1], pg_text(scene.key()))
    scene.finish()


# --- behind a reset -------------------------------------------------------------------------------------------------

PG_RESETS = {"DISCARD ALL": talk.query("DISCARD ALL"), "RESET ALL": talk.query("RESET ALL"),
             "RESET": talk.query("RESET search_path"), "extended": talk.unit("DISCARD ALL", described=False),
             "DEALLOCATE": talk.query("DEALLOCATE ALL")}
MY_RESETS = {"COM_RESET_CONNECTION": talk.COM_RESET, "COM_CHANGE_USER": talk.com_change_user("u"),
             "another user": talk.com_change_user("v"), "another database": talk.com_change_user("u", "x")}
BEHIND_RESET = {
    "postgres": {
        "SET": lambda s: talk.query("SET search_path = x"),
        "two SETs": lambda s: talk.query("SET TimeZone = 'Asia/Tokyo'") + talk.query("SET search_path = x"),
        "SET and write": lambda s: talk.query("SET search_path = x") + pg_text(s.key()),
        "write": lambda s: pg_text(s.key()), "unit": lambda s: pg_unnamed(s.key()),
        "block": lambda s: talk.query("BEGIN") + pg_text(s.key()) + talk.query("ROLLBACK"),
        "open block": lambda s: talk.query("BEGIN") + pg_text(s.key()),
        "SET taken back": lambda s: talk.query("BEGIN") + talk.query("SET search_path = x") + talk.query("ROLLBACK"),
        "failed SET": lambda s: talk.query("SET no_such_thing = 1") + talk.query("SET search_path = x"),
        "prepare": lambda s: talk.parse(insert(places="($1, $2)"), "st") + SYNC + pg_named(s.key()),
        "error": lambda s: talk.query("SELECT 1/0"),
        "missing statement": lambda s: pg_named(s.key()) + talk.query("SET search_path = x"),
        "reset again": lambda s: talk.query("SET search_path = x") + talk.query("DISCARD ALL"),
    },
    "mariadb": {
        "SET": lambda s: talk.com_query("SET time_zone = '+02:00'"),
        "two SETs": lambda s: (talk.com_query("SET time_zone = '+02:00'")
                               + talk.com_query("SET lc_time_names = 'de_DE'")),
        "SET and write": lambda s: talk.com_query("SET time_zone = '+02:00'") + s.write(),
        "write": lambda s: s.write(), "two writes": lambda s: s.write() + s.write(),
        "use": lambda s: talk.com_init_db("x") + s.write(), "USE": lambda s: talk.com_query("USE x"),
        "bad use": lambda s: talk.com_init_db("no_such") + s.write(),
        "block": lambda s: talk.com_query("BEGIN") + s.write() + talk.com_query("ROLLBACK"),
        "open block": lambda s: talk.com_query("BEGIN") + s.write(),
        "autocommit": lambda s: talk.com_query("SET autocommit = 0") + s.write(),
        "failed SET": lambda s: talk.com_query("SET no_such_thing = 1") + talk.com_query("SET time_zone = '+02:00'"),
        "prepare": lambda s: talk.com_prepare("SELECT 1") + s.write(),
        "error": lambda s: talk.com_query("SELECT a FROM no_such_table") + s.write(),
        "missing statement": lambda s: talk.com_execute(1, (s.key(), 1)),
        "reset again": lambda s: talk.com_query("SET time_zone = '+02:00'") + talk.COM_RESET,
    }}
RESETS = {"postgres": PG_RESETS, "mariadb": MY_RESETS}


@pytest.mark.parametrize("ahead, size", [("nothing", 0), ("nothing", 9), ("SET", 9), ("writes", 0), ("open write", 0)])
@pytest.mark.parametrize("protocol, reset, behind", [
    (protocol, reset, behind) for protocol in PROTOCOLS for reset in RESETS[protocol]
    for behind in BEHIND_RESET[protocol]])
def test_behind_a_reset(protocol, reset, behind, ahead, size):
    """State changes in the order of answers; afterwards each row shows the settings under which it was written.

    One neighbour has been reset without more, another has not: with neither may an unlike session share a batch.
    """
    scene = Scene(protocol, clients=3).ready(size)
    a, b, c = scene.links
    text = FORMS[protocol]["text"]
    setting = scene.query("SET search_path = x" if protocol == "postgres" else "SET time_zone = '+05:00'")
    front = {"nothing": b"", "SET": setting,
             "writes": text(scene.key()) + text(scene.key()), "open write": b""}[ahead]
    if ahead == "open write":
        scene.say(a, text(scene.key()))         # gathered, or under way, when the reset comes
    scene.say(a, front + RESETS[protocol][reset] + BEHIND_RESET[protocol][behind](scene))
    scene.say(b, RESETS[protocol][reset])
    scene.say(c, text(scene.key()))
    scene.wire.finish()
    for _ in range(3):
        for link in scene.links:
            scene.say(link, text(scene.key()))
        scene.wire.finish()
    if "open" in behind or behind == "autocommit":
        scene.say(a, scene.query("COMMIT"))
    scene.finish()


# --- behind a message that fails --------------------------------------------------------------------------------------

FAILING = {
    "Parse": lambda s: talk.run("SELEC 1"),
    "Parse of no table": lambda s: talk.run("INSERT INTO no_such_table (k) VALUES ($1)", (1,)),
    "Parse of a known name": lambda s: talk.parse("SELECT 1", "st"),
    "Bind": lambda s: talk.run(insert(places="($1, $2)"), ("x", 1)),
    "Bind of a wrong number": lambda s: talk.parse(insert(places="($1, $2)")) + talk.bind((1,)),
    "Bind of nothing": lambda s: talk.bind((), "no_such_statement") + talk.EXECUTE,
    "Execute": lambda s: talk.run(insert(places="($1, $2)"), (s.key(), -1)),
    "Execute of nothing": lambda s: talk.execute("no_such_portal"),
    "Execute behind a good one": lambda s: talk.run(insert(places="($1, $2)"), (s.key(), 1)) * 2,
    "Describe": lambda s: talk.describe("no_such_statement", "S"),
    "Close": lambda s: talk.close("no_such_statement") + talk.run("SELECT 1/0"),
    "named": lambda s: talk.run("", (s.key(), -1), "st"),
}
BETWEEN = {
    "nothing": lambda s: b"",
    "Query": lambda s: talk.query("SELECT 1"),
    "hinted Query": lambda s: pg_text(s.key()),
    "two Queries": lambda s: pg_text(s.key()) + talk.query("SET search_path = x"),
    "DISCARD": lambda s: talk.query("DISCARD ALL"),
    "FunctionCall": lambda s: FUNCTION_CALL,
    "Parse": lambda s: talk.parse("SELECT 1", "later"),
    "messages": lambda s: talk.run(insert(places="($1, $2)"), (s.key(), 1)),
    "named": lambda s: talk.run("", (s.key(), 1), "st"),
    "Flush": lambda s: FLUSH,
    "Close": lambda s: talk.close("st"),
    "COPY": lambda s: talk.query(COPY) + copy_data(f"{s.key()}\t1\n") + COPY_DONE,
    "Terminate": lambda s: TERMINATE,
    "Query and Terminate": lambda s: pg_text(s.key()) + TERMINATE,
}


@pytest.mark.parametrize("at_once, size", [(True, 0), (False, 0), (True, 5)])
@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("failing", FAILING)
def test_behind_a_failing_message(failing, between, at_once, size):
    """The server skips everything up to Sync, a Query too; Flush alone shows the error before it."""
    scene = Scene("postgres").ready(size)
    a, b = scene.links
    scene.say(a, FAILING[failing](scene) + (b"" if at_once else FLUSH))
    if not at_once:
        scene.wire.run()
    scene.say(a, BETWEEN[between](scene))
    if not at_once:
        scene.wire.run()
    if "Terminate" not in between:
        scene.say(a, SYNC + pg_text(scene.key()) + pg_named(scene.key()) + talk.unit("", (), "later"))
    scene.say(b, pg_text(scene.key()))
    scene.finish()


# --- everything behind everything -------------------------------------------------------------------------------------

PG_ITEMS = {
    "text": lambda s: pg_text(s.key()),
    "bad text": lambda s: pg_text(s.key(), -1),
    "trigger": lambda s: pg_text(s.key(), 1, TRIGGER),
    "unnamed": lambda s: pg_unnamed(s.key()),
    "bad unnamed": lambda s: pg_unnamed(s.key(), -1, TRIGGER),
    "named": lambda s: pg_named(s.key()),
    "many": lambda s: b"".join(talk.run("", (s.key(), 1), "st") for _ in range(4)) + SYNC,
    "update": lambda s: talk.query(HINT + "UPDATE c SET a = a + 1 WHERE k = 0"),
    "select": lambda s: talk.query("SELECT 1"),
    "unnamed select": lambda s: talk.unit("SELECT 1"),
    "error": lambda s: talk.unit("SELECT 1/0"),
    "parse": lambda s: talk.parse("SELECT 2") + talk.describe("", "S") + SYNC,
    "unnamed again": lambda s: talk.bind() + talk.EXECUTE + SYNC,
    "block": lambda s: talk.query("BEGIN") + pg_text(s.key()) + pg_text(s.key(), -1) + talk.query("ROLLBACK"),
    "SET": lambda s: talk.query("SET search_path = x"),
    "RESET": lambda s: talk.query("RESET ALL"),
    "empty": lambda s: talk.query(""),
    "sync": lambda s: SYNC,
    "copy": lambda s: copy_of("query", "ok", 10 * s.key() + 100_000),
    "session": lambda s: talk.query("SET tqdb.max_wait_ms = 5") + talk.query(insert(places=f"({s.key()}, 1)", hint="")),
}
MY_ITEMS = {
    "text": lambda s: s.write(),
    "bad text": lambda s: FORMS["mariadb"]["text"](s.key(), -1),
    "trigger": lambda s: FORMS["mariadb"]["text"](s.key(), 1, TRIGGER),
    "returning": lambda s: FORMS["mariadb"]["returning"](s.key()),
    "prepared": lambda s: FORMS["mariadb"]["prepared"](s.key()),
    "bad prepared": lambda s: FORMS["mariadb"]["prepared"](s.key(), -1),
    "types as told": lambda s: talk.com_execute(1, (s.key(), 1)) + talk.com_execute(1, (s.key(), 1), types=False),
    "update": lambda s: talk.com_query(HINT + "UPDATE c SET a = a + 1 WHERE k = 0"),
    "select": lambda s: talk.com_query("SELECT 1"),
    "error": lambda s: talk.com_query("SELECT a FROM no_such_table"),
    "syntax": lambda s: talk.com_query("SELEC 1"),
    "prepare": lambda s: talk.com_prepare("SELECT 1"),
    "bad prepare": lambda s: talk.com_prepare("SELEC 1"),
    "close": lambda s: talk.com_close(99) + talk.COM_PING,
    "block": lambda s: talk.com_query("BEGIN") + s.write() + talk.com_query("ROLLBACK"),
    "autocommit": lambda s: talk.com_query("SET autocommit = 0") + s.write() + talk.com_query("SET autocommit = 1"),
    "SET": lambda s: talk.com_query("SET time_zone = '+02:00'"),
    "warnings": lambda s: s.write() + talk.com_query("SHOW WARNINGS"),
    "rows": lambda s: s.write() + talk.com_query("SELECT ROW_COUNT()"),
    "reset": lambda s: talk.COM_RESET,
    "use": lambda s: talk.com_init_db("x"),
    "user": lambda s: talk.com_change_user("v"),
    "session": lambda s: talk.com_query("SET @tqdb_max_wait_ms = 5") + talk.com_query(insert(places=f"({s.key()}, 1)",
                                                                                             hint="")),
}
ITEMS = {"postgres": PG_ITEMS, "mariadb": MY_ITEMS}


@pytest.mark.parametrize("protocol, first", [(protocol, first) for protocol in PROTOCOLS for first in ITEMS[protocol]])
def test_three_in_a_row(protocol, first):
    """Things that a client may send ahead, in one send; another client writes meanwhile.

    Every two of them, with every fifth of the rest behind: the random conversations have them all.
    """
    items = ITEMS[protocol]
    turn = list(items).index(first)
    for number, (second, third) in enumerate(itertools.product(items, items)):
        if (number + turn) % 5:
            continue
        scene = Scene(protocol, warm=False, max_batch_size=(1, 2, 3, 1000)[number % 4]).ready(SIZES[number % 3] * 5)
        a, b = scene.links
        scene.say(b, scene.write())
        scene.wire.finish()
        scene.say(a, b"".join(items[name](scene) for name in (first, second, third)))
        scene.say(b, scene.write() + scene.write())
        try:
            scene.finish()
        except AssertionError as e:
            raise AssertionError(f"{first}, {second}, {third}: {e}") from e


# --- ways of a write --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 1, 5])
@pytest.mark.parametrize("protocol, form, table", ALL_WAYS)
def test_each_form_is_answered_as_directly(protocol, form, table, size):
    """Five sessions, twice, good rows and a bad one: and they did share batches."""
    scene = Scene(protocol, clients=5).ready(size)
    write = FORMS[protocol][form]
    for _ in range(2):
        for link in scene.links:
            scene.say(link, write(scene.key(), 1, table))
        scene.wire.finish()
        assert {link.session.last_batch_size for link in scene.links} == {5}
    for i, link in enumerate(scene.links):
        scene.say(link, write(scene.key(), -(i == 2), table))
    scene.finish()


@pytest.mark.parametrize("protocol, form", ALL_FORMS)
def test_writes_that_wait_for_the_catalogue(protocol, form):
    """The first writer's question is under way; others, and more of its own, come meanwhile."""
    scene = Scene(protocol, clients=3, warm=False).ready()
    write = FORMS[protocol][form]
    a, b, c = scene.links
    a.held_up = True
    scene.say(a, write(scene.key()))
    scene.wire.run()
    scene.say(b, write(scene.key()) + scene.query("SELECT 1"))
    scene.say(a, write(scene.key()) + write(scene.key(), -1) + scene.query("SELECT 1"))
    scene.say(c, write(scene.key(), 1, TRIGGER))
    scene.wire.tick(50)
    scene.wire.run()
    a.held_up = False
    scene.finish()


def test_a_plain_insert_is_merged():
    """That the families above do not pass because nothing is gathered."""
    for protocol in PROTOCOLS:
        scene = Scene(protocol, clients=3).ready()
        for link in scene.links:
            scene.say(link, FORMS[protocol]["text"](scene.key(), 1, PLAIN))
        scene.wire.finish()
        sent = b"".join(bytes(link.sent) for link in scene.links)
        assert sent.count(b"INSERT") == 1 and sent.count(b"COMMIT") == 1
        scene.finish()
