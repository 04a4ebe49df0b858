"""TLS as the configuration has it: what clients are offered, what is asked of servers, and asking PostgreSQL for it.

Certificates are read when an ``Offer`` or a ``Demand`` is made; what cannot be used is a ``ConfigError``.
"""

import os
import socket
import ssl
import struct
from selectors import EVENT_READ, EVENT_WRITE

from tqdb._core import tls_reason
from tqdb.config import Backend, Config, Protocol
from tqdb.errors import ConfigError
from tqdb.loop import Loop
from tqdb.values import Address

ALPN = {"postgres": ["postgresql"]}
SSL_REQUEST = struct.pack("!II", 8, 80877103)
# where systems keep the certificates that they trust, for an OpenSSL that was built elsewhere
SYSTEM_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
                "/etc/ssl/cert.pem")

Engine = tuple[ssl.MemoryBIO, ssl.MemoryBIO, ssl.SSLObject]     # incoming, outgoing, and what lies between them


def _context(side: int, protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    if protocol in ALPN:
        context.set_alpn_protocols(ALPN[protocol])
    return context


class _Files:
    """Reads the files of one section into a context."""

    def __init__(self, source: str, section: str, context: ssl.SSLContext):
        self.where = f"{source}: section [{section}]"
        self.context = context

    def _check(self, key: str, path: str) -> None:
        try:
            with open(path, "rb"):
                pass
        except OSError as e:
            raise ConfigError(f"{self.where}: key '{key}': '{path}' cannot be read: {e.strerror}") from None

    def chain(self, cert: str, key: str | None) -> None:
        self._check("tls_cert", cert)
        if key is not None:
            self._check("tls_key", key)
        try:
            self.context.load_cert_chain(cert, key, password="")        # a key that asks for one cannot be used
        except (ssl.SSLError, ValueError) as e:
            what = f"'{cert}'" if key is None else f"'{cert}' with the key '{key}'"
            raise ConfigError(f"{self.where}: key 'tls_cert': {what} cannot be used: {_reason(e)}; "
                              "allowed: PEM, the key without a passphrase") from None

    def authorities(self, key: str, path: str) -> None:
        self._check(key, path)
        try:
            self.context.load_verify_locations(path)
        except (ssl.SSLError, ValueError) as e:
            raise ConfigError(f"{self.where}: key '{key}': '{path}' cannot be used: {_reason(e)}; "
                              "allowed: PEM certificates") from None

    def system_authorities(self) -> None:
        self.context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        known = ssl.get_default_verify_paths()
        if not known.cafile and not known.capath:
            path = system_file()
            if path is not None:
                self.context.load_verify_locations(path)
                return
            raise ConfigError(f"{self.where}: key 'tls_ca': this system's authorities were not found; allowed: a file")


def _reason(error: Exception) -> str:
    return tls_reason(error) if isinstance(error, ssl.SSLError) else str(error)


def system_file() -> str | None:
    """The file in which this system keeps the authorities that it trusts; None if it is not found."""
    known = ssl.get_default_verify_paths().cafile
    return next(filter(os.path.exists, [*filter(None, [known]), *SYSTEM_FILES]), None)


def _engine(context: ssl.SSLContext, **options) -> Engine:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    return incoming, outgoing, context.wrap_bio(incoming, outgoing, **options)


class Offer:
    """What clients of a protocol are offered over TCP. ``certificate`` is the proxy's own, DER."""

    def __init__(self, source: str, name: str, protocol: Protocol):
        self.required = protocol.tls == "require"
        self.context = _context(ssl.PROTOCOL_TLS_SERVER, name)
        self.context.num_tickets = 0            # PostgreSQL and MariaDB resume no sessions
        files = _Files(source, name, self.context)
        files.chain(protocol.tls_cert, protocol.tls_key)
        if protocol.tls_client_ca is not None:
            files.authorities("tls_client_ca", protocol.tls_client_ca)
            self.context.verify_mode = ssl.CERT_REQUIRED
        with open(protocol.tls_cert, encoding="ascii", errors="replace") as f:
            first = f.read().partition(ssl.PEM_HEADER)[2].partition(ssl.PEM_FOOTER)[0]
        self.certificate = ssl.PEM_cert_to_DER_cert(ssl.PEM_HEADER + first + ssl.PEM_FOOTER)

    def engine(self) -> Engine:
        return _engine(self.context, server_side=True)


class Demand:
    """What is asked of a backend's servers. ``required``: without TLS they are not used."""

    def __init__(self, source: str, name: str, backend: Backend):
        self.required = backend.tls != "prefer"
        self.verified = {"verify-ca": "certificate", "verify-full": "certificate and name"}.get(backend.tls, "")
        self.context = _context(ssl.PROTOCOL_TLS_CLIENT, name)
        self.context.check_hostname = backend.tls == "verify-full"
        files = _Files(source, f"{name}.{backend.name}", self.context)
        if not self.verified:
            self.context.verify_mode = ssl.CERT_NONE
        elif backend.tls_ca == "system":
            files.system_authorities()
        else:
            files.authorities("tls_ca", backend.tls_ca)
        if backend.tls_cert is not None:
            files.chain(backend.tls_cert, backend.tls_key)
        for address in backend.primary:
            try:
                if not address.unix:
                    self.engine(address)
            except ValueError as e:
                raise ConfigError(f"{files.where}: key 'primary': '{address}' is not valid with TLS; {e}") from None

    def engine(self, address: Address) -> Engine:
        """For a connection to ``address``, whose host is told (SNI) and, if asked for, verified."""
        return _engine(self.context, server_hostname=address.host)


def offers(config: Config) -> dict[str, Offer]:
    """By protocol; one that offers none is not in it."""
    return {name: Offer(config.source, name, protocol) for name, protocol in config.protocols()
            if protocol.tls != "off"}


def demands(config: Config) -> dict[tuple[str, str], Demand]:
    """By protocol and backend; one without TLS is not in it. Unix sockets have none in any case."""
    return {(name, backend.name): Demand(config.source, name, backend) for name, protocol in config.protocols()
            for backend in protocol.backends.values() if backend.tls != "off"}


class PgRequest:
    """Asks a PostgreSQL server for TLS (SSLRequest, then the handshake) on a connected, non-blocking ``sock``.

    Tells ``done(sock, engine, error)`` once: ``engine`` is None where the server offers none and none is required;
    ``sock`` is None after an error.
    """

    def __init__(self, loop: Loop, sock: socket.socket, demand: Demand, address: Address, timeout: float, done):
        self.loop = loop
        self.sock = sock
        self.required = demand.required
        self.engine = demand.engine(address)
        self.done = done
        self.answered = False
        self.unsent = SSL_REQUEST
        self.timer = loop.call_later(timeout, lambda: self._finish("the server did not answer the request for TLS"))
        loop.watch(sock, EVENT_READ | EVENT_WRITE, self._ready)

    def _ready(self, mask: int) -> None:
        if self.sock is None:
            return          # finished by an event before this one
        try:
            if mask & EVENT_READ and not self._read():
                return
            self._send()
        except (BlockingIOError, InterruptedError):
            pass
        except ssl.SSLError as e:
            self._finish(f"TLS failed: {tls_reason(e)}")
        except OSError as e:
            self._finish(e.strerror or str(e))

    def _read(self) -> bool:
        """Whether it goes on."""
        data = self.sock.recv(65536 if self.answered else 2)
        if not data:
            self._finish("the server closed the connection when it was asked for TLS")
        elif self.answered:
            self.engine[0].write(data)
            return self._shake_hands()
        elif data == b"S":
            self.answered = True
            return self._shake_hands()
        elif data == b"N" and not self.required:
            self._finish("", None)
        elif data == b"N":
            self._finish("the server does not offer TLS")
        else:
            # an error, or what somebody on the way has put there: neither can be trusted
            self._finish("the server did not answer the request for TLS as it should")
        return False

    def _shake_hands(self) -> bool:
        _, outgoing, engine = self.engine
        try:
            engine.do_handshake()
        except ssl.SSLWantReadError:
            self.unsent += outgoing.read()
            return True
        except ssl.SSLError:
            self.unsent += outgoing.read()      # an alert
            self._send()
            raise
        self.unsent += outgoing.read()
        return True

    def _send(self) -> None:
        if self.unsent:
            self.unsent = self.unsent[self.sock.send(self.unsent):]
        self.loop.watch(self.sock, EVENT_READ | (EVENT_WRITE if self.unsent else 0), self._ready)
        if self.answered and not self.unsent and self.engine[2].version() is not None:
            self._finish("", self.engine)

    def _finish(self, error: str, engine: Engine | None = None) -> None:
        sock, done = self.sock, self.done
        self.cancel(close=bool(error))
        if done is not None:
            done(None if error else sock, engine, error)

    def cancel(self, close: bool = True) -> None:
        self.done = None
        self.timer.cancel()
        if self.sock is not None:
            self.loop.unwatch(self.sock)
            if close:
                self.sock.close()
            self.sock = None


def request(sock: socket.socket, demand: Demand, address: Address) -> ssl.SSLSocket | None:
    """As ``PgRequest``, on a blocking socket; None: the server offers no TLS. OSError tells what is wrong."""
    sock.sendall(SSL_REQUEST)
    answer = sock.recv(2)
    if answer == b"S":
        return wrap(sock, demand, address)
    if answer != b"N":
        raise OSError("it did not answer the request for TLS as it should")
    if demand.required:
        raise OSError("it does not offer TLS")
    return None


def wrap(sock: socket.socket, demand: Demand, address: Address) -> ssl.SSLSocket:
    """A connected blocking socket with the handshake done."""
    try:
        return demand.context.wrap_socket(sock, server_hostname=address.host)
    except ssl.SSLError as e:
        raise OSError(f"TLS failed: {tls_reason(e)}") from None
