"""`tciafs cite` and `tciafs manifest`: of paths in drives, as a user runs them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from pybtex.database import parse_string

from tciafs.manifest import read_manifest
from tests.archive import EmbeddedArchive
from tests.drive import mounted
from tests.test_cli import tciafs
from tests.test_selected import attributes

COLLECTIONS = ("Demo-CT", "Demo MR", "Demo-Mixed")


@pytest.mark.says(
    "`tciafs cite` names each DOI and each licence of the paths that it is given once, from however many"
    " drives they are.",
    "`tciafs manifest` lists every series at or below the paths that it is given, once.",
)
def test_what_was_used_is_cited_and_listed(tmp_path: Path, archive: EmbeddedArchive):
    with (
        mounted(tmp_path, archive.url) as drive,
        mounted(tmp_path, archive.url, "--layout", "uid", name="other") as other,
    ):
        paths = [drive.path / name for name in COLLECTIONS]
        series = [attributes(path) for path in drive.path.glob("*/*/*/*")]
        _check_citation(tciafs("cite", *drive.path.glob("*/*"), other.path / "Demo-CT" / "CITATION.txt"), 4)
        _check_bibtex(tciafs("cite", "--bibtex", *paths), {told["doi"] for told in series})

        file = drive.files("Demo-CT/PHANTOM-01/*/2-CT-*/*")[0]
        one = attributes(file)
        said = tciafs("cite", file, file.parent, file.parents[1]).stdout
        assert said.count(one["doi"]) == said.count(one["license_uri"]) == 1

        of_one = tciafs("manifest", file, file.parent).stdout
        assert read_manifest(of_one.encode()) == [one["series_uid"]]
        listed = tmp_path / "all.tcia"
        assert tciafs("manifest", "-o", listed, drive.path, other.path).returncode == 0
        assert sorted(read_manifest(listed.read_bytes())) == sorted(told["series_uid"] for told in series)
        assert "\ndatabasketId=all.tcia\n" in listed.read_text()

        copy = tmp_path / file.name
        shutil.copyfile(file, copy)
        _check_refused(tciafs("cite", file, copy), f"{copy}: is in no tciafs drive; give its path in")
        _check_refused(tciafs("manifest", drive.path / "gone"), "No such file")
        _check_refused(tciafs("manifest", "-o", drive.path / "x", file), "cannot be written")


def _check_citation(done: CompletedProcess[str], dois: int) -> None:
    said: str = done.stdout
    told = re.findall(r"https://doi\.org/10\.7937/\S+", said)
    assert len(told) == len(set(told)) == dois
    licences = re.findall(r"https://creativecommons\.org/\S+", said.partition("LICENCES")[2])
    assert len(licences) == len(set(licences)) > 0


def _check_bibtex(done: CompletedProcess[str], dois: set[str]) -> None:
    entries = parse_string(done.stdout, "bibtex").entries.values()
    told = [entry.fields["url"] for entry in entries if entry.type == "misc"]
    assert sorted(told) == sorted(dois)


def _check_refused(done: CompletedProcess[str], said: str) -> None:
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_drive_without_attributes_cannot_tell(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url, "--xattrs", "off") as drive:
        _check_refused(tciafs("cite", drive.path / "Demo-CT"), "mount it without --xattrs=off")


@pytest.mark.says(
    "`tciafs cite` says of a collection of which not all series are known, how many of how many were looked"
    " at."
)
def test_what_is_not_known_of_a_large_collection_is_said(tmp_path: Path, own_archive: EmbeddedArchive):
    own_archive.edit(synthetic={"collection": "Large@", "patients": 201})
    with mounted(tmp_path, own_archive.url) as drive:
        large = drive.path / "Large@"
        said = tciafs("cite", large, drive.path / "Demo MR").stdout
        gaps = said.partition("NOT ALL IS KNOWN\n\n")[2]
        assert gaps == "    Large@: no series looked at; others may have other terms\n"
        assert len(list(large.glob("P-000001/*/*"))) == 1
        done = tciafs("cite", "--bibtex", large)
        assert "\n% Large(at): 1 of at least 1 series looked at; others may have other terms\n" in done.stdout
        assert parse_string(done.stdout, "bibtex").entries
        assert "NOT ALL" not in tciafs("cite", large / "P-000001").stdout
