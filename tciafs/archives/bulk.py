"""Listings that may be too large for memory: rows some at a time, while their answer streams.

NBIA orders no rows, so that nothing is whole before the list's end; an answer without one is an error.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import ijson
import msgspec

from tciafs.archives.base import BadAnswer
from tciafs.archives.http import Http
from tciafs.archives.meanings import one_line
from tciafs.archives.values import Text, text
from tciafs.archives.wire import SeriesRow, StudyRow
from tciafs.model import Series, Study


class ChangedRow(
    msgspec.Struct,
    rename={
        "study_instance_uid": "StudyInstanceUID",
        "patient_id": "PatientID",
        "collection": "Collection",
    },
):
    """Which study a row of NewStudiesInPatientCollection or getUpdatedSeries is about: it must say so."""

    study_instance_uid: str
    patient_id: Text
    collection: Text


Row = TypeVar("Row", StudyRow, SeriesRow, ChangedRow)
R = TypeVar("R", Study, Series)


@asynccontextmanager
async def open_records(
    http: Http,
    endpoint: str,
    params: Mapping[str, str],
    kind: type[Row],
    record_of: Callable[[Row, str, str], R | None],
) -> AsyncIterator[AsyncIterator[list[R]]]:
    """Stream what an endpoint lists of a collection, or, with more than that in `params`, of a part of it.

    The last records have come when the list has ended.
    """
    async with (
        http.stream_listing(endpoint, params) as chunks,
        aclosing(_parts(endpoint, chunks, kind)) as parts,
        aclosing(_records(parts, params["Collection"], record_of)) as records,
    ):
        yield records


async def changed_studies(
    http: Http, endpoint: str, params: Mapping[str, str], collection: str
) -> AsyncGenerator[list[Study], None]:
    """Yield the studies of a collection that an endpoint for updates names; an empty answer names none."""
    async with (
        http.stream_listing(endpoint, params) as chunks,
        aclosing(_parts(endpoint, chunks, ChangedRow, may_be_empty=True)) as parts,
    ):
        async for rows in parts:
            yield [study for row in rows if (study := _changed_study(row, collection))]


def _changed_study(row: ChangedRow, collection: str) -> Study | None:
    """Return the study without its description, None for a row of another collection."""
    patient_id = text(row.patient_id)
    if not patient_id or text(row.collection) != collection:
        return None
    return Study(collection, patient_id, row.study_instance_uid)


async def _records(
    parts: AsyncIterator[list[Row]], collection: str, record_of: Callable[[Row, str, str], R | None]
) -> AsyncGenerator[list[R], None]:
    async for rows in parts:
        named = [(row, patient_id) for row in rows if (patient_id := text(row.patient_id))]
        found = [record_of(row, collection, patient_id) for row, patient_id in named]
        yield [record for record in found if record]


async def _parts(
    endpoint: str, chunks: AsyncIterator[bytes], kind: type[Row], may_be_empty: bool = False
) -> AsyncGenerator[list[Row], None]:
    found: Any = ijson.sendable_list()
    parser = ijson.items_coro(found, "item", use_float=True)
    try:
        async for chunk in chunks:
            may_be_empty = False
            parser.send(chunk)
            yield msgspec.convert(found, list[kind], strict=False)  # type: ignore[valid-type]
            del found[:]
        if not may_be_empty:
            parser.close()
    except ijson.JSONError as exc:
        raise BadAnswer(f"{endpoint}: what came is no whole listing: {one_line(str(exc))}") from exc
    except msgspec.ValidationError as exc:
        raise BadAnswer(f"{endpoint}: the rows have another shape than NBIA's: {exc}") from exc
