"""What the network's graph says about the clocks that the weights show: a reason, or a contradiction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from smd_analyze.clocks.measuring import Measured
from smd_analyze.clocks.rule import Claimed
from smd_analyze.records.finding import Finding
from smd_analyze.records.group import Translation

FELT = 1e-2  # motion across, against chance, above which a sum clearly feels a gradient (clocks: 1e-4 at most)
MORE = 10.0  # ‖ΔW‖² against what decay alone would make it
MOST = 5


def reasons(clocks: Sequence[Claimed], translations: Sequence[Translation]) -> dict[int, str]:
    """Why the graph expects a clock, by its number in `clocks`."""
    out: dict[int, str] = {}
    for number, clock in enumerate(clocks):
        for t in translations:
            if _predicts(t, clock.measured):
                out[number] = t.reason + (f" ({t.assumed})" if t.assumed else "")
    return out


def contradictions(
    clocks: Sequence[Claimed],
    measured: Sequence[Measured],
    translations: Sequence[Translation],
    known: Mapping[str, bool],
) -> list[Finding]:
    """Where graph and weights disagree. `known`: parameters that are in the graph.

    Sums are clocks under SGD only: that a predicted one moves like everything else says something only if another sum
    of three terms or more is a clock. A slice needs no reason in the graph: what is never used is in the data.
    """
    sums = [c for c in clocks if c.measured.candidate.kind == "sum"]
    out: list[Finding] = []
    for c in sums:
        name = c.measured.candidate.parameter
        if known.get(name) and not any(_predicts(t, c.measured) for t in translations):
            text = (
                f"its {c.measured.candidate.functional} feels no gradient, and the graph does not say why: a loss that "
                "ignores it would (softmax over these outputs), or dead inputs, or the model is not the one trained"
            )
            out.append(Finding("clock-unexplained", "note", name, text))
    if any(c.measured.candidate.parts >= 3 and _is_alive(c.measured) for c in sums):
        claimed = {id(c.measured) for c in sums}
        for m in measured:
            predicted = [t for t in translations if not t.assumed and _predicts(t, m)]
            if predicted and id(m) not in claimed and m.candidate.kind == "sum" and _felt(m):
                text = (
                    f"by the graph its {m.candidate.functional} feels no gradient ({predicted[0].reason}), and other "
                    "sums of this run do feel none, but this one moves as by a gradient"
                )
                remedy = "check --model, and whether this tensor has an optimizer of its own"
                out.append(Finding("clock-contradicted", "warning", m.candidate.parameter, text, remedy))
    return out[:MOST]


def _predicts(t: Translation, m: Measured) -> bool:
    c = m.candidate
    if t.parameter != c.parameter:
        return False
    if t.functional == "whole":  # every element feels no gradient, so any sum or slice of it does not
        return True
    return c.kind == "sum" and t.functional == c.functional


def _is_alive(m: Measured) -> bool:
    """Whether the tensor of a clock moves by more than its decay: one that is not used at all tells no optimizer."""
    c = m.candidate
    with np.errstate(invalid="ignore"):
        by_decay = m.fall**2 * c.tensor_vv[m.first]
        return bool((c.tensor_dd[m.last] > MORE * by_decay)[m.holds].any())


def _felt(m: Measured) -> bool:
    """In every interval the sum moved across by about what chance gives."""
    with np.errstate(invalid="ignore"):
        return bool(m.present.any() and (m.across[m.present] > FELT).all() and m.candidate.values.shape[1] > 1)
