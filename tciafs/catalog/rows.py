"""Rows of the catalog as records, and records as rows, within a transaction.

Every row carries a digest by which its reader finds damage: it is never shown as news from the archive.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from tciafs.database import Damaged, digest_of
from tciafs.model import (
    ROOT_INODE,
    Collection,
    Kind,
    Patient,
    Record,
    Series,
    Study,
    key_of,
    kind_of,
)

NODE = "node.inode, node.parent, node.kind, node.record, node.digest"
_AT_ONCE = 500  # parameters of one query
_TYPES: dict[Kind, type[Record]] = {
    Kind.COLLECTION: Collection,
    Kind.PATIENT: Patient,
    Kind.STUDY: Study,
    Kind.SERIES: Series,
}
_DECODERS = {kind: msgspec.msgpack.Decoder(record) for kind, record in _TYPES.items()}
_decode_keys = msgspec.msgpack.Decoder(frozenset[tuple[str, ...]]).decode
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Node:
    """A directory or file of the tree; `record` is None for the root alone."""

    inode: int
    parent: int
    kind: Kind
    record: Record | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a name stands for; `is_alias` when it is shown under another name."""

    node: Node
    is_alias: bool


ROOT = Node(ROOT_INODE, ROOT_INODE, Kind.ROOT, None)

Entries = list[tuple[str, Node]]


@dataclass(frozen=True, slots=True)
class Listing:
    """What a directory held when it was listed (seconds since 1970), in the order of names."""

    directory: Node
    listed_at: float
    entries: Entries


Keys = frozenset[tuple[str, ...]]  # of records, see model.key_of


def put_nodes(
    db: sqlite3.Connection, parent: int, inodes: Sequence[int], records: Sequence[Record]
) -> dict[int, Record]:
    """Put the rows of a directory's records; return what was known of them, by inode number.

    Raise `RuntimeError` where two records have one inode number.
    """
    before = _known(db, inodes)
    known = dict(before)
    for inode, record in zip(inodes, records, strict=True):
        there = known.setdefault(inode, record)  # which may be of the same listing, too
        if key_of(there) != key_of(record):
            # It would show one directory in the place of another: refused, however unlikely.
            raise RuntimeError(f"{key_of(there)} and {key_of(record)} have the same inode number")
    rows = (
        (inode, parent, int(kind_of(record)), _encode(record))
        for inode, record in zip(inodes, records, strict=True)
    )
    put = "INSERT OR REPLACE INTO node VALUES (?, ?, ?, ?, ?)"
    db.executemany(put, ((*row, digest_of(*row)) for row in rows))
    return before


def _known(db: sqlite3.Connection, inodes: Sequence[int]) -> dict[int, Record]:
    """Return the records that have any of the inode numbers already."""
    known: dict[int, Record] = {}
    for first in range(0, len(inodes), _AT_ONCE):
        some = inodes[first : first + _AT_ONCE]
        query = f"SELECT {NODE} FROM node WHERE inode IN ({','.join('?' * len(some))})"
        nodes = (node_in(row) for row in db.execute(query, some))
        known.update((node.inode, node.record) for node in nodes if node.record)
    return known


def insert_names(db: sqlite3.Connection, parent: int, layout: str, named: Iterable[tuple[str, int]]) -> None:
    """Put the names of a directory, and the digest of them all."""
    entries = sorted(dict(named).items())
    rows = ((parent, str(layout), name, inode) for name, inode in entries)
    db.executemany("INSERT OR REPLACE INTO name VALUES (?, ?, ?, ?)", rows)
    put = (parent, str(layout), digest_of(parent, str(layout), entries))
    db.execute("INSERT OR REPLACE INTO named VALUES (?, ?, ?)", put)


def digest_of_names(db: sqlite3.Connection, parent: int, layout: str) -> bytes:
    """Return the digest of the names that a directory has now."""
    query = "SELECT name, inode FROM name WHERE parent = ? AND layout = ? ORDER BY name"
    return digest_of(parent, str(layout), db.execute(query, (parent, layout)).fetchall())


def listed_at_of(db: sqlite3.Connection, inode: int) -> float | None:
    """Return when the directory was listed."""
    query = "SELECT listed_at, digest FROM listing WHERE inode = ?"
    row = db.execute(query, (inode,)).fetchone()
    if row is None:
        return None
    if row[1] != digest_of(inode, row[0]):
        raise Damaged(f"when directory {inode} was listed is not what was written")
    return float(row[0])


def node_of(db: sqlite3.Connection, inode: int) -> Node | None:
    """Return what has the inode number."""
    row = db.execute(f"SELECT {NODE} FROM node WHERE inode = ?", (inode,)).fetchone()
    return node_in(row) if row else None


def node_in(row: Sequence[object]) -> Node:
    """Return what a row of `NODE` says."""
    *values, digest = row
    if digest != digest_of(*values):
        raise Damaged(f"the row of inode {values[0]} is not what was written")
    inode, parent, number, record = values
    kind = Kind(number)  # type: ignore[arg-type]
    return Node(inode, parent, kind, _DECODERS[kind].decode(record))  # type: ignore[arg-type]


def put_found(db: sqlite3.Connection, question: str, asked_at: float, found: Keys) -> None:
    """Put what a search found."""
    told = (question, float(asked_at), _encode(found))
    db.execute("INSERT OR REPLACE INTO search VALUES (?, ?, ?, ?)", (*told, digest_of(*told)))


def found_of(db: sqlite3.Connection, question: str) -> tuple[float, Keys] | None:
    """Return when a search was made, and what it found."""
    row = db.execute("SELECT * FROM search WHERE question = ?", (question,)).fetchone()
    if row is None:
        return None
    *told, digest = row
    if digest != digest_of(*told):
        raise Damaged("what a search found is not what was written")
    return told[1], _decode_keys(told[2])
