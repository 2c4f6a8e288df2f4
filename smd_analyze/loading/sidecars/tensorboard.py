"""TensorBoard event files: scalars whose tags are hyperparameters; everything else is passed over unread.

Framing: TFRecord (length u64, masked crc32c of it, payload, masked crc32c of that). Payload: tensorflow/core/util/
event.proto, summary.proto.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from smd_analyze.loading.encodings.protobuf import WIDTHS, Message, signed
from smd_analyze.loading.files.sources import Source, open_source
from smd_analyze.loading.settings.key_words import hyperparameter
from smd_analyze.loading.sidecars.base import EPOCHS, MOST_POINTS, Noted, Reader, Sidecar
from smd_analyze.loading.sidecars.columns import sorted_series
from smd_analyze.loading.sidecars.crc32c import masked
from smd_analyze.loading.tensors.inert_objects import Span

SMALL = 1 << 14  # payloads up to this are looked through for a promising word before they are parsed
PROMISING = re.compile(rb"lr|learning|rate|weight|wd|momentum", re.IGNORECASE)
STEP, SUMMARY = 2, 5  # fields of Event
TAG, SIMPLE, TENSOR = 1, 2, 8  # fields of Summary.Value
FLOAT, DOUBLE = 1, 2  # TensorProto.dtype


def matches(name: str) -> bool:
    """Every writer puts this word into the name."""
    return "tfevents" in name.rpartition("/")[2] and not name.endswith((".profile-empty", ".v2.profile-empty"))


def read(path: str) -> Sidecar:
    """Every series of a hyperparameter. A record that is cut off or damaged ends the file: it may be being written."""
    found: dict[str, list[tuple[float, float]]] = {}
    with open_source(path) as source:
        for node in records(source):
            told = list(scalars(node))
            if told and isinstance(node, InMemory) and not node.sound():
                break
            for tag, step, value in told:
                series = found.setdefault(tag, [])
                if len(series) < MOST_POINTS:
                    series.append((step, value))
    return Sidecar(logs=tuple(made(tag, pairs) for tag, pairs in found.items()))


def made(tag: str, pairs: list[tuple[float, float]]) -> Noted:
    """Keras writes at the end of epochs, Lightning's monitor before the update."""
    unit = EPOCHS if tag.startswith("epoch_") else ""
    return sorted_series(hyperparameter(tag) or "", tag, unit, pairs, "next update" if tag.startswith("lr-") else None)


def records(source: Source) -> Iterator[Node]:
    """The payloads that may hold a hyperparameter; of large ones only where they lie."""
    message = Message(source)
    at = 0
    while at + 16 <= source.size:
        head = message.read(at, at + 12)
        length, check = struct.unpack("<QI", head)
        if masked(head[:8]) != check or at + 16 + length > source.size:
            return
        start, stop = at + 12, at + 12 + length
        at = stop + 4
        if length > SMALL:
            yield InFile(message, Span(start, stop))
            continue
        payload = message.read(start, at)
        if PROMISING.search(payload):
            yield InMemory(payload, 0, length)


class Node(Protocol):
    """A protobuf message: its fields as (number, a varint's value or None, the message or bytes that the field is)."""

    def fields(self) -> Iterator[tuple[int, int | None, Node]]:
        """In the order of the file."""
        ...

    def data(self) -> bytes:
        """The bytes themselves, of a short field."""
        ...


@dataclass(frozen=True, slots=True)
class InFile:
    """A message that is left in its file: large fields of it are passed over unread."""

    message: Message
    span: Span

    def fields(self) -> Iterator[tuple[int, int | None, Node]]:
        """See Node."""
        for part in self.message.fields(self.span):
            yield part.number, part.value if part.wire == 0 else None, InFile(self.message, part.span)

    def data(self) -> bytes:
        """At most SMALL bytes."""
        return self.message.read(self.span.start, min(self.span.stop, self.span.start + SMALL))


@dataclass(frozen=True, slots=True)
class InMemory:
    """A small message, which most are; of a whole record, its checksum stands behind it."""

    raw: bytes
    start: int
    stop: int

    def sound(self) -> bool:
        """The record is as it was written."""
        return masked(self.raw[:-4]) == int.from_bytes(self.raw[-4:], "little")

    def fields(self) -> Iterator[tuple[int, int | None, Node]]:
        """See Node. Ends where the bytes make no sense."""
        raw, at, stop = self.raw, self.start, self.stop
        while at < stop:
            tag, at = varint(raw, at, stop)
            wire, value, begin = tag & 7, None, at
            if wire == 0:
                value, at = varint(raw, at, stop)
            elif wire == 2:
                length, begin = varint(raw, at, stop)
                at = begin + length
            elif wire in WIDTHS:
                at += WIDTHS[wire]
            else:
                return
            if at > stop:
                return
            yield tag >> 3, value, InMemory(raw, begin, at)

    def data(self) -> bytes:
        """All of it."""
        return self.raw[self.start : self.stop]


def varint(raw: bytes, at: int, stop: int) -> tuple[int, int]:
    """(an unsigned integer, first byte behind it); behind the end if it is cut off."""
    value = shift = 0
    while at < stop:
        byte = raw[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    return value, stop + 1


def scalars(event: Node) -> Iterator[tuple[str, int, float]]:
    """(tag, step, value) of an event's hyperparameters."""
    step, summaries = 0, []
    for number, value, node in event.fields():
        if number == STEP and value is not None:
            step = signed(value)
        elif number == SUMMARY and value is None:
            summaries.append(node)
    for summary in summaries:
        for number, _, node in summary.fields():
            found = tagged(node) if number == 1 else None
            if found is not None:
                yield found[0], step, found[1]


def tagged(node: Node) -> tuple[str, float] | None:
    """(tag, value) of a Summary.Value that is one number of a hyperparameter. The tag stands before the value."""
    tag = ""
    for number, _, part in node.fields():
        if number == TAG:
            tag = part.data().decode("utf-8", "replace")
            if hyperparameter(tag) is None:
                return None
        elif number in (SIMPLE, TENSOR) and tag:
            value = one(part.data()) if number == SIMPLE else scalar(part)
            if value is not None:
                return tag, value
    return None


def scalar(tensor: Node) -> float | None:
    """The one number of a TensorProto of floats."""
    kind, raw = 0, b""
    for number, value, part in tensor.fields():
        if number == 1 and value is not None:
            kind = value
        elif number in (4, 5, 6):
            raw = part.data()
    return one(raw) if (kind, len(raw)) in ((FLOAT, 4), (DOUBLE, 8)) else None


def one(raw: bytes) -> float | None:
    """A float32 as short as it is written (0.1 for 0.10000000149), or a float64."""
    if len(raw) not in (4, 8):
        return None
    return float(str(np.frombuffer(raw, "<f4" if len(raw) == 4 else "<f8")[0]))


READER = Reader("TensorBoard", matches, read)
