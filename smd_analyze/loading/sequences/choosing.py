"""From checkpoints that were read to one run: which of them, in which order, at which step, and what is odd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smd_analyze.loading.sequences.aliases import sort_out
from smd_analyze.loading.sequences.grouping import pick_sequence, sequences_of
from smd_analyze.loading.sequences.one_run import of_one_run
from smd_analyze.loading.sequences.opened import Opened, alike, member_of
from smd_analyze.loading.sequences.steps import order
from smd_analyze.loading.sequences.trackers import tracked
from smd_analyze.records.finding import Finding


@dataclass(frozen=True)
class Chosen:
    """The members of the run in the order of training, their steps, and what the steps count.

    `runs` are all sequences of the tree, the chosen one first: name → number of checkpoints;
    `others` are the paths of the checkpoints of the others, as seen from the root.
    """

    members: tuple[Opened, ...]
    steps: tuple[int, ...]
    unit: str
    ordered_by: str
    aliases: Mapping[str, str]
    runs: Mapping[str, int]
    findings: tuple[Finding, ...]
    others: tuple[str, ...] = ()


def choose(opened: Sequence[Opened], root: str, run: str | None, wanted: str, steps_per_epoch: float | None) -> Chosen:
    """Pick the sequence, sort out its labels and strangers, and put it in order. `wanted` is --order, `run` --run."""
    sequences = sequences_of(opened)
    members, findings = pick_sequence(sequences, opened, run, root)
    ids = {id(o) for o in members}
    aliases: dict[str, str] = {}
    if run is None or len(members) > 1:
        taken = ids | ({id(o) for group in sequences.values() for o in group} if len(members) > 1 else set())
        rest = [o for o in opened if id(o) not in taken]
        members, aliases, notes = sort_out(members, rest, [alike(o) for o in members], [alike(o) for o in rest])
        findings = findings + (notes if len(members) > 1 else no_sequence(notes, sequences, root))
    made = order([member_of(o) for o in members], root, steps_per_epoch, wanted)
    ranked = sorted(range(len(members)), key=lambda i: (made.steps[i], members[i].unit.name))
    suspects = [at for at, i in enumerate(ranked) if i in made.suspects]
    kept, mixed = of_one_run([alike(members[i]) for i in ranked], [made.steps[i] for i in ranked], suspects)
    left = set(range(len(ranked))) - set(kept)
    gone = bool(suspects) and left >= set(suspects)
    said = [f for f in made.findings if not (gone and f.code == "steps-out-of-proportion")]
    ordered = tuple(members[ranked[i]] for i in kept)
    steps = tuple(made.steps[ranked[i]] for i in kept)
    found = (*findings, *said, *mixed, *tracked(root, ordered))
    mine = next((name for name, group in sequences.items() if any(id(o) in ids for o in group)), "")
    runs = {name: len(sequences[name]) for name in sorted(sequences, key=lambda name: name != mine)}
    taken = {id(o) for o in ordered}
    others = tuple(o.unit.name for group in sequences.values() for o in group if id(o) not in ids | taken)
    return Chosen(ordered, steps, made.unit, made.ordered_by, aliases, runs if mine else {}, found, others)


def no_sequence(notes: Sequence[Finding], sequences: Mapping[str, Sequence[Opened]], root: str) -> list[Finding]:
    """Findings where no two files are of one sequence: the others are named once, not each as a stranger."""
    others = {o.unit.path: name for name, group in sequences.items() for o in group}
    strays = [f for f in notes if f.code == "stray-file" and f.where in others]
    if not strays:
        return list(notes)
    names = list(sequences)
    some = ", ".join(names[1:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
    words = f"no two files are of one run, so there is no sequence: {names[0]} is analysed, not {some}"
    remedy = "Pick one with --run NAME, or say with --step-pattern which number is the step."
    return [*(f for f in notes if f not in strays), Finding("no-sequence", "note", root, words, remedy)]
