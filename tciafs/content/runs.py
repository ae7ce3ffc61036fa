"""Where an object is read on and on, by however many readers: no I/O."""

from __future__ import annotations

from collections import deque

_NEAR_BYTES = 1 << 20  # the kernel sends several reads at once, not always in order
_KEPT = 16  # readers at different places


class Runs:
    """The ranges that were read in one go lately.

    Who reads beside another finds some of the bytes in the kernel, so that no single reader's are all.
    """

    def __init__(self) -> None:
        self._runs: deque[range] = deque(maxlen=_KEPT)

    def note(self, offset: int, size: int) -> range:
        """Join a read to those before it; return what they are together."""
        near = (run for run in self._runs if run.start <= offset <= run.stop + _NEAR_BYTES)
        before = next(near, None)
        if before is None:
            run = range(offset, offset + size)
        else:
            self._runs.remove(before)
            run = range(before.start, max(before.stop, offset + size))
        self._runs.appendleft(run)
        return run
