"""``tqdb locust``: Locust with the shipped locustfiles."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path

from tqdb.errors import ConfigError, TqdbError
from tqdb.load.servers import MariaDB, Postgres, Proxy
from tqdb.load.targets import SCHEMES

SHIPPED = ("postgres", "mariadb", "generator", "steps")
URLS = {"postgres": "postgresql://postgres@127.0.0.1:{}/postgres", "mariadb": "mysql://root@127.0.0.1:{}/test"}
THROWAWAY = "--throwaway"


def locustfiles() -> Path:
    """The directory of the shipped locustfiles: a checkout's, an installed package's, the frozen executable's."""
    package = Path(__file__).parent.parent
    places = [Path(getattr(sys, "_MEIPASS", package.parent)), package]
    return next(place / "locustfiles" for place in places if (place / "locustfiles/common.py").is_file())


def _option(args: list[str], *names: str) -> str | None:
    """The value of an option, however it is written."""
    for i, a in enumerate(args):
        if a in names and i + 1 < len(args):
            return args[i + 1]
        for name in names:
            if name.startswith("--") and a.startswith(name + "="):
                return a.partition("=")[2]
    return None


def _shipped(names: str) -> str:
    """Names of shipped locustfiles as their paths; anything else stays as it is."""
    return ",".join(str(locustfiles() / f"{n}.py") if n in SHIPPED and not Path(n).exists() else n
                    for n in names.split(","))


def arguments(args: list[str]) -> list[str]:
    """Locust's arguments: without a ``-f`` of the user's, the file that fits ``--host`` is chosen."""
    if any(a in ("--help", "-h", "--version", "-V") for a in args):
        return args
    files = _option(args, "-f", "--locustfile")
    if files is not None:
        return [_shipped(a) if a == files else f"--locustfile={_shipped(files)}" if a == f"--locustfile={files}" else a
                for a in args]
    host = _option(args, "-H", "--host") or "postgresql://"
    scheme = host.partition("://")[0]
    if scheme not in SCHEMES:
        raise ConfigError(f"locust: --host '{host}' is not a database URL; allowed: postgresql://user@host:port/db, "
                          "mysql://user@host:port/db")
    return ["-f", _shipped(SCHEMES[scheme]), *args]


def _throwaway(args: list[str], stack: ExitStack) -> list[str]:
    """``--throwaway [postgres|mariadb]`` starts a server and a proxy and becomes ``--host`` with its URL."""
    at = args.index(THROWAWAY)
    protocol = args[at + 1] if at + 1 < len(args) and args[at + 1] in URLS else "postgres"
    rest = [a for i, a in enumerate(args) if i != at and not (i == at + 1 and a == protocol)]
    server = stack.enter_context((Postgres if protocol == "postgres" else MariaDB)(max_connections="2500").start())
    if protocol == "mariadb":
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE IF NOT EXISTS test")
    proxy = stack.enter_context(Proxy(**{protocol: server}).start())
    url = URLS[protocol].format(getattr(proxy, f"{protocol}_port"))
    print(f"throwaway {protocol} behind tqdb: {url}\n"
          f"tqdb's dashboard: http://127.0.0.1:{proxy.metrics_port}/", flush=True)
    return ["--host", url, *rest]


def run(args: list[str]) -> int:
    """Runs Locust with all of its own options."""
    started_by = os.getpid()
    stack = ExitStack()
    try:
        if THROWAWAY in args:
            args = _throwaway(args, stack)
        sys.argv = ["tqdb locust", *arguments(args)]
        try:
            from locust.main import main
        except ImportError:
            raise TqdbError("Locust is not installed; `make locust` installs it, or pip install 'tqdb[locust]'"
                            ) from None
        try:
            main()
        except SystemExit as e:
            return e.code if isinstance(e.code, int) else 1 if e.code else 0
        return 0
    finally:
        if os.getpid() == started_by:       # Locust's --processes are forks of this one
            stack.close()
