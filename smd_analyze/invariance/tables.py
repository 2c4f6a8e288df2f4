"""Verdicts → the rows of the `parameters` and `groups` tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.records.finding import Finding
from smd_analyze.records.group import Group, Groups, Member, ParameterVerdict
from smd_analyze.records.run import LazyTensor

NOT_ANALYSED = ("bias", "norm gain")


def groups_of(
    verdicts: Sequence[Verdict],
    tensors: Mapping[str, LazyTensor],
    parameter_groups: Mapping[str, tuple[str, ...]],
    source: str,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    findings: Sequence[Finding] = (),
) -> Groups:
    """Decide what is analysed, name it, and lay out both tables.

    Groups are the invariant tensors and slices, the joint sets, and all other weight matrices; vectors by themselves
    (gains, biases) only where `include` names them. Of a set of several matrices each is also followed by itself.
    `include` and `exclude` are globs on parameter names.
    """
    include, exclude = ((x,) if isinstance(x, str) else tuple(x) for x in (include, exclude))
    owner = {name: group for group, names in parameter_groups.items() for name in names}
    slices: dict[str, int] = {}
    for verdict in verdicts:
        slices[verdict.parameter] = slices.get(verdict.parameter, 0) + 1
    sets: dict[tuple[str, int], list[Verdict]] = {}
    for number, verdict in enumerate(verdicts):
        name = verdict.joint or _name(verdict, tensors, slices[verdict.parameter] > 1)
        sets.setdefault((name, -1 if verdict.joint else number), []).append(verdict)

    groups: list[Group] = []
    taken: set[str] = set()
    group_name: dict[int, str] = {}
    for (name, _), members in sets.items():
        if _is_analysed(members, tensors, include, exclude):
            name = _unique(name, members[0].parameter, taken)
            taken.add(name)
            groups.append(_group(name, members, tensors, owner))
            group_name |= {id(m): name for m in members}
        for one in _by_themselves(members, tensors):
            if _is_analysed([one], tensors, include, exclude):
                own = _unique(_name(one, tensors, False), one.parameter, taken)
                taken.add(own)
                groups.append(_group(own, [one], tensors, owner))

    rows = [_row(v, tensors[v.parameter], owner, group_name.get(id(v), ""), slices[v.parameter] > 1) for v in verdicts]
    sums = tuple(t for v in verdicts for t in v.translations)
    return Groups(tuple(rows), tuple(groups), source, (*findings, *_unmatched(include, exclude, tensors)), sums)


def _by_themselves(members: Sequence[Verdict], tensors: Mapping[str, LazyTensor]) -> list[Verdict]:
    """The matrices of a joint set of several: one layer's course is not lost in the sum over all."""
    found = [m for m in members if m.joint and len(tensors[m.parameter].shape) >= 2 and m.role not in NOT_ANALYSED]
    return [
        replace(
            m, status="not invariant", granularity="", evidence="not proved", joint="",
            units=tensors[m.parameter].shape[m.axis], reason=f"jointly invariant only, as a member of {m.joint}",
        )
        for m in (found if len(found) > 1 else [])
    ]  # fmt: skip


def _is_analysed(
    members: Sequence[Verdict], tensors: Mapping[str, LazyTensor], include: Sequence[str], exclude: Sequence[str]
) -> bool:
    names = [m.parameter for m in members]
    if any(_matches(n, exclude) for n in names) or not all("float" in tensors[n].dtype for n in names):
        return False
    if include:
        return any(_matches(n, include) for n in names)
    return any(len(tensors[m.parameter].shape) >= 2 and m.role not in NOT_ANALYSED for m in members)


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, g) for g in globs)


def _name(verdict: Verdict, tensors: Mapping[str, LazyTensor], sliced: bool) -> str:
    """Parameter name without `.weight` or `.kernel`; a slice carries its indices."""
    stem = re.sub(r"[./](?:weight|kernel)(?::\d+)?$", "", verdict.parameter)
    if not sliced:
        return stem
    return f"{stem}[{verdict.slice(tensors[verdict.parameter].shape)}]"


def _unique(name: str, parameter: str, taken: set[str]) -> str:
    """A name that no group has yet: the stem, the full parameter name, or a numbered one."""
    for candidate in (name, parameter):
        if candidate not in taken:
            return candidate
    number = 2
    while f"{name} ({number})" in taken:
        number += 1
    return f"{name} ({number})"


def _group(name: str, members: Sequence[Verdict], tensors: Mapping[str, LazyTensor], owner: Mapping[str, str]) -> Group:
    first = members[0]
    parts = tuple(Member(m.parameter, m.axis, *m.extent(tensors[m.parameter].shape), every=m.every) for m in members)
    numel = sum(m.numel(tensors[m.parameter].shape) for m in members)
    parameter_group = ", ".join(dict.fromkeys(owner.get(m.parameter, "") for m in members))
    units = first.units if numel > first.units else 1  # a unit of one number has no direction
    return Group(
        name, parts, first.status, first.granularity, units, numel, parameter_group, first.evidence, first.role,
        first.reason, first.norm, first.eps,
    )  # fmt: skip


def _row(verdict: Verdict, tensor: LazyTensor, owner: Mapping[str, str], group: str, sliced: bool) -> ParameterVerdict:
    return ParameterVerdict(
        verdict.parameter, verdict.slice(tensor.shape) if sliced else "", tensor.shape, verdict.role,
        owner.get(verdict.parameter, ""), verdict.status, verdict.granularity, group, verdict.evidence, verdict.reason,
    )  # fmt: skip


def _unmatched(include: Sequence[str], exclude: Sequence[str], names: Mapping[str, LazyTensor]) -> list[Finding]:
    return [
        Finding(
            "glob-without-match", "warning", glob, f"the {option} pattern {glob!r} matches no parameter",
            "list the parameters with `smd-analyze groups`",
        )
        for option, globs in (("include", include), ("exclude", exclude))
        for glob in globs
        if not any(fnmatchcase(n, glob) for n in names)
    ]  # fmt: skip
