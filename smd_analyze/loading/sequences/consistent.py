"""One shape for every parameter throughout a sequence: what deviates is left out of its checkpoint, and said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from smd_analyze.errors import UsageError
from smd_analyze.loading.files.findings import some
from smd_analyze.loading.reading import Reading
from smd_analyze.loading.sequences.opened import Opened
from smd_analyze.loading.tensors.places import Place
from smd_analyze.records.finding import Finding


def consistent(
    members: Sequence[Opened], include: Sequence[str], exclude: Sequence[str]
) -> tuple[list[Reading], list[Finding]]:
    """Readings whose parameters have one shape throughout: a tensor that deviates is left out of its checkpoint."""
    members = thawed(members)
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
            kept = {n: p for n, p in source.items() if n in keep and p.shape == shapes[n]}
            made[id(source)] = source if len(kept) == len(source) else kept
        out.append(replace(one.reading, parameters=made[id(source)]))
    return out, findings


def thawed(members: Sequence[Opened]) -> Sequence[Opened]:
    """Parameters that some checkpoints hold as not trained, taken as parameters there too: they were frozen then."""
    trained = {n: p for m in members for n, p in m.reading.parameters.items()}
    out: list[Opened] = []
    for one in members:
        held = one.reading.buffers
        back = {n: held[n] for n, p in trained.items() if n in held and alike(held[n], p)}
        if back:
            own, left = {**one.reading.parameters, **back}, {n: p for n, p in held.items() if n not in back}
            one = replace(one, reading=replace(one.reading, parameters=own, buffers=left))
        out.append(one)
    return out


def alike(a: Place, b: Place) -> bool:
    """One shape and type: a quantised weight beside its scale is no frozen one."""
    return (a.shape, a.dtype) == (b.shape, b.dtype)


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
                words = f"has shape {list(shape)} in {some(where)}, {list(usual)} elsewhere: left out of the former"
                findings.append(
                    Finding("shape-changes", "warning", name, words, "Was another run mixed in, or the model changed?")
                )
        present = sum(len(w) for w in found.values())
        if present < len(members):
            lacking = [m for m in members if name not in m.reading.parameters]
            kinds = sorted({m.reading.buffers[name].dtype for m in lacking if name in m.reading.buffers})
            words = f"is {', '.join(kinds) or 'missing'} in {some([m.unit.name for m in lacking])}"
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
        else replace(found[0], message=f"{found[0].message}; so for {some([f.where for f in found[1:]])}")
        for found in same.values()
    ]


def selected(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Matches one of `include` (if there are any) and none of `exclude`."""
    return (not include or any(fnmatchcase(name, g) for g in include)) and not any(
        fnmatchcase(name, g) for g in exclude
    )
