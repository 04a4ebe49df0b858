"""The models behave like the servers that they stand for: fixed conversations with both, message by message."""

import socket
import struct

import pytest

from tests.model import talk
from tests.model.mariadb import LAST_PREPARED, read_lenenc
from tests.model.store import Store
from tests.model.talk import COPY_DONE, FLUSH, FUNCTION_CALL, SYNC, TERMINATE, com_execute, com_query, copy_data, query
from tests.model.wire import Direct
from tests.raw import RawMariaDB

INSERT = "INSERT INTO {t} (k, a) VALUES "
BAD_BIND = talk.parse(INSERT + "($1, $2)") + talk.bind(("one", 1)) + talk.EXECUTE
COPY = "COPY {t} (k, a) FROM STDIN"

# every conversation ends with Terminate: what the server says until it closes is all that it had to say
PG_TALKS = {
    "one": query(INSERT + "(1, 1)"),
    "several in one": query("INSERT INTO {t} (k, a) VALUES (1, 1); SELECT 1; INSERT INTO {t} (k, a) VALUES (1, 1)"),
    "duplicate": query(INSERT + "(1, 1)") * 2 + query("SELECT k, a FROM {t}"),
    "null": query(INSERT + "(1, NULL)") + query(INSERT + "(1, -1)") + query(INSERT + "('x', 1)"),
    "nothing": query("") + query("-- no more") + query("SELEC 1") + query("SELECT a FROM no_such_table"),
    "block": query("BEGIN") + query(INSERT + "(1, 1)") + query("SELECT 1/0") + query("SELECT 1") + query("COMMIT"),
    "block kept": query("BEGIN; INSERT INTO {t} (k, a) VALUES (1, 1)") + query("COMMIT") + query("COMMIT"),
    "rollback": query("BEGIN") + query("BEGIN") + query(INSERT + "(1, 1)") + query("ROLLBACK") + query("ROLLBACK"),
    "unit": talk.unit(INSERT + "($1, $2) RETURNING k, b", (1, 2)) + talk.unit("SELECT k, a FROM {t}"),
    "null parameter": talk.unit(INSERT + "($1, $2)", (1, None)) + talk.unit(INSERT + "($1, $2)", (None, 2)),
    "pipeline": talk.run(INSERT + "(1, 1)") + talk.run(INSERT + "(2, 2)") + SYNC + talk.unit("SELECT k FROM {t}"),
    "pipeline fails": (talk.run(INSERT + "(1, 1)") + talk.run(INSERT + "(1, 2)") + talk.run(INSERT + "(3, 3)") + SYNC
                       + talk.unit("SELECT k FROM {t}")),
    "bad bind": BAD_BIND + SYNC + query("SELECT 1"),
    "bad parse": talk.run("SELEC 1") + FLUSH + SYNC,
    "bad count": talk.parse(INSERT + "($1, $2)") + talk.bind((1,)) + talk.EXECUTE + SYNC,
    "skipped query": BAD_BIND + query(INSERT + "(1, 1)") + FUNCTION_CALL + SYNC + query("SELECT k FROM {t}"),
    "query in a segment": talk.run(INSERT + "(1, 1)") + query("SELECT 1/0") + SYNC + query("SELECT k FROM {t}"),
    "named": (talk.parse(INSERT + "($1, $2)", "s") + talk.describe("s", "S") + SYNC + talk.unit("", (1, 1), "s")
              + talk.unit("", (2, 1), "s") + talk.parse("SELECT 1", "s") + SYNC + talk.close("s") + SYNC
              + talk.unit("", (3, 1), "s")),
    "unnamed dropped": (talk.parse("SELECT 1") + SYNC + query("SELECT 2") + talk.bind() + talk.EXECUTE + SYNC),
    "portal": (query(INSERT + "(1, 1), (2, 2)") + talk.parse("SELECT k FROM {t}") + talk.bind(portal="p")
               + talk.execute("p", 1) + talk.execute("p", 1) + talk.execute("p") + talk.close("p", "P")
               + talk.execute("p") + SYNC + talk.execute("p") + SYNC),
    "run twice": talk.run(INSERT + "(1, 1)") + talk.EXECUTE + SYNC,
    "function call": FUNCTION_CALL + query("SELECT 1"),
    "copy": query(COPY) + copy_data("1\t1\n2\t") + copy_data("2\n") + COPY_DONE + query("SELECT k FROM {t}"),
    "copy bad": query(COPY) + copy_data("1\t1\nx\t2\n") + copy_data("3\t3\n") + COPY_DONE + query("SELECT k FROM {t}"),
    "copy failed": query(COPY) + copy_data("1\t1\n") + talk.copy_fail() + query("SELECT k FROM {t}"),
    "copy and more": query(COPY + "; SELECT 1") + copy_data("1\t1\n") + COPY_DONE + COPY_DONE + query("SELECT 2"),
    "copy extended": talk.run(COPY) + SYNC + copy_data("1\t1\n") + FLUSH + COPY_DONE + SYNC
    + query("SELECT k FROM {t}"),
    "copy extended bad": (talk.run(COPY) + copy_data("x\t1\n") + copy_data("2\t1\n") + COPY_DONE + query("SELECT 1")
                          + SYNC + query("SELECT k FROM {t}")),
    "copy nothing": query("COPY no_such_table (k) FROM STDIN") + copy_data("1\n") + COPY_DONE + query("SELECT 1"),
    "copy interrupted": query(COPY) + copy_data("1\t1\n") + query("SELECT 1"),
    "settings": (query("SET x.y = 'a'") + query("SELECT current_setting('x.y')") + query("BEGIN; SET x.y = 'b'")
                 + query("ROLLBACK") + query("SHOW x.y") + query("DISCARD ALL") + query("BEGIN; DISCARD ALL")),
    "told settings": query("SET application_name = 'me'") + query("RESET ALL") + query("SET TimeZone = 'Asia/Tokyo'"),
    "aborted": talk.unit("BEGIN") + BAD_BIND + SYNC + talk.unit("SELECT 1") + talk.unit("ROLLBACK") + query("SELECT 1"),
    "update": (query(INSERT + "(1, 1), (2, 2)") + query("UPDATE {t} SET a = a + 1 WHERE k = 1 RETURNING a")
               + query("DELETE FROM {t} WHERE k = 2") + query("UPDATE {t} SET a = 0 WHERE k = 9")
               + query(INSERT + "(1, 1) ON CONFLICT DO NOTHING")),
}

MY_TALKS = {
    "one": com_query(INSERT + "(1, 1)"),
    "several rows": com_query(INSERT + "(1, 1), (2, 2)") + com_query("SELECT k, a, b FROM {t}"),
    "duplicate": com_query(INSERT + "(1, 1)") * 2 + com_query("SHOW WARNINGS"),
    "half": com_query(INSERT + "(1, 1), (1, 2)") + com_query("SELECT k FROM {t}"),
    "bad values": com_query(INSERT + "(1, NULL)") + com_query(INSERT + "(1, -1)") + com_query(INSERT + "('x', 1)"),
    "errors": (com_query("SELEC 1") + com_query("SELECT a FROM no_such_table")
               + com_query("SELECT no_such_column FROM {t}")
               + com_query("") + com_query("SET no_such_variable = 1")),
    "ignore": com_query(INSERT + "(1, 1)") + com_query("INSERT IGNORE INTO {t} (k, a) VALUES (1, 1)"),
    "row count": (com_query(INSERT + "(1, 1), (2, 2)") + com_query("SELECT ROW_COUNT()") * 2
                  + com_query(INSERT + "(1, 1)") + com_query("SELECT ROW_COUNT()") + com_query("SHOW WARNINGS")
                  + com_query(INSERT + "(1, 1)") + com_query("SELECT 1") + com_query("SHOW WARNINGS")
                  + com_query("SELECT 0 FROM (SELECT 1) AS t") + com_query("SHOW WARNINGS")
                  + com_query("SELECT CAST(5 AS SIGNED) AS `x`")),
    "block": (com_query("BEGIN") + com_query(INSERT + "(1, 1)") + com_query(INSERT + "(1, 1)")
              + com_query("SELECT k FROM {t}") + com_query("ROLLBACK") + com_query("SELECT k FROM {t}")),
    "autocommit": (com_query("SET autocommit = 0") + com_query("SELECT 1") + com_query(INSERT + "(1, 1)")
                   + com_query("COMMIT") + com_query(INSERT + "(2, 1)") + com_query("SET autocommit = 1")),
    "ids": (com_query("INSERT INTO {t} (a) VALUES (1)") + com_query("INSERT INTO {t} (a) VALUES (1), (2)")
            + com_query("SELECT LAST_INSERT_ID()") + com_query("DO LAST_INSERT_ID(77)")
            + com_query("SELECT LAST_INSERT_ID()") + com_query("SELECT LAST_INSERT_ID(5) FROM (SELECT 1) AS t")
            + com_query("SELECT LAST_INSERT_ID()")),
    "update": (com_query(INSERT + "(1, 1), (2, 2)") + com_query("UPDATE {t} SET a = 1") + com_query("DELETE FROM {t}")
               + com_query("UPDATE {t} SET a = a + 1 WHERE k = 1")),
    "returning": com_query(INSERT + "(1, 1), (2, 2) RETURNING k, b"),
    "set statement": com_query("SET STATEMENT innodb_lock_wait_timeout=1 FOR INSERT INTO {t} (k, a) VALUES (1, 1)"),
    "prepared": (talk.com_prepare(INSERT + "(?, ?)") + com_execute(LAST_PREPARED, (1, 1))
                 + com_execute(LAST_PREPARED, (2, "2")) + com_execute(LAST_PREPARED, (1, 1))
                 + com_execute(LAST_PREPARED, (None, 1)) + talk.com_close(99) + com_execute(99, (5, 5))),
    "prepared rows": (com_query(INSERT + "(1, 1)") + talk.com_prepare("SELECT k, b FROM {t} WHERE k = ?")
                      + com_execute(LAST_PREPARED, (1,)) + com_execute(LAST_PREPARED, (2,))),
    "bad prepare": talk.com_prepare("SELEC 1") + talk.com_prepare("SELECT a FROM no_such_table") + com_execute(99),
    "reset": (com_query("SET time_zone = '+02:00'") + com_query("BEGIN") + com_query(INSERT + "(1, 1)") + talk.COM_RESET
              + com_query("SELECT @@time_zone") + com_query("SELECT k FROM {t}")),
    "reset drops": talk.com_prepare(INSERT + "(?, ?)") + talk.COM_RESET
                    + com_execute(LAST_PREPARED, (1, 1)),
    "databases": (talk.com_init_db("no_such") + talk.com_init_db("d") + com_query("USE no_such") + com_query("USE d")
                  + talk.COM_PING),
    "user": com_query("SET time_zone = '+02:00'") + talk.com_change_user("root") + com_query("SELECT @@time_zone"),
    "unknown": talk.packet(b"\xf0") + talk.COM_PING,
}


def pg_normal(data: bytes) -> list[str]:
    """What has to be the same: kinds, tags, states, codes, and rows as they are."""
    found = []
    for kind, body in talk.messages(data):
        fields = {f[:1]: f[1:] for f in body.split(b"\0") if f} if kind in b"EN" else {}
        told = {b"Z": body, b"C": body, b"D": body, b"S": body.split(b"\0")[0].lower(), b"G": body,
                b"E": fields.get(b"S", b"") + fields.get(b"C", b""), b"N": fields.get(b"C", b""),
                b"T": body[:2], b"t": body}.get(kind, b"")
        found.append(f"{kind.decode()} {told!r}")
    return found


def my_normal(data: bytes) -> list[str]:
    """Counts, ids, status flags of OK and EOF, error codes, and rows as they are; statements' own numbers are not."""
    found = []
    for payload in talk.packets(data):
        if payload[0] == 0xFF:
            found.append(f"error {struct.unpack_from('<H', payload, 1)[0]} {payload[3:9]!r}")
        elif payload.startswith(b"\xfemysql_native_password"):
            found.append("password?")
        elif payload[0] == 0xFE and len(payload) < 9:
            found.append(f"end {payload[1:3]!r} {payload[3] & 3}")
        elif payload[0] == 0 and len(payload) == 12 and payload[9] == 0:
            found.append(f"prepared {payload[5:]!r}")
        elif payload[0] == 0 and len(payload) >= 7:
            affected, at = read_lenenc(payload, 1)
            insert_id, at = read_lenenc(payload, at)
            found.append(f"ok {affected} {insert_id} {payload[at] & 3} {payload[at + 2:]!r}")
        else:
            found.append("column" if payload.startswith(b"\3def") else f"row {payload!r}")
    return found


def read_all(sock: socket.socket) -> bytes:
    out = b""
    try:
        while data := sock.recv(65536):
            out += data
    except ConnectionResetError:
        pass
    return out


@pytest.mark.parametrize("name", PG_TALKS)
def test_postgres(postgres, pg, name):
    pg(through=False).execute("CREATE TABLE tzz (k int PRIMARY KEY, a int NOT NULL CHECK (a >= 0), b text)")
    said = PG_TALKS[name].replace(b"{t}", b"tzz") + TERMINATE
    store = Store()
    store.create("tzz", "k a b:text", key="k", required=frozenset(("k", "a")), least={"a": 0})
    model = Direct("postgres", store).login()
    model.receive(said)
    with socket.create_connection(("127.0.0.1", postgres.port), timeout=20) as sock:
        sock.sendall(talk.startup("postgres"))
        while not sock.recv(65536).endswith(b"Z\0\0\0\5I"):
            pass
        sock.sendall(said)
        real = read_all(sock)
    pg(through=False).execute("DROP TABLE tzz")
    assert pg_normal(model.take_out()) == pg_normal(real)


@pytest.mark.parametrize("name", MY_TALKS)
def test_mariadb(mariadb, my, name):
    my(through=False).cursor().execute(
        "CREATE TABLE tzz (k int AUTO_INCREMENT PRIMARY KEY, a int NOT NULL CHECK (a >= 0), b varchar(20))")
    said = MY_TALKS[name].replace(b"{t}", b"tzz") + talk.COM_QUIT
    store = Store()
    store.create("tzz", "k a b:text", schema="d", key="k", auto="k", required=frozenset(("a",)), least={"a": 0})
    model = Direct("mariadb", store).login("root")
    model.receive(said)
    raw = RawMariaDB(my(through=False))
    raw.sock.sendall(said)
    real = read_all(raw.sock)
    raw.connection._force_close()
    my(through=False).cursor().execute("DROP TABLE tzz")
    assert my_normal(model.take_out()) == my_normal(real)
