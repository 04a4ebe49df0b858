"""``python -m tests.conversations``: plays for a while, prints what failed as small as it gets; exit code 1 if any."""

import argparse
import sys
from pathlib import Path

from tests.conversations.plan import Plan
from tests.conversations.run import Run
from tests.seeded import server


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conversations", description=__doc__)
    parser.add_argument("--protocol", choices=("postgres", "mariadb"), default="postgres")
    parser.add_argument("--seconds", type=float, default=60, help="how long new plans are made")
    parser.add_argument("--seed", type=int, default=1, help="of the first plan; the next is one more")
    parser.add_argument("--batch-sizes", default="1,2,3,7,100,1000", help="max_batch_size, a proxy for each")
    parser.add_argument("--shrink-seconds", type=float, default=60, help="for each failure; 0: as it was")
    parser.add_argument("--failures", type=int, default=20, help="stop after so many")
    parser.add_argument("--hang-seconds", type=float, default=20, help="without an answer: a failure")
    parser.add_argument("--without", default="", help="kinds of steps not to make, with commas")
    parser.add_argument("--direct", action="store_true", help="against the server itself: are the plans sound?")
    parser.add_argument("--replay", type=Path, help="plays this plan, of whichever protocol, --times times")
    parser.add_argument("--times", type=int, default=10)
    args = parser.parse_args()
    sizes = [int(size) for size in args.batch_sizes.split(",")]
    plan = Plan.read(args.replay) if args.replay else None
    protocol = plan.protocol if plan else args.protocol
    with server(protocol) as throwaway, Run(
            protocol, throwaway.start(), args.direct, args.hang_seconds, set(args.without.split(","))) as run:
        if plan:
            failed = [problems for _ in range(args.times) if (problems := run.check(plan))]
            print(*(failed[0] if failed else ["no difference"]), f"{len(failed)} of {args.times} failed", sep="\n")
            return bool(failed)
        print(f"{protocol}: seed {args.seed}, {args.seconds:g} s, max_batch_size {args.batch_sizes}", flush=True)
        failures = 0
        for plan, problems in run.for_seconds(args.seconds, args.seed, sizes):
            failures += 1
            print(f"\n{run.report(plan, problems, args.shrink_seconds)}", flush=True)
            if failures == args.failures:
                break
        share = run.share()
        print(f"{protocol}: {run.plans} plans, {run.comparisons} answers and tables compared, "
              f"{run.batched:.0f} writes batched ({share:.0%}), {failures} failures")
        if not args.direct and not run.batched:
            print("nothing was batched: this run shows nothing")
            return 1
        return failures > 0


if __name__ == "__main__":
    sys.exit(main())
