"""Where in a trainer's tree the model, its averages, masters and optimizers stand: by keys, and by what they hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from smd_analyze.loading.roles.averages import live_words
from smd_analyze.loading.roles.names import clean_names
from smd_analyze.loading.tensors.dtypes import FLOATING
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import as_dict, tensors

WEIGHTS = (
    "model_state_dict", "state_dict", "model", "model_state", "net", "network", "model_states", "weights", "params",
    "module", "net_state_dict", "state_dict_model", "generator", "policy", "encoder", "student", "gen", "g", "netg",
    "net_g", "netg_a", "g_model", "model_g", "unet", "actor_critic", "q_network", "q_net", "policy_net", "online",
    "actor",
)  # fmt: skip
AVERAGES = (
    "ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "ema_model_state_dict", "model_ema_state_dict",
    "ema_params", "averaged_model", "ema_model_state", "ema_state", "target_state_dict", "swa_model", "swa_state_dict",
    "model_swa", "averaged_state_dict",
)  # fmt: skip
MASTERS = ("fp32_from_fp16", "fp32_from_fp16_params", "master_params", "fp32_params", "fp32_groups", "master_weights")
CONFIGS = ("args", "config", "cfg", "hyper_parameters", "hparams", "train_args", "train_config", "ds_config", "opt")
NO_MODELS = frozenset({"rng", "rng_state", "message_hub", "stats", "meta", "extra_state", "loss", "losses", "metrics",
                       "criterion", "criterion_state_dict", "dino_loss", "extra"})  # fmt: skip
PLURALS = frozenset({"models", "networks", "nets", "model_dict", "models_state_dict"})
OPTIMIZER = re.compile(r"^opt(im(izers?)?)?|(opt|optim(izers?)?)$")  # optG, optimizer_g, gopt
DEEPEST = 4


@dataclass(frozen=True)
class Model:
    """`weights`: the subtree, found under the key `where`; `sizes`: bytes of every model at its level; `level`: that
    level as a dict, its containers opened; `average`: the key of an averaged copy, "" if there is none."""

    weights: Any = None
    where: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    level: Mapping[Any, Any] = field(default_factory=dict)
    average: str = ""


def find_model(tree: Any, what: str, depth: int = 0) -> Model:
    """The largest state dict under a model's key is the model. A tree with tensors right in it is a bare state dict."""
    if type(tree) is Inert and (is_module(tree) or not is_trainer(tree)):
        return Model(tree)
    found = labelled(tree)
    if found is None:
        return Model(tree)
    own = {k: v for k, v in found.items() if type(v) is Place}
    if sum(len(p.shape) > 0 for p in own.values()) and not any(k in found for k in WEIGHTS[:4]):
        return Model(own if type(tree) in (dict, Inert) else tree, level=found)
    sizes: dict[str, int] = {}
    for key, value in found.items():
        listed = type(value) in (list, tuple) and (key in AVERAGES or key in PLURALS)
        if isinstance(key, str) and (listed or type(value) in (dict, Inert)) and not is_optimizer_key(key):
            if key in NO_MODELS or key in CONFIGS or key in MASTERS or "param_groups" in (as_dict(value) or {}):
                continue
            size = sum(p.nbytes for p in tensors(value, what).values() if p.shape and p.dtype in FLOATING)
            if size:
                sizes[key] = size
    live = {k: n for k, n in sizes.items() if k not in AVERAGES and not is_average(k, sizes)} or sizes
    if not live:
        return Model({**own, **lists_of_arrays(found)} or None, level=found)
    lower = {k.lower(): k for k in live}
    named = [lower[k] for k in WEIGHTS if k in lower]
    first = type(tree) in (list, tuple)  # of a list, that is the one that was meant
    best = named[0] if named else next(iter(live)) if first else max(live, key=lambda k: live[k])
    inner = found[best]
    if depth < DEEPEST and is_container(best, inner):
        rest = {k: v for k, v in found.items() if k != best}
        return find_model({**rest, **(labelled(inner) or {})}, what, depth + 1)
    average = next((k for k in sizes if k != best and k in AVERAGES), "")
    average = average or next((k for k in sizes if k != best and best in live_words(k)), "")
    if not average and best not in AVERAGES:  # "ema_weights": of no other model that is there
        spare = (k for k in sizes if k != best and is_average(k, sizes) and not any(o in sizes for o in live_words(k)))
        average = next(spare, "")
    live.pop(average, None)
    return Model(inner, best, live, found, average)


def lists_of_arrays(found: Mapping[Any, Any]) -> dict[str, Any]:
    """Entries such as `weights: [W1, W2]`, which scripts without a framework save."""
    return {
        k: v
        for k, v in found.items()
        if isinstance(k, str) and k not in NO_MODELS and k not in MASTERS and not is_optimizer_key(k)
        if type(v) in (list, tuple) and v and all(type(p) is Place and p.shape and p.dtype in FLOATING for p in v)
    }


def is_module(node: Any) -> bool:
    """A pickled nn.Module."""
    return type(node) is Inert and "_modules" in node.attributes


def is_trainer(node: Inert) -> bool:
    """An object that holds a model, rather than a model itself (which need be no nn.Module: TorchScript's are not)."""
    found = node.attributes
    holds = any(is_module(v) or isinstance((as_dict(v) or {}).get("param_groups"), list) for v in found.values())
    return holds or any(type(found.get(k)) in (dict, Inert) for k in WEIGHTS[:4])


def labelled(node: Any) -> dict[Any, Any] | None:
    """A dict, an object's attributes, or the entries of a list or tuple (`torch.save((model, optimizer))`) by what they
    are: optimizers as "optimizer", others by their number. None for modules and lists of tensors."""
    if type(node) not in (list, tuple):
        return as_dict(node) if not is_module(node) else None
    if not any(type(v) in (dict, Inert) for v in node) or any(type(v) is Place and v.shape for v in node):
        return None
    return {
        f"optimizer_{i}" if isinstance((as_dict(v) or {}).get("param_groups"), list) else str(i): v
        for i, v in enumerate(node)
    }


def is_average(key: str, keys: Mapping[str, Any]) -> bool:
    """An average's key: it says so, and if by a word that may mean another thing, its live counterpart is there."""
    return "ema" in re.split(r"[^a-z]+", key.lower()) or any(other in keys for other in live_words(key))


def is_container(key: str, node: Any) -> bool:
    """A dict of several models, or of model and optimizer, rather than a state dict."""
    found = None if is_module(node) else labelled(node)
    if found is None or any(type(v) is Place and v.shape for v in found.values()):
        return False
    if any(isinstance(k, str) and is_optimizer_key(k) and v for k, v in found.items()):
        return any(True for _ in optimizers_below(found, 0, True))
    states = [v for v in found.values() if type(v) in (dict, Inert)]
    return len(states) > 0 and (key in PLURALS or (len(states) == len(found) and any(k in WEIGHTS[:4] for k in found)))


def is_optimizer_key(key: str) -> bool:
    """Keys such as optimizer_state_dict, last_optimizer_state, optim, opt."""
    return "optim" in key.lower() or key in ("opt", "opt_state")


def find_optimizers(node: Any, where: str = "") -> tuple[Any, ...]:
    """Every dict (or pickled optimizer) with param_groups, at the top, below any key there, below an optimizer's key,
    or in a list there.

    Those whose key is like the model's (`optimizer_g` for `where` "generator") come first.
    """
    found = list(optimizers_below(node, 0, False))
    return tuple(o for _, o in sorted(found, key=lambda pair: not is_like(pair[0], where)))[:8]


def optimizers_below(node: Any, depth: int, inside: bool, path: str = "") -> Iterator[tuple[str, dict[Any, Any]]]:
    """(keys on the way, optimizer's state) for all of them."""
    found = labelled(node)
    if found is None or depth > 3:
        return
    if isinstance(found.get("param_groups"), list):
        yield path, found
        return
    for key, value in found.items():
        known = isinstance(key, str) and (is_optimizer_key(key) or inside)
        if known or isinstance((as_dict(value) or {}).get("param_groups"), list):
            for part in value if isinstance(value, list | tuple) else (value,):
                if type(part) in (dict, Inert) and not is_module(part):
                    yield from optimizers_below(part, depth + 1, True, f"{path} {key}")


def is_like(key: str, where: str) -> bool:
    """A word of the optimizer's key begins or ends the model's key."""
    words = (OPTIMIZER.sub("", w) for w in re.split(r"[^a-z]+", key.lower()))
    own = [w for w in words if w and w not in ("state", "dict", "states")]
    return any(where.lower().startswith(w) or where.lower().endswith(w) for w in own)


def find_masters(node: Any, depth: int = 0) -> Any:
    """float32 copies that apex, Megatron and their kin keep beside the optimizer: a list per group, or None."""
    found = as_dict(node)
    if found is None or depth > 2 or is_module(node):
        return None
    for key in MASTERS:
        if type(found.get(key)) in (list, tuple, dict) and tensors(found[key]):
            return found[key]
    below = (find_masters(v, depth + 1) for k, v in found.items() if isinstance(k, str) and is_optimizer_key(k))
    return next((m for m in below if m is not None), None)


def is_averaged(weights: Any) -> bool:
    """The state dict of torch's AveragedModel: it counts what it averaged."""
    return type(weights) is dict and "n_averaged" in weights and len(clean_names(weights)) > 1
