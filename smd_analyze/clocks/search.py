"""From candidates to clocks: the whole search on one page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from smd_analyze.clocks import certifying, explaining, lineage, table
from smd_analyze.clocks.differing import differences
from smd_analyze.clocks.measuring import Steps, measure
from smd_analyze.clocks.none_found import why_none
from smd_analyze.clocks.rule import judge
from smd_analyze.records.clocks import Candidates, Clocks
from smd_analyze.records.group import Translation

OPTIMIZER_STEPS = "optimizer steps"


def find_clocks(
    candidates: Candidates,
    steps: Sequence[int],
    step_unit: str = OPTIMIZER_STEPS,
    parameter_group: Mapping[str, str] | None = None,
    translations: Sequence[Translation] = (),
    in_graph: Sequence[str] = (),
    dtypes: Collection[str] = (),
) -> Clocks:
    """Decay clocks among the candidates, with the rate of each in every interval, and what they say about the run.

    Args:
        candidates: directions that the pass over the bytes found to be worth a look, at every checkpoint.
        steps: [T] of the checkpoints, in `step_unit`. If that is not "optimizer steps", a recorded step may be any
            number of updates from 100 to 10,000: intervals are as wide as that asks for.
        parameter_group: of each parameter, where the files tell.
        translations: sums that feel no gradient, by the network's graph; `in_graph`: parameters that are in it.
        dtypes: types in which the weights are saved.

    A direction without gradient proves itself: its length shrinks while it keeps its direction to within rounding
    (Kunin et al. 2021, arXiv:2012.04728, for the symmetry). No hyperparameter enters.
    """
    ticks = Steps.of(steps, step_unit)
    used = np.arange(len(steps))
    measured = [measure(c, ticks, used) for c in candidates.found] if len(steps) > 1 else []
    judged = judge(measured)
    foreign = lineage.strangers(judged.clocks, len(steps))
    if foreign:
        used = np.setdiff1d(used, foreign)
        measured = [measure(c, ticks, used) for c in candidates.found]
        judged = judge(measured)
    clocks = judged.clocks
    certified = certifying.certify(clocks, ticks)
    reasons = explaining.reasons(clocks, translations)
    rows = table.rows(clocks, certified.replays, reasons, ticks)
    found = (
        *candidates.findings,
        *lineage.about(clocks, ticks, foreign),
        *differences(clocks, judged.odd, ticks, parameter_group or {}),
        *table.without_decay(rows),
        *explaining.contradictions(clocks, measured, translations, dict.fromkeys(in_graph, True)),
        *certifying.notes(clocks, certified),
    )
    none = "" if rows else why_none(candidates, measured, len(steps), dtypes)
    return Clocks(table.frame([*rows, *table.constant_rows(judged, ticks)]), found, candidates.looked_at, none)
