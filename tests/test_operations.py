"""The handlers called as the kernel calls them, and one mount inside this process with a fault in it."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pyfuse3
import pytest
import trio

from tciafs.archives.base import ArchiveError, BadAnswer, Overdue, Refused, Unavailable
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.http import Http
from tciafs.archives.nbia import NBIA
from tciafs.catalog.attribution import Attributions
from tciafs.catalog.catalog import Catalog
from tciafs.catalog.freshness import Freshness
from tciafs.catalog.store import Store
from tciafs.catalog.terms import TermsStore
from tciafs.content.cache import Cache
from tciafs.content.content import Content
from tciafs.content.index import Index
from tciafs.content.limits import Limits
from tciafs.content.place import Place
from tciafs.filesystem.attributes import Appearance, absent, kept_seconds
from tciafs.filesystem.errors import errno_of
from tciafs.filesystem.operations import Operations
from tciafs.filesystem.texts import Texts
from tciafs.filesystem.tree import CONTROL_INODES, Stale, Tree
from tciafs.model import ROOT_INODE, alias_inode
from tciafs.names import Layout
from tests.archive import EmbeddedArchive
from tests.drive import require_fuse

CONTEXT = pyfuse3.RequestContext()
ROOT = pyfuse3.InodeT(ROOT_INODE)


def broken() -> bytes:
    raise KeyError("a fault of ours")


@asynccontextmanager
async def operations(room: Path, url: str, freshness: Freshness | None = None) -> AsyncIterator[Operations]:
    """Wire the rooms as a mount does, with a control file that is broken."""
    async with Http.connect(url) as http:
        archive = NBIA("test", http, Capabilities(room / "capabilities.json"))
        with (
            closing(Store.open(room / "catalog", "test", Layout.DESCRIPTIVE)) as store,
            closing(Index.open(room / "index")) as index,
        ):
            async with trio.open_nursery() as nursery:
                catalog = Catalog(archive, store, nursery, freshness)
                place = Place(Cache(room / "cache"), index, Limits(room, 1 << 40, keep_free=0))
                content = Content(archive, place, nursery)
                controls: dict[str, Callable[[], bytes]] = {"hello": lambda: b"hello\n", "broken": broken}
                appearance = Appearance(1, 2)
                texts = Texts(Attributions(archive, TermsStore(store.database), catalog, nursery), appearance)
                yield Operations(Tree(catalog, content, appearance, texts, controls), content)
                nursery.cancel_scope.cancel()


async def walk(fs: Operations, *names: str) -> pyfuse3.EntryAttributes:
    """Look up a path from the root."""
    attr = await fs.getattr(ROOT, CONTEXT)
    for name in names:
        attr = await fs.lookup(attr.st_ino, name.encode(), CONTEXT)
        assert attr.st_ino, name
    return attr


async def first_file(fs: Operations) -> tuple[pyfuse3.InodeT, pyfuse3.EntryAttributes]:
    """Return a series of the phantom's patient and its first file."""
    inode = (await walk(fs, "Demo-CT", "PHANTOM-01")).st_ino
    for _ in range(2):
        inode = (await fs._tree.directory(inode)).entries[-1][1].st_ino
    return inode, (await fs._tree.directory(inode)).entries[0][1]


async def raised(call: Callable[[], object]) -> int:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await call()  # type: ignore[misc]
    return caught.value.errno


async def test_a_file_is_found_opened_read_and_closed(tmp_path: Path, archive: EmbeddedArchive):
    async with operations(tmp_path, archive.url) as fs:
        _, attr = await first_file(fs)
        opened = await fs.open(attr.st_ino, os.O_RDONLY, CONTEXT)
        assert opened.keep_cache
        whole = bytes(await fs.read(opened.fh, 0, attr.st_size + 5))
        assert len(whole) == attr.st_size
        assert bytes(await fs.read(opened.fh, 100, 50)) == whole[100:150]
        assert bytes(await fs.read(opened.fh, attr.st_size, 50)) == b""
        await fs.release(opened.fh)
        assert fs.counts["release"] == 1


async def test_dot_and_dot_dot_are_found(tmp_path: Path, archive: EmbeddedArchive):
    async with operations(tmp_path, archive.url) as fs:
        collection = await walk(fs, "Demo-CT")
        patient = await walk(fs, "Demo-CT", "PHANTOM-01")
        assert (await fs.lookup(patient.st_ino, b".", CONTEXT)).st_ino == patient.st_ino
        assert (await fs.lookup(patient.st_ino, b"..", CONTEXT)).st_ino == collection.st_ino
        assert (await fs.lookup(ROOT, b"..", CONTEXT)).st_ino == ROOT_INODE


@pytest.mark.says(
    "A name is absent when a complete listing does not have it, and the kernel believes that for a "
    "minute at most.",
)
async def test_absence_is_remembered_by_the_kernel_for_a_minute(tmp_path: Path, archive: EmbeddedArchive):
    async with operations(tmp_path, archive.url) as fs:
        attr = await fs.lookup(ROOT, b"no such collection", CONTEXT)
        assert (attr.st_ino, attr.entry_timeout) == (0, 60.0)


async def test_absence_from_an_expired_listing_is_not_remembered(tmp_path: Path, archive: EmbeddedArchive):
    async with operations(tmp_path, archive.url, Freshness(collections=0)) as fs:
        await walk(fs, "Demo-CT")
        assert await raised(lambda: fs.lookup(ROOT, b"no such collection", CONTEXT)) == errno.ENOENT


async def test_a_symbolic_link_is_told_by_its_inode_number_alone(tmp_path: Path, archive: EmbeddedArchive):
    async with operations(tmp_path, archive.url) as fs:
        series, _ = await first_file(fs)
        link = pyfuse3.InodeT(alias_inode(series))
        attr = await fs.getattr(link, CONTEXT)
        target = await fs.readlink(link, CONTEXT)
        assert attr.st_size == len(target)
        assert await raised(lambda: fs.readlink(series, CONTEXT)) == errno.ESTALE


async def test_an_inode_number_that_nothing_has_is_stale(tmp_path: Path, archive: EmbeddedArchive):
    async with operations(tmp_path, archive.url) as fs:
        nobody = pyfuse3.InodeT(123_456)
        assert await raised(lambda: fs.getattr(nobody, CONTEXT)) == errno.ESTALE
        assert await raised(lambda: fs.getattr(pyfuse3.InodeT(CONTROL_INODES[-1]), CONTEXT)) == errno.ESTALE
        assert await raised(lambda: fs.lookup(nobody, b"x", CONTEXT)) == errno.ESTALE


async def test_files_are_no_directories_and_directories_no_files(tmp_path: Path, archive: EmbeddedArchive):
    async with operations(tmp_path, archive.url) as fs:
        series, attr = await first_file(fs)
        assert await raised(lambda: fs.open(series, os.O_RDONLY, CONTEXT)) == errno.EISDIR
        assert await raised(lambda: fs.opendir(attr.st_ino, CONTEXT)) == errno.ENOTDIR
        assert await raised(lambda: fs.lookup(attr.st_ino, b"x", CONTEXT)) == errno.ENOTDIR


async def test_a_cached_file_that_is_cut_while_open_is_an_error_and_no_short_read(
    tmp_path: Path, archive: EmbeddedArchive
):
    async with operations(tmp_path, archive.url) as fs:
        _, attr = await first_file(fs)
        opened = await fs.open(attr.st_ino, os.O_RDONLY, CONTEXT)
        (stored,) = (path for path in (tmp_path / "cache" / "objects").rglob("*") if path.is_file())
        os.truncate(stored, 1000)
        assert bytes(await fs.read(opened.fh, 0, 1000))
        assert await raised(lambda: fs.read(opened.fh, 500, 1000)) == errno.EIO
        await fs.release(opened.fh)


async def test_control_files_are_read_whole_and_counted_nowhere(tmp_path: Path, archive: EmbeddedArchive):
    async with operations(tmp_path, archive.url) as fs:
        directory = await walk(fs, ".tciafs")
        attr = await walk(fs, ".tciafs", "hello")
        assert attr.st_size == 6
        before = fs.counts.copy()
        opened = await fs.open(attr.st_ino, os.O_RDONLY, CONTEXT)
        assert opened.direct_io
        assert bytes(await fs.read(opened.fh, 1, 100)) == b"ello\n"
        await fs.release(opened.fh)
        assert (await fs.lookup(directory.st_ino, b"nothing", CONTEXT)).st_ino == 0
        assert (await fs.lookup(directory.st_ino, b"..", CONTEXT)).st_ino == directory.st_ino
        assert fs.counts == before
        assert archive.requests() == {}


@pytest.mark.alarming
async def test_what_nobody_foresaw_is_an_error_and_a_traceback(
    tmp_path: Path, archive: EmbeddedArchive, caplog: pytest.LogCaptureFixture
):
    async with operations(tmp_path, archive.url) as fs:
        directory = await walk(fs, ".tciafs")
        assert await raised(lambda: fs.lookup(directory.st_ino, b"broken", CONTEXT)) == errno.EIO
        assert await raised(lambda: fs.releasedir(pyfuse3.FileHandleT(99))) == errno.EIO
    assert "KeyError: 'a fault of ours'" in caplog.text


@pytest.mark.says(
    "A fault of the program's own costs one EIO, and the mount lives on.",
)
@pytest.mark.alarming
async def test_a_mount_survives_what_nobody_foresaw(tmp_path: Path, archive: EmbeddedArchive):
    require_fuse()
    drive = tmp_path / "drive"
    drive.mkdir()

    def look() -> tuple[int | None, bytes, set[str]]:
        number = None
        try:
            (drive / ".tciafs" / "broken").read_bytes()
        except OSError as exc:
            number = exc.errno
        return number, (drive / ".tciafs" / "hello").read_bytes(), set(os.listdir(drive))

    async with operations(tmp_path, archive.url) as fs:
        pyfuse3.init(fs, str(drive), {"ro", "subtype=tciafs", *pyfuse3.default_options})
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pyfuse3.main)
                with trio.fail_after(20):
                    seen = await trio.to_thread.run_sync(look, abandon_on_cancel=True)
                pyfuse3.terminate()
        finally:
            pyfuse3.close(unmount=True)
    shown = {"DATA-USAGE-POLICY.txt", "Demo-CT", "Demo MR", "Demo-Mixed"}
    assert seen == (errno.EIO, b"hello\n", shown)


async def test_listings_read_in_parts_are_whole(
    tmp_path: Path, archive: EmbeddedArchive, monkeypatch: pytest.MonkeyPatch
):
    """Only `readdir_reply` is replaced: its token is an object of the kernel's making."""
    shown: list[tuple[bytes, int]] = []

    def reply(token: object, name: bytes, attr: pyfuse3.EntryAttributes, next_id: int) -> bool:
        if len(shown) >= room:
            return False
        shown.append((name, next_id))
        return True

    monkeypatch.setattr(pyfuse3, "readdir_reply", reply)
    async with operations(tmp_path, archive.url) as fs:
        series, _ = await first_file(fs)
        fh = await fs.opendir(series, CONTEXT)
        room = 1_000
        await fs.readdir(fh, 0, None)  # type: ignore[arg-type]
        whole = list(shown)
        assert [name for name, _ in whole[:3]] == [b".", b"..", b"1-001.dcm"]
        assert [number for _, number in whole] == list(range(1, len(whole) + 1))
        for room in (1, 2, 7):  # noqa: B007 -- `reply` sees it
            parts: list[tuple[bytes, int]] = []
            while True:
                shown.clear()
                await fs.readdir(fh, parts[-1][1] if parts else 0, None)  # type: ignore[arg-type]
                if not shown:
                    break
                parts += shown
            assert parts == whole
        await fs.releasedir(fh)


def test_the_table_of_errors():
    told = {
        Overdue("late"): errno.ETIMEDOUT,
        Refused("no"): errno.EACCES,
        Unavailable("down"): errno.EIO,
        BadAnswer("odd"): errno.EIO,
        ArchiveError("any"): errno.EIO,
        Stale(5): errno.ESTALE,
        NotADirectoryError(5): errno.ENOTDIR,
        IsADirectoryError(5): errno.EISDIR,
        OSError(errno.ENOSPC, "full"): errno.EIO,
    }
    assert {exc: errno_of(exc, "open") for exc in told} == told


def test_the_kernel_keeps_nothing_for_longer_than_it_holds():
    assert [kept_seconds(seconds) for seconds in (1e9, 3600, 60, 0.5, -10)] == [3600, 3600, 60, 1, 1]
    assert absent(5.0).st_ino == 0


async def test_a_file_opened_again_is_found_without_the_disk(tmp_path: Path, archive: EmbeddedArchive):
    async with operations(tmp_path, archive.url) as fs:
        _, attr = await first_file(fs)
        await fs.release((await fs.open(attr.st_ino, os.O_RDONLY, CONTEXT)).fh)
        with closing(sqlite3.connect(tmp_path / "catalog")) as catalog:
            catalog.execute("DELETE FROM files")
            catalog.commit()
        await fs.release((await fs.open(attr.st_ino, os.O_RDONLY, CONTEXT)).fh)
        fs._tree._catalog._lately.forget()
        assert await raised(lambda: fs.open(attr.st_ino, os.O_RDONLY, CONTEXT)) == errno.ESTALE
