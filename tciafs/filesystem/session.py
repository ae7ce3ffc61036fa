"""The kernel's requests as they reach pyfuse3: several in one turn of trio, where several have come.

pyfuse3 lets trio wait before each request, and trio looks at its files once a turn. While many
transfers run a turn takes milliseconds, and each request would wait for two of them.
"""

from __future__ import annotations

import select
from functools import cache
from types import SimpleNamespace
from typing import Any

import pyfuse3
import trio


def take_at_once() -> None:
    """Let pyfuse3 take a request that has come without waiting for it; before `pyfuse3.main`.

    pyfuse3 knows trio by a name of its own, in which its support for asyncio puts another module, too.
    """
    lowlevel = SimpleNamespace(**vars(trio.lowlevel) | {"wait_readable": _wait_readable})
    setattr(pyfuse3, "trio", SimpleNamespace(**vars(trio) | {"lowlevel": lowlevel}))  # noqa: B010 (not told)


async def _wait_readable(fd: int) -> None:
    """Return once the file can be read; others have had their turn while pyfuse3 waited for a lock."""
    if not _poll_of(fd).poll(0):
        await trio.lowlevel.wait_readable(fd)


@cache
def _poll_of(fd: int) -> Any:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return poll
