"""A primary goes under load, its standby is promoted: a few rounds of ``tests.failover`` (``make test-failover``)."""

import random

from tests.failover.rounds import KINDS, UNMONITORED, Play


def test_every_write_is_accounted_for():
    seed = random.getrandbits(32)
    print(f"python -m tests.failover --rounds {len(KINDS)} --seed {seed}")
    with Play(seed) as play:
        tally = play.rounds(len(KINDS), print)
    assert tally.wrong == 0, tally
    assert tally.acknowledged and tally.unknown and tally.batched


def test_without_a_monitor():
    """What sessions meet is enough where the primary goes."""
    with Play(random.getrandbits(32), UNMONITORED) as play:
        tally = play.rounds(2, print, ("crash", "shut down"))
    assert tally.wrong == 0, tally
    assert tally.acknowledged and tally.batched
