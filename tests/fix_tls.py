"""Certificates of a throwaway authority, servers with TLS, and proxies that speak it on either side."""

import datetime
import os
import shutil
import ssl
from pathlib import Path

import pymysql
import pytest
import trustme

from tests.fix_servers import ProxyUnderTest, tqdb_command
from tqdb.load.servers import MariaDB, Postgres

ROOT = Path(__file__).parent.parent

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
PASSWORD = "sesame"
METHODS = {"trust": "trust", "password": "password", "md5": "md5", "scram": "scram-sha-256", "cert": "cert"}

CLIENTS = ("plain", "tls", "certificate")
SERVERS = ("off", "require", "verify-full")
IN_CLEAR = "the password would be sent to the server in clear"
NO_BINDING = "SCRAM channel binding cannot be relayed"


def refusal(method: str, client: str, server: str, binds: bool) -> str | None:
    """Why the proxy refuses a login at PostgreSQL; None: it is as direct.

    ``binds`` says of a client that it tells the server that it could bind channels.
    """
    if client != "plain":
        if method == "password" and server == "off":
            return IN_CLEAR
        if method == "scram" and server != "off" and binds:
            return NO_BINDING
    return None


class Authority:
    """An authority that issues certificates into ``directory``; ``path`` is its own."""

    def __init__(self, directory: Path):
        self.ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.directory = directory
        self.directory.mkdir()
        self.path = str(directory / "ca.pem")
        self.ca.cert_pem.write_to_path(self.path)

    def issue(self, name: str, *hosts: str, **more) -> tuple[str, str]:
        """Paths of a certificate for ``hosts`` and of its key."""
        cert = self.ca.issue_cert(*hosts, key_type=trustme.KeyType.ECDSA, **more)
        paths = str(self.directory / f"{name}.crt"), str(self.directory / f"{name}.key")
        Path(paths[0]).unlink(missing_ok=True)
        for blob in cert.cert_chain_pems:
            blob.write_to_path(paths[0], append=True)
        cert.private_key_pem.write_to_path(paths[1])
        os.chmod(paths[1], 0o600)
        return paths


class Certificates:
    """What the tests show each other: files of PEM."""

    def __init__(self, directory: Path):
        self.authority = Authority(directory / "authority")
        self.stranger = Authority(directory / "stranger")
        self.ca = self.authority.path
        self.server = self.authority.issue("server", "127.0.0.1", "localhost")
        self.proxy = self.authority.issue("proxy", "127.0.0.1", "localhost")
        self.client = self.authority.issue("client", "client@example.org", common_name="u_cert")
        self.strange = self.stranger.issue("client", "client@example.org", common_name="u_cert")
        self.expired = self.authority.issue("expired", "127.0.0.1", not_before=LONG_AGO,
                                            not_after=LONG_AGO + datetime.timedelta(days=1))
        self.misnamed = self.authority.issue("misnamed", "elsewhere.example.org")

    def context(self, cert: bool = False) -> ssl.SSLContext:
        """A client's, which verifies."""
        context = ssl.create_default_context(cafile=self.ca)
        if cert:
            context.load_cert_chain(*self.client)
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("tls"))


def give(server, paths: tuple[str, ...]) -> list[str]:
    """Copies of files in the server's directory, which its account may read."""
    copies = []
    for path in paths:
        copy = os.path.join(server.directory, os.path.basename(path))
        shutil.copy(path, copy)
        if server.account is not None:
            os.chown(copy, server.account.pw_uid, server.account.pw_gid)
        copies.append(copy)
    return copies


class TlsPostgres(Postgres):
    """With users ``u_METHOD`` for each of ``METHODS``, and ``u_tls``, who may not come without TLS."""

    def __init__(self, certificates: Certificates):
        super().__init__()
        cert, key, ca = give(self, (*certificates.server, certificates.ca))
        self.settings |= {"ssl": "on", "ssl_cert_file": cert, "ssl_key_file": key, "ssl_ca_file": ca,
                          "max_connections": "200"}
        lines = ["local all all trust", "host all postgres all trust", "hostssl all u_tls all trust"]
        lines += [f"{'hostssl' if name == 'cert' else 'host'} all u_{name} all {method}"
                  for name, method in METHODS.items()]
        Path(self.data, "pg_hba.conf").write_text("\n".join(lines) + "\n")

    def start(self):
        import psycopg
        super().start()
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            for name in ("tls", *METHODS):
                connection.execute("SELECT set_config('password_encryption', %s, false)",
                                   ["md5" if name == "md5" else "scram-sha-256"])
                connection.execute(f"CREATE ROLE u_{name} LOGIN PASSWORD '{PASSWORD}'")
            connection.execute("CREATE TABLE shared (id int PRIMARY KEY, v text)")
            connection.execute("GRANT ALL ON shared TO PUBLIC")
        return self


def plugin(server: MariaDB, name: str) -> str | None:
    """The path of a plugin of ``server``'s: its own, or one that ``scripts/ensure-system ed25519`` has unpacked."""
    base = Path(server.program).parent.parent
    places = [base / "lib/plugin", base / "lib64/plugin"]
    if not server.base:
        places = [Path("/usr/lib/mysql/plugin"), Path("/usr/lib64/mysql/plugin"), Path("/usr/lib64/mariadb/plugin"),
                  ROOT / "build/mariadb-server/usr/lib/mysql/plugin"]
    return next((str(place / name) for place in places if (place / name).exists()), None)


class TlsMariaDB(MariaDB):
    """With users ``u_native``, and ``u_tls`` and ``u_x509``, who may not come without TLS.

    Where the server has the plugin there is ``u_ed25519``; ``no_ed25519`` says why there is none, or is empty.
    """

    def __init__(self, certificates: Certificates, **settings: str):
        super().__init__(**settings)
        cert, key, ca = give(self, (*certificates.server, certificates.ca))
        self.settings |= {"ssl_cert": cert, "ssl_key": key, "ssl_ca": ca, "max_connections": "200"}
        self.no_ed25519 = "no auth_ed25519.so of this server's (scripts/ensure-system ed25519)"
        found = plugin(self, "auth_ed25519.so")
        if found is not None:
            give(self, (found,))
            self.settings["plugin_dir"] = self.directory
            self.no_ed25519 = ""

    def start(self):
        super().start()
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE USER u_native IDENTIFIED BY '{PASSWORD}'")
            cursor.execute(f"CREATE USER u_tls IDENTIFIED BY '{PASSWORD}' REQUIRE SSL")
            cursor.execute(f"CREATE USER u_x509 IDENTIFIED BY '{PASSWORD}' REQUIRE X509")
            cursor.execute("CREATE DATABASE d")
            cursor.execute("CREATE TABLE d.shared (id int PRIMARY KEY, v text)")
            for user in ("native", "tls", "x509"):
                cursor.execute(f"GRANT ALL ON d.* TO u_{user}")
            if not self.no_ed25519:
                self._add_ed25519(cursor)
        return self

    def _add_ed25519(self, cursor) -> None:
        try:
            cursor.execute("INSTALL SONAME 'auth_ed25519'")
        except pymysql.Error as e:      # it is another version's
            self.no_ed25519 = f"INSTALL SONAME 'auth_ed25519': {e}"
            return
        cursor.execute(f"CREATE USER u_ed25519 IDENTIFIED VIA ed25519 USING PASSWORD('{PASSWORD}')")
        cursor.execute("GRANT ALL ON d.* TO u_ed25519")


@pytest.fixture(scope="session")
def tls_postgres(certificates):
    with TlsPostgres(certificates) as server:
        yield server.start()


@pytest.fixture(scope="session")
def tls_mariadb(certificates):
    with TlsMariaDB(certificates) as server:
        yield server.start()


class TlsProxy(ProxyUnderTest):
    """A proxy whose sections get ``client`` (of the protocols) and ``server`` (of the backends) as keys."""

    def __init__(self, postgres=None, mariadb=None, client: dict | None = None, server: dict | None = None,
                 config: str = "", command: list[str] | None = None):
        super().__init__(postgres, mariadb, command, config)
        self.write(client or {}, server or {})

    def write(self, client: dict, server: dict) -> None:
        """The file anew, with other keys."""
        lines = []
        for line in Path(self.path).read_text().splitlines():
            if line.startswith("tls"):
                continue
            lines.append(line)
            if line in ("[postgres]", "[mariadb]"):
                lines += [f"{k} = {v}" for k, v in client.items()]
            elif line in ("[postgres.main]", "[mariadb.main]"):
                lines += [f"{k} = {v}" for k, v in server.items()]
        Path(self.path).write_text("\n".join(lines) + "\n")


def to_clients(certificates: Certificates, mode: str = "allow", **more: str) -> dict:
    cert, key = certificates.proxy
    return {"tls": mode, "tls_cert": cert, "tls_key": key, **more}


def to_servers(certificates: Certificates, mode: str, **more: str) -> dict:
    return {"tls": mode, "tls_ca": certificates.ca, **more}


@pytest.fixture(scope="session")
def tls_proxies(certificates, tls_postgres, tls_mariadb):
    """``tls_proxies(client, server)``: a proxy before both servers that clients of a kind reach a server by."""
    made: dict[tuple[bool, str], TlsProxy] = {}

    def get(client: str, server: str) -> TlsProxy:
        key = client == "certificate", server
        if key not in made:
            more = {"tls_client_ca": certificates.ca} if key[0] else {}
            made[key] = TlsProxy(tls_postgres, tls_mariadb, to_clients(certificates, **more),
                                 to_servers(certificates, server), command=tqdb_command()).start()
        return made[key]

    yield get
    for proxy in made.values():
        log = proxy.log()
        proxy.stop()
        assert "Traceback" not in log, log


@pytest.fixture
def start_tls_proxy():
    """Makes proxies of the test's own, as ``TlsProxy``; as those of ``start_proxy``, they are this checkout's."""
    started = []

    def make(**options):
        started.append(TlsProxy(**options))
        return started[-1].start()

    yield make
    for proxy in started:
        log = proxy.log()
        proxy.stop()
        assert "Traceback" not in log, log
