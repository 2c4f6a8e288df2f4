"""Folders of tensorstore arrays without a file that names them: Levanter, big_vision, PaxML, jax' own serialization.

The path of an array is its name: Levanter nests folders, big_vision writes ~ for /, PaxML and others put dots.
Source: levanter/tensorstore_serialization.py and checkpoint.py, big_vision/utils.py (tssave), paxml/checkpoints.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.encodings.tensorstore_arrays import HEADERS, MANIFEST, below, find_arrays, identities
from smd_analyze.loading.files.listing import read_json
from smd_analyze.loading.formats.base import Document, FolderFormat, shared
from smd_analyze.loading.tensors.trees import nested
from smd_analyze.records.finding import Finding

SAID = "metadata.json"  # Levanter's: step, timestamp, is_temporary; written last
GROUPS = (".zgroup", "zarr.json")  # a zarr group is somebody's data
OTHERS = (".zarray", "_METADATA", "_CHECKPOINT_METADATA", "checkpoint")  # an array itself; Orbax', T5X' folders
DEEPEST = 12


def claims(path: str, files: Sequence[str], below_it: Sequence[str]) -> tuple[str, ...]:
    """A database, a folder that is an array, or, beside Levanter's metadata.json, either at any depth."""
    if any(f in files for f in (*GROUPS, *OTHERS)):
        return ()
    stored = MANIFEST in files or any(Path(path, b, h).is_file() for b in below_it for h in HEADERS)
    if not stored and SAID in files:
        stored = any(holds_arrays(f"{path}/{b}") for b in below_it)
    return below(path) if stored else ()


def holds_arrays(folder: str) -> bool:
    """A database or an array's header lies here or below."""
    for inside, inner, files in os.walk(folder):
        if any(f == MANIFEST or f in HEADERS for f in files):
            return True
        if inside[len(folder) :].count("/") > DEEPEST:
            inner[:] = []
    return False


def open_folder(path: str, files: Sequence[str], previous: Document | None) -> tuple[Document, list[Finding]]:
    """Arrays nested by their paths, and Levanter's metadata.json as "metadata"."""
    found = identities(path, files)
    arrays = find_arrays(found, path)
    if not arrays:
        raise DamagedFile(f"{path}: its database names no array")
    mark = "~" if any("~" in n for n in arrays) else "/" if any("/" in n for n in arrays) else "."
    tree: dict[str, Any] = nested(arrays, mark)
    if SAID in files:
        said = read_json(f"{path}/{SAID}")
        tree = {"metadata": said, **tree} if isinstance(said, dict) else tree
    return Document(path, FORMAT.name, shared(tree, previous), found, folder=True), []


FORMAT = FolderFormat(
    "tensorstore", claims, open_folder, ("tensorstore", "ml_dtypes"), extra="orbax", steps_in_name=True
)
