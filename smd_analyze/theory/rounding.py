"""What the type in which weights were saved hides of their motion."""

from collections.abc import Iterable
from math import sqrt

MANTISSA_BITS = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7, "float8_e4m3fn": 3, "float8_e5m2": 2}
BELOW = "below resolution"
RESOLVED = 3.0  # times the rounding: the least angle that can be told from it


def rounding_of(types: Iterable[str]) -> float:
    """Relative rounding c of the coarsest type: ‖Q(w) − w‖ = c‖w‖, 0.2125 ulp for Gaussian weights; 0 where unknown."""
    return max((0.2125 * 2.0 ** -MANTISSA_BITS[t] for t in types if t in MANTISSA_BITS), default=0.0)


def copied(types: Iterable[str]) -> float:
    """Rounding of saved copies: of types coarser than float32, in which training seldom keeps its weights."""
    found = rounding_of(types)
    return found if found > rounding_of(["float32"]) else 0.0


def without_rounding(square: float, rounding: float) -> float | None:
    """θ² less what the rounding of both copies adds, θ² − 2c²; None below 3c, where roundings are not independent.

    Accuracy: 1.5 % of θ at 3c, measured with Gaussian steps.
    """
    corrected = square - 2 * rounding**2
    return corrected if corrected >= (RESOLVED * rounding) ** 2 else None


def floor_of_update(types: Iterable[str]) -> float:
    """Angle [rad] below which an update is mostly lost to the rounding of the weights it is added to, float32 or finer.

    Coarser saved types are copies: their masters are taken to be float32.
    """
    return RESOLVED * sqrt(2) * min(rounding_of(types), rounding_of(["float32"]))


def noise_of_growth(types: Iterable[str], numel: int) -> float:
    """95 % of what rounding saved copies of both checkpoints adds to ln(n₂/n₁), mean over units of `numel` elements.

    Each element is off by c of its size, independently: 1.96·√2·2c/√numel. Less where weights moved less than that.
    """
    return 1.96 * sqrt(2) * 2 * copied(types) / sqrt(max(numel, 1))
