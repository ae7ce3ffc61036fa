"""What the archive is asked for the listing of a directory, and when its answer is believed.

Nothing in this tree is ever empty, and an answer shorter than the parent promises is a failure, never news.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence

from tciafs.archives.base import Archive, BadAnswer
from tciafs.catalog.rows import Node
from tciafs.catalog.store import Store
from tciafs.model import Collection, Instance, Kind, Patient, Record, Series, Study

Listings = Mapping[int, Sequence[Record]]
Put = Callable[[Listings], Awaitable[None]]
"""Put listings, by the inode numbers of their directories, in the place of what was known of them."""


class Questions:
    """The questions for one listing at a time, but for those of a series (see `batches`)."""

    def __init__(self, archive: Archive, store: Store, put: Put) -> None:
        self._archive = archive
        self._store = store
        self._put = put

    async def listings(self, node: Node) -> Listings:
        """Return what the archive lists of `node`, and what else came with the same requests."""
        match node.record:
            case None:
                return {node.inode: _not_empty(node, await self._archive.get_collections())}
            case Collection(name):
                return {node.inode: _not_empty(node, await self._archive.get_patients(name))}
            case Patient(collection, patient_id):
                studies = await self._archive.get_studies(collection, patient_id)
                return {node.inode: _not_empty(node, studies)}
            case Study():
                return await self._series_listings(node, node.record)
            case Series() | Instance():
                raise NotADirectoryError(title_of(node))

    async def _series_listings(self, node: Node, study: Study) -> Listings:
        """Return the series of every study of the patient that has as many as it should.

        Where `node` lacks some, its study may have changed since it was listed: both are asked again.
        """
        found = await self._complete_studies(node, study)
        if node.inode not in found:
            studies = await self._archive.get_studies(study.collection, study.patient_id)
            if studies:
                await self._put({node.parent: studies})
            found = await self._complete_studies(node, study)
        if node.inode not in found:
            await self._put(found)
            raise BadAnswer(f"{title_of(node)}: fewer series came than the study's {study.series_count}")
        return found

    async def _complete_studies(self, node: Node, study: Study) -> Listings:
        by_study: dict[str, list[Series]] = {}
        for series in await self._archive.get_series(study.collection, study.patient_id):
            by_study.setdefault(series.study_instance_uid, []).append(series)
        found: dict[int, Sequence[Record]] = {}
        for _, sibling in await self._store.children(node.parent):
            assert isinstance(sibling.record, Study)
            listed = by_study.get(sibling.record.study_instance_uid, [])
            if len(listed) >= max(sibling.record.series_count or 0, 1):
                found[sibling.inode] = listed
        return found


def _not_empty(node: Node, records: Sequence[Record]) -> Sequence[Record]:
    if not records:
        raise BadAnswer(f"{title_of(node)}: the archive listed nothing, which cannot be")
    return records


def key_of_question(node: Node) -> Hashable:
    """Return what a request for the listing of `node` goes by: all studies of a patient come with one."""
    return node.kind, node.parent if node.kind is Kind.STUDY else node.inode


def title_of(node: Node) -> str:
    match node.record:
        case None:
            return "the list of collections"
        case Collection(name):
            return f"the patients of {name}"
        case Patient(collection, patient_id):
            return f"the studies of {collection}/{patient_id}"
        case Study():
            return f"the series of {node.record.collection}/{node.record.patient_id}"
        case Series():
            return f"the instances of series {node.record.series_instance_uid}"
        case Instance():
            return f"the instance {node.record.sop_instance_uid}"
