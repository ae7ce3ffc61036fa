"""A series as NBIA zips it: its entries while they stream in, its digests at the end.

No length or entry count stands in front, and a ZIP that ends early is a valid ZIP: whoever reads it
must know what it should hold.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import trio
from stream_unzip import UnzipError, stream_unzip

from tciafs.archives.base import BadAnswer, Entry

T = TypeVar("T")

_DIGESTS = "md5hashes.csv"
_LARGEST_DIGESTS = 64 << 20
_INFLATE_BYTES = 1 << 20  # an entry's piece: each is a visit to a thread
_GATHER_BYTES = 256 << 10


@dataclass(slots=True)
class Zipped:
    """The images of a ZIP, one after the other; `md5s`, by entry name, are there at the end."""

    chunks: AsyncIterator[bytes]
    _md5s: dict[str, str] = field(default_factory=dict)

    @property
    def md5s(self) -> Mapping[str, str]:
        """Return the MD5 of each entry that the archive told, by its name."""
        return self._md5s

    async def entries(self) -> AsyncGenerator[Entry, None]:
        """Yield each image; what of it is not read is skipped.

        Raise `BadAnswer` where it is no ZIP, is cut, or a CRC does not hold; the pieces of an entry do, too.
        """
        async with aclosing(_gathered(self.chunks)) as chunks:
            files = stream_unzip(_pulled(chunks), chunk_size=_INFLATE_BYTES)
            async with aclosing(_in_thread(_pieces(files))) as pieces:
                async for piece in pieces:
                    async with aclosing(_of_one(piece, pieces)) as chunks:
                        entry = Entry(piece.name.decode("utf-8", "replace"), chunks)
                        if entry.name == _DIGESTS:
                            self._md5s = _digests(await _read(chunks))
                        elif entry.name.endswith(".dcm"):
                            yield entry
                        async for _ in chunks:
                            pass


class _Piece(NamedTuple):
    """A part of an entry; with the last one its CRC held."""

    name: bytes
    data: bytes
    is_last: bool


def _pieces(files: Iterable[tuple[bytes, int | None, Iterator[bytes]]]) -> Iterator[_Piece]:
    """Yield the pieces of all entries: one for most, so that each costs one visit to a thread."""
    for name, _, content in files:
        following = next(content, b"")
        is_last = False
        while not is_last:
            piece, following = following, next(content, b"")
            is_last = not following
            yield _Piece(name, piece, is_last)


async def _of_one(piece: _Piece, following: AsyncGenerator[_Piece, None]) -> AsyncGenerator[bytes, None]:
    """Yield what belongs to the same entry as `piece`, its first."""
    yield piece.data
    while not piece.is_last:
        piece = await anext(following)
        yield piece.data


async def _gathered(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the same bytes in larger pieces: the network brings them in small ones."""
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        if len(buffer) >= _GATHER_BYTES:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer)


async def _in_thread(items: Iterator[T]) -> AsyncGenerator[T, None]:
    """Yield what an iterator makes in a thread; the library's own way leaves generators behind."""
    try:
        while (item := await trio.to_thread.run_sync(next, items, None)) is not None:
            yield item
    except UnzipError as exc:
        raise BadAnswer(f"a series' ZIP is broken: {type(exc).__name__}") from exc


def _pulled(chunks: AsyncIterator[bytes]) -> Iterator[bytes]:
    """Yield, in a thread, what comes in the task that waits for it."""

    async def pull() -> bytes | None:
        return await anext(chunks, None)

    while (chunk := trio.from_thread.run(pull)) is not None:
        yield chunk


async def _read(pieces: AsyncIterator[bytes]) -> str:
    read = bytearray()
    async for piece in pieces:
        read += piece
        if len(read) > _LARGEST_DIGESTS:
            raise BadAnswer(f"{_DIGESTS} of a series does not end")
    return read.decode("utf-8", "replace")


def _digests(text: str) -> dict[str, str]:
    rows = csv.reader(io.StringIO(text))
    return {row[0]: row[1].strip().lower() for row in rows if len(row) == 2 and len(row[1].strip()) == 32}
