"""Verdicts on sets: tensors that may be scaled together although not alone, and tensors that trade scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from smd_analyze.invariance import joint
from smd_analyze.invariance.constraints import Space
from smd_analyze.invariance.degrees import Degrees
from smd_analyze.invariance.joint_space import JointSpace, TooLarge
from smd_analyze.invariance.modules import split
from smd_analyze.invariance.reading import Part, read
from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.records.finding import Finding
from smd_analyze.records.group import Granularity

SHOWN = 3  # members of a set or a rescaling that are named
Walked = Callable[[Callable[[str], int], Space, bool], Degrees]  # (owner of a name, constraints, whole tensors?)
Place = Callable[[Any], str]
Absorber = Callable[[Any], tuple[str, float | None]]  # path of the normalization, and its ε


@dataclass(frozen=True)
class Together:
    """A set of parameters with one common free scale: the units' axis of each, and how many units there are."""

    members: tuple[str, ...]
    granularity: Granularity
    axes: tuple[int, ...]
    units: int
    place: Any


def add_joint(
    verdicts: Mapping[str, list[Verdict]], number: Mapping[str, int], axes: Mapping[str, int], walked: Walked,
    where: Place, absorber: Absorber,
) -> tuple[dict[str, list[Verdict]], list[Finding]]:  # fmt: skip
    """The verdicts with joint sets and rescalings told, and a finding if they could not be looked for.

    `number` and `axes` are each parameter's owner number and output axis; `walked` walks the graph; `where` names an
    operation, `absorber` tells the normalization that it belongs to.
    """
    alone = {n for n, rows in verdicts.items() if all(v.status in ("invariant", "dead") for v in rows)}
    if len(alone) == len(verdicts):
        return dict(verdicts), []
    together = walked(lambda n: number[n], JointSpace(), True)
    try:
        raw, short = joint.rescalings(together, alone)
    except TooLarge:
        message = "joint sets were not looked for: the system of scales is too large"
        return dict(verdicts), [
            Finding("joint-sets-not-searched", "note", "graph", message, "weights are judged one by one")
        ]
    whole = {n for n, rows in verdicts.items() if len(rows) == 1}
    sets = [s for s in joint.joint_sets(raw, short) if whole.issuperset(s)]
    found = dict(verdicts)
    for one in _read(sets, number, axes, walked, together):
        for name, axis in zip(one.members, one.axes, strict=True):
            found[name] = [_of_set(verdicts[name][0], one, axis, where, absorber)]
    for name, rescaling in joint.shortest([*short, *raw]).items():
        partners = tuple((n, c) for n, c in rescaling.items() if n != name)
        if partners:
            found[name] = [
                replace(v, partners=((name, rescaling[name]), *partners)) if v.status == "not invariant" else v
                for v in found[name]
            ]
    return found, []


def _read(
    sets: Sequence[tuple[str, ...]], number: Mapping[str, int], axes: Mapping[str, int], walked: Walked, whole: Degrees
) -> list[Together]:
    """Every set with its granularity: index by index where the members' units correspond, else as a whole."""
    along = {n: axes[n] if len(whole.parameters[n].shape) > 1 else 0 for members in sets for n in members}
    units = {n: whole.parameters[n].shape[a] if whole.parameters[n].shape else 1 for n, a in along.items()}
    even = [members for members in sets if len({units[n] for n in members}) == 1]
    owner = {name: number[members[0]] for members in even for name in members}
    d = walked(lambda n: owner.get(n, number[n]), Space(), False) if even else whole
    found = []
    for members in sets:
        part, places = Part(0, 1, True), whole
        if members in even:
            reading = read(d.space, [(d.parameters[n], along[n]) for n in members])
            if reading.free and len(reading.parts) == 1 and not reading.parts[0].every:
                part, places = reading.parts[0], d
        granularity = "whole" if part.units == 1 else "unit" if part.block == 1 else "block"
        numbers = [places.parameters[n].number for n in members]
        place = next((places.absorbed[i] for i in numbers if i in places.absorbed), None)
        found.append(Together(members, granularity, tuple(along[n] for n in members), part.units, place))
    return found


def _of_set(verdict: Verdict, together: Together, axis: int, where: Place, absorber: Absorber) -> Verdict:
    how = "their common scale cancels"
    if together.place is not None:
        how = f"{where(together.place)} divides their common scale out"
    norm, eps = absorber(together.place)
    return replace(
        verdict, status="jointly invariant", reason=f"{how}; alone, each is measured against the others", norm=norm,
        eps=eps, evidence="proved", granularity=together.granularity, axis=axis, part=None, units=together.units,
        joint=together.members[0],
    )  # fmt: skip


# ---- under the run's names


def told(
    verdicts: Sequence[Verdict],
    matched: Mapping[str, str],
    aliases: Mapping[str, str],
    proved: Mapping[str, Sequence[Verdict]],
) -> list[Verdict]:
    """Verdicts under the run's names, with their sets named after the run's members and partners told in the reason.

    `matched`: run's name → model's, `aliases`: model's name → first of tied ones, `proved`: the model's own verdicts.
    A set that the run does not hold whole is none: its members are not invariant without the rest.
    """
    run_names: dict[str, str] = {}
    for name, own in matched.items():
        run_names.setdefault(aliases.get(own, own), name)
    sets: dict[str, list[str]] = {}
    for own, rows in proved.items():
        for row in rows:
            if row.joint:
                sets.setdefault(row.joint, []).append(own)
    names: dict[str, str] = {}
    for key, members in sets.items():
        if all(m in run_names for m in members):
            names[key] = _unique(set_name([run_names[m] for m in members]), set(names.values()))
    out = []
    paths = {split(own)[0]: split(name)[0] for name, own in matched.items()}
    for v in verdicts:
        v = replace(v, norm=paths.get(v.norm, v.norm))
        if v.joint and v.parameter in matched:
            missing = [m for m in sets[v.joint] if m not in run_names]
            first = run_names.get(aliases.get(matched[v.parameter], ""), v.parameter)
            if missing:
                v = _alone_again(v, f"jointly invariant only with {missing[0]}, which the run does not hold")
            elif first != v.parameter:
                v = _alone_again(v, f"the same tensor as {first}, with which it is counted")
            else:
                others = [run_names[m] for m in sets[v.joint] if run_names[m] != v.parameter]
                name = names[v.joint]
                with_ = "with " + ", ".join(others) if len(others) <= SHOWN else f"one of {len(others) + 1} in {name}"
                v = replace(v, joint=name, reason=f"{with_}: {v.reason}")
        if v.translations:
            v = replace(v, translations=tuple(replace(t, parameter=v.parameter) for t in v.translations))
        out.append(_told(v, run_names))
    return out


def _alone_again(v: Verdict, reason: str) -> Verdict:
    return replace(v, status="not invariant", evidence="not proved", granularity="", joint="", reason=reason)


def _told(v: Verdict, run_names: Mapping[str, str]) -> Verdict:
    if not v.partners:
        return v
    own = v.partners[0][1]
    others = [f"{run_names.get(n, n)} {_sign(c, own)}" for n, c in v.partners[1:]]
    shown = ", ".join(others[:SHOWN]) + (f" and {len(others) - SHOWN} more" if len(others) > SHOWN else "")
    return replace(v, reason=f"{v.reason}; rescaling it (×) with {shown} leaves the output unchanged")


def _sign(exponent: int, own: int) -> str:
    """(×) or (÷), with the power where it is another than the parameter's own."""
    power = abs(exponent) / abs(own)
    return ("(×" if exponent > 0 else "(÷") + (")" if power == 1 else f", power {power:.3g})")


def set_name(members: Sequence[str]) -> str:
    """A short name: "fc1+bias", "conv3+conv1", "embed_tokens+12 more"."""
    stems = [split(m) for m in members]
    first = next((s for s, leaf in stems if "bias" not in leaf), stems[0][0]) or members[0]
    if len(members) == 2 and stems[0][0] == stems[1][0] and stems[0][0]:
        return f"{first}+{stems[1][1]}"
    if len(members) == 2:
        second = stems[1][0] or members[1]
        shared = first.rpartition(".")[0]
        same = shared and second.startswith(shared + ".")
        return f"{first}+{second[len(shared) + 1 :] if same else second}"
    return f"{first}+{len(members) - 1} more"


def _unique(name: str, taken: set[str]) -> str:
    number, candidate = 2, name
    while candidate in taken:
        candidate, number = f"{name} ({number})", number + 1
    return candidate
