"""What a framework is: it knows where in a checkpoint's tree a trainer keeps weights, optimizer, step and settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.tensors.places import Place
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import GraphHint, Setting

STEPS, EPOCHS, TICKS, TOKENS = "optimizer steps", "epochs", "scheduler steps", "tokens"
PARTS_OF_EPOCHS = "epochs and parts of them"


@dataclass(frozen=True)
class Fact:
    """A number that may order the run: its value (or where it lies), what it counts, where it was found, in words."""

    value: float | Place
    unit: str
    source: str


@dataclass(frozen=True)
class Told:
    """What a framework says by names instead of torch's numbered optimizer: nothing has to be matched.

    `groups`: parameter group → parameters; `states`: parameter → its optimizer state; `unread`: settings that lie in a
    tensor.
    """

    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    states: Mapping[str, Mapping[str, Place]] = field(default_factory=dict)
    settings: tuple[Setting, ...] = ()
    unread: Mapping[Setting, Place] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def told(
    states: Mapping[str, Mapping[str, Place]],
    settings: Iterable[tuple[Setting, Place | None]] = (),
    findings: tuple[Finding, ...] = (),
) -> Told:
    """The same of settings that come with the place of their value, if that lies in a tensor."""
    pairs = list(settings)
    unread = {setting: place for setting, place in pairs if place is not None}
    return Told({}, states, tuple(setting for setting, _ in pairs), unread, findings)


@dataclass(frozen=True)
class Parts:
    """Where things are in one document. Values are subtrees as they were saved; nothing is interpreted yet.

    `variants` are other copies of the weights ("ema", "master"); `facts` are in order of trust; `configured` holds what
    the trainer was told (args, config), `stated` numbers that were saved with the weights; `logged` (step, learning
    rate) pairs of a log; `others` names further models of some size, `companions` holds all further ones: one optimizer
    may train several. `ordered` tells whether the weights stand in the order of model.parameters(), `family` whose
    model it is if not (roles/registration.py). `told` replaces `optimizers` where states and groups are known by name.
    `buffers` are tensors that are not trained although their names do not say so; `torch_like` tells whether kernels
    are (out, in, …) unless their Place says otherwise, None if unknown.
    `graphs` are descriptions of the model in or beside the file.
    """

    weights: Any = None
    where: str = ""
    variants: Mapping[str, Any] = field(default_factory=dict)
    optimizers: tuple[Any, ...] = ()
    schedulers: tuple[Any, ...] = ()
    facts: tuple[Fact, ...] = ()
    configured: Mapping[str, Any] = field(default_factory=dict)
    configured_in: str = ""
    stated: Mapping[str, Any] = field(default_factory=dict)
    logged: tuple[tuple[int, float], ...] = ()
    others: tuple[str, ...] = ()
    companions: Mapping[str, Any] = field(default_factory=dict)
    ordered: bool = True
    family: str = ""
    only: str = ""  # the weights are such a copy themselves
    buffers: Any = None
    torch_like: bool | None = None
    told: Told | None = None
    graphs: tuple[GraphHint, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Framework:
    """A family of trainers that lay out their checkpoints alike."""

    name: str
    matches: Callable[[Document], bool]
    parts: Callable[[Document], Parts]
