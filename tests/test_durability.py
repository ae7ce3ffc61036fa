"""What may befall a mounted drive: silence, sudden ends, lack of room, damage, rivals; and what must hold."""

from __future__ import annotations

import errno
import mmap
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tciafs.demo import phantom
from tciafs.demo.template import encode
from tests.archive import EmbeddedArchive, start_archive
from tests.drive import Drive, mounted, require_fuse
from tests.test_mount import IMAGES, PHANTOM, asked, raised

SILENT = ("--deadline-bytes", "2", "--deadline-metadata", "2")
NO_AGE = ("--ttl-collections", "0", "--ttl-listings", "0", "--ttl-instances", "0")
NO_SIZES = ["v4/getImageDrillDown", "getImageDrillDown"]
MARGIN = 3  # times a deadline, on a busy machine
IN_FLIGHT = 8  # transfers at once
GONE = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO}
"""What a reader sees of a drive that is killed under it."""


@cache
def slice_bytes(number: int) -> bytes:
    """Return what the file of a slice of the phantom must hold, counted from 0."""
    return phantom.slice_file(number)


def wrong(files: dict[int, Path], allowed: set[int] | None = None) -> list[Path]:
    """Return the slices that have wrong bytes; one that cannot be read must fail with an `allowed` errno."""
    found = []
    for number, path in files.items():
        try:
            content = path.read_bytes()
        except OSError as exc:
            if exc.errno not in (allowed or ()):
                raise
        else:
            if content != slice_bytes(number):
                found.append(path)
    return found


def slices(drive: Drive) -> dict[int, Path]:
    """Return the files of the phantom by the number of their slice."""
    return dict(enumerate(drive.files(PHANTOM)))


def shuffled(files: dict[int, Path], seed: object) -> dict[int, Path]:
    """Return the same files in an order that is always the same for a seed."""
    return dict(random.Random(str(seed)).sample(sorted(files.items()), len(files)))


def storm(files: dict[int, Path], readers: int, allowed: set[int] | None = None) -> list[Path]:
    """Let `readers` read all files at once, each in an order of its own; return those that are wrong."""
    with ThreadPoolExecutor(readers) as pool:
        found = pool.map(lambda seed: wrong(shuffled(files, seed), allowed), range(readers))
    return [path for paths in found for path in paths]


def transferred(archive: EmbeddedArchive) -> int:
    """Return how many images were asked for."""
    return sum(archive.requests().get(name, 0) for name in IMAGES)


def held(directory: Path) -> int:
    """Return the bytes of all objects in a cache directory, and of what arrives there, at one moment.

    Files come and go meanwhile: those count that are there before that moment and after.
    """
    before, after = _sizes(directory), _sizes(directory)
    return sum(size for file, size in before.items() if file in after)


def _sizes(directory: Path) -> dict[tuple[str, int], int]:
    found = {}
    for path in (*directory.glob("*/*/objects/*/*"), *directory.glob("*/*/parts/*")):
        with suppress(FileNotFoundError):
            status = path.stat()
            found[path.name[-60:], status.st_ino] = status.st_size  # a part keeps the end of its name
    return found


def until(is_so: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def mapped(path: Path) -> bytes:
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as whole:
        return bytes(whole)


# Silence


def test_200_readers_of_a_silent_archive_end_in_time_and_hold_up_nobody(
    tmp_path: Path, own_archive: EmbeddedArchive
):
    own_archive.edit(synthetic={"collection": "Many", "patient_id": "M", "series_of": 201})
    with mounted(tmp_path, own_archive.url, *SILENT) as drive:
        first, *files = drive.files("Many/*/*/*/*")
        content = first.read_bytes()
        own_archive.faults(rules=[{"do": "stall"}])
        with ThreadPoolExecutor(200) as readers:
            began = time.monotonic()
            waiting = [readers.submit(raised, file.read_bytes) for file in files]
            time.sleep(0.5)
            asked_at = time.monotonic()
            assert first.read_bytes() == content
            assert files[0].stat().st_size
            assert time.monotonic() - asked_at < 1.0
            assert {reader.result() for reader in waiting} == {errno.ETIMEDOUT}
            assert time.monotonic() - began < 2 * MARGIN
        own_archive.faults()
        with ThreadPoolExecutor(20) as readers:
            failures = [
                number for number in readers.map(lambda file: raised(file.read_bytes), files) if number
            ]
        # Whoever asks for what is still being waited for joins that request, for as long as it lasts.
        assert failures in [[errno.ETIMEDOUT] * count for count in range(IN_FLIGHT + 1)]


def test_a_reader_killed_while_it_waits_is_gone_within_the_deadline(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url, *SILENT) as drive:
        files = drive.files(PHANTOM)
        archive.faults(rules=[{"do": "stall"}])
        looks = [["cat", str(files[0])], ["ls", str(drive.path / "Demo-Mixed")]]
        readers = [subprocess.Popen(look, stdout=subprocess.DEVNULL) for look in looks]
        time.sleep(0.5)
        began = time.monotonic()
        for reader in readers:
            reader.kill()
        for reader in readers:
            assert reader.wait(timeout=2 * MARGIN) == -signal.SIGKILL
        assert time.monotonic() - began < 2 * MARGIN
        archive.faults()
        assert files[1].read_bytes() == slice_bytes(1)


# A sudden end


@pytest.mark.parametrize("size", ["20G", "2M"], ids=["while it commits", "while it evicts"])
def test_a_drive_killed_at_any_moment_serves_true_bytes_at_once_afterwards(
    tmp_path: Path, archive: EmbeddedArchive, size: str
):
    moments = random.Random(size)
    for _ in range(3):
        with mounted(tmp_path, archive.url, "--cache-size", size) as drive:
            assert list((tmp_path / "cache").glob("*/guest/parts/*")) == []
            files = slices(drive)
            assert wrong(dict(list(files.items())[::10])) == []
            with ThreadPoolExecutor(1) as pool:
                reading = pool.submit(storm, files, 8, GONE)
                time.sleep(moments.uniform(0.02, 0.8))
                drive.end(signal.SIGKILL)
                assert reading.result() == []
    with mounted(tmp_path, archive.url, "--cache-size", size) as drive:
        assert list((tmp_path / "cache").glob("*/guest/parts/*")) == []
        assert wrong(slices(drive)) == []


# Lack of room


def test_a_cache_smaller_than_one_series_serves_true_bytes_and_stays_small(
    tmp_path: Path, archive: EmbeddedArchive
):
    limit = 2 << 20
    slack = IN_FLIGHT * len(slice_bytes(0))
    with mounted(tmp_path, archive.url, "--cache-size", "2M") as drive:
        files = slices(drive)
        kept_open = {number: os.open(files[number], os.O_RDONLY) for number in range(10)}
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(storm, files, 3)
            told, found = [], []
            while not reading.done():
                told.append(drive.status()["cache"]["bytes"])
                found.append(held(tmp_path / "cache"))
            assert reading.result() == []
        for number, fd in kept_open.items():
            assert os.pread(fd, 1 << 20, 0) == slice_bytes(number)
            os.close(fd)
        assert max(told) <= limit + slack
        assert max(found) <= limit + slack
        assert drive.status()["cache"]["evictions"] > 100


def test_a_file_larger_than_the_whole_cache_is_read_all_the_same(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url, "--cache-size", "2M") as drive:
        (frames,) = drive.files("Demo-CT/PHANTOM-01/*/3-*/*")
        assert frames.read_bytes() == phantom.multiframe_file()
        assert held(tmp_path / "cache") == 0


# Rivals


def test_two_drives_on_one_cache_serve_true_bytes_and_share_what_they_fetch(
    tmp_path: Path, archive: EmbeddedArchive
):
    shared = ("--cache-dir", str(tmp_path / "shared"))
    rooms = [tmp_path / "one", tmp_path / "two"]
    for room in rooms:
        room.mkdir()
    with mounted(rooms[0], archive.url, *shared) as one, mounted(rooms[1], archive.url, *shared) as two:
        both = [slices(drive) for drive in (one, two)]
        archive.faults(latency_ms=20)
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(lambda files: storm(files, 8), both)) == [[], []]
        assert transferred(archive) == 120


@pytest.mark.says(
    "The cache holds no more than `--cache-size` at any moment, however many mounts share it, and what was"
    " used least goes first."
)
def test_two_drives_of_one_cache_and_two_archives_serve_true_bytes_and_hold_the_limit(
    tmp_path: Path, archive: EmbeddedArchive, own_archive: EmbeddedArchive
):
    limit = 4 << 20
    shared = ("--cache-dir", str(tmp_path / "shared"), "--cache-size", "4M")
    rooms = [tmp_path / "one", tmp_path / "two"]
    for room in rooms:
        room.mkdir()
    with mounted(rooms[0], archive.url, *shared) as one, mounted(rooms[1], own_archive.url, *shared) as two:
        both = [slices(drive) for drive in (one, two)]
        with ThreadPoolExecutor(2) as pool:
            reading = [pool.submit(storm, files, 2) for files in both]
            found = []
            while not all(done.done() for done in reading):
                found.append(held(tmp_path / "shared"))
                time.sleep(0.005)
            assert [done.result() for done in reading] == [[], []]
        assert max(found) <= limit
        assert len(found) > 20
        assert [wrong(dict(list(shuffled(files, 0).items())[:40])) for files in both] == [[], []]
        assert held(tmp_path / "shared") <= limit


@pytest.mark.says("A reader is as patient where another mount of the same cache fetches the file.")
def test_a_file_that_another_drive_fetches_is_waited_for_as_long_as_its_bytes_come(
    tmp_path: Path, archive: EmbeddedArchive
):
    content = phantom.multiframe_file()
    patience = 2 + len(content) / 10e6  # an archive reads a whole file before it sends a head
    shared = ("--cache-dir", str(tmp_path / "shared"), *SILENT)
    rooms = [tmp_path / "one", tmp_path / "two"]
    for room in rooms:
        room.mkdir()

    def timed(path: Path) -> tuple[int | None, float]:
        began = time.monotonic()
        return raised(path.read_bytes), time.monotonic() - began

    def read_by_both(*drives: Drive) -> list[tuple[int | None, float]]:
        first, second = (drive.files("Demo-CT/PHANTOM-01/*/3-*/*")[0] for drive in drives)
        with ThreadPoolExecutor(2) as pool:
            reading = pool.submit(timed, first)
            until(lambda: any(part.stat().st_size for part in tmp_path.glob("shared/*/guest/parts/*")))
            return [timed(second), reading.result()]

    with mounted(rooms[0], archive.url, *shared) as one, mounted(rooms[1], archive.url, *shared) as two:
        archive.faults(bandwidth_mbit=14)
        (there, seconds), (here, _) = read_by_both(one, two)
        assert (there, here) == (None, None)
        assert seconds > 1.3 * patience
        assert transferred(archive) == 1
        assert two.files("Demo-CT/PHANTOM-01/*/3-*/*")[0].read_bytes() == content
        for path in tmp_path.glob("shared/*/guest/objects/*/*"):
            path.unlink()
        archive.faults(rules=[{"endpoint": "getSingleImage", "do": "stall_body"}])
        for error, seconds in read_by_both(one, two):
            assert error == errno.ETIMEDOUT
            assert seconds < patience * MARGIN


# Many


def test_however_many_processes_read_each_image_is_asked_for_once(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        files = drive.files(PHANTOM)
        archive.faults(latency_ms=100)
        for wanted in (files[:64], files[100:101] * 64):
            archive.reset()
            readers = [subprocess.Popen(["md5sum", file], stdout=subprocess.PIPE) for file in wanted]
            said = {reader.communicate()[0] for reader in readers}
            log = archive.log()
            assert len(said) == len(set(wanted))
            assert len(log) == len(set(log))  # no image and no MD5 twice; some come ahead, or by ZIP
            assert {reader.returncode for reader in readers} == {0}


def test_a_storm_of_seeks_and_opens_reads_what_is_there_and_asks_once(
    tmp_path: Path, archive: EmbeddedArchive
):
    with mounted(tmp_path, archive.url) as drive:
        file, truth = drive.files(PHANTOM)[50], slice_bytes(50)
        archive.faults(latency_ms=100)

        def seek(seed: int) -> bool:
            dice, is_right = random.Random(seed), True
            for _ in range(7):  # as often as SimpleITK opens a file
                fd = os.open(file, os.O_RDONLY)
                for _ in range(40):
                    offset, size = dice.randrange(len(truth) + 10), dice.choice((1, 4096, 10_000, 1 << 20))
                    is_right &= os.pread(fd, size, offset) == truth[offset : offset + size]
                os.close(fd)
            return is_right

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(seek, range(16)))
        assert transferred(archive) == 1


# What is large


@pytest.fixture(scope="module")
def large_archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedArchive, bytes]]:
    """Serve one file of 40 MB; yield its bytes, too."""
    folder = tmp_path_factory.mktemp("large") / "Large"
    folder.mkdir()
    header = pydicom.dcmread(next(_multiframe(folder)))
    header.NumberOfFrames = 305
    noise = np.random.default_rng(7).integers(0, 4096, 305 * phantom.SIDE**2, dtype=np.uint16)
    header.PixelData = noise.tobytes()
    content = encode(header)
    (folder / "large.dcm").write_bytes(content)
    with start_archive("--data", folder.parent) as archive:
        yield archive, content


def _multiframe(folder: Path) -> Iterator[Path]:
    path = folder / "large.dcm"
    path.write_bytes(phantom.multiframe_file())
    yield path


@pytest.fixture
def large(large_archive: tuple[EmbeddedArchive, bytes]) -> Iterator[tuple[EmbeddedArchive, bytes]]:
    """Serve it without faults."""
    large_archive[0].reset()
    yield large_archive
    large_archive[0].reset()


def test_the_head_of_a_large_file_is_there_long_before_the_whole(
    tmp_path: Path, large: tuple[EmbeddedArchive, bytes]
):
    archive, content = large
    with mounted(tmp_path, archive.url) as drive:
        (file,) = drive.files()
        assert file.stat().st_size == len(content) > 32 << 20
        archive.faults(bandwidth_mbit=160)
        head = subprocess.run(["head", "-c", "1000000", file], stdout=subprocess.PIPE, check=True).stdout
        assert drive.status()["transfers"]["completed"] == 0
        assert head == content[:1_000_000]
        with ThreadPoolExecutor(3) as pool:  # whoever joins on the way reads what is exact
            reads: list[Callable[[], bytes]] = [
                file.read_bytes,
                lambda: mapped(file),
                lambda: subprocess.run(["tail", "-c", "99", file], stdout=subprocess.PIPE).stdout,
            ]
            whole, by_map, tail = pool.map(lambda read: read(), reads)
        assert whole == by_map == content
        assert tail == content[-99:]
        assert transferred(archive) == 1


def test_a_large_file_whose_fetch_is_cut_is_an_error_and_later_exact(
    tmp_path: Path, large: tuple[EmbeddedArchive, bytes]
):
    archive, content = large
    with mounted(tmp_path, archive.url) as drive:
        (file,) = drive.files()
        archive.faults(
            rules=[{"endpoint": name.partition("/")[2], "do": "cut", "times": 3} for name in IMAGES]
        )
        came = bytearray()

        def read_on() -> None:
            with file.open("rb", buffering=0) as opened:
                while chunk := opened.read(1 << 17):
                    came.extend(chunk)

        assert raised(read_on) == errno.EIO
        assert content.startswith(came)
        # The kernel may hold pages of the failed half; a bus error is what a map of it deserves.
        program = "import mmap,sys,hashlib; m=mmap.mmap(open(sys.argv[1],'rb').fileno(),0,prot=1)"
        program += "; print(hashlib.md5(m).hexdigest())"
        done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, check=False)
        assert done.returncode in (0, 1, -signal.SIGBUS)
        archive.faults()
        until(lambda: raised(file.read_bytes) is None)
        assert file.read_bytes() == mapped(file) == content


def test_a_large_file_that_came_damaged_is_never_read_to_its_end_and_later_exact(
    tmp_path: Path, large: tuple[EmbeddedArchive, bytes]
):
    archive, content = large
    with mounted(tmp_path, archive.url) as drive:
        (file,) = drive.files()
        archive.faults(rules=[{"endpoint": name, "do": "corrupt"} for name in IMAGES])
        assert raised(file.read_bytes) == errno.EIO
        assert raised(lambda: drive.files()[0].read_bytes()) == errno.EIO
        archive.faults()
        until(lambda: raised(file.read_bytes) is None)
        assert file.read_bytes() == mapped(file) == content


# A series that is submitted again


def version_of(folder: Path, salt: int, count: int = 6) -> dict[str, bytes]:
    """Write a series of the same instances with other pixels; return the bytes of each by file name."""
    (folder / "Changing").mkdir(parents=True)
    made = {}
    for number in range(count):
        file = pydicom.dcmread(BytesIO(slice_bytes(number)))
        pixels = np.frombuffer(file.PixelData, np.uint16) ^ np.uint16(salt)
        file.PixelData = pixels.tobytes()
        content = encode(file)
        (folder / "Changing" / f"{number}.dcm").write_bytes(content)
        made[f"1-{number + 1:03}.dcm"] = content
    return made


def test_a_series_submitted_again_is_never_a_mix(tmp_path: Path):
    old, new = version_of(tmp_path / "old", 0), version_of(tmp_path / "new", 1)
    with start_archive("--data", tmp_path / "old") as archive:
        port = archive.url.split(":")[2].split("/")[0]
        uid = str(pydicom.dcmread(tmp_path / "old" / "Changing" / "0.dcm").SeriesInstanceUID)
        archive.edit(series=uid, submitted="2020-01-01")
        with mounted(tmp_path, archive.url, *NO_AGE, "--ahead=off") as drive:
            files = drive.files()
            assert [path.name for path in files] == list(old)
            inodes = {path.name: path.stat().st_ino for path in files}
            assert files[0].read_bytes() == old[files[0].name]
            opened = os.open(files[1], os.O_RDONLY)
            unread = os.open(files[2], os.O_PATH)  # an old inode whose bytes were never fetched
            archive.stop()
            with start_archive("--data", tmp_path / "new", "--port", port) as successor:
                successor.edit(series=uid, submitted="2021-01-01")
                until(lambda: drive.files()[2].stat().st_ino != inodes[files[2].name])
                time.sleep(1.1)
                assert os.pread(opened, 1 << 20, 0) == old[files[1].name]
                assert os.fstat(opened).st_ino == inodes[files[1].name]
                for path in drive.files():
                    assert path.stat().st_ino != inodes[path.name]
                    assert path.read_bytes() == mapped(path) == new[path.name]
                    assert path.stat().st_mtime == 1_609_459_200
                # What an old inode number stood for is not to be had any more, and nothing else is given.
                assert raised(lambda: Path(f"/proc/self/fd/{unread}").read_bytes()) == errno.ESTALE
                assert os.pread(opened, 1 << 20, 0) == old[files[1].name]
                again = os.open(f"/proc/self/fd/{opened}", os.O_RDONLY)  # what is held is what it was
                assert os.pread(again, 1 << 20, 0) == old[files[1].name]
                for fd in (opened, unread, again):
                    os.close(fd)


# Damage


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def scramble(path: Path) -> None:
    """Write random bytes over the middle half."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 4)
        file.write(random.Random(3).randbytes(size // 2))


def make_another(path: Path) -> None:
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE object (key TEXT, size TEXT)")
    other.commit()
    other.close()


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "one byte less": lambda path: os.truncate(path, path.stat().st_size - 1),
    "nothing": lambda path: os.truncate(path, 0),
    "noise": scramble,
    "a directory": make_directory,
}


def test_damaged_files_of_the_cache_are_fetched_anew(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url, "--ahead=off") as drive:
        files = slices(drive)
        assert wrong(dict(list(files.items())[:30])) == []
    stored = sorted((tmp_path / "cache").glob("*/guest/objects/*/*"))
    assert len(stored) == 30
    for number, path in enumerate(stored):
        list(DAMAGE.values())[number % len(DAMAGE)](path)
    with mounted(tmp_path, archive.url, expect="is damaged") as drive:
        assert wrong(files) == []
    with mounted(tmp_path, archive.url) as drive:
        assert asked(archive, lambda: wrong(files)) == {}


def test_a_large_file_damaged_in_the_cache_is_mended_wherever_it_is_read_first(
    tmp_path: Path, large: tuple[EmbeddedArchive, bytes]
):
    archive, content = large
    with mounted(tmp_path, archive.url) as drive:
        (file,) = drive.files()
        assert file.read_bytes() == content
    (stored,) = (tmp_path / "cache").glob("*/guest/objects/*/*")
    flip(stored)
    with mounted(tmp_path, archive.url, expect="is damaged") as drive:
        with file.open("rb", buffering=0) as opened:
            assert os.pread(opened.fileno(), 5000, 0) == content[:5000]
            half = len(content) // 2
            assert os.pread(opened.fileno(), 5000, half - 2500) == content[half - 2500 : half + 2500]
            assert opened.read() == content
        assert mapped(file) == content
        assert drive.status()["transfers"]["completed"] == 1


@pytest.mark.parametrize("name", ["content.sqlite", "catalog.sqlite"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"no database" * 4096),
        lambda path: os.truncate(path, 0),
        make_another,
        scramble,
        flip,
    ],
    ids=["noise", "nothing", "another", "noise in the middle", "a bit"],
)
def test_a_damaged_database_is_begun_anew(
    tmp_path: Path, archive: EmbeddedArchive, name: str, damage: Callable[[Path], object]
):
    with mounted(tmp_path, archive.url, "--ahead=off") as drive:
        files = slices(drive)
        assert wrong(dict(list(files.items())[:30])) == []
    (database,) = (tmp_path / "cache").glob(f"*/guest/{name}")
    damage(database)
    with mounted(tmp_path, archive.url, "--ahead=off", expect="set aside as|damaged") as drive:
        assert slices(drive) == files
        assert wrong(dict(list(files.items())[:40])) == []
        objects = list((tmp_path / "cache").glob("*/guest/objects/*/*"))
        # None is nobody's: where the damage was met on the way, what was there before went with it.
        assert len(objects) == os.statvfs(drive.path).f_files >= 10


# Sizes that nobody told


@pytest.mark.parametrize("sizes", ["exact", "estimate"])
def test_without_the_drill_down_every_way_of_reading_is_right(
    tmp_path: Path, own_archive: EmbeddedArchive, sizes: str
):
    own_archive.faults(disabled=NO_SIZES)
    own_archive.edit(synthetic={"collection": "Sizes", "patient_id": "S", "series_of": 3})
    with mounted(tmp_path, own_archive.url, "--sizes", sizes) as drive:
        (series,) = drive.path.glob("Demo-CT/PHANTOM-01/*/2-*")
        files = sorted(series.iterdir())
        before = [file.stat().st_size for file in files[:4]]
        stat_bytes = {int(n) for n in subprocess.check_output(["stat", "-c", "%s", *files[:4]]).split()}
        truth = {content: number for number in range(120) if (content := slice_bytes(number))}
        assert files[0].read_bytes() in truth
        assert mapped(files[1]) in truth
        tail = subprocess.check_output(["tail", "-c", "1000", files[2]])
        assert tail == files[2].read_bytes()[-1000:]
        archived = subprocess.check_output(["tar", "-C", series, "-cf", "-", files[3].name])
        unpacked = subprocess.run(["tar", "-xOf", "-"], input=archived, stdout=subprocess.PIPE, check=True)
        assert unpacked.stdout in truth
        after = [file.stat().st_size for file in files[:4]]
        assert after == [len(file.read_bytes()) for file in files[:4]]
        if sizes == "exact":
            assert before == after
            assert stat_bytes == set(after)
        assert all(before)


# Extended attributes


def test_extended_attributes_are_there_on_every_level_and_cost_no_request(
    tmp_path: Path, archive: EmbeddedArchive
):
    with mounted(tmp_path, archive.url) as drive:
        file = drive.files(PHANTOM)[0]
        levels = [*reversed(file.parents[:4]), file]

        def look() -> list[set[str]]:
            return [{name.removeprefix("user.tcia.") for name in os.listxattr(path)} for path in levels]

        assert asked(archive, look) == {}
        told = look()
        assert [len(names) for names in told] == sorted(len(names) for names in told)
        assert told[0] == {"collection"}
        assert {
            "collection",
            "patient_id",
            "study_uid",
            "series_uid",
            "modality",
            "sop_uid",
            "cached",
        } <= told[-1]
        for path, names in zip(levels, told, strict=True):
            assert all(os.getxattr(path, f"user.tcia.{name}") for name in names)
        assert os.getxattr(file, "user.tcia.patient_id") == b"PHANTOM-01"
        assert os.getxattr(file, "user.tcia.cached") == b"0"
        file.read_bytes()
        assert os.getxattr(file, "user.tcia.cached") == b"1"
        assert os.listxattr(drive.path) == []
        before = drive.status()["fuse"].get("getxattr", 0)
        for name in ("security.selinux", "system.posix_acl_access", "user.other"):
            refused = raised(lambda n=name: os.getxattr(file, n))  # type: ignore[misc]
            assert refused == (errno.ENODATA if name.startswith("user.") else errno.ENOTSUP)
        assert drive.status()["fuse"].get("getxattr", 0) <= before + 1
        assert raised(lambda: os.setxattr(file, "user.tcia.license", b"free")) == errno.EROFS
        assert subprocess.run(["ls", "-lR", file.parent], capture_output=True, check=True).stderr == b""


def test_without_extended_attributes_there_are_none(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url, "--xattrs", "off") as drive:
        file = drive.files(PHANTOM)[0]
        for path in (drive.path, file.parent, file):
            assert raised(lambda p=path: os.getxattr(p, "user.tcia.collection")) == errno.ENOTSUP  # type: ignore[misc]
            assert raised(lambda p=path: os.listxattr(p)) in (errno.ENOTSUP, None)  # type: ignore[misc]
            assert subprocess.run(["ls", "-la", path], capture_output=True, check=True).stderr == b""


# What is refused


def refusal(room: Path, url: str, *arguments: str | Path, before: tuple[str, ...] = ()) -> str:
    """Return the one line with which a mount is refused."""
    require_fuse()
    (room / "drive").mkdir(exist_ok=True)
    command = [*before, sys.executable, "-m", "tciafs", "mount", room / "drive", "--archive", url, *arguments]
    project = Path(__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, cwd=project)
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    return line


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """Mount a file system of its own."""
    directory.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory]).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def fill(path: Path) -> None:
    """Write a file until the disk is full."""

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    assert raised(write) == errno.ENOSPC


def test_allow_other_is_refused_to_a_user_whom_root_did_not_allow_it(
    tmp_path: Path, archive: EmbeddedArchive
):
    if os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("it takes root to become another user")
    setting = Path("/etc/fuse.conf")
    if setting.exists() and "user_allow_other" in setting.read_text().splitlines():
        pytest.skip("root allows it to all here")
    capabilities = "+dac_override,+dac_read_search"
    become = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    become += ["--securebits", "+no_setuid_fixup", "--inh-caps", capabilities, "--ambient-caps", capabilities]
    cache_dir = ("--cache-dir", tmp_path / "cache")
    line = refusal(tmp_path, archive.url, *cache_dir, "--allow-other", before=tuple(become))
    assert "--allow-other is for root" in line
    assert "echo user_allow_other | sudo tee -a /etc/fuse.conf" in line


def test_a_cache_directory_that_cannot_be_one_is_refused_in_one_line(
    tmp_path: Path, archive: EmbeddedArchive
):
    (tmp_path / "theses").mkdir()
    (tmp_path / "theses" / "mine.txt").write_text("all of it")
    assert "neither empty nor a cache" in refusal(tmp_path, archive.url, "--cache-dir", tmp_path / "theses")
    assert (tmp_path / "theses" / "mine.txt").read_text() == "all of it"
    below = tmp_path / "theses" / "mine.txt" / "cache"
    assert "cannot be used" in refusal(tmp_path, archive.url, "--cache-dir", below)
    (tmp_path / "link").symlink_to(tmp_path / "theses" / "mine.txt" / "nowhere")
    assert "cannot be used" in refusal(tmp_path, archive.url, "--cache-dir", tmp_path / "link")


@pytest.mark.parametrize("was_used", [False, True], ids=["a new one", "a used one"])
def test_a_cache_that_is_read_only_is_refused_in_one_line(
    tmp_path: Path, archive: EmbeddedArchive, was_used: bool
):
    with small_disk(tmp_path / "disk", "16M") as disk:
        shared = ("--cache-dir", str(disk / "cache"))
        if was_used:
            with mounted(tmp_path, archive.url, *shared) as drive:
                drive.files(PHANTOM)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        line = refusal(tmp_path, archive.url, *shared)
        assert "cannot be used" in line
        assert "read-only" in line.lower()


def test_a_full_disk_at_the_start_is_told_in_one_line_and_no_harm_is_done(
    tmp_path: Path, archive: EmbeddedArchive
):
    with small_disk(tmp_path / "disk", "8M") as disk:
        shared = ("--cache-dir", str(disk / "cache"))
        with mounted(tmp_path, archive.url, *shared) as drive:
            files = slices(drive)
            assert wrong(dict(list(files.items())[:5])) == []
        fill(disk / "filler")
        assert "cannot be used" in refusal(tmp_path, archive.url, *shared)
        assert "cannot be used" in refusal(tmp_path, archive.url, "--cache-dir", disk / "another")
        (disk / "filler").unlink()
        archive.reset()
        with mounted(tmp_path, archive.url, *shared) as drive:
            assert slices(drive) == files
            assert wrong(dict(list(files.items())[:5])) == []
            assert archive.requests() == {}


def test_a_disk_that_fills_up_under_a_drive_costs_no_byte_that_is_there(
    tmp_path: Path, archive: EmbeddedArchive
):
    with (
        small_disk(tmp_path / "disk", "8M") as disk,
        mounted(
            tmp_path, archive.url, "--cache-dir", str(disk / "cache"), expect="(WARNING|ERROR) .*disk is full"
        ) as drive,
    ):
        files = slices(drive)
        assert wrong(dict(list(files.items())[:5])) == []
        fill(disk / "filler")
        assert wrong(dict(list(files.items())[:5])) == []
        assert wrong(dict(list(files.items())[:40]), {errno.EIO}) == []
        assert raised(lambda: os.listdir(drive.path / "Demo-Mixed")) in (None, errno.EIO)
        (disk / "filler").unlink()
        assert wrong(files) == []


def test_a_new_cache_on_a_disk_that_was_full_is_usable_later(tmp_path: Path, archive: EmbeddedArchive):
    with small_disk(tmp_path / "disk", "8M") as disk:
        fill(disk / "filler")
        assert "cannot be used" in refusal(tmp_path, archive.url, "--cache-dir", disk / "cache")
        (disk / "filler").unlink()
        with mounted(tmp_path, archive.url, "--cache-dir", str(disk / "cache")) as drive:
            assert slices(drive)
