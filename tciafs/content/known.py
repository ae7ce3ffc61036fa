"""What the index knows of objects, in memory: read once, and of a whole series at once."""

from __future__ import annotations

from cachetools import LRUCache, TTLCache

from tciafs.content.index import Index, Stored, object_key
from tciafs.model import Instance

_KEPT = 200_000
_SERIES_KEPT, _SERIES_SECONDS = 10_000, 60.0  # other mounts fetch objects, too


class Known:
    """The rows of the objects that were looked at lately."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._stored: LRUCache[str, Stored] = LRUCache(_KEPT)
        # Series of which all that is known is in `_stored`.
        self._in_memory: TTLCache[str, None] = TTLCache(_SERIES_KEPT, _SERIES_SECONDS)

    async def of_series(self, series_instance_uid: str) -> dict[str, Stored]:
        """Return what is known of the objects of a series, by `object_key`."""
        known = await self._index.of_series(series_instance_uid)
        for key, stored in known.items():  # who lists a series opens its files next
            self._stored.setdefault(key, stored)
        self._in_memory[series_instance_uid] = None
        return known

    async def get(self, instance: Instance) -> Stored | None:
        """Return what is known of an object, from memory where its series was looked at lately."""
        key = object_key(instance)
        if key not in self._stored and instance.series_instance_uid not in self._in_memory:
            await self.of_series(instance.series_instance_uid)
        return self._stored.get(key)

    async def find(self, key: str) -> Stored | None:
        """Return what is known of one object, whatever was looked at of its series."""
        known = self._stored.get(key) or await self._index.get(key)
        if known is not None:
            self._stored.setdefault(key, known)
        return known

    def in_memory(self, key: str) -> Stored | None:
        """Return what is known of an object without a look at the disk."""
        return self._stored.get(key)

    def note(self, stored: Stored) -> None:
        """Believe this of an object from now on."""
        self._stored[stored.key] = stored

    def forget(self, instance: Instance) -> None:
        """Ask the index again, since the object's file is gone or is another."""
        self._stored.pop(object_key(instance), None)
        self._in_memory.pop(instance.series_instance_uid, None)
