"""What the numbers say about the files: copies, tensors that never move, weights that are not finite."""

from __future__ import annotations

import numpy as np

from smd_analyze.records.finding import Finding
from smd_analyze.records.run import Run
from smd_analyze.statistics.collecting import DD, Totals

SHOWN = 3  # names before "and more"


def about(run: Run, totals: Totals) -> list[Finding]:
    """All findings of the pass, besides those of files that could not be read."""
    return [*_nonfinite(run, totals), *_unread(run, totals), *_copies(run, totals), *_frozen(run, totals)]


def _nonfinite(run: Run, totals: Totals) -> list[Finding]:
    found: list[Finding] = []
    for t in sorted({t for _, t in totals.spoilt}):
        names = {name: count for (name, at), count in totals.spoilt.items() if at == t}
        shown = ", ".join(f"{name} ({count})" for name, count in list(names.items())[:SHOWN])
        more = f" and {len(names) - SHOWN} more tensors" if len(names) > SHOWN else ""
        text = f"NaN or infinite elements in {shown}{more}: their norms and angles are null"
        remedy = "The run diverged here, or the file is damaged; leave it out with --steps."
        found.append(Finding("nonfinite-weights", "error", run.checkpoints[t].path, text, remedy))
    return found


def _unread(run: Run, totals: Totals) -> list[Finding]:
    return [
        Finding("unreadable-tensor", "error", f"{run.checkpoints[t].path}: {name}", message, "Save it again.")
        for (name, t), message in totals.problems.items()
    ]


def _copies(run: Run, totals: Totals) -> list[Finding]:
    """Consecutive checkpoints whose analysed weights are all the same."""
    steps = totals.sums[:, DD, 1:]
    known = np.isfinite(steps)
    same = (known.any(axis=0)) & np.all((steps == 0) | ~known, axis=0)
    return [
        Finding(
            "duplicate-checkpoint",
            "warning",
            run.checkpoints[t + 1].path,
            f"every analysed weight equals that of {run.checkpoints[t].path}",
            "Leave one of the two out, or mend the step: no training happened between them.",
        )
        for t in np.flatnonzero(same)
    ]


def _frozen(run: Run, totals: Totals) -> list[Finding]:
    """Tensors that never change while others do."""
    still = [name for name, unchanged in totals.still.items() if unchanged]
    if len(run.checkpoints) < 2 or not still or len(still) == len(totals.still):
        return []
    text = "the same in every checkpoint while other weights move: not trained"
    if len(still) > SHOWN:
        names = ", ".join(still[:SHOWN])
        return [Finding("frozen", "note", still[0], f"{len(still)} tensors are {text} ({names}, …)")]
    return [Finding("frozen", "note", name, f"is {text}") for name in still]
