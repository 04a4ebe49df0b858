"""Clients that write until they are told to end, connect again when they must, and note what they were told."""

import threading
from collections import Counter
from collections.abc import Callable

import pymysql

from tests.drivers import mysql_connector
from tests.ledger.clients import MyClient

HINT = "/* max_wait_ms:5 file:cluster.py line:1 */ "
LOST = (0, 1053, 1927, 2003, 2006, 2013)        # the connection; nothing is known of the write
# What a node says of a commit under way when it is cut off, to single statements too: the others may have it or not.
DOUBTFUL = 1180
RENEWED = 50        # writes after which a writer takes a new connection: sessions of all ages write at once


class Writer(threading.Thread):
    """``connect()`` gives a PyMySQL connection; ``hint`` stands before each write."""

    def __init__(self, connect: Callable, name: str, table: str, hint: str = HINT):
        super().__init__(daemon=True)
        self.connect, self.label, self.table, self.hint = connect, name, table, hint
        self.done = 0                   # writes that were acknowledged
        self.number = 0                 # writes that were tried
        self.errors: Counter = Counter()
        self.samples: dict[int, str] = {}
        self.failure: BaseException | None = None
        self.stopped = threading.Event()

    def run(self) -> None:
        try:
            while not self.stopped.is_set():
                self.session()
        except BaseException as e:
            self.failure = e

    def session(self) -> None:
        try:
            connection = self.connect()
        except pymysql.Error:
            self.stopped.wait(0.02)
            return
        try:
            with connection.cursor() as cursor:
                for _ in range(RENEWED):
                    if self.stopped.is_set():
                        return
                    self.number += 1
                    try:
                        self.write(cursor)
                        self.done += 1
                    except pymysql.Error as e:
                        self.errors[e.args[0]] += 1
                        self.samples[e.args[0]] = str(e)
                        self.refused(e.args[0])
                        if e.args[0] in LOST:
                            return
        finally:
            connection._force_close()

    def write(self, cursor) -> None:
        raise NotImplementedError

    def refused(self, code: int) -> None:
        """The write that was tried last was answered with an error, or with nothing."""


class IdWriter(Writer):
    """Rows with a tag of their own and an id that the database gives; ``claims`` are ``(tag, id, who told it)``."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.claims: list[tuple[str, int, str]] = []
        self.gone: set[str] = set()

    def tag(self) -> str:
        return f"{self.label}/{self.number}"

    def write(self, cursor) -> None:
        tag = self.tag()
        more = f", ('{tag}+')" if self.number % 4 == 0 else ""
        returning = self.number % 5 == 0
        cursor.execute(f"{self.hint}INSERT INTO {self.table} (tag) VALUES ('{tag}'){more}"
                       f"{' RETURNING id' if returning else ''}")
        self.claims.append((tag, cursor.fetchone()[0], "RETURNING") if returning else (tag, cursor.lastrowid, "OK"))
        if self.number % 3 == 0:
            cursor.execute("SELECT LAST_INSERT_ID()")
            self.claims.append((tag, cursor.fetchone()[0], "LAST_INSERT_ID()"))

    def refused(self, code: int) -> None:
        if code not in LOST and code != DOUBTFUL:
            self.gone.add(self.tag())


class PreparedIdWriter(IdWriter):
    """The same with prepared statements of MySQL's own driver; ``connect()`` gives a port."""

    def session(self) -> None:
        import mysql.connector
        try:
            connection = mysql_connector(None, self.connect(), "d")
        except mysql.connector.Error:
            self.stopped.wait(0.02)
            return
        try:
            for _ in range(RENEWED):
                if self.stopped.is_set():
                    return
                self.number += 1
                answer = connection.run(f"{self.hint}INSERT INTO {self.table} (tag) VALUES (?)", (self.tag(),))
                if answer == 1:
                    self.claims.append((self.tag(), connection.cursor.lastrowid, "OK of an execution"))
                    self.done += 1
                    continue
                self.errors[answer[1]] += 1
                self.refused(answer[1])
                if answer[1] in LOST:
                    return
        finally:
            connection.close()


class CounterWriter(Writer):
    """Adds one to rows that all want; ``added`` counts what was acknowledged by row, ``unknown`` what may be there."""

    ROWS = 6

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.added: Counter = Counter()
        self.unknown: Counter = Counter()

    def row(self) -> int:
        return (self.number * 7 + sum(self.label.encode())) % self.ROWS

    def write(self, cursor) -> None:
        touched = cursor.execute(f"{self.hint}UPDATE {self.table} SET n = n + 1 WHERE id = {self.row()}")
        assert touched == 1, f"{touched} rows of one"
        self.added[self.row()] += 1

    def refused(self, code: int) -> None:
        if code in LOST or code == DOUBTFUL:
            self.unknown[self.row()] += 1


class LedgerClient(MyClient):
    """Of the ledger; what a commit under way was told when its node was cut off is not known."""

    def outcomes(self, units):
        doubtful = self.book.words[DOUBTFUL]
        for outcome, count in super().outcomes(units):
            known = doubtful == self.book.words[DOUBTFUL]
            doubtful = self.book.words[DOUBTFUL]
            yield (outcome if known else "unknown"), count
