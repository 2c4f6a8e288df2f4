"""Sharded trainers (FSDP2, torchtitan, OLMo-core, Megatron-core): one DCP folder, the optimizer's state keyed by name.

Three ways of keying an optimizer are met: nested dicts; flat keys `state.NAME.exp_avg` and `param_groups.NAME.lr`
(torch's flatten_optimizer_state_dict); Megatron's `optimizer.state.exp_avg.NAME` beside the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import megatron_core, plain
from smd_analyze.loading.frameworks.base import Framework, Parts, Told
from smd_analyze.loading.frameworks.megatron import by_rule, is_megatron, with_decoupled_decay
from smd_analyze.loading.frameworks.megatron_stacks import each_layer, stack_findings
from smd_analyze.loading.frameworks.sharded import with_trainer
from smd_analyze.loading.tensors.trees import get


def matches(document: Document) -> bool:
    """A folder that torch.distributed.checkpoint wrote."""
    return document.format == "torch DCP"


def read_parts(document: Document) -> Parts:
    """The plain keys, once the optimizer's state is nested in the usual way."""
    what = f"{document.path}: "
    saved = megatron_core.with_lists(unwrapped(document.tree))
    whole = saved if names_its_states(saved) else each_layer(saved, get(saved, "args.num_layers"), what)
    tree, states, masters, findings = megatron_core.without_states(megatron_core.halves_joined(whole, what), what)
    findings += stack_findings(saved, whole, document.path)
    made = {k: regular(v) if isinstance(k, str) and plain.is_optimizer_key(k) else v for k, v in tree.items()}
    parts = plain.read_parts(replace(document, tree=made))
    variants = {**parts.variants, "master": masters} if masters else parts.variants
    if is_megatron(document.tree) or states:
        parts = replace(parts, optimizers=by_rule(parts.optimizers, states, parts.weights))
        parts = with_decoupled_decay(parts, document.tree)
        if states and not parts.optimizers:
            parts = replace(parts, told=Told(states=states))
    parts = replace(parts, variants=variants, findings=(*parts.findings, *findings))
    return with_trainer(parts, document.tree)


def names_its_states(tree: Mapping[Any, Any]) -> bool:
    """An optimizer that is nested knows parameters by the names that they have in the file."""
    nested = (v for k, v in tree.items() if isinstance(k, str) and plain.is_optimizer_key(k) and type(v) is dict)
    return any(isinstance(k, str) and k.partition(".")[0] == "state" for v in nested for k in v)


def unwrapped(tree: Mapping[Any, Any]) -> dict[Any, Any]:
    """The tree without the one key that an application put around model and optimizer ("app")."""
    out = dict(tree)
    for key, value in tree.items():
        if type(value) is not dict or not isinstance(key, str) or plain.is_optimizer_key(key) or key in plain.CONFIGS:
            continue
        if any(isinstance(k, str) and plain.is_optimizer_key(k) for k in value):
            del out[key]
            out = {**value, **out}
    return out


def regular(optimizer: Any) -> Any:
    """{"state": {name or number: {…}}, "param_groups": [{"params": […], …}]} of any of the ways of keying."""
    if type(optimizer) is list:
        return [regular(o) for o in optimizer]
    if type(optimizer) is not dict:
        return optimizer
    if type(optimizer.get("param_groups")) is list:
        saved = optimizer.get("state")
        saved = dict(enumerate(saved)) if type(saved) is list else saved if type(saved) is dict else {}
        numbered = {int(k) if isinstance(k, str) and k.isdigit() else k: v for k, v in saved.items()}
        return {**optimizer, "state": numbered}
    states: dict[str, dict[str, Any]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for key, value in optimizer.items():
        kind, _, name = key.partition(".") if isinstance(key, str) else ("", "", "")
        name, _, slot = name.rpartition(".")
        if name and kind in ("state", "param_groups"):
            (states if kind == "state" else settings).setdefault(name, {})[slot] = value
    if not settings:
        return {k: regular(v) for k, v in optimizer.items()}
    groups: dict[Any, dict[str, Any]] = {}
    for name, values in settings.items():
        group = groups.setdefault(repr(sorted(values.items())), {**values, "params": []})
        group["params"].append(name)
    return {"state": states, "param_groups": list(groups.values())}


FRAMEWORK = Framework("torch distributed", matches, read_parts)
