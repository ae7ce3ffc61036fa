"""The cases of what was read before: from the kernel's pages, and from the disk after a remount."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.measure import (
    Case,
    Measure,
    Round,
    Target,
    drop_caches,
    in_turn,
    ratio,
    read_all,
    read_large,
    seconds,
    value,
)
from tests.bench.peers import dicom_files, rclone_mount
from tests.bench.scene import scene, series_files
from tests.drive import Drive, mounted

_LARGE_SIDE = 46 * 512  # 1.03 GiB


def _reads_of(drive: Drive) -> int:
    return int(drive.status()["fuse"].get("read", 0))


def _second_read(drive: Drive, read: Callable[[], object], local: Callable[[], object]) -> Measure:
    """Compare what the kernel keeps of the drive with what it keeps of local files."""

    def measure(number: int) -> Round:
        before = _reads_of(drive)
        found = in_turn(number, {"drive": lambda: seconds(read), "local files": lambda: seconds(local)})
        return {**found, "read requests": _reads_of(drive) - before}

    return measure


@contextmanager
def _second_read_of_a_series(profile: str) -> Iterator[Measure]:
    with scene(profile) as place:
        (uid,) = place.make_series()
        with place.drive() as drive, place.folder() as folder:
            files = series_files(drive, uid)
            shutil.copytree(files[0].parent, folder / "local")
            copies = dicom_files(folder / "local")
            read_all(files)
            read_all(copies)
            yield _second_read(drive, lambda: read_all(files), lambda: read_all(copies))


@contextmanager
def _second_read_of_a_large_file(profile: str) -> Iterator[Measure]:
    with scene(profile) as place:
        (uid,) = place.make_series(slices=1, side=_LARGE_SIDE)
        with place.drive("--deadline-bytes", "120") as drive, place.folder() as folder:
            (file,) = series_files(drive, uid)
            copy = folder / "local.dcm"
            shutil.copyfile(file, copy)
            read_large(file)
            read_large(copy)
            yield _second_read(drive, lambda: read_large(file), lambda: read_large(copy))


@contextmanager
def _remount(profile: str) -> Iterator[Measure]:
    with scene(profile) as place, place.folder() as folder:
        (uid,) = place.make_series()
        url = place.archive.url
        full = ("--vfs-cache-mode", "full")
        with mounted(folder, url) as drive:
            shutil.copytree(series_files(drive, uid)[0].parent, folder / "local")
        with rclone_mount(folder, url, uid, *full) as path:
            read_all(dicom_files(path))
        place.begin()

        def cold(files: list[Path]) -> float:
            drop_caches()
            return seconds(lambda: read_all(files))

        def by_drive() -> float:
            with mounted(folder, url) as drive:
                return cold(series_files(drive, uid))

        def by_rclone() -> float:
            with rclone_mount(folder, url, uid, *full) as path:
                return cold(dicom_files(path))

        def measure(number: int) -> Round:
            contenders: dict[str, Callable[[], float]] = {
                "drive": by_drive,
                "local files": lambda: cold(dicom_files(folder / "local")),
                "rclone mount, full cache": by_rclone,
            }
            return in_turn(number, contenders)

        yield measure


_NONE_ASKED = Target(what="read requests at the daemon", value=value("read requests"), limit=0)

CASES = (
    Case(
        name="second-read",
        title="A series, once more",
        how="220 slices that were read before in this drive, beside a local copy of them.",
        begin=_second_read_of_a_series,
        targets=(
            Target(what="drive / local files", value=ratio("drive", "local files"), limit=5),
            _NONE_ASKED,
        ),
        bars=("drive", "local files"),
    ),
    Case(
        name="second-read-large",
        title="One file of 1 GiB, once more",
        how="The same for one file, in pieces of 1 MiB.",
        begin=_second_read_of_a_large_file,
        targets=(
            Target(what="drive / local file", value=ratio("drive", "local files"), limit=1.5),
            _NONE_ASKED,
        ),
        bars=("drive", "local files"),
    ),
    Case(
        name="remount",
        title="A series that is on disk, after a remount",
        how="220 slices that an earlier mount brought, read in a new mount, listed, while the kernel's caches"
        " are empty; the same with rclone's cache, and with a local copy.",
        begin=_remount,
        targets=(
            Target(what="drive / local files", value=ratio("drive", "local files"), limit=3),
            Target(
                what="speed of the drive / of rclone",
                value=ratio("rclone mount, full cache", "drive"),
                limit=1,
                at_least=True,
            ),
        ),
        bars=("drive", "local files", "rclone mount, full cache"),
        cold_kernel=True,
    ),
)
