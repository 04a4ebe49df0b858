"""MariaDB's plays, packet by packet: whole answers, insert ids, warnings, status."""

import contextlib
import struct

import pymysql

from tests.raw import my_parameters
from tests.schemas.plan import Plan, render
from tests.schemas.stage import HANG_SECONDS, SPARE, Answer, Broken, Client, Stage, Unsound
from tests.wire import my

LOG = (
    "CREATE TABLE log (k bigint AUTO_INCREMENT PRIMARY KEY, o int, w int, src varchar(20), own bigint, q text, "
    "n bigint, at timestamp(6) DEFAULT CURRENT_TIMESTAMP(6), KEY (o)) AUTO_INCREMENT=70000000",
    "CREATE TABLE tally (o int PRIMARY KEY, n int NOT NULL)",
    "CREATE TABLE last_ids (o int, w int, last_id bigint)",
)
INTEGERS = {1: "<b", 2: "<h", 3: "<i", 8: "<q", 9: "<i", 13: "<H", 4: "<f", 5: "<d"}
DATES, TIME = (7, 10, 12), 11
MORE_RESULTS = 8        # SERVER_MORE_RESULTS_EXISTS
# SERVER_QUERY_NO_GOOD_INDEX_USED, _NO_INDEX_USED: the optimizer goes by how many rows are in a table just then
BY_PLAN = 0x0030


def number(data: bytes, at: int) -> tuple[int | None, int]:
    """A length-encoded integer and where it ends; None for NULL."""
    first = data[at]
    if first < 0xFB:
        return first, at + 1
    if first == 0xFB:
        return None, at + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}[first]
    return int.from_bytes(data[at + 1:at + 1 + size], "little"), at + 1 + size


def string(data: bytes, at: int) -> tuple[bytes | None, int]:
    size, at = number(data, at)
    return (None, at) if size is None else (data[at:at + size], at + size)


class MariaDBClient(Client):
    def __init__(self, port: int, name: str | None, user: str = "schemas_writer"):
        try:
            self.connection = pymysql.connect(
                host="127.0.0.1", port=port, user=user, database=name, autocommit=True, ssl_disabled=True,
                charset="utf8mb4", read_timeout=HANG_SECONDS)
        except pymysql.Error as e:
            raise Broken(f"login: {e}") from None
        self.sock = self.connection._sock
        self.sock.settimeout(HANG_SECONDS)
        self.data = b""
        self.statements: dict[str, int] = {}
        self.binary = False

    def send(self, sql, values=(), form="text"):
        self.binary = form != "text"
        if not self.binary:
            self.write(b"\x03" + sql.encode())
            return
        if sql not in self.statements:
            self.write(b"\x16" + sql.encode())
            first = self.packet()
            if first[0] == 0xFF:
                self.write(b"\x16" + sql.encode())      # to have an answer to read
                return
            self.statements[sql], columns, count = struct.unpack_from("<IHH", first, 1)
            for part in (count, columns):
                for _ in range(part + (part > 0)):
                    self.packet()
        bitmap, types, data = my_parameters(values)
        head = b"\x17" + struct.pack("<IBI", self.statements[sql], 0, 1)
        self.write(head + (bitmap + b"\1" + types + data if values else b""))

    def write(self, payload: bytes) -> None:
        try:
            self.sock.sendall(my(0, payload))
        except OSError as e:
            raise Broken(f"closed while sending: {e}") from None

    def packet(self) -> bytes:
        while len(self.data) < 4 or len(self.data) < 4 + int.from_bytes(self.data[:3], "little"):
            try:
                more = self.sock.recv(65536)
            except OSError as e:
                raise Broken(f"no answer: {e}") from None
            if not more:
                raise Broken("closed instead of an answer")
            self.data += more
        size = int.from_bytes(self.data[:3], "little")
        out, self.data = self.data[4:4 + size], self.data[4 + size:]
        return out

    def receive(self):
        answer = self.one()
        while answer.more and not answer.error:
            answer = self.one(answer)
        return answer

    def one(self, before: Answer | None = None) -> Answer:
        """One answer of a statement; what a procedure shows comes before its own, and is kept."""
        first = self.packet()
        if first[0] == 0xFF:
            return self.error(first)
        if first[0] == 0:
            affected, at = number(first, 1)
            insert_id, at = number(first, at)
            status, warnings = struct.unpack_from("<HH", first, at)
            answer = before or Answer()
            answer.tag += (f"{affected} rows, status {status & ~BY_PLAN:#x}, {warnings} warnings, "
                           f"{first[at + 4:].decode()!r}")
            answer.insert_id, answer.more = insert_id, bool(status & MORE_RESULTS)
            return answer
        answer = before or Answer()
        columns = []
        while not self.ends(part := self.packet()):
            at = 0
            for _ in range(5):
                name, at = string(part, at)
            _, at = string(part, at)
            columns.append((name.decode(), part[at + 7]))
        answer.columns = tuple(name for name, _ in columns)
        while not self.ends(part := self.packet()):
            if part[0] == 0xFF:
                return self.error(part)
            answer.rows.append(binary_row(part, columns) if self.binary else text_row(part))
        warnings, status = struct.unpack_from("<HH", part, 1)
        answer.tag += f"status {status & ~BY_PLAN:#x}, {warnings} warnings"
        answer.more = bool(status & MORE_RESULTS)
        return answer

    @staticmethod
    def ends(packet: bytes) -> bool:
        return packet[0] == 0xFE and len(packet) < 9

    @staticmethod
    def error(packet: bytes) -> Answer:
        return Answer(error=(("code", str(struct.unpack_from("<H", packet, 1)[0])), ("state", packet[4:9].decode()),
                             ("message", packet[9:].decode())))

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.sendall(my(0, b"\x01"))       # COM_QUIT
        self.connection._force_close()


def text_row(packet: bytes) -> tuple:
    out, at = [], 0
    while at < len(packet):
        value, at = string(packet, at)
        out.append(None if value is None else value.decode())
    return tuple(out)


def binary_row(packet: bytes, columns: list) -> tuple:
    """As text where that is plain; dates as they came, in hex."""
    nulls = packet[1:1 + (len(columns) + 9) // 8]
    out: list[str | None] = []
    at = 1 + len(nulls)
    for i, (_, kind) in enumerate(columns):
        if nulls[(i + 2) // 8] & 1 << (i + 2) % 8:
            out.append(None)
        elif kind in INTEGERS:
            out.append(str(struct.unpack_from(INTEGERS[kind], packet, at)[0]))
            at += struct.calcsize(INTEGERS[kind])
        elif kind in DATES or kind == TIME:
            out.append(packet[at + 1:at + 1 + packet[at]].hex())
            at += 1 + packet[at]
        else:
            value, at = string(packet, at)
            out.append(value.decode())
    return tuple(out)


class MariaDBStage(Stage):
    own = "SELECT CONNECTION_ID()"
    # 1467: two that fill a sequence's cache at once may meet it, directly as well
    deadlocks = ("1213", "1205", "1020", "1467")

    def setup(self):
        admin = MariaDBClient(self.server.port, None, "root")
        for sql in ("SET time_zone = '+00:00'", "CREATE USER schemas_writer@'%'",
                    "GRANT ALL ON *.* TO schemas_writer@'%'"):
            self.done(admin, sql)
        return admin

    @staticmethod
    def done(client: MariaDBClient, sql: str) -> None:
        answer = client.run(sql)
        if answer.error:
            raise Unsound(f"{answer.error}: {sql}")

    def build(self, plan, name):
        spare = plan.tables[0].made or plan.tables[0].name
        seeds = [render(plan, seed, hint=False)[0] for seed in plan.seeds if plan.table(seed.table)]
        for sql in (f"CREATE DATABASE {name}", f"USE {name}", *LOG, *plan.before,
                    *(table.create() for table in plan.tables),
                    "BEGIN", *seeds, "COMMIT", *plan.after,
                    f"CREATE DATABASE {name}{SPARE}", f"CREATE TABLE {name}{SPARE}.{spare} LIKE {spare}",
                    f"ALTER TABLE {name}{SPARE}.{spare} AUTO_INCREMENT = 80000000"):
            self.done(self.admin, sql)

    def drop(self, name):
        self.done(self.admin, f"DROP DATABASE IF EXISTS {name}{SPARE}")
        self.done(self.admin, f"DROP DATABASE IF EXISTS {name}")

    def client(self, port, name):
        return MariaDBClient(port, name)

    def contents(self, plan: Plan, name):
        spare = plan.tables[0].made or plan.tables[0].name
        out = {}
        for table in (*(t.made or t.name for t in plan.tables), "log", "tally", "last_ids", f"{SPARE}.{spare}"):
            path = name + table if table.startswith(SPARE) else f"{name}.{table}"
            answer = self.admin.run(f"SELECT * FROM {path}")
            if answer.error:
                raise Unsound(str(answer.error))
            out[table] = answer.columns, answer.rows
        return out

    def now(self):
        return self.admin.run("SELECT UTC_TIMESTAMP(6)").rows[0][0]

    def close(self):
        self.admin.close()
