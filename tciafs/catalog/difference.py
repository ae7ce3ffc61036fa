"""What another listing of the same directory has more, less, or otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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


def _names(name: str, node: Node) -> Iterator[str]:
    yield name
    alias = alias_of(node.record) if node.record else None
    if alias is not None:
        yield alias
