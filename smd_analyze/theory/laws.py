"""Which closed forms belong to which optimizer: one table, and the reason where there is none yet."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from smd_analyze.theory import adam_l2, adamw, nesterov, sgd, sgdw
from smd_analyze.theory.autoregression import Floats

Formula = Callable[..., Floats]


@dataclass(frozen=True)
class Law:
    """The closed forms of one optimizer. x = ηλ decay per step, a = momentum α (β₁ for AdamW).

    `power`: ‖w‖^power obeys a linear equation, 4 for the SGD family, 2 for AdamW. `coupled`: decay passes through the
    momentum. `equilibrium_cosine(x, a)`, `autoregression(x, a)` → (φ₁, φ₂), `angle_share(a)` → ζ,
    `relaxation_rate(x, a, beta2)`, `level(η, x, a)` → ‖w*‖^power per unit of gradient (L, or d for AdamW).
    `amplification(a)` = x_e/x.
    """

    name: str
    source: str
    power: int
    coupled: bool
    nesterov: bool
    momentum_word: str
    equilibrium_cosine: Formula
    autoregression: Callable[..., tuple[Floats, Floats]]
    angle_share: Formula
    amplification: Formula
    relaxation_rate: Formula
    level: Formula


def _one(momentum: npt.ArrayLike) -> Floats:
    return np.ones_like(np.asarray(momentum, np.float64))


def _heavy_ball_rate(decay: npt.ArrayLike, momentum: npt.ArrayLike, beta2: npt.ArrayLike) -> Floats:
    return sgd.relaxation_rate(decay, momentum)


def _decoupled_rate(decay: npt.ArrayLike, momentum: npt.ArrayLike, beta2: npt.ArrayLike) -> Floats:
    return sgd.relaxation_rate(decay, 0.0)  # decay does not pass through the momentum


def _adamw_rate(decay: npt.ArrayLike, momentum: npt.ArrayLike, beta2: npt.ArrayLike) -> Floats:
    return adamw.relaxation_rate(decay, beta2)


HEAVY_BALL = Law(
    "SGD with momentum", sgd.SOURCE, 4, True, False, "momentum",
    sgd.equilibrium_cosine, sgd.autoregression, sgd.angle_share, partial(sgd.effective_decay, 1.0), _heavy_ball_rate,
    partial(sgd.equilibrium_quartic_norm, gradient=1.0),
)  # fmt: skip
NESTEROV = Law(
    "SGD with Nesterov momentum", nesterov.SOURCE, 4, True, True, "momentum",
    nesterov.equilibrium_cosine, nesterov.autoregression, nesterov.angle_share, partial(sgd.effective_decay, 1.0),
    _heavy_ball_rate, partial(nesterov.equilibrium_quartic_norm, gradient=1.0),
)  # fmt: skip
SGDW = Law(
    "SGD with decoupled weight decay", sgdw.SOURCE, 4, False, False, "momentum",
    sgdw.equilibrium_cosine, sgdw.autoregression, sgdw.angle_share, _one, _decoupled_rate,
    partial(sgdw.equilibrium_quartic_norm, gradient=1.0),
)  # fmt: skip
SGDW_NESTEROV = Law(
    "SGD with Nesterov momentum and decoupled weight decay", sgdw.SOURCE_NESTEROV, 4, False, True, "momentum",
    partial(sgdw.equilibrium_cosine, nesterov=True), sgdw.autoregression, partial(sgdw.angle_share, nesterov=True),
    _one, _decoupled_rate, partial(sgdw.equilibrium_quartic_norm, gradient=1.0, nesterov=True),
)  # fmt: skip
ADAMW = Law(
    "AdamW", adamw.SOURCE, 2, False, False, "beta1",
    adamw.equilibrium_cosine, adamw.autoregression, sgd.angle_share, _one, _adamw_rate,
    partial(adamw.equilibrium_squared_norm, numel=1.0),
)  # fmt: skip

SGD_FAMILY = {(False, False): HEAVY_BALL, (False, True): NESTEROV, (True, False): SGDW, (True, True): SGDW_NESTEROV}
"""By (decoupled, nesterov)."""


def law_of(optimizer: str | None, nesterov: bool | None, decoupled: bool | None) -> Law | str:
    """The law of an optimizer as the schedule names it, or the reason why there is none (a sentence for `source`).

    Unknown `nesterov` is taken as False, unknown `decoupled` as the optimizer's name says (sgdw and adamw decoupled).
    """
    name = (optimizer or "").strip().lower()
    if not name:
        return "optimizer unknown"
    if name in ("sgd", "sgdw"):
        return SGD_FAMILY[(name == "sgdw") if decoupled is None else decoupled, bool(nesterov)]
    if name in ("adam", "adamw"):
        return ADAMW if ((name == "adamw") if decoupled is None else decoupled) else adam_l2.SOURCE
    return f"no theory for optimizer {optimizer} yet"


def saved_direction_was_update(optimizer: str | None, nesterov: bool | None) -> bool:
    """Whether −η × the saved direction was the last update: momentum buffer without Nesterov, Adam's m̂/(√v̂+ε)."""
    name = (optimizer or "").strip().lower()
    return name in ("adam", "adamw") or (name in ("sgd", "sgdw") and not nesterov)
