"""The agreement to an archive's Data Usage Policy: needed once, kept with its date in a file of its own."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime

import platformdirs

from tciafs.config import Config


class Agreement:
    """What this user agreed to for the archive of a mount."""

    def __init__(self, config: Config) -> None:
        self.archive_name = config.archive_name
        self.is_needed = not config.is_loopback
        self.path = platformdirs.user_state_path("tciafs") / "data-usage-policy" / config.archive_name
        self._url = config.url

    @property
    def day(self) -> date | None:
        """Return the day of the agreement, None where there is none or its file says none."""
        try:
            return date.fromisoformat(self.path.read_bytes()[:10].decode())
        except (OSError, ValueError):
            return None

    @property
    def is_missing(self) -> bool:
        """Tell whether it is needed and was not given yet."""
        return self.is_needed and self.day is None

    def record(self) -> None:
        """Keep that it was given today; raise `OSError` where that cannot be written."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = self.path.with_name(f".{self.path.name}.part-{os.getpid()}")
        beside.write_text(f"{datetime.now(UTC).date()} agreed to the Data Usage Policy for {self._url}\n")
        beside.replace(self.path)
