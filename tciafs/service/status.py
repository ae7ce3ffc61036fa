"""What a mount is doing, and with which settings: the files of `.tciafs`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tciafs import __version__
from tciafs.archives.nbia import NBIA
from tciafs.config import GUEST, Config, without_password
from tciafs.content.content import Content
from tciafs.filesystem.operations import Operations
from tciafs.selection import Selection
from tciafs.service.effective import effective
from tciafs.service.metrics import metrics


class Status:
    """The parts of a mount that have something to tell."""

    def __init__(self, config: Config, selection: Selection, archive: NBIA, content: Content) -> None:
        self._config = config
        self._selection = selection
        self._nbia = archive
        self._http = archive.http
        self._content = content
        self._began = time.monotonic()
        self.operations: Operations | None = None
        self.socket: Path | None = None

    def control_files(self) -> dict[str, Callable[[], bytes]]:
        """Return the files of `.tciafs` by name."""
        return {
            "status.json": self.as_json,
            "errors.log": self.errors_log,
            "metrics": lambda: metrics(self.as_dict()),
            "config.toml": lambda: effective(self._config),
        }

    def errors_log(self) -> bytes:
        """Return the last 1,000 causes of an error that a reader saw."""
        return self.operations.causes.as_text() if self.operations else b""

    def as_json(self) -> bytes:
        """Return the status as one JSON object."""
        return json.dumps(self.as_dict(), indent=2).encode() + b"\n"

    def as_dict(self) -> dict[str, Any]:
        """Return the status: counts are those since the mount began."""
        return {
            "version": __version__,
            "archive": self._archive(),
            "mount": self._mount(),
            "requests": dict(self._http.requests),
            "cache": self._cache(),
            "transfers": self._transfers(),
            "fuse": dict(self.operations.counts) if self.operations else {},
        }

    def _archive(self) -> dict[str, Any]:
        return {
            "name": self._config.archive_name,
            "url": without_password(self._config.url),
            "api": self._nbia.api,
            "account": self._config.login_account or GUEST,
            "state": self._http.state,
            "since": self._http.since,
            "last_error": self._http.last_error,
        }

    def _mount(self) -> dict[str, Any]:
        return {
            "mountpoint": str(self._config.mountpoint),
            "layout": str(self._config.layout),
            "selection": self._selection.as_dict(),
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._began, 1),
            "socket": str(self.socket) if self.socket else None,
        }

    def _cache(self) -> dict[str, Any]:
        limits, counts = self._content.place.limits, self._content.counts
        return {
            "directory": str(self._config.archive_dir),
            "files": limits.files,
            "bytes": limits.used,
            "limit_bytes": limits.limit,
            "evictions": limits.evictions,
            "hits": counts.hits,
            "misses": counts.misses,
        }

    def _transfers(self) -> dict[str, Any]:
        counts = self._content.counts
        return {
            "active": self._content.active,
            "completed": counts.completed,
            "failed": counts.failed,
            "bytes": counts.bytes,
        }
