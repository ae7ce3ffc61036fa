"""The command `tciafs` and what all its commands share: how failures are told, and the log."""

from __future__ import annotations

import logging

import click

from tciafs import __version__
from tciafs.cli.cache import cache
from tciafs.cli.cite import cite
from tciafs.cli.demo import demo
from tciafs.cli.doctor import doctor
from tciafs.cli.login import login, logout
from tciafs.cli.manifest import manifest
from tciafs.cli.mount import mount
from tciafs.cli.refresh import refresh
from tciafs.cli.search import search
from tciafs.cli.status import status
from tciafs.cli.umount import umount


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="tciafs %(version)s")
@click.option("-v", "--verbose", count=True, help="Log what happens; twice: every detail.")
def main(verbose: int) -> None:
    """The Cancer Imaging Archive, mounted as a folder."""
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
    if level > logging.DEBUG:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # one line a request


_COMMANDS = (mount, umount, status, refresh, search, login, logout, cache, doctor, cite, manifest, demo)
for command in _COMMANDS:
    main.add_command(command)
