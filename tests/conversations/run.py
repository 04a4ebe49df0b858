"""Plans made, played, compared and shrunk, with a proxy for each ``max_batch_size``."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.conversations import mariadb_grammar, postgres_grammar
from tests.conversations.grammar import make
from tests.conversations.plan import Plan
from tests.conversations.player import Illegal, Outcome, differences, play
from tests.conversations.shrink import MAKERS
from tests.conversations.stage import STAGES
from tests.fix_servers import ProxyUnderTest, tqdb_command
from tests.seeded import shrink

GRAMMARS = {"postgres": (postgres_grammar.PostgresGrammar, postgres_grammar.OPTIONS),
            "mariadb": (mariadb_grammar.MariaDBGrammar, mariadb_grammar.OPTIONS)}
KEPT = Path(__file__).parent.parent.parent / "build/conversations"
SHRINK_WAIT = 2.5       # seconds without an answer that are a hang while shrinking: no hint waits for that long
SHRINK_TRIES = 3


@dataclass
class Run:
    """``direct``: no proxy, the plans are compared with the server itself, all sessions at once: are they sound?"""

    protocol: str
    server: object
    direct: bool = False
    seconds: float = 20                 # without an answer: a hang
    without: set[str] = field(default_factory=set)      # kinds of steps that are not made
    command: list[str] | None = field(default_factory=tqdb_command)     # which tqdb; None: this checkout's own
    plans: int = 0
    comparisons: int = 0
    batched: float = 0
    alone: float = 0
    proxies: dict[int, ProxyUnderTest] = field(default_factory=dict)

    def __post_init__(self):
        self.stage = STAGES[self.protocol](self.server)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        for size in list(self.proxies):
            self.end_proxy(size)
        self.stage.close()

    # --- proxies

    def port(self, size: int) -> int:
        if self.direct:
            return self.server.port
        if size not in self.proxies:
            self.proxies[size] = ProxyUnderTest(
                **{self.protocol: self.server}, command=self.command,
                config=f"[writebatch]\nmax_batch_size = {size}\n").start()
        return getattr(self.proxies[size], f"{self.protocol}_port")

    def ended(self, size: int) -> list[str]:
        """Why the proxy is none any more, if so."""
        proxy = self.proxies.get(size)
        if proxy is None:
            return []
        log = proxy.log()
        if proxy.process.poll() is not None:
            return [f"the proxy has ended with {proxy.process.returncode}: {log[-300:]}"]
        return [f"the proxy logs {log[log.index('Traceback'):][:1500]}"] if "Traceback" in log else []

    def end_proxy(self, size: int) -> None:
        """Ends it; what it counted is kept."""
        proxy = self.proxies.pop(size, None)
        if proxy is None:
            return
        try:
            if proxy.process.poll() is None:
                self.batched += proxy.metric("tqdbproxy_batched_writes_total")
                self.alone += proxy.metric("tqdbproxy_individual_writes_total")
        except OSError:
            pass                # it does not answer: it counts for nothing
        finally:
            proxy.process.kill()
            proxy.stop()

    # --- plans

    def play(self, plan: Plan, seconds: float) -> tuple[Outcome, list[str]]:
        """The direct outcome, and what differs through the proxy."""
        port = self.port(plan.batch_size)
        direct = play(plan, self.stage, self.server.port, False, seconds)
        problems = differences(plan, direct, play(plan, self.stage, port, True, seconds))
        return direct, self.ended(plan.batch_size) + problems

    def check(self, plan: Plan) -> list[str]:
        """What differs; a proxy that was part of it is not used again."""
        direct, problems = self.play(plan, self.seconds)
        self.plans += 1
        self.comparisons += sum(map(len, direct.answers)) + len(direct.tables)
        if problems:
            self.end_proxy(plan.batch_size)
        return problems

    def fails(self, plan: Plan) -> bool:
        """Whether it fails in one of a few tries, hangs told sooner. A proxy that was part of it is not used again."""
        for _ in range(SHRINK_TRIES):
            try:
                _, problems = self.play(plan, SHRINK_WAIT)
            except Illegal:
                return False
            if problems:
                self.end_proxy(plan.batch_size)
                return True
        return False

    def shrunk(self, plan: Plan, seconds: float) -> tuple[Plan, list[str]]:
        """The smallest plan that fails with a proxy of its own, and how."""
        small = shrink(plan, self.fails, seconds, MAKERS)
        self.end_proxy(plan.batch_size)
        for candidate in (small, plan):
            for _ in range(SHRINK_TRIES):
                problems = self.check(candidate)
                if problems:
                    return candidate, problems
        return plan, ["did not fail again"]

    def report(self, plan: Plan, problems: list[str], seconds: float) -> str:
        """The failure in words, shrunk, with the plan; which is also kept as a file."""
        head = f"seed {plan.seed}, max_batch_size {plan.batch_size}"
        lines = [f"FAILED: {head}", *problems[:3]]
        if seconds:
            plan, problems = self.shrunk(plan, seconds)
            lines += ["shrunk:", *problems[:2]]
        KEPT.mkdir(parents=True, exist_ok=True)
        path = KEPT / f"{self.protocol}-{plan.seed}.json"
        path.write_text(plan.text())
        replay = f"python -m tests.conversations --replay {path}"
        return "\n".join([*lines, plan.text(), replay])

    def plan(self, seed: int, sizes: list[int]) -> Plan:
        grammar, options = GRAMMARS[self.protocol]
        return make(self.protocol, grammar, seed, sizes[seed % len(sizes)], options, self.without)

    def for_seconds(self, seconds: float, seed: int, sizes: list[int]):
        """Yields (plan, problems) of those that fail, seeds counted up, until the time is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            plan = self.plan(seed, sizes)
            problems = self.check(plan)
            if problems:
                yield plan, problems
            seed += 1

    def share(self) -> float:
        """The share of writes that were batched. Ends all proxies: what they count is read at their end."""
        for size in list(self.proxies):
            self.end_proxy(size)
        return self.batched / ((self.batched + self.alone) or 1)
