"""What stands between a user and a drive: each thing examined, with the command that mends it."""

from __future__ import annotations

import os
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trio

from tciafs.archives.base import ArchiveError
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.http import Http
from tciafs.archives.nbia import NBIA
from tciafs.config import Config
from tciafs.content.cache import is_ours
from tciafs.policy import LINK
from tciafs.service.agreement import Agreement
from tciafs.service.logins import CannotKeep, Logins
from tciafs.service.mountinfo import is_dead, our_mounts

_ARCHIVE_SECONDS = 15.0
_LEAST_FREE = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing examined: what was found, and where it is wrong, what mends it."""

    text: str
    remedy: str | None = None

    @property
    def is_well(self) -> bool:
        """Tell whether nothing needs to be mended."""
        return self.remedy is None


def examine(config: Config, proxy: str | None = None) -> Iterator[Finding]:
    """Yield what was found of this machine, of its drives, of the cache and of the archive."""
    url = config.url
    yield _fuse_device(Path("/dev/fuse"))
    yield _fusermount()
    yield from (_drive(mount.mountpoint) for mount in our_mounts())
    yield _cache(config.cache_dir)
    yield _policy(Agreement(config))
    yield _login(config.archive_name, Logins(config))
    yield _proxy(url, proxy)
    yield trio.run(_archive, config, proxy)


def _fuse_device(device: Path) -> Finding:
    if not device.exists():
        return Finding(f"{device} is not there", "sudo modprobe fuse")
    if not os.access(device, os.R_OK | os.W_OK):
        return Finding(f"{device} may not be opened by you", f"sudo chmod 666 {device}")
    return Finding(f"{device} can be opened")


def _fusermount() -> Finding:
    path = shutil.which("fusermount3")
    if path is None:
        return Finding("fusermount3 is not installed", "sudo apt-get install fuse3")
    return Finding(f"{path} is there")


def _drive(mountpoint: Path) -> Finding:
    if is_dead(mountpoint):
        return Finding(f"the drive at {mountpoint} is dead", f"tciafs umount {mountpoint}")
    return Finding(f"the drive at {mountpoint} is mounted")


def _cache(cache_dir: Path) -> Finding:
    there = next(path for path in (cache_dir, *cache_dir.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding(f"the cache {cache_dir} may not be written by you", f"sudo chown -R $USER {there}")
    if not there.is_dir():
        return Finding(f"{there} is a file, and no directory for a cache", "give another --cache-dir")
    if there == cache_dir and any(cache_dir.iterdir()) and not is_ours(cache_dir):
        return Finding(f"{cache_dir} is neither empty nor a cache of tciafs", "give another --cache-dir")
    free = shutil.disk_usage(there).free
    if free < _LEAST_FREE:
        return Finding(f"only {free / 1e6:,.0f} MB are free for the cache {cache_dir}", "tciafs cache clear")
    return Finding(f"the cache {cache_dir} has {free / 1e9:,.1f} GB of free disk")


def _policy(agreement: Agreement) -> Finding:
    what = f"the Data Usage Policy of {agreement.archive_name}"
    if not agreement.is_needed:
        return Finding("no Data Usage Policy needs to be agreed to for an archive on this machine")
    if agreement.day is None:
        return Finding(
            f"{what} is not agreed to yet",
            f"read {LINK}, and agree when 'tciafs mount' asks, or with --accept-data-usage-policy",
        )
    return Finding(f"{what} was agreed to on {agreement.day}")


def _login(archive_name: str, logins: Logins) -> Finding:
    try:
        account = logins.account
    except CannotKeep as exc:
        return Finding(str(exc), f"rm {logins.path}")
    if account is None:
        return Finding(f"nobody is logged in to {archive_name}: drives show what guests may see")
    return Finding(f"{account} is logged in to {archive_name}")


def _proxy(url: str, proxy: str | None) -> Finding:
    scheme, _, host = url.partition("://")
    found = proxy or urllib.request.getproxies().get(scheme)
    if found is None or urllib.request.proxy_bypass(host.partition("/")[0]):
        return Finding("no proxy is used")
    return Finding(f"the proxy {found.rpartition('@')[2]} is used")


async def _archive(config: Config, proxy: str | None) -> Finding:
    url = config.url
    known = Capabilities(config.archive_dir / "capabilities.json")
    remedy = f"see whether a browser reaches {url}, and set --proxy if your network needs one"
    try:
        async with Http.connect(url, proxy) as http:
            with trio.fail_after(_ARCHIVE_SECONDS):
                nbia = NBIA("doctor", http, known, config.api)
                collections = await nbia.get_collections()
    except trio.TooSlowError:
        return Finding(f"the archive {url} did not answer within {_ARCHIVE_SECONDS:.0f} s", remedy)
    except ArchiveError as exc:
        return Finding(f"the archive {url}: {exc}", remedy)
    if not collections:
        return Finding(f"the archive {url} lists no collections", "see whether the address is right")
    return Finding(f"the archive {url} has {len(collections)} collections ({nbia.api})")
