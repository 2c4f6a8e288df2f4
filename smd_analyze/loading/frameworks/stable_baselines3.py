"""Stable-Baselines3: one policy, one or several optimizers, and the counters of the algorithm.

`num_timesteps` counts steps of the environment and orders nothing here: the optimizer's own count does.
"""

from __future__ import annotations

import re
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts
from smd_analyze.loading.frameworks.plain import find_optimizers, number, optimizer_facts
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import as_dict, get

OFF_POLICY = ("tau", "gradient_steps")  # their _n_updates counts updates; PPO's counts passes over a rollout


def matches(document: Document) -> bool:
    """The zip says so."""
    return document.format == "Stable-Baselines3 zip"


def read_parts(document: Document) -> Parts:
    """The policy and the trained variables beside it (log_ent_coef), in the order in which the optimizers stand."""
    tree: dict[str, Any] = document.tree
    policy = tree.get("policy")
    beside = as_dict(tree.get("pytorch_variables")) or {}
    weights = {**(policy if isinstance(policy, dict) else {})}
    optimizers = {key: tree[key] for key in tree if key.endswith("optimizer")}
    if any(key.startswith("ent_coef") for key in optimizers):
        weights |= {k: v for k, v in beside.items() if isinstance(k, str) and type(v) is Place}
    ordered = sorted(optimizers, key=lambda key: position(key, weights))
    found = find_optimizers([tree[key] for key in ordered])
    data = as_dict(tree.get("data")) or {}
    facts = optimizer_facts(found, "the file")
    updates = number(data.get("_n_updates"))
    if updates is not None and any(key in data for key in OFF_POLICY):
        facts.append(Fact(updates, STEPS, "_n_updates in data"))
    configured = {k: v for k, v in data.items() if isinstance(v, str | int | float)}
    named = re.search(r"\.(\w+)'>", str(get(data, "policy_kwargs.optimizer_class") or ""))
    if named:
        configured["optimizer"] = named[1]
    return Parts(
        weights, "policy", optimizers=found, facts=tuple(facts), configured=configured, configured_in="data",
        torch_like=True,
    )  # fmt: skip


def position(key: str, weights: dict[str, Any]) -> int:
    """Where the parameters of `actor.optimizer` begin among the weights: the end for those of variables beside them."""
    module = key.removesuffix(".optimizer") + "."
    return 0 if key == "policy.optimizer" else next((i for i, n in enumerate(weights) if n.startswith(module)), 1 << 30)


FRAMEWORK = Framework("stable-baselines3", matches, read_parts)
