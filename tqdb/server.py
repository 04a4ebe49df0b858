"""The running proxy: listeners, backends, the core's hooks, signals, reload and drain."""

import gc
import logging
import signal
import socket
import time
from collections.abc import Container
from functools import partial
from logging import ERROR, INFO, WARNING
from selectors import EVENT_READ

from tqdb import advice, policy, reloading, rules, tls, verifiers
from tqdb._core import Engine, MyServer, MySession, PgServer, PgSession, Stats, Stream, TlsStream, make_proxy_header
from tqdb.advice import Advice
from tqdb.attempts import Attempt, Cancelling
from tqdb.backends import tune
from tqdb.catalog import sessions
from tqdb.config import MAX_RULES, Config, read_file
from tqdb.errors import ConfigError
from tqdb.fleet import Fleet
from tqdb.handover import Meetings, Taken
from tqdb.http import HttpServer
from tqdb.listening import format_address, listen_tcp, listen_unix, listened_on, raise_descriptor_limit, remove_sockets
from tqdb.log import Recent, event, internal_error
from tqdb.logins import Login
from tqdb.loop import Loop
from tqdb.metrics import Metrics
from tqdb.notify import Notifier
from tqdb.servers import BackendState, Route
from tqdb.status import View, Views
from tqdb.succession import Succession
from tqdb.values import Address

ACCEPTS_PER_TURN = 16        # of each listener: a session and its way to the server cost 0.3 ms
LINGER_SECONDS = 10         # how long a closing connection may take to read what is still for it
DRAIN_STEP_SECONDS = 0.02   # between looks for sessions that have become idle
SESSIONS = {"postgres": (PgSession, PgServer), "mariadb": (MySession, MyServer)}


def _hook(call, otherwise=None):
    """A hook of the core's that answers ``otherwise`` should ``call`` fail in an unforeseen way."""
    def hook(self, *args):
        return self.guarded(call.__name__, otherwise, call, *args)
    return hook


class Server:
    """One proxy process. It is also the core's ``hooks``."""

    analyze = _hook(policy.analyze)
    analyze_statement = _hook(policy.analyze_statement)
    pieces = _hook(policy.pieces)
    session_wait = _hook(policy.session_wait)
    startup_wait = _hook(policy.startup_wait)
    killed_query = _hook(policy.killed_query)
    row_count_sql = _hook(policy.row_count_sql)
    judge = _hook(policy.judge, (False, "table", False, 0, 0, 0.0, frozenset(), None, "the answer was not read", ""))
    explain = _hook(policy.explain, NotImplemented)
    probe_sql = staticmethod(policy.probe_sql)

    def __init__(self, config: Config, replace: bool = False, command: list[str] | None = None):
        """``replace``: take over from the proxy that listens on these addresses; ``command``: starts a successor."""
        self.config = config
        self.replace = replace
        self.loop = Loop()
        self.started = time.monotonic()
        self.engine = Engine(self, Stats(config.writebatch.max_label_sets))
        self.rules = rules.Rules(config)
        self.questions = sessions.Questions()
        self.session_sql = self.questions.first
        self.advice = Advice(self.engine, self.started)
        self.views = Views(self.engine, self.started, {
            "rules": View(rules.COLUMNS, self.rules_shown, MAX_RULES, shared=True),
            "writes": View(Advice.COLUMNS, self.advice.rows, advice.SHOWN, shared=True)})
        self._configure_engine()
        self.loop.deadline = self.engine.next_deadline
        self.loop.tick = self.engine.tick
        self.loop.failed = self.failed
        self.sessions: dict[object, float] = {}             # session -> when it came
        self.servers: dict[object, Route] = {}
        self.logging_in: dict[object, float] = {}           # session -> when its login must have ended
        self.connecting: dict[object, Attempt | Cancelling] = {}
        self.listeners: list[tuple[str, socket.socket]] = []
        self.addresses: dict[str, str] = {}
        self.socket_files: list[str] = []
        self.succession = Succession(self, command)
        self.meetings = Meetings(self.loop, self.succession.replaced)
        self.http: HttpServer | None = None
        self.ready = False
        self.draining_until: float | None = None
        self.offers = tls.offers(config)
        self.fleet = Fleet(self.loop, config, tls.demands(config), self.failed)
        self.worker = verifiers.Worker(self.loop, self.engine.settle)
        self.verifiers = verifiers.source(config, self.worker, self.fleet)
        self.notifier = Notifier()
        self.recent = Recent()
        logging.getLogger().addHandler(self.recent)
        self.metrics = Metrics(self, self.recent)

    def _configure_engine(self) -> None:
        batch, limits = self.config.writebatch, self.config.limits
        self.engine.max_batch_size = batch.max_batch_size
        self.engine.max_batch_bytes = batch.max_batch_bytes
        self.engine.max_wait_ms = batch.max_wait_ms_limit
        self.engine.watch.resize(batch.max_shapes_watched)
        self.engine.max_message_bytes = limits.max_message_bytes
        self.engine.set_rules(self.rules.for_core(), self.rules.observed)
        for name, why in rules.unreachable(self.config).items():
            event(WARNING, "rule_unreachable", f"[rule.{name}] can never match: {why}", rule=name, why=why)

    def failed(self, place: str, error: Exception) -> None:
        """An exception that nobody foresaw was caught at ``place``: it is told and counted, and all goes on."""
        internal_error(place, error)
        self.engine.stats.count_internal(place)

    def guarded(self, place: str, otherwise, call, *args):
        """``call(*args)``, or ``otherwise`` if it fails."""
        try:
            return call(*args)
        except Exception as e:
            self.failed(place, e)
            return otherwise

    # --- listening --------------------------------------------------------------------------------

    def start(self) -> None:
        """Opens every listener; TqdbError if one cannot be had."""
        raise_descriptor_limit()
        self.fleet.look_up()
        taken = Taken()
        for name, protocol in self.config.protocols():
            if protocol.listen is not None:
                sock = self._listen(protocol.listen, taken)
                self.addresses[name] = format_address(sock)
                self._accept_on(name, sock)
            if protocol.socket is not None:
                self._accept_on(name, self._listen(Address(protocol.socket, unix=True), taken))
                self.socket_files.append(protocol.socket)
                self.addresses.setdefault(name, f"unix:{protocol.socket}")
        listening = [sock for _, sock in self.listeners]
        if self.config.metrics.listen is not None:
            sock = self._listen(self.config.metrics.listen, taken)
            self.addresses["metrics"] = format_address(sock)
            self.http = HttpServer(self.loop, sock, self.metrics, self.failed)
            listening.append(sock)
        policy.warm_up()
        gc.collect()
        gc.freeze()             # a full collection then has only to look at what came later
        self.loop.call_later(1, self._sweep)
        self.fleet.start()
        self.ready = True
        missing = self.meetings.hold(listening, taken)
        if missing:
            event(WARNING, "no_meeting", f"cannot be replaced without refusing connections on {', '.join(missing)}: "
                  "somebody else answers for these addresses", addresses=missing)
        self.notifier.ready()
        taken.accepting()
        if taken.processes:
            event(INFO, "took_over", f"took over from process {', '.join(map(str, taken.processes))}: "
                  f"{', '.join(taken.used)}", processes=taken.processes, addresses=taken.used)
        if self.notifier.watchdog_seconds is not None:
            self._feed_watchdog()
        event(INFO, "ready", "ready " + " ".join(f"{k}={v}" for k, v in self.addresses.items()), **self.addresses)

    def _listen(self, address: Address, taken: Taken) -> socket.socket:
        """A socket that listens on ``address``: a predecessor's, where one is to be replaced, or a new one."""
        sock = None
        if self.replace and (address.unix or address.port):
            key = listened_on(address)
            taken.ask(key)
            sock = taken.take(key)
        if sock is None:
            sock = listen_unix(address.host) if address.unix else listen_tcp(address)
        return sock

    # What happens again and again asks for its next time first: a failure does not end it.

    def _feed_watchdog(self) -> None:
        if self.notifier.watchdog_seconds is None:
            return
        self.loop.call_later(self.notifier.watchdog_seconds, self._feed_watchdog)
        self.notifier.tell("WATCHDOG=1", f"STATUS={len(self.sessions)} clients")

    def _accept_on(self, name: str, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.listeners.append((name, sock))
        self._watch_listener(name, sock)

    def _watch_listener(self, name: str, sock: socket.socket) -> None:
        if sock.fileno() >= 0:
            self.loop.watch(sock, EVENT_READ, lambda mask: self._accept(name, sock))

    def _accept(self, name: str, listener: socket.socket) -> None:
        protocol = getattr(self.config, name)
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as e:
                # out of descriptors: leave the rest in the queue for a while
                event(ERROR, "accept_failed", f"cannot accept: {e.strerror}", protocol=name, error=e.strerror)
                self.loop.unwatch(listener)
                self.loop.call_later(0.2, lambda: self._watch_listener(name, listener))
                return
            tune(sock)
            session = SESSIONS[name][0](self.engine)
            session.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"
            session.backend = str(self.backends[name])
            session.local = sock.family == socket.AF_UNIX
            if not session.local:
                session.announced = protocol.is_announced(peer[0])
                if protocol.backend.send_proxy != "off":
                    session.origin = peer[:2], sock.getsockname()[:2]
            offer = self.offers.get(name)
            if offer is not None and not session.local:
                session.secure = offer.engine
                session.needs_tls = offer.required
            if name == "postgres" and self.verifiers is not None:
                session.proof = Login(session, self.verifiers, offer.certificate if offer is not None else None)
            self.sessions[session] = time.monotonic()
            self.logging_in[session] = time.monotonic() + self.config.limits.client_login_timeout
            Stream(sock, session, self.loop)
            if name == "mariadb" and not session.announced:
                session.connect()

    # --- the core's hooks -------------------------------------------------------------------------

    def choose_backend(self, protocol: str, session) -> BackendState:
        """Which backend serves: today the protocol's default one."""
        return self.backends[protocol]

    def connect(self, session) -> None:
        """The core asks for a server connection for ``session``."""
        name = "postgres" if isinstance(session, PgSession) else "mariadb"
        if len(self.sessions) > self.config.limits.max_client_connections:
            # told here and not at accept: a PostgreSQL client that asks for TLS first would not understand it
            session.refuse("too_many", "too many client connections at the proxy")
            return
        state = self.choose_backend(name, session)

        def done(route, sock, engine, error):
            self.connecting.pop(session, None)
            if route is None:
                if not session.closed:
                    session.refuse("connect", error)
                    self.engine.settle()
                return
            address = route.server.address
            server = SESSIONS[name][1](self.engine)
            server.local = sock.family == socket.AF_UNIX
            demand = self.fleet.demands.get((name, state.backend.name))
            if demand is not None and not address.unix:
                server.needs_tls = demand.required
                server.secure = lambda: demand.engine(address)
            self.servers[server] = route
            session.address = str(route.sockaddr)
            self.fleet.attached(session, route)
            if engine is not None:
                TlsStream(sock, server, self.loop, *engine)
                offer = self.offers.get(name)
                certificate = engine[2].getpeercert(True)
                session.same_end = offer is not None and certificate == offer.certificate
                if session.proof is not None:
                    session.proof.server_certificate = certificate
            else:
                Stream(sock, server, self.loop)
            if state.backend.send_proxy != "off":
                server.introduce(make_proxy_header(state.backend.send_proxy, session.origin))
            session.attach(server)
            self.engine.settle()

        if not session.closed:
            self.connecting[session] = self.fleet.connect(state, done)

    def cancel(self, session, packet: bytes, key: bytes) -> None:
        """A CancelRequest: takes a gathered write back; a batch under way goes on, it carries others' writes too.

        Otherwise it is sent to the server of the session that has the key, or, should nobody here have it, to all of
        the backend's: it may be of a session of another proxy's, and a server that does not know it ignores it.
        """
        target = self.engine.cancel_keys.get(key)
        if target is not None and (target.cancel_waiting() or target.waits):
            session.abort()
        else:
            self.connecting[session] = Cancelling(self.fleet, self.backends["postgres"], target, packet, session.abort)

    def candidates(self, session) -> tuple[int, ...]:
        return self.guarded("candidates", (), self.rules.candidates, session)

    def first_rule(self, *args) -> int:
        return self.guarded("first_rule", rules.NONE, self.rules.first, *args)

    def rules_shown(self, session=None) -> tuple[tuple[str, ...], ...]:
        """Rows of ``rules.COLUMNS``."""
        hits = self.engine.rule_hits()
        return tuple((rule.name, rules.conditions(rule), rule.max_wait_ms, rule.force, str(hits[rule.name]))
                     for rule in self.rules.rules)

    def judge_session(self, *args):
        return self.guarded("judge_session", sessions.UNLIKE, self.questions.judge, *args)

    def status_variables(self, sql: bytes, session) -> tuple[bytes, bytes] | None:
        return self.guarded("status_variables", None, self.views.variables, sql, session)

    def status_sql(self, dialect: int, sql: bytes, session) -> bytes | None:
        return self.guarded("status_sql", None, self.views.sql, dialect, sql, session)

    def refused(self, session, kind: str, message: str) -> None:
        """The core, or this server, ends a session with an error of its own."""
        level = INFO if kind == "shutdown" else WARNING
        event(level, "refused", f"{session.backend}: session of {session.peer} ended: {message}", reason=kind,
              backend=session.backend, peer=session.peer, error=message)

    def slow_batch(self, leader, writes: int, seconds: float) -> None:
        event(WARNING, "slow_batch", f"{leader.backend}: a batch of {writes} writes took {seconds:.1f} s",
              backend=leader.backend, writes=writes, seconds=round(seconds, 3))

    def session_closed(self, session) -> None:
        self.sessions.pop(session, None)
        self.logging_in.pop(session, None)
        connector = self.connecting.pop(session, None)
        if connector is not None:
            connector.cancel()
        self.fleet.detached(session)

    def server_closed(self, server) -> None:
        route = self.servers.pop(server, None)
        if server.lost:
            self.fleet.lost(route)

    def server_says(self, session, what: str) -> None:
        self.guarded("server_says", None, self.fleet.server_says, session, what)

    # --- servers ----------------------------------------------------------------------------------

    @property
    def backends(self) -> dict[str, BackendState]:
        """By protocol, the one that serves."""
        return self.fleet.backends

    def readiness(self) -> tuple[bool, str]:
        """Whether ``/readyz`` is 200, and the reason if not."""
        if self.draining_until is not None:
            return False, "draining"
        if not self.ready:
            return False, "starting"
        trouble = self.fleet.trouble()
        return not trouble, trouble or "ready"

    # --- time, signals ----------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Once a second: logins that take too long, closing connections that nobody reads."""
        self.loop.call_later(1, self._sweep)
        now = time.monotonic()
        for session, deadline in list(self.logging_in.items()):
            if session.logged_in:
                del self.logging_in[session]
            elif now > deadline:
                del self.logging_in[session]
                self.guarded("sweep", None, session.refuse, "timeout", "login took too long")
        for endpoint in [*self.sessions, *self.servers]:
            if endpoint.closing:
                self.loop.call_later(LINGER_SECONDS, endpoint.abort)
        self.guarded("advise", None, self.engine.advise, now)
        self.engine.settle()

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT; see ``docs/operations.md`` for the other signals."""
        woken, wake = socket.socketpair()
        woken.setblocking(False)
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda *_: None)

        def on_signal(mask):
            for number in woken.recv(64):
                if number == signal.SIGHUP:
                    self.reload()
                elif number == signal.SIGUSR1:
                    self.close_sessions()
                elif number == signal.SIGUSR2:
                    self.succession.start()
                else:
                    self.shut_down()

        self.loop.watch(woken, EVENT_READ, on_signal)
        try:
            self.start()
            self.loop.run()
        finally:
            self.close()
            signal.set_wakeup_fd(-1)
            woken.close()
            wake.close()

    def close_sessions(self) -> None:
        """Those that have a server now end politely, and find the one that is right when they come again."""
        count = self.fleet.leave_all()
        event(INFO, "closing_sessions", f"closing {count} sessions, which may come again", sessions=count)

    def shut_down(self) -> None:
        """The first call drains, a second ends at once."""
        if self.draining_until is not None:
            event(WARNING, "cut_off", f"second signal: {len(self.sessions)} sessions end at once",
                  sessions=len(self.sessions))
            self.loop.stop()
            return
        limit = self.config.limits.drain_timeout
        event(INFO, "draining", f"draining: {len(self.sessions)} sessions, up to {limit:g} s",
              sessions=len(self.sessions), seconds=limit)
        self.draining_until = time.monotonic() + limit
        self.notifier.tell("STOPPING=1", f"STATUS=draining {len(self.sessions)} clients")
        if self.meetings.successors:
            self.socket_files.clear()           # it has them, though it has not said so yet
        self.meetings.close()
        self.stop_listening()
        self.fleet.waits = False
        self.guarded("drain", None, self.engine.drain)
        self._tell_drain()
        self._drain_step()

    def stop_listening(self, taken: Container[str] = ()) -> None:
        """The files of Unix sockets go too, but for those of addresses that a successor has ``taken``."""
        for _, sock in self.listeners:
            self.loop.unwatch(sock)
            sock.close()
        self.listeners.clear()
        # now: later they may be a successor's
        remove_sockets([path for path in self.socket_files if f"unix:{path}" not in taken])
        self.socket_files.clear()

    def _tell_drain(self) -> None:
        """Once a second, while there is something to tell."""
        if self.sessions and self.loop.running:
            left = self.draining_until - time.monotonic()
            event(INFO, "drain_progress", f"draining: {len(self.sessions)} sessions still busy, {left:.0f} s left",
                  sessions=len(self.sessions), batches=self.engine.batches_running, seconds_left=round(left, 1))
            self.loop.call_later(1, self._tell_drain)

    def _drain_step(self) -> None:
        self.loop.call_later(DRAIN_STEP_SECONDS, self._drain_step)
        for session in list(self.sessions):
            if session.idle and not session.closing:
                self.guarded("drain", None, session.refuse, "shutdown",
                             "terminating connection due to administrator command")
        self.guarded("drain", None, self.engine.settle)
        if not self.sessions:
            event(INFO, "drained", "drained")
            self.loop.stop()
        elif time.monotonic() >= self.draining_until:
            event(WARNING, "drain_timeout", f"drain_timeout: {len(self.sessions)} sessions are cut off",
                  sessions=len(self.sessions))
            self.loop.stop()

    def reload(self) -> None:
        """Reads the file again. A broken one changes nothing; what needs a restart is named."""
        self.notifier.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        no_file = self.config.source in ("", "command line")
        if no_file:
            self.fleet.look_up_again()
            if not self.offers and not self.fleet.demands and self.verifiers is None:
                event(WARNING, "reload_refused", "reload: started without a configuration file, nothing to read")
                self.notifier.tell("READY=1")
                return
        try:
            new = self.config if no_file else read_file(self.config.source)
            read = new, tls.offers(new), tls.demands(new)
        except ConfigError as e:
            self._reloaded(None, None, str(e))
            return
        find = partial(verifiers.source, new, self.worker, self.fleet, self.verifiers)
        if new.postgres is None or new.postgres.auth_file is None:
            self._reloaded(read, find(), "")
        else:
            # thousands of users, and passwords that are to be worked on
            self.worker.work(find, partial(self._reloaded, read))

    def _reloaded(self, read: tuple | None, source: verifiers.Source | None, error: str) -> None:
        """All has been ``read``, configuration, offers and demands, and so have the users; or something is wrong."""
        if error:
            event(ERROR, "reload_refused", f"reload refused, nothing changed: {error}", error=error)
        else:
            self._take(*read, source)
        self.notifier.tell("READY=1")

    def _take(self, new: Config, offers: dict, demands: dict, source: verifiers.Source | None) -> None:
        old = self.config
        planned = reloading.plan(old, new)
        self.config = planned.config
        # a section that has gone from the file is served with the certificates that it has
        self.offers = {name: offer for of, some in ((False, self.offers), (True, offers))
                       for name, offer in some.items() if (name in planned.changing) is of}
        self.rules = rules.Rules(self.config)
        self._configure_engine()
        self.fleet.reconfigure(self.config, demands, planned.changing)
        if "postgres" in planned.changing:
            before, self.verifiers = self.verifiers, source
            if before is not None:
                before.close()
        reloading.tell(old, planned)

    def close(self) -> None:
        self.meetings.close()
        self.stop_listening()
        for endpoint in [*self.sessions, *self.servers]:
            self.guarded("close", None, endpoint.abort)
        self.fleet.close()
        self.worker.close()
        if self.http is not None:
            self.http.close()
        logging.getLogger().removeHandler(self.recent)
        self.loop.close()
