"""Plays a plan: direct, one after the other in a certain order, or all at once; and compares."""

import itertools

from tests.schemas.outcome import Outcome, Seen, difference
from tests.schemas.plan import CLASH, Plan, Write, render
from tests.schemas.stage import Broken, Client, Stage


def play(plan: Plan, stage: Stage, port: int, at_once: bool, order: int = 0) -> Outcome:
    """``order``: of the writes of each clashing team, as a number of a permutation."""
    name = stage.name()
    seen = Seen(name, [], stage.now())
    stage.build(plan, name)
    clients: list[Client] = []
    try:
        for session in plan.sessions:
            clients.append(stage.client(port, name))
            for sql in session.settings:
                clients[-1].run(sql.replace("play", name))
            seen.own.append(stage.own_of(clients[-1]))
        for number, writes in enumerate([*plan.rounds, in_order(plan.clash, order)]):
            if number == len(plan.rounds):
                seen.before = stage.contents(plan, name)
            writes = [w for w in writes if plan.table(w.table)]
            _round(plan, writes, clients, seen, at_once)
            if number < len(plan.probes) and (probe := plan.probes[number]):
                for write in writes:
                    clients[write.session].send(probe)
                    if not at_once:
                        seen.probes[number, write.session] = clients[write.session].receive()
                for write in writes if at_once else ():
                    seen.probes[number, write.session] = clients[write.session].receive()
    except Broken as e:
        seen.broken = str(e)
    finally:
        for client in clients:
            client.close()
        try:
            seen.after = stage.contents(plan, name)
            seen.before = seen.before or seen.after
        finally:
            stage.drop(name)
    seen.until = stage.now()
    return Outcome(plan, seen)


def _round(plan: Plan, writes: list[Write], clients: list[Client], seen: Seen, at_once: bool) -> None:
    for write in writes:
        form = plan.sessions[write.session].form
        clients[write.session].send(*render(plan, write, form), form)
        if not at_once:
            seen.answers[write.number] = clients[write.session].receive()
    for write in writes if at_once else ():
        seen.answers[write.number] = clients[write.session].receive()


def in_order(clash: list[Write], order: int) -> list[Write]:
    """Each team's writes in their permutation of this number, one team behind the other."""
    out = []
    for team in _teams(clash).values():
        permutations = list(itertools.permutations(team))
        out += permutations[order % len(permutations)]
    return out


def _teams(clash: list[Write]) -> dict[int, list[Write]]:
    teams: dict[int, list[Write]] = {}
    for write in clash:
        teams.setdefault(write.unit, []).append(write)
    return teams


def allowed(direct: list, through: list) -> list:
    """The direct things, with what documentation allows instead: PostgreSQL's ``lastval()`` may be an error, but
    never another session's."""
    told = dict(t for t in through if len(t) == 2)
    return [(head, told[head]) if head.endswith(" AS last_id") and "('code', '55000')" in str(told.get(head)) else
            (head, body) for head, body in direct]


def compare(unit: int, direct: Outcome, through: Outcome) -> str:
    there = through.parts.get(unit, [])
    return difference(unit, allowed(direct.parts.get(unit, []), there), there)


def differences(plan: Plan, stage: Stage, port: int) -> tuple[list[str], int]:
    """What differs between the server itself and all at once at ``port``; and how many units had a deadlock."""
    through = play(plan, stage, port, True)
    if through.seen.broken:
        return [f"a session ended: {through.seen.broken}"], 0
    direct = play(plan, stage, stage.server.port, False)
    assert not direct.seen.broken, direct.seen.broken
    deadlocked = {unit for unit in through.parts if through.code(unit, stage.deadlocks)}
    # a session keeps in its variables what its own deadlock has left, and takes it to its team
    marked = {write.session for writes in plan.rounds for write in writes if write.unit in deadlocked}
    deadlocked |= {write.unit for write in plan.clash if write.session in marked}
    # a default that asks for a sequence's last value behind a batched write: an error, and never another session's
    cleared = {unit for unit in through.parts if through.code(unit, stage.cleared) and not direct.code(
        unit, stage.cleared)}
    out = [found for unit in sorted(direct.parts.keys() | through.parts.keys()) if unit < CLASH
           if unit not in deadlocked | cleared and (found := compare(unit, direct, through))]
    if out:
        return out, len(deadlocked)
    orders = max((len(list(itertools.permutations(team))) for team in _teams(plan.clash).values()), default=0)
    unexplained: dict[int, list[str]] = {unit: [] for unit in {w.unit for w in plan.clash} - deadlocked - cleared}
    for order in range(orders):
        if order and unexplained:
            direct = play(plan, stage, stage.server.port, False, order)
        for unit in list(unexplained):
            found = compare(unit, direct, through)
            unexplained[unit].append(f"order {order}, {found}")
            if not found:
                del unexplained[unit]
    return ["\n".join(found) for _, found in sorted(unexplained.items())], len(deadlocked)
