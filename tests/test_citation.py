"""Licences and citations as text and BibTeX: what is known, told honestly, whatever an archive sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybtex.database import BibliographyData, parse_string

from tciafs.citation import citation_bibtex, citation_text, doi_of, license_text
from tciafs.model import Attribution, Description, Terms
from tciafs.plaintext import plain_text

BY = Terms("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/", "https://doi.org/10.7937/ABC.1")
NC = Terms("CC BY-NC 3.0", None, "https://doi.org/10.7937/ABC.1")
RESULT = Terms("CC BY 4.0", BY.license_uri, "http://dx.doi.org/10.5281/zenodo.7", third_party_analysis=True)
KNOWN = Attribution("LIDC-IDRI", {RESULT: 5, BY: 40, NC: 2}, 120)

anything = st.text(st.characters(codec=None), max_size=40)
hostile = st.one_of(anything, st.text("{}\\%&$#_~^\"'@,=\n\x00\x1b é10.793/", max_size=40))
links = st.one_of(st.none(), hostile, hostile.map("https://doi.org/10.7937/{}".format))
terms = st.builds(Terms, st.one_of(st.none(), hostile), links, links, st.booleans())


def parsed(known: Attribution) -> BibliographyData:
    return parse_string(citation_bibtex(known), "bibtex")


def test_each_licence_is_told_with_its_series_and_what_they_are_cited_by():
    said = license_text(KNOWN)
    assert said.startswith("LICENCES OF LIDC-IDRI\n\n47 of at least 120 series were looked at. ")
    assert (
        "CC BY 4.0\nhttps://creativecommons.org/licenses/by/4.0/\n"
        "    40 series, https://doi.org/10.7937/ABC.1\n"
        "    5 series of an analysis result, https://doi.org/10.5281/zenodo.7\n\n"
        "CC BY-NC 3.0\n    2 series, https://doi.org/10.7937/ABC.1\n"
    ) in said
    assert "Of the collection as a whole" not in said
    declared = Attribution("X", {}, description=Description(None, BY))
    assert "the archive says:\n    CC BY 4.0\n    https://creativecommons" in license_text(declared)
    assert "A licence that the archive does not name\n    1 series, without a DOI" in license_text(
        Attribution("X", {Terms(): 1})
    )


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (Attribution("X", {}), "No series of this collection was looked at yet. "),
        (Attribution("X", {BY: 1200}, 1200), "1,200 of at least 1,200 series were looked at. "),
        (Attribution("X", {BY: 7}, 9, is_whole=True), "7 of 9 series were looked at. "),
        (
            Attribution("X", {BY: 6, NC: 3}, 9, is_whole=True),
            "All 9 series of the collection were looked at.",
        ),
    ],
)
def test_how_much_was_looked_at_is_told_in_each_file(known: Attribution, said: str):
    for text in (license_text(known), citation_text(known)):
        assert text.splitlines()[2].startswith(said.rstrip())
    assert citation_bibtex(known).startswith(f"% {said.rstrip()}")


def test_the_collection_and_each_analysis_result_are_cited_by_their_own_dois():
    said = citation_text(KNOWN)
    own, _, analyses = said.partition("Analysis results in it")
    assert "    LIDC-IDRI. The Cancer Imaging Archive. https://doi.org/10.7937/ABC.1\n" in own
    assert "    https://doi.org/10.5281/zenodo.7\n" in analyses
    assert "zenodo" not in own
    assert "https://doi.org/10.1007/s10278-013-9622-7" in analyses
    elsewhere = citation_text(Attribution("Lab", {Terms(None, None, "https://lab.example/data"): 1}))
    assert "    Lab. https://lab.example/data\n" in elsewhere
    assert "Clark" not in elsewhere
    assert "    Lab. The archive has told no DOI yet.\n" in citation_text(Attribution("Lab", {}))


def test_bibtex_has_an_entry_for_each():
    entries = parsed(KNOWN).entries
    assert list(entries) == ["LIDC-IDRI", "LIDC-IDRI-2", "Clark2013"]
    assert dict(entries["LIDC-IDRI"].fields) == {
        "title": "{LIDC-IDRI}",
        "publisher": "The Cancer Imaging Archive",
        "doi": "10.7937/ABC.1",
        "url": "https://doi.org/10.7937/ABC.1",
    }
    assert entries["LIDC-IDRI-2"].fields["doi"] == "10.5281/zenodo.7"
    assert len(entries["Clark2013"].persons["author"]) == 12
    title = parsed(Attribution("50% {R&D} \\x_é\x1b", {})).entries["50-R-D-x"].fields["title"]
    assert title == r"{50\% \textbraceleft{}R\&D\textbraceright{} \textbackslash{}x\_é}"


@pytest.mark.says("`CITATION.bib` is well-formed BibTeX, whatever the archive sends.")
@given(hostile, st.dictionaries(terms, st.integers(1, 9), max_size=4), terms, anything)
def test_whatever_an_archive_sends_bibtex_can_be_parsed_and_no_terminal_obeys(
    collection: str, series: dict[Terms, int], declared: Terms, html: str
):
    known = Attribution(collection, series, 3, description=Description(html, declared))
    dois = {found for each in (declared, *series) if (found := doi_of(each.data_description_uri or ""))}
    entries = parsed(known).entries.values()
    assert {entry.fields.get("doi") for entry in entries} >= dois
    for text in (citation_bibtex(known), citation_text(known), license_text(known)):
        assert text.replace("\n", "").isprintable()
        text.encode()


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        ("", ""),
        ("plain &amp; &lt;simple&gt; &#169;&nbsp;&eacute;", "plain & <simple> © é"),
        ("<h2>One</h2><p>Two\n <b>bold</b></p>Three<br/>Four", "One\n\nTwo bold\n\nThree\n\nFour"),
        ("Of<ul><li>one</li><li>two<li>three</ul>end", "Of\n  - one\n  - two\n  - three\n\nend"),
        ("<a href='https://x.example/y'>here</a>, <a href='#top'>up</a>", "here (https://x.example/y), up"),
        ("<a href='https://x.example/y'>https://x.example/y</a>", "https://x.example/y"),
        ("a<script>alert('<b>')</script><style>p {}</style>b<!-- c -->", "ab"),
        ("\x1b[31mred\x00\u202e &#27;[2J", "[31mred [2J"),
        ("</script></p></li>x", "x"),
    ],
)
def test_a_description_is_shown_as_plain_text(html: str, shown: str):
    assert plain_text(html) == shown


@given(st.text("<>!-[]/&;#abp \"'=\n", max_size=60))
def test_no_page_is_too_broken_to_be_read(html: str):
    assert "\x1b" not in plain_text(html)
    assert plain_text(f"before <p>{html}").startswith("before")


def test_text_is_wrapped_and_words_are_whole():
    link = "https://example.org/" + "x" * 120
    lines = plain_text("word " * 60 + link + " word" * 30).splitlines()
    assert max(len(line) for line in lines if line != link) <= 100
    assert link in lines
