"""Keras 3's .keras: a zip of config.json, metadata.json and model.weights.h5, which is stored and read in place."""

from __future__ import annotations

import json
import zlib
from typing import Any

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.files.sources import Source, part_of
from smd_analyze.loading.files.zip_directory import data_start, member_start, read_directory
from smd_analyze.loading.formats.base import Document, Format, shared
from smd_analyze.loading.formats.hdf5 import read_tree

WEIGHTS, CONFIG = "model.weights.h5", "config.json"
LONGEST_CONFIG = 1 << 27  # bytes, unpacked


def matches(source: Source) -> bool:
    """A zip with the weights and the configuration at its top."""
    if source.head[:4] != b"PK\x03\x04":
        return False
    try:
        members = read_directory(source)
    except DamagedFile:
        return source.head[30:].startswith((b"metadata.json", b"config.json")) and b"keras_version" in source.head
    return WEIGHTS in members and CONFIG in members


def open_document(source: Source, previous: Document | None) -> Document:
    """The tree of the HDF5 file, and "config": the archive's config.json."""
    members = read_directory(source)
    start = data_start(source, WEIGHTS, members[WEIGHTS])
    tree: dict[str, Any] = read_tree(part_of(source, start, members[WEIGHTS].size))
    tree["config"] = read_json(source)
    return Document(source.path, FORMAT.name, shared(tree, previous), (source.file,))


def read_json(source: Source) -> Any:
    """config.json, which may be packed."""
    member = read_directory(source)[CONFIG]
    start = member_start(source, CONFIG, member)
    data = source.read(start, start + member.size)
    try:
        if member.method == 8:
            machine = zlib.decompressobj(-15)
            data = machine.decompress(data, LONGEST_CONFIG)
            if not machine.eof:
                raise UnsafeFile(f"{source.path}: refused: config.json unpacks to more than {LONGEST_CONFIG} bytes")
        return json.loads(data)
    except (ValueError, zlib.error, RecursionError) as problem:
        raise DamagedFile(f"{source.path}: config.json is not sound: {problem}") from None


FORMAT = Format("Keras archive", matches, open_document, requires=("h5py",))
