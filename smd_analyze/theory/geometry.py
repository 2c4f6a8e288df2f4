"""Angles from the sums that the statistics stage keeps per unit."""

import numpy as np

from smd_analyze.theory.autoregression import Floats


def angle_of_cosine(cosine: Floats) -> Floats:
    """Radians of a cosine, clipped to [−1, 1]; 2 asin √((1−c)/2), which keeps small angles."""
    return 2 * np.arcsin(np.sqrt(np.clip((1 - np.asarray(cosine, np.float64)) / 2, 0, 1)))


def unit_angle(after: Floats, squared_step: Floats, step_along: Floats) -> Floats:
    r"""Angle between u and v from sums over one unit's elements, arrays of one shape.

    $$ \theta = 2\arcsin\sqrt{\frac{D - \mathrm{rad}^2}{4\sqrt{n_u n_v}}},\quad
       \mathrm{rad} = \frac{P}{\sqrt{n_u}+\sqrt{n_v}},\ P = n_v - n_u = 2\,dv - D $$

    Args: `after` = n_v = Σv², `squared_step` = D = Σ(v−u)², `step_along` = dv = Σ(v−u)v [weight²].
    Returns: radians; NaN where either norm is 0 or an input is NaN.
    Accuracy: 1e-8 relative at θ = 1e-5 (10 % change of the norm), sums in float64.
    """
    gained = 2 * step_along - squared_step
    before = np.maximum(after - gained, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = np.sqrt(before), np.sqrt(after)
        radial = gained / (low + high)
        sine = np.maximum(squared_step - radial * radial, 0) / (4 * low * high)
        return np.where((before > 0) & (after > 0), 2 * np.arcsin(np.sqrt(np.minimum(sine, 1))), np.nan)
