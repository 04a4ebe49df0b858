"""Server, connections and proxy die under load: a few rounds of ``tests.ledger`` (``make test-ledger`` for many)."""

import random

import pytest

from tests.ledger.book import Book, account
from tests.ledger.rounds import Play

ROUNDS = 6              # each kind of great kill twice
WRITES = 2500           # of each round


def test_the_account_finds_what_is_wrong():
    book = Book(acknowledged=[1, 2, 3], refused=[4, 5], unknown=[6, 7])
    assert account(book, [1, 2, 3, 6]).wrong == 0
    for stored, name in (([1, 2], "lost"), ([1, 1, 2, 3], "twice"), ([1, 2, 3, 6, 6], "twice"),
                         ([1, 2, 3, 4], "refused_but_written"), ([1, 2, 3, 8], "never_sent")):
        tally = account(book, stored)
        assert getattr(tally, name) == tally.wrong == 1


@pytest.mark.parametrize("protocol", ["postgres", "mariadb"])
def test_every_write_is_accounted_for(protocol):
    seed = random.getrandbits(32)
    print(f"python -m tests.ledger --protocol {protocol} --rounds {ROUNDS} --writes {WRITES} --seed {seed}")
    with Play(protocol, seed, writes=WRITES) as play:
        tally = play.rounds(ROUNDS, print)
    assert tally.wrong == 0, tally
    assert tally.acknowledged and tally.unknown and tally.refused and tally.batched and tally.mixed
