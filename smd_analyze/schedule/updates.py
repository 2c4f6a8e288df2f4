"""Which optimizer updates lie between two checkpoints, where the run's step unit tells."""

from __future__ import annotations

from dataclasses import dataclass

OPTIMIZER_STEPS = "optimizer steps"


@dataclass(frozen=True)
class Clock:
    """Optimizer updates per unit of the run's steps; `known` is False where the unit is not known in updates.

    Unknown, one unit stands for one update: values at checkpoints are still in order, only their sums have no meaning.
    """

    per_unit: float
    known: bool

    def made(self, step: float) -> int:
        """Number of updates made when the checkpoint of this step was saved."""
        return round(step * self.per_unit)


def clock(step_unit: str, steps_per_epoch: float | None) -> Clock:
    """The clock of a run whose steps count `step_unit`."""
    if step_unit == OPTIMIZER_STEPS:
        return Clock(1.0, True)
    return Clock(steps_per_epoch or 1.0, steps_per_epoch is not None)
