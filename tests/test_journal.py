"""What was read of a drive: cited, and listed in a manifest, in its mount and beyond it."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pybtex.database import parse_string

from tciafs.cli import main
from tciafs.database import digest_of
from tciafs.manifest import read_manifest
from tests.archive import EmbeddedArchive
from tests.drive import Drive, mounted
from tests.test_cli import tciafs
from tests.test_control import failed
from tests.test_daemon import eventually
from tests.test_selected import attributes

SLICES, SEG, MR = "Demo-CT/PHANTOM-01/*/2-CT-*/*", "Demo-Mixed/*/*/*SEG*/*", "Demo MR/4MR1/*/*/*"


def run(*arguments: str | Path) -> Result:
    """Run a command of the program in this process: most of its time is its start."""
    return CliRunner().invoke(main, list(map(str, arguments)))


def read_of(drive: Drive, *options: str) -> list[str]:
    """Return the series that `manifest --read` lists."""
    done = run("manifest", "--read", drive.path, *options)
    assert (done.exit_code, done.stderr) == (0, "")
    return read_manifest(done.stdout_bytes)


def fails(*arguments: str | Path) -> str:
    """Run a command, and return the one line with which it failed."""
    done = run(*arguments)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    return done.stderr


def series_of(*files: Path) -> list[str]:
    return sorted(attributes(file)["series_uid"] for file in files)


@pytest.mark.says(
    "`tciafs cite --read` and `tciafs manifest --read` tell of the series of which an image was read since"
    " the drive was mounted, and of no others: not of those that were listed, looked at or fetched ahead.",
    "An analysis result in a collection is cited by its own DOI.",
)
def test_what_was_read_is_cited_and_nothing_else(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        files = drive.files()
        said = failed(tciafs("cite", "--read", drive.path))
        assert "no image was read since it was mounted; --since and --all tell" in said
        assert all(file.stat().st_size and os.listxattr(file) for file in files)
        os.close(os.open(files[-1], os.O_RDONLY))  # fetched, and nothing of it read
        (drive.path / "Demo-CT" / "LICENSE.txt").read_bytes()
        fails("manifest", "--read", drive.path)

        (seg,) = drive.files(SEG)
        slices = drive.files(SLICES)
        for file in (seg, *slices[:3]):  # the rest of that series comes ahead
            file.read_bytes()
        assert read_of(drive) == series_of(seg, slices[0])
        said = run("cite", "--read", drive.path).stdout
        one, other = attributes(seg), attributes(slices[0])
        assert f"    Analysis result in Demo-Mixed. The Cancer Imaging Archive. {one['doi']}\n" in said
        assert f"    Demo-CT. The Cancer Imaging Archive. {other['doi']}\n" in said
        assert said.count("https://doi.org/10.7937/") == 2
        entries = parse_string(run("cite", "--read", drive.path, "--bibtex").stdout, "bibtex").entries
        assert set(entries) == {"Analysis-result-in-Demo-Mixed", "Demo-CT", "Clark2013"}
        assert run("cite", seg).stdout.count(one["doi"]) == 1
        manifest = tmp_path / "read.tcia"
        assert run("manifest", "--read", drive.path, "-o", manifest).stdout == ""
        assert read_manifest(manifest.read_bytes()) == series_of(seg, slices[0])


@pytest.mark.says(
    "With `--since` or `--all` they tell of what all drives of the same archive and cache read, those that"
    " have ended among them, whatever of it is still cached or listed.",
)
def test_what_was_read_is_remembered_beyond_the_mount(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        (seg,), mr = drive.files(SEG), drive.files(MR)[0]
        first, second = series_of(seg), series_of(mr)
        seg.read_bytes()
        mr.read_bytes()
        assert eventually(lambda: len(kept(tmp_path)) == 2)
        drive.end(signal.SIGKILL)  # what was read is kept at once
    for catalog in (tmp_path / "cache").rglob("catalog.sqlite*"):
        catalog.unlink()
    run("cache", "clear", "--cache-dir", tmp_path / "cache", "--yes")
    read_at(tmp_path, first[0], time.time() - 90 * 24 * 3600)
    with mounted(tmp_path, archive.url) as drive, mounted(tmp_path, archive.url, name="other") as other:
        fails("cite", "--read", drive.path)
        assert read_of(drive, "--all") == sorted(first + second)
        month = (datetime.now() - timedelta(days=30)).strftime("%Y-%m-%d")
        assert read_of(drive, "--since", month) == second
        other.files(SEG)[0].read_bytes()
        assert eventually(lambda: len(read_of(drive, "--since", f"{month} 00:00")) == 2)
        fails("manifest", "--read", drive.path)
        assert "say which drive: " in fails("cite", "--read")


def kept(room: Path) -> dict[str, float]:
    with contextlib.closing(sqlite3.connect(journal(room))) as db:
        return dict(db.execute("SELECT series, read_at FROM read"))


def read_at(room: Path, uid: str, when: float) -> None:
    """Let a series have been read at another time."""
    with contextlib.closing(sqlite3.connect(journal(room))) as db, db:
        (record,) = db.execute("SELECT record FROM read WHERE series = ?", (uid,)).fetchone()
        row = (when, digest_of(uid, when, record), uid)
        db.execute("UPDATE read SET read_at = ?, digest = ? WHERE series = ?", row)


def journal(room: Path) -> Path:
    (path,) = (room / "cache").rglob("journal.sqlite")
    return path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cite",), "say of which PATH, or --read"),
        (("manifest", "--since", "2026-01-01", "x"), "--since and --all are of --read"),
        (("cite", "--read", "a", "b"), "--read takes one mount point"),
        (("cite", "--read", "--all", "--since", "2026-01-01"), "either --since or --all"),
        (("cite", "--read", "--since", "yesterday"), "does not match the formats"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: tuple[str, ...], said: str):
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())


def test_a_journal_that_cannot_be_written_harms_no_reader(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url, expect="what was read cannot be kept") as drive:
        change(tmp_path, "CREATE TRIGGER t BEFORE INSERT ON read BEGIN SELECT RAISE(ABORT, 'full'); END")
        (seg,), mr = drive.files(SEG), drive.files(MR)[0]
        assert seg.read_bytes()
        assert eventually(lambda: "what was read cannot be kept for 'tciafs cite --read': full" in drive.log)
        assert mr.read_bytes()
        assert eventually(lambda: "WARNING what was read cannot be kept" in drive.log)
        assert read_of(drive) == series_of(seg, mr)
        assert kept(tmp_path) == {}


def test_a_journal_that_is_damaged_is_begun_anew_with_what_this_mount_read(
    tmp_path: Path, archive: EmbeddedArchive
):
    with mounted(tmp_path, archive.url, expect="journal.sqlite cannot be used") as drive:
        (seg,) = drive.files(SEG)
        seg.read_bytes()
        assert eventually(lambda: len(kept(tmp_path)) == 1)
        change(tmp_path, "UPDATE read SET record = zeroblob(9)")
        assert "the journal of what was read cannot be read" in fails(
            "manifest", "--read", drive.path, "--all"
        )
        assert eventually(lambda: read_of(drive, "--all") == series_of(seg) and len(kept(tmp_path)) == 1)


def change(room: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(journal(room))) as db, db:
        db.execute(statement)
