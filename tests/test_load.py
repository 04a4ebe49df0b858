"""The load generator, the null backend, the demonstration and the benchmarks do what they say."""

import io
import json
import os
import socket
import subprocess
import threading
import time

import pytest
from rich.console import Console
from tqdb.load._gen import Generator

from tqdb.errors import ConfigError, TqdbError
from tqdb.load import engine, messages, never
from tqdb.load.bench import ALL, SCENARIOS
from tqdb.load.measure import Sample, result
from tqdb.load.null import NullServer
from tqdb.load.scenarios import Case
from tqdb.load.targets import Target
from tqdb.load.usage import busiest, cpu_seconds
from tqdb.load.writers import Writers

BENCH_KEYS = {"scenario", "database", "path", "target_per_s", "writes_per_s", "p50_ms", "p95_ms", "p99_ms",
              "avg_batch"}
PROTOCOLS = ("postgres", "mariadb")


@pytest.fixture(params=PROTOCOLS)
def target(request):
    made = Target.of(request.getfixturevalue(request.param)).make()
    yield made
    made.drop()


def play(target, port, workload, seconds=0.5, connections=8, **options) -> Generator:
    writers = Writers(target, port, connections)
    try:
        writers.start(workload, seconds, **options)
        return writers.wait()
    finally:
        writers.close()


@pytest.mark.parametrize("options", [{}, {"depth": 5}, {"rate": 500.0}, {"rate": 4000.0, "depth": 3}, {"think": 0.01}],
                         ids=str)
def test_the_generator_counts_what_the_database_keeps(target, proxy, options):
    for port in (None, getattr(proxy, f"{target.protocol}_port")):
        before = target.rows()
        generator = play(target, port, messages.insert(target.protocol, "max_wait_ms:5"), **options)
        assert generator.done > 0
        assert generator.done == sum(n for _, n in generator.drain()) == target.rows() - before
        assert generator.in_time <= generator.done == generator.issued
        assert 0 < generator.percentile(0.5) <= generator.percentile(0.99)
        assert generator.drain() == []
        if "think" in options:
            # each of 8 begins within its first think time
            assert generator.issued <= 8 * (generator.elapsed / options["think"] + 1)
        if "rate" in options:
            assert generator.issued + generator.late == pytest.approx(options["rate"] * generator.elapsed, abs=1)


@pytest.mark.parametrize("form", messages.FORMS)
def test_every_form_writes_the_same_values(target, form):
    generator = play(target, None, messages.insert(target.protocol, "", form, count=20), connections=1)
    rows = target.execute(f"SELECT kind, source, data, count(*) FROM {messages.SPACE}.events GROUP BY 1, 2, 3")
    assert len(rows) == 20 and sum(r[3] for r in rows) == generator.done
    assert all(kind == "click" and json.loads(data)["page"] == source * 7 % 1000 for kind, source, data, _ in rows)


@pytest.mark.parametrize("form", messages.FORMS)
def test_updates_count(target, form):
    generator = play(target, None, messages.update(target.protocol, "", form))
    assert target.execute(f"SELECT sum(n) FROM {messages.SPACE}.counters")[0][0] == generator.done


def test_reads_and_writes_mixed(target, proxy):
    workload = messages.mix(target.protocol, "max_wait_ms:2", count=100)
    generator = play(target, getattr(proxy, f"{target.protocol}_port"), workload, connections=4)
    assert generator.done > 0 and target.rows() == pytest.approx(generator.done / 2, abs=4 * 10)


def test_failures_are_told_in_the_servers_words(target):
    workload = messages.workload(target.protocol, "INSERT INTO missing.things VALUES ({})", [(1,)])
    with pytest.raises(TqdbError, match=r"writes failed under load: .*missing"):
        play(target, None, workload, 0.1)


def test_a_late_answer_counts_from_when_the_statement_was_due():
    """Open loop: a server that is silent for a while makes everything late that was due meanwhile."""
    rate = 1000.0
    ours, theirs = socket.socketpair()
    ready = b"C\0\0\0\x0dINSERT 0\0" + b"Z\0\0\0\5I"
    message = messages.text("postgres", "INSERT")
    generator = Generator([ours.fileno()], [message], "postgres", 1, rate)
    runner = threading.Thread(target=generator.run, args=(60,))
    runner.start()
    assert theirs.recv(100) == message
    # one statement is under way and no room for more, while a hundred become due
    silent_since = time.monotonic()
    while time.monotonic() < silent_since + 100 / rate:
        time.sleep(1 / rate)
    waited = 0.0        # by all of them, at least: statement k was due k / rate after the first
    for k in range(21):
        if k:
            assert theirs.recv(100) == message
        waited += time.monotonic() - silent_since - k / rate
        theirs.send(ready)
    generator.stop()
    theirs.close()
    runner.join(60)
    ours.close()
    counted = sum(micros * n for micros, n in generator.drain()) / 1e6
    assert generator.done == 21 and counted >= 0.98 * waited


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_null_backend_keeps_count(protocol, start_proxy):
    with NullServer(protocol) as server:
        target = server.start().target()
        proxy = start_proxy(**{protocol: target})
        workload = messages.insert(protocol, "max_wait_ms:5")
        for port in (None, getattr(proxy, f"{protocol}_port")):
            before = target.rows()
            assert play(target, port, workload, depth=4).done == target.rows() - before > 0
        stats = proxy.stats()
        assert stats["batched_writes_total"] > 10 * stats["batches_total"] > 0


def test_the_engine_in_process_answers_every_write():
    results = engine.run(0.05, lambda text, advance: None)
    assert {r["database"] for r in results} == set(PROTOCOLS)
    assert all(r["writes_per_s"] > 0 and r["avg_batch"] == 1000 for r in results)


def test_cpu_time_of_this_process_grows():
    before = cpu_seconds(os.getpid())
    while cpu_seconds(os.getpid()) == before:
        pass
    assert busiest({"client": 0.1, "proxy": 0.7}) == "proxy (0.70 cores)"
    assert "cores busy" in busiest({"proxy": float(os.cpu_count())})


def test_a_target_that_is_not_reached_is_said():
    case = Case("write", "target 1k", "postgres", messages.Workload([]), ("direct",), 1, rate=1000)
    assert result(case, "direct", [Sample(900, (1, 2, 3))])["reached"] is False
    assert result(case, "direct", [Sample(990, (1, 2, 3)), Sample(960, (1, 2, 3))])["reached"] is True


def test_urls():
    target = Target.from_url("postgresql://me:p%40ss@[::1]:6000/db")
    assert (target.protocol, target.host, target.port, target.user, target.password, target.database) == (
        "postgres", "::1", 6000, "me", "p@ss", "db")
    assert target.address == "[::1]:6000"
    assert Target.from_url("mysql://root@h").port == 3306
    with pytest.raises(ConfigError, match="not a database URL"):
        Target.from_url("http://x")


def run(command, *args):
    return subprocess.run([*command, *args], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "COLUMNS": "160"})


def test_demo(command):
    done = run(command, "demo", "--once", "--seconds", "1", "--connections", "16")
    assert done.returncode == 0, done.stdout + done.stderr
    for text in ("PostgreSQL", "MariaDB", "direct", "batched", "acknowledged writes"):
        assert text in done.stdout


def test_bench(command, tmp_path):
    """All of the suite that needs no server of its own kind is run elsewhere; this is one scenario, whole.

    With a frozen executable this is also where what draws pictures comes out of its archive.
    """
    path = tmp_path / "bench.json"
    done = run(command, "bench", "write", "--target", "10k", "--quick", "--json", str(path), "--pictures",
               str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(path.read_text())
    assert {(r["database"], r["path"]) for r in results} >= {(d, p) for d in PROTOCOLS for p in ("direct", "batched")}
    assert all(r.keys() >= BENCH_KEYS and r["writes_per_s"] > 0 for r in results)
    batched = [r for r in results if r["path"] == "batched"]
    assert all(r["avg_batch"] > 1 and r["cpu_us_per_write"].keys() == {"client", "proxy", "database"}
               for r in batched)
    assert (tmp_path / "write.png").read_bytes().startswith(b"\x89PNG")


def test_bench_with_a_server_of_the_users(command, postgres, tmp_path):
    url = f"postgresql://postgres@127.0.0.1:{postgres.port}/postgres"
    path = tmp_path / "bench.json"
    done = run(command, "bench", "overhead", "mix", "--quick", "--server", url, "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {r["database"] for r in json.loads(path.read_text())} == {"postgres"}
    left = Target.from_url(url).execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'tqdb_bench'")
    assert left == [(0,)]


@pytest.mark.parametrize("args, words", [
    (["nonsense"], "unknown scenario 'nonsense'; allowed: write"),
    (["write", "--target", "5k"], "unknown target '5k'; allowed: 1k"),
    (["write", "--slow-disk", "5"], "a slow disk needs the library"),
    (["write", "--server", "ftp://x"], "'ftp://x' is not a database URL"),
])
def test_bench_says_what_is_wrong(command, args, words):
    done = subprocess.run([*command, "bench", *args], capture_output=True, text=True, timeout=60,
                          env={k: v for k, v in os.environ.items() if k != "TQDB_SLOWSYNC"})
    assert done.returncode == 2 and words in done.stderr


def test_a_slow_disk_is_slow():
    shim = os.path.abspath("build/slowsync.so")
    assert os.path.exists(shim), "make build/slowsync.so"
    code = ("import os, time\nf = os.open('/dev/null', os.O_WRONLY)\nstart = time.monotonic()\n"
            "try: os.fdatasync(f)\nexcept OSError: pass\nprint(time.monotonic() - start)")
    done = subprocess.run(["python3", "-c", code], capture_output=True, text=True, check=True, timeout=60,
                          env={**os.environ, "LD_PRELOAD": shim, "TQDB_SLOW_COMMIT_US": "50000"})
    assert float(done.stdout) >= 0.05


@pytest.mark.parametrize("options", [{"think": -1}, {"think": 1, "depth": 2}, {"think": 1, "rate": 5}], ids=str)
def test_only_a_closed_loop_of_depth_one_thinks(options):
    with pytest.raises(ValueError, match="think time"):
        Generator([0], [b"x"], "postgres", **options)


@pytest.mark.parametrize("shapes", [1, 4, 16, 24])
def test_statements_of_different_form(target, proxy, shapes):
    """As many groups as forms, every row written."""
    workload = messages.insert_shapes(target.protocol, "max_wait_ms:1", shapes, count=48)
    assert len({m[m.index(b"INSERT"):m.index(b"VALUES")] for m in workload.messages}) == shapes
    before = target.rows()
    assert play(target, getattr(proxy, f"{target.protocol}_port"), workload, 0.1).done == target.rows() - before > 0


def cell(database="postgres", rate=1.0, p99=0.0, rivals=(), **details) -> list[dict]:
    """Results of one cell of the grid: direct is 100 a second and 5 ms."""
    details = {"clients": 4, "shapes": 1, "wait": "10", "idle": 0, "think_ms": 0, **details}
    ways = {"direct": (100.0, 5.0), "batched": (100.0 * rate, 5.0 + p99), **{r: (100.0 * v, 5.0) for r, v in rivals}}
    return [{"scenario": "never", "label": str(details), "database": database, "path": path, "writes_per_s": per_second,
             "p99_ms": ms, **details} for path, (per_second, ms) in ways.items()]


@pytest.mark.parametrize("results, short", [
    (cell(rate=0.95), False), (cell(rate=0.94), True), (cell(rate=5), False),
    (cell(rate=0.8, rivals=[("pgbouncer", 0.82)]), False), (cell(rate=0.79, rivals=[("pgbouncer", 0.82)]), True),
    (cell(rate=0.8, rivals=[("pgbouncer", 0.5), ("haproxy", 0.9)]), True),
    (cell(rate=0.96, rivals=[("haproxy", 1.2)]), False),
    (cell(rate=0.5, p99=10.9, think_ms=5), False), (cell(rate=0.5, p99=11.1, think_ms=5), True),
    (cell(p99=0.9, think_ms=5, wait="auto"), False), (cell(p99=1.1, think_ms=5, wait="auto"), True)])
def test_a_cell_is_as_good_as_direct_or_short_of_it(results, short):
    [found] = never.cells(results)
    assert never.is_short(found) is short
    assert never.findings(results)[0] == f"never: {1 - short} of 1 cells are as good as direct"
    assert len(never.findings(results)) == 1 + short


def test_the_grid_is_shown_by_database_and_think_time():
    results = [r for database in PROTOCOLS for think_ms in (0, 5) for clients in (1, 16) for idle in (0, 200)
               for r in cell(database, 0.5 if clients == 1 else 2.25, clients, clients=clients, idle=idle,
                             think_ms=think_ms)]
    console = Console(width=80, record=True, file=io.StringIO())
    tables = never.tables(results)
    for table in tables:
        console.print(table)
    text = console.export_text()
    assert len(tables) == 4 and text.count("direct = 1") == text.count("think time 5 ms") == 2
    assert text.count("0.50") == text.count("2.25") == 4 and text.count("16.0") == 4


def test_the_whole_suite_takes_the_short_form_of_the_grid():
    full, short = (make(0, None) for make in (never.never, never.never_short))
    assert len(full) == 720 and {c.label for c in short} < {c.label for c in full} and len(short) < 40


def test_scenarios_are_all_known():
    assert set(ALL) == set(SCENARIOS) | {"engine"}
    for make in SCENARIOS.values():
        assert make.__doc__ and make(0, None)
