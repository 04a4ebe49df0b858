"""A model of PostgreSQL's side of a conversation: manual, chapters "Message Flow" and "COPY Operations"."""

import struct
from dataclasses import dataclass, field

from tests.model.pgrun import PgError, PgRunner
from tests.model.sql import Statement, Unreadable, parse
from tests.model.store import MESSAGE, Store, Transaction

OIDS = {"int": 23, "text": 25}
REPORTED = {"client_encoding": "UTF8", "standard_conforming_strings": "on", "application_name": "", "timezone": "UTC",
            "server_version": "15.4"}


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def cstring(body: bytes, at: int) -> tuple[str, int]:
    end = body.index(b"\0", at)
    return body[at:end].decode(), end + 1


@dataclass
class Prepared:
    """A statement as Parse made it; None in place of the statement: an empty text."""

    statement: Statement | None
    types: list[str]
    columns: list[tuple[str, str]]


@dataclass
class Portal:
    prepared: Prepared
    params: list
    formats: list[int]
    rows: list[list] | None = None
    tag: str = ""
    at: int = 0


@dataclass
class Settings:
    """What SET changes, and what comes back if its transaction does not commit."""

    values: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] | None = None
    local: set[str] = field(default_factory=set)

    def begin(self) -> None:
        self.before = dict(self.values)

    def end(self, keep: bool) -> None:
        if self.before is None:
            return
        if not keep:
            self.values = self.before
        for name in self.local if keep else ():
            self.values.pop(name, None)
            if name in self.before:
                self.values[name] = self.before[name]
        self.local.clear()
        self.before = None


class PgModel(PgRunner):
    """One connection to the server. ``receive`` and ``receive_eof`` feed it; answers lie in ``out`` once flushed."""

    def __init__(self, store: Store):
        self.store = store
        self.number = len(store.connections) + 1
        store.connections.append(self)
        self.inbuf = bytearray()
        self.out = bytearray()
        self.unsent = bytearray()
        self.at_eof = self.closed = False
        self.user = ""
        self.settings = Settings()
        self.reported = dict(REPORTED)
        self.tx: Transaction | None = None
        self.block = self.aborted = self.skipping = False
        self.prepared: dict[str, Prepared] = {}
        self.portals: dict[str, Portal] = {}
        self.conversation = self.converse()
        self.wants = next(self.conversation)

    # --- bytes in and out ---------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        self.inbuf += data
        self.store.settle()

    def receive_eof(self) -> None:
        self.at_eof = True
        self.store.settle()

    def kill(self, told: bool = False) -> None:
        """The connection ends where it is: what was not run is not, an open transaction is rolled back."""
        self.inbuf.clear()
        if told and not self.closed:
            self.put_error(PgError("57P01", "terminating connection due to administrator command", "FATAL"))
        self.end()
        self.store.settle()

    def take_out(self) -> bytes:
        data = bytes(self.out)
        self.out.clear()
        return data

    def pump(self) -> bool:
        """Goes on as far as it can; whether it could."""
        moved = False
        while not self.closed:
            if self.wants is MESSAGE:
                found = self.next_message()
                if found is None:
                    if self.at_eof:
                        self.end()
                        moved = True
                    break
            elif self.wants.over:
                found = None
            else:
                break
            moved = True
            try:
                self.wants = self.conversation.send(found)
            except StopIteration:
                self.end()
        return moved

    def next_message(self) -> tuple[bytes, bytes] | None:
        head = 1 if self.user else 0
        if len(self.inbuf) < head + 4:
            return None
        size = head + struct.unpack_from("!I", self.inbuf, head)[0]
        if len(self.inbuf) < size:
            return None
        found = bytes(self.inbuf[:head]), bytes(self.inbuf[head + 4:size])
        del self.inbuf[:size]
        return found

    def end(self) -> None:
        self.end_transaction(False)
        self.closed = True

    def put(self, kind: bytes, body: bytes = b"") -> None:
        self.unsent += message(kind, body)

    def flush(self) -> None:
        self.out += self.unsent
        self.unsent.clear()

    def put_error(self, e: PgError) -> None:
        self.put(b"E", b"".join((b"S", e.severity.encode(), b"\0V", e.severity.encode(), b"\0C", e.code.encode(),
                                 b"\0M", e.text.encode(), b"\0\0")))
        self.flush()

    def ready(self) -> None:
        """An implicit transaction ends here, changed settings are told, and the state of the transaction."""
        if not self.block:
            self.end_transaction(True)
        for name, default in REPORTED.items():
            value = self.settings.values.get(name, default)
            if self.reported[name] != value:
                self.reported[name] = value
                told = "TimeZone" if name == "timezone" else name
                self.put(b"S", told.encode() + b"\0" + value.encode() + b"\0")
        self.put(b"Z", b"E" if self.aborted else b"T" if self.block else b"I")
        self.flush()

    # --- transactions -------------------------------------------------------------------------------------

    def transaction(self) -> Transaction:
        if self.tx is None:
            self.tx = Transaction(self.store)
            self.settings.begin()
        return self.tx

    def end_transaction(self, keep: bool) -> None:
        if self.tx is not None:
            self.tx.end(keep)
            self.settings.end(keep)
            self.tx = None
        self.block = self.aborted = False
        self.portals.clear()

    def fail(self, e: PgError) -> None:
        """An error has been met: an open block is aborted, an implicit transaction rolled back."""
        self.put_error(e)
        block = self.block
        self.end_transaction(False)
        self.block = self.aborted = block

    # --- the conversation -----------------------------------------------------------------------------------

    def converse(self):
        while True:
            _, body = yield MESSAGE
            if struct.unpack("!I", body[:4])[0] == 196608:
                break
            self.out += b"N"
        parts = body[4:].split(b"\0")
        params = dict(zip(parts[::2], parts[1::2], strict=False))
        self.user = params[b"user"].decode()
        self.put(b"R", b"\0\0\0\0")
        for name, value in REPORTED.items():
            self.put(b"S", name.encode() + b"\0" + value.encode() + b"\0")
        self.put(b"K", struct.pack("!II", self.number, 4711))
        self.ready()
        while True:
            kind, body = yield MESSAGE
            if kind == b"X":
                return
            if kind == b"S":
                self.skipping = False
                self.ready()
                continue
            if kind in b"dcf" or self.skipping:
                continue
            try:
                if kind == b"Q":
                    yield from self.simple(body)
                elif kind == b"F":
                    raise PgError("42883", "there is no such function")
                elif kind == b"H":
                    self.flush()
                else:
                    yield from self.EXTENDED[kind](self, body)
            except PgError as e:
                self.fail(e)
                if e.severity == "FATAL":
                    return
                self.skipping = kind not in (b"Q", b"F")
            if kind in (b"Q", b"F"):
                self.ready()

    def simple(self, body: bytes):
        self.prepared.pop("", None)
        self.portals.pop("", None)
        text = body[:-1].decode()
        if text.startswith("SHOW ALL;"):
            self.store.heard.append((self.number, "session"))
            return self.put_likeness()
        if "pg_catalog.pg_class c" in text:
            self.store.heard.append((self.number, "catalogue"))
            return self.put_facts(text)
        try:
            statements = parse(text)
        except Unreadable as e:
            raise PgError("42601", f'syntax error at or near "{e}"') from None
        if not statements:
            self.put(b"I")
        for statement in statements:
            self.check(statement, len(statements) > 1)
            columns = self.describe(statement)
            self.fold(statement, [])
            if columns:
                self.put_columns(columns, [])
            tag, rows = yield from self.execute(statement, [])
            for row in rows:
                self.put_row(row, columns, [])
            self.put(b"C", tag.encode() + b"\0")

    def put_columns(self, columns: list[tuple[str, str]], formats: list[int]) -> None:
        body = struct.pack("!H", len(columns))
        for i, (label, kind) in enumerate(columns):
            body += label.encode() + b"\0" + struct.pack(
                "!IHIhih", 0, 0, OIDS[kind], 4 if kind == "int" else -1, -1, form(formats, i))
        self.put(b"T", body)

    def put_row(self, row: list, columns: list[tuple[str, str]], formats: list[int]) -> None:
        body = struct.pack("!H", len(row))
        for i, value in enumerate(row):
            if value is None:
                body += b"\xff\xff\xff\xff"
                continue
            data = str(value).encode()
            if form(formats, i) and columns[i][1] == "int":
                data = struct.pack("!i", value)
            body += struct.pack("!i", len(data)) + data
        self.put(b"D", body)

    # --- the extended protocol ------------------------------------------------------------------------------

    def on_parse(self, body: bytes):
        name, at = cstring(body, 0)
        text, at = cstring(body, at)
        if not name:
            self.prepared.pop("", None)
        elif name in self.prepared:
            raise PgError("42P05", f'prepared statement "{name}" already exists')
        try:
            statements = parse(text)
        except Unreadable as e:
            raise PgError("42601", f'syntax error at or near "{e}"') from None
        if len(statements) > 1:
            raise PgError("42601", "cannot insert multiple commands into a prepared statement")
        statement = statements[0] if statements else None
        types, columns = [], []
        if statement is not None:
            self.refuse_aborted(statement)
            types = self.param_types(statement)
            columns = self.describe(statement)
        self.prepared[name] = Prepared(statement, types, columns)
        self.put(b"1")
        yield from ()

    def on_bind(self, body: bytes):
        portal, at = cstring(body, 0)
        name, at = cstring(body, at)
        found = self.prepared.get(name)
        if found is None:
            raise PgError("26000", f'prepared statement "{name}" does not exist' if name
                          else "unnamed prepared statement does not exist")
        if found.statement is not None:
            self.refuse_aborted(found.statement)
        formats, at = shorts(body, at)
        count, at = struct.unpack_from("!H", body, at)[0], at + 2
        if count != len(found.types):
            raise PgError("08P01", f"bind message supplies {count} parameters, but prepared statement "
                          f'"{name}" requires {len(found.types)}')
        params = []
        for i, kind in enumerate(found.types):
            size, at = struct.unpack_from("!i", body, at)[0], at + 4
            params.append(None if size < 0 else self.param(body[at:at + size], kind, form(formats, i)))
            at += max(size, 0)
        if found.statement is not None:
            self.fold(found.statement, params)
        self.portals[portal] = Portal(found, params, shorts(body, at)[0])
        self.put(b"2")
        yield from ()

    def on_describe(self, body: bytes):
        name, _ = cstring(body, 1)
        if body[:1] == b"S":
            prepared, formats = self.prepared.get(name), []
            if prepared is None:
                raise PgError("26000", f'prepared statement "{name}" does not exist')
            self.put(b"t", struct.pack(f"!H{len(prepared.types)}I", len(prepared.types),
                                       *(OIDS[kind] for kind in prepared.types)))
        else:
            portal = self.portals.get(name)
            if portal is None:
                raise PgError("34000", f'portal "{name}" does not exist')
            prepared, formats = portal.prepared, portal.formats
        if prepared.columns:
            self.put_columns(prepared.columns, formats)
        else:
            self.put(b"n")
        yield from ()

    def on_execute(self, body: bytes):
        name, at = cstring(body, 0)
        limit = struct.unpack_from("!I", body, at)[0]
        portal = self.portals.get(name)
        if portal is None:
            raise PgError("34000", f'portal "{name}" does not exist')
        statement = portal.prepared.statement
        if statement is None:
            return self.put(b"I")
        if portal.rows is None:
            self.check(statement, False)
            portal.tag, portal.rows = yield from self.execute(statement, portal.params)
        elif statement.verb != "select":
            raise PgError("55000", f'portal "{name}" cannot be run')
        part = portal.rows[portal.at:portal.at + limit if limit else None]
        portal.at += len(part)
        for row in part:
            self.put_row(row, portal.prepared.columns, portal.formats)
        if portal.at < len(portal.rows) or (limit and len(part) == limit):
            self.put(b"s")
        else:
            self.put(b"C", (f"SELECT {len(part)}" if statement.verb == "select" else portal.tag).encode() + b"\0")

    def on_close(self, body: bytes):
        name, _ = cstring(body, 1)
        (self.prepared if body[:1] == b"S" else self.portals).pop(name, None)
        self.put(b"3")
        yield from ()

    EXTENDED = {b"P": on_parse, b"B": on_bind, b"D": on_describe, b"E": on_execute, b"C": on_close}


def shorts(body: bytes, at: int) -> tuple[list[int], int]:
    count = struct.unpack_from("!H", body, at)[0]
    return list(struct.unpack_from(f"!{count}H", body, at + 2)), at + 2 + 2 * count


def form(formats: list[int], i: int) -> int:
    """The format of the i-th value: one code stands for all."""
    return 0 if not formats else formats[0] if len(formats) == 1 else formats[i]
