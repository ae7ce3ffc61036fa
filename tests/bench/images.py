"""The cases of images that nobody has read yet: one, a whole series, and tools that read a series."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.bench.measure import Case, Measure, Round, Target, in_turn, ratio, read_all, run, seconds
from tests.bench.peers import Remote, dicom_files, rclone_mount
from tests.bench.scene import Scene, scene, series_files

_SAMPLES = 5
_PATIENCE = 2.0  # times as long as the other way, a ZIP is waited for
_SIMPLEITK = """
import sys, SimpleITK
reader = SimpleITK.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames(sys.argv[1]))
assert reader.Execute().GetSize() == (512, 512, int(sys.argv[2]))
"""


@contextmanager
def _first_slice(profile: str) -> Iterator[Measure]:
    with scene(profile) as place:
        uids = place.make_series(_SAMPLES, slices=3)
        remotes = [place.remote(uid) for uid in uids]
        place.begin()

        def measure(number: int) -> Round:
            with place.drive() as drive, place.folder() as folder:
                firsts = [series_files(drive, uid)[0] for uid in uids]

                def by_drive() -> float:
                    return sum(seconds(file.read_bytes) for file in firsts)

                def by_curl() -> float:
                    return sum(
                        remote.curl_image(remote.sop_instance_uids[0], folder / "one.dcm")
                        for remote in remotes
                    )

                found = in_turn(number, {"drive": by_drive, "curl": by_curl})
            return {name: each / _SAMPLES for name, each in found.items()}

        yield measure


def _downloads(place: Scene, remote: Remote, read: Callable[[Path], object]) -> Round:
    """Download a series both ways of curl, and read what came."""
    with place.folder() as folder:
        single = remote.curl_images(folder / "images")
        single += seconds(lambda: read(folder / "images"))
        zipped = remote.curl_zip(folder / "zip", _PATIENCE * single)
        if (folder / "zip" / "1-001.dcm").exists():
            zipped += seconds(lambda: read(folder / "zip"))
    return {"curl, 8 images at a time": single, "curl, ZIP": zipped}


def _by_tcia_utils(place: Scene, remote: Remote) -> float:
    with place.folder() as folder:
        return remote.tcia_utils(folder / "tcia") + seconds(lambda: read_all(dicom_files(folder / "tcia")))


def _by_rclone(place: Scene, uid: str, *options: str) -> float:
    with place.folder() as folder, rclone_mount(folder, place.archive.url, uid, *options) as path:
        files = dicom_files(path)
        return seconds(lambda: read_all(files))


@contextmanager
def _series(profile: str) -> Iterator[Measure]:
    with scene(profile) as place:
        (uid,) = place.make_series()
        remote = place.remote(uid)
        place.begin()

        def by_drive() -> Round:
            with place.drive() as drive:
                files = series_files(drive, uid)
                return {"drive": seconds(lambda: read_all(files))}

        def by_curl() -> Round:
            return _downloads(place, remote, lambda folder: read_all(dicom_files(folder)))

        def measure(number: int) -> Round:
            found: Round = {}
            for contender in (by_drive, by_curl) if number % 2 else (by_curl, by_drive):
                found |= contender()
            if profile != "slow":
                found["tcia-utils"] = _by_tcia_utils(place, remote)
            if number == 0 and profile != "slow":  # minutes, each of them
                found["rclone mount"] = _by_rclone(place, uid)
                found["rclone mount, full cache"] = _by_rclone(place, uid, "--vfs-cache-mode", "full")
            return found

        yield measure


def _simpleitk(folder: Path, count: int) -> None:
    run(sys.executable, "-c", _SIMPLEITK, folder, str(count))


def _dcm2niix(folder: Path, out: Path) -> None:
    run("dcm2niix", "-o", out, folder)


@contextmanager
def _tools(profile: str) -> Iterator[Measure]:
    with scene(profile) as place:
        (uid,) = place.make_series()
        remote = place.remote(uid)
        place.begin()
        count = len(remote.sop_instance_uids)

        def by_drive(tool: Callable[[Path], object]) -> float:
            with place.drive() as drive:
                series = series_files(drive, uid)[0].parent
                return seconds(lambda: tool(series))

        def by_download(tool: Callable[[Path], object]) -> float:
            return min(_downloads(place, remote, tool).values())

        def measure(number: int) -> Round:
            with place.folder() as out:
                tools: dict[str, Callable[[Path], object]] = {
                    "SimpleITK": lambda folder: _simpleitk(folder, count),
                    "dcm2niix": lambda folder: _dcm2niix(folder, out),
                }
                contenders: dict[str, Callable[[], float]] = {}
                for name, tool in tools.items():
                    contenders[f"{name}, drive"] = partial(by_drive, tool)
                    contenders[f"{name}, download first"] = partial(by_download, tool)
                return in_turn(number, contenders)

        yield measure


_WAYS = ("curl, ZIP", "curl, 8 images at a time")

CASES = (
    Case(
        name="first-slice",
        title="The first slice of a series that nobody has read",
        how="A slice of 0.5 MB is opened and read to its end in a new drive whose series was listed; curl"
        f" fetches the same slice. The mean of {_SAMPLES} series.",
        begin=_first_slice,
        profiles=("lan", "wan", "slow"),
        targets=(
            Target(
                what="drive / curl of the image",
                value=ratio("drive", "curl"),
                limit=lambda profile: 2 if profile == "lan" else 1.15,
            ),
        ),
        bars=("drive", "curl"),
    ),
    Case(
        name="series",
        title="A whole series, for the first time",
        how="220 slices (115 MB) are read in the order of their names from a new drive, once the series is"
        " listed. The others download first (curl and unzip, curl of single images, tcia-utils without its"
        " import), then read. A ZIP is given up when it takes twice as long as the single images. rclone"
        " reads in the first round alone.",
        begin=_series,
        profiles=("lan", "wan", "slow"),
        targets=(
            Target(
                what="drive / the faster way of curl",
                value=ratio("drive", *_WAYS),
                limit=lambda profile: 1.5 if profile == "lan" else 1.0,
            ),
            Target(
                what="drive / tcia-utils", value=ratio("drive", "tcia-utils"), limit=0.7, profiles=("wan",)
            ),
        ),
        bars=("drive", *_WAYS, "tcia-utils", "rclone mount", "rclone mount, full cache"),
    ),
    Case(
        name="tools",
        title="A tool that reads a whole series, for the first time",
        how="SimpleITK and dcm2niix read the 220 slices from a new drive; or from a folder, the faster"
        " download of curl included.",
        begin=_tools,
        profiles=("wan",),
        targets=tuple(
            Target(
                what=f"{tool}: drive / download, then read",
                value=ratio(f"{tool}, drive", f"{tool}, download first"),
                limit=0.9,
            )
            for tool in ("SimpleITK", "dcm2niix")
        ),
        bars=tuple(
            f"{tool}, {way}" for tool in ("SimpleITK", "dcm2niix") for way in ("drive", "download first")
        ),
    ),
)
