"""Every part of both protocols is relayed: what a client sees through the proxy is what it sees direct."""

import contextlib
import re
import subprocess
import threading

import mysql.connector
import psycopg
import pymysql
import pytest
from psycopg.pq import TransactionStatus

from tests import wire
from tests.raw import RawMariaDB, RawPostgres
from tests.wait import wait_for
from tqdb.load.servers import postgres_tool

# --- PostgreSQL -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["password", "md5", "scram-sha-256"])
def test_postgres_authentication(postgres, proxy, pg, table, method):
    admin = pg(through=False)
    admin.execute(f"SET password_encryption = '{'md5' if method == 'md5' else 'scram-sha-256'}'")
    admin.execute(f"CREATE ROLE {table} LOGIN PASSWORD 'open sesame'")
    path = admin.execute("SHOW hba_file").fetchone()[0]
    with open(path) as f:
        old = f.read()
    try:
        with open(path, "w") as f:
            f.write(f"host all {table} 127.0.0.1/32 {method}\n{old}")
        admin.execute("SELECT pg_reload_conf()")
        dsn = f"host=127.0.0.1 port={proxy.postgres_port} user={table} dbname=postgres sslmode=prefer"
        with psycopg.connect(f"{dsn} password='open sesame'", autocommit=True) as connection:
            assert connection.execute("SELECT current_user").fetchone() == (table,)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(f"{dsn} password=wrong")
    finally:
        with open(path, "w") as f:
            f.write(old)
        admin.execute("SELECT pg_reload_conf()")


def test_postgres_login_errors_are_the_servers(postgres, proxy):
    texts = []
    for p in (postgres.port, proxy.postgres_port):
        with pytest.raises(psycopg.OperationalError) as e:
            psycopg.connect(f"host=127.0.0.1 port={p} user=postgres dbname=missing")
        texts.append(str(e.value).replace(str(p), "PORT"))
    assert texts[0] == texts[1]


def test_unix_socket(proxy, postgres, mariadb):
    import os
    link = os.path.join(proxy.directory, f".s.PGSQL.{proxy.postgres_port}")
    if not os.path.exists(link):
        os.symlink(f"{proxy.directory}/postgres.sock", link)
    with psycopg.connect(f"host={proxy.directory} port={proxy.postgres_port} user=postgres dbname=postgres") as c:
        assert c.execute("SELECT 1").fetchone() == (1,)
    with pymysql.connect(unix_socket=f"{proxy.directory}/mariadb.sock", user="root") as c, c.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


def test_extended_protocol_bytes(postgres, proxy, table):
    """Parse/Bind/Describe/Execute, named and unnamed, portals, Flush, errors and pipelines of several Syncs."""
    say, parse, bind = wire.pg, wire.pg_parse, wire.pg_bind
    describe, execute, sync = say(b"D", b"P\0"), say(b"E", b"\0\0\0\0\0"), say(b"S")
    conversations = [
        [parse(b"", b"SELECT $1::int + 1"), bind(b"", b"", b"41"), describe, execute, sync],
        [parse(b"s", b"SELECT $1::text"), say(b"D", b"Ss\0"), sync],
        [bind(b"", b"s", b"x"), execute, sync, bind(b"", b"s", None), execute, sync, say(b"C", b"Ss\0"), sync],
        [parse(b"", b"SELECT * FROM generate_series(1, 5)"), bind(b"p", b""), say(b"E", b"p\0\0\0\0\2"),
         say(b"E", b"p\0\0\0\0\2"), say(b"H", b""), say(b"E", b"p\0\0\0\0\0"),
         say(b"C", b"Pp\0"), sync],
        [parse(b"", b"SELECT 1/0"), bind(b"", b""), execute, bind(b"", b""), execute, sync,
         parse(b"", b"SELECT 2"), bind(b"", b""), execute, sync],
        [parse(b"", b"SELEC 1"), sync], [bind(b"", b"missing"), sync], [sync, sync, sync],
        [say(b"Q", b"BEGIN\0"), say(b"Q", b"SELECT 1; SELECT 2\0"), say(b"Q", b"COMMIT\0")],
        [say(b"F", (1574).to_bytes(4, "big") + b"\0\0\0\1\0\0\0\x03abc\0\0"), sync],
        [say(b"Q", b"COPY (SELECT 1) TO STDOUT\0")],
        [say(b"Q", b"/* max_wait_ms:5 */ SELECT 1\0"), say(b"Q", b"SET a.b = 1\0"), say(b"Q", b"RESET ALL\0")],
    ]

    def talk(p):
        session = RawPostgres(p)
        answers = []
        for conversation in conversations:
            for message in conversation:
                session.sock.sendall(message)
            answers.append([session.answer() for _ in range(
                sum(message[:1] in (b"S", b"Q", b"F") for message in conversation))])
        session.close()
        return answers

    assert talk(proxy.postgres_port) == talk(postgres.port)


def test_pipeline_mode(pg, table):
    connection = psycopg.connect(pg().info.dsn, autocommit=True)
    with connection, connection.pipeline():
        connection.execute(f"CREATE TABLE {table} (a int)")
        for n in range(100):
            connection.execute(f"/* max_wait_ms:5 */ INSERT INTO {table} (a) VALUES (%s)", (n,))
        assert connection.execute(f"SELECT sum(a) FROM {table}").fetchone() == (4950,)


def test_simple_queries_sent_ahead_keep_their_order(proxy, pg, table):
    """Twenty hinted inserts in one send: answered one by one, rows in order."""
    pg(through=False).execute(f"CREATE TABLE {table} (id serial, a int)")
    session = RawPostgres(proxy.postgres_port)
    messages = b""
    for n in range(20):
        messages += wire.pg_query(f"/* max_wait_ms:1 */ INSERT INTO {table} (a) VALUES ({n}) RETURNING a")
    session.sock.sendall(messages)
    for n in range(20):
        answer = session.answer()
        assert str(n).encode() + b"C\0\0\0\x0fINSERT 0 1" in answer
    rows = pg(through=False).execute(f"SELECT a FROM {table} ORDER BY id").fetchall()
    assert rows == [(n,) for n in range(20)]
    session.close()


def test_listen_notify(pg):
    listener, sender = pg(), pg()
    listener.execute("LISTEN channel")
    sender.execute("NOTIFY channel, 'hello'")
    note = next(listener.notifies(timeout=20, stop_after=1))
    assert (note.channel, note.payload) == ("channel", "hello")


def test_notification_during_batches(postgres, proxy, pg, table):
    """A session that listens gets its notifications while it writes in batches."""
    pg(through=False).execute(f"CREATE TABLE {table} (a int)")
    listener = pg()
    listener.execute(f"LISTEN {table}")
    others = [pg() for _ in range(4)]
    stop = threading.Event()

    def write(connection):
        while not stop.is_set():
            connection.execute(f"/* max_wait_ms:2 */ INSERT INTO {table} (a) VALUES (1)")

    threads = [threading.Thread(target=write, args=(c,)) for c in others]
    for t in threads:
        t.start()
    for n in range(20):
        pg(through=False).execute(f"NOTIFY {table}, '{n}'")
        listener.execute(f"/* max_wait_ms:2 */ INSERT INTO {table} (a) VALUES (2)")
    stop.set()
    for t in threads:
        t.join(20)
    got = [n.payload for n in listener.notifies(timeout=20, stop_after=20)]
    assert got == [str(n) for n in range(20)]


def test_notices_and_parameter_changes(pg):
    connection = pg()
    heard = []
    connection.add_notice_handler(lambda d: heard.append(d.message_primary))
    connection.execute("DO $$ BEGIN RAISE NOTICE 'psst'; END $$")
    assert heard == ["psst"]
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    assert connection.info.parameter_status("TimeZone") == "Asia/Tokyo"


def test_copy_fails_midway(pg, table):
    connection = pg()
    connection.execute(f"CREATE TABLE {table} (a int)")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            for _ in range(1000):
                copy.write("not a number\n" * 100)
    assert connection.info.transaction_status == TransactionStatus.IDLE
    for n in range(3):
        assert connection.execute(f"/* max_wait_ms:1 */ INSERT INTO {table} (a) VALUES ({n})").rowcount == 1


def test_large_objects(pg):
    with pg().transaction() as tx:
        connection = tx.connection
        oid = connection.execute("SELECT lo_from_bytea(0, '\\x0102')").fetchone()[0]
        assert bytes(connection.execute("SELECT lo_get(%s)", (oid,)).fetchone()[0]) == b"\1\2"


def test_base_backup_and_logical_decoding(postgres, proxy, pg, tmp_path, table):
    """Replication start-up is relayed raw: a base backup, and a stream of changes (COPY BOTH)."""
    tmp_path.chmod(0o755)
    client = subprocess.run([postgres_tool("pg_basebackup"), "--version"], capture_output=True, text=True).stdout
    if int(re.search(r"(\d+)\.", client)[1]) < pg().info.server_version // 10000:
        pytest.skip("a client of the server's version or later is needed")
    done = subprocess.run([postgres_tool("pg_basebackup"), "-h", "127.0.0.1", "-p", str(proxy.postgres_port),
                           "-U", "postgres", "-D", str(tmp_path / "backup"), "-X", "stream", "-c", "fast"],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "backup" / "PG_VERSION").exists()
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (a int)")
    admin.execute(f"SELECT pg_create_logical_replication_slot('{table}', 'test_decoding')")
    admin.execute(f"INSERT INTO {table} VALUES (42)")
    end = admin.execute("SELECT pg_current_wal_lsn()").fetchone()[0]
    done = subprocess.run([postgres_tool("pg_recvlogical"), "-h", "127.0.0.1", "-p", str(proxy.postgres_port), "-U",
                           "postgres", "-d", "postgres", "-S", table, "--start", "--endpos", end, "-f", "-"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "a[integer]:42" in done.stdout
    admin.execute(f"SELECT pg_drop_replication_slot('{table}')")


@pytest.mark.parametrize("sql", ["SHOW TQDB STATUS", "show tqdb status;", "SELECT * FROM pg_tqdb_status",
                                 "SELECT variable_name, value FROM pg_tqdb_status"])
@pytest.mark.parametrize("factory", [psycopg.Cursor, psycopg.ClientCursor])
def test_status_on_postgres(pg, table, sql, factory):
    connection = pg()
    connection.execute(f"CREATE TABLE {table} (a int)")
    cursor = factory(connection)

    def told() -> dict:
        connection.execute(f"/* max_wait_ms:5 */ INSERT INTO {table} (a) VALUES (1)")
        return dict(cursor.execute(sql, prepare=factory is psycopg.Cursor).fetchall())

    # while parsers have used up their time the table stays unknown
    wait_for(lambda: told()["Last_batch_reason"] == "single")
    rows = told()
    assert [c.name for c in cursor.description] == ["variable_name", "value"]
    assert rows["Backend"] == "primary" and rows["Last_batch_reason"] == "single" and rows["Last_batch_size"] == "1"
    assert set(rows) == {"Shard", "Backend", "Last_batch_size", "Last_batch_reason", "Version", "Uptime_seconds",
                         "Batches_total", "Batched_writes_total", "Aggregation_factor"}


# --- MariaDB ----------------------------------------------------------------------------------------------------

@pytest.fixture
def connector(mariadb, proxy):
    """``connector(through)``: a mysql-connector session, which speaks prepared statements and the rarer commands."""
    opened = []

    def connect(through: bool = True, **more):
        connection = mysql.connector.connect(
            host="127.0.0.1", port=proxy.mariadb_port if through else mariadb.port,
            **{"user": "root", "database": "d", "use_pure": True, "charset": "utf8mb4",
               "collation": "utf8mb4_general_ci", "autocommit": True, "ssl_disabled": True, **more})
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        with contextlib.suppress(mysql.connector.Error):
            connection.close()


def both(work):
    direct, through = work(False), work(True)
    assert through == direct
    return through


def test_mariadb_authentication(mariadb, proxy, my, table):
    admin = my(through=False).cursor()
    admin.execute(f"CREATE USER {table} IDENTIFIED BY 'open sesame'")
    admin.execute(f"GRANT ALL ON d.* TO {table}")
    connection = mariadb.connect(proxy.mariadb_port, user=table, password="open sesame", database="d")
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT CURRENT_USER()")
        assert cursor.fetchone() == (f"{table}@%",)
    messages = []
    for port in (mariadb.port, proxy.mariadb_port):
        with pytest.raises(pymysql.OperationalError) as e:
            mariadb.connect(port, user=table, password="wrong")
        messages.append(e.value.args)
    assert messages[0] == messages[1]


def test_mariadb_auth_switch(mariadb, proxy, my, table):
    """The client offers another method than the account has: the server switches."""
    admin = my(through=False).cursor()
    admin.execute(f"CREATE USER {table} IDENTIFIED BY 'pw'")
    done = subprocess.run(["mariadb", "-h", "127.0.0.1", "-P", str(proxy.mariadb_port), f"-u{table}", "-ppw",
                           "--default-auth=mysql_clear_password", "-e", "SELECT 1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_prepared_statements(connector, my, table):
    my(through=False).cursor().execute(
        f"CREATE TABLE {table} (id int, a bigint, b double, c text, d datetime, e blob)")

    def work(through):
        cursor = connector(through).cursor(prepared=True)
        cursor.execute(f"/* max_wait_ms:5 */ INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?)",
                       (1, -5, 1.5, "ü", "2024-01-01 10:00:00", b"\0\xff"))
        first = cursor.rowcount
        cursor.execute(f"/* max_wait_ms:5 */ INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?)",
                       (2, None, None, None, None, None))
        cursor.execute(f"SELECT * FROM {table} WHERE id <= ? ORDER BY id", (5,))
        rows = cursor.fetchall()
        cursor.execute(f"DELETE FROM {table} WHERE id > ?", (0,))
        with pytest.raises(mysql.connector.Error) as e:
            cursor.execute(f"SELECT nothing FROM {table} WHERE id = ?", (1,))
        return first, rows, cursor.rowcount, e.value.errno, e.value.msg

    both(work)


def test_mariadb_commands(connector, my, table):
    """Ping, statistics, reset, change of user and database, processes, kill, multi-results."""
    my(through=False).cursor().execute(f"CREATE OR REPLACE PROCEDURE {table}() BEGIN SELECT 1; SELECT 2, 3; END")

    def work(through):
        connection = connector(through)
        seen = []
        connection.ping()
        connection.cmd_statistics()
        cursor = connection.cursor()
        cursor.execute("SET @a = 5")
        connection.cmd_reset_connection()
        cursor.execute("SELECT @a, DATABASE()")
        seen.append(cursor.fetchall())
        connection.cmd_init_db("mysql")
        cursor.execute("SELECT DATABASE()")
        seen.append(cursor.fetchall())
        connection.cmd_change_user(username="root", password="", database="d")
        cursor.execute("SELECT DATABASE(), CURRENT_USER()")
        seen.append(cursor.fetchall())
        cursor.execute(f"CALL {table}()")
        seen.append([tuple(cursor.fetchall())])
        while cursor.nextset():
            seen.append(cursor.fetchall() if cursor.with_rows else "ok")
        cursor.execute("SELECT 1; SELECT 2; DO 0")
        seen.append(cursor.fetchall())
        while cursor.nextset():
            seen.append(cursor.fetchall() if cursor.with_rows else "ok")
        victim = connector(through)
        connection.cmd_process_kill(victim.connection_id)
        with pytest.raises(mysql.connector.Error) as e:
            victim.cmd_query("SELECT 1")
        assert e.value.errno in (2013, 2055, 2006, 1927)
        return seen

    both(work)


def test_load_data_local(my, table, tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("".join(f"{n}\tvalue {n}\n" for n in range(50_000)))
    my(through=False).cursor().execute(f"CREATE TABLE {table} (a int, b text)")

    def work(through):
        cursor = my(through, local_infile=True).cursor()
        counts = [cursor.execute(f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE {table}")]
        cursor.execute(f"SELECT count(*), sum(a) FROM {table}")
        counts.append(cursor.fetchall())
        cursor.execute(f"TRUNCATE {table}")
        with pytest.raises((pymysql.Error, OSError)):
            cursor.execute(f"LOAD DATA LOCAL INFILE '{path}.missing' INTO TABLE {table}")
        return counts

    both(work)


def test_binlog_dump(mariadb, proxy):
    """mariadb-binlog reads the server's log through the proxy: relayed raw."""
    def read(port):
        done = subprocess.run(["mariadb-binlog", "--read-from-remote-server", "-h", "127.0.0.1", "-P", str(port),
                               "-u", "root", "--stop-position=500", "--base64-output=never", "binlog.000001"],
                              capture_output=True, text=True, timeout=60)
        if "unrecognized MariaDB version" in done.stderr:
            pytest.skip("a client of the server's version or later is needed")
        assert done.returncode == 0, done.stderr
        return re.sub(r"(?m)^#.*$|pseudo_thread_id=\d+", "", done.stdout)

    assert read(proxy.mariadb_port) == read(mariadb.port) != ""


def test_mariadb_admin(mariadb, proxy):
    for command in ("ping", "status", "processlist", "version"):
        done = subprocess.run(["mariadb-admin", "-h", "127.0.0.1", "-P", str(proxy.mariadb_port), "-u", "root",
                               command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_status_on_mariadb(connector, my, table):
    cursor = my().cursor()
    cursor.execute(f"CREATE TABLE {table} (a int)")

    def told() -> dict:
        cursor.execute(f"/* max_wait_ms:5 */ INSERT INTO {table} (a) VALUES (1)")
        cursor.execute("SHOW TQDB STATUS")
        return dict(cursor.fetchall())

    wait_for(lambda: told()["Last_batch_reason"] == "single")
    rows = told()
    assert [d[0] for d in cursor.description] == ["variable_name", "value"]
    assert rows["Backend"] == "primary" and rows["Last_batch_reason"] == "single"
    prepared = connector().cursor(prepared=True)
    prepared.execute("SHOW TQDB STATUS")
    assert dict(prepared.fetchall()).keys() == rows.keys()


def test_tls_is_not_offered_and_asking_for_it_is_told(mariadb, proxy):
    with pytest.raises(pymysql.OperationalError, match="SSL"):
        mariadb.connect(proxy.mariadb_port, ssl_disabled=False, ssl={"ca": None, "check_hostname": False})
    with pytest.raises(psycopg.OperationalError, match="SSL"):
        psycopg.connect(f"host=127.0.0.1 port={proxy.postgres_port} user=postgres sslmode=require")


# --- commands that drivers hide, byte by byte ------------------------------------------------------------------

NOBODY = 0x0BADCAFE
CALL_NOBODY = wire.my(0, b"\x17" + NOBODY.to_bytes(4, "little") + b"\0\1\0\0\0")


def until_nobody(session: RawMariaDB, *commands: bytes) -> bytes:
    """Sends the commands and, in the same go, one for a statement that is not there, whose error marks the end."""
    session.sock.sendall(b"".join(wire.my(0, c) for c in commands) + CALL_NOBODY)
    out = packet = b""
    while b"(%d)" % NOBODY not in packet:
        packet = session.packet()
        out += packet
    return out


@pytest.mark.parametrize("flags", [0, 1 << 24], ids=["eof", "deprecate_eof"])
def test_mariadb_binary_protocol_bytes(mariadb, my, table, flags):
    """Prepare, execute, cursors with fetch, long data, reset, close, field list, process list; sent ahead."""
    cursor = my(through=False).cursor()
    cursor.execute(f"CREATE TABLE {table} (a int, b text)")
    cursor.execute(f"INSERT INTO {table} VALUES (1, 'one'), (2, NULL), (3, 'three')")

    def work(through):
        session = RawMariaDB(my(through, client_flag=flags))
        seen = []

        def say(*commands):
            seen.append(until_nobody(session, *commands))

        def prepare(sql: bytes) -> bytes:
            """The statement's id, which is left out of what is compared: the server counts for all sessions."""
            answer = until_nobody(session, b"\x16" + sql)
            seen.append(answer[:5] + answer[9:])
            return answer[5:9]

        def execute(statement: bytes, cursor_type: int, body: bytes = b"") -> bytes:
            return b"\x17" + statement + bytes((cursor_type,)) + b"\1\0\0\0" + body

        one = prepare(b"SELECT a, b FROM " + table.encode() + b" WHERE a >= ?")
        say(execute(one, 0, b"\0\1\x03\0\1\0\0\0"))
        say(execute(one, 0, b"\0\0\2\0\0\0"))
        say(execute(b"\xff\xff\xff\xff", 0, b"\0\0\2\0\0\0"))
        say(execute(one, 1, b"\0\0\0\0\0\0"))             # with a cursor
        say(b"\x1c" + one + b"\2\0\0\0")
        say(b"\x1c" + one + b"\5\0\0\0")
        say(b"\x1a" + one)
        two = prepare(b"SELECT ?, 1")
        say(b"\x18" + two + b"\0\0long ", b"\x18" + two + b"\0\0data", execute(two, 0, b"\0\1\xfc\0"))
        say(b"\x19" + one, b"\x19" + two)
        say(b"\x16SELEC")
        prepare(b"DO 1")
        say(b"\x04" + table.encode() + b"\0%")
        say(b"\x1b\0\0")
        say(b"\x03SELECT 1", b"\x03SELECT 2", b"\x03INSERT INTO " + table.encode() + b" VALUES (9, 'x')",
            b"\x03SELEC", b"\x02mysql", b"\x03SELECT DATABASE()")
        return seen

    direct = work(False)
    cursor.execute(f"DELETE FROM {table} WHERE a = 9")
    assert work(True) == direct
