"""A change that is refused because a file is open, of a file that is closed a moment later."""

import errno

import pytest
import trio

from lvolfs.mount import late_releases
from lvolfs.mount.late_releases import LateReleases


class Store:
    """A change of it succeeds once its one file is closed."""

    def __init__(self) -> None:
        self.open_files = {1: "file"}
        self.releases = LateReleases(self.open_files)
        self.attempts = 0
        self.closes_during_attempt = False

    def close(self) -> None:
        del self.open_files[1]
        self.releases.note()

    def change(self) -> str:
        self.attempts += 1
        if not self.open_files:
            return "changed"
        if self.closes_during_attempt:
            trio.from_thread.run_sync(self.close)
        raise OSError(errno.EBUSY, "open")


async def test_it_is_tried_again_when_the_file_is_closed() -> None:
    store = Store()
    async with trio.open_nursery() as nursery:

        async def close_later() -> None:
            while not store.attempts:
                await trio.sleep(0.001)
            store.close()

        nursery.start_soon(close_later)
        assert await store.releases.patiently(store.change) == "changed"


async def test_the_last_file_may_be_closed_during_the_attempt() -> None:
    """Nothing is open any more when the refusal is looked at."""
    store = Store()
    store.closes_during_attempt = True
    assert await store.releases.patiently(store.change) == "changed"
    assert store.attempts == 2


async def test_a_file_that_stays_open_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_releases, "PATIENCE", 0.05)
    store = Store()
    with pytest.raises(OSError, match="open") as info:
        await store.releases.patiently(store.change)
    assert (info.value.errno, store.attempts) == (errno.EBUSY, 1)


async def test_with_nothing_open_it_is_refused_at_once() -> None:
    store = Store()
    store.open_files.clear()

    def refuse() -> None:
        raise OSError(errno.EBUSY, "has clones")

    with trio.fail_after(0.5), pytest.raises(OSError, match="has clones"):
        await store.releases.patiently(refuse)


async def test_other_errors_are_not_waited_for() -> None:
    store = Store()

    def fail() -> None:
        raise OSError(errno.ENOSPC, "full")

    with trio.fail_after(0.5), pytest.raises(OSError, match="full"):
        await store.releases.patiently(fail)


async def test_files_that_come_and_go_do_not_make_it_endless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(late_releases, "PATIENCE", 0.05)
    store = Store()

    def refuse() -> None:
        trio.from_thread.run_sync(store.releases.note)
        raise OSError(errno.EBUSY, "open")

    with trio.fail_after(5), pytest.raises(OSError, match="open"):
        await store.releases.patiently(refuse)
