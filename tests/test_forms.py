"""Forms in which drivers send writes: pipelines, prepared statements that come and go, session opt-in, cancels."""

import threading

import psycopg
import pymysql
import pytest
from psycopg import pq

from tests import wire
from tests.crowd import together
from tests.raw import RawMariaDB, RawPostgres
from tests.wait import wait_for

HINT = "/* max_wait_ms:20 file:forms.py line:1 */ "


# --- pipelines ------------------------------------------------------------------------------------------------

def test_psycopg_pipeline_goes_as_a_batch(postgres, proxy, pg, table):
    """One Sync ends many writes: they are one transaction, alone as in a batch, and answered in order."""
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, b text)")
    before = proxy.batched()

    def work(k):
        with psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True) as c:
            told = []
            for block in range(5):
                with c.pipeline():
                    cursors = [c.execute(f"{HINT}INSERT INTO {table} VALUES (%s, %s) RETURNING id",
                                         (k * 1000 + block * 10 + n, "x"), prepare=False) for n in range(10)]
                told += [cur.fetchone()[0] for cur in cursors]
            return told

    told = together(8, work)
    assert told == [[k * 1000 + n for n in range(50)] for k in range(8)]
    assert admin.execute(f"SELECT count(*) FROM {table}").fetchone() == (400,)
    assert proxy.batched() > before


def test_psycopg_pipeline_with_an_error_keeps_nothing_of_its_transaction(postgres, proxy, pg, table):
    results = {}
    for through in (False, True):
        admin = pg(through=False)
        admin.execute(f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (id int PRIMARY KEY)")
        port = proxy.postgres_port if through else None

        def work(k, port=port):
            seen = []
            with psycopg.connect(postgres.dsn(port), autocommit=True) as c:
                for bad in (None, 3):
                    cursors = []
                    try:
                        with c.pipeline():
                            for n in range(6):
                                value = k * 100 + (0 if n == bad else n) + (50 if bad else 0)
                                cursors.append(c.execute(f"{HINT}INSERT INTO {table} VALUES (%s)", (value,),
                                                         prepare=False))
                    except psycopg.Error as e:
                        seen.append(e.sqlstate)
                    seen.append([cur.rowcount for cur in cursors][:4])
            return seen

        results[through] = together(6, work), admin.execute(f"SELECT id FROM {table} ORDER BY id").fetchall()
    assert results[True] == results[False]
    assert results[True][0][0][1] == "23505"


def test_many_simple_queries_ahead(proxy, pg, table):
    """Writes sent ahead by one connection share a batch and keep their order; an error stays its own.

    A session alone whose batch fails has every write of it tried alone: the third block, without an error, shows
    that it is gathered at all.
    """
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (n serial, id int PRIMARY KEY)")
    session = RawPostgres(proxy.postgres_port)
    for block in range(3):
        before = proxy.batched()
        ids = [block * 100 + i if i != 7 or block == 2 else 0 for i in range(50)]
        data = b""
        for i in ids:
            data += wire.pg_query(f"{HINT}INSERT INTO {table} (id) VALUES ({i})")
        session.sock.sendall(data)
        answers = [session.answer() for _ in ids]
        seen = set()
        for i, answer in zip(ids, answers, strict=True):
            assert (answer[:1] == b"E") == (i in seen or (block == 1 and i == 0)), (i, answer)
            seen.add(i)
    order = [i for i, in admin.execute(f"SELECT id FROM {table} ORDER BY n")]
    assert order == sorted(order) and len(order) == 148
    session.close()
    assert proxy.batched() - before >= 45


def test_many_simple_queries_ahead_share_batches(proxy, pg, table):
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (n serial, id int PRIMARY KEY)")
    session = RawPostgres(proxy.postgres_port)
    session.query(f"{HINT}INSERT INTO {table} (id) VALUES (-1)")
    before = proxy.batched()
    data = b""
    for i in range(100):
        data += wire.pg_query(f"{HINT}INSERT INTO {table} (id) VALUES ({i}) RETURNING id")
    session.sock.sendall(data)
    assert all(str(i).encode() in session.answer() for i in range(100))
    session.close()
    assert proxy.batched() - before >= 90
    assert [i for i, in admin.execute(f"SELECT id FROM {table} ORDER BY n")] == list(range(-1, 100))


def test_mariadb_commands_ahead_share_batches(mariadb, proxy, my, table):
    admin = my(through=False).cursor()
    admin.execute(f"CREATE TABLE {table} (n int AUTO_INCREMENT PRIMARY KEY, id int)")
    with mariadb.connect(proxy.mariadb_port, database="d") as connection:
        session = RawMariaDB(connection)
        session.query(f"{HINT}INSERT INTO {table} (id) VALUES (-1)")
        before = proxy.batched()
        for verb in ("INSERT INTO {t} (id) VALUES ({i})", "UPDATE {t} SET id = id + 1000 WHERE id = {i}"):
            # the catalogue is asked, for as long as it takes
            session.query("/* max_wait_ms:1000 */ " + verb.format(t=table, i=-2))
            data = b""
            for i in range(100):
                data += wire.my_query(HINT + verb.format(t=table, i=i))
            session.sock.sendall(data)
            packets = [session.packet() for _ in range(100)]
            assert all(p[4:6] == b"\0\1" for p in packets)
        assert proxy.batched() - before >= 180
    admin.execute(f"SELECT id FROM {table} ORDER BY n")
    assert [i for i, in admin.fetchall()] == [-1, 998, *range(1000, 1100)]


@pytest.mark.parametrize("verb", ["INSERT INTO {t} (id, b) VALUES ({i}, '{big}')",
                                  "UPDATE {t} SET b = '{big}' WHERE id = {i} RETURNING b"])
def test_a_thousand_statements_each_way(start_proxy, postgres, pg, table, verb):
    """Statements and answers larger than any socket buffer, both ways at once."""
    proxy = start_proxy(postgres=postgres, config="[writebatch]\nmax_batch_bytes = 15728640\n")
    pg(through=False).execute(f"CREATE TABLE {table} (id int PRIMARY KEY, b text)")
    if verb.startswith("UPDATE"):
        pg(through=False).execute(f"INSERT INTO {table} SELECT i, '' FROM generate_series(0, 999) i")
    session = RawPostgres(proxy.postgres_port)

    def send():
        for i in range(1000):
            session.send(b"Q", (HINT + verb.format(t=table, i=i, big="b" * 4000)).encode() + b"\0")

    sender = threading.Thread(target=send)
    sender.start()
    answers = [session.answer() for _ in range(1000)]
    sender.join()
    assert all(b"INSERT 0 1" in a or b"UPDATE 1" in a for a in answers)
    session.close()


# --- prepared statements that come and go ------------------------------------------------------------------------

def test_unnamed_statement_survives_batches(postgres, proxy, pg, table):
    """What was parsed without a name is there later, although a batch ran on its connection or it went with one."""
    pg(through=False).execute(f"CREATE TABLE {table} (id int PRIMARY KEY, b text)")
    others = [RawPostgres(proxy.postgres_port) for _ in range(3)]
    insert = f"{HINT}INSERT INTO {table} VALUES ($1, $2)"

    def bind(session, params):
        session.sock.sendall(wire.pg_bind(b"", b"", *params) + wire.pg(b"E", b"\0" * 5) + wire.pg(b"S"))
        return session.answer()

    def work(k):
        session = RawPostgres(proxy.postgres_port)
        out = []
        for n in range(10):
            base = k * 1000 + n * 10
            out.append(session.execute(insert, (base, "parsed")))
            out.append(bind(session, (str(base + 1).encode(), b"bound")))       # the one parsed before
            session.query("BEGIN")
            session.query("ROLLBACK")                                            # a Query drops it
            out.append(bind(session, (str(base + 2).encode(), b"gone")))
            session.send(b"P", b"\0SELECT $1::int\0\0\0")
            session.send(b"S", b"")
            session.answer()
            out.append(session.query(f"{HINT}INSERT INTO {table} VALUES ({base + 3}, 'text')"))
            out.append(bind(session, (b"5",)))                                   # dropped by a batched Query too
            session.send(b"P", b"\0SELECT $1::int\0\0\0")
            session.send(b"S", b"")
            session.answer()
            out.append(bind(session, (b"6",)))
        session.close()
        return out

    for answers in together(8, work):
        for n in range(10):
            parsed, bound, gone, text, dropped, select = answers[n * 6:n * 6 + 6]
            assert b"INSERT 0 1" in parsed and b"INSERT 0 1" in bound and b"INSERT 0 1" in text
            assert b"C26000" in gone and b"C26000" in dropped and gone[:1] == dropped[:1] == b"E"
            assert b"SELECT 1" in select and select[:1] == b"2"
    for s in others:
        s.close()


@pytest.mark.parametrize("drop", ["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE s0"])
def test_statements_dropped_by_sql_are_gone(proxy, pg, table, drop):
    pg(through=False).execute(f"CREATE TABLE {table} (id int PRIMARY KEY)")
    sql = f"{HINT}INSERT INTO {table} VALUES ($1)"

    def work(k):
        session = RawPostgres(proxy.postgres_port)
        out = [session.execute(sql, (k * 10 + n,), named=True) for n in range(3)]
        session.query(drop)
        out.append(session.execute(sql, (k * 10 + 5,), named=True))
        session.prepared.clear()
        out.append(session.execute(sql, (k * 10 + 6,), named=True))
        session.close()
        return out

    for *good, gone, again in together(6, work):
        assert all(b"INSERT 0 1" in a for a in good)
        assert b"C26000" in gone
        assert b"INSERT 0 1" in again
    assert pg(through=False).execute(f"SELECT count(*) FROM {table}").fetchone() == (24,)


def test_alter_table_that_changes_what_comes_back(proxy, pg, table):
    """A prepared statement whose result would change is the server's to refuse, as it does directly."""
    admin = pg()
    admin.execute(f"CREATE TABLE {table} (id int PRIMARY KEY)")
    sql = f"{HINT}INSERT INTO {table} (id) VALUES ($1) RETURNING *"
    sessions = [RawPostgres(proxy.postgres_port) for _ in range(5)]
    together(5, lambda k: [sessions[k].execute(sql, (k * 10 + n,), named=True) for n in range(3)])
    admin.execute(f"ALTER TABLE {table} ADD b text DEFAULT 'new'")
    answers = together(5, lambda k: sessions[k].execute(sql, (k * 10 + 5,), named=True))
    assert all(b"C0A000" in a for a in answers)
    for s in sessions:
        s.close()


def test_a_parse_that_failed_leaves_no_statement(proxy, pg, table):
    admin = pg()
    sql = f"{HINT}INSERT INTO {table} (id) VALUES ($1)"
    early, *late = [RawPostgres(proxy.postgres_port) for _ in range(4)]
    assert b"C42P01" in early.execute(sql, (1,), named=True)
    admin.execute(f"CREATE TABLE {table} (id int)")
    early.prepared.add(sql)
    answers = together(4, lambda k: (early if k == 0 else late[k - 1]).execute(sql, (k,), named=True))
    assert b"C26000" in answers[0] and all(b"INSERT 0 1" in a for a in answers[1:])
    for s in (early, *late):
        s.close()


def test_mariadb_types_are_told_where_they_are_needed(mariadb, proxy, my, table):
    """Types go with a batch; the same statement later runs alone, where the server has not heard them."""
    admin = my(through=False).cursor()
    admin.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, b varchar(20))")
    sql = f"{HINT}INSERT INTO {table} VALUES (?, ?)"

    def work(k):
        with mariadb.connect(proxy.mariadb_port, database="d") as connection:
            session = RawMariaDB(connection)
            out = [session.execute(sql, (k * 100 + n, "batched")) for n in range(4)]
            session.query("BEGIN")
            out += [session.execute(sql, (k * 100 + 10 + n, "alone")) for n in range(2)]
            session.query("COMMIT")
            out += [session.execute(sql, (k * 100 + 20 + n, None if n else "again")) for n in range(3)]
            out += [session.execute(sql, (str(k * 100 + 30 + n), f"text {n}")) for n in range(3)]
            return out

    before = proxy.batched()
    assert all(a[4:6] == b"\0\1" for answers in together(8, work) for a in answers)
    admin.execute(f"SELECT b, COUNT(*) FROM {table} GROUP BY b ORDER BY b")
    assert dict(admin.fetchall()) == {"batched": 32, "alone": 16, "again": 8, None: 16, "text 0": 8, "text 1": 8,
                                      "text 2": 8}
    assert proxy.batched() - before > 40


def test_mariadb_long_data(mariadb, proxy, my, table):
    admin = my(through=False).cursor()
    admin.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, b longblob)")
    sql = f"{HINT}INSERT INTO {table} VALUES (?, ?)"

    def work(k):
        with mariadb.connect(proxy.mariadb_port, database="d") as connection:
            session = RawMariaDB(connection)
            session.execute(sql, (k * 10, b"short"))
            number = session.statements[sql][0].to_bytes(4, "little")
            for part in (b"long", b" data"):
                session.sock.sendall(wire.my(0, b"\x18" + number + b"\1\0" + part))
            head = b"\x17" + number + b"\0\1\0\0\0" + b"\0" + b"\1\x08\0\xfc\0" + (k * 10 + 1).to_bytes(8, "little")
            answer = session.command(head)
            return answer[4:6], session.execute(sql, (k * 10 + 2, b"after"))[4:6]

    assert together(6, work) == [(b"\0\1", b"\0\1")] * 6
    admin.execute(f"SELECT b, COUNT(*) FROM {table} GROUP BY b")
    assert dict(admin.fetchall()) == {b"short": 6, b"long data": 6, b"after": 6}


# --- what the session remembers ------------------------------------------------------------------------------------

@pytest.mark.parametrize("prepared", [False, True], ids=["text", "prepared"])
def test_last_insert_id_everywhere(mariadb, proxy, my, table, prepared):
    admin = my(through=False).cursor()
    admin.execute(f"CREATE TABLE {table} (id bigint AUTO_INCREMENT PRIMARY KEY, k int, n int)")
    admin.execute(f"CREATE TABLE {table}c (parent bigint, k int)")

    def work(k):
        with mariadb.connect(proxy.mariadb_port, database="d") as connection:
            session = RawMariaDB(connection)

            def run(sql, *params):
                return session.execute(sql, params) if prepared else session.query(
                    sql.replace("?", "{}").format(*params))

            def value(sql, *params):
                out = run(sql, *params)
                rows = out.split(b"\xfe\0\0", 2)[1]
                return rows

            for n in range(12):
                ok = run(f"{HINT}INSERT INTO {table} (k, n) VALUES (?, ?)", k, n)
                assert ok[4:6] == b"\0\1"
                if n % 3 == 0:
                    run(f"UPDATE {table} SET n = n + 100 WHERE id = LAST_INSERT_ID() AND k = ?", k)
                elif n % 3 == 1:
                    run(f"INSERT INTO {table}c (parent, k) VALUES (LAST_INSERT_ID(), ?)", k)
                else:
                    run(f"{HINT}UPDATE {table} SET n = n + 1000 WHERE k = ? AND n = ?", k, n)
                    run(f"INSERT INTO {table}c (parent, k) SELECT @@identity, ?", k)
            with connection.cursor() as cursor:
                cursor.execute("SELECT LAST_INSERT_ID(), (SELECT LAST_INSERT_ID()), @@last_insert_id")
                row = cursor.fetchone()
                cursor.execute(f"SELECT MAX(id) FROM {table} WHERE k = {k}")
                assert set(row) == set(cursor.fetchone())

    together(10, work)
    admin.execute(f"SELECT COUNT(*), SUM(n >= 100 AND n < 200), SUM(n >= 1000) FROM {table}")
    assert admin.fetchone() == (120, 40, 40)
    admin.execute(f"SELECT COUNT(*) FROM {table}c c JOIN {table} t ON t.id = c.parent AND t.k = c.k")
    assert admin.fetchone() == (80,)


def test_row_count_after_a_batch(mariadb, proxy, my, table):
    admin = my(through=False).cursor()
    admin.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, k int)")

    def work(k):
        seen = []
        with mariadb.connect(proxy.mariadb_port, database="d") as connection, connection.cursor() as cursor:
            for n in range(6):
                for sql in (f"INSERT INTO {table} VALUES ({k * 100 + n}, {k})",
                            f"UPDATE {table} SET k = k + 100 WHERE k = {k} AND id = {k * 100 + n}",
                            f"UPDATE {table} SET k = k WHERE id = {k * 100 + n}",
                            f"INSERT INTO {table} VALUES ({k * 100 + n}, 1) ON DUPLICATE KEY UPDATE k = {k}"):
                    cursor.execute(HINT + sql)
                    cursor.execute("SELECT ROW_COUNT()")
                    assert cursor.description[0][0] == "ROW_COUNT()"
                    seen.append(cursor.fetchone()[0])
                    cursor.execute(f"SELECT 'row_count()', {n}")
        return seen

    assert together(8, work) == [[1, 1, 0, 2] * 6] * 8


# --- without hints ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["set", "set_config", "option", "extended"])
def test_postgres_session_opt_in(postgres, proxy, pg, table, how):
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (a int)")

    def work(k):
        options = "-c tqdb.max_wait_ms=200" if how == "option" else ""
        with psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True, options=options) as c:
            if how == "set":
                c.execute("SET tqdb.max_wait_ms = 200")
            elif how == "set_config":
                c.execute("SELECT set_config('tqdb.max_wait_ms', '200', false)")
            elif how == "extended":
                c.execute("SET tqdb.max_wait_ms TO '200'", binary=True)
            for n in range(10):
                c.execute(f"INSERT INTO {table} VALUES (%s)", (n,))
            for n in range(3):
                c.execute(f"/* max_wait_ms:0 */ INSERT INTO {table} VALUES (%s)", (n,))
            c.execute("RESET tqdb.max_wait_ms" if how != "option" else "SET tqdb.max_wait_ms = 0")
            c.execute(f"INSERT INTO {table} VALUES (1)")

    before, alone = proxy.batched(), proxy.counted("no_hint")
    together(8, work)
    # on a busy machine the catalogue's answer takes longer than the first writes wait
    assert proxy.batched() - before >= 30
    assert proxy.counted("no_hint") == alone + 8 * 4
    assert admin.execute(f"SELECT count(*) FROM {table}").fetchone() == (8 * 14,)


def test_mariadb_session_opt_in(mariadb, proxy, my, table):
    admin = my(through=False).cursor()
    admin.execute(f"CREATE TABLE {table} (a int)")

    def work(k):
        with mariadb.connect(proxy.mariadb_port, database="d",
                             init_command="SET @tqdb_max_wait_ms = 20") as c, c.cursor() as cursor:
            for n in range(10):
                # the first ones wait for what the catalogue says, however long it takes
                hint = "/* max_wait_ms:1000 */ " if n == 0 else ""
                cursor.execute(f"{hint}INSERT INTO {table} VALUES (%s)", (n,))
            for n in range(3):
                cursor.execute(f"/* max_wait_ms:0 */ INSERT INTO {table} VALUES (%s)", (n,))
            cursor.execute("SET @tqdb_max_wait_ms = NULL")
            cursor.execute(f"INSERT INTO {table} VALUES (1)")

    before, alone = proxy.batched(), proxy.counted("no_hint")
    together(8, work)
    assert proxy.batched() - before >= 60
    assert proxy.counted("no_hint") == alone + 8 * 4


def test_a_setting_that_failed_changes_nothing(proxy, pg, table):
    pg(through=False).execute(f"CREATE TABLE {table} (a int)")
    c = pg()
    with pytest.raises(psycopg.Error):
        c.execute("SET tqdb.max_wait_ms = 20, 'x'y")
    before = proxy.counted("no_hint")
    c.execute(f"INSERT INTO {table} VALUES (1)")
    assert proxy.counted("no_hint") == before + 1


# --- cancels and time limits ---------------------------------------------------------------------------------------

def test_postgres_cancel_takes_a_gathered_write_back(start_proxy, postgres, pg, table):
    proxy = start_proxy(postgres=postgres, config="[writebatch]\nmax_wait_ms_limit = 60000\n")
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (a int)")
    sessions = [psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True) for _ in range(2)]
    for s in sessions:
        s.execute(f"/* max_wait_ms:1 */ INSERT INTO {table} VALUES (0)")
    waiter = sessions[0]
    failure = []

    def write():
        try:
            waiter.execute(f"/* max_wait_ms:50000 */ INSERT INTO {table} VALUES (%s)", (99,))
        except psycopg.Error as e:
            failure.append(e)

    thread = threading.Thread(target=write)
    thread.start()
    wait_for(lambda: proxy.clients("waiting"))
    waiter.cancel()
    thread.join(20)
    assert failure and failure[0].sqlstate == "57014"
    assert waiter.info.transaction_status == pq.TransactionStatus.IDLE
    assert waiter.execute("SELECT 5").fetchone() == (5,)
    assert admin.execute(f"SELECT count(*) FROM {table} WHERE a = 99").fetchone() == (0,)
    for s in sessions:
        s.close()


def test_mariadb_kill_query_takes_a_gathered_write_back(start_proxy, mariadb, my, table):
    proxy = start_proxy(mariadb=mariadb, config="[writebatch]\nmax_wait_ms_limit = 60000\n")
    admin = my(through=False).cursor()
    admin.execute(f"CREATE TABLE {table} (a int)")
    sessions = [mariadb.connect(proxy.mariadb_port, database="d") for _ in range(3)]
    for s in sessions:
        s.cursor().execute(f"/* max_wait_ms:1 */ INSERT INTO {table} VALUES (0)")
    waiter = sessions[0]
    failure = []

    def write():
        try:
            waiter.cursor().execute(f"/* max_wait_ms:50000 */ INSERT INTO {table} VALUES (99)")
        except pymysql.Error as e:
            failure.append(e.args[0])

    thread = threading.Thread(target=write)
    thread.start()
    wait_for(lambda: proxy.clients("waiting"))
    sessions[1].cursor().execute(f"KILL QUERY {waiter.thread_id()}")
    thread.join(20)
    assert failure == [1317]
    cursor = waiter.cursor()
    cursor.execute("SELECT 5")
    assert cursor.fetchone() == (5,)
    admin.execute(f"SELECT COUNT(*) FROM {table} WHERE a = 99")
    assert admin.fetchone() == (0,)
    for s in sessions:
        s.close()


def test_a_statement_timeout_bounds_the_wait(start_proxy, postgres, pg, table):
    """With another session that could still join, a long wait ends in time for the session's own limit."""
    proxy = start_proxy(postgres=postgres, config="[writebatch]\nmax_wait_ms_limit = 600000\n")
    pg(through=False).execute(f"CREATE TABLE {table} (a int)")
    sessions = [psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True,
                                options="-c statement_timeout=2s") for _ in range(2)]
    for s in sessions:
        s.execute(f"/* max_wait_ms:1 */ INSERT INTO {table} VALUES (0)")
    before = proxy.metric("tqdbproxy_write_batch_flush_total", reason="deadline")
    sessions[0].execute(f"/* max_wait_ms:500000 */ INSERT INTO {table} VALUES (1)")
    assert proxy.metric("tqdbproxy_write_batch_flush_total", reason="deadline") == before + 1
    for s in sessions:
        s.close()


def test_statement_batches_are_relayed_whole(proxy, pg, my, table):
    connection, cursor = pg(), my(client_flag=65536).cursor()
    for execute in (connection.execute, cursor.execute):
        execute(f"CREATE TABLE {table} (a int PRIMARY KEY)")
        before = proxy.counted("not_batchable")
        execute(f"{HINT}INSERT INTO {table} VALUES (1); INSERT INTO {table} VALUES (2)")
        assert proxy.counted("not_batchable") == before + 1
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute(f"{HINT}INSERT INTO {table} VALUES (3); INSERT INTO {table} VALUES (1)")
    assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (2,)
