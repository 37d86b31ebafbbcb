from types import TracebackType

class NbdTarget:
    """A connection to an NBD export; OSError names the URI and the server's answer.

    ETIMEDOUT: not connected within `connect_seconds`, or a request unanswered for `patience`
    seconds. The latter closes the connection: it cannot be used again.
    """

    uri: str
    def __init__(
        self, uri: str, *, patience: float = ..., connect_seconds: float = ...
    ) -> None: ...
    @property
    def size(self) -> int:
        """Bytes."""
    @property
    def read_only(self) -> bool: ...
    @property
    def can_flush(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    def pread(self, length: int, offset: int) -> bytes: ...
    def close(self) -> None:
        """Says goodbye; a server that does not take it is left after a few seconds."""
    def __enter__(self) -> NbdTarget: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...
