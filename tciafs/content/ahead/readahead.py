"""Notices who reads a series in order, and has what they will open next brought meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio
from cachetools import LRUCache

from tciafs.archives.base import Archive
from tciafs.content.ahead.order import Order
from tciafs.content.ahead.pace import Pace
from tciafs.content.ahead.series import TRANSFERS_AHEAD, Line, SeriesFetch, Way
from tciafs.content.index import object_key
from tciafs.content.place import Place
from tciafs.model import Instance

_WATCHED = 50_000  # images of the series that are read, in all
_LARGEST_BYTES = 16 << 20  # what is larger is read while it arrives
_SHARE_AHEAD = 0.5  # of the cache's limit

Siblings = Callable[[], Awaitable[Sequence[Instance]]]
"""Return the instances of a series in the order of their names."""


@dataclass(slots=True)
class _Reading:
    """What is known of the opens of one series."""

    opened: list[Instance]  # before the order of the names was asked for
    order: Order = field(default_factory=Order)
    positions: dict[str, int] = field(default_factory=dict)
    fetch: SeriesFetch | None = None

    @property
    def weight(self) -> int:
        """Return for how many images it takes memory."""
        return min(len(self.positions) + 1, _WATCHED)


class Readahead:
    """The series that are being read."""

    def __init__(
        self,
        archive: Archive,
        place: Place,
        slots: trio.CapacityLimiter,
        nursery: trio.Nursery,
        begin: Callable[[Instance, Way], bool],
    ) -> None:
        self._line = Line(archive, slots, trio.CapacityLimiter(TRANSFERS_AHEAD), Pace())
        self._place = place
        self._nursery = nursery
        self._begin = begin
        self._readings: LRUCache[tuple[str, str], _Reading] = LRUCache(_WATCHED, getsizeof=_weight)
        self._is_closed = False

    def close(self) -> None:
        """Bring nothing more."""
        self._is_closed = True

    async def note_open(self, instance: Instance, is_cached: bool, siblings: Siblings) -> None:
        """Count an open, and have what should follow brought."""
        key = instance.series_instance_uid, instance.version
        reading = self._readings.get(key)
        if reading is None:
            if not is_cached:  # one image costs one image
                self._readings[key] = _Reading([instance])
        elif reading.fetch is None:
            reading.opened.append(instance)
            if len(reading.opened) == 2:  # others who open meanwhile are counted with these
                await self._learn(key, reading, siblings)
        elif reading.fetch.finished.is_set():
            del self._readings[key]
        else:
            self._note(reading, reading.fetch, instance)

    async def _learn(self, key: tuple[str, str], reading: _Reading, siblings: Siblings) -> None:
        """Ask what there is to bring; a series of large objects is forgotten."""
        try:
            await self._begin_reading(reading, await siblings())
        finally:
            self._readings.pop(key, None)
            if reading.fetch:
                self._readings[key] = reading  # it weighs more now

    async def _begin_reading(self, reading: _Reading, images: Sequence[Instance]) -> None:
        if images and all((image.size or image.estimate) <= _LARGEST_BYTES for image in images):
            reading.positions = {image.sop_instance_uid: position for position, image in enumerate(images)}
            reading.fetch = await self._prepared(images)
            for instance in reading.opened:
                self._note(reading, reading.fetch, instance)

    async def _prepared(self, images: Sequence[Instance]) -> SeriesFetch:
        async def get_stored() -> dict[str, str]:
            known = await self._place.index.of_series(images[0].series_instance_uid)
            found = {image.sop_instance_uid: known.get(object_key(image)) for image in images}
            return {uid: stored.md5 for uid, stored in found.items() if stored and stored.on_disk}

        return SeriesFetch(self._line, images, await get_stored(), self._begin, get_stored)

    def _note(self, reading: _Reading, fetch: SeriesFetch, instance: Instance) -> None:
        position = reading.positions.get(instance.sop_instance_uid)
        if position is None:
            return
        reading.order.note(position)
        fetch.note_open(position)
        order = reading.order
        if order.is_whole and not fetch.is_whole and self._is_room_for(fetch):
            fetch.want_all()
        fetch.want(order.front + 1, order.front + 1 + order.window)
        self._start(fetch)

    def _is_room_for(self, fetch: SeriesFetch) -> bool:
        return fetch.missing_bytes <= self._place.limits.limit * _SHARE_AHEAD

    def _start(self, fetch: SeriesFetch) -> None:
        if fetch.is_idle and not self._is_closed:
            fetch.note_started()
            self._nursery.start_soon(fetch.run)


def _weight(reading: _Reading) -> int:
    return reading.weight
