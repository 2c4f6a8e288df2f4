"""Megatron-LM's older layout: iter_0005000/mp_rank_00/model_optim_rng.pt, a torch file per model-parallel rank.

mp_rank_TT_PPP_EEE: tensor-parallel, pipeline and expert rank, the latter two if there are several. A stage numbers its
layers from zero; with virtual stages it holds model0, model1, …, and the model goes through the first of every rank,
then through the second. Source: megatron/training/checkpointing.py, tools/checkpoint/loader_legacy.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.listing import is_file
from smd_analyze.loading.formats.base import Document, FolderFormat
from smd_analyze.loading.parallel.model_parallel import (
    count_layers,
    merged,
    renumbered_layers,
    settings_only,
    unsure_findings,
)
from smd_analyze.loading.pickles.torch_files import TorchFiles
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import get, tensors
from smd_analyze.records.finding import Finding

RANK = re.compile(r"mp_rank_(\d+)(?:_(\d+))?(?:_(\d+))?")
NAMES = ("model_optim_rng.pt", "model_rng.pt")
OPTIMIZER = "distrib_optim.pt"
CHUNK = re.compile(r"model(\d*)")
EMBEDDING, HEAD = "word_embeddings.weight", "word_embeddings_for_head."  # the last stage's copy of the first's
EXPERT = re.compile(r"(\.local_experts\.)(\d+)\.")


class Part(NamedTuple):
    """What one rank saved: its place in the grid of ranks and its tree."""

    tensor: int
    stage: int
    expert: int
    tree: Mapping[Any, Any]


def claims(path: str, files: Sequence[str], below: Sequence[str]) -> tuple[str, ...]:
    """Folders of ranks, each with a model file of the same name."""
    ranks = sorted((b for b in below if RANK.fullmatch(b)), key=numbers_of)
    for name in NAMES if ranks else ():
        found = tuple(f"{rank}/{name}" for rank in ranks if is_file(f"{path}/{rank}/{name}"))
        if found:
            apart = f"{ranks[0]}/{OPTIMIZER}"
            return (*found, apart) if is_file(f"{path}/{apart}") else found
    return ()


def numbers_of(name: str) -> list[int]:
    """The numbers in a rank's folder name."""
    return [int(n) for n in re.findall(r"\d+", name.partition("/")[0])]


def open_folder(path: str, files: Sequence[str], previous: Document | None) -> tuple[Document, list[Finding]]:
    """The first rank's tree with the whole model in it. Optimizer states stay cut, so only their settings are kept."""
    models = [f for f in files if not f.endswith(OPTIMIZER)]
    reader = TorchFiles(path)
    trees = [reader.read_dict(name) for name in models]
    parts = [part_of_grid(numbers_of(n), t, trees[0]) for n, t in zip(models, trees, strict=True)]
    check_grid(path, models, parts)
    ranks = sorted({p.tensor for p in parts})
    whole = [one_rank([p for p in parts if p.tensor == rank], path) for rank in ranks]
    lacking = next((n for n in whole[0] if any(n not in w for w in whole)), None)
    if lacking is not None:
        raise DamagedFile(f"{path}: {lacking} is not on all ranks")
    model, unsure = merged(whole, len(ranks), path, gated=get(trees[0], "args.swiglu") is True)
    tree = {k: v for k, v in trees[0].items() if not (isinstance(k, str) and CHUNK.fullmatch(k))}
    tree["model"] = model
    findings = unsure_findings(unsure, path)
    if len(parts) > 1 and "optimizer" in tree:
        tree["optimizer"] = settings_only(tree["optimizer"])
    if len(parts) > 1 or len(models) < len(files):
        where = f"in {OPTIMIZER}, in flat buckets" if len(models) < len(files) else "cut over the ranks"
        words = f"the optimizer's state lies {where}: it is not used, only its settings are"
        findings.append(Finding("optimizer-state-unmatched", "note", path, words))
    return Document(path, FORMAT.name, tree, tuple(reader.identities), folder=True), findings


def part_of_grid(numbers: Sequence[int], tree: Mapping[Any, Any], first: Mapping[Any, Any]) -> Part:
    """Which rank a folder's numbers mean: of two, the second is the expert's if the arguments know no stages."""
    tensor, stage, expert = (*numbers, 0, 0)[:3]
    stages, experts = (get(first, f"args.{k}_model_parallel_size") for k in ("pipeline", "expert"))
    if len(numbers) == 2 and stages == 1 and type(experts) is int and experts > 1:
        stage, expert = 0, stage
    return Part(tensor, stage, expert, tree)


def check_grid(path: str, names: Sequence[str], parts: Sequence[Part]) -> None:
    """Every rank is there: as many as the arguments say, and no gap in the grid."""
    have = {part[:3] for part in parts}
    shape = [1 + max(numbers) for numbers in zip(*have, strict=True)]
    said = (
        get(parts[0].tree, "args.tensor_model_parallel_size"),
        get(parts[0].tree, "args.pipeline_model_parallel_size"),
    )
    for axis, count in enumerate(said):
        if type(count) is int and 0 < count < 1 << 16:
            shape[axis] = max(shape[axis], count)
    if shape[0] * shape[1] * shape[2] == len(parts):
        return
    full = ((t, p, e) for t in range(shape[0]) for p in range(shape[1]) for e in range(shape[2]))
    lost = next(rank for rank in full if rank not in have)
    digits = f"mp_rank_{lost[0]:02d}" + (f"_{lost[1]:03d}" if shape[1] > 1 else "")
    digits += f"_{lost[2]:03d}" if shape[2] > 1 else ""
    file = names[0].rpartition("/")[2]
    raise DamagedFile(f"{path}: {digits}/{file} of {shape[0]} × {shape[1]} ranks is missing; copy it into the folder")


def one_rank(parts: Sequence[Part], path: str) -> dict[str, Place]:
    """All tensors of one tensor-parallel rank: its stages, and what is virtual of them, one after the other."""
    chunks: list[tuple[int, int, int, dict[str, Place]]] = []
    for part in parts:
        for key in (k for k in part.tree if isinstance(k, str)):
            found = CHUNK.fullmatch(key)
            if found:
                names = tensors(part.tree[key], f"{path}: {key}")
                chunks.append((int(found[1] or 0), part.stage, part.expert, names))
    out: dict[str, Place] = {}
    offset = 0
    steps = sorted({chunk[:2] for chunk in chunks})
    for step in steps:
        own = sorted((c for c in chunks if c[:2] == step), key=lambda c: c[2])
        for _, _, expert, names in own:
            title = renumbered_layers(with_experts(names, expert), offset)
            for name, place in with_experts(names, expert).items():
                out.setdefault(title[name], place)
        offset += count_layers(own[0][3])
    copies = [n for n in out if HEAD in n and any(EMBEDDING in other for other in out)]
    return {n: p for n, p in out.items() if n not in copies}


def with_experts(names: Mapping[str, Place], rank: int) -> dict[str, Place]:
    """The tensors with every expert's number in the whole model: each rank counts its own from zero."""
    local = 1 + max((int(found[2]) for n in names if (found := EXPERT.search(n))), default=-1)
    move = rank * local
    return {EXPERT.sub(lambda f: f"{f[1]}{int(f[2]) + move}.", n) if move else n: p for n, p in names.items()}


FORMAT = FolderFormat("Megatron ranks", claims, open_folder)
