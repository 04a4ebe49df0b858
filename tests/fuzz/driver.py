"""One target under libFuzzer, in a process of its own that was started with the sanitizer's library (see ``__main__``).

    python -m tests.fuzz.driver TARGET DIRECTORY [libFuzzer's arguments]

A promise that is broken is kept in DIRECTORY, once for each place where it shows, and fuzzing goes on; what the
sanitizer finds ends the process.
"""

import hashlib
import sys
import traceback
from pathlib import Path

import atheris

from tests.fuzz.targets import TARGETS


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    target = TARGETS[name]
    places: set[tuple] = set()

    def one(data: bytes) -> None:
        try:
            target(data)
        except Exception as e:
            place = (type(e), *((f.filename, f.lineno) for f in traceback.extract_tb(e.__traceback__)[-4:]))
            if place in places:
                return
            places.add(place)
            path = folder / f"{name}-broken-{hashlib.sha1(data).hexdigest()}"
            path.write_bytes(data)
            print(f"BROKEN {path}\n{traceback.format_exc()[-2000:]}", file=sys.stderr, flush=True)

    atheris.Setup([sys.argv[0], *sys.argv[3:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
