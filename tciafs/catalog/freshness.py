"""How long listings are believed, and how old one is: no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tciafs.model import Kind


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long listings are believed, in seconds, and how long anybody waits for one.

    `pause`: for how long an expired listing is not asked for again after that has failed.
    """

    collections: float = 24 * 3600
    listings: float = 6 * 3600
    instances: float = 30 * 24 * 3600
    deadline: float = 15.0
    pause: float = 60.0

    @property
    def trust(self) -> float:
        """Return for how long a listing may hold that is not asked for anew, but not told to have changed."""
        return 3 * self.instances

    def ttl(self, kind: Kind) -> float:
        """Return how long the listing of a directory of `kind` is believed."""
        return {Kind.ROOT: self.collections, Kind.SERIES: self.instances}.get(kind, self.listings)


@dataclass(frozen=True, slots=True)
class Age:
    """When a directory was listed (seconds since 1970), and in how many seconds that expires or did."""

    listed_at: float
    expires_in: float

    @classmethod
    def of_all(cls, ages: Sequence[Age]) -> Age:
        """Return the age of what several listings tell together: it expires with the first."""
        return cls(max(age.listed_at for age in ages), min(age.expires_in for age in ages))
