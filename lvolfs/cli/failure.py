"""How a command ends that does not succeed, and the exit statuses."""

DONE = 0
FAILED = 1
USAGE = 2
MISMATCH = 3
INTERRUPTED = 130


class CommandFailedError(Exception):
    """The operation failed: one line for stderr that says what, which object, what to do."""
