"""The mounts of this machine, from the kernel's table; a mount, which may hang, is touched by a child."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path("/proc/self/mountinfo")
_TYPE = "fuse.tciafs"
_LOOK_SECONDS = 5.0
_KILL_SECONDS = 1.0
_LINKS = 40  # that the kernel follows in one path (path_resolution(7))
_LOOK = """
import os, sys
path = sys.argv[1]
try:
    {}
except OSError as exc:
    sys.exit(exc.errno)
"""


class Untouchable(Exception):
    """A file of a mount cannot be read; the message says why."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(abs(number)))
        self.is_dead = number == errno.ENOTCONN


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of /proc/self/mountinfo (proc_pid_mountinfo(5))."""

    mountpoint: Path
    fstype: str
    source: str
    minor: int
    options: frozenset[str]

    @property
    def user_id(self) -> int | None:
        """Return who mounted it, where it is of FUSE."""
        told = [option for option in self.options if option.startswith("user_id=")]
        return int(told[0].partition("=")[2]) if told else None

    @property
    def is_ours(self) -> bool:
        """Tell whether this is a mount of tciafs, dead or alive."""
        return self.fstype == _TYPE


def mounts() -> list[Mount]:
    """Return all mounts, in the order in which they were made."""
    return [_parse(line) for line in _TABLE.read_text(errors="surrogateescape").splitlines()]


def mount_at(mountpoint: Path) -> Mount | None:
    """Return what is mounted at a path, the topmost where there are several."""
    found = [mount for mount in mounts() if mount.mountpoint == mountpoint]
    return found[-1] if found else None


def our_mounts() -> list[Mount]:
    """Return all mounts of tciafs."""
    return [mount for mount in mounts() if mount.is_ours]


def inside(path: Path) -> tuple[Mount, list[str]] | None:
    """Return the mount of tciafs into which a path leads, and the names below it; no mount is touched.

    Whatever links lead to the mount are followed; those inside are its own process's to follow.
    """
    ours = {mount.mountpoint: mount for mount in our_mounts()}
    at, links = Path("/"), 0
    pending = list(reversed(Path.cwd().joinpath(path).parts))
    while pending:
        name = pending.pop()
        at = at.parent if name == ".." else at / name  # "/" leads to the root again
        if any(at.is_relative_to(mountpoint) for mountpoint in ours) or not at.is_symlink():
            continue
        links += 1
        if links > _LINKS:
            return None
        pending += reversed(at.readlink().parts)
        at = at.parent
    deepest = max((mountpoint for mountpoint in ours if at.is_relative_to(mountpoint)), default=None)
    return (ours[deepest], list(at.relative_to(deepest).parts)) if deepest else None


def read_by_child(path: Path, seconds: float) -> bytes:
    """Return what a file of a mount holds, read by another process, since a drive may hang.

    Raise `TimeoutError` when it does, `Untouchable` where the file cannot be read.
    """
    return _by_child("with open(path, 'rb') as file: sys.stdout.buffer.write(file.read())", path, seconds)


def is_dead(mountpoint: Path) -> bool:
    """Tell whether the process of a drive is gone; one that is slow is no dead one."""
    try:
        _by_child("os.statvfs(path)", mountpoint, _LOOK_SECONDS)  # which no kernel answers by itself
    except Untouchable as exc:
        return exc.is_dead
    except TimeoutError:
        return False
    return False


def _by_child(look: str, path: Path, seconds: float) -> bytes:
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _LOOK.format(look), str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        told, _ = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as exc:
        child.kill()
        with suppress(subprocess.TimeoutExpired):  # one that waits for a mount may be beyond killing
            child.communicate(timeout=_KILL_SECONDS)
        raise TimeoutError(f"{path} does not answer within {seconds:.0f} s") from exc
    if child.returncode:
        raise Untouchable(child.returncode)
    return told


def take_away(mountpoint: Path) -> str | None:
    """Unmount a drive whose process is gone, whoever still holds it; return why that failed."""
    command = ["fusermount3", "-uz", "--", str(mountpoint)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LOOK_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return str(exc)
    return done.stderr.strip() or None if done.returncode else None


def _parse(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    _, _, device, _, mountpoint, options, *_ = before.split(" ")
    fstype, source, super_options = after.split(" ", 2)
    return Mount(
        Path(_unescaped(mountpoint)),
        fstype,
        _unescaped(source),
        int(device.partition(":")[2]),
        frozenset(options.split(",")) | frozenset(super_options.split(",")),
    )


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
