"""What another listing of the same directory has more, less, or otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tciafs.catalog.rows import Entries, Node
from tciafs.names import alias_of


@dataclass(frozen=True, slots=True)
class Difference:
    """Two listings of one directory compared, by name; of what has changed, both are told."""

    new: Mapping[str, Node]
    changed: Mapping[str, tuple[Node, Node]]
    gone: Mapping[str, Node]

    @classmethod
    def between(cls, before: Entries, after: Entries) -> Difference:
        """Compare two listings."""
        old, now = dict(before), dict(after)
        return cls(
            {name: node for name, node in now.items() if name not in old},
            {name: (old[name], node) for name, node in now.items() if old.get(name, node) != node},
            {name: node for name, node in old.items() if name not in now},
        )

    def names(self) -> Iterator[str]:
        """Yield the names that stand for something else now, those made of UIDs among them."""
        for name, node in (*self.new.items(), *self.gone.items()):
            yield from _names(name, node)
        for name, (old, node) in self.changed.items():
            if old.inode != node.inode:
                yield from _names(name, old)
                yield from _names(name, node)

    def inodes(self) -> Iterator[int]:
        """Yield the inode numbers of what is the same, but is described otherwise now."""
        return (node.inode for old, node in self.changed.values() if old.inode == node.inode)


OnChange = Callable[[int, Difference], None]
"""Take note of what a renewal changes in the directory of an inode number."""


def pass_over(inode: int, difference: Difference) -> None:
    """Take no note of it."""


class Changes:
    """Tells of what changes: always `on_change`, and whoever watches for a while."""

    def __init__(self, on_change: OnChange) -> None:
        self._on_change = on_change
        self._watchers: list[list[tuple[int, Difference]]] = []

    def tell(self, inode: int, difference: Difference) -> None:
        """Tell what has changed in a directory."""
        self._on_change(inode, difference)
        for changes in self._watchers:
            changes.append((inode, difference))

    @contextmanager
    def watching(self) -> Iterator[list[tuple[int, Difference]]]:
        """Collect what changes meanwhile, by the inode numbers of directories."""
        changes: list[tuple[int, Difference]] = []
        self._watchers.append(changes)
        try:
            yield changes
        finally:
            self._watchers = [one for one in self._watchers if one is not changes]


@dataclass(slots=True)
class Put:
    """Which directories were listed, and when, what that changed, and whose listings below are out of date.

    `is_news` where something of what was put was known before, and may be otherwise now.
    """

    listed: dict[int, float] = field(default_factory=dict)
    changed: dict[int, Difference] = field(default_factory=dict)
    expired: list[int] = field(default_factory=list)
    is_news: bool = False


def _names(name: str, node: Node) -> Iterator[str]:
    yield name
    alias = alias_of(node.record) if node.record else None
    if alias is not None:
        yield alias
