"""Each mutant against its test: `python -m tests.mutants [NAME...] [--jobs 2] [--unchecked]`.

First the tests run on the code as it is, unless `--unchecked` says not to. Exits 1 if one of them fails, or if a mutant
was not killed.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time

from tests.mutants.mutants import MUTANTS
from tests.mutants.runner import Result, run_all, unchanged_tests_pass


def main(names: list[str], jobs: int, *, check: bool) -> int:
    """Run the named mutants, or all, and print the result of each."""
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    if unknown := set(names) - {mutant.name for mutant in chosen}:
        sys.stdout.write(f"there is no mutant {', '.join(sorted(unknown))}\n")
        return 2
    began = time.monotonic()
    if check:
        passed, line = unchanged_tests_pass(chosen)
        sys.stdout.write(f"without a change: {line}\n")
        if not passed:
            return 1
    counts: collections.Counter[Result] = collections.Counter()
    for mutant, result, line in run_all(chosen, jobs):
        counts[result] += 1
        sys.stdout.write(f"{result:9}{mutant.name}: {line}\n")
        sys.stdout.flush()
    seconds = time.monotonic() - began
    sys.stdout.write(f"{counts[Result.KILLED]} of {len(chosen)} mutants killed, {seconds:.0f} s\n")
    return 0 if counts[Result.KILLED] == len(chosen) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tests.mutants")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--unchecked", action="store_true")
    options = parser.parse_args()
    sys.exit(main(options.names, options.jobs, check=not options.unchecked))
