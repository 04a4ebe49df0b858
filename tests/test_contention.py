"""Many sessions on few rows: locks that a batch holds longer than its statements would must never be told."""

import random

import psycopg

from tests.crowd import together

HINT = "/* max_wait_ms:5 file:contention.py line:1 */ "
SESSIONS = 50
ROWS = 10
INCREMENTS = 20000


def plan() -> list[list[int]]:
    rows = [i % ROWS for i in range(INCREMENTS)]
    random.Random(7).shuffle(rows)
    return [rows[k::SESSIONS] for k in range(SESSIONS)]


def test_postgres_contended_updates(postgres, proxy, pg, table):
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, n int); "
                  f"INSERT INTO {table} SELECT i, 0 FROM generate_series(0, {ROWS - 1}) i")
    before = proxy.stats()

    def work(k):
        with psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True) as connection:
            for row in plan()[k]:
                assert connection.execute(f"{HINT}UPDATE {table} SET n = n + 1 WHERE id = %s", (row,)).rowcount == 1

    together(SESSIONS, work)
    assert admin.execute(f"SELECT DISTINCT n FROM {table}").fetchall() == [(INCREMENTS // ROWS,)]
    assert proxy.stats()["batched_writes_total"] - before["batched_writes_total"] > INCREMENTS * 0.8


def test_mariadb_contended_updates(mariadb, proxy, my, table):
    admin = my(through=False).cursor()
    admin.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, n int)")
    admin.executemany(f"INSERT INTO {table} VALUES (%s, 0)", [(i,) for i in range(ROWS)])
    before = proxy.stats()

    def work(k):
        with mariadb.connect(proxy.mariadb_port, database="d") as connection, connection.cursor() as cursor:
            for row in plan()[k]:
                assert cursor.execute(f"{HINT}UPDATE {table} SET n = n + 1 WHERE id = %s", (row,)) == 1

    together(SESSIONS, work)
    admin.execute(f"SELECT DISTINCT n FROM {table}")
    assert admin.fetchall() == ((INCREMENTS // ROWS,),)
    assert proxy.stats()["batched_writes_total"] - before["batched_writes_total"] > INCREMENTS * 0.8


def crossing(connect, table, count=16, rounds=60):
    """Batches of two shapes lock the same rows in opposite order; alone, none of these can deadlock."""
    def work(k):
        cursor = connect().cursor()
        picks = random.Random(k)
        for _ in range(rounds):
            row = picks.randrange(4)
            if k % 2:
                cursor.execute(f"{HINT}UPDATE {table} SET n = n + 1 WHERE id = {row}")
            else:
                cursor.execute(f"{HINT}UPDATE {table} SET n = n + 1, touched = {k} WHERE id = {3 - row}")

    together(count, work)
    return count * rounds


def test_postgres_batches_that_cross(pg, table):
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, n int, touched int); "
                  f"INSERT INTO {table} SELECT i, 0 FROM generate_series(0, 3) i")
    total = crossing(pg, table)
    assert admin.execute(f"SELECT sum(n) FROM {table}").fetchone() == (total,)


def test_mariadb_batches_that_cross(my, table):
    admin = my(through=False).cursor()
    admin.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, n int, touched int)")
    admin.executemany(f"INSERT INTO {table} VALUES (%s, 0, 0)", [(i,) for i in range(4)])
    total = crossing(my, table)
    admin.execute(f"SELECT SUM(n) FROM {table}")
    assert admin.fetchone() == (total,)


def test_postgres_repeatable_read_sessions(postgres, proxy, pg, table):
    """Rows of their own never conflict, in whichever transactions they end up."""
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, n int); "
                  f"INSERT INTO {table} SELECT i, 0 FROM generate_series(0, 15) i")

    def work(k):
        options = "-c default_transaction_isolation=repeatable\\ read"
        with psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True, options=options) as connection:
            for _ in range(30):
                connection.execute(f"{HINT}UPDATE {table} SET n = n + 1 WHERE id = {k}")

    together(16, work)
    assert admin.execute(f"SELECT DISTINCT n FROM {table}").fetchall() == [(30,)]
