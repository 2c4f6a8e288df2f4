"""A state dict, a trainer's dict around it, or a whole pickled module: what most training scripts save."""

from __future__ import annotations

import re
from typing import Any

from smd_analyze.loading.dtypes import FLOATING
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks.base import EPOCHS, STEPS, TICKS, Fact, Framework, Parts
from smd_analyze.loading.inert_objects import Inert
from smd_analyze.loading.tensors import Place
from smd_analyze.loading.trees import as_dict, get, plain, tensors

WEIGHTS = (
    "model_state_dict", "state_dict", "model", "model_state", "net", "network", "model_states", "weights", "params",
    "module", "net_state_dict", "state_dict_model", "generator", "policy", "encoder",
)  # fmt: skip
AVERAGES = (
    "ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "ema_model_state_dict", "model_ema_state_dict",
    "ema_params", "averaged_model", "ema_model_state", "ema_state", "target_state_dict",
)  # fmt: skip
NO_MODELS = frozenset({"rng", "rng_state", "message_hub", "stats", "meta", "extra_state", "loss", "losses", "metrics"})
STEP_KEYS = (
    "global_step", "global_steps", "iteration", "iter_num", "num_updates", "step", "steps", "it", "iter", "n_iter",
    "meta.iter", "train_state.step", "optimizer_history.-1.num_updates", "state.timestamp.Timestamp.batch",
    "trainer_state.global_step", "trainer.global_step", "trainer.step", "step_num", "total_steps",
    "__metadata__.step", "__metadata__.global_step", "__step__",
)  # fmt: skip
EPOCH_KEYS = ("epoch", "epoch_num", "meta.epoch", "extra_state.train_iterator.epoch", "epochs", "__metadata__.epoch")
CONFIGS = ("args", "config", "cfg", "hyper_parameters", "hparams", "train_args", "train_config", "ds_config", "opt")


def read_parts(document: Document) -> Parts:
    """Look the usual keys up; the largest state dict is the model, further ones are named."""
    tree = document.tree
    schedulers = find_schedulers(tree)
    weights, where, models = find_weights(tree, document.path)
    optimizers = find_optimizers(tree, where=where)
    average = next((k for k in AVERAGES if isinstance(tree, dict) and k != where and tensors(tree.get(k))), None)
    averages = {"ema": tree[average]} if average else {}
    configured_in, configured = find_config(tree)
    return Parts(
        weights,
        where,
        variants=averages,
        optimizers=optimizers,
        schedulers=schedulers,
        facts=facts_inside(tree, optimizers, schedulers),
        configured=configured,
        configured_in=configured_in,
        stated=find_stated(tree) if not optimizers else {},
        others=tuple(k for k, size in models.items() if k != where and size * 20 > models[where]),
        companions={k: tree[k] for k in models if k != where and isinstance(tree, dict)},
        ordered=document.format != "safetensors",
        only="ema" if where in AVERAGES else "",
    )


def find_weights(tree: Any, what: str) -> tuple[Any, str, dict[str, int]]:
    """(subtree, its key, all models' sizes in bytes). The tree itself if tensors lie right in it: a bare state dict."""
    found = as_dict(tree)
    if found is None or (type(tree) is Inert and tensors(tree, what)):
        return tree, "", {}
    own = {k: v for k, v in found.items() if type(v) is Place}
    if sum(len(p.shape) > 0 for p in own.values()) and not any(k in found for k in WEIGHTS[:4]):
        return own, "", {}
    models: dict[str, int] = {}
    for key, value in found.items():
        if isinstance(key, str) and type(value) in (dict, Inert) and not is_optimizer_key(key) and key not in CONFIGS:
            if key in NO_MODELS:
                continue
            size = sum(p.nbytes for p in tensors(value, what).values() if p.shape and p.dtype in FLOATING)
            if size and as_dict(value) is not None and "param_groups" not in (as_dict(value) or {}):
                models[key] = size
    live = {k: n for k, n in models.items() if k not in AVERAGES and "ema" not in k.lower().split("_")} or models
    if not live:
        return own or None, "", {}
    named = [k for k in WEIGHTS if k in live]
    best = named[0] if named else max(live, key=lambda k: live[k])
    return found[best], best, live


def is_optimizer_key(key: str) -> bool:
    """Keys such as optimizer_state_dict, last_optimizer_state, optim, opt."""
    return "optim" in key.lower() or key in ("opt", "opt_state")


def find_optimizers(node: Any, depth: int = 0, where: str = "") -> tuple[Any, ...]:
    """Every dict (or pickled optimizer) with param_groups, at the top, under an optimizer's key, or in a list there.

    Those whose key is like the model's (`optimizer_g` for `where` "generator") come first.
    """
    found = as_dict(node)
    if found is None or depth > 3:
        return ()
    if isinstance(found.get("param_groups"), list):
        return (found,)
    out: list[Any] = []
    for key, value in sorted(found.items(), key=lambda pair: not is_like(pair[0], where)):
        if not isinstance(key, str) or not (is_optimizer_key(key) or depth):
            continue
        for part in value if isinstance(value, list | tuple) else (value,):
            if type(part) in (dict, Inert):
                out.extend(find_optimizers(part, depth + 1))
    return tuple(out[:8])


def is_like(key: Any, where: str) -> bool:
    """A word of the optimizer's key begins or ends the model's key."""
    words = re.split(r"[^a-z]+", key.lower()) if isinstance(key, str) else ()
    own = [w for w in words if w and not w.startswith("opt") and w not in ("state", "dict")]
    return any(where.lower().startswith(w) or where.lower().endswith(w) for w in own)


def find_schedulers(tree: Any) -> tuple[Any, ...]:
    """State dicts of learning rate schedulers."""
    out: list[Any] = []
    for key, value in (as_dict(tree) or {}).items():
        if isinstance(key, str) and "sched" in key.lower():
            for part in value if isinstance(value, list | tuple) else (value,):
                state = as_dict(part)
                if state and any(
                    k in state for k in ("last_epoch", "base_lrs", "_step_count", "num_bad_epochs", "_last_lr")
                ):
                    out.append(state)
    return tuple(out[:8])


def facts_inside(tree: Any, optimizers: tuple[Any, ...], schedulers: tuple[Any, ...]) -> tuple[Fact, ...]:
    """Steps that the file states, the most trusted first."""
    out = [Fact(v, STEPS, f"{k} in the file") for k in STEP_KEYS if (v := number(get(tree, k))) is not None][:1]
    out += optimizer_facts(optimizers, "the file") + scheduler_facts(schedulers, "the file")
    out += [Fact(v, EPOCHS, f"{k} in the file") for k in EPOCH_KEYS if (v := number(get(tree, k))) is not None][:1]
    return tuple(out)


def optimizer_facts(optimizers: tuple[Any, ...], where: str) -> list[Fact]:
    """Adam and its kin count their updates in every parameter's state."""
    for optimizer in optimizers[:1]:
        states = optimizer.get("state")
        for state in states.values() if isinstance(states, dict) else ():
            step = number((as_dict(state) or {}).get("step"))
            if step is not None:
                return [Fact(step, STEPS, f"the optimizer's step in {where}")]
    return []


def scheduler_facts(schedulers: tuple[Any, ...], where: str) -> list[Fact]:
    """A scheduler counts how often it was stepped: per update or per epoch, it does not say."""
    values = [number(s.get("last_epoch")) for s in schedulers[:1]]
    return [Fact(v, TICKS, f"the scheduler's last_epoch in {where}") for v in values if v is not None]


def number(value: Any) -> float | Place | None:
    """A whole number that is not negative (also as text), or a tensor that holds one."""
    value = plain(value)
    if type(value) is Place:
        return value if value.shape in ((), (1,)) else None
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**62 and value == int(value):
        return int(value)
    return None


def find_config(tree: Any) -> tuple[str, dict[str, Any]]:
    """(key, plain values) of the trainer's arguments."""
    for key in CONFIGS:
        node = (as_dict(tree) or {}).get(key)
        found = as_dict(node)
        if found:
            flat = {k: plain(v) for k, v in found.items() if isinstance(k, str)}
            for inner in ("optimizer", "optimization", "optim", "train", "training", "common"):
                for k, v in (as_dict(found.get(inner)) or {}).items():
                    flat.setdefault(k, plain(v))
            flat = {k: v for k, v in flat.items() if isinstance(v, str | int | float) and len(str(v)[:200]) < 200}
            if flat:
                return key, flat
    return "", {}


def find_stated(tree: Any) -> dict[str, Any]:
    """Numbers that were saved beside the weights, at the top or in safetensors' metadata: lr, weight_decay, …"""
    found = as_dict(tree) or {}
    beside = {k: v for k, v in found.items() if isinstance(k, str) and type(plain(v)) in (int, float)}
    metadata = found.get("__metadata__")
    return beside | (metadata if isinstance(metadata, dict) else {})


FRAMEWORK = Framework("plain torch", lambda document: True, read_parts)
