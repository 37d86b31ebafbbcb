"""Random histories on both sides: whatever the replica holds, a rebuild makes it the same."""

import itertools
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvolfs.delta import checksums
from lvolfs.delta.rebuild import rebuild
from tests.delta.conftest import CLUSTER, cluster_of, finish
from tests.delta.histories import assert_same

NUMBERS = itertools.count()
CLUSTERS = 14

WRITE = st.tuples(st.just("write"), st.integers(0, CLUSTERS - 1), st.integers(0, 3))
UNMAP = st.tuples(st.just("unmap"), st.integers(0, CLUSTERS - 1), st.just(0))
SNAPSHOT = st.tuples(st.just("snapshot"), st.just(0), st.just(0))
MERGE = st.tuples(st.just("merge"), st.integers(0, 5), st.just(0))
GROW = st.tuples(st.just("resize"), st.integers(CLUSTERS, CLUSTERS + 3), st.just(0))
REGISTER = st.tuples(st.just("register"), st.integers(0, 5), st.integers(0, 1))
OPERATIONS = st.lists(
    st.one_of(WRITE, WRITE, WRITE, SNAPSHOT, UNMAP, MERGE, GROW, REGISTER), max_size=14
)


def snapshots_of(volume):
    found, link = [], volume.parent
    while link is not None:
        found.insert(0, link)
        link = link.parent
    return found


def play(volume, operations):
    for kind, number, tag in operations:
        chain = snapshots_of(volume)
        if kind == "write":
            volume.pwrite(cluster_of(tag), number * CLUSTER)
        elif kind == "unmap":
            volume.unmap(number * CLUSTER, CLUSTER)
        elif kind == "snapshot":
            names = {lvol.name for lvol in volume.store.lvols}
            volume.snapshot(next(f"s{i}" for i in range(99) if f"s{i}" not in names))
        elif kind == "merge" and chain:
            chain[number % len(chain)].delete()
        elif kind == "resize":
            volume.resize(max(number * CLUSTER, volume.size))
        elif kind == "register" and chain:
            algorithm = ("xxh3", "crc64")[tag]
            finish(checksums.register(chain[number % len(chain)], algorithm=algorithm))


def rebuild_clearing_the_way(volume, other, options):
    """Does what the refusal says: deletes the destination's own snapshot that is in the way."""
    while True:
        try:
            rebuild(volume, other, **options)
        except OSError as error:
            found = re.search(r"but '(s\d+)' depends on it; delete or inflate", str(error))
            if found is None:
                raise
            other.get(found[1]).delete()
        else:
            return


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    before=OPERATIONS,
    ours=OPERATIONS,
    theirs=OPERATIONS,
    algorithm=st.sampled_from(["xxh3", "crc64"]),
    register_missing=st.booleans(),
)
def test_rebuilt_whatever_happened(  # noqa: PLR0917
    make_store, before, ours, theirs, algorithm, register_missing
):
    number = next(NUMBERS)
    store, other = (make_store(f"{side}{number}", clusters=300) for side in "ab")
    volume = store.create_volume("v", CLUSTERS * CLUSTER)
    play(volume, before)
    options = {"algorithm": algorithm, "register_missing": register_missing}
    rebuild(volume, other, **options)
    assert_same(volume, other, [each.name for each in snapshots_of(volume)])
    play(volume, ours)
    play(other.get("v"), theirs)
    rebuild_clearing_the_way(volume, other, options)
    assert_same(volume, other, [each.name for each in snapshots_of(volume)])
    again = rebuild(volume, other, **options)
    assert {layer.action for layer in again.layers if layer.kind == "snapshot"} <= {"kept"}
    for each in (store, other):
        each.close()
