"""Legal conversations made at random, direct and through the proxy: a short run, and kinds in which
clients that send ahead have met faults.

``make test-conversations`` plays them for longer. Seeds are printed; ``TQDB_SEED`` chooses the first.
"""

from pathlib import Path

import pytest

from tests.conversations.plan import Plan
from tests.conversations.run import Run
from tests.seeded import first_seed, runs_of

SECONDS = 20
SOUND_SECONDS = 4
SIZES = [1, 2, 3, 7, 100, 1000]
FOUND = sorted((Path(__file__).parent / "conversations/found").glob("*.json"))


@pytest.fixture(scope="module")
def runs(request):
    """``runs(protocol)``: the run of a protocol, made when first asked for."""
    with runs_of(Run, request) as get:
        yield get


@pytest.mark.parametrize("protocol", ["postgres", "mariadb"])
def test_what_is_compared_does_not_depend_on_timing(runs, protocol):
    """Without a proxy: one session after the other, and all at once, give the same."""
    run = runs(protocol)
    run.direct = True
    try:
        for plan, problems in run.for_seconds(SOUND_SECONDS, first_seed(), SIZES):
            pytest.fail(run.report(plan, problems, SECONDS))
    finally:
        run.direct = False


@pytest.mark.parametrize("protocol", ["postgres", "mariadb"])
def test_conversations(runs, protocol):
    run = runs(protocol)
    for plan, problems in run.for_seconds(SECONDS, first_seed(), SIZES):
        pytest.fail(run.report(plan, problems, 2 * SECONDS))
    share = run.share()
    print(f"{run.plans} plans, {run.comparisons} answers and tables, {run.batched:.0f} writes batched, {share:.0%}")
    assert run.batched, "nothing was batched: this shows nothing"


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_kinds_that_failed(runs, path):
    """First with a new proxy, which knows nothing of the tables, then again. Its ``why`` says what a plan is for."""
    plan = Plan.read(path)
    run = runs(plan.protocol)
    run.command = None      # there are many, and the executable takes its time to unpack itself
    run.end_proxy(plan.batch_size)
    for _ in range(3):
        problems = run.check(plan)
        assert not problems, "\n".join([plan.why, *problems, plan.text()])
