"""The one table: operation → how a scale passes through it. What is not in it is opaque: nothing may change there."""

from __future__ import annotations

from collections.abc import Callable

from smd_analyze.invariance import rules_contraction, rules_elementwise, rules_reduction, rules_shape
from smd_analyze.invariance.walking import Outcome

RULES: dict[str, Callable[..., Outcome]] = {
    **rules_elementwise.RULES,
    **rules_shape.RULES,
    **rules_reduction.RULES,
    **rules_contraction.RULES,
}
