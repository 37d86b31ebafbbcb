"""Faults of the store as a whole, of masks, interrupted operations, names and checksum tables."""

import errno
import os
import struct
from collections.abc import Callable

from lvolfs.lvstore.store import Lvstore
from tests.check.base_store import PAGE, Editor, flags, internal
from tests.check.case import Case, Craft, Expected, Unreadable

NOBODY = 0xFFFFFFFFFFFFFFFF
FREE_PAGE, FREE_CLUSTER = 200, 200


def superblock(name: str, craft: Craft, text: str, **more: object) -> Case:
    return Case(name, craft, [("error", "superblock", text)], opens=False, **more)  # type: ignore[arg-type]


def field(offset: int, form: str, *values: int) -> Craft:
    return lambda image: image.superblock(offset, form, *values)


def unsealed(offset: int, data: bytes) -> Craft:
    return lambda image: image.write(offset, data)


def cut_short(image: Editor) -> None:
    os.truncate(image.path, 100)


def torn(image: Editor) -> None:
    """Marked as not clean in the first sector; the last one has the older checksum."""
    image.write(16, bytes(4))


def mark_unclean(image: Editor) -> None:
    image.mark_unclean()


# -- masks: used pages in page 1, used clusters in 2, blob ids in 3


def flip_in_mask(mask: int, bit: int) -> Craft:
    return lambda image: image.flip(mask * PAGE + 5 + bit // 8, bit % 8)


def own_cluster(image: Editor) -> None:
    flip_in_mask(2, image.lvols["good"].clusters[0])(image)


def own_page(image: Editor) -> None:
    flip_in_mask(1, image.lvols["good"].chain[0])(image)


def masks(name: str, craft: Craft, text: str) -> Case:
    return Case(name, craft, [("warning", "masks", text)], repaired=True)


def unreadable(find: Callable[[Editor], tuple[int, int]]) -> Callable[[Editor], list[Unreadable]]:
    return lambda image: [(*find(image), errno.EIO)]


def free_page(image: Editor) -> tuple[int, int]:
    return image.page_offset(FREE_PAGE), PAGE


def first_page(image: Editor) -> tuple[int, int]:
    return image.page_offset(image.lvols["good"].chain[0]), 512


def left_over(image: Editor) -> None:
    """So that it is no hole, which needs no reading."""
    image.write(image.page_offset(FREE_PAGE), b"left over")
    image.mark_unclean()


def left_over_with_a_wrong_mask(image: Editor) -> None:
    image.write(image.page_offset(FREE_PAGE), b"left over")
    flip_in_mask(3, FREE_PAGE + 1)(image)


# -- snapshots that are being made or deleted


def marked(lvol: str, marker: str, other: str) -> Craft:
    def craft(image: Editor) -> None:
        blob = image.lvols[lvol]
        links = [internal(key, value) for key, value in blob.internal.items()]
        links.append(internal(marker, struct.pack("<Q", image.lvols[other].id)))
        image.write_root(
            lvol, flags(7, 1), *image.names(lvol), *links, image.own_table(lvol), head=False
        )
        image.mark_unclean()

    return craft


def interrupted(lvol: str, marker: str, other: str, what: str, verb: str) -> Case:
    text = f"its {what} was interrupted; opening the store for writing will {verb} it"
    return Case(
        f"{what} of a snapshot, to {verb}",
        marked(lvol, marker, other),
        [("warning", f"'{lvol}'", text)],
        lost=set() if verb == "keep" else {lvol},
        repaired=True,
    )


def shared_with_its_parent(image: Editor) -> None:
    image.set_cluster("top", 0, image.lvols["base"].clusters[0])
    image.mark_unclean()


# -- the store's own blob, names, flags


def good_as_own_blob(image: Editor) -> None:
    image.superblock(20, "Q", image.lvols["good"].id)


def renamed(lvol: str, name: bytes) -> Craft:
    old = lvol.encode()
    return lambda image: image.replace_in_page(image.lvols[lvol].chain[0], old, name)


def without_uuid(image: Editor) -> None:
    image.replace_in_page(
        image.lvols["good"].chain[0], image.lvols["good"].xattrs["uuid"], b"-" * 37
    )


def nameless(image: Editor) -> None:
    """Its xattr has another name."""
    image.replace_in_page(image.lvols["good"].chain[0], b"namegood", b"nomegood")


def kept(
    name: str,
    craft: Craft,
    *findings: Expected,
    lost: set[str] | None = None,
    unsure: set[str] | None = None,
) -> Case:
    """Nobody can say what is right, or only a user can."""
    return Case(name, craft, list(findings), lost=lost or set(), unsure=unsure or set())


# -- registered checksums


def tables(
    lvol: str,
    change: Callable[[dict[str, bytes]], dict[str, bytes | None]],
    records: Callable[[bytes], bytes] | None = None,
) -> Craft:
    """Rewritten by lvolfs itself, which does not look into them."""

    def craft(image: Editor) -> None:
        with Lvstore.open(str(image.path)) as store:
            found = store.get(lvol)
            new = None if records is None else records(found.checksum_records)
            found.set_reserved_xattrs(change(dict(found.metadata.xattrs)), new)

    return craft


SUMMARY, CHUNK = "lvolfs.xxh3", "lvolfs.xxh3.0"


def summary(offset: int, form: str, value: int) -> Craft:
    def change(xattrs: dict[str, bytes]) -> dict[str, bytes | None]:
        packed = bytearray(xattrs[SUMMARY])
        struct.pack_into("<" + form, packed, offset, value)
        return {SUMMARY: bytes(packed)}

    return tables("sums", change)


def chunk(change: Callable[[bytes], bytes]) -> Craft:
    return tables("sums", lambda xattrs: {CHUNK: change(xattrs[CHUNK])})


def with_bit(bit: int) -> Callable[[bytes], bytes]:
    """A checksum more, of a cluster that comes after all others."""

    def change(value: bytes) -> bytes:
        bitmap = bytearray(value[:62])
        bitmap[bit // 8] |= 1 << bit % 8
        return bytes(bitmap) + value[62:] + bytes(8)

    return change


def registered(name: str, craft: Craft, text: str, algorithm: str = "xxh3") -> Case:
    lvol = {"xxh3": "sums", "crc64": "spdk"}[algorithm]
    said = f"its {algorithm} checksums cannot be used: .*{text}"
    return Case(name, craft, [("warning", f"'{lvol}'", said)], repaired=True)


def records(change: Callable[[bytes], bytes]) -> Craft:
    return tables("spdk", lambda _: {}, change)


def record(value: int, run: int) -> bytes:
    return struct.pack("<QI", value, run)


CASES = [
    # superblocks, without which nothing is known
    superblock("no signature", unsealed(0, b"NOTSPDKB"), "its signature is missing"),
    superblock("unknown version", field(8, "I", 9), "version 9, but only 1 to 3 are known"),
    superblock("superblock, flipped bit", unsealed(2000, b"x"), "checksum is 0x.* computed"),
    superblock("superblock of 100 bytes", cut_short, "only 100 of 4096 bytes"),
    superblock(
        "superblock that cannot be read",
        lambda _: None,
        "superblock cannot be read",
        unreadable=unreadable(lambda _: (0, 512)),
    ),
    superblock("another length", field(12, "I", 512), "length is 512"),
    superblock(
        "another kind of blobstore",
        lambda i: i.edit_superblock(56, b"BLOBFS\0\0\0"),
        "of type BLOBFS, not a logical",
    ),
    superblock("larger than its device", field(80, "Q", 1 << 30), "it was truncated"),
    superblock("page size", field(92, "I", 5000), "metadata page size 5000 is no power of two"),
    superblock("cluster size", field(28, "I", 66000), "no multiple of the metadata page size"),
    superblock("block size", field(88, "I", 600), "no multiple of the block size 600"),
    superblock("no clusters", field(80, "Q", 4096), "0 clusters are out of range"),
    superblock("no metadata pages", field(52, "I", 0), "no metadata pages"),
    superblock("metadata larger than the store", field(52, "I", 1 << 20), "do not fit 256"),
    superblock("mask over another", field(40, "I", 1), "overlaps what is before it"),
    superblock("mask that is too small", field(36, "I", 0), "is too small for 256 bits"),
    superblock("metadata over a mask", field(48, "I", 3), "overlap a mask"),
    Case(
        "superblock half written",
        torn,
        [("warning", "superblock", "it was half written")],
        repaired=True,
    ),
    Case(
        "not closed",
        mark_unclean,
        [("note", "superblock", "was not closed cleanly")],
        repaired=True,
    ),
    # masks
    masks("mask of another type", lambda i: i.flip(PAGE, 3), "type is 8, not 0"),
    masks(
        "cluster mask of another type",
        lambda i: i.flip(2 * PAGE, 3),
        "used cluster mask: type is 9",
    ),
    masks(
        "blob id mask of another type", lambda i: i.flip(3 * PAGE, 3), "blob id mask: type is 10"
    ),
    masks("mask of another length", lambda i: i.flip(PAGE + 1, 3), "length is .* bits, not 256"),
    masks(
        "clusters used by nobody", flip_in_mask(2, FREE_CLUSTER), "1 clusters are marked used by"
    ),
    masks("pages used by nobody", flip_in_mask(1, FREE_PAGE), "1 metadata pages are marked used"),
    masks("clusters marked free", own_cluster, "1 clusters in use are marked free"),
    masks("pages marked free", own_page, "1 metadata pages in use are marked free"),
    masks("blob that is not there", flip_in_mask(3, FREE_PAGE), f"page {FREE_PAGE} has a wrong"),
    Case(
        "masks that cannot be read",
        lambda _: None,
        [("warning", "masks", "the masks cannot be read")],
        unreadable=unreadable(lambda _: (PAGE, 3 * PAGE)),
    ),
    # pages that cannot be read
    Case(
        "page of nobody, after a crash",
        left_over,
        [("error", f"metadata page {FREE_PAGE}", "the device cannot read it; an lvol that is not")],
        unreadable=unreadable(free_page),
    ),
    Case(
        "page of nobody",
        left_over_with_a_wrong_mask,
        [
            ("warning", "masks", f"page {FREE_PAGE + 1} has"),
            ("note", f"page {FREE_PAGE}", "it was free"),
        ],
        after=[("error", f"page {FREE_PAGE}", "an lvol that is not listed")],
        unreadable=unreadable(free_page),
    ),
    Case(
        "first page that cannot be read",
        lambda _: None,
        [("error", "blob 0x", "its first metadata page, .*, cannot be read")],
        lost={"good"},
        unreadable=unreadable(first_page),
    ),
    # interrupted operations
    interrupted("base", "SNAPTMP", "top", "creation", "keep"),
    interrupted("base", "SNAPRM", "top", "deletion", "keep"),
    interrupted("good", "SNAPTMP", "beside", "creation", "remove"),
    interrupted("good", "SNAPRM", "beside", "deletion", "remove"),
    Case(
        "clusters of the parent",
        shared_with_its_parent,
        [("warning", "'top'", "it shares clusters with its parent")],
        repaired=True,
    ),
    # the store's own blob
    kept(
        "no own blob",
        field(20, "Q", NOBODY),
        ("error", "superblock", "it names no blob that holds"),
    ),
    kept(
        "own blob missing",
        field(20, "Q", 1 << 32 | 99),
        ("error", "superblock", "its blob .* is missing"),
    ),
    kept(
        "own blob with clusters",
        good_as_own_blob,
        ("error", "'good'", "the store's own blob has 600 clusters"),
        lost={"good"},
    ),
    # what an lvol says of itself
    kept("no uuid", without_uuid, ("warning", "'good'", "it has no valid uuid")),
    kept(
        "parent that is not read-only",
        lambda i: i.set_flags("base", 5),
        ("error", "'top'", "its parent, .*, is not read-only"),
    ),
    kept(
        "external snapshot without one",
        lambda i: i.set_flags("good", 5 | 8),
        ("warning", "'good'", "its flags and its external snapshot do not agree"),
    ),
    kept(
        "two of one name",
        renamed("good", b"long"),
        ("warning", "'long'", "2 lvols have this name"),
        unsure={"good", "long"},
    ),
    kept("no name", nameless, ("warning", "blob 0x", "it has no name"), lost={"good"}),
    # checksums
    registered(
        "table without its summary", tables("sums", lambda _: {SUMMARY: None}), "is missing"
    ),
    registered(
        "summary of 3 bytes", tables("sums", lambda _: {SUMMARY: b"abc"}), "has 3 bytes, not"
    ),
    registered("newer table", summary(0, "H", 2), "is of version 2/496"),
    registered("table of another size", summary(4, "I", 512), "made for 8 clusters of 512 bytes"),
    registered("table of another snapshot", summary(12, "I", 7), "owned 7 clusters, now 3"),
    registered("table with fewer", summary(16, "I", 2), "3 clusters of 2 found"),
    registered("table with another digest", summary(20, "Q", 1), "the digest does not match"),
    registered(
        "chunk past the end", tables("sums", lambda x: {"lvolfs.xxh3.9": x[CHUNK]}), "past the end"
    ),
    registered("chunk that is too short", chunk(lambda value: value[:-1]), "bytes for 3 clusters"),
    registered("chunk past the last cluster", chunk(with_bit(9)), "reaches past the last cluster"),
    registered("checksum of no cluster", chunk(with_bit(5)), "that the snapshot does not own"),
    registered(
        "records without a sum",
        tables("spdk", lambda _: {"checksum": None}),
        "without the snapshot's",
        "crc64",
    ),
    registered(
        "sum of 3 bytes",
        tables("spdk", lambda _: {"checksum": b"abc"}),
        "has 3 bytes, not 8",
        "crc64",
    ),
    registered(
        "records for too many", records(lambda old: old + record(0, 9)), "for more than 8", "crc64"
    ),
    registered(
        "records for too few", records(lambda old: old[:12]), "records for 1 clusters of 8", "crc64"
    ),
    registered(
        "record of no cluster",
        records(lambda old: old[:36] + record(1, 1) + record(0, 4)),
        "cluster 3 has a checksum but is not owned",
        "crc64",
    ),
    registered(
        "records that do not add up",
        records(lambda old: record(1, 3) + old[36:]),
        "do not add up",
        "crc64",
    ),
]
