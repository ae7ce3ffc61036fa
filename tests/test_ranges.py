"""Large objects of an archive with ranges: what is read is fetched, once and true, and no more."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, closing
from pathlib import Path

import numpy as np
import pydicom
import pytest
import trio
from pydicom.uid import UID

from tciafs.archives.base import ArchiveError, BadAnswer, Overdue
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.http import Http
from tciafs.content.blocks import BLOCK_BYTES, block_count
from tciafs.content.cache import Cache, claim
from tciafs.content.content import Content
from tciafs.content.handle import Patience
from tciafs.content.index import Index, object_key
from tciafs.content.limits import INDEX_NAME, Limits
from tciafs.content.place import Place
from tciafs.content.upkeep import examine, mend
from tciafs.demo import phantom
from tciafs.demo.template import encode
from tciafs.model import Instance
from tests.archive import EmbeddedArchive, start_archive
from tests.drive import Drive, mounted
from tests.ranged import Ranged
from tests.test_durability import mapped
from tests.test_mount import MD5

IMAGE = "v4/getSingleImage"
MIB = 1 << 20


def _file(path: Path, mebibytes: int, uid: str) -> bytes:
    """Write a DICOM file of many frames, no two MiB of which are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(phantom.multiframe_file())
    header = pydicom.dcmread(path)
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    header.SeriesInstanceUID = UID(f"{uid}.1")
    header.NumberOfFrames = mebibytes * MIB // (2 * phantom.SIDE**2)
    noise = np.random.default_rng(7).integers(0, 1 << 16, MIB // 2, dtype=np.uint16)
    pixels = np.concatenate([noise + np.uint16(number) for number in range(mebibytes)])
    header.PixelData = pixels[: header.NumberOfFrames * phantom.SIDE**2].tobytes()
    content = encode(header)
    path.write_bytes(content)
    return content


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedArchive, bytes, bytes]]:
    """Serve a file of 200 MB and one of 40 MB; yield their bytes, too."""
    folder = tmp_path_factory.mktemp("ranges")
    huge, large = (
        _file(folder / "Huge" / "1.dcm", 200, "1.2.3.200"),
        _file(folder / "Large" / "1.dcm", 40, "1.2.3.40"),
    )
    with start_archive("--data", folder) as archive:
        yield archive, huge, large


@pytest.fixture
def archive(served: tuple[EmbeddedArchive, bytes, bytes]) -> Iterator[EmbeddedArchive]:
    """Serve them in ranges."""
    served[0].reset()
    served[0].faults(ranges=True)
    yield served[0]
    served[0].reset()


def drive_of(
    room: Path, archive: EmbeddedArchive, expect: str | None = None
) -> AbstractContextManager[Drive]:
    """Mount the archive with ranges."""
    return mounted(room, archive.url, expect=expect, program="tests.ranged")


def asked(archive: EmbeddedArchive, look: Callable[[], object]) -> dict[str, int]:
    """Return what the archive is asked while `look` is done, with its switches as they are."""
    archive.forget()
    look()
    return archive.requests()


def damage(path: Path, offset: int) -> None:
    """Write something else over a few bytes."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"damage")


@asynccontextmanager
async def opening(
    room: Path, archive: EmbeddedArchive, limit: int = 1 << 40, patience: Patience | None = None
) -> AsyncIterator[tuple[Content, Instance]]:
    """Wire the content as a mount does; yield the instance of 40 MB, too."""
    claim(room / "cache")
    directory = room / "cache" / "test" / "guest"
    directory.mkdir(parents=True, exist_ok=True)
    async with Http.connect(archive.url) as http:
        ranged = Ranged("test", http, Capabilities(room / "capabilities.json"))
        (patient,) = await ranged.get_patients("Large")
        (series,) = await ranged.get_series("Large", patient.patient_id)
        (listed,) = (await ranged.get_instances(series)).values()
        assert isinstance(listed, list)
        (instance,) = listed
        archive.forget()
        with (
            closing(Index.open(directory / INDEX_NAME)) as index,
            closing(Limits(room / "cache", limit, keep_free=0)) as limits,
        ):
            async with trio.open_nursery() as nursery:
                place = Place(Cache(directory), index, limits)
                yield Content(ranged, place, nursery, patience=patience), instance
                nursery.cancel_scope.cancel()


async def whole_of(content: Content, instance: Instance) -> bytes:
    handle = await content.open(instance)
    try:
        return b"".join([await handle.read(start, MIB) for start in range(0, handle.size, MIB)])
    finally:
        handle.close()


@pytest.mark.says(
    "Of a file of more than 16 MiB, an archive that gives ranges is asked for the blocks of 4 MiB that are"
    " read, and the whole is verified once all are there."
)
def test_a_random_reader_of_a_huge_file_fetches_little_and_a_remount_nothing(
    tmp_path: Path, archive: EmbeddedArchive, served: tuple[EmbeddedArchive, bytes, bytes]
):
    _, content, _ = served
    places = [5, 30 * MIB, 77 * MIB + 3_500_000, 120 * MIB + 17, len(content) - MIB]

    def read(path: Path) -> bool:
        with path.open("rb", buffering=0) as file:
            return all(os.pread(file.fileno(), MIB, at) == content[at : at + MIB] for at in places)

    with drive_of(tmp_path, archive) as drive:
        (file,) = drive.files("Huge/*/*/*/*")
        assert file.stat().st_size == len(content) > 200_000_000
        counts = asked(archive, lambda: file.open("rb").close())
        assert IMAGE not in counts
        assert read(file)
        assert 5 <= archive.requests()[IMAGE] <= 10
        assert drive.status()["transfers"]["bytes"] <= 10 * BLOCK_BYTES
        assert os.statvfs(drive.path).f_blocks * 4096 <= 10 * BLOCK_BYTES + 4096
    with drive_of(tmp_path, archive) as drive:
        assert asked(archive, lambda: read(file)) == {}
        assert read(file)
    (stored,) = (tmp_path / "cache").glob("*/guest/sparse/*")
    damage(stored, 30 * MIB + 1000)
    with drive_of(tmp_path, archive, expect="damaged") as drive:
        assert asked(archive, lambda: read(file)) == {IMAGE: 1}
        assert read(file)


def test_a_file_read_through_is_exact_asked_for_once_and_then_one_like_any_other(
    tmp_path: Path, archive: EmbeddedArchive, served: tuple[EmbeddedArchive, bytes, bytes]
):
    _, _, content = served
    with drive_of(tmp_path, archive) as drive:
        (file,) = drive.files("Large/*/*/*/*")
        archive.forget()
        # A block that is sent at once may have ended before the next is asked for.
        archive.faults(ranges=True, rules=[{"do": "delay", "ms": 100, "endpoint": IMAGE}])
        with ThreadPoolExecutor(6) as pool:
            assert set(pool.map(lambda _: file.read_bytes() == content, range(6))) == {True}
        assert archive.requests() == {IMAGE: block_count(len(content)), MD5: 1}
        assert 2 <= archive.high_water()[IMAGE] <= 8
        assert os.getxattr(file, "user.tcia.cached") == b"1"
        assert list((tmp_path / "cache").glob("*/guest/sparse/*")) == []
        assert drive.status()["transfers"]["completed"] == 1
        assert mapped(file) == content
    with drive_of(tmp_path, archive) as drive:
        assert asked(archive, lambda: file.read_bytes() == content) == {}
        assert file.read_bytes() == content
    (stored,) = (tmp_path / "cache").glob("*/guest/objects/*/*")
    assert stored.read_bytes() == content


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"ranges": False}, BadAnswer),
        ({"rules": [{"do": "elsewhere"}]}, BadAnswer),
        ({"rules": [{"do": "short"}]}, BadAnswer),
        ({"rules": [{"do": "stall"}]}, Overdue),
    ],
    ids=["the whole", "elsewhere", "short", "silence"],
)
async def test_a_block_that_does_not_come_is_an_error_of_that_handle_alone(
    tmp_path: Path,
    archive: EmbeddedArchive,
    served: tuple[EmbeddedArchive, bytes, bytes],
    fault: dict[str, object],
    kind: type[ArchiveError],
):
    _, _, content = served
    patience = Patience(deadline=1 if kind is Overdue else 10)
    async with opening(tmp_path, archive, patience=patience) as (opened, instance):
        one, other = await opened.open(instance), await opened.open(instance)
        assert await one.read(0, 100) == content[:100]
        archive.faults(**{"ranges": True, **fault})
        with pytest.raises(kind):
            await one.read(9 * MIB, 100)
        assert await other.read(100, 100) == content[100:200]
        archive.faults(ranges=True)
        with pytest.raises(kind):
            await one.read(0, 100)
        assert await other.read(20 * MIB, 100) == content[20 * MIB :][:100]
        again = await opened.open(instance)
        assert await again.read(20 * MIB, 9) == content[20 * MIB :][:9]
        for handle in (one, other, again):
            handle.close()


async def test_each_block_is_fetched_only_where_its_version_is_the_newest(
    tmp_path: Path, archive: EmbeddedArchive, served: tuple[EmbeddedArchive, bytes, bytes]
):
    _, _, content = served
    replaced = False

    async def confirm() -> None:
        if replaced:
            raise PermissionError

    async with opening(tmp_path, archive) as (opened, instance):
        handle = await opened.open(instance, confirm)
        assert await handle.read(0, 9) == content[:9]
        replaced = True
        assert await handle.read(9, 9) == content[9:18]
        with pytest.raises(PermissionError):
            await handle.read(9 * MIB, 9)
        with pytest.raises(PermissionError):
            await opened.open(instance, confirm)
        handle.close()
        assert archive.requests() == {IMAGE: 1}


@pytest.mark.alarming
async def test_blocks_that_cannot_be_recorded_are_read_all_the_same(
    tmp_path: Path, archive: EmbeddedArchive, served: tuple[EmbeddedArchive, bytes, bytes]
):
    _, _, content = served
    async with opening(tmp_path, archive) as (opened, instance):
        database = opened.place.index._database
        handle = await opened.open(instance)
        assert await handle.read(0, 9) == content[:9]
        await database.run(lambda db: db.execute("PRAGMA query_only = 1"))
        assert await handle.read(9 * MIB, 9) == content[9 * MIB :][:9]
        assert await handle.read(0, 9) == content[:9]
        assert opened.place.cache.sparse_files() == []  # nobody's bytes would be counted by nobody
        assert await whole_of(opened, instance) == content
        assert opened.place.cache.files() == []
        handle.close()


async def test_a_cache_with_blocks_is_examined_and_mended(
    tmp_path: Path, archive: EmbeddedArchive, served: tuple[EmbeddedArchive, bytes, bytes]
):
    async with opening(tmp_path, archive) as (opened, instance):
        cache, index = opened.place.cache, opened.place.index
        for block in (1, 5):
            handle = await opened.open(instance)
            await handle.read(block * BLOCK_BYTES, 9)
            handle.close()
        assert (await examine(cache, index)).count == 0
        (stored,) = cache.sparse_files()
        damage(stored, 5 * BLOCK_BYTES)
        damage(stored, 2 * BLOCK_BYTES)  # a hole
        assert list((await examine(cache, index)).lines()) == [f"damaged: {object_key(instance)}"]
        assert await mend(cache, index) == 1
        assert (cache.sparse_files(), await opened.totals()) == ([], (0, 0))
        stored.write_bytes(b"nobody's")
        assert (await examine(cache, index)).unknown == [stored]
        assert await mend(cache, index) == 1
        await index.put_block("lost", 9, 0, b"1" * 16)
        assert await mend(cache, index) == 1
        assert await index.partial() == []


async def test_what_is_not_the_archives_is_withdrawn_from_all_and_fetched_anew(
    tmp_path: Path, archive: EmbeddedArchive, served: tuple[EmbeddedArchive, bytes, bytes]
):
    _, _, content = served
    async with opening(tmp_path, archive) as (opened, instance):
        archive.faults(ranges=True, rules=[{"do": "corrupt", "endpoint": "getSingleImage", "times": 1}])
        other = await opened.open(instance)
        with pytest.raises(BadAnswer, match="its MD5 is"):
            await whole_of(opened, instance)
        with pytest.raises(BadAnswer, match="its MD5 is"):
            await other.read(0, 100)
        other.close()
        assert await opened.totals() == (0, 0)
        assert await whole_of(opened, instance) == content
        handle = await opened.open(instance)
        assert not handle.keep_cache  # the kernel may have pages of what was withdrawn
        assert await handle.read(0, 9) == content[:9]
        handle.close()
        handle = await opened.open(instance)
        assert handle.keep_cache
        handle.close()
        assert archive.requests() == {IMAGE: 2 * block_count(len(content)), MD5: 2}


async def test_a_file_larger_than_the_cache_is_read_exactly_and_the_limit_holds(
    tmp_path: Path, archive: EmbeddedArchive, served: tuple[EmbeddedArchive, bytes, bytes]
):
    _, _, content = served
    limit, highest = 13 * MIB, 0
    async with opening(tmp_path, archive, limit) as (opened, instance):
        handle = await opened.open(instance)
        for start in range(0, handle.size, MIB):
            assert await handle.read(start, MIB) == content[start : start + MIB]
            _, total = await opened.totals()
            sizes = [path.stat().st_blocks * 512 for path in (tmp_path / "cache").rglob("sparse/*")]
            highest = max(highest, total, *sizes, 0)
        handle.close()
        assert BLOCK_BYTES <= highest <= limit
        assert archive.requests()[IMAGE] == block_count(len(content))


async def test_mounts_of_one_cache_share_blocks_and_what_is_evicted_is_fetched_again(
    tmp_path: Path, archive: EmbeddedArchive, served: tuple[EmbeddedArchive, bytes, bytes]
):
    _, _, content = served
    half = len(content) // 2
    async with opening(tmp_path, archive) as (one, instance), opening(tmp_path, archive) as (two, _):
        first, second = await one.open(instance), await two.open(instance)
        for handle in (first, second):
            assert await handle.read(half, 100) == content[half : half + 100]
        assert await second.read(5, 100) == content[5:105]
        assert await first.read(5, 100) == content[5:105]
        assert archive.requests() == {IMAGE: 2}
        assert await one.totals() == (1, 2 * BLOCK_BYTES)
        await one.place.limits.evict(BLOCK_BYTES)
        assert await two.totals() == (0, 0)
        assert await first.read(half, 9) == content[half : half + 9]  # what is open keeps its bytes
        assert await whole_of(two, instance) == content
        third = await one.open(instance)
        assert await third.read(half, 9) == content[half : half + 9]
        for handle in (first, second, third):
            handle.close()
