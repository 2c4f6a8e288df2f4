"""Which of a file's optimizers trains the model that is analysed: one, or several that share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from smd_analyze.loading.frameworks.base import Parts
from smd_analyze.loading.roles.names import is_buffer
from smd_analyze.loading.settings.parameter_groups import Mapped, map_groups, numbered
from smd_analyze.loading.settings.saved import group_name
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import as_dict, tensors
from smd_analyze.records.finding import Finding


@dataclass(frozen=True)
class Chosen:
    """`optimizers`: label → its state dict ("" if there is one only); `mapped`: their groups and states together."""

    optimizers: Mapping[str, Any]
    mapped: Mapped


def choose(parts: Parts, parameters: Mapping[str, Place], path: str) -> Chosen:
    """The optimizer that holds all parameters, else all together if they do, else the first that can be matched."""
    several = tuple(numbered(o) for o in parts.optimizers)
    if not several or not parameters:
        return Chosen(dict(zip([""], several[:1], strict=False)), Mapped())
    alone = [map_groups(o, parameters, parts.ordered, path, parts.family) for o in several]
    if len(several) == 1:
        mapped = alone[0]
        if not mapped.groups and parts.companions:
            mapped = map_with_companions(parts, parameters, path) or mapped
        return Chosen({"": several[0]}, mapped)
    whole = [i for i, m in enumerate(alone) if sum(map(len, m.groups.values())) == len(parameters)]
    if whole:
        words = f"holds {len(several)} optimizers; number {whole[0] + 1} fits {parts.where or 'the model'} and is read"
        other = f", but so would {len(whole) - 1} more" if len(whole) > 1 else ""
        return said({"": several[whole[0]]}, alone[whole[0]], words + other, path)
    labelled = {f"optimizer{i}": o for i, o in enumerate(several)}
    together = map_groups(joined(labelled), parameters, parts.ordered, path, parts.family)
    if together.groups:
        return said(labelled, together, f"{len(several)} optimizers share the parameters: all are read", path)
    first = next((i for i, m in enumerate(alone) if m.groups), None)
    if first is None:
        words = f"holds {len(several)} optimizers, none of which could be matched to the parameters"
        return said(labelled, together, words, path)
    words = f"holds {len(several)} optimizers; number {first + 1}, which fits some parameters, is read"
    return said({"": several[first]}, alone[first], words, path)


def said(optimizers: Mapping[str, Any], mapped: Mapped, words: str, path: str) -> Chosen:
    """A choice with the finding that tells of it."""
    severity = "warning" if ", but so" in words or "some parameters" in words else "note"
    finding = Finding("several-optimizers", severity, path, words)
    return Chosen(optimizers, replace(mapped, findings=(finding, *mapped.findings)))


def joined(labelled: Mapping[str, Any]) -> dict[str, Any]:
    """Several optimizers as one: each numbers its parameters from zero, so the numbers are shifted."""
    groups: list[dict[str, Any]] = []
    states: dict[Any, Any] = {}
    shift = 0
    for label, optimizer in labelled.items():
        own = optimizer.get("state")
        own = own if isinstance(own, dict) else {}
        numbers: dict[Any, Any] = {}
        for index, node in enumerate(optimizer["param_groups"]):
            group = as_dict(node) or {}
            members = group.get("params")
            members = members if isinstance(members, list | tuple) else []
            for member in members:
                if isinstance(member, int | str):
                    numbers[member] = member if isinstance(member, str) else shift + len(numbers)
            params = [numbers[m] for m in members if isinstance(m, int | str)]
            groups.append({**group, "name": f"{label}/{group_name(group, index)}", "params": params})
        states |= {numbers[k]: v for k, v in own.items() if isinstance(k, int | str) and k in numbers}
        shift += len(numbers)
    return {"param_groups": groups, "state": states}


def map_with_companions(parts: Parts, parameters: Mapping[str, Place], path: str) -> Mapped | None:
    """The parameter groups of an optimizer that trains the file's other models as well, before or after this one."""
    others: dict[str, Place] = {}
    for key, node in parts.companions.items():
        found = tensors(node, path)
        others |= {f"{key}/{n}": p for n, p in found.items() if not is_buffer(n, p, found)}
    for everything in ({**parameters, **others}, {**others, **parameters}):
        mapped = map_groups(numbered(parts.optimizers[0]), everything, parts.ordered, path, parts.family)
        if mapped.groups:
            groups = {g: tuple(n for n in names if n in parameters) for g, names in mapped.groups.items()}
            return Mapped(groups, {n: s for n, s in mapped.states.items() if n in parameters})
    return None
