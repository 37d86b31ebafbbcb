"""Faults in the pages of one blob, each of which a check names, and what they cost."""

import struct

from tests.check.base_store import (
    CHECKSUM,
    EXTENT_PAGE,
    FLAGS,
    RLE,
    TABLE,
    XATTR,
    Descriptor,
    Editor,
    flags,
    internal,
    pack,
    pairs,
    table,
)
from tests.check.case import Case, Craft, damaged

TOO_MANY = (1 << 28) + 1


def rewritten(*descriptors: Descriptor, unclean: bool = False) -> Craft:
    """`good` has these behind its names, in the place of its extent table."""

    def craft(image: Editor) -> None:
        image.write_root("good", *descriptors)
        if unclean:
            image.mark_unclean()

    return craft


def run_length(*descriptors: Descriptor) -> Craft:
    """The same with flags that announce no extent table."""

    def craft(image: Editor) -> None:
        image.write_root("good", flags(1), *image.names("good"), *descriptors, head=False)

    return craft


def root(offset: int, data: bytes, lvol: str = "good") -> Craft:
    return lambda image: image.set_root(lvol, offset, data)


def extent(offset: int, data: bytes) -> Craft:
    return lambda image: image.set_extent_page("good", offset, data)


def put(lvol: str, *descriptors: Descriptor) -> Craft:
    return lambda image: image.put(lvol, *descriptors)


def raw_root(area: bytes) -> Craft:
    return lambda image: image.write_root("good", raw=area)


def page_of(image: Editor, name: str) -> int:
    return image.lvols[name].extent_pages[0]


def next_page(number: int) -> Craft:
    return root(4088, struct.pack("<I", number))


def loop_of_pages(image: Editor) -> None:
    chain = image.lvols["long"].chain
    image.edit_page(chain[-1], 4088, struct.pack("<I", chain[0]))


def another_sequence(image: Editor) -> None:
    image.edit_page(image.lvols["long"].chain[1], 8, struct.pack("<I", 9))


def flip_root(image: Editor) -> None:
    image.flip(image.page_offset(image.lvols["good"].chain[0]) + 2000)


def flip_tail(image: Editor) -> None:
    image.flip(image.page_offset(image.lvols["long"].chain[1]) + 2000)


def flip_extent(image: Editor) -> None:
    image.flip(image.page_offset(page_of(image, "good")) + 100)


def foreign_extent_page(image: Editor) -> None:
    image.write_root("good", table(8, (page_of(image, "beside"), 1)))


def shared_by_three(image: Editor) -> None:
    page = page_of(image, "beside")
    for name in ("good", "long"):
        image.write_root(name, table(8, (page, 1)))


def cluster(number: int) -> Craft:
    return lambda image: image.set_cluster("good", 0, number)


def two_owners(image: Editor) -> None:
    image.set_cluster("good", 0, image.lvols["beside"].clusters[0])


def own_page_twice(image: Editor) -> None:
    blob = image.lvols["good"]
    image.write_root("good", table(600, (blob.chain[0], 1), (blob.extent_pages[1], 1)))


def two_users(name: str, craft: Craft, text: str) -> Case:
    """Nobody can say whose it is: `good` and `beside` name each other."""
    return Case(
        name,
        craft,
        [
            ("error", "'good'", f"{text} .*'beside'"),
            ("error", "'beside'", f"{text} .*'good'"),
        ],
        lost={"good", "beside"},
    )


def three_users(name: str, craft: Craft, text: str) -> Case:
    """The first is told this, the others whom they share with."""
    others = ("error", "blob", "also used by")
    return Case(
        name, craft, [("error", "blob", text), others, others], lost={"good", "long", "beside"}
    )


def link(lvol: str, target: str | int, name: str = "SNAP") -> Craft:
    def craft(image: Editor) -> None:
        blob_id = target if isinstance(target, int) else image.lvols[target].id
        image.set_link(lvol, name, blob_id)

    return craft


def own_blob_as_parent(image: Editor) -> None:
    (own,) = set(image.blobs) - {blob.id for blob in image.lvols.values()}
    image.set_link("top", "SNAP", own)


def runs_of_the_whole_store(image: Editor) -> None:
    """Three lvols that name all that is free: two could be in the middle of a merge."""
    for name in ("good", "long", "beside"):
        image.write_root(name, flags(1), *image.names(name), (RLE, pairs((60, 196))), head=False)


def short_link(image: Editor) -> None:
    image.write_root(
        "good",
        flags(7),
        *image.names("good"),
        internal("SNAP", b"1234"),
        image.own_table("good"),
        head=False,
    )


def no_flag(image: Editor) -> None:
    image.write_root("good", flags(1), *image.names("good"), image.own_table("good"), head=False)


XATTR_OF_2 = (XATTR, b"\0\0")
XATTR_TOO_LONG = (XATTR, struct.pack("<HH", 9, 9) + b"short")

CASES = [
    # what a first page and its chain say
    damaged("first page, flipped bit", flip_root, "metadata page, .* has a wrong checksum"),
    damaged("further page, flipped bit", flip_tail, "has a wrong checksum", lvol="long"),
    damaged("chain past the end", next_page(9999), "past the end of the metadata"),
    damaged("chain in a loop", loop_of_pages, "comes twice in the chain", lvol="long"),
    damaged("chain into another blob", next_page(0), "belongs to blob"),
    damaged("wrong number in the chain", another_sequence, "is number 9, not 1", lvol="long"),
    damaged(
        "descriptor past its page", raw_root(struct.pack("<BI", 3, 4070)), "runs past its page"
    ),
    damaged("extent page in a chain", rewritten((EXTENT_PAGE, bytes(8))), "stands inside a chain"),
    damaged("checksum records", rewritten((CHECKSUM, bytes(7))), "checksum records of 7 bytes"),
    damaged("unknown flags", lambda i: i.set_flags("good", 1 << 40 | 5), "are not known, and may"),
    damaged("flags of another size", raw_root(pack((FLAGS, bytes(23)))), "flags of 23 bytes"),
    damaged("xattr of 2 bytes", rewritten(XATTR_OF_2), "an xattr of 2 bytes"),
    damaged("xattr with other lengths", rewritten(XATTR_TOO_LONG), "do not add up"),
    damaged("short parent link", short_link, "its SNAP has 4 bytes instead of 8"),
    # extent tables and runs
    damaged(
        "table that is too short",
        rewritten(table(600, (0, 1))),
        "lists 1 extent pages instead of 2",
    ),
    damaged("table without its flag", no_flag, "the flag that announces it is not"),
    damaged(
        "run-length extents, then a table",
        rewritten((RLE, pairs((0, 5))), table(5, (0, 1))),
        "both run-length extents and an extent table",
    ),
    damaged(
        "table, then run-length extents",
        rewritten(table(5, (0, 1)), (RLE, pairs((0, 5)))),
        "both run-length extents and an extent table",
    ),
    damaged("table of 9 bytes", rewritten((TABLE, bytes(9))), "an extent table of 9 bytes"),
    damaged(
        "tables that disagree", rewritten(table(600, (0, 1)), table(601, (0, 1))), "disagree about"
    ),
    damaged("table of too many clusters", rewritten(table(TOO_MANY, (0, 1))), "are supported"),
    damaged("table with a repeated page", rewritten(table(2000, (9, 2), (0, 2))), "listed 2 times"),
    damaged("table that lists more", rewritten(table(5, (0, 7))), "lists more than the blob has"),
    damaged(
        "extent page past the metadata",
        rewritten(table(5, (4000, 1))),
        "past the end of the metadata",
    ),
    damaged(
        "run-length extents of 9 bytes", run_length((RLE, bytes(9))), "run-length extents of 9"
    ),
    damaged("too many runs", run_length((RLE, pairs((0, TOO_MANY)))), "clusters are not supported"),
    damaged(
        "runs past the end", run_length((RLE, pairs((250, 9)))), "clusters 250 to 258 are past"
    ),
    damaged(
        "descriptor of a newer format, after a crash",
        rewritten(table(600, (0, 2)), (0x63, b"new"), unclean=True),
        "of unknown types",
    ),
    # extent pages
    damaged("extent page, flipped bit", flip_extent, "wrong CRC"),
    damaged("extent page with a sequence", extent(8, b"\1"), "sequence number is not 0"),
    damaged("extent page with a next one", extent(4088, bytes(4)), "has a next page"),
    damaged("extent page of another type", extent(16, b"\2"), "is not an extent page"),
    damaged("extent page of 7 bytes", extent(17, struct.pack("<I", 7)), "impossible length"),
    damaged(
        "extent page of other clusters", extent(21, struct.pack("<I", 512)), "of other clusters"
    ),
    damaged("extent page of too few", extent(17, struct.pack("<I", 40)), "too few clusters"),
    damaged("cluster past the end", cluster(256), "cluster number 256 is past the end"),
    damaged("hole in a thick lvol", lambda i: i.set_flags("good", 4), "not thin, but has clusters"),
    # what several blobs say of one thing
    Case(
        "cluster of the metadata",
        cluster(1),
        [("error", "'good'", "holds metadata, not data")],
        lost={"good"},
    ),
    two_users("cluster with two owners", two_owners, "cluster .* is also used by"),
    two_users("extent page with two owners", foreign_extent_page, "page .* is also used by"),
    three_users("extent page with three owners", shared_by_three, "used by other blobs, too"),
    Case(
        "first page that is an extent page, too",
        own_page_twice,
        [("error", "'good'", "not an extent page")],
        lost={"good"},
    ),
    three_users(
        "runs that are more than there is",
        runs_of_the_whole_store,
        "names more clusters than there are",
    ),
    # parents
    damaged(
        "missing parent", link("top", 1 << 32 | 200), "blob 0x1000000c8, is missing", lvol="top"
    ),
    damaged(
        "the store's own blob as parent", own_blob_as_parent, "which is no snapshot", lvol="top"
    ),
    damaged("parents in a loop", link("top", "top"), "its chain of parents is a loop", lvol="top"),
    Case(
        "damaged parent",
        lambda i: i.set_flags("base", 1 << 40 | 5),
        [
            ("error", "'base'", "are not known"),
            ("error", "'top'", "its parent, .*'base'.*, is damaged"),
        ],
        lost={"base", "top"},
    ),
]
