"""What fuzzing has kept, played with the ordinary build: the corpus, and every input that once failed."""

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

FUZZ = Path(__file__).parent / "fuzz"
FOUND = sorted((FUZZ / "found").glob("*/*"))
# findings that the core does not stand yet
OPEN = {
    "my_server/end-longer-than-what-came", "my_session/end-longer-than-what-came",
    "pg_session/answer-inside-a-half-relayed-message", "pg_server/parameter-status-without-a-value",
    "pg_session/bind-without-a-body", "pg_session/full-batch-of-bound-inserts",
    "scan_postgres/core-ends-before-it-begins",
    "scan_mariadb/core-ends-before-it-begins",
}


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name):
    files = sorted((FUZZ / "corpus" / name).iterdir())
    assert files
    for file in files:
        try:
            TARGETS[name](file.read_bytes())
        except Exception as e:
            raise AssertionError(f"{file}: {e}") from e


def played(path: Path):
    name = "/".join(path.parts[-2:])
    return pytest.param(path, id=name, marks=pytest.mark.xfail(run=False) if name in OPEN else ())


@pytest.mark.parametrize("path", [*map(played, FOUND)])
def test_what_was_found(path):
    TARGETS[path.parent.name](path.read_bytes())
