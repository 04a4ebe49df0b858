"""``tqdb demo``: the same writes direct and batched, side by side, on throwaway servers."""

import json
import signal
import threading
import time
import urllib.request
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tqdb.load.messages import insert
from tqdb.load.servers import MariaDB, Postgres, Proxy
from tqdb.load.targets import Target
from tqdb.load.writers import Writers

HINT = "max_wait_ms:10 file:demo.py line:1"
LABELS = {"postgres": "PostgreSQL", "mariadb": "MariaDB"}


@dataclass
class Row:
    """One line of the table: a database on one path."""

    database: str
    path: str
    per_second: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    writes: int = 0
    operations: int = 0
    state: str = "waits"


def _operations(proxy: Proxy) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.metrics_port}/stats.json", timeout=5) as answer:
        return json.load(answer)["write_operations_total"]


def _table(rows: list[Row], title: str) -> Table:
    """Fits 80 columns; the state of a run stands where its rate will."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False,
                  show_edge=False)
    table.add_column("database", no_wrap=True)
    table.add_column("path", no_wrap=True)
    for name in ("writes/s", "p50 ms", "p99 ms", "writes", "operations", "per op."):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        figures = [f"{row.per_second:,.0f}", f"{row.p50:.2f}", f"{row.p99:.2f}", f"{row.writes:,}",
                   f"{row.operations:,}", f"{row.writes / row.operations:.1f}" if row.operations else ""]
        table.add_row(row.database, row.path, *(figures if row.writes else [row.state]),
                      style="bold" if row.path == "batched" else "")
    return table


def _measure(target: Target, proxy: Proxy, row: Row, seconds: float, connections: int, show) -> None:
    batched = row.path == "batched"
    port = getattr(proxy, f"{target.protocol}_port") if batched else None
    row.state = "connects"
    show()
    writers = Writers(target, port, connections)
    try:
        before = _operations(proxy)
        generator = writers.start(insert(target.protocol, HINT), seconds)
        row.state = "writes"
        last, last_at = 0, time.monotonic()
        while writers.thread.is_alive():
            writers.thread.join(0.25)
            now = time.monotonic()
            row.per_second = (generator.done - last) / (now - last_at)
            last, last_at = generator.done, now
            row.writes = generator.done
            row.p50, row.p99 = generator.percentile(0.5), generator.percentile(0.99)
            row.operations = _operations(proxy) - before if batched else row.writes
            show()
        writers.wait()
        row.writes = generator.done
        row.per_second = generator.done / generator.elapsed
        row.operations = _operations(proxy) - before if batched else row.writes
        row.state = "done"
        show()
    finally:
        writers.close()


def run(seconds: float, once: bool, connections: int) -> int:
    """Runs the demonstration; returns the exit code."""
    console = Console()
    servers: dict[str, object] = {}
    targets: dict[str, Target] = {}
    proxies: dict[str, Proxy] = {}
    try:
        for protocol, make in (("postgres", Postgres), ("mariadb", MariaDB)):
            with console.status(f"starting a throwaway {LABELS[protocol]} server and a proxy before it"):
                servers[protocol] = make().start()
                proxies[protocol] = Proxy(**{protocol: servers[protocol]}).start()
                targets[protocol] = Target.of(servers[protocol]).make()
        rows = [Row(LABELS[p], path) for p in servers for path in ("direct", "batched")]
        title = f"{connections} connections, one single-row INSERT after the other on each, {seconds:g} s a run"
        with Live(_table(rows, title), console=console, refresh_per_second=8) as live:
            show = lambda: live.update(_table(rows, title))  # noqa: E731
            for i, protocol in enumerate(servers):
                for row in rows[2 * i:2 * i + 2]:
                    _measure(targets[protocol], proxies[protocol], row, seconds, connections, show)
        if not console.is_terminal:
            console.print()         # a live table leaves the cursor behind its last line there
        for i, protocol in enumerate(servers):
            direct, batched = rows[2 * i:2 * i + 2]
            found = targets[protocol].rows()
            sent = direct.writes + batched.writes
            console.print(
                f"[bold]{LABELS[protocol]}[/bold]: {batched.per_second / max(direct.per_second, 1):.1f} times the "
                f"writes per second, {batched.writes / max(batched.operations, 1):.0f} writes per database "
                f"operation; {found:,} rows in the table for {sent:,} acknowledged writes", soft_wrap=True)
            if found != sent:
                console.print("[red]the table and the acknowledged writes differ[/red]")
                return 1
        if not once:
            _stay(console, targets, proxies)
        return 0
    finally:
        for thing in [*proxies.values(), *servers.values()]:
            thing.stop()


def _stay(console: Console, targets: dict[str, Target], proxies: dict[str, Proxy]) -> None:
    """Keeps servers and proxies up for a look around, until Ctrl-C."""
    console.print()
    for protocol, proxy in proxies.items():
        port = getattr(proxy, f"{protocol}_port")
        client = (f"psql 'host=127.0.0.1 port={port} user=postgres dbname=postgres'" if protocol == "postgres"
                  else f"mariadb -h 127.0.0.1 -P {port} -u root tqdb_bench")
        console.print(f"{LABELS[protocol]} through the proxy: {client}", soft_wrap=True)
        console.print(f"  dashboard: http://127.0.0.1:{proxy.metrics_port}/", soft_wrap=True)
    console.print("A small load keeps the dashboards alive. Ctrl-C ends everything.")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    writers = [Writers(targets[p], getattr(proxies[p], f"{p}_port"), 8) for p in targets]
    try:
        while not ended.is_set():
            for w in writers:
                w.start(insert(w.protocol, HINT), 0.2)
            for w in writers:
                w.wait()
            ended.wait(0.5)
    finally:
        for w in writers:
            w.close()
