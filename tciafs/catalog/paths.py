"""Where series are in the tree of a drive, by the names that a drive makes; without one."""

from __future__ import annotations

from collections.abc import Sequence

from tciafs.archives.parts import all_of
from tciafs.catalog.catalog import Catalog
from tciafs.catalog.rows import ROOT, Node
from tciafs.catalog.store import Store
from tciafs.model import Collection, Patient, Record, Series, Study

_Place = tuple[Node, str]


class Paths:
    """The paths of series in one archive's tree; what was never listed is listed for them."""

    def __init__(self, catalog: Catalog, store: Store) -> None:
        self._catalog = catalog
        self._store = store
        self._known: dict[Record, _Place] = {}
        self._renewed: set[int] = set()

    async def of(self, series: Sequence[Series]) -> dict[str, str]:
        """Return paths by SeriesInstanceUID; of a series that no listing has, even a new one, none.

        Raise `ArchiveError` where something cannot be listed.
        """
        by_patient: dict[tuple[str, str], list[Series]] = {}
        for each in series:
            by_patient.setdefault((each.collection, each.patient_id), []).append(each)
        return dict(await all_of(self._of_patient, by_patient.values()))

    async def _of_patient(self, series: Sequence[Series]) -> list[tuple[str, str]]:
        return [(each.series_instance_uid, path) for each in series if (path := await self._of_one(each))]

    async def _of_one(self, series: Series) -> str | None:
        collection, patient_id = series.collection, series.patient_id
        parent, names = ROOT, []
        for record in (
            Collection(collection),
            Patient(collection, patient_id),
            Study(collection, patient_id, series.study_instance_uid),
            series,
        ):
            place = self._known.get(record) or await self._place(parent, record)
            if place is None:
                return None
            self._known[record] = place
            parent = place[0]
            names.append(place[1])
        return "/".join(names)

    async def _place(self, parent: Node, record: Record) -> _Place | None:
        """Return what a directory has for a record; it is asked anew, once, where it has nothing."""
        await self._catalog.age(parent)
        place = await self._listed(parent, record)
        if place is None and parent.inode not in self._renewed:
            self._renewed.add(parent.inode)
            await self._catalog.ask_anew(parent)
            place = await self._listed(parent, record)
        return place

    async def _listed(self, parent: Node, record: Record) -> _Place | None:
        if isinstance(record, Series):  # whose inode number depends on its version
            found, _ = await self._catalog.child(parent, record.series_instance_uid)
            node = found.node if found else None
        else:
            node = await self._catalog.node(self._store.inode_of(record))
        name = await self._catalog.name_of(node) if node else None
        return (node, name) if node and name else None
