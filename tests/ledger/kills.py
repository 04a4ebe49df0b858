"""What goes wrong: the server is killed, connections to it are ended, the proxy is killed or told to end."""

import signal

from tests.throwaway import ask
from tests.wait import wait_for

ENDS = 60       # seconds within which connections of those that are gone must end

_PG_OTHERS = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
_MY_OTHERS = "FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND USER = 'root'"
# the connection that works now or worked last is the leader's of the batch under way, or of the last one
_PG_ORDER = {True: "state <> 'idle' DESC, state_change DESC", False: "random()"}
_MY_ORDER = {True: "COMMAND <> 'Sleep' DESC, TIME_MS", False: "RAND()"}


class Database:
    """The server, as whoever looks after it sees it; connects anew for each thing asked."""

    def __init__(self, server):
        self.server = server
        self.postgres = server.name == "postgres"

    def ask(self, *statements: str) -> list[tuple]:
        """The last one's rows."""
        if self.postgres:
            import psycopg
            return ask(psycopg.connect(self.server.dsn(), autocommit=True), *statements)
        return ask(self.server.connect(), *statements)

    def make(self, table: str) -> None:
        kind = "bigint NOT NULL, v bigint NOT NULL CHECK (v >= 0)"
        self.ask(f"CREATE TABLE {table} (k {kind})")

    def stored(self, table: str) -> list[int]:
        """Keys in the table, once everybody who could still write is gone."""
        others = f"SELECT count(*) {_PG_OTHERS if self.postgres else _MY_OTHERS}"
        wait_for(lambda: self.ask(others)[0][0] == 0, ENDS, "the end of the clients' connections")
        return [k for k, in self.ask(f"SELECT k FROM {table}")]

    def end_connection(self, leader: bool) -> None:
        """Of somebody, or of who leads."""
        if self.postgres:
            self.ask(f"SELECT pg_terminate_backend(pid) FROM (SELECT pid {_PG_OTHERS} ORDER BY {_PG_ORDER[leader]} "
                     "LIMIT 1) x")
            return
        import pymysql
        for number, in self.ask(f"SELECT ID {_MY_OTHERS} ORDER BY {_MY_ORDER[leader]} LIMIT 1"):
            try:
                self.ask(f"KILL {number}")
            except pymysql.OperationalError as e:
                assert e.args[0] == 1094, e         # it has ended by itself

    def crash(self) -> None:
        self.server.kill()
        self.server.start()


def end_proxy(proxy, number: signal.Signals) -> None:
    """Returns once it is gone."""
    proxy.process.send_signal(number)
    proxy.process.wait(ENDS)
    proxy.stop()
