"""One session's socket: bytes put together, sent in pieces, answers awaited and filed by the step they belong to."""

import socket
import time
from abc import ABC, abstractmethod
from collections import deque

from tests.conversations.plan import Session

# There is no condition to await between two pieces of a send: that the peer has read the first shows nowhere.
PIECE_SECONDS = 0.0005


class Broken(Exception):
    """The conversation cannot go on: no answer, a closed connection, or a message that answers nothing."""


class Talk(ABC):
    """``answers[step]`` is everything that came for that step, masked where it cannot be compared."""

    def __init__(self, sock: socket.socket, seconds: float):
        self.sock = sock
        self.seconds = seconds
        self.out = bytearray()
        self.data = bytearray()
        self.owed: deque = deque()              # what is still to be answered, in order
        self.answers: dict[int, bytes] = {}
        sock.settimeout(seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @abstractmethod
    def say(self, index: int, step: dict) -> None:
        """Adds the step's bytes to what is sent next, and to ``owed`` what answers it."""

    @abstractmethod
    def take(self) -> None:
        """Reads at least one message of what is owed."""

    @abstractmethod
    def may_wait(self) -> bool:
        """Whether the server answers what was said so far, or keeps the answer until more is said."""

    @abstractmethod
    def finish(self, index: int) -> None:
        """What must be said at the end, and a last question: nothing else may come before its answer."""

    def push(self, cuts: list[int] | tuple = ()) -> None:
        """Sends what was said, divided at ``cuts`` (modulo its length)."""
        data, self.out = bytes(self.out), bytearray()
        places = sorted({cut % len(data) for cut in cuts}) if data else []
        try:
            for start, end in zip([0, *places], [*places, len(data)], strict=True):
                if start and end > start:
                    time.sleep(PIECE_SECONDS)
                self.sock.sendall(data[start:end])
        except TimeoutError:
            raise Broken(f"hangs: nothing taken for {self.seconds} s") from None
        except OSError as e:
            raise Broken(f"closed while sending: {type(e).__name__}") from None

    def settle(self) -> None:
        """Sends, and reads until nothing is owed."""
        self.push()
        while self.owed:
            self.take()

    def read(self, size: int) -> bytes:
        """``size`` bytes."""
        while len(self.data) < size:
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                raise Broken(f"hangs: no answer for {self.seconds} s to step {self.owed_step()}") from None
            except OSError as e:
                raise Broken(f"closed: {type(e).__name__} instead of an answer to step {self.owed_step()}") from None
            if not data:
                raise Broken(f"closed instead of an answer to step {self.owed_step()}")
            self.data += data
        out = bytes(self.data[:size])
        del self.data[:size]
        return out

    def owed_step(self) -> int:
        return self.owed[0][0] if self.owed else -1

    def keep(self, index: int, message: bytes) -> None:
        self.answers[index] = self.answers.get(index, b"") + message

    def close(self) -> None:
        self.sock.close()

    def play(self, session: Session):
        """Says everything; yields where another session may go first: behind every send."""
        for index, step in enumerate(session.steps):
            self.say(index, step)
            then = step.get("then", "wait")
            if then == "join":
                continue
            self.push(step.get("cuts", ()))
            yield
            if then == "wait" and self.may_wait():
                self.settle()
        self.finish(len(session.steps))
        self.settle()
