"""The numeric check of every verdict: confirmed, refuted, or not to be told.

It stands beside the calculus and shares nothing with it but the verdicts: the model itself is run, in float64 with
eps → 0, at random weights and inputs. One counter-example refutes; agreement at all points confirms, without proving.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.invariance.verifying_outcomes import LEAST_POINTS, NOT_ZERO, Checked, judged, noted
from smd_analyze.invariance.verifying_points import POINTS, REAL, Inputs, Probe, Products
from smd_analyze.invariance.verifying_residuals import INVARIANT, Sums, claims_of, scale_of
from smd_analyze.records.finding import Finding

STRETCH, SHRUNK = 1e4, 1e-6  # a residual that falls like 1/a² under w → a·w is an eps beside a variance
OTHER_EPS, SAME = 1e-24, 1e-3  # products that depend on how small eps is come from the norm of a constant, 0/0
TRIES = 3  # per kind of point
MOST_SHOWN = 5


def verify(
    model: nn.Module,
    inputs: Inputs,
    weights: Mapping[str, Callable[[], torch.Tensor]],
    verdicts: Mapping[str, Sequence[Verdict]],
    label: str,
    frozen: Collection[str] = (),
) -> tuple[dict[str, list[Verdict]], list[Finding]]:
    """The verdicts after the check, in the same order, and what a person should know.

    Args:
        model: the network; it is copied, not changed.
        inputs: positional and keyword example inputs: their shapes and types count.
        weights: the model's parameter → how to read the checkpoint's tensor in the model's shape.
        verdicts: by the model's parameter names.
        label: how messages call the model.
        frozen: modules that were in eval mode in training.

    What cannot be run leaves the verdicts as they are, with a finding.
    """
    rows = {name: list(found) for name, found in verdicts.items()}
    try:
        probe = Probe(model, inputs, weights, frozen)
    except Exception as error:  # copying and loading run the model's own code
        return rows, [not_run(label, in_words(error))]
    claims = claims_of(verdicts, probe.parameters)
    if not claims:
        return rows, [not_run(label, "there is nothing to measure")]
    failed = measure(probe, claims)
    if len(claims[0].scales) < LEAST_POINTS:
        return rows, [not_run(label, failed)]
    checked = _unless_an_eps(probe, [judged(c) for c in claims])
    if weights:
        checked = _in_practice(probe, checked, set(weights))
    after = {id(old): new for c in checked if not c.claim.exponents
             for old, new in zip(c.claim.members, c.verdicts, strict=True)}  # fmt: skip
    unfounded = {id(c.claim.members[0]) for c in checked if c.claim.exponents and c.outcome == "contradicted"}
    for name, found in verdicts.items():
        rows[name] = [
            replace(after.get(id(v), v), partners=()) if id(v) in unfounded else after.get(id(v), v) for v in found
        ]
    return rows, [*_contradictions(checked), _summary(label, checked)]


def measure(probe: Probe, claims: Sequence[Sums]) -> str:
    """Fill in the claims' sums at every kind of point; returns why the last failing point failed."""
    failed = ""
    for kind, point in enumerate(POINTS):
        for number in range(kind, TRIES * len(POINTS), len(POINTS)):
            try:
                products = probe.products(point, number)
                suspects = _suspects(claims, products)
                if suspects and _depends_on_eps(products, probe.products(point, number, OTHER_EPS), suspects):
                    failed = "a normalization sees a constant (0/0); give larger example inputs with --inputs"
                    continue
            except Exception as error:  # the model's own code runs here: it may raise anything
                failed = in_words(error)
                continue
            scale = scale_of(products)
            for claim in claims:
                claim.add(products, scale)
            break
    return failed


def _suspects(claims: Sequence[Sums], products: Products) -> list[str]:
    """Parameters of the claims that this point by itself contradicts."""
    scale, found = scale_of(products), []
    for claim in claims:
        trial = Sums(claim.members, claim.exponents)
        trial.add(products, scale)
        if trial.violation() > NOT_ZERO:
            found += [n for n, _ in claim.exponents] or [m.parameter for m in claim.members]
    return found


def _depends_on_eps(products: Products, others: Products, names: Sequence[str]) -> bool:
    sizes = [(float(products[n].abs().sum()), float(others[n].abs().sum())) for n in names]
    return any(abs(a - b) > SAME * max(a, b) for a, b in sizes)


def _unless_an_eps(probe: Probe, checked: Sequence[Checked]) -> list[Checked]:
    """Contradictions that go away with larger weights are an eps that could not be set to zero, not a wrong claim."""
    out = list(checked)
    suspects = [i for i, c in enumerate(checked) if c.outcome == "contradicted" and c.claim.members[0].status != "dead"]
    if not suspects:
        return out
    names = {m.parameter for i in suspects for m in checked[i].claim.members}
    try:
        products = probe.products(POINTS[0], 0, stretched=dict.fromkeys(names, STRETCH))
    except Exception:  # overflow, or what the model's code raises: the contradiction stands
        return out
    for i in suspects:
        claim = checked[i].claim
        again = Sums(claim.members, claim.exponents)
        again.add(products, scale_of(products))
        if 0 < again.violation() < SHRUNK * checked[i].residual:
            words = f"an eps in the model's code blurs the numeric check (residual {checked[i].residual:.0e})"
            out[i] = noted(claim, "undecided", checked[i].residual, words)
    return out


def _in_practice(probe: Probe, checked: Sequence[Checked], loaded: Collection[str]) -> list[Checked]:
    """How exact confirmed invariances are at the checkpoint's own weights, with the model's own eps."""
    out = list(checked)
    try:
        products = probe.products(REAL, 0)
    except Exception:  # information only: what matters was said at the other points
        return out
    for i, c in enumerate(checked):
        if c.outcome not in ("confirmed", "found") or c.verdicts[0].status not in INVARIANT:
            continue
        if any(v.parameter not in loaded for v in c.verdicts):
            continue
        sums = Sums(c.verdicts)
        sums.add(products, scale_of(products))
        signed, size = sums.signed[0], sums.sizes[0]
        if size.sum() <= 0:
            continue
        ratio = np.abs(signed[size > 0]) / size[size > 0]
        worst = f" (worst unit {ratio.max():.0e})" if len(ratio) > 1 else ""
        words = f"at the checkpoint, with real eps, a residual of {np.median(ratio):.0e} is left{worst}"
        out[i] = replace(c, verdicts=tuple(replace(v, reason=f"{v.reason}; {words}") for v in c.verdicts))
    return out


def in_words(error: BaseException) -> str:
    """An error of the model's code, on one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def not_run(label: str, why: str) -> Finding:
    """The finding that stands for a check that could not be made."""
    return Finding(
        "not-verified", "warning", label, f"the numeric check could not be made: {why}",
        "the verdicts rest on the graph or on names alone; a smaller configuration of the same model may run",
    )  # fmt: skip


def _contradictions(checked: Sequence[Checked]) -> list[Finding]:
    wrong = [c for c in checked if c.outcome == "contradicted"]
    findings = [_contradiction(c) for c in wrong[:MOST_SHOWN]]
    if len(wrong) > MOST_SHOWN:
        first = wrong[MOST_SHOWN].claim.members[0].parameter
        message = f"the numeric check contradicts {len(wrong) - MOST_SHOWN} more claims, from {first} on"
        remedy = "`smd-analyze groups … --verify --why NAME` tells about each"
        findings.append(Finding("invariance-contradicted", findings[0].severity, first, message, remedy))
    return findings


def _contradiction(c: Checked) -> Finding:
    first = c.claim.members[0]
    guessed = first.evidence == "guessed"
    if c.claim.exponents:
        names = ", ".join(n for n, _ in c.claim.exponents)
        said = f"rescaling {names} against each other was found to leave the output unchanged"
    else:
        names = " + ".join(m.parameter for m in c.claim.members)
        what = f"{first.status} {first.granularity}".strip()
        said = f"{names} {'was guessed' if guessed else 'was found'} to be {what} ({first.reason})"
    now = "" if c.claim.exponents else "; it is now reported as not invariant"
    message = f"{said}, but the numeric check contradicts it: relative residual {c.residual:.1g}{now}"
    remedy = "its numbers against theory are for reference only"
    if not guessed:
        remedy += "; check that --inputs take the branches that training takes, and report this with the model"
    return Finding("invariance-contradicted", "warning" if guessed else "error", first.parameter, message, remedy)


def _summary(label: str, checked: Sequence[Checked]) -> Finding:
    def number(outcome: str, text: str, always: bool = False) -> list[str]:
        count = sum(c.outcome == outcome for c in checked)
        return [f"{count} {text}"] if count or always else []

    words = [
        *number("confirmed", "claims confirmed", True), *number("contradicted", "contradicted", True),
        *number("refuted", "shown not to be invariant", True),
        *number("found", "invariances found that the graph does not show"), *number("undecided", "inconclusive"),
        *number("untested", "without a gradient to test"),
    ]  # fmt: skip
    zero = [c.residual for c in checked if c.outcome in ("confirmed", "found") and c.verdicts[0].status in INVARIANT]
    far = [c.residual for c in checked if c.outcome == "refuted"]
    gap = f"; relative residuals of invariant parts up to {max(zero):.0e}" if zero else ""
    gap += f"{',' if zero else ';'} of the others from {min(far):.0e} on" if far else ""
    return Finding("numeric-check", "note", label, f"numeric check: {', '.join(words)}{gap}")
