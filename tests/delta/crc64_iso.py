"""CRC-64/GO-ISO in plain Python, to judge the native one by."""

_POLYNOMIAL = 0xD800000000000000
_ALL = 0xFFFFFFFFFFFFFFFF


def _make_table():
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _make_table()


def crc64(data, seed=0):
    value = seed ^ _ALL
    for byte in data:
        value = _TABLE[(value ^ byte) & 255] ^ value >> 8
    return value ^ _ALL
