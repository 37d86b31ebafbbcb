from lvolfs._native.blob import Bytes

def crc32c_of(data: Bytes) -> int:
    """CRC-32C of `data`."""
