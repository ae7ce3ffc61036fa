"""A drive of exactly the series of a manifest, or of a shared cart."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tciafs.manifest import manifest_text, read_manifest
from tests.archive import EmbeddedArchive
from tests.drive import Drive, mounted
from tests.test_cli import tciafs
from tests.test_mount import asked, raised
from tests.test_selected import (
    COLLECTIONS,
    PATIENTS,
    SERIES,
    STUDIES,
    Attributes,
    _wait_until,
    attributes,
    kept,
    listed,
    shown,
)

METADATA, CART = "v4/getSeriesMetadata", "v1/getContentsByName"
MISSING = "1.2.3.4"


def everything(drive: Drive) -> tuple[dict[str, int], dict[str, Attributes]]:
    """Return the inode number of every directory, and the attributes of every series, by path."""
    there = shown(drive)
    return there, {path: attributes(drive.path / path) for path in there if path.count("/") == 3}


def missing(drive: Drive) -> str:
    return (drive.path / ".tciafs" / "missing.txt").read_text()


def some(series: dict[str, Attributes]) -> dict[str, Attributes]:
    """Return series of several collections, patients and studies, and not all of any study of some."""
    return dict(sorted(series.items())[::3])


@pytest.mark.says(
    "With `--manifest` or `--shared-cart`, exactly the listed series are there, and the directories that"
    " lead to them; with other selections besides, those that match.",
    "`tciafs manifest` of a drive and `tciafs mount --manifest` of that file show the same series.",
)
def test_exactly_what_is_listed_is_there(tmp_path: Path, own_archive: EmbeddedArchive):
    file = tmp_path / "my list.tcia"
    with mounted(tmp_path, own_archive.url) as drive:
        whole, series = everything(drive)
        wanted = some(series)
        told = tciafs("manifest", "-o", file, *(drive.path / path for path in wanted))
        assert told.returncode == 0, told.stderr
        uids = {one["series_uid"] for one in wanted.values()}
        own_archive.edit(cart="nbia-1", series=sorted(uids))
    link = "https://nbia.example/nbia-search/?saved-cart=nbia-1"
    for flags in (("--manifest", str(file)), ("--shared-cart", link)):
        with mounted(tmp_path, own_archive.url, *flags) as drive:
            expected = kept(series, lambda one: one["series_uid"] in uids)
            assert shown(drive) == {path: whole[path] for path in expected}
            assert {raised((drive.path / path).lstat) for path in set(whole) - expected} == {errno.ENOENT}
            again = tciafs("manifest", drive.path)
            assert set(read_manifest(again.stdout.encode())) == uids
            assert "--manifest" in flags or missing(drive).startswith("# The shared cart 'nbia-1' has")
            _check_image(drive, next(iter(sorted(wanted))))
    half = sorted(uids)[::2]
    own_archive.edit(cart="nbia-2", series=half)
    all_three = ("--manifest", str(file), "--shared-cart", "nbia-2", "--modality", "ct")
    with mounted(tmp_path, own_archive.url, *all_three) as drive:
        expected = kept(series, lambda one: one["series_uid"] in half and one["modality"] == "CT")
        assert 0 < len(expected) < len(kept(series, lambda one: one["series_uid"] in half))
        assert shown(drive) == {path: whole[path] for path in expected}
        assert "has all" in missing(drive)


def _check_image(drive: Drive, series: str) -> None:
    file = next(iter(sorted((drive.path / series).iterdir())))
    assert len(file.read_bytes()) == file.stat().st_size


@pytest.mark.says(
    "What the archive has not of a manifest is listed in `.tciafs/missing.txt`, and the log says once how"
    " many they are.",
)
def test_what_is_missing_is_told(tmp_path: Path, archive: EmbeddedArchive):
    table = tmp_path / "list.csv"
    with mounted(tmp_path, archive.url) as drive:
        series = attributes(next(iter(drive.path.glob("Demo MR/*/*/*"))))
        assert not (drive.path / ".tciafs" / "missing.txt").exists()
    table.write_text(f"SeriesInstanceUID,x\r\n{series['series_uid']},1\r\n{MISSING},2\r\n")
    flags = ("--manifest", str(table))
    said = f"1 of the 2 series of '{table}' are not in the archive; .tciafs/missing.txt lists them"
    with mounted(tmp_path, archive.url, *flags, expect="missing.txt lists them") as drive:
        _wait_until(lambda: said in drive.log)  # before anybody looked
        lines = missing(drive).splitlines()
        assert lines[0].startswith(f"# 1 of the 2 series of '{table}' were not in the archive on 20")
        assert lines[1:] == [MISSING]
        assert listed(drive.path) == ["Demo MR"]
        assert listed(drive.path) == ["Demo MR"]
        assert drive.log.count("missing.txt") == 1
        assert drive.status()["mount"]["selection"] == {"manifest": [str(table)]}
        settings = (drive.path / ".tciafs" / "config.toml").read_text()
        assert f'manifest = "{table}"' in settings
    nobodys = "the archive has no shared cart 'nobodys', or nothing of what is in it"
    with mounted(tmp_path, archive.url, "--shared-cart", "nobodys", expect=nobodys) as drive:
        assert listed(drive.path) == []
        assert missing(drive) == f"# {nobodys}\n"


def test_a_list_costs_a_request_and_the_same_later_none(tmp_path: Path, own_archive: EmbeddedArchive):
    (uid, _) = own_archive.edit(synthetic={"collection": "C", "patient_id": "p", "series": 2})
    (tmp_path / "list.tcia").write_text(manifest_text([uid]))
    flags = ("--manifest", str(tmp_path / "list.tcia"))
    own_archive.forget()
    with mounted(tmp_path, own_archive.url, *flags) as drive:
        _wait_until(lambda: own_archive.requests() == {METADATA: 1})
        assert asked(own_archive, lambda: listed(drive.path)) == {COLLECTIONS: 1}
        assert asked(own_archive, lambda: listed(drive.path / "C")) == {PATIENTS: 1}
        assert asked(own_archive, lambda: listed(drive.path / "C" / "p")) == {STUDIES: 1, SERIES: 1}
        assert asked(own_archive, lambda: list(drive.path.glob("C/p/*/*"))) == {}
        before = shown(drive)
    own_archive.stop()
    with mounted(tmp_path, own_archive.url, *flags) as drive:
        assert shown(drive) == before


def test_a_long_manifest_is_mounted_at_once_and_asked_in_few_requests(
    tmp_path: Path, own_archive: EmbeddedArchive
):
    uids = own_archive.edit(synthetic={"collection": "Many", "patients": 6_000})
    (tmp_path / "list.tcia").write_text(manifest_text([*uids, *(f"1.2.{one}" for one in range(44_000))]))
    flags = ("--manifest", str(tmp_path / "list.tcia"), "--deadline-metadata", "30")
    with mounted(tmp_path, own_archive.url, *flags, expect="missing.txt lists them") as drive:
        assert listed(drive.path) == ["Many"]
        assert own_archive.requests() == {METADATA: 10, COLLECTIONS: 1}
        assert len(listed(drive.path / "Many")) == 6_000
        assert own_archive.requests() == {METADATA: 10, COLLECTIONS: 1, PATIENTS: 1}
        assert missing(drive).count("\n") == 44_001


def test_a_short_list_is_no_walk_through_its_collection(tmp_path: Path, own_archive: EmbeddedArchive):
    uids = own_archive.edit(synthetic={"collection": "C", "patients": 9})[:6]
    (tmp_path / "list.tcia").write_text(manifest_text(uids))
    with mounted(tmp_path, own_archive.url, "--manifest", str(tmp_path / "list.tcia")) as drive:
        assert len(list(drive.path.glob("C/*/*/*"))) == 6
        requests = own_archive.requests()
        assert (requests[STUDIES], requests[SERIES]) == (6, 6)


def test_a_list_that_failed_is_an_error_and_never_an_empty_drive(tmp_path: Path, archive: EmbeddedArchive):
    (tmp_path / "list.tcia").write_text(manifest_text([MISSING]))
    archive.faults(rules=[{"endpoint": METADATA, "do": "status", "status": 503}])
    flags = ("--manifest", str(tmp_path / "list.tcia"))
    with mounted(tmp_path, archive.url, *flags, expect="missing.txt lists them") as drive:
        assert raised(lambda: listed(drive.path)) == errno.EIO
        assert missing(drive).startswith("# The archive has not told yet")
        archive.faults()
        assert listed(drive.path) == []
        assert missing(drive).splitlines()[1:] == [MISSING]
        assert "so the drive is empty" not in drive.log


def test_without_bulk_metadata_each_series_is_asked_for(tmp_path: Path, own_archive: EmbeddedArchive):
    wanted = own_archive.edit(synthetic={"collection": "C", "patients": 5})[1:]
    (tmp_path / "list.tcia").write_text(manifest_text(wanted))
    own_archive.faults(disabled=[METADATA])
    own_archive.forget()
    flags = ("--manifest", str(tmp_path / "list.tcia"))
    with mounted(tmp_path, own_archive.url, *flags) as drive:
        assert len(listed(drive.path / "C")) == len(wanted)
        assert own_archive.requests() == {METADATA: 1, SERIES: 4, COLLECTIONS: 1, PATIENTS: 1}


def test_a_refresh_of_the_drive_asks_for_the_cart_anew(tmp_path: Path, own_archive: EmbeddedArchive):
    uids = own_archive.edit(synthetic={"collection": "C", "patient_ids": ["a", "b"]})
    own_archive.edit(cart="c", series=uids[:1])
    with mounted(tmp_path, own_archive.url, "--shared-cart", "c") as drive:
        patients = drive.path / "C"
        assert listed(patients) == ["a"]
        assert len(list(patients.glob("a/*/*/*"))) == 1  # and the kernel remembers the way
        own_archive.edit(cart="c", series=uids[1:])
        assert tciafs("refresh", drive.path).returncode == 0
        assert listed(patients) == ["b"]
        _wait_until(lambda: raised((patients / "a").stat) == errno.ENOENT)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory); name a .tcia"),
        (b"nothing", "has no SeriesInstanceUID; takes a .tcia manifest, or CSV or TSV with that column"),
        (b"\0\1\2", "is no text; takes a .tcia manifest, or CSV or TSV"),
    ],
)
def test_a_manifest_of_nothing_is_told_in_one_line(
    tmp_path: Path, archive: EmbeddedArchive, content: bytes | None, said: str
):
    behind = ("--daemon",) if content is None else ()
    file = tmp_path / "list.tcia"
    if content is not None:
        file.write_bytes(content)
    (tmp_path / "drive").mkdir()
    cache = ("--cache-dir", tmp_path / "cache")
    done = tciafs("mount", tmp_path / "drive", "--archive", archive.url, *cache, "--manifest", file, *behind)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"tciafs: --manifest {file}: {said}")
    assert done.stderr.count("\n") == 1
    assert not os.path.ismount(tmp_path / "drive")
