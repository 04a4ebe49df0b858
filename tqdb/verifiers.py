"""By what users are known, where the proxy authenticates them itself: from a file, or by a question to the server."""

import queue
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from tqdb import scram
from tqdb.config import Config
from tqdb.errors import TqdbError
from tqdb.fleet import Fleet
from tqdb.lookup import resolve
from tqdb.loop import Loop
from tqdb.roles import PostgresAsker
from tqdb.scram import Verifier
from tqdb.servers import BackendState
from tqdb.tls import Demand
from tqdb.userlist import Known, of_verifier, read_users
from tqdb.values import Address

QUESTION_MS = 2000          # that the server may take for an answer
LATE_SECONDS = 10           # behind which nobody waits for one any more


Done = Callable[[Known | None, str], None]


class Worker:
    """One thread for what may take long. ``settle`` is called in the loop behind what comes from it."""

    def __init__(self, loop: Loop, settle: Callable[[], None]):
        self.loop = loop
        self.settle = settle
        self.tasks: queue.SimpleQueue = queue.SimpleQueue()
        self.started = False

    def work(self, task: Callable[[], object], then: Callable[[object, str], None]) -> None:
        """In the loop ``then(what the task answers, "")``, or ``then(None, what is wrong)``."""
        self.tasks.put((task, then))
        if not self.started:
            self.started = True
            threading.Thread(target=self._work, name="tqdb-verifiers", daemon=True).start()

    def _work(self) -> None:
        while (item := self.tasks.get()) is not None:
            task, then = item
            answer, error = None, ""
            try:
                answer = task()
            except Exception as e:
                error = str(e) if isinstance(e, OSError | TqdbError) else type(e).__name__

            def tell(then=then, answer=answer, error=error) -> None:
                try:
                    then(answer, error)
                finally:
                    self.settle()
            self.loop.call_from_thread(tell)

    def close(self) -> None:
        self.tasks.put(None)


class Source(ABC):
    """Who knows verifiers. ``secret``: what stand-ins are made from."""

    def __init__(self, worker: Worker, secret: bytes):
        self.worker = worker
        self.secret = secret

    @abstractmethod
    def find(self, user: str, done: Done) -> None:
        """``done(known, error)``, at once or later; an error where nobody can tell."""

    def stand_in(self, user: str, iterations: int) -> Verifier:
        return scram.stand_in(self.secret, user, iterations)

    @abstractmethod
    def close(self) -> None:
        """Another one takes its place. Whoever has begun with this one may go on with it."""


class Listed(Source):
    """Users of a file, which is read once."""

    def __init__(self, worker: Worker, secret: bytes, users: dict[str, Known]):
        super().__init__(worker, secret)
        self.users = users
        counts = Counter(k.verifier.iterations for k in users.values() if k.verifier is not None)
        self.iterations = counts.most_common(1)[0][0] if counts else scram.ITERATIONS

    def find(self, user: str, done: Done) -> None:
        known = self.users.get(user) or Known(None, why="is not in the file")
        done(known if known.verifier is not None else replace(known, iterations=self.iterations), "")

    def close(self) -> None:
        """Nothing is kept open."""


class _Question(PostgresAsker):
    """Asks one server of a backend for a user's verifier."""

    def _conninfo(self, candidate) -> dict[str, str]:
        return super()._conninfo(candidate) | {
            "application_name": "tqdb auth_query", "client_encoding": "UTF8",
            "options": f"-c statement_timeout={QUESTION_MS} -c lock_timeout={QUESTION_MS}"}

    def connect(self, candidate):
        connection = super().connect(candidate)
        # what a stand-in has to look like; version 16 and later say so
        said = connection.execute("SELECT pg_catalog.current_setting('scram_iterations', true)").fetchone()[0]
        self.iterations = int(said) if said else scram.ITERATIONS
        return connection

    def find(self, candidates, sql: str, user: str) -> Known:
        """OSError tells what is wrong."""
        if self.connection is not None and (self.at not in candidates or self.connection.closed):
            self.close()
        error = "no address"
        for again in (self.connection is not None, False):
            for candidate in [self.at] if self.connection is not None else candidates:
                try:
                    if self.connection is None:
                        self.connection, self.at = self.connect(candidate), candidate
                    return self._ask(sql, user)
                except self.driver.OperationalError as e:
                    error = (str(e).strip().splitlines() or [type(e).__name__])[0]
                    self.close()            # a kept one may have been cut off: another is tried
                except self.driver.Error as e:
                    raise OSError(f"auth_query failed: SQLSTATE {e.sqlstate}") from None
            if not again:
                break
        raise OSError(error)

    def _ask(self, sql: str, user: str) -> Known:
        # as text: 'infinity' is no date of Python's
        result = self._rows(sql, [user.encode()])
        row = None
        if result.ntuples > 1 or result.nfields < 2:
            raise OSError("auth_query has to answer one row with user name and verifier")
        if result.ntuples == 1:
            row = [result.get_value(0, k) for k in range(min(result.nfields, 3))]
        until = row[2] if row is not None and len(row) > 2 else None
        # asked of everybody, so that all take the same time
        past = self._rows("SELECT $1::pg_catalog.timestamptz < pg_catalog.clock_timestamp()", [until]).get_value(0, 0)
        if row is None or row[0] != user.encode():
            return Known(None, why="is not known to auth_query", iterations=self.iterations)
        if past == b"t":
            return Known(None, why="has a password that is no longer valid", iterations=self.iterations)
        return of_verifier(row[1].decode("utf-8", "replace") if row[1] is not None else None, self.iterations)

    def _rows(self, sql: str, values: list[bytes | None]):
        pg = self.connection.pgconn
        result = pg.exec_params(sql.encode(), values)
        if result.status != self.driver.pq.ExecStatus.TUPLES_OK:
            if pg.status != self.driver.pq.ConnStatus.OK:
                raise self.driver.OperationalError("the connection was lost")
            state = result.error_field(self.driver.pq.DiagnosticField.SQLSTATE)
            raise OSError(f"auth_query failed: SQLSTATE {state.decode() if state else 'unknown'}")
        return result


class Asked(Source):
    """Users whom the server knows, asked anew for each login: one question at a time, for all who want its answer."""

    def __init__(self, worker: Worker, secret: bytes, fleet: Fleet, sql: str):
        super().__init__(worker, secret)
        self.fleet = fleet
        self.sql = sql
        self.askers: dict[Address, _Question] = {}
        self.waiting: dict[str, list[Done]] = {}

    def find(self, user: str, done: Done) -> None:
        if "\0" in user or not user.isprintable():
            user = ""           # nobody's name: it is asked for as any other
        self.waiting.setdefault(user, []).append(done)
        if len(self.waiting[user]) == 1:
            state = self.fleet.backends["postgres"]
            servers = sorted(state.servers, key=lambda s: (s.up is False, state.servers.index(s)))
            where = [(state, s.address, s.candidates) for s in servers]
            demand = self.fleet.demands.get(("postgres", state.backend.name))
            late = time.monotonic() + LATE_SECONDS
            self.worker.work(lambda: self._ask(where, demand, user, late),
                             lambda known, error: self._told(user, known, error))

    def _ask(self, where: list[tuple[BackendState, Address, list]], demand: Demand | None, user: str,
             late: float) -> Known:
        errors = []
        for state, address, candidates in where:
            if time.monotonic() > late:
                errors.append("it has taken too long")
                break
            asker = self.askers.get(address)
            if asker is None:
                asker = self.askers[address] = _Question(state.backend, address, demand)
            try:
                return asker.find(candidates, self.sql, user)
            except OSError as e:
                errors.append(f"{address}: {e}")
        raise OSError("; ".join(errors))

    def _told(self, user: str, known: Known | None, error: str) -> None:
        for done in self.waiting.pop(user):
            done(known, error)

    def close(self) -> None:
        self.worker.work(lambda: [asker.close() for asker in self.askers.values()], lambda done, error: None)


def source(config: Config, worker: Worker, fleet: Fleet, before: Source | None = None) -> Source | None:
    """As the configuration has it; None: authentication is relayed. ConfigError: the file cannot be used.

    ``before``: what is in force until now.
    """
    protocol = config.postgres
    if protocol is None or protocol.auth == "relay":
        return None
    common = worker, before.secret if before is not None else secrets.token_bytes(32)
    if protocol.auth_query is not None:
        return Asked(*common, fleet, protocol.auth_query)
    return Listed(*common, read_users(config, before.users if isinstance(before, Listed) else {}))


def trial(config: Config, demands: dict[tuple[str, str], Demand]) -> str:
    """Whether users can be found, as far as can be told without one: what is wrong, or nothing. It may block.

    ConfigError: the file cannot be used.
    """
    protocol = config.postgres
    if protocol is None or protocol.auth == "relay":
        return ""
    if protocol.auth_query is None:
        read_users(config, {})
        return ""
    errors = []
    for address in protocol.backend.primary:
        asker = _Question(protocol.backend, address, demands.get(("postgres", protocol.backend.name)))
        try:
            asker.find(resolve(address), protocol.auth_query, "tqdb")
            return ""
        except (OSError, TqdbError) as e:
            errors.append(f"{address}: {e}")
        finally:
            asker.close()
    return "auth_query: " + "; ".join(errors)
