CONNECT_SECONDS: float
"""For which connecting may take by itself."""

class NbdTarget:
    """A connection to an NBD export; OSError names the URI and the server's answer.

    It is read and written through an Endpoint. ETIMEDOUT: not connected within `connect_seconds`,
    or a request unanswered for `patience` seconds. The latter closes the connection: it cannot be
    used again.
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
    def close(self) -> None:
        """Says goodbye; a server that does not take it is left after a few seconds."""
