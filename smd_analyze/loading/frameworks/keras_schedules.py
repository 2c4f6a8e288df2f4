"""Keras' learning rate schedules: the rate of the update after a given number of iterations.

Source: keras/src/optimizers/schedules/learning_rate_schedule.py (Keras 3), the same formulas as in tf.keras.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from smd_analyze.loading.sources import FileId
from smd_analyze.loading.tensors import Place, read_tensor

Config = Mapping[str, Any]


@dataclass(frozen=True)
class ScheduledRate:
    """Reads the iterations of a checkpoint and gives the rate there. `numbers` are the schedule's, as sorted pairs."""

    iterations: Place
    kind: str
    numbers: tuple[tuple[str, Any], ...]

    def __call__(self, file: FileId, place: Place) -> Place:
        """The rate as a number in place; NaN if the formula has none for these numbers."""
        step = int(read_tensor(self.iterations, (file,)).reshape(-1)[0])
        value = rate_at(self.kind, dict(self.numbers), step)
        return Place((), "float64", 0, inline=struct.pack("<d", math.nan if value is None else value))


def scheduled(kind: str, config: Config, iterations: Place) -> Place | None:
    """A Place whose value is the schedule's at the file's iterations; None for schedules that are not known."""
    if rate_at(kind, config, 0) is None:
        return None
    numbers = tuple(sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in config.items()))
    return Place((), "float64", iterations.start, find=ScheduledRate(iterations, kind, numbers))


def rate_at(kind: str, config: Config, step: int) -> float | None:
    """η of the update that follows `step` updates; None if the kind, or a number that it needs, is not known."""
    formula = FORMULAS.get(kind)
    if formula is None:
        return None
    try:
        return float(formula(config, float(step)))
    except (KeyError, ValueError, TypeError, ZeroDivisionError, OverflowError, IndexError):
        return None


def cosine(c: Config, step: float) -> float:
    """CosineDecay: linear warm-up to `warmup_target`, then half a cosine down to alpha × the start."""
    first, warm, target = c["initial_learning_rate"], c.get("warmup_steps") or 0, c.get("warmup_target")
    if target is not None:
        if step < warm:
            return first + (target - first) * step / warm
        first, step = target, step - warm
    part = min(step, c["decay_steps"]) / c["decay_steps"]
    alpha = c.get("alpha") or 0.0
    return first * ((1 - alpha) * 0.5 * (1 + math.cos(math.pi * part)) + alpha)


def restarts(c: Config, step: float) -> float:
    """CosineDecayRestarts: periods that grow by t_mul, heights that shrink by m_mul."""
    part, grow, shrink, alpha = (
        step / c["first_decay_steps"],
        c.get("t_mul", 2.0),
        c.get("m_mul", 1.0),
        c.get("alpha", 0.0),
    )
    if grow == 1:
        number = math.floor(part)
        part -= number
    else:
        number = math.floor(math.log(1 - part * (1 - grow)) / math.log(grow))
        part = (part - (1 - grow**number) / (1 - grow)) / grow**number
    height = shrink**number
    return c["initial_learning_rate"] * ((1 - alpha) * 0.5 * height * (1 + math.cos(math.pi * part)) + alpha)


def exponential(c: Config, step: float) -> float:
    """ExponentialDecay: a factor per decay_steps, in a staircase or smoothly."""
    part = step / c["decay_steps"]
    return c["initial_learning_rate"] * c["decay_rate"] ** (math.floor(part) if c.get("staircase") else part)


def inverse_time(c: Config, step: float) -> float:
    """InverseTimeDecay."""
    part = step / c["decay_steps"]
    return c["initial_learning_rate"] / (1 + c["decay_rate"] * (math.floor(part) if c.get("staircase") else part))


def polynomial(c: Config, step: float) -> float:
    """PolynomialDecay to end_learning_rate, once or in cycles of growing length."""
    length = c["decay_steps"]
    if c.get("cycle"):
        length *= max(1, math.ceil(step / length))
    part = (1 - min(step, length) / length) ** c.get("power", 1.0)
    end = c.get("end_learning_rate", 1e-4)
    return (c["initial_learning_rate"] - end) * part + end


def piecewise(c: Config, step: float) -> float:
    """PiecewiseConstantDecay: values[i] up to and including boundaries[i]."""
    return c["values"][sum(step > b for b in c["boundaries"])]


FORMULAS: dict[str, Callable[[Config, float], float]] = {
    "CosineDecay": cosine, "CosineDecayRestarts": restarts, "ExponentialDecay": exponential,
    "InverseTimeDecay": inverse_time, "PolynomialDecay": polynomial, "PiecewiseConstantDecay": piecewise,
}  # fmt: skip
