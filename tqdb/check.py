"""``tqdb check``: is the configuration valid, and is every backend there and what it should be."""

import socket
import ssl
import struct

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from tqdb import tls
from tqdb.backends import resolve
from tqdb.config import Address, Backend, Config
from tqdb.errors import TqdbError

MAX_WIDTH = 10_000      # of a table that is measured
CLIENT_SSL = 2048       # MariaDB's capability


def _receive(sock: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        part = sock.recv(n - len(data))
        if not part:
            raise OSError("it closed the connection")
        data += part
    return data


def _tls_found(sock: ssl.SSLSocket | None, demand: tls.Demand | None) -> str:
    """What the column ``TLS`` says."""
    if sock is None:
        return "not offered" if demand is not None else "off"
    return f"{sock.version()}, {demand.verified or 'nothing'} verified"


def _probe_postgres(sock: socket.socket, demand: tls.Demand | None, address: Address) -> tuple[str, str]:
    """A start-up packet without a password: any answer of the protocol will do."""
    secure = tls.request(sock, demand, address) if demand is not None else None
    sock = secure or sock
    body = struct.pack("!I", 196608) + b"user\0tqdb\0database\0postgres\0application_name\0tqdb check\0\0"
    sock.sendall(struct.pack("!I", len(body) + 4) + body)
    kind = _receive(sock, 1)
    if kind not in (b"R", b"E", b"v"):
        raise OSError("it does not speak the PostgreSQL protocol")
    return ("PostgreSQL, " + ("asks to log in" if kind == b"R" else "refuses user tqdb, as it may"),
            _tls_found(secure, demand))


def _probe_mariadb(sock: socket.socket, demand: tls.Demand | None, address: Address) -> tuple[str, str]:
    header = _receive(sock, 4)
    payload = _receive(sock, int.from_bytes(header[:3], "little"))
    if payload[:1] == b"\xff":
        raise OSError(payload[3:].decode("utf-8", "replace"))
    if payload[:1] != b"\x0a":
        raise OSError("it does not speak the MariaDB protocol")
    version = payload[1:payload.index(b"\0")].decode("utf-8", "replace")
    secure = None
    if demand is not None:
        at = payload.index(b"\0") + 14          # behind the version: thread id, 8 bytes of scramble, filler
        if int.from_bytes(payload[at:at + 2], "little") & CLIENT_SSL:
            # protocol 4.1, a secure connection, utf8mb4
            sock.sendall(b"\x20\0\0\1" + struct.pack("<IIB23x", CLIENT_SSL | 0x8200, 1 << 24, 45))
            secure = tls.wrap(sock, demand, address)
        elif demand.required:
            raise OSError("it does not offer TLS")
    product = "MariaDB" if "mariadb" in version.lower() else "MySQL"
    # MariaDB says 5.5.5- in front, for replicas that take 10 for 1, and how it was packaged behind
    return f"{product} {version.removeprefix('5.5.5-').split('-')[0]}", _tls_found(secure, demand)


PROBES = {"postgres": _probe_postgres, "mariadb": _probe_mariadb}


def probe(protocol: str, backend: Backend, demand: tls.Demand | None, timeout: float) -> tuple[bool, str, str]:
    """Connects to one backend: ``(ok, what was found, TLS)``."""
    error = "no address"
    try:
        candidates = resolve(backend.primary)
    except TqdbError as e:
        return False, str(e), ""
    for family, address in candidates:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.settimeout(timeout)
                sock.connect(address)
                return True, *PROBES[protocol](sock, demand, backend.primary)
        except OSError as e:
            error = e.strerror or str(e)
    return False, error, ""


def run(config: Config) -> int:
    """Prints a table of the backends; 0 if all are well."""
    rows = []
    well = True
    tls.offers(config)          # the certificates can be used
    demands = tls.demands(config)
    for protocol, section in config.protocols():
        for backend in section.backends.values():
            ok, found, secured = probe(protocol, backend, demands.get((protocol, backend.name)),
                                       config.limits.server_connect_timeout)
            well = well and ok
            listen = ", ".join(str(x) for x in (section.listen, section.socket) if x is not None)
            rows.append((f"{protocol}.{backend.name}", str(backend.primary),
                         listen if backend.name == section.default else "", "ok" if ok else "FAILED", secured,
                         found))
    _show(Console(), f"configuration: {config.source}", rows)
    return 0 if well else 1


def _show(console: Console, title: str, rows: list[tuple[str, ...]]) -> None:
    """A table, or one paragraph for each backend where that would not fit."""
    names = ("backend", "address", "listens on", "state", "TLS", "found")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*map(escape, row))
    if Measurement.get(console, console.options.update(max_width=MAX_WIDTH), table).maximum <= console.width:
        console.print(table)
        return
    console.print(title, markup=False, soft_wrap=True)
    for row in rows:
        console.print()
        for name, value in zip(names, row, strict=True):
            if value:
                console.print(f"{name:<12}{value}", markup=False, highlight=False, soft_wrap=True)
