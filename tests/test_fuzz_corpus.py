"""What fuzzing has kept, played with the ordinary build: the corpus, and every input that once failed."""

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

FUZZ = Path(__file__).parent / "fuzz"
FOUND = sorted((FUZZ / "found").glob("*/*"))


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name):
    files = sorted((FUZZ / "corpus" / name).iterdir())
    assert files
    for file in files:
        try:
            TARGETS[name](file.read_bytes())
        except Exception as e:
            raise AssertionError(f"{file}: {e}") from e


@pytest.mark.parametrize("path", FOUND, ids=lambda path: "/".join(path.parts[-2:]))
def test_what_was_found(path):
    TARGETS[path.parent.name](path.read_bytes())
