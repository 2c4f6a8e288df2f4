"""Which weights are scale-invariant, guessed from names and shapes alone. Nothing is claimed that may well be wrong.

A name cannot show a residual connection or an activation, so a claim is made only where the usual way of writing a
network leaves no other reading: a convolution and the batch normalization registered right after it in the same
module, a projection with its own per-head normalization, a weight-normalized tensor. All else is "not invariant" or
"unknown", with the reason. Evidence is always "guessed".
"""

from __future__ import annotations

from collections.abc import Mapping

from smd_analyze.invariance.modules import Module, modules_of, order_is_known, output_axis, role
from smd_analyze.invariance.naming_attention import attention_verdicts, residual_verdicts
from smd_analyze.invariance.naming_factors import factor_verdicts
from smd_analyze.invariance.naming_norms import norm_verdicts
from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.records.run import LazyTensor

PLAIN = {
    "norm gain": "a gain is applied after the normalization: it sets the scale of what follows",
    "bias": "a bias has no scale of its own: nothing divides it out",
    "embedding": "the embedding enters the residual stream, or a layer without a normalization before it",
    "other": "no known normalization acts on it",
}
ELSEWHERE = "no normalization follows it by name and order; whether one does on another way, only the graph tells"


def name_verdicts(
    parameters: Mapping[str, LazyTensor], buffers: Mapping[str, LazyTensor], frozen: Mapping[str, str] = {}
) -> list[Verdict]:
    """A verdict for every parameter, in the parameters' order; a fused tensor has one per slice.

    `parameters` and `buffers` map names to tensors of which only shape and layout are looked at; `frozen` maps
    normalizations to when they were frozen.
    """
    modules = modules_of(parameters, buffers, frozen)
    ordered = order_is_known(parameters)
    found: dict[str, list[Verdict]] = {}
    for rule, sure in (
        (factor_verdicts, False), (attention_verdicts, False), (norm_verdicts, True), (residual_verdicts, False),
        (norm_verdicts, False),
    ):  # fmt: skip
        decided: dict[str, list[Verdict]] = {}
        for verdict in rule(modules, ordered):
            if verdict.parameter not in found and (not sure or verdict.status in ("invariant", "dead")):
                decided.setdefault(verdict.parameter, []).append(verdict)
        found |= decided
    norms = [i for i, m in enumerate(modules) if m.norm_size]
    open_ = {m.path for m in modules[: norms[-1] if ordered and norms else len(modules)]} if norms else set()
    by_name = {name: module for module in modules for name in module.names.values()}
    verdicts: list[Verdict] = []
    for name, tensor in parameters.items():
        verdicts += found.get(name) or [_plain(name, tensor, by_name.get(name), open_)]
    return verdicts


def _plain(name: str, tensor: LazyTensor, module: Module | None, open_: set[str]) -> Verdict:
    """What is said of a tensor that no rule speaks of. `open_`: modules that a normalization may come after."""
    kind = role(name, tensor)
    axis = output_axis(tensor)
    reason = PLAIN.get(kind, "no normalization follows it directly")
    if module is not None and module.norm_size and kind == "bias":
        reason = "the shift of a normalization is added after it"
    units = tensor.shape[axis] if tensor.shape else 1
    if kind == "conv" and module is not None and module.path in open_:
        return Verdict(name, kind, "unknown", ELSEWHERE, "guessed", "", axis, units=units)
    return Verdict(name, kind, "not invariant", reason, "guessed", "", axis, units=units)
