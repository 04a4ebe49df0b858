"""The PROXY protocol: headers as bytes, in front of sessions without sockets, from HAProxy, and to a MariaDB server."""

import random
import shutil
import socket
import struct
import subprocess

import psycopg
import pymysql
import pytest
from tqdb._core import MySession, PgSession, make_proxy_header, read_proxy_header

from tests.fix_tls import PASSWORD, give
from tests.sansio import Hooks
from tests.wait import wait_for
from tests.wire import GREETING, HANDSHAKE, PG_LOGIN, STARTUP, my
from tqdb.load.servers import MariaDB, free_port, which

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FOUR = (("192.0.2.7", 1025), ("198.51.100.1", 5432))
SIX = (("2001:db8::7", 65535), ("::1", 0))


def two(command: int, family: int, body: bytes = b"", length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


FOUR_BODY = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 1025, 5432)
SIX_BODY = (socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "::1")
            + struct.pack("!HH", 65535, 0))
TLVS = b"\x04\0\1\0" + b"\x20\0\5\1\0\0\0\0" + b"\xee\0\x80" + b"x" * 128

GOOD = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 1025 5432\r\n", FOUR),
    (b"PROXY TCP6 2001:db8::7 ::1 65535 0\r\n", SIX),
    (b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
     (("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),) * 2),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff anything 65535 65535\r\n", None),
    (two(0x21, 0x11, FOUR_BODY), FOUR),
    (two(0x21, 0x21, SIX_BODY), SIX),
    (two(0x21, 0x11, FOUR_BODY + TLVS), FOUR),
    (two(0x21, 0x31, b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")), None),
    (two(0x20, 0x00), None),
    (two(0x20, 0x11, FOUR_BODY), None),
    (two(0x20, 0xff, b"whatever"), None),
    (two(0x21, 0x00, TLVS), None),
    (two(0x21, 0x00, b"x" * 4096), None),
]
BAD = [
    b"GET / HTTP/1.1\r\n", b"PROXY\r\n", b"proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n", STARTUP, b"\x16\x03\x01\0\0",
    b"PROXY \r\n", b"PROXY TCP4\r\n", b"PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n", b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 1  2\r\n", b"PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n", b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 2\r\n",
    "PROXY TCP4 192.0.2.7 198.51.100.1 \u0661 2\r\n".encode(), b"PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n", b"PROXY TCP4 ::1 ::2 1 2\r\n", b"PROXY TCP6 1.2.3.4 ::2 1 2\r\n",
    b"PROXY TCP4 \xff 198.51.100.1 1 2\r\n", b"PROXY TCP6 fe80::1%a;b ::2 1 2\r\n",
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", b"PROXY " + b"x" * 200,
    SIGNATURE[:-1] + b"x", two(0x11, 0x11, FOUR_BODY), two(0x31, 0x11, FOUR_BODY), two(0x22, 0x11, FOUR_BODY),
    two(0x21, 0x12, FOUR_BODY), two(0x21, 0x10, FOUR_BODY), two(0x21, 0x41, SIX_BODY), two(0x21, 0x11, FOUR_BODY[:-1]),
    two(0x21, 0x21, FOUR_BODY), two(0x21, 0x31, FOUR_BODY), two(0x21, 0x00, b"", 4097), two(0x21, 0x11, b"", 0xffff),
]


# --- bytes ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("header", "origin"), GOOD)
def test_a_header_is_read_as_soon_as_it_is_whole(header, origin):
    for n in range(len(header)):
        assert read_proxy_header(header[:n]) is None
    assert read_proxy_header(header) == (len(header), origin)
    assert read_proxy_header(header + STARTUP) == (len(header), origin)


@pytest.mark.parametrize("header", BAD)
def test_what_is_no_header_is_refused_and_never_waited_for(header):
    """However it comes: more of it would not make it one."""
    with pytest.raises(ValueError):
        read_proxy_header(header)
    refused = False
    for n in range(len(header)):
        try:
            assert read_proxy_header(header[:n]) is None and not refused
        except ValueError:
            refused = True


def test_hostile_headers():
    """Good ones with bytes changed, cut and doubled: read or refused, and what is read is an address."""
    rng = random.Random(14)
    refused = read = 0
    for _ in range(20_000):
        data = bytearray(rng.choice(GOOD)[0])
        for _ in range(rng.randrange(4)):
            byte = rng.choice((0, 10, 13, 32, 0x11, 0x21, 0x31, 0x7f, 0xff, rng.randrange(256)))
            data[rng.randrange(len(data))] = byte
        if rng.randrange(4) == 0:
            at = rng.randrange(len(data))
            data[at:at] = data[:rng.randrange(40)]
        try:
            found = read_proxy_header(bytes(data))
        except ValueError:
            refused += 1
            continue
        if found is not None:
            read += 1
            assert 0 < found[0] <= len(data)
            if found[1] is not None:
                make_proxy_header("v1", found[1])
        else:
            assert len(data) < 16 + 4096
    assert refused > 1000 and read > 1000


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("origin", [FOUR, SIX, None])
def test_what_is_sent_is_what_is_read(version, origin):
    header = make_proxy_header(version, origin)
    assert read_proxy_header(header) == (len(header), origin)


def test_addresses_of_two_kinds():
    """A listener on [::] sees IPv4 clients as mapped addresses; a link-local one has a zone."""
    assert make_proxy_header("v1", (("::ffff:192.0.2.7", 1), ("::ffff:192.0.2.8", 2))) == (
        b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n")
    assert make_proxy_header("v1", (("192.0.2.7", 1), ("fe80::1%eth0", 2))).startswith(b"PROXY TCP6 ::ffff:")


# --- sessions without sockets ---------------------------------------------------------------------------------

@pytest.mark.parametrize(("header", "origin"), GOOD)
def test_a_session_begins_behind_it(header, origin):
    for split in range(1, len(header) + 8, max(1, len(header) // 300)):
        hooks = Hooks()
        session = PgSession(hooks.engine)
        session.announced = True
        session.peer = "balancer"
        data = header + STARTUP
        session.receive(data[:split])
        session.receive(data[split:])
        assert session.origin == origin
        assert session.peer == ("balancer" if origin is None else f"{origin[0][0]}:{origin[0][1]}")
        assert hooks.server.take_out() == STARTUP
        hooks.server.receive(PG_LOGIN)
        assert session.logged_in


def test_a_mariadb_session_reaches_its_server_behind_it():
    hooks = Hooks()
    session = MySession(hooks.engine)
    session.announced = True
    session.receive(GOOD[0][0][:-1])
    assert hooks.server is None
    session.receive(GOOD[0][0][-1:])
    hooks.server.receive(my(0, GREETING))
    assert session.origin == FOUR and session.take_out()


@pytest.mark.parametrize("early", [True, False])
def test_a_server_that_turns_a_client_away(early):
    """It knows by the header, before the login: its error is the answer to that and numbered so."""
    error = b"\xff\x6a\x04Host '192.0.2.7' is not allowed"
    hooks = Hooks()
    session = MySession(hooks.engine)
    hooks.connect(session)
    hooks.server.introduce(make_proxy_header("v2", FOUR))
    hooks.server.receive(my(0, GREETING))
    session.take_out()
    for receiver, data in [(hooks.server, my(1, error)), (session, my(1, HANDSHAKE))][::1 if early else -1]:
        receiver.receive(data)
    if early:
        hooks.server.receive_eof()
    assert session.take_out() == my(2, error) and session.closing


@pytest.mark.parametrize("header", BAD)
@pytest.mark.parametrize("kind", [PgSession, MySession])
def test_a_session_without_a_header_is_refused(header, kind):
    hooks = Hooks()
    session = kind(hooks.engine)
    session.announced = True
    session.receive(header)
    said = session.take_out()
    assert b"PROXY protocol: " in said and (b"08P01" in said or said[4:7] == b"\xff\x13\x04")
    assert session.closing and hooks.server is None


# --- over sockets ---------------------------------------------------------------------------------------------

def of(proxy, protocol: str) -> int:
    return proxy.postgres_port if protocol == "postgres" else proxy.mariadb_port


@pytest.fixture
def log_of(start_proxy, postgres):
    """``log_of(accept_proxy, header)``: what becomes of a client behind ``header``, and the log."""
    def come(accept: str, header: bytes) -> tuple[bytes, str]:
        proxy = start_proxy(postgres=postgres)
        with open(proxy.path, encoding="utf-8") as f:
            text = f.read()
        with open(proxy.path, "w", encoding="utf-8") as f:
            f.write(text.replace("[postgres.main]", f"accept_proxy = {accept}\n[postgres.main]"))
        proxy.process.send_signal(1)
        wait_for(lambda: "reloaded" in proxy.log())
        with socket.create_connection(("127.0.0.1", proxy.postgres_port), timeout=20) as sock:
            sock.sendall(header + b"\0\0\0\x08\0\2\0\0")        # protocol 2.0: refused, which is logged
            said = b""
            while data := sock.recv(1000):
                said += data
        wait_for(lambda: "ended:" in proxy.log())
        return said, proxy.log()
    return come


@pytest.mark.parametrize("header", [GOOD[0][0], GOOD[7][0]])
def test_the_log_has_the_clients_address(log_of, header):
    said, log = log_of("require", header)
    assert b"0A000" in said and "session of 192.0.2.7:1025 ended" in log


def test_networks_that_a_header_is_needed_from(log_of):
    said, _ = log_of("10.0.0.0/8, 127.0.0.0/8", b"")
    assert b"PROXY protocol: a header is needed" in said
    said, log = log_of("10.0.0.0/8, fd00::/8", b"")
    assert b"0A000" in said and "session of 127.0.0.1:" in log
    # and from nobody else it is taken: whoever comes directly could say what he likes
    said, log = log_of("10.0.0.0/8", GOOD[0][0])
    assert b"invalid length of startup packet" in said and "192.0.2.7" not in log


def test_a_header_that_does_not_come(start_proxy, postgres, mariadb):
    """Neither does it hold a server connection meanwhile."""
    proxy = start_proxy(postgres=postgres, mariadb=mariadb, config="[limits]\nclient_login_timeout = 1\n")
    with open(proxy.path, encoding="utf-8") as f:
        text = f.read()
    with open(proxy.path, "w", encoding="utf-8") as f:
        f.write(text.replace("[mariadb.main]", "accept_proxy = require\n[mariadb.main]"))
    proxy.process.send_signal(1)
    wait_for(lambda: "reloaded" in proxy.log())
    with socket.create_connection(("127.0.0.1", proxy.mariadb_port), timeout=20) as sock:
        sock.sendall(b"PROXY TCP4")
        assert not proxy.stats()["server_connections"] or all(
            c["count"] == 0 for c in proxy.stats()["server_connections"])
        assert sock.recv(1000)[4:7] == b"\xff\x87\x04"      # 1159


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
def test_behind_haproxy(start_proxy, postgres, mariadb, tmp_path, version):
    program = which("haproxy", "/usr/sbin", "/usr/local/sbin") or shutil.which("haproxy")
    if program is None:
        pytest.skip("haproxy is not installed (scripts/ensure-system tools)")
    proxy = start_proxy(postgres=postgres, mariadb=mariadb)
    with open(proxy.path, encoding="utf-8") as f:
        text = f.read()
    for name in ("postgres", "mariadb"):
        text = text.replace(f"[{name}.main]", f"accept_proxy = 127.0.0.1/32\n[{name}.main]")
    with open(proxy.path, "w", encoding="utf-8") as f:
        f.write(text)
    proxy.process.send_signal(1)
    wait_for(lambda: "reloaded" in proxy.log())
    ports = {"postgres": free_port(), "mariadb": free_port()}
    config = "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
    for name, port in ports.items():
        config += (f"frontend {name}\n  bind 127.0.0.1:{port}\n  default_backend to_{name}\n"
                   f"backend to_{name}\n  server s 127.0.0.1:{of(proxy, name)} {version} check\n")
    (tmp_path / "haproxy.cfg").write_text(config)
    balancer = subprocess.Popen([program, "-f", str(tmp_path / "haproxy.cfg"), "-db"], stderr=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", ports["mariadb"])) == 0)
        with psycopg.connect(postgres.dsn(ports["postgres"])) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        with mariadb.connect(ports["mariadb"]) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)
        # the client's own address, which is not the balancer's
        with socket.socket() as sock:
            sock.bind(("127.0.0.9", 0))
            sock.connect(("127.0.0.1", ports["postgres"]))
            sock.sendall(b"\0\0\0\x08\0\2\0\0")
            assert b"0A000" in sock.recv(1000)
            wait_for(lambda: f"session of 127.0.0.9:{sock.getsockname()[1]} ended" in proxy.log(), what=proxy.log)
        # past the balancer a header is needed
        with pytest.raises(psycopg.OperationalError, match="PROXY protocol"):
            psycopg.connect(postgres.dsn(proxy.postgres_port) + " sslmode=disable")
        # the Unix socket is nobody's but this machine's
        with mariadb.connect(None, unix_socket=f"{proxy.directory}/mariadb.sock") as connection:
            assert connection.open
    finally:
        balancer.terminate()
        balancer.wait(20)


# --- to a server ----------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def bound(certificates):
    """A MariaDB server whose accounts are bound to addresses, and which takes headers from 127.0.0.1 only."""
    with MariaDB(proxy_protocol_networks="127.0.0.1/32", max_connections="200") as server:
        cert, key, ca = give(server, (*certificates.server, certificates.ca))
        server.settings |= {"ssl_cert": cert, "ssl_key": key, "ssl_ca": ca}
        server.start()
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE d")
            cursor.execute("CREATE TABLE d.t (k int PRIMARY KEY, who varchar(100))")
            for host in ("127.0.0.2", "127.0.0.3"):
                cursor.execute(f"CREATE USER 'app'@'{host}' IDENTIFIED BY '{PASSWORD}'")
                cursor.execute(f"GRANT ALL ON d.* TO 'app'@'{host}'")
        yield server


def come(proxy, host: str, **more):
    return pymysql.connect(host="127.0.0.1", port=proxy.mariadb_port, user="app", password=PASSWORD, database="d",
                           bind_address=host, autocommit=True, **more)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("tls", ["off", "require"])
def test_accounts_bound_to_addresses(start_proxy, bound, version, tls):
    text = f"[mariadb]\nlisten = 127.0.0.1:{{}}\n[mariadb.main]\nprimary = {bound.address}\ntls = {tls}\n"
    port = free_port()
    proxy = start_proxy(config=text.format(port) + f"send_proxy = {version}\n")
    proxy.mariadb_port = port
    for host in ("127.0.0.2", "127.0.0.3"):
        with come(proxy, host) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT USER(), CURRENT_USER(), @@session.proxy_user")
            assert cursor.fetchone() == (f"app@{host}", f"app@{host}", None)
            cursor.execute("SHOW STATUS LIKE 'Ssl_version'")
            assert bool(cursor.fetchone()[1]) == (tls == "require")
    with pytest.raises(pymysql.OperationalError) as e:
        come(proxy, "127.0.0.4")
    assert e.value.args[0] == 1130 and "127.0.0.4" in e.value.args[1]
    # without it the server sees the proxy, which nobody has an account for
    proxy = start_proxy(config=text.format(port := free_port()))
    proxy.mariadb_port = port
    with pytest.raises(pymysql.OperationalError) as e:
        come(proxy, "127.0.0.2")
    assert e.value.args[0] in (1045, 1130) and "127.0.0.4" not in e.value.args[1]


def test_what_a_balancer_says_goes_on_to_the_server(start_proxy, bound):
    """HAProxy, this proxy, MariaDB: the account is that of the client's address. Accounts do not mix in a batch."""
    port = free_port()
    start_proxy(config=f"[mariadb]\nlisten = 127.0.0.1:{port}\naccept_proxy = require\n[mariadb.main]\n"
                       f"primary = {bound.address}\nsend_proxy = v2\n")

    class Announced:
        """PyMySQL with a header in front."""
        def __init__(self, host: str):
            sock = socket.create_connection(("127.0.0.1", port), timeout=30)
            sock.sendall(make_proxy_header("v1", ((host, 1234), ("127.0.0.1", port))))
            self.connection = pymysql.connect(user="app", password=PASSWORD, database="d", autocommit=True,
                                              defer_connect=True)
            self.connection.connect(sock)

    people = [Announced(host) for host in ("127.0.0.2", "127.0.0.3", "127.0.0.2")]
    for k, one in enumerate(people):
        with one.connection.cursor() as cursor:
            cursor.execute(f"/* max_wait_ms=5 */ INSERT INTO t VALUES ({k}, CURRENT_USER())")
            cursor.execute("SELECT who FROM t WHERE k = %s", [k])
            assert cursor.fetchone() == (f"app@{('127.0.0.2', '127.0.0.3', '127.0.0.2')[k]}",)
        one.connection.close()
