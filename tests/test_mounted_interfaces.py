"""A drive is the same whichever interface its archive has, as far as that tells; v1 alone is enough."""

from __future__ import annotations

import os
import re
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from tests.archive import EmbeddedArchive
from tests.drive import Drive, mounted
from tests.test_cli import tciafs

LEVELS = ("*", "*/*", "*/*/*", "*/*/*/*")
ALONE = (["v4"], ["v2", "unversioned"], ["v2"], ["v1"])


def versions(archive: EmbeddedArchive) -> set[str]:
    """Return which interfaces were asked; "" is the unversioned one."""
    return {endpoint.rpartition("/")[0] for endpoint in archive.requests()}


def directories(drive: Drive) -> dict[str, tuple[int, float]]:
    """Return the directories by path, with their inode numbers and times."""
    found = [path for pattern in LEVELS for path in drive.path.glob(pattern) if path.is_dir()]
    stats = {str(path.relative_to(drive.path)): path.stat() for path in found}
    return {path: (stat.st_ino, stat.st_mtime) for path, stat in stats.items()}


def contents(drive: Drive, pattern: str = "*/*/*/*/*") -> dict[int, tuple[str, int, str]]:
    """Return of each file, by its inode number, its directory, its size and a digest of its bytes."""
    found = {}
    for path in drive.files(pattern):
        content = path.read_bytes()
        assert path.stat().st_size == len(content)
        where = str(path.parent.relative_to(drive.path))
        found[path.stat().st_ino] = (where, len(content), sha256(content).hexdigest())
    return found


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory, sample_archive: EmbeddedArchive):
    """Read a drive of an archive that has everything."""
    sample_archive.reset()
    with mounted(tmp_path_factory.mktemp("whole"), sample_archive.url) as drive:
        return directories(drive), contents(drive), [path.name for path in drive.files()]


@pytest.mark.says(
    "Directories, files and bytes are the same whichever of NBIA's interfaces an archive has.",
    "Where an archive tells no numbers of images, as v1 does not, files are named by SOPInstanceUID.",
)
@pytest.mark.parametrize("interfaces", ALONE, ids=" and ".join)
def test_each_interface_alone_gives_the_same_drive(
    tmp_path: Path, archive: EmbeddedArchive, truth, interfaces: list[str]
):
    archive.faults(interfaces=interfaces)
    with mounted(tmp_path, archive.url) as drive:
        assert directories(drive) == truth[0]
        assert contents(drive) == truth[1]
        names = [path.name for path in drive.files()]
        if interfaces in (["v1"], ["v2"]):
            assert not any(re.fullmatch(r"1-\d+.dcm", name) for name in names)
        else:
            assert names == truth[2]
        told = drive.status()
        assert (told["archive"]["api"], told["archive"]["last_error"]) == (interfaces[0], None)
        assert told["transfers"]["failed"] == 0


@pytest.mark.says("With `--api v1` nothing but v1 is asked.")
def test_v1_is_asked_alone_whatever_is_done(tmp_path: Path, archive: EmbeddedArchive, truth):
    with mounted(tmp_path, archive.url, "--api", "v1") as drive:
        assert drive.status()["archive"]["api"] == "v1"
        subprocess.run(["find", str(drive.path), "-ls"], check=True, capture_output=True)
        for name in ("LICENSE.txt", "CITATION.txt", "CITATION.bib"):
            assert (drive.path / "Demo-CT" / name).read_text()
        read = contents(drive, "Demo MR/*/*/*/*")
        assert read
        assert read.items() <= truth[1].items()
        assert tciafs("refresh", drive.path / "Demo-CT").returncode == 0
        assert os.getxattr(drive.files()[0], "user.tcia.license")
        assert drive.status()["transfers"]["failed"] == 0
    for selected in (["--modality", "CT"], ["--body-part", "CHEST"]):
        with mounted(tmp_path, archive.url, "--api", "v1", *selected) as drive:
            shown = {path.name for path in drive.path.glob("*") if path.is_dir()}
            assert shown
            assert shown <= {"Demo-CT", "Demo MR", "Demo-Mixed"}
            assert list(drive.path.glob("*/*/*/*"))
    assert versions(archive) == {"v1"}
    asked = archive.requests()
    assert asked["v1/getM5HashForImage"] == asked["v1/getSingleImage"] == len(read)


@pytest.mark.says(
    "An archive lacks an interface when it says so and another one answers, never because a request failed;"
    " it is asked again after a week."
)
def test_an_interface_that_fails_never_changes_a_name(tmp_path: Path, archive: EmbeddedArchive, truth):
    archive.faults(rules=[{"do": "status", "endpoint": f"v4/{name}"} for name in ("getPatient", "getSeries")])
    with mounted(tmp_path, archive.url) as drive:
        assert "Demo-CT" in os.listdir(drive.path)
        with pytest.raises(OSError, match="Input/output error"):
            os.listdir(drive.path / "Demo-CT")
        assert versions(archive) == {"v4"}
        archive.faults()
        assert directories(drive).keys() == truth[0].keys()
        assert [path.name for path in drive.files()] == truth[2]
    assert list(tmp_path.glob("cache/*/guest/capabilities.json")) == []


def test_an_account_that_v2_refuses_is_told(tmp_path: Path, archive: EmbeddedArchive):
    archive.faults(
        interfaces=["v2", "v1"], rules=[{"do": "status", "endpoint": "v2/getCollectionValues", "status": 401}]
    )
    with mounted(tmp_path, archive.url) as drive:
        with pytest.raises(PermissionError):
            os.listdir(drive.path)
        errors = (drive.path / ".tciafs" / "errors.log").read_text()
        assert "v2/getCollectionValues: HTTP 401" in errors
    with mounted(tmp_path, archive.url, "--api", "v1", name="other") as drive:
        assert "Demo-CT" in os.listdir(drive.path)
