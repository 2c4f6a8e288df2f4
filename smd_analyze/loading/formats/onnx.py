"""ONNX: the initializers of the graph, in the file or beside it (onnx/onnx.proto). Nothing is run.

The nodes tell what a name does not: which axis of a matrix is the output, which vectors are running statistics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.encodings.protobuf import Field, Message
from smd_analyze.loading.files import listing
from smd_analyze.loading.files.sources import FileId, Source
from smd_analyze.loading.formats.base import Document, Format, shared
from smd_analyze.loading.tensors.dtypes import FLOATING
from smd_analyze.loading.tensors.inert_objects import Inert, Span
from smd_analyze.loading.tensors.places import Place, placed

DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16", 17: "float8_e4m3fn",
    18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz",
}  # fmt: skip
GRAPH, METADATA, NODE, INITIALIZER = 7, 14, 1, 5
TYPED = {4: "float32", 10: "float64"}  # fields of numbers that are written as they lie in memory
PASSED_ON = ("Identity", "Cast", "Transpose", "DequantizeLinear", "QuantizeLinear")
FOLDED = re.compile(r"onnx::Conv(Transpose)?_\d+")
"""The name that torch's exporter gives a kernel after folding the BatchNorm behind it into it."""
KERNELS = {3: "OIW", 4: "OIHW", 5: "OIDHW"}


@dataclass
class Found:
    """A graph while it is read: initializers by name, what the nodes make of them, files beside the model.

    `sources`: result of a node that only passes a tensor on → (that tensor, whether it is turned). `folded` are kernels
    that an exporter multiplied with a normalization's gains: they are no longer what was trained.
    """

    tensors: dict[str, Place | Inert] = field(default_factory=dict)
    layouts: dict[str, str] = field(default_factory=dict)
    statistics: set[str] = field(default_factory=set)
    sources: dict[str, tuple[str, bool]] = field(default_factory=dict)
    folded: list[str] = field(default_factory=list)
    files: list[FileId] = field(default_factory=list)


def matches(source: Source) -> bool:
    """Called .onnx, and its first field is the version of the representation."""
    return source.path.lower().endswith(".onnx") and source.head[:1] == b"\x08"


def open_document(source: Source, previous: Document | None) -> Document:
    """{"weights": …, "buffers": running statistics and constants, "__metadata__": …} with the axes of the weights."""
    message = Message(source)
    found = Found(files=[source.file])
    metadata: dict[str, str] = {}
    for part in message.fields():
        if part.number == GRAPH and part.wire == 2:
            read_graph(message, part, found)
        elif part.number == METADATA and part.wire == 2:
            entry = {f.number: message.text(f) for f in message.fields(part.span)}
            metadata[entry.get(1, "")] = entry.get(2, "")
    weights: dict[str, Any] = {}
    buffers: dict[str, Any] = {}
    for name, place in found.tensors.items():
        if type(place) is not Place:
            continue
        trained = place.shape and place.dtype in FLOATING and name not in found.statistics
        (weights if trained else buffers)[name] = replace(place, layout=layout_of(name, place, found.layouts))
    tree = {"weights": weights, "buffers": buffers, "__metadata__": metadata, "folded": tuple(found.folded)}
    return Document(source.path, FORMAT.name, shared(tree, previous), tuple(found.files))


def read_graph(message: Message, graph: Field, found: Found) -> None:
    """Initializers and nodes."""
    for part in message.fields(graph.span):
        if part.wire == 2 and part.number == INITIALIZER:
            name, place = read_tensor(message, part, found)
            found.tensors[name] = place
        elif part.wire == 2 and part.number == NODE:
            read_node(message, part, found)


def read_node(message: Message, node: Field, found: Found) -> None:
    """What the operator says of its inputs."""
    inputs: list[str] = []
    outputs: list[str] = []
    flags: dict[str, int] = {}
    kind = ""
    for part in message.fields(node.span):
        if part.number == 1:
            inputs.append(message.text(part))
        elif part.number == 2:
            outputs.append(message.text(part))
        elif part.number == 4:
            kind = message.text(part)
        elif part.number == 5 and part.wire == 2:
            name, value = "", 0
            for own in message.fields(part.span):
                if own.number == 1:
                    name = message.text(own)
                elif own.number == 3:
                    value = own.value
            flags[name] = value
    if kind in PASSED_ON and inputs and outputs:
        source, turned = found.sources.get(inputs[0], (inputs[0], False))
        found.sources[outputs[0]] = source, turned != (kind == "Transpose")
    weight, turned = found.sources.get(w := inputs[1] if len(inputs) > 1 else "", (w, False))
    if kind in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        transposed = turned != (kind == "Gemm" and flags.get("transB", 0) == 1)
        if kind.startswith("Conv") and (FOLDED.fullmatch(weight) or inputs[2:] == [f"{weight}_bias"]):
            found.folded.append(weight)
        found.layouts[weight] = "OI" if transposed else {"Conv": "O*", "ConvTranspose": "I*"}.get(kind, "IO")
    elif kind == "BatchNormalization":
        found.statistics.update(inputs[3:5])


def layout_of(name: str, place: Place, layouts: Mapping[str, str]) -> str | None:
    """The axes, from the operator that uses the tensor; vectors have one per output unit."""
    axes, told = len(place.shape), layouts.get(name)
    if axes == 1:
        return "O"
    if told in ("O*", "I*"):
        kernel = KERNELS.get(axes)
        return kernel if kernel is None or told == "O*" else "IO" + kernel[2:]
    return told if told and axes == 2 else None


def read_tensor(message: Message, record: Field, found: Found) -> tuple[str, Place | Inert]:
    """(name, tensor) of one TensorProto."""
    dims: list[int] = []
    name, kind, outside = "", 0, False
    external: dict[str, str] = {}
    span: Span | None = None
    for part in message.fields(record.span):
        if part.number == 1:
            dims += message.numbers(part)
        elif part.number == 2:
            kind = part.value
        elif part.number == 8:
            name = message.text(part)
        elif part.wire == 2 and (part.number == 9 or TYPED.get(part.number, "") == DTYPES.get(kind, "?")):
            span = part.span
        elif part.number == 13 and part.wire == 2:
            entry = {f.number: message.text(f) for f in message.fields(part.span)}
            external[entry.get(1, "")] = entry.get(2, "")
        elif part.number == 14:
            outside = part.value == 1
    what = f"{message.source.path}: {name}"
    dtype = DTYPES.get(kind)
    if dtype is None:
        return name, Inert(f"ONNX tensor of type {kind}")
    if outside:
        return name, external_tensor(message.source.path, dims, dtype, external, found, what)
    if span is None:
        return name, Inert("ONNX tensor whose numbers are written one by one")
    return name, placed(dims, None, dtype, 0, span.start, span.stop - span.start, what)


def external_tensor(
    model: str, dims: list[int], dtype: str, entry: Mapping[str, str], found: Found, what: str
) -> Place:
    """A tensor in a file beside the model. UnsafeFile if that lies outside the model's folder."""
    location = entry.get("location", "")
    folder = model.rpartition("/")[0] if "/" in model else "."
    parts = PurePath(location).parts
    if not parts or PurePath(location).is_absolute() or ".." in parts or "\\" in location or "\0" in location:
        raise UnsafeFile(f"{what}: refused: its data lie outside the model's folder: {location!r}")
    path = f"{folder}/{'/'.join(parts)}"
    if not listing.link_of(model) and not listing.lies_in(path, folder):
        raise UnsafeFile(f"{what}: refused: its data are a link out of the model's folder: {location!r}")
    number = next((i for i, f in enumerate(found.files) if i and f.path == path), None)
    if number is None:
        try:
            found.files.append(listing.identity(path))
        except OSError as problem:
            raise DamagedFile(f"{what}: its data file {location} cannot be read: {problem.strerror}") from None
        number = len(found.files) - 1
    try:
        start = int(entry.get("offset") or 0)
        length = int(entry.get("length") or found.files[number].size - start)
    except ValueError:
        raise DamagedFile(f"{what}: offset or length of its data is no number") from None
    if not 0 <= start <= start + length <= found.files[number].size:
        raise DamagedFile(f"{what}: its data leave the file {location}: truncated?")
    return replace(placed(dims, None, dtype, 0, start, length, what), file=number)


FORMAT = Format("onnx", matches, open_document)
