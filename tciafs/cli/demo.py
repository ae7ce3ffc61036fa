"""`tciafs demo`: the embedded archive, mounted, with a short tour; no network is needed."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from tciafs.cli.failure import Failure

_START_SECONDS = 30.0
_END_SECONDS = 10.0


@click.command()
@click.argument("mountpoint", type=click.Path(path_type=Path), required=False)
@click.option("--once", is_flag=True, help="End after the tour instead of waiting for Ctrl-C.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Serve this folder of DICOM files instead of the sample data.",
)
@click.option(
    "--latency", type=click.FloatRange(min=0), default=0, metavar="MS", help="Delay of each answer."
)
@click.option("--bandwidth", type=click.FloatRange(min=0), metavar="MBIT", help="Speed of each connection.")
def demo(
    mountpoint: Path | None, once: bool, data: Path | None, latency: float, bandwidth: float | None
) -> None:
    """Mount a small archive that runs on this machine, and show what is in it.

    Without MOUNTPOINT the drive is mounted in a new temporary directory.
    """
    arguments = ["--latency", str(latency)]
    arguments += ["--data", str(data)] if data else []
    arguments += ["--bandwidth", str(bandwidth)] if bandwidth else []
    with ExitStack() as stack:
        stack.enter_context(_interrupted_by_sigterm())
        try:
            room = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tciafs-demo-")))
            url = stack.enter_context(_started("tciafs.demo", *arguments))
            drive = _drive(mountpoint, room)
            flags = ["--archive", url, "--cache-dir", str(room / "cache")]
            stack.enter_context(_started("tciafs", "mount", str(drive), *flags))
            _show(drive, url, once)
        except KeyboardInterrupt:
            click.echo("\nThe demo ends.")


def _show(drive: Path, url: str, once: bool) -> None:
    from tciafs.cli.tour import tour  # pydicom and pillow come with the extra `demo` alone

    click.echo(f"The demo archive answers at {url} (on this machine; no network is used).")
    click.echo(f"It is mounted at {drive}\n")
    tour(drive)
    if not once:
        click.echo(f"\nLook around in {drive} from another terminal; Ctrl-C here ends the demo.")
        threading.Event().wait()


def _drive(mountpoint: Path | None, room: Path) -> Path:
    if mountpoint is None:
        mountpoint = room / "tcia"
        mountpoint.mkdir()
    return mountpoint.absolute()


@contextmanager
def _started(module: str, *arguments: str) -> Iterator[str]:
    """Run a module of ours as a process of its own; yield the line it prints when ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C comes here alone, and ends the two in their order
    )
    try:
        yield _first_line(process)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    assert process.stderr
    late = threading.Timer(_START_SECONDS, process.kill)
    late.start()
    try:
        line = process.stdout.readline().strip()
    finally:
        late.cancel()
    if line:
        return line
    said = process.stderr.read().strip().splitlines()
    raise Failure(
        said[-1].removeprefix("tciafs: ") if said else f"nothing came within {_START_SECONDS:.0f} s"
    )


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
