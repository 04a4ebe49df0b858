"""The commands."""

import argparse
import shutil
import sys

from tqdb import __version__, log
from tqdb.config import Config, find_file, from_arguments, read_file
from tqdb.errors import ConfigError, TqdbError


def _configuration(args) -> Config:
    """The configuration that ``serve`` and ``check`` work with."""
    given = any((args.postgres, args.mariadb, args.listen_postgres, args.listen_mariadb, args.metrics))
    if given and args.config:
        raise ConfigError("command line: -c and addresses exclude each other; allowed: one of them")
    if given:
        return from_arguments(args.postgres, args.mariadb, args.listen_postgres, args.listen_mariadb,
                              args.metrics)
    path = find_file(args.config)
    if path is None:
        raise ConfigError("no configuration: give -c FILE, set TQDB_CONFIG, write ./tqdb.ini or "
                          "/etc/tqdb/tqdb.ini, or name a backend with --postgres or --mariadb HOST:PORT")
    return read_file(path)


def serve(args) -> int:
    from tqdb.server import Server

    log.set_up(args.log_format, args.log_level)
    Server(_configuration(args), args.replace, _successor()).run()
    return 0


def _successor() -> list[str]:
    """The command line that starts this program again, in its place."""
    if getattr(sys, "frozen", False):
        # as it was called: the file that a symbolic link names may be another one by now
        command = [shutil.which(sys.argv[0]) or sys.executable, *sys.argv[1:]]
    else:
        command = [sys.executable, *sys.orig_argv[1:]]
    return command if "--replace" in command else [*command, "--replace"]


def check(args) -> int:
    from tqdb.check import run

    return run(_configuration(args))


def config(args) -> int:
    from tqdb.reference import ini, markdown

    print(markdown() if args.markdown else ini(), end="")
    return 0


def licenses(args) -> int:
    from tqdb.licenses import text

    print(text(), end="")
    return 0


def _address(args) -> str:
    """Of a running proxy's HTTP: the one given, or the configuration's."""
    if args.address is not None:
        return args.address
    found = _configuration(args).metrics.listen
    if found is None:
        raise ConfigError(f"{args.command}: this configuration has no [metrics] listen; give the address")
    return str(found)


def top(args) -> int:
    from tqdb.top import run

    return run(_address(args), args.once, args.interval)


def advise(args) -> int:
    from tqdb.advise import run

    return run(_address(args), args.minutes, args.json)


def demo(args) -> int:
    from tqdb.load.demo import run

    return run(args.seconds, args.once, args.connections)


def bench(args) -> int:
    if args.null_backend:
        from tqdb.load.null import serve as serve_null

        return serve_null(args.null_backend, args.port)
    from tqdb.load.bench import run

    return run(args.scenario, args.quick, args.seconds, args.json, args.pictures, args.target, args.slow_disk,
               args.server)


def locust(args) -> int:
    from tqdb.load.locust import run

    return run(args.arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tqdb", description="A transparent proxy for PostgreSQL and MariaDB that turns many small "
        "writes into few.")
    parser.add_argument("--version", action="version", version=f"tqdb {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name, function, text):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        return sub

    for name, function, text in (
            ("serve", serve, "run the proxy in the foreground until SIGTERM or SIGINT"),
            ("check", check, "validate the configuration and connect to every backend")):
        sub = command(name, function, text)
        sub.add_argument("-c", "--config", metavar="FILE", help="configuration file (default: $TQDB_CONFIG, "
                         "./tqdb.ini, /etc/tqdb/tqdb.ini)")
        sub.add_argument("--postgres", metavar="HOST:PORT", help="PostgreSQL backend")
        sub.add_argument("--mariadb", metavar="HOST:PORT", help="MariaDB backend")
        sub.add_argument("--listen-postgres", metavar="HOST:PORT", help="default 127.0.0.1:5433")
        sub.add_argument("--listen-mariadb", metavar="HOST:PORT", help="default 127.0.0.1:3307")
        sub.add_argument("--metrics", metavar="HOST:PORT", help="address of /metrics and the dashboard")
        if name == "serve":
            sub.add_argument("--replace", action="store_true", help="take over from the proxy that runs on these "
                             "addresses, if one does: no connection is refused, its sessions are served to their end")
            sub.add_argument("--log-format", choices=log.FORMATS, default="text", help="default text")
            sub.add_argument("--log-level", choices=log.LEVELS, default="info", help="default info")

    sub = command("config", config, "print a commented configuration file with every key")
    sub.add_argument("--markdown", action="store_true", help="as tables instead")

    def asking(name, function, text):
        """A command about a running proxy."""
        sub = command(name, function, text)
        sub.add_argument("address", nargs="?", metavar="HOST:PORT", help="a proxy's [metrics] listen; default: the "
                         "configuration's")
        sub.add_argument("-c", "--config", metavar="FILE", help="configuration file to take the address from")
        sub.set_defaults(postgres=None, mariadb=None, listen_postgres=None, listen_mariadb=None, metrics=None)
        return sub

    sub = asking("advise", advise, "which writes would gain from batching, why others cannot, and the rules to paste")
    sub.add_argument("--minutes", type=_positive, metavar="N", help="about the next N minutes (default: since the "
                     "proxy's start)")
    sub.add_argument("--json", action="store_true", help="all of it, as JSON")

    sub = asking("top", top, "the dashboard's figures in the terminal, until Ctrl-C")
    sub.add_argument("--once", action="store_true", help="print them once and end")
    sub.add_argument("--interval", type=_positive, default=1.0, metavar="N", help="seconds between looks (default 1)")

    sub = command("demo", demo, "start throwaway servers and show the same write load direct and batched")
    sub.add_argument("--seconds", type=_positive, default=8.0, metavar="N", help="length of each run (default 8)")
    sub.add_argument("--connections", type=int, default=256, metavar="N", help="writers (default 256)")
    sub.add_argument("--once", action="store_true", help="end after the table instead of staying up")

    sub = command("bench", bench, "run the benchmark suite on throwaway servers")
    sub.add_argument("scenario", nargs="*", metavar="SCENARIO", help="write, forms, window, clients, mix, overhead, "
                     "null, extreme, slow-disk, generator, engine; default: all")
    sub.add_argument("--quick", action="store_true", help="one short round of each")
    sub.add_argument("--seconds", type=_positive, metavar="N", help="length of each measurement (default 1.5)")
    sub.add_argument("--json", metavar="FILE", help="write the results to FILE")
    sub.add_argument("--pictures", metavar="DIR", help="draw PNG pictures into DIR (needs matplotlib)")
    sub.add_argument("--target", metavar="NAME", help="of the scenario write only this target: 1k, 10k, 100k, 1m")
    sub.add_argument("--slow-disk", type=float, default=0.0, metavar="MS", help="let every commit of the throwaway "
                     "servers take MS milliseconds longer")
    sub.add_argument("--server", action="append", default=[], metavar="URL", help="measure with this server instead "
                     "of a throwaway one: postgresql://user@host:port/db or mysql://user@host:port; the schema or "
                     "database tqdb_bench is made there and dropped again; may be given twice")
    sub.add_argument("--null-backend", choices=("postgres", "mariadb"), help=argparse.SUPPRESS)
    sub.add_argument("--port", type=int, help=argparse.SUPPRESS)

    sub = command("locust", locust, "Locust with the shipped locustfiles; all of Locust's own options")
    sub.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…", help="Locust's options; --host is a "
                     "database URL (postgresql://user@host:port/db, mysql://…)")

    command("licenses", licenses, "print the licences of tqdb and of everything that is part of it")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code (0 done, 1 failed while running, 2 bad usage)."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["locust"] and argv[1:2] not in (["--help"], ["-h"]):
        # Locust's own options would be taken for tqdb's
        args = argparse.Namespace(function=locust, arguments=argv[1:])
    else:
        args = _parser().parse_args(argv)
    try:
        return args.function(args)
    except ConfigError as e:
        print(f"tqdb: {e}", file=sys.stderr)
        return 2
    except TqdbError as e:
        print(f"tqdb: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
