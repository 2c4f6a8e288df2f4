"""What a quantity may come out as, in the words of the tables, each with its kind and what to do about it.

One list for all quantities: rows of the table `fits` take their `outcome`, `kind` and `advice` from here. The kind is
for programs and never changes with the wording.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Any, NamedTuple


class Kind(StrEnum):
    """The kinds of outcome, as in the column `kind` of `fits`."""

    SETTLED = "settled"
    RELAXING = "relaxing"
    TOO_FEW = "not identifiable: too few"
    STATIONARY = "not identifiable: stationary"
    DRIFT = "not identifiable: drift"
    NO_DECAY = "no decay"
    NORM_CONSTRAINED = "norm-constrained"
    OSCILLATING = "oscillating"
    BELOW_RESOLUTION = "below resolution"
    NOT_APPLICABLE = "theory does not apply"
    SETTINGS_MISSING = "settings missing"
    ESTIMATED = "estimated"


class Told(NamedTuple):
    """An outcome's words, with places for numbers."""

    kind: Kind
    words: str
    advice: str = ""


MORE = "save at least {} checkpoints, {} optimizer steps apart or more, at a constant learning rate"


class Outcome(Enum):
    """Every outcome of `fits`."""

    STATIONARY = Told(Kind.SETTLED, "stationary")
    FOLLOWS = Told(Kind.SETTLED, "follows the moving equilibrium")
    MOVING = Told(Kind.RELAXING, "still moving", "train on, or compare at a constant learning rate")
    LAGGING = Told(
        Kind.RELAXING,
        "lags behind the learning rate",
        "the equilibrium moves with the learning rate: compare at a constant one",
    )
    LAGS_AS_EXPECTED = Told(
        Kind.RELAXING,
        "lags behind the learning rate as expected",
        "the equilibrium moves faster than the norm can follow: with a steady gradient the norm is where it should be",
    )
    APART = Told(Kind.RELAXING, "units differ", "look at the units: some norms grow while others shrink")
    UNDECIDED = Told(Kind.TOO_FEW, "not shown to be stationary", "more checkpoints at this learning rate would tell")
    IMPOSSIBLE = Told(
        Kind.NOT_APPLICABLE,
        "falls faster than weight decay alone",
        "the norms contradict learning rate × weight decay: check both",
    )
    SHRINKS = Told(
        Kind.NOT_APPLICABLE,
        "falls faster than weight decay alone",
        "an adaptive step may shrink the weights, too: it is not tangent to them; else check decay",
    )
    ONE_CHECKPOINT = Told(Kind.TOO_FEW, "not identifiable: one checkpoint", MORE)
    FEW_CHECKPOINTS = Told(Kind.TOO_FEW, "not identifiable: {} checkpoints", MORE)
    FEW_INTERVALS = Told(Kind.TOO_FEW, "not identifiable: {} at one learning rate", MORE)
    DECAY_ENDS = Told(
        Kind.SETTINGS_MISSING,
        "decay not known after step {}",
        "analyse the steps for which it is known, --steps {}:{}, or give --lr and --weight-decay",
    )
    NO_DECAY = Told(
        Kind.NO_DECAY, "no decay: no equilibrium", "none: without weight decay there is no balance to reach"
    )
    FROZEN = Told(
        Kind.NOT_APPLICABLE, "the weights never move", "frozen on purpose? else one file was saved under several names"
    )
    NOT_FINITE = Told(Kind.NOT_APPLICABLE, "no finite norm above 0", "see the column nonfinite of the statistics")
    HELD = Told(
        Kind.NORM_CONSTRAINED,
        "norm held constant by the training code",
        "the norm says nothing of a balance here: compare measured angles",
    )
    OSCILLATES = Told(
        Kind.OSCILLATING,
        "momentum too strong: the norm oscillates (A = {})",
        "lower learning rate × weight decay or momentum: αηλ/(1−α)² is above 1/16",
    )
    LEVEL_MOVES = Told(Kind.SETTLED, "the level moves with the learning rate", "see expected_norm of the predictions")
    UNSETTLED = Told(Kind.RELAXING, "the norm is not known to be stationary", "see stationary_since")
    BELOW = Told(
        Kind.BELOW_RESOLUTION,
        "below resolution",
        "save the optimizer state beside these weights, or weights of a finer type",
    )
    NO_MEASUREMENT = Told(Kind.TOO_FEW, "no independent measurement", "save two checkpoints one step apart")
    NO_PREDICTION = Told(Kind.SETTINGS_MISSING, "no prediction")
    REFERENCE = Told(Kind.NOT_APPLICABLE, "reference only: not scale-invariant")
    NOT_AT_EQUILIBRIUM = Told(
        Kind.RELAXING, "measured, not at equilibrium", "the ratio tells that the norm is not stationary"
    )
    STANDING_UNKNOWN = Told(
        Kind.TOO_FEW,
        "measured, whether at equilibrium is not known",
        "the ratio tells how the weights turn, not whether their norm stands still",
    )
    DRIFT = Told(
        Kind.DRIFT,
        "not separable from a drifting gradient scale",
        "save checkpoints across a learning-rate change: {} and more on each side, {} optimizer steps apart",
    )

    @property
    def words(self) -> str:
        """The words as they stand in the column `outcome`, if they have no place for numbers."""
        return self.value.words

    @property
    def kind(self) -> Kind:
        """What kind of outcome it is."""
        return self.value.kind

    def said(self, words: tuple[object, ...] = (), advice: tuple[object, ...] = ()) -> dict[str, Any]:
        """The columns outcome, kind and advice of a row, with numbers in their places."""
        kind, text, remedy = self.value
        return {"outcome": text.format(*words), "kind": str(kind), "advice": remedy.format(*advice)}
