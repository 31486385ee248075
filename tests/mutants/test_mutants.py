"""The list of mutants is true: each can be applied, each test exists, and the page shows all of them."""

from __future__ import annotations

import collections
import re

import pytest

from docs import mutants as page
from tests.helpers.programs import ROOT
from tests.mutants.mutant import Mutant
from tests.mutants.mutants import MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_text_that_a_mutant_replaces_occurs_once(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.new != mutant.old


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_test_that_kills_a_mutant_exists(mutant: Mutant) -> None:
    file, _, function = mutant.test.partition("::")
    name = function.partition("[")[0]
    assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_names_of_mutants_are_unique() -> None:
    counts = collections.Counter(mutant.name for mutant in MUTANTS)
    assert [name for name, count in counts.items() if count > 1] == []


def test_page_shows_every_mutant() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.render()
    assert all(f"| {mutant.meaning} |" in page.render() for mutant in MUTANTS)


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", page.PAGE.read_text(encoding="utf-8")))
    files = (file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    assert named - {name for text in files for name in re.findall(r"def (test_\w+)\(", text)} == set()
