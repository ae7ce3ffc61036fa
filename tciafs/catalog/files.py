"""The files of series on disk: one row for all of a series, their names made when it is read.

A row has what was listed last, and what had been listed before: an open file keeps its attributes when
the archive lists it no more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec

from tciafs.catalog.rows import Found, Node
from tciafs.database import Damaged, digest_of
from tciafs.model import Instance, Kind, inodes_of, key_of, series_of
from tciafs.names import Layout, alias_of, names_of

SCHEMA = """
CREATE TABLE files (
    series INTEGER PRIMARY KEY, put_at REAL NOT NULL, records BLOB NOT NULL, digest BLOB NOT NULL
)
"""
_PUT = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)"
_GET = "SELECT * FROM files WHERE series = ?"
# A series that was filed elsewhere since has two rows: the later one is believed.
_GET_NEAR = "SELECT * FROM files WHERE series BETWEEN ? AND ? ORDER BY put_at DESC"

_File = tuple[str, int | None, int | None, int]
_Records = tuple[str, str, list[_File], list[_File]]  # SeriesInstanceUID, version, listed, listed before
_Row = tuple[int, float, bytes, bytes]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Records).decode


@dataclass(frozen=True)
class FileListing:
    """What the row of a series says: the files that are shown, by name, and all it knows, by inode number."""

    series: int
    digest: bytes
    shown: Mapping[str, Node]
    nodes: Mapping[int, Node]

    def find(self, name: str) -> Found | None:
        """Return what stands under a name, shown or made of its UID."""
        if shown := self.shown.get(name):
            return Found(shown, is_alias=False)
        alias = self._aliases.get(name)
        return Found(alias, is_alias=True) if alias else None

    @cached_property
    def _aliases(self) -> Mapping[str, Node]:
        named = ((alias_of(node.record), node) for node in self.shown.values() if node.record)
        return {alias: node for alias, node in named if alias}

    def name_of(self, inode: int) -> str | None:
        """Return the name under which a file is shown, None when it no longer is."""
        return next((name for name, node in self.shown.items() if node.inode == inode), None)


class Files:
    """The rows of one archive's series, as one layout shows them; used within transactions."""

    def __init__(self, archive: str, layout: Layout) -> None:
        self._archive = archive
        self._layout = layout
        self._latest: FileListing | None = None  # many names of one are looked up one after the other

    def put(self, db: sqlite3.Connection, series: int, instances: Sequence[Instance], put_at: float) -> bool:
        """Put what is listed of a series (seconds since 1970); tell whether any of it was known.

        Raise `RuntimeError` where two files have one inode number.
        """
        rows = self._rows_near(db, next(inodes_of(self._archive, instances)))
        near = {row[0]: [each for part in _decoded(row) for each in part] for row in rows}
        known = dict(self._numbered(each for there in near.values() for each in there))
        listed = self._by_inode(instances, known)
        gone = [each for inode, each in self._numbered(near.get(series, ())) if inode not in listed]
        records = _encoded(list(listed.values()), gone)
        put_at = float(put_at)
        db.execute(_PUT, (series, put_at, records, digest_of(series, put_at, records)))
        return not known.keys().isdisjoint(listed)

    def listing(self, db: sqlite3.Connection, series: int) -> FileListing | None:
        """Return the files of a series, None where none were listed."""
        row = db.execute(_GET, (series,)).fetchone()
        return self._read(row) if row else None

    def node(self, db: sqlite3.Connection, inode: int) -> Node | None:
        """Return the file that has the inode number."""
        for row in self._rows_near(db, inode):
            known = (number for part in _decoded(row) for number, _ in self._numbered(part))
            if inode in known:
                return self._read(row).nodes[inode]
        return None

    def _by_inode(self, instances: Iterable[Instance], known: Mapping[int, Instance]) -> dict[int, Instance]:
        found: dict[int, Instance] = {}
        for inode, each in self._numbered(instances):
            there = found.get(inode) or known.get(inode, each)
            if key_of(there) != key_of(each):
                # It would show one file in the place of another: refused, however unlikely.
                raise RuntimeError(f"{key_of(there)} and {key_of(each)} have the same inode number")
            found[inode] = each
        return found

    def _rows_near(self, db: sqlite3.Connection, inode: int) -> list[_Row]:
        """Return the rows that may know of a file, latest first: one, or some where 100,000s are listed."""
        near = series_of(inode)
        return db.execute(_GET_NEAR, (near[0], near[-1])).fetchall()

    def _read(self, row: _Row) -> FileListing:
        series, *_, digest = row
        if self._latest and (self._latest.series, self._latest.digest) == (series, digest):
            return self._latest
        listed, before = _decoded(row)
        numbered = self._numbered(listed + before)
        nodes = [Node(inode, series, Kind.INSTANCE, each) for inode, each in numbered]
        shown = zip(names_of(self._layout, listed), nodes, strict=False)
        self._latest = FileListing(series, digest, dict(sorted(shown)), {node.inode: node for node in nodes})
        return self._latest

    def _numbered(self, instances: Iterable[Instance]) -> Iterator[tuple[int, Instance]]:
        some = list(instances)
        return zip(inodes_of(self._archive, some), some, strict=True)


def _encoded(listed: Sequence[Instance], before: Sequence[Instance]) -> bytes:
    uid, version = listed[0].series_instance_uid, listed[0].version
    if any((each.series_instance_uid, each.version) != (uid, version) for each in (*listed, *before)):
        raise RuntimeError(f"files of another series, or version, than {uid} are listed with it")
    files = [
        [(each.sop_instance_uid, each.instance_number, each.size, each.estimate) for each in part]
        for part in (listed, before)
    ]
    return _encode((uid, version, *files))


def _decoded(row: _Row) -> tuple[list[Instance], list[Instance]]:
    """Return what is listed of a series, and what was before; raise `Damaged` where a row says otherwise."""
    *values, records, digest = row
    if digest != digest_of(*values, records):
        raise Damaged(f"the row of the files of series {row[0]} is not what was written")
    uid, version, *parts = _decode(records)
    listed, before = (
        [Instance(uid, sop, version, number, size, estimate) for sop, number, size, estimate in part]
        for part in parts
    )
    return listed, before
