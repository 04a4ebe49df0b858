"""Fuzzes the core as ``scripts/build-variant fuzz`` built it: ``python -m tests.fuzz [--target NAME] --seconds N``.

What libFuzzer learns stays in ``build/fuzz/corpus``; an input that fails is written to ``build/fuzz/found`` and, once
understood, belongs into ``tests/fuzz/found/TARGET``. ``--minimise`` puts the best few files into ``tests/fuzz/corpus``.
Exit code 1: something was found.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests/fuzz/corpus"
BUILD = ROOT / "build/fuzz"
TARGETS = ("scan_postgres", "scan_mariadb", "pg_session", "my_session", "pg_server", "my_server")
MAX_BYTES = {"scan_postgres": 1000, "scan_mariadb": 1000}
FILES = 40
FOUND = BUILD / "found"


def environment() -> dict[str, str]:
    """The sanitizer's library that atheris brings first, the instrumented core before the ordinary one."""
    site = subprocess.run([sys.executable, "-c", "import atheris; print(atheris.path())"], capture_output=True,
                          text=True, check=True).stdout.splitlines()[-1]
    return {**os.environ, "LD_PRELOAD": f"{site}/asan_with_fuzzer.so", "PYTHONMALLOC": "malloc",
            "PYTHONSAFEPATH": "1", "PYTHONPATH": f"{BUILD}:{ROOT}",
            "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16:handle_abort=1"}


def libfuzzer(target: str, *arguments: str) -> tuple[int, str]:
    """Runs it; what it says is shown, but for its progress, and returned."""
    process = subprocess.Popen([sys.executable, "-m", "tests.fuzz.driver", target, str(FOUND), *arguments],
                               env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               errors="replace")
    said = []
    for line in process.stdout:
        said.append(line)
        if not re.match(r"#\d+\s+(NEW|REDUCE)|\s*NEW_FUNC|INFO: |\"|#####|MERGE", line):
            print(f"{target}: {line}", end="", flush=True)
    return process.wait(), "".join(said)


def fuzz(target: str, seconds: int) -> bool:
    """True: nothing was found. After a crash the rest of the time goes on from what was learnt."""
    grown = BUILD / "corpus" / target
    grown.mkdir(parents=True, exist_ok=True)
    end, counters, crashes, broken = time.monotonic() + seconds, [], 0, 0
    while (left := int(end - time.monotonic())) > 0:
        code, said = libfuzzer(
            target, f"-max_total_time={left}", f"-max_len={MAX_BYTES.get(target, 400)}", "-timeout=20",
            "-rss_limit_mb=1500", f"-artifact_prefix={FOUND}/{target}-", "-len_control=0", str(grown),
            str(CORPUS / target))
        counters += [tuple(map(int, found)) for found in re.findall(r"\bcov: (\d+) ft: (\d+)", said)]
        crashes += code != 0
        broken += said.count("BROKEN ")
        if not counters:
            break
    if not counters or counters[-1][0] < 50:
        print(f"{target}: no coverage comes back from the core: is it the build of scripts/build-variant fuzz?")
        return False
    print(f"{target}: edges {counters[0][0]} -> {counters[-1][0]}, features {counters[0][1]} -> {counters[-1][1]}, "
          f"{len(list(grown.iterdir()))} inputs kept; {crashes} crashes, {broken} broken promises", flush=True)
    return crashes + broken == 0


def minimise(target: str) -> None:
    """Leaves the ``FILES`` files of all corpora that together reach most, the one that adds most first."""
    names = sorted(f for d in (CORPUS / target, BUILD / "corpus" / target) for f in d.glob("*"))
    with tempfile.TemporaryDirectory() as folder:
        control = Path(folder) / "control"
        # libFuzzer's own merge would start the interpreter without its arguments: this is the inner half of it, as for
        # a set cover: every feature of every file
        control.write_text("\n".join([str(len(names)), "0", *map(str, names), ""]))
        while libfuzzer(target, "-merge_inner=2", f"-merge_control_file={control}", folder, folder)[0]:
            pass        # a file that crashes is left out by the next attempt
        lines = control.read_text().splitlines()[2 + len(names):]
        reached = {int(words[1]): set(words[2:]) for words in (line.split() for line in lines)
                   if words[0] == "FT" and len(words) > 2}
        chosen, seen = [], set()
        while len(chosen) < FILES and reached:
            best = max(reached, key=lambda i: len(reached[i] - seen))
            fresh = reached.pop(best)
            if not fresh - seen:
                break
            seen |= fresh
            chosen.append(names[best].read_bytes())
    shutil.rmtree(CORPUS / target, ignore_errors=True)
    (CORPUS / target).mkdir(parents=True)
    for i, data in enumerate(chosen):
        (CORPUS / target / f"{i:02}").write_bytes(data)
    print(f"{target}: {len(chosen)} files reach {len(seen)} features")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=TARGETS, help="default: all, in turn")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--minimise", action="store_true", help="rewrite tests/fuzz/corpus from what was learnt")
    options = parser.parse_args()
    FOUND.mkdir(parents=True, exist_ok=True)
    for target in TARGETS:
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
    targets = [options.target] if options.target else TARGETS
    if options.minimise:
        for target in targets:
            minimise(target)
        return 0
    found = [target for target in targets if not fuzz(target, options.seconds)]
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
