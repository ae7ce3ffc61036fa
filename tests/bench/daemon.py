"""The cases of what the drive's process asks for and takes: requests of many readers, and memory."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import trio

from tciafs.catalog.store import Store
from tciafs.config import Config
from tciafs.model import Patient, Record, Series, Study
from tests.bench.measure import Case, Measure, Round, Target, read_all, value
from tests.bench.scene import COLLECTION, Scene, scene, series_files
from tests.drive import Drive, mounted

_READERS = 64
_VAST_PATIENTS, _VAST_SERIES = 10_000, 100
_PATIENTS, _SERIES, _SLICES = 1_000, 3, 40


@contextmanager
def _crowd(profile: str) -> Iterator[Measure]:
    with scene(profile) as place:
        (uid,) = place.make_series(slices=_READERS)
        place.begin()

        def measure(number: int) -> Round:
            with place.drive() as drive:
                files = series_files(drive, uid)
                different = _requests(place, files)
            with place.drive() as drive:
                same = _requests(place, [series_files(drive, uid)[0]] * _READERS)
            return {
                "image requests an image, 64 images": different[0] / _READERS,
                "MD5 requests an image, 64 images": different[1] / _READERS,
                "image requests, the same image": float(same[0]),
                "MD5 requests, the same image": float(same[1]),
            }

        yield measure


def _requests(place: Scene, files: Sequence[Path]) -> tuple[int, int]:
    """Have each file read by a process of its own, all at once; count requests for images and for MD5s."""
    place.archive.forget()
    readers = [subprocess.Popen(["cat", str(file)], stdout=subprocess.DEVNULL) for file in files]
    if any(reader.wait() for reader in readers):
        raise RuntimeError("a file could not be read")
    counts = place.archive.requests()
    images = sum(count for name, count in counts.items() if "Image" in name and "Hash" not in name)
    return images, sum(count for name, count in counts.items() if "5Hash" in name or "MD5" in name)


def _resident_mb(drive: Drive) -> float:
    """Return the most memory that the process ever had resident."""
    status = Path(f"/proc/{drive.process.pid}/status").read_text()
    (peak,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024 / 1e6


@contextmanager
def _memory(profile: str) -> Iterator[Measure]:
    with scene(profile) as place:
        (uid,) = place.make_series()
        wanted = {"patients": _PATIENTS, "series": _SERIES, "series_of": _SLICES}
        place.archive.edit(synthetic={"collection": "Walked", **wanted})

        def measure(number: int) -> Round:
            with place.drive() as drive:
                empty = _resident_mb(drive)
                read_all(series_files(drive, uid))
                one_series = _resident_mb(drive)
            with place.folder() as folder:
                with mounted(folder, place.archive.url):  # the cache is there from now on
                    pass
                _fill_catalog(folder, place.archive.url)
                with mounted(folder, place.archive.url) as drive:
                    walk = ["find", str(drive.path / "Walked"), "-size", "+0"]
                    subprocess.run(walk, stdout=subprocess.DEVNULL, check=True)
                    walked = _resident_mb(drive)
            return {"mounted": empty, "one series read": one_series, "catalog of 1,000,000 series": walked}

        yield measure


def _fill_catalog(room: Path, url: str) -> None:
    """Write a catalog as if 10,000 patients with 100 series each had been listed before."""
    config = Config(mountpoint=room / "drive", cache_dir=room / "cache", archive=url)
    store = Store.open(config.archive_dir / "catalog.sqlite", config.archive_name, config.layout)

    async def fill() -> None:
        for first in range(0, _VAST_PATIENTS, 100):
            listings: dict[int, Sequence[Record]] = {}
            for number in range(first, first + 100):
                patient = Patient(COLLECTION, f"V-{number:05d}")
                study = Study(
                    COLLECTION, patient.patient_id, f"2.25.{number}", date(2019, 1, 14), "CT THORAX"
                )
                listings[store.inode_of(patient)] = [study]
                listings[store.inode_of(study)] = [
                    _vast_series(study, number * _VAST_SERIES + nth) for nth in range(_VAST_SERIES)
                ]
            await store.replace(listings, 1.6e9)

    try:
        trio.run(fill)
    finally:
        store.close()


def _vast_series(study: Study, number: int) -> Series:
    return Series(
        study.collection,
        study.patient_id,
        study.study_instance_uid,
        f"2.25.1{number:09d}",
        modality="CT",
        series_number=str(number % _VAST_SERIES),
        series_description="Thorax 2.5 mm",
        image_count=220,
        submitted=date(2019, 2, 25),
    )


def _one(key: str) -> Target:
    return Target(what=key, value=value(key), limit=1)


CASES = (
    Case(
        name="crowd",
        title="64 processes at once",
        how="64 processes read 64 images of one series, and 64 read the same image; requests are counted.",
        begin=_crowd,
        profiles=("wan",),
        targets=(
            _one("image requests an image, 64 images"),
            _one("MD5 requests an image, 64 images"),
            _one("image requests, the same image"),
            _one("MD5 requests, the same image"),
        ),
        bars=(),
    ),
    Case(
        name="memory",
        title="Memory of the drive's process",
        how="The most that was ever resident: after one series of 220 slices was read; and, with a catalog of"
        f" 1,000,000 series, after a collection of {_PATIENTS:,} patients, {_PATIENTS * _SERIES:,} series and"
        f" {_PATIENTS * _SERIES * _SLICES:,} files was walked. One round.",
        begin=_memory,
        targets=(
            Target(what="one series", value=value("one series read"), limit=120, unit="MB"),
            Target(what="1,000,000 series", value=value("catalog of 1,000,000 series"), limit=200, unit="MB"),
        ),
        bars=(),
        most_rounds=1,
    ),
)
