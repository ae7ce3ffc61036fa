"""One mount's life as one nest of contexts: archive, catalog, content, kernel; inside out at the end.

The process that serves a mount never touches the mount: it would wait for itself.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import trio

from tciafs.archives.capabilities import Capabilities
from tciafs.archives.nbia import NBIA
from tciafs.catalog.attribution import Attributions
from tciafs.catalog.catalog import Catalog
from tciafs.catalog.freshness import Freshness
from tciafs.catalog.selected import SelectedCatalog
from tciafs.catalog.store import Store
from tciafs.catalog.terms import TermsStore
from tciafs.config import Config
from tciafs.content.cache import Cache, NotOurs, claim
from tciafs.content.content import Content
from tciafs.content.handle import Patience
from tciafs.content.index import Index
from tciafs.content.limits import INDEX_NAME, Limits
from tciafs.content.place import Place
from tciafs.database import Database, Lost
from tciafs.filesystem.attributes import Appearance
from tciafs.filesystem.operations import Operations
from tciafs.filesystem.session import IDLE_WORKERS, take_at_once
from tciafs.filesystem.texts import Texts
from tciafs.filesystem.tree import Tree
from tciafs.manifest import BrokenManifest
from tciafs.selection import Selection
from tciafs.service import systemd
from tciafs.service.commands import Commands
from tciafs.service.control import Control, listening
from tciafs.service.journal import NAME as JOURNAL_NAME
from tciafs.service.journal import Journal
from tciafs.service.kernel import Kernel, kernel_limit, raise_limits
from tciafs.service.lists import selected
from tciafs.service.login import connected
from tciafs.service.mountinfo import is_dead, mount_at, take_away
from tciafs.service.status import Status

logger = logging.getLogger(__name__)

_TASKS = 10_000  # each waiting request holds one; downloads have limits of their own
_ENDING = (signal.SIGTERM, signal.SIGINT)
_THREADS = 8  # that write and make durable: as many as there are transfers
# How long a thread that inflates or hashes may hold up the one that answers the kernel (5 ms as it comes).
_SWITCH_SECONDS = 0.0005
_COLLECTED_AFTER = 20_000  # objects: each image makes some thousands, nearly none of them in cycles
_NOTE_SECONDS = 60.0


class CannotMount(Exception):
    """The mount cannot begin; the message says why, and what mends it."""


def _collect_less_often() -> None:
    """Let the collector of cycles pass by what lives as long as the mount, and wait for more to be made."""
    gc.freeze()
    gc.set_threshold(_COLLECTED_AFTER, 20, 20)


async def serve(config: Config, announce: Callable[[], None]) -> None:
    """Mount, call `announce`, and serve until the mount is taken away or SIGTERM or SIGINT comes."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    _collect_less_often()
    check(config.mountpoint)
    if config.allow_other:
        check_allow_other()
    try:
        selection = selected(config)
        claim(config.cache_dir)
    except BrokenManifest as exc:
        raise CannotMount(f"--manifest {config.manifest}: {exc}") from exc
    except NotOurs as exc:
        raise CannotMount(str(exc)) from exc
    except OSError as exc:
        raise CannotMount(f"the cache {config.cache_dir} cannot be used: {exc.strerror}") from exc
    try:
        async with _parts(config, selection) as parts:
            with _mounted(config, parts), listening(mount_at(config.mountpoint)) as control:
                async with trio.open_nursery() as session:
                    # Before anyone may send one:
                    await session.start(_end_on_signal, parts.catalog, parts.content)
                    session.start_soon(_raise_limits, config, parts.operations)
                    session.start_soon(_keep_account, parts.content)
                    session.start_soon(parts.journal.keep_on)
                    session.start_soon(systemd.tell_when_ready, config)
                    if control:
                        listener, parts.status.socket = control
                        session.start_soon(parts.control.serve, listener)
                    announce()
                    await pyfuse3.main(min_tasks=IDLE_WORKERS, max_tasks=_TASKS)
                    systemd.notify(STOPPING=1, STATUS="the mount ends")
                    session.cancel_scope.cancel()
    except BaseExceptionGroup as group:  # trio's nurseries wrap what passes through them
        if expected := group.subgroup(CannotMount):
            raise CannotMount(str(_first_of(expected))) from group
        raise


def _first_of(exc: BaseException) -> BaseException:
    return _first_of(exc.exceptions[0]) if isinstance(exc, BaseExceptionGroup) else exc


def check(mountpoint: Path) -> None:
    """Raise `CannotMount` where nothing can be mounted."""
    there = mount_at(mountpoint)
    if there and there.is_ours and is_dead(mountpoint):
        logger.info("%s: the dead drive there is taken away", mountpoint)
        if why := take_away(mountpoint):
            raise CannotMount(f"{mountpoint}: the dead drive there cannot be taken away: {why}")
    elif there and there.is_ours:
        raise CannotMount(
            f"{mountpoint}: a tciafs drive is mounted there already; end it with 'tciafs umount {mountpoint}'"
        )
    if not mountpoint.is_dir():
        raise CannotMount(f"{mountpoint}: no such directory; make it with 'mkdir -p {mountpoint}'")
    device = Path("/dev/fuse")
    if not device.exists():
        raise CannotMount("/dev/fuse is not there: load the kernel's FUSE module with 'sudo modprobe fuse'")
    if not os.access(device, os.R_OK | os.W_OK):
        raise CannotMount("/dev/fuse may not be opened by you: mend it with 'sudo chmod 666 /dev/fuse'")


def check_allow_other() -> None:
    """Raise `CannotMount` where --allow-other is not for this user (mount.fuse3(8))."""
    setting = Path("/etc/fuse.conf")
    lines = setting.read_text().split("\n") if setting.exists() else []
    if os.getuid() != 0 and "user_allow_other" not in (line.strip() for line in lines):
        raise CannotMount(
            "--allow-other is for root, unless root allows it to all:"
            " echo user_allow_other | sudo tee -a /etc/fuse.conf"
        )


@dataclass(frozen=True, slots=True)
class _Parts:
    catalog: Catalog
    content: Content
    journal: Journal
    operations: Operations
    kernel: Kernel
    status: Status
    control: Control


@asynccontextmanager
async def _parts(config: Config, selection: Selection) -> AsyncIterator[_Parts]:
    """Build what serves a mount, in the order of the rooms; fetches end before what they write to."""
    trio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
    capabilities = Capabilities(config.archive_dir / "capabilities.json")
    async with connected(config) as http:
        with _kept(config) as (store, place, read):
            await trio.to_thread.run_sync(place.cache.remove_leftovers)
            await _remove_unknown(place)
            async with trio.open_nursery() as fetches:
                account = config.login_account
                archive = NBIA(config.archive_name, http, capabilities, config.api, account)
                kernel = Kernel()
                freshness = _freshness(config)
                catalog = SelectedCatalog(archive, store, fetches, selection, freshness, kernel.forget)
                content = _content(config, archive, place, fetches)
                status = Status(config, selection, archive, content)
                exact = config.sizes == "exact"
                appearance = _appearance(config)
                attributions = Attributions(archive, TermsStore(store.database), catalog, fetches)
                texts = Texts(attributions, appearance)
                controls = status.control_files()
                if catalog.listed:
                    controls["missing.txt"] = catalog.listed.missing_text
                    catalog.listed.find_behind()
                tree = Tree(catalog, content, appearance, texts, controls, exact)
                journal = Journal(read, catalog)
                has_xattrs = config.xattrs == "on"
                operations = status.operations = Operations(tree, content, has_xattrs, journal.reads)
                commands = Commands(catalog, journal, status.as_dict, freshness.deadline)
                control = Control(commands.by_name())
                yield _Parts(catalog, content, journal, operations, kernel, status, control)
                await content.note_used()
                await journal.keep()
                fetches.cancel_scope.cancel()


def _content(config: Config, archive: NBIA, place: Place, fetches: trio.Nursery) -> Content:
    return Content(
        archive,
        place,
        fetches,
        patience=Patience(config.deadline_bytes, kernel_limit()),
        verify_md5=config.verify == "md5",
        ahead=config.ahead == "on",
    )


@contextmanager
def _kept(config: Config) -> Iterator[tuple[Store, Place, Database]]:
    """Open what is kept on disk; raise `CannotMount` where it cannot be, as on a full disk."""
    directory = config.archive_dir
    with contextlib.ExitStack() as opened:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK | os.X_OK):  # SQLite would not say why
                raise PermissionError("it is read-only: give another --cache-dir")
            store = Store.open(directory / "catalog.sqlite", config.archive_name, config.layout)
            opened.callback(store.close)
            cache = Cache(directory)
            index = Index.open(directory / INDEX_NAME, cache.remove_all)
            opened.callback(index.close)
            read = Journal.open_file(directory / JOURNAL_NAME)
            opened.callback(read.close)
            limits = Limits(config.cache_dir, config.cache_size, config.keep_free / 100)
            opened.callback(limits.close)
        except (OSError, sqlite3.Error) as exc:
            raise CannotMount(f"the cache {config.cache_dir} cannot be used: {exc}") from exc
        yield store, Place(cache, index, limits), read


async def _remove_unknown(place: Place) -> None:
    """Remove all objects where an index that was removed by hand, or is lost now, knows of none."""
    try:
        known, _ = await place.index.totals()
    except Lost:
        known = 0
    if known == 0:
        await trio.to_thread.run_sync(place.cache.remove_all)


def _freshness(config: Config) -> Freshness:
    deadline = min(config.deadline_metadata, kernel_limit())
    return Freshness(config.ttl_collections, config.ttl_listings, config.ttl_instances, deadline)


def _appearance(config: Config) -> Appearance:
    uid = os.getuid() if config.uid is None else config.uid
    gid = os.getgid() if config.gid is None else config.gid
    return Appearance(uid, gid, config.umask)


@contextmanager
def _mounted(config: Config, parts: _Parts) -> Iterator[None]:
    """Hold the mount; it is taken away on leaving, whoever still uses it."""
    os.chdir("/")  # the daemon must hold no directory that the mount may cover
    try:
        pyfuse3.init(parts.operations, str(config.mountpoint), _options(config))
    except RuntimeError as exc:
        raise CannotMount(
            f"{config.mountpoint}: the kernel refused the mount ({exc}); what libfuse says of it stands above"
        ) from exc
    try:
        take_at_once()
        with parts.kernel.listening():
            yield
    finally:
        pyfuse3.close(unmount=True)


def _options(config: Config) -> set[str]:
    options = {"ro", "nosuid", "nodev", "noexec", "noatime", "subtype=tciafs"}
    if config.allow_other:
        options.add("allow_other")
    return options | set(pyfuse3.default_options) | {f"fsname={config.archive_name}"}


async def _raise_limits(config: Config, operations: Operations) -> None:
    await operations.begun.wait()  # what is set before, the answer to INIT replaces
    await trio.to_thread.run_sync(raise_limits, config.mountpoint)


async def _keep_account(content: Content) -> None:
    """Learn, once a minute, what all mounts of the cache keep, and let them see what is used here."""
    while True:
        await content.place.limits.count()
        await trio.sleep(_NOTE_SECONDS)
        await content.note_used()


async def _end_on_signal(
    catalog: Catalog, content: Content, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    # What the receiver leaves behind: a second signal must not kill what is taking the mount away.
    for each in _ENDING:
        signal.signal(each, signal.SIG_IGN)
    with trio.open_signal_receiver(*_ENDING) as signals:
        task_status.started()
        async for number in signals:
            logger.info("%s: the mount ends", signal.Signals(number).name)
            # Whoever waits for the archive must be answered first: terminate() waits for them.
            catalog.close()
            content.close()
            pyfuse3.terminate()
