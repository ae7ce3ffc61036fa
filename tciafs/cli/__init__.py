"""The commands: the only room that prints."""

from __future__ import annotations

from tciafs.cli.main import main

__all__ = ["main"]
