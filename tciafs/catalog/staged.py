"""The records of an answer in whole while it comes: kept aside until the listings they make are complete.

They stand in a table of this connection alone. An answer that breaks off leaves nothing behind, and one
of hundreds of megabytes costs no memory.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import msgspec
import trio

from tciafs.archives.base import BadAnswer
from tciafs.archives.wire import distinct
from tciafs.catalog.difference import Put
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
_PART = 1_000  # records put aside in one transaction
_ANSWERS = itertools.count(1)
_encode = msgspec.msgpack.Encoder().encode

Staging = Study | Series


async def bring(
    staged: Staged,
    answer: AbstractAsyncContextManager[AsyncIterator[Sequence[Staging]]],
    note: Callable[[Put], None],
    parent: int | None = None,
) -> int:
    """Make listings of an answer; return how many series its studies promise.

    `note` is told what was put, and called with each part that comes. Each directory in `parent` must have
    got something: nothing in this tree is empty.
    """
    promised = 0
    pending: list[Staging] = []
    try:
        async with answer as parts:
            async for records in parts:
                note(Put())
                promised += sum(one.series_count or 1 for one in records if isinstance(one, Study))
                pending += records
                if len(pending) >= _PART:
                    note(await staged.add(pending))
                    pending.clear()
        note(await staged.add(pending))
        if parent is not None and await staged.lacks_any(parent):
            raise BadAnswer("the studies of a collection in whole: some patients have none")
        while put := await staged.publish_some():
            note(put)
    finally:
        with trio.CancelScope(shield=True):  # it would fill the disk
            await staged.discard()
    return promised


class Staged:
    """What came of one answer, and what of it has become listings."""

    def __init__(self, store: Store, kind: type[Staging], older_than: float) -> None:
        """Let what is put take the place of listings older than a time alone."""
        self._store = store
        self._generation = store.generation
        self._answer = next(_ANSWERS)
        self._kind = kind
        self._decode: Callable[[bytes], Staging] = msgspec.msgpack.Decoder(kind).decode
        self._older_than = older_than

    async def add(self, records: Sequence[Staging]) -> Put:
        """Keep records aside; studies that are complete with them, as far as that can be told, are put."""
        self._check()
        rows = [(self._answer, self._store.inode_of(_parent_of(one)), _encode(one)) for one in records]
        return await self._store.write(lambda db: self._add(db, rows))

    async def lacks_any(self, parent: int) -> bool:
        """Tell whether nothing came for some directory in `parent`."""
        return await self._store.database.run(
            lambda db: bool(db.execute(_LACKING, (parent, self._answer)).fetchone())
        )

    async def publish_some(self) -> Put | None:
        """Put what is left, now that the answer is complete, for as long as a turn lasts.

        Return None when all is done.
        """
        self._check()
        return await self._store.write(self._publish_some)

    async def discard(self) -> None:
        """Forget what is left."""
        await self._store.database.run(self._discard)

    def _check(self) -> None:
        if self._generation != self._store.generation:
            raise Lost("the catalog was begun anew while an answer came")

    def _add(self, db: sqlite3.Connection, rows: Sequence[tuple[int, int, bytes]]) -> Put:
        db.execute(_TABLE)
        db.execute(_INDEX)
        db.executemany("INSERT INTO staged VALUES (?, ?, ?)", rows)
        put = Put()
        if self._kind is Series:  # nobody counts studies
            for parent in dict.fromkeys(parent for _, parent, _ in rows):
                self._publish(db, parent, put, is_over=False)
        return put

    def _publish_some(self, db: sqlite3.Connection) -> Put | None:
        ends_at = time.monotonic() + _TURN_SECONDS
        put = Put()
        query = "SELECT DISTINCT parent FROM staged WHERE answer = ? LIMIT ?"
        parents = db.execute(query, (self._answer, _PARENTS)).fetchall()
        for (parent,) in parents:
            self._publish(db, parent, put, is_over=True)
            db.execute("DELETE FROM staged WHERE answer = ? AND parent = ?", (self._answer, parent))
            if time.monotonic() > ends_at:
                break
        return put if parents else None

    def _publish(self, db: sqlite3.Connection, parent: int, put: Put, is_over: bool) -> None:
        """Put what came for a directory, if that is all of it; a newer listing is left alone."""
        node = node_of(db, parent)
        promised = node.record.series_count if node and isinstance(node.record, Study) else None
        if node is None or (promised is None and not is_over):
            return
        found = db.execute(_RECORDS, (self._answer, parent)).fetchall()
        if len(found) < (promised or 1):
            return
        records = distinct(self._decode(record) for (record,) in found)
        if len(records) < (promised or 1):
            return
        listed_at = listed_at_of(db, parent)
        if listed_at is None or listed_at < self._older_than:
            self._store.replace_one(db, parent, records, time.time(), put)
        else:
            put.listed[parent] = listed_at
        db.execute("DELETE FROM staged WHERE answer = ? AND parent = ?", (self._answer, parent))

    def _discard(self, db: sqlite3.Connection) -> None:
        db.execute(_TABLE)
        db.execute(_INDEX)
        db.execute("DELETE FROM staged WHERE answer = ?", (self._answer,))


def _parent_of(record: Staging) -> Patient | Study:
    if isinstance(record, Study):
        return Patient(record.collection, record.patient_id)
    return Study(record.collection, record.patient_id, record.study_instance_uid)
