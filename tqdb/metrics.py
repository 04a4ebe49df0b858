"""Metrics: a ``prometheus_client`` collector that reads the core's counters when asked, and ``/stats.json``."""

import json
import time
from collections import deque

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from tqdb import __version__
from tqdb._core import BATCH_SIZE_BOUNDS, SECONDS_BOUNDS

WRITES = ("insert", "update", "delete", "replace")
WINDOW_SECONDS = 10         # over which derived gauges look back
TOP_SOURCES = 20


def _buckets(bounds: tuple, counts: list[int]) -> list[tuple[str, int]]:
    """Cumulative ``(le, count)`` pairs as Prometheus wants them."""
    out = []
    total = 0
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        total += count
        out.append(("+Inf" if bound == float("inf") else str(float(bound)), total))
    return out


class Sample:
    """Totals at one moment."""

    def __init__(self, totals: dict):
        self.at = time.monotonic()
        self.batched = {q: totals["batched"][q] for q in WRITES}
        self.individual = dict.fromkeys(WRITES, 0)
        for (query_type, _), n in totals["individual"].items():
            if query_type in self.individual:
                self.individual[query_type] += n
        self.operations = {q: totals["backend_writes"][q] for q in WRITES}

    def writes(self, query_type: str) -> int:
        return self.batched[query_type] + self.individual[query_type]


class Metrics(Collector):
    """What ``/metrics``, ``/stats.json``, ``/healthz`` and ``/readyz`` say about a ``server.Server``."""

    def __init__(self, server):
        self.server = server
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        self.samples: deque[Sample] = deque(maxlen=WINDOW_SECONDS + 2)
        self._take_sample()

    def describe(self):
        return []

    def _take_sample(self) -> None:
        self.samples.append(Sample(self.server.engine.stats.totals()))
        self.server.loop.call_later(1, self._take_sample)

    def rates(self) -> dict:
        """Per query type ``(writes, batched, operations)`` of the last seconds, and writes per second."""
        now = Sample(self.server.engine.stats.totals())
        past = next((s for s in self.samples if now.at - s.at <= WINDOW_SECONDS), self.samples[-1])
        last = next((s for s in reversed(self.samples) if now.at - s.at >= 0.95), past)
        seconds = max(now.at - last.at, 1e-3)
        return {
            "window": {q: (now.writes(q) - past.writes(q), now.batched[q] - past.batched[q],
                           now.operations[q] - past.operations[q]) for q in WRITES},
            "writes_per_second": sum(now.writes(q) - last.writes(q) for q in WRITES) / seconds,
            "operations_per_second": sum(now.operations[q] - last.operations[q] for q in WRITES) / seconds,
        }

    def connections(self) -> tuple[dict, dict]:
        """Connections by ``(protocol, state)``: of clients, and to servers."""
        clients: dict[tuple[str, str], int] = {}
        servers: dict[tuple[str, str], int] = {}
        for session in self.server.sessions:
            protocol = session.backend.partition(".")[0]
            state = ("login" if not session.logged_in else "waiting" if session.waits
                     else "idle" if session.idle else "active")
            clients[protocol, state] = clients.get((protocol, state), 0) + 1
        for server in self.server.servers:
            protocol = server.session.backend.partition(".")[0] if server.session is not None else "other"
            state = "idle" if server.session is not None and server.session.idle else "active"
            servers[protocol, state] = servers.get((protocol, state), 0) + 1
        return clients, servers

    def collect(self):
        stats = self.server.engine.stats
        totals = stats.totals()
        rates = self.rates()
        sources = [(s.file.decode("utf-8", "replace"), s.line.decode("utf-8", "replace"), s.snapshot())
                   for s in stats.all_sources()]

        queries = CounterMetricFamily("tqdbproxy_query", "Statements by where they come from",
                                      labels=["file", "line", "query_type", "cached"])
        latency = HistogramMetricFamily("tqdbproxy_query_latency_seconds",
                                        "Statement received to answer sent",
                                        labels=["file", "line", "query_type"])
        batched = CounterMetricFamily("tqdbproxy_batched_writes", "Writes that went in a batch",
                                      labels=["query_type", "file", "line"])
        excluded = CounterMetricFamily("tqdbproxy_write_excluded", "Hinted writes that went alone",
                                       labels=["file", "line", "query_type", "reason"])
        for file, line, snapshot in sources:
            for query_type, (count, in_batch, reasons, (buckets, total)) in snapshot.items():
                queries.add_metric([file, line, query_type, "false"], count)
                latency.add_metric([file, line, query_type], _buckets(SECONDS_BOUNDS, buckets), total)
                if query_type in WRITES:
                    batched.add_metric([query_type, file, line], in_batch)
                for reason, n in reasons.items():
                    excluded.add_metric([file, line, query_type, reason], n)
        yield queries
        yield latency
        yield batched
        yield excluded

        def counter(name, doc, labels, values):
            family = CounterMetricFamily(name, doc, labels=labels)
            for key, value in values.items():
                family.add_metric(list(key) if isinstance(key, tuple) else [key], value)
            return family

        yield counter("tqdbproxy_database_queries", "Operations sent to the database", ["replica"],
                      {"primary": stats.database_queries})
        yield counter("tqdbproxy_backend_write_queries", "Write operations sent to the database",
                      ["query_type"], {q: totals["backend_writes"][q] for q in WRITES})
        yield counter("tqdbproxy_individual_writes", "Writes that went alone, and why",
                      ["query_type", "reason"], totals["individual"])
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
        yield counter("tqdbproxy_write_batch_flush", "Why a gathered batch left", ["reason"], totals["flush"])
        yield counter("tqdbproxy_write_batch_method", "How batches were sent", ["method"],
                      totals["methods"])
        yield counter("tqdbproxy_write_batch_retries", "Batches that failed whole and were split", ["cause"],
                      totals["retries"])

        def gauge(name, doc, labels, values):
            family = GaugeMetricFamily(name, doc, labels=labels)
            for key, value in values.items():
                family.add_metric(list(key) if isinstance(key, tuple) else [key], value)
            return family

        window = rates["window"]
        yield gauge("tqdbproxy_write_aggregation_factor", "Writes per write operation, last 10 seconds",
                    ["query_type"], {q: w / o if o else 0.0 for q, (w, _, o) in window.items()})
        yield gauge("tqdbproxy_batch_effectiveness_percent", "Share of writes batched, last 10 seconds",
                    ["query_type"], {q: 100.0 * b / w if w else 0.0 for q, (w, b, _) in window.items()})
        yield GaugeMetricFamily("tqdbproxy_write_ops_per_second", "Writes answered over the last second",
                                value=rates["writes_per_second"])
        yield GaugeMetricFamily("tqdbproxy_write_current_delay_ms", "Delay of the last batch that left",
                                value=stats.current_delay_ms if rates["writes_per_second"] else 0.0)
        clients, servers = self.connections()
        yield gauge("tqdbproxy_client_connections", "Client connections", ["protocol", "state"], clients)
        yield gauge("tqdbproxy_server_connections", "Server connections", ["protocol", "state"], servers)
        yield counter("tqdbproxy_hint_errors", "Hints that could not be read", ["protocol"],
                      dict(zip(("postgres", "mariadb"), totals["hint_errors"], strict=True)))
        yield counter("tqdbproxy_protocol_errors", "Connections closed for a protocol error", ["protocol"],
                      dict(zip(("postgres", "mariadb"), totals["protocol_errors"], strict=True)))
        dropped = CounterMetricFamily("tqdbproxy_label_sets_dropped", "Statements counted under file and "
                                      "line 'other' because max_label_sets was reached")
        dropped.add_metric([], stats.label_sets_dropped)
        yield dropped

    # --- what the HTTP server asks ----------------------------------------------------------------

    def exposition(self, accept: str) -> tuple[str, bytes]:
        """``(content type, body)`` of ``/metrics`` for an Accept header."""
        encoder, content_type = choose_encoder(accept)
        return content_type, encoder(self.registry)

    def health(self) -> tuple[bool, str]:
        return True, "ok"

    def readiness(self) -> tuple[bool, str]:
        return self.server.readiness()

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
        sources = []
        for s in stats.all_sources():
            writes = in_batch = 0
            for query_type, (count, n, _, _) in s.snapshot().items():
                if query_type in WRITES:
                    writes += count
                    in_batch += n
            if writes:
                sources.append({"file": s.file.decode("utf-8", "replace"),
                                "line": s.line.decode("utf-8", "replace"),
                                "writes": writes, "batched": in_batch})
        sources.sort(key=lambda x: -x["writes"])
        return json.dumps({
            "version": __version__,
            "uptime_seconds": time.monotonic() - self.server.started,
            "ready": ready,
            "ready_reason": reason,
            "writes_total": batched + sum(individual.values()),
            "batched_writes_total": batched,
            "batches_total": stats.batches,
            "write_operations_total": operations,
            "writes_per_second": rates["writes_per_second"],
            "operations_per_second": rates["operations_per_second"],
            "aggregation_factor": window[0] / window[2] if window[2] else 0.0,
            "effectiveness_percent": 100.0 * window[1] / window[0] if window[0] else 0.0,
            "individual": individual,
            "flush": totals["flush"],
            "retries": {k: v for k, v in totals["retries"].items() if v},
            "client_connections": [{"protocol": p, "state": s, "count": n}
                                   for (p, s), n in sorted(clients.items())],
            "server_connections": [{"protocol": p, "state": s, "count": n}
                                   for (p, s), n in sorted(servers.items())],
            "backends": [{"protocol": b.protocol, "address": str(b.backend.primary), "up": b.up,
                          "error": b.error} for b in self.server.backends.values()],
            "sources": sources[:TOP_SOURCES],
        }).encode()
