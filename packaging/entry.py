"""Where the frozen executable begins.

The archive behind it (see tqdb.spec) is unpacked beside everything else, into the directory that the executable's
loader makes at the start and removes at the end.
"""

import os
import stat
import sys
import zipfile

from tqdb.cli import main


def unpack_tools() -> None:
    with zipfile.ZipFile(sys.executable) as tools:
        for entry in tools.infolist():
            path = os.path.join(sys._MEIPASS, entry.filename)
            if stat.S_ISLNK(entry.external_attr >> 16):
                if not os.path.lexists(path):
                    os.symlink(tools.read(entry).decode(), path)
            else:
                tools.extract(entry, sys._MEIPASS)


if sys.argv[1:2] == ["locust"] or "--pictures" in sys.argv:
    unpack_tools()

sys.exit(main())
