"""Each sentence of docs/semantics.md is quoted by a test; those that no other file proves are proved here."""

from __future__ import annotations

import ast
import errno
import os
import re
import subprocess
import threading
import time
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from tciafs.catalog.freshness import Freshness
from tciafs.config import Config
from tests.archive import EmbeddedArchive, start_archive
from tests.drive import mounted
from tests.test_cli import tciafs
from tests.test_mount import IMAGES, PHANTOM, asked, raised

DOCUMENT = Path(__file__).parent.parent / "docs" / "semantics.md"
NO_SIZES = ["v4/getImageDrillDown", "getImageDrillDown"]


def quoted() -> set[str]:
    """Return every sentence that a `says` marker quotes, in any test file."""
    found: set[str] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.says":
                found |= {str(ast.literal_eval(argument)) for argument in node.args}
    return found


def test_every_sentence_of_the_document_has_a_test_and_no_test_quotes_another():
    sentences = re.findall(r"^- (.*)$", DOCUMENT.read_text(), re.MULTILINE)
    assert len(sentences) > 40
    assert sorted(quoted()) == sorted(sentences)


@pytest.mark.says("A series' directory holds DICOM files and nothing else.")
def test_a_series_holds_dicom_files_alone(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        for series in drive.path.glob("*/*/*/*"):
            for name in os.listdir(series):
                assert name.endswith(".dcm")
                assert pydicom.dcmread(series / name, stop_before_pixels=True).SOPInstanceUID


@pytest.mark.says(
    "Where the archive does not tell them, a size is an estimate until the file is first opened,"
    " and exact from then on, for ever."
)
def test_an_estimate_becomes_exact_and_stays_so(tmp_path: Path, own_archive: EmbeddedArchive):
    own_archive.faults(disabled=NO_SIZES)
    sizes = {}
    with mounted(tmp_path, own_archive.url) as drive:
        files = drive.files("Demo MR/*/*/*/*")
        assert all(file.stat().st_size > 0 for file in files)
        for file in files:
            with file.open("rb") as opened:
                sizes[file] = os.fstat(opened.fileno()).st_size
                assert len(opened.read()) == sizes[file]
        assert {file: file.stat().st_size for file in files} == sizes
    for path in tmp_path.glob("cache/*/guest/objects/*/*"):
        path.unlink()  # the bytes may go, the size stays
    with mounted(tmp_path, own_archive.url) as drive:
        assert asked(own_archive, lambda: [file.stat() for file in sizes]) == {}
        assert {file: file.stat().st_size for file in sizes} == sizes


@pytest.mark.says("With `--sizes=exact`, asking for the size of a file fetches it where nothing else tells.")
def test_sizes_can_be_exact_before_any_open(tmp_path: Path, own_archive: EmbeddedArchive):
    own_archive.faults(disabled=NO_SIZES)
    with mounted(tmp_path, own_archive.url, "--sizes", "exact") as drive:
        file = drive.files(PHANTOM)[9]
        size = file.stat().st_size
        assert own_archive.requests()["v4/getSingleImage"] > 0
        before = own_archive.requests()["v4/getSingleImage"]
        assert len(file.read_bytes()) == size
        assert own_archive.requests()["v4/getSingleImage"] == before


@pytest.mark.says(
    "`du` counts what is on your disk, `du --apparent-size` what the archive has, and the text files."
)
def test_du_counts_what_is_on_disk(tmp_path: Path, archive: EmbeddedArchive):
    def du(*flags: str) -> int:
        done = subprocess.run(["du", "-s", "-B1", *flags, series], capture_output=True, text=True, check=True)
        return int(done.stdout.split()[0])

    with mounted(tmp_path, archive.url) as drive:
        files = drive.files(PHANTOM)
        series = str(files[0].parent)
        assert du() == 0
        assert du("--apparent-size") >= sum(file.stat().st_size for file in files)
        size = len(files[0].read_bytes())
        assert 0 <= du() - size < 4096


@pytest.mark.says(
    "The attributes `user.tcia.*` tell the identifiers, the modality, the licence and"
    " whether a file is cached."
)
def test_extended_attributes_tell_what_a_file_is(tmp_path: Path, archive: EmbeddedArchive):
    def told(path: Path) -> dict[str, str]:
        names = os.listxattr(path)
        return {name.removeprefix("user.tcia."): os.getxattr(path, name).decode() for name in names}

    with mounted(tmp_path, archive.url) as drive:
        file = drive.files(PHANTOM)[0]
        header = pydicom.dcmread(drive.files(PHANTOM)[1], stop_before_pixels=True)
        of_file = told(file)
        assert of_file["cached"] == "0"
        assert file.read_bytes()
        assert told(file) == {**of_file, "cached": "1"}
        assert set(of_file) >= {"sop_uid", "license", "doi", "size_exact", "body_part"}
        of_series = told(file.parent)
        assert of_series["series_uid"] == header.SeriesInstanceUID == of_file["series_uid"]
        assert of_series["modality"] == "CT"
        assert told(file.parents[1]) == {
            "collection": "Demo-CT",
            "patient_id": "PHANTOM-01",
            "study_uid": header.StudyInstanceUID,
        }
        assert told(file.parents[2]) == {"collection": "Demo-CT", "patient_id": "PHANTOM-01"}
        assert told(file.parents[3]) == {"collection": "Demo-CT"}
        assert told(drive.path) == told(drive.path / ".tciafs") == {}
        with pytest.raises(OSError, match="No data available"):
            os.getxattr(file, "user.tcia.nothing")


@pytest.mark.says(
    "Attributes of other namespaces (`security.*`, `system.*`) are not supported, so `ls -l` asks for"
    " each of these once, not of every file."
)
def test_other_namespaces_are_not_supported(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        file = drive.files(PHANTOM)[0]
        for name in ("security.selinux", "security.capability", "system.posix_acl_access"):
            for path in (drive.path, file.parent, file):
                assert raised(lambda p=path, n=name: os.getxattr(p, n)) == errno.ENOTSUP  # type: ignore[misc]


@pytest.mark.says("With `--xattrs=off` there are no extended attributes.")
def test_extended_attributes_can_be_off(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url, "--xattrs", "off") as drive:
        assert raised(lambda: os.getxattr(drive.path / "Demo-CT", "user.tcia.collection")) == errno.ENOTSUP
        assert raised(lambda: os.listxattr(drive.path / "Demo-CT")) == errno.ENOTSUP
        assert "getxattr" not in drive.status()["fuse"]


@pytest.mark.says(
    "A listing is believed for 24 hours (collections), 6 hours (patients, studies and"
    " series) or 30 days (files)."
)
def test_listings_are_believed_for_as_long_as_is_said():
    hour = 3600
    defaults = (Config.ttl_collections, Config.ttl_listings, Config.ttl_instances)
    assert defaults == (24 * hour, 6 * hour, 30 * 24 * hour)
    assert (Freshness().collections, Freshness().listings, Freshness().instances) == defaults


@pytest.mark.says(
    "A reader waits 15 seconds for a listing, and 30 seconds for bytes that do not co"
    "me, and then gets ETIMEDOUT."
)
def test_deadlines_are_as_long_as_is_said(tmp_path: Path, archive: EmbeddedArchive):
    assert (Config.deadline_metadata, Config.deadline_bytes) == (15, 30)
    flags = ("--deadline-metadata", "2", "--deadline-bytes", "2")
    with mounted(tmp_path, archive.url, *flags) as drive:
        file = drive.files(PHANTOM)[0]
        archive.faults(rules=[{"do": "stall"}])
        for look in (file.read_bytes, lambda: os.listdir(drive.path / "Demo MR")):
            began = time.monotonic()
            assert raised(look) == errno.ETIMEDOUT
            assert 1 < time.monotonic() - began < 2 * 3


@pytest.mark.says(
    "A series that was submitted again has new files under the same names,"
    " and a file that is open keeps the bytes it was opened with."
)
def test_a_series_submitted_again_is_another_version(tmp_path: Path, own_archive: EmbeddedArchive):
    (uid,) = own_archive.edit(synthetic={"collection": "Again", "patient_id": "A", "series_of": 3})
    with mounted(tmp_path, own_archive.url, "--ttl-listings", "1") as drive:
        names = drive.files("Again/*/*/*/*")
        inodes = [name.stat().st_ino for name in names]
        with names[0].open("rb") as opened:
            content = opened.read(100)
            own_archive.edit(series=uid, submitted="2026-01-02")
            deadline = time.monotonic() + 10
            while names[1].stat().st_ino == inodes[1] and time.monotonic() < deadline:
                time.sleep(0.5)
            assert drive.files("Again/*/*/*/*") == names
            assert not set(inodes) & {name.stat().st_ino for name in names}
            opened.seek(0)
            assert opened.read(100) == content
        asked_before = own_archive.requests().get("v4/getSingleImage", 0)
        assert names[0].read_bytes()
        assert own_archive.requests()["v4/getSingleImage"] == asked_before + 1
        assert names[0].stat().st_mtime == 1767312000  # 2026-01-02


@pytest.mark.says(
    "A file that was read before is not fetched again, not even by another mount of the same cache."
)
def test_two_mounts_of_one_cache_fetch_a_file_once(tmp_path: Path, archive: EmbeddedArchive):
    for room in ("one", "other"):
        (tmp_path / room).mkdir()
    shared = ("--cache-dir", str(tmp_path / "shared"))
    with (
        mounted(tmp_path / "one", archive.url, *shared) as one,
        mounted(tmp_path / "other", archive.url, *shared) as other,
    ):
        pairs = list(zip(one.files(PHANTOM)[:20], other.files(PHANTOM)[:20], strict=True))
        seen: list[bool] = []
        readers = [
            threading.Thread(target=lambda a=a, b=b: seen.append(a.read_bytes() == b.read_bytes()))
            for a, b in pairs
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert seen == [True] * 20
        images = [line for line in archive.log() if "getSingleImage" in line]
        assert len(images) == len(set(images)) >= 20  # more where they come ahead of their readers


@pytest.mark.says(
    "A cached file that was damaged is found at its first read in a mount, set aside and fetched again."
)
@pytest.mark.parametrize("damage", ["flipped", "zeroed", "truncated", "longer"])
def test_damage_on_disk_is_mended(tmp_path: Path, archive: EmbeddedArchive, damage: str):
    with mounted(tmp_path, archive.url) as drive:
        file = drive.files(PHANTOM)[0]
        content = file.read_bytes()
    (stored,) = tmp_path.glob("cache/*/guest/objects/*/*")
    data = bytearray(stored.read_bytes())
    match damage:
        case "flipped":
            data[70_000] ^= 1
        case "zeroed":
            data[4096:8192] = bytes(4096)
        case "truncated":
            del data[-1:]
        case "longer":
            data += b"x"
    stored.write_bytes(data)
    with mounted(tmp_path, archive.url, expect="is damaged") as drive:
        assert file.read_bytes() == content
        assert stored.read_bytes() == content
        assert archive.requests()["v4/getSingleImage"] == 2


@pytest.mark.says(
    "The cache holds no more than `--cache-size` at any moment, however many mounts share it, and what was"
    " used least goes first."
)
@pytest.mark.says("A file that is open keeps its bytes when it is removed from the cache.")
def test_the_cache_stays_within_its_limit(tmp_path: Path, archive: EmbeddedArchive):
    limit = 2 << 20
    with mounted(tmp_path, archive.url, "--cache-size", "2M") as drive:
        files = drive.files(PHANTOM)
        with files[0].open("rb", buffering=0) as opened:
            start = opened.read(4096)
            whole = {file: file.read_bytes() for file in files[1:]}
            stored = [path.stat().st_size for path in tmp_path.glob("cache/*/guest/objects/*/*")]
            assert limit // 2 < sum(stored) <= limit
            subprocess.run(["sync"], check=True)
            rest = opened.read()
            assert len(start + rest) == files[0].stat().st_size
        archive.reset()
        assert files[-1].read_bytes() == whole[files[-1]]
        assert archive.requests() == {}  # the latest is there
        assert drive.status()["cache"]["evictions"] > 60
        assert drive.status()["cache"]["bytes"] <= limit


@pytest.mark.says("An object larger than the cache is read all the same.")
def test_an_object_larger_than_the_cache_is_read(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url, "--cache-size", "50K") as drive:
        file = drive.files(PHANTOM)[0]
        assert pydicom.dcmread(file).pixel_array.shape == (256, 256)
        assert list(tmp_path.glob("cache/*/guest/objects/*/*")) == []


@pytest.mark.says("On a full disk, images are read from memory.")
def test_a_full_disk_is_read_past(tmp_path: Path, archive: EmbeddedArchive):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=True)
    try:
        flags = ("--ahead=off", "--cache-dir", str(disk / "cache"))
        with mounted(tmp_path, archive.url, *flags, expect="disk is full") as drive:
            files = drive.files(PHANTOM)
            ballast = disk / "ballast"
            free = os.statvfs(disk)
            ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - 20_000))
            assert [len(file.read_bytes()) for file in files[:5]] == [f.stat().st_size for f in files[:5]]
            assert list(disk.glob("cache/*/guest/objects/*/*")) == []
            ballast.unlink()
            assert files[5].read_bytes()
            assert len(list(disk.glob("cache/*/guest/objects/*/*"))) == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.says(
    "A directory that holds anything else than a cache of tciafs is refused, and nothing in it is touched."
)
def test_a_directory_of_ones_own_is_no_cache(tmp_path: Path, archive: EmbeddedArchive):
    thesis = tmp_path / "home" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("all of it")
    drive = tmp_path / "drive"
    drive.mkdir()
    done = tciafs("mount", drive, "--archive", archive.url, "--cache-dir", thesis.parent)
    assert done.returncode == 1
    assert "neither empty nor a cache of tciafs: give another --cache-dir" in done.stderr
    for command in ("info", "verify", "repair"):
        done = tciafs("cache", command, "--cache-dir", thesis.parent)
        assert (done.returncode, done.stdout) == (1, "")
        assert "no cache of tciafs is there" in done.stderr
    assert tciafs("cache", "clear", "--yes", "--cache-dir", thesis.parent).returncode == 1
    assert [path.name for path in thesis.parent.iterdir()] == ["thesis.txt"]


@pytest.fixture(scope="module")
def large_archive(tmp_path_factory: pytest.TempPathFactory):
    """Serve one image of 40 MB."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "Large").mkdir()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    image = Dataset()
    image.file_meta = meta
    image.SOPClassUID, image.PatientID, image.Modality, image.InstanceNumber = CTImageStorage, "L", "CT", 1
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.Rows = image.Columns = 4472
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation, image.SamplesPerPixel = 15, 0, 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.PixelData = os.urandom(2 * image.Rows * image.Columns)
    image.save_as(folder / "Large" / "image.dcm", enforce_file_format=True)
    with start_archive("--data", folder) as archive:
        archive.original = folder / "Large" / "image.dcm"  # type: ignore[attr-defined]
        yield archive


@pytest.mark.says(
    "A file of more than 16 MiB is read while it arrives,"
    " and its last block of 4 MiB when the whole is the archive's."
)
def test_a_large_file_is_read_while_it_arrives(tmp_path: Path, large_archive: EmbeddedArchive):
    original = large_archive.original.read_bytes()  # type: ignore[attr-defined]
    with mounted(tmp_path, large_archive.url) as drive:
        (file,) = drive.files()
        large_archive.faults(bandwidth_mbit=100)  # 3 s for all of it
        began = time.monotonic()
        with file.open("rb", buffering=0) as opened:
            assert opened.read(100_000) == original[:100_000]
            early = time.monotonic() - began
            opened.seek(-1000, os.SEEK_END)
            assert opened.read() == original[-1000:]
            late = time.monotonic() - began
        assert early < late / 2
        assert file.read_bytes() == original
        assert large_archive.requests()["v4/getSingleImage"] == 1
    large_archive.reset()


@pytest.mark.says("A fetch that failed leaves nothing that a later reader could see.")
def test_a_large_file_that_failed_halfway_is_an_error_and_then_right(
    tmp_path: Path, large_archive: EmbeddedArchive
):
    original = large_archive.original.read_bytes()  # type: ignore[attr-defined]
    with mounted(tmp_path, large_archive.url, "--deadline-bytes", "2") as drive:
        (file,) = drive.files()
        for do in ("cut", "corrupt"):
            large_archive.faults(rules=[{"endpoint": "getSingleImage", "do": do}])
            with file.open("rb", buffering=0) as opened:
                found = bytearray()
                number = raised(lambda: found.extend(_all(opened)))  # noqa: B023
            assert number in (errno.EIO, errno.ETIMEDOUT)
        assert list(tmp_path.glob("cache/*/guest/objects/*/*")) == []
        large_archive.faults()
        deadline = time.monotonic() + 20
        while (content := _content(file)) is None and time.monotonic() < deadline:
            time.sleep(0.2)  # what failed may still be ending
        assert content == original


def _all(opened) -> bytes:
    return b"".join(iter(lambda: opened.read(1 << 20), b""))


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def test_looking_after_the_cache(tmp_path: Path, archive: EmbeddedArchive):
    cache = ("--cache-dir", tmp_path / "cache")
    with mounted(tmp_path, archive.url, "--ahead=off") as drive:
        files = drive.files(PHANTOM)[:3]
        contents = [file.read_bytes() for file in files]
        assert "3 files" in tciafs("cache", "info", *cache).stdout
        assert tciafs("cache", "verify", *cache).stdout == "Every file is as it was fetched.\n"
    one, other, _ = sorted(tmp_path.glob("cache/*/guest/objects/*/*"))
    one.write_bytes(bytes(one.stat().st_size))
    other.unlink()
    nobodys = one.with_name("nobody")
    nobodys.touch()
    done = tciafs("cache", "verify", *cache)
    assert (done.returncode, done.stderr) == (
        1,
        "tciafs: 3 things are wrong; mend them with 'tciafs cache repair'\n",
    )
    assert all(word in done.stdout for word in ("damaged: ", "gone: ", "nobody's: "))
    assert tciafs("cache", "repair", *cache).stdout == "3 things were mended.\n"
    assert tciafs("cache", "verify", *cache).returncode == 0
    with mounted(tmp_path, archive.url, "--ahead=off") as drive:
        assert [file.read_bytes() for file in files] == contents
        done = tciafs("cache", "clear", "--yes", *cache)
        assert "3 files" in done.stdout
        assert [file.read_bytes() for file in files] == contents
        assert set(archive.requests()) & set(IMAGES)
    assert "no cache of tciafs is there" in tciafs("cache", "info", "--cache-dir", tmp_path / "none").stderr
