"""A folder that is one checkpoint: weights (single or sharded), optimizer, scheduler, trainer state in one document."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smd_analyze.errors import DamagedFile, SmdError, UnsafeFile
from smd_analyze.loading.files import listing
from smd_analyze.loading.files.findings import unreadable
from smd_analyze.loading.files.sources import FileId, open_source
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.formats.registry import open_document
from smd_analyze.loading.roles.averages import live_words
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import moved, tensors
from smd_analyze.records.finding import Finding

STEMS = "model|pytorch_model|pytorch_model_fsdp|diffusion_pytorch_model|adapter_model|pytorch_lora_weights"
WEIGHTS = re.compile(rf"({STEMS})(-\d+-of-\d+)?\.(safetensors|bin)")
INDEX = re.compile(rf"({STEMS})\.(safetensors|bin)\.index\.json")
FURTHER = re.compile(r"((?:pytorch_)?model_\d+)(-\d+-of-\d+)?\.(safetensors|bin)")  # accelerate: several models
STATE = re.compile(r"optimizer(_\d+)?\.(pt|bin)|random_states_\d+\.pkl")
STEPPED = re.compile(r"^\d+$|(checkpoint|step|epoch|iter)[-_]?\d+$")  # folders of checkpoints, not of models
TWINS = {
    "optimizer": re.compile(r"optimizer(_\d+)?\.(pt|bin)"),
    "scheduler": re.compile(r"scheduler(_\d+)?\.(pt|bin)"),
    "training_args": re.compile(r"training_args\.bin"),
}
NOTES = {"trainer_state": "trainer_state.json", "config": "config.json", "adapter_config": "adapter_config.json"}


def is_checkpoint_folder(files: Sequence[str]) -> bool:
    """Weights, or the index of their shards, under one of Hugging Face's names."""
    return any(WEIGHTS.fullmatch(name) or INDEX.fullmatch(name) for name in files)


def is_state_folder(files: Sequence[str]) -> bool:
    """What accelerate's save_state writes beside the weights, which may lie in folders of their own."""
    return any(STATE.fullmatch(name) for name in files)


def models_below(path: str, files: Sequence[str], below: Sequence[str]) -> tuple[str, ...]:
    """The weights (and their configuration) in the folders of a folder that holds the training state: diffusers does so
    ("unet/diffusion_pytorch_model.safetensors", "unet_ema/…"). () if it is no such folder."""
    if not is_state_folder(files) or listing.is_far(path):
        return ()
    found: list[str] = []
    for name in below:
        if STEPPED.search(name):
            continue
        inside = listing.files_in(f"{path}/{name}")
        if is_checkpoint_folder(inside) and not is_state_folder(inside):
            found += [f"{name}/{n}" for n in inside if WEIGHTS.fullmatch(n) or INDEX.fullmatch(n) or n == "config.json"]
    return tuple(sorted(found))


@dataclass
class _Folder:
    """What was opened so far, and what is odd. `known`: the previous checkpoint's documents and their trees."""

    path: str
    known: Mapping[str, tuple[Document, Any]]
    trees: dict[str, Any] = field(default_factory=dict)
    parts: list[Document] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def open(self, name: str) -> Any:
        """The tree of one file, its places numbered for the folder."""
        before, tree = self.known.get(name, (None, None))
        with open_source(f"{self.path}/{name}") as source:
            document = open_document(source, {before.format: before} if before else None)
        # a file of the same layout and the same number: its tree is used again
        if before is None or document.tree is not before.tree or self.names != list(self.known)[: len(self.names)]:
            tree = moved(document.tree, len(self.parts))
        self.parts.append(document)
        self.names.append(name)
        self.trees[name] = tree
        return tree

    def model(self, files: Sequence[str], prefix: str = "") -> tuple[dict[str, Any], bool]:
        """(the tensors of a model's shards, whether they stand in the order of its parameters)."""
        shards, index = shards_of(f"{self.path}/{prefix}".rstrip("/"), files)
        weights: dict[str, Any] = {}
        first = len(self.parts)
        for name in shards:
            weights |= tensors(self.open(prefix + name), f"{self.path}/{prefix}{name}")
        missing = sorted(set(index) - set(weights))
        if missing:
            where = f"{self.path}/{prefix}".rstrip("/")
            raise DamagedFile(f"{where}: the index names {missing[0]} in {index[missing[0]]}, which does not hold it")
        ordered = len(shards) == 1 and self.parts[first].format != "safetensors"
        return weights, ordered

    def attempt(self, name: str) -> Any:
        """The tree of a file that may be missing or damaged: None, and a finding, then."""
        try:
            return self.open(name)
        except (SmdError, OSError) as problem:
            self.findings.append(unreadable(f"{self.path}/{name}", problem))
            return None


def open_folder(path: str, files: Sequence[str], previous: Document | None) -> tuple[Document, list[Finding]]:
    """The folder as one document. Weights must be readable; what lies beside them may be missing or damaged.

    The tree holds `weights`, `where` and `ordered` of the largest model, `models` with the others, and the states.
    """
    known = previous.fingerprint if previous and isinstance(previous.fingerprint, dict) else {}
    folder = _Folder(path, known)
    models: dict[str, tuple[dict[str, Any], bool]] = {}
    own = [n for n in files if "/" not in n]
    if is_checkpoint_folder(own):
        models["weights"] = folder.model([n for n in own if not FURTHER.fullmatch(n)])
    for title in dict.fromkeys(m[1] for n in own if (m := FURTHER.fullmatch(n))):
        models[title] = folder.model([n for n in own if (m := FURTHER.fullmatch(n)) and m[1] == title])
    for title in dict.fromkeys(n.partition("/")[0] for n in files if "/" in n):
        inside = [n.partition("/")[2] for n in files if n.startswith(title + "/")]
        models[title] = folder.model(inside, title + "/")
    live = [k for k in models if not any(other in models for other in live_words(k))]
    main = (
        "weights"
        if "weights" in models
        else max(live or models, key=lambda k: sum(p.nbytes for p in places(models[k])))
    )
    form = folder.parts[0].format + (" shards" if len(folder.parts) > len(models) else "")
    tree: dict[str, Any] = {
        "weights": models[main][0],
        "where": main,
        "ordered": models[main][1],
        "models": {k: weights for k, (weights, _) in models.items() if k != main},
    }
    for role, pattern in TWINS.items():
        found = [folder.attempt(n) for n in sorted(own) if pattern.fullmatch(n)]
        found = [f for f in found if f is not None]
        if found:
            tree[role] = found[0] if len(found) == 1 else found
    inside = "" if main == "weights" or FURTHER.fullmatch(main + ".bin") else main + "/"
    for role, name in NOTES.items():
        name = inside + name if role == "config" else name
        if name in files:
            try:
                tree[role] = listing.read_json(f"{path}/{name}")
            except DamagedFile as problem:
                folder.findings.append(unreadable(f"{path}/{name}", problem))
    identities: list[FileId] = [d.files[0] for d in folder.parts]
    kept = {n: (d, folder.trees[n]) for n, d in zip(folder.names, folder.parts, strict=True)}
    return Document(path, form, tree, tuple(identities), kept, folder=True), folder.findings


def places(model: tuple[Mapping[str, Any], bool]) -> list[Place]:
    """The tensors of a model."""
    return [p for p in model[0].values() if type(p) is Place]


def shards_of(path: str, files: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """(files that hold the weights, the index: tensor → file). safetensors win over .bin, an index over loose files."""
    for ending in ("safetensors", "bin"):
        for stem in STEMS.split("|"):
            if f"{stem}.{ending}" in files:
                return [f"{stem}.{ending}"], {}
            name = f"{stem}.{ending}.index.json"
            if name in files:
                table = listing.read_json(f"{path}/{name}")
                index = table.get("weight_map") if isinstance(table, dict) else None
                if not isinstance(index, dict) or not all(isinstance(v, str) for v in index.values()):
                    raise DamagedFile(f"{path}/{name}: has no weight_map")
                for shard in set(index.values()):
                    if "/" in shard or "\\" in shard or shard in ("", ".", ".."):
                        raise UnsafeFile(f"{path}/{name}: refused: names a shard outside its folder: {shard}")
                    if shard not in files:
                        raise DamagedFile(f"{path}/{name}: shard {shard} is missing; copy it into the folder")
                return sorted(set(index.values())), index
    loose = sorted(n for n in files if WEIGHTS.fullmatch(n) or FURTHER.fullmatch(n))
    kind = [n for n in loose if n.endswith(loose[0].rpartition(".")[2])]
    expected = int(kind[0].partition("-of-")[2].partition(".")[0] or 1)
    if len(kind) != expected:
        raise DamagedFile(f"{path}: {len(kind)} of {expected} shards are there; copy the missing ones into the folder")
    return kind, {}


def of_index(path: str) -> tuple[str, tuple[str, ...]]:
    """(folder, files of the checkpoint in it) if the path is that of an index of shards; no files if it is none.

    So a checkpoint can be named where folders cannot be listed, on a web server.
    """
    folder, mark, name = path.rpartition("/")
    folder = folder if mark else "."
    if not INDEX.fullmatch(name):
        return path, ()
    table = listing.read_json(path)
    index = table.get("weight_map") if isinstance(table, dict) else None
    named = {v for v in index.values() if isinstance(v, str)} if isinstance(index, dict) else set()
    beside = ["optimizer.pt", "optimizer.bin", "scheduler.pt", "scheduler.bin", "training_args.bin", *NOTES.values()]
    safe = sorted(n for n in named if "/" not in n and "\\" not in n)
    return folder, (name, *(n for n in [*safe, *beside] if listing.is_file(f"{folder}/{n}")))
