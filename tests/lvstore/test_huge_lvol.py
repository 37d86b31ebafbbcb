"""A small store with the largest lvol that there may be: none of its clusters costs a step."""

import time

from lvolfs.blobstore.check import check_store
from lvolfs.blobstore.superblock import MAX_CLUSTERS
from lvolfs.lvstore.store import Lvstore

CLUSTER = 16 << 10


def test_the_largest_lvol_opens_and_is_checked_in_seconds(tmp_path):
    path = str(tmp_path / "store")
    with Lvstore.create(path, size=4 << 20, cluster_size=CLUSTER) as store:
        huge = store.create_volume("huge", MAX_CLUSTERS * CLUSTER)
        huge.pwrite(b"end", huge.size - 3)
    begin = time.process_time()
    assert check_store(path) == []
    with Lvstore.open(path) as store:
        huge = store.get("huge")
        assert huge.num_allocated_clusters == 1
        assert huge.pread(3, huge.size - 3) == b"end"
    # One step in Python for each cluster takes more than 60 seconds.
    assert time.process_time() - begin < 30
