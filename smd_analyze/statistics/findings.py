"""What the numbers say about the files: copies, tensors that never move, weights that are not finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from smd_analyze.records.finding import Finding
from smd_analyze.records.group import Group
from smd_analyze.records.run import Run
from smd_analyze.statistics.collecting import DD, FIRST_DD, VV, Totals

SHOWN = 3  # names before "and more"
MOST = 20  # findings of one kind


def about(run: Run, groups: Sequence[Group], totals: Totals) -> list[Finding]:
    """All findings of the pass, besides those of files that could not be read."""
    return [
        *_nonfinite(run, totals),
        *_unread(run, totals),
        *_emptied(run, groups, totals),
        *_copies(run, totals),
        *_frozen(run, totals),
    ]


def _nonfinite(run: Run, totals: Totals) -> list[Finding]:
    found: list[Finding] = []
    for t in sorted({t for _, t in totals.spoilt}):
        names = {name: count for (name, at), count in totals.spoilt.items() if at == t}
        shown = ", ".join(f"{name} ({count})" for name, count in list(names.items())[:SHOWN])
        more = f" and {len(names) - SHOWN} more tensors" if len(names) > SHOWN else ""
        text = f"NaN or infinite elements in {shown}{more}: their norms and angles are null"
        remedy = "The run diverged here, or the file is damaged; leave it out with --steps."
        found.append(Finding("nonfinite-weights", "error", run.checkpoints[t].path, text, remedy))
    return _few(found)


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
    found: list[Finding] = []
    for begin, end in _stretches(np.flatnonzero(same)):
        first, last = run.checkpoints[begin].path, run.checkpoints[end].path
        text = f"every analysed weight equals that of {first}"
        if end - begin > 1:
            text = f"{end - begin + 1} checkpoints in a row, from {first} on, hold the same weights"
        remedy = "Leave copies out, or mend the steps: no training happened between them."
        found.append(Finding("duplicate-checkpoint", "warning", last, text, remedy))
    return _few([*found, *_far_copies(run, totals)])


def _far_copies(run: Run, totals: Totals) -> list[Finding]:
    """Checkpoints whose analysed weights are all those of an earlier one, and others lie between.

    Equal squared norms and distances from the first, bit by bit, of every group: equal bytes are added up alike.
    """
    sizes = totals.sums[:, (VV, FIRST_DD)].reshape(-1, totals.sums.shape[2])
    known: dict[bytes, int] = {}
    found: list[Finding] = []
    for t in np.flatnonzero(np.isfinite(sizes).all(axis=0) & (sizes > 0).any(axis=0)):
        like = known.get(sizes[:, t].tobytes())
        known[sizes[:, t].tobytes()] = int(t)
        if like is not None and t - like > 1:
            text = f"every analysed weight equals that of {run.checkpoints[like].path}, and others lie between"
            remedy = "A copy under another name, or out of order: leave it out with --steps, or mend the steps."
            found.append(Finding("duplicate-checkpoint", "warning", run.checkpoints[t].path, text, remedy))
    return found


def _stretches(same: np.ndarray) -> list[tuple[int, int]]:
    """(first, last) checkpoint of every run of equal ones; `same` holds t where t and t+1 are equal."""
    parts = np.split(same, np.flatnonzero(np.diff(same) > 1) + 1) if same.size else []
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]


def _few(found: list[Finding]) -> list[Finding]:
    """At most MOST of a kind; the last of them says how many more there are."""
    if len(found) <= MOST:
        return found
    more = f" (and {len(found) - MOST} more like this, not listed)"
    return [*found[: MOST - 1], replace(found[MOST - 1], message=found[MOST - 1].message + more)]


def _emptied(run: Run, groups: Sequence[Group], totals: Totals) -> list[Finding]:
    """Weights that are exactly zero at a checkpoint and were not before: pruned, or a file half written."""
    found: list[Finding] = []
    for t in np.flatnonzero(totals.emptied.any(axis=0)):
        hit = np.flatnonzero(totals.emptied[:, t])
        shown = ", ".join(f"{groups[g].name} ({totals.emptied[g, t]} of {groups[g].units} units)" for g in hit[:SHOWN])
        more = f" and {len(hit) - SHOWN} more" if len(hit) > SHOWN else ""
        when = "and are not at the checkpoint before" if t else "and are not later"
        text = f"all elements are exactly zero in {shown}{more}, {when}"
        remedy = "If nothing was pruned or begins at zero, the file is damaged: leave it out with --steps."
        found.append(Finding("zero-weights", "warning" if t else "note", run.checkpoints[t].path, text, remedy))
    return _few(found)


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
