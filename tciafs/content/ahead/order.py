"""How far somebody reads a series in order, and how much of it is worth fetching ahead: no I/O."""

from __future__ import annotations

_STEP = 4  # readers beside each other open a little out of order
_BEHIND = 64  # opens so far behind the front are those of a slower reader, or the same file once more
_WHOLE_AFTER = 8
_WIDEST = 32
_WIDEST_BEFORE_WHOLE = 8  # keeps all transfers busy; a ZIP sends once more what came before it


class Order:
    """The opens of one series, by position in the order of its names."""

    def __init__(self) -> None:
        self.front = -1
        self._length = 0

    def note(self, position: int) -> None:
        """Count an open: one a little after the front goes on in order, one elsewhere begins anew."""
        if self._length and self.front - _BEHIND <= position <= self.front:
            return
        is_next = self._length and position <= self.front + _STEP and position > self.front
        self._length = self._length + 1 if is_next else 1
        self.front = position

    @property
    def window(self) -> int:
        """Return how many instances after the front to fetch: 0, then 2 to 32 while opens go in order."""
        widest = _WIDEST if self.is_whole else _WIDEST_BEFORE_WHOLE
        return min(1 << (self._length - 1), widest) if self._length > 1 else 0

    @property
    def is_whole(self) -> bool:
        """Tell whether so many were opened in order that the whole series will be."""
        return self._length >= _WHOLE_AFTER
