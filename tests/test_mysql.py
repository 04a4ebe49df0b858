"""A MySQL-compatible server that is not MariaDB: whatever it does not say of its sessions, it is relayed exactly.

The server (``make test-versions`` builds it) has its tables in memory, and loses writes when several sessions write to
one: each session has its own.
"""

import subprocess

import pymysql
import pytest

from tests.crowd import together
from tests.raw import RawMariaDB
from tests.wait import wait_for
from tqdb.load.servers import dying_with_parent, free_port, which

SESSIONS = 8
HINT = "/* max_wait_ms:20 file:mysql.py line:1 */ "


class MySQL:
    """``address``, and connections to it or to a proxy before it."""

    def __init__(self, program: str):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process = subprocess.Popen(dying_with_parent(program, self.address), stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)

    def connect(self, port: int | None = None, **options):
        return pymysql.connect(**{"host": "127.0.0.1", "port": port or self.port, "user": "root", "database": "d",
                                  "autocommit": True, "ssl_disabled": True, **options})

    def answers(self) -> bool:
        assert self.process.poll() is None
        try:
            self.connect().close()
        except pymysql.Error:
            return False
        return True


@pytest.fixture(scope="module")
def mysql():
    program = which("mysqlserver")
    if program is None:
        pytest.skip("there is no mysqlserver in TQDB_PROGRAMS (make test-versions)")
    server = MySQL(program)
    try:
        wait_for(server.answers)
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def script(k: int) -> list[str]:
    insert = f"{HINT}INSERT INTO t{k} (a, b) VALUES "
    return [
        f"CREATE TABLE t{k} (id int PRIMARY KEY AUTO_INCREMENT, a int NOT NULL DEFAULT 7, b varchar(10))",
        f"{insert}(1, 'one')", f"{insert}(2, NULL), (3, 'Grüße')", f"{insert}(DEFAULT, '')", "SELECT LAST_INSERT_ID()",
        f"{insert}(NULL, 'null')", f"{insert}(1, 'longer than ten')", f"{insert}(1, 2, 3)",
        f"{HINT}INSERT INTO t{k} (nothing) VALUES (1)", f"{HINT}INSERT INTO missing VALUES (1)", f"{HINT}INSERT INTO",
        f"{HINT}INSERT INTO t{k} (id, a) VALUES (1, 1)", "SHOW WARNINGS",
        f"{HINT}INSERT INTO t{k} (id, a) VALUES (1, 1) ON DUPLICATE KEY UPDATE a = a + 1",
        f"{HINT}REPLACE INTO t{k} (id, a) VALUES (1, 5)", f"{HINT}INSERT IGNORE INTO t{k} (id, a) VALUES (1, 1)",
        f"{HINT}UPDATE t{k} SET a = a + 1 WHERE id = 1", f"{HINT}UPDATE t{k} SET a = 1 WHERE id = -1",
        f"{HINT}DELETE FROM t{k} WHERE id = 2",
        "BEGIN", f"{insert}(10, 'open')", "ROLLBACK", "START TRANSACTION", f"{insert}(11, 'kept')", "COMMIT",
        "SET autocommit = 0", f"{insert}(12, 'more')", "COMMIT", "SET autocommit = 1",
        "SET NAMES utf8mb4", "SET @tqdb_max_wait_ms = 10", f"INSERT INTO t{k} (a) VALUES (13)",
        "BEGIN; SELECT 1; COMMIT", f"SELECT * FROM t{k} ORDER BY id", f"DROP TABLE t{k}",
    ]


@pytest.mark.parametrize("sessions", [1, SESSIONS])
def test_answers_are_the_same(mysql, start_proxy, sessions):
    proxy = start_proxy(mariadb=mysql)

    def run(port):
        def work(k):
            with mysql.connect(port) as connection:
                session = RawMariaDB(connection)
                return [(sql, session.query(sql)) for sql in script(k)]

        return together(sessions, work)

    direct = run(None)
    assert run(proxy.mariadb_port) == direct
    assert proxy.batched() == 0 and proxy.counted("session_state") >= 10 * sessions


def test_prepared_statements(mysql, start_proxy):
    proxy = start_proxy(mariadb=mysql)
    insert = f"{HINT}INSERT INTO p (a, b) VALUES (?, ?)"
    answers = []
    for port in (None, proxy.mariadb_port):
        with mysql.connect(port) as connection:
            session = RawMariaDB(connection)
            session.query("CREATE TABLE p (id int PRIMARY KEY AUTO_INCREMENT, a bigint, b varchar(10))")
            answers.append([session.prepare(insert), *(session.execute(insert, params) for params in (
                (1, "x"), (2**40, None), (3, "longer than ten"), (4, ""))), session.query("SELECT * FROM p"),
                session.query("DROP TABLE p")])
    assert answers[0] == answers[1]


def test_check_tells_what_the_server_is(mysql, command, start_proxy):
    proxy = start_proxy(mariadb=mysql)
    done = subprocess.run([*command, "check", "-c", proxy.path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8.0" in done.stdout
