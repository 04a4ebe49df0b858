"""Recorded patterns of arrivals, played to the core on a clock of their own: what is foretold of them, and what is so.

Servers are models that answer after a time; nothing sleeps, so that a pattern is the same in every run.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.test_awaited import Crowd
from tests.wire import pg_query

WRITES = 3000           # of a pattern that are looked at
WARM = 300              # before them


@dataclass(frozen=True)
class Pattern:
    """``times(rng)`` gives ``(moment, session)`` of an open pattern; else sessions write ``think(rng)`` after answers.

    ``shapes``: how many tables they write to; ``answer(rng)``: seconds that a server takes for a write or a commit.
    """

    sessions: int
    think: Callable | None = None
    times: Callable | None = None
    shapes: int = 1
    answer: Callable = lambda rng: rng.uniform(0.0006, 0.0012)


def poisson(rate: float, sessions: int):
    """Whoever is free writes; ``rate`` a second."""
    def times(rng):
        now = 0.0
        while True:
            now += rng.expovariate(rate)
            yield now, rng.randrange(sessions)
    return times


def bursts(every: float, size: tuple[int, int], length: float, sessions: int, regular: bool):
    """Bursts of ``size`` writes within ``length`` seconds, one ``every`` seconds, on the clock or at random."""
    def times(rng):
        start = 0.0
        while True:
            start += every if regular else length + rng.expovariate(1 / every)
            who = rng.sample(range(sessions), rng.randint(*size))
            yield from sorted((start + rng.uniform(0, length), i) for i in who)
    return times


def by_turns(rate: float, on: float, off: float, sessions: int):
    """Busy for ``on`` seconds, then silent for ``off``."""
    def times(rng):
        busy = 0.0
        while True:
            busy += rng.expovariate(rate)
            yield busy + off * int(busy / on), rng.randrange(sessions)
    return times


def exponential(mean: float):
    return lambda rng: rng.expovariate(1 / mean)


PATTERNS = {
    "poisson, 2000/s": Pattern(64, times=poisson(2000, 64)),
    "poisson, 300/s": Pattern(64, times=poisson(300, 64)),
    "poisson, 40/s": Pattern(16, times=poisson(40, 16)),
    "poisson, 5 shapes": Pattern(64, times=poisson(1000, 64), shapes=5),
    "bursts by the clock": Pattern(40, times=bursts(0.1, (20, 20), 0.002, 40, True)),
    "bursts at random": Pattern(40, times=bursts(0.05, (3, 15), 0.005, 40, False)),
    "by turns": Pattern(32, times=by_turns(1500, 0.4, 0.6, 32)),
    "closed loop": Pattern(16, think=lambda rng: rng.uniform(0.0001, 0.0003)),
    "closed loop, thinking 5 ms": Pattern(16, think=exponential(0.005)),
    "closed loop, thinking 60 ms": Pattern(64, think=exponential(0.06)),
    "closed loop, 11 shapes": Pattern(24, think=lambda rng: rng.uniform(0.0001, 0.0003), shapes=11),
    "closed loop, slow commits": Pattern(32, think=exponential(0.001), answer=lambda rng: rng.uniform(0.003, 0.006)),
    "one session": Pattern(1, think=exponential(0.001)),
}


class Played(Crowd):
    """A pattern that is played; ``wait_ms`` None: its writes carry no hint."""

    def __init__(self, pattern: Pattern, wait_ms: int | None, seed: int):
        super().__init__(pattern.sessions)
        self.pattern = pattern
        self.rng = random.Random(seed)
        self.served = random.Random(seed + 1)
        self.hint = b"" if wait_ms is None else b" /* max_wait_ms:%d */" % wait_ms
        self.events: list = []
        self.serial = 0
        self.writes = 0
        self.busy = [False] * pattern.sessions
        self.late: list[list[bytes]] = [[] for _ in range(pattern.sessions)]     # of an open pattern, for busy sessions
        self.serving: set[int] = set()
        self.times = pattern.times and pattern.times(self.rng)
        for i in range(pattern.sessions):
            if pattern.think:
                self.at(self.now + pattern.think(self.rng), self.writes_now, i)
        if self.times:
            self.next_arrival()

    def at(self, moment: float, what, *args) -> None:
        self.serial += 1
        heapq.heappush(self.events, (moment, self.serial, what, args))

    def next_arrival(self) -> None:
        moment, i = next(self.times)
        self.at(1000.0 + moment, self.arrives, i)

    def arrives(self, i: int) -> None:
        self.next_arrival()
        self.writes_now(i)

    def writes_now(self, i: int) -> None:
        text = pg_query(b"INSERT INTO t%d (a) VALUES (1)" % self.rng.randrange(self.pattern.shapes) + self.hint)
        if self.busy[i]:
            self.late[i].append(text)
            return
        self.busy[i] = True
        self.writes += 1
        self.members[i][0].receive(text)

    def answers(self, i: int) -> None:
        self.serving.discard(i)
        self.serve_one(i)

    def look(self) -> None:
        """What has changed: servers have work, sessions have their answers."""
        self.settle()
        for i, data in enumerate(self.unanswered):
            if data and i not in self.serving:
                self.serving.add(i)
                self.at(self.now + self.pattern.answer(self.served), self.answers, i)
        for i in self.answered():
            self.busy[i] = False
            if self.late[i]:
                self.busy[i] = True
                self.writes += 1
                self.members[i][0].receive(self.late[i].pop(0))
                self.settle()
            elif self.pattern.think:
                self.at(self.now + self.pattern.think(self.rng), self.writes_now, i)

    def play(self, writes: int) -> None:
        """Until so many more were sent."""
        until = self.writes + writes
        while self.writes < until:
            due = self.engine.next_deadline()
            if due is not None and due <= self.events[0][0]:
                self.now = max(self.now, due)
                self.engine.tick(self.now)
            else:
                self.now, _, what, args = heapq.heappop(self.events)
                self.engine.tick(self.now)
                what(*args)
            self.look()

    def operations(self) -> int:
        return self.engine.stats.totals()["backend_writes"]["insert"]

    def entries(self) -> list[dict]:
        watch = self.engine.watch
        return [watch.entry(slot, self.now) for slot in watch.ranking()]


def foretold(pattern: Pattern, seed: int) -> dict[int, float]:
    """By window in ms, the share of operations that advice says it would save."""
    played = Played(pattern, None, seed)
    played.play(WARM)
    before = played.entries()
    played.play(WRITES)
    after = played.entries()
    shares = {}
    for w, window in enumerate((1, 10, 50)):
        saved = sum(e["windows"][w]["saved"] for e in after) - sum(e["windows"][w]["saved"] for e in before)
        shares[window] = saved / (sum(e["writes"] for e in after) - sum(e["writes"] for e in before))
    return shares


def measured(pattern: Pattern, wait_ms: int, seed: int) -> float:
    """The share of operations that hints of ``wait_ms`` save."""
    played = Played(pattern, wait_ms, seed)
    played.play(WARM)
    operations, writes = played.operations(), played.writes
    played.play(WRITES)
    return 1 - (played.operations() - operations) / (played.writes - writes)
