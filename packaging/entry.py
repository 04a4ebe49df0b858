"""Where the frozen executable begins.

The archive behind it (see tqdb.spec) is unpacked beside everything else, into the directory that the executable's
loader makes at the start and removes at the end.
"""

import ctypes
import os
import signal
import stat
import sys
import zipfile

from tqdb.cli import main

PR_SET_PDEATHSIG = 1        # prctl(2)


def end_with_loader() -> None:
    """Whoever kills the process that was started kills the proxy with it, which is that one's child."""
    loader = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != loader:
        os.kill(os.getpid(), signal.SIGKILL)


def leave_terminals_group() -> None:
    """Ctrl-C goes to the loader and everything in its process group, and the loader passes its own on.

    A proxy must get it once: the second one ends a drain. It reads no terminal, so it may be in a group of its own.
    """
    if os.getpgrp() != os.getpid():     # one that another executable of ours has started has no loader
        os.setpgid(0, 0)


def unpack_tools() -> None:
    with zipfile.ZipFile(sys.executable) as tools:
        for entry in tools.infolist():
            path = os.path.join(sys._MEIPASS, entry.filename)
            if stat.S_ISLNK(entry.external_attr >> 16):
                if not os.path.lexists(path):
                    os.symlink(tools.read(entry).decode(), path)
            else:
                tools.extract(entry, sys._MEIPASS)


end_with_loader()
if sys.argv[1:2] == ["serve"]:
    leave_terminals_group()
if sys.argv[1:2] == ["locust"] or "--pictures" in sys.argv:
    unpack_tools()
sys.exit(main())
