"""What has felled other poolers at the login: the proxy answers as the server does, before and after authentication."""

import socket
import struct

import pytest
from tqdb._core import PgSession

from tests.fix_tls import PASSWORD
from tests.raw import RawPostgres
from tests.sansio import Hooks
from tests.wait import wait_for
from tests.wire import PG_LOGIN, READY, STARTUP, pg, pg_query, pg_split, pg_startup


def startup(body: bytes) -> bytes:
    return struct.pack("!II", len(body) + 8, 196608) + body


def last_words(port: int, *sends: bytes) -> tuple[bytes, bytes]:
    """SQLSTATE and text of the error with which the connection ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        answer = b""
        for data in sends:
            sock.sendall(data)
        try:
            while data := sock.recv(65536):
                answer += data
        except ConnectionResetError:
            pass        # what was sent behind its end was not read
    messages, rest = pg_split(answer)
    kind, body = messages[-1]
    assert kind == b"E" and not rest, answer
    fields = {field[:1]: field[1:] for field in body.split(b"\0") if field}
    assert fields[b"S"] == b"FATAL"
    return fields[b"C"], fields[b"M"]


@pytest.mark.parametrize("body", [
    b"", b"\0user\0postgres\0\0", b"user\0postgres\0\0\0", b"user\0postgres\0\0x\0y\0\0", b"user\0postgres\0",
    b"user\0postgres\0\0user\0nobody\0\0", b"user\0postgres\0options\0", b"user\0postgres\0\0\0\0\0"])
def test_options_that_the_server_reads_otherwise(postgres, proxy, body):
    """An empty name ends them: what stands behind it must not be taken for an option by anybody."""
    direct = last_words(postgres.port, startup(body))
    assert direct[0] == b"08P01"
    assert last_words(proxy.postgres_port, startup(body)) == direct


@pytest.mark.parametrize("second", [STARTUP, pg_startup(user="nobody", database="x"), struct.pack("!II", 8, 80877103)])
@pytest.mark.parametrize("when", ["at once", "logged in"])
def test_a_second_startup_message(postgres, proxy, second, when):
    ends = []
    for port in (postgres.port, proxy.postgres_port):
        if when == "at once":
            ends.append(last_words(port, STARTUP + second))
        else:
            session = RawPostgres(port)
            session.sock.sendall(second)
            message = session.message()
            ends.append((message.split(b"\0C")[1][:5], message.split(b"\0M")[1].split(b"\0")[0]))
            session.close()
    assert ends[0][0] == b"08P01"
    assert ends[1] == ends[0]


@pytest.mark.parametrize("message", [
    b"p\x80\0\0\0", b"p\xff\xff\xff\xff", b"p\x7f\xff\xff\xff", b"p\0\0\0\3", b"p\0\1\0\1", STARTUP,
    b"\xff" * 20, pg(b"p", b"NOT-A-MECHANISM\0\0\0\0\0"), pg(b"p", b""),
    pg(b"p", b"SCRAM-SHA-256\0\x7f\xff\xff\xffn,,"),
    pg(b"p", b"SCRAM-SHA-256\0\xff\xff\xff\xfe"), pg(b"p", b"SCRAM-SHA-256\0\0\0\0\4n,,\0")])
def test_nonsense_while_a_password_is_awaited(start_proxy, tls_postgres, message):
    """It ends that connection, and nobody else's."""
    proxy = start_proxy(postgres=tls_postgres)
    with socket.create_connection(("127.0.0.1", proxy.postgres_port), timeout=20) as sock:
        sock.sendall(pg_startup(user="u_scram", database="postgres"))
        assert sock.recv(1000)[:1] == b"R"
        sock.sendall(message)
        said = b""
        while data := sock.recv(65536):
            said += data
    assert said[:1] == b"E" and b"FATAL" in said and (b"C08P01\0" in said or b"C28P01\0" in said), said
    import psycopg
    with psycopg.connect(f"host=127.0.0.1 port={proxy.postgres_port} user=u_scram password={PASSWORD} dbname=postgres "
                         "sslmode=disable") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    wait_for(lambda: proxy.clients() == 0)
    assert proxy.metric("tqdbproxy_internal_errors_total") == 0


ERRORS = [pg(b"E", body) for body in (b"\0", b"SERROR\0MNo SQLSTATE\0\0", b"SERROR\0VERROR\0C\0M\0\0", b"", b"SERROR",
                                      b"C\0\0", b"\xff\xff\xff")]


WITHOUT_SQLSTATE = b"C08P01\0Mthe server does not keep to the protocol: it sent an error without SQLSTATE\0"


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_without_sqlstate(error):
    """It ends the session, which is told: in the login, in a session, and in front of a write to be batched."""
    hooks = Hooks()
    session = PgSession(hooks.engine)
    session.receive(STARTUP)
    hooks.server.receive(pg(b"R", b"\0\0\0\x0a" + b"SCRAM-SHA-256\0\0") + error)
    assert WITHOUT_SQLSTATE in session.take_out() and session.closing

    for sql in ("SELECT 1", "/* max_wait_ms:1 */ INSERT INTO t (a) VALUES (1)"):
        session = PgSession(hooks.engine)
        session.receive(STARTUP)
        hooks.server.receive(PG_LOGIN)
        session.take_out()
        session.receive(pg_query(sql))
        hooks.server.take_out()
        hooks.server.receive(pg(b"N", b"SNOTICE\0\0") + error + READY)
        assert WITHOUT_SQLSTATE in session.take_out() and session.closing
    assert hooks.engine.stats.internal_errors == {}


def test_an_error_that_does_not_end():
    """In the form of protocol 2 there is no length; servers that cannot fork still speak so."""
    hooks = Hooks()
    session = PgSession(hooks.engine)
    session.receive(STARTUP)
    hooks.server.receive(b"Ecould not fork new process for connection\n\0")
    said = session.take_out()
    assert b"C08P01\0" in said and b"an error of length" in said and session.closing


@pytest.mark.parametrize("length", [b"\x80\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\3"])
@pytest.mark.parametrize("begun", [b"", PG_LOGIN])
def test_a_length_of_the_servers_that_cannot_be(length, begun):
    hooks = Hooks()
    session = PgSession(hooks.engine)
    session.receive(STARTUP)
    hooks.server.receive(begun + b"S" + length)
    said = session.take_out()
    assert said.startswith(begun) and b"C08P01\0" in said and session.closing
