"""What the numbers make of a claim, and the verdict after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.invariance.verifying_residuals import INVARIANT, Sums
from smd_analyze.records.group import Evidence

ZERO = 1e-9  # residuals of invariant parts are rounding, below 1e-12; those of others lie above 1e-3
NOT_ZERO = 1e-6  # between the two nothing is said: a gap of 1000
CLEARLY_NOT_ZERO = 1e-3  # what an eps left in the code can imitate stays below
DEAD, FELT = 1e-12, 1e-9  # the same for Σ |w·g| against the model's largest
LEAST_POINTS = 2

Outcome = Literal["confirmed", "contradicted", "refuted", "found", "untested", "undecided"]


@dataclass(frozen=True)
class Checked:
    """A claim, its verdicts after the check, and the residual that decided."""

    claim: Sums
    outcome: Outcome
    residual: float
    verdicts: tuple[Verdict, ...]


def judged(claim: Sums) -> Checked:
    """Confirmed or contradicted; a claim of no invariance is refuted (the invariance is) or an invariance is found."""
    first = claim.members[0]
    units, whole = (r[~np.isnan(r)] for r in claim.residuals())
    if claim.exponents or first.status in INVARIANT or first.status == "dead":
        zero, far = (DEAD, FELT) if first.status == "dead" else (ZERO, NOT_ZERO)
        if len(units) < LEAST_POINTS and first.status != "dead":
            return noted(claim, "untested", np.nan, "the numeric check felt no gradient here: it could not test this")
        residual = claim.violation()
        outcome: Outcome = "confirmed" if residual < zero else "contradicted" if residual > far else "undecided"
    elif len(units) < LEAST_POINTS:
        return noted(claim, "untested", np.nan, "the numeric check felt no gradient here")
    else:
        residual = float(whole.max())
        outcome = "found" if residual < ZERO else "refuted" if residual > CLEARLY_NOT_ZERO else "undecided"
    if outcome == "undecided":
        return noted(claim, outcome, residual, f"the numeric check is inconclusive (relative residual {residual:.0e})")
    if claim.exponents:
        after = claim.members if outcome == "confirmed" else tuple(replace(m, partners=()) for m in claim.members)
    else:
        after = tuple(_after(m, claim, outcome, residual, float(units.max(initial=0.0))) for m in claim.members)
    return Checked(claim, outcome, residual, tuple(after))


def noted(claim: Sums, outcome: Outcome, residual: float, words: str) -> Checked:
    """The verdicts stand; the reason tells what the check met. Of a rescaling nothing is told."""
    told = claim.members if claim.exponents else [replace(m, reason=f"{m.reason}; {words}") for m in claim.members]
    return Checked(claim, outcome, residual, tuple(told))


def _after(v: Verdict, claim: Sums, outcome: Outcome, residual: float, finest: float) -> Verdict:
    if outcome == "confirmed":
        evidence: Evidence = "proved and confirmed" if v.evidence == "proved" else "confirmed"
        reached, every = claim.reached()
        few = f"; the numeric check reached {reached} of {every} units" if 0 < reached < every else ""
        return replace(v, evidence=evidence, reason=v.reason + few)
    if outcome == "found":
        indices = claim.reached()[1]
        by_unit = finest < ZERO and indices > 1
        unsaid = "by names" if v.evidence == "guessed" else "which the graph does not show"
        reason = f"numerically its scale cancels ({unsaid}: {v.reason})"
        return replace(
            v, status="invariant", evidence="confirmed", granularity="unit" if by_unit else "whole",
            units=indices if by_unit else 1, reason=reason, partners=(),
        )  # fmt: skip
    if outcome == "refuted":
        reason = f"{v.reason} (relative residual {residual:.1g})"
        return replace(v, status="not invariant", evidence="refuted", reason=reason)
    claimed = f"{v.status} {v.granularity}".strip()
    reason = f"claimed as {claimed} ({v.reason}), but numerically its scale matters: residual {residual:.1g}"
    return replace(
        v, status="not invariant", evidence="refuted", granularity="", joint="", reason=reason, norm="", eps=None
    )
