"""Run: what was found on disk. A sequence of checkpoints whose tensors are read only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from smd_analyze.records import display
from smd_analyze.records.finding import Finding

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class Extent:
    """Where a tensor's elements lie as raw bytes: contiguous, row-major, little-endian."""

    path: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class LazyTensor:
    """A tensor in a checkpoint, not yet read.

    `dtype` is torch's name without the prefix ("float32", "bfloat16", "float8_e4m3fn").
    `layout` names the axes where it is known: "OIHW", "OI", "IO", "HWIO", …; None otherwise.
    `read()` returns the elements as a numpy array that owns its memory, in the file's own shape. numpy has no
    bfloat16 or float8: those come as their bits (uint16, uint8) and `dtype` says how to read them.
    `extent` says where the bytes lie if they lie raw, else None: the engine then asks `read`.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray] = field(repr=False, compare=False)
    layout: str | None = None
    extent: Extent | None = field(default=None, repr=False)

    def load(self) -> torch.Tensor:
        """Read the whole tensor, in the file's own shape and dtype."""
        import torch  # heavy: a path that needs no torch must not import it

        array = self.read()
        dtype = getattr(torch, self.dtype)
        tensor = torch.from_numpy(array)
        return tensor if tensor.dtype == dtype else tensor.view(dtype)


Kind = Literal["in force", "configured", "inferred", "logged"]
Applies = Literal["next update", "last update", "whole run"]


@dataclass(frozen=True)
class Setting:
    """A hyperparameter and where it was found.

    `name` is one of learning_rate, weight_decay, momentum, dampening, nesterov, beta1, beta2, eps, optimizer,
    decoupled_weight_decay, schedule, …; a number stands in `value` (booleans as 0 and 1), a word in `text`.
    `parameter_group` "" means: for every parameter group.
    `applies` says when the value acts: torch saves the learning rate of the *next* update.
    """

    name: str
    value: float | None
    text: str | None
    parameter_group: str
    kind: Kind
    source: str
    applies: Applies = "whole run"


@dataclass(frozen=True)
class GraphHint:
    """A description of the model that lies in or beside the checkpoints. Nothing in it is ever executed.

    `kind` is one of "huggingface config", "keras config", "exported program", "onnx", "module tree", "torchscript".
    `read()` gives it as plain data (dicts, lists, numbers, text); SmdError if it cannot be read.
    """

    kind: str
    source: str
    read: Callable[[], Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Log:
    """A hyperparameter as the trainer logged it: `values[i]` at `at[i]`, in the run's own step unit, ascending.

    `label` is the log's name for the series ("lr-AdamW/pg1"). `width` 0: the value of one update, which `applies` names
    (None: not known whether at[i] counts updates made or is the next one's number). Else the value of an epoch, which
    ends at at[i] and is `width` long; `mean` tells whether it is the epoch's mean.
    """

    name: str
    label: str
    at: tuple[float, ...]
    values: tuple[float, ...]
    source: str
    applies: Applies | None = None
    width: float = 0.0
    mean: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """One saved state of the run.

    `parameters` are the trained tensors that are analysed, `buffers` what is saved beside them (running statistics),
    `variants` other copies of the same weights ("ema", "master"), `optimizer_state` maps a parameter's name to its
    saved state ("momentum_buffer", "exp_avg", "exp_avg_sq", "step", …).
    `identity` is (size, modification time in ns) per file, to notice a file that changes under us.
    """

    step: int
    path: str
    format: str
    framework: str
    parameters: Mapping[str, LazyTensor]
    settings: tuple[Setting, ...] = ()
    nbytes: int = 0
    buffers: Mapping[str, LazyTensor] = field(default_factory=dict, repr=False)
    variants: Mapping[str, Mapping[str, LazyTensor]] = field(default_factory=dict, repr=False)
    optimizer_state: Mapping[str, Mapping[str, LazyTensor]] = field(default_factory=dict, repr=False)
    identity: Mapping[str, tuple[int, int]] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"Checkpoint(step={self.step}, {self.path!r}, {self.format}, {len(self.parameters)} parameters)"


@dataclass(frozen=True)
class Run:
    """A sequence of checkpoints in the order of training.

    `ordered_by` is the one source of order of the whole sequence, in words; `step_unit` says what `step` counts:
    "optimizer steps" where that is known, else "epochs", "saves", …
    `parameter_groups` maps a parameter group's name to its parameters, as far as the files allow.
    `aliases` maps a label ("last", "best") to the file it stands for. `logs` are hyperparameters that were logged.
    `graphs` are descriptions of the model that lie with the latest checkpoint that has any.
    `runs` are all sequences of the tree, this one first: name → number of checkpoints.
    `steps_per_epoch`, `tokens_per_step`: optimizer steps of an epoch and tokens of a step, where they are known.
    """

    path: str
    checkpoints: tuple[Checkpoint, ...]
    ordered_by: str
    step_unit: str
    findings: tuple[Finding, ...] = ()
    parameter_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    graphs: tuple[GraphHint, ...] = ()
    logs: tuple[Log, ...] = ()
    runs: Mapping[str, int] = field(default_factory=dict, repr=False)
    steps_per_epoch: float | None = None
    tokens_per_step: float | None = None

    def __repr__(self) -> str:
        if not self.checkpoints:
            return f"Run({self.path!r}: no checkpoints)"
        first, last = self.checkpoints[0], self.checkpoints[-1]
        head = (
            f"Run {self.path}: {len(self.checkpoints)} checkpoints, {self.step_unit} {first.step} to {last.step}, "
            f"{len(last.parameters)} parameters, {last.format}, ordered by {self.ordered_by}"
        )
        return display.with_findings(head, self.findings)

    def _repr_html_(self) -> str:
        heads = ("step", "path", "format", "framework", "bytes", "parameters")
        rows = [(c.step, c.path, c.format, c.framework, f"{c.nbytes:,}", len(c.parameters)) for c in self.checkpoints]
        told = f"{self.path}: {len(self.checkpoints)} checkpoints, ordered by {self.ordered_by}"
        found = display.html_list((f.severity, f.where, f.message) for f in self.findings)
        return display.html_head(told) + display.html_table(heads, rows) + found
