"""Writes a ZIP as java.util.zip.ZipOutputStream does on a socket: sizes follow the data, never precede it.

The standard library marks such entries otherwise (no UTF-8 flag on plain names), and clients must be
tested against what NBIA really sends.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

_FLAGS = 0x0808  # bit 3: descriptor after the data; bit 11: the name is UTF-8
_VERSION = 20
_DEFLATE = 8
_LEVEL = 1  # the quickest: no client can tell
_SLICE = 256 * 1024
_KEPT = 512  # files deflated before
_LARGEST_KEPT = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_DESCRIPTOR = struct.Struct("<4s3L")
_DIRECTORY_ENTRY = struct.Struct("<4s6H3L5H2L")
_DIRECTORY_END = struct.Struct("<4s4H2LH")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to be: its name, and what gives its bytes when its turn comes."""

    name: str
    read: Callable[[], bytes]


def zip_stream(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield the ZIP of `entries` piece by piece."""
    stamp = _dos_time()
    offset = 0
    directory = []
    for entry in entries:
        start, name, data = offset, entry.name.encode(), entry.read()
        checksum, compressed_size = zlib.crc32(data), 0
        pieces = _kept(data) if len(data) <= _LARGEST_KEPT else _deflate(data)
        head = _LOCAL_HEADER.pack(b"PK\3\4", _VERSION, _FLAGS, _DEFLATE, *stamp, 0, 0, 0, len(name), 0)
        yield head + name
        for piece in pieces:
            compressed_size += len(piece)
            yield piece
        yield _DESCRIPTOR.pack(b"PK\7\10", checksum, compressed_size, len(data))
        sizes = (checksum, compressed_size, len(data))
        versions = (_VERSION, _VERSION, _FLAGS, _DEFLATE)
        row = _DIRECTORY_ENTRY.pack(b"PK\1\2", *versions, *stamp, *sizes, len(name), 0, 0, 0, 0, 0, start)
        directory.append(row + name)
        offset += len(head) + len(name) + compressed_size + _DESCRIPTOR.size
    yield from directory
    count, length = len(directory), sum(map(len, directory))
    yield _DIRECTORY_END.pack(b"PK\5\6", 0, 0, count, count, length, offset, 0)


@lru_cache(_KEPT)  # a real archive has a faster machine to itself
def _kept(data: bytes) -> tuple[bytes, ...]:
    return tuple(_deflate(data))


def _deflate(data: bytes) -> Iterator[bytes]:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    for start in range(0, len(data), _SLICE):
        if piece := packer.compress(data[start : start + _SLICE]):
            yield piece
    yield packer.flush()


def _dos_time() -> tuple[int, int]:
    now = time.localtime()
    clock = now.tm_hour << 11 | now.tm_min << 5 | now.tm_sec // 2
    return clock, (now.tm_year - 1980) << 9 | now.tm_mon << 5 | now.tm_mday
