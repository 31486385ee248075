"""The paths of folders."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from syncd.rules.folders import Place, paths

IDS = st.sampled_from("abcdef")
TREES = st.dictionaries(IDS, st.builds(Place, st.sampled_from(["x", "y"]), st.none() | IDS))


def test_path_has_the_names_from_the_top() -> None:
    places = {"c": Place("Epoxy", "b"), "a": Place("Lab", None), "b": Place("Adhesives", "a")}
    assert paths(places) == {"a": "Lab", "b": "Lab / Adhesives", "c": "Lab / Adhesives / Epoxy"}


def test_path_begins_below_a_folder_that_is_not_known() -> None:
    assert paths({"c": Place("Epoxy", "not listed")}) == {"c": "Epoxy"}


def test_folders_that_contain_each_other_have_finite_paths() -> None:
    assert paths({"a": Place("A", "b"), "b": Place("B", "a")}) == {"a": "B / A", "b": "A / B"}
    assert paths({"a": Place("A", "a")}) == {"a": "A"}


@given(TREES)
def test_each_path_ends_with_the_folder_and_extends_that_of_its_parent(places: dict[str, Place]) -> None:
    path_of = paths(places)
    assert path_of.keys() == places.keys()
    for folder_id, (name, parent_id) in places.items():
        assert path_of[folder_id].split(" / ")[-1] == name
        depth = path_of[folder_id].count(" / ")
        assert depth < len(places)
        if parent_id not in places:
            assert path_of[folder_id] == name
