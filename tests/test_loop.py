"""The loop goes on whatever its callers raise, tells it, and measures its turns."""

import socket
import time
from selectors import EVENT_READ

import pytest
from tqdb._core import Stats

from tqdb.loop import TURN_BOUNDS, Loop


@pytest.fixture
def loop():
    made = Loop()
    made.told = []
    made.failed = lambda place, error: made.told.append((place, type(error).__name__))
    yield made
    made.close()


def fail(*_):
    raise KeyError("x")


def test_nothing_that_is_raised_ends_it(loop):
    ours, theirs = socket.socketpair()
    heard = []

    def hear(mask):
        heard.append(ours.recv(1))
        fail()

    loop.watch(ours, EVENT_READ, hear)
    theirs.send(b"abc")
    loop.call_later(0, fail)
    loop.deadline = fail
    loop.tick = fail
    loop.call_later(0.01, lambda: loop.stop() if len(heard) == 3 else loop.call_later(0.01, loop.stop))
    loop.run()
    assert heard == [b"a", b"b", b"c"]
    assert {place for place, _ in loop.told} == {"handler", "timer", "tick", "deadline"}
    assert {kind for _, kind in loop.told} == {"KeyError"}
    ours.close()
    theirs.close()


def test_turns_are_measured_without_their_sleep(loop):
    def work(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass

    loop.call_later(0.02, lambda: work(0.06))
    loop.call_later(0.3, loop.stop)
    began = time.monotonic()
    loop.run()
    took = time.monotonic() - began
    assert 0.06 <= loop.longest <= loop.turn_seconds <= took - 0.1 and sum(loop.turns) >= 2
    assert len(loop.turns) == len(TURN_BOUNDS) + 1
    # the longest is in its bucket, and nothing above it
    above = next(i for i, bound in enumerate((*TURN_BOUNDS, float("inf"))) if loop.longest <= bound)
    assert loop.turns[above] >= 1 and not any(loop.turns[above + 1:])


def test_internal_errors_have_a_bounded_number_of_places():
    stats = Stats()
    for n in range(1000):
        stats.count_internal(f"place {n}")
    stats.count_internal("place 0")
    assert len(stats.internal_errors) == 64 and stats.internal_errors["place 0"] == 2
    assert sum(stats.internal_errors.values()) == 1001
