"""Which endpoints a server has said it lacks, kept beside its cache and asked again after a week.

Only the server's own "HTTP 404" or "HTTP 405" teaches this: what a listing looks like may never
depend on a request that happened to fail.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

logger = logging.getLogger(__name__)

_BELIEVED_SECONDS = 7 * 24 * 3600


class Capabilities:
    """The endpoints that one server lacks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lacking = _read(path)

    def lacks(self, endpoint: str) -> bool:
        """Tell whether the server said within the last week that it has no such endpoint."""
        age = time.time() - self._lacking.get(endpoint, 0.0)
        return 0 <= age < _BELIEVED_SECONDS  # a time to come was written under a clock that went wrong

    def note_lacking(self, endpoint: str) -> None:
        """Remember that the server has no such endpoint: in this mount only where the disk is full."""
        logger.info("the archive has no %s: its fallback is used for a week", endpoint)
        self._lacking[endpoint] = time.time()
        beside = self._path.with_name(f"{self._path.name}.part-{os.getpid()}")
        try:
            beside.write_text(json.dumps(self._lacking))
            beside.replace(self._path)
        except OSError as exc:
            logger.info("%s cannot be written: %s", self._path.name, exc)


def _read(path: Path) -> dict[str, float]:
    try:
        found = json.loads(path.read_bytes())
        return {str(endpoint): float(when) for endpoint, when in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError, OverflowError, RecursionError) as exc:
        logger.info("%s is not readable (%s): the archive is asked anew", path.name, exc)
        return {}
