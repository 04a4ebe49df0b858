"""``python -m tests.schemas``: plays schemas, prints what failed as small as it gets; exit code 1 if any."""

import argparse
import collections
import sys
import time

from tests.schemas.run import Run, plan_of
from tests.seeded import server


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.schemas", description=__doc__)
    parser.add_argument("--protocol", choices=("postgres", "mariadb"), default="postgres")
    parser.add_argument("--schemas", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="of the first schema; the next is one more")
    parser.add_argument("--shrink-seconds", type=float, default=60, help="for each failure; 0: only said")
    parser.add_argument("--failures", type=int, default=20, help="stop after so many")
    parser.add_argument("--direct", action="store_true", help="without the proxy: is what is compared sound?")
    parser.add_argument("--show", action="store_true", help="only print the schema of the seed")
    args = parser.parse_args()
    if args.show:
        print(plan_of(args.protocol, args.seed).text())
        return 0
    started = time.monotonic()
    with server(args.protocol) as throwaway, Run(args.protocol, throwaway.start(), args.direct) as run:
        print(f"{args.protocol}: {args.schemas} schemas from seed {args.seed}", flush=True)
        failures = 0
        for plan, problems in run.failures(args.seed, args.schemas):
            failures += 1
            print(f"\n{run.report(plan, problems, args.shrink_seconds)}", flush=True)
            if failures == args.failures:
                break
        share = run.share()
        alone = ", ".join(f"{n:.0f} {reason}" for reason, n in sorted(run.alone.items()) if n)
        print(f"{args.protocol}: {run.plans} schemas in {time.monotonic() - started:.0f} s, {run.batched:.0f} writes "
              f"batched ({share:.0%}; alone: {alone}), {run.deadlocks} units with a deadlock, "
              f"{len(run.unsound)} schemas that the server does not take, {failures} failures")
        for why, count in collections.Counter(why.splitlines()[0][:120] for _, why in run.unsound).most_common(5):
            print(f"    not taken, {count} times: {why}")
        if not args.direct and not run.batched:
            print("nothing was batched: this run shows nothing")
            return 1
        return failures > 0


if __name__ == "__main__":
    sys.exit(main())
