"""The event loop: sockets by ``selectors``, a timer heap, and a hook before sleeping. It knows no protocol.

It always goes on: what a handler, a timer or a hook raises is told to ``failed``. It measures its own turns, as plain
numbers that somebody else shows.
"""

import heapq
import itertools
import os
import selectors
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable

from tqdb.log import internal_error

MAX_SLEEP = 1.0     # seconds; so that /healthz can tell a turning loop from a stuck one
TURN_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)     # seconds


class Timer:
    """A call to come; ``cancel`` makes it not happen."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]):
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    """One thread's loop. ``deadline()`` gives the next moment the hook wants to run, ``tick(now)`` runs it.

    A turn is what lies between two sleeps: ``turns`` counts them by ``TURN_BOUNDS`` (and above), ``turn_seconds`` is
    their sum; ``longest`` is the longest one since somebody last set it to 0.
    """

    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.running = False
        self.turned = time.monotonic()
        self._timers: list[tuple[float, int, Timer]] = []
        self._serial = itertools.count()
        self._calls: deque[Callable[[], None]] = deque()    # of other threads
        self._lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.selector.register(self._wake, selectors.EVENT_READ, self._run_calls)
        self.deadline: Callable[[], float | None] = lambda: None
        self.tick: Callable[[float], None] = lambda now: None
        self.failed: Callable[[str, BaseException], None] = internal_error
        self.turns = [0] * (len(TURN_BOUNDS) + 1)
        self.turn_seconds = 0.0
        self.longest = 0.0

    # Streams of the core (``fd``, ``on_io(mask)``) register here.

    def set_interest(self, stream, mask: int, new: bool) -> None:
        """Watches a stream's descriptor for ``mask``; 0 leaves it registered nowhere."""
        if mask == 0:
            self.forget(stream)
            return
        if not new:
            try:
                self.selector.modify(stream.fd, mask, stream.on_io)
                return
            except KeyError:
                pass
        self.selector.register(stream.fd, mask, stream.on_io)

    def forget(self, stream) -> None:
        try:
            self.selector.unregister(stream.fd)
        except KeyError:
            pass

    # Plain sockets of the cold side.

    def watch(self, sock, mask: int, call: Callable[[int], None]) -> None:
        """Calls ``call(mask)`` whenever ``sock`` is ready for one of ``mask``."""
        try:
            self.selector.modify(sock, mask, call)
        except KeyError:
            self.selector.register(sock, mask, call)

    def unwatch(self, sock) -> None:
        try:
            self.selector.unregister(sock)
        except (KeyError, ValueError):
            pass

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._serial), timer))
        return timer

    def call_from_thread(self, call: Callable[[], None]) -> None:
        """Runs ``call`` in the loop's next turn: the one method for other threads. Each may have few under way."""
        with self._lock:            # the descriptor may be somebody else's once the loop is closed
            if self._wake >= 0:
                self._calls.append(call)
                os.eventfd_write(self._wake, 1)

    def _run_calls(self, mask: int) -> None:
        os.eventfd_read(self._wake)
        for _ in range(len(self._calls)):
            try:
                self._calls.popleft()()
            except Exception as e:
                self.failed("call", e)

    def _timeout(self) -> float:
        """Seconds that the loop may sleep."""
        try:
            wake = self.deadline()
        except Exception as e:
            self.failed("deadline", e)
            wake = None
        if self._timers and (wake is None or self._timers[0][0] < wake):
            wake = self._timers[0][0]
        if wake is None:
            return MAX_SLEEP
        return min(MAX_SLEEP, max(0.0, wake - time.monotonic()))

    def _run_timers(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            call = heapq.heappop(self._timers)[2].call
            if call is not None:
                try:
                    call()
                except Exception as e:
                    self.failed("timer", e)

    def _measure(self, seconds: float) -> None:
        self.turns[bisect_left(TURN_BOUNDS, seconds)] += 1
        self.turn_seconds += seconds
        if seconds > self.longest:
            self.longest = seconds

    def run(self) -> None:
        """Turns until ``stop``."""
        self.running = True
        select = self.selector.select
        monotonic = time.monotonic
        timeout = self._timeout()
        while self.running:
            ready = select(timeout)
            began = monotonic()
            for key, mask in ready:
                try:
                    key.data(mask)
                except Exception as e:
                    self.failed("handler", e)
            now = self.turned = monotonic()
            self._run_timers(now)
            try:
                self.tick(now)
            except Exception as e:
                self.failed("tick", e)
            timeout = self._timeout()
            self._measure(monotonic() - began)

    def stop(self) -> None:
        self.running = False

    def close(self) -> None:
        with self._lock:
            os.close(self._wake)
            self._wake = -1
            self._calls.clear()
        self.selector.close()
