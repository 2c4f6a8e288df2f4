"""Paddle's .pdiparams: the arrays of paddle.jit.save one after the other, without names.

Each is a version (u32, 0), the level of detail (u64, 0), a version again, the length of a TensorDesc (i32), this
(data_type = 1, dims = 2), the elements. They stand in the order of their names, which the program beside them tells:
PREFIX.json (PIR) or PREFIX.pdmodel (ProgramDesc: blocks = 1, vars = 3: name = 1, type = 2, persistable = 3).
Source: paddle/fluid/framework/lod_tensor.cc, tensor_util.cc, framework.proto; python/paddle/static/io.py.
"""

from __future__ import annotations

import json

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.encodings.protobuf import Field, Message, signed
from smd_analyze.loading.files import listing
from smd_analyze.loading.files.sources import FileId, Source, open_source
from smd_analyze.loading.formats.base import Document, Format, shared
from smd_analyze.loading.tensors.dtypes import ITEMSIZE
from smd_analyze.loading.tensors.inert_objects import Span
from smd_analyze.loading.tensors.places import Place, placed

DTYPES = {0: "bool", 1: "int16", 2: "int32", 3: "int64", 4: "float16", 5: "float32", 6: "float64", 20: "uint8",
          21: "int8", 22: "bfloat16"}  # fmt: skip
LOD_TENSOR = 7
HEAD = 20  # bytes before a TensorDesc
LONGEST_DESC = 1024
LARGEST_PROGRAM = 1 << 28


def matches(source: Source) -> bool:
    """Called so, and begins with an array's head."""
    head = source.head[:HEAD]
    return source.path.endswith(".pdiparams") and len(head) == HEAD and not any(head[:16]) and head[16] > 0


def open_document(source: Source, previous: Document | None) -> Document:
    """{"arrays": {name: Place}, "order": names as the program uses them}: numbers for names without a program."""
    places = read_places(source)
    names, order, files = names_beside(source)
    if names and len(names) != len(places):
        raise DamagedFile(f"{source.path}: holds {len(places)} arrays, the program beside it names {len(names)}")
    arrays = dict(zip(names or map(str, range(len(places))), places, strict=True))
    tree = {"arrays": arrays, "order": order}
    return Document(source.path, FORMAT.name, shared(tree, previous), (source.file, *files))


def read_places(source: Source) -> list[Place]:
    """Where the arrays lie."""
    message = Message(source)
    places: list[Place] = []
    at = 0
    while at < source.size:
        what = f"{source.path}: array {len(places)}"
        if at + HEAD > source.size:
            raise DamagedFile(f"{what}: its head is cut short")
        head = source.read(at, at + HEAD)
        length = int.from_bytes(head[16:20], "little", signed=True)
        if any(head[:16]) or not 0 < length <= LONGEST_DESC or at + HEAD + length > source.size:
            raise DamagedFile(f"{what}: is no plain array (or its head is damaged)")
        dtype, shape = tensor_desc(message, Span(at + HEAD, at + HEAD + length))
        if dtype not in DTYPES:
            raise DamagedFile(f"{what}: has Paddle's type {dtype}, which is not known")
        start = at + HEAD + length
        size = ITEMSIZE[DTYPES[dtype]]
        for n in shape:
            size *= n
        if not all(n >= 0 for n in shape) or start + size > source.size:
            raise DamagedFile(f"{what}: lies outside the file: truncated?")
        places.append(placed(shape, None, DTYPES[dtype], 0, start, size, what))
        at = start + size
    return places


def tensor_desc(message: Message, span: Span) -> tuple[int, list[int]]:
    """(data type, shape)."""
    kind, shape = -1, []
    for field in message.fields(span):
        if field.number == 1 and field.wire == 0:
            kind = field.value
        elif field.number == 2:
            shape += [field.value] if field.wire == 0 else message.numbers(field)
    return kind, [signed(n) for n in shape]


def names_beside(source: Source) -> tuple[list[str], list[str], list[FileId]]:
    """(the parameters' names sorted, the same in the order of use, the file that tells); nothing without a program."""
    stem = source.path.removesuffix(".pdiparams")
    for ending, reader in ((".json", pir_names), (".pdmodel", program_names)):
        path = stem + ending
        if listing.is_file(path):
            with open_source(path) as other:
                if other.size > LARGEST_PROGRAM:
                    raise DamagedFile(f"{path}: {other.size} bytes are more than a program has; not read")
                used = reader(other)
                return sorted(used), used, [other.file]
    return [], [], []


def pir_names(source: Source) -> list[str]:
    """Parameters (operations called "p") of a PIR program, those first that are used first."""
    try:
        root = json.loads(source.read(0, source.size))
        operations = root["program"]["regions"][0]["blocks"][0]["ops"]
        own = {op["O"]["%"]: op["A"][3] for op in operations if op["#"] == "p"}
        first: dict[int, int] = {}
        for i, op in enumerate(operations):
            for value in op.get("I", ()) if op["#"] != "p" else ():
                first.setdefault(value["%"], i)
        return [str(own[v]) for v in sorted(own, key=lambda v: (first.get(v, len(operations)), v))]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise DamagedFile(f"{source.path}: not a program of Paddle's: its parameters have no names") from None


def program_names(source: Source) -> list[str]:
    """Persistable tensors of a ProgramDesc, in its order."""
    message = Message(source)
    names: list[str] = []
    for block in message.fields():
        for var in message.fields(block.span) if block.number == 1 and block.wire == 2 else ():
            if var.number == 3 and var.wire == 2:
                name, kept = variable(message, var)
                if kept and name not in names:
                    names.append(name)
    return names


def variable(message: Message, var: Field) -> tuple[str, bool]:
    """(name, whether it is a saved tensor)."""
    name, kind, persistable = "", -1, False
    for field in message.fields(var.span):
        if field.number == 1 and field.wire == 2:
            name = message.text(field)
        elif field.number == 2 and field.wire == 2:
            kind = next((f.value for f in message.fields(field.span) if f.number == 1), -1)
        elif field.number == 3 and field.wire == 0:
            persistable = bool(field.value)
    return name, persistable and kind == LOD_TENSOR and name not in ("feed", "fetch")


FORMAT = Format("paddle inference", matches, open_document)
