"""The model's parameters against the checkpoints': prefixes, other frameworks' words and layouts, fused tensors.

Every name is settled one of three ways: one tensor of the run is one of the model's, a fused tensor of the one is
several of the other's, or a finding says that it was not matched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from smd_analyze.errors import UsageError
from smd_analyze.invariance.fused import Piece, fused_parts
from smd_analyze.invariance.modules import split
from smd_analyze.invariance.renaming import canonical
from smd_analyze.invariance.tracing import Graph
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import LazyTensor

SHOWN = 3
FEWEST = 0.5  # of the run's matrices, or of the model's: fewer in common are chance, not one model


@dataclass(frozen=True)
class Match:
    """names: run's → model's. orders: model's → axes of the run's tensor in the model's order, where it is another.

    parts: run's → the pieces of the model's tensors that it is made of, where the one is fused and the other not.
    """

    names: Mapping[str, str]
    orders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    parts: Mapping[str, tuple[Piece, ...]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def match_names(
    graph: Graph,
    tensors: Mapping[str, LazyTensor],
    label: str,
    told: Mapping[str, str] = {},
    orders: Mapping[str, tuple[int, ...]] = {},
) -> Match:
    """Find each of the run's tensors in the model, by the one prefix, added or dropped, that fits most.

    `told` names are matched as told. `orders`: model's parameter → axes of the run's tensor in the model's order.
    Raises UsageError if the model is another one: too few matrices have both name and shape in common.
    """
    best = {name: own for name, own in told.items() if name in tensors and own in graph.shapes}
    best = max(best, _by_prefix(tensors, graph.shapes), key=len)
    best |= _by_words([n for n in tensors if n not in best], set(graph.shapes) - set(best.values()))
    orders = {**_orders(graph, tensors, best), **orders}
    reshaped = {n: own for n, own in best.items() if _ordered(tensors[n].shape, orders.get(own)) != graph.shapes[own]}
    matched = {n: own for n, own in best.items() if n not in reshaped}
    free = {own: s for own, s in graph.shapes.items() if own not in set(best.values())}
    parts, unclear = fused_parts({n: t for n, t in tensors.items() if n not in best}, free, matched)
    found = {*matched, *parts}
    _refuse_another(graph, tensors, label, found, {*matched.values(), *(p.own for ps in parts.values() for p in ps)})
    findings = list(unclear)
    if reshaped:
        first, own = next(iter(reshaped.items()))
        detail = f"{first} is {tensors[first].shape} in the run and {graph.shapes[own]} in the model"
        findings.append(
            _finding("model-shape-differs", reshaped, f"{len(reshaped)} parameters have another shape: {detail}")
        )
    missing = [n for n in tensors if n not in best and n not in parts]
    if missing:
        findings.append(
            _finding(
                "not-in-model", missing, f"{len(missing)} of the run's parameters are not in {label}: {_some(missing)}"
            )
        )
    used = {graph.aliases[own] for own in [*best.values(), *(p.own for ps in parts.values() for p in ps)]}
    absent = sorted({n for n, own in graph.aliases.items() if own not in used})
    if absent:
        findings.append(
            _finding("not-in-run", absent, f"{len(absent)} parameters of {label} are not in the run: {_some(absent)}")
        )
    return Match(matched, orders, parts, tuple(findings))


def _by_prefix(names: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Names that are equal but for one prefix, whichever fits most."""
    names, known = list(names), set(others)
    added, dropped = _prefix(names, known), _prefix(known, names)
    best: dict[str, str] = {}
    for more, less in (("", ""), (added, ""), ("", dropped)):
        tried = {name: less + name.removeprefix(more) for name in names if name.startswith(more)}
        tried = {name: own for name, own in tried.items() if own in known}
        if len(tried) > len(best):
            best = tried
    return best


def _by_words(names: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Names that are equal in the words of one framework; a word that would fit several matches none."""
    mine, theirs = _unique(names), _unique(others)
    return {mine[a]: theirs[b] for a, b in _by_prefix(mine, theirs).items()}


def _unique(names: Iterable[str]) -> dict[str, str]:
    """Canonical name → name, where only one has it."""
    words: dict[str, list[str]] = {}
    for name in names:
        words.setdefault(canonical(name), []).append(name)
    return {word: same[0] for word, same in words.items() if len(same) == 1}


def _orders(graph: Graph, tensors: Mapping[str, LazyTensor], matched: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Axes in the model's order, for tensors whose layout is known and not the one that torch's layer has."""
    found = {}
    for name, own in matched.items():
        layout, kind = tensors[name].layout or "", graph.module_types.get(split(own)[0], "")
        wanted = "IO" if kind.startswith("ConvTranspose") or kind == "Conv1D" else "OI"
        wanted += "".join(c for c in layout if c not in "OI")
        if sorted(layout) == sorted(wanted) and layout != wanted and len(set(layout)) == len(layout):
            order = tuple(layout.index(c) for c in wanted)
            if _ordered(tensors[name].shape, order) == graph.shapes[own]:
                found[own] = order
    return found


def _ordered(shape: tuple[int, ...], order: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape with its axes in the model's order."""
    return tuple(shape[i] for i in order) if order and sorted(order) == list(range(len(shape))) else shape


def _refuse_another(
    graph: Graph, tensors: Mapping[str, LazyTensor], label: str, found: set[str], used: set[str]
) -> None:
    """A model of which little is in the run, while little of the run is in it, is another one."""
    mine = {n for n, t in tensors.items() if len(t.shape) > 1} or set(tensors)
    theirs = {n for n, s in graph.shapes.items() if len(s) > 1} or set(graph.shapes)
    few = len(mine & found) < FEWEST * len(mine) and len(theirs & used) < FEWEST * len(theirs)
    if not found or few:
        common = f"only {len(mine & found)} of {len(mine)} matrices have" if found else "no parameter has"
        raise UsageError(
            f"{label} is not the model of this run: {common} both name and shape in common (the run has "
            f"{_some(_unlike(mine, found))}; the model {_some(_unlike(theirs, used))}); name the model that was trained"
        )


def _unlike(names: set[str], found: set[str]) -> list[str]:
    return sorted(names - found) or sorted(names)


def _finding(code: str, names: Iterable[str], message: str) -> Finding:
    remedy = "their verdicts are guessed from names; check that --model builds the network that was trained"
    if code == "not-in-run":
        remedy = "check that --model builds the network that was trained"
    return Finding(code, "warning", next(iter(names)), message, remedy)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:SHOWN]) + (", …" if len(listed) > SHOWN else "")


def _prefix(longer: Iterable[str], shorter: Iterable[str]) -> str:
    """The commonest text before a name of `shorter` at the end of a name of `longer`; "" if there is none."""
    known = set(shorter)
    counts: Counter[str] = Counter()
    for name in longer:
        words = name.split(".")
        for cut in range(1, len(words)):
            if ".".join(words[cut:]) in known:
                counts[".".join(words[:cut]) + "."] += 1
                break
    return counts.most_common(1)[0][0] if counts else ""
