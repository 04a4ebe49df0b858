"""A proxy replaced again and again under load: ``python -m tests.rolling [--protocol postgres|mariadb] [--rounds N]``.

Some writers come, write and go, over TCP and the Unix socket; some stay for a while; somebody asks ``/healthz``. Nobody
may be refused or see an error, and what is written is what was acknowledged. Exit code 1: it was not so.
"""

import argparse
import contextlib
import functools
import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import psutil
import psycopg
import pymysql

from tests.fix_servers import ProxyUnderTest, tqdb_command
from tests.wait import wait_for
from tqdb.load.servers import MariaDB, Postgres, dying_with_parent

WRITERS = 16
WRITES_IN_A_VISIT = 5
STAY_SECONDS = 1.5
ROW = "/* max_wait_ms=3 */ INSERT INTO rolling VALUES ({})"


class Postgresql:
    """What the rounds need of PostgreSQL."""

    def __init__(self):
        self.server = Postgres()

    def prepare(self) -> None:
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE rolling (k bigint PRIMARY KEY)")

    def connect(self, proxy: ProxyUnderTest, unix: bool):
        dsn = self.server.dsn(proxy.postgres_port)
        if unix:
            # libpq makes the name of the file from directory and port
            dsn += f" host={proxy.directory}"
        return psycopg.connect(dsn, autocommit=True)

    def kept(self) -> list[int]:
        with psycopg.connect(self.server.dsn()) as connection:
            return [k for k, in connection.execute("SELECT k FROM rolling").fetchall()]


class Mariadb:
    """What the rounds need of MariaDB."""

    def __init__(self):
        self.server = MariaDB()

    def prepare(self) -> None:
        with self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE d")
            cursor.execute("CREATE TABLE d.rolling (k bigint PRIMARY KEY)")

    def connect(self, proxy: ProxyUnderTest, unix: bool):
        if unix:
            return pymysql.connect(unix_socket=f"{proxy.directory}/mariadb.sock", user="root", database="d",
                                   autocommit=True)
        return self.server.connect(proxy.mariadb_port, database="d", autocommit=True)

    def kept(self) -> list[int]:
        with self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT k FROM d.rolling")
            return [k for k, in cursor.fetchall()]


KINDS = {"postgres": Postgresql, "mariadb": Mariadb}


class Writer(threading.Thread):
    """Comes, writes keys from ``first`` on and goes, again and again; one that ``stays`` does so for a while."""

    def __init__(self, connect, first: int, stays: bool):
        super().__init__(daemon=True)
        self.connect, self.next, self.stays = connect, first, stays
        self.acknowledged: list[int] = []
        self.visits = 0
        self.errors: Counter[str] = Counter()
        self.stopped = False

    def run(self) -> None:
        while not self.stopped:
            try:
                self.visit()
                self.visits += 1
            except (OSError, psycopg.Error, pymysql.Error) as e:
                self.errors[f"{type(e).__name__}: {e}"] += 1
                time.sleep(0.01)

    def visit(self) -> None:
        ends = time.monotonic() + STAY_SECONDS
        with contextlib.closing(self.connect()) as connection, contextlib.closing(connection.cursor()) as cursor:
            written = 0
            while not self.stopped and (time.monotonic() < ends if self.stays else written < WRITES_IN_A_VISIT):
                self.next += 1
                cursor.execute(ROW.format(self.next))
                self.acknowledged.append(self.next)
                written += 1


class Asker(threading.Thread):
    """Asks for ``/healthz``, on a new connection each time."""

    def __init__(self, port: int):
        super().__init__(daemon=True)
        self.port = port
        self.visits = 0
        self.errors: Counter[str] = Counter()
        self.stopped = False

    def run(self) -> None:
        while not self.stopped:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                connection.request("GET", "/healthz")
                answer = connection.getresponse()
                if answer.status == 200:
                    self.visits += 1
                else:
                    self.errors[f"/healthz: {answer.status}"] += 1
            except (OSError, http.client.HTTPException) as e:
                self.errors[f"/healthz: {type(e).__name__}: {e}"] += 1
            finally:
                connection.close()
            time.sleep(0.002)


class Play:
    """A server, a proxy before it, and load; ``round`` replaces the proxy."""

    def __init__(self, protocol: str):
        self.protocol = protocol
        self.kind = KINDS[protocol]()
        self.crowd: list[Writer | Asker] = []

    def __enter__(self):
        server = self.kind.server.start()
        self.kind.prepare()
        self.proxy = ProxyUnderTest(**{self.protocol: server}, command=tqdb_command(),
                                    options=("--log-format", "json"))
        if self.protocol == "postgres":
            # a name that libpq can make
            with open(self.proxy.path, encoding="utf-8") as f:
                text = f.read()
            with open(self.proxy.path, "w", encoding="utf-8") as f:
                f.write(text.replace("/postgres.sock", f"/.s.PGSQL.{self.proxy.postgres_port}"))
        self.proxy.process = self._start()
        wait_for(lambda: self.events("ready"), what=self.proxy.log)
        self.current = self.proxy.process.pid
        return self

    def __exit__(self, *_):
        self.stop_load()
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.proxy.stop()
        self.kind.server.__exit__(None, None, None)

    def _start(self, *more: str) -> subprocess.Popen:
        with open(self.proxy.log_path, "ab") as log:
            return subprocess.Popen(dying_with_parent(*self.proxy.command, *more), stdout=log, stderr=log,
                                    stdin=subprocess.DEVNULL, start_new_session=True)

    def events(self, name: str) -> list[dict]:
        return [e for e in map(json.loads, self.proxy.log().splitlines()) if e["event"] == name]

    def processes(self) -> list[psutil.Process]:
        """Every proxy of this play, and what has started it."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess):
                if self.proxy.path in process.cmdline():
                    found.append(process)
        return found

    def load(self) -> None:
        for n in range(WRITERS):
            connect = functools.partial(self.kind.connect, self.proxy, n % 4 == 3)
            self.crowd.append(Writer(connect, n * 10**9, stays=n % 2 == 0))
        self.crowd.append(Asker(self.proxy.metrics_port))
        for one in self.crowd:
            one.start()
        self.everybody_got_on()

    def everybody_got_on(self) -> None:
        """Waits until everybody has been served once more, from the connection on."""
        before = [one.visits for one in self.crowd]
        wait_for(lambda: all(one.visits > n + 1 for one, n in zip(self.crowd, before, strict=True)), timeout=60,
                 what=lambda: f"progress: {self.errors()}, {self.proxy.log()[-2000:]}")

    def stop_load(self) -> None:
        for one in self.crowd:
            one.stopped = True
        for one in self.crowd:
            one.join(60)

    def replace(self, by_signal: bool) -> None:
        """One generation takes over from the one before: told by SIGUSR2, or a process that is started beside it."""
        done = len(self.events("took_over"))
        if by_signal:
            started = len(self.events("successor_started"))
            psutil.Process(self.current).send_signal(signal.SIGUSR2)
            wait_for(lambda: len(self.events("successor_started")) > started, what=self.proxy.log)
            self.current = self.events("successor_started")[-1]["process"]
        else:
            self.current = self._start("--replace").pid
        wait_for(lambda: len(self.events("took_over")) > done, what=self.proxy.log)
        self.everybody_got_on()

    def restart(self) -> None:
        """The way that refuses connections: the old one ends before the new one starts."""
        ready = len(self.events("ready"))
        psutil.Process(self.current).send_signal(signal.SIGTERM)
        wait_for(lambda: len(self.events("drained")) == ready, what=self.proxy.log)
        self.current = self._start().pid
        wait_for(lambda: len(self.events("ready")) > ready, what=self.proxy.log)
        self.everybody_got_on()

    def errors(self) -> Counter[str]:
        return sum((one.errors for one in self.crowd), Counter())

    def account(self) -> tuple[int, int, bool]:
        """``(acknowledged writes, connections, whether exactly those writes are there)``, the load being stopped."""
        writers = [one for one in self.crowd if isinstance(one, Writer)]
        acknowledged = [k for one in writers for k in one.acknowledged]
        return len(acknowledged), sum(one.visits for one in writers), sorted(acknowledged) == sorted(self.kind.kept())

    def old_ones_end(self) -> None:
        """Without sessions, only the last generation stays."""
        wait_for(lambda: {p.pid for p in self.processes()} <= {self.current, *(
            c.pid for c in psutil.Process(self.current).children(recursive=True))}, what=self.proxy.log)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", choices=tuple(KINDS), help="default: both, in turn")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    wrong = False
    for protocol in [options.protocol] if options.protocol else KINDS:
        with Play(protocol) as play:
            play.load()
            for n in range(options.rounds):
                play.replace(by_signal=n % 2 == 1)
            play.stop_load()
            play.old_ones_end()
            writes, connections, exact = play.account()
            errors = play.errors()
        print(f"{protocol}: {options.rounds} times replaced, {connections} connections, {writes} writes acknowledged, "
              f"{errors.total()} errors, {'and exactly these are there' if exact else 'WHICH ARE NOT WHAT IS THERE'}",
              *(f"  {count} times {text}" for text, count in errors.items()), sep="\n", flush=True)
        wrong = wrong or not exact or errors.total() > 0
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
