"""How fast weight decay alone shrinks a direction that feels no gradient (a decay clock), for every optimizer.

Such a direction's component c obeys the optimizer's own recursion with the decay term λc as its only gradient, so its
course is exact. Symbols: η learning rate, λ weight decay, x = ηλ decay of one update, α momentum, τ dampening,
q momentum buffer. Rates are −ln(c'/c) per update. The symmetry behind it: Kunin et al. 2021, arXiv:2012.04728.

`settled` has rates under constant x and back; `filling` those from an empty buffer on; `recursion` any schedule, step
by step; `rounding` what fp32 makes of x. Pure formulas: they know neither files nor runs.
"""

from smd_analyze.decay_formulas.filling import filling_loss
from smd_analyze.decay_formulas.recursion import (
    drop_position,
    fresh_buffer,
    log_ratios,
    settled_buffer,
    step_matrices,
    velocity_lag,
)
from smd_analyze.decay_formulas.rounding import RESOLUTION, decay_of_factor, fp32_factor, rounded_rate, rounding_bias
from smd_analyze.decay_formulas.settled import (
    adam_l2_slope,
    coupled_rate,
    decay_of,
    decoupled_rate,
    oscillates,
    oscillation_limit,
)

__all__ = [
    "RESOLUTION",
    "adam_l2_slope",
    "coupled_rate",
    "decay_of",
    "decay_of_factor",
    "decoupled_rate",
    "drop_position",
    "filling_loss",
    "fp32_factor",
    "fresh_buffer",
    "log_ratios",
    "oscillates",
    "oscillation_limit",
    "rounded_rate",
    "rounding_bias",
    "settled_buffer",
    "step_matrices",
    "velocity_lag",
]
