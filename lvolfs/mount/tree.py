"""The mounted tree: what pyfuse3 asks that is neither data nor an ioctl.

    volumes/NAME  snapshots/NAME  .lvolfs/{store.json,lvols.json,jobs.json,metrics,checksums/NAME}

Whatever changes the store, or may take long, runs in a thread; look-ups use the index.
"""

import errno
import itertools
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyfuse3

from lvolfs.delta import checksums
from lvolfs.lvstore.lvol import Lvol
from lvolfs.lvstore.store import Lvstore
from lvolfs.mount import index, xattrs
from lvolfs.mount.attributes import Attributes
from lvolfs.mount.errors import request
from lvolfs.mount.index import Index
from lvolfs.mount.late_releases import LateReleases
from lvolfs.mount.status_files import StatusFiles
from lvolfs.mount.threads import in_thread

if TYPE_CHECKING:
    from lvolfs._native.lane import Lane
    from lvolfs.lvstore.holds import OpenToken

# Replies through the lane's socket must fit an ordinary user's socket buffer.
MAX_READ = 128 * 1024


@dataclass
class OpenLvol:
    """A native handle of the lane."""

    lvol: Lvol
    token: "OpenToken"


class Tree(pyfuse3.Operations):
    """Request handlers. `mountpoint` is absolute; shared: mounted with allow_other."""

    supports_dot_lookup = True
    enable_writeback_cache = False

    def __init__(
        self,
        store: Lvstore,
        lane: "Lane",
        mountpoint: str,
        status_files: StatusFiles,
        *,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.store = store
        self.lane = lane
        self.mountpoint = mountpoint
        self.index = Index(store)
        self.attributes = Attributes(shared=shared)
        self.open_lvols: dict[int, OpenLvol] = {}
        self._status_files = status_files
        self._texts: dict[int, bytes] = {}
        self._directories: dict[int, list[tuple[bytes, int]]] = {}
        self._handles = itertools.count(1)
        self.releases = LateReleases(self.open_lvols)

    # -- names

    def _status_inode(self, name: bytes) -> int | None:
        return next((i for i, known in index.STATUS_FILES.items() if known == name), None)

    def _child(self, parent: int, name: bytes) -> int | None:
        """The inode of a name in a directory."""
        if name == b".":
            return parent
        if name == b"..":
            return index.CONTROL if parent == index.CHECKSUMS else index.ROOT
        if parent == index.ROOT:
            names = {
                b"volumes": index.VOLUMES,
                b"snapshots": index.SNAPSHOTS,
                b".lvolfs": index.CONTROL,
            }
            return names.get(name)
        if parent == index.CONTROL:
            return index.CHECKSUMS if name == b"checksums" else self._status_inode(name)
        if parent == index.CHECKSUMS:
            lvol = self.index.snapshots.get(name)
            return None if lvol is None else lvol.id | index.CHECKSUM_FILE
        if parent in (index.VOLUMES, index.SNAPSHOTS):
            lvol = self.index.directory(parent).get(name)
            return None if lvol is None else lvol.id
        raise OSError(errno.ENOTDIR, f"inode {parent} is no directory")

    def _attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        if inode in index.STATUS_FILES:
            return self.attributes.text(inode)
        if inode <= index.CHECKSUMS:
            return self.attributes.directory(inode)
        lvol = self.lvol(inode)
        if inode & index.CHECKSUM_FILE:
            return self.attributes.text(inode)
        return self.attributes.lvol(lvol)

    def lvol(self, inode: int) -> Lvol:
        """OSError(ENOENT) for an lvol that is gone; EPERM for what is no lvol at all."""
        if inode <= max(index.STATUS_FILES):
            raise OSError(errno.EPERM, "this is neither a volume nor a snapshot")
        found = self.index.lvol(inode)
        if found is None:
            raise OSError(errno.ENOENT, f"lvol of inode {inode} is gone")
        return found

    def _named(self, parent: int, name: bytes, what: str) -> Lvol:
        if parent not in (index.VOLUMES, index.SNAPSHOTS):
            raise OSError(errno.EPERM, f"{what} works in volumes/ and snapshots/ only")
        lvol = self.index.directory(parent).get(name)
        if lvol is None:
            raise OSError(errno.ENOENT, f"there is no lvol {os.fsdecode(name)!r} here")
        return lvol

    def check_writable_store(self) -> None:
        if self.store.read_only:
            raise OSError(errno.EROFS, f"store '{self.store.name}' is open read-only")

    def check_owner(self, uid: int) -> None:
        if uid not in (0, self.attributes.uid):
            raise OSError(errno.EPERM, f"uid {uid} does not own this mount")

    @request
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        inode = self._child(parent_inode, name)
        if inode is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(inode)

    @request
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        if inode > max(index.STATUS_FILES):
            self.lvol(inode)
        return self._attributes(inode)

    @request
    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        """Asked on private mounts only, where the kernel lets nobody in but the owner."""
        granted = int(self._attributes(inode).st_mode) >> 6 & 7
        if (
            mode & os.W_OK
            and stat.S_ISREG(int(self._attributes(inode).st_mode))
            and not granted & 2
        ):
            return False
        return ctx.uid == 0 or mode & 7 & ~granted == 0

    # -- directories

    @request
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        entries: list[tuple[bytes, int]]
        if inode == index.ROOT:
            entries = [
                (b"volumes", index.VOLUMES),
                (b"snapshots", index.SNAPSHOTS),
                (b".lvolfs", index.CONTROL),
            ]
        elif inode == index.CONTROL:
            entries = [(name, number) for number, name in index.STATUS_FILES.items()]
            entries.append((b"checksums", index.CHECKSUMS))
        elif inode == index.CHECKSUMS:
            entries = await in_thread(self._registered)
        elif inode in (index.VOLUMES, index.SNAPSHOTS):
            entries = [(name, lvol.id) for name, lvol in list(self.index.directory(inode).items())]
        else:
            raise pyfuse3.FUSEError(errno.ENOTDIR)
        handle = next(self._handles)
        self._directories[handle] = entries
        return handle

    def _registered(self) -> list[tuple[bytes, int]]:
        """The files of checksums/: one for each snapshot that has any."""
        return [
            (name, lvol.id | index.CHECKSUM_FILE)
            for name, lvol in list(self.index.snapshots.items())
            if checksums.table(lvol) is not None
        ]

    @request
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        entries = self._directories[fh]
        for position in range(start_id, len(entries)):
            name, inode = entries[position]
            try:
                attributes = self._attributes(inode)
            except OSError:
                continue  # deleted since opendir
            if not pyfuse3.readdir_reply(token, name, attributes, position + 1):
                return

    @request
    async def releasedir(self, fh: int) -> None:
        self._directories.pop(fh, None)

    @request
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await in_thread(self.store.flush)

    @request
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = self.store.cluster_size
        data.f_blocks = self.store.total_clusters
        data.f_bfree = data.f_bavail = self.store.free_clusters
        data.f_files = len(self.index.by_id) + self.store.engine.free_pages
        data.f_ffree = data.f_favail = self.store.engine.free_pages
        data.f_namemax = index.NAME_MAX
        return data

    # -- files

    @request
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        write = flags & os.O_ACCMODE != os.O_RDONLY
        if inode in index.STATUS_FILES or inode & index.CHECKSUM_FILE:
            if write or flags & os.O_TRUNC:
                raise OSError(errno.EPERM, "files of .lvolfs can only be read")
            return await self._open_text(inode)
        lvol = self.lvol(inode)
        if write or flags & os.O_TRUNC:
            self._check_changeable(lvol)
        if flags & os.O_TRUNC:
            await in_thread(self._resize, lvol, 0)
        return await self._open_lvol(lvol, write)

    async def _open_text(self, inode: int) -> pyfuse3.FileInfo:
        if inode & index.CHECKSUM_FILE:
            content = await in_thread(self._status_files.render_checksums, self.lvol(inode))
        else:
            content = await in_thread(self._status_files.render, index.STATUS_FILES[inode])
        handle = next(self._handles)
        self._texts[handle] = content
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(handle), direct_io=True)

    async def _open_lvol(self, lvol: Lvol, write: bool) -> pyfuse3.FileInfo:
        # It would be written to from two sides.
        if write and lvol.busy in ("copy", "rebuild"):
            raise OSError(errno.EBUSY, f"lvol '{lvol.name}' is the destination of a {lvol.busy}")
        token = await in_thread(lvol.open, write)
        try:
            handle = self.lane.open_volume(lvol.blob, may_write=write)
        except BaseException:
            token.close()
            raise
        self.open_lvols[handle] = OpenLvol(lvol, token)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(handle), direct_io=True)

    def _check_changeable(self, lvol: Lvol) -> None:
        self.check_writable_store()
        if lvol.is_snapshot or lvol.is_read_only:
            kind = "a snapshot" if lvol.is_snapshot else "read-only"
            raise OSError(errno.EROFS, f"lvol '{lvol.name}' is {kind}; clone it to write")

    @request
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return self._texts[fh][off : off + min(size, MAX_READ)]

    @request
    async def flush(self, fh: int) -> None:
        """close(2) of a file that cannot be written."""

    @request
    async def fsync(self, fh: int, datasync: bool) -> None:
        """fsync(2) of a file that cannot be written."""

    @request
    async def release(self, fh: int) -> None:
        self._texts.pop(fh, None)
        opened = self.open_lvols.pop(fh, None)
        if opened is not None:
            self.lane.close_handle(fh)
            opened.token.close()
            self.releases.note()

    def on_event(self, kind: str, lvol: Lvol) -> None:
        """A callback of Lvstore.events."""
        if kind == "deleted":
            self.attributes.forget(lvol.uuid)

    def close_all(self) -> None:
        """After the lane has stopped: gives up what was still open."""
        for opened in self.open_lvols.values():
            opened.token.close()
        self.open_lvols.clear()

    @request
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        lvol = await self._create(parent_inode, name)
        return await self._open_lvol(lvol, write=True), self.attributes.lvol(lvol)

    @request
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if not stat.S_ISREG(mode):
            raise OSError(errno.EPERM, "volumes are regular files")
        return self.attributes.lvol(await self._create(parent_inode, name))

    async def _create(self, parent: int, name: bytes) -> Lvol:
        if parent == index.SNAPSHOTS:
            raise OSError(
                errno.EPERM,
                "make snapshots like this: setfattr -n user.lvolfs.snapshot -v NAME VOLUME",
            )
        if parent != index.VOLUMES:
            raise OSError(errno.EPERM, "files can only be made in volumes/")
        self.check_writable_store()
        lvol = await in_thread(self.store.create_volume, _text(name), 0)
        self.attributes.touch(lvol)
        return lvol

    def _resize(self, lvol: Lvol, size: int) -> None:
        lvol.resize(size)
        self.attributes.touch(lvol)

    def grow(self, handle: int, size: int) -> None:
        """For a write past the end: makes the open volume at least `size` bytes. In a thread."""
        opened = self.open_lvols.get(handle)
        if opened is None:
            raise OSError(errno.EBADF, "the volume is not open any more")
        opened.lvol.extend(size)

    @request
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        now = self._attributes(inode)
        if fields.update_mode and attr.st_mode & 0o7777 != now.st_mode & 0o7777:
            raise OSError(errno.EPERM, "permissions are the mount's and cannot be changed")
        if (fields.update_uid and attr.st_uid != now.st_uid) or (
            fields.update_gid and attr.st_gid != now.st_gid
        ):
            raise OSError(errno.EPERM, "the owner is whoever mounts and cannot be changed")
        if fields.update_size:
            lvol = self.lvol(inode)
            if inode & index.CHECKSUM_FILE:
                raise OSError(errno.EPERM, "files of .lvolfs can only be read")
            self._check_changeable(lvol)
            await in_thread(self._resize, lvol, attr.st_size)
        if fields.update_mtime:
            self.attributes.set_modified(self.lvol(inode), attr.st_mtime_ns)
        return self._attributes(inode)

    # -- removing and renaming

    @request
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        lvol = self._named(parent_inode, name, "rm")
        self.check_writable_store()
        await self._delete(lvol)

    async def _delete(self, lvol: Lvol) -> None:
        await self.releases.patiently(lvol.delete)

    @request
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        lvol = self._named(parent_inode_old, name_old, "mv")
        self.check_writable_store()
        if parent_inode_new != parent_inode_old:
            raise OSError(errno.EPERM, "volumes and snapshots stay in their directories")
        if flags & ~int(pyfuse3.RENAME_NOREPLACE):
            raise OSError(errno.EINVAL, "lvols cannot be exchanged")
        other = self.index.directory(parent_inode_new).get(name_new)
        if other is lvol:
            return
        if other is not None:
            if flags or other.is_snapshot:
                raise OSError(errno.EEXIST, f"lvol '{other.name}' exists already; rm it first")
            # As rename(2) does, the volume of that name gives way.
            await self._delete(other)
        await in_thread(lvol.rename, _text(name_new))

    @request
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        raise OSError(errno.EPERM, "a store has no directories of its own")

    @request
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        raise OSError(errno.EPERM, "the directories of a store are fixed")

    @request
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        raise OSError(errno.EPERM, "a store has no symbolic links")

    @request
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        raise OSError(errno.EPERM, "an lvol has one name; snapshot or clone it instead")

    @request
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        raise OSError(errno.EINVAL, "not a symbolic link")

    # -- xattrs

    def _xattr_lvol(self, inode: int, code: int) -> Lvol:
        if inode <= max(index.STATUS_FILES) or inode & index.CHECKSUM_FILE:
            raise pyfuse3.FUSEError(code)
        return self.lvol(inode)

    @request
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        return await in_thread(xattrs.read, self._xattr_lvol(inode, errno.ENODATA), name)

    @request
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        if inode <= max(index.STATUS_FILES) or inode & index.CHECKSUM_FILE:
            return []
        return await in_thread(xattrs.names, self.lvol(inode))

    @request
    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        self.check_owner(ctx.uid)
        lvol = self._xattr_lvol(inode, errno.ENOTSUP)
        await self.releases.patiently(xattrs.write, lvol, name, value, self.mountpoint, ctx.pid)

    @request
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self.check_owner(ctx.uid)
        await in_thread(xattrs.remove, self._xattr_lvol(inode, errno.ENOTSUP), name)


def _text(name: bytes) -> str:
    """A file name as that of a new lvol; OSError(EINVAL) unless it is UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise OSError(errno.EINVAL, f"name {name!r} is not UTF-8") from None
