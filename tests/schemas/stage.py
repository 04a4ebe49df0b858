"""Where plans are played: a schema (PostgreSQL) or database (MariaDB) of its own for every play, and sessions on it.

A session sends first and is read later, so that one thread has 20 of them at work at once.
"""

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from tests.schemas.plan import Plan

HANG_SECONDS = 30
SPARE = "spare"         # appended to the play's name: where a search_path or USE may lead


class Unsound(Exception):
    """The server does not take the schema: the grammar's fault, or a shrinking that went too far."""


class Broken(Exception):
    """No answer, or a closed connection."""


@dataclass
class Answer:
    """``error``: (field, text) pairs; else ``tag`` (command tag, or affected rows, warnings and so on) and rows.

    ``more``: another answer of the same statement follows.
    """

    tag: str = ""
    error: tuple = ()
    columns: tuple = ()
    rows: list[tuple] = field(default_factory=list)
    notices: list[tuple] = field(default_factory=list)
    insert_id: int = 0
    more: bool = False

    def code(self) -> str:
        return dict(self.error).get("code", "")


class Client(ABC):
    @abstractmethod
    def send(self, sql: str, values: list = (), form: str = "text") -> None:
        """Begins a statement."""

    @abstractmethod
    def receive(self) -> Answer:
        """Its answer."""

    def run(self, sql: str, values: list = (), form: str = "text") -> Answer:
        self.send(sql, values, form)
        return self.receive()

    @abstractmethod
    def close(self) -> None:
        """Ends the session."""


class Stage(ABC):
    """``server`` is a started throwaway server, and made ready here."""

    own = ""            # a query for what is a session's own
    deadlocks: tuple[str, ...] = ()
    cleared: tuple[str, ...] = ()       # what a session is told that asks for what batches have cleared

    def __init__(self, server):
        self.server = server
        self.numbers = itertools.count(10001)
        self.admin = self.setup()

    def name(self) -> str:
        """Of the next play; all are of one length, so that nothing moves in an error's position."""
        return f"play{next(self.numbers)}"

    @abstractmethod
    def setup(self):
        """What all plays need; a connection for everything else."""

    @abstractmethod
    def build(self, plan: Plan, name: str) -> None:
        """Makes the plan's tables, with their seeds; Unsound if the server does not take them."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """All that ``build`` has made."""

    @abstractmethod
    def client(self, port: int, name: str) -> Client:
        """A session, logged in."""

    def own_of(self, client: Client) -> tuple[str, ...]:
        """What stands for this session and no other, as text."""
        answer = client.run(self.own)
        if answer.error:
            raise Broken(f"{self.own}: {answer.error}")
        return answer.rows[0]

    @abstractmethod
    def contents(self, plan: Plan, name: str) -> dict[str, tuple[tuple, list[tuple]]]:
        """Table -> (columns, rows as text)."""

    @abstractmethod
    def now(self) -> str:
        """The time as columns show it."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection that ``setup`` made."""
