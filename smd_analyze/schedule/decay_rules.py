"""How weight decay goes with the learning rate: what one update takes off the weights, rule by rule.

Symbols: η the update's learning rate, λ weight decay, η₀ and η_max the largest learning rate of the run (a warm-up's
first one is no reference). The decay of one update is

- usual: ηλ (PyTorch, Keras, optax; coupled and decoupled alike);
- independent: λ, whatever the learning rate (TensorFlow Addons' SGDW and AdamW, Chainer);
- tied: λη/η₀ (Loshchilov and Hutter 2019, arXiv:1711.05101, with η/η₀ as the schedule's multiplier);
- AdamC: λη²/η_max (Defazio 2025, arXiv:2506.02285);
- cautious: ηλ where update and weight point the same way, else 0 (Chen et al. 2025, arXiv:2510.12402): anything from
  0 to ηλ, which the schedule alone does not tell.
"""

from __future__ import annotations

import numpy as np

from smd_analyze.schedule.series import Function, Series

USUAL = "learning rate × weight decay"
INDEPENDENT = "weight decay alone"
TIED = "tied to lr/lr₀"
ADAMC = "lr²/lr_max (AdamC)"
CAUTIOUS = "cautious"
RULES = (USUAL, INDEPENDENT, TIED, ADAMC, CAUTIOUS)
ALIASES = {"usual": USUAL, "independent": INDEPENDENT, "tied": TIED, "adamc": ADAMC, "cautious": CAUTIOUS}
"""What a settings file may write: the short word or the rule in full."""
SAMPLES = 4097  # updates looked at for the largest learning rate; a peak between two of them is flat enough
INDEPENDENT_OF_RATE = (("keras", "sgdw"), ("tensorflow", "sgdw"), ("chainer", "adamw"))
"""(framework, optimizer) whose decay is λ alone. Keras itself has no SGDW: TensorFlow Addons' takes λw off."""


def rule_named(word: str) -> str | None:
    """The rule by its short word or in full; None if there is none of that name."""
    plain = word.strip()
    return plain if plain in RULES else ALIASES.get(plain.lower())


def rule_of(framework: str, optimizer: str | None) -> str:
    """The rule that a framework's optimizer follows unless somebody says otherwise."""
    return INDEPENDENT if (framework, optimizer or "") in INDEPENDENT_OF_RATE else USUAL


def decay_series(rule: str, rate: Series | None, decay: Series | None, largest: float) -> Series | None:
    """Decay of each update as a series; None where a number that the rule needs is not known.

    `largest`: η₀ or η_max. Cautious: NaN, between 0 and ηλ.
    """
    if decay is None or (rate is None and rule != INDEPENDENT):
        return None
    if rule == INDEPENDENT or rate is None:
        return decay
    if rule in (TIED, ADAMC) and not largest > 0:
        return None

    def per_update(eta: Function, lam: Function) -> Function:
        if rule == TIED:
            return lambda u: lam(u) * eta(u) / largest
        if rule == ADAMC:
            return lambda u: lam(u) * eta(u) ** 2 / largest
        return lambda u: lam(u) * eta(u)

    if rule == CAUTIOUS:
        return Series(lambda u: np.full(u.shape, np.nan), np.zeros_like, per_update(rate.high, decay.high))
    return Series(*(per_update(getattr(rate, k), getattr(decay, k)) for k in ("best", "low", "high")))


def largest_rate(rate: Series | None, last: int, begun: float = 0.0) -> float:
    """The largest learning rate of updates 1 … last, or the one that the optimizer began with; NaN if unknown."""
    if rate is None or last < 1:
        return begun or float("nan")
    values = rate.best(np.unique(np.linspace(1, last, SAMPLES).round()))
    known = values[np.isfinite(values)]
    return max(begun, float(known.max())) if len(known) else begun or float("nan")
