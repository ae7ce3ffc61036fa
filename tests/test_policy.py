"""The Data Usage Policy: asked for before anything else, remembered with its date, never on loopback."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from tciafs.config import Config
from tciafs.policy import FILE, GIST, LINK, PASSING_ON
from tciafs.service.agreement import Agreement
from tests.drive import mounted
from tests.test_cli import tciafs

ELSEWHERE = "http://archive.invalid/nbia-api/services"  # RFC 6761: never there
FLAG = "--accept-data-usage-policy"


def config(archive: str) -> Config:
    return Config(mountpoint=Path("/mnt/tcia"), cache_dir=Path("/var/cache/tciafs"), archive=archive)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a home in which nothing was agreed to, and a proxy that keeps every request on this machine."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{nobody.getsockname()[1]}")
    (tmp_path / "drive").mkdir()
    return tmp_path


def answered(home: Path, answer: bytes, *arguments: str) -> tuple[int, str]:
    """Mount at a terminal, answer the question, and return the exit status and what was shown."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "tciafs", "mount", str(home / "drive"), "--archive", ELSEWHERE]
    terminal = subprocess.Popen(
        ["setsid", "--ctty", *command, *arguments], stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    shown = b""
    try:
        while b"[y/N]: " not in shown:
            shown += os.read(master, 1000)
        os.write(master, answer)
        while True:
            # Python's input() loses a signal that comes while it begins to wait: press again.
            if answer == b"\x03" and not select.select([master], [], [], 2)[0]:
                os.write(master, answer)
            try:
                shown += os.read(master, 1000)
            except OSError:  # EIO: the last process has let go of the terminal
                break
        return terminal.wait(timeout=40), shown.decode()
    finally:
        terminal.kill()
        terminal.wait()
        os.close(master)


@pytest.mark.parametrize(
    ("archive", "is_needed"),
    [
        ("tcia", True),
        ("nlst", True),
        (ELSEWHERE, True),
        ("http://192.168.0.1/nbia-api/services", True),
        ("http://localhost.example/nbia-api/services", True),
        ("http://127.0.0.1:8080/nbia-api/services", False),
        ("http://127.8.0.1/nbia-api/services", False),
        ("http://[::1]:8080/nbia-api/services", False),
        ("http://localhost/nbia-api/services", False),
        ("http://nbia.localhost/nbia-api/services", False),
    ],
)
def test_only_an_archive_on_this_machine_needs_no_agreement(archive: str, is_needed: bool, home: Path):
    agreement = Agreement(config(archive))
    assert (agreement.is_needed, agreement.is_missing) == (is_needed, is_needed)


def test_an_agreement_is_kept_with_its_date_for_one_archive(home: Path):
    agreement = Agreement(config("tcia"))
    agreement.record()
    assert agreement.path == home / ".local" / "state" / "tciafs" / "data-usage-policy" / "tcia"
    assert list(agreement.path.parent.iterdir()) == [agreement.path]
    assert stat.S_IMODE(agreement.path.parent.stat().st_mode) == 0o700
    day = datetime.now(UTC).date()
    assert agreement.path.read_text().startswith(f"{day} agreed to the Data Usage Policy for https://")
    assert Agreement(config("tcia")).day == day
    assert not Agreement(config("tcia")).is_missing
    assert Agreement(config("nlst")).is_missing
    for lost in (b"", b"yes\n", b"\xff" * 20):
        agreement.path.write_bytes(lost)
        assert Agreement(config("tcia")).day is None
    agreement.path.write_text("2026-02-01\n")
    assert Agreement(config("tcia")).day == date(2026, 2, 1)


@pytest.mark.parametrize("more", [(), ("--daemon",)])
def test_without_a_terminal_a_mount_is_refused_before_anything_is_done(home: Path, more: tuple[str, ...]):
    cache = home / "cache"
    done = tciafs(
        "mount", home / "drive", "--archive", ELSEWHERE, "--cache-dir", cache, *more, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stdout) == (3, "")
    name = config(ELSEWHERE).archive_name
    assert done.stderr == (
        f"tciafs: the Data Usage Policy of {name} is not agreed to yet: read {LINK}, then add {FLAG} once\n"
    )
    assert not cache.exists()
    assert not (home / ".local").exists()


@pytest.mark.says(
    "An archive that is not on this machine is mounted when its Data Usage Policy was agreed to, once for"
    " each archive."
)
def test_who_agreed_once_mounts_with_the_archive_away(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TCIAFS_ACCEPT_DATA_USAGE_POLICY", "1")
    with mounted(home, ELSEWHERE) as drive:
        assert (drive.path / "DATA-USAGE-POLICY.txt").read_text() == FILE
        assert drive.status()["requests"] == {}
        assert PASSING_ON not in drive.log
    monkeypatch.delenv("TCIAFS_ACCEPT_DATA_USAGE_POLICY")
    with mounted(home, ELSEWHERE, "--allow-other") as drive:
        assert PASSING_ON in drive.log
        assert LINK in PASSING_ON
        doctor = tciafs("doctor", "--archive", ELSEWHERE, "--cache-dir", home / "cache").stdout
        agreement = Agreement(config(ELSEWHERE))
        name = agreement.archive_name
        assert f"ok    the Data Usage Policy of {name} was agreed to on {agreement.day}\n" in doctor


def test_the_doctor_tells_how_to_agree(home: Path):
    said = tciafs("doctor", "--archive", ELSEWHERE).stdout.splitlines()
    at = said.index(f"WRONG the Data Usage Policy of {config(ELSEWHERE).archive_name} is not agreed to yet")
    assert said[at + 1].startswith(f"      mend it: read {LINK}, and agree when 'tciafs mount' asks")


@pytest.mark.parametrize("answer", [b"n\n", b"\n", b"\x03", b"\x04"])
def test_who_does_not_agree_at_the_terminal_gets_one_line(home: Path, answer: bytes):
    status, shown = answered(home, answer)
    assert status == 3
    lines = shown.splitlines()
    assert lines[-1].startswith("tciafs: nothing is mounted, since the Data Usage Policy of archive.invalid-")
    assert set(GIST.splitlines()) <= set(lines)
    assert LINK in GIST
    assert Agreement(config(ELSEWHERE)).is_missing


def test_who_agrees_at_the_terminal_is_asked_before_the_drive_goes_behind_and_once(home: Path):
    flags = ("--daemon", "--cache-dir", str(home / "cache"))
    status, shown = answered(home, b"y\n", *flags)
    assert (status, "is mounted at" in shown) == (0, True)
    assert tciafs("umount", home / "drive").returncode == 0
    done = tciafs("mount", home / "drive", "--archive", ELSEWHERE, *flags, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, "")
    assert tciafs("umount", home / "drive").returncode == 0


def test_an_agreement_that_cannot_be_kept_is_told_and_holds(home: Path):
    (home / ".local").write_text("in the way")
    command = [sys.executable, "-m", "tciafs", "mount", str(home / "drive"), "--archive", ELSEWHERE, FLAG]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert "is mounted at" in process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert said.count("\n") == 1
    assert "cannot be written (Not a directory), so that the agreement will be asked for again" in said
