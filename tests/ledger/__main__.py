"""``python -m tests.ledger [--protocol postgres|mariadb] [--rounds N] [--writes N] [--seed N] [--direct]``.

Exit code 1: a write was lost, is there twice, or is there though it was refused.
"""

import argparse
import random
import sys

from tests.ledger.rounds import Play


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", choices=("postgres", "mariadb"), help="default: both, in turn")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--writes", type=int, default=10_000, help="in each round")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--direct", action="store_true", help="past the proxy: what the database itself does")
    options = parser.parse_args()
    wrong = 0
    for protocol in [options.protocol] if options.protocol else ("postgres", "mariadb"):
        seed = options.seed if options.seed is not None else random.getrandbits(32)
        print(f"{protocol}: seed {seed}", flush=True)
        with Play(protocol, seed, options.writes, options.direct) as play:
            wrong += play.rounds(options.rounds, lambda text: print(text, flush=True)).wrong
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
