"""Nonsense on either port ends that connection with the protocol's own error, is counted, and harms nobody else."""

import random
import socket
import struct

import pytest

from tests.raw import RawMariaDB, RawPostgres
from tests.wait import wait_for
from tests.wire import STARTUP


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    return sock


def read_all(sock: socket.socket) -> bytes:
    out = b""
    try:
        while data := sock.recv(65536):
            out += data
    except ConnectionResetError:
        pass
    return out


def errors(proxy, protocol: str) -> float:
    return proxy.metric("tqdbproxy_protocol_errors_total", protocol=protocol)


@pytest.mark.parametrize("data", [
    b"\0\0\0\4", b"\0\0\0\x07" + b"x" * 10, b"\x7f\xff\xff\xff" + b"x" * 10, b"\x80\0\0\0\0\3\0\0",
    b"\xff\xff\xff\xff\0\3\0\0", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", struct.pack("!II", 9, 196608) + b"\0",
    struct.pack("!II", 26, 196608) + b"database\0x\0user\0\0\0", struct.pack("!II", 12, 131072) + b"abcd",
    struct.pack("!II", 12, 80877103) + b"abcd"])
def test_postgres_startup(proxy, data):
    before = errors(proxy, "postgres")
    sock = connect(proxy.postgres_port)
    sock.sendall(data)
    answer = read_all(sock)
    assert answer[:1] == b"E" and b"FATAL" in answer and (b"C08P01\0" in answer or b"C0A000\0" in answer)
    assert errors(proxy, "postgres") == before + 1


@pytest.mark.parametrize("data", [
    b"Q\0\0\0\3", b"Q\x80\0\0\0", b"Q\xff\xff\xff\xff", b"Q\x7f\xff\xff\xff", b"\0\0\0\0\0", b"z\0\0\0\4",
    b"~" * 50, b"B\0\0\0\0"])
def test_postgres_session(proxy, pg, data):
    bystander = pg()
    before = errors(proxy, "postgres")
    session = RawPostgres(proxy.postgres_port)
    session.sock.sendall(data)
    answer = read_all(session.sock)
    assert answer[:1] == b"E" and b"C08P01\0" in answer
    assert errors(proxy, "postgres") == before + 1
    assert bystander.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("data", [
    b"\xff\xff\xff\x01" + b"x" * 50, b"\x01\0\0\x05x", b"\x05\0\0\x01hello", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 9,
    b"\x20\0\0\x01" + b"\0" * 32, b"\x21\0\0\x01" + struct.pack("<I", 512 | 8) + b"\0" * 4 + b"x" * 25])
def test_mariadb_login(proxy, data):
    before = errors(proxy, "mariadb")
    sock = connect(proxy.mariadb_port)
    greeting = sock.recv(4)
    sock.recv(int.from_bytes(greeting[:3], "little"))
    sock.sendall(data)
    answer = read_all(sock)
    assert answer[4:5] == b"\xff" and answer[5:7] == struct.pack("<H", 1043), answer
    assert errors(proxy, "mariadb") == before + 1


@pytest.mark.parametrize("data, code", [(b"\x05\0\0\x07\x03abcd", 1156), (b"\0\0\0\0", 1043)])
def test_mariadb_session(proxy, my, data, code):
    bystander = my().cursor()
    before = errors(proxy, "mariadb")
    session = RawMariaDB(my())
    session.sock.sendall(data)
    assert session.packet()[4:7] == b"\xff" + struct.pack("<H", code)
    assert read_all(session.sock) == b""
    session.connection._force_close()
    assert errors(proxy, "mariadb") == before + 1
    bystander.execute("SELECT 1")
    assert bystander.fetchone() == (1,)


def test_mariadb_unknown_command_is_the_servers_affair(mariadb, proxy, my):
    answers = []
    for through in (False, True):
        session = RawMariaDB(my(through))
        session.sock.sendall(b"\x01\0\0\0\xf0")
        answers.append(session.packet())
        session.query("SELECT 1")
    assert answers[0] == answers[1]


@pytest.mark.parametrize("protocol", ["postgres", "mariadb"])
def test_half_a_packet_and_silence(start_proxy, postgres, mariadb, protocol):
    proxy = start_proxy(postgres=postgres, mariadb=mariadb, config="[limits]\nclient_login_timeout = 0.5\n")
    sock = connect(getattr(proxy, f"{protocol}_port"))
    sock.sendall(STARTUP[:11] if protocol == "postgres" else b"\x40\0\0")
    answer = read_all(sock)                 # ends because the proxy closes it
    assert (b"login took too long" in answer), answer


def test_random_bytes(proxy, postgres, mariadb, pg, my):
    """Thousands of random conversations; the proxy goes on serving."""
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    good_pg, good_my = pg(), my().cursor()
    kept = proxy.clients()
    for _ in range(100):
        for port, start in ((proxy.postgres_port, STARTUP), (proxy.mariadb_port, b"")):
            with connect(port) as sock:
                if rng.random() < 0.5:
                    sock.sendall(start)
                kind = bytes([rng.choice(b"QPBDECSHFXdcfp")]) if rng.random() < 0.5 else b""
                sock.sendall(kind + rng.randbytes(rng.randrange(1, 300)))
    wait_for(lambda: proxy.clients() <= kept, what=f"the end of all connections (seed {seed})")
    assert good_pg.execute("SELECT 1").fetchone() == (1,), seed
    good_my.execute("SELECT 1")
    assert good_my.fetchone() == (1,), seed
