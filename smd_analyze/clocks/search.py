"""From candidates to clocks: the whole search on one page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from smd_analyze.clocks import certifying, counting, explaining, grids, lineage, ordering, table
from smd_analyze.clocks.differing import differences
from smd_analyze.clocks.measuring import OPTIMIZER_STEPS, Measured, Steps, measure
from smd_analyze.clocks.none_found import why_none
from smd_analyze.clocks.rule import Judged, judge
from smd_analyze.records.clocks import Candidates, Clocks
from smd_analyze.records.finding import Finding
from smd_analyze.records.group import Translation


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
    found = grids.true_types(candidates.found)
    grid = " and ".join(sorted({c.dtype for c in found} - {c.dtype for c in candidates.found}))
    candidates = replace(candidates, found=found)
    measured, judged = _judged(candidates, ticks)
    foreign = lineage.strangers(judged.clocks, len(steps))
    if foreign:
        measured, judged = _judged(candidates, ticks, foreign)
    told_count: list[Finding] = []
    broken = lineage.about(judged.clocks, ticks, foreign)
    order = ordering.order(judged.clocks, measured, ticks)
    if order.doubtful:  # their steps are wrong, and with them every rate beside them
        measured, judged = _judged(candidates, ticks, [*foreign, *order.doubtful])
    if not ticks.known:  # few updates are assumed: what the bits prove needs no room for roundings
        _, few = _judged(candidates, replace(ticks, most=ticks.least), [*foreign, *order.doubtful])
        ticks, told_count = counting.counted(few.clocks, ticks)
        if told_count:
            measured, judged = _judged(candidates, ticks, [*foreign, *order.doubtful])
    clocks = judged.clocks
    certified = certifying.certify(clocks, ticks)
    reasons = explaining.reasons(clocks, translations)
    rows = table.rows(clocks, certified.replays, reasons, ticks)
    told = (
        *candidates.findings,
        *broken,
        *order.findings,
        *told_count,
        *differences(clocks, judged.odd, ticks, parameter_group or {}),
        *table.without_decay(rows, ticks),
        *explaining.contradictions(clocks, measured, translations, dict.fromkeys(in_graph, True)),
        *certifying.notes(clocks, certified),
    )
    backwards = "what feels no gradient grows from checkpoint to checkpoint: the order looks reversed"
    reverse = any(f.code == ordering.REVERSED for f in order.findings)
    none = "" if rows else backwards if reverse else why_none(
        candidates, measured, [c.name for c in judged.lone], len(steps), dtypes, grid
    )  # fmt: skip
    return Clocks(table.frame([*rows, *table.constant_rows(judged, ticks)]), told, candidates.looked_at, none)


def _judged(candidates: Candidates, steps: Steps, without: Sequence[int] = ()) -> tuple[list[Measured], Judged]:
    """The candidates compared from checkpoint to checkpoint, and what is a clock of them."""
    used = np.setdiff1d(np.arange(len(steps.numbers)), without)
    measured = measure(candidates.found, steps, used) if len(used) > 1 else []
    judged = judge(measured)
    proved = certifying.proved(judged.lone, steps) if judged.lone else []
    return measured, judge(measured, proved) if proved else judged
