"""What others wrote as plain text: one line, or the words of a web page; no I/O."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterator
from html.parser import HTMLParser

_WIDTH = 100
_LONGEST_HTML = 1 << 16


def plain_text(html: str) -> str:
    """Return what a web page would show of `html`, in lines of at most 100 columns; words are not broken."""
    page = _Page()
    try:
        page.feed(html[:_LONGEST_HTML])
        page.close()
    except AssertionError:  # Python's parser on "<![": what it had read is shown
        pass
    wrapped = (
        textwrap.fill(
            text,
            _WIDTH,
            initial_indent=lead,
            subsequent_indent=" " * len(lead),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for lead, text in page.paragraphs()
    )
    return "\n\n".join(wrapped).replace("\n\n  - ", "\n  - ")


class _Page(HTMLParser):
    """Collects the text of a page by paragraphs."""

    _BLOCK = re.compile("address|article|blockquote|br|d[dlt]|div|h[1-6r]|ol|p|pre|section|table|tr|ul")
    _HIDDEN = frozenset(("script", "style", "head", "template"))

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._paragraphs: list[tuple[str, list[str]]] = [("", [])]
        self._hidden: list[str] = []
        self._link = ""

    def paragraphs(self) -> Iterator[tuple[str, str]]:
        """Yield what to set before each paragraph that says something, and its text."""
        for lead, pieces in self._paragraphs:
            if text := line_of("".join(pieces)):
                yield lead, text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a paragraph, a link or what is not shown."""
        if tag in self._HIDDEN:
            self._hidden.append(tag)
        elif tag == "li":
            self._paragraphs.append(("  - ", []))
        elif self._BLOCK.fullmatch(tag):
            self._paragraphs.append(("", []))
        elif tag in ("td", "th"):
            self.handle_data(" ")
        elif tag == "a":
            self._link = next((value or "" for name, value in attrs if name == "href"), "")

    def handle_endtag(self, tag: str) -> None:
        """End it; a link's address follows its words."""
        if tag in self._hidden:
            self._hidden.remove(tag)
        elif tag == "li" or self._BLOCK.fullmatch(tag):
            self._paragraphs.append(("", []))
        elif tag == "a":
            if self._link.startswith(("http://", "https://")) and self._link not in self._said():
                self.handle_data(f" ({self._link})")
            self._link = ""

    def handle_data(self, data: str) -> None:
        """Take text that is shown."""
        if not self._hidden:
            self._paragraphs[-1][1].append(data)

    def _said(self) -> str:
        return "".join(self._paragraphs[-1][1][-1:])


def line_of(text: str) -> str:
    """Return the text as one line without what a terminal would obey or nobody can see."""
    return " ".join("".join(map(_shown, unicodedata.normalize("NFC", text))).split())


def _shown(character: str) -> str:
    if character.isspace():
        return " "
    return "" if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn"} else character
