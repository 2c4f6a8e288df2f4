"""What a graph source is: it turns a description found with the checkpoints into a model that can be traced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smd_analyze.records.finding import Finding
from smd_analyze.records.run import GraphHint, LazyTensor

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Built:
    """A model to trace: its parameters' shapes count, not their numbers.

    `inputs` are (positional, keyword) example inputs, None if they are to be guessed. `label` names the model in words.
    `names` maps parameters of the run to the model's where neither equality nor a prefix would tell; `transposed` are
    the model's parameters whose axes the checkpoint holds in another order: name → the order that makes the model's
    axes of the checkpoint's. `real()` builds the same model with numbers where `network` lies on the meta device.
    """

    network: nn.Module
    label: str
    inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    names: Mapping[str, str] | None = None
    transposed: Mapping[str, tuple[int, ...]] | None = None
    findings: tuple[Finding, ...] = ()
    real: Callable[[], nn.Module] | None = None


@dataclass(frozen=True)
class GraphSource:
    """One kind of description.

    `kind` is that of the GraphHint. `build(hint, tensors)` gets the run's parameters and buffers by name; it raises
    UsageError, saying what to do, if the description cannot be turned into a model or must not be trusted.
    `requires` are libraries without which it cannot be built, `extra` the extra of this package that brings them.
    """

    kind: str
    build: Callable[[GraphHint, Mapping[str, LazyTensor]], Built]
    requires: tuple[str, ...] = ()
    extra: str = ""
