"""TLS to clients: how it begins, what is refused, certificates, and what goes through it."""

import hashlib
import os
import random
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
from pathlib import Path

import psutil
import psycopg
import pymysql
import pytest

from tests.fix_servers import tqdb_command
from tests.fix_tls import PASSWORD, to_clients, to_servers
from tests.raw_tls import MY_SSL_REQUEST, SSL_REQUEST, STARTUP, asked, connect, direct, to_the_end, until_ready
from tests.wait import wait_for
from tests.wire import my, pg_split
from tqdb.load.servers import free_port


@pytest.fixture
def proxy(tls_proxies):
    return tls_proxies("tls", "off")


# --- how it begins -----------------------------------------------------------------------------------


def test_direct_tls_needs_the_protocols_name(proxy, certificates):
    with direct(proxy.postgres_port, certificates, "h2", "postgresql") as sock:
        assert sock.selected_alpn_protocol() == "postgresql"
        sock.sendall(STARTUP)
        assert until_ready(sock)
    for protocols in ((), ("h2",)):
        with direct(proxy.postgres_port, certificates, *protocols) as sock:
            sock.sendall(STARTUP)
            assert to_the_end(sock) == b""


@pytest.mark.skipif(psycopg.pq.version() < 170000, reason="needs libpq 17")
def test_libpq_with_direct_negotiation(proxy, certificates):
    with psycopg.connect(f"host=127.0.0.1 port={proxy.postgres_port} user=u_scram password={PASSWORD} dbname=postgres "
                         f"sslmode=verify-full sslrootcert={certificates.ca} sslnegotiation=direct") as connection:
        assert connection.pgconn.ssl_in_use and connection.execute("SELECT 1").fetchone() == (1,)


def test_a_byte_at_a_time(proxy, certificates):
    """The handshake and what follows in pieces of one byte."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = certificates.context().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with connect(proxy.postgres_port) as sock:
        sock.sendall(SSL_REQUEST)
        assert sock.recv(1) == b"S"

        def exchange(step):
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    pass
                finally:
                    for byte in outgoing.read():
                        sock.sendall(bytes((byte,)))
                incoming.write(sock.recv(65536))

        exchange(tls.do_handshake)
        exchange(lambda: tls.write(STARTUP))
        data = b""
        while not data.endswith(b"Z\0\0\0\x05I"):
            data += exchange(lambda: tls.read(65536))


@pytest.mark.parametrize("behind", [STARTUP, b"\x16", b"Q"])
def test_what_came_in_clear_behind_the_request_is_refused(proxy, behind):
    """CVE-2021-23222's kind: it must not be taken for something that came through TLS."""
    with connect(proxy.postgres_port) as sock:
        sock.sendall(SSL_REQUEST + behind)
        kind, body = pg_split(to_the_end(sock))[0][0]
    assert kind == b"E" and b"C08P01\0" in body and b"received unencrypted data after SSL request" in body


def test_what_came_in_clear_behind_mariadbs_request_is_no_command(proxy):
    """There the ClientHello comes unasked: what is none ends the connection, and nothing is said in clear."""
    login = my(2, struct.pack("<IIB23x", 0x0008A200, 1 << 24, 45) + b"root\0\0")
    with connect(proxy.mariadb_port) as sock:
        assert sock.recv(4096)[4] == 10
        sock.sendall(MY_SSL_REQUEST + login)
        data = to_the_end(sock)
    assert data[:1] in (b"", b"\x15")           # nothing, or TLS's own alert


def test_a_second_request_within_tls_is_no_protocol_version(proxy, certificates):
    for request in (SSL_REQUEST, struct.pack("!II", 8, 80877104)):
        with asked(proxy.postgres_port, certificates) as sock:
            sock.sendall(request)
            kind, body = pg_split(to_the_end(sock))[0][0]
        assert kind == b"E" and b"C0A000\0" in body


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
def test_old_versions_are_refused(proxy, certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with connect(proxy.postgres_port) as sock:
        sock.sendall(SSL_REQUEST)
        assert sock.recv(1) == b"S"
        with pytest.raises(ssl.SSLError, match="alert protocol version"):
            context.wrap_socket(sock)


# --- require -----------------------------------------------------------------------------------------


def test_required(start_tls_proxy, tls_postgres, tls_mariadb, certificates):
    proxy = start_tls_proxy(postgres=tls_postgres, mariadb=tls_mariadb, client=to_clients(certificates, "require"))
    where = f"host=127.0.0.1 port={proxy.postgres_port} user=postgres dbname=postgres"
    with pytest.raises(psycopg.OperationalError, match=r"TLS are not accepted(.|\n)*HINT: .*sslmode=require"):
        psycopg.connect(f"{where} sslmode=disable")
    with connect(proxy.postgres_port) as sock:
        sock.sendall(STARTUP)
        assert b"SFATAL\0VFATAL\0C28000\0" in to_the_end(sock)
    with pytest.raises(pymysql.OperationalError) as e:
        tls_mariadb.connect(proxy.mariadb_port)
    assert e.value.args[0] == 1045 and "TLS" in e.value.args[1]
    with psycopg.connect(f"{where} sslmode=require") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    # as at PostgreSQL, a Unix socket needs none
    with psycopg.connect(f"host={tls_postgres.directory} port={tls_postgres.port} user=postgres dbname=postgres"):
        pass
    local = os.path.join(proxy.directory, ".s.PGSQL.1")
    os.symlink(os.path.join(proxy.directory, "postgres.sock"), local)
    with psycopg.connect(f"host={proxy.directory} port=1 user=postgres dbname=postgres sslmode=prefer") as connection:
        assert not connection.pgconn.ssl_in_use
    with pymysql.connect(unix_socket=f"{proxy.directory}/mariadb.sock", user="root", ssl_disabled=True):
        pass


def test_the_servers_own_answer_to_clients_without_tls():
    """PostgreSQL's SQLSTATE and MariaDB's error number are what the proxy says, too."""
    from tqdb.load.servers import MariaDB

    class Strict(MariaDB):
        said = None

        def _answers(self):
            try:
                self.connect().close()
            except pymysql.OperationalError as e:
                self.said = e.args[0] if e.args[0] != 2003 else None
            return self.said is not None

    with Strict(require_secure_transport="ON") as server:
        assert server.start().said == 1045


# --- certificates of clients -------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_certificates(tls_proxies, certificates, version):
    proxy = tls_proxies("certificate", "off")

    def come(*chain: str) -> bytes:
        context = certificates.context()
        context.minimum_version = context.maximum_version = version
        if chain:
            context.load_cert_chain(*chain)
        with connect(proxy.postgres_port) as sock:
            sock.sendall(SSL_REQUEST)
            assert sock.recv(1) == b"S"
            try:
                with context.wrap_socket(sock, server_hostname="127.0.0.1") as secure:
                    secure.sendall(STARTUP)
                    return secure.recv(1)
            except OSError:
                return b""

    assert come(*certificates.client) == b"R"
    assert come() == b"" and come(*certificates.strange) == b""
    for reason in ("peer did not return a certificate", "certificate verify failed"):
        wait_for(lambda reason=reason: reason in proxy.log(), what=reason)


# --- certificates of the proxy -----------------------------------------------------------------------


def shown(port: int) -> str:
    """A digest of the certificate that the proxy shows."""
    with connect(port) as sock:
        sock.sendall(SSL_REQUEST)
        assert sock.recv(1) == b"S"
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(sock) as secure:
            return hashlib.sha256(secure.getpeercert(True)).hexdigest()


def test_certificates_are_read_again(start_tls_proxy, tls_postgres, certificates, tmp_path):
    cert, key = str(tmp_path / "cert"), str(tmp_path / "key")

    def install(chain):
        shutil.copy(chain[0], cert)
        shutil.copy(chain[1], key)

    def reload(word: str):
        times = proxy.log().count(word)
        proxy.tell(signal.SIGHUP)
        wait_for(lambda: proxy.log().count(word) > times, what=word)

    install(certificates.proxy)
    client = {"tls": "require", "tls_cert": cert, "tls_key": key}
    proxy = start_tls_proxy(postgres=tls_postgres, client=client)
    first = shown(proxy.postgres_port)
    with psycopg.connect(f"host=127.0.0.1 port={proxy.postgres_port} user=postgres dbname=postgres sslmode=require",
                         autocommit=True) as old:
        install(certificates.server)
        assert shown(proxy.postgres_port) == first
        reload("reloaded")
        second = shown(proxy.postgres_port)
        assert second != first
        assert old.execute("SELECT 1").fetchone() == (1,)
        Path(key).write_text("broken")
        reload("reload refused")
        assert "[postgres]" in proxy.log() and "tls_cert" in proxy.log()
        assert shown(proxy.postgres_port) == second
        install((certificates.proxy[0], certificates.server[1]))
        reload("reload refused")                # a key of another certificate
        assert shown(proxy.postgres_port) == second
        install(certificates.proxy)
        proxy.write({"tls": "off"}, {})
        reload("reloaded")
        assert old.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="server does not support SSL"):
        psycopg.connect(f"host=127.0.0.1 port={proxy.postgres_port} user=postgres dbname=postgres sslmode=require")


def test_a_section_that_has_gone_keeps_its_certificates(start_tls_proxy, tls_postgres, tls_mariadb, tmp_path,
                                                        certificates):
    """The files are gone with it, and the other protocol offers TLS no more."""
    cert, key = (shutil.copy(path, tmp_path) for path in certificates.proxy)
    proxy = start_tls_proxy(postgres=tls_postgres, mariadb=tls_mariadb, client=to_clients(certificates) | {
        "tls_cert": cert, "tls_key": key})
    first = shown(proxy.postgres_port)
    proxy.write({}, {})
    head, _, rest = Path(proxy.path).read_text().partition("[postgres]")
    Path(proxy.path).write_text(f"{head}[mariadb]{rest.partition('[mariadb]')[2]}")
    Path(cert).unlink()
    Path(key).unlink()
    proxy.tell(signal.SIGHUP)
    wait_for(lambda: "reloaded" in proxy.log())
    assert shown(proxy.postgres_port) == first
    with tls_mariadb.connect(proxy.mariadb_port) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    with pytest.raises(pymysql.OperationalError):
        tls_mariadb.connect(proxy.mariadb_port, ssl_disabled=False, ssl={"ca": certificates.ca})


def test_certificates_are_read_again_without_a_file(tls_postgres, certificates, tmp_path):
    """Started by arguments and environment there is no file to read, but certificates are."""
    cert, key = tmp_path / "cert", tmp_path / "key"
    cert.write_bytes(Path(certificates.proxy[0]).read_bytes())
    key.write_bytes(Path(certificates.proxy[1]).read_bytes())
    port = free_port()
    log = tmp_path / "log"
    with log.open("w") as out, subprocess.Popen(
            [*tqdb_command(), "serve", "--postgres", tls_postgres.address, "--listen-postgres", f"127.0.0.1:{port}"],
            stderr=out, env={**os.environ, "TQDB_POSTGRES_TLS": "allow", "TQDB_POSTGRES_TLS_CERT": str(cert),
                             "TQDB_POSTGRES_TLS_KEY": str(key)}) as process:
        try:
            wait_for(lambda: " ready " in log.read_text())
            first = shown(port)
            cert.write_bytes(Path(certificates.server[0]).read_bytes())
            key.write_bytes(Path(certificates.server[1]).read_bytes())
            psutil.Process(process.pid).send_signal(signal.SIGHUP)
            wait_for(lambda: "reloaded" in log.read_text())
            assert shown(port) != first
        finally:
            process.kill()


# --- what goes through it ----------------------------------------------------------------------------


def test_a_handshake_that_does_not_end(start_tls_proxy, tls_postgres, certificates):
    """The time limit of logins holds, and no error comes in clear."""
    proxy = start_tls_proxy(postgres=tls_postgres, client=to_clients(certificates),
                            config="[limits]\nclient_login_timeout = 0.5\n")
    with connect(proxy.postgres_port) as sock:
        sock.sendall(SSL_REQUEST)
        assert sock.recv(1) == b"S"
        sock.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert to_the_end(sock) == b""
    with asked(proxy.postgres_port, certificates) as sock:
        assert b"login took too long" in to_the_end(sock)
    wait_for(lambda: proxy.clients() == 0, what="the end of both")


@pytest.mark.parametrize("server", ["off", "require"])
def test_much_both_ways_and_a_reader_that_pauses(tls_proxies, certificates, server):
    proxy = tls_proxies("tls", server)
    rows = 400
    text = os.urandom(16384).hex()
    process = psutil.Process(proxy.process.pid)
    with psycopg.connect(f"host=127.0.0.1 port={proxy.postgres_port} user=postgres dbname=postgres sslmode=require",
                         autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE much (v text)")
        with connection.cursor() as cursor, cursor.copy("COPY much FROM STDIN") as copy:
            for _ in range(rows):
                copy.write(text + "\n")
        # a result that is not read holds the server up, and not the proxy's memory
        with asked(proxy.postgres_port, certificates) as sock:
            sock.sendall(STARTUP)
            until_ready(sock)
            size = 60_000_000
            before = process.memory_info().rss
            sql = f"SELECT repeat('x', {size // 30}) FROM generate_series(1, 30)".encode()
            sock.sendall(b"Q" + struct.pack("!I", len(sql) + 5) + sql + b"\0")
            assert sock.recv(1)
            assert connection.execute("SELECT count(*), sum(length(v)) FROM much").fetchone() == (
                rows, rows * len(text))
            assert process.memory_info().rss - before < 16_000_000
            got = 1
            while got < size:
                got += len(sock.recv(1 << 20))
        found = connection.execute("SELECT DISTINCT v FROM much").fetchall()
    assert found == [(text,)]


def test_pipelined_statements_of_many_records(tls_proxies, certificates):
    with psycopg.connect(f"host=127.0.0.1 port={tls_proxies('tls', 'require').postgres_port} user=postgres "
                         "dbname=postgres sslmode=require", autocommit=True) as connection:
        with connection.pipeline():
            answers = [connection.execute("SELECT %s::int, repeat('y', %s)", [n, n * 40]) for n in range(600)]
        assert [(a, len(b)) for a, b in (c.fetchone() for c in answers)] == [(n, n * 40) for n in range(600)]


@pytest.mark.parametrize("server", ["off", "require"])
def test_change_user(tls_proxies, certificates, server):
    import mysql.connector
    connection = mysql.connector.connect(
        host="127.0.0.1", port=tls_proxies("tls", server).mariadb_port, user="root", database="d", use_pure=True,
        ssl_ca=certificates.ca, ssl_verify_cert=True)
    with connection.cursor() as cursor:
        for user, password in (("u_native", PASSWORD), ("root", "")):
            connection.cmd_change_user(user, password, "d")
            cursor.execute("SELECT SUBSTRING_INDEX(USER(), '@', 1), DATABASE()")
            assert cursor.fetchall() == [(user, "d")]
        with pytest.raises(mysql.connector.Error) as e:
            connection.cmd_change_user("u_native", "wrong", "d")
        assert e.value.errno == 1045
    connection.close()


@pytest.mark.parametrize("server", ["off", "require"])
def test_both_sides_say_that_they_close(tls_proxies, certificates, server):
    """close_notify comes before the end of the connection: an end without one would be an SSLEOFError here."""
    with asked(tls_proxies("tls", server).postgres_port, certificates) as sock:
        sock.sendall(STARTUP)
        until_ready(sock)
        sock.sendall(b"X\0\0\0\4")
        assert sock.recv(1) == b""
    with asked(tls_proxies("tls", server).postgres_port, certificates) as sock:
        sock.sendall(STARTUP)
        until_ready(sock)
        sock.unwrap()                   # the client's close_notify is answered by the proxy's


@pytest.mark.parametrize("server", ["off", "verify-full"])
def test_cancel_requests_through_tls(tls_proxies, certificates, server):
    """libpq 17 cancels through TLS, the old way is in clear; to the server it goes as the proxy's connections do."""
    proxy = tls_proxies("tls", server)
    with psycopg.connect(f"host=127.0.0.1 port={proxy.postgres_port} user=postgres dbname=postgres sslmode=verify-full "
                         f"sslrootcert={certificates.ca}", autocommit=True) as connection:
        for cancel in (connection.cancel_safe, connection.cancel):
            timer = threading.Timer(0.2, cancel)
            timer.start()
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute("SELECT pg_sleep(60)")
            timer.join()


def test_replication_connections(tls_proxies, certificates):
    """They are relayed without a look once they are logged in, and not before."""
    port = tls_proxies("tls", "require").postgres_port
    with psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=require "
                         "replication=database", autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        assert connection.execute("IDENTIFY_SYSTEM").fetchone()[3] == "postgres"
    with pytest.raises(psycopg.OperationalError, match="channel binding cannot be relayed"):
        psycopg.connect(f"host=127.0.0.1 port={port} user=u_scram password={PASSWORD} dbname=postgres sslmode=require "
                        "replication=database")


def test_clients_that_vanish(start_tls_proxy, tls_postgres, tls_mariadb, certificates):
    """Clients that vanish in the midst of a handshake, or behind it, leave nothing."""
    proxy = start_tls_proxy(postgres=tls_postgres, mariadb=tls_mariadb, client=to_clients(certificates),
                            server=to_servers(certificates, "require"))
    for _ in range(5):
        with connect(proxy.postgres_port) as sock:
            sock.sendall(SSL_REQUEST)
            assert sock.recv(1) == b"S"
            sock.sendall(b"\x16\x03\x01")
        with asked(proxy.postgres_port, certificates):
            pass
        with connect(proxy.mariadb_port) as sock:
            assert sock.recv(4096)[4] == 10
            sock.sendall(MY_SSL_REQUEST)
    wait_for(lambda: proxy.clients() == 0, what="the end of all")
    assert proxy.metric("tqdbproxy_tls_connections") == 0


def test_handshakes_of_garbage(start_tls_proxy, tls_postgres, tls_mariadb, certificates):
    """Hellos with bytes changed, cut and repeated: the connection ends, or goes on; nothing else happens."""
    proxy = start_tls_proxy(postgres=tls_postgres, mariadb=tls_mariadb, client=to_clients(certificates))
    outgoing = ssl.MemoryBIO()
    tls = certificates.context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    chance = random.Random(1)
    for n in range(300):
        data = bytearray(hello)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        data = bytes(data[:chance.randrange(len(data) + 1)]) + chance.randbytes(chance.randrange(40))
        with connect(proxy.mariadb_port if n % 3 == 0 else proxy.postgres_port) as sock:
            if n % 3 == 0:
                assert sock.recv(4096)[4] == 10
                sock.sendall(MY_SSL_REQUEST)
            elif n % 3 == 1:
                sock.sendall(SSL_REQUEST)
                assert sock.recv(1) == b"S"
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            answer = to_the_end(sock)
            assert answer[:1] in (b"", b"\x15", b"\x16") or (n % 3 == 2 and answer[:1] == b"E"), answer
    wait_for(lambda: proxy.clients() == 0, what="the end of all")
    assert proxy.metric("tqdbproxy_internal_errors_total") == 0
    with psycopg.connect(f"host=127.0.0.1 port={proxy.postgres_port} user=postgres dbname=postgres sslmode=require"):
        pass
