"""A folder that is one checkpoint: weights (single or sharded), optimizer, scheduler, trainer state in one document."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smd_analyze.errors import DamagedFile, SmdError, UnsafeFile
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.formats.registry import open_document
from smd_analyze.loading.sources import FileId, open_source
from smd_analyze.loading.trees import moved, tensors
from smd_analyze.records.finding import Finding

STEMS = "model|pytorch_model|diffusion_pytorch_model|adapter_model"
WEIGHTS = re.compile(rf"({STEMS})(-\d+-of-\d+)?\.(safetensors|bin)")
INDEX = re.compile(rf"({STEMS})\.(safetensors|bin)\.index\.json")
LONGEST_JSON = 1 << 26
TWINS = {
    "optimizer": ("optimizer.pt", "optimizer.bin"),
    "scheduler": ("scheduler.pt", "scheduler.bin"),
    "training_args": ("training_args.bin",),
}


def is_checkpoint_folder(files: Sequence[str]) -> bool:
    """Weights, or the index of their shards, under one of Hugging Face's names."""
    return any(WEIGHTS.fullmatch(name) or INDEX.fullmatch(name) for name in files)


def open_folder(path: str, files: Sequence[str], previous: Document | None) -> tuple[Document, list[Finding]]:
    """The folder as one document. Weights must be readable; what lies beside them may be missing or damaged."""
    shards, index = shards_of(path, files)
    found: list[Finding] = []
    parts: list[Document] = []
    weights: dict[str, Any] = {}
    ordered = True
    for number, name in enumerate(shards):
        with open_source(f"{path}/{name}") as source:
            document = open_document(source)
        parts.append(document)
        ordered = ordered and document.format != "safetensors"
        for tensor, place in tensors(document.tree, source.path).items():
            weights[tensor] = moved(place, number)
    missing = sorted(set(index) - set(weights))
    if missing:
        raise DamagedFile(f"{path}: the index names {missing[0]} in {index[missing[0]]}, which does not hold it")
    tree: dict[str, Any] = {"weights": weights, "ordered": ordered and len(shards) == 1}
    for role, names in TWINS.items():
        name = next((n for n in names if n in files), None)
        if name is None:
            continue
        try:
            with open_source(f"{path}/{name}") as source:
                document = open_document(source)
        except (SmdError, OSError) as problem:
            found.append(
                Finding("unreadable-file", "warning", f"{path}/{name}", str(problem), "Its settings are not used.")
            )
            continue
        tree[role] = moved(document.tree, len(parts))
        parts.append(document)
    if "trainer_state.json" in files:
        try:
            tree["trainer_state"] = read_json(f"{path}/trainer_state.json")
        except DamagedFile as problem:
            found.append(Finding("unreadable-file", "warning", f"{path}/trainer_state.json", str(problem)))
    identities: list[FileId] = [d.files[0] for d in parts]
    form = parts[0].format + (" shards" if len(shards) > 1 else "")
    fingerprint = tuple(d.fingerprint for d in parts[: len(shards)])
    return Document(path, form, tree, tuple(identities), fingerprint, folder=True), found


def shards_of(path: str, files: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """(files that hold the weights, the index: tensor → file). safetensors win over .bin, an index over loose files."""
    for ending in ("safetensors", "bin"):
        for stem in STEMS.split("|"):
            if f"{stem}.{ending}" in files:
                return [f"{stem}.{ending}"], {}
            name = f"{stem}.{ending}.index.json"
            if name in files:
                table = read_json(f"{path}/{name}")
                index = table.get("weight_map") if isinstance(table, dict) else None
                if not isinstance(index, dict) or not all(isinstance(v, str) for v in index.values()):
                    raise DamagedFile(f"{path}/{name}: has no weight_map")
                for shard in set(index.values()):
                    if "/" in shard or "\\" in shard or shard in ("", ".", ".."):
                        raise UnsafeFile(f"{path}/{name}: refused: names a shard outside its folder: {shard}")
                    if shard not in files:
                        raise DamagedFile(f"{path}/{name}: shard {shard} is missing; copy it into the folder")
                return sorted(set(index.values())), index
    loose = sorted(n for n in files if WEIGHTS.fullmatch(n))
    kind = [n for n in loose if n.endswith(loose[0].rpartition(".")[2])]
    expected = int(kind[0].partition("-of-")[2].partition(".")[0] or 1)
    if len(kind) != expected:
        raise DamagedFile(f"{path}: {len(kind)} of {expected} shards are there; copy the missing ones into the folder")
    return kind, {}


def read_json(path: str) -> Any:
    """A JSON file of bounded length."""
    file = Path(path)
    try:
        if file.stat().st_size > LONGEST_JSON:
            raise DamagedFile(f"{path}: a JSON file of more than {LONGEST_JSON} bytes")
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as problem:
        raise DamagedFile(f"{path}: not sound JSON: {problem}") from None
