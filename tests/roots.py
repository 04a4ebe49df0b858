"""Root directories of other systems, in which a test runs commands by chroot(1). Needs root."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tqdb.load.servers import which


def chrooted(root: Path, *command: str) -> list[str]:
    """The command line that runs ``command`` with ``root`` as its root directory."""
    return [which("chroot"), str(root), *command]


@contextmanager
def kernels_files(root: Path) -> Iterator[None]:
    """/proc and /dev are in ``root``, too, meanwhile. Skips the test where mounting is not allowed."""
    mounted = []
    try:
        for name in ("proc", "dev"):
            (root / name).mkdir(exist_ok=True)
            if subprocess.run(["mount", "--rbind", f"/{name}", root / name], capture_output=True).returncode:
                pytest.skip("mounting is not allowed here")
            mounted.append(root / name)
            subprocess.run(["mount", "--make-rslave", root / name], check=True)
        yield
    finally:
        for path in mounted:
            subprocess.run(["umount", "-R", "-l", path], check=True)
