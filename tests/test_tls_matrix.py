"""Kinds of clients, kinds of servers, methods of authentication: as direct, or the stated error."""

import asyncio
import shutil
import ssl
import subprocess

import psycopg
import pymysql
import pytest

from tests.crowd import together
from tests.fix_tls import CLIENTS, PASSWORD, SERVERS, TlsProxy, refusal, to_clients, to_servers


def libpq(port: int, user: str, client: str, certificates) -> str:
    """A connection string."""
    where = f"host=127.0.0.1 port={port} user={user} password={PASSWORD} dbname=postgres"
    if client == "plain":
        return f"{where} sslmode=disable"
    where += f" sslmode=verify-full sslrootcert={certificates.ca}"
    if client == "tls":
        return f"{where} sslcert=/nonexistent"
    return where + f" sslcert={certificates.client[0]} sslkey={certificates.client[1]}"


def psql(port, user, client, certificates):
    done = subprocess.run([shutil.which("psql"), "-XAtc", "SELECT 42", libpq(port, user, client, certificates)],
                          capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise ConnectionError(done.stderr)
    return int(done.stdout)


def by_psycopg(port, user, client, certificates):
    with psycopg.connect(libpq(port, user, client, certificates)) as connection:
        return connection.execute("SELECT 42").fetchone()[0]


def by_asyncpg(port, user, client, certificates):
    asyncpg = pytest.importorskip("asyncpg")
    secure = False if client == "plain" else certificates.context(client == "certificate")

    async def go():
        connection = await asyncpg.connect(host="127.0.0.1", port=port, user=user, password=PASSWORD,
                                           database="postgres", ssl=secure)
        try:
            return await connection.fetchval("SELECT 42")
        finally:
            await connection.close()

    return asyncio.run(go())


def by_pg8000(port, user, client, certificates):
    dbapi = pytest.importorskip("pg8000.dbapi")
    secure = False if client == "plain" else certificates.context(client == "certificate")
    connection = dbapi.connect(host="127.0.0.1", port=port, user=user, password=PASSWORD, database="postgres",
                               ssl_context=secure)
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT 42")
        return cursor.fetchone()[0]
    finally:
        connection.close()


BINDS = (psql, by_psycopg, by_pg8000)       # these tell the server that they could bind, asyncpg does not


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("connect", [psql, by_psycopg, by_asyncpg, by_pg8000], ids=lambda f: f.__name__)
def test_postgres(tls_proxies, tls_postgres, certificates, connect, client, server):
    if connect is psql and not shutil.which("psql"):
        pytest.skip("no psql")
    port = tls_proxies(client, server).postgres_port
    for method in ("trust", "password", "md5", "scram"):
        assert connect(tls_postgres.port, f"u_{method}", client, certificates) == 42
        refused = refusal(method, client, server, connect in BINDS)
        if refused is None:
            assert connect(port, f"u_{method}", client, certificates) == 42
        else:
            with pytest.raises(Exception, match=refused):
                connect(port, f"u_{method}", client, certificates)


@pytest.mark.parametrize("server", ["require", "verify-full"])
def test_scram_goes_through_tls_on_both_sides_without_binding(tls_proxies, certificates, server):
    port = tls_proxies("tls", server).postgres_port
    with psycopg.connect(libpq(port, "u_scram", "tls", certificates) + " channel_binding=disable") as connection:
        assert connection.execute("SELECT 42").fetchone() == (42,)


def test_who_shows_the_servers_own_certificate_relays_channel_bindings(start_tls_proxy, tls_postgres, certificates):
    cert, key = certificates.server
    proxy = start_tls_proxy(postgres=tls_postgres, server=to_servers(certificates, "verify-full"),
                            client={"tls": "require", "tls_cert": cert, "tls_key": key})
    dsn = libpq(proxy.postgres_port, "u_scram", "tls", certificates)
    for binding in ("prefer", "require"):
        with psycopg.connect(f"{dsn} channel_binding={binding}") as connection:
            assert connection.execute("SELECT 42").fetchone() == (42,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(dsn.replace(PASSWORD, "wrong"))


def test_the_proxys_certificate_is_the_one_that_servers_see(start_tls_proxy, tls_postgres, tls_mariadb, certificates):
    cert, key = certificates.client
    proxy = start_tls_proxy(postgres=tls_postgres, mariadb=tls_mariadb, client=to_clients(certificates),
                            server=to_servers(certificates, "verify-full", tls_cert=cert, tls_key=key))
    with psycopg.connect(libpq(proxy.postgres_port, "u_cert", "tls", certificates)) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("u_cert",)
    assert by_pymysql(proxy.mariadb_port, "u_x509", "plain", certificates) == 42


# --- MariaDB -----------------------------------------------------------------------------------------


def by_pymysql(port, user, client, certificates, password=PASSWORD):
    secure = {"ssl_disabled": True} if client == "plain" else {"ssl": certificates.context(client == "certificate")}
    connection = pymysql.connect(host="127.0.0.1", port=port, user=user, password=password, database="d", **secure)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT 42")
        return cursor.fetchone()[0]


def mariadb_cli(port, user, client, certificates, password=PASSWORD):
    secure = ["--skip-ssl"]
    if client != "plain":
        secure = ["--ssl", f"--ssl-ca={certificates.ca}", "--ssl-verify-server-cert"]
    if client == "certificate":
        secure += [f"--ssl-cert={certificates.client[0]}", f"--ssl-key={certificates.client[1]}"]
    done = subprocess.run(
        [shutil.which("mariadb"), "--no-defaults", "-h127.0.0.1", f"-P{port}", f"-u{user}", f"-p{password}", *secure,
         "-Ne", "SELECT 42", "d"], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise ConnectionError(done.stderr)
    return int(done.stdout)


def by_connector(port, user, client, certificates):
    import mysql.connector
    secure = {"ssl_disabled": True}
    if client != "plain":
        secure = {"ssl_ca": certificates.ca, "ssl_verify_cert": True, "ssl_verify_identity": True}
    if client == "certificate":
        secure |= {"ssl_cert": certificates.client[0], "ssl_key": certificates.client[1]}
    connection = mysql.connector.connect(host="127.0.0.1", port=port, user=user, password=PASSWORD, database="d",
                                         use_pure=True, **secure)
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT 42")
        return cursor.fetchone()[0]
    finally:
        connection.close()


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("connect", [by_pymysql, mariadb_cli, by_connector], ids=lambda f: f.__name__)
def test_mariadb(tls_proxies, tls_mariadb, certificates, connect, client, server):
    if connect is mariadb_cli and not shutil.which("mariadb"):
        pytest.skip("no mariadb client")
    port = tls_proxies(client, server).mariadb_port
    assert connect(tls_mariadb.port, "u_native", client, certificates) == 42
    assert connect(port, "u_native", client, certificates) == 42
    # whether an account's REQUIRE SSL is met is the server's to say, of the connection that it sees
    if server == "off":
        with pytest.raises(Exception, match=r"1045.*Access denied"):
            connect(port, "u_tls", client, certificates)
    else:
        assert connect(port, "u_tls", client, certificates) == 42
    with pytest.raises(Exception, match=r"1045.*Access denied"):
        connect(port, "u_nobody", client, certificates)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("connect", [by_pymysql, mariadb_cli], ids=lambda f: f.__name__)
def test_ed25519(tls_proxies, tls_mariadb, certificates, connect, client, server):
    """What is signed is the server's to check, and says nothing of a connection."""
    if tls_mariadb.no_ed25519:
        pytest.skip(tls_mariadb.no_ed25519)
    if connect is by_pymysql:
        pytest.importorskip("nacl")
    elif not shutil.which("mariadb"):
        pytest.skip("no mariadb client")
    port = tls_proxies(client, server).mariadb_port
    assert connect(tls_mariadb.port, "u_ed25519", client, certificates) == 42
    assert connect(port, "u_ed25519", client, certificates) == 42
    for where in (tls_mariadb.port, port):
        with pytest.raises(Exception, match=r"1045.*Access denied"):
            connect(where, "u_ed25519", client, certificates, "wrong")


# --- batches, over TLS -------------------------------------------------------------------------------

SESSIONS = 12
ROUNDS = 8
HINT = "/* max_wait_ms:200 file:tls.py line:1 */ "


def rounds(run, k: int) -> list:
    """Each round one write of each session, of which some are errors."""
    out = []
    for n in range(ROUNDS):
        key = k * 100 + n if (k + n) % 5 else 0        # the row that many want
        out.append(run(f"{HINT}INSERT INTO shared (id, v) VALUES ({key}, 'v{key}')"))
    return out


@pytest.mark.parametrize("server", ["off", "verify-full"])
def test_batches_of_plain_and_tls_clients_together_postgres(tls_proxies, tls_postgres, certificates, server):
    proxy = tls_proxies("tls", server)
    with psycopg.connect(tls_postgres.dsn(), autocommit=True) as admin:
        admin.execute("TRUNCATE shared")
        before = proxy.batched()

        def session(k):
            dsn = libpq(proxy.postgres_port, "u_md5", CLIENTS[k % 2], certificates)
            with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
                def run(sql):
                    try:
                        return connection.execute(sql).statusmessage
                    except psycopg.Error as e:
                        return e.sqlstate
                return rounds(run, k)

        answers = [a for each in together(SESSIONS, session) for a in each]
        kept = admin.execute("SELECT count(*) FROM shared WHERE v = 'v' || id").fetchone()[0]
    assert set(answers) == {"INSERT 0 1", "23505"} and answers.count("INSERT 0 1") == kept
    assert proxy.batched() - before > SESSIONS * ROUNDS // 2


@pytest.mark.parametrize("server", ["off", "verify-full"])
def test_batches_of_plain_and_tls_clients_together_mariadb(tls_proxies, tls_mariadb, certificates, server):
    proxy = tls_proxies("tls", server)
    with tls_mariadb.connect(database="d") as admin, admin.cursor() as cursor:
        cursor.execute("TRUNCATE shared")
        before = proxy.batched()

        def session(k):
            secure = {"ssl_disabled": True} if k % 2 else {"ssl": certificates.context()}
            connection = pymysql.connect(host="127.0.0.1", port=proxy.mariadb_port, user="u_native", autocommit=True,
                                         password=PASSWORD, database="d", **secure)
            with connection, connection.cursor() as mine:
                def run(sql):
                    try:
                        return mine.execute(sql)
                    except pymysql.Error as e:
                        return e.args[0]
                return rounds(run, k)

        answers = [a for each in together(SESSIONS, session) for a in each]
        cursor.execute("SELECT COUNT(*) FROM shared WHERE v = CONCAT('v', id)")
        kept = cursor.fetchone()[0]
    assert set(answers) == {1, 1062} and answers.count(1) == kept
    assert proxy.batched() - before > SESSIONS * ROUNDS // 2


def test_connections_are_counted_by_side_and_version(start_tls_proxy, tls_postgres, certificates):
    proxy: TlsProxy = start_tls_proxy(postgres=tls_postgres, client=to_clients(certificates),
                                      server=to_servers(certificates, "require"))
    dsn = libpq(proxy.postgres_port, "u_trust", "tls", certificates)
    with (psycopg.connect(dsn), psycopg.connect(f"{dsn} ssl_max_protocol_version=TLSv1.2"),
          psycopg.connect(libpq(proxy.postgres_port, "u_trust", "plain", certificates))):
        counted = {(side, version): proxy.metric("tqdbproxy_tls_connections", side=side, version=version)
                   for side in ("client", "server") for version in ("TLSv1.2", "TLSv1.3")}
    best = "TLSv1.3" if ssl.HAS_TLSv1_3 else "TLSv1.2"
    assert counted == {("client", "TLSv1.2"): 1, ("client", best): 1, ("server", "TLSv1.2"): 0, ("server", best): 3}
