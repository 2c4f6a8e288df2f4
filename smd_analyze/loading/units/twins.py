"""The optimizer's state in a file of its own beside the weights: MLX, MindSpore, Paddle, MXNet, Caffe and some of
torch's trainers do so.

The pair becomes one document: the weights' tree with the other's under "__optimizer__".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from smd_analyze.errors import SmdError
from smd_analyze.loading.files.findings import unreadable
from smd_analyze.loading.files.sources import open_source
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.formats.registry import open_document
from smd_analyze.loading.tensors.trees import moved
from smd_analyze.records.finding import Finding

OPTIMIZER = "__optimizer__"
PAIRS = (
    (r"(.*[_\-.])(?:model|weights)\.(safetensors|npz)", r"\1optimizer.\2"),
    (r"(?!opt)(.+)-(\d+_\d+)\.ckpt", r"opt-\2.ckpt"),
    (r"(.*)\.pdparams()", r"\1.pdopt\2"),
    (r"(.*)\.params()", r"\1.states\2"),
    (r"(.*)\.caffemodel((?:\.h5)?)", r"\1.solverstate\2"),
    (r"g_(\d{6,})()", r"do_\1\2"),  # HiFi-GAN: the generator; discriminators and optimizers
)
TORCH = re.compile(r"\.(pt|pth|th|bin|ckpt|pth\.tar|tar|pkl)$")
STATES = frozenset({"optim", "optims", "optimizer", "optimizers", "opt", "training", "trainer"})  # words of the state's
GENERIC = frozenset({"model", "net", "network", "params", "weights", "state", "states", "dict", "checkpoint", "ckpt",
                     "epoch", "step", "iter", "it", "ep", "e", "b", "rank"})  # fmt: skip


def twins_among(files: Sequence[str]) -> dict[str, str]:
    """Weights → the file among `files` that holds their optimizer's state, where there is one."""
    out = torch_twins(files)
    there = set(files)
    for name in files:
        for pattern, other in PAIRS:
            found = re.fullmatch(pattern, name)
            if found and (twin := found.expand(other)) in there:
                out[name] = twin
                break
    return out


def torch_twins(files: Sequence[str]) -> dict[str, str]:
    """Weights → optimizer's state, for files of torch.save whose names differ in the words for these only.

    `model_100.pt` and `optim_100_rank0.pt`, `model_state_epoch_4.th` and `training_state_epoch_4.th`: one of each kind
    with the same numbers and the same other words, else none.
    """
    weights: dict[Any, list[str]] = {}
    states: dict[Any, list[str]] = {}
    for name in files:
        if TORCH.search(name):
            words = re.findall(r"[a-z]+|\d+", re.sub(r"_?rank_?0+(?!\d)", "", TORCH.sub("", name).lower()))
            key = (tuple(w for w in words if w.isdigit()), frozenset(words) - STATES - GENERIC)
            (states if STATES.intersection(words) else weights).setdefault(key, []).append(name)
    return {w[0]: states[k][0] for k, w in weights.items() if len(w) == 1 and len(states.get(k, ())) == 1}


def with_twin(document: Document, twin: str) -> tuple[Document, list[Finding]]:
    """Both files as one document; weights alone, with a finding, if the other cannot be read."""
    own = document.tree if isinstance(document.tree, dict) else {"model": document.tree}
    try:
        with open_source(twin) as source:
            other = open_document(source)
    except (SmdError, OSError) as problem:
        return document, [unreadable(twin, problem)]
    tree = {**own, OPTIMIZER: moved(other.tree, len(document.files))}
    return replace(document, tree=tree, files=(*document.files, *other.files), fingerprint=None), []
