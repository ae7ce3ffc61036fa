"""`tciafs cache`: what is kept on disk, whether it is sound, and how to be rid of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
import trio

from tciafs.cli.failure import Failure
from tciafs.cli.mount import default_cache_dir
from tciafs.content.cache import Cache, is_ours
from tciafs.content.index import Index
from tciafs.content.limits import INDEX_NAME
from tciafs.content.upkeep import Findings, clear_objects, examine, mend


@click.group()
def cache() -> None:
    """Look after what is kept on disk; safe while drives are mounted."""


directory_option = click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_cache_dir,
    help="Which cache.  [default: ~/.cache/tciafs]",
)


@cache.command()
@directory_option
def info(cache_dir: Path) -> None:
    """Tell how much is kept of each archive."""
    total = 0
    for path in accounts(cache_dir):
        with closing(Index.open(path / INDEX_NAME)) as index:
            files, size = trio.run(index.totals)
        total += size
        click.echo(f"{path.relative_to(cache_dir)}: {files:,} files, {size / 1e6:,.1f} MB")
    click.echo(f"{cache_dir}: {total / 1e6:,.1f} MB in all")


@cache.command()
@directory_option
def verify(cache_dir: Path) -> None:
    """Read every file and compare it with its digests; exit with 1 where anything is wrong."""
    wrong = 0
    for path in accounts(cache_dir):
        found = _examined(path)
        for line in found.lines():
            click.echo(f"{path.relative_to(cache_dir)}: {line}")
        wrong += found.count
    if wrong:
        raise Failure(f"{wrong} things are wrong; mend them with 'tciafs cache repair'")
    click.echo("Every file is as it was fetched.")


@cache.command()
@directory_option
def repair(cache_dir: Path) -> None:
    """Remove what is damaged, half-written or nobody's; it is fetched again when it is looked at."""
    mended = 0
    for path in accounts(cache_dir):
        with closing(Index.open(path / INDEX_NAME)) as index:
            mended += trio.run(mend, Cache(path), index)
    click.echo(f"{mended} things were mended.")


@cache.command()
@directory_option
@click.confirmation_option(prompt="Remove every image that is kept?")
def clear(cache_dir: Path) -> None:
    """Remove every image; listings and sizes stay known."""
    for path in accounts(cache_dir):
        with closing(Index.open(path / INDEX_NAME)) as index:
            files, size = trio.run(clear_objects, Cache(path), index)
        click.echo(f"{path.relative_to(cache_dir)}: {files:,} files, {size / 1e6:,.1f} MB removed")


def accounts(cache_dir: Path) -> Iterator[Path]:
    """Yield the directory of each archive and account in a cache; fail where it is no cache of ours."""
    if not is_ours(cache_dir):
        raise Failure(f"{cache_dir}: no cache of tciafs is there; name another with --cache-dir")
    for index in sorted(cache_dir.glob(f"*/*/{INDEX_NAME}")):
        yield index.parent


def _examined(path: Path) -> Findings:
    with closing(Index.open(path / INDEX_NAME)) as index:
        return trio.run(examine, Cache(path), index)
