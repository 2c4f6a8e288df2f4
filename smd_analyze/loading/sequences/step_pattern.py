"""--step-pattern: the user says where the step stands in the paths, as a regular expression."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from smd_analyze.errors import UsageError
from smd_analyze.loading.files.findings import some
from smd_analyze.loading.sequences.name_tokens import FACTORS, HALF, Number
from smd_analyze.loading.sequences.order_sources import ORDERS
from smd_analyze.loading.units.walk import Unit
from smd_analyze.records.finding import Finding

VALUE = re.compile(r"(\d[\d_,]*(?:\.\d+)?(?:e\+?\d{1,2})?)\s*([kmb])?", re.IGNORECASE)
FORM = "a regular expression with a group, e.g. 'step_(\\d+)' or 'ep(?P<epoch>\\d+)'"


@dataclass(frozen=True)
class StepPattern:
    """What --step-pattern says: the expression, the group that holds the number, and what that counts."""

    text: str
    expression: re.Pattern[str]
    group: str | int
    word: str


def step_pattern_of(text: str | None, order: str = "auto") -> StepPattern | None:
    """Understand the option; UsageError if it is no expression or does not say which part is the number."""
    if order not in ORDERS:
        raise UsageError(f"--order is one of {', '.join(ORDERS)}, not {order!r}")
    if text is None:
        return None
    if order not in ("auto", "name"):
        raise UsageError(f"--step-pattern orders by the names, --order {order} does not: give one of them")
    try:
        expression = re.compile(text)
    except re.error as problem:
        raise UsageError(f"--step-pattern '{text}' is no regular expression: {problem}") from None
    names = expression.groupindex
    for word in ("step", "epoch"):
        if word in names:
            return StepPattern(text, expression, word, word)
    if expression.groups == 1 and not names:
        return StepPattern(text, expression, 1, "step")
    raise UsageError(
        f"--step-pattern '{text}' has {expression.groups or 'no'} groups, none called step or epoch: give {FORM}"
    )


def number_by(pattern: StepPattern, name: str) -> Number | None:
    """The number in a path; None where the pattern does not match. UsageError if what it finds is no number."""
    found = pattern.expression.search(name)
    if found is None or found[pattern.group] is None:
        return None
    text = found[pattern.group]
    value = VALUE.fullmatch(text.strip())
    exact = Decimal(re.sub("[_,]", "", value[1])) * FACTORS[(value[2] or "").lower()] if value else HALF
    if exact != int(exact):
        raise UsageError(f"--step-pattern '{pattern.text}' finds {text!r} in {name}, which is no whole number")
    return Number(pattern.word, int(exact))


def chosen_by(pattern: StepPattern, units: Sequence[Unit], root: str) -> tuple[list[Unit], list[Finding]]:
    """The units that the pattern matches, and a finding for the others."""
    out = [unit for unit in units if number_by(pattern, unit.name) is not None]
    left = [unit.name for unit in units if number_by(pattern, unit.name) is None]
    if units and not out:
        raise UsageError(f"{root}: --step-pattern '{pattern.text}' matches none of {some(left)}")
    words = f"--step-pattern '{pattern.text}' does not match {some(left)}: left out"
    return out, [Finding("pattern-leaves-out", "note", root, words)] if left else []
