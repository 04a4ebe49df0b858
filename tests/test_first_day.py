"""The first day of docs/advice.md with applications as they are, Django and Sequelize: observe, look, paste, SIGHUP.

An application is a process of its own that knows nothing of the proxy but its port, and never changes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.wait import wait_for

THREADS, ROUNDS = 8, 60
NODE = Path(__file__).parent / "node"
DJANGO = """
import sys, threading
import django
from django.conf import settings

engine, port, user, name = sys.argv[1:5]
settings.configure(DATABASES={"default": {
    "ENGINE": f"django.db.backends.{engine}", "HOST": "127.0.0.1", "PORT": port, "USER": user, "NAME": name}},
    INSTALLED_APPS=[], USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField")
django.setup()
from django.db import connection, models


class Visit(models.Model):
    page = models.TextField()
    ms = models.IntegerField()

    class Meta:
        app_label = "shop"
        db_table = "visits"


if sys.argv[5] == "migrate":
    with connection.schema_editor() as editor:
        editor.create_model(Visit)
    sys.exit()


def visit():
    for k in range(int(sys.argv[6])):
        Visit.objects.create(page=f"/product/{k}", ms=k)
    connection.close()


threads = [threading.Thread(target=visit) for _ in range(int(sys.argv[5]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(Visit.objects.count())
"""


def django(name: str, tmp_path: Path) -> list[str]:
    if name == "mariadb":
        pytest.importorskip("MySQLdb", reason="Django's MySQL backend needs it")
    (tmp_path / "app.py").write_text(DJANGO)
    return [sys.executable, str(tmp_path / "app.py"), {"postgres": "postgresql", "mariadb": "mysql"}[name]]


def sequelize(name: str, tmp_path: Path) -> list[str]:
    if shutil.which("node") is None or not (NODE / "node_modules/sequelize").exists():
        pytest.skip("make test-drivers installs what this needs")
    return ["node", str(NODE / "visits.js"), {"postgres": "postgres", "mariadb": "mysql"}[name]]


@pytest.fixture(params=["postgres", "mariadb"])
def server(request):
    return request.getfixturevalue(request.param)


# Sequelize names the column of ids, as DEFAULT: on MariaDB such an INSERT is not merged
VERDICTS = {"mariadb-sequelize": "pipelined"}


@pytest.mark.parametrize("framework", [django, sequelize])
def test_from_nothing_to_a_batched_write(framework, server, start_proxy, command, tmp_path):
    name = server.name
    program = framework(name, tmp_path)
    database = framework.__name__
    if name == "postgres":
        user = "postgres"
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {database}")
    else:
        user = "root"
        with server.connect() as admin, admin.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {database}")
    proxy = start_proxy(**{name: server})
    port = proxy.postgres_port if name == "postgres" else proxy.mariadb_port

    def application(*arguments: object) -> str:
        done = subprocess.run([*program, str(port), user, database, *map(str, arguments)], capture_output=True,
                              text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def advise(*options: str) -> str:
        done = subprocess.run([*command, "advise", f"127.0.0.1:{proxy.metrics_port}", *options], capture_output=True,
                              text=True, timeout=60, env={**os.environ, "COLUMNS": "80"})
        assert done.returncode == 0, done.stderr
        return done.stdout

    configuration = Path(proxy.path)
    reloads = 0

    def configure(text: str) -> None:
        nonlocal reloads
        configuration.write_text(text)
        reloads += 1
        proxy.tell(signal.SIGHUP)
        wait_for(lambda: proxy.log().count("reloaded ") == reloads, what=proxy.log)

    plain = configuration.read_text()
    # 1: everything is relayed
    configure(plain.replace(f"[{name}]\n", f"[{name}]\nobserve = yes\n"))
    application("migrate")

    # 2: the application runs, and what it writes is looked at
    def looked_at() -> dict:
        application(THREADS, ROUNDS)
        found = [s for s in json.loads(advise("--json"))["shapes"] if "visits" in s["statement"] and s["rule"]]
        return found[0] if found else {}

    shape = wait_for(looked_at, timeout=120)
    assert proxy.batched() == 0 and shape["verb"] == "insert"
    assert shape["verdict"] == VERDICTS.get(f"{name}-{database}", "merged")
    assert shape["rule"] in advise()

    # 3: the rule is pasted
    configure(plain + "\n" + shape["rule"])

    # 4: the same application is batched
    rows = int(application(THREADS, ROUNDS))
    assert proxy.batched() > THREADS * ROUNDS / 2
    assert int(application(1, 0)) == rows
    after = next(s for s in json.loads(advise("--json"))["shapes"] if s["id"] == shape["id"])
    assert after["batched"] == proxy.batched()
