"""``python -m tests.failover [--rounds N] [--limit SECONDS] [--seed N]``.

Exit code 1: a write was lost, is there twice, or is there though it was refused; or writes did not flow again in time.
"""

import argparse
import random
import sys

from tests.failover.rounds import Play


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--limit", type=float, default=3.0, help="seconds from the promotion to every writer's write")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.getrandbits(32)
    print(f"seed {seed}", flush=True)
    with Play(seed) as play:
        tally = play.rounds(options.rounds, lambda text: print(text, flush=True))
    return int(tally.wrong > 0 or play.longest > options.limit)


if __name__ == "__main__":
    sys.exit(main())
