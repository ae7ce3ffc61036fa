"""`tciafs mount --daemon` returns when the drive answers, and tells what a foreground would tell."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from tciafs.cli import daemon
from tciafs.cli.failure import Failure
from tciafs.config import Config
from tciafs.content.cache import claim
from tciafs.service.mountinfo import mount_at, our_mounts
from tests.archive import EmbeddedArchive
from tests.drive import require_fuse
from tests.test_cli import NOBODY, tciafs


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a home of its own, with a directory `drive`; nothing stays mounted below it."""
    require_fuse()
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "drive").mkdir()
    yield tmp_path
    for mount in our_mounts():
        if mount.mountpoint.is_relative_to(tmp_path):
            subprocess.run(["fusermount3", "-uz", str(mount.mountpoint)], check=False)
    assert eventually(lambda: processes(tmp_path) == [])


def eventually(is_so: Callable[[], bool], seconds: float = 15.0) -> bool:
    """Wait until something is so."""
    late = time.monotonic() + seconds
    while not (so := is_so()) and time.monotonic() < late:
        time.sleep(0.05)
    return so


def processes(room: Path) -> list[int]:
    """Return the processes whose arguments name the room, this one's children among them, but no zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(room) in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def log(room: Path) -> Path:
    """Return the one log of the room."""
    (path,) = (room / ".local" / "state" / "tciafs" / "log").iterdir()
    return path


def config(room: Path) -> Config:
    return Config(mountpoint=room / "drive", cache_dir=room / "cache", archive="http://127.0.0.1:9/x")


def pretend(room: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a shell script stand for the process of the mount."""
    program = room / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))


def test_a_daemon_answers_when_the_command_returns_and_umount_ends_it(room: Path, archive: EmbeddedArchive):
    done = tciafs("mount", room / "drive", "--archive", archive.url, "--daemon")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f" is mounted at {room / 'drive'}\n")
    assert done.stdout.count("\n") == 1
    assert "Demo-CT" in os.listdir(room / "drive")
    (pid,) = processes(room)
    assert os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
    assert Path(f"/proc/{pid}/fd/2").readlink() == log(room)
    assert stat.S_IMODE(log(room).stat().st_mode) == 0o600
    assert log(room).read_text() == ""
    assert tciafs("umount", room / "drive").returncode == 0
    assert eventually(lambda: processes(room) == [])
    assert log(room).read_text() == ""


def test_a_daemon_outlives_the_terminal(room: Path, archive: EmbeddedArchive):
    master, slave = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "tciafs",
        "mount",
        str(room / "drive"),
        "--archive",
        archive.url,
        "--daemon",
    ]
    terminal = subprocess.Popen(["setsid", "--ctty", *command], stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    try:
        assert terminal.wait(timeout=40) == 0
        assert b"is mounted at" in os.read(master, 1000)
    finally:
        os.close(master)  # hangs up
    time.sleep(0.2)
    assert "Demo-CT" in os.listdir(room / "drive")


def test_a_daemon_has_the_settings_of_its_command(room: Path, archive: EmbeddedArchive):
    (room / "here").mkdir()
    (room / "here" / "my.toml").write_text(f'archive = "lab"\n[archives.lab]\nurl = "{archive.url}"\n')
    flags = ("--config", "my.toml", "--umask=077", "--log-format", "json", "--daemon")
    environment = {**os.environ, "TCIAFS_CACHE_DIR": "kept"}
    done = tciafs("-v", "mount", *flags, "--", "../drive", cwd=room / "here", env=environment)
    assert done.returncode == 0, done.stderr
    assert (room / "drive").stat().st_mode & 0o777 == 0o500
    assert list((room / "here" / "kept").glob("127.0.0.1*"))
    assert tciafs("umount", room / "drive").returncode == 0
    assert eventually(lambda: log(room).read_text().startswith("{"))


def test_what_keeps_a_daemon_from_mounting_is_told_as_in_the_foreground(room: Path, archive: EmbeddedArchive):
    (room / "taken").write_text("")
    drive = room / "drive"
    assert tciafs("mount", drive, "--archive", archive.url, "--daemon").returncode == 0
    for arguments in (
        (drive, "--archive", archive.url),
        (room / "none",),
        (drive, "--archive", "nowhere"),
        (drive, "--archive", archive.url, "--cache-dir", "/proc/none"),
        (drive, "--uid", "x"),
    ):
        here, behind = tciafs("mount", *arguments), tciafs("mount", *arguments, "--daemon")
        assert here.returncode != 0
        assert (behind.returncode, behind.stdout, behind.stderr) == (here.returncode, "", here.stderr)
    assert "Demo-CT" in os.listdir(drive)


def test_the_log_is_continued_and_old_errors_are_not_told_again(room: Path, archive: EmbeddedArchive):
    (room / "drive").rmdir()
    for _ in range(2):
        done = tciafs("mount", room / "drive", "--archive", archive.url, "--daemon")
        assert done.stderr.count("no such directory") == 1
    assert log(room).read_text().count("no such directory") == 2


def test_a_log_that_cannot_be_written_is_told(room: Path):
    (room / ".local").write_text("")
    done = tciafs("mount", room / "drive", "--archive", NOBODY, "--daemon")
    assert done.returncode == 1
    assert done.stderr.startswith(f"tciafs: the log {room}/.local/state/tciafs/log/tciafs-127.0.0.1_9-")
    assert "set XDG_STATE_HOME to a directory that can" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_daemon_that_mounts_nothing_in_time_is_ended(room: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(daemon, "_START_SECONDS", 1.0)
    settings = config(room)
    claim(settings.cache_dir)
    settings.archive_dir.mkdir(parents=True)
    os.mkfifo(settings.archive_dir / "capabilities.json")  # who opens it waits for a writer
    flags = ["--archive", settings.archive, "--cache-dir", str(settings.cache_dir)]
    with pytest.raises(Failure, match="nothing was mounted within 1 s; its process was ended"):
        daemon.start(settings, ["mount", str(settings.mountpoint), *flags])
    assert processes(room) == []
    assert mount_at(settings.mountpoint) is None


@pytest.mark.parametrize("deafness", ["", "trap '' TERM"])
def test_a_daemon_that_does_not_answer_is_ended(room: Path, monkeypatch: pytest.MonkeyPatch, deafness: str):
    monkeypatch.setattr(daemon, "_START_SECONDS", 0.5)
    monkeypatch.setattr(daemon, "_END_SECONDS", 0.5)
    pretend(room, monkeypatch, f"{deafness}\necho it is mounted at x\nwhile :; do sleep 0.1; done")
    with pytest.raises(Failure, match=r"the mount did not answer within 0\.5 s; its process was ended"):
        daemon.start(config(room), [])
    assert eventually(lambda: processes(room) == [])


def test_a_drive_that_came_too_late_is_taken_away(
    room: Path, archive: EmbeddedArchive, monkeypatch: pytest.MonkeyPatch
):
    python = sys.executable
    pretend(room, monkeypatch, f'{python} "$@" >"{room}/said" & sleep 0.1\nwhile :; do sleep 0.1; done')
    monkeypatch.setattr(daemon, "_START_SECONDS", 4.0)
    with pytest.raises(Failure, match="nothing was mounted within 4 s"):
        daemon.start(config(room), ["mount", str(room / "drive"), "--archive", archive.url])
    assert " is mounted at " in (room / "said").read_text()
    assert mount_at(room / "drive") is None


def test_what_libfuse_says_is_told_with_the_exit_code(
    room: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    said = "fusermount3: mount failed: Operation not permitted\ntciafs: the kernel refused the mount\n"
    pretend(room, monkeypatch, f"printf '2026 INFO x\n{said}' >&2; exit 3")
    with pytest.raises(click.exceptions.Exit) as caught:
        daemon.start(config(room), [])
    assert caught.value.exit_code == 3
    assert capfd.readouterr().err == said


@pytest.mark.parametrize("script", ["echo Traceback >&2; exit 1", "kill -9 $$", "exit 0"])
def test_a_daemon_that_ends_without_a_word_is_told_with_its_log(
    room: Path, monkeypatch: pytest.MonkeyPatch, script: str
):
    pretend(room, monkeypatch, script)
    with pytest.raises(Failure) as caught:
        daemon.start(config(room), [])
    assert caught.value.message == f"the mount ended before it answered; {log(room)} tells why"
