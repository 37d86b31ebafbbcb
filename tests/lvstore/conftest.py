import pytest
from spdk_reader import SpdkStore

from lvolfs.blobstore.check import check_store
from lvolfs.lvstore.store import Lvstore

CLUSTER = 64 << 10


@pytest.fixture
def make_store(tmp_path):
    """Makes small stores; what is still open is closed, and each is judged at the end."""
    stores = []

    def make(name="store", size=16 << 20, cluster_size=CLUSTER, **options):
        store = Lvstore.create(
            str(tmp_path / name), size=size, cluster_size=cluster_size, **options
        )
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.close()
        assert check_store(store.path) == []
        with SpdkStore(store.path) as other:
            assert other.clean == 1
            other.assert_consistent()


@pytest.fixture
def store(make_store):
    return make_store()


@pytest.fixture
def reopen():
    def again(store, **options):
        store.close()
        opened.append(Lvstore.open(store.path, **options))
        return opened[-1]

    opened = []
    yield again
    for store in opened:
        store.close()
