"""Runs the cases of a benchmark on servers, a proxy and rivals, and sums up what was found."""

import json
import os
import re
import resource
import statistics
import subprocess
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tqdb.errors import TqdbError
from tqdb.load.messages import SPACE
from tqdb.load.null import NullServer
from tqdb.load.rivals import RIVALS
from tqdb.load.scenarios import Case
from tqdb.load.servers import MariaDB, Postgres, Proxy, postgres_tool
from tqdb.load.targets import Target
from tqdb.load.usage import Usage, busiest
from tqdb.load.writers import Writers

WARM_SECONDS = 0.2
REACHED = 0.95          # of a target
LEDGER_SECONDS = 10
KEPT_CONNECTIONS = 1000     # open between the rounds of a case; with more, each turn connects anew


@dataclass
class Sample:
    """One run: operations per second, latencies in ms, batches, and what it cost."""

    per_second: float
    latencies: tuple[float, float, float]
    batch: float = 1.0
    aggregation: float = 1.0
    cpu_us: dict[str, float] = field(default_factory=dict)
    cores: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)


class Stage:
    """A database, the proxy before it, and rivals as they are asked for."""

    def __init__(self, protocol: str, given: Target | None, null: bool, shim: dict[str, str]):
        self.protocol = protocol
        self.null = null
        self.stack = ExitStack()
        self.rivals: dict[str, object] = {}
        self.resting: Writers | None = None     # sessions at the proxy that have written once
        try:
            if null:
                self.target = self.stack.enter_context(NullServer(protocol).start()).target()
            elif given is not None:
                self.target = given
            else:
                server = (Postgres if protocol == "postgres" else MariaDB)(max_connections="2500")
                server.environment.update(shim)
                self.target = Target.of(self.stack.enter_context(server.start()))
            if not null:
                self.stack.callback(self.target.drop)
                self.target.make()
            self.proxy = self.stack.enter_context(Proxy(**{protocol: self.target}).start())
        except BaseException:
            self.stack.close()
            raise

    def close(self) -> None:
        if self.resting is not None:
            self.resting.close()
        self.stack.close()

    def rest(self, case: Case) -> int:
        """Sees to the case's idle sessions; returns how many writes they have sent for it."""
        there = len(self.resting.fds) if self.resting is not None else 0
        if there == case.idle:
            return 0
        if self.resting is not None:
            self.resting.close()
            self.resting = None
        if not case.idle:
            return 0
        self.resting = Writers(self.target, self.port("batched"), case.idle)
        self.resting.start(case.workload, 0)        # one statement of each is under way when time is over
        return self.resting.wait().done

    def paths(self, case: Case) -> list[str]:
        """Those of the case's paths that can be had here."""
        rivals = {r.program_name for r in RIVALS if not self.null and r.available(self.protocol)}
        return [p for p in case.paths if p in ("direct", "batched", "relayed") or p in rivals
                or (p == "pgbench" and postgres_tool("pgbench"))]

    def port(self, path: str) -> int | None:
        if path in ("direct", "pgbench"):
            return None
        if path in ("batched", "relayed"):
            return getattr(self.proxy, f"{self.protocol}_port")
        if path not in self.rivals:
            rival = next(r for r in RIVALS if r.program_name == path)(self.target)
            self.rivals[path] = self.stack.enter_context(rival)
            rival.start()
        return self.rivals[path].port

    def pids(self, path: str) -> dict[str, int]:
        found = {"null backend" if self.null else "database": self.target.pid} if self.target.pid else {}
        if path in ("batched", "relayed"):
            found["proxy"] = self.proxy.process.pid
        elif path in self.rivals:
            found[path] = self.rivals[path].process.pid
        return found

    def counters(self) -> dict:
        url = f"http://127.0.0.1:{self.proxy.metrics_port}/stats.json"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)


def _pgbench(target: Target, case: Case, seconds: float) -> Sample:
    """pgbench with the case's kind of insert, one outstanding on each connection."""
    script = (f"INSERT INTO {SPACE}.events (kind, source, data) VALUES ('click', 7, '{{\"page\": 1, \"ms\": 20}}');\n")
    with tempfile.TemporaryDirectory(prefix="tqdb-bench-") as directory:
        path = os.path.join(directory, "script.sql")
        Path(path).write_text(script)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [postgres_tool("pgbench"), "-h", target.host, "-p", str(target.port), "-U", target.user, "-n",
             "-c", str(case.connections), "-j", "1", "-T", str(max(1, round(seconds))), "-f", path, "-l",
             "--log-prefix=lat", "--sampling-rate=0.1", target.database],
            capture_output=True, text=True, cwd=directory, env={**os.environ, "PGPASSWORD": target.password})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = re.search(r"tps = ([\d.]+)", done.stdout)
        count = re.search(r"transactions actually processed: (\d+)", done.stdout)
        if done.returncode or not found or not count:
            raise TqdbError(f"pgbench failed: {done.stderr.strip()[-300:]}")
        micros = sorted(int(line.split()[2]) for log in Path(directory).glob("lat.*")
                        for line in log.read_text().splitlines())
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    p50, p95, p99 = (micros[min(len(micros) - 1, int(len(micros) * share))] / 1000 if micros else 0.0
                     for share in (0.5, 0.95, 0.99))
    return Sample(float(found[1]), (p50, p95, p99), cpu_us={"client": used / max(1, int(count[1])) * 1e6})


def _once(stage: Stage, case: Case, path: str, writers: Writers, seconds: float) -> Sample:
    before = stage.counters()
    usage = Usage(stage.pids(path)).begin()
    writers.start(case.workload, seconds, case.depth, case.rate, case.think_ms / 1000)
    g = writers.wait()
    usage.end()
    after = stage.counters()
    grew = {k: after[k] - before[k] for k in ("batched_writes_total", "batches_total", "write_operations_total",
                                              "writes_total")}
    sample = Sample(g.in_time / g.elapsed, tuple(g.percentile(p) for p in (0.5, 0.95, 0.99)))
    if path == "batched" and grew["batches_total"]:
        sample.batch = grew["batched_writes_total"] / grew["batches_total"]
        sample.aggregation = grew["writes_total"] / max(1, grew["write_operations_total"])
    done = max(1, g.done)
    for part, used in {"client": g.cpu, **usage.cpu}.items():
        sample.cpu_us[part] = used / done * 1e6
        sample.cores[part] = used / g.elapsed
    sample.memory = usage.memory
    return sample


def _medians(values: list[dict[str, float]], digits: int) -> dict[str, float]:
    return {k: round(statistics.median(v[k] for v in values), digits) for k in values[0]}


def result(case: Case, path: str, samples: list[Sample]) -> dict:
    """Medians of the rounds as an object of the JSON file; see docs/benchmarks.md for its keys."""
    p50, p95, p99 = (round(statistics.median(x), 3) for x in zip(*(s.latencies for s in samples), strict=True))
    rate = statistics.median(s.per_second for s in samples)
    cores = _medians([s.cores for s in samples], 3)
    return {
        "scenario": case.scenario, "label": case.label, "database": case.protocol,
        "path": "null" if case.null and path != "direct" else path,
        "target_per_s": case.rate or None, "writes_per_s": round(rate, 1),
        "reached": rate >= REACHED * case.rate if case.rate else None,
        "p50_ms": p50, "p95_ms": p95, "p99_ms": p99,
        "avg_batch": round(statistics.median(s.batch for s in samples), 1),
        "aggregation_factor": round(statistics.median(s.aggregation for s in samples), 1),
        "cpu_us_per_write": _medians([s.cpu_us for s in samples], 3), "cores": cores, "busiest": busiest(cores),
        "memory_mib": _medians([s.memory for s in samples], 1),
        "connections": case.connections, "depth": case.depth, "commit_ms": case.commit_ms, "at": case.at,
        "rounds": [round(s.per_second, 1) for s in samples], **case.details}


def _settled_rows(target: Target, wanted: int) -> int:
    """Rows of the table, once as many as were acknowledged are seen or time is over."""
    deadline = time.monotonic() + LEDGER_SECONDS
    while True:
        rows = target.rows()
        if rows == wanted or time.monotonic() > deadline:
            return rows
        time.sleep(0.05)


def run_case(stage: Stage, case: Case, seconds: float, rounds: int, step) -> list[dict]:
    """All paths in turn, ``rounds`` times; TqdbError if the rows in the table are not those acknowledged."""
    paths = stage.paths(case)
    keep = case.connections * len(paths) <= KEPT_CONNECTIONS
    writers: dict[str, Writers] = {}
    samples: dict[str, list[Sample]] = {path: [] for path in paths}
    acknowledged = stage.rest(case)
    before = stage.target.rows() if stage.null else 0
    try:
        for _ in range(rounds):
            for path in paths:
                name = f"{case.scenario}: {case.protocol}, {case.label}, {path}"
                step(name, 1)
                if path == "pgbench":
                    samples[path].append(_pgbench(stage.target, case, seconds))
                    continue
                if path not in writers:
                    step(f"{name}: connecting", 0)
                    writers[path] = Writers(stage.target, stage.port(path), case.connections)
                    writers[path].start(case.workload, WARM_SECONDS, case.depth, case.rate)
                    acknowledged += writers[path].wait().done
                    step(name, 0)
                samples[path].append(_once(stage, case, path, writers[path], seconds))
                acknowledged += writers[path].generator.done
                if not keep:
                    writers.pop(path).close()
    finally:
        for w in writers.values():
            w.close()
    if case.inserts:
        rows = _settled_rows(stage.target, before + acknowledged) - before
        if rows != acknowledged:
            raise TqdbError(f"{case.scenario}, {case.protocol}, {case.label}: {rows:,} rows in the table for "
                            f"{acknowledged:,} acknowledged writes")
    if not stage.null:
        stage.target.empty()
    return [result(case, path, samples[path]) for path in paths]


