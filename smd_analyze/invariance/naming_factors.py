"""Tensors whose own names say how they enter: weight normalization, low-rank factors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from smd_analyze.invariance.modules import Module, role, split
from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.records.run import LazyTensor

LOW_RANK = re.compile(r"(?:^|[._/])lora_?(?:embedding_)?(?:[ab]|up|down)(?:[._/]|$)", re.IGNORECASE)


def factor_verdicts(modules: Sequence[Module], ordered: bool) -> Iterator[Verdict]:
    """Verdicts that follow from a tensor's own name. `ordered` is not used: no order is needed here.

    torch's weight_norm divides v by its norm over all axes but those along which g varies, so v is invariant per index
    of that axis (or whole); spectral_norm divides the tensor by its largest singular value, linear in the tensor.
    """
    for module in modules:
        for direction, magnitude in (("weight_v", "weight_g"), ("original1", "original0")):
            if direction in module.tensors and magnitude in module.tensors:
                yield _direction(module.names[direction], module.tensors[direction], module.tensors[magnitude])
                reason = "the magnitude of a weight-normalized layer: it is the scale"
                yield Verdict(module.names[magnitude], "other", "not invariant", reason, "guessed", "")
        if _standardized(module):
            weight = module.tensors["weight"]
            reason = "a gain per filter beside the kernel: a standardized weight, divided by its own deviation"
            yield Verdict(
                module.names["weight"], "conv", "invariant", reason, "guessed", "unit", 0, units=weight.shape[0]
            )
        for name in module.names.values():
            if LOW_RANK.search(name):
                tensor = module.tensors[split(name)[1]]
                reason = "only the product of the two low-rank factors enters: neither has a scale of its own"
                yield Verdict(name, role(name, tensor), "not invariant", reason, "guessed", units=tensor.shape[0])


def _standardized(module: Module) -> bool:
    """A kernel with a `gain` of shape [filters, 1, 1, 1]: scaled weight standardization, as normalizer-free nets have.

    Source: Brock et al. 2021 (arXiv:2101.08692); timm's ScaledStdConv2d.
    """
    weight, gain = module.tensors.get("weight"), module.tensors.get("gain")
    if weight is None or gain is None or len(weight.shape) < 3:
        return False
    return gain.shape == (weight.shape[0], *[1] * (len(weight.shape) - 1))


def _direction(name: str, tensor: LazyTensor, magnitude: LazyTensor) -> Verdict:
    long = [axis for axis, n in enumerate(magnitude.shape) if n > 1]
    kind = "conv" if len(tensor.shape) > 2 else "linear"
    reason = "weight normalization divides it by its own norm"
    if len(long) == 1 and magnitude.shape[long[0]] == tensor.shape[long[0]]:
        axis = long[0]
        return Verdict(name, kind, "invariant", reason, "guessed", "unit", axis, units=tensor.shape[axis])
    return Verdict(name, kind, "invariant", reason, "guessed", "whole")
