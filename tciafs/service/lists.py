"""Reads the manifest that a mount was given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tciafs.config import Config
from tciafs.manifest import BrokenManifest, read_manifest
from tciafs.selection import Manifest, Selection

_LARGEST = 100_000_000  # bytes: a million series and more


def selected(config: Config) -> Selection:
    """Return which part of the archive is shown; raise `BrokenManifest` where the manifest does not say."""
    if config.manifest is None:
        return config.selection
    uids = frozenset(read_manifest(_content(config.manifest)))
    return replace(config.selection, manifest=Manifest(str(config.manifest), uids))


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as exc:
        raise BrokenManifest(f"cannot be read ({exc.strerror}); name a .tcia, CSV or TSV that can") from exc
    if len(content) > _LARGEST:
        raise BrokenManifest("is larger than 100 MB, which no manifest is")
    return content
