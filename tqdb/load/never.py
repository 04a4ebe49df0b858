"""The scenario ``never``: whether batching is ever slower than going direct, cell by cell of a grid."""

from itertools import groupby, product

from rich.box import SIMPLE
from rich.table import Table

from tqdb.load.messages import insert_shapes
from tqdb.load.scenarios import PROTOCOLS, Case

CLIENTS = (1, 4, 16, 64, 256)
SHAPES = (1, 4, 16)
WAITS = ("1", "10", "100", "auto")
IDLE = (0, 200)
THINK_MS = (0, 5, 20)
ENOUGH = 0.95           # of the direct rate …
RELAYED = 0.97          # … or of the best rate of a proxy that only relays
SLACK_MS = 1.0          # what p99 may be above direct's and the wait
RIVALS = ("pgbouncer", "haproxy")


def _cell(protocol: str, clients: int, shapes: int, wait: str, idle: int, think_ms: int) -> Case:
    label = ", ".join((
        f"{clients} client{'s' * (clients > 1)}", f"{shapes} shape{'s' * (shapes > 1)}", f"wait {wait}",
        *([f"{idle} idle"] if idle else []), *([f"think {think_ms} ms"] if think_ms else [])))
    rivals = RIVALS if wait == "10" and not idle and not think_ms else ()
    return Case("never", label, protocol, insert_shapes(protocol, f"max_wait_ms:{wait}", shapes),
                ("direct", "batched", *rivals), clients, idle=idle, think_ms=think_ms, rounds=1,
                details={"clients": clients, "shapes": shapes, "wait": wait, "idle": idle, "think_ms": think_ms})


def never(commit_ms: float, only: str | None) -> list[Case]:
    """Batched against direct: clients and statement shapes, by wait, idle hinting sessions beside, and think time."""
    return [_cell(protocol, clients, shapes, wait, idle, think_ms) for protocol in PROTOCOLS
            for idle, wait, think_ms, shapes, clients in product(IDLE, WAITS, THINK_MS, SHAPES, CLIENTS)]


def never_short(commit_ms: float, only: str | None) -> list[Case]:
    """The cells of ``never`` that say most."""
    return [_cell(protocol, *cell) for protocol in PROTOCOLS for cell in (
        *product(CLIENTS, (1, 16), ("10",), (0,), (0,)), *product((16, 64), (16,), ("10",), (200,), (0,)),
        *product((16, 256), (16,), ("10",), (0,), (5,)))]


def cells(results: list[dict]) -> list[dict[str, dict]]:
    """The results of each cell that was measured both ways, by path."""
    found = [{r["path"]: r for r in group} for _, group in groupby(results, key=lambda r: (r["database"], r["label"]))]
    return [c for c in found if {"direct", "batched"} <= set(c)]


def ratio(cell: dict[str, dict]) -> float:
    """Batched writes per second in units of direct ones."""
    return cell["batched"]["writes_per_s"] / max(1.0, cell["direct"]["writes_per_s"])


def excess_ms(cell: dict[str, dict]) -> float:
    """Milliseconds by which p99 is above direct's."""
    return cell["batched"]["p99_ms"] - cell["direct"]["p99_ms"]


def _relayed(cell: dict[str, dict]) -> float:
    """The best rate of a proxy that only relays, in units of direct; 0: none was measured."""
    return max((cell[r]["writes_per_s"] for r in RIVALS if r in cell), default=0.0) / max(
        1.0, cell["direct"]["writes_per_s"])


def is_short(cell: dict[str, dict]) -> bool:
    """Whether it falls short of what batching promises.

    Closed loop: a rate of ``ENOUGH`` times direct's, or ``RELAYED`` times the best relay's. With think time: p99 no
    more above direct's than the wait and ``SLACK_MS``; ``auto`` counts as no wait.
    """
    details = cell["batched"]
    if details["think_ms"]:
        return excess_ms(cell) > (0.0 if details["wait"] == "auto" else float(details["wait"])) + SLACK_MS
    bound = RELAYED * _relayed(cell) if _relayed(cell) else ENOUGH
    return ratio(cell) < min(ENOUGH, bound)


def tables(results: list[dict]) -> list[Table]:
    """A table for each database and think time: cells by clients, what falls short in bold red."""
    found = []
    ordered = sorted(cells(results), key=lambda c: (
        PROTOCOLS.index(c["batched"]["database"]), c["batched"]["think_ms"]))
    for (database, think_ms), some in groupby(ordered, key=lambda c: (
            c["batched"]["database"], c["batched"]["think_ms"])):
        some = list(some)
        what = f"p99 above direct's, ms, think time {think_ms} ms" if think_ms else "writes per second, direct = 1"
        table = Table(title=f"[bold]never, {database}[/bold]: {what}", title_justify="left", title_style="", box=SIMPLE,
                      padding=(0, 1, 0, 0))
        clients = sorted({c["batched"]["clients"] for c in some})
        for column in ("shapes", "wait", "idle", *(f"{n}" for n in clients)):
            table.add_column(column, justify="right", no_wrap=True)
        rows = sorted({(c["batched"]["shapes"], WAITS.index(c["batched"]["wait"]), c["batched"]["idle"]) for c in some})
        for shapes, wait, idle in rows:
            texts = []
            for n in clients:
                cell = next((c for c in some if c["batched"]["clients"] == n and c["batched"]["shapes"] == shapes
                             and c["batched"]["wait"] == WAITS[wait] and c["batched"]["idle"] == idle), None)
                text = "" if cell is None else f"{excess_ms(cell):.1f}" if think_ms else f"{ratio(cell):.2f}"
                texts.append(f"[bold red]{text}[/bold red]" if cell is not None and is_short(cell) else text)
            table.add_row(str(shapes), WAITS[wait], str(idle), *texts)
        found.append(table)
    return found


def findings(results: list[dict]) -> list[str]:
    """How many cells there are, and each that falls short, in words."""
    measured = cells(results)
    short = [c for c in measured if is_short(c)]
    found = [f"never: {len(measured) - len(short)} of {len(measured)} cells are as good as direct"]
    for c in short:
        b = c["batched"]
        if b["think_ms"]:
            found.append(f"never, {b['database']}, {b['label']}: p99 {excess_ms(c):.1f} ms above direct's")
            continue
        relay = f", a relay {_relayed(c):.2f}" if _relayed(c) else ""
        found.append(f"never, {b['database']}, {b['label']}: {ratio(c):.2f} times direct{relay}")
    return found
