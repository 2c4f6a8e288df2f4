"""TensorFlow checkpoints (tensor bundle V2): PREFIX.index, a sorted table of entries, and PREFIX.data-I-of-N.

Sources: tensorflow/core/util/tensor_bundle, tensor_bundle.proto, trackable_object_graph.proto; LevelDB's table format;
tensorflow/core/lib/strings/ordered_code.h for the keys of tensors that are cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.encodings.protobuf import Message, signed
from smd_analyze.loading.files import listing
from smd_analyze.loading.files.sources import FileId, Source, open_source
from smd_analyze.loading.formats.base import Document, Format, shared
from smd_analyze.loading.tensors.inert_objects import Inert, Span
from smd_analyze.loading.tensors.places import Place, joined, placed

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
FOOTER = 48
MOST_SHARDS = 100_000
GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"
DATA = re.compile(r"\.data-\d{5}-of-\d{5}$")
STRING = 7
DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 8: "complex64", 9: "int64", 10: "bool",
    14: "bfloat16", 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32", 23: "uint64", 24: "float8_e5m2",
    25: "float8_e4m3fn",
}  # fmt: skip
"""tensorflow/core/framework/types.proto → torch's names."""


@dataclass
class Entry:
    """One BundleEntryProto: where a tensor, or a slice of one, lies. `cut` tells that slices hold it."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    cut: bool = False


def matches(source: Source) -> bool:
    """An .index by its last eight bytes."""
    if source.size < FOOTER or not source.path.endswith(".index"):
        return False
    return source.read(source.size - 8, source.size) == MAGIC


def open_document(source: Source, previous: Document | None) -> Document:
    """{"tensors": {key: Place}, "names": {key: the variable's full name}}; the files are the index and the shards."""
    entries, count = read_index(source)
    stem = source.path.removesuffix(".index")
    files = [source.file]
    for number in range(count):
        path = f"{stem}.data-{number:05d}-of-{count:05d}"
        try:
            files.append(listing.identity(path))
        except (FileNotFoundError, IsADirectoryError):
            missing = listing.name_of(path)
            raise DamagedFile(f"{source.path}: {missing} is missing; copy it beside the index") from None
    tree = {"tensors": read_places(entries, files), "names": object_names(entries, files)}
    return Document(source.path, FORMAT.name, shared(tree, previous), tuple(files))


def read_index(source: Source) -> tuple[dict[bytes, Entry], int]:
    """(key → entry, number of shards)."""
    message = Message(source)
    at = source.size - FOOTER
    for _ in range(2):  # the metaindex block, which is empty
        _, at = message.varint(at, source.size)
    start, at = message.varint(at, source.size)
    size, _ = message.varint(at, source.size)
    entries: dict[bytes, Entry] = {}
    count = 1
    for _, span in block(message, start, size):
        begin, at = message.varint(span.start, span.stop)
        length, _ = message.varint(at, span.stop)
        for key, value in block(message, begin, length):
            if key:
                entries[key] = read_entry(message, value)
            else:
                count = next((f.value for f in message.fields(value) if f.number == 1), 1)
    if not 0 <= count <= MOST_SHARDS:
        raise DamagedFile(f"{source.path}: claims {count} data files")
    return entries, count


def block(message: Message, start: int, size: int) -> Iterator[tuple[bytes, Span]]:
    """(key, where its value lies) in a block: keys share their beginning with the key before; restarts at the end."""
    source = message.source
    if start + size + 5 > source.size or size < 4:
        raise DamagedFile(f"{source.path}: a block of its table leaves the file: truncated?")
    if source.read(start + size, start + size + 1) != b"\0":
        raise UnsafeFile(f"{source.path}: refused: its table is compressed, which TensorFlow does not do")
    restarts = int.from_bytes(source.read(start + size - 4, start + size), "little")
    at, end, key = start, start + size - 4 - 4 * restarts, b""
    while at < end:
        same, at = message.varint(at, end)
        new, at = message.varint(at, end)
        length, at = message.varint(at, end)
        if same > len(key) or at + new + length > end:
            raise DamagedFile(f"{source.path}: its table is not sound at byte {at}")
        key = key[:same] + message.read(at, at + new)
        at += new
        yield key, Span(at, at + length)
        at += length


def read_entry(message: Message, span: Span) -> Entry:
    """BundleEntryProto: dtype 1, shape 2 (dimensions 2, each with its size 1), shard 3, offset 4, size 5, slices 7."""
    entry = Entry()
    for field in message.fields(span):
        if field.number == 2 and field.wire == 2:
            sizes = [
                next((signed(f.value) for f in message.fields(dimension.span) if f.number == 1), 0)
                for dimension in message.fields(field.span)
                if dimension.number == 2 and dimension.wire == 2
            ]
            entry.shape = tuple(sizes)
        elif field.number == 7:
            entry.cut = True
        elif field.number in (1, 3, 4, 5) and field.wire == 0:
            setattr(entry, {1: "dtype", 3: "shard", 4: "offset", 5: "size"}[field.number], signed(field.value))
    return entry


def read_places(entries: dict[bytes, Entry], files: list[FileId]) -> dict[str, Any]:
    """Key → Place for every tensor of numbers; tensors that are cut are put together from their slices."""
    pieces: dict[str, list[tuple[tuple[int, ...], Place]]] = {}
    for key, entry in entries.items():
        if key[:1] == b"\0":
            name, starts = slice_of(key, files[0].path)
            pieces.setdefault(name, []).append((starts, place_of(entry, files, name)))
    out: dict[str, Any] = {}
    for key, entry in entries.items():
        name = key.decode("utf-8", "backslashreplace")
        if key[:1] == b"\0" or entry.dtype == STRING:
            continue
        if entry.dtype not in DTYPES:
            out[name] = Inert(f"tensor of TensorFlow's type {entry.dtype}")
        elif entry.cut:
            out[name] = joined(entry.shape, DTYPES[entry.dtype], pieces.get(name, []), f"{files[0].path}: {name}")
        else:
            out[name] = place_of(entry, files, name)
    return out


def place_of(entry: Entry, files: list[FileId], name: str) -> Place:
    """One entry's place; DamagedFile if it leaves its data file."""
    what = f"{files[0].path}: {name}"
    if not 0 <= entry.shard < len(files) - 1:
        raise DamagedFile(f"{what}: lies in data file {entry.shard} of {len(files) - 1}")
    if entry.dtype not in DTYPES:
        raise DamagedFile(f"{what}: a slice of TensorFlow's type {entry.dtype}")
    file = files[entry.shard + 1]
    if entry.offset < 0 or entry.size < 0 or entry.offset + entry.size > file.size:
        raise DamagedFile(f"{what}: lies outside {listing.name_of(file.path)}: truncated?")
    place = placed(entry.shape, None, DTYPES[entry.dtype], 0, entry.offset, entry.size, what)
    return Place(place.shape, place.dtype, place.start, file=entry.shard + 1)


def slice_of(key: bytes, path: str) -> tuple[str, tuple[int, ...]]:
    """(tensor, where the slice begins on each axis) of a slice's key: 0, name, axes, then start and length of each."""
    try:
        _, at = ordered_number(key, 0)
        name, at = ordered_text(key, at)
        axes, at = ordered_number(key, at)
        starts: list[int] = []
        for _ in range(axes):
            start, at = ordered_signed(key, at)
            length, at = ordered_signed(key, at)
            starts.append(0 if length < 0 else start)  # length −1 means the whole axis
    except IndexError:
        raise DamagedFile(f"{path}: the key of a slice is cut short") from None
    return name.decode("utf-8", "backslashreplace"), tuple(starts)


def ordered_number(key: bytes, at: int) -> tuple[int, int]:
    """An unsigned number: how many bytes, then these, the highest first."""
    stop = at + 1 + key[at]
    if stop > len(key):
        raise IndexError
    return int.from_bytes(key[at + 1 : stop], "big"), stop


def ordered_text(key: bytes, at: int) -> tuple[bytes, int]:
    """Text up to 00 01; 00 FF stands for a zero byte, FF 00 for FF."""
    out = bytearray()
    while True:
        byte, after = key[at], key[at + 1] if key[at] in (0, 255) else 0
        if byte == 0 and after == 1:
            return bytes(out), at + 2
        out.append(byte)
        at += 2 if byte in (0, 255) else 1


def ordered_signed(key: bytes, at: int) -> tuple[int, int]:
    """A signed number: as many leading ones as bytes, then a zero, then the value; all inverted if negative."""
    negative = key[at] < 128
    first = key[at] ^ (255 if negative else 0)
    length = 8 - (first ^ 255).bit_length()
    if length > 7 or at + length > len(key):
        raise IndexError
    raw = key[at : at + length]
    value = int.from_bytes(bytes(b ^ 255 for b in raw) if negative else raw, "big") & ((1 << (7 * length - 1)) - 1)
    return (~value if negative else value), at + length


def object_names(entries: dict[bytes, Entry], files: list[FileId]) -> dict[str, str]:
    """Key → the variable's full name, as the saved graph of objects tells it; {} for checkpoints of TensorFlow 1."""
    entry = entries.get(GRAPH)
    if entry is None or not 0 <= entry.shard < len(files) - 1:
        return {}
    out: dict[str, str] = {}
    with open_source(files[entry.shard + 1].path) as source:
        message = Message(source)
        end = entry.offset + entry.size
        if entry.offset < 0 or end > source.size:
            raise DamagedFile(f"{source.path}: its graph of objects lies outside the file: truncated?")
        length, at = message.varint(entry.offset, end)  # a string tensor: length, checksum of 4 bytes, text
        if at + 4 + length > end:
            raise DamagedFile(f"{source.path}: its graph of objects is longer than its entry says")
        for node in message.fields(Span(at + 4, at + 4 + length)):
            if node.number != 1 or node.wire != 2:
                continue
            for attribute in message.fields(node.span):
                if attribute.number == 2 and attribute.wire == 2:
                    texts = {f.number: message.text(f) for f in message.fields(attribute.span) if f.wire == 2}
                    if texts.get(3):
                        out[texts[3]] = texts.get(2, "")
    return out


def is_part(name: str, files: list[str]) -> bool:
    """A data file or a graph that belongs to an index in the same folder."""
    stem = DATA.sub("", name.removesuffix(".meta"))
    return stem != name and f"{stem}.index" in files


FORMAT = Format("TensorFlow checkpoint", matches, open_document)
