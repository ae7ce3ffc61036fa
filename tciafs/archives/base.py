"""What every archive can be asked, and the few ways in which it can fail."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from tciafs.model import Collection, Description, Instance, Patient, Series, Study, Terms
from tciafs.selection import Selection

TRANSFERS = 8  # objects under way at once from one archive
SERVER_BYTES_PER_SECOND = 10e6  # an archive reads a whole file before it sends a head (nbia-api 3.1)


class ArchiveError(Exception):
    """Say in one line what was asked and what went wrong; each subclass is one meaning."""


class Unavailable(ArchiveError):
    """The network or the archive is down or overloaded: worth another try, after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overdue(ArchiveError):
    """No answer came within the deadline; the fetch runs on, and whoever asks next joins it."""


class Refused(ArchiveError):
    """The archive knows who asks, or does not, and says no."""


class Unsupported(ArchiveError):
    """The archive has no such endpoint, by its own word."""


class Failed(ArchiveError):
    """The archive's own code failed on this question: asking again rarely helps, asking otherwise may."""


class BadAnswer(ArchiveError):
    """The archive answered, but the answer cannot be believed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a series that comes as a whole; `chunks` must be read before the next entry."""

    name: str
    chunks: AsyncIterator[bytes]


class SeriesStream(Protocol):
    """All files of a series in one answer, which does not say whose each one is."""

    @property
    def md5s(self) -> Mapping[str, str]:
        """Return the archive's MD5s by entry name, as far as they have come: often at the end alone."""
        ...

    def entries(self) -> AsyncGenerator[Entry, None]:
        """Yield the images in the order of their InstanceNumbers; a cut answer may lack some."""
        ...


class Archive(Protocol):
    """A source of records and bytes.

    Every method raises a subclass of `ArchiveError`; none keeps a deadline for its caller, and all
    may be cancelled at any await. Listings are complete or an error, in no order.
    """

    name: str
    has_ranges: bool

    async def get_collections(self) -> list[Collection]:
        """Return all collections."""
        ...

    async def confirm_right(self, collection: str) -> None:
        """Raise `Refused` where it is asked with a login, whose account does not see a collection."""
        ...

    async def get_patients(self, collection: str) -> list[Patient]:
        """Return all patients of a collection."""
        ...

    async def get_studies(self, collection: str, patient_id: str) -> list[Study]:
        """Return all studies of a patient."""
        ...

    async def get_series(self, collection: str, patient_id: str) -> list[Series]:
        """Return all series of a patient, whatever their study."""
        ...

    async def get_description(self, collection: str) -> Description:
        """Return what the archive says of a collection as a whole; an empty one where it says nothing."""
        ...

    async def get_terms(self, collection: str) -> Mapping[Terms, int]:
        """Count all series of a collection by their terms; raise `BadAnswer` where they are too many."""
        ...

    def open_studies(self, collection: str) -> AbstractAsyncContextManager[AsyncIterator[list[Study]]]:
        """Stream all studies of a collection, some at a time: all of them, or an error at the end.

        A record may come twice.
        """
        ...

    def open_series_of(self, collection: str) -> AbstractAsyncContextManager[AsyncIterator[list[Series]]]:
        """Stream all series of a collection, as `open_studies` does its studies."""
        ...

    def open_changed(
        self, collection: str, after: date
    ) -> AbstractAsyncContextManager[AsyncIterator[list[Study]]]:
        """Stream the studies with a series that was submitted or released after a day, without descriptions.

        Series that were withdrawn are not told. Raise `Unsupported` where the archive does not know.
        """
        ...

    async def get_instances(
        self, wanted: Series, others: Sequence[Series] = ()
    ) -> Mapping[str, list[Instance] | ArchiveError]:
        """Return the instances of `wanted`, and of those of `others` that cost no request more.

        Keys are SeriesInstanceUIDs; `wanted` is always among them. One bad series never costs the others.
        """
        ...

    async def find_collections(self, selection: Selection) -> list[Collection]:
        """Return the collections with a series that is selected by what it is: none is an answer, too."""
        ...

    async def find_patients(self, selection: Selection) -> list[Patient]:
        """Return the patients that are selected, and where series are, have such a one; perhaps none."""
        ...

    async def find_series(self, uids: Iterable[str]) -> list[Series]:
        """Return those of the series that the archive has; perhaps none."""
        ...

    async def get_cart(self, name: str) -> list[Series]:
        """Return the series of a shared cart; none where there is no such cart."""
        ...

    async def get_modalities(self) -> list[str]:
        """Return the modalities that series of the archive have."""
        ...

    async def get_body_parts(self) -> list[str]:
        """Return the body parts that series of the archive have."""
        ...

    def open_instance(
        self, instance: Instance, span: range | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream the bytes of an instance; those in `span` only, where `has_ranges`."""
        ...

    async def get_md5(self, instance: Instance) -> str | None:
        """Return the archive's MD5 of the instance in 32 hex digits, None where it has none."""
        ...

    def open_series(self, series_instance_uid: str) -> AbstractAsyncContextManager[SeriesStream]:
        """Stream all instances of a series, packed by the archive.

        Raise `Unsupported` where it cannot.
        """
        ...

    async def get_series_md5(self, series_instance_uid: str) -> str | None:
        """Return the MD5 of the sorted hex MD5s of a series' instances; None where there is none."""
        ...
