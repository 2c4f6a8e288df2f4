"""DeepSpeed's universal checkpoints: zero/NAME/fp32.pt, exp_avg.pt, … , one file per parameter and state.

Source: deepspeed/checkpoint/ds_to_universal.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.listing import walk
from smd_analyze.loading.formats.base import Document, FolderFormat
from smd_analyze.loading.parallel.model_parallel import merged, unsure_findings
from smd_analyze.loading.parallel.zero_partitions import uniquely_named
from smd_analyze.loading.pickles.torch_files import TorchFiles
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import as_dict, get, tensors
from smd_analyze.records.finding import Finding

MODEL = re.compile(r"mp_rank_(\d+)_model_states\.pt")
MASTER = "fp32"


def claims(path: str, files: Sequence[str], below: Sequence[str]) -> tuple[str, ...]:
    """Model states beside a folder `zero`."""
    models = tuple(sorted(f for f in files if MODEL.fullmatch(f)))
    return models if models and "zero" in below else ()


def open_folder(path: str, files: Sequence[str], previous: Document | None) -> tuple[Document, list[Finding]]:
    """The model's tree, with `master` and `optimizer` (both by name) from the parameters' folders."""
    reader = TorchFiles(path)
    models = [reader.read(name) for name in files]
    masters: dict[str, Place] = {}
    states: dict[str, dict[str, Any]] = {}
    groups: list[dict[str, Any]] = []
    for folder, _, names in walk(f"{path}/zero", lambda _: None):
        parameter = folder[len(f"{path}/zero") :].strip("/")
        for name in sorted(n for n in names if n.endswith(".pt")):
            slot = name.removesuffix(".pt")
            if not parameter and slot == "optimizer_state":
                found = reader.read(f"{folder[len(path) + 1 :]}/{name}")
                listed = get(found, "param_groups") or get(found, "base_optimizer_state.param_groups")
                groups = [as_dict(g) or {} for g in listed] if isinstance(listed, list) else []
            elif parameter:
                found = reader.read(f"{folder[len(path) + 1 :]}/{name}")
                value = found.get("param") if type(found) is dict else found
                if slot == MASTER and type(value) is Place:
                    masters[parameter] = value
                elif type(value) in (Place, int, float):
                    states.setdefault(parameter, {})[slot] = value
    if not masters:
        raise DamagedFile(f"{path}: its folder `zero` holds no fp32.pt of a parameter; copy the whole folder")
    shapes = get(models[0], "param_shapes")
    order = [list(as_dict(s) or {}) for s in shapes] if isinstance(shapes, list) else []
    if len(order) == len(groups):
        groups = [{**g, "params": [n for n in names if n in masters]} for g, names in zip(groups, order, strict=True)]
    module, unsure = merged([tensors(get(m, "module"), path) for m in models], max(1, len(models)), path)
    names = dict.fromkeys([*(n for group in order for n in group if n in masters), *masters])
    tree = {
        **(as_dict(models[0]) or {}),
        "module": module,
        "master": {n: masters[n] for n in names if n not in module or n in states},
        "optimizer": {"state": states, "param_groups": uniquely_named(groups)},
    }
    document = Document(path, FORMAT.name, tree, tuple(reader.identities), folder=True)
    return document, unsure_findings([n for n in unsure if n not in masters], path)


FORMAT = FolderFormat("DeepSpeed universal", claims, open_folder)
