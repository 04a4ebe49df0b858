"""What the proxy keeps in memory: flat under millions of writes, little for each idle client.

    python -m tests.memory [--protocol postgres|mariadb] [--writes N] [--clients N]

The null backend answers, so that the proxy is what is busy. Memory is the resident set of the proxy's process, read
from /proc while a compiled load generator writes. Exit code 1: it grew by more than ``FLAT`` after the first
``WARM_UP`` of the writes, or an idle client costs more than ``CLIENT_BYTES``.
"""

import argparse
import resource
import socket
import sys
import time

from tests.fix_servers import ProxyUnderTest, tqdb_command
from tests.wait import wait_for
from tests.wire import HANDSHAKE, STARTUP, my, my_split, pg_split
from tqdb.load import messages
from tqdb.load.null import NullServer
from tqdb.load.targets import Target
from tqdb.load.writers import Writers

PROTOCOLS = ("postgres", "mariadb")
WRITERS, DEPTH = 128, 8
WARM_UP = 0.1
FLAT = 0.05
CLIENT_BYTES = 10 * 1024
SAMPLES = 40                # over the run
LONG = 24 * 3600
# both ends of each client's connection and of each server connection are in the proxy, and some for itself
DESCRIPTORS = 2
SPARE = 500
CONFIG = "[limits]\nmax_client_connections = {}\nclient_login_timeout = 120\n"


def resident(pid: int) -> int:
    """Bytes."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS"))


def start_proxy(target: Target, clients: int) -> ProxyUnderTest:
    return ProxyUnderTest(command=tqdb_command(), config=CONFIG.format(clients + SPARE),
                          **{target.protocol: target}).start()


def under_writes(target: Target, writes: int) -> bool:
    """Whether the resident set stays within ``FLAT`` of what it is after the warm-up."""
    proxy = start_proxy(target, WRITERS)
    writers = Writers(target, getattr(proxy, f"{target.protocol}_port"), WRITERS)
    try:
        pid = proxy.process.pid
        start = time.monotonic()
        generator = writers.start(messages.insert(target.protocol, "max_wait_ms:2 file:memory.py line:1"), LONG, DEPTH)
        samples = []
        for i in range(1, SAMPLES + 1):
            goal = max(int(writes * i / SAMPLES), 1)
            wait_for(lambda goal=goal: generator.done >= goal or generator.dead or generator.errors, LONG)
            samples.append((generator.done, resident(pid)))
        generator.stop()
        writers.wait()
        seconds = time.monotonic() - start
    finally:
        writers.close()
        proxy.stop()
    warm = [(done, rss) for done, rss in samples if done >= WARM_UP * writes]
    first = warm[0][1]
    worst = max((rss for _, rss in warm), key=lambda rss: abs(rss - first))
    change = worst / first - 1
    step = max(1, len(samples) // 8)
    print(f"{target.protocol}: {generator.done:,} writes in {seconds:.0f} s; resident MiB after so many writes: "
          + ", ".join(f"{done:,}: {rss / 2**20:.1f}" for done, rss in samples[::step]))
    print(f"{target.protocol}: {change:+.1%} against the end of the warm-up ({first / 2**20:.1f} MiB)", flush=True)
    return abs(change) <= FLAT


def log_in(protocol: str, port: int) -> socket.socket:
    """A connection that the null backend has let in."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=120)
    data = b""
    if protocol == "postgres":
        sock.sendall(STARTUP)
        while not any(kind == b"Z" for kind, _ in pg_split(data)[0]):
            data += _received(sock)
        return sock
    while not my_split(data)[0]:
        data += _received(sock)
    sock.sendall(my(1, HANDSHAKE))
    data = b""
    while not my_split(data)[0]:
        data += _received(sock)
    return sock


def _received(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise ConnectionError("refused")
    return data


def idle_clients(target: Target, count: int) -> bool:
    """Whether each of ``count`` idle clients costs the proxy at most ``CLIENT_BYTES``."""
    proxy = start_proxy(target, count)
    port = getattr(proxy, f"{target.protocol}_port")
    opened = []
    try:
        opened += [log_in(target.protocol, port) for _ in range(min(100, count // 10))]     # code, caches, tables
        before, had = resident(proxy.process.pid), len(opened)
        opened += [log_in(target.protocol, port) for _ in range(count - had)]
        wait_for(lambda: proxy.clients() == count, what=f"{count} clients")
        each = (resident(proxy.process.pid) - before) / (count - had)
    finally:
        for sock in opened:
            sock.close()
        proxy.stop()
    print(f"{target.protocol}: {count:,} idle clients, {each:,.0f} bytes each", flush=True)
    return each <= CLIENT_BYTES


def allow_descriptors(clients: int) -> int:
    """Raises the limit here and, by inheritance, in the proxy and the null backend; the clients that it lets in."""
    wanted = DESCRIPTORS * clients + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        except ValueError:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            clients = min(clients, (hard - SPARE) // DESCRIPTORS)
            print(f"no more than {hard:,} descriptors are allowed here (RLIMIT_NOFILE): {clients:,} clients")
    return clients


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", choices=PROTOCOLS, help="default: both, in turn")
    parser.add_argument("--writes", type=int, default=10_000_000)
    parser.add_argument("--clients", type=int, default=10_000)
    options = parser.parse_args()
    clients = allow_descriptors(options.clients)
    met = True
    for protocol in [options.protocol] if options.protocol else PROTOCOLS:
        with NullServer(protocol) as server:
            target = server.start().target()
            met &= under_writes(target, options.writes)
            met &= idle_clients(target, clients)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
