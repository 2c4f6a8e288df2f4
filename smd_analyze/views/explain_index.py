"""The equilibrium index of one layer worked out anew: blocks of intervals, median over the units."""

from __future__ import annotations

import re

from smd_analyze.views.explain_facts import Facts, Row
from smd_analyze.views.explain_laws import law_of
from smd_analyze.views.text import number

SPACING = 10
"""Optimizer steps × (1 − α) that a block spans at least."""


def index_of_units(f: Facts, row: Row) -> tuple[tuple[str, ...], float | None]:
    """EI = ln(n₂/n₁)/(2Σxₑ): median over the units of every block, mean over blocks weighted by their decay."""
    form = "EI = ln(n₂/n₁)/(2Σxₑ) of every block, n = ‖w‖², median over the units"
    told = re.search(r"norms of (\d+) intervals from step (\d+)", str(row["method"]))
    law, series = law_of(f.row, f.decay), f.series
    if told is None or isinstance(law, str) or series is None:
        return (form,), None
    import numpy as np  # heavy

    steps = [int(s) for s in series.steps]
    here = [i for i in range(len(steps)) if np.isfinite(series.vv[i]).any()]
    memory = float(f.row["beta2"]) if law.name == "Lion" else law.a
    shortest, span, edges = SPACING * round(1 / (1 - memory), 9), 0.0, [here[-1]]
    for i in range(here[-1] - 1, -1, -1):
        span += f.updates(f.between(steps[i], steps[i + 1])) or steps[i + 1] - steps[i]
        if span >= shortest and i in here:
            edges.append(i)
            span = 0.0
    edges = [i for i in edges[::-1] if steps[i] >= int(told[2])]
    found = []
    for i, j in zip(edges, edges[1:], strict=False):
        rows = f.between(steps[i], steps[j])
        total = f.total(rows)
        if not total:
            return (form,), None
        damped = 1 - (rows[-1].get("dampening") or 0.0) if law.coupled else 1.0
        decay = total * law.gain * damped
        with np.errstate(divide="ignore", invalid="ignore"):
            growth = np.log(series.vv[j] / series.vv[i])
        found.append((decay, float(np.median(growth[np.isfinite(growth)])) / (2 * decay)))
    if len(found) != int(told[1]):
        return (form,), None
    whole = sum(decay for decay, _ in found)
    put = (
        f"{form}, mean over {len(found)} blocks of 10/(1−{'β₂' if law.name == 'Lion' else law.alpha}) steps or more "
        f"(weighted by Σxₑ, {number(whole)} in all), steps {steps[edges[0]]} to {steps[edges[-1]]}"
    )
    return (put,), sum(decay * value for decay, value in found) / whole
