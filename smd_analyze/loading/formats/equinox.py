"""Equinox' tree_serialise_leaves: .npy arrays one behind the other, after a line of JSON if the user wrote one.

The file holds no names: arrays are numbered in the order of the tree (weight_0, vector_1, …).
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.encodings.numpy_arrays import MAGIC, read_header
from smd_analyze.loading.files.blocks import Blocks
from smd_analyze.loading.files.sources import Source
from smd_analyze.loading.formats.base import Document, Format, shared
from smd_analyze.loading.tensors.dtypes import FLOATING
from smd_analyze.loading.tensors.places import Place

LAYOUTS = {1: "O", 2: "OI", 3: "OIW", 4: "OIHW", 5: "OIDHW"}  # of Equinox' own layers
MOST_ARRAYS = 1_000_000
MOMENTS = ("exp_avg", "exp_avg_sq")


def matches(source: Source) -> bool:
    """Called .eqx and begins with an array or a line of JSON before one."""
    begin = first_array(source)
    return source.path.endswith(".eqx") and begin is not None


def first_array(source: Source) -> int | None:
    """Where the first array begins, if that is within the first bytes of the file."""
    if source.head.startswith(MAGIC):
        return 0
    line = source.head.find(b"\n")
    found = source.head[:1] == b"{" and source.head[line + 1 :].startswith(MAGIC)
    return line + 1 if line > 0 and found else None


def open_document(source: Source, previous: Document | None) -> Document:
    """{"model": {name: Place}, "moments": {name: {…}}, "count": Place, "config": the user's JSON}."""
    at = begin = first_array(source) or 0
    blocks = Blocks(source)
    arrays: list[Any] = []
    while at < source.size:
        array, at = read_header(blocks.read, at, source.size - at, f"{source.path}: array {len(arrays)}")
        arrays.append(array)
        if len(arrays) > MOST_ARRAYS or at > source.size:
            raise DamagedFile(f"{source.path}: more than {MOST_ARRAYS} arrays, or one that leaves the file")
    count = model_length(arrays)
    names = [f"{'number' if type(a) is not Place or not a.shape else 'weight' if len(a.shape) > 1 else 'vector'}_{i}"
             for i, a in enumerate(arrays)]  # fmt: skip
    model = {n: replace(a, layout=LAYOUTS.get(len(a.shape))) if type(a) is Place else a
             for n, a in zip(names[:count], arrays[:count], strict=True)}  # fmt: skip
    tree: dict[str, Any] = {"model": model}
    if count < len(arrays):
        rest = arrays[count + 1 :]
        tree["count"] = arrays[count]
        blocks = [rest[i * count : (i + 1) * count] for i in range(min(2, len(rest) // count))]
        tree["moments"] = {
            n: {kind: block[i] for kind, block in zip(MOMENTS, blocks, strict=False) if type(block[i]) is Place}
            for i, n in enumerate(names[:count])
        }
    if begin:
        try:
            tree["config"] = json.loads(source.head[: begin - 1])
        except (ValueError, RecursionError):
            raise DamagedFile(f"{source.path}: its first line is not sound JSON") from None
    return Document(source.path, FORMAT.name, shared(tree, previous), (source.file,))


def model_length(arrays: list[Any]) -> int:
    """How many arrays are the model: all, unless a counter and moments of the very same shapes follow (optax' Adam)."""
    shapes = [(a.shape, a.dtype) if type(a) is Place else None for a in arrays]
    for i, array in enumerate(arrays):
        if i and type(array) is Place and not array.shape and array.dtype not in FLOATING:
            return i if shapes[i + 1 : 2 * i + 1] == shapes[:i] else len(arrays)
    return len(arrays)


FORMAT = Format("equinox", matches, open_document)
