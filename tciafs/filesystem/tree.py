"""Inode numbers and names to what they stand for, and back.

Joins the catalog, the content and the control files into one tree.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyfuse3
from cachetools import LRUCache

from tciafs.archives.base import BadAnswer, Failed
from tciafs.catalog.catalog import Catalog
from tciafs.catalog.freshness import Age
from tciafs.catalog.rows import ROOT, Node
from tciafs.content.content import Content
from tciafs.content.handle import Handle
from tciafs.content.index import Stored, object_key
from tciafs.filesystem.attributes import Appearance, absent, kept_seconds
from tciafs.filesystem.texts import Texts
from tciafs.filesystem.xattrs import extended_attributes
from tciafs.model import ROOT_INODE, Instance, Kind, Series, aliased_inode

CONTROL_DIRECTORY = b".tciafs"
CONTROL_INODES = range(2, 1024)
_ABSENCE_SECONDS = 60.0
_ENTRIES_KEPT = 300_000
_ATTRIBUTES_HOLD_SECONDS = 3600.0  # an inode number's attributes are those of its version, for ever


class Stale(Exception):
    """An inode number that nothing in the catalog has, or of a version that is not to be had any more.

    The kernel looks its path up again, and finds what is there now.
    """


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file; `series` is an inode number, `is_resized` where its size is another than was said."""

    handle: Handle
    instance: Instance
    series: int
    is_resized: bool


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory as it was when it was opened, in the order of names."""

    inode: int
    parent: int
    entries: list[tuple[bytes, pyfuse3.EntryAttributes]]
    age: Age

    def is_outdated(self, age: Age) -> bool:
        """Tell whether the kernel would keep these entries for longer than their listing holds."""
        kept = kept_seconds(self.age.expires_in), kept_seconds(age.expires_in)
        return self.age.listed_at != age.listed_at or kept[0] != kept[1]


class Tree:
    """Everything under the mount point."""

    def __init__(
        self,
        catalog: Catalog,
        content: Content,
        appearance: Appearance,
        texts: Texts,
        control_files: Mapping[str, Callable[[], bytes]],
        are_sizes_exact: bool = False,
    ) -> None:
        self._are_sizes_exact = are_sizes_exact
        self._catalog = catalog
        self._content = content
        self._appearance = appearance
        self._texts = texts
        self._controls = {
            inode: (os.fsencode(name), read)
            for inode, (name, read) in enumerate(control_files.items(), CONTROL_INODES[1])
        }
        self._prepared: LRUCache[int, Directory] = LRUCache(_ENTRIES_KEPT, getsizeof=_weight)

    async def attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        """Return the attributes of an inode number that was handed out; raise `Stale` for another."""
        if inode in CONTROL_INODES:
            return self._control_attributes(inode)
        if text := self._texts.find(inode):
            return self._texts.attributes(text)
        target = aliased_inode(inode)
        node = await self._node(inode if target is None else target)
        if target is not None:
            return await self._symlink(node, _ATTRIBUTES_HOLD_SECONDS)
        return await self._attributes_of(node, _ATTRIBUTES_HOLD_SECONDS)

    def dot(self, inode: int) -> pyfuse3.EntryAttributes:
        """Return what readdir says of `.` and `..`: the kernel keeps no attributes of these."""
        return self._appearance.control(inode, None)

    async def lookup(self, parent: int, name: bytes) -> pyfuse3.EntryAttributes:
        """Return the attributes of a name in a directory, those of `absent` where there is none."""
        if parent in CONTROL_INODES:
            return self._lookup_control(name)
        if parent == ROOT_INODE and name == CONTROL_DIRECTORY:
            return self._control_attributes(CONTROL_INODES[0])
        if self._texts.find(parent):
            raise NotADirectoryError(parent)
        node = await self._node(parent)
        if text := self._texts.child(node, name):
            return self._texts.attributes(text)
        if name in (b".", b".."):
            return await self.attributes(parent if name == b"." else node.parent)
        if node.kind is Kind.INSTANCE:
            raise NotADirectoryError(node.inode)
        return await self._lookup(node, name)

    async def directory(self, inode: int) -> Directory:
        """Return the whole directory, listed at the archive when it never was."""
        if inode in CONTROL_INODES:
            return self._control_directory()
        if self._texts.find(inode):
            raise NotADirectoryError(inode)
        node = await self._node(inode)
        if node.kind is Kind.INSTANCE:
            raise NotADirectoryError(inode)
        age = await self._catalog.age(node)
        prepared = self._prepared.get(inode)
        if prepared is None or prepared.is_outdated(age):
            prepared = await self._prepare(node, age)
            self._prepared[inode] = prepared
        return prepared

    async def target(self, inode: int) -> bytes:
        """Return where the symbolic link points: to the shown name beside it."""
        target = aliased_inode(inode)
        if target is None:
            raise Stale(inode)
        return await self._shown_name(await self._node(target))

    async def open(self, inode: int) -> Opened:
        """Open the file, fetched if need be."""
        node = await self._node(inode)
        if not isinstance(node.record, Instance):
            raise IsADirectoryError(inode)
        known = await self._content.known.get(node.record)
        handle = await self._open(node, node.record)
        if known is None or not known.on_disk:
            self._prepared.pop(node.parent, None)  # its size, or its blocks, are others now
        is_resized = handle.size != (known.size if known else node.record.size)
        return Opened(handle, node.record, node.parent, is_resized)

    async def extended_attributes(self, inode: int) -> dict[bytes, bytes]:
        """Return the extended attributes of a directory or file; a symbolic link has none."""
        if inode in CONTROL_INODES or aliased_inode(inode) is not None:
            return {}
        text = self._texts.find(inode)
        node = text.parent if text else await self._node(inode)
        if not isinstance(node.record, Instance):
            return extended_attributes(node.record)
        series = (await self._node(node.parent)).record
        return extended_attributes(node.record, series, await self._content.known.get(node.record))

    async def path(self, inode: int) -> bytes:
        """Return the path of what has an inode number, from the root of the drive."""
        target = aliased_inode(inode)
        text = self._texts.find(inode)
        node = text.parent if text else await self._node(inode if target is None else target)
        names = [text.name] if text else []
        while node.kind is not Kind.ROOT:
            names.insert(0, await self._shown_name(node))
            node = await self._node(node.parent)
        return b"/" + b"/".join(names)

    async def text(self, inode: int) -> bytes | None:
        """Return what a control or text file says now, None of anything else."""
        if inode in CONTROL_INODES:
            return self._read_control(inode)
        text = self._texts.find(inode)
        return await self._texts.read(text) if text else None

    def _read_control(self, inode: int) -> bytes:
        _, read = self._controls[inode]
        return read()

    async def _node(self, inode: int) -> Node:
        node = ROOT if inode == ROOT_INODE else await self._catalog.node(inode)
        if node is None:
            raise Stale(inode)
        return node

    async def _lookup(self, node: Node, name: bytes) -> pyfuse3.EntryAttributes:
        found, expires_in = await self._catalog.child(node, os.fsdecode(name))
        if found is None:
            return absent(min(_ABSENCE_SECONDS, max(expires_in, 0.0)))
        if found.is_alias and found.node.kind is not Kind.INSTANCE:
            return await self._symlink(found.node, expires_in)
        return await self._attributes_of(found.node, expires_in)

    async def _attributes_of(self, node: Node, seconds: float) -> pyfuse3.EntryAttributes:
        if isinstance(node.record, Instance):
            stored = await self._content.known.get(node.record)
            if stored is None and node.record.size is None and self._are_sizes_exact:
                stored = await self._fetched(node, node.record)
            return self._appearance.file(node.inode, node.record, stored, seconds)
        return self._appearance.directory(node, seconds)

    async def _fetched(self, node: Node, instance: Instance) -> Stored | None:
        """Fetch the file for its size alone (`--sizes=exact`)."""
        (await self._open(node, instance)).close()
        return await self._content.known.get(instance)

    async def _open(self, node: Node, instance: Instance) -> Handle:
        """Open what is cached, or what may be fetched."""

        async def confirm() -> None:
            if not await self._catalog.is_current(await self._node(node.parent)):
                raise Stale(f"{object_key(instance)} was replaced by another version")

        try:
            return await self._content.open(instance, confirm, lambda: self._siblings(node.parent))
        except (BadAnswer, Failed):
            await self._catalog.confirm_right(await self._node(node.parent))
            raise

    async def _siblings(self, series: int) -> list[Instance]:
        """Return the files of a series, in the order of their names; none where it is not known any more."""
        node = await self._catalog.node(series)
        listed = await self._catalog.entries(node) if node else []
        return [child.record for _, child in listed if isinstance(child.record, Instance)]

    async def _symlink(self, node: Node, seconds: float) -> pyfuse3.EntryAttributes:
        return self._appearance.symlink(node, await self._shown_name(node), seconds)

    async def _shown_name(self, node: Node) -> bytes:
        name = await self._catalog.name_of(node)
        if name is None:
            raise Stale(node.inode)
        return os.fsencode(name)

    async def _prepare(self, node: Node, age: Age) -> Directory:
        known: dict[str, Stored] = {}
        if isinstance(node.record, Series):
            known = await self._content.known.of_series(node.record.series_instance_uid)
        entries = await self._catalog.entries(node)
        prepared = [(os.fsencode(name), self._entry(child, known, age.expires_in)) for name, child in entries]
        if texts := self._texts.entries(node):
            prepared = sorted(prepared + texts, key=lambda entry: entry[0])
        return Directory(node.inode, node.parent, prepared, age)

    def _entry(self, node: Node, known: Mapping[str, Stored], seconds: float) -> pyfuse3.EntryAttributes:
        if isinstance(node.record, Instance):
            stored = known.get(object_key(node.record))
            return self._appearance.file(node.inode, node.record, stored, seconds)
        return self._appearance.directory(node, seconds)

    def _control_attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        if inode == CONTROL_INODES[0]:
            return self._appearance.control(inode, None)
        if inode not in self._controls:
            raise Stale(inode)
        return self._appearance.control(inode, len(self._read_control(inode)))

    def _lookup_control(self, name: bytes) -> pyfuse3.EntryAttributes:
        if name in (b".", b".."):
            return self._control_attributes(CONTROL_INODES[0])
        for inode, (known, _) in self._controls.items():
            if known == name:
                return self._control_attributes(inode)
        return absent(_ABSENCE_SECONDS)

    def _control_directory(self) -> Directory:
        entries = [(name, self._control_attributes(inode)) for inode, (name, _) in self._controls.items()]
        return Directory(CONTROL_INODES[0], ROOT_INODE, entries, Age(0.0, 0.0))


def _weight(directory: Directory) -> int:
    return len(directory.entries) + 1
