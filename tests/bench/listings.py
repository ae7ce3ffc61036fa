"""The cases of names: a large directory, a large tree, and looking a name up while images come."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.archive import EmbeddedArchive
from tests.bench.measure import Case, Measure, Round, Target, in_turn, percentile, ratio, seconds, value
from tests.bench.scene import COLLECTION, scene, series_files
from tests.drive import mounted

_FILES = 10_000
_PATIENTS, _SERIES, _SLICES = 1_000, 3, 40
_FEW_LOOKUPS = 200
_READERS = 8
_READ_ALL = """
import sys, threading
from pathlib import Path
def read(series):
    for file in sorted(series.iterdir()):
        file.read_bytes()
for series in sys.argv[1:]:
    threading.Thread(target=read, args=[Path(series)]).start()
"""


def _run_silent(*command: str | Path) -> None:
    subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL, check=True)


@contextmanager
def _ls(profile: str) -> Iterator[Measure]:
    with scene(profile) as place, place.folder() as folder:
        (uid,) = place.make_series(slices=_FILES, side=8)
        url = place.archive.url
        with (
            mounted(folder, url, "--xattrs", "off", name="plain") as plain,
            mounted(folder, url, name="usual") as usual,
        ):
            series = {"--xattrs=off": plain, "drive": usual}
            folders = {name: series_files(drive, uid)[0].parent for name, drive in series.items()}
            folders["local directory"] = folder / "local"
            (folder / "local").mkdir()
            for file in folders["drive"].iterdir():
                with (folder / "local" / file.name).open("wb") as local:
                    local.truncate(1_000)

            def ls_of(path: Path) -> Callable[[], float]:
                return lambda: seconds(lambda: _run_silent("ls", "-l", path))

            for path in folders.values():
                ls_of(path)()
            yield lambda number: in_turn(number, {name: ls_of(path) for name, path in folders.items()})


@contextmanager
def _find(profile: str) -> Iterator[Measure]:
    with scene(profile) as place:
        wanted = {"patients": _PATIENTS, "series": _SERIES, "series_of": _SLICES}
        place.archive.edit(synthetic={"collection": COLLECTION, **wanted})
        place.begin()

        def measure(number: int) -> Round:
            with place.drive() as drive:
                place.archive.forget()
                taken = seconds(lambda: _run_silent("find", drive.path, "-type", "f", "-size", "+0"))
            asked = place.archive.log()
            requests = sum(place.archive.requests().values())
            one_by_one = seconds(lambda: _ask_again(place.archive, asked))
            return {"drive": taken, "its requests, one after another": one_by_one, "requests": requests}

        yield measure


def _ask_again(archive: EmbeddedArchive, asked: list[str]) -> None:
    """Send the same requests one after another, over one connection."""
    base = archive.url.partition("/nbia-api")[0]
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": "Bearer undefined"}
    with httpx.Client(base_url=base, trust_env=False, timeout=120) as client:
        for line in asked:
            target, _, form = line.partition(" ")
            method = "POST" if form else "GET"
            client.request(method, target, content=form or None, headers=kind if form else None)


@contextmanager
def _stat(profile: str) -> Iterator[Measure]:
    with scene(profile) as place:
        (names,) = place.make_series(slices=_FILES, side=8)
        uids = place.make_series(_READERS)
        place.begin()

        def measure(number: int) -> Round:
            with place.folder() as folder:
                with mounted(folder, place.archive.url) as drive:
                    files = series_files(drive, names)
                    series = [series_files(drive, uid)[0].parent for uid in uids]
                # Mounted anew, the kernel knows none of the names.
                with mounted(folder, place.archive.url) as drive:
                    alone = _lookups(files[:_FEW_LOOKUPS], lambda: True)
                    began = time.monotonic()
                    readers = subprocess.Popen([sys.executable, "-c", _READ_ALL, *map(str, series)])
                    time.sleep(1.0)  # until they read in order
                    busy = _lookups(files[_FEW_LOOKUPS:], lambda: readers.poll() is None)
                    speed = int(drive.status()["transfers"]["bytes"]) / (time.monotonic() - began)
                    readers.kill()
                    readers.wait()
            if len(busy) < _FEW_LOOKUPS:
                raise RuntimeError(f"only {len(busy)} lookups before the transfers had ended")
            return {
                "p99, nothing else (ms)": 1e3 * percentile(alone, 0.99),
                "p50, 8 readers (ms)": 1e3 * percentile(busy, 0.5),
                "p99, 8 readers (ms)": 1e3 * percentile(busy, 0.99),
                "lookups": len(busy),
                "MB/s meanwhile": speed / 1e6,
            }

        yield measure


def _lookups(files: list[Path], go_on: Callable[[], bool]) -> list[float]:
    """Return how long each of the files' names takes to look up, while `go_on` says so."""
    files[0].stat()  # the directories above, and the listing from disk
    taken = []
    for file in itertools.takewhile(lambda _: go_on(), files[1:]):
        taken.append(seconds(file.stat))
        time.sleep(0.002)
    return taken


_COUNT = _PATIENTS * _SERIES

CASES = (
    Case(
        name="ls",
        title="`ls -l` of 10,000 files",
        how="A series of 10,000 files that was listed before, and a local directory of as many.",
        begin=_ls,
        targets=(
            Target(
                what="--xattrs=off / local directory", value=ratio("--xattrs=off", "local directory"), limit=3
            ),
            Target(what="with user.tcia.*", value=value("drive"), limit=1.5, unit="s"),
        ),
        bars=("drive", "--xattrs=off", "local directory"),
    ),
    Case(
        name="find",
        profiles=("lan", "wan"),
        title="`find` over a collection that nobody has listed",
        how=f"{_PATIENTS:,} patients with {_COUNT:,} series of {_SLICES} files, found with their sizes in a"
        " new drive. Afterwards the same requests are made one after another.",
        begin=_find,
        targets=(
            Target(what="requests", value=value("requests"), limit=20 + _COUNT / 100),
            Target(
                what="drive / its requests one after another",
                value=ratio("drive", "its requests, one after another"),
                limit=1.0,
            ),
        ),
        bars=("drive", "its requests, one after another"),
    ),
    Case(
        name="stat",
        title="Looking a name up while 8 readers run",
        how="Names that the kernel does not know are looked up one by one, while eight readers each read a"
        " series of 220 slices for the first time, as fast as the machine can.",
        begin=_stat,
        targets=(Target(what="p99", value=value("p99, 8 readers (ms)"), limit=20, unit="ms"),),
        bars=(),
    ),
)
