"""Why a clock and the files may differ: what their ratio is near to, and how it changes over the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from smd_analyze.schedule.clock_readings import Floats

NEAR = 0.02  # relative: a ratio this near to a known one suggests its cause
MOST_STEPS = 64  # optimizer steps in one recorded step that are thought of
MOMENTA = (0.0, 0.5, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995)
DOUBLED = "as if decay were applied twice, by the optimizer and once more"
STEADY = 0.03  # scatter of the ratio over the intervals up to which it is one number


def likely_cause(ratio: float, row: Mapping[str, Any]) -> str:
    """What a constant ratio of the clock's Σηλ to the files' is near to, in words; "" if nothing known.

    `row` is a row of the schedule: momentum, learning rate and whether decay is decoupled.
    """
    if abs(ratio) < NEAR:
        return "no decay acted on this tensor: it may be exempt, or in a parameter group of its own"
    momentum, rate = row.get("momentum") or 0.0, row.get("learning_rate_first") or 0.0
    known: list[tuple[float, str]] = []
    if not momentum and row.get("optimizer") == "sgd":
        known += [(1 / (1 - a), f"as under momentum {a:g}, which is not what was said") for a in MOMENTA[1:]]
    if momentum and row.get("optimizer") == "sgd":
        known += [(1 - momentum, "as if decay did not pass through the momentum (SGDW instead of SGD with L2)")]
    if momentum and row.get("decoupled"):
        known += [(1 / (1 - momentum), "as if decay passed through the momentum (SGD with L2 instead of SGDW)")]
    known += [
        (2.0, DOUBLED if row.get("decoupled") else "an L2 term λ‖w‖² in the loss acts as a weight decay of 2λ"),
        (0.5, "half of what was set acts, as for an L2 term (λ/4)‖w‖², or two recorded steps an update"),
    ]
    if 0 < rate < 1:
        known += [(1 / rate, "as if decay were not multiplied by the learning rate")]
    for value, words in known:
        if abs(ratio / value - 1) < NEAR:
            return words
    for n in range(3, MOST_STEPS + 1):
        if abs(ratio * n - 1) < min(NEAR, 0.3 / n):
            return f"as if an update were made in one of {n} recorded steps (gradient accumulation?)"
        if abs(ratio / n - 1) < min(NEAR, 0.3 / n):
            return f"as if each recorded step were {n} updates"
    return ""


def one_ratio(clock: Floats, files: Floats) -> float | None:
    """The clock's Σηλ over the files', if it is one number in all intervals; None otherwise."""
    known = np.isfinite(clock) & (files > 0)
    if not known.any():
        return None
    ratios = clock[known] / files[known]
    middle = float(np.median(ratios))
    if len(ratios) > 1 and np.percentile(np.abs(ratios - middle), 90) > STEADY * abs(middle):
        return None
    return middle


def implied_momentum(total: Floats, files: Floats) -> float | None:
    """The usual momentum α that makes the files' Σηλ what a clock lost: 1−α = Σηλ/total; None if there is none.

    To leading order in the rate, so that only values in use are told, and only if all intervals tell the same one.
    """
    ratio = one_ratio(files, total)
    near = [a for a in MOMENTA if ratio is not None and abs(ratio / (1 - a) - 1) < NEAR]
    return near[0] if near else None


def stale_since(clock: Floats, files: Floats, differs: np.ndarray, updates: Floats) -> int | None:
    """Interval from which on the clock goes on as before although the files' ηλ changed; None if there is none.

    Before it clock and files agree, in two intervals or more; from it on they differ, in two or more, and the clock's
    ηλ per update is still the last one that agreed, as after a resume that restored an old learning rate or decay.
    """
    place = np.flatnonzero(np.isfinite(clock) & (files > 0))
    if len(place) < 4 or not differs[place].any():
        return None
    n = int(np.argmax(differs[place]))
    if n < 2 or len(place) - n < 2 or not differs[place[n:]].all():
        return None
    per = clock / np.where(np.isfinite(updates), updates, 1.0)
    return int(place[n]) if (np.abs(per[place[n:]] / per[place[n - 1]] - 1) < NEAR).all() else None


def in_words(flags: Sequence[bool], steps: Sequence[int]) -> str:
    """`steps 0 to 300`, or `3 of 9 intervals, steps 100 to 400`."""
    where = [i for i, flag in enumerate(flags) if flag]
    span = f"steps {steps[where[0]]} to {steps[where[-1] + 1]}"
    whole = where[-1] - where[0] + 1 == len(where)
    return span if whole else f"{len(where)} of {len(flags)} intervals, {span}"
