"""The kernel's requests (pyfuse3 handlers): each finds its row, answers, and ends in an answer or an errno.

Whatever waits, waits in `opendir`, `lookup` and `open`: the kernel has only a few READs of a mount
under way at once, so `read` takes what is on disk.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import FileHandleT, FileInfo, FUSEError, InodeT, RequestContext

from tciafs.content.content import Content
from tciafs.content.handle import Handle
from tciafs.filesystem.errors import Causes, errno_of, is_told
from tciafs.filesystem.reads import Reads
from tciafs.filesystem.tree import CONTROL_DIRECTORY, CONTROL_INODES, Directory, Tree
from tciafs.filesystem.xattrs import NAMESPACE as XATTR_NAMESPACE

P = ParamSpec("P")
R = TypeVar("R")

_BLOCK = 4096
_HANDLES = itertools.count(1)


def answering(
    handler: Callable[Concatenate[Operations, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Operations, P], Coroutine[Any, Any, R]]:
    """Let a handler end in an answer or a FUSEError: any other exception would end the whole mount."""

    @wraps(handler)
    async def answer(self: Operations, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(self, *args, **kwargs)
        except FUSEError:
            raise
        except Exception as exc:
            number = errno_of(exc, handler.__name__)
            if is_told(number):
                await self.note_cause(handler.__name__, args, number, exc)
            raise FUSEError(number) from exc

    return answer


class Operations(pyfuse3.Operations):
    """A read-only file system over a `Tree`."""

    def __init__(
        self, tree: Tree, content: Content, has_xattrs: bool = True, reads: Reads | None = None
    ) -> None:
        """Note in `reads` what readers are given."""
        super().__init__()
        self._has_xattrs = has_xattrs
        self._reads = reads or Reads()
        self._unread: dict[int, tuple[str, int]] = {}  # open files of series that nobody has read yet
        self.counts: Counter[str] = Counter()
        self.begun = trio.Event()
        self.causes = Causes()
        self._tree = tree
        self._content = content
        self._directories: dict[int, Directory] = {}
        self._files: dict[int, Handle] = {}
        self._inodes: dict[int, int] = {}  # of the open files
        self._texts: dict[int, bytes] = {}

    def init(self) -> None:
        """Note that the kernel and libfuse are about to agree on their limits (fuse INIT)."""
        self.begun.set()

    @answering
    async def lookup(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> pyfuse3.EntryAttributes:
        """Find a name (fuse LOOKUP)."""
        if name != CONTROL_DIRECTORY:
            self._count("lookup", parent_inode)
        attr = await self._tree.lookup(parent_inode, name)
        if attr.st_ino == 0 and attr.entry_timeout == 0:
            raise FUSEError(errno.ENOENT)
        return attr

    @answering
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> pyfuse3.EntryAttributes:
        """Return attributes (fuse GETATTR)."""
        self._count("getattr", inode)
        return await self._tree.attributes(inode)

    @answering
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> bytes:
        """Return where a symbolic link points (fuse READLINK)."""
        self._count("readlink", inode)
        return await self._tree.target(inode)

    @answering
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """Take the listing that this handle will show, however often it is read (fuse OPENDIR)."""
        self._count("opendir", inode)
        directory = await self._tree.directory(inode)
        fh = next(_HANDLES)
        self._directories[fh] = directory
        return FileHandleT(fh)

    @answering
    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Show the listing from a position on, 0 being the start (fuse READDIRPLUS)."""
        directory = self._directories[fh]
        self._count("readdir", directory.inode)
        if start_id < 2 and not self._show_dots(directory, start_id, token):
            return
        first = max(start_id - 2, 0)
        for number, (name, attr) in enumerate(itertools.islice(directory.entries, first, None), first + 3):
            if not pyfuse3.readdir_reply(token, name, attr, number):
                return

    def _show_dots(self, directory: Directory, start_id: int, token: pyfuse3.ReaddirToken) -> bool:
        for number, (name, inode) in enumerate(((b".", directory.inode), (b"..", directory.parent)), 1):
            if number > start_id:
                attr = self._tree.dot(inode)
                if not pyfuse3.readdir_reply(token, name, attr, number):
                    return False
        return True

    @answering
    async def releasedir(self, fh: FileHandleT) -> None:
        """Forget a directory handle (fuse RELEASEDIR)."""
        del self._directories[fh]

    @answering
    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        """Return once the file is there, whole and verified, or a large one arrives (fuse OPEN)."""
        self._count("open", inode)
        if (text := await self._tree.text(inode)) is not None:
            return self._open_text(inode, text)
        opened = await self._tree.open(inode)
        fh = next(_HANDLES)
        self._files[fh] = opened.handle
        self._inodes[fh] = inode
        if not self._reads.note_opened_again(uid := opened.instance.series_instance_uid):
            self._unread[fh] = uid, opened.series
        if opened.is_resized:
            # attr_only never waits for the kernel; it may have forgotten the inode meanwhile.
            with contextlib.suppress(FileNotFoundError):
                pyfuse3.invalidate_inode(inode, attr_only=True)
        return FileInfo(fh=FileHandleT(fh), keep_cache=opened.handle.keep_cache)

    def _open_text(self, inode: InodeT, text: bytes) -> FileInfo:
        """Hold the text as it is now; with direct_io, a size that was another cuts nothing off."""
        fh = next(_HANDLES)
        self._texts[fh] = text
        self._inodes[fh] = inode
        return FileInfo(fh=FileHandleT(fh), direct_io=True)

    @answering  # pyfuse3 takes any contiguous buffer, whatever its annotation says: a copy less
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes | memoryview:  # type: ignore[override]
        """Return exactly the bytes asked for, fewer only at the end of the file (fuse READ)."""
        if fh in self._texts:
            return self._texts[fh][off : off + size]
        self.counts["read"] += 1
        found = await self._files[fh].read(off, size)
        if self._unread and (series := self._unread.pop(fh, None)):
            self._reads.note_read(*series)
        return found

    @answering
    async def release(self, fh: FileHandleT) -> None:
        """Close a file (fuse RELEASE)."""
        self._count("release", self._inodes.pop(fh))
        self._unread.pop(fh, None)
        if self._texts.pop(fh, None) is None:
            self._files.pop(fh).close()

    @answering
    async def getxattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> bytes:
        """Return an extended attribute (fuse GETXATTR)."""
        if not self._has_xattrs:
            raise FUSEError(errno.ENOSYS)  # the kernel does not ask again
        if not name.startswith(XATTR_NAMESPACE):
            raise FUSEError(errno.EOPNOTSUPP)  # coreutils do not ask again for another file of the drive
        self._count("getxattr", inode)
        value = (await self._tree.extended_attributes(inode)).get(name)
        if value is None:
            raise FUSEError(pyfuse3.ENOATTR)
        return value

    @answering
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[bytes]:
        """Return the names of the extended attributes (fuse LISTXATTR)."""
        if not self._has_xattrs:
            raise FUSEError(errno.ENOSYS)
        self._count("listxattr", inode)
        return list(await self._tree.extended_attributes(inode))

    @answering
    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        """Return what is cached as what is used; nothing is free on a read-only drive (fuse STATFS)."""
        self.counts["statfs"] += 1
        files, size = await self._content.totals()
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = answer.f_frsize = _BLOCK
        answer.f_blocks = -(-size // _BLOCK)
        answer.f_files = files
        answer.f_namemax = 255
        return answer

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Do nothing: no object here stands for an inode (fuse FORGET)."""

    async def note_cause(
        self, operation: str, arguments: Sequence[object], number: int, exc: Exception
    ) -> None:
        """Keep the cause of an error, with the path at which it happened, for `.tciafs/errors.log`."""
        where, *more = arguments
        inode = self._inodes.get(int(str(where)), 0) if operation == "read" else int(str(where))
        try:
            path = os.fsdecode(await self._tree.path(inode))
        except Exception as lost:  # the error may be that the path cannot be told
            path = f"inode {inode} ({type(lost).__name__})"
        if operation == "lookup":
            path = f"{path}/{os.fsdecode(bytes(more[0]))}"  # type: ignore[call-overload]
        self.causes.note(operation, path, number, exc)

    def _count(self, operation: str, inode: int) -> None:
        if inode not in CONTROL_INODES:
            self.counts[operation] += 1
