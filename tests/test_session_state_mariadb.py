"""MariaDB: whatever a session asks behind a batched write, in whatever way, it is told what it would be directly."""

import re

import pytest

from tests.crowd import together
from tests.raw import RawMariaDB
from tests.test_faults_mariadb import INSERT, UPDATE, batch, clients
from tests.wire import my_error, my_ok, my_query, my_split

HINT = "/* max_wait_ms:100 */ "
CLIENTS = 3
TRACKING = 1 << 23 | 1 << 24        # session tracking, no EOF packets: PyMySQL has no names for them
BEFORE = 7000               # LAST_INSERT_ID() before the write, and the number of the session
START = 100_000             # the first id that a table gives


@pytest.fixture(scope="module")
def asking(mariadb):
    """Everything that asks without that its text tells."""
    with mariadb.connect(database="d") as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL log_bin_trust_function_creators = 1")
        value = "CONCAT_WS(' ', LAST_INSERT_ID(), ROW_COUNT())"
        for sql in (
                f"CREATE FUNCTION ask_function() RETURNS TEXT RETURN {value}",
                f"CREATE VIEW ask_view AS SELECT {value} AS v",
                f"CREATE PROCEDURE ask_procedure() SELECT {value}, @@warning_count, @@error_count",
                "CREATE PROCEDURE ask_count() BEGIN DECLARE n INT DEFAULT ROW_COUNT(); SELECT n; END",
                "CREATE PROCEDURE ask_diagnostics() BEGIN GET DIAGNOSTICS @n = NUMBER, @r = ROW_COUNT; "
                "SELECT @n, @r; END",
                "CREATE TABLE asked (k INT, v TEXT)",
                f"CREATE TRIGGER ask_trigger BEFORE INSERT ON asked FOR EACH ROW SET NEW.v = {value}",
                "CREATE TABLE nothing (a INT)"):
            cursor.execute(sql)
        yield
        cursor.execute("DROP TABLE asked, nothing")
        cursor.execute("DROP VIEW ask_view")
        cursor.execute("DROP FUNCTION ask_function")
        for name in ("procedure", "count", "diagnostics"):
            cursor.execute(f"DROP PROCEDURE ask_{name}")


class Asker:
    """A session with one row of its own, which writes and then asks."""

    def __init__(self, mariadb, port, table, number, key):
        self.connection = mariadb.connect(port, database="d", autocommit=True)
        self.cursor = self.connection.cursor()
        self.raw = RawMariaDB(self.connection)
        self.table = table
        self.number = number
        self.key = key

    def rows(self, sql: str) -> list:
        """Each result with the names of its columns, or the error."""
        found = []
        try:
            self.cursor.execute(sql)
            while True:
                found.append(([d[0] for d in self.cursor.description or ()], self.cursor.fetchall()))
                if not self.cursor.nextset():
                    return found
        except self.connection.Error as e:
            return [*found, e.args]

    def write(self, sql: str, binary: bool) -> bytes:
        """The OK packet's payload, or the packets of rows."""
        sql = sql.format(t=self.table)
        if binary:
            return self.raw.execute(HINT + sql.replace(":k", "?"), (self.key,) * sql.count(":k"))
        return self.raw.query(HINT + sql.replace(":k", str(self.key)))

    def set_out(self) -> None:
        """A last id, a number of found rows and a warning of its own."""
        self.rows(f"SELECT LAST_INSERT_ID({BEFORE + self.number})")
        self.rows("SELECT 1 UNION SELECT 2 UNION SELECT 1/0")

    def own_ids(self, cursor) -> dict:
        cursor.execute(f"SELECT id, k - {self.key} FROM {self.table} WHERE k DIV 10 = {self.key} DIV 10 ORDER BY id")
        return {str(i): f"id of {k}" for i, k in cursor.fetchall()} | {str(BEFORE + self.number): "before"}


def named(value, ids: dict):
    """Values with ids by their names: a table's ids depend on the order in which sessions write."""
    if isinstance(value, list | tuple):
        return [named(v, ids) for v in value]
    return " ".join(ids.get(part, part) for part in str(value).split())


# name: (statement, needs a row, may be batched); ``:k`` is the session's key
WRITES = {
    "merged": ("INSERT INTO {t} (k) VALUES (:k)", False, True),
    "of several rows": ("INSERT INTO {t} (k) VALUES (:k), (:k + 1)", False, True),
    "returning": ("INSERT INTO {t} (k) VALUES (:k) RETURNING k", False, True),
    "explicit id": ("INSERT INTO {t} (id, k) VALUES (:k + 500000, :k)", False, True),
    "id NULL": ("INSERT INTO {t} (id, k) VALUES (NULL, :k)", False, True),
    "upsert inserts": ("INSERT INTO {t} (k) VALUES (:k) ON DUPLICATE KEY UPDATE n = n + 1", False, True),
    "upsert updates": ("INSERT INTO {t} (k) VALUES (:k) ON DUPLICATE KEY UPDATE n = n + 1", True, True),
    "upsert changes nothing": ("INSERT INTO {t} (k) VALUES (:k) ON DUPLICATE KEY UPDATE n = n", True, True),
    "ignore inserts": ("INSERT IGNORE INTO {t} (k) VALUES (:k)", False, True),
    "ignore skips": ("INSERT IGNORE INTO {t} (k) VALUES (:k)", True, False),
    "replace": ("REPLACE INTO {t} (k) VALUES (:k)", True, True),
    "replace with id": ("REPLACE INTO {t} (id, k) VALUES (:k + 500000, :k)", True, True),
    "update": ("UPDATE {t} SET n = n + 1 WHERE k = :k", True, True),
    "update of nothing": ("UPDATE {t} SET n = n + 1 WHERE k = :k", False, True),
    "delete": ("DELETE FROM {t} WHERE k = :k", True, True),
    "fails": ("INSERT INTO {t} (k) VALUES (:k)", True, False),
}
EXPLAINED = "CONCAT_WS(' ', LAST_INSERT_ID(), ROW_COUNT())"
WAYS = {
    "text": "SELECT LAST_INSERT_ID(), ROW_COUNT(), @@identity, @@last_insert_id, FOUND_ROWS(), @@warning_count",
    "id": "SELECT LAST_INSERT_ID()", "row count": "SELECT ROW_COUNT()", "found rows": "SELECT FOUND_ROWS()",
    "function": "SELECT ask_function()", "view": "SELECT * FROM ask_view", "procedure": "CALL ask_procedure()",
    "first of a procedure": "CALL ask_count()", "diagnostics": "CALL ask_diagnostics()",
    "immediate": f"EXECUTE IMMEDIATE \"SELECT {EXPLAINED}\"",
    "compound": f"BEGIN NOT ATOMIC SELECT {EXPLAINED} AS v; END",
    "warnings": "SHOW WARNINGS", "number of warnings": "SHOW COUNT(*) WARNINGS", "errors": "SHOW ERRORS",
    "condition": "GET DIAGNOSTICS CONDITION 1 @m = MESSAGE_TEXT",
    "binary function": "SELECT ask_function()", "binary id": "SELECT LAST_INSERT_ID()", "trigger": "", "prepared": "",
}
# ROW_COUNT() of two and more is told where the text asks for it; else it is -1
HIDDEN = ("function", "view", "procedure", "first of a procedure", "diagnostics", "immediate", "trigger",
          "prepared", "binary function")


def ask(one: Asker, way: str):
    if way == "trigger":
        one.rows(f"INSERT INTO asked (k) VALUES ({one.key})")
        found = one.rows(f"SELECT v FROM asked WHERE k = {one.key}")
        one.rows("DELETE FROM asked")
        return found
    if way == "prepared":
        one.rows("PREPARE s FROM 'SELECT ask_function()'")
        return one.rows("EXECUTE s")
    if way.startswith("binary"):
        packets = my_split(one.raw.execute(WAYS[way], ()))[0]
        row = packets[-2][1]
        return [row[3:].decode() if way == "binary function" else str(int.from_bytes(row[2:10], "little"))]
    return one.rows(WAYS[way])


def story(mariadb, port, table, write, way, binary, first):
    """What ``CLIENTS`` sessions are told, with ids by name; through the proxy they write together."""
    sql, needs_row, _ = WRITES[write]
    sessions = [Asker(mariadb, port, table, i, first + 10 * i) for i in range(CLIENTS)]
    with mariadb.connect(database="d", autocommit=True) as admin, admin.cursor() as cursor:
        def work(i):
            one = sessions[i]
            return one.write(sql, binary)

        def all_write():
            return together(CLIENTS, work) if port else [work(i) for i in range(CLIENTS)]

        all_write()                     # from now on they are waited for, and their table is known
        for one in sessions:
            cursor.execute(f"DELETE FROM {table} WHERE k DIV 10 = {one.key} DIV 10")
            if needs_row:
                cursor.execute(f"INSERT INTO {table} (k) VALUES ({one.key})")
            one.set_out()
        answers = all_write()
        told = []
        for one, answer in zip(sessions, answers, strict=True):
            packets = my_split(answer)[0]
            ids = one.own_ids(cursor)
            ok = []
            if packets[0][1][0] == 0:
                ok = [packets[0][1][1], named(read_lenenc(packets[0][1], 2), ids)]
            batch = None
            found = ask(one, way)
            if port:
                batch = dict(one.rows("SHOW TQDB STATUS")[0][1])["Last_batch_size"]
            told.append((ok, named(found, ids)))
            if port and WRITES[write][2] and way != "trigger":      # which writes by itself
                assert int(batch) > 1, (write, way, batch)
        for one in sessions:
            one.connection.close()
        return told


def read_lenenc(payload: bytes, at: int) -> int:
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(payload[at], 0)
    return int.from_bytes(payload[at + 1:at + 1 + size], "little") if size else payload[at]


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("write", WRITES)
def test_asked_behind_a_write(mariadb, proxy, asking, table, write, binary):
    """Every way to ask behind every kind of write: direct against through the proxy, answers and names alike."""
    with mariadb.connect(database="d") as admin, admin.cursor() as cursor:
        for name in (f"{table}d", f"{table}p"):
            cursor.execute(f"CREATE TABLE {name} (id BIGINT AUTO_INCREMENT PRIMARY KEY, k INT UNIQUE, "
                           f"n INT NOT NULL DEFAULT 0) AUTO_INCREMENT = {START}")
    first = 1000
    for way in WAYS:
        direct = story(mariadb, None, f"{table}d", write, way, binary, first)
        through = story(mariadb, proxy.mariadb_port, f"{table}p", write, way, binary, first)
        if way in HIDDEN and direct[0][0][:1] == [2]:
            assert [[a[0], str(a[1]).replace("2", "")] for a in direct] == [
                [a[0], str(a[1]).replace("-1", "")] for a in through], way
        else:
            assert direct == through, way
        first += 100


LAST = {
    "one row": "UPDATE nothing SET a = a + 1 LIMIT 1", "no rows": "DELETE FROM nothing WHERE a = 0",
    "result": "SELECT * FROM nothing", "command": "DO 1", "error": "SELECT * FROM missing"}
BETWEEN = {
    "nothing": (), "statement": ("GET DIAGNOSTICS @n = NUMBER",),
    "condition": ("GET CURRENT DIAGNOSTICS CONDITION 1 @m = MESSAGE_TEXT",),
    "several": ("GET DIAGNOSTICS @n = NUMBER", "GET DIAGNOSTICS @r = ROW_COUNT"),
    "immediate": ("EXECUTE IMMEDIATE 'GET DIAGNOSTICS @n = NUMBER'",),
    "text prepared": ("PREPARE s FROM 'GET DIAGNOSTICS @n = NUMBER'", "EXECUTE s"),
    "compound": ("BEGIN NOT ATOMIC GET DIAGNOSTICS @n = NUMBER; END",),
    "binary": (b"GET DIAGNOSTICS @n = NUMBER",), "warnings": ("SHOW WARNINGS",),
    "number of warnings": ("SHOW COUNT(*) WARNINGS",), "ping": (None,), "set": ("SET @a = 1",),
    "prepared": (b"",),
}


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("last", LAST)
def test_counts_of_statements_that_count_nothing(mariadb, proxy, asking, last, between):
    """The proxy's question what a session is like is put where the session's own count stands, whatever that is."""
    answers = []
    for port in (mariadb.port, proxy.mariadb_port):
        one = Asker(mariadb, port, "asked", 1, 10)
        one.rows("DELETE FROM nothing")
        one.rows("INSERT INTO nothing VALUES (1), (2)")
        one.rows(LAST[last])
        for sql in BETWEEN[between]:
            if sql is None:
                one.connection.ping(reconnect=False)
            elif sql == b"":
                one.raw.prepare("DELETE FROM nothing WHERE a = ?")
            elif isinstance(sql, bytes):
                one.raw.execute(sql.decode(), ())
            else:
                one.rows(sql)
        found = [one.rows("INSERT INTO asked (k) VALUES (-1) /* max_wait_ms:1 */")]
        found.append(one.rows("SELECT v FROM asked WHERE k = -1"))
        one.rows("DELETE FROM asked")
        answers.append(found)
        one.connection.close()
    assert answers[0] == answers[1]


# --- ids that are proved in the batch -------------------------------------------------------------------------------

OTHER_STEP = "3 + 18446744073709551615 * (@@auto_increment_increment <> 3)"


def test_another_distance_of_ids_is_an_error(my, table):
    """What a merged INSERT says of the distance of its ids makes the server refuse it where the distance is another,
    without a row or an id; and lets it pass where it is not, whoever the user is."""
    admin = my(through=False).cursor()
    admin.execute(f"CREATE TABLE {table} (id BIGINT AUTO_INCREMENT PRIMARY KEY, a INT)")
    admin.execute("CREATE OR REPLACE USER plain")
    admin.execute(f"GRANT INSERT, SELECT ON d.{table} TO plain")
    connection = my(through=False, user="plain")
    cursor = connection.cursor()
    insert = (f"SET STATEMENT innodb_lock_wait_timeout=1, auto_increment_increment={OTHER_STEP} FOR "
              f"INSERT INTO {table} (a) VALUES (1), (2)")
    cursor.execute("SELECT LAST_INSERT_ID(7)")
    with pytest.raises(connection.OperationalError) as refused:
        cursor.execute(insert)
    assert refused.value.args[0] == 1690 and "@@auto_increment_increment" in refused.value.args[1]
    cursor.execute("SELECT LAST_INSERT_ID(), (SELECT COUNT(*) FROM " + table + ")")
    assert cursor.fetchall() == ((7, 0),)
    cursor.execute("SET auto_increment_increment = 3")
    cursor.execute(insert)
    first = cursor.lastrowid
    cursor.execute(f"SELECT id FROM {table} ORDER BY id")
    assert cursor.fetchall() == ((first,), (first + 3,))


def test_another_distance_of_ids_than_the_catalogue_told():
    """The server refuses a merged INSERT for the distance of its ids: it is rolled back, each member goes alone, and
    the catalogue is asked again before the next are gathered."""
    hooks, found = clients(INSERT, answer=my_ok(1, 1))
    leader, sent = batch(hooks, found, INSERT)
    assert b"auto_increment_increment=1 + 18446744073709551615 * (@@auto_increment_increment <> 1) FOR" in sent
    refused = my_error(1690, b"out of range in '1 + (@@auto_increment_increment <> 1)'")
    for answer in (my_ok(status=3), refused, my_ok()):
        leader.server.receive(answer)
    hooks.engine.tick(1011.0)
    for number, client in enumerate(found):
        assert my_query(INSERT) in bytes(client.server.take_out())
        assert client.gets(my_ok(1, 10 + 3 * number)) == my_ok(1, 10 + 3 * number)
    assert b"@@auto_increment_increment" in found[0].sends(my_query(INSERT))


def test_an_id_where_the_catalogue_told_of_none():
    """A table without an id has got one meanwhile: the batch whose answer tells of it is rolled back."""
    hooks, found = clients(UPDATE, answer=my_ok(1))
    leader, _ = batch(hooks, found, UPDATE)
    for answer in (my_ok(status=0), my_ok(1, 5, status=1), my_ok(1, status=1)):
        leader.server.receive(answer)
        sent = bytes(leader.server.take_out())
    assert my_query("ROLLBACK") in sent and my_query("COMMIT") not in sent


REPORTED = {
    "autocommit,character_set_client,character_set_connection,character_set_results,time_zone,tx_isolation": True,
    "sql_mode": True, "": True,
    "lock_wait_timeout,innodb_lock_wait_timeout": False, "insert_id,last_insert_id": False, "timestamp": False,
    "auto_increment_increment": False, "last_gtid": False, "*": False,
}


@pytest.mark.parametrize("variables", REPORTED)
def test_variables_that_answers_report(mariadb, proxy, my, table, variables):
    """Session tracking: an OK packet names what its statement has set, and nothing that a batch did."""
    direct = my(through=False)
    answers = []
    before = proxy.batched()
    for port in (mariadb.port, proxy.mariadb_port):
        with direct.cursor() as cursor:
            cursor.execute(f"CREATE OR REPLACE TABLE {table} (a int PRIMARY KEY, b int)")
        sessions = [RawMariaDB(mariadb.connect(port, database="d", client_flag=TRACKING), True) for _ in range(CLIENTS)]

        def work(i, sessions=sessions):
            found = [sessions[i].query(f"SET SESSION session_track_system_variables = '{variables}'")]
            for k in range(i, 60, CLIENTS):
                found += [sessions[i].query(f"{HINT}INSERT INTO {table} (a, b) VALUES ({k}, 1)"),
                          sessions[i].query(f"{HINT}UPDATE {table} SET b = b + 1 WHERE a = {k}")]
            return [*found, sessions[i].query("SET time_zone = '+01:00'"), sessions[i].query("SET autocommit = 1")]

        answers.append(together(CLIENTS, work))
        for session in sessions:
            session.connection.close()
    same, through = ([[re.sub(rb"0-1-\d+", b"", a) for a in found] for found in side] for side in answers)
    assert through == same                  # but for the number of the transaction
    assert (proxy.batched() > before) == REPORTED[variables]
