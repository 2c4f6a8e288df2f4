"""Names of optimizers, lower-case and one per update rule, and what torch assumes where nothing is said."""

from __future__ import annotations

DECOUPLED = {"adamw": "adam", "sgdw": "sgd", "lion": "lion", "muon": "muon"}
SYNONYMS = {
    "momentum": "sgd",
    "momentumoptimizer": "sgd",
    "gradientdescent": "sgd",
    "gradientdescentoptimizer": "sgd",
    "nesterov": "sgd",
    "fusedsgd": "sgd",
    "fusedadam": "adam",
    "adamoptimizer": "adam",
    "adamweightdecay": "adamw",
    "adamweightdecayoptimizer": "adamw",
    "deepspeedcpuadam": "adam",
}
SUFFIXES = (
    "_torch_fused", "_torch_xla", "_torch_npu_fused", "_torch_8bit", "_torch_4bit", "_torch", "_hf", "_fused",
    "_apex_fused", "_bnb_8bit", "_bnb", "_8bit", "8bit", "_anyprecision", "_foreach",
)  # fmt: skip
DEFAULTS: dict[str, dict[str, float]] = {
    "sgd": {"momentum": 0.0, "dampening": 0.0},
    "sgdw": {"momentum": 0.0, "dampening": 0.0},
    "adam": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "adamw": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "nadam": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "lion": {"beta1": 0.9, "beta2": 0.99},
    "muon": {"momentum": 0.95},
}
OTHERS = (
    "adadelta", "adafactor", "adagrad", "adamax", "asgd", "lamb", "lars", "radam", "rmsprop", "rprop", "shampoo",
    "soap", "sophia",
)  # fmt: skip
"""Optimizers that are known by name and have no theory here."""
ASSUMED = ("momentum", "beta1", "beta2")  # worth a note when assumed


def normal(name: str) -> str:
    """`torch.optim.AdamW`, `adamw_torch_fused`, `AdamWeightDecay` → `adamw`."""
    word = name.strip().replace("-", "_").split(".")[-1].split("(")[0].strip("'\"<> ").lower()
    for suffix in SUFFIXES:
        word = word.removesuffix(suffix)
    return SYNONYMS.get(word, word)


def with_decay(name: str, decoupled: bool | None) -> tuple[str, bool]:
    """The name and whether weight decay acts outside the gradient, after the switch (None: not said) had its word."""
    if decoupled is None:
        return name, name in DECOUPLED
    if decoupled:
        return {"adam": "adamw", "sgd": "sgdw"}.get(name, name), True
    return {"adamw": "adam", "sgdw": "sgd"}.get(name, name), False
