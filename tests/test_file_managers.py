"""File managers show a series of the drive, and fetch nothing of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.archive import EmbeddedArchive
from tests.desktop import PROGRAMS, Desktop, desktop
from tests.drive import Drive, mounted
from tests.test_mount import IMAGES
from tests.test_tools import require

SERIES = "Demo-CT/PHANTOM-01/*/2-CT-*"
NAMES = [f"1-{number:03}.dcm" for number in range(1, 121)]


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desktop]:
    """Run one desktop for all tests of this module."""
    for program in PROGRAMS:
        require(program)
    with desktop(tmp_path_factory.mktemp("screen")) as screen:
        yield screen


@pytest.fixture
def drive(tmp_path: Path, archive: EmbeddedArchive) -> Iterator[Drive]:
    """Mount the sample data, nothing of them listed."""
    with mounted(tmp_path, archive.url, "--ahead=off") as mount:
        yield mount


def shown(screen: Desktop, directory: Path) -> list[str]:
    """Return the names of the files that a window shows: it is told to select and copy them all."""
    screen.focus(directory.name)
    late = time.monotonic() + 15
    copied: list[str] = []
    while len(copied) < len(NAMES) and time.monotonic() < late:
        screen.press("ctrl+a", "ctrl+c")
        copied = screen.copied_files()
    paths = [Path(unquote(urlsplit(address).path)) for address in copied]
    assert {path.parent for path in paths} == {directory}
    return sorted(path.name for path in paths)


@pytest.mark.says(
    "A file manager that knows DICOM files by their name, as pcmanfm and Thunar do, shows a series and "
    "fetches no image.",
)
@pytest.mark.parametrize("program", ["pcmanfm", "thunar"])
def test_a_file_manager_shows_a_series_and_fetches_nothing(
    drive: Drive, archive: EmbeddedArchive, screen: Desktop, program: str
):
    require(program)
    (series,) = drive.path.glob(SERIES)
    before = drive.status()["fuse"]
    with screen.running(program, series):
        assert shown(screen, series) == NAMES
        picture = screen.settled_picture()  # whoever looks into the files has had the time for it
    after = drive.status()["fuse"]
    assert after["opendir"] > before["opendir"]
    assert after.get("open", 0) == before.get("open", 0)
    asked = archive.requests()
    assert asked["getImageDrillDown"] == 1
    assert not set(asked) & set(IMAGES)
    assert len(picture.getcolors(1 << 24) or []) > 20


def test_a_file_manager_without_mime_types_reads_every_file(
    drive: Drive, archive: EmbeddedArchive, screen: Desktop, tmp_path: Path
):
    """What docs/running.md warns of; and the proof that the test above would see it."""
    require("pcmanfm")
    (series,) = drive.path.glob(SERIES)
    with screen.running("env", f"XDG_DATA_DIRS={tmp_path}", "pcmanfm", series):
        assert shown(screen, series) == NAMES
    assert archive.requests()["v4/getSingleImage"] == len(os.listdir(series))
