"""Node's drivers, direct and through the proxy. ``make test-drivers`` installs them; without them it is skipped."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "node"

pytestmark = pytest.mark.skipif(shutil.which("node") is None or not (HERE / "node_modules").exists(),
                                reason="make test-drivers installs what this needs")


def run(kind: str, port: int, table: str) -> list:
    done = subprocess.run(["node", str(HERE / "writes.js"), kind, str(port), table], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["pg", "pg-named", "mysql2", "mysql2-execute"])
def test_node_driver(postgres, mariadb, proxy, pg, my, table, kind):
    create = "CREATE TABLE {} (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, b varchar(99))"
    if kind.startswith("pg"):
        execute, ports = pg(through=False).execute, (postgres.port, proxy.postgres_port)
    else:
        execute, ports = my(through=False).cursor().execute, (mariadb.port, proxy.mariadb_port)
        create += " DEFAULT CHARSET=utf8mb4"
    results = []
    for side, port in zip("ab", ports, strict=True):
        execute(create.format(table + side))
        before = proxy.stats()["batched_writes_total"]
        results.append(run(kind, port, table + side))
    assert results[1] == results[0]
    assert sum(isinstance(x, list) and x[:1] == ["error"] for x in results[0][0]) == 3
    assert proxy.stats()["batched_writes_total"] - before >= 6 * 35
