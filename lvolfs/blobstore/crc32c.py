"""CRC-32C (Castagnoli, reflected, initial value and final XOR all ones)."""

from lvolfs._native.metadata import crc32c_of as crc32c

__all__ = ["crc32c"]
