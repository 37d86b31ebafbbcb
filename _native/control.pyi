def enter_background() -> None:
    """Lowers the CPU and I/O priority of the calling thread, for good: for job threads only."""

class Control:
    """Progress, cancellation and rate limit of a background operation; shared by its threads
    and by the loops that it runs one after the other.

    Counters only grow and may be read at any time. `rate` is bytes per second counted at
    the source, 0 = no limit, and may be changed while the loop runs.
    """

    rate: int
    def __init__(self, *, rate: int = 0) -> None: ...
    def cancel(self) -> None:
        """The loop ends within about 20 ms plus the slice under way, with ECANCELED."""
    @property
    def cancelled(self) -> bool: ...
    @property
    def copied(self) -> int:
        """Clusters."""
    @property
    def unmapped(self) -> int:
        """Clusters."""
    @property
    def hashed(self) -> int:
        """Clusters."""
    @property
    def bytes_read(self) -> int: ...
    @property
    def bytes_written(self) -> int: ...
