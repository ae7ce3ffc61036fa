"""Series summed up by collection, and the table that shows it."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tciafs.cli.places import printable
from tciafs.model import Series

_COLUMNS = ("Collection", "Patients", "Studies", "Series", "Images", "Size")
_WIDE = 1_000  # columns where no terminal says how many there are


@dataclass(frozen=True, slots=True)
class Total:
    """How much there is of something; `None` is not known."""

    patients: int
    studies: int | None = None
    series: int | None = None
    images: int | None = None
    bytes: int | None = None

    @classmethod
    def of(cls, series: Sequence[Series]) -> Total:
        """Sum up series; the same PatientID in two collections is two patients."""
        return cls(
            len({(one.collection, one.patient_id) for one in series}),
            len({(one.collection, one.patient_id, one.study_instance_uid) for one in series}),
            len(series),
            sum(one.image_count for one in series),
            sum(one.file_size or 0 for one in series),
        )

    def as_dict(self) -> dict[str, int]:
        """Return what is known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def by_collection(series: Iterable[Series]) -> dict[str, Total]:
    """Sum up series by collection, in the order of names."""
    grouped: dict[str, list[Series]] = {}
    for one in series:
        grouped.setdefault(one.collection, []).append(one)
    return {name: Total.of(grouped[name]) for name in sorted(grouped)}


def table(totals: Mapping[str, Total], total: Total) -> str:
    """Return a table for people, with the sum of all below where there are several rows."""
    from rich import box  # only who asks for the table pays for it
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = [name for name in _COLUMNS if name in ("Collection", "Patients") or total.series is not None]
    shown = Table(box=box.SIMPLE_HEAD, show_footer=len(totals) > 1, show_edge=False, pad_edge=False)
    sums = [f"{len(totals):,} collections", *_cells(total)]
    for name, footer in zip(columns, sums, strict=False):
        is_name = name == "Collection"
        justify: Any = "left" if is_name else "right"
        shown.add_column(name, footer, justify=justify, no_wrap=not is_name, overflow="fold")
    for name, each in totals.items():
        shown.add_row(*map(Text, [printable(name), *_cells(each)][: len(columns)]))
    written = io.StringIO()
    is_terminal = sys.stdout.isatty()
    console: Any = Console(
        file=written, width=None if is_terminal else _WIDE, force_terminal=is_terminal, highlight=False
    )
    console.print(shown)
    return "\n".join(line.rstrip() for line in written.getvalue().strip("\n").splitlines())


def _cells(total: Total) -> list[str]:
    from rich.filesize import decimal

    numbers = [total.patients, total.studies, total.series, total.images]
    told = ["" if number is None else f"{number:,}" for number in numbers]
    return [*told, "" if total.bytes is None else decimal(total.bytes)]
