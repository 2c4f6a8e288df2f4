"""Flax, Haiku and other JAX code: a tree of params beside batch_stats, opt_state (optax) and step.

flax.linen and nnx, MaxText, T5X, EasyLM, PaxML and Levanter nest them differently; kernels have the output unit last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import flax_layouts, haliax, optax, plain
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts, Told
from smd_analyze.loading.frameworks.flax_trees import bare, haiku_statistics, one_tree, unboxed, without_statistics
from smd_analyze.loading.frameworks.stacked import Stack, each_layer, find_stacks, findings, unstacked
from smd_analyze.loading.tensors.dtypes import FLOATING
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import as_dict, get, nested, tensors

FORMATS = ("pickle", "npz", "npy folder", "npy objects", "msgpack", "safetensors")
FOLDERS = ("orbax", "t5x", "tensorstore")
"""Formats of JAX alone."""
WRAPPERS = ("state", "train_state", "optimizer", "model_state", "train")
"""What all may be nested in; T5X and old Flax call the whole state the optimizer."""
WEIGHTS = ("params", "target", "mdl_vars.params", "mdl_vars", "model.params", "model", "variables", "graphdef.params")
STATISTICS = ("batch_stats", "model_state.batch_stats", "extra_state.batch_stats", "variables.batch_stats",
              "flax_mutables.batch_stats", "mutable.batch_stats", "model_state")  # fmt: skip
OPTIMIZERS = ("optimizer_state", "opt", "optimizer", "optim", "state")
COUNTERS = ("step", "global_step", "optimizer.step", "state.step", "optimizer.state.step", "__step__", "metadata.step",
            "custom_metadata.step")  # fmt: skip
AVERAGES = (*plain.AVERAGES, "params_ema", "model_averaging.model", "ema_params.params")


def matches(document: Document) -> bool:
    """Kernels called `kernel`, or optax' and Flax' words at the top."""
    if document.format in FOLDERS:
        return True
    if document.format not in FORMATS:
        return False
    tree = as_dict(document.tree) or {}
    if tree.keys() & {"opt_state", "batch_stats"} or document.format == "msgpack":
        return True
    return any(re.search(r"(^|[./])kernel$", name) for name in tensors(document.tree, document.path))


def read_parts(document: Document) -> Parts:
    """Params, running statistics, averages, optax' moments and injected hyperparameters."""
    tree = as_dict(document.tree) or {}
    if any(type(k) is str and "/" in k for k in tree):
        tree = nested(tree)
    tree = one_tree(bare(tree, 0))
    around, inside = unwrapped(tree)
    weights, where = find_weights(around)
    statistics = next((s for p in STATISTICS if p != where and (s := as_dict(get(around, p))) and tensors(s)), None)
    statistics = statistics or haiku_statistics(around.get("state"))
    if "batch_stats" in weights:
        statistics = statistics or as_dict(weights["batch_stats"])
        weights = {k: v for k, v in weights.items() if k != "batch_stats"}
    while len(weights) == 1 and as_dict(weights.get("params")):
        weights = as_dict(weights["params"]) or {}
    weights, running = without_statistics(unboxed(weights), 0)
    stacks = find_stacks(weights)
    laid_out = haliax.laid_out if haliax.is_levanter(weights) else flax_layouts.laid_out
    places = (around,) if around is tree else (around, tree)
    copies = ((get(t, a), a) for t in places for a in AVERAGES)
    average = next((n for n, a in copies if n is not None and a != where and tensors(n)), None)
    found = list(optax.parts_of([v for t in places for v in optimizers_in(t) if v is not get(around, where)]))
    pairs = list(optax.settings(found))
    counted = optax.facts(found)
    step = next((n for t in places for k in COUNTERS if (n := plain.number(get(t, k))) is not None), None)
    accumulates = any(p.key == "gradient_step" for p in found)  # then the file's step counts batches, not updates
    facts = [Fact(step, STEPS, "step in the file")] if step is not None and not accumulates else []
    states, groups = by_parameter(found, stacks, counted[-1].value if counted else None)
    configured_in, configured = plain.find_config(tree)
    return Parts(
        laid_out(unstacked(weights, stacks)),
        (inside + "." if inside and where else inside) + where,
        variants={"ema": laid_out(averaged(average, stacks))} if average is not None else {},
        facts=(*facts, *counted),
        configured=configured,
        configured_in=configured_in,
        stated=plain.find_stated(tree) | plain.find_stated(tree.get("custom_metadata")),
        others=beside(around, where, weights) if where else (),
        ordered=False,
        buffers={"batch_stats": statistics or running} if statistics or running else None,
        told=Told(
            groups, states, tuple(s for s, _ in pairs), {s: p for s, p in pairs if p is not None}, findings(stacks)
        ),
        torch_like=False,
    )


def unwrapped(tree: dict[Any, Any]) -> tuple[dict[Any, Any], str]:
    """(the dict that holds params, optimizer and step side by side, where it is)."""
    for key in ("", *WRAPPERS):
        node = as_dict(tree.get(key)) if key else tree
        if node and any((w := as_dict(get(node, p))) and tensors(w) for p in WEIGHTS):
            return node, key
    return tree, ""


def find_weights(tree: Mapping[Any, Any]) -> tuple[dict[Any, Any], str]:
    """(the params, where they stand): under one of the usual keys, else all that is no optimizer's or statistics'."""
    for path in WEIGHTS:
        found = as_dict(get(tree, path))
        if found and tensors(found):
            return {k: v for k, v in found.items() if k != "__metadata__"}, path
    others = (
        "batch_stats",
        "step",
        "epoch",
        "__metadata__",
        "metadata",
        "rng",
        "rngs",
        *plain.AVERAGES,
        *plain.CONFIGS,
    )
    rest = {k: v for k, v in tree.items() if k not in others and not (type(k) is str and plain.is_optimizer_key(k))}
    return rest, ""


def optimizers_in(tree: Mapping[Any, Any]) -> list[Any]:
    """States of optimizers that stand right in a dict."""
    found = {k: v for k, v in tree.items() if k in OPTIMIZERS or str(k).startswith("opt_state")}
    return [v for v in found.values() if type(v) is not Place]


def beside(tree: Mapping[Any, Any], where: str, weights: Mapping[Any, Any]) -> tuple[str, ...]:
    """Further models of some size beside the weights."""
    known = (where.partition(".")[0], *OPTIMIZERS, *plain.CONFIGS, "custom_metadata")
    known += tuple(p.partition(".")[0] for p in (*AVERAGES, *STATISTICS))
    sizes = {
        k: sum(p.nbytes for p in tensors(v).values() if p.dtype in FLOATING and len(p.shape) > 1)
        for k, v in tree.items()
        if type(v) is dict and type(k) is str and k not in known and "opt" not in re.split(r"[^a-z]+|imizer", k)
    }
    own = sum(p.nbytes for p in tensors(weights).values())
    return tuple(k for k, size in sizes.items() if size * 20 > own)


def averaged(node: Any, stacks: list[Stack]) -> Any:
    """An averaged copy of the params, its layers cut like theirs."""
    node = as_dict(node) or {}
    while len(node) == 1 and as_dict(node.get("params")):
        node = as_dict(node["params"]) or {}
    return unstacked(unboxed(node), stacks)


def by_parameter(
    found: list[optax.Part], stacks: list[Stack], count: float | Place | None
) -> tuple[dict[str, dict[str, Place]], dict[str, tuple[str, ...]]]:
    """(parameter → its moments under torch's names, with the count of updates; group → parameters)."""
    states: dict[str, dict[str, Place]] = {}
    groups: dict[str, dict[str, None]] = {}
    for group, saved, kind, whole in optax.moments(found):
        for name, place in each_layer(stripped(saved), whole, stacks):
            states.setdefault(name, {}).setdefault(kind, place)
            if group:
                groups.setdefault(group, {})[name] = None
    if type(count) is Place:
        for state in states.values():
            state["step"] = count
    return states, {g: tuple(names) for g, names in groups.items()}


def stripped(name: str) -> str:
    """A moment's name without the wrappers of the params that it is of."""
    return re.sub(r"^((params|mdl_vars|target)[./])+", "", name).replace(".stacked.", ".")


FRAMEWORK = Framework("flax", matches, read_parts)
