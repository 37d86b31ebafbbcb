from collections.abc import Sequence

def become(uid: int, gid: int, groups: Sequence[int]) -> None:
    """Gives the calling thread, and no other, the effective ids and the groups of somebody else.

    It loses with them what root may do beyond that. For a thread that ends soon after: what else
    it then does is done with those rights, too. OSError: EPERM unless the process is root's.
    """
