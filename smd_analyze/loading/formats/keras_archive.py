"""Keras 3's .keras: a zip of config.json, metadata.json and model.weights.h5, which is stored and read in place."""

from __future__ import annotations

import json
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.sources import Source, part_of
from smd_analyze.loading.files.zip_directory import data_start, is_zip, read_directory, read_member
from smd_analyze.loading.formats.base import Document, Format, shared
from smd_analyze.loading.formats.hdf5 import read_tree

WEIGHTS, CONFIG = "model.weights.h5", "config.json"
LONGEST_CONFIG = 1 << 27  # bytes, unpacked


def matches(source: Source) -> bool:
    """A zip with the weights and the configuration at its top."""
    if not is_zip(source):
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
    try:
        return json.loads(read_member(source, CONFIG, LONGEST_CONFIG))
    except (ValueError, RecursionError) as problem:
        raise DamagedFile(f"{source.path}: {CONFIG} is not sound: {problem}") from None


FORMAT = Format("Keras archive", matches, open_document, requires=("h5py",))
