"""Verifies the cached files of a series that who reads it in order will open next."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio
from cachetools import LRUCache

from tciafs.archives.base import ArchiveError
from tciafs.content.ahead.order import Order
from tciafs.content.ahead.readahead import Siblings
from tciafs.database import Lost, Unwritable
from tciafs.flights import Flights
from tciafs.model import Instance

logger = logging.getLogger(__name__)

_WATCHED = 50_000  # images of the series that are read, in all
_REACH = 4  # a disk is ahead of its reader with fewer; who stops early has had no more read in vain

_Key = tuple[str, str]


@dataclass(slots=True)
class _Reading:
    """What is known of the opens of one series."""

    opened: list[Instance]  # before the order of the names was asked for
    order: Order = field(default_factory=Order)
    images: Sequence[Instance] = ()
    positions: dict[str, int] = field(default_factory=dict)
    tried: set[int] = field(default_factory=set)  # positions that were verified ahead, or could not be

    @property
    def weight(self) -> int:
        """Return for how many images it takes memory."""
        return min(len(self.images) + 1, _WATCHED)

    @property
    def is_read(self) -> bool:
        """Tell whether nothing is left to verify ahead up to the end of the series."""
        return self._ahead().stop == len(self.images) and self.next() is None

    def learn(self, images: Sequence[Instance]) -> None:
        """Learn the order of the names."""
        self.images = images
        self.positions = {image.sop_instance_uid: position for position, image in enumerate(images)}
        for instance in self.opened:
            self.note(instance)

    def note(self, instance: Instance) -> None:
        """Count an open."""
        position = self.positions.get(instance.sop_instance_uid)
        if position is not None:
            self.order.note(position)

    def next(self) -> int | None:
        """Return the position of what to verify next, None where the reader is to come closer first."""
        return next((position for position in self._ahead() if position not in self.tried), None)

    def _ahead(self) -> range:
        first = self.order.front + 1
        return range(first, min(first + min(self.order.window, _REACH), len(self.images)))


class CheckAhead:
    """The series of cached files that are being read, and not yet verified to their ends."""

    def __init__(self, nursery: trio.Nursery, verify: Callable[[Instance], Awaitable[None]]) -> None:
        """Call `verify` for each image that is opened soon; it need not be cached, nor unverified."""
        self._verify = verify
        self._runs: Flights[None] = Flights(nursery)
        self._readings: LRUCache[_Key, _Reading] = LRUCache(_WATCHED, getsizeof=_weight)

    def close(self) -> None:
        """Verify nothing more."""
        self._runs.close()

    def note_open(self, instance: Instance, is_pending: bool, siblings: Siblings) -> None:
        """Count an open of a cached file, which is still to be verified or not, and begin with the next."""
        key = instance.series_instance_uid, instance.version
        reading = self._readings.get(key)
        if reading is None:
            if is_pending:  # one open costs no other file
                self._readings[key] = _Reading([instance])
        elif reading.images:
            reading.note(instance)
            if reading.next() is not None:
                self._begin(key, lambda: self._run(key, reading))
        elif is_pending:
            reading.opened.append(instance)
            self._begin(key, lambda: self._learn(key, reading, siblings))

    def _begin(self, key: _Key, run: Callable[[], Awaitable[None]]) -> None:
        """Have one task at a time work for a series; it takes up what is noted meanwhile."""
        self._runs.join(key, f"verification of series {key[0]} ahead of its reader", lambda _: run())

    async def _learn(self, key: _Key, reading: _Reading, siblings: Siblings) -> None:
        try:
            images = await siblings()
        except (ArchiveError, Lost, Unwritable) as exc:  # who reads has asked for none of this
            logger.info("series %s is not verified ahead of its reader: %s", key[0], exc)
            images = ()
        self._readings.pop(key, None)
        if images:
            reading.learn(images)
            self._readings[key] = reading  # it weighs more now
            await self._run(key, reading)

    async def _run(self, key: _Key, reading: _Reading) -> None:
        while (position := reading.next()) is not None:
            reading.tried.add(position)
            await self._verify(reading.images[position])
        if reading.is_read and self._readings.get(key) is reading:
            del self._readings[key]


def _weight(reading: _Reading) -> int:
    return reading.weight
