"""Exact sizes and instance numbers of many series' images at once, by NBIA's drill-down (nbia-api 4)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import trio

from tciafs.archives.base import ArchiveError, BadAnswer, Failed, Refused, Unsupported
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.http import Http
from tciafs.archives.interfaces import Interface
from tciafs.archives.keys import ImageRow, StudyKey
from tciafs.archives.search import form_of
from tciafs.archives.wire import SearchAnswer, distinct, instance_of
from tciafs.model import Instance, Series

_FEW = 500  # rows; more, made to records here, would hold up the kernel's requests
_FAILURES_BORNE = 32  # finds two bad series of 20,000, or five of a hundred; an outage costs no more

_NULL_POINTER = re.compile(r" request (null|Cannot invoke .*)$")  # as older and newer Javas say it (2.0)

Listed = dict[str, list[Instance] | ArchiveError]


class DrillDown:
    """The drill-down of one server, by all ways that an interface has."""

    def __init__(self, http: Http, capabilities: Capabilities, interface: Interface) -> None:
        self._http = http
        self._capabilities = capabilities
        self._keys = interface.search or interface.study_drill_down
        self._has_search = interface.search is not None
        self._drill_downs = list(interface.drill_downs)

    def is_there(self) -> bool:
        """Tell whether the server has it, as far as it said."""
        lacks = self._capabilities.lacks
        return self._keys is not None and not lacks(self._keys) and not all(map(lacks, self._drill_downs))

    def is_gap(self, listed: list[Instance] | ArchiveError) -> bool:
        """Tell whether v4 says, where there is no other to ask, that an image has no number or size (4.1)."""
        others = [each for each in self._drill_downs if not each.startswith("v4/")]
        is_alone = len(others) < len(self._drill_downs) and all(map(self._capabilities.lacks, others))
        return is_alone and isinstance(listed, Failed) and bool(_NULL_POINTER.search(str(listed)))

    async def images_of(self, batch: Sequence[Series]) -> Listed:
        """Ask for the images of a batch, in halves where the server fails on a row (section 4.1)."""
        rows: list[ImageRow] = []
        failures: list[Failed] = []
        parts = [await self._get_keys(batch)]
        while parts and len(failures) <= _FAILURES_BORNE:
            keys = parts.pop()
            try:
                # A half is another try already, and an outage must not add up their pauses.
                rows += await self._get_images(keys, attempts=1 if failures else 2)
            except Failed as exc:
                failures.append(exc)
                if len(keys) > 1:
                    half = len(keys) // 2
                    parts += [keys[half:], keys[:half]]
        failure = failures[-1] if failures else None
        if len(rows) < _FEW:
            return _by_series(batch, rows, failure)
        return await trio.to_thread.run_sync(_by_series, batch, rows, failure)

    async def _get_keys(self, batch: Sequence[Series]) -> list[int]:
        """Return the database keys of the series: what the drill-down asks by (section 4.2)."""
        assert self._keys
        uids = [series.series_instance_uid for series in batch]
        try:
            return await (self._search if self._has_search else self._study_drill_down)(self._keys, uids)
        except Unsupported:
            self._capabilities.note_lacking(self._keys)
            raise

    async def _search(self, endpoint: str, uids: Sequence[str]) -> list[int]:
        form = form_of([("SeriesCriteria", uid) for uid in uids], 0, len(uids) + 1)
        answer = await self._http.post_json(endpoint, form, SearchAnswer)
        patients = answer.result_set if answer else []
        return [
            key
            for patient in patients
            for study in patient.study_identifiers
            for key in study.series_identifiers
        ]

    async def _study_drill_down(self, endpoint: str, uids: Sequence[str]) -> list[int]:
        form = [("list", uid) for uid in uids]
        studies = await self._http.post_json(endpoint, form, list[StudyKey])
        wanted = set(uids)
        return [each.key for study in studies or [] for each in study.series_list if each.uid in wanted]

    async def _get_images(self, keys: Sequence[int], attempts: int) -> list[ImageRow]:
        """Return the images of the series; raise `Unsupported` where neither drill-down exists."""
        form = [("list", str(key)) for key in keys]
        failure: ArchiveError = Unsupported("getImageDrillDown: the server has none")
        failures: list[ArchiveError] = []
        for endpoint in list(self._drill_downs) if keys else []:
            if self._capabilities.lacks(endpoint):
                continue
            try:
                rows = await self._http.post_json(endpoint, form, list[ImageRow], attempts)
            except Unsupported:
                self._capabilities.note_lacking(endpoint)
            except (BadAnswer, Failed, Refused) as exc:
                failure = Failed(str(exc))
                failures.append(exc)
            else:
                self._ask_first(endpoint, failures)
                return rows or []
        if keys:
            raise failure
        return []

    def _ask_first(self, endpoint: str, failures: Sequence[ArchiveError]) -> None:
        """Ask an endpoint that answered, `failures` of the other notwithstanding, before that from now on."""
        for failure in failures:
            self._http.forgive(failure)
        self._drill_downs.remove(endpoint)
        self._drill_downs.insert(0, endpoint)


def _by_series(batch: Sequence[Series], rows: Sequence[ImageRow], failure: ArchiveError | None) -> Listed:
    of_series: dict[str, list[ImageRow]] = {series.series_instance_uid: [] for series in batch}
    for row in rows:
        if row.series_instance_uid in of_series:
            of_series[row.series_instance_uid].append(row)
    listed: Listed = {}
    for series in batch:
        found = of_series[series.series_instance_uid]
        images = [instance_of(series, row.sop_instance_uid, row.instance_number, row.size) for row in found]
        listed[series.series_instance_uid] = failure if failure and not found else distinct(images)
    return listed
