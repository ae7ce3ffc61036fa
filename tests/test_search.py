"""`tciafs search` as a user runs it: tables, paths of a drive, manifests, and what it says of nothing."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tciafs.cli import main
from tciafs.manifest import read_manifest
from tests.archive import EmbeddedArchive
from tests.drive import mounted
from tests.test_cli import NOBODY, tciafs
from tests.test_policy import ELSEWHERE
from tests.test_selected import ODD, attributes

SEARCH, CART = "v4/getSimpleSearch", "v4/getCartData"
SPELLED = "there is no manufacturer 'sieemens', but 'SIEMENS'; there is no species 'homo', but 'Homo sapiens'"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a home without settings or cache."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def search(archive: EmbeddedArchive | str, *flags: str | Path) -> Result:
    """Run the command in this process, which saves the start of another."""
    url = archive if isinstance(archive, str) else archive.url
    return CliRunner().invoke(main, ["search", "--archive", url, *map(str, flags)])


def failed(done: Result, status: int, said: str) -> None:
    assert (done.exit_code, said in done.stderr) == (status, True), done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.says(
    "`tciafs search` needs no mount, and tells collections, patients, studies, series and sizes of what"
    " matches; values of one kind are alternatives, kinds must all hold.",
)
def test_what_matches_is_summed_up_by_collection(home: Path, archive: EmbeddedArchive):
    done = tciafs("search", "--archive", archive.url, "--modality", "ct", "--modality", "RTSTRUCT")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines() if line.strip("─ ")]
    assert rows[0] == ["Collection", "Patients", "Studies", "Series", "Images", "Size"]
    told = json.loads(search(archive, "--modality", "CT", "--modality", "RTSTRUCT", "--json").stdout)
    total, series = told["total"], told["series"]
    assert rows[-1][1:5] == [str(total[name]) for name in ("patients", "studies", "series", "images")]
    assert [row[0] for row in rows[1:-1]] == [one["collection"] for one in told["collections"]]
    assert {one["modality"] for one in series} == {"CT", "RTSTRUCT"}
    assert sum(one["bytes"] for one in series) == total["bytes"]
    assert archive.requests() == {SEARCH: 2, CART: 2}
    assert not list(home.rglob("catalog.sqlite"))


def test_without_criteria_the_collections_are_listed(home: Path, archive: EmbeddedArchive):
    done = search(archive)
    assert done.exit_code == 0
    assert re.search(r"^Demo MR +3$", done.stdout, re.MULTILINE)
    told = json.loads(search(archive, "--json").stdout)
    assert told["collections"][0] == {"collection": "Demo MR", "patients": 3}
    assert archive.requests() == {"v4/getCollectionValuesAndCounts": 2}
    refused = search(archive, "--paths")
    assert (refused.exit_code, "takes a criterion like --collection" in refused.stderr) == (2, True)


@pytest.mark.says(
    "The paths that `tciafs search --paths` prints are those of a drive, under its layout.",
    "What `tciafs search --tcia` prints is a manifest of what matches.",
)
def test_paths_lead_into_a_drive(home: Path, archive: EmbeddedArchive):
    flags = ("--collection", "Demo-Mixed", "--cache-dir", home / "cache")
    done = tciafs("search", "--archive", archive.url, *flags, "--paths")
    assert (done.returncode, done.stderr) == (0, "")
    paths = done.stdout.splitlines()
    by_uid = search(archive, *flags, "--layout", "uid", "--paths").stdout.splitlines()
    uids = read_manifest(search(archive, *flags, "--tcia").stdout.encode())
    archive.forget()
    with mounted(home, archive.url) as drive:
        found = [path for path in drive.path.glob("Demo-Mixed/*/*/*/") if path.is_dir()]
        assert paths == sorted(str(path.relative_to(drive.path)) for path in found)
        told = [attributes(path) for path in found]
        assert ODD in {one["patient_id"] for one in told}
        assert sorted(uids) == sorted(one["series_uid"] for one in told)
        assert archive.requests() == {}  # what was listed for the search is known
        assert {(drive.path / path).resolve() for path in by_uid} == set(found)


def test_a_series_that_is_newer_than_the_listings_has_its_path(home: Path, own_archive: EmbeddedArchive):
    made = {"collection": "New", "patient_id": "a", "study_instance_uid": "2.25.7"}
    own_archive.edit(synthetic=made)
    assert search(own_archive, "--collection", "New", "--paths").stdout.count("\n") == 1
    own_archive.edit(synthetic=made)
    own_archive.edit(synthetic={"collection": "New", "patient_id": "b"})
    assert search(own_archive, "--collection", "New", "--paths").stdout.count("\n") == 3


@pytest.mark.says(
    "`tciafs search` exits with 1 where nothing matches, and says what is spelled much like it; with 2 where"
    " that could not be found out.",
)
def test_nothing_and_failure_are_told_apart(home: Path, archive: EmbeddedArchive):
    nothing = "nothing matches --collection 'demo-ct' --modality 'CTX': there is no collection 'demo-ct', but"
    failed(search(archive, "--modality", "CTX", "--collection", "demo-ct"), 1, nothing)
    failed(search(archive, "--manufacturer", "sieemens", "--species", "homo"), 1, SPELLED)
    done = search(archive, "--modality", "CTX", "--count")
    failed(done, 1, "nothing matches")
    assert done.stdout == "0\n"
    done = search(archive, "--modality", "CT", "--count")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "7\n", "")
    failed(search(NOBODY, "--modality", "CT"), 2, "v4/getSimpleSearch: all attempts to connect")
    (home / "cache").mkdir()
    (home / "cache" / "mine").touch()
    flags = ("--modality", "SR", "--paths", "--cache-dir", home / "cache")
    failed(search(archive, *flags), 2, "is neither empty nor a cache of tciafs")
    failed(search(ELSEWHERE, "--modality", "CT"), 3, "the Data Usage Policy of")
    wrong = search(archive, "--date", "2020-02-30..")
    assert (wrong.exit_code, "is no range of days like" in wrong.stderr) == (2, True)


@pytest.mark.parametrize("fault", [{"do": "html"}, {"do": "empty"}, {"do": "malformed"}])
def test_an_answer_that_cannot_be_believed_is_told(
    home: Path, archive: EmbeddedArchive, fault: dict[str, str]
):
    archive.faults(rules=[{"endpoint": SEARCH, **fault}])
    failed(search(archive, "--modality", "CT"), 2, "v4/getSimpleSearch: ")
    archive.faults(rules=[{"endpoint": "getPatientStudy", **fault}])
    failed(search(archive, "--patient", "4MR1", "--paths"), 2, "4MR1" if fault["do"] == "empty" else "v4/")


def test_settings_are_those_of_mounts(home: Path, archive: EmbeddedArchive):
    (home / "t.toml").write_text(
        f'archive = "lab"\nmodality = "MR"\nshared_cart = "x"\n[archives.lab]\nurl = "{archive.url}"\n'
    )
    found = json.loads(
        tciafs("search", "--config", home / "t.toml", "--collection", "Demo MR", "--json").stdout
    )
    assert {one["modality"] for one in found["series"]} == {"MR"}
    assert os.listdir(home) == ["t.toml"]
