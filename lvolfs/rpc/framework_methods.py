"""The target itself: version, subsystems, log levels, its end."""

import errno
import logging
import os
import signal
import threading
from typing import Any

from lvolfs import __version__
from lvolfs.bdev.apart import start_thread
from lvolfs.rpc.errors import INVALID_PARAMS, RpcError
from lvolfs.rpc.table import METHODS, method
from lvolfs.rpc.target import Target

COMPATIBLE = (24, 9, 1)
"""The release of SPDK whose answers were recorded and are given here."""

WRONG_STATE = -1


INVALID_PARAMETERS = (INVALID_PARAMS, "Invalid parameters")


@method("rpc_get_methods", decode_error=INVALID_PARAMETERS)
def get_methods(
    target: Target,  # noqa: ARG001
    *,
    current: bool = False,
    include_aliases: bool = True,  # noqa: ARG001
) -> list[str]:
    """current: without what can only be called before SPDK is initialized."""
    return sorted(name for name, each in METHODS.items() if not (current and each.startup_only))


@method("spdk_get_version", no_parameters="spdk_get_version method requires no parameters")
def get_version(target: Target) -> dict[str, Any]:  # noqa: ARG001
    major, minor, patch = COMPATIBLE
    suffix = f"-lvolfs-{__version__}"
    return {
        "version": f"SPDK v{major}.{minor:02d}.{patch}{suffix}",
        "fields": {"major": major, "minor": minor, "patch": patch, "suffix": suffix},
    }


@method("framework_wait_init")
def wait_init(target: Target) -> bool:  # noqa: ARG001
    return True


@method("framework_start_init", startup_only=True)
def start_init(target: Target) -> bool:  # noqa: ARG001
    raise RpcError(
        WRONG_STATE,
        "Method may only be called before framework is initialized. Use --wait-for-rpc command "
        "line parameter and then issue this RPC before the framework_start_init RPC.",
        number=errno.EPERM,
    )


@method(
    "framework_get_subsystems",
    no_parameters="'framework_get_subsystems' requires no arguments",
)
def get_subsystems(target: Target) -> list[dict[str, Any]]:  # noqa: ARG001
    return [{"subsystem": "bdev", "depends_on": []}]


SIGNALS = ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGKILL", "SIGUSR1")
REPLY_TIME = 0.1
"""Seconds between the answer and the signal, for the answer to leave."""


@method("spdk_kill_instance", decode_error=INVALID_PARAMETERS)
def kill_instance(target: Target, *, sig_name: str) -> bool:  # noqa: ARG001
    known = {name: getattr(signal, name) for name in SIGNALS}
    by_number = {str(int(number)): number for number in known.values()}
    text = sig_name.upper()
    chosen = known.get(text) or known.get(f"SIG{text}") or by_number.get(text)
    if chosen is None:
        raise RpcError(
            INVALID_PARAMS, "Invalid parameters", detail=f"{sig_name!r}: one of {list(SIGNALS)}"
        )
    start_thread(threading.Timer(REPLY_TIME, os.kill, (os.getpid(), chosen)))
    return True


# -- log

LEVELS = {
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "NOTICE": logging.INFO,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
}
FLAGS = ("bdev", "blobstore", "cli", "delta", "lvstore", "mount", "rpc")
"""One per package: debug messages of it."""

_named = {"log": "NOTICE", "print": "NOTICE"}


def _set_level(which: str, level: str) -> bool:
    name = level.upper()
    if name not in LEVELS:
        raise RpcError(
            INVALID_PARAMS, "invalid log level", detail=f"{level!r}: one of {', '.join(LEVELS)}"
        )
    _named[which] = name
    logging.getLogger().setLevel(LEVELS[name])
    return True


@method("log_set_level")
def log_set_level(target: Target, *, level: str) -> bool:  # noqa: ARG001
    return _set_level("log", level)


@method("log_get_level")
def log_get_level(target: Target) -> str:  # noqa: ARG001
    return _named["log"]


@method("log_set_print_level")
def log_set_print_level(target: Target, *, level: str) -> bool:  # noqa: ARG001
    """There is one log; its level is set, too."""
    return _set_level("print", level)


@method("log_get_print_level")
def log_get_print_level(target: Target) -> str:  # noqa: ARG001
    return _named["print"]


def _loggers(flag: str) -> list[logging.Logger]:
    if flag != "all" and flag not in FLAGS:
        raise RpcError(
            INVALID_PARAMS, "invalid log flag", detail=f"{flag!r}: all or one of {', '.join(FLAGS)}"
        )
    return [logging.getLogger(f"lvolfs.{each}") for each in FLAGS if flag in ("all", each)]


@method("log_set_flag")
def log_set_flag(target: Target, *, flag: str) -> bool:  # noqa: ARG001
    for logger in _loggers(flag):
        logger.setLevel(logging.DEBUG)
    return True


@method("log_clear_flag")
def log_clear_flag(target: Target, *, flag: str) -> bool:  # noqa: ARG001
    for logger in _loggers(flag):
        logger.setLevel(logging.NOTSET)
    return True


@method("log_get_flags")
def log_get_flags(target: Target) -> dict[str, bool]:  # noqa: ARG001
    return {each: logging.getLogger(f"lvolfs.{each}").level == logging.DEBUG for each in FLAGS}
