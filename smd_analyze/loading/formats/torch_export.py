"""torch.export's .pt2: a zip with the graph as JSON and the weights as raw members, listed in a JSON table.

Source: torch/export/pt2_archive/_package.py and constants.py; element types are numbers of
torch/_export/serde/schema.py.
"""

from __future__ import annotations

import json
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.sources import Source
from smd_analyze.loading.files.zip_directory import data_start, is_zip, read_directory
from smd_analyze.loading.formats.base import Document, Format
from smd_analyze.loading.pickles.torch_archive import check_byte_order, find_inside
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place, placed

TABLE = "data/weights/model_weights_config.json"
LONGEST_TABLE = 1 << 26
DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16", 29: "float8_e4m3fn",
    30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz", 33: "float8_e8m0fnu", 34: "uint32", 35: "uint64",
}  # fmt: skip


def root_of(source: Source) -> str | None:
    """The folder within the archive that holds data/weights, or None."""
    found = [n for n in read_directory(source) if n == TABLE or n.endswith("/" + TABLE)]
    return found[0][: -len(TABLE)] if len(found) == 1 else None


def matches(source: Source) -> bool:
    """A zip with exactly one table of weights."""
    if not is_zip(source):
        return False
    try:
        return root_of(source) is not None
    except DamagedFile:
        return False


def open_document(source: Source, previous: Document | None) -> Document:
    """{name: Place}: parameters and buffers of the exported module. Nothing of the graph is read or run."""
    members = read_directory(source)
    root = root_of(source) or ""
    stored = {
        name.removeprefix(root): (data_start(source, name, member), member.size)
        for name, member in members.items()
        if name.startswith(root + "data/weights/") or name == root + "byteorder"
    }
    check_byte_order(source, stored.get("byteorder"))
    start, size = stored[TABLE]
    if size > LONGEST_TABLE:
        raise DamagedFile(f"{source.path}: a table of weights of {size} bytes")
    raw = source.read(start, start + size)
    fingerprint = (raw, stored)
    if previous and previous.fingerprint == fingerprint:
        return Document(source.path, previous.format, previous.tree, (source.file,), previous.fingerprint)
    try:
        table = json.loads(raw)["config"]
        tree = {str(name): read_entry(entry, stored, f"{source.path}: {name}") for name, entry in table.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise DamagedFile(
            f"{source.path}: its table of weights is not sound: {type(problem).__name__}: {problem}"
        ) from None
    return Document(source.path, FORMAT.name, tree, (source.file,), fingerprint)


def read_entry(entry: dict[str, Any], stored: dict[str, tuple[int, int]], what: str) -> Any:
    """The Place of one weight; an Inert if its element type is not read."""
    meta = entry["tensor_meta"]
    member = f"data/weights/{entry['path_name']}"
    if member not in stored:
        raise DamagedFile(f"{what}: member {member} is missing from the archive")
    start, nbytes = stored[member]
    dtype = DTYPES.get(meta["dtype"])
    if dtype is None:
        return Inert(f"tensor of dtype number {meta['dtype']}")
    shape = tuple(number(n) for n in meta["sizes"])
    if entry.get("use_pickle"):  # a tensor subclass, or one on another device: an archive of torch.save within this one
        piece = Place(shape, dtype, start, find=find_inside, within=nbytes)
        if piece.nbytes > nbytes:
            raise DamagedFile(f"{what}: {nbytes} bytes do not hold a tensor of shape {shape}")
        return piece
    strides = [number(n) for n in meta["strides"]]
    return placed(shape, strides, dtype, number(meta["storage_offset"]), start, nbytes, what)


def number(size: dict[str, Any]) -> int:
    """A size that is a number; a weight has no symbolic ones."""
    value = size["as_int"]
    if type(value) is not int or value < 0:
        raise ValueError(f"a size is {value!r}")
    return value


FORMAT = Format("torch export", matches, open_document)
