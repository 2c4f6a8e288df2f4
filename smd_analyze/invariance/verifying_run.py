"""The numeric check of a run's model: the checkpoint's weights in the model's shapes, and whether there is room."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from smd_analyze.errors import SmdError
from smd_analyze.invariance.sources.base import Built
from smd_analyze.invariance.tracing import Graph
from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.invariance.verifying import in_words, not_run, verify
from smd_analyze.invariance.verifying_points import COPIES, Inputs
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import LazyTensor

DOUBLE = 8  # bytes


def verified(
    built: Built,
    graph: Graph,
    inputs: Inputs,
    matched: Mapping[str, str],
    tensors: Mapping[str, LazyTensor],
    verdicts: Mapping[str, Sequence[Verdict]],
    frozen: Collection[str] = (),
) -> tuple[dict[str, list[Verdict]], list[Finding]]:
    """The model's own verdicts after the numeric check. `matched`: run's name → model's, as for the graph.

    `frozen`: modules that stay in eval mode.
    """
    unchanged = {name: list(found) for name, found in verdicts.items()}
    needed = COPIES * DOUBLE * sum(p.numel() for p in built.network.parameters())
    room = available_memory()
    if room is not None and needed > room:
        why = f"it needs about {needed / 1e9:.1f} GB of memory and {room / 1e9:.1f} GB are free"
        return unchanged, [not_run(built.label, why)]
    network = built.network
    if any(t.is_meta for t in (*network.parameters(), *network.buffers())):
        if built.real is None:
            why = "the model has shapes only, no numbers; give one with numbers with --model"
            return unchanged, [not_run(built.label, why)]
        try:
            network = built.real()
        except Exception as error:  # the library that builds it raises whatever it meets
            return unchanged, [not_run(built.label, in_words(error))]
    orders = built.transposed or {}
    weights: dict[str, Callable[[], torch.Tensor]] = {}
    for name, own in matched.items():
        if "float" in tensors[name].dtype and own in graph.aliases:
            weights.setdefault(graph.aliases[own], partial(_read, name, tensors[name], orders.get(own)))
    try:
        return verify(network, inputs, weights, verdicts, built.label, frozen)
    except SmdError as problem:  # a checkpoint that cannot be read
        return unchanged, [not_run(built.label, str(problem))]


def _read(name: str, tensor: LazyTensor, order: tuple[int, ...] | None) -> torch.Tensor:
    loaded = tensor.load()
    return loaded.permute(order) if order else loaded


def available_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
