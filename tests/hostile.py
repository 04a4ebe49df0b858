"""What hostile clients send: names of kinds, and what makes their bytes."""

import random
import struct

KIB, MIB = 1024, 1024 * 1024
HINT = "/* max_wait_ms:5 file:hostile.py line:1 */ "
ENGLISH = "they set the table and had it set again before the sun had set, "


def raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def pg_message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def pg_query(sql: str | bytes) -> bytes:
    return pg_message(b"Q", raw(sql) + b"\0")


def pg_parse(sql: str | bytes, name: bytes = b"", types: int = 0) -> bytes:
    return pg_message(b"P", name + b"\0" + raw(sql) + b"\0" + struct.pack("!H", types) + struct.pack("!I", 23) * types)


def pg_bind(count: int, name: bytes = b"", value: bytes = b"1") -> bytes:
    return pg_message(b"B", b"\0" + name + b"\0\0\0" + struct.pack("!H", count)
                      + (struct.pack("!i", len(value)) + value) * count + b"\0\0")


PG_EXECUTE = pg_message(b"E", b"\0" * 5)
PG_SYNC = pg_message(b"S")
PG_FLUSH = pg_message(b"H")


def pg_run(sql: str | bytes, count: int = 0, value: bytes = b"1") -> bytes:
    return pg_parse(sql) + pg_bind(count, value=value) + PG_EXECUTE + PG_SYNC


def my_command(kind: int, body: str | bytes = b"") -> bytes:
    """One command, in as many packets as it takes."""
    text = bytes((kind,)) + raw(body)
    out = b""
    for number, at in enumerate(range(0, len(text) + 1, 0xFFFFFF)):
        part = text[at:at + 0xFFFFFF]
        out += len(part).to_bytes(3, "little") + bytes((number & 255,)) + part
    return out


def my_query(sql: str | bytes) -> bytes:
    return my_command(3, sql)


def times(text: str, size: int) -> str:
    return text * (size // len(text))


def columns(n: int, value: str = "1") -> str:
    return f"INSERT INTO wide ({', '.join(f'c{i}' for i in range(n))}) VALUES ({', '.join([value] * n)})"


def distinct(n: int, form: str) -> list[str]:
    """``n`` statements of shapes that no other run has sent."""
    run = random.randrange(1 << 40)
    return [HINT + form.format(f"c{run}_{i}") for i in range(n)]


# What both protocols take as the text of a statement.
TEXTS = {
    "thirty empty comments before SELECT tqdb": lambda: "/**/" * 30 + "SELECT tqdb",
    "ten thousand empty comments before SELECT tqdb": lambda: "/**/" * 10_000 + "SELECT tqdb",
    "ten thousand empty comments before KILL": lambda: "/**/" * 10_000 + "KILL 1 x",
    "ten thousand empty comments before SHOW TQDB STATUS": lambda: "/**/ " * 10_000 + "SHOW TQDB STATUS x",
    "comments that do not end before SHOW TQDB STATUS": lambda: "/*" * 10_000 + "SHOW TQDB STATUS",
    "16 KiB of comments before SHOW TQDB STATUS": lambda: "/**/" * 4000 + "SHOW TQDB STATUS x",
    "SELECT tqdb with 1 MiB": lambda: "SELECT tqdb, pg_tqdb_status '" + times("/**/ select ", MIB) + "'",
    "1 MiB of English in a SET": lambda: f"SET application_name = '{times(ENGLISH, MIB)}'",
    "16 KiB of English in a SET": lambda: f"SET application_name = '{times(ENGLISH, 15 * KIB)}'",
    "1 MiB of English in a CALL": lambda: f"CALL nothing('{times(ENGLISH, MIB)}')",
    "1 MiB of English in a DO": lambda: f"DO '{times(ENGLISH, MIB)}'",
    "a SET of 10,000 assignments": lambda: "SET " + ", ".join(f"@a{i} = {i}" for i in range(10_000)),
    "a SET of 700 assignments": lambda: "SET " + ", ".join(f"@tqdb_max_wait_ms = {i}" for i in range(600)),
    "a number of 16 KiB in a setting": lambda: "SET tqdb.max_wait_ms = '" + "1" * 16_000 + "x'",
    "100,000 parentheses": lambda: "SELECT " + "(" * 100_000 + "1" + ")" * 100_000,
    "parentheses in a hinted write": lambda: HINT + "UPDATE wide SET c0 = " + "(" * 900 + "1" + ")" * 900,
    "nested comments": lambda: HINT + "UPDATE wide SET c0 = 1 " + "/*" * 100_000 + "*/" * 100_000,
    "brackets in a hinted write": lambda: HINT + "UPDATE wide SET c0 = ARRAY" + "[" * 900 + "1" + "]" * 900,
    "CASE in CASE in a hinted write": lambda: (
        HINT + "UPDATE wide SET c0 = " + "CASE WHEN 1=1 THEN " * 100 + "1" + " END" * 100),
    "calls in calls in a hinted write": lambda: HINT + "UPDATE wide SET c0 = " + "abs(" * 400 + "1" + ")" * 400,
    "NOT NOT NOT in a hinted write": lambda: HINT + "UPDATE wide SET c0 = 1 WHERE " + "NOT " * 480 + "true",
    "a chain of AND in a hinted write": lambda: HINT + "UPDATE wide SET c0 = 1 WHERE " + "c0=1 AND " * 220 + "true",
    "a sum of a thousand in a hinted write": lambda: HINT + "UPDATE wide SET c0 = " + "1+" * 990 + "1",
    "400 columns": lambda: HINT + columns(400),
    "400 columns with calls": lambda: HINT + columns(400, "now()"),
    "1,000 columns": lambda: HINT + columns(1000),
    "4,000 columns": lambda: HINT + columns(4000),
    "20,000 rows": lambda: HINT + "INSERT INTO wide (c0) VALUES " + ",".join(["(1)"] * 20_000),
    "a literal of 900 KB": lambda: HINT + f"INSERT INTO wide (t) VALUES ('{'x' * 900_000}')",
    "a literal of 900 KB of quotes": lambda: HINT + f"INSERT INTO wide (t) VALUES ('{times(chr(39) * 2, 900_000)}')",
    "a literal of 15 KiB": lambda: HINT + f"INSERT INTO wide (t) VALUES ('{'x' * 15_000}')",
    "a word of 15 KiB": lambda: HINT + f"UPDATE wide SET {'x' * 15_000} = 1",
    "a number of 15 KiB": lambda: HINT + f"UPDATE wide SET c0 = {'1' * 15_000}",
    "a table's name of 1 MiB": lambda: HINT + f"INSERT INTO {'x' * MIB} (a) VALUES (1)",
    "a table's name of 15 KiB": lambda: HINT + f"INSERT INTO {'x' * 15_000} (a) VALUES (1)",
    "a column's name of 1 MiB": lambda: HINT + f"INSERT INTO wide ({'x' * MIB}) VALUES (1)",
    "1 MiB of semicolons": lambda: ";" * MIB,
    "semicolons behind a hinted write": lambda: HINT + "UPDATE wide SET c0 = 1" + ";" * 15_000,
    "30,000 statements in one text": lambda: "SELECT 1;" * 30_000,
    "10,000 hinted writes in one text": lambda: (HINT + "INSERT INTO wide (c0) VALUES (1);") * 10_000,
    "a quote that does not end": lambda: HINT + "INSERT INTO wide (t) VALUES ('" + "x" * 900_000,
    "a double quote that does not end": lambda: HINT + 'UPDATE wide SET c0 = "' + "x" * 900_000,
    "escaped quotes that do not end": lambda: HINT + "UPDATE wide SET t = '" + "\\'" * 450_000,
    "a comment that does not end": lambda: HINT + "UPDATE wide SET c0 = 1 /*" + "*" * 900_000,
    "quotes and quotes": lambda: HINT + "UPDATE wide SET t = " + times("'a' ", 900_000),
    "a hint of 1 MiB": lambda: "/* max_wait_ms:5 " + "x" * MIB + " */ INSERT INTO wide (c0) VALUES (1)",
    "a hint of 100,000 keys": lambda: (
        "/* " + " ".join(f"k{i}:v{i}" for i in range(100_000)) + " */ INSERT INTO wide (c0) VALUES (1)"),
    "a hint's number of 1 MiB": lambda: "/* max_wait_ms:" + "9" * MIB + " */ INSERT INTO wide (c0) VALUES (1)",
    "a hint's open quotes": lambda: "/* " + times("file:' ", MIB) + " */ INSERT INTO wide (c0) VALUES (1)",
    "100,000 hints": lambda: "/* max_wait_ms:x */" * 50_000 + "INSERT INTO wide (c0) VALUES (1)" + "/* a:b */" * 50_000,
    "100,000 line comments": lambda: "-- max_wait_ms:x\n" * 50_000 + "INSERT INTO wide (c0) VALUES (1)",
    "backticks": lambda: HINT + "UPDATE wide SET `" + "``" * 8000 + "` = 1",
    "a REPLACE with a long tail": lambda: HINT + "REPLACE INTO wide (c0) SELECT 1 " + "UNION SELECT 1 " * 130,
    "dots": lambda: HINT + "UPDATE wide SET c0 = a" + ".a" * 900,
    "words without a parenthesis": lambda: HINT + "UPDATE wide SET t = 'x' WHERE " + "a " * 1900,
}

# What a PostgreSQL session sends, as messages.
POSTGRES = {
    "a dollar quote's tag of 1 MiB": lambda: pg_query(HINT + "UPDATE wide SET t = $" + "a" * MIB + "$ x"),
    "a dollar quote that does not end": lambda: pg_query(HINT + "UPDATE wide SET t = $a$" + "x$a" * 300_000),
    "the same long tag begun over and over": lambda: pg_query(
        HINT + "UPDATE wide SET t = $" + "a" * 4000 + "$" + ("$" + "a" * 3999 + "b") * 200),
    "words with dollars": lambda: pg_query(HINT + "UPDATE wide SET c0 = " + "$a " * 300_000),
    "tags that are none": lambda: pg_query("SELECT " + ("$" + "a" * 1000 + " ") * 1000),
    "set_config with 16 KiB": lambda: pg_query(
        "SELECT " + ", ".join(["set_config('tqdb.max_wait_ms', '5', false)"] * 300)),
    "thousands of distinct shapes": lambda: b"".join(
        map(pg_query, distinct(5000, "UPDATE wide SET c0 = 1 WHERE {} = 1"))),
    "distinct INSERTs, about each of which the catalogue is asked": lambda: b"".join(
        map(pg_query, distinct(300, "INSERT INTO wide ({}) VALUES (1, now(), 'x')"))),
    "hundreds of distinct long shapes": lambda: b"".join(
        map(pg_query, distinct(300, "UPDATE wide SET c0 = {} + " + "1+" * 650 + "1"))),
    "thousands of distinct Parses": lambda: b"".join(
        map(pg_run, distinct(3000, "UPDATE wide SET c0 = 1 WHERE {} = 1"))),
    "10,000 SETs": lambda: b"".join(pg_query(f"SET application_name = 'a{i}'") for i in range(10_000)),
    "10,000 SETs of the wait": lambda: b"".join(pg_query(f"SET tqdb.max_wait_ms = '{i}'") for i in range(10_000)),
    "6,000 times SHOW TQDB STATUS": lambda: pg_query("SHOW TQDB STATUS") * 6000,
    "1,000 times SHOW TQDB WRITES": lambda: pg_query("SHOW TQDB WRITES") * 1000,
    "20,000 times the shortest SET": lambda: pg_query("SET a.b=1") * 20_000,
    "20,000 times RESET": lambda: pg_query("RESET a.b") * 20_000,
    "100,000 statements in one send": lambda: pg_query("SELECT 1") * 100_000,
    "100,000 empty statements": lambda: pg_query("") * 100_000,
    "20,000 hinted writes in one send": lambda: pg_query(HINT + "INSERT INTO wide (c0) VALUES (1)") * 20_000,
    "100,000 times Sync": lambda: PG_SYNC * 100_000,
    "100,000 times Flush": lambda: PG_FLUSH * 100_000 + PG_SYNC,
    "Parse with 65,535 types": lambda: pg_parse("SELECT 1", types=65_535) + PG_SYNC,
    "a hinted Parse with 65,535 types": lambda: (
        pg_parse(HINT + "INSERT INTO wide (c0) VALUES ($1)", types=65_535) + pg_bind(1) + PG_EXECUTE + PG_SYNC),
    "Bind with 65,535 parameters": lambda: pg_run(HINT + "INSERT INTO wide (c0) VALUES ($1)", 65_535),
    "a hinted Parse with 1,600 parameters": lambda: pg_run(
        HINT + "INSERT INTO wide (c0) VALUES " + ",".join(f"(${i})" for i in range(1, 1601)), 1600),
    "a hinted Parse with a number of 5,000 digits": lambda: pg_run(
        HINT + f"INSERT INTO wide (c0) VALUES (${'1' * 5000})", 1),
    "a hinted Parse with 4,000 columns": lambda: pg_run(HINT + columns(4000, "$1"), 1),
    "a parameter of 900 KB": lambda: pg_run(HINT + "INSERT INTO wide (t) VALUES ($1)", 1, b"x" * 900_000),
    "8,000 named statements": lambda: b"".join(
        pg_parse(HINT + "INSERT INTO wide (c0) VALUES ($1)", b"s%d" % i) for i in range(8000)) + PG_SYNC,
    "5,000 named statements of 1 KiB, run": lambda: b"".join(
        pg_parse(HINT + f"INSERT INTO wide (c0) VALUES ($1 + {i})" + " " * 900, b"s%d" % i) + pg_bind(1, b"s%d" % i)
        + PG_EXECUTE for i in range(5000)) + PG_SYNC,
    "10,000 times DEALLOCATE": lambda: pg_query("DEALLOCATE ALL") * 10_000,
    "10,000 times DISCARD": lambda: pg_query("DISCARD ALL") * 10_000,
    "50,000 times Close": lambda: pg_message(b"C", b"Snone\0") * 50_000 + PG_SYNC,
    "50,000 times Describe": lambda: pg_parse("SELECT 1") + pg_message(b"D", b"S\0") * 50_000 + PG_SYNC,
    "100,000 times CopyData": lambda: pg_message(b"d", b"x") * 100_000 + PG_SYNC,
    "a message of 100 MiB": lambda: pg_message(b"Q", b"SELECT '" + b"x" * (100 * MIB) + b"'\0"),
    "a failing statement and 50,000 messages that are skipped": lambda: (
        pg_parse("nonsense") + pg_bind(0) * 25_000 + PG_EXECUTE * 25_000 + PG_SYNC),
    "transactions over and over": lambda: pg_query("BEGIN; ROLLBACK") * 10_000,
}

# What a MariaDB session sends, as commands.
MARIADB = {
    "ten thousand empty comments before KILL QUERY": lambda: my_query("/**/" * 10_000 + "KILL QUERY 1 x"),
    "KILL QUERY with a number of 15 KiB": lambda: my_query("KILL QUERY " + "1" * 15_000),
    "2,000 times KILL QUERY": lambda: my_query("KILL QUERY 4000000000") * 2000,
    "executable comments": lambda: my_query(HINT + "/*!" * 5000 + "SELECT 1" + "*/" * 5000),
    "comments with a hash": lambda: my_query("# max_wait_ms:x\n" * 50_000 + "INSERT INTO wide (c0) VALUES (1)"),
    "thousands of distinct shapes": lambda: b"".join(
        map(my_query, distinct(5000, "UPDATE wide SET c0 = 1 WHERE {} = 1"))),
    "distinct INSERTs, about each of which the catalogue is asked": lambda: b"".join(
        map(my_query, distinct(300, "INSERT INTO wide ({}) VALUES (1, now(), 'x')"))),
    "hundreds of distinct long shapes": lambda: b"".join(
        map(my_query, distinct(300, "UPDATE wide SET c0 = {} + " + "1+" * 650 + "1"))),
    "10,000 SETs of the wait": lambda: b"".join(my_query(f"SET @tqdb_max_wait_ms = {i}") for i in range(10_000)),
    "6,000 times SHOW TQDB STATUS": lambda: my_query("SHOW TQDB STATUS") * 6000,
    "1,000 times SHOW TQDB WRITES": lambda: my_query("SHOW TQDB WRITES") * 1000,
    "20,000 times the shortest SET": lambda: my_query("SET @a=1") * 20_000,
    "100,000 times COM_PING": lambda: my_command(14) * 100_000,
    "20,000 hinted writes in one send": lambda: my_query(HINT + "INSERT INTO wide (c0) VALUES (1)") * 20_000,
    "a packet of 16 MiB - 1": lambda: my_query(b"SELECT '" + b"x" * (0xFFFFFF - 10) + b"'"),
    "two packets of one command": lambda: my_query(b"SELECT '" + b"x" * (0xFFFFFF + 1000) + b"'"),
    "garbage as COM_CHANGE_USER": lambda: my_command(17, random.Random(1).randbytes(60_000)),
    "COM_CHANGE_USER without an end": lambda: my_command(17, b"root" * 250_000),
    "5,000 times COM_RESET_CONNECTION": lambda: my_command(31) * 5000,
    "50,000 times COM_STMT_SEND_LONG_DATA": lambda: my_command(24, struct.pack("<IH", 1, 0) + b"x") * 50_000
    + my_command(14),
    "COM_STMT_SEND_LONG_DATA of 10 MiB": lambda: my_command(24, struct.pack("<IH", 1, 0) + b"x" * (10 * MIB))
    + my_command(14),
    "5,000 times COM_STMT_PREPARE": lambda: b"".join(
        my_command(22, HINT + f"INSERT INTO wide (c0) VALUES (? + {i})") for i in range(5000)),
    "a prepared statement with 4,000 columns": lambda: my_command(22, HINT + columns(4000, "?")),
    "executions of statements that there are not": lambda: my_command(23, struct.pack("<IBI", 99, 0, 1)) * 20_000,
    "20,000 times COM_STMT_CLOSE": lambda: my_command(25, struct.pack("<I", 7)) * 20_000 + my_command(14),
    "unknown commands": lambda: my_command(200, b"x" * 1000) * 5000,
    "strings with backslashes": lambda: my_query(HINT + "UPDATE wide SET t = '" + "\\\\" * 400_000 + "'"),
    "transactions over and over": lambda: (my_query("BEGIN") + my_query("ROLLBACK")) * 5000,
}
