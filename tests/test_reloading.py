"""What of a file that is read again takes effect, and what stays until a restart."""

import pytest

from tqdb.config import Config, read_file
from tqdb.reloading import plan

METRICS = "[metrics]\nlisten = 127.0.0.1:1\n"
PG = "[postgres]\nlisten = 127.0.0.1:2\nsocket = /s\n[postgres.main]\nprimary = a:1\n"
MY = "[mariadb]\nlisten = 127.0.0.1:3\n[mariadb.main]\nprimary = b:1\n"
LABELS = "[writebatch]\nmax_label_sets = 7\nmax_batch_size = 5\n"


@pytest.fixture
def read(tmp_path):
    def read(text: str) -> Config:
        path = tmp_path / "tqdb.ini"
        path.write_text(text)
        return read_file(path, {})
    return read


@pytest.mark.parametrize(("old", "new", "kept", "changing", "effective"), [
    (PG, PG, (), ("postgres",), PG),
    # a section as a whole neither comes nor goes, whatever stands in it
    (PG + MY, PG, ("[mariadb]",), ("postgres",), PG + MY),
    (PG, PG + MY, ("[mariadb]",), ("postgres",), PG),
    (PG, MY, ("[postgres]", "[mariadb]"), (), PG),
    # the rest of a section takes effect beside what is kept
    (PG, PG.replace(":2\n", ":9\nobserve = yes\n").replace("a:1", "c:1"), ("[postgres] listen",), ("postgres",),
     PG.replace(":2\n", ":2\nobserve = yes\n").replace("a:1", "c:1")),
    (PG, PG.replace("/s", "/other"), ("[postgres] socket",), ("postgres",), PG),
    (PG, PG.replace("socket = /s\n", ""), ("[postgres] socket",), ("postgres",), PG),
    (PG, PG.replace("listen = 127.0.0.1:2\n", ""), ("[postgres] listen",), ("postgres",), PG),
    (MY, MY.replace(":3\n", ":3\nsocket = /s\n"), ("[mariadb] socket",), ("mariadb",), MY),
    (PG + METRICS, PG, ("[metrics] listen",), ("postgres",), PG + METRICS),
    (PG, PG + METRICS, ("[metrics] listen",), ("postgres",), PG),
    (PG, PG + LABELS, ("[writebatch] max_label_sets",), ("postgres",), PG + LABELS.replace("7", "1000")),
    (PG, PG + "[limits]\ndrain_timeout = 1\n[rule.r]\nmax_wait_ms = 1\n", (), ("postgres",),
     PG + "[limits]\ndrain_timeout = 1\n[rule.r]\nmax_wait_ms = 1\n"),
])
def test_what_takes_effect(read, old, new, kept, changing, effective):
    first = read(old)
    planned = plan(first, read(new))
    assert (planned.kept, planned.changing, planned.config) == (kept, changing, read(effective))
    # the same file once more has the same to say, and the first one again nothing
    assert plan(planned.config, read(new)).kept == kept
    assert plan(planned.config, first).kept == ()
    assert plan(planned.config, first).config == first
