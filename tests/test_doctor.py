"""What the doctor finds, and the command that it names."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tciafs.config import Config
from tciafs.service.logins import FILE, Logins
from tests.archive import EmbeddedArchive
from tests.drive import mounted, require_fuse
from tests.test_cli import NOBODY, tciafs


def lines(*arguments: str | Path, **more: object) -> tuple[int, list[str]]:
    """Return the doctor's exit status and what it says."""
    done = tciafs("doctor", *arguments, **more)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_a_machine_that_is_well(tmp_path: Path, archive: EmbeddedArchive):
    require_fuse()
    with mounted(tmp_path, archive.url) as drive:
        status, said = lines("--archive", archive.url, "--cache-dir", tmp_path / "cache")
        wrong = [line for line in said if line.startswith("WRONG")]
        # The disk may be nearly full, and other tests have drives that are dead.
        assert [line for line in wrong if not re.search(r"[GM]B|^WRONG the drive at ", line)] == []
        assert status == bool(wrong)
        assert f"ok    the drive at {drive.path} is mounted" in said
        assert f"ok    the archive {archive.url} has 3 collections (v4)" in said
        assert "ok    /dev/fuse can be opened" in said
        assert "ok    no Data Usage Policy needs to be agreed to for an archive on this machine" in said
        assert any(line.startswith("ok    nobody is logged in to 127.0.0.1_") for line in said)


def test_a_login_is_told_or_what_keeps_it_from_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    logins = Logins(Config(mountpoint=Path("/m"), cache_dir=tmp_path, archive=NOBODY))
    logins.keep("alice", "a token", FILE)
    _, said = lines("--archive", NOBODY, "--cache-dir", tmp_path / "cache")
    assert any(line.startswith("ok    alice is logged in to 127.0.0.1_9-") for line in said)
    logins.path.write_text("no login")
    _, said = lines("--archive", NOBODY, "--cache-dir", tmp_path / "cache")
    at = said.index(f"WRONG {logins.path} is no login that can be read: remove it and log in again")
    assert said[at + 1] == f"      mend it: rm {logins.path}"


def test_a_dead_drive_is_found_with_the_command_that_takes_it_away(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        drive.end(signal.SIGKILL)
        status, said = lines("--archive", archive.url, "--cache-dir", tmp_path / "cache")
        assert status == 1
        at = said.index(f"WRONG the drive at {drive.path} is dead")
        assert said[at + 1] == f"      mend it: tciafs umount {drive.path}"
        assert tciafs("umount", drive.path).returncode == 0


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ({"rules": [{"do": "html"}]}, "a web page came instead of a listing"),
        ({"rules": [{"do": "empty"}]}, "lists no collections"),
        ({"rules": [{"do": "status", "status": 403}]}, "HTTP 403"),
        ({"interfaces": []}, "no interface of NBIA (v4, v2, v1) is at http://"),
    ],
)
def test_an_archive_that_is_ill_is_told(
    tmp_path: Path, archive: EmbeddedArchive, faults: dict[str, Any], said: str
):
    archive.faults(**faults)
    status, found = lines("--archive", archive.url, "--cache-dir", tmp_path / "cache")
    assert status == 1
    assert any(line.startswith("WRONG the archive") and said in line for line in found)


def test_an_archive_that_is_not_there_is_told(tmp_path: Path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/nbia-api/services"
        status, found = lines("--archive", url, "--cache-dir", tmp_path / "cache")
    assert status == 1
    assert any(line.startswith(f"WRONG the archive {url}: ") for line in found)


def test_a_cache_that_cannot_be_used_is_told(tmp_path: Path, archive: EmbeddedArchive):
    (tmp_path / "thesis.txt").touch()
    status, found = lines("--archive", archive.url, "--cache-dir", tmp_path)
    assert status == 1
    assert f"WRONG {tmp_path} is neither empty nor a cache of tciafs" in found


def test_a_proxy_is_named_without_its_password(tmp_path: Path, archive: EmbeddedArchive):
    environment = {**os.environ, "http_proxy": "http://me:secret@127.0.0.1:1", "no_proxy": ""}
    _, found = lines("--archive", archive.url, "--cache-dir", tmp_path / "cache", env=environment)
    assert "ok    the proxy 127.0.0.1:1 is used" in found
    assert not any("secret" in line for line in found)


def test_what_is_missing_is_told_with_its_remedy(tmp_path: Path, archive: EmbeddedArchive):
    environment = {**os.environ, "PATH": str(tmp_path)}
    _, found = lines("--archive", archive.url, "--cache-dir", tmp_path / "cache", env=environment)
    at = found.index("WRONG fusermount3 is not installed")
    assert found[at + 1] == "      mend it: sudo apt-get install fuse3"


def test_a_wrong_archive_is_one_line(tmp_path: Path):
    done = tciafs("doctor", "--archive", "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
