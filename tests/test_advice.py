"""Advice about real traffic: what is counted, what is said, what it costs, and that it shows no value."""

import json
import os
import subprocess
import threading
import urllib.error

import psycopg
import pytest

from tests.crowd import together
from tests.fix_servers import ProxyUnderTest, tqdb_command
from tests.wait import wait_for
from tqdb.load import messages
from tqdb.load.targets import Target
from tqdb.load.writers import Writers

SECRET = "s3cr3t"


@pytest.fixture(scope="module")
def proxy(postgres, mariadb):
    """Not everybody's: among the shapes of all other tests these here would not be shown."""
    with ProxyUnderTest(postgres, mariadb, tqdb_command()) as proxy:
        yield proxy.start()
        assert "Traceback" not in proxy.log(), proxy.log()


def advice(proxy) -> dict:
    return json.loads(proxy.get("/advice.json"))


def shape(proxy, table: str, verb: str = "insert") -> dict:
    """The one shape that writes to ``table``."""
    found = [s for s in advice(proxy)["shapes"] if table in s["statement"] and s["verb"] == verb]
    assert len(found) == 1, found
    return found[0]


@pytest.fixture(params=["postgres", "mariadb"])
def database(request, pg, my):
    """``(protocol, connect)``; ``connect()`` opens a connection through the proxy."""
    return request.param, pg if request.param == "postgres" else my


def execute(connection, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def crowd(connect, size: int, work) -> None:
    """``work(connection)`` on ``size`` connections at the same time, which end afterwards."""
    connections = [connect() for _ in range(size)]
    threads = [threading.Thread(target=work, args=(c,)) for c in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for connection in connections:
        connection.close()


def test_unhinted_writes_are_counted_by_shape(database, proxy, table):
    protocol, connect = database
    execute(connect(), f"CREATE TABLE {table} (a int, b varchar(40))")

    def write(connection):
        for k in range(25):
            execute(connection, f"INSERT INTO {table} (a, b) VALUES ({k}, '{SECRET}{k}')")
            execute(connection, f"update {table} set b = '{SECRET}' where a = {1000 + k} /* file:app.py line:7 */")

    crowd(connect, 4, write)
    found = shape(proxy, table)
    assert found["writes"] == 100 and found["connections"] == 4
    assert found["statement"] == f"INSERT INTO {table} (a, b) VALUES (?, ?)"
    assert found["protocol"] == protocol and found["outside_percent"] == 100
    assert 0 < found["windows"][2]["saved"] < 100
    other = shape(proxy, table, "update")
    assert (other["file"], other["line"]) == ("app.py", "7")
    assert SECRET not in proxy.get("/advice.json")


def test_a_table_is_looked_at_when_nobody_waits(database, proxy, table):
    protocol, connect = database
    default = "xid8 DEFAULT pg_current_xact_id()" if protocol == "postgres" else "bigint DEFAULT (connection_id())"
    execute(connect(), f"CREATE TABLE {table} (a int, tx {default})")
    execute(connect(), f"CREATE TABLE {table}_good (a int)")

    def write(connection):
        for k in range(40):
            execute(connection, f"INSERT INTO {table} (a) VALUES ({k})")
            execute(connection, f"INSERT INTO {table}_good (a) VALUES ({k})")

    def looked_at() -> bool:
        crowd(connect, 4, write)
        return {shape(proxy, f"{table} ")["verdict"], shape(proxy, f"{table}_good")["verdict"]} == {"alone", "merged"}

    wait_for(looked_at, timeout=90)
    bad, good = shape(proxy, f"{table} "), shape(proxy, f"{table}_good")
    assert bad["rule"] is None and "the default of column" in bad["why"] and "tx" in bad["why"]
    assert f"fingerprint = {good['fingerprint']}" in good["rule"] and good["rule"].startswith("[rule.insert_")


def test_whoever_writes_most_keeps_nobody_from_being_looked_at(start_proxy, mariadb, my, table):
    """MariaDB's connections that stay open: what they write most remains to be asked about for ever."""
    proxy = start_proxy(mariadb=mariadb)
    columns = [f"c{k}" for k in range(12)]
    execute(my(through=False), f"CREATE TABLE {table} (a int, {', '.join(f'{c} int' for c in columns)})")
    connections = [mariadb.connect(proxy.mariadb_port, database="d") for _ in range(4)]

    def write(k: int):
        for column in columns * 3:
            execute(connections[k], f"INSERT INTO {table} ({column}) VALUES (1)")
        execute(connections[k], f"INSERT INTO {table} (a) VALUES (LAST_INSERT_ID())")

    def looked_at() -> bool:
        together(4, write)
        return shape(proxy, f"{table} (a)")["verdict"] == "alone"

    try:
        wait_for(looked_at, timeout=60)
        assert shape(proxy, f"{table} (c0)")["verdict"] == "unknown"
    finally:
        for connection in connections:
            connection.close()


def test_writes_inside_transactions(database, proxy, table):
    _, connect = database
    execute(connect(), f"CREATE TABLE {table} (a int)")

    def write(connection):
        for k in range(10):
            execute(connection, "BEGIN")
            execute(connection, f"INSERT INTO {table} (a) VALUES ({k})")
            execute(connection, "COMMIT")

    crowd(connect, 3, write)
    found = shape(proxy, table)
    assert found["verdict"] == "alone" and found["why"].startswith("always inside a transaction: use autocommit")
    assert found["outside_percent"] == 0 and found["rule"] is None
    assert [w["saved"] for w in found["windows"]] == [0, 0, 0]


def test_writes_in_one_segment_with_their_begin(postgres, proxy, table):
    """As Java's driver sends them."""
    with psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {table} (a int)")
        before = proxy.counted("in_transaction")
        for k in range(5):
            with connection.pipeline():
                connection.execute("BEGIN")
                connection.execute(f"/* max_wait_ms:5 */ INSERT INTO {table} (a) VALUES (%s)", (k,))
            connection.execute("COMMIT")
            connection.execute(f"INSERT INTO {table} (a) SELECT %s", (k,))
    found = [s for s in advice(proxy)["shapes"] if f" {table} " in s["statement"]]
    assert [s["outside_percent"] for s in sorted(found, key=lambda s: s["statement"])] == [100, 0]
    assert proxy.counted("in_transaction") == before + 5


def test_prepared_writes_are_the_same_shape(postgres, proxy, pg, table):
    with psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {table} (a int, b text)")
        for k in range(10):
            connection.execute(f"INSERT INTO {table} (a, b) VALUES (%s, %s)", (k, SECRET), prepare=k > 5)
    one = pg()
    for k in range(10):
        one.execute(f"INSERT INTO {table} (a, b) VALUES ({k}, '{SECRET}')")
    assert shape(proxy, table)["writes"] == 20


def test_hinted_writes_are_counted_too(database, proxy, table):
    _, connect = database
    execute(connect(), f"CREATE TABLE {table} (a int)")

    def write(connection):
        for k in range(20):
            execute(connection, f"/* max_wait_ms:20 file:x.py line:3 */ INSERT INTO {table} (a) VALUES ({k})")

    def known() -> bool:
        crowd(connect, 4, write)
        return shape(proxy, table)["verdict"] == "merged"

    wait_for(known, timeout=90)
    found = shape(proxy, table)
    assert found["batched"] > 0.5 * found["writes"] and found["rule"] is None and found["file"] == "x.py"


def test_show_tqdb_writes(database, proxy, table):
    _, connect = database
    execute(connect(), f"CREATE TABLE {table} (a int)")
    for k in range(5):
        execute(connect(), f"INSERT INTO {table} (a) VALUES ({k})")
    found = shape(proxy, table)

    def same() -> list[dict]:
        return [r for r in shown(connect()) if r["statement"] == found["statement"]]

    wait_for(same)      # rows that took long to make are shown for a while
    assert same()[0]["verb"] == "insert" and int(same()[0]["writes"]) == found["writes"]


def shown(connection) -> list[dict]:
    """The answer to SHOW TQDB WRITES, each row by the columns' names."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW TQDB WRITES")
        names = [c[0] for c in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_others_writes_are_not_shown(database, proxy, table, request):
    """Their statements, applications and files are theirs."""
    protocol, connect = database
    user = f"{table}_other"
    server = request.getfixturevalue(protocol)
    if protocol == "postgres":
        connect().execute(f"CREATE ROLE {user} LOGIN")
        other = lambda: connect(user=user)   # noqa: E731
    else:
        execute(connect(), f"CREATE USER {user}@'127.0.0.1'")
        execute(connect(), f"GRANT ALL ON *.* TO {user}@'127.0.0.1'")
        other = lambda: server.connect(proxy.mariadb_port, database="d", user=user)     # noqa: E731
    execute(connect(), f"CREATE TABLE {table} (a int)")
    for k in range(3):
        execute(connect(), f"INSERT INTO {table} (a) VALUES ({k})")
    wait_for(lambda: any(table in r["statement"] for r in shown(connect())))
    assert not any(table in r["statement"] for r in shown(other()))


NAMES = ["\\', 'x'); DROP TABLE {table}; --", "'; DROP TABLE {table}; --", "\\\\'||1/0||'", "%s {{}} \\", "a\nb\rc",
         "\x1b]0;title\x07", "grüße \U0001f600", "\\x41", "E'x'"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("conforming", ["on", "off"])
def test_names_are_never_more_than_text(pg, proxy, command, table, name, conforming):
    """Of a table, a column and an application, to who asks by SQL, in a terminal and in a configuration."""
    name = name.format(table=table)
    pg().execute(f"CREATE TABLE {table} (a int)")
    quoted = '"' + name.replace('"', '""') + '"'
    writer = pg()
    with pytest.raises(psycopg.Error):
        writer.execute(f"INSERT INTO {table} ({quoted}) VALUES (1)", prepare=False)
    with pytest.raises(psycopg.Error):
        writer.execute(f'INSERT INTO "x{name}" ({table}) VALUES (1)', prepare=False)
    said = [s for s in advice(proxy)["shapes"] if table in s["statement"]]
    assert len(said) >= 2 and all(s["statement"].isprintable() for s in said)
    reader = pg()
    reader.execute(f"SET standard_conforming_strings = {conforming}")
    wait_for(lambda: sum(table in r["statement"] for r in shown(reader)) >= 2)
    assert pg().execute("SELECT count(*) FROM pg_class WHERE relname = %s", (table,)).fetchone() == (1,)
    printed = subprocess.run([*command, "advise", f"127.0.0.1:{proxy.metrics_port}"], capture_output=True, timeout=60)
    assert printed.returncode == 0 and not set(printed.stdout) & (set(range(32)) - {10})


def test_the_command(proxy, command, pg, table):
    pg().execute(f"CREATE TABLE {table} (a int)")

    def write(connection):
        for k in range(40):
            execute(connection, f"INSERT INTO {table} (a) VALUES ({k})")

    def known() -> bool:
        crowd(pg, 4, write)
        return shape(proxy, table)["rule"] is not None

    wait_for(known, timeout=90)

    def run(*options: str) -> str:
        done = subprocess.run([*command, "advise", f"127.0.0.1:{proxy.metrics_port}", *options], text=True,
                              capture_output=True, timeout=120, env={**os.environ, "COLUMNS": "80"})
        assert done.returncode == 0, done.stderr
        return done.stdout

    text = run()
    rule = shape(proxy, table)["rule"]
    assert all(len(line) <= 80 for line in text.splitlines()), text
    assert rule in text and f"INSERT INTO {table} (a) VALUES (?)" in text and "merged: rows of many" in text
    found = json.loads(run("--json"))
    assert found["watched"] == len(found["shapes"]) and rule in [s["rule"] for s in found["shapes"]]
    assert json.loads(run("--json", "--minutes", "0.005"))["writes"] == 0
    crowd(pg, 2, write)
    refused = subprocess.run([*command, "advise", "127.0.0.1:1"], text=True, capture_output=True, timeout=60)
    assert refused.returncode == 1 and "no tqdb answers" in refused.stderr


def test_the_address_says_what_there_is(proxy):
    with pytest.raises(urllib.error.HTTPError) as refused:
        proxy.get("/nothing")
    assert b"/advice.json" in refused.value.read()


WRITES = 3000           # of each run that is looked at
RUNS = {"closed loop": {}, "open, 800/s": {"rate": 800.0}, "thinking 20 ms": {"think": 0.02}}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", ["postgres", "mariadb"])
def test_real_load_saves_what_was_foretold(name, run, start_proxy, request):
    """The same load, at first as it is, then with the hint in the place of the rule that is proposed."""
    server = request.getfixturevalue(name)
    proxy = start_proxy(**{name: server})
    target = Target.of(server).make()
    window = 10

    def counted() -> tuple[int, int]:
        stats = proxy.stats()
        return stats["writes_total"], stats["write_operations_total"]

    def play(hint: str, enough) -> None:
        writers = Writers(target, getattr(proxy, f"{name}_port"), 24)
        try:
            writers.start(messages.insert(name, hint), 1e6, **RUNS[run])
            wait_for(enough, timeout=120)
            writers.generator.stop()
            writers.wait()
        finally:
            writers.close()

    try:
        play("", lambda: counted()[0] > WRITES)
        found = shape(proxy, "events")
        said = found["windows"][1]["saved"] / found["writes"]
        hint = f"max_wait_ms:{window}"
        start = counted()[0]
        play(hint, lambda: counted()[0] > start + 500)       # facts are known, sessions are alike
        before = counted()
        play(hint, lambda: counted()[0] > before[0] + WRITES)
        writes, operations = (b - a for a, b in zip(before, counted(), strict=True))
    finally:
        target.drop()
    saved = 1 - operations / writes
    assert abs(said - saved) <= 0.15 * max(saved, 0.1), (said, saved)
