"""From TARGET and LVOL on the command line to something that answers method calls."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from lvolfs.cli.failure import CommandFailedError
from lvolfs.lvstore.store import Lvstore
from lvolfs.rpc import registry
from lvolfs.rpc.client import Caller, Client, LocalCaller
from lvolfs.rpc.target import Target
from lvolfs.rpc.tls import Credentials


@dataclass
class Session:
    """A store that answers: one opened in this process, or one behind a daemon's socket."""

    caller: Caller
    text: str
    local_store: Lvstore | None

    @property
    def is_local(self) -> bool:
        return self.local_store is not None

    def call(self, method: str, **params: Any) -> Any:
        return self.caller.call(method, **params)

    @cached_property
    def store(self) -> dict[str, Any]:
        document: dict[str, Any] = self.call("lvolfs_get_store")
        if self.is_local:
            # This command holds the store, not a daemon, and reads only where it can.
            document["pid"] = None
            document["read_only"] = not os.access(self.text, os.W_OK)
        return document

    def lvol(self, reference: str) -> str:
        """LVOL as methods take it: a uuid, or lvs/name."""
        if "/" in reference or _is_uuid(reference):
            return reference
        return f"{self.store['name']}/{reference}"


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


rpc_socket: str | None = None
"""Set by the option --rpc-socket: the daemon to talk to, whatever the registry says."""

credentials: Credentials | None = None
"""Set by the options --rpc-tls-*: what to show a daemon behind tls://."""

external_snapshots: dict[str, str] = {}
"""Set by the options --external-snapshot: where the files of external snapshots are."""

ExternalSnapshots = Annotated[
    list[str] | None,
    typer.Option(metavar="ID=PATH", help="Where an external snapshot is; may be repeated."),
]


def parse_external_snapshots(texts: list[str] | None) -> dict[str, str]:
    """Paths by id. What --external-snapshot said before the verb counts, too."""
    found = dict(external_snapshots)
    for text in texts or []:
        snapshot_id, equals, path = text.partition("=")
        if not snapshot_id or not equals or not path:
            raise typer.BadParameter(f"{text!r}: --external-snapshot takes ID=PATH")
        found[snapshot_id] = os.path.abspath(path)  # noqa: PTH100
    return found


def find_daemon(text: str) -> str | None:
    """The control socket of the daemon that holds TARGET; None for a store nobody holds.

    Raises CommandFailedError for a TARGET that is neither a store nor mounted.
    """
    if rpc_socket is not None:
        return rpc_socket
    try:
        mode = Path(text).stat().st_mode
    except OSError as error:
        raise CommandFailedError(_why_unreachable(text, error)) from error
    if stat.S_ISDIR(mode):
        entry = registry.find_by_mountpoint(text)
        if entry is None:
            raise CommandFailedError(
                f"{text} is a directory and no store of yours is mounted there; give the "
                "store's path, or mount it: lvolfs mount STORE " + text
            )
        return entry.socket
    entry = registry.find_by_store(text)
    return entry.socket if entry is not None else None


def _why_unreachable(text: str, error: OSError) -> str:
    if error.errno == errno.ENOTCONN:
        return (
            f"the daemon of the mount at {text} is gone; mount the store again there, "
            f"or run: lvolfs umount {text}"
        )
    if error.errno == errno.ENOENT:
        return f"{text} does not exist; make a store with: lvolfs create {text} --size 10G"
    return f"{text}: {os.strerror(error.errno or errno.EIO)}"


def connect(address: str) -> Client:
    """To a socket's path, or tls://HOST:PORT."""
    return Client(address, credentials=credentials)


@contextmanager
def open_target(text: str, *, write: bool = False) -> Iterator[Session]:
    """Connects to the daemon that holds TARGET, or opens the store here, for writing or not."""
    path = find_daemon(text)
    if path is not None:
        with connect(path) as client:
            yield Session(client, text, None)
        return
    from lvolfs.rpc import methods  # fills the method table; a daemon has its own

    assert methods
    with Lvstore.open(text, read_only=not write, external_snapshots=external_snapshots) as store:
        yield Session(LocalCaller(Target([store])), text, store)


def split_target(text: str) -> tuple[str, str] | None:
    """(TARGET, LVOL) of TARGET:LVOL, cut at the first colon before which something exists."""
    position = text.find(":")
    while position >= 0:
        if position and os.path.lexists(text[:position]):
            return text[:position], text[position + 1 :]
        position = text.find(":", position + 1)
    return None
