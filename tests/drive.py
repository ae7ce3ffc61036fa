"""A mounted drive as tests use it: `tciafs mount` as a user runs it, in its own process."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tciafs.service.mountinfo import mount_at

_PROJECT = Path(__file__).parent.parent
_ALARMING = re.compile(r" (WARNING|ERROR|CRITICAL) |Traceback|Error:")


def require_fuse() -> None:
    """Skip where FUSE cannot be used; fail instead where TCIAFS_REQUIRE_FUSE is set, as in CI."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as exc:
        if os.environ.get("TCIAFS_REQUIRE_FUSE"):
            pytest.fail(f"/dev/fuse cannot be opened: {exc}")
        pytest.skip(f"/dev/fuse cannot be opened: {exc}")


class Drive:
    """A mounted drive; `path` is its root. What is alarming in its log fails the test, unless expected."""

    def __init__(self, path: Path, process: subprocess.Popen[str], log: Path) -> None:
        self.path = path
        self.process = process
        self.killed = False
        self._log = log

    @property
    def log(self) -> str:
        """Return what the drive's process has logged."""
        return self._log.read_text()

    def status(self) -> dict[str, Any]:
        """Return the drive's status.json."""
        told: dict[str, Any] = json.loads((self.path / ".tciafs" / "status.json").read_text())
        return told

    def files(self, pattern: str = "*/*/*/*/*") -> list[Path]:
        """Return the files of the drive, listed for this, in the order of their paths."""
        return sorted(self.path.glob(pattern))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.killed = number == signal.SIGKILL
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


@contextmanager
def mounted(
    room: Path,
    url: str,
    *arguments: str,
    expect: str | None = None,
    name: str = "drive",
    program: str = "tciafs",
) -> Iterator[Drive]:
    """Mount `url` at `room`/`name` until the end of the block; the cache stays in `room` for the next mount.

    `expect` is a regular expression of alarming log lines that belong to the test; `program` a module.
    """
    require_fuse()
    path = room / name
    if mount_at(path) is None:  # what is mounted there may be dead, and cannot be looked at
        path.mkdir(exist_ok=True)
    log = room / f"log-{time.monotonic_ns()}"
    # The tests' own disk may be nearly full; what is tested of that says so itself.
    flags = ["--archive", url, "--cache-dir", str(room / "cache"), "--keep-free", "0", *arguments]
    command = [sys.executable, "-m", program, "-v", "mount", str(path), *flags]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=_PROJECT)
    try:
        if not _is_announced(process):
            pytest.fail(f"the drive was not mounted: {log.read_text()}")
        drive = Drive(path, process, log)
        yield drive
        if not drive.killed:
            status = drive.end() if process.poll() is None else process.returncode
            assert status == 0, log.read_text()
            assert mount_at(path) is None, "the drive is still mounted"
    finally:
        _take_away(path, process)
    alarming = [line for line in log.read_text().splitlines() if _ALARMING.search(line)]
    unexpected = [line for line in alarming if not (expect and re.search(expect, line))]
    assert unexpected == [], "\n".join(unexpected)


def _is_announced(process: subprocess.Popen[str], seconds: float = 20.0) -> bool:
    assert process.stdout
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return bool(selector.select(seconds)) and " is mounted at " in process.stdout.readline()


def _take_away(path: Path, process: subprocess.Popen[str]) -> None:
    if mount_at(path) is not None:
        subprocess.run(["fusermount3", "-uz", str(path)], check=False)
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()
