"""Clients that write keys of their own in every form, one by one and many in one send, and note what they are told."""

import random
import struct
import threading
from collections.abc import Callable, Iterator

import psycopg
import pymysql

from tests.ledger.book import Book
from tests.raw import RawPostgres
from tests.wire import my, my_query, my_split, pg, pg_bind, pg_parse, pg_query, pg_split

HINT = "/* max_wait_ms:3 file:ledger.py line:1 */ "
ONE_IN = 150            # so many writes break the table's constraint: one in this many
# Statements that write the same: in one moment some leave in one batch, merged each, and some as they are (SELECT).
SHAPES = ("INSERT INTO {table} (k, v) VALUES ({k}, {v})", "INSERT INTO {table} (v, k) VALUES ({v}, {k})",
          "INSERT INTO {table} (k, v) VALUES ({k}, {v} + 0)", "INSERT INTO {table} (k, v) SELECT {k}, {v}")
AHEAD = 20              # writes in one send, at most
SILENCE = 60            # seconds without an answer: it will not come
LOGIN_ERRORS = (OSError, psycopg.Error, pymysql.Error)
# What says that the connection is lost, and nothing of the write. 57P01 is not among them: a server that is told to
# end a connection says so before the statement has run or not at all.
PG_LOST = ("08", "57P02", "57P03")
MY_LOST = (1053, 1152, 1158, 1159, 1160, 1161, 1927, 2006, 2013)

Unit = tuple[bytes, list[int]]      # what is sent and answered together, and the keys it writes


class Client(threading.Thread):
    """Writes ``quota`` keys from ``first`` on; connects again after each loss. ``where()`` gives the port."""

    def __init__(self, where: Callable[[], int], table: str, first: int, quota: int, seed: int):
        super().__init__(daemon=True)
        self.where, self.table = where, table
        self.next, self.end = first, first + quota
        self.rng = random.Random(seed)
        self.book = Book()
        self.stopped = threading.Event()
        self.stuck = False
        self.buffer = b""
        self.sock = None

    def run(self) -> None:
        while self.next < self.end and not self.stopped.is_set():
            try:
                self.connect()
            except LOGIN_ERRORS:
                self.stopped.wait(0.01)         # the server, or the proxy, is being started again
                continue
            try:
                while self.next < self.end and not self.stopped.is_set():
                    self.write(self.units())
            except ConnectionError:
                pass
            finally:
                self.close()

    def rows(self, most: int) -> list[tuple[int, int]]:
        """Up to ``most`` keys with a value; -1 is one that the table does not take."""
        count = min(most, self.end - self.next)
        self.next += count
        return [(k, -1 if self.rng.randrange(ONE_IN) == 0 else k) for k in range(self.next - count, self.next)]

    def write(self, units: list[Unit]) -> None:
        """Sends all units at once and notes each one's answer; ConnectionError once it is lost, with all noted."""
        left = list(units)
        try:
            self.sock.sendall(b"".join(data for data, _ in units))
            self.buffer = b""
            for outcome, count in self.outcomes(left):
                keys = [k for _, unit in left[:count] for k in unit]
                del left[:count]
                getattr(self.book, outcome).extend(keys)
            if left:
                raise ConnectionError("lost")
        except TimeoutError:
            self.stuck = True
            raise ConnectionError("no answer") from None
        except OSError as e:
            raise ConnectionError(str(e)) from None
        finally:
            self.book.unknown += [k for _, unit in left for k in unit]

    def sql(self, shape: int, k, v) -> str:
        return HINT + SHAPES[shape].format(table=self.table, k=k, v=v)

    def shape(self) -> int:
        return self.rng.randrange(len(SHAPES))

    def receive(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("closed")
        self.buffer += data

    def connect(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.sock.close()

    def units(self) -> list[Unit]:
        """Writes in a form chosen at random."""
        raise NotImplementedError

    def outcomes(self, units: list[Unit]) -> Iterator[tuple[str, int]]:
        """``(name of the book's list, number of units it is about)`` as answers come; the units are left in order."""
        raise NotImplementedError


class PgClient(Client):
    def connect(self) -> None:
        self.sock = RawPostgres(self.where()).sock
        self.sock.settimeout(SILENCE)
        self.named = False

    def units(self) -> list[Unit]:
        form = self.rng.choice((self.text, self.text, self.extended, self.named_statement, self.segment))
        rows = self.rows(1 if self.rng.random() < 0.4 else self.rng.randrange(2, AHEAD + 1))
        return form(rows)

    def text(self, rows) -> list[Unit]:
        shape = self.shape()
        return [(pg_query(self.sql(shape, k, v)), [k]) for k, v in rows]

    def bound(self, name: bytes, rows) -> list[bytes]:
        return [pg_bind(b"", name, b"%d" % k, b"%d" % v) + pg(b"E", b"\0" * 5) for k, v in rows]

    def extended(self, rows) -> list[Unit]:
        parse = pg_parse(b"", self.sql(self.shape(), "$1", "$2").encode())
        return [(parse + data + pg(b"S"), [k]) for (k, _), data in zip(rows, self.bound(b"", rows), strict=True)]

    def named_statement(self, rows) -> list[Unit]:
        units = [(data + pg(b"S"), [k]) for (k, _), data in zip(rows, self.bound(b"w", rows), strict=True)]
        if not self.named:
            # nothing is written by it, and it is a unit of its own: a refused row does not take it back
            self.named = True
            units.insert(0, (pg_parse(b"w", self.sql(self.shape(), "$1", "$2").encode()) + pg(b"S"), []))
        return units

    def segment(self, rows) -> list[Unit]:
        """Many executions behind one Sync: one transaction."""
        parse = pg_parse(b"", self.sql(self.shape(), "$1", "$2").encode())
        return [(parse + b"".join(self.bound(b"", rows)) + pg(b"S"), [k for k, _ in rows])]

    def outcomes(self, units: list[Unit]) -> Iterator[tuple[str, int]]:
        failed, writes = False, 0
        while units:
            self.receive()
            messages, self.buffer = pg_split(self.buffer)
            for kind, body in messages:
                if kind == b"E":
                    error = {f[:1]: f[1:].decode() for f in body.split(b"\0")}
                    self.book.words[error[b"C"]] += 1
                    if error[b"C"].startswith(PG_LOST):
                        raise ConnectionError(error[b"C"])
                    failed = True
                    if error[b"S"] == "FATAL":
                        yield "refused", 1
                        return
                elif kind == b"C":
                    writes += body == b"INSERT 0 1\0"
                elif kind == b"Z":
                    if not units:
                        self.book.odd.append("a ReadyForQuery too many")
                        return
                    if not failed and writes != len(units[0][1]):
                        self.book.odd.append(f"{writes} writes told of {len(units[0][1])}")
                    yield ("refused" if failed else "acknowledged"), 1
                    failed, writes = False, 0


class MyClient(Client):
    connector = None        # MariaDB.connect

    def connect(self) -> None:
        self.connection = self.connector(self.where(), database="d")
        self.sock = self.connection._sock
        self.sock.settimeout(SILENCE)
        self.statement = None

    def close(self) -> None:
        self.connection._force_close()      # it has the socket twice

    def units(self) -> list[Unit]:
        prepared = self.rng.random() < 0.5
        if prepared and self.statement is None:
            self.prepare()
        rows = self.rows(1 if self.rng.random() < 0.4 else self.rng.randrange(2, AHEAD + 1))
        if not prepared:
            shape = self.shape()
            return [(my_query(self.sql(shape, k, v)), [k]) for k, v in rows]
        head = b"\x17" + self.statement + b"\0\1\0\0\0" + b"\0" + b"\1\x08\0\x08\0"
        return [(my(0, head + struct.pack("<qq", k, v)), [k]) for k, v in rows]

    def prepare(self) -> None:
        self.sock.sendall(my(0, b"\x16" + self.sql(0, "?", "?").encode()))
        self.buffer, packets = b"", []
        while len(packets) < 4:         # OK, two parameters, EOF
            self.receive()
            packets = my_split(self.buffer)[0]
            if packets and packets[0][1][:1] != b"\0":
                raise ConnectionError("not prepared")
        self.statement = packets[0][1][1:5]

    def outcomes(self, units: list[Unit]) -> Iterator[tuple[str, int]]:
        while units:
            self.receive()
            packets, self.buffer = my_split(self.buffer)
            for _, payload in packets:
                if not units:
                    self.book.odd.append("a packet too many")
                    return
                if payload[:1] == b"\xff":
                    code = int.from_bytes(payload[1:3], "little")
                    self.book.words[code] += 1
                    if code in MY_LOST:
                        raise ConnectionError(code)
                    yield "refused", 1
                    continue
                if payload[:2] != b"\0\1":
                    self.book.odd.append(f"answer {payload[:20]!r}")
                yield "acknowledged", 1
