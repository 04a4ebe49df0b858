"""The frozen executable where nothing else is: a root directory with the C library and zlib, and no Python."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.crowd import together
from tests.fix_servers import tqdb_command
from tests.roots import chrooted, kernels_files
from tests.wait import wait_for
from tqdb.load.servers import Proxy, free_port
from tqdb.notify import Notifier

ROOT = Path(__file__).parent.parent
PACKAGES = ("libc6", "zlib1g")      # what is promised to be enough
TOOLS = ("gevent", "flask", "matplotlib", "locust", "numpy", "rich")


def frozen() -> bool:
    program = Path(tqdb_command()[0])
    return program.name != Path(sys.executable).name and program.is_file() and zipfile.is_zipfile(program)


needs_binary = pytest.mark.skipif(not frozen(), reason="TQDB_BIN names no frozen executable")


@pytest.fixture(scope="module")
def bare_root(tmp_path_factory):
    """``bare_root(*command)`` is that command line in the bare root."""
    if os.geteuid() != 0 or shutil.which("dpkg") is None:
        pytest.skip("needs root, to change the root directory, and Debian's packages")
    root = tmp_path_factory.mktemp("root")
    for package in PACKAGES:
        for line in subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=True).stdout.split():
            if ".so" in line and os.path.isfile(line):
                for place in {line, line.replace("/usr/lib", "/lib")}:
                    (root / place[1:]).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(line, root / place[1:])
    loader = Path("/lib64/ld-linux-x86-64.so.2")
    (root / "lib64").mkdir(exist_ok=True)
    shutil.copy2(loader.resolve(), root / "lib64" / loader.name)
    shutil.copy2(tqdb_command()[0], root / "tqdb")
    (root / "tmp").mkdir()
    assert not list(root.rglob("python*"))
    with kernels_files(root):
        yield lambda *command: chrooted(root, "/tqdb", *command)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300,
                          env={"PATH": os.environ["PATH"], "HOME": "/tmp", "COLUMNS": "150"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_binary
def test_simple_commands_without_python(bare_root):
    assert run(*bare_root("--version")).startswith("tqdb ")
    assert "[postgres.main]" in run(*bare_root("config"))
    licenses = run(*bare_root("licenses"))
    for name in ("GNU GENERAL PUBLIC LICENSE", "pglast", "sqlglot", "gevent", "Python", "libssl", "matplotlib"):
        assert name in licenses
    assert re.match(r"locust \d", run(*bare_root("locust", "--version")))


@needs_binary
def test_check_and_serve_without_python(bare_root, postgres, mariadb, pg, table):
    addresses = ("--postgres", postgres.address, "--mariadb", mariadb.address)
    assert "PostgreSQL" in run(*bare_root("check", *addresses))
    pg(through=False).execute(f"CREATE TABLE {table} (a int)")
    port, mariadb_port = free_port(), free_port()
    process = subprocess.Popen(bare_root("serve", *addresses, "--listen-postgres", f"127.0.0.1:{port}",
                                         "--listen-mariadb", f"127.0.0.1:{mariadb_port}"),
                               stderr=subprocess.PIPE, text=True, env={"HOME": "/tmp"})
    try:
        assert " ready " in process.stderr.readline()

        def write(i: int):
            with psycopg.connect(postgres.dsn(port), autocommit=True) as connection:
                for _ in range(20):
                    connection.execute(f"/* max_wait_ms:5 */ INSERT INTO {table} VALUES ({i})")
                return dict(connection.execute("SHOW TQDB STATUS").fetchall())

        status = together(8, write)
        assert int(status[0]["Batched_writes_total"]) > 1
        assert pg(through=False).execute(f"SELECT count(*) FROM {table}").fetchone() == (160,)
    finally:
        process.terminate()
        assert process.wait(20) == 0


@needs_binary
@pytest.mark.parametrize("protocol", ["postgres", "mariadb"])
def test_bench_and_locust_without_python(bare_root, request, proxy, protocol):
    server = request.getfixturevalue(protocol)
    url = {"postgres": "postgresql://postgres@127.0.0.1:{}/postgres", "mariadb": "mysql://root@127.0.0.1:{}/d"}[protocol]
    scenario = ("engine", "null") if protocol == "postgres" else ()
    out = run(*bare_root("bench", "write", *scenario, "--quick", "--target", "10k", "--server",
                         url.format(server.port)))
    assert "batched" in out and (not scenario or "engine" in out)
    port = getattr(proxy, f"{protocol}_port")
    out = run(*bare_root("locust", "--headless", "--host", url.format(port), "-u", "5", "-r", "5", "-t", "2s",
                         "--only-summary"))
    assert re.search(r"insert, hinted\s+\d+\s+0\(0.00%\)", out), out


@needs_binary
def test_it_is_small_and_idles_small(start_proxy, postgres):
    """Below 80 MiB on disk, and in memory with its loader; nothing of what only tools need is loaded."""
    assert Path(tqdb_command()[0]).stat().st_size < 80 * 1024 * 1024
    proxy = start_proxy(postgres=postgres)
    process = psutil.Process(proxy.process.pid)
    family = [process, *process.children(recursive=True)]
    assert sum(p.memory_info().rss for p in family) < 80 * 1024 * 1024
    mapped = "\n".join(m.path for p in family for m in p.memory_maps())
    assert "libpython" in mapped and not [name for name in TOOLS if f"/{name}/" in mapped]


def test_serve_imports_nothing_of_the_tools():
    code = ("import sys, tqdb.cli, tqdb.server; from tqdb.config import from_arguments; "
            "tqdb.server.Server(from_arguments('127.0.0.1:1', '127.0.0.1:1', None, None, None)); "
            f"print([m for m in {TOOLS!r} if m in sys.modules])")
    assert run(sys.executable, "-c", code) == "[]\n"


def test_nothing_is_imported_once_it_is_ready(postgres, mariadb, pg, table):
    """Every kind of statement and page is used; the modules loaded afterwards are those loaded when it was ready.

    From source: the executable's modules, which are the same, cannot be asked.
    """
    code = ("import sys, tqdb.cli, tqdb.log\ntqdb.log.set_up()\nfrom tqdb.server import Server\n"
            "from tqdb.config import read_file\ns = Server(read_file(sys.argv[-1]))\nstart = s.start\n"
            "def watched():\n    start(); s.before = set(sys.modules)\n"
            "s.start = watched\ns.run()\nprint('imported', sorted(set(sys.modules) - s.before), file=sys.stderr)\n")
    proxy = Proxy(postgres=postgres, mariadb=mariadb)
    proxy.command = [sys.executable, "-c", code, proxy.path]
    with proxy:
        proxy.start()
        pg(through=False).execute(f"CREATE TABLE {table} (a int)")

        def write(i: int):
            with psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True) as connection:
                connection.execute(f"/* max_wait_ms:5 */ INSERT INTO {table} VALUES (%s)", (i,))
                connection.execute(f"/* max_wait_ms:5 */ UPDATE {table} SET a = a + 1 WHERE a = {i}")
                connection.execute("SET tqdb.max_wait_ms = 5")
                connection.execute("SHOW TQDB STATUS")
                with contextlib.suppress(psycopg.Error):
                    connection.execute(f"/* max_wait_ms:5 */ INSERT INTO {table} VALUES ('x')")

        together(4, write)
        with mariadb.connect(proxy.mariadb_port, database="d") as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {table} (a int)")
            cursor.execute(f"/* max_wait_ms:5 */ INSERT INTO {table} VALUES (1) ON DUPLICATE KEY UPDATE a = 2")
            cursor.execute(f"/* max_wait_ms:5 */ INSERT INTO {table} VALUES (1)")
            cursor.execute("SHOW TQDB STATUS")
        import urllib.request
        for path in ("/", "/metrics", "/stats.json", "/healthz", "/readyz"):
            urllib.request.urlopen(f"http://127.0.0.1:{proxy.metrics_port}{path}", timeout=10).read()
        proxy.process.terminate()
        assert proxy.process.wait(20) == 0
        assert "imported []" in proxy.log(), proxy.log()


# --- systemd --------------------------------------------------------------------------------------------------

def test_systemd_is_told(command, postgres, tmp_path):
    """READY=1, the watchdog, reloading, stopping, in that order, as sd_notify(3) has it."""
    import signal
    import socket
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(30)
        proxy = Proxy(postgres=postgres, command=command)
        environment = {**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"}

        def until(word: str) -> list[str]:
            seen = []
            while not any(word in lines for lines in seen):
                seen.append(sock.recv(1000).decode())
            return seen

        with open(proxy.log_path, "ab") as log:
            proxy.process = subprocess.Popen(proxy.command, stdout=log, stderr=log, env=environment)
        with proxy:
            assert until("READY=1") == [f"READY=1\nMAINPID={proxy.process.pid}"]
            assert "clients" in until("WATCHDOG=1")[-1]
            until("WATCHDOG=1")
            proxy.process.send_signal(signal.SIGHUP)
            assert "MONOTONIC_USEC=" in until("RELOADING=1")[-1]
            until("READY=1")
            # the one that takes over says so; of the other nothing more is heard
            proxy.process.send_signal(signal.SIGUSR2)
            *before, ready = until("MAINPID=")
            successor = psutil.Process(int(ready.partition("MAINPID=")[2]))
            assert successor.pid != proxy.process.pid and not any("STOPPING" in lines for lines in before)
            assert proxy.process.wait(20) == 0
            assert "clients" in until("WATCHDOG=1")[-1]
            successor.terminate()
            assert not any("MAINPID" in lines for lines in until("STOPPING=1"))
            wait_for(lambda: not successor.is_running() or successor.status() == psutil.STATUS_ZOMBIE)


def test_without_systemd_nothing_is_sent():
    nobody = Notifier({})
    nobody.tell("READY=1")
    assert nobody.watchdog_seconds is None
    assert Notifier({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog_seconds is None
    abstract = Notifier({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1000000"})
    assert abstract.watchdog_seconds == 0.5 and abstract.address == "\0x"
    abstract.tell("READY=1")


def test_ctrl_c_on_a_terminal_drains(command, postgres):
    """The terminal's SIGINT goes to the loader and to the proxy, and the loader passes its own on: that is one."""
    import signal
    proxy = Proxy(postgres=postgres, command=command).start()
    try:
        from tests.raw import RawPostgres
        session = RawPostgres(proxy.postgres_port)
        session.query("BEGIN")
        os.killpg(proxy.process.pid, signal.SIGINT)
        wait_for(lambda: "still busy" in proxy.log() or proxy.process.poll() is not None, what=proxy.log)
        assert proxy.process.poll() is None, proxy.log()
        session.query("COMMIT")
        assert proxy.process.wait(20) == 0
        assert "second signal" not in proxy.log()
    finally:
        proxy.stop()
