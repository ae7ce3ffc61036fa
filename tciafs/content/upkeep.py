"""Examine and mend a cache as a whole: every file against its row, every row against its file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trio

from tciafs.content.blocks import BLOCK_BYTES, block_count, is_there, is_whole
from tciafs.content.cache import Cache
from tciafs.content.index import Index, Stored


@dataclass(slots=True)
class Findings:
    """What is wrong: files that are not what was fetched, rows without a file, files without a row."""

    damaged: list[Stored] = field(default_factory=list)
    missing: list[Stored] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Return how many things are wrong."""
        return len(self.damaged) + len(self.missing) + len(self.unknown)

    def lines(self) -> Iterator[str]:
        """Yield a line for each thing that is wrong."""
        yield from (f"damaged: {stored.key}" for stored in self.damaged)
        yield from (f"gone: {stored.key}" for stored in self.missing)
        yield from (f"nobody's: {path}" for path in self.unknown)


async def examine(cache: Cache, index: Index) -> Findings:
    """Compare all files with the digests of what was fetched; reads every byte."""
    found = await trio.to_thread.run_sync(_examine, cache, await _rows(index))
    if not found.count:
        return found
    # That may have taken long, and a mount may have been at work: what is wrong is looked at again.
    rows = {stored.key: stored for stored in await _rows(index)}
    suspects = [rows[one.key] for one in (*found.damaged, *found.missing) if one.key in rows]
    again = await trio.to_thread.run_sync(_compare, cache, suspects)
    known = {_path(cache, stored) for stored in rows.values()}
    again.unknown = [path for path in found.unknown if path not in known and path.exists()]
    return again


async def mend(cache: Cache, index: Index) -> int:
    """Remove what is wrong, and what a crash left half-written; return how many things that were."""
    found = await examine(cache, index)
    gone = [stored.key for stored in (*found.damaged, *found.missing)]
    await index.note_gone(gone)
    await index.drop_blocks(gone)
    for stored in found.damaged:
        cache.remove(stored.key)
    for path in found.unknown:
        path.unlink(missing_ok=True)
    return found.count + cache.remove_leftovers()


async def clear_objects(cache: Cache, index: Index) -> tuple[int, int]:
    """Remove all files; return how many there were, and their bytes."""
    rows = await index.least_recently_used(-1)
    for _, key, _ in rows:
        cache.remove(key)
    await index.note_evicted([(last_used, key) for last_used, key, _ in rows])
    return len(rows), sum(size for _, _, size in rows)


async def _rows(index: Index) -> list[Stored]:
    return [*await index.on_disk(), *await index.partial()]


def _path(cache: Cache, stored: Stored) -> Path:
    return cache.path(stored.key) if stored.on_disk else cache.sparse_path(stored.key)


def _examine(cache: Cache, rows: list[Stored]) -> Findings:
    found = _compare(cache, rows)
    known = {_path(cache, stored) for stored in rows}
    unknown = (path for path in (*cache.files(), *cache.sparse_files()) if path not in known)
    found.unknown = [path for path in unknown if not cache.is_being_written(path)]
    return found


def _compare(cache: Cache, rows: list[Stored]) -> Findings:
    found = Findings()
    for stored in rows:
        try:
            with _path(cache, stored).open("rb") as file:
                if not _is_as_fetched(iter(lambda: file.read(BLOCK_BYTES), b""), stored):
                    found.damaged.append(stored)
        except FileNotFoundError:
            found.missing.append(stored)
        except OSError:  # a bad sector
            found.damaged.append(stored)
    return found


def _is_as_fetched(blocks: Iterator[bytes], stored: Stored) -> bool:
    size = number = 0
    for number, block in enumerate(blocks, 1):
        size += len(block)
        is_expected = stored.on_disk or is_there(number - 1, stored.digests)
        if is_expected and not is_whole(block, number - 1, stored.digests):
            return False
    if not stored.on_disk:
        return not any(is_there(after, stored.digests) for after in range(number, block_count(stored.size)))
    return size == stored.size and number == block_count(stored.size)
