"""Caffe's .caffemodel and .solverstate: protocol buffers (caffe/src/caffe/proto/caffe.proto).

SolverState: iter = 1, learned_net = 2, history = 3 (BlobProto), current_step = 4.
NetParameter: layers = 2 (old: name = 4, type = 5, blobs = 6), layer = 100 (name = 1, type = 2, blobs = 7).
BlobProto: num, channels, height, width = 1 to 4, data = 5, shape = 7, double_data = 8.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from smd_analyze.loading.encodings.protobuf import Field, Message
from smd_analyze.loading.files.sources import Source
from smd_analyze.loading.formats.base import Document, Format, shared
from smd_analyze.loading.tensors.inert_objects import Inert, Span
from smd_analyze.loading.tensors.places import Place, placed

OLD_TYPES = {4: "Convolution", 14: "InnerProduct", 39: "Deconvolution"}
BLOBS = {
    "Convolution": ("weight", "bias"), "Deconvolution": ("weight", "bias"), "InnerProduct": ("weight", "bias"),
    "Scale": ("weight", "bias"), "PReLU": ("weight",), "Embed": ("weight", "bias"), "Bias": ("bias",),
    "BatchNorm": ("running_mean", "running_var", "scale_factor"),
}  # fmt: skip
"""What a layer's blobs are, in order. BatchNorm's sums are to be divided by the factor: they are no weights."""
LAYOUTS = {"Convolution": "OIHW", "Deconvolution": "IOHW", "InnerProduct": "OI"}


def matches(source: Source) -> bool:
    """Called .caffemodel and begins with the net's name or a layer; or .solverstate and begins with the iteration."""
    name, head = source.path.lower(), source.head
    if name.endswith(".caffemodel"):
        return head[:1] in (b"\x0a", b"\x12") or head[:2] == b"\xa2\x06"
    return name.endswith(".solverstate") and head[:1] == b"\x08"


def open_document(source: Source, previous: Document | None) -> Document:
    """{"weights": {layer.blob: Place}, "buffers": …} of a net, {"iter": number, "history": [Place]} of a solver."""
    message = Message(source)
    if source.path.lower().endswith(".solverstate"):
        fields = list(message.fields())
        blobs = [f for f in fields if f.number == 3 and f.wire == 2]
        tree: dict[str, Any] = {
            "iter": next((f.value for f in fields if f.number == 1 and f.wire == 0), None),
            "history": [read_blob(message, b, f"{source.path}: history {i}", False) for i, b in enumerate(blobs)],
        }
        return Document(source.path, FORMAT.name, tree, (source.file,))
    weights: dict[str, Any] = {}
    buffers: dict[str, Any] = {}
    for part in message.fields():
        if part.wire == 2 and part.number in (2, 100):
            kind, found = read_layer(message, part, old=part.number == 2)
            (buffers if kind == "BatchNorm" else weights).update(found)
    tree = {"weights": weights, "buffers": buffers}
    return Document(source.path, FORMAT.name, shared(tree, previous), (source.file,))


def read_layer(message: Message, layer: Field, old: bool) -> tuple[str, dict[str, Any]]:
    """(type, its blobs by name)."""
    name, kind = "", ""
    blobs: list[Field] = []
    named, typed, held = (4, 5, 6) if old else (1, 2, 7)
    for part in message.fields(layer.span):
        if part.number == named:
            name = message.text(part)
        elif part.number == typed:
            kind = OLD_TYPES.get(part.value, "") if old else message.text(part)
        elif part.number == held and part.wire == 2:
            blobs.append(part)
    titles = BLOBS.get(kind, ())
    made: dict[str, Any] = {}
    for i, blob in enumerate(blobs):
        title = f"{name}.{titles[i] if i < len(titles) else f'blob_{i}'}"
        place = read_blob(message, blob, f"{message.source.path}: {title}", kind == "InnerProduct")
        if type(place) is Place:
            layout = "O" if len(place.shape) == 1 else LAYOUTS.get(kind)
            place = replace(place, layout=layout if layout and len(layout) == len(place.shape) else None)
        made[title] = place
    return kind, made


def read_blob(message: Message, blob: Field, what: str, matrix: bool) -> Place | Inert:
    """One array. Old files give every array four axes: ones in front of a matrix or vector are no axes."""
    shape: list[int] = []
    old = [1, 1, 1, 1]
    dtype, span = "", Span(0, 0)
    stated = False
    for part in message.fields(blob.span):
        if part.number in (1, 2, 3, 4) and part.wire == 0:
            old[part.number - 1] = part.value
        elif part.number == 7 and part.wire == 2:
            stated = True
            for own in message.fields(part.span):
                shape += message.numbers(own) if own.number == 1 else []
        elif part.number in (5, 8) and part.wire == 2:
            dtype, span = "float32" if part.number == 5 else "float64", part.span
    if not dtype:
        return Inert("Caffe blob without packed numbers")
    if not stated:
        shape = old[2:] if matrix and old[:2] == [1, 1] else old
        shape = old[3:] if old[:3] == [1, 1, 1] else shape
    return placed(shape, None, dtype, 0, span.start, span.stop - span.start, what)


FORMAT = Format("caffe", matches, open_document)
