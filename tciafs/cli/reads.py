"""What was read of a drive, asked for by the commands that have `--read`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from tciafs.cli.failure import Failure
from tciafs.cli.places import drive_at, only_drive, printable
from tciafs.model import Terms
from tciafs.service.client import Unanswered, ask
from tciafs.service.mountinfo import our_mounts

_SPELLINGS = ["%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
_OPTIONS = (
    click.option("--read", is_flag=True, help="Of what was read of the drive at PATH, its mount point."),
    click.option(
        "--since", type=click.DateTime(_SPELLINGS), metavar="TIME", help="With --read: since this local time."
    ),
    click.option("--all", "ever", is_flag=True, help="With --read: since the cache was begun."),
)

F = TypeVar("F", bound=Callable[..., Any])


def read_options(command: F) -> F:
    """Give a command the options that `Reading` holds."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Reading:
    """Series that were read of one collection, under the same terms."""

    collection: str
    terms: Terms
    series: list[str]


def check_read(paths: tuple[Path, ...], read: bool, since: datetime | None, ever: bool) -> None:
    """Fail where the arguments make no sense together."""
    if not read and not paths:
        raise click.UsageError("say of which PATH, or --read for what was read of a drive")
    if not read and (since or ever):
        raise click.UsageError("--since and --all are of --read")
    if read and (len(paths) > 1 or (ever and since)):
        raise click.UsageError("--read takes one mount point, and either --since or --all")


def readings(paths: tuple[Path, ...], since: datetime | None, ever: bool) -> list[Reading]:
    """Ask the drive at the one path, or the only drive, what was read; fail where that is nothing."""
    mount = drive_at(paths[0]) if paths else only_drive(our_mounts())
    when = 0 if ever else since and since.timestamp()
    try:
        answer = ask(mount, {"do": "read", "since": when})
    except Unanswered as exc:
        raise Failure(printable(str(exc))) from exc
    if lost := answer["lost"]:
        also = "look at their directories, then ask again"
        click.echo(f"tciafs: {lost} series that were read are lost from the listings: {also}", err=True)
    if not (told := answer["read"]):
        period = "yet" if ever else f"since {since or 'it was mounted'}"
        also = "" if ever else "; --since and --all tell of what was read earlier"
        raise Failure(printable(f"{mount.mountpoint}: no image was read {period}{also}"))
    return [Reading(one["collection"], Terms(**one["terms"]), one["series"]) for one in told]
