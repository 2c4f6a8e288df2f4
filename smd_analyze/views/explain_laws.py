"""Closed forms of each optimizer as they are shown with numbers put in: display only, the theory room computes.

Symbols: x = ηλ(1−τ) decay of one update (τ dampening, coupled decay only), α momentum (β₁ of Adam, AdamW and Lion),
n = ‖w‖², d elements. Each function returns the formula as text and what it gives for the numbers; the sources stand in
`Law.source`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from smd_analyze.views.explain_facts import Row
from smd_analyze.views.text import given, number, present

SMD, KOSSON = "Wan et al. 2021", "Kosson et al. 2023"
HEAVY, NESTEROV, SGDW, SGDW_NESTEROV = "heavy ball", "Nesterov", "SGDW", "SGDW with Nesterov momentum"
ADAMW, ADAM_L2, LION, MUON = "AdamW", "Adam with L2", "Lion", "Muon"
SOURCES = {
    HEAVY: f"exact for a stationary norm, whatever the gradients; {SMD}",
    NESTEROV: "exact for zero-mean gradients; ARMA(2,1) of the update rule",
    SGDW: f"exact for a stationary norm, whatever the gradients; leading order {KOSSON}",
    SGDW_NESTEROV: "exact for zero-mean gradients; ARMA(2,1) of the update rule",
    ADAMW: f"assumes zero-mean gradients, small networks turn some 8 % less; {KOSSON}",
    ADAM_L2: "assumes zero-mean gradients; balance of decay and update with √v̂ saved beside the weights",
    LION: f"assumes zero-mean Gaussian gradients (arcsine law of signs); linear approximation: {KOSSON}",
    MUON: "assumes white-noise gradients; size and correlations of Newton–Schulz updates are simulated for this shape",
}
Shown = tuple[tuple[str, ...], float]


@dataclass(frozen=True)
class Law:
    """One optimizer with the numbers of one update. `a`: α or β₁; NaN for what is not known."""

    name: str
    x: float
    a: float
    beta2: float
    alpha: str = "α"

    @property
    def family(self) -> bool:
        """Whether ‖w‖⁴ relaxes linearly (SGD, with momentum of any form); else ‖w‖²."""
        return self.name in (HEAVY, NESTEROV, SGDW, SGDW_NESTEROV)

    @property
    def coupled(self) -> bool:
        """Whether decay passes through the momentum."""
        return self.name in (HEAVY, NESTEROV)

    @property
    def power(self) -> int:
        """Of the norm that relaxes linearly."""
        return 4 if self.family else 2

    @property
    def gain(self) -> float:
        """xₑ/x: 1/(1−α) where decay passes through the momentum."""
        return 1 / (1 - self.a) if self.coupled else 1.0

    @property
    def source(self) -> str:
        """How far the angle's formula holds, and where it comes from."""
        return SOURCES.get(self.name, "")

    @property
    def adamw_limit(self) -> bool:
        """Whether β₂ → 1 is taken."""
        return not present(self.beta2)

    def _adamw(self, x: float) -> tuple[float, float]:
        """γ₀ and P = Σ(1−x)^{k−1}γ_k of γ_k = s β₁ᵏ(A + Bβ₂ᵏ)."""
        b, share, keep = self.a, (1 - self.a) / (1 + self.a), 1 - x
        one, two = self.adamw_shape
        fast = b * (0.0 if self.adamw_limit else self.beta2)
        return share * (one + two), share * (one * b / (1 - keep * b) + two * fast / (1 - keep * fast))

    @property
    def adamw_shape(self) -> tuple[float, float]:
        """A and B: what the scatter of v̂ makes of the update, first order in 1−β₂."""
        if self.adamw_limit:
            return 1.0, 0.0
        b, h = self.a, 1 - self.beta2
        first, second = h * (1 - b * b) / (1 - b * b * self.beta2), 2 * h / (1 + self.beta2)
        return 1 - first + 0.75 * second, 0.25 * second - first

    @cached_property
    def lion(self) -> tuple[float, ...]:
        """γ_k, k = 1 …: (2/π) arcsin ρ_k."""
        b1, b2 = self.a, self.beta2
        slow = b1**2 * (1 - b2) / (1 + b2)
        total, count = (1 - b1) ** 2 + slow, int(30 / (1 - b2)) + 2
        rho = (((1 - b1) * b1 * (1 - b2) * b2 ** (k - 1) + slow * b2**k) / total for k in range(1, count))
        return tuple(2 / math.pi * math.asin(r) for r in rho)

    def gamma(self, x: float) -> float:
        """Γ = γ₀ + 2Σ(1−x)ᵏγ_k: how far correlated updates add up, per element; NaN where it has to be simulated."""
        if self.name == ADAMW:
            own, past = self._adamw(x)
            return own + 2 * (1 - x) * past
        if self.name == LION:
            return 1 + 2 * sum(g * (1 - x) ** k for k, g in enumerate(self.lion, start=1))
        return math.nan

    def variance(self) -> tuple[float, float]:
        """γ₀ of the weights for η = L = 1, and ρ₁: Yule–Walker equations of the ARMA(2,1)."""
        a, keep = self.a, 1 - self.x
        p1, p2 = ((1 + a) * keep, -a * keep) if self.name == NESTEROV else (keep + a, -keep * a)
        if self.name == HEAVY:
            p1, p2 = 1 + a - self.x, -a
        t0, t1 = (1 + a, -a) if self.name in (NESTEROV, SGDW_NESTEROV) else (1.0, 0.0)
        own, crossed, gain = t0 * t0 + t1 * (p1 * t0 + t1), t0 * t1, p1 * (1 + p2) / (1 - p2)
        gamma0 = (own + gain * crossed) / (1 - p2 * p2 - gain * p1)
        return gamma0, (p1 * gamma0 + crossed) / (1 - p2) / gamma0

    def angle(self) -> Shown:
        """θ* [rad] of one step at equilibrium, from x, α (β₁) and β₂ alone."""
        x, a, al, xs, num = self.x, self.a, self.alpha, given(self.x), given(self.a)
        if self.name == HEAVY:
            return (f"θ* = arccos(1 − ηλ/(1+α)) = arccos(1 − {xs}/(1+{num}))",), _turned(x / (1 + a))
        if self.name in (NESTEROV, SGDW_NESTEROV):
            gain = (1 - a) * ((1 + a) ** 2 + a**4 / (1 - a * a))
            slow = gain if self.coupled else (1 - a) * gain
            form = "√(2ηλ(1−α)[(1+α)² + α⁴/(1−α²)])" if self.coupled else "√(2ηλ(1−α)²[(1+α)² + α⁴/(1−α²)])"
            lead = f"leading order θ* ≈ {form} = {number(math.sqrt(2 * x * slow), 4, 1e3)} mrad (ηλ = {xs}, α = {num})"
            first = "(1+α)(1−ηλ)" if self.coupled else "1+α−ηλ"
            second = "−α(1−ηλ)"
            exact = (
                f"exact: arccos of the lag-1 correlation of w_t = φ₁w_t₋₁ + φ₂w_t₋₂ − η[(1+α)g_t − αg_t₋₁], "
                f"φ₁ = {first}, φ₂ = {second}"
            )
            return (lead, exact), _turned(1 - self.variance()[1])
        if self.name == SGDW or (self.name == ADAMW and self.adamw_limit):
            form = f"θ* = arccos((1−ηλ+{al})/(1+(1−ηλ){al}))"
            put = f"arccos((1−{xs}+{num})/(1+(1−{xs})×{num}))"
            if self.name == ADAMW:
                put += ", about √(2ηλ(1−β₁)/(1+β₁)); β₂ unknown, taken as 1"
            return (f"{form} = {put}",), _turned(x * (1 - a) / (1 + (1 - x) * a))
        if self.name == ADAMW:
            own, past = self._adamw(x)
            lead = (
                f"θ* ≈ √(2ηλ(1−β₁)/(1+β₁)) = √(2×{xs}×(1−{num})/(1+{num})) = "
                f"{number(math.sqrt(2 * x * (1 - a) / (1 + a)), 4, 1e3)} mrad, the limit β₂ → 1"
            )
            exact = (
                f"with β₂ = {given(self.beta2)} (v̂ scatters): arccos(1 − x + x(2−x)P/Γ), x = {xs}, "
                f"P = {number(past, 5)}, Γ = {number(own + 2 * (1 - x) * past, 5)}"
            )
            return (lead, exact), _turned(x - x * (2 - x) * past / (own + 2 * (1 - x) * past))
        if self.name == LION:
            gamma = self.gamma(x)
            words = (
                "updates ±1 correlate as γ_k = (2/π)arcsin ρ_k, ρ_k the autocorrelation of β₁m + (1−β₁)g at "
                f"β₁ = {num}, β₂ = {given(self.beta2)}: Γ = 1 + 2Σ(1−x)ᵏγ_k = {number(gamma)}"
            )
            put = f"θ* = arccos(1 − x + x(2−x)(Γ−1)/(2(1−x)Γ)), x = ηλ = {xs}"
            return (words, put), _turned(x - x * (2 - x) * (gamma - 1) / (2 * (1 - x) * gamma))
        return (), math.nan

    def share(self) -> Shown:
        """ζ in θ₁² = ζ(2xₑ + d ln n/dt)."""
        a, al = self.a, self.alpha
        if self.name in (NESTEROV, SGDW_NESTEROV):
            return ("(1−α)²[(1+α)² + α⁴/(1−α²)]",), (1 - a) ** 2 * ((1 + a) ** 2 + a**4 / (1 - a * a))
        if self.name == ADAMW and not self.adamw_limit:
            own, past = self._adamw(0.0)
            return ("about (1−β₁)/(1+β₁), with β₂ γ₀/Γ",), own / (own + 2 * past)
        return (f"(1−{al})/(1+{al})",), (1 - a) / (1 + a)

    def rate(self, x: float | None = None) -> Shown:
        """r [1/step], at which ‖w‖⁴ (SGD family) or ‖w‖² relaxes; NaN where momentum makes it oscillate."""
        x = self.x if x is None else x
        if self.family:
            slow, number_ = (x * self.gain, self.a * x / (1 - self.a) ** 2) if self.coupled else (x, 0.0)
            if number_ > 1 / 16:
                return (f"A = αηλ/(1−α)² = {number(number_, 3)} > 1/16: the norm oscillates, no single rate",), math.nan
            value = 8 * slow / (1 + math.sqrt(1 - 16 * number_)) * (1 + 1.5 * slow)
            if not self.coupled:
                return (f"r = 4x(1+1.5x), x = ηλ = {given(x)}",), value
            return (
                f"r = 8xₑ/(1+√(1−16A))·(1+1.5xₑ) ≈ 4xₑ, xₑ = ηλ/(1−α) = {given(slow)}, "
                f"A = αηλ/(1−α)² = {number(number_, 3)}",
            ), value
        if self.name == ADAMW and not self.adamw_limit:
            h = 1 - self.beta2
            total = 4 * x + h
            return (
                f"r = ½[(4x+h) − √((4x+h)² − 8xh)] ≈ 2x, x = ηλ = {given(x)}, h = 1−β₂ = {given(h)} (v̂ lags behind)",
            ), 4 * x * h / (total + math.sqrt(max(total * total - 8 * x * h, 0.0)))
        if self.name == ADAMW:
            return (f"r = 2x, x = ηλ = {given(x)}; β₂ unknown",), 2 * x
        return (f"r = −2 ln(1−x), x = ηλ = {given(x)}",), -2 * math.log1p(-x)


def law_of(row: Row, decay: float | None) -> Law | str:
    """The law of a row of the schedule, or in words why there is none. `decay`: ηλ of one update, before dampening."""
    name = str(row.get("optimizer") or "").lower()
    if not name:
        return "optimizer unknown"
    if "cautious" in (row.get("decay_rule") or ""):
        return "cautious weight decay: how much of it acted is not known"
    adam = name in ("adam", "adamw")
    apart = row.get("decoupled")
    if name in ("sgd", "sgdw"):
        apart, quick = name == "sgdw" if apart is None else apart, bool(row.get("nesterov"))
        kind = {(False, False): HEAVY, (False, True): NESTEROV, (True, False): SGDW, (True, True): SGDW_NESTEROV}
        law = kind[bool(apart), quick]
    elif adam:
        law = ADAMW if (name == "adamw" if apart is None else apart) else ADAM_L2
    elif name in ("lion", "muon") and apart is not False:
        law = LION if name == "lion" else MUON
    else:
        return f"no theory for optimizer {name}"
    momentum: Any = row.get("beta1") if adam or law == LION else row.get("momentum")
    if not present(momentum):
        return f"{'β₁' if adam or law == LION else 'momentum'} unknown"
    if law == LION and not present(row.get("beta2")):
        return "β₂ unknown"
    damping = 1 - (row.get("dampening") or 0.0) if law in (HEAVY, NESTEROV) else 1.0
    x = decay * damping if decay is not None else math.nan
    beta2: Any = row.get("beta2")
    return Law(law, x, momentum, beta2 if present(beta2) else math.nan, "β₁" if adam or law == LION else "α")


def _turned(versine: float) -> float:
    """Angle of which 1 − cos is given."""
    return 2 * math.asin(math.sqrt(min(max(versine / 2, 0.0), 1.0)))
