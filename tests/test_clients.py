"""Public clients, with nothing but their base address changed, get from the archive what a drive shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.archive import EmbeddedArchive
from tests.drive import Drive, mounted

ENVIRONMENTS = Path(sys.prefix) / "clients"
SCRIPTS = Path(__file__).parent / "clients"

pytestmark = pytest.mark.timeout(180)  # their first start compiles what they import


def told_by(client: str, room: Path, *arguments: str | Path) -> dict[str, Any]:
    """Run a client's script in an empty folder, and return what it says that it was told."""
    python = ENVIRONMENTS / client / "bin" / "python"
    if not python.exists():
        if os.environ.get("TCIAFS_REQUIRE_TOOLS"):
            pytest.fail(f"{client} is not installed: 'make test' does that")
        pytest.skip(f"{client} is not installed: 'make test' does that")
    script = SCRIPTS / f"ask_{client.replace('-', '_')}.py"
    done = subprocess.run(
        [str(python), str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=room,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def digests(files: Iterable[Path]) -> Counter[str]:
    """Count files by their bytes."""
    return Counter(sha256(path.read_bytes()).hexdigest() for path in files)


def tagged(directories: Iterable[Path], name: str) -> dict[str, Path]:
    """Return directories of a drive by what they say of themselves."""
    return {os.getxattr(path, f"user.tcia.{name}").decode(): path for path in directories if path.is_dir()}


@pytest.fixture
def drive(tmp_path: Path, own_archive: EmbeddedArchive) -> Iterator[Drive]:
    with mounted(tmp_path, own_archive.url) as drive:
        yield drive


def values(rows: Iterable[dict[str, Any]], column: str) -> list[str]:
    return sorted(row[column] for row in rows)


def test_tcia_utils_gets_what_the_drive_shows(tmp_path: Path, own_archive: EmbeddedArchive, drive: Drive):
    series = tagged(drive.path.glob("*/*/*/*"), "series_uid")
    shared = [uid for uid in series if "Demo-Mixed" in str(series[uid])]
    own_archive.edit(cart="nbia-4711", series=shared)
    uid = next(uid for uid, path in series.items() if "-CT-" in path.name)
    image = next(series[uid].iterdir())
    sop = os.getxattr(image, "user.tcia.sop_uid").decode()
    room = tmp_path / "downloads"
    room.mkdir()
    told = told_by("tcia-utils", room, own_archive.url, "Demo-Mixed", "SEG", "nbia-4711", uid, sop, room)

    collection = drive.path / "Demo-Mixed"
    patients = tagged(collection.glob("*"), "patient_id")
    assert values(told["getCollections"], "Collection") == sorted(tagged(drive.path.glob("*"), "collection"))
    assert values(told["getPatient"], "PatientId") == sorted(patients)
    studies = tagged(collection.glob("*/*"), "study_uid")
    assert values(told["getStudy"], "StudyInstanceUID") == sorted(studies)
    assert values(told["getSeries"], "SeriesInstanceUID") == sorted(series)
    assert values(told["getSharedCart"], "SeriesInstanceUID") == sorted(shared)
    segmented = {path.parts[-3] for path in collection.glob("*/*/*-SEG-*")}
    found = values(told["getSimpleSearch"]["resultSet"], "subjectId")
    assert {patients[each].name for each in found} == segmented

    for folder, uids in (("all", list(series)), ("cart", shared)):
        assert {path.name for path in (room / folder).iterdir()} == set(uids)
        for each in uids:
            assert digests((room / folder / each).glob("*.dcm")) == digests(series[each].iterdir())
    assert (room / "image" / uid / f"{sop}.dcm").read_bytes() == image.read_bytes()
    asked = own_archive.requests()
    assert (asked["v1/getContentsByName"], asked["v4/getImageWithMD5Hash"]) == (1, len(shared))


def test_nbiatoolkit_gets_what_the_drive_shows(tmp_path: Path, own_archive: EmbeddedArchive, drive: Drive):
    room = tmp_path / "downloads"
    room.mkdir()
    told = told_by("nbiatoolkit", room, own_archive.url, "Demo MR", room)
    collection = drive.path / "Demo MR"
    assert values(told["getCollections"], "Collection") == sorted(tagged(drive.path.glob("*"), "collection"))
    series = tagged(collection.glob("*/*/*"), "series_uid")
    assert values(told["getSeries"], "SeriesInstanceUID") == sorted(series)
    assert told["downloadSeries"] is True
    assert digests(room.rglob("*.dcm")) == digests(collection.glob("*/*/*/*.dcm"))
    assert own_archive.requests()["oauth/token"] >= 1
    assert own_archive.requests()["v2/getImageWithMD5Hash"] == len(series)
