"""A series that is submitted again within the life of its listing: never new bytes under an old version."""

from __future__ import annotations

import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pydicom
import pytest

from tciafs.catalog.catalog import CONFIRMED_SECONDS
from tciafs.database import digest_of
from tests.archive import EmbeddedArchive, start_archive
from tests.drive import mounted
from tests.test_content import bytes_of, files, opening, some
from tests.test_durability import MARGIN, SILENT, flip, slice_bytes, slices, version_of, wrong
from tests.test_mount import IMAGES, asked

SERIES = "v4/getSeries"
LISTINGS = ("v4/getSimpleSearch", "getImageDrillDown")


def grow_old(room: Path, seconds: float = CONFIRMED_SECONDS + 60) -> None:
    """Let all listings be older than they are, as if the mount had been there for so long."""
    (catalog,) = room.glob("cache/*/guest/catalog.sqlite")
    with closing(sqlite3.connect(catalog, timeout=10)) as db, db:
        for inode, listed_at in db.execute("SELECT inode, listed_at FROM listing").fetchall():
            old = listed_at - seconds
            db.execute(
                "UPDATE listing SET listed_at = ?, digest = ? WHERE inode = ?",
                (old, digest_of(inode, old), inode),
            )


def opened(path: Path) -> tuple[str, int, bytes]:
    """Return the name and inode number of a file, and the bytes that are read under them."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return path.name, os.fstat(fd).st_ino, os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


@pytest.mark.says(
    "Before a file is fetched from a listing older than ten minutes, the archive is asked whether its series"
    " was submitted again."
)
def test_a_series_submitted_again_within_the_life_of_its_listing_is_never_a_mix(tmp_path: Path):
    old, new = version_of(tmp_path / "old", 0, 12), version_of(tmp_path / "new", 1, 12)
    uid = str(pydicom.dcmread(tmp_path / "old" / "Changing" / "0.dcm").SeriesInstanceUID)
    with start_archive("--data", tmp_path / "old") as archive:
        port = archive.url.split(":")[2].split("/")[0]
        archive.edit(series=uid, submitted="2020-01-01")
        with mounted(tmp_path, archive.url, "--ahead=off") as drive:
            files = drive.files()
            inodes = {path.name: path.stat().st_ino for path in files}
            read = [opened(path) for path in files[:6]]
            assert SERIES not in asked(archive, lambda: files[6].read_bytes())  # the listing is young
            (stored, *_) = (tmp_path / "cache").glob("*/guest/objects/*/*")
            stored.unlink()  # as another mount evicts: what is fetched again is asked for, too
            archive.stop()
            with start_archive("--data", tmp_path / "new", "--port", port) as successor:
                successor.edit(series=uid, submitted="2021-01-01")
                grow_old(tmp_path)
                with ThreadPoolExecutor(6) as pool:
                    read += pool.map(opened, files[7:])
                counts = successor.requests()
                assert (counts[SERIES], *(counts[name] for name in LISTINGS)) == (1, 1, 1)
                assert sum(counts[name] for name in IMAGES if name in counts) == 5
                read += [opened(path) for path in files]
                assert successor.requests()[SERIES] == 1
                assert len({name for name, _, _ in read}) == 12
                for name, inode, content in read:
                    assert content == (old if inode == inodes[name] else new)[name]
                assert {inode for _, inode, _ in read[-12:]}.isdisjoint(inodes.values())


def test_the_question_is_put_once_a_patient_and_never_for_what_is_cached(
    tmp_path: Path, archive: EmbeddedArchive
):
    with mounted(tmp_path, archive.url, "--ahead=off", *SILENT) as drive:
        files, many = slices(drive), drive.files("Demo-CT/PHANTOM-01/*/*/*")
        assert wrong({number: files[number] for number in range(10)}) == []
        grow_old(tmp_path)
        for path in many:
            path.stat()
        assert asked(archive, lambda: wrong({number: files[number] for number in range(10)})) == {}
        archive.faults(latency_ms=100)
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda number: files[number].read_bytes() == slice_bytes(number), range(30)))
            assert all(pool.map(lambda path: len(path.read_bytes()) > 0, many[:5]))
        assert archive.requests()[SERIES] == 1


@pytest.mark.parametrize("fault", ["status", "stall"])
def test_where_the_question_is_not_answered_the_file_is_fetched_all_the_same(
    tmp_path: Path, archive: EmbeddedArchive, fault: str
):
    with mounted(tmp_path, archive.url, "--ahead=off", *SILENT) as drive:
        files = slices(drive)
        grow_old(tmp_path)
        archive.reset()
        archive.faults(rules=[{"endpoint": "getSeries", "do": fault}])
        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(lambda number: files[number].read_bytes() == slice_bytes(number), range(10)))
        assert time.monotonic() - began < 2 * MARGIN
        assert wrong({number: files[number] for number in range(10, 20)}) == []
        assert archive.requests()[SERIES] <= 3  # one question, and no more of them for a minute


@pytest.mark.alarming
async def test_what_may_not_be_fetched_is_not_brought_anew_for_a_damaged_file_either(
    tmp_path: Path, archive: EmbeddedArchive
):
    instance = await some(archive)

    async def refuse() -> None:
        raise PermissionError

    async with opening(tmp_path, archive) as content:
        assert await bytes_of(content, instance)
        archive.reset()
        (await content.open(instance, refuse)).close()
    (stored,) = files(tmp_path)
    flip(stored)
    async with opening(tmp_path, archive) as content:
        with pytest.raises(PermissionError):
            await content.open(instance, refuse)
        assert archive.requests() == {}
