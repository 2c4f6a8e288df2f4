"""How exact an invariance is: a normalization divides by √(variance + ε), so a scale goes out only up to ε.

For y = x/√(s + ε) and x → a·x, d log y / d log a = ε/(s + ε) = δ, exactly. Batch normalization saves its running
variance s for each channel, so δ is read off the checkpoint. Others (layer, group, RMS) have no such record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from smd_analyze.errors import SmdError
from smd_analyze.invariance.modules import statistic
from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.records.finding import Finding, Severity
from smd_analyze.records.run import LazyTensor, Run

NOTABLE, LARGE = 0.01, 0.1  # of a scale change that a normalization lets through
SHOWN = 3


def up_to_epsilon(verdicts: Sequence[Verdict], run: Run) -> tuple[list[Verdict], list[Finding]]:
    """The verdicts with the size of ε told in the reason, and findings where it matters.

    Only the running variances of the last checkpoint are read, of norms that divide a scale out. Where ε makes up more
    than a tenth of most channels' variance, the weights before it are not effectively invariant.
    """
    variances = variances_of(run)
    sizes: dict[str, np.ndarray | None] = {}
    findings: list[Finding] = []
    out = []
    for v in verdicts:
        if v.norm and v.eps is not None and v.status in ("invariant", "jointly invariant"):
            path = _matching(v.norm, variances)
            if path and path not in sizes:
                sizes[path] = _relative(variances[path], v.eps, findings)
            out.append(_judged(v, sizes.get(path)))
        else:
            out.append(v)
    return out, [*findings, *_told({path: d for path, d in sizes.items() if d is not None})]


def variances_of(run: Run) -> dict[str, LazyTensor]:
    """Path of each batch normalization → its running variance in the last checkpoint."""
    last = run.checkpoints[-1]
    found = {}
    for name, tensor in [*last.parameters.items(), *last.buffers.items()]:
        path, kind = statistic(name) or ("", "")
        if kind == "variance":
            found[path] = tensor
    return found


def _matching(norm: str, variances: Mapping[str, LazyTensor]) -> str:
    """The run's path of a norm: the same, or the only one that ends so (wrappers put a prefix before)."""
    if norm in variances:
        return norm
    ends = [p for p in variances if p.endswith(("." + norm, "/" + norm))]
    return ends[0] if len(ends) == 1 else ""


def _relative(variance: LazyTensor, eps: float, findings: list[Finding]) -> np.ndarray | None:
    """δ = ε/(s + ε) of each channel, None if the variances cannot be used."""
    try:
        s = variance.read()
        if variance.dtype == "bfloat16":  # its bits are the upper half of a float32's
            s = (s.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        s = np.asarray(s, float)
    except (SmdError, OSError, ValueError, EOFError) as problem:
        message = f"a running variance cannot be read: {problem}"
        findings.append(Finding("epsilon-unknown", "note", "batch norm", message, "how exact invariance is stays open"))
        return None
    s = s[np.isfinite(s) & (s >= 0)]
    return eps / (s + eps) if s.size else None


def _judged(v: Verdict, delta: np.ndarray | None) -> Verdict:
    if delta is None:
        return replace(v, reason=f"{v.reason}, {f'up to its ε = {v.eps:g}' if v.eps else 'exactly'}")
    middle, largest = float(np.median(delta)), float(delta.max())
    told = f"up to ε: δ = {percent(middle)} (median), {percent(largest)} (largest)"
    if middle <= LARGE or v.joint:
        return replace(v, reason=f"{v.reason}; {told}")
    return replace(
        v, status="not invariant", evidence="not proved", granularity="",
        reason=f"not effectively invariant: {v.reason} only {told}",
    )  # fmt: skip


def _told(deltas: Mapping[str, np.ndarray]) -> list[Finding]:
    """One finding for the norms where ε makes up most channels' variance, one for those where it counts."""
    gone = {p: d for p, d in deltas.items() if np.median(d) > LARGE}
    some = {p: d for p, d in deltas.items() if p not in gone and np.median(d) > NOTABLE}
    few = {p: d for p, d in deltas.items() if p not in gone and p not in some and d.max() > LARGE}
    kinds: tuple[tuple[dict[str, np.ndarray], Severity, str, str], ...] = (
        (gone, "warning", "more than 10 % of most channels' variance: weights before are not effectively invariant",
         "theory of scale-invariant weights does not apply there"),
        (some, "warning", "more than 1 % of most channels' variance: weights before are invariant only roughly",
         "expect theory to be off by as much"),
        (few, "note", "more than 10 % of the variance of some channels, which hardly vary any more",
         "filters before these channels are not effectively invariant"),
    )  # fmt: skip
    findings = []
    for chosen, severity, words, remedy in kinds:
        if chosen:
            names = ", ".join(list(chosen)[:SHOWN]) + (", …" if len(chosen) > SHOWN else "")
            worst = max(float(np.median(d) if chosen is not few else d.max()) for d in chosen.values())
            many = f"{len(chosen)} batch norms" if len(chosen) > 1 else "1 batch norm"
            message = f"in {many} ({names}) ε is {words} (up to {percent(worst)})"
            findings.append(Finding("epsilon-not-small", severity, next(iter(chosen)), message, remedy))
    return findings


def percent(share: float) -> str:
    """0.00034 → "0.034 %"."""
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"
