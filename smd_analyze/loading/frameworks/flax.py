"""Flax, Haiku and other JAX code: a tree of params beside batch_stats, opt_state (optax) and step.

Kernels have the output unit last; optax keeps its moments in trees like that of the params, and its hyperparameters
only if the optimizer was wrapped in optax.inject_hyperparams.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts, told
from smd_analyze.loading.frameworks.layouts import OUT_LAST, laid_out
from smd_analyze.loading.inert_objects import Inert
from smd_analyze.loading.tensors import Place
from smd_analyze.loading.trees import as_dict, get, nested, tensors
from smd_analyze.records.run import Setting

FORMATS = ("pickle", "npz", "npy folder", "msgpack", "safetensors")
WEIGHTS = (
    "params",
    "optimizer.target",
    "target",
    "state.params",
    "train_state.params",
    "model.params",
    "model",
    "variables",
)
STATISTICS = (
    "batch_stats",
    "model_state.batch_stats",
    "extra_state.batch_stats",
    "state.batch_stats",
    "variables.batch_stats",
)
OPTIMIZERS = ("opt_state", "optimizer_state", "opt", "optimizer", "state.opt_state", "train_state.opt_state")
COUNTERS = ("step", "state.step", "train_state.step", "global_step", "optimizer.state.step", "__step__")
MOMENTS = {"mu": "exp_avg", "nu": "exp_avg_sq", "trace": "momentum_buffer"}
HYPERPARAMETERS = {
    "learning_rate": "learning_rate", "weight_decay": "weight_decay", "momentum": "momentum", "decay": "momentum",
    "b1": "beta1", "b2": "beta2", "eps": "eps",
}  # fmt: skip
FIELDS = {
    "ScaleByAdamState": ("count", "mu", "nu"),
    "ScaleByLionState": ("count", "mu"),
    "TraceState": ("trace",),
    "ScaleByScheduleState": ("count",),
    "ScaleByRmsState": ("nu",),
    "ScaleByAmsgradState": ("count", "mu", "nu", "nu_max"),
    "InjectHyperparamsState": ("count", "hyperparams", "inner_state"),
    "InjectStatefulHyperparamsState": ("count", "hyperparams", "hyperparams_states", "inner_state"),
}  # fmt: skip
"""optax' named tuples, whose pickles hold values without names."""
DEEPEST = 40


def matches(document: Document) -> bool:
    """Kernels called `kernel`, or optax' and Flax' words at the top."""
    if document.format not in FORMATS:
        return False
    tree = as_dict(document.tree) or {}
    if tree.keys() & {"opt_state", "batch_stats"} or document.format == "msgpack":
        return True
    return any(re.search(r"(^|[./])kernel$", name) for name in tensors(document.tree, document.path))


def read_parts(document: Document) -> Parts:
    """Params, running statistics, optax' moments and injected hyperparameters."""
    tree = as_dict(document.tree) or {}
    if any(type(k) is str and "/" in k for k in tree):
        tree = nested(tree)
    weights, where = find_weights(tree)
    weights = {k: v for k, v in weights.items() if k != "__metadata__"}
    statistics = next((s for p in STATISTICS if (s := as_dict(get(tree, p)))), None)
    if statistics is None and "batch_stats" in weights:
        statistics = as_dict(weights["batch_stats"])
    if as_dict(weights.get("params")):
        weights = as_dict(weights["params"]) or {}
    average = next((k for k in plain.AVERAGES if tensors(tree.get(k))), None)
    state = next((n for p in OPTIMIZERS if (n := get(tree, p)) is not None and type(n) is not Place), None)
    found = list(parts_of(state, 0))
    step = next((n for k in COUNTERS if (n := plain.number(get(tree, k))) is not None), None)
    facts = [Fact(step, STEPS, "step in the file")] if step is not None else []
    count = next((n for key, v in found if key == "count" and (n := plain.number(v)) is not None), None)
    if count is not None:
        facts.append(Fact(count, STEPS, "optax' count in the file"))
    configured_in, configured = plain.find_config(tree)
    return Parts(
        laid_out(weights, layout_of),
        where,
        variants={"ema": laid_out(as_dict(tree[average]), layout_of)} if average else {},
        facts=tuple(facts),
        configured=configured,
        configured_in=configured_in,
        stated=plain.find_stated(tree),
        ordered=False,
        buffers={"batch_stats": statistics} if statistics else None,
        told=told(moments(found, count), settings(found)),
        torch_like=False,
    )


def find_weights(tree: Mapping[Any, Any]) -> tuple[dict[Any, Any], str]:
    """(the params, where they stand): under one of the usual keys, else all that is no optimizer's or statistics'."""
    for path in WEIGHTS:
        found = as_dict(get(tree, path))
        if found and tensors(found):
            return found, path
    beside = ("batch_stats", "step", "epoch", *plain.AVERAGES)
    rest = {k: v for k, v in tree.items() if k not in beside and not (type(k) is str and plain.is_optimizer_key(k))}
    return rest, ""


def layout_of(name: str, place: Place, siblings: Mapping[str, Any]) -> str | None:
    """Flax' kernel and Haiku's w: output last. Attention's (in, heads, size of a head) has its units in two axes: the
    last is named.
    """
    axes = len(place.shape)
    leaf = name.rpartition(".")[2]
    bias = siblings.get("bias" if leaf == "kernel" else "b")
    if axes == 1:
        return "O"
    if leaf == "kernel":
        headed = type(bias) is Place and len(bias.shape) == 2
        return "IHO" if axes == 3 and headed else OUT_LAST.get(axes)
    if leaf == "w" and (bias is None or (type(bias) is Place and bias.shape == place.shape[-1:])):
        return OUT_LAST.get(axes)
    return None


def parts_of(node: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """(name, value) of everything in an optimizer's state that has a name of optax', at any depth."""
    if depth > DEEPEST:
        return
    for key, value in members(node):
        if key in MOMENTS or key in ("hyperparams", "count"):
            yield key, value
        elif type(value) in (dict, list, tuple, Inert):
            yield from parts_of(value, depth + 1)


def members(node: Any) -> list[tuple[str, Any]]:
    """Children with their names: those of optax' named tuples are known."""
    if type(node) is dict:
        return [(str(k), v) for k, v in node.items()]
    if type(node) is Inert:
        names = FIELDS.get(node.name.rpartition(" ")[2])
        if names and len(names) == len(node.args):
            return list(zip(names, node.args, strict=True))
        return [*((str(i), v) for i, v in enumerate(node.args)), *node.attributes.items()]
    return [(str(i), v) for i, v in enumerate(node)] if type(node) in (list, tuple) else []


def moments(found: list[tuple[str, Any]], count: float | Place | None) -> dict[str, dict[str, Place]]:
    """Parameter → its moments under torch's names, with the count of updates."""
    out: dict[str, dict[str, Place]] = {}
    for key, node in found:
        if key in MOMENTS:
            for name, place in tensors(node).items():
                short = re.sub(r"^params[./]", "", name)
                out.setdefault(short, {}).setdefault(MOMENTS[key], place)
    if type(count) is Place:
        for state in out.values():
            state["step"] = count
    return out


def settings(found: list[tuple[str, Any]]) -> Iterator[tuple[Setting, Place | None]]:
    """Injected hyperparameters, as they were in the last update, and which optimizer keeps such moments."""
    kinds = {key for key, node in found if key in MOMENTS and tensors(node)}
    decays = False
    for key, node in found:
        if key != "hyperparams":
            continue
        for saved, value in members(node):
            name = HYPERPARAMETERS.get(saved)
            number = float(value) if type(value) in (int, float) else None
            place = value if type(value) is Place and value.shape in ((), (1,)) else None
            if name and (number is not None or place is not None):
                decays = decays or name == "weight_decay"
                source = f"optax' hyperparams.{saved} in the file"
                yield Setting(name, number, None, "", "in force", source, "last update"), place
    kind = ("AdamW" if decays else "Adam or AdamW") if {"mu", "nu"} <= kinds else "SGD" if "trace" in kinds else None
    if kind:
        yield Setting("optimizer", None, kind, "", "inferred", "the moments that optax keeps"), None


FRAMEWORK = Framework("flax", matches, read_parts)
