"""The journal of the series that were read, in a file of its own: it outlives mounts, images and listings.

What is read is noted in memory (`filesystem.reads`) and kept here behind, at once where it is new. All
drives of an archive on one cache share the file.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec
import trio

from tciafs.catalog.catalog import Catalog
from tciafs.database import Damaged, Database, Lost, Unwritable, digest_of
from tciafs.filesystem.reads import Reads
from tciafs.model import Series

logger = logging.getLogger(__name__)

NAME = "journal.sqlite"
_VERSION = 1
_SCHEMA = """
CREATE TABLE read (
    series TEXT PRIMARY KEY, read_at REAL NOT NULL, record BLOB NOT NULL, digest BLOB NOT NULL
) WITHOUT ROWID
"""
_KEEP_SECONDS = 60.0
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Series).decode


class Journal:
    """What was read of one archive and account, in this mount and in all."""

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self.reads = Reads()
        self._database = database
        self._catalog = catalog
        self._series: dict[str, Series] = {}  # of this mount
        self._generation = database.generation
        self._kept_at: dict[str, float] = {}
        self._failures = 0  # in a row

    @staticmethod
    def open_file(path: Path) -> Database:
        """Open the file at `path`, begun anew where it cannot be used."""
        return Database.open(path, _SCHEMA, _VERSION)

    @property
    def lost(self) -> int:
        """Return how many series this mount read that the listings, begun anew, did not tell of so far."""
        return len(self.reads.last_at) - len(self._series)

    async def of_this_mount(self) -> list[Series]:
        """Return the series that were read since the mount began."""
        await self.keep()
        return list(self._series.values())

    async def since(self, when: float) -> list[Series]:
        """Return the series that drives of this archive and cache read at `when` or later."""
        await self.keep()
        found = await self._database.run(lambda db: _since(db, when))
        here = {uid: one for uid, one in self._series.items() if self.reads.last_at[uid] >= when}
        return list(({one.series_instance_uid: one for one in found} | here).values())

    async def keep_on(self) -> None:
        """Keep what is read, until cancelled: new series at once, times once a minute."""
        while True:
            with trio.move_on_after(_KEEP_SECONDS):
                await self.reads.has_new.wait()
            await self.keep()

    async def keep(self) -> None:
        """Keep what was read since this was last done; no reader fails where that cannot be."""
        self.reads.has_new = trio.Event()
        if self._generation != self._database.generation:  # what this mount read is kept again
            self._generation = self._database.generation
            self._kept_at.clear()
        news = {uid: at for uid, at in self.reads.last_at.items() if at > self._kept_at.get(uid, 0.0)}
        try:
            await self._look_up(news)
            rows = [(self._series[uid], at) for uid, at in news.items()]
            await self._database.run(lambda db: _put(db, rows))
        except Lost:  # and begun anew
            self.reads.has_new.set()
        except (sqlite3.DatabaseError, Unwritable) as exc:
            # It is tried again: only what fails again is told, and once.
            level = logging.WARNING if self._failures == 1 else logging.INFO
            logger.log(level, "what was read cannot be kept for 'tciafs cite --read': %s", exc)
            self._failures += 1
        else:
            self._kept_at |= news
            self._failures = 0

    async def _look_up(self, news: dict[str, float]) -> None:
        """Learn which series were read; drop from `news` those that lost listings do not tell."""
        for uid in [uid for uid in news if uid not in self._series]:
            node = await self._catalog.node(self.reads.inodes[uid])
            if node and isinstance(node.record, Series):
                self._series[uid] = node.record
            else:
                logger.info("series %s was read, but lost from the listings before that was noted", uid)
                del news[uid]


def _put(db: sqlite3.Connection, rows: Sequence[tuple[Series, float]]) -> None:
    put = "INSERT OR REPLACE INTO read VALUES (?, ?, ?, ?)"
    for series, read_at in rows:
        uid = series.series_instance_uid
        known = db.execute("SELECT read_at FROM read WHERE series = ?", (uid,)).fetchone()
        latest = max(read_at, *(known or (0.0,)))  # another mount may have read it later
        told = uid, latest, _encode(series)
        db.execute(put, (*told, digest_of(*told)))


def _since(db: sqlite3.Connection, when: float) -> list[Series]:
    found = []
    for *told, digest in db.execute("SELECT * FROM read WHERE read_at >= ?", (when,)):
        if digest != digest_of(*told):
            raise Damaged(f"what was noted of series {told[0]} is not what was written")
        found.append(_decode(told[2]))
    return found
