"""The text files of the tree: the policy in the root, licences and citations in each collection.

They are no rows of the catalog. The text of a collection's file is what is known when it is opened.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import pyfuse3
import trio

from tciafs.catalog.attribution import Attributions
from tciafs.catalog.rows import ROOT, Node
from tciafs.citation import citation_bibtex, citation_text, license_text
from tciafs.filesystem.attributes import Appearance
from tciafs.model import Attribution, Kind, inode_number
from tciafs.policy import FILE

_POLICY = FILE.encode()
_COMPOSED: dict[bytes, Callable[[Attribution], str]] = {
    b"CITATION.bib": citation_bibtex,
    b"CITATION.txt": citation_text,
    b"LICENSE.txt": license_text,
}
_NAMES = {Kind.ROOT: [b"DATA-USAGE-POLICY.txt"], Kind.COLLECTION: list(_COMPOSED)}
_ESTIMATE = 16 << 10


@dataclass(frozen=True, slots=True)
class Text:
    """A text file and its directory."""

    inode: int
    parent: Node
    name: bytes


@dataclass(frozen=True, slots=True)
class Shown:
    """What a text was when it was last opened, and since when (ns since 1970)."""

    content: bytes
    since: int = 0


class Texts:
    """Every text file that was found or listed in this mount: the kernel asks for no other inode number."""

    def __init__(self, attributions: Attributions, appearance: Appearance) -> None:
        self._attributions = attributions
        self._appearance = appearance
        self._by_inode: dict[int, Text] = {}
        self._shown: dict[int, Shown] = {}

    def find(self, inode: int) -> Text | None:
        """Return the text file of an inode number."""
        return self._by_inode.get(inode)

    def child(self, parent: Node, name: bytes) -> Text | None:
        """Return the text file of a name in a directory."""
        if name not in _NAMES.get(parent.kind, ()):
            return None
        inode = inode_number("text", str(parent.inode), os.fsdecode(name))
        return self._by_inode.setdefault(inode, Text(inode, parent, name))

    def entries(self, directory: Node) -> list[tuple[bytes, pyfuse3.EntryAttributes]]:
        """Return the names and attributes of the text files of a directory."""
        found = [self.child(directory, name) for name in _NAMES.get(directory.kind, ())]
        return [(text.name, self.attributes(text)) for text in found if text]

    def attributes(self, text: Text) -> pyfuse3.EntryAttributes:
        """Return the attributes: the size is an estimate until the file is opened."""
        if text.parent is ROOT:
            return self._appearance.text(text.inode, len(_POLICY), 0, is_fixed=True)
        shown = self._shown.get(text.inode)
        size, since = (len(shown.content), shown.since) if shown else (_ESTIMATE, 0)
        return self._appearance.text(text.inode, size, since, is_fixed=False)

    async def read(self, text: Text) -> bytes:
        """Return the text as it is now; never waits for the archive."""
        if text.parent is ROOT:
            return _POLICY
        known = await self._attributions.of(text.parent)
        composed = await trio.to_thread.run_sync(_COMPOSED[text.name], known)
        content = composed.encode()
        shown = self._shown.get(text.inode)
        if shown is None:  # its time stays as it was told, or rsync would take the copy for an old one
            self._shown[text.inode] = Shown(content)
        elif shown.content != content:
            self._shown[text.inode] = Shown(content, time.time_ns())
        return content
