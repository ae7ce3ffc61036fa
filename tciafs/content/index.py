"""What is known of each object that was ever fetched: its true size, its digests, whether it is on disk.

A row outlives the file: a size once learned is never estimated again. An object is on disk when its
row says so; a file without such a row is nobody's. Objects of which some blocks are there, and others
are still to be fetched, have rows of their own.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tciafs.content.blocks import DIGEST_BYTES, block_count, bytes_there, put_digest
from tciafs.database import Damaged, Database, Lost, Unwritable, digest_of
from tciafs.model import Instance

logger = logging.getLogger(__name__)

_VERSION = 5
_SCHEMA = """
CREATE TABLE object (
    key TEXT PRIMARY KEY, series TEXT NOT NULL, size INTEGER NOT NULL, md5 TEXT NOT NULL,
    digests BLOB NOT NULL, digest BLOB NOT NULL, on_disk INTEGER NOT NULL, last_used REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX object_series ON object (series);
CREATE INDEX object_last_used ON object (last_used, size) WHERE on_disk;
CREATE TABLE partial (
    key TEXT PRIMARY KEY, size INTEGER NOT NULL, digests BLOB NOT NULL, held INTEGER NOT NULL,
    digest BLOB NOT NULL, last_used REAL NOT NULL
) WITHOUT ROWID
"""
_COLUMNS = "key, series, size, md5, digests, digest, on_disk"
_PUT = """
INSERT INTO object VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET series = excluded.series, size = excluded.size, md5 = excluded.md5,
    digests = excluded.digests, digest = excluded.digest, on_disk = excluded.on_disk,
    last_used = excluded.last_used
WHERE excluded.on_disk OR NOT object.on_disk
"""
_OLDEST = """
SELECT last_used, key, size FROM object WHERE on_disk UNION ALL SELECT last_used, key, held FROM partial
ORDER BY last_used LIMIT ?
"""
_TOTALS = """
SELECT count(*), total(size) FROM
(SELECT size FROM object WHERE on_disk UNION ALL SELECT held FROM partial)
"""


def object_key(instance: Instance) -> str:
    """Return the key of an instance's bytes: a series submitted again has other objects."""
    return f"{instance.sop_instance_uid}@{instance.version}"


@dataclass(frozen=True, slots=True)
class Stored:
    """An object: `size` in bytes, `md5` of its content in hex digits, `digests` of its blocks in a row."""

    key: str
    series: str
    size: int
    md5: str
    digests: bytes
    on_disk: bool


class Index:
    """The rows of all objects of one archive and account."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_unwritable = False

    @classmethod
    def open(cls, path: Path, note_loss: Callable[[], object] = int) -> Index:
        """Open the index at `path`, begun anew where it cannot be used: `note_loss` is called then."""
        return cls(Database.open(path, _SCHEMA, _VERSION, note_loss))

    @classmethod
    def open_anothers(cls, path: Path) -> Index:
        """Open an index that may be another mount's, and leave it as it is where it cannot be used.

        Raise `sqlite3.Error` then: setting it aside is for the mount whose index it is.
        """
        uri = f"{path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != _VERSION:
                raise sqlite3.DatabaseError(f"it is of layout {version}, not {_VERSION}")
        except BaseException:
            connection.close()
            raise
        return cls(Database(connection))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    async def get(self, key: str) -> Stored | None:
        """Return what is known of an object."""
        query = f"SELECT {_COLUMNS} FROM object WHERE key = ?"
        found = await self._found(query, key)
        return found[0] if found else None

    async def of_series(self, series_instance_uid: str) -> dict[str, Stored]:
        """Return what is known of the objects of a series, by key."""
        query = f"SELECT {_COLUMNS} FROM object WHERE series = ?"
        return {stored.key: stored for stored in await self._found(query, series_instance_uid)}

    async def on_disk(self) -> list[Stored]:
        """Return all objects that are on disk."""
        return await self._found(f"SELECT {_COLUMNS} FROM object WHERE on_disk")

    async def put(self, stored: Stored) -> None:
        """Record an object whose file was just committed, or whose size was just learned.

        What is known of a file that another mount committed meanwhile is kept: it would be nobody's.
        """
        told = (stored.key, stored.series, stored.size, stored.md5, stored.digests)
        row = (*told, digest_of(*told), stored.on_disk, time.time())
        await self._database.run(lambda db: db.execute(_PUT, row))
        self._is_unwritable = False

    def tell_unwritable(self, what: str, exc: Exception) -> None:
        """Warn that something cannot be recorded: once, until something is again."""
        level = logging.INFO if self._is_unwritable else logging.WARNING
        logger.log(level, "%s cannot be recorded, so it is not kept: %s", what, exc)
        self._is_unwritable = True

    async def blocks(self, key: str) -> bytes:
        """Return the digests of the blocks of an object that are on disk, `MISSING` for the others."""
        stored = await self.get(key)
        if stored is not None and stored.on_disk:
            return stored.digests
        return (await self._database.run(lambda db: _partial(db, key))).digests

    async def put_block(self, key: str, size: int, number: int, digest: bytes) -> None:
        """Record a block whose bytes are on disk, or with `MISSING` one whose bytes are not."""
        await self._database.run(lambda db: _put_block(db, key, size, number, digest))

    async def drop_blocks(self, keys: Sequence[str]) -> None:
        """Record that no block of objects that are not whole is on disk."""
        await self._note("DELETE FROM partial WHERE key = ?", [(key,) for key in keys])

    async def partial(self) -> list[Stored]:
        """Return all objects of which only some blocks are on disk, without series and MD5."""
        query = "SELECT key FROM partial"
        return await self._database.run(
            lambda db: [_partial(db, key) for (key,) in db.execute(query).fetchall()]
        )

    async def note_gone(self, keys: Sequence[str]) -> None:
        """Record that the files of objects are no longer on disk; what is known of them stays."""
        query = "UPDATE object SET on_disk = 0 WHERE key = ?"
        await self._note(query, [(key,) for key in keys])

    async def note_evicted(self, evicted: Sequence[tuple[float, str]]) -> None:
        """Record that files were removed, unless an object was used or committed after it was chosen."""
        await self._note("UPDATE object SET on_disk = 0 WHERE last_used = ? AND key = ?", evicted)
        await self._note("DELETE FROM partial WHERE last_used = ? AND key = ?", evicted)

    async def note_used(self, used: Mapping[str, float]) -> None:
        """Record when objects were last opened, in seconds since 1970."""
        for table in ("object", "partial"):  # another mount may know better
            query = f"UPDATE {table} SET last_used = max(last_used, ?) WHERE key = ?"
            await self._note(query, [(when, key) for key, when in used.items()])

    async def least_recently_used(self, count: int) -> list[tuple[float, str, int]]:
        """Return when objects on disk were last used, with their keys and bytes: the oldest `count`."""
        return await self._database.run(lambda db: db.execute(_OLDEST, (count,)).fetchall())

    async def totals(self) -> tuple[int, int]:
        """Return the number of objects on disk and the sum of their bytes."""
        return await self._database.run(_totals)

    async def _found(self, query: str, *values: str) -> list[Stored]:
        return await self._database.run(lambda db: [_stored(row) for row in db.execute(query, values)])

    async def _note(self, query: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Record what may be lost: no reader fails because of a full disk or another's index."""
        try:
            await self._database.run(lambda db: db.executemany(query, rows))
        except (sqlite3.DatabaseError, Unwritable, Lost) as exc:
            self.tell_unwritable("what was last used", exc)


def _totals(db: sqlite3.Connection) -> tuple[int, int]:
    files, size = db.execute(_TOTALS).fetchone()
    return int(files), int(size)


def _partial(db: sqlite3.Connection, key: str) -> Stored:
    """Return what is known of an object's blocks; no digests where there are none."""
    row = db.execute("SELECT key, size, digests, held, digest FROM partial WHERE key = ?", (key,)).fetchone()
    if row is None:
        return Stored(key, "", 0, "", b"", on_disk=False)
    *told, digest = row
    if digest != digest_of(*told):
        raise Damaged(f"the row of {key} is not what was written")
    return Stored(key, "", row[1], "", row[2], on_disk=False)


def _put_block(db: sqlite3.Connection, key: str, size: int, number: int, digest: bytes) -> None:
    db.execute("BEGIN IMMEDIATE")  # another mount may bring another block, or have completed the object
    if db.execute("SELECT 1 FROM object WHERE key = ? AND on_disk", (key,)).fetchone():
        return
    before = _partial(db, key).digests or bytes(DIGEST_BYTES * block_count(size))
    digests = put_digest(before, number, digest)
    told = (key, size, digests, bytes_there(digests, size))
    row = (*told, digest_of(*told), time.time())
    db.execute("INSERT OR REPLACE INTO partial VALUES (?, ?, ?, ?, ?, ?)", row)


def _stored(row: Sequence[object]) -> Stored:
    *told, digest, on_disk = row
    if digest != digest_of(*told):
        raise Damaged(f"the row of {told[0]} is not what was written")
    key, series, size, md5, digests = told
    return Stored(key, series, size, md5, digests, bool(on_disk))  # type: ignore[arg-type]
