"""The same tree whichever library wrote it: nnx' boxes, haliax' and Haiku's modules of their own, saved tuples."""

from __future__ import annotations

from typing import Any

from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import as_dict, tensors

VALUES = ("value", "raw_value")
DEEPEST = 60


def bare(node: Any, depth: int) -> Any:
    """nnx keeps each variable as {"value": array} (or raw_value): the array in its place."""
    if type(node) is not dict or depth > DEEPEST:
        return node
    if len(node) == 1 and type(inner := next(iter(node.values()))) is Place and next(iter(node)) in VALUES:
        return inner
    return {k: bare(v, depth + 1) for k, v in node.items()}


def unboxed(node: Any) -> Any:
    """haliax keeps scanned layers in a module "stacked" of its own: its contents in its place."""
    if type(node) is not dict:
        return node
    if len(node) == 1 and type(node.get("stacked")) is dict:
        return unboxed(node["stacked"])
    return {k: unboxed(v) for k, v in node.items()}


def one_tree(tree: dict[Any, Any]) -> dict[Any, Any]:
    """A saved tuple of model and optimizer (nnx: (model state, optimizer state)) under words."""
    if not tree or not all(str(k).isdigit() for k in tree):
        return tree
    parts = [as_dict(v) or {} for v in tree.values()]
    states = [p for p in parts if "opt_state" in p]
    rest = [p for p in parts if "opt_state" not in p and tensors(p)]
    if len(states) != 1 or not rest:
        return tree
    model = max(rest, key=lambda p: sum(t.nbytes for t in tensors(p).values()))
    return {**states[0], "model": model}


def without_statistics(node: dict[Any, Any], depth: int) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """(the tree without the mean and var that nnx keeps in its BatchNorm modules, those by themselves)."""
    kept: dict[Any, Any] = {}
    taken: dict[Any, Any] = {}
    mean, variance = node.get("mean"), node.get("var")
    statistics = type(mean) is Place and type(variance) is Place and mean.shape == variance.shape
    for key, value in node.items():
        if statistics and key in ("mean", "var"):
            taken[key] = value
        elif type(value) is dict and depth < DEEPEST:
            rest, inner = without_statistics(value, depth + 1)
            kept[key] = rest
            if inner:
                taken[key] = inner
        else:
            kept[key] = value
    return kept, taken


def haiku_statistics(node: Any) -> dict[str, Any]:
    """The averages of Haiku's BatchNorm (`bn/~/mean_ema`: {average, …}) as Flax keeps them."""
    out: dict[str, Any] = {}
    for key, value in (as_dict(node) or {}).items():
        module, mark, leaf = str(key).rpartition("/~/")
        average = (as_dict(value) or {}).get("average")
        if mark and leaf in ("mean_ema", "var_ema") and type(average) is Place:
            out.setdefault(module, {})[leaf[:-4]] = average
    return out
