"""What the generator sends: statements as the messages of each protocol, as text, extended or prepared."""

import struct
from dataclasses import dataclass
from itertools import permutations

DISTINCT_MESSAGES = 512
SPACE = "tqdb_bench"        # the schema or database of the tables
COUNTERS = 100_000          # rows of the table that updates go to
FORMS = ("simple", "extended", "prepared")
PG_NAME = b"tqdb_load"

# MariaDB, "COM_STMT_EXECUTE": types of parameters
_MY_LONGLONG, _MY_VAR_STRING = 8, 253
_COM_QUERY, _COM_STMT_EXECUTE = b"\x03", b"\x17"


@dataclass(frozen=True)
class Workload:
    """``messages`` are sent in turn; ``prepared`` is the statement that must be prepared first on each connection."""

    messages: list[bytes]
    prepared: str | None = None


def _pg(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _pg_values(name: bytes, values: tuple) -> bytes:
    """Bind, Execute and Sync with every value as text."""
    texts = [str(v).encode() for v in values]
    body = b"\0" + name + b"\0\0\0" + struct.pack("!H", len(texts))
    body += b"".join(struct.pack("!I", len(t)) + t for t in texts) + b"\0\0"
    return _pg(b"B", body) + _pg(b"D", b"P\0") + _pg(b"E", b"\0\0\0\0\0") + _pg(b"S")


def _my_values(values: tuple) -> bytes:
    """COM_STMT_EXECUTE, types included; the statement's id is filled in for each connection."""
    body = _COM_STMT_EXECUTE + struct.pack("<IBI", 0, 0, 1) + b"\0" * ((len(values) + 7) // 8) + b"\1"
    data = b""
    for v in values:
        if isinstance(v, int):
            body += struct.pack("<H", _MY_LONGLONG)
            data += struct.pack("<q", v)
        else:
            text = v.encode()
            body += struct.pack("<H", _MY_VAR_STRING)
            data += (bytes((len(text),)) if len(text) < 251 else b"\xfc" + struct.pack("<H", len(text))) + text
    return struct.pack("<I", len(body) + len(data)) + body + data


def text(protocol: str, sql: str) -> bytes:
    """One statement as a Query message or a COM_QUERY packet."""
    if protocol == "postgres":
        return _pg(b"Q", sql.encode() + b"\0")
    return struct.pack("<I", len(sql.encode()) + 1) + _COM_QUERY + sql.encode()


def _literal(value) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def workload(protocol: str, template: str, rows: list[tuple], form: str = "simple") -> Workload:
    """``template`` with ``{}`` for each value of a row; ``form`` is one of ``FORMS`` (MariaDB has no ``extended``)."""
    if form == "simple":
        return Workload([text(protocol, template.format(*map(_literal, row))) for row in rows])
    if protocol == "mariadb":
        return Workload([_my_values(row) for row in rows], template.format(*"?" * len(rows[0])))
    sql = template.format(*(f"${i + 1}" for i in range(len(rows[0]))))
    if form == "prepared":
        return Workload([_pg_values(PG_NAME, row) for row in rows], sql)
    parse = _pg(b"P", b"\0" + sql.encode() + b"\0\0\0")
    return Workload([parse + _pg_values(b"", row) for row in rows])


def comment(hint: str) -> str:
    return f"/* {hint} */ " if hint else ""


def insert(protocol: str, hint: str, form: str = "simple", count: int = DISTINCT_MESSAGES) -> Workload:
    """Single-row inserts that differ in their values; ``hint`` is put in front as a comment unless empty."""
    rows = [("click", n, f'{{"page": {n * 7 % 1000}, "ms": {n * 13 % 97}}}') for n in range(count)]
    columns = f"INSERT INTO {SPACE}.events (kind, source, data)"
    return workload(protocol, f"{comment(hint)}{columns} VALUES ({{}}, {{}}, {{}})", rows, form)


def insert_shapes(protocol: str, hint: str, shapes: int, count: int = DISTINCT_MESSAGES) -> Workload:
    """As ``insert``, in as many (up to 24) statements of different form, in turn."""
    columns = {"kind": "'click'", "source": "{n}", "data": "'{{\"page\": 7}}'", "at": "'2024-01-01 00:00:00'"}
    orders = list(permutations(columns))[:shapes]
    forms = [f"{comment(hint)}INSERT INTO {SPACE}.events ({', '.join(names)}) VALUES "
             f"({', '.join(columns[name] for name in names)})" for names in orders]
    return Workload([text(protocol, forms[n % shapes].format(n=n)) for n in range(count - count % shapes)])


def update(protocol: str, hint: str, form: str = "simple", count: int = 8 * DISTINCT_MESSAGES) -> Workload:
    """Updates of single rows by primary key, spread over the table."""
    rows = [(n * 7919 % COUNTERS + 1,) for n in range(count)]
    return workload(protocol, f"{comment(hint)}UPDATE {SPACE}.counters SET n = n + 1 WHERE id = {{}}", rows, form)


def mix(protocol: str, hint: str, count: int = DISTINCT_MESSAGES) -> Workload:
    """Of ten statements five are reads by key, three inserts with the hint, two inserts without one."""
    reads = workload(protocol, f"SELECT n FROM {SPACE}.counters WHERE id = {{}}",
                     [(n * 7919 % COUNTERS + 1,) for n in range(count)]).messages
    hinted, plain = insert(protocol, hint, count=count).messages, insert(protocol, "", count=count).messages
    pattern = (reads, hinted, reads, plain, reads, hinted, reads, plain, reads, hinted)
    return Workload([pattern[i % 10][i] for i in range(count - count % 10)])
