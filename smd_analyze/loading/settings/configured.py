"""Hyperparameters in the settings that a trainer was given: any tree of names, of any framework. Nothing is guessed.

A name is a setting of the optimizer if it stands beside a learning rate or below something called optimizer. Where
several learning rates (decays, optimizers) are named that differ, each is told under its full key, and none is chosen.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

from smd_analyze.loading.settings.key_words import is_rate, words
from smd_analyze.loading.tensors.trees import as_dict, plain
from smd_analyze.records.run import Setting

RATE = frozenset((
    "lr", "learning_rate", "base_lr", "lr0", "peak_lr", "max_lr", "init_lr", "initial_lr", "learningrate", "optim_lr",
    "optimizer_lr", "initial_learning_rate", "base_learning_rate", "peak_learning_rate", "max_learning_rate", "opt_lr",
    "lr_init", "lr_max", "lr_base",
))  # fmt: skip
NUMBERS = {
    "weight_decay": "weight_decay", "wd": "weight_decay", "weightdecay": "weight_decay", "decay_weight": "weight_decay",
    "optim_weight_decay": "weight_decay", "momentum": "momentum", "sgd_momentum": "momentum", "dampening": "dampening",
    "nesterov": "nesterov", "beta1": "beta1", "beta2": "beta2", "beta_1": "beta1", "beta_2": "beta2", "b1": "beta1",
    "b2": "beta2", "adam_beta1": "beta1", "adam_beta2": "beta2", "adam_eps": "eps", "adam_epsilon": "eps",
    "opt_eps": "eps", "eps": "eps", "epsilon": "eps",
}  # fmt: skip
PAIRS = ("betas", "adam_betas", "opt_betas", "optimizer_betas")
OPTIMIZER = ("optimizer", "opt", "optim", "optimizer_name", "optim_name", "optimizer_type", "opt_type",
             "optimizer_class")  # fmt: skip
SCHEDULE = (
    "lr_scheduler_type", "lr_scheduler", "scheduler", "sched", "lr_schedule", "lr_policy", "schedule",
    "param_scheduler", "lr_config", "scheduler_name", "scheduler_type", "lr_decay_style", "lr_scheduler_name",
    "learning_rate_schedule",
)  # fmt: skip
CLASS = ("type", "name", "_target_", "class_name", "class_path", "cls", "policy", "_type", "opt_type", "lr_policy")
AS_IS = frozenset((
    "warmup", "warmup_steps", "num_warmup_steps", "warmup_ratio", "warmup_epochs", "warmup_iters", "warmup_updates",
    "lr_warmup_steps", "lr_warmup_iters", "warmup_lr", "warmup_momentum", "warmup_bias_lr", "max_steps", "max_iters",
    "max_iter", "max_epochs", "max_epoch", "num_epochs", "epochs", "n_epochs", "num_train_epochs", "total_steps",
    "max_update", "max_train_steps", "train_iters", "total_epochs", "steps_per_epoch", "min_lr", "final_lr",
    "lr_decay_iters", "lr_decay_steps", "decay_epochs", "decay_rate", "cooldown_epochs", "lrf", "cos_lr", "lr_min",
    "milestones", "lr_steps", "lr_drop", "gamma", "step_size", "batch_size", "train_batch_size", "global_batch_size",
    "micro_batch_size", "train_micro_batch_size_per_gpu", "per_device_train_batch_size", "batch_size_per_gpu",
    "samples_per_gpu", "ims_per_batch", "nbs", "gradient_accumulation_steps", "accumulate_grad_batches", "accum_iter",
    "update_freq", "grad_accum_steps", "grad_accumulation_steps", "accumulation_steps", "accumulate", "layer_decay",
))  # fmt: skip
MOVING = frozenset((
    "warmup", "warmup_steps", "num_warmup_steps", "warmup_ratio", "warmup_epochs", "warmup_iters", "warmup_updates",
    "lr_warmup_steps", "lr_warmup_iters", "lr_decay_iters", "lr_decay_steps", "milestones", "lr_steps", "lr_drop",
    "decay_epochs", "lrf", "step_size", "cos_lr", "lr_decay", "lr_gamma", "lr_decay_rate", "decay_lr",
    "lr_decay_epochs",
))  # fmt: skip
MOVES_NOTHING = (0, 1, False, None, "", "none", "None", [])
HOMES = frozenset(("optim", "optimizer", "optimizers", "opt", "solver", "optimization", "optimiser"))
ELSEWHERE = frozenset(("sweep", "sweeper", "search", "grid", "space", "distributions", "sched", "finder", "choices"))
MOST_LEAVES = 5000
DEEPEST = 10


class Leaf(NamedTuple):
    """A value and the keys that lead to it; `key` is the last of them, in small letters with underscores."""

    path: tuple[str, ...]
    value: Any
    key: str


def configured_settings(configured: Mapping[str, Any], where: str) -> list[Setting]:
    """What the trainer was told, under our names; `where` is a file's name or the key in a checkpoint."""
    found = [leaf for leaf in leaves(configured) if not ELSEWHERE & {w for p in leaf.path[:-1] for w in words(p)}]
    if not found:
        return []
    mark = ", " if "." in where or "/" in where else "."
    out = rates(found, where + mark)
    homes = {leaf.path[:-1] for leaf in found if rate_of(leaf) is not None}
    near = [f for f in found if f.path[:-1] in homes or len(f.path) == 1 or in_optimizer(f)]
    for name in dict.fromkeys(NUMBERS.values()):
        keys = {k for k, n in NUMBERS.items() if n == name}
        stated = [(f, v) for f in near if f.key in keys and (v := number(f.value)) is not None and believable(f)]
        stated += [(f, v) for f in near if f.key in PAIRS and (v := of_pair(f.value, name)) is not None]
        out += chosen(name, stated, where + mark)
    out += named_classes("optimizer", OPTIMIZER, configured, found, where + mark)
    schedule = named_classes("schedule", SCHEDULE, configured, found, where + mark)
    moving = next((f for f in found if f.key in MOVING and plain(f.value) not in MOVES_NOTHING), None)
    if not schedule and moving is not None and out:
        unnamed = f"not named, but {moving.path[-1]} is set"
        schedule = [told("schedule", None, unnamed, where + mark, moving.path)]
    out += schedule
    for leaf in found:  # a policy's own numbers, as readers of schedules that are formulas name them
        if leaf.path[-1].startswith("schedule."):
            listed = json.dumps(leaf.value) if isinstance(leaf.value, list) else None
            value = None if listed else number(leaf.value)
            if listed or value is not None:
                out.append(told(leaf.path[-1], value, listed, where + mark, leaf.path[-1:]))
    for key in dict.fromkeys(f.key for f in found if f.key in AS_IS):
        stated = [(f, v) for f in found if f.key == key and (v := number(f.value)) is not None]
        out += chosen(key, stated, where + mark)
    return out


def leaves(tree: Any) -> Iterator[Leaf]:
    """The values of a tree with their keys, a bounded number of them; lists of trees by number."""
    stack: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    seen = 0
    while stack and seen < MOST_LEAVES:
        path, node = stack.pop()
        seen += 1
        inner = as_dict(node)
        if inner is not None and len(path) < DEEPEST and plain(node) is node:
            stack += [((*path, k), v) for k, v in reversed(inner.items()) if isinstance(k, str)]
        elif isinstance(node, list | tuple) and len(path) < DEEPEST and any(as_dict(n) for n in node[:20]):
            stack += [((*path, str(i)), n) for i, n in reversed(list(enumerate(node[:20])))]
        elif path:
            yield Leaf(path, node, path[-1].lower().replace("-", "_"))


def rates(found: Sequence[Leaf], where: str) -> list[Setting]:
    """The learning rate, if there is one only (or all agree); else every one under its full key."""
    stated = [(f, v) for f in found if (v := rate_of(f)) is not None]
    used = {w for f in found if f.key in OPTIMIZER and isinstance(f.value, str) for w in words(f.value)}
    if len({v for _, v in stated}) > 1:  # blocks named by optimizers, of which one is chosen by name
        own = [(f, v) for f, v in stated if used & {w for p in f.path[:-1] for w in words(p)}]
        stated = own if len({v for _, v in own}) == 1 else stated
    return chosen("learning_rate", stated, where)


def rate_of(leaf: Leaf) -> float | None:
    """The value of a leaf that is a learning rate: its own, not one of a schedule's (its floor, its warm-up …)."""
    if any({"scheduler", "schedule", "schedulers", "policy", "warmup", "ema"} & set(words(p)) for p in leaf.path[:-1]):
        return None
    if leaf.key not in RATE and not is_rate(words(leaf.path[-1])):
        return None
    value = number(leaf.value)
    return value if value is not None and value > 0 and not isinstance(plain(leaf.value), bool) else None


def chosen(name: str, stated: Sequence[tuple[Leaf, float]], where: str) -> list[Setting]:
    """One setting if all say the same, else one under each full key."""
    if len({v for _, v in stated}) == 1:
        leaf, value = min(stated, key=lambda pair: len(pair[0].path))
        return [told(name, value, None, where, leaf.path)]
    return [told(".".join(leaf.path), value, None, where, leaf.path) for leaf, value in stated[:32]]


def told(name: str, value: float | None, text: str | None, where: str, path: Sequence[str]) -> Setting:
    """A setting, with the keys that lead to it as its source."""
    return Setting(name, value, text, "", "configured", where + ".".join(path))


def named_classes(
    name: str, keys: Sequence[str], tree: Mapping[str, Any], found: Sequence[Leaf], where: str
) -> list[Setting]:
    """The optimizer's or schedule's class: a word, or the `type` (`name`, `_target_` …) of a tree, or of several."""
    stated: dict[tuple[str, ...], str] = {}
    for leaf in found:
        own = [i for i, p in enumerate(leaf.path) if p.lower().replace("-", "_") in keys]
        text = plain(leaf.value)
        if not own or not isinstance(text, str) or not 0 < len(text) <= 100 or text.lower() in ("none", "null"):
            continue
        at = own[0]
        inside = [p for p in leaf.path[at + 1 :] if not p.isdigit()]
        if not inside or (len(inside) <= 2 and inside[-1] in CLASS and set(inside[:-1]) <= set(keys)):
            home = leaf.path[: at + 1]
            short = text.rpartition(".")[2] if "_target_" in leaf.path or "class_path" in leaf.path else text
            stated[home] = f"{stated[home]}, {short}" if home in stated else short
    if len(set(stated.values())) == 1:
        path, text = next(iter(stated.items()))
        return [told(name, None, text, where, path)]
    top = [p for p in stated if len(p) == min(map(len, stated))] if stated else []
    if len(top) == 1:
        return [told(name, None, stated[top[0]], where, top[0])]
    return [told(".".join(path), None, text, where, path) for path, text in list(stated.items())[:16]]


def in_optimizer(leaf: Leaf) -> bool:
    """Below something called an optimizer."""
    return any(HOMES & set(words(p)) for p in leaf.path[:-1])


def believable(leaf: Leaf) -> bool:
    """A bare eps may be anybody's: it must stand below an optimizer."""
    return leaf.key not in ("eps", "epsilon", "b1", "b2") or in_optimizer(leaf)


def number(value: Any) -> float | None:
    """A number, one written as a word (YAML 1.1 reads 1e-4 so), or the only one of a list."""
    value = plain(value)
    if isinstance(value, list | tuple):
        return number(value[0]) if len(value) == 1 and not isinstance(value[0], list | tuple) else None
    if type(value) not in (int, float, bool, str):
        return None
    try:
        made = float(value)
    except (ValueError, OverflowError):
        return None
    return made if isfinite(made) else None


def of_pair(value: Any, name: str) -> float | None:
    """beta1 or beta2 of a pair, which may be written as a word."""
    value = plain(value)
    if isinstance(value, str) and len(value) < 100:
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
    if name not in ("beta1", "beta2") or not isinstance(value, list | tuple) or len(value) < 2:
        return None
    return number(value[int(name[-1]) - 1])
