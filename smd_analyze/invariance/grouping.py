"""find_groups(): what is analysed, from the model's graph if there is a model, else from names and shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from smd_analyze.errors import NothingToAnalyse, SmdError, UsageError
from smd_analyze.invariance.epsilon import up_to_epsilon
from smd_analyze.invariance.folding import as_saved, folded
from smd_analyze.invariance.frozen import frozen_norms
from smd_analyze.invariance.naming import name_verdicts
from smd_analyze.invariance.sources.base import Built
from smd_analyze.invariance.sources.registry import build, known
from smd_analyze.invariance.tables import groups_of
from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.records.finding import Finding
from smd_analyze.records.group import Groups
from smd_analyze.records.run import GraphHint, LazyTensor, Run

NAMES_ONLY = "none"
Proved = tuple[list[Verdict], str, list[Finding]]  # verdicts, what they rest on, what did not fit
Prove = Callable[[Built], Proved]


def find_groups(
    run: Run,
    model: str | Callable[..., Any] | GraphHint | None = None,
    inputs: Any = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    verify: bool = False,
) -> Groups:
    """Account for every parameter of the run and form the groups that are analysed.

    Args:
        run: the checkpoints; names, shapes and layouts are looked at, and running statistics of batch normalizations
            are read (frozen ones divide no scale out).
        model: an nn.Module, a factory called without arguments that returns one, or where to find either, as
            "package.module:callable" or "file.py:callable". None: from a description of the model that lies with the
            checkpoints (`run.graphs`), else by names and shapes (evidence "guessed"). "none": by names in any case.
        inputs: the model's example inputs: a tuple of tensors, one tensor, a factory of these, or where to find it.
            None: guessed from the model's first layer or its `config`.
        include: globs on parameter names; empty means all. Only here can gains and biases become groups.
        exclude: globs on parameter names that are never groups.
        verify: check every verdict numerically too, by running the model: the one case in which tensors are read.

    Raises:
        UsageError: the model or its inputs cannot be had, or the model is not that of the run.
        NothingToAnalyse: the run holds no parameters.
    """
    graphs = () if model == NAMES_ONLY else run.graphs
    model = None if model == NAMES_ONLY else model
    if inputs is not None and model is None and not graphs:
        raise UsageError("--inputs says what --model is traced with: give --model too")
    tensors = parameters_of(run)
    buffers = {name: t for c in run.checkpoints for name, t in c.buffers.items()}
    frozen, told = frozen_norms(run)
    guessed = name_verdicts(tensors, buffers, frozen)
    verdicts, source, findings = guessed, "names and shapes", []

    def prove(built: Built) -> Proved:
        from smd_analyze.invariance.graph import built_verdicts  # imports torch

        return built_verdicts(built, inputs, tensors, guessed, verify, frozen)

    if isinstance(model, GraphHint):
        verdicts, source, findings = _named(model, {**tensors, **buffers}, prove)
    elif model is not None:
        from smd_analyze.invariance.graph import graph_verdicts  # imports torch

        verdicts, source, findings = graph_verdicts(model, inputs, tensors, guessed, verify, frozen)
    elif graphs:
        verdicts, source, findings = _described(graphs, {**tensors, **buffers}, prove, guessed)
    if verify and verdicts is guessed:
        why = findings[0].message if findings else "no description of it lies with the checkpoints"
        raise UsageError(f"--verify runs the model, and there is none ({why}); give it with --model")
    if verdicts is not guessed:
        verdicts, sizes = up_to_epsilon(verdicts, run)
        findings = [*findings, *sizes]
    findings = [*told, *findings]
    seen = {name: folded(t) for name, t in tensors.items()}
    if verdicts is guessed and any(seen[n] is not t for n, t in tensors.items()):
        guessed = name_verdicts(seen, buffers, frozen)
        made = groups_of(guessed, seen, run.parameter_groups, source, include, exclude, findings)
        return as_saved(made, tensors, seen)
    return groups_of(verdicts, tensors, run.parameter_groups, source, include, exclude, findings)


def _named(hint: GraphHint, tensors: Mapping[str, LazyTensor], prove: Prove) -> Proved:
    """From the description that --model names; an error if it yields no model of theirs."""
    source = next((source for source, _ in known([hint])), None)
    if source is None:
        raise UsageError(f"{hint.source}: a {hint.kind} tells no graph; name a file.py:callable that builds the model")
    return prove(build(source, hint, tensors))


def _described(
    hints: Sequence[GraphHint], tensors: Mapping[str, LazyTensor], prove: Prove, guessed: list[Verdict]
) -> Proved:
    """From the first description with the checkpoints that yields a model of theirs; else guessed, and why."""
    findings: list[Finding] = []
    for source, hint in known(hints):
        try:
            verdicts, label, found = prove(build(source, hint, tensors))
        except SmdError as problem:
            words = str(problem).removeprefix(f"{hint.source}: ")
            remedy = "Scale invariance is guessed from names and shapes."
            findings.append(Finding("graph-not-used", "note", hint.source, words, remedy))
            continue
        except Exception as problem:  # any model may be described: a fault of ours in its graph costs the proof only
            words = f"its graph could not be analysed ({type(problem).__name__}: {problem})"
            remedy = "Scale invariance is guessed from names and shapes; please report it."
            findings.append(Finding("graph-not-used", "warning", hint.source, words, remedy))
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
            if name not in shapes:
                shapes[name] = Counter()
            shapes[name][tensor.shape] += 1
            latest.setdefault((name, tensor.shape), tensor)
    if not shapes:
        raise NothingToAnalyse(
            f"{run.path}: no checkpoint of the run holds a parameter; see `smd-analyze ls {run.path}`"
        )
    return {name: latest[name, counted.most_common(1)[0][0]] for name, counted in shapes.items()}
