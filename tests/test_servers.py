"""Several servers in a backend: who gets new sessions, what is known of each, who is told when that changes."""

import json
import signal
import socket
import subprocess
import threading
import urllib.error
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import psutil
import psycopg
import pymysql
import pytest

from tests.crowd import together
from tests.failover.pairs import MONITOR, PASSWORD, WRITER, MyPair, PgPair
from tests.fix_servers import tqdb_command
from tests.fix_tls import to_servers
from tests.raw import RawPostgres
from tests.wait import wait_for
from tests.wire import pg_query, pg_split
from tqdb.load.servers import MariaDB, Postgres, free_port

MONITORED = f"monitor_user = {MONITOR}\nmonitor_password = {PASSWORD}\n"
READ_WRITE = "target = read-write\n"
HINT = "/* max_wait_ms:20 */ "


@pytest.fixture(scope="module")
def pg_pair():
    with PgPair() as pair:
        yield pair


@pytest.fixture(scope="module")
def my_pair():
    with MyPair() as pair:
        yield pair


def behind(*servers) -> SimpleNamespace:
    """A backend of these servers, in this order."""
    return SimpleNamespace(address=", ".join(server.address for server in servers))


def nowhere() -> SimpleNamespace:
    return SimpleNamespace(address=f"127.0.0.1:{free_port()}")


def pg_come(proxy, **options) -> psycopg.Connection:
    return psycopg.connect(f"host=127.0.0.1 port={proxy.postgres_port} user=postgres dbname=postgres", autocommit=True,
                           cursor_factory=psycopg.ClientCursor, **options)


def my_come(proxy, user: str = WRITER) -> pymysql.Connection:
    return pymysql.connect(host="127.0.0.1", port=proxy.mariadb_port, user=user, database="d", autocommit=True,
                           ssl_disabled=True)


def pg_port(proxy) -> int:
    """Of the server that a new session gets."""
    with closing(pg_come(proxy)) as connection:
        return connection.execute("SELECT inet_server_port()").fetchone()[0]


def my_ask(connection, sql: str) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def my_port(proxy) -> int:
    with closing(my_come(proxy)) as connection:
        return my_ask(connection, "SELECT @@port")[0][0]


def servers(proxy) -> dict[str, dict]:
    return {b["address"]: b for b in proxy.stats()["backends"]}


def roles(proxy) -> list[str]:
    return [b["role"] for b in proxy.stats()["backends"]]


def readyz(proxy) -> str:
    """Its words."""
    try:
        return proxy.get("/readyz")
    except urllib.error.HTTPError as e:
        assert e.code == 503
        return e.read().decode()


# --- who gets new sessions ------------------------------------------------------------------------------------

def test_the_next_one_is_tried_where_nobody_listens(start_proxy, postgres, mariadb):
    proxy = start_proxy(postgres=behind(nowhere(), postgres), mariadb=behind(nowhere(), nowhere(), mariadb))
    assert pg_port(proxy) == postgres.port
    with closing(my_come(proxy, "root")) as connection:
        assert my_ask(connection, "SELECT @@port") == [(mariadb.port,)]
    assert "ready" in wait_for(lambda: readyz(proxy))


def test_the_order_of_the_list_decides(start_proxy, pg_pair):
    primary, standby = pg_pair.primary, pg_pair.follower
    assert pg_port(start_proxy(postgres=behind(standby, primary))) == standby.port
    assert pg_port(start_proxy(postgres=behind(primary, standby))) == primary.port


@pytest.mark.parametrize("protocol", ["postgres", "mariadb"])
def test_a_monitor_finds_the_one_that_takes_writes(start_proxy, pg_pair, my_pair, protocol):
    pair, port = (pg_pair, pg_port) if protocol == "postgres" else (my_pair, my_port)
    proxy = start_proxy(**{protocol: behind(pair.follower, pair.primary)}, config=READ_WRITE + MONITORED)
    wait_for(lambda: roles(proxy) == ["replica", "primary"], what=lambda: proxy.stats()["backends"])
    assert port(proxy) == pair.primary.port
    standby = servers(proxy)[pair.follower.address]
    assert standby["up"] and not standby["serves"] and standby["lag"] is not None
    product = {"postgres": "PostgreSQL", "mariadb": "MariaDB"}[protocol]
    assert standby["version"].startswith(product) and standby["latency"] > 0
    for server, role in ((pair.primary, "primary"), (pair.follower, "replica")):
        assert proxy.metric("tqdbproxy_backend_up", protocol=protocol, backend="main", address=server.address,
                            role=role) == 1


def test_a_session_waits_until_its_role_is_known(start_proxy, pg_pair):
    """The first one comes before any monitor has had an answer."""
    proxy = start_proxy(postgres=behind(pg_pair.follower, pg_pair.primary), config=READ_WRITE + MONITORED)
    wait_for(lambda: roles(proxy)[0] == "replica")
    assert together(20, lambda i: pg_port(proxy)) == [pg_pair.primary.port] * 20


def test_what_sessions_see_of_a_standby(start_proxy, pg_pair):
    """Without a monitor: the first is told by the server, which is shut for it as one that goes; then it is known."""
    proxy = start_proxy(postgres=behind(pg_pair.follower, pg_pair.primary), config=READ_WRITE)

    first = RawPostgres(proxy.postgres_port)
    assert b"57P01" in first.message()
    wait_for(lambda: roles(proxy)[0] == "replica")
    assert [pg_port(proxy) for _ in range(5)] == [pg_pair.primary.port] * 5
    assert roles(proxy)[1] == "primary"


def test_nobody_takes_writes(start_proxy, pg_pair):
    proxy = start_proxy(postgres=behind(pg_pair.follower, nowhere()), config=(
        READ_WRITE + MONITORED + "[limits]\nserver_connect_timeout = 0.5\n"))
    wait_for(lambda: roles(proxy)[0] == "replica")
    with pytest.raises(psycopg.OperationalError, match="no server takes writes"):
        pg_come(proxy)
    assert f"no server takes writes ({pg_pair.follower.address}: replica; " in readyz(proxy)


class Patroni:
    """Answers for each server by its port, as the agents beside them would; ``primary``: whose answer is 200."""

    def __init__(self):
        patroni = self
        self.primary = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if self.path == f"/{patroni.primary}/primary" else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://{{host}}:{self.http.server_port}/{{port}}/primary"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


def test_an_http_check_decides(start_proxy, pg_pair):
    with Patroni() as patroni:
        patroni.primary = pg_pair.primary.port
        proxy = start_proxy(postgres=behind(pg_pair.follower, pg_pair.primary),
                            config=f"{READ_WRITE}check_url = {patroni.url}\n")
        wait_for(lambda: roles(proxy) == ["replica", "primary"])
        session = pg_come(proxy)
        assert session.execute("SELECT inet_server_port()").fetchone() == (pg_pair.primary.port,)
        # the agents know better than the server itself
        patroni.primary = pg_pair.follower.port
        wait_for(lambda: roles(proxy) == ["primary", "replica"])
        assert pg_port(proxy) == pg_pair.follower.port
        with pytest.raises(psycopg.errors.AdminShutdown):
            session.execute("SELECT 1")


def test_a_monitor_that_may_not_log_in(start_proxy, my_pair):
    """Its server serves; what it is is not known, and the log says so without the password."""
    config = READ_WRITE + MONITORED.replace(PASSWORD, "swordfish")
    proxy = start_proxy(mariadb=my_pair.primary, config=config)
    wait_for(lambda: "does not say what it is" in proxy.log())
    assert my_port(proxy) == my_pair.primary.port
    known = servers(proxy)[my_pair.primary.address]
    assert known["up"] and known["role"] == "unknown" and "Access denied" in known["error"]
    assert "ready" in readyz(proxy)
    assert "swordfish" not in proxy.log() + json.dumps(proxy.stats())


def test_what_sessions_see_where_the_monitor_may_not(start_proxy, pg_pair):
    proxy = start_proxy(postgres=behind(pg_pair.follower, pg_pair.primary),
                        config=f"{READ_WRITE}monitor_user = nobody\n")
    wait_for(lambda: [b["error"] != "not tried yet" and b["up"] for b in proxy.stats()["backends"]] == [True, True])
    assert b"57P01" in RawPostgres(proxy.postgres_port).message()
    wait_for(lambda: roles(proxy)[0] == "replica")
    assert [pg_port(proxy) for _ in range(3)] == [pg_pair.primary.port] * 3


def test_a_monitor_uses_tls(start_tls_proxy, tls_postgres, tls_mariadb, certificates):
    """As the backend's sessions do; ``u_tls`` may not come without."""
    monitor = {"monitor_user": "u_tls", "monitor_password": PASSWORD}
    proxy = start_tls_proxy(postgres=tls_postgres, mariadb=tls_mariadb,
                            server={**to_servers(certificates, "verify-full"), **monitor})
    wait_for(lambda: roles(proxy) == ["primary", "primary"], what=lambda: proxy.stats()["backends"])
    for mode, ca, words in (("verify-ca", certificates.stranger.path, "certificate verify failed"),
                            ("off", certificates.ca, "pg_hba.conf")):
        proxy = start_tls_proxy(postgres=tls_postgres, mariadb=tls_mariadb,
                                server={"tls": mode, "tls_ca": ca, **monitor})
        wait_for(lambda proxy=proxy, words=words: words in proxy.stats()["backends"][0]["error"])
        wait_for(lambda proxy=proxy, words=words: proxy.stats()["backends"][1]["error"])
        assert roles(proxy) == ["unknown", "unknown"]


def test_a_monitor_on_unix_sockets(start_proxy, postgres, mariadb):
    proxy = start_proxy(postgres=SimpleNamespace(address=f"unix:{postgres.socket}"),
                        config=f"{READ_WRITE}monitor_user = postgres\n")
    wait_for(lambda: roles(proxy) == ["primary"], what=lambda: proxy.stats()["backends"])
    proxy = start_proxy(mariadb=SimpleNamespace(address=f"unix:{mariadb.socket}"),
                        config=f"{READ_WRITE}monitor_user = root\n")
    wait_for(lambda: roles(proxy) == ["primary"], what=lambda: proxy.stats()["backends"])


# --- writes of sessions whose server takes none ----------------------------------------------------------------

def test_writes_are_not_gathered_for_a_standby(start_proxy, pg_pair, table):
    pg_pair.primary.ask(f"CREATE TABLE {table} (a int)")
    wait_for(lambda: pg_pair.follower.ask(f"SELECT to_regclass('{table}')")[0][0])
    proxy = start_proxy(postgres=pg_pair.follower)
    sessions = [RawPostgres(proxy.postgres_port) for _ in range(4)]
    direct = RawPostgres(pg_pair.follower.port)
    sql = f"{HINT}INSERT INTO {table} VALUES (1)"
    expected = direct.query(sql)
    assert b"25006" in expected
    before = proxy.counted("session_state")
    assert together(4, lambda i: sessions[i].query(sql)) == [expected] * 4
    assert proxy.counted("session_state") == before + 4 and proxy.batched() == 0
    for session in (*sessions, direct):
        session.close()


def test_writes_are_not_gathered_for_a_replica(start_proxy, my_pair, table):
    my_pair.primary.ask(f"CREATE TABLE d.{table} (a int)")
    my_pair.follower.caught_up(my_pair.primary)
    proxy = start_proxy(mariadb=my_pair.follower, config=MONITORED)
    wait_for(lambda: roles(proxy) == ["replica"])
    sessions = [my_come(proxy) for _ in range(4)]

    def write(i: int) -> int:
        with pytest.raises(pymysql.err.OperationalError) as e:
            my_ask(sessions[i], f"{HINT}INSERT INTO {table} VALUES (1)")
        return e.value.args[0]

    before = proxy.counted("session_state")
    assert together(4, write) == [1290] * 4
    assert proxy.counted("session_state") == before + 4 and proxy.batched() == 0
    for session in sessions:
        session.close()


def test_a_read_only_default_is_not_a_standby(start_proxy, postgres, pg, table):
    """A user's own: its writes are refused by its server, and nobody else hears of it."""
    pg(through=False).execute(f"CREATE TABLE {table} (a int)")
    proxy = start_proxy(postgres=postgres, config=READ_WRITE)
    careful, other = RawPostgres(proxy.postgres_port), RawPostgres(proxy.postgres_port)
    careful.query("SET default_transaction_read_only = on")
    assert b"25006" in careful.query(f"{HINT}INSERT INTO {table} VALUES (1)")
    assert b"INSERT 0 1" in other.query(f"{HINT}INSERT INTO {table} VALUES (2)")
    assert b"SELECT 1" in careful.query("SELECT 1")
    assert roles(proxy) == ["primary"]


# --- who is told ---------------------------------------------------------------------------------------------------

def test_a_switch_over_of_mariadb(start_proxy, my_pair, table):
    """Sessions on a server that becomes read-only end: idle ones at once, a transaction's when it is over."""
    old, new = my_pair.primary, my_pair.follower
    old.ask(f"CREATE TABLE d.{table} (a int)")
    proxy = start_proxy(mariadb=my_pair, config=READ_WRITE + MONITORED)
    wait_for(lambda: "primary" in roles(proxy))
    idle, busy, writing = (my_come(proxy) for _ in range(3))
    for session in (idle, busy, writing):
        assert my_ask(session, "SELECT @@port") == [(old.port,)]
    my_ask(busy, "START TRANSACTION")
    my_ask(busy, "SELECT 1")
    old.give_way(new)
    new.promote()
    wait_for(lambda: servers(proxy)[new.address]["role"] == "primary")
    wait_for(lambda: proxy.clients() == 1)
    with pytest.raises(pymysql.err.OperationalError) as e:
        my_ask(idle, "SELECT 1")
    assert e.value.args[0] in (2006, 2013)
    assert my_ask(busy, "SELECT 2") == [(2,)]
    my_ask(busy, "COMMIT")
    with pytest.raises(pymysql.err.OperationalError):
        my_ask(busy, "SELECT 1")
        my_ask(busy, "SELECT 1")
    assert my_port(proxy) == new.port
    with closing(my_come(proxy)) as session:
        my_ask(session, f"{HINT}INSERT INTO {table} VALUES (7)")
    assert new.ask(f"SELECT a FROM d.{table}") == [(7,)]
    my_pair.swap()
    my_pair.join()


def test_sigusr1_closes_sessions_politely(start_proxy, postgres, mariadb, pg, table):
    pg(through=False).execute(f"CREATE TABLE {table} (a int)")
    proxy = start_proxy(postgres=postgres, mariadb=mariadb)
    idle, busy = pg_come(proxy), pg_come(proxy)
    my_idle = my_come(proxy, "root")
    busy.execute("BEGIN")
    busy.execute(f"INSERT INTO {table} VALUES (1)")
    proxy.tell(signal.SIGUSR1)
    wait_for(lambda: proxy.clients() == 1)
    with pytest.raises(psycopg.errors.AdminShutdown, match="terminating connection due to administrator command"):
        idle.execute("SELECT 1")
    with pytest.raises(pymysql.err.OperationalError):
        my_ask(my_idle, "SELECT 1")
    with closing(pg_come(proxy)) as late:
        busy.execute(f"INSERT INTO {table} VALUES (2)")
        busy.execute("COMMIT")
        with pytest.raises(psycopg.errors.AdminShutdown):
            busy.execute("SELECT 1")
        assert late.execute(f"SELECT a FROM {table} ORDER BY a").fetchall() == [(1,), (2,)]
    assert "closing 3 sessions" in proxy.log()


def test_drain_timeout_ends_sessions_that_do_not_become_idle(start_proxy, postgres):
    proxy = start_proxy(postgres=postgres, config="[limits]\ndrain_timeout = 0.2\n")
    busy = pg_come(proxy)
    busy.execute("BEGIN")
    proxy.tell(signal.SIGUSR1)
    wait_for(lambda: proxy.clients() == 0)
    with pytest.raises(psycopg.OperationalError):
        busy.execute("SELECT 1")


def test_a_session_that_writes_without_a_pause_ends_between_two_writes(start_proxy, postgres, mariadb, pg, table):
    """It is told in place of an answer to what was not done, and what it was told before is there."""
    pg(through=False).execute(f"CREATE TABLE {table} (a int)")
    with closing(mariadb.connect(database="d")) as admin:
        my_ask(admin, f"CREATE TABLE {table} (a int)")
    proxy = start_proxy(postgres=postgres, mariadb=mariadb)
    sql = f"{HINT.replace('20', 'auto')}INSERT INTO {table} VALUES (1)"
    pg_session, my_session = RawPostgres(proxy.postgres_port), my_come(proxy, "root")
    done = {"postgres": 0, "mariadb": 0}
    ended = {}

    def write_postgres() -> None:
        pg_session.sock.sendall(pg_query(sql))
        answer = pg_session.message()
        if answer[:1] == b"E":
            raise ConnectionError(answer)
        assert answer[:1] == b"C" and pg_session.message()[:1] == b"Z"

    def play(protocol: str, write) -> None:
        try:
            while True:
                write()
                done[protocol] += 1
        except (OSError, pymysql.Error) as e:
            ended[protocol] = e

    threads = [threading.Thread(target=play, args=("postgres", write_postgres)),
               threading.Thread(target=play, args=("mariadb", lambda: my_ask(my_session, sql)))]
    for thread in threads:
        thread.start()
    wait_for(lambda: min(done.values()) > 20)
    proxy.tell(signal.SIGUSR1)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert b"57P01" in ended["postgres"].args[0]
    assert ended["mariadb"].args[0] in (1053, 2006, 2013)
    assert len(pg(through=False).execute(f"SELECT a FROM {table}").fetchall()) == done["postgres"]
    with closing(mariadb.connect(database="d")) as admin:
        written = len(my_ask(admin, f"SELECT a FROM {table}"))
    assert written == done["mariadb"]


# --- death, names, reload ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("protocol", ["postgres", "mariadb"])
def test_death_shows_without_a_login(start_proxy, protocol):
    """Nobody has ever come; no monitor asks."""
    with (Postgres() if protocol == "postgres" else MariaDB()) as server:
        server.start()
        proxy = start_proxy(**{protocol: server})
        wait_for(lambda: "ready" in readyz(proxy))
        server.kill()
        wait_for(lambda: "Connection refused" in readyz(proxy))
        server.start()
        wait_for(lambda: "ready" in readyz(proxy))
        if protocol == "mariadb":
            # what looks for it does not come as a connection that does not log in, again and again
            seen = server.tail(1000).count("without authentication")
            wait_for(lambda: proxy.stats()["uptime_seconds"] > 5)
            assert server.tail(1000).count("without authentication") <= seen + 1


def test_a_unix_socket_whose_server_dies(start_proxy):
    with MariaDB() as server:
        server.start()
        proxy = start_proxy(mariadb=SimpleNamespace(address=f"unix:{server.socket}"))
        wait_for(lambda: "ready" in readyz(proxy))
        server.kill()
        wait_for(lambda: server.socket in readyz(proxy))


def test_a_server_that_does_not_answer(start_proxy, my_pair):
    """It listens, and says nothing: its monitor notices, and new sessions go elsewhere."""
    silent = my_pair.follower
    proxy = start_proxy(mariadb=behind(silent, my_pair.primary), config=MONITORED)
    wait_for(lambda: [b["up"] for b in proxy.stats()["backends"]] == [True, True])
    process = psutil.Process(silent.process.pid)
    process.suspend()
    try:
        wait_for(lambda: servers(proxy)[silent.address]["error"] in ("it does not answer", "timed out"))
        assert my_port(proxy) == my_pair.primary.port
    finally:
        process.resume()
    wait_for(lambda: servers(proxy)[silent.address]["up"])


def test_a_reload_adds_and_removes_servers(start_proxy, pg_pair):
    from pathlib import Path
    primary, standby = pg_pair.primary, pg_pair.follower
    proxy = start_proxy(postgres=standby)
    session = pg_come(proxy)
    text = Path(proxy.path).read_text()
    Path(proxy.path).write_text(text.replace(standby.address, f"{primary.address}, {standby.address}"))
    proxy.tell(signal.SIGHUP)
    wait_for(lambda: len(servers(proxy)) == 2)
    assert pg_port(proxy) == primary.port
    assert session.execute("SELECT inet_server_port()").fetchone() == (standby.port,)
    # who is on a server that is taken out is told
    Path(proxy.path).write_text(text.replace(standby.address, primary.address))
    proxy.tell(signal.SIGHUP)
    wait_for(lambda: len(servers(proxy)) == 1)
    wait_for(lambda: proxy.clients() == 0)
    with pytest.raises(psycopg.errors.AdminShutdown):
        session.execute("SELECT 1")


# --- cancel ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("known", [True, False])
def test_a_cancel_reaches_the_server_that_has_the_session(start_proxy, pg_pair, known):
    """Also one whose key nobody here knows, as when the session came through another proxy."""
    first = start_proxy(postgres=behind(pg_pair.primary, pg_pair.follower))
    second = first if known else start_proxy(postgres=behind(pg_pair.follower, pg_pair.primary))
    wait_for(lambda: [b["up"] for b in second.stats()["backends"]] == [True, True])
    session = RawPostgres(first.postgres_port)
    key = next(body for kind, body in pg_split(session.login)[0] if kind == b"K")
    session.sock.sendall(b"Q\0\0\0\x19SELECT pg_sleep(600)\0")
    wait_for(lambda: pg_pair.primary.ask("SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'"))
    with socket.create_connection(("127.0.0.1", second.postgres_port)) as sock:
        sock.sendall(b"\0\0\0\x10\x04\xd2\x16\x2e" + key)
        assert sock.recv(1) == b""
    assert b"57014" in session.answer()
    session.close()


# --- tqdb check ------------------------------------------------------------------------------------------------------

def test_check_has_a_row_for_each_server(pg_pair, my_pair, tmp_path):
    def check(target: str, mariadb: str) -> tuple[int, str]:
        path = tmp_path / "tqdb.ini"
        path.write_text(f"[postgres]\nlisten = 127.0.0.1:1\n[postgres.main]\nprimary = {pg_pair.address}\n{target}"
                        f"{MONITORED}[mariadb]\nlisten = 127.0.0.1:2\n[mariadb.main]\nprimary = {mariadb}\n{target}"
                        f"{MONITORED}")
        done = subprocess.run([*tqdb_command(), "check", "-c", str(path)], capture_output=True, text=True, timeout=60,
                              env={"COLUMNS": "220"})
        return done.returncode, done.stdout

    code, text = check(READ_WRITE, my_pair.address)
    assert code == 0, text
    rows = {address: next(line for line in text.splitlines() if address in line)
            for server in (*pg_pair.servers, *my_pair.servers) for address in [server.address]}
    for pair, method in ((pg_pair, "asks user tqdb for nothing"), (my_pair, "proposes mysql_native_password")):
        assert " primary " in rows[pair.primary.address] and " replica " in rows[pair.follower.address]
        assert "s behind" in rows[pair.follower.address]
        for server in pair.servers:
            assert " ok " in rows[server.address] and method in rows[server.address], rows
            assert "answers in" in rows[server.address]
    code, text = check(READ_WRITE, my_pair.follower.address)
    assert code == 1 and "mariadb.main: no server takes writes" in text
    code, text = check("", f"{my_pair.primary.address}, {nowhere().address}")
    assert code == 1 and text.count("FAILED") == 1
