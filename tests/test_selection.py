"""A selection lets through what has one of the values of every kind that is given."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tciafs.catalog.searches import Level, Search
from tciafs.model import Series
from tciafs.selection import NOT_SPECIFIED, Selection

CODES = st.sampled_from(["CT", "ct", " Ct ", "MR", "RTSTRUCT", "CHEST", "chest ", "", NOT_SPECIFIED])


def series(modality: str | None, body_part: str | None) -> Series:
    return Series("C", "P", "1.2", "1.2.3", modality=modality, body_part=body_part)


@given(st.lists(CODES, max_size=3), st.lists(CODES, max_size=3), st.none() | CODES, st.none() | CODES)
def test_series_have_one_of_the_values_of_each_kind(modalities, body_parts, modality, body_part):
    def is_one_of(value, wanted, nothing):
        same = [text.strip().upper() for text in wanted]
        return not wanted or ((value or "").strip().upper() or nothing) in same

    selection = Selection(modalities=tuple(modalities), body_parts=tuple(body_parts))
    expected = is_one_of(modality, modalities, "") and is_one_of(body_part, body_parts, NOT_SPECIFIED)
    assert selection.has_series(series(modality, body_part)) == expected


@given(st.lists(st.text(max_size=3)), st.randoms())
def test_selections_of_the_same_values_ask_the_same(values, random):
    other = [*values, *values[:1]]
    random.shuffle(other)
    for kind in ("collections", "patients", "modalities", "body_parts"):
        chosen: list[dict[str, Any]] = [{kind: tuple(values)}, {kind: tuple(other)}]
        one, two = (Selection(**each) for each in chosen)
        assert one == two
        assert Search(Level.PATIENTS, one).question == Search(Level.PATIENTS, two).question
        assert bool(one) == bool(values)


def test_names_are_compared_as_the_archive_spells_them():
    selection = Selection(collections=("Demo-CT",), patients=("P",))
    assert selection.has_collection("Demo-CT")
    assert selection.has_patient("P")
    assert not any(map(selection.has_collection, ("demo-ct", "Demo-CT ", "")))
    assert not any(map(selection.has_patient, ("p", "P ", "")))
    assert not selection.concerns_series
    assert Selection().has_collection("x")
    assert Selection().has_patient("x")


def test_another_kind_or_level_is_another_question():
    names = ("collections", "patients", "modalities", "body_parts")
    kinds: list[dict[str, Any]] = [{name: ("a",)} for name in names]
    questions = {Search(level, Selection(**kind)).question for kind in kinds for level in Level}
    assert len(questions) == len(kinds) * len(Level)


def test_a_selection_is_told_as_it_was_given():
    selection = Selection(collections=("b c", "a"), body_parts=("chest",))
    assert str(selection) == "--collection 'a' --collection 'b c' --body-part 'CHEST'"
    assert selection.as_dict() == {"collection": ["a", "b c"], "body_part": ["CHEST"]}
    assert str(selection.within("x")) == "--collection 'x' --body-part 'CHEST'"
