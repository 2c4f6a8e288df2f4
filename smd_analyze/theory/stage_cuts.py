"""Where one stage of training ends and the next begins: at jumps of the learning rate (or decay), or where it turns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from smd_analyze.theory.course import Course

SAME, SAME_DECAY, SAME_CLOCK = 1e-6, 1e-3, 0.02  # relative: learning rates, decays, decays that only clocks tell
JUMP = 1.5  # factor from which a change is a new stage, however short
SHORT = 2  # intervals: a constant stretch no longer than this beside a small change is part of a moving schedule
STILL, FALLS, RISES = 0, -1, 1


@dataclass(frozen=True)
class Part:
    """A stretch of one interval: `start`, `stop` in recorded steps, values at both ends (η; x per optimizer step).

    NaN: not known. `moves`: the values change smoothly from one end to the other. `first`, `last`: intervals.
    """

    first: int
    last: int
    start: float
    stop: float
    rates: tuple[float, float]
    decays: tuple[float, float]
    moves: int = STILL


@dataclass(frozen=True)
class Stage:
    """Consecutive parts that act as one: constant, or moving one way."""

    parts: tuple[Part, ...]
    moves: int

    @property
    def start(self) -> float:
        """Recorded step at which it begins."""
        return self.parts[0].start

    @property
    def stop(self) -> float:
        """Recorded step at which it ends."""
        return self.parts[-1].stop


def stages_of(course: Course) -> list[Stage]:
    """The stages of one parameter group, in order; they tile the run. Few per schedule, whatever the checkpoints."""
    parts = [part for i in range(1, len(course.steps)) for part in _parts(course, i)]
    tolerance = SAME_DECAY if course.rate_known else SAME_CLOCK
    blocks: list[Part] = []
    held: list[list[Part]] = []
    for part in parts:
        if blocks and not part.moves and not blocks[-1].moves and _change(blocks[-1], part, tolerance) == 0:
            blocks[-1] = replace(blocks[-1], last=part.last, stop=part.stop)
            held[-1].append(part)
        else:
            blocks.append(part)
            held.append([part])
    ways = [_way(blocks, i, tolerance) for i in range(len(blocks))]
    out: list[Stage] = []
    for i, (block, way) in enumerate(zip(blocks, ways, strict=True)):
        goes_on = bool(out) and way != STILL and way == out[-1].moves
        if goes_on:
            change = _change(blocks[i - 1], block, tolerance)
            goes_on = abs(change) < np.log(JUMP) or np.sign(change) == way
        if goes_on:
            out[-1] = Stage((*out[-1].parts, *held[i]), way)
        else:
            out.append(Stage(tuple(held[i]), way))
    return out


def _parts(course: Course, i: int) -> list[Part]:
    """Interval i as one part, or two where the learning rate drops within it."""
    a, b = float(course.steps[i - 1]), float(course.steps[i])
    whole = _values(course, i)
    if not course.changes[i] or np.isnan(course.lengths[i] + course.rate_mean[i] + course.decay[i]):
        return [Part(i, i, a, b, whole[0], whole[1], _direction(whole[0]) if course.changes[i] else STILL)]
    rates, decays, counts = course.pieces(i)
    if len(rates) == 2:
        middle = a + (b - a) * float(counts[0] / counts.sum())
        ends = ((a, middle), (middle, b))
        both = [((float(r), float(r)), (float(x), float(x))) for r, x in zip(rates, decays, strict=True)]
        return [Part(i, i, *ends[j], *both[j]) for j in (0, 1)]
    return [Part(i, i, a, b, whole[0], whole[1], _direction(whole[0]))]


def _values(course: Course, i: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """η (NaN if decay alone is known) and x at both ends of interval i; a constant interval has its mean."""
    x = course.decay[i] / course.lengths[i]
    if np.isnan(x):  # steps per epoch unknown: decay per recorded step, or that of one update
        x = course.decay[i] / (course.steps[i] - course.steps[i - 1])
        x = course.decay_first[i] if np.isnan(x) else x
    if not course.changes[i]:
        mean = course.rate_mean[i]
        rate = float(mean if course.rate_known and np.isfinite(mean) else course.raw_first[i])
        return (rate, rate), (float(x), float(x))
    rates = float(course.rate_first[i]), float(course.rate_last[i])
    mean = course.rate_mean[i]
    scale = x / mean if mean > 0 else np.nan
    return rates, (rates[0] * scale, rates[1] * scale)


def _direction(values: tuple[float, float]) -> int:
    """Which way a moving value goes; FALLS if it is not known."""
    return RISES if values[1] > values[0] else FALLS


def _change(a: Part, b: Part, tolerance: float) -> float:
    """Logarithm of the factor between the end of a and the start of b; 0 within tolerance or where it is unknown."""
    changes = [0.0]
    for x, y, near in ((a.rates[1], b.rates[0], SAME), (a.decays[1], b.decays[0], tolerance)):
        if np.isnan(x) or np.isnan(y) or abs(x - y) <= near * max(abs(x), abs(y)):
            continue
        changes.append(float(np.log(y / x)) if x > 0 and y > 0 else np.inf if y > x else -np.inf)
    return max(changes, key=abs)


def _way(blocks: list[Part], i: int, tolerance: float) -> int:
    """Whether block i is constant, or part of a schedule that rises or falls by small changes."""
    block = blocks[i]
    if block.moves:
        return block.moves
    before = _change(blocks[i - 1], block, tolerance) if i else 0.0
    after = _change(block, blocks[i + 1], tolerance) if i + 1 < len(blocks) else 0.0
    small = [int(np.sign(c)) for c in (before, after) if 0 < abs(c) < np.log(JUMP)]
    between = len(small) == 2 and small[0] == small[1]
    if between or (small and block.last - block.first + 1 <= SHORT):
        return small[0]
    return STILL
