"""TLS to servers: what is asked of them, what is verified, and what is never sent."""

import shutil
import signal
import socket
import struct
import subprocess
import threading
from types import SimpleNamespace

import psycopg
import pymysql
import pytest

from tests.fix_servers import tqdb_command
from tests.fix_tls import PASSWORD, TlsMariaDB, TlsPostgres, give, to_clients, to_servers
from tests.raw_tls import asked, connect, to_the_end
from tests.wait import wait_for
from tests.wire import my, pg, pg_startup

HANDSHAKE = (b"\x0a10.11.0-MariaDB\0" + b"\1\0\0\0" + b"abcdefgh\0" + (0xFFFE).to_bytes(2, "little") + b"\x2d"
             + b"\2\0" + (0x81FF).to_bytes(2, "little") + b"\x15" + bytes(10)
             + b"ijklmnopqrst\0mysql_native_password\0")


def pg_come(proxy) -> str:
    """``ok``, or what libpq is told."""
    try:
        psycopg.connect(f"host=127.0.0.1 port={proxy.postgres_port} user=postgres dbname=postgres "
                        "sslmode=disable").close()
    except psycopg.OperationalError as e:
        return str(e)
    return "ok"


def my_come(proxy) -> str:
    try:
        pymysql.connect(host="127.0.0.1", port=proxy.mariadb_port, user="root", ssl_disabled=True).close()
    except pymysql.OperationalError as e:
        return str(e)
    return "ok"


# --- what is asked of them ---------------------------------------------------------------------------


def test_servers_without_tls(start_tls_proxy, postgres, mariadb, certificates):
    """``prefer`` takes them as they are, and nothing else does. The MariaDB here is 10.11, which has none by itself."""
    prefer = start_tls_proxy(postgres=postgres, mariadb=mariadb, server={"tls": "prefer"})
    assert pg_come(prefer) == my_come(prefer) == "ok"
    for mode in ("require", "verify-ca", "verify-full"):
        proxy = start_tls_proxy(postgres=postgres, mariadb=mariadb, server=to_servers(certificates, mode))
        assert "the server does not offer TLS" in pg_come(proxy)
        assert "2003" in my_come(proxy) and "does not offer TLS" in my_come(proxy)


def test_prefer_takes_tls_where_it_is(start_tls_proxy, tls_postgres, tls_mariadb):
    proxy = start_tls_proxy(postgres=tls_postgres, mariadb=tls_mariadb, server={"tls": "prefer"})
    with (psycopg.connect(f"host=127.0.0.1 port={proxy.postgres_port} user=u_tls dbname=postgres") as pg_connection,
          pymysql.connect(host="127.0.0.1", port=proxy.mariadb_port, user="u_tls", password=PASSWORD,
                          ssl_disabled=True) as connection):
        assert pg_connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() == (True,)
        with connection.cursor() as cursor:
            cursor.execute("SHOW STATUS LIKE 'Ssl_version'")
            assert cursor.fetchone()[1] == "TLSv1.3"


def test_a_server_that_insists(start_tls_proxy, tls_postgres):
    proxy = start_tls_proxy(postgres=tls_postgres)
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(f"host=127.0.0.1 port={proxy.postgres_port} user=u_tls dbname=postgres")


# --- what is verified --------------------------------------------------------------------------------

WRONG = {"expired": {"require": "ok", "verify-ca": "certificate has expired", "verify-full": "certificate has expired"},
         "misnamed": {"require": "ok", "verify-ca": "ok", "verify-full": "IP address mismatch"},
         "server": {"verify-ca": "self-signed certificate in certificate chain", "require": "ok"}}


@pytest.fixture(scope="module")
def wrong_servers(certificates):
    """By name of the certificate that they show: ``(postgres, mariadb)``."""
    made = {}
    for name in WRONG:
        pair = TlsPostgres(certificates), TlsMariaDB(certificates)
        for server, prefix in zip(pair, ("ssl_cert_file", "ssl_cert"), strict=True):
            cert, key = give(server, getattr(certificates, name))
            server.settings |= {prefix: cert, prefix.replace("cert", "key"): key}
            server.start()
        made[name] = pair
    yield made
    for pair in made.values():
        for server in pair:
            server.stop()


@pytest.mark.parametrize("name, mode", [(name, mode) for name, modes in WRONG.items() for mode in modes])
def test_wrong_certificates(start_tls_proxy, wrong_servers, certificates, name, mode):
    ca = certificates.stranger.path if name == "server" else certificates.ca
    proxy = start_tls_proxy(postgres=wrong_servers[name][0], mariadb=wrong_servers[name][1],
                            server={"tls": mode, "tls_ca": ca})
    expected = WRONG[name][mode]
    for said in (pg_come(proxy), my_come(proxy)):
        if expected == "ok":
            assert said == "ok"
        else:
            assert "certificate verify failed" in said and expected in said
            assert "could not connect to server" in said
    done = subprocess.run([*tqdb_command(), "check", "-c", proxy.path], capture_output=True, text=True, timeout=60)
    assert done.returncode == (0 if expected == "ok" else 1)
    assert ("FAILED" in done.stdout) == (expected != "ok")
    if expected == "ok":
        verified = {"require": "nothing", "verify-ca": "certificate"}[mode]
        assert done.stdout.count(f"TLSv1.3, {verified} verified") == 2


def test_the_systems_authorities_do_not_know_ours(start_tls_proxy, tls_postgres):
    proxy = start_tls_proxy(postgres=tls_postgres, server={"tls": "verify-full"})
    assert "certificate verify failed: self-signed certificate" in pg_come(proxy)


def test_names_are_told_and_verified(start_tls_proxy, tls_postgres, tls_mariadb, certificates):
    for server in (tls_postgres, tls_mariadb):
        kind = "postgres" if server is tls_postgres else "mariadb"
        named = SimpleNamespace(address=f"localhost:{server.port}")
        proxy = start_tls_proxy(**{kind: named}, server=to_servers(certificates, "verify-full"))
        assert (pg_come if kind == "postgres" else my_come)(proxy) == "ok"
        done = subprocess.run([*tqdb_command(), "check", "-c", proxy.path], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "certificate and name verified" in done.stdout


def test_a_reload_changes_what_new_connections_ask_for(start_tls_proxy, tls_postgres, certificates):
    proxy = start_tls_proxy(postgres=tls_postgres, server=to_servers(certificates, "verify-full"))
    with psycopg.connect(f"host=127.0.0.1 port={proxy.postgres_port} user=u_tls dbname=postgres",
                         autocommit=True) as old:
        proxy.write({}, {"tls": "verify-full", "tls_ca": certificates.stranger.path})
        proxy.tell(signal.SIGHUP)
        wait_for(lambda: "reloaded" in proxy.log())
        assert "certificate verify failed" in pg_come(proxy)
        assert old.execute("SELECT 1").fetchone() == (1,)
        proxy.write({}, {"tls": "verify-full", "tls_ca": "/nonexistent"})
        proxy.tell(signal.SIGHUP)
        wait_for(lambda: "'/nonexistent' cannot be read" in proxy.log())
        assert "certificate verify failed" in pg_come(proxy)
        proxy.write({}, {"tls": "off"})
        proxy.tell(signal.SIGHUP)
        wait_for(lambda: proxy.log().count("reloaded") == 2)
        assert pg_come(proxy) == "ok"


def test_a_certificate_that_the_server_does_not_know(start_tls_proxy, tls_postgres, tls_mariadb, certificates):
    """With TLS 1.3 the server says so when the handshake is over for the proxy."""
    cert, key = certificates.strange
    proxy = start_tls_proxy(postgres=tls_postgres, mariadb=tls_mariadb,
                            server=to_servers(certificates, "verify-full", tls_cert=cert, tls_key=key))
    for said in (pg_come(proxy), my_come(proxy)):
        assert "could not connect to server" in said and "TLS failed" in said and "unknown ca" in said


# --- servers that are none of ours -------------------------------------------------------------------


@pytest.fixture
def stand_in():
    """``stand_in(play)``: somebody on the way who answers each connection by ``play(sock, heard)``."""
    listeners = []

    def make(play):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        found = SimpleNamespace(address=f"127.0.0.1:{listener.getsockname()[1]}", heard=[])

        def serve():
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    sock.settimeout(10)
                    try:
                        play(sock, found.heard)
                        while part := sock.recv(65536):
                            found.heard.append(part)
                    except OSError:
                        pass

        threading.Thread(target=serve, daemon=True).start()
        return found

    yield make
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize("answer", [b"S" + pg(b"R", b"\0\0\0\0"), pg(b"E", b"SFATAL\0C57P03\0Mlies\0\0"), b"X", b""])
@pytest.mark.parametrize("mode", ["prefer", "require"])
def test_what_came_in_clear_behind_postgres_answer_is_refused(start_tls_proxy, stand_in, answer, mode):
    """CVE-2021-23222's kind, and errors that nobody has vouched for."""
    def play(sock, heard):
        heard.append(sock.recv(8))
        sock.sendall(answer)
        sock.shutdown(socket.SHUT_WR)

    server = stand_in(play)
    said = pg_come(start_tls_proxy(postgres=server, server={"tls": mode}))
    assert "did not answer the request for TLS as it should" in said or (not answer and "closed the connection" in said)
    assert "lies" not in said and all(b"user" not in part for part in server.heard)


def test_what_came_in_clear_behind_mariadbs_greeting_is_refused(start_tls_proxy, stand_in):
    """An OK behind the greeting, whole or in part, would be taken for the answer to the login."""
    for behind in (my(2, b"\0\0\0\2\0\0\0"), my(2, b"\0\0\0\2\0\0\0")[:6]):
        def play(sock, heard, behind=behind):
            sock.sendall(my(0, HANDSHAKE) + behind)

        server = stand_in(play)
        assert my_come(start_tls_proxy(mariadb=server, server={"tls": "prefer"})) != "ok"
        assert all(b"root" not in part for part in server.heard)


@pytest.mark.parametrize("protocol", ["postgres", "mariadb"])
def test_a_handshake_that_does_not_end(start_tls_proxy, stand_in, protocol):
    def play(sock, heard):
        sock.sendall(my(0, HANDSHAKE) if protocol == "mariadb" else b"")
        heard.append(sock.recv(8))
        sock.sendall(b"S" if protocol == "postgres" else b"")

    proxy = start_tls_proxy(**{protocol: stand_in(play)}, server={"tls": "require"},
                            config="[limits]\nclient_login_timeout = 1\nserver_connect_timeout = 0.5\n")
    said = pg_come(proxy) if protocol == "postgres" else my_come(proxy)
    assert "did not answer the request for TLS" in said or "login took too long" in said


SWITCHES = {
    "switch": my(2, b"\xfemysql_clear_password\0"), "next factor": my(2, b"\x02mysql_clear_password\0"),
    "unknown": my(2, b"\xfedialog\0Password: "), "sha256": my(2, b"\xfesha256_password\0" + b"k" * 20 + b"\0"),
}


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES.keys())
def test_mariadbs_clear_passwords_are_not_sent_on(start_tls_proxy, stand_in, certificates, switch):
    def play(sock, heard):
        sock.sendall(my(0, HANDSHAKE))
        heard.append(sock.recv(65536))
        sock.sendall(switch)

    server = stand_in(play)
    proxy = start_tls_proxy(mariadb=server, client=to_clients(certificates))
    done = subprocess.run([shutil.which("mariadb"), "--no-defaults", "-h127.0.0.1", f"-P{proxy.mariadb_port}", "-uroot",
                           f"-p{PASSWORD}", "--ssl", "-e", "SELECT 1"], capture_output=True, text=True, timeout=60)
    assert "1045 (28000)" in done.stderr and "sent to the server in clear" in done.stderr
    assert server.heard and all(PASSWORD.encode() not in part for part in server.heard)


def test_mariadbs_clear_password_that_nobody_asked_for_is_not_sent_on(start_tls_proxy, stand_in, certificates):
    """A client that sends it with its first packet, or with a COM_CHANGE_USER."""
    def play(sock, heard):
        sock.sendall(my(0, HANDSHAKE))
        heard.append(sock.recv(65536))
        sock.sendall(my(2, b"\0\0\0\2\0\0\0"))

    server = stand_in(play)
    proxy = start_tls_proxy(mariadb=server, client=to_clients(certificates))
    head = struct.pack("<IIB23x", 0x0008AA00, 1 << 24, 45) + b"root\0"
    secret = bytes((len(PASSWORD),)) + PASSWORD.encode()
    for login, command in ((secret + b"mysql_clear_password\0", b""),
                           (b"\0mysql_native_password\0",
                            my(0, b"\x11root\0" + secret + b"\0\x2d\0mysql_clear_password\0"))):
        with connect(proxy.mariadb_port) as sock:
            assert sock.recv(4096)[4] == 10
            sock.sendall(my(1, head[:32]))
            with certificates.context().wrap_socket(sock, server_hostname="127.0.0.1") as secure:
                secure.sendall(my(2, head + login))
                if command:
                    assert secure.recv(4096) == my(3, b"\0\0\0\2\0\0\0")
                    secure.sendall(command)
                said = to_the_end(secure)
        assert b"\xff\x15\x04#28000" in said and b"sent to the server in clear" in said
    assert all(PASSWORD.encode() not in part for part in server.heard)


@pytest.mark.parametrize("client", ["tls", "plain"])
def test_caching_sha2_password(start_tls_proxy, stand_in, certificates, client):
    """Its short way is relayed; the password itself, which a client sends through TLS only, is not sent on in clear."""
    def play(sock, heard):
        sock.sendall(my(0, HANDSHAKE.replace(b"mysql_native_password", b"caching_sha2_password")))
        heard.append(sock.recv(65536))
        sock.sendall(my(2, b"\1\4"))
        heard.append(sock.recv(65536))
        sock.sendall(my(4, b"\xff\x15\x04#28000no"))

    server = stand_in(play)
    proxy = start_tls_proxy(mariadb=server, client=to_clients(certificates))
    secure = {"ssl": certificates.context()} if client == "tls" else {"ssl_disabled": True}
    with pytest.raises((pymysql.Error, RuntimeError)) as e:
        pymysql.connect(host="127.0.0.1", port=proxy.mariadb_port, user="root", password=PASSWORD, **secure)
    assert ("sent to the server in clear" in str(e.value)) == (client == "tls")
    assert all(PASSWORD.encode() not in part for part in server.heard)


@pytest.mark.parametrize("asks, mechanism", [
    (b"", b""), (pg(b"R", b"\0\0\0\3"), b""), (pg(b"R", b"\0\0\0\x0aOAUTHBEARER\0\0"), b"OAUTHBEARER\0"),
    (pg(b"R", b"\0\0\0\x0aSCRAM-SHA-256\0OAUTHBEARER\0\0"), b"OAUTHBEARER\0")])
def test_postgres_clear_secrets_are_not_sent_on(start_tls_proxy, stand_in, certificates, asks, mechanism):
    """Nor what a client sends that nobody asked for, nor a bearer's token."""
    def play(sock, heard):
        heard.append(sock.recv(65536))
        sock.sendall(asks)

    server = stand_in(play)
    proxy = start_tls_proxy(postgres=server, client=to_clients(certificates))
    with asked(proxy.postgres_port, certificates) as sock:
        sock.sendall(pg_startup(user="postgres"))
        wait_for(lambda: server.heard)
        first = sock.recv(65536) if asks else b""
        assert b"OAUTHBEARER" not in first
        if not first.startswith(b"E"):
            sock.sendall(pg(b"p", mechanism + PASSWORD.encode() + b"\0"))
        assert b"C28000\0" in first + to_the_end(sock)
    assert all(PASSWORD.encode() not in part for part in server.heard)
