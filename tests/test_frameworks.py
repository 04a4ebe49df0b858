"""What frameworks, drivers and pools send at connect and at each check-out does not keep their writes from batches.

Eight connections say it once, or again between their writes; all write at the same moment. What others send in between
must not matter, either: two set-ups that end the same share batches.
"""

import threading

import psycopg
import pytest

from tests.crowd import together

SESSIONS = 8
ROUNDS = 12
HINT = "/* max_wait_ms:100 */ "
COM_RESET_CONNECTION = 0x1F

POSTGRES = {
    "nothing": [],
    "Rails": ["SET client_min_messages TO 'warning'", "SET standard_conforming_strings = on",
              "SET SESSION timezone TO 'UTC'", "SELECT oid, typname FROM pg_type WHERE typname IN ('int2', 'int4')"],
    "Sequelize": ["SHOW SERVER_VERSION", "SET standard_conforming_strings=on;SET client_min_messages TO warning;"
                                         "SET TIME ZONE INTERVAL '+00:00' HOUR TO MINUTE"],
    "Django": ["SELECT set_config('TimeZone', 'UTC', false)", "SET TIME ZONE 'UTC'"],
    "SQLAlchemy": ["BEGIN", "select pg_catalog.version()", "select current_schema()",
                   "show standard_conforming_strings", "ROLLBACK"],
    "asyncpg.Pool": ["SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;"],
    "HikariCP and pgjdbc": ["SET extra_float_digits = 3", "SET application_name = 'PostgreSQL JDBC Driver'",
                            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"],
    "Laravel": ["set names 'utf8'", 'set search_path to "public"', "set time zone 'UTC'"],
    "Prisma": ['SET search_path = "public"', "BEGIN", "SELECT 1", "COMMIT", "DEALLOCATE ALL"],
    "PgBouncer, Npgsql": ["SELECT version()", "DISCARD ALL"],
    "psycopg's pool": ["BEGIN", "SELECT 1", "ROLLBACK"],
}
MARIADB = {
    "nothing": [],
    "Laravel": ["set names 'utf8mb4' collate 'utf8mb4_unicode_ci'", "use `frameworks`",
                "set session sql_mode='ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,"
                "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'"],
    "MariaDB Connector/J": ["set autocommit=1, session_track_schema=1, "
                            "sql_mode=concat(@@sql_mode,',STRICT_TRANS_TABLES')",
                            "SELECT @@max_allowed_packet,@@wait_timeout"],
    "MariaDB Connector/J 3.5": ["set session_track_schema=1, session_track_system_variables = "
                                "CONCAT(@@global.session_track_system_variables,',tx_isolation'), "
                                "sql_mode=concat(@@sql_mode,',STRICT_TRANS_TABLES')",
                                "SELECT @@max_allowed_packet,@@wait_timeout"],
    "MySQL Connector/J": ["/* mysql-connector-j */SELECT @@session.auto_increment_increment, @@character_set_client",
                          "SET character_set_results = NULL", "SET autocommit=1", "SET sql_mode='STRICT_TRANS_TABLES'"],
    "HikariCP": ["SET autocommit=0", "SELECT 1", "COMMIT", "SET autocommit=1", "set session transaction read write"],
    "Django": ["SET SQL_AUTO_IS_NULL = 0", "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"],
    "Django's atomic": ["SET autocommit = 0", "SAVEPOINT s1", "RELEASE SAVEPOINT s1", "COMMIT", "SET autocommit = 1"],
    "SQLAlchemy": ["SET NAMES utf8mb4", "SELECT @@tx_isolation", "SELECT @@sql_mode", "ROLLBACK"],
    "Rails": ["SET NAMES utf8mb4 COLLATE utf8mb4_unicode_ci,  @@SESSION.sql_mode = CONCAT(CONCAT(@@sql_mode, "
              "',STRICT_ALL_TABLES'), ',NO_AUTO_VALUE_ON_ZERO'),  @@SESSION.wait_timeout = 2147483"],
    "Sequelize and mysql2": ["SELECT VERSION() as `version`", "SET time_zone = '+00:00'",
                             "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"],
    "Go": ["SET NAMES utf8mb4", "SET time_zone = 'SYSTEM'"],
    "ODBC": ["SET NAMES utf8", "SET SQL_AUTO_IS_NULL = 0", "select database()"],
    "TypeORM": ["SELECT VERSION() AS `version`", "START TRANSACTION", "SELECT 1", "COMMIT"],
    "Prisma": ["SELECT @@socket", "BEGIN", "COMMIT"],
    "COM_RESET_CONNECTION": [None],
}


def batched_by(proxy, connect, say, write, count) -> int:
    """How many of all writes went in batches; ``count`` is what the table holds afterwards."""
    before = proxy.batched()
    barrier = threading.Barrier(SESSIONS, timeout=60)

    def work(i):
        with connect() as connection:
            say(connection, i)
            for k in range(ROUNDS):
                barrier.wait()
                write(connection, k)
                if i % 2:
                    say(connection, i)

    rows = count()
    together(SESSIONS, work)
    assert count() - rows == SESSIONS * ROUNDS
    return proxy.batched() - before


@pytest.fixture(scope="module")
def pg_frameworks(postgres):
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute("CREATE TABLE frameworks (id bigserial PRIMARY KEY, a int)")
        yield admin
        admin.execute("DROP TABLE frameworks")


@pytest.fixture(scope="module")
def my_frameworks(mariadb):
    with mariadb.connect() as admin, admin.cursor() as cursor:
        cursor.execute("CREATE DATABASE frameworks")
        cursor.execute("CREATE TABLE frameworks.e (id bigint AUTO_INCREMENT PRIMARY KEY, a int)")
        yield cursor
        cursor.execute("DROP DATABASE frameworks")


@pytest.mark.parametrize("name", POSTGRES)
def test_postgres(postgres, proxy, pg_frameworks, name):
    def say(connection, i):
        for sql in POSTGRES[name]:
            connection.execute(sql, prepare=False)

    def count():
        return pg_frameworks.execute("SELECT count(*) FROM frameworks").fetchone()[0]

    assert batched_by(
        proxy, lambda: psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True), say,
        lambda connection, k: connection.execute(f"{HINT}INSERT INTO frameworks (a) VALUES ({k})", prepare=False),
        count) >= SESSIONS * ROUNDS / 2


@pytest.mark.parametrize("name", MARIADB)
def test_mariadb(mariadb, proxy, my_frameworks, name):
    def say(connection, i):
        with connection.cursor() as cursor:
            for sql in MARIADB[name]:
                if sql is None:
                    connection._execute_command(COM_RESET_CONNECTION, b"")
                    connection._read_ok_packet()
                    cursor.execute("SET autocommit = 1")
                else:
                    cursor.execute(sql)

    def write(connection, k):
        with connection.cursor() as cursor:
            cursor.execute(f"{HINT}INSERT INTO e (a) VALUES ({k})")

    def count():
        my_frameworks.execute("SELECT count(*) FROM frameworks.e")
        return my_frameworks.fetchone()[0]

    assert batched_by(
        proxy, lambda: mariadb.connect(proxy.mariadb_port, database="frameworks", autocommit=True), say, write,
        count) >= SESSIONS * ROUNDS / 2


def test_set_ups_that_come_to_the_same_share_batches(postgres, proxy, pg_frameworks):
    """What they have said differs, what they are does not: all write at once, and as one unless one comes too late."""
    ways = ([], ["SET TIME ZONE 'Europe/Rome'", "RESET ALL"], ["DISCARD ALL"], ["SHOW TimeZone"], ["SELECT 1"],
            ["BEGIN", "SET work_mem = '1MB'", "ROLLBACK"], ["SET application_name = 'a'"],
            ["SELECT set_config('x.y', '1', true)"])
    largest: list[int] = []

    def say(connection, i):
        for sql in ways[i]:
            connection.execute(sql, prepare=False)

    def write(connection, k):
        connection.execute(f"{HINT}INSERT INTO frameworks (a) VALUES ({k})", prepare=False)
        status = connection.execute("SHOW TQDB STATUS").fetchall()
        largest.append(max(int(value) for name, value, *_ in status if name == "Last_batch_size"))

    batched_by(proxy, lambda: psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True), say, write,
               lambda: pg_frameworks.execute("SELECT count(*) FROM frameworks").fetchone()[0])
    assert max(largest) == SESSIONS
