"""What sharded trainers have in common: Hugging Face's trainer state beside the parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from smd_analyze.loading.frameworks.base import STEPS, Fact, Parts
from smd_analyze.loading.frameworks.huggingface import logged, pace_facts
from smd_analyze.loading.frameworks.plain import number
from smd_analyze.loading.tensors.trees import as_dict, get, plain


def with_trainer(parts: Parts, tree: Any) -> Parts:
    """The parts with step, logged learning rates and arguments of transformers' Trainer, if its files are there."""
    step = number(get(tree, "trainer_state.global_step"))
    if step is None:
        return parts
    first = Fact(step, STEPS, "global_step in trainer_state.json")
    facts = (first, *(f for f in parts.facts if "trainer_state" not in f.source), *pace_facts(tree))
    parts = replace(parts, facts=facts, logged=tuple(logged(get(tree, "trainer_state.log_history"))))
    told = {k: plain(v) for k, v in (as_dict(get(tree, "training_args")) or {}).items() if isinstance(k, str)}
    told = {k: v for k, v in told.items() if isinstance(v, str | int | float)}
    return replace(parts, configured=told, configured_in="training_args.bin") if told else parts
