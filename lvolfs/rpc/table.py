"""The method table: names, typed parameters, error codes. The daemon and the CLI share it."""

import errno
import functools
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

import pydantic

from lvolfs.rpc.errors import (
    ERRNO_CODE,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    RpcError,
)
from lvolfs.rpc.target import Target

U32 = Annotated[int, pydantic.Field(ge=0, lt=1 << 32)]
U64 = Annotated[int, pydantic.Field(ge=0, lt=1 << 64)]
Handler = TypeVar("Handler", bound=Callable[..., Any])

DECODE_FAILED = (INTERNAL_ERROR, "spdk_json_decode_object failed")


@dataclass(frozen=True)
class Method:
    """One entry of the table.

    failure_code is the code of an error that the operation itself ends with; SPDK's handlers
    differ in it. takes_long marks what may hold its caller for minutes; is_large, given the
    params, that its reply may all the same have megabytes. needs_a_member: params
    may be missing or null, but not an object without members. decode_error: code and message
    for parameters that are not as they should be; of methods without any, the message is
    no_parameters. startup_only: SPDK knows it, but not any more once it runs.
    """

    name: str
    handler: Callable[..., Any]
    failure_code: int
    takes_long: bool
    needs_a_member: bool = False
    decode_error: tuple[int, str] = DECODE_FAILED
    no_parameters: str | None = None
    startup_only: bool = False
    is_large: Callable[[Any], bool] | None = None

    def waits(self, params: Any) -> bool:
        """Whether it may take long with little to tell at the end."""
        return self.takes_long and not (self.is_large is not None and self.is_large(params))

    @functools.cached_property
    def parameters(self) -> type[pydantic.BaseModel]:
        """Made from the handler's keyword parameters at the first call: the table is long."""
        hints = get_type_hints(self.handler, include_extras=True)
        fields: dict[str, Any] = {}
        for parameter in inspect.signature(self.handler).parameters.values():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                required = parameter.default is inspect.Parameter.empty
                default = ... if required else parameter.default
                fields[parameter.name] = (hints[parameter.name], default)
        return pydantic.create_model(
            f"{self.name}_parameters",
            __config__=pydantic.ConfigDict(strict=True, extra="forbid"),
            **fields,
        )


METHODS: dict[str, Method] = {}


def always_large(_params: Any) -> bool:
    return True


def method(
    name: str,
    *,
    failure_code: int = INVALID_PARAMS,
    takes_long: bool = False,
    needs_a_member: bool = False,
    decode_error: tuple[int, str] = DECODE_FAILED,
    no_parameters: str | None = None,
    startup_only: bool = False,
    is_large: Callable[[Any], bool] | None = None,
) -> Callable[[Handler], Handler]:
    """Registers `handler(target, *, parameters...)` under a name.

    The annotations of its keyword parameters are what is accepted: JSON types are not
    converted, unknown names are refused, and a null only where the annotation has None.
    """

    def register(handler: Handler) -> Handler:
        METHODS[name] = Method(
            name,
            handler,
            failure_code,
            takes_long,
            needs_a_member,
            decode_error,
            no_parameters,
            startup_only,
            is_large,
        )
        return handler

    return register


own_method = functools.partial(method, failure_code=ERRNO_CODE)
"""For the methods that SPDK does not have: an error's code is the negative errno."""


# Halves of characters that JSON can write and UTF-8 cannot, but for those that stand for the bytes
# of file names that are not UTF-8.
_HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def _not_a_string(value: Any) -> str | None:
    """What is wrong with the first string in a JSON value that can be no C string, or None.

    SPDK's decoder refuses a NUL, too: names, xattr values and paths end there.
    """
    if isinstance(value, str):
        if "\0" in value:
            return f"{value!r} has a NUL character in it"
        if not value.isascii() and _HALVES.search(value):
            return f"{value!r} is not valid UTF-8"
        return None
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return next((wrong for wrong in map(_not_a_string, value) if wrong is not None), None)
    return None


def _decode(entry: Method, params: Any) -> dict[str, Any]:
    if params == {} and entry.needs_a_member:
        raise RpcError(
            -errno.EINVAL,
            os.strerror(errno.EINVAL),
            detail=f"{entry.name}: leave params out, or name something in them",
            number=errno.EINVAL,
        )
    if params is not None and not entry.parameters.model_fields:
        raise RpcError(
            INVALID_PARAMS, entry.no_parameters or f"{entry.name} requires no parameters"
        )
    if params is None:
        params = {}
    wrong = _not_a_string(params)
    if wrong is not None:
        raise RpcError(*entry.decode_error, detail=f"{entry.name}: {wrong}", number=errno.EINVAL)
    try:
        decoded = entry.parameters.model_validate(params)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "params"
        raise RpcError(
            *entry.decode_error,
            detail=f"{entry.name}: {where}: {first['msg']}",
        ) from error
    return {name: getattr(decoded, name) for name in decoded.model_fields_set}


def lookup(name: str) -> Method:
    try:
        return METHODS[name]
    except KeyError:
        raise RpcError(
            METHOD_NOT_FOUND, "Method not found", detail=f"there is no method {name!r}"
        ) from None


def dispatch(target: Target, name: str, params: Any = None) -> Any:
    """Runs a method in the calling thread. Everything that goes wrong is an RpcError."""
    entry = lookup(name)
    arguments = _decode(entry, params)
    try:
        return entry.handler(target, **arguments)
    except RpcError:
        raise
    except OSError as error:
        raise RpcError.from_os_error(error, entry.failure_code) from error
    except UnicodeEncodeError as error:
        # One that stands for a byte, in what has to be text.
        no_text = OSError(errno.EINVAL, f"{name}: {error.object!r} is not valid UTF-8")
        raise RpcError.from_os_error(no_text, entry.failure_code) from error
    except MemoryError as error:
        no_memory = OSError(errno.ENOMEM, f"{name}: {os.strerror(errno.ENOMEM)}")
        raise RpcError.from_os_error(no_memory, entry.failure_code) from error
    except Exception as error:
        # A bug, not a state of the world. The client gets a reply all the same.
        if os.environ.get("LVOLFS_DEBUG"):
            traceback.print_exc(file=sys.stderr)
        raise RpcError(
            INTERNAL_ERROR,
            "Internal error",
            detail=f"{name} failed unexpectedly: {type(error).__name__}: {error} "
            "(LVOLFS_DEBUG=1 in the daemon's environment logs where)",
        ) from error
