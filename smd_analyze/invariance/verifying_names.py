"""A model that runs but cannot be traced: what names suggest is checked numerically, which is all that can be had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from smd_analyze.errors import UsageError
from smd_analyze.invariance.matching import match_names
from smd_analyze.invariance.sources.base import Built
from smd_analyze.invariance.tracing import untraced
from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.invariance.verifying_points import Inputs
from smd_analyze.invariance.verifying_run import verified
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import LazyTensor


def checked_guesses(
    built: Built,
    inputs: Iterable[Inputs],
    tensors: Mapping[str, LazyTensor],
    guessed: Sequence[Verdict],
    problem: UsageError,
) -> tuple[list[Verdict], str, list[Finding]]:
    """The guessed verdicts after the numeric check with the first of `inputs` that the model accepts.

    Raises `problem`, which tells why there is no graph, if the model cannot be run either.
    """
    graph = untraced(built.network)
    match = match_names(graph, tensors, built.label, built.names or {}, built.transposed or {})
    matched, orders = match.names, match.orders
    built = replace(built, transposed=orders)
    asked: dict[str, list[Verdict]] = {}
    place: dict[str, list[int]] = {}
    for number, verdict in enumerate(guessed):
        own = matched.get(verdict.parameter)
        name = graph.aliases[own] if own is not None else ""
        if own is None or any(guessed[i].parameter != verdict.parameter for i in place.get(name, ())):
            continue  # not the model's, or a tied tensor that is asked about under its first name
        order = orders.get(own)
        axis = order.index(verdict.axis) if order else verdict.axis
        asked.setdefault(name, []).append(replace(verdict, parameter=name, axis=axis))
        place.setdefault(name, []).append(number)
    for chosen in inputs:
        rows, findings = verified(built, graph, chosen, matched, tensors, asked)
        if findings[-1].code != "not-verified":
            break
    else:
        raise problem
    verdicts = list(guessed)
    for name, found in rows.items():
        for number, verdict in zip(place[name], found, strict=True):
            verdicts[number] = _back(verdict, guessed[number], orders.get(matched[guessed[number].parameter]))
    note = Finding(
        "graph-not-traced", "warning", built.label, str(problem),
        "verdicts are guessed from names and checked numerically: what is confirmed holds at the probed points",
    )  # fmt: skip
    return (
        verdicts,
        f"names and shapes, checked with {built.label}",
        [*built.findings, note, *match.findings, *findings],
    )


def _back(verdict: Verdict, before: Verdict, order: tuple[int, ...] | None) -> Verdict:
    """Under the run's name and axes again."""
    return replace(verdict, parameter=before.parameter, axis=order[verdict.axis] if order else verdict.axis)
