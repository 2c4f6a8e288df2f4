"""The nodes of an ONNX model as plain data (onnx/onnx.proto): what operates on what. Nothing is run.

{"opset": 17, "inputs": [{"name", "shape", "dtype"}], "outputs": ["logits"], "shapes": {"add_3": [1, 8]},
"nodes": [{"op", "domain", "name", "inputs", "outputs", "attributes"}],
"initializers": {"conv1.weight": {"shape", "dtype", "values"?}}}. Axes of unknown length are text or None. `values` are
numpy arrays, there for tensors that are not trained by their look: whole numbers, single numbers, small constants.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.encodings.protobuf import Field, Message
from smd_analyze.loading.files.sources import open_source
from smd_analyze.loading.formats.onnx import DTYPES, GRAPH, INITIALIZER, NODE
from smd_analyze.loading.tensors.dtypes import FLOATING, ITEMSIZE, NUMPY
from smd_analyze.loading.tensors.inert_objects import Span

OPSETS, FUNCTIONS = 8, 25  # fields of a model
INPUT, OUTPUT, SHAPES = 11, 12, 13  # fields of a graph
LONGEST = 1 << 24  # bytes of a constant whose numbers are read
SMALL = 1 << 14  # numbers of a floating-point tensor that may be a constant of the graph
TYPED = {4: "<f4", 5: "varint", 7: "varint", 10: "<f8", 11: "varint"}  # a TensorProto's fields of typed numbers


def read_graph(path: str) -> dict[str, Any]:
    """The main graph of the file; DamagedFile if it cannot be read."""
    out: dict[str, Any] = {"opset": 1, "functions": []}
    with open_source(path) as source:
        message = Message(source)
        for part in message.fields():
            if part.wire != 2:
                continue
            if part.number == GRAPH:
                out |= graph_of(message, part)
            elif part.number == OPSETS:
                domain, version = "", 1
                for own in message.fields(part.span):
                    if own.number == 1:
                        domain = message.text(own)
                    elif own.number == 2:
                        version = own.value
                if domain in ("", "ai.onnx"):
                    out["opset"] = version
            elif part.number == FUNCTIONS:
                out["functions"] += [message.text(f) for f in message.fields(part.span) if f.number == 1]
    if "nodes" not in out:
        raise DamagedFile(f"{path}: holds no graph: truncated?")
    return out


def graph_of(message: Message, graph: Field) -> dict[str, Any]:
    """A GraphProto."""
    nodes: list[dict[str, Any]] = []
    initializers: dict[str, Any] = {}
    inputs: list[dict[str, Any]] = []
    outputs: list[str] = []
    shapes: dict[str, Any] = {}
    for part in message.fields(graph.span):
        if part.wire != 2:
            continue
        if part.number == NODE:
            nodes.append(node_of(message, part))
        elif part.number == INITIALIZER:
            name, tensor = tensor_of(message, part, SMALL)
            initializers[name] = tensor
        elif part.number == INPUT:
            inputs.append(value_of(message, part))
        elif part.number == OUTPUT:
            told = value_of(message, part)
            outputs.append(told["name"])
            shapes[told["name"]] = told["shape"]
        elif part.number == SHAPES:
            told = value_of(message, part)
            shapes[told["name"]] = told["shape"]
    inputs = [i for i in inputs if i["name"] not in initializers]  # before IR version 4 both were listed
    return {"nodes": nodes, "initializers": initializers, "inputs": inputs, "outputs": outputs, "shapes": shapes}


def node_of(message: Message, node: Field) -> dict[str, Any]:
    """A NodeProto."""
    out: dict[str, Any] = {"op": "", "domain": "", "name": "", "inputs": [], "outputs": [], "attributes": {}}
    texts = {3: "name", 4: "op", 7: "domain"}
    for part in message.fields(node.span):
        if part.wire != 2:
            continue
        if part.number in (1, 2):
            out["inputs" if part.number == 1 else "outputs"].append(message.text(part))
        elif part.number in texts:
            out[texts[part.number]] = message.text(part)
        elif part.number == 5:
            name, value = attribute_of(message, part)
            out["attributes"][name] = value
    return out


def attribute_of(message: Message, record: Field) -> tuple[str, Any]:
    """(name, value) of an AttributeProto: a number, text, a list of them, a tensor; a graph is its nodes."""
    name, value = "", None
    many: list[Any] = []
    for part in message.fields(record.span):
        if part.number == 1:
            name = message.text(part)
        elif part.number == 2:
            value = number_at(message, part)
        elif part.number == 3:
            value = message.numbers(part)[0]
        elif part.number == 4:
            value = message.text(part)
        elif part.number == 5:
            value = tensor_of(message, part, LONGEST)[1]
        elif part.number == 6:
            value = graph_of(message, part)
        elif part.number == 7:
            many += floats_at(message, part)
        elif part.number == 8:
            many += message.numbers(part)
        elif part.number == 9:
            many.append(message.text(part))
    return name, many if many or value is None else value


def number_at(message: Message, field: Field) -> float:
    """A single float32."""
    return float(struct.unpack("<f", message.read(field.span.start, field.span.stop))[0])


def floats_at(message: Message, field: Field) -> list[float]:
    """Repeated float32, one by one or packed."""
    raw = message.read(field.span.start, field.span.stop)
    return [float(n) for n in np.frombuffer(raw[: len(raw) // 4 * 4], "<f4")]


def value_of(message: Message, record: Field) -> dict[str, Any]:
    """A ValueInfoProto of a tensor: name, shape, type; the shape is None if it is not told."""
    out: dict[str, Any] = {"name": "", "shape": None, "dtype": ""}
    for part in message.fields(record.span):
        if part.number == 1:
            out["name"] = message.text(part)
        elif part.number == 2 and part.wire == 2:
            for kind in message.fields(part.span):
                if kind.number == 1 and kind.wire == 2:  # a tensor; sequences and maps are others
                    for own in message.fields(kind.span):
                        if own.number == 1:
                            out["dtype"] = DTYPES.get(own.value, "")
                        elif own.number == 2:
                            out["shape"] = list(axes_of(message, own))
    return out


def axes_of(message: Message, shape: Field) -> Iterator[int | str | None]:
    """Lengths of the axes of a TensorShapeProto; a name stands for one that is open."""
    for part in message.fields(shape.span):
        if part.number == 1 and part.wire == 2:
            length: int | str | None = None
            for own in message.fields(part.span):
                if own.number == 1:
                    length = own.value
                elif own.number == 2:
                    length = message.text(own) or None
            yield length


def tensor_of(message: Message, record: Field, most: int) -> tuple[str, dict[str, Any]]:
    """(name, {"shape", "dtype", "values"?}) of a TensorProto; floating-point ones of more numbers have no values."""
    dims: list[int] = []
    name, code = "", 0
    raw: Span | None = None
    typed: list[Field] = []
    for part in message.fields(record.span):
        if part.number == 1:
            dims += message.numbers(part)
        elif part.number == 2:
            code = part.value
        elif part.number == 8:
            name = message.text(part)
        elif part.number == 9 and part.wire == 2:
            raw = part.span
        elif part.number in TYPED:
            typed.append(part)
    dtype = DTYPES.get(code, "")
    out: dict[str, Any] = {"shape": dims, "dtype": dtype}
    count = prod(dims)
    if dtype not in NUMPY or not 0 <= count * ITEMSIZE[dtype] <= LONGEST or (dtype in FLOATING and count > most):
        return name, out
    if raw is not None and raw.stop - raw.start == count * ITEMSIZE[dtype]:
        values = np.frombuffer(message.read(raw.start, raw.stop), f"<{NUMPY[dtype]}".replace("<?", "?"))
    else:
        found = [n for part in typed for n in typed_numbers(message, part)]
        if len(found) != count or (dtype in FLOATING and dtype not in ("float32", "float64")):
            return name, out
        values = np.array(found).astype(NUMPY[dtype])
    if dtype == "bfloat16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    if not dtype.startswith("float8"):
        out["values"] = values.reshape(dims).copy()
    return name, out


def typed_numbers(message: Message, part: Field) -> list[Any]:
    """Numbers that are written by their type instead of as raw bytes."""
    form = TYPED[part.number]
    if form == "varint":
        return message.numbers(part)
    size = int(form[2])
    raw = message.read(part.span.start, part.span.stop)
    return np.frombuffer(raw[: len(raw) // size * size], form).tolist()
