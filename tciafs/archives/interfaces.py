"""NBIA's interfaces: what is asked where in each, and which of them a server has (nbia-api 1, 2.1, 4, 5).

Each has the same lists. Older ones spell dates and a few columns otherwise, which `wire` reads as they
come; what they lack altogether is named here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio

from tciafs.archives.base import Unsupported
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.http import Http
from tciafs.archives.search import SEARCH
from tciafs.archives.wire import CollectionRow
from tciafs.config import without_password

T = TypeVar("T")

_COLLECTIONS = "getCollectionValues"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One interface, with the unversioned endpoints that are asked beside it; None is what it lacks."""

    version: str
    md5: str
    md5_parameter: str
    carts: str
    search: str | None = None
    series_metadata: str | None = None  # of many series at once
    series_md5: str | None = None
    study_drill_down: str | None = None  # knows database keys, where there is no search
    drill_downs: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()
    licenses: str | None = None
    zips_md5s: bool = False
    changes: tuple[str, ...] = ()  # by submission, and by release

    def path(self, name: str) -> str:
        """Return where an endpoint is that every interface has."""
        return f"{self.version}/{name}"


V4 = Interface(
    version="v4",
    md5="v4/getMD5HashForImage",
    md5_parameter="SOPInstanceUID",
    carts="v1/getContentsByName",  # v4 has none, and its clients ask v1
    search=SEARCH,
    series_metadata="v4/getSeriesMetadata",
    series_md5="v4/getMD5Hierarchy",
    # Both tell the same; v4 fails on a batch with an image that has no instance number (4.1).
    drill_downs=("getImageDrillDown", "v4/getImageDrillDown"),
    # The first alone tells the licence (2.3).
    descriptions=("getCollectionDescriptions", "v4/getCollectionDescriptions"),
    licenses="getLicenses",
    zips_md5s=True,
    changes=("v4/NewStudiesInPatientCollection", "v4/getUpdatedSeries"),
)
V2 = Interface(
    version="v2",
    md5="v2/getM5HashForImage",  # (sic)
    md5_parameter="SOPInstanceUid",
    carts="v2/getContentsByName",
    study_drill_down="getStudyDrillDownWithSeriesIds",
    drill_downs=("getImageDrillDown",),
    descriptions=("getCollectionDescriptions",),
    licenses="getLicenses",
)
V1 = Interface(
    version="v1",
    md5="v1/getM5HashForImage",
    md5_parameter="SOPInstanceUid",
    carts="v1/getContentsByName",
)
CHOICES = {"auto": (V4, V2, V1), "v4": (V4,), "v2": (V2,), "v1": (V1,)}


class Interfaces:
    """The interface to ask: the one that was chosen, or the first that the server does not say it lacks."""

    def __init__(self, http: Http, capabilities: Capabilities, choices: Sequence[Interface]) -> None:
        self._http = http
        self._capabilities = capabilities
        self._choices = choices
        self._there: set[Interface] = set()
        self._finding = trio.Lock()

    @property
    def current(self) -> Interface:
        """Return the interface that is asked next."""
        lacks = self._capabilities.lacks
        return next((each for each in self._choices if not lacks(each.version)), self._choices[-1])

    async def ask(self, question: Callable[[Interface], Awaitable[T]]) -> T:
        """Return the answer to a question, put to the next interface where the server lacks one."""
        while True:
            interface = self.current
            try:
                return await question(interface)
            except Unsupported:
                if not await self.lacks(interface):
                    raise

    async def lacks(self, interface: Interface) -> bool:
        """Tell whether a server that lacks an endpoint lacks the whole interface, and remember that.

        Only where another interface answers instead: else it is no NBIA, or not at this address, and
        `Unsupported` says so.
        """
        if len(self._choices) == 1 or interface in self._there:
            return False
        async with self._finding:
            if self._capabilities.lacks(interface.version):
                return True
            lacking = []
            for each in self._choices[self._choices.index(interface) :]:
                if await self._answers(each):
                    break
                lacking.append(each)
            else:
                versions = ", ".join(each.version for each in lacking)
                where = without_password(self._http.base_url)
                raise Unsupported(f"no interface of NBIA ({versions}) is at {where}: mend --archive")
            for each in lacking:
                self._capabilities.note_lacking(each.version)
            return interface in lacking

    async def _answers(self, interface: Interface) -> bool:
        if interface not in self._there:
            try:
                await self._http.get_json(interface.path(_COLLECTIONS), {}, list[CollectionRow])
            except Unsupported:
                return False
            self._there.add(interface)
        return True
