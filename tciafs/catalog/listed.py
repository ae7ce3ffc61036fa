"""The series of a manifest, of a shared cart, or of both: where they are, and which are nowhere."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from tciafs.archives.base import Archive
from tciafs.catalog.freshness import Age
from tciafs.catalog.rows import Keys
from tciafs.catalog.searches import Searches, View, view_of
from tciafs.flights import Flights
from tciafs.model import Kind, Series
from tciafs.selection import Manifest, Selection

logger = logging.getLogger(__name__)

Found = Mapping[str, tuple[str, ...]]  # keys by SeriesInstanceUID


@dataclass(frozen=True, slots=True)
class InManifest:
    """A question: where are the series of a manifest?"""

    manifest: Manifest

    @property
    def question(self) -> str:
        """Return the search as one text, the same for all lists of these series."""
        return f"series {self.manifest.digest}"

    def __str__(self) -> str:
        """Return what is searched for."""
        return f"the search for the {len(self.manifest.uids):,} series of {self.manifest.name}"

    async def ask(self, archive: Archive) -> Keys:
        """Return where the series are that the archive has."""
        return _keys(await archive.find_series(self.manifest.uids))


@dataclass(frozen=True, slots=True)
class InCart:
    """A question: what is in a shared cart, and where is it?"""

    name: str

    @property
    def question(self) -> str:
        """Return the search as one text."""
        return f"cart {self.name}"

    def __str__(self) -> str:
        """Return what is searched for."""
        return f"the search for the shared cart {self.name!r}"

    async def ask(self, archive: Archive) -> Keys:
        """Return where the series of the cart are."""
        return _keys(await archive.get_cart(self.name))


class Listed:
    """The series that a selection lists, and of these alone those that have its codes.

    `on_change` is called when they turn out to be others than was said before.
    """

    def __init__(
        self,
        selection: Selection,
        searches: Searches,
        nursery: trio.Nursery,
        on_change: Callable[[], Awaitable[None]],
    ) -> None:
        self._selection = selection
        self._on_change = on_change
        self._searches = searches
        self._flights: Flights[None] = Flights(nursery)
        self._in_manifest = InManifest(selection.manifest) if selection.manifest is not None else None
        self._in_cart = InCart(selection.shared_cart) if selection.shared_cart is not None else None
        self._questions = [question for question in (self._in_manifest, self._in_cart) if question]
        self._found_at: list[float] = []
        self._view = View()
        self._missing = f"# The archive has not told yet which of these series it has: {self._name}\n"
        self._told: set[str] = set()
        self.is_any_found = False

    @property
    def _name(self) -> str:
        """Return how the lists were given on a command line."""
        chosen = self._selection
        return str(Selection(manifest=chosen.manifest, shared_cart=chosen.shared_cart))

    def close(self) -> None:
        """Give up what is under way."""
        self._flights.close()

    def find_behind(self) -> None:
        """Find out where the series are before anybody looks."""

        async def look(_: object) -> None:
            await self.find()

        self._flights.join("", f"the look for {self._name}", look)

    async def find(self, deadline: float = math.inf) -> tuple[View, Age]:
        """Return where the series are, and of what age that is; raise as `Searches.find` does."""
        results = [await self._searches.find(question, Kind.ROOT, deadline) for question in self._questions]
        found_at = [result.age.listed_at for result in results]
        if found_at != self._found_at:
            before = self._view
            self._take([{key[4]: key for key in result.keys} for result in results], found_at)
            if before not in (View(), self._view):
                await self._on_change()
        return self._view, Age.of_all([result.age for result in results])

    async def ask_anew(self) -> None:
        """Ask again where the series are; raise `ArchiveError` where the archive does not tell."""
        for question in self._questions:
            await self._searches.ask_anew(question)
        await self.find()

    def has(self, series: Series) -> bool:
        """Tell whether a series is listed, as far as that is known."""
        return self._view.has(series)

    def missing_text(self) -> bytes:
        """Return the series that the archive has not, below a line that says so."""
        return self._missing.encode()

    def _take(self, found: Sequence[Found], found_at: list[float]) -> None:
        """Take note of what was found, by each question."""
        in_all = set.intersection(*map(set, found))
        keys = frozenset(key for uid, key in found[0].items() if uid in in_all and self._is_selected(key))
        self._found_at = found_at
        self._view = view_of(keys, Kind.SERIES)
        self.is_any_found = bool(in_all)
        told = []
        if self._in_manifest:
            told.append(self._note_missing(self._in_manifest.manifest, found[0], found_at[0]))
        if self._in_cart:
            told.append(self._note_cart(self._in_cart.name, found[-1]))
        self._missing = "".join(told)

    def _is_selected(self, key: tuple[str, ...]) -> bool:
        _, collection, patient_id, _, _, modality, body_part = key
        chosen = self._selection
        return (
            chosen.has_collection(collection)
            and chosen.has_patient(patient_id)
            and chosen.has_codes(modality, body_part)
        )

    def _note_missing(self, manifest: Manifest, found: Found, found_at: float) -> str:
        missing = sorted(manifest.uids - found.keys())
        count = f"{len(missing):,} of the {len(manifest.uids):,} series of {manifest.name!r}"
        if not missing:
            return f"# The archive has all {len(manifest.uids):,} series of {manifest.name!r}.\n"
        self._warn(f"{count} are not in the archive; .tciafs/missing.txt lists them")
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found_at))
        return "\n".join([f"# {count} were not in the archive on {when}:", *missing, ""])

    def _note_cart(self, name: str, found: Found) -> str:
        if found:
            return f"# The shared cart {name!r} has {len(found):,} series; the archive tells of no others.\n"
        nothing = f"the archive has no shared cart {name!r}, or nothing of what is in it"
        self._warn(nothing)
        return f"# {nothing}\n"

    def _warn(self, what: str) -> None:
        """Log it, once a mount."""
        if what not in self._told:
            self._told.add(what)
            logger.warning("%s", what)


def _keys(series: Sequence[Series]) -> Keys:
    """Return where series are: as their keys are, with the codes in the place of the version."""
    return frozenset(
        (
            "series",
            one.collection,
            one.patient_id,
            one.study_instance_uid,
            one.series_instance_uid,
            one.modality or "",
            one.body_part or "",
        )
        for one in series
    )
