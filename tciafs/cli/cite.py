"""`tciafs cite`: what to cite for files and directories of a drive, and under which licences they are."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import click

from tciafs.bibliography import Used, bibliography_bibtex, bibliography_text
from tciafs.citation import NOTHING_YET, read_coverage, read_license_text
from tciafs.cli.failure import Failure
from tciafs.cli.places import attributes, children, described, in_drive, series_below
from tciafs.cli.reads import check_read, read_options, readings
from tciafs.model import Terms

_PATIENCE_SECONDS = 15.0
_PAUSE_SECONDS = 0.2


@click.command()
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, metavar="[PATH...]")
@click.option("--bibtex", is_flag=True, help="Print BibTeX.")
@read_options
def cite(paths: tuple[Path, ...], bibtex: bool, read: bool, since: datetime | None, ever: bool) -> None:
    """Tell what to cite for the files and directories at PATH, each DOI and each licence once.

    They are paths in drives that are mounted. Of a collection, what its LICENSE.txt tells is taken. With
    --read, for what was read of a drive: since it was mounted, or by all drives of its archive and cache
    since a time or ever.
    """
    check_read(paths, read, since, ever)
    partly: dict[str, str] = {}
    if read:
        used = {(one.collection, one.terms) for one in readings(paths, since, ever)}
    else:
        used = set(_used([in_drive(path) for path in paths], partly))
    compose = bibliography_bibtex if bibtex else bibliography_text
    click.echo(compose(sorted(used, key=repr), partly), nl=False)


def _used(paths: Iterable[Path], partly: dict[str, str]) -> Iterator[Used]:
    """Yield collections and terms; note in `partly` those of which not all series are known."""
    for path in map(described, paths):
        told = attributes(path)
        if not told:
            for collection in children(path):
                yield from _of_collection(collection, partly)
        elif "patient_id" in told:
            for series in series_below([path]):
                yield series.collection, series.terms
        else:
            yield from _of_collection(path, partly)


def _of_collection(directory: Path, partly: dict[str, str]) -> Iterator[Used]:
    """Yield the terms of a collection; its text is read until the archive has told something."""
    name = attributes(directory)["collection"]
    until = time.monotonic() + _PATIENCE_SECONDS
    while NOTHING_YET in (text := _license_text(directory)) and time.monotonic() < until:
        if read_license_text(text):
            break
        time.sleep(_PAUSE_SECONDS)
    terms = read_license_text(text)
    if known := read_coverage(text):
        partly[name] = known
    if not terms:
        click.echo(f"tciafs: {name!r}: the archive has told no terms yet; cite it again later", err=True)
    for each in terms or [Terms()]:
        yield name, each


def _license_text(directory: Path) -> str:
    try:
        return (directory / "LICENSE.txt").read_text()
    except OSError as exc:
        raise Failure(f"{directory}: its LICENSE.txt cannot be read ({exc.strerror}); try again") from exc
