"""Attributes of everything in the tree: modes, sizes, times, and how long the kernel may keep them."""

from __future__ import annotations

import calendar
import stat
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import pyfuse3

from tciafs.catalog.rows import Node
from tciafs.content.index import Stored
from tciafs.model import Instance, Series, Study, alias_inode

_BLOCK = 512  # st_blocks counts these, whatever st_blksize (stat(2))
_IO_SIZE = 1 << 20
_LONGEST_SECONDS = 3600.0
_SHORTEST_SECONDS = 1.0  # of an expired listing that is being renewed


@dataclass(frozen=True, slots=True)
class Appearance:
    """Whose everything looks, and with which permissions."""

    uid: int
    gid: int
    umask: int = 0

    def directory(self, node: Node, seconds: float) -> pyfuse3.EntryAttributes:
        """Return the attributes of a directory."""
        attr = self._attributes(node.inode, stat.S_IFDIR | 0o555, kept_seconds(seconds))
        _set_times(attr, _modified(node))
        return attr

    def symlink(self, node: Node, target: bytes, seconds: float) -> pyfuse3.EntryAttributes:
        """Return the attributes of the symbolic link that stands for `node` under its UID."""
        attr = self._attributes(alias_inode(node.inode), stat.S_IFLNK | 0o777, kept_seconds(seconds))
        attr.st_mode = stat.S_IFLNK | 0o777
        attr.st_size = len(target)
        _set_times(attr, _modified(node))
        return attr

    def file(
        self, inode: int, instance: Instance, stored: Stored | None, seconds: float
    ) -> pyfuse3.EntryAttributes:
        """Return the attributes of a DICOM file: `stored`, what was fetched, overrules what was promised.

        Without either, the size is an estimate that the kernel may not keep.
        """
        size = stored.size if stored else instance.size
        attr = self._attributes(inode, stat.S_IFREG | 0o444, kept_seconds(seconds))
        attr.st_size = instance.estimate if size is None else size
        attr.attr_timeout = 0.0 if size is None else kept_seconds(seconds)
        attr.st_blocks = -(-attr.st_size // _BLOCK) if stored and stored.on_disk else 0
        _set_times(attr, _stamp(instance.version))
        return attr

    def control(self, inode: int, size: int | None) -> pyfuse3.EntryAttributes:
        """Return the attributes of a control file of `size` bytes, or of their directory (None)."""
        mode = stat.S_IFDIR | 0o555 if size is None else stat.S_IFREG | 0o444
        attr = self._attributes(inode, mode, 0.0)
        attr.st_size = size or 0
        return attr

    def text(self, inode: int, size: int, since: int, is_fixed: bool) -> pyfuse3.EntryAttributes:
        """Return the attributes of a text file, changed `since` (ns): kept by the kernel if it is fixed."""
        attr = self._attributes(inode, stat.S_IFREG | 0o444, _LONGEST_SECONDS)
        attr.st_size = size
        attr.attr_timeout = _LONGEST_SECONDS if is_fixed else 0.0
        _set_times(attr, since)
        return attr

    def _attributes(self, inode: int, mode: int, seconds: float) -> pyfuse3.EntryAttributes:
        attr = pyfuse3.EntryAttributes()
        attr.st_ino = pyfuse3.InodeT(inode)
        attr.st_mode = pyfuse3.ModeT(mode & ~self.umask)
        attr.st_uid, attr.st_gid = self.uid, self.gid
        attr.st_nlink = 1  # of a directory: "nobody counted"; with 2, find would not look into it
        attr.st_blksize = _IO_SIZE
        attr.attr_timeout = attr.entry_timeout = seconds
        return attr


def absent(seconds: float) -> pyfuse3.EntryAttributes:
    """Return the answer "there is no such name", which the kernel keeps for `seconds`."""
    attr = pyfuse3.EntryAttributes()
    attr.st_ino = pyfuse3.InodeT(0)
    attr.entry_timeout = seconds
    return attr


def kept_seconds(expires_in: float) -> float:
    """Return how long the kernel may keep what holds for `expires_in` seconds."""
    return min(max(expires_in, _SHORTEST_SECONDS), _LONGEST_SECONDS)


def _modified(node: Node) -> int:
    """Return a time that never changes while the content does not, in ns since 1970."""
    match node.record:
        case Series() as series:
            return _stamp(series.version)
        case Study(study_date=date() as day):
            return _nanoseconds(day)
        case _:
            return 0


@lru_cache(maxsize=1024)
def _stamp(version: str) -> int:
    return _nanoseconds(date.fromisoformat(version)) if version else 0


def _nanoseconds(day: date) -> int:
    return calendar.timegm(day.timetuple()) * 1_000_000_000


def _set_times(attr: pyfuse3.EntryAttributes, nanoseconds: int) -> None:
    attr.st_mtime_ns = attr.st_ctime_ns = attr.st_atime_ns = nanoseconds
