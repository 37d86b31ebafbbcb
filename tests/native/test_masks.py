"""The used masks as Python sees them."""

from pathlib import Path

from lvolfs import Lvstore

MIB = 1 << 20


def test_a_mask_of_one_byte_leaves_other_bytes_objects_alone(tmp_path: Path) -> None:
    with Lvstore.create(str(tmp_path / "s"), size=6 * MIB) as store:
        total = store.engine.total_clusters
        assert total < 8
        store.create_volume("v", store.free_clusters * MIB, thick=True)
        mask = store.engine.used_clusters_mask()
    assert mask == bytes([(1 << total) - 1])
    assert [bytes([value])[0] for value in range(256)] == list(range(256))
