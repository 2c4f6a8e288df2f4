"""Schedule: which learning rate and decay acted between checkpoints. The one thing that theory reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smd_analyze.records import display
from smd_analyze.records.finding import Finding

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Schedule:
    """The `schedule` table, one row per parameter group and interval between checkpoints.

    Columns: parameter_group, step_from, step_to, optimizer, sum_learning_rate, sum_learning_rate_low, _high,
    sum_decay (Σ ηλ), sum_decay_low, _high, momentum, source, and, for what theory needs besides: weight_decay,
    dampening, nesterov (bool), beta1, beta2, eps, decoupled (bool: decay outside the gradient), learning_rate_first
    (η of the interval's first update), learning_rate_last (η of its last update, the one that made checkpoint step_to),
    learning_rate_last_low, _high (a saved learning rate is that of the *next* update: the last one's may be uncertain),
    learning_rate_changes (bool), decay_rule (text: how decay goes with the learning rate, "learning rate × weight
    decay" unless somebody says otherwise; sum_decay follows it), rate_in_velocity (bool: momentum keeps the learning
    rate inside the velocity, as in Keras, Caffe, MXNet; null: not known, or no matter), momentum_assumed (bool),
    adjust_lr (text: Muon's `adjust_lr_fn`, how its learning rate depends on a matrix's shape).
    A lone checkpoint has one row, from its step to its step, without sums: the update that made it.
    Where the optimizer is null and sum_decay is not, a decay clock tells the decay that acted on the weights (of SGD
    with momentum that is Σ ηλ/(1−α)). Where learning rates are null and sum_decay is not, only clocks tell anything:
    learning_rate_changes then marks the intervals in which their rate changed, or right before which.
    Unknown numbers are null. Every parameter group of the run has a row for every interval.
    `parameter_group` maps each parameter to the name used in the table.
    """

    table: pl.DataFrame
    parameter_group: Mapping[str, str]
    step_unit: str
    findings: tuple[Finding, ...] = ()

    def __repr__(self) -> str:
        names = self.table["parameter_group"].unique(maintain_order=True).to_list() if self.table.height else []
        shown = ", ".join(repr(name) for name in names[: display.SHOWN])
        head = f"Schedule: {self.table.height} rows, parameter groups {shown or 'none'}, {self.step_unit}"
        return display.with_findings(head, self.findings)
