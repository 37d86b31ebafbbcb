"""Cuts a byte stream into JSON objects, as SPDK frames them: one after another, nothing between.

Linear in the bytes received, however they are chopped up.
"""

import json
import re
from typing import Any

MAX_REQUEST = 1 << 20
MAX_DEPTH = 64

_STRUCTURE = re.compile(rb'[{}\[\]"]')
_STRING_END = re.compile(rb'["\\]')
_SPACE = b" \t\r\n"


class FramingError(ValueError):
    """The stream cannot be cut any further: answer with a parse error and hang up."""


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class ObjectStream:
    """Feed bytes, take out the JSON objects and arrays that are complete."""

    def __init__(self, limit: int = MAX_REQUEST) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._restart()

    def _restart(self) -> None:
        self._position = 0
        self._depth = 0
        self._in_string = False

    def feed(self, data: bytes) -> list[Any]:
        """The values that `data` completes. Raises FramingError; values before it are lost
        unless taken with `completed`. `sizes`: the bytes that each of them had."""
        self.completed: list[Any] = []
        self.sizes: list[int] = []
        self._buffer += data
        while (end := self._find_end()) is not None:
            raw = bytes(self._buffer[:end])
            del self._buffer[:end]
            self._restart()
            try:
                self.completed.append(json.loads(raw, parse_constant=_reject_constant))
                self.sizes.append(end)
            except (ValueError, RecursionError) as error:
                raise FramingError(f"not JSON: {error}") from error
        if len(self._buffer) > self._limit:
            raise FramingError(f"a request is larger than {self._limit} bytes")
        return self.completed

    @property
    def partial(self) -> bool:
        """Bytes of an unfinished value are waiting."""
        return bool(self._buffer)

    def _find_end(self) -> int | None:
        if self._depth == 0:
            start = 0
            while start < len(self._buffer) and self._buffer[start] in _SPACE:
                start += 1
            if start:
                del self._buffer[:start]
            if not self._buffer:
                return None
            if self._buffer[0] not in b"{[":
                raise FramingError("a request must be a JSON object")
        while True:
            pattern = _STRING_END if self._in_string else _STRUCTURE
            found = pattern.search(self._buffer, self._position)
            if found is None:
                self._position = len(self._buffer)
                return None
            character = found.group()
            if character == b"\\":
                if found.end() == len(self._buffer):
                    self._position = found.start()
                    return None
                self._position = found.end() + 1
                continue
            self._position = found.end()
            if character == b'"':
                self._in_string = not self._in_string
            elif character in b"{[":
                self._depth += 1
                if self._depth > MAX_DEPTH:
                    raise FramingError(f"a request is nested deeper than {MAX_DEPTH} levels")
            else:
                self._depth -= 1
                if self._depth == 0:
                    return self._position
