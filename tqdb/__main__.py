"""``python -m tqdb``."""

import sys

from tqdb.cli import main

if __name__ == "__main__":
    sys.exit(main())
