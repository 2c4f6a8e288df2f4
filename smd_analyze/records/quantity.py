"""Every number's symbol, unit, meaning and source, keyed by the column it stands in.

Plots, HDF5 attributes, table heads and the glossary read it here, so a number is explained once.
"""

from dataclasses import dataclass

SMD = "Wan et al. 2021, arXiv:2006.08419"
KOSSON = "Kosson et al. 2023, arXiv:2305.17212"
MEASURED = "measured from the saved weights"


@dataclass(frozen=True)
class Quantity:
    """What a column of a table holds. `unit` is "1" for pure numbers and counts; weights have the unit of the weights."""

    name: str
    symbol: str
    unit: str
    meaning: str
    source: str


def _q(name: str, symbol: str, unit: str, meaning: str, source: str = MEASURED) -> tuple[str, Quantity]:
    return name, Quantity(name, symbol, unit, meaning, source)


QUANTITIES: dict[str, Quantity] = dict(
    [
        _q("weight_norm", "‖w‖", "weight", "weight norm of the group: L2 norm of all its elements together"),
        _q("rms_weight", "‖w‖/√d", "weight", "root mean square of the group's elements"),
        _q("norm_change", "Δ‖w‖", "%", "change of the weight norm from the first checkpoint to the last"),
        _q("angle", "θₖ", "rad", "angle between the weights of the previous checkpoint and of this one"),
        _q("angle_from_first", "θ₀ₖ", "rad", "angle between the weights of the first checkpoint and of this one"),
        _q("nonfinite", "", "1", "number of NaN or infinite elements"),
        _q("angular_update", "θ₁", "rad/step", "angular update: root mean square angle that one optimizer step turns", SMD),
        _q("steps_covered", "", "step", "number of optimizer steps that an angular update is the mean of"),
        _q("equilibrium_angular_update", "θ*", "rad/step", "angular update at equilibrium, from learning rate, weight decay and momentum alone", f"{SMD}; {KOSSON}"),
        _q("equilibrium_norm", "‖w‖*", "weight", "weight norm at equilibrium", f"{SMD}; {KOSSON}"),
        _q("expected_norm", "E‖w‖", "weight", "weight norm that theory expects under the schedule, from the first checkpoint on", SMD),
        _q("diffusion_angle", "θₖ⁰", "rad", "angle from the previous checkpoint if gradients had zero mean: a reference for drift and confinement, never a verdict", "AR(2) of the update rule with zero-mean gradients"),
        _q("half_lives", "", "1", "half-lives of the norm's relaxation passed since the first checkpoint: Σ rate / ln 2", SMD),
        _q("sum_learning_rate", "Ση", "1", "sum of the learning rate over the interval's optimizer steps", "the schedule's `source`"),
        _q("sum_decay", "Σηλ", "1", "sum of learning rate × weight decay over the interval's optimizer steps", "the schedule's `source`"),
        _q("learning_rate_first", "η", "1", "learning rate of the interval's first update", "the schedule's `source`"),
        _q("learning_rate_last", "η", "1", "learning rate of the interval's last update", "the schedule's `source`"),
        _q("momentum", "α", "1", "momentum coefficient", "the schedule's `source`"),
        _q("dampening", "", "1", "dampening of the gradient in the momentum buffer", "the schedule's `source`"),
        _q("beta1", "β₁", "1", "decay of Adam's first moment", "the schedule's `source`"),
        _q("beta2", "β₂", "1", "decay of Adam's second moment", "the schedule's `source`"),
        _q("eps", "ε", "1", "Adam's epsilon", "the schedule's `source`"),
        _q("weight_decay", "λ", "1", "weight decay coefficient", "the schedule's `source`"),
        _q("decay_per_step", "−Δln c/k", "1/step", "decay per step read off a direction that feels no gradient: what acted on the weights, with momentum in the gradient ηλ/(1−α)", "measured from the saved weights (Kunin et al. 2021, arXiv:2012.04728)"),
        _q("directions", "d", "1", "elements of the vector that feels no gradient"),
        _q("told_decay", "Σηλ", "1", "sum of learning rate × weight decay over the interval by files and caller alone", "the schedule's `told_source`"),
        _q("told_per_step", "−ln(c'/c)", "1/step", "decay per step that a direction without gradient would have under what files and caller say", "the settled rate of the optimizer's recursion"),
        _q("told_weight_decay", "λ", "1", "weight decay coefficient by files and caller", "the schedule's `told_source`"),
        _q("change_step", "t", "step", "step after which the decay per step jumped", "the interval's rate between those before and after it"),
        _q("stretch", "", "1", "number of the stretch of constant decay that the interval belongs to"),
        _q("step", "t", "step", "optimizer step of the checkpoint (or what run.step_unit says)", "the run's `ordered_by`"),
        _q("step_from", "t", "step", "step of the earlier checkpoint", "the run's `ordered_by`"),
        _q("step_to", "t", "step", "step of the later checkpoint", "the run's `ordered_by`"),
        _q("nbytes", "", "byte", "size of the checkpoint on disk"),
        _q("units", "", "1", "number of parts that may each be scaled alone", "the group's `reason`"),
        _q("numel", "d", "1", "number of elements", "shapes in the files"),
        _q("level", "", "1", "coverage that the interval claims", "the fit's `method`"),
        _q("value", "", "1", "the quantity's value", "the row's `source` or `method`"),
        _q("p10", "", "1", "10th percentile over the units", "the row's `method`"),
        _q("p90", "", "1", "90th percentile over the units", "the row's `method`"),
        _q("equilibrium_index", "EI", "1", "equilibrium index: d ln‖w‖² / (2 × decay) over the interval; 0 at equilibrium, −1 pure decay, > 0 the norm still grows", SMD),
        _q("effective_learning_rate", "η/‖w‖², η√d/‖w‖", "1/weight², 1/step", "effective learning rate: η/‖w‖² of SGD, η√d/‖w‖ of Adam, Lion and Muon (the fit's `method` says which)", "van Laarhoven 2017, arXiv:1706.05350; Hoffer et al. 2018, arXiv:1803.01814; Zhang et al. 2019, arXiv:1810.12281"),
        _q("relaxation_rate", "r", "1/step", "rate at which ‖w‖⁴ (SGD family) or ‖w‖² (AdamW, Lion, Muon; Adam with L2 near its equilibrium) relaxes to equilibrium", SMD),
        _q("layers.level", "‖w‖*", "weight", "weight norm that the layer settles at", "the row's `level_basis`"),
        _q("implied", "θ₁", "rad/step", "angular update that the norms imply over the last interval, an identity: against equilibrium it tests that the norm is stationary", SMD),
        _q("measured", "θ₁", "rad/step", "angular update measured over the last interval, independently of the norms"),
        _q("equilibrium", "θ*", "rad/step", "angular update at equilibrium, from learning rate, weight decay and momentum alone", f"{SMD}; {KOSSON}"),
        _q("ratio", "θ₁/θ*", "1", "angular update over its value at equilibrium"),
        _q("relaxation_rate_ratio", "r/r*", "1", "relaxation rate over the one that theory predicts", SMD),
        _q("vv", "Σv²", "weight²", "squared norm of each unit"),
        _q("dd", "Σ(v−u)²", "weight²", "squared distance of each unit from the previous checkpoint"),
        _q("dv", "Σ(v−u)v", "weight²", "step since the previous checkpoint along the weights, of each unit"),
        _q("uu", "Σd²", "1", "squared norm of each unit's saved optimizer direction"),
        _q("wu", "Σwd", "weight", "product of each unit with its saved optimizer direction"),
        _q("ss", "Σ√v̂", "1", "sum of the gradients' root mean squares over each unit's elements, from Adam's second moment"),
        _q("excess_retention", "Eₖ", "1", "ln of how much of the previous checkpoint the weights still hold, over what zero-mean gradients would leave: > 0 confinement, < 0 drift, no verdict", "retention of the update rule with zero-mean gradients"),
        _q("lags.lag", "", "1", "distance of the two checkpoints, counted in checkpoints"),
        _q("lags.steps", "k", "step", "optimizer steps between the two checkpoints", "the run's steps"),
        _q("lags.elements", "", "1", "number of elements that were compared: all of neighbouring checkpoints, else a sample; the sampling error of 1 − cos θ is √(2/elements) of it"),
        _q("lags.angle", "θₖ", "rad", "angle between the weights of the two checkpoints, as saved"),
        _q("retention", "aₖ", "1", "how much of the earlier weights the later ones still hold: ⟨w_to, w_from⟩/‖w_from‖²"),
        _q("lags.diffusion_angle", "θₖ⁰", "rad", "angle if gradients had zero mean and were independent in time: a reference for drift and confinement, never a verdict", "the update rule's recursion with zero-mean gradients, under the recorded schedule"),
        _q("diffusion_retention", "aₖ⁰", "1", "retention if gradients had zero mean and were independent in time", "the update rule's recursion with zero-mean gradients, under the recorded schedule"),
        _q("lags.excess_retention", "Eₖ", "1", "ln of retention over that of zero-mean gradients: > 0 confinement, < 0 drift, no verdict", "retention of the update rule with zero-mean gradients"),
        _q("lags.ratio", "", "1", "1 − cos of the angle over that of zero-mean gradients, less what rounding adds; no verdict", "retention of the update rule with zero-mean gradients"),
        _q("fit.equilibrium_index", "EI", "1", "equilibrium index, mean over the judged stretch of the units' median: d ln‖w‖²/(2 × decay); 0 at equilibrium, −1 pure decay, > 0 the norm still grows", SMD),
        _q("fit.stationary_since", "t", "step", "step since which the norm is stationary: 90 % interval of the equilibrium index within ±0.1", "equivalence test (two one-sided t tests) on the equilibrium index"),
        _q("fit.level", "‖w‖", "weight", "norm at which a stationary stretch stands: mean over its checkpoints, batch-means interval"),
        _q("fit.level_ratio", "‖w‖/‖w‖*", "1", "level of a stationary stretch over the norm that theory predicts", SMD),
        _q("fit.agreement", "θ₁/θ*", "1", "measured over equilibrium angular update, root mean square; the one test of theory", f"{SMD}; {KOSSON}"),
        _q("fit.gradient_scale", "L", "loss²", "squared gradient at unit norm, E‖w‖²‖g‖², that the norms imply with a trusted schedule (SGD family)", "weighted least squares of the linear equation of ‖w‖⁴ (Wan et al. 2021, arXiv:2006.08419)"),
        _q("fit.decay_from_data", "ηλ", "1/step", "decay of one update recovered from measured updates and the norm's slope", SMD),
        _q("fit.intrinsic_learning_rate", "ηλ", "1/step", "learning rate × weight decay of the last update: what alone sets the balance", "Li, Lyu & Arora 2020, arXiv:2010.02916"),
        _q("fit.steps_to_equilibrium", "t", "step", "steps until ‖w‖ is within 10 % of its equilibrium, if learning rate and gradients stay", SMD),
        _q("fit.norm_fluctuation", "sd‖w‖/‖w‖*", "1", "scatter of one unit's norm at equilibrium, ½·CV·√(x_e/2) at CV = 1 (SGD family)", "stationary variance of the linear equation of ‖w‖⁴"),
        _q("fit.angle_after_change", "θ₁/θ₁(t)", "1", "measured over predicted angular update in the transient of a learning-rate change", SMD),
        _q("fit.displacement_exponent", "d ln(1−cos θₖ)/d ln k", "1", "how the angle grows with the distance of checkpoints: 1 random walk, 2 straight; no verdict"),
        _q("fit.displacement_exponent_zero_mean", "", "1", "displacement_exponent if gradients had zero mean, at the same distances", "the update rule's recursion with zero-mean gradients"),
        _q("fit.excess_retention", "Eₖ", "1", "ln of retention over that of zero-mean gradients, at the longest distance: > 0 confinement, < 0 drift, no verdict", "the update rule's recursion with zero-mean gradients"),
        _q("fit.drift_fraction", "f", "1", "share of the squared gradient that keeps one direction", "least squares of θₖ²/k = D[(1−f)κₖ/k + fk]"),
        _q("stage", "", "1", "number of the stage of training; 0: the whole run", "changes of the schedule's learning rate and decay"),
        _q("updates", "", "1", "optimizer steps of the stage", "the run's steps"),
        _q("learning_rate_from", "η", "1", "learning rate at the beginning of the stage", "the schedule's `source`"),
        _q("learning_rate_to", "η", "1", "learning rate at the end of the stage", "the schedule's `source`"),
        _q("effective_decay", "Σxₑ", "1", "decay of the weights over the stage: Σηλ, with decay in the gradient and momentum Σηλ/(1−α)", SMD),
        _q("stages.half_lives", "h", "1", "half-lives of the norm's relaxation that the stage lasts: Σ rate / ln 2", SMD),
        _q("covered", "1 − 2^−h", "1", "share of the way to equilibrium, in ‖w‖⁴ (SGD family) or ‖w‖² (AdamW, Lion, Muon), that the stage's half-lives cover", SMD),
        _q("start_lowest", "", "1", "smallest norm, over the equilibrium one, from which the stage ends within 10 % of equilibrium", SMD),
        _q("start_highest", "", "1", "largest norm, over the equilibrium one, from which the stage ends within 10 % of equilibrium", SMD),
        _q("steps_needed", "", "step", "steps that bring a norm from twice its equilibrium value, or any smaller one, to within 10 %", SMD),
        _q("lag", "‖w‖/‖w‖*", "1", "weight norm over its equilibrium value at the end of the stage, which the schedule alone enforces; where the start no longer matters", SMD),
        _q("tail_from", "t", "step", "step from which on, to the stage's end, the norm can cover at most 10 % of any way: what the balance was then stays", SMD),
        _q("time_scale", "1/xₑ", "step", "number of recent steps that the weights average over, 1/(ηλ) for decoupled decay", "Wang & Aitchison 2024, arXiv:2405.13698"),
        _q("time_scale_epochs", "1/xₑ", "epoch", "the same in epochs", "Wang & Aitchison 2024, arXiv:2405.13698"),
        _q("time_scale_tokens", "1/xₑ", "token", "the same in tokens", "Wang & Aitchison 2024, arXiv:2405.13698"),
        _q("share", "", "1", "share of what updates of one size per learning rate added to the final weights", "Σ η Π(1−xₑ) over the stage, over that of all"),
        _q("initial_left", "Π(1−xₑ)", "1", "factor that decay left of the first checkpoint's weights", "the schedule"),
        _q("level_ratio", "q", "1", "equilibrium ‖w‖⁴ (or ‖w‖²) before the change of the learning rate over that after it: (η/λ)/(η'/λ')", SMD),
        _q("dip", "1/√q", "1", "angular update right after the change over its new equilibrium value, from equilibrium", SMD),
        _q("recovery_steps", "", "step", "steps until the angular update is within 5 % of its new equilibrium value", SMD),
        _q("weight_factor", "q^−1/p", "1", "factor that would have put scale-invariant weights at their new equilibrium at once", SMD),
        _q("buffer_factor", "q^1/p", "1", "factor for their momentum buffers (first moments), with weight_factor", "gradients of a scale-invariant function grow as 1/‖w‖"),
        _q("second_moment_factor", "q^2/p", "1", "factor for Adam's second moments, with weight_factor", "gradients of a scale-invariant function grow as 1/‖w‖"),
    ]
)  # fmt: skip
"""Columns `X_low`, `X_high`, `X_p10`, `X_p90` are the ends of X's interval or spread and share its row."""


def quantity(column: str, table: str = "") -> Quantity | None:
    """The Quantity of a column (the ends of an interval share their quantity's row); None for words and unknown columns.

    Some columns mean something else in one table: "layers.level" is looked up before "level". quantity(name, "fit") is
    that of the quantity called `name` in the rows of `fits`.
    """
    stem = column
    for suffix in ("_low", "_high", "_p10", "_p90"):
        stem = stem.removesuffix(suffix)
    names = (f"{table}.{column}", f"{table}.{stem}", column, stem)
    return next((QUANTITIES[name] for name in names if name in QUANTITIES), None)
