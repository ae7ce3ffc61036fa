"""Take the pictures of the README: a series in two file managers, and a slice of it in a DICOM viewer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from tests.archive import EmbeddedArchive, start_archive
from tests.desktop import Desktop, desktop
from tests.drive import mounted
from tests.pictures.look import furnish
from tests.test_mount import IMAGES

FOLDER = Path(__file__).parent.parent.parent / "docs" / "pictures"
ROOM = Path("/tmp/you")  # is to be seen in the pictures, so it is always the same
SERIES = "Demo-CT/PHANTOM-01/*/2-CT-*"
SLICE = "1-050.dcm"
AS_A_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


@contextmanager
def own_room() -> Iterator[Path]:
    """Make the directory for everything, and remove it at the end."""
    try:
        ROOM.mkdir(mode=0o700)
    except FileExistsError:
        sys.exit(f"{ROOM} is in the way: end what uses it, and remove it")
    try:
        yield ROOM
    finally:
        shutil.rmtree(ROOM)


def unprivileged() -> tuple[str, ...]:
    """Return what makes root look like a user, where the kernel lets it: Thunar warns whoever is root."""
    if os.getuid() == 0 and subprocess.run([*AS_A_USER, "true"], check=False).returncode == 0:
        return AS_A_USER
    return ()


@contextmanager
def stage() -> Iterator[tuple[Desktop, Path, EmbeddedArchive]]:
    """Yield a furnished desktop, a series on a drive in its home, and the archive behind."""
    with own_room() as room, start_archive() as archive:
        home = room / "home"
        home.mkdir()
        furnish(home)
        with mounted(home, archive.url, name="tcia") as drive, desktop(room, prefix=unprivileged()) as screen:
            (series,) = drive.path.glob(SERIES)
            yield screen, series, archive


def save(picture: Image.Image, name: str) -> str:
    """Write a picture in 256 colours; return what was written."""
    path = FOLDER / f"{name}.png"
    FOLDER.mkdir(parents=True, exist_ok=True)
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    return f"{path.relative_to(Path.cwd())}: {path.stat().st_size // 1000} kB"


def main() -> None:
    """Take each picture, and count what the archive was asked for it."""
    with stage() as (screen, series, archive):
        for name, command, title in (
            ("pcmanfm", ("pcmanfm", series), series.name),
            ("thunar", ("thunar", series), series.name),
            ("slice", ("aeskulap", series / SLICE), "Aeskulap"),
        ):
            archive.reset()
            with screen.running(*command):
                screen.focus(title)
                said = save(screen.settled_picture(2.0), name)
            fetched = sum(archive.requests().get(request, 0) for request in IMAGES)
            print(f"{said}, {fetched} images fetched")
            if fetched != (name == "slice"):
                sys.exit(f"{command[0]} was not expected to fetch {fetched} images")


if __name__ == "__main__":
    main()
