"""A model named by a file that describes it: model.onnx, model.pt2, model.keras, config.json, or their folder."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from smd_analyze.errors import UsageError
from smd_analyze.loading.files import listing
from smd_analyze.loading.files.sources import open_source
from smd_analyze.loading.formats.registry import open_document
from smd_analyze.loading.frameworks.described import config_beside, config_hints
from smd_analyze.loading.frameworks.registry import framework_of
from smd_analyze.records.run import GraphHint

FILES = re.compile(r"\.(onnx|pt2|keras|h5|hdf5|json|pt|pth|ckpt|bin|ts|torchscript)$", re.IGNORECASE)
KINDS = "an .onnx, .pt2 or .keras file, a Keras .h5 of a whole model, or the config.json of a Hugging Face model"


def hint_of(spec: str | Path) -> GraphHint | None:
    """The description in the file (or folder) that `spec` names; None if it names a callable instead.

    Raises UsageError if there is no such file, or nothing in it describes a model.
    """
    path = str(spec)
    if listing.is_folder(path):
        found = config_beside(path, True, path)
        if found:
            return found[0]
        raise UsageError(f"--model {path}: the folder holds no config.json of a model; name {KINDS}")
    if not FILES.search(path):
        return None
    if not listing.is_file(path):
        raise UsageError(f"--model {path}: there is no such file; name {KINDS}, or file.py:callable")
    found = json_hints(path) if path.lower().endswith(".json") else hints_inside(path)
    if not found:
        raise UsageError(f"--model {path}: nothing in it describes a model's graph; name {KINDS}")
    return found[0]


def json_hints(path: str) -> tuple[GraphHint, ...]:
    """Of a configuration by itself: Keras' (model.to_json()) or Hugging Face's."""
    config = listing.read_json(path)
    if isinstance(config, dict) and "class_name" in config and "config" in config:
        return (GraphHint("keras config", path, partial(dict, config)),)
    hints = config_hints(path.rpartition("/")[0] or ".", config)
    return tuple(GraphHint(h.kind, path, h.read) for h in hints)


def hints_inside(path: str) -> tuple[GraphHint, ...]:
    """Of a file that is read like a checkpoint."""
    with open_source(path) as source:
        document = open_document(source)
    return framework_of(document).parts(document).graphs
