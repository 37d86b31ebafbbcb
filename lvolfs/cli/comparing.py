"""The clusters that differ between two snapshots, wherever their stores are open."""

from typing import Any

from lvolfs.cli.opening import Session, open_target, split_target
from lvolfs.delta.content import Content, LvolContent
from lvolfs.delta.diff import diff_contents
from lvolfs.rpc.remote_content import RemoteContent


def compare(target: str, snap_a: str, snap_b: str) -> dict[str, Any]:
    """SNAP_B may be OTHER_TARGET:SNAP_B."""
    elsewhere = split_target(snap_b)
    with open_target(target) as session:
        if elsewhere is None:
            result: dict[str, Any] = session.call(
                "lvolfs_diff", a=session.lvol(snap_a), b=session.lvol(snap_b)
            )
            return result
        with open_target(elsewhere[0]) as other:
            a, b = content(session, snap_a), content(other, elsewhere[1])
            return diff_contents(a, b).as_dict()


def content(session: Session, reference: str) -> Content:
    """What an lvol shows, whoever has its store open."""
    if session.local_store is not None:
        return LvolContent(session.local_store.get(reference))
    return RemoteContent(session.caller, session.lvol(reference))
