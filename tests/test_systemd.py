"""A mount as a service of systemd: what it tells the manager, and the unit that starts it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tciafs.cli import main
from tciafs.service.systemd import notify
from tests.archive import EmbeddedArchive
from tests.drive import mounted
from tests.test_cli import tciafs
from tests.test_daemon import eventually

UNIT = Path(__file__).parent.parent / "systemd" / "tciafs@.service"


class Manager:
    """A service manager's end of the notifications."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening

    def told(self) -> list[str]:
        """Wait for the next message and return its lines."""
        return self._listening.recv(4096).decode().split("\n")

    def heard_nothing(self) -> bool:
        """Tell whether no message waits."""
        self._listening.setblocking(False)
        try:
            return not self._listening.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self._listening.settimeout(20)


@pytest.fixture(params=["a path", "an abstract name"])
def manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Manager]:
    """Listen where NOTIFY_SOCKET says."""
    address = f"{tmp_path}/notify" if request.param == "a path" else f"@tciafs/{os.getpid()}/{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address.replace("@", "\0"))
        listening.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield Manager(listening)


def test_a_mount_is_ready_when_it_has_answered_and_tells_that_it_ends(
    tmp_path: Path, archive: EmbeddedArchive, manager: Manager
):
    with mounted(tmp_path, archive.url) as drive:
        ready, status = manager.told()
        assert ready == "READY=1"
        assert status.startswith("STATUS=127.0.0.1")
        assert status.endswith(f" is mounted at {drive.path}")
        assert drive.status()["fuse"]["statfs"] >= 1  # what was told had been seen: nobody else has asked
        assert manager.heard_nothing()
        assert drive.end() == 0
        assert manager.told()[0] == "STOPPING=1"
    assert manager.heard_nothing()


def test_a_mount_that_is_taken_away_tells_that_it_ends(
    tmp_path: Path, archive: EmbeddedArchive, manager: Manager
):
    with mounted(tmp_path, archive.url) as drive:
        assert manager.told()[0] == "READY=1"
        assert tciafs("umount", drive.path).returncode == 0
        assert manager.told()[0] == "STOPPING=1"
        assert drive.process.wait(timeout=20) == 0


def test_what_cannot_be_mounted_is_never_ready(tmp_path: Path, manager: Manager):
    flags = ("--cache-dir", tmp_path / "cache", "--accept-data-usage-policy")
    assert tciafs("mount", tmp_path / "none", *flags).returncode == 1
    assert manager.heard_nothing()


def test_a_state_is_one_line_whatever_is_in_it(manager: Manager):
    notify(STATUS="a\nREADY=1")
    assert manager.told() == ["STATUS=a READY=1"]


def test_a_manager_that_is_gone_does_not_end_a_mount(
    tmp_path: Path, archive: EmbeddedArchive, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    with mounted(tmp_path, archive.url, expect="the service manager cannot be told") as drive:
        assert eventually(lambda: "cannot be told READY" in drive.log)
        assert "Demo-CT" in os.listdir(drive.path)


def test_the_unit_starts_a_command_that_is_there():
    (start,) = re.findall(r"^ExecStart=/usr/bin/env tciafs (\w+) -- %f$", UNIT.read_text(), re.MULTILINE)
    assert start in main.commands


def test_systemd_understands_the_unit(tmp_path: Path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    done = subprocess.run(["systemd-analyze", "verify", UNIT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
