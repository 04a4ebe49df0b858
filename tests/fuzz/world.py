"""Sessions on one engine with scripted servers, and what must hold for whatever is done to them."""

import logging

from tqdb._core import MySession, PgSession

from tests.fuzz.peers import MyPeer, PgPeer
from tests.model.talk import FLUSH, SYNC
from tests.sansio import Hooks
from tests.wire import GREETING, HANDSHAKE, PG_LOGIN, STARTUP, my, my_ok, my_split, pg, pg_split

FED = 200               # bytes put out for each byte put in, at most: a split batch is sent log2(n) times
FIXED = 1 << 18
TURNS = 3000            # answers until everything is quiet
CATALOGUE = "unexpected catalogue answer"      # a server may say anything; it is logged and not believed
PATIENCE = 4000         # times that a window passes: a client may have sent so many writes ahead of unlike shapes
HINTS = (b"max_wait", b"batch")
NOT_RELAYED = (b"kill", b"last_insert_id", b"identity", b"row_count", b"warnings")   # what the proxy answers to


class InternalErrors(logging.Handler):
    """The core catches its own exceptions and logs them: each is a finding."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if (record.exc_info or said.startswith("internal error")) and said != CATALOGUE:
            self.seen.append(logging.Formatter().format(record))


INTERNAL = InternalErrors()
logging.getLogger("tqdb").addHandler(INTERNAL)


class Line:
    """One client with its server connection: what was fed to each end, and what came out."""

    def __init__(self, world: "World"):
        self.world = world
        self.session = (PgSession if world.postgres else MySession)(world.hooks.engine)
        self.peer = PgPeer() if world.postgres else MyPeer()
        self.said = {"client": b"", "server": b""}        # fed, by whom
        self.told = {"client": b"", "server": b""}        # put out, to whom
        self.ended: set[str] = set()
        self.server = None
        if not world.postgres:
            self.session.connect()
            self.server = world.hooks.server

    def log_in(self) -> None:
        """The beginning is not fuzzed, and not part of what is compared."""
        if self.world.postgres:
            self.session.receive(STARTUP)
            self.server = self.world.hooks.server
            self.server.receive(PG_LOGIN)
        else:
            self.server.receive(my(0, GREETING))
            self.session.receive(my(1, HANDSHAKE))
            self.server.receive(my_ok(seq=2))
        self.session.take_out()
        self.server.take_out()

    def feed(self, who: str, data: bytes) -> None:
        if who in self.ended or not data:
            return
        self.said[who] += data
        end = self.session if who == "client" else self.server
        size = self.world.piece or len(data)
        for at in range(0, len(data), size):
            if end is None or end.closed:
                return
            end.receive(data[at:at + size])
            self.world.collect()

    def end(self, who: str) -> None:
        end = self.session if who == "client" else self.server
        if who not in self.ended and end is not None and not end.closed:
            self.ended.add(who)
            end.receive_eof()
            self.world.collect()

    def collect(self) -> None:
        if self.server is None:
            self.server = self.world.server_of(self)
        self.told["client"] += self._sent(self.session)
        if self.server is not None:
            data = self._sent(self.server)
            self.told["server"] += data
            self.peer.feed(data)

    @staticmethod
    def _sent(end) -> bytes:
        """What the end's stream would send; as a stream does, it closes what is to be closed once all is sent."""
        data = end.take_out()
        if end.closing and not end.closed:
            end.abort()
        return data


class World:
    """``lines`` of one protocol; every feed is followed by the checks that hold at any moment."""

    def __init__(self, protocol: str, **options):
        self.postgres = protocol == "postgres"
        self.hooks = Hooks(**options)
        self.now = 1000.0
        self.piece = 0
        self.lines: list[Line] = []
        self.garbage = False        # a server said what no server says
        INTERNAL.seen.clear()
        self.tick(0)

    def add(self) -> Line:
        line = Line(self)
        line.log_in()
        self.lines.append(line)
        return line

    def server_of(self, line: Line):
        return self.hooks.server if line is self.lines[-1] else None

    def tick(self, milliseconds: float) -> None:
        self.now += milliseconds / 1000
        self.hooks.engine.now = self.now
        self.hooks.engine.tick(self.now)
        self.collect()

    def collect(self) -> None:
        for line in self.lines:
            line.collect()
        assert not INTERNAL.seen, INTERNAL.seen[0]

    def answer(self, line: Line, fail: bool = False) -> None:
        """The line's server answers the next message before it."""
        if line.peer.inbox and "server" not in line.ended:
            data = line.peer.answer(fail)
            line.feed("server", data)

    def settle(self) -> None:
        """All servers answer until nothing lies before any of them."""
        for _ in range(TURNS):
            busy = [line for line in self.lines if line.peer.inbox and "server" not in line.ended]
            if not busy:
                return
            for line in busy:
                self.answer(line)
        raise AssertionError("the servers are asked for ever")

    def finish(self) -> None:
        """Time passes, servers answer, everybody goes: nothing may be left over. Then the account is made up."""
        truthful = not self.garbage and not any("server" in line.ended for line in self.lines)
        for turn in range(PATIENCE):
            self.settle()
            self.tick(5000)
            waiting = any(line.session.waits and not line.session.closed for line in self.lines)
            if turn > 1 and not (waiting and truthful):
                break
        else:
            raise AssertionError("a write waits though every server answers")
        for line in self.lines:
            line.end("client")
        self.settle()
        for line in self.lines:
            line.end("server")
        self.tick(100_000)
        engine = self.hooks.engine
        assert engine.gathered == 0, "writes are still gathered though nobody is there"
        assert engine.batches_running == 0, "a batch is under way though nobody is there"
        said = sum(len(data) for line in self.lines for data in line.said.values())
        told = sum(len(data) for line in self.lines for data in line.told.values())
        assert told <= FIXED + FED * said, f"{told} bytes out for {said} in"
        texts = b"".join(line.said["client"] for line in self.lines).lower()
        for line in self.lines:
            self.check_frames(line)
            if not any(word in texts for word in HINTS + NOT_RELAYED):
                self.check_order(line)

    def check_frames(self, line: Line) -> None:
        """What is put out are whole messages; only what is relayed may break off, where its sender did."""
        split = pg_split if self.postgres else my_split
        for to, by in (("client", "server"), ("server", "client")):
            rest = split(line.told[to])[1]
            assert not rest or line.said[by].endswith(rest) or rest in line.said[by], f"to the {to}: {rest[:80]!r}"

    def check_order(self, line: Line) -> None:
        """Nothing hinted: each end got the other's bytes, then at most words of the proxy's about the end."""
        for to, by in (("client", "server"), ("server", "client")):
            told, said = line.told[to], line.said[by]
            if self.postgres and to == "server":
                told = told.replace(FLUSH + SYNC, SYNC)     # behind what may copy the proxy asks for the answer first
                said = said.replace(FLUSH + SYNC, SYNC)
            if said.startswith(told):
                continue
            whole = (pg_split if self.postgres else my_split)(told)[0]
            assert whole, f"to the {to}: {told[:80]!r}"
            kind, body = whole[-1]
            message = pg(kind, body) if self.postgres else my(kind, body)
            if self.postgres:
                own = message == pg(b"X") if to == "server" else kind == b"E" and b"FATAL" in body
            else:
                own = body == b"\1" if to == "server" else body[:1] == b"\xff"
            told = told[:-len(message)]
            if self.postgres and to == "server" and not said.startswith(told):
                told = told.removesuffix(FLUSH)             # … and may go before it has it
            assert own and said.startswith(told), f"to the {to}: {message[:80]!r}"
