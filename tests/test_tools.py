"""Command-line clients give through the proxy what they give direct."""

import re
import shutil
import subprocess

import psycopg
import pytest

from tqdb.load.servers import postgres_tool

HINTED = "/* max_wait_ms=5 file=bench.sql line=1 */ INSERT INTO {t} (a, b) VALUES (1, 'x');\n"


def run(*command: str, stdin: str | None = None) -> tuple[int, str, str]:
    done = subprocess.run(command, input=stdin, capture_output=True, encoding="latin-1", timeout=300)
    return done.returncode, done.stdout, done.stderr


def both(command, direct: int, through: int, mask=lambda text: text, **more):
    """Runs ``command(port)`` both ways and asserts the same exit code and output; returns the output."""
    a, b = run(*command(direct), **more), run(*command(through), **more)
    assert a[0] == b[0], b
    assert mask(b[1]) == mask(a[1])
    assert mask(b[2]).replace(str(through), "PORT") == mask(a[2]).replace(str(direct), "PORT")
    return a[1]


@pytest.fixture
def psql(postgres):
    return lambda port: [postgres_tool("psql"), "-X", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres",
                         "postgres"]


def test_psql(psql, postgres, proxy, table):
    script = rf"""
\set VERBOSITY verbose
CREATE TABLE {table} (id serial PRIMARY KEY, a int CHECK (a < 10), b text);
/* max_wait_ms:5 */ INSERT INTO {table} (a, b) VALUES (1, 'x'), (2, NULL) RETURNING *;
/* max_wait_ms:5 */ INSERT INTO {table} (a) VALUES (10);
/* max_wait_ms:5 */ INSERT INTO {table} (a) VALUES (3);
INSERT INTO {table} (a, b) VALUES (3, 'y') \g
SELECT a, b FROM {table} WHERE a = \:\'x\';
SELECT 1 \gset x
\d {table}
COPY {table} (a, b) FROM STDIN;
4	from copy
5	\N
\.
COPY {table} TO STDOUT;
\copy {table} TO STDOUT WITH CSV HEADER
SELECT * FROM {table} ORDER BY id; SELECT count(*) FROM {table};
BEGIN; DECLARE c CURSOR FOR SELECT id FROM {table} ORDER BY id; FETCH 2 FROM c; ROLLBACK;
DO $$ BEGIN RAISE NOTICE 'a notice'; END $$;
LISTEN channel; NOTIFY channel, 'payload';
\lo_import /etc/hostname
\lo_unlink :LASTOID
SELECT 1/0;
DROP TABLE {table};
"""
    pid = re.compile(r"PID \d+|lo_import \d+|lo_unlink \d+|oid \d+")
    both(psql, postgres.port, proxy.postgres_port, lambda text: pid.sub("#", text), stdin=script)


def test_mariadb_client(mariadb, proxy, table):
    script = f"""
CREATE TABLE {table} (id int AUTO_INCREMENT PRIMARY KEY, a int CHECK (a < 10), b text);
/* max_wait_ms:5 */ INSERT INTO {table} (a, b) VALUES (1, 'x'), (2, NULL);
/* max_wait_ms:5 */ INSERT INTO {table} (a, b) VALUES (3, 'y');
SELECT LAST_INSERT_ID(), ROW_COUNT() < 1000;
SELECT * FROM {table};
/* max_wait_ms:5 */ INSERT INTO {table} (a) VALUES (10);
SHOW WARNINGS;
PREPARE s FROM 'SELECT ? + 1'; SET @a = 5; EXECUTE s USING @a;
DELIMITER //
CREATE PROCEDURE {table}p() BEGIN SELECT 1; SELECT 2; END //
DELIMITER ;
CALL {table}p();
SHOW CREATE TABLE {table};
SELECT nothing;
DROP TABLE {table};
"""

    def command(port):
        return ["mariadb", "-h", "127.0.0.1", "-P", str(port), "-u", "root", "--force", "-vvv", "--table", "d"]

    times = re.compile(r"\(\d+\.\d+ sec\)")
    both(command, mariadb.port, proxy.mariadb_port, lambda text: times.sub("", text),
         stdin=script.replace("CREATE PROCEDURE", "CREATE OR REPLACE PROCEDURE"))


def test_pg_dump(postgres, proxy, pg, table):
    pg(through=False).execute(f"CREATE DATABASE {table}")
    with psycopg.connect(postgres.dsn().replace("dbname=postgres", f"dbname={table}"), autocommit=True) as setup:
        setup.execute("CREATE TABLE a (id serial PRIMARY KEY, t text, b bytea); "
                      "INSERT INTO a (t, b) SELECT repeat(md5(i::text), 20), decode(md5(i::text), 'hex') "
                      "FROM generate_series(1, 5000) i; CREATE VIEW v AS SELECT * FROM a")
    restrict = re.compile(r"\\(un)?restrict \w+")
    for options in ([], ["--inserts"]):
        dump = both(lambda port, o=options: [
            postgres_tool("pg_dump"), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", *o, table],
            postgres.port, proxy.postgres_port, lambda text: restrict.sub("", text))
    pg(through=False).execute(f"CREATE DATABASE {table}r")
    code, _, error = run(postgres_tool("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p",
                         str(proxy.postgres_port), "-U", "postgres", f"{table}r", stdin=dump)
    assert code == 0, error


def test_mariadb_dump(mariadb, proxy, my, table):
    cursor = my(through=False).cursor()
    cursor.execute(f"CREATE DATABASE {table}")
    cursor.execute(f"CREATE TABLE {table}.a (id int AUTO_INCREMENT PRIMARY KEY, t text, b blob)")
    cursor.execute(f"INSERT INTO {table}.a (t, b) SELECT REPEAT(MD5(seq), 20), UNHEX(MD5(seq)) FROM seq_1_to_5000")
    moment = re.compile(r"-- Dump completed on .*|-- Host: .*")
    for options in ([], ["--single-transaction", "--skip-extended-insert", "--hex-blob"]):
        dump = both(lambda port, o=options: ["mariadb-dump", "-h", "127.0.0.1", "-P", str(port), "-u", "root", *o,
                                             table],
                    mariadb.port, proxy.mariadb_port, lambda text: moment.sub("", text))
    cursor.execute(f"CREATE DATABASE {table}r")
    code, _, error = run("mariadb", "-h", "127.0.0.1", "-P", str(proxy.mariadb_port), "-u", "root", f"{table}r",
                         stdin=dump)
    assert code == 0, error
    cursor.execute(f"CHECKSUM TABLE {table}.a, {table}r.a")
    (_, original), (_, restored) = cursor.fetchall()
    assert original == restored


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_pgbench(postgres, proxy, pg, table, tmp_path, protocol):
    admin = pg(through=False)
    admin.execute(f"CREATE DATABASE {table}; ")
    base = ["-h", "127.0.0.1", "-p", str(proxy.postgres_port), "-U", "postgres"]
    code, _, error = run(postgres_tool("pgbench"), *base, "-i", "-q", "-s", "1", table)
    assert code == 0, error
    code, out, error = run(postgres_tool("pgbench"), *base, "-M", protocol, "-c", "8", "-t", "50", "-n", table)
    assert code == 0 and "number of transactions actually processed: 400/400" in out, error
    assert "number of failed transactions: 0" in out
    with psycopg.connect(postgres.dsn().replace("dbname=postgres", f"dbname={table}"), autocommit=True) as check:
        assert check.execute("SELECT count(*), (SELECT sum(abalance) FROM pgbench_accounts) = sum(delta) "
                             "FROM pgbench_history").fetchone() == (400, True)
        check.execute(f"CREATE TABLE {table} (id serial, a int, b text)")
        script = tmp_path / "hinted.sql"
        script.write_text(HINTED.format(t=table))
        code, out, error = run(postgres_tool("pgbench"), *base, "-M", protocol, "-c", "8", "-t", "50", "-n", "-f",
                               str(script), table)
        assert code == 0 and "number of failed transactions: 0" in out, error
        assert check.execute(f"SELECT count(*) FROM {table}").fetchone() == (400,)


@pytest.mark.skipif(shutil.which("sysbench") is None, reason="sysbench is not there")
@pytest.mark.parametrize("driver", ["pgsql", "mysql"])
def test_sysbench(postgres, mariadb, proxy, pg, my, table, driver):
    if driver == "pgsql":
        pg(through=False).execute(f"CREATE DATABASE {table}")
        where = ["--pgsql-host=127.0.0.1", f"--pgsql-port={proxy.postgres_port}", "--pgsql-user=postgres",
                 f"--pgsql-db={table}"]
    else:
        my(through=False).cursor().execute(f"CREATE DATABASE {table}")
        where = ["--mysql-host=127.0.0.1", f"--mysql-port={proxy.mariadb_port}", "--mysql-user=root",
                 f"--mysql-db={table}"]
    command = ["sysbench", "oltp_read_write", f"--db-driver={driver}", *where, "--tables=2", "--table-size=500"]
    code, out, error = run(*command, "prepare")
    assert code == 0, out + error
    code, out, error = run(*command, "--threads=4", "--events=200", "--time=0", "run")
    assert code == 0, out + error
    assert re.search(r"total number of events:\s+200", out), out
    assert not re.search(r"FATAL|error", error), error
