"""Descriptions of the model in or beside a checkpoint, as hints for its graph. They are read as data when asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from smd_analyze.errors import DamagedFile, SmdError
from smd_analyze.loading.files import listing
from smd_analyze.loading.files.sources import open_source
from smd_analyze.loading.files.zip_directory import data_start, read_directory
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks.searching import is_module
from smd_analyze.loading.pickles.object_trees import is_script, module_tree, script_of
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.units.surroundings import levels
from smd_analyze.records.run import GraphHint

CONFIG = "config.json"
LONGEST_GRAPH = 1 << 28


def config_hints(path: str, config: Any, adapter: Any = None) -> tuple[GraphHint, ...]:
    """Of a Hugging Face folder's config.json and adapter_config.json, as far as they describe a model."""
    if isinstance(adapter, dict):
        return (GraphHint("huggingface config", f"{path}/adapter_config.json", partial(dict, adapter)),)
    return (GraphHint("huggingface config", f"{path}/{CONFIG}", partial(dict, config)),) if describes(config) else ()


def describes(config: Any) -> bool:
    """Whether a config.json is that of a model: of transformers, diffusers or timm."""
    if not isinstance(config, Mapping):
        return False
    listed = config.get("architectures")
    named = isinstance(listed, list) and bool(listed)
    timm = isinstance(config.get("architecture"), str) and "pretrained_cfg" in config
    return named or isinstance(config.get("model_type"), str) or isinstance(config.get("_class_name"), str) or timm


def config_beside(path: str, folder: bool, root: str) -> tuple[GraphHint, ...]:
    """The nearest config.json of a model beside a checkpoint or in its parents up to the folder that was given."""
    for place in levels(path, folder, root):
        file = f"{place.rstrip('/')}/{CONFIG}"
        try:
            found = listing.read_json(file) if listing.is_file(file) else None
        except (SmdError, OSError):  # what else may be called config.json is not ours to judge
            continue
        if describes(found):
            return config_hints(place.rstrip("/"), found)
    return ()


def document_hints(document: Document, weights: Any) -> tuple[GraphHint, ...]:
    """Of a file that carries its graph: torch.export's archives, TorchScript's, whole modules in a pickle.

    `weights` is where the model's weights were found in it.
    """
    path = document.path
    if document.format == "torch export":
        return (GraphHint("exported program", path, partial(exported_program, path)),)
    if is_script(weights) and weights is document.tree:
        return (GraphHint("torchscript", path, partial(script_of, path)),)
    if type(weights) is Inert and is_module(weights):
        return (GraphHint("module tree", path, partial(module_tree, weights, path)),)
    return ()


def exported_program(path: str) -> dict[str, Any]:
    """`program`: the graph of a .pt2 as JSON; `weights`: name → member with its numbers (tied ones share it)."""
    program = json_member(path, "models/model.json")
    table = json_member(path, "data/weights/model_weights_config.json")
    try:
        weights = {str(name): str(entry["path_name"]) for name, entry in table["config"].items()}
    except (KeyError, TypeError, AttributeError) as problem:
        raise DamagedFile(f"{path}: its table of weights is not sound: {type(problem).__name__}: {problem}") from None
    return {"program": program, "weights": weights}


def json_member(path: str, ending: str) -> Any:
    """A JSON member of a zip archive, by the end of its name."""
    with open_source(path) as source:
        members = read_directory(source)
        found = [name for name in members if name == ending or name.endswith("/" + ending)]
        if len(found) != 1:
            raise DamagedFile(f"{path}: {len(found)} members of the archive are called {ending}")
        start, size = data_start(source, found[0], members[found[0]]), members[found[0]].size
        if size > LONGEST_GRAPH:
            raise DamagedFile(f"{path}: a graph of {size} bytes")
        raw = source.read(start, start + size)
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as problem:
        raise DamagedFile(f"{path}: {ending} is not sound JSON: {problem}") from None
