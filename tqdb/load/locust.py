"""``tqdb locust``: Locust with the shipped locustfiles."""

import sys
from pathlib import Path

from tqdb.errors import ConfigError, TqdbError

FILES = {"postgresql": "postgres.py", "postgres": "postgres.py", "mysql": "mariadb.py", "mariadb": "mariadb.py"}


def locustfiles() -> Path:
    """The directory of the shipped locustfiles: beside the package, or inside the frozen executable."""
    base = Path(getattr(sys, "_MEIPASS", Path(__file__).parent.parent.parent))
    return base / "locustfiles"


def arguments(args: list[str]) -> list[str]:
    """Locust's arguments: without a ``-f`` of the user's, the file that fits ``--host`` is chosen."""
    if any(a in ("-f", "--locustfile", "--help", "-h", "--version", "-V") or a.startswith("--locustfile=")
           for a in args):
        return args
    host = next((args[i + 1] if a in ("--host", "-H") else a.partition("=")[2]
                 for i, a in enumerate(args)
                 if a.startswith("--host=") or (a in ("--host", "-H") and i + 1 < len(args))), "postgresql://")
    scheme = host.partition("://")[0]
    if scheme not in FILES:
        raise ConfigError(f"locust: --host '{host}' is not a database URL; allowed: postgresql://user@host:port/db, "
                          "mysql://user@host:port/db")
    return ["-f", str(locustfiles() / FILES[scheme]), *args]


def run(args: list[str]) -> int:
    """Runs Locust with all of its own options."""
    sys.argv = ["tqdb locust", *arguments(args)]
    try:
        from locust.main import main
    except ImportError:
        raise TqdbError("Locust is not installed; `make locust` installs it, or pip install 'tqdb[locust]'") from None
    try:
        main()
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 1 if e.code else 0
    return 0
