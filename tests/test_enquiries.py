"""Questions for advice: clients on whose connections they are asked must not notice, whatever their tables undergo."""

import contextlib
import threading

import pymysql
import pytest

from tests.test_advice import execute, shape
from tests.wait import wait_for

SESSIONS = 4


def write(table: str):
    def work(connection):
        for k in range(30):
            execute(connection, f"INSERT INTO {table} (a) VALUES ({k})")
    return work


def together(connections, work) -> None:
    """``work(connection)`` on all of them at the same time."""
    threads = [threading.Thread(target=work, args=(c,)) for c in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def row_of(connection, sql: str) -> tuple:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()


def known(proxy, table: str) -> bool:
    return shape(proxy, table)["verdict"] in ("merged", "pipelined")


def test_who_has_left_waits_for_no_lock(my, proxy, table):
    """MariaDB shows how a table is made behind whoever makes it anew: a connection would stay for as long."""
    direct, maker = my(through=False), my(through=False)

    def running(what: str) -> set[int]:
        with direct.cursor() as cursor:
            cursor.execute(f"SELECT id FROM information_schema.processlist WHERE {what}")
            return {row[0] for row in cursor.fetchall()}

    def make() -> None:
        with contextlib.suppress(pymysql.Error):
            execute(maker, f"CREATE OR REPLACE TABLE {table} (a int) SELECT SLEEP(600) AS a")

    def asked() -> bool:
        execute(direct, f"CREATE OR REPLACE TABLE {table} (a int)")
        connections = [my() for _ in range(SESSIONS)]
        ids = ", ".join(str(int(row_of(c, "SELECT CONNECTION_ID()")[0])) for c in connections)
        together(connections, write(table))
        making = threading.Thread(target=make)
        making.start()
        wait_for(lambda: running("state = 'User sleep'"))
        try:
            for connection in connections:
                connection.close()
            wait_for(lambda: not running(f"id IN ({ids})"))
        finally:
            execute(direct, f"KILL QUERY {maker.thread_id()}")
            making.join()
        return shape(proxy, table)["why"].endswith("answered with an error")

    wait_for(asked, timeout=90)


def test_an_idle_client_waits_for_no_lock(pg, proxy, table):
    """PostgreSQL: the catalogue itself is locked, as by VACUUM FULL of it."""
    pg(through=False).execute(f"CREATE TABLE {table} (a int DEFAULT 1)")
    connections = [pg() for _ in range(SESSIONS)]
    for connection in connections:
        write(table)(connection)
    direct = pg(through=False)
    with direct.transaction():
        direct.execute("LOCK TABLE pg_catalog.pg_attrdef IN ACCESS EXCLUSIVE MODE")

        def asked() -> bool:
            together(connections, lambda c: execute(c, f"UPDATE {table} SET a = 2 WHERE a = 3"))
            return shape(proxy, table, "update")["why"].endswith("answered with an error")

        wait_for(asked, timeout=90)
        for connection in connections:
            assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("setting", ["standard_conforming_strings = off", "tqdb.nothing = 1"])
def test_who_is_asked(pg, proxy, table, setting):
    """No question goes where a backslash would make another of it; the same sessions without that are asked."""
    pg().execute(f"CREATE TABLE {table} (a int)")
    connections = [pg() for _ in range(SESSIONS)]
    for connection in connections:
        connection.execute(f"SET {setting}")
    other = table.replace("t", "u")
    pg().execute(f"CREATE TABLE {other} (a int)")
    others = [pg() for _ in range(SESSIONS)]

    def others_are_known() -> bool:
        for all_of_them, name in ((connections, table), (others, other)):
            together(all_of_them, write(name))
        return known(proxy, other) and (known(proxy, table) or "conforming" in setting)

    wait_for(others_are_known, timeout=90)
    assert known(proxy, table) == ("conforming" not in setting)
