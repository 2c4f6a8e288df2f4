"""A state dict, a trainer's dict around it, or a whole pickled module: what most training scripts save."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from smd_analyze.errors import UnknownFormat
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks.base import EPOCHS, STEPS, TICKS, Fact, Framework, Parts
from smd_analyze.loading.frameworks.described import document_hints
from smd_analyze.loading.frameworks.searching import (
    AVERAGES,
    CONFIGS,
    WEIGHTS,
    find_masters,
    find_model,
    find_optimizers,
    is_averaged,
    is_optimizer_key,
)
from smd_analyze.loading.tensors.dtypes import FLOATING
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import as_dict, get, plain
from smd_analyze.loading.units.twins import OPTIMIZER
from smd_analyze.records.finding import Finding

STEP_KEYS = (
    "global_step", "global_steps", "optimizer_step", "optimizer_steps", "step_count", "iteration", "iter_num",
    "num_updates", "step", "steps", "it", "iter", "n_iter",
    "meta.iter", "train_state.step", "optimizer_history.-1.num_updates", "state.timestamp.Timestamp.batch",
    "state.timestamp.batch", "trainer_state.global_step", "trainer.global_step", "trainer.step", "trainer.iteration",
    "step_num", "total_steps", "steps_run", "batch_num_total", "total_batches_completed", "updates",
    "__metadata__.step", "__metadata__.global_step", "__metadata__.ss_steps", "__step__",
)  # fmt: skip
EPOCH_KEYS = (
    "epoch", "epoch_num", "meta.epoch", "extra_state.train_iterator.epoch", "state.timestamp.Timestamp.epoch",
    "state.timestamp.epoch", "trainer.epoch", "reporter.epoch", "start_epoch", "epochs_run", "epochs_completed",
    "current_epoch", "epochs", "__metadata__.epoch", "__metadata__.ss_epoch",
)  # fmt: skip
YOLOX_WORDS = (
    "YOLOX saves its averaged copy (EMA) as `model` unless ema is off: its norm and angle lag behind the live ones"
)
SWAPPED_WORDS = (
    "mmengine saves the averaged copy as state_dict and the live weights, which are analysed, as ema_state_dict"
)
SPEECH = frozenset({"model", "iteration", "optimizer", "learning_rate"})  # VITS and its kin: `iteration` is the epoch

__all__ = ("AVERAGES", "CONFIGS", "WEIGHTS", "find_optimizers", "is_optimizer_key")  # other frameworks look here


def read_parts(document: Document) -> Parts:
    """Look the usual keys up; the largest state dict is the model, further ones are named."""
    tree = document.tree
    swapped = (Finding("swapped-ema", "note", document.path, SWAPPED_WORDS),) if is_swapped(tree) else ()
    if swapped:
        tree = {**tree, "state_dict": tree["ema_state_dict"], "ema_state_dict": tree["state_dict"]}
    model = find_model(tree, document.path)
    level = model.level or tree
    if model.weights is None and (many := states_by_number(tree)) > 1:
        words = f"holds {many} states in one file; save every one in a file of its own, step_N.pt"
        raise UnknownFormat(f"{document.path}: {words}")
    beside = tree.get(OPTIMIZER) if isinstance(tree, dict) else None
    schedulers = find_schedulers(level) or find_schedulers(beside)
    optimizers = find_optimizers(level, where=model.where)
    variants = {"ema": level[model.average]} if model.average else {}
    masters = find_masters(level)
    if masters is not None:
        variants["master"] = masters
    configured_in, configured = find_config(level)
    facts = facts_inside(tree, optimizers, schedulers)
    if level is not tree and not any(f.unit == STEPS and "optimizer's" not in f.source for f in facts):
        facts = facts_inside(level, optimizers, schedulers)
    if beside is not None:
        facts = (*facts, *facts_inside(beside, (), ()))
    return Parts(
        model.weights,
        model.where,
        variants=variants,
        optimizers=optimizers,
        schedulers=schedulers,
        facts=facts,
        configured=configured,
        configured_in=configured_in,
        stated=find_stated(tree) if not optimizers else {},
        others=tuple(k for k, size in model.sizes.items() if k != model.where and size * 20 > model.sizes[model.where]),
        companions={k: level[k] for k in model.sizes if k != model.where},
        ordered=document.format != "safetensors",
        only="ema" if model.where in AVERAGES or is_averaged(model.weights) else "",
        graphs=document_hints(document, model.weights),
        findings=(Finding("only-ema", "warning", document.path, YOLOX_WORDS),) if is_yolox(tree) else swapped,
    )


def states_by_number(tree: Any) -> int:
    """How many state dicts a dict holds under whole numbers: a trajectory that a script has gathered in memory."""
    numbered = {k: v for k, v in tree.items() if type(k) is int} if type(tree) is dict else {}
    return sum(any(type(p) is Place for p in (as_dict(v) or {}).values()) for v in numbered.values())


def is_yolox(tree: Any) -> bool:
    """What YOLOX' trainer saves; it puts its average under `model`."""
    return type(tree) is dict and tree.keys() >= {"start_epoch", "model", "optimizer", "best_ap", "curr_ap"}


def is_swapped(tree: Any) -> bool:
    """What mmengine's runner saves with an EMAHook: the average is `state_dict`, the live weights are the other."""
    return type(tree) is dict and tree.keys() >= {"meta", "message_hub", "state_dict", "ema_state_dict"}


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
    keys, epochs = STEP_KEYS, EPOCH_KEYS
    if type(tree) is dict and tree.keys() == SPEECH:
        keys, epochs = (), ("iteration",)
    out = first_fact(tree, keys, STEPS)
    out += optimizer_facts(optimizers, "the file") + scheduler_facts(schedulers, "the file")
    return (*out, *first_fact(tree, epochs, EPOCHS))


def first_fact(tree: Any, keys: Iterable[str], unit: str) -> list[Fact]:
    """The number under the first of the keys that has one."""
    for key in keys:
        value = number(get(tree, key))
        if value is not None:
            return [Fact(value, unit, f"{key} in the file")]
    return []


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
        if found and "param_groups" not in found:  # `opt` may be an optimizer
            told = {k: plain(v) for k, v in found.items() if isinstance(k, str)}  # a tree: configured.py looks into it
            if told:
                return key, told
    return "__metadata__", kohya_config(get(tree, "__metadata__"))


def kohya_config(metadata: Any) -> dict[str, Any]:
    """What kohya's trainers write into safetensors: ss_learning_rate, ss_optimizer ("torch.optim.AdamW(eps=1e-8)")."""
    found = {k[3:]: v for k, v in metadata.items() if k.startswith("ss_")} if isinstance(metadata, dict) else {}
    kind, _, given = str(found.get("optimizer") or "").partition("(")
    if kind:
        found["optimizer"] = kind.rpartition(".")[2]
        for key, value in re.findall(r"(\w+)=([-+.\deE]+)(?=[,)])", given):
            found.setdefault(key, value)
    return {k: v for k, v in found.items() if isinstance(v, str) and v != "None" and len(v) < 200}


def find_stated(tree: Any) -> dict[str, Any]:
    """Numbers that were saved beside the weights, at the top or in safetensors' metadata: lr, weight_decay, …"""
    found = as_dict(tree) or {}
    beside = {k: v for k, v in found.items() if isinstance(k, str) and (type(plain(v)) in (int, float) or is_scalar(v))}
    metadata = found.get("__metadata__")
    # kohya's ss_… are what its trainer was told
    return beside | (
        {k: v for k, v in metadata.items() if not str(k).startswith("ss_")} if isinstance(metadata, dict) else {}
    )


def is_scalar(value: Any) -> bool:
    """An array that is one number."""
    return type(value) is Place and value.shape == () and value.dtype in FLOATING


FRAMEWORK = Framework("plain torch", lambda document: True, read_parts)
