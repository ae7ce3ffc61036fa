"""A catalog of which only a selection is there: what does not match is neither listed nor found.

Listings and names stay those of the whole archive, shared with mounts that select otherwise. Where a
listing cannot tell which of its directories would be empty, the archive is searched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import trio

from tciafs.archives.base import Archive, Overdue
from tciafs.catalog.catalog import Catalog
from tciafs.catalog.crawl import NEVER
from tciafs.catalog.difference import Difference, OnChange, pass_over
from tciafs.catalog.freshness import Age, Freshness
from tciafs.catalog.hints import Hints
from tciafs.catalog.listed import Listed
from tciafs.catalog.rows import ROOT, Found, Node
from tciafs.catalog.searches import Level, Search, Searches, View, view_of
from tciafs.catalog.store import Store
from tciafs.model import Collection, Kind, Patient, Series
from tciafs.selection import Selection

_FEW_SERIES = 500


class SelectedCatalog(Catalog):
    """The part of one archive that a selection lets through; all of it, where nothing is selected."""

    def __init__(
        self,
        archive: Archive,
        store: Store,
        nursery: trio.Nursery,
        selection: Selection,
        freshness: Freshness | None = None,
        on_change: OnChange = pass_over,
    ) -> None:
        thresholds = NEVER if _is_of_few_patients(selection) else None
        super().__init__(archive, store, nursery, freshness, on_change, thresholds)
        self._selection = selection
        self._searches = Searches(archive, store, nursery, self._freshness)
        self._hints = Hints(archive, nursery, selection)
        self.listed: Listed | None = None
        if selection.is_listed:
            self.listed = Listed(selection, self._searches, nursery, self._note_all_changed)

    def close(self) -> None:
        """Give up every request under way."""
        super().close()
        self._searches.close()
        self._hints.close()
        if self.listed:
            self.listed.close()

    async def age(self, node: Node) -> Age:
        """Return the age of what tells the directory's entries: its listing, a search, series of studies.

        It was made when the newest of these was, and expires with the first; each is renewed on its own.
        """
        deadline = trio.current_time() + self._freshness.deadline
        ages = [await super().age(node)]
        if found := await self._found(node, deadline):
            ages.append(found[1])
        if isinstance(node.record, Patient) and self._selection.concerns_series:
            ages += await self._ages_of_series(node, node.record, deadline)
        return Age.of_all(ages)

    async def _note_all_changed(self) -> None:
        """Let whoever remembers anything ask again: all that is below the root goes with its names."""
        gone = dict(await super().entries(ROOT))
        self.changes.tell(ROOT.inode, Difference({}, {}, gone))

    async def ask_anew(self, node: Node) -> None:
        """Renew the listing of a directory, and what a search tells of its entries."""
        await super().ask_anew(node)
        if self.listed:
            if node.kind is Kind.ROOT:
                await self.listed.ask_anew()
        elif search := self._search(node):
            before = await self.entries(node)
            await self._searches.ask_anew(search)
            self.changes.tell(node.inode, Difference.between(before, await self.entries(node)))

    async def expire_below(self, node: Node) -> int:
        """Let listings, and what searches tell of them, be renewed at the next look."""
        for _, child in await super().entries(node):
            search = self._search(child)
            if search and search != self._search(node):
                await self._searches.expire(search)
        return await super().expire_below(node)

    def shows(self, node: Node) -> bool:
        """Tell whether the record is selected by what it is."""
        return self._is_selected(node)

    async def entries(self, node: Node) -> list[tuple[str, Node]]:
        """Return the names and nodes of what is selected in a directory, in the order of names."""
        entries = await super().entries(node)
        shown = await self._shown(node, [child for _, child in entries])
        if node.kind is Kind.ROOT:
            names = [child.record.name for _, child in entries if isinstance(child.record, Collection)]
            self._hints.tell(names, is_empty=not shown and (not self.listed or self.listed.is_any_found))
        return [entry for entry in entries if entry[1].inode in shown]

    async def child(self, node: Node, name: str) -> tuple[Found | None, float]:
        """Return what a name stands for, or None where that is not selected either."""
        found, seconds = await super().child(node, name)
        if found and not await self._shown(node, [found.node]):
            return None, seconds
        return found, seconds

    async def _shown(self, node: Node, children: Sequence[Node]) -> set[int]:
        """Return the inode numbers of those children of a directory that are selected."""
        if node.kind is Kind.PATIENT and self._selection.concerns_series:
            return {study.inode for study in children if await self._has_selected_series(study)}
        found = await self._found(node)
        view = found[0] if found else View()
        return {child.inode for child in children if self._is_selected(child) and view.has(child.record)}

    async def _found(self, node: Node, deadline: float = math.inf) -> tuple[View, Age] | None:
        """Return what was found of a directory's entries and below, and when, where it takes a search."""
        if self.listed and node.kind < Kind.SERIES:
            return await self.listed.find(deadline)
        search = self._search(node)
        if search is None:
            return None
        result = await self._searches.find(search, node.kind, deadline)
        return view_of(result.keys, search.level.kind), result.age

    async def _ages_of_series(self, node: Node, patient: Patient, deadline: float) -> list[Age]:
        """Return the ages of what is listed of a patient's studies, which come with one request."""
        ages = []
        with trio.move_on_at(deadline) as scope:
            for _, study in await super().entries(node):
                ages.append(await super().age(study))
        if scope.cancelled_caught:
            seconds = self._freshness.deadline
            what = f"the series of {patient.collection}/{patient.patient_id}"
            raise Overdue(f"{what}: no answer within {seconds:.0f} s")
        return ages

    def _is_worth_asking(self, series: Series) -> bool:
        """Leave out the series that are not selected: thousands of images may be those of another kind."""
        return self._selection.has_series(series) and (self.listed is None or self.listed.has(series))

    async def _has_selected_series(self, study: Node) -> bool:
        return bool(await self._shown(study, [series for _, series in await super().entries(study)]))

    def _is_selected(self, node: Node) -> bool:
        """Tell whether the record is one of those that were named, or has one of the codes."""
        match node.record:
            case Collection(name):
                return self._selection.has_collection(name)
            case Patient(_, patient_id):
                return self._selection.has_patient(patient_id)
            case Series() as series:
                return self._selection.has_series(series)
        return True

    def _search(self, node: Node) -> Search | None:
        """Return the search that tells which children of a directory are not empty, if it takes one."""
        match node.record:
            case None if self._selection.patients:
                return Search(Level.PATIENTS, self._selection.within())
            case None if self._selection.concerns_series:
                return Search(Level.COLLECTIONS, self._selection)
            case Collection(name) if self._selection.concerns_series:
                within = self._selection.within(*(() if self._selection.patients else (name,)))
                return Search(Level.PATIENTS, within)
        return None


def _is_of_few_patients(selection: Selection) -> bool:
    """Tell whether who walks through the selection still is no walk through its collections."""
    is_short = selection.manifest is not None and len(selection.manifest.uids) < _FEW_SERIES
    return bool(is_short or selection.patients or selection.shared_cart)  # which is put together by hand
