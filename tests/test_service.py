"""The commands and the running service: configuration, readiness, reload, drain, limits."""

import os
import signal
import socket
import subprocess
import threading
import urllib.error
from pathlib import Path

import psycopg
import pytest

from tests.raw import RawPostgres
from tests.wait import wait_for
from tqdb.load.servers import Postgres, free_port


def run(command, *args: str, env=None, cwd=None):
    return subprocess.run([*command, *args], capture_output=True, text=True, timeout=60, cwd=cwd,
                          env={**os.environ, **(env or {})})


def status(proxy, path: str) -> int:
    try:
        proxy.get(path)
        return 200
    except urllib.error.HTTPError as e:
        return e.code


# --- commands -------------------------------------------------------------------------------------------------

def test_version_and_help(command):
    assert run(command, "--version").stdout.startswith("tqdb ")
    for sub in ([], ["serve"], ["check"], ["demo"], ["bench"]):
        done = run(command, *sub, "--help")
        assert done.returncode == 0 and "usage:" in done.stdout


@pytest.mark.parametrize("args", [["serve", "-c", "/missing.ini"], ["serve", "--postgres", "nonsense"], ["nothing"],
                                  ["serve", "--listen-postgres", "127.0.0.1:1"], ["bench", "nothing"],
                                  ["serve", "-c", "x", "--postgres", "127.0.0.1:1"]])
def test_bad_usage_is_exit_code_2(command, args):
    done = run(command, *args)
    assert done.returncode == 2 and done.stderr.strip()
    assert "Traceback" not in done.stderr


def test_no_configuration_is_told(command, tmp_path):
    done = run(command, "serve", cwd=tmp_path, env={"TQDB_CONFIG": ""})
    assert done.returncode == 2 and "-c FILE" in done.stderr


def test_an_address_in_use_is_exit_code_1(command, postgres):
    done = run(command, "serve", "--postgres", f"127.0.0.1:{postgres.port}", "--listen-postgres",
               f"127.0.0.1:{postgres.port}")
    assert done.returncode == 1 and "cannot listen" in done.stderr


def test_check(command, postgres, mariadb, tmp_path):
    path = tmp_path / "tqdb.ini"
    path.write_text(f"[postgres]\nlisten = 127.0.0.1:1\n[postgres.main]\nprimary = 127.0.0.1:{postgres.port}\n"
                    f"[mariadb]\nlisten = 127.0.0.1:2\n[mariadb.main]\nprimary = unix:{mariadb.socket}\n")
    done = run(command, "check", cwd=tmp_path, env={"COLUMNS": "200"})
    assert done.returncode == 0 and "PostgreSQL" in done.stdout and "MariaDB" in done.stdout, done.stdout
    path.write_text(f"[postgres]\nlisten = 127.0.0.1:1\n[postgres.main]\nprimary = 127.0.0.1:{free_port()}\n")
    done = run(command, "check", "-c", str(path))
    assert done.returncode == 1 and "FAILED" in done.stdout


def test_environment_names_the_backend(command, postgres, tmp_path):
    path = tmp_path / "tqdb.ini"
    path.write_text("[postgres]\nlisten = 127.0.0.1:1\n[postgres.main]\nprimary = 127.0.0.1:1\n")
    done = run(command, "check", env={"TQDB_CONFIG": str(path),
                                      "TQDB_POSTGRES_MAIN_PRIMARY": f"127.0.0.1:{postgres.port}"})
    assert done.returncode == 0, done.stdout


def test_unix_socket_backends(start_proxy, postgres, mariadb):
    class Socket:
        def __init__(self, path):
            self.address = f"unix:{path}"

    proxy = start_proxy(postgres=Socket(postgres.socket), mariadb=Socket(mariadb.socket))
    with psycopg.connect(postgres.dsn(proxy.postgres_port)) as connection:
        assert connection.execute("SELECT inet_server_addr()").fetchone() == (None,)
    with mariadb.connect(proxy.mariadb_port) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


# --- health ---------------------------------------------------------------------------------------------------

def test_pages(proxy):
    assert status(proxy, "/healthz") == 200
    assert status(proxy, "/nothing") == 404
    page = proxy.get("/")
    assert "<title>tqdb</title>" in page and "http://" not in page.replace("http://127", "")
    assert "# HELP tqdbproxy_query_total" in proxy.get("/metrics")
    openmetrics = proxy.get("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert openmetrics.endswith("# EOF\n")


def test_one_connection_many_requests(proxy):
    """Keep-alive, HEAD, requests sent ahead, a method that is not allowed, and nonsense."""
    import http.client
    connection = http.client.HTTPConnection("127.0.0.1", proxy.metrics_port, timeout=10)
    for method, path, code in (("GET", "/", 200), ("GET", "/stats.json", 200), ("HEAD", "/metrics", 200),
                               ("POST", "/", 405), ("GET", "/healthz?x=1", 200), ("GET", "/x", 404)):
        connection.request(method, path)
        answer = connection.getresponse()
        assert answer.status == code
        assert bool(answer.read()) == (method != "HEAD")
    connection.close()
    with socket.create_connection(("127.0.0.1", proxy.metrics_port), timeout=10) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 3 + b"nonsense\r\n\r\n")
        text = b""
        while data := sock.recv(65536):
            text += data
        assert text.count(b"200 OK") + text.count(b"HTTP/1.1 200") >= 3 and b"400" in text


def test_readyz_follows_the_backend(start_proxy):
    with Postgres() as server:
        server.start()
        proxy = start_proxy(postgres=server)
        wait_for(lambda: status(proxy, "/readyz") == 200)
        server.kill()
        wait_for(lambda: status(proxy, "/readyz") == 503)
        with pytest.raises(psycopg.OperationalError, match="could not connect to server"):
            psycopg.connect(server.dsn(proxy.postgres_port))
        assert status(proxy, "/healthz") == 200
        server.start()
        with psycopg.connect(server.dsn(proxy.postgres_port)) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        wait_for(lambda: status(proxy, "/readyz") == 200)


def test_a_dead_backend_ends_its_sessions(start_proxy):
    with Postgres() as server:
        server.start()
        proxy = start_proxy(postgres=server)
        connection = psycopg.connect(server.dsn(proxy.postgres_port), autocommit=True)
        connection.execute("SELECT 1")
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        wait_for(lambda: proxy.clients() == 0)


def test_mariadb_backend_that_is_not_there(start_proxy, mariadb):
    import pymysql

    class Nowhere:
        address = f"127.0.0.1:{free_port()}"

    proxy = start_proxy(mariadb=Nowhere())
    with pytest.raises(pymysql.OperationalError) as e:
        mariadb.connect(proxy.mariadb_port)
    assert e.value.args[0] == 2003


# --- limits ---------------------------------------------------------------------------------------------------

def test_too_many_clients(start_proxy, postgres, mariadb):
    import pymysql
    proxy = start_proxy(postgres=postgres, mariadb=mariadb, config="[limits]\nmax_client_connections = 2\n")
    held = [RawPostgres(proxy.postgres_port) for _ in range(2)]
    with pytest.raises(psycopg.OperationalError, match="too many client connections"):
        psycopg.connect(postgres.dsn(proxy.postgres_port))
    with pytest.raises(pymysql.OperationalError) as e:
        mariadb.connect(proxy.mariadb_port)
    assert e.value.args[0] == 1040
    held.pop().close()
    wait_for(lambda: proxy.clients() == 1)
    assert RawPostgres(proxy.postgres_port).query("SELECT 1")


def test_label_sets_are_bounded(start_proxy, postgres):
    proxy = start_proxy(postgres=postgres, config="[writebatch]\nmax_label_sets = 10\n")
    session = RawPostgres(proxy.postgres_port)
    for n in range(30):
        session.query(f"/* file:f{n}.py line:{n} */ SELECT 1")
    assert proxy.metric("tqdbproxy_query_total", file="other", line="other") == 20
    assert proxy.metric("tqdbproxy_label_sets_dropped_total") == 20
    assert proxy.metric("tqdbproxy_query_total", file="f3.py", line="3") == 1


def test_strange_bytes_in_labels(start_proxy, postgres):
    proxy = start_proxy(postgres=postgres)
    session = RawPostgres(proxy.postgres_port)
    session.query(b'/* file:a"\\\xff\xfe line:\xf0\x9f\x99\x82 */ SELECT 1')
    assert proxy.metric("tqdbproxy_query_total", query_type="select") == 1


# --- signals --------------------------------------------------------------------------------------------------

def test_reload(start_proxy, postgres):
    proxy = start_proxy(postgres=postgres)
    text = Path(proxy.path).read_text()
    Path(proxy.path).write_text(text + "[writebatch]\nnonsense = 1\n")
    proxy.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "reload refused" in proxy.log() and "nonsense" in proxy.log())
    Path(proxy.path).write_text(text.replace(f":{postgres.port}", f":{free_port()}").replace(
        f":{proxy.metrics_port}", f":{free_port()}") + "[writebatch]\nmax_batch_size = 5\n")
    proxy.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "reloaded" in proxy.log())
    assert "need a restart" in proxy.log() and "[metrics] listen" in proxy.log()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres.dsn(proxy.postgres_port))


def test_what_needs_a_restart_stays_as_it_is(start_proxy, postgres, mariadb):
    """Also a protocol whose section has gone from the file; with the first file again nothing is left to tell."""
    def reload(text: str) -> str:
        """What the log says of it."""
        before = len(proxy.log())
        Path(proxy.path).write_text(text)
        proxy.tell(signal.SIGHUP)
        return wait_for(lambda: "reloaded" in proxy.log()[before:], what="the reload") and proxy.log()[before:]

    def come() -> None:
        with psycopg.connect(postgres.dsn(proxy.postgres_port)) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        with mariadb.connect(proxy.mariadb_port) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)

    proxy = start_proxy(postgres=postgres, mariadb=mariadb)
    whole = Path(proxy.path).read_text()
    without = whole.partition("[mariadb]")[0]
    for _ in range(2):
        said = reload(without + "[writebatch]\nmax_label_sets = 10\nmax_batch_size = 5\n")
        assert "need a restart and stay as they are: [mariadb], [writebatch] max_label_sets" in said
        come()
    moved = whole.replace(f":{proxy.postgres_port}", f":{free_port()}")
    said = reload(moved + "[limits]\nmax_client_connections = 7\n")
    assert "stay as they are: [postgres] listen\n" in said and "max_client_connections: 10000 -> 7" in said
    come()
    assert "restart" not in reload(whole)
    come()


def test_drain_answers_what_is_gathered(start_proxy, postgres, pg, table):
    """SIGTERM: a gathered write is sent and answered, an open transaction may end, then the process ends with 0."""
    proxy = start_proxy(postgres=postgres, config="[writebatch]\nmax_wait_ms_limit = 600000\n")
    pg(through=False).execute(f"CREATE TABLE {table} (a int)")
    connect = lambda: psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True,  # noqa: E731
                                      cursor_factory=psycopg.ClientCursor)
    writers = [connect() for _ in range(3)]
    bystander = connect()
    for c in (*writers, bystander):
        c.execute(f"/* max_wait_ms:1 */ INSERT INTO {table} (a) VALUES (0)")
    transaction = connect()
    transaction.execute("BEGIN")
    transaction.execute(f"INSERT INTO {table} (a) VALUES (100)")
    results: list = []

    def write(c, n):
        results.append(c.execute(f"/* max_wait_ms:500000 */ INSERT INTO {table} (a) VALUES ({n})").rowcount)

    threads = [threading.Thread(target=write, args=(c, n)) for n, c in enumerate(writers, 1)]
    for t in threads:
        t.start()
    wait_for(lambda: proxy.clients("waiting") == 3)
    proxy.process.send_signal(signal.SIGTERM)
    for t in threads:
        t.join(20)
    assert results == [1, 1, 1]
    with pytest.raises(psycopg.OperationalError):
        bystander.execute("SELECT 1")
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", proxy.postgres_port), timeout=5)
    transaction.execute(f"INSERT INTO {table} (a) VALUES (101)")
    transaction.execute("COMMIT")
    assert proxy.process.wait(20) == 0
    rows = pg(through=False).execute(f"SELECT a FROM {table} WHERE a > 0 ORDER BY a").fetchall()
    assert rows == [(1,), (2,), (3,), (100,), (101,)]


def test_a_second_sigterm_ends_at_once(start_proxy, postgres):
    proxy = start_proxy(postgres=postgres)
    session = RawPostgres(proxy.postgres_port)
    session.query("BEGIN")
    proxy.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "draining" in proxy.log())
    assert proxy.process.poll() is None

    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.process.wait(20) == 0
    assert "second signal" in proxy.log()


def test_drain_timeout_ends_it(start_proxy, postgres):
    proxy = start_proxy(postgres=postgres, config="[limits]\ndrain_timeout = 0.3\n")
    session = RawPostgres(proxy.postgres_port)
    session.query("BEGIN")
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.process.wait(20) == 0
    assert "drain_timeout" in proxy.log()
