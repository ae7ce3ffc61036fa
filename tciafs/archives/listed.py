"""Where listed series are: those of a manifest, by their UIDs, and those of a shared cart.

Series are found by UID across all collections, many with one request (nbia-api 2.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tciafs.archives.base import Unsupported
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.http import Http
from tciafs.archives.interfaces import Interface
from tciafs.archives.parts import all_of
from tciafs.archives.values import text
from tciafs.archives.wire import SeriesRow, distinct, series_of
from tciafs.model import Series

_AT_ONCE = 5_000  # half of what others send, so that the first byte comes before a server seems silent


async def find_series(
    http: Http, capabilities: Capabilities, at: Interface, uids: Iterable[str]
) -> list[Series]:
    """Return those of the series that the archive has: all of them, or an error."""
    wanted = sorted(set(uids))
    metadata = at.series_metadata
    if metadata and not capabilities.lacks(metadata):
        parts = [wanted[first : first + _AT_ONCE] for first in range(0, len(wanted), _AT_ONCE)]
        try:
            return await all_of(lambda part: _of_many(http, metadata, part), parts)
        except Unsupported:
            capabilities.note_lacking(metadata)
    return await all_of(lambda uid: _of_one(http, at, uid), wanted)


async def get_cart(http: Http, at: Interface, name: str) -> list[Series]:
    """Return the series of a shared cart; none where nobody shared one under that name."""
    return _series(await http.get_json(at.carts, {"name": name}, list[SeriesRow]))


async def _of_many(http: Http, endpoint: str, uids: Sequence[str]) -> list[Series]:
    # One list with commas is one query; repeated fields would be one each.
    form = [("list", ",".join(uids)), ("format", "json")]
    return _series(await http.post_json(endpoint, form, list[SeriesRow]))


async def _of_one(http: Http, at: Interface, uid: str) -> list[Series]:
    return _series(await http.get_json(at.path("getSeries"), {"SeriesInstanceUID": uid}, list[SeriesRow]))


def _series(rows: Iterable[SeriesRow] | None) -> list[Series]:
    return distinct(
        series_of(row, collection, patient_id)
        for row in rows or []
        if (collection := text(row.collection)) and (patient_id := text(row.patient_id))
    )
