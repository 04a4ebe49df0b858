"""Every command, statement and example of the documentation is run; links lead somewhere; tables are up to date.

Fenced blocks say how: ``sh`` by a shell in an empty directory, ``sql postgres`` and ``sql mariadb`` through a proxy,
``python postgres``, ``python mariadb`` and ``python django`` by this interpreter. Ports of the text become those of
the test's servers. Examples in other languages are not run here, their statements are (``test_other_languages``).
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.fix_servers import tqdb_command
from tests.wait import wait_for
from tqdb import reasons
from tqdb.load.servers import free_port, postgres_bin
from tqdb.reference import ini, markdown

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = {"sh", "sql postgres", "sql mariadb", "python postgres", "python mariadb", "python django"}
SHOWN = {"", "yaml", "promql", "java", "go", "php", "js", "ruby", "ini"}       # promql: tests/test_metrics.py
STAYS_UP = ("tqdb serve", "tqdb demo", "tqdb top 127")
MARIADB_SETUP = ("CREATE DATABASE IF NOT EXISTS mydb", "USE mydb", "DROP TABLE IF EXISTS events",
                 "CREATE TABLE events (id int AUTO_INCREMENT PRIMARY KEY, kind text, data text)")


def blocks(wanted: set[str]) -> list:
    found = []
    for page in PAGES:
        for n, (kind, text) in enumerate(BLOCK.findall(page.read_text())):
            if kind in wanted:
                found.append(pytest.param(kind, text, id=f"{page.name}-{n}-{kind.replace(' ', '-')}"))
    return found


@pytest.fixture(scope="module")
def ports(postgres, mariadb, proxy) -> dict[str, int]:
    """What the documentation's ports are here; the databases have what its statements use."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE mydb")
    with psycopg.connect(postgres.dsn().replace("dbname=postgres", "dbname=mydb"), autocommit=True) as admin:
        admin.execute("CREATE TABLE events (id serial PRIMARY KEY, kind text, data jsonb)")
    with mariadb.connect() as admin, admin.cursor() as cursor:
        for sql in MARIADB_SETUP:
            cursor.execute(sql)
    yield {"5432": postgres.port, "3306": mariadb.port, "5433": proxy.postgres_port, "3307": proxy.mariadb_port,
           "9090": proxy.metrics_port}
    with mariadb.connect() as admin, admin.cursor() as cursor:
        cursor.execute("DROP DATABASE mydb")


def here(text: str, ports: dict[str, int]) -> str:
    return re.sub(r"\b(5432|3306|5433|3307|9090)\b", lambda m: str(ports[m[1]]), text)


def test_every_block_says_what_it_is():
    kinds = {kind for page in PAGES for kind, _ in BLOCK.findall(page.read_text())}
    assert kinds <= RUN | SHOWN
    assert len(blocks(RUN)) > 20


@pytest.fixture
def shell(tmp_path, postgres):
    """Runs a script as a reader would, with ``tqdb`` and the clients on PATH; returns its output."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "tqdb").write_text(f'#!/bin/sh\nexec {shlex.join(tqdb_command())} "$@"\n')
    (programs / "tqdb").chmod(0o755)
    # what a target of make does is tested elsewhere: here, that it is there
    (programs / "make").write_text(f'#!/bin/sh\nexec /usr/bin/make -n -C {ROOT} "$@" >/dev/null\n')
    (programs / "make").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{postgres_bin()}:{ROOT}/.venv/bin:{os.environ['PATH']}",
                   "PYTHONPATH": str(ROOT), "PGUSER": "postgres", "COLUMNS": "150"}
    folder = tmp_path / "empty"
    folder.mkdir()

    def run(script: str) -> str:
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, text=True,
                              capture_output=True, timeout=300)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    run.folder, run.environment = folder, environment
    return run


def stay_up(line: str, run, ports) -> None:
    """A command that runs until it is stopped: it starts, and ends well when asked to."""
    if "-c tqdb.ini" in line and not (run.folder / "tqdb.ini").exists():
        (run.folder / "tqdb.ini").write_text(here(ini(), ports))
    own = {"5433": free_port(), "3307": free_port(), "9090": free_port()}
    for name in run.folder.glob("*.ini"):
        text = name.read_text()
        for port in ("5433", "3307", "9090"):
            text = text.replace(f"listen = 127.0.0.1:{ports[port]}", f"listen = 127.0.0.1:{own[port]}")
        name.write_text(text)
    if "--postgres" in line or "--mariadb" in line:
        line += f" --listen-postgres 127.0.0.1:{own['5433']} --listen-mariadb 127.0.0.1:{own['3307']}"
        line = re.sub(r"(--metrics \S+:)\d+", rf"\g<1>{own['9090']}", line)
    with open(run.folder / "log", "w+") as log:
        process = subprocess.Popen(["bash", "-c", f"exec {line}"], cwd=run.folder, env=run.environment, stdout=log,
                                   stderr=log)
        try:
            wait_for(lambda: "ready" in Path(log.name).read_text() or process.poll() is not None, 60)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0, Path(log.name).read_text()
        finally:
            process.kill()


@pytest.mark.parametrize(("kind", "text"), blocks({"sh"}))
def test_shell(kind, text, shell, ports):
    script = ""
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith(STAYS_UP):
            shell(script)
            script = ""
            stay_up(here(line, ports), shell, ports)
        elif line.startswith("tqdb config > "):
            # of its own, with the test's ports in it
            script += f"{line}\nsed -i {' '.join(f'-e s/:{a}/:{b}/' for a, b in ports.items())} {line.split()[-1]}\n"
        else:
            script += here(line, ports) + "\n"
    if "-c tqdb.ini" in script and "> tqdb.ini" not in script:
        (shell.folder / "tqdb.ini").write_text(here(ini(), ports))
    shell(script)


@pytest.mark.parametrize(("kind", "text"), blocks({"sql postgres"}))
def test_sql_postgres(kind, text, shell, ports):
    script = here(f"psql -X -v ON_ERROR_STOP=1 -h 127.0.0.1 -p 5433 -U postgres mydb <<'END'\n{text}END\n", ports)
    assert shell(script)


@pytest.mark.parametrize(("kind", "text"), blocks({"sql mariadb"}))
def test_sql_mariadb(kind, text, shell, ports):
    shell(here(f"mariadb -h 127.0.0.1 -P 3307 -u root mydb <<'END'\n{text}END\n", ports))


@pytest.mark.parametrize(("kind", "text"), blocks({"python postgres", "python mariadb"}))
def test_python(kind, text, ports):
    pytest.importorskip("sqlalchemy")
    done = subprocess.run([sys.executable, "-c", here(text, ports)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("kind", "text"), blocks({"python django"}))
def test_django(kind, text, ports):
    pytest.importorskip("django")
    settings = {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": ports["5433"],
                "USER": "postgres", "NAME": "mydb"}
    code = ("import django\nfrom django.conf import settings\n"
            f"settings.configure(DATABASES={{'default': {settings!r}}}, INSTALLED_APPS=[])\ndjango.setup()\n")
    if "class Event" not in text and "Event.objects" in text:
        code += ("from django.db import models\nclass Event(models.Model):\n    kind = models.TextField()\n"
                 "    class Meta:\n        app_label = 'x'\n        db_table = 'events'\n")
    if "import connection" not in text:
        code += "from django.db import connection\n"
    done = subprocess.run([sys.executable, "-c", code + text], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_other_languages(ports, postgres, mariadb):
    """The statement of every example that is not run, with whatever its driver does about parameters."""
    seen = 0
    for page in PAGES:
        for kind, text in BLOCK.findall(page.read_text()):
            if kind not in ("java", "go", "php", "js"):
                continue
            for sql in re.findall(r"""["'](/\* max_wait_ms.*?\))["']""", text):
                seen += 1
                literal = re.sub(r"\?|\$1", "'click'", sql)
                with psycopg.connect(postgres.dsn(ports["5433"]).replace("dbname=postgres", "dbname=mydb"),
                                     autocommit=True) as connection:
                    connection.execute(literal)
                with mariadb.connect(ports["3307"], database="mydb") as connection, connection.cursor() as cursor:
                    assert cursor.execute(literal) == 1
    assert seen >= 4


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_reached_from_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert [p.name for p in (ROOT / "docs").glob("*.md") if f"docs/{p.name}" not in readme] == []


def test_the_reference_is_up_to_date():
    assert (ROOT / "packaging/tqdb.ini").read_text() == ini()
    assert markdown() in (ROOT / "docs/configuration.md").read_text()
    assert reasons.markdown() in (ROOT / "docs/reasons.md").read_text()


def test_every_test_that_is_named_exists():
    """``docs/exactness.md`` names the test of each promise."""
    text = (ROOT / "docs/exactness.md").read_text() + (ROOT / "docs/reliability.md").read_text()
    sources = "\n".join(p.read_text() for p in (ROOT / "tests").glob("test_*.py"))
    for name in re.findall(r"test_[\w*]+(?=`)", text):
        if not (ROOT / "tests" / f"{name}.py").exists():
            assert re.search(rf"def {name.replace('*', '.*')}\b", sources), name
    for path in re.findall(r"`(tests/\w+\.py)", text):
        assert (ROOT / path).exists(), path
