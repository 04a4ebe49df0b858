"""What came of a play, in words that do not depend on what nobody can foresee; and what differs between two."""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.schemas.plan import CLASH, Plan
from tests.schemas.stage import Answer

AT_ROW = re.compile(r"at row \d+")
CLOCK = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?(?:[+-]\d\d(?::\d\d)*)?")  # a time that an error quotes
# of the table ``log``, which triggers write to; ``k`` is drawn from a sequence
LOG_KINDS = {"k": "id", "own": "own", "xid": "xid", "n": "count", "every": "any", "at": "time"}


@dataclass
class Seen:
    """What a play has shown: answers by write, what sessions were told after rounds, tables before the clash and at
    the end."""

    name: str
    own: list[tuple[str, ...]]                              # by session
    since: str
    until: str = ""
    answers: dict[int, Answer] = field(default_factory=dict)
    probes: dict[tuple[int, int], Answer] = field(default_factory=dict)     # (round, session)
    before: dict = field(default_factory=dict)
    after: dict = field(default_factory=dict)
    broken: str = ""


class Outcome:
    """``parts``: unit -> what is compared of it. 0 is what belongs to no unit, before the clash."""

    def __init__(self, plan: Plan, seen: Seen):
        self.plan, self.seen = plan, seen
        self.kinds = plan.kinds()
        self.units = plan.units()
        self.owner = {w.number: w for writes in (*plan.rounds, plan.clash) for w in writes}
        self.ids: dict[str, str] = {}
        self.xids: dict[str, str] = {}
        self.randoms: dict[tuple[str, str], int] = {}
        for contents in (seen.before, seen.after):
            self._learn(contents)
        self._count_randoms()
        self.parts: dict[int, list] = {}
        self._tell()

    # --- what values stand for

    def _learn(self, contents: dict) -> None:
        """Which rows ids and transactions belong to."""
        for table, (columns, rows) in contents.items():
            for row in rows:
                cells = dict(zip(columns, row, strict=True))
                key = "" if table == "log" else cells.get("k")
                for name, value in cells.items():
                    kind = self._kind(table, name)
                    if value is not None and kind == "xid" and cells.get("w") == "0":
                        self.xids[value] = " transaction of the seeds"
                    elif value is not None and kind == "id":
                        self.ids.setdefault(value, f"id of {table} {cells['o']} {key}")
                    elif value is not None and kind == "xid":
                        at = f"transaction of {table} {cells['o']} {cells['w']} {key}"
                        self.xids[value] = min(self.xids.get(value, at), at)

    def _count_randoms(self) -> None:
        for table, (columns, rows) in self.seen.after.items():
            for row in rows:
                for name, value in zip(columns, row, strict=True):
                    if value is not None and self._kind(table, name) == "random":
                        self.randoms[name, value] = self.randoms.get((name, value), 0) + 1

    def _kind(self, table: str, column: str) -> str:
        if column == "last_id":
            return "ref"
        if table == "log":
            return LOG_KINDS.get(column, "exact")
        return self.kinds.get(column, "exact")

    def _shown(self, column: str) -> str:
        """The kind of a column of an answer. The session's time zone and style of dates are its own there."""
        kind = "ref" if column == "last_id" else self.kinds.get(column, "exact")
        return "any" if kind == "time" else kind

    def _value(self, kind: str, name: str, value: str | None, unit: int | None, seed: bool = False) -> str | None:
        if value is None or kind == "any":
            return value and kind
        if seed and kind != "exact":
            return "seed"
        match kind:
            case "own":
                if unit is None:
                    return kind
                for session in self.units.get(unit, ()):
                    if value in self.seen.own[session]:
                        return "own"
                other = [k + 1 for k, own in enumerate(self.seen.own) if value in own]
                return f"{value}, of session {other[0]}" if other else f"{value}, of no session"
            case "xid":
                return self.xids.get(value, "transaction")
            case "id" | "ref":
                return self.ids.get(value, "id that is gone")
            case "count":
                return value if unit is not None and 0 < unit < CLASH else kind
            case "time":
                return self._time(value)
            case "random":
                again = self.randoms.get((name, value), 0) > 1
                return "random, twice" if again else kind
        return self._text(value)

    def _time(self, value: str) -> str:
        """Whether it lies within the run, or how many half hours aside: zones are of half hours."""
        shown = re.match(r"[\d-]{10} [\d:.]{8,15}", value)
        if not shown:
            return value
        since, time, until = (datetime.fromisoformat(text) for text in (self.seen.since, shown[0], self.seen.until))
        aside = round((time - since) / timedelta(minutes=30))
        time -= aside * timedelta(minutes=30)
        if abs(aside) > 48 or not since - timedelta(seconds=1) <= time <= until:
            return value
        return f"time, {aside / 2:+g} hours" if aside else "time"

    def _text(self, value: str) -> str:
        return value.replace(self.seen.name, "play")

    def _error(self, name: str, value: str) -> str:
        if name == "detail" and value.startswith("Failing row contains"):
            return "Failing row"
        key = re.match(r"Key \((.*?)\)=", value)           # f_lies: an index's expression, which is the connection's
        if name == "detail" and key and (
                "f_lies" in value or any(self.kinds.get(c, "exact") != "exact" for c in key[1].split(", "))):
            return key[0]
        return self._text(CLOCK.sub("a time", value))

    # --- what is compared

    def answer(self, answer: Answer, unit: int, scans: bool) -> str:
        """``scans``: the write may look at rows of other units, and MariaDB's messages count them."""
        if answer.error:
            shown = [tuple((name, self._error(name, value)) for name, value in answer.error)]
        else:
            shown = [answer.tag, answer.columns, sorted(
                (tuple(self._value(self._shown(c), c, v, unit) for c, v in zip(answer.columns, row, strict=True))
                 for row in answer.rows), key=repr)]
            if answer.insert_id:
                # generated ids begin at a million
                shown.append(self.ids.get(str(answer.insert_id), min(answer.insert_id, 10**6)))
        notices = [tuple((n, self._error(n, v)) for n, v in notice) for notice in answer.notices]
        return AT_ROW.sub("at row", repr((*shown, notices))) if scans else repr((*shown, notices))

    def _tell(self) -> None:
        clashing = {w.session: w.unit for w in self.plan.clash}
        last = len(self.plan.rounds)
        for number, answer in sorted(self.seen.answers.items()):
            write = self.owner[number]
            head = f"write {number} of session {write.session + 1}"
            self._add(write.unit, (head, self.answer(answer, write.unit, write.verb != "insert")))
        for (at, session), answer in sorted(self.seen.probes.items()):
            unit = clashing[session] if at == last else session + 1
            head = f"session {session + 1} after round {at + 1}: {self.plan.probes[at]}"
            self._add(unit, (head, self.answer(answer, unit, True)))
        for contents, clash in ((self.seen.before, False), (self.seen.after, True)):
            rows = []
            for table, (columns, found) in contents.items():
                for row in found:
                    cells = dict(zip(columns, row, strict=True))
                    unit = int(cells["o"]) if cells.get("o") is not None else None
                    if clash and (unit is None or unit < CLASH):
                        continue
                    seed = cells.get("w") == "0"
                    rows.append((unit or 0, table, tuple(
                        (n, self._value(self._kind(table, n), n, v, unit, seed)) for n, v in cells.items())))
            for unit, table, cells in sorted(rows, key=repr):
                if clash or unit < CLASH:
                    self._add(unit, (f"row of {table}", cells))

    def _add(self, unit: int, what: tuple) -> None:
        self.parts.setdefault(unit, []).append(what)

    def code(self, unit: int, codes: tuple[str, ...]) -> bool:
        """Whether a write of the unit met one of these errors."""
        return any(self.seen.answers[w.number].code() in codes for w in self.owner.values()
                   if w.unit == unit and w.number in self.seen.answers)


def difference(unit: int, direct: list, through: list) -> str:
    """The first thing that is not the same, in words; "" if all is."""
    if direct == through:
        return ""
    a, b = ([x for x in one if x not in other] for one, other in ((direct, through), (through, direct)))
    if not a and not b:
        a, b = [f"{len(direct)} things"], [f"{len(through)} things"]

    def words(things: list, others: list) -> str:
        if not things:
            return "nothing more"
        head, body = things[0] if len(things[0]) == 2 else (things[0], "")
        twin = next((o for o in others if o[0] == head), None)
        if twin and head.startswith("row of ") and len(body) == len(twin[1]):
            body = [cell for cell, other in zip(body, twin[1], strict=True)
                    if cell != other or cell[0] in ("k", "o", "w")]
        return f"{head}: {body}"

    return f"unit {unit}:\n    direct  {words(a, b)[:900]}\n    through {words(b, a)[:900]}"
