"""The listings on disk: one SQLite row for each directory that was listed, one for all files of a series.

Rows are found by inode number. Names of directories depend on the layout, so they stand in a table of
their own, made when a layout first looks at a directory (those of files are made of their row). A row
outlives the listing that brought it. Every row, and the names of a directory as a whole, carry a digest:
damage on disk is never shown as news from the archive.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from tciafs.catalog import directories, files
from tciafs.catalog.difference import Difference, Put
from tciafs.catalog.directories import Directories, Unnamed
from tciafs.catalog.expiry import expire_below
from tciafs.catalog.files import Files
from tciafs.catalog.rows import (
    NODE,
    ROOT,
    Entries,
    Found,
    Keys,
    Listing,
    Node,
    found_of,
    listed_at_of,
    node_in,
    node_of,
    put_found,
)
from tciafs.database import Database, digest_of
from tciafs.model import ROOT_INODE, Instance, Record, inode_of, is_file
from tciafs.names import Layout

_VERSION = 5
_SCHEMA = f"""
{directories.SCHEMA};
{files.SCHEMA};
CREATE TABLE listing (inode INTEGER PRIMARY KEY, listed_at REAL NOT NULL, digest BLOB NOT NULL);
CREATE TABLE confirmed (
    collection INTEGER PRIMARY KEY, since REAL NOT NULL, at REAL NOT NULL, digest BLOB NOT NULL
);
CREATE TABLE search (
    question TEXT PRIMARY KEY, asked_at REAL NOT NULL, found BLOB NOT NULL, digest BLOB NOT NULL
);
CREATE TABLE terms (
    collection INTEGER PRIMARY KEY, asked_at REAL NOT NULL, said BLOB NOT NULL, digest BLOB NOT NULL
)
"""
_TURN_SECONDS = 0.03  # of one transaction: the database has one thread for all who ask
_COUNT = """
SELECT count(*), count(listing.inode) FROM name
LEFT JOIN listing ON listing.inode = name.inode AND listing.listed_at >= ?
WHERE name.parent = ? AND layout = ?
"""
# Some patients at a time, in the order of names: those who walk come that way.
_NEAR = f"""
SELECT {NODE} FROM (
    SELECT inode FROM name WHERE parent = ?1 AND layout = ?2
        AND name >= (SELECT name FROM name WHERE parent = ?1 AND layout = ?2 AND inode = ?3)
    ORDER BY name LIMIT 500
) AS patient
CROSS JOIN name AS study ON study.parent = patient.inode AND study.layout = ?2
CROSS JOIN name AS series ON series.parent = study.inode AND series.layout = ?2
CROSS JOIN node ON node.inode = series.inode
WHERE NOT EXISTS (SELECT * FROM listing WHERE listing.inode = series.inode)
LIMIT 3000
"""
T = TypeVar("T")


class Store:
    """The catalog's file, for one archive and one layout."""

    def __init__(self, database: Database, archive: str, layout: Layout) -> None:
        self.database = database
        self._archive = archive
        self._layout = layout
        self._directories = Directories(database, archive, layout)
        self._files = Files(archive, layout)

    @classmethod
    def open(cls, path: Path, archive: str, layout: Layout) -> Store:
        """Open the catalog at `path`, begun anew where it cannot be used."""
        return cls(Database.open(path, _SCHEMA, _VERSION), archive, layout)

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    @property
    def generation(self) -> int:
        """Return a number that changes when all listings were lost, since their file was damaged."""
        return self.database.generation

    def inode_of(self, record: Record) -> int:
        """Return the inode number of a record."""
        return inode_of(self._archive, record)

    async def node(self, inode: int) -> Node | None:
        """Return what has the inode number, None when nothing was ever listed with it."""
        if inode == ROOT_INODE:
            return ROOT
        get = self._files.node if is_file(inode) else node_of
        return await self.database.run(lambda db: get(db, inode))

    async def listed_at(self, inode: int) -> float | None:
        """Return when the directory was listed (seconds since 1970), None when it never was."""
        return await self.database.run(lambda db: listed_at_of(db, inode))

    async def children(self, parent: int) -> Entries:
        """Return the names and nodes of a listed directory, in the order of names."""
        return await self._read(lambda db: self._children(db, parent))

    async def listings(self, directory: Node, most: int) -> list[Listing]:
        """Return the listing of a directory, and of those below it: none more once `most` entries are had."""
        return await self._read(lambda db: self._listings(db, directory, most))

    async def child(self, parent: int, name: str) -> Found | None:
        """Return what a name in a listed directory stands for."""
        return await self._read(lambda db: self._child(db, parent, name))

    async def unlisted(self, parent: int) -> list[Node]:
        """Return the nodes of a listed directory that were never listed themselves."""
        query = (
            f"SELECT DISTINCT {NODE} FROM name JOIN node USING (inode) WHERE name.parent = ?"
            " AND NOT EXISTS (SELECT * FROM listing WHERE listing.inode = node.inode)"
        )
        return await self.database.run(lambda db: [node_in(row) for row in db.execute(query, (parent,))])

    async def name_of(self, node: Node) -> str | None:
        """Return the name under which the node is shown, None when it no longer is."""
        return await self._read(lambda db: self._name_of(db, node))

    async def is_listed(self, node: Node) -> bool:
        """Tell whether the node has a name, in whatever layout."""
        return await self.name_of(node) is not None

    async def standing(self, node: Node) -> tuple[float | None, bool]:
        """Return when the directory of a node was listed, and whether the node has a name there."""
        return await self._read(
            lambda db: (listed_at_of(db, node.parent), self._name_of(db, node) is not None)
        )

    async def count_unlisted(self, parent: int, older_than: float) -> tuple[int, int]:
        """Return how many a listed directory has, and how many of them have no listing, or an older one."""
        row = await self.database.run(
            lambda db: db.execute(_COUNT, (older_than, parent, self._layout)).fetchone()
        )
        return row[0], row[0] - row[1]

    async def unlisted_near(self, collection: int, patient: int) -> list[Node]:
        """Return the series of a patient and of the next ones in a collection that were never listed."""
        return await self.database.run(
            lambda db: [node_in(row) for row in db.execute(_NEAR, (collection, self._layout, patient))]
        )

    async def replace(
        self,
        listings: Mapping[int, Sequence[Record]],
        listed_at: float,
        note: Callable[[Put], object] = lambda put: None,
    ) -> None:
        """Put the listings of directories, by inode number, in the place of what was known of them.

        Each is put as a whole; others of the database's users may have their turn between two of them.
        `note` is told what was put, turn by turn: what follows may fail.
        """
        left = iter(listings.items())
        is_over = False
        while not is_over:
            put = Put()
            is_over = await self.database.write(partial(self._replace_some, left, listed_at, put))
            note(put)

    async def expire_below(self, parent: int) -> list[int]:
        """Make the listings of everything below a directory those of 1970; return whose they were."""
        return await self.database.run(lambda db: expire_below(db, parent))

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` returns, done in the worker thread as one transaction."""
        return await self.database.write(work)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` finds, named for this layout where that has not looked before."""

        def read(db: sqlite3.Connection) -> T:
            while True:
                try:
                    return work(db)
                except Unnamed as exc:
                    db.rollback()
                    db.execute("BEGIN IMMEDIATE")
                    self._directories.name_anew(db, exc.parent)
                    db.commit()
                    db.execute("BEGIN")

        return await self.database.read(read)

    def replace_one(
        self, db: sqlite3.Connection, parent: int, records: Sequence[Record], listed_at: float, put: Put
    ) -> None:
        """Put the listing of one directory, within a transaction; note in `put` what that did."""
        before = self._before(db, parent)
        instances = [record for record in records if isinstance(record, Instance)]
        if instances:
            put.is_news |= self._files.put(db, parent, instances, listed_at)
        else:
            self._directories.put(db, parent, records, put)
        told = (parent, listed_at, digest_of(parent, float(listed_at)))
        db.execute("INSERT OR REPLACE INTO listing VALUES (?, ?, ?)", told)
        put.listed[parent] = listed_at
        if before:
            put.is_news = True
            put.changed[parent] = Difference.between(before, self._children(db, parent))

    def _before(self, db: sqlite3.Connection, parent: int) -> Entries:
        try:
            return self._children(db, parent)
        except Unnamed:  # another layout has listed it since this one was shown
            self._directories.name_anew(db, parent)
            before = self._children(db, parent)
            self._directories.verify_again(parent)  # all of this may be rolled back
            return before

    async def found(self, question: str) -> tuple[float, Keys] | None:
        """Return when a search was made (seconds since 1970) and what it found, None when it never was."""
        return await self.database.run(lambda db: found_of(db, question))

    async def put_found(self, question: str, asked_at: float, found: Keys) -> None:
        """Put what a search found in the place of what it found before."""
        await self.database.run(lambda db: put_found(db, question, asked_at, found))

    def _children(self, db: sqlite3.Connection, parent: int) -> Entries:
        there = self._files.listing(db, parent)
        return list(there.shown.items()) if there else self._directories.entries(db, parent)

    def _child(self, db: sqlite3.Connection, parent: int, name: str) -> Found | None:
        there = self._files.listing(db, parent)
        return there.find(name) if there else self._directories.find(db, parent, name)

    def _name_of(self, db: sqlite3.Connection, node: Node) -> str | None:
        if not is_file(node.inode):
            return self._directories.name_of(db, node)
        there = self._files.listing(db, node.parent)
        return there.name_of(node.inode) if there else None

    def _listings(self, db: sqlite3.Connection, directory: Node, most: int) -> list[Listing]:
        found: list[Listing] = []
        left = deque([directory])
        while left and most > 0:
            node = left.popleft()
            listed_at = listed_at_of(db, node.inode)
            if listed_at is not None:
                found.append(Listing(node, listed_at, self._children(db, node.inode)))
                most -= len(found[-1].entries)
                left.extend(child for _, child in found[-1].entries if not is_file(child.inode))
        return found

    def _replace_some(
        self,
        left: Iterator[tuple[int, Sequence[Record]]],
        listed_at: float,
        put: Put,
        db: sqlite3.Connection,
    ) -> bool:
        """Put listings for as long as a turn lasts; tell whether none is left."""
        ends_at = time.monotonic() + _TURN_SECONDS
        for parent, records in left:
            self.replace_one(db, parent, records, listed_at, put)
            if time.monotonic() > ends_at:
                return False
        return True
