"""The Data Usage Policy at the command line: asked for once an archive, repeated where others may read."""

from __future__ import annotations

import sys

import click

from tciafs.cli.failure import Failure
from tciafs.config import Config
from tciafs.policy import GIST, LINK, PASSING_ON
from tciafs.service.agreement import Agreement


class NotAgreed(Failure):
    """Print one line on stderr and exit with 3: the policy was not agreed to."""

    exit_code = 3


def require(config: Config) -> None:
    """Return once the policy is agreed to, by a setting, earlier or now; raise `NotAgreed` else."""
    agreement = Agreement(config)
    if agreement.is_missing:
        if not config.accept_data_usage_policy:
            _ask(agreement)
        _record(agreement)
    if config.allow_other and agreement.is_needed:
        click.echo(PASSING_ON, err=True, nl=False)


def _ask(agreement: Agreement) -> None:
    name = agreement.archive_name
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise NotAgreed(
            f"the Data Usage Policy of {name} is not agreed to yet: read {LINK}, then add"
            " --accept-data-usage-policy once"
        )
    click.echo(GIST, err=True, nl=False)
    try:
        agrees = click.confirm(f"Do you agree to it for {name}?", err=True)
    except click.Abort:  # Ctrl-C or Ctrl-D
        click.echo(err=True)
        agrees = False
    if not agrees:
        raise NotAgreed(f"nothing is mounted, since the Data Usage Policy of {name} is not agreed to")


def _record(agreement: Agreement) -> None:
    try:
        agreement.record()
    except OSError as exc:
        click.echo(
            f"tciafs: {agreement.path} cannot be written ({exc.strerror}), so that the agreement will be"
            " asked for again; set XDG_STATE_HOME to a directory that can",
            err=True,
        )
