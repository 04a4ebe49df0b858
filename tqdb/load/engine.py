"""The compiled path in process: sessions, scanner, batches and answers, without sockets and without a server."""

import struct
import time

from tqdb import policy
from tqdb._core import Engine, MyServer, MySession, PgServer, PgSession
from tqdb.catalog import sessions
from tqdb.errors import TqdbError
from tqdb.load._null import MY_GREETING, PG_WELCOME, my, pg
from tqdb.load.messages import insert
from tqdb.load.null import rows
from tqdb.load.scenarios import HINT

SETTLING = 20.0         # seconds at most until writes go as they are to
SHAPES = ((20, 50), (1000, 1))      # sessions, writes that each sends in a row
_LOGIN = {
    "postgres": struct.pack("!II", 41, 196608) + b"user\0postgres\0database\0postgres\0\0",
    "mariadb": my(1, struct.pack("<IIB", 0x0200A20D & ~1, 1 << 24, 45) + b"\0" * 23 + b"root\0\0"
                  + b"mysql_native_password\0"),
}


class _Hooks:
    """The cold side of an engine whose servers are there at once."""

    analyze = staticmethod(policy.analyze)
    analyze_statement = staticmethod(policy.analyze_statement)
    pieces = staticmethod(policy.pieces)
    session_wait = staticmethod(policy.session_wait)
    startup_wait = staticmethod(policy.startup_wait)
    probe_sql = staticmethod(policy.probe_sql)
    judge = staticmethod(policy.judge)
    explain = staticmethod(policy.explain)

    def __init__(self):
        self.engine = Engine(self)
        questions = sessions.Questions()
        self.session_sql = questions.first
        self.judge_session = questions.judge
        self.server = None

    def connect(self, session) -> None:
        self.server = (PgServer if isinstance(session, PgSession) else MyServer)(self.engine)
        session.attach(self.server)

    def ignore(self, *_) -> None:
        """Nothing is kept or written of it."""

    session_closed = server_closed = server_says = refused = slow_batch = ignore


def _pg_answer(sent: bytes, writes: int) -> bytes:
    """What PostgreSQL says to what the engine sends it."""
    if sent.startswith(b"BEGIN", 5):
        return (pg(b"C", b"BEGIN\0") + pg(b"C", b"SET\0") * sent.count(b"SET LOCAL ")
                + pg(b"C", b"INSERT 0 %d\0" % writes) + pg(b"Z", b"T"))
    if sent.startswith(b"COMMIT", 5):
        return pg(b"C", b"COMMIT\0") + pg(b"Z", b"I")
    return rows("postgres", sent, 0) + pg(b"Z", b"I")


def _my_answer(sent: bytes, writes: int) -> bytes:
    """What MariaDB says to what the engine sends it."""
    if sent.startswith(b"BEGIN", 5):
        many = b"\xfc" + struct.pack("<H", writes)
        return my(1, b"\0\0\0\3\0\0\0") + my(1, b"\0" + many + b"\1\3\0\0\0")
    if sent.startswith(b"COMMIT", 5):
        return my(1, b"\0\0\0\2\0\0\0")
    return rows("mariadb", sent, 0)


def _sessions(hooks: _Hooks, protocol: str, count: int) -> list[tuple]:
    """Logged-in sessions, each with its server."""
    found = []
    for _ in range(count):
        session = (PgSession if protocol == "postgres" else MySession)(hooks.engine)
        if protocol == "mariadb":
            session.connect()
            hooks.server.receive(MY_GREETING)
        session.receive(_LOGIN[protocol])
        hooks.server.receive(PG_WELCOME if protocol == "postgres" else my(2, b"\0\0\0\2\0\0\0"))
        session.take_out()
        hooks.server.take_out()
        found.append((session, hooks.server))
    return found


def _turn(sessions: list[tuple], chunks: list[bytes], answer, writes: int) -> float:
    """Every session sends its chunk and gets its answers; returns the CPU seconds inside the compiled code."""
    clock = time.perf_counter
    used = 0.0
    for (session, _), chunk in zip(sessions, chunks, strict=True):
        start = clock()
        session.receive(chunk)
        used += clock() - start
    busy = True
    while busy:
        busy = False
        for _, server in sessions:
            sent = server.take_out()
            if sent:
                busy = True
                reply = answer(sent, writes)
                start = clock()
                server.receive(reply)
                used += clock() - start
    return used


def _settled(protocol: str, answer, count: int, each: int, label: str) -> tuple[list[tuple], list[bytes]]:
    """Sessions whose writes go as one batch, and what each sends in a turn.

    What the answers here fit is a batch. On a busy machine parsers may have used their time when the engine wants to
    know what the table is like; then writes go alone, and another engine is tried.
    """
    messages = insert(protocol, HINT, count=1000).messages
    chunks = [b"".join(messages[i * each % 1000:i * each % 1000 + each]) for i in range(count)]
    last = time.monotonic() + SETTLING
    while time.monotonic() < last:
        hooks = _Hooks()
        sessions = _sessions(hooks, protocol, count)
        for _ in range(3):                      # the catalogue is asked, buffers settle
            hooks.engine.tick(time.monotonic())
            _turn(sessions, chunks, answer, count * each)
            for session, _ in sessions:
                session.take_out()
        if {session.last_batch_size for session, _ in sessions} == {count * each}:
            return sessions, chunks
    raise TqdbError(f"engine: {protocol}, {label}: the writes of a turn did not go as one batch")


def run(seconds: float, step) -> list[dict]:
    """Both protocols, with writes in a row and one by one: objects as ``measure.result`` makes them."""
    results = []
    for protocol, answer in (("postgres", _pg_answer), ("mariadb", _my_answer)):
        for count, each in SHAPES:
            label = f"{count:,} sessions, {each} writes in a row"
            step(f"engine: {protocol}, {label}", 1)
            sessions, chunks = _settled(protocol, answer, count, each, label)
            writes = count * each
            used, turns, end = 0.0, 0, time.perf_counter() + seconds
            while time.perf_counter() < end:
                used += _turn(sessions, chunks, answer, writes)
                for session, _ in sessions:
                    session.take_out()
                turns += 1
            done = turns * writes
            per_second = done / used
            results.append({
                "scenario": "engine", "label": label, "database": protocol, "path": "engine", "target_per_s": None,
                "writes_per_s": round(per_second, 1), "reached": None, "p50_ms": 0.0, "p95_ms": 0.0, "p99_ms": 0.0,
                "avg_batch": float(writes), "aggregation_factor": float(writes),
                "cpu_us_per_write": {"proxy": round(used / done * 1e6, 3)}, "cores": {"proxy": 1.0},
                "busiest": "proxy (1.00 cores)", "memory_mib": {}, "connections": count, "depth": each,
                "commit_ms": 0.0, "at": "", "rounds": [round(per_second, 1)]})
    return results
