"""A read-only check of a whole store."""

import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from lvolfs._native.device import Device
from lvolfs._native.engine import Engine
from lvolfs.blobstore.contents import StoreContents, StoredBlob, read_contents
from lvolfs.blobstore.descriptors import DataReadOnly, Invalid
from lvolfs.blobstore.errors import FormatError
from lvolfs.blobstore.interrupted import find_interrupted
from lvolfs.blobstore.ownership import find_owners
from lvolfs.blobstore.superblock import NO_BLOB, Superblock, read_superblock

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """error: data cannot be reached or would be overwritten; warning: inconsistent, but
    opening the store for writing puts it right; note: worth knowing, nothing wrong."""

    severity: Severity
    object: str
    text: str


def check_store(path: str) -> list[Finding]:
    """All that is wrong with the store at `path`; an empty list means consistent.

    Raises OSError only when the device cannot be opened or read.
    """
    with Device(path, read_only=True) as device:
        try:
            superblock = read_superblock(device, path)
        except FormatError as error:
            return [Finding("error", "superblock", error.problem)]
        engine = open_engine(device, superblock, read_only=True)
        try:
            contents = read_contents(device, engine, superblock)
        finally:
            engine.close()
    return check_contents(contents)


def open_engine(device: Device, superblock: Superblock, *, read_only: bool) -> Engine:
    """An engine with the geometry of `superblock`, nothing in it yet."""
    return Engine(
        device,
        cluster_size=superblock.cluster_size,
        page_size=superblock.page_size,
        md_start=superblock.md_start,
        md_len=superblock.md_len,
        total_clusters=superblock.total_clusters,
        read_only=read_only,
    )


def check_contents(contents: StoreContents) -> list[Finding]:
    """The findings for a store as read; `contents` is left as it is."""
    findings = []
    if contents.superblock.torn:
        findings.append(
            Finding(
                "warning",
                "superblock",
                "it was half written when the store was opened, closed or grown; opening the "
                "store for writing puts it right",
            )
        )
    elif not contents.superblock.clean:
        findings.append(
            Finding("note", "superblock", "the store was not closed cleanly; it was replayed")
        )
    elif contents.problem and not (contents.damaged and contents.masked_clusters):
        findings.append(Finding("warning", "masks", contents.problem))
    findings += [
        Finding("error", blob.title, blob.damage) for blob in contents.blobs.values() if blob.damage
    ]
    findings += _unreadable(contents)
    findings += _interrupted(contents)
    findings += _ownership(contents)
    findings += _super_blob(contents)
    for blob in contents.blobs.values():
        if blob.damage is None and blob.id != contents.superblock.super_blob:
            findings += _lvol(contents, blob)
    findings += _names(contents)
    return findings


def _unreadable(contents: StoreContents) -> list[Finding]:
    """Pages that the device cannot read, and that no blob is known to use."""
    known = {page for blob in contents.blobs.values() for page in blob.pages}
    findings = []
    for page in sorted(set(contents.unreadable) - known):
        used = contents.masked_pages[page // 8 : page // 8 + 1] or b"\xff"
        free = contents.superblock.clean and not used[0] >> page % 8 & 1
        findings.append(
            Finding(
                "note" if free else "error",
                f"metadata page {page}",
                "the device cannot read it; "
                + ("it was free" if free else "an lvol that is not listed may have begun there"),
            )
        )
    return findings


def _interrupted(contents: StoreContents) -> list[Finding]:
    return [
        Finding(
            "warning",
            case.snapshot.title,
            f"its {case.operation} was interrupted; "
            f"opening the store for writing will {'keep' if case.keep else 'remove'} it",
        )
        for case in find_interrupted(contents)
    ]


def _ownership(contents: StoreContents) -> list[Finding]:
    removed = {case.snapshot.id for case in find_interrupted(contents) if not case.keep}
    blobs = [blob for blob in contents.blobs.values() if blob.id not in removed]
    owners = find_owners(contents.superblock, blobs)
    findings = [
        Finding("error", contents.blobs[blob_id].title, text)
        for blob_id, text in owners.conflicts.items()
    ]
    findings += [
        Finding("warning", contents.blobs[blob_id].title, "it shares clusters with its parent")
        for blob_id in sorted(owners.shared_with_parent)
    ]
    if contents.superblock.clean and contents.masked_clusters:
        for what, masked, used in (
            ("metadata pages", contents.masked_pages, owners.used_pages),
            ("clusters", contents.masked_clusters, owners.used_clusters),
        ):
            leaked = _count_without(masked, used)
            missing = _count_without(used, masked)
            if leaked:
                findings.append(
                    Finding("warning", "masks", f"{leaked} {what} are marked used by nobody")
                )
            if missing:
                findings.append(
                    Finding("warning", "masks", f"{missing} {what} in use are marked free")
                )
    return findings


def _count_without(bits: bytes, without: bytes) -> int:
    extra = int.from_bytes(bits, "little") & ~int.from_bytes(without, "little")
    return extra.bit_count()


def _super_blob(contents: StoreContents) -> list[Finding]:
    blob_id = contents.superblock.super_blob
    if blob_id == NO_BLOB:
        return [Finding("error", "superblock", "it names no blob that holds the store's name")]
    blob = contents.blobs.get(blob_id)
    if blob is None:
        return [Finding("error", "superblock", f"its blob {blob_id:#x} is missing")]
    if blob.damage is None and blob.num_clusters:
        return [
            Finding("error", blob.title, f"the store's own blob has {blob.num_clusters} clusters")
        ]
    return []


def _lvol(contents: StoreContents, blob: StoredBlob) -> list[Finding]:
    findings = []
    value = blob.metadata.xattrs.get("uuid", b"")
    try:
        uuid.UUID(value.rstrip(b"\0").decode("ascii"))
    except ValueError:
        findings.append(Finding("warning", blob.title, "it has no valid uuid"))
    parent_id = blob.link("SNAP")
    if parent_id is not None:
        parent = contents.blobs[parent_id]
        if not parent.metadata.data_ro & DataReadOnly.READ_ONLY and not any(
            marker in parent.metadata.internal for marker in ("SNAPTMP", "SNAPRM")
        ):
            findings.append(
                Finding("error", blob.title, f"its parent, {parent.title}, is not read-only")
            )
    has_external = "EXTSNAP" in blob.metadata.internal
    if has_external != bool(blob.metadata.invalid & Invalid.EXTERNAL_SNAPSHOT):
        findings.append(
            Finding("warning", blob.title, "its flags and its external snapshot do not agree")
        )
    return findings


def _names(contents: StoreContents) -> list[Finding]:
    lvols = [b for b in contents.blobs.values() if b.id != contents.superblock.super_blob]
    findings = [
        Finding("warning", blob.title, "it has no name")
        for blob in lvols
        if blob.damage is None and not blob.name
    ]
    counted = Counter(blob.name for blob in lvols if blob.name)
    findings += [
        Finding("warning", f"lvol {name!r}", f"{count} lvols have this name")
        for name, count in counted.items()
        if count > 1
    ]
    return findings
