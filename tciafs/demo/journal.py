"""Remembers what was asked: counts per endpoint, the requests in order, and how many were open at once."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_IMAGES = ("/getSingleImage", "/getImage", "/getImageWithMD5Hash")
_REMEMBERED = 50_000  # a demonstration may run for days


class Journal:
    """The requests since the last reset; those still open then go on counting as open."""

    def __init__(self) -> None:
        self._open = Counter[str]()
        self.reset()

    def reset(self) -> None:
        """Forget all that is over."""
        self.counts = Counter[str]()
        self.requests = deque[str](maxlen=_REMEMBERED)
        self.high_water = dict(+self._open)

    @contextmanager
    def request(self, endpoint: str, line: str) -> Iterator[Callable[[], None]]:
        """Count a request as open until its answer is given up, or `end` is called; "*" is all endpoints,
        "images" those that send images.

        The end must be told before the client can know: its next request may be here at once.
        """
        self.counts[endpoint] += 1
        self.requests.append(line)
        names = [endpoint, "*", *(["images"] if endpoint.endswith(_IMAGES) else [])]
        for name in names:
            self._open[name] += 1
            self.high_water[name] = max(self.high_water.get(name, 0), self._open[name])
        is_open = [True]

        def end() -> None:
            if is_open:
                is_open.clear()
                for name in names:
                    self._open[name] -= 1

        try:
            yield end
        finally:
            end()
