"""From checkpoints that were read to one run: which of them, in which order, at which step, and what is odd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smd_analyze.loading.files.findings import some
from smd_analyze.loading.sequences.aliases import same, sort_out
from smd_analyze.loading.sequences.grouping import pick_sequence, sequences_of
from smd_analyze.loading.sequences.one_run import of_one_run
from smd_analyze.loading.sequences.opened import Opened, alike, member_of
from smd_analyze.loading.sequences.probing import Alike
from smd_analyze.loading.sequences.steps import order
from smd_analyze.loading.sequences.trackers import tracked
from smd_analyze.records.finding import Finding

MOST_COMPARED = 64  # checkpoints of other runs


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
        strange = [o for group in sequences.values() for o in group if id(o) not in ids and len(members) > 1]
        homes = {home(o) for o in strange} - {home(o) for o in members}
        rest = [o for o in opened if id(o) not in taken and home(o) not in homes]
        members, aliases, notes = sort_out(members, rest, [alike(o) for o in members], [alike(o) for o in rest])
        notes = without_labels_of([alike(o) for o in strange], notes, [alike(o) for o in rest])
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
    taken = ids | {id(o) for o in ordered}
    others = tuple(o.unit.name for group in sequences.values() for o in group if id(o) not in taken)
    return Chosen(ordered, steps, made.unit, made.ordered_by, aliases, runs if mine else {}, found, others)


def home(one: Opened) -> str:
    """The folder in which a checkpoint lies: what has no step there is a label (last, best) of its run."""
    return one.unit.name.rpartition("/")[0]


def without_labels_of(others: Sequence[Alike], notes: Sequence[Finding], rest: Sequence[Alike]) -> list[Finding]:
    """Findings without those on files that repeat a checkpoint of another sequence: strangers, but no surprise."""
    strays = {f.where for f in notes if f.code == "stray-file"}
    known = {
        one.path
        for one in rest
        if one.path in strays
        and any(o.parameters.keys() == one.parameters.keys() and same(o, one) for o in others[:MOST_COMPARED])
    }
    return [f for f in notes if f.code != "stray-file" or f.where not in known]


def no_sequence(notes: Sequence[Finding], sequences: Mapping[str, Sequence[Opened]], root: str) -> list[Finding]:
    """Findings where no two files are of one sequence: the others are named once, not each as a stranger."""
    others = {o.unit.path: name for name, group in sequences.items() for o in group}
    strays = [f for f in notes if f.code == "stray-file" and f.where in others]
    if not strays:
        return list(notes)
    names = list(sequences)
    words = f"no two files are of one run, so there is no sequence: {names[0]} is analysed, not {some(names[1:])}"
    remedy = "Pick one with --run NAME, or say with --step-pattern which number is the step."
    return [*(f for f in notes if f not in strays), Finding("no-sequence", "note", root, words, remedy)]
