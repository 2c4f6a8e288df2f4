"""Which checkpoints of a tree are one sequence: their paths differ in numbers only, and they hold one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from smd_analyze.errors import UsageError
from smd_analyze.loading.aliases import is_label
from smd_analyze.loading.frameworks.base import STEPS, Fact
from smd_analyze.loading.name_numbers import common_pattern, split_runs, template
from smd_analyze.loading.reading import Reading
from smd_analyze.loading.sources import FileId
from smd_analyze.loading.tensors import Place
from smd_analyze.loading.walk import Unit
from smd_analyze.records.finding import Finding


@dataclass(frozen=True)
class Opened:
    """A unit that was read: its meaning and its files; `facts` as numbers, `batches` as a BatchNorm counted."""

    unit: Unit
    format: str
    files: tuple[FileId, ...]
    reading: Reading
    facts: tuple[Fact, ...] = ()
    batches: int | None = None


def sequences_of(opened: Sequence[Opened]) -> dict[str, list[Opened]]:
    """Units by template, without labels such as last and best (unless there is nothing else); the largest first."""
    plain = [o for o in opened if not is_label(o.unit.name)] or list(opened)
    found: dict[str, list[Opened]] = {}
    for one in plain:
        title, number = template(one.unit.name), 1
        while (key := title if number == 1 else f"{title} ({number})") in found and not akin(found[key][0], one):
            number += 1
        found.setdefault(key, []).append(one)
    found = {k: v for key, group in found.items() for k, v in apart(key, group).items()}
    if len(found) > 1 and any(len(v) > 1 for v in found.values()):
        found = {k: v for k, v in found.items() if len(v) > 1}
    return dict(sorted(found.items(), key=lambda kv: (-len(kv[1]), -sum(f.size for o in kv[1] for f in o.files))))


def apart(title: str, group: list[Opened]) -> dict[str, list[Opened]]:
    """A group of one template cut into runs (seeds, versions, …) unless the steps that its files state all differ."""
    for fact in group[0].facts:
        if fact.unit == STEPS:
            stated = [f.value for one in group for f in one.facts if f.source == fact.source]
            if len(stated) == len(set(stated)) == len(group):
                return {title: group}
    parts = split_runs([one.unit.name for one in group])
    if len(parts) == 1:
        return {title: group}
    return {common_pattern([group[i].unit.name for i in part]): [group[i] for i in part] for part in parts}


def akin(a: Opened, b: Opened) -> bool:
    """Checkpoints of one model: at least half of all their parameters' names are common."""
    x, y = a.reading.parameters, b.reading.parameters
    return x is y or 2 * len(x.keys() & y.keys()) >= len(x.keys() | y.keys())


def pick_sequence(opened: Sequence[Opened], run: str | None, root: str) -> tuple[list[Opened], list[Finding]]:
    """The sequence named `run`, or the largest; a finding names the others."""
    found = sequences_of(opened)
    if run is not None:
        for one in opened:  # single files may be asked for too
            if not any(one is other for group in found.values() for other in group):
                found.setdefault(template(one.unit.name), []).append(one)
        wanted = [n for n in found if n == run] or [n for n in found if run in n.split("/")]
        wanted = wanted or [n for n in found if run in n]
        if len(wanted) != 1:
            raise UsageError(f"{root}: {'several sequences match' if wanted else 'no sequence is named'} {run!r}; there are: {', '.join(found)}")  # noqa: E501  # fmt: skip
        return found[wanted[0]], []
    names = list(found)
    if len(names) > 1 and len(found[names[0]]) == 1:  # single files: the stepless remainder is sorted out as strays
        return found[names[0]], []
    chosen = found[names[0]]
    notes: list[Finding] = []
    for name in names[1:]:
        words = f"{len(found[name])} checkpoints {name} are another sequence; {names[0]} is analysed"
        remedy = f"Use --run '{name}' for that one."
        alike = template(chosen[0].unit.name) == template(found[name][0].unit.name)  # looks like one run, but is none
        notes.append(Finding("another-sequence", "warning" if alike else "note", root, words, remedy))
    return chosen, notes


def consistent(
    members: Sequence[Opened], include: Sequence[str], exclude: Sequence[str]
) -> tuple[list[Reading], list[Finding]]:
    """Readings whose parameters have one shape throughout: a tensor that deviates is left out of its checkpoint."""
    if all(m.reading.parameters is members[0].reading.parameters for m in members):
        shapes = {n: p.shape for n, p in members[0].reading.parameters.items()}
        findings: list[Finding] = []
    else:
        shapes, findings = usual_shapes(members)
    keep = {n for n in shapes if selected(n, include, exclude)}
    if not keep:
        raise UsageError(
            f"no parameter is left: none of {len(shapes)} matches include {list(include)} and exclude {list(exclude)}"
        )
    made: dict[int, Mapping[str, Place]] = {}
    out: list[Reading] = []
    for one in members:
        source = one.reading.parameters
        if id(source) not in made:
            whole = len(keep) == len(source) and all(source[n].shape == shapes[n] for n in source if n in shapes)
            whole = whole and source.keys() <= keep
            made[id(source)] = (
                source if whole else {n: p for n, p in source.items() if n in keep and p.shape == shapes[n]}
            )
        out.append(replace(one.reading, parameters=made[id(source)]))
    return out, findings


def usual_shapes(members: Sequence[Opened]) -> tuple[dict[str, tuple[int, ...]], list[Finding]]:
    """Parameter → the shape that most checkpoints have, and findings for the rest."""
    counts: dict[str, dict[tuple[int, ...], list[str]]] = {}
    for one in members:
        for name, place in one.reading.parameters.items():
            counts.setdefault(name, {}).setdefault(place.shape, []).append(one.unit.name)
    shapes: dict[str, tuple[int, ...]] = {}
    findings: list[Finding] = []
    for name, found in counts.items():
        usual = max(found, key=lambda shape: len(found[shape]))
        shapes[name] = usual
        for shape, where in found.items():
            if shape != usual:
                words = f"has shape {list(shape)} in {listed(where)}, {list(usual)} elsewhere: left out of the former"
                findings.append(
                    Finding("shape-changes", "warning", name, words, "Was another run mixed in, or the model changed?")
                )
        present = sum(len(w) for w in found.values())
        if present < len(members):
            lacking = [m for m in members if name not in m.reading.parameters]
            kinds = sorted({m.reading.buffers[name].dtype for m in lacking if name in m.reading.buffers})
            words = f"is {', '.join(kinds) or 'missing'} in {listed([m.unit.name for m in lacking])}"
            findings.append(Finding("parameter-missing", "warning", name, words, "Its numbers there are left out."))
    return shapes, together(findings)


def together(findings: Sequence[Finding]) -> list[Finding]:
    """Findings that say the same of many tensors as one."""
    same: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        same.setdefault((finding.code, finding.message), []).append(finding)
    return [
        found[0]
        if len(found) == 1
        else replace(found[0], message=f"{found[0].message}; so for {listed([f.where for f in found[1:]])}")
        for found in same.values()
    ]


def listed(names: Sequence[str]) -> str:
    """A few names, and how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def selected(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Matches one of `include` (if there are any) and none of `exclude`."""
    return (not include or any(fnmatchcase(name, g) for g in include)) and not any(
        fnmatchcase(name, g) for g in exclude
    )
