"""Listening sockets go from a running proxy to the one that takes its place, so that no queue of theirs is ever closed.

Whoever listens on an address also answers on an abstract Unix socket that is named after it, the *meeting* of that
address: such names are known exactly where the address is, in its network namespace. A successor is sent the listening
sockets and the meetings themselves (SCM_RIGHTS), and says which it has taken once it accepts on them.
"""

import hashlib
import os
import re
import socket
import struct
from collections.abc import Callable, Iterable
from selectors import EVENT_READ

from tqdb.errors import TqdbError
from tqdb.listening import identity
from tqdb.loop import Loop

GREETING = b"tqdb 1 %d"         # with the descriptors: the exchange's version, not the program's, and the process
MEETING_PREFIX = "\0tqdb-"
MAX_SOCKETS = 64                # in one message: a proxy has at most five listeners, and as many meetings
ANSWER_SECONDS = 10             # that a running proxy has to answer: it does so between two turns of its loop
MAX_MESSAGE = 8192              # bytes of a list of addresses
CREDENTIALS = struct.Struct("3i")       # ucred, unix(7): process, user, group


def _meeting_name(address: str) -> str:
    return MEETING_PREFIX + hashlib.blake2b(address.encode(), digest_size=16).hexdigest()


def _is_trusted(sock: socket.socket) -> bool:
    """Whether the user at the other end (of a meeting: that made it) may be given sockets, or give them."""
    _, user, _ = CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    return user in (0, os.geteuid())


class Taken:
    """What a starting proxy was given by those that it replaces: ``listeners`` by address, ``meetings`` by name."""

    def __init__(self) -> None:
        self.listeners: dict[str, socket.socket] = {}
        self.meetings: dict[str, socket.socket] = {}
        self.used: list[str] = []
        self.givers: list[socket.socket] = []
        self.processes: list[int] = []

    def ask(self, address: str) -> None:
        """Asks who listens on ``address``, if anybody does. TqdbError: it cannot be taken over."""
        if address in self.listeners:
            return
        giver = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            giver.settimeout(ANSWER_SECONDS)
            try:
                giver.connect(_meeting_name(address))
            except ConnectionRefusedError:
                giver.close()
                return
            if not _is_trusted(giver):
                raise TqdbError(f"cannot replace the proxy on {address}: it belongs to another user")
            message, descriptors, _, _ = socket.recv_fds(giver, MAX_MESSAGE, MAX_SOCKETS)
        except (OSError, TqdbError) as e:
            giver.close()
            raise e if isinstance(e, TqdbError) else TqdbError(
                f"cannot replace the proxy on {address}: {e.strerror or e}") from None
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        match = re.fullmatch(GREETING.replace(b"%d", rb"(\d{1,10})"), message)
        if match is None:
            for sock in sockets:
                sock.close()
            giver.close()
            raise TqdbError(f"cannot replace the proxy on {address}: it is of a version that hands over otherwise")
        for sock in sockets:
            name = sock.getsockname()
            if isinstance(name, bytes):
                self.meetings[name.decode("ascii", "replace")] = sock
            else:
                self.listeners[identity(sock)] = sock
        self.givers.append(giver)
        self.processes.append(int(match[1]))

    def take(self, address: str) -> socket.socket | None:
        """The socket that listens on ``address``, which from now on is the caller's."""
        sock = self.listeners.pop(address, None)
        if sock is not None:
            self.used.append(address)
        return sock

    def accepting(self) -> None:
        """Tells those that are replaced that everything taken is accepted on, and lets the rest go."""
        for giver in self.givers:
            try:
                giver.sendall("\n".join((str(os.getpid()), *self.used)).encode())
            except OSError:
                pass            # it has ended meanwhile: all the better
            giver.close()
        for sock in (*self.listeners.values(), *self.meetings.values()):
            sock.close()
        self.givers.clear()
        self.listeners.clear()
        self.meetings.clear()


class Meetings:
    """Answers successors: gives ``listeners`` away, and calls ``replaced(process, addresses)`` once one accepts.

    A successor that goes without a word has changed nothing.
    """

    def __init__(self, loop: Loop, replaced: Callable[[int, list[str]], None]):
        self.loop = loop
        self.replaced = replaced
        self.listeners: list[socket.socket] = []
        self.meetings: list[socket.socket] = []
        self.successors: set[socket.socket] = set()

    def hold(self, listeners: Iterable[socket.socket], taken: Taken) -> list[str]:
        """Answers for these listening sockets; returns the addresses for which it cannot."""
        missing = []
        self.listeners = list(listeners)
        for listener in self.listeners:
            address = identity(listener)
            name = _meeting_name(address)
            meeting = taken.meetings.pop(name, None)
            if meeting is None:
                meeting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                try:
                    meeting.bind(name)
                    meeting.listen(1)
                except OSError:
                    meeting.close()
                    missing.append(address)
                    continue
            meeting.setblocking(False)
            self.meetings.append(meeting)
            self.loop.watch(meeting, EVENT_READ, lambda mask, meeting=meeting: self._meet(meeting))
        return missing

    def _meet(self, meeting: socket.socket) -> None:
        try:
            successor, _ = meeting.accept()
        except OSError:
            return              # it has gone again, or a successor that is about to tell us has met it
        try:
            if not _is_trusted(successor):
                successor.close()
                return
            successor.setblocking(False)
            given = [sock.fileno() for sock in (*self.listeners, *self.meetings)]
            socket.send_fds(successor, [GREETING % os.getpid()], given)
        except OSError:
            successor.close()
            return
        self.successors.add(successor)
        self.loop.watch(successor, EVENT_READ, lambda mask: self._told(successor))

    def _told(self, successor: socket.socket) -> None:
        try:
            message = successor.recv(MAX_MESSAGE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            message = b""
        self.loop.unwatch(successor)
        self.successors.discard(successor)
        successor.close()
        process, _, addresses = message.decode("utf-8", "replace").partition("\n")
        if re.fullmatch("[0-9]{1,10}", process) and self.listeners:
            self.close()
            self.replaced(int(process), addresses.split("\n"))

    def close(self) -> None:
        """Answers no more. Sockets that were given away live on where they are."""
        for sock in (*self.meetings, *self.successors):
            self.loop.unwatch(sock)
            sock.close()
        self.listeners = []
        self.meetings = []
        self.successors.clear()
