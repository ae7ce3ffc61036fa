"""Which listings are past their time, and which are known to hold beyond it.

A listing is out of date when the directory above it says otherwise: a study of more or fewer series, a
series of more or fewer images. It holds when the archive told all that has changed since, and it was not
among that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from tciafs.catalog.rows import listed_at_of
from tciafs.database import Damaged, Database, digest_of
from tciafs.model import Record, Series, Study

_AT_ONCE = 500  # in one turn of the database
_BELOW = """
WITH RECURSIVE below (inode) AS (
    SELECT name.inode FROM name JOIN listing USING (inode) WHERE name.parent = ?
    UNION SELECT name.inode FROM below JOIN name ON name.parent = below.inode
        JOIN listing ON listing.inode = name.inode
) SELECT inode FROM below
"""
_PATIENTS_LISTED = """
SELECT DISTINCT name.inode FROM name JOIN listing USING (inode) WHERE name.parent = ? AND layout != 'alias'
"""
_STUDIES_LISTED = """
SELECT DISTINCT name.inode, listed_at FROM name JOIN listing USING (inode)
WHERE name.parent = ? AND layout != 'alias'
"""


@dataclass(frozen=True, slots=True)
class Listed:
    """A study whose series were listed, and when (seconds since 1970)."""

    patient: int
    study: int
    listed_at: float


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What was listed from `since` on, and not expired meanwhile, was all there was `at` a later time."""

    since: float
    at: float

    def holds(self, listed_at: float) -> bool:
        """Tell whether this is true of a listing."""
        return self.since <= listed_at <= self.at


class Expiry:
    """What the catalog's file says of when its listings are out of date; all are named by inode numbers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def confirm(self, collection: int, confirmed: Confirmed) -> None:
        """Record that the series of a collection's studies are those that were listed."""
        told = (collection, confirmed.since, confirmed.at)
        put = "INSERT OR REPLACE INTO confirmed VALUES (?, ?, ?, ?)"
        await self._database.run(lambda db: db.execute(put, (*told, digest_of(*told))))

    async def confirmed(self, collection: int) -> Confirmed | None:
        """Return what was confirmed last."""
        return await self._database.run(lambda db: _confirmed(db, collection))

    async def listed_patients(self, collection: int) -> list[int]:
        """Return the patients of a collection whose studies were listed."""
        query = _PATIENTS_LISTED
        return await self._database.run(lambda db: [row[0] for row in db.execute(query, (collection,))])

    async def listed_studies(self, collection: int) -> list[Listed]:
        """Return the studies of a collection whose series were listed."""
        found: list[Listed] = []
        patients = await self.listed_patients(collection)
        for start in range(0, len(patients), _AT_ONCE):
            some = patients[start : start + _AT_ONCE]
            found += await self._database.run(partial(_listed, patients=some))
        return found

    async def expire(self, inodes: Iterable[int]) -> None:
        """Let listings be renewed at their next look."""
        left = iter(inodes)
        while some := list(islice(left, _AT_ONCE)):
            await self._database.run(partial(expire, inodes=some))


def expire(db: sqlite3.Connection, inodes: Sequence[int]) -> None:
    """Make listings those of 1970, as far as there are any."""
    put = "UPDATE listing SET listed_at = 0, digest = ? WHERE inode = ?"
    db.executemany(put, ((digest_of(inode, 0.0), inode) for inode in inodes))


def expire_below(db: sqlite3.Connection, parent: int) -> list[int]:
    """Expire the listings of everything below a directory; return whose they were."""
    below = [row[0] for row in db.execute(_BELOW, (parent,))]
    expire(db, below)
    return below


def expire_outdated(
    db: sqlite3.Connection, known: Mapping[int, Record], now: Iterable[tuple[int, Record]]
) -> list[int]:
    """Expire the listings of which the directory above says now what they do not; return whose they were."""
    outdated = [inode for inode, record in now if _is_outdated(db, inode, known.get(inode), record)]
    expire(db, outdated)
    return outdated


def _is_outdated(db: sqlite3.Connection, inode: int, before: Record | None, now: Record) -> bool:
    if isinstance(now, Series) and isinstance(before, Series):
        return (before.image_count, before.file_size) != (now.image_count, now.file_size)
    if isinstance(now, Study) and before and now.series_count is not None and listed_at_of(db, inode):
        count = "SELECT count(DISTINCT inode) FROM name WHERE parent = ?"
        return bool(db.execute(count, (inode,)).fetchone()[0] != now.series_count)
    return False


def _listed(db: sqlite3.Connection, patients: Sequence[int]) -> list[Listed]:
    return [
        Listed(patient, study, listed_at)
        for patient in patients
        for study, listed_at in db.execute(_STUDIES_LISTED, (patient,))
    ]


def _confirmed(db: sqlite3.Connection, collection: int) -> Confirmed | None:
    row = db.execute("SELECT * FROM confirmed WHERE collection = ?", (collection,)).fetchone()
    if row is None:
        return None
    *told, digest = row
    if digest != digest_of(*told):
        raise Damaged(f"what was confirmed of collection {collection} is not what was written")
    return Confirmed(*told[1:])
