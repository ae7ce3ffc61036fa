"""Licences and citations of a collection as text and BibTeX: records in, text out, no I/O.

Nothing that an archive says is trusted: control characters go, and what BibTeX would read is spelled out.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from urllib.parse import quote, unquote

from tciafs.model import Attribution, Terms
from tciafs.plaintext import line_of, plain_text

_DOI = re.compile(r"\b10\.\d{4,9}/\S*[^\s.,;]")
_TCIA_PREFIX = "10.7937/"  # DataCite's for what TCIA publishes
_TCIA = "The Cancer Imaging Archive"
_POLICY = "TCIA's Data Usage Policy holds as well: DATA-USAGE-POLICY.txt in the root of the drive."
NOTHING_YET = "No series of this collection was looked at yet."
NAMELESS = "A licence that the archive does not name"
_WHOLE = "Of the collection as a whole, the archive says:"
_ANALYSIS = " of an analysis result"
_NO_DOI = "without a DOI"
_ALL = "All "
_COUNTED = re.compile(r"([\d,]+ of (?:at least )?[\d,]+ series)\s")
_COVERED = re.compile(rf"[\d,]+ series({_ANALYSIS})?, (.*)")
MORE = "The page of a DOI tells authors and title in full."

PAPER = """\
Clark K, Vendt B, Smith K, Freymann J, Kirby J, Koppel P, Moore S, Phillips S, Maffitt D, Pringle M,
Tarbox L, Prior F. The Cancer Imaging Archive (TCIA): Maintaining and Operating a Public Information
Repository. Journal of Digital Imaging 26(6), 2013, 1045-1057.
https://doi.org/10.1007/s10278-013-9622-7"""
PAPER_ENTRY = """\
@article{Clark2013,
  author = {Clark, Kenneth and Vendt, Bruce and Smith, Kirk and Freymann, John and Kirby, Justin and
    Koppel, Paul and Moore, Stephen and Phillips, Stanley and Maffitt, David and Pringle, Michael and
    Tarbox, Lawrence and Prior, Fred},
  title = {{The Cancer Imaging Archive (TCIA)}: Maintaining and Operating a Public Information Repository},
  journal = {Journal of Digital Imaging},
  year = {2013},
  volume = {26},
  number = {6},
  pages = {1045--1057},
  doi = {10.1007/s10278-013-9622-7},
}
"""

# Not "\\{": BibTeX counts braces before TeX sees them, whatever stands before one.
_TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\textbraceleft{}",
        "}": r"\textbraceright{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "&%$#_"},
    }
)


def license_text(known: Attribution) -> str:
    """Return LICENSE.txt: each licence, with the series and the DOIs that it covers."""
    lines = [f"LICENCES OF {line_of(known.collection)}", "", _coverage(known)]
    by_license: dict[tuple[str, str], list[tuple[Terms, int]]] = {}
    for terms, count in _sorted(known):
        by_license.setdefault(license_of(terms), []).append((terms, count))
    for (name, uri), covered in by_license.items():
        lines += ["", name, *([uri] if uri else [])]
        lines += [f"    {_covered(terms, count)}" for terms, count in covered]
    declared = known.description.terms
    if declared != Terms():
        lines += ["", _WHOLE]
        lines += [f"    {said}" for said in (*license_of(declared), link_of(declared)) if said]
    return "\n".join([*lines, "", _POLICY, ""])


def read_license_text(text: str) -> list[Terms]:
    """Return the terms that a LICENSE.txt tells, those of the collection as a whole last."""
    found: list[Terms] = []
    for block in text.split("\n\n")[2:]:
        head, *rest = block.splitlines()
        told = [line.strip() for line in rest if line.startswith("    ")]
        if head == _WHOLE:
            uris = told[1:]
            link = uris.pop() if len(uris) == 2 or (uris and doi_of(uris[0])) else ""
            found.append(_told(told[0], "".join(uris), link))
            continue
        uri = rest[0] if rest and not rest[0].startswith("    ") else ""
        matches = filter(None, map(_COVERED.fullmatch, told))
        found += [_told(head, uri, covered[2], is_analysis=bool(covered[1])) for covered in matches]
    return found


def read_coverage(text: str) -> str | None:
    """Return of how much of the collection a LICENSE.txt tells, None where that is all of it."""
    said = "".join(text.split("\n\n")[1:2])
    if said.startswith(_ALL):
        return None
    counted = _COUNTED.match(said)
    return f"{counted[1] if counted else 'no series'} looked at; others may have other terms"


def _told(name: str, uri: str, link: str, is_analysis: bool = False) -> Terms:
    has_link = link and link != _NO_DOI
    return Terms(None if name == NAMELESS else name, uri or None, link if has_link else None, is_analysis)


def citation_text(known: Attribution) -> str:
    """Return CITATION.txt: what to cite, and how the archive describes the collection."""
    own, analyses = _own(known), _analyses(known)
    lines = [f"HOW TO CITE {line_of(known.collection)}", "", _coverage(known), "", "The collection:"]
    lines += [f"    {cited(known.collection, uri)}" for uri in own or [""]]
    if analyses:
        lines += ["", "Analysis results in it, each by others and with a citation of its own:"]
        lines += [f"    {uri}" for uri in analyses]
    if any(map(is_of_tcia, [*own, *analyses])):
        lines += ["", "The archive:", textwrap.indent(PAPER, "    ")]
    lines += ["", MORE, _POLICY]
    if described := plain_text(known.description.html or ""):
        lines += ["", "WHAT THE ARCHIVE SAYS OF THE COLLECTION", "", described]
    return "\n".join([*lines, ""])


def citation_bibtex(known: Attribution) -> str:
    """Return CITATION.bib: an entry for the collection, one for each analysis result, one for TCIA."""
    own, analyses = _own(known), _analyses(known)
    name = line_of(known.collection)
    titled = [(name, uri) for uri in own or [""]]
    titled += [(f"Analysis result in the collection {name}", uri) for uri in analyses]
    keys = _keys(name, len(titled))
    entries = [entry_of(key, title, uri) for key, (title, uri) in zip(keys, titled, strict=True)]
    if any(map(is_of_tcia, [*own, *analyses])):
        entries.append(PAPER_ENTRY)
    head = "".join(f"% {line}\n" for line in [*_coverage(known).splitlines(), MORE])
    return "\n".join([head, *entries])


def _coverage(known: Attribution) -> str:
    """Say how much of the collection these terms were gathered from."""
    looked_at = sum(known.series.values())
    if not looked_at:
        return f"{NOTHING_YET} The archive is asked when this file is\nopened: open it again in a moment."
    if known.is_whole and looked_at >= known.series_count:
        return f"{_ALL}{looked_at:,} series of the collection were looked at."
    least = "" if known.is_whole else "at least "
    return (
        f"{looked_at:,} of {least}{max(known.series_count, looked_at):,} series were looked at. Others may\n"
        "have other terms: each tells its own in its attributes user.tcia.license and user.tcia.doi."
    )


def _covered(terms: Terms, count: int) -> str:
    what = f"{count:,} series" + (_ANALYSIS if terms.third_party_analysis else "")
    return f"{what}, {link_of(terms) or _NO_DOI}"


def license_of(terms: Terms) -> tuple[str, str]:
    return line_of(terms.license_name or "") or NAMELESS, line_of(terms.license_uri or "")


def _sorted(known: Attribution) -> list[tuple[Terms, int]]:
    """Return the terms, those of the collection itself first, then what most series have."""
    return sorted(
        known.series.items(), key=lambda item: (item[0].third_party_analysis, -item[1], repr(item[0]))
    )


def _own(known: Attribution) -> list[str]:
    """Return the links of the collection itself."""
    own = [terms for terms, _ in _sorted(known) if not terms.third_party_analysis]
    return _links([known.description.terms, *own])


def _analyses(known: Attribution) -> list[str]:
    """Return the links of the analysis results that are not the collection's own."""
    own = set(_own(known))
    found = _links(terms for terms, _ in _sorted(known) if terms.third_party_analysis)
    return [link for link in found if link not in own]


def _links(all_terms: Iterable[Terms]) -> list[str]:
    return list(dict.fromkeys(filter(None, map(link_of, all_terms))))


def link_of(terms: Terms) -> str:
    """Return where the data are described: a DOI in its one spelling, or another address as it is."""
    said = line_of(terms.data_description_uri or "")
    found = doi_of(said)
    return f"https://doi.org/{found}" if found else said


def doi_of(uri: str) -> str | None:
    """Return the DOI in a link or a text, None where there is none; what BibTeX would read is quoted."""
    match = _DOI.search(unquote(line_of(uri)))
    return quote(match[0], safe="/.-_()<>:;+") if match else None


def is_of_tcia(link: str) -> bool:
    return (doi_of(link) or "").startswith(_TCIA_PREFIX)


def cited(name: str, link: str) -> str:
    publisher = f"{_TCIA}. " if is_of_tcia(link) else ""
    return f"{line_of(name)}. {publisher}{link or 'The archive has told no DOI yet.'}"


def entry_of(key: str, title: str, link: str) -> str:
    fields = {"title": f"{{{title.translate(_TEX)}}}"}
    if is_of_tcia(link):
        fields["publisher"] = _TCIA
    if found := doi_of(link):
        fields["doi"] = found
    if link:
        fields["url"] = quote(link, safe="/:?=&.-_()+;,~!*'%")
    return "\n".join(
        [f"@misc{{{key},", *(f"  {field} = {{{value}}}," for field, value in fields.items()), "}", ""]
    )


def _keys(name: str, count: int) -> list[str]:
    stem = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "collection"
    return [stem if number == 1 else f"{stem}-{number}" for number in range(1, count + 1)]
