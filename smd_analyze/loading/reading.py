"""One document understood: parameters, buffers, other copies, optimizer state, settings, facts about the step.

A Reading knows no path. Documents of one tree share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from smd_analyze.errors import UsageError
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks.base import Fact, Parts, Told
from smd_analyze.loading.frameworks.registry import framework_of
from smd_analyze.loading.roles.averages import PREFIXES, split_averages
from smd_analyze.loading.roles.copies import by_order, find_twins, masters_of
from smd_analyze.loading.roles.names import EMBEDDINGS, HEADS, clean_names, is_buffer, is_torch_like, tied, with_layouts
from smd_analyze.loading.roles.unread import unread_findings
from smd_analyze.loading.settings.optimizers import Chosen, choose
from smd_analyze.loading.settings.parameter_groups import Mapped
from smd_analyze.loading.settings.saved import read_settings
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import tensors
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import GraphHint, Setting

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
    graphs: tuple[GraphHint, ...] = ()


def read(document: Document, weights: str = "live") -> Reading:
    """Interpret a document. `weights` picks the copy that is analysed: "live", "ema" or "master"."""
    framework = framework_of(document)
    parts = framework.parts(document)
    path = document.path
    live, averaged, average = split_averages(named_tensors(parts, path))
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
    findings += unread_findings(parts.weights, live, path)
    chosen = told(parts.told, parameters) if parts.told else choose(parts, parameters, path)
    mapped = chosen.mapped
    copies = {
        label: find_twins(found := tensors(node, path), parameters)
        or by_order(found, live, mapped.groups, parts.ordered)
        for label, node in parts.variants.items()
    }
    copies.setdefault("master", masters_of(mapped.states, parameters))
    if averaged:
        copies["ema"] = {n: p for n, p in averaged.items() if n in parameters}
        if average + "." not in PREFIXES:
            words = f"{average}: taken for an averaged copy of the weights that stand beside it"
            findings.append(Finding("averaged-copy", "note", path, words))
    variants = {label: with_layouts(copy, torch_like) for label, copy in copies.items() if copy}
    if parts.only:
        variants.setdefault(parts.only, parameters)
        findings.append(Finding(f"only-{parts.only}", "warning", path, f"holds only the {parts.only} copy of the weights: their norm and angle lag behind the live ones"))  # noqa: E501  # fmt: skip
    if mapped.groups:
        trained = {n for names in mapped.groups.values() for n in names}
        idle = [n for n in parameters if n not in trained] if parts.ordered else []
        if idle:
            words = f"not in the optimizer, so not trained: {', '.join(idle[:3])}" + (" …" if len(idle) > 3 else "")
            words += likely_tied(idle, parameters, trained)
            findings.append(Finding("not-trained", "note", path, words))
            buffers |= {n: parameters[n] for n in idle}
            parameters = {n: p for n, p in parameters.items() if n in trained}
            variants = {label: kept_of(copy, parameters) for label, copy in variants.items()}
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
        (*parts.findings, *findings, *mapped.findings),
        unread,
        parts.graphs,
    )


def likely_tied(idle: Sequence[str], parameters: Mapping[str, Place], trained: Set[str]) -> str:
    """Some formats save a shared matrix once under each of its names; the optimizer knows one of them."""
    matrices = {parameters[n].shape: n for n in trained if n in parameters and len(parameters[n].shape) == 2}
    for name in idle:
        if (first := matrices.get(parameters[name].shape)) and HEADS.search(name) and EMBEDDINGS.search(first):
            return f" ({name} may be the same matrix as {first}, saved twice: that one is analysed)"
    return ""


def kept_of(copy: Mapping[str, Place], parameters: Mapping[str, Place]) -> Mapping[str, Place]:
    """A copy without what turned out not to be trained."""
    return copy if copy.keys() <= parameters.keys() else {n: p for n, p in copy.items() if n in parameters}


def told(found: Told, parameters: Mapping[str, Place]) -> Chosen:
    """Groups and states as the framework tells them by name, as far as they are of the parameters."""
    groups = {g: kept for g, names in found.groups.items() if (kept := tuple(n for n in names if n in parameters))}
    return Chosen({}, Mapped(groups, {n: s for n, s in found.states.items() if n in parameters and s}))


def named_tensors(parts: Parts, path: str) -> dict[str, Place]:
    """The weights under clean names."""
    found = tensors(parts.weights, path)
    names = clean_names(found)
    return {names[n]: p for n, p in found.items()}


def pick_variant(
    wanted: str, variants: Mapping[str, Mapping[str, Place]], parameters: Mapping[str, Place], path: str
) -> Mapping[str, Place]:
    """The parameters of the wanted copy; UsageError that names what exists."""
    if wanted not in variants:
        have = ", ".join(["live", *sorted(variants)])
        raise UsageError(f"{path}: has no {wanted!r} weights; there are: {have}")
    return {n: p for n, p in variants[wanted].items() if n in parameters} or variants[wanted]
