"""What was told about each write, against what the database holds.

acknowledged    its answer was a success: it is there exactly once
refused         its answer was an error that is no lost connection: it is not there
unknown         the connection was lost before its answer: it is there once or not at all
"""

from collections import Counter
from dataclasses import dataclass, field, fields


@dataclass
class Book:
    """Of one client, or of all: keys by what was told about them."""

    acknowledged: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)        # answers that no write gets
    words: Counter = field(default_factory=Counter)     # of errors, by code

    def told(self) -> int:
        return len(self.acknowledged) + len(self.refused) + len(self.unknown)

    def add(self, other: "Book") -> None:
        for name in ("acknowledged", "refused", "unknown", "odd"):
            getattr(self, name).extend(getattr(other, name))
        self.words.update(other.words)


@dataclass
class Tally:
    """Numbers of writes; ``wrong`` is what must be 0."""

    rounds: int = 0
    writes: int = 0
    acknowledged: int = 0
    unknown: int = 0
    refused: int = 0
    lost: int = 0
    twice: int = 0
    refused_but_written: int = 0
    never_sent: int = 0         # rows that nobody wrote
    odd_answers: int = 0
    batched: int = 0            # as the proxies that lived to the end of their round tell
    mixed: int = 0              # … statements that left with one of another shape

    def add(self, other: "Tally") -> None:
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))

    @property
    def wrong(self) -> int:
        return self.lost + self.twice + self.refused_but_written + self.never_sent + self.odd_answers

    def __str__(self) -> str:
        return ", ".join(f"{f.name.replace('_', ' ')} {getattr(self, f.name):,}" for f in fields(self))


def account(book: Book, stored: list[int]) -> Tally:
    """``stored``: the keys in the table, as often as they are there."""
    there = Counter(stored)
    sent = {*book.acknowledged, *book.refused, *book.unknown}
    assert len(sent) == book.told(), "a key was used twice: the ledger itself is wrong"
    return Tally(
        rounds=1, writes=book.told(), acknowledged=len(book.acknowledged), unknown=len(book.unknown),
        refused=len(book.refused), lost=sum(k not in there for k in book.acknowledged),
        twice=sum(count > 1 for count in there.values()),
        refused_but_written=sum(k in there for k in book.refused), never_sent=sum(k not in sent for k in there),
        odd_answers=len(book.odd))
