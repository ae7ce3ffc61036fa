"""`tciafs mount`: serve a drive until it is unmounted, in the foreground or with --daemon behind."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tciafs.cli.daemon import start
from tciafs.cli.failure import Failure
from tciafs.cli.login import with_account
from tciafs.cli.policy import require
from tciafs.cli.settings import config_option, options
from tciafs.cli.sources import Sources
from tciafs.config import Config

_ARGUMENTS = "tciafs.cli.mount.arguments"


class Mount(click.Command):
    """A command that remembers its arguments as they were given, for the process of a daemon."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and keep a copy."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


@click.command(cls=Mount)
@click.argument("mountpoint", type=click.Path(path_type=Path))
@options
@config_option
@click.option(
    "--daemon", is_flag=True, help="Return when the drive is there; its log is in ~/.local/state/tciafs/log."
)
@click.pass_context
def mount(ctx: click.Context, /, mountpoint: Path, file: Path | None, daemon: bool, **flags: Any) -> None:
    """Mount an archive at MOUNTPOINT, and serve it until it is unmounted or interrupted.

    Nothing is fetched before it is looked at. End it with 'tciafs umount MOUNTPOINT' or Ctrl-C.

    A setting stands in the configuration file (cache_size = "50G"), in a variable
    (TCIAFS_CACHE_SIZE=50G) or in a flag; the last of these wins.
    """
    config = with_account(Sources(file).config(mountpoint, flags))
    require(config)
    if daemon:
        arguments: list[str] = ctx.meta[_ARGUMENTS]
        arguments.remove("--daemon")  # whichever: where a value is spelled so, too, the rest is the same
        verbose = ["-v"] * ctx.find_root().params.get("verbose", 0)
        click.echo(start(config, [*verbose, "mount", *arguments]))
    else:
        serve(config)


def serve(config: Config) -> None:
    """Serve a mount in this process until it ends."""
    import trio

    from tciafs.service import mount as service  # libfuse is loaded by who mounts, not by --help

    if config.log_format == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonLines())
    try:
        trio.run(service.serve, config, lambda: announce(config))
    except service.CannotMount as exc:
        raise Failure(str(exc)) from exc


def announce(config: Config) -> None:
    """Print the one line that says the drive is there."""
    click.echo(f"{config.archive_name} is mounted at {config.mountpoint}")


def default_cache_dir() -> Path:
    """Return the cache of a mount that is given no flags."""
    directory: Path = Sources().values["cache_dir"]
    return directory


class JsonLines(logging.Formatter):
    """Write a record of the log as one JSON object in one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; `exception` is there where one is told."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told)
