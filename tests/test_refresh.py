"""`tciafs refresh`: what the archive changed is seen at the next look."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pydicom
import pytest
from click.testing import CliRunner

from tciafs.cli import main
from tests.archive import EmbeddedArchive
from tests.drive import mounted
from tests.test_cli import tciafs
from tests.test_control import failed
from tests.test_daemon import eventually
from tests.test_mount import asked


def refreshed(path: Path) -> dict[str, Any]:
    """Refresh a path, and return what is told of each kind; in this process, as starting one takes long."""
    done = CliRunner().invoke(main, ["refresh", str(path), "--json"])
    assert (done.exit_code, done.stderr) == (0, "")
    told: dict[str, Any] = json.loads(done.stdout)
    return {kind: names for kind, names in told.items() if names}


@pytest.mark.says(
    "After `tciafs refresh` of a directory, a look at it shows what is new, no more what is gone,"
    " and the new bytes of what was submitted again; a file that is open keeps its own."
)
@pytest.mark.says(
    "`tciafs refresh` asks for one directory, or for the series of a file; what was listed below is renewed"
    " behind at its next look."
)
def test_what_was_edited_is_seen_after_a_refresh(tmp_path: Path, own_archive: EmbeddedArchive):
    def add(collection: str = "Edited", **more: object) -> str:
        (uid,) = own_archive.edit(synthetic={"collection": collection, **more})
        return uid

    kept, hidden = add(patient_id="A", series_description="kept"), ""
    with mounted(tmp_path, own_archive.url) as drive:
        collection = drive.path / "Edited"
        (file,) = collection.glob("A/*/*/*")
        study = file.parents[1]
        study_uid = str(pydicom.dcmread(file).StudyInstanceUID)

        hidden = add(patient_id="A", study_instance_uid=study_uid, series_description="hidden")
        assert not (study / hidden).exists()  # which the kernel believes for a minute
        assert asked(own_archive, lambda: refreshed(study)) == {"v4/getSeries": 1}
        assert eventually((study / hidden).exists)
        (other,) = set(os.listdir(study)) - {file.parent.name}
        assert len(os.listdir(study / other)) == 1

        add(patient_id="B")
        assert not (collection / "B").exists()
        done = tciafs("refresh", collection)
        assert done.stdout.splitlines() == [
            f"{collection}: 1 new",
            "  new      B",
            "  4 listings below are renewed when they are looked at",
        ]
        assert [name for name in os.listdir(collection) if "." not in name] == ["A", "B"]
        assert eventually((collection / "B").exists)
        before = own_archive.requests().get("v4/getSeries", 0)
        assert len(os.listdir(study)) == 2
        assert eventually(lambda: own_archive.requests().get("v4/getSeries", 0) == before + 1)

        own_archive.edit(hide_series=hidden)
        assert (study / other).exists()
        assert refreshed(study / other) == {"gone": ["1-001.dcm"]}
        assert eventually(lambda: not (study / other).exists() and not (study / hidden).exists())
        assert os.listdir(study) == [file.parent.name]
        assert "no such file or directory" in failed(tciafs("refresh", study / other))

        content = file.read_bytes()
        with file.open("rb", buffering=0) as opened:
            own_archive.edit(series=kept, submitted="2026-01-02", rewritten=True)
            assert refreshed(study / kept / file.name) == {"changed": [file.name]}  # by the link of its UID
            assert os.listdir(file.parent) == [file.name]
            assert eventually(lambda: file.read_bytes() != content)
            assert file.read_bytes()[:-1] == content[:-1]
            assert opened.read() == content
            assert os.pread(opened.fileno(), 1, len(content) - 1) == content[-1:]
        own_archive.edit(series=kept, submitted="2026-01-03")
        assert refreshed(study) == {"changed": [file.parent.name]}

        own_archive.edit(hide_series=kept)
        assert refreshed(collection / "A") == {"gone": [study.name]}
        assert eventually(lambda: not (collection / "A").exists())
        assert refreshed(drive.path) == {"expired": 1}
        for index in range(30):
            add(f"Many {index:02}", patient_id="P")
        lines = tciafs("refresh", drive.path).stdout.splitlines()
        assert lines[0] == f"{drive.path}: 30 new"
        assert lines[20:22] == ["  new      Many 19", "  new      … and 10 more"]


@pytest.mark.says("A refresh that fails says why in one line, and changes nothing.")
def test_a_refresh_that_fails_changes_nothing(tmp_path: Path, own_archive: EmbeddedArchive):
    with mounted(tmp_path, own_archive.url, "--deadline-metadata", "2") as drive:
        patient = drive.path / "Demo-CT" / "PHANTOM-01"
        files = sorted(patient.glob("*/*/*"))
        content = files[0].read_bytes()
        series = files[0].parent
        own_archive.faults(rules=[{"do": "status", "status": 503}])
        for path in (drive.path, patient, series, files[0]):
            assert f"{path}: v4/" in failed(tciafs("refresh", path))
        own_archive.faults(rules=[{"do": "stall"}])
        began = time.monotonic()
        assert "the archive did not answer within 2 s" in failed(tciafs("refresh", patient.parent))
        assert 1 < time.monotonic() - began < 2 * 3 + 3
        own_archive.faults(rules=[{"do": "empty"}])
        assert "listed nothing, which cannot be" in failed(tciafs("refresh", drive.path))
        assert sorted(patient.glob("*/*/*")) == files
        assert files[0].read_bytes() == content
        own_archive.faults()
        assert eventually(lambda: tciafs("refresh", patient.parent).returncode == 0)
        assert drive.status()["archive"]["state"] == "up"


@pytest.mark.says(
    "Of a collection of which three patients or more were looked at, `tciafs refresh` renews all that"
    " was listed, and tells the paths that are new, changed or gone; where that fails midway, what had"
    " come is kept.",
)
def test_a_refresh_of_a_collection_tells_what_changed_anywhere_in_it(
    tmp_path: Path, own_archive: EmbeddedArchive
):
    uids = own_archive.edit(synthetic={"collection": "Many", "patients": 20, "series": 2})
    with mounted(tmp_path, own_archive.url) as drive:
        many = drive.path / "Many"
        before = drive.files("Many/*/*/*/*")
        assert len(before) == 40
        assert refreshed(many) == {}
        own_archive.edit(series=uids[0], submitted="2026-05-06", rewritten=True)
        own_archive.edit(hide_series=uids[2])
        for uid in uids[4:6]:
            own_archive.edit(hide_series=uid)
        own_archive.edit(synthetic={"collection": "Many", "patient_ids": ["P-000004", "new"]})
        paths = {os.path.relpath(file.parent, many) for file in before}
        own_archive.forget()
        told = refreshed(many)
        assert own_archive.requests() == {"v4/getPatient": 1, "v4/getPatientStudy": 1, "v4/getSeries": 1}
        gone = told["gone"]
        assert [Path(path).parts[0] for path in told["changed"]] == ["P-000001"]
        assert set(told["changed"]) < paths
        assert sorted(Path(path).parts[0] for path in gone) == ["P-000002", "P-000003"]
        assert "P-000003" in gone
        assert sorted(Path(path).parts[0] for path in told["new"]) == ["P-000004", "new"]
        own_archive.forget()
        after = drive.files("Many/*/*/*/*")
        assert len(after) == 40 - 3 + 2
        assert own_archive.requests().keys() <= {"v4/getSimpleSearch", "getImageDrillDown"}
        assert refreshed(many) == {}
        own_archive.faults(rules=[{"do": "status", "status": 503, "endpoint": "v4/getPatientStudy"}])
        assert "v4/getPatientStudy: " in failed(tciafs("refresh", many))
        assert drive.files("Many/*/*/*/*") == after


@pytest.mark.says("`tciafs refresh` has what a selection searched for searched again.")
def test_a_refresh_searches_again(tmp_path: Path, own_archive: EmbeddedArchive):
    wanted = {"series": 1, "modality": "PT"}
    own_archive.edit(synthetic={"collection": "First", "patient_ids": ["A"], **wanted})
    with mounted(tmp_path, own_archive.url, "--modality", "PT") as drive:
        assert [path.name for path in drive.path.glob("*/*") if path.is_dir()] == ["A"]
        own_archive.edit(synthetic={"collection": "First", "patient_ids": ["B"], **wanted})
        own_archive.edit(synthetic={"collection": "Second", "patient_ids": ["C"], **wanted})
        assert not (drive.path / "Second").exists()
        assert refreshed(drive.path / "First")["new"] == ["B"]
        assert eventually((drive.path / "First" / "B").exists)
        assert refreshed(drive.path)["new"] == ["Second"]
        assert eventually((drive.path / "Second" / "C").exists)
        own_archive.edit(synthetic={"collection": "First", "patient_ids": ["D"], **wanted})
        assert refreshed(drive.path)["expired"] > 0
        assert eventually(lambda: "D" in os.listdir(drive.path / "First"))
