"""What rounding makes of a decoupled decay: the factor 1 − ηλ, and each element's own product.

PyTorch's per-tensor and foreach optimizers multiply weights by the number 1 − ηλ, which an fp32 tensor takes rounded to
fp32; CUDA's fused kernels compute w − ηλ·w. 16-bit weights are multiplied in fp32 and the product is rounded.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Form = Literal["factor", "fused"]

RESOLUTION = 2.0**-25  # half the spacing below 1 in fp32: decays of a smaller ηλ (3e-8) leave 1 − ηλ at exactly 1
DIGITS = {"float32": 24, "float16": 11, "bfloat16": 8, "float64": 53}  # binary digits, the leading one included
MANTISSAS = (
    4096  # midpoints of ln|w| over a factor of two: the average is good to 1e-3 of itself at the smallest decays
)


def fp32_factor(decay: npt.ArrayLike) -> Floats:
    """1 − ηλ as fp32 holds it (multiples of 2⁻²⁴ below 1), in float64. x = 3e-5 becomes 2.9981e-5, below 2⁻²⁵ zero."""
    return (1 - np.asarray(decay, np.float64)).astype(np.float32).astype(np.float64)


def decay_of_factor(factor: npt.ArrayLike) -> tuple[Floats, Floats]:
    """The least and the greatest ηλ for which 1 − ηλ rounds to this fp32 factor (up to 1): 2⁻²⁴ apart."""
    f = np.asarray(factor, np.float32)
    below, above = np.nextafter(f, np.float32(0)), np.nextafter(f, np.float32(2))
    exact = f.astype(np.float64)
    return 1 - (exact + above.astype(np.float64)) / 2, 1 - (exact + below.astype(np.float64)) / 2


def rounded_rate(decay: npt.ArrayLike, form: Form = "factor", dtype: str = "float32") -> Floats:
    """−ln(c'/c) of one update that a long slice shows, its elements' rounding included, at any moment.

    An element u·2ᵉ (1 ≤ u < 2) loses a whole number n = rint(x·u/ulp) of units in its last place, the same number every
    update until u has changed; averaged over ln u uniform, as in a slice of many elements:
    E[n·ulp/u]. "factor": x = 1 − fl32(1−ηλ). "fused": x = ηλ. From about 30 ulp on (4e-6 in fp32) rounding no longer
    shows. Below one ulp the elements stop one by one ("fused", ηλ < 2⁻²⁴) or overshoot (factor 1 − 2⁻²⁴: 1.44 times as
    fast). A weight in bfloat16 feels no decay below 2⁻⁹ at all. Source: derived here; replayed in the tests.
    """
    x = np.asarray(decay, np.float64)
    acting = 1 - fp32_factor(x) if form == "factor" and dtype != "float64" else x
    ulp = 2.0 ** (1 - DIGITS[dtype])
    u = 2 ** ((np.arange(MANTISSAS) + 0.5) / MANTISSAS)
    lost = np.rint(acting[..., None] * u / ulp) * ulp / u
    return -np.log1p(-lost.mean(-1))


def rounding_bias(weights: npt.ArrayLike, rate: float) -> float:
    """The most by which a slice of fp32 weights [d] may shrink faster or slower than decay acts, per update.

    Each element w loses rint(x·w/ulp)·ulp instead of x·w, the same every update, so the error of −ln(‖w'‖/‖w‖) does not
    average out: it is Σw·(lost − xw)/Σw². Taken at its worst for x within a fifth of `rate`, since the true one is not
    known. Percents of the rate at a few ulp (1e-7), 1e-3 of it at 1e-6 for a hundred elements.
    """
    w = np.abs(np.asarray(weights, np.float32)).astype(np.float64)
    ulp = np.spacing(w.astype(np.float32)).astype(np.float64)
    x = rate * np.linspace(0.8, 1.2, 17)[:, None]
    lost = np.rint(x * w / ulp) * ulp
    return float(np.abs((lost * w).sum(1) / np.square(w).sum() - x[:, 0]).max())
