"""One document understood: parameters, buffers, other copies, optimizer state, settings, facts about the step.

A Reading knows no path. Documents of one tree share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from smd_analyze.errors import UsageError
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks.base import Fact, Parts
from smd_analyze.loading.frameworks.registry import framework_of
from smd_analyze.loading.names import clean_names, is_buffer, is_torch_like, split_averages, tied, with_layouts
from smd_analyze.loading.parameter_groups import Mapped, map_groups
from smd_analyze.loading.settings import read_settings
from smd_analyze.loading.tensors import Place
from smd_analyze.loading.trees import tensors
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import Setting

COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Reading:
    """What a tree means. `counter` is where a BatchNorm counts the batches it has seen."""

    framework: str
    parameters: Mapping[str, Place]
    buffers: Mapping[str, Place] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Place]] = field(default_factory=dict)
    optimizer_state: Mapping[str, Mapping[str, Place]] = field(default_factory=dict)
    parameter_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settings: tuple[Setting, ...] = ()
    facts: tuple[Fact, ...] = ()
    logged: tuple[tuple[int, float], ...] = ()
    counter: Place | None = None
    findings: tuple[Finding, ...] = ()


def read(document: Document, weights: str = "live") -> Reading:
    """Interpret a document. `weights` picks the copy that is analysed: "live", "ema" or "master"."""
    framework = framework_of(document)
    parts = framework.parts(document)
    path = document.path
    live, averaged = split_averages(named_tensors(parts, path))
    parameters = {n: p for n, p in live.items() if not is_buffer(n, p, live)}
    buffers = {n: p for n, p in live.items() if n not in parameters}
    twins = tied(parameters)
    findings = [
        Finding("tied-parameter", "note", name, f"is the same tensor as {first}; it is analysed once, under that name")
        for name, first in twins.items()
    ]
    torch_like = is_torch_like(document.format, parameters)
    parameters = with_layouts({n: p for n, p in parameters.items() if n not in twins}, torch_like)
    variants = {label: find_twins(tensors(node, path), parameters) for label, node in parts.variants.items()}
    if averaged:
        variants["ema"] = averaged
    variants = {label: with_layouts(copy, torch_like) for label, copy in variants.items() if copy}
    if parts.only:
        variants.setdefault(parts.only, parameters)
        findings.append(Finding(f"only-{parts.only}", "warning", path, f"holds only the {parts.only} copy of the weights: their norm and angle lag behind the live ones"))  # noqa: E501  # fmt: skip
    mapped = Mapped()
    if parts.optimizers and parameters:
        mapped = map_groups(parts.optimizers[0], parameters, parts.ordered, path)
        if not mapped.groups and parts.companions:
            mapped = map_with_companions(parts, parameters, path) or mapped
        trained = {n for names in mapped.groups.values() for n in names}
        idle = [n for n in parameters if n not in trained] if trained and parts.ordered else []
        if idle:
            words = f"not in the optimizer, so not trained: {', '.join(idle[:3])}" + (" …" if len(idle) > 3 else "")
            findings.append(Finding("not-trained", "note", path, words))
            buffers |= {n: parameters[n] for n in idle}
            parameters = {n: p for n, p in parameters.items() if n in trained}
        if len(parts.optimizers) > 1:
            findings.append(Finding("several-optimizers", "note", path, f"holds {len(parts.optimizers)} optimizers; the first one is read"))  # noqa: E501  # fmt: skip
    if parts.others:
        findings.append(Finding("several-models", "note", path, f"the model analysed is {parts.where!r}; also there: {', '.join(parts.others)}"))  # noqa: E501  # fmt: skip
    counter = next((p for n, p in buffers.items() if n.endswith(COUNTER)), None)
    if weights != "live":
        parameters = pick_variant(weights, variants, parameters, path)
    return Reading(
        framework.name,
        parameters,
        buffers,
        variants,
        mapped.states,
        mapped.groups,
        read_settings(parts),
        parts.facts,
        parts.logged,
        counter,
        (*findings, *mapped.findings),
    )


def map_with_companions(parts: Parts, parameters: Mapping[str, Place], path: str) -> Mapped | None:
    """The parameter groups of an optimizer that trains the file's other models as well, before or after this one."""
    others: dict[str, Place] = {}
    for key, node in parts.companions.items():
        found = tensors(node, path)
        others |= {f"{key}/{n}": p for n, p in found.items() if not is_buffer(n, p, found)}
    for everything in ({**parameters, **others}, {**others, **parameters}):
        mapped = map_groups(parts.optimizers[0], everything, parts.ordered, path)
        if mapped.groups:
            groups = {g: tuple(n for n in names if n in parameters) for g, names in mapped.groups.items()}
            return Mapped(groups, {n: s for n, s in mapped.states.items() if n in parameters})
    return None


def named_tensors(parts: Parts, path: str) -> dict[str, Place]:
    """The weights under clean names."""
    found = tensors(parts.weights, path)
    names = clean_names(found)
    return {names[n]: p for n, p in found.items()}


def find_twins(copy: Mapping[str, Place], parameters: Mapping[str, Place]) -> dict[str, Place]:
    """The tensors of another copy under the parameters' names: those that agree in name and shape, prefixes aside."""
    names = clean_names(copy)
    cleaned = {names[n]: p for n, p in copy.items()}
    for prefix in (
        "",
        "module.",
        "model.",
        "ema_model.",
        "shadow.",
        "state_dict.",
        "state_dict_ema.",
        "shadow_params.",
    ):
        found = {
            n: p
            for n, place in parameters.items()
            if (p := cleaned.get(prefix + n)) is not None and p.shape == place.shape
        }
        if found:
            return found
    return {}


def pick_variant(
    wanted: str, variants: Mapping[str, Mapping[str, Place]], parameters: Mapping[str, Place], path: str
) -> Mapping[str, Place]:
    """The parameters of the wanted copy; UsageError that names what exists."""
    if wanted not in variants:
        have = ", ".join(["live", *sorted(variants)])
        raise UsageError(f"{path}: has no {wanted!r} weights; there are: {have}")
    return {n: p for n, p in variants[wanted].items() if n in parameters} or variants[wanted]
