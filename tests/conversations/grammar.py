"""What both protocols' grammars share: a seeded choice of kinds, keys, values and hints, and how steps are sent.

A plan uses a random part of its protocol's kinds of steps and a few hints (swarm testing: a rare pair of kinds then
meets often in some plan), and writes of few shapes, so that its sessions find each other in batches.
"""

import random

from tests.conversations.plan import Plan, Session

HINTS = (
    "/* max_wait_ms:1 */ {}", "/* max_wait_ms:5 file:conv.py line:1 */ {}", "/* max_wait_ms=20 */ {}",
    "/* max_wait_ms:auto */ {}", "{} /*file='conv.py',line='7',max_wait_ms='5'*/", "-- max_wait_ms:5\n{}",
    "/* max_wait_ms:5 */ /* other */ {}", "/* max_wait_ms:100 */ {}",
)
WORDS = ("x", "", "Grüße 漢字 🙂", "it's", "back\\slash", "two\nlines", "; SELECT 1", "/* max_wait_ms:5 */", "y" * 300)
KEYS = 60           # a session's rows have keys 1000 k + 1 and up, so many at most


class Grammar:
    """One session's steps. A subclass has a method for each kind; ``KINDS`` gives their weights."""

    KINDS: dict[str, int] = {}
    ALWAYS: tuple[str, ...] = ()
    RARE = ("ddl", "temporary")     # in fewer plans: what is known of tables is asked again behind them

    def __init__(self, rng: random.Random, key: int, kinds: list[str], hints: list[str], shapes: list[int],
                 wrong: float, textual: float):
        """``wrong``: the share of keys and values that are; ``textual``: of hinted writes that are text."""
        self.rng = rng
        self.wrong = wrong
        self.textual = textual
        self.key = key
        self.base = 1000 * key
        self.kinds = kinds
        self.hints = hints
        self.shapes = shapes
        self.fresh = 0

    def id(self) -> int:
        """A key of the session's own, mostly one that was not used yet."""
        if self.fresh and self.chance(self.wrong):
            return self.base + self.rng.randint(1, self.fresh)
        self.fresh = self.fresh % KEYS + 1
        return self.base + self.fresh

    def number(self) -> int | str | None:
        """A value for a column that is not null and below 1000."""
        return self.rng.choice((1000, None, "abc")) if self.chance(self.wrong / 2) else self.rng.randint(-5, 999)

    def word(self) -> str | None:
        return None if self.chance(0.1) else self.rng.choice(WORDS)

    def hint(self, sql: str) -> str:
        return self.rng.choice(self.hints).format(sql)

    def maybe_hint(self, sql: str) -> str:
        return self.hint(sql) if self.chance(0.5) else sql

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def steps(self, count: int) -> list[dict]:
        weights = [self.KINDS[kind] for kind in self.kinds]
        out: list[dict] = []
        while len(out) < count:
            out += getattr(self, self.rng.choices(self.kinds, weights)[0])()
        return out


def sent(rng: random.Random, steps: list[dict], ahead: float, cut: float) -> list[dict]:
    """The steps with how they are sent: a share ``ahead`` does not wait for answers, a share ``cut`` is divided."""
    for step in steps:
        if rng.random() < ahead:
            step["then"] = "join" if rng.random() < 0.8 else "send"
        if step.get("then") != "join" and rng.random() < cut:
            step["cuts"] = [rng.randint(1, 5000) for _ in range(rng.randint(1, 3))]
    return steps


def make(protocol: str, grammar: type[Grammar], seed: int, batch_size: int, options: list[dict],
         without: set[str] | frozenset = frozenset()) -> Plan:
    """A plan of 1 to 12 sessions, most with the same of ``options``; the same for the same arguments."""
    rng = random.Random(f"{protocol} {seed}")
    optional = [kind for kind in grammar.KINDS if kind not in grammar.ALWAYS]
    share = rng.choice((0.05, 0.15, 0.3, 0.6, 1))
    kinds = [*grammar.ALWAYS, *(kind for kind in optional if kind not in without and
                                rng.random() < (share / 5 if kind in grammar.RARE else share))]
    hints = rng.sample(HINTS, rng.choice((1, 1, 2, 4)))
    shapes = rng.sample(range(1000), rng.choice((1, 1, 2, 3, 8)))
    ahead, cut = rng.choice((0, 0.3, 0.7, 1)), rng.choice((0, 0, 0.3))
    wrong, textual = rng.choice((0, 0.02, 0.02, 0.2)), rng.choice((0, 0.5, 1))
    length = rng.choice((4, 10, 25))
    option = rng.choice(options)
    sessions = []
    for key in range(1, rng.choice((1, 2, 3, 6, 8, 8, 12)) + 1):
        steps = grammar(rng, key, kinds, hints, shapes, wrong, textual).steps(rng.randint(2, length))
        own = option if rng.random() < 0.9 else rng.choice(options)
        sessions.append(Session(key, sent(rng, steps, ahead, cut), own))
    return Plan(protocol, seed, batch_size, rng.choice(("threads", "rounds", "rounds", "turns")), sessions)
