"""Java's drivers, direct and through the proxy. ``make test-drivers`` installs them; without them it is skipped.

``tests/java/pom.xml`` says which. One JVM of each plays the whole matrix of tests/test_tls_matrix.py.
"""

import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.fix_tls import CLIENTS, PASSWORD, ROOT, SERVERS, refusal, to_clients, to_servers

HERE = Path(__file__).parent / "java"
JARS = ROOT / "build/java"


def drivers(artifact: str) -> list[str]:
    """Names of jars, of each version of an artifact that the pom fetches."""
    maven = {"m": "http://maven.apache.org/POM/4.0.0"}
    items = ElementTree.parse(HERE / "pom.xml").iterfind(".//m:artifactItem", maven)
    return [f"{artifact}-{item.find('m:version', maven).text}" for item in items
            if item.find("m:artifactId", maven).text == artifact]


PGJDBC = drivers("postgresql")
CONNECTORS = drivers("mariadb-java-client")

pytestmark = pytest.mark.skipif(
    shutil.which("javac") is None or not all((JARS / f"{name}.jar").exists() for name in PGJDBC + CONNECTORS),
    reason="make test-drivers installs what this needs")


def java(driver: str, program: str, *arguments: str) -> list[str]:
    """The command line of a program of one file."""
    return ["java", "-Dfile.encoding=UTF-8", "-XX:TieredStopAtLevel=1", "-cp", str(JARS / f"{driver}.jar"),
            str(HERE / f"{program}.java"), *arguments]


class Ask:
    """Asks servers for 42 by one driver, in one JVM."""

    def __init__(self, driver: str):
        self.complaints = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(java(driver, "Ask"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.complaints, text=True)
        self.asked = 0

    def __call__(self, url: str, user: str, password: str = PASSWORD, **properties: str) -> int:
        """What it answers; ConnectionError with SQLSTATE, the server's code and the message."""
        self.asked += 1
        given = ";".join(f"{k}={v}" for k, v in properties.items())
        self.process.stdin.write(f"{self.asked}\t{url}\t{user}\t{password}\t{given}\n")
        self.process.stdin.flush()
        number, _, answer = self.process.stdout.readline().rstrip("\n").partition("\t")
        if not number:
            self.complaints.seek(0)
            raise RuntimeError(self.complaints.read())
        assert int(number) == self.asked
        if answer.startswith("error"):
            raise ConnectionError(answer)
        return int(answer)

    def end(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)
        self.complaints.close()


@pytest.fixture(scope="module")
def asks():
    """``asks(driver)``: an ``Ask`` of the driver's."""
    made: dict[str, Ask] = {}

    def get(driver: str) -> Ask:
        if driver not in made:
            made[driver] = Ask(driver)
        return made[driver]

    yield get
    for ask in made.values():
        ask.end()


@pytest.fixture(scope="module")
def keys(certificates, tmp_path_factory) -> tuple[str, str]:
    """Paths of the client's key as Java's drivers want it: PKCS#8 of DER, PKCS#12 with its certificate."""
    folder = tmp_path_factory.mktemp("java")
    key = serialization.load_pem_private_key(Path(certificates.client[1]).read_bytes(), None)
    cert, *chain = x509.load_pem_x509_certificates(Path(certificates.client[0]).read_bytes())
    (folder / "client.pk8").write_bytes(key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    # the name is the one under which pgjdbc looks for it
    (folder / "client.p12").write_bytes(pkcs12.serialize_key_and_certificates(
        b"user", key, cert, chain, serialization.BestAvailableEncryption(PASSWORD.encode())))
    paths = folder / "client.pk8", folder / "client.p12"
    for path in paths:
        path.chmod(0o600)
    return str(paths[0]), str(paths[1])


# --- PostgreSQL --------------------------------------------------------------------------------------


def pgjdbc(client: str, certificates, keys, kept: str = "pk8") -> dict[str, str]:
    """Properties of a connection; ``kept`` says in which file a certificate's key is."""
    if client == "plain":
        return {"sslmode": "disable"}
    secure = {"sslmode": "verify-full", "sslrootcert": certificates.ca, "sslcert": "", "sslkey": ""}
    if client == "certificate" and kept == "pk8":
        secure |= {"sslcert": certificates.client[0], "sslkey": keys[0]}
    elif client == "certificate":
        secure |= {"sslkey": keys[1], "sslpassword": PASSWORD}
    return secure


def postgres_url(port: int) -> str:
    return f"jdbc:postgresql://127.0.0.1:{port}/postgres"


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("driver", PGJDBC)
def test_postgres(asks, keys, tls_proxies, tls_postgres, certificates, driver, client, server):
    ask, secure = asks(driver), pgjdbc(client, certificates, keys)
    direct, through = postgres_url(tls_postgres.port), postgres_url(tls_proxies(client, server).postgres_port)
    for method in ("trust", "password", "md5", "scram"):
        assert ask(direct, f"u_{method}", **secure) == 42
        refused = refusal(method, client, server, binds=True)
        if refused is None:
            assert ask(through, f"u_{method}", **secure) == 42
        else:
            with pytest.raises(ConnectionError, match=f"28000.*{refused}"):
                ask(through, f"u_{method}", **secure)


@pytest.mark.parametrize("driver", PGJDBC)
def test_pgjdbc_and_channel_bindings(asks, keys, tls_proxies, start_tls_proxy, tls_postgres, certificates, driver):
    cert, key = certificates.server
    own = start_tls_proxy(postgres=tls_postgres, client={"tls": "require", "tls_cert": cert, "tls_key": key},
                          server=to_servers(certificates, "verify-full"))
    ask, secure = asks(driver), pgjdbc("tls", certificates, keys)
    for binding in ("disable", "prefer", "require"):
        assert ask(postgres_url(own.postgres_port), "u_scram", **secure, channelBinding=binding) == 42
    between = postgres_url(tls_proxies("tls", "verify-full").postgres_port)
    assert ask(between, "u_scram", **secure, channelBinding="disable") == 42
    with pytest.raises(ConnectionError, match="Channel Binding is required, but server did not offer"):
        ask(between, "u_scram", **secure, channelBinding="require")


@pytest.mark.parametrize("kept", ["pk8", "p12"])
@pytest.mark.parametrize("driver", PGJDBC)
def test_whose_certificate_postgres_sees(asks, keys, tls_proxies, start_tls_proxy, tls_postgres, certificates, driver,
                                         kept):
    """The proxy's: the client's is for the proxy to look at."""
    cert, key = certificates.client
    shown = start_tls_proxy(postgres=tls_postgres, client=to_clients(certificates, tls_client_ca=certificates.ca),
                            server=to_servers(certificates, "verify-full", tls_cert=cert, tls_key=key))
    ask, secure = asks(driver), pgjdbc("certificate", certificates, keys, kept)
    for port in (tls_postgres.port, shown.postgres_port):
        assert ask(postgres_url(port), "u_cert", **secure) == 42
    with pytest.raises(ConnectionError, match=r"28000.*connection requires a valid client certificate"):
        ask(postgres_url(tls_postgres.port), "u_cert", **pgjdbc("tls", certificates, keys))
    with pytest.raises(ConnectionError, match=r"28000.*connection requires a valid client certificate"):
        ask(postgres_url(tls_proxies("certificate", "verify-full").postgres_port), "u_cert", **secure)
    with pytest.raises(ConnectionError, match=r"error 0800[16]"):     # the proxy's TLS wants one
        ask(postgres_url(shown.postgres_port), "u_cert", **pgjdbc("tls", certificates, keys))


# --- MariaDB -----------------------------------------------------------------------------------------


def connector(driver: str, client: str, certificates, keys) -> dict[str, str]:
    """Properties of a connection. Before version 3 they had other names; from 4 on TLS is what it does unless told."""
    old, new = "-2." in driver, "-4." in driver
    if client == "plain":
        return {"useSsl": "false"} if old else {"sslMode": "disable"}
    secure = {"serverSslCert": certificates.ca}
    if not new:
        secure |= {"useSsl": "true"} if old else {"sslMode": "verify-full"}
    if client == "certificate":
        secure |= {"keyStore": keys[1], "keyStorePassword": PASSWORD}
    return secure


def mariadb_url(port: int) -> str:
    return f"jdbc:mariadb://127.0.0.1:{port}/d"


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("driver", CONNECTORS)
def test_mariadb(asks, keys, tls_proxies, tls_mariadb, certificates, driver, client, server):
    ask, secure = asks(driver), connector(driver, client, certificates, keys)
    direct, through = mariadb_url(tls_mariadb.port), mariadb_url(tls_proxies(client, server).mariadb_port)
    assert ask(direct, "u_native", **secure) == 42
    assert ask(through, "u_native", **secure) == 42
    if client != "plain":
        assert ask(direct, "u_tls", **secure) == 42
    if server == "off":
        with pytest.raises(ConnectionError, match=r"28000 1045.*Access denied"):
            ask(through, "u_tls", **secure)
    else:
        assert ask(through, "u_tls", **secure) == 42
    for url in (direct, through):
        with pytest.raises(ConnectionError, match=r"28000 1045.*Access denied"):
            ask(url, "u_nobody", **secure)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("driver", CONNECTORS)
def test_ed25519(asks, keys, tls_proxies, tls_mariadb, certificates, driver, client, server):
    if tls_mariadb.no_ed25519:
        pytest.skip(tls_mariadb.no_ed25519)
    ask, secure = asks(driver), connector(driver, client, certificates, keys)
    for port in (tls_mariadb.port, tls_proxies(client, server).mariadb_port):
        assert ask(mariadb_url(port), "u_ed25519", **secure) == 42
        with pytest.raises(ConnectionError, match=r"28000 1045.*Access denied"):
            ask(mariadb_url(port), "u_ed25519", "wrong", **secure)


@pytest.mark.parametrize("driver", CONNECTORS)
def test_whose_certificate_mariadb_sees(asks, keys, tls_proxies, start_tls_proxy, tls_mariadb, certificates, driver):
    cert, key = certificates.client
    shown = start_tls_proxy(mariadb=tls_mariadb, client=to_clients(certificates),
                            server=to_servers(certificates, "verify-full", tls_cert=cert, tls_key=key))
    ask = asks(driver)
    assert ask(mariadb_url(tls_mariadb.port), "u_x509", **connector(driver, "certificate", certificates, keys)) == 42
    for client in ("plain", "tls"):
        secure = connector(driver, client, certificates, keys)
        assert ask(mariadb_url(shown.mariadb_port), "u_x509", **secure) == 42
        with pytest.raises(ConnectionError, match=r"28000 1045.*Access denied"):
            ask(mariadb_url(tls_mariadb.port), "u_x509", **secure)


# --- writes ------------------------------------------------------------------------------------------


SESSIONS, WRITES = 8, 12 + 12 + 12 + 1 + 1 + 8      # and writes of each: see Writes.java
KEYED = 13                                          # of which told their keys


def writes(driver: str, kind: str, places: dict[str, str]) -> dict[str, tuple[Counter, dict[str, int]]]:
    """By table: what the sessions were answered, and the key that each was told of a row; ``places`` has the URLs."""
    done = subprocess.run(java(driver, "Writes", kind, *(word for place in places.items() for word in place)),
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = {}
    for table in places:
        lines = [line.split("\t")[1:] for line in done.stdout.splitlines() if line.startswith(f"{table}\t")]
        keys = [(tag, int(key)) for first, tag, key in lines if first == "key"]
        assert len(keys) == len(dict(keys)) == SESSIONS * KEYED
        found[table] = Counter(tuple(line) for line in lines if line[0] != "key"), dict(keys)
    return found


def compare(driver, kind, places, execute, proxy) -> None:
    """The same work direct and through the proxy, there in batches: the same answers and rows."""
    before = proxy.batched()
    found = writes(driver, kind, places)
    # not the errors; pgjdbc's fifth of a prepared statement parses it under a name, and goes alone
    assert proxy.batched() - before > SESSIONS * WRITES * 0.7
    (direct, _), (through, _) = found.values()
    assert through == direct and direct.total() == SESSIONS * WRITES
    rows = []
    for table, (_, keys) in found.items():
        kept = execute(f"SELECT id, tag, v, b FROM {table} ORDER BY tag")
        assert {tag: key for key, tag, *_ in kept if tag in keys} == keys
        rows.append([row[1:] for row in kept])
    assert rows[1] == rows[0] and len(rows[0]) == SESSIONS * (25 - 8)


@pytest.mark.parametrize(("kind", "more"), [
    ("statement", ""), ("statement", "&preferQueryMode=simple"), ("prepared", "")])
@pytest.mark.parametrize("driver", PGJDBC)
def test_writes_postgres(postgres, proxy, pg, table, driver, kind, more):
    connection = pg(through=False)
    for side in "ab":
        connection.execute(f"CREATE TABLE {table}{side} (id serial PRIMARY KEY, tag varchar(99) UNIQUE, v int, b text)")
    places = {f"{table}{side}": f"{postgres_url(port)}?user=postgres{more}"
              for side, port in (("a", postgres.port), ("b", proxy.postgres_port))}
    compare(driver, kind, places, lambda sql: connection.execute(sql).fetchall(), proxy)


@pytest.mark.parametrize(("kind", "more"), [
    ("statement", ""), ("prepared", ""), ("prepared", "&useServerPrepStmts=true")])
@pytest.mark.parametrize("driver", CONNECTORS)
def test_writes_mariadb(mariadb, proxy, my, table, driver, kind, more):
    if "-4." in driver:
        more += "&sslMode=disable"      # else it comes with TLS only
    cursor = my(through=False).cursor()
    for side in "ab":
        cursor.execute(f"CREATE TABLE {table}{side} (id int AUTO_INCREMENT PRIMARY KEY, tag varchar(99) UNIQUE, v int, "
                       "b text) DEFAULT CHARSET=utf8mb4")
    places = {f"{table}{side}": f"{mariadb_url(port)}?user=root{more}"
              for side, port in (("a", mariadb.port), ("b", proxy.mariadb_port))}

    def execute(sql):
        cursor.execute(sql)
        return list(cursor.fetchall())

    compare(driver, kind, places, execute, proxy)
