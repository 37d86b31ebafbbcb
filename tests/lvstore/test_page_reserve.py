"""As many metadata pages as the longest chain has are kept free, to rewrite it."""

import random

import pytest


def longest_chain(store):
    """The blob that says what store this is has a chain of one page."""
    return max((len(lvol.blob.chain) for lvol in store.lvols), default=1)


def set_long(volume, pages):
    """A chain of at least so many pages: a value of 4000 bytes fills one."""
    for name in volume.list_xattrs():
        volume.remove_xattr(name)
    for number in range(pages - 1):
        volume.set_xattr(f"x{number}", bytes(4000))


def test_it_follows_the_longest_chain_up_and_down(make_store):
    store = make_store()
    a, b = store.create_volume("a", 1 << 16), store.create_volume("b", 1 << 16)
    set_long(a, 3)
    set_long(b, 6)
    high = store.engine.reserved_pages
    assert high == longest_chain(store) > len(a.blob.chain) > 2
    set_long(b, 1)
    assert store.engine.reserved_pages == len(a.blob.chain)
    a.delete()
    assert store.engine.reserved_pages == longest_chain(store) < 3


@pytest.mark.parametrize("seed", range(5))
def test_after_any_changes_it_is_that_of_the_longest_chain(make_store, seed):
    chance = random.Random(seed)
    store = make_store()
    for number in range(40):
        lvols = store.lvols
        if not lvols or chance.random() < 0.3:
            store.create_volume(f"v{number}", 1 << 16)
        elif chance.random() < 0.3:
            chance.choice(lvols).delete()
        else:
            set_long(chance.choice(lvols), chance.randint(1, 4))
        assert store.engine.reserved_pages == longest_chain(store)
