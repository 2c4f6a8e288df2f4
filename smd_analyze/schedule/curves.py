"""Learning-rate schedulers of torch as functions of their count, and how that count runs with the optimizer steps.

Every kind is η(c) = η_min + (base − η_min)·f(c) with c the scheduler's `last_epoch`: `shape` returns f and η_min, and
the base follows from one saved learning rate. Source: torch.optim.lr_scheduler (closed forms of torch 2.13).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smd_analyze.rate_formulas import rate_after
from smd_analyze.schedule import transformers_curves

Function = Callable[[np.ndarray], np.ndarray]
CALLS = "calls_per_update"  # a schedule that counts batches, of which so many make an update


def formula(kind: str, state: Mapping[str, float | str]) -> Function | None:
    """η(u) of a schedule that its name and numbers define by themselves; None where it is none, or a number is missing.

    Lists stand in `state` as JSON.
    """
    numbers = {k: json.loads(v) if isinstance(v, str) and v.startswith("[") else v for k, v in state.items()}
    every = float(numbers.get(CALLS) or 1.0)
    if rate_after(kind, numbers, np.zeros(1)) is None:
        return None

    def value(u: np.ndarray) -> np.ndarray:
        rate = rate_after(kind, numbers, every * u - 1)
        return np.full(u.shape, np.nan) if rate is None else rate

    return value


@dataclass(frozen=True)
class Shape:
    """f(count), 1 at the base learning rate, and the floor η_min (of each part of a sequence its own).

    `floor` None: another one in every parameter group; it follows from a second saved learning rate.
    """

    factor: Function
    floor: float | Function | None = 0.0

    def floors(self, count: np.ndarray) -> np.ndarray:
        """η_min at every count."""
        return self.floor(count) if callable(self.floor) else np.full(np.shape(count), self.floor or 0.0)


def shape(kind: str, state: Mapping[str, float | str]) -> Shape | None:
    """The curve of a scheduler by its class name; None where the kind, or a number that it needs, is not known.

    `state` holds the scheduler's saved numbers (T_max, gamma, …) and texts (milestones as JSON).
    """
    builder = _KINDS.get(kind)
    if builder is None and not kind.startswith("transformers "):
        return None
    try:
        if builder is not None:
            return builder(state)
        factor = transformers_curves.factor(kind, state)
        return None if factor is None else Shape(factor)
    except (KeyError, ValueError, TypeError, ZeroDivisionError):
        return None  # the state lacks what its kind needs: the saved learning rates speak alone


def _get(state: Mapping[str, float | str], name: str) -> float:
    return float(state[name])


def _multi_step(state: Mapping[str, float | str]) -> Shape:
    found = json.loads(str(state["milestones"]))
    repeated = found.items() if isinstance(found, dict) else ((m, 1) for m in found)
    milestones = np.sort(np.array([float(m) for m, times in repeated for _ in range(int(times))]))
    gamma = _get(state, "gamma")
    return Shape(lambda c: gamma ** np.searchsorted(milestones, c, side="right"))


def _step(state: Mapping[str, float | str]) -> Shape:
    size, gamma = _get(state, "step_size"), _get(state, "gamma")
    return Shape(lambda c: gamma ** (c // size))


def _exponential(state: Mapping[str, float | str]) -> Shape:
    gamma = _get(state, "gamma")
    return Shape(lambda c: gamma**c)


def _cosine(state: Mapping[str, float | str]) -> Shape:
    period = _get(state, "T_max")
    return Shape(lambda c: 0.5 * (1 + np.cos(np.pi * c / period)), float(state.get("eta_min", 0.0)))


def _warm_restarts(state: Mapping[str, float | str]) -> Shape:
    first, factor = _get(state, "T_0"), float(state.get("T_mult", 1.0))

    def value(c: np.ndarray) -> np.ndarray:
        if factor == 1:
            return 0.5 * (1 + np.cos(np.pi * (c % first) / first))
        n = np.floor(np.log(np.maximum(c / first * (factor - 1) + 1, 1)) / np.log(factor) + 1e-12)
        start = first * (factor**n - 1) / (factor - 1)
        return 0.5 * (1 + np.cos(np.pi * (c - start) / (first * factor**n)))

    return Shape(value, float(state.get("eta_min", 0.0)))


def _linear(state: Mapping[str, float | str]) -> Shape:
    start, end, total = _get(state, "start_factor"), float(state.get("end_factor", 1.0)), _get(state, "total_iters")
    return Shape(lambda c: start + (end - start) * np.minimum(c, total) / total)


def _constant(state: Mapping[str, float | str]) -> Shape:
    factor, total = _get(state, "factor"), _get(state, "total_iters")
    return Shape(lambda c: np.where(c < total, factor, 1.0))


def _polynomial(state: Mapping[str, float | str]) -> Shape:
    total, power = _get(state, "total_iters"), float(state.get("power", 1.0))
    return Shape(lambda c: (1 - np.minimum(c, total) / total) ** power)


def _one_cycle(state: Mapping[str, float | str]) -> Shape:
    """Up to the largest rate, down to the smallest; torch's defaults where the state does not name the divisors."""
    phases = state.get("_schedule_phases", state.get("schedule_phases"))
    total = _get(state, "total_steps")
    start, last = 1 / float(state.get("div_factor", 25.0)), 1 / float(state.get("final_div_factor", 1e4))
    levels = {"initial_lr": start, "max_lr": 1.0, "min_lr": start * last}
    if phases is not None:
        ends = [(float(p["end_step"]), levels[p["start_lr"]], levels[p["end_lr"]]) for p in json.loads(str(phases))]
    else:
        share = float(state.get("pct_start", 0.3))
        ends = [(share * total - 1, start, 1.0), (total - 1, 1.0, start * last)]
    straight = str(state.get("_anneal_func_type", state.get("anneal_func_type", "cos"))) == "linear"

    def value(c: np.ndarray) -> np.ndarray:
        out, begin = np.empty_like(c, dtype=float), 0.0
        for i, (end, low, high) in enumerate(ends):
            inside = (c >= begin if i else np.full(c.shape, True)) & (c <= end if i < len(ends) - 1 else True)
            part = (c[inside] - begin) / (end - begin)  # torch lets the count run past the end as well
            mix = part if straight else 0.5 * (1 - np.cos(np.pi * part))
            out[inside] = low + (high - low) * mix
            begin = end
        return out

    return Shape(value)


def _cyclic(state: Mapping[str, float | str]) -> Shape:
    """Triangles between two learning rates; halved each time (triangular2), or scaled by γ^count."""
    size, ratio, gamma = _get(state, "total_size"), _get(state, "step_ratio"), float(state.get("gamma", 1.0))
    mode = str(state.get("mode", "triangular"))
    if mode not in ("triangular", "triangular2", "exp_range"):
        raise ValueError("a function of the user's own")

    def value(c: np.ndarray) -> np.ndarray:
        cycle = np.floor(1 + c / size)
        x = 1 + c / size - cycle
        height = np.where(x <= ratio, x / ratio, (x - 1) / (ratio - 1))
        scale = {"triangular": np.ones(c.shape), "triangular2": 0.5 ** (cycle - 1), "exp_range": gamma**c}
        return height * scale[mode]

    return Shape(value, None)


def _sequence(state: Mapping[str, float | str]) -> Shape:
    """One scheduler after the other; each counts from the milestone at which it took over."""
    milestones = np.array(json.loads(str(state["_milestones"])), float)
    parts = [_part(p) for p in json.loads(str(state["_schedulers"]))]
    starts = np.r_[0.0, milestones]
    if len(parts) != len(starts):
        raise ValueError("schedulers and milestones do not fit")

    def by_part(values: Sequence[Function]) -> Function:
        def value(c: np.ndarray) -> np.ndarray:
            j = np.searchsorted(milestones, c, side="right")
            return np.choose(j, [f(np.maximum(c - s, 0)) for f, s in zip(values, starts, strict=True)])

        return value

    return Shape(by_part([p.factor for p in parts]), by_part([p.floors for p in parts]))


def _chain(state: Mapping[str, float | str]) -> Shape:
    """All at once: each multiplies the rate by its own change, so factors multiply (where none adds a floor)."""
    found = json.loads(str(state["_schedulers"]))
    parts = [_part(p) for p in found]
    if any(p["kind"] not in _MULTIPLY for p in found):
        raise ValueError("the product is known of schedulers without a floor only")
    return Shape(lambda c: np.prod([p.factor(c) for p in parts], axis=0))


def _part(state: dict[str, object]) -> Shape:
    """The curve of one of several schedulers."""
    kind = str(state.get("kind"))
    flat = {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in state.items() if v is not None}
    return _KINDS[kind](flat)  # type: ignore[arg-type]


_MULTIPLY = ("MultiStepLR", "StepLR", "ExponentialLR", "LinearLR", "ConstantLR", "PolynomialLR")
_KINDS: dict[str, Callable[[Mapping[str, float | str]], Shape]] = {
    "MultiStepLR": _multi_step,
    "StepLR": _step,
    "ExponentialLR": _exponential,
    "CosineAnnealingLR": _cosine,
    "CosineAnnealingWarmRestarts": _warm_restarts,
    "LinearLR": _linear,
    "ConstantLR": _constant,
    "PolynomialLR": _polynomial,
    "OneCycleLR": _one_cycle,
    "CyclicLR": _cyclic,
    "SequentialLR": _sequence,
    "ChainedScheduler": _chain,
}
KNOWN = tuple(_KINDS)


def counts(steps: Sequence[float], last_epochs: Sequence[float]) -> list[Function]:
    """How the scheduler's count runs with the update number u: candidates, best first, then those that bound it.

    `last_epochs[i]` is the count saved at step `steps[i]`; it set the learning rate of update `steps[i]` + 1.
    One call per step gives c = u − 1 + shift; one per epoch of s steps gives c = floor((u − 1)/s), with s between
    the bounds that all checkpoints set together. Empty where neither fits.
    """
    t, c = np.asarray(steps, float), np.asarray(last_epochs, float)
    if len(t) == 0:
        return []
    if len(t) > 1 and np.all(c - t == c[0] - t[0]):
        shift = float(c[0] - t[0])
        return [lambda u: u - 1 + shift]
    if len(t) == 1 and abs(c[0] - t[0]) <= 1:
        shift = float(c[0] - t[0])
        return [lambda u: u - 1 + shift]
    slow = epoch_lengths(steps, last_epochs)
    if slow:
        return [by_epoch(n) for n in slow]
    moved = c > 0
    longest = float(np.min(t[moved] / c[moved])) if moved.any() else 1.0
    if longest < 1 and np.allclose(t[moved] / c[moved], longest, rtol=1e-9):
        return [lambda u: (u - 1) / longest]
    return []


def epoch_lengths(steps: Sequence[float], last_epochs: Sequence[float]) -> list[float]:
    """Updates per count of a scheduler that is called once an epoch: the likeliest first, then those that bound it.

    Empty where the count runs with the updates, or faster, or nothing fits.
    """
    t, c = np.asarray(steps, float), np.asarray(last_epochs, float)
    moved = c > 0
    if not moved.any() or np.all(c - t == c[0] - t[0]):
        return []
    longest = float(np.min(t[moved] / c[moved]))
    shortest = float(np.max(t / (c + 1)))
    if longest < 1:
        return []
    if np.all(c[moved] * longest == t[moved]):
        return [longest]
    if len(t) > 1 and np.all((c + 1) * shortest == t):  # saved at the end of an epoch, before the scheduler was called
        return [shortest]
    if shortest > longest or (len(t) == 1 and shortest == longest):
        return []
    least, most = float(np.ceil(shortest - 1e-9)), float(np.floor(longest + 1e-9))
    if least <= most:  # an epoch is a whole number of updates
        return list(dict.fromkeys([float(np.round(0.5 * (least + most))), least, most]))
    return [0.5 * (shortest + longest), longest, shortest * (1 + 1e-6)]


def by_epoch(steps: float) -> Function:
    """The count of a scheduler that is called after every `steps` updates."""
    return lambda u: np.floor((u - 1) / steps + 1e-9)
