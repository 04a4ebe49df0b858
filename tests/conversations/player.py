"""Plays a plan direct, one session after the other, and through a proxy, all at once; and compares."""

import random
from dataclasses import dataclass, field

from tests.conversations.plan import Plan
from tests.conversations.stage import Stage
from tests.conversations.talk import Broken
from tests.crowd import together

SHOWN = 160         # bytes of an answer in a report


@dataclass
class Outcome:
    """By session: the answer to each step, and why it could not go on ("" if it could). And what the tables held."""

    answers: list[dict[int, bytes]]
    broken: list[str]
    tables: dict[str, list[tuple]] = field(default_factory=dict)
    left: int = 0               # server connections that outlived their clients


def play(plan: Plan, stage: Stage, port: int, at_once: bool, seconds: float = 20) -> Outcome:
    stage.reset()
    count = len(plan.sessions)
    out = Outcome([{} for _ in range(count)], [""] * count)

    def session(k: int):
        """Session k; yields behind every send."""
        talk = None
        try:
            talk = stage.talk(port, plan.sessions[k], seconds)
            out.answers[k] = talk.answers
            yield from talk.play(plan.sessions[k])
        except (Broken, OSError) as e:
            out.broken[k] = str(e)
        finally:
            if talk is not None:
                talk.close()

    def whole(k: int) -> None:
        for _ in session(k):
            pass

    if not at_once:
        for k in range(count):
            whole(k)
    elif plan.order == "threads":
        together(count, whole, 60 + 2 * seconds)
    else:
        rng = random.Random(plan.seed)
        running = [session(k) for k in range(count)]
        while running:
            for chosen in rng.sample(running, len(running)) if plan.order == "rounds" else [rng.choice(running)]:
                if next(chosen, "ended") == "ended":
                    running.remove(chosen)
    if any(out.broken):
        stage.end_all()
    else:
        out.left = stage.idle()
    out.tables = stage.contents()
    return out


class Illegal(AssertionError):
    """A plan that the server itself does not take: the generator's fault, or a shrinking that went too far."""


def differences(plan: Plan, direct: Outcome, through: Outcome) -> list[str]:
    """What was not the same, in words, the likeliest cause first."""
    if any(direct.broken):
        raise Illegal(f"not a legal conversation: {direct.broken}\n{plan.text()}")
    out = []
    for k, session in enumerate(plan.sessions):
        a, b = direct.answers[k], through.answers[k]
        for index in sorted(a.keys() | b.keys()):
            if a.get(index) != b.get(index) and (index in b or not through.broken[k]):
                step = session.steps[index] if index < len(session.steps) else "the last question"
                out.append(f"session {session.key}, step {index}, {str(step)[:300]}:\n"
                           f"    direct  {shown(a.get(index), b.get(index))}\n"
                           f"    through {shown(b.get(index), a.get(index))}")
                break
        if through.broken[k]:
            out.append(f"session {session.key}: {through.broken[k]}")
    if out:
        return out
    for name, rows in direct.tables.items():
        if rows != through.tables[name]:
            lost = [row for row in rows if row not in through.tables[name]]
            more = [row for row in through.tables[name] if row not in rows]
            out.append(f"table {name}: only direct {lost[:5]}, only through {more[:5]}, or another order or number")
    if through.left:
        out.append(f"{through.left} server connections outlived their clients")
    return out


def shown(answer: bytes | None, other: bytes | None) -> str:
    """The bytes around the first that differs."""
    if answer is None:
        return "nothing"
    same = next((i for i, (a, b) in enumerate(zip(answer, other or b"", strict=False)) if a != b),
                min(len(answer), len(other or b"")))
    start = max(0, same - SHOWN // 2)
    return ("…" if start else "") + repr(answer[start:start + SHOWN]) + f" ({len(answer)} bytes)"
