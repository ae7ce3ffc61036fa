"""Under which terms a collection is: told at once from what is known, while the archive is asked for more."""

from __future__ import annotations

import logging
import time

import trio

from tciafs.archives.base import Archive, BadAnswer
from tciafs.catalog.catalog import Catalog
from tciafs.catalog.rows import Node
from tciafs.catalog.terms import Gathered, Said, TermsStore
from tciafs.flights import Flights
from tciafs.model import Attribution, Collection, Description, Terms

logger = logging.getLogger(__name__)

_PATIENTS_AT_ONCE = 200  # the series of more are not asked for together: that can be 315 MB (nbia-api 2.1)
_BELIEVED_SECONDS = 24 * 3600.0
_PAUSE_SECONDS = 60.0  # after a failure


class Attributions:
    """The terms of an archive's collections."""

    def __init__(self, archive: Archive, store: TermsStore, catalog: Catalog, nursery: trio.Nursery) -> None:
        self._archive = archive
        self._store = store
        self._catalog = catalog
        self._flights: Flights[None] = Flights(nursery)
        self._not_before: dict[int, float] = {}

    async def of(self, node: Node) -> Attribution:
        """Return what is known of the collection; never waits for the archive, which is asked behind."""
        assert isinstance(node.record, Collection)
        name = node.record.name
        kept = await self._store.said(node.inode)
        said, asked_at = kept or (Said(Description(), None), 0.0)
        if not 0 <= time.time() - asked_at < _BELIEVED_SECONDS:
            self._ask(node, name)
        return _attribution(name, said, await self._store.gathered(node.inode))

    def _ask(self, node: Node, name: str) -> None:
        if self._not_before.get(node.inode, 0.0) < time.time():
            self._flights.join(node.inode, f"the terms of {name}", lambda _: self._renew(node, name))

    async def _renew(self, node: Node, name: str) -> None:
        self._not_before[node.inode] = time.time() + _PAUSE_SECONDS
        description = await self._archive.get_description(name)
        said = Said(description, await self._get_terms(node, name))
        await self._store.keep(node.inode, said, time.time())

    async def _get_terms(self, node: Node, name: str) -> list[tuple[Terms, int]] | None:
        """Ask for all series at once, where the collection is small enough for that."""
        await self._catalog.age(node)  # lists the patients, where nobody did
        if (await self._store.gathered(node.inode)).patients > _PATIENTS_AT_ONCE:
            return None
        try:
            return list((await self._archive.get_terms(name)).items())
        except BadAnswer as exc:
            logger.info("only the listed series of %s are looked at: %s", name, exc)
            return None


def _attribution(name: str, said: Said, gathered: Gathered) -> Attribution:
    """Join what the archive said of all series with what the listed ones say: whichever are more."""
    everything = dict(said.series or [])
    if sum(everything.values()) >= max(1, sum(gathered.series.values())):
        return Attribution(name, everything, sum(everything.values()), True, said.description)
    is_whole = 0 < gathered.patients == gathered.patients_listed
    return Attribution(name, gathered.series, gathered.series_count, is_whole, said.description)
