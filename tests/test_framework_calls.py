"""docs/frameworks.md: which calls of Django, SQLAlchemy and Sequelize write by themselves, and are batched by a rule.

The libraries are as they come, in processes of their own.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.fix_servers import ProxyUnderTest, tqdb_command

HERE = Path(__file__).parent
WRITERS, ROUNDS = 8, 25
# True: batched; False: in a transaction of the session's own
CALLS = {
    "django": {"create": True, "save": True, "update": True, "delete": True, "get_or_create": False,
               "update_or_create": False, "bulk_create": False, "atomic": False},
    "sqlalchemy": {"session": False, "begin": False, "autocommit": True, "option": True},
    "sequelize": {"create": True, "save": True, "update": True, "upsert": True, "bulkCreate": True,
                  "findOrCreate": False, "transaction": False},
}


@pytest.fixture(scope="module", params=["postgres", "mariadb"])
def served(request):
    """``(name, proxy, refill)``: a proxy with a rule for everything; ``refill()`` makes the table anew."""
    server = request.getfixturevalue(request.param)
    key = "bigserial" if request.param == "postgres" else "bigint AUTO_INCREMENT"
    statements = ["DROP TABLE IF EXISTS events", f"CREATE TABLE events (id {key} PRIMARY KEY, kind varchar(99))",
                  *(f"INSERT INTO events (kind) VALUES ('of {k}')" for k in range(WRITERS))]
    if request.param == "postgres":
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("CREATE DATABASE calls")
    else:
        with server.connect() as admin, admin.cursor() as cursor:
            cursor.execute("CREATE DATABASE calls")

    def refill() -> None:
        if request.param == "postgres":
            with psycopg.connect(server.dsn().replace("dbname=postgres", "dbname=calls"), autocommit=True) as admin:
                for sql in statements:
                    admin.execute(sql)
        else:
            with server.connect(database="calls") as admin, admin.cursor() as cursor:
                for sql in statements:
                    cursor.execute(sql)

    with ProxyUnderTest(**{request.param: server}, command=tqdb_command(),
                        config="[rule.all]\nmax_wait_ms = 20\n") as proxy:
        yield request.param, proxy.start(), refill


def program(framework: str, name: str) -> list[str]:
    if framework == "sequelize":
        if shutil.which("node") is None or not (HERE / "node/node_modules/sequelize").exists():
            pytest.skip("make test-drivers installs what this needs")
        return ["node", str(HERE / "node/calls.js")]
    pytest.importorskip(framework)
    if framework == "django" and name == "mariadb":
        pytest.importorskip("MySQLdb", reason="Django's MySQL backend needs it")
    return [sys.executable, str(HERE / f"calls/with_{framework}.py")]


@pytest.mark.parametrize(("framework", "call"), [(f, call) for f, calls in CALLS.items() for call in calls])
def test_call(served, framework, call):
    name, proxy, refill = served
    if (name, call) == ("postgres", "findOrCreate"):
        pytest.skip("Sequelize writes in a function of its own there")
    command = program(framework, name)
    port = proxy.postgres_port if name == "postgres" else proxy.mariadb_port
    refill()
    before = proxy.stats()
    done = subprocess.run([*command, name, str(port), "calls", call, str(WRITERS), str(ROUNDS)], capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    after = proxy.stats()
    writes, batched = (after[key] - before[key] for key in ("writes_total", "batched_writes_total"))
    inside = after["individual"].get("in_transaction", 0) - before["individual"].get("in_transaction", 0)
    assert writes >= WRITERS * ROUNDS
    if CALLS[framework][call]:
        assert batched > writes / 4 and inside == 0       # the first go alone while their table is looked at
    else:
        assert batched == 0 and inside == writes
