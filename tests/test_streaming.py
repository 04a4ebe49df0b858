"""Large messages stream: memory stays small, and every byte arrives."""

import hashlib

import psutil
import pytest

MIB = 1 << 20
LIMIT = 100 * MIB


def memory(proxy) -> int:
    """The most memory the proxy had resident so far, in bytes."""
    with open(f"/proc/{proxy.process.pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))


def test_a_gibibyte_of_result_and_copy(start_proxy, postgres, pg):
    import psycopg
    proxy = start_proxy(postgres=postgres)
    with psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True) as connection:
        total = 0
        query = "COPY (SELECT repeat('x', 1048575) FROM generate_series(1, 1024)) TO STDOUT"
        with connection.cursor().copy(query) as out:
            for part in out:
                total += len(part)
        assert total == 1024 * MIB
        connection.execute("CREATE TEMP TABLE sink (t text)")
        connection.execute("ALTER TABLE sink ALTER t SET STORAGE EXTERNAL")
        row = b"y" * (MIB - 1) + b"\n"
        with connection.cursor().copy("COPY sink FROM STDIN") as into:
            for _ in range(1024):
                into.write(row)
        stored = connection.execute("SELECT count(*), sum(length(t)) FROM sink").fetchone()
        assert stored == (1024, 1024 * (MIB - 1))
    assert memory(proxy) < LIMIT
    assert psutil.Process(proxy.process.pid).is_running()


def test_a_large_mariadb_result(start_proxy, mariadb):
    from pymysql.cursors import SSCursor
    proxy = start_proxy(mariadb=mariadb)
    with mariadb.connect(proxy.mariadb_port, database="d") as connection, connection.cursor(SSCursor) as cursor:
        cursor.execute("SELECT REPEAT('x', 1048576) FROM seq_1_to_1024")
        total = sum(len(row[0]) for row in cursor)
        assert total == 1024 * MIB
    assert memory(proxy) < LIMIT


@pytest.mark.parametrize("size", [70_000, 1_200_000, 17 * MIB, 33 * MIB])
def test_long_statements_and_values_postgres(pg, table, size):
    value = hashlib.sha256(b"x").hexdigest() * (size // 64)
    pg(through=False).execute(f"CREATE TABLE {table} (a text)")
    connection = pg()
    assert connection.execute(f"/* max_wait_ms:1 */ INSERT INTO {table} (a) VALUES (%s)", (value,)).rowcount == 1
    assert connection.execute(f"SELECT a FROM {table}").fetchone() == (value,)


@pytest.mark.parametrize("size", [70_000, 1_200_000, 17 * MIB, 33 * MIB])
def test_long_statements_and_values_mariadb(mariadb, my, table, size):
    """From 16 MiB on a statement and a row are several packets."""
    admin = my(through=False).cursor()
    admin.execute("SET GLOBAL max_allowed_packet = 268435456")
    admin.execute(f"CREATE TABLE {table} (a longtext)")
    value = hashlib.sha256(b"x").hexdigest() * (size // 64)
    connection = my(max_allowed_packet=268435456)
    cursor = connection.cursor()
    assert cursor.execute(f"/* max_wait_ms:1 */ INSERT INTO {table} (a) VALUES (%s)", (value,)) == 1
    cursor.execute(f"SELECT a FROM {table}")
    assert cursor.fetchone() == (value,)
    cursor.execute("SELECT 1")
    assert cursor.fetchone() == (1,)


def test_a_reader_that_stops_reading_is_not_buffered_for(start_proxy, postgres):
    """The proxy stops reading the server when the client does not read: memory stays bounded."""
    from tests.raw import RawPostgres
    proxy = start_proxy(postgres=postgres)
    slow = RawPostgres(proxy.postgres_port)
    slow.send(b"Q", b"SELECT repeat('x', 1000000) FROM generate_series(1, 500)\0")
    others = RawPostgres(proxy.postgres_port)
    for _ in range(200):
        assert others.query("SELECT 1").endswith(b"Z\0\0\0\5I")
    assert memory(proxy) < LIMIT
    received, tail = 0, b""
    while not tail.endswith(b"SELECT 500\0Z\0\0\0\5I"):
        data = slow.sock.recv(1 << 20)
        received += len(data)
        tail = (tail + data)[-30:]
    assert received > 500_000_000
    slow.close()
    others.close()
