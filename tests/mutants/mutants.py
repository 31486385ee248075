"""The list of all mutants. `python -m tests.mutants`, `docs/mutants.py` and `test_mutants.py` use it."""

from __future__ import annotations

from tests.mutants.mutant import Mutant
from tests.mutants.of_mirror import MUTANTS as OF_MIRROR
from tests.mutants.of_pull import MUTANTS as OF_PULL
from tests.mutants.of_push import MUTANTS as OF_PUSH

MUTANTS: tuple[Mutant, ...] = (*OF_PUSH, *OF_PULL, *OF_MIRROR)
