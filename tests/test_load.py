"""The load generator, the demonstration and the benchmarks do what they say."""

import json
import os
import subprocess

import pytest

from tqdb.errors import TqdbError
from tqdb.load.locust import arguments
from tqdb.load.writers import Writers, count_rows, insert_statements, prepare_table

BENCH_KEYS = {"scenario", "database", "path", "target_per_s", "writes_per_s", "p50_ms", "p95_ms", "p99_ms",
              "avg_batch"}


@pytest.mark.parametrize("protocol", ["postgres", "mariadb"])
def test_the_generator_counts_what_the_database_keeps(request, proxy, protocol):
    server = request.getfixturevalue(protocol)
    prepare_table(protocol, server)
    for port in (server.port, getattr(proxy, f"{protocol}_port")):
        before = count_rows(protocol, server)
        writers = Writers(protocol, server, port, 20)
        writers.start(insert_statements("max_wait_ms:5"), 0.5)
        generator = writers.wait()
        writers.close()
        assert generator.done > 0
        assert count_rows(protocol, server) - before == generator.done
        assert 0 < generator.percentile(0.5) <= generator.percentile(0.99)


@pytest.mark.parametrize("protocol", ["postgres", "mariadb"])
def test_the_generator_tells_failures(request, protocol):
    server = request.getfixturevalue(protocol)
    prepare_table(protocol, server)
    writers = Writers(protocol, server, server.port, 2)
    writers.start(["INSERT INTO missing VALUES (1)"], 0.1)
    with pytest.raises(TqdbError, match="writes failed"):
        writers.wait()
    writers.close()


def run(command, *args):
    return subprocess.run([*command, *args], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "COLUMNS": "160"})


def test_demo(command):
    done = run(command, "demo", "--once", "--seconds", "1", "--connections", "16")
    assert done.returncode == 0, done.stdout + done.stderr
    for text in ("PostgreSQL", "MariaDB", "direct", "batched", "acknowledged writes"):
        assert text in done.stdout


def test_bench(command, tmp_path):
    path = tmp_path / "bench.json"
    done = run(command, "bench", "overhead", "--seconds", "1", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(path.read_text())
    assert {"direct", "relayed"} <= {r["path"] for r in results}
    assert all(r.keys() >= BENCH_KEYS and r["writes_per_s"] > 0 for r in results)


def test_the_locustfile_fits_the_host():
    assert arguments(["--host", "mysql://root@h/d"])[1].endswith("locustfiles/mariadb.py")
    assert arguments(["--host=postgresql://u@h/d", "-u", "5"])[1].endswith("locustfiles/postgres.py")
    assert arguments(["-f", "mine.py"]) == ["-f", "mine.py"]
    with pytest.raises(TqdbError, match="not a database URL"):
        arguments(["--host", "http://x"])
