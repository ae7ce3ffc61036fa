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
from tciafs.archives.values import text
from tciafs.archives.wire import SeriesRow, StudyRow
from tciafs.model import Series, Study

Row = TypeVar("Row", StudyRow, SeriesRow)
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


async def _records(
    parts: AsyncIterator[list[Row]], collection: str, record_of: Callable[[Row, str, str], R | None]
) -> AsyncGenerator[list[R], None]:
    async for rows in parts:
        named = [(row, patient_id) for row in rows if (patient_id := text(row.patient_id))]
        found = [record_of(row, collection, patient_id) for row, patient_id in named]
        yield [record for record in found if record]


async def _parts(
    endpoint: str, chunks: AsyncIterator[bytes], kind: type[Row]
) -> AsyncGenerator[list[Row], None]:
    found: Any = ijson.sendable_list()
    parser = ijson.items_coro(found, "item", use_float=True)
    try:
        async for chunk in chunks:
            parser.send(chunk)
            yield msgspec.convert(found, list[kind], strict=False)  # type: ignore[valid-type]
            del found[:]
        parser.close()
    except ijson.JSONError as exc:
        raise BadAnswer(f"{endpoint}: what came is no whole listing: {one_line(str(exc))}") from exc
    except msgspec.ValidationError as exc:
        raise BadAnswer(f"{endpoint}: the rows have another shape than NBIA's: {exc}") from exc
