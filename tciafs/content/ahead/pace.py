"""How fast this connection is: what one request costs, and how many bytes a second one brings: no I/O."""

from __future__ import annotations

_WEIGHT = 0.3  # of the latest transfer
_SMALLEST = 4_096  # bytes; what is smaller tells nothing of a speed
# NBIA's deflate makes CT and MR images about half as large; what a ZIP cannot bring of too large a share,
# single images do from its end on, but they leave nothing to a ZIP that could bring more.
_ZIP_RATIO = 2.5
_ZIP_SPEED = 25e6  # bytes of images a second that a server's one thread deflates, at best


class Pace:
    """A running average over transfers of single images."""

    def __init__(self) -> None:
        self.latency = 0.0  # seconds from the request to the first byte
        self.speed = 0.0  # bytes a second from there on
        self._is_known = False

    def note(self, latency: float, seconds: float, size: int) -> None:
        """Take one transfer into account: `seconds` from its first byte to its last."""
        if size < _SMALLEST:
            return
        speed = size / max(seconds, 1e-4)
        weight = _WEIGHT if self._is_known else 1.0
        self.latency += weight * (latency - self.latency)
        self.speed += weight * (speed - self.speed)
        self._is_known = True

    def seconds(self, size: float) -> float:
        """Return how long a single image of `size` bytes takes, as far as is known."""
        return self.latency + size / self.speed if self._is_known else 1.0

    def zip_share(self, size: float, transfers: int) -> float:
        """Return what share of a series, images of `size` bytes, one ZIP brings beside `transfers` others."""
        if not self._is_known:
            return 0.0
        packed = min(self.speed * _ZIP_RATIO, _ZIP_SPEED)
        single = transfers * size / self.seconds(size)
        return packed / (packed + single)
