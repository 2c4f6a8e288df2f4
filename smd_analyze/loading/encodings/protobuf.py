"""The wire format of protocol buffers, read in place: numbers as numbers, everything with a length as where it lies.

Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.blocks import Blocks
from smd_analyze.loading.tensors.inert_objects import Span

LONGEST_TEXT = 1 << 20
MOST_NUMBERS = 1 << 20
WIDTHS = {1: 8, 5: 4}  # wire types of fixed width: bytes


class Field(NamedTuple):
    """One field of a message: `value` is a number (wire type 0), else the bytes lie in `span`."""

    number: int
    wire: int
    value: int
    span: Span


class Message(Blocks):
    """An open file of protocol buffers; bytes are read in blocks, large fields are passed over."""

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """(an unsigned integer, first byte behind it)."""
        raw = self.read(at, min(at + 10, end))
        value = 0
        for i, byte in enumerate(raw):
            value |= (byte & 127) << 7 * i
            if byte < 128:
                return value, at + i + 1
        raise self.damaged(at)

    def fields(self, span: Span | None = None) -> Iterator[Field]:
        """The fields of the message that lies in the span, or of the whole file."""
        at, end = (span.start, span.stop) if span else (0, self.source.size)
        while at < end:
            begin = at
            tag, at = self.varint(at, end)
            wire, value = tag & 7, 0
            start = at
            if wire == 0:
                value, at = self.varint(at, end)
            elif wire == 2:
                length, start = self.varint(at, end)
                at = start + length
            elif wire in WIDTHS:
                at = start + WIDTHS[wire]
            else:
                raise self.damaged(begin)
            if at > end or tag < 8:
                raise self.damaged(begin)
            yield Field(tag >> 3, wire, value, Span(start, at))

    def text(self, field: Field) -> str:
        """A field as UTF-8; DamagedFile if it is longer than any name."""
        if field.wire != 2 or field.span.stop - field.span.start > LONGEST_TEXT:
            raise self.damaged(field.span.start)
        return self.read(field.span.start, field.span.stop).decode("utf-8", "replace")

    def numbers(self, field: Field) -> list[int]:
        """A repeated integer, one by one or packed, as signed 64-bit numbers."""
        if field.wire == 0:
            return [signed(field.value)]
        out: list[int] = []
        at = field.span.start
        while at < field.span.stop and len(out) < MOST_NUMBERS:
            value, at = self.varint(at, field.span.stop)
            out.append(signed(value))
        return out

    def damaged(self, at: int) -> DamagedFile:
        """The error for bytes that are no such message."""
        return DamagedFile(f"{self.source.path}: its protocol buffers are not sound at byte {at}: truncated?")


def signed(value: int) -> int:
    """A 64-bit integer in two's complement."""
    return value - (1 << 64) if value >= 1 << 63 else value
