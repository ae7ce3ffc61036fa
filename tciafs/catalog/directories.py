"""The directories on disk: a row each, and their names, by layout, in a table of their own.

Names are made when a directory is listed, and when another layout first looks at it. They carry a digest
as a whole, which is compared once a mount.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from cachetools import LRUCache

from tciafs.catalog.difference import Put
from tciafs.catalog.expiry import expire_outdated
from tciafs.catalog.rows import (
    NODE,
    Entries,
    Found,
    Node,
    digest_of_names,
    insert_names,
    listed_at_of,
    node_in,
    put_nodes,
)
from tciafs.database import Damaged, Database
from tciafs.model import Record, inode_of
from tciafs.names import Layout, alias_of, names_of

SCHEMA = """
CREATE TABLE node (
    inode INTEGER PRIMARY KEY, parent INTEGER NOT NULL, kind INTEGER NOT NULL, record BLOB NOT NULL,
    digest BLOB NOT NULL
);
CREATE TABLE named (
    parent INTEGER NOT NULL, layout TEXT NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (parent, layout)
) WITHOUT ROWID;
CREATE TABLE name (
    parent INTEGER NOT NULL, layout TEXT NOT NULL, name TEXT NOT NULL, inode INTEGER NOT NULL,
    PRIMARY KEY (parent, layout, name)
) WITHOUT ROWID
"""
_ALIASES = "alias"  # the layout of the names that are found but not listed
_VERIFIED_KEPT = 50_000


class Unnamed(Exception):
    """This layout has not yet named the directory, which another one has listed: see `name_anew`."""

    def __init__(self, parent: int) -> None:
        super().__init__(parent)
        self.parent = parent


class Directories:
    """The rows of one archive's directories, as one layout shows them; used within transactions."""

    def __init__(self, database: Database, archive: str, layout: Layout) -> None:
        self._database = database
        self._archive = archive
        self._layout = layout
        # Of each directory, the listing that was verified since the mount began.
        self._verified: LRUCache[int, tuple[int, float | None]] = LRUCache(_VERIFIED_KEPT)

    def put(self, db: sqlite3.Connection, parent: int, records: Sequence[Record], put: Put) -> None:
        """Put what is listed of a directory: directories; note in `put` what that did."""
        inodes = [inode_of(self._archive, record) for record in records]
        known = put_nodes(db, parent, inodes, records)
        put.is_news |= bool(known)
        put.expired += expire_outdated(db, known, zip(inodes, records, strict=True))
        db.execute("DELETE FROM name WHERE parent = ?", (parent,))
        db.execute("DELETE FROM named WHERE parent = ?", (parent,))
        insert_names(db, parent, self._layout, zip(names_of(self._layout, records), inodes, strict=True))
        aliases = zip(map(alias_of, records), inodes, strict=True)
        insert_names(db, parent, _ALIASES, ((name, inode) for name, inode in aliases if name))

    def entries(self, db: sqlite3.Connection, parent: int) -> Entries:
        """Return the names and nodes of a directory, in the order of names."""
        self._verify(db, parent)
        query = (
            f"SELECT name, {NODE} FROM name LEFT JOIN node USING (inode)"
            " WHERE name.parent = ? AND layout = ? ORDER BY name"
        )
        return [(name, node_in(row)) for name, *row in db.execute(query, (parent, self._layout))]

    def find(self, db: sqlite3.Connection, parent: int, name: str) -> Found | None:
        """Return what stands under a name, shown or made of its UID."""
        self._verify(db, parent)
        query = (
            f"SELECT {NODE} FROM name LEFT JOIN node USING (inode)"
            " WHERE (name.parent, layout, name) = (?, ?, ?)"
        )
        scan = "SELECT 1 FROM name WHERE parent = ? AND layout = ? AND +name = ?"
        for layout in (self._layout, _ALIASES):
            row = db.execute(query, (parent, layout, name)).fetchone()
            if row:
                return Found(node_in(row), is_alias=layout == _ALIASES)
            if db.execute(scan, (parent, layout, name)).fetchone():
                raise Damaged(f"a name of directory {parent} is not found where it belongs")
        return None

    def name_of(self, db: sqlite3.Connection, node: Node) -> str | None:
        """Return the name under which a directory is shown, None when it no longer is."""
        self._verify(db, node.parent)
        query = "SELECT name FROM name WHERE (parent, layout, inode) = (?, ?, ?)"
        row = db.execute(query, (node.parent, self._layout, node.inode)).fetchone()
        return row[0] if row else None

    def _verify(self, db: sqlite3.Connection, parent: int) -> None:
        """Verify the names of a listed directory, once a mount; raise `Unnamed` where we have none."""
        listing = self._database.generation, listed_at_of(db, parent)  # another mount may have put a new one
        if listing[1] is None or self._verified.get(parent) == listing:
            return
        query = "SELECT layout, digest FROM named WHERE parent = ?"
        named = dict(db.execute(query, (parent,)).fetchall())
        for layout, digest in named.items():
            if digest != digest_of_names(db, parent, layout):
                raise Damaged(f"the names of directory {parent} are not those that were written")
        if _ALIASES not in named:
            raise Damaged(f"directory {parent} was listed, and has no names")
        if self._layout not in named:
            raise Unnamed(parent)
        if listing[1]:  # all that are expired were listed in 1970
            self._verified[parent] = listing

    def verify_again(self, parent: int) -> None:
        """Believe nothing of a directory's names at the next look."""
        self._verified.pop(parent, None)

    def name_anew(self, db: sqlite3.Connection, parent: int) -> None:
        """Name what another layout has listed of a directory."""
        query = f"SELECT DISTINCT {NODE} FROM name LEFT JOIN node USING (inode) WHERE name.parent = ?"
        found = [
            (node.inode, node.record) for node in map(node_in, db.execute(query, (parent,))) if node.record
        ]
        names = names_of(self._layout, [record for _, record in found])
        insert_names(db, parent, self._layout, zip(names, (inode for inode, _ in found), strict=True))
