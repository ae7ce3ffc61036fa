"""Where a case takes place: the archive on its line, drives with new caches, folders for the peers."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.archive import EmbeddedArchive, start_archive
from tests.bench.measure import PROFILES
from tests.bench.peers import Remote
from tests.drive import Drive, mounted

SLICES = 220
COLLECTION = "Bench"


class Scene:
    """An archive and a room; `profile` is the line between them, once `begin` was called."""

    def __init__(self, archive: EmbeddedArchive, room: Path, profile: str) -> None:
        self.archive = archive
        self.room = room
        self.profile = profile
        self._numbers = itertools.count()

    def make_series(self, count: int = 1, slices: int = SLICES, side: int = 512) -> list[str]:
        """Add series of a thorax to the archive, all in one study."""
        wanted: dict[str, object] = {"patient_id": "thorax", "study_instance_uid": "2.25.1"}
        wanted |= {"series": count, "series_of": slices, "side": side}
        return self.archive.edit(synthetic={"collection": COLLECTION, **wanted})

    def begin(self) -> None:
        """Let the line be what the profile says; what was set up until now came at full speed."""
        self.archive.faults(**PROFILES[self.profile])

    def remote(self, uid: str) -> Remote:
        """Return a series as a client of the archive sees it, its files made by now."""
        self.archive.faults()
        remote = Remote(self.archive.url, uid)
        with self.folder() as folder:
            remote.curl_images(folder / "warm")
            remote.curl_zip(folder / "zipped", 600)
        return remote

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Yield an empty folder, removed at the end of the block."""
        path = self.room / f"folder-{next(self._numbers)}"
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path)

    @contextmanager
    def drive(self, *options: str) -> Iterator[Drive]:
        """Mount the archive with a new cache."""
        with self.folder() as folder, mounted(folder, self.archive.url, *options) as drive:
            yield drive


@contextmanager
def scene(profile: str) -> Iterator[Scene]:
    """Start an archive, empty and at full speed until `begin` is called."""
    with (
        start_archive(module="tests.bench.server") as archive,
        tempfile.TemporaryDirectory(prefix="tciafs-bench-") as room,
    ):
        yield Scene(archive, Path(room), profile)


def series_files(drive: Drive, uid: str) -> list[Path]:
    """Return the files of a series in the order of names, listed for this."""
    (study,) = (drive.path / COLLECTION / "thorax").iterdir()
    series = (study / uid).resolve()
    return sorted(series.iterdir())
