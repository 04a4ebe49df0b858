"""Sockets that are listened on, and the descriptors for them."""

import os
import resource
import socket

from tqdb.errors import TqdbError
from tqdb.lookup import resolve
from tqdb.values import Address

BACKLOG = 4096


def identity(sock: socket.socket) -> str:
    """What tells a listening socket from others: ``host:port`` as bound, or ``unix:/path``."""
    return f"unix:{sock.getsockname()}" if sock.family == socket.AF_UNIX else format_address(sock)


def listened_on(address: Address) -> str:
    """The ``identity`` that a socket listening on ``address`` has."""
    if address.unix:
        return str(address)
    family, sockaddr = resolve(address)[0]
    with socket.socket(family) as sock:
        sock.bind((sockaddr[0], 0))         # as the kernel writes the address
        return str(Address(sock.getsockname()[0], address.port))


def listen_tcp(address: Address) -> socket.socket:
    """A socket that listens on ``address``; TqdbError if it cannot be had."""
    try:
        family, sockaddr = resolve(address)[0]
        return socket.create_server(sockaddr[:2], family=family, backlog=BACKLOG)
    except OSError as e:
        raise TqdbError(f"cannot listen on {address}: {e.strerror or e}") from None


def listen_unix(path: str) -> socket.socket:
    """A Unix socket at ``path`` that everyone may connect to; TqdbError if another server answers there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(path) == 0:
                raise TqdbError(f"cannot listen on unix:{path}: another server answers there")
        if os.path.exists(path):
            os.unlink(path)
        sock.bind(path)
        os.chmod(path, 0o777)
        sock.listen(BACKLOG)
    except OSError as e:
        raise TqdbError(f"cannot listen on unix:{path}: {e.strerror or e}") from None
    return sock


def remove_sockets(paths: list[str]) -> None:
    """Takes the files of Unix sockets away; who has removed one before has done no harm."""
    for path in paths:
        try:
            os.unlink(path)
        except OSError:
            pass


def raise_descriptor_limit() -> None:
    """Lets this process have as many descriptors as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def format_address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
