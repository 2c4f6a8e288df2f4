"""Hugging Face folders (Trainer, accelerate, save_pretrained): weights, optimizer and scheduler in files of their own.

`folders.py` opens the files and hands one tree: weights, optimizer, scheduler, trainer_state, training_args.
"""

from __future__ import annotations

from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks.base import EPOCHS, PARTS_OF_EPOCHS, STEPS, TOKENS, Fact, Framework, Parts
from smd_analyze.loading.frameworks.described import config_hints
from smd_analyze.loading.frameworks.plain import (
    find_optimizers,
    find_schedulers,
    number,
    optimizer_facts,
    scheduler_facts,
)
from smd_analyze.loading.roles.averages import live_words
from smd_analyze.loading.roles.registration import ANY, families
from smd_analyze.loading.tensors.trees import as_dict, get, plain


def matches(document: Document) -> bool:
    """A folder as `folders.py` opens it."""
    return document.folder and {"weights", "ordered"} <= document.tree.keys()


def read_parts(document: Document) -> Parts:
    """Where `folders.py` put things; the step is trainer_state.json's."""
    tree = document.tree
    optimizers = find_optimizers({"optimizer": tree.get("optimizer")})
    schedulers = find_schedulers({"scheduler": tree.get("scheduler")})
    facts: list[Fact] = []
    step = number(get(tree, "trainer_state.global_step"))
    if step is not None:
        facts.append(Fact(step, STEPS, "global_step in trainer_state.json"))
    facts += optimizer_facts(optimizers, "optimizer.pt") + scheduler_facts(schedulers, "scheduler.pt")
    epoch = number(get(tree, "trainer_state.epoch"))
    if epoch is not None:
        facts.append(Fact(epoch, EPOCHS, "epoch in trainer_state.json"))
    facts += pace_facts(tree)
    arguments = as_dict(tree.get("training_args")) or {}
    configured = {k: plain(v) for k, v in arguments.items() if isinstance(k, str)}
    total = number(get(tree, "trainer_state.max_steps"))
    if configured and isinstance(total, int | float) and total > 0:  # training_args says -1 where epochs are counted
        configured["max_steps"] = total
    models: dict[str, Any] = tree.get("models") or {}
    average = next((k for k in models if tree["where"] in live_words(k)), None)
    return Parts(
        tree.get("weights"),
        "model" if tree["where"] == "weights" else tree["where"],
        variants={"ema": models[average]} if average else {},
        optimizers=optimizers,
        schedulers=schedulers,
        facts=tuple(facts),
        configured={k: v for k, v in configured.items() if isinstance(v, str | int | float)},
        configured_in="training_args.bin",
        logged=tuple(logged(get(tree, "trainer_state.log_history"))),
        others=tuple(k for k in models if k != average),
        companions={k: v for k, v in models.items() if k != average},
        ordered=bool(tree.get("ordered")),
        family=family_of(tree),
        graphs=config_hints(document.path, tree.get("config"), tree.get("adapter_config")),
    )


def pace_facts(tree: Any) -> list[Fact]:
    """Epochs, in parts, and tokens that trainer_state.json counts; tokens are 0 where the trainer did not."""
    passed, seen = (get(tree, f"trainer_state.{key}") for key in ("epoch", "num_input_tokens_seen"))
    found = [(passed, PARTS_OF_EPOCHS, "part of the epoch"), (seen, TOKENS, "num_input_tokens_seen")]
    return [
        Fact(float(value), unit, f"{words} in trainer_state.json")
        for value, unit, words in found
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**62
    ]


def family_of(tree: dict[str, Any]) -> str:
    """Whose model it is, by config.json; adapters (PEFT) tell it seldom, but belong to a known one."""
    if "adapter_config" in tree:
        return ANY
    family = get(tree, "config.model_type") or get(tree, "config._class_name")
    return family if isinstance(family, str) and family in families() else ""


def logged(history: Any) -> list[tuple[int, float]]:
    """(step, learning rate) of every entry of log_history that has both."""
    out: list[tuple[int, float]] = []
    for entry in history if isinstance(history, list) else ():
        if isinstance(entry, dict):
            step, rate = entry.get("step"), entry.get("learning_rate")
            if isinstance(step, int) and isinstance(rate, int | float):
                out.append((step, float(rate)))
    return out


FRAMEWORK = Framework("huggingface", matches, read_parts)
