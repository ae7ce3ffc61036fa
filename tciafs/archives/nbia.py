"""An NBIA server's API v4, with the unversioned drill-down: requests out, records and bytes back.

What each endpoint answers, and how it fails, is in the server's source; sections named here are
those of the project's NBIA reference.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from tciafs.archives.base import (
    SERVER_BYTES_PER_SECOND,
    BadAnswer,
    Failed,
    Refused,
    Unsupported,
)
from tciafs.archives.bulk import open_records
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.criteria import count_patients, get_manufacturers, get_species, search
from tciafs.archives.drilldown import GUEST, DrillDown, Listed
from tciafs.archives.http import Http
from tciafs.archives.listed import find_series, get_cart
from tciafs.archives.search import (
    find_collections,
    find_named_patients,
    find_patients,
    get_values,
)
from tciafs.archives.values import text
from tciafs.archives.wire import (
    CollectionRow,
    DescriptionRow,
    LicenseRow,
    PatientRow,
    SeriesRow,
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
from tciafs.archives.zipped import Zipped
from tciafs.criteria import Criteria
from tciafs.model import Collection, Description, Instance, Patient, Series, Study, Terms
from tciafs.selection import Selection

logger = logging.getLogger(__name__)

_MD5 = "v4/getMD5HashForImage"
_SERIES_MD5 = "v4/getMD5Hierarchy"
_ZIP = "v4/getImage"
_ZIP_MD5 = "v4/getImage?IncludeMD5"  # a parameter that servers older than 2025-11-26 refuse
_HEAD_SECONDS = 10.0
_DESCRIPTIONS = "v4/getCollectionDescriptions"
_OLD_DESCRIPTIONS = "getCollectionDescriptions"  # this one alone tells the licence (2.3)
_LICENSES = "getLicenses"
_LARGEST_DESCRIPTION = 4_000_000  # bytes
_LARGEST_TERMS = 16_000_000  # bytes: some 20,000 series
_GUEST = dict.fromkeys((_OLD_DESCRIPTIONS, _LICENSES), GUEST)

R = TypeVar("R")


class NBIA:
    """An archive that runs NBIA 9.5 or later."""

    has_ranges = False

    def __init__(self, name: str, http: Http, capabilities: Capabilities) -> None:
        self.name = name
        self.http = http
        self._capabilities = capabilities
        self._drill_down = DrillDown(http, capabilities)

    async def get_collections(self) -> list[Collection]:
        """Return all collections (v4/getCollectionValues)."""
        rows = await self.http.get_json("v4/getCollectionValues", {}, list[CollectionRow])
        names = {text(row.collection) for row in rows or []}
        return [Collection(name) for name in names if name]

    async def get_patients(self, collection: str) -> list[Patient]:
        """Return all patients of a collection (v4/getPatient)."""
        rows = await self.http.get_json("v4/getPatient", {"Collection": collection}, list[PatientRow])
        return distinct(patient_of(row, collection) for row in rows or [])

    async def get_studies(self, collection: str, patient_id: str) -> list[Study]:
        """Return all studies of a patient (v4/getPatientStudy)."""
        params = {"Collection": collection, "PatientID": patient_id}
        rows = await self.http.get_json("v4/getPatientStudy", params, list[StudyRow])
        return distinct(study_of(row, collection, patient_id) for row in rows or [])

    async def get_series(self, collection: str, patient_id: str) -> list[Series]:
        """Return all series of a patient (v4/getSeries)."""
        params = {"Collection": collection, "PatientID": patient_id}
        rows = await self.http.get_json("v4/getSeries", params, list[SeriesRow])
        return distinct(series_of(row, collection, patient_id) for row in rows or [])

    async def get_description(self, collection: str) -> Description:
        """Return what is said of a collection as a whole, with its licence where the server tells that."""
        row = DescriptionRow()
        for endpoint in (_OLD_DESCRIPTIONS, _DESCRIPTIONS):
            rows = await self._get_optional(endpoint, {"collectionName": collection}, list[DescriptionRow])
            if rows is not None:
                row = next((row for row in rows if text(row.collection) == collection), row)
                break
        licenses = None
        if row.license_id is not None:
            licenses = await self._get_optional(_LICENSES, {}, list[LicenseRow])
        return description_of(row, licenses or [])

    async def get_terms(self, collection: str) -> Counter[Terms]:
        """Count all series of a collection by their terms (v4/getSeries); some 20,000 at most."""
        params = {"Collection": collection}
        rows = await self.http.get_json("v4/getSeries", params, list[TermsRow], largest=_LARGEST_TERMS)
        distinct_rows = {row.series_instance_uid: row for row in rows or []}
        return Counter(terms_of(row) for row in distinct_rows.values() if text(row.collection) == collection)

    async def _get_optional(self, endpoint: str, params: dict[str, str], kind: type[R]) -> R | None:
        """Return an answer that can be done without: None where the server has or gives none."""
        if self._capabilities.lacks(endpoint):
            return None
        guest = _GUEST.get(endpoint)
        try:
            return await self.http.get_json(endpoint, params, kind, guest, _LARGEST_DESCRIPTION)
        except Unsupported:
            self._capabilities.note_lacking(endpoint)
        except (BadAnswer, Failed, Refused) as exc:
            logger.info("done without: %s", exc)
        return None

    def open_studies(self, collection: str) -> AbstractAsyncContextManager[AsyncIterator[list[Study]]]:
        """Stream all studies of a collection (v4/getPatientStudy)."""
        return open_records(self.http, "v4/getPatientStudy", collection, StudyRow, study_of)

    def open_series_of(self, collection: str) -> AbstractAsyncContextManager[AsyncIterator[list[Series]]]:
        """Stream all series of a collection (v4/getSeries)."""
        return open_records(self.http, "v4/getSeries", collection, SeriesRow, series_of)

    async def get_instances(self, wanted: Series, others: Sequence[Series] = ()) -> Listed:
        """Return the instances of `wanted` and, where one question serves for all, of `others`.

        With the drill-down: exact sizes and instance numbers in two requests (section 4). Without it:
        the UIDs alone, of `wanted`.
        """
        if self._drill_down.is_there():
            try:
                return await self._drill_down.images_of([wanted, *others])
            except Unsupported:
                if self._drill_down.is_there():
                    raise
        return {wanted.series_instance_uid: await self._list_uids(wanted)}

    async def find_collections(self, selection: Selection) -> list[Collection]:
        """Return the collections with a series that is selected (v4/getSimpleSearch)."""
        return await find_collections(self.http, selection)

    async def find_patients(self, selection: Selection) -> list[Patient]:
        """Return the patients that are selected (v4/getPatient, getSeries or getSimpleSearch)."""
        find = find_named_patients if selection.patients else find_patients
        return await find(self.http, selection)

    async def find_series(self, uids: Iterable[str]) -> list[Series]:
        """Return those of the series that the archive has (v4/getSeriesMetadata, else getSeries)."""
        return await find_series(self.http, self._capabilities, uids)

    async def get_cart(self, name: str) -> list[Series]:
        """Return the series of a shared cart (v1/getContentsByName: v4 has no such endpoint)."""
        return await get_cart(self.http, name)

    async def get_modalities(self) -> list[str]:
        """Return all modalities (v4/getModalityValues)."""
        return await get_values(self.http, "v4/getModalityValues")

    async def get_body_parts(self) -> list[str]:
        """Return all body parts (v4/getBodyPartValues)."""
        return await get_values(self.http, "v4/getBodyPartValues")

    async def search(self, criteria: Criteria) -> list[Series]:
        """Return the series that match, with their sizes (v4/getSimpleSearch, then getCartData)."""
        return await search(self.http, criteria)

    async def count_patients(self) -> dict[str, int]:
        """Return how many patients each collection has (v4/getCollectionValuesAndCounts)."""
        return await count_patients(self.http)

    async def get_manufacturers(self) -> list[str]:
        """Return all manufacturers (v4/getManufacturerValues)."""
        return await get_manufacturers(self.http)

    async def get_species(self) -> list[str]:
        """Return all species by name (v4/getSpeciesTax)."""
        return sorted(await get_species(self.http))

    def open_instance(
        self, instance: Instance, span: range | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream the stored file (v4/getSingleImage); always whole, since the server ignores ranges."""
        params = {
            "SeriesInstanceUID": instance.series_instance_uid,
            "SOPInstanceUID": instance.sop_instance_uid,
        }
        head_seconds = _HEAD_SECONDS + instance.estimate / SERVER_BYTES_PER_SECOND
        return self.http.stream("v4/getSingleImage", params, head_seconds)

    async def get_md5(self, instance: Instance) -> str | None:
        """Return the digest in the archive's database (v4/getMD5HashForImage); empty means it has none."""
        params = {"SOPInstanceUID": instance.sop_instance_uid}
        return await self._digest(_MD5, lambda: self.http.get_text(_MD5, params))

    @asynccontextmanager
    async def open_series(self, series_instance_uid: str) -> AsyncIterator[Zipped]:
        """Stream the series as a ZIP sorted by InstanceNumber, digests at its end (v4/getImage)."""
        if self._capabilities.lacks(_ZIP):
            raise Unsupported(f"{_ZIP}: the server has none")
        params = {"SeriesInstanceUID": series_instance_uid, "NewFileNames": "Yes"}
        if not self._capabilities.lacks(_ZIP_MD5):
            params["IncludeMD5"] = "Yes"
        try:
            async with self.http.stream(_ZIP, params, _HEAD_SECONDS) as chunks:
                yield Zipped(chunks)
        except Unsupported:
            self._capabilities.note_lacking(_ZIP)
            raise
        except BadAnswer as exc:
            if "Invalid query parameter" in str(exc):
                self._capabilities.note_lacking(_ZIP_MD5)
            raise

    async def get_series_md5(self, series_instance_uid: str) -> str | None:
        """Return the digest of the series' digests (v4/getMD5Hierarchy)."""
        form = [("SeriesInstanceUID", series_instance_uid)]
        return await self._digest(_SERIES_MD5, lambda: self.http.post_text(_SERIES_MD5, form))

    async def _digest(self, endpoint: str, ask: Callable[[], Awaitable[str]]) -> str | None:
        if self._capabilities.lacks(endpoint):
            return None
        try:
            digest = await ask()
        except Unsupported:
            self._capabilities.note_lacking(endpoint)
            return None
        if digest and not re.fullmatch(r"[0-9a-fA-F]{32}", digest):
            raise BadAnswer(f"{endpoint}: something else than a digest came")
        return digest.lower() or None

    async def _list_uids(self, series: Series) -> list[Instance]:
        params = {"SeriesInstanceUID": series.series_instance_uid}
        rows = await self.http.get_json("v4/getSOPInstanceUIDs", params, list[SopRow])
        return distinct(instance_of(series, row.sop_instance_uid) for row in rows or [])
