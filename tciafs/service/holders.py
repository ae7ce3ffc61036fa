"""Who uses a mount, from /proc alone: whoever has its files open, maps them, or stands in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def holders(mountpoint: Path) -> list[str]:
    """Return the processes that use something below a path, as "name (pid)"; those that may be looked at."""
    found = []
    for process in sorted(_PROC.iterdir()):
        if process.name.isdigit() and any(_is_below(path, mountpoint) for path in _used_by(process)):
            with suppress(OSError):  # it has just ended
                found.append(f"{(process / 'comm').read_text().strip()} ({process.name})")
    return found


def _used_by(process: Path) -> Iterator[str]:
    """Yield the paths that a process uses; /proc answers without asking the mount."""
    for link in (process / "cwd", process / "root"):
        with suppress(OSError):
            yield str(link.readlink())
    with suppress(OSError):
        for link in (process / "fd").iterdir():
            with suppress(OSError):
                yield str(link.readlink())
    with suppress(OSError):
        for line in (process / "maps").read_text(errors="surrogateescape").splitlines():
            yield line.partition("/")[1] + line.partition("/")[2]


def _is_below(path: str, mountpoint: Path) -> bool:
    return path == str(mountpoint) or path.startswith(f"{mountpoint}/")
