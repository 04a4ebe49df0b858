"""``tqdb top``: the dashboard's figures in a terminal."""

import json
import signal
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack
from functools import partial

from rich.box import SIMPLE
from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tqdb.errors import TqdbError

BARS = " ▁▂▃▄▅▆▇█"
SOURCES = 10
SHAPES = 5
RULES = 10
EVENTS = 5
GAP = 3                     # columns between tables
LEFT_OF_TEXT = 24           # columns that a table has beside its text
SIDES = {"client": "to clients", "server": "to servers"}


def fetch(address: str, what: str = "stats.json") -> dict:
    """``/stats.json``, or ``what``, of the proxy whose HTTP listens on ``address``; TqdbError if it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{address}/{what}", timeout=5) as answer:
            return json.load(answer)
    except (OSError, urllib.error.URLError, ValueError) as e:
        raise TqdbError(f"no tqdb answers on http://{address}/: {getattr(e, 'reason', e)}") from None


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _spark(values: list[float], top: float) -> str:
    return "".join(BARS[min(8, round(8 * v / top))] if top else " " for v in values)


def _table(title: str, columns: tuple[str, ...], rows: list[tuple], texts: int = 1) -> Table:
    """``texts``: how many of the columns are text and not numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False,
                  show_header=any(columns))
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i >= texts else "left", overflow="fold", no_wrap=i >= texts)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    if not rows:
        table.add_row("nothing yet", *[""] * (len(columns) - 1))
    return table


def _beside(width: int, *tables: Table) -> list[Columns]:
    """``tables`` in as many rows as they need."""
    console = Console(width=width)
    rows: list[list[Table]] = []
    left = 0
    for table in tables:
        wanted = Measurement.get(console, console.options, table).maximum + GAP
        if wanted > left:
            rows.append([])
            left = width + GAP
        left -= wanted
        rows[-1].append(table)
    return [Columns(row, padding=(0, GAP)) for row in rows]


def _state(server: dict) -> str:
    """A server's, in a few words."""
    if not server["up"]:
        return "not tried yet" if server["up"] is None else f"down: {server['error']}"
    words = ["up"]
    if server["role"] != "unknown":
        words.append(server["role"])
    elif server["error"]:
        words.append(server["error"])
    if not server["serves"]:
        words.append("not used")
    if server["lag"] is not None:
        words.append(f"{server['lag']:.1f} s behind")
    if server["galera"]:
        words.append(server["galera"])
    return ", ".join(words)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[:width - 1] + "…"


def _reasons(title: str, what: str, counts: dict[str, int], words: dict[str, str]) -> Table:
    """Those that there are, the most frequent first."""
    return _table(title, ("reason", "", what), [
        (reason, words.get(reason, ""), _number(n))
        for reason, n in sorted(counts.items(), key=lambda found: -found[1]) if n], 2)


def _shapes(s: dict, width: int) -> Table:
    """A line for each: what is written, how often, and what share goes in batches."""
    return _table(f"writes by shape, {min(SHAPES, len(s['shapes']))} of {s['shapes_watched']:,}",
                  ("statement", "writes/s", "batched"), [
        (_cut(" ".join(x["statement"].split()), width - LEFT_OF_TEXT), _number(x["writes_per_second"], 1),
         f"{x['batched_percent']:.1f} %") for x in s["shapes"][:SHAPES]])


def _tls(tls: dict) -> Table:
    rows = [(f"{SIDES[a['side']]}, {a['protocol']} {a['backend']}".rstrip(), a["mode"]) for a in tls["asked"]]
    rows += [(f"{c['side']} connections, {c['version']}", _number(c["count"])) for c in tls["connections"]]
    return _table("TLS", ("", ""), rows, 2)


def _rules(rules: list[dict]) -> Table:
    more = f", {RULES} of {len(rules)}" if len(rules) > RULES else ""
    return _table(f"rules{more}", ("rule", "matches", "wait, ms", "hits"), [
        (rule["rule"], rule["conditions"], rule["max_wait_ms"] + " force" * (rule["force"] == "yes"),
         _number(rule["hits"])) for rule in rules[:RULES]], 2)


def view(s: dict, address: str, width: int) -> Group:
    """The figures of one ``/stats.json``."""
    state = Text("ready", "green") if s["ready"] else Text(f"not ready: {s['ready_reason']}", "red")
    head = Text.assemble(("tqdb ", "bold"), f"{s['version']} on {address}, up {s['uptime_seconds']:,.0f} s, ", state)
    figures = _table("now", ("", "per second", "total"), [
        ("writes", _number(s["writes_per_second"]), _number(s["writes_total"])),
        ("database operations", _number(s["operations_per_second"]), _number(s["write_operations_total"])),
    ])
    gain = _table("last 10 seconds", ("", ""), [
        ("writes per operation", _number(s["aggregation_factor"], 1)),
        ("batched", _number(s["effectiveness_percent"], 1) + " %"),
        ("gathering now", _number(s["gathered"])),
        ("batches under way", _number(s["batches_running"])),
        ("longest turn of the loop, ms", _number(s["loop_turn_ms"]["longest"], 1)),
    ])
    latency = _table("latency, ms", ("", "p50", "p95", "p99"), [
        (kind, *(_number(found[p], 2) for p in ("p50", "p95", "p99")))
        for kind, found in s["latency_ms"].items() if found["p50"] is not None])
    history = s["history"][-max(10, width - 30):]
    highest = max([1.0, *(h["writes"] for h in history)])
    chart = Group(
        Text.assemble(("writes/s      ", "bold"), (_spark([h["writes"] for h in history], highest), "cyan"),
                      f" {highest:,.0f}"),
        Text.assemble(("operations/s  ", "bold"), (_spark([h["operations"] for h in history], highest), "yellow")))
    connections = [(f"client {c['protocol']} {c['state']}", c["count"]) for c in s["client_connections"] if c["count"]]
    connections += [(f"server {c['protocol']} {c['state']}", c["count"]) for c in s["server_connections"] if c["count"]]
    backends = [(f"{b['protocol']} {b['address']}", _state(b)) for b in s["backends"]]
    sources = [(f"{x['file'] or '(no hint)'}{':' + x['line'] if x['line'] else ''}", _number(x["writes"]),
                f"{100 * x['batched'] / x['writes']:.1f} %") for x in s["sources"][:SOURCES]]
    parts = [Group(head, chart), *_beside(width, figures, gain, latency), _shapes(s, width),
             *_beside(width, _reasons("why writes went alone", "writes", s["individual"], s["words"]["individual"]),
                      _reasons("why batches left", "batches", s["flush"], s["words"]["flush"])),
             Text(f"what each reason means, and what to do: http://{address}/reasons", "dim"),
             *_beside(width, _table("connections", ("", ""), connections), _table("servers", ("", ""), backends, 2),
                      _tls(s["tls"]))]
    if s["rules"]:
        parts.append(_rules(s["rules"]))
    parts.append(_table("where writes come from", ("place", "writes", "batched"), sources))
    events = [Text(f"{e['age']:,.0f} s ago  {e['level']}  {e['message']}", "red" if e["level"] == "error" else "yellow")
              for e in s["events"][-EVENTS:]]
    return Group(*(piece for part in parts for piece in (part, "")), *events)


def run(address: str, once: bool, interval: float) -> int:
    """Shows them until Ctrl-C: on a terminal in place, elsewhere one below the other."""
    console = Console()

    def look() -> Group:
        return view(fetch(address), address, console.width)

    ended = threading.Event()
    with ExitStack() as stack:
        show = console.print
        first = look()
        if not once:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: ended.set())
            if console.is_terminal:
                live = stack.enter_context(Live(first, console=console, screen=True, auto_refresh=False))
                show = partial(live.update, refresh=True)
        show(first)
        while not once and not ended.wait(interval):
            show(look())
    return 0
