"""The results of a benchmark as PNG pictures."""

from collections.abc import Callable
from pathlib import Path

from tqdb.errors import ConfigError
from tqdb.load.never import cells, ratio

try:
    import matplotlib
    import matplotlib.colors
    matplotlib.use("Agg")
    from matplotlib import pyplot
except ImportError:
    raise ConfigError("bench: --pictures needs matplotlib; pip install 'tqdb[bench]'") from None

NAMES = {"postgres": "PostgreSQL", "mariadb": "MariaDB"}
COLOURS = {"direct": "#9aa5b1", "batched": "#1f77b4", "relayed": "#7fb3dc", "pgbouncer": "#d98c3f",
           "haproxy": "#c9b458", "proxysql": "#a979b0", "null": "#1f77b4"}
PARTS = {"client": "#c8ccd2", "proxy": "#1f77b4", "database": "#d9534f", "null backend": "#d9534f"}


def _panels(results: list[dict], title: str, height: float = 4.2):
    """A figure with a panel for each database among the results."""
    databases = [d for d in NAMES if any(r["database"] == d for r in results)]
    figure, axes = pyplot.subplots(1, len(databases), figsize=(5.6 * len(databases), height), squeeze=False)
    figure.suptitle(title)
    return figure, list(zip(databases, axes[0], strict=True))


def _bars(axis, results: list[dict], value: Callable[[dict], float], unit: str, log: bool = False) -> None:
    """Groups of bars, one group for each label, one bar for each path."""
    labels = list(dict.fromkeys(r["label"] for r in results))
    paths = list(dict.fromkeys(r["path"] for r in results))
    width = 0.8 / len(paths)
    for k, path in enumerate(paths):
        some = [(labels.index(r["label"]), value(r), r) for r in results if r["path"] == path]
        bars = axis.bar([x + (k - (len(paths) - 1) / 2) * width for x, _, _ in some], [v for _, v, _ in some], width,
                        label=path, color=COLOURS.get(path, "#555555"))
        for bar, (_, _, r) in zip(bars, some, strict=True):
            if r["reached"] is False:
                bar.set_hatch("///")
    axis.set_xticks(range(len(labels)), labels, rotation=20 if len(labels) > 3 else 0, ha="right" if len(labels) > 3
                    else "center", fontsize=8)
    axis.set_ylabel(unit)
    axis.grid(axis="y", alpha=0.3)
    if log:
        axis.set_yscale("log")
    axis.legend(fontsize=8)


def _rate(r: dict) -> float:
    return r["writes_per_s"]


def _targets(results: list[dict], folder: Path) -> Path:
    figure, panels = _panels(results, "Offered 1k to 1M writes a second (hatched: the target was not reached)", 7.5)
    figure.clear()
    databases = [d for d, _ in panels]
    axes = figure.subplots(2, len(databases), squeeze=False)
    for k, database in enumerate(databases):
        some = [r for r in results if r["database"] == database]
        _bars(axes[0][k], some, _rate, "writes per second", log=True)
        _bars(axes[1][k], some, lambda r: r["p99_ms"], "p99 latency, ms", log=True)
        axes[0][k].set_title(NAMES[database])
    figure.suptitle("Offered 1k to 1M writes a second (hatched: the target was not reached)")
    return _save(figure, folder / "write.png")


def _window(results: list[dict], folder: Path) -> Path:
    figure, panels = _panels(results, "30,000 writes a second offered, by max_wait_ms")
    for database, axis in panels:
        some = [r for r in results if r["database"] == database]
        x = range(len(some))
        for key, style in (("p50_ms", "-o"), ("p95_ms", "-s"), ("p99_ms", "-^")):
            axis.plot(x, [r[key] for r in some], style, label=key.replace("_ms", ""), markersize=4)
        axis.set_xticks(x, [r["at"] for r in some])
        axis.set_xlabel("max_wait_ms")
        axis.set_ylabel("latency, ms")
        axis.set_yscale("log")
        axis.set_title(NAMES[database])
        axis.grid(alpha=0.3)
        rate = axis.twinx()
        rate.bar(x, [r["writes_per_s"] for r in some], color=COLOURS["batched"], alpha=0.2)
        rate.set_ylabel("writes per second (bars)")
        axis.legend(fontsize=8)
    return _save(figure, folder / "window.png")


def _clients(results: list[dict], folder: Path) -> Path:
    figure, panels = _panels(results, "Writes per second by connections, one outstanding write on each")
    for database, axis in panels:
        for path in ("direct", "batched"):
            some = [r for r in results if r["database"] == database and r["path"] == path]
            axis.plot([int(r["at"]) for r in some], [r["writes_per_s"] for r in some], "-o", label=path,
                      color=COLOURS[path])
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("connections")
        axis.set_ylabel("writes per second")
        axis.set_title(NAMES[database])
        axis.grid(alpha=0.3)
        axis.legend()
    return _save(figure, folder / "clients.png")


def _cpu(results: list[dict], folder: Path) -> Path:
    """CPU per write of those cases in which direct and batched did the same work."""
    figure, panels = _panels(results, "CPU time per write, µs")
    for database, axis in panels:
        some = [r for r in results if r["database"] == database]
        names = [f"{r['label']}\n{r['path']}" for r in some]
        left = [0.0] * len(some)
        for part in ("client", "proxy", "database"):
            values = [r["cpu_us_per_write"].get(part, 0.0) for r in some]
            axis.barh(names, values, left=left, label=part, color=PARTS[part])
            left = [a + b for a, b in zip(left, values, strict=True)]
        axis.invert_yaxis()
        axis.tick_params(axis="y", labelsize=7)
        axis.set_title(NAMES[database])
        axis.grid(axis="x", alpha=0.3)
        axis.legend(fontsize=8)
    return _save(figure, folder / "cpu.png")


def _never(results: list[dict], folder: Path) -> Path:
    """A heat map for each database: batched writes per second in units of direct ones, without think time."""
    figure, panels = _panels(results, "Batched writes per second, direct = 1 (by wait, idle sessions, shapes)", 6.5)
    for database, axis in panels:
        some = [c for c in cells(results) if c["batched"]["database"] == database and not c["batched"]["think_ms"]]
        columns = sorted({c["batched"]["clients"] for c in some})
        rows = list(dict.fromkeys((c["batched"]["wait"], c["batched"]["idle"], c["batched"]["shapes"]) for c in some))
        grid = [[float("nan")] * len(columns) for _ in rows]
        for c in some:
            b = c["batched"]
            x, y = columns.index(b["clients"]), rows.index((b["wait"], b["idle"], b["shapes"]))
            grid[y][x] = ratio(c)
            axis.text(x, y, f"{ratio(c):.2f}", ha="center", va="center", fontsize=7)
        axis.imshow(grid, aspect="auto", cmap="RdYlGn", norm=matplotlib.colors.TwoSlopeNorm(1.0, 0.5, 4.0))
        axis.set_xticks(range(len(columns)), [str(n) for n in columns])
        axis.set_yticks(range(len(rows)), [f"{wait}, {idle}, {shapes}" for wait, idle, shapes in rows], fontsize=7)
        axis.set_xlabel("clients")
        axis.set_title(NAMES[database])
    return _save(figure, folder / "never.png")


def _plain(name: str, title: str) -> Callable[[list[dict], Path], Path]:
    def picture(results: list[dict], folder: Path) -> Path:
        figure, panels = _panels(results, title)
        for database, axis in panels:
            _bars(axis, [r for r in results if r["database"] == database], _rate, "per second")
            axis.set_title(NAMES[database])
        return _save(figure, folder / f"{name}.png")
    return picture


def _save(figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


PICTURES = {
    "write": (_targets,), "window": (_window,), "clients": (_clients,),
    "forms": (_plain("forms", "256 connections, by the way a driver sends its writes"), _cpu),
    "overhead": (_plain("overhead", "Statements that are only relayed, per second"),),
    "null": (_plain("null", "Against the null backend: what the proxy alone can do"),),
    "extreme": (_plain("extreme", "Pipelining clients against the null backend"),),
    "mix": (_plain("mix", "Half reads, three tenths hinted inserts, two tenths plain inserts"),),
    "never": (_never,),
    "slow-disk": (_plain("slow-disk", "256 connections, commits that take longer"),),
}


def draw(results: list[dict], folder: Path) -> list[Path]:
    """Draws what the results have pictures for; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for scenario, pictures in PICTURES.items():
        some = [r for r in results if r["scenario"] == scenario]
        if some:
            made += [picture(some, folder) for picture in pictures]
    return made
