"""MariaDB's steps: what they are as packets, and where their answers end.

Kinds of steps: ``query`` (sql), ``prepare`` (name, sql), ``execute`` (name, values, cursor), ``direct`` (name,
sql, values: prepare and execute in one, by the id -1), ``longdata`` (name, parameter, data), ``reset`` / ``close``
(name), ``fetch`` (name, rows), ``init_db`` (database), ``ping``, ``reset_connection``, ``change_user`` (user,
database), ``set_option`` (option), ``statistics``, ``load`` (sql, data). A value is text, None, an integer, a float or
``{"hex": …}``; types are told again only when they have changed, or with ``tell``. ``ids`` marks a step that shows
generated ids. The same name stands for the same text in all of a plan.

Masked: generated ids in OK packets and rows of steps with ``ids`` (ranks of their first appearance:
batches that fail leave gaps); the numbers of prepared statements (the same way: the server counts them for all
sessions), also in errors; COM_STATISTICS; the challenge that COM_CHANGE_USER brings. What the login answers is not
compared.
"""

import re
import struct

import pymysql
from pymysql.constants import CLIENT

from tests.conversations.plan import Session
from tests.conversations.talk import Broken, Talk
from tests.raw import my_binary

DEPRECATE_EOF = 1 << 24
MORE_RESULTS, CURSOR = 0x0008, 0x0040           # SERVER_STATUS_MORE_RESULTS_EXISTS, SERVER_STATUS_CURSOR_EXISTS
FIRST_ID, IDS = 10**6, 10**9      # what is between can only be a generated id
LAST_PREPARED = 0xFFFFFFFF
COMMANDS = {"query": 0x03, "init_db": 0x02, "statistics": 0x09, "ping": 0x0E, "change_user": 0x11, "prepare": 0x16,
            "execute": 0x17, "longdata": 0x18, "close": 0x19, "reset": 0x1A, "set_option": 0x1B, "fetch": 0x1C,
            "reset_connection": 0x1F, "load": 0x03}
NEEDS_STATEMENT = ("execute", "longdata", "reset", "close", "fetch")
NO_ANSWER = ("longdata", "close")
FORGETS_STATEMENTS = ("reset_connection", "change_user")

# numbers of statements are the server's, and differ from connection to connection
NUMBERED = re.compile(rb"(statement|handler) \((\d+)\)")

class MariaDBTalk(Talk):
    def __init__(self, port: int, session: Session, seconds: float):
        flags = session.options.get("flags", 0)
        try:
            self.connection = pymysql.connect(
                host="127.0.0.1", port=port, user="conv", database="conv", autocommit=True, ssl_disabled=True,
                charset="utf8mb4", client_flag=flags | CLIENT.LOCAL_FILES, connect_timeout=seconds,
                read_timeout=seconds)
        except pymysql.Error as e:
            raise Broken(f"login: {e}") from None
        super().__init__(self.connection._sock, seconds)
        self.deprecate_eof = bool(flags & DEPRECATE_EOF)
        self.statements: dict[str, list] = {}       # name -> [id, types told, long data sent for]
        self.ids: dict[int, int] = {}
        self.numbers: dict[int, int] = {}
        self.status = 0

    def may_wait(self) -> bool:
        return True

    def finish(self, index: int) -> None:
        self.settle()
        self.say(index, {"do": "query", "sql": "SELECT 'the end'"})

    def close(self) -> None:
        self.connection._force_close()

    # --- what is said

    def say(self, index: int, step: dict) -> None:
        do, name = step["do"], step.get("name", "")
        if do in NEEDS_STATEMENT:
            if any(s["do"] in ("prepare", "direct") and s["name"] == name for _, s in self.owed):
                self.settle()                       # the id is not known before PREPARE is answered
            if name not in self.statements:
                self.keep(index, b"not said: no such statement")
                return
        if do == "direct":
            self.add("prepare", step["sql"].encode())
            self.add("execute", struct.pack("<I", LAST_PREPARED) + execution(step, None, ())[0])
            self.owed += [(index, step), (index, {**step, "do": "execute"})]
            return
        self.add(do, self.body(do, name, step))
        if do in ("load", "change_user"):
            self.asked(index, step)
        elif do not in NO_ANSWER:
            self.owed.append((index, step))
        if do == "close":
            del self.statements[name]
        elif do in FORGETS_STATEMENTS:
            self.statements.clear()

    def add(self, command: str, body: bytes) -> None:
        self.out += struct.pack("<IB", len(body) + 1, COMMANDS[command]) + body

    def asked(self, index: int, step: dict) -> None:
        """What the server asks for in between is sent only then, with whatever is said next.

        LOAD DATA LOCAL: the file. COM_CHANGE_USER: the password, none, for the new challenge that it always sends.
        """
        self.settle()
        self.owed.append((index, step))
        first = self.packet(index, keep=False)
        self.owed.pop()
        if first[4] == 0xFF:
            self.keep(index, self.error(first))
            return
        if first[4] != (0xFB if step["do"] == "load" else 0xFE):
            raise Broken(f"surprise: {first[:60]!r} for {step['do']} of step {index}")
        self.keep(index, first[:5])
        data = step.get("data", "").encode()
        for number, part in enumerate((data, b"") if data else (b"",)):
            self.out += struct.pack("<I", len(part) | (first[3] + 1 + number) << 24) + part
        self.owed.append((index, step))

    def body(self, do: str, name: str, step: dict) -> bytes:
        if do in ("query", "prepare", "load"):
            return step["sql"].encode()
        if do == "init_db":
            return step["database"].encode()
        if do == "change_user":     # no password, utf8mb4_general_ci, no attributes
            return (step["user"].encode() + b"\0\0" + step["database"].encode() + b"\0" + struct.pack("<H", 45)
                    + b"mysql_native_password\0\0")
        if do == "set_option":
            return struct.pack("<H", step["option"])
        if do not in NEEDS_STATEMENT:
            return b""
        head = struct.pack("<I", self.statements[name][0])
        if do == "reset":
            self.statements[name][2].clear()
        elif do == "longdata":
            self.statements[name][2].add(step["parameter"])
            return head + struct.pack("<H", step["parameter"]) + step["data"].encode()
        if do == "fetch":
            return head + struct.pack("<I", step["rows"])
        if do != "execute":
            return head
        data, self.statements[name][1] = execution(step, *self.statements[name][1:])
        self.statements[name][2].clear()
        return head + data

    # --- what is answered

    def packet(self, index: int, keep: bool = True) -> bytes:
        head = self.read(4)
        packet = head + self.read(int.from_bytes(head[:3], "little"))
        if keep:
            self.keep(index, packet)
        return packet

    def take(self) -> None:
        index, step = self.owed[0]
        do = step["do"]
        if do in ("prepare", "direct"):
            self.take_prepared(index, step)
        elif do == "statistics":
            self.packet(index, keep=False)
            self.keep(index, b"statistics")
        elif do == "fetch":
            self.rows(index, step, binary=True)
        elif do in ("query", "execute", "load"):
            self.result(index, step, do == "execute")
        else:
            answer = self.packet(index)
            if answer[4] not in (0x00, 0xFE, 0xFF):
                raise Broken(f"surprise: {answer[:60]!r} for {do} of step {index}")
        self.owed.popleft()

    def take_prepared(self, index: int, step: dict) -> None:
        answer = self.packet(index, keep=False)
        self.statements.pop(step["name"], None)
        if answer[4] == 0xFF:
            self.keep(index, self.error(answer))
            return
        if answer[4] or len(answer) != 16:
            raise Broken(f"surprise: {answer[:60]!r} for prepare of step {index}")
        number, columns, parameters = struct.unpack("<IHH", answer[5:13])
        # what stands behind a statement that closed all of them has closed this one too
        if not any(s["do"] in FORGETS_STATEMENTS for _, s in self.owed):
            self.statements[step["name"]] = [number, None, set()]
        self.keep(index, answer[:5] + struct.pack("<I", self.statement_rank(number)) + answer[9:])
        for count in (parameters, columns):
            for _ in range(count + (count > 0 and not self.deprecate_eof)):
                self.packet(index)

    def result(self, index: int, step: dict, binary: bool) -> None:
        """OK, error, or columns and rows; again while more results are announced."""
        while True:
            first = self.packet(index, keep=False)
            if first[4] == 0x00:
                self.keep(index, self.ok(step, first))
            elif first[4] == 0xFF:
                self.keep(index, self.error(first))
                return
            elif first[4] in (0xFB, 0xFE):
                raise Broken(f"surprise: {first[:60]!r} for step {index}")
            else:
                self.keep(index, first)
                for _ in range(lenenc(first, 4)[0]):
                    self.packet(index)
                if not self.deprecate_eof:
                    self.status = struct.unpack("<H", self.packet(index)[7:9])[0]
                    if self.status & CURSOR:
                        return
                if not self.rows(index, step, binary):
                    return
            if not self.status & MORE_RESULTS:
                return

    def rows(self, index: int, step: dict, binary: bool) -> bool:
        """Rows up to their end; False if an error ends them."""
        while True:
            packet = self.packet(index, keep=False)
            if packet[4] == 0xFF:
                self.keep(index, self.error(packet))
                return False
            if packet[4] == 0xFE and (self.deprecate_eof or len(packet) < 13):
                if self.deprecate_eof:
                    self.ok(step, packet)
                else:
                    self.status = struct.unpack("<H", packet[7:9])[0]
                self.keep(index, packet)
                return True
            masked = step.get("ids") or (not binary and NUMBERED.search(packet))
            self.keep(index, self.masked_row(packet, binary) if masked else packet)

    def ok(self, step: dict, packet: bytes) -> bytes:
        """Notes the status of an OK packet; the packet with its generated id as a rank."""
        affected, at = lenenc(packet, 5)
        number, end = lenenc(packet, at)
        self.status = struct.unpack("<H", packet[end:end + 2])[0]
        if not step.get("ids"):
            return packet
        # its length depends on the id, so that only the sequence number is kept of the head
        return packet[3:5] + b"%d id %d " % (affected, self.rank(number)) + packet[end:]

    def statement_rank(self, number: int) -> int:
        return self.numbers.setdefault(number, len(self.numbers) + 1)

    def error(self, packet: bytes) -> bytes:
        """An error packet from its sequence number on, with the statement's number in its text as a rank."""
        return packet[3:4] + self.numbered(packet[4:])

    def numbered(self, text: bytes) -> bytes:
        """What an error or a warning says, with the statement's number as a rank."""
        return NUMBERED.sub(lambda m: m[1] + b" (#%d)" % self.statement_rank(int(m[2])), text)

    def rank(self, number: int) -> int:
        return self.ids.setdefault(number, len(self.ids) + 1) if FIRST_ID <= number < IDS else number

    def masked_row(self, packet: bytes, binary: bool) -> bytes:
        """Text: every value that is a number, or names a statement's; binary: the only column, a BIGINT."""
        if binary:
            return packet[:6] + b"%d" % self.rank(struct.unpack("<Q", packet[6:14])[0]) + packet[14:]
        out, at = packet[3:4], 4
        while at < len(packet):
            if packet[at] == 0xFB:
                value, at = b"NULL", at + 1
            else:
                size, start = lenenc(packet, at)
                value, at = packet[start:start + size], start + size
            out += b"|" + (b"%d" % self.rank(int(value)) if re.fullmatch(rb"\d{1,18}", value) else self.numbered(value))
        return out


def lenenc(data: bytes, at: int) -> tuple[int, int]:
    """A length-encoded integer and where it ends."""
    first = data[at]
    if first < 0xFB:
        return first, at + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}[first]
    return int.from_bytes(data[at + 1:at + 1 + size], "little"), at + 1 + size


def execution(step: dict, told: bytes | None, long) -> tuple[bytes, bytes]:
    """COM_STMT_EXECUTE behind the id: cursor flag, iterations, NULL bitmap, types unless ``told``, values; the types.

    Parameters in ``long`` were sent by COM_STMT_SEND_LONG_DATA: their values are left out.
    """
    values = step.get("values", [])
    out = struct.pack("<BI", step.get("cursor", 0), 1)
    if not values:
        return out, b""
    bitmap = bytearray((len(values) + 7) // 8)
    types = data = b""
    for i, value in enumerate(values):
        if value is None:
            bitmap[i // 8] |= 1 << i % 8
        kind, binary = my_binary(bytes.fromhex(value["hex"]) if isinstance(value, dict) else value)
        types += bytes((kind, 0))
        data += b"" if i in long else binary
    again = told == types and not step.get("tell")
    return out + bytes(bitmap) + (b"\0" if again else b"\1" + types) + data, types
