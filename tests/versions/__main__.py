"""Tests of what may differ between versions of the databases, on each of them (``make test-versions``).

    python -m tests.versions [NAME …] [-- pytest's options]
"""

import os
import subprocess
import sys
import time

from tests.versions.servers import MARIADB, MYSQL, NAMES, POSTGRES, ROOT, missing, programs

BOTH = ("oracle", "writes", "batching", "protocols", "alike", "tables")
TESTS = {
    **{s.name: (*BOTH, "protocol_versions", "facts_postgres", "facts_postgres_lists", "facts_postgres_schemas",
                "numbered_postgres", "session_state_postgres") for s in POSTGRES},
    **{s.name: (*BOTH, "facts_mariadb", "facts_mariadb_alike", "bound_mariadb", "session_state_mariadb")
       for s in MARIADB},
    MYSQL: ("mysql",),
}
OTHERS = {"postgres": "not mariadb", "mariadb": "not postgres", "mysql": ""}


def tested(name: str, options: list[str]) -> bool:
    chosen = os.pathsep.join(filter(None, (str(programs(name)), os.environ.get("TQDB_PROGRAMS"))))
    command = [sys.executable, "-m", "pytest", "-k", OTHERS[name.partition("-")[0]], *options,
               *(f"tests/test_{test}.py" for test in TESTS[name])]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "TQDB_PROGRAMS": chosen}).returncode == 0


def main() -> int:
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    chosen, options = given[:end] or NAMES, given[end + 1:]
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        sys.exit(f"there is no {unknown[0]}; there are: {', '.join(NAMES)}")
    results = {}
    for name in chosen:
        print(f"== {name}", flush=True)
        began = time.monotonic()
        lacking = missing(name)
        well = None if lacking else tested(name, options)
        results[name] = well, f"{time.monotonic() - began:6.0f} s" if not lacking else f"{lacking} is not here"
    for name, (well, said) in results.items():
        print(f"{name:16} { {True: 'passed', False: 'FAILED', None: 'left out'}[well]:10} {said}")
    return int(any(well is False for well, _ in results.values()))


if __name__ == "__main__":
    sys.exit(main())
