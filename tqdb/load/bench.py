"""``tqdb bench``: ratios within one run, on throwaway servers; turns are taken A B A B and medians quoted."""

import json
import os
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tqdb.errors import ConfigError, TqdbError
from tqdb.load.demo import HINT
from tqdb.load.servers import (
    MariaDB,
    Postgres,
    Proxy,
    ThrowawayServer,
    postgres_tool,
    which,
)
from tqdb.load.writers import Writers, insert_statements, prepare_table

ROUNDS = 3
SCENARIOS = ("write", "forms", "overhead")
PGBENCH_INSERT = (f"/* {HINT} */ INSERT INTO events (kind, source, data) VALUES ('click', 7, "
                  "'{\"page\": 1, \"ms\": 20}');\n")


# hints with "=", because pgbench takes ":10" for a parameter of its own
PGBENCH_BOUND = ("\\set k random(1, 100000)\n"
                 f"/* {HINT.replace(':', '=')} */ INSERT INTO events (kind, source, data) VALUES ('click', :k, "
                 "'{\"page\": 1, \"ms\": 20}');\n")
PGBENCH_UPDATE = ("\\set k random(1, 100000)\n"
                  f"/* {HINT.replace(':', '=')} */ UPDATE counters SET n = n + 1 WHERE id = :k;\n")
FORMS = {"insert-extended": (PGBENCH_BOUND, "extended"), "insert-prepared": (PGBENCH_BOUND, "prepared"),
         "update-simple": (PGBENCH_UPDATE, "simple"), "update-prepared": (PGBENCH_UPDATE, "prepared")}


class PgBouncer(ThrowawayServer):
    """PgBouncer in session mode before a PostgreSQL server, for comparison."""

    name = "pgbouncer"

    def __init__(self, postgres: Postgres):
        self.program = which("pgbouncer")
        if self.program is None:
            raise TqdbError("no pgbouncer found")
        super().__init__()
        self.path = os.path.join(self.directory, "pgbouncer.ini")
        users = os.path.join(self.directory, "users.txt")
        Path(users).write_text('"postgres" ""\n')
        Path(self.path).write_text(
            f"[databases]\npostgres = host=127.0.0.1 port={postgres.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = session\nmax_client_conn = 2000\n"
            f"default_pool_size = 1000\nlogfile =\npidfile =\nadmin_users = postgres\n"
            f"ignore_startup_parameters = extra_float_digits\n")
        self.dsn = lambda port=None: postgres.dsn(self.port)

    def _launch(self) -> None:
        self._spawn(self.program, "-q", self.path)

    _answers = Postgres._answers


class Measurement:
    """Rounds of one scenario on one path."""

    def __init__(self, scenario: str, database: str, path: str):
        self.scenario, self.database, self.path = scenario, database, path
        self.rates: list[float] = []
        self.latencies: list[tuple[float, float, float]] = []
        self.batches: list[float] = []

    def result(self) -> dict:
        latencies = list(zip(*self.latencies, strict=True)) or [(0.0,)] * 3
        p50, p95, p99 = (round(statistics.median(x), 3) for x in latencies)
        return {"scenario": self.scenario, "database": self.database, "path": self.path, "target_per_s": None,
                "writes_per_s": round(statistics.median(self.rates), 1), "rounds": self.rates,
                "p50_ms": p50, "p95_ms": p95, "p99_ms": p99,
                "avg_batch": round(statistics.median(self.batches), 1) if self.batches else 1.0}


def _pgbench(port: int, clients: int, seconds: float, script: str, protocol: str = "simple",
             ) -> tuple[float, tuple[float, float, float]]:
    """``(transactions per second, (p50, p95, p99) in ms)`` of one pgbench run with one outstanding each."""
    program = postgres_tool("pgbench")
    if program is None:
        raise TqdbError("no pgbench found; install the package postgresql")
    with tempfile.TemporaryDirectory(prefix="tqdb-bench-") as directory:
        path = os.path.join(directory, "script.sql")
        Path(path).write_text(script)
        done = subprocess.run(
            [program, "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-n", "-M", protocol, "-c", str(clients),
             "-j", "1", "-T", str(max(1, round(seconds))), "-f", path, "-l", "--log-prefix=lat",
             "--sampling-rate=0.05", "postgres"], capture_output=True, text=True, cwd=directory)
        found = re.search(r"tps = ([\d.]+)", done.stdout)
        if done.returncode or not found:
            raise TqdbError(f"pgbench failed: {done.stderr.strip()[-300:]}")
        micros = sorted(int(line.split()[2]) for log in Path(directory).glob("lat.*")
                        for line in log.read_text().splitlines())
    pick = lambda share: micros[min(len(micros) - 1, int(len(micros) * share))] / 1000  # noqa: E731
    return float(found[1]), (pick(0.5), pick(0.95), pick(0.99)) if micros else (0.0, 0.0, 0.0)


def _stats(proxy: Proxy) -> tuple[int, int]:
    import urllib.request
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.metrics_port}/stats.json", timeout=5) as answer:
        stats = json.load(answer)
    return stats["batched_writes_total"], stats["batches_total"]


def _batches_of(proxy: Proxy, measurement: Measurement, run) -> None:
    before = _stats(proxy)
    rate, latencies = run()
    after = _stats(proxy)
    measurement.rates.append(rate)
    measurement.latencies.append(latencies)
    if measurement.path == "batched" and after[1] > before[1]:
        measurement.batches.append((after[0] - before[0]) / (after[1] - before[1]))


def _generate(protocol: str, server, port: int, clients: int, seconds: float):
    writers = Writers(protocol, server, port, clients)
    try:
        writers.start(insert_statements(HINT), seconds)
        g = writers.wait()
        return g.done / g.elapsed, tuple(g.percentile(p) for p in (0.5, 0.95, 0.99))
    finally:
        writers.close()


def write(seconds: float, step) -> list[dict]:
    """256 connections, hinted single-row inserts: pgbench on PostgreSQL, the own generator on MariaDB."""
    results = []
    with Postgres().start() as server, Proxy(postgres=server).start() as proxy:
        prepare_table("postgres", server)
        paths = {"direct": server.port, "batched": proxy.postgres_port}
        found = {path: Measurement("write", "postgres", path) for path in paths}
        for _ in range(ROUNDS):
            for path, port in paths.items():
                step(f"write postgres {path}")
                _batches_of(proxy, found[path], lambda p=port: _pgbench(p, 256, seconds, PGBENCH_INSERT))
        results += [m.result() for m in found.values()]
    with MariaDB().start() as server, Proxy(mariadb=server).start() as proxy:
        prepare_table("mariadb", server)
        paths = {"direct": server.port, "batched": proxy.mariadb_port}
        found = {path: Measurement("write", "mariadb", path) for path in paths}
        for _ in range(ROUNDS):
            for path, port in paths.items():
                step(f"write mariadb {path}")
                _batches_of(proxy, found[path],
                            lambda p=port: _generate("mariadb", server, p, 256, seconds))
        results += [m.result() for m in found.values()]
    return results


def forms(seconds: float, step) -> list[dict]:
    """256 connections on PostgreSQL: inserts in the extended protocol and prepared, updates by primary key."""
    import psycopg
    results = []
    with Postgres().start() as server, Proxy(postgres=server).start() as proxy:
        prepare_table("postgres", server)
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL)")
            admin.execute("INSERT INTO counters SELECT i, 0 FROM generate_series(1, 100000) i")
        paths = {"direct": server.port, "batched": proxy.postgres_port}
        for name, (script, protocol) in FORMS.items():
            found = {path: Measurement(name, "postgres", path) for path in paths}
            for _ in range(ROUNDS):
                for path, port in paths.items():
                    step(f"{name} postgres {path}")
                    _batches_of(proxy, found[path],
                                lambda p=port, s=script, m=protocol: _pgbench(p, 256, seconds, s, m))
            results += [m.result() for m in found.values()]
    return results


def overhead(seconds: float, step) -> list[dict]:
    """``select 1`` on 64 connections: direct, relayed, and through PgBouncer in session mode if it is there."""
    with Postgres().start() as server, Proxy(postgres=server).start() as proxy:
        paths = {"direct": server.port, "relayed": proxy.postgres_port}
        bouncer = None
        if which("pgbouncer"):
            bouncer = PgBouncer(server).start()
            paths["pgbouncer"] = bouncer.port
        try:
            found = {path: Measurement("overhead", "postgres", path) for path in paths}
            for _ in range(ROUNDS):
                for path, port in paths.items():
                    step(f"overhead postgres {path}")
                    rate, latencies = _pgbench(port, 64, seconds, "select 1;\n")
                    found[path].rates.append(rate)
                    found[path].latencies.append(latencies)
        finally:
            if bouncer is not None:
                bouncer.stop()
        return [m.result() for m in found.values()]


def _ratio(results: list[dict], scenario: str, database: str, of: str, to: str) -> float | None:
    rates = {r["path"]: r["writes_per_s"] for r in results
             if r["scenario"] == scenario and r["database"] == database}
    return rates[of] / rates[to] if of in rates and to in rates else None


def run(names: list[str], quick: bool, seconds: float | None, path: str | None) -> int:
    """Runs the named scenarios (all without a name); prints a table, writes the JSON; 0 when all ran."""
    unknown = [n for n in names if n not in SCENARIOS]
    if unknown:
        raise ConfigError(f"bench: unknown scenario '{unknown[0]}'; allowed: {', '.join(SCENARIOS)}")
    names = names or list(SCENARIOS)
    seconds = seconds or (2 if quick else 5)
    console = Console()
    results: list[dict] = []
    turns = {"write": 4, "forms": 2 * len(FORMS), "overhead": 3 if which("pgbouncer") else 2}
    steps = ROUNDS * sum(turns[n] for n in names)
    with Progress(console=console) as progress:
        task = progress.add_task("starting", total=steps)

        def step(text: str) -> None:
            progress.update(task, description=text)
            progress.advance(task)

        for name in names:
            results += {"write": write, "forms": forms, "overhead": overhead}[name](seconds, step)
    table = Table(title=f"{ROUNDS} rounds in turns, {seconds:g} s each, medians", title_justify="left")
    for column in ("scenario", "database", "path"):
        table.add_column(column)
    for column in ("operations/s", "p50 ms", "p95 ms", "p99 ms", "writes per batch"):
        table.add_column(column, justify="right")
    for r in results:
        table.add_row(r["scenario"], r["database"], r["path"], f"{r['writes_per_s']:,.0f}", f"{r['p50_ms']:.2f}",
                      f"{r['p95_ms']:.2f}", f"{r['p99_ms']:.2f}", f"{r['avg_batch']:.1f}")
    console.print(table)
    for text, ratio in (
            ("PostgreSQL, batched against direct", _ratio(results, "write", "postgres", "batched", "direct")),
            ("MariaDB, batched against direct", _ratio(results, "write", "mariadb", "batched", "direct")),
            *((f"PostgreSQL {name}, batched against direct", _ratio(results, name, "postgres", "batched", "direct"))
              for name in FORMS),
            ("select 1, relayed against PgBouncer", _ratio(results, "overhead", "postgres", "relayed", "pgbouncer")),
            ("select 1, relayed against direct", _ratio(results, "overhead", "postgres", "relayed", "direct"))):
        if ratio is not None:
            console.print(f"{text}: {ratio:.2f}")
    if path:
        Path(path).write_text(json.dumps(results, indent=1) + "\n")
    return 0
