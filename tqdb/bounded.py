"""The one way to run a parser, a regular expression or Python over text that a client sent: bounded and measured.

The loop serves everybody, so what one text may cost is bounded before it is looked at: by its size, by what it would
make a parser do (``tokens``), and by the time that all parsers together may take. Regular expressions are linear by
construction (``tests/test_bounded.py``), so that for them a size is enough.

What a parser takes for a token depends on the machine: sqlglot was seen to take 5 µs on one and 22 µs on another,
libpg_query with its tree in Python 2 and 9 µs. So it is measured at the start (``Pace``). The regular expressions take
1 to 130 ns for a byte.
"""

import re
from time import perf_counter, process_time

MAX_BYTES = 16384           # of a statement that is looked at by more than the scanner
CALL_SECONDS = 0.03         # that one call of a parser may take …
MAX_WORK = 4200             # … and the work that it is given on any machine
MIN_WORK = 600              # … and on the slowest
LIST_SLACK = 20             # tokens around a list
BURST_SECONDS = 0.02        # that parsers may take at once; with one call more still far below a tenth of a second
SHARE = 0.1                 # of the loop's time that they may take in the long run

# A string, a word or number, any other character. Comments count as what is in them.
_TOKEN = re.compile(rb"'(?:[^'\\]++|''|\\.)*+'?+|[\w$.\x80-\xff]++|\S", re.DOTALL)


class Pace:
    """The work that a parser may be given in one call, as fast as it is on this machine.

    ``nested``: what a token makes that is not one of a mere list, but an operator's or a call's.
    """

    def __init__(self, nested: int):
        self.nested = nested
        self.most = MAX_WORK

    def work(self, text: bytes) -> int:
        """What ``text`` would make the parser do, about: 1 for each token of a list with commas."""
        found = _TOKEN.findall(text)
        return len(found) + (self.nested - 1) * max(0, len(found) - 2 * found.count(b",") - LIST_SLACK)

    def takes(self, *texts: bytes) -> bool:
        """Whether it may be given all of them in one call."""
        return sum(map(self.work, texts)) <= self.most

    def measure(self, size: int, parse) -> None:
        """``parse()`` does work of ``size``. The quickest of three: others may have the machine."""
        quickest = min(_seconds(parse) for _ in range(3))
        self.most = max(MIN_WORK, min(MAX_WORK, int(size * CALL_SECONDS / max(quickest, 1e-6))))


def _seconds(call) -> float:
    began = process_time()
    call()
    return process_time() - began


# libpg_query's trees become objects of Python one by one; sqlglot's time goes into each token alike
POSTGRES_PACE = Pace(nested=3)
MARIADB_PACE = Pace(nested=1)
PACES = (POSTGRES_PACE, MARIADB_PACE)       # by dialect


class Budget:
    """Seconds that may be spent: ``burst`` at once, ``share`` of the time in the long run.

    What is begun ends, so the last call may leave a debt. It is never more than another ``burst``: a process that the
    machine let wait in the middle of a call has not worked all that time.
    """

    def __init__(self, burst: float, share: float, clock=perf_counter):
        self.burst = burst
        self.share = share
        self.clock = clock
        self.left = burst
        self.at = clock()

    def open(self) -> bool:
        """Whether something may be begun now."""
        now = self.clock()
        self.left = min(self.burst, self.left + (now - self.at) * self.share)
        self.at = now
        return self.left > 0

    def spend(self, seconds: float) -> None:
        self.left = max(-self.burst, self.left - seconds)


class Purpose:
    """What text is looked at for, with its bounds and what was measured: numbers of calls, seconds."""

    def __init__(self, name: str, max_bytes: int = MAX_BYTES, budget: Budget | None = None):
        self.name = name
        self.max_bytes = max_bytes
        self.budget = budget
        self.calls = 0              # that were made
        self.too_long = 0           # refused for size
        self.over_budget = 0        # refused because the budget was used up
        self.seconds = 0.0
        self.longest = 0.0


def bounded(purpose: Purpose, size: int, work, *args):
    """``work(*args)`` on ``size`` bytes of a client's text; ``NotImplemented``: not now, it was not looked at."""
    if size > purpose.max_bytes:
        purpose.too_long += 1
        return NotImplemented
    if purpose.budget is not None and not purpose.budget.open():
        purpose.over_budget += 1
        return NotImplemented
    began = perf_counter()
    try:
        return work(*args)
    finally:
        seconds = perf_counter() - began
        purpose.calls += 1
        purpose.seconds += seconds
        if seconds > purpose.longest:
            purpose.longest = seconds
        if purpose.budget is not None:
            purpose.budget.spend(seconds)
