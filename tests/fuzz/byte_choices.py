"""Decisions taken from the bytes of a fuzzer: the same bytes make the same case again."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class ByteChoices:
    """Consumes bytes from the front; past their end every choice is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._position

    def take(self, length: int) -> bytes:
        piece = self._data[self._position : self._position + length]
        self._position += len(piece)
        return piece.ljust(length, b"\0")

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def below(self, limit: int) -> int:
        return self.number(1 if limit <= 256 else 4) % limit

    def one_of(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def rest(self, most: int) -> bytes:
        return self.take(min(most, self.left))
