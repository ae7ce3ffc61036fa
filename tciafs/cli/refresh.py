"""`tciafs refresh`: ask the archive anew for one directory, and tell what is new, changed or gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tciafs.cli.failure import Failure
from tciafs.cli.places import printable
from tciafs.service.client import Unanswered, ask
from tciafs.service.mountinfo import inside

_SHOWN = 20
_KINDS = ("new", "changed", "gone")


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print every name, as one JSON object.")
def refresh(path: Path, as_json: bool) -> None:
    """Ask the archive anew what the directory PATH of a drive holds, and tell what is new, changed or gone.

    Of a file, its series is asked for. Listings below PATH are renewed when they are looked at; those of a
    collection of which three patients or more were looked at are renewed now.
    """
    found = inside(path)
    if found is None:
        raise Failure(f"{path}: in no tciafs drive; 'tciafs status' lists those that are mounted")
    mount, names = found
    try:
        told = ask(mount, {"do": "refresh", "path": names})
    except Unanswered as exc:
        raise Failure(f"{path}: {exc}") from exc
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        for line in _lines(str(path), told):
            click.echo(printable(line))


def _lines(path: str, told: dict[str, Any]) -> Iterator[str]:
    """Yield the result for people: the first names of each kind, and how many there are."""
    counts = [f"{len(told[kind]):,} {kind}" for kind in _KINDS if told[kind]]
    yield f"{path}: {', '.join(counts) or 'nothing has changed'}"
    for kind in _KINDS:
        yield from (f"  {kind:8} {name}" for name in told[kind][:_SHOWN])
        if len(told[kind]) > _SHOWN:
            yield f"  {kind:8} … and {len(told[kind]) - _SHOWN:,} more"
    if told["expired"]:
        yield f"  {told['expired']:,} listings below are renewed when they are looked at"
