"""What was measured of a claim: how far Σ w·∂y/∂w is from zero, unit by unit and for the whole, over all points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from smd_analyze.invariance.verdicts import Verdict

SMALL_UNIT = 1e-4  # units below this part of the largest are measured against it: their own rounding says nothing
NO_GRADIENT = 1e-10  # of the model's largest product: what rounding of the larger ones leaves may count here
INVARIANT = ("invariant", "jointly invariant")


@dataclass
class Sums:
    """Σ w·g and Σ |w·g| of each unit of a claim, one row per point; `scales` are the model's largest Σ |w·g|.

    The members of a joint set are summed unit by unit. A claim of no invariance is measured at each index. With
    `exponents` the claim is that these whole tensors, each scaled by its own power, leave the output unchanged.
    """

    members: Sequence[Verdict]
    exponents: Sequence[tuple[str, float]] = ()
    signed: list[np.ndarray] = field(default_factory=list)
    sizes: list[np.ndarray] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)

    def add(self, products: Mapping[str, torch.Tensor], scale: float) -> None:
        """Take in one point."""
        if self.exponents:
            terms = [(c, products[n]) for n, c in self.exponents]
            parts = [(np.array([c * float(p.sum())]), np.array([abs(c) * float(p.abs().sum())])) for c, p in terms]
        else:
            parts = [by_unit(products[m.parameter], m) for m in self.members]
        self.signed.append(np.sum([p[0] for p in parts], axis=0))
        self.sizes.append(np.sum([p[1] for p in parts], axis=0))
        self.scales.append(scale)

    def residuals(self) -> tuple[np.ndarray, np.ndarray]:
        """Relative residual of the worst unit and of the whole at each point; NaN where no gradient was felt."""
        if not self.signed:
            return np.zeros(0), np.zeros(0)
        signed, size = np.array(self.signed), np.array(self.sizes)
        felt = size.sum(1) > NO_GRADIENT * np.array(self.scales)
        floor = np.maximum(size, SMALL_UNIT * size.max(1, keepdims=True))
        with np.errstate(invalid="ignore", divide="ignore"):
            units = (np.abs(signed) / floor).max(1)
            whole = np.abs(signed.sum(1)) / size.sum(1)
        return np.where(felt, units, np.nan), np.where(felt, whole, np.nan)

    def shares(self) -> np.ndarray:
        """Σ |w·g| against the model's largest, at each point."""
        return np.array([s.sum() for s in self.sizes]) / np.maximum(self.scales, 1e-300)

    def violation(self) -> float:
        """How far the claim is from true at the worst point: 0 if it is, or claims nothing."""
        if self.members[0].status == "dead" and not self.exponents:
            return float(self.shares().max(initial=0.0))
        if self.exponents or self.members[0].status in INVARIANT:
            units = self.residuals()[0]
            return float(units[~np.isnan(units)].max(initial=0.0))
        return 0.0

    def reached(self) -> tuple[int, int]:
        """Units that felt a gradient at some point, and all units."""
        size = np.array(self.sizes)
        return int((size > 0).any(0).sum()), size.shape[1]


def claims_of(verdicts: Mapping[str, Sequence[Verdict]], known: Mapping[str, torch.Tensor]) -> list[Sums]:
    """Verdicts that are scaled together are one claim, a rescaling is another; tensors the model lacks make none."""
    sets: dict[str, list[Verdict]] = {}
    for found in verdicts.values():
        for number, v in enumerate(found):
            sets.setdefault(f"joint {v.joint}" if v.joint else f"{v.parameter} {number}", []).append(v)
    claims = [Sums(tuple(s)) for s in sets.values()]
    claims += [Sums((v,), v.partners) for found in verdicts.values() for v in found if v.partners]
    return [c for c in claims if all(n in known and known[n].numel() for n in _names(c))]


def _names(claim: Sums) -> list[str]:
    return [n for n, _ in claim.exponents] or [m.parameter for m in claim.members]


def scale_of(products: Mapping[str, torch.Tensor]) -> float:
    """The largest Σ |w·g| of the model's parameters."""
    return max((float(p.abs().sum()) for p in products.values()), default=0.0)


def by_unit(product: torch.Tensor, verdict: Verdict) -> tuple[np.ndarray, np.ndarray]:
    """Σ w·g and Σ |w·g| of each unit; of what is not invariant, of each index."""
    if product.ndim == 0:
        product = product[None]
    shape = tuple(product.shape)
    start, stop = verdict.extent(shape)
    units = verdict.units if verdict.status in INVARIANT else verdict.count(shape)
    rows = product.movedim(verdict.axis, 0)
    part = rows.unflatten(0, (-1, verdict.every))[:, start:stop] if verdict.every else rows[start:stop]
    part = part.reshape(units, -1)
    return part.sum(1).numpy(), part.abs().sum(1).numpy()
