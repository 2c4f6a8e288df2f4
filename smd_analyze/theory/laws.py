"""Which closed forms belong to which optimizer: one table, and the reason where there is none."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from smd_analyze.theory import adam_l2, adamw, autoregression, decoupled, lion, muon, nesterov, sgd, sgdw
from smd_analyze.theory.autoregression import Floats

Formula = Callable[..., Floats]
CAUTIOUS = (
    "cautious weight decay acts only where update and weight agree in sign: how much of it acted is not known, "
    "no closed form"
)


@dataclass(frozen=True)
class Law:
    """The closed forms of one optimizer. x = ηλ decay per step, a = momentum α (β₁ for AdamW and Lion).

    `power`: ‖w‖^power obeys a linear equation, 4 for the SGD family, 2 for AdamW, Lion and Muon. `coupled`: decay
    passes through the momentum. `equilibrium_cosine(x, a)`, `retention(x, a, a₁, k)` → ⟨w_{t+k}, w_t⟩/‖w_t‖² from its
    value a₁ after one step, `angle_share(a)` → ζ, `relaxation_rate(x, a, beta2)` [1/step, of ‖w‖^power],
    `level(η, x, a)` → ‖w*‖^power per unit of gradient (L, or number of elements where power is 2).
    `amplification(a)` = x_e/x. `gain(x, a)`: what a step adds to ‖w‖² per η² and element (power 2 only).
    `squared_update`: ‖u‖² per η² and element where no gradient changes it (Lion, nearly Muon), else NaN.
    `universal`: the angle that norms imply holds for any gradients, ⟨w, g⟩ = 0 is enough. `gamma(a)`: autocovariance of
    the update per element, lags 0, 1, … (Lion, Muon). `norm_words`: how the level is found (power 2). `lagging`: v̂ lags
    behind the norm (AdamW).
    """

    name: str
    source: str
    power: int
    coupled: bool
    nesterov: bool
    momentum_word: str
    equilibrium_cosine: Formula
    retention: Formula
    angle_share: Formula
    amplification: Formula
    relaxation_rate: Formula
    level: Formula
    gain: Formula | None = None
    squared_update: float = np.nan
    universal: bool = False
    gamma: Callable[[float], Floats] | None = None
    norm_words: str = ""
    lagging: bool = False


def _one(momentum: npt.ArrayLike) -> Floats:
    return np.ones_like(np.asarray(momentum, np.float64))


def _heavy_ball_rate(decay: npt.ArrayLike, momentum: npt.ArrayLike, beta2: npt.ArrayLike) -> Floats:
    return sgd.relaxation_rate(decay, momentum)


def _decoupled_rate(decay: npt.ArrayLike, momentum: npt.ArrayLike, beta2: npt.ArrayLike) -> Floats:
    return sgd.relaxation_rate(decay, 0.0)  # decay does not pass through the momentum


def _adamw_rate(decay: npt.ArrayLike, momentum: npt.ArrayLike, beta2: npt.ArrayLike) -> Floats:
    return adamw.relaxation_rate(decay, beta2)


def _plain_rate(decay: npt.ArrayLike, momentum: npt.ArrayLike, beta2: npt.ArrayLike) -> Floats:
    return -2 * np.log1p(-np.asarray(decay, np.float64))  # ‖w‖² shrinks by (1−x)² a step


def _second_order(recursion: Callable[..., tuple[Floats, Floats]]) -> Formula:
    """Retention of an optimizer whose weights obey an AR(2)."""

    def retention(decay: npt.ArrayLike, momentum: npt.ArrayLike, first: npt.ArrayLike, lag: float) -> Floats:
        return autoregression.correlation(*recursion(decay, momentum), first, lag)

    return retention


HEAVY_BALL = Law(
    "SGD with momentum", sgd.SOURCE, 4, True, False, "momentum",
    sgd.equilibrium_cosine, _second_order(sgd.autoregression), sgd.angle_share, partial(sgd.effective_decay, 1.0),
    _heavy_ball_rate, partial(sgd.equilibrium_quartic_norm, gradient=1.0), universal=True,
)  # fmt: skip
NESTEROV = Law(
    "SGD with Nesterov momentum", nesterov.SOURCE, 4, True, True, "momentum",
    nesterov.equilibrium_cosine, _second_order(nesterov.autoregression), nesterov.angle_share,
    partial(sgd.effective_decay, 1.0), _heavy_ball_rate, partial(nesterov.equilibrium_quartic_norm, gradient=1.0),
)  # fmt: skip
SGDW = Law(
    "SGD with decoupled weight decay", sgdw.SOURCE, 4, False, False, "momentum",
    sgdw.equilibrium_cosine, _second_order(sgdw.autoregression), sgdw.angle_share, _one, _decoupled_rate,
    partial(sgdw.equilibrium_quartic_norm, gradient=1.0), universal=True,
)  # fmt: skip
SGDW_NESTEROV = Law(
    "SGD with Nesterov momentum and decoupled weight decay", sgdw.SOURCE_NESTEROV, 4, False, True, "momentum",
    partial(sgdw.equilibrium_cosine, nesterov=True), _second_order(sgdw.autoregression),
    partial(sgdw.angle_share, nesterov=True), _one, _decoupled_rate,
    partial(sgdw.equilibrium_quartic_norm, gradient=1.0, nesterov=True),
)  # fmt: skip
SGD_FAMILY = {(False, False): HEAVY_BALL, (False, True): NESTEROV, (True, False): SGDW, (True, True): SGDW_NESTEROV}
"""By (decoupled, nesterov)."""


@lru_cache(maxsize=256)
def adamw_law(beta2: float | None) -> Law:
    """AdamW with its second moment's decay; None: unknown, the limit β₂ → 1."""
    b2 = np.nan if beta2 is None else beta2
    return Law(
        "AdamW", adamw.SOURCE, 2, False, False, "beta1",
        partial(adamw.equilibrium_cosine, beta2=b2), _second_order(adamw.autoregression),
        partial(adamw.angle_share, beta2=b2), _one, _adamw_rate,
        partial(adamw.equilibrium_squared_norm, numel=1.0, beta2=b2), partial(adamw.noise_gain, beta2=b2),
        norm_words=adamw.NORM, lagging=True,
    )  # fmt: skip


ADAMW = adamw_law(None)


@lru_cache(maxsize=256)
def lion_law(beta2: float) -> Law:
    """Lion with the decay β₂ of its mean of gradients."""
    return _by_autocovariance(
        "Lion", lion.SOURCE, lion.NORM, "beta1", lambda a: lion.autocovariance(float(a), beta2), 1.0, True
    )


@lru_cache(maxsize=256)
def muon_law(nesterov_momentum: bool, rows: int, columns: int, rule: str = "") -> Law:
    """Muon of one matrix; `rule` as in muon.adjusted."""
    size, _ = muon.overlap(rows, columns)
    update = muon.adjusted(rows, columns, rule) ** 2 * size * min(rows, columns) / (rows * columns)
    return _by_autocovariance(
        "Muon", muon.SOURCE, muon.NORM, "momentum",
        lambda a: muon.autocovariance(float(a), nesterov_momentum, rows, columns, rule), update,
    )  # fmt: skip


def _by_autocovariance(
    name: str, source: str, norm: str, word: str, gamma: Callable[[float], Floats], squared_update: float,
    universal: bool = False,
) -> Law:  # fmt: skip
    """Law of a decoupled optimizer whose updates have the autocovariance gamma(a)."""
    return Law(
        name, source, 2, False, False, word,
        lambda x, a: decoupled.equilibrium_cosine(x, gamma(a)),
        lambda x, a, first, k: decoupled.retention(x, first, k, gamma(a)),
        lambda a: np.asarray(decoupled.angle_share(gamma(a))), _one, _plain_rate,
        lambda rate, x, a: decoupled.equilibrium_squared_norm(rate, x, 1.0, gamma(a)),
        lambda x, a: decoupled.noise_gain(x, gamma(a)), squared_update, universal, gamma, norm,
    )  # fmt: skip


def law_of(
    optimizer: str | None, nesterov_momentum: bool | None, decoupled_decay: bool | None, *,
    beta2: float | None = None, shape: tuple[int, int] | None = None, decay_rule: str | None = None,
    adjustment: str | None = None,
) -> Law | str:  # fmt: skip
    """The law of an optimizer as the schedule names it, or the reason why there is none (a sentence for `source`).

    Unknown `nesterov_momentum` is taken as False (True for Muon), unknown `decoupled_decay` as the optimizer's name
    says (sgdw, adamw, lion and muon decoupled). `shape`: rows and columns of the matrix, which Muon's update depends
    on. `decay_rule` as in the schedule table. `adjustment`: how Muon's learning rate depends on the shape, torch's
    `adjust_lr_fn`.
    """
    name = (optimizer or "").strip().lower()
    if not name:
        return "optimizer unknown"
    if "cautious" in (decay_rule or ""):
        return CAUTIOUS
    if name in ("sgd", "sgdw"):
        return SGD_FAMILY[(name == "sgdw") if decoupled_decay is None else decoupled_decay, bool(nesterov_momentum)]
    if name in ("adam", "adamw"):
        apart = (name == "adamw") if decoupled_decay is None else decoupled_decay
        return adamw_law(beta2) if apart else adam_l2.SOURCE
    if name in ("lion", "muon") and decoupled_decay is False:
        return f"no theory for {optimizer} with decay in the gradient"
    if name == "lion":
        return "beta2 unknown" if beta2 is None else lion_law(beta2)
    if name == "muon":
        if shape is None:
            return "Muon: the shape of the whole matrix is not known, and its update depends on it"
        return muon_law(nesterov_momentum is not False, *shape, (adjustment or "").strip())
    return f"no theory for optimizer {optimizer} yet"


def saved_direction_was_update(optimizer: str | None, nesterov_momentum: bool | None) -> bool:
    """Whether −η × the saved direction was the last update: momentum buffer without Nesterov, Adam's m̂/(√v̂+ε)."""
    name = (optimizer or "").strip().lower()
    return name in ("adam", "adamw") or (name in ("sgd", "sgdw") and not nesterov_momentum)
