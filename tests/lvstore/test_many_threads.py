"""Many threads on one volume, while snapshots are taken and deleted under them."""

import random
import threading

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore

CLUSTER = 64 << 10
THREADS = 8
PER_THREAD = 40 * CLUSTER
STEPS = 1500


class Worker(threading.Thread):
    """Owns every eighth block of 5000 bytes, so that clusters are shared by all."""

    BLOCK = 5000

    def __init__(self, volume, number, failures):
        super().__init__()
        self.volume, self.number, self.failures = volume, number, failures
        self.chance = random.Random(number)
        self.blocks = {}
        self.count = volume.size // self.BLOCK // THREADS

    def run(self):
        try:
            for _ in range(STEPS):
                self.step()
        except BaseException as error:
            self.failures.append(error)
            raise

    def offset(self, index):
        return (index * THREADS + self.number) * self.BLOCK

    def step(self):
        index = self.chance.randrange(self.count)
        offset = self.offset(index)
        action = self.chance.random()
        if action < 0.5:
            data = self.chance.randbytes(self.BLOCK)
            self.volume.pwrite(data, offset)
            self.blocks[index] = data
        elif action < 0.6:
            self.volume.unmap(offset, self.BLOCK)
            self.blocks[index] = bytes(self.BLOCK)
        elif action < 0.65:
            self.volume.write_zeroes(offset, self.BLOCK)
            self.blocks[index] = bytes(self.BLOCK)
        elif action < 0.7:
            self.volume.flush()
        else:
            assert self.volume.pread(self.BLOCK, offset) == self.blocks.get(
                index, bytes(self.BLOCK)
            )

    def check(self, volume):
        for index in range(self.count):
            expected = self.blocks.get(index, bytes(self.BLOCK))
            assert volume.pread(self.BLOCK, self.offset(index)) == expected


def test_one_volume(tmp_path):
    path = str(tmp_path / "store")
    chance = random.Random(99)
    failures = []
    with Lvstore.create(path, size=256 << 20, cluster_size=CLUSTER) as store:
        volume = store.create_volume("v", THREADS * PER_THREAD)
        workers = [Worker(volume, number, failures) for number in range(THREADS)]
        for worker in workers:
            worker.start()
        rounds = 0
        while any(worker.is_alive() for worker in workers):
            rounds += 1
            volume.snapshot(f"s{rounds}")
            frozen = store.get(f"s{rounds}")
            first = frozen.pread(frozen.size, 0)
            if chance.random() < 0.5:
                volume.set_xattr("round", str(rounds).encode())
            assert frozen.pread(frozen.size, 0) == first
            if chance.random() < 0.7:
                frozen.delete()
            elif chance.random() < 0.5:
                volume.decouple()
            while len(store.snapshots) > 6:
                deletable = [s for s in store.snapshots if len(s.children) < 2]
                chance.choice(deletable).delete()
        for worker in workers:
            worker.join()
        assert failures == []
        assert rounds > 1
        for worker in workers:
            worker.check(volume)
        owned = sum(lvol.num_allocated_clusters for lvol in store.lvols)
        store.engine.settle()
        assert store.free_clusters == store.total_clusters - owned
    assert check_store(path) == []
    with Lvstore.open(path, force_replay=True) as store:
        for worker in workers:
            worker.check(store.get("v"))


def test_filling_up_together(tmp_path):
    """The store runs full under many writers: every acknowledged block is there."""
    path = str(tmp_path / "store")
    with Lvstore.create(path, size=8 << 20, cluster_size=CLUSTER) as store:
        volumes = [store.create_volume(f"v{i}", 60 * CLUSTER) for i in range(4)]
        written = [0] * 4

        def fill(number):
            try:
                for index in range(60):
                    volumes[number].pwrite(bytes([number + 1]) * CLUSTER, index * CLUSTER)
                    written[number] = index + 1
            except OSError as error:
                if "free clusters" not in str(error):
                    raise

        threads = [threading.Thread(target=fill, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.free_clusters == 0
        assert 0 < sum(written) <= store.total_clusters
    with Lvstore.open(path) as store:
        for number, count in enumerate(written):
            volume = store.get(f"v{number}")
            data = volume.pread(count * CLUSTER, 0)
            assert data == bytes([number + 1]) * (count * CLUSTER)
