"""A process in the background: detached once it is ready, with its errors
told in the foreground until then."""

import logging
import logging.handlers
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from lvolfs.cli.failure import DONE, FAILED, CommandFailedError

_HEADER = struct.Struct("=II")
"""Exit status and length of the message that follows, from the daemon to its parent."""


SYSLOG = "/dev/log"


def log_to(file: str | None, otherwise: str) -> None:
    """Messages of the daemon: to a file if one is named, else to syslog, else, where there is
    none, to the file `otherwise`, which is begun anew."""
    if file is None and Path(SYSLOG).exists():
        handler: logging.Handler = logging.handlers.SysLogHandler(SYSLOG)
        handler.setFormatter(logging.Formatter("lvolfs[%(process)d]: %(message)s"))
    else:
        named = file is not None
        handler = logging.FileHandler(file or otherwise, mode="a" if named else "w")
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s")
        )
    # A log that cannot be written is no reason to print in the middle of anything.
    logging.raiseExceptions = False
    _install(handler)


def log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("lvolfs: %(message)s"))
    _install(handler)


def _install(handler: logging.Handler) -> None:
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if os.environ.get("LVOLFS_DEBUG") else logging.INFO)


def start(
    serve: Callable[[Callable[[], None]], None],
    *,
    foreground: bool,
    describe: Callable[[Exception], str],
    log_file: str | None,
    fallback_log: str,
) -> None:
    """Runs serve(on_ready) here, or in the background; then returns once it is ready."""
    if foreground:
        log_to_stderr()
        serve(lambda: None)
        return
    if log_file is not None:
        check_log_file(log_file)
    status, message = in_background(
        serve, describe=describe, log_file=log_file, fallback_log=fallback_log
    )
    if status:
        raise CommandFailedError(message)


def in_background(
    serve: Callable[[Callable[[], None]], None],
    *,
    describe: Callable[[Exception], str],
    log_file: str | None,
    fallback_log: str,
) -> tuple[int, str]:
    """Runs serve(on_ready) in a new session of its own.

    Returns in the parent when the daemon has called on_ready, (0, ""), or has failed, with
    exit status and message. The daemon itself never returns.
    """
    read_end, write_end = os.pipe()
    log_path = os.path.abspath(log_file) if log_file is not None else None  # noqa: PTH100
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _become_daemon(serve, write_end, describe, (log_path, fallback_log))
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if len(answer) < _HEADER.size:
        return FAILED, "the daemon ended before the mount was ready; LVOLFS_DEBUG=1 may show why"
    status, length = _HEADER.unpack_from(answer)
    return status, answer[_HEADER.size : _HEADER.size + length].decode()


def _become_daemon(
    serve: Callable[[Callable[[], None]], None],
    write_end: int,
    describe: Callable[[Exception], str],
    logs: tuple[str | None, str],
) -> None:
    """Forks once more, so that the daemon is nobody's child and leads no session."""
    status = FAILED
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(DONE)
        told = False

        def tell(code: int, message: str) -> None:
            nonlocal told
            if not told:
                told = True
                text = message.encode()
                os.write(write_end, _HEADER.pack(code, len(text)) + text)
                os.close(write_end)

        def on_ready() -> None:
            # If nobody waits any more this raises, and the mount goes away again.
            _let_go_of_terminal()
            tell(DONE, "")

        try:
            log_to(*logs)
            os.chdir("/")
            serve(on_ready)
            status = DONE
        except Exception as error:
            logging.getLogger(__name__).exception("the daemon failed")
            tell(FAILED, describe(error))
    finally:
        logging.shutdown()
        os._exit(status)


def _let_go_of_terminal() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


def check_log_file(path: str) -> None:
    """Raises OSError now rather than in the daemon."""
    with Path(path).open("a"):
        pass
