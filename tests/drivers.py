"""One face for many drivers: ``run(sql, params)`` gives rows, or the row count, or ``("error", code)``.

Statements carry ``?`` for a parameter and each driver gets its own style.
"""

import asyncio
import datetime
import decimal
import re


def numbered(sql: str, form: str = "${}") -> str:
    count = iter(range(1, 100))
    return re.sub(r"\?", lambda m: form.format(next(count)), sql)


class DbApi:
    """A connection of PEP 249 in autocommit mode."""

    def __init__(self, connection, error, code):
        self.connection, self.error, self.code = connection, error, code
        self.cursor = connection.cursor()

    def run(self, sql: str, params: tuple = ()):
        try:
            self.cursor.execute(sql.replace("?", "%s"), params)
        except self.error as e:
            return "error", self.code(e)
        if self.cursor.description:
            return [tuple(map(plain, row)) for row in self.cursor.fetchall()]
        return self.cursor.rowcount

    def many(self, sql: str, params: list[tuple]):
        try:
            self.cursor.executemany(sql.replace("?", "%s"), params)
        except self.error as e:
            return "error", self.code(e)
        return self.cursor.rowcount

    def close(self) -> None:
        self.connection.close()


def plain(value):
    if isinstance(value, memoryview | bytearray):
        return bytes(value)
    return value


class Asyncpg:
    def __init__(self, port: int, database: str):
        import asyncpg
        self.error = asyncpg.PostgresError
        self.loop = asyncio.new_event_loop()
        self.connection = self.loop.run_until_complete(
            asyncpg.connect(host="127.0.0.1", port=port, user="postgres", database=database))

    def run(self, sql: str, params: tuple = ()):
        try:
            if re.match(r"(/\*.*?\*/\s*)?(select|.*\breturning\b)", sql, re.IGNORECASE | re.DOTALL):
                return [tuple(r) for r in self.loop.run_until_complete(self.connection.fetch(numbered(sql), *params))]
            status = self.loop.run_until_complete(self.connection.execute(numbered(sql), *params))
        except self.error as e:
            return "error", e.sqlstate
        return int(status.split()[-1]) if status[-1].isdigit() else -1

    def many(self, sql: str, params: list[tuple]):
        try:
            self.loop.run_until_complete(self.connection.executemany(numbered(sql), params))
        except self.error as e:
            return "error", e.sqlstate
        return len(params)

    def close(self) -> None:
        self.loop.run_until_complete(self.connection.close())
        self.loop.close()


class Asyncmy:
    def __init__(self, server, port: int, database: str):
        import asyncmy
        from asyncmy.errors import MySQLError
        self.error = MySQLError
        self.loop = asyncio.new_event_loop()
        self.connection = self.loop.run_until_complete(asyncmy.connect(
            host="127.0.0.1", port=port, user="root", password="", db=database, autocommit=True, charset="utf8mb4"))

    async def _run(self, sql, params):
        async with self.connection.cursor() as cursor:
            await cursor.execute(sql.replace("?", "%s"), params)
            return list(await cursor.fetchall()) if cursor.description else cursor.rowcount

    async def _many(self, sql, params):
        async with self.connection.cursor() as cursor:
            await cursor.executemany(sql.replace("?", "%s"), params)
            return cursor.rowcount

    def run(self, sql: str, params: tuple = ()):
        try:
            return self.loop.run_until_complete(self._run(sql, params or None))
        except self.error as e:
            return "error", e.args[0]

    def many(self, sql: str, params: list[tuple]):
        return self.loop.run_until_complete(self._many(sql, params))

    def close(self) -> None:
        self.connection.close()
        self.loop.close()


def psycopg3(server, port, database, **options):
    import psycopg
    return DbApi(psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname=database, autocommit=True,
                                 **options), psycopg.Error, lambda e: e.sqlstate)


def psycopg3_named(server, port, database):
    return psycopg3(server, port, database, prepare_threshold=0)


def psycopg3_client(server, port, database):
    import psycopg
    return psycopg3(server, port, database, cursor_factory=psycopg.ClientCursor)


def psycopg2(server, port, database):
    import psycopg2
    connection = psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname=database)
    connection.autocommit = True
    return DbApi(connection, psycopg2.Error, lambda e: e.pgcode)


def asyncpg(server, port, database):
    return Asyncpg(port, database)


def pg8000(server, port, database):
    import pg8000.dbapi
    connection = pg8000.dbapi.connect(host="127.0.0.1", port=port, user="postgres", database=database)
    connection.autocommit = True
    return DbApi(connection, pg8000.dbapi.Error, lambda e: e.args[0]["C"])


def pymysql(server, port, database):
    import pymysql
    return DbApi(server.connect(port, database=database, charset="utf8mb4"), pymysql.Error, lambda e: e.args[0])


def mysqlclient(server, port, database):
    import MySQLdb
    connection = MySQLdb.connect(host="127.0.0.1", port=port, user="root", database=database, charset="utf8mb4",
                                 autocommit=True)
    return DbApi(connection, MySQLdb.Error, lambda e: e.args[0])


def mysql_connector(server, port, database):
    """Prepared statements of MySQL's own driver."""
    import mysql.connector
    connection = mysql.connector.connect(host="127.0.0.1", port=port, user="root", database=database, use_pure=True,
                                         autocommit=True, ssl_disabled=True, charset="utf8mb4")
    found = DbApi(connection, mysql.connector.Error, lambda e: e.errno)
    found.cursor = connection.cursor(prepared=True)
    return found


def asyncmy(server, port, database):
    return Asyncmy(server, port, database)


POSTGRES = [psycopg3, psycopg3_named, psycopg3_client, psycopg2, asyncpg, pg8000]
MARIADB = [pymysql, mysqlclient, mysql_connector, asyncmy]

WHEN = datetime.datetime(2024, 2, 29, 12, 30, 15)
DAY = datetime.date(2024, 2, 29)
MONEY = decimal.Decimal("12.34")
