"""DeepSpeed: a folder of model states and optimizer states, each cut over ranks in one or more ways.

mp_rank_01_…: model-parallel ranks (tensor and pipeline); zero_pp_rank_1_…: data-parallel ranks of ZeRO;
layer_00-model_01-…: a pipeline's layers; layer_0_expert_2_…: experts. Trainers put the folder into another one, beside
files of their own (transformers: checkpoint-10/global_step10; Lightning: epoch=1.ckpt/checkpoint; accelerate).
Source: deepspeed/runtime/engine.py, runtime/pipe/module.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.listing import is_file, walk
from smd_analyze.loading.formats.base import Document, FolderFormat
from smd_analyze.loading.formats.beside import is_beside, with_beside
from smd_analyze.loading.parallel.model_parallel import merged, settings_only, unsure_findings
from smd_analyze.loading.parallel.zero_partitions import join_partitions, rank_of
from smd_analyze.loading.pickles.torch_files import TorchFiles
from smd_analyze.loading.tensors.places import Place, joined
from smd_analyze.loading.tensors.trees import as_dict, get, tensors
from smd_analyze.records.finding import Finding

MODEL = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_(\d+)_model_states\.pt")
OPTIMIZER = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")
LAYER = re.compile(r"layer_(\d+)(?:-model_(\d+))?-model_states\.pt")
EXPERT = re.compile(r"layer_\d+_expert_\d+_mp_rank_(\d+)_model_states\.pt")
ALL = (MODEL, OPTIMIZER, LAYER, EXPERT)
INNER = re.compile(r"checkpoint|pytorch_model(_\d+)?")
STEP = re.compile(r"global_step(\d+)")
TRAINERS = ("trainer_state.json", "training_args.bin", "scheduler.pt", "scheduler.bin")


def claims(path: str, files: Sequence[str], below: Sequence[str]) -> tuple[str, ...]:
    """Model states, or one folder that holds them beside a trainer's files."""
    own = ours(files)
    if own:
        return () if "zero" in below else own  # universal checkpoints have a folder of that name
    inner = [b for b in below if INNER.fullmatch(b)]
    if any(f in files for f in TRAINERS):
        inner += sorted((b for b in below if STEP.fullmatch(b)), key=lambda b: -int(b[len("global_step") :]))
    for name in inner:
        folder = f"{path}/{name}"
        if any(is_file(f"{folder}/{stem}mp_rank_00_model_states.pt") for stem in ("", "zero_pp_rank_0_")):
            found = ours(next((names for _, _, names in walk(folder, lambda _: None)), []))
            return (*(f"{name}/{f}" for f in found), *(f for f in files if is_beside(f) and not f.startswith("opt")))
    return ()


def ours(files: Sequence[str]) -> tuple[str, ...]:
    """The files of DeepSpeed's names; none if there is no model."""
    found = tuple(f for f in files if any(p.fullmatch(f) for p in ALL))
    return found if any(MODEL.fullmatch(f) or LAYER.fullmatch(f) for f in found) else ()


def open_folder(path: str, files: Sequence[str], previous: Document | None) -> tuple[Document, list[Finding]]:
    """The model's tree, with `master` (float32 weights) and `optimizer` (by names) joined from the ranks' parts."""
    folder = next((f.rpartition("/")[0] for f in files if "/" in f), "")
    inside = [f.rpartition("/")[2] for f in files if not folder or f.startswith(folder + "/")]
    reader = TorchFiles(f"{path}/{folder}" if folder else path)
    models = {n: sorted((f for f in inside if rank_in(MODEL, f) == n), key=rank_of) for n in ranks_in(MODEL, inside)}
    missing = sorted(set(range(len(models))) - set(models))
    if missing:
        raise DamagedFile(f"{path}: mp_rank_{missing[0]:02d}_model_states.pt is missing; copy it into the folder")
    trees: list[dict[Any, Any]] = []
    modules: list[dict[str, Place]] = []
    masters: list[dict[str, Place]] = []
    optimizers: list[dict[str, Any]] = []
    for number, names in models.items():
        tree = reader.read_dict(names[0])
        module = tensors(tree.get("module"), path)
        for name in (f for f in inside if rank_in(EXPERT, f) == number):
            module |= tensors(reader.read_dict(name), path)
        parts = sorted((f for f in inside if rank_in(OPTIMIZER, f) == number), key=rank_of)
        ranks = [as_dict(get(reader.read_dict(f), "optimizer_state_dict")) or {} for f in parts]
        if ranks:
            master, optimizer = join_partitions(tree, ranks, parts, path)
            masters.append(master)
            optimizers.append(optimizer)
        trees.append(tree)
        modules.append(module | frozen(tree, names, reader, path))
    check_whole(path, trees, modules, masters)
    cut = tensor_ranks(trees, inside)
    layers = pipeline_layers(inside, reader, trees, path)
    module, unsure = merged([*modules, *layers], cut, path)
    tree: dict[Any, Any] = {**(trees[0] if trees else {}), "module": module}
    if masters:
        tree |= {"master": merged(masters, cut, path)[0], "optimizer": one_optimizer(optimizers, cut, path)}
    elif len(trees) > 1:
        tree["optimizer"] = settings_only(tree.get("optimizer"))
    document = Document(path, FORMAT.name, tree, tuple(reader.identities), folder=True)
    return with_beside(document, unsure_findings(unsure, path), path, files if folder else ())


def check_whole(
    path: str, trees: Sequence[Mapping[str, Any]], modules: Sequence[Mapping[str, Place]], masters: Sequence[Any]
) -> None:
    """DamagedFile if optimizer states are missing that hold the weights (stage 3), or some model-parallel rank's."""
    empty = [n for module in modules for n, p in module.items() if p.shape == (0,)]
    hollow = not masters and empty and any(isinstance(t.get("param_shapes"), list) for t in trees)
    if hollow or len(masters) not in (0, len(trees)):
        which = "" if hollow else f" of {len(trees) - len(masters)} model-parallel ranks"
        words = f"its optim_states.pt files{which} are missing" + (
            ", which hold the weights (ZeRO-3)" if hollow else ""
        )
        raise DamagedFile(f"{path}: {words}; copy the whole folder")


def rank_in(pattern: re.Pattern[str], name: str) -> int | None:
    """The model-parallel rank in a file's name; None for other files."""
    found = pattern.fullmatch(name)
    return int(found[found.lastindex or 0]) if found else None


def ranks_in(pattern: re.Pattern[str], names: Sequence[str]) -> list[int]:
    """All model-parallel ranks of such files."""
    return sorted({r for n in names if (r := rank_in(pattern, n)) is not None})


def tensor_ranks(trees: Sequence[Mapping[str, Any]], names: Sequence[str]) -> int:
    """How many ranks hold a part of one layer: as the file says, else as the layers' files show."""
    said = get(trees[0], "checkpoint_parallel_dimensions.tp_degree") if trees else None
    if type(said) is int and said > 0:
        return said
    layers = [found for n in names if (found := LAYER.fullmatch(n))]
    return len({found[2] for found in layers}) if layers else max(1, len(trees))


def pipeline_layers(
    names: Sequence[str], reader: TorchFiles, trees: Sequence[Mapping[str, Any]], path: str
) -> list[dict[str, Place]]:
    """Per tensor-parallel rank the tensors of all layers, `3.norm.weight`; those that layers share, by their tied name.

    The optimizer knows the former, and the latter as `tied_modules.KEY.weight`.
    """
    found = sorted((n for n in names if LAYER.fullmatch(n)), key=lambda n: [int(x) for x in re.findall(r"\d+", n)])
    shapes: dict[str, Any] = {}
    for tree in trees:
        for group in tree["param_shapes"] if isinstance(tree.get("param_shapes"), list) else ():
            shapes |= as_dict(group) or {}
    out: dict[int, dict[str, Place]] = {}
    for name in found:
        number, rank = re.findall(r"\d+", name)[0], re.findall(r"-model_(\d+)", name)
        layer = out.setdefault(int(rank[0]) if rank else 0, {})
        for short, place in tensors(reader.read_dict(name), path).items():
            own = f"{int(number)}.{short}"
            tied = [n for n in shapes if n.startswith("tied_modules.") and n.endswith("." + short)]
            tied = [n for n in tied if shapes[n] == place.shape] if own not in shapes else []
            layer.setdefault(tied[0] if len(tied) == 1 else own, place)
    return [out[rank] for rank in sorted(out)]


def frozen(tree: Mapping[str, Any], names: Sequence[str], reader: TorchFiles, path: str) -> dict[str, Place]:
    """Stage 3 cuts what is not trained, too, and keeps it in the model states: an even share on every rank."""
    shapes = tree.get("frozen_param_shapes")
    if type(shapes) is not dict or not shapes or len(names) < 2:
        return {}
    shares = [as_dict(t.get("frozen_param_fragments")) or {} for t in (tree, *(reader.read_dict(n) for n in names[1:]))]
    out: dict[str, Place] = {}
    for name, shape in shapes.items():
        left, pieces = prod(shape), []
        for share in shares:
            place = share.get(name)
            if type(place) is not Place or place.strides is not None:
                raise DamagedFile(f"{path}: {name}: not every rank's model states hold a part of it")
            count = min(left, prod(place.shape))
            if count:
                pieces.append(((prod(shape) - left,), replace(place, shape=(count,))))
            left -= count
        out[name] = joined(shape, pieces[0][1].dtype if pieces else "float32", pieces, f"{path}: {name}")
    return out


def one_optimizer(optimizers: Sequence[Mapping[str, Any]], cut: int, path: str) -> dict[str, Any]:
    """The optimizers of all model-parallel ranks as one: groups of one number hold what any rank's does."""
    if len(optimizers) == 1:
        return dict(optimizers[0])
    groups: list[dict[str, Any]] = []
    for optimizer in optimizers:
        for number, group in enumerate(optimizer["param_groups"]):
            if number == len(groups):
                groups.append({**group, "params": []})
            groups[number]["params"] = list(dict.fromkeys([*groups[number]["params"], *(group["params"] or ())]))
    slots = {slot for o in optimizers for state in o["state"].values() for slot in state}
    states: dict[str, dict[str, Any]] = {}
    for slot in sorted(slots):
        parts = [{n: s[slot] for n, s in o["state"].items() if slot in s} for o in optimizers]
        whole = all(type(v) is Place and v.shape for part in parts for v in part.values())
        first = {n: v for part in reversed(parts) for n, v in part.items()}
        for name, value in (merged(parts, cut, path)[0] if whole else first).items():
            states.setdefault(name, {})[slot] = value
    return {"state": states, "param_groups": groups}


FORMAT = FolderFormat("DeepSpeed", claims, open_folder)
