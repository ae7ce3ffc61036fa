"""An NBIA server, by the interface that it has: requests out, records and bytes back.

What each endpoint answers, and how it fails, is in the server's source; sections named here are
those of the project's NBIA reference.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from datetime import date
from typing import TypeVar

import trio

from tciafs.archives import criteria, listed, lists, search
from tciafs.archives.base import BadAnswer, Failed, Refused, Unsupported
from tciafs.archives.bulk import changed_studies, open_records
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.drilldown import DrillDown, Listed
from tciafs.archives.http import LARGEST_JSON, Http
from tciafs.archives.images import Images
from tciafs.archives.interfaces import CHOICES, Interface
from tciafs.archives.values import text, whole
from tciafs.archives.wire import (
    CollectionRow,
    DescriptionRow,
    LicenseRow,
    PatientRow,
    SeriesRow,
    SizeRow,
    SopRow,
    StudyRow,
    TermsRow,
    description_of,
    distinct,
    instance_of,
    patient_of,
    series_of,
    study_of,
    terms_of,
)
from tciafs.criteria import Criteria
from tciafs.model import Collection, Description, Instance, Patient, Series, Study, Terms
from tciafs.selection import Selection

logger = logging.getLogger(__name__)

_LARGEST_OPTIONAL = 4_000_000  # bytes
_SEEN_SECONDS = 5.0
_LARGEST_TERMS = 16_000_000  # bytes: some 20,000 series

R = TypeVar("R")


class NBIA(Images):
    """An archive that runs NBIA; `api` is the interface to ask, or "auto" for the best that it has."""

    def __init__(
        self,
        name: str,
        http: Http,
        capabilities: Capabilities,
        api: str = "v4",
        account: str | None = None,
    ) -> None:
        """Ask through `http`, whose login is that of `account`."""
        super().__init__(http, capabilities, CHOICES[api])
        self.name = name
        self._account = account
        self._seen: tuple[float, list[Collection]] = (-math.inf, [])
        self._drill_downs = {each: DrillDown(http, capabilities, each) for each in CHOICES[api]}

    async def get_collections(self) -> list[Collection]:
        """Return all collections (getCollectionValues)."""
        rows = await self._get("getCollectionValues", {}, list[CollectionRow])
        names = {text(row.collection) for row in rows or []}
        return [Collection(name) for name in names if name]

    async def confirm_right(self, collection: str) -> None:
        """Raise `Refused` where a login's account does not see a collection, asked every few seconds."""
        if self._account is None:
            return
        asked_at, seen = self._seen
        if trio.current_time() - asked_at > _SEEN_SECONDS:
            self._seen = trio.current_time(), await self.get_collections()
            seen = self._seen[1]
        if seen and Collection(collection) not in seen:
            raise Refused(
                f"{self._account} may not see {collection} any more, or the archive has it no longer"
            )

    async def get_patients(self, collection: str) -> list[Patient]:
        """Return all patients of a collection (getPatient)."""
        rows = await self._get("getPatient", {"Collection": collection}, list[PatientRow])
        return distinct(patient_of(row, collection) for row in rows or [])

    async def get_studies(self, collection: str, patient_id: str) -> list[Study]:
        """Return all studies of a patient (getPatientStudy)."""
        params = {"Collection": collection, "PatientID": patient_id}
        rows = await self._get("getPatientStudy", params, list[StudyRow])
        return distinct(study_of(row, collection, patient_id) for row in rows or [])

    async def get_series(self, collection: str, patient_id: str) -> list[Series]:
        """Return all series of a patient (getSeries)."""
        params = {"Collection": collection, "PatientID": patient_id}
        rows = await self._get("getSeries", params, list[SeriesRow])
        return distinct(series_of(row, collection, patient_id) for row in rows or [])

    async def get_terms(self, collection: str) -> Counter[Terms]:
        """Count all series of a collection by their terms (getSeries); some 20,000 at most."""
        rows = await self._get("getSeries", {"Collection": collection}, list[TermsRow], _LARGEST_TERMS)
        distinct_rows = {row.series_instance_uid: row for row in rows or []}
        return Counter(terms_of(row) for row in distinct_rows.values() if text(row.collection) == collection)

    async def get_description(self, collection: str) -> Description:
        """Return what is said of a collection as a whole, with its licence where the server tells that."""
        interface = self._interfaces.current
        row = DescriptionRow()
        for endpoint in interface.descriptions:
            rows = await self._get_optional(endpoint, {"collectionName": collection}, list[DescriptionRow])
            if rows is not None:
                row = next((row for row in rows if text(row.collection) == collection), row)
                break
        licenses = None
        if row.license_id is not None and interface.licenses:
            licenses = await self._get_optional(interface.licenses, {}, list[LicenseRow])
        return description_of(row, licenses or [])

    def open_studies(self, collection: str) -> AbstractAsyncContextManager[AsyncIterator[list[Study]]]:
        """Stream all studies of a collection (getPatientStudy)."""
        params = {"Collection": collection}
        return self._open(
            lambda at: open_records(self.http, at.path("getPatientStudy"), params, StudyRow, study_of)
        )

    def open_series_of(self, collection: str) -> AbstractAsyncContextManager[AsyncIterator[list[Series]]]:
        """Stream all series of a collection (getSeries)."""
        params = {"Collection": collection}
        return self._open(
            lambda at: open_records(self.http, at.path("getSeries"), params, SeriesRow, series_of)
        )

    @asynccontextmanager
    async def open_changed(self, collection: str, after: date) -> AsyncIterator[AsyncIterator[list[Study]]]:
        """Stream what was submitted (v4/NewStudiesInPatientCollection) or released (v4/getUpdatedSeries).

        Days are those of the server. The second answers for all collections.
        """
        async with aclosing(self._changed(collection, after)) as parts:
            yield parts

    async def _changed(self, collection: str, after: date) -> AsyncGenerator[list[Study], None]:
        day = {"fromDate": after.strftime("%m-%d-%Y")}
        changes = self._interfaces.current.changes
        if not changes:
            raise Unsupported(f"{self.api} is not asked what has changed: it writes days otherwise")
        for endpoint, params in zip(changes, ({"Collection": collection, **day}, day), strict=True):
            if self._capabilities.lacks(endpoint):
                raise Unsupported(f"{endpoint}: the server has none")
            try:
                async with aclosing(changed_studies(self.http, endpoint, params, collection)) as parts:
                    async for studies in parts:
                        yield studies
            except Unsupported:
                self._capabilities.note_lacking(endpoint)
                raise

    async def get_instances(self, wanted: Series, others: Sequence[Series] = ()) -> Listed:
        """Return the instances of `wanted` and, where one question serves for all, of `others`.

        With the drill-down: exact sizes and instance numbers in two requests (section 4). Without it:
        the UIDs alone, of `wanted`.
        """
        return await self._interfaces.ask(lambda at: self._get_instances(at, wanted, others))

    async def find_collections(self, selection: Selection) -> list[Collection]:
        """Return the collections with a series that is selected (v4/getSimpleSearch, or lists)."""
        return await self._interfaces.ask(
            lambda at: (
                search.find_collections(self.http, selection)
                if at.search
                else lists.find_collections(self.http, at, selection)
            )
        )

    async def find_patients(self, selection: Selection) -> list[Patient]:
        """Return the patients that are selected (getPatient, getSeries, v4/getSimpleSearch, or lists)."""
        return await self._interfaces.ask(lambda at: self._find_patients(at, selection))

    async def find_series(self, uids: Iterable[str]) -> list[Series]:
        """Return those of the series that the archive has (v4/getSeriesMetadata, else getSeries)."""
        wanted = list(uids)
        return await self._interfaces.ask(
            lambda at: listed.find_series(self.http, self._capabilities, at, wanted)
        )

    async def get_cart(self, name: str) -> list[Series]:
        """Return the series of a shared cart (getContentsByName)."""
        return await self._interfaces.ask(lambda at: listed.get_cart(self.http, at, name))

    async def get_modalities(self) -> list[str]:
        """Return all modalities (getModalityValues)."""
        return await self._interfaces.ask(
            lambda at: search.get_values(self.http, at.path("getModalityValues"))
        )

    async def get_body_parts(self) -> list[str]:
        """Return all body parts (getBodyPartValues)."""
        return await self._interfaces.ask(
            lambda at: search.get_values(self.http, at.path("getBodyPartValues"))
        )

    async def search(self, wanted: Criteria) -> list[Series]:
        """Return the series that match, with their sizes (v4/getSimpleSearch, then getCartData)."""
        return await self._searched(lambda http: criteria.search(http, wanted))

    async def count_patients(self) -> dict[str, int]:
        """Return how many patients each collection has (v4/getCollectionValuesAndCounts)."""
        return await self._searched(criteria.count_patients)

    async def get_manufacturers(self) -> list[str]:
        """Return all manufacturers (v4/getManufacturerValues)."""
        return await self._searched(criteria.get_manufacturers)

    async def get_species(self) -> list[str]:
        """Return all species by name (v4/getSpeciesTax)."""
        return sorted(await self._searched(criteria.get_species))

    async def _searched(self, question: Callable[[Http], Awaitable[R]]) -> R:
        async def ask(at: Interface) -> R:
            if at.search is None:
                raise Unsupported(f"{at.version} cannot be searched by criteria: v4 alone can")
            return await question(self.http)

        return await self._interfaces.ask(ask)

    async def _get(
        self, name: str, params: Mapping[str, str], kind: type[R], largest: int = LARGEST_JSON
    ) -> R | None:
        """Return the answer of a list that every interface has."""
        return await self._interfaces.ask(lambda at: self.http.get_json(at.path(name), params, kind, largest))

    async def _get_optional(self, endpoint: str, params: Mapping[str, str], kind: type[R]) -> R | None:
        """Return an answer that can be done without: None where the server has or gives none."""
        if self._capabilities.lacks(endpoint):
            return None
        try:
            return await self.http.get_json(endpoint, params, kind, _LARGEST_OPTIONAL)
        except Unsupported:
            self._capabilities.note_lacking(endpoint)
        except (BadAnswer, Failed, Refused) as exc:
            logger.info("done without: %s", exc)
        return None

    async def _get_instances(self, at: Interface, wanted: Series, others: Sequence[Series]) -> Listed:
        drill_down = self._drill_downs[at]
        if drill_down.is_there():
            try:
                return await self._drill_down(at, wanted, others)
            except Unsupported:
                if drill_down.is_there():
                    raise
        return {wanted.series_instance_uid: await self._list_uids(at, wanted)}

    async def _drill_down(self, at: Interface, wanted: Series, others: Sequence[Series]) -> Listed:
        drill_down, uid = self._drill_downs[at], wanted.series_instance_uid
        listed = await drill_down.images_of([wanted, *others])
        if others and drill_down.is_gap(listed[uid]):  # perhaps in another series
            listed |= await drill_down.images_of([wanted])
        if isinstance(failure := listed[uid], Failed) and drill_down.is_gap(failure):
            listed[uid] = await self._list_uids(at, wanted)
            self.http.forgive(failure)
        return listed

    async def _list_uids(self, at: Interface, series: Series) -> list[Instance]:
        params = {"SeriesInstanceUID": series.series_instance_uid}
        rows = await self.http.get_json(at.path("getSOPInstanceUIDs"), params, list[SopRow])
        if series.file_size is None:  # as of servers that are older than that column
            sizes = await self._get_optional(at.path("getSeriesSize"), params, list[SizeRow])
            size = sizes[0] if sizes else SizeRow()
            count = series.image_count or whole(size.count) or 0
            series = replace(series, file_size=whole(size.size), image_count=count)
        return distinct(instance_of(series, row.sop_instance_uid) for row in rows or [])

    async def _find_patients(self, at: Interface, selection: Selection) -> list[Patient]:
        if selection.patients:
            return await lists.find_named_patients(self.http, at, selection)
        if at.search:
            return await search.find_patients(self.http, selection)
        return await lists.find_patients(self.http, at, selection)
