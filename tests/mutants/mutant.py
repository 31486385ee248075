"""What a mutant is. The lists `of_push`, `of_pull` and `of_mirror` use it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of the code that breaks one promise.

    Parameters
    ----------
    name : str
        Unique, in words with hyphens.
    file : str
        The changed file, from the root of the project.
    old, new : str
        The text that occurs exactly once in the file, and what takes its place.
    test : str
        The pytest node id of the test that must fail. Of a test that runs on both databases, SQLite's variant is run,
        unless the id ends with `[postgresql]`.
    meaning : str
        What the changed program does wrong.
    """

    name: str
    file: str
    old: str
    new: str
    test: str
    meaning: str
