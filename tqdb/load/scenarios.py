"""The benchmark's scenarios, as data: which load, over how many connections, by which paths."""

from dataclasses import dataclass, field

from tqdb.load.messages import SPACE, Workload, insert, mix, text, update

PROTOCOLS = ("postgres", "mariadb")
HINT = "max_wait_ms:10 file:bench.py line:1"
WINDOWS = ("0", "1", "2", "5", "10", "50", "100", "auto")
WINDOW_RATE = 30_000            # writes a second, more than single writes reach on a small machine
CLIENTS = (1, 4, 16, 64, 256, 1000)
COMMIT_MS = (1.0, 5.0, 10.0)
RESULT_ROWS = 10_000


@dataclass(frozen=True)
class Target:
    """A rate to be reached, with the hint that suits it; ``depth`` writes in a row on each connection."""

    per_second: int
    hint: str
    connections: int
    depth: int = 1


TARGETS = {
    "1k": Target(1_000, "", 32),
    "10k": Target(10_000, "max_wait_ms:1 file:bench.py line:1", 128),
    "100k": Target(100_000, "max_wait_ms:10 file:bench.py line:1", 512),
    "1m": Target(1_000_000, "max_wait_ms:100 file:bench.py line:1", 512, depth=8),
}


@dataclass(frozen=True)
class Case:
    """One load, taken by each of ``paths`` in turn.

    ``paths``: ``direct``; ``batched`` and ``relayed``, both through tqdb; a rival's name; ``pgbench``, which brings
    its own load. ``null``: the null backend stands in for the database. ``rate`` 0: a closed loop. ``at``: where the
    case stands on the axis of its scenario's curve. ``commit_ms``: what a commit waits for a slow disk.
    ``inserts``: every statement inserts one row, and the rows are counted at the end. ``think_ms``: between an answer
    and the connection's next statement. ``idle``: sessions at the proxy that have sent one write, and nothing since.
    ``details`` are part of the JSON.
    """

    scenario: str
    label: str
    protocol: str
    workload: Workload
    paths: tuple[str, ...]
    connections: int
    depth: int = 1
    rate: float = 0
    at: str = ""
    null: bool = False
    commit_ms: float = 0
    inserts: bool = True
    rounds: int = 2
    think_ms: float = 0
    idle: int = 0
    details: dict = field(default_factory=dict)


def write(commit_ms: float, only: str | None) -> list[Case]:
    """1k to 1M writes a second, offered at that rate."""
    return [Case("write", f"target {name}", protocol, insert(protocol, t.hint),
                 ("direct", "batched" if t.hint else "relayed", "pgbouncer", "haproxy", "proxysql"), t.connections,
                 t.depth, t.per_second, name, commit_ms=commit_ms)
            for protocol in PROTOCOLS for name, t in TARGETS.items() if only in (None, name)]


def forms(commit_ms: float, only: str | None) -> list[Case]:
    """Every way in which drivers send writes, 256 connections, each sending its next write when one is answered."""
    found = []
    for protocol in PROTOCOLS:
        ways = ("simple", "extended", "prepared") if protocol == "postgres" else ("simple", "prepared")
        for kind, make in (("insert", insert), ("update", update)):
            found += [Case("forms", f"{kind}, {way}", protocol, make(protocol, HINT, way), ("direct", "batched"), 256,
                           inserts=make is insert, commit_ms=commit_ms) for way in ways]
    return found


def window(commit_ms: float, only: str | None) -> list[Case]:
    """30,000 writes a second offered with every ``max_wait_ms``."""
    return [Case("window", f"max_wait_ms {wait}", protocol,
                 insert(protocol, f"max_wait_ms:{wait} file:bench.py line:1"),
                 ("relayed" if wait == "0" else "batched",), 256, rate=WINDOW_RATE, at=wait, commit_ms=commit_ms,
                 rounds=1)
            for protocol in PROTOCOLS for wait in WINDOWS]


def clients(commit_ms: float, only: str | None) -> list[Case]:
    """1 to 1,000 connections, each sending its next write when one is answered."""
    return [Case("clients", f"{n:,} connection{'s' * (n > 1)}", protocol, insert(protocol, HINT),
                 ("direct", "batched"), n, at=str(n),
                 commit_ms=commit_ms, rounds=1)
            for protocol in PROTOCOLS for n in CLIENTS]


def mixed(commit_ms: float, only: str | None) -> list[Case]:
    """Half reads by key, three tenths hinted inserts, two tenths inserts without a hint."""
    return [Case("mix", f"{n} connections, wait {wait}", protocol, mix(protocol, f"max_wait_ms:{wait}"),
                 ("direct", "batched"), n, commit_ms=commit_ms, inserts=False)
            for protocol in PROTOCOLS for n in (64, 256) for wait in ("2", "auto")]


def overhead(commit_ms: float, only: str | None) -> list[Case]:
    """What the proxy costs where it only relays."""
    paths = ("direct", "relayed", "pgbouncer", "haproxy", "proxysql")
    rows = f"SELECT id, n FROM {SPACE}.counters WHERE id <= {RESULT_ROWS}"
    return [Case("overhead", label, protocol, Workload([text(protocol, sql)]), paths, connections, inserts=False)
            for protocol in PROTOCOLS
            for label, sql, connections in (("select 1", "select 1", 64), (f"{RESULT_ROWS:,} rows", rows, 8))]


def null(commit_ms: float, only: str | None) -> list[Case]:
    """What the proxy alone can do: the backend answers at once and stores nothing. ``direct`` is the generator's."""
    return [Case("null", label, protocol, insert(protocol, hint), ("direct", path), 256, null=True)
            for protocol in PROTOCOLS
            for label, hint, path in (("not hinted", "", "relayed"), ("hinted", HINT, "batched"))]


def extreme(commit_ms: float, only: str | None) -> list[Case]:
    """A million writes a second offered by clients that pipeline, against the null backend."""
    return [Case("extreme", label, protocol, insert(protocol, HINT), ("direct", "batched"), 64, depth, rate, null=True)
            for protocol, depth in (("postgres", 256), ("mariadb", 128))
            for label, rate in (("target 1m", 1_000_000), ("closed loop", 0))]


def slow_disk(commit_ms: float, only: str | None) -> list[Case]:
    """256 connections with commits that take 1, 5 and 10 ms longer, as on a cloud's network disks."""
    return [Case("slow-disk", f"commit {ms:g} ms", protocol, insert(protocol, HINT), ("direct", "batched"), 256,
                 at=f"{ms:g}", commit_ms=ms, rounds=1)
            for protocol in PROTOCOLS for ms in COMMIT_MS]


def generator(commit_ms: float, only: str | None) -> list[Case]:
    """The own generator and pgbench with the same inserts, both direct: do the two agree?"""
    return [Case("generator", f"insert, {n} connections", "postgres", insert("postgres", ""), ("pgbench", "direct"), n,
                 inserts=False, rounds=3) for n in (16, 64)]


SCENARIOS = {"write": write, "forms": forms, "window": window, "clients": clients, "mix": mixed,
             "overhead": overhead, "null": null, "extreme": extreme, "slow-disk": slow_disk, "generator": generator}
