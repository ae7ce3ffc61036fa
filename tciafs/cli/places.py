"""Which drive a command is about, and where its paths are in one, told by their extended attributes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tciafs.cli.failure import Failure
from tciafs.cli.sources import located
from tciafs.model import Series
from tciafs.service.mountinfo import Mount, mount_at, our_mounts

_PREFIX = "user.tcia."


def drive_at(mountpoint: Path) -> Mount:
    """Return the drive that is mounted at a path, which is not touched; fail where there is none."""
    path = located(mountpoint.absolute())
    there = mount_at(path)
    if there is None or not there.is_ours:
        raise Failure(f"{path}: no tciafs drive is mounted there")
    return there


def only_drive(there: list[Mount]) -> Mount:
    """Return the drive where there is one; fail where there are others, or none."""
    if len(there) == 1:
        return there[0]
    names = ", ".join(str(mount.mountpoint) for mount in there)
    raise Failure(printable(f"say which drive: {names}" if there else "no tciafs drive is mounted"))


def printable(line: str) -> str:
    """Return a line in which nothing can steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in line)


def in_drive(path: Path) -> Path:
    """Return the path without links; fail where it is in no drive or not there."""
    try:
        real = Path(os.path.realpath(path, strict=True))
    except OSError as exc:
        raise Failure(
            f"{path}: cannot be looked at ({exc.strerror}); give a path in a mounted drive"
        ) from exc
    if not any(real.is_relative_to(mount.mountpoint) for mount in our_mounts()):
        raise Failure(
            f"{path}: is in no tciafs drive; give its path in a drive, since a copy does not say whose it is"
        )
    return real


def attributes(path: Path) -> dict[str, str]:
    """Return what the drive tells of a directory or file: names without "user.tcia."."""
    try:
        names = [name for name in os.listxattr(path) if name.startswith(_PREFIX)]
        return {name.removeprefix(_PREFIX): os.getxattr(path, name).decode() for name in names}
    except OSError as exc:
        if exc.errno == errno.ENOTSUP:
            raise Failure(f"{path}: its drive has no attributes; mount it without --xattrs=off") from exc
        raise _failed(path, exc) from exc


def series_below(paths: Iterable[Path]) -> Iterator[Series]:
    """Yield the series that the paths are in, or that are below them, each once; what is not listed is."""
    seen: set[str] = set()
    for path in paths:
        for told in _series(described(path)):
            if told["series_uid"] not in seen:
                seen.add(told["series_uid"])
                yield _record(told)


def described(path: Path) -> Path:
    """Return the path, or the directory of a text file: that is what the text is about."""
    return path if path.is_dir() or "sop_uid" in attributes(path) else path.parent


def children(directory: Path) -> list[Path]:
    """Return the directories in a directory, by name."""
    try:
        with os.scandir(directory) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError as exc:
        raise _failed(directory, exc) from exc


def _series(path: Path) -> Iterator[dict[str, str]]:
    told = attributes(path)
    if "series_uid" in told:
        yield told
    else:
        for child in children(path):
            yield from _series(child)


def _record(told: dict[str, str]) -> Series:
    return Series(
        told["collection"],
        told["patient_id"],
        told["study_uid"],
        told["series_uid"],
        license_name=told.get("license"),
        license_uri=told.get("license_uri"),
        data_description_uri=told.get("doi"),
        third_party_analysis="analysis_result" in told,
    )


def _failed(path: Path, exc: OSError) -> Failure:
    return Failure(
        f"{path}: cannot be listed ({exc.strerror}); .tciafs/errors.log in its drive says why, then try again"
    )
