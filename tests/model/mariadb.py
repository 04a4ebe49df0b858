"""A model of MariaDB's side of a conversation: knowledge base, "Client/Server Protocol"."""

import struct
from dataclasses import dataclass, field

from tests.model.myrun import ID_STEP, Answer, MyError, MyRunner
from tests.model.sql import Statement, Unreadable, parse
from tests.model.store import MESSAGE, Store, Transaction

GREETING = (b"\x0a5.5.5-10.11.0-MariaDB\0" + b"%b" + b"saltsalt\0" + b"\xfe\xff" + b"\x2d\2\0" + b"\xff\x81"
            + b"\x15" + b"\0" * 6 + b"\x1d\0\0\0" + b"saltsaltsalt\0" + b"mysql_native_password\0")
DEPRECATE_EOF = 1 << 24
LONG, LONGLONG, VAR_STRING = 3, 8, 253
LAST_PREPARED = 0xFFFFFFFF


def lenenc(value: int | bytes) -> bytes:
    """A number, or bytes with their length in front."""
    if isinstance(value, bytes):
        return lenenc(len(value)) + value
    if value < 0xFB:
        return bytes((value,))
    size, mark = (2, 0xFC) if value < 1 << 16 else (3, 0xFD) if value < 1 << 24 else (8, 0xFE)
    return bytes((mark,)) + value.to_bytes(size, "little")


def read_lenenc(data: bytes, at: int) -> tuple[int, int]:
    if data[at] < 0xFB:
        return data[at], at + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}[data[at]]
    return int.from_bytes(data[at + 1:at + 1 + size], "little"), at + 1 + size


@dataclass
class Prepared:
    statement: Statement
    types: list[int] = field(default_factory=list)
    long_data: dict[int, bytes] = field(default_factory=dict)


class MyModel(MyRunner):
    """One connection to the server. ``receive`` and ``receive_eof`` feed it; answers lie in ``out`` at once."""

    def __init__(self, store: Store):
        self.store = store
        self.number = len(store.connections) + 1
        store.connections.append(self)
        self.inbuf = bytearray()
        self.out = bytearray()
        self.at_eof = self.closed = False
        self.sequence = -1
        self.warned = 0                         # warnings of the command under way
        self.user = self.database = ""
        self.capabilities = 0
        self.tx: Transaction | None = None
        self.block = False
        self.prepared: dict[int, Prepared] = {}
        self.next_statement = 1
        self.reset()
        self.conversation = self.converse()
        self.wants = next(self.conversation)

    # --- bytes in and out -------------------------------------------------------------------------------------

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
            self.put_error(MyError(1927, "70100", "Connection was killed"))
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
                found = self.next_packet()
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

    def next_packet(self) -> bytes | None:
        if len(self.inbuf) < 4:
            return None
        size = 4 + int.from_bytes(self.inbuf[:3], "little")
        if len(self.inbuf) < size:
            return None
        self.sequence = self.inbuf[3]
        payload = bytes(self.inbuf[4:size])
        del self.inbuf[:size]
        return payload

    def end(self) -> None:
        self.end_transaction(False)
        self.closed = True

    # --- packets ------------------------------------------------------------------------------------------------

    def put(self, payload: bytes) -> None:
        self.sequence = (self.sequence + 1) & 255
        self.out += len(payload).to_bytes(3, "little") + bytes((self.sequence,)) + payload

    def put_ok(self, answer: Answer) -> None:
        info = lenenc(answer.info.encode()) if answer.info else b""
        self.row_count = answer.affected
        self.put(b"\0" + lenenc(answer.affected) + lenenc(answer.insert_id)
                 + struct.pack("<HH", self.status(), self.warned) + info)

    def put_end(self) -> None:
        """What ends rows."""
        if self.capabilities & DEPRECATE_EOF:
            self.put(b"\xfe\0\0" + struct.pack("<HH", self.status(), self.warned))
        else:
            self.put_eof()

    def put_eof(self) -> None:
        self.put(b"\xfe" + struct.pack("<HH", self.warned, self.status()))

    def put_error(self, e: MyError) -> None:
        self.put(b"\xff" + struct.pack("<H", e.code) + b"#" + e.state.encode() + e.text.encode())

    def put_columns(self, columns: list[tuple[str, str]]) -> None:
        for label, kind in columns:
            self.put(lenenc(b"def") + lenenc(b"") * 3 + lenenc(label.encode()) * 2 + b"\x0c" + struct.pack(
                "<HIBHBxx", 63 if kind == "int" else 45, 20, LONG if kind == "int" else VAR_STRING, 0, 0))
        if columns and not self.capabilities & DEPRECATE_EOF:
            self.put_eof()

    def put_answer(self, answer: Answer, binary: bool) -> None:
        if answer.columns is None:
            return self.put_ok(answer)
        self.put(lenenc(len(answer.columns)))
        self.put_columns(answer.columns)
        for row in answer.rows:
            self.put(binary_row(row, answer.columns) if binary else b"".join(
                b"\xfb" if value is None else lenenc(str(value).encode()) for value in row))
        self.put_end()

    # --- the conversation -----------------------------------------------------------------------------------------

    def converse(self):
        self.put(GREETING % struct.pack("<I", self.number))
        hello = yield MESSAGE
        self.capabilities = struct.unpack_from("<I", hello)[0]
        end = hello.index(b"\0", 32)
        self.user = hello[32:end].decode()
        end += 2 + hello[end + 1]
        if self.capabilities & 8:
            self.database = hello[end:hello.index(b"\0", end)].decode()
        self.put_ok(Answer())
        while True:
            packet = yield MESSAGE
            command = packet[0]
            self.warned = 0
            if len(packet) > self.store.max_packet:
                return self.put_error(MyError(1153, "08S01", "Got a packet bigger than 'max_allowed_packet' bytes"))
            if command == 1:
                return
            if command in self.SILENT:
                self.SILENT[command](self, packet)
                continue
            try:
                yield from self.COMMANDS.get(command, MyModel.on_unknown)(self, packet)
            except MyError as e:
                self.fail(e)
                self.row_count = -1
                self.warnings = [("Error", e.code, e.text)]
                self.put_error(e)

    def on_unknown(self, packet: bytes):
        raise MyError(1047, "08S01", "Unknown command")
        yield

    def read(self, text: str) -> list[Statement]:
        try:
            return parse(text)
        except Unreadable as e:
            raise MyError(1064, "42000", f"You have an error in your SQL syntax near '{e}'") from None

    def on_query(self, packet: bytes):
        text = packet[1:].decode()
        if "information_schema.TRIGGERS g" in text or text.startswith("SHOW CREATE TABLE"):
            self.store.heard.append((self.number, "catalogue"))
            return self.put_answer((self.definition if text.startswith("SHOW") else self.facts)(text), False)
        if "information_schema.SYSTEM_VARIABLES" in text:
            return self.put_answer(self.variable_names(), False)
        if "information_schema.SESSION_STATUS" in text:
            self.store.heard.append((self.number, "session"))
            return self.put_answer(self.likeness(), False)
        own = self.proxys_own(text)
        if own is not None:
            return self.put_answer(own, False)
        statements = self.read(ID_STEP.sub("", text))
        if not statements:
            raise MyError(1065, "42000", "Query was empty")
        if len(statements) > 1:
            raise MyError(1064, "42000", "You have an error in your SQL syntax near ';'")
        answer = yield from self.execute(statements[0], [])
        self.statement_done()
        self.put_answer(answer, False)

    def on_init_db(self, packet: bytes):
        self.use(packet[1:].decode())
        self.put_ok(Answer())
        yield from ()

    def on_ping(self, packet: bytes):
        self.put_ok(Answer())
        yield from ()

    def on_reset(self, packet: bytes):
        self.reset()
        self.put_ok(Answer())
        yield from ()

    def on_change_user(self, packet: bytes):
        """User, length and bytes of the authentication, database, and more that is not looked at.

        The password is asked for in any case, and whatever comes is taken for it.
        """
        user, _, rest = packet[1:].partition(b"\0")
        database = rest[1 + rest[0]:].partition(b"\0")[0]
        self.put(b"\xfemysql_native_password\0saltsaltsaltsaltsalt\0")
        yield MESSAGE
        self.reset()
        self.user, self.database = user.decode(), database.decode()
        self.put_ok(Answer())

    def on_prepare(self, packet: bytes):
        statements = self.read(packet[1:].decode())
        if len(statements) != 1:
            raise MyError(1064, "42000", "You have an error in your SQL syntax")
        statement = statements[0]
        columns = self.columns(self.runner(statement, []), statement) or []
        number = self.next_statement
        self.next_statement += 1
        self.prepared[number] = Prepared(statement)
        self.put(b"\0" + struct.pack("<IHHBH", number, len(columns), statement.nparams, 0, 0))
        self.put_columns([("?", "text")] * statement.nparams)
        self.put_columns(columns)
        yield from ()

    def on_execute(self, packet: bytes):
        number = struct.unpack_from("<I", packet, 1)[0]
        found = self.prepared.get(self.next_statement - 1 if number == LAST_PREPARED else number)
        if found is None:
            raise MyError(1243, "HY000", f"Unknown prepared statement handler ({number}) given to mysqld_stmt_execute")
        params = self.read_params(found, packet) if found.statement.nparams else []
        answer = yield from self.execute(found.statement, params)
        self.statement_done()
        self.put_answer(answer, True)

    def read_params(self, found: Prepared, packet: bytes) -> list:
        count = found.statement.nparams
        nulls = packet[10:10 + (count + 7) // 8]
        at = 10 + len(nulls)
        told = packet[at]
        at += 1
        if told:
            found.types = [packet[at + 2 * i] for i in range(count)]
            at += 2 * count
        if len(found.types) != count:
            raise MyError(1210, "HY000", "Incorrect arguments to mysqld_stmt_execute")
        params = []
        for i, kind in enumerate(found.types):
            if i in found.long_data:
                params.append(found.long_data[i].decode())
            elif nulls[i // 8] >> i % 8 & 1:
                params.append(None)
            elif kind in (LONG, LONGLONG):
                size = 4 if kind == LONG else 8
                params.append(int.from_bytes(packet[at:at + size], "little", signed=True))
                at += size
            else:
                size, at = read_lenenc(packet, at)
                params.append(packet[at:at + size].decode())
                at += size
        found.long_data.clear()
        return params

    def on_statement_reset(self, packet: bytes):
        found = self.prepared.get(struct.unpack_from("<I", packet, 1)[0])
        if found is None:
            raise MyError(1243, "HY000", "Unknown prepared statement handler given to mysqld_stmt_reset")
        found.long_data.clear()
        self.put_ok(Answer())
        yield from ()

    def on_close(self, packet: bytes) -> None:
        self.prepared.pop(struct.unpack_from("<I", packet, 1)[0], None)

    def on_long_data(self, packet: bytes) -> None:
        number, param = struct.unpack_from("<IH", packet, 1)
        if number in self.prepared:
            known = self.prepared[number].long_data
            known[param] = known.get(param, b"") + packet[7:]

    COMMANDS = {2: on_init_db, 3: on_query, 14: on_ping, 17: on_change_user, 22: on_prepare, 23: on_execute,
                26: on_statement_reset, 31: on_reset}
    SILENT = {24: on_long_data, 25: on_close}


def binary_row(row: list, columns: list[tuple[str, str]]) -> bytes:
    nulls = bytearray((len(row) + 9) // 8)
    body = b""
    for i, value in enumerate(row):
        if value is None:
            nulls[(i + 2) // 8] |= 1 << (i + 2) % 8
        elif columns[i][1] == "int":
            body += struct.pack("<i", value)
        else:
            body += lenenc(str(value).encode())
    return b"\0" + bytes(nulls) + body
