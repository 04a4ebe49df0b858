"""MariaDB: prepared statements that are there no more, endings, classes, and what a batch leaves behind on connections.

Where the model knows what is said, the oracle is the direct way; else the bytes are written out by hand.
"""

import struct

import pytest
from tqdb._core import MySession

from tests.model import talk
from tests.model.mariadb import LAST_PREPARED, LONG, LONGLONG, MyError, MyModel
from tests.model.scene import HINT, Scene, insert, readable, tables
from tests.sansio import Hooks
from tests.wire import (
    GREETING,
    HANDSHAKE,
    MY_DEFINITION,
    MY_FACTS,
    MY_VERSION,
    my,
    my_alike,
    my_error,
    my_ok,
    my_query,
    my_result,
)

BARE = talk.packet(b"\x17" + struct.pack("<IBI", LAST_PREPARED, 0, 1))     # without parameters


@pytest.fixture
def ids_go_on(monkeypatch):
    """A refused PREPARE uses up a number, so that -1 names nothing behind it: as the real server has it.

    Of a text that ends with a blank there are too many already.
    """
    prepare = MyModel.COMMANDS[22]

    def refused(self, packet):
        try:
            if packet.endswith(b" "):
                raise MyError(1461, "42000", "Can't create more than max_prepared_stmt_count statements")
            yield from prepare(self, packet)
        except MyError:
            self.next_statement += 1
            raise

    monkeypatch.setitem(MyModel.COMMANDS, 22, refused)


# --- statement id -1 ------------------------------------------------------------------------------------------------

NOPE = talk.com_prepare(HINT + "INSERT INTO nope (k, a) VALUES (?, ?)")
FULL = talk.com_prepare(insert("t", places="(?, ?) "))
GONE = {"no table": NOPE, "refused": FULL, "refused twice": FULL * 2, "closed": talk.com_close(2),
        "reset": talk.COM_RESET, "another user": talk.com_change_user("v"),
        "refused and closed": FULL + talk.com_close(2)}
THERE = {"another closed": talk.com_close(1), "statement reset": talk.packet(b"\x1a" + struct.pack("<I", 2)),
         "prepared anew": FULL + talk.com_prepare(insert("p", places="(?, ?)")),
         "reset and prepared": talk.COM_RESET + talk.com_prepare(insert("p", places="(?, ?)"))}


@pytest.mark.parametrize("who", range(3))
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("last", [*GONE, *THERE])
def test_execution_of_what_was_prepared_last(ids_go_on, last, ahead, who):
    """A client prepares in vain, closes, resets, and executes number -1: it is told that there is none, and no batch
    has it; if there is one, it is that one. Others write meanwhile."""
    scene = Scene("mariadb", clients=3).ready()
    one, others = scene.links[who], [link for link in scene.links if link is not scene.links[who]]
    said = (GONE | THERE)[last] + scene.query("SELECT 7")
    if not ahead:
        scene.say(one, said)
        scene.wire.run()
    for number, link in enumerate(others):
        scene.say(link, talk.com_execute(2, (300 + number, 1)))
    scene.say(one, (said if ahead else b"") + talk.com_execute(LAST_PREPARED, (399, 1)))
    scene.wire.finish()
    kept = {dict(row)["k"] for row in scene.wire.store.stored()["d.p"]}
    assert {300, 301} <= kept and (399 in kept) == (last in THERE)
    scene.finish()


@pytest.mark.parametrize("last", GONE)
def test_bare_executions_of_what_is_not_there(ids_go_on, last):
    """As above, without a byte for parameters and twice, while somebody else's batch is under way."""
    scene = Scene("mariadb").ready()
    a, b = scene.links
    scene.say(b, GONE[last] + scene.query("SELECT 7"))
    scene.wire.run()
    scene.say(a, talk.com_execute(1, (200, 1)) + talk.com_execute(1, (201, 1)))
    scene.say(b, BARE + BARE)
    scene.finish()


@pytest.mark.parametrize("size", range(1, 14))
@pytest.mark.parametrize("number", [1, 3])
def test_executions_cut_short(monkeypatch, number, size):
    """Executions shorter than their own head, of a statement with parameters and of one without, twice: they are the
    server's to refuse."""
    execute = MyModel.COMMANDS[23]

    def lenient(self, packet):
        try:
            yield from execute(self, packet)
        except (IndexError, ValueError, struct.error):
            raise MyError(1210, "HY000", "Incorrect arguments to mysqld_stmt_execute") from None

    monkeypatch.setitem(MyModel.COMMANDS, 23, lenient)
    scene = Scene("mariadb").ready()
    a, b = scene.links
    body = (b"\x17" + struct.pack("<IBI", number, 0, 1) + b"\0" * 8)[:size]
    # what follows must not be taken for the rest of it
    scene.say(a, talk.com_prepare(insert(places="(901, 2)")) + talk.packet(body) * 2 + scene.query("SELECT 7"))
    scene.say(b, scene.write())
    scene.finish()


@pytest.mark.parametrize("first", [True, False])
def test_one_text_with_two_numbers_of_parameters(monkeypatch, first):
    """One connection's server finds no parameters in a text (as its mode may have it), the others' two: these are
    gathered, whoever came first."""
    prepare = MyModel.COMMANDS[22]
    scene = Scene("mariadb", clients=3, warm=False).ready()
    odd, *even = scene.links
    monkeypatch.setitem(MyModel.COMMANDS, 22, lambda self, packet: prepare(
        self, packet.replace(b"?", b"1") if self is odd.model else packet))
    for links in ([odd], even) if first else (even, [odd]):
        for link in links:
            scene.say(link, talk.com_prepare(HINT + "UPDATE t SET a = ? WHERE k = ?"))
        scene.wire.finish()
        for _ in range(2):
            for link in links:
                link.sent.clear()
                scene.say(link, talk.com_execute(3, (1, 1)) if link in even else BARE)
            scene.wire.finish()
        if links == even:
            assert sum(bytes(link.sent).count(b"autocommit = 0") for link in even) == 1
            assert sorted(bytes(link.sent).count(b"\x17\3\0\0\0") for link in even) == [0, 2]
        else:
            assert bytes(odd.sent).count(BARE) == 1
    assert [talk.packets(link.answers)[-1][0] for link in scene.links] == [0, 0, 0] and not scene.wire.stuck()


# --- types ----------------------------------------------------------------------------------------------------------

def execution(number: int, kind: int, told: bool, *values: int) -> bytes:
    """With numbers of one type, LONG or LONGLONG."""
    return talk.packet(b"\x17" + struct.pack("<IBI", number, 0, 1) + b"\0" + (
        b"\1" + bytes((kind, 0)) * len(values) if told else b"\0") + b"".join(
            struct.pack("<i" if kind == LONG else "<q", value) for value in values))


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("told", ["yn", "ynn", "yny", "yyn", "nyn", "nn"])
def test_kill_of_the_first_of_several_executions(told, number, warm):
    """A client sends executions ahead, not each with its types (y: LONG; n: those told before); the first one is killed
    while it is gathered: the next ones count on the types that it told."""
    scene = Scene("mariadb", warm=warm).ready()
    a, b = scene.links
    # what each connection's server has heard: LONGLONG
    scene.say(a, execution(number, LONGLONG, True, 90, 1))
    scene.say(b, execution(number, LONGLONG, True, 91, 1))
    scene.wire.finish()
    a.answers.clear(), b.answers.clear()
    kind, said = LONGLONG, b""
    for i, how in enumerate(told):
        kind = LONG if how == "y" else kind
        said += execution(number, kind, how == "y", 100 + i, 5 + i)
    scene.say(a, said)
    assert scene.wire.engine.gathered == len(told)
    scene.say(b, scene.query("KILL QUERY 1"))
    scene.wire.finish()
    scene.say(a, execution(number, kind, False, 100 + len(told), 5 + len(told)))
    scene.wire.finish()
    codes = [talk.error_code([answer]) for answer in talk.packets(a.answers)]
    assert codes == [1317] + [0] * len(told), readable("mariadb", a.answers)
    assert [talk.error_code([answer]) for answer in talk.packets(b.answers)] == [0]
    kept = [(dict(row)["k"], dict(row)["a"]) for row in scene.wire.store.stored()["d.t" if number == 1 else "d.p"]]
    assert sorted(row for row in kept if row[0] >= 90) == [
        (90, 1), (91, 1), *[(100 + i, 5 + i) for i in range(1, len(told) + 1)]]


# --- the end --------------------------------------------------------------------------------------------------------

LARGEST = 4000                              # max_allowed_packet
ENDS = {"quit": talk.COM_QUIT, "too large": talk.com_query("SELECT '" + "x" * LARGEST + "'")}
BEHIND = {"text": lambda s: s.write(), "prepared": lambda s: talk.com_execute(1, (700, 1)),
          "two": lambda s: s.write() + s.write(), "read": lambda s: s.query("SELECT 7")}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("who", range(3))
@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("end", ENDS)
def test_writes_behind_the_end(monkeypatch, end, behind, who, late):
    """A client says something with which the server ends the connection, and writes behind it: nobody runs that, and
    those whose writes are gathered do not lose theirs. ``late``: the server reads it after all others have been
    answered."""
    def small(protocol):
        store = tables(protocol)
        store.max_packet = LARGEST
        return store

    monkeypatch.setattr("tests.model.scene.tables", small)
    scene = Scene("mariadb", clients=3).ready()
    one = scene.links[who]
    one.held_up = late
    for link in scene.links:
        scene.say(link, ENDS[end] + BEHIND[behind](scene) if link is one else scene.write())
    scene.wire.run()
    scene.wire.tick(100)
    scene.wire.run()
    one.held_up = False
    scene.finish()
    assert one.ended


# --- a command ahead of the login's OK ------------------------------------------------------------------------------

AHEAD = {"read": talk.com_query("SELECT 7"), "write": talk.com_query(insert(places="(9000, 1)")), "ping": talk.COM_PING,
         "use": talk.com_init_db("x"), "prepare": talk.com_prepare(insert(places="(?, ?)")), "quit": talk.COM_QUIT,
         "several": talk.COM_PING + talk.com_query("SELECT 7") + talk.com_query(insert(places="(9000, 1)"))}


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("ahead", AHEAD)
def test_commands_ahead_of_the_login(ahead, size):
    """A client does not wait for its login's OK: the server gets the command behind that, and answers as directly."""
    scene = Scene("mariadb").ready()
    link = scene.wire.connect()
    scene.wire.run([link])
    link.taken()
    said = talk.handshake("u") + AHEAD[ahead]
    link.send(said, size)
    assert bytes(link.server.take_out()) == talk.handshake("u")
    link.up += talk.handshake("u")
    scene.wire.finish()
    alone = MyModel(tables("mariadb"))
    alone.take_out()
    alone.receive(said)
    assert readable("mariadb", link.answers) == readable("mariadb", alone.take_out())
    assert link.ended == alone.closed and not scene.wire.stuck()


# --- one client's sessions with a server that is played by hand -----------------------------------------------------

INSERT = HINT.encode() + b"INSERT INTO t (a) VALUES (1)"
UPDATE = HINT.encode() + b"UPDATE t SET a = 2 WHERE k = 1"
OK = my_ok()


class Client:
    def __init__(self, hooks: Hooks, capabilities: int = 0, version: bytes = MY_VERSION):
        self.session = MySession(hooks.engine)
        self.session.connect()
        self.server = hooks.server
        hooks.questions.variables[version] = ("sql_mode",)
        self.server.receive(my(0, GREETING.replace(MY_VERSION, version)))
        head = struct.unpack_from("<I", HANDSHAKE)[0] | capabilities
        self.session.receive(my(1, struct.pack("<I", head) + HANDSHAKE[4:]))
        self.server.take_out()
        self.server.receive(my_ok(seq=2))
        self.session.take_out()
        self.like = b"the others"
        self.asked = 0

    def sends(self, data: bytes) -> bytes:
        """What the server then gets. It answers at once when it is asked what the session is ``like``."""
        self.session.receive(data)
        sent = bytes(self.server.take_out())
        if b"information_schema.SESSION_STATUS" in sent:
            self.asked += 1
            self.server.receive(my_alike(self.like))
            sent = bytes(self.server.take_out())
        return sent

    def gets(self, data: bytes) -> bytes:
        """What the client gets of the server's answer."""
        self.server.receive(data)
        return bytes(self.session.take_out())

    def do(self, data: bytes, answer: bytes = OK) -> None:
        assert self.sends(data)
        self.gets(answer)


def clients(write: bytes, count: int = 2, capabilities: int = 0, answer: bytes = my_ok(1, 1)):
    """``(hooks, clients)``: each has written once."""
    hooks = Hooks()
    hooks.engine.tick(1000.0)
    found = [Client(hooks, capabilities) for _ in range(count)]
    for number, client in enumerate(found):
        if b"@@sql_mode" in client.sends(my_query(write)):
            client.gets(my_result(*MY_FACTS))
            client.gets(my_result(*MY_DEFINITION))
        hooks.engine.tick(1001.0 + number)
        client.server.take_out()
        assert client.gets(answer)
    return hooks, found


def batch(hooks: Hooks, found: list[Client], write: bytes, now: float = 1010.0) -> tuple[Client, bytes]:
    """All write: the leader, and what its server gets."""
    for client in found:
        client.session.receive(my_query(write))
    hooks.engine.tick(now)
    out = [(client, bytes(client.server.take_out())) for client in found]
    leads = [(client, data) for client, data in out if data]
    assert len(leads) == 1, out
    return leads[0]


def batched(first: int = 10, capabilities: int = 0, status: int = 3, tail: bytes = b"") -> list[Client]:
    """Two who have just written in one batch; ids from ``first`` on. The leader in front."""
    hooks, found = clients(INSERT, capabilities=capabilities)
    leader, _ = batch(hooks, found, INSERT)
    leader.server.receive(my_ok(status=3))
    leader.server.receive(my(1, b"\0" + bytes((2, first)) + struct.pack("<HH", status, 0) + tail))
    assert b"COMMIT" in leader.server.take_out()
    leader.server.receive(my_ok(status=status & ~1))
    for number, client in enumerate(found):
        assert bytes(client.session.take_out()) == my_ok(1, first + number)
    hooks.engine.tick(1020.0)
    leader.hooks = hooks
    return [leader, *[client for client in found if client is not leader]]


@pytest.mark.parametrize("version, mixes", [
    (b"5.5.5-10.2.44-MariaDB", False), (b"5.5.68-MariaDB", False), (b"10.1.48-MariaDB", False),
    (b"5.5.5-10.3.1-MariaDB-log", True), (b"10.11.14-MariaDB-0+deb12u2", True), (b"11.4.2-MariaDB", True),
    (b"12.0.1-MariaDB", True)])
def test_shapes_leave_together_where_a_lock_need_not_be_waited_for(version, mixes):
    """Since MariaDB 10.3."""
    hooks = Hooks()
    hooks.engine.tick(1000.0)
    found = [Client(hooks, version=version) for _ in range(8)]
    writes = [INSERT, INSERT.replace(b"INTO t", b"INTO u")]
    for number, client in enumerate(found):
        for write in writes:
            sent = client.sends(my_query(write))
            if b"@@sql_mode" in sent:
                client.gets(my_result(*MY_FACTS))
                client.gets(my_result(*MY_DEFINITION))
            hooks.engine.tick(1001.0 + number)
            client.server.take_out()
            assert client.gets(my_ok(1, 1))
    leader, said = batch(hooks, found, INSERT)          # once answered together each is likely to come soon again
    leader.server.receive(my_ok(status=3))
    leader.server.receive(my_ok(said.count(b"(1)"), 10, status=3))
    assert b"COMMIT" in leader.server.take_out()
    leader.server.receive(my_ok())
    for number, client in enumerate(found):
        client.session.receive(my_query(writes[number // 4]))
    hooks.engine.tick(1010.1)
    sent = [bytes(client.server.take_out()) for client in found]
    assert sum(b"autocommit = 0" in data for data in sent) == mixes
    assert mixes or sum(b"BEGIN" in data for data in sent) == 2


def test_mysql_is_asked_nothing():
    """It does not say what its sessions are compared by: writes go as they came, and nothing has to be put right."""
    for client in (Client(Hooks(), version=version) for version in (b"8.0.36", b"5.7.44-log", b"9.1.0")):
        for said, answer in ((INSERT, my_ok(1, 7)), ("SELECT LAST_INSERT_ID()", my_result(b"7"))):
            assert client.sends(my_query(said)) == my_query(said)
            assert client.gets(answer) == answer


def test_what_puts_a_session_right_is_killed():
    """A KILL QUERY may meet the command in front of the client's own, which would then see what another session did."""
    for client in batched():
        sent = client.sends(my_query("SELECT LAST_INSERT_ID()"))
        assert sent.index(b"LAST_INSERT_ID(1") < sent.index(b"SELECT LAST_INSERT_ID()")
        killed = my_error(1317, b"Query execution was interrupted")
        assert client.gets(killed) == b"" and not client.session.closing
        # it may have been a write, which was done: nothing is said but that the connection is lost
        assert client.gets(my_result(b"7")) == b"" and client.session.closing


def test_a_server_that_refuses_everything():
    """Neither what puts a session right nor what the client sends: it is told so, and put right once that can be."""
    not_ready = my_error(1047, b"WSREP has not yet prepared node for application use")
    for client in batched():
        right, now = b"LAST_INSERT_ID(1", 1021.0
        for sql in ("SELECT LAST_INSERT_ID()", "INSERT INTO t (a) VALUES (5)", HINT + "INSERT INTO t (a) VALUES (6)"):
            sent = client.sends(my_query(sql))
            client.session.engine.tick(now := now + 0.1)
            sent += bytes(client.server.take_out())
            assert sent.index(right) < sent.index(sql.encode())
            assert client.gets(not_ready) == b"" and client.gets(not_ready) == not_ready
        assert client.sends(my(0, b"\x0e")) == my(0, b"\x0e") and client.gets(my_ok()) == my_ok()
        sent = client.sends(my_query("SELECT LAST_INSERT_ID()"))
        assert sent.index(right) < sent.index(b"SELECT LAST_INSERT_ID()")
        assert client.gets(my_ok()) == b"" and client.gets(my_result(b"7")) == my_result(b"7")
        assert client.sends(my_query("SELECT 1")) == my_query("SELECT 1")


@pytest.mark.parametrize("flags", [0x80, 0xC0, 0])
def test_executions_behind_a_bulk_one(flags):
    """A bulk execution tells types of its own: an execution behind it that tells none is not put behind another's
    types, it goes to the client's own server as it is; one that tells its own is gathered again."""
    hooks = Hooks()
    hooks.engine.tick(1000.0)
    a, b = Client(hooks), Client(hooks)

    def one(kind: int, told: bool, value: int) -> bytes:
        return execution(1, kind, told, value)

    for now, client in enumerate((a, b)):
        # the session was asked what it is like, and is given back what it remembered, before it prepares
        assert b"LAST_INSERT_ID(0)" in client.sends(my(0, b"\x16" + HINT.encode() + b"INSERT INTO t (a) VALUES (?)"))
        client.gets(my_ok())
        client.gets(my(1, b"\0\1\0\0\0\0\0\1\0\0\0\0") + my(2, b"\3def") + my(3, b"\xfe\0\0\2\0"))
        if b"@@sql_mode" in client.sends(one(LONGLONG, True, 5)):
            client.gets(my_result(*MY_FACTS))
            client.gets(my_result(*MY_DEFINITION))
        hooks.engine.tick(1001.0 + now)
        client.server.take_out()
        assert client.gets(my_ok(1, 1))
    bulk = my(0, b"\xfa\1\0\0\0" + struct.pack("<H", flags) + (b"\3\0" if flags else b"") + b"\0\7\0\0\0")
    assert a.sends(bulk) == bulk
    assert a.gets(my_ok(1, 1)) == my_ok(1, 1)
    untold = one(LONG, False, 8)
    b.session.receive(one(LONGLONG, True, 9))
    a.session.receive(untold)
    hooks.engine.tick(1010.0)
    assert bytes(a.server.take_out()) == untold
    assert bytes(b.server.take_out()) == one(LONGLONG, True, 9)
    assert a.gets(my_ok(1, 2)) == b.gets(my_ok(1, 2)) == my_ok(1, 2)
    for client in (a, b):
        client.session.receive(one(LONG, True, 10))
    hooks.engine.tick(1020.0)
    sent = [bytes(client.server.take_out()) for client in (a, b)]
    assert sorted(data.count(b"(10),(10)") for data in sent) == [0, 1]


# --- classes: who may be in a batch with whom -----------------------------------------------------------------------

def sql(*texts: str) -> list[tuple[bytes, bytes]]:
    return [(my_query(text), OK) for text in texts]


def change_user(collation: int = 45) -> bytes:
    return my(0, b"\x11root\0\0d\0" + struct.pack("<H", collation) + b"mysql_native_password\0")


ZONE, OTHER = sql("SET time_zone = '+05:00'"), sql("SET time_zone = '+08:00'")
GLOBAL = sql("SET GLOBAL time_zone = '+03:00'")
RESET, PING = [(talk.COM_RESET, OK)], [(talk.COM_PING, OK)]
REFUSED = [(change_user(), my_error(1045))]
# what one says, what the other says, what a third says in between
ASKED = {
    "SET, nothing": (ZONE, [], []),
    "reset, SET GLOBAL": (RESET, RESET, GLOBAL),
    "DEFAULT, SET GLOBAL": (sql("SET time_zone = DEFAULT"), sql("SET time_zone = DEFAULT"), GLOBAL),
    "@@global, SET GLOBAL": (sql("SET time_zone = @@global.time_zone"),) * 2 + (GLOBAL,),
    "compound": (sql("BEGIN NOT ATOMIC SET time_zone = '+07:00'; END"), [], []),
    "compound, lower case": (sql("begin/**/not atomic set time_zone = '+07:00'; end"), [], []),
    "the same compounds": (sql("BEGIN NOT ATOMIC SET time_zone = @tz; END"),) * 2 + ([],),
    "IF": (sql("IF 1 THEN SET time_zone = '+07:00'; END IF"), [], []),
    "labelled": (sql("l: LOOP SET time_zone = '+07:00'; LEAVE l; END LOOP"), [], []),
    "variable": (sql("SELECT '+01:00' INTO @tz", "SET time_zone = @tz"), sql("SELECT '+08:00' INTO @tz",
                                                                            "SET time_zone = @tz"), []),
    "quoted variable": (sql("SET time_zone = @`tz`"), sql("SET time_zone = @`tz`"), []),
    "variable in a call": (sql("SET time_zone = CONCAT(@tz, '')"), sql("SET time_zone = CONCAT(@tz, '')"), []),
    "second variable": (sql("SET @a = 1, time_zone = @tz"), sql("SET @a = 1, time_zone = @tz"), []),
    "SELECT": (sql("SET time_zone = (SELECT z FROM zones)"), sql("SET time_zone = (SELECT z FROM zones)"), []),
    "reset": (OTHER + RESET, ZONE + RESET, []),
    "user": ([*ZONE, (change_user(), OK)], [*OTHER, (change_user(), OK)], []),
    "DEFAULT": (sql("SET time_zone = DEFAULT"), sql("SET time_zone = DEFAULT"), []),
    "system variable": (sql("SET sql_mode = CONCAT(@@sql_mode, ',ANSI')"),) * 2 + ([],),
}
SAME = {
    "nothing": ([], [], []),
    "SET": (ZONE, ZONE, []),
    "transaction": (sql("BEGIN WORK", "COMMIT"), sql("START TRANSACTION", "COMMIT"), []),
}
NEVER = {
    "refused user": (ZONE + REFUSED + PING, ZONE, []),
    "refused user, nothing set": (REFUSED + PING, [], []),
    "refused user twice": (ZONE + REFUSED + REFUSED + PING, ZONE + PING, []),
}


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("name", [*ASKED, *SAME, *NEVER])
def test_who_may_be_in_a_batch_with_whom(name, alike):
    """Two clients that were alike have said this and that, then both write. What the server says of them decides; it
    is not asked what the same plain SETs make of sessions that were alike."""
    one, other, between = {**ASKED, **SAME, **NEVER}[name]
    hooks, (a, b, _) = clients(INSERT, 3)           # the third one could still write
    c = Client(hooks)
    for client, said in ((a, one), (c, between), (b, other)):
        for command, answer in said:
            client.do(command, answer)
    if not alike:
        a.like = b"not the others"
    asked = a.asked, b.asked
    sent = {client: client.sends(my_query(INSERT)) for client in (a, b)}
    for client in (a, b):
        if b"@@sql_mode" in sent[client]:
            client.gets(my_result(*MY_FACTS))
            client.gets(my_result(*MY_DEFINITION))
    hooks.engine.tick(1010.0)
    together = (alike or name in SAME) and name not in NEVER
    assert hooks.engine.batches_running == together
    if name in SAME:
        assert b.asked == asked[1]
    elif name in ASKED:
        assert (a.asked > asked[0]) is bool(one) and (b.asked > asked[1]) is bool(other)


@pytest.mark.parametrize("extra", [0, 1024], ids=["pad", "nopad"])
@pytest.mark.parametrize("collation", [1, 13, 28, 84, 87, 88, 95, 96, 45])
def test_collations_of_unsafe_character_sets(collation, extra):
    """A client changes its user, with a collation (1024 more: blanks at the end count) in whose character set a quote
    may be half a character: its writes go as they are. With any other one they are gathered."""
    hooks = Hooks()
    hooks.engine.tick(1000.0)
    client = Client(hooks)
    client.do(change_user(collation + extra))
    assert (client.sends(my_query(INSERT)) == my_query(INSERT)) == (collation != 45)
