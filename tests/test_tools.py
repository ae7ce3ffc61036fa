"""Imaging and everyday tools read the drive as they read local files: byte for byte, each on unread files."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from tests.archive import EmbeddedArchive
from tests.drive import Drive, mounted
from tests.test_mount import by_uid

Tool = Callable[[Path, Path], bytes]
"""Reads a file, given a scratch directory; returns the bytes that it saw."""

NO_SIZES = ["v4/getImageDrillDown", "getImageDrillDown"]
SERIES = "Soft-tissue-Sarcoma/*/*/*-{modality}-*"


def run(*command: str | Path, **more: object) -> bytes:
    """Return what a program prints; it must succeed."""
    require(str(command[0]))
    done = subprocess.run([str(word) for word in command], capture_output=True, check=False, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, (command, done.stderr)
    output: bytes = done.stdout
    return output


def require(program: str) -> None:
    """Skip where a program is not installed; fail instead where TCIAFS_REQUIRE_TOOLS is set, as in CI."""
    if shutil.which(program) is None:
        if os.environ.get("TCIAFS_REQUIRE_TOOLS"):
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")


def copied(*command: str) -> Tool:
    """Make a tool of a command that copies {file} to {copy}."""

    def read(file: Path, room: Path) -> bytes:
        copy = room / "copy"
        run(*(word.format(file=file, copy=copy) for word in command))
        return copy.read_bytes()

    return read


def through_tar(file: Path, room: Path) -> bytes:
    run("tar", "-C", file.parent, "-cf", room / "a.tar", file.name)
    return run("tar", "-xOf", room / "a.tar", file.name)


def through_zip(file: Path, room: Path) -> bytes:
    run("zip", "-qj", room / "a.zip", file)
    return run("unzip", "-p", room / "a.zip", file.name)


def through_mmap(file: Path, room: Path) -> bytes:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        return bytes(mapped)


def through_seek(file: Path, room: Path) -> bytes:
    with file.open("rb") as opened:
        middle = opened.seek(0, os.SEEK_END) // 2
        opened.seek(middle)
        end = opened.read()
        opened.seek(0)
        return opened.read(middle) + end


def through_copyfile(file: Path, room: Path) -> bytes:
    shutil.copyfile(file, room / "copy")
    return (room / "copy").read_bytes()


TOOLS: dict[str, Tool] = {
    "cat": lambda file, room: run("cat", file),
    "cp": copied("cp", "{file}", "{copy}"),
    "cp -a": copied("cp", "-a", "{file}", "{copy}"),
    "dd": copied("dd", "if={file}", "of={copy}", "bs=7000"),
    "rsync -a": copied("rsync", "-a", "{file}", "{copy}"),
    "head and tail -c": lambda file, room: run("head", "-c", "-1000", file) + run("tail", "-c", "1000", file),
    "tar": through_tar,
    "zip": through_zip,
    "mmap": through_mmap,
    "seek": through_seek,
    "copyfile": through_copyfile,
}

# What a tool says of a file must be what it says of the original.
SAYINGS: dict[str, Callable[[Path], object]] = {
    "wc -c": lambda file: run("wc", "-c", file).split()[0],
    "sha256sum": lambda file: run("sha256sum", file).split()[0],
    "file": lambda file: run("file", "-b", file),
    "grep -c": lambda file: run("grep", "-c", "-a", "DICM", file),
    "pydicom": lambda file: bytes(pydicom.dcmread(file).PixelData),
    "dcmdump": lambda file: run("dcmdump", "-q", file),
    "dcmftest": lambda file: run("dcmftest", file).split(b":")[0],
    "gdcminfo": lambda file: run("gdcminfo", file),
}


@pytest.fixture(params=["sizes known", "sizes unknown"])
def drive(tmp_path: Path, real_archive: EmbeddedArchive, request: pytest.FixtureRequest) -> Iterator[Drive]:
    """Mount the real data, with and without the request that tells sizes."""
    real_archive.faults(disabled=[] if request.param == "sizes known" else NO_SIZES)
    with mounted(tmp_path, real_archive.url) as mount:
        yield mount


@pytest.mark.says(
    "Whatever tool reads a file, it reads what the archive has.",
)
def test_every_tool_reads_every_byte(drive: Drive, real_data: Path, tmp_path: Path):
    files = iter(drive.files("Soft-tissue-Sarcoma/*/*/*-PT-*/*"))
    read = {}
    for name, tool in TOOLS.items():
        room = tmp_path / name
        room.mkdir()
        read[name] = tool(next(files), room)
    originals = {sha256(path.read_bytes()).hexdigest() for path in by_uid(real_data).values()}
    assert [name for name, content in read.items() if sha256(content).hexdigest() not in originals] == []


def test_every_tool_says_of_a_file_what_it_says_of_the_original(drive: Drive, real_data: Path):
    originals = by_uid(real_data)
    files = iter(drive.files("Soft-tissue-Sarcoma/*/*/*-MR-*/*"))
    for name, say in SAYINGS.items():
        file = next(files)
        said = say(file)
        original = originals[str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)]
        if isinstance(said, bytes):
            said = said.replace(os.fsencode(file), os.fsencode(original))
        assert said == say(original), name


def test_cmp_finds_a_file_like_the_original(drive: Drive, real_data: Path):
    originals = by_uid(real_data)
    for file in drive.files("QIN-PROSTATE/*/*/*/*")[:3]:
        uid = os.getxattr(file, "user.tcia.sop_uid").decode()  # told without opening the file
        run("cmp", file, originals[uid])


def test_what_shows_sizes_shows_those_of_the_originals(
    tmp_path: Path, real_archive: EmbeddedArchive, real_data: Path
):
    stored = {uid: path.stat().st_size for uid, path in by_uid(real_data).items()}
    with mounted(tmp_path, real_archive.url) as drive:
        _check_sizes(drive, stored)
        assert "v4/getSingleImage" not in real_archive.requests()
    real_archive.faults(disabled=NO_SIZES)
    (tmp_path / "unknown").mkdir()
    with mounted(tmp_path / "unknown", real_archive.url, "--sizes", "exact") as drive:
        _check_sizes(drive, stored)


def _check_sizes(drive: Drive, stored: dict[str, int]) -> None:
    """Compare what find, ls and du say of each file of a series, and of all, with what is stored."""
    (series,) = drive.path.glob("QIN-PROSTATE/*/*/*")
    expected = sorted(stored[os.getxattr(file, "user.tcia.sop_uid").decode()] for file in series.iterdir())
    shown = run("ls", "-l", series).decode().splitlines()[1:]
    assert sorted(int(line.split()[4]) for line in shown) == expected
    shown = run("find", series, "-type", "f", "-printf", "%s\n").decode().split()
    assert sorted(map(int, shown)) == expected
    assert len(
        run("find", series, "-type", "f", "-size", f"{expected[0]}c").split(b"\n")
    ) - 1 == expected.count(expected[0])
    counted = run("du", "-sb", "--exclude=*.txt", "--exclude=*.bib", drive.path)
    assert int(counted.split()[0]) == sum(stored.values())


def test_rsync_transfers_a_series_once(drive: Drive, tmp_path: Path):
    series = next(drive.path.glob(SERIES.format(modality="CT")))
    copy = tmp_path / "copy"
    run("rsync", "-a", f"{series}/", copy)
    assert _digests(copy) == _digests(series)
    again = run("rsync", "-a", "--stats", f"{series}/", copy).decode()
    assert "Number of regular files transferred: 0" in again


def test_simpleitk_reads_a_series_as_the_same_volume(drive: Drive, tmp_path: Path, real_data: Path):
    series = next(drive.path.glob(SERIES.format(modality="CT")))
    local = tmp_path / "local"
    in_order = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames
    seen = _volume(in_order(str(series)))
    _copy_originals(series, local, real_data)
    assert len(seen) == len(list(series.iterdir()))
    assert np.array_equal(seen, _volume(in_order(str(local))))


def test_a_plain_sorted_glob_is_the_volume(tmp_path: Path, real_archive: EmbeddedArchive):
    with mounted(tmp_path, real_archive.url) as drive:
        for series in drive.path.glob(SERIES.format(modality="CT")):
            in_order = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(series))
            volumes = [_volume(names) for names in (in_order, sorted(map(str, series.iterdir())))]
            # Both directions along the patient are slice order.
            assert any(np.array_equal(volumes[0], volumes[1][::step]) for step in (1, -1))


@pytest.mark.timeout(120)
def test_dcm2niix_converts_a_series_to_the_same_volume(drive: Drive, tmp_path: Path, real_data: Path):
    series = next(drive.path.glob(SERIES.format(modality="MR")))
    local = tmp_path / "local"
    made = []
    for number, source in enumerate((series, local)):
        if source == local:
            _copy_originals(series, local, real_data)
        output = tmp_path / f"nifti{number}"
        output.mkdir()
        run("dcm2niix", "-f", "volume", "-b", "n", "-o", output, source)
        made.append({path.name: path.read_bytes() for path in output.iterdir()})
    assert made[0]
    assert made[0] == made[1]


def test_the_phantom_is_a_volume_of_120_slices(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        (series,) = drive.path.glob("Demo-CT/PHANTOM-01/*/2-CT-*")
        assert _volume(sorted(map(str, series.iterdir()))).shape == (120, 256, 256)
        run("dcm2niix", "-f", "volume", "-b", "n", "-o", tmp_path, series)
        assert SimpleITK.ReadImage(str(tmp_path / "volume.nii")).GetSize() == (256, 256, 120)


@pytest.mark.says(
    "Listing, `find`, `stat` and `du` fetch no image.",
)
def test_listing_tools_fetch_no_image(tmp_path: Path, real_archive: EmbeddedArchive):
    with mounted(tmp_path, real_archive.url) as drive:
        run("find", drive.path, "-size", "+1k")
        run("ls", "-lR", drive.path)
        run("du", "-a", "--apparent-size", drive.path)
        run("stat", *drive.files())
        asked = real_archive.requests()
        assert "v4/getSingleImage" not in asked
        assert "v4/getMD5HashForImage" not in asked


def _volume(files: Sequence[str]) -> np.ndarray:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(files)
    return SimpleITK.GetArrayFromImage(reader.Execute())


def _digests(directory: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def _copy_originals(series: Path, local: Path, real_data: Path) -> None:
    """Put the archive's own files of a series into a directory, under the names of the drive."""
    originals = by_uid(real_data)
    local.mkdir()
    for file in series.iterdir():
        uid = str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)
        shutil.copy(originals[uid], local / file.name)
