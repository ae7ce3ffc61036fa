"""The settings of a mount as a file that `--config` takes: `.tciafs/config.toml`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import tomli_w

from tciafs.config import Config, without_password

_HEAD = """\
# The settings of the drive at {mountpoint}, wherever they came from.
# What is not here is not set. Passwords are left out.
"""


def effective(config: Config) -> bytes:
    """Return all settings that have a value, without passwords."""
    values = {name: value for name, value in asdict(config).items() if value is not None}
    mountpoint = values.pop("mountpoint")
    told = {name: _spelled(name, value) for name, value in values.items()}
    text = _HEAD.format(mountpoint=_printable(str(mountpoint))) + tomli_w.dumps(told)
    return text.encode("utf-8", "replace")


def _spelled(name: str, value: object) -> object:
    if name == "umask":
        return f"{value:03o}"
    if name in ("archive", "proxy"):
        return without_password(str(value))
    if isinstance(value, Path | str):
        return str(value)
    return value


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
