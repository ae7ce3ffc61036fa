"""A chart of times as plain SVG: horizontal bars, one group a profile, a scale of its own each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

_WIDTH, _LABELS, _VALUES = 720, 230, 90
_BAR, _GAP, _HEADING = 18, 7, 26
_OWN, _OTHER, _TEXT, _FAINT = "#0b6e99", "#b9c4cc", "#1f2933", "#66737f"


def chart(title: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Return an SVG; each group maps what was measured to seconds. What is infinite was given up."""
    parts, y = [], 34
    for heading, bars in groups.items():
        if heading:
            parts.append(_text(16, y + 14, heading, _FAINT))
            y += _HEADING
        longest = max((value for value in bars.values() if math.isfinite(value)), default=1.0)
        for label, value in bars.items():
            parts.append(_bar(y, label, value, longest))
            y += _BAR + _GAP
        y += _GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" viewBox="0 0 {_WIDTH} {y}"'
        f' font-family="sans-serif" font-size="13" role="img" aria-label="{escape(title)}">'
        f'<rect width="{_WIDTH}" height="{y}" fill="#ffffff"/>'
    )
    return "\n".join([head, _text(16, 22, title, _TEXT, weight="bold"), *parts, "</svg>", ""])


def _bar(y: int, label: str, value: float, longest: float) -> str:
    is_own = "drive" in label or label.startswith("--")
    room = _WIDTH - _LABELS - _VALUES
    width = max(1.0, room * (value / longest if math.isfinite(value) else 1.0))
    told = duration(value)
    paint = _OWN if is_own else _OTHER
    rect = f'<rect x="{_LABELS}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2" fill="{paint}"/>'
    return "\n".join(
        [
            _text(_LABELS - 8, y + 13, label, _TEXT, anchor="end"),
            rect,
            _text(int(_LABELS + width + 6), y + 13, told, _TEXT),
        ]
    )


def _text(x: int, y: int, text: str, colour: str, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x}" y="{y}" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )


def duration(value: float) -> str:
    """Spell seconds with the unit that suits them."""
    if not math.isfinite(value):
        return "given up"
    return (
        f"{value * 1e3:.1f} ms" if value < 0.1 else f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.1f} s"
    )
