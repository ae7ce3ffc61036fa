"""Who says that what came ahead is true: one question for each image that is wanted, one for all others.

Images that nobody waits for are kept apart, unread and unnamed, until the archive's digest of the
whole series, or the list at the end of its ZIP, has told that they are what it has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import trio

from tciafs.archives.base import Archive, ArchiveError
from tciafs.model import Instance

STAGED = 200  # of all series together: each holds two open files, and its reservation
_LONGEST_SECONDS = 60.0
_FEW = 3  # so many questions are not worth one more


class Staged:
    """How many images wait for their MD5, of all series together."""

    def __init__(self, limit: int = STAGED) -> None:
        self.limit = limit
        self.count = 0


class Confirmation:
    """The MD5s of one series, as far as they are needed."""

    def __init__(self, archive: Archive, staged: Staged | None = None) -> None:
        self._archive = archive
        self._staged = staged or Staged()
        self._hurried: set[str] = set()
        self._doubtful: set[str] = set()
        self._waiting: dict[str, trio.Event] = {}
        self._asking: dict[str, trio.CancelScope] = {}
        self._came: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._digests: list[str | None] = []  # of the series: one, once it was asked for

    def is_hurried(self, instance: Instance) -> bool:
        """Tell whether somebody is about to read the image, of which nothing is told yet."""
        uid = instance.sop_instance_uid
        return uid in self._hurried and uid not in self._told

    def note_came(self, instance: Instance, came: str) -> None:
        """Let the image, whose bytes have the MD5 `came`, count in the digest of its series."""
        self._came[instance.sop_instance_uid] = came

    async def promised_md5(self, instance: Instance, came: str) -> str | None:
        """Return the archive's MD5 of an image whose bytes have `came`, once somebody needs it."""
        uid = instance.sop_instance_uid
        self.note_came(instance, came)
        if uid not in self._hurried and uid not in self._doubtful and uid not in self._told:
            await self._wait(uid)
        if uid in self._told and uid not in self._doubtful:
            return self._told[uid]
        return await self._asked(instance)

    async def _asked(self, instance: Instance) -> str | None:
        """Ask for one MD5; where another answer tells it meanwhile, nobody waits for this one."""
        uid = instance.sop_instance_uid
        answers: list[str | None] = []
        try:
            with trio.CancelScope() as self._asking[uid]:
                answers.append(await self._archive.get_md5(instance))
        finally:
            del self._asking[uid]
        return answers[0] if answers else self._told[uid]

    async def _wait(self, uid: str) -> None:
        """Wait until somebody needs it, or where too many do, until the next one comes."""
        event = self._waiting[uid] = trio.Event()
        self._staged.count += 1
        try:
            if self._staged.count > self._staged.limit:
                self._release(next(iter(self._waiting)))
            with trio.move_on_after(_LONGEST_SECONDS):
                await event.wait()
        finally:
            self._staged.count -= 1

    def hurry(self, instances: Iterable[Instance]) -> None:
        """Ask for each of these as soon as it has come: somebody is about to read it."""
        for instance in instances:
            self._hurried.add(instance.sop_instance_uid)
            self._release(instance.sop_instance_uid)

    def doubt(self, instance: Instance) -> None:
        """Ask for this one by its UID: what came says another, and a digest of all cannot tell."""
        self._doubtful.add(instance.sop_instance_uid)

    def tell(self, md5s: Mapping[str, str]) -> None:
        """Take over what a list of the archive says, by SOPInstanceUID."""
        self._told.update(md5s)
        for uid in md5s:
            self._release(uid)
            if uid in self._asking and uid not in self._doubtful:
                self._asking[uid].cancel()

    async def ask(self, series_instance_uid: str) -> None:
        """Ask for the digest of the series, while the last images come, where it is worth a question."""
        if len(self._waiting) > _FEW and not self._digests:
            try:
                self._digests.append(await self._archive.get_series_md5(series_instance_uid))
            except ArchiveError:
                self._digests.append(None)

    async def settle(self, series_instance_uid: str, known: Mapping[str, str], count: int) -> None:
        """Confirm at once all that came, `known` and waiting together; where that fails, each is asked for.

        `count` is that of the series' instances: the archive's digest is that of all of them.
        """
        if len({**known, **self._came}) == count:
            await self.ask(series_instance_uid)
            self.compare(known, count)
        for uid in list(self._waiting):
            self._release(uid)

    def compare(self, known: Mapping[str, str], count: int) -> None:
        """Confirm all that came, `known` and waiting together, where the digest of the series is theirs."""
        came = {**known, **self._came}
        if len(came) == count and series_md5(came.values()) in self._digests:
            self.tell(came)

    def _release(self, uid: str) -> None:
        event = self._waiting.pop(uid, None)
        if event is not None:
            event.set()


def series_md5(md5s: Iterable[str]) -> str:
    """Return the digest of a series whose instances have `md5s` (NBIA v4/getMD5Hierarchy)."""
    return hashlib.md5("".join(sorted(md5s)).encode(), usedforsecurity=False).hexdigest()
