"""What was looked at lately, in memory: nodes, the names of directories, and when those were listed.

Names are forgotten when a listing brings news, and after a minute: another mount may have put another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cachetools import LRUCache, TTLCache

from tciafs.catalog.difference import Put
from tciafs.catalog.rows import Entries, Listing, Node
from tciafs.model import Kind, Series, is_file, series_of

_TIMES_KEPT = 50_000
_KEPT = 20_000
_SECONDS = 60.0
_FEW = 1_000  # entries of a directory that are looked into, or opened, next


@dataclass(frozen=True, slots=True)
class _Names:
    listed_at: float
    by_name: Mapping[str, Node]

    def __len__(self) -> int:
        return len(self.by_name)


class Lately:
    """What need not be read from disk again.

    What is read is kept only if nothing was put, or expired, since the read began: `reading` tells.
    """

    def __init__(self) -> None:
        self.reading = 0
        self._listed_at: LRUCache[int, float] = LRUCache(_TIMES_KEPT)
        self._nodes: TTLCache[int, Node] = TTLCache(_KEPT, _SECONDS)
        # By what the inode numbers of a series' files have in common.
        self._files: TTLCache[range, dict[int, Node]] = TTLCache(_KEPT, _SECONDS, getsizeof=len)
        self._names: TTLCache[int, _Names] = TTLCache(_KEPT, _SECONDS, getsizeof=len)

    def listed_at(self, inode: int) -> float | None:
        """Return when a directory was listed (seconds since 1970)."""
        return self._listed_at.get(inode)

    def node(self, inode: int) -> Node | None:
        """Return what has the inode number."""
        node = self._nodes.get(inode)
        if node is None and is_file(inode):
            return self._files.get(series_of(inode), {}).get(inode)
        return node

    def keep(self, node: Node, reading: int) -> None:
        """Keep a node that was looked up."""
        if reading == self.reading:
            self._nodes[node.inode] = node

    def keep_listed_at(self, inode: int, listed_at: float, reading: int) -> None:
        """Keep when a directory was listed."""
        if reading == self.reading:
            self._listed_at[inode] = listed_at

    def keep_listing(self, listing: Listing, reading: int) -> None:
        """Keep the names of a directory, and what they stand for."""
        directory, entries = listing.directory, listing.entries
        self.keep_listed_at(directory.inode, listing.listed_at, reading)
        if reading != self.reading or len(entries) > _KEPT:
            return
        self._names[directory.inode] = _Names(listing.listed_at, dict(entries))
        if directory.kind is Kind.SERIES and entries:
            nodes = {node.inode: node for _, node in entries}
            self._files[series_of(entries[0][1].inode)] = nodes
        elif len(entries) <= _FEW:
            self._nodes.update((child.inode, child) for _, child in entries)

    def note_put(self, put: Put) -> None:
        """Keep when directories were listed, and forget what is otherwise now."""
        self.reading += 1
        self._listed_at.update(put.listed)
        self.note_expired(put.expired)
        if put.is_news:  # a listing may bring other sizes for the same files
            self._forget_names()

    def note_expired(self, inodes: Iterable[int]) -> None:
        """Forget when directories were listed."""
        self.reading += 1
        for inode in inodes:
            self._listed_at.pop(inode, None)

    def entries(self, directory: Node) -> Entries | None:
        """Return the names of a directory and what they stand for, in the order of names."""
        names = self._names_of(directory.inode)
        return None if names is None else list(names.items())

    def find(self, directory: Node, name: str) -> Node | None:
        """Return what a name stands for."""
        return (self._names_of(directory.inode) or {}).get(name)

    def is_worth_listing(self, directory: Node) -> bool:
        """Tell whether to read all names at a lookup: those of the files of a series are one row."""
        record = directory.record
        is_small = isinstance(record, Series) and record.image_count <= _KEPT
        return is_small and self._names_of(directory.inode) is None

    def forget(self) -> None:
        """Forget all of it."""
        self.reading += 1
        self._listed_at.clear()
        self._forget_names()

    def _names_of(self, inode: int) -> Mapping[str, Node] | None:
        """Return the names of a directory, unless it is known to have been listed anew, or expired, since."""
        names = self._names.get(inode)
        return names.by_name if names and names.listed_at == self._listed_at.get(inode) else None

    def _forget_names(self) -> None:
        self._nodes.clear()
        self._files.clear()
        self._names.clear()
