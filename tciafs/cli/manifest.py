"""`tciafs manifest`: the list of the series at or below paths of a drive, for the NBIA Data Retriever."""

from __future__ import annotations

from pathlib import Path

import click

from tciafs.cli.failure import Failure
from tciafs.cli.places import in_drive, series_below
from tciafs.manifest import manifest_text


@click.command()
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="PATH...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it here.", metavar="FILE"
)
def manifest(paths: tuple[Path, ...], output: Path | None) -> None:
    """Write a .tcia manifest of the series at or below PATH.

    They are paths in drives that are mounted; what was not listed yet is asked for.
    """
    uids = [series.series_instance_uid for series in series_below([in_drive(path) for path in paths])]
    if output is None:
        click.echo(manifest_text(uids), nl=False)
        return
    try:
        output.write_text(manifest_text(uids, output.name))
    except OSError as exc:
        raise Failure(f"{output}: cannot be written ({exc.strerror}); give another FILE") from exc
