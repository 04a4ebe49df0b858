"""The frozen executable in bare roots of the oldest systems that it is made for, and of newer ones.

``TQDB_PORTABLE`` names root directories made by debootstrap, separated by colons, ``TQDB_BIN`` the executable
(``make test-portable`` has both). What tests/test_appliance.py says of a root with two packages must hold in each. The
databases run outside: the network is the same.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fix_servers import tqdb_command
from tests.roots import chrooted, kernels_files
from tests.test_appliance import (  # noqa: F401
    ROOT,
    frozen,
    run,
    test_bench_and_locust_without_python,
    test_check_and_serve_without_python,
    test_simple_commands_without_python,
)

ROOTS = [Path(root) for root in os.environ.get("TQDB_PORTABLE", "").split(":") if root]
OLDEST = (2, 31)        # glibc of Debian 11


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


@pytest.fixture(scope="module", params=ROOTS or [None], ids=lambda root: root.name if root else "no-root")
def bare_root(request):
    """``bare_root(*command)`` is that command line in one of the roots."""
    root = request.param
    if root is None or os.geteuid() != 0 or not frozen():
        pytest.skip("TQDB_PORTABLE names no root directories, or TQDB_BIN no executable (make test-portable)")
    assert not list((root / "usr").rglob("python3*"))
    shutil.copy2(tqdb_command()[0], root / "tqdb")
    try:
        with kernels_files(root):
            yield lambda *command: chrooted(root, "/tqdb", *command)
    finally:
        (root / "tqdb").unlink()


@pytest.mark.skipif(not ROOTS or not frozen(), reason="TQDB_PORTABLE and TQDB_BIN are not set (make test-portable)")
def test_it_needs_no_newer_glibc():
    """Nor do the roots have one: what runs in the first of them could not have been linked with more."""
    needed = subprocess.run([ROOT / "scripts/glibc-needed", tqdb_command()[0]], capture_output=True, text=True,
                            check=True).stdout
    assert version(needed) <= OLDEST
    has = [re.search(r"GLIBC (\d+\.\d+)", run(*chrooted(root, "/usr/bin/ldd", "--version"))) for root in ROOTS]
    assert min(version(match[1]) for match in has) == OLDEST
