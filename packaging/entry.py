"""Where the frozen executable begins."""

import sys

from tqdb.cli import main

sys.exit(main())
