"""A failing plan made small: fewer sessions, fewer steps, simpler sends, as long as it still fails."""

import copy
from collections.abc import Iterator

from tests.conversations.plan import Plan


def _without_sessions(plan: Plan) -> Iterator[Plan]:
    count = len(plan.sessions)
    size = count // 2
    while size:
        for start in range(0, count, size):
            kept = plan.sessions[:start] + plan.sessions[start + size:]
            if kept:
                yield _with(plan, sessions=kept)
        size //= 2


def _without_steps(plan: Plan) -> Iterator[Plan]:
    longest = max(len(session.steps) for session in plan.sessions)
    size = 1 << max(0, longest.bit_length() - 1)
    while size:
        for k, session in enumerate(plan.sessions):
            for start in range(0, len(session.steps), size):
                candidate = _with(plan)
                del candidate.sessions[k].steps[start:start + size]
                yield candidate
        size //= 2


def _with_fewer_rows(plan: Plan) -> Iterator[Plan]:
    """Lists inside of steps: rows of executions, blocks of COPY; and how often the rows come."""
    for k, i, step in _steps(plan):
        if step.get("times", 1) > 1:
            yield _changed(plan, k, i, {**step, "times": step["times"] // 2})
        for name in ("rows", "blocks"):
            if isinstance(step.get(name), list):
                for half in (step[name][:len(step[name]) // 2], step[name][len(step[name]) // 2:]):
                    if half and len(half) < len(step[name]):
                        yield _changed(plan, k, i, {**step, name: half})


def _simpler(plan: Plan) -> Iterator[Plan]:
    if plan.order == "threads":
        yield _with(plan, order="rounds")
    if any(session.options for session in plan.sessions):
        candidate = _with(plan)
        for session in candidate.sessions:
            session.options = {}
        yield candidate
    for k, i, step in _steps(plan):
        if "cuts" in step:
            yield _changed(plan, k, i, {key: v for key, v in step.items() if key != "cuts"})
        if "then" in step:
            yield _changed(plan, k, i, {key: v for key, v in step.items() if key != "then"})


def _steps(plan: Plan) -> Iterator[tuple[int, int, dict]]:
    for k, session in enumerate(plan.sessions):
        for i, step in enumerate(session.steps):
            yield k, i, step


def _with(plan: Plan, **more) -> Plan:
    candidate = copy.deepcopy(plan)
    for name, value in more.items():
        setattr(candidate, name, copy.deepcopy(value))
    return candidate


def _changed(plan: Plan, k: int, i: int, step: dict) -> Plan:
    candidate = _with(plan)
    candidate.sessions[k].steps[i] = step
    return candidate


MAKERS = (_without_sessions, _without_steps, _with_fewer_rows, _simpler)
