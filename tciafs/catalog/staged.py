"""The records of an answer in whole while it comes: kept aside until the listings they make are complete.

They stand in a table of this connection alone. An answer that breaks off leaves nothing behind, and one
of hundreds of megabytes costs no memory.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence

import msgspec

from tciafs.archives.wire import distinct
from tciafs.catalog.rows import listed_at_of, node_of
from tciafs.catalog.store import Store
from tciafs.database import Lost
from tciafs.model import Patient, Series, Study

_TABLE = "CREATE TEMP TABLE IF NOT EXISTS staged (answer INTEGER, parent INTEGER, record BLOB)"
_INDEX = "CREATE INDEX IF NOT EXISTS temp.staged_parent ON staged (answer, parent)"
_RECORDS = "SELECT record FROM staged WHERE answer = ? AND parent = ?"
_LACKING = """
SELECT 1 FROM name WHERE parent = ? AND layout != 'alias'
    AND NOT EXISTS (SELECT 1 FROM staged WHERE answer = ? AND staged.parent = name.inode)
"""
_TURN_SECONDS = 0.03
_PARENTS = 100
_encode = msgspec.msgpack.Encoder().encode

Staging = Study | Series


class Staged:
    """What came of one answer, and what of it has become listings."""

    def __init__(self, store: Store, answer: int, kind: type[Staging], older_than: float) -> None:
        self._store = store
        self._generation = store.generation
        self._answer = answer
        self._kind = kind
        self._decode: Callable[[bytes], Staging] = msgspec.msgpack.Decoder(kind).decode
        self._older_than = older_than

    async def add(self, records: Sequence[Staging]) -> list[int]:
        """Keep records aside; return the studies that are complete with them, as far as that can be told.

        They have become listings.
        """
        self._check()
        rows = [(self._answer, self._store.inode_of(_parent_of(one)), _encode(one)) for one in records]
        return await self._store.run(lambda db: self._add(db, rows))

    async def lacks_any(self, parent: int) -> bool:
        """Tell whether nothing came for some directory in `parent`."""
        return await self._store.run(lambda db: bool(db.execute(_LACKING, (parent, self._answer)).fetchone()))

    async def publish_some(self) -> list[int]:
        """Make listings of what is left, now that the answer is complete, for as long as a turn lasts.

        Return their directories; none when all is done.
        """
        self._check()
        return await self._store.run(self._publish_some)

    async def discard(self) -> None:
        """Forget what is left."""
        await self._store.run(self._discard)

    def _check(self) -> None:
        if self._generation != self._store.generation:
            raise Lost("the catalog was begun anew while an answer came")

    def _add(self, db: sqlite3.Connection, rows: Sequence[tuple[int, int, bytes]]) -> list[int]:
        db.execute(_TABLE)
        db.execute(_INDEX)
        db.executemany("INSERT INTO staged VALUES (?, ?, ?)", rows)
        if self._kind is Study:  # nobody counts these
            return []
        parents = dict.fromkeys(parent for _, parent, _ in rows)
        return [parent for parent in parents if self._publish(db, parent, is_over=False)]

    def _publish_some(self, db: sqlite3.Connection) -> list[int]:
        ends_at = time.monotonic() + _TURN_SECONDS
        done: list[int] = []
        query = "SELECT DISTINCT parent FROM staged WHERE answer = ? LIMIT ?"
        for (parent,) in db.execute(query, (self._answer, _PARENTS)).fetchall():
            self._publish(db, parent, is_over=True)
            db.execute("DELETE FROM staged WHERE answer = ? AND parent = ?", (self._answer, parent))
            done.append(parent)
            if time.monotonic() > ends_at:
                break
        return done

    def _publish(self, db: sqlite3.Connection, parent: int, is_over: bool) -> bool:
        """Make a listing of what came for a directory, if that is all of it; tell whether it was.

        A listing that came meanwhile by itself is left alone.
        """
        node = node_of(db, parent)
        promised = node.record.series_count if node and isinstance(node.record, Study) else None
        if node is None or (promised is None and not is_over):
            return False
        found = db.execute(_RECORDS, (self._answer, parent)).fetchall()
        if len(found) < (promised or 1):
            return False
        records = distinct(self._decode(record) for (record,) in found)
        if len(records) < (promised or 1):
            return False
        listed_at = listed_at_of(db, parent)
        if listed_at is None or listed_at < self._older_than:
            self._store.replace_one(db, parent, records, time.time())
        db.execute("DELETE FROM staged WHERE answer = ? AND parent = ?", (self._answer, parent))
        return True

    def _discard(self, db: sqlite3.Connection) -> None:
        db.execute(_TABLE)
        db.execute(_INDEX)
        db.execute("DELETE FROM staged WHERE answer = ?", (self._answer,))


def _parent_of(record: Staging) -> Patient | Study:
    if isinstance(record, Study):
        return Patient(record.collection, record.patient_id)
    return Study(record.collection, record.patient_id, record.study_instance_uid)
