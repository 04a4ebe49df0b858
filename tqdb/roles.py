"""What a server is: asked on a connection of the monitor's, or of an HTTP check. Everything here may block.

PostgreSQL: in recovery or not, read-only by default, timeline, lag. MariaDB and MySQL: ``read_only``, the state of a
Galera node, lag. HTTP: who answers 200 takes writes, as Patroni's ``/primary`` has it.
"""

import http.client
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

from tqdb import tls
from tqdb.config import Backend
from tqdb.lookup import Candidates
from tqdb.values import Address

PRIMARY, REPLICA, NOT_READY, OUTDATED, UNKNOWN = ROLES = "primary", "replica", "not ready", "outdated", "unknown"
ANSWER_SECONDS = 2          # that a connection or an answer may take
CHECK_SECONDS = 1           # … of HTTP, which is asked for each answer anew
MAX_BODY = 65536            # bytes of an answer of HTTP that are read

_POSTGRES = """\
SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('default_transaction_read_only'),
 pg_catalog.current_setting('server_version')"""
# the timeline, of a primary; seconds behind, of a standby. Some managed servers refuse the first.
_POSTGRES_MORE = """\
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE
 pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END,
 CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN NULL
 WHEN pg_catalog.pg_last_wal_receive_lsn() = pg_catalog.pg_last_wal_replay_lsn() THEN 0 ELSE
 pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()) END"""
_MARIADB = """\
SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'innodb_read_only', 'version', 'version_comment', 'wsrep_on',
 'wsrep_reject_queries')"""
_GALERA = """\
SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_cluster_status', 'wsrep_local_state_comment',
 'wsrep_cluster_size')"""
_OFF = ("OFF", "0", "")


@dataclass(frozen=True)
class Said:
    """What is known of a server after one question.

    ``up``: it takes connections; None: nobody asked. ``error``: why not, or why its role is not known. ``lag`` and
    ``latency`` in seconds; ``timeline`` of a PostgreSQL primary; ``galera``: state and number of nodes.
    """

    up: bool | None = True
    role: str = UNKNOWN
    error: str = ""
    version: str = ""
    latency: float | None = None
    lag: float | None = None
    timeline: int = 0
    galera: str = ""


class Asker(ABC):
    """Asks one server; ``close`` ends what is kept between questions."""

    def __init__(self, backend: Backend, address: Address, demand: tls.Demand | None):
        self.backend = backend
        self.address = address
        self.demand = None if address.unix else demand

    @abstractmethod
    def ask(self, candidates: Candidates) -> Said:
        """``candidates``: where the server is now. What goes wrong is told, not raised."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection, if there is one."""


class _Connected(Asker):
    """Keeps a connection between questions, as long as the server's addresses have its."""

    def __init__(self, *args):
        super().__init__(*args)
        self.connection = None
        self.at: tuple | None = None
        self.more = True            # the second question is worth asking

    def ask(self, candidates: Candidates) -> Said:
        if self.connection is not None and self.at not in candidates:
            self.close()
        said = Said(False, error="no address")
        for candidate in [self.at] if self.connection is not None else candidates:
            began = time.monotonic()
            try:
                if self.connection is None:
                    self.more = True
                    self.connection, self.at = self.connect(candidate), candidate
                    began = time.monotonic()
                return self.question(began)
            except Exception as e:
                said = self.failed(e, candidate)
                self.close()
                if said.up:
                    return said
        return said

    @abstractmethod
    def connect(self, candidate: tuple[int, object]):
        """A connection that is logged in."""

    @abstractmethod
    def question(self, began: float) -> Said:
        """What the server says on ``connection``."""

    @abstractmethod
    def failed(self, error: Exception, candidate: tuple[int, object]) -> Said:
        """What an error tells of the server."""

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception:
                pass            # it has gone


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class PostgresAsker(_Connected):
    @cached_property
    def driver(self):
        """Imported by who asks, which takes a while."""
        import psycopg
        return psycopg

    def _conninfo(self, candidate: tuple[int, object]) -> dict[str, str]:
        backend = self.backend
        options = {"dbname": "postgres", "application_name": "tqdb monitor", "gssencmode": "disable",
                   "connect_timeout": str(ANSWER_SECONDS), "tcp_user_timeout": str(1000 * ANSWER_SECONDS)}
        if self.address.unix:
            # libpq wants the directory and the port in the name
            folder, name = os.path.split(self.address.host)
            options |= {"host": folder, "port": name.rpartition(".")[2]}
        else:
            options |= {"host": self.address.host, "hostaddr": candidate[1][0],
                        "port": str(self.address.port), "sslmode": "disable"}
        if backend.monitor_user is not None:
            options["user"] = backend.monitor_user
        if self.demand is not None:
            options["sslmode"] = backend.tls
            if self.demand.verified:
                options["sslrootcert"] = tls.system_file() if backend.tls_ca == "system" else backend.tls_ca
            if backend.tls_cert is not None:
                options |= {"sslcert": backend.tls_cert, "sslkey": backend.tls_key or backend.tls_cert}
        if backend.monitor_password is not None:
            options["password"] = backend.monitor_password.text
        return options

    def connect(self, candidate):
        return self.driver.connect(**self._conninfo(candidate), autocommit=True, prepare_threshold=None)

    def question(self, began: float) -> Said:
        standby, read_only, version = self.connection.execute(_POSTGRES).fetchone()
        latency = time.monotonic() - began
        timeline = lag = None
        if self.more:
            try:
                timeline, lag = self.connection.execute(_POSTGRES_MORE).fetchone()
            except self.driver.DatabaseError:
                if self.connection.closed:
                    raise
                self.more = False
        return Said(role=REPLICA if standby or read_only == "on" else PRIMARY, version=f"PostgreSQL {version}",
                    latency=latency, lag=lag, timeline=int(timeline or "0", 16))

    def failed(self, error: Exception, candidate) -> Said:
        """A server that refuses the monitor is there; one that starts, ends or recovers is not yet, or no more."""
        from psycopg.conninfo import make_conninfo
        text = _first_line(error)
        if self.connection is None and "FATAL" in text:
            there = self.driver.pq.PGconn.ping(make_conninfo(**self._conninfo(candidate)).encode())
            return Said(there == self.driver.pq.Ping.OK, error=text)
        return Said(False, error=text)


class MariaDBAsker(_Connected):
    @cached_property
    def driver(self):
        """Imported by who asks, which takes a while."""
        import pymysql
        return pymysql

    @cached_property
    def kind(self):
        """The driver's connection, which takes TLS only where it is offered: here it may be required."""
        from pymysql.constants import CLIENT
        required = self.demand is not None and self.demand.required

        class Connection(self.driver.connections.Connection):
            def _get_server_information(self):
                super()._get_server_information()
                if required and not self.server_capabilities & CLIENT.SSL:
                    raise OSError("it does not offer TLS")

        return Connection

    def connect(self, candidate):
        family, sockaddr = candidate
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.settimeout(ANSWER_SECONDS)
            sock.connect(sockaddr)
            password = self.backend.monitor_password
            connection = self.kind(
                host=self.address.host, user=self.backend.monitor_user, password=password.text if password else "",
                ssl=self.demand.context if self.demand is not None else None, ssl_disabled=self.demand is None,
                unix_socket=self.address.host if self.address.unix else None, autocommit=True, program_name="tqdb",
                read_timeout=ANSWER_SECONDS, write_timeout=ANSWER_SECONDS, defer_connect=True)
            connection.connect(sock)
            return connection
        except Exception:
            sock.close()
            raise

    def _pairs(self, sql: str) -> dict[str, str]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return {name: str(value) for name, value in cursor.fetchall()}

    def question(self, began: float) -> Said:
        found = self._pairs(_MARIADB)
        latency = time.monotonic() - began
        role, galera, lag = PRIMARY, "", None
        if found.get("wsrep_on", "OFF") not in _OFF:
            state = self._pairs(_GALERA)
            galera = f"{state.get('wsrep_local_state_comment', '')}, {state.get('wsrep_cluster_size', '?')} nodes"
            if state.get("wsrep_cluster_status") != "Primary":
                galera += ", not of the primary component"
            if state.get("wsrep_ready") != "ON" or state.get("wsrep_cluster_status") != "Primary" or (
                    found.get("wsrep_reject_queries", "NONE") != "NONE"):
                role = NOT_READY
        if role == PRIMARY and any(found.get(name, "OFF") not in _OFF for name in ("read_only", "innodb_read_only")):
            role = REPLICA
            lag = self._lag()
        version = found.get("version", "")
        return Said(role=role, version=f"{_product(version)} {version.split('-')[0]}", latency=latency, lag=lag,
                    galera=galera)

    def _lag(self) -> float | None:
        """None without the right to ask, too."""
        if not self.more:
            return None
        try:
            with self.connection.cursor(self.driver.cursors.DictCursor) as cursor:
                cursor.execute("SHOW REPLICA STATUS")
                for row in cursor.fetchall():
                    return next((v for k, v in row.items() if k in ("Seconds_Behind_Master", "Seconds_Behind_Source")),
                                None)
        except self.driver.err.DatabaseError as e:
            if e.args and e.args[0] >= 2000:
                raise
            self.more = False
        return None

    def failed(self, error: Exception, candidate) -> Said:
        """An error of the server's own while logging in says that it is there."""
        text = error.args[1] if len(error.args) > 1 else getattr(error, "strerror", None) or _first_line(error)
        code = error.args[0] if error.args and isinstance(error, self.driver.err.Error) else 2000
        return Said(self.connection is None and isinstance(code, int) and 1000 <= code < 2000, error=str(text))


def _product(version: str) -> str:
    return "MariaDB" if "mariadb" in version.lower() else "MySQL"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args):
        return None


class UrlAsker(Asker):
    """200 is a server that takes writes, any other answer one that does not; ``up`` is left to others."""

    def __init__(self, *args):
        super().__init__(*args)
        host = "localhost" if self.address.unix else self.address.host
        self.url = self.backend.check_url.format(host=f"[{host}]" if ":" in host else host, port=self.address.port)
        context = ssl.create_default_context(
            cafile=tls.system_file() if self.backend.tls_ca == "system" else self.backend.tls_ca
        ) if self.url.startswith("https:") else None
        handlers = [urllib.request.ProxyHandler({}), _NoRedirect()]
        if context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self.opener = urllib.request.build_opener(*handlers)

    def ask(self, candidates: Candidates) -> Said:
        began = time.monotonic()
        try:
            with self.opener.open(self.url, timeout=CHECK_SECONDS) as answer:
                answer.read(MAX_BODY)
                status = answer.status
        except urllib.error.HTTPError as e:
            e.close()
            status = e.code
        except (OSError, http.client.HTTPException, ValueError) as e:
            return Said(None, error=f"{self.url}: {getattr(e, 'reason', None) or e}")
        return Said(None, PRIMARY if status == 200 else REPLICA, latency=time.monotonic() - began)

    def close(self) -> None:
        """Nothing is kept."""


def asker(protocol: str, backend: Backend, address: Address, demand: tls.Demand | None) -> Asker | None:
    """Who asks ``address`` what it is, as the configuration has it; None if nobody is to."""
    if backend.check_url is not None:
        return UrlAsker(backend, address, demand)
    if backend.monitor_user is not None:
        return (PostgresAsker if protocol == "postgres" else MariaDBAsker)(backend, address, demand)
    return None
