"""Proxies that authenticate users themselves, and a client that shows each step of such a login."""

import socket
import struct
from pathlib import Path

import psycopg
import pytest

from tests.fix_tls import PASSWORD, TlsProxy, to_clients, to_servers
from tests.wire import pg, pg_startup
from tqdb.scram import PLAIN, Initiator, keys_of

WRONG = "wrong"


def verifiers(server) -> dict[str, str]:
    """What the server keeps of each user with a password."""
    with psycopg.connect(server.dsn()) as connection:
        return dict(connection.execute("SELECT rolname, rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL"))


def write_users(path, users: dict[str, str]) -> None:
    def quoted(text):
        return '"' + text.replace('"', '""') + '"'
    Path(path).write_text("; user and secret\n\n" + "".join(
        f"{quoted(user)} {quoted(secret)}\n" for user, secret in users.items()))


@pytest.fixture
def users(tmp_path, tls_postgres):
    """The path of a file with the server's own verifiers, and of one user whom the server does not know."""
    path = tmp_path / "userlist.txt"
    write_users(path, {**verifiers(tls_postgres), "u_elsewhere": verifiers(tls_postgres)["u_scram"]})
    return path


@pytest.fixture
def own_proxy(start_tls_proxy, tls_postgres, certificates, users):
    """``own_proxy(server)``: a proxy with TLS for clients, ``server`` being its TLS to the server."""
    def make(server: str = "off", query: str | None = None) -> TlsProxy:
        where = {"auth_file": str(users)} if query is None else {"auth_query": query}
        return start_tls_proxy(
            postgres=tls_postgres, client=to_clients(certificates, auth="own", **where),
            server=to_servers(certificates, server, monitor_user="postgres"))
    return make


class RawLogin:
    """One login over a plain connection, step by step; ``said``: what came, as (kind, body)."""

    def __init__(self, port: int, user: str, password: str = PASSWORD, database: str = "postgres"):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.password = password
        self.said: list[tuple[bytes, bytes]] = []
        self.initiator = Initiator([PLAIN])
        self.startup = pg_startup(user=user, database=database)
        first = self.initiator.first()
        self.initial = pg(b"p", PLAIN.encode() + b"\0" + struct.pack("!I", len(first)) + first)

    def message(self) -> tuple[bytes, bytes]:
        data = b""
        while len(data) < 5 or len(data) < 1 + struct.unpack("!I", data[1:5])[0]:
            missing = 5 - len(data) if len(data) < 5 else 1 + struct.unpack("!I", data[1:5])[0] - len(data)
            part = self.sock.recv(missing)
            if not part:
                raise ConnectionError("closed")
            data += part
        self.said.append((data[:1], data[5:]))
        return self.said[-1]

    def final(self, challenge: bytes) -> bytes:
        """The client's last message, for the proxy's first."""
        salt, iterations = self.initiator.challenged(challenge)
        return pg(b"p", self.initiator.proved(keys_of(self.password.encode(), salt, iterations)))

    def challenge(self) -> bytes:
        """Begins; what the server side says first."""
        self.sock.sendall(self.startup)
        assert self.message()[1][:4] == struct.pack("!I", 10)
        self.sock.sendall(self.initial)
        kind, body = self.message()
        assert (kind, body[:4]) == (b"R", struct.pack("!I", 11))
        return body[4:]

    def run(self) -> "RawLogin":
        """To ReadyForQuery, or the error."""
        self.sock.sendall(self.final(self.challenge()))
        while self.message()[0] not in (b"Z", b"E"):
            pass
        return self

    @property
    def error(self) -> dict[bytes, bytes]:
        """The fields of the error that came last."""
        kind, body = self.said[-1]
        assert kind == b"E", self.said
        return {field[:1]: field[1:] for field in body.split(b"\0") if field}

    def close(self) -> None:
        self.sock.close()
