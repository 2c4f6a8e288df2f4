"""Which checkpoints of a tree are one sequence: their paths differ in numbers only, and they hold one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from smd_analyze.errors import UsageError
from smd_analyze.loading.frameworks.base import STEPS
from smd_analyze.loading.sequences.aliases import is_label, same
from smd_analyze.loading.sequences.data_files import is_data
from smd_analyze.loading.sequences.name_numbers import common_pattern, paired, place_of, split_runs, template, varying
from smd_analyze.loading.sequences.name_tokens import stem_of
from smd_analyze.loading.sequences.opened import Opened, alike, member_of
from smd_analyze.loading.sequences.probing import LEAST_ELEMENTS, goes_on, strangers
from smd_analyze.loading.sequences.steps import order
from smd_analyze.records.finding import Finding

MOST_NAMED = 3  # other sequences
MOST_TURNS = 8  # places at which it is looked whether training goes on
FEW_ELEMENTS = 64  # enough to tell strangers where the names say as well that these are several runs


def sequences_of(opened: Sequence[Opened]) -> dict[str, list[Opened]]:
    """Units by template, without labels such as last and best (unless there is nothing else); the largest first.

    Arrays that seem to be data come last, whatever their number.
    """
    plain = [o for o in opened if not is_label(o.unit.name)]
    found = grouped(plain)
    if not any(len(v) > 1 and not is_data(v[0]) for v in found.values()):
        labelled = grouped([o for o in opened if is_label(o.unit.name)])
        found |= {k: v for k, v in labelled.items() if len(v) > 1 or not found}
    if len(found) > 1 and any(len(v) > 1 for v in found.values()):
        found = {k: v for k, v in found.items() if len(v) > 1}
    return dict(sorted(found.items(), key=lambda kv: rank(kv[1])))


def rank(group: Sequence[Opened]) -> tuple[bool, int, int]:
    """Weights before data, many checkpoints before few, large ones before small ones."""
    return is_data(group[0]), -len(group), -sum(f.size for o in group for f in o.files)


def grouped(opened: Sequence[Opened]) -> dict[str, list[Opened]]:
    """Units of one template and one model, cut into runs."""
    found: dict[str, list[Opened]] = {}
    for one in opened:
        title, number = template(one.unit.name), 1
        while (key := title if number == 1 else f"{title} ({number})") in found and not akin(found[key][0], one):
            number += 1
        found.setdefault(key, []).append(one)
    found = joined_by_pattern(found)
    out: dict[str, list[Opened]] = {}
    for key, group in found.items():
        for title, part in [p for first in without_second_versions(key, group) for p in apart(*first)]:
            number, name = 1, title
            while name in out:
                number += 1
                name = f"{title} ({number})"
            out[name] = part
    return out


def joined_by_pattern(found: Mapping[str, list[Opened]]) -> dict[str, list[Opened]]:
    """With --step-pattern, groups of one folder and model that follow each other: their names need not be alike."""
    out: dict[str, list[Opened]] = {}
    for key, group in found.items():
        for other in out.values():
            if follows(other, group):
                other += group
                break
        else:
            out[key] = list(group)
    return out


def follows(a: Sequence[Opened], b: Sequence[Opened]) -> bool:
    """The numbers that the caller's pattern found in the one group all lie before, or after, those in the other."""
    x, y = ([o.number.value for o in group if o.number] for group in (a, b))
    folders = {o.unit.name.rpartition("/")[0] for o in (*a, *b)}
    return bool(x and y) and len(folders) == 1 and (max(x) < min(y) or max(y) < min(x)) and akin(a[0], b[0])


def without_second_versions(title: str, group: list[Opened]) -> list[tuple[str, list[Opened]]]:
    """Lightning's `…-v1.ckpt` beside a file of the same name without it: a second run there, or a copy."""
    names = {o.unit.name for o in group}
    again = {n for n in names if (first := first_version(n)) != n and first in names}
    if not again:
        return [(title, group)]
    stem = stem_of(title)
    second = [o for o in group if o.unit.name in again]
    return [(title, [o for o in group if o.unit.name not in again]), (f"{stem}-v#{title[len(stem) :]}", second)]


def first_version(name: str) -> str:
    """The path without Lightning's -v1."""
    return stem_of(name, versions=False) + name[len(stem_of(name)) :]


def apart(title: str, group: list[Opened]) -> list[tuple[str, list[Opened]]]:
    """A group of one template cut into runs: seeds, versions, folders with the same steps, or with other weights."""
    names = [o.unit.name for o in group]
    given = [o.number.value for o in group if o.number]
    if stated_apart(group) or (given and len(set(given)) == len(group)):
        parts = [list(range(len(group)))]
    else:
        parts = split_runs(names, given)
        parts = [list(range(len(group)))] if len(parts) > 1 and not given and in_epochs(group, names) else parts
    whole = [part for cut in parts for part in by_weights([group[i] for i in cut])]
    if len(whole) == 1:
        return [(common_pattern(names) if len(group) > 1 and title == template(names[0]) else title, group)]
    return [(common_pattern([o.unit.name for o in part]), part) for part in whole]


def stated_apart(group: Sequence[Opened]) -> bool:
    """All files state their step in one way, and all steps differ."""
    for fact in group[0].facts:
        if fact.unit == STEPS:
            stated = [f.value for one in group for f in one.facts if f.source == fact.source]
            if len(stated) == len(set(stated)) == len(group):
                return True
    return False


def in_epochs(group: Sequence[Opened], names: Sequence[str]) -> bool:
    """`net-1_500, net-1_1000, net-2_500, …` of one folder: steps that begin anew in every epoch, not several runs."""
    found = paired(names)
    if found is None or len({n.rpartition("/")[0] for n in names}) > 1:
        return False
    ranked = sorted(range(len(group)), key=lambda i: found[i])
    turns = [(i, j) for i, j in pairwise(ranked) if found[i][0] != found[j][0]][:MOST_TURNS]
    first = {found[i][0]: i for i in reversed(ranked)}
    return all(goes_on(alike(group[first[found[i][0]]]), alike(group[i]), alike(group[j])) for i, j in turns)


def by_weights(group: list[Opened]) -> list[list[Opened]]:
    """A group that lies in several places (folders, seeds, versions), cut where one place has nothing of the last's
    weights: a run that was resumed goes on where it had stopped, another run does not."""
    column = varying([o.unit.name for o in group])
    values = [n.value for n in column] if column else [None] * len(group)
    places = [place_of(o.unit.name, v, True) for o, v in zip(group, values, strict=True)]
    if len(set(places)) == len(group):  # every checkpoint in a folder of its own: the date is that of the save
        places = [place_of(o.unit.name, v, False) for o, v in zip(group, values, strict=True)]
    if len(set(places)) == 1:
        return [group]
    made = order([member_of(o) for o in group], "")
    ranked = sorted(range(len(group)), key=lambda i: (made.steps[i], group[i].unit.name))
    once = len(set(places)) == len(group)
    parts: list[list[Opened]] = [[group[ranked[0]]]]
    where = {places[ranked[0]]: 0}
    for i, j in pairwise(ranked):
        if places[j] in where:
            at = where[places[j]]
        elif strangers(alike(group[i]), alike(group[j]), FEW_ELEMENTS if once else LEAST_ELEMENTS):
            at = len(parts)
            parts.append([])
        else:
            at = where[places[i]]
        where[places[j]] = at
        parts[at].append(group[j])
    return parts


def akin(a: Opened, b: Opened) -> bool:
    """Checkpoints of one model: at least half of all their tensors' names are common, whether trained or frozen."""
    if a.reading.parameters is b.reading.parameters:
        return True
    x, y = ({*o.reading.parameters, *o.reading.buffers} for o in (a, b))
    return 2 * len(x & y) >= len(x | y)


def pick_sequence(
    found: dict[str, list[Opened]], opened: Sequence[Opened], run: str | None, root: str
) -> tuple[list[Opened], list[Finding]]:
    """The sequence named `run`, or the largest of those found; a finding names the others."""
    if run is not None:
        return named(dict(found), opened, run, root), []
    names = list(found)
    chosen = found[names[0]]
    if len(names) > 1 and len(chosen) == 1:  # single files: the stepless remainder is sorted out as strays
        return chosen, []
    notes: list[Finding] = []
    for name in names[1:]:
        if is_data(found[name][0]) and not is_data(chosen[0]):
            words = f"{len(found[name])} files {name} hold arrays that seem to be data, not weights: left out"
            notes.append(Finding("data-files", "note", root, words, f"If they are weights, use --run '{name}'."))
            continue
        if repeats(chosen, found[name]):
            same = "(the first and the last hold the same)"
            words = f"{len(found[name])} checkpoints {name} repeat {names[0]} {same}: left out"
            notes.append(Finding("copies", "note", root, words))
            continue
        words = f"{len(found[name])} checkpoints {name} are another sequence; {names[0]} is analysed"
        if len(notes) < MOST_TURNS:
            words += continuation(names[0], chosen, name, found[name])
        remedy = f"Use --run '{name}' for that one."
        alike = template(chosen[0].unit.name) == template(found[name][0].unit.name)  # looks like one run, but is none
        notes.append(Finding("another-sequence", "warning" if alike else "note", root, words, remedy))
    return chosen, summed_up(names[0], notes, root)


def repeats(chosen: Sequence[Opened], other: Sequence[Opened]) -> bool:
    """What every rank saved by itself, or a copy: the first and the last hold the same."""
    if len(chosen) != len(other) or not akin(chosen[0], other[0]):
        return False
    a, b = ([alike(g[i]) for i in (0, -1)] for g in (chosen, other))
    shapes = [{n: p.shape for n, p in one.parameters.items()} for one in (*a, *b)]
    return all(s == shapes[0] for s in shapes) and all(same(x, y) for x, y in zip(a, b, strict=True))


def summed_up(name: str, notes: list[Finding], root: str) -> list[Finding]:
    """A finding for each other sequence; many (a sweep, seeds) as one."""
    others = [f for f in notes if f.code == "another-sequence"]
    if len(others) <= MOST_NAMED:
        return notes
    titles = [f.remedy.split("'")[1] for f in others]
    listed = ", ".join(titles[:MOST_NAMED]) + f" and {len(titles) - MOST_NAMED} more"
    words = f"there are {len(titles)} other sequences; {name} is analysed, not {listed}"
    severity = "warning" if any(f.severity == "warning" for f in others) else "note"
    one = Finding("another-sequence", severity, root, words, "Use --run NAME for one of them.")
    return [one, *(f for f in notes if f.code != "another-sequence")]


def continuation(name: str, chosen: Sequence[Opened], title: str, other: Sequence[Opened]) -> str:
    """Words for a sequence that begins where the other one ends; "" if neither does."""
    if len(chosen) < 2 or len(other) < 2 or not akin(chosen[0], other[0]):
        return ""
    a, b = ([alike(g[i]) for i in ends(g)] for g in (chosen, other))
    if goes_on(a[0], a[1], b[0]):
        return f"; {title} seems to go on from the end of {name}"
    return f"; {name} seems to go on from the end of {title}" if goes_on(b[0], b[1], a[0]) else ""


def ends(group: Sequence[Opened]) -> tuple[int, int]:
    """Which is the first and which the last in the order of training."""
    steps = order([member_of(o) for o in group], "").steps
    ranked = sorted(range(len(group)), key=lambda i: steps[i])
    return ranked[0], ranked[-1]


def named(found: dict[str, list[Opened]], opened: Sequence[Opened], run: str, root: str) -> list[Opened]:
    """The sequence that the caller means: its name, a folder or a part of it; single files may be asked for too."""
    taken = {id(o) for group in found.values() for o in group}
    for one in opened:
        if id(one) not in taken:
            found.setdefault(template(one.unit.name) if template(one.unit.name) not in found else one.unit.name, []).append(one)  # noqa: E501  # fmt: skip
    asked = run.rstrip("/")
    for fits in (
        lambda n: n == asked,
        lambda n: template(found[n][0].unit.name) == asked,
        lambda n: any(o.unit.name == asked for o in found[n]),
        lambda n: asked in n.split("/") or all(o.unit.name.startswith(asked + "/") for o in found[n]),
        lambda n: asked in n or any(asked in o.unit.name for o in found[n]),
    ):
        wanted = [n for n in found if fits(n)]
        if wanted:
            break
    if len(wanted) != 1:
        what = "several sequences match" if wanted else "no sequence is named"
        listed = ", ".join(wanted or found)
        raise UsageError(f"{root}: {what} {run!r}; there are: {listed}")
    return found[wanted[0]]
