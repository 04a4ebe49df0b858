"""A fuzzed input as a small program: who says what, in which pieces, when time passes and who goes away.

One byte of an operation names the line (two bits) and the action; what an action needs follows it. What runs out of
bytes ends. Actions take whole statements from a table, so that a mutation changes the order of events rather than the
spelling of SQL, and raw bytes, so that it may change that too.
"""

import itertools
from collections.abc import Callable

from tests.fuzz.world import Line, World
from tests.wire import (
    COLUMNS,
    my,
    my_error,
    my_ok,
    my_query,
    my_result,
    pg,
    pg_bind,
    pg_error,
    pg_parse,
    pg_query,
)

SIZES = (1, 2, 3, 7, 100, 1000)
LINES = 3

_HINT = b"/* max_wait_ms:5 */ "
STATEMENTS = (
    _HINT + b"INSERT INTO t (a) VALUES (1)",
    _HINT + b"INSERT INTO t (a) VALUES (1),(2),(3)",
    b"/* max_wait_ms:auto file:a.py line:7 */ INSERT INTO t (a) VALUES (1) RETURNING a",
    _HINT + b"UPDATE t SET a = 2 WHERE a = 1",
    _HINT + b"DELETE FROM u WHERE a = 1",
    b"/* max_wait_ms:900 */ INSERT INTO t (a) VALUES ('" + b"x" * 300 + b"')",
    _HINT + b"INSERT INTO u (a) VALUES (now())",
    b"SELECT 1", b"BEGIN", b"COMMIT", b"ROLLBACK", b"INSERT INTO t (a) VALUES (9)", b"SET a.b = 1", b"RESET ALL",
    b"DISCARD ALL", b"USE d", b"SET autocommit = 0", b"SELECT LAST_INSERT_ID()", b"SHOW WARNINGS",
    b"SELECT currval('s')", b"CREATE TEMP TABLE x (a int)", b"ALTER TABLE t ADD b int", b"LOCK TABLES t WRITE",
    b"COPY t FROM STDIN", b"", b"DEALLOCATE ALL", b"KILL QUERY 1", b"SELECT 'unfinished",
)
_BOUND = _HINT + b"INSERT INTO t (a) VALUES ($1)"
_BOUND_UPDATE = _HINT + b"UPDATE t SET a = $1 WHERE a = 1"
_DESCRIBE, _EXECUTE, _SYNC = pg(b"D", b"P\0"), pg(b"E", b"\0" * 5), pg(b"S")
PG_CLIENT = (
    *map(pg_query, STATEMENTS),
    pg_parse(b"", _BOUND), pg_parse(b"s", _BOUND), pg_parse(b"s", _BOUND_UPDATE), pg_parse(b"", b"SELECT 1"),
    pg_bind(b"", b"", b"1"), pg_bind(b"", b"s", None), pg_bind(b"p", b"s", b"7"), pg_bind(b"", b""),
    _DESCRIBE, _EXECUTE, _SYNC, pg(b"E", b"p\0\0\0\0\1"), pg(b"H"), pg(b"C", b"Ss\0"), pg(b"C", b"Pp\0"),
    pg(b"D", b"Ss\0"), pg(b"d", b"1\n"), pg(b"c"), pg(b"f", b"no\0"), pg(b"X"), pg(b"F", b"\0\0\0\1" + b"\0" * 8),
    pg_parse(b"", _BOUND) + pg_bind(b"", b"", b"1") + _DESCRIBE + _EXECUTE + _SYNC,
    pg_bind(b"", b"s", b"2") + _EXECUTE + _SYNC, (pg_bind(b"", b"s", b"3") + _EXECUTE) * 3 + _SYNC,
    pg_parse(b"s", _BOUND) + _SYNC,
)
PG_SERVER = (
    pg(b"Z", b"I"), pg(b"Z", b"T"), pg(b"Z", b"E"), pg(b"1"), pg(b"2"), pg(b"3"), pg(b"n"), COLUMNS,
    pg(b"D", b"\0\1\0\0\0\0011"), pg(b"C", b"INSERT 0 1\0"), pg(b"C", b"INSERT 0 3\0"), pg(b"C", b"COMMIT\0"),
    pg(b"C", b"BEGIN\0"), pg(b"I"), pg(b"s"), pg(b"G", b"\0\0\0"), pg(b"H", b"\0\0\0"), pg(b"d", b"1\n"), pg(b"c"),
    pg(b"N", b"SWARNING\0C01000\0Mw\0\0"), pg(b"S", b"client_encoding\0SJIS\0"), pg(b"A", b"\0\0\0\1c\0p\0"),
    pg_error(b"23505"), pg_error(b"40P01"), pg_error(b"57P01", b"FATAL"), pg_error(b"25P02"), pg(b"t", b"\0\0"),
    pg(b"S", b"standard_conforming_strings\0off\0"), pg(b"K", b"\0\0\0\2key2"), pg(b"v", b"\0\0\0\0\0\0\0\0"),
)
_NUMBER = b"\1\0\0\0"
MY_CLIENT = (
    *map(my_query, STATEMENTS),
    my(0, b"\x16" + _HINT + b"INSERT INTO t (a) VALUES (?)"), my(0, b"\x16" + _HINT + b"UPDATE t SET a = ?"),
    my(0, b"\x17" + _NUMBER + b"\0\1\0\0\0\0\1\x08\0" + b"\5" + b"\0" * 7),
    my(0, b"\x17" + _NUMBER + b"\0\1\0\0\0\0\0" + b"\6" + b"\0" * 7),
    my(0, b"\x17" + _NUMBER + b"\0\1\0\0\0\1\0"), my(0, b"\x17\2\0\0\0\0\1\0\0\0\0\0" + b"\7" + b"\0" * 7),
    my(0, b"\x18" + _NUMBER + b"\0\0long"), my(0, b"\x19" + _NUMBER), my(0, b"\x1a" + _NUMBER), my(0, b"\x1f"),
    my(0, b"\x11root\0\0d\0"), my(0, b"\x02d"), my(0, b"\x09"), my(0, b"\x0e"), my(0, b"\x01"), my(0, b"\x1b\1\0"),
    my(0, b"\x1c" + _NUMBER + b"\1\0\0\0"), my(0, b"\x04t\0%"), my(0, b"\x0c" + _NUMBER), my(2, b""), my(2, b"data"),
)
MY_SERVER = (
    my_ok(1), my_ok(3, 1), my_ok(0, 0, 3), my_ok(0, 0, 0), my_ok(0, 0, 1), my_ok(1, 0, 10), my_result(b"1"),
    my_result(None, b"x", status=3), my_error(1062), my_error(1213), my_error(1205), my_error(1927), my_error(1047),
    my(1, b"\xfe\0\0\2\0"), my(1, b"\1"), my(2, b"\3def" + b"\0" * 20), my(1, b"\xfbfile"), my(1, b"\xfe"),
    my(1, b"\0\1\0\0\0\0\0\1\0\0\0\0"), my(1, b"\xff\xff\xff\1\1\1\0\0\0\4copy"), my(1, b"\0\1\0\2\0\1\0"),
    my(2, b"\xfemysql_native_password\0salt\0"), my(1, b"\0\xfc\2\0\xfd\1\0\0\3\0\0\0"), my(1, b""),
)
WORDS = {"postgres": {"client": PG_CLIENT, "server": PG_SERVER}, "mariadb": {"client": MY_CLIENT, "server": MY_SERVER}}
KINDS = b"QPBDECSHFXdcfp" + b"RSKZ12tTDCnINEAsGHWVv3"      # of a well-framed PostgreSQL message


class Tape:
    """The program's bytes; EOFError at their end."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def byte(self) -> int:
        if self.at >= len(self.data):
            raise EOFError
        self.at += 1
        return self.data[self.at - 1]

    def bytes(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count:self.at]


def _words(who: str) -> Callable[[World, Line, Tape], None]:
    def act(world: World, line: Line, tape: Tape) -> None:
        table = WORDS["postgres" if world.postgres else "mariadb"][who]
        world.garbage |= who == "server"
        line.feed(who, table[tape.byte() % len(table)])
    return act


def _ahead(world: World, line: Line, tape: Tape) -> None:
    """Several messages of the client's in one send."""
    table = WORDS["postgres" if world.postgres else "mariadb"]["client"]
    line.feed("client", b"".join(table[tape.byte() % len(table)] for _ in range(2 + tape.byte() % 7)))


def _raw(who: str) -> Callable[[World, Line, Tape], None]:
    def act(world: World, line: Line, tape: Tape) -> None:
        world.garbage |= who == "server"
        line.feed(who, tape.bytes(tape.byte()))
    return act


def _framed(who: str) -> Callable[[World, Line, Tape], None]:
    """A body of any bytes in a frame that fits it."""
    def act(world: World, line: Line, tape: Tape) -> None:
        world.garbage |= who == "server"
        kind, body = tape.byte(), tape.bytes(tape.byte() & 63)
        line.feed(who, pg(bytes((KINDS[kind % len(KINDS)],)), body) if world.postgres else my(
            int(who == "server"), bytes((kind,)) + body))
    return act


def _new(world: World, line: Line, tape: Tape) -> None:
    """Another client in this one's place."""
    line.end("client")
    line.end("server")
    place = world.lines.index(line)
    world.add()
    world.lines[place], world.lines[-1] = world.lines[-1], world.lines[place]


def _piece(world: World, line: Line, tape: Tape) -> None:
    world.piece = tape.byte() % 17


def _tick(world: World, line: Line, tape: Tape) -> None:
    world.tick(tape.byte() ** 2 / 16)


ACTIONS: tuple[Callable[[World, Line, Tape], None], ...] = (
    _words("client"), _words("client"), _words("client"), _ahead, _ahead, _raw("client"), _framed("client"),
    lambda world, line, tape: world.answer(line), lambda world, line, tape: world.answer(line),
    lambda world, line, tape: world.answer(line, fail=True), lambda world, line, tape: world.settle(),
    _tick, _tick, _words("server"), _raw("server"), _framed("server"), _piece, _new,
    lambda world, line, tape: line.end("client"), lambda world, line, tape: line.end("server"),
)


def run_program(protocol: str, data: bytes) -> None:
    """The first byte chooses ``max_batch_size``; the rest are operations on ``LINES`` clients of one engine."""
    tape = Tape(data)
    if not data:
        return
    world = World(protocol, max_batch_size=SIZES[tape.byte() % len(SIZES)], max_batch_bytes=4096)
    for _ in range(LINES):
        world.add()
    try:
        while True:
            operation = tape.byte()
            ACTIONS[(operation >> 2) % len(ACTIONS)](world, world.lines[(operation & 3) % LINES], tape)
    except EOFError:
        pass
    world.finish()


# What a server may be in the middle of when it begins to say anything: what both clients have sent.
PG_SCENES: tuple[tuple[bytes, ...], ...] = (
    (), (pg_query(b"SELECT 1"),), (pg_query(b"COPY t FROM STDIN"), pg(b"d", b"1\n")),
    (pg_parse(b"s", _BOUND) + pg_bind(b"", b"s", b"1") + _DESCRIBE + _EXECUTE + _SYNC,),
    (pg_query(b"SELECT 1") * 3,), (pg_query(STATEMENTS[0]),), (pg_query(STATEMENTS[2]),), (pg_query(STATEMENTS[3]),),
    (pg_parse(b"s", _BOUND_UPDATE) + pg_bind(b"", b"s", b"1") + _EXECUTE + _SYNC,),
)
MY_SCENES: tuple[tuple[bytes, ...], ...] = (
    (), (my_query(b"SELECT 1"),), (my_query(b"LOAD DATA LOCAL INFILE 'x' INTO TABLE t"),),
    (MY_CLIENT[len(STATEMENTS)],), (my_query(b"SELECT 1") * 3,), (my_query(STATEMENTS[0]),),
    (my_query(STATEMENTS[2]),), (my_query(STATEMENTS[3]),), (MY_CLIENT[len(STATEMENTS) + 10],),
)


def serve_garbage(protocol: str, data: bytes) -> None:
    """Two bytes choose the scene and the size of pieces; the rest is what line 0's server says, whatever it is."""
    if len(data) < 2:
        return
    scenes = PG_SCENES if protocol == "postgres" else MY_SCENES
    scene = data[0] % (2 * len(scenes))
    world = World(protocol, max_batch_size=2)
    world.garbage = True
    ours, theirs = world.add(), world.add()
    messages = scenes[scene % len(scenes)]
    if scene >= len(scenes):
        # everything was asked before: the same messages once more find tables known, statements prepared
        for line, message in itertools.product((ours, theirs), messages):
            line.feed("client", message)
            world.settle()
        world.tick(10)
        world.settle()
    for line, message in itertools.product((theirs, ours), messages):
        line.feed("client", message)
    world.piece = data[1] % 33
    for line in (ours, theirs):
        line.feed("server", data[2:])
    world.tick(50)
    world.finish()
