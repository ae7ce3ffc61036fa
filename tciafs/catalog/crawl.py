"""Notices who walks through a collection, and asks for its studies and series in whole then.

Whoever looks at a few patients costs a request for each listing; whoever looks at all of them would cost
thousands. An answer in whole is something beside: it is believed where it is complete, whoever cannot wait
for it asks for what they need, and where it fails it costs nothing but itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from tciafs.archives.base import Archive
from tciafs.catalog.difference import Put
from tciafs.catalog.rows import Node
from tciafs.catalog.staged import Staged, bring
from tciafs.catalog.store import Store
from tciafs.flights import Flight, Flights
from tciafs.model import Collection, Kind, Patient, Series, Study

_HEAD_START = 1.0  # for how long a listing waits for the answer in whole, before it is asked for itself
_PATIENCE = 5.0  # of all listings together: a walk is not to be slower than by single requests
_SILENT_SECONDS = 2.0

IsListed = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a walk is one: `patients` of a collection asked for, each within `seconds` of the one before.

    A collection of more than `series` is asked for in whole only when the walk has proved itself: when
    `proof` patients, or the `share` of all, were asked for one by one. `pause`: between two answers. Up to
    `few_series` are asked for anew in whole, though most may not have changed.
    """

    patients: float = 3
    seconds: float = 10.0
    series: int = 200_000
    series_a_patient: int = 10  # taken for granted as long as nobody has counted
    proof: int = 500
    share: float = 0.05
    pause: float = 60.0
    few_series: int = 5_000


NEVER = Thresholds(patients=math.inf)
FIRST_BATCH = 5_000  # images


@dataclass(slots=True)
class Walk:
    """A walk through one collection: who was asked for in it, and what is asked in whole for it."""

    collection: str
    patients: set[str] = field(default_factory=set)
    last_at: float = -math.inf
    required: float = 0  # patients, before it is asked in whole
    not_before: float = -math.inf
    series_count: int | None = None
    answer: Flight[None] | None = None
    patience: float = 0.0
    moved_at: float = -math.inf
    moved: trio.Event = field(default_factory=trio.Event)
    images: int = FIRST_BATCH  # of the next batch
    unlooked: list[frozenset[int]] = field(default_factory=list)  # batches of series, until one is looked at
    under_way: set[Flight[None]] = field(default_factory=set)  # each brings a batch

    @property
    def is_asked(self) -> bool:
        """Tell whether an answer in whole is under way."""
        return self.answer is not None and not self.answer.is_done

    @property
    def is_silent(self) -> bool:
        """Tell whether nothing of the answer has come for a while."""
        return trio.current_time() - self.moved_at > _SILENT_SECONDS

    def note_moved(self) -> None:
        """Wake up who waits for what came."""
        self.moved_at = trio.current_time()
        self.moved.set()
        self.moved = trio.Event()


class Crawls:
    """The walks through an archive's collections.

    `note` is told what was listed; a listing older than `ttl` seconds is listed anew.
    """

    def __init__(
        self,
        archive: Archive,
        store: Store,
        flights: Flights[None],
        ttl: float,
        note: Callable[[Put], None],
        thresholds: Thresholds,
    ) -> None:
        self._archive = archive
        self._store = store
        self._flights = flights
        self._ttl = ttl
        self._note = note
        self._thresholds = thresholds
        self._walks: dict[str, Walk] = {}

    def walk_through(self, collection: str) -> Walk | None:
        """Return the walk through a collection, where there is one."""
        walk = self._walks.get(collection)
        if walk is None or len(walk.patients) < self._thresholds.patients or self._is_over(walk):
            return None
        return walk

    def note_look(self, node: Node) -> None:
        """Let a walk last while somebody looks."""
        if isinstance(node.record, Patient | Study | Series):
            walk = self.walk_through(node.record.collection)
            if walk:
                walk.last_at = trio.current_time()

    def note_request(self, node: Node) -> None:
        """Note that something of a patient must be asked for."""
        if not isinstance(node.record, Patient | Study | Series):
            return
        walk = self._walks.setdefault(node.record.collection, Walk(node.record.collection))
        if self._is_over(walk):
            walk.patients.clear()
            walk.required, walk.series_count, walk.images = self._thresholds.patients, None, FIRST_BATCH
        walk.patients.add(node.record.patient_id)
        walk.last_at = trio.current_time()

    def is_asked_in_whole(self, node: Node) -> bool:
        """Tell whether an answer in whole is under way that has the listing: begun now, if it should be."""
        walk = self.walk_through(node.record.collection) if isinstance(node.record, Patient | Study) else None
        if walk is None or walk.is_asked:
            return walk is not None
        now = trio.current_time()
        if len(walk.patients) < walk.required or now < walk.not_before:
            return False
        walk.moved_at, walk.not_before, walk.patience = now, now + self._thresholds.pause, _PATIENCE
        what = f"the studies and series of {walk.collection} in whole"
        walk.answer = self._flights.join(
            ("whole", walk.collection), what, lambda _: self._ask(walk, node.kind)
        )
        return True

    async def has_brought(self, node: Node, is_listed: IsListed) -> bool:
        """Tell whether an answer in whole brought the listing; wait for it a second, while it comes."""
        if not isinstance(node.record, Patient | Study) or not self.is_asked_in_whole(node):
            return False
        walk = self._walks[node.record.collection]
        began = trio.current_time()
        with trio.move_on_after(min(_HEAD_START, walk.patience)):
            while walk.is_asked and not walk.is_silent and not await is_listed():
                await walk.moved.wait()
        walk.patience = max(0.0, walk.patience - (trio.current_time() - began))
        return await is_listed()

    def _is_over(self, walk: Walk) -> bool:
        return trio.current_time() - walk.last_at > self._thresholds.seconds

    async def _ask(self, walk: Walk, kind: Kind) -> None:
        """Ask for a collection's studies, and its series where their number is known to be bearable.

        `kind` is that of what somebody looks at. Where the patients are listed, no studies are asked for.
        """
        parent = self._store.inode_of(Collection(walk.collection))
        older_than = time.time() - self._ttl
        note = partial(self._tell, walk)
        try:
            patients, unlisted = await self._store.count_unlisted(parent, older_than)
            are_listed = unlisted < self._thresholds.patients
            guess = patients * self._thresholds.series_a_patient
            if (are_listed and kind is Kind.PATIENT) or not self._is_proved(walk, patients, guess):
                return
            if walk.series_count is None and not are_listed:
                answer = self._archive.open_studies(walk.collection)
                staged = Staged(self._store, Study, older_than)
                walk.series_count = await bring(staged, answer, note, parent)
            if walk.series_count is None or self._is_proved(walk, patients, walk.series_count):
                staged = Staged(self._store, Series, older_than)
                await bring(staged, self._archive.open_series_of(walk.collection), note)
        finally:
            walk.note_moved()

    def _is_proved(self, walk: Walk, patients: int, series: int) -> bool:
        """Tell whether the collection is small enough, or the walk long enough; else it goes on."""
        if series < self._thresholds.series:
            return True
        walk.required = min(self._thresholds.proof, math.ceil(self._thresholds.share * patients))
        walk.not_before = -math.inf
        return len(walk.patients) >= walk.required

    def _tell(self, walk: Walk, put: Put) -> None:
        walk.moved_at = trio.current_time()
        self._note(put)
        if put.listed:
            walk.note_moved()
