"""Turns that a conversation of PostgreSQL's took, or may take, and what must hold: sent, answered, stored.

Where the model can speak for the server, the oracle is the same bytes given to a model server directly.
"""

import struct

import pytest

from tests.model import talk
from tests.model.scene import FORMS, HINT, Scene, insert, pg_named, pg_text, pg_unnamed
from tests.model.talk import COPY_DONE, EXECUTE, FLUSH, SYNC, TERMINATE, copy_data, parse, query
from tests.sansio import Hooks
from tests.test_sans_io import INSERT, answer_probe, answer_session, logged_in
from tests.wire import COLUMNS, PG_FACTS, READY, pg, pg_error

FACTS = COLUMNS + PG_FACTS + pg(b"C", b"SELECT 1\0") + READY
ONE = pg(b"C", b"INSERT 0 1\0")
WRITE = pg(b"Q", INSERT + b"\0")
WRITE_DONE = ONE + READY
DONE = pg(b"1") + pg(b"2") + WRITE_DONE
IN_BLOCK = pg(b"C", b"BEGIN\0") + pg(b"C", b"SET\0")


def pair():
    """Two sessions of which the first has written: the other's write is gathered, for the first may still come."""
    hooks = Hooks()
    a, server_a = logged_in(hooks)
    a.receive(WRITE)
    answer_probe(a, server_a)
    return hooks, a, server_a, *logged_in(hooks)


def gathered_unnamed(types: bytes = b"\0\0", params=("1",), columns: str = "a", sync: bytes = SYNC) -> bytes:
    """Parse Bind Execute of an INSERT, with ``types`` as they stand behind the text."""
    places = ", ".join(f"${i + 1}" for i in range(len(params)))
    sql = f"{HINT}INSERT INTO t ({columns}) VALUES ({places})"
    return pg(b"P", b"\0" + sql.encode() + b"\0" + types) + talk.bind(params) + EXECUTE + sync


def answer(session, server, data: bytes) -> bytes:
    server.receive(data)
    return session.take_out()


# --- malformed messages -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("types, params", [
    (struct.pack("!H", 1), 1), (struct.pack("!H", 60), 60), (struct.pack("!HI", 2, 23), 2),
    (struct.pack("!HH", 1, 0), 1),
    (struct.pack("!HII", 2, 23, 23), 1), (struct.pack("!HI", 1, 23) + b"\0", 1), (b"\0", 1), (b"", 1), (b"\xff\xff", 1),
], ids=["one missing", "sixty missing", "second missing", "half", "more than parameters", "a byte behind",
        "half a count", "no count", "65535 missing"])
def test_types_that_are_not_there(types, params):
    """A Parse tells of types that it does not hold, or of more than there are parameters: the server has to judge it.

    It goes as it came, on the client's own connection, and nothing is read from what lies behind the message.
    """
    hooks = Hooks()
    a, server_a = logged_in(hooks)
    b, server_b = logged_in(hooks)
    columns = ", ".join(f"c{i}" for i in range(params))
    good = gathered_unnamed(params=["1"] * params, columns=columns)
    a.receive(good)
    answer_session(server_a)
    assert b"pg_catalog" in server_a.take_out()
    server_a.receive(FACTS)
    assert server_a.take_out() == good
    assert answer(a, server_a, DONE) == DONE
    bad = gathered_unnamed(types, ["1"] * params, columns)
    for session, server in ((b, server_b), (a, server_a)):
        session.receive(bad)
        sent = server.take_out()                        # what nobody can read may copy: Sync then waits behind Flush
        assert sent in (bad, bad.removesuffix(SYNC) + FLUSH) and not session.waits
        server.receive(pg_error(b"08P01"))
        assert sent.endswith(SYNC) or server.take_out() == SYNC
        assert answer(session, server, READY) == pg_error(b"08P01") + READY


@pytest.mark.parametrize("behind", [b"", WRITE, SYNC + WRITE], ids=["nothing", "write", "sync and write"])
@pytest.mark.parametrize("end", [pg(b"S", b"junk"), pg(b"H", b"junk"), pg(b"S", b"\0"), pg(b"H", b"x" * 500)],
                         ids=["sync", "flush", "sync of a byte", "long flush"])
def test_sync_and_flush_with_a_body(end, behind):
    """A client ends its write with a Sync or a Flush that has a body: told so, nothing of it is in a batch."""
    _, a, server_a, b, server_b = pair()
    a.receive(WRITE)
    assert server_a.take_out() == WRITE
    b.receive(gathered_unnamed(sync=end) + behind)
    sent = server_b.take_out()
    assert b"BEGIN" not in sent and SYNC not in sent and WRITE not in sent
    assert talk.sqlstates(b.take_out()) == ["08P01"] and b.closing and not b.waits
    assert answer(a, server_a, WRITE_DONE) == WRITE_DONE


@pytest.mark.parametrize("size", [5, 9, 0x3FFFFFFF], ids=["1 byte", "5 bytes", "a gigabyte"])
@pytest.mark.parametrize("kind", [b"S", b"H"])
def test_a_length_that_cannot_be(kind, size):
    """Sync and Flush have no body: a client that says they have one is not waited for, and nothing is kept for it."""
    a, server = logged_in(Hooks())
    a.receive(kind + struct.pack("!I", size))
    a.receive(b"\0" * 4)
    assert talk.sqlstates(a.take_out()) == ["08P01"] and a.closing
    a.receive(WRITE)
    assert WRITE not in server.take_out()


# --- COPY -------------------------------------------------------------------------------------------------------------

COPY = "COPY t (k, a) FROM STDIN"


@pytest.mark.parametrize("size", [0, 5])
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("sql, rows", [
    (COPY, "1"), (f"{COPY}; {COPY}", "12"), (f"{COPY}; {COPY}; {COPY}", "123"), (f"{COPY}; SELECT 1", "1"),
    (f"{COPY}; {COPY.replace(' t ', ' no_such ')}", "12"), (f"{COPY}; SELECT 1; {COPY}", "12")])
def test_syncs_behind_copies_of_one_query(sql, rows, at_once, size):
    """A Query copies once or several times, data sent ahead: each Sync behind it is answered."""
    scene = Scene("postgres").ready(size)
    a, b = scene.links
    scene.say(a, query(sql) + b"".join(copy_data(f"90{row}\t1\n") + COPY_DONE for row in rows))
    if not at_once:
        scene.wire.finish()
    scene.say(a, talk.unit("SELECT 1"))
    if not at_once:
        scene.wire.finish()
    scene.say(a, SYNC + SYNC + pg_unnamed(scene.key()) + SYNC)
    scene.say(b, pg_text(scene.key()))
    scene.finish()


@pytest.mark.parametrize("end", [COPY_DONE, talk.copy_fail()], ids=["done", "failed"])
@pytest.mark.parametrize("sql", ["COPY t TO STDOUT", "COPY t FROM STDIN", "SELECT 1"])
def test_what_is_sent_behind_copy_data_is_answered(sql, end):
    """Extended messages behind the data of a COPY: the last thing the server got makes it answer."""
    a, server = logged_in(Hooks())
    copy = parse("COPY t FROM STDIN") + talk.bind() + EXECUTE + SYNC
    a.receive(copy)
    assert server.take_out()[-5:] in (SYNC, FLUSH)
    server.receive(pg(b"1") + pg(b"2") + pg(b"G", b"\0\0\0"))
    a.take_out()
    more = parse(sql) + talk.bind() + EXECUTE
    a.receive(copy_data("1\n") + end + more + SYNC)
    sent = server.take_out()
    assert sent.startswith(copy_data("1\n") + end) and sent[-5:] in (SYNC, FLUSH)


# --- Terminate --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 5])
@pytest.mark.parametrize("ahead", [False, True], ids=["Terminate", "write and Terminate"])
@pytest.mark.parametrize("form", FORMS["postgres"])
def test_a_write_behind_terminate(form, ahead, size):
    """A client says good-bye and then writes: nobody may do what it said after that."""
    write = FORMS["postgres"][form]
    scene = Scene("postgres", clients=3).ready(size)
    scene.say(scene.links[0], write(scene.key()))
    for link in scene.links[1:]:
        scene.say(link, (write(scene.key()) if ahead else b"") + TERMINATE + write(scene.key()))
    scene.say(scene.links[0], write(scene.key()))
    scene.finish()


# --- Describe ---------------------------------------------------------------------------------------------------------

DESCRIBES = {
    "none": (b"", b""), "once": (b"", talk.describe()), "twice": (b"", talk.describe() * 2),
    "three times": (b"", talk.describe() * 3), "statement": (talk.describe("", "S"), b""),
    "statement twice": (talk.describe("", "S") * 2, b""), "both": (talk.describe("", "S"), talk.describe()),
    "statement twice, portal twice": (talk.describe("", "S") * 2, talk.describe() * 2)}


@pytest.mark.parametrize("more", ["", " RETURNING k, a"])
@pytest.mark.parametrize("how", DESCRIBES)
def test_as_many_descriptions_as_were_asked_for(how, more):
    """Clients describe their write not at all, once or again: each Describe has its answer."""
    scene = Scene("postgres", clients=3).ready()
    statement, portal = DESCRIBES[how]
    for _ in range(3):
        for link in scene.links:
            scene.say(link, parse(insert(places="($1, $2)", more=more)) + statement + talk.bind((scene.key(), 1))
                      + portal + EXECUTE + SYNC)
        scene.wire.finish()
    scene.finish()


# --- settings that come unseen ----------------------------------------------------------------------------------------

def portals(scene: Scene, link) -> None:
    """More portals in one go than anybody keeps in mind; the first of them is a SET."""
    scene.say(link, parse("SELECT 1", "y") + talk.bind((), "set", "first")
              + b"".join(talk.bind((), "y", f"p{i}") for i in range(300)) + talk.execute("first") + SYNC)


def after(said):
    def step(scene: Scene, link) -> None:
        for part in said:
            scene.say(link, part)
            scene.wire.finish()
        scene.say(link, talk.bind((), "set") + EXECUTE + SYNC)
    return step


UNSEEN = {
    "at once": after([]),
    "DEALLOCATE of another": after([parse("SELECT 1", "s9") + SYNC, query("DEALLOCATE s9")]),
    "DEALLOCATE that fails": after([query("DEALLOCATE s9")]),
    "DEALLOCATE prepared": after([talk.unit("DEALLOCATE s9")]),
    "DISCARD ALL that fails": after([query("BEGIN"), query("DISCARD ALL"), query("ROLLBACK")]),
    "failed DISCARD of several": after([query("SELECT 1; DISCARD ALL")]),
    "DEALLOCATE ALL that is skipped": after([talk.run("SELEC 1") + talk.run("DEALLOCATE ALL") + SYNC]),
    "Close that is skipped": after([talk.run("SELEC 1") + talk.close("set") + SYNC]),
    "Parse of the name again": after([parse("SELECT 1", "set") + SYNC]),
    "many statements": after([b"".join(parse("SELECT 1", f"n{i}") + SYNC for i in range(5000))]),
    "many portals": portals}


@pytest.mark.parametrize("size", [0, 5])
@pytest.mark.parametrize("how", UNSEEN)
def test_a_set_that_was_prepared(how, size):
    """A client prepares SET search_path, does something that seems to end it, and executes it.

    Its next writes are stored where its settings say, with neighbours whose settings are others in the same batch.
    """
    scene = Scene("postgres", clients=3).ready(0 if how == "many statements" else size)
    a = scene.links[0]
    scene.say(a, parse("SET search_path = x", "set") + SYNC)
    scene.wire.finish()
    UNSEEN[how](scene, a)
    scene.wire.finish()
    for _ in range(2):
        for link in (*scene.links, *scene.links[::-1]):
            scene.say(link, pg_text(scene.key()))
        scene.wire.finish()
    scene.finish()


def field(text: bytes) -> bytes:
    return struct.pack("!i", len(text)) + text


def call_set_config(session, server) -> None:
    session.receive(pg(b"F", struct.pack("!IHHH", 2078, 1, 1, 3) + field(b"search_path") + field(b"x") + field(b"\0")
                       + b"\0\1"))
    server.receive(pg(b"V", field(b"x")) + READY)


def prepared_set_config(front: bytes, answers: bytes):
    def step(session, server) -> None:
        session.receive(parse("SELECT set_config('search_path', $1, false)", "s0") + SYNC)
        server.receive(pg(b"1") + READY)
        if front:
            session.receive(front)
            server.receive(answers)
        session.receive(talk.bind(("x",), "s0") + EXECUTE + SYNC)
        server.receive(pg(b"2") + pg(b"D", b"\0\1" + field(b"x")) + pg(b"C", b"SELECT 1\0"))
        server.receive(READY)
    return step


@pytest.mark.parametrize("how", [
    call_set_config, prepared_set_config(b"", b""),
    prepared_set_config(query("DEALLOCATE s9"), pg(b"C", b"DEALLOCATE\0") + READY),
    prepared_set_config(query("DEALLOCATE s9"), pg_error(b"26000") + READY),
    prepared_set_config(b"".join(parse("SELECT 1", f"n{i}") + SYNC for i in range(5000)), (pg(b"1") + READY) * 5000),
], ids=["called", "prepared", "behind DEALLOCATE", "behind a failed DEALLOCATE", "behind many"])
def test_set_config(how):
    """A client calls set_config in a way that shows only a row: it shares no batch with those who did not."""
    _, a, server_a, b, server_b = pair()
    how(b, server_b)
    b.take_out(), server_b.take_out()
    b.receive(WRITE)
    answer_session(server_b, b"another")
    a.receive(WRITE)
    sent = [server.take_out() for server in (server_a, server_b)]
    assert not any(b"BEGIN" in data or b",(1)" in data for data in sent)
    assert all(sent)                                                # each on its own connection: nobody to wait for


# --- one by one, automatic waits --------------------------------------------------------------------------------------

AUTO = query("/* max_wait_ms:auto */ INSERT INTO t (a) VALUES (1)")
AUTO_RETURNING = query("/* max_wait_ms:auto */ INSERT INTO t (a) VALUES (1) RETURNING a")


@pytest.mark.parametrize("flushes", [0, 1, 3])
@pytest.mark.parametrize("known", [False, True], ids=["first", "known"])
def test_flush_behind_a_write_under_way(flushes, known):
    """A client sends Flush while its write is under way: once that is answered, the backend counts as idle."""
    hooks = Hooks()
    a, server_a = logged_in(hooks)
    b, server_b = logged_in(hooks)
    a.receive(AUTO)
    answer_session(server_a)
    server_a.take_out()
    server_a.receive(FACTS)
    if known:
        server_a.take_out()
        server_a.receive(WRITE_DONE)
        a.receive(AUTO)
    assert server_a.take_out() == AUTO
    a.receive(FLUSH * flushes)
    server_a.receive(WRITE_DONE)
    b.receive(AUTO)
    answer_session(server_b)
    assert server_b.take_out() == AUTO and not b.waits


@pytest.mark.parametrize("facts_first", [True, False])
def test_a_gathered_write_while_the_catalogue_is_asked_again(facts_first):
    """The write on which an automatic wait counts is answered while the same table is asked for another shape.

    With nothing under way any more the gathered one is sent.
    """
    hooks = Hooks(max_wait_ms=1000)
    (a, server_a), (b, server_b), (c, server_c), (d, server_d) = [logged_in(hooks) for _ in range(4)]
    a.receive(AUTO)
    answer_session(server_a)
    server_a.take_out()
    server_a.receive(FACTS)
    server_a.take_out()
    server_a.receive(WRITE_DONE)
    a.receive(AUTO)
    assert server_a.take_out() == AUTO
    b.receive(AUTO)
    answer_session(server_b)
    assert server_b.take_out() == b"" and b.waits
    d.receive(query("CREATE TABLE z (a int)"))
    server_d.take_out()
    server_d.receive(pg(b"C", b"CREATE TABLE\0") + READY)
    c.receive(AUTO_RETURNING)
    answer_session(server_c)
    assert b"pg_catalog" in server_c.take_out()
    for server in (server_c, server_a) if facts_first else (server_a, server_c):
        server.receive(FACTS if server is server_c else WRITE_DONE)
    assert server_b.take_out() == AUTO
    assert server_c.take_out() == AUTO_RETURNING
    assert hooks.engine.gathered == 0


@pytest.mark.parametrize("ddl, tag", [
    ("CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()", b"CREATE TRIGGER"),
    ("CREATE RULE r AS ON INSERT TO t DO ALSO SELECT 1", b"CREATE RULE"),
    ("ALTER TABLE t ADD CHECK (a > 0)", b"ALTER TABLE"), ("CREATE POLICY p ON t", b"CREATE POLICY")])
def test_what_was_learnt_during_ddl(ddl, tag):
    """The catalogue was asked after a client's DDL was sent and before it was committed: it is asked again."""
    hooks = Hooks(max_wait_ms=1000)
    (a, server_a), (b, server_b), (c, server_c) = [logged_in(hooks) for _ in range(3)]
    c.receive(query(ddl) + query("SELECT pg_sleep(50)"))
    server_c.take_out()
    a.receive(WRITE)
    answer_probe(a, server_a)
    server_c.receive(pg(b"C", tag + b"\0") + READY)
    assert c.take_out() == pg(b"C", tag + b"\0") + READY
    b.receive(WRITE)
    answer_session(server_b)
    a.receive(WRITE)
    assert sorted(b"pg_catalog" in server.take_out() for server in (server_a, server_b)) == [False, True]
    assert a.waits and b.waits


@pytest.mark.parametrize("way", ["query", "prepared"])
@pytest.mark.parametrize("apart", [False, True])
def test_strings_change_while_a_unit_comes(way, apart):
    """standard_conforming_strings comes on between the two halves of a write: it is sent whole, once."""
    a, server = logged_in(Hooks())
    server.receive(pg(b"S", b"standard_conforming_strings\0off\0"))
    unit = gathered_unnamed()
    a.receive(unit)
    assert server.take_out() == unit
    server.receive(DONE)
    sql = "SET standard_conforming_strings = on"
    a.receive(parse(sql, "on") + SYNC)
    server.receive(pg(b"1") + READY)
    server.take_out(), a.take_out()
    setting = query(sql) if way == "query" else talk.bind((), "on") + EXECUTE + SYNC
    half = len(unit) - len(EXECUTE + SYNC)
    a.receive(setting + (b"" if apart else unit[:half]))
    if apart:
        a.receive(unit[:half])
    sent = server.take_out()
    server.receive((b"" if way == "query" else pg(b"2")) + pg(b"C", b"SET\0")
                   + pg(b"S", b"standard_conforming_strings\0on\0") + READY)
    a.receive(unit[half:])
    sent += server.take_out()
    assert not a.closing and sent.startswith(setting)
    if b"SHOW ALL" in sent:
        server.receive(COLUMNS + pg(b"C", b"SELECT 0\0") + READY)     # nothing is known of it: it goes alone
        sent = setting + server.take_out()
    assert sent == setting + unit


# --- the unnamed statement --------------------------------------------------------------------------------------------

SKIPPING = {
    "Bind of nothing": talk.bind((), "no_such"), "Execute of nothing": talk.execute("no_such"),
    "Describe of nothing": talk.describe("no_such", "S"), "Bind of a wrong number": talk.bind((1,)),
    "Bind of a wrong value": talk.bind(("x", 1))}
SKIPPED = {"nothing": b"", "Close": talk.close(), "Parse": parse("SELECT 1"), "Close twice": talk.close() * 2,
           "Query": query("SELECT 1"), "Close and Parse": talk.close() + parse("SELECT 1")}


@pytest.mark.parametrize("end", [SYNC, FLUSH + SYNC], ids=["sync", "flush"])
@pytest.mark.parametrize("skipped", SKIPPED)
@pytest.mark.parametrize("failing", SKIPPING)
def test_the_unnamed_statement_behind_what_was_skipped(failing, skipped, end):
    """A write's unnamed statement went in a batch; a message fails and what would end it is skipped: it is there."""
    scene = Scene("postgres", clients=3).ready()
    for link in scene.links:
        scene.say(link, pg_unnamed(scene.key()))
    scene.wire.finish()
    assert {link.session.last_batch_size for link in scene.links} == {3}
    for link in scene.links:
        scene.say(link, SKIPPING[failing] + SKIPPED[skipped] + SYNC)
        scene.wire.finish()
        scene.say(link, talk.bind((scene.key(), 1)) + talk.describe() + EXECUTE + end)
    scene.finish()


@pytest.mark.parametrize("size", [0, 5])
@pytest.mark.parametrize("older", ["UPDATE t SET a = $1 + 900 WHERE k < $2", "SELECT a FROM t WHERE k = $1 AND a = $2"])
@pytest.mark.parametrize("bad", [0, 1, 2])
@pytest.mark.parametrize("named", ["in front", "behind"])
def test_what_goes_alone_finds_its_unnamed_statement(named, bad, older, size):
    """A batch fails of which executions of the unnamed and of a named statement are members; they go alone.

    What the server has as unnamed is an older statement with as many parameters, for the INSERT went in a batch.
    """
    scene = Scene("postgres", clients=3).ready()
    for link in scene.links:
        scene.say(link, talk.unit(older, (1, 1)))
        scene.wire.finish()
    scene.ready(size)
    for link in scene.links:
        scene.say(link, pg_unnamed(scene.key()))
    scene.wire.finish()
    assert {link.session.last_batch_size for link in scene.links} == {3}
    for _ in range(2):
        for i, link in enumerate(scene.links):
            again = talk.bind((scene.key(), 1)) + EXECUTE + SYNC
            other = pg_named(scene.key(), -(i == bad))
            scene.say(link, other + again if named == "in front" else again + other)
        scene.wire.finish()
        for link in scene.links:
            scene.say(link, talk.bind((scene.key(), 1)) + talk.describe() + EXECUTE + FLUSH + SYNC)
        scene.wire.finish()
    scene.finish()


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("later", SKIPPED)
@pytest.mark.parametrize("first", SKIPPED)
def test_the_unnamed_statement_behind_two_segments_that_failed(first, later, size, warm):
    """Sent ahead: two segments fail, and what each would have made of the unnamed statement is skipped."""
    scene = Scene("postgres", clients=2, warm=warm).ready(size)
    a = scene.links[0]
    hinted = insert(places="($1, $2)")
    fails = talk.execute("no_such")
    scene.say(a, fails + SKIPPED[first] + parse(hinted) + SYNC + fails + SKIPPED[later] + SYNC)
    for number in range(2):
        scene.say(a, talk.bind((8000 + number, 1)) + EXECUTE + SYNC)
    scene.say(a, parse(hinted) + talk.bind((8005, 1)) + EXECUTE + SYNC)
    scene.say(a, fails + SKIPPED[later] + SYNC + talk.bind((8006, 1)) + EXECUTE + SYNC)
    scene.finish()
