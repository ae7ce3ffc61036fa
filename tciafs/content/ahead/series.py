"""Bring a series ahead of its reader: the next images, or all: one ZIP from the front, single images beyond.

Both take what nobody brings yet: the ZIP whatever comes in it, the single images first what lies
behind the point where the two should meet, then backwards to the ZIP. Whatever each is worth on this
connection, they end together.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import trio

from tciafs.archives.base import TRANSFERS, Archive
from tciafs.content.ahead.confirm import Confirmation, Staged
from tciafs.content.ahead.feed import Delivery, Feed
from tciafs.content.ahead.header import sop_instance_uid
from tciafs.content.ahead.pace import Pace
from tciafs.model import Instance

logger = logging.getLogger(__name__)

TRANSFERS_AHEAD = TRANSFERS - 1  # one is always left for who waits
_REACH = 4  # images that are left to a ZIP that is about to bring them
_FEWEST_ZIPPED = 12  # a ZIP that brings fewer is not worth its request
_HURRIED = 8  # images whose MD5 is asked for before their reader comes
_TURN_SECONDS = 2.0
_TURNS = 6.0  # times as long as a single image takes, a ZIP's image is waited for


@dataclass(frozen=True, slots=True)
class Line:
    """The connection to an archive: who may use it ahead of readers, and what it is worth."""

    archive: Archive
    slots: trio.CapacityLimiter  # of all transfers
    lane: trio.CapacityLimiter  # of those that nobody waits for
    pace: Pace
    staged: Staged = field(default_factory=Staged)
    # One ZIP at a time: each takes a thread that inflates, which all others would wait for.
    zips: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))


class Way:
    """How one image comes ahead of its reader: out of the ZIP that is about to bring it, or alone."""

    def __init__(self, series: SeriesFetch, line: Line, delivery: Delivery | None = None) -> None:
        self.on_begun: Callable[[], None] = lambda: None
        self._series = series
        self._line = line
        self._delivery = delivery
        self._has_lane = False
        self._has_come = False
        self._has_ended = False

    async def take_lane(self) -> None:
        """Wait until one more transfer may begin that nobody waits for."""
        await self._line.lane.acquire_on_behalf_of(self)
        self._has_lane = True

    def leave_lane(self) -> None:
        """Let the next one begin."""
        if self._has_lane:
            self._has_lane = False
            self._line.lane.release_on_behalf_of(self)

    @asynccontextmanager
    async def open(self, instance: Instance) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream the bytes, once it is their turn."""
        try:
            delivery, self._delivery = self._delivery, None  # another attempt goes the other way
            if delivery and await delivery.begun(self._turn(instance)):
                self.on_begun()
                async with aclosing(delivery.chunks()) as chunks:
                    yield chunks
            else:
                if not self._has_lane:
                    await self.take_lane()
                async with self._line.slots:
                    self.on_begun()
                    async with self._alone(instance) as chunks:
                        yield chunks
        finally:
            self.leave_lane()
        self._note_come()

    def is_hurried(self, instance: Instance) -> bool:
        """Tell whether somebody is about to read the image."""
        return self._series.confirmation.is_hurried(instance)

    def note_came(self, instance: Instance, came: str) -> None:
        """Let the image count in the digest of its series."""
        self._series.confirmation.note_came(instance, came)

    async def promised_md5(self, instance: Instance, came: str) -> str | None:
        """Return the archive's MD5 of the image, once somebody needs it."""
        return await self._series.confirmation.promised_md5(instance, came)

    def end(self, sop_instance_uid: str, failure: BaseException | None) -> None:
        """Tell the series how its image has ended."""
        self.leave_lane()
        self._note_come()
        if not self._has_ended:
            self._has_ended = True
            self._series.note_end(sop_instance_uid, failure)

    def _turn(self, instance: Instance) -> float:
        size = instance.size or instance.estimate
        return max(_TURN_SECONDS, _TURNS * self._line.pace.seconds(size))

    @asynccontextmanager
    async def _alone(self, instance: Instance) -> AsyncIterator[AsyncIterator[bytes]]:
        began = trio.current_time()
        async with self._line.archive.open_instance(instance) as chunks:
            latency = trio.current_time() - began
            async with aclosing(self._checked(instance, chunks)) as checked:
                yield checked
            seconds = trio.current_time() - began - latency
            self._line.pace.note(latency, seconds, instance.size or 0)

    async def _checked(self, instance: Instance, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Pass the bytes on; where they say another UID, a digest of the whole series is not enough."""
        first = True
        async for chunk in chunks:
            if first and sop_instance_uid(chunk) != instance.sop_instance_uid:
                self._series.confirmation.doubt(instance)
            first = False
            yield chunk

    def _note_come(self) -> None:
        if not self._has_come:
            self._has_come = True
            self._series.note_come()


class SeriesFetch:
    """What is on its way of one series, in the order of its names."""

    def __init__(
        self,
        line: Line,
        images: Sequence[Instance],
        stored: Mapping[str, str],
        begin: Callable[[Instance, Way], bool],
        get_stored: Callable[[], Awaitable[Mapping[str, str]]],
    ) -> None:
        """Prepare to bring what of `images` is not `stored` (MD5s by SOPInstanceUID, read again at the end).

        `begin` starts the fetch of an image by a way, unless it is here or under way.
        """
        self.confirmation = Confirmation(line.archive, line.staged)
        self.failures: dict[str, BaseException] = {}  # by SOPInstanceUID
        self.finished = trio.Event()
        self._line = line
        self._images = images
        self._begin = begin
        self._uid = images[0].series_instance_uid
        self._claimed = {place for place, each in enumerate(images) if each.sop_instance_uid in stored}
        self._get_stored = get_stored
        self._wanted: deque[int] = deque()
        self._until = 0
        self._is_whole = False
        self._is_running = False
        self._feed: Feed | None = None
        self._coming = 0  # whose bytes are not here
        self._unended = 0  # which are not verified
        self._moved = trio.Event()

    @property
    def is_idle(self) -> bool:
        """Tell whether `run` must be started for what is wanted."""
        return bool(self._wanted) and not self._is_running

    @property
    def is_whole(self) -> bool:
        """Tell whether the whole series was asked for."""
        return self._is_whole

    @property
    def missing_bytes(self) -> int:
        """Return the size of what nobody has brought."""
        left = set(range(len(self._images))) - self._claimed
        return sum(self._images[position].size or self._images[position].estimate for position in left)

    def note_open(self, position: int) -> None:
        """Make ready what will be opened next: a reader is at `position`."""
        self._claimed.add(position)
        self.confirmation.hurry(self._images[position : position + _HURRIED])

    def want(self, first: int, until: int) -> None:
        """Bring the images from `first` to before `until`, as far as they were not wanted before."""
        until = min(until, len(self._images))
        added = range(max(self._until, first), until)
        self._wanted.extend(added)
        self.confirmation.hurry(self._images[position] for position in added)
        self._until = max(self._until, until)

    def want_all(self) -> None:
        """Bring the whole series."""
        self._is_whole = True
        count = len(self._images)
        share = self._zip_share()
        # What is here already comes in the ZIP, too, and before what is not.
        zipped = round((count - self._until) * share - self._until * (1 - share))
        # A ZIP comes in the order of the numbers, which is none of ours where nobody told them.
        is_in_order = any(image.instance_number is not None for image in self._images)
        if is_in_order and zipped >= _FEWEST_ZIPPED and self._line.zips.available_tokens:
            self._feed = Feed(self._line.archive, self._uid)
        meeting = self._until + (zipped if self._feed else 0)
        self._wanted.extend([*range(meeting, count), *range(meeting - 1, -1, -1)])
        self._until = count

    def note_started(self) -> None:
        """Count on `run` from now on."""
        self._is_running = True

    async def run(self) -> None:
        """Bring what is wanted."""
        try:
            async with trio.open_nursery() as nursery:
                while self._wanted:
                    feed, self._feed = self._feed, None
                    if feed:
                        nursery.start_soon(self._run_feed, feed)
                    await self._bring_next()
                if self._is_whole:
                    await self._confirm_early(nursery)
            if self._is_whole and not self.finished.is_set():
                await self._finish()
        finally:
            self._is_running = False

    def note_come(self) -> None:
        """Count an image whose bytes are here, or will not come."""
        self._coming -= 1
        self._move()

    def note_end(self, sop_instance_uid: str, failure: BaseException | None) -> None:
        """Count an image that is verified and kept, or failed."""
        self._unended -= 1
        if failure:
            self.failures[sop_instance_uid] = failure
        self._move()

    def _zip_share(self) -> float:
        size = sum(image.size or image.estimate for image in self._images) / len(self._images)
        return self._line.pace.zip_share(size, TRANSFERS_AHEAD - 1)

    async def _bring_next(self) -> None:
        """Begin the next image that nobody brings, once a transfer is free."""
        way = Way(self, self._line)
        await way.take_lane()
        while self._wanted:
            if self._claim(self._wanted.popleft(), way):
                return
        way.leave_lane()

    def _claim(self, position: int, way: Way) -> bool:
        if position in self._claimed:
            return False
        self._claimed.add(position)
        self._coming += 1
        self._unended += 1
        if self._begin(self._images[position], way):
            return True
        self._coming -= 1
        self._unended -= 1
        return False

    async def _run_feed(self, feed: Feed) -> None:
        try:
            self._line.zips.acquire_on_behalf_of_nowait(self)
        except trio.WouldBlock:  # another series' ZIP began meanwhile: single images bring all of this one
            return
        try:
            async with self._line.lane, self._line.slots:
                await feed.run(lambda: self._go_on(feed))
        finally:
            self._line.zips.release_on_behalf_of(self)
        self.confirmation.tell(feed.md5s)

    def _go_on(self, feed: Feed) -> bool:
        """Let the ZIP bring the next few images that nobody brings; tell whether it has any to bring."""
        for position in range(feed.position, min(feed.position + _REACH, len(self._images))):
            if position not in self._claimed:
                delivery = feed.expect(self._images[position].sop_instance_uid)
                if not self._claim(position, Way(self, self._line, delivery)):
                    feed.forget(self._images[position].sop_instance_uid)
        return feed.is_expected or len(self._claimed) < len(self._images)

    async def _confirm_early(self, nursery: trio.Nursery) -> None:
        """Ask for the digest of the series while the last images come, and compare it before the ZIP ends."""
        nursery.start_soon(self.confirmation.ask, self._uid)
        await self._come()
        self.confirmation.compare(await self._get_stored(), len(self._images))

    async def _come(self) -> None:
        while self._coming:
            await self._moved.wait()

    async def _finish(self) -> None:
        """See the series through to its end: complete and verified, or with what is missing told."""
        await self._come()
        await self.confirmation.settle(self._uid, await self._get_stored(), len(self._images))
        while self._unended:
            await self._moved.wait()
        if self.failures:
            uid, failure = next(iter(self.failures.items()))
            count = len(self.failures)
            logger.info("series %s: %d images are missing, such as %s: %s", self._uid, count, uid, failure)
        self.finished.set()

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()
