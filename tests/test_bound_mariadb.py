"""MariaDB's prepared INSERTs are merged with their parameters as literals: any column keeps of them what it would."""

import math
import struct
import threading

import pytest

from tests.raw import RawMariaDB
from tqdb.analysis import pieces

SESSIONS = 8
COLUMNS = (
    "tinyint", "smallint unsigned", "int", "bigint", "bigint unsigned", "decimal(20,4)", "decimal(65,30)", "float",
    "double", "bit(9)", "year", "date", "datetime", "datetime(6)", "timestamp(3) NULL", "time", "time(6)", "char(7)",
    "varchar(40)", "varchar(40) CHARACTER SET latin1", "varchar(40) COLLATE utf8mb4_bin", "varbinary(40)", "binary(5)",
    "text", "blob", "enum('a','b','1')", "set('a','b','c')", "json", "inet6", "uuid")
UNSIGNED = 0x8000


def lenenc(data: bytes) -> bytes:
    return (bytes((len(data),)) if len(data) < 251 else b"\xfc" + struct.pack("<H", len(data))) + data


def moment(*parts: int, micros: int | None = None) -> bytes:
    data = struct.pack("<H", parts[0]) + bytes(parts[1:]) + (b"" if micros is None else struct.pack("<I", micros))
    return bytes((len(data),)) + data


def span(negative: int, days: int, *parts: int, micros: int | None = None) -> bytes:
    data = struct.pack("<BI", negative, days) + bytes(parts) + (b"" if micros is None else struct.pack("<I", micros))
    return bytes((len(data),)) + data


STRINGS = (
    "", " ", "a", "b", "1", "-1", "3.25", "1e3", "99999999999999999999", "2024-02-29", "2024-02-29 12:34:56.789012",
    "11:12:13.5", "it's", '"', "\\", "\\'", "a\\", "%_\\%", "\0", "a\0b", "\x1a\r\n", "NULL", "ä€😀", '{"k": [1, 2]}',
    "a,b", "::1", "123e4567-e89b-12d3-a456-426614174000", "x" * 300, "'; DROP TABLE nothing; --", "/* */ #", "?")
BYTES = (b"", b"abc", b"it's", b"\\'", b"\0\xff\xfe'", b"\xc3\xa4", b"1", b"\xe0'\xf0\\")
DOUBLES = (0.0, -0.0, 1.0, 0.1, -1.5, 1 / 3, 1e15, 123456789.125, 1e16, 1e-7, 1e300, 5e-324, math.inf, math.nan, 2.5,
           20240229.0)
# type and flags, and the value as COM_STMT_EXECUTE has it; None: NULL
VALUES = (
    *((1, struct.pack("<b", n)) for n in (0, 1, -1, 127, -128)),
    *((1 | UNSIGNED, struct.pack("<B", n)) for n in (0, 255)),
    *((2, struct.pack("<h", n)) for n in (-32768, 2024)), (2 | UNSIGNED, struct.pack("<H", 65535)),
    *((3, struct.pack("<i", n)) for n in (-2147483648, 20240229)), (3 | UNSIGNED, struct.pack("<I", 4294967295)),
    (9, struct.pack("<i", -8388608)),
    *((8, struct.pack("<q", n)) for n in (0, 5, -(2**63), 2**63 - 1, 20240229123456)),
    *((8 | UNSIGNED, struct.pack("<Q", n)) for n in (2**63, 2**64 - 1)),
    *((5, struct.pack("<d", x)) for x in DOUBLES), *((4, struct.pack("<f", x)) for x in (0.1, 2.0)),
    *((kind, lenenc(s.encode())) for kind in (253, 254, 15) for s in STRINGS),
    *((kind, lenenc(s)) for kind in (249, 252) for s in BYTES),
    *((246, lenenc(s)) for s in (b"1.50", b"-0.0001", b"1e5")), (0, lenenc(b"12")), (6, b""),
    *((10, data) for data in (moment(2024, 2, 29), moment(2023, 2, 29), moment(0, 0, 0), b"\0")),
    *((kind, data) for kind in (12, 7) for data in (
        moment(2024, 2, 29), moment(2024, 2, 29, 12, 34, 56), moment(2024, 2, 29, 12, 34, 56, micros=500000),
        moment(2024, 2, 29, 12, 34, 56, micros=0), moment(2024, 2, 29, 23, 59, 59, micros=999999),
        moment(2024, 3, 31, 2, 30, 0), moment(2024, 13, 1, 0, 0, 0), b"\0")),
    *((11, data) for data in (
        span(0, 0, 11, 12, 13), span(1, 3, 4, 5, 6), span(0, 34, 22, 59, 59), span(0, 35, 0, 0, 0),
        span(0, 0, 1, 2, 3, micros=4), span(1, 0, 0, 0, 0), b"\0")),
    None)


class Session:
    """A raw session with one statement prepared: a key and a value."""

    def __init__(self, connection, sql: str):
        self.raw = RawMariaDB(connection)
        self.raw.prepare(sql)
        self.number = self.raw.statements[sql][0]

    def execute(self, key: int, value) -> bytes:
        head = b"\x17" + struct.pack("<IBI", self.number, 0, 1) + (b"\2" if value is None else b"\0") + b"\1"
        kind, data = value or (253, b"")
        return self.raw.command(head + struct.pack("<HH", 8, kind) + struct.pack("<q", key) + data)


def play(connections, sql: str, order: list[int]) -> list[bytes]:
    """Every value, in this order, by one of the sessions, all sessions at the same time: the answers, by value."""
    sessions = [Session(c, sql) for c in connections]
    answers: list[bytes] = [b""] * len(VALUES)
    barrier = threading.Barrier(len(sessions), timeout=60)

    def work(i: int) -> None:
        for first in range(0, len(order), len(sessions)):
            barrier.wait()
            for key in order[first + i:first + i + 1]:
                answers[key] = sessions[i].execute(key, VALUES[key])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(sessions))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return answers


@pytest.mark.parametrize("values, count, texts", [
    (b"(?)", 1, [b"(", b")"]), (b"(?, ?)", 2, [b"(", b", ", b")"]),
    (b"( ? /* ? */, '?', ? )", 2, [b"( ", b" /* ? */, '?', ", b" )"]),
    (b"(now(), ?, NULL)", 1, [b"(now(), ", b", NULL)"]), (b"(1, 'a')", 0, [b"(1, 'a')"]),
    (b"(?, lower('?'), `?`)", 1, [b"(", b", lower('?'), `?`)"])])
def test_tuples_whose_parameters_are_values(values, count, texts):
    found = pieces(1, values, count)
    assert [text for text, _ in found] == texts
    assert [number for _, number in found] == [*range(1, count + 1), 0]


@pytest.mark.parametrize("values, count", [
    (b"(?)", 0), (b"(?)", 2), (b"(? + 1)", 1), (b"(1 + ?)", 1), (b"(-?)", 1), (b"(lower(?))", 1), (b"((?))", 1),
    (b"(? ?)", 2), (b"(?, '\\', ?)", 2), (b"(?, 'open)", 1), (b"(? COLLATE utf8mb4_bin)", 1), (b"(_utf8 ?)", 1),
    (b"(?, @a)", 1),
    ("(?, 'ä')".encode(), 1), (b"(? /*! + 1 */)", 1), (b"(DATE ?)", 1), (b"(CAST(? AS int), ?)", 2)])
def test_tuples_with_parameters_that_are_none(values, count):
    assert pieces(1, values, count) is None


@pytest.fixture(scope="module")
def database(mariadb):
    with mariadb.connect(database=None) as admin, admin.cursor() as cursor:
        cursor.execute("CREATE DATABASE bound")
        yield cursor
        cursor.execute("DROP DATABASE bound")


@pytest.mark.parametrize("setting", [
    "sql_mode = 'STRICT_TRANS_TABLES'", "sql_mode = 'NO_BACKSLASH_ESCAPES,STRICT_TRANS_TABLES'",
    "sql_mode = 'EMPTY_STRING_IS_NULL,STRICT_ALL_TABLES'", "NAMES latin1",
    "character_set_connection = latin1", "NAMES euckr"])
def test_every_type_of_parameter_in_every_type_of_column(mariadb, proxy, database, setting):
    """Values that the column takes come first, so that batches are not taken apart."""
    def stored(table: str):
        database.execute(f"SELECT k, HEX(v), CAST(v AS char CHARACTER SET utf8mb4) FROM bound.{table}")
        return {k: rest for k, *rest in database.fetchall()}

    def sessions(port=None):
        return [mariadb.connect(port, database="bound", init_command=f"SET {setting}") for _ in range(SESSIONS)]

    wrong, good = [], 0
    before = proxy.metric("tqdbproxy_write_batch_method_total", method="multi_row")
    direct, proxied = sessions(), sessions(proxy.mariadb_port)
    try:
        for n, column in enumerate(COLUMNS):
            table = f"t{n}"
            sql = f"/* max_wait_ms:20 */ INSERT INTO bound.{table} (k, v) VALUES (?, ?)"
            database.execute(f"CREATE OR REPLACE TABLE bound.{table} (k int PRIMARY KEY, v {column})")
            answers = play(direct, sql, list(range(len(VALUES))))
            kept = stored(table)
            database.execute(f"TRUNCATE TABLE bound.{table}")
            fine = [a[4] == 0 and a.endswith(b"\0\0") for a in answers]
            found = play(proxied, sql, sorted(range(len(VALUES)), key=lambda i: not fine[i]))
            now = stored(table)
            good += sum(fine)
            wrong += [(column, VALUES[i], answers[i], kept.get(i), found[i], now.get(i)) for i in range(len(VALUES))
                      if (answers[i], kept.get(i)) != (found[i], now.get(i))]
    finally:
        for c in direct + proxied:
            c.close()
    assert not wrong, f"{len(wrong)}: {wrong[:20]}"
    merged = proxy.metric("tqdbproxy_write_batch_method_total", method="multi_row") - before
    assert merged > 0.5 * good / SESSIONS
