"""Terms of collections on disk: what the archive said of them, and what their listed series say."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from tciafs.catalog.rows import NODE, node_in
from tciafs.database import Damaged, Database, digest_of
from tciafs.model import Description, Record, Series, Study, Terms

_MOST_SERIES = 50_000  # looked at: more would hold up the listings for a second
_LISTED = """
WITH patient AS (SELECT DISTINCT inode FROM name WHERE parent = ?),
study AS (SELECT DISTINCT name.inode FROM patient JOIN name ON name.parent = patient.inode),
series AS (SELECT DISTINCT name.inode FROM study JOIN name ON name.parent = study.inode)
"""


@dataclass(frozen=True, slots=True)
class Said:
    """What the archive said of a collection; `series` counts all of it by terms, None where never asked."""

    description: Description
    series: list[tuple[Terms, int]] | None


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the listed series of a collection say, and of how many series the listed studies tell."""

    series: Mapping[Terms, int]
    series_count: int
    patients: int
    patients_listed: int


_encode = msgspec.msgpack.Encoder().encode
_decode_said = msgspec.msgpack.Decoder(Said).decode


class TermsStore:
    """The terms in the catalog's file; collections are named by their inode numbers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def said(self, collection: int) -> tuple[Said, float] | None:
        """Return what the archive said and when (seconds since 1970), None where it was never asked."""
        return await self._database.run(lambda db: _said(db, collection))

    async def keep(self, collection: int, said: Said, asked_at: float) -> None:
        """Keep what the archive said, in the place of what it said before."""
        told = (collection, float(asked_at), _encode(said))
        put = "INSERT OR REPLACE INTO terms VALUES (?, ?, ?, ?)"
        await self._database.run(lambda db: db.execute(put, (*told, digest_of(*told))))

    async def gathered(self, collection: int) -> Gathered:
        """Return what the listings that there are say."""
        return await self._database.run(lambda db: _gathered(db, collection))


def _said(db: sqlite3.Connection, collection: int) -> tuple[Said, float] | None:
    row = db.execute("SELECT * FROM terms WHERE collection = ?", (collection,)).fetchone()
    if row is None:
        return None
    *told, digest = row
    if digest != digest_of(*told):
        raise Damaged(f"what was said of collection {collection} is not what was written")
    return _decode_said(told[2]), told[1]


def _gathered(db: sqlite3.Connection, collection: int) -> Gathered:
    patients = "SELECT count(*), count(listing.inode) FROM patient LEFT JOIN listing USING (inode)"
    count, listed = db.execute(_LISTED + patients, (collection,)).fetchone()
    studies = _records(db, collection, f"SELECT {NODE} FROM study JOIN node USING (inode)")
    promised = sum(record.series_count or 0 for record in studies if isinstance(record, Study))
    series = _records(
        db, collection, f"SELECT {NODE} FROM series JOIN node USING (inode) LIMIT {_MOST_SERIES}"
    )
    terms = Counter(record.terms for record in series if isinstance(record, Series))
    return Gathered(terms, promised, count, listed)


def _records(db: sqlite3.Connection, collection: int, query: str) -> list[Record | None]:
    return [node_in(row).record for row in db.execute(_LISTED + query, (collection,))]
