"""What to tell of a selection that matches nothing: once, in the log, with what is spelled like it.

Only a complete answer of the archive gives cause; how values are spelled is asked behind.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Sequence

import trio

from tciafs.archives.base import Archive, ArchiveError
from tciafs.flights import Flights
from tciafs.selection import Selection, code

logger = logging.getLogger(__name__)

COLLECTIONS_LOOKED_AT = 3  # for PatientIDs like one that is nowhere
_SHOWN = 3


class Hints:
    """Tells what a selection misses."""

    def __init__(self, archive: Archive, nursery: trio.Nursery, selection: Selection) -> None:
        self._archive = archive
        self._selection = selection
        self._flights: Flights[None] = Flights(nursery)
        self._told: set[str] = set()

    def close(self) -> None:
        """Give up what is under way."""
        self._flights.close()

    def tell(self, collections: Sequence[str], is_empty: bool) -> None:
        """Tell which of the selected collections the archive has not, and why nothing is left of it."""
        missing = [name for name in self._selection.collections if name not in collections]
        for name in missing:
            if name not in self._told:
                self._told.add(name)
                also = _spelled_like(name, collections)
                logger.warning("--collection %r: the archive has no such collection%s", name, also)
        there = [name for name in self._selection.collections if name in collections]
        if is_empty and (there or not missing) and "" not in self._told:
            self._told.add("")
            self._flights.join("", "the values that there are", lambda _: self._tell_empty(there))

    async def _tell_empty(self, collections: Sequence[str]) -> None:
        try:
            why = "; ".join(await causes(self._archive, self._selection, collections[:COLLECTIONS_LOOKED_AT]))
        except ArchiveError:
            why = ""
        logger.warning("nothing matches %s, so the drive is empty%s", self._selection, why and f": {why}")


async def causes(archive: Archive, selection: Selection, collections: Sequence[str]) -> list[str]:
    """Say of each value that no series or patient has, how others are spelled.

    Patients are looked for in `collections`, which are listed for this.
    """
    found: list[str] = []
    if selection.modalities:
        known = map(code, await archive.get_modalities())
        found += await missed("modality", selection.modalities, set(known))
    if selection.body_parts:
        known = map(code, await archive.get_body_parts())
        found += await missed("body part", selection.body_parts, set(known))
    if selection.patients and collections:
        patients = [one for name in collections for one in await archive.get_patients(name)]
        found += await missed("patient", selection.patients, {one.patient_id for one in patients})
    return found


async def missed(what: str, wanted: Sequence[str], known: Collection[str]) -> list[str]:
    """Say of each wanted value that is not known, how others are spelled."""
    missing = [value for value in wanted if value not in known]
    # In a thread, since a collection may have 26,000 patients.
    also = [await trio.to_thread.run_sync(_spelled_like, value, known) for value in missing]
    return [f"there is no {what} {value!r}{like}" for value, like in zip(missing, also, strict=True)]


def _spelled_like(value: str, known: Collection[str]) -> str:
    """Return ", but …" with what is spelled much like the value, or holds it; nothing where nothing is."""
    by_folded = {name.casefold(): name for name in sorted(known)}
    folded = value.casefold()
    alike = difflib.get_close_matches(folded, by_folded, _SHOWN)
    holding = [name for name in by_folded if folded in name]
    near = list(dict.fromkeys(by_folded[name] for name in [*alike, *holding]))[:_SHOWN]
    return f", but {', '.join(map(repr, near))}" if near else ""
