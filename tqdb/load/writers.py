"""Write load on a database: logged-in sockets, messages, and a generator run in a thread."""

import os
import threading

from tqdb.errors import TqdbError
from tqdb.load._gen import Generator
from tqdb.load.messages import PG_NAME, Workload
from tqdb.load.targets import Target

_COM_STMT_PREPARE = 0x16


class Writers:
    """``count`` connections to ``port`` (None: the server's own); ``start`` lets them write in a thread."""

    def __init__(self, target: Target, port: int | None, count: int):
        self.protocol = protocol = target.protocol
        self.connections = []
        self.fds: list[int] = []
        self.prepared: str | None = None
        self.statement_ids: list[int] = []      # MariaDB's
        self.generator: Generator | None = None
        self.thread: threading.Thread | None = None
        try:
            for _ in range(count):
                connection = target.connect(port)
                self.connections.append(connection)
                fd = connection.pgconn.socket if protocol == "postgres" else connection._sock.fileno()
                self.fds.append(os.dup(fd))
        except Exception as e:
            opened = len(self.connections)
            self.close()
            raise TqdbError(f"{protocol}: {opened} of {count} connections could be made: {str(e).strip()}") from e

    def _prepare(self, sql: str) -> None:
        """Makes the statement that the messages execute; once in the life of these connections."""
        if self.prepared == sql:
            return
        if self.prepared is not None:
            raise TqdbError("these connections have prepared another statement already")
        self.prepared = sql
        for connection in self.connections:
            if self.protocol == "postgres":
                result = connection.pgconn.prepare(PG_NAME, sql.encode())
                if result.error_message:
                    raise TqdbError(f"cannot prepare: {result.error_message.decode()}")
                continue
            connection._execute_command(_COM_STMT_PREPARE, sql)
            answer = connection._read_packet()._data
            self.statement_ids.append(int.from_bytes(answer[1:5], "little"))
            columns, parameters = int.from_bytes(answer[5:7], "little"), int.from_bytes(answer[7:9], "little")
            for some in (parameters, columns):
                for _ in range(some + 1 if some else 0):
                    connection._read_packet()

    def generator_for(self, workload: Workload, depth: int = 1, rate: float = 0, think: float = 0) -> Generator:
        """A generator for these connections, not running yet; see ``Generator`` for what it is given."""
        if workload.prepared:
            self._prepare(workload.prepared)
        return Generator(self.fds, workload.messages, self.protocol, depth, rate, self.statement_ids, think)

    def start(self, workload: Workload, seconds: float, depth: int = 1, rate: float = 0, think: float = 0) -> Generator:
        """Starts a run in a thread."""
        self.generator = self.generator_for(workload, depth, rate, think)
        self.thread = threading.Thread(target=self.generator.run, args=(seconds,), daemon=True)
        self.thread.start()
        return self.generator

    def wait(self) -> Generator:
        """Waits for the run's end; TqdbError if a connection broke or a statement failed."""
        self.thread.join()
        if self.generator.dead or self.generator.errors:
            words = self.generator.first_error
            raise TqdbError(f"{self.protocol}: {self.generator.dead} connections broke and "
                            f"{self.generator.errors} writes failed under load" + (f": {words}" if words else ""))
        return self.generator

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        for connection in self.connections:
            connection.close()
        self.fds, self.connections = [], []
