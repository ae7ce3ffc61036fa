"""A drive that shows a selection: through the kernel, against the archive's search, on a shared cache."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.archive import EmbeddedArchive
from tests.drive import Drive, mounted
from tests.test_mount import asked, raised

SEARCH, PATIENTS, SERIES = "v4/getSimpleSearch", "v4/getPatient", "v4/getSeries"
COLLECTIONS, STUDIES = "v4/getCollectionValues", "v4/getPatientStudy"
LEVELS = ("*", "*/*", "*/*/*", "*/*/*/*")
ODD = "Odd/ID: *é?"
Attributes = dict[str, str]

# What is mounted, and which series must be there by their attributes.
SELECTIONS: list[tuple[tuple[str, ...], Callable[[Attributes], bool]]] = [
    (("--collection", "Demo MR", "--collection", "Demo-CT"), lambda a: a["collection"] != "Demo-Mixed"),
    (
        ("--patient", "98890234", "--patient", "4MR1"),
        lambda a: a["patient_id"] in ("98890234", "4MR1"),
    ),
    (("--patient", ODD), lambda a: a["patient_id"] == ODD),
    (
        ("--collection", "Demo-CT", "--patient", "98890234"),
        lambda a: (a["collection"], a["patient_id"]) == ("Demo-CT", "98890234"),
    ),
    (("--modality", "RTSTRUCT", "--modality", "sr"), lambda a: a["modality"] in ("RTSTRUCT", "SR")),
    (("--modality", "CT"), lambda a: a["modality"] == "CT"),
    (("--body-part", "chest"), lambda a: a.get("body_part") == "CHEST"),
    (
        ("--body-part", "Not Specified", "--modality", "MR"),
        lambda a: a["modality"] == "MR" and not a.get("body_part"),
    ),
    (
        ("--body-part", "CHEST", "--modality", "OT", "--collection", "Demo-CT"),
        lambda a: (a.get("body_part"), a["modality"]) == ("CHEST", "OT"),
    ),
    (
        ("--patient", "98890234", "--modality", "CT"),
        lambda a: (a["patient_id"], a["modality"]) == ("98890234", "CT"),
    ),
]


def listed(directory: Path) -> list[str]:
    """Return the names in a directory, those of policy, licences and citations left out."""
    return [name for name in os.listdir(directory) if not name.endswith((".txt", ".bib"))]


def shown(drive: Drive) -> dict[str, int]:
    """Return the inode number of every directory by its path."""
    found = [path for level in LEVELS for path in drive.path.glob(level) if path.is_dir()]
    return {str(path.relative_to(drive.path)): path.lstat().st_ino for path in found}


def attributes(path: Path) -> Attributes:
    names = os.listxattr(path)
    return {name.removeprefix("user.tcia."): os.getxattr(path, name).decode() for name in names}


def kept(series: dict[str, Attributes], wanted: Callable[[Attributes], bool]) -> set[str]:
    """Return the paths of the series that are wanted, and of the directories that lead to them."""
    paths = [Path(path) for path, told in series.items() if wanted(told)]
    return {str(each) for path in paths for each in (path, *path.parents)} - {"."}


def beside(archive: EmbeddedArchive, room: Path, *flags: str) -> tuple[Path, str, tuple[str, ...]]:
    """Return where another drive on the same cache is mounted, and with what."""
    (room / flags[-1]).mkdir()
    return room / flags[-1], archive.url, ("--cache-dir", str(room / "cache"), *flags)


@pytest.mark.says(
    "With `--collection`, `--patient`, `--modality` or `--body-part`, what does not match is neither listed"
    " nor found, and a directory in which nothing would be left is not there.",
    "Names and inode numbers are those of the whole drive, whatever is selected.",
)
def test_what_is_selected_is_all_that_is_there(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        everything = shown(drive)
        series = {path: attributes(drive.path / path) for path in everything if path.count("/") == 3}
    for flags, wanted in SELECTIONS:
        with mounted(tmp_path, archive.url, *flags) as drive:
            expected = kept(series, wanted)
            assert 0 < len(expected) < len(everything), flags
            assert shown(drive) == {path: everything[path] for path in expected}
            absent = set(everything) - expected
            assert {raised((drive.path / path).lstat) for path in absent} == {errno.ENOENT}
            _check_aliases(drive, series, expected)


def _check_aliases(drive: Drive, series: dict[str, Attributes], expected: set[str]) -> None:
    for path, told in series.items():
        study, patient = (drive.path / path).parent, (drive.path / path).parents[1]
        assert os.path.lexists(study / told["series_uid"]) == (path in expected)
        is_shown = str(study.relative_to(drive.path)) in expected
        assert os.path.lexists(patient / told["study_uid"]) == is_shown


# What it costs


@pytest.mark.parametrize(
    ("flags", "root", "collection"),
    [
        (("--collection", "Demo-CT"), {}, {}),
        (("--patient", "98890234", "--patient", "nobody"), {PATIENTS: 2}, {}),
        (("--modality", "CT", "--body-part", "NOT SPECIFIED"), {SEARCH: 1}, {SEARCH: 1}),
        (("--modality", "CT", "--patient", "98890234"), {SERIES: 1}, {}),
    ],
)  # fmt: skip
def test_a_selection_costs_a_search_where_listings_cannot_tell(
    tmp_path: Path,
    archive: EmbeddedArchive,
    flags: tuple[str, ...],
    root: dict[str, int],
    collection: dict[str, int],
):
    with mounted(tmp_path, archive.url, *flags) as drive:
        assert archive.requests() == {}
        assert asked(archive, lambda: listed(drive.path)) == {COLLECTIONS: 1, **root}
        path = drive.path / "Demo-CT"
        assert asked(archive, lambda: listed(path)) == {PATIENTS: 1, **collection}
        patient = path / "98890234"
        concerns_series = "--modality" in flags
        found = asked(archive, lambda: listed(patient))
        assert found == ({STUDIES: 1, SERIES: 1} if concerns_series else {STUDIES: 1})
        found = asked(archive, lambda: list(patient.glob("*/*")))
        assert found == ({} if concerns_series else {SERIES: 1})
        shown(drive)
    if concerns_series and not root.get(SERIES):
        with mounted(tmp_path, archive.url, *flags) as drive:
            assert asked(archive, lambda: shown(drive)) == {}


def test_many_patients_are_found_page_by_page(tmp_path: Path, own_archive: EmbeddedArchive):
    own_archive.edit(synthetic={"collection": "Many", "patients": 2_100, "modality": "MG"})
    own_archive.edit(synthetic={"collection": "Many", "patient_ids": ["other"], "modality": "US"})
    with mounted(tmp_path, own_archive.url, "--modality", "MG") as drive:
        own_archive.faults(rules=[{"endpoint": SEARCH, "do": "short", "skip": 1}])
        assert raised(lambda: listed(drive.path / "Many")) == errno.EIO
        assert asked(own_archive, lambda: listed(drive.path / "Many")) == {SEARCH: 3}
        assert asked(own_archive, lambda: listed(drive.path / "Many")) == {}
        assert len(listed(drive.path / "Many")) == 2_100
        assert not (drive.path / "Many" / "other").exists()


# When something fails, and when something changes


@pytest.mark.says("A search that failed is an error where nothing is known, never an empty drive.")
def test_a_search_that_failed_is_never_an_empty_drive(tmp_path: Path, archive: EmbeddedArchive):
    flags = ("--modality", "CT", "--deadline-metadata", "2")
    with mounted(tmp_path, archive.url, *flags) as drive:
        assert listed(drive.path / ".tciafs")  # it is there, whatever the archive does
        faults: list[dict[str, object]] = [
            {"do": "status", "status": 503},
            {"do": "html"},
            {"do": "malformed"},
            {"do": "empty"},
        ]
        for fault in faults:
            archive.faults(rules=[{"endpoint": SEARCH, **fault}])
            assert raised(lambda: listed(drive.path)) == errno.EIO, fault
            assert raised((drive.path / "Demo-CT").stat) == errno.EIO, fault
        archive.faults(disabled=[SEARCH])
        assert raised(lambda: listed(drive.path)) == errno.EIO
        archive.faults()
        assert sorted(listed(drive.path)) == ["Demo-CT", "Demo-Mixed"]
        archive.faults(rules=[{"endpoint": SERIES, "do": "status", "status": 503}])
        patient = drive.path / "Demo-CT" / "98890234"
        assert raised(lambda: listed(patient)) == errno.EIO
        archive.faults()
        assert len(listed(patient)) == 1
        archive.faults(rules=[{"endpoint": SEARCH, "do": "stall"}])
        assert raised(lambda: listed(drive.path / "Demo-Mixed")) == errno.ETIMEDOUT
        archive.faults(rules=[{"endpoint": SERIES, "do": "stall"}])
        assert raised(lambda: listed(drive.path / "Demo-CT" / "PHANTOM-01")) == errno.ETIMEDOUT
        causes = (drive.path / ".tciafs" / "errors.log").read_text()
        asked = "the search for patients with --collection 'Demo-Mixed' --modality 'CT'"
        assert f"/Demo-Mixed: ETIMEDOUT: {asked}: no answer within 2 s" in causes
        assert (
            "/Demo-CT/PHANTOM-01: ETIMEDOUT: the series of Demo-CT/PHANTOM-01: no answer within 2 s" in causes
        )


@pytest.mark.says(
    "What a search found is shown like a listing: at once, past its time and without the archive."
)
def test_what_was_found_is_shown_when_the_search_fails_and_offline(
    tmp_path: Path, own_archive: EmbeddedArchive
):
    flags = ("--modality", "CT", "--ttl-collections", "0", "--ttl-listings", "0")
    with mounted(tmp_path, own_archive.url, *flags) as drive:
        before = shown(drive)
        own_archive.faults(rules=[{"endpoint": SEARCH, "do": "status", "status": 500}])
        assert shown(drive) == before
        own_archive.stop()
        assert shown(drive) == before
    with mounted(tmp_path, own_archive.url, *flags) as drive:
        assert shown(drive) == before
    with mounted(tmp_path, own_archive.url, "--modality", "MR") as drive:
        assert raised(lambda: listed(drive.path)) == errno.EIO


def test_what_the_archive_gains_and_loses_comes_and_goes(tmp_path: Path, own_archive: EmbeddedArchive):
    made = {"collection": "Changing", "patient_id": "A", "study_instance_uid": "2.25.7"}
    own_archive.edit(synthetic=made)
    flags = ("--modality", "PT", "--ttl-collections", "1", "--ttl-listings", "1")
    with mounted(tmp_path, own_archive.url, *flags, expect="nothing matches") as drive:
        assert listed(drive.path) == []
        (uid,) = own_archive.edit(synthetic={**made, "modality": "PT"})
        _wait_until(lambda: len(list(drive.path.glob("Changing/A/*/*"))) == 1)
        own_archive.edit(hide_series=uid)
        _wait_until(lambda: listed(drive.path) == [])
        _wait_until(lambda: not (drive.path / "Changing").exists())  # the kernel knew it for a second
        own_archive.edit(show_series=uid)
        _wait_until(lambda: len(list(drive.path.glob("Changing/A/*/*"))) == 1)


def _wait_until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.says("Drives that select differently share listings, searches and images in one cache.")
def test_drives_of_one_cache_select_each_for_itself(tmp_path: Path, archive: EmbeddedArchive):
    with ExitStack() as drives:
        ct, mr, again = (
            drives.enter_context(mounted(room, url, *flags))
            for room, url, flags in (
                beside(archive, tmp_path, "--modality", "CT"),
                beside(archive, tmp_path, "--modality", "MR"),
                beside(archive, tmp_path, "--modality", "ct"),
            )
        )
        whole = drives.enter_context(mounted(tmp_path, archive.url))
        assert sorted(listed(ct.path)) == ["Demo-CT", "Demo-Mixed"]
        assert listed(mr.path) == ["Demo MR"]
        assert archive.requests() == {COLLECTIONS: 1, SEARCH: 2}
        assert sorted(listed(again.path)) == ["Demo-CT", "Demo-Mixed"]
        assert sorted(listed(whole.path)) == ["Demo MR", "Demo-CT", "Demo-Mixed"]
        assert archive.requests() == {COLLECTIONS: 1, SEARCH: 2}
        (file,) = ct.files("Demo-CT/PHANTOM-01/*/2-*/1-001.dcm")
        assert "criteriaType1=SeriesCriteria" not in " ".join(archive.log())  # the study has another one
        content = file.read_bytes()
        archive.reset()
        assert (whole.path / file.relative_to(ct.path)).read_bytes() == content
        assert archive.requests() == {}
        assert raised((mr.path / file.relative_to(ct.path)).stat) == errno.ENOENT
        assert ct.status()["mount"]["selection"] == {"modality": ["CT"]}
        assert whole.status()["mount"]["selection"] == {}


@pytest.mark.says("A drive is there before the archive says anything, whatever is selected.")
def test_a_selection_does_not_keep_a_drive_from_being_there(tmp_path: Path, archive: EmbeddedArchive):
    archive.faults(rules=[{"do": "stall"}])
    with mounted(tmp_path, archive.url, "--modality", "CT", "--deadline-metadata", "1") as drive:
        assert archive.requests() == {}
        assert raised(lambda: listed(drive.path)) == errno.ETIMEDOUT


# Selections that match nothing


@pytest.mark.says(
    "A selection that matches nothing is an empty drive, and the log says so once, with what is spelled"
    " much like it."
)
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--modality", "CTX", "--body-part", "CHSET"),
            "nothing matches --modality 'CTX' --body-part 'CHSET', so the drive is empty:"
            " there is no modality 'CTX', but 'CT'; there is no body part 'CHSET', but 'CHEST'",
        ),
        (
            ("--collection", "demo-ct"),
            "--collection 'demo-ct': the archive has no such collection, but 'Demo-CT'",
        ),
        (
            ("--collection", "Demo-CT", "--patient", "phantom-1"),
            "nothing matches --collection 'Demo-CT' --patient 'phantom-1', so the drive is empty:"
            " there is no patient 'phantom-1', but 'PHANTOM-01'",
        ),
        (
            ("--modality", "SR", "--collection", "Demo-CT"),
            "nothing matches --collection 'Demo-CT' --modality 'SR', so the drive is empty",
        ),
        (("--patient", "nobody"), "nothing matches --patient 'nobody', so the drive is empty"),
    ],
)  # fmt: skip
def test_a_selection_that_matches_nothing_is_told_once(
    tmp_path: Path, archive: EmbeddedArchive, flags: tuple[str, ...], said: str
):
    with mounted(tmp_path, archive.url, *flags, expect=" WARNING ") as drive:
        assert listed(drive.path) == []
        _wait_until(lambda: " WARNING " in drive.log)
        assert [listed(drive.path) for _ in range(3)] == [[], [], []]
        assert raised((drive.path / "Demo-CT").stat) == errno.ENOENT
        told = [line for line in drive.log.splitlines() if " WARNING " in line]
        assert [line.partition(" WARNING ")[2] for line in told] == [said]
        for endpoint, flag in (("getModalityValues", "--modality"), ("getBodyPartValues", "--body-part")):
            assert archive.requests().get(f"v4/{endpoint}", 0) == (flag in flags)


def test_of_several_collections_the_missing_one_is_told_and_the_others_are_there(
    tmp_path: Path, archive: EmbeddedArchive
):
    flags = ("--collection", "Demo-CT", "--collection", "LIDC")
    with mounted(
        tmp_path, archive.url, *flags, expect="'LIDC': the archive has no such collection$"
    ) as drive:
        assert listed(drive.path) == ["Demo-CT"]


def test_what_is_missed_is_told_without_its_like_when_that_cannot_be_asked(
    tmp_path: Path, archive: EmbeddedArchive
):
    archive.faults(rules=[{"endpoint": "getModalityValues", "do": "status", "status": 500}])
    with mounted(tmp_path, archive.url, "--modality", "CTX", expect="drive is empty$") as drive:
        assert listed(drive.path) == []
        _wait_until(lambda: "drive is empty" in drive.log)
