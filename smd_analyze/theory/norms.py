"""The angle per step that the norms imply: an identity of their slope, the decay and (Lion, Muon) the learning rate."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

import numpy as np

from smd_analyze.records.group import Group
from smd_analyze.records.statistics import UnitSeries
from smd_analyze.theory import sgd
from smd_analyze.theory.angle_rows import Row, scatter
from smd_analyze.theory.autoregression import Floats
from smd_analyze.theory.course import Course
from smd_analyze.theory.laws import Law
from smd_analyze.theory.of_group import INVARIANT, standing
from smd_analyze.theory.rounding import BELOW, noise_of_growth
from smd_analyze.theory.softening import NAMED, Softening

SHORTEST, SETTLED = 5, 10  # in momentum times 1/(1−α): least spacing for `norms`, and the memory of a change
TRANSIENT = ("learning rate changed within", "begins within")  # how notes on what the momentum remembers begin
MARGIN = 2.0  # on the error that the momentum's memory makes, which is an estimate itself
SINGLE, SLOW = 1.0, 0.12  # CV of a layer's θ² from gradient to gradient, and over longer than the momentum's memory
SAMPLES = 16  # points of an interval at which a norm that moves is looked at
HIDDEN = 0.5  # of θ² that rounding may make up; beyond, the angle is below resolution
NOTABLE = 0.05  # change of ln η per SETTLED momentum times that is worth a note


def implied_rows(
    group: Group, series: UnitSeries, course: Course, softening: Softening | None = None, types: Iterable[str] = ()
) -> list[Row]:
    """Rows of method `norms`, short intervals merged.

    `softening`: what a batch normalization's ε may add. `types`: in which checkpoints hold the weights.
    """
    rows, all_found = [], {}
    for start, stop in _merged(series, course):
        law = course.laws[stop]
        alive = (series.vv[start] > 0) & (series.vv[stop] > 0)
        if not isinstance(law, str) and alive.any():
            all_found[start, stop] = law, _implied(group, series, course, law, start, stop, alive)
    ending = {stop: float(found.squares.mean()) for (_, stop), (_, found) in all_found.items()}
    beginning = {start: float(found.squares.mean()) for (start, _), (_, found) in all_found.items()}
    for (start, stop), (law, found) in all_found.items():
        square, k = ending[stop], _length(course, start, stop)
        notes, memory = _notes(group, law, course, start, stop, found), found.memory
        if any(note.startswith(TRANSIENT) for note in notes):
            memory += _memory_error(course, start, stop, square, ending.get(start, 0.0)) / k
        elif found.from_slope and not found.remembered:
            sides = [abs(other - square) for other in (ending.get(start), beginning.get(stop)) if other is not None]
            memory += _held(float(course.momentum[stop]), max(sides, default=0.0)) / k
        angle, low, high = np.nan, np.nan, np.nan
        rounding = noise_of_growth(types, group.numel) * float(law.angle_share(float(course.momentum[stop]))) / k
        if not series.dd[start + 1 : stop + 1].any():
            notes.append("the weights do not move")
        elif found.from_slope and rounding > HIDDEN * abs(square):
            notes.append(f"{BELOW}: the norm moves by less than the saved weights' rounding")
        elif square >= 0:
            angle = sqrt(square)
            noise, down, up = scatter(found.squares), *found.width
            if law.universal and group.status in INVARIANT and np.isfinite([noise, down + up]).any():
                noise, down, up = (0.0 if np.isnan(v) else v for v in (noise, down, up))
                if found.from_slope:
                    noise = sqrt(noise**2 + rounding**2)
                if found.from_slope and not found.remembered:
                    noise = sqrt(noise**2 + (_end_noise(float(course.momentum[stop])) * square / k) ** 2)
                least, most = _softened(softening, law, course, start, stop)
                if max(-least, most) > NAMED * square and softening is not None:
                    notes.append(_soft_words(softening, least / square, most / square))
                ends = (least - sqrt(down**2 + noise**2) - memory, most + sqrt(up**2 + noise**2) + memory)
                low, high = (sqrt(max(square + v, 0.0)) for v in ends)
        else:
            notes.append(
                "norms fall faster than this weight decay can explain" if found.from_slope else
                "the norm moves by more than this learning rate allows"
            )  # fmt: skip
        first, last = int(course.steps[start]), int(course.steps[stop])
        rows.append(Row(first, last, "norms", int(k), angle, low, high, False, "; ".join(notes)))
    return rows


@dataclass(frozen=True)
class Implied:
    """θ² per unit [rad²/step²]; what the ends of Σηλ and the momentum's memory add to its mean; how it was found."""

    squares: Floats
    width: tuple[float, float]
    memory: float
    from_slope: bool
    remembered: bool


def _implied(
    group: Group, series: UnitSeries, course: Course, law: Law, start: int, stop: int, alive: np.ndarray
) -> Implied:
    r"""θ₁² of the units between two checkpoints k steps apart.

    Where the update's size does not depend on the gradients (Lion, nearly Muon): $\eta^2\lVert u\rVert^2/n -
    (x + \tfrac12 d\ln n/dt)^2$. Else $\zeta(2\bar x_e + \ln(n_2/n_1)/k) + m^2
    + \frac{2\alpha}{1+\alpha}\big(mx + \theta_1^2(m+x+\theta_1^2)\big)$, where m = (ln(n₂/n₁)/k − θ₁²)/2 is the radial
    part of a step and x counts where decay is decoupled only; and with saved momentum at both ends what that adds:
    $\frac{2\alpha}{(1+\alpha)k}\big(b_2/n_2 - b_1/n_1\big),\ b = -\eta\langle w, v\rangle$.
    Source: θ² = ln(n'/n) − 2 ln(1+m) and b' = αb − xn + c' (theory/sgd.py, angle_share), summed over the row.
    """
    inside, k, a = slice(start + 1, stop + 1), _length(course, start, stop), float(course.momentum[stop])
    total = float(course.decay[inside].sum())
    ends = [float(v[inside].sum() - total) for v in (course.decay_low, course.decay_high)]
    growth = np.log(series.vv[stop, alive] / series.vv[start, alive])
    if np.isfinite(law.squared_update) and course.rate_known and np.isfinite(course.lengths[inside]).all():
        each = law.squared_update * group.numel / series.vv.shape[1]
        parts = [_from_update(series.vv[i - 1 : i + 1, alive], course, i, each) for i in range(start + 1, stop + 1)]
        squares = np.sum(parts, axis=0) / k
        # θ² goes as η², which is as uncertain as Σηλ
        relative = [2 * v / total * float(squares.mean()) if total > 0 else np.nan for v in ends]
        # how n moves between its ends is known roughly while it moves, and least while the momentum of a run builds up
        moved = np.abs(growth) + (0.0 if course.made[start] else 2 * total)
        curved = float(squares.mean()) * float((moved**2).mean()) / (4 if course.made[start] else 2)
        return Implied(squares, (relative[0], relative[1]), curved, False, False)
    gain, share = float(law.amplification(a)), float(law.angle_share(a))
    squares, second = share * (2 * gain * total + growth) / k, np.zeros_like(growth)
    if law.universal:
        radial = (growth / k - squares) / 2
        outside = 0.0 if law.coupled else total / k
        past = radial * outside + squares * (radial + outside + squares)
        second = radial**2 + 2 * a / (1 + a) * past
        squares = squares + second
    held = _from_buffers(series, course, law, start, stop)
    if held is not None:
        squares = squares + held[alive] / k
    # the intervals of Σηλ may share one cause: they are added, not squared
    down, up = (2 * share * gain * v / k for v in ends)
    # while the norm moves, the identity holds to first order in the momentum number only
    memory = 2 * float(sgd.momentum_number(total / k, a)) * share * abs(float(growth.mean())) / k
    if course.made[start] < SETTLED * _memory(course, stop):
        memory += MARGIN * float(np.abs(second).mean())  # the first steps are much larger than their mean
    return Implied(squares, (down, up), memory, True, held is not None)


def _from_update(vv: Floats, course: Course, i: int, squared_update: float) -> Floats:
    """Σθ² of interval i per unit, from norms² at both ends [2, units] and ‖u‖² of one unit.

    Between the ends n is taken to relax as it does in theory, n = A + B e^{−2Σx}.
    """
    rates, decays, counts = course.pieces(i)
    fine = max(1, round(SAMPLES / len(rates)))
    rates, decays, counts = (np.repeat(v, fine)[:, None] for v in (rates, decays, counts / fine))
    passed = np.cumsum(2 * decays * counts, axis=0)
    whole = float(passed[-1, 0])
    if whole > 1e-9:
        gone = passed - decays * counts
        share, speed = np.expm1(-gone) / np.expm1(-whole), -2 * decays * np.exp(-gone) / np.expm1(-whole)
    else:
        share, speed = (np.cumsum(counts, axis=0) - counts / 2) / counts.sum(), np.ones_like(counts) / counts.sum()
    n = vv[0] + (vv[1] - vv[0]) * share
    radial = decays + (vv[1] - vv[0]) * speed / n / 2
    return (counts * (rates**2 * squared_update / n - radial**2)).sum(axis=0)


def _from_buffers(series: UnitSeries, course: Course, law: Law, start: int, stop: int) -> Floats | None:
    """What the momentum at both ends adds to Σθ² [units]; None where it is not saved or η changes between them."""
    a, rates = float(course.momentum[stop]), course.raw_first[start + 1 : stop + 1]
    steady = not course.changes[start + 1 : stop + 1].any() and (rates == rates[0]).all()
    if series.wu is None or not law.universal or not 0 < a < 1 or not steady or not np.isfinite(rates[0]):
        return None
    if not course.buffered[stop] or not course.buffered[course.update_at(start)]:
        return None
    before = course.raw_last[course.update_at(start)] if course.in_velocity[stop] else rates[0]
    fresh = course.steps[start] == 0
    with np.errstate(invalid="ignore", divide="ignore"):
        first = 0.0 if fresh else -before * series.wu[start] / series.vv[start]
        change = -rates[0] * series.wu[stop] / series.vv[stop] - first
    alive = (series.vv[start] > 0) & (series.vv[stop] > 0)
    return 2 * a / (1 + a) * change if np.isfinite(change[alive]).all() else None


def _end_noise(a: float) -> float:
    r"""95 % of the noise that the momentum's memory at both ends of a row adds to Σθ², over the row's mean θ².

    $$ 1.96\sqrt2\,\frac{2\alpha}{1+\alpha}\sqrt{\frac{\mathrm{CV}^2}{1+\alpha^2}\,\frac{1+\alpha^3}{1-\alpha^3}
       + \Big(\frac{\alpha\,\sigma}{1-\alpha}\Big)^2} $$

    y (see `_memory_error`) is a moving average of θ² with weights α^j. θ² scatters by CV√((1−α²)/(1+α²)) from step to
    step, correlated as α^{2k}, and by σ more slowly. CV = SINGLE and σ = SLOW are what small networks show (standard
    deviation of the whole: 1.6 to 2.7 at α = 0.9, 17 to 25 at 0.99). A layer's units share their mini-batch: this does
    not shrink with their number.
    """
    white = SINGLE**2 / (1 + a * a) * (1 + a**3) / (1 - a**3)
    return 1.96 * sqrt(2) * 2 * a / (1 + a) * sqrt(white + (SLOW * a / (1 - a)) ** 2)


def _softened(softening: Softening | None, law: Law, course: Course, start: int, stop: int) -> tuple[float, float]:
    """What ε may add to the row's mean θ²: least and most."""
    if softening is None or law.power != 4:
        return 0.0, 0.0
    share = float(law.angle_share(float(course.momentum[stop])))
    inside, k = slice(start + 1, stop + 1), _length(course, start, stop)
    least, most = (2 * share * float(v[inside].sum()) / k for v in (softening.least, softening.most))
    return least if np.isfinite(least) else 0.0, most if np.isfinite(most) else 0.0


def _soft_words(softening: Softening, least: float, most: float) -> str:
    """What ε may do to θ², from its ends relative to θ²."""
    up, down = f"{most:.0%} larger", f"{min(-least, 1):.0%} smaller"
    ends = " or ".join(words for words, size in ((down, -least), (up, most)) if size > NAMED)
    return f"{softening.words} does not vanish beside the variance: θ² may be up to {ends}"


def _memory_error(course: Course, start: int, stop: int, square: float, before: float) -> float:
    r"""What a change of the momentum's memory may add to the row's Σθ² (the identity takes it as unchanged).

    $$ \frac{2\alpha}{1+\alpha}\,\Big|y_K - y_0\frac{\eta}{\eta_0}\Big|,\qquad y = \frac{\alpha}{1-\alpha}\theta^2 $$

    y is the part of ⟨w, step⟩/‖w‖² that past updates hold; `square` and `before` are θ² of the row and of the row
    before it (0 at the start of a run), η₀ the learning rate before the row (η where the velocity holds it). MARGIN
    allows for θ² within the row.
    Source: sum over the row of b' = αb − xn + c', n' = n + 2(b' − c') + c' (theory/sgd.py, angle_share).
    """
    a = float(course.momentum[stop])
    ratio = 1.0
    if start and course.rate_last[start] > 0 and not course.in_velocity[stop]:
        ratio = course.rate_first[start + 1] / course.rate_last[start]
    return _held(a, abs(square - before * (ratio if np.isfinite(ratio) else 1.0)))


def _held(a: float, change: float) -> float:
    """What the momentum's memory adds to Σθ² if θ² is different at both ends by `change` (see `_memory_error`)."""
    return MARGIN * 2 * a / (1 + a) * a / (1 - a) * change


def _length(course: Course, start: int, stop: int) -> float:
    """Optimizer steps between two checkpoints; recorded steps where those are unknown."""
    total = float(course.lengths[start + 1 : stop + 1].sum())
    return total if np.isfinite(total) else float(course.steps[stop] - course.steps[start])


def _memory(course: Course, i: int) -> float:
    """Momentum time 1/(1−α) of interval i [optimizer steps]; 0 where those cannot be counted."""
    return 1 / (1 - float(course.momentum[i])) if np.isfinite(course.lengths[i]) else 0.0


def _merged(series: UnitSeries, course: Course) -> list[tuple[int, int]]:
    """Pairs of checkpoints (start, stop) for the norms' slope, SHORTEST momentum times apart or more.

    Broken where the law, the momentum or the sums are unknown or change; a short rest joins the pair before it.
    """
    pairs: list[tuple[int, int]] = []
    complete = [bool(np.isfinite(row).all()) for row in series.vv]
    start, first_of_run = 0, True
    for i in range(1, len(course.steps)):
        usable = _usable(course, complete, i)
        same = i > 1 and course.laws[i] == course.laws[i - 1] and course.momentum[i] == course.momentum[i - 1]
        if not usable:
            start, first_of_run = i, True
            continue
        if not same:
            start, first_of_run = i - 1, True
        least = SHORTEST * _memory(course, i)
        ends = i + 1 == len(course.steps) or not _usable(course, complete, i + 1)
        ends = ends or course.laws[i + 1] != course.laws[i] or course.momentum[i + 1] != course.momentum[i]
        long_enough = _length(course, start, i) >= least
        if long_enough or (ends and first_of_run):
            pairs.append((start, i))
            start, first_of_run = i, False
        elif ends:
            pairs[-1] = (pairs[-1][0], i)
    return pairs


def _usable(course: Course, complete: list[bool], i: int) -> bool:
    """Whether interval i has a law, a known Σηλ and both norms."""
    return not course.trouble(i) and bool(np.isfinite(course.decay[i])) and complete[i - 1] and complete[i]


def _notes(group: Group, law: Law, course: Course, start: int, stop: int, found: Implied) -> list[str]:
    """What to keep in mind about a row of `norms`."""
    notes = [standing(group)] if standing(group) else []
    if not found.from_slope:
        size = "" if law.universal else ", ‖u‖² taken from white-noise gradients: 5 to 9 % low in small networks"
        notes.append(f"from learning rate and norm{size}")
    elif law.power == 2:
        notes.append("assumes zero-mean gradients: 5 to 20 % off in trained networks")
    elif law.nesterov:
        notes.append("assumes zero-mean gradients")
    if course.assumed[stop]:
        notes.append(course.assumed[stop])
    if np.isnan(course.lengths[stop]):
        notes.append("per recorded step, whose length in optimizer steps is unknown")
        return notes
    if found.remembered:
        notes.append("with the saved momentum at both ends")
        return notes
    if not found.from_slope:
        return notes
    memory = _memory(course, stop)
    reach = SETTLED * memory
    span = "10 steps" if memory == 1 else "10/(1−α) steps"
    if _length(course, start, stop) < SHORTEST * memory:
        notes.append("spacing under 5/(1−α) steps")
    if changed(course, start, stop, reach):
        notes.append(f"{TRANSIENT[0]} {span}")
    if course.made[start] < reach:
        notes.append(f"{TRANSIENT[1]} {span} of the first update")
    return notes


def changed(course: Course, start: int, stop: int, reach: float) -> bool:
    """Whether ln η moved by more than NOTABLE per `reach` steps in the row, or less than `reach` before it."""
    steps = course.made
    since = steps[start] - reach
    near = slice(1 + int(np.searchsorted(steps[1 : start + 1], since, side="right")), stop + 1)
    first, last = course.rate_first[near], course.rate_last[near]
    if course.uncertain[near].any():
        return True
    # inside an interval the place of a change is unknown: its end counts
    if (_log_ratio(first, last) * np.minimum(1.0, reach / course.lengths[near]) > NOTABLE).any():
        return True
    before = slice(near.start - 1, stop)
    jumps = _log_ratio(course.rate_last[before], first)
    return bool((jumps[steps[before] > since] > NOTABLE).any())


def old_velocity(course: Course, i: int) -> bool:
    """Whether interval i still feels a velocity made with another learning rate, which that form keeps."""
    memory = _memory(course, i)
    return bool(course.in_velocity[i]) and memory > 1 and changed(course, i - 1, i, SETTLED * memory)


def _log_ratio(one: Floats, other: Floats) -> Floats:
    """|ln(one/other)| elementwise, 0 where either is unknown or both are equal, infinite where one of them is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(np.log(one / other))
    return np.where(np.isnan(ratio), 0.0, ratio)
