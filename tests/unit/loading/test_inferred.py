"""Classes of optimizers and schedulers from the keys that only they save; relatives are not taken for one another."""

import pytest

from smd_analyze.loading.settings.inferred import optimizer_of, schedule_of

ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
MOMENTS = {"step": 1, "exp_avg": 0, "exp_avg_sq": 0}
CASES = [
    (ADAM, MOMENTS, "Adam or AdamW"),
    (ADAM | {"amsgrad": False, "decoupled_weight_decay": True}, MOMENTS, "AdamW"),
    (ADAM | {"amsgrad": False, "decoupled_weight_decay": False}, {}, "Adam"),
    (ADAM | {"decoupled_weight_decay": False, "foreach": None}, MOMENTS, "RAdam"),
    (ADAM | {"decoupled_weight_decay": False, "start_preconditioning_step": 5}, {}, None),
    (ADAM | {"weight_decouple": True, "n_sma_threshold": 5}, MOMENTS, None),
    (ADAM | {"caution": False}, MOMENTS, None),
    (ADAM | {"d": 1e-6, "d_coef": 1.0, "beta3": None}, MOMENTS, "Prodigy"),
    (ADAM | {"weight_lr_power": 2.0, "train_mode": True}, {"z": 0, "exp_avg_sq": 0}, "AdamWScheduleFree"),
    ({"lr": 1.0, "momentum": 0.9, "weight_lr_power": 2.0}, {"z": 0}, "SGDScheduleFree"),
    (ADAM | {"grad_averaging": True, "max_grad_norm": 1.0, "trust_clip": False}, MOMENTS, "LAMB"),
    (ADAM | {"precondition_frequency": 10, "max_precond_dim": 9, "shampoo_beta": -1}, MOMENTS, "SOAP"),
    (ADAM | {"no_prox": False, "betas": (0.98, 0.92, 0.99)}, {"exp_avg_diff": 0}, "Adan"),
    (ADAM | {"betas": (0.9, 0.999, 0.9999)}, {"exp_avg": 0, "exp_avg_sq": 0, "exp_avg_slow": 0}, "AdEMAMix"),
    (ADAM, {"state1": 0, "state2": 0, "qmap1": 0}, "Adam or AdamW (8 bit)"),
    (ADAM, {"exp_avg": 0, "exp_avg_var": 0}, "AdaBelief"),
    (ADAM, {"exp_avg": 0, "exp_avg_sq_row": 0}, None),
    ({"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0}, {"exp_avg": 0}, "Lion"),
    ({"lr": 1e-4, "betas": (0.9, 0.99)}, {}, None),
    ({"lr": 0.02, "momentum": 0.95, "use_muon": True}, {}, "Muon"),
    ({**ADAM, "use_muon": False}, MOMENTS, "AdamW"),
    ({"lr": 1.0, "momentum": 0.9, "trust_coeff": 1e-3, "nesterov": False}, {}, "LARS"),
    ({"lr": 0.1, "momentum": 0.9, "dampening": 0, "nesterov": True}, {}, "SGD"),
    ({"lr": 0.1, "momentum": 0.9, "dampening": 0, "nesterov": True, "weight_decouple": True}, {}, "SGDW"),
    ({"lr": None, "scale_parameter": True, "relative_step": True}, {}, "Adafactor"),
    ({"lr": 0.1}, {}, None),
]


@pytest.mark.parametrize(("group", "state", "name"), CASES)
def test_the_optimizer(group, state, name):
    assert optimizer_of(group, state) == name


@pytest.mark.parametrize(
    ("state", "name"),
    [
        ({"_schedulers": [], "_milestones": [5], "last_epoch": 1}, "SequentialLR"),
        ({"_schedulers": [], "_last_lr": [0.1]}, "ChainedScheduler"),
        ({"base_lrs": [0.1], "lr_lambdas": [None], "last_epoch": 1}, "LambdaLR"),
        ({"max_lrs": [1], "total_size": 8, "step_ratio": 0.5, "gamma": 1.0}, "CyclicLR"),
        ({"gamma": 0.9, "last_epoch": 1}, "ExponentialLR"),
        ({"t_initial": 9, "cycle_mul": 1.0, "lr_min": 0.0}, "timm CosineLRScheduler"),
        ({"last_epoch": 3}, None),
    ],
)
def test_the_schedule(state, name):
    assert schedule_of(state) == name
