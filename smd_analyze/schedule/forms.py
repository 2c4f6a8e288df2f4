"""The usual learning-rate schedules as areas under their curves, so that means over intervals are exact.

Each form is a function of the count of updates made before, x (any unit of time), and of its parameters; what is given
is its integral from 0 to x, up to a constant. Rates are in any unit: `peak` carries it, other heights are shares of
the peak. Sources: torch.optim.lr_scheduler; transformers.optimization; Loshchilov and Hutter 2017, arXiv:1608.03983
(cosine, restarts); Smith and Topin 2019, arXiv:1708.07120 (one-cycle).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Area = Callable[[Array, Array, float], Array]


@dataclass(frozen=True)
class Form:
    """A schedule's form. `area(x, p, half)`: its integral up to x at the parameters p, named by `parameters`.

    An update that follows c others has the rate at c, which is the mean over c − half … c + half, half an update's
    length: a form that jumps does so half an update early, so that every update is on one side.

    Times among them: `warm_up`, `end`, `period`, `scale` (of an exponential), `start`; the rest are `peak`, shares of
    it (`first`, `floor`), and pure numbers (`power`).
    """

    name: str
    parameters: tuple[str, ...]
    area: Area


def _ramp(x: Array, until: float, first: float = 0.0) -> Array:
    """Area of a line from `first` at 0 to 1 at `until`, and 0 after it."""
    inside = np.minimum(x, until)
    return first * inside + (1 - first) * inside**2 / (2 * until)


def _cosine(x: Array, begin: float, end: float, high: float, low: float) -> Array:
    """Area of half a cosine from `high` at `begin` to `low` at `end`; 0 before, `low` after."""
    width = end - begin
    inside = np.clip(x - begin, 0.0, width)
    wave = 0.5 * (high - low) * (inside + width / np.pi * np.sin(np.pi * inside / width))
    return wave + low * np.maximum(x - begin, 0.0)


def _line(x: Array, begin: float, end: float) -> Array:
    """Area of a line from 1 at `begin` to 0 at `end`; 0 before and after."""
    inside = np.clip(x - begin, 0.0, end - begin)
    return inside - inside**2 / (2 * (end - begin))


def _exponential(x: Array, begin: float, scale: float) -> Array:
    return scale * -np.expm1(-np.maximum(x - begin, 0.0) / scale)


def _root(x: Array, begin: float) -> Array:
    """Area of √(begin/x) from `begin` on."""
    return 2 * (np.sqrt(begin * np.maximum(x, begin)) - begin)


def _restarts(x: Array, period: float, floor: float, growth: int, half: float) -> Array:
    """Cosines from 1 to `floor`, one after the other, each `growth` times as long as the one before."""
    x = np.maximum(x, -half)
    share = np.maximum((x + half) / period, 0.0)
    number = (share if growth == 1 else np.log2(share + 1) + 1e-12).astype(int)
    length = period * float(growth) ** np.arange(number.max() + 1)
    begin = np.cumsum(length) - length

    def area(inside: Array, long: Array) -> Array:
        return 0.5 * (1 - floor) * (inside + long / np.pi * np.sin(np.pi * inside / long)) + floor * inside

    whole = area(length - half, length) - area(np.full(length.shape, -half), length)
    before = np.cumsum(whole) - whole
    own = length[number]
    return before[number] + area(x - begin[number], own) - area(np.full(x.shape, -half), own)


def _power(x: Array, end: float, power: float) -> Array:
    return -end / (power + 1) * np.maximum(1 - x / end, 0.0) ** (power + 1)


FORMS = (
    Form("constant", ("peak",), lambda x, p, _: p[0] * x),
    Form("linear", ("peak", "end"), lambda x, p, _: p[0] * (x - x**2 / (2 * p[1]))),
    Form("exponential", ("peak", "scale"), lambda x, p, _: p[0] * p[1] * -np.expm1(-x / p[1])),
    Form(
        "warm-up, then constant",
        ("peak", "warm_up"),
        lambda x, p, _: p[0] * (_ramp(x, p[1]) + np.maximum(x - p[1], 0.0)),
    ),
    Form(
        "warm-up, then inverse square root",
        ("peak", "warm_up"),
        lambda x, p, _: p[0] * (_ramp(x, p[1]) + _root(x, p[1])),
    ),
    Form(
        "cosine",
        ("peak", "end", "floor"),
        lambda x, p, _: p[0] * (np.minimum(x, 0.0) + _cosine(x, 0.0, p[1], 1, p[2])),
    ),
    Form("polynomial", ("peak", "end", "power"), lambda x, p, _: p[0] * _power(x, p[1], p[2])),
    Form("cosine restarts", ("peak", "period", "floor"), lambda x, p, h: p[0] * _restarts(x, p[1], p[2], 1, h)),
    Form(
        "cosine restarts, doubling",
        ("peak", "period", "floor"),
        lambda x, p, h: p[0] * _restarts(x, p[1], p[2], 2, h),
    ),
    Form(
        "warm-up, then linear",
        ("peak", "warm_up", "end"),
        lambda x, p, _: p[0] * (_ramp(x, p[1]) + _line(x, p[1], p[2])),
    ),
    Form(
        "warm-up, then exponential",
        ("peak", "warm_up", "scale"),
        lambda x, p, _: p[0] * (_ramp(x, p[1]) + _exponential(x, p[1], p[2])),
    ),
    Form(
        "warm-up, then cosine",
        ("peak", "warm_up", "end", "floor"),
        lambda x, p, _: p[0] * (_ramp(x, p[1]) + _cosine(x, p[1], p[2], 1, p[3])),
    ),
    Form(
        "one-cycle",
        ("peak", "first", "warm_up", "end", "floor"),
        lambda x, p, _: p[0] * (_rise(x, p[2], p[1]) + _cosine(x, p[2], p[3], 1, p[4])),
    ),
)  # fmt: skip
"""Simple forms first: of two that fit alike, the earlier one with fewer parameters is believed."""


def _rise(x: Array, until: float, first: float) -> Array:
    """Area of half a cosine from `first` at 0 up to 1 at `until`, and 0 after it."""
    inside = np.minimum(x, until)
    return first * inside + 0.5 * (1 - first) * (inside - until / np.pi * np.sin(np.pi * inside / until))
