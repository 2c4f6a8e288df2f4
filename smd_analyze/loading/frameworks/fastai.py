"""fastai: `Learner.save` keeps {model, opt}; the optimizer lists its states in the order of the parameters.

Source: fastai/optimizer.py, Optimizer.state_dict: {"state": [per parameter], "hypers": [per parameter group]}. Decay is
decoupled unless the optimizer was made otherwise, and off where a state says `do_wd: False` (biases and norms).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts, Told
from smd_analyze.loading.roles.names import clean_names, is_buffer
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import as_dict, number_of, tensors
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import Setting

NAMES = {"lr": "learning_rate", "wd": "weight_decay", "mom": "momentum", "sqr_mom": "beta2", "eps": "eps"}
MOMENTS = {"grad_avg": "exp_avg", "sqr_avg": "exp_avg_sq"}
WITHOUT = " without decay"


def matches(document: Document) -> bool:
    """A dict of model and opt, the latter with hypers."""
    tree = document.tree
    opt = as_dict(tree.get("opt")) if isinstance(tree, dict) and "model" in tree else None
    return bool(opt) and bool(entries(opt.get("hypers"))) and entries(opt.get("state")) is not None


def entries(node: Any) -> list[Any] | None:
    """A list, or what fastcore's own list class L holds."""
    items = node if isinstance(node, list) else (as_dict(node) or {}).get("items")
    return items if isinstance(items, list) else None


def read_parts(document: Document) -> Parts:
    """States in the order of parameters(), groups as far as the file tells them."""
    tree = document.tree
    opt = as_dict(tree["opt"]) or {}
    parts = plain.read_parts(replace(document, tree={k: v for k, v in tree.items() if k != "opt"}))
    found = tensors(parts.weights, document.path)
    renamed = clean_names(found)
    named = {renamed[n]: p for n, p in found.items()}
    names = [n for n, p in named.items() if not is_buffer(n, p, named)]
    states = [as_dict(s) or {} for s in entries(opt["state"]) or []]
    hypers = [as_dict(h) or {} for h in entries(opt["hypers"]) or []]
    adam = any("sqr_mom" in h for h in hypers)
    fits = len(states) == len(names) and all(
        type(v) is not Place or v.shape in ((), named[n].shape)
        for n, s in zip(names, states, strict=True)
        for v in s.values()
    )
    findings: tuple[Finding, ...] = ()
    groups: dict[str, tuple[str, ...]] = {}
    moments: dict[str, dict[str, Place]] = {}
    if fits:
        moments = {n: moments_of(s, adam) for n, s in zip(names, states, strict=True)}
        if all(h == hypers[0] for h in hypers):
            spared = [s.get("do_wd") is False for s in states]
            groups["0"] = tuple(n for n, no in zip(names, spared, strict=True) if not no)
            groups["0" + WITHOUT] = tuple(n for n, no in zip(names, spared, strict=True) if no)
            hypers = hypers[:1]
    if len(hypers) > 1 or not fits:
        words = f"fastai does not save which of its {len(hypers)} groups a parameter is in"
        remedy = "Give the settings per parameter with --settings."
        findings = (Finding("parameter-groups-unmapped", "warning", document.path, words, remedy),)
    settings = [s for i, h in enumerate(hypers) for s in group_settings(h, i, adam, groups)]
    step = next((s["step"] for s in states if "step" in s), None)
    number = plain.number(step)
    facts = parts.facts if number is None else (*parts.facts, Fact(number, STEPS, "the optimizer's step in the file"))
    made = Told({g: n for g, n in groups.items() if n}, moments, tuple(settings), {}, findings)
    return replace(parts, facts=facts, told=made)


def moments_of(state: dict[Any, Any], adam: bool) -> dict[str, Place]:
    """A state's tensors under torch's names."""
    names = MOMENTS if adam else {"grad_avg": "momentum_buffer"}
    return {names.get(k, k): v for k, v in state.items() if isinstance(k, str) and type(v) is Place}


def group_settings(hyper: dict[Any, Any], index: int, adam: bool, groups: dict[str, tuple[str, ...]]) -> list[Setting]:
    """What is in force in one group, and in its part that is not decayed."""
    out: list[Setting] = []
    for title in [str(index)] + ([f"{index}{WITHOUT}"] if groups.get(f"{index}{WITHOUT}") else []):
        source = f"hypers[{index}] of the optimizer"
        for key, name in NAMES.items():
            value = number_of(hyper.get(key))
            if value is not None:
                name = "beta1" if adam and name == "momentum" else name
                value = 0.0 if name == "weight_decay" and title.endswith(WITHOUT) else value
                out.append(Setting(name, value, None, title, "in force", f"{source}, {key}", "next update"))
        kind = "AdamW" if adam else "SGDW"
        out.append(Setting("optimizer", None, kind, title, "inferred", f"keys of {source}; fastai decouples decay"))
    return out


FRAMEWORK = Framework("fastai", matches, read_parts)
