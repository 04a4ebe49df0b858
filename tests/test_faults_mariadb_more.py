"""MariaDB: what statements behind a batch find on their own connection, and what of a batch's answer is told."""

import pathlib

import pytest

from tests.model import talk
from tests.model.scene import HINT, Scene, tables
from tests.test_faults_mariadb import INSERT, OK, UPDATE, Client, batch, batched, clients
from tests.wire import MY_FACTS, my, my_error, my_ok, my_query, my_result

# --- SHOW WARNINGS and ROW_COUNT(), with the direct way beside ------------------------------------------------------

BETWEEN = {
    "nothing": b"", "update": talk.com_query("UPDATE c SET a = a + 2 WHERE k = 0"),
    "none": talk.com_query("DELETE FROM n"),
    "insert": talk.com_query("INSERT INTO n (a) VALUES (1), (2), (3)"), "read": talk.com_query("SELECT 7"),
    "refused": talk.com_query("SELECT x FROM nope"),
    "refused write": talk.com_query("INSERT INTO nope (a) VALUES (1)"),
    "refused prepare": talk.com_prepare("SELECT a FROM nope"), "refused database": talk.com_init_db("nope"),
    "unknown statement": talk.com_execute(77, (1, 1)),
    "broken": talk.com_execute(2, (1, None)) + talk.com_execute(2, (1, 1)),
    "written": talk.com_query("INSERT INTO t (k, a) VALUES (5000, 1), (5001, 1)"),
    "executed": talk.com_execute(2, (5002, 3)),
}
ASKED = ["SHOW WARNINGS", "SELECT ROW_COUNT()"]


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("between", BETWEEN)
def test_questions_behind_a_batch(between, asked, ahead):
    """Clients write in one batch, then one relayed statement each, and ask what the last statement did: they are told
    of that one, whether the server has seen it or not."""
    scene = Scene("mariadb").ready()
    one = scene.links[0]
    # the connection has seen something else last
    for link in scene.links:
        scene.say(link, scene.query("SELECT x FROM nope"))
    scene.wire.finish()
    for link in scene.links:
        scene.say(link, scene.write())
    if not ahead:
        scene.wire.finish()
    scene.say(one, BETWEEN[between])
    if not ahead:
        scene.wire.finish()
    scene.say(one, scene.query(asked))
    scene.say(scene.links[1], scene.query(asked))
    scene.finish()


# --- by hand --------------------------------------------------------------------------------------------------------

RIGHT = my_query("BEGIN NOT ATOMIC DECLARE v BIGINT UNSIGNED; SELECT LAST_INSERT_ID(10) INTO v FROM (SELECT 1) AS t "
                 "LIMIT 1; END")
GIVEN = my_query("VALUES (LAST_INSERT_ID(10))")


@pytest.mark.parametrize("answer", [my_ok(3), my_ok(0), my_error(1062)])
def test_row_count_behind_a_relayed_write(answer):
    """Behind a batch the client updates, and finds what the batched write has left: what it then asks for is what the
    server says of that statement."""
    client = batched()[0]
    update, asked = my_query("UPDATE t SET a = 2"), my_query("SELECT LAST_INSERT_ID(), ROW_COUNT()")
    assert client.sends(update) == RIGHT + update
    assert not client.gets(my_ok(1))
    assert client.gets(answer) == answer
    assert client.sends(asked) == asked


WARNED = {
    "refused prepare": (my(0, b"\x16SELECT * FROM nope"), my_error(1146)),
    "refused database": (my(0, b"\x02nope"), my_error(1049)),
    "unknown statement": (talk.com_execute(77, (1,)), my_error(1243)),
    "large": (my_query(b"INSERT INTO t (a) VALUES " + b"(1)," * 400_000 + b"(1)"), my(1, b"\0\1\0\2\0\1\0")),
}


@pytest.mark.parametrize("name", WARNED)
def test_warnings_of_what_was_relayed_last(name):
    """A command behind a batch leaves a warning: what gives the batch's id and empties the list has been sent in front
    of it, and nothing is put between it and SHOW WARNINGS."""
    command, answer = WARNED[name]
    client = batched()[0]
    assert client.sends(command) == RIGHT + command
    assert not client.gets(my_ok(1))
    assert client.gets(answer) == answer
    assert client.sends(my_query("SHOW WARNINGS")) == my_query("SHOW WARNINGS")


ASKING = {"text": my_query("SELECT LAST_INSERT_ID()"), "warnings": my_query("SHOW WARNINGS"),
          "prepare": my(0, b"\x16SELECT LAST_INSERT_ID()"), "database": my(0, b"\x02d"),
          "unknown statement": talk.com_execute(77, (1,)), "set": my_query("SET @x = LAST_INSERT_ID()")}


@pytest.mark.parametrize("asked", ASKING)
def test_an_older_id_is_not_given_behind_a_newer(asked):
    """A client writes in a batch, then once more alone with the question sent ahead behind it: the id of the write that
    is under way stands, the batch's is not given behind it."""
    client = batched()[0]
    client.session.receive(my_query(INSERT) + ASKING[asked])
    client.hooks.engine.tick(1030.0)
    sent = client.server.take_out()
    assert my_query(INSERT) in sent and b"LAST_INSERT_ID(10)" not in sent
    client.gets(my_ok(1, 20))
    sent += client.server.take_out()
    assert sent.endswith(ASKING[asked]) and b"LAST_INSERT_ID(10)" not in sent


@pytest.mark.parametrize("asked", ASKING)
def test_the_id_is_given_behind_a_failed_write(asked):
    """As above, but the write in between fails: now the batch's id is to be found."""
    client = batched()[0]
    client.session.receive(my_query(INSERT) + ASKING[asked])
    client.hooks.engine.tick(1030.0)
    sent = client.server.take_out()
    client.gets(my_error(1062))
    sent += client.server.take_out()
    assert sent.endswith(my_query(INSERT) + GIVEN + ASKING[asked])


SETS_ID = {"SELECT": (my_query("SELECT LAST_INSERT_ID(77)"), my_result(b"77")),
           "SET": (my_query("SET @x = LAST_INSERT_ID(77)"), OK), "CALL": (my_query("CALL f()"), OK),
           "compound": (my_query("BEGIN NOT ATOMIC DO LAST_INSERT_ID(77); END"), OK),
           "DO": (my_query("DO LAST_INSERT_ID(77)"), OK)}
KEEP, GIVE = my_query("SET @tqdb_last_id = LAST_INSERT_ID()"), my_query("DO LAST_INSERT_ID(@tqdb_last_id)")


@pytest.mark.parametrize("how", ["SELECT", "DO"])
def test_an_id_that_the_server_alone_knows(how):
    """Clients set LAST_INSERT_ID() to what no answer tells; then a merged INSERT fails on the connection of one: the
    rows in front of the bad one have changed it there, so it is kept before and given back."""
    hooks, found = clients(INSERT)
    for client in found:
        client.do(*SETS_ID[how])
    leader, sent = batch(hooks, found, INSERT)
    assert sent.startswith(KEEP + my_query("BEGIN"))
    for answer in (OK, my_ok(status=3), my_error(1062)):
        leader.server.receive(answer)
    rest = bytes(leader.server.take_out())
    leader.server.receive(my_ok())
    rest += bytes(leader.server.take_out())
    assert rest.startswith(my_query("ROLLBACK") + GIVE)
    assert not leader.session.take_out()


UNTOLD = {
    # the rows of an answer leave no room for an id
    "returning": (INSERT + b" RETURNING a", my_result(b"1")),
}


@pytest.mark.parametrize("how", UNTOLD)
@pytest.mark.parametrize("hinted", [True, False])
def test_an_id_that_an_own_write_has_not_told(how, hinted):
    """Clients write, each alone, what changes or keeps LAST_INSERT_ID() without that the answer tells it (``hinted``:
    gathered, with nobody else); then a merged INSERT fails: no other id is given than the one that was there."""
    write, answer = UNTOLD[how]
    hooks, found = clients(INSERT, answer=my_ok(1, 5))
    for number, client in enumerate(found):
        if b"@@sql_mode" in client.sends(my_query(write if hinted else write[len(HINT):])):
            client.gets(my_result(*MY_FACTS))
        hooks.engine.tick(1004.0 + number)
        client.server.take_out()
        assert client.gets(answer) == answer
    leader, sent = batch(hooks, found, INSERT)
    for answer in [OK] * sent.startswith(KEEP) + [my_ok(status=3), my_error(1062), my_ok()]:
        leader.server.receive(answer)
        sent += bytes(leader.server.take_out())
    hooks.engine.tick(1011.0)
    sent += bytes(leader.server.take_out())
    if GIVE in sent:
        leader.server.receive(OK)
    leader.gets(my_error(1062))
    sent += leader.sends(my_query("SELECT LAST_INSERT_ID()"))
    assert sent.startswith(KEEP) and GIVE in sent, sent
    assert sent.count(b"DO LAST_INSERT_ID(") == 1


@pytest.mark.parametrize("trigger", [False, True])
def test_ids_that_are_given_are_not_last_ones(monkeypatch, trigger):
    """Clients set LAST_INSERT_ID(), then write rows whose ids they give themselves, each alone: the answers have those
    ids, LAST_INSERT_ID() stays."""
    def with_ids(protocol):
        store = tables(protocol)
        store.create("ids", "id a", schema="d", key="id", auto="id", trigger=trigger)
        return store

    monkeypatch.setattr("tests.model.scene.tables", with_ids)
    scene = Scene("mariadb").ready()
    for turn in range(2):
        for number, link in enumerate(scene.links):
            scene.say(link, scene.query(f"SELECT LAST_INSERT_ID({70 + number})"))
            scene.wire.run()
            scene.say(link, scene.query(f"{HINT}INSERT INTO ids (id, a) VALUES ({100 + 10 * turn + number}, 1)"))
            scene.wire.finish()
        scene.wire.finish()
    for link in scene.links:
        scene.say(link, scene.query("SELECT LAST_INSERT_ID()"))
    scene.finish()


def test_an_id_that_is_known_is_given_behind_a_failed_batch():
    """A merged INSERT fails on the connection of a client that knows its id from an answer: it is given before it is
    asked for, and nothing was to be kept."""
    hooks, found = clients(INSERT, answer=my_ok(1, 5))
    leader, sent = batch(hooks, found, INSERT)
    assert sent.startswith(my_query("BEGIN"))
    for answer in (my_ok(status=3), my_error(1062), my_ok()):
        leader.server.receive(answer)
        sent = bytes(leader.server.take_out())
    for client in found:                    # each alone, in vain
        hooks.engine.tick(1011.0)
        client.server.take_out()
        client.gets(my_error(1062))
    assert leader.sends(my_query("SELECT LAST_INSERT_ID()")) == my_query(
        "VALUES (LAST_INSERT_ID(5))") + my_query("SELECT LAST_INSERT_ID()")


# --- answers --------------------------------------------------------------------------------------------------------

TRACK = 1 << 23


@pytest.mark.parametrize("tail", [b"", b"\x26Records: 2  Duplicates: 0  Warnings: 0",
                                  b"\x26Records: 2  Duplicates: 0  Warnings: 0" + b"\x0b\x05\t\x08T___W___"])
@pytest.mark.parametrize("status", [0x4003, 3])
def test_session_state_of_a_batch_is_nobodys(status, tail):
    """Clients that want to hear of their session's state write: the server's answer to the batch tells of the batch's
    transaction. The members' answers do not say that more follows, for nothing does (see ``batched``)."""
    for client in batched(capabilities=TRACK, status=status, tail=tail if status & 0x4000 else tail[:39]):
        assert not client.session.closing


def resident() -> int:
    """Bytes of this process."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_rows_of_a_batch_past_the_bound_are_not_kept():
    """The server answers a merged RETURNING with far more than is kept of a batch's answer: the rest is read and
    forgotten, and the members go alone."""
    write = INSERT + b" RETURNING a"
    hooks, found = clients(write, answer=my_result(b"1"))
    leader, sent = batch(hooks, found, write)
    if sent.startswith(KEEP):
        leader.server.receive(OK)
    leader.server.receive(my_ok(status=3))
    leader.server.receive(my(1, b"\1") + my(2, b"\3def\0\0\0\1c\0\x0c\x2d\0\xff\xff\0\0\xfd\0\0\0\0\0")
                          + my(3, b"\xfe\0\0\3\0"))
    row = my(4, b"\xfd" + (1_000_000).to_bytes(3, "little") + b"x" * 1_000_000)
    before = resident()
    for _ in range(100):
        leader.server.receive(row)
    assert resident() - before < 40_000_000
    leader.server.receive(my(4, b"\xfe\0\0\3\0"))
    assert leader.server.take_out() == my_query("ROLLBACK")
    leader.server.receive(my_ok())
    hooks.engine.tick(1011.0)
    assert [bytes(client.server.take_out()).count(write) for client in found] == [1, 1]
    leader.gets(OK)                         # to what gives it its own id back, in front
    assert [client.gets(my_result(b"1")) for client in found] == [my_result(b"1")] * 2


@pytest.mark.parametrize("command", [b"\x12", b"\x1e", b"\x13"], ids=["binlog", "gtid", "table"])
def test_a_dump_behind_a_gathered_write(command):
    """A client writes and asks for the binlog behind it: what restores its connection after the batch is answered to
    nobody, so the dump begins behind that answer."""
    hooks, found = clients(UPDATE, answer=my_ok(1))
    a, b = found
    dump = my(0, command + b"\4\0\0\0\0\0\1\0\0\0bin")
    a.session.receive(my_query(UPDATE) + dump)
    b.session.receive(my_query(UPDATE))
    hooks.engine.tick(1010.0)
    sent = {client: bytes(client.server.take_out()) for client in found}
    leader: Client = next(client for client in found if sent[client])
    leader.server.receive(my_ok(status=0) + my_ok(1, status=1) * 2)
    assert my_query("COMMIT") in sent[leader] + leader.server.take_out()
    leader.server.receive(my_ok(status=0))
    rest = bytes(leader.server.take_out())
    assert b"SET autocommit = 1" in rest and dump not in rest
    assert [bytes(client.session.take_out()) for client in found] == [my_ok(1)] * 2
    leader.server.receive(my_ok())
    assert not leader.session.take_out()
    assert bytes(a.server.take_out()) == dump
    event = my(1, b"\0" + b"event" * 10)
    assert a.gets(event) == event
