"""`tciafs status`: what a drive is doing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from tciafs.cli.failure import Failure
from tciafs.cli.places import drive_at, only_drive, printable
from tciafs.service import client
from tciafs.service.client import Unanswered
from tciafs.service.mountinfo import Mount, is_dead, mount_at, our_mounts

_WATCH_SECONDS = 1.0
_END_SECONDS = 2.0  # from the end of a drive's socket to that of its mount
_POLL_SECONDS = 0.05


@click.command()
@click.argument("mountpoint", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print what .tciafs/status.json says.")
@click.option("--watch", is_flag=True, help="Print it anew each second, until Ctrl-C or the drive's end.")
def status(mountpoint: Path | None, as_json: bool, watch: bool) -> None:
    """Tell what the drive at MOUNTPOINT is doing; MOUNTPOINT may be left out where there is only one."""
    there = our_mounts() if mountpoint is None else [drive_at(mountpoint)]
    if len(there) == 1 or as_json or watch:
        (_watch if watch else _show)(only_drive(there), as_json)
    else:
        for mount in there:
            click.echo(printable(f"{mount.mountpoint}: {mount.source}"))
        click.echo(
            "'tciafs status MOUNTPOINT' tells more of one." if there else "No tciafs drive is mounted."
        )


def _show(mount: Mount, as_json: bool) -> None:
    try:
        told = client.status(mount)
    except Unanswered as exc:
        raise Failure(printable(str(exc))) from exc
    click.echo(json.dumps(told, indent=2) if as_json else page(told))


def _watch(mount: Mount, as_json: bool) -> None:
    """Show the status once a second; with `as_json` as an object a line."""
    with suppress(KeyboardInterrupt), _shown(is_page=not as_json) as show:
        while True:
            began = time.monotonic()
            try:
                told = client.status(mount)
                text = json.dumps(told) if as_json else page(told)
            except Unanswered as exc:
                if _has_ended(mount):
                    return
                if is_dead(mount.mountpoint):
                    raise Failure(printable(str(exc))) from exc
                text = json.dumps({"error": str(exc)}) if as_json else printable(str(exc))
            show(text)
            time.sleep(max(0.0, began + _WATCH_SECONDS - time.monotonic()))


@contextmanager
def _shown(is_page: bool) -> Iterator[Callable[[str], None]]:
    """Give a way to show a text in the place of the one before, or below it where that is no terminal."""
    if not (is_page and sys.stdout.isatty()):
        yield lambda text: click.echo(f"{text}\n" if is_page else text)
        return
    from rich.live import Live  # a terminal alone pays for it
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        yield lambda text: live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)


def _has_ended(mount: Mount) -> bool:
    """Tell whether the mount is gone, or is going."""
    late = time.monotonic() + _END_SECONDS
    while (is_there := mount_at(mount.mountpoint) == mount) and time.monotonic() < late:
        time.sleep(_POLL_SECONDS)
    return not is_there


def page(told: dict[str, Any]) -> str:
    """Return the status as a few lines for people."""
    archive, mount, cache, transfers = told["archive"], told["mount"], told["cache"], told["transfers"]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(archive["since"]))
    lines = [
        f"{mount['mountpoint']}: {archive['name']} ({archive['url']}), API {archive['api']},"
        f" layout {mount['layout']}, as {archive['account']}",
        f"  archive    {archive['state']} since {since}, {sum(told['requests'].values()):,} requests",
        f"  transfers  {transfers['active']} active, {transfers['completed']:,} completed,"
        f" {transfers['failed']:,} failed, {transfers['bytes'] / 1e6:,.1f} MB",
        f"  cache      {cache['files']:,} files, {cache['bytes'] / 1e6:,.1f} of"
        f" {cache['limit_bytes'] / 1e6:,.1f} MB, {cache['hits']:,} hits, {cache['misses']:,} misses,"
        f" {cache['evictions']:,} evictions",
        f"             {cache['directory']}",
        f"  kernel     {sum(told['fuse'].values()):,} requests",
        f"  process    {mount['pid']}, up {timedelta(seconds=round(mount['uptime_s']))}",
    ]
    if archive["last_error"]:
        lines.insert(2, f"  last error {archive['last_error']}")
    return "\n".join(map(printable, lines))
