"""MindSpore: flat names, axes as in torch; counters, learning rate and moments may stand among the weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import EPOCHS, STEPS, Fact, Framework, Parts, told
from smd_analyze.loading.frameworks.layouts import OUT_FIRST, laid_out
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.units.twins import OPTIMIZER
from smd_analyze.records.run import Setting

STATISTICS = re.compile(r"(^|\.)moving_(mean|variance)$")
MOMENTS = {"moments": "momentum_buffer", "accum": "momentum_buffer", "moment1": "exp_avg", "moment2": "exp_avg_sq",
           "adam_m": "exp_avg", "adam_v": "exp_avg_sq", "lamb_m": "exp_avg", "lamb_v": "exp_avg_sq",
           "stat": "", "swap": "", "mean_square": "", "mean_grad": "", "moment": "", "linear": ""}  # fmt: skip
"""First word of a name → torch's word for that state, "" for what torch has no word for."""
NUMBERS = ("learning_rate", "weight_decay", "momentum")
GROUPED = re.compile(r"(learning_rate|weight_decay)_group_(\d+)")
BESIDE = (*NUMBERS, "global_step", "step_num", "epoch_num", "beta1_power", "beta2_power", "beta1", "beta2", "eps",
          "loss_scale", "scale_sense", "current_iterator_step", "last_overflow_iterator_step")  # fmt: skip


def matches(document: Document) -> bool:
    """Its own format, or safetensors with the two counters that its callback appends."""
    if document.format == "safetensors":
        return isinstance(document.tree, dict) and {"epoch_num", "step_num"} <= document.tree.keys()
    return document.format == "mindspore"


def read_parts(document: Document) -> Parts:
    """Weights without what stands beside them; numbers and moments also from the optimizer's own file."""
    own = {k: v for k, v in document.tree.items() if type(v) is Place}
    other = document.tree.get(OPTIMIZER)
    optimizer = {k: v for k, v in other.items() if type(v) is Place} if isinstance(other, dict) else {}
    states: dict[str, dict[str, Place]] = {}
    for name, place in {**own, **optimizer}.items():
        if (kind := moment_of(name, own)) is not None and kind:
            states.setdefault(name.partition(".")[2], {})[kind] = place
    weights = {
        n: p for n, p in own.items() if n not in BESIDE and not GROUPED.fullmatch(n) and moment_of(n, own) is None
    }
    facts: list[Fact] = []
    for key, unit in (("step_num", STEPS), ("global_step", STEPS), ("epoch_num", EPOCHS)):
        for found, where in ((own, "the file"), (optimizer, "the optimizer's file")):
            number = plain.number(found.get(key))
            if number is not None:
                facts.append(Fact(number, unit, f"{key} in {where}"))
    settings: list[tuple[Setting, Place | None]] = []
    for name in NUMBERS:
        found, where = (optimizer, "the optimizer's file") if name in optimizer else (own, "the file")
        place = found.get(name)
        if place is not None and place.shape in ((), (1,)):
            source = f"{name} in {where}"
            settings.append((Setting(name, None, None, "", "in force", source, "next update"), place))
    for name, place in {**own, **optimizer}.items():
        if (grouped := GROUPED.fullmatch(name)) and place.shape in ((), (1,)):
            where = "the optimizer's file" if name in optimizer else "the file"
            source = f"{name} in {where}"
            settings.append((Setting(grouped[1], None, None, grouped[2], "in force", source, "next update"), place))
    if kind := kind_of({n.partition(".")[0] for n in (*own, *optimizer) if moment_of(n, own) is not None}):
        settings.append((Setting("optimizer", None, kind, "", "inferred", "names of the moments"), None))
    return Parts(
        laid_out({n: p for n, p in weights.items() if not STATISTICS.search(n)}, axes),
        facts=tuple(facts),
        ordered=document.format == "mindspore",
        buffers={n: p for n, p in weights.items() if STATISTICS.search(n)},
        told=told(states, settings),
        torch_like=False,
    )


def moment_of(name: str, own: Mapping[str, Place]) -> str | None:
    """The state of an optimizer that a name stands for, None if it is a weight's: `moments.conv.weight`."""
    first, _, parameter = name.partition(".")
    known = MOMENTS.get(first) if parameter else None
    return known if known or parameter in own else None


def kind_of(prefixes: set[str]) -> str | None:
    """The optimizer whose clones of the parameters are called so."""
    for prefix, kind in (
        ("adam_v", "AdamW"), ("moment2", "Adam"), ("lamb_v", "LAMB"), ("mean_square", "RMSprop"), ("linear", "FTRL"),
        ("stat", "SGD"), ("moments", "SGD"), ("accum", "SGD"),
    ):  # fmt: skip
        if prefix in prefixes:
            return kind
    return None


def axes(name: str, place: Place, siblings: object) -> str | None:
    """As in torch, by the name's end."""
    if len(place.shape) == 1 or name.endswith(".weight"):
        return OUT_FIRST.get(len(place.shape))
    return None


FRAMEWORK = Framework("mindspore", matches, read_parts)
