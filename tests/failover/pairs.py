"""Two servers of which one follows the other, and the ways in which they change places."""

import os
import shutil
import signal
from abc import abstractmethod

from tests.throwaway import AskedMariaDB, AskedPostgres, crash
from tests.wait import wait_for

SETTLES = 60        # seconds for a server to follow, or to be promoted
# a killed process loses nothing that it handed to the system; what a power cut would lose is not the subject
POSTGRES = {"fsync": "off", "max_connections": "200", "shared_buffers": "32MB", "wal_level": "replica"}
MARIADB = {"log_bin": "binlog", "log_slave_updates": "1", "innodb_flush_log_at_trx_commit": "2",
           "max_connections": "200", "innodb_buffer_pool_size": "32M"}
MONITOR = "tqdb_monitor"
WRITER = "writer"           # of MariaDB, whom read_only concerns
PASSWORD = "sesame"


class PgNode(AskedPostgres):
    """A server that can follow another, and be promoted."""

    def __init__(self):
        super().__init__(**POSTGRES)

    def prepare(self) -> None:
        """Of a first primary: what the tests need in it."""
        self.ask(f"CREATE ROLE {MONITOR} LOGIN PASSWORD '{PASSWORD}'")

    def follow(self, primary: "PgNode") -> None:
        """Becomes a standby with a copy of the primary's data, without which the primary acknowledges nothing."""
        primary.ask("ALTER SYSTEM RESET synchronous_standby_names")
        primary.ask("SELECT pg_reload_conf()")
        self._signal(signal.SIGKILL)
        shutil.rmtree(self.data)
        self._run(os.path.join(self.bin, "pg_basebackup"), "-D", self.data, "-h", "127.0.0.1", "-p", str(primary.port),
                  "-U", "postgres", "-R", "-X", "stream", "-c", "fast", "--no-sync")
        self.start()
        # behind the copy, which must not have it: nobody would follow it when it is promoted
        primary.ask("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.ask("SELECT pg_reload_conf()")
        wait_for(lambda: primary.ask("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"), SETTLES,
                 lambda: f"following {primary.port}: {self.tail()}")

    def crash(self) -> None:
        """All its processes at once."""
        crash(self, self.kill)

    def shut_down(self) -> None:
        """As ``pg_ctl stop -m fast``."""
        self._signal(signal.SIGINT)

    def promote(self) -> None:
        """Returns once it takes writes."""
        assert self.ask("SELECT pg_promote()") == [(True,)]

    def make(self, table: str) -> None:
        self.ask(f"CREATE TABLE {table} (k bigint NOT NULL, v bigint NOT NULL CHECK (v >= 0))")

    def stored(self, table: str) -> list[int]:
        return [k for k, in self.ask(f"SELECT k FROM {table}")]


class MyNode(AskedMariaDB):
    """A server with a database ``d`` that can follow another, and be promoted."""

    def __init__(self, number: int):
        super().__init__(server_id=str(number), gtid_domain_id="1", **MARIADB)

    def prepare(self) -> None:
        self.ask("CREATE DATABASE d", f"CREATE USER {WRITER}", f"GRANT ALL ON d.* TO {WRITER}",
                 f"CREATE USER {MONITOR} IDENTIFIED BY '{PASSWORD}'", f"GRANT SLAVE MONITOR ON *.* TO {MONITOR}",
                 "CREATE USER repl", "GRANT REPLICATION SLAVE ON *.* TO repl")

    def follow(self, primary: "MyNode") -> None:
        """Becomes a replica that takes writes from nobody else."""
        self.ask("SET GLOBAL read_only = 1",
                 f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={primary.port}, MASTER_USER='repl', "
                 "MASTER_USE_GTID=current_pos", "START SLAVE")
        self.caught_up(primary)

    def caught_up(self, primary: "MyNode") -> None:
        at, = primary.ask("SELECT @@gtid_binlog_pos")[0]
        assert self.ask(f"SELECT MASTER_GTID_WAIT('{at}', {SETTLES})")[0][0] == 0, self.ask("SHOW SLAVE STATUS")

    def give_way(self, successor: "MyNode") -> None:
        """Takes no more writes; the successor has all that it has taken."""
        self.ask("SET GLOBAL read_only = 1")
        successor.caught_up(self)

    def promote(self) -> None:
        self.ask("STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = 0")

    def make(self, table: str) -> None:
        self.ask(f"CREATE TABLE d.{table} (k bigint NOT NULL, v bigint NOT NULL CHECK (v >= 0))")

    def stored(self, table: str) -> list[int]:
        return [k for k, in self.ask(f"SELECT k FROM d.{table}")]


class Pair:
    """A primary and its follower."""

    def __init__(self):
        self.primary, self.follower = self.nodes()
        self.servers = [self.primary, self.follower]

    @abstractmethod
    def nodes(self) -> tuple:
        """Two servers that were not started yet."""

    def __enter__(self):
        self.primary.start()
        self.primary.prepare()
        self.join()
        return self

    def __exit__(self, *_) -> None:
        for server in self.servers:
            server.stop()

    @abstractmethod
    def join(self) -> None:
        """The follower follows the primary, whatever it was before."""

    @property
    def address(self) -> str:
        """As a backend's ``primary``, in an order that stays."""
        return ", ".join(server.address for server in self.servers)

    def swap(self) -> None:
        """The follower is the primary now."""
        self.primary, self.follower = self.follower, self.primary


class PgPair(Pair):
    protocol = "postgres"

    def nodes(self):
        return PgNode(), PgNode()

    def join(self) -> None:
        self.follower.follow(self.primary)


class MyPair(Pair):
    protocol = "mariadb"

    def nodes(self):
        return MyNode(1), MyNode(2)

    def join(self) -> None:
        if self.follower.process is None:
            self.follower.start()
            # as the primary has them; nobody replicates what came before
            self.follower.ask("SET sql_log_bin = 0", "CREATE DATABASE IF NOT EXISTS d")
        self.follower.follow(self.primary)
