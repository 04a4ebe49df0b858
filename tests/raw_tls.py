"""TLS as it goes over the wire: asked for, direct, and the bytes to the end."""

import contextlib
import socket
import ssl
import struct

from tests.wire import my, pg_split, pg_startup

SSL_REQUEST = struct.pack("!II", 8, 80877103)
MY_SSL_REQUEST = my(1, struct.pack("<IIB23x", 0x0008AA00, 1 << 24, 45))     # 4.1, secure connection, plugins, TLS
STARTUP = pg_startup(user="postgres", database="postgres")


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def to_the_end(sock) -> bytes:
    """All that comes until the peer closes, or resets."""
    data = b""
    with contextlib.suppress(ConnectionResetError, ssl.SSLError):
        while part := sock.recv(65536):
            data += part
    return data


def until_ready(sock) -> list[tuple[bytes, bytes]]:
    data = b""
    while not data.endswith(b"Z\0\0\0\x05I"):
        part = sock.recv(65536)
        assert part, data
        data += part
    return pg_split(data)[0]


def direct(port: int, certificates, *protocols: str) -> ssl.SSLSocket:
    context = certificates.context()
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context.wrap_socket(connect(port), server_hostname="127.0.0.1", suppress_ragged_eofs=False)


def asked(port: int, certificates) -> ssl.SSLSocket:
    sock = connect(port)
    sock.sendall(SSL_REQUEST)
    assert sock.recv(1) == b"S"
    return certificates.context().wrap_socket(sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False)
