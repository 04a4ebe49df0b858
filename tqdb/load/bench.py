"""``tqdb bench``: the suite, on throwaway servers or given ones; turns are taken A B A B and medians quoted."""

import json
import os
import platform
from itertools import groupby
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tqdb.errors import ConfigError, TqdbError
from tqdb.load import engine
from tqdb.load.measure import Stage, run_case
from tqdb.load.never import findings, never, never_short, tables
from tqdb.load.scenarios import PROTOCOLS, TARGETS, Case
from tqdb.load.scenarios import SCENARIOS as OTHERS
from tqdb.load.servers import which
from tqdb.load.targets import Target

SCENARIOS = {**OTHERS, "never": never}
ALL = (*SCENARIOS, "engine")
DEFAULT_SECONDS, QUICK_SECONDS = 1.0, 0.5
SHIM = "TQDB_SLOWSYNC"          # environment: the preloaded library that makes commits slow
WIDE = 120                      # columns of a terminal that shows everything
WIDE_COLUMNS = ("per second", "p50 ms", "p95 ms", "p99 ms", "writes per\nbatch", "CPU µs\nclient", "CPU µs\nproxy",
                "CPU µs\nserver", "proxy\nMiB")
NARROW_COLUMNS = ("per second", "p50 ms", "p99 ms", "batch", "CPU µs\nproxy", "CPU µs\nserver")


def _shim(commit_ms: float) -> dict[str, str]:
    """The environment of a server whose commits take so much longer."""
    if not commit_ms:
        return {}
    path = os.environ.get(SHIM, "")
    if not Path(path).is_file():
        raise ConfigError(f"bench: a slow disk needs the library that `make bench` builds; allowed: {SHIM}=PATH of "
                          "slowsync.so, built from tqdb/load/slowsync.c")
    return {"LD_PRELOAD": str(Path(path).resolve()), "TQDB_SLOW_COMMIT_US": str(round(commit_ms * 1000))}


def _cases(names: list[str], short: bool, target: str | None, commit_ms: float, given: dict[str, Target]) -> list[Case]:
    """``short``: a scenario that has a short form takes it."""
    scenarios = {**SCENARIOS, "never": never_short} if short else SCENARIOS
    found = [case for name in names if name != "engine" for case in scenarios[name](commit_ms, target)]
    if given:
        found = [c for c in found if c.null or (c.protocol in given and not c.commit_ms)]
    return found


def _cpu(r: dict, *parts: str) -> str:
    found = [v for k, v in r["cpu_us_per_write"].items() if k in parts]
    return f"{sum(found):.1f}" if found else ""


def _row(r: dict, wide: bool) -> list[str]:
    rate = f"{r['writes_per_s']:,.0f}"
    if r["reached"] is False:
        rate += " ✗"
    batch = f"{r['avg_batch']:.1f}" if r["avg_batch"] > 1 else ""
    middle = (f"{r['p50_ms']:.2f}", f"{r['p95_ms']:.2f}", f"{r['p99_ms']:.2f}")
    cpu = (_cpu(r, "client"), _cpu(r, "proxy", "pgbouncer", "haproxy", "proxysql"), _cpu(r, "database", "null backend"))
    memory = sum(v for k, v in r["memory_mib"].items() if k not in ("database", "null backend"))
    return [r["label"], r["path"], rate, *(middle if wide else middle[::2]), batch, *(cpu if wide else cpu[1:]),
            *([f"{memory:.0f}" if memory else ""] if wide else [])]


def _tables(console: Console, results: list[dict], note: str) -> None:
    wide = console.width >= WIDE
    for (scenario, database), group in groupby(results, key=lambda r: (r["scenario"], r["database"])):
        if scenario == "never":
            continue
        text = engine.__doc__ if scenario == "engine" else SCENARIOS[scenario].__doc__
        table = Table(title=f"[bold]{scenario}, {database}[/bold]: {text.splitlines()[0]}", title_justify="left",
                      title_style="", box=SIMPLE, padding=(0, 1, 0, 0))
        for column in ("load", "path"):
            table.add_column(column, no_wrap=column == "path")
        for column in WIDE_COLUMNS if wide else NARROW_COLUMNS:
            table.add_column(column, justify="right", no_wrap=True)
        for r in group:
            table.add_row(*_row(r, wide), style="bold" if r["path"] in ("batched", "engine") else "")
        console.print(table)
    for table in tables([r for r in results if r["scenario"] == "never"]):
        console.print(table)
    console.print(note, soft_wrap=True)


def _findings(results: list[dict]) -> list[str]:
    """In words: what batching gave, and every target that was not reached, with the part that stood in the way."""
    found = []
    grid = [r for r in results if r["scenario"] == "never"]
    others = [r for r in results if r["scenario"] != "never"]
    for key, group in groupby(others, key=lambda r: (r["scenario"], r["database"], r["label"])):
        by_path = {r["path"]: r for r in group}
        direct, batched = by_path.get("direct"), by_path.get("batched")
        if direct and batched and not batched["target_per_s"]:
            ratio = batched["writes_per_s"] / max(1, direct["writes_per_s"])
            found.append(f"{', '.join(key)}: {ratio:.2f} times direct")
        if "pgbench" in by_path and direct:
            ratio = direct["writes_per_s"] / max(1, by_path["pgbench"]["writes_per_s"])
            found.append(f"{', '.join(key)}: the generator reaches {ratio:.2f} times pgbench's rate")
        for rival in ("pgbouncer", "haproxy", "proxysql"):
            if "relayed" in by_path and rival in by_path:
                ratio = by_path["relayed"]["writes_per_s"] / max(1, by_path[rival]["writes_per_s"])
                found.append(f"{', '.join(key)}: relayed by tqdb {ratio:.2f} times {rival}")
        found += [f"{', '.join(key)}, {path}: {r['writes_per_s']:,.0f} of {r['target_per_s']:,.0f} per second "
                  f"reached; busiest part: {r['busiest']}" for path, r in by_path.items() if r["reached"] is False]
    return found + (findings(grid) if grid else [])


def _run(console: Console, names: list[str], cases: list[Case], seconds: float, quick: bool,
         given: dict[str, Target]) -> list[dict]:
    """All measurements. Cases that share servers run one behind the other; results come in the order of names."""
    results: list[tuple[int, list[dict]]] = []
    order = sorted(range(len(cases)), key=lambda i: (cases[i].null, cases[i].commit_ms,
                                                     PROTOCOLS.index(cases[i].protocol), i))
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("starting", total=sum((1 if quick else c.rounds) * len(c.paths) for c in cases)
                                 + (4 if "engine" in names else 0))

        def step(text: str, advance: int) -> None:
            progress.update(task, description=text, advance=advance)

        if "engine" in names:
            results.append((ALL.index("engine") * 1000, engine.run(seconds, step)))
        for (null, commit_ms, protocol), indices in groupby(
                order, key=lambda i: (cases[i].null, cases[i].commit_ms, cases[i].protocol)):
            step(f"starting {'a null backend' if null else protocol}", 0)
            stage = Stage(protocol, given.get(protocol), null, _shim(commit_ms))
            try:
                for i in indices:
                    case = cases[i]
                    rounds = 1 if quick else case.rounds
                    missing = len(case.paths) - len(stage.paths(case))
                    step(f"{case.scenario}: {protocol}, {case.label}", rounds * missing)
                    results.append((ALL.index(case.scenario) * 1000 + i, run_case(stage, case, seconds, rounds, step)))
            finally:
                stage.close()
    return [r for _, some in sorted(results, key=lambda item: item[0]) for r in some]


def machine() -> str:
    """The machine in a line."""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} cores, {model}, Linux {platform.release()}"


def run(names: list[str], quick: bool, seconds: float | None, json_path: str | None, pictures: str | None,
        target: str | None, slow_disk: float, urls: list[str]) -> int:
    """Runs the named scenarios (all without a name); tables, JSON, pictures. Returns the exit code."""
    unknown = [n for n in names if n not in ALL]
    if unknown:
        raise ConfigError(f"bench: unknown scenario '{unknown[0]}'; allowed: {', '.join(ALL)}")
    if target is not None and target not in TARGETS:
        raise ConfigError(f"bench: unknown target '{target}'; allowed: {', '.join(TARGETS)}")
    if pictures:
        from tqdb.load.pictures import draw  # says so at once where matplotlib is missing
    given = {t.protocol: t for t in map(Target.from_url, urls)}
    console = Console()
    short = quick or not names
    if not names:
        names = list(ALL)
        if not os.environ.get(SHIM):
            names.remove("slow-disk")
            console.print(f"slow-disk is left out: {SHIM} names no library (`make bench` builds it)")
    seconds = seconds or (QUICK_SECONDS if quick else DEFAULT_SECONDS)
    for rival in ("pgbouncer", "haproxy", "proxysql"):
        if not which(rival) and {"write", "overhead", "never"} & set(names):
            console.print(f"{rival} is not installed and is left out")
    cases = _cases(names, short, target, slow_disk, given)
    for case in cases:
        _shim(case.commit_ms)
    if not cases and "engine" not in names:
        raise TqdbError("nothing to measure with these servers")
    results = _run(console, names, cases, seconds, quick, given)
    _tables(console, results, f"{'1 round' if quick else 'Medians of rounds taken in turns'}, {seconds:g} s each; CPU "
            f"per operation; ✗: the target was not reached. {machine()}")
    for line in _findings(results):
        console.print(line, soft_wrap=True, highlight=False)
    if json_path:
        Path(json_path).parent.mkdir(parents=True, exist_ok=True)
        Path(json_path).write_text(json.dumps(results, indent=1) + "\n")
        console.print(f"results: {json_path}", soft_wrap=True)
    if pictures:
        for path in draw(results, Path(pictures)):
            console.print(f"picture: {path}", soft_wrap=True)
    return 0
