"""The drive through the kernel: what a user sees, and what the archive is asked for it."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pydicom
import pytest

from tciafs.service.mountinfo import mount_at
from tests.archive import EmbeddedArchive
from tests.drive import Drive, mounted

IMAGES = ("v4/getSingleImage", "v4/getImage")
PHANTOM = "Demo-CT/PHANTOM-01/*/2-CT-*/*"  # a volume of 120 slices
MD5 = "v4/getMD5HashForImage"
TEXTS = ["CITATION.bib", "CITATION.txt", "LICENSE.txt"]  # in each collection


def by_uid(directory: Path) -> dict[str, Path]:
    """Find the archive's own files by SOPInstanceUID."""
    found: dict[str, Path] = {}
    for path in sorted(directory.rglob("*.dcm")):
        uid = str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
        found.setdefault(uid, path)
    return found


def asked(archive: EmbeddedArchive, look: Callable[[], object]) -> dict[str, int]:
    """Return what the archive is asked while `look` is done."""
    archive.reset()
    look()
    return archive.requests()


def raised(look: Callable[[], object]) -> int | None:
    """Return the errno with which `look` fails."""
    try:
        look()
    except OSError as exc:
        return exc.errno
    return None


# What is there


@pytest.mark.says(
    "Sizes are exact before any image is fetched, where the archive tells them.",
)
def test_every_instance_of_real_data_is_listed_with_its_size_before_any_is_read(
    tmp_path: Path, real_archive: EmbeddedArchive, real_data: Path
):
    with mounted(tmp_path, real_archive.url) as drive:
        files = drive.files()
        sizes = sorted(file.stat().st_size for file in files)
        assert not set(real_archive.requests()) & set(IMAGES)
        stored = by_uid(real_data)
        assert sizes == sorted(path.stat().st_size for path in stored.values())
        shown = by_uid(drive.path)
        assert {uid: sha256(path.read_bytes()).digest() for uid, path in shown.items()} == {
            uid: sha256(path.read_bytes()).digest() for uid, path in stored.items()
        }


@pytest.mark.says(
    "Sorted by name, the files of a series are in the order of InstanceNumber.",
)
def test_sorted_names_are_slice_order(tmp_path: Path, real_archive: EmbeddedArchive):
    with mounted(tmp_path, real_archive.url) as drive:
        for series in drive.path.glob("Soft-tissue-Sarcoma/*/*/*"):
            headers = [pydicom.dcmread(p, stop_before_pixels=True) for p in sorted(series.iterdir())]
            numbers = [int(header.InstanceNumber) for header in headers if header.get("InstanceNumber")]
            assert numbers == sorted(numbers)


@pytest.mark.says(
    "The root lists the archive's collections, a collection its patients, a patient its studies, a "
    "study its series, and a series its DICOM files.",
)
def test_the_tree_is_collections_patients_studies_series_and_files(
    tmp_path: Path, real_archive: EmbeddedArchive
):
    with mounted(tmp_path, real_archive.url) as drive:
        assert sorted(p.name for p in drive.path.iterdir()) == [
            "DATA-USAGE-POLICY.txt",
            "QIN-PROSTATE",
            "Soft-tissue-Sarcoma",
            "dcmqi-samples",
        ]
        (study,) = drive.path.glob("QIN-PROSTATE/QIN-PROSTATE-01-0001/*")
        assert study.name.startswith("1971-07-14-PELVIS")
        (series,) = study.iterdir()
        assert [p.name for p in sorted(series.iterdir())] == [f"1-{n:03}.dcm" for n in range(1, 21)]


@pytest.mark.parametrize(
    ("layout", "study", "file"),
    [
        ("retriever", "07-14-1971-PELVIS W-O CONT-07027", "1-01.dcm"),
        ("uid", "1.3.6.1.4.1.14519.5.2.1.3671.7001.133687106572018334063091507027", None),
    ],
)
def test_other_layouts_name_the_same_files_otherwise(
    tmp_path: Path, real_archive: EmbeddedArchive, layout: str, study: str, file: str | None
):
    with mounted(tmp_path, real_archive.url, "--layout", layout) as drive:
        (directory,) = drive.path.glob("QIN-PROSTATE/*/*")
        assert directory.name == study
        files = sorted(p for p in directory.glob("*/*"))
        assert len(files) == 20
        uid = str(pydicom.dcmread(files[0]).SOPInstanceUID)
        assert files[0].name == (file or f"{uid}.dcm")


@pytest.mark.says(
    "A StudyInstanceUID, a SeriesInstanceUID and `<SOPInstanceUID>.dcm` lead from the right "
    "directory to what has them, though they are not listed.",
)
def test_uids_lead_to_what_is_shown_under_another_name(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        file = drive.files(PHANTOM)[60]
        header = pydicom.dcmread(file, stop_before_pixels=True)
        patient = file.parents[2]
        study, series = patient / header.StudyInstanceUID, file.parents[1] / header.SeriesInstanceUID
        assert os.readlink(study) == file.parents[1].name
        assert os.readlink(series) == file.parent.name
        assert study.lstat().st_size == len(os.readlink(study))
        again = study / header.SeriesInstanceUID / f"{header.SOPInstanceUID}.dcm"
        assert again.stat().st_ino == file.stat().st_ino
        assert again.read_bytes() == file.read_bytes()
        assert header.StudyInstanceUID not in os.listdir(patient)
        assert not (patient / "1.2.3.4").exists()


@pytest.mark.says(
    "Inode numbers are the same in every mount.",
)
def test_inode_numbers_are_the_same_in_every_mount(tmp_path: Path, archive: EmbeddedArchive):
    def inodes(drive: Drive) -> dict[str, int]:
        return {str(p): p.stat().st_ino for p in (*drive.path.iterdir(), *drive.files(PHANTOM))}

    with mounted(tmp_path, archive.url) as drive:
        first = inodes(drive)
    subprocess.run(["rm", "-r", str(tmp_path / "cache")], check=True)
    with mounted(tmp_path, archive.url) as drive:
        assert inodes(drive) == first
        assert len(set(first.values())) == len(first)


@pytest.mark.says(
    "Nothing can be written, renamed, removed or changed: each attempt is EROFS.",
    "The table of mounts shows `fuse.tciafs`, read-only, without set-uid programs, devices or execution.",
)
def test_a_drive_is_read_only_and_says_so_in_the_table_of_mounts(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        mount = mount_at(drive.path)
        assert mount
        assert mount.fstype == "fuse.tciafs"
        assert mount.source.startswith("127.0.0.1_")
        assert mount.options >= {"ro", "nosuid", "nodev", "noexec", "noatime", "default_permissions"}
        file = drive.files(PHANTOM)[0]
        writes: list[Callable[[], object]] = [
            lambda: file.write_bytes(b"x"),
            lambda: file.unlink(),
            lambda: file.chmod(0o600),
            lambda: file.rename(file.with_name("x.dcm")),
            lambda: (file.parent / "new").mkdir(),
            lambda: (drive.path / "new").touch(),
        ]
        assert [raised(write) for write in writes] == [errno.EROFS] * len(writes)
        assert file.stat().st_mode & 0o7777 == 0o444
        assert file.parent.stat().st_mode & 0o7777 == 0o555


@pytest.mark.says(
    "Files are 0444 and directories 0555, less `--umask`, and belong to whoever mounted or to "
    "`--uid` and `--gid`.",
)
def test_owner_and_permissions_are_those_asked_for(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url, "--uid", "12", "--gid", "34", "--umask", "027") as drive:
        found = (drive.path / "Demo-CT").stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (12, 34, 0o550)


@pytest.mark.says(
    "The time of a file and of its series is the day on which the series was last submitted.",
)
def test_times_are_those_of_the_series_submission(tmp_path: Path, own_archive: EmbeddedArchive):
    (uid,) = own_archive.edit(synthetic={"collection": "Dated", "patient_id": "A"})
    own_archive.edit(series=uid, submitted="2015-07-20")
    with mounted(tmp_path, own_archive.url) as drive:
        (file,) = drive.files("Dated/*/*/*/*")
        midnight = 1437350400
        assert file.stat().st_mtime == file.parent.stat().st_mtime == midnight


@pytest.mark.says(
    "`df` shows as used what is cached of this archive, and nothing as free.",
)
def test_df_tells_what_is_cached_and_nothing_free(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        before = os.statvfs(drive.path)
        file = drive.files(PHANTOM)[0]
        assert file.stat().st_blocks == 0
        size = len(file.read_bytes())
        after = os.statvfs(drive.path)
        assert (before.f_blocks, before.f_bfree, before.f_namemax) == (0, 0, 255)
        assert after.f_blocks == -(-size // 4096)
        assert (file.parent / file.name).stat().st_size == size


# What the archive is asked


def test_each_level_costs_one_request_and_a_patient_at_most_three(
    tmp_path: Path, real_archive: EmbeddedArchive
):
    with mounted(tmp_path, real_archive.url) as drive:
        assert asked(real_archive, lambda: os.listdir(drive.path)) == {"v4/getCollectionValues": 1}
        collection = drive.path / "Soft-tissue-Sarcoma"
        assert asked(real_archive, lambda: os.listdir(collection)) == {"v4/getPatient": 1}
        patient = collection / "STS_008"
        found = asked(real_archive, lambda: list(patient.glob("*/*")))
        assert found == {"v4/getPatientStudy": 1, "v4/getSeries": 1}
        series = sorted(patient.glob("*/*"))
        assert len(series) > 2
        assert sum(asked(real_archive, lambda: os.listdir(series[0])).values()) == 2
        assert asked(real_archive, lambda: [os.listdir(other) for other in series]) == {}


def test_a_file_costs_one_image_and_one_md5_and_the_second_time_nothing(
    tmp_path: Path, archive: EmbeddedArchive
):
    with mounted(tmp_path, archive.url) as drive:
        file = drive.files(PHANTOM)[7]
        assert asked(archive, file.read_bytes) == {"v4/getSingleImage": 1, MD5: 1}
        assert asked(archive, file.read_bytes) == {}
        reads = drive.status()["fuse"]["read"]
        file.read_bytes()
        assert drive.status()["fuse"]["read"] == reads  # the kernel's page cache answers


def test_verify_size_saves_the_request_for_the_md5(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url, "--verify", "size") as drive:
        file = drive.files(PHANTOM)[7]
        assert asked(archive, file.read_bytes) == {"v4/getSingleImage": 1}


def test_after_a_remount_nothing_is_asked_again(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        before = {p: p.read_bytes() for p in drive.files(PHANTOM)[:20]}
    with mounted(tmp_path, archive.url) as drive:
        assert asked(archive, lambda: drive.files(PHANTOM)) == {}
        assert asked(archive, lambda: [p.read_bytes() for p in before]) == {}
        assert all(p.read_bytes() == content for p, content in before.items())


@pytest.mark.says(
    "A name that begins with a dot, or in a series one that does not end in `.dcm`, does not exist, "
    "and asking for it costs no request.",
)
def test_names_that_cannot_exist_cost_nothing(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        series = drive.files(PHANTOM)[0].parent
        names = [
            drive.path / ".Trash",
            drive.path / "Demo-CT" / ".git",
            series / "desktop.ini",
            series / ".hidden",
        ]
        assert asked(archive, lambda: [name.exists() for name in names]) == {}
        assert [raised(name.stat) for name in names] == [errno.ENOENT] * len(names)


@pytest.mark.says(
    "However many open a file at once, it is fetched once.",
)
def test_however_many_open_a_file_it_is_fetched_once(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        file = drive.files(PHANTOM)[3]
        archive.faults(latency_ms=200)
        with ThreadPoolExecutor(32) as readers:
            contents = set(readers.map(lambda _: file.read_bytes(), range(32)))
        assert len(contents) == 1
        assert archive.requests()["v4/getSingleImage"] == 1
        assert archive.requests()[MD5] == 1


def test_never_more_than_eight_transfers_at_once(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        files = drive.files(PHANTOM)[:48]
        archive.faults(latency_ms=300)
        with ThreadPoolExecutor(48) as readers:
            assert len(set(readers.map(lambda p: p.read_bytes(), files))) == 48
        assert archive.high_water()["v4/getSingleImage"] == 8
        assert archive.high_water()[MD5] <= 4


# Large and hostile listings


@pytest.mark.says(
    "A directory reads the same from its opening to its closing, however often and from wherever it is read.",
)
def test_26000_patients_and_10000_instances_list_completely(tmp_path: Path, own_archive: EmbeddedArchive):
    own_archive.edit(synthetic={"collection": "Many", "patients": 26_000})
    own_archive.edit(synthetic={"collection": "Long", "patient_id": "L", "series_of": 10_000})
    with mounted(tmp_path, own_archive.url) as drive:
        assert len({n for n in os.listdir(drive.path / "Many") if n.startswith("P-")}) == 26_000
        (series,) = drive.path.glob("Long/L/*/*")
        names = sorted(os.listdir(series))
        assert names == [f"1-{n:05}.dcm" for n in range(1, 10_001)]
        assert len((series / names[-1]).read_bytes()) == (series / names[-1]).stat().st_size
        _check_seeking(series)


class Dirent(ctypes.Structure):
    """readdir(3) of 64-bit Linux."""

    _fields_ = (
        ("ino", ctypes.c_uint64),
        ("off", ctypes.c_int64),
        ("reclen", ctypes.c_uint16),
        ("type", ctypes.c_uint8),
        ("name", ctypes.c_char * 256),
    )


def _check_seeking(directory: Path) -> None:
    """Read a directory, go back to a place in the middle and to its start, and find the same again."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = ctypes.c_void_p
    libc.readdir.restype = ctypes.POINTER(Dirent)
    libc.telldir.restype = ctypes.c_long
    handle = ctypes.c_void_p(libc.opendir(os.fsencode(directory)))

    def rest() -> list[tuple[bytes, int]]:
        found = []
        while entry := libc.readdir(handle):
            found.append((entry.contents.name, libc.telldir(handle)))
        return found

    try:
        every = rest()
        assert [name for name, _ in every[:2]] == [b".", b".."]
        assert len(every) == 10_002
        for index in (9_999, 5_000, 300, 1, 0):
            libc.seekdir(handle, ctypes.c_long(every[index][1]))
            assert rest() == every[index + 1 :]
        libc.rewinddir(handle)
        assert rest() == every
    finally:
        libc.closedir(handle)


@pytest.mark.says(
    "Names are unique ignoring case, at most 255 bytes long, and safe on Windows and Samba, whatever"
    " the archive sends.",
)
def test_hostile_names_are_harmless(tmp_path: Path, own_archive: EmbeddedArchive):
    ids = [
        "../../etc",
        "a/b",
        "CON",
        ".hidden",
        "x\u202ey",
        "é" * 60,
        "Case",
        "case",
        "LICENSE.txt",
        "nul\0id",
        " ",
    ]
    own_archive.edit(synthetic={"collection": "Hostile", "patient_ids": ids})
    own_archive.edit(
        synthetic={
            "collection": "..",
            "patient_id": "P",
            "study_description": "\x00/../x" * 8,
            "series_description": "a\nb\x1b[31m/c" * 5,
        }
    )
    with mounted(tmp_path, own_archive.url) as drive:
        assert all(name.strip(". ") for name in os.listdir(drive.path))
        patients = sorted(os.listdir(drive.path / "Hostile"))
        assert len({name.casefold() for name in patients}) == len(ids) + len(TEXTS)
        assert not any(set(name) & set('/\\:*?"<>|\n\x1b') for name in patients)
        files = drive.files()
        assert all(str(file.resolve()).startswith(str(drive.path)) for file in files)
        hostile = [
            f for f in files if f.relative_to(drive.path).parts[0] not in ("Demo-CT", "Demo MR", "Demo-Mixed")
        ]
        assert len(hostile) == len(ids) + 1
        read = {str(pydicom.dcmread(file).SOPInstanceUID) for file in hostile}
        assert len(read) == len(hostile)


# Reading


@pytest.mark.says(
    "A read returns every byte that was asked for up to the end of the file, or an error.",
)
def test_reads_anywhere_in_a_file_are_exact(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        file = max(drive.files("Demo-Mixed/*/*/*/*"), key=lambda p: p.stat().st_size)
        whole = file.read_bytes()
        with file.open("rb", buffering=0) as opened:
            for offset in (0, 1, 4095, 4096, len(whole) - 1, len(whole), len(whole) + 10, 5000, 17):
                for size in (1, 100, 131_072, 1 << 21):
                    opened.seek(offset)
                    assert opened.read(size) == whole[offset : offset + size]


def test_a_directory_is_no_file_and_a_file_no_directory(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        file = drive.files(PHANTOM)[0]
        assert raised(file.parent.read_bytes) == errno.EISDIR
        assert raised(lambda: os.listdir(file)) == errno.ENOTDIR
        assert raised((file / "x").stat) == errno.ENOTDIR


def test_without_the_drill_down_sizes_are_exact_once_opened(tmp_path: Path, own_archive: EmbeddedArchive):
    own_archive.faults(disabled=["v4/getImageDrillDown", "getImageDrillDown"])
    with mounted(tmp_path, own_archive.url) as drive:
        files = drive.files(PHANTOM)
        assert len(files) == 120
        header = pydicom.dcmread(files[5], stop_before_pixels=True)
        assert files[5].name == f"{header.SOPInstanceUID}.dcm"
        for file in files[:10]:
            with file.open("rb") as opened:
                assert os.fstat(opened.fileno()).st_size == len(opened.read())
        sizes = [file.stat().st_size for file in files[:10]]
        assert sizes == [len(file.read_bytes()) for file in files[:10]]


@pytest.mark.says(
    "A size that the archive's database has wrong is right from the first open on.",
)
def test_a_wrong_promise_of_the_size_gives_way_to_the_file(tmp_path: Path, own_archive: EmbeddedArchive):
    (uid,) = own_archive.edit(synthetic={"collection": "Wrong", "patient_id": "W", "series_of": 3})
    own_archive.edit(series=uid, promised_size_delta=500)
    with mounted(tmp_path, own_archive.url) as drive:
        first, second, _ = drive.files("Wrong/*/*/*/*")
        promised = first.stat().st_size
        with first.open("rb") as opened:
            content = opened.read()
            assert len(content) == os.fstat(opened.fileno()).st_size == promised - 500
        assert first.stat().st_size == promised - 500
        copy = tmp_path / "copy"
        subprocess.run(["cp", str(second), str(copy)], check=True)
        assert copy.stat().st_size == promised - 500


# When things go wrong


@pytest.mark.says(
    "With the archive gone, what was listed is shown and what was read is read; anything else is "
    "EIO, never ENOENT and never empty.",
)
def test_with_the_archive_gone_what_was_seen_is_still_there(tmp_path: Path, own_archive: EmbeddedArchive):
    with mounted(tmp_path, own_archive.url) as drive:
        files = drive.files(PHANTOM)
        content = files[0].read_bytes()
        other = drive.path / "Demo-Mixed"
        own_archive.stop()
        assert len(drive.files(PHANTOM)) == 120
        assert files[0].read_bytes() == content
        assert raised(files[1].read_bytes) == errno.EIO
        assert raised(lambda: os.listdir(other)) == errno.EIO
        assert raised((other / "anything").stat) == errno.EIO
    with mounted(tmp_path, own_archive.url) as drive:  # and after a remount
        assert files[0].read_bytes() == content
        assert raised(files[1].read_bytes) == errno.EIO
        assert raised(lambda: os.listdir(other)) == errno.EIO


@pytest.mark.says(
    "A listing past its time is shown at once and renewed behind.",
)
def test_an_expired_listing_is_shown_while_the_archive_is_gone(tmp_path: Path, own_archive: EmbeddedArchive):
    flags = ("--ttl-collections", "0", "--ttl-listings", "0", "--ttl-instances", "0")
    with mounted(tmp_path, own_archive.url, *flags) as drive:
        before = drive.files(PHANTOM)
        own_archive.stop()
        time.sleep(1.1)  # the kernel keeps what has expired for a second
        assert drive.files(PHANTOM) == before


@pytest.mark.says(
    "While readers wait for a silent archive, everything that is on disk is read and listed at once.",
)
def test_a_silent_archive_costs_a_reader_no_more_than_the_deadline(tmp_path: Path, archive: EmbeddedArchive):
    flags = ("--deadline-metadata", "2", "--deadline-bytes", "2")
    with mounted(tmp_path, archive.url, *flags) as drive:
        files = drive.files(PHANTOM)
        content = files[0].read_bytes()
        archive.faults(rules=[{"do": "stall"}])
        began = time.monotonic()
        with ThreadPoolExecutor(60) as readers:
            waiting = [readers.submit(raised, file.read_bytes) for file in files[1:60]]
            listing = readers.submit(raised, lambda: os.listdir(drive.path / "Demo-Mixed"))
            time.sleep(0.5)
            asked_at = time.monotonic()
            assert files[0].read_bytes() == content  # a file that is there waits for nobody
            assert files[100].stat().st_size > 0
            assert time.monotonic() - asked_at < 1.0
            assert {reader.result() for reader in waiting} == {errno.ETIMEDOUT}
            assert listing.result() == errno.ETIMEDOUT
        assert time.monotonic() - began < 2 * 3
        archive.faults()
        assert files[70].read_bytes()


@pytest.mark.says(
    "An image can be opened when its MD5, or where the archive has none its size, is the archive's.",
)
@pytest.mark.parametrize("do", ["stall_body", "cut", "short", "corrupt", "html", "empty"])
def test_a_failed_fetch_is_an_error_and_never_wrong_bytes(tmp_path: Path, archive: EmbeddedArchive, do: str):
    with mounted(tmp_path, archive.url, "--deadline-bytes", "2") as drive:
        file = drive.files(PHANTOM)[20]
        archive.faults(rules=[{"endpoint": "getSingleImage", "do": do}])
        assert raised(file.read_bytes) in (errno.EIO, errno.ETIMEDOUT)
    archive.faults()
    with mounted(tmp_path, archive.url) as drive:
        header = pydicom.dcmread(file)
        assert header.InstanceNumber == 21
        assert file.stat().st_size == len(file.read_bytes())


@pytest.mark.says(
    "A request that fails for a passing reason is made again, up to three times in all.",
)
def test_a_fetch_that_fails_once_is_tried_again(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        file = drive.files(PHANTOM)[30]
        archive.faults(rules=[{"endpoint": "getSingleImage", "do": "cut", "times": 1}])
        assert len(file.read_bytes()) == file.stat().st_size
        assert archive.requests()["v4/getSingleImage"] == 2


@pytest.mark.says(
    "A listing is complete or an error, never empty or short because a request failed.",
)
@pytest.mark.parametrize("do", ["html", "empty", "malformed", "short", "status", "cut"])
def test_a_failed_listing_is_never_an_empty_directory(tmp_path: Path, archive: EmbeddedArchive, do: str):
    with mounted(tmp_path, archive.url) as drive:
        os.listdir(drive.path)
        patient = drive.path / "Demo-CT" / "PHANTOM-01"
        archive.faults(rules=[{"endpoint": name, "do": do} for name in ("getSeries", "getPatientStudy")])
        if do != "short":  # half of one study is a study all the same
            assert raised(lambda: os.listdir(patient)) == errno.EIO
            assert raised((patient / "2019").stat) == errno.EIO
        archive.faults()
        assert len(drive.files(PHANTOM)) == 120


@pytest.mark.says(
    "A login that the archive refuses is EACCES.",
)
def test_a_refused_login_is_told_as_a_lack_of_permission(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        archive.faults(rules=[{"do": "status", "status": 401}])
        assert raised(lambda: os.listdir(drive.path / "Demo-CT")) == errno.EACCES


def test_the_causes_of_errors_are_kept_with_their_paths(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        files = drive.files(PHANTOM)
        log = drive.path / ".tciafs" / "errors.log"
        assert log.read_text() == ""
        assert raised((drive.path / "nobody").stat) == errno.ENOENT
        assert log.read_text() == ""  # that needs no explanation
        archive.faults(rules=[{"do": "status", "status": 503, "body": "\x1b[31mtoo\nmany"}])
        assert raised(files[0].read_bytes) == errno.EIO
        assert raised(lambda: os.listdir(drive.path / "Demo MR")) == errno.EIO
        assert raised((drive.path / "Demo MR" / "x").stat) == errno.EIO
        lines = log.read_text().splitlines()
        shown = "/" + str(files[0].relative_to(drive.path))
        expected = [f"open {shown}: EIO: ", "opendir /Demo MR: EIO: ", "lookup /Demo MR/x: EIO: "]
        assert [line.partition("Z ")[2].partition("v4/")[0] for line in lines] == expected
        assert all("HTTP 503" in line and "\x1b" not in line for line in lines)


# The end


@pytest.mark.says(
    "SIGTERM, SIGINT, `fusermount3 -u` and `tciafs umount` end the drive with exit status 0.",
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_drive_in_order(tmp_path: Path, archive: EmbeddedArchive, number: int):
    with mounted(tmp_path, archive.url) as drive:
        held = os.open(drive.files(PHANTOM)[0], os.O_RDONLY)  # somebody still has a file open
        assert drive.end(number) == 0
        assert raised(lambda: os.close(held)) == errno.ENOTCONN
        assert mount_at(drive.path) is None


def test_signals_that_come_while_a_drive_ends_do_not_kill_it(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        drive.files(PHANTOM)
        subprocess.run(["fusermount3", "-u", str(drive.path)], check=True)
        while drive.process.poll() is None:
            drive.process.send_signal(signal.SIGTERM)
            drive.process.send_signal(signal.SIGINT)
            time.sleep(0.005)
        assert drive.process.returncode == 0


def test_a_signal_ends_the_drive_while_readers_wait_for_a_silent_archive(
    tmp_path: Path, archive: EmbeddedArchive
):
    with mounted(tmp_path, archive.url) as drive:
        files = drive.files(PHANTOM)
        archive.faults(rules=[{"do": "stall"}])
        with ThreadPoolExecutor(20) as readers:
            waiting = [readers.submit(raised, file.read_bytes) for file in files[:20]]
            time.sleep(0.3)
            began = time.monotonic()
            assert drive.end() == 0
            assert time.monotonic() - began < 5
            assert {reader.result() for reader in waiting} <= {errno.EIO, errno.ENOTCONN, errno.ECONNABORTED}


def test_fusermount_ends_the_drive_in_order(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        os.listdir(drive.path)
        subprocess.run(["fusermount3", "-u", str(drive.path)], check=True)
        assert drive.process.wait(timeout=10) == 0


@pytest.mark.says(
    "A cache is usable at once after the drive's process was killed at any moment.",
)
def test_a_killed_drive_leaves_a_cache_that_is_usable_at_once(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        files = drive.files(PHANTOM)
        contents = [file.read_bytes() for file in files[:5]]
        archive.faults(bandwidth_mbit=1)
        reader = threading.Thread(target=lambda: raised(files[50].read_bytes))
        reader.start()
        time.sleep(0.3)
        drive.end(signal.SIGKILL)
        reader.join()
    archive.reset()
    with mounted(tmp_path, archive.url) as drive:
        assert asked(archive, lambda: [file.read_bytes() for file in files[:5]]) == {}
        assert [file.read_bytes() for file in files[:5]] == contents
        assert len(files[50].read_bytes()) == files[50].stat().st_size
        assert list((tmp_path / "cache").glob("*/guest/parts/*")) == []


def test_a_dead_drive_is_replaced(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        drive.end(signal.SIGKILL)
        assert raised(lambda: os.listdir(drive.path)) == errno.ENOTCONN
        with mounted(tmp_path, archive.url) as again:
            assert len(again.files(PHANTOM)) == 120


# How the kernel asks


def test_where_it_may_be_set_a_read_is_as_large_as_libfuse_takes_it(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        mount = mount_at(drive.path)
        assert mount is not None
        may_be_set = os.access(f"/sys/class/bdi/0:{mount.minor}/read_ahead_kb", os.W_OK)  # by root alone
        file = drive.files(PHANTOM)[0]
        assert 128 << 10 < file.stat().st_size < 256 << 10
        before = drive.status()["fuse"].get("read", 0)
        file.read_bytes()
        assert drive.status()["fuse"]["read"] - before == (1 if may_be_set else 2)
