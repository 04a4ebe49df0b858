"""``tqdb check``: is the configuration valid, and is every backend there and what it should be."""

import socket
import struct

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from tqdb.backends import resolve
from tqdb.config import Backend, Config
from tqdb.errors import TqdbError

MAX_WIDTH = 10_000      # of a table that is measured


def _receive(sock: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        part = sock.recv(n - len(data))
        if not part:
            raise OSError("it closed the connection")
        data += part
    return data


def _probe_postgres(sock: socket.socket) -> str:
    """A start-up packet without a password: any answer of the protocol will do."""
    body = struct.pack("!I", 196608) + b"user\0tqdb\0database\0postgres\0application_name\0tqdb check\0\0"
    sock.sendall(struct.pack("!I", len(body) + 4) + body)
    kind = _receive(sock, 1)
    if kind not in (b"R", b"E", b"v"):
        raise OSError("it does not speak the PostgreSQL protocol")
    return "PostgreSQL, " + ("asks to log in" if kind == b"R" else "refuses user tqdb, as it may")


def _probe_mariadb(sock: socket.socket) -> str:
    header = _receive(sock, 4)
    payload = _receive(sock, int.from_bytes(header[:3], "little"))
    if payload[:1] == b"\xff":
        raise OSError(payload[3:].decode("utf-8", "replace"))
    if payload[:1] != b"\x0a":
        raise OSError("it does not speak the MariaDB protocol")
    version = payload[1:payload.index(b"\0")].decode("utf-8", "replace")
    product = "MariaDB" if "mariadb" in version.lower() else "MySQL"
    # MariaDB says 5.5.5- in front, for replicas that take 10 for 1, and how it was packaged behind
    return f"{product} {version.removeprefix('5.5.5-').split('-')[0]}"


PROBES = {"postgres": _probe_postgres, "mariadb": _probe_mariadb}


def probe(protocol: str, backend: Backend, timeout: float) -> tuple[bool, str]:
    """Connects to one backend: ``(ok, what was found)``."""
    error = "no address"
    try:
        candidates = resolve(backend.primary)
    except TqdbError as e:
        return False, str(e)
    for family, address in candidates:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.settimeout(timeout)
                sock.connect(address)
                return True, PROBES[protocol](sock)
        except OSError as e:
            error = e.strerror or str(e)
    return False, error


def run(config: Config) -> int:
    """Prints a table of the backends; 0 if all are well."""
    rows = []
    well = True
    for protocol, section in config.protocols():
        for backend in section.backends.values():
            ok, found = probe(protocol, backend, config.limits.server_connect_timeout)
            well = well and ok
            listen = ", ".join(str(x) for x in (section.listen, section.socket) if x is not None)
            rows.append((f"{protocol}.{backend.name}", str(backend.primary),
                         listen if backend.name == section.default else "", "ok" if ok else "FAILED", found))
    _show(Console(), f"configuration: {config.source}", rows)
    return 0 if well else 1


def _show(console: Console, title: str, rows: list[tuple[str, ...]]) -> None:
    """A table, or one paragraph for each backend where that would not fit."""
    names = ("backend", "address", "listens on", "state", "found")
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
