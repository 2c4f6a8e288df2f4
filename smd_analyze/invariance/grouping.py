"""find_groups(): what is analysed, from the model's graph if there is a model, else from names and shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from smd_analyze.errors import NothingToAnalyse, SmdError
from smd_analyze.invariance.folding import as_saved, folded
from smd_analyze.invariance.naming import name_verdicts
from smd_analyze.invariance.sources.registry import build, known
from smd_analyze.invariance.tables import groups_of
from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.records.finding import Finding
from smd_analyze.records.group import Groups
from smd_analyze.records.run import GraphHint, LazyTensor, Run


def find_groups(
    run: Run,
    model: str | Callable[..., Any] | None = None,
    inputs: Any = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Groups:
    """Account for every parameter of the run and form the groups that are analysed.

    Args:
        run: the checkpoints; only names, shapes and layouts are looked at, no tensor is read.
        model: an nn.Module, a factory called without arguments that returns one, or where to find either, as
            "package.module:callable" or "file.py:callable". None: from a description of the model that lies with the
            checkpoints (`run.graphs`), else by names and shapes (evidence "guessed").
        inputs: the model's example inputs: a tuple of tensors, one tensor, a factory of these, or where to find it.
            None: guessed from the model's first layer or its `config`.
        include: globs on parameter names; empty means all. Only here can gains and biases become groups.
        exclude: globs on parameter names that are never groups.

    Raises:
        UsageError: the model or its inputs cannot be had, or the model is not that of the run.
        NothingToAnalyse: the run holds no parameters.
    """
    tensors = parameters_of(run)
    buffers = {name: t for c in run.checkpoints for name, t in c.buffers.items()}
    guessed = name_verdicts(tensors, buffers)
    verdicts, source, findings = guessed, "names and shapes", []
    if model is not None:
        from smd_analyze.invariance.graph import graph_verdicts  # imports torch

        verdicts, source, findings = graph_verdicts(model, inputs, tensors, guessed)
    elif run.graphs:
        verdicts, source, findings = _described(run.graphs, inputs, {**tensors, **buffers}, tensors, guessed)
    seen = {name: folded(t) for name, t in tensors.items()}
    if verdicts is guessed and any(seen[n] is not t for n, t in tensors.items()):
        guessed = name_verdicts(seen, buffers)
        made = groups_of(guessed, seen, run.parameter_groups, source, include, exclude, findings)
        return as_saved(made, tensors, seen)
    return groups_of(verdicts, tensors, run.parameter_groups, source, include, exclude, findings)


def _described(
    hints: Sequence[GraphHint],
    inputs: Any,
    everything: Mapping[str, LazyTensor],
    tensors: Mapping[str, LazyTensor],
    guessed: list[Verdict],
) -> tuple[list[Verdict], str, list[Finding]]:
    """From the first description with the checkpoints that yields a model of theirs; else guessed, and why."""
    findings: list[Finding] = []
    for source, hint in known(hints):
        try:
            built = build(source, hint, everything)
            from smd_analyze.invariance.graph import built_verdicts  # imports torch

            verdicts, label, found = built_verdicts(built, inputs, tensors, guessed)
        except SmdError as problem:
            words = str(problem).removeprefix(f"{hint.source}: ")
            remedy = "Scale invariance is guessed from names and shapes."
            findings.append(Finding("graph-not-used", "note", hint.source, words, remedy))
            continue
        return verdicts, label, [*findings, *found]
    return guessed, "names and shapes", findings


def parameters_of(run: Run) -> dict[str, LazyTensor]:
    """Every parameter that any checkpoint holds, with the shape that most checkpoints give it (the latest of equals).

    The order is that of the last checkpoint; parameters that only earlier ones have come after.
    """
    shapes: dict[str, Counter[tuple[int, ...]]] = {}
    latest: dict[tuple[str, tuple[int, ...]], LazyTensor] = {}
    for checkpoint in reversed(run.checkpoints):
        for name, tensor in checkpoint.parameters.items():
            shapes.setdefault(name, Counter())[tensor.shape] += 1
            latest.setdefault((name, tensor.shape), tensor)
    if not shapes:
        raise NothingToAnalyse(
            f"{run.path}: no checkpoint of the run holds a parameter; see `smd-analyze ls {run.path}`"
        )
    return {name: latest[name, counted.most_common(1)[0][0]] for name, counted in shapes.items()}
