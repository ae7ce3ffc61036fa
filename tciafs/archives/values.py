"""The values in NBIA's JSON rows: numbers may be text, v1 writes dates as timestamps and v4 as MM-DD-YYYY."""

from __future__ import annotations

import re
from datetime import date

Text = str | int | float | None
Number = int | float | None

_LARGEST = 2**63  # of a bigint, and of what SQLite keeps
_YEAR_FIRST = re.compile(r"(\d{4})-(\d\d)-(\d\d)")
_YEAR_LAST = re.compile(r"(\d\d)-(\d\d)-(\d{4})$")


def text(value: Text) -> str | None:
    """Return the text as the archive spells it, without what no file may hold: lone surrogates."""
    if value is None or value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).encode("utf-8", "replace").decode()


def whole(value: Number) -> int | None:
    """Return the number as an integer, None for one that no column of NBIA's can hold, such as "NaN"."""
    return int(value) if value is not None and abs(value) < _LARGEST else None


def day(value: Text) -> date | None:
    """Return the date of either spelling, None for anything that is no date."""
    spelled = str(value or "")
    if match := _YEAR_FIRST.match(spelled):
        year, month, day_of_month = match.groups()
    elif match := _YEAR_LAST.match(spelled):
        month, day_of_month, year = match.groups()
    else:
        return None
    try:
        return date(int(year), int(month), int(day_of_month))
    except ValueError:
        return None
