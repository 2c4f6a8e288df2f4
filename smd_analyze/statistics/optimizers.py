"""Which direction the last update took, as far as an optimizer's saved state tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from smd_analyze.records.run import Checkpoint, LazyTensor

NOT_ADAM = ("nadam", "radam", "adamax", "adafactor", "mini", "8bit", "4bit", "lamb", "lion", "muon")
KINDS = {"in force": 0, "configured": 1, "inferred": 2}


@dataclass(frozen=True)
class Direction:
    """The update was −η·d with d = scale·m / (root·√v + eps), or scale·m if `second` is None."""

    first: LazyTensor
    second: LazyTensor | None = None
    scale: float = 1.0
    root: float = 0.0
    eps: float = 0.0


def direction(checkpoint: Checkpoint, parameter: str, parameter_group: str) -> Direction | str | None:
    """Direction of the update that made this checkpoint's parameter; words if its state does not tell; None: no state.

    SGD with momentum: the buffer, whatever its dampening; Keras keeps a velocity instead, which is −η times that.
    Adam, AdamW: m̂/(√v̂+ε), m̂ and v̂ corrected by the state's own `step` (Kingma and Ba 2015,
    arXiv:1412.6980), with amsgrad the largest v. Weight decay that acts outside the gradient is not part of it.
    """
    state = checkpoint.optimizer_state.get(parameter)
    if not state:
        return None
    name = str(setting(checkpoint, "optimizer", parameter_group) or "").lower()
    if "momentum_buffer" in state:
        return _sgd(checkpoint, state, name, parameter_group)
    if "velocity" in state:
        return _keras_sgd(checkpoint, state, parameter_group)
    if "exp_avg" in state and "exp_avg_sq" in state:
        return _adam(checkpoint, state, name, parameter_group)
    if "exp_avg" in state:
        return (
            f"{name or 'the optimizer'} saves a mean of past gradients, which is not the direction of its last update"
        )
    return None


def _sgd(
    checkpoint: Checkpoint, state: Mapping[str, LazyTensor], name: str, parameter_group: str
) -> Direction | str | None:
    if name and "sgd" not in name and "momentum" not in name:
        return f"the momentum buffer of {name} is not the direction of its update"
    if setting(checkpoint, "nesterov", parameter_group):
        return "with Nesterov momentum the update is g + α·buffer, and g is not saved"
    return Direction(state["momentum_buffer"])


def _keras_sgd(checkpoint: Checkpoint, state: Mapping[str, LazyTensor], parameter_group: str) -> Direction | str | None:
    """v ← αv − ηg, w ← (1 − ηλ)w + v: the velocity is the update itself, and −v/η its direction."""
    if setting(checkpoint, "nesterov", parameter_group):
        return "with Nesterov momentum the update is αv − ηg, and g is not saved"
    if checkpoint.step == 0:
        return None
    groups = ("", parameter_group)
    last = [s for s in checkpoint.settings if s.name == "learning_rate" and s.applies != "next update"]
    rate = next((s.value for s in last if s.kind == "in force" and s.parameter_group in groups), None)
    if rate is None:
        return "the optimizer saves a velocity, which holds the learning rate, and that of the last update is not known"
    return Direction(state["velocity"], scale=-1 / rate) if rate > 0 else None


def _adam(
    checkpoint: Checkpoint, state: Mapping[str, LazyTensor], name: str, parameter_group: str
) -> Direction | str | None:
    if name and ("adam" not in name or any(word in name for word in NOT_ADAM)):
        return f"no rule to read the direction of {name} from its state"
    numbers = [setting(checkpoint, word, parameter_group) for word in ("beta1", "beta2", "eps")]
    beta1, beta2, eps = (x if isinstance(x, float) else None for x in numbers)
    if "step" not in state or beta1 is None or beta2 is None or eps is None:
        return "Adam's step, beta1, beta2 and eps are not all saved: its means cannot be corrected"
    step = float(state["step"].read().reshape(-1)[0])
    if step < 1:
        return None
    second = state.get("max_exp_avg_sq", state["exp_avg_sq"])
    root = (1 - beta2**step) ** -0.5
    inside = checkpoint.framework in ("keras", "tensorflow")  # they add eps before v is corrected
    return Direction(state["exp_avg"], second, 1 / (1 - beta1**step), root, eps * root if inside else eps)


def setting(checkpoint: Checkpoint, name: str, parameter_group: str) -> float | str | None:
    """A hyperparameter of a parameter group: its own before that of all groups, in force before configured."""
    found = [s for s in checkpoint.settings if s.name == name and s.parameter_group in ("", parameter_group)]
    if not found:
        return None
    best = min(found, key=lambda s: (KINDS[s.kind], s.parameter_group != parameter_group))
    return float(best.value) if best.value is not None else best.text
