"""The check of a whole store, and the repair of what has one right answer."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lvolfs.blobstore.check import Finding, check_contents, check_store, open_engine
from lvolfs.blobstore.contents import read_contents
from lvolfs.blobstore.errors import FormatError
from lvolfs.blobstore.superblock import read_superblock
from lvolfs.delta import unreadable_tables
from lvolfs.lvstore.damaged import remove_damaged
from lvolfs.lvstore.store import Lvstore

if TYPE_CHECKING:
    from collections.abc import Iterator


SETTLING = 5
"""How often an open store is looked at before clusters used by nobody count as lost."""


@dataclass
class CheckReport:
    """findings: what is wrong now. repairs: (object, what was done), in order."""

    store: str
    findings: list[Finding]
    repairs: list[tuple[str, str]] = field(default_factory=list)

    @property
    def consistent(self) -> bool:
        return not [finding for finding in self.findings if finding.severity != "note"]


def check_closed(path: str, *, repair: bool = False, give_up_damaged: bool = False) -> CheckReport:
    """Of a store that nobody has open. repair: put right what has one right answer;
    give_up_damaged: and delete damaged lvols for good. OSError as opening raises it."""
    findings, can_be_opened = _find(path)
    repairs: list[tuple[str, str]] = []
    if repair and findings and can_be_opened:
        repairs = _repair(path, findings, give_up_damaged=give_up_damaged)
        findings, _ = _find(path)
    return CheckReport(path, findings, repairs)


def check_open(store: Lvstore) -> CheckReport:
    """Of an open store, while it is used: what is on the device after a flush, against what
    this process holds in memory. Changes and I/O wait while the metadata is read."""
    with store.lock:
        store.check_open()
        for _ in range(SETTLING):
            if not store.read_only:
                store.engine.settle()
            findings = _find_in_use(store)
            # What others free meanwhile is used by nobody and not yet free, for a moment.
            if not any(finding.object == "masks" for finding in findings):
                break
        findings += _unreadable(store)
    return CheckReport(store.path, findings)


def _find_in_use(store: Lvstore) -> list[Finding]:
    device, engine = store.engine.device, store.engine
    with engine.exclusive():
        superblock = read_superblock(device, store.path)
        reader = open_engine(device, superblock, read_only=True)
        try:
            contents = read_contents(device, reader, superblock)
        finally:
            reader.close()
        if not store.read_only:
            # As if it had been closed in this moment: the masks are those in memory.
            contents = replace(
                contents,
                superblock=replace(superblock, clean=True),
                problem=None,
                masked_pages=engine.used_pages_mask(),
                masked_clusters=engine.used_clusters_mask(),
            )
    return check_contents(contents)


def _find(path: str) -> tuple[list[Finding], bool]:
    """The findings, and whether the store can be opened at all."""
    findings = check_store(path)
    try:
        opened = Lvstore.open(path, read_only=True)
    except FormatError:
        # Without a superblock nothing is known of the store, and the findings say so.
        return findings, False
    with opened as store:
        findings += _unreadable(store)
    return findings, True


def _unreadable(store: Lvstore) -> Iterator[Finding]:
    for table in unreadable_tables.unreadable_tables(store):
        yield Finding(
            "warning",
            f"lvol {table.lvol.name!r}",
            f"its {table.algorithm} checksums cannot be used: {table.problem}",
        )


def _repair(path: str, findings: list[Finding], *, give_up_damaged: bool) -> list[tuple[str, str]]:
    repairs = []
    if give_up_damaged:
        repairs += [
            (blob.title, f"removed with its data; {blob.damage}") for blob in remove_damaged(path)
        ]
    with Lvstore.open(path, force_replay=True) as store:
        repairs += store.repairs
        for table in list(unreadable_tables.unreadable_tables(store)):
            try:
                unreadable_tables.drop(table)
            except OSError as error:
                if error.errno != errno.EPERM:
                    raise
                # Of a newer format: to be read, never changed. The finding stays.
                continue
            repairs.append(
                (
                    f"lvol {table.lvol.name!r}",
                    f"dropped its {table.algorithm} checksums; register them again",
                )
            )
        damaged = bool(store.damaged)
    if any(finding.object == "masks" for finding in findings):
        repairs.append(("masks", "written anew"))
    if any(finding.object == "superblock" for finding in findings) and not damaged:
        repairs.append(("superblock", "marked as closed cleanly"))
    return repairs
