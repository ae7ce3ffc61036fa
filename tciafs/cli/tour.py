"""What `tciafs demo` shows of a drive: its tree at a glance, a header, a slice as a picture."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import click
import numpy as np
import pydicom
from PIL import Image

_FILES_SHOWN = 3
_SERIES_LOOKED_AT = 30
_HEADER = ("PatientID", "Modality", "StudyDate", "SeriesDescription", "Rows", "Columns", "SOPInstanceUID")


def tour(drive: Path) -> None:
    """Print the tree, and the header and the picture's place of the longest series' middle image."""
    longest: list[Path] = []
    for collection in filter(Path.is_dir, _sorted(drive)):
        click.echo(f"{collection.name}/")
        files = _longest_series(collection)
        for depth, directory in enumerate(list(files[0].relative_to(collection).parents)[-2::-1], 1):
            click.echo(f"{'    ' * depth}{directory.name}/")
        for file in files[:_FILES_SHOWN]:
            click.echo(f"{'    ' * 4}{file.name}  {file.stat().st_size:,} bytes")
        if len(files) > _FILES_SHOWN:
            click.echo(f"{'    ' * 4}… and {len(files) - _FILES_SHOWN} more")
        longest = max(longest, files, key=len)
    middle = longest[len(longest) // 2]
    dataset = pydicom.dcmread(middle)
    click.echo(f"\nThe header of {middle.relative_to(drive)}:")
    for keyword in _HEADER:
        click.echo(f"    {keyword:18} {dataset.get(keyword, '')}")
    click.echo(f"\nIts picture: {_picture(dataset)}")


def _longest_series(collection: Path) -> list[Path]:
    """Return the files of the longest of a collection's first series."""
    some = itertools.islice(collection.glob("*/*/*"), _SERIES_LOOKED_AT)
    return max((_sorted(series) for series in some), key=len)


def _sorted(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def _picture(dataset: pydicom.Dataset) -> str:
    """Write the slice as a PNG, and return where; or why it has no picture."""
    try:
        pixels = np.asarray(dataset.pixel_array, dtype=np.float64)
    except (AttributeError, NotImplementedError, RuntimeError, ValueError) as exc:
        return f"none, since it has no pixels that can be shown ({exc})"
    while pixels.ndim > 2:  # frames or colours
        pixels = pixels[0] if pixels.shape[-1] not in (3, 4) else pixels[..., 0]
    low, high = np.percentile(pixels, (1, 99.5))
    grey = np.clip((pixels - low) / max(high - low, 1.0), 0, 1) * 255
    with tempfile.NamedTemporaryFile(prefix="tciafs-slice-", suffix=".png", delete=False) as file:
        Image.fromarray(grey.astype(np.uint8)).save(file, format="PNG")
    return file.name
