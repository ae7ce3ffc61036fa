"""The text files of the drive: policy, licences and citations, as any tool reads them."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pybtex.database import parse_file

from tciafs.policy import FILE, LINK
from tests.archive import EmbeddedArchive
from tests.drive import mounted
from tests.test_daemon import eventually
from tests.test_mount import TEXTS, asked, raised

DESCRIPTIONS, LICENSES, SERIES = "getCollectionDescriptions", "getLicenses", "v4/getSeries"
NOTHING = "No series of this collection was looked at yet."
ESTIMATE = 16 << 10


def run(*command: str | Path) -> bytes:
    return subprocess.run([*map(str, command)], check=True, capture_output=True).stdout


def becomes(said: Callable[[], str], what: str) -> bool:
    return eventually(lambda: what in said())


@pytest.mark.says(
    "`DATA-USAGE-POLICY.txt` in the root, and `LICENSE.txt`, `CITATION.txt` and `CITATION.bib` in each "
    "collection, are listed, and listing them costs no request.",
    "The text of a collection's file is what is known when it is opened, and says of how many series.",
    "Opening one never waits for the archive, which is asked behind for the rest, at most once a day.",
)
def test_licences_and_citations_are_told_at_once_and_in_full_when_the_archive_has_answered(
    tmp_path: Path, archive: EmbeddedArchive
):
    with mounted(tmp_path, archive.url) as drive:
        assert asked(archive, lambda: os.listdir(drive.path)) == {"v4/getCollectionValues": 1}
        mixed = drive.path / "Demo-Mixed"
        assert asked(archive, lambda: os.listdir(mixed)) == {"v4/getPatient": 1}
        assert set(TEXTS) < set(os.listdir(mixed))
        assert sorted(os.listdir(drive.path)) == ["DATA-USAGE-POLICY.txt", "Demo MR", "Demo-CT", "Demo-Mixed"]
        archive.reset()
        licences = mixed / "LICENSE.txt"
        with licences.open() as opened:
            assert becomes(licences.read_text, "All 18 series of the collection were looked at.")
            assert archive.requests() == {DESCRIPTIONS: 1, LICENSES: 1, SERIES: 1}
            assert NOTHING in opened.read()  # a handle has the text that it was opened with
        said = licences.read_text()
        assert "    17 series, https://doi.org/10.7937/demo.01f7b3f3\n" in said
        assert "    1 series of an analysis result, https://doi.org/10.7937/demo.9c6e77bd\n" in said
        assert "Of the collection as a whole, the archive says:\n    Creative Commons" in said
        bibliography = parse_file(str(mixed / "CITATION.bib"), "bibtex")
        assert list(bibliography.entries) == ["Demo-Mixed", "Demo-Mixed-2", "Clark2013"]
        assert "\nThis is Demo-Mixed, a collection of the demo archive.\n" in (
            (mixed / "CITATION.txt").read_text()
        )
        assert archive.requests() == {DESCRIPTIONS: 1, LICENSES: 1, SERIES: 1}
    with mounted(tmp_path, archive.url) as drive:
        assert asked(archive, lambda: said == (drive.path / "Demo-Mixed" / "LICENSE.txt").read_text()) == {}


@pytest.mark.says(
    "The size of such a file is an estimate until it is first opened; whatever tool reads it has all of it."
)
def test_tools_read_the_whole_text_though_its_size_was_an_estimate(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        mr = drive.path / "Demo MR"
        policy = drive.path / "DATA-USAGE-POLICY.txt"
        assert (policy.stat().st_size, policy.read_text()) == (len(FILE.encode()), FILE)
        assert LINK in FILE
        (mr / "LICENSE.txt").read_bytes()
        assert becomes((mr / "LICENSE.txt").read_text, "All ")
        archive.faults(rules=[{"do": "status", "status": 503}])  # the text stays as it is from now on
        paths = [drive.path / collection / name for collection in ("Demo-CT", "Demo MR") for name in TEXTS]
        fresh = [path for path in paths if path != mr / "LICENSE.txt"]
        assert {path.stat().st_size for path in fresh} == {ESTIMATE}
        counted, catted, copied, packed, mirrored = fresh
        size = int(run("wc", "-c", counted).split()[0])
        assert size == counted.stat().st_size == len(counted.read_bytes())
        assert run("cat", catted) == catted.read_bytes()
        run("cp", copied, tmp_path / "copied")
        assert (tmp_path / "copied").read_bytes() == copied.read_bytes()
        run("tar", "-cf", tmp_path / "packed.tar", "-C", packed.parent, packed.name)
        assert run("tar", "-xOf", tmp_path / "packed.tar") == packed.read_bytes()
        run("rsync", "-t", mirrored, tmp_path)
        assert (tmp_path / mirrored.name).read_bytes() == mirrored.read_bytes()
        assert run("rsync", "-tin", mirrored, tmp_path) == b""
        assert run("grep", "-c", "series", mr / "LICENSE.txt") != b"0\n"
        assert all(path.stat().st_size == len(path.read_bytes()) < ESTIMATE for path in paths)


def test_text_files_are_files_like_any_other(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url, "--umask", "027") as drive:
        file = drive.path / "Demo-CT" / "LICENSE.txt"
        listed = {entry.name: entry.inode() for entry in os.scandir(file.parent)}
        found = file.stat()
        assert (found.st_mode & 0o777, found.st_nlink) == (0o440, 1)
        inodes = [listed[name] for name in TEXTS]
        assert inodes == [(file.parent / name).stat().st_ino for name in TEXTS]
        assert len({*inodes, *((drive.path / "Demo MR" / name).stat().st_ino for name in TEXTS)}) == 6
        assert os.getxattr(file, "user.tcia.collection") == b"Demo-CT"
        assert os.listxattr(drive.path / "DATA-USAGE-POLICY.txt") == []
        assert raised(lambda: os.listdir(file)) == errno.ENOTDIR
        assert raised(lambda: (file / "x").stat()) == errno.ENOTDIR
        assert raised(lambda: file.open("w")) == errno.EROFS
        assert raised(lambda: (drive.path / "LICENSE.txt").stat()) == errno.ENOENT
        assert raised(lambda: (file.parent / "DATA-USAGE-POLICY.txt").stat()) == errno.ENOENT
        patient = next(path for path in file.parent.iterdir() if path.is_dir())
        assert raised(lambda: (patient / "LICENSE.txt").stat()) == errno.ENOENT
        before = file.stat().st_mtime
        file.read_bytes()
        assert becomes(file.read_text, "All ")
        changed = file.stat().st_mtime
        assert before == 0 < changed
        file.read_bytes()
        assert file.stat().st_mtime == changed
        counts = drive.status()["fuse"]
        assert counts["open"] == counts["release"]
    with mounted(tmp_path, archive.url) as drive:
        assert [(drive.path / "Demo-CT" / name).stat().st_ino for name in TEXTS] == inodes


def test_with_the_archive_away_what_is_known_is_told_and_the_archive_is_left_alone_for_a_while(
    tmp_path: Path, archive: EmbeddedArchive
):
    with mounted(tmp_path, archive.url) as drive:
        series = list((drive.path / "Demo-Mixed" / "id00001").glob("*/*"))
        assert series
        archive.faults(rules=[{"do": "stall"}])
        began = time.monotonic()
        file = drive.path / "Demo-Mixed" / "LICENSE.txt"
        assert f"{len(series)} of at least {len(series)} series were looked at." in file.read_text()
        assert NOTHING in (drive.path / "Demo-CT" / "LICENSE.txt").read_text()
        assert time.monotonic() - began < 6
        archive.reset()
        archive.faults(rules=[{"do": "status", "status": 503}])
        mr = drive.path / "Demo MR" / "CITATION.bib"
        mr.read_bytes()
        assert eventually(lambda: archive.requests().get(DESCRIPTIONS, 0) == 3)
        for _ in range(3):
            assert b"10.7937" not in mr.read_bytes()
        time.sleep(0.3)
        assert archive.requests() == {DESCRIPTIONS: 3}


@pytest.mark.says(
    "The series of a collection of more than 200 patients are never asked for all at once: its files tell "
    "of those that were listed."
)
def test_a_large_collection_is_never_asked_for_all_its_series(tmp_path: Path, own_archive: EmbeddedArchive):
    own_archive.edit(synthetic={"collection": "Large", "patients": 201})
    own_archive.edit(synthetic={"collection": "Small", "patients": 200})
    own_archive.edit(synthetic={"collection": "Tiny", "patients": 1})
    with mounted(tmp_path, own_archive.url) as drive:
        large, small = drive.path / "Large" / "LICENSE.txt", drive.path / "Small" / "LICENSE.txt"
        os.listdir(drive.path)
        assert NOTHING in large.read_text()
        assert becomes(large.read_text, "Of the collection as a whole, the archive says:\n    Creative")
        assert own_archive.requests()["v4/getPatient"] == 1
        assert SERIES not in own_archive.requests()
        assert NOTHING in large.read_text()
        assert len(list((large.parent / "P-000001").glob("*/*"))) == 1
        assert "1 of at least 1 series were looked at." in large.read_text()
        tiny = drive.path / "Tiny" / "LICENSE.txt"
        assert len(list(tiny.parent.glob("P-000001/*/*"))) == 1
        own_archive.faults(rules=[{"do": "malformed", "endpoint": SERIES}])
        assert "All 1 series of the collection were looked at." in tiny.read_text()  # they were listed
        small.read_bytes()
        assert becomes(small.read_text, "Of the collection as a whole")
        assert NOTHING in small.read_text()
