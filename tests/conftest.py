"""Fixtures: the embedded archive over sample and real data, rooms for drives, and the check of the log."""

from __future__ import annotations

import gc
import logging
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archive import EmbeddedArchive, start_archive

_SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


# Where the tests are started behind a shell, it ignores SIGINT for all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Let the check of the log collect what a test leaves, and not everything that was ever imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let no test see or change what belongs to who runs it: settings, cache, log."""
    home = str(tmp_path_factory.mktemp("home"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", home)
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def sample_archive() -> Iterator[EmbeddedArchive]:
    """Serve the sample data for the whole run: never edited."""
    with start_archive() as archive:
        yield archive


@pytest.fixture
def archive(sample_archive: EmbeddedArchive) -> Iterator[EmbeddedArchive]:
    """Serve the sample data: no requests counted, no faults on."""
    sample_archive.reset()
    yield sample_archive
    sample_archive.reset()


@pytest.fixture
def own_archive() -> Iterator[EmbeddedArchive]:
    """Serve the sample data for one test, which may edit them or stop the archive."""
    with start_archive() as archive:
        yield archive


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the real DICOM files, which are not part of the project."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("the folder of real DICOM data is not beside the project")
    directory = tmp_path_factory.mktemp("real")
    for packed in sorted(_SHARED_DATA.glob("*.tar.xz")):
        subprocess.run(["tar", "-xJf", str(packed), "-C", str(directory)], check=True)
    return directory


@pytest.fixture(scope="session")
def real_data_archive(real_data: Path) -> Iterator[EmbeddedArchive]:
    """Serve the real DICOM files for the whole run: never edited."""
    with start_archive("--data", real_data) as archive:
        yield archive


@pytest.fixture
def real_archive(real_data_archive: EmbeddedArchive) -> Iterator[EmbeddedArchive]:
    """Serve the real DICOM files: no requests counted, no faults on."""
    real_data_archive.reset()
    yield real_data_archive
    real_data_archive.reset()


@pytest.fixture(autouse=True)
def unalarming_log(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test that logs a WARNING or worse, unless it is marked `alarming`."""
    yield
    gc.collect()  # what was never closed is told now, and fails the test that left it
    if request.node.get_closest_marker("alarming") is None:
        records = [*caplog.get_records("setup"), *caplog.get_records("call")]
        assert [r.getMessage() for r in records if r.levelno >= logging.WARNING] == []
