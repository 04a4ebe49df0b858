"""Schemas made at random, and writes to them from 20 sessions, direct and through the proxy: a short run.

``make test-schemas`` plays more. Seeds are printed; ``TQDB_SEED`` chooses the first.
"""


import pytest

from tests.schemas.run import Run
from tests.seeded import first_seed, runs_of

SECONDS = 20
SOUND_SECONDS = 6
SHRINK_SECONDS = 60
SCHEMAS = 36


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
        for plan, problems in run.failures(first_seed(), SCHEMAS, SOUND_SECONDS):
            pytest.fail(run.report(plan, problems, SHRINK_SECONDS))
    finally:
        run.direct = False


@pytest.mark.parametrize("protocol", ["postgres", "mariadb"])
def test_schemas(runs, protocol):
    run = runs(protocol)
    for plan, problems in run.failures(first_seed(), SCHEMAS, SECONDS):
        pytest.fail(run.report(plan, problems, SHRINK_SECONDS))
    share = run.share()
    print(f"{run.plans} schemas, {run.batched:.0f} writes batched, {share:.0%}; not taken: {run.unsound}")
    assert share > 0.1, "hardly anything was batched: this shows little"
    assert len(run.unsound) * 5 < run.plans, run.unsound
