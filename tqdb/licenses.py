"""``tqdb licenses``: the licences of tqdb and of everything that is part of its executable."""

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
from importlib.resources import files
from pathlib import Path

FROZEN = "licenses.txt"             # beside this module in the executable, made when that is built
EXTRAS = ("bench", "locust")        # of tqdb, that the executable contains
RULE = "=" * 100
_TEXTS = re.compile(r"(?:^|/)(?:licen[cs]e|copying|notice|authors)[^/]*$", re.IGNORECASE)
_REQUIREMENT = re.compile(r"\s*([\w.-]+)(?:\[([\w.,\s-]*)\])?[^;]*(?:;(.*))?")


def _requirements(name: str, extras: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    found = []
    for text in importlib.metadata.requires(name) or ():
        package, its_extras, marker = _REQUIREMENT.match(text).groups()
        wanted = re.findall(r"extra\s*==\s*['\"]([\w.-]+)['\"]", marker or "")
        if not wanted or set(wanted) & set(extras):
            found.append((package, tuple(e.strip() for e in (its_extras or "").split(",") if e.strip())))
    return found


def distributions() -> list[importlib.metadata.Distribution]:
    """tqdb and what it requires, with its extras, as far as it is installed; in the order of their names."""
    found: dict[str, importlib.metadata.Distribution] = {}
    todo = [("tqdb", EXTRAS)]
    seen = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[re.sub(r"[-_.]+", "-", name).lower()] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue            # for another system or version of Python
        todo += _requirements(name, extras)
    return [found[name] for name in sorted(found)]


def _of(distribution: importlib.metadata.Distribution) -> str:
    meta = distribution.metadata
    short = meta.get("License-Expression") or next(
        (c.rpartition(" :: ")[2] for c in meta.get_all("Classifier") or () if c.startswith("License ::")), "") or (
        meta.get("License") or "").partition("\n")[0]
    paths = [Path(distribution.locate_file(f)) for f in distribution.files or () if _TEXTS.search(str(f))]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths if path.is_file()]
    return "\n\n".join([f"{meta['Name']} {meta['Version']}: {short or 'see its text'}", *map(str.strip, texts)])


def _python() -> str:
    candidates = [Path(sysconfig.get_path("stdlib")) / "LICENSE.txt",
                  Path(f"/usr/share/doc/python{sys.version_info[0]}.{sys.version_info[1]}/copyright")]
    text = next((p.read_text(errors="replace") for p in candidates if p.is_file()), "see https://docs.python.org")
    return f"Python {sys.version.partition(' ')[0]}: PSF License\n\n{text.strip()}"


def _library(path: str) -> tuple[str, str] | None:
    """The package of the distribution that a shared library comes from, and its copyright file."""
    real = str(Path(path).resolve())
    try:
        # /lib is /usr/lib, but a package may name its files by the older path
        done = subprocess.run(["dpkg", "-S", real, real.removeprefix("/usr")], capture_output=True, text=True)
    except OSError:
        return None
    package = done.stdout.partition(":")[0]
    file = Path(f"/usr/share/doc/{package}/copyright")
    return (package, file.read_text(errors="replace")) if package and file.is_file() else None


def collect(libraries: tuple[str, ...] = ()) -> str:
    """The text, from what is installed; ``libraries`` are paths of the system's shared libraries that go along."""
    parts = [_of(d) for d in distributions()] + [_python()]
    packages = dict(filter(None, map(_library, sorted(libraries))))
    parts += [f"{package}, a package of the system\n\n{text.strip()}" for package, text in sorted(packages.items())]
    return f"\n\n{RULE}\n".join(["tqdb and what its executable contains", *parts]) + "\n"


def text() -> str:
    """What ``tqdb licenses`` prints."""
    frozen = files("tqdb") / FROZEN
    return frozen.read_text(encoding="utf-8") if frozen.is_file() else collect()
