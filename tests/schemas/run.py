"""Plans made, played, compared and shrunk."""

import time
from dataclasses import dataclass, field

from tests.fix_servers import ProxyUnderTest, tqdb_command
from tests.schemas import mariadb, mariadb_grammar, postgres, postgres_grammar
from tests.schemas.plan import Plan
from tests.schemas.player import differences
from tests.schemas.shrink import MAKERS
from tests.schemas.stage import Broken, Stage, Unsound
from tests.seeded import shrink

GRAMMARS = {"postgres": postgres_grammar.PostgresGrammar, "mariadb": mariadb_grammar.MariaDBGrammar}
STAGES = {"postgres": postgres.PostgresStage, "mariadb": mariadb.MariaDBStage}
TRIES = 2           # of a plan while it is shrunk: not every failure is certain


def plan_of(protocol: str, seed: int) -> Plan:
    return GRAMMARS[protocol](seed).plan()


@dataclass
class Run:
    """``direct``: no proxy, all at once against the server itself: does what is compared depend on timing?"""

    protocol: str
    server: object
    direct: bool = False
    plans: int = 0
    unsound: list[tuple[int, str]] = field(default_factory=list)
    deadlocks: int = 0
    batched: float = 0
    alone: dict[str, float] = field(default_factory=dict)
    proxy: ProxyUnderTest | None = None

    def __post_init__(self):
        self.stage: Stage = STAGES[self.protocol](self.server)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        self.end_proxy()
        self.stage.close()

    def port(self) -> int:
        if self.direct:
            return self.server.port
        if self.proxy is None:
            self.proxy = ProxyUnderTest(**{self.protocol: self.server}, command=tqdb_command()).start()
        return getattr(self.proxy, f"{self.protocol}_port")

    def end_proxy(self) -> None:
        """Ends it; what it counted is kept."""
        proxy, self.proxy = self.proxy, None
        if proxy is None:
            return
        try:
            if proxy.process.poll() is None:
                self.batched += proxy.batched()
                for reason in REASONS:
                    self.alone[reason] = self.alone.get(reason, 0) + proxy.counted(reason)
        finally:
            proxy.stop()

    def check(self, plan: Plan) -> list[str]:
        """What differs; nothing if the server does not take the plan. A proxy that was part of it is not used again."""
        self.plans += 1
        port = self.port()
        try:
            problems, deadlocks = differences(plan, self.stage, port)
        except Unsound as e:
            self.unsound.append((plan.seed, str(e)))
            return []
        self.deadlocks += deadlocks
        if self.proxy is not None and "Traceback" in (log := self.proxy.log()):
            problems = [*problems, f"the proxy logs {log[log.index('Traceback'):][:1500]}"]
        if problems:
            self.end_proxy()
        return problems

    def fails(self, plan: Plan) -> bool:
        for _ in range(TRIES):
            try:
                if differences(plan, self.stage, self.port())[0]:
                    return True
            except (Unsound, Broken):
                return False
        return False

    def report(self, plan: Plan, problems: list[str], seconds: float) -> str:
        """The failure in words, shrunk, with the plan as SQL."""
        lines = [f"FAILED: {self.protocol}, seed {plan.seed}", *problems[:2]]
        if seconds:
            small = shrink(plan, self.fails, seconds, MAKERS)
            for _ in range(3):
                if again := self.check(small):
                    lines += ["shrunk:", *again[:2]]
                    break
            else:
                lines.append("shrunk, it did not fail again")
            lines.append(small.text())
        lines.append(f"python -m tests.schemas --protocol {self.protocol} --seed {plan.seed} --schemas 1")
        return "\n".join(lines)

    def failures(self, seed: int, schemas: int, seconds: float = 1e9):
        """Yields (plan, problems) of those that fail, seeds counted up."""
        deadline = time.monotonic() + seconds
        for number in range(seed, seed + schemas):
            if time.monotonic() > deadline:
                return
            plan = plan_of(self.protocol, number)
            if problems := self.check(plan):
                yield plan, problems

    def share(self) -> float:
        """The share of writes that were batched. Ends the proxy: what it counts is read at its end."""
        self.end_proxy()
        return self.batched / ((self.batched + sum(self.alone.values())) or 1)


REASONS = ("no_hint", "in_transaction", "not_batchable", "session_state", "charset", "table", "oversize", "single",
           "retry", "draining")
