"""`tciafs manifest`: the list of the series at or below paths of a drive, for the NBIA Data Retriever."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from tciafs.cli.failure import Failure
from tciafs.cli.places import in_drive, series_below
from tciafs.cli.reads import check_read, read_options, readings
from tciafs.manifest import manifest_text


@click.command()
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, metavar="[PATH...]")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it here.", metavar="FILE"
)
@read_options
def manifest(
    paths: tuple[Path, ...], output: Path | None, read: bool, since: datetime | None, ever: bool
) -> None:
    """Write a .tcia manifest of the series at or below PATH, or of those that were read of a drive.

    They are paths in drives that are mounted; what was not listed yet is asked for.
    """
    check_read(paths, read, since, ever)
    if read:
        uids = [uid for used in readings(paths, since, ever) for uid in used.series]
    else:
        uids = [series.series_instance_uid for series in series_below([in_drive(path) for path in paths])]
    if output is None:
        click.echo(manifest_text(uids), nl=False)
        return
    try:
        output.write_text(manifest_text(uids, output.name))
    except OSError as exc:
        raise Failure(f"{output}: cannot be written ({exc.strerror}); give another FILE") from exc
