"""What to cite for series of whatever collections: each DOI and each licence once, no I/O."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping

from tciafs.citation import (
    MORE,
    PAPER,
    PAPER_ENTRY,
    cited,
    entry_of,
    is_of_tcia,
    license_of,
    link_of,
)
from tciafs.model import Terms
from tciafs.plaintext import line_of

Used = tuple[str, Terms]  # a collection, and terms under which some of it is
Partly = Mapping[str, str]  # how much is known of a collection, where that is not all of it


def bibliography_text(used: Iterable[Used], partly: Partly | None = None) -> str:
    """Return what to cite and under which licences it is, for people."""
    used = list(used)
    lines = ["CITE", ""]
    lines += [f"    {cited(title, link)}" for title, link in _titled(used)]
    if any(is_of_tcia(link) for _, link in _titled(used)):
        lines += ["", textwrap.indent(PAPER, "    ")]
    lines += ["", MORE, "", "LICENCES"]
    for (name, uri), collections in _by_license(used).items():
        lines += ["", f"    {name}", *([f"    {uri}"] if uri else []), f"        {', '.join(collections)}"]
    if partly:
        lines += ["", "NOT ALL IS KNOWN", "", *(f"    {line}" for line in _gaps(partly))]
    return "\n".join([*lines, ""])


def bibliography_bibtex(used: Iterable[Used], partly: Partly | None = None) -> str:
    """Return one BibTeX entry a DOI, and one for TCIA; licences and gaps are told in comments above."""
    used = list(used)
    titled = _titled(used)
    keys = _keys(title for title, _ in titled)
    entries = [entry_of(key, title, link) for key, (title, link) in zip(keys, titled, strict=True)]
    if any(is_of_tcia(link) for _, link in titled):
        entries.append(PAPER_ENTRY)
    notes = [MORE, *_gaps(partly or {})]
    for (name, uri), collections in _by_license(used).items():
        notes.append(f"{' '.join(filter(None, (name, uri)))}: {', '.join(collections)}")
    # A comment ends where BibTeX sees an "@", whatever stands before it.
    head = "".join(f"% {note}\n" for note in notes).replace("@", "(at)")
    return "\n".join([head, *entries])


def _titled(used: list[Used]) -> list[tuple[str, str]]:
    """Return a title for each link; a collection that has none under any terms keeps its name."""
    linked = {name for name, terms in used if link_of(terms)}
    own = {link_of(terms) for _, terms in used if not terms.third_party_analysis}
    names: dict[tuple[str, str], list[str]] = {}  # by link, or by collection where there is none
    for name, terms in sorted(used, key=lambda one: (line_of(one[0]), one[1].third_party_analysis)):
        if (link := link_of(terms)) or name not in linked:
            titles = names.setdefault((link, "" if link else name), [])
            titles += [line_of(name)] if line_of(name) not in titles else []
    return [
        (("" if link in own or not link else "Analysis result in ") + ", ".join(titles), link)
        for (link, _), titles in names.items()
    ]


def _gaps(partly: Partly) -> list[str]:
    return [f"{line_of(name)}: {known}" for name, known in sorted(partly.items())]


def _by_license(used: list[Used]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for name, terms in used:
        found.setdefault(license_of(terms), set()).add(line_of(name))
    return {license_: sorted(names) for license_, names in sorted(found.items())}


def _keys(titles: Iterable[str]) -> list[str]:
    """Return a key for each entry, none twice: BibTeX refuses that, and ignores case."""
    taken = {"clark2013"}
    keys = []
    for title in titles:
        stem = re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-")[:60] or "collection"
        key, number = stem, 1
        while key.lower() in taken:
            number += 1
            key = f"{stem}-{number}"
        taken.add(key.lower())
        keys.append(key)
    return keys
