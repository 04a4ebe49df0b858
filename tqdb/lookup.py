"""Names into addresses: at once where that cannot block, otherwise in a thread of its own."""

import queue
import socket
import threading
from collections.abc import Callable

from tqdb.errors import TqdbError
from tqdb.loop import Loop
from tqdb.values import Address

MAX_THREADS = 4             # a name server that does not answer holds up one name, not all
MAX_ADDRESSES = 16          # of a name

Candidates = list[tuple[int, object]]       # (family, sockaddr), in the order in which they are tried


def _candidates(found) -> Candidates:
    return [(family, sockaddr) for family, _, _, _, sockaddr in found[:MAX_ADDRESSES]]


def at_once(address: Address) -> Candidates | None:
    """The candidates of a Unix socket or of an address in digits; None for a name."""
    if address.unix:
        return [(socket.AF_UNIX, address.host)]
    try:
        return _candidates(socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM,
                                              flags=socket.AI_NUMERICHOST))
    except OSError:
        return None


def resolve(address: Address, find: Callable = socket.getaddrinfo) -> Candidates:
    """The candidates of any address; TqdbError if the name cannot be told. It may block: not for the loop."""
    known = at_once(address)
    if known is not None:
        return known
    try:
        return _candidates(find(address.host, address.port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as e:
        raise TqdbError(f"{address}: {getattr(e, 'strerror', None) or e}") from None


class Lookups:
    """Looks names up in threads; ``find`` is ``socket.getaddrinfo``, or a stand-in of its kind."""

    def __init__(self, loop: Loop, find: Callable = socket.getaddrinfo):
        self.loop = loop
        self.find = find
        self.asked: queue.SimpleQueue = queue.SimpleQueue()
        self.under_way: set[Address] = set()
        self.threads = 0

    def ask(self, address: Address, done: Callable[[Candidates, str], None]) -> None:
        """``done(candidates, error)`` in the loop; not while an earlier question for ``address`` is under way."""
        if address in self.under_way:
            return
        self.under_way.add(address)
        self.asked.put((address, done))
        if self.threads < min(MAX_THREADS, len(self.under_way)):
            self.threads += 1
            threading.Thread(target=self._work, name="tqdb-lookup", daemon=True).start()

    def _work(self) -> None:
        while True:
            found, error = [], ""
            item = self.asked.get()
            if item is None:
                return
            address, done = item
            try:
                found = resolve(address, self.find)
            except TqdbError as e:
                error = str(e).removeprefix(f"{address}: ")
            except Exception as e:
                error = type(e).__name__

            def tell(address=address, done=done, found=found, error=error) -> None:
                self.under_way.discard(address)
                done(found, error)
            self.loop.call_from_thread(tell)

    def close(self) -> None:
        for _ in range(self.threads):
            self.asked.put(None)
