"""What to cite for series of several collections: each DOI and licence once, whatever the archive sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybtex.database import parse_string

from tciafs.bibliography import bibliography_bibtex, bibliography_text
from tciafs.citation import doi_of, license_text, read_coverage, read_license_text
from tciafs.model import Attribution, Description, Terms
from tests.test_citation import BY, KNOWN, NC, RESULT, hostile, terms


def test_what_collections_share_is_told_once():
    used = [("A", BY), ("B", NC), ("A", RESULT), ("B", RESULT), ("C", Terms()), ("B", Terms())]
    said = bibliography_text(used)
    assert "    A, B. The Cancer Imaging Archive. https://doi.org/10.7937/ABC.1\n" in said
    assert "    Analysis result in A, B. https://doi.org/10.5281/zenodo.7\n" in said
    assert "    C. The archive has told no DOI yet.\n" in said
    assert said.count("10.7937/ABC.1") == said.count("zenodo.7") == 1
    assert said.count("CC BY 4.0\n") == said.count("CC BY-NC 3.0\n") == said.count("Clark K") == 1
    entries = parse_string(bibliography_bibtex(used), "bibtex").entries
    assert list(entries) == ["A-B", "Analysis-result-in-A-B", "C", "Clark2013"]


def test_names_that_would_share_a_key_do_not():
    used = [
        (name, Terms(None, None, f"https://doi.org/10.7937/{number}"))
        for number, name in enumerate(("a b", "A-B", "Clark2013", "é"))
    ]
    entries = parse_string(bibliography_bibtex(used), "bibtex").entries
    assert list(entries) == ["A-B", "Clark2013-2", "a-b-2", "collection", "Clark2013"]


@given(st.lists(st.tuples(hostile, terms), max_size=6))
def test_whatever_an_archive_sends_it_can_be_parsed_and_no_terminal_obeys(used: list[tuple[str, Terms]]):
    told = [
        entry.fields["doi"]
        for entry in parse_string(bibliography_bibtex(used), "bibtex").entries.values()
        if "doi" in entry.fields and entry.type == "misc"
    ]
    assert sorted(told) == sorted(
        {found for _, each in used if (found := doi_of(each.data_description_uri or ""))}
    )
    for text in (bibliography_text(used), bibliography_bibtex(used)):
        assert text.replace("\n", "").isprintable()


def test_what_a_licence_file_tells_is_read_back():
    linked = Terms("CC BY 4.0", BY.license_uri, "https://doi.org/10.5281/zenodo.7", True)
    assert read_license_text(license_text(KNOWN)) == [BY, linked, NC]
    declared = Attribution("X", {Terms(): 1200}, description=Description(None, BY))
    assert read_license_text(license_text(declared)) == [Terms(), BY]
    assert read_license_text(license_text(Attribution("X", {}))) == []


@given(hostile, st.dictionaries(terms, st.integers(1, 9999), max_size=4), terms)
def test_every_doi_of_a_licence_file_is_read_back(name: str, series: dict[Terms, int], declared: Terms):
    text = license_text(Attribution(name, series, description=Description(None, declared)))
    all_terms = {*series, declared}
    dois = {found for each in all_terms if (found := doi_of(each.data_description_uri or ""))}
    read = read_license_text(text)
    assert {doi_of(each.data_description_uri or "") for each in read} - {None} >= dois
    assert len(read) <= len(all_terms) + 1


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (Attribution("X", {BY: 3}, 3, is_whole=True), None),
        (Attribution("X", {BY: 3}, 1_200, is_whole=True), "3 of 1,200 series looked at"),
        (Attribution("All X", {BY: 1_003}), "1,003 of at least 1,003 series looked at"),
        (Attribution("X", {}, description=Description(None, BY)), "no series looked at"),
    ],
)
def test_how_much_a_text_tells_of_is_read_back(known: Attribution, said: str | None):
    read = read_coverage(license_text(known))
    assert read == (said and f"{said}; others may have other terms")
