"""Clients before the core who write different statements in one moment, and what their model server heard of it."""

import re

from tests.model import talk
from tests.model.scene import HINT, Scene
from tests.model.wire import Link

# What a client may write: ``(its moment, a new key, its value, a key of its own that is there) -> bytes``. ``!``:
# RETURNING; ``$``: the extended protocol; t is merged, p (it has a trigger) never is.
_SQL = {
    "t": "INSERT INTO t (k, a) VALUES ({k}, {a})", "p": "INSERT INTO p (k, a) VALUES ({k}, {a})",
    "update": "UPDATE t SET a = {a} WHERE k = {own}", "delete": "DELETE FROM t WHERE k = {own}"}
_RETURNING = " RETURNING k, a"
_ROWS = re.compile(r"INSERT INTO (\w+) \(k, a\) VALUES (.*?)( RETURNING .*)?", re.DOTALL)


def written(scene: Scene, way: str, key: int, value: int, own: int, wait_ms: int) -> bytes:
    """One write of a way such as ``t``, ``p!`` or ``$update!``."""
    sql = _SQL[way.strip("$!")].format(k="$1" if "$" in way else key, a="$2" if "$" in way else value,
                                       own="$1" if "$" in way else own)
    sql = HINT.replace(":5", f":{wait_ms}") + sql + _RETURNING * ("!" in way)
    if "$" not in way:
        return scene.query(sql)
    if "delete" in way:
        return talk.unit(sql, (own,))
    return talk.unit(sql, (own if "update" in way else key, value))


def short(text: str) -> str:
    """A statement as tests name it: ``t! 3`` is three rows merged into t, with RETURNING."""
    rows = _ROWS.fullmatch(text)
    if rows:
        return f"{rows[1]}{'!' * bool(rows[3])} {rows[2].count('(')}"
    return text.split()[0].lower() + "!" * ("RETURNING" in text)


class Moment:
    """``ways``: what each client writes, in the order in which they do. All shapes are known, all clients are quick.

    ``limits`` hold from then on; ``size``: bytes come in pieces of that.
    """

    def __init__(self, protocol: str, ways: str, more: int = 0, size: int = 0, **limits):
        self.ways = ways.split()
        self.scene = scene = Scene(protocol, clients=len(self.ways) + more)
        self.engine = scene.wire.engine
        self.heard = scene.wire.store.heard
        self.own = {}
        self.rounds = 0
        for way in sorted({*self.ways}):
            self.give_rows()
            for link in scene.links:
                self.write(link, way)
            scene.wire.finish()
        self.give_rows()
        scene.ready(size)
        for name, value in limits.items():
            setattr(self.engine, name, value)
        self.since = len(self.heard)
        self.before = self.counted()

    @property
    def links(self) -> list[Link]:
        return self.scene.links

    def give_rows(self) -> None:
        """Everybody has a row that nobody else touches."""
        for link in self.links:
            self.own[link] = self.scene.key()
            self.scene.say(link, self.scene.query(f"INSERT INTO t (k, a) VALUES ({self.own[link]}, 1)"))
        self.scene.wire.finish()

    def write(self, link: Link, way: str, value: int = 1, wait_ms: int = 5) -> int:
        """The client sends it now. The key that it writes."""
        key = self.scene.key()
        self.scene.say(link, written(self.scene, way, key, value, self.own[link], wait_ms))
        return key if way.strip("$!") in "tp" else self.own[link]

    def write_all(self, values: dict[int, int] | None = None) -> list[int]:
        """Everybody writes. ``values`` by client; -1 is one that no table takes."""
        return [self.write(link, way, (values or {}).get(i, 1)) for i, (link, way) in enumerate(
            zip(self.links, self.ways, strict=False))]

    def run(self) -> None:
        """Everything moves, and no time passes."""
        self.scene.wire.run()

    def run_late(self, milliseconds: int) -> None:
        """As ``run``; servers answer so long after they were asked."""
        for link in self.links:
            link.held_down = True
        self.run()
        self.scene.wire.tick(milliseconds)
        for link in self.links:
            link.held_down = False
        self.run()

    def sent(self) -> list[Link]:
        """Those whose server connections got anything since ``ready``."""
        return [link for link in self.links if link.sent]

    def transactions(self) -> list[list[str]]:
        """What was heard since in transactions of the proxy's, one list of statements for each, as they began."""
        return self._heard()[0]

    def alone(self) -> list[str]:
        """What was heard since outside of them."""
        return self._heard()[1]

    def _heard(self) -> tuple[list[list[str]], list[str]]:
        found, open_for, alone = [], {}, []
        for number, text in self.heard[self.since:]:
            if text == "BEGIN" or "autocommit = 0" in text:
                open_for[number] = []
                found.append(open_for[number])
            elif text in ("COMMIT", "ROLLBACK"):
                open_for.pop(number, None)
            elif re.match("INSERT|UPDATE|DELETE", text):
                open_for.get(number, alone).append(short(text))
        return found, alone

    def again(self) -> None:
        """What is heard and counted from here on is looked at."""
        self.since = len(self.heard)
        self.before = self.counted()
        for link in self.links:
            link.sent.clear()

    def counted(self) -> dict[str, float]:
        """Counters of what leaves, flat."""
        stats = self.engine.stats
        totals = stats.totals()
        return {"batches": stats.batches, "queries": stats.database_queries,
                **{f"flush {k}": v for k, v in totals["flush"].items()},
                **{f"retry {k}": v for k, v in totals["retries"].items()},
                **{f"method {k}": v for k, v in totals["methods"].items()},
                **{f"sent {k}": v for k, v in totals["backend_writes"].items()},
                **{f"batched {k}": v for k, v in totals["batched"].items()},
                **{f"alone {k[1]}": v for k, v in totals["individual"].items()},
                **{f"sizes {k}": tuple(v[0]) for k, v in totals["size"].items()},
                **{f"size {k}": v[1] for k, v in totals["size"].items()}}

    def news(self) -> dict[str, float]:
        """What was counted since, without what was not."""
        return {k: v - self.before.get(k, 0) for k, v in self.counted().items()
                if not isinstance(v, tuple) and v != self.before.get(k, 0)}

    def finish(self) -> None:
        """Everybody's answers, and what is stored, are those of the direct way."""
        self.scene.finish()


