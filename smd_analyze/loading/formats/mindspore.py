"""MindSpore's .ckpt: protocol buffers, one record per parameter (mindspore/ccsrc/utils/checkpoint.proto).

Checkpoint: value = 1, repeated. Value: tag (name) = 1, tensor = 2. Tensor: dims = 1, tensor_type = 2, content = 3.
Tensors above 512 MB stand in several records of one name, one after the other.
"""

from __future__ import annotations

from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.encodings.protobuf import Field, Message
from smd_analyze.loading.files.sources import Source
from smd_analyze.loading.formats.base import Document, Format, shared
from smd_analyze.loading.tensors.dtypes import ITEMSIZE
from smd_analyze.loading.tensors.inert_objects import Inert, Span
from smd_analyze.loading.tensors.places import Place, joined, placed

DTYPES = {
    "Float64": "float64", "Float32": "float32", "Float16": "float16", "BFloat16": "bfloat16", "Int64": "int64",
    "Int32": "int32", "Int16": "int16", "Int8": "int8", "UInt64": "uint64", "UInt32": "uint32", "UInt16": "uint16",
    "UInt8": "uint8", "Bool": "bool",
}  # fmt: skip


def matches(source: Source) -> bool:
    """Field 1 is a record whose own field 1 is a printable name and field 2 its tensor (0a … 0a … 12)."""
    head = source.head
    at = 1
    if head[:1] != b"\x0a":
        return False
    while at < len(head) and head[at] & 0x80:
        at += 1
    record = head[at + 1 :]
    if record[:1] != b"\x0a" or len(record) < 2 or record[1] & 0x80:
        return False
    name = record[2 : 2 + record[1]]
    printable = len(name) > 0 and name.isascii() and name.decode("ascii").isprintable()
    return printable and record[2 + record[1] :][:1] == b"\x12"


def open_document(source: Source, previous: Document | None) -> Document:
    """{name: Place}. What is no tensor of numbers (text, numbers beside the weights) is an Inert."""
    message = Message(source)
    slices: dict[str, list[tuple[list[int], str, Span]]] = {}
    for field in message.fields():
        if field.number == 1 and field.wire == 2:
            name, dims, kind, span = read_value(message, field)
            slices.setdefault(name, []).append((dims, kind, span))
    tree: dict[str, Any] = {n: tensor(parts, f"{source.path}: {n}") for n, parts in slices.items()}
    return Document(source.path, FORMAT.name, shared(tree, previous), (source.file,))


def read_value(message: Message, record: Field) -> tuple[str, list[int], str, Span]:
    """(name, dimensions, element type, where the elements lie) of one record."""
    name, kind, dims, span = "", "", [], Span(0, 0)
    for field in message.fields(record.span):
        if field.number == 1:
            name = message.text(field)
        elif field.number == 2 and field.wire == 2:
            for part in message.fields(field.span):
                if part.number == 1:
                    dims += message.numbers(part)
                elif part.number == 2:
                    kind = message.text(part)
                elif part.number == 3 and part.wire == 2:
                    span = part.span
    return name, dims, kind, span


def tensor(parts: list[tuple[list[int], str, Span]], what: str) -> Place | Inert:
    """One tensor of its records. MindSpore writes the shape of a scalar as [0]."""
    dims, kind, span = parts[0]
    dtype = DTYPES.get(kind)
    if dtype is None:
        return Inert(f"MindSpore {kind or 'value'}")
    whole = sum(s.stop - s.start for _, _, s in parts)
    if dims == [0] and whole == ITEMSIZE[dtype]:
        dims = []
    if len(parts) == 1:
        place = placed(dims, None, dtype, 0, span.start, span.stop - span.start, what)
        if place.nbytes != whole:
            raise DamagedFile(f"{what}: has {whole} bytes, its shape {tuple(dims)} needs {place.nbytes}")
        return place
    pieces: list[tuple[tuple[int, ...], Place]] = []
    begin = 0
    for _, _, s in parts:
        count = (s.stop - s.start) // ITEMSIZE[dtype]
        pieces.append(((begin,), placed((count,), None, dtype, 0, s.start, s.stop - s.start, what)))
        begin += count
    return joined(dims, dtype, pieces, what)


FORMAT = Format("mindspore", matches, open_document)
