"""Throwaway servers and the proxies before them, one of each for the whole run, made when first asked for.

``TQDB_BIN`` names the executable to test (the frozen binary, for instance): most tests go through it, and all commands
that they run are its. Default is this checkout's own.
"""

import itertools
import json
import os
import shlex
import shutil
import sys
import urllib.request

import psutil
import psycopg
import pytest

from tqdb.load import servers
from tqdb.load.servers import MariaDB, Postgres, Proxy


def pytest_configure(config):
    """Each of pytest-xdist's workers has ports of its own: nobody may listen yet on one that another was given."""
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        servers.PORTS = servers.PORTS[int(worker["workerid"].removeprefix("gw"))::worker["workercount"]]


def tqdb_command() -> list[str]:
    chosen = shlex.split(os.environ.get("TQDB_BIN", ""))
    if not chosen:
        return [sys.executable, "-m", "tqdb"]
    program = shutil.which(chosen[0])
    assert program, f"TQDB_BIN: there is no {chosen[0]}"
    return [os.path.abspath(program), *chosen[1:]]


class ProxyUnderTest(Proxy):
    """A proxy with the metrics read as numbers."""

    def get(self, path: str, accept: str = "") -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{self.metrics_port}{path}", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()

    def tell(self, signal: int) -> None:
        """Sends a signal to the process, and to the one that the frozen executable has started for itself."""
        process = psutil.Process(self.process.pid)
        for one in (process, *process.children(recursive=True)):
            one.send_signal(signal)

    def stats(self) -> dict:
        return json.loads(self.get("/stats.json"))

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of ``name`` that carry ``labels``."""
        from prometheus_client.parser import text_string_to_metric_families
        total = 0.0
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    total += sample.value
        return total

    def batched(self) -> int:
        """Writes that went in batches."""
        return self.stats()["batched_writes_total"]

    def mixed(self) -> int:
        """Units of batches, each of a shape of its own, that left with another unit."""
        stats = self.stats()
        return sum(stats["methods"].values()) - stats["batches_total"]

    def counted(self, reason: str) -> float:
        """Writes that went alone for ``reason``."""
        return self.metric("tqdbproxy_individual_writes_total", reason=reason)

    def clients(self, state: str = "") -> int:
        """Client sessions, of one state or all."""
        return sum(c["count"] for c in self.stats()["client_connections"] if state in ("", c["state"]))


@pytest.fixture(scope="session")
def command() -> list[str]:
    return tqdb_command()


@pytest.fixture(scope="session")
def postgres():
    with Postgres() as server:
        yield server.start()


@pytest.fixture(scope="session")
def mariadb():
    with MariaDB(log_bin="binlog", server_id="1") as server:
        server.start()
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE d")
        yield server


@pytest.fixture(scope="session")
def proxy(postgres, mariadb):
    with ProxyUnderTest(postgres, mariadb, tqdb_command()) as proxy:
        yield proxy.start()
        assert proxy.process.poll() is None, proxy.log()
        assert "Traceback" not in proxy.log(), proxy.log()


@pytest.fixture
def start_proxy():
    """Makes proxies of the test's own: ``start_proxy(postgres=…, mariadb=…, config=…)``.

    There are hundreds, and the executable takes its time to unpack itself: they are this checkout's.
    """
    started = []

    def make(**options):
        proxy = ProxyUnderTest(**options)
        started.append(proxy)
        return proxy.start()

    yield make
    for proxy in started:
        log = proxy.log()
        proxy.stop()
        assert "Traceback" not in log, log


_names = itertools.count(1)


@pytest.fixture
def table() -> str:
    """A table name that no other test uses."""
    return f"t{next(_names)}"


@pytest.fixture
def pg(postgres, proxy):
    """``pg(through=True)`` opens a psycopg connection through the proxy, ``pg(through=False)`` a direct one."""
    opened = []

    def connect(through: bool = True, options: str = "", **more):
        connection = psycopg.connect(
            postgres.dsn(proxy.postgres_port if through else None) + (f" options='{options}'" if options else ""),
            autocommit=True, cursor_factory=psycopg.ClientCursor, **more)
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def my(mariadb, proxy):
    """``my(through=True)`` opens a PyMySQL connection through the proxy, ``my(through=False)`` a direct one."""
    opened = []

    def connect(through: bool = True, **more):
        connection = mariadb.connect(proxy.mariadb_port if through else None, **{"database": "d", **more})
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        if connection.open:
            connection.close()
