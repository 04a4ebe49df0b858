"""A failing plan made small: fewer sessions, writes, triggers, columns, as long as it still fails."""

import copy
import re
from collections.abc import Iterator

from tests.schemas.plan import FIXED, Plan, Session


def _without_rounds(plan: Plan) -> Iterator[Plan]:
    if plan.clash:
        yield plan.changed(clash=[], probes=plan.probes[:len(plan.rounds)])
    for i in range(len(plan.rounds)):
        yield plan.changed(rounds=_less(plan.rounds, i), probes=_less(plan.probes, i))
    for i, probe in enumerate(plan.probes):
        if probe:
            yield plan.changed(probes=[*plan.probes[:i], "", *plan.probes[i + 1:]])


def _without_sessions(plan: Plan) -> Iterator[Plan]:
    """Their writes go; the sessions stay, so that numbers mean the same."""
    writing = sorted({w.session for writes in (*plan.rounds, plan.clash) for w in writes})
    size = len(writing) // 2
    while size:
        for start in range(0, len(writing), size):
            gone = set(writing[start:start + size])
            rounds = [[w for w in writes if w.session not in gone] for writes in plan.rounds]
            clash = [w for w in plan.clash if w.session not in gone]
            if any(rounds) or clash:
                kept = {w.unit for writes in (*rounds, clash) for w in writes}
                yield plan.changed(rounds=rounds, clash=clash, seeds=[s for s in plan.seeds if s.unit in kept])
        size //= 2


def _without_objects(plan: Plan) -> Iterator[Plan]:
    if plan.seeds:
        yield plan.changed(seeds=[])
    if plan.after:
        yield plan.changed(after=[])
    if len(plan.tables) > 1:
        for i in range(len(plan.tables)):
            yield plan.changed(tables=_less(plan.tables, i))
    for i in range(len(plan.after)):
        yield plan.changed(after=_less(plan.after, i))
        yield plan.changed(after=plan.after[:i] + plan.after[i + 2:])
    for t, table in enumerate(plan.tables):
        for i in range(len(table.constraints)):
            candidate = copy.copy(table)
            candidate.constraints = _less(table.constraints, i)
            yield plan.changed(tables=[*plan.tables[:t], candidate, *plan.tables[t + 1:]])
    used = [sql for i, sql in enumerate(plan.before)
            if _named(sql) in plan.changed(before=_less(plan.before, i)).text()]
    if len(used) < len(plan.before):
        yield plan.changed(before=used)
    for i in range(len(plan.before) - 1, -1, -1):
        yield plan.changed(before=_less(plan.before, i))


def _without_columns(plan: Plan) -> Iterator[Plan]:
    for t, table in enumerate(plan.tables):
        for i, column in enumerate(table.columns):
            if column.name not in FIXED:
                candidate = copy.copy(table)
                candidate.columns = _less(table.columns, i)
                yield plan.changed(tables=[*plan.tables[:t], candidate, *plan.tables[t + 1:]])


def _simpler(plan: Plan) -> Iterator[Plan]:
    for i, session in enumerate(plan.sessions):
        if session.settings:
            yield plan.changed(sessions=[*plan.sessions[:i], Session([], session.form), *plan.sessions[i + 1:]])
    if any(session.form != "text" for session in plan.sessions):
        yield plan.changed(sessions=[Session(s.settings) for s in plan.sessions])
    for number, writes in enumerate(plan.rounds):
        for i in range(len(writes)):
            rounds = [*plan.rounds[:number], _less(writes, i), *plan.rounds[number + 1:]]
            if any(rounds) or plan.clash:
                yield plan.changed(rounds=rounds)
    for i in range(len(plan.clash)):
        yield plan.changed(clash=_less(plan.clash, i))
    for i in range(len(plan.seeds)):
        yield plan.changed(seeds=_less(plan.seeds, i))


def _named(sql: str) -> str:
    """What a CREATE makes."""
    return re.search(r"CREATE \w+ (\w+)", sql)[1]


def _less(things: list, i: int) -> list:
    return things[:i] + things[i + 1:]


MAKERS = (_without_rounds, _without_sessions, _without_objects, _without_columns, _simpler)
