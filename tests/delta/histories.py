"""A volume with two snapshots, replicas of it that differ, and what has to be equal in the end."""

from tests.delta.conftest import CLUSTER, fill

SIZE = 40 * CLUSTER


def source(store, head=(30,)):
    """The volume `v`: s1 owns 0-19, s2 5-7 and 25, the head owns `head`."""
    found = store.create_volume("v", SIZE)
    fill(found, range(20), 1)
    found.snapshot("s1", {"user_created": b"true", "snapshot_timestamp": b"2026-01-01T00:00:00Z"})
    fill(found, [5, 6, 7, 25], 2)
    found.snapshot("s2")
    fill(found, head, 3)
    return found


def diverge(other):
    """A replica of the same history whose s1 differs in clusters 3, 21 (more) and 11 (less)."""
    found = other.create_volume("v", SIZE)
    fill(found, [c for c in range(20) if c != 11], 1)
    fill(found, [3, 21], "wrong")
    found.snapshot("s1")
    fill(found, [5, 6, 7, 25], 2)
    found.snapshot("s2")
    fill(found, [30], "old head")
    return found


def assert_same(volume, replica, snapshots=("s1", "s2")):
    """Same chain, same own layers, same content; nothing left over on either side."""
    source = volume.store
    for name in snapshots:
        ours, theirs = source.get(name), replica.get(name)
        assert ours.fragmap() == theirs.fragmap(), name
        assert ours.size == theirs.size
        assert ours.pread(ours.size, 0) == theirs.pread(theirs.size, 0), name
        assert (ours.parent and ours.parent.name) == (theirs.parent and theirs.parent.name)
        assert {x: ours.get_xattr(x) for x in ours.list_xattrs()} == {
            x: theirs.get_xattr(x) for x in theirs.list_xattrs()
        }
    rebuilt = replica.get(volume.name)
    assert not rebuilt.is_read_only
    assert rebuilt.pread(rebuilt.size, 0) == volume.pread(volume.size, 0)
    assert rebuilt.fragmap() == volume.fragmap()
    assert (rebuilt.parent and rebuilt.parent.name) == (volume.parent and volume.parent.name)
    assert not any(name.startswith("lvolfs.rebuild") for name in rebuilt.metadata.xattrs)
    assert [x.name for x in source.lvols if x.name.startswith("rebuild-")] == []
    assert [x.name for x in replica.lvols if x.name.endswith("-rebuilding")] == []
