"""JSON-RPC errors, with the codes and messages that SPDK's clients look for."""

import errno
import os
from typing import Any

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

ERRNO_CODE = 0
"""As a method's failure code: answer with the negative errno itself."""


class RpcError(Exception):
    """An error reply.

    code and message are the contract; detail names the object and the way out, number is the
    errno behind it. Both travel in the reply's `data`, which SPDK's clients do not read.
    """

    def __init__(
        self, code: int, message: str, *, detail: str | None = None, number: int | None = None
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.detail = detail
        self.number = number

    def __str__(self) -> str:
        return self.detail or self.message

    @classmethod
    def from_os_error(cls, error: OSError, code: int) -> "RpcError":
        """What a handler's OSError becomes: strerror as the message, the rest in `data`."""
        number = error.errno or errno.EIO
        detail = error.strerror or os.strerror(number)
        if error.filename is not None and str(error.filename) not in detail:
            detail = f"{error.filename}: {detail}"
        if code == ERRNO_CODE:
            code = -number
        return cls(code, os.strerror(number), detail=detail, number=number)

    @classmethod
    def no_such_device(cls, detail: str) -> "RpcError":
        return cls(-errno.ENODEV, os.strerror(errno.ENODEV), detail=detail, number=errno.ENODEV)

    @classmethod
    def from_reply(cls, error: dict[str, Any]) -> "RpcError":
        data = error.get("data")
        if not isinstance(data, dict):
            data = {}
        return cls(
            int(error.get("code", INTERNAL_ERROR)),
            str(error.get("message", "error without a message")),
            detail=data.get("detail"),
            number=data.get("errno"),
        )

    def reply(self) -> dict[str, Any]:
        """The `error` member of the reply."""
        member: dict[str, Any] = {"code": self.code, "message": self.message}
        data: dict[str, Any] = {}
        if self.number is not None:
            data["errno"] = self.number
        if self.detail is not None and self.detail != self.message:
            data["detail"] = self.detail
        if data:
            member["data"] = data
        return member
