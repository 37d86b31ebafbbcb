"""The command's entry point: every error becomes one line on stderr and an exit status."""

import os
import sys
import traceback

from typer.exceptions import Abort, TyperException

from lvolfs.cli.application import make_app
from lvolfs.cli.explanation import explain, first_cause
from lvolfs.cli.failure import DONE, FAILED, INTERRUPTED, USAGE, CommandFailedError
from lvolfs.rpc.errors import RpcError


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        status = make_app(words[0] if words else None)(
            arguments, prog_name="lvolfs", standalone_mode=False
        )
    except TyperException as error:
        message = error.format_message()
        if message.startswith("Usage:"):
            sys.stderr.write(message + "\n")
        elif message:
            _complain(f"{message} (--help shows how it goes)")
        return USAGE
    except (KeyboardInterrupt, Abort):
        _complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        cause = first_cause(error)
        if isinstance(cause, (CommandFailedError, RpcError, OSError)):
            _complain(explain(cause))
        else:
            _complain(
                f"this should not have happened: {type(cause).__name__}: {cause} "
                "(LVOLFS_DEBUG=1 shows where)"
            )
        return FAILED
    return status if isinstance(status, int) else DONE


def _complain(message: str) -> None:
    if os.environ.get("LVOLFS_DEBUG") and sys.exc_info()[0] is not None:
        traceback.print_exc()
    sys.stderr.write(f"lvolfs: {message}\n")


if __name__ == "__main__":
    sys.exit(main())
