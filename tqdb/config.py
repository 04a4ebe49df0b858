"""Configuration: an INI file and ``TQDB_<SECTION>_<KEY>`` variables become frozen dataclasses.

Every error is a ``ConfigError`` of one line that names file, section and key, what is wrong and what is allowed.
"""

import configparser
import ipaddress
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path

from tqdb.errors import ConfigError
from tqdb.values import (
    Address,
    Addresses,
    Secret,
    glob_of,
    one_of,
    parse_addresses,
    parse_authorities,
    parse_balancers,
    parse_fingerprint,
    parse_glob,
    parse_listen,
    parse_name,
    parse_path,
    parse_query,
    parse_secret,
    parse_url,
    parse_user,
    parse_wait,
    seconds,
    whole,
)

SEARCH_PATH = ("tqdb.ini", "/etc/tqdb/tqdb.ini")
PROTOCOLS = ("postgres", "mariadb")
_ENV_SECTIONS = ("METRICS", "WRITEBATCH", "POSTGRES", "MARIADB", "LIMITS", "RULE")
VERBS = ("insert", "update", "delete", "replace")
MAX_RULES = 200             # each is looked at for each session and shape, once


def _option(default, parse, doc: str, example: str = ""):
    """``example``: shown where there is no default; one that begins with ``;`` is optional."""
    return field(default=default, metadata={"parse": parse, "doc": doc, "example": example})


@dataclass(frozen=True)
class Metrics:
    listen: Address | None = _option(
        None, parse_listen, "address of the dashboard, /metrics, /stats.json, /healthz, /readyz", "127.0.0.1:9090")


@dataclass(frozen=True)
class WriteBatch:
    max_batch_size: int = _option(1000, whole(1, 100000), "rows in one batch: the one knob most users need")
    max_wait_ms_limit: int = _option(1000, whole(1, 3600000), "hints above it are cut to it, milliseconds")
    max_batch_bytes: int = _option(1048576, whole(1024, 15728640), "bytes of one batch")
    max_label_sets: int = _option(1000, whole(0, 1000000), "bound on metric series by file and line")
    max_shapes_watched: int = _option(
        1000, whole(0, 10000), "write shapes that advice is given about; 0 for none")


@dataclass(frozen=True)
class Limits:
    max_client_connections: int = _option(10000, whole(1, 1000000), "clients at a time")
    client_login_timeout: float = _option(30, seconds(0.1, 3600), "seconds a login may take")
    server_connect_timeout: float = _option(5, seconds(0.1, 3600), "seconds to reach a backend")
    drain_timeout: float = _option(30, seconds(0, 86400), "seconds that SIGTERM leaves for what is under way")
    max_message_bytes: int = _option(
        1073741824, whole(65536, 2147483647), "longest PostgreSQL message taken from a client")


@dataclass(frozen=True)
class Backend:
    name: str
    primary: Addresses = _option(
        None, parse_addresses, "the server, or several in the order in which they are preferred", "127.0.0.1:{server}")
    target: str = _option("any", one_of("any", "read-write"),
                          "which of them may serve: any, or only one that takes writes")
    tls: str = _option(
        "off", one_of("off", "prefer", "require", "verify-ca", "verify-full"), "TLS to the server")
    tls_ca: str = _option(
        "system", parse_authorities, "authorities that verify-ca and verify-full trust: a file, or system")
    tls_cert: str | None = _option(
        None, parse_path, "certificate for a server that asks for one", "; /etc/tqdb/client.crt")
    tls_key: str | None = _option(None, parse_path, "its key, if not in the same file", "; /etc/tqdb/client.key")
    monitor_user: str | None = _option(
        None, parse_user, "who asks each server what it is, on a connection of its own", "; tqdb_monitor")
    monitor_password: Secret | None = _option(None, parse_secret, "its password", "; secret")
    check_url: str | None = _option(None, parse_url, "or: who answers 200 here takes writes, such as Patroni's",
                                    "; http://{{host}}:8008/primary")
    send_proxy: str = _option("off", one_of("off", "v1", "v2"), "MariaDB: the client's address by the PROXY protocol")


@dataclass(frozen=True)
class Protocol:
    listen: Address | None = _option(None, parse_listen, "address to listen on", "127.0.0.1:{own}")
    socket: str | None = _option(None, parse_path, "Unix socket to listen on as well", "; /run/tqdb/{socket}")
    default: str = _option("main", parse_name, "name of the backend section that serves")
    observe: str = _option("no", one_of("no", "yes"), "yes: everything is relayed and counted, nothing batched")
    tls: str = _option("off", one_of("off", "allow", "require"), "TLS to clients over TCP")
    tls_cert: str | None = _option(None, parse_path, "the proxy's certificate, and those that issued it",
                                   "; /etc/tqdb/server.crt")
    tls_key: str | None = _option(None, parse_path, "its key, if not in the same file", "; /etc/tqdb/server.key")
    tls_client_ca: str | None = _option(
        None, parse_path, "clients with TLS have to show a certificate of these authorities", "; /etc/tqdb/clients.crt")
    auth: str = _option("relay", one_of("relay", "own"), "PostgreSQL: own: SCRAM ends in the proxy, which logs in at "
                        "the server with the key that it reveals")
    auth_file: str | None = _option(None, parse_path, "where own finds verifiers: a file as PgBouncer's userlist.txt",
                                    "; /etc/tqdb/userlist.txt")
    auth_query: str | None = _option(None, parse_query, "or: what monitor_user asks the server, $1 being the user",
                                     "; SELECT * FROM tqdb.verifier_of($1)")
    accept_proxy: str = _option(
        "off", parse_balancers, "from whom a header of the PROXY protocol is needed over TCP: everybody, or networks")
    backends: dict[str, Backend] = field(default_factory=dict)

    def is_announced(self, host: str) -> bool:
        """Whether connections from ``host`` have to begin with a header of the PROXY protocol."""
        if self.accept_proxy in ("off", "require"):
            return self.accept_proxy == "require"
        address = ipaddress.ip_address(host.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in ipaddress.ip_network(part.strip()) for part in self.accept_proxy.split(","))

    @property
    def backend(self) -> Backend:
        return self.backends[self.default]


@dataclass(frozen=True)
class Rule:
    """One ``[rule.NAME]``: globs that a write has to match, None for any, and for how long it may then wait."""

    name: str
    protocol: str | None = _option(None, glob_of(*PROTOCOLS), "protocol of the client", "; postgres")
    backend: str | None = _option(None, parse_glob, "NAME of the backend section that serves", "; main")
    database: str | None = _option(None, parse_glob, "database", "; shop")
    user: str | None = _option(None, parse_glob, "who has logged in", "; app_*")
    application: str | None = _option(
        None, parse_glob, "application_name; on MariaDB the connection attribute program_name", "; worker*")
    table: str | None = _option(None, parse_glob, "table, or schema.table; on MariaDB database.table", "public.events*")
    verb: str | None = _option(None, glob_of(*VERBS), "kind of the statement", "insert")
    fingerprint: str | None = _option(None, parse_fingerprint, "of the statement without its values: docs/rules.md",
                                      "; 0123456789abcdef")
    max_wait_ms: str | None = _option(None, parse_wait, "how long a write may wait, milliseconds; auto; off", "10")
    force: str = _option("no", one_of("no", "yes"), "yes: also over hints and what sessions have set")

    @property
    def wait(self) -> float:
        """Milliseconds, -2.0 for ``auto``, -1.0 for ``off``."""
        return {"auto": -2.0, "off": -1.0}.get(self.max_wait_ms) or float(self.max_wait_ms)

    @property
    def globs(self) -> dict[str, str]:
        """What a write has to match, by key."""
        return {key: getattr(self, key) for key in options(Rule)
                if key not in ("max_wait_ms", "force") and getattr(self, key) is not None}


@dataclass(frozen=True)
class Config:
    """One whole configuration; a protocol that is None is not listened on."""

    source: str = ""
    metrics: Metrics = Metrics()
    writebatch: WriteBatch = WriteBatch()
    limits: Limits = Limits()
    postgres: Protocol | None = None
    mariadb: Protocol | None = None
    rules: tuple[Rule, ...] = ()        # in order: the first that matches decides

    def protocols(self) -> list[tuple[str, Protocol]]:
        return [(name, getattr(self, name)) for name in PROTOCOLS if getattr(self, name)]


_SECTIONS = {"metrics": Metrics, "writebatch": WriteBatch, "limits": Limits,
             "postgres": Protocol, "mariadb": Protocol}


def settings(config: Config) -> dict[str, object]:
    """Every value by ``[section] key``, but for rules."""
    found: dict[str, object] = {}
    for section in ("metrics", "writebatch", "limits"):
        part = getattr(config, section)
        found.update({f"[{section}] {key}": getattr(part, key) for key in options(type(part))})
    for name, protocol in config.protocols():
        found.update({f"[{name}] {key}": getattr(protocol, key) for key in options(Protocol)})
        backend = protocol.backend
        found.update({f"[{name}.{backend.name}] {key}": getattr(backend, key) for key in options(Backend)})
    return found


def differences(old: Config, new: Config) -> dict[str, tuple[object, object]]:
    """What two configurations say differently, by ``[section] key``; None where one says nothing."""
    before, after = settings(old), settings(new)
    return {key: (before.get(key), after.get(key)) for key in sorted({*before, *after})
            if before.get(key) != after.get(key)}


def options(cls) -> dict:
    """The configurable fields of a section's class by key."""
    return {f.name: f for f in fields(cls) if "parse" in f.metadata}


def _fill(cls, values: dict[str, tuple[str, str]], section: str, **extra):
    """An instance of ``cls`` from ``{key: (text, where)}``."""
    known = options(cls)
    out = {}
    for key, (text, where) in values.items():
        if key not in known:
            raise ConfigError(f"{where}: section [{section}]: unknown key '{key}'; "
                              f"allowed: {', '.join(known)}")
        try:
            out[key] = known[key].metadata["parse"](text)
        except ValueError as e:
            raise ConfigError(f"{where}: section [{section}]: key '{key}': '{text}' is not valid; {e}") from None
    return cls(**extra, **out)


def _environment(environ: dict[str, str]) -> dict[str, dict[str, tuple[str, str]]]:
    """Settings from the environment as ``{section: {key: (text, where)}}``."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for name, text in sorted(environ.items()):
        match = re.fullmatch(rf"TQDB_({'|'.join(_ENV_SECTIONS)})_(\w+)", name)
        if not match:
            continue
        section, key = match[1].lower(), match[2].lower()
        if section in PROTOCOLS and key not in options(Protocol):
            # the longest key that the name ends with: a backend's own name may have a _, too
            last = max((k for k in options(Backend) if key.endswith(f"_{k}")), key=len, default=key.rpartition("_")[2])
            backend = key.removesuffix(last).removesuffix("_")
            if backend:
                section, key = f"{section}.{backend}", last
        elif section == "rule":
            last = max((k for k in options(Rule) if key.endswith(f"_{k}")), key=len, default="")
            if not last:
                raise ConfigError(f"environment variable {name}: allowed: TQDB_RULE_NAME_KEY, KEY one of "
                                  f"{', '.join(options(Rule))}")
            section, key = f"rule.{key.removesuffix(last).removesuffix('_')}", last
        found.setdefault(section, {})[key] = (text, f"environment variable {name}")
    return found


def _rule(values: dict[str, tuple[str, str]], section: str, name: str, source: str) -> Rule:
    if not re.fullmatch(r"[A-Za-z0-9_]{1,64}", name):
        raise ConfigError(f"{source}: section [{section}]: a rule's name has letters, digits and _, up to 64")
    rule = _fill(Rule, values, section, name=name)
    if rule.max_wait_ms is None:
        raise ConfigError(f"{source}: section [{section}]: key 'max_wait_ms' is missing; "
                          f"allowed: milliseconds, auto, off")
    return rule


def _check_auth(protocol: Protocol, where: str, name: str) -> None:
    """Who authenticates, and that it has what it needs."""
    given = [key for key in ("auth_file", "auth_query") if getattr(protocol, key) is not None]
    if protocol.auth == "relay":
        if given:
            raise ConfigError(f"{where}: key '{given[0]}' is there, though 'auth' is not own")
    elif name != "postgres":
        raise ConfigError(f"{where}: key 'auth': 'own' is not valid; it is for PostgreSQL only; allowed: relay")
    elif len(given) != 1:
        raise ConfigError(f"{where}: key 'auth': 'own' needs one of 'auth_file' and 'auth_query'")
    elif protocol.auth_query is not None and protocol.backend.monitor_user is None:
        raise ConfigError(f"{where}: key 'auth_query' needs 'monitor_user' in [{name}.{protocol.default}], who asks it")


def build(sections: dict[str, dict[str, tuple[str, str]]], source: str) -> Config:
    """A ``Config`` from ``{section: {key: (text, where)}}``."""
    parts: dict[str, object] = {}
    backends: dict[str, dict[str, Backend]] = {p: {} for p in PROTOCOLS}
    rules: list[Rule] = []
    for section, values in sections.items():
        protocol, dot, name = section.partition(".")
        if dot and protocol == "rule":
            rules.append(_rule(values, section, name, source))
            continue
        if dot and protocol in PROTOCOLS:
            if not re.fullmatch(r"[A-Za-z0-9_]+", name):
                raise ConfigError(f"{source}: section [{section}]: a backend's name has letters, digits and _")
            backend = _fill(Backend, values, section, name=name)
            if backend.primary is None:
                raise ConfigError(f"{source}: section [{section}]: key 'primary' is missing; "
                                  f"allowed: host:port, [ipv6]:port or unix:/path; several with commas between")
            if any(a.unix for a in backend.primary) and backend.tls not in ("off", "prefer"):
                raise ConfigError(f"{source}: section [{section}]: key 'tls': '{backend.tls}' is not valid; "
                                  f"there is no TLS over a Unix socket; allowed: off, prefer")
            if backend.tls_key is not None and backend.tls_cert is None:
                raise ConfigError(f"{source}: section [{section}]: key 'tls_cert' is missing, "
                                  f"though 'tls_key' is there")
            if backend.monitor_password is not None and backend.monitor_user is None:
                raise ConfigError(f"{source}: section [{section}]: key 'monitor_user' is missing, "
                                  f"though 'monitor_password' is there")
            if backend.monitor_user is not None and backend.check_url is not None:
                raise ConfigError(f"{source}: section [{section}]: key 'check_url': '{backend.check_url}' is not "
                                  f"valid beside 'monitor_user'; allowed: one of them")
            if backend.send_proxy != "off" and protocol != "mariadb":
                raise ConfigError(f"{source}: section [{section}]: key 'send_proxy': '{backend.send_proxy}' is not "
                                  f"valid; PostgreSQL's server takes no PROXY protocol; allowed: off")
            backends[protocol][name] = backend
        elif section not in _SECTIONS:
            raise ConfigError(f"{source}: unknown section [{section}]; allowed: {', '.join(_SECTIONS)}, "
                              f"postgres.NAME, mariadb.NAME, rule.NAME")
    for section, cls in _SECTIONS.items():
        if section in sections:
            extra = {"backends": backends[section]} if section in PROTOCOLS else {}
            parts[section] = _fill(cls, sections[section], section, **extra)
    for name in PROTOCOLS:
        protocol = parts.get(name)
        if protocol is None:
            if backends[name]:
                raise ConfigError(f"{source}: section [{name}] is missing, though "
                                  f"[{name}.{next(iter(backends[name]))}] is there")
            continue
        if protocol.listen is None and protocol.socket is None:
            raise ConfigError(f"{source}: section [{name}]: key 'listen' is missing; allowed: host:port")
        if protocol.tls != "off" and protocol.tls_cert is None:
            raise ConfigError(f"{source}: section [{name}]: key 'tls_cert' is missing, which 'tls = {protocol.tls}' "
                              f"needs; allowed: an absolute path")
        if protocol.default not in protocol.backends:
            raise ConfigError(f"{source}: section [{name}]: key 'default': there is no section "
                              f"[{name}.{protocol.default}]")
        _check_auth(protocol, f"{source}: section [{name}]", name)
    if len(rules) > MAX_RULES:
        raise ConfigError(f"{source}: section [rule.{rules[MAX_RULES].name}]: there are {len(rules)} rules; "
                          f"allowed: {MAX_RULES}")
    config = Config(source=source, rules=tuple(rules), **parts)
    if not config.protocols():
        raise ConfigError(f"{source}: neither [postgres] nor [mariadb] is configured")
    return config


def read_file(path: str | Path, environ: dict[str, str] | None = None) -> Config:
    """Reads an INI file, with the environment's settings over it."""
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";", "#"),
                                       default_section="\0none")
    try:
        with open(path, encoding="utf-8") as f:
            parser.read_file(f, source=str(path))
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    except configparser.Error as e:
        raise ConfigError(f"{path}: {' '.join(str(e).split())}") from None
    sections = {name: {k: (v, str(path)) for k, v in parser.items(name)} for name in parser.sections()}
    for section, values in _environment(os.environ if environ is None else environ).items():
        sections.setdefault(section, {}).update(values)
    return build(sections, str(path))


def find_file(explicit: str | None, environ: dict[str, str] | None = None) -> str | None:
    """The file to read: given, ``$TQDB_CONFIG``, ``./tqdb.ini``, ``/etc/tqdb/tqdb.ini``; None if there is none."""
    environ = os.environ if environ is None else environ
    chosen = explicit or environ.get("TQDB_CONFIG")
    if chosen:
        return chosen
    return next((p for p in SEARCH_PATH if Path(p).is_file()), None)


def from_arguments(postgres: str | None, mariadb: str | None, listen_postgres: str | None,
                   listen_mariadb: str | None, metrics: str | None) -> Config:
    """A configuration from the command line alone (and the environment)."""
    sections: dict[str, dict[str, tuple[str, str]]] = {}
    where = "command line"
    for name, primary, listen, port in (("postgres", postgres, listen_postgres, 5433),
                                        ("mariadb", mariadb, listen_mariadb, 3307)):
        if primary:
            sections[f"{name}.main"] = {"primary": (primary, where)}
            sections[name] = {"listen": (listen or f"127.0.0.1:{port}", where)}
        elif listen:
            raise ConfigError(f"command line: --listen-{name} needs --{name} HOST:PORT")
    if metrics:
        sections["metrics"] = {"listen": (metrics, where)}
    for section, values in _environment(dict(os.environ)).items():
        known = sections.setdefault(section, {})
        for key, value in values.items():
            known.setdefault(key, value)
    return build(sections, where)
