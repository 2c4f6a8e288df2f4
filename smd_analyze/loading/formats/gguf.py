"""GGUF (ggml/docs/gguf.md): keys and values, then names, shapes and offsets of tensors; quantised ones are not read."""

from __future__ import annotations

import struct
from typing import Any

from smd_analyze.errors import DamagedFile, UnknownFormat
from smd_analyze.loading.files.blocks import Cursor
from smd_analyze.loading.files.sources import Source
from smd_analyze.loading.formats.base import Document, Format, shared
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import placed

DTYPES = {0: "float32", 1: "float16", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 30: "bfloat16"}
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
QUANTISED = "tensor of GGML type"
MOST_AXES, DEEPEST = 8, 4


def matches(source: Source) -> bool:
    """The magic word and a version from 2 on (little-endian)."""
    return source.head[:4] == b"GGUF" and 2 <= int.from_bytes(source.head[4:8], "little") < 100


def open_document(source: Source, previous: Document | None) -> Document:
    """{name: Place, …, "__metadata__": keys and values}. quantised tensors are Inert. UnknownFormat if there are
    no others.
    """
    walk = Walk(source, 8)
    tensors, keys = walk.count(), walk.count()
    values = {walk.text(): walk.value(walk.numbers("I")[0], 0) for _ in range(keys)}
    entries: list[tuple[str, tuple[int, ...], int, int]] = []
    for _ in range(tensors):
        name = walk.text()
        axes = walk.numbers("I")[0]
        if axes > MOST_AXES:
            raise DamagedFile(f"{source.path}: {name} claims {axes} axes: damaged?")
        shape = walk.numbers(f"{axes}Q")[::-1]  # the axis that changes fastest stands first
        entries.append((name, shape, *walk.numbers("IQ")))
    if entries and all(kind not in DTYPES for _, _, kind, _ in entries):
        raise UnknownFormat(
            f"{source.path}: all its tensors are quantised: analyse the checkpoint that it was converted from"
        )
    stated = values.get("general.alignment", 32)
    step: int = stated if type(stated) is int and stated > 0 else 32
    base = (walk.at + step - 1) // step * step
    tree: dict[str, Any] = {}
    for name, shape, kind, offset in entries:
        what = f"{source.path}: {name}"
        if kind not in DTYPES:
            tree[name] = Inert(f"{QUANTISED} {kind}")
            continue
        tree[name] = placed(shape, None, DTYPES[kind], 0, base + offset, source.size - base - offset, what)
    tree["__metadata__"] = {k: v for k, v in values.items() if type(v) in (int, float, str, bool)}
    return Document(source.path, FORMAT.name, shared(tree, previous), (source.file,))


class Walk(Cursor):
    """A position behind magic word and version."""

    def value(self, kind: int, depth: int) -> Any:
        """A value; arrays (vocabularies, mostly) are passed over."""
        if kind == TEXT:
            return self.text()
        if kind == ARRAY:
            inner, count = self.numbers("IQ")
            if count > self.source.size or depth > DEEPEST:
                raise DamagedFile(f"{self.source.path}: an array of {count} values: damaged?")
            if inner in NUMBERS:
                self.at += count * struct.calcsize("<" + NUMBERS[inner])
            else:
                for _ in range(count):
                    self.value(inner, depth + 1)
            return Inert("GGUF array")
        if kind not in NUMBERS:
            raise DamagedFile(f"{self.source.path}: a value of unknown type {kind} at byte {self.at}")
        return self.numbers(NUMBERS[kind])[0]


FORMAT = Format("gguf", matches, open_document)
