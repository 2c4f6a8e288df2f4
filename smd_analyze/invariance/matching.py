"""The model's parameter names against the checkpoints': wrappers add or drop prefixes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from smd_analyze.errors import UsageError
from smd_analyze.invariance.tracing import Graph
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import LazyTensor

SHOWN = 3


def match_names(
    graph: Graph,
    tensors: Mapping[str, LazyTensor],
    label: str,
    told: Mapping[str, str] = {},
    orders: Mapping[str, tuple[int, ...]] = {},
) -> tuple[dict[str, str], list[Finding]]:
    """Run's name → model's name, by the one prefix, added or dropped, that fits most; and what does not fit.

    `told` names are matched as told. `orders`: model's parameter → axes of the run's tensor in the model's order.
    Raises UsageError if no parameter has both name and shape of the model's.
    """
    added, dropped = _prefix(tensors, graph.shapes), _prefix(graph.shapes, tensors)
    best = {name: own for name, own in told.items() if name in tensors and own in graph.shapes}
    for more, less in (("", ""), (added, ""), ("", dropped)):
        tried = {name: less + name.removeprefix(more) for name in tensors if name.startswith(more)}
        tried = {name: own for name, own in tried.items() if own in graph.shapes}
        if len(tried) > len(best):
            best = tried
    held = {n: _ordered(tensors[n].shape, orders.get(own)) for n, own in best.items()}
    reshaped = {n: own for n, own in best.items() if held[n] != graph.shapes[own]}
    matched = {n: own for n, own in best.items() if n not in reshaped}
    if not matched:
        raise UsageError(
            f"{label} is not the model of this run: no parameter has both name and shape in common (the run has "
            f"{_some(tensors)}; the model {_some(graph.shapes)}); name the model that was trained"
        )
    findings = []
    if reshaped:
        first, own = next(iter(reshaped.items()))
        detail = f"{first} is {tensors[first].shape} in the run and {graph.shapes[own]} in the model"
        findings.append(
            _finding("model-shape-differs", reshaped, f"{len(reshaped)} parameters have another shape: {detail}")
        )
    missing = [n for n in tensors if n not in best]
    if missing:
        findings.append(
            _finding(
                "not-in-model", missing, f"{len(missing)} of the run's parameters are not in {label}: {_some(missing)}"
            )
        )
    used = {graph.aliases[own] for own in best.values()}
    absent = sorted({n for n, own in graph.aliases.items() if own not in used})
    if absent:
        findings.append(
            _finding("not-in-run", absent, f"{len(absent)} parameters of {label} are not in the run: {_some(absent)}")
        )
    return matched, findings


def _ordered(shape: tuple[int, ...], order: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape with its axes in the model's order."""
    return tuple(shape[i] for i in order) if order and sorted(order) == list(range(len(shape))) else shape


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
