"""``tqdb advise``: which writes would gain from batching, why others cannot, and the rules to paste."""

import json
import time

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tqdb.advice import difference, origin
from tqdb.top import fetch

SHOWN = 20                  # shapes, unless all are asked for with --json
STATEMENT = 160             # characters of one that are shown
STYLES = {"merged": "green", "pipelined": "green", "alone": "yellow", "unknown": "dim"}


def _share(shape: dict, window: dict) -> str:
    return f"{100 * window['saved'] / shape['writes']:.0f}" if shape["writes"] else ""


def _said(shape: dict) -> Text:
    """A shape in words: its statement, what becomes of it, where it comes from."""
    statement = shape["statement"]
    text = Text(statement if len(statement) <= STATEMENT else statement[:STATEMENT - 1] + "…", "bold")
    verdict = shape["verdict"]
    text.append(f"\n{verdict}", STYLES[verdict])
    text.append(f": {shape['why']}", "")
    facts = [f"{shape['protocol']} {shape['database']}", origin(shape)]
    if 0.5 <= shape["outside_percent"] < 99.5:
        facts.append(f"{100 - shape['outside_percent']:.0f} % inside transactions")
    if shape["batched"]:
        facts.append(f"{shape['batched_percent']:.0f} % batched already")
    text.append("\n" + ", ".join(fact for fact in facts if fact), "dim")
    return text


def view(found: dict, address: str, seconds: float) -> list:
    """What is printed, as rich renderables."""
    about = (f"tqdb {found['version']} on {address}: {found['writes']:,} writes in {seconds:,.0f} s, "
             f"{found['watched']:,} of at most {found['max_shapes_watched']:,} shapes")
    if found["unread"]:
        about += f"; {found['unread']:,} were too long to be looked at"
    parts: list = [Text(about)]
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, expand=True, leading=1)
    table.add_column("statement", overflow="fold", ratio=1)
    for name in ("writes/s", "conns", "1 ms", "10 ms", "50 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for shape in found["shapes"][:SHOWN]:
        table.add_row(_said(shape), f"{shape['writes_per_second']:,.1f}", f"{shape['connections']:,}",
                      *(_share(shape, window) for window in shape["windows"]))
    if not found["shapes"]:
        table.add_row("no write has come through yet", *[""] * 5)
    parts += [table, Text("1, 10, 50 ms: percent of the operations that such a window would have saved.", "dim")]
    if len(found["shapes"]) > SHOWN:
        parts.append(Text(f"{len(found['shapes']) - SHOWN:,} more with --json.", "dim"))
    rules = [shape for shape in found["shapes"] if shape["rule"]]
    if rules:
        parts.append(Text("\nTo paste into the configuration; SIGHUP puts it into force:\n", "bold"))
    for shape in rules[:SHOWN]:
        window = next(w for w in shape["windows"] if w["ms"] == shape["max_wait_ms"])
        parts.append(Text(
            f"; {shape['statement'][:76]}\n; would have saved {window['saved']:,} of {shape['writes']:,} operations, "
            f"for {window['extra_latency_ms']:.1f} ms more at most\n", "dim", no_wrap=True, overflow="crop"))
        parts.append(Text(shape["rule"]))
    return parts


def run(address: str, minutes: float | None, as_json: bool) -> int:
    """Prints what the proxy at ``address`` advises: since its start, or about the next ``minutes``."""
    console = Console()
    found = fetch(address, "advice.json")
    seconds = found["uptime_seconds"]
    if minutes is not None:
        if console.is_terminal and not as_json:
            console.print(f"watching for {minutes:g} min …")
        time.sleep(60 * minutes)
        before, found = found, fetch(address, "advice.json")
        seconds = found["uptime_seconds"] - before["uptime_seconds"]
        found = difference(found, before)
    if as_json:
        print(json.dumps(found, indent=1))
        return 0
    for part in view(found, address, seconds):
        console.print(part)
    return 0
