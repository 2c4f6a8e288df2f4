"""Certificates: which clocks can be reproduced in every bit, from one checkpoint to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smd_analyze.clocks.measuring import Measured, Steps
from smd_analyze.clocks.replaying import ROUNDS, Replay, cost, replay_factor, replay_product
from smd_analyze.clocks.rule import Claimed
from smd_analyze.records.finding import Finding

BUDGET = 6.0  # seconds for all replays of a run
MOST_STEPS = 200_000  # of one interval
FEWEST_STEPS = 10  # with fewer, hardly an element remembers the number of steps
FEWEST_CHANGED = 8  # elements that must have changed: a vector that did not move is reproduced by doing nothing
PATIENCE = 3  # intervals in which every form is tried; then, or once one fits, a single form
TELLING = 5e-7  # ηλ below which the bits do not tell one kernel from another
CHANCE = 0.5  # share of elements that another factor or number of steps may leave equal, for bits alone to prove it
SURE = 6.0  # standard deviations around the measured rate in which the factor is sought

Certificates = dict[tuple[int, int], Replay]
"""(number of the clock, number of the interval) → how it was reproduced."""


@dataclass(frozen=True)
class Certified:
    """What was reproduced, out of how many intervals that were `tried`; `left`: not tried, for want of time."""

    replays: Certificates
    tried: int
    left: int


def certify(clocks: Sequence[Claimed], steps: Steps) -> Certified:
    """Replay every slice and vector in fp32, interval by interval, where the number of updates is known.

    An interval that is not reproduced says nothing: the learning rate moved, or decay goes through the gradient. One
    form is enough for a run: that which first reproduces an interval is tried first from then on.
    """
    found: Certificates = {}
    tried = left = 0
    spent = 0.0
    if not steps.counted:
        return Certified(found, 0, 0)
    updates = steps.most  # of a recorded step
    forms = ["factor", "fused", "product"]
    for number, clock in enumerate(clocks):
        m = clock.measured
        if not clock.moving or m.candidate.kind == "sum" or m.candidate.dtype not in ("float32", "float64"):
            continue
        guess = _guess(clock)
        failures = 0
        for i in np.flatnonzero(m.present & np.isfinite(m.fall) & (m.length * updates <= MOST_STEPS)).tolist():
            k = int(m.length[i] * updates)
            price = cost(k, m.candidate.values.shape[1])
            if spent + price > BUDGET:
                left += 1
                continue
            if k < FEWEST_STEPS or _changed(m, i) < FEWEST_CHANGED or not _plausible(m, i, guess):
                continue
            tried += 1
            for form in forms[:1] if found or failures >= PATIENCE else forms:
                spent += price * (1 if form == "factor" else ROUNDS)
                replay = _replay(m, i, k, form)
                if replay is not None:
                    found[number, i] = replay
                    forms = [form, *(f for f in forms if f != form)]
                    break
            else:
                failures += 1
    return Certified(found, tried, left)


def proved(clocks: Sequence[Claimed], steps: Steps) -> list[Claimed]:
    """Those that decoupled decay reproduces in every bit: with two checkpoints that is as good as another tensor."""
    named = [c for c in clocks if not c.measured.alike]
    replays = certify(named, steps).replays
    sure = {number for (number, _), r in replays.items() if r.form == "factor" and r.else_equal < CHANCE}
    return [named[number] for number in sorted(sure)]


def _guess(clock: Claimed) -> float:
    rates = clock.measured.rate[clock.where]
    return float(np.median(rates)) if rates.size else 0.0


def _changed(m: Measured, i: int) -> int:
    v = m.candidate.values
    return int((v[m.first[i]] != v[m.last[i]]).sum())


def _plausible(m: Measured, i: int, guess: float) -> bool:
    """Whether the vector kept its direction well enough in an interval to be worth a replay."""
    return bool(m.holds[i] or (guess > 0 and m.fall[i] > 0 and m.turn[i] < 1e-6))


def _replay(m: Measured, i: int, k: int, form: str) -> Replay | None:
    start, end = m.candidate.values[m.first[i]], m.candidate.values[m.last[i]]
    if (np.float32(start) != start).any() or (np.float32(end) != end).any():
        return None  # trained in more than fp32
    updates = k / m.length[i]
    rate, error = float(m.rate[i] / updates), SURE * float(m.error[i] / updates)
    if form == "factor":
        return replay_factor(start, end, k, rate, error)
    return replay_product(start, end, k, rate, error, "fused" if form == "fused" else "product")


def words(replay: Replay) -> str:
    """The certificate in one sentence."""
    how = {
        "factor": "weights times fp32(1 − ηλ)",
        "fused": "weights minus ηλ times weights, rounded once",
        "product": "weights minus fp32(ηλ times weights)",
    }[replay.form]
    return (
        f"reproduced in every bit over {replay.steps:,} steps with ηλ = {replay.decay:.6g} ({how}; one step more or "
        f"fewer, or the next ηλ, leaves at most {replay.else_equal:.0%} of the elements equal)"
    )


def _kind(replay: Replay) -> str:
    """The factor shows that decay is decoupled; w − ηλ·w is what SGD does, too, and a settled heavy ball nearly so.

    A decay of a few ulps rounds to the same bits in every kernel, whatever the optimizer: it tells only its size.
    """
    return "decoupled decay" if replay.form == "factor" and replay.decay >= TELLING else "decay"


def notes(clocks: Sequence[Claimed], certified: Certified) -> list[Finding]:
    """One finding per tensor whose clocks were reproduced, and one where time ran out."""
    out: list[Finding] = []
    tensors: dict[str, list[tuple[str, Replay]]] = {}
    for (number, _), replay in certified.replays.items():
        c = clocks[number].measured.candidate
        tensors.setdefault(c.parameter, []).append((c.functional, replay))
    for name, replays in tensors.items():
        parts = list(dict.fromkeys(functional for functional, _ in replays))
        longest = max((r for _, r in replays), key=lambda r: r.steps)
        total = f"; {len(replays)} vectors and intervals in all" if len(replays) > 1 else ""
        shown = ", ".join(parts[:4]) + (", …" if len(parts) > 4 else "")
        out.append(Finding("decay-replayed", "note", name, f"{shown}: {_kind(longest)} {words(longest)}{total}"))
    if certified.left:
        text = f"{certified.left} intervals of decay clocks were not replayed bit by bit: it would take too long"
        out.append(Finding("replay-left-out", "note", "decay clocks", text, "analyse fewer steps with --steps A:B"))
    return out
