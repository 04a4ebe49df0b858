"""What tests of failures do with throwaway servers: ask them in SQL, and let them crash."""

from collections.abc import Callable

import psutil
import psycopg

from tqdb.load.servers import MariaDB, Postgres, ThrowawayServer


def ask(connection, *statements: str) -> list[tuple]:
    """The last one's rows; the connection is closed then."""
    try:
        with connection.cursor() as cursor:
            for sql in statements:
                cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


class AskedPostgres(Postgres):
    def ask(self, *statements: str) -> list[tuple]:
        """The last one's rows, of a connection of its own."""
        return ask(psycopg.connect(self.dsn(), autocommit=True), *statements)


class AskedMariaDB(MariaDB):
    def ask(self, *statements: str) -> list[tuple]:
        """The last one's rows, of a connection of its own."""
        return ask(self.connect(), *statements)


def crash(server: ThrowawayServer, kill: Callable[[], None]) -> None:
    """``kill`` ends the server's own process; what that has started goes with it."""
    running = server.process is not None and server.process.poll() is None
    started = psutil.Process(server.process.pid).children(recursive=True) if running else []
    kill()
    for process in started:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
