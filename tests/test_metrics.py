"""What Prometheus, Grafana and the alert rules read: real servers, a real Prometheus, every expression evaluated."""

import contextlib
import gc
import json
import os
import random
import re
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from tqdb._core import Stats

from tests.fix_prometheus import RULES, prometheus_tool
from tests.raw import RawPostgres
from tests.wait import wait_for
from tqdb import metrics
from tqdb.load import messages
from tqdb.load.servers import free_port
from tqdb.load.targets import Target
from tqdb.load.writers import Writers

ROOT = Path(__file__).parent.parent
HINT = "max_wait_ms:5 file:app.py line:{}"
WRITES = ("insert", "update", "delete", "replace")


@contextlib.contextmanager
def load(servers: dict, proxy, connections: int = 16, rate: float = 400.0):
    """Hinted inserts on every server of ``{protocol: server}`` through ``proxy`` until the block ends."""
    targets = [Target.of(server).make() for server in servers.values()]
    running = []
    try:
        for line, target in enumerate(targets, 1):
            writers = Writers(target, getattr(proxy, f"{target.protocol}_port"), connections)
            running.append(writers)
            writers.start(messages.insert(target.protocol, HINT.format(line)), 1e6, rate=rate)
        yield running
    finally:
        for writers in running:
            writers.generator.stop()
        for writers in running:
            writers.wait()
            writers.close()
        for target in targets:
            target.drop()


def trouble(proxy, server, table: str) -> None:
    """One of everything that is counted and that a load of good inserts does not bring."""
    dsn_port = proxy.postgres_port
    first, second = RawPostgres(dsn_port), RawPostgres(dsn_port)
    first.query(f"CREATE TABLE {table} (a int PRIMARY KEY)")
    first.query(f"/* max_wait_ms:nonsense */ INSERT INTO {table} VALUES (1)")
    first.query(f"INSERT INTO {table} VALUES (2)")
    first.query("BEGIN")
    first.query(f"/* max_wait_ms:5 file:app.py line:9 */ INSERT INTO {table} VALUES (3)")
    first.query("COMMIT")
    # a duplicate key in a batch: it fails whole, and is taken apart
    sql = "/* max_wait_ms:2000 file:app.py line:9 */ INSERT INTO {} VALUES ({})"
    threads = [threading.Thread(target=s.query, args=(sql.format(table, n),)) for s, n in ((first, 3), (second, 4))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # a value of one byte: the rows 1, 2, 3 and 4 are there
    assert b"\0\0\0\x014" in first.query(f"SELECT count(*) FROM {table}")


def expressions() -> dict[str, str]:
    """Every PromQL expression that the documentation, the Grafana dashboard and the rules use, by where it stands."""
    found = {}
    for path in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        for n, block in enumerate(re.findall(r"```promql\n(.*?)```", path.read_text(), re.DOTALL)):
            found[f"{path.name}#{n}"] = block.strip()
    dashboard = json.loads((ROOT / "packaging/grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for n, target in enumerate(panel.get("targets", [])):
            found[f"grafana: {panel['title']}#{n}"] = target["expr"]
    for name, variable in ((v["name"], v) for v in dashboard["templating"]["list"]):
        query = variable.get("query")
        query = query["query"] if isinstance(query, dict) else query or ""
        metric = re.match(r"label_values\((.*),\s*\w+\)", query)
        if metric:
            found[f"grafana variable: {name}"] = metric[1]
    for kind, name, text in re.findall(r"- (record|alert): (\S+)\n\s+expr: (?:>-\n)?((?:.*\n)*?)(?=\n|\s+- |\s+for:)",
                                       RULES.read_text()):
        text = " ".join(text.split())
        # an alert's expression is silent when all is well: what it compares must be there
        found[f"{kind} {name}"] = text if kind == "record" else re.sub(r"(\S)\s[<>]\s[\d.]+( and |$)", r"\1\2", text)
    return found


def concrete(expression: str) -> str:
    """With what Grafana puts in, and windows that fit a test's length."""
    expression = expression.replace("$__rate_interval", "8s").replace("$job", "tqdb").replace("$instance", ".*")
    return re.sub(r"\[(5|10)m\]", "[8s]", expression)


def test_expressions_are_found():
    found = expressions()
    assert sum(k.startswith("grafana:") for k in found) > 25
    assert sum(k.startswith("alert") for k in found) == RULES.read_text().count("alert:") >= 6
    assert sum(k.startswith("record") for k in found) == RULES.read_text().count("record:")
    assert sum("#" in k and k.endswith(tuple("0123456789")) and "md" in k for k in found) >= 8


def test_promtool_finds_nothing_to_mend(proxy, pg, table):
    connection = pg()
    connection.execute(f"CREATE TABLE {table} (a int)")
    connection.execute(f"/* max_wait_ms:5 file:x line:1 */ INSERT INTO {table} VALUES (1)")
    promtool = prometheus_tool("promtool")
    done = subprocess.run([promtool, "check", "metrics"], input=proxy.get("/metrics"), capture_output=True, text=True)
    assert done.stdout + done.stderr == ""
    done = subprocess.run([promtool, "check", "rules", "--lint=all", "--lint-fatal", str(RULES)], capture_output=True,
                          text=True)
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr


def test_prometheus_answers_every_expression(start_proxy, start_prometheus, postgres, mariadb, table):
    proxy = start_proxy(postgres=postgres, mariadb=mariadb, config="[writebatch]\nmax_label_sets = 3\n")
    prometheus = start_prometheus(proxy.metrics_port)
    waiting = {where: concrete(text) for where, text in expressions().items()}
    for where, text in waiting.items():
        assert "$" not in text, where
        prometheus.query(text)          # it parses
    with load({"postgres": postgres, "mariadb": mariadb}, proxy):
        trouble(proxy, postgres, table)

        def answered() -> bool:
            for where, text in list(waiting.items()):
                if prometheus.query(text):
                    del waiting[where]
            return not waiting

        try:
            prometheus.wait_for(answered)
        except AssertionError:
            raise AssertionError(f"no data for {waiting}") from None
    # an alert fires only if something is wrong
    assert {a["labels"]["alertname"] for a in prometheus.get("/api/v1/alerts")["alerts"]} <= {
        "TqdbLabelSetsDropped", "TqdbBatchRetries", "TqdbEffectivenessDrop"}


def test_a_backend_that_is_down_alerts(start_proxy, start_prometheus):
    class Nowhere:
        address = f"127.0.0.1:{free_port()}"

    proxy = start_proxy(postgres=Nowhere())
    prometheus = start_prometheus(proxy.metrics_port)
    prometheus.wait_for(lambda: "TqdbBackendDown" in {
        a["labels"]["alertname"] for a in prometheus.get("/api/v1/alerts")["alerts"]})


def test_batched_and_individual_are_all_writes_at_any_moment(proxy, postgres, mariadb):
    """Scrapes in the middle of a load: each is one moment, in which the sums fit."""
    from prometheus_client.parser import text_string_to_metric_families
    with load({"postgres": postgres, "mariadb": mariadb}, proxy, rate=0) as running:
        for _ in range(20):
            sums = dict.fromkeys(("query", "batched_writes", "individual_writes"), 0.0)
            for family in text_string_to_metric_families(proxy.get("/metrics")):
                for sample in family.samples:
                    name = sample.name.removeprefix("tqdbproxy_").removesuffix("_total")
                    if name in sums and sample.labels.get("query_type") in WRITES:
                        sums[name] += sample.value
            assert sums["query"] == sums["batched_writes"] + sums["individual_writes"] > 0
            s = proxy.stats()
            assert s["writes_total"] == s["batched_writes_total"] + sum(s["individual"].values())
        assert all(writers.generator.done > 0 for writers in running)


def test_a_hundred_thousand_places(start_proxy, postgres):
    """Distinct hints: series stay at the bound, the drop is counted, memory does not follow, and writes go on."""
    bound, places, connections = 1000, 100_000, 8
    proxy = start_proxy(postgres=postgres)
    target = Target.of(postgres).make()
    sql = "/* max_wait_ms:5 file:f{0}.py line:{0} */ INSERT INTO " + messages.SPACE + (
        ".events (kind, source) VALUES ('x', 1)")

    def play(numbers: list[int]) -> None:
        """One statement from each of ``numbers``, at least, and a few of them twice."""
        with contextlib.ExitStack() as stack:
            running = []
            for i in range(connections):
                writers = stack.enter_context(contextlib.closing(Writers(target, proxy.postgres_port, 1)))
                texts = [messages.text("postgres", sql.format(n)) for n in numbers[i::connections]]
                running.append((writers.start(messages.Workload(texts), 1e6, depth=16), writers, len(texts)))
            for generator, writers, count in running:
                wait_for(lambda generator=generator, count=count: generator.done >= count or generator.dead)
                assert generator.dead == 0
                generator.stop()
                writers.wait()

    try:
        process = psutil.Process(proxy.process.pid)
        play(list(range(2 * bound)))
        proxy.get("/metrics")
        memory = process.memory_info().rss
        series = len(proxy.get("/metrics").splitlines())
        play(random.sample(range(places), places))
        after = proxy.get("/metrics")
        assert len(after.splitlines()) <= 1.2 * series
        assert len(set(re.findall(r'file="[^"]*",line="[^"]*"', after))) <= bound + 2
        assert proxy.metric("tqdbproxy_label_sets_dropped_total") >= places - bound
        assert process.memory_info().rss - memory < 20 * 1024 * 1024
        assert proxy.metric("tqdbproxy_query_total", query_type="insert") == target.rows()
    finally:
        target.drop()


@pytest.mark.parametrize("kind", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_a_scrape_is_one_moment_in_both_formats(proxy, pg, table, kind):
    """Every family once, with its header, in whichever format."""
    connection = pg()
    connection.execute(f"CREATE TABLE {table} (a int)")
    connection.execute(f"/* max_wait_ms:5 file:y line:2 */ INSERT INTO {table} VALUES (1)")
    text = proxy.get("/metrics", accept=kind)
    if kind.startswith("application"):
        from prometheus_client.openmetrics.parser import text_string_to_metric_families
    else:
        from prometheus_client.parser import text_string_to_metric_families
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names)) > 25
    assert 'file="y",line="2"' in text


# --- where /proc does not tell ----------------------------------------------------------------------------------------

def process_metrics(proxy) -> set[str]:
    return set(re.findall(r"^(process_\w+) ", proxy.get("/metrics"), re.MULTILINE))


MEMORY, DESCRIPTORS = {"process_virtual_memory_bytes", "process_resident_memory_bytes"}, {"process_open_fds"}


def test_metrics_in_a_root_without_proc(postgres, proxy, command):
    """What cannot be read is left out, and the rest is there."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace of our own here")
    without = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh", *command]
    with type(proxy)(postgres, None, without) as bare:
        bare.start()
        assert process_metrics(proxy) - process_metrics(bare) == MEMORY | DESCRIPTORS
        assert bare.metric("process_cpu_seconds_total") > 0 and bare.metric("tqdbproxy_backend_up") == 1
        assert bare.get("/metrics", "application/openmetrics-text").endswith("# EOF\n")


def test_descriptors_are_counted_where_the_kernel_does_not_keep_their_number(tmp_path, monkeypatch):
    """Before Linux 6.2 the size of the directory is 0."""
    server = SimpleNamespace(
        engine=SimpleNamespace(stats=Stats(10)), loop=SimpleNamespace(call_later=lambda *_: None, turns=[], longest=0))
    found = metrics.Metrics(server, None)
    gc.collect()            # what earlier tests have left is closed now

    def more() -> int:
        before = found._open_descriptors()
        with open(tmp_path / "one", "w"):
            return found._open_descriptors() - before

    # other threads open and close some of theirs; one that waits for a connection keeps a number that no list shows
    wait_for(lambda: more() == 1)
    sizes = {"/proc/self/fd": 0}
    real = os.stat
    monkeypatch.setattr(metrics.os, "stat", lambda path: (
        SimpleNamespace(st_size=sizes[path]) if path in sizes else real(path)))
    with open(tmp_path / "more", "w"):
        counted = found._open_descriptors()
        assert counted == len(os.listdir("/proc/self/fd")) - 1
    assert found._open_descriptors() == counted             # not at each scrape
    found.counted -= metrics.COUNT_SECONDS
    assert found._open_descriptors() == counted - 1
    monkeypatch.setattr(metrics, "PROC", str(tmp_path / "nothing"))
    assert found._open_descriptors() is None and metrics._memory() is None
