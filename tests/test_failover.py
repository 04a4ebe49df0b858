"""A primary goes under load, its standby is promoted: a few rounds of ``tests.failover`` (``make test-failover``)."""

import random

from tests.failover.rounds import KINDS, Play


def test_every_write_is_accounted_for():
    seed = random.getrandbits(32)
    print(f"python -m tests.failover --rounds {len(KINDS)} --seed {seed}")
    with Play(seed) as play:
        tally = play.rounds(len(KINDS), print)
    assert tally.wrong == 0, tally
    assert tally.acknowledged and tally.unknown and tally.batched
