"""`tciafs umount`: take a drive away."""

from __future__ import annotations

import subprocess
from pathlib import Path

import click

from tciafs.cli.failure import Failure
from tciafs.cli.sources import located
from tciafs.service.holders import holders
from tciafs.service.mountinfo import mount_at


@click.command()
@click.argument("mountpoint", type=click.Path(path_type=Path))
def umount(mountpoint: Path) -> None:
    """Unmount the drive at MOUNTPOINT; its process ends."""
    path = located(mountpoint.absolute())
    there = mount_at(path)
    if there is None or not there.is_ours:
        raise Failure(f"{path}: no tciafs drive is mounted there; 'tciafs status' lists those that are")
    try:
        done = subprocess.run(["fusermount3", "-u", "--", str(path)], capture_output=True, text=True)
    except FileNotFoundError as exc:
        raise Failure("fusermount3 is not installed; install it with 'sudo apt-get install fuse3'") from exc
    if done.returncode:
        who = holders(path)
        if who:
            raise Failure(f"{path}: still in use by {', '.join(who)}; end these, or let them leave the drive")
        said = done.stderr.strip().splitlines()
        raise Failure(f"{path}: {said[-1] if said else 'fusermount3 failed, and did not say why'}")
