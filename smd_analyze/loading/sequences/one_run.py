"""Are all members of a sequence of one run? The others are left out, or at least named, by what their weights say."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from smd_analyze.loading.files.findings import some
from smd_analyze.loading.sequences.mixtures import MOST, angles_between, separate
from smd_analyze.loading.sequences.probing import Alike, elements, probed, strangers, thinned, too_large, unit
from smd_analyze.records.finding import Finding

LEFT = "They are left out (another run, or damaged). Put each run into a folder of its own."
NEAR = 1.0  # rad: where all other neighbours are nearer than this, one gap at a right angle stands out
LONG = 2  # times the usual number of steps between checkpoints


def of_one_run(
    ordered: Sequence[Alike], steps: Sequence[int], suspects: Collection[int] = ()
) -> tuple[list[int], list[Finding]]:
    """Indices of the checkpoints of the main run, and findings if others are mixed with it.

    `steps` are theirs; `suspects` are those whose steps do not fit their names. Checkpoints that lie through each other
    in time are told apart by the angles alone; a run that stands before or after another one only if something else
    speaks for it: files older than those before them, or steps that do not fit.
    """
    everything = list(range(len(ordered)))
    if len(ordered) < 3 or too_large(ordered[0]):  # nothing can lie between others: no tensor is read
        return everything, []
    names = probed(ordered[0])
    shapes = [ordered[0].parameters[n].shape for n in names]
    usual = [i for i, o in enumerate(ordered) if shapes == [o.parameters[n].shape for n in names if n in o.parameters]]
    directions = [[thinned(unit(elements(ordered[i], n))) for n in names] for i in usual[:MOST]]
    parts = separate(directions)
    if len(parts) > 1:
        strange = [usual[i] for part in parts[1:] for i in part]
        return without(strange, ordered, len(parts), len(usual) > MOST)
    if len(usual) > MOST or len(usual) < 3:
        return everything, []
    gaps = np.diagonal(angles_between(directions), 1)
    far = [k for k, gap in enumerate(gaps) if gap > NEAR]
    if len(far) != 1 or not strangers(ordered[usual[far[0]]], ordered[usual[far[0] + 1]]):
        return everything, []
    passed = np.diff([steps[i] for i in usual])
    long = passed[far[0]] > LONG * np.median(passed)
    return one_after_the_other(ordered, usual[: far[0] + 1], usual[far[0] + 1 :], suspects, bool(long))


def without(
    strange: Sequence[int], ordered: Sequence[Alike], parts: int, too_many: bool
) -> tuple[list[int], list[Finding]]:
    """The sequence without checkpoints of other runs, unless there are too many to look at all."""
    listed = some(ordered[i].name for i in strange)
    words = f"{parts} runs seem to be mixed: far from their neighbours, which are near each other, are {listed}"
    where = ordered[strange[0]].path
    if too_many:
        remedy = "Put each run into a folder of its own; all numbers here are of the mixture."
        return list(range(len(ordered))), [Finding("mixed-runs", "error", where, words, remedy)]
    kept = [i for i in range(len(ordered)) if i not in set(strange)]
    return kept, [Finding("mixed-runs", "warning", where, words, LEFT)]


def one_after_the_other(
    ordered: Sequence[Alike], before: Sequence[int], after: Sequence[int], suspects: Collection[int], long: bool
) -> tuple[list[int], list[Finding]]:
    """Two parts of a sequence of which the second has nothing of the first's direction left: are they two runs?

    Forgetting is no proof: a high learning rate with decay does that. So the part is left out only if its files are
    older than those that stand before them (another run wrote over the folder), or if its steps do not fit.
    """
    everything = list(range(len(ordered)))
    odd = suspects_among(suspects, before, after)
    stale = newest(ordered, after) < oldest(ordered, before)
    where = ordered[after[0]]
    words = f"nothing of the weights' direction is left between {ordered[before[-1]].name} and {where.name}, all others are near"  # noqa: E501
    if odd:
        words = f"{words}, and the steps of {', '.join(ordered[i].name for i in odd[:3])} do not fit: of another run"
        kept = [i for i in everything if i not in set(odd)]
        return kept, [Finding("mixed-runs", "warning", ordered[odd[0]].path, words, LEFT)]
    if stale:
        fewer = min(after, before, key=len)
        words = f"{words}, and the files from {where.name} on are older than those before: another run wrote over the folder"  # noqa: E501
        kept = [i for i in everything if i not in set(fewer)]
        return kept, [Finding("mixed-runs", "warning", ordered[fewer[0]].path, words, LEFT)]
    if len(before) == 1 or long:  # after the start, and over many steps, much may be forgotten
        return everything, []
    remedy = "Are these two runs? Then analyse each by itself, e.g. with --steps A:B."
    return everything, [Finding("run-changes", "warning", where.path, words, remedy)]


def suspects_among(suspects: Collection[int], before: Sequence[int], after: Sequence[int]) -> list[int]:
    """The smaller side of the gap, if it is just those whose steps do not fit."""
    return next((list(side) for side in (before, after) if set(side) == set(suspects)), [])


def newest(ordered: Sequence[Alike], some: Sequence[int]) -> int:
    """The latest time at which one of the files was written."""
    return max(f.mtime_ns for i in some for f in ordered[i].files)


def oldest(ordered: Sequence[Alike], some: Sequence[int]) -> int:
    """The earliest such time."""
    return min(f.mtime_ns for i in some for f in ordered[i].files)
