"""Learning rates that a name and a few numbers define: Keras' schedules and Caffe's policies, as functions of a count.

Pure formulas: they know neither files nor runs. `count` is the number of updates made before (arrays, float64).
Sources: keras/src/optimizers/schedules/learning_rate_schedule.py (Keras 3, the same in tf.keras);
caffe/src/caffe/solvers/sgd_solver.cpp, GetLearningRate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = Mapping[str, Any]
Floats = npt.NDArray[np.float64]


def rate_after(kind: str, numbers: Numbers, count: npt.ArrayLike) -> Floats | None:
    """η of the update that follows `count` updates; None if the kind, or a number that it needs, is not known."""
    formula = FORMULAS.get(kind)
    if formula is None:
        return None
    try:
        with np.errstate(all="ignore"):
            out = np.asarray(formula(numbers, np.asarray(count, np.float64)), np.float64)
    except (KeyError, ValueError, TypeError, ZeroDivisionError, OverflowError, IndexError):
        return None
    return out if np.isfinite(out).all() else None


def _cosine(c: Numbers, count: Floats) -> Floats:
    """CosineDecay: linear warm-up to `warmup_target`, then half a cosine down to alpha × the start."""
    first, warm, target = c["initial_learning_rate"], c.get("warmup_steps") or 0, c.get("warmup_target")
    since = count if target is None else np.maximum(count - warm, 0)
    part = np.minimum(since, c["decay_steps"]) / c["decay_steps"]
    alpha = c.get("alpha") or 0.0
    fall = (first if target is None else target) * ((1 - alpha) * 0.5 * (1 + np.cos(np.pi * part)) + alpha)
    if target is None or not warm:
        return fall
    return np.where(count < warm, first + (target - first) * count / warm, fall)


def _restarts(c: Numbers, count: Floats) -> Floats:
    """CosineDecayRestarts: periods that grow by t_mul, heights that shrink by m_mul."""
    part = count / c["first_decay_steps"]
    grow, shrink, alpha = c.get("t_mul", 2.0), c.get("m_mul", 1.0), c.get("alpha") or 0.0
    if grow == 1:
        number = np.floor(part)
        part = part - number
    else:
        number = np.floor(np.log(1 - part * (1 - grow)) / np.log(grow))
        part = (part - (1 - grow**number) / (1 - grow)) / grow**number
    height = shrink**number
    return c["initial_learning_rate"] * ((1 - alpha) * 0.5 * height * (1 + np.cos(np.pi * part)) + alpha)


def _exponential(c: Numbers, count: Floats) -> Floats:
    """ExponentialDecay: a factor per decay_steps, in a staircase or smoothly."""
    part = count / c["decay_steps"]
    return c["initial_learning_rate"] * c["decay_rate"] ** (np.floor(part) if c.get("staircase") else part)


def _inverse_time(c: Numbers, count: Floats) -> Floats:
    """InverseTimeDecay."""
    part = count / c["decay_steps"]
    return c["initial_learning_rate"] / (1 + c["decay_rate"] * (np.floor(part) if c.get("staircase") else part))


def _polynomial(c: Numbers, count: Floats) -> Floats:
    """PolynomialDecay to end_learning_rate, once or in cycles of growing length."""
    length = np.full(count.shape, float(c["decay_steps"]))
    if c.get("cycle"):
        length = length * np.maximum(1, np.ceil(count / length))
    part = (1 - np.minimum(count, length) / length) ** c.get("power", 1.0)
    end = c.get("end_learning_rate", 1e-4)
    return (c["initial_learning_rate"] - end) * part + end


def _piecewise(c: Numbers, count: Floats) -> Floats:
    """PiecewiseConstantDecay: values[i] up to and including boundaries[i]."""
    values = np.asarray(c["values"], np.float64)
    return values[np.searchsorted(np.sort(np.asarray(c["boundaries"], np.float64)), count, side="left")]


def _caffe(factor: Callable[[Numbers, Floats], Floats | float]) -> Callable[[Numbers, Floats], Floats]:
    """base_lr times the policy's factor."""
    return lambda c, count: c["base_lr"] * factor(c, count) * np.ones(count.shape)


FORMULAS: dict[str, Callable[[Numbers, Floats], Floats]] = {
    "CosineDecay": _cosine, "CosineDecayRestarts": _restarts, "ExponentialDecay": _exponential,
    "InverseTimeDecay": _inverse_time, "PolynomialDecay": _polynomial, "PiecewiseConstantDecay": _piecewise,
    "caffe fixed": _caffe(lambda c, t: 1.0),
    "caffe step": _caffe(lambda c, t: c["gamma"] ** np.floor(t / c["stepsize"])),
    "caffe exp": _caffe(lambda c, t: c["gamma"] ** t),
    "caffe inv": _caffe(lambda c, t: (1 + c["gamma"] * t) ** -c["power"]),
    "caffe multistep": _caffe(lambda c, t: c["gamma"] ** np.searchsorted(np.sort(c["stepvalue"]), t, side="right")),
    "caffe poly": _caffe(lambda c, t: (1 - np.minimum(t, c["max_iter"]) / c["max_iter"]) ** c["power"]),
    "caffe sigmoid": _caffe(lambda c, t: 1 / (1 + np.exp(-c["gamma"] * (t - c["stepsize"])))),
}  # fmt: skip
