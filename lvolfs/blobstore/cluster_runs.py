"""The parts of a cluster map that name clusters. A thin lvol may have hundreds of millions of
clusters in a store of a few megabytes, and none of them may cost a step in Python."""

from collections.abc import Iterator

# Bytes of map: of an extent page, and of as much as is passed over at a time.
_PART = 4 * 512
_STRIDE = _PART * 128
_ZEROS = bytes(_STRIDE)


def allocated_parts(clusters: bytearray) -> Iterator[tuple[int, memoryview]]:
    """(first index, up to 512 u32) of each part that is not all zeros, in order."""
    view = memoryview(clusters)
    for stride in range(0, len(clusters), _STRIDE):
        # Bytes compare as memory, a memoryview item by item.
        block = bytes(view[stride : stride + _STRIDE])
        if block == _ZEROS[: len(block)]:
            continue
        for start in range(0, len(block), _PART):
            part = block[start : start + _PART]
            if any(part):
                yield (stride + start) // 4, memoryview(part).cast("I")


def allocated(clusters: bytearray) -> Iterator[tuple[int, int]]:
    """(index, cluster number) of everything that is not 0, in order."""
    for first, part in allocated_parts(clusters):
        for index, cluster in enumerate(part, start=first):
            if cluster:
                yield index, cluster
