"""How much the cache may hold: room is reserved before a download, and made by removing what was used least.

The limit is that of the whole cache directory, which several mounts and archives may share: each looks
at the indexes of all and at what the others have under way, and one at a time removes. Nothing is
written before its reservation stands where all see it, so the limit holds at every moment.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tciafs.content.cache import TAG_NAME, Cache, is_ours, lock
from tciafs.content.index import Index
from tciafs.content.reservations import Reservation, Reservations

logger = logging.getLogger(__name__)

INDEX_NAME = "content.sqlite"
_LOW_WATER = 0.9  # of the limit: what an eviction leaves
_FRESH_SECONDS = 5.0  # for how long it is not looked whether others removed anything
_BATCH = 1_000
_LOCK_SECONDS = 10.0  # how long another mount's eviction is waited for
_LOCK_POLL_SECONDS = 0.05
_UNUSABLE = (sqlite3.Error, UnicodeDecodeError, OSError)

Accounts = list[tuple[Cache, Index]]


class Limits:
    """The room of one cache directory."""

    def __init__(self, directory: Path, limit: int, keep_free: float = 0.1) -> None:
        """Hold at most `limit` bytes, and leave the share `keep_free` of the file system to others."""
        self.limit = limit
        self._keep_free = keep_free
        self.evictions = 0
        self.before_evicting: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self._directory = directory
        self._used = 0
        self._files = 0
        self._kept = 0  # by this mount since it began
        self._reserved = 0
        self._reservations = Reservations(directory)
        self._counted_at = -math.inf
        self._kept_by_others: dict[str, int] = {}  # when that sum was made
        self._one_at_a_time = trio.Lock()

    def close(self) -> None:
        """Let others count nothing as under way here."""
        self._reservations.close()

    @property
    def used(self) -> int:
        """Return how many bytes all archives hold here, as far as this mount knows."""
        return self._used

    @property
    def files(self) -> int:
        """Return how many objects all archives hold here, as far as this mount knows."""
        return self._files

    async def count(self) -> None:
        """Learn anew what all archives hold here."""
        async with self._one_at_a_time, self._accounts() as accounts:
            await self._count(accounts)

    @asynccontextmanager
    async def reserved(self, size: int) -> AsyncIterator[bool]:
        """Hold room for `size` bytes, made if need be; tell whether there is any."""
        there_is = await self._make_room(size)
        try:
            yield there_is
        finally:
            if there_is:
                self._hold(-size)

    def note_kept(self, size: int) -> None:
        """Count an object that was just committed."""
        self._used += size
        self._files += 1
        self._kept += size
        self._hold(0)

    async def evict(self, size: int) -> None:
        """Make room for `size` bytes although there seemed to be some: the disk said that it is full."""
        async with self._one_at_a_time, self._accounts() as accounts:
            await self._evict(accounts, lambda: max(size, int(self._used * (1 - _LOW_WATER))))

    async def _make_room(self, size: int) -> bool:
        if size > self.limit:
            return False
        async with self._one_at_a_time:  # whoever waits here finds what the one before evicted
            self._hold(size)  # before it is judged: of two mounts, one at least sees the other's
            there_is = False
            try:
                there_is = await self._is_room()
            finally:
                if not there_is:
                    self._hold(-size)
            return there_is

    def _hold(self, size: int) -> None:
        self._reserved += size
        self._reservations.put(Reservation(self._reserved, self._kept))

    async def _is_room(self) -> bool:
        """Tell whether there is room for all that is reserved, once what was used least has gone."""
        if self._is_outdated():
            async with self._accounts() as accounts:
                await self._count(accounts)
        excess = self._excess()
        if 0 < excess <= self._used:  # nothing is removed in vain
            async with self._accounts() as accounts:
                await self._evict(accounts, self._excess)
            excess = self._excess()
        return excess <= 0

    def _is_outdated(self) -> bool:
        """Tell whether others may hold less than when the sum was made, or one's file is gone by now."""
        is_old = trio.current_time() - self._counted_at > _FRESH_SECONDS
        return is_old or not self._kept_by_others.keys() <= self._reservations.others().keys()

    def _excess(self) -> int:
        """Return how many bytes must go before what is reserved may come; none where that is not above 0."""
        others = self._reservations.others()
        kept = sum(other.kept - self._kept_by_others.get(name, 0) for name, other in others.items())
        reserved = self._reserved + sum(other.reserved for other in others.values())
        wanted = self._used + kept + reserved
        over = 0
        if wanted > self.limit:  # more than that, so that the next ones find room; but never in vain
            over = max(wanted - self.limit, min(wanted - int(self.limit * _LOW_WATER), self._used))
        return max(over, self._lacking(reserved))

    def _lacking(self, size: int) -> int:
        """Return how many bytes the file system has too few for `size` more."""
        disk = os.statvfs(self._directory)
        keep_free = int(disk.f_blocks * disk.f_frsize * self._keep_free)
        return keep_free + size - disk.f_bavail * disk.f_frsize

    async def _count(self, accounts: Accounts) -> None:
        """Sum up what all hold; an index that cannot be read is left out from then on."""
        self._reservations.remove_dead()
        others = {name: other.kept for name, other in self._reservations.others().items()}
        kept, used, files = self._kept, 0, 0
        for account in accounts.copy():
            try:
                count, size = await account[1].totals()
                files, used = files + count, used + size
            except _UNUSABLE as exc:
                logger.info("%s is not counted: %s", account[0].directory, exc)
                accounts.remove(account)
        self._used = used + self._kept - kept  # what was kept meanwhile is counted twice rather than never
        self._kept_by_others = others
        self._files = files
        self._counted_at = trio.current_time()

    async def _evict(self, accounts: Accounts, excess: Callable[[], int]) -> None:
        """Remove what was used least until `excess` bytes are gone, as it is once no other mount removes."""
        await self.before_evicting()
        async with self._locked():
            await self._count(accounts)
            left = excess()
            while left > 0:
                gone = await self._evict_batch(accounts, left)
                if gone is None:
                    break
                self._used -= gone
                left -= gone

    async def _evict_batch(self, accounts: Accounts, excess: int) -> int | None:
        """Remove up to `excess` bytes and a little; return how many, None where nothing is left."""
        oldest = [
            (last_used, key, size, number)
            for number, (_, index) in enumerate(accounts)
            for last_used, key, size in await index.least_recently_used(_BATCH)
        ]
        gone = count = 0
        chosen: dict[int, list[tuple[float, str]]] = {}
        for last_used, key, size, number in sorted(oldest)[:_BATCH]:
            if gone >= excess:
                break
            chosen.setdefault(number, []).append((last_used, key))
            gone += size
            count += 1
        for number, evicted in chosen.items():
            cache, index = accounts[number]
            # The files first: a row without a file is a miss, but a file without a row is nobody's, and
            # on a full disk no row can be written before a file went.
            await trio.to_thread.run_sync(_remove, cache, [key for _, key in evicted])
            await index.note_evicted(evicted)
        self.evictions += count
        self._files -= count
        logger.info("%d objects of %d bytes were removed from the cache", count, gone)
        return gone if count else None

    @asynccontextmanager
    async def _accounts(self) -> AsyncIterator[Accounts]:
        """Open the indexes of every archive and account that has one here."""
        accounts = await trio.to_thread.run_sync(self._open_accounts)
        try:
            yield accounts.copy()
        finally:
            for _, index in accounts:
                index.close()

    def _open_accounts(self) -> Accounts:
        found = []
        for path in sorted(self._directory.glob(f"*/*/{INDEX_NAME}")) if is_ours(self._directory) else []:
            if path.resolve().parents[2] != self._directory.resolve():
                continue  # a symbolic link leads elsewhere, where nothing is ours to remove
            try:
                found.append((Cache(path.parent), Index.open_anothers(path)))
            except _UNUSABLE as exc:
                logger.info("%s is not counted: %s", path, exc)
        return found

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """Be the only one who removes; where another mount is stuck at it, go on all the same."""
        if not is_ours(self._directory):
            yield
            return
        fd = os.open(self._directory / TAG_NAME, os.O_RDWR | os.O_CLOEXEC)  # is there on a full disk, too
        try:
            with trio.move_on_after(_LOCK_SECONDS):
                while not lock(fd):  # noqa: ASYNC110 -- another process's
                    await trio.sleep(_LOCK_POLL_SECONDS)
            yield
        finally:
            os.close(fd)


def _remove(cache: Cache, keys: list[str]) -> None:
    for key in keys:
        cache.remove(key)
