"""How an expected failure ends a command: one line with cause and fix, and an exit code."""

from __future__ import annotations

import click


class Failure(click.ClickException):
    """Print one line on stderr and exit with 1; wrong usage exits with 2, as click does."""

    def show(self, file: object = None) -> None:
        """Print the line."""
        click.echo(f"tciafs: {self.message}", err=True)
