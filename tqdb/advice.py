"""Advice: what batching would make of the writes that are watched, in words, with the rules that turn it on.

``advise`` makes of what the core has counted of a shape (``Watch.entry``) what ``/advice.json``, ``tqdb advise``, the
dashboard and ``SHOW TQDB WRITES`` say of it. A rule is proposed only where text and table are known to allow batches,
and only where they would spare the database something.
"""

import json
import re
import time
from collections.abc import Iterator

from tqdb import __version__
from tqdb.analysis import DIALECTS

MOSTLY = 0.99               # of a shape's writes: nearly all
LEAST_WRITES = 20           # fewer say nothing
LEAST_GAIN = 0.1            # of a shape's writes that a window has to save, or no rule is proposed
NEAR_BEST = 0.8             # of what the longest window saves: a shorter one that saves as much is proposed instead
MAX_NAME = 40               # characters of a rule's name
SHOWN = 50                  # shapes that SHOW TQDB WRITES gives
UNPRINTABLE = "\ufffd"      # in the place of a line's end, an escape sequence and their like in a name

_FORMS = {
    "several": "several statements are sent in one message: send each by itself",
    "executable comment": "it has an executable comment (/*! … */)",
    "last id": "it asks for LAST_INSERT_ID()",
    "currval": "it calls currval() or lastval(): use RETURNING",
    "diagnostics": "it asks what the statement before has left (ROW_COUNT(), warnings)",
    "temporary": "it makes a temporary table",
    "session": "it changes its session",
}
_TRANSACTION = ("always inside a transaction: use autocommit for single writes, or send BEGIN, the write and COMMIT "
                "without waiting in between")
_UNLIKE = ("its sessions are like no other: temporary tables, LOCK TABLES, currval(), or a character set that is not "
           "safe to read")
_ONE = "it never comes from two connections at a time, so there is nothing to gather"
_MERGED = "rows of many connections as one INSERT"
_PIPELINED = "everybody's statement in one transaction"
_NOT_YET = "not looked at yet"
_NO_TABLE = ("its text allows it; its table is looked at when a connection that writes it ends, or (PostgreSQL) is "
             "idle for a moment")


def _verdict(entry: dict) -> tuple[str, str]:
    """``(verdict, why)``: ``merged``, ``pipelined``, ``alone`` or ``unknown``, and the same in words."""
    writes = max(1, entry["writes"])
    if entry["known"] == "never":
        form = next((_FORMS[f] for f in entry["form"]), None)
        return "alone", entry["why"] or form or "it is longer than 2 KiB without its literals"
    if entry["known"] == "refused":
        return "alone", entry["why"] or "its table does not allow it"
    if entry["in_transaction"] >= MOSTLY * writes:
        return "alone", _TRANSACTION
    if entry["unlike"] + entry["in_transaction"] >= MOSTLY * writes:
        return "alone", _UNLIKE
    if entry["known"] == "open":
        return ("merged", _MERGED) if entry["merges"] else ("pipelined", _PIPELINED)
    return "unknown", _NO_TABLE if entry["known"] == "text" else _NOT_YET


def _window(entry: dict) -> dict | None:
    """The window that is to be proposed, None: none saves enough."""
    fit = entry["writes"] - entry["in_transaction"] - entry["unlike"]
    best = max(w["saved"] for w in entry["windows"])
    if fit < LEAST_WRITES or best < LEAST_GAIN * entry["writes"]:
        return None
    return next(w for w in entry["windows"] if w["saved"] >= NEAR_BEST * best)


def rule_name(entry: dict) -> str:
    """``insert_events``, with the beginning of the fingerprint."""
    table = re.sub(r"\W+", "_", entry["table"][1], flags=re.ASCII).strip("_") if entry["table"] else ""
    return "_".join(part for part in (entry["verb"], table[:MAX_NAME], entry["fingerprint"][:6]) if part)


def _rule(entry: dict, window: dict) -> str:
    return f"[rule.{rule_name(entry)}]\nfingerprint = {entry['fingerprint']}\nmax_wait_ms = {window['ms']}\n"


def _clean(entry: dict) -> dict:
    """``entry`` with every text as one that a terminal and a configuration take for nothing but text."""
    return {key: _printable(value) for key, value in entry.items()}


def _printable(value):
    if isinstance(value, str):
        return value if value.isprintable() else "".join(c if c.isprintable() else UNPRINTABLE for c in value)
    return tuple(map(_printable, value)) if isinstance(value, tuple) else value


def advise(entry: dict) -> dict:
    """What is said of one shape. ``rule`` is a section of the configuration, None where nothing is proposed."""
    entry = _clean(entry)
    verdict, why = _verdict(entry)
    window = _window(entry) if verdict in ("merged", "pipelined") else None
    writes = max(1, entry["writes"])
    done = entry["batched"] >= 0.5 * writes
    if verdict in ("merged", "pipelined") and entry["connections"] <= 1:
        why = _ONE
    shown = {key: entry[key] for key in (
        "id", "fingerprint", "protocol", "backend", "database", "user", "application", "file", "line", "verb",
        "statement", "seconds", "idle_seconds", "writes", "writes_per_second", "connections", "in_transaction",
        "unlike", "batched", "alone", "windows")}
    schema, table = entry["table"] or (None, None)
    return {
        **shown,
        "table": table and (f"{schema}.{table}" if schema else table),
        "outside_percent": 100.0 * (1 - entry["in_transaction"] / writes),
        "batched_percent": 100.0 * entry["batched"] / writes,
        "verdict": verdict,
        "why": why,
        "max_wait_ms": window["ms"] if window and not done else None,
        "rule": _rule(entry, window) if window and not done and entry["fingerprint"] else None,
    }


def difference(now: dict, before: dict) -> dict:
    """The advice of ``now`` about what was counted since ``before``, two answers of ``/advice.json``."""
    past = {shape["id"]: shape for shape in before["shapes"]}
    shapes = []
    for shape in now["shapes"]:
        old = past.get(shape["id"])
        if old is not None and old["writes"] <= shape["writes"]:
            seconds = max(1e-3, now["uptime_seconds"] - before["uptime_seconds"])
            shape = _since(shape, old, seconds)
        if shape["writes"]:
            shapes.append(shape)
    shapes.sort(key=lambda s: (-s["windows"][1]["saved"], -s["writes"]))
    totals = ("writes", "unread", "replaced")
    return {**now, "shapes": shapes, **{key: now[key] - before[key] for key in totals}}


def _since(shape: dict, old: dict, seconds: float) -> dict:
    writes = shape["writes"] - old["writes"]
    inside, unlike = (shape[key] - old[key] for key in ("in_transaction", "unlike"))
    fit, old_fit = (s["writes"] - s["in_transaction"] - s["unlike"] for s in (shape, old))
    windows = []
    for new, past in zip(shape["windows"], old["windows"], strict=True):
        operations = new["operations"] - past["operations"]
        waited = new["extra_latency_ms"] * fit - past["extra_latency_ms"] * old_fit
        windows.append({"ms": new["ms"], "operations": operations, "saved": max(0, fit - old_fit - operations),
                        "extra_latency_ms": max(0.0, waited) / max(1, fit - old_fit)})
    batched = shape["batched"] - old["batched"]
    return {**shape, "writes": writes, "writes_per_second": writes / seconds, "in_transaction": inside,
            "unlike": unlike, "batched": batched, "windows": windows,
            "outside_percent": 100.0 * (1 - inside / max(1, writes)),
            "batched_percent": 100.0 * batched / max(1, writes),
            "alone": {k: n - old["alone"].get(k, 0) for k, n in shape["alone"].items() if n > old["alone"].get(k, 0)}}


class Advice:
    """What is said of all shapes that ``engine`` watches; ``started``: when the proxy did, of the monotonic clock."""

    def __init__(self, engine, started: float):
        self.engine = engine
        self.started = started

    def shapes(self, protocol: str | None = None, user: str | None = None) -> Iterator[dict]:
        """Those first whose writes a window of 10 ms would have made fewest operations of.

        With ``protocol``, those alone that clients of it have written who logged in as ``user``.
        """
        watch = self.engine.watch
        for slot in watch.ranking(protocol, user):
            entry = watch.entry(slot, time.monotonic())
            if entry is not None:
                yield advise(entry)

    def body(self) -> Iterator[bytes]:
        """``/advice.json`` in parts."""
        watch = self.engine.watch
        head = {"version": __version__, "uptime_seconds": time.monotonic() - self.started, "writes": watch.total,
                "unread": watch.unread, "watched": watch.used, "max_shapes_watched": watch.size,
                "replaced": watch.replaced}
        yield json.dumps(head)[:-1].encode() + b', "shapes": ['
        comma = b"\n"
        for shape in self.shapes():
            yield comma + json.dumps(shape).encode()
            comma = b",\n"
        yield b"]}\n"

    COLUMNS = ("statement", "verb", "table_name", "origin", "writes", "per_second", "connections", "batched", "verdict",
               "why", "saved_1_ms", "saved_10_ms", "saved_50_ms", "fingerprint")

    def rows(self, session) -> tuple[tuple[str, ...], ...]:
        """What ``SHOW TQDB WRITES`` gives, as texts: of the session's own protocol and user."""
        found = []
        for shape in self.shapes(DIALECTS[session.dialect], session.user):
            if len(found) == SHOWN:
                break
            found.append((
                shape["statement"], shape["verb"], shape["table"] or "", origin(shape), str(shape["writes"]),
                f"{shape['writes_per_second']:.1f}", str(shape["connections"]), str(shape["batched"]), shape["verdict"],
                shape["why"], *(str(w["saved"]) for w in shape["windows"]), shape["fingerprint"]))
        return tuple(found)


def origin(shape: dict) -> str:
    """Where a shape comes from: ``file:line`` of its hint, and the application's name."""
    place = f"{shape['file']}:{shape['line']}" if shape["line"] else shape["file"]
    return " ".join(part for part in (place, shape["application"]) if part)
