"""One document understood: parameters, buffers, other copies, optimizer state, settings, facts about the step.

A Reading knows no path. Documents of one tree share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from smd_analyze.errors import UsageError
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks.base import Fact, Parts, Told
from smd_analyze.loading.frameworks.registry import framework_of
from smd_analyze.loading.names import clean_names, is_buffer, is_torch_like, split_averages, tied, with_layouts
from smd_analyze.loading.optimizers import Chosen, choose
from smd_analyze.loading.parameter_groups import Mapped
from smd_analyze.loading.settings import read_settings
from smd_analyze.loading.tensors import Place
from smd_analyze.loading.trees import tensors
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import Setting

COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Reading:
    """What a tree means.

    `counter` is where a BatchNorm counts the batches it has seen; `unread` are settings that lie in a tensor.
    """

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
    unread: Mapping[Setting, Place] = field(default_factory=dict)


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
    declared = tensors(parts.buffers, path)
    buffers |= {n: p for n, p in declared.items() if n not in parameters}
    torch_like = is_torch_like(document.format, parameters) if parts.torch_like is None else parts.torch_like
    parameters = with_layouts({n: p for n, p in parameters.items() if n not in twins}, torch_like)
    variants = {
        label: find_twins(found := tensors(node, path), parameters) or by_order(found, live, parts.ordered)
        for label, node in parts.variants.items()
    }
    if averaged:
        variants["ema"] = averaged
    variants = {label: with_layouts(copy, torch_like) for label, copy in variants.items() if copy}
    if parts.only:
        variants.setdefault(parts.only, parameters)
        findings.append(Finding(f"only-{parts.only}", "warning", path, f"holds only the {parts.only} copy of the weights: their norm and angle lag behind the live ones"))  # noqa: E501  # fmt: skip
    chosen = told(parts.told, parameters) if parts.told else choose(parts, parameters, path)
    mapped = chosen.mapped
    if mapped.groups:
        trained = {n for names in mapped.groups.values() for n in names}
        idle = [n for n in parameters if n not in trained] if parts.ordered else []
        if idle:
            words = f"not in the optimizer, so not trained: {', '.join(idle[:3])}" + (" …" if len(idle) > 3 else "")
            findings.append(Finding("not-trained", "note", path, words))
            buffers |= {n: parameters[n] for n in idle}
            parameters = {n: p for n, p in parameters.items() if n in trained}
    if parts.others:
        findings.append(Finding("several-models", "note", path, f"the model analysed is {parts.where!r}; also there: {', '.join(parts.others)}"))  # noqa: E501  # fmt: skip
    counter = next((p for n, p in buffers.items() if n.endswith(COUNTER)), None)
    if weights != "live":
        parameters = pick_variant(weights, variants, parameters, path)
    settings, unread = read_settings(parts, chosen.optimizers)
    if parts.told:
        settings, unread = (*settings, *parts.told.settings), {**unread, **parts.told.unread}
        findings += parts.told.findings
    return Reading(
        framework.name,
        parameters,
        buffers,
        variants,
        mapped.states,
        mapped.groups,
        settings,
        parts.facts,
        parts.logged,
        counter,
        (*findings, *mapped.findings),
        unread,
    )


def told(found: Told, parameters: Mapping[str, Place]) -> Chosen:
    """Groups and states as the framework tells them by name, as far as they are of the parameters."""
    groups = {g: kept for g, names in found.groups.items() if (kept := tuple(n for n in names if n in parameters))}
    return Chosen({}, Mapped(groups, {n: s for n, s in found.states.items() if n in parameters and s}))


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


def by_order(copy: Mapping[str, Place], live: Mapping[str, Place], ordered: bool) -> dict[str, Place]:
    """A copy that is a list (torch_ema's shadow_params): in the order of parameters(), if every shape agrees."""
    parameters = [n for n, p in live.items() if not is_buffer(n, p, live)]
    numbered = [p for n, p in copy.items() if n.rpartition(".")[2].isdigit()]
    for names in (parameters, list(live)):
        if (
            ordered
            and len(numbered) == len(names)
            and all(p.shape == live[n].shape for n, p in zip(names, numbered, strict=True))
        ):
            return {n: p for n, p in zip(names, numbered, strict=True) if n in parameters}
    return {}


def pick_variant(
    wanted: str, variants: Mapping[str, Mapping[str, Place]], parameters: Mapping[str, Place], path: str
) -> Mapping[str, Place]:
    """The parameters of the wanted copy; UsageError that names what exists."""
    if wanted not in variants:
        have = ", ".join(["live", *sorted(variants)])
        raise UsageError(f"{path}: has no {wanted!r} weights; there are: {have}")
    return {n: p for n, p in variants[wanted].items() if n in parameters} or variants[wanted]
