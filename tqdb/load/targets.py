"""What is loaded: a throwaway server, or a database of the user's given by its URL."""

from urllib.parse import unquote, urlsplit

from tqdb.errors import ConfigError, TqdbError
from tqdb.load.messages import COUNTERS, SPACE
from tqdb.load.servers import MariaDB, Postgres

SCHEMES = {"postgresql": "postgres", "postgres": "postgres", "mysql": "mariadb", "mariadb": "mariadb"}
PORTS = {"postgres": 5432, "mariadb": 3306}
TABLES = {
    "postgres": (
        f"CREATE TABLE {SPACE}.events (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), "
        "kind text NOT NULL, source integer NOT NULL, data text)",
        f"CREATE TABLE {SPACE}.counters (id int PRIMARY KEY, n int NOT NULL)",
        f"INSERT INTO {SPACE}.counters SELECT i, 0 FROM generate_series(1, {COUNTERS}) i"),
    "mariadb": (
        f"CREATE TABLE {SPACE}.events (id bigint AUTO_INCREMENT PRIMARY KEY, at timestamp NOT NULL DEFAULT "
        "current_timestamp(), kind varchar(40) NOT NULL, source integer NOT NULL, data text)",
        f"CREATE TABLE {SPACE}.counters (id int PRIMARY KEY, n int NOT NULL)",
        f"INSERT INTO {SPACE}.counters VALUES " + ",".join(f"({i},0)" for i in range(1, COUNTERS + 1))),
}


class Target:
    """A database: where it is and who logs in. ``pid``: of the server's main process, None if it is not ours."""

    def __init__(self, protocol: str, host: str, port: int, user: str, password: str = "", database: str = "",
                 pid: int | None = None):
        self.protocol, self.host, self.port = protocol, host, port
        self.user, self.password, self.database = user, password, database
        self.pid = pid
        self.made = False

    @classmethod
    def of(cls, server: Postgres | MariaDB) -> "Target":
        """A throwaway server, started."""
        if server.name == "postgres":
            return cls("postgres", "127.0.0.1", server.port, "postgres", database="postgres", pid=server.process.pid)
        return cls("mariadb", "127.0.0.1", server.port, "root", pid=server.process.pid)

    @classmethod
    def from_url(cls, url: str) -> "Target":
        """``postgresql://user:password@host:port/db`` or ``mysql://…``; ConfigError if it is neither."""
        found = urlsplit(url)
        try:
            protocol, port = SCHEMES[found.scheme], found.port
        except (KeyError, ValueError):
            raise ConfigError(f"'{url}' is not a database URL; allowed: postgresql://user@host:port/db, "
                              "mysql://user@host:port/db") from None
        user = unquote(found.username or "") or ("postgres" if protocol == "postgres" else "root")
        return cls(protocol, found.hostname or "127.0.0.1", port or PORTS[protocol], user,
                   unquote(found.password or ""), found.path.lstrip("/") or user)

    @property
    def address(self) -> str:
        """As a backend's ``primary``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def connect(self, port: int | None = None):
        """A connection in autocommit mode: the server's own, or through what listens on ``port`` of 127.0.0.1."""
        where = {"host": self.host if port is None else "127.0.0.1", "port": port or self.port, "user": self.user,
                 "password": self.password, "connect_timeout": 10}
        if self.protocol == "postgres":
            import psycopg
            return psycopg.connect(**where, dbname=self.database, autocommit=True)
        import pymysql
        return pymysql.connect(**where, autocommit=True, ssl_disabled=True)     # a TLS context each costs 18 ms

    def execute(self, *statements: str) -> list[tuple]:
        """Runs statements on one direct connection; returns the last one's rows."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                for sql in statements:
                    cursor.execute(sql)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def make(self) -> "Target":
        """Makes the schema or database ``SPACE`` with empty ``events`` and ``COUNTERS`` rows of ``counters``."""
        kind = "SCHEMA" if self.protocol == "postgres" else "DATABASE"
        try:
            self.execute(f"CREATE {kind} {SPACE}")
            self.made = True
            self.execute(*TABLES[self.protocol])
        except Exception as e:
            self.drop()
            raise TqdbError(f"{self.address}: cannot make the {kind.lower()} {SPACE} and its tables: {e}") from e
        return self

    def ensure(self) -> "Target":
        """Makes the tables where they are missing; they are left there."""
        try:
            self.execute(f"SELECT 1 FROM {SPACE}.events WHERE 1 = 0")
        except Exception:
            self.make()
        return self

    def drop(self) -> None:
        """Takes away what ``make`` made."""
        if self.made:
            self.made = False
            self.execute(f"DROP SCHEMA {SPACE} CASCADE" if self.protocol == "postgres" else f"DROP DATABASE {SPACE}")

    def empty(self) -> None:
        self.execute(f"TRUNCATE TABLE {SPACE}.events")

    def rows(self) -> int:
        """Rows of ``events``."""
        return int(self.execute(f"SELECT count(*) FROM {SPACE}.events")[0][0])
