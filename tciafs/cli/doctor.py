"""`tciafs doctor`: what is wrong, and the command that mends it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tciafs.cli.failure import Failure
from tciafs.cli.mount import default_cache_dir
from tciafs.config import Config, WrongSetting
from tciafs.service.doctor import examine


@click.command()
@click.option("--archive", default=Config.archive, show_default=True, metavar="NAME|URL")
@click.option("--cache-dir", type=click.Path(path_type=Path, file_okay=False), default=default_cache_dir)
@click.option("--proxy", metavar="URL")
def doctor(archive: str, cache_dir: Path, proxy: str | None) -> None:
    """Examine this machine, its drives, the cache and the archive; exit with 1 where anything is wrong."""
    try:
        config = Config(mountpoint=Path("/nowhere"), cache_dir=cache_dir.absolute(), archive=archive)
    except WrongSetting as exc:
        raise Failure(str(exc)) from exc
    wrong = 0
    for finding in examine(config, proxy):
        click.echo(f"{'ok   ' if finding.is_well else 'WRONG'} {finding.text}")
        if not finding.is_well:
            click.echo(f"      mend it: {finding.remedy}")
            wrong += 1
    sys.exit(1 if wrong else 0)
