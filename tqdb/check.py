"""``tqdb check``: is the configuration valid, and is every server there and what it should be."""

import socket
import ssl
import struct
import textwrap
import time
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from tqdb import tls, verifiers
from tqdb.config import Backend, Config, Protocol
from tqdb.errors import TqdbError
from tqdb.lookup import resolve
from tqdb.roles import PRIMARY, UNKNOWN, Said, asker
from tqdb.rules import explanation, unreachable
from tqdb.values import Address

MAX_WIDTH = 10_000      # of a table that is measured
NAME_WIDTH = 12         # of what stands before a value where a table would not fit
CLIENT_SSL = 2048       # MariaDB's capability
# what PostgreSQL's authentication requests ask for, by their code
ASKS_FOR = {0: "nothing", 2: "Kerberos", 3: "a password", 5: "md5", 7: "GSSAPI", 9: "SSPI"}
SASL = 10


@dataclass
class Found:
    """What a connection without a login tells."""

    product: str
    logins: str         # by what method, as far as that shows
    tls: str


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


def _probe_postgres(sock: socket.socket, demand: tls.Demand | None, address: Address) -> Found:
    """A start-up packet without a password: any answer of the protocol will do."""
    secure = tls.request(sock, demand, address) if demand is not None else None
    sock = secure or sock
    body = struct.pack("!I", 196608) + b"user\0tqdb\0database\0postgres\0application_name\0tqdb check\0\0"
    sock.sendall(struct.pack("!I", len(body) + 4) + body)
    kind = _receive(sock, 1)
    if kind not in (b"R", b"E", b"v"):
        raise OSError("it does not speak the PostgreSQL protocol")
    if kind != b"R":
        return Found("PostgreSQL", "refuses user tqdb, as it may", _tls_found(secure, demand))
    size = int.from_bytes(_receive(sock, 4), "big") - 4
    asked = _receive(sock, min(max(size, 4), 1000))
    code = int.from_bytes(asked[:4], "big")
    method = ASKS_FOR.get(code, f"method {code}")
    if code == SASL:
        method = ", ".join(m.decode("ascii", "replace") for m in asked[4:].split(b"\0") if m)
    return Found("PostgreSQL", f"asks user tqdb for {method}", _tls_found(secure, demand))


def _probe_mariadb(sock: socket.socket, demand: tls.Demand | None, address: Address) -> Found:
    header = _receive(sock, 4)
    payload = _receive(sock, int.from_bytes(header[:3], "little"))
    if payload[:1] == b"\xff":
        raise OSError(payload[3:].decode("utf-8", "replace"))
    if payload[:1] != b"\x0a":
        raise OSError("it does not speak the MariaDB protocol")
    version = payload[1:payload.index(b"\0")].decode("utf-8", "replace")
    # the plugin that it proposes is the last of the greeting
    plugin = payload.rstrip(b"\0").rpartition(b"\0")[2].decode("ascii", "replace")
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
    return Found(f"{product} {version.removeprefix('5.5.5-').split('-')[0]}", f"proposes {plugin}",
                 _tls_found(secure, demand))


PROBES = {"postgres": _probe_postgres, "mariadb": _probe_mariadb}


@dataclass
class Row:
    """One server: ``error`` is empty if it is there and does what it was asked."""

    server: Address
    error: str = ""
    tls: str = ""
    said: Said = Said(None)
    found: Found | None = None
    seconds: float = 0.0        # until it has taken a connection

    def words(self) -> str:
        """What the column ``found`` says."""
        if self.error:
            return self.error
        said = self.said
        latency = self.seconds if said.latency is None else said.latency
        return ", ".join(filter(None, (
            said.version or self.found.product, self.found.logins, f"answers in {1000 * latency:.1f} ms",
            f"{said.lag:.1f} s behind" if said.lag is not None else "",
            f"Galera: {said.galera}" if said.galera else "")))


def probe(protocol: str, backend: Backend, address: Address, demand: tls.Demand | None, timeout: float) -> Row:
    """Connects to one server, and asks what it is if somebody is to."""
    row = Row(address, "no address")
    try:
        candidates = resolve(address)
    except TqdbError as e:
        row.error = str(e).removeprefix(f"{address}: ")
        return row
    demand = None if address.unix else demand
    for family, sockaddr in candidates:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.settimeout(timeout)
                began = time.monotonic()
                sock.connect(sockaddr)
                row.seconds = time.monotonic() - began
                row.found = PROBES[protocol](sock, demand, address)
                row.error, row.tls = "", row.found.tls
                break
        except OSError as e:
            row.error = e.strerror or str(e)
    who = asker(protocol, backend, address, demand)
    if who is not None and not row.error:
        row.said = who.ask(candidates)
        who.close()
        if row.said.error:
            row.error = f"does not say what it is: {row.said.error}"
    return row


def _serves(backend: Backend, rows: list[Row]) -> str:
    """What keeps the backend from serving; empty if nothing does."""
    there = [row for row in rows if not row.error]
    if not there:
        return "no server is reachable"
    if backend.target == "read-write" and not any(row.said.role in (PRIMARY, UNKNOWN) for row in there):
        return "no server takes writes"
    return ""


def run(config: Config) -> int:
    """Prints a table of the servers, and a line for each rule.

    0 if all servers are well, and every backend that serves has one that may.
    """
    table = []
    troubles = []
    tls.offers(config)          # the certificates can be used
    demands = tls.demands(config)
    for protocol, section in config.protocols():
        for backend in section.backends.values():
            rows = [probe(protocol, backend, address, demands.get((protocol, backend.name)),
                          config.limits.server_connect_timeout) for address in backend.primary]
            trouble = _serves(backend, rows)
            if trouble and (len(rows) > 1 or not rows[0].error):
                troubles.append(f"{protocol}.{backend.name}: {trouble}")
            elif trouble or any(row.error for row in rows):
                troubles.append("")
            table += [_cells(protocol, section, backend, row) for row in rows]
    trouble = verifiers.trial(config, demands)
    if trouble:
        troubles.append(trouble)
    console = Console()
    _show(console, f"configuration: {config.source}", table)
    for trouble in filter(None, troubles):
        _say(console, trouble)
    _show_rules(console, config)
    return 1 if troubles else 0


def _cells(protocol: str, section: Protocol, backend: Backend, row: Row) -> tuple[str, ...]:
    listen = ", ".join(str(x) for x in (section.listen, section.socket) if x is not None)
    return (f"{protocol}.{backend.name}", str(row.server), listen if backend.name == section.default else "",
            "FAILED" if row.error else "ok", row.said.role if row.said.role != UNKNOWN else "", row.tls, row.words())


def _show_rules(console: Console, config: Config) -> None:
    """What each rule does, and which of them do nothing."""
    if not config.rules:
        return
    lines = ["rules: the first that matches a write decides about it"]
    never = unreachable(config)
    for rule in config.rules:
        lines.append(f"  {rule.name}: {explanation(rule, config)}")
        if rule.name in never:
            lines.append(f"  WARNING: {rule.name} can never match: {never[rule.name]}")
    lines += [f"  WARNING: [{name}] observe = yes: nothing is batched there, whatever rules say"
              for name, protocol in config.protocols() if protocol.observe == "yes"]
    console.print()
    for line in lines:
        _say(console, line, 4)


def _say(console: Console, line: str, indent: int = 2) -> None:
    """A line. A terminal that is narrower gets it in several, broken between words; a program gets it whole."""
    if console.is_terminal:
        line = textwrap.fill(line, console.width, subsequent_indent=" " * indent, break_long_words=False,
                             break_on_hyphens=False)
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _show(console: Console, title: str, rows: list[tuple[str, ...]]) -> None:
    """A table, or one paragraph for each server where that would not fit."""
    names = ("backend", "address", "listens on", "state", "role", "TLS", "found")
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
                _say(console, f"{name:<{NAME_WIDTH}}{value}", NAME_WIDTH)
