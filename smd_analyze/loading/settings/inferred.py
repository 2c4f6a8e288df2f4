"""The class of an optimizer or scheduler, which no file of torch's says: from the keys that only it saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Keys = tuple[str, ...]

GROUP_KEYS: tuple[tuple[Keys, str], ...] = (  # all of a parameter group's keys; the first row that fits
    (("weight_lr_power", "betas"), "AdamWScheduleFree"), (("weight_lr_power",), "SGDScheduleFree"),
    (("d_coef", "beta3"), "Prodigy"), (("d", "growth_rate", "betas"), "DAdaptAdam"),
    (("d", "growth_rate"), "DAdaptSGD"), (("precondition_frequency", "shampoo_beta"), "SOAP"),
    (("precondition_frequency", "max_preconditioner_dim"), "Shampoo"),
    (("precondition_frequency", "max_precond_dim"), "SOAP"), (("update_freq", "epsilon", "momentum"), "Shampoo"),
    (("trust_coeff",), "LARS"), (("trust_coefficient",), "LARS"),
    (("grad_averaging", "max_grad_norm", "betas"), "LAMB"), (("trust_clip", "betas"), "LAMB"),
    (("beta3_warmup",), "AdEMAMix"), (("alpha_warmup",), "AdEMAMix"), (("hessian_power",), "AdaHessian"),
    (("rho", "betas"), "Sophia"), (("no_prox", "betas"), "Adan"), (("ns_steps",), "Muon"),
    (("beta2_decay",), "Adafactor"), (("scale_parameter", "relative_step"), "Adafactor"),
    (("decay_rate", "clip_threshold"), "Adafactor"), (("momentum_decay",), "NAdam"), (("schedule_decay",), "NAdam"),
    (("lambd", "t0"), "ASGD"), (("etas", "step_sizes"), "Rprop"), (("max_iter", "tolerance_grad"), "LBFGS"),
)  # fmt: skip
STATE_KEYS: tuple[tuple[Keys, str], ...] = (  # all of one parameter's state, for groups with betas
    (("exp_inf",), "Adamax"), (("exp_avg_slow",), "AdEMAMix"), (("exp_avg_diff",), "Adan"),
    (("exp_avg_var",), "AdaBelief"), (("GG", "Q"), "SOAP"), (("hessian",), "Sophia"),
    (("state1", "state2"), "Adam or AdamW (8 bit)"), (("state1",), "Lion (8 bit)"),
)  # fmt: skip
SCHEDULE_KEYS: tuple[tuple[Keys, str], ...] = (
    (("T_0", "T_mult"), "CosineAnnealingWarmRestarts"), (("T_max", "eta_min"), "CosineAnnealingLR"),
    (("milestones", "gamma"), "MultiStepLR"), (("step_ratio", "total_size"), "CyclicLR"),
    (("step_size", "gamma"), "StepLR"), (("total_steps", "_schedule_phases"), "OneCycleLR"),
    (("patience", "factor"), "ReduceLROnPlateau"), (("start_factor", "total_iters"), "LinearLR"),
    (("factor", "total_iters"), "ConstantLR"), (("power", "total_iters"), "PolynomialLR"),
    (("anneal_epochs", "_anneal_strategy"), "SWALR"), (("_schedulers", "_milestones"), "SequentialLR"),
    (("_schedulers",), "ChainedScheduler"), (("lr_lambdas",), "LambdaLR"),
    (("t_initial", "cycle_mul", "lr_min"), "timm CosineLRScheduler"),
    (("decay_t", "decay_rate"), "timm StepLRScheduler"), (("decay_t", "warmup_t"), "timm MultiStepLRScheduler"),
    (("power", "t_initial"), "timm PolyLRScheduler"), (("t_initial", "warmup_t"), "timm TanhLRScheduler"),
    (("patience_t",), "timm PlateauLRScheduler"), (("lr_decay_style",), "Megatron's OptimizerParamScheduler"),
    (("max_lr", "lr_decay_style"), "Megatron's OptimizerParamScheduler"), (("gamma",), "ExponentialLR"),
)  # fmt: skip
FOREIGN = frozenset((  # of relatives of Adam that are no Adam and have no key of their own
    "weight_decouple", "fixed_decay", "caution", "grad_averaging", "n_sma_threshold", "N_sma_threshhold", "centered",
    "degenerated_to_sgd", "cautious", "start_preconditioning_step", "clip_threshold",
))  # fmt: skip


def optimizer_of(group: Mapping[str, Any], state: Mapping[str, Any]) -> str | None:
    """The optimizer whose keys these are (torch 2.x, timm, bitsandbytes and others); None if none or several may be.

    AdamW had no key of its own before torch 2.6: then "Adam or AdamW".
    """
    if type(group.get("use_muon")) is bool:
        return "Muon" if group["use_muon"] else "AdamW"
    for keys, name in GROUP_KEYS:
        if all(k in group for k in keys):
            return name
    if "betas" in group:
        return with_betas(group, state)
    if "alpha" in group and "momentum" in group:
        return "RMSprop"
    if "lr_decay" in group:
        return "Adagrad"
    if "rho" in group:
        return "Adadelta"
    if "momentum" in group and ("nesterov" in group or "dampening" in group):
        apart = group.get("weight_decouple") or "caution" in group  # pytorch_optimizer's and timm's own class
        return "SGDW" if apart else "SGD"
    return None


def with_betas(group: Mapping[str, Any], state: Mapping[str, Any]) -> str | None:
    """Adam's many relatives, by their state."""
    for keys, name in STATE_KEYS:
        if all(k in state for k in keys):
            return name
    if "exp_avg" in state and state.keys() <= {"exp_avg", "step"} and "eps" not in group:
        return "Lion"
    if FOREIGN & group.keys() or (state and not {"exp_avg", "exp_avg_sq"} <= state.keys()):
        return None
    if "decoupled_weight_decay" in group:
        if "amsgrad" in group:
            return "AdamW" if group["decoupled_weight_decay"] else "Adam"
        return "RAdam" if "foreach" in group else None
    return "Adam or AdamW" if "eps" in group else None


def schedule_of(state: Mapping[str, Any]) -> str | None:
    """The scheduler whose keys these are; LambdaLR says nothing of its function."""
    return next((name for keys, name in SCHEDULE_KEYS if all(k in state for k in keys)), None)
