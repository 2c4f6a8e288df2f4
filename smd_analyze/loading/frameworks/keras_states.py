"""The numbered variables of a Keras 3 optimizer: which is the count of updates, the rate, the state of which parameter.

Order (keras/src/optimizers): iterations, the learning rate unless a schedule gives it, moving averages of all weights
(use_ema), gradient accumulators, then what the class adds. A LossScaleOptimizer holds another optimizer, whose
variables stand in a group of their own.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from smd_analyze.loading.files.sources import FileId
from smd_analyze.loading.frameworks.keras_names import snake
from smd_analyze.loading.tensors.dtypes import FLOATING
from smd_analyze.loading.tensors.places import Place, read_tensor
from smd_analyze.loading.tensors.trees import number_of

NAMES = {
    "sgd": "SGD", "adam": "Adam", "adam_w": "AdamW", "adamw": "AdamW", "rmsprop": "RMSprop", "rm_sprop": "RMSprop",
    "nadam": "Nadam", "lion": "Lion", "adagrad": "Adagrad", "adadelta": "Adadelta", "adamax": "Adamax", "ftrl": "Ftrl",
    "adafactor": "Adafactor", "lamb": "Lamb", "muon": "Muon", "schedule_free_adam_w": "ScheduleFreeAdamW",
}  # fmt: skip
PAIRS = ("Adam", "AdamW", "Lamb", "Nadam")
WRAPPED = "inner_optimizer"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Saved:
    """What an optimizer saved. `rest` are its other variables in order; `kind` its class, "" if unknown.

    `config` is its configuration, {} if the file has none; `every` the calls that make one update; `where` its group.
    """

    kind: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    iterations: Place | None = None
    rate: Place | None = None
    rest: tuple[Place, ...] = ()
    every: int = 1
    where: str = "optimizer/vars"

    @property
    def updates(self) -> Place | None:
        """Updates made: with gradient accumulation Keras counts batches."""
        if self.iterations is None or self.every == 1:
            return self.iterations
        place = self.iterations
        return Place((), "int64", place.start, file=place.file, find=Divided(place, self.every))


@dataclass(frozen=True)
class Divided:
    """Reads a count and divides it, rounding down."""

    count: Place
    by: int

    def __call__(self, file: FileId, place: Place) -> Place:
        """The quotient as a number in place."""
        value = int(read_tensor(self.count, (file,)).reshape(-1)[0]) // self.by
        return Place((), "int64", 0, inline=struct.pack("<q", value))


def saved_optimizer(tree: Mapping[str, Any], optimizer: Any) -> Saved:
    """The optimizer's variables. `optimizer` is its entry {class_name, config} in the configuration, if any."""
    group, told = "optimizer", optimizer if isinstance(optimizer, dict) else {}
    while any(name.startswith(f"{group}/{WRAPPED}/") for name in tree["datasets"]):
        group += f"/{WRAPPED}"
        inner = (told.get("config") or {}).get(WRAPPED)
        if isinstance(inner, dict):  # else compile() did the wrapping, of which the configuration does not know
            told = inner
    where = f"{group}/vars"
    count = sum(name.startswith(where + "/") for name in tree["datasets"])
    rest = [p for i in range(count) if (p := tree["datasets"].get(f"{where}/{i}")) is not None]
    config = told.get("config")
    config = config if isinstance(config, dict) else {}
    name = str(told.get("class_name") or NAMES.get(snake(str(tree["texts"].get(where, {}).get("name", ""))), ""))
    iterations = rest.pop(0) if rest and rest[0].shape == () and rest[0].dtype not in FLOATING else None
    if iterations is None:
        return Saved(name.rpartition(">")[2], config, where=where)
    scheduled = isinstance(config.get("learning_rate"), dict)
    rate = rest.pop(0) if not scheduled and rest and rest[0].shape == () and rest[0].dtype in FLOATING else None
    every = int(number_of(config.get("gradient_accumulation_steps")) or 1)
    return Saved(name.rpartition(">")[2], config, iterations, rate, tuple(rest), max(every, 1), where)


def shapes_of_trained(saved: Saved, count: int) -> list[Shape]:
    """Shapes of the `count` trained variables in the optimizer's order, as its variables tell; [] if they do not."""
    if saved.config.get("use_ema") or saved.every > 1:
        return [p.shape for p in saved.rest[:count]] if len(saved.rest) >= count else []
    step = 2 if saved.kind in PAIRS and len(saved.rest) >= 2 * count else 1
    found = [p.shape for p in saved.rest[: step * count : step]]
    return found if len(found) == count else []


def states_of(saved: Saved, trained: Mapping[str, Place]) -> tuple[dict[str, dict[str, Place]], dict[str, Place]]:
    """(parameter → its state under torch's names where they mean the same, parameter → its moving average).

    `trained` are the parameters in the optimizer's order. Nothing is returned unless every variable finds its owner
    and has its shape.
    """
    names, rest = list(trained), list(saved.rest)
    while rest and rest[-1].shape == () and len(rest) > len(names):
        rest.pop()  # Nadam's product
    average: dict[str, Place] = {}
    if saved.config.get("use_ema"):
        average, rest = dict(zip(names, rest, strict=False)), rest[len(names) :]
    if saved.every > 1:
        rest = rest[len(names) :]
    if any(p.shape != trained[n].shape for n, p in average.items()) or len(average) not in (0, len(names)):
        return {}, {}
    slots = wanted(saved, trained)
    if sum(map(len, slots.values())) != len(rest):
        return {}, average
    states: dict[str, dict[str, Place]] = {}
    if saved.kind == "Adam" and saved.config.get("amsgrad"):
        blocks = {n: {"max_exp_avg_sq": p} for n, p in zip(names, rest[2 * len(names) :], strict=True)}
    else:
        blocks = {}
    at = 0
    for name, words in slots.items():
        own = {w: rest[at + i] for i, w in enumerate(w for w in words if w != "max_exp_avg_sq")}
        at += len(own)
        states[name] = own | blocks.get(name, {})
    fit = all(p.shape == trained[n].shape for n, own in states.items() for p in own.values())
    return ({n: s for n, s in states.items() if s}, average) if fit else ({}, average)


def wanted(saved: Saved, trained: Mapping[str, Place]) -> dict[str, tuple[str, ...]]:
    """Parameter → the states that the optimizer's class keeps for it, in Keras' order."""
    words: tuple[str, ...] = ()
    if saved.kind in PAIRS:
        words = ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if saved.config.get("amsgrad") else ()))
    elif saved.kind == "SGD":
        words = ("velocity",) if len(saved.rest) and saved.config.get("momentum", 1.0) else ()
    elif saved.kind == "Lion":
        words = ("exp_avg",)
    if saved.kind == "Muon":
        return {
            n: ("momentum",) if len(p.shape) == 2 and "embedding" not in n.lower() else ("exp_avg", "exp_avg_sq")
            for n, p in trained.items()
        }
    return dict.fromkeys(trained, words)
