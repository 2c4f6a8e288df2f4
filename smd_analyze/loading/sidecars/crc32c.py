"""The checksum of TFRecord files (CRC-32C, Castagnoli), masked as they mask it. Source: RFC 3720, B.4."""

from __future__ import annotations

TABLE: list[int] = []
for _byte in range(256):
    _value = _byte
    for _ in range(8):
        _value = (_value >> 1) ^ (0x82F63B78 if _value & 1 else 0)
    TABLE.append(_value)


def masked(data: bytes) -> int:
    """crc32c, rotated by 15 bits and shifted by a constant."""
    value = 0xFFFFFFFF
    for byte in data:
        value = TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
