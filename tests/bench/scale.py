"""Measure what a walk through a large collection costs, and what a catalog of a million series weighs.

`python -m tests.bench.scale` takes some minutes; the sizes may be given: patients of the collection that is
walked through, and series of the large catalog.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import parse_qsl

import httpx
import trio

from tciafs.catalog.store import Store
from tciafs.config import Config
from tciafs.content.cache import claim
from tciafs.model import ROOT_INODE, Collection, Patient, Record, Series, Study
from tciafs.names import Layout
from tests.archive import EmbeddedArchive, start_archive
from tests.drive import Drive, mounted

COLLECTION = "Large"  # is walked through
FILLED = "Filled"  # is in the catalog already
SERIES, FILES = 3, 40  # of a patient, of a series
PROFILES: dict[str, dict[str, float]] = {"lan": {}, "wan": {"latency_ms": 100, "bandwidth_mbit": 40}}
_PREFIX = "/nbia-api/services/"


@dataclass(frozen=True)
class Walk:
    """What `find` cost: `alone` is the time of the same requests one after another, by HTTP alone."""

    entries: int
    seconds: float
    requests: int
    alone: float
    cpu: float
    memory: dict[str, float]

    def __str__(self) -> str:
        return (
            f"{self.entries} entries in {self.seconds:.1f} s, {self.requests} requests, which alone take"
            f" {self.alone:.1f} s: {self.seconds / self.alone:.2f};"
            f" {self.cpu:.1f} s of CPU, {_spelled(self.memory)}"
        )


def find(path: Path) -> int:
    """Return how many entries `find -size` sees below a path."""
    found = subprocess.run(
        ["find", str(path), "-size", "+0", "-printf", "."], capture_output=True, check=True, text=True
    )
    return len(found.stdout)


def memory(drive: Drive) -> dict[str, float]:
    """Return the resident memory of the drive's process in MB: now, and at most so far."""
    status = Path(f"/proc/{drive.process.pid}/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return {name: int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")}


def cpu(drive: Drive) -> float:
    """Return the seconds of CPU that the drive's process has used."""
    fields = Path(f"/proc/{drive.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def replay(archive: EmbeddedArchive, log: list[str]) -> float:
    """Return how long the requests take one after another, without a drive."""
    began = time.perf_counter()
    with httpx.Client(base_url=archive.url.removesuffix(_PREFIX), trust_env=False, timeout=120) as client:
        for line in log:
            target, _, form = line.partition(" ")
            _ask(client, target, form)
    return time.perf_counter() - began


def _ask(client: httpx.Client, target: str, form: str) -> None:
    url = httpx.URL(client.base_url).join(target)
    headers = {"Authorization": "Bearer undefined"}
    if not form:
        client.get(url, headers=headers).raise_for_status()
        return
    fields: dict[str, list[str]] = {}
    for name, value in parse_qsl(form):
        fields.setdefault(name, []).append(value)
    client.post(url, data=fields, headers=headers).raise_for_status()


def walk(archive: EmbeddedArchive, profile: dict[str, float]) -> Walk:
    """Measure `find` over the collection with a new cache."""
    with tempfile.TemporaryDirectory() as room, mounted(Path(room), archive.url) as drive:
        archive.reset()
        archive.faults(**profile)
        used = cpu(drive)
        began = time.perf_counter()
        entries = find(drive.path / COLLECTION)
        seconds = time.perf_counter() - began
        log = archive.log()
        return Walk(entries, seconds, len(log), replay(archive, log), cpu(drive) - used, memory(drive))


@contextmanager
def large_collection(patients: int) -> Iterator[EmbeddedArchive]:
    """Serve a collection of so many patients, each with 3 series of 40 files."""
    with start_archive() as archive:
        wanted = {"collection": COLLECTION, "patients": patients, "series": SERIES, "series_of": FILES}
        archive.edit(synthetic=wanted)
        yield archive


async def fill(directory: Path, archive: str, series: int) -> None:
    """Put a catalog with so many series where a mount of `archive` looks for it: 20 a patient, 4 a study."""
    with closing(Store.open(directory / "catalog.sqlite", archive, Layout.DESCRIPTIVE)) as store:
        await store.write(lambda db: db.execute("PRAGMA synchronous = OFF") and None)
        await store.write(lambda db: db.execute("PRAGMA cache_size = -1000000") and None)
        patients = [Patient(FILLED, f"P-{index:06d}") for index in range(series // 20)]
        collections = [Collection(FILLED), Collection(COLLECTION)]
        await store.replace({ROOT_INODE: collections}, time.time())
        await store.replace({store.inode_of(Collection(FILLED)): patients}, time.time())
        for first in range(0, len(patients), 500):
            listings: dict[int, Sequence[Record]] = {}
            for patient in patients[first : first + 500]:
                studies = [
                    Study(
                        FILLED, patient.patient_id, f"2.25.7.{patient.patient_id[2:]}.{nth}", series_count=4
                    )
                    for nth in range(5)
                ]
                listings[store.inode_of(patient)] = studies
                listings.update((store.inode_of(study), _series_of(study)) for study in studies)
            await store.replace(listings, time.time())


def _series_of(study: Study) -> list[Series]:
    return [
        Series(
            *(FILLED, study.patient_id, study.study_instance_uid, f"{study.study_instance_uid}.{nth}"),
            modality="CT",
            series_number=str(nth),
            series_description="Thorax 1.25 mm",
            image_count=40,
            file_size=21_000_000,
            submitted=date(2019, 2, 25),
            license_name="Creative Commons Attribution 3.0 Unported License",
            license_uri="https://creativecommons.org/licenses/by/3.0/",
            data_description_uri="https://doi.org/10.7937/demo.00000000",
        )
        for nth in range(4)
    ]


def weigh(archive: EmbeddedArchive, room: Path, series: int, walked: bool = True) -> None:
    """Measure a drive over a large catalog: its start, a look at a few directories, and a walk elsewhere."""
    config = Config(archive=archive.url, mountpoint=room / "drive", cache_dir=room / "cache")
    claim(config.cache_dir)
    config.archive_dir.mkdir(parents=True)
    began = time.perf_counter()
    trio.run(fill, config.archive_dir, config.archive_name, series)
    size = (config.archive_dir / "catalog.sqlite").stat().st_size
    print(f"{series} series put in {time.perf_counter() - began:.0f} s: {size / 1e6:.0f} MB", flush=True)
    began = time.perf_counter()
    with mounted(room, archive.url) as drive:
        print(f"  mounted after {time.perf_counter() - began:.2f} s: {_spelled(memory(drive))}", flush=True)
        began = time.perf_counter()
        patients = sorted(os.listdir(drive.path / FILLED))
        for name in patients[::1000]:
            for study in (drive.path / FILLED / name).iterdir():
                os.listdir(study)
        seconds = time.perf_counter() - began
        print(f"  {len(patients)} patients listed: {seconds:.2f} s, {_spelled(memory(drive))}")
        if walked:
            print(f"  {find(drive.path / COLLECTION)} files found: {_spelled(memory(drive))}", flush=True)


def _spelled(measured: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f} MB" for name, value in measured.items())


def main() -> None:
    """Measure and print."""
    patients = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    series = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    with large_collection(patients) as archive:
        with tempfile.TemporaryDirectory() as room:
            weigh(archive, Path(room), series)
        for name, profile in PROFILES.items():
            print(f"find over {patients} patients, {name}: {walk(archive, profile)}", flush=True)


if __name__ == "__main__":
    main()
