"""Metrics: a ``prometheus_client`` collector that reads the core's counters when asked, and what a dashboard shows.

Everything here runs in the proxy's loop: ``exposition`` is a generator whose steps are short.
"""

import json
import os
import resource
import time
from collections import deque
from collections.abc import Iterator
from itertools import accumulate, chain, islice

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from tqdb import __version__
from tqdb._core import (
    BATCH_SIZE_BOUNDS,
    LATENCY_KINDS,
    REASONS,
    SECONDS_BOUNDS,
    SourceSnapshot,
    count_states,
    count_tls,
    fine_percentile,
)
from tqdb.advice import origin
from tqdb.log import Recent
from tqdb.loop import TURN_BOUNDS
from tqdb.policy import PURPOSES
from tqdb.reasons import WORDS
from tqdb.rules import COLUMNS as RULE_COLUMNS

DIALECTS = ("postgres", "mariadb")
WRITES = ("insert", "update", "delete", "replace")
WINDOW_SECONDS = 10         # over which derived figures look back
HISTORY_SECONDS = 180       # of the dashboard's charts
TOP_SOURCES = 20
TOP_SHAPES = 10
SHAPE_KEYS = ("id", "protocol", "database", "statement", "writes", "writes_per_second", "batched", "batched_percent",
              "alone", "verdict", "why")
SLICE = 64                  # places rendered in one step of a scrape
REFUSALS = ("connect", "too_many", "timeout", "protocol", "unsupported", "tls", "password", "verifier", "shutdown")
PROC = "/proc/self"
COUNT_SECONDS = 10          # between two counts of open descriptors where the kernel does not keep their number
EVENTS = 20                 # last warnings that are shown

# What is counted by file and line is rendered by the core; these are its headers.
_SOURCE_FAMILIES = (
    ("queries", CounterMetricFamily("tqdbproxy_query", "Statements by where they come from")),
    ("latency", HistogramMetricFamily("tqdbproxy_query_latency_seconds", "Statement received to answer sent")),
    ("batched", CounterMetricFamily("tqdbproxy_batched_writes", "Writes that went in a batch")),
    ("excluded", CounterMetricFamily("tqdbproxy_write_excluded", "Hinted writes that went alone")),
)


def _buckets(bounds: tuple, counts: list[int]) -> list[tuple[str, int]]:
    """Cumulative ``(le, count)`` pairs as Prometheus wants them."""
    out = []
    total = 0
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        total += count
        out.append(("+Inf" if bound == float("inf") else str(float(bound)), total))
    return out


def _bucket_percentile(counts: list[int], share: float) -> float | None:
    """Milliseconds below which ``share`` of the loop's turns lie, at most: a bucket's upper bound; None without any."""
    wanted = share * sum(counts)
    for bound, total in zip(TURN_BOUNDS, accumulate(counts), strict=False):
        if total >= wanted:
            return 1000 * bound if wanted else None
    return 1000 * TURN_BOUNDS[-1]


def _counter(name: str, doc: str, labels: list[str], values: dict) -> CounterMetricFamily:
    family = CounterMetricFamily(name, doc, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key) if isinstance(key, tuple) else [key], value)
    return family


def _gauge(name: str, doc: str, labels: list[str], values: dict) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, doc, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key) if isinstance(key, tuple) else [key], value)
    return family


def _memory() -> tuple[int, int] | None:
    """Bytes of virtual and of resident memory; None where that cannot be read."""
    try:
        with open(f"{PROC}/statm", "rb") as f:
            virtual, resident = (int(pages) * resource.getpagesize() for pages in f.read().split()[:2])
    except (OSError, ValueError):
        return None
    return virtual, resident


class _One:
    """A registry of one family, as the encoders want it."""

    def __init__(self, family):
        self.family = family

    def collect(self):
        return [self.family]


class Sample:
    """Totals at one moment; ``longest`` is the loop's longest turn of the second before."""

    def __init__(self, stats, loop):
        totals = stats.totals()
        self.turns = list(loop.turns)
        self.longest = loop.longest
        self.at = time.monotonic()
        self.batched = {q: totals["batched"][q] for q in WRITES}
        self.individual = dict.fromkeys(WRITES, 0)
        for (query_type, _), n in totals["individual"].items():
            if query_type in self.individual:
                self.individual[query_type] += n
        self.operations = {q: totals["backend_writes"][q] for q in WRITES}
        self.sizes = [sum(c) for c in zip(*(totals["size"][q][0] for q in WRITES), strict=True)]
        self.latencies = stats.latencies()

    def writes(self, query_type: str) -> int:
        return self.batched[query_type] + self.individual[query_type]

    def all_writes(self) -> int:
        return sum(self.batched.values()) + sum(self.individual.values())

    def percentiles(self, past: "Sample") -> dict[str, dict[str, float | None]]:
        """p50, p95, p99 in milliseconds of what was answered since ``past``, by ``LATENCY_KINDS``."""
        out = {}
        for kind, now, before in zip(LATENCY_KINDS, self.latencies, past.latencies, strict=True):
            counts = [a - b for a, b in zip(now, before, strict=True)]
            out[kind] = {f"p{p}": fine_percentile(counts, p / 100) for p in (50, 95, 99)}
        return out


class Metrics(Collector):
    """What ``/metrics``, ``/stats.json``, ``/healthz`` and ``/readyz`` say about a ``server.Server``."""

    def __init__(self, server, recent: Recent):
        self.server = server
        self.recent = recent
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        self.started = time.time()
        self.descriptors: int | None = None     # as counted last, …
        self.counted = 0.0                      # … and when
        self.samples: deque[Sample] = deque(maxlen=WINDOW_SECONDS + 2)
        self.history: deque[tuple] = deque(maxlen=HISTORY_SECONDS)
        self._take_sample()

    def describe(self):
        return []

    def _take_sample(self) -> None:
        self.server.loop.call_later(1, self._take_sample)
        now = Sample(self.server.engine.stats, self.server.loop)
        if self.samples:
            last = self.samples[-1]
            seconds = max(now.at - last.at, 1e-3)
            # of writes alone: what applications wait for
            counts = [a + b - c - d for a, b, c, d in zip(*now.latencies[:2], *last.latencies[:2], strict=True)]
            self.history.append((
                time.time(), (now.all_writes() - last.all_writes()) / seconds,
                (sum(now.operations.values()) - sum(last.operations.values())) / seconds,
                fine_percentile(counts, 0.5), fine_percentile(counts, 0.99)))
        self.samples.append(now)
        self.server.loop.longest = 0.0

    def window(self) -> tuple[Sample, Sample, Sample]:
        """Totals now, a second ago, and up to ``WINDOW_SECONDS`` ago."""
        now = Sample(self.server.engine.stats, self.server.loop)
        past = next((s for s in self.samples if now.at - s.at <= WINDOW_SECONDS), self.samples[-1])
        last = next((s for s in reversed(self.samples) if now.at - s.at >= 0.95), past)
        return now, last, past

    def rates(self) -> dict:
        """Per query type ``(writes, batched, operations)`` of the last seconds, and writes per second."""
        now, last, past = self.window()
        seconds = max(now.at - last.at, 1e-3)
        return {
            "window": {q: (now.writes(q) - past.writes(q), now.batched[q] - past.batched[q],
                           now.operations[q] - past.operations[q]) for q in WRITES},
            "writes_per_second": (now.all_writes() - last.all_writes()) / seconds,
            "operations_per_second": (sum(now.operations.values()) - sum(last.operations.values())) / seconds,
            "sizes": [a - b for a, b in zip(now.sizes, past.sizes, strict=True)],
            "latency": now.percentiles(past),
            "turns": {
                "longest": 1000 * max(s.longest for s in (now, *self.samples) if s.at >= past.at),
                "p99": _bucket_percentile([a - b for a, b in zip(now.turns, past.turns, strict=True)], 0.99)},
        }

    def connections(self) -> tuple[dict, dict]:
        """Connections by ``(protocol, state)``: of clients, and to servers."""
        return tuple({(DIALECTS[dialect], state): n for (dialect, state), n in found.items()
                      if DIALECTS[dialect] in self.server.backends}
                     for found in count_states(self.server.sessions))

    def tls(self) -> dict:
        """What the configuration asks of clients and of backends, and how many connections have it."""
        asked = []
        for name, protocol in self.server.config.protocols():
            asked.append({"side": "client", "protocol": name, "backend": "", "mode": protocol.tls,
                          "certificates": protocol.tls_client_ca is not None})
            asked += [{"side": "server", "protocol": name, "backend": backend.name, "mode": backend.tls,
                       "certificates": backend.tls_cert is not None} for backend in protocol.backends.values()]
        return {"asked": asked, "connections": [{"side": side, "version": version, "count": n}
                                                for (side, version), n in count_tls(self.server.sessions).items()]}

    def collect(self):
        """Every family without a file and a line; all totals are read before the first."""
        stats = self.server.engine.stats
        totals = stats.totals()
        rates = self.rates()
        yield _counter("tqdbproxy_database_queries", "Operations sent to the database", ["replica"],
                       {"primary": stats.database_queries})
        yield _counter("tqdbproxy_backend_write_queries", "Write operations sent to the database",
                       ["query_type"], {q: totals["backend_writes"][q] for q in WRITES})
        yield _counter("tqdbproxy_individual_writes", "Writes that went alone, and why",
                       ["query_type", "reason"],
                       {**{(q, r): 0 for q in WRITES for r in REASONS}, **totals["individual"]})
        for name, doc, key, bounds in (
                ("tqdbproxy_write_batch_size", "Writes in a batch", "size", BATCH_SIZE_BOUNDS),
                ("tqdbproxy_write_batch_delay_seconds", "First write gathered to batch sent", "delay",
                 SECONDS_BOUNDS),
                ("tqdbproxy_write_batch_latency_seconds", "Batch sent to answer", "latency", SECONDS_BOUNDS)):
            family = HistogramMetricFamily(name, doc, labels=["query_type"])
            for q in WRITES:
                counts, total = totals[key][q]
                family.add_metric([q], _buckets(bounds, counts), total)
            yield family
        yield _counter("tqdbproxy_write_batch_flush", "Why a gathered batch left", ["reason"], totals["flush"])
        yield _counter("tqdbproxy_write_batch_method", "How batches were sent", ["method"], totals["methods"])
        yield _counter("tqdbproxy_write_batch_retries", "Batches that failed whole and were taken apart", ["cause"],
                       totals["retries"])
        window = rates["window"]
        yield _gauge("tqdbproxy_write_aggregation_factor", "Writes per write operation, last 10 seconds",
                     ["query_type"], {q: w / o if o else 0.0 for q, (w, _, o) in window.items()})
        yield _gauge("tqdbproxy_batch_effectiveness_percent", "Share of writes batched, last 10 seconds",
                     ["query_type"], {q: 100.0 * b / w if w else 0.0 for q, (w, b, _) in window.items()})
        yield GaugeMetricFamily("tqdbproxy_write_ops_per_second", "Writes over the last second",
                                value=rates["writes_per_second"])
        yield GaugeMetricFamily("tqdbproxy_write_current_delay_seconds", "How long the last batch gathered",
                                value=stats.current_delay_ms / 1000 if rates["writes_per_second"] else 0.0)
        clients, servers = self.connections()
        yield _gauge("tqdbproxy_client_connections", "Client connections", ["protocol", "state"], clients)
        yield _gauge("tqdbproxy_server_connections", "Server connections", ["protocol", "state"], servers)
        yield _gauge("tqdbproxy_tls_connections", "Connections that carry TLS", ["side", "version"],
                     {**{(side, version): 0 for side in ("client", "server") for version in ("TLSv1.2", "TLSv1.3")},
                      **count_tls(self.server.sessions)})
        yield _gauge("tqdbproxy_backend_up", "Whether a backend was reachable at its last use or probe",
                     ["protocol", "backend", "address", "role"],
                     {(b.protocol, b.backend.name, str(s), s.role.replace(" ", "_")): int(bool(s.up))
                      for b in self.server.backends.values() for s in b.servers})
        yield _counter("tqdbproxy_refused_connections", "Sessions ended with an error of the proxy's own",
                       ["protocol", "reason"], {**{(p, kind): 0 for p in self.server.backends for kind in REFUSALS},
                                                **{(DIALECTS[d], kind): n for (d, kind), n in stats.refused.items()}})
        yield _counter("tqdbproxy_hint_errors", "Hints that could not be read", ["protocol"],
                       dict(zip(DIALECTS, totals["hint_errors"], strict=True)))
        yield _counter("tqdbproxy_protocol_errors", "Connections closed for a protocol error", ["protocol"],
                       dict(zip(DIALECTS, totals["protocol_errors"], strict=True)))
        yield _counter("tqdbproxy_label_sets_dropped", "Statements counted under file and line 'other' because "
                       "max_label_sets was reached", [], {(): stats.label_sets_dropped})
        yield _counter("tqdbproxy_rule_hits", "Writes about which a rule of the configuration has decided", ["rule"],
                       self.server.engine.rule_hits())
        loop = self.server.loop
        turns = HistogramMetricFamily("tqdbproxy_loop_turn_seconds", "One turn of the loop without its sleep")
        turns.add_metric([], _buckets(TURN_BOUNDS, loop.turns), loop.turn_seconds)
        yield turns
        yield _counter("tqdbproxy_internal_errors", "Exceptions that nobody foresaw, by where they were caught",
                       ["place"], {"handler": 0, **stats.internal_errors})
        yield _counter("tqdbproxy_texts", "Statements that were to be looked at by more than the scanner",
                       ["purpose", "outcome"], {(p.name, outcome): n for p in PURPOSES for outcome, n in (
                           ("done", p.calls), ("too_long", p.too_long), ("over_budget", p.over_budget))})
        yield _counter("tqdbproxy_texts_seconds", "Time that looking at statements took", ["purpose"],
                       {p.name: p.seconds for p in PURPOSES})
        yield _gauge("tqdbproxy_texts_longest_seconds", "The longest that looking at a statement took", ["purpose"],
                     {p.name: p.longest for p in PURPOSES})
        yield _gauge("tqdbproxy_build_info", "1, with the version as a label", ["version"], {__version__: 1})
        yield from self._process()

    def _process(self):
        """As the library's ProcessCollector, which lists every open descriptor: with thousands of them too long.

        What cannot be read is left out: a root of its own may have no /proc.
        """
        memory = _memory()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        if memory is not None:
            yield GaugeMetricFamily("process_virtual_memory_bytes", "Virtual memory size in bytes.", value=memory[0])
            yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory size in bytes.", value=memory[1])
        yield GaugeMetricFamily("process_start_time_seconds", "Start time of the process since unix epoch in seconds.",
                                value=self.started)
        yield CounterMetricFamily("process_cpu_seconds", "Total user and system CPU time spent in seconds.",
                                  value=usage.ru_utime + usage.ru_stime)
        yield GaugeMetricFamily("process_max_fds", "Maximum number of open file descriptors.",
                                value=resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        opened = self._open_descriptors()
        if opened is not None:
            yield GaugeMetricFamily("process_open_fds", "Number of open file descriptors.", value=opened)

    def _open_descriptors(self) -> int | None:
        """How many are open; counting them one by one, as kernels before 6.2 ask for, is not done at each scrape."""
        try:
            kept = os.stat(f"{PROC}/fd").st_size        # their number, since Linux 6.2; 0 before
            if kept:
                return kept
            now = time.monotonic()
            if self.descriptors is None or now - self.counted >= COUNT_SECONDS:
                self.descriptors = len(os.listdir(f"{PROC}/fd")) - 1        # but for that of the list itself
                self.counted = now
            return self.descriptors
        except OSError:
            return None

    # --- what the HTTP server asks ----------------------------------------------------------------

    def exposition(self, accept: str) -> tuple[str, Iterator[bytes]]:
        """``(content type, parts of the body)`` of ``/metrics`` for an Accept header."""
        encoder, content_type = choose_encoder(accept)
        return content_type, self._parts(encoder, content_type.startswith("application/openmetrics-text"))

    def _parts(self, encoder, openmetrics: bool) -> Iterator[bytes]:
        """What must fit together is read in the first step: what places have counted, and all totals."""
        snapshot = SourceSnapshot(self.server.engine.stats)
        families = self.collect()
        first = next(families)
        yield b""
        end = b"# EOF\n" if openmetrics else b""
        for family in chain([first], families):
            yield encoder(_One(family)).removesuffix(end)
        for name, family in _SOURCE_FAMILIES:
            yield encoder(_One(family)).removesuffix(end)
            render = getattr(snapshot, name)
            for start in range(0, len(snapshot), SLICE):
                yield render(start, start + SLICE)
        yield end

    def health(self) -> tuple[bool, str]:
        return True, "ok"

    def readiness(self) -> tuple[bool, str]:
        return self.server.readiness()

    def advice_json(self) -> Iterator[bytes]:
        """What is said of the writes that are watched, in parts."""
        return self.server.advice.body()

    def stats_json(self) -> bytes:
        """What the dashboard shows."""
        engine = self.server.engine
        stats = engine.stats
        totals = stats.totals()
        rates = self.rates()
        clients, servers = self.connections()
        ready, reason = self.server.readiness()
        individual: dict[str, int] = {}
        for (query_type, why), n in totals["individual"].items():
            if query_type in WRITES:
                individual[why] = individual.get(why, 0) + n
        batched = sum(totals["batched"].values())
        operations = sum(totals["backend_writes"][q] for q in WRITES)
        window = [sum(x) for x in zip(*rates["window"].values(), strict=True)]
        now = time.time()
        return json.dumps({
            "version": __version__,
            "uptime_seconds": time.monotonic() - self.server.started,
            "ready": ready,
            "ready_reason": reason,
            "draining": engine.draining,
            "writes_total": batched + sum(individual.values()),
            "batched_writes_total": batched,
            "batches_total": stats.batches,
            "write_operations_total": operations,
            "writes_per_second": rates["writes_per_second"],
            "operations_per_second": rates["operations_per_second"],
            "aggregation_factor": window[0] / window[2] if window[2] else 0.0,
            "effectiveness_percent": 100.0 * window[1] / window[0] if window[0] else 0.0,
            "current_delay_seconds": stats.current_delay_ms / 1000 if rates["writes_per_second"] else 0.0,
            "gathered": engine.gathered,
            "batches_running": engine.batches_running,
            "latency_ms": rates["latency"],
            "batch_sizes": [{"up_to": bound, "batches": n}
                            for bound, n in zip((*BATCH_SIZE_BOUNDS, None), rates["sizes"], strict=True)],
            "individual": individual,
            "flush": totals["flush"],
            "words": WORDS,
            "methods": totals["methods"],
            "retries": {k: v for k, v in totals["retries"].items() if v},
            "hint_errors": sum(totals["hint_errors"]),
            "protocol_errors": sum(totals["protocol_errors"]),
            "refused": {f"{DIALECTS[d]} {kind}": n for (d, kind), n in stats.refused.items()},
            "label_sets_dropped": stats.label_sets_dropped,
            "internal_errors": stats.internal_errors,
            "loop_turn_ms": rates["turns"],
            "loop_turns": [{"up_to_seconds": bound, "turns": n}
                           for bound, n in zip((*TURN_BOUNDS, None), self.server.loop.turns, strict=True)],
            "texts": {p.name: {"done": p.calls, "too_long": p.too_long, "over_budget": p.over_budget,
                               "seconds": p.seconds, "longest": p.longest} for p in PURPOSES},
            "client_connections": [{"protocol": p, "state": s, "count": n} for (p, s), n in clients.items()],
            "server_connections": [{"protocol": p, "state": s, "count": n} for (p, s), n in servers.items()],
            "listen": self.server.addresses,
            "backends": [{"protocol": b.protocol, "name": b.backend.name, "target": b.backend.target, **s.told(),
                          "serves": bool(s.up) and not b.unfit(s)}
                         for b in self.server.backends.values() for s in b.servers],
            "sources": [dict(zip(("file", "line", "writes", "batched"), s, strict=True))
                        for s in stats.top_sources(TOP_SOURCES)],
            "shapes_watched": engine.watch.used,
            "shapes": [{**{key: shape[key] for key in SHAPE_KEYS}, "origin": origin(shape)}
                       for shape in islice(self.server.advice.shapes(), TOP_SHAPES)],
            "tls": self.tls(),
            "rules": [{**dict(zip(RULE_COLUMNS, row, strict=True)), "hits": int(row[-1])}
                      for row in self.server.rules_shown()],
            "history": [{"age": round(now - at, 1), "writes": w, "operations": o, "p50_ms": p50, "p99_ms": p99}
                        for at, w, o, p50, p99 in self.history],
            "events": [{**r, "age": round(now - r["time"], 1)} for r in list(self.recent.records)[-EVENTS:]],
        }).encode()
