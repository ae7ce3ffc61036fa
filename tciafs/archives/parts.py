"""Several questions that are one: all answered, or the first failure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio

from tciafs.archives.base import ArchiveError

P = TypeVar("P")
R = TypeVar("R")


async def all_of(ask: Callable[[P], Awaitable[list[R]]], parts: Iterable[P]) -> list[R]:
    """Return what is answered to all parts, asked at once; how many are under way is the client's business.

    Raise the first `ArchiveError`; it ends the others.
    """
    answers: list[R] = []
    failures: list[ArchiveError] = []

    async def ask_one(part: P) -> None:
        try:
            answers.extend(await ask(part))
        except ArchiveError as exc:
            failures.append(exc)
            asking.cancel_scope.cancel()

    async with trio.open_nursery() as asking:
        for part in parts:
            asking.start_soon(ask_one, part)
    if failures:
        raise failures[0]
    return answers
